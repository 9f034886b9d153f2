"""``scan``: a loop over time steps that a user writes, with JAX's signature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slalom.core import tree
from slalom.core.functional.creation import empty
from slalom.core.functional.shaping import stack
from slalom.core.graph import Type
from slalom.core.scan import loop
from slalom.core.step import body_with, in_step
from slalom.core.tensor import Tensor, as_tensor
from slalom.errors import ConfigError, DTypeError, ShapeError

__all__ = ["scan"]

Step = Callable[[Any, Any], tuple[Any, Any]]


def scan(f: Step, init: Any, xs: Any = None, length: int | None = None, reverse: bool = False) -> tuple[Any, Any]:
    """``carry, y = f(carry, x)`` for each x of ``xs`` along its first axis: the last carry, and all y stacked.

    ``init``, ``xs`` and the y may be tensors, arrays and numbers, or lists, tuples and dicts of them; without ``xs``,
    ``length`` says how often. ``reverse`` begins at the end. ``f`` is recorded once and taken as often as there are
    steps: a compiled program does not grow with them, and derivatives keep what the way back needs. It may read tensors
    from outside (weights), but write into none, nor draw random numbers.

    Shapes: ``xs`` (T, …), each x (…); each carry as in ``init``; y (…) → (T, …).
    Raises: ShapeError where a carry comes out with another shape or dtype; StagingError for a branch on a value, a
    random number, or a write into a tensor from outside.
    Note: where not all that is floating, and all carries and y, have one dtype, and inside the step of another loop,
    the steps are taken one by one, and ``f`` is called for each. An in-place operation on the carry changes what the
    step sees, not ``init``. A carry that the loss does not read still has a last step: where that is singular (√0),
    0 · ∞ makes the gradient NaN, as in JAX.
    Source: JAX, ``jax.lax.scan``.

    >>> from slalom import tensor
    >>> scan(lambda total, x: (total + x, total * x), tensor(0.0), tensor([1.0, 2.0, 3.0]))
    (tensor(6.), tensor([0., 2., 9.]))
    """
    init, xs = [tree.map(as_tensor, value, also_numbers=True) for value in (init, xs)]
    carries, pieces = tree.leaves(init), tree.leaves(xs)
    steps = _length(pieces, length)

    def call(*given: Tensor) -> tuple[list[Tensor], Any]:
        now, row = iter(given[: len(carries)]), iter(given[len(carries) :])
        out: Any = f(tree.map(lambda _: next(now), init), tree.map(lambda _: next(row), xs))
        if not isinstance(out, tuple) or len(out) != 2:
            raise DTypeError("scan: what f returns", got=type(out).__name__, needed="a pair of the carry and y")
        return _checked(out[0], init, carries), tree.map(as_tensor, out[1], also_numbers=True)

    found: list[Any] = []

    def step(*given: Tensor) -> list[Tensor]:
        new, y = call(*given)
        found[:] = [y]
        return [*new, *tree.leaves(y)]

    if in_step():
        return _one_by_one(call, init, carries, pieces, steps, reverse)
    body, fixed = body_with(step, [_type(t) for t in carries], [_type(t, 1) for t in pieces])
    y = found.pop()
    if not steps:
        rows = [empty(0, *of.shape, dtype=of.dtype) for of in body.outputs[len(carries) :]]
        return tree.map(lambda t: t.clone(), init), _rebuilt(y, rows)
    floats = {t.dtype for t in (*carries, *pieces, *fixed) if t.dtype.kind == "f"}
    if not carries or len(floats) != 1 or {of.dtype for of in body.outputs} != floats:
        return _one_by_one(call, init, carries, pieces, steps, reverse)
    rows = loop(body, carries, pieces, fixed, steps=steps, reverse=reverse)
    last = [t.narrow(0, 0 if reverse else steps, 1).squeeze(0) for t in rows[: len(carries)]]
    return _rebuilt(init, last), _rebuilt(y, rows[len(carries) :])


def _one_by_one(
    call: Callable[..., tuple[list[Tensor], Any]], init: Any, carries: list[Tensor], pieces: list[Tensor], steps: int,
    reverse: bool,
) -> tuple[Any, Any]:  # fmt: skip
    outs, y = [], None
    for t in reversed(range(steps)) if reverse else range(steps):
        carries, y = call(*carries, *(x[t] for x in pieces))
        outs.append(tree.leaves(y))
    rows = [stack(row[::-1] if reverse else row) for row in zip(*map(list, outs), strict=True)]
    return _rebuilt(init, carries), _rebuilt(y, rows)


def _length(pieces: list[Tensor], length: int | None) -> int:
    for x in pieces:
        if not x.ndim:
            raise ShapeError("scan: xs", got="a 0-d tensor", needed="steps along the first axis")
    if length is not None and (type(length) is not int or length < 0):
        raise ConfigError("scan: length", got=repr(length), needed="a whole number, 0 or more")
    sizes = {x.shape[0] for x in pieces} | ({length} if length is not None else set())
    if not sizes:
        raise ConfigError("scan: length", got="neither xs nor length", needed="one of them")
    if len(sizes) > 1:
        raise ShapeError("scan: xs", got=f"lengths {sorted(sizes)}", needed="the same number of steps everywhere")
    (steps,) = sizes
    return steps


def _checked(new: Any, init: Any, carries: list[Tensor]) -> list[Tensor]:
    """The new carries, which must be like those before."""
    what = "scan: the carry that f returns"
    found = [as_tensor(t, was) for t, was in zip(tree.matched(new, init, what), carries, strict=True)]
    if len(tree.leaves(new)) > len(found):
        raise ShapeError(what, got=f"{len(tree.leaves(new))} tensors", needed=f"{len(found)}, as in init")
    for t, was in zip(found, carries, strict=True):
        if _type(t) != _type(was):
            raise ShapeError(what, got=_type(t), needed=f"{_type(was)}, as in init")
    return found


def _type(t: Tensor, first: int = 0) -> Type:
    return Type(t.shape[first:], t.dtype)


def _rebuilt(like: Any, values: list[Tensor]) -> Any:
    given = iter(values)
    return tree.map(lambda _: next(given), like)

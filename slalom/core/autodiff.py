"""Differentiation: two walks over the same tape, and the functions that users call.

The tape is the graph of Nodes. Reverse mode walks it from the newest node to the oldest with vjp, forward mode from
the oldest to the newest with jvp. Rules are ordinary Tensor operations; with ``create_graph`` they are recorded
themselves, so derivatives nest to any depth and in any order.

Source: B. Pearlmutter and J. Siskind, Reverse-Mode AD in a Functional Framework, 2008, for nested perturbations, which
are kept apart here by giving each differentiated argument an identity of its own.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from slalom.core import tree
from slalom.core.node import MODE, Mode, Node
from slalom.core.ops.structural import ALIAS
from slalom.core.primitive import Array
from slalom.core.tensor import Tensor, apply, as_tensor, method
from slalom.errors import DTypeError, GradError, ShapeError

F = TypeVar("F", bound=Callable[..., Any])


# --- grad mode ----------------------------------------------------------------------------------------------------
class _GradMode:
    """A context manager, usable as a decorator with or without parentheses, that sets whether gradients are recorded."""

    enabled: bool

    def __new__(cls, function: Any = None) -> Any:
        made = super().__new__(cls)
        if callable(function):
            cls.__init__(made)
            return made(function)
        return made

    def __init__(self, function: Any = None) -> None:
        self._tokens: list[Any] = []

    def __enter__(self) -> None:
        self._tokens.append(MODE.set(MODE.get()._replace(grad=self.enabled)))

    def __exit__(self, *exc: object) -> None:
        MODE.reset(self._tokens.pop())

    def __call__(self, function: F) -> F:
        kind = type(self)

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with kind():
                return function(*args, **kwargs)

        return run  # type: ignore[return-value]


class no_grad(_GradMode):  # noqa: N801 (PyTorch's name)
    """Record nothing for backward inside this block or function."""

    enabled = False


class enable_grad(_GradMode):  # noqa: N801
    """Record for backward inside this block or function, also within ``no_grad``."""

    enabled = True


class set_grad_enabled:  # noqa: N801
    """Switch recording on or off, at once; as a context manager, until the end of the block."""

    def __init__(self, mode: bool) -> None:
        self._token = MODE.set(MODE.get()._replace(grad=mode))

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        MODE.reset(self._token)


def is_grad_enabled() -> bool:
    """Whether operations are being recorded for backward."""
    return MODE.get().grad


# --- the walks ----------------------------------------------------------------------------------------------------
def _reachable(roots: Iterable[Node]) -> list[Node]:
    """The live nodes that ``roots`` were made from, and themselves, oldest first."""
    seen: set[Node] = set()
    stack = [node for node in roots if node.live]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(source for source in node.inputs if source.live)
    return sorted(seen, key=lambda node: node.time)


def _dependent(order: list[Node], on: Iterable[Node]) -> set[Node]:
    """Those nodes of ``order`` (oldest first) that were made from one of ``on``, and these themselves."""
    found = set(on)
    for node in order:
        if node not in found and not found.isdisjoint(node.inputs):
            found.add(node)
    return found


class _Buffer:
    """An adjoint summed in place: T slices of one tensor cost one buffer, not T padded copies."""

    __slots__ = ("array",)

    def __init__(self, held: Tensor | None, node: Node) -> None:
        self.array: Array = np.zeros(node.shape, node.dtype) if held is None else held._storage.array.copy()


def _reverse(seeds: dict[Node, Tensor], wanted: set[Node] | None, *, create_graph: bool) -> dict[Node, Tensor]:
    """Adjoints of the wanted nodes (None: of all that have an owner) for adjoints of some newer nodes."""
    order = _reachable(seeds)
    needed = None if wanted is None else _dependent(order, wanted)
    adjoints: dict[Node, Tensor | _Buffer] = dict(seeds)
    found: dict[Node, Tensor] = {}
    mode = MODE.get()
    in_place = not create_graph and mode.trace is None
    token = MODE.set(Mode(create_graph, mode.trace))
    try:
        for node in reversed(order):
            held = adjoints.pop(node, None)
            if held is None:
                continue
            ct = Tensor._of(held.array) if isinstance(held, _Buffer) else held
            if node.owner is not None if wanted is None else node in wanted:
                found[node] = ct
            if node.prim is not None:
                _pull_back(node, ct, adjoints, needed, in_place)
    finally:
        MODE.reset(token)
    return found


def _pull_back(
    node: Node, ct: Tensor, adjoints: dict[Node, Tensor | _Buffer], needed: set[Node] | None, in_place: bool
) -> None:
    """Add this node's share to the adjoints of its inputs."""
    if node.freed:
        raise GradError(
            "backward a second time through the same values, which the first one freed",
            hint="give retain_graph=True to the first backward()",
        )
    prim, kind = node.prim, node.prim.kind  # type: ignore[union-attr]
    assert prim is not None
    out = Tensor._saved(node, node.time)
    inputs = [Tensor._saved(source, node.time) for source in node.inputs]
    for i, source in enumerate(node.inputs):
        if not source.live or not kind.differentiable(i) or (needed is not None and source not in needed):
            continue
        held = adjoints.get(source)
        if in_place and prim.add_into is not None:
            if not isinstance(held, _Buffer):
                held = adjoints[source] = _Buffer(held, source)
            prim.add_into(held.array, ct._storage.array, *[t._storage.array for t in inputs[1:]], **node.params)
            continue
        part = kind.vjp(prim, i, ct, out, inputs, node.params)
        if part.shape != source.shape:
            part = part.sum_to_size(source.shape)
        if held is None:
            adjoints[source] = part
        elif isinstance(held, _Buffer):
            held.array += part._storage.array
        else:
            adjoints[source] = held + part


def _forward(seeds: dict[Node, Tensor], outputs: Sequence[Node]) -> list[Tensor | None]:
    """Tangents of ``outputs`` for tangents of some older nodes; None is zero."""
    order = _reachable(outputs)
    needed = _dependent(order, seeds)
    tangents: dict[Node, Tensor] = dict(seeds)
    for node in order:
        if node not in needed or node in seeds or node.prim is None:
            continue
        inputs = [Tensor._saved(source, node.time) for source in node.inputs]
        ts = [tangents.get(s) if node.prim.kind.differentiable(i) else None for i, s in enumerate(node.inputs)]
        if all(t is None for t in ts):
            continue
        made = node.prim.kind.jvp(node.prim, ts, Tensor._saved(node, node.time), inputs, node.params)
        if made is not None:
            tangents[node] = made if made.shape == node.shape else made.expand(node.shape)
    return [tangents.get(node) for node in outputs]


# --- PyTorch's surface --------------------------------------------------------------------------------------------
@method
def backward(
    self: Tensor, gradient: Tensor | None = None, retain_graph: bool | None = None, create_graph: bool = False
) -> None:
    """Add d self / d leaf to ``.grad`` of every leaf that requires gradients (times ``gradient``; default 1).

    The recorded values are freed unless ``retain_graph`` or ``create_graph``; then a second call is an error.

    Raises: GradError if nothing is recorded, or if a value that is needed was overwritten in place.
    """
    if not self.requires_grad:
        raise GradError(
            "backward() of a tensor that does not require gradients",
            hint="no input has requires_grad=True, it was computed under no_grad(), or it is the result of a compiled "
            "function (call backward inside that)",
        )
    seed = _seed(self, gradient)
    node = _node(self)
    retain = create_graph if retain_graph is None else retain_graph
    found = _reverse({node: seed}, None, create_graph=create_graph)
    given = {id(seed._storage)}
    for leaf, ct in found.items():
        owner = leaf.owner and leaf.owner()
        if owner is None:
            continue
        held = owner.grad
        if held is not None:
            owner.grad = held + ct
            continue
        if id(ct._storage) in given or ct._storage.root is not None:
            ct = apply(ALIAS, ct)  # two leaves never share a gradient's buffer
        given.add(id(ct._storage))
        owner.grad = ct
    if not retain:
        _free([node])


@method
def retain_grad(self: Tensor) -> None:
    """Keep ``.grad`` of this tensor too at backward, though it is not a leaf."""
    if not self.requires_grad:
        raise GradError("retain_grad() of a tensor that does not require gradients")
    node = _node(self)
    if node.owner is None:
        node.owner = weakref.ref(self)


@method
def requires_grad_(self: Tensor, requires_grad: bool = True) -> Tensor:
    """Set ``requires_grad`` and return the tensor."""
    self.requires_grad = requires_grad
    return self


def _free(roots: Iterable[Node]) -> None:
    """Release a tape that backward has walked; a trace keeps its nodes, which are the graph."""
    staging = MODE.get().trace is not None
    for node in _reachable(roots):
        if node.prim is not None:
            node.free(keep_inputs=staging)


def _node(t: Tensor) -> Node:
    trace = MODE.get().trace
    return trace.lift(t) if trace is not None else t._node or t._leaf()


def _seed(out: Tensor, gradient: Tensor | None) -> Tensor:
    if gradient is None:
        if out.shape and out._storage.array.size != 1:
            raise GradError(
                "backward of a tensor that is not a scalar", got=f"shape {out.shape}", hint="give the gradient argument"
            )
        return Tensor._of(np.ones(out.shape, out.dtype))
    gradient = as_tensor(gradient, out)
    if gradient.shape != out.shape:
        raise ShapeError("backward: gradient", got=gradient.shape, needed=out.shape)
    return gradient.to(out.dtype)


def grad_of(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """Gradients of the sum of ``outputs`` with respect to ``inputs``, as values (``torch.autograd.grad``).

    Raises: GradError if an input was not used and ``allow_unused`` is False.
    """
    outs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    ins = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    cts = [grad_outputs] if grad_outputs is None or isinstance(grad_outputs, Tensor) else list(grad_outputs)
    cts = cts * len(outs) if len(cts) == 1 else cts
    seeds: dict[Node, Tensor] = {}
    for out, ct in zip(outs, cts, strict=True):
        if not out.requires_grad:
            raise GradError("grad: an output does not require gradients")
        node, seed = _node(out), _seed(out, ct)
        seeds[node] = seeds[node] + seed if node in seeds else seed
    wanted = [_node(t) for t in ins]
    found = _reverse(seeds, set(wanted), create_graph=create_graph)
    for t, node in zip(ins, wanted, strict=True):
        if node not in found and not allow_unused:
            raise GradError(
                f"grad: an input of shape {t.shape} was not used to compute the outputs, or does not require gradients",
                hint="allow_unused=True gives None for it",
            )
    if not (create_graph if retain_graph is None else retain_graph):
        _free(seeds)
    return tuple(found.get(node) for node in wanted)


# --- JAX's surface ------------------------------------------------------------------------------------------------
def _fresh(t: Tensor) -> Tensor:
    """``t`` under a new identity of its own, through which gradients flow."""
    if not isinstance(t, Tensor):
        t = as_tensor(t)
    if t.dtype.kind != "f":
        raise DTypeError("differentiation", got=f"an argument of dtype {t.dtype.name}", needed="a floating dtype")
    trace = MODE.get().trace
    if trace is not None:
        return trace.fresh(t)
    node = Node(ALIAS, (t._node or t._leaf(),), {}, t._storage, True)  # type: ignore[arg-type]
    return Tensor._handle(t._storage, node, True)


def _settle(values: Any, own: set[Node]) -> Any:
    """Results that depend on no outer variable, freed from the tape that computed them."""

    def settled(t: Tensor) -> Tensor:
        if MODE.get().trace is not None or not t.requires_grad:
            return t
        for node in _reachable([_node(t)]):
            outer = node.inputs[0].live if node in own else node.prim is None
            if outer:
                return t
        return Tensor._handle(t._storage, None, False)

    return tree.map(settled, values)


def _call(function: Callable[..., Any], args: Sequence[Any], argnums: Sequence[int]) -> tuple[Any, Any, set[Node]]:
    """Run ``function`` with fresh identities for the arguments to differentiate."""
    given = list(args)
    for i in argnums:
        given[i] = tree.map(_fresh, given[i], also_numbers=True)
    leaves = [leaf for i in argnums for leaf in tree.leaves(given[i])]
    with enable_grad():
        out = function(*given)
    return out, [given[i] for i in argnums], {_node(leaf) for leaf in leaves}


def _pull(outputs: Any, cotangents: Any, inputs: Any) -> Any:
    """Cotangents of ``inputs`` (a tree), recorded; zero where an input was not used. No cotangent means 1."""
    seeds: dict[Node, Tensor] = {}
    outs = tree.leaves(outputs)
    cts = [None] * len(outs) if cotangents is None else tree.leaves(cotangents, also_numbers=True)
    for out, ct in zip(outs, cts, strict=True):
        if out.requires_grad:
            node, seed = _node(out), _seed(out, ct)
            seeds[node] = seeds[node] + seed if node in seeds else seed
    found = _reverse(seeds, {_node(t) for t in tree.leaves(inputs)}, create_graph=True)
    return tree.map(lambda t: found[_node(t)] if _node(t) in found else t.detach()._zeros(), inputs)


def value_and_grad(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """A function that returns ``(function(*args), gradient)``; the value must be a scalar.

    ``argnums``: which arguments to differentiate; each may be a tensor, a number, or a list, tuple or dict of them.
    ``has_aux``: the function returns ``(value, anything else)``.

    Raises: GradError when the value is not a scalar; DTypeError for integer arguments.

    >>> value_and_grad(lambda x: x * x)(3.0)
    (tensor(9.), tensor(6.))
    """
    numbers = [argnums] if isinstance(argnums, int) else list(argnums)

    @functools.wraps(function)
    def run(*args: Any) -> tuple[Any, Any]:
        out, inputs, own = _call(function, args, numbers)
        value = out[0] if has_aux else out
        if not isinstance(value, Tensor) or value.shape != ():
            got = f"shape {value.shape}" if isinstance(value, Tensor) else type(value).__name__
            raise GradError("grad: the function's value", got=got, needed="a scalar tensor", hint="jacobian or vjp")
        grads = _pull(value, None, inputs)
        answer = grads[0] if isinstance(argnums, int) else tuple(grads)
        return _settle((out, answer), own)  # type: ignore[no-any-return]

    return run


def grad(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that returns the gradient of a scalar-valued function (see ``value_and_grad``).

    >>> grad(grad(lambda x: x ** 3))(2.0)
    tensor(12.)
    """
    both = value_and_grad(function, argnums, has_aux)

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        out, answer = both(*args)
        return (answer, out[1]) if has_aux else answer

    return run


def vjp(function: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., tuple[Any, ...]]]:
    """``(function(*primals), pullback)``: pullback(ct) gives ctᵀ·J as a tuple, one entry a primal; reverse mode."""
    out, inputs, own = _call(function, primals, range(len(primals)))

    def pullback(cotangent: Any) -> tuple[Any, ...]:
        return tuple(_settle(_pull(out, cotangent, inputs), own))

    return _settle(out, own), pullback


def jvp(function: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """``(function(*primals), J·tangents)``; forward mode: one walk along the tape, oldest node first."""
    out, inputs, own = _call(function, primals, range(len(primals)))
    seeds: dict[Node, Tensor] = {}
    for t, tangent in zip(tree.leaves(inputs), tree.leaves(list(tangents), also_numbers=True), strict=True):
        value = as_tensor(tangent, t)
        if value.shape != t.shape:
            raise ShapeError("jvp: tangent", got=value.shape, needed=t.shape)
        seeds[_node(t)] = value.to(t.dtype)
    with enable_grad():
        moved = iter(_forward(seeds, [_node(t) for t in tree.leaves(out)]))

    def tangent_of(t: Tensor) -> Tensor:
        made = next(moved)
        return t.detach()._zeros() if made is None else made

    return _settle((out, tree.map(tangent_of, out)), own)  # type: ignore[no-any-return]


def jacobian(function: Callable[[Any], Tensor], mode: str = "reverse") -> Callable[[Any], Tensor]:
    """A function that returns the matrix of derivatives, of shape (*output shape, *input shape).

    ``mode``: "reverse" takes one walk per output element, "forward" one per input element.
    """
    if mode not in ("reverse", "forward"):
        raise GradError("jacobian: mode", got=mode, needed="'reverse' or 'forward'")

    @functools.wraps(function)
    def run(x: Any) -> Tensor:
        x = as_tensor(x)
        out, (given,), own = _call(function, [x], [0])
        count = out._storage.array.size if mode == "reverse" else x._storage.array.size
        shape, dtype = (out.shape, out.dtype) if mode == "reverse" else (x.shape, x.dtype)
        rows = []
        for k in range(count):
            basis = np.zeros(count, dtype)
            basis[k] = 1
            unit = Tensor._of(basis.reshape(shape))
            if mode == "reverse":
                rows.append(_pull([out], [unit], [given])[0])
            else:
                with enable_grad():
                    moved = _forward({_node(given): unit}, [_node(out)])[0]
                rows.append(out.detach()._zeros() if moved is None else moved)
        if not rows:
            return Tensor._of(np.zeros((*out.shape, *x.shape), out.dtype))
        table = _stack(rows)
        if mode == "forward":
            table = table.permute((*range(1, table.ndim), 0))
        return _settle(table.reshape((*out.shape, *x.shape)), own)  # type: ignore[no-any-return]

    return run


def _stack(rows: Sequence[Tensor]) -> Tensor:
    from_first, *rest = (row.reshape((1, *row.shape)) for row in rows)
    return from_first._concatenate(rest, 0) if rest else from_first


def hessian(function: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    """A function that returns the second derivatives of a scalar-valued function: forward over reverse."""
    return jacobian(grad(function), mode="forward")


def hvp(function: Callable[..., Tensor], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """``(gradient, Hessian·v)`` of a scalar-valued function, without the Hessian: forward over reverse."""
    numbers = tuple(range(len(primals)))
    return jvp(grad(function, numbers), primals, tangents)

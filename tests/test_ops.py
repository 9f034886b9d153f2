"""Every operation, by its row in ``table_ops`` (primitives) or ``table_functions`` (composites), on every sample.

Values against NumPy and PyTorch; derivatives against central differences, each other (⟨w, J·v⟩ = ⟨Jᵀ·w, v⟩) and in
every order of nesting; the staged graph against eager mode, bit for bit; the error texts.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import table_functions
import table_ops
from op_rows import Op, S, Wrong, made, torch

from slalom.compiler.stage import compile as staged
from slalom.core import autodiff, functional, tree
from slalom.core.functional.creation import tensor
from slalom.core.node import Abstract
from slalom.core.ops import TABLE
from slalom.core.primitive import Constant
from slalom.core.tensor import Tensor, apply
from slalom.errors import StagingError

CLOSE = 1e-9  # of float64 derivatives among each other
NUMERIC = 1e-6  # of central differences
needs_torch = pytest.mark.skipif(torch is None, reason="needs PyTorch")


class Case:
    """One sample of one row, ready to be run."""

    def __init__(self, op: Op, name: str) -> None:
        self.op, self.name, self.sample = op, name, op.samples[name]
        self.primitive = TABLE[op.name] if op in table_ops.ROWS else None
        function = table_functions.FUNCTIONS.get(op.name)
        self.call: Callable[..., Any] = function if self.primitive is None else self._apply

    def _apply(self, *inputs: Tensor, **params: Any) -> Tensor:
        return apply(self.primitive, *inputs, **params)

    def arguments(self, floating: str = "float64") -> tuple[tuple[Any, ...], dict[str, Any]]:
        return self.sample.make(self.op.name, self.name, floating)

    def run(self, convert: Callable[[np.ndarray], Any] = lambda array: Tensor._of(array), floating: str = "float64") -> Any:
        args, kwargs = swapped(self.arguments(floating), convert)
        return self.call(*args, **kwargs)

    def varied(self) -> tuple[Callable[..., list[Tensor]], list[np.ndarray]]:
        """The floating results as a function of the floating inputs alone, and those inputs."""
        arguments = self.arguments()
        inputs = [a for a in arrays(arguments) if a.dtype.kind == "f"]

        def function(*xs: Any) -> list[Tensor]:
            given = iter(xs)
            args, kwargs = swapped(arguments, lambda a: next(given) if a.dtype.kind == "f" else Tensor._of(a))
            return [t for t in tree.leaves(self.call(*args, **kwargs)) if t.dtype.kind == "f"]

        return function, inputs

    def reference(self) -> Any:
        function = self.op.ref or (self.primitive.impl if self.primitive is not None else None)
        args, kwargs = self.arguments()
        with np.errstate(all="ignore"):
            return function(*args, **kwargs)


def swapped(value: Any, function: Callable[[np.ndarray], Any]) -> Any:
    """A tree of arguments with ``function`` of its arrays."""
    if isinstance(value, np.ndarray):
        return function(value)
    if isinstance(value, (list, tuple)):
        return type(value)(swapped(item, function) for item in value)
    if isinstance(value, dict):
        return {key: swapped(item, function) for key, item in value.items()}
    return value


def arrays(value: Any) -> list[np.ndarray]:
    found: list[np.ndarray] = []
    swapped(value, found.append)
    return found


ROWS = (*table_ops.ROWS, *table_functions.ROWS)


def cases(check: str, wanted: Callable[[Op, S], bool] = lambda op, sample: True) -> list[Any]:
    """A test for each sample; those that a row excuses are expected to fail, with the row's reason."""
    found = []
    for op in ROWS:
        for name, sample in op.samples.items():
            reason = op.xfail.get(check) or op.xfail.get(f"{check}[{name}]")
            marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
            if wanted(op, sample):
                found.append(pytest.param(Case(op, name), id=f"{op.name}-{name}", marks=marks))
    return found


def differentiable(op: Op, sample: S) -> bool:
    return op.smooth and sample.smooth and any(a.dtype.kind == "f" for a in arrays(sample.make(op.name, "")))


def same(a: Any, b: Any, rtol: float = 0.0, atol: float = 0.0) -> None:
    """Values are equal (to a tolerance), NaN where NaN."""
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, equal_nan=True)


def identical(a: np.ndarray, b: np.ndarray) -> None:
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), f"{a}\n{b}"


def directions(like: list[Any], seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.uniform(-1, 1, x.shape) for x in like]


def inner(a: list[Any], b: list[Any]) -> float:
    return math.fsum(float(np.vdot(x, y)) for x, y in zip(a, b, strict=True))


def values(ts: list[Tensor]) -> list[np.ndarray]:
    return [t.detach().numpy() for t in ts]


# --- the tables are complete --------------------------------------------------------------------------------------
def test_every_primitive_has_a_row_and_every_row_a_primitive():
    assert [op.name for op in table_ops.ROWS] == list(dict.fromkeys(op.name for op in table_ops.ROWS))
    assert {op.name for op in table_ops.ROWS} == set(TABLE)


def test_every_function_has_a_row_and_every_row_a_function():
    modules = (functional.arithmetic, functional.shaping, functional.reduce, functional.indexing, functional.creation)
    public = {name for module in modules for name in module.__all__}
    names = [op.name for op in table_functions.ROWS]
    assert names == list(dict.fromkeys(names))
    assert set(names) | set(table_functions.ALIASES) == public
    for alias, name in table_functions.ALIASES.items():
        assert getattr(functional, alias, None) or True
        assert alias not in names, name


@pytest.mark.parametrize("op", ROWS, ids=lambda op: op.name)
def test_rows_have_at_least_six_samples(op):
    assert len(op.samples) >= 6


# --- values -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("case", cases("value"))
def test_value(case):
    out, expected = tree.leaves(case.run()), case.reference()
    expected = list(expected) if isinstance(expected, (list, tuple)) else [expected]
    assert len(out) == len(expected)
    for t, array in zip(out, expected, strict=True):
        assert t.shape == np.shape(array)
        if case.primitive is not None:
            assert t.dtype == np.asarray(array).dtype
        if case.op.ref is None:
            identical(t.numpy(), np.asarray(array))
        else:
            same(t.numpy(), array, rtol=1e-12, atol=1e-300 if case.primitive else 1e-12)


@pytest.mark.parametrize("case", [c for c in cases("rules") if c.values[0].primitive is not None])
def test_shape_and_dtype_rules_give_what_the_implementation_gives(case):
    for floating in ("float32", "float64"):
        inputs, params = case.arguments(floating)
        out = np.asarray(case.primitive.impl(*inputs, **params))
        operands = [Abstract(a.shape, a.dtype, None, "") for a in inputs]
        assert tuple(case.primitive.shape(*operands, **params)) == out.shape
        assert case.primitive.dtype(*operands, **params) == out.dtype
        assert all(a.dtype.kind in case.primitive.takes for a in inputs)


@pytest.mark.parametrize("case", cases("float32", lambda op, sample: any_float(op, sample)))
def test_float32(case):
    single, double = (tree.leaves(case.run(floating=floating)) for floating in ("float32", "float64"))
    for a, b in zip(single, double, strict=True):
        if b.dtype.kind == "f" and a.dtype != b.dtype:
            assert a.dtype == np.float32
            scale = np.abs(b.numpy(), where=np.isfinite(b.numpy()), out=np.ones(b.shape)).max(initial=1.0)
            same(a.numpy(), b.numpy(), rtol=2e-5, atol=2e-6 * scale)


def any_float(op: Op, sample: S) -> bool:
    return sample.smooth and any(a.dtype.kind == "f" for a in arrays(sample.make(op.name, "")))


# --- derivatives --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("case", cases("differences", differentiable))
def test_jvp_is_the_central_difference_and_vjp_its_transpose(case):
    f, xs = case.varied()
    vs = directions(xs, 1)
    out, moved = autodiff.jvp(lambda *ts: f(*ts), xs, vs)
    moved, h = values(moved), 1e-5
    up, down = (values(f(*(Tensor._of(x + s * h * v) for x, v in zip(xs, vs, strict=True)))) for s in (1, -1))
    for t, a, b in zip(moved, up, down, strict=True):
        same(t, (a - b) / (2 * h), rtol=NUMERIC, atol=NUMERIC)
    ws = directions(out, 2)
    _, pullback = autodiff.vjp(lambda *ts: f(*ts), *xs)
    pulled = values(list(pullback([Tensor._of(w) for w in ws])))
    left, right = inner(ws, moved), inner(pulled, vs)
    assert abs(left - right) <= CLOSE * max(1.0, abs(left))
    for x, g in zip(xs, pulled, strict=True):
        assert g.shape == x.shape and g.dtype == x.dtype


@pytest.mark.parametrize("case", cases("second order", differentiable))
def test_second_derivatives_agree_in_every_order_of_the_modes(case):
    f, xs = case.varied()
    ws, vs = directions(f(*map(Tensor._of, xs)), 3), directions(xs, 4)
    numbers = tuple(range(len(xs)))

    def weighted(ts: Any, by: list[np.ndarray]) -> Tensor:
        total = Tensor._of(np.zeros(()))
        for t, w in zip(ts, by, strict=True):
            total = total + (t * Tensor._of(w)).sum()
        return total

    def scalar(*ts: Tensor) -> Tensor:
        return weighted(f(*ts), ws)

    gradient = autodiff.grad(scalar, numbers)
    forward_reverse = values(list(autodiff.jvp(gradient, xs, vs)[1]))
    reverse_reverse = values(list(autodiff.grad(lambda *ts: weighted(gradient(*ts), vs), numbers)(*xs)))
    reverse_forward = values(list(autodiff.grad(lambda *ts: autodiff.jvp(scalar, ts, vs)[1], numbers)(*xs)))
    h = 1e-5
    up, down = (values(list(gradient(*(x + s * h * v for x, v in zip(xs, vs, strict=True))))) for s in (1, -1))
    for fr, rr, rf, a, b in zip(forward_reverse, reverse_reverse, reverse_forward, up, down, strict=True):
        scale = np.abs(fr).max(initial=1.0)
        same(rr, fr, rtol=CLOSE, atol=CLOSE * scale)
        same(rf, fr, rtol=CLOSE, atol=CLOSE * scale)
        same((a - b) / (2 * h), fr, rtol=10 * NUMERIC, atol=10 * NUMERIC * scale)


@pytest.mark.parametrize("op", [op for op in table_ops.ROWS if isinstance(TABLE[op.name].kind, Constant)], ids=lambda op: op.name)
def test_constants_record_nothing(op):
    assert not op.smooth
    for name in op.samples:
        out = Case(op, name).run(lambda a: Tensor(a, requires_grad=a.dtype.kind == "f"))
        assert not out.requires_grad and out.is_leaf


# --- staging ------------------------------------------------------------------------------------------------------
def gradients(case: Case, weights: list[np.ndarray]) -> Callable[..., Any]:
    f, _ = case.varied()

    def run(*xs: Tensor) -> Any:
        out = f(*xs)
        live = [(t, w) for t, w in zip(out, weights, strict=True) if t.requires_grad]
        if not live:
            return out
        ts, ws = zip(*live, strict=True)
        return out, autodiff.grad_of(ts, xs, [Tensor(w) for w in ws], allow_unused=True)

    return run


@pytest.mark.parametrize("case", cases("staged"))
def test_staged_is_eager_bit_for_bit(case):
    args, kwargs = swapped(case.arguments(), Tensor)
    step = staged(lambda args, kwargs: case.call(*args, **kwargs))
    if case.op.dynamic:
        with pytest.raises(StagingError):
            step(args, kwargs)
        return
    eager, replayed = case.call(*args, **kwargs), step(args, kwargs)
    step.graph.check()
    assert isinstance(str(step.graph), str)
    for a, b in zip(tree.leaves(eager), tree.leaves(replayed), strict=True):
        identical(a.numpy(), b.numpy())


@pytest.mark.parametrize("case", cases("staged gradient", lambda op, s: op.smooth and not op.dynamic))
def test_staged_gradients_are_eager_ones_bit_for_bit(case):
    f, xs = case.varied()
    weights = directions(f(*map(Tensor._of, xs)), 5)
    run = gradients(case, weights)
    eager, replayed = (function(*(Tensor(x, requires_grad=True) for x in xs)) for function in (run, staged(run)))
    for a, b in zip(tree.leaves(eager), tree.leaves(replayed), strict=True):
        identical(a.detach().numpy(), b.detach().numpy())


# --- PyTorch ------------------------------------------------------------------------------------------------------
def counterpart(op: Op) -> Callable[..., Any]:
    function = torch
    if callable(op.torch):
        return op.torch
    for part in op.torch.split("."):
        function = getattr(function, part)
    return function


def to_torch(value: Any, grad: bool = False) -> Any:
    if isinstance(value, np.ndarray):
        t = torch.from_numpy(np.array(value, order="C"))
        return t.requires_grad_(grad and t.is_floating_point())
    if isinstance(value, np.dtype):
        return getattr(torch, value.name)
    if isinstance(value, (list, tuple)):
        return type(value)(to_torch(item, grad) for item in value)
    return {key: to_torch(item, grad) for key, item in value.items()} if isinstance(value, dict) else value


def flat(value: Any) -> list[Any]:
    return [value] if isinstance(value, torch.Tensor) else [t for item in value for t in flat(item)]


@needs_torch
@pytest.mark.parametrize("case", cases("torch", lambda op, sample: op.torch is not None))
def test_torch_has_the_same_values_and_dtypes(case):
    args, kwargs = to_torch(case.arguments())
    theirs = flat(counterpart(case.op)(*args, **kwargs))
    ours = tree.leaves(case.run())
    assert [t.dtype.name for t in ours] == [str(t.dtype).removeprefix("torch.") for t in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == tuple(b.shape)
        same(a.numpy(), b.numpy(), rtol=1e-6 if a.dtype == np.float32 else 1e-11, atol=1e-14)


@needs_torch
@pytest.mark.parametrize("case", cases("torch gradient", lambda op, s: op.torch is not None and op.smooth))
def test_torch_has_the_same_gradients(case):
    args, kwargs = to_torch(case.arguments(), grad=True)
    theirs = [t for t in flat(counterpart(case.op)(*args, **kwargs)) if t.is_floating_point()]
    inputs = [t for t in _leaves(args, kwargs) if t.requires_grad]
    f, xs = case.varied()
    given = [Tensor(x, requires_grad=True) for x in xs]
    ours = f(*given)
    weights = directions(ours, 6)
    pairs = [(t, torch.from_numpy(np.array(w)).to(t.dtype)) for t, w in zip(theirs, weights, strict=True) if t.requires_grad]
    if not pairs:
        assert not any(t.requires_grad for t in ours) or not inputs
        return
    expected = torch.autograd.grad(*zip(*pairs, strict=True)[:0] or ([t for t, _ in pairs], inputs, [w for _, w in pairs]), allow_unused=True)
    live = [(t, Tensor(w)) for t, w in zip(ours, weights, strict=True) if t.requires_grad]
    got = autodiff.grad_of([t for t, _ in live], given, [w for _, w in live], allow_unused=True)
    for x, a, b in zip(xs, got, expected, strict=True):
        zeros = np.zeros(x.shape)
        same(zeros if a is None else a.numpy(), zeros if b is None else b.numpy(), rtol=1e-9, atol=1e-12)


def _leaves(*values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _leaves(*value)
        elif isinstance(value, dict):
            yield from _leaves(*value.values())

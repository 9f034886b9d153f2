"""Every operation, by its row in ``table_ops`` (primitives) or the other tables (composites), on every sample.

Values against NumPy and PyTorch; derivatives against central differences, each other (⟨w, J·v⟩ = ⟨Jᵀ·w, v⟩) and in
every order of nesting; the staged graph against eager mode, bit for bit; the error texts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import table_functions
import table_indexing
import table_ops
import table_shapes
from grouped import grouped
from op_rows import Op, S, Wrong, torch

from slalom.compiler.compile import compile as staged
from slalom.core import autodiff, tree
from slalom.core.functional import arithmetic, creation, indexing, padding, reduce, shaping
from slalom.core.node import Abstract
from slalom.core.ops import TABLE
from slalom.core.primitive import Constant
from slalom.core.tensor import Tensor, apply
from slalom.errors import StagingError

CLOSE = 1e-9  # of float64 derivatives among each other
NUMERIC = 1e-6  # of central differences, relative
STEP = 1e-5
MODULES = (arithmetic, shaping, padding, reduce, indexing, creation)
FUNCTIONS = {name: getattr(m, name) for m in MODULES for name in m.__all__}
COMPOSITES = (*table_functions.ROWS, *table_shapes.ROWS, *table_indexing.ROWS)
ROWS = (*table_ops.ROWS, *COMPOSITES)
needs_torch = pytest.mark.skipif(torch is None, reason="needs PyTorch")


class Case:
    """A row and one of its samples, ready to be run."""

    def __init__(self, op: Op, sample: S, name: str) -> None:
        self.op, self.sample, self.name = op, sample, name
        self.primitive = TABLE[op.name] if op in table_ops.ROWS else None
        self.call: Callable[..., Any] = FUNCTIONS[op.name] if self.primitive is None else self._apply

    def _apply(self, *inputs: Tensor, **params: Any) -> Tensor:
        assert self.primitive is not None
        return apply(self.primitive, *inputs, **params)

    def arguments(self, floating: str = "float64") -> tuple[tuple[Any, ...], dict[str, Any]]:
        return self.sample.make(self.op.name, self.name, floating)

    def run(self, floating: str = "float64", convert: Callable[[np.ndarray], Any] = Tensor._of) -> Any:
        args, kwargs = swapped(self.arguments(floating), (lambda a: a) if self.op.arrays else convert)
        return self.call(*args, **kwargs)

    def reference(self) -> list[Any]:
        args, kwargs = self.arguments()
        function = self.op.ref or (self.primitive.impl if self.primitive is not None else None)
        assert function is not None
        with np.errstate(all="ignore"):
            out = function(*args, **kwargs)
        return list(out) if isinstance(out, (list, tuple)) else [out]

    def varied(self) -> tuple[Callable[..., list[Tensor]], list[np.ndarray]]:
        """The floating results as a function of the floating inputs alone, and those inputs."""
        arguments = self.arguments()

        def function(*xs: Any) -> list[Tensor]:
            given = iter(xs)
            args, kwargs = swapped(arguments, lambda a: next(given) if is_float(a) else Tensor._of(a))
            return [t for t in tree.leaves(self.call(*args, **kwargs)) if is_float(t)]

        return function, [a for a in arrays(arguments) if is_float(a)]


def is_float(a: Any) -> bool:
    return bool(a.dtype.kind == "f")


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


def label(op: Op) -> str:
    return op.name if op in COMPOSITES else f"primitive {op.name}"


Wanted = Callable[[Case], bool]


def each(check: str, wanted: Wanted = lambda case: True, rows: Iterable[Op] = ROWS) -> Callable[[Any], Any]:
    """Makes of a check of one case a test for each row, of all its samples.

    Those that a row excuses are tests of their own, expected to fail, with the row's reason.
    """
    groups = []
    for op in rows:
        good = []
        for name, sample in op.samples.items():
            case = Case(op, sample, name)
            reason = op.xfail.get(check) or op.xfail.get(f"{check}[{name}]")
            if reason and wanted(case):
                marks = pytest.mark.xfail(reason=reason, strict=True)
                groups.append(pytest.param([(case,)], id=f"{label(op)}-{name}", marks=marks))
            elif wanted(case):
                good.append((case,))
        if good:
            groups.append(pytest.param(good, id=label(op)))
    return grouped(groups, lambda case: case.name)


def together(wanted: Wanted = lambda case: True) -> Any:
    """A test for each row, with a list of its samples."""
    found = [(op, [case for n, x in op.samples.items() if wanted(case := Case(op, x, n))]) for op in ROWS]
    own = [pytest.param(cases, id=label(op)) for op, cases in found if cases]
    return pytest.mark.parametrize("cases", own)


def takes_floats(case: Case) -> bool:
    return any(is_float(a) for a in arrays(case.arguments()))


def differentiable(case: Case) -> bool:
    return case.op.smooth and takes_floats(case)


def comparable_with_differences(case: Case) -> bool:
    return differentiable(case) and case.sample.smooth


def has_counterpart(case: Case) -> bool:
    return case.op.torch is not None


def same(a: Any, b: Any, rtol: float = 0.0, atol: float = 0.0) -> None:
    """Equal to a tolerance, and NaN where NaN."""
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, equal_nan=True)


def identical(a: np.ndarray, b: np.ndarray, name: str = "") -> None:
    assert (a.shape, a.dtype) == (b.shape, b.dtype), name
    assert np.array_equal(a, b, equal_nan=is_float(a)), f"{name}\n{a}\n{b}"


def directions(like: Iterable[Any], seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.uniform(-1, 1, x.shape) for x in like]


def values(ts: Iterable[Tensor]) -> list[np.ndarray]:
    return [t.detach().numpy() for t in ts]


def inner(a: Iterable[Any], b: Iterable[Any]) -> float:
    return math.fsum(float(np.vdot(x, y)) for x, y in zip(a, b, strict=True))


# --- the tables are complete --------------------------------------------------------------------------------------
def test_every_primitive_has_a_row_and_every_row_a_primitive():
    assert sorted(op.name for op in table_ops.ROWS) == sorted(TABLE)


def test_every_function_has_a_row_and_every_row_a_function():
    elsewhere = {**table_functions.ALIASES, **table_functions.ELSEWHERE}
    assert sorted([*(op.name for op in COMPOSITES), *elsewhere]) == sorted(FUNCTIONS)
    for alias, name in table_functions.ALIASES.items():
        assert FUNCTIONS[alias] is FUNCTIONS[name]


def test_rows_have_at_least_six_samples():
    assert [label(op) for op in ROWS if len(op.samples) < 6] == []


# --- values -------------------------------------------------------------------------------------------------------
@each("value")
def test_value(case):
    out, expected = tree.leaves(case.run()), case.reference()
    assert len(out) == len(expected)
    for t, array in zip(out, expected, strict=True):
        assert t.shape == np.shape(array)
        if case.op.ref is None:
            identical(t.detach().numpy(), np.asarray(array))
        else:
            close = 1e-12 if t.dtype != np.float32 else 3e-7
            same(t.detach().numpy(), array, rtol=close, atol=close)


@each("rules", rows=table_ops.ROWS)
def test_shape_and_dtype_rules_give_what_the_implementation_gives(case):
    for floating in ("float32", "float64"):
        inputs, params = case.arguments(floating)
        out = np.asarray(case.primitive.impl(*inputs, **params))
        operands = [Abstract(a.shape, a.dtype, None, "") for a in inputs]
        assert tuple(case.primitive.shape(*operands, **params)) == out.shape
        assert case.primitive.dtype(*operands, **params) == out.dtype
        assert all(a.dtype.kind in case.primitive.takes for a in inputs)


@each("float32", comparable_with_differences)
def test_float32(case):
    single, double = (tree.leaves(case.run(floating)) for floating in ("float32", "float64"))
    for a, b in zip(single, double, strict=True):
        if a.dtype != b.dtype:
            assert (a.dtype, b.dtype) == (np.float32, np.float64)
            largest = np.abs(b.numpy()).max(initial=1.0, where=np.isfinite(b.numpy()))
            same(a.numpy(), b.numpy(), rtol=2e-5, atol=2e-6 * largest)
    given = [Tensor(a, requires_grad=is_float(a)) for a in arrays(case.arguments("float32"))]
    again = iter(given)
    args, kwargs = swapped(case.arguments("float32"), lambda a: next(again))
    for t in tree.leaves(case.call(*args, **kwargs)):
        if t.requires_grad:
            t.sum().backward(retain_graph=True)
    assert all(t.grad is None or t.grad.dtype == t.dtype for t in given)


# --- derivatives --------------------------------------------------------------------------------------------------
@each("differences", comparable_with_differences)
def test_jvp_is_the_central_difference_and_vjp_its_transpose(case):
    f, xs = case.varied()
    vs = directions(xs, 1)
    out, tangents = autodiff.jvp(f, xs, vs)
    moved = values(tangents)
    up, down = (values(f(*(Tensor._of(x + d * v) for x, v in zip(xs, vs, strict=True)))) for d in (STEP, -STEP))
    for t, a, b in zip(moved, up, down, strict=True):
        same(t, (a - b) / (2 * STEP), rtol=NUMERIC, atol=NUMERIC)
    ws = directions(out, 2)
    pulled = values(autodiff.vjp(f, *xs)[1]([Tensor._of(w) for w in ws]))
    left, right = inner(ws, moved), inner(pulled, vs)
    assert abs(left - right) <= CLOSE * max(1.0, abs(left))
    assert [(g.shape, g.dtype) for g in pulled] == [(x.shape, x.dtype) for x in xs]


def weighted(ts: Iterable[Tensor], ws: Iterable[np.ndarray]) -> Tensor:
    total = Tensor._of(np.zeros(()))
    for t, w in zip(ts, ws, strict=True):
        total = total + (t * Tensor._of(w)).sum()
    return total


@each("second order", comparable_with_differences)
def test_second_derivatives_agree_in_every_order_of_the_modes(case):
    f, xs = case.varied()
    numbers = tuple(range(len(xs)))
    ws, vs = directions(f(*map(Tensor._of, xs)), 3), directions(xs, 4)

    def scalar(*ts: Tensor) -> Tensor:
        return weighted(f(*ts), ws)

    gradient = autodiff.grad(scalar, numbers)
    forward_over_reverse = values(autodiff.jvp(gradient, xs, vs)[1])
    reverse_over_reverse = values(autodiff.grad(lambda *ts: weighted(gradient(*ts), vs), numbers)(*xs))
    reverse_over_forward = values(autodiff.grad(lambda *ts: autodiff.jvp(scalar, ts, vs)[1], numbers)(*xs))
    up, down = (values(gradient(*(x + d * v for x, v in zip(xs, vs, strict=True)))) for d in (STEP, -STEP))
    for i, expected in enumerate(forward_over_reverse):
        scale = np.abs(expected).max(initial=1.0)
        same(reverse_over_reverse[i], expected, rtol=CLOSE, atol=CLOSE * scale)
        same(reverse_over_forward[i], expected, rtol=CLOSE, atol=CLOSE * scale)
        same((up[i] - down[i]) / (2 * STEP), expected, rtol=10 * NUMERIC, atol=10 * NUMERIC * scale)


@pytest.mark.parametrize("op", [op for op in table_ops.ROWS if not op.smooth], ids=lambda op: op.name)
def test_what_has_no_derivative_records_nothing(op):
    assert isinstance(TABLE[op.name].kind, Constant)
    for name, sample in op.samples.items():
        out = Case(op, sample, name).run(convert=lambda a: Tensor(a, requires_grad=is_float(a)))
        assert not out.requires_grad and out.is_leaf


# --- staging ------------------------------------------------------------------------------------------------------
@together(lambda case: not case.op.dynamic)
def test_staged_is_eager_bit_for_bit(cases):
    """All samples of a row in one graph."""
    arguments = [case.arguments() for case in cases]
    if not cases[0].op.arrays:
        arguments = [swapped(given, Tensor._of) for given in arguments]  # one layout for both: it may decide a last bit

    def call(arguments: Any) -> Any:
        return [case.call(*args, **kwargs) for case, (args, kwargs) in zip(cases, arguments, strict=True)]

    step = staged(call)
    eager, replayed = call(arguments), step(arguments)
    step.graph.check()
    for case, ours, theirs in zip(cases, replayed, eager, strict=True):
        for a, b in zip(tree.leaves(ours), tree.leaves(theirs), strict=True):
            identical(a.detach().numpy(), b.detach().numpy(), case.name)


@each("dynamic", lambda case: case.op.dynamic)
def test_what_depends_on_values_is_refused_while_staging(case):
    args, kwargs = case.arguments()
    given = () if case.op.arrays else (args, kwargs)

    def call(*given: Any) -> Any:
        own_args, own_kwargs = given or (args, kwargs)
        return case.call(*own_args, **own_kwargs)

    with pytest.raises(StagingError):
        staged(call)(*given)


def pulled_back(case: Case, weights: list[np.ndarray]) -> Callable[..., Any]:
    """The gradients of all inputs for given weights of the outputs."""
    f, _ = case.varied()
    given = [Tensor(w) for w in weights]

    def run(*xs: Tensor) -> Any:
        live = [(t, w) for t, w in zip(f(*xs), given, strict=True) if t.requires_grad]
        outs, ws = [t for t, _ in live], [w for _, w in live]
        return autodiff.grad_of(outs, xs, ws, allow_unused=True) if live else ()

    return run


@together(lambda case: differentiable(case) and not case.op.dynamic)
def test_staged_gradients_are_eager_bit_for_bit(cases):
    """All samples of a row in one graph."""
    runs, inputs = [], []
    for case in cases:
        f, xs = case.varied()
        runs.append(pulled_back(case, directions(f(*map(Tensor._of, xs)), 5)))
        inputs.append([Tensor._of(x).requires_grad_() for x in xs])

    def call(inputs: list[list[Tensor]]) -> Any:
        return [run(*xs) for run, xs in zip(runs, inputs, strict=True)]

    for case, ours, theirs in zip(cases, staged(call)(inputs), call(inputs), strict=True):
        for a, b in zip(tree.leaves(ours), tree.leaves(theirs), strict=True):
            identical(a.numpy(), b.numpy(), case.name)


# --- scalar expressions and index maps: what machine code is made from ----------------------------------------------
ENVIRONMENT: dict[str, Any] = {name: getattr(math, name) for name in ("floor", "expm1", "log", "log1p", "sqrt")} | {
    "__builtins__": {},
    **{name: getattr(math, name) for name in ("exp", "tanh", "erf", "sin", "cos")},
    "abs": abs,
    "maximum": lambda x, y: x if x != x or x > y else y,
    "sign": lambda x: x if x != x else (x > 0) - (x < 0),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)) if x > -700 else math.exp(x),
    "softplus": lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x))) if x == x else x,
}
ENVIRONMENT["minimum"] = lambda x, y: -ENVIRONMENT["maximum"](-x, -y)


def scalars_of(array: np.ndarray) -> list[Any]:
    flat = array.ravel()
    return list(flat) if flat.dtype.kind == "b" else flat.tolist()  # Python's ~True is −2


@each("expr", lambda case: case.primitive.expr is not None, table_ops.ROWS)
def test_scalar_expression_agrees_with_the_implementation(case):
    inputs, _ = case.arguments()
    out = np.asarray(case.primitive.impl(*inputs))
    checked = 0
    for *scalars, expected in zip(*map(scalars_of, np.broadcast_arrays(*inputs, out)), strict=True):
        try:
            got = eval(case.primitive.expr, ENVIRONMENT, dict(zip("xyz", scalars, strict=False)))
        except (ArithmeticError, ValueError):  # Python raises where IEEE has inf or nan
            continue
        if isinstance(got, complex):  # a negative number to a broken power
            continue
        same(np.array(got).astype(out.dtype), expected, rtol=4e-16)
        checked += 1
    assert checked >= out.size / 3


@each("index", lambda case: case.primitive.index is not None, table_ops.ROWS)
def test_index_map_agrees_with_the_implementation(case):
    inputs, params = case.arguments()
    out = np.asarray(case.primitive.impl(*inputs, **params))
    for place in np.ndindex(*out.shape):
        source = case.primitive.index(place, *(a.shape for a in inputs), **params)
        expected = 0 if source is None else inputs[source[0]][source[1]]
        same(out[place], expected)


# --- errors -------------------------------------------------------------------------------------------------------
def wrong_inputs(wanted: Callable[[Op, Wrong], bool] = lambda op, wrong: True) -> list[Any]:
    found = []
    for op in ROWS:
        for i, wrong in enumerate(w for w in op.errors if wanted(op, w)):
            found.append(pytest.param(Case(op, wrong.sample, "wrong"), wrong, id=f"{label(op)}-{i}"))
    return found


@pytest.mark.parametrize(("case", "wrong"), wrong_inputs())
def test_error_names_what_got_and_needed(case: Case, wrong: Wrong):
    with pytest.raises(wrong.error, match=wrong.match) as caught:
        case.run()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("case", "wrong"), wrong_inputs(lambda op, wrong: wrong.staged and not op.arrays))
def test_error_is_the_same_while_staging(case: Case, wrong: Wrong):
    args, kwargs = swapped(case.arguments(), Tensor)
    with pytest.raises(wrong.error, match=wrong.match):
        staged(lambda args, kwargs: case.call(*args, **kwargs))(args, kwargs)


# --- PyTorch ------------------------------------------------------------------------------------------------------
def counterpart(op: Op) -> Callable[..., Any]:
    if callable(op.torch):
        return op.torch
    function: Any = torch
    for part in (op.torch or op.name).split("."):
        function = getattr(function, part)
    return function  # type: ignore[no-any-return]


def to_torch(case: Case, grad: bool = False) -> tuple[Any, list[Any]]:
    """The result of PyTorch's counterpart, and the inputs that are differentiated."""
    inputs = []

    def convert(array: np.ndarray) -> Any:
        t = torch.from_numpy(np.array(array, order="C"))
        if grad and is_float(array):
            inputs.append(t.requires_grad_())
        return t

    def dtypes(value: Any) -> Any:
        if isinstance(value, np.dtype):
            return getattr(torch, value.name)
        if isinstance(value, (list, tuple)):
            return type(value)(map(dtypes, value))
        return {key: dtypes(item) for key, item in value.items()} if isinstance(value, dict) else value

    args, kwargs = dtypes(case.arguments())
    if not case.op.arrays:
        args, kwargs = swapped((args, kwargs), convert)
    return counterpart(case.op)(*args, **kwargs), inputs


def flat(value: Any) -> list[Any]:
    return [value] if isinstance(value, torch.Tensor) else [t for item in value for t in flat(item)]


@needs_torch
@pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch's, on a variance of one value and the like
@each("torch", has_counterpart)
def test_torch_has_the_same_values_and_dtypes(case):
    theirs, ours = flat(to_torch(case)[0]), tree.leaves(case.run())
    assert [t.dtype.name for t in ours] == [str(t.dtype).removeprefix("torch.") for t in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == tuple(b.shape)
        close = 1e-6 if a.dtype == np.float32 else 1e-11
        same(a.detach().numpy(), b.detach().numpy(), rtol=close, atol=1e-14)


@needs_torch
@pytest.mark.filterwarnings("ignore::UserWarning")
@each("torch gradient", lambda case: has_counterpart(case) and differentiable(case))
def test_torch_has_the_same_gradients(case):
    out, inputs = to_torch(case, grad=True)
    f, xs = case.varied()
    weights = directions(f(*map(Tensor._of, xs)), 6)
    theirs = [
        (t, torch.from_numpy(np.array(w)).to(t.dtype))
        for t, w in zip((t for t in flat(out) if t.is_floating_point()), weights, strict=True)
    ]
    live = [(t, w) for t, w in theirs if t.requires_grad]
    expected = (
        torch.autograd.grad([t for t, _ in live], inputs, [w for _, w in live], allow_unused=True) if live else ()
    )
    got = pulled_back(case, weights)(*(Tensor(x, requires_grad=True) for x in xs))
    for x, a, b in zip(xs, got or [None] * len(xs), expected or [None] * len(xs), strict=True):
        zeros = np.zeros(x.shape)
        same(zeros if a is None else a.numpy(), zeros if b is None else b.numpy(), rtol=1e-9, atol=1e-12)

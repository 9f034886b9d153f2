"""One row for each public function composed of primitives. Data only, as ``table_ops`` (see there)."""

from __future__ import annotations

import math

import numpy as np
from op_rows import INF, NAN, B, F, I, Op, S, V, Wrong, axes, binary, torch, unary

from slalom.core.dtype import float64
from slalom.errors import ConfigError, DTypeError, ShapeError

ALIASES = {
    "absolute": "abs", "negative": "neg", "multiply": "mul", "subtract": "sub", "divide": "div", "true_divide": "div",
    "clip": "clamp", "mm": "matmul", "bmm": "matmul", "swapaxes": "transpose", "concat": "cat", "concatenate": "cat",
    "empty": "zeros", "empty_like": "zeros_like",
}  # fmt: skip
"""Names under which a function stands a second time."""
ELSEWHERE = {"is_tensor": "not a function of values: tests/test_tensor.py"}

CLASH = Wrong(S(F(2, 3), F(4)), ShapeError, r"shapes \(2, 3\) and \(4,\) do not broadcast: got sizes 3 and 4")
SWAPPED = Wrong(S(F(2, 3), F(4)), ShapeError, r"l[te]: shapes \(4,\) and \(2, 3\) do not broadcast: got sizes 4 and 3")
NO_TEXT = Wrong(S("text"), DTypeError, "dtype: got <U4; needed one of bool, uint8")

SIGN_OF_NAN = "PyTorch's sign of NaN is 0; here NaN goes through, as in NumPy"

# --- one argument -------------------------------------------------------------------------------------------------
WHOLE = {"integers": S(I(5, low=1, high=5)), "bytes": S(I(5, low=1, high=5, dtype="uint8"))}
HALVES = S(V(0.5, 1.5, 2.5, -0.5, -1.5, 0.49999999999999994, 4503599627370497.5), smooth=False)
STEPS = WHOLE | {"halves": HALVES}


def of_one(name, ref, low=-2.0, high=2.0, more=WHOLE, **row):
    return Op(name, unary(low, high, **more), ref=ref, errors=(NO_TEXT,), **row)


def real(function):
    """NumPy's functions of small integers are of half precision."""
    return lambda x: function(x.astype(float))


UNARY = (
    of_one("exp", real(np.exp)),
    of_one("expm1", real(np.expm1)),
    of_one("log", real(np.log), 0.2),
    of_one("log1p", real(np.log1p), -0.7),
    of_one("sqrt", real(np.sqrt), 0.2),
    of_one("tanh", real(np.tanh)),
    of_one("sigmoid", real(lambda x: 1 / (1 + np.exp(-x)))),
    of_one("softplus", lambda x: np.logaddexp(x, 0), more={}, torch="nn.functional.softplus"),
    of_one("erf", np.vectorize(math.erf, otypes=[float])),
    of_one("sin", real(np.sin)),
    of_one("cos", real(np.cos)),
    of_one("neg", np.negative),
    of_one("abs", np.abs, xfail={"torch gradient[special]": SIGN_OF_NAN}),
    of_one("sign", np.sign, smooth=False, xfail={"torch[special]": SIGN_OF_NAN}),
    of_one("relu", lambda x: np.maximum(x, 0)),
    of_one("reciprocal", real(np.reciprocal), 0.5),
    of_one("rsqrt", real(lambda x: 1 / np.sqrt(x)), 0.5),
    of_one("square", np.square),
    of_one("exp2", real(np.exp2)),
    of_one("log2", real(np.log2), 0.2),
    of_one("log10", real(np.log10), 0.2),
    of_one("tan", real(np.tan), -1.2, 1.2),
    of_one("sinh", real(np.sinh), more=WHOLE | {"zero": S(V(0.0))}),
    of_one("cosh", real(np.cosh), more=WHOLE | {"zero": S(V(0.0))}),
    of_one("floor", np.floor, more=STEPS, smooth=False),
    of_one("ceil", np.ceil, more=STEPS, smooth=False),
    of_one("trunc", np.trunc, more=STEPS, smooth=False),
    of_one("frac", lambda x: x - np.trunc(x), more=WHOLE, torch=lambda x: x - x.trunc()),
    Op(
        "round",
        unary(**STEPS, decimals=S(F(7, low=-99, high=99), decimals=1), negative=S(F(7, low=-99, high=99), decimals=-1)),
        ref=lambda x, decimals=0: np.round(x, decimals),
        smooth=False,
        errors=(NO_TEXT,),
    ),
    of_one("isnan", np.isnan, smooth=False),
    of_one("isinf", np.isinf, smooth=False),
    of_one("isfinite", np.isfinite, smooth=False),
    Op(
        "nan_to_num",
        unary(given=S(V(NAN, INF, -INF, 1.0), nan=2.0, posinf=3.0, neginf=-4.0, smooth=False), **WHOLE),
        ref=np.nan_to_num,
        errors=(NO_TEXT,),
    ),
)

# --- two arguments ------------------------------------------------------------------------------------------------
INTEGERS = {"integers": S(I(3, 4), I(4)), "number": S(I(5), 2), "float_number": S(I(5), 1.5), "half": S(F(5), 0.1)}
NONZERO = INTEGERS | {"integers": S(I(3, 4), I(4, low=1)), "number": S(I(5), -2)}
TRUTHS = {"bools": S(B(3, 4), B(4)), "numbers": S(I(5), I(5)), "nan": S(V(0.0, NAN, 1.0), V(1.0, 1.0, 0.0))}
COMPARED = INTEGERS | {"bools": S(B(3, 4), B(4)), "equal": S(V(1, 2, 2), V(1, 1, 2)), "mixed": S(I(3), F(2, 3))}


ROUNDED = {None: np.asarray, "floor": np.floor, "trunc": np.trunc}


def of_two(name, ref, more=INTEGERS, left=(-2, 2), right=(-2, 2), clash=CLASH, errors=(), **row):
    return Op(name, binary(left, right, **more), ref=ref, errors=(clash, *errors), **row)


def compared(name, ref, **row):
    return of_two(name, ref, COMPARED, smooth=False, **row)


BINARY = (
    of_two("add", lambda x, y, alpha=1: x + alpha * y, INTEGERS | {"alpha": S(F(3), F(3), alpha=2.5)}),
    of_two("sub", lambda x, y, alpha=1: x - alpha * y, INTEGERS | {"alpha": S(F(3), F(3), alpha=2.5)}),
    of_two("mul", np.multiply),
    of_two(
        "div",
        lambda x, y, rounding_mode=None: ROUNDED[rounding_mode](x / y),
        NONZERO
        | {mode: S(F(9, low=-9, high=9), F(9, low=1), rounding_mode=mode, smooth=False) for mode in ("floor", "trunc")}
        | {f"{mode}_integers": S(I(9, low=-9, high=9), I(9, low=1), rounding_mode=mode) for mode in ("floor", "trunc")},
        right=(0.5, 2),
        errors=(
            Wrong(S(F(2), F(2), rounding_mode="up"), ConfigError, "div: rounding_mode: got 'up'; needed None, 'fl"),
        ),
    ),
    of_two("floor_divide", np.floor_divide, NONZERO, right=(0.3, 2), smooth=False),
    of_two("remainder", np.remainder, NONZERO, right=(0.3, 2)),
    of_two(
        "pow",
        np.power,
        {f"to_{n}": S(F(5, low=0.2), n) for n in (0, 1, 2, 3, 0.5, -1, -2.5)}
        | {"integers": S(I(5), I(5, low=0)), "squares": S(I(5), 2), "float_square": S(I(5), 2.0), "of_2": S(2.0, F(5))}
        | {"zero_base": S(V(0.0, 0.0, 0.0, 0.0), V(0.0, 1.0, 2.0, 3.0), smooth=False)},
        left=(0.2, 2),
        torch=lambda x, y: x**y,
        errors=(Wrong(S(I(3), -1), DTypeError, "pow: got int64 to a negative power; needed a floating dtype"),),
    ),
    of_two("maximum", np.maximum, {"integers": S(I(3, 4), I(4)), "ties": S(V(1, 2), V(1, 2), smooth=False)}),
    of_two("minimum", np.minimum, {"integers": S(I(3, 4), I(4)), "ties": S(V(1, 2), V(1, 2), smooth=False)}),
    compared("eq", np.equal),
    compared("ne", np.not_equal),
    compared("lt", np.less),
    compared("le", np.less_equal),
    compared("gt", np.greater, clash=SWAPPED),
    compared("ge", np.greater_equal, clash=SWAPPED),
    of_two("logical_and", np.logical_and, TRUTHS, smooth=False),
    of_two("logical_or", np.logical_or, TRUTHS, smooth=False),
    of_two("logical_xor", np.logical_xor, TRUTHS, smooth=False),
    Op("logical_not", unary(bools=S(B(4)), integers=S(I(5))), ref=np.logical_not, smooth=False),
    Op(
        "clamp",
        {
            "both": S(F(3, 5), -0.5, 0.7),
            "below": S(F(7), min=0.3),
            "above": S(F(7), max=0.3),
            "scalar": S(F(), -1, 1),
            "empty": S(F(0), 0, 1),
            "one": S(F(1), 0, 1),
            "tensors": S(F(3, 4), F(4, low=-1, high=0), F(3, 1, low=0, high=1)),
            "crossed": S(F(7), 1.0, -1.0),
            "integers": S(I(7), -1, 2),
            "at_bounds": S(V(-1.0, 1.0, 0.0), -1.0, 1.0, smooth=False),
            "special": S(V(0.0, -0.0, INF, -INF, NAN), -1.0, 1.0, smooth=False),
            "columns": S(F(4, 3, layout="columns"), -1.0, 1.0),
        },
        xfail={"torch gradient[special]": "PyTorch stops the gradient of NaN, here it passes"},
        ref=lambda x, min=-INF, max=INF: np.minimum(np.maximum(x, min), max),
        errors=(Wrong(S(F(2)), ConfigError, "clamp: got neither min nor max; needed at least one of them"),),
    ),
    Op(
        "where",
        {
            "tensors": S(B(3, 4), F(3, 4), F(3, 4)),
            "number": S(B(7), F(7), 0.5),
            "number_first": S(B(7), 2, F(7)),
            "numbers": S(B(4), 1.0, 2.5),
            "stretched": S(B(3, 1), F(4), F()),
            "empty": S(B(0), F(0), F(0)),
            "one": S(B(1), F(1), F(1)),
            "integers_and_floats": S(B(3), I(3), F(3)),
            "masked_inf": S(V(True, False, dtype="bool"), V(1.0, INF), V(INF, 2.0), smooth=False),
        },
        ref=np.where,
        errors=(Wrong(S(F(2), F(2), F(2)), DTypeError, "where: condition: got float64; needed bool"),),
    ),
    Op(
        "masked_fill",
        {
            "scalar": S(F(), B(), 1.0),
            "empty": S(F(0), B(0), 1.0),
            "one": S(F(1), B(1), INF, smooth=False),
            "odd": S(F(7), B(7), -INF, smooth=False),
            "row_mask": S(F(3, 4), B(4), 2),
            "tensor": S(F(3, 4), B(3, 4), F()),
            "integers": S(I(5), B(5), 7),
        },
        ref=lambda x, mask, value: np.where(mask, value, x),
        torch=lambda x, mask, value: x.masked_fill(mask, value),
        errors=(
            Wrong(S(F(2), F(2), 1), DTypeError, "masked_fill: mask: got float64; needed bool"),
            Wrong(S(I(2), B(2), 1.5), DTypeError, "masked_fill: value: got float32; needed one that fits into int64"),
        ),
    ),
    Op(
        "lerp",
        {
            "scalars": S(F(), F(), F()),
            "empty": S(F(0), F(0), 0.5),
            "one": S(F(1), F(1), 0.5),
            "odd": S(F(7), F(7), 0.25),
            "tensors": S(F(3, 4), F(4), F(3, 1)),
            "beyond": S(F(5), F(5), 2.0),
        },
        ref=lambda x, end, weight: x + weight * (end - x),
        errors=(Wrong(S(F(2), F(3), 0.5), ShapeError, r"sub: shapes \(3,\) and \(2,\) do not broadcast"),),
    ),
    Op(
        "matmul",
        {
            "matrices": S(F(3, 5), F(5, 2)),
            "vectors": S(F(7), F(7)),
            "vector_matrix": S(F(3), F(3, 2)),
            "matrix_vector": S(F(2, 3), F(3)),
            "vector_batch": S(F(3), F(2, 3, 4)),
            "batch_vector": S(F(2, 4, 3), F(3)),
            "batch_matrix": S(F(2, 4, 3), F(3, 5)),
            "no_columns": S(F(2, 4, 0), F(0, 3)),
            "no_batch": S(F(0, 4, 3), F(3, 2)),
            "batches": S(F(2, 1, 3, 4), F(5, 4, 2)),
            "integers": S(I(2, 3), I(3, 2)),
            "columns": S(F(4, 3, layout="columns"), F(3, 4, layout="columns")),
        },
        ref=np.matmul,
        errors=(
            Wrong(
                S(F(2, 5, 3), F(4, 2)), ShapeError, r"matmul: \(2, 5, 3\) @ \(4, 2\): columns of the left \(3\) must"
            ),
            Wrong(S(F(3), F(4, 2)), ShapeError, r"matmul: \(3,\) @ \(4, 2\): columns of the left \(3\) must equal"),
            Wrong(S(F(), F(2)), ShapeError, r"matmul: \(\) @ \(2,\): needed at least one dimension on each"),
            Wrong(S(B(2, 2), B(2, 2)), DTypeError, "matmul: dtype: got bool; needed"),
        ),
    ),
    Op(
        "dot",
        {
            "empty": S(F(0), F(0)),
            "one": S(F(1), F(1)),
            "odd": S(F(7), F(7)),
            "long": S(F(129), F(129)),
            "backwards": S(F(5, layout="backwards"), F(5)),
            "integers": S(I(4), I(4)),
        },
        ref=np.dot,
        errors=(Wrong(S(F(2, 2), F(2)), ShapeError, r"dot: got \(2, 2\) and \(2,\); needed two vectors"),),
    ),
)


# --- reductions and scans -----------------------------------------------------------------------------------------
def over(function):
    return lambda x, dim=None, keepdim=False, **options: function(x, axis=dim, keepdims=keepdim, **options)


def by_axis(name):
    """PyTorch functions that take one axis at a time, or need it to keep it."""

    def run(x, dim=None, keepdim=False):
        dims = tuple(range(x.ndim)) if dim is None else (dim,) if isinstance(dim, int) else dim
        for d in sorted((d % max(x.ndim, 1) for d in dims), reverse=True):
            x = getattr(torch, name)(x, dim=d, keepdim=keepdim)
        return x

    return run


def average(x, axis=None, keepdims=False, dtype=None):
    total = x.sum(axis, keepdims=keepdims)
    return total / np.float64(x.size / max(total.size, 1))


EVERY = [tuple(range(n)) for n in range(5)]


def counted(x, dim=None, keepdim=False):
    return (x != 0).sum(EVERY[x.ndim] if dim is None else dim, keepdim)


def spread(x, axis=None, keepdims=False, correction=1):
    n = math.prod(np.array(x.shape, int)[list(np.atleast_1d(range(x.ndim) if axis is None else axis))])
    total = ((x - np.add.reduce(x, axis, keepdims=True) / np.float64(n)) ** 2).sum(axis, keepdims=keepdims)
    return total / np.float64(max(n - correction, 0))


def p_norm(x, p=2, axis=None, keepdims=False):
    size = np.abs(x)
    return size.max(axis, keepdims=keepdims) if p == INF else (size**p).sum(axis, keepdims=keepdims) ** (1 / p)


def log_sum(x, axis=None, keepdims=False):
    return np.log(np.exp(x).sum(axis, keepdims=keepdims))


def reduced(name, ref, more=(), *, empty=True, row=None, **options):
    return Op(name, axes(empty=empty, **options) | dict(more), ref=over(ref), **(row or {}))


NO_AXIS = Wrong(S(F(2, 3), 2), IndexError, "axis 2: needed an axis of a tensor with 2 dimensions")
TWICE = Wrong(S(F(2, 3), (0, -2)), ShapeError, r"sum: axes: got \(0, -2\); needed each axis once")
NOTHING = Wrong(S(F(0, 3), 0), ShapeError, r"got shape \(0, 3\) over axes \(0,\); needed at least one element")
COUNTED = {"integers": S(I(3, 4), 0), "bools": S(B(9)), "bytes": S(I(9, low=0, high=255, dtype="uint8"))}
SAMPLE_OF_ONE = {
    "single": S(F(1, 3), 0, smooth=False),
    "constant": S(V(2.0, 2.0, 2.0), smooth=False),
    "scalar": S(F(), smooth=False),
    "one": S(F(1), smooth=False),
}
BYTE_TRUTH = "PyTorch gives uint8 for uint8, here it is bool as for all others"
REDUCTIONS = (
    reduced("sum", np.sum, COUNTED | {"as_double": S(I(3), dtype=float64)}, row={"errors": (NO_AXIS, TWICE)}),
    reduced(
        "mean",
        average,
        {"as_double": S(I(3), dtype=float64)},
        empty=False,
        row={"errors": (Wrong(S(I(2)), DTypeError, "mean: got int64; needed a floating dtype. Hint: use"),)},
    ),
    reduced("any", np.any, COUNTED, row={"smooth": False, "xfail": {"torch[bytes]": BYTE_TRUTH}}),
    reduced("all", np.all, COUNTED, row={"smooth": False, "xfail": {"torch[bytes]": BYTE_TRUTH}}),
    reduced("count_nonzero", np.count_nonzero, COUNTED, row={"smooth": False, "torch": counted}),
    reduced("var", spread, SAMPLE_OF_ONE | {"biased": S(F(5, 3), 0, correction=0)}, empty=False),
    reduced("std", lambda *a, **k: np.sqrt(spread(*a, **k)), SAMPLE_OF_ONE, empty=False),
    Op(
        "norm",
        {
            f"{'inf' if p == INF else p}_{k}": S(*s.args[:1], p, **({"dim": s.args[1]} if s.args[1:] else s.kwargs))
            for p in (2, 1, 3, INF)
            for k, s in axes(empty=False).items()
        }
        | {"of_zeros": S(V(0.0, 0.0), smooth=False), "zeros_p3": S(V(0.0, 0.0, 1.0), 3, smooth=False)},
        ref=lambda x, p=2, dim=None, keepdim=False: p_norm(x, p, dim, keepdim),
        errors=(
            Wrong(S(F(2), 0), ConfigError, "norm: p: got 0; needed a number above 0, or 'fro'"),
            Wrong(S(I(2)), DTypeError, "norm: got int64; needed a floating dtype"),
        ),
    ),
    reduced(
        "prod",
        np.prod,
        {"zero": S(V(0.0, 2.0, 3.0)), "zeros": S(V(0.0, 2.0, 0.0, 5.0)), "integers": S(I(3, 4), 0)},
        row={"torch": by_axis("prod")},
    ),
    reduced(
        "amax",
        np.max,
        {"integers": S(I(3, 4), 0), "ties": S(V(1, 1, 0), smooth=False)},
        empty=False,
        row={"errors": (NO_AXIS, NOTHING)},
    ),
    reduced(
        "amin",
        np.min,
        {
            "smallest_integer": S(V(-128, 5, dtype="int8")),
            "bytes": S(V(0, 5, 200, dtype="uint8")),
            "bools": S(V(True, False, dtype="bool")),
            "ties": S(V(1, 1, 2), smooth=False),
            "special": S(V(1.0, -INF, NAN, 2.0, INF, 0.0, shape=(3, 2)), 1, smooth=False),
        },
        empty=False,
        row={"errors": (NO_AXIS,), "xfail": {"torch gradient[special]": "PyTorch shares nothing where there is a NaN"}},
    ),
    reduced(
        "logsumexp",
        log_sum,
        {
            "large": S(V(700.0, 709.0, 1.0)),
            "none": S(V(-INF, -INF), smooth=False),
            "special": S(V(0.0, INF), smooth=False),
            "empty": S(F(0), smooth=False),
            "hole": S(F(2, 0, 3), 1, smooth=False),
        },
        row={"torch": lambda x, dim=None, keepdim=False: x.logsumexp(EVERY[x.ndim] if dim is None else dim, keepdim)},
    ),
)

PLACES = {
    "all": S(F(3, 4)),
    "scalar": S(F()),
    "one": S(F(1), 0),
    "first": S(F(3, 4), 0),
    "last_kept": S(F(2, 3, 5), dim=-1, keepdim=True),
    "odd": S(F(7), 0),
    "columns": S(F(4, 3, layout="columns"), 1),
    "backwards": S(F(5, layout="backwards"), 0),
    "ties": S(V(1, 1, 0, 2, 2, 2, shape=(2, 3)), 1, smooth=False),
    "special": S(V(0.0, NAN, INF, 1.0, -INF, 0.0, shape=(3, 2)), 1, smooth=False),
    "integers": S(V(-(2**63), 5, 2**63 - 1, dtype="int64"), 0),
    "bytes": S(V(7, 0, 255, dtype="uint8"), 0),
}


def place(function):
    return lambda x, dim=None, keepdim=False: function(x, axis=dim, keepdims=keepdim)


def extreme(value, where):
    def run(x, dim=None, keepdim=False):
        if dim is None:
            return value(x)
        return value(x, axis=dim, keepdims=keepdim), where(x, axis=dim, keepdims=keepdim)

    return run


def ordered(x, dim=-1, descending=False, stable=True):
    axis = dim if x.ndim else None
    order = np.argsort(np.flip(x, axis) if descending else x, axis, kind="stable")
    order = x.shape[axis] - 1 - np.flip(order, axis) if descending else order
    return (np.take_along_axis(x, order, axis), order) if x.ndim else (x, np.zeros((), int))


def middle(x, dim=None, keepdim=False):
    def lower(line):
        bad = np.flatnonzero(line != line)
        return bad[0] if bad.size else np.argsort(line, kind="stable")[(line.size - 1) // 2]

    if dim is None:
        return x.ravel()[lower(x.ravel())]
    where = np.expand_dims(np.apply_along_axis(lower, dim, x), dim)
    out = np.take_along_axis(x, where, dim), where
    return out if keepdim else tuple(np.squeeze(a, dim) for a in out)


NONE = Wrong(S(F(0)), ShapeError, "needed at least one element to choose from")
ORDER = (
    Op("argmax", PLACES, ref=place(np.argmax), smooth=False, errors=(NONE, NO_AXIS)),
    Op("argmin", PLACES, ref=place(np.argmin), smooth=False, errors=(NONE, NO_AXIS)),
    Op("max", PLACES, ref=extreme(np.max, np.argmax), errors=(NONE, NO_AXIS)),
    Op("min", PLACES, ref=extreme(np.min, np.argmin), errors=(NONE, NO_AXIS)),
    Op(
        "median",
        {k: s for k, s in PLACES.items() if k != "ties"} | {"even": S(V(4.0, 1.0, 3.0, 2.0)), "two": S(F(2, 2), 1)},
        ref=middle,
        errors=(Wrong(S(F(0), 0), ShapeError, r"median: got shape \(0,\); needed at least one element along the"),),
    ),
)
LINES = {
    "scalar": S(F(), 0),
    "empty": S(F(0), 0),
    "one": S(F(1), 0),
    "odd": S(F(7), 0),
    "rows": S(F(3, 5), 0),
    "last": S(F(2, 3, 5), -1),
    "columns": S(F(4, 3, layout="columns"), 1),
    "backwards": S(F(5, layout="backwards"), 0),
    "integers": S(I(5), 0),
    "bools": S(B(5), 0),
}
SORTED = {k: s for k, s in LINES.items() if k != "bools"} | {
    "down": S(F(3, 5), 1, True),
    "ties_down": S(V(1, 0, 1, 0, 1), 0, True, smooth=False),
    "special": S(V(0, INF, NAN, -INF, -0.0, NAN), 0, smooth=False),
    "special_down": S(V(0, INF, NAN, -INF, -0.0, NAN), 0, True, smooth=False),
}
NO_LINE = Wrong(S(F(2, 3), 2), IndexError, "axis 2: needed an axis of a tensor with 2 dimensions")
SCANS = (
    Op("cumsum", LINES, ref=lambda x, dim: np.cumsum(x, dim).reshape(x.shape), errors=(NO_LINE,)),
    Op(
        "cumprod",
        LINES | {"zeros": S(V(2.0, 0.0, 3.0, 0.0, 4.0), 0)},
        ref=lambda x, dim: np.cumprod(x, dim).reshape(x.shape),
        errors=(NO_LINE,),
    ),
    Op("argsort", SORTED, ref=lambda *a: ordered(*a)[1], smooth=False, errors=(NO_LINE,),
       torch=lambda x, dim=-1, descending=False: x.sort(dim=dim, descending=descending, stable=True).indices),
    Op("sort", SORTED, ref=ordered, errors=(NO_LINE,),
       torch=lambda x, dim=-1, descending=False: tuple(x.sort(dim=dim, descending=descending, stable=True))),
    Op(
        "topk",
        {
            "one": S(F(1), 1),
            "none": S(F(4), 0),
            "odd": S(F(7), 3),
            "all": S(F(5), 5),
            "rows": S(F(3, 5), 2, dim=0),
            "smallest": S(F(3, 5), 2, largest=False),
            "columns": S(F(4, 3, layout="columns"), 2),
        },
        ref=lambda x, k, dim=-1, largest=True: tuple(np.take(a, range(k), dim) for a in ordered(x, dim, largest)),
        errors=(
            Wrong(S(F(3), 4), ShapeError, "topk: k: got 4; needed 0 to 3"),
            Wrong(S(F(), 1), IndexError, "topk: axis -1: needed an axis of a tensor with 0 dimensions"),
        ),
    ),
)  # fmt: skip

ROWS = (*UNARY, *BINARY, *REDUCTIONS, *ORDER, *SCANS)

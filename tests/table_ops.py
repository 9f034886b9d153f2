"""One row for each primitive. Data only: ``tests/test_ops.py`` checks the rows, ``tests/op_rows.py`` explains them."""

from __future__ import annotations

import numpy as np
from op_rows import INF, NAN, B, F, I, Op, S, V, Wrong, binary, torch, unary

from slalom.core.dtype import bool_, float32, float64, int32, int64, uint8
from slalom.errors import DTypeError, IndexRangeError, ShapeError

CLASH = Wrong(
    S(F(2, 3), F(4)), ShapeError, r"shapes \(2, 3\) and \(4,\) do not broadcast: got sizes 3 and 4 on axis -1"
)
INTEGERS = {"integers": S(I(3, 4), I(4)), "bytes": S(I(5, low=0, high=255, dtype="uint8"), I(5, low=0, dtype="uint8"))}
NONZERO = {"integers": S(I(3, 4), I(4, low=1)), "negative": S(I(3, 4, low=-9), I(3, 1, low=-4, high=-1))}
BITS = {
    "bools": S(B(3, 4), B(4)),
    "bools_column_row": S(B(3, 1), B(1, 4)),
    "integers": S(I(2, 3, low=-99, high=99), I(3, low=-99, high=99)),
    "bytes": S(I(7, low=0, high=255, dtype="uint8"), I(7, low=0, high=255, dtype="uint8")),
    "empty": S(B(0), B(0)),
    "one": S(B(1), B(1)),
    "scalars": S(B(), B()),
}


def needs(*arguments, got="float64"):
    return Wrong(S(*arguments), DTypeError, rf"dtype: got {got}; needed ")


SIGN_OF_NAN = "PyTorch's sign of NaN is 0; here NaN goes through, as in NumPy"
ARITHMETIC = (
    Op("add", binary(**INTEGERS, bools=S(B(4), B(4))), torch="add", errors=(CLASH,)),
    Op("sub", binary(**INTEGERS), torch="sub", errors=(CLASH, needs(B(2), B(2), got="bool"))),
    Op("mul", binary(**INTEGERS, bools=S(B(4), B(4))), torch="mul", errors=(CLASH,)),
    Op("div", binary(right=(0.5, 2)), torch="div", errors=(CLASH,)),
    Op("floor_divide", binary(right=(0.3, 2), **NONZERO), torch="floor_divide", smooth=False, errors=(CLASH,)),
    Op("mod", binary(right=(0.3, 2), **NONZERO), torch="remainder", errors=(CLASH,)),
    Op(
        "pow",
        binary(
            left=(0.2, 2),
            integers=S(I(3, 4), I(4, low=0)),
            negative_base=S(F(5, low=-2, high=-1), V(1.0, 2.0, 3.0, -1.0, 0.0), smooth=False),
        ),
        torch="pow",
        errors=(
            CLASH,
            Wrong(S(I(2), V(1, -1, dtype="int64")), DTypeError, "pow: got int64 to a negative power; needed a"),
        ),
    ),
    Op("neg", unary(integers=S(I(5))), torch="neg", errors=(needs(B(2), got="bool"),)),
    Op("floor", unary(), torch="floor", smooth=False),
    Op("abs", unary(integers=S(I(5))), torch="abs", xfail={"torch gradient[special]": SIGN_OF_NAN}),
    Op(
        "sign",
        unary(integers=S(I(5))),
        torch="sign",
        smooth=False,
        errors=(needs(B(2), got="bool"),),
        xfail={"torch[special]": SIGN_OF_NAN},
    ),
    Op("maximum", binary(**INTEGERS), torch="maximum", errors=(CLASH,)),
    Op("minimum", binary(**INTEGERS), torch="minimum", errors=(CLASH,)),
    Op("relu", unary(integers=S(I(5))), torch="relu"),
)

FUNCTIONS = (
    Op("exp", unary(), torch="exp"),
    Op("expm1", unary(tiny=S(V(1e-300, -1e-12, 1e-8))), torch="expm1"),
    Op("log", unary(0.2, 3, tiny=S(V(5e-324, 1e-300, 1e300), smooth=False)), torch="log"),
    Op("log1p", unary(-0.7, 3, tiny=S(V(1e-300, -1e-12, 1e-8))), torch="log1p"),
    Op("sqrt", unary(0.2, 3), torch="sqrt"),
    Op("tanh", unary(large=S(V(20.0, -20.0, 300.0), smooth=False)), torch="tanh"),
    Op("sigmoid", unary(large=S(V(40.0, -40.0, -740.0), smooth=False)), torch="sigmoid"),
    Op(
        "softplus",
        unary(large=S(V(40.0, -40.0, -740.0), smooth=False)),
        ref=lambda x: np.logaddexp(x, 0),
        torch="nn.functional.softplus",
    ),
    Op("erf", unary(-3, 3), torch="erf"),
    Op("sin", unary(), torch="sin"),
    Op("cos", unary(), torch="cos"),
)

MIXED = Wrong(S(I(2), F(2)), DTypeError, "dtypes int64 and float64: needed one dtype")
COMPARED = INTEGERS | {"bools": S(B(3, 4), B(4)), "equal": S(V(1, 2, 2), V(1, 1, 2))}
COMPARISONS = (
    Op("eq", binary(**COMPARED), torch="eq", smooth=False, errors=(CLASH,)),
    Op("ne", binary(**COMPARED), torch="ne", smooth=False, errors=(CLASH,)),
    Op("lt", binary(**COMPARED), torch="lt", smooth=False, errors=(CLASH,)),
    Op("le", binary(**COMPARED), torch="le", smooth=False, errors=(CLASH,)),
    Op(
        "where",
        {
            "scalars": S(B(), F(), F()),
            "empty": S(B(0), F(0), F(0)),
            "one": S(B(1), F(1), F(1)),
            "odd": S(B(7), F(7), F(7)),
            "condition_row": S(B(5), F(3, 5), F(3, 5)),
            "all_stretched": S(B(3, 1, 1), F(4, 1), F(5)),
            "scalar_value": S(B(2, 3), F(2, 3), F()),
            "columns": S(B(4, 3), F(4, 3, layout="columns"), F(4, 3)),
            "integers": S(B(2, 3), I(2, 3), I(3)),
            "special": S(B(11), V(0, -0.0, 1, INF, -INF, NAN, NAN, INF, 1, 1, 1), F(11), smooth=False),
        },
        torch="where",
        errors=(Wrong(S(B(2), F(2), F(3)), ShapeError, r"where: shapes \(2,\) and \(3,\) do not broadcast"),),
    ),
    Op("bitand", BITS, torch="bitwise_and", smooth=False),
    Op("bitor", BITS, torch="bitwise_or", smooth=False),
    Op("bitnot", {k: S(s.args[0]) for k, s in BITS.items()}, torch="bitwise_not", smooth=False, errors=(needs(F(2)),)),
    Op(
        "shift_right",
        {
            "empty": S(I(0), I(0)),
            "one": S(I(1), I(1, low=0)),
            "odd": S(I(7, low=-99, high=99), I(7, low=0, high=9)),
            "row": S(I(3, 5, low=0, high=99), I(5, low=0, high=9)),
            "column_row": S(I(3, 1, low=0, high=99), I(1, 5, low=0, high=9)),
            "words": S(I(5, low=0, high=2**32 - 1, dtype="uint32"), I(5, low=0, high=31, dtype="uint32")),
        },
        torch="bitwise_right_shift",
        smooth=False,
        xfail={"torch[words]": "PyTorch has no shift of uint32"},
    ),
)


SHAPES = (
    Op(
        "reshape",
        {
            "scalar": S(F(), shape=(1, 1)),
            "to_scalar": S(F(1), shape=()),
            "empty": S(F(0), shape=(3, 0)),
            "odd": S(F(7), shape=(7, 1)),
            "split": S(F(6, 4), shape=(2, 3, 4)),
            "merge": S(F(2, 3, 4), shape=(6, 4)),
            "columns": S(F(4, 3, layout="columns"), shape=(2, 6)),
            "backwards": S(F(6, layout="backwards"), shape=(3, 2)),
            "gaps": S(F(2, 3, layout="gaps"), shape=(6,)),
            "bools": S(B(4), shape=(2, 2)),
        },
        torch="reshape",
        errors=(
            Wrong(S(F(2, 3), shape=(4,)), ShapeError, r"reshape: \(2, 3\) to \(4,\): got 6 elements; needed the same"),
        ),
    ),
    Op(
        "transpose",
        {
            "scalar": S(F(), axes=()),
            "one": S(F(1), axes=(0,)),
            "matrix": S(F(3, 5), axes=(1, 0)),
            "three": S(F(2, 3, 5), axes=(2, 0, 1)),
            "same": S(F(2, 3), axes=(0, 1)),
            "hole": S(F(2, 0, 3), axes=(1, 2, 0)),
            "columns": S(F(4, 3, layout="columns"), axes=(1, 0)),
            "integers": S(I(2, 3), axes=(1, 0)),
        },
        torch=lambda x, axes: x.permute(axes),
        errors=(
            Wrong(S(F(2, 3), axes=(0, 0)), ShapeError, r"transpose: axes: got \(0, 0\); needed each of the 2 axes"),
        ),
    ),
    Op(
        "broadcast",
        {
            "scalar": S(F(), shape=(2, 3)),
            "same": S(F(7), shape=(7,)),
            "new_axis": S(F(3), shape=(2, 3)),
            "stretched": S(F(2, 1), shape=(2, 5)),
            "both": S(F(3, 1), shape=(2, 3, 4)),
            "to_empty": S(F(1, 3), shape=(0, 3)),
            "columns": S(F(4, 1, layout="columns"), shape=(4, 3)),
        },
        torch=lambda x, shape: x.expand(shape),
        errors=(
            Wrong(S(F(3), shape=(4,)), ShapeError, r"broadcast: shapes \(3,\) and \(4,\) do not broadcast"),
            Wrong(S(F(3), shape=(1,)), ShapeError, r"broadcast: got \(3,\); needed a shape that stretches to \(1,\)"),
        ),
    ),
    Op(
        "slice",
        {
            "all": S(F(7), start=(0,), stop=(7,), step=(1,)),
            "inner": S(F(5, 6), start=(1, 2), stop=(4, 6), step=(1, 1)),
            "steps": S(F(7, 8), start=(0, 1), stop=(7, 8), step=(2, 3)),
            "none": S(F(5), start=(2,), stop=(2,), step=(1,)),
            "empty": S(F(0, 3), start=(0, 0), stop=(0, 3), step=(2, 2)),
            "one": S(F(1), start=(0,), stop=(1,), step=(5,)),
            "columns": S(F(4, 3, layout="columns"), start=(1, 0), stop=(4, 2), step=(2, 1)),
            "backwards": S(F(6, layout="backwards"), start=(1,), stop=(6,), step=(2,)),
            "scalar": S(F(), start=(), stop=(), step=()),
        },
        torch=lambda x, start, stop, step: x[tuple(map(slice, start, stop, step))] if x.ndim else x.clone(),
    ),
    Op(
        "pad",
        {
            "scalar": S(F(), low=(), high=(), interior=()),
            "none": S(F(3), low=(0,), high=(0,), interior=(0,)),
            "ends": S(F(7), low=(2,), high=(1,), interior=(0,)),
            "between": S(F(3, 4), low=(0, 1), high=(1, 0), interior=(1, 2)),
            "empty": S(F(0), low=(2,), high=(1,), interior=(1,)),
            "one": S(F(1), low=(0,), high=(0,), interior=(3,)),
            "columns": S(F(4, 3, layout="columns"), low=(1, 0), high=(0, 1), interior=(0, 0)),
            "bools": S(B(3), low=(1,), high=(1,), interior=(0,)),
        },
        torch=None,
        errors=(
            Wrong(S(F(2), low=(-1,), high=(0,), interior=(0,)), ShapeError, "pad: got .*; needed non-negative widths"),
        ),
    ),
    Op(
        "flip",
        {
            "scalar": S(F(), axes=()),
            "one": S(F(1), axes=(0,)),
            "odd": S(F(7), axes=(0,)),
            "second": S(F(3, 5), axes=(1,)),
            "both": S(F(3, 5), axes=(0, 1)),
            "none": S(F(3), axes=()),
            "hole": S(F(2, 0), axes=(0, 1)),
            "backwards": S(F(5, layout="backwards"), axes=(0,)),
        },
        torch=lambda x, axes: x.flip(axes),
    ),
    Op(
        "concatenate",
        {
            "single": S(F(7), axis=0),
            "vectors": S(F(3), F(1), F(4), axis=0),
            "rows": S(F(2, 3), F(1, 3), axis=0),
            "columns": S(F(2, 3), F(2, 2, layout="columns"), axis=1),
            "with_empty": S(F(0, 2), F(3, 2), axis=0),
            "all_empty": S(F(0), F(0), axis=0),
            "middle": S(F(2, 1, 3), F(2, 2, 3), axis=1),
            "bools": S(B(2), B(3), axis=0),
        },
        torch=lambda *xs, axis: torch.cat(xs, axis),
        errors=(
            Wrong(
                S(F(2, 3), F(2, 4), axis=0), ShapeError, r"cat: shapes \(2, 3\) and \(2, 4\): needed equal sizes on all"
            ),
            Wrong(S(F(), F(), axis=0), ShapeError, "cat: got a 0-d tensor; needed at least one dimension"),
        ),
    ),
)


def unfold(x, size, stride, dilation):
    """PyTorch's unfold has no dilation: every dilation-th tap of wider windows."""
    first = x.ndim - len(size)
    for i, (n, s, d) in enumerate(zip(size, stride, dilation, strict=True)):
        x = x.unfold(first + i, d * (n - 1) + 1, s)[..., ::d]
    return x


WINDOWS = {
    "one": S(F(1), size=(1,), stride=(1,), dilation=(1,)),
    "overlap": S(F(2, 7), size=(3,), stride=(1,), dilation=(1,)),
    "apart": S(F(9), size=(2,), stride=(4,), dilation=(1,)),
    "dilated": S(F(2, 9), size=(3,), stride=(2,), dilation=(3,)),
    "plane": S(F(2, 5, 6), size=(2, 3), stride=(1, 2), dilation=(2, 1)),
    "no_batch": S(F(0, 5), size=(3,), stride=(1,), dilation=(1,)),
    "columns": S(F(6, 5, layout="columns"), size=(3,), stride=(2,), dilation=(1,)),
}
MOVES = (
    Op(
        "windows",
        WINDOWS | {"none_fit": S(F(2, 2), size=(3,), stride=(1,), dilation=(1,))},
        torch=unfold,
        errors=(
            Wrong(S(F(4), size=(0,), stride=(1,), dilation=(1,)), ShapeError, r"windows.*: got size \(0,\), stride"),
        ),
        xfail=dict.fromkeys(("torch[none_fit]", "torch gradient[none_fit]"), "PyTorch refuses windows that do not fit"),
    ),
    Op(
        "fold",
        {
            "one": S(F(1, 1), output=(1,), size=(1,), stride=(1,), dilation=(1,)),
            "overlap": S(F(2, 5, 3), output=(7,), size=(3,), stride=(1,), dilation=(1,)),
            "apart": S(F(2, 2), output=(9,), size=(2,), stride=(4,), dilation=(1,)),
            "dilated": S(F(2, 2, 3), output=(9,), size=(3,), stride=(2,), dilation=(3,)),
            "plane": S(F(2, 3, 2, 2, 3), output=(5, 6), size=(2, 3), stride=(1, 2), dilation=(2, 1)),
            "no_batch": S(F(0, 3, 3), output=(5,), size=(3,), stride=(1,), dilation=(1,)),
        },
        torch=None,
        errors=(
            Wrong(
                S(F(4, 3), output=(7,), size=(3,), stride=(1,), dilation=(1,)),
                ShapeError,
                r"fold.*: got \(4, 3\); needed .*5, 3\)",
            ),
        ),
    ),
    Op(
        "cast",
        {
            "same": S(F(7), dtype=float64),
            "narrower": S(F(3, 4), dtype=float32),
            "to_integers": S(F(3, 4), dtype=int64, smooth=False),
            "from_integers": S(I(7), dtype=float64),
            "to_bools": S(V(0.0, -0.0, 0.5, INF, NAN), dtype=bool_, smooth=False),
            "bytes": S(I(4, low=0, high=255), dtype=uint8),
            "empty": S(F(0), dtype=int32, smooth=False),
            "scalar": S(F(), dtype=float32),
        },
        torch=lambda x, dtype: x.to(dtype),
        xfail={"differences[narrower]": "central differences of float32 values", "differences[scalar]": "as narrower"},
    ),
    Op("alias", unary(integers=S(I(3))), torch="clone"),
)

REDUCTIONS = (
    Op(
        "sum",
        {
            "all": S(F(3, 4), axes=(0, 1), keepdims=False),
            "scalar": S(F(), axes=(), keepdims=False),
            "empty": S(F(0), axes=(0,), keepdims=False),
            "one": S(F(1), axes=(0,), keepdims=True),
            "long": S(F(33, 17), axes=(0,), keepdims=False),
            "kept": S(F(2, 3, 4), axes=(0, 2), keepdims=True),
            "columns": S(F(4, 3, layout="columns"), axes=(1,), keepdims=False),
            "hole": S(F(2, 0, 3), axes=(1,), keepdims=False),
            "integers": S(I(3, 4, dtype="int32"), axes=(0,), keepdims=False),
            "bools": S(B(9), axes=(0,), keepdims=False),
            "special": S(V(INF, -INF, NAN, 1e308, 1e308, 1.0, shape=(3, 2)), axes=(1,), keepdims=False, smooth=False),
        },
        torch=lambda x, axes, keepdims: x.sum(axes, keepdims),
    ),
    Op(
        "amax",
        {
            "all": S(F(3, 4), axes=(0, 1), keepdims=False),
            "scalar": S(F(), axes=(), keepdims=False),
            "one": S(F(1), axes=(0,), keepdims=True),
            "odd": S(F(7), axes=(0,), keepdims=False),
            "kept": S(F(2, 3, 4), axes=(0, 2), keepdims=True),
            "columns": S(F(4, 3, layout="columns"), axes=(1,), keepdims=False),
            "no_rows": S(F(0, 3), axes=(1,), keepdims=False),
            "ties": S(V(1, 1, 0, 2, 2, 2, shape=(2, 3)), axes=(1,), keepdims=False, smooth=False),
            "special": S(V(0, -INF, NAN, 1, INF, 3, shape=(3, 2)), axes=(1,), keepdims=False, smooth=False),
            "integers": S(I(3, 4), axes=(0,), keepdims=False),
        },
        torch=lambda x, axes, keepdims: x.amax(axes, keepdims) if axes else x.clone(),
        errors=(
            Wrong(S(F(0, 3), axes=(0,), keepdims=False), ShapeError, r"amax: got shape \(0, 3\) over axes \(0,\)"),
        ),
        xfail={"torch gradient[special]": "PyTorch shares nothing where the maximum is NaN"},
    ),
    Op(
        "argmax",
        {
            "scalar": S(F(), axis=0, keepdims=False),
            "one": S(F(1), axis=0, keepdims=False),
            "odd": S(F(7), axis=0, keepdims=True),
            "columns": S(F(4, 3, layout="columns"), axis=0, keepdims=False),
            "ties": S(V(1, 1, 0, 2, 2, 2, shape=(2, 3)), axis=1, keepdims=False),
            "special": S(V(0, NAN, INF, NAN, -INF, 0, shape=(3, 2)), axis=1, keepdims=False),
            "bools": S(B(3, 4), axis=1, keepdims=False),
        },
        torch=lambda x, axis, keepdims: (x + 0).argmax(axis, keepdims),
        smooth=False,
        errors=(
            Wrong(S(F(0), axis=0, keepdims=False), ShapeError, r"argmax: got shape \(0,\) over axes \(0,\); needed at"),
        ),
    ),
    Op(
        "cumsum",
        {
            "empty": S(F(0), axis=0, reverse=False),
            "one": S(F(1), axis=0, reverse=True),
            "odd": S(F(7), axis=0, reverse=False),
            "reverse": S(F(7), axis=0, reverse=True),
            "rows": S(F(3, 5), axis=0, reverse=False),
            "columns": S(F(4, 3, layout="columns"), axis=1, reverse=True),
            "bools": S(B(9), axis=0, reverse=False),
            "special": S(V(1, INF, -INF, NAN, 1), axis=0, reverse=False, smooth=False),
        },
        torch=lambda x, axis, reverse: x.flip(axis).cumsum(axis).flip(axis) if reverse else x.cumsum(axis),
    ),
    Op(
        "argsort",
        {
            "empty": S(F(0), axis=0, descending=False),
            "one": S(F(1), axis=0, descending=True),
            "odd": S(F(7), axis=0, descending=False),
            "rows": S(F(3, 5), axis=0, descending=True),
            "columns": S(F(4, 3, layout="columns"), axis=1, descending=False),
            "ties": S(V(1, 0, 1, 0, 1), axis=0, descending=True),
            "special": S(V(*(0, INF, NAN, -INF, -0.0, NAN)), axis=0, descending=False),
            "special_down": S(V(*(0, INF, NAN, -INF, -0.0, NAN)), axis=0, descending=True),
            "bools": S(B(9), axis=0, descending=False),
        },
        torch=lambda x, axis, descending: x.argsort(dim=axis, descending=descending, stable=True),
        smooth=False,
    ),
    Op(
        "matmul",
        {
            "one": S(F(1, 1), F(1, 1)),
            "odd": S(F(3, 5), F(5, 7)),
            "no_columns": S(F(2, 0), F(0, 3)),
            "no_rows": S(F(0, 3), F(3, 2)),
            "batch": S(F(2, 3, 4), F(2, 4, 5)),
            "batch_stretched": S(F(2, 1, 3, 4), F(3, 4, 2)),
            "columns": S(F(4, 3, layout="columns"), F(3, 2)),
            "backwards": S(F(3, 4, layout="backwards"), F(4, 2, layout="backwards")),
            "gaps": S(F(3, 4, layout="gaps"), F(4, 2)),
            "integers": S(I(2, 3), I(3, 4)),
            "special": S(V(1, INF, NAN, 0, shape=(2, 2)), V(1, 2, 3, 4, shape=(2, 2)), smooth=False),
        },
        torch="matmul",
        errors=(
            Wrong(
                S(F(64, 3), F(4, 2)),
                ShapeError,
                r"matmul: \(64, 3\) @ \(4, 2\): columns of the left \(3\) must equal rows",
            ),
            Wrong(S(F(2, 3, 4), F(3, 4, 2)), ShapeError, r"matmul: shapes \(2,\) and \(3,\) do not broadcast"),
        ),
    ),
)

INDEXED = (
    Op(
        "gather",
        {
            "scalar_index": S(F(5), I(low=0, high=4)),
            "rows": S(F(5, 3), I(7, low=0, high=4)),
            "repeated": S(F(3, 2), V(1, 1, 1, 0, dtype="int64")),
            "two": S(F(4, 5, 2), I(3, 2, low=0, high=3), I(3, 2, low=0, high=4)),
            "nothing": S(F(5, 3), I(0, low=0)),
            "one": S(F(1), V(0, dtype="int64")),
            "columns": S(F(4, 3, layout="columns"), I(5, low=0, high=3)),
            "small_integers": S(F(4), I(3, low=0, high=3, dtype="uint8")),
        },
        torch=lambda x, *indices: x[tuple(i.long() for i in indices)],
        errors=(
            Wrong(
                S(F(3), V(3, dtype="int64")),
                IndexRangeError,
                "gather: index for axis 0 of size 3: got 3; needed 0 ≤ ind",
            ),
            Wrong(S(F(3), F(2)), DTypeError, "gather: index.*: got float64; needed integers"),
        ),
    ),
    Op(
        "scatter_add",
        {
            "scalar_index": S(F(), I(low=0, high=4), shape=(5,)),
            "rows": S(F(7, 3), I(7, low=0, high=4), shape=(5, 3)),
            "repeated": S(F(4, 2), V(1, 1, 1, 0, dtype="int64"), shape=(3, 2)),
            "two": S(F(3, 2, 2), I(3, 2, low=0, high=3), I(3, 2, low=0, high=4), shape=(4, 5, 2)),
            "nothing": S(F(0, 3), I(0, low=0), shape=(5, 3)),
            "one": S(F(1), V(0, dtype="int64"), shape=(1,)),
            "columns": S(F(4, 3, layout="columns"), I(4, low=0, high=3), shape=(4, 3)),
            "integers": S(I(5), I(5, low=0, high=1), shape=(2,)),
        },
        torch=lambda x, *indices, shape: x.new_zeros(shape).index_put(
            tuple(i.long() for i in indices), x, accumulate=True
        ),
        errors=(
            Wrong(
                S(F(2, 2), I(3, low=0), shape=(4, 2)),
                ShapeError,
                r"scatter_add: updates: got \(2, 2\); needed \(3, 2\)",
            ),
        ),
    ),
    Op(
        "random_bits",
        {
            "scalar": S(V(0, 0, 0, dtype="int64"), shape=()),
            "empty": S(V(0, 0, 0, dtype="int64"), shape=(0, 3)),
            "one": S(V(1, 2, 3, dtype="int64"), shape=(1,)),
            "odd": S(V(1, 2, 3, dtype="int64"), shape=(7,)),
            "matrix": S(V(-1, 0, 5, dtype="int64"), shape=(3, 5)),
            "long": S(V(2**62, 1, 2**40, dtype="int64"), shape=(33, 3)),
        },
        smooth=False,
        torch=None,
        errors=(Wrong(S(I(2), shape=(3,)), ShapeError, r"random_bits: state: got int64\(2,\); needed int64\(3,\)"),),
    ),
)

ROWS = (*ARITHMETIC, *FUNCTIONS, *COMPARISONS, *SHAPES, *MOVES, *REDUCTIONS, *INDEXED)

"""One row for each public function of indexing and creation. Data only, as ``table_ops`` (see there)."""

from __future__ import annotations

import math

import numpy as np
from op_rows import B, F, I, Op, S, V, Wrong, each, torch

from slalom.core.dtype import float32, float64, int64
from slalom.errors import ConfigError, DTypeError, IndexRangeError, ShapeError


def along(x, indices, dim):
    shape = np.broadcast_shapes((*x.shape[:dim], 1, *x.shape[dim + 1 :]), indices.shape)
    return np.take_along_axis(np.broadcast_to(x, (*shape[:dim], x.shape[dim], *shape[dim + 1 :])), indices, dim)


def gathered(x, dim, index):
    return np.take_along_axis(
        x[tuple(slice(n) if a != dim else slice(None) for a, n in enumerate(index.shape))], index, dim
    )


def scattered(x, dim, index, src):
    out = np.array(x)
    for place in np.ndindex(*index.shape):
        out[(*place[:dim], index[place], *place[dim + 1 :])] += src[place]
    return out


INDEX = Wrong(S(F(3), 0, F(2)), DTypeError, "index.*: got float64; needed integers")
INDEXING = (
    Op(
        "take_along_dim",
        {
            "vector": S(F(7), I(3, low=0, high=6), 0),
            "negative": S(F(7), I(3, low=-7, high=-1), 0),
            "rows": S(F(4, 5), I(2, 5, low=0, high=3), 0),
            "stretched": S(F(4, 5), I(1, 2, low=0, high=4), 1),
            "nothing": S(F(4), I(0, low=0), 0),
            "one": S(F(1), V(0, dtype="int64"), 0),
        },
        ref=along,
        torch=lambda x, i, d: torch.take_along_dim(x, i % x.shape[d], d),
        errors=(
            Wrong(S(F(3), V(3, dtype="int64"), 0), IndexRangeError, "index 3 on axis 0: needed -3 to 2", staged=False),
            Wrong(S(F(3), F(2), 0), DTypeError, "take_along_dim: index: got float64; needed integers"),
        ),
    ),
    Op(
        "gather",
        {
            "vector": S(F(7), 0, I(3, low=0, high=6)),
            "rows": S(F(4, 5), 0, I(2, 5, low=0, high=3)),
            "fewer": S(F(4, 5), 1, I(2, 7, low=0, high=4)),
            "repeated": S(F(3), 0, V(1, 1, 0, 1, dtype="int64")),
            "nothing": S(F(4), 0, I(0, low=0)),
            "one": S(F(1), 0, V(0, dtype="int64")),
            "list": S(F(3), 0, [2, 0]),
        }
        | each(1, I(4, 2, low=0, high=2)),
        ref=lambda x, dim, index: gathered(x, dim, np.asarray(index)),
        torch=lambda x, dim, index: x.gather(dim, torch.as_tensor(index)),
        errors=(
            INDEX,
            Wrong(
                S(F(3), 0, V(-1, dtype="int64")),
                IndexRangeError,
                "gather: index for axis 0 of size 3: got -1; needed 0",
            ),
            Wrong(
                S(F(2, 3), 0, I(3, low=0)), ShapeError, r"gather: index: got \(3,\); needed 2 axes, none longer than"
            ),
        ),
    ),
    Op(
        "scatter_add",
        {
            "vector": S(F(5), 0, I(7, low=0, high=4), F(7)),
            "rows": S(F(4, 5), 0, I(2, 5, low=0, high=3), F(2, 5)),
            "columns": S(F(4, 5), 1, I(3, 7, low=0, high=4), F(3, 7)),
            "larger_source": S(F(4), 0, I(2, low=0, high=3), F(5)),
            "nothing": S(F(4), 0, I(0, low=0), F(0)),
            "one": S(F(1), 0, V(0, dtype="int64"), F(1)),
        },
        ref=scattered,
        xfail={"torch gradient[larger_source]": "PyTorch's gradient of a larger src has the wrong shape"},
        errors=(
            Wrong(
                S(F(3), 0, I(2, low=0), F(1)), ShapeError, r"scatter_add: got index \(2,\), src \(1,\); needed 1 axes"
            ),
        ),
    ),
    Op(
        "index_select",
        {
            "vector": S(F(7), 0, I(3, low=0, high=6)),
            "rows": S(F(4, 5), 0, I(7, low=0, high=3)),
            "columns_of": S(F(4, 5), 1, I(2, low=0, high=4)),
            "repeated": S(F(3, 2), 0, V(1, 1, 0, dtype="int64")),
            "nothing": S(F(4), 0, I(0, low=0)),
            "one": S(F(1), 0, V(0, dtype="int64")),
        }
        | each(0, I(3, low=0, high=3)),
        ref=lambda x, d, i: np.take(x, i, d),
        errors=(
            INDEX,
            Wrong(S(F(3), 0, V(5, dtype="int64")), IndexRangeError, "index 5 on axis 0: needed -3 to 2", staged=False),
        ),
    ),
    Op(
        "embedding",
        {
            "scalar": S(I(low=0, high=3), F(4, 2)),
            "vector": S(I(7, low=0, high=3), F(4, 2)),
            "matrix": S(I(2, 3, low=0, high=3), F(4, 5)),
            "repeated": S(V(1, 1, dtype="int64"), F(3, 2)),
            "nothing": S(I(0, low=0), F(4, 2)),
            "one": S(V(0, dtype="int64"), F(1, 1)),
        },
        ref=lambda i, w: w[i],
        torch="nn.functional.embedding",
        errors=(
            Wrong(S(F(2), F(3, 2)), DTypeError, "embedding: index: got float64; needed integers"),
            Wrong(S(V(3, dtype="int64"), F(3, 2)), IndexRangeError, "index for axis 0 of size 3: got 3"),
        ),
    ),
    Op(
        "one_hot",
        {
            "scalar": S(I(low=0, high=3), 4),
            "vector": S(I(7, low=0, high=3), 4),
            "matrix": S(I(2, 3, low=0, high=3), 5),
            "one": S(V(0, dtype="int64"), 1),
            "empty": S(I(0, low=0), 3),
            "more_classes": S(I(3, low=0, high=1), 9),
        },
        ref=lambda x, n: np.eye(n, dtype=int)[x],
        torch="nn.functional.one_hot",
        smooth=False,
        errors=(
            Wrong(S(F(2), 3), DTypeError, "one_hot: index: got float64; needed integers"),
            Wrong(
                S(V(0, 3, dtype="int64"), 3), IndexRangeError, "one_hot: class: got 0 to 3; needed 0 to 2", staged=False
            ),
        ),
    ),
    Op(
        "masked_select",
        {
            "vector": S(F(7), B(7)),
            "matrix": S(F(3, 4), B(3, 4)),
            "row_mask": S(F(3, 4), B(4)),
            "stretched_input": S(F(4), B(3, 1)),
            "empty": S(F(0), B(0)),
            "one": S(F(1), B(1)),
        },
        ref=lambda x, m: np.broadcast_arrays(x, m)[0][np.broadcast_arrays(x, m)[1]],
        dynamic=True,
        errors=(Wrong(S(F(2), I(2)), DTypeError, "masked_select: mask: got int64; needed bool"),),
    ),
    Op(
        "nonzero",
        {
            "vector": S(I(7, low=0, high=1)),
            "matrix": S(I(3, 4, low=0, high=1)),
            "bools": S(B(5)),
            "empty": S(F(0)),
            "scalar": S(F()),
            "tuple": S(B(3, 4), as_tuple=True),
            "special": S(V(0.0, -0.0, math.nan, math.inf)),
        },
        ref=lambda x, as_tuple=False: np.nonzero(x) if as_tuple else np.argwhere(x),
        smooth=False,
        dynamic=True,
    ),
)

SIZES = {
    "scalar": S(()),
    "vector": S(7),
    "sizes": S(2, 3),
    "tuple": S((2, 3)),
    "empty": S(0, 3),
    "whole": S(3, dtype=int64),
    "double": S(3, dtype=float64),
    "recorded": S(2, requires_grad=True),
}
LIKE = {
    "scalar": S(F()),
    "vector": S(F(7)),
    "matrix": S(F(2, 3)),
    "empty": S(F(0, 3)),
    "integers": S(I(3)),
    "bools": S(B(3)),
    "other": S(F(2), dtype=int64),
}
NEGATIVE = Wrong(S(2, -1), ShapeError, r"shape: got \(2, -1\); needed sizes of at least 0")
NO_DTYPE = Wrong(S(2, dtype="float16"), DTypeError, "dtype: got float16; needed one of bool, uint8")
CUDA = Wrong(S(2, device="cuda"), ConfigError, "device: got 'cuda'; needed 'cpu'. Hint: Slalom trains on the CPU")
SLALOM_ONLY = ("dtype", "requires_grad")


def plain(function):
    """A NumPy reference without the arguments that it does not have."""
    return lambda *args, **kwargs: function(*args, **{k: v for k, v in kwargs.items() if k not in SLALOM_ONLY})


def sized(function):
    return plain(lambda *sizes: function(sizes[0] if isinstance(sizes[0], tuple) else sizes))


CREATION = (
    Op("zeros", SIZES, ref=sized(np.zeros), smooth=False, errors=(NEGATIVE, NO_DTYPE, CUDA)),
    Op("ones", SIZES, ref=sized(np.ones), smooth=False, errors=(NEGATIVE, NO_DTYPE, CUDA)),
    Op(
        "full",
        {
            "scalar": S((), 2.5),
            "vector": S((7,), 2),
            "matrix": S((2, 3), True),
            "empty": S((0,), 1.0),
            "typed": S((2,), 3, dtype=float64),
            "special": S((2,), math.nan),
        },
        ref=plain(np.full),
        smooth=False,
        errors=(Wrong(S((-1,), 0), ShapeError, r"shape: got \(-1,\); needed sizes of at least 0"),),
    ),
    Op("zeros_like", LIKE, ref=plain(np.zeros_like), smooth=False),
    Op("ones_like", LIKE, ref=plain(np.ones_like), smooth=False),
    Op("full_like", {k: S(*s.args, 1, **s.kwargs) for k, s in LIKE.items()}, ref=plain(np.full_like), smooth=False),
    Op(
        "arange",
        {
            "end": S(5),
            "range": S(2, 9),
            "step": S(1, 8, 3),
            "down": S(9, 2, -2),
            "floats": S(0.0, 1.0, 0.25),
            "tenths": S(0, 1, 0.1, dtype=float64),
            "empty": S(0),
            "typed": S(3, dtype=float32),
        },
        ref=plain(np.arange),
        smooth=False,
        errors=(
            Wrong(S(0, 3, 0), ConfigError, "arange: got step 0 from 0 to 3; needed a step towards the end"),
            Wrong(S(3, 0), ConfigError, "arange: got step 1 from 3 to 0; needed a step towards the end"),
        ),
    ),
    Op(
        "linspace",
        {
            "unit": S(0, 1, 5),
            "down": S(3.0, -2.0, 7),
            "one": S(2.0, 9.0, 1),
            "none": S(0.0, 1.0, 0),
            "constant": S(2.0, 2.0, 3),
            "double": S(0.0, 1.0, 11, dtype=float64),
        },
        ref=plain(np.linspace),
        smooth=False,
        errors=(Wrong(S(0, 1, -1), ConfigError, "linspace: steps: got -1; needed at least 0"),),
    ),
    Op(
        "eye",
        {"square": S(3), "wide": S(2, 4), "tall": S(4, 2), "empty": S(0), "one": S(1), "whole": S(3, dtype=int64)},
        ref=plain(np.eye),
        smooth=False,
        errors=(Wrong(S(-1), ShapeError, r"shape: got \(-1, -1\); needed sizes of at least 0"),),
    ),
)  # fmt: skip

DATA = {
    "number": S(2.5),
    "whole": S(3),
    "truth": S(True),
    "list": S([1, 2, 3]),
    "nested": S([[1.5, 2], [3, 4]]),
    "empty": S([]),
    "typed": S([1, 2], dtype=float64),
    "bools": S([True, False]),
    "cut": S([1.7, -1.7], dtype=int64),
}
HELD = {
    "vector": S(F(7)),
    "matrix": S(F(2, 3)),
    "empty": S(F(0)),
    "scalar": S(F()),
    "integers": S(I(3, dtype="int32")),
    "bools": S(B(2, 2)),
    "gaps": S(F(3, 4, layout="gaps")),
}
RAGGED = Wrong(S([[1, 2], [3]]), ShapeError, "tensor: got nested sequences of unequal lengths; needed a regular array")
COMPLEX = Wrong(S(1j), DTypeError, "dtype: got complex128; needed one of bool, uint8")
DATA_ROWS = (
    Op("tensor", DATA, ref=np.array, smooth=False, errors=(RAGGED, COMPLEX)),
    Op("as_tensor", DATA | {"tensor": S(F(3)), "cast": S(I(3), dtype=float32)}, ref=np.array, smooth=False,
       errors=(RAGGED, COMPLEX)),
    Op("from_numpy", HELD, ref=np.array, smooth=False, arrays=True, dynamic=True,
       errors=(Wrong(S([1]), DTypeError, r"from_numpy: got list; needed a NumPy array. Hint: use tensor\(\)"),
               Wrong(S(V(1, dtype=">f4")), DTypeError, "from_numpy: got another byte order; needed this machine's"),
               Wrong(S(V(1, dtype="float16")), DTypeError, "dtype: got float16; needed one of"))),
    Op("from_dlpack", HELD, ref=np.array, smooth=False, arrays=True, dynamic=True),
)  # fmt: skip

ROWS = (*INDEXING, *CREATION, *DATA_ROWS)

"""Reductions, scans, sorting, products, indexed access, random bits: the primitives that are not one-to-one."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from slalom.core import kernels
from slalom.core.dtype import DType, int64, uint32
from slalom.core.primitive import Array, Bilinear, Constant, Custom, Linear, Primitive, common_dtype, quiet
from slalom.core.shape import Shape, broadcast, reduced, size
from slalom.errors import DTypeError, ShapeError


def _count_dtype(x: Any, **params: Any) -> DType:
    return x.dtype if x.dtype.kind == "f" else int64


def _index_dtype(*inputs: Any, **params: Any) -> DType:
    return int64


def _keep(t: Any, x: Any, axes: Shape) -> Any:
    """A reduced tensor with its axes back, of size 1."""
    return t.reshape(reduced(x.shape, axes, True))


# --- reductions -------------------------------------------------------------------------------------------------
SUM: Final = Primitive(
    "sum",
    quiet(lambda x, *, axes, keepdims: np.add.reduce(x, axes, _count_dtype(x), keepdims=keepdims)),
    Linear(lambda ct, x, *, axes, keepdims: _keep(ct, x, axes).expand(x.shape)),
    lambda x, *, axes, keepdims: reduced(x.shape, axes, keepdims),
    "sum over axes; of integers in int64",
    dtype=_count_dtype,
)


def _extreme_shape(name: str, x: Any, axes: Shape, keepdims: bool) -> Shape:
    if any(x.shape[a] == 0 for a in axes):
        raise ShapeError(name, got=f"shape {x.shape} over axes {axes}", needed="at least one element to choose from")
    return reduced(x.shape, axes, keepdims)


def _amax_share(t: Any, out: Any, x: Any, axes: Shape) -> Any:
    """t where x is the maximum, divided among ties."""
    hit = x == _keep(out, x, axes)
    return (t / hit.sum(axes, True).to(x.dtype)).where(hit, 0)


AMAX: Final = Primitive(
    "amax",
    lambda x, *, axes, keepdims: np.maximum.reduce(x, axes, keepdims=keepdims),
    Custom(
        jvp=lambda t, out, x, *, axes, keepdims: _amax_share(t, out, x, axes).sum(axes, keepdims),
        vjp=lambda ct, out, x, *, axes, keepdims: _amax_share(_keep(ct, x, axes), out, x, axes),
    ),
    lambda x, *, axes, keepdims: _extreme_shape("amax", x, axes, keepdims),
    "maximum over axes; ties share the gradient evenly; NaN wins",
)


ARGMAX: Final = Primitive(
    "argmax",
    lambda x, *, axis, keepdims: np.argmax(x, axis, keepdims=keepdims) if x.ndim else np.zeros((), int64),
    Constant(),
    lambda x, *, axis, keepdims: _extreme_shape("argmax", x, (axis,) if x.shape else (), keepdims),
    "where the first maximum is",
    dtype=_index_dtype,
)


# --- scans and sorting ------------------------------------------------------------------------------------------
@quiet
def _cumsum(x: Array, *, axis: int, reverse: bool) -> Array:
    flipped = np.flip(x, axis) if reverse else x
    out = np.cumsum(flipped, axis, dtype=_count_dtype(x))
    return np.flip(out, axis) if reverse else out


CUMSUM: Final[Primitive] = Primitive(
    "cumsum",
    _cumsum,
    Linear(lambda ct, x, *, axis, reverse: ct._apply(CUMSUM, axis=axis, reverse=not reverse)),
    lambda x, *, axis, reverse: x.shape,
    "running sums along an axis, from its end when reverse",
    dtype=_count_dtype,
)


def _argsort(x: Array, *, axis: int, descending: bool) -> Array:
    # Sorting the reversed axis keeps equal elements in their order after the result is reversed back.
    order: Array = np.argsort(np.flip(x, axis) if descending else x, axis, kind="stable")
    return x.shape[axis] - 1 - np.flip(order, axis) if descending else order


ARGSORT: Final = Primitive(
    "argsort",
    _argsort,
    Constant(),
    lambda x, *, axis, descending: x.shape,
    "the stable order that sorts an axis; NaN counts as the largest",
    dtype=_index_dtype,
)


# --- products ---------------------------------------------------------------------------------------------------
def _matmul_shape(x: Any, y: Any) -> Shape:
    a, b = x.shape, y.shape
    if len(a) < 2 or len(b) < 2:
        raise ShapeError(f"matmul: {a} @ {b}", needed="at least two dimensions on each side")
    if a[-1] != b[-2]:
        raise ShapeError(f"matmul: {a} @ {b}: columns of the left ({a[-1]}) must equal rows of the right ({b[-2]})")
    return (*broadcast("matmul", [a[:-2], b[:-2]]), a[-2], b[-1])


MATMUL: Final = Primitive(
    "matmul",
    quiet(np.matmul),
    Bilinear(lambda ct, x, y: ct @ y.mT, lambda ct, x, y: x.mT @ ct),
    _matmul_shape,
    "matrix product over the last two axes, batched over the others",
    dtype=common_dtype("matmul"),
    takes=frozenset("uif"),
)


# --- indexed access ---------------------------------------------------------------------------------------------
def _index_shape(name: str, indices: tuple[Any, ...]) -> Shape:
    for index in indices:
        if index.dtype.kind not in "ui":
            raise DTypeError(f"{name}: index", got=index.dtype.name, needed="integers")
        if index.shape != indices[0].shape:
            raise ShapeError(f"{name}: index shapes {indices[0].shape} and {index.shape}", needed="equal shapes")
    return indices[0].shape  # type: ignore[no-any-return]


def _gather_shape(x: Any, *indices: Any) -> Shape:
    if len(indices) > len(x.shape):
        raise ShapeError("gather", got=f"{len(indices)} indices", needed=f"at most {len(x.shape)} for shape {x.shape}")
    return (*_index_shape("gather", indices), *x.shape[len(indices) :])


def _scatter_add_shape(updates: Any, *indices: Any, shape: Shape) -> Shape:
    needed = (*_index_shape("scatter_add", indices), *shape[len(indices) :])
    if updates.shape != needed:
        raise ShapeError("scatter_add: updates", got=updates.shape, needed=needed)
    return tuple(shape)


GATHER: Final[Primitive] = Primitive(
    "gather",
    lambda x, *indices: kernels.gather(x, indices),
    Linear(lambda ct, x, *indices: ct._apply(SCATTER_ADD, *indices, shape=x.shape)),
    _gather_shape,
    "x[i, j, …] over its leading axes; indices from 0",
)

SCATTER_ADD: Final[Primitive] = Primitive(
    "scatter_add",
    lambda updates, *indices, shape: kernels.scatter_add(updates, indices, shape),
    Linear(lambda ct, updates, *indices, shape: ct._apply(GATHER, *indices)),
    _scatter_add_shape,
    "zeros of a shape, with updates added at indices in index order",
)


# --- random bits ------------------------------------------------------------------------------------------------
def _random_bits(state: Array, *, shape: Shape) -> Array:
    return kernels.random_bits(state, size(shape)).reshape(shape)


def _random_shape(state: Any, *, shape: Shape) -> Shape:
    if state.shape != (3,) or state.dtype != int64:
        raise ShapeError("random_bits: state", got=f"{state.dtype.name}{state.shape}", needed="int64(3,)")
    return tuple(shape)


def _random_dtype(state: Any, *, shape: Shape) -> DType:
    return uint32


RANDOM_BITS: Final = Primitive(
    "random_bits",
    _random_bits,
    Constant(),
    _random_shape,
    "uint32 words: Philox4x32-10 of (seed, stream, draw) and the element's index",
    dtype=_random_dtype,
)

PRIMITIVES: Final = tuple(value for value in dict(globals()).values() if isinstance(value, Primitive))

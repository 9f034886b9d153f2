"""Reductions, norms, scans, sorting. ``dim``/``keepdim`` are PyTorch's names, ``axis``/``keepdims`` NumPy's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict, Unpack

import numpy as np

from slalom.core.dtype import int64
from slalom.core.functional.shaping import cat
from slalom.core.ops import reductions
from slalom.core.shape import Shape, axis_index, axis_tuple, reduced, size
from slalom.core.tensor import Tensor, apply, as_tensor, method
from slalom.errors import ConfigError, DTypeError, ShapeError

__all__ = [
    "all", "amax", "amin", "any", "argmax", "argmin", "argsort", "count_nonzero", "cumprod", "cumsum", "logsumexp",
    "max", "mean", "median", "min", "norm", "prod", "sort", "std", "sum", "topk", "var",
]  # fmt: skip

Dim = int | Sequence[int] | None


class NumpyNames(TypedDict, total=False):
    """NumPy's names for the arguments ``dim`` and ``keepdim``."""

    axis: Any
    keepdims: bool


class ValuesIndices(NamedTuple):
    """Chosen values along an axis and where they are."""

    values: Tensor
    indices: Tensor


def _renamed(name: str, dim: Any, keepdim: bool, numpy: NumpyNames) -> tuple[Any, bool]:
    for key in numpy:
        if key not in NumpyNames.__annotations__:
            raise TypeError(f"{name}() got an unexpected keyword argument {key!r}")
    return numpy.get("axis", dim), numpy.get("keepdims", keepdim)


def _over(name: str, input: Any, dim: Any, keepdim: bool, numpy: NumpyNames) -> tuple[Tensor, Shape, bool]:
    """What a reduction works on: the tensor, its axes, and whether they stay."""
    if numpy:
        dim, keepdim = _renamed(name, dim, keepdim, numpy)
    x = as_tensor(input)
    return x, axis_tuple(name, dim, x.ndim), keepdim


def _sum(x: Tensor, axes: Shape, keepdims: bool) -> Tensor:
    return apply(reductions.SUM, x, axes=axes, keepdims=keepdims)


def _amax(x: Tensor, axes: Shape, keepdims: bool) -> Tensor:
    return apply(reductions.AMAX, x, axes=axes, keepdims=keepdims)


def _count(x: Tensor, axes: Shape) -> int:
    return size(tuple([x.shape[a] for a in axes]))


# --- sums ---------------------------------------------------------------------------------------------------------
@method
def sum(
    input: Any, dim: Dim = None, keepdim: bool = False, *, dtype: Any = None, **numpy: Unpack[NumpyNames]
) -> Tensor:
    """Sum over axes (default: all); of integers and bools in int64."""
    x, axes, keep = _over("sum", input, dim, keepdim, numpy)
    return _sum(x if dtype is None else x.to(dtype), axes, keep)


@method
def mean(
    input: Any, dim: Dim = None, keepdim: bool = False, *, dtype: Any = None, **numpy: Unpack[NumpyNames]
) -> Tensor:
    """Mean over axes (default: all); NaN of nothing.

    Raises: DTypeError for integers, as PyTorch does.
    """
    x, axes, keep = _over("mean", input, dim, keepdim, numpy)
    if dtype is not None:
        x = x.to(dtype)
    if x.dtype.kind != "f":
        raise DTypeError("mean", got=x.dtype.name, needed="a floating dtype", hint="use .float().mean()")
    return _sum(x, axes, keep) / _count(x, axes)


@method
def any(input: Any, dim: Dim = None, keepdim: bool = False, **numpy: Unpack[NumpyNames]) -> Tensor:
    """Whether any value is true (nonzero)."""
    x, axes, keep = _over("any", input, dim, keepdim, numpy)
    return _sum(x != 0, axes, keep) > 0


@method
def all(input: Any, dim: Dim = None, keepdim: bool = False, **numpy: Unpack[NumpyNames]) -> Tensor:
    """Whether all values are true (nonzero)."""
    x, axes, keep = _over("all", input, dim, keepdim, numpy)
    return _sum(x == 0, axes, keep) == 0


@method
def count_nonzero(input: Any, dim: Dim = None, keepdim: bool = False, **numpy: Unpack[NumpyNames]) -> Tensor:
    """How many values are not 0."""
    x, axes, keep = _over("count_nonzero", input, dim, keepdim, numpy)
    return _sum(x != 0, axes, keep)


def _root(x: Tensor) -> Tensor:
    """√x with derivative 0 at 0, as PyTorch has it for norms and standard deviations."""
    none = x == 0
    return x.masked_fill(none, 1).sqrt().masked_fill(none, 0)


@method
def var(
    input: Any,
    dim: Dim = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float = 1,
    **numpy: Unpack[NumpyNames],
) -> Tensor:
    """Variance over axes: Σ(x − mean)² / (n − correction); NaN where n ≤ correction.

    Note: correction is 1 (``unbiased``) by default as in PyTorch; NumPy's default is 0.
    """
    if isinstance(dim, bool):  # PyTorch's x.var(False)
        dim, unbiased = None, dim
    x, axes, keep = _over("var", input, dim, keepdim, numpy)
    n = _count(x, axes)
    centred = x - _sum(x, axes, True) / n
    freedom = n - (correction if unbiased is None else int(unbiased))
    total = _sum(centred * centred, axes, keep)
    return total / freedom if freedom > 0 else total * float("nan")


@method
def std(
    input: Any,
    dim: Dim = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float = 1,
    **numpy: Unpack[NumpyNames],
) -> Tensor:
    """Standard deviation over axes: √var, with derivative 0 where that is 0."""
    return _root(var(input, dim, unbiased, keepdim, correction=correction, **numpy))


@method
def norm(input: Any, p: float | str = 2, dim: Dim = None, keepdim: bool = False, **numpy: Unpack[NumpyNames]) -> Tensor:
    """The p-norm (Σ|x|ᵖ)^(1/p) over axes, for p > 0, ∞ or "fro" (p = 2); derivative 0 at 0.

    Raises: ConfigError for another p.
    """
    x, axes, keep = _over("norm", input, dim, keepdim, numpy)
    if x.dtype.kind != "f":
        raise DTypeError("norm", got=x.dtype.name, needed="a floating dtype", hint="use .float().norm()")
    if p in (2, "fro"):
        return _root(_sum(x * x, axes, keep))
    if isinstance(p, str) or not p > 0:
        raise ConfigError("norm: p", got=repr(p), needed="a number above 0, or 'fro'")
    if p == float("inf"):
        return _amax(x.abs(), axes, keep)
    if p == 1:
        return _sum(x.abs(), axes, keep)
    none = x == 0
    total = _sum((x.abs().masked_fill(none, 1) ** p).masked_fill(none, 0), axes, keep)
    none = total == 0
    return (total.masked_fill(none, 1) ** (1 / p)).masked_fill(none, 0)


# --- products and extremes ----------------------------------------------------------------------------------------
@method
def prod(
    input: Any, dim: Dim = None, keepdim: bool = False, *, dtype: Any = None, **numpy: Unpack[NumpyNames]
) -> Tensor:
    """Product over axes, by halves: its gradient is right at zeros too; of integers and bools in int64."""
    x, axes, keep = _over("prod", input, dim, keepdim, numpy)
    x = x.to(dtype) if dtype is not None else _widened(x)
    shape = reduced(x.shape, axes, keep)
    for axis in axes:
        x = _prod_axis(x, axis)
    return x.reshape(shape)


def _widened(x: Tensor) -> Tensor:
    """Integers as int64, in which sums and products of them are taken."""
    return x if x.dtype.kind == "f" else x.to(int64)


def _prod_axis(x: Tensor, axis: int) -> Tensor:
    if x.shape[axis] == 0:
        shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
        return Tensor._of(np.ones(shape, x.dtype))
    while (n := x.shape[axis]) > 1:
        half = n // 2
        low, high = x.narrow(axis, 0, half), x.narrow(axis, half, half)
        product = low * high
        x = cat([product, x.narrow(axis, n - 1, 1)], axis) if n % 2 else product
    return x


def _reversed(x: Tensor) -> Tensor:
    """An order-reversing map of every dtype onto itself: −x of the smallest integer would be that integer."""
    return -x if x.dtype.kind == "f" else ~x


@method
def amax(input: Any, dim: Dim = None, keepdim: bool = False, **numpy: Unpack[NumpyNames]) -> Tensor:
    """Maximum over axes; ties share the gradient evenly; NaN wins.

    Raises: ShapeError for a maximum of nothing.
    """
    x, axes, keep = _over("amax", input, dim, keepdim, numpy)
    return _amax(x, axes, keep)


@method
def amin(input: Any, dim: Dim = None, keepdim: bool = False, **numpy: Unpack[NumpyNames]) -> Tensor:
    """Minimum over axes; ties share the gradient evenly; NaN wins.

    Raises: ShapeError for a minimum of nothing.
    """
    x, axes, keep = _over("amin", input, dim, keepdim, numpy)
    return _reversed(_amax(_reversed(x), axes, keep))


@method
def logsumexp(input: Any, dim: Dim = None, keepdim: bool = False, **numpy: Unpack[NumpyNames]) -> Tensor:
    """ln Σ eˣ over axes, computed from the maximum so that nothing overflows; −∞ of nothing."""
    x, axes, keep = _over("logsumexp", input, dim, keepdim, numpy)
    shape = reduced(x.shape, axes, keep)
    if not _count(x, axes):
        return _sum(x.exp(), axes, keep).log()
    top = _amax(x.detach(), axes, True)
    top = top.where(top.abs() < float("inf"), 0)  # all −∞ gives −∞, not NaN
    total = _sum((x - top).exp(), axes, True)
    return (total.log() + top).reshape(shape)


# --- extremes with their places -----------------------------------------------------------------------------------
def _place(name: str, x: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """Where the first maximum is, along an axis or in the flattened tensor."""
    flat = x.reshape(-1) if dim is None else x
    axis = axis_index(name, 0 if dim is None else dim, flat.ndim)
    if flat.ndim and not flat.shape[axis]:
        raise ShapeError(name, got=f"shape {x.shape}", needed="at least one element to choose from")
    out = apply(reductions.ARGMAX, flat, axis=axis, keepdims=keepdim and dim is not None)
    return out.reshape((1,) * x.ndim) if keepdim and dim is None else out


@method
def argmax(input: Any, dim: int | None = None, keepdim: bool = False, **numpy: Unpack[NumpyNames]) -> Tensor:
    """Where the first maximum is, along one axis or in the flattened tensor; NaN counts as the largest."""
    return _place("argmax", as_tensor(input), *_renamed("argmax", dim, keepdim, numpy))


@method
def argmin(input: Any, dim: int | None = None, keepdim: bool = False, **numpy: Unpack[NumpyNames]) -> Tensor:
    """Where the first minimum is, along one axis or in the flattened tensor; NaN counts as the smallest."""
    return _place("argmin", _reversed(as_tensor(input)), *_renamed("argmin", dim, keepdim, numpy))


def _chosen(x: Tensor, places: Tensor, dim: int, keepdim: bool) -> ValuesIndices:
    """The values at one place of each line along an axis."""
    if not x.ndim:
        return ValuesIndices(x.clone(), places)
    values = x.take_along_dim(places, dim)
    return ValuesIndices(values, places) if keepdim else ValuesIndices(values.squeeze(dim), places.squeeze(dim))


@method
def max(input: Any, dim: Any = None, keepdim: bool = False, **numpy: Unpack[NumpyNames]) -> Any:
    """The maximum of all elements; along ``dim``, (values, indices); with a tensor, elementwise.

    Note: along ``dim`` the whole gradient goes to the first of equal values, as in PyTorch.
    """
    x = as_tensor(input)
    dim, keepdim = _renamed("max", dim, keepdim, numpy)
    if isinstance(dim, Tensor):
        return x.maximum(dim)
    return amax(x) if dim is None else _chosen(x, _place("max", x, dim, True), dim, keepdim)


@method
def min(input: Any, dim: Any = None, keepdim: bool = False, **numpy: Unpack[NumpyNames]) -> Any:
    """The minimum of all elements; along ``dim``, (values, indices); with a tensor, elementwise.

    Note: along ``dim`` the whole gradient goes to the first of equal values, as in PyTorch.
    """
    x = as_tensor(input)
    dim, keepdim = _renamed("min", dim, keepdim, numpy)
    if isinstance(dim, Tensor):
        return x.minimum(dim)
    return amin(x) if dim is None else _chosen(x, _place("min", _reversed(x), dim, True), dim, keepdim)


# --- scans and order ----------------------------------------------------------------------------------------------
@method
def cumsum(input: Any, dim: int = 0, **numpy: Unpack[NumpyNames]) -> Tensor:
    """Running sums along an axis; of integers and bools in int64."""
    x = as_tensor(input)
    axis = axis_index("cumsum", _renamed("cumsum", dim, False, numpy)[0], x.ndim)
    return apply(reductions.CUMSUM, x, axis=axis, reverse=False) if x.ndim else _sum(x, (), False)


@method
def cumprod(input: Any, dim: int = 0, **numpy: Unpack[NumpyNames]) -> Tensor:
    """Running products along an axis, by doubling (Hillis and Steele, 1986): right at zeros too."""
    x = _widened(as_tensor(input))
    axis = axis_index("cumprod", _renamed("cumprod", dim, False, numpy)[0], x.ndim)
    n, step, out = x.shape[axis] if x.ndim else 0, 1, x
    while step < n:
        head, tail = out.narrow(axis, 0, step), out.narrow(axis, step, n - step)
        out = cat([head, tail * out.narrow(axis, 0, n - step)], axis)
        step *= 2
    return x.clone() if out is x else out


@method
def argsort(input: Any, dim: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The order that sorts an axis; always stable; NaN counts as the largest."""
    x = as_tensor(input)
    axis = axis_index("argsort", dim, x.ndim)
    if not x.ndim:
        return Tensor._of(np.zeros((), int64))
    return apply(reductions.ARGSORT, x, axis=axis, descending=descending)


@method
def sort(input: Any, dim: int = -1, descending: bool = False, stable: bool = True) -> ValuesIndices:
    """(values in order, the order); always stable; NaN counts as the largest."""
    x = as_tensor(input)
    return _chosen(x, argsort(x, dim, descending), dim, True)


@method
def topk(input: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> ValuesIndices:
    """The k largest (smallest) values along an axis, in order, and where they are.

    Raises: ShapeError for a k beyond the axis.
    """
    x = as_tensor(input)
    axis = axis_index("topk", dim, x.ndim, wrap_scalar=False)
    if not 0 <= k <= x.shape[axis]:
        raise ShapeError("topk: k", got=k, needed=f"0 to {x.shape[axis]}")
    return _chosen(x, argsort(x, axis, largest).narrow(axis, 0, k), axis, True)


@method
def median(input: Any, dim: int | None = None, keepdim: bool = False, **numpy: Unpack[NumpyNames]) -> Any:
    """The middle value, the lower of two; along ``dim``, (values, indices); NaN where there is a NaN.

    Raises: ShapeError for a median of nothing.
    """
    x = as_tensor(input)
    dim, keepdim = _renamed("median", dim, keepdim, numpy)
    if dim is None:
        return median(x.reshape(-1), 0).values
    axis = axis_index("median", dim, x.ndim)
    if not x.ndim:
        return ValuesIndices(x.clone(), argsort(x))
    n = x.shape[axis]
    if not n:
        raise ShapeError("median", got=f"shape {x.shape}", needed="at least one element along the axis")
    order = argsort(x, axis)
    middle, last = order.narrow(axis, (n - 1) // 2, 1), order.narrow(axis, n - 1, 1)
    if x.dtype.kind == "f":
        middle = last.where(x.detach().take_along_dim(last, axis).isnan(), middle)
    return _chosen(x, middle, axis, keepdim)

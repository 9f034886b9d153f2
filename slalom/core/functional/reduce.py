"""Reductions, norms, scans, sorting. ``dim``/``keepdim`` are PyTorch's names, ``axis``/``keepdims`` NumPy's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from slalom.core.dtype import bool_, int64
from slalom.core.ops import reductions
from slalom.core.shape import axis_index, axis_tuple, reduced, size
from slalom.core.tensor import Tensor, apply, as_tensor, method
from slalom.errors import DTypeError, ShapeError

__all__ = [
    "all", "amax", "amin", "any", "argmax", "argmin", "argsort", "count_nonzero", "cumprod", "cumsum", "logsumexp", "max",
    "mean", "median", "min", "norm", "prod", "sort", "std", "sum", "topk", "var",
]  # fmt: skip

Dim = int | Sequence[int] | None


class MaxResult(NamedTuple):
    """Extreme values along an axis and where they are."""

    values: Tensor
    indices: Tensor


def _reduction(function: Callable[..., Tensor]) -> Callable[..., Any]:
    """Let a reduction be called with NumPy's names for its axis arguments too."""

    def run(input: Tensor, dim: Dim = None, keepdim: bool = False, **options: Any) -> Tensor:
        if "axis" in options:
            dim = options.pop("axis")
        if "keepdims" in options:
            keepdim = options.pop("keepdims")
        x = as_tensor(input)
        return function(x, axis_tuple(function.__name__, dim, x.ndim), keepdim, **options)

    run.__name__ = run.__qualname__ = function.__name__
    run.__doc__ = function.__doc__
    return method(run)


@_reduction
def sum(input: Tensor, dim: Any, keepdim: bool, dtype: Any = None) -> Tensor:  # noqa: A001
    """Sum over axes (default: all); of integers and bools in int64."""
    x = input if dtype is None else input.to(dtype)
    return apply(reductions.SUM, x, axes=dim, keepdims=keepdim)


def _count(x: Tensor, axes: tuple[int, ...]) -> int:
    return size(tuple(x.shape[a] for a in axes))


@_reduction
def mean(input: Tensor, dim: Any, keepdim: bool, dtype: Any = None) -> Tensor:
    """Mean over axes (default: all); NaN of nothing.

    Raises: DTypeError for integers, as PyTorch does.
    """
    x = input if dtype is None else input.to(dtype)
    if x.dtype.kind != "f":
        raise DTypeError("mean", got=x.dtype.name, needed="a floating dtype", hint="use .float().mean()")
    return apply(reductions.SUM, x, axes=dim, keepdims=keepdim) / _count(x, dim)


@_reduction
def amax(input: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """Maximum over axes; ties share the gradient evenly."""
    return apply(reductions.AMAX, input, axes=dim, keepdims=keepdim)


@_reduction
def amin(input: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """Minimum over axes; ties share the gradient evenly."""
    if input.dtype == bool_:
        return ~apply(reductions.AMAX, ~input, axes=dim, keepdims=keepdim)
    return -apply(reductions.AMAX, -input, axes=dim, keepdims=keepdim)


@_reduction
def any(input: Tensor, dim: Any, keepdim: bool) -> Tensor:  # noqa: A001
    """Whether any value is true (nonzero)."""
    return apply(reductions.SUM, input != 0, axes=dim, keepdims=keepdim) > 0


@_reduction
def all(input: Tensor, dim: Any, keepdim: bool) -> Tensor:  # noqa: A001
    """Whether all values are true (nonzero)."""
    return apply(reductions.SUM, input == 0, axes=dim, keepdims=keepdim) == 0


@_reduction
def count_nonzero(input: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """How many values are not 0."""
    return apply(reductions.SUM, input != 0, axes=dim, keepdims=keepdim)


@_reduction
def var(
    input: Tensor, dim: Any, keepdim: bool, correction: float = 1, unbiased: bool | None = None
) -> Tensor:
    """Variance over axes: Σ(x − mean)² / (n − correction).

    Note: correction is 1 (unbiased) by default as in PyTorch; NumPy's default is 0.
    """
    if unbiased is not None:
        correction = int(unbiased)
    centred = input - apply(reductions.SUM, input, axes=dim, keepdims=True) / _count(input, dim)
    total = apply(reductions.SUM, centred * centred, axes=dim, keepdims=keepdim)
    freedom = _count(input, dim) - correction
    return total / freedom if freedom > 0 else total * float("nan")


@_reduction
def std(
    input: Tensor, dim: Any, keepdim: bool, correction: float = 1, unbiased: bool | None = None
) -> Tensor:
    """Standard deviation over axes: √var."""
    return var(input, dim, keepdim, correction=correction, unbiased=unbiased).sqrt()


@_reduction
def logsumexp(input: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """ln Σ eˣ over axes, computed from the maximum so that nothing overflows."""
    top = apply(reductions.AMAX, input.detach(), axes=dim, keepdims=True)
    top = top.where(top.abs() < float("inf"), 0)  # all −∞ gives −∞, not NaN
    total = apply(reductions.SUM, (input - top).exp(), axes=dim, keepdims=True)
    out = total.log() + top
    return out if keepdim else out.reshape(reduced(input.shape, dim, False))


@_reduction
def prod(input: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """Product over axes, by halves: its gradient is right at zeros too."""
    x = input if input.dtype.kind == "f" else input.to(int64)
    for axis in dim:
        x = _prod_axis(x, axis)
    return x if keepdim else x.reshape(reduced(input.shape, dim, False))


def _prod_axis(x: Tensor, axis: int) -> Tensor:
    if x.shape[axis] == 0:
        shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
        return as_tensor(1).to(x.dtype).expand(shape)
    while (n := x.shape[axis]) > 1:
        half = n // 2
        low, high = x.narrow(axis, 0, half), x.narrow(axis, half, half)
        product = low * high
        x = product._concatenate([x.narrow(axis, n - 1, 1)], axis) if n % 2 else product
    return x


@_reduction
def norm(input: Tensor, dim: Any, keepdim: bool, p: float = 2) -> Tensor:
    """The p-norm (Σ|x|ᵖ)^(1/p) over axes; p may be 1, 2, ∞ or any positive number."""
    if p == 2:
        return apply(reductions.SUM, input * input, axes=dim, keepdims=keepdim).sqrt()
    if p == float("inf"):
        return apply(reductions.AMAX, input.abs(), axes=dim, keepdims=keepdim)
    total = apply(reductions.SUM, input.abs() if p == 1 else input.abs() ** p, axes=dim, keepdims=keepdim)
    return total if p == 1 else total ** (1 / p)


# --- extremes with their places -----------------------------------------------------------------------------------
def _arg(input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    x = input.reshape(-1) if dim is None else input
    axis = axis_index("argmax", 0 if dim is None else dim, x.ndim)
    out = apply(reductions.ARGMAX, x, axis=axis, keepdims=keepdim and dim is not None)
    return out.reshape((1,) * input.ndim) if keepdim and dim is None else out


def _axis_names(dim: Any, keepdim: bool, options: dict[str, Any]) -> tuple[Any, bool]:
    return options.pop("axis", dim), options.pop("keepdims", keepdim)


@method
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False, **names: Any) -> Tensor:
    """Where the first maximum is, along one axis or in the flattened tensor."""
    return _arg(as_tensor(input), *_axis_names(dim, keepdim, names))


def _negated(x: Tensor) -> Tensor:
    """An order-reversing map that exists for every dtype."""
    return ~x if x.dtype.kind in "bu" else -x


@method
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False, **names: Any) -> Tensor:
    """Where the first minimum is, along one axis or in the flattened tensor."""
    return _arg(_negated(as_tensor(input)), *_axis_names(dim, keepdim, names))


def _extreme(name: str, whole: Callable[..., Any], place: Callable[..., Tensor], pair: str) -> Callable[..., Any]:
    def function(input: Tensor, dim: Any = None, keepdim: bool = False, **names: Any) -> Any:
        x = as_tensor(input)
        if isinstance(dim, Tensor):
            return getattr(x, pair)(dim)
        dim, keepdim = _axis_names(dim, keepdim, names)
        if dim is None:
            return whole(x)
        where = place(x, dim, True)
        values = x.take_along_dim(where, dim)
        return MaxResult(values, where) if keepdim else MaxResult(values.squeeze(dim), where.squeeze(dim))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = (
        f"The {name}imum of all elements; along ``dim``, (values, indices); with a tensor, elementwise.\n\n"
        f"    Note: along ``dim`` the whole gradient goes to the first of equal values, as in PyTorch."
    )
    return method(function)


max = _extreme("max", amax, argmax, "maximum")  # noqa: A001
min = _extreme("min", amin, argmin, "minimum")  # noqa: A001


# --- scans and order ----------------------------------------------------------------------------------------------
@method
def cumsum(input: Tensor, dim: int = 0, **names: Any) -> Tensor:
    """Running sums along an axis."""
    x = as_tensor(input)
    axis = axis_index("cumsum", names.pop("axis", dim), x.ndim)
    return apply(reductions.CUMSUM, x, axis=axis, reverse=False) if x.ndim else x.clone()


@method
def cumprod(input: Tensor, dim: int = 0) -> Tensor:
    """Running products along an axis, by doubling (Hillis and Steele, 1986): right at zeros too."""
    x = as_tensor(input)
    axis = axis_index("cumprod", dim, x.ndim)
    n, step = x.shape[axis], 1
    while step < n:
        head, tail = x.narrow(axis, 0, step), x.narrow(axis, step, n - step)
        x = head._concatenate([tail * x.narrow(axis, 0, n - step)], axis)
        step *= 2
    return x


@method
def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The order that sorts an axis; always stable."""
    x = as_tensor(input)
    if not x.ndim:
        return Tensor._of(np.zeros((), int64))
    return apply(reductions.ARGSORT, x, axis=axis_index("argsort", dim, x.ndim), descending=descending)


@method
def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> MaxResult:
    """(values in order, the order); stable; NaN counts as the largest."""
    order = argsort(input, dim, descending)
    return MaxResult(input.take_along_dim(order, dim) if input.ndim else input.clone(), order)


@method
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> MaxResult:  # noqa: A002
    """The k largest (smallest) values along an axis, in order, and where they are."""
    axis = axis_index("topk", dim, input.ndim)
    if not 0 <= k <= input.shape[axis]:
        raise ShapeError("topk: k", got=k, needed=f"0 to {input.shape[axis]}")
    order = argsort(input, axis, largest).narrow(axis, 0, k)
    return MaxResult(input.take_along_dim(order, axis), order)


@method
def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The middle value, the lower of two as in PyTorch; along ``dim``, (values, indices)."""
    if dim is None:
        return median(input.reshape(-1), 0).values
    axis = axis_index("median", dim, input.ndim)
    values, order = sort(input, axis)
    middle = (input.shape[axis] - 1) // 2
    out = values.narrow(axis, middle, 1), order.narrow(axis, middle, 1)
    return MaxResult(*out) if keepdim else MaxResult(*(t.squeeze(axis) for t in out))

"""Pooling: means, maxima and norms of windows, of 1 to 3 axes.

Maxima are taken axis by axis, last to first. The elements that one place of all windows sees are a slice of the axis,
so that a few slices are compared elementwise, fused, and nothing is gathered. Of two neighbours the first is the
maximum unless the second is larger: so the first maximum in row-major order gets the whole gradient, as in PyTorch
(``amax`` divides it). Large windows go through ``argmax``. Sums are one reduction of a view.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, prod
from typing import Any, Final, NamedTuple

import numpy as np

from slalom.core.functional.indexing import index_select
from slalom.core.ops import structural
from slalom.core.primitive import Array
from slalom.core.shape import Shape, per_axis
from slalom.core.tensor import Tensor, apply, floating
from slalom.errors import ConfigError, ShapeError

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "adaptive_max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "lp_pool1d", "lp_pool2d", "lp_pool3d",
    "max_pool1d", "max_pool2d", "max_pool3d",
]  # fmt: skip

Sizes = int | Sequence[int]
OptionalSizes = int | None | Sequence[int | None]
_AXES: Final = ("", "T", "H, W", "D, H, W")
_FEW: Final = 16
"""Windows of up to so many elements an axis are compared (or, of stride 1, added) by slices."""


@dataclass(frozen=True)
class _Frame:
    """Where the windows of one axis lie: ``count`` of them, on the axis with ``low`` and ``high`` more elements."""

    size: int
    stride: int
    dilation: int
    low: int
    high: int
    count: int

    def places(self) -> Array:
        """Where each tap of each window is on the axis itself; negative in the padding before it. (count, size)"""
        starts = np.arange(self.count) * self.stride - self.low
        return starts[:, None] + np.arange(self.size) * self.dilation


def _frames(
    name: str,
    input: Tensor,
    rank: int,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> list[_Frame]:
    """The windows of each of the last axes.

    ``ceil_mode``: also a last window that begins inside, but ends beyond the padding.
    """
    _check_rank(name, input, rank)
    sizes = per_axis(f"{name}: kernel_size", kernel_size, rank)
    strides = sizes if stride is None or stride == () else per_axis(f"{name}: stride", stride, rank)
    dilations = per_axis(f"{name}: dilation", dilation, rank)
    frames = []
    widths = per_axis(f"{name}: padding", padding, rank, 0)
    for n, k, s, d, p in zip(input.shape[-rank:], sizes, strides, dilations, widths, strict=True):
        reach = d * (k - 1) + 1
        if 2 * p > reach:
            raise ConfigError(f"{name}: padding", got=p, needed=f"at most half of the {reach} elements a window covers")
        room = n + 2 * p - reach
        count = (-(-room // s) if ceil_mode else room // s) + 1
        if ceil_mode and (count - 1) * s >= n + p:
            count -= 1
        if n < 1 or count < 1:
            got = f"{input.shape[-rank:]} with padding {padding}"
            raise ShapeError(f"{name}: the input's size", got=got, needed=f"room for a window of {sizes}")
        frames.append(_Frame(k, s, d, p, max(0, (count - 1) * s + reach - n - p), count))
    return frames


def _check_rank(name: str, input: Tensor, rank: int) -> None:
    if input.ndim not in (rank + 1, rank + 2):
        needed = f"(B, C, {_AXES[rank]}) or (C, {_AXES[rank]})"
        raise ShapeError(f"{name}: input", got=f"shape {input.shape}", needed=needed)


def _with_zeros(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    """With zeros before and after an axis."""
    if not before and not after:
        return x
    low, high = [0] * x.ndim, [0] * x.ndim
    low[axis], high[axis] = before, after
    return apply(structural.PAD, x, low=tuple(low), high=tuple(high), interior=(0,) * x.ndim)


def _slices(x: Tensor, axis: int, frame: _Frame) -> list[Tensor]:
    """What each place of the windows of one (padded) axis sees: (…, count, …), ``size`` times.

    Of a stride, the axis is cut into (…, stride), where every stride-th element is a slice that leaves nothing out: so
    nothing needs to be spread out on the way back. Then there is one more axis, of size 1, behind ``count``.
    """
    taps = [divmod(tap * frame.dilation, frame.stride) for tap in range(frame.size)]
    rows, stride = taps[-1][0] + frame.count, frame.stride
    if rows * stride > x.shape[axis]:
        x = _with_zeros(x, axis, 0, rows * stride - x.shape[axis])
    elif rows * stride < x.shape[axis]:
        x = x.narrow(axis, 0, rows * stride)
    if stride > 1:
        x = x.unflatten(axis, (rows, stride))
    start, stop = [0] * x.ndim, list(x.shape)
    taken = []
    for row, phase in taps:
        start[axis], stop[axis] = row, row + frame.count
        if stride > 1:
            start[axis + 1], stop[axis + 1] = phase, phase + 1
        taken.append(apply(structural.SLICE, x, start=tuple(start), stop=tuple(stop), step=(1,) * x.ndim))
    return taken


def _windows(x: Tensor, axis: int, frame: _Frame) -> Tensor:
    """The windows of one (padded) axis, as the last axis: (…, count, …, size)."""
    size, count = frame.size, frame.count
    if frame.stride == size and frame.dilation == 1:  # side by side
        whole = x if x.shape[axis] == count * size else x.narrow(axis, 0, count * size)
        return whole.unflatten(axis, (count, size)).movedim(axis + 1, -1)
    after = x.ndim - axis - 1
    stride, dilation = (frame.stride, *(1,) * after), (frame.dilation, *(1,) * after)
    seen = apply(structural.WINDOWS, x, size=(size, *(1,) * after), stride=stride, dilation=dilation)
    seen = seen.reshape(*seen.shape[: x.ndim], size)
    return seen if seen.shape[axis] == count else seen.narrow(axis, 0, count)


def _aligned(mask: Array, axis: int, x: Tensor) -> Array:
    """What belongs to one axis, in the shape that goes with ``x``; a second one is its last."""
    return mask.reshape(mask.shape[0], *(1,) * (x.ndim - axis - mask.ndim), *mask.shape[1:])


def _joined(parts: list[Any], join: Callable[[Any, Any], Any]) -> Any:
    """Neighbours joined until one is left; all stay in their order."""
    while len(parts) > 1:
        pairs = [join(*parts[i : i + 2]) for i in range(0, len(parts) - 1, 2)]
        parts = pairs if len(parts) % 2 == 0 else [*pairs, parts[-1]]
    return parts[0]


# --- maxima -----------------------------------------------------------------------------------------------------------
class _Found(NamedTuple):
    """The largest so far: values, their places, and whether there are any yet (False in the padding; None: all)."""

    values: Tensor
    places: Tensor | None
    inside: Array | None


def _larger(first: _Found, second: _Found) -> _Found:
    """Elementwise, the first unless the second is larger or NaN."""
    a, b = first.values, second.values
    taken = b > a
    if b.dtype.kind == "f":
        taken = taken | (b != b)
    inside = None
    if first.inside is not None and second.inside is not None:
        if not first.inside.all():
            taken = taken | Tensor._of(~first.inside)
        if not second.inside.all():
            taken = taken & Tensor._of(second.inside)
        inside = first.inside | second.inside
    places = None
    if first.places is not None and second.places is not None:
        places = second.places.where(taken, first.places)
    return _Found(b.where(taken, a), places, inside)


def _chosen(rows: Tensor, places: Tensor | None, there: Array) -> tuple[Tensor, Tensor | None]:
    """The first maximum along the last axis, and its place. ``there`` (…, size): False in the padding."""
    if there.all():
        at = rows.detach().argmax(-1, True)
    else:
        known = rows.detach().where(Tensor._of(there), _least(rows))
        # Where all are the least, the padding before them is as large: not before the first that is there.
        at = known.argmax(-1, True).maximum(Tensor._of(there.argmax(-1, keepdims=True)))
    return rows.take_along_dim(at, -1), None if places is None else places.take_along_dim(at, -1)


def _least(x: Tensor) -> float:
    return -inf if x.dtype.kind == "f" else int(np.iinfo(x.dtype).min)


def _without(there: Array, axis: int, values: Tensor) -> Tensor:
    """The least number where a window sees nothing but padding, which only one that is dilated can."""
    some = np.asarray(there.any(1))
    return values if some.all() else values.where(Tensor._of(_aligned(some, axis, values)), _least(values))


def _first_maximum(values: Tensor, places: Tensor | None, axis: int, frame: _Frame) -> tuple[Tensor, Tensor | None]:
    """The first maximum in each window of one axis, and its place."""
    at, n = frame.places(), values.shape[axis]
    there = (at >= 0) & (at < n)
    shape = (*values.shape[:axis], frame.count, *values.shape[axis + 1 :])
    values = _with_zeros(values, axis, frame.low, frame.high)
    places = None if places is None else _with_zeros(places, axis, frame.low, frame.high)
    if frame.size > _FEW:
        rows = _windows(values, axis, frame)
        seen = None if places is None else _windows(places, axis, frame)
        largest, where = _chosen(rows, seen, _aligned(there, axis, rows))
        return _without(there, axis, largest.reshape(shape)), None if where is None else where.reshape(shape)
    none: list[Any] = [None] * frame.size
    parts = _slices(values, axis, frame)
    seen_by = none if places is None else _slices(places, axis, frame)
    masks = none if there.all() else [_aligned(mask, axis, parts[0]) for mask in there.T]
    best = _joined(list(map(_Found, parts, seen_by, masks)), _larger)
    found = _without(there, axis, best.values.reshape(shape))
    return found, None if best.places is None else best.places.reshape(shape)


def _places(x: Tensor, rank: int) -> Tensor:
    """The number of each element among those of the last axes, row by row."""
    spatial = x.shape[x.ndim - rank :]
    return Tensor._of(np.arange(prod(spatial)).reshape(spatial)).expand(x.shape)


def _max_pool(
    rank: int,
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
    return_indices: bool,
) -> Any:
    frames = _frames(f"max_pool{rank}d", input, rank, kernel_size, stride, padding, dilation, ceil_mode)
    values, places = input, _places(input, rank) if return_indices else None
    for axis, frame in zip(reversed(range(input.ndim)), reversed(frames), strict=False):
        values, places = _first_maximum(values, places, axis, frame)
    return values if places is None else (values, places)


def max_pool1d(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The maximum of each window; with ``return_indices`` also where it was, as (values, indices).

    ``stride``: the kernel's size if it is not given. ``ceil_mode``: a last window may end beyond the input.

    Shapes: (B, C, T) or (C, T) → (…, T'), T' = ⌊(T + 2·padding − dilation·(k − 1) − 1) / stride⌋ + 1, or ⌈…⌉ + 1.
    Raises: ShapeError for an input that no window fits into; ConfigError for a padding of more than half a window.
    Note: the whole gradient goes to the first of equal values, and NaN is larger than all, as in PyTorch. The padding
    is never chosen: it counts as −∞.

    >>> max_pool1d(Tensor([[1.0, 3.0, 2.0, 5.0, 4.0]]), 2)
    tensor([[3., 5.]])
    """
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """As ``max_pool1d``, over two axes; an index is row · W + column. Shapes: (B, C, H, W) or (C, H, W)."""
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """As ``max_pool1d``, over three axes. Shapes: (B, C, D, H, W) or (C, D, H, W)."""
    return _max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


# --- means ------------------------------------------------------------------------------------------------------------
def _sum(x: Tensor, frames: Sequence[_Frame]) -> Tensor:
    """The sum of each window of the last axes."""
    first = x.ndim - len(frames)
    for axis, frame in enumerate(frames, first):
        x = _with_zeros(x, axis, frame.low, frame.high)
    if all(frame.stride == frame.size and frame.dilation == 1 for frame in frames):  # side by side
        for axis, frame in reversed(list(enumerate(frames, first))):
            x = x.narrow(axis, 0, frame.count * frame.size).unflatten(axis, (frame.count, frame.size))
        return x.sum(tuple(range(first + 1, x.ndim, 2)))
    if all(frame.stride == 1 and frame.size <= _FEW for frame in frames):
        for axis, frame in reversed(list(enumerate(frames, first))):
            x = _joined(_slices(x, axis, frame), operator.add)
        return x
    steps = {name: tuple([getattr(frame, name) for frame in frames]) for name in ("size", "stride", "dilation")}
    seen = apply(structural.WINDOWS, x, **steps)
    for axis, frame in enumerate(frames, first):
        seen = seen if seen.shape[axis] == frame.count else seen.narrow(axis, 0, frame.count)
    return seen.sum(tuple(range(x.ndim, seen.ndim)))


def _avg_pool(
    name: str,
    rank: int,
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None = None,
) -> Tensor:
    frames = _frames(name, input, rank, kernel_size, stride, padding, 1, ceil_mode)
    if divisor_override is not None and divisor_override == 0:
        raise ConfigError(f"{name}: divisor_override", got=0, needed="a number other than 0, or None")
    total, divisor = _sum(floating(input), frames), np.ones((), np.int64)
    for frame, n in zip(frames, input.shape[-rank:], strict=True):
        at = frame.places()
        # What lies beyond the padding, where ceil_mode reaches, is never counted.
        counted = at < n + frame.low if count_include_pad else (at >= 0) & (at < n)
        divisor = divisor[..., None] * counted.sum(1)
    if divisor_override is not None:
        return total / divisor_override
    if (divisor == divisor.flat[0]).all():
        return total / int(divisor.flat[0])
    return total / Tensor._of(divisor.astype(total.dtype))


def avg_pool1d(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window, in which zeros of the padding count unless ``count_include_pad`` is False.

    Shapes and errors as ``max_pool1d``.

    >>> avg_pool1d(Tensor([[1.0, 3.0, 2.0, 6.0]]), 2)
    tensor([[2., 4.]])
    """
    return _avg_pool("avg_pool1d", 1, input, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool2d(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """As ``avg_pool1d``, over two axes; ``divisor_override`` is divided by instead of the number of elements."""
    return _avg_pool(
        "avg_pool2d", 2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def avg_pool3d(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """As ``avg_pool2d``, over three axes."""
    return _avg_pool(
        "avg_pool3d", 3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


# --- norms ------------------------------------------------------------------------------------------------------------
def _lp_pool(
    rank: int, input: Tensor, norm_type: float, kernel_size: Sizes, stride: Sizes | None, ceil_mode: bool
) -> Tensor:
    name = f"lp_pool{rank}d"
    if not 0 < norm_type < inf:
        raise ConfigError(f"{name}: norm_type", got=norm_type, needed="a number above 0", hint="max_pool is its limit")
    taps = prod(per_axis(f"{name}: kernel_size", kernel_size, rank))
    total = _avg_pool(name, rank, input**norm_type, kernel_size, stride, 0, ceil_mode, True) * taps
    none = total == 0
    return (total.masked_fill(none, 1) ** (1 / norm_type)).masked_fill(none, 0)


def lp_pool1d(
    input: Tensor, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
) -> Tensor:
    """(Σ xᵖ)^(1/p) over each window, with p = ``norm_type``; derivative 0 where the sum is 0.

    Shapes and errors as ``max_pool1d``.
    Note: as in PyTorch there is no |x|: of an odd p the sum may be negative, and its root NaN; and a window that
    ends beyond the input (``ceil_mode``) counts as if it were full.

    >>> lp_pool1d(Tensor([[3.0, 4.0]]), 2, 2)
    tensor([[5.]])
    """
    return _lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: Tensor, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
) -> Tensor:
    """As ``lp_pool1d``, over two axes."""
    return _lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: Tensor, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
) -> Tensor:
    """As ``lp_pool1d``, over three axes."""
    return _lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)


# --- a given number of windows ----------------------------------------------------------------------------------------
def _adaptive_sizes(name: str, input: Tensor, rank: int, output_size: OptionalSizes) -> Shape:
    """How many windows each of the last axes is cut into; None leaves it as it is."""
    _check_rank(name, input, rank)
    given = tuple(output_size) if isinstance(output_size, Sequence) else (output_size,)
    given = given * rank if len(given) == 1 else given
    spatial = input.shape[input.ndim - rank :]
    if len(given) != rank or any(n is not None and n < 1 for n in given):
        needed = "a whole number of at least 1, or None" + (f", or {rank} of them" if rank > 1 else "")
        raise ConfigError(f"{name}: output_size", got=output_size, needed=needed)
    if min(spatial) < 1:
        raise ShapeError(f"{name}: input", got=f"shape {input.shape}", needed="at least one element on each axis")
    return tuple([n if m is None else int(m) for m, n in zip(given, spatial, strict=True)])


def _cut(x: Tensor, axis: int, count: int) -> tuple[Tensor, _Frame, Array]:
    """An axis laid out as ``count`` windows side by side, and how many elements of each are its own.

    Window i goes from ⌊i·n/count⌋ to ⌈(i + 1)·n/count⌉; those that are shorter than others repeat their last element.
    """
    n = x.shape[axis]
    i = np.arange(count)
    starts, stops = i * n // count, -(-(i + 1) * n // count)
    size = int((stops - starts).max())
    if n % count:
        at = np.minimum(starts[:, None] + np.arange(size), stops[:, None] - 1)
        x = index_select(x, axis, Tensor._of(at.reshape(-1)))
    return x, _Frame(size, size, 1, 0, 0, count), stops - starts


def _adaptive_avg_pool(rank: int, input: Tensor, output_size: OptionalSizes) -> Tensor:
    sizes = _adaptive_sizes(f"adaptive_avg_pool{rank}d", input, rank, output_size)
    out = input
    # What overlaps is gathered, which costs most along the last axis: that one comes when the least is left.
    axes = [(input.shape[a] % n == 0, a, n) for a, n in enumerate(sizes, input.ndim - rank)]
    for _, axis, count in sorted(axes, key=lambda each: (each[0], -each[1] if each[0] else each[1])):
        if count == out.shape[axis]:
            continue
        x, frame, counts = _cut(out, axis, count)
        own = np.arange(frame.size) < counts[:, None]
        rows = x.unflatten(axis, (count, frame.size))
        if own.all():
            out = rows.sum(axis + 1) / frame.size
        else:
            rows = rows.where(Tensor._of(own.reshape(*own.shape, *(1,) * (x.ndim - axis - 1))), 0)
            out = rows.sum(axis + 1) / Tensor._of(_aligned(counts, axis, x).astype(out.dtype))
    return out


def adaptive_avg_pool1d(input: Tensor, output_size: OptionalSizes) -> Tensor:
    """The means of ``output_size`` windows that cover the input as evenly as they can.

    Window i goes from ⌊i·T/T'⌋ to ⌈(i + 1)·T/T'⌉, so that neighbours may share an element.

    Shapes: (B, C, T) or (C, T) → (…, output_size).
    Raises: ConfigError for a size below 1; ShapeError for another rank, or an axis of nothing.

    >>> adaptive_avg_pool1d(Tensor([[1.0, 2.0, 3.0]]), 2)
    tensor([[1.5, 2.5]])
    """
    return _adaptive_avg_pool(1, input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: OptionalSizes) -> Tensor:
    """As ``adaptive_avg_pool1d``, over two axes; None keeps the size of an axis."""
    return _adaptive_avg_pool(2, input, output_size)


def adaptive_avg_pool3d(input: Tensor, output_size: OptionalSizes) -> Tensor:
    """As ``adaptive_avg_pool2d``, over three axes."""
    return _adaptive_avg_pool(3, input, output_size)


def _adaptive_max_pool(rank: int, input: Tensor, output_size: OptionalSizes, return_indices: bool) -> Any:
    sizes = _adaptive_sizes(f"adaptive_max_pool{rank}d", input, rank, output_size)
    values, places = input, _places(input, rank) if return_indices else None
    for axis, count in zip(reversed(range(input.ndim)), reversed(sizes), strict=False):
        if count == values.shape[axis]:
            continue
        at = None if places is None else _cut(places, axis, count)[0]
        x, frame, _ = _cut(values, axis, count)
        values, places = _first_maximum(x, at, axis, frame)
    return values if places is None else (values, places)


def adaptive_max_pool1d(input: Tensor, output_size: OptionalSizes, return_indices: bool = False) -> Any:
    """The maxima of ``output_size`` windows that cover the input as evenly as they can; see ``adaptive_avg_pool1d``.

    With ``return_indices`` (values, indices). Note: the first of equal values gets the gradient.
    """
    return _adaptive_max_pool(1, input, output_size, return_indices)


def adaptive_max_pool2d(input: Tensor, output_size: OptionalSizes, return_indices: bool = False) -> Any:
    """As ``adaptive_max_pool1d``, over two axes; None keeps the size of an axis."""
    return _adaptive_max_pool(2, input, output_size, return_indices)


def adaptive_max_pool3d(input: Tensor, output_size: OptionalSizes, return_indices: bool = False) -> Any:
    """As ``adaptive_max_pool2d``, over three axes."""
    return _adaptive_max_pool(3, input, output_size, return_indices)

"""Images and signals in other sizes, and channels in other orders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from slalom.core.functional.indexing import index_select
from slalom.core.functional.pool import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d
from slalom.core.shape import Shape, per_axis
from slalom.core.tensor import Tensor, floating
from slalom.errors import ConfigError, ShapeError

__all__ = ["channel_shuffle", "interpolate", "pixel_shuffle", "pixel_unshuffle"]

_LINEAR: Final = {"linear": 1, "bilinear": 2, "trilinear": 3}
"""Modes that are named after their number of axes."""
_MODES: Final = ("nearest", "nearest-exact", "area", *_LINEAR)
_AREA: Final = {1: adaptive_avg_pool1d, 2: adaptive_avg_pool2d, 3: adaptive_avg_pool3d}


# --- interpolation ----------------------------------------------------------------------------------------------------
def interpolate(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
) -> Tensor:
    """The input at another size: ``size`` itself, or ``scale_factor`` times the present one, rounded down.

    With s = T/T' (or 1/scale_factor): nearest: out[i] = x[⌊i·s⌋] · nearest-exact: x[⌊(i + ½)·s⌋] · linear, bilinear,
    trilinear: between the two neighbours of (i + ½)·s − ½, or of i·(T − 1)/(T' − 1) with ``align_corners``, along each
    axis · area: the mean of what becomes one element (adaptive average pooling).

    Shapes: (B, C, T), (B, C, H, W) or (B, C, D, H, W) → the same with other last axes.
    Raises: ConfigError for both or neither of ``size`` and ``scale_factor``, for an unknown mode, or for
    ``align_corners`` where it says nothing; ShapeError for a rank that does not fit the mode.
    Note: ``recompute_scale_factor`` takes s from the two sizes, which ``scale_factor`` alone may not be exactly. Not
    here: bicubic, antialias.

    >>> interpolate(Tensor([[[1.0, 3.0]]]), 4, mode="linear")
    tensor([[[1. , 1.5, 2.5, 3. ]]])
    """
    rank = input.ndim - 2
    if mode not in _MODES:
        raise ConfigError("interpolate: mode", got=repr(mode), needed=f"one of {', '.join(map(repr, _MODES))}")
    if rank not in ((1, 2, 3) if mode not in _LINEAR else (_LINEAR[mode],)):
        needed = f"{_LINEAR[mode] + 2} dimensions" if mode in _LINEAR else "3 to 5 dimensions (B, C, …)"
        raise ShapeError(f"interpolate: input in mode {mode!r}", got=f"shape {input.shape}", needed=needed)
    if align_corners is not None and mode not in _LINEAR:
        raise ConfigError(f"interpolate: align_corners in mode {mode!r}", got=align_corners, needed="None")
    sizes, scales = _sizes(input.shape[2:], size, scale_factor, recompute_scale_factor)
    if mode == "area":
        return _AREA[rank](input, sizes)
    out = input
    for axis, m, scale in zip(range(2, input.ndim), sizes, scales, strict=True):
        if mode in _LINEAR:
            out = _linear(out, axis, m, scale, bool(align_corners))
        else:
            out = _nearest(out, axis, m, scale, mode == "nearest-exact")
    return out


def _sizes(
    spatial: Shape, size: int | Sequence[int] | None, scale_factor: float | Sequence[float] | None, again: bool | None
) -> tuple[Shape, list[float]]:
    """The new sizes, and how many elements of the input one element of the output stands for."""
    rank = len(spatial)
    if (size is None) == (scale_factor is None):
        got = "both" if size is not None else "neither"
        raise ConfigError("interpolate: size and scale_factor", got=got, needed="one of them")
    if min(spatial) < 1:
        raise ShapeError("interpolate: input", got=f"last axes {spatial}", needed="at least one element on each")
    if scale_factor is None:
        if again:
            raise ConfigError("interpolate: recompute_scale_factor", got=again, needed="a scale_factor, not a size")
        sizes = per_axis("interpolate: size", size, rank)
        return sizes, [n / m for n, m in zip(spatial, sizes, strict=True)]
    given = tuple(scale_factor) if isinstance(scale_factor, Sequence) else (scale_factor,) * rank
    if len(given) != rank or not all(f > 0 for f in given):
        needed = "a number above 0" + (f", or {rank} of them" if rank > 1 else "")
        raise ConfigError("interpolate: scale_factor", got=scale_factor, needed=needed)
    sizes = tuple([math.floor(n * f) for n, f in zip(spatial, given, strict=True)])
    if min(sizes) < 1:
        got = f"{scale_factor} for {spatial}"
        raise ConfigError("interpolate: scale_factor", got=got, needed="at least one element on each axis")
    if again:
        return sizes, [n / m for n, m in zip(spatial, sizes, strict=True)]
    return sizes, [1 / f for f in given]


def _nearest(x: Tensor, axis: int, size: int, scale: float, exact: bool) -> Tensor:
    n = x.shape[axis]
    # In single precision, as PyTorch has it: where i·s is all but whole, that decides between two elements.
    places = (np.arange(size, dtype=np.float32) + np.float32(0.5 if exact else 0)) * np.float32(scale)
    at = np.minimum(np.floor(places).astype(np.int64), n - 1)
    if size % n == 0 and (at == np.arange(size) // (size // n)).all():
        return x if size == n else x.repeat_interleave(size // n, axis)  # a view
    return index_select(x, axis, Tensor._of(at))


def _linear(x: Tensor, axis: int, size: int, scale: float, align_corners: bool) -> Tensor:
    n, i = x.shape[axis], np.arange(size)
    if size == n and (align_corners or scale == 1):
        return x
    places = i * ((n - 1) / max(size - 1, 1)) if align_corners else np.maximum((i + 0.5) * scale - 0.5, 0)
    below = np.minimum(places.astype(np.int64), n - 1)
    above = np.minimum(below + 1, n - 1)
    x = floating(x)
    share = np.minimum(places - below, 1).astype(x.dtype).reshape(size, *(1,) * (x.ndim - axis - 1))
    left, right = (index_select(x, axis, Tensor._of(at)) for at in (below, above))
    return left * Tensor._of(1 - share) + right * Tensor._of(share)


# --- channels ---------------------------------------------------------------------------------------------------------
def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """Channels spread over pixels: r² channels of one pixel become r × r pixels of one channel.

    Shapes: (…, C·r², H, W) → (…, C, H·r, W·r).
    Raises: ShapeError for channels that r² does not divide.
    Source: W. Shi et al., Real-Time Single Image Super-Resolution (ESPCN), 2016, equation 4.
    """
    r = _factor("pixel_shuffle: upscale_factor", input, upscale_factor)
    *lead, channels, height, width = input.shape
    if channels % (r * r):
        needed = f"a multiple of {r * r}"
        raise ShapeError("pixel_shuffle: channels", got=f"{channels} of shape {input.shape}", needed=needed)
    x, k = input.reshape(*lead, channels // (r * r), r, r, height, width), len(lead)
    x = x.permute(*range(k), k, k + 3, k + 1, k + 4, k + 2)  # (…, C, H, r, W, r)
    return x.reshape(*lead, channels // (r * r), height * r, width * r)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """The inverse of ``pixel_shuffle``: r × r pixels of one channel become r² channels of one pixel.

    Shapes: (…, C, H·r, W·r) → (…, C·r², H, W).
    Raises: ShapeError for a height or width that r does not divide.
    """
    r = _factor("pixel_unshuffle: downscale_factor", input, downscale_factor)
    *lead, channels, height, width = input.shape
    if height % r or width % r:
        got = f"{height}, {width} of shape {input.shape}"
        raise ShapeError("pixel_unshuffle: height and width", got=got, needed=f"multiples of {r}")
    x, k = input.reshape(*lead, channels, height // r, r, width // r, r), len(lead)
    x = x.permute(*range(k), k, k + 2, k + 4, k + 1, k + 3)  # (…, C, r, r, H, W)
    return x.reshape(*lead, channels * r * r, height // r, width // r)


def _factor(name: str, input: Tensor, factor: int) -> int:
    if input.ndim < 3:
        raise ShapeError(name.partition(":")[0], got=f"shape {input.shape}", needed="(…, C, H, W)")
    return per_axis(name, factor, 1)[0]


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """Channels dealt out anew: the first of each group, then the second of each, and so on.

    Shapes: (B, C, …), unchanged. Raises: ConfigError for groups that do not divide the channels.
    Source: X. Zhang et al., ShuffleNet, 2018, section 3.1.
    """
    if input.ndim < 3:
        raise ShapeError("channel_shuffle: input", got=f"shape {input.shape}", needed="(B, C, …)")
    batch, channels, *rest = input.shape
    (n,) = per_axis("channel_shuffle: groups", groups, 1)
    if channels % n:
        needed = f"a number that divides {channels} channels"
        raise ConfigError("channel_shuffle: groups", got=groups, needed=needed)
    return input.reshape(batch, n, channels // n, *rest).transpose(1, 2).reshape(input.shape)

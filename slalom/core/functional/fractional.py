"""Fractional max pooling: windows whose strides are drawn, so that their mean need be no whole number."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Final

import numpy as np

from slalom.core.functional.pool import Sizes
from slalom.core.functional.shaping import cat
from slalom.core.random import rand
from slalom.core.shape import Shape, per_axis
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError, ShapeError

__all__ = ["fractional_max_pool2d", "fractional_max_pool3d"]

Ratios = float | Sequence[float] | None
_AXES: Final = ("", "", "H, W", "D, H, W")


def _counts(name: str, spatial: Shape, sizes: Shape, output_size: Sizes | None, output_ratio: Ratios) -> Shape:
    """How many windows there are along each axis."""
    if (output_size is None) == (output_ratio is None):
        got = "both" if output_size is not None else "neither"
        raise ConfigError(f"{name}: output_size and output_ratio", got=got, needed="one of them")
    rank = len(spatial)
    if output_size is not None:
        counts = per_axis(f"{name}: output_size", output_size, rank)
    else:
        assert output_ratio is not None, "one of them is given"
        ratios = tuple(output_ratio) if isinstance(output_ratio, Sequence) else (output_ratio,) * rank
        if len(ratios) != rank or not all(0 < r < 1 for r in ratios):
            needed = f"numbers between 0 and 1, one or {rank}"
            raise ConfigError(f"{name}: output_ratio", got=output_ratio, needed=needed)
        counts = tuple([int(n * r) for n, r in zip(spatial, ratios, strict=True)])
    for n, k, count in zip(spatial, sizes, counts, strict=True):
        if count < 1 or count + k - 1 > n:
            got = f"{spatial}, for {counts} windows of {sizes}"
            raise ShapeError(f"{name}: the input's size", got=got, needed="room for the windows, a step apart")
    return counts


def _starts(drawn: Tensor, n: int, size: int, count: int) -> Tensor:
    """Where the windows of an axis begin: ⌊α·(i + u)⌋ − ⌊α·u⌋, and the last at the end. (B, C, count)"""
    last = Tensor._of(np.array([n - size])).expand((*drawn.shape, 1))
    if count == 1:
        return last
    alpha = (n - size) / (count - 1)
    i = Tensor._of(np.arange(count - 1).astype(drawn.dtype))
    u = drawn.unsqueeze(-1)
    return cat([(((i + u) * alpha).floor() - (u * alpha).floor()).to("int64"), last], -1)


def _fractional_max_pool(
    rank: int,
    input: Tensor,
    kernel_size: Sizes,
    output_size: Sizes | None,
    output_ratio: Ratios,
    return_indices: bool,
    samples: Tensor | None,
) -> Any:
    name = f"fractional_max_pool{rank}d"
    if input.ndim not in (rank + 1, rank + 2):
        needed = f"(B, C, {_AXES[rank]}) or (C, {_AXES[rank]})"
        raise ShapeError(f"{name}: input", got=f"shape {input.shape}", needed=needed)
    spatial = input.shape[-rank:]
    sizes = per_axis(f"{name}: kernel_size", kernel_size, rank)
    counts = _counts(name, spatial, sizes, output_size, output_ratio)
    x = input if input.ndim == rank + 2 else input.unsqueeze(0)
    if samples is None:
        samples = rand((*x.shape[:2], rank), dtype=input.dtype)
    elif samples.shape != (*x.shape[:2], rank):
        raise ShapeError(f"{name}: _random_samples", got=f"shape {samples.shape}", needed=(*x.shape[:2], rank))
    # The sums of places of each axis, times what a step along it counts, row by row.
    place: Any = 0
    for axis, (n, size, count) in enumerate(zip(spatial, sizes, counts, strict=True)):
        # PyTorch's order of draws: the last axis first in images, the first first in volumes.
        starts = _starts(samples[..., rank - 1 - axis if rank == 2 else axis], n, size, count)
        taps = starts.unsqueeze(-1) + Tensor._of(np.arange(size))  # (B, C, count, size)
        ahead, behind = (1,) * axis, (1,) * (rank - 1 - axis)
        shape = (*x.shape[:2], *ahead, count, *behind, *ahead, size, *behind)
        place = place + taps.reshape(shape) * prod(spatial[axis + 1 :])
    planes = x.reshape(*x.shape[:2], prod(spatial))
    flat = place.expand((*x.shape[:2], *counts, *sizes)).reshape(*x.shape[:2], prod(counts), prod(sizes))
    rows = (
        planes.detach().take_along_dim(flat.reshape(*x.shape[:2], prod(counts) * prod(sizes)), -1).reshape(flat.shape)
    )
    chosen = flat.take_along_dim(rows.argmax(-1, True), -1).squeeze(-1)
    shape = (*input.shape[:-rank], *counts)
    values = planes.take_along_dim(chosen, -1).reshape(shape)
    return (values, chosen.reshape(shape)) if return_indices else values


def fractional_max_pool2d(
    input: Tensor,
    kernel_size: Sizes,
    output_size: Sizes | None = None,
    output_ratio: Ratios = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """The maxima of ``output_size`` windows whose starts are drawn, for each channel anew; in evaluation too.

    starts ⌊α·(i + u)⌋ − ⌊α·u⌋ for i < n' − 1, and n − k; α = (n − k)/(n' − 1), u from U[0, 1)

    ``output_ratio``: the output's size as a share of the input's, in place of ``output_size``. ``return_indices``:
    (values, where they were: row · W + column). ``_random_samples``: u of each axis, the last axis's first.

    Shapes: (B, C, H, W) or (C, H, W) → (…, H', W'); ``_random_samples`` (B, C, 2), B = 1 where the input has none.
    Raises: ConfigError unless one of size and ratio is given; ShapeError where so many windows have no room.
    Source: B. Graham, Fractional Max-Pooling, 2014, sections 2 and 3: overlapping, pseudo-random.

    >>> x = Tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]])
    >>> fractional_max_pool2d(x, 2, output_size=2)
    tensor([[[5., 6.],
             [8., 9.]]])
    """
    return _fractional_max_pool(2, input, kernel_size, output_size, output_ratio, return_indices, _random_samples)


def fractional_max_pool3d(
    input: Tensor,
    kernel_size: Sizes,
    output_size: Sizes | None = None,
    output_ratio: Ratios = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """As ``fractional_max_pool2d``, over three axes, u of the first axis first.

    Shapes: (B, C, D, H, W) or (C, D, H, W) → (…, D', H', W'); ``_random_samples`` (B, C, 3).
    """
    return _fractional_max_pool(3, input, kernel_size, output_size, output_ratio, return_indices, _random_samples)

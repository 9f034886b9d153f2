"""The way back from max pooling: each maximum where it was, and zeros between."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Final

import numpy as np

from slalom.core.functional.pool import Sizes
from slalom.core.ops import reductions
from slalom.core.shape import Shape, integers, per_axis
from slalom.core.tensor import Tensor, apply, as_tensor
from slalom.errors import ConfigError, DTypeError, IndexRangeError, ShapeError

__all__ = ["max_unpool1d", "max_unpool2d", "max_unpool3d"]

_AXES: Final = ("", "T'", "H', W'", "D', H', W'")


def _size(
    name: str, spatial: Shape, kernel_size: Sizes, stride: Sizes | None, padding: Sizes, wanted: Sequence[int] | None
) -> Shape:
    """The size that was pooled: the least of those that pooling makes this one of, or the one that is wanted."""
    rank = len(spatial)
    sizes = per_axis(f"{name}: kernel_size", kernel_size, rank)
    strides = sizes if stride is None or stride == () else per_axis(f"{name}: stride", stride, rank)
    widths = per_axis(f"{name}: padding", padding, rank, 0)
    axes = zip(spatial, sizes, strides, widths, strict=True)
    least = tuple([(n - 1) * s - 2 * p + k for n, k, s, p in axes])
    if wanted is None:
        return least
    given = integers(f"{name}: output_size", (wanted,))
    asked = given[-rank:] if len(given) == rank + 2 else given
    if len(asked) != rank or any(abs(n - m) >= s for n, m, s in zip(asked, least, strides, strict=True)):
        needed = f"{least}, each changed by less than the stride {strides}"
        raise ConfigError(f"{name}: output_size", got=tuple(wanted), needed=needed)
    return asked


def _max_unpool(
    rank: int,
    input: Tensor,
    indices: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    output_size: Sequence[int] | None,
) -> Tensor:
    name = f"max_unpool{rank}d"
    if input.ndim not in (rank + 1, rank + 2):
        needed = f"(B, C, {_AXES[rank]}) or (C, {_AXES[rank]})"
        raise ShapeError(f"{name}: input", got=f"shape {input.shape}", needed=needed)
    places = as_tensor(indices)
    if places.dtype.kind not in "ui":
        raise DTypeError(f"{name}: indices", got=places.dtype.name, needed="integers, those of max pooling")
    if places.shape != input.shape:
        raise ShapeError(f"{name}: indices", got=f"shape {places.shape}", needed=f"{input.shape}, the input's")
    lead, spatial = input.shape[:-rank], input.shape[-rank:]
    size = _size(name, spatial, kernel_size, stride, padding, output_size)
    array = places._known()
    if array is not None and array.size and not 0 <= array.min() <= array.max() < prod(size):
        got = f"{array.min()} to {array.max()}"
        raise IndexRangeError(f"{name}: indices", got=got, needed=f"0 to {prod(size) - 1}, for an output of {size}")
    planes, seen = prod(lead), prod(spatial)
    at = places.to("int64").reshape(planes, seen)
    row = Tensor._of(np.arange(planes)[:, None]).expand((planes, seen))
    shape = (planes, prod(size))
    total = apply(reductions.SCATTER_ADD, input.reshape(planes, seen), row, at, shape=shape)
    count = apply(reductions.SCATTER_ADD, input.new_ones((planes, seen)), row, at, shape=shape)
    return (total / count.maximum(1)).reshape((*lead, *size))


def max_unpool1d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Zeros, and each maximum of ``max_pool1d(…, return_indices=True)`` in the place where it was found.

    ``output_size``: (n − 1)·stride − 2·padding + kernel_size if it is not given; others may be pooled to the same.

    Shapes: input and indices (B, C, T') or (C, T') → (…, T).
    Raises: ShapeError, DTypeError for indices that do not go with the input; IndexRangeError for one beyond the output;
    ConfigError for an ``output_size`` that pooling does not make this size of.
    Source: M. Zeiler and R. Fergus, Visualizing and Understanding Convolutional Networks, 2014, section 2.1.
    Note: where windows overlap, a place may be found several times: it gets the mean of what was found there, the same
    maximum in most cases; PyTorch keeps any one of them.

    >>> max_unpool1d(Tensor([[2.0, 4.0]]), Tensor([[1, 2]]), 2)
    tensor([[0., 2., 4., 0.]])
    """
    return _max_unpool(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """As ``max_unpool1d``, over two axes. Shapes: (B, C, H', W') or (C, H', W') → (…, H, W)."""
    return _max_unpool(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """As ``max_unpool1d``, over three axes. Shapes: (B, C, D', H', W') or (C, D', H', W') → (…, D, H, W)."""
    return _max_unpool(3, input, indices, kernel_size, stride, padding, output_size)

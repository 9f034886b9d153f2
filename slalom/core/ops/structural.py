"""Primitives that move values without computing: shapes, slices, padding, windows, casts.

``index`` maps an output index to the place its value is read from: ``index(out_index, *input_shapes, **params)``
returns (input number, input index), or None where the value is 0. It is written with + − · // % and comparisons
only, so that the compiler can evaluate it on symbols; the tests evaluate it against ``impl``.
"""

from __future__ import annotations

import operator
from typing import Any, Final

import numpy as np

from slalom.core import kernels
from slalom.core.dtype import DType
from slalom.core.primitive import Array, Linear, Primitive, common_dtype, quiet
from slalom.core.shape import Shape, broadcast, resolve, size, window_count
from slalom.errors import ShapeError

Index = tuple[Any, ...]


def _strides(shape: Shape) -> Shape:
    """Row-major strides in elements."""
    return tuple(size(shape[i + 1 :]) for i in range(len(shape)))


# --- reshape, transpose, broadcast ------------------------------------------------------------------------------
def _reshape_index(out: Index, x: Shape, *, shape: Shape) -> tuple[int, Index]:
    flat = sum(map(operator.mul, out, _strides(shape)))
    return 0, tuple(flat // s % max(n, 1) for s, n in zip(_strides(x), x, strict=True))


RESHAPE: Final = Primitive(
    "reshape",
    lambda x, *, shape: x.reshape(shape),
    Linear(lambda ct, x, *, shape: ct.reshape(x.shape)),
    lambda x, *, shape: resolve("reshape", x.shape, shape),
    "the same elements in row-major order under another shape",
    index=_reshape_index,
    view=True,
)


def _transpose_shape(x: Any, *, axes: Shape) -> Shape:
    if sorted(axes) != list(range(len(x.shape))):
        raise ShapeError("transpose: axes", got=axes, needed=f"each of the {len(x.shape)} axes of {x.shape} once")
    return tuple(x.shape[a] for a in axes)


def _inverse(axes: Shape) -> Shape:
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


TRANSPOSE: Final = Primitive(
    "transpose",
    lambda x, *, axes: x.transpose(axes),
    Linear(lambda ct, x, *, axes: ct.permute(_inverse(axes))),
    _transpose_shape,
    "axes in another order",
    index=lambda out, x, *, axes: (0, tuple(out[a] for a in _inverse(axes))),
    view=True,
)


def _broadcast_shape(x: Any, *, shape: Shape) -> Shape:
    if broadcast("broadcast", [x.shape, shape]) != tuple(shape):
        raise ShapeError("broadcast", got=x.shape, needed=f"a shape that stretches to {shape}")
    return tuple(shape)


def _broadcast_index(out: Index, x: Shape, *, shape: Shape) -> tuple[int, Index]:
    return 0, tuple(i if n != 1 else 0 for i, n in zip(out[len(shape) - len(x) :], x, strict=True))


BROADCAST: Final = Primitive(
    "broadcast",
    lambda x, *, shape: np.broadcast_to(x, shape),
    Linear(lambda ct, x, *, shape: ct.sum_to_size(x.shape)),
    _broadcast_shape,
    "axes of size 1 stretched, and new ones on the left",
    index=_broadcast_index,
    view=True,
)


# --- slice, pad, flip, concatenate ------------------------------------------------------------------------------
def _slices(start: Shape, stop: Shape, step: Shape) -> tuple[slice, ...]:
    return tuple(map(slice, start, stop, step))


def _slice_shape(x: Any, *, start: Shape, stop: Shape, step: Shape) -> Shape:
    if not len(x.shape) == len(start) == len(stop) == len(step) or any(
        not 0 <= a <= b <= n or s < 1 for a, b, s, n in zip(start, stop, step, x.shape, strict=True)
    ):
        raise ShapeError("slice", got=f"{start} to {stop} by {step}", needed=f"ranges inside {x.shape}")
    return tuple(-((a - b) // s) for a, b, s in zip(start, stop, step, strict=True))


def _slice_transpose(ct: Any, x: Any, *, start: Shape, stop: Shape, step: Shape) -> Any:
    # After the last element taken, the rest of the axis is padding.
    ends = [a + (m - 1) * s + 1 if m else a for a, m, s in zip(start, ct.shape, step, strict=True)]
    high = tuple(n - e for n, e in zip(x.shape, ends, strict=True))
    return ct._apply(PAD, low=start, high=high, interior=tuple(s - 1 for s in step))


def _slice_add_into(buffer: Array, ct: Array, *, start: Shape, stop: Shape, step: Shape) -> None:
    buffer[_slices(start, stop, step)] += ct


SLICE: Final[Primitive] = Primitive(
    "slice",
    lambda x, *, start, stop, step: x[_slices(start, stop, step)],
    Linear(_slice_transpose),
    _slice_shape,
    "every step-th element of start ≤ i < stop on each axis",
    index=lambda out, x, *, start, stop, step: (0, tuple(a + i * s for a, i, s in zip(start, out, step, strict=True))),
    view=True,
    add_into=_slice_add_into,
)


def _pad_shape(x: Any, *, low: Shape, high: Shape, interior: Shape) -> Shape:
    if not len(x.shape) == len(low) == len(high) == len(interior) or min((*low, *high, *interior), default=0) < 0:
        raise ShapeError("pad", got=f"{low}, {high}, {interior}", needed=f"non-negative widths for {x.shape}")
    sizes = zip(low, high, interior, x.shape, strict=True)
    return tuple(a + n + max(n - 1, 0) * i + b for a, b, i, n in sizes)


def _pad(x: Array, *, low: Shape, high: Shape, interior: Shape) -> Array:
    out = np.zeros(_pad_shape(x, low=low, high=high, interior=interior), x.dtype)
    sizes = zip(low, interior, x.shape, strict=True)
    out[tuple(slice(a, a + (n - 1) * (i + 1) + 1 if n else a, i + 1) for a, i, n in sizes)] = x
    return out


def _pad_transpose(ct: Any, x: Any, *, low: Shape, high: Shape, interior: Shape) -> Any:
    stop = tuple(n - h for n, h in zip(ct.shape, high, strict=True))
    return ct._apply(SLICE, start=low, stop=stop, step=tuple(i + 1 for i in interior))


def _pad_index(out: Index, x: Shape, *, low: Shape, high: Shape, interior: Shape) -> tuple[int, Index] | None:
    place = []
    for o, n, a, i in zip(out, x, low, interior, strict=True):
        if o < a or (o - a) % (i + 1) != 0 or (o - a) // (i + 1) >= n:
            return None
        place.append((o - a) // (i + 1))
    return 0, tuple(place)


PAD: Final[Primitive] = Primitive(
    "pad",
    _pad,
    Linear(_pad_transpose),
    _pad_shape,
    "zeros before, after, and between the elements of each axis",
    index=_pad_index,
)

FLIP: Final = Primitive(
    "flip",
    lambda x, *, axes: np.flip(x, axes),
    Linear(lambda ct, x, *, axes: ct.flip(axes)),
    lambda x, *, axes: x.shape,
    "axes in reverse order",
    index=lambda out, x, *, axes: (0, tuple(x[a] - 1 - i if a in axes else i for a, i in enumerate(out))),
    view=True,
)


def _concatenate_shape(*inputs: Any, axis: int) -> Shape:
    first = inputs[0].shape
    if not first:
        raise ShapeError("cat", got="a 0-d tensor", needed="at least one dimension", hint="stack makes a new axis")
    for x in inputs[1:]:
        if len(x.shape) != len(first) or any(
            m != n for a, (m, n) in enumerate(zip(first, x.shape, strict=True)) if a != axis
        ):
            raise ShapeError(f"cat: shapes {first} and {x.shape}", needed=f"equal sizes on all axes but {axis}")
    return (*first[:axis], sum(x.shape[axis] for x in inputs), *first[axis + 1 :])


def _concatenate_transpose(i: int, ct: Any, *inputs: Any, axis: int) -> Any:
    start = sum(x.shape[axis] for x in inputs[:i])
    return ct.narrow(axis, start, inputs[i].shape[axis])


def _concatenate_index(out: Index, *shapes: Shape, axis: int) -> tuple[int, Index] | None:
    at = out[axis]
    for number, shape in enumerate(shapes):
        if at < shape[axis]:
            return number, (*out[:axis], at, *out[axis + 1 :])
        at = at - shape[axis]
    return None


CONCATENATE: Final = Primitive(
    "concatenate",
    lambda *xs, axis: np.concatenate(xs, axis),
    Linear(_concatenate_transpose, variadic=True),
    _concatenate_shape,
    "tensors one after the other along an axis",
    dtype=common_dtype("cat"),
    index=_concatenate_index,
)


# --- windows and fold -------------------------------------------------------------------------------------------
def _windows_shape(x: Any, *, size: Shape, stride: Shape, dilation: Shape) -> Shape:
    n = len(size)
    if len(x.shape) < n or min((*size, *stride, *dilation), default=1) < 1:
        raise ShapeError("windows", got=f"size {size}, stride {stride}, dilation {dilation} on {x.shape}")
    lead, spatial = x.shape[: len(x.shape) - n], x.shape[len(x.shape) - n :]
    return (*lead, *map(window_count, spatial, size, stride, dilation), *size)


def _windows_index(out: Index, x: Shape, *, size: Shape, stride: Shape, dilation: Shape) -> tuple[int, Index]:
    n = len(size)
    lead, at, tap = out[: len(out) - 2 * n], out[len(out) - 2 * n : len(out) - n], out[len(out) - n :]
    return 0, (*lead, *(o * s + k * d for o, s, k, d in zip(at, stride, tap, dilation, strict=True)))


WINDOWS: Final[Primitive] = Primitive(
    "windows",
    kernels.windows,
    Linear(
        lambda ct, x, *, size, stride, dilation: ct._apply(
            FOLD, output=x.shape[len(x.shape) - len(size) :], size=size, stride=stride, dilation=dilation
        )
    ),
    _windows_shape,
    "all windows over the trailing axes: out[…, o, k] = x[…, o·stride + k·dilation]",
    index=_windows_index,
    view=True,
)


def _fold_shape(y: Any, *, output: Shape, size: Shape, stride: Shape, dilation: Shape) -> Shape:
    n = len(size)
    counts = tuple(map(window_count, output, size, stride, dilation))
    if y.shape[len(y.shape) - 2 * n :] != (*counts, *size):
        raise ShapeError("fold", got=y.shape, needed=f"(…, {', '.join(map(str, (*counts, *size)))})")
    return (*y.shape[: len(y.shape) - 2 * n], *output)


FOLD: Final[Primitive] = Primitive(
    "fold",
    kernels.fold,
    Linear(
        lambda ct, y, *, output, size, stride, dilation: ct._apply(WINDOWS, size=size, stride=stride, dilation=dilation)
    ),
    _fold_shape,
    "the transpose of windows: overlapping taps are summed",
)


# --- cast, alias ------------------------------------------------------------------------------------------------
def _cast_dtype(x: Any, *, dtype: DType) -> DType:
    return dtype


@quiet  # float to int of NaN or inf: undefined, as in C and PyTorch
def _cast(x: Array, *, dtype: DType) -> Array:
    return x.astype(dtype)


CAST: Final = Primitive(
    "cast",
    _cast,
    Linear(lambda ct, x, *, dtype: ct.to(x.dtype)),
    lambda x, *, dtype: x.shape,
    "the same values in another dtype; floats are cut to integers towards 0",
    dtype=_cast_dtype,
)

ALIAS: Final = Primitive(
    "alias",
    lambda x: x,
    Linear(lambda ct, x: ct),
    lambda x: x.shape,
    "the value itself under a new identity; gradients stop at identities, not at values",
    index=lambda out, x: (0, out),
    view=True,
)

PRIMITIVES: Final = tuple(value for value in dict(globals()).values() if isinstance(value, Primitive))

"""Shapes, dtypes and joins: reshape, permute, expand, cat, split, pad, casts. No arithmetic happens here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from slalom.core.dtype import as_dtype, bool_, float32, float64, int16, int32, int64, promote, uint8
from slalom.core.ops import reductions, structural
from slalom.core.shape import axis_index, axis_tuple, integers, resolve
from slalom.core.tensor import Tensor, apply, as_tensor, method
from slalom.errors import ConfigError, DTypeError, ShapeError

__all__ = [
    "broadcast_to", "cat", "chunk", "clone", "concat", "concatenate", "flatten", "flip", "hstack", "movedim", "narrow",
    "permute", "ravel", "repeat_interleave", "reshape", "roll", "split", "squeeze", "stack", "swapaxes", "t",
    "tile", "transpose", "tril", "triu", "unbind", "unflatten", "unsqueeze", "vstack",
]  # fmt: skip


# --- reshape and reorder ------------------------------------------------------------------------------------------
@method
def reshape(input: Tensor, *shape: Any) -> Tensor:
    """The same elements in row-major order under another shape; one size may be −1.

    Raises: ShapeError when the number of elements differs.
    """
    wanted = integers("reshape", shape)
    if wanted and min(wanted) < 0:
        wanted = resolve("reshape", input.shape, wanted)
    return apply(structural.RESHAPE, input, shape=wanted)


@method
def view(self: Tensor, *shape: Any) -> Tensor:
    """As ``reshape``. Note: a value, not a view (unlike PyTorch): writing to it changes it alone.

    Raises: DTypeError for a dtype, which would reinterpret bits in PyTorch.
    """
    if len(shape) == 1 and isinstance(shape[0], (np.dtype, type, str)):
        raise DTypeError("view(dtype)", got=shape[0], needed="a shape", hint="use .to(dtype) to convert values")
    return reshape(self, *shape)


@method
def permute(input: Tensor, *dims: Any) -> Tensor:
    """Axes in the given order."""
    axes = tuple([axis_index("permute", a, input.ndim) for a in integers("permute", dims)])
    return apply(structural.TRANSPOSE, input, axes=axes)


@method
def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two axes swapped."""
    a, b = axis_index("transpose", dim0, input.ndim), axis_index("transpose", dim1, input.ndim)
    axes = list(range(input.ndim))
    if axes:
        axes[a], axes[b] = axes[b], axes[a]
    return apply(structural.TRANSPOSE, input, axes=tuple(axes))


swapaxes = transpose


@method
def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; vectors and scalars stay as they are."""
    if input.ndim > 2:
        raise ShapeError("t()", got=f"{input.ndim} dimensions", needed="at most 2", hint="use permute or .mT")
    return apply(structural.TRANSPOSE, input, axes=tuple(range(input.ndim))[::-1])


def _all_reversed(self: Tensor) -> Tensor:
    """Axes in reverse order; of a matrix, the transpose."""
    return apply(structural.TRANSPOSE, self, axes=tuple(range(self.ndim))[::-1])


def _matrix_transpose(self: Tensor) -> Tensor:
    """The last two axes swapped."""
    return transpose(self, -1, -2)


@method
def movedim(input: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Axes moved to other places; the rest keep their order."""
    sources, places = integers("movedim", (source,)), integers("movedim", (destination,))
    if len(sources) != len(places):
        raise ShapeError("movedim", got=f"{source} to {destination}", needed="as many places as axes")
    moved = [axis_index("movedim", a, input.ndim) for a in sources]
    order = [a for a in range(input.ndim) if a not in moved]
    for place, axis in sorted(zip((axis_index("movedim", a, input.ndim) for a in places), moved, strict=True)):
        order.insert(place, axis)
    return permute(input, order)


@method
def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Axes ``start_dim`` to ``end_dim`` as one."""
    a, b = axis_index("flatten", start_dim, input.ndim), axis_index("flatten", end_dim, input.ndim)
    if a > b:
        raise ShapeError("flatten", got=f"start_dim {start_dim}, end_dim {end_dim}", needed="start before end")
    shape = input.shape
    return reshape(input, (*shape[:a], math.prod(shape[a : b + 1]), *shape[b + 1 :]))


@method
def ravel(input: Tensor) -> Tensor:
    """All elements in one axis."""
    return reshape(input, -1)


@method
def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """One axis as several."""
    a = axis_index("unflatten", dim, input.ndim, wrap_scalar=False)
    inner = resolve("unflatten", (input.shape[a],), tuple(sizes))
    return reshape(input, (*input.shape[:a], *inner, *input.shape[a + 1 :]))


@method
def squeeze(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Without its axes of size 1 (or only the given ones)."""
    axes = axis_tuple("squeeze", dim, input.ndim)
    return reshape(input, tuple(n for a, n in enumerate(input.shape) if n != 1 or a not in axes))


@method
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a new axis of size 1 at ``dim``."""
    a = axis_index("unsqueeze", dim, input.ndim + 1)
    return reshape(input, (*input.shape[:a], 1, *input.shape[a:]))


@method
def expand(input: Tensor, *sizes: Any) -> Tensor:
    """Axes of size 1 stretched, new ones on the left; −1 keeps a size.

    Raises: ShapeError for an axis of another size.
    """
    wanted = integers("expand", sizes)
    new = len(wanted) - input.ndim
    shape = tuple([input.shape[i - new] if n == -1 and i >= new else n for i, n in enumerate(wanted)])
    if new < 0 or min(shape, default=0) < 0:
        raise ShapeError(f"expand: {input.shape} to {wanted}", needed="a size for each axis, -1 only where one was")
    return apply(structural.BROADCAST, input, shape=shape)


broadcast_to = expand


@method
def expand_as(self: Tensor, other: Tensor) -> Tensor:
    """Expanded to the shape of another tensor."""
    return expand(self, other.shape)


@method
def view_as(self: Tensor, other: Tensor) -> Tensor:
    """Reshaped to the shape of another tensor."""
    return reshape(self, other.shape)


@method
def sum_to_size(self: Tensor, *size: Any) -> Tensor:
    """The transpose of broadcasting: summed over axes that were stretched or added.

    Raises: ShapeError for a size that does not broadcast to this shape.
    """
    wanted = integers("sum_to_size", size)
    extra = self.ndim - len(wanted)
    axes = list(range(extra))
    for a, n in enumerate(wanted):
        if extra < 0 or n != self.shape[a + extra]:
            if extra < 0 or n != 1:
                raise ShapeError(f"sum_to_size: {self.shape} to {wanted}", needed="equal sizes, 1, or fewer axes")
            axes.append(a + extra)
    out = apply(reductions.SUM, self, axes=tuple(axes), keepdims=False) if axes else self
    return apply(structural.RESHAPE, out, shape=wanted)


# --- slices, flips, joins -----------------------------------------------------------------------------------------
@method
def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """``length`` elements of one axis from ``start``.

    Raises: ShapeError for a range that is not inside the axis.
    """
    a = axis_index("narrow", dim, input.ndim, wrap_scalar=False)
    n = input.shape[a]
    begin = start + n if start < 0 else start
    if not 0 <= begin <= begin + length <= n:
        raise ShapeError("narrow", got=f"{length} elements from {start}", needed=f"a range inside an axis of {n}")
    first, stop = [0] * input.ndim, list(input.shape)
    first[a], stop[a] = begin, begin + length
    return apply(structural.SLICE, input, start=tuple(first), stop=tuple(stop), step=(1,) * input.ndim)


@method
def flip(input: Tensor, *dims: Any) -> Tensor:
    """Axes in reverse order."""
    return apply(structural.FLIP, input, axes=axis_tuple("flip", integers("flip", dims), input.ndim))


@method
def roll(input: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    """Axes rotated by ``shifts`` places; without ``dims``, all elements in row-major order."""
    if dims is None:
        return reshape(roll(ravel(input), shifts, 0), input.shape)
    places, axes = integers("roll", (shifts,)), integers("roll", (dims,))
    if len(places) != len(axes):
        raise ShapeError("roll", got=f"shifts {shifts} and dims {dims}", needed="as many of one as of the other")
    out = input
    for shift, dim in zip(places, axes, strict=True):
        a = axis_index("roll", dim, input.ndim, wrap_scalar=False)
        n = input.shape[a]
        cut = -shift % n if n else 0
        if cut:
            out = cat([narrow(out, a, cut, n - cut), narrow(out, a, 0, cut)], a)
    return clone(input) if out is input else out


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors one after the other along an existing axis. An empty vector is skipped, as in PyTorch.

    Raises: ShapeError when other axes differ, or for an empty list.
    """
    parts = [as_tensor(x) for x in tensors]
    if not parts:
        raise ShapeError("cat", got="no tensors", needed="at least one")
    dtype = promote((x.dtype, 1) for x in parts)
    parts = [x for x in parts if x.shape != (0,)] or parts[:1]
    axis = axis_index("cat", dim, parts[0].ndim)
    return apply(structural.CONCATENATE, *(x.to(dtype) for x in parts), axis=axis)


concat = concatenate = cat


@method
def _concatenate(self: Tensor, rest: Sequence[Tensor], dim: int) -> Tensor:
    return cat([self, *rest], dim)


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape along a new axis.

    Raises: ShapeError when the shapes differ, or for an empty list.
    """
    parts = [as_tensor(x) for x in tensors]
    if not parts:
        raise ShapeError("stack", got="no tensors", needed="at least one")
    for x in parts:
        if x.shape != parts[0].shape:
            raise ShapeError("stack", got=f"{parts[0].shape} and {x.shape}", needed="equal shapes")
    axis = axis_index("stack", dim, parts[0].ndim + 1)
    dtype = promote((x.dtype, 1) for x in parts)
    return apply(structural.CONCATENATE, *(unsqueeze(x.to(dtype), axis) for x in parts), axis=axis)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Along the first axis; vectors are rows."""
    return cat([x.reshape(1, x.numel()) if x.ndim < 2 else x for x in map(as_tensor, tensors)], 0)


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Along the second axis; of vectors, the first."""
    parts = [x if x.ndim else x.reshape(1) for x in map(as_tensor, tensors)]
    return cat(parts, 0 if parts and parts[0].ndim < 2 else 1)


@method
def split(input: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of one size (the last may be smaller) or of the given sizes.

    Raises: ShapeError for sizes that do not add up to the axis.
    """
    n = input.shape[axis_index("split", dim, input.ndim, wrap_scalar=False)]
    if isinstance(split_size_or_sections, int):
        step = split_size_or_sections
        if step < 1:
            raise ShapeError("split: size", got=step, needed="at least 1")
        sections = [min(step, n - at) for at in range(0, n, step)] or [0]
    else:
        sections = list(split_size_or_sections)
    if sum(sections) != n or min(sections, default=0) < 0:
        raise ShapeError("split: sizes", got=f"{sections} (sum {sum(sections)})", needed=f"a sum of {n}")
    starts = itertools.accumulate(sections, initial=0)
    return tuple([narrow(input, dim, start, size) for start, size in zip(starts, sections, strict=False)])


@method
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most ``chunks`` pieces of equal size (the last may be smaller); of nothing, as many empty ones."""
    n = input.shape[axis_index("chunk", dim, input.ndim, wrap_scalar=False)]
    if chunks < 1:
        raise ShapeError("chunk: chunks", got=chunks, needed="at least 1")
    return split(input, -(-n // chunks) if n else [0] * chunks, dim)


@method
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices along an axis, without it."""
    a = axis_index("unbind", dim, input.ndim, wrap_scalar=False)
    shape = (*input.shape[:a], *input.shape[a + 1 :])
    return tuple([reshape(narrow(input, a, i, 1), shape) for i in range(input.shape[a])])


@method
def tile(input: Tensor, *dims: Any) -> Tensor:
    """Repeated along each axis the given number of times."""
    times = integers("tile", dims)
    if min(times, default=0) < 0:
        raise ShapeError("tile", got=times, needed="repetitions of at least 0")
    rank = max(len(times), input.ndim)
    times = (1,) * (rank - len(times)) + times
    shape = (1,) * (rank - input.ndim) + input.shape
    paired = [n for size in shape for n in (1, size)]
    stretched = [n for many, size in zip(times, shape, strict=True) for n in (many, size)]
    merged = [many * size for many, size in zip(times, shape, strict=True)]
    return reshape(expand(reshape(input, paired), stretched), merged)


@method
def repeat_interleave(input: Tensor, repeats: int, dim: int | None = None) -> Tensor:
    """Each element of an axis repeated in place; without ``dim``, of all elements in one axis."""
    if repeats < 0:
        raise ShapeError("repeat_interleave: repeats", got=repeats, needed="at least 0")
    x = ravel(input) if dim is None or not input.ndim else input
    a = axis_index("repeat_interleave", 0 if dim is None else dim, x.ndim)
    before, n, after = x.shape[:a], x.shape[a], x.shape[a + 1 :]
    return reshape(expand(unsqueeze(x, a + 1), (*before, n, repeats, *after)), (*before, n * repeats, *after))


def _triangle(name: str, input: Tensor, diagonal: int, lower: bool) -> Tensor:
    if input.ndim < 2:
        raise ShapeError(name, got=f"shape {input.shape}", needed="at least two dimensions")
    rows, columns = input.shape[-2:]
    keep = np.tri(rows, columns, diagonal if lower else diagonal - 1, dtype=bool)
    return input.masked_fill(Tensor._of(~keep if lower else keep), False if input.dtype == bool_ else 0)


@method
def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """Zero above the given diagonal."""
    return _triangle("tril", input, diagonal, True)


@method
def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """Zero below the given diagonal."""
    return _triangle("triu", input, diagonal, False)


# --- copies, dtypes, devices --------------------------------------------------------------------------------------
@method
def clone(input: Tensor) -> Tensor:
    """The same value in a buffer of its own (copied when either is written)."""
    return apply(structural.ALIAS, input)


@method
def contiguous(self: Tensor) -> Tensor:
    """The tensor itself: layout is not visible here."""
    return self


class device:
    """Where tensors live: always the CPU.

    Raises: ConfigError for any other device.
    """

    type = "cpu"

    def __init__(self, name: Any = "cpu") -> None:
        if str(name) not in ("cpu", "cpu:0"):
            raise ConfigError("device", got=repr(str(name)), needed="'cpu'", hint="Slalom trains on the CPU")

    def __repr__(self) -> str:
        return "device(type='cpu')"

    def __str__(self) -> str:
        return "cpu"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) or other == "cpu"

    def __hash__(self) -> int:
        return hash("cpu")


_Device = device  # where an argument has the name


@method
def to(
    self: Tensor, *targets: Any, dtype: Any = None, device: Any = None, non_blocking: bool = False, copy: bool = False
) -> Tensor:
    """The same values in another dtype; a device must be the CPU; another tensor gives its dtype.

    The tensor itself where there is nothing to do, unless ``copy``.
    Raises: ConfigError for a device other than the CPU; DTypeError for a dtype that Slalom does not have.
    """
    for target in targets if device is None else (*targets, device):
        if isinstance(target, Tensor):
            dtype = target.dtype
        elif isinstance(target, _Device) or (isinstance(target, str) and not _names_dtype(target)):
            _Device(target)
        elif not isinstance(target, bool) and target is not None:
            dtype = target
    if dtype is not None:
        wanted = as_dtype(dtype)
        if wanted != self._storage.array.dtype:
            return apply(structural.CAST, self, dtype=wanted)
    return clone(self) if copy else self


def _names_dtype(text: str) -> bool:
    try:
        np.dtype(text)
    except TypeError:
        return False
    return True


def _caster(name: str, dtype: Any) -> None:
    def cast(self: Tensor) -> Tensor:
        return to(self, dtype)

    cast.__name__, cast.__doc__ = name, f"The same values as {dtype.name}."
    method(cast)


for _name, _dtype in (
    ("float", float32), ("double", float64), ("long", int64), ("int", int32), ("short", int16), ("byte", uint8),
    ("bool", bool_),
):  # fmt: skip
    _caster(_name, _dtype)


@method
def type_as(self: Tensor, other: Tensor) -> Tensor:
    """In the dtype of another tensor."""
    return to(self, other.dtype)


@method
def cpu(self: Tensor) -> Tensor:
    """The tensor itself."""
    return self


@method
def cuda(self: Tensor, *args: Any) -> Tensor:
    """Always an error: Slalom trains on the CPU."""
    return to(self, "cuda")


@method
def size(self: Tensor, dim: int | None = None) -> Any:
    """The shape, or the size of one axis."""
    return self.shape if dim is None else self.shape[axis_index("size", dim, self.ndim, wrap_scalar=False)]


@method
def dim(self: Tensor) -> int:
    """The number of axes."""
    return self.ndim


@method
def numel(self: Tensor) -> int:
    """The number of elements."""
    return self._storage.array.size  # type: ignore[no-any-return]


@method
def element_size(self: Tensor) -> int:
    """Bytes of one element."""
    return self.dtype.itemsize


@method
def is_floating_point(self: Tensor) -> bool:
    """Whether the dtype is float32 or float64."""
    return self.dtype.kind == "f"


def _device_of(self: Tensor) -> device:
    """Where the tensor lives: the CPU."""
    return device()


def _is_cuda(self: Tensor) -> bool:
    """False: Slalom trains on the CPU."""
    return False


_function: Callable[..., Any]
for _name, _function in (
    ("T", _all_reversed), ("mT", _matrix_transpose), ("device", _device_of), ("is_cuda", _is_cuda),
):  # fmt: skip
    setattr(Tensor, _name, property(_function))
for _name, _function in (("swapaxes", transpose), ("broadcast_to", expand), ("repeat", tile)):
    setattr(Tensor, _name, _function)

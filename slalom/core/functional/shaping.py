"""Shapes, dtypes and joins: reshape, permute, expand, cat, split, pad, casts. No arithmetic happens here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from slalom.core.dtype import as_dtype, bool_, float32, float64, int32, int64, promote
from slalom.core.ops import reductions, structural
from slalom.core.shape import Shape, axis_index, axis_tuple, resolve
from slalom.core.tensor import Tensor, apply, as_tensor, method
from slalom.errors import ConfigError, DTypeError, ShapeError

__all__ = [
    "broadcast_to", "cat", "chunk", "clone", "concat", "concatenate", "flatten", "flip", "hstack", "movedim", "narrow",
    "pad", "permute", "ravel", "repeat_interleave", "reshape", "roll", "split", "squeeze", "stack", "swapaxes", "t", "tile",
    "transpose", "tril", "triu", "unbind", "unflatten", "unsqueeze", "vstack",
]  # fmt: skip


def _sizes(sizes: tuple[Any, ...]) -> Shape:
    """Sizes given one by one or as one sequence."""
    if len(sizes) == 1 and not hasattr(sizes[0], "__index__"):
        sizes = tuple(sizes[0])
    return tuple(int(n) for n in sizes)


# --- reshape and reorder ------------------------------------------------------------------------------------------
@method
def reshape(input: Tensor, *shape: Any) -> Tensor:
    """The same elements in row-major order under another shape; one size may be −1.

    Raises: ShapeError when the number of elements differs.
    """
    return apply(structural.RESHAPE, input, shape=structural.RESHAPE.shape(input._storage.array, shape=_sizes(shape)))


@method
def view(self: Tensor, *shape: Any) -> Tensor:
    """As ``reshape``; a dtype casts. Note: a value, not a view (unlike PyTorch): writing to it changes it alone."""
    if len(shape) == 1 and not isinstance(shape[0], (int, tuple, list)):
        raise DTypeError("view(dtype)", got=shape[0], needed="a shape", hint="use .to(dtype) to convert values")
    return reshape(self, *shape)


@method
def permute(input: Tensor, *dims: Any) -> Tensor:
    """Axes in the given order."""
    axes = tuple(axis_index("permute", a, input.ndim) for a in _sizes(dims))
    return apply(structural.TRANSPOSE, input, axes=axes)


@method
def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two axes swapped."""
    a, b = axis_index("transpose", dim0, input.ndim), axis_index("transpose", dim1, input.ndim)
    axes = list(range(input.ndim))
    axes[a], axes[b] = axes[b], axes[a]
    return apply(structural.TRANSPOSE, input, axes=tuple(axes))


swapaxes = transpose
Tensor.swapaxes = transpose


@method
def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; vectors and scalars stay as they are."""
    if input.ndim > 2:
        raise ShapeError("t()", got=f"{input.ndim} dimensions", needed="at most 2", hint="use permute or .mT")
    return input if input.ndim < 2 else apply(structural.TRANSPOSE, input, axes=(1, 0))


def _all_reversed(self: Tensor) -> Tensor:
    """Axes in reverse order; of a matrix, the transpose."""
    return apply(structural.TRANSPOSE, self, axes=tuple(range(self.ndim))[::-1])


def _matrix_transpose(self: Tensor) -> Tensor:
    """The last two axes swapped."""
    return transpose(self, -1, -2)


Tensor.T = property(_all_reversed)
Tensor.mT = property(_matrix_transpose)


@method
def movedim(input: Tensor, source: int, destination: int) -> Tensor:
    """One axis moved to another place."""
    order = list(range(input.ndim))
    axis = order.pop(axis_index("movedim", source, input.ndim))
    order.insert(axis_index("movedim", destination, input.ndim), axis)
    return permute(input, order)


@method
def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Axes ``start_dim`` to ``end_dim`` as one."""
    if not input.ndim:
        return reshape(input, 1)
    a, b = axis_index("flatten", start_dim, input.ndim), axis_index("flatten", end_dim, input.ndim)
    if a > b:
        raise ShapeError("flatten", got=f"start_dim {start_dim}, end_dim {end_dim}", needed="start before end")
    merged = 1
    for n in input.shape[a : b + 1]:
        merged *= n
    return reshape(input, (*input.shape[:a], merged, *input.shape[b + 1 :]))


@method
def ravel(input: Tensor) -> Tensor:
    """All elements in one axis."""
    return reshape(input, -1) if input._storage.array.size else reshape(input, 0)


@method
def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """One axis as several."""
    a = axis_index("unflatten", dim, input.ndim)
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
    """Axes of size 1 stretched, new ones on the left; −1 keeps a size."""
    wanted = list(_sizes(sizes))
    if len(wanted) < input.ndim:
        raise ShapeError("expand", got=f"{len(wanted)} sizes", needed=f"at least {input.ndim}")
    for i in range(1, input.ndim + 1):
        if wanted[-i] == -1:
            wanted[-i] = input.shape[-i]
    shape = tuple(wanted)
    return input if shape == input.shape else apply(structural.BROADCAST, input, shape=shape)


broadcast_to = expand
Tensor.broadcast_to = expand


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
    """The transpose of broadcasting: summed over axes that were stretched or added."""
    shape = _sizes(size)
    if shape == self.shape:
        return self
    extra = self.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(
        a + extra for a, n in enumerate(shape) if n == 1 and self.shape[a + extra] != 1
    )
    out = apply(reductions.SUM, self, axes=axes, keepdims=False)
    return out if out.shape == shape else apply(structural.RESHAPE, out, shape=shape)


# --- slices, flips, joins -----------------------------------------------------------------------------------------
@method
def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """``length`` elements of one axis from ``start``."""
    a = axis_index("narrow", dim, input.ndim)
    first, stop = [0] * input.ndim, list(input.shape)
    first[a], stop[a] = start, start + length
    return apply(structural.SLICE, input, start=tuple(first), stop=tuple(stop), step=(1,) * input.ndim)


@method
def flip(input: Tensor, *dims: Any) -> Tensor:
    """Axes in reverse order."""
    return apply(structural.FLIP, input, axes=axis_tuple("flip", _sizes(dims), input.ndim))


@method
def roll(input: Tensor, shifts: int, dims: int) -> Tensor:
    """One axis rotated by ``shifts`` places."""
    a = axis_index("roll", dims, input.ndim)
    n = input.shape[a]
    cut = -shifts % n if n else 0
    return cat([narrow(input, a, cut, n - cut), narrow(input, a, 0, cut)], a) if cut else clone(input)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors one after the other along an existing axis.

    Raises: ShapeError when other axes differ, or for an empty list.
    """
    if not tensors:
        raise ShapeError("cat", got="no tensors", needed="at least one")
    parts = [as_tensor(x) for x in tensors]
    dtype = promote((x.dtype, 1) for x in parts)
    axis = axis_index("cat", dim, parts[0].ndim)
    return apply(structural.CONCATENATE, *(x.to(dtype) for x in parts), axis=axis)


concat = concatenate = cat


@method
def _concatenate(self: Tensor, rest: Sequence[Tensor], dim: int) -> Tensor:
    return cat([self, *rest], dim)


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape along a new axis."""
    for x in tensors:
        if x.shape != tensors[0].shape:
            raise ShapeError("stack", got=f"{tensors[0].shape} and {x.shape}", needed="equal shapes")
    return cat([unsqueeze(as_tensor(x), dim) for x in tensors], dim)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Along the first axis; vectors are rows."""
    return cat([x.reshape(1, -1) if x.ndim < 2 else x for x in tensors], 0)


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Along the second axis; of vectors, the first."""
    return cat(tensors, 0 if tensors[0].ndim < 2 else 1)


@method
def split(input: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of one size (the last may be smaller) or of the given sizes."""
    n = input.shape[axis_index("split", dim, input.ndim)]
    if isinstance(split_size_or_sections, int):
        step = split_size_or_sections
        sizes = [min(step, n - at) for at in range(0, n, step)] or [0]
    else:
        sizes = list(split_size_or_sections)
    if sum(sizes) != n:
        raise ShapeError("split: sizes", got=f"{sizes} (sum {sum(sizes)})", needed=f"a sum of {n}")
    return tuple(narrow(input, dim, sum(sizes[:i]), size) for i, size in enumerate(sizes))


@method
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most ``chunks`` pieces of equal size (the last may be smaller)."""
    n = input.shape[axis_index("chunk", dim, input.ndim)]
    return split(input, max(1, -(-n // chunks)), dim)


@method
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices along an axis, without it."""
    a = axis_index("unbind", dim, input.ndim)
    shape = (*input.shape[:a], *input.shape[a + 1 :])
    return tuple(reshape(narrow(input, a, i, 1), shape) for i in range(input.shape[a]))


@method
def tile(input: Tensor, *dims: Any) -> Tensor:
    """Repeated along each axis the given number of times."""
    times = _sizes(dims)
    rank = max(len(times), input.ndim)
    times = (1,) * (rank - len(times)) + times
    shape = (1,) * (rank - input.ndim) + input.shape
    paired = [n for size in shape for n in (1, size)]
    stretched = [n for many, size in zip(times, shape, strict=True) for n in (many, size)]
    merged = tuple(many * size for many, size in zip(times, shape, strict=True))
    return reshape(expand(reshape(input, paired), stretched), merged)


Tensor.repeat = tile


@method
def repeat_interleave(input: Tensor, repeats: int, dim: int) -> Tensor:
    """Each element of an axis repeated in place."""
    a = axis_index("repeat_interleave", dim, input.ndim)
    shape = (*input.shape[: a + 1], repeats, *input.shape[a + 1 :])
    return reshape(expand(unsqueeze(input, a + 1), shape), (*input.shape[:a], -1, *input.shape[a + 1 :]))


def pad(input: Tensor, pad: Sequence[int], value: float = 0.0) -> Tensor:
    """Constant padding, given from the last axis backwards as (before, after) pairs; negative widths crop."""
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise ShapeError("pad", got=f"{len(pad)} widths", needed=f"pairs for at most {input.ndim} axes")
    low, high = [0] * input.ndim, [0] * input.ndim
    for k in range(len(pad) // 2):
        low[-1 - k], high[-1 - k] = pad[2 * k], pad[2 * k + 1]
    start = tuple(max(0, -n) for n in low)
    stop = tuple(n - max(0, -h) for n, h in zip(input.shape, high, strict=True))
    inner = input
    if any(start) or stop != input.shape:
        inner = apply(structural.SLICE, input, start=start, stop=stop, step=(1,) * input.ndim)
    widths: dict[str, Any] = {
        "low": tuple(max(0, n) for n in low),
        "high": tuple(max(0, n) for n in high),
        "interior": (0,) * input.ndim,
    }
    out = apply(structural.PAD, inner, **widths)
    if value == 0:
        return out
    inside = apply(structural.PAD, (inner == inner) | (inner != inner), **widths)
    return out.where(inside, value)


def _triangle(input: Tensor, diagonal: int, lower: bool) -> Tensor:
    rows, columns = input.shape[-2:]
    keep = np.tri(rows, columns, diagonal if lower else diagonal - 1, dtype=bool)
    return input.where(Tensor._of(keep if lower else ~keep), 0)


@method
def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """Zero above the given diagonal."""
    return _triangle(input, diagonal, True)


@method
def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """Zero below the given diagonal."""
    return _triangle(input, diagonal, False)


# --- copies, dtypes, devices --------------------------------------------------------------------------------------
@method
def clone(input: Tensor) -> Tensor:
    """The same value in a buffer of its own (copied when either is written)."""
    return apply(structural.ALIAS, input)


@method
def contiguous(self: Tensor) -> Tensor:
    """The tensor itself: layout is not visible here."""
    return self


class device:  # noqa: N801 (PyTorch's name)
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


@method
def to(self: Tensor, *targets: Any, dtype: Any = None, **ignored: Any) -> Tensor:
    """The same values in another dtype; a device must be the CPU; another tensor gives its dtype."""
    for target in targets:
        if isinstance(target, (str, device)) and not _names_dtype(target):
            device(target)
        elif isinstance(target, Tensor):
            dtype = target.dtype
        elif not isinstance(target, bool):
            dtype = target
    if ignored.get("device") is not None:
        device(ignored["device"])
    if dtype is None:
        return self
    wanted = as_dtype(dtype)
    return self if wanted == self.dtype else apply(structural.CAST, self, dtype=wanted)


def _names_dtype(target: Any) -> bool:
    try:
        as_dtype(target)
    except DTypeError:
        return False
    return isinstance(target, str)


def _caster(name: str, dtype: Any) -> None:
    def cast(self: Tensor) -> Tensor:
        return to(self, dtype)

    cast.__name__, cast.__doc__ = name, f"The same values as {dtype.name}."
    method(cast)


for _name, _dtype in (("float", float32), ("double", float64), ("long", int64), ("int", int32), ("bool", bool_)):
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
    return self.shape if dim is None else self.shape[axis_index("size", dim, self.ndim)]


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


Tensor.device = property(lambda self: device())
Tensor.is_cuda = property(lambda self: False)

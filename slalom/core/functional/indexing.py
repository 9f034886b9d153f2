"""Indexing: t[…], t[…] = v, gather and its relatives. Results are values, never views.

Every form becomes slices, flips, reshapes and one gather over leading axes; a write becomes a scatter-add of the new
values and a selection, and a plain write into the buffer where no gradient and no trace needs to know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from slalom.core.dtype import bool_, int64
from slalom.core.node import MODE, Abstract
from slalom.core.ops import reductions, structural
from slalom.core.shape import Shape, axis_index, broadcast
from slalom.core.tensor import Tensor, apply, as_tensor, method
from slalom.errors import DTypeError, IndexRangeError, ShapeError

__all__ = ["embedding", "gather", "index_select", "masked_select", "nonzero", "one_hot", "scatter_add", "take_along_dim"]


# --- t[…] ---------------------------------------------------------------------------------------------------------
def _parts(key: Any, rank: int) -> list[Any]:
    """A key as one entry an axis: int, slice, index tensor; None marks a new axis. Masks count for their rank."""
    keys = list(key) if isinstance(key, tuple) else [key]
    keys = [as_tensor(k) if isinstance(k, (list, np.ndarray)) else k for k in keys]
    used = sum(
        0 if k is None or k is Ellipsis else k.ndim if isinstance(k, Tensor) and k.dtype == bool_ else 1 for k in keys
    )
    if used > rank:
        raise IndexRangeError("indexing", got=f"{used} indices", needed=f"at most {rank} for {rank} dimensions")
    if sum(k is Ellipsis for k in keys) > 1:
        raise IndexRangeError("indexing", got="several ...", needed="at most one")
    at = next((i for i, k in enumerate(keys) if k is Ellipsis), None)
    rest = [slice(None)] * (rank - used)
    keys = keys + rest if at is None else keys[:at] + rest + keys[at + 1 :]
    out: list[Any] = []
    for k in keys:
        if isinstance(k, Tensor) and k.dtype == bool_:
            out += nonzero(k, as_tuple=True)
        elif isinstance(k, (bool, np.bool_)):
            raise DTypeError("index", got=k, needed="integers, slices, None, ... or tensors of them")
        else:
            out.append(k)
    return out


def _checked_index(k: Any, axis: int, n: int) -> int:
    try:
        i = k.__index__()
    except (AttributeError, TypeError) as error:
        raise DTypeError("index", got=type(k).__name__, needed="integers, slices, None, ... or tensors") from error
    if not -n <= i < n:
        raise IndexRangeError(f"index {i} on axis {axis}", needed=f"{-n} to {n - 1}")
    return int(i % n)


@method
def __getitem__(self: Tensor, key: Any) -> Tensor:
    """Integers, slices, ``...``, None, integer tensors (broadcast together) and masks, as in NumPy."""
    parts = _parts(key, self.ndim)
    start, stop, step, flips = [], [], [], []
    shape: list[int] = []  # after slicing, with integer axes gone and new axes in
    advanced: list[tuple[int, Tensor]] = []  # place in shape, index
    axis = 0
    for k in parts:
        if k is None:
            shape.append(1)
            continue
        n = self.shape[axis]
        if isinstance(k, slice):
            first, last, by = k.indices(n)
            if by < 0:
                flips.append(axis)
                first, last, by = n - 1 - first, n - 1 - last, -by
            last = max(first, last)
            start.append(first), stop.append(last), step.append(by)
            shape.append(-((first - last) // by))
        elif isinstance(k, Tensor) and k.ndim:
            start.append(0), stop.append(n), step.append(1)
            advanced.append((len(shape), _wrapped(k, n)))
            shape.append(n)
        elif isinstance(k, Tensor) and isinstance(k._storage.array, Abstract):
            start.append(0), stop.append(n), step.append(1)
            advanced.append((len(shape), _wrapped(k, n)))
            shape.append(n)
        else:
            i = _checked_index(k, axis, n)
            start.append(i), stop.append(i + 1), step.append(1)
        axis += 1
    out = apply(structural.FLIP, self, axes=tuple(flips)) if flips else self
    if any(start) or tuple(stop) != self.shape or any(s != 1 for s in step):
        out = apply(structural.SLICE, out, start=tuple(start), stop=tuple(stop), step=tuple(step))
    if tuple(shape) != out.shape or out is self:
        out = apply(structural.RESHAPE, out, shape=tuple(shape))
    return _gathered(out, advanced) if advanced else out


def _wrapped(index: Tensor, n: int) -> Tensor:
    """Indices with negative ones counted from the end."""
    if index.dtype.kind not in "ui":
        raise DTypeError("index", got=index.dtype.name, needed="integers or a bool mask")
    index = index.to(int64)
    array = index._storage.array
    if isinstance(array, Abstract):
        return (index + n).where(index < 0, index)
    if array.size and (array.min() < -n or array.max() >= n):
        bad = array.min() if array.min() < -n else array.max()
        raise IndexRangeError(f"index {bad}", needed=f"{-n} to {n - 1}")
    return Tensor._of(np.where(array < 0, array + n, array)) if array.size and array.min() < 0 else index


def _gathered(x: Tensor, advanced: list[tuple[int, Tensor]]) -> Tensor:
    """x at index tensors that stand on some axes; their common axes come where they stood, or first if apart."""
    places = [place for place, _ in advanced]
    common = broadcast("index", [index.shape for _, index in advanced])
    indices = [index.expand(common) for _, index in advanced]
    others = [a for a in range(x.ndim) if a not in places]
    out = apply(reductions.GATHER, x.permute((*places, *others)) if places != [*range(len(places))] else x, *indices)
    together = places == list(range(places[0], places[0] + len(places)))
    before = places[0] if together else 0
    if not before:
        return out
    k = len(common)
    return out.permute((*range(k, k + before), *range(k), *range(k + before, out.ndim)))


@method
def __setitem__(self: Tensor, key: Any, value: Any) -> None:
    """Write into the buffer; gradients flow to ``value`` and to what is left of the old content.

    Note: with repeated indices the last value stays; while staging or recording, their sum does.
    """
    value = as_tensor(value, self)
    mode = MODE.get()
    if mode.trace is None and not (mode.grad and (self._live or value._live)):
        array = self._storage.array.copy()
        plain = tuple(k.numpy() if isinstance(k, Tensor) else k for k in (key if isinstance(key, tuple) else (key,)))
        try:
            array[plain] = value.numpy()
        except (IndexError, ValueError) as error:
            raise ShapeError("t[…] = v", got=str(error), needed=f"an index and a value that fit {self.shape}") from error
        self._write(Tensor._of(array))
        return
    self._write(_replaced(self, key, value))


def _replaced(x: Tensor, key: Any, value: Tensor) -> Tensor:
    places = Tensor._of(np.arange(x.numel(), dtype=int64).reshape(x.shape))[key]
    flat = places.reshape(-1)
    updates = value.to(x.dtype).expand(places.shape).reshape(-1)
    count = apply(reductions.SCATTER_ADD, flat._zeros() + 1, flat, shape=(x.numel(),))
    new = apply(reductions.SCATTER_ADD, updates, flat, shape=(x.numel(),))
    return new.where(count > 0, x.reshape(-1)).reshape(x.shape)


# --- named forms --------------------------------------------------------------------------------------------------
def nonzero(input: Tensor, as_tuple: bool = False) -> Any:
    """Where the nonzero values are: one row an element, or one tensor an axis.

    Raises: StagingError while staging, since the shape depends on values.
    """
    input._refuse("a shape that depends on values (nonzero, a bool mask as index)")
    found = [Tensor._of(i.astype(int64)) for i in np.nonzero(input._storage.array)]
    if as_tuple:
        return tuple(found)
    return Tensor._of(np.argwhere(input._storage.array).astype(int64))


method(nonzero)


@method
def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The values where the mask holds, in one axis. Raises: StagingError while staging."""
    shape = broadcast("masked_select", [input.shape, mask.shape])
    return input.expand(shape)[mask.expand(shape)]


def _iota(shape: Shape, axis: int) -> Tensor:
    """Each element's own position along an axis."""
    line = np.arange(shape[axis], dtype=int64).reshape((-1,) + (1,) * (len(shape) - axis - 1))
    return Tensor._of(np.broadcast_to(line, shape))


def _along(index: Tensor, dim: int) -> list[Tensor]:
    return [index if a == dim else _iota(index.shape, a) for a in range(index.ndim)]


@method
def take_along_dim(input: Tensor, indices: Tensor, dim: int) -> Tensor:
    """out[i, …] = input[i, …, indices[i, …], …] along one axis; the other axes broadcast."""
    x = as_tensor(input)
    a = axis_index("take_along_dim", dim, x.ndim)
    shape = broadcast("take_along_dim", [(*x.shape[:a], 1, *x.shape[a + 1 :]), indices.shape])
    index = _wrapped(indices, x.shape[a]).expand((*shape[:a], indices.shape[a], *shape[a + 1 :]))
    return apply(reductions.GATHER, x.expand((*shape[:a], x.shape[a], *shape[a + 1 :])), *_along(index, a))


@method
def gather(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """out[i, j] = input[index[i, j], j] (for dim 0), as in PyTorch: no broadcasting."""
    a = axis_index("gather", dim, input.ndim)
    if index.ndim != input.ndim or any(
        m > n for k, (m, n) in enumerate(zip(index.shape, input.shape, strict=True)) if k != a
    ):
        raise ShapeError("gather: index", got=index.shape, needed=f"{input.ndim} axes, none longer than {input.shape}")
    return apply(reductions.GATHER, input, *_along(index.to(int64), a))


@method
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """input with ``src`` added at ``index`` along an axis (the transpose of gather); in index order."""
    a = axis_index("scatter_add", dim, input.ndim)
    part = src if src.shape == index.shape else src[tuple(slice(n) for n in index.shape)]
    return input + apply(reductions.SCATTER_ADD, part, *_along(index.to(int64), a), shape=input.shape)


@method
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The given slices of one axis."""
    a = axis_index("index_select", dim, input.ndim)
    return _gathered(input, [(a, _wrapped(index, input.shape[a]))])


def embedding(input: Tensor, weight: Tensor) -> Tensor:
    """Rows of ``weight`` at integer indices. Shapes: input (…), weight (N, D) → (…, D)."""
    if input.dtype.kind not in "ui":
        raise DTypeError("embedding: indices", got=input.dtype.name, needed="integers")
    return apply(reductions.GATHER, weight, input)


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Integer classes as int64 indicator vectors. Shapes: (…) → (…, num_classes).

    Raises: IndexRangeError for a class outside 0 … num_classes − 1.
    """
    if num_classes < 0:
        tensor._refuse("one_hot without num_classes")
        num_classes = int(tensor._storage.array.max()) + 1 if tensor.numel() else 0
    array = tensor._storage.array
    if not isinstance(array, Abstract) and array.size and (array.min() < 0 or array.max() >= num_classes):
        raise IndexRangeError(
            "one_hot: class", got=f"{array.min()} to {array.max()}", needed=f"0 to {num_classes - 1}"
        )
    return (tensor.unsqueeze(-1) == Tensor._of(np.arange(num_classes, dtype=int64))).to(int64)



@method
def index_add_(self: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """Add slices of ``source`` at the given places of one axis, in place and in index order."""
    a = axis_index("index_add_", dim, self.ndim)
    order: Sequence[int] = (a, *(k for k in range(self.ndim) if k != a))
    back = sorted(range(self.ndim), key=order.__getitem__)
    moved_shape = tuple(self.shape[k] for k in order)
    added = apply(reductions.SCATTER_ADD, source.permute(order), _wrapped(index, self.shape[a]), shape=moved_shape)
    return self._write(self + added.permute(back))

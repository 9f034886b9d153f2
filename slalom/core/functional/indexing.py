"""Indexing: t[…], t[…] = v, gather and its relatives. Results are values, never views.

Every form becomes slices, flips, reshapes and one gather over leading axes; a write becomes a scatter-add of the new
values and a selection, and a plain write into the buffer where no gradient and no trace needs to know.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from slalom.core.dtype import bool_, int64
from slalom.core.functional.shaping import cat
from slalom.core.node import MODE, Abstract
from slalom.core.ops import reductions, structural
from slalom.core.shape import Shape, axis_index, broadcast
from slalom.core.tensor import Tensor, apply, as_tensor, method
from slalom.errors import DTypeError, IndexRangeError, ShapeError

__all__ = [
    "embedding", "gather", "index_select", "masked_select", "nonzero", "one_hot", "scatter_add", "take_along_dim",
]  # fmt: skip

_NEEDED = "integers, slices, None, ... or tensors of integers or bools"


# --- t[…] ---------------------------------------------------------------------------------------------------------
def _parts(key: Any, shape: Shape) -> list[Any]:
    """A key as one entry an axis: int, slice, index tensor; None marks a new axis. A mask becomes its places.

    Raises: DTypeError for what is no index, IndexRangeError for too many or for one outside its axis.
    """
    keys = [_entry(k) for k in (key if isinstance(key, tuple) else (key,))]
    used = sum([_axes(k) for k in keys])
    if used > len(shape):
        raise IndexRangeError("indexing", got=f"{used} indices", needed=f"at most {len(shape)} for shape {shape}")
    at = [i for i, k in enumerate(keys) if k is Ellipsis] or [len(keys)]
    if len(at) > 1:
        raise IndexRangeError("indexing", got="several ...", needed="at most one")
    keys[at[0] : at[0] + 1] = [slice(None)] * (len(shape) - used)
    out: list[Any] = []
    axis = 0
    for k in keys:
        covered = shape[axis : axis + _axes(k)]
        if isinstance(k, Tensor) and k.dtype == bool_:
            if k.shape != covered:
                raise ShapeError("mask as index", got=k.shape, needed=f"the shape of the axes it selects, {covered}")
            out += nonzero(k, as_tuple=True)
        elif isinstance(k, Tensor) and (k.ndim or MODE.get().trace is not None):
            out.append(_wrapped(k, covered[0], axis))
        elif k is None or isinstance(k, slice):
            out.append(k)
        else:
            out.append(_checked_index(k, covered[0], axis))
        axis += _axes(k)
    return out


def _entry(k: Any) -> Any:
    if isinstance(k, (list, np.ndarray)):
        k = Tensor([], dtype=int64) if isinstance(k, list) and not k else as_tensor(k)
    if isinstance(k, (bool, np.bool_)) or (isinstance(k, Tensor) and k.dtype == bool_ and not k.ndim):
        raise DTypeError("index", got="a single bool", needed=_NEEDED)
    return k


def _axes(k: Any) -> int:
    """How many axes an entry of a key stands for."""
    if k is None or k is Ellipsis:
        return 0
    return k.ndim if isinstance(k, Tensor) and k.dtype == bool_ else 1


def _checked_index(k: Any, n: int, axis: int) -> int:
    try:
        i = int(k.__index__())
    except (AttributeError, TypeError) as error:
        got = k.dtype.name if isinstance(k, Tensor) else type(k).__name__
        raise DTypeError("index", got=got, needed=_NEEDED) from error
    if not -n <= i < n:
        raise IndexRangeError(f"index {i} on axis {axis}", needed=_range(n))
    return i % n


def _range(n: int) -> str:
    return f"{-n} to {n - 1}" if n else "none, the axis is empty"


def _wrapped(index: Tensor, n: int, axis: int) -> Tensor:
    """Indices with negative ones counted from the end."""
    if index.dtype.kind not in "ui":
        raise DTypeError("index", got=index.dtype.name, needed=_NEEDED)
    index = index.to(int64)
    if MODE.get().trace is not None:
        return (index + n).where(index < 0, index)
    array = index._storage.array
    if not array.size or np.maximum.reduce(array.view(np.uint64), axis=None) < n:  # as unsigned, −1 is huge
        return index
    bad = array[(array < -n) | (array >= n)]
    if bad.size:
        raise IndexRangeError(f"index {bad[0]} on axis {axis}", needed=_range(n))
    return Tensor._of(np.where(array < 0, array + n, array))


@method
def __getitem__(self: Tensor, key: Any) -> Tensor:
    """Integers, slices, ``...``, None, integer tensors (broadcast together) and masks.

    Note: where integers and index tensors stand apart the integers are taken first, as in PyTorch and unlike NumPy;
    slices may have negative steps, as in NumPy and unlike PyTorch.
    """
    if key.__class__ is slice and key.step is None and self.ndim:  # rows, which every loop over batches takes
        rows, *others = self.shape
        begin, end, _ = key.indices(rows)
        if end - begin < rows:
            part = self._rows(key)
            if part is not None:
                return part
            bounds = {"start": (begin, *[0] * len(others)), "stop": (max(begin, end), *others)}
            return apply(structural.SLICE, self, **bounds, step=(1,) * self.ndim)
    start, stop, step, flips = [], [], [], []
    shape: list[int] = []  # after slicing, with integer axes gone and new axes in
    scalars: list[tuple[int, Tensor]] = []  # place in shape, index
    advanced: list[tuple[int, Tensor]] = []
    axis = 0
    for k in _parts(key, self.shape):
        if k is None:
            shape.append(1)
            continue
        n = self.shape[axis]
        first, last, by = 0, n, 1
        if isinstance(k, int):
            first, last = k, k + 1
        elif isinstance(k, slice):
            first, last, by = k.indices(n)
            if by < 0:
                flips.append(axis)
                first, last, by = n - 1 - first, n - 1 - last, -by
            last = max(first, last)
            shape.append(-((first - last) // by))
        else:
            # A 0-d tensor is an integer that is not known yet; its axis goes before the others are looked at.
            (advanced if k.ndim else scalars).append((len(shape) - len(scalars), k))
            shape.append(n)
        start.append(first)
        stop.append(last)
        step.append(by)
        axis += 1
    out = apply(structural.FLIP, self, axes=tuple(flips)) if flips else self
    if any(start) or tuple(stop) != self.shape or any(s != 1 for s in step):
        out = apply(structural.SLICE, out, start=tuple(start), stop=tuple(stop), step=tuple(step))
    if tuple(shape) != out.shape or (out is self and not scalars and not advanced):
        out = apply(structural.RESHAPE, out, shape=tuple(shape))
    for place, index in scalars:
        out = _gathered(out, [(place, index)])
    return _gathered(out, advanced) if advanced else out


def _gathered(x: Tensor, advanced: list[tuple[int, Tensor]]) -> Tensor:
    """x at index tensors that stand on some axes; their common axes come where they stood, or first if apart."""
    places = [place for place, _ in advanced]
    common = broadcast("index", [index.shape for _, index in advanced])
    indices = [index if index.shape == common else index.expand(common) for _, index in advanced]
    others = [a for a in range(x.ndim) if a not in places]
    out = apply(reductions.GATHER, x.permute((*places, *others)) if places != [*range(len(places))] else x, *indices)
    together = places == list(range(places[0], places[0] + len(places)))
    before = places[0] if together else 0
    if not before:
        return out
    k = len(common)
    return out.permute((*range(k, k + before), *range(k), *range(k + before, out.ndim)))


# --- t[…] = v -----------------------------------------------------------------------------------------------------
@method
def __setitem__(self: Tensor, key: Any, value: Any) -> None:
    """Write into the buffer; gradients flow to ``value`` and to what is left of the old content.

    The value broadcasts and is cast to this dtype; where an index occurs several times, the last value stays.
    """
    value = as_tensor(value, self)
    mode = MODE.get()
    if mode.trace is None and not (mode.grad and (self._live or value._live)):
        self._write(Tensor._of(_written(self, key, value)))
    else:
        self._write(_replaced(self, key, value))


def _written(x: Tensor, key: Any, value: Tensor) -> Any:
    """A copy of the array in which the value is written."""
    for t in (x, value):
        if isinstance(t._storage.array, Abstract):
            t._storage.array.refuse("t[…] = v")
    array = x._storage.array.copy()
    parts = _parts(key, x.shape)
    # Integers are taken first, as in t[…]: what is left of the key has one entry for each axis of this view.
    basic = tuple([slice(None) if isinstance(k, Tensor) else k for k in parts])
    rest = tuple([k._storage.array if isinstance(k, Tensor) else slice(None) for k in parts if not isinstance(k, int)])
    region = array[(*basic, ...)]
    try:
        region[(*rest, ...)] = value._storage.array
    except ValueError as error:
        raise ShapeError("t[…] = v: value", got=value.shape, needed=region[(*rest, ...)].shape) from error
    return array


def _replaced(x: Tensor, key: Any, value: Tensor) -> Tensor:
    """The same as a value on the tape or in the graph."""
    places = Tensor._of(np.arange(x.numel(), dtype=int64).reshape(x.shape))[key]
    extra = value.ndim - places.ndim
    if extra > 0 and value.shape[:extra] == (1,) * extra:
        value = value.reshape(value.shape[extra:])
    sizes = zip(value.shape[::-1], places.shape[::-1], strict=False)
    if value.ndim > places.ndim or any(m not in (1, n) for m, n in sizes):
        raise ShapeError("t[…] = v: value", got=value.shape, needed=places.shape)
    flat = places.reshape(-1)
    updates = value.to(x.dtype).expand(places.shape).reshape(-1)
    entries = key if isinstance(key, tuple) else (key,)
    if any(isinstance(k, (Tensor, list, np.ndarray)) for k in entries):
        updates = updates.masked_fill(~_last_of_each(flat), 0)
    shape = (x.numel(),)
    hit = apply(reductions.SCATTER_ADD, flat.new_ones(flat.shape), flat, shape=shape) > 0
    new = apply(reductions.SCATTER_ADD, updates, flat, shape=shape)
    return new.where(hit, x.reshape(-1)).reshape(x.shape)


def _last_of_each(values: Tensor) -> Tensor:
    """Whether no later element of a vector is equal."""
    if not values.numel():
        return values != values
    order = values.argsort()
    ranked = values[order]
    last = cat([ranked[1:] != ranked[:-1], Tensor._of(np.ones(1, bool))])
    return apply(reductions.SCATTER_ADD, last.to(int64), order, shape=values.shape) > 0


# --- places and masks ---------------------------------------------------------------------------------------------
@method
def nonzero(input: Tensor, as_tuple: bool = False) -> Any:
    """Where the nonzero values are: one row an element, or one tensor an axis.

    Raises: StagingError while staging, since the shape depends on values.
    """
    x = as_tensor(input)
    x._refuse("a shape that depends on values (nonzero, a bool mask as index)")
    array = x._storage.array
    if as_tuple:
        return tuple([Tensor._of(i.astype(int64, copy=False)) for i in np.nonzero(np.atleast_1d(array))])
    return Tensor._of(np.argwhere(array).astype(int64, copy=False))


@method
def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The values where the mask holds, in one axis. Raises: StagingError while staging."""
    x, keep = as_tensor(input), as_tensor(mask)
    if keep.dtype != bool_:
        raise DTypeError("masked_select: mask", got=keep.dtype.name, needed="bool")
    shape = broadcast("masked_select", [x.shape, keep.shape])
    return x.expand(shape).reshape(-1)[keep.expand(shape).reshape(-1)]


# --- gather and its relatives -------------------------------------------------------------------------------------
def _iota(shape: Shape, axis: int) -> Tensor:
    """Each element's own position along an axis."""
    line = np.arange(shape[axis], dtype=int64).reshape((-1,) + (1,) * (len(shape) - axis - 1))
    return Tensor._of(np.broadcast_to(line, shape))


def _along(index: Tensor, dim: int) -> list[Tensor]:
    return [index if a == dim else _iota(index.shape, a) for a in range(index.ndim)]


def _whole(name: str, indices: Any) -> Tensor:
    index = as_tensor(indices)
    if index.dtype.kind not in "ui":
        raise DTypeError(f"{name}: index", got=index.dtype.name, needed="integers")
    return index.to(int64)


@method
def take_along_dim(input: Tensor, indices: Tensor, dim: int) -> Tensor:
    """out[i, …] = input[i, …, indices[i, …], …] along one axis; the other axes broadcast."""
    x = as_tensor(input)
    a = axis_index("take_along_dim", dim, x.ndim, wrap_scalar=False)
    indices = _whole("take_along_dim", indices)
    if indices.ndim != x.ndim:
        raise ShapeError("take_along_dim: indices", got=indices.shape, needed=f"{x.ndim} dimensions")
    shape = broadcast("take_along_dim", [(*x.shape[:a], 1, *x.shape[a + 1 :]), indices.shape])
    index = _wrapped(indices, x.shape[a], a).expand((*shape[:a], indices.shape[a], *shape[a + 1 :]))
    return apply(reductions.GATHER, x.expand((*shape[:a], x.shape[a], *shape[a + 1 :])), *_along(index, a))


@method
def gather(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """out[i, j] = input[index[i, j], j] (for dim 0), as in PyTorch: no broadcasting, no negative indices."""
    a = axis_index("gather", dim, input.ndim)
    index = _whole("gather", index)
    if index.ndim != input.ndim or any(
        m > n for k, (m, n) in enumerate(zip(index.shape, input.shape, strict=True)) if k != a
    ):
        raise ShapeError("gather: index", got=index.shape, needed=f"{input.ndim} axes, none longer than {input.shape}")
    return apply(reductions.GATHER, input, *_along(index, a))


@method
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """input with ``src`` added at ``index`` along an axis (the transpose of gather); in index order."""
    a = axis_index("scatter_add", dim, input.ndim)
    index, src = _whole("scatter_add", index), as_tensor(src)
    if not index.ndim == src.ndim == input.ndim or any(m > n for m, n in zip(index.shape, src.shape, strict=True)):
        got = f"index {index.shape}, src {src.shape}"
        raise ShapeError("scatter_add", got=got, needed=f"{input.ndim} axes, those of src no shorter than the index's")
    part = src if src.shape == index.shape else src[tuple([slice(n) for n in index.shape])]
    return input + apply(reductions.SCATTER_ADD, part, *_along(index, a), shape=input.shape)


@method
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The given slices of one axis."""
    a = axis_index("index_select", dim, input.ndim, wrap_scalar=False)
    return _gathered(input, [(a, _wrapped(_whole("index_select", index), input.shape[a], a))])


@method
def index_add_(self: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """Add slices of ``source`` at the given places of one axis, in place and in index order."""
    a = axis_index("index_add_", dim, self.ndim, wrap_scalar=False)
    order = (a, *(k for k in range(self.ndim) if k != a))
    back = sorted(range(self.ndim), key=order.__getitem__)
    shape = tuple([self.shape[k] for k in order])
    places = _wrapped(_whole("index_add_", index), self.shape[a], a)
    return self._write(self + apply(reductions.SCATTER_ADD, source.permute(order), places, shape=shape).permute(back))


def embedding(input: Tensor, weight: Tensor) -> Tensor:
    """Rows of ``weight`` at integer indices. Shapes: input (…), weight (N, D) → (…, D)."""
    return apply(reductions.GATHER, weight, _whole("embedding", input))


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Integer classes as int64 indicator vectors. Shapes: (…) → (…, num_classes).

    Raises: IndexRangeError for a class outside 0 … num_classes − 1 (while staging, where values are not known, such
    a class gives zeros).
    """
    classes = _whole("one_hot", tensor)
    if num_classes < 0:
        classes._refuse("one_hot without num_classes")
        num_classes = int(classes._storage.array.max()) + 1 if classes.numel() else 0
    array = classes._storage.array
    if MODE.get().trace is None and array.size and (array.min() < 0 or array.max() >= num_classes):
        raise IndexRangeError("one_hot: class", got=f"{array.min()} to {array.max()}", needed=f"0 to {num_classes - 1}")
    return (classes.unsqueeze(-1) == Tensor._of(np.arange(num_classes, dtype=int64))).to(int64)

"""Sources of batches: arrays, a Dataset, or a loader that makes its own batches.

In training a last batch of one row joins the batch before it, because one row has no variance to normalise by.
"""

from __future__ import annotations

import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from slalom.core import kernels, tree
from slalom.core.dtype import ALL, DType
from slalom.core.functional.shaping import cat
from slalom.core.primitive import Array
from slalom.core.random import default_generator
from slalom.core.tensor import Tensor
from slalom.data import default_collate
from slalom.data.dataset import in_memory
from slalom.data.loader import batch_slices
from slalom.errors import ConfigError, DataError, DTypeError
from slalom.train.files import arrays_sha256

__all__ = ["Batch", "Order", "Source", "described", "source_of"]

BATCH_STREAM: Final = 3
"""The stream of the default generator while batches are made (augmentation, a loader's order)."""
COPIED: Final = 1 << 30
"""Bytes of a Dataset in memory up to which its rows are copied into one array each, for a native loop to gather."""
_END: Final = object()


class Batch(NamedTuple):
    """The parts of a batch, the last of which is the target; the weights of its rows; how many rows; which ones."""

    items: tuple[Any, ...]
    weight: Tensor | None
    rows: int
    which: Array | None = None


class Order(NamedTuple):
    """The order of the rows in one epoch: a pure function of (seed, epoch)."""

    seed: int
    epoch: int


class Source(ABC):
    """Something that gives batches.

    ``origin``: the Dataset or loader; None for arrays. ``in_memory``: whether a batch is one gather from each part.
    ``rows``: how many, if known. ``weight``: of each row, where rows have numbers; ``by_class``: of each class of the
    target.
    """

    origin: Any = None
    in_memory: bool = True
    rows: int | None = None
    weight: Array | None = None
    by_class: Array | None = None

    def __init__(self, dtype: DType) -> None:
        self.dtype = dtype

    @abstractmethod
    def batches(self, batch_size: int, order: Order | None, start: int = 0) -> Iterator[Batch]:
        """The batches from number ``start`` on, in that order, or in the rows' own one (evaluation) if it is None."""

    def whole(self) -> tuple[list[Array], Array | None] | None:
        """All rows as arrays and their weights, where every batch is rows of these in the given order; else None."""
        return None

    @abstractmethod
    def count(self, batch_size: int) -> int | None:
        """How many batches an epoch has, if that is known."""

    @abstractmethod
    def digest(self) -> dict[str, Any]:
        """What tells these data from others, for checkpoints."""

    def targets(self) -> Array | None:
        """All targets, if they are at hand."""
        return None

    def _weights(self, index: Any, items: tuple[Any, ...]) -> Tensor | None:
        found = None if self.weight is None else self.weight[index]
        if self.by_class is not None:
            share = _looked_up(self.by_class, items[-1].numpy()).astype(self.dtype)
            found = share if found is None else found * share
        return None if found is None else Tensor._of(found)


def source_of(
    what: str, data: Any, dtype: DType, sample_weight: Any = None, class_weight: Any = None, *, empty: bool = False
) -> Source:
    """The source for what a user passes: arrays, a tuple of them, a Dataset or a loader.

    Floating arrays are converted to ``dtype``, that of the model. ``class_weight``: a dict or a list of the classes'
    weights (1 where it has none), or "balanced": n / (K·nₖ) for the nₖ rows of class k of K. ``empty``: 0 rows will do.

    Raises: DataError and ConfigError, beginning with ``what``.
    """
    if isinstance(data, tuple | list | Tensor) or hasattr(data, "__array__"):
        parts = tuple(data) if isinstance(data, tuple | list) else (data,)
        source: Source = _Arrays(what, parts, dtype, sample_weight)
    elif isinstance(data, str | Mapping) or hasattr(data, "__next__"):
        needed = "(X, y) of arrays, a Dataset, or a DataLoader: something that can be gone through again and again"
        raise DataError(f"{what}: data", got=type(data).__name__, needed=needed)
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        source = _Rows(what, data, dtype, sample_weight)
    elif hasattr(data, "__iter__"):
        if sample_weight is not None:
            needed = "arrays or a Dataset, whose rows have numbers"
            raise ConfigError(f"{what}: sample_weight", got="a loader", needed=needed)
        source = _Loader(data, dtype)
    else:
        raise DataError(f"{what}: data", got=type(data).__name__, needed="(X, y) of arrays, a Dataset or a DataLoader")
    if source.rows == 0 and not empty:
        raise DataError(f"{what}: data", got="0 rows", needed="at least 1")
    if class_weight is not None:
        source.by_class = _class_table(what, class_weight, source.targets())
    return source


# --- arrays ----------------------------------------------------------------------------------------------------------
class _Arrays(Source):
    """Arrays with equal first sizes; a batch is one gather from each."""

    def __init__(self, what: str, parts: Sequence[Any], dtype: DType, sample_weight: Any) -> None:
        super().__init__(dtype)
        if not parts:
            raise DataError(f"{what}: data", got="no arrays", needed="at least one")
        names = {1: ["X"], 2: ["X", "y"]}.get(len(parts), [f"part {i}" for i in range(len(parts))])
        self.parts = {name: _array(f"{what}: {name}", part, dtype) for name, part in zip(names, parts, strict=True)}
        sizes = {name: len(part) for name, part in self.parts.items()}
        if len(set(sizes.values())) > 1:
            got = ", ".join(f"{name} with {size} rows" for name, size in sizes.items())
            raise DataError(f"{what}: data of unequal lengths", got=got, needed="a row of each for every example")
        self.rows = self.n = sizes[names[0]]
        self.weight = _row_weights(what, sample_weight, self.n, dtype)

    def batches(self, batch_size: int, order: Order | None, start: int = 0) -> Iterator[Batch]:
        if order is None:
            for cut in batch_slices(self.n, batch_size) or [slice(0, 0)]:
                yield self._batch(cut, np.arange(cut.start, cut.stop))
            return
        permutation = kernels.permutation(order.seed, order.epoch, self.n)
        for cut in batch_slices(self.n, batch_size, merge_last=True)[start:]:
            yield self._batch(permutation[cut], permutation[cut])

    def _batch(self, index: Any, rows: Array) -> Batch:
        items = tuple(Tensor._of(part[index]) for part in self.parts.values())
        return Batch(items, self._weights(index, items), len(rows), rows)

    def whole(self) -> tuple[list[Array], Array | None]:
        parts = list(self.parts.values())
        weight = self._weights(slice(None), tuple(map(Tensor._of, parts)))
        return parts, None if weight is None else weight.numpy()

    def count(self, batch_size: int) -> int:
        return len(batch_slices(self.n, batch_size, merge_last=True))

    def digest(self) -> dict[str, Any]:
        return {"rows": self.n} | {name: arrays_sha256({"": part}) for name, part in self.parts.items()}

    def targets(self) -> Array:
        return list(self.parts.values())[-1]


def _array(what: str, part: Any, dtype: DType) -> Array:
    try:
        array = part.detach().numpy() if isinstance(part, Tensor) else np.asarray(part)
    except ValueError as error:
        raise DataError(what, got=f"nested sequences of unequal lengths ({error})", needed="a regular array") from error
    if not array.ndim:
        raise DataError(what, got="a single number", needed="an array with a row for each example")
    if array.dtype.kind == "f":
        return np.ascontiguousarray(array, dtype)
    if array.dtype.newbyteorder("=") not in ALL:
        raise DTypeError(what, got=f"dtype {array.dtype}", needed="numbers or truth values")
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def _row_weights(what: str, weight: Any, n: int, dtype: DType) -> Array | None:
    if weight is None:
        return None
    array = _array(f"{what}: sample_weight", weight, dtype).astype(dtype)
    if array.shape != (n,):
        raise DataError(f"{what}: sample_weight", got=f"shape {array.shape}", needed=f"({n},), one for each row")
    if not (np.isfinite(array).all() and (array >= 0).all() and (array.any() or not n)):
        raise DataError(f"{what}: sample_weight", needed="finite numbers of at least 0, some above it")
    return array


# --- datasets --------------------------------------------------------------------------------------------------------
class _Rows(Source):
    """A Dataset: rows by number. A batch of one in memory is one gather; of others, row by row."""

    def __init__(self, what: str, dataset: Any, dtype: DType, sample_weight: Any) -> None:
        super().__init__(dtype)
        self.origin = self.dataset = dataset
        self.rows = self.n = len(dataset)
        self.in_memory = in_memory(dataset, np.arange(min(self.n, 1))) is not None
        self.weight = _row_weights(what, sample_weight, self.n, dtype)

    def batches(self, batch_size: int, order: Order | None, start: int = 0) -> Iterator[Batch]:
        rows = np.arange(self.n) if order is None else kernels.permutation(order.seed, order.epoch, self.n)
        cuts = batch_slices(self.n, batch_size, merge_last=order is not None)
        for number in range(start, len(cuts)):
            index = rows[cuts[number]]
            _seeded(order, number)
            made = in_memory(self.dataset, index)
            if made is None:
                made = default_collate([self.dataset[i] for i in index.tolist()])
            items = _items(made, self.dtype)
            yield Batch(items, self._weights(index, items), len(index), index)

    def count(self, batch_size: int) -> int:
        return len(batch_slices(self.n, batch_size, merge_last=True))

    def digest(self) -> dict[str, Any]:
        everything = self._everything()
        found: dict[str, Any] = {"rows": self.n, "dataset": type(self.dataset).__name__}
        if everything is not None:
            found["contents"] = arrays_sha256({str(i): t.detach().numpy() for i, t in enumerate(everything)})
        return found

    def targets(self) -> Array | None:
        everything = self._everything()
        return None if everything is None else everything[-1].detach().numpy()

    def whole(self) -> tuple[list[Array], Array | None] | None:
        everything = self._everything()
        if everything is None or sum(t.numel() * t.dtype.itemsize for t in everything) > COPIED:
            return None
        items = _items(everything, self.dtype)
        weight = self._weights(slice(None), items)
        return [t.numpy() for t in items], None if weight is None else weight.numpy()

    def _everything(self) -> tuple[Tensor, ...] | None:
        """All rows, where they are in memory anyway."""
        return in_memory(self.dataset, np.arange(self.n))


class _Loader(Source):
    """Something that gives batches, in an order of its own.

    Before it makes each batch the default generator is put where it depends on (seed, epoch, batch) only, and a sampler
    that counts its passes in ``epoch`` is set, so that what is drawn from either can be drawn again.
    """

    def __init__(self, loader: Any, dtype: DType) -> None:
        super().__init__(dtype)
        self.origin = self.loader = loader
        self.in_memory = False

    def batches(self, batch_size: int, order: Order | None, start: int = 0) -> Iterator[Batch]:
        for part in (self.loader, *(getattr(self.loader, name, None) for name in ("sampler", "batch_sampler"))):
            if isinstance(getattr(part, "epoch", None), int):
                part.epoch = 0 if order is None else order.epoch
        made = self._made(order)
        for number, items in enumerate(made if order is None else _merged(made)):
            if number >= start:
                yield Batch(items, self._weights(None, items), _rows(items))

    def _made(self, order: Order | None) -> Iterator[tuple[Any, ...]]:
        _seeded(order, 0)
        given = iter(self.loader)
        for number in itertools.count():
            _seeded(order, number)
            batch = next(given, _END)
            if batch is _END:
                return
            yield _items(batch, self.dtype)

    def count(self, batch_size: int) -> int | None:
        try:
            return len(self.loader)
        except TypeError:  # a stream
            return None

    def digest(self) -> dict[str, Any]:
        options = {name: getattr(self.loader, name, None) for name in ("batch_size", "drop_last", "merge_last")}
        sampler = type(getattr(self.loader, "sampler", None)).__name__
        found = {"loader": f"{type(self.loader).__name__} of {self.count(0)} batches", "sampler": sampler, **options}
        if getattr(self.loader, "batch_sampler", None) is not None:
            found["batch_sampler"] = described(self.loader.batch_sampler)
        dataset = getattr(self.loader, "dataset", None)
        rows = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
        return found | (_Rows("", dataset, self.dtype, None).digest() if rows else {})


def _merged(batches: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """The batches, two behind, so that a last one of a single row can join the one before it."""
    window: list[tuple[Any, ...]] = []
    for items in batches:
        window.append(items)
        if len(window) > 2:
            yield window.pop(0)
    if len(window) == 2 and _rows(window[1]) == 1 < _rows(window[0]):
        second = iter(tree.leaves(window.pop()))
        window[0] = tree.map(lambda t: cat([t, next(second)]), window[0])
    yield from window


def _seeded(order: Order | None, number: int) -> None:
    """Put the default generator where the making of batch ``number`` may draw from it, whatever came before."""
    if order is not None:
        default_generator.set(order.seed, BATCH_STREAM, (order.epoch << 42) + (number << 20))


def _items(batch: Any, dtype: DType) -> tuple[Any, ...]:
    """A batch as a tuple of (trees of) tensors, floating ones in the model's dtype."""

    def convert(value: Any) -> Tensor:
        t = value if isinstance(value, Tensor) else Tensor._of(np.asarray(value))
        return t.detach().to(dtype) if t.dtype.kind == "f" and t.dtype != dtype else t.detach()

    parts = tuple(batch) if isinstance(batch, tuple | list) else (batch,)
    return tuple(tree.map(convert, _tensors(part)) for part in parts)


def _tensors(value: Any) -> Any:
    """A tree in which all that holds numbers (arrays, PyTorch's tensors) is a Tensor."""
    if isinstance(value, Tensor):
        return value
    if hasattr(value, "__array__") or isinstance(value, (int, float)):
        return Tensor._of(np.asarray(value))
    if isinstance(value, dict):
        return {key: _tensors(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_tensors(item) for item in value)
    return value


def _rows(items: tuple[Any, ...]) -> int:
    leaves = tree.leaves(items[-1]) or tree.leaves(items)
    return leaves[0].shape[0] if leaves and leaves[0].ndim else 1


# --- weights of classes ----------------------------------------------------------------------------------------------
def _class_table(what: str, spec: Any, targets: Array | None) -> Array:
    """The weight of each class number, and last that of all beyond."""
    what = f"{what}: class_weight"
    if isinstance(spec, str):
        if spec != "balanced":
            raise ConfigError(what, got=repr(spec), needed="'balanced', a dict or a list")
        if targets is None:
            raise ConfigError(what, got="'balanced', for data whose targets are not at hand", needed="a dict")
        counts = np.bincount(_class_numbers(targets))
        present = counts > 0
        table = np.ones(len(counts) + 1)
        table[:-1][present] = counts.sum() / (present.sum() * counts[present])
        return table
    weights = dict(spec) if isinstance(spec, Mapping) else dict(enumerate(np.asarray(spec, np.float64).tolist()))
    whole = all(isinstance(k, int | np.integer) and k >= 0 for k in weights)
    if not weights or not whole or not all(0 <= v < np.inf for v in weights.values()):
        raise ConfigError(what, got=spec, needed="a finite weight of at least 0 for each class number")
    table = np.ones(max(weights) + 2)
    table[list(weights)] = list(weights.values())
    return table


def _class_numbers(targets: Array) -> Array:
    flat = targets.reshape(len(targets)) if targets.size == len(targets) else targets
    whole = flat.astype(np.int64)
    if flat.ndim != 1 or (whole != flat).any():
        got = f"{targets.dtype} of shape {targets.shape}"
        raise DataError("class_weight: targets", got=got, needed="class numbers of shape (n,)")
    return whole


def _looked_up(table: Array, targets: Array) -> Array:
    """The weight of each target; a negative number (one to ignore) counts as a class beyond all."""
    numbers = _class_numbers(targets)
    return table[np.where(numbers < 0, len(table) - 1, np.minimum(numbers, len(table) - 1))]


def described(thing: Any) -> str:
    """A setting in words that are the same in another process: no addresses."""
    text = f"{thing.__module__}.{thing.__qualname__}" if hasattr(thing, "__qualname__") else repr(thing)
    return re.sub(r" at 0x[0-9a-f]+", "", text)

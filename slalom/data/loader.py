"""DataLoader: batches of a dataset, in a new order at each pass; samplers; and how rows become a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from slalom.core import kernels
from slalom.core.dtype import float64
from slalom.core.functional.creation import from_numpy
from slalom.core.functional.shaping import stack
from slalom.core.random import Generator, default_generator
from slalom.core.tensor import Tensor
from slalom.core.tree import is_named_tuple
from slalom.data.dataset import IterableDataset, in_memory
from slalom.errors import ConfigError, DataError, ShapeError

__all__ = [
    "BatchSampler", "DataLoader", "RandomSampler", "Sampler", "SequentialSampler", "batch_slices", "default_collate",
]  # fmt: skip

Rows = npt.NDArray[np.int64]
Batch = TypeVar("Batch")


# --- rows to batches ----------------------------------------------------------------------------------------------
def default_collate(batch: Sequence[Any]) -> Any:
    """Rows as one batch: tensors and arrays stacked, numbers as a tensor, tuples, lists and dicts field by field.

    Python floats become float64 and ints int64, as in PyTorch; strings stay a list.

    Raises: DataError for rows that do not fit together, or of a type that has no batch.

    >>> default_collate([(Tensor([1.0]), 0), (Tensor([2.0]), 1)])
    (tensor([[1.],
            [2.]]), tensor([0, 1]))
    """
    first = batch[0]
    try:
        if isinstance(first, Tensor):
            if any(row.requires_grad for row in batch):
                return stack(batch)
            return from_numpy(np.stack([row._storage.array for row in batch]))
        if isinstance(first, (np.ndarray, np.generic)) and first.dtype.kind in "buif":
            return from_numpy(np.stack(batch))
    except (ShapeError, ValueError) as error:
        shapes = sorted({np.shape(row) for row in batch})
        raise DataError("a batch of rows of unequal shapes", got=", ".join(map(str, shapes)), needed="one") from error
    if isinstance(first, float):
        return Tensor(batch, dtype=float64)
    if isinstance(first, int):
        return Tensor(batch)
    if isinstance(first, (str, bytes)):
        return list(batch)
    if isinstance(first, Mapping):
        return {key: default_collate([row[key] for row in batch]) for key in first}
    if isinstance(first, (tuple, list)):
        lengths = {len(row) for row in batch}
        if len(lengths) > 1:
            raise DataError("a batch of rows with unequal numbers of fields", got=sorted(lengths), needed="one number")
        fields = (default_collate(field) for field in zip(*batch, strict=True))
        return type(first)(*fields) if is_named_tuple(first) else type(first)(fields)
    raise DataError("a batch", got=f"rows of type {type(first).__name__}", needed="a collate_fn for them")


# --- samplers -----------------------------------------------------------------------------------------------------
class Sampler:
    """An order of rows: ``__iter__`` over indices, and ``__len__``. Any iterable of indices will do."""

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError(f"{type(self).__name__} needs __iter__()")


class SequentialSampler(Sampler):
    """0, 1, 2, …"""

    def __init__(self, data_source: Any) -> None:
        self.data_source = data_source

    def __len__(self) -> int:
        return len(self.data_source)

    def order(self) -> Rows:
        """All indices."""
        return np.arange(len(self))

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))


class RandomSampler(Sampler):
    """Every row once, in an order that is a pure function of (seed, epoch).

    The seed is that of ``generator`` (by default the one of ``slalom.manual_seed``); ``epoch`` counts the passes and
    may be set, to repeat one or to go on where a run was interrupted.

    Note: PyTorch draws a new seed from the generator at each pass, so that its order depends on all that was drawn
    before. Here it does not, and one pass makes no draw.
    """

    def __init__(self, data_source: Any, generator: Generator | None = None) -> None:
        self.data_source, self.generator = data_source, generator
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.data_source)

    def order(self) -> Rows:
        """The order of the next pass; counts it."""
        epoch, self.epoch = self.epoch, self.epoch + 1
        return kernels.permutation((self.generator or default_generator).initial_seed(), epoch, len(self))

    def __iter__(self) -> Iterator[int]:
        return iter(self.order().tolist())


class BatchSampler(Sampler):
    """The indices of a sampler as lists of ``batch_size``; the last may be shorter, or is left out."""

    def __init__(self, sampler: Any, batch_size: int, drop_last: bool = False) -> None:
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last

    def __len__(self) -> int:
        return len(batch_slices(len(self.sampler), self.batch_size, self.drop_last))

    def __iter__(self) -> Iterator[list[Any]]:
        order = list(self.sampler)
        return (order[cut] for cut in batch_slices(len(order), self.batch_size, self.drop_last))


def batch_slices(n: int, batch_size: int, drop_last: bool = False, merge_last: bool = False) -> list[slice]:
    """Where ``n`` rows are cut into batches.

    The last batch holds what is left over; ``drop_last`` leaves it out. ``merge_last``: a single row that is left over
    joins the batch before it, since a batch of one row has no variance to normalise by.

    Raises: ConfigError unless the batch size is an integer of at least 1.

    >>> batch_slices(9, 4, merge_last=True)
    [slice(0, 4, None), slice(4, 9, None)]
    """
    if isinstance(batch_size, bool) or not hasattr(batch_size, "__index__") or batch_size < 1:
        raise ConfigError("batch_size", got=repr(batch_size), needed="an integer of at least 1")
    ends = list(range(batch_size, n + 1, batch_size))
    left = n % batch_size
    if left == 1 and merge_last and ends:
        ends[-1] = n
    elif left and not drop_last:
        ends.append(n)
    return list(map(slice, [0, *ends], ends))


# --- the loader ---------------------------------------------------------------------------------------------------
class DataLoader(Generic[Batch]):
    """Batches of a dataset; each ``for`` loop over it is one pass.

    ``shuffle``: every pass in an order of its own, a pure function of (seed, number of the pass); see RandomSampler.
    ``sampler``: indices in another order; ``batch_sampler``: lists of indices, one a batch. ``collate_fn``: makes a
    batch of a list of rows, in place of ``default_collate``. ``drop_last``: without the last batch where it is not
    full. ``merge_last``: a last batch of one row joins the one before it (batch norm can't train on one row).

    Raises: ConfigError for options that exclude each other.

    Note: a batch of a TensorDataset, or of a Subset of one, is one gather a tensor, not row by row (PyTorch's issue
    106704). A batch of rows that are tuples is a tuple (in PyTorch a list).
    Note: ``num_workers``, ``prefetch_factor``, ``persistent_workers`` and ``pin_memory`` are taken and have no effect:
    batches are made in this process, when they are asked for.

    >>> from slalom.data import TensorDataset
    >>> loader = DataLoader(TensorDataset(Tensor([1, 2, 3])), batch_size=2)
    >>> len(loader), list(loader)
    (2, [(tensor([1, 2]),), (tensor([3]),)])
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Sequence[Any]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Batch] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        *,
        generator: Generator | None = None,
        merge_last: bool = False,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
    ) -> None:
        batch_slices(0, batch_size)  # raises for a size that is none
        streams = isinstance(dataset, IterableDataset)
        ordered = [name for name, given in (("shuffle", shuffle), ("sampler", sampler)) if given not in (None, False)]
        if batch_sampler is not None and (ordered or streams or batch_size != 1 or drop_last or merge_last):
            needed = "none of batch_size, shuffle, sampler, drop_last, merge_last, and no IterableDataset beside it"
            raise ConfigError("DataLoader: batch_sampler", needed=needed)
        if len(ordered) > 1 or (ordered and streams):
            beside = "an IterableDataset" if streams else "a sampler"
            raise ConfigError(f"DataLoader: {ordered[0]}", got=f"it and {beside}", needed="one order of the rows")
        if drop_last and merge_last:
            raise ConfigError("DataLoader", got="drop_last and merge_last", needed="one of them")
        if num_workers < 0:
            raise ConfigError("DataLoader: num_workers", got=num_workers, needed="a number of at least 0")
        self.dataset, self.batch_size, self.collate_fn = dataset, batch_size, collate_fn
        self.drop_last, self.merge_last, self.num_workers = drop_last, merge_last, num_workers
        self.batch_sampler = batch_sampler
        self.sampler: Any = sampler
        if sampler is None and not streams:
            self.sampler = RandomSampler(dataset, generator) if shuffle else SequentialSampler(dataset)

    def __len__(self) -> int:
        if self.batch_sampler is not None:
            return len(self.batch_sampler)  # type: ignore[arg-type]
        rows = self.dataset if self.sampler is None else self.sampler
        return len(batch_slices(len(rows), self.batch_size, self.drop_last, self.merge_last))

    def __iter__(self) -> Iterator[Batch]:
        if isinstance(self.dataset, IterableDataset):
            return map(self.collate_fn or default_collate, self._streamed())
        return map(self._batch, self._rows())

    def _rows(self) -> Iterator[Any]:
        """The indices of each batch."""
        if self.batch_sampler is not None:
            return iter(self.batch_sampler)
        own = isinstance(self.sampler, (RandomSampler, SequentialSampler))
        order = self.sampler.order() if own else list(self.sampler)
        cuts = batch_slices(len(order), self.batch_size, self.drop_last, self.merge_last)
        return (order[cut] for cut in cuts)

    def _batch(self, rows: Any) -> Any:
        if self.collate_fn is None:
            made = in_memory(self.dataset, rows)
            if made is not None:
                return made
        given = rows.tolist() if isinstance(rows, np.ndarray) else rows
        return (self.collate_fn or default_collate)([self.dataset[i] for i in given])

    def _streamed(self) -> Iterator[list[Any]]:
        """The rows of each batch of a stream, one batch behind, so that the last one is known."""
        stream, held = iter(self.dataset), []
        while rows := list(islice(stream, self.batch_size)):
            if self.merge_last and len(rows) == 1 < self.batch_size:
                held += rows
                break
            if held:
                yield held
            held = rows
        if held and not (self.drop_last and len(held) < self.batch_size):
            yield held

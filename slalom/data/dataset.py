"""Datasets: rows by index, chosen, joined, split; and the one gather that makes a batch of rows in memory."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from slalom.core.ops.reductions import GATHER
from slalom.core.random import Generator, randperm
from slalom.core.tensor import Tensor, apply, as_tensor
from slalom.errors import ConfigError, DataError, IndexRangeError

__all__ = ["ConcatDataset", "Dataset", "IterableDataset", "Subset", "TensorDataset", "random_split"]

Row = TypeVar("Row")


class Dataset(Generic[Row]):
    """Rows by index: a subclass gives ``__getitem__`` and ``__len__``.

    Note: any object with these two methods is a dataset, a list too.
    """

    def __getitem__(self, index: int) -> Row:
        raise NotImplementedError(f"{type(self).__name__} needs __getitem__(index)")

    def __add__(self, other: Dataset[Row]) -> ConcatDataset[Row]:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[Row]):
    """Rows one after the other: a subclass gives ``__iter__``."""

    def __iter__(self) -> Iterator[Row]:
        raise NotImplementedError(f"{type(self).__name__} needs __iter__()")


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Tensors (or arrays) of equal length; row i is ``tuple(t[i] for t in tensors)``.

    Shapes: each (N, …). Raises: DataError for none, or for unequal lengths.

    >>> x, y = Tensor([[1.0], [2.0], [3.0]]), Tensor([0, 1, 1])
    >>> TensorDataset(x, y)[1]
    (tensor([2.]), tensor(1))
    """

    def __init__(self, *tensors: Any) -> None:
        self.tensors = tuple(as_tensor(t) for t in tensors)
        shapes = [t.shape for t in self.tensors]
        if not shapes or () in shapes or len({shape[0] for shape in shapes}) > 1:
            got = f"shapes {', '.join(map(str, shapes))}" if shapes else "none"
            raise DataError("TensorDataset: tensors", got=got, needed="one or more, with equal first sizes")

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(t[index] for t in self.tensors)

    def __len__(self) -> int:
        return len(self.tensors[0])


class Subset(Dataset[Row]):
    """The rows of a dataset at ``indices`` (kept as an array), in their order."""

    def __init__(self, dataset: Any, indices: npt.ArrayLike) -> None:
        self.dataset, self.indices = dataset, np.asarray(indices)

    def __getitem__(self, index: int) -> Row:
        row: Row = self.dataset[self.indices[index].tolist()]
        return row

    def __len__(self) -> int:
        return len(self.indices)


class ConcatDataset(Dataset[Row]):
    """Datasets one after the other. Raises: ConfigError for none."""

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise ConfigError("ConcatDataset", got="no datasets", needed="at least one")
        self.cumulative_sizes = list(accumulate(map(len, self.datasets)))

    def __getitem__(self, index: int) -> Row:
        n = len(self)
        if not -n <= index < n:
            raise IndexRangeError(f"index {index}", needed=f"{-n} to {n - 1}")
        index %= n
        which = bisect_right(self.cumulative_sizes, index)
        before = self.cumulative_sizes[which - 1] if which else 0
        row: Row = self.datasets[which][index - before]
        return row

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]


def random_split(dataset: Any, lengths: Sequence[float], generator: Generator | None = None) -> list[Subset[Any]]:
    """Disjoint random parts of a dataset, of the given lengths, or of fractions that add up to 1.

    What rounding the fractions down leaves over goes to the parts in turn, one row each.

    Raises: ConfigError for lengths that do not add up to the dataset's, or negative ones.

    >>> [len(part) for part in random_split(range(10), [0.75, 0.25])]
    [8, 2]
    """
    n = len(dataset)
    if any(length < 0 for length in lengths):
        raise ConfigError("random_split: lengths", got=lengths, needed="no negative ones")
    if math.isclose(sum(lengths), 1) and not (n == 1 and all(isinstance(length, int) for length in lengths)):
        sizes = [math.floor(n * fraction) for fraction in lengths]
        for i in range(n - sum(sizes)):
            sizes[i % len(sizes)] += 1
    else:
        sizes = [int(length) for length in lengths]
    if sum(sizes) != n or any(size != length for size, length in zip(sizes, lengths, strict=True) if length > 1):
        raise ConfigError(
            "random_split: lengths", got=f"{list(lengths)}", needed=f"a sum of {n}, the dataset's length, or of 1"
        )
    order = randperm(n, generator=generator).numpy()
    return [Subset(dataset, order[end - size : end]) for size, end in zip(sizes, accumulate(sizes), strict=True)]


def in_memory(dataset: Any, rows: npt.ArrayLike) -> tuple[Tensor, ...] | None:
    """The batch of these rows by one gather a tensor, where the dataset's rows are those of tensors; else None.

    A class that gives rows in a way of its own (a ``__getitem__`` that augments, say) is asked row by row.
    """
    row_of, indices = getattr(type(dataset), "__getitem__", None), np.asarray(rows)
    if row_of is TensorDataset.__getitem__:
        index = Tensor._of(indices.astype(np.int64, copy=False))
        return tuple(apply(GATHER, t, index) for t in dataset.tensors)
    if row_of is Subset.__getitem__:
        return in_memory(dataset.dataset, dataset.indices[indices])
    return None

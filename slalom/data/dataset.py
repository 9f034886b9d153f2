"""Datasets: anything with a length and rows by index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from slalom.core.ops.reductions import GATHER
from slalom.core.tensor import Tensor, apply, as_tensor
from slalom.errors import DataError


class Dataset:
    """Rows by index: ``__getitem__`` and ``__len__``."""

    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} needs a __getitem__")

    def __class_getitem__(cls, item: Any) -> type[Dataset]:
        return cls


class TensorDataset(Dataset):
    """Tensors with equal first sizes; row i is ``(t[i] for t in tensors)``."""

    def __init__(self, *tensors: Any) -> None:
        self.tensors = tuple(as_tensor(t) for t in tensors)
        sizes = [t.shape[0] if t.ndim else None for t in self.tensors]
        if not sizes or None in sizes or len(set(sizes)) > 1:
            raise DataError("TensorDataset", got=f"first sizes {sizes}", needed="one or more tensors, equally long")

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(t[index] for t in self.tensors)

    def __len__(self) -> int:
        return len(self.tensors[0])


class Subset(Dataset):
    """Chosen rows of a dataset."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index]]

    def __len__(self) -> int:
        return len(self.indices)


def in_memory(dataset: Any, indices: np.ndarray[Any, Any]) -> tuple[Tensor, ...] | None:
    """The batch by one gather a tensor, where the rows are those of tensors."""
    kind = type(dataset).__getitem__
    if kind is TensorDataset.__getitem__:
        index = Tensor._of(indices)
        return tuple(apply(GATHER, t, index) for t in dataset.tensors)
    if kind is Subset.__getitem__:
        return in_memory(dataset.dataset, np.asarray(dataset.indices)[indices])
    return None

"""DataLoader: batches of a dataset, in a new order at each pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from slalom.core import kernels
from slalom.core.functional.shaping import stack
from slalom.core.random import Generator, default_generator
from slalom.core.tensor import Tensor, as_tensor
from slalom.data.dataset import in_memory


def default_collate(batch: list[Any]) -> Any:
    """One batch of a list of rows."""
    first = batch[0]
    if isinstance(first, Tensor):
        return stack(batch)
    if isinstance(first, (np.ndarray, np.generic)):
        return as_tensor(np.stack(batch))
    if isinstance(first, float):
        return Tensor(np.array(batch, np.float64))
    if isinstance(first, int):
        return Tensor(np.array(batch))
    if isinstance(first, dict):
        return {key: default_collate([row[key] for row in batch]) for key in first}
    if isinstance(first, (tuple, list)):
        return type(first)(default_collate(list(column)) for column in zip(*batch, strict=True))
    return batch


class DataLoader:
    """Batches of a dataset."""

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        drop_last: bool = False,
        generator: Generator | None = None,
    ) -> None:
        self.dataset, self.batch_size, self.shuffle = dataset, batch_size, shuffle
        self.collate_fn, self.drop_last, self.generator = collate_fn, drop_last, generator
        self.epoch = 0

    def __len__(self) -> int:
        n = len(self.dataset)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        n = len(self.dataset)
        seed = (self.generator or default_generator).initial_seed()
        order = kernels.permutation(seed, self.epoch, n) if self.shuffle else np.arange(n)
        self.epoch += 1
        for i in range(len(self)):
            rows = order[i * self.batch_size : (i + 1) * self.batch_size]
            batch = in_memory(self.dataset, rows) if self.collate_fn is None else None
            yield (
                batch
                if batch is not None
                else (self.collate_fn or default_collate)([self.dataset[int(j)] for j in rows])
            )

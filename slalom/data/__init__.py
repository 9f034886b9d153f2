"""Datasets and loaders, with PyTorch's names and semantics."""

from __future__ import annotations

from slalom.data.dataset import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset, random_split
from slalom.data.loader import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    Sampler,
    SequentialSampler,
    batch_slices,
    default_collate,
)

__all__ = [
    "BatchSampler",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "IterableDataset",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "Subset",
    "TensorDataset",
    "batch_slices",
    "default_collate",
    "random_split",
]

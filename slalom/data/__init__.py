"""Datasets and loaders with PyTorch's names and semantics; augmentation, text, images, toy problems."""

from __future__ import annotations

from slalom.data import augment, text, toy
from slalom.data.dataset import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset, random_split
from slalom.data.images import as_images, read_idx
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
    "as_images",
    "augment",
    "batch_slices",
    "default_collate",
    "random_split",
    "read_idx",
    "text",
    "toy",
]

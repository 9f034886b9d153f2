"""Datasets and loaders."""

from __future__ import annotations

from slalom.data.dataset import Dataset, Subset, TensorDataset
from slalom.data.loader import DataLoader, default_collate

__all__ = ["DataLoader", "Dataset", "Subset", "TensorDataset", "default_collate"]

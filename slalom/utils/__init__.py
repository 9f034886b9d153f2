"""PyTorch's place for the data tools."""

from __future__ import annotations

from slalom.utils import data

__all__ = ["data"]

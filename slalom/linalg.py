"""PyTorch's ``torch.linalg`` names, as far as lectures on training need them."""

from __future__ import annotations

from slalom.core.functional.linalg import inv, solve

__all__ = ["inv", "solve"]

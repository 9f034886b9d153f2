"""Losses as Modules, made from the functions in ``core/functional/losses/``.

Each has a ``reduction``: "mean" over all elements (default), "sum", or "none" for each element's own.

Note: options after ``weight`` are keyword-only: PyTorch has two deprecated ones between them.
"""

from __future__ import annotations

from slalom.core.functional.losses import LOSSES
from slalom.nn.generated import modules
from slalom.nn.loss import Loss

globals().update(modules(LOSSES, __name__, Loss))
__all__ = list(LOSSES)

"""One file for each family of rules."""

from __future__ import annotations

from slalom.optim.algorithms.adam import Adam, AdamW
from slalom.optim.algorithms.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW"]

"""Optimizers, schedules, and PyTorch's names for them."""

from __future__ import annotations

from slalom.optim import lr_scheduler, schedules
from slalom.optim.algorithms import SGD, Adam, AdamW
from slalom.optim.optimizer import Optimizer

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "lr_scheduler", "schedules"]

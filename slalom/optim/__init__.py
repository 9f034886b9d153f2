"""Optimizers, schedules, and PyTorch's names for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slalom.optim import algorithms, lr_scheduler, schedules
from slalom.optim.algorithms import *
from slalom.optim.lbfgs import LBFGS
from slalom.optim.lookahead import Lookahead
from slalom.optim.optimizer import Optimizer

if not TYPE_CHECKING:  # mypy would take the literal part for all there is
    __all__ = ["LBFGS", "Lookahead", "Optimizer", "lr_scheduler", "schedules"]
    __all__ += algorithms.__all__

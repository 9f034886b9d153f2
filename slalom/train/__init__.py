"""Training: the one loop, and all that is measured, watched, kept and resumed along it."""

from slalom.train.history import History
from slalom.train.trainer import Trainer, load, save

__all__ = ["History", "Trainer", "load", "save"]

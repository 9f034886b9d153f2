"""Training: the one loop, and all that is measured, watched, kept and resumed along it."""

from __future__ import annotations

from slalom.train import swa_utils
from slalom.train.callbacks import Callback, EarlyStopping
from slalom.train.checkpoint import Checkpoint
from slalom.train.history import History
from slalom.train.lr_finder import RateCurve
from slalom.train.metrics import METRICS, Metric
from slalom.train.model_file import load, save, weights_sha256
from slalom.train.summary import Summary, summary
from slalom.train.trainer import Trainer

__all__ = [
    "METRICS", "Callback", "Checkpoint", "EarlyStopping", "History", "Metric", "RateCurve", "Summary", "Trainer",
    "load", "save", "summary", "swa_utils", "weights_sha256",
]  # fmt: skip

"""Metrics: sums over rows, gathered batch by batch; and a few that need all rows at once."""

from __future__ import annotations

from slalom.train.metrics.metric import Columns, Metric
from slalom.train.metrics.names import METRICS, is_score, resolve
from slalom.train.metrics.reading import Reading, aligned

__all__ = ["METRICS", "Columns", "Metric", "Reading", "aligned", "is_score", "resolve"]

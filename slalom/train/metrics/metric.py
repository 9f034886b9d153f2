"""Metric: a number for a whole set of rows, gathered batch by batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slalom.core.dtype import float64
from slalom.core.functional.shaping import cat
from slalom.core.primitive import Array
from slalom.core.tensor import Tensor
from slalom.errors import ShapeError

__all__ = ["Columns", "Finish", "Metric", "Rows"]

Rows = Callable[[Tensor, Tensor], Sequence[Tensor]]
Finish = Callable[..., float]


@dataclass(frozen=True)
class Metric:
    """``rows(output, target)`` gives tensors of shape (B,) or (B, K); ``finish(*means)`` their means' meaning.

    Most metrics are functions of means over the rows: batches give Σ w·r and Σ w, which add up. With ``whole=True`` the
    rows themselves are kept instead, of all batches: ``finish(*columns, weight)`` gets them as arrays, and the weights
    of the rows or None. That is for metrics such as the area under the ROC curve, which compare every row with every
    other. They are measured by ``evaluate`` and in validation only, so that training need not stop for them.

    Shapes: output (B, C) scores, (B, 1) or (B,) of one score or value; target (B,) class numbers or values, or the
    shape of the output. ``finish`` gets floats for (B,) and float64 arrays (K,) for (B, K). With ``whole`` the tensors
    may have any shape (n, …) with n a multiple of B: m results in a row for each row.

    >>> within = Metric("within_1", lambda output, target: [((output - target).abs() <= 1).float()])
    >>> median = Metric("median", lambda output, target: [output - target], lambda e, w: np.median(e), whole=True)
    """

    name: str
    rows: Rows
    finish: Finish = float
    whole: bool = False

    def sums(self, output: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, tuple[int, ...]]:
        """Σ w·r for each r, one after the other in a float64 vector, and how long each is (−1: a scalar)."""
        parts, sizes = [], []
        for row in self.rows(output, target):
            if row.ndim not in (1, 2) or row.shape[0] != target.shape[0]:
                raise self._wrong(row, f"shape ({target.shape[0]},) or ({target.shape[0]}, K)")
            row = row.to(float64)
            if weight is not None:
                row = row * (weight.to(float64) if row.ndim == 1 else weight.to(float64).reshape(-1, 1))
            parts.append(row.sum(dim=0).reshape(-1))
            sizes.append(-1 if row.ndim == 1 else row.shape[1])
        return cat(parts), tuple(sizes)

    def value(self, sums: Array, sizes: tuple[int, ...], total: float) -> float:
        """The metric for sums over rows of total weight ``total``; NaN for no rows."""
        if not total:
            return math.nan
        means: list[Any] = []
        at = 0
        for size in sizes:
            means.append(float(sums[at]) / total if size < 0 else sums[at : at + size] / total)
            at += abs(size)
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(self.finish(*means))

    def columns(self, output: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        """What a metric of whole columns keeps of a batch."""
        found = tuple(self.rows(output, target))
        rows = target.shape[0]
        for column in found:
            if not column.ndim or column.shape[0] != found[0].shape[0] or column.shape[0] % max(rows, 1):
                raise self._wrong(column, f"shape (m·{rows}, …), the same m for all")
        return found

    def _wrong(self, row: Tensor, needed: str) -> ShapeError:
        what = f"metric {self.name!r}: what it gives for the rows"
        return ShapeError(what, got=f"shape {row.shape}", needed=needed)


class Columns:
    """What the metrics of whole columns keep of the batches so far."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics = tuple(metrics)
        self._kept: dict[str, list[tuple[Array, ...]]] = {metric.name: [] for metric in metrics}
        self._weights: list[Array | None] = []

    def add(self, found: Sequence[Sequence[Tensor]], weight: Tensor | None) -> None:
        """Keep those of a batch: for each metric its columns. They are copied: a record's outputs are written again."""
        for metric, columns in zip(self.metrics, found, strict=True):
            self._kept[metric.name].append(tuple(column.numpy().copy() for column in columns))
        self._weights.append(None if weight is None else weight.numpy().copy())

    def values(self) -> dict[str, float]:
        """The metrics over all batches."""
        return {metric.name: self._value(metric) for metric in self.metrics}

    def _value(self, metric: Metric) -> float:
        kept = self._kept[metric.name]
        if not kept:
            return math.nan
        whole = [np.concatenate(parts) for parts in zip(*kept, strict=True)]
        weights = [
            np.repeat(weight.astype(np.float64), len(columns[0]) // max(len(weight), 1))
            for weight, columns in zip(self._weights, kept, strict=True)
            if weight is not None
        ]
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(metric.finish(*whole, np.concatenate(weights) if weights else None))

"""Metrics of the order of scores: the areas under the ROC curve and under the curve of precision over recall.

They compare every row with every other, so they keep all scores: exact values, no histograms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from slalom.core.primitive import Array
from slalom.core.tensor import Tensor
from slalom.train.metrics.metric import Metric
from slalom.train.metrics.reading import Reading

__all__ = ["auc", "average_precision"]

Area = Callable[[Array, Array], float]
"""Of the weights of true and false positives, summed from the largest score down to each threshold."""


def auc(reading: Reading) -> Metric:
    """The area under the ROC curve: how often a member of the class scores higher than another row, ties half.

    NaN where all rows are of one class. Several classes: the mean over those that are there, each against the rest.
    """

    def area(hits: Array, alarms: Array) -> float:
        if not (hits[-1] and alarms[-1]):
            return math.nan
        x, y = (np.concatenate([[0.0], sums]) / sums[-1] for sums in (alarms, hits))
        return float(np.sum((x[1:] - x[:-1]) * (y[1:] + y[:-1])) / 2)

    return _of_order("auc", reading, area)


def average_precision(reading: Reading) -> Metric:
    """Σ (Rᵢ − Rᵢ₋₁)·Pᵢ, precision and recall at each threshold: the area under their curve, without interpolation.

    0 where no row is of the class. Several classes: the mean over those that are there, each against the rest.
    """

    def area(hits: Array, alarms: Array) -> float:
        if not hits[-1]:
            return 0.0
        return float(np.sum(np.diff(hits, prepend=0.0) * (hits / (hits + alarms))) / hits[-1])

    return _of_order("average_precision", reading, area)


def _of_order(name: str, reading: Reading, area: Area) -> Metric:
    def rows(output: Tensor, target: Tensor) -> list[Tensor]:
        """The scores (n, C), class numbers (n, 1) or truth values of labels (n, K), and what counts, like those."""
        answers = reading.answers(name, output, target)
        true = answers.true if answers.labels else answers.true.unsqueeze(1)
        kept = true == true if answers.kept is None else answers.kept.reshape(true.shape)
        parts = (answers.scores, true, kept)
        return [t if t.ndim == 2 else t.movedim(1, -1).reshape(-1, t.shape[1]) for t in parts]

    def finish(scores: Array, true: Array, kept: Array, weight: Array | None) -> float:
        weight = np.ones(len(scores)) if weight is None else weight
        if true.shape[1] == scores.shape[1]:  # labels
            questions: Any = ((scores[:, k], true[:, k] == 1, kept[:, k]) for k in range(scores.shape[1]))
        elif scores.shape[1] == 2:
            # The difference orders rows as the probability does, but does not round to 1.
            margin = scores.astype(np.float64)
            questions = [(margin[:, 1] - margin[:, 0], true[:, 0] == 1, kept[:, 0])]
        else:
            p = _comparable(scores.astype(np.float64), reading.scale)
            there = np.unique(true[kept & (weight > 0)[:, None]])
            questions = ((p[:, k], true[:, 0] == k, kept[:, 0]) for k in there if 0 <= k < scores.shape[1])
        areas = [_area(score, member, np.where(counts, weight, 0.0), area) for score, member, counts in questions]
        return float(np.mean(areas)) if areas else math.nan

    return Metric(name, rows, finish, whole=True)


def _comparable(scores: Array, scale: str) -> Array:
    """Scores of one class that may be compared between rows: probabilities."""
    if scale == "probabilities":
        return scores
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def _area(score: Array, member: Array, weight: Array, area: Area) -> float:
    counts = weight > 0
    score, member, weight = score[counts], member[counts], weight[counts]
    if np.isnan(score).any() or not len(score):
        return math.nan
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)  # the last of each run of equal scores
    hits, alarms = (np.cumsum(np.where(side, weight, 0.0)[order])[ends] for side in (member, ~member))
    return area(hits, alarms)

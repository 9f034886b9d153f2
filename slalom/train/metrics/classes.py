"""Metrics of decisions: accuracy, precision, recall, F, Matthews' correlation, top k."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from slalom.core.dtype import float64
from slalom.core.functional.arithmetic import where
from slalom.core.functional.indexing import one_hot
from slalom.core.functional.reduce import topk
from slalom.core.primitive import Array
from slalom.core.tensor import Tensor
from slalom.errors import ShapeError
from slalom.train.metrics.metric import Finish, Metric, Rows
from slalom.train.metrics.reading import Answers, Reading, over, per_row

__all__ = ["AVERAGES", "accuracy", "balanced_accuracy", "f_beta", "mcc", "precision", "recall", "top"]

AVERAGES = ("binary", "macro", "micro", "weighted")
"""Over classes: of class 1 alone, the plain mean, of all decisions together, the mean weighted by the true members."""


def accuracy(reading: Reading) -> Metric:
    """The share of right decisions."""

    def rows(output: Tensor, target: Tensor) -> list[Tensor]:
        answers = reading.answers("accuracy", output, target)
        return per_row(reading.guesses(answers) == answers.true, answers.kept)

    return Metric("accuracy", rows, over)


def top(name: str, k: int, reading: Reading) -> Metric:
    """The share of rows whose true class is among the k with the largest scores."""

    def rows(output: Tensor, target: Tensor) -> list[Tensor]:
        answers = reading.answers(name, output, target)
        if answers.labels or output.shape[1] < k:
            raise ShapeError(f"metric {name!r}", got=f"output {output.shape}", needed=f"(B, C) with C ≥ {k}")
        best = topk(answers.scores.movedim(1, -1), k).indices  # (B, …, k)
        return per_row((best == answers.true.unsqueeze(-1)).any(dim=-1), answers.kept)

    return Metric(name, rows, over)


# --- counts of each class -----------------------------------------------------------------------------------------
def _counts(name: str, reading: Reading, needs_classes: str = "") -> Rows:
    """Right guesses, guesses and true members of each class, as rows (B, C); of several labels, of each label, and as a
    fourth part how many decisions there were.
    """

    def rows(output: Tensor, target: Tensor) -> list[Tensor]:
        answers = reading.answers(name, output, target)
        guesses = reading.guesses(answers)
        several = answers.labels and output.ndim > 1 and output.shape[1] > 1
        if (several and needs_classes) or (needs_classes == "two" and not answers.labels and output.shape[1] != 2):
            needed = "two classes: (B, 2), (B, 1) or (B,)" if needs_classes == "two" else "classes, not several labels"
            raise ShapeError(f"metric {name!r}", got=f"output {output.shape}", needed=needed)
        if several:
            return _of_labels(answers, guesses)
        kinds = 2 if answers.labels else output.shape[1]
        true, guessed = (_indicator(t, kinds, answers.kept) for t in (answers.true, guesses))
        return [_over_rest(t) for t in (true * guessed, guessed, true)]

    return rows


def _indicator(classes: Tensor, kinds: int, kept: Tensor | None) -> Tensor:
    """(B, …) class numbers → (B, …, C) with 1 at each number, and nothing at positions that do not count."""
    found = one_hot(classes, kinds)
    return found if kept is None else where(kept.unsqueeze(-1), found, 0)


def _over_rest(counts: Tensor) -> Tensor:
    """(B, …, C) → (B, C)."""
    counts = counts.to(float64)
    return counts if counts.ndim == 2 else counts.sum(dim=tuple(range(1, counts.ndim - 1)))


def _of_labels(answers: Answers, guesses: Tensor) -> list[Tensor]:
    ones = answers.true * 0 + 1 if answers.kept is None else answers.kept.long()
    true, guessed = answers.true * ones, guesses * ones
    return [_over_rest(t.movedim(1, -1)) for t in (true * guessed, guessed, true, ones)]


def _averaged(average: str, ratio: Callable[[Any, Any, Any], Any]) -> Finish:
    """A ratio for each class as one number; a ratio without cases counts 0, as in scikit-learn.

    Without an average: that of class 1 where there are two classes, else the plain mean over the classes that occur.
    """

    def finish(hits: Array, guessed: Array, true: Array, decisions: Array | None = None) -> float:
        if not (true if decisions is None else decisions).any():
            return math.nan
        if average == "micro":
            return float(np.nan_to_num(np.float64(ratio(hits.sum(), guessed.sum(), true.sum())), nan=0.0))
        values = np.nan_to_num(ratio(hits, guessed, true), nan=0.0)
        if average == "binary" or (not average and len(values) == 2 and decisions is None):
            return float(values[1])
        if average == "weighted":
            return float(np.average(values, weights=true)) if true.any() else 0.0
        occurring = (true > 0) | (guessed > 0) if decisions is None else decisions > 0
        return float(values[occurring].mean())

    return finish


def _ratio(name: str, average: str, reading: Reading, ratio: Callable[[Any, Any, Any], Any]) -> Metric:
    full = f"{name}_{average}" if average else name
    rows = _counts(full, reading, "two" if average == "binary" else "")
    return Metric(full, rows, _averaged(average, ratio))


def precision(name: str, average: str, reading: Reading) -> Metric:
    """Right guesses of a class / guesses of it."""
    return _ratio(name, average, reading, lambda hits, guessed, true: hits / guessed)


def recall(name: str, average: str, reading: Reading) -> Metric:
    """Right guesses of a class / true members of it."""
    return _ratio(name, average, reading, lambda hits, guessed, true: hits / true)


def f_beta(name: str, average: str, reading: Reading) -> Metric:
    """(1 + β²)·hits / (β²·true + guessed): the harmonic mean of precision and recall, recall counting β² times."""
    square = float(name[1:]) ** 2
    return _ratio(name, average, reading, lambda hits, guessed, true: (1 + square) * hits / (square * true + guessed))


def balanced_accuracy(reading: Reading) -> Metric:
    """The mean recall of the classes that are there."""

    def finish(hits: Array, guessed: Array, true: Array) -> float:
        present = true > 0
        return float((hits[present] / true[present]).mean()) if present.any() else math.nan

    return Metric("balanced_accuracy", _counts("balanced_accuracy", reading, "any"), finish)


def mcc(reading: Reading) -> Metric:
    """Matthews' correlation of guesses and truth, for any number of classes.

    (c·s − p·t) / √((s² − p·p)·(s² − t·t)) with c right ones of s, p and t how often each class was guessed and true;
    0 where either is always the same.

    Source: Gorodkin (2004), "Comparing two K-category assignments by a K-category correlation coefficient".
    """

    def finish(hits: Array, guessed: Array, true: Array) -> float:
        total = true.sum()
        spreads = [1 - counts @ counts / total**2 for counts in (guessed, true)]
        if not total or min(spreads) < 1e-14:  # the rounding of sums
            return 0.0 if total else math.nan
        return float((hits.sum() / total - guessed @ true / total**2) / math.sqrt(math.prod(spreads)))

    return Metric("mcc", _counts("mcc", reading, "any"), finish)

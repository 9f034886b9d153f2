"""Metrics of probabilities: log loss, perplexity, Brier score, calibration error."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from slalom.core.dtype import float64
from slalom.core.functional.arithmetic import where
from slalom.core.functional.indexing import gather, one_hot
from slalom.core.primitive import Array
from slalom.core.tensor import Tensor
from slalom.train.metrics.metric import Metric, Rows
from slalom.train.metrics.reading import Answers, Reading, over, per_row

__all__ = ["brier", "calibration_error", "log_loss", "perplexity"]

BINS: Final = 15
"""Of the calibration error, as in the paper's experiments."""


def _chosen(values: Tensor, true: Tensor) -> Tensor:
    """Along axis 1, the value at each true class: (B, C, …), (B, …) → (B, …)."""
    return gather(values, 1, true.unsqueeze(1)).squeeze(1)


def _log_loss_rows(name: str, reading: Reading) -> Rows:
    def rows(output: Tensor, target: Tensor) -> list[Tensor]:
        answers = reading.answers(name, output, target)
        return per_row(-_chosen(reading.log_probabilities(answers), answers.true), answers.kept)

    return rows


def log_loss(reading: Reading) -> Metric:
    """The mean of −ln p of what is true, in nats; of labels, over all of them."""
    return Metric("log_loss", _log_loss_rows("log_loss", reading), over)


def perplexity(reading: Reading) -> Metric:
    """exp(log loss): as uncertain as a choice among so many equally likely classes."""
    return Metric("perplexity", _log_loss_rows("perplexity", reading), lambda *means: _exp(over(*means)))


def _exp(x: float) -> float:
    return math.inf if x > 709 else math.exp(x)


def brier(reading: Reading) -> Metric:
    """The mean of Σₖ (pₖ − yₖ)² over the classes, halved where there are two: (p − y)² of class 1; of labels, over all.

    Source: Brier (1950), "Verification of forecasts expressed in terms of probability", eq. 2.
    """

    def rows(output: Tensor, target: Tensor) -> list[Tensor]:
        answers = reading.answers("brier", output, target)
        p = reading.log_probabilities(answers).exp()  # (B, C, …)
        y = one_hot(answers.true, p.shape[1]).movedim(-1, 1)
        return per_row(((p - y) ** 2).sum(dim=1) / (2 if p.shape[1] == 2 else 1), answers.kept)

    return Metric("brier", rows, over)


def calibration_error(reading: Reading) -> Metric:
    """The expected calibration error: by how much confidence and accuracy differ, in 15 bins of the confidence.

    Σᵦ nᵦ/n·|accuracyᵦ − confidenceᵦ| with the confidence the probability of the class that is guessed; bin b of M holds
    confidences in ((b − 1)/M, b/M]

    Source: Guo, Pleiss, Sun, Weinberger (2017), "On calibration of modern neural networks", eq. 5.
    """

    def rows(output: Tensor, target: Tensor) -> list[Tensor]:
        answers: Answers = reading.answers("ece", output, target)
        p = reading.log_probabilities(answers).to(float64).exp()
        confidence, guess = p.max(dim=1).values, p.argmax(dim=1)
        bins = one_hot(((confidence * BINS).ceil() - 1).clamp(0, BINS - 1).long(), BINS)  # (B, …, M)
        if answers.kept is not None:
            bins = where(answers.kept.unsqueeze(-1), bins, 0)
        right = (guess == answers.true).to(float64)
        parts = [bins * (right - confidence).unsqueeze(-1), bins.to(float64)]
        return [t if t.ndim == 2 else t.sum(dim=tuple(range(1, t.ndim - 1))) for t in parts]

    def finish(gaps: Array, counts: Array) -> float:
        total = counts.sum()
        return float(np.abs(gaps).sum() / total) if total else math.nan

    return Metric("ece", rows, finish)

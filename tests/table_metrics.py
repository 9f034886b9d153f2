"""One row for each built-in metric and kind of output: what scikit-learn says of the same rows. Data only.

``reference(scores, true, weight)``, all for rows that count and weigh something: scores are logits (n, C) of "classes",
(n,) of a "binary" question, (n, K) of "labels", or "values" (n,); where scikit-learn has nothing, NumPy's few lines.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from sklearn import metrics as sk

Array = np.ndarray[Any, Any]


class Row(NamedTuple):
    name: str
    kind: str
    reference: Callable[[Array, Array, Array], float]


def softmax(scores: Array) -> Array:
    raised = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def sigmoid(scores: Array) -> Array:
    return 1 / (1 + np.exp(-scores.astype(np.float64)))


def decided(function: Callable[..., float], **options: Any) -> Callable[[Array, Array, Array], float]:
    """A function of guesses, for scores of classes or of yes-or-no questions."""

    def reference(scores: Array, true: Array, weight: Array) -> float:
        classes = scores.ndim == 2 and true.ndim == 1
        guess = scores.argmax(1) if classes else (scores > 0).astype(int)
        return function(true, guess, sample_weight=weight, **options)

    return reference


def ratios(kind: str, *averages: str) -> list[Row]:
    """Precision, recall and F with several averages, "" being the one that is chosen where none is named."""
    functions = (
        ("precision", sk.precision_score, {}),
        ("recall", sk.recall_score, {}),
        ("f1", sk.f1_score, {}),
        ("f2", sk.fbeta_score, {"beta": 2}),
        ("f0.5", sk.fbeta_score, {"beta": 0.5}),
    )
    return [
        Row(
            f"{name}_{average}" if average else name,
            kind,
            averaged(functools.partial(function, zero_division=0, **options), average),
        )
        for name, function, options in functions
        for average in averages
    ]


def averaged(function: Callable[..., float], average: str) -> Callable[[Array, Array, Array], float]:
    def reference(scores: Array, true: Array, weight: Array) -> float:
        two = scores.ndim == 1 or (true.ndim == 1 and scores.shape[1] == 2)
        return decided(function, average=average or ("binary" if two else "macro"))(scores, true, weight)

    return reference


def one_by_one(function: Callable[..., float]) -> Callable[[Array, Array, Array], float]:
    """The mean over the classes that are there, each against the rest; of labels, over all."""

    def reference(scores: Array, true: Array, weight: Array) -> float:
        if true.ndim == 2:
            pairs = [(scores[:, k], true[:, k]) for k in range(true.shape[1])]
        elif scores.shape[1] == 2:
            pairs = [(scores[:, 1] - scores[:, 0], true)]
        else:
            pairs = [(softmax(scores)[:, k], (true == k).astype(int)) for k in np.unique(true)]
        return float(np.mean([function(member, score, sample_weight=weight) for score, member in pairs]))

    return reference


def first_k(k: int) -> Callable[[Array, Array, Array], float]:
    def reference(scores: Array, true: Array, weight: Array) -> float:
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return float(np.average((best == true[:, None]).any(1), weights=weight))

    return reference


def log_loss(scores: Array, true: Array, weight: Array) -> float:
    return sk.log_loss(true, softmax(scores), labels=range(scores.shape[1]), sample_weight=weight)


def log_loss_binary(scores: Array, true: Array, weight: Array) -> float:
    return sk.log_loss(true, sigmoid(scores), labels=[0, 1], sample_weight=weight)


def log_loss_labels(scores: Array, true: Array, weight: Array) -> float:
    columns = [log_loss_binary(scores[:, k], true[:, k], weight) for k in range(true.shape[1])]
    return float(np.mean(columns))


def brier(scores: Array, true: Array, weight: Array) -> float:
    return sk.brier_score_loss(true, softmax(scores), labels=list(range(scores.shape[1])), sample_weight=weight)


def brier_binary(scores: Array, true: Array, weight: Array) -> float:
    return sk.brier_score_loss(true, sigmoid(scores), labels=[0, 1], pos_label=1, sample_weight=weight)


def calibration(p: Array, right: Array, weight: Array) -> float:
    total = 0.0
    for low, high in zip(np.arange(15) / 15, np.arange(1, 16) / 15, strict=True):
        inside = (p > low) & (p <= high)
        if inside.any():
            total += abs(np.sum(weight[inside] * (right[inside] - p[inside])))
    return total / weight.sum()


def ece(scores: Array, true: Array, weight: Array) -> float:
    p = softmax(scores)
    return calibration(p.max(1), p.argmax(1) == true, weight)


def ece_binary(scores: Array, true: Array, weight: Array) -> float:
    return ece(np.stack([0 * scores, scores], axis=1), true, weight)


ROWS = (
    Row("accuracy", "classes", decided(sk.accuracy_score)),
    Row("balanced_accuracy", "classes", decided(sk.balanced_accuracy_score)),
    Row("mcc", "classes", decided(sk.matthews_corrcoef)),
    *ratios("classes", "", "macro", "micro", "weighted"),
    Row("top1", "classes", first_k(1)),
    Row("top2", "classes", first_k(2)),
    Row("auc", "classes", one_by_one(sk.roc_auc_score)),
    Row("average_precision", "classes", one_by_one(sk.average_precision_score)),
    Row("log_loss", "classes", log_loss),
    Row("perplexity", "classes", lambda *given: math.exp(log_loss(*given))),
    Row("brier", "classes", brier),
    Row("ece", "classes", ece),
    Row("accuracy", "binary", decided(sk.accuracy_score)),
    Row("balanced_accuracy", "binary", decided(sk.balanced_accuracy_score)),
    Row("mcc", "binary", decided(sk.matthews_corrcoef)),
    *ratios("binary", "", "binary", "macro", "micro", "weighted"),
    Row("auc", "binary", lambda scores, true, weight: sk.roc_auc_score(true, scores, sample_weight=weight)),
    Row(
        "average_precision",
        "binary",
        lambda scores, true, weight: sk.average_precision_score(true, scores, sample_weight=weight),
    ),
    Row("log_loss", "binary", log_loss_binary),
    Row("perplexity", "binary", lambda *given: math.exp(log_loss_binary(*given))),
    Row("brier", "binary", brier_binary),
    Row("ece", "binary", ece_binary),
    Row(
        "accuracy",
        "labels",
        lambda scores, true, weight: float(np.average(((scores > 0) == true).mean(1), weights=weight)),
    ),
    *ratios("labels", "", "macro", "micro", "weighted"),
    Row("auc", "labels", one_by_one(sk.roc_auc_score)),
    Row("average_precision", "labels", one_by_one(sk.average_precision_score)),
    Row("log_loss", "labels", log_loss_labels),
    Row("mae", "values", lambda out, true, weight: sk.mean_absolute_error(true, out, sample_weight=weight)),
    Row("mse", "values", lambda out, true, weight: sk.mean_squared_error(true, out, sample_weight=weight)),
    Row("rmse", "values", lambda out, true, weight: sk.root_mean_squared_error(true, out, sample_weight=weight)),
    Row("mape", "values", lambda out, true, weight: sk.mean_absolute_percentage_error(true, out, sample_weight=weight)),
    Row("r2", "values", lambda out, true, weight: sk.r2_score(true, out, sample_weight=weight)),
)
IDS = [f"{row.name}-{row.kind}" for row in ROWS]

"""Scores of predictions, in plain NumPy: y are class codes (n,) or values (n,), probabilities are (n, classes)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slalom.errors import ShapeError
from slalom.tabular.schema import Task

__all__ = ["accuracy", "balanced_accuracy", "lead", "log_loss", "mae", "r2", "rmse", "roc_auc", "score"]

Array = NDArray[Any]


def score(task: Task, y: Array, prediction: Array) -> dict[str, float]:
    """All scores of a task by name; one that the rows can't define (r2 of equal targets) is left out.

    Shapes: classification: y (n,) codes, prediction (n, C) probabilities; regression: y (n,), prediction (n,).
    Raises:
        ShapeError: the shapes do not fit.

    >>> score("regression", np.array([1.0, 3.0]), np.array([1.0, 2.0]))["mae"]
    0.5
    """
    dims, needed = (2, "(n,) and (n, C)") if task == "classification" else (1, "(n,) and (n,)")
    if y.ndim != 1 or prediction.ndim != dims or len(y) != len(prediction) or not len(y):
        raise ShapeError(f"score of a {task}", got=f"{y.shape} and {prediction.shape}", needed=f"{needed}, n ≥ 1")
    if task == "regression":
        scores = {"rmse": rmse(y, prediction), "mae": mae(y, prediction)}
        return scores | {"r2": r2(y, prediction)} if y.min() < y.max() else scores
    guess = prediction.argmax(axis=1)
    scores = {
        "accuracy": accuracy(y, guess),
        "balanced_accuracy": balanced_accuracy(y, guess),
        "log_loss": log_loss(y, prediction),
    }
    if prediction.shape[1] == 2 and y.min() < y.max():
        scores["roc_auc"] = roc_auc(y, prediction[:, 1])
    return scores


def accuracy(y: Array, guess: Array) -> float:
    """The share of rows whose class is guessed right."""
    return float(np.mean(y == guess))


def balanced_accuracy(y: Array, guess: Array) -> float:
    """The mean over the classes present in y of the share of their rows that is guessed right."""
    return float(np.mean([np.mean(guess[y == code] == code) for code in np.unique(y)]))


def log_loss(y: Array, probabilities: Array) -> float:
    """−mean ln p of the true class, in nats.

    Note: as in scikit-learn, p is kept ε of its dtype away from 0 and 1, so that one sure mistake is not infinite.
    """
    eps = float(np.finfo(probabilities.dtype).eps)
    p = probabilities[np.arange(len(y)), y].astype(np.float64)
    return float(-np.mean(np.log(np.clip(p, eps, 1 - eps))))


def roc_auc(y: Array, margin: Array) -> float:
    """The probability that a row of class 1 has a larger margin than a row of class 0, ties counting half.

    AUC = (Σ ranks of class 1 − n₁(n₁+1)/2) / (n₀n₁), with mean ranks for ties.
    Source: Hanley & McNeil 1982, "The meaning and use of the area under a ROC curve".
    """
    _, group, counts = np.unique(margin, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[group]
    ones = y == 1
    n1, n0 = int(ones.sum()), int((~ones).sum())
    return float((ranks[ones].sum() - n1 * (n1 + 1) / 2) / (n0 * n1))


def rmse(y: Array, prediction: Array) -> float:
    """√mean (y − prediction)², in the target's unit."""
    return float(np.sqrt(np.mean((np.asarray(y, np.float64) - prediction) ** 2)))


def mae(y: Array, prediction: Array) -> float:
    """mean |y − prediction|, in the target's unit."""
    return float(np.mean(np.abs(np.asarray(y, np.float64) - prediction)))


def r2(y: Array, prediction: Array) -> float:
    """1 − Σ(y − prediction)² / Σ(y − ȳ)²: 1 is perfect, 0 as good as always saying the mean."""
    y = np.asarray(y, np.float64)
    return float(1 - np.sum((y - prediction) ** 2) / np.sum((y - y.mean()) ** 2))


def lead(task: Task, y: Array, prediction: Array, other: Array) -> dict[str, float]:
    """How much smaller a prediction's mean error is than another's on the same rows, and that number's standard error.

    With dᵢ = error of the other in row i − error of the prediction: mean = Σdᵢ/n, standard error = √Σdᵢ² / n. An error
    is 0 or 1 (classification) or (y − ŷ)². A lead within two standard errors is what chance alone often gives.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions": the ratio of
        the two is the root of its χ² for classes.
    """
    if task == "classification":
        d = (other.argmax(axis=1) != y) * 1.0 - (prediction.argmax(axis=1) != y)
    else:
        d = (y - other) ** 2 - (y - prediction) ** 2
    return {"mean": float(d.mean()), "standard_error": float(np.sqrt(np.sum(d**2)) / len(d))}

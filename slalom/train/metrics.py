"""Metrics: means over rows, gathered batch by batch.

Every metric here is a function of means over the rows, mean(r) with r computed from one row alone. So a batch gives
the sums Σ w·r and Σ w, sums of batches add up in float64 in the order of the batches, and the value for a whole set
does not depend on how it was cut, up to the rounding of those sums.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slalom.core.dtype import float64
from slalom.core.functional.indexing import one_hot
from slalom.core.functional.reduce import topk
from slalom.core.functional.shaping import cat
from slalom.core.primitive import Array
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError, ShapeError

__all__ = ["METRICS", "Metric", "resolve"]

Rows = Callable[[Tensor, Tensor], Sequence[Tensor]]
Finish = Callable[..., float]


@dataclass(frozen=True)
class Metric:
    """``rows(output, target)`` gives tensors of shape (B,) or (B, K); ``finish(*means)`` their means' meaning.

    Shapes: output (B, C) scores, (B, 1) or (B,) of one score or value; target (B,) class numbers or values, or the
    shape of the output. ``finish`` gets floats for (B,) and float64 arrays (K,) for (B, K).

    >>> within = Metric("within_1", lambda output, target: [((output - target).abs() <= 1).float()])
    """

    name: str
    rows: Rows
    finish: Finish = float

    def sums(self, output: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, tuple[int, ...]]:
        """Σ w·r for each r, one after the other in a float64 vector, and how long each is (−1: a scalar)."""
        parts, sizes = [], []
        for row in self.rows(output, target):
            if row.ndim not in (1, 2) or row.shape[0] != target.shape[0]:
                needed = f"shape ({target.shape[0]},) or ({target.shape[0]}, K)"
                raise ShapeError(
                    f"metric {self.name!r}: what it gives for the rows", got=f"shape {row.shape}", needed=needed
                )
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


# --- classes ------------------------------------------------------------------------------------------------------
def decide(output: Tensor, threshold: float) -> Tensor:
    """The class of each row: the largest of several scores, or whether the one score exceeds the threshold."""
    if output.ndim > 1 and output.shape[1] > 1:
        return output.argmax(dim=1)  # (B, C, …) → (B, …)
    return (output.reshape(output.shape[0], -1) > threshold).long().squeeze(1)


def _classes(output: Tensor, target: Tensor) -> Tensor:
    """The true class numbers: the target's own, or the largest entry of one-hot and soft targets."""
    if output.ndim > 1 and output.shape[1] > 1 and target.shape == output.shape and target.dtype.kind == "f":
        return target.argmax(dim=1)
    return target.reshape(target.shape[0]).long() if target.shape == (target.shape[0], 1) else target.long()


def _accuracy(threshold: float) -> Rows:
    def rows(output: Tensor, target: Tensor) -> list[Tensor]:
        true = _classes(output, target)
        guess = decide(output, threshold)
        if guess.shape != true.shape:
            raise ShapeError(
                "metric 'accuracy'", got=f"classes {guess.shape} and targets {true.shape}", needed="one shape"
            )
        return [_per_row((guess == true).to(float64))]

    return rows


def _counts(threshold: float) -> Rows:
    """True positives, guesses and true members of each class, as rows (B, C)."""

    def rows(output: Tensor, target: Tensor) -> list[Tensor]:
        classes = output.shape[1] if output.ndim > 1 and output.shape[1] > 1 else 2
        true = one_hot(_classes(output, target), classes)
        guess = one_hot(decide(output, threshold), classes)
        return [(guess * true).to(float64), guess.to(float64), true.to(float64)]

    return rows


def _of_classes(ratio: Callable[[Array, Array, Array], Array]) -> Finish:
    """The value for class 1 of two, else the plain mean over the classes that occur."""

    def finish(hits: Array, guessed: Array, true: Array) -> float:
        values = np.nan_to_num(ratio(hits, guessed, true), nan=0.0)
        return float(values[1] if len(values) == 2 else values[(true > 0) | (guessed > 0)].mean())

    return finish


def _balanced(hits: Array, guessed: Array, true: Array) -> float:
    present = true > 0
    return float((hits[present] / true[present]).mean())


def _top(k: int) -> Rows:
    def rows(output: Tensor, target: Tensor) -> list[Tensor]:
        if output.ndim != 2 or output.shape[1] < k:
            raise ShapeError(f"metric 'top{k}'", got=f"output {output.shape}", needed=f"(B, C) with C ≥ {k}")
        best = topk(output, k).indices  # (B, k)
        return [(best == _classes(output, target).reshape(-1, 1)).any(dim=1).to(float64)]

    return rows


# --- values -------------------------------------------------------------------------------------------------------
def aligned(output: Tensor, target: Tensor) -> Tensor:
    """The target in the output's shape where the two differ by axes of size 1 only: (B,) and (B, 1).

    Without this, (B, 1) − (B,) would silently be a (B, B) table.
    """
    if target.shape == output.shape or [n for n in target.shape[1:] if n != 1] != [
        n for n in output.shape[1:] if n != 1
    ]:
        return target
    return target.reshape(output.shape) if target.shape[:1] == output.shape[:1] else target


def _difference(output: Tensor, target: Tensor) -> Tensor:
    target = aligned(output, target)
    if target.shape != output.shape:
        raise ShapeError("metric of values", got=f"output {output.shape} and target {target.shape}", needed="one shape")
    return output.to(float64) - target.to(float64)


def _per_row(values: Tensor) -> Tensor:
    """The mean over everything but the rows: (B, …) → (B,)."""
    return values if values.ndim == 1 else values.reshape(values.shape[0], -1).mean(dim=1)


def _squares(output: Tensor, target: Tensor) -> list[Tensor]:
    difference = _difference(output, target)
    return [_per_row(difference * difference)]


def _r2_rows(output: Tensor, target: Tensor) -> list[Tensor]:
    difference = _difference(output, target)
    true = aligned(output, target).to(float64)
    return [t.reshape(t.shape[0], -1) for t in (difference * difference, true, true * true)]


def _r2(square: Array, mean: Array, mean_square: Array) -> float:
    """1 − Σ(y − ŷ)² / Σ(y − ȳ)², averaged over the outputs; NaN where the targets are all equal."""
    return float(np.mean(1 - square / (mean_square - mean * mean)))


# --- names --------------------------------------------------------------------------------------------------------
def _table(threshold: float) -> dict[str, Metric]:
    counts = _counts(threshold)
    recall = _of_classes(lambda hits, guessed, true: hits / true)
    precision = _of_classes(lambda hits, guessed, true: hits / guessed)
    f1 = _of_classes(lambda hits, guessed, true: 2 * hits / (guessed + true))
    rows = (
        Metric("accuracy", _accuracy(threshold)),
        Metric("balanced_accuracy", counts, _balanced),
        Metric("precision", counts, precision),
        Metric("recall", counts, recall),
        Metric("f1", counts, f1),
        Metric("mae", lambda output, target: [_per_row(_difference(output, target).abs())]),
        Metric("mse", _squares),
        Metric("rmse", _squares, math.sqrt),
        Metric("r2", _r2_rows, _r2),
    )
    return {metric.name: metric for metric in rows}


METRICS = tuple(_table(0.0))
"""The names of the built-in metrics; besides them ``top1``, ``top2``, …

``precision``, ``recall`` and ``f1`` are those of class 1 where there are two classes, else means over the classes;
a ratio without cases counts 0, as in scikit-learn. ``balanced_accuracy`` is the mean recall of the classes present.
"""


def resolve(metrics: Any, threshold: float = 0.0) -> tuple[Metric, ...]:
    """Metrics of names, Metric objects, functions, or a dict of names and functions.

    A function gets (output, target) and returns a scalar, the mean over the batch, or one value a row. ``threshold``:
    where one score means class 1 (0 for logits, ½ for probabilities).

    Raises: ConfigError for an unknown name, for one given twice, and for what is no metric.
    """
    if isinstance(metrics, (str, Metric)) or callable(metrics):
        metrics = [metrics]
    given: Iterable[Any] = metrics.items() if isinstance(metrics, Mapping) else (metrics or ())
    table, found = _table(threshold), {}
    for item in given:
        metric = _resolve_one(item, table)
        if metric.name in found or metric.name == "loss":
            raise ConfigError(
                "metrics", got=f"{metric.name!r} twice" if metric.name in found else "'loss'", needed="other names"
            )
        found[metric.name] = metric
    return tuple(found.values())


def _resolve_one(item: Any, table: Mapping[str, Metric]) -> Metric:
    if isinstance(item, Metric):
        return item
    if isinstance(item, str):
        match = re.fullmatch(r"top([1-9]\d*)", item)
        if match:
            return Metric(item, _top(int(match[1])))
        if item in table:
            return table[item]
        raise ConfigError(
            "metric", got=repr(item), needed=f"{', '.join(table)}, top<k>, or a function (output, target)"
        )
    name, function = item if isinstance(item, tuple) else (getattr(item, "__name__", type(item).__name__), item)
    if not callable(function):
        raise ConfigError("metric", got=repr(item), needed="a name or a function (output, target)")
    return Metric(name, _mean_of(name, function))


def _mean_of(name: str, function: Callable[[Tensor, Tensor], Any]) -> Rows:
    def rows(output: Tensor, target: Tensor) -> list[Tensor]:
        value = function(output, target)
        value = value if isinstance(value, Tensor) else Tensor(np.asarray(value, np.float64))
        if value.shape == ():
            value = value.expand(target.shape[0])
        return [_per_row(value)]

    return rows

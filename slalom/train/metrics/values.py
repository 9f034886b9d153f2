"""Metrics of numbers: errors, and the share of the variance explained. NaN in a target marks what is unknown."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from slalom.core.dtype import float64
from slalom.core.functional.arithmetic import where
from slalom.core.primitive import Array
from slalom.core.tensor import Tensor
from slalom.errors import ShapeError
from slalom.train.metrics.metric import Finish, Metric
from slalom.train.metrics.reading import aligned, over, per_row

__all__ = ["mae", "mape", "mse", "r2", "rmse"]

Error = Callable[[Tensor, Tensor], Tensor]


def _pair(name: str, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Output and target in float64 and one shape, and which targets are known (None: all of them)."""
    target = aligned(output, target)
    if target.shape != output.shape:
        got = f"output {output.shape} and target {target.shape}"
        raise ShapeError(f"metric {name!r}", got=got, needed="one shape")
    return output.to(float64), target.to(float64), ~target.isnan() if target.dtype.kind == "f" else None


def _mean(name: str, error: Error, finish: Finish = over) -> Metric:
    """The mean of an error over all that is known."""

    def rows(output: Tensor, target: Tensor) -> list[Tensor]:
        output, target, known = _pair(name, output, target)
        return per_row(error(output, target), known)

    return Metric(name, rows, finish)


def mae() -> Metric:
    """The mean of |ŷ − y|."""
    return _mean("mae", lambda output, target: (output - target).abs())


def mse() -> Metric:
    """The mean of (ŷ − y)²."""
    return _mean("mse", lambda output, target: (output - target) ** 2)


def rmse() -> Metric:
    """√ of the mean of (ŷ − y)²."""
    return _mean("rmse", lambda output, target: (output - target) ** 2, lambda *means: math.sqrt(over(*means)))


def mape() -> Metric:
    """The mean of |ŷ − y| / |y|: 0.1 is ten per cent; |y| counts as at least 2⁻⁵², as in scikit-learn."""
    return _mean("mape", lambda output, target: (output - target).abs() / target.abs().clamp(min=2.0**-52))


def r2() -> Metric:
    """1 − Σ(y − ŷ)² / Σ(y − ȳ)², averaged over the outputs; NaN where the targets are all equal.

    Note: the variance is that of sums, so targets whose mean is 10⁶ times their spread leave only some 4 digits of it.
    """

    def rows(output: Tensor, target: Tensor) -> list[Tensor]:
        output, target, known = _pair("r2", output, target)
        parts = [(output - target) ** 2, target, target * target]
        if known is not None:
            parts = [*(where(known, t, 0.0) for t in parts), known.to(float64)]
        return [_outputs(t) for t in parts]

    def finish(square: Array, mean: Array, mean_square: Array, known: Array | float = 1.0) -> float:
        spread = mean_square - mean * mean / known
        spread[spread < 1e-14 * mean_square] = 0.0  # the rounding of sums
        return float(np.mean(np.where(spread > 0, 1 - square / spread, np.nan)))

    return Metric("r2", rows, finish)


def _outputs(t: Tensor) -> Tensor:
    """(B, …) → (B, number of outputs)."""
    return t.reshape(t.shape[0], -1 if t.shape[0] else 1)

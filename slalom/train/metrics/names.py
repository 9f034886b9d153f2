"""The names of the built-in metrics, and what else a user may give."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import numpy as np

from slalom.core.tensor import Tensor
from slalom.errors import ConfigError
from slalom.train.metrics import classes, probabilities, ranking, values
from slalom.train.metrics.metric import Metric, Rows
from slalom.train.metrics.reading import Reading, per_row

__all__ = ["METRICS", "is_score", "resolve"]

_PLAIN: Final[dict[str, Callable[[Reading], Metric]]] = {
    "accuracy": classes.accuracy,
    "balanced_accuracy": classes.balanced_accuracy,
    "mcc": classes.mcc,
    "auc": ranking.auc,
    "average_precision": ranking.average_precision,
    "log_loss": probabilities.log_loss,
    "perplexity": probabilities.perplexity,
    "brier": probabilities.brier,
    "ece": probabilities.calibration_error,
    "mae": lambda reading: values.mae(),
    "mse": lambda reading: values.mse(),
    "rmse": lambda reading: values.rmse(),
    "mape": lambda reading: values.mape(),
    "r2": lambda reading: values.r2(),
}
_AVERAGED: Final[dict[str, Callable[[str, str, Reading], Metric]]] = {
    "precision": classes.precision,
    "recall": classes.recall,
    "f1": classes.f_beta,
}
METRICS = (*_PLAIN, *_AVERAGED)
"""The names of the built-in metrics; besides them ``top1``, ``top2``, … and ``f0.5``, ``f2``, …: F with another β.

``precision``, ``recall`` and F are those of class 1 where there are two classes, else means over the classes that
occur; or as asked for: ``f1_macro``, ``f1_micro``, ``f1_weighted``, ``f1_binary``. A ratio without cases counts 0, as
in scikit-learn. ``auc`` and ``average_precision`` need the scores of all rows, so they are measured in evaluation only.
"""
_TOP: Final = re.compile(r"top([1-9]\d*)")
_AVERAGE: Final = re.compile(rf"(precision|recall|f\d+(?:\.\d+)?)(?:_({'|'.join(classes.AVERAGES)}))?")
_LOWER_IS_BETTER: Final = {"log_loss", "perplexity", "brier", "ece", "mae", "mse", "rmse", "mape"}
_SCORES: Final = ("accuracy", "precision", "recall", "f1", "r2", "auc", "score")


def is_score(name: str) -> bool:
    """Whether more of a metric is better, as far as its name tells."""
    built_in = name in METRICS or _TOP.fullmatch(name) or _AVERAGE.fullmatch(name)
    return name not in _LOWER_IS_BETTER if built_in else name.endswith(_SCORES)


def resolve(metrics: Any, reading: Reading | None = None) -> tuple[Metric, ...]:
    """Metrics of names, Metric objects, functions, or a dict of names and functions.

    A function gets (output, target) and returns a scalar, the mean over the batch, or one value a row. ``reading``:
    what the outputs are, logits if it is None.

    Raises: ConfigError for an unknown name, for one given twice, and for what is no metric.
    """
    if isinstance(metrics, (str, Metric)) or callable(metrics):
        metrics = [metrics]
    given: Iterable[Any] = metrics.items() if isinstance(metrics, Mapping) else (metrics or ())
    found: dict[str, Metric] = {}
    for item in given:
        metric = _resolve_one(item, reading or Reading())
        if metric.name in found or metric.name == "loss":
            raise ConfigError(
                "metrics", got=f"{metric.name!r} twice" if metric.name in found else "'loss'", needed="other names"
            )
        found[metric.name] = metric
    return tuple(found.values())


def _resolve_one(item: Any, reading: Reading) -> Metric:
    if isinstance(item, Metric):
        return item
    if isinstance(item, str):
        return _named(item, reading)
    name, function = item if isinstance(item, tuple) else (getattr(item, "__name__", type(item).__name__), item)
    if isinstance(function, str):
        metric = _named(function, reading)
        return Metric(name, metric.rows, metric.finish, metric.whole)
    if not callable(function):
        raise ConfigError("metric", got=repr(item), needed="a name or a function (output, target)")
    return Metric(name, _mean_of(function))


def _named(name: str, reading: Reading) -> Metric:
    if name in _PLAIN:
        return _PLAIN[name](reading)
    if match := _TOP.fullmatch(name):
        return classes.top(name, int(match[1]), reading)
    if match := _AVERAGE.fullmatch(name):
        return _AVERAGED.get(match[1], classes.f_beta)(match[1], match[2] or "", reading)
    needed = f"{', '.join(METRICS)}, top<k>, f<beta>, f1_macro …, or a function (output, target)"
    raise ConfigError("metric", got=repr(name), needed=needed)


def _mean_of(function: Callable[[Tensor, Tensor], Any]) -> Rows:
    def rows(output: Tensor, target: Tensor) -> list[Tensor]:
        value = function(output, target)
        value = value if isinstance(value, Tensor) else Tensor(np.asarray(value, np.float64))
        if value.shape == ():
            value = value.expand(target.shape[0])
        return per_row(value)

    return rows

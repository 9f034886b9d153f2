"""Three honest baselines on the same rows as the network: a constant, a linear model, and boosted trees.

They see what the network sees: training and validation rows to learn from (trees and linear models keep their own
validation, or need none), the same columns, the same test rows.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from slalom.tabular.extras import load_extra
from slalom.tabular.preparation import Boolean, Datetime, Embedded, OneHot, Preparation, find_levels
from slalom.tabular.table import FloatArray, IntArray, Table
from slalom.tabular.target import ClassTarget, Target

__all__ = ["Baseline", "run_baselines"]

_ITERATIONS = 1000
_BINS = 255  # levels of a categorical column that scikit-learn's histogram trees can take
_EARLY_STOPPING_ROWS = 10_000  # above, scikit-learn's trees set a tenth of the rows aside, some of each class


@final
@dataclass(frozen=True, eq=False)
class Baseline:
    """A baseline's predictions of the test rows: probabilities (n, C), or values (n,) in the target's unit."""

    name: str
    prediction: FloatArray
    seconds: float
    notes: tuple[str, ...] = ()


def run_baselines(
    table: Table, preparation: Preparation, target: Target, train: IntArray, test: IntArray, *, seed: int
) -> list[Baseline]:
    """Constant, linear ("logistic" or "linear") and "gradient boosting", fitted on ``train``, predicting ``test``.

    The constant is the class frequencies or the mean; the linear model takes the network's own inputs, one-hot, with
    scikit-learn's default L2 penalty; the trees take raw numbers, NaN for missing, and categories as categories, with
    scikit-learn's defaults.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    y = target.encode(table, train)
    fits = {
        "constant": _constant,
        "logistic" if isinstance(target, ClassTarget) else "linear": _linear,
        "gradient boosting": _boosted,
    }
    baselines = []
    for name, fit in fits.items():
        start = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            prediction = fit(table, preparation, target, train, test, y, seed)
        notes = tuple(dict.fromkeys(str(warning.message).partition("\n")[0] for warning in caught))
        baselines.append(Baseline(name, prediction, time.perf_counter() - start, notes))
    return baselines


def _constant(
    table: Table, preparation: Preparation, target: Target, train: IntArray, test: IntArray, y: NDArray[Any], seed: int
) -> FloatArray:
    if isinstance(target, ClassTarget):
        return np.tile(np.bincount(y, minlength=len(target.classes)) / len(y), (len(test), 1))
    return np.full(len(test), y.mean())


def _linear(
    table: Table, preparation: Preparation, target: Target, train: IntArray, test: IntArray, y: NDArray[Any], seed: int
) -> FloatArray:
    linear_model = load_extra("sklearn.linear_model", "cli", "the linear baseline")
    x, x_test = _one_hot(preparation, table, train, test)
    if isinstance(target, ClassTarget):
        model = linear_model.LogisticRegression(max_iter=_ITERATIONS).fit(x, y)
        return _all_classes(model.predict_proba(x_test), model.classes_, target)
    model = linear_model.Ridge().fit(x, target.standardise(y))
    return target.restore(model.predict(x_test))


def _boosted(
    table: Table, preparation: Preparation, target: Target, train: IntArray, test: IntArray, y: NDArray[Any], seed: int
) -> FloatArray:
    ensemble = load_extra("sklearn.ensemble", "cli", "the baseline of boosted trees")
    x, is_category = _raw(preparation, table, train)
    options = {"random_state": seed, "categorical_features": is_category}
    if isinstance(target, ClassTarget):
        is_shareable = np.bincount(y).min(initial=2, where=np.bincount(y) > 0) > 1
        options["early_stopping"] = bool(len(y) > _EARLY_STOPPING_ROWS and is_shareable)
        model = ensemble.HistGradientBoostingClassifier(**options).fit(x[train], y)
        return _all_classes(model.predict_proba(x[test]), model.classes_, target)
    model = ensemble.HistGradientBoostingRegressor(**options).fit(x[train], y)
    return np.asarray(model.predict(x[test]), dtype=np.float64)


def _all_classes(probabilities: FloatArray, codes: IntArray, target: ClassTarget) -> FloatArray:
    """A class without a training row gets probability 0."""
    full = np.zeros((len(probabilities), len(target.classes)))
    full[:, codes] = probabilities
    return full


def _one_hot(preparation: Preparation, table: Table, train: IntArray, test: IntArray) -> tuple[Any, Any]:
    """The network's inputs with its codes as one-hot columns: sparse, since there may be thousands."""
    parts = [preparation.transform(table, rows) for rows in (train, test)]
    numbers = [part.numbers.astype(np.float64) for part in parts]
    if not preparation.cardinalities:
        return numbers[0], numbers[1]
    sparse = load_extra("scipy.sparse", "cli", "the linear baseline")
    preprocessing = load_extra("sklearn.preprocessing", "cli", "the linear baseline")
    encoder = preprocessing.OneHotEncoder(handle_unknown="ignore").fit(parts[0].categories)
    x, x_test = (
        sparse.hstack([sparse.csr_array(dense), encoder.transform(part.categories)], format="csr")
        for dense, part in zip(numbers, parts, strict=True)
    )
    return x, x_test


def _raw(preparation: Preparation, table: Table, train: IntArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """All rows as trees take them, NaN where missing, and which columns are categories."""
    columns: list[FloatArray] = []
    is_category: list[bool] = []
    for feature in preparation.features:
        column = table[feature.name]
        is_category.append(isinstance(feature, OneHot | Embedded))
        if isinstance(feature, OneHot | Embedded):
            codes = find_levels(column.words, feature.levels)
            common = np.argsort(-np.bincount(codes[train], minlength=len(feature.levels) + 1)[1:], kind="stable")
            raw = np.full(len(feature.levels) + 1, np.nan)
            raw[1 + common[:_BINS]] = np.arange(len(common[:_BINS]))
            columns.append(raw[codes])
        elif isinstance(feature, Boolean):
            columns.append(column.booleans())
        elif isinstance(feature, Datetime):
            waves = feature.numbers(column)[:, len(feature.labels()) - 2 * len(feature.periods) :]
            columns += [column.times(), *waves.T]
            is_category += [False] * waves.shape[1]
        else:
            columns.append(column.numbers())
    return np.stack(columns, axis=1), np.array(is_category)

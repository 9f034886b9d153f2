"""Three honest baselines on the same rows as the network: a constant, a linear model, and boosted trees.

They see what the network sees: training and validation rows to learn from (trees and linear models keep their own
validation, or need none), the same columns, the same test rows.
"""

from __future__ import annotations

import time
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from slalom.core.extras import load_extra, one_thread
from slalom.tabular.preparation import Boolean, Datetime, Embedded, OneHot, Preparation, find_levels
from slalom.tabular.table import BoolArray, FloatArray, IntArray, Table
from slalom.tabular.target import ClassTarget, Target

__all__ = ["Baseline", "run_baselines"]

_ITERATIONS = 1000
_BINS = 255  # levels of a categorical column that scikit-learn's histogram trees can take
_SMALL = 1_000_000  # cells of a table below which more than one thread gains little
_LEAST_CLASS_ROWS = 5  # with fewer, boosted trees diverge, or can't set some of them aside; they get their frequency


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
    scikit-learn's defaults, and give classes of fewer than 5 rows their frequency.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    problem = _Problem(table, preparation, target, train, test, target.encode(table, train), seed)
    fits = {
        "constant": _constant,
        "logistic" if isinstance(target, ClassTarget) else "linear": _linear,
        "gradient boosting": _boosted,
    }
    baselines = []
    for name, fit in fits.items():
        start = time.perf_counter()
        threads = one_thread() if len(train) * len(preparation.features) < _SMALL else nullcontext()
        with threads, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            prediction = fit(problem)
        notes = tuple(dict.fromkeys(str(warning.message).partition("\n")[0] for warning in caught))
        baselines.append(Baseline(name, prediction, time.perf_counter() - start, notes))
    return baselines


@final
@dataclass(frozen=True, eq=False)
class _Problem:
    """What every baseline is given; y is the target of the training rows."""

    table: Table
    preparation: Preparation
    target: Target
    train: IntArray
    test: IntArray
    y: NDArray[Any]
    seed: int


def _constant(problem: _Problem) -> FloatArray:
    target, y, n = problem.target, problem.y, len(problem.test)
    if isinstance(target, ClassTarget):
        return np.tile(np.bincount(y, minlength=len(target.classes)) / len(y), (n, 1))
    return np.full(n, y.mean())


def _linear(problem: _Problem) -> FloatArray:
    linear_model = load_extra("sklearn.linear_model", "cli", "the linear baseline")
    target, y = problem.target, problem.y
    x, x_test = _one_hot(problem)
    if isinstance(target, ClassTarget):
        model = linear_model.LogisticRegression(max_iter=_ITERATIONS).fit(x, y)
        return _all_classes(model.predict_proba(x_test), model.classes_, target)
    model = linear_model.Ridge().fit(x, target.standardise(y))
    return target.restore(model.predict(x_test))


def _boosted(problem: _Problem) -> FloatArray:
    ensemble = load_extra("sklearn.ensemble", "cli", "the baseline of boosted trees")
    target, y = problem.target, problem.y
    x, is_category = _raw(problem)
    options = {"random_state": problem.seed, "categorical_features": is_category}
    if isinstance(target, ClassTarget):
        shares = np.bincount(y, minlength=len(target.classes)) / len(y)
        rare = (shares > 0) & (shares * len(y) < _LEAST_CLASS_ROWS)
        if np.count_nonzero(shares[~rare]) < 2:
            rare[:] = False
        kept = ~rare[y]
        model = ensemble.HistGradientBoostingClassifier(**options).fit(x[problem.train][kept], y[kept])
        common = _all_classes(model.predict_proba(x[problem.test]), model.classes_, target)
        return np.where(rare, shares, common * (1 - shares[rare].sum()))
    model = ensemble.HistGradientBoostingRegressor(**options).fit(x[problem.train], y)
    return np.asarray(model.predict(x[problem.test]), dtype=np.float64)


def _all_classes(probabilities: FloatArray, codes: IntArray, target: ClassTarget) -> FloatArray:
    """A class without a training row gets probability 0."""
    full = np.zeros((len(probabilities), len(target.classes)))
    full[:, codes] = probabilities
    return full


def _one_hot(problem: _Problem) -> tuple[Any, Any]:
    """The network's inputs, of training and test rows, with its codes one-hot: sparse, for there may be thousands."""
    parts = [problem.preparation.transform(problem.table, rows) for rows in (problem.train, problem.test)]
    numbers = [part.numbers.astype(np.float64) for part in parts]
    if not problem.preparation.cardinalities:
        return numbers[0], numbers[1]
    sparse = load_extra("scipy.sparse", "cli", "the linear baseline")
    preprocessing = load_extra("sklearn.preprocessing", "cli", "the linear baseline")
    encoder = preprocessing.OneHotEncoder(handle_unknown="ignore").fit(parts[0].categories)
    x, x_test = (
        sparse.hstack([sparse.csr_array(dense), encoder.transform(part.categories)], format="csr")
        for dense, part in zip(numbers, parts, strict=True)
    )
    return x, x_test


def _raw(problem: _Problem) -> tuple[FloatArray, BoolArray]:
    """All rows as trees take them, NaN where missing, and which columns are categories."""
    columns: list[FloatArray] = []
    is_category: list[bool] = []
    for feature in problem.preparation.features:
        column = problem.table[feature.name]
        if isinstance(feature, OneHot | Embedded):
            codes = find_levels(column.words, feature.levels)
            counts = np.bincount(codes[problem.train], minlength=len(feature.levels) + 1)
            commonest = 1 + np.argsort(-counts[1:], kind="stable")[:_BINS]
            raw = np.full(len(counts), np.nan)
            raw[commonest] = np.arange(len(commonest))
            found = [raw[codes]]
        elif isinstance(feature, Boolean):
            found = [column.booleans()]
        elif isinstance(feature, Datetime):
            waves = feature.numbers(column)[:, len(feature.labels()) - 2 * len(feature.periods) :]
            found = [column.times(), *waves.T]
        else:
            found = [column.numbers()]
        columns += found
        is_category += [isinstance(feature, OneHot | Embedded)] * len(found)
    return np.stack(columns, axis=1), np.array(is_category, dtype=np.bool_)

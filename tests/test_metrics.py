"""Metrics against scikit-learn, and that it does not matter how the rows are cut into batches."""

from __future__ import annotations

import math

import numpy as np
import pytest

from slalom import Tensor
from slalom.errors import ConfigError, ShapeError
from slalom.train.metrics import METRICS, Metric, resolve

sklearn = pytest.importorskip("sklearn.metrics")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")

RNG = np.random.default_rng(0)
N = 57
LOGITS3 = RNG.normal(size=(N, 3)).astype(np.float32)
CLASSES3 = RNG.integers(0, 3, N)
LOGITS6 = RNG.normal(size=(N, 6)).astype(np.float32)
CLASSES6 = RNG.integers(0, 6, N)
LOGIT = RNG.normal(size=(N, 1)).astype(np.float32)
BINARY = RNG.integers(0, 2, N)
VALUES = RNG.normal(loc=30, size=(N, 1)).astype(np.float32)
TRUTH = (VALUES[:, 0] + RNG.normal(size=N)).astype(np.float32)
PAIRS, TRUE_PAIRS = RNG.normal(size=(N, 2)).astype(np.float32), RNG.normal(size=(N, 2)).astype(np.float32)
WEIGHT = RNG.integers(0, 4, N).astype(np.float32)


def measure(metric, output, target, weight=None, batches=(N,)):
    total, rows, at = None, 0.0, 0
    for size in batches:
        cut = slice(at, at + size)
        w = None if weight is None else weight[cut]
        sums, sizes = metric.sums(Tensor(output[cut]), Tensor(target[cut]), None if w is None else Tensor(w))
        assert sums.dtype == np.float64
        total = sums.numpy() if total is None else total + sums.numpy()
        rows += size if w is None else float(w.sum())
        at += size
    return metric.value(total, sizes, rows)


def value(name, output, target, **options):
    threshold = options.pop("threshold", 0.0)
    return measure(resolve([name], threshold)[0], output, target, **options)


ARGMAX3, GUESS = LOGITS3.argmax(1), (LOGIT[:, 0] > 0).astype(int)
CASES = [
    ("accuracy", LOGITS3, CLASSES3, lambda w: sklearn.accuracy_score(CLASSES3, ARGMAX3, sample_weight=w)),
    ("accuracy", LOGIT, BINARY, lambda w: sklearn.accuracy_score(BINARY, GUESS, sample_weight=w)),
    ("accuracy", LOGIT, BINARY[:, None].astype(np.float32),
     lambda w: sklearn.accuracy_score(BINARY, GUESS, sample_weight=w)),
    ("accuracy", LOGIT[:, 0], BINARY.astype(np.float32),
     lambda w: sklearn.accuracy_score(BINARY, GUESS, sample_weight=w)),
    ("accuracy", LOGITS3, np.eye(3, dtype=np.float32)[CLASSES3],
     lambda w: sklearn.accuracy_score(CLASSES3, ARGMAX3, sample_weight=w)),
    ("balanced_accuracy", LOGITS3, CLASSES3,
     lambda w: sklearn.balanced_accuracy_score(CLASSES3, ARGMAX3, sample_weight=w)),
    ("precision", LOGIT, BINARY, lambda w: sklearn.precision_score(BINARY, GUESS, sample_weight=w)),
    ("recall", LOGIT, BINARY, lambda w: sklearn.recall_score(BINARY, GUESS, sample_weight=w)),
    ("f1", LOGIT, BINARY, lambda w: sklearn.f1_score(BINARY, GUESS, sample_weight=w)),
    ("precision", LOGITS3, CLASSES3,
     lambda w: sklearn.precision_score(CLASSES3, ARGMAX3, average="macro", sample_weight=w)),
    ("recall", LOGITS3, CLASSES3, lambda w: sklearn.recall_score(CLASSES3, ARGMAX3, average="macro", sample_weight=w)),
    ("f1", LOGITS3, CLASSES3, lambda w: sklearn.f1_score(CLASSES3, ARGMAX3, average="macro", sample_weight=w)),
    ("top1", LOGITS6, CLASSES6, lambda w: sklearn.accuracy_score(CLASSES6, LOGITS6.argmax(1), sample_weight=w)),
    ("top3", LOGITS6, CLASSES6, lambda w: sklearn.top_k_accuracy_score(CLASSES6, LOGITS6, k=3, sample_weight=w)),
    ("mae", VALUES, TRUTH, lambda w: sklearn.mean_absolute_error(TRUTH, VALUES[:, 0], sample_weight=w)),
    ("mse", VALUES, TRUTH, lambda w: sklearn.mean_squared_error(TRUTH, VALUES[:, 0], sample_weight=w)),
    ("rmse", VALUES, TRUTH, lambda w: sklearn.root_mean_squared_error(TRUTH, VALUES[:, 0], sample_weight=w)),
    ("r2", VALUES, TRUTH, lambda w: sklearn.r2_score(TRUTH, VALUES[:, 0], sample_weight=w)),
    ("mae", PAIRS, TRUE_PAIRS, lambda w: sklearn.mean_absolute_error(TRUE_PAIRS, PAIRS, sample_weight=w)),
    ("r2", PAIRS, TRUE_PAIRS, lambda w: sklearn.r2_score(TRUE_PAIRS, PAIRS, sample_weight=w)),
]  # fmt: skip


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
@pytest.mark.parametrize(("name", "output", "target", "reference"), CASES)
def test_against_sklearn(name, output, target, reference, weight):
    expected = reference(weight)
    assert value(name, output, target, weight=weight) == pytest.approx(expected, rel=1e-6)
    assert value(name, output, target, weight=weight, batches=(20, 20, 16, 1)) == pytest.approx(expected, rel=1e-6)


def test_every_name_is_compared():
    assert {name for name, *_ in CASES} - {"top1", "top3"} == set(METRICS)


def test_threshold_of_probabilities():
    probabilities = np.array([[0.2], [0.6], [0.4]], np.float32)
    assert value("accuracy", probabilities, np.array([0, 1, 0]), threshold=0.5, batches=(3,)) == 1.0
    assert value("accuracy", probabilities, np.array([0, 1, 0]), threshold=0.0, batches=(3,)) == pytest.approx(1 / 3)


def test_ratios_without_cases_count_zero_as_in_sklearn():
    logits, none = np.full((4, 1), -1.0, np.float32), np.zeros(4, np.int64)
    for name, function in (("precision", sklearn.precision_score), ("recall", sklearn.recall_score)):
        assert value(name, logits, none, batches=(4,)) == function(none, none, zero_division=0) == 0.0


def test_r2_of_equal_targets_and_metrics_of_no_rows_are_nan():
    ones = np.ones((3, 1), np.float32)
    assert math.isnan(value("r2", ones, ones[:, 0], batches=(3,)))
    metric = resolve("mae")[0]
    assert math.isnan(metric.value(np.zeros(1), (-1,), 0.0))


def test_no_table_of_differences_from_a_column_and_a_row():
    # (B, 1) − (B,) would broadcast to (B, B)
    column, row = np.arange(4, dtype=np.float32)[:, None], np.arange(4, dtype=np.float32)
    assert value("mse", column, row, batches=(4,)) == 0.0


def test_axes_beyond_the_classes_are_averaged():
    output = RNG.normal(size=(6, 3, 5)).astype(np.float32)
    target = RNG.integers(0, 3, (6, 5))
    assert value("accuracy", output, target, batches=(6,)) == pytest.approx((output.argmax(1) == target).mean())


def test_functions_give_a_mean_or_a_value_a_row():
    def bias(output, target):
        return (output - target).mean()

    metrics = resolve({"bias": bias, "rows": lambda output, target: output - target})
    output, target = TRUTH, VALUES[:, 0]
    for metric in metrics:
        expected = (output.astype(np.float64) - target).mean()
        assert measure(metric, output, target, batches=(30, 27)) == pytest.approx(expected, rel=1e-5)
    assert [metric.name for metric in resolve([bias, Metric("own", bias), "mae"])] == ["bias", "own", "mae"]


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        ("acuracy", "metric: got 'acuracy'; needed accuracy, balanced_accuracy"),
        (["mae", "mae"], "'mae' twice"),
        ([3], "metric: got 3"),
        ({"loss": lambda output, target: output.mean()}, "got 'loss'"),
    ],
)
def test_mistakes(metrics, text):
    with pytest.raises(ConfigError, match=text):
        resolve(metrics)


@pytest.mark.parametrize(
    ("name", "output", "target", "text"),
    [
        ("mae", np.zeros((3, 2)), np.zeros((3, 3)), "output \\(3, 2\\) and target \\(3, 3\\)"),
        ("accuracy", np.zeros((3, 2, 4)), np.zeros(3, np.int64), "classes \\(3, 4\\) and targets \\(3,\\)"),
        ("top5", np.zeros((3, 2)), np.zeros(3, np.int64), "C ≥ 5"),
    ],
)
def test_shapes_that_do_not_fit(name, output, target, text):
    with pytest.raises(ShapeError, match=text):
        value(name, output, target, batches=(3,))


def test_a_function_must_give_rows():
    with pytest.raises(ShapeError, match="metric 'wide'"):
        measure(Metric("wide", lambda output, target: [output.sum(dim=0)]), LOGITS3, CLASSES3)

"""Metrics against scikit-learn, and that it does not matter how the rows are cut into batches."""

from __future__ import annotations

import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from grouped import all_of
from hypothesis import given, settings
from hypothesis import strategies as st

import slalom
from slalom import Tensor, nn
from slalom.errors import ConfigError, ShapeError
from slalom.train.metrics import METRICS, Columns, Metric, Reading, is_score, resolve

sklearn = pytest.importorskip("sklearn.metrics")
tables = pytest.importorskip("tests.table_metrics")
pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning"),
    pytest.mark.filterwarnings("ignore:No positive class found in y_true:UserWarning"),
    pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true:UserWarning"),
    pytest.mark.filterwarnings("ignore:A single label was found:UserWarning"),
]
RNG = np.random.default_rng(0)
IGNORED = -100


def measure(metric, output, target, weight=None, batches=None):
    """The value of a metric over some batches (one of all rows by default)."""
    batches = batches or (len(output),)
    columns = Columns([metric])
    total, rows, at = None, 0.0, 0
    for size in batches:
        cut = slice(at, at + size)
        w = None if weight is None else weight[cut]
        given = Tensor(output[cut]), Tensor(target[cut]), None if w is None else Tensor(w)
        if metric.whole:
            columns.add([metric.columns(*given[:2])], given[2])
            at += size
            continue
        sums, sizes = metric.sums(*given)
        assert sums.dtype == np.float64
        total = sums.numpy() if total is None else total + sums.numpy()
        rows += size if w is None else float(w.sum())
        at += size
    return columns.values()[metric.name] if metric.whole else metric.value(total, sizes, rows)


def value(name, output, target, **options):
    reading = options.pop("reading", None)
    return measure(resolve([name], reading)[0], output, target, **options)


# --- against scikit-learn -----------------------------------------------------------------------------------------
def test_every_name_is_compared():
    names = {row.name for row in tables.ROWS}
    assert names >= set(METRICS)
    assert all(resolve([name])[0].name == name for name in names)


SCORES = st.integers(-6, 6).map(lambda n: n / 2)  # few values, so that there are ties
WEIGHTS = st.integers(0, 3)


@st.composite
def sets_of_rows(draw, kind):
    """(output, target, weight or None, sizes of batches, reading), and the flat rows that count: scores, true, weights.

    Classes may be absent; positions may be ignored; rows may weigh nothing; classes may stand in a sequence.
    """
    n = draw(st.integers(1, 24))
    width = {"classes": draw(st.integers(2, 4)), "labels": draw(st.integers(2, 3))}.get(kind, 1)
    steps = draw(st.sampled_from([0, 0, 1, 3])) if kind in ("classes", "binary") else 0
    shape = (n, width, *([steps] if steps else []))
    output = draw(hnp.arrays(np.float32, shape, elements=SCORES))
    places = (n, *shape[2:]) if kind == "classes" else shape
    highest = {"classes": width - 1, "values": 9}.get(kind, 1)
    target = draw(hnp.arrays(np.int64, places, elements=st.integers(0, draw(st.integers(0, highest)))))
    masked = kind != "labels" and draw(st.booleans())
    kept = draw(hnp.arrays(np.bool_, places)) if masked else np.ones(places, bool)
    weight = draw(st.none() | hnp.arrays(np.float32, n, elements=WEIGHTS))
    cuts = sorted(draw(st.sets(st.integers(1, n), max_size=3)) | {n})
    sizes = tuple(np.diff([0, *cuts]).tolist())

    each = np.broadcast_to(np.ones(n) if weight is None else weight, places[::-1]).T
    counts = kept & (each > 0) if kind != "labels" else each[:, 0] > 0
    scores = np.moveaxis(output, 1, -1)[counts] if kind == "classes" else output[counts]
    flat = scores, target[counts], each[counts] if kind != "labels" else each[counts, 0]
    floating = kind != "classes" and (masked or draw(st.booleans()))
    given = np.where(kept, target, np.nan).astype(np.float32) if floating else np.where(kept, target, IGNORED)
    if kind in ("binary", "values") and not steps and draw(st.booleans()):
        given = given[:, 0]
    return output, given, weight, sizes, Reading(labels=kind == "labels", ignored=IGNORED), flat


@pytest.mark.parametrize("kind", sorted({row.kind for row in tables.ROWS}))
def test_is_what_scikit_learn_says(kind):
    """Every metric of a kind, on the same sets of rows: to draw these takes longer than to measure them."""

    def check(row, case):
        output, target, weight, sizes, reading, (scores, true, counted) = case
        found = measure(resolve([row.name], reading)[0], output, target, weight, sizes)
        if not len(true) or (row.name == "r2" and len(np.unique(true)) == 1):
            assert math.isnan(found)
            return
        expected = row.reference(scores, true, counted)
        assert found == pytest.approx(expected, rel=2e-6, abs=2e-7, nan_ok=True)

    @given(sets_of_rows(kind))
    @settings(max_examples=30)
    def check_all(case):
        all_of(check, [(row, case) for row in tables.ROWS if row.kind == kind], lambda row, _: row.name)

    check_all()


@pytest.mark.parametrize("row", tables.ROWS, ids=tables.IDS)
def test_may_be_recorded(row):
    rng = np.random.default_rng(3)
    output = rng.normal(size=(12, {"classes": 4, "labels": 3}.get(row.kind, 1))).astype(np.float32)
    target = rng.integers(0, 2, 12 if row.kind == "classes" else output.shape)
    target = target if row.kind == "classes" else target.astype(np.float32)
    metric = resolve([row.name], Reading(labels=row.kind == "labels", ignored=IGNORED))[0]
    compute = metric.columns if metric.whole else lambda *given: metric.sums(*given, None)[0]
    compiled = slalom.compile(compute)
    found, expected = (f(Tensor(output), Tensor(target)) for f in (compiled, compute))
    for a, b in zip(found, expected, strict=True) if metric.whole else [(found, expected)]:
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6, atol=1e-7)
    assert compiled.traces == 1


def test_area_over_several_classes_is_scikit_learns_one_versus_rest():
    rng = np.random.default_rng(1)
    scores, true = rng.normal(size=(80, 4)).astype(np.float32), rng.integers(0, 4, 80)
    p = tables.softmax(scores)
    assert value("auc", scores, true) == pytest.approx(sklearn.roc_auc_score(true, p, multi_class="ovr"), rel=1e-12)
    expected = sklearn.average_precision_score(np.eye(4)[true], p)
    assert value("average_precision", scores, true) == pytest.approx(expected, rel=1e-12)


def test_scores_that_a_sigmoid_would_round_to_1_are_still_told_apart():
    logits, true = np.array([[40.0], [50.0], [60.0], [45.0]], np.float32), np.array([0, 1, 1, 0])
    assert value("auc", logits, true) == value("average_precision", logits, true) == 1.0
    assert value("auc", np.hstack([0 * logits, logits]), true) == 1.0


# --- what outputs are ---------------------------------------------------------------------------------------------
READINGS = [
    (nn.CrossEntropyLoss(), Reading("logits", False, -100)),
    (nn.CrossEntropyLoss(ignore_index=7), Reading("logits", False, 7)),
    (nn.NLLLoss(), Reading("log_probabilities", False, -100)),
    (nn.BCELoss(), Reading("probabilities", True)),
    (nn.BCEWithLogitsLoss(), Reading("logits", True)),
    (nn.MSELoss(), Reading()),
    (nn.functional.binary_cross_entropy, Reading("probabilities", True)),
    (nn.functional.nll_loss, Reading("log_probabilities", False, -100)),
    (lambda output, target: output.mean(), Reading()),
]


@pytest.mark.parametrize(("loss", "reading"), READINGS)
def test_reading_follows_from_the_loss(loss, reading):
    assert Reading.of(loss) == reading


@pytest.mark.parametrize("name", ["log_loss", "brier", "ece", "auc", "accuracy", "f1_macro"])
def test_probabilities_mean_what_their_logits_do(name):
    rng = np.random.default_rng(2)
    scores, true = rng.normal(size=(40, 3)), rng.integers(0, 3, 40)
    expected = value(name, scores, true)
    p = tables.softmax(scores)
    assert value(name, p, true, reading=Reading("probabilities")) == pytest.approx(expected, rel=1e-9)
    assert value(name, np.log(p), true, reading=Reading("log_probabilities")) == pytest.approx(expected, rel=1e-9)
    yes = true > 0
    p = tables.sigmoid(scores[:, 0])
    expected = value(name, scores[:, 0], yes)
    assert value(name, p, yes, reading=Reading("probabilities")) == pytest.approx(expected, rel=1e-9)


def test_a_probability_of_0_is_kept_away_from_it_as_in_scikit_learn():
    p, true = np.array([[0.0], [1.0], [1.0]]), np.array([[1.0], [1.0], [0.0]])
    found = value("log_loss", p, true, reading=Reading("probabilities", True))
    assert found == pytest.approx(sklearn.log_loss(true[:, 0], p[:, 0]), rel=1e-9) and math.isfinite(found)


def test_one_hot_and_soft_targets_name_their_largest_class():
    scores = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    true = np.arange(9) % 3
    for target in (np.eye(3, dtype=np.float32)[true], 0.8 * np.eye(3, dtype=np.float32)[true] + 0.1):
        for name in ("accuracy", "f1", "auc", "log_loss"):
            assert value(name, scores, target) == value(name, scores, true)


def test_a_label_of_nine_tenths_is_a_yes():
    assert value("accuracy", np.array([[3.0], [-3.0]]), np.array([[0.9], [0.1]])) == 1.0


def test_threshold_of_probabilities():
    probabilities = np.array([[0.2], [0.6], [0.4]], np.float32)
    assert value("accuracy", probabilities, np.array([0, 1, 0]), reading=Reading("probabilities"), batches=(3,)) == 1.0
    assert value("accuracy", probabilities, np.array([0, 1, 0]), batches=(3,)) == pytest.approx(1 / 3)


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
    target = RNG.normal(loc=30, size=57).astype(np.float32)
    output = (target + RNG.normal(size=57)).astype(np.float32)
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
        ("accuracy", np.zeros((3, 2, 4)), np.zeros(3, np.int64), "targets \\(3,\\); needed classes \\(3, 4\\)"),
        ("top5", np.zeros((3, 2)), np.zeros(3, np.int64), "C ≥ 5"),
        ("f1_binary", np.zeros((3, 3)), np.zeros(3, np.int64), "needed two classes"),
        ("auc", np.zeros((3, 1)), np.zeros((3, 2)), "metric 'auc': got output \\(3, 1\\) and target \\(3, 2\\)"),
    ],
)
def test_shapes_that_do_not_fit(name, output, target, text):
    with pytest.raises(ShapeError, match=text):
        value(name, output, target, batches=(3,))


def test_labels_have_no_correlation_of_classes():
    for name in ("mcc", "balanced_accuracy", "recall_binary"):
        with pytest.raises(ShapeError, match=f"metric '{name}': got output \\(4, 3\\); needed"):
            value(name, np.zeros((4, 3)), np.zeros((4, 3)), reading=Reading(labels=True))


def test_a_metric_of_ones_own_may_need_all_rows():
    def middle(error, weight):
        return np.median(error) if weight is None else float(weight.sum())

    metric = Metric("middle", lambda output, target: [output - target], middle, whole=True)
    output, target = np.array([1.0, 5.0, 3.0, 9.0, 4.0]), np.zeros(5)
    assert measure(metric, output, target, batches=(2, 2, 1)) == 4.0
    assert measure(metric, output, target, np.array([1.0, 0, 2, 1, 1]), batches=(2, 2, 1)) == 5.0
    uneven = Metric("uneven", lambda output, target: [output, output[:3]], whole=True)
    with pytest.raises(ShapeError, match="metric 'uneven': what it gives for the rows: got shape \\(3,\\)"):
        measure(uneven, output, target)
    assert math.isnan(Columns([metric]).values()["middle"])


def test_names_for_built_in_metrics():
    found = resolve({"area": "auc", "f1_macro": "f1_macro"})
    assert [metric.name for metric in found] == ["area", "f1_macro"] and [m.whole for m in found] == [True, False]
    assert resolve("f0.25_weighted")[0].name == "f0.25_weighted"
    with pytest.raises(ConfigError, match="metric: got 'f1_mean'"):
        resolve("f1_mean")


def test_more_is_better_or_less():
    better = {name for name in METRICS if is_score(name)}
    assert set(METRICS) - better == {"log_loss", "perplexity", "brier", "ece", "mae", "mse", "rmse", "mape"}
    assert all(map(is_score, ("top5", "f0.5_macro", "recall_micro", "my_accuracy"))) and not is_score("loss")


def test_a_function_must_give_rows():
    with pytest.raises(ShapeError, match="metric 'wide'"):
        measure(Metric("wide", lambda output, target: [output.sum(dim=0)]), np.zeros((3, 2)), np.zeros(3, np.int64))

"""Splits are pure functions that leak nothing between parts; scores are scikit-learn's."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slalom.errors import ConfigError, DataError, ShapeError
from slalom.tabular.scores import accuracy, balanced_accuracy, log_loss, mae, r2, rmse, roc_auc, score
from slalom.tabular.split import split_rows


def parts(split):
    return [split.train, split.validation, split.test]


@given(
    n=st.integers(3, 60),
    seed=st.integers(0, 2**63),
    test_fraction=st.floats(0.01, 0.99),
    validation_fraction=st.floats(0.01, 0.99),
    classes=st.none() | st.integers(1, 12),
    groups=st.none() | st.integers(3, 20),
)
def test_every_row_is_in_one_part_and_none_is_empty(n, seed, test_fraction, validation_fraction, classes, groups):
    random = np.random.Generator(np.random.Philox(key=seed))
    rows = np.sort(random.choice(1000, n, replace=False))
    labels = None if classes is None else random.integers(classes, size=n)
    group = None if groups is None else np.concatenate([[0, 1, 2], random.integers(groups, size=n - 3)])
    options = {
        "seed": seed,
        "test_fraction": test_fraction,
        "validation_fraction": validation_fraction,
        "labels": labels,
        "groups": group,
    }
    split = split_rows(rows, **options)
    assert np.array_equal(np.sort(np.concatenate(parts(split))), rows)
    for part, again in zip(parts(split), parts(split_rows(rows, **options)), strict=True):
        assert len(part) and np.array_equal(part, np.sort(part)) and np.array_equal(part, again)
    if group is not None:
        of = [set(group[np.isin(rows, part)].tolist()) for part in parts(split)]
        assert not (of[0] & of[1] or of[0] & of[2] or of[1] & of[2]), "a group stays together"
    elif labels is not None and n > 3 * classes + 6 and max(test_fraction, validation_fraction) < 0.5:
        trained = set(labels[np.isin(rows, split.train)].tolist())
        assert trained == set(labels.tolist()), "every class is trained on"


def test_sizes_and_shares():
    labels = np.repeat([0, 1, 2, 3], [700, 200, 99, 1])
    split = split_rows(np.arange(1000), seed=3, labels=labels)
    assert [len(part) for part in parts(split)] == [640, 160, 200]
    counts = [np.bincount(labels[part], minlength=4).tolist() for part in parts(split)]
    assert counts == [[448, 128, 63, 1], [112, 32, 16, 0], [140, 40, 20, 0]]


def test_the_test_rows_do_not_depend_on_the_validation_rows():
    rows = np.arange(50)
    a, b = (split_rows(rows, seed=1, validation_fraction=fraction) for fraction in (0.1, 0.5))
    assert np.array_equal(a.test, b.test) and len(a.validation) < len(b.validation)


def test_the_seed_matters_and_the_split_is_the_same_everywhere():
    # Recorded: a run resumed on another machine must find the same rows.
    assert [part.tolist() for part in parts(split_rows(np.arange(12), seed=0))] == RECORDED
    assert len({tuple(split_rows(np.arange(50), seed=seed).test) for seed in range(20)}) == 20


RECORDED = [[1, 3, 4, 5, 6, 7, 8, 10], [9, 11], [0, 2]]


def test_groups_count_by_their_rows_and_keep_the_classes_shares():
    groups = np.repeat(np.arange(40), 5)
    labels = (groups < 20).astype(int)
    split = split_rows(np.arange(200), seed=0, labels=labels, groups=groups.astype(str))
    assert len(split.test) == 40 and labels[split.test].mean() == 0.5
    sizes = np.repeat(np.arange(4), [97, 1, 1, 1])  # the large group would overshoot: it must not be the test
    assert len(split_rows(np.arange(100), seed=0, groups=sizes).test) < 5
    sizes = np.repeat(np.arange(3), [50, 30, 20])  # all would overshoot: the smallest does least
    assert len(split_rows(np.arange(100), seed=0, groups=sizes, test_fraction=0.05).test) == 20


def test_a_group_counts_as_its_most_frequent_label():
    groups = np.repeat(np.arange(40), 3)
    ones = groups % 2 == 1
    labels = np.where(ones, np.tile([0, 1, 1], 40), np.tile([0, 2, 2], 40))
    for seed in range(5):
        test = split_rows(np.arange(120), seed=seed, labels=labels, groups=groups).test
        assert (len(test), ones[test].sum()) == (24, 12)


@pytest.mark.parametrize("size", [1, 2])
def test_training_keeps_every_class_even_where_little_is_left(size):
    labels = np.repeat([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1], size)
    groups = None if size == 1 else np.repeat(np.arange(13), size)
    split = split_rows(np.arange(len(labels)), seed=0, labels=labels, groups=groups, test_fraction=0.6)
    assert set(labels[split.train]) == {0, 1}
    split = split_rows(np.arange(len(labels)), seed=0, labels=labels, groups=groups, test_fraction=0.95)
    assert set(labels[np.setdiff1d(np.arange(len(labels)), split.test)]) == {0, 1}


@pytest.mark.parametrize(
    ("n", "options", "error", "expected"),
    [
        (1, {}, DataError, "got 1 row; needed at least 3 rows"),
        (0, {}, DataError, "got 0 rows"),
        (9, {"groups": np.arange(9) % 2}, DataError, "got 9 rows in 2 groups; needed at least 3 groups"),
        (9, {"test_fraction": 0.0}, ConfigError, "test_fraction: got 0.0"),
        (9, {"validation_fraction": 1.0}, ConfigError, "validation_fraction: got 1.0"),
        (9, {"test_fraction": float("nan")}, ConfigError, "test_fraction: got nan"),
    ],
)
def test_splits_that_cannot_be(n, options, error, expected):
    with pytest.raises(error, match=expected.replace("(", r"\(")):
        split_rows(np.arange(n), seed=0, **options)


# --- scores


def random_case(seed, classes=3, n=50, dtype=np.float64):
    random = np.random.Generator(np.random.Philox(key=seed))
    p = random.dirichlet(np.ones(classes), size=n).astype(dtype)
    return random.integers(classes, size=n), p, random


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_scores_are_those_of_scikit_learn(seed, dtype):
    metrics = pytest.importorskip("sklearn.metrics")
    y, p, random = random_case(seed, dtype=dtype)
    p[0] = [0, 0, 1]
    y[0] = 0  # one sure mistake
    guess = p.argmax(1)
    assert accuracy(y, guess) == pytest.approx(metrics.accuracy_score(y, guess), rel=1e-12)
    assert balanced_accuracy(y, guess) == pytest.approx(metrics.balanced_accuracy_score(y, guess), rel=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # float32 probabilities do not sum to 1 exactly
        expected = metrics.log_loss(y, p, labels=[0, 1, 2])
    assert log_loss(y, p) == pytest.approx(expected, rel=1e-12 if dtype == np.float64 else 1e-6)
    ones, margin = y > 0, np.round(p[:, 0], 1)  # with ties
    assert roc_auc(ones.astype(int), margin) == pytest.approx(metrics.roc_auc_score(ones, margin), rel=1e-12)
    values, guesses = random.normal(size=(2, 50))
    assert rmse(values, guesses) == pytest.approx(metrics.root_mean_squared_error(values, guesses), rel=1e-12)
    assert mae(values, guesses) == pytest.approx(metrics.mean_absolute_error(values, guesses), rel=1e-12)
    assert r2(values, guesses) == pytest.approx(metrics.r2_score(values, guesses), rel=1e-12)


def test_score_names():
    y, p, random = random_case(0, classes=2)
    assert list(score("classification", y, p)) == ["accuracy", "balanced_accuracy", "log_loss", "roc_auc"]
    assert list(score("classification", np.zeros(50, int), p)) == ["accuracy", "balanced_accuracy", "log_loss"]
    assert list(score("classification", *random_case(0)[:2])) == ["accuracy", "balanced_accuracy", "log_loss"]
    z = random.normal(size=50)
    assert score("regression", z, z) == {"rmse": 0, "mae": 0, "r2": 1}
    assert score("regression", np.ones(3), np.zeros(3)) == {"rmse": 1, "mae": 1}, "r2 of equal targets is undefined"


@pytest.mark.parametrize(
    ("task", "y", "prediction"),
    [
        ("regression", np.zeros(3), np.zeros((3, 1))),  # would broadcast to (3, 3)
        ("regression", np.zeros(3), np.zeros(2)),
        ("regression", np.zeros(0), np.zeros(0)),
        ("classification", np.zeros(3, int), np.zeros(3)),
    ],
)
def test_scores_of_shapes_that_do_not_fit(task, y, prediction):
    with pytest.raises(ShapeError, match=f"score of a {task}"):
        score(task, y, prediction)

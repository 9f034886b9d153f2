"""Baselines that are honest (right shapes, right rows, seeded), and leaks that are found without crying wolf."""

from __future__ import annotations

import numpy as np
import pytest

from slalom.tabular.baselines import run_baselines
from slalom.tabular.leaks import find_leaks
from slalom.tabular.preparation import Preparation
from slalom.tabular.reading import from_dataframe
from slalom.tabular.schema import infer_schema
from slalom.tabular.scores import score
from slalom.tabular.target import fit_target

pytest.importorskip("pyarrow")
N = 400
RANDOM = np.random.Generator(np.random.Philox(1))
X = RANDOM.normal(size=N)
NOISE = RANDOM.normal(size=N)
LEVEL = RANDOM.integers(12, size=N)
TRAIN, TEST = np.arange(300), np.arange(300, N)


def prepared(data, train=TRAIN, **options):
    table = from_dataframe({**data})
    schema = infer_schema(table, "y", **options)
    return table, schema, Preparation.fit(table, schema, train), fit_target(table, schema, train)


FEATURES = {
    "x": X,
    "gaps": np.where(RANDOM.random(N) < 0.2, np.nan, NOISE),
    "level": np.array([f"level {i}" for i in LEVEL]),
    "pair": np.where(NOISE > 0, "up", "down"),
    "truth": NOISE > 1,
    "day": np.datetime64("2020-01-01") + RANDOM.integers(2000, size=N),
}


def baselines(data, seed=0, **options):
    pytest.importorskip("sklearn")
    table, schema, preparation, target = prepared(data, **options)
    found = run_baselines(table, preparation, target, TRAIN, TEST, seed=seed)
    truth = target.encode(table, TEST)
    return found, {item.name: score(schema.task, truth, item.prediction) for item in found}


def test_baselines_of_classes_rise_in_order():
    y = np.where(X + LEVEL / 3 - 2 + NOISE / 4 > 0, "yes", "no")
    found, scores = baselines({**FEATURES, "y": y})
    assert [item.name for item in found] == ["constant", "logistic", "gradient boosting"]
    for item in found:
        assert item.prediction.shape == (100, 2) and item.notes == ()
        np.testing.assert_allclose(item.prediction.sum(axis=1), 1)
    np.testing.assert_allclose(found[0].prediction[0], [np.mean(y[TRAIN] == "no"), np.mean(y[TRAIN] == "yes")])
    assert scores["logistic"]["accuracy"] > 0.9 and scores["gradient boosting"]["accuracy"] > 0.8


def test_baselines_of_numbers():
    y = 1000 + 100 * (X + np.sin(3 * NOISE) * (LEVEL > 5))
    found, scores = baselines({**FEATURES, "plain": NOISE, "y": y})
    assert [item.name for item in found] == ["constant", "linear", "gradient boosting"]
    np.testing.assert_allclose(found[0].prediction, y[TRAIN].mean())
    rmse = [scores[item.name]["rmse"] for item in found]
    assert rmse[0] > rmse[1] > rmse[2], "the target is bent: lines beat the mean, trees beat lines"


def test_baselines_are_seeded():
    data = {**FEATURES, "y": X + NOISE}
    for a, b in zip(baselines(data, seed=3)[0], baselines(data, seed=3)[0], strict=True):
        assert a.prediction.tobytes() == b.prediction.tobytes()


def test_trees_that_set_rows_aside_are_seeded():
    pytest.importorskip("sklearn")
    n = 10_500
    x = RANDOM.normal(size=n)
    table = from_dataframe({"x": x, "y": x + RANDOM.normal(size=n)})
    schema = infer_schema(table, "y")
    rows = np.arange(n)
    preparation, target = Preparation.fit(table, schema, rows), fit_target(table, schema, rows)
    a, b, c = (run_baselines(table, preparation, target, rows[:-99], rows[-99:], seed=seed)[2] for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.prediction, b.prediction)
    assert (a.prediction != c.prediction).any()


def test_no_baseline_sees_the_test_rows():
    y = X + NOISE
    spoilt = np.where(np.arange(N) < 300, y, 1e6)
    for a, b in zip(baselines({**FEATURES, "y": y})[0], baselines({**FEATURES, "y": spoilt})[0], strict=True):
        np.testing.assert_array_equal(a.prediction, b.prediction)


def test_categories_carry_their_meaning_to_each_baseline():
    effect = RANDOM.permutation(12)  # no order in the codes helps
    _, scores = baselines({"x": X, "level": FEATURES["level"], "y": effect[LEVEL] * 10.0 + NOISE})
    assert scores["linear"]["r2"] > 0.98 and scores["gradient boosting"]["r2"] > 0.95


def test_more_levels_than_trees_can_take():
    pytest.importorskip("sklearn")
    n, train, test = 3640, np.arange(3120), np.arange(3380, 3640)  # each of 260 levels 12 times, and twice more
    levels = np.array([f"w{i % 260:03}" for i in range(n)])
    effect = RANDOM.permutation(260)[np.arange(n) % 260] * 1.0
    spoilt = levels.copy()
    spoilt[3120:3380] = "w259"
    predictions = []
    for level in (levels, spoilt):
        table = from_dataframe({"level": level, "y": effect})
        schema = infer_schema(table, "y")
        preparation = Preparation.fit(table, schema, train)
        assert preparation.cardinalities == (261,)
        predictions.append(run_baselines(table, preparation, fit_target(table, schema, train), train, test, seed=0))
    for a, b in zip(*predictions, strict=True):
        assert np.isfinite(a.prediction).all()
        np.testing.assert_array_equal(a.prediction, b.prediction, "which levels are kept is decided on training rows")


def test_a_class_without_training_rows_has_probability_0():
    y = np.where(np.arange(N) < 300, np.where(X > 0, "a", "c"), np.where(X > 0, "a", "b"))
    found, _ = baselines({"x": X, "y": y})
    for item in found:
        assert item.prediction.shape == (100, 3) and not item.prediction[:, 1].any()


@pytest.mark.parametrize("rare", [1, 2, 4])
def test_rare_classes_neither_stop_the_trees_nor_make_them_diverge(rare):
    pytest.importorskip("sklearn")
    n = 10_500  # enough rows for scikit-learn to set some aside, by class
    for seed in range(2):
        x = np.random.Generator(np.random.Philox(key=seed)).normal(size=n)
        y = np.where(x > 0, "a", "b")
        y[:rare] = "c"
        table = from_dataframe({"x": x, "y": y})
        schema = infer_schema(table, "y")
        rows = np.arange(n)
        target = fit_target(table, schema, rows)
        trees = run_baselines(table, Preparation.fit(table, schema, rows), target, rows[:-100], rows[-100:], seed=0)[2]
        assert trees.notes == ()
        np.testing.assert_array_equal(trees.prediction.argmax(1), y[-100:] == "b")
        np.testing.assert_allclose(trees.prediction[:, 2], rare / 10_400)
        np.testing.assert_allclose(trees.prediction.sum(axis=1), 1)


def test_trees_of_nothing_but_rare_classes():
    pytest.importorskip("sklearn")
    table = from_dataframe({"x": X[:10], "y": list("aabbcaabbc")})
    schema = infer_schema(table, "y")
    rows = np.arange(10)
    preparation, target = Preparation.fit(table, schema, rows), fit_target(table, schema, rows)
    for item in run_baselines(table, preparation, target, rows[:8], rows[8:], seed=0):
        np.testing.assert_allclose(item.prediction.sum(axis=1), 1)


def test_a_model_that_does_not_converge_is_said_not_shown(monkeypatch, recwarn):
    monkeypatch.setattr("slalom.tabular.baselines._ITERATIONS", 1)
    found, _ = baselines({**FEATURES, "y": np.where(X > 0, "a", "b")})
    assert "converge" in found[1].notes[0] and not recwarn.list


# --- leaks

CLASSES = np.array(["a", "b", "c"])[RANDOM.integers(3, size=N)]
YES = X + NOISE > 0.5
GAPS = np.where(YES, NOISE, np.nan)

LEAKS = {  # target, column, whether it is a leak
    "copy in other words": (YES, np.where(YES, "alive", "dead"), True),
    "copy of three classes": (CLASSES, np.array([{"a": 7, "b": 3, "c": 5}[c] for c in CLASSES]), True),
    "finer than the classes": (YES, np.where(YES, 10, 20) + RANDOM.integers(3, size=N), True),
    "finer, in words": (YES, np.char.add(np.where(YES, "y", "n"), (np.arange(N) % 40).astype(str)), True),
    "score with a threshold": (YES, X + NOISE, True),
    "three intervals": (np.digitize(X, [-0.5, 0.5]), X, True),
    "filled only for one class": (YES, GAPS, True),
    "words filled only for one class": (YES, np.where(YES, [f"boat {i % 150}" for i in range(N)], None), True),
    "rare words filled only for one class": (
        np.arange(N) % 4 > 0,
        np.where(np.arange(N) % 4, [f"boat {i * 3 // 4 % 260}" for i in range(N)], None),
        True,
    ),
    "dates after the event": (YES, np.where(YES, np.datetime64("2021-01-01"), np.datetime64("2020-01-01")), True),
    "one row in fifty differs": (YES, np.where(np.arange(N) % 50, YES, ~YES).astype(int), False),
    "strong but honest": (YES, X, False),
    "many words": (YES, np.array([f"w{i % 300}" for i in range(N)]), False),
    "random words, imbalanced": (np.arange(N) < 6, np.array([f"w{i}" for i in RANDOM.integers(200, size=N)]), False),
    "too few of the other class": (np.arange(N) < 3, np.where(np.arange(N) < 3, "p", "q"), False),
    "copy of a number": (X, X * -1000 + 3, True),
    "monotone in it": (X, np.exp(3 * X), True),
    "rounded": (X, np.round(X, 2), True),
    "its own categories": (np.round(X, 1), np.char.add("about ", np.round(X, 1).astype(str)), True),
    "codes of it": (LEVEL * 1.5, (LEVEL * 7) % 12, True),
    "correlated": (X, X + NOISE / 10, False),
    "few categories of a number": (X, np.where(X > 0, "up", "down"), False),
    "many words of a number": (X, np.array([f"w{i % 300}" for i in range(N)]), False),
    "mostly missing": (X, np.where(np.arange(N) % 3, np.nan, X), False),
}


@pytest.mark.parametrize("name", LEAKS)
def test_leaks(name):
    y, column, is_leak = LEAKS[name]
    table = from_dataframe({"suspect": column, "other": RANDOM.normal(size=N), "y": y})
    schema = infer_schema(table, "y", **({} if name != "codes of it" else {"task": "regression"}))
    rows = np.arange(N)
    found = find_leaks(table, schema, fit_target(table, schema, rows), rows)
    assert len(found) == is_leak
    if is_leak:
        assert found[0].startswith("column 'suspect' alone determines the target 'y' (")
        assert found[0].endswith("leave it out with --drop suspect")


def test_missing_half_of_a_rare_class_is_no_leak():
    n = 20_000
    y = np.arange(n) % 1000 == 0
    half = y & (np.arange(n) % 2000 == 0)  # wrong in 10 rows of 20,000, but they are half of the class
    table = from_dataframe({"x": RANDOM.normal(size=n), "half": half, "y": y})
    schema = infer_schema(table, "y")
    assert not find_leaks(table, schema, fit_target(table, schema, np.arange(n)), np.arange(n))


def test_identifiers_and_small_tables_are_no_leaks():
    table = from_dataframe({"name": [f"n{i}" for i in range(N)], "id": np.arange(N), "x": X, "y": YES})
    schema = infer_schema(table, "y")
    assert not find_leaks(table, schema, fit_target(table, schema, np.arange(N)), np.arange(N))
    small = from_dataframe({"x": [1, 2, 1, 2, 1, 2], "y": ["a", "b"] * 3})
    schema = infer_schema(small, "y")
    assert not find_leaks(small, schema, fit_target(small, schema, np.arange(6)), np.arange(6))


def test_noise_is_never_a_leak():
    for seed in range(30):
        random = np.random.Generator(np.random.Philox(key=seed))
        n = int(random.integers(20, 60))
        data = {f"x{i}": random.normal(size=n) for i in range(10)}
        data |= {f"w{i}": np.array([f"v{j}" for j in random.integers(n // 3, size=n)]) for i in range(10)}
        for y in (random.random(n) < 0.3, random.normal(size=n)):
            table = from_dataframe({**data, "y": y})
            schema = infer_schema(table, "y")
            assert find_leaks(table, schema, fit_target(table, schema, np.arange(n)), np.arange(n)) == []

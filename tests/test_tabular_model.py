"""`tabular.fit` and its Model: what it takes, what it promises, and what it refuses to load."""

from __future__ import annotations

import copy
import importlib
import math
import re

import numpy as np
import pytest

import slalom
from slalom.errors import ConfigError, DataError, MissingExtraError, ModelFileError
from slalom.tabular import Model, fit, from_dataframe, load
from slalom.tabular import fitting as module
from slalom.tabular.fitting import make_plan
from slalom.tabular.network import NetworkSizes, TabularNetwork
from slalom.train.files import load_file, save_file

ROWS = 120
RNG = np.random.default_rng(7)
SIZE, WEIGHT = RNG.normal(size=ROWS), RNG.normal(size=ROWS)
COLOUR = RNG.choice(["grün", "red", "blue"], ROWS)
TOWN = np.array([f"town {i}" for i in RNG.integers(0, 12, ROWS)])  # enough levels for an embedding
KIND = np.where(SIZE + (COLOUR == "red") + RNG.normal(size=ROWS) / 2 > 0.3, "yes, sir", "no")
FEATURES = {"size": SIZE, "weight": WEIGHT, "colour": COLOUR, "town": TOWN}
CLASSES = {**FEATURES, "kind": KIND}
NUMBERS = {**FEATURES, "price": 1000 + 100 * SIZE + 50 * (COLOUR == "red") + RNG.normal(size=ROWS)}


def quick(data, target, **options) -> Model:
    return fit(data, target, **{"epochs": 2, **options})


@pytest.fixture(scope="module")
def classifier() -> Model:
    return quick(CLASSES, "kind")


@pytest.fixture(scope="module")
def regressor() -> Model:
    return quick(NUMBERS, "price")


# --- what it predicts ----------------------------------------------------------------------------------------------
def _pandas(data):
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(data, index=np.arange(len(next(iter(data.values()))))[::-1] * 7)


def _polars(data):
    return pytest.importorskip("polars").DataFrame(data)


def _arrow(data):
    return pytest.importorskip("pyarrow").table(data)


FRAMES = {"dict": dict, "table": from_dataframe, "pandas": _pandas, "polars": _polars, "pyarrow": _arrow}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_any_frame_gives_the_same_model_and_predictions(frame, classifier):
    model = quick(frame(CLASSES), "kind")
    assert model.weights_sha256 == classifier.weights_sha256
    proba = model.predict_proba(frame(FEATURES))
    np.testing.assert_array_equal(proba, classifier.predict_proba(FEATURES))
    assert model.evaluate(frame(CLASSES)) == classifier.evaluate(CLASSES)


def test_classes(classifier):
    assert classifier.classes == ("no", "yes, sir")
    proba = classifier.predict_proba(FEATURES)
    assert proba.shape == (ROWS, 2)
    np.testing.assert_allclose(proba.sum(1), 1)
    guess = classifier.predict(FEATURES)
    assert (guess == np.array(classifier.classes)[proba.argmax(1)]).all()
    assert classifier.evaluate(CLASSES)["accuracy"] == np.mean(guess == KIND)
    assert repr(classifier).startswith("Model(classification of 'kind' from 4 columns, test accuracy ")


def test_numbers(regressor):
    guess = regressor.predict(FEATURES)
    assert guess.shape == (ROWS,) and guess.dtype == np.float64
    wanted = np.sqrt(np.mean((guess - NUMBERS["price"]) ** 2))
    assert regressor.evaluate(NUMBERS)["rmse"] == pytest.approx(wanted)
    assert regressor.classes == ()
    with pytest.raises(DataError, match="regression model; needed a classification model"):
        regressor.predict_proba(FEATURES)


@pytest.mark.parametrize(
    ("kind", "dtype"), [(KIND == "no", np.bool_), (np.where(KIND == "no", 3, 7), np.int64)], ids=["truth", "numbers"]
)
def test_classes_come_back_as_what_they_were(kind, dtype):
    guess = quick({**FEATURES, "kind": kind}, "kind").predict(FEATURES)
    assert guess.dtype == dtype
    assert set(guess.tolist()) <= set(kind.tolist())


def test_no_rows(classifier, regressor):
    empty = {name: values[:0] for name, values in FEATURES.items()}
    assert classifier.predict_proba(empty).shape == (0, 2)
    assert classifier.predict(empty).shape == regressor.predict(empty).shape == (0,)


def test_other_columns_and_their_order_mean_nothing(classifier):
    moved = {"extra": np.arange(ROWS), **dict(reversed(FEATURES.items()))}
    np.testing.assert_array_equal(classifier.predict_proba(moved), classifier.predict_proba(FEATURES))


def test_a_row_is_predicted_alone(classifier):
    """The other rows of a table say nothing about a row, so its place does not matter either."""
    order = np.random.default_rng(1).permutation(ROWS)
    moved = {name: values[order] for name, values in FEATURES.items()}
    np.testing.assert_allclose(
        classifier.predict_proba(moved), classifier.predict_proba(FEATURES)[order], rtol=0, atol=1e-6
    )


def test_the_result_is_that_of_the_test_rows(classifier, regressor):
    for model, data in ((classifier, CLASSES), (regressor, NUMBERS)):
        assert model.evaluate(data, model.test_rows) == model.result["test"]
        np.testing.assert_allclose(model.predict_raw(data)[model.test_rows], model.test_predictions, rtol=1e-6)
        assert sum(model.result["rows"].values()) == ROWS


# --- what is asked for ---------------------------------------------------------------------------------------------
def test_the_same_seed_gives_the_same_weights(classifier):
    assert quick(CLASSES, "kind").weights_sha256 == classifier.weights_sha256
    assert quick(CLASSES, "kind", seed=1).weights_sha256 != classifier.weights_sha256


def test_the_generator_is_left_as_it_was():
    slalom.manual_seed(5)
    plain = slalom.rand(3).numpy()
    slalom.manual_seed(5)
    quick(CLASSES, "kind", epochs=1)
    np.testing.assert_array_equal(slalom.rand(3).numpy(), plain)


def test_epochs():
    assert quick(CLASSES, "kind", epochs=3).result["epochs"] == 3


def test_kinds_of_columns():
    model = quick({**CLASSES, "code": RNG.integers(0, 3, ROWS)}, "kind", categorical=["code"], drop=["town"])
    kinds = {feature.name: type(feature).__name__ for feature in model.preparation.features}
    assert kinds == {"size": "Numeric", "weight": "Numeric", "colour": "OneHot", "code": "OneHot"}
    assert [item.name for item in model.preparation.left_out] == ["town"]
    with pytest.raises(DataError, match="needed a number"):
        quick(CLASSES, "kind", numeric=["town"])
    with pytest.raises(ConfigError, match="both numeric and categorical"):
        quick(CLASSES, "kind", numeric=["size"], categorical=["size"])


def test_task():
    data = {**FEATURES, "grade": RNG.integers(1, 4, ROWS)}
    assert quick(data, "grade").classes == ("1", "2", "3")
    assert quick(data, "grade", task="regression").result["task"] == "regression"


def test_groups_stay_together():
    model = quick({**CLASSES, "family": np.repeat(np.arange(30), 4)}, "kind", groups="family")
    assert (np.bincount(model.test_rows // 4, minlength=30) % 4 == 0).all()
    assert "family" not in {feature.name for feature in model.preparation.features}


def test_a_class_without_training_rows():
    """All rows of a class may lie in one group of the test rows: the class stays possible, with a small probability."""
    plan = make_plan({**CLASSES, "family": np.repeat(np.arange(30), 4)}, "kind", groups="family")
    kind = KIND.copy()
    kind[plan.split.test[:1] // 4 * 4 + np.arange(4)] = "never"
    model = quick({**CLASSES, "kind": kind, "family": np.repeat(np.arange(30), 4)}, "kind", groups="family")
    assert model.classes == ("never", "no", "yes, sir")
    assert 0 < model.predict_proba(FEATURES)[:, 0].max() < 0.5


def test_a_table_of_codes_alone():
    assert quick({"town": TOWN, "kind": KIND}, "kind").predict({"town": ["town 1", "unseen", None]}).shape == (3,)


def test_ten_rows():
    few = {name: values[:10] for name, values in CLASSES.items()}
    assert quick(few, "kind", drop=["town"]).result["rows"] == {"train": 6, "validation": 2, "test": 2}


def test_what_is_told():
    lines: list[str] = []
    quick({**CLASSES, "copy": np.where(KIND == "no", 1.0, 2.0)}, "kind", tell=lines.append)
    text = "\n".join(lines)
    assert "120 rows, 6 columns" in text
    assert "column 'copy' alone determines the target 'kind'" in text
    assert "parameters" in lines[-1]


def test_the_rmse_of_an_epoch_is_in_the_unit_of_the_target(tmp_path):
    model = quick(NUMBERS, "price", epochs=1, history=tmp_path / "history.jsonl")
    row = slalom.train.History.from_jsonl(tmp_path / "history.jsonl")[-1]
    rows = make_plan(NUMBERS, "price").split.validation
    assert row["val_rmse"] == pytest.approx(model.target.scale * math.sqrt(row["val_loss"]))
    assert row["val_rmse"] == pytest.approx(model.evaluate(NUMBERS, rows)["rmse"], rel=1e-3)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_nothing_is_prepared_from_rows_that_are_not_trained_on(part):
    plan = make_plan(NUMBERS, "price")
    rows = getattr(plan.split, part)
    spoilt = {name: values.copy() for name, values in NUMBERS.items()}
    spoilt["size"][rows] = 1e6
    spoilt["weight"][rows] = np.nan
    spoilt["colour"][rows] = "violet"
    spoilt["price"][rows] = -5e6
    other = make_plan(spoilt, "price")
    assert other.preparation.to_json() == plan.preparation.to_json()
    assert (other.target, other.sizes) == (plan.target, plan.sizes)
    if part == "test":
        assert quick(spoilt, "price").weights_sha256 == quick(NUMBERS, "price").weights_sha256


def test_baselines_and_leads():
    pytest.importorskip("sklearn")
    model = quick(CLASSES, "kind", baselines=True)
    result = model.result
    assert set(result["baselines"]) == set(result["leads"]) == {"constant", "logistic", "gradient_boosting"}
    for name, lead in result["leads"].items():
        difference = result["test"]["accuracy"] - result["baselines"][name]["accuracy"]
        assert lead["mean"] == pytest.approx(difference)
        assert lead["standard_error"] >= abs(difference) / math.sqrt(result["rows"]["test"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"task": "ranking"}, "task: got 'ranking'; needed one of classification, regression"),
        ({"seed": -1}, "seed: got -1; needed a whole number from 0"),
        ({"seed": "7"}, "seed: got '7'"),
        ({"seed": True}, "seed: got True"),
        ({"epochs": 0}, "epochs: got 0; needed a whole number of at least 1"),
        ({"epochs": 1.5}, "epochs: got 1.5"),
        ({"epochs": "3"}, "epochs: got '3'"),
        ({"test_fraction": "0.2"}, "test_fraction: got '0.2'; needed a number between 0 and 1"),
        ({"groups": "y"}, "groups 'y': got the target; needed the name of another column"),
        ({"groups": 3}, "no column 3: needed one of a, y"),
        ({"target": 5}, "no column 5: needed one of a, y"),
        ({"drop": [None]}, "no column None"),
    ],
)
def test_arguments_that_make_no_sense(arguments, said):
    with pytest.raises((ConfigError, DataError), match=re.escape(said)):
        fit({"a": np.arange(30) % 7, "y": ["p", "q"] * 15}, **{"target": "y"} | arguments)


def test_numbers_of_numpy_are_numbers():
    table = {"a": np.arange(30) % 7, "y": ["p", "q"] * 15}
    one, other = fit(table, "y", seed=np.int64(3), epochs=np.int32(1)), fit(table, "y", seed=3, epochs=1)
    assert one.weights_sha256 == other.weights_sha256


def test_a_package_that_is_not_whole(monkeypatch):
    def broken(module):
        raise ModuleNotFoundError("No module named 'scipy'", name="scipy")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(MissingExtraError, match=r"needs sklearn: got no scipy, which it needs. Hint: pip install"):
        fit({"a": np.arange(30), "y": ["p", "q"] * 15}, "y", baselines=True)


def test_missing_scikit_learn_is_said_before_training(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn", None)
    monkeypatch.setattr(module, "make_plan", lambda *a, **k: pytest.fail("went on"))
    with pytest.raises(MissingExtraError, match=r"pip install 'slalom\[cli\]'"):
        fit(CLASSES, "kind", baselines=True)


# --- files ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["classifier", "regressor"])
def test_a_file_gives_the_model_back(name, request, tmp_path):
    model = request.getfixturevalue(name)
    model.save(tmp_path / "m.safetensors")
    state = slalom.core.random.default_generator.get_state().numpy()
    again = load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(slalom.core.random.default_generator.get_state().numpy(), state)
    np.testing.assert_array_equal(again.predict_raw(FEATURES), model.predict_raw(FEATURES))
    np.testing.assert_array_equal(again.test_predictions, model.test_predictions)
    np.testing.assert_array_equal(again.test_rows, model.test_rows)
    assert again.facts() == model.facts()
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()


@pytest.mark.parametrize(
    "sizes",
    [
        NetworkSizes(3, 2, (), 1),
        NetworkSizes(0, 0, (5, 1), 4, hidden=(7,)),
        NetworkSizes(2, 0, (12,), 3, hidden=(), frequencies=5, periodic=2, embedding=3),
    ],
)
def test_parameters_are_counted(sizes):
    assert sizes.parameters == sum(p.numel() for p in TabularNetwork(sizes).parameters())


def _set(*path):
    """A change of a document: all but the last of the path lead to a place, the last is put there."""
    *keys, last, value = path

    def change(document, tensors):
        for key in keys:
            document = document[key]
        document[last] = value

    return change


def _drop(*path):
    *keys, last = path

    def change(document, tensors):
        for key in keys:
            document = document[key]
        del document[last]

    return change


def _tensor(name, make):
    def change(document, tensors):
        tensors[name] = make(tensors.get(name))

    return change


def _without(name):
    def change(document, tensors):
        del tensors[name]

    return change


HOSTILE = {
    "no sizes": _drop("sizes"),
    "no target": _drop("target"),
    "another field": _set("code", "import os"),
    "sizes are a list": _set("sizes", []),
    "a size is missing": _drop("sizes", "hidden"),
    "a size is text": _set("sizes", "continuous", "2"),
    "a size is true": _set("sizes", "continuous", True),
    "a size is negative": _set("sizes", "frequencies", -1),
    "no outputs": _set("sizes", "outputs", 0),
    "wrong width": _set("sizes", "hidden", [256, 255, 256]),
    "no memory is large enough": _set("sizes", "hidden", [10**9, 10**9]),
    "huge embedding": _set("sizes", "embedding", 10**12),
    "dropout of 1": _set("sizes", "dropout", 1.0),
    "other features": _set("sizes", "continuous", 3),
    "no features": _set("preparation", "features", []),
    "feature of another kind": _set("preparation", "features", 0, "kind", "eval"),
    "feature without a scale": _drop("preparation", "features", 0, "scale"),
    "one class more": _set("target", "classes", ["no", "yes, sir", "perhaps"]),
    "class twice": _set("target", "classes", ["no", "no"]),
    "result is text": _set("result", "very good"),
    "scores are text": _set("result", "test", "very good"),
    "a score is text": _set("result", "test", "accuracy", "1"),
    "no accuracy": _drop("result", "test", "accuracy"),
    "no number of test rows": _drop("result", "rows", "test"),
    "another task": _set("result", "task", "regression"),
    "baselines without leads": _set("result", "baselines", {"constant": {"accuracy": 0.5}}),
    "no weights of the head": _without("network.head.weight"),
    "a weight of another shape": _tensor("network.head.bias", lambda a: a.reshape(1, -1)),
    "a weight of another dtype": _tensor("network.head.bias", lambda a: a.astype(np.float64)),
    "a tensor more": _tensor("network.extra", lambda a: np.zeros(1, np.float32)),
    "a tensor of another name": _tensor("head.bias", lambda a: np.zeros(0, np.float32)),
    "no test rows": _without("test.rows"),
    "test rows of another dtype": _tensor("test.rows", lambda a: a.astype(np.float64)),
    "fewer test predictions": _tensor("test.predictions", lambda a: a[1:]),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file(change, classifier, tmp_path):
    path = tmp_path / "m.safetensors"
    classifier.save(path)
    tensors, document = load_file(path, kind="model")
    document = copy.deepcopy(document)
    change(document, tensors)
    save_file(path, tensors, document, kind="model")  # with a digest that is right
    with pytest.raises(ModelFileError, match=r"m\.safetensors: "):
        load(path)


def test_another_kind_of_model(tmp_path):
    path = tmp_path / "m.safetensors"
    slalom.save(slalom.nn.Linear(2, 1), path)
    with pytest.raises(ModelFileError, match="another kind of model"):
        load(path)

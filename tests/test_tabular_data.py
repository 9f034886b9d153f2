"""Real tables: what is understood of each, checked against what a person sees in them; skipped where absent."""

from __future__ import annotations

import json

import numpy as np
import pytest

from slalom.tabular.baselines import run_baselines
from slalom.tabular.leaks import find_leaks
from slalom.tabular.preparation import Preparation
from slalom.tabular.reading import from_dataframe, read_table
from slalom.tabular.schema import infer_schema
from slalom.tabular.scores import score
from slalom.tabular.split import split_rows
from slalom.tabular.target import fit_target

pytest.importorskip("pyarrow")

# file, target: task, rows, kinds that are not numeric, numbers and codes given to a network, leaks,
# and a floor for the boosted trees' main score (accuracy, or r2)
TABLES = {
    ("adult.csv.gz", "income"): (
        "classification",
        48_842,
        dict.fromkeys(
            ["workclass", "education", "marital_status", "occupation", "relationship", "race", "sex", "native_country"],
            "categorical",
        ),
        (33, (17, 15, 41)),
        [],
        0.865,
    ),
    ("diamonds.csv.gz", "price"): (
        "regression",
        53_940,
        dict.fromkeys(["cut", "color", "clarity"], "categorical"),
        (26, ()),
        [],
        0.98,
    ),
    ("phoneme.csv", "nasal"): ("classification", 5_404, {}, (5, ()), [], 0.88),
    ("abalone.csv", "rings"): ("regression", 4_177, {"sex": "categorical"}, (10, ()), [], 0.45),
    ("penguins.csv", "species"): (
        "classification",
        344,
        dict.fromkeys(["island", "sex"], "categorical"),
        (12, ()),
        [],
        0.94,
    ),
    ("titanic.csv", "survived"): (
        "classification",
        891,
        {
            **dict.fromkeys(["sex", "embarked", "class", "who", "deck", "embark_town", "alive"], "categorical"),
            **dict.fromkeys(["adult_male", "alone"], "boolean"),
        },
        (29, ()),
        ["alive"],
        0.99,
    ),
}


@pytest.mark.parametrize(("file", "target"), TABLES)
def test_real_table(file, target, shared_data):
    task, rows, kinds, widths, leaks, floor = TABLES[file, target]
    table = read_table(shared_data(file))
    schema = infer_schema(table, target)
    assert (schema.task, len(schema.rows), table.rows) == (task, rows, rows)
    assert {column.name: column.kind for column in schema.columns if column.kind != "numeric"} == kinds
    assert not schema.notes

    labels = table[target].words.codes if task == "classification" else None
    split = split_rows(schema.rows, seed=0, labels=labels)
    goal = fit_target(table, schema, split.train)
    assert [line.split("'")[1] for line in find_leaks(table, schema, goal, schema.rows)] == leaks

    preparation = Preparation.fit(table, schema, split.train)
    prepared = preparation.transform(table)
    assert (prepared.numbers.shape[1], preparation.cardinalities) == widths
    assert np.isfinite(prepared.numbers).all() and np.abs(prepared.numbers).max() <= 3
    assert Preparation.from_json(json.loads(json.dumps(preparation.to_json()))) == preparation
    assert preparation.notes(table, ignore=[target]) == []

    pytest.importorskip("sklearn")
    learnable = np.sort(np.concatenate([split.train, split.validation]))
    found = run_baselines(table, preparation, goal, learnable, split.test, seed=0)
    truth = goal.encode(table, split.test)
    scores = [score(task, truth, item.prediction)["accuracy" if task == "classification" else "r2"] for item in found]
    assert scores[0] < min(scores[1:]) and scores[2] > floor
    assert [item.notes for item in found] == [(), (), ()]


def test_adult_from_a_dataframe_is_the_same_as_from_its_file(shared_data):
    pandas = pytest.importorskip("pandas")
    path = shared_data("adult.csv.gz")
    tables = [read_table(path), from_dataframe(pandas.read_csv(path))]  # pandas keeps the question marks
    preparations = [Preparation.fit(table, infer_schema(table, "income"), np.arange(30_000)) for table in tables]
    assert preparations[0] == preparations[1]
    for a, b in zip(*(preparations[0].transform(table) for table in tables), strict=True):
        np.testing.assert_array_equal(a, b)


def test_musk_is_split_by_molecule(shared_data):
    pandas = pytest.importorskip("pandas")
    names = ["molecule", "conformation", *(f"f{i}" for i in range(1, 167)), "musk"]
    table = from_dataframe(pandas.read_csv(shared_data("musk1.data"), header=None, names=names))
    schema = infer_schema(table, "musk", drop=["molecule"])
    assert schema.columns[1].kind == "identifier" and len(schema.used) == 166
    molecule = table["molecule"].words.codes
    split = split_rows(schema.rows, seed=0, labels=table["musk"].words.codes, groups=molecule)
    parts = [set(molecule[part].tolist()) for part in (split.train, split.validation, split.test)]
    assert sum(map(len, parts)) == 92 == len(set.union(*parts)), "no molecule in two parts"
    assert 80 <= len(split.test) <= 110
    leaky = infer_schema(table, "musk")
    goal = fit_target(table, leaky, schema.rows)
    assert "'molecule'" in find_leaks(table, leaky, goal, schema.rows)[0]

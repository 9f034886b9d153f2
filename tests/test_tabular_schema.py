"""What is understood of a table: kinds, task, words, and the mistakes that are named instead of learnt."""

from __future__ import annotations

import numpy as np
import pytest

from slalom.errors import ConfigError, DataError
from slalom.tabular.reading import from_dataframe, read_table
from slalom.tabular.schema import infer_schema

pytest.importorskip("pyarrow")
N = 100
RANDOM = np.random.Generator(np.random.Philox(0))
SHUFFLED = RANDOM.permutation(N)
Y = np.array(["yes", "no"] * (N // 2))


def words(*levels, missing=0):
    cells = [levels[i % len(levels)] for i in range(N)]
    return np.array([None] * missing + cells[missing:], dtype=object)


KINDS = {
    "floats": (RANDOM.normal(size=N), "numeric"),
    "floats all different, growing": (np.sort(RANDOM.normal(size=N)), "numeric"),
    "whole numbers": (np.arange(N) % 7, "numeric"),
    "0 and 1": (np.arange(N) % 2, "numeric"),
    "one number and gaps": ([1.0, np.nan] * (N // 2), "numeric"),
    "different whole numbers": (SHUFFLED * 7, "numeric"),
    "growing whole numbers": (np.arange(N) * 7, "identifier"),
    "shuffled row numbers": (SHUFFLED + 5, "identifier"),
    "customer_id": (SHUFFLED * 7, "identifier"),
    "PassengerId": (SHUFFLED * 7, "identifier"),
    "valid": (SHUFFLED * 7, "numeric"),
    "truth": ([True, False] * (N // 2), "boolean"),
    "words of truth": (words("true", "FALSE"), "boolean"),
    "words": (words("a", "b", "c"), "categorical"),
    "many words": (words(*(f"w{i}" for i in range(80))), "categorical"),
    "all different words": (words(*(f"w{i}" for i in range(95))), "identifier"),
    "different words where filled": (words(*(f"w{i}" for i in range(100)), missing=50), "identifier"),
    "one word and gaps": (words("a", missing=50), "categorical"),
    "dates": (np.datetime64("2024-01-01") + np.arange(N), "datetime"),
    "written dates": (words(*(f"2024-01-{i + 1:02}" for i in range(30))), "datetime"),
    "long codes": (words("12345678901234567890", "12345678901234567891"), "categorical"),
    "one number": (np.ones(N), "constant"),
    "one word": (words("a"), "constant"),
    "one truth": (np.ones(N, bool), "constant"),
    "empty": (np.full(N, np.nan), "constant"),
}


@pytest.mark.parametrize("name", KINDS)
def test_kind_of_a_column(name):
    values, kind = KINDS[name]
    table = from_dataframe({name: values, "x": RANDOM.normal(size=N), "y": Y})
    column = infer_schema(table, "y").columns[0]
    assert (column.name, column.kind) == (name, kind)
    assert column.is_used == (kind not in ("constant", "identifier"))
    assert bool(column.detail) == (not column.is_used), "what is left out has a reason, and only that"


def test_small_tables_have_no_identifiers():
    table = from_dataframe({"a": [1, 2, 3, 4, 5], "b": list("vwxyz"), "y": [0, 1, 0, 1, 0]})
    assert [column.kind for column in infer_schema(table, "y").columns] == ["numeric", "categorical"]


def test_declared_categories_stay_categories():
    pa = pytest.importorskip("pyarrow")
    codes = pa.array([str(i) for i in range(N)]).dictionary_encode()
    schema = infer_schema(from_dataframe(pa.table({"code": codes, "y": Y})), "y")
    assert schema.columns[0].kind == "categorical"


TASKS = {
    "text": (Y, "classification"),
    "boolean": (Y == "yes", "classification"),
    "two numbers": (np.arange(N) % 2 + 0.5, "classification"),
    "few whole numbers": (np.arange(N) % 10, "classification"),
    "more whole numbers": (np.arange(N) % 11, "regression"),
    "few fractions": (np.arange(N) % 3 / 2, "regression"),
    "floats": (RANDOM.normal(size=N), "regression"),
}


@pytest.mark.parametrize("name", TASKS)
def test_task(name):
    y, task = TASKS[name]
    table = from_dataframe({"x": RANDOM.normal(size=N), "y": y})
    assert infer_schema(table, "y").task == task
    if name != "text":
        assert infer_schema(table, "y", task="regression").task == "regression"
    if name != "floats":
        assert infer_schema(table, "y", task="classification").task == "classification"


def test_more_than_ten_whole_numbers_are_numbers():
    for levels, task in ((10, "classification"), (11, "regression")):
        table = from_dataframe({"x": RANDOM.normal(size=1000), "y": np.arange(1000) % levels})
        assert infer_schema(table, "y").task == task


def test_few_rows_of_few_whole_numbers_are_numbers():
    table = from_dataframe({"x": RANDOM.normal(size=20), "y": np.arange(20) % 4})
    assert infer_schema(table, "y").task == "regression"


def test_overrides():
    table = from_dataframe({"a": np.arange(N) % 7, "b": np.arange(N), "c": words("1", "x", "y"), "d": Y, "y": Y})
    schema = infer_schema(table, "y", numeric=["b"], categorical=["a"], drop=["d", "c"])
    assert {column.name: column.kind for column in schema.columns} == {
        "a": "categorical",
        "b": "numeric",
        "c": "dropped",
        "d": "dropped",
    }
    assert [column.name for column in schema.used] == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "error", "expected"),
    [
        ({"numeric": ["a"], "drop": ["a"]}, ConfigError, "column 'a': got both numeric and dropped"),
        ({"drop": ["y"]}, ConfigError, "got the target"),
        ({"drop": "a"}, ConfigError, "a list of column names"),
        ({"drop": ["aa"]}, DataError, "no column 'aa'"),
        ({"numeric": ["w"]}, DataError, "column 'w', row 1: got 'u'; needed a number"),
        ({"drop": ["a", "w"]}, DataError, "no column to learn from: got 'a': as you asked"),
    ],
)
def test_overrides_that_make_no_sense(options, error, expected):
    table = from_dataframe({"a": np.arange(N) % 7, "w": words("u", "v"), "y": Y})
    with pytest.raises(error) as raised:
        infer_schema(table, "y", **options)
    assert expected in str(raised.value) and "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def with_stray_word(tmp_path_factory):
    path = tmp_path_factory.mktemp("stray") / "people.csv"
    rows = [f"{i % 90},{'yes' if i % 3 else 'no'}\n" for i in range(40_000)]
    rows[30_000 - 1] = "abc,yes\n"
    path.write_text("age,y\n" + "".join(rows))
    return read_table(path)


def test_a_word_in_row_30000_of_a_number_column_is_named(with_stray_word):
    with pytest.raises(DataError) as error:
        infer_schema(with_stray_word, "y")
    assert str(error.value) == (
        "people.csv, column 'age', row 30000: got 'abc'; needed a number, as in 39,999 other rows. Hint: correct the "
        "cell, leave it empty if the value is missing, or make the column categorical (--categorical age)"
    )
    assert infer_schema(with_stray_word, "y", categorical=["age"]).columns[0].kind == "categorical"
    with pytest.raises(DataError, match=r"column 'age', row 30000: got 'abc'.*--task classification"):
        infer_schema(with_stray_word, "age")  # as the target


@pytest.mark.parametrize(
    ("numbers", "others", "is_mistake"), [(9, 1, True), (8, 1, False), (198, 2, True), (197, 3, False), (99, 1, True)]
)
def test_how_many_words_are_a_mistake(numbers, others, is_mistake):
    cells = [str(i % 40) for i in range(numbers)] + ["x"] * others
    table = from_dataframe({"a": cells, "b": RANDOM.normal(size=len(cells)), "y": np.arange(len(cells)) % 2})
    if is_mistake:
        with pytest.raises(DataError, match="got 'x'"):
            infer_schema(table, "y")
    else:
        schema = infer_schema(table, "y")
        assert schema.columns[0].kind in ("categorical", "identifier")
        assert f"'a' is taken as text: {others} of its {len(cells)} cells are words" in schema.notes[0]


Z = np.linspace(0, 1, N)


def at(row, value):
    cells = Z.copy()
    cells[row] = value
    return cells


BAD = {
    "no such column": ({"x": Z, "y": Y}, "Y", "no column 'Y'"),
    "one row": ({"x": [1.0], "y": [1.0]}, "y", "got 1 row with a value of 'y'; needed at least 5"),
    "four rows": ({"x": Z[:4], "y": Z[:4]}, "y", "got 4 rows"),
    "one class": (
        {"x": Z, "y": words("a")},
        "y",
        "target 'y': got 'a' in all of 100 rows; needed at least two classes",
    ),
    "one class and gaps": ({"x": Z, "y": words("a", missing=50)}, "y", "got 'a' in all of 50 rows"),
    "one number": ({"x": Z, "y": np.full(N, 0.5)}, "y", "got '0.5' in all of 100 rows"),
    "all missing": ({"x": Z, "y": [None] * N}, "y", "target 'y': got no value in 100 rows"),
    "inf in the target": ({"x": Z, "y": at(7, np.inf)}, "y", "column 'y', row 8: got inf"),
    "1e308 in the target": ({"x": Z, "y": at(7, 1e308)}, "y", "column 'y', row 8: got 1e+308; needed a number of size"),
    "inf in a feature": ({"x": at(7, -np.inf), "y": Y}, "y", "column 'x', row 8: got -inf"),
    "1e308 in a feature": ({"x": at(7, 1e308), "y": Y}, "y", "column 'x', row 8: got 1e+308"),
    "all different words": ({"x": Z, "y": [f"w{i}" for i in range(N)]}, "y", "got 100 different values in 100 rows"),
    "only the target": ({"y": Y}, "y", "no column to learn from: got only the target"),
    "only an identifier": ({"id": np.arange(N), "y": Y}, "y", "no column to learn from: got 'id': whole numbers that"),
    "dates as the target": ({"x": Z, "y": np.datetime64("2024-01-01") + np.arange(N)}, "y", "needed a number"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_tables_are_refused(name):
    data, target, expected = BAD[name]
    with pytest.raises(DataError) as error:
        infer_schema(from_dataframe(data), target)
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_classes_asked_for_of_a_target_of_measurements():
    with pytest.raises(DataError, match="ask for --task regression"):
        infer_schema(from_dataframe({"x": Z, "y": Z}), "y", task="classification")
    with pytest.raises(DataError, match="row 8: got inf"):
        infer_schema(from_dataframe({"x": Z, "y": at(7, np.inf).round()}), "y", task="classification")


def test_rows_without_a_target_are_set_aside_and_said():
    schema = infer_schema(from_dataframe({"x": Z, "y": at(slice(10, 15), np.nan)}), "y")
    assert schema.rows.tolist() == [*range(10), *range(15, N)]
    assert schema.notes == ("5 rows without a value of 'y' set aside",)


def test_nothing_unused_is_refused():
    table = from_dataframe({"x": Z, "junk": at(7, np.inf), "y": Y})
    assert infer_schema(table, "y", drop=["junk"]).used[0].name == "x"


def test_what_is_told_of_a_table():
    table = from_dataframe(
        {
            "row": np.arange(N),
            "size": at(3, np.nan),
            "fit, or not": words("true", "false"),
            "colour": words("red", "green", "blue", missing=7),
            "day": np.datetime64("2024-01-01") + np.arange(N) % 30,
            "unit": words("cm"),
            "grade": np.arange(N) % 4,
        },
        source="things.csv",
    )
    assert infer_schema(table, "grade").describe() == [
        "table        things.csv: 100 rows, 7 columns",
        "target       grade: classification, 4 classes: 0 25.0%, 1 25.0%, 2 25.0%, 3 25.0%",
        "numeric      size (1 missing)",
        "boolean      'fit, or not'",
        "categorical  colour (3 levels, 7 missing)",
        "datetime     day",
        "left out     row (whole numbers that grow from row to row), unit (always cm)",
        "note         the task is classification because 'grade' holds 4 different whole numbers "
        "(or --task regression)",
    ]


def test_wide_tables_are_told_briefly():
    table = from_dataframe({**{f"x{i}": RANDOM.normal(size=N) for i in range(200)}, "y": Z})
    lines = infer_schema(table, "y").describe()
    assert lines[1] == "target       y: regression, 0 to 1, median 0.5"
    assert lines[2].endswith("x10, x11 … and 188 more")

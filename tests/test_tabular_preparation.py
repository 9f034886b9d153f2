"""Preparation: fitted on training rows alone, total on whatever comes after, the same after a trip through a file."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slalom.errors import DataError, ModelFileError
from slalom.tabular import preparation as module
from slalom.tabular.closed import read_record, write_record
from slalom.tabular.preparation import (
    Boolean,
    Datetime,
    Embedded,
    LeftOut,
    Numeric,
    OneHot,
    Preparation,
    find_levels,
)
from slalom.tabular.reading import from_dataframe
from slalom.tabular.schema import infer_schema
from slalom.tabular.table import LARGEST, Words
from slalom.tabular.target import ClassTarget, NumberTarget, fit_target, read_target, write_target

pytest.importorskip("pyarrow")
NAN = np.nan
N = 40
ALL = np.arange(N)
Y = np.arange(N) % 2


def fit(values, rows=ALL, **options):
    """The preparation of a single column."""
    table = from_dataframe({"c": values, "y": Y})
    return Preparation.fit(table, infer_schema(table, "y", **options), rows)


def apply(preparation, values):
    return preparation.transform(from_dataframe({"c": values}))


def smooth(z):
    return z / np.sqrt(1 + (z / 3) ** 2)


def test_numeric_is_median_quartiles_and_smooth_clip():
    values = np.arange(N) ** 2 / 7
    preparation = fit(values)
    q25, median, q75 = np.quantile(values, [0.25, 0.5, 0.75])
    numbers = apply(preparation, values).numbers
    np.testing.assert_allclose(numbers[:, 0], smooth((values - median) / (q75 - q25)), rtol=1e-6)
    assert preparation.labels == ("c",) and preparation.is_continuous.tolist() == [True]
    far = apply(preparation, [LARGEST, -LARGEST, NAN, 5e-324]).numbers[:, 0]
    np.testing.assert_allclose(far[:3], [3, -3, 0], rtol=1e-6)
    assert np.isfinite(far).all() and numbers.dtype == np.float32


def test_numeric_with_equal_quartiles_is_scaled_by_its_range():
    values = np.where(ALL == 7, 10.0, 2.0)
    np.testing.assert_allclose(apply(fit(values), [2, 10, 6]).numbers[:, 0], smooth(np.array([0, 2, 1])), rtol=1e-6)


@pytest.mark.parametrize(
    "values",
    [
        np.where(ALL < 20, 0, 5e-324),  # no inverse
        np.where(ALL < 20, -LARGEST, LARGEST),
        np.where(ALL == 3, 1e12, np.linspace(0, 1, N)),
        np.linspace(1e15, 1e15 + 1, N),
    ],
)
def test_extreme_numbers_stay_finite(values):
    table = from_dataframe({"c": values, "x": np.linspace(0, 1, N), "y": Y})
    numbers = Preparation.fit(table, infer_schema(table, "y"), ALL).transform(table).numbers
    assert np.isfinite(numbers).all() and np.abs(numbers).max() <= 3


def test_missing_numbers_get_an_indicator_where_training_rows_have_some():
    values = np.where(ALL % 4 == 0, NAN, np.linspace(-1, 1, N))
    with_indicator, without = fit(values), fit(np.linspace(-1, 1, N))
    assert with_indicator.labels == ("c", "c is missing") and with_indicator.is_continuous.tolist() == [True, False]
    np.testing.assert_array_equal(apply(with_indicator, [NAN]).numbers, [[0, 1]])
    np.testing.assert_array_equal(apply(without, [NAN]).numbers, [[0]])
    only_indicator = fit(np.where(ALL % 4 == 0, NAN, 1.0))
    assert only_indicator.labels == ("c is missing",)
    np.testing.assert_array_equal(apply(only_indicator, [NAN, 1, 2]).numbers, [[1], [0], [0]])


def test_booleans_and_two_levels_are_plus_and_minus_one():
    numbers = apply(fit([True, False] * 20), np.array([True, False, None], dtype=object)).numbers
    np.testing.assert_array_equal(numbers, [[1], [-1], [0]])
    np.testing.assert_array_equal(apply(fit([True, False] * 20), ["1", "FALSE", "?"]).numbers, [[1], [-1], [0]])
    two = fit(["b", "a"] * 20)
    assert two.labels == ("c = b",)
    np.testing.assert_array_equal(apply(two, ["a", "b", "NA", "unseen"]).numbers, [[-1], [1], [0], [0]])


@pytest.mark.parametrize("levels", [1, 3, 9])
def test_few_levels_are_one_hot(levels):
    cells = [f"w{i % levels}" for i in range(N - 1)] + [None]
    preparation = fit(np.array(cells, dtype=object))
    numbers = apply(preparation, [*(f"w{i}" for i in range(levels)), "NA", "unseen"]).numbers
    np.testing.assert_array_equal(numbers, np.vstack([np.eye(levels), np.zeros((2, levels))]))
    assert preparation.cardinalities == () and not preparation.is_continuous.any()


def test_many_levels_are_codes_and_rare_ones_share_code_0():
    cells = [f"w{i % 12:02}" for i in range(36)] + ["once", "twice", "twice", None]
    preparation = fit(np.array(cells, dtype=object))
    assert preparation.cardinalities == (14,) and preparation.labels == ()
    prepared = apply(preparation, ["w00", "w11", "twice", "once", "NA", "unseen"])
    assert prepared.categories.tolist() == [[2], [13], [1], [0], [0], [0]] and prepared.categories.dtype == np.int64
    assert prepared.numbers.shape == (6, 0)


def test_levels_beyond_the_cap_share_code_0(monkeypatch):
    monkeypatch.setattr(module, "MOST_LEVELS", 11)
    cells = [f"w{i:02}" for i in range(12) for _ in range(3)] + ["w00"] * 4
    assert apply(fit(cells), ["w00", "w10", "w11"]).categories.tolist() == [[1], [11], [0]]


def test_levels_of_one_training_row_leave_few():
    cells = ["a"] * 15 + ["b"] * 15 + [f"w{i}" for i in range(10)]
    np.testing.assert_array_equal(apply(fit(cells), ["a", "b", "w0"]).numbers, [[-1], [1], [0]])


def test_datetimes_are_a_number_and_their_place_in_periods():
    hours = np.datetime64("2024-01-01") + np.arange(N) * np.timedelta64(25, "h")
    preparation = fit(np.where(ALL == 3, np.datetime64("NaT"), hours))
    waves = [f"c {wave} of the {period}" for period in ("day", "week") for wave in ("sine", "cosine")]
    assert preparation.labels == ("c", *waves, "c is missing")  # the year does not come round
    numbers = apply(preparation, ["1970-01-01", "1970-01-01T06:00", "NA"]).numbers
    np.testing.assert_allclose(numbers[:, 1:3], [[0, 1], [1, 0], [0, 0]], atol=1e-6)
    assert numbers[:, -1].tolist() == [0, 0, 1]
    days = fit(np.datetime64("2024-01-01") + np.arange(N))
    assert days.labels == ("c", "c sine of the week", "c cosine of the week"), "the time of day is always midnight"


def test_numbers_that_take_many_values_come_first():
    table = from_dataframe(
        {"b": [True, False] * 20, "x": np.where(ALL == 0, NAN, ALL / 7), "w": list("abcd") * 10, "z": ALL / 3, "y": Y}
    )
    preparation = Preparation.fit(table, infer_schema(table, "y"), ALL)
    assert preparation.labels == ("x", "z", "b", "x is missing", "w = a", "w = b", "w = c", "w = d")
    assert preparation.is_continuous.tolist() == [True] * 2 + [False] * 6
    numbers = preparation.transform(table).numbers
    np.testing.assert_array_equal(numbers[:, 2], np.where(ALL % 2 == 0, 1, -1))
    np.testing.assert_array_equal(preparation.transform(table, np.array([5, 3])).numbers, numbers[[5, 3]])


def test_a_column_constant_in_the_training_rows_is_left_out():
    table = from_dataframe(
        {"c": np.where(ALL < 30, 1.0, ALL), "w": np.where(ALL < 30, "a", "b"), "t": ALL < 30, "x": ALL / 7, "y": Y}
    )
    preparation = Preparation.fit(table, infer_schema(table, "y"), np.arange(30))
    assert [item.name for item in preparation.left_out] == ["c", "w", "t"]
    assert preparation.labels == ("x",)
    with pytest.raises(DataError, match="no column differs within the 2 training rows"):
        Preparation.fit(table, infer_schema(table, "y", drop=["x"]), np.arange(2))


KINDS_OF_COLUMNS = {
    "numeric": np.linspace(-1, 1.25, N) ** 3,
    "gaps": np.where(ALL % 5 == 0, NAN, ALL / 7),
    "few": np.array(list("abcde") * 8),
    "many": np.array([f"w{i % 15}" for i in range(N)]),
    "time": np.datetime64("2024-01-01T00:00") + np.arange(N) * np.timedelta64(13, "h"),
    "truth": ALL % 3 == 0,
}
CANARIES = {
    "numeric": 1e30,
    "gaps": NAN,
    "few": "canary",
    "many": "canary",
    "time": np.datetime64("1900-06-15T07:00"),
    "truth": True,
}


def test_no_row_but_training_rows_has_any_influence():
    clean = from_dataframe({**KINDS_OF_COLUMNS, "y": np.linspace(0, 1, N)})
    outside = ALL >= 30
    spoilt = {}
    for name, values in KINDS_OF_COLUMNS.items():
        values = values.astype(object if values.dtype.kind == "U" else values.dtype)
        values[outside] = CANARIES[name]
        spoilt[name] = values
    canary = from_dataframe({**spoilt, "y": np.where(outside, -1e30, np.linspace(0, 1, N))})
    rows = np.arange(30)
    fitted = [
        (Preparation.fit(t, infer_schema(t, "y"), rows), fit_target(t, infer_schema(t, "y"), rows))
        for t in (clean, canary)
    ]
    assert fitted[0][0].to_json() == fitted[1][0].to_json()
    assert write_target(fitted[0][1]) == write_target(fitted[1][1])
    numbers, codes = fitted[0][0].transform(canary)
    assert np.isfinite(numbers).all()
    np.testing.assert_array_equal(numbers[:30], fitted[0][0].transform(clean).numbers[:30])
    np.testing.assert_array_equal(codes[:30], fitted[0][0].transform(clean).categories[:30])


@pytest.fixture(scope="module")
def fitted():
    table = from_dataframe({**KINDS_OF_COLUMNS, "id": ALL, "y": Y})
    return table, Preparation.fit(table, infer_schema(table, "y"), ALL)


def rebuilt(table, names):
    data = {**KINDS_OF_COLUMNS, "id": ALL, "y": Y, "new": ALL}
    return from_dataframe({name: data[name] for name in names}, source="new.csv")


def test_reordered_and_extra_columns_change_nothing(fitted):
    table, preparation = fitted
    expected = preparation.transform(table)
    other = rebuilt(table, ["new", *reversed(KINDS_OF_COLUMNS)])
    for a, b in zip(preparation.transform(other), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert preparation.notes(other) == ["1 extra column ignored: new"]
    assert preparation.notes(table) == ["1 extra column ignored: y"] and not preparation.notes(table, ignore=["y"])


def test_a_missing_column_is_named(fitted):
    table, preparation = fitted
    with pytest.raises(DataError) as error:
        preparation.transform(rebuilt(table, ["numeric", "gaps", "few", "many", "time"]))
    assert str(error.value) == "new.csv: no column 'truth': needed the 6 columns that the model was trained on"
    with pytest.raises(DataError, match="no column 'numeric' and 4 more"):
        preparation.transform(rebuilt(table, ["truth"]))
    renamed = {"Numeric" if name == "numeric" else name: values for name, values in KINDS_OF_COLUMNS.items()}
    with pytest.raises(DataError, match=r"no column 'numeric'.*Hint: rename 'Numeric'"):
        preparation.transform(from_dataframe(renamed))


def test_unseen_levels_are_missing_and_said(fitted):
    _, preparation = fitted
    few = np.array(["a", "f", "f", None] * 10, dtype=object)
    other = from_dataframe({**KINDS_OF_COLUMNS, "few": few})
    assert preparation.notes(other) == [
        "column 'few': 20 rows with a level not seen in training ('f'), taken as missing"
    ]
    one_hot = preparation.transform(other).numbers[:4, [label.startswith("few") for label in preparation.labels]]
    np.testing.assert_array_equal(one_hot, [[1, 0, 0, 0, 0], [0] * 5, [0] * 5, [0] * 5])


WRONG_CELLS = {
    "numeric": (["1", "x"] * 20, "column 'numeric', row 2: got 'x'; needed a number"),
    "gaps": (np.where(ALL == 3, -np.inf, 1.0), "column 'gaps', row 4: got -inf"),
    "time": (["2024-01-01", "soon"] * 20, "column 'time', row 2: got 'soon'; needed a date"),
    "truth": (ALL, "column 'truth', row 3: got '2'; needed true or false"),
}


@pytest.mark.parametrize("name", WRONG_CELLS)
def test_a_cell_of_another_kind_is_named(name, fitted):
    values, expected = WRONG_CELLS[name]
    with pytest.raises(DataError) as error:
        fitted[1].transform(from_dataframe({**KINDS_OF_COLUMNS, name: values}, source="new.csv"))
    assert f"new.csv, {expected}" in str(error.value) and "\n" not in str(error.value)


def test_spelling_of_numbers_and_truth_does_not_matter():
    codes = np.arange(N) % 3
    preparation = fit(codes, categorical=["c"])
    expected = np.eye(3)
    for spelled in (["0", "1", "2"], ["0.0", "1.0", "2.00"], ["00", "01", "x"], [0, 1, 2], [0.0, 1.0, 2.0]):
        numbers = apply(preparation, spelled).numbers
        np.testing.assert_array_equal(numbers[:2], expected[:2])
    words = Words.of(np.arange(4), ["01", "1", "1.0", "True"])
    assert find_levels(words, ("01", "1")).tolist() == [1, 2, 1, 1], "two spellings that are two levels stay two"
    assert find_levels(words, ("FALSE", "x")).tolist() == [0, 0, 0, 0]


def test_one_row_and_no_rows(fitted):
    table, preparation = fitted
    assert preparation.transform(table, np.array([3])).numbers.shape == (1, len(preparation.labels))
    assert preparation.transform(table, np.array([], dtype=int)).categories.shape == (0, 1)


def test_what_is_told_of_a_preparation(fitted):
    assert fitted[1].describe() == [
        "numeric: number: median 0.00226516, spread 0.410834",
        "gaps: number: median 2.85714, spread 2.71429, and whether it is missing",
        "few: one of a, b, c, d, e",
        "many: one of 15 levels",
        "time: time, and its place in the day, week",
        "truth: true or false",
        "id: left out, whole numbers that grow from row to row",
    ]


# --- files

finite = st.floats(-LARGEST, LARGEST)
scales = st.just(0.0) | st.floats(1e-38, 1e37)
levels = st.lists(st.text(max_size=5), min_size=1, max_size=12, unique=True).map(tuple)
features = {
    "numeric": st.builds(Numeric, st.text(), finite, scales, st.booleans()),
    "datetime": st.builds(
        Datetime,
        st.text(),
        finite,
        scales,
        st.booleans(),
        st.lists(st.sampled_from(["day", "week", "year"]), unique=True).map(tuple),
    ),
    "boolean": st.builds(Boolean, st.text()),
    "one-hot": st.builds(OneHot, st.text(), levels),
    "embedded": st.builds(Embedded, st.text(), levels),
}
preparations = st.builds(
    Preparation,
    st.lists(st.one_of(*features.values()), min_size=1, max_size=6, unique_by=lambda f: f.name).map(tuple),
    st.just(()),
)


@given(preparations)
def test_json_round_trip(preparation):
    assert Preparation.from_json(json.loads(json.dumps(preparation.to_json()))) == preparation


@given(st.builds(NumberTarget, st.text(), st.just(0.5), st.floats(1e-300, LARGEST), st.just(0.1), st.just(2.5)))
def test_json_round_trip_of_a_target(target):
    assert read_target(json.loads(json.dumps(write_target(target)))) == target


def test_a_read_preparation_gives_the_same_bits(fitted):
    table, preparation = fitted
    again = Preparation.from_json(json.loads(json.dumps(preparation.to_json())))
    for a, b in zip(preparation.transform(table), again.transform(table), strict=True):
        assert a.tobytes() == b.tobytes()
    assert again.left_out == (LeftOut("id", "whole numbers that grow from row to row"),)


GOOD = {
    "numeric": Numeric("n", 0.5, 2.0, True),
    "datetime": Datetime("d", 0.5, 2.0, False, ("day",)),
    "boolean": Boolean("b"),
    "one-hot": OneHot("o", ("x", "y")),
    "embedded": Embedded("e", ("x", "y")),
}
OTHER_VALUES = [None, True, 1, math.nan, math.inf, -1.0, "text", [], ["x", "x"], [1], {"x": 1}, 10**400]


def is_of_type(value, sample):
    """Whether a wrong value is by chance a right one for the field."""
    if isinstance(sample, tuple):
        return False
    return type(value) is type(sample) and not (isinstance(value, float) and not (math.isfinite(value) and value >= 0))


@pytest.mark.parametrize("kind", GOOD)
def test_damaged_features_are_refused(kind):
    good = Preparation((GOOD[kind],), ()).to_json()
    assert Preparation.from_json(good).features == (GOOD[kind],)
    record = good["features"][0]
    assert record["kind"] == kind
    for field in record:
        for damaged in ({k: v for k, v in record.items() if k != field}, {**record, "extra": 1}):
            with pytest.raises(ModelFileError):
                Preparation.from_json({**good, "features": [damaged]})
        for value in OTHER_VALUES:
            sample = getattr(GOOD[kind], field, None)
            if (is_of_type(value, sample) and (field, value) != ("kind", "text")) or (field, value) in [
                ("center", -1.0),
                ("periods", []),
            ]:
                continue
            with pytest.raises(ModelFileError):
                Preparation.from_json({**good, "features": [{**record, field: value}]})


@dataclass(frozen=True)
class Record:
    number: float
    count: int
    name: str
    flag: bool
    sizes: tuple[int, ...]


def test_records_hold_exactly_their_types():
    record = Record(0.1, 3, "x", True, (1, 2))
    data = write_record(record)
    assert read_record(Record, json.loads(json.dumps(data)), "here") == record
    wrong = {
        "number": [math.nan, math.inf, 1, True, "0.1", None],
        "count": [True, 3.0, "3", None],
        "name": [1, None, ["x"]],
        "flag": [1, 0, None, "true"],
        "sizes": [[True], [1.0], "12", (1, 2), None, [[1]]],
    }
    for field, values in wrong.items():
        for value in values:
            with pytest.raises(ModelFileError, match=f"here, field '{field}': got"):
                read_record(Record, {**data, field: value}, "here")


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"features": [], "left_out": []},
        {"features": {}, "left_out": []},
        {"features": [{"kind": "boolean", "name": "a"}], "left_out": None},
        {"features": [{"kind": "boolean", "name": "a"}], "left_out": [], "more": 1},
        {"features": [{"kind": "boolean", "name": "a"}], "left_out": [{"name": "a", "reason": "twice"}]},
        {"features": [{"kind": "boolean", "name": "a"}] * 2, "left_out": []},
        {"features": [{"kind": "Numeric", "name": "a"}], "left_out": []},
        {"features": [{"kind": ["boolean"], "name": "a"}], "left_out": []},
        {"features": ["boolean"], "left_out": []},
        {
            "features": [{"kind": "numeric", "name": "a", "center": 1e39, "scale": 1.0, "indicator": True}],
            "left_out": [],
        },
        {
            "features": [{"kind": "numeric", "name": "a", "center": 0.0, "scale": 1e300, "indicator": True}],
            "left_out": [],
        },
    ],
)
def test_what_is_no_preparation(data):
    with pytest.raises(ModelFileError) as error:
        Preparation.from_json(data)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "data",
    [
        None,
        {"kind": "classes"},
        {"kind": "other", "name": "y"},
        {"kind": "classes", "name": "y", "type": "text", "classes": ["a"]},
        {"kind": "classes", "name": "y", "type": "text", "classes": ["a", "a"]},
        {"kind": "classes", "name": "y", "type": "number", "classes": ["a", "b"]},
        {"kind": "classes", "name": "y", "type": "eval", "classes": ["a", "b"]},
        {"kind": "numbers", "name": "y", "mean": 0.0, "scale": 0.0, "low": -1.0, "high": 1.0},
        {"kind": "numbers", "name": "y", "mean": 5.0, "scale": 1.0, "low": -1.0, "high": 1.0},
    ],
)
def test_what_is_no_target(data):
    with pytest.raises(ModelFileError):
        read_target(data)


# --- the target


def targets(y, rows=ALL, **options):
    table = from_dataframe({"x": np.linspace(0, 1, N), "y": y})
    schema = infer_schema(table, "y", **options)
    return table, fit_target(table, schema, rows)


@pytest.mark.parametrize(
    ("y", "classes", "first", "dtype"),
    [
        (["b", "a"] * 20, ("a", "b"), "b", "<U1"),
        (np.array([10, 9] * 20), ("9", "10"), 10, np.int64),
        (np.array([0.5, -1] * 20), ("-1", "0.5"), 0.5, np.float64),
        (np.array([True, False] * 20), ("False", "True"), True, np.bool_),
    ],
)
def test_classes_are_sorted_and_come_back_as_they_were(y, classes, first, dtype):
    table, target = targets(y)
    assert target.classes == classes and target.task == "classification"
    codes = target.encode(table, ALL)
    assert codes.tolist() == [1, 0] * 20
    assert target.restore(codes)[0] == first and target.restore(codes).dtype == dtype
    assert read_target(json.loads(json.dumps(write_target(target)))) == target


def test_a_target_is_found_however_it_is_spelled():
    _, target = targets(np.array([0, 1] * 20))
    assert target.encode(from_dataframe({"y": ["1.0", "0"]}), np.arange(2)).tolist() == [1, 0]
    assert target.encode(from_dataframe({"y": [True, False]}), np.arange(2)).tolist() == [1, 0]


def test_an_unknown_class_and_a_missing_target_are_named():
    _, target = targets(["b", "a"] * 20)
    with pytest.raises(DataError, match="column 'y', row 2: got 'c'; needed one of the classes a, b"):
        target.encode(from_dataframe({"y": ["a", "c"]}), np.arange(2))
    with pytest.raises(DataError, match="column 'y', row 2: got no value \\(in 1 row of 2\\)"):
        target.encode(from_dataframe({"y": ["a", "NA"]}), np.arange(2))
    with pytest.raises(DataError, match="no column 'y'"):
        target.encode(from_dataframe({"x": ["a"]}), np.arange(1))


def test_numbers_are_standardised_on_the_training_rows_and_clipped_to_their_range():
    y = np.linspace(-3, 9, N)
    table, target = targets(y, rows=np.arange(20))
    assert isinstance(target, NumberTarget)
    z = target.standardise(target.encode(table, np.arange(20)))
    assert abs(z.mean()) < 1e-12 and z.std() == pytest.approx(1)
    np.testing.assert_allclose(target.restore(z), y[:20], atol=1e-12)
    np.testing.assert_array_equal(target.restore(np.array([-100.0, 100.0])), [y[0], y[19]])


def test_training_rows_of_one_value():
    with pytest.raises(DataError, match="one value in all training rows"):
        targets(np.where(ALL < 20, 0.5, ALL), rows=np.arange(20))
    with pytest.raises(DataError, match="one class in all training rows"):
        targets(np.where(ALL < 20, "a", "b"), rows=np.arange(20))


def test_classes_are_final_plain_data():
    assert isinstance(targets(["b", "a"] * 20)[1], ClassTarget)

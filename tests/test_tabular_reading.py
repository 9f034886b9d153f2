"""Reading tables: every way a file or dataframe can be right or wrong, and what the user is told."""

from __future__ import annotations

import csv
import datetime
import decimal
import gzip
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slalom.core.extras import load_extra
from slalom.errors import DataError, MissingExtraError
from slalom.tabular.reading import MISSING, find_delimiter, from_dataframe, read_table
from slalom.tabular.table import LARGEST, Column, Table, format_number, parse_number

pa = pytest.importorskip("pyarrow")
NAN = np.nan


def cells(column: Column) -> list[object]:
    """A column's cells as Python values, None where missing."""
    if column.type == "text":
        return [None if code < 0 else column.words.levels[code] for code in column.words.codes]
    values = {"boolean": column.booleans, "datetime": column.times}.get(column.type, lambda: column._cells)()
    return [None if np.isnan(value) else float(value) for value in values]


def contents(table: Table) -> dict[str, tuple[str, list[object]]]:
    return {column.name: (column.type, cells(column)) for column in table}


def message(error: pytest.ExceptionInfo[Exception]) -> str:
    text = str(error.value)
    assert "\n" not in text, "a message is one line"
    return text


GOOD = {
    "comma": (b"a,b\n1,x\n2.5,y\n", {"a": ("number", [1.0, 2.5]), "b": ("text", ["x", "y"])}),
    "no newline at the end": (b"a,b\n1,2", {"a": ("number", [1.0]), "b": ("number", [2.0])}),
    "semicolon, decimal comma": (b"a;b\n1,5;x\n2;y,z\n", {"a": ("number", [1.5, 2.0]), "b": ("text", ["x", "y,z"])}),
    "tab": (b"a\tb\n1\t2\n", {"a": ("number", [1.0]), "b": ("number", [2.0])}),
    "bar": (b"a|b\n1|2\n", {"a": ("number", [1.0]), "b": ("number", [2.0])}),
    "blank": (b"a b\n1 2\n3 4\n5 6\n", {"a": ("number", [1.0, 3.0, 5.0]), "b": ("number", [2.0, 4.0, 6.0])}),
    "one column": (b"name\nanna\nbob\n", {"name": ("text", ["anna", "bob"])}),
    "commas inside quotes": (
        b'a;b\n"x;y";1\n"z ""q""";2\n',
        {"a": ("text", ["x;y", 'z "q"']), "b": ("number", [1.0, 2.0])},
    ),
    "newline inside quotes": (
        b'a,"b\nc",d\n1,"x\ny",3\n',
        {"a": ("number", [1.0]), "b\nc": ("text", ["x\ny"]), "d": ("number", [3.0])},
    ),
    "CRLF": (b"a,b\r\n1,2\r\n", {"a": ("number", [1.0]), "b": ("number", [2.0])}),
    "CR": (b"a,b\r1,2\r3,4\r", {"a": ("number", [1.0, 3.0]), "b": ("number", [2.0, 4.0])}),
    "blank lines": (b"\na,b\n\n1,2\n \n3,4\n\n", {"a": ("number", [1.0, 3.0]), "b": ("number", [2.0, 4.0])}),
    "blanks around cells": (b"a , b\n 1,x \n2 , y\n", {"a": ("number", [1.0, 2.0]), "b": ("text", ["x", "y"])}),
    "UTF-8 with mark": ("\ufeffé,b\n1,ü\n".encode(), {"é": ("number", [1.0]), "b": ("text", ["ü"])}),
    "UTF-16": ("é,b\n1,ü\n".encode("utf-16"), {"é": ("number", [1.0]), "b": ("text", ["ü"])}),
    "Latin-1": ("a,b\n1,ü\n".encode("latin-1"), {"a": ("number", [1.0]), "b": ("text", ["ü"])}),
    "gzip": (gzip.compress(b"a,b\n1,2\n"), {"a": ("number", [1.0]), "b": ("number", [2.0])}),
    "column without a name": (b",b\n0,1\n", {"column 1": ("number", [0.0]), "b": ("number", [1.0])}),
    "years as names": (b"1990,1991\n1,2\n", {"1990": ("number", [1.0]), "1991": ("number", [2.0])}),
    "numbers": (b"a\n1e3\n-.5\n+2.\n00\n", {"a": ("number", [1000.0, -0.5, 2.0, 0.0])}),
    "no numbers": (b"a\n1_000\n0x1F\n1d5\n", {"a": ("text", ["1_000", "0x1F", "1d5"])}),
    "infinite": (b"a\ninf\n-Infinity\n1e999\n", {"a": ("number", [np.inf, -np.inf, np.inf])}),
    "booleans": (b"a\nTrue\nfalse\nNA\n", {"a": ("boolean", [1.0, 0.0, None])}),
    "dates": (b'a\n1970-01-02\n""\n1970-01-01T01:00+01:00\n', {"a": ("datetime", [86400.0, None, 0.0])}),
    "long codes": (
        b"a\n9007199254740993\n9007199254740992\n",
        {"a": ("text", ["9007199254740993", "9007199254740992"])},
    ),
    "large numbers": (b"a\n1e20\n9007199254740992.5\n", {"a": ("number", [1e20, 9007199254740992.0])}),
    "all missing": (b"a,b\nNA,1\n,2\n", {"a": ("number", [None, None]), "b": ("number", [1.0, 2.0])}),
}


@pytest.mark.parametrize("name", GOOD)
def test_csv_is_read(name, tmp_path):
    data, expected = GOOD[name]
    path = tmp_path / "table.csv"
    path.write_bytes(data)
    assert contents(read_table(path)) == expected


@pytest.mark.parametrize("marker", [*MISSING, " NA "])
def test_missing_markers(marker, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(f"number,text\n1,x\n{marker},{marker}\n2,y\n")
    assert contents(read_table(path)) == {"number": ("number", [1.0, None, 2.0]), "text": ("text", ["x", None, "y"])}


def test_late_latin_1_is_found_and_said(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(b"a,b\n" + b"1,plain\n" * 100_000 + b"1,caf\xe9\n")
    table = read_table(path)
    assert "café" in table["b"].words.levels
    assert table.notes == ("the file is not UTF-8; read as Latin-1",)


def test_first_line_of_numbers_is_noted(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("0.1,0.2,x\n1,2,y\n")
    assert "mostly numbers" in read_table(path).notes[0]
    path.write_text("0,1\n1,2\n")  # what dataframes without names write
    assert not read_table(path).notes


BAD = {
    "empty": (b"", "the file is empty"),
    "blank": (b" \n\n", "the file is empty"),
    "header only": (b"a,b\n", "no rows: got only column names"),
    "header only, no newline": (b"a,b", "no rows: got only column names"),
    "equal names": (b"a,b,a\n1,2,3\n", "'a' twice (columns 1 and 3)"),
    "no header": (b"1,2,1\n4,5,6\n", "the first line looks like data"),
    "short row": (b"a,b\n1,2\n\n3\n4,5\n", "row 2: got 1 cell ('3'); needed 2 cells"),
    "long row": (b"a,b\n1,2\n3,4,5\n", "row 2: got 3 cells ('3,4,5'); needed 2 cells"),
    "open quote": (b'a,b\n1,2\n"3,4\n5,6\n', "row 2: got 1 cell"),
    "Excel": (b"PK\x03\x04 and so on", "got a zip or Excel file"),
    "JSON": (b'[{"a": 1},\n{"a": 2}]', "got JSON"),
    "HTML": (b"<!doctype html>\n<p>", "got HTML or XML"),
    "image": (b"\x89PNG\r\n\x1a\n\0\0\0", "not a table: got binary data"),
    "cut gzip": (gzip.compress(b"a,b\n1,2\n" * 99)[:-9], "can't be read as a table"),
    "damaged gzip": (b"\x1f\x8b nonsense", "can't be read as a table"),
    "damaged Parquet": (b"PAR1 nonsense", "can't be read as a table"),
    "cut UTF-16": ("a,b\n1,2\n".encode("utf-16")[:-1], "can't be read as a table"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_refused(name, tmp_path):
    data, expected = BAD[name]
    path = tmp_path / "table.csv"
    path.write_bytes(data)
    with pytest.raises(DataError) as error:
        read_table(path)
    assert expected in message(error) and "table.csv" in message(error)


def test_no_such_file_and_a_folder(tmp_path):
    with pytest.raises(DataError, match="No such file") as error:
        read_table(tmp_path / "none.csv")
    assert "none.csv" in message(error)
    with pytest.raises(DataError, match="directory"):
        read_table(tmp_path)


def test_a_given_delimiter_is_used(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a-b,c\n1-2,3\n")
    assert read_table(path, delimiter="-").names == ["a", "b,c"]


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("a,b;c\n1,2;3\n", ","),  # both cut evenly into two: the first in order
        ("a;b;c\n1,2;3;4\n", ";"),
        ("time;x\n12:30:01;1\n12:30:02;2\n", ";"),
        ("full name\nanna bell\n", ","),  # a blank in so few rows is no evidence
        ("a b\n1 2\n3 4\n5 6\n", " "),
        ("a;b;c\n1;2\n", ";"),
        ("", ","),
    ],
)
def test_find_delimiter(text, delimiter):
    assert find_delimiter(text) == delimiter


def test_a_line_cut_by_the_end_of_the_sample_is_no_evidence():
    assert find_delimiter("a;b\n1;2\n3", is_complete=False) == ";"


# Words that can be nothing but text, and are stripped already.
words = st.text(st.characters(categories=["L", "N", "P"], include_characters=" \n"), max_size=8).map(
    lambda t: f"t{t}".strip()
)
columns = st.one_of(
    st.tuples(
        st.just("number"),
        st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=3),
    ),
    st.tuples(st.just("number"), st.lists(st.none() | st.integers(-(2**53) + 1, 2**53 - 1), min_size=3, max_size=3)),
    st.tuples(st.just("boolean"), st.lists(st.none() | st.booleans(), min_size=3, max_size=3)),
    st.tuples(st.just("text"), st.lists(st.none() | words, min_size=3, max_size=3)),
)


@given(
    columns=st.lists(columns, min_size=2, max_size=5),
    delimiter=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    newline=st.sampled_from(["\n", "\r\n"]),
    zipped=st.booleans(),
)
def test_csv_round_trip(tmp_path_factory, columns, delimiter, quoting, newline, zipped):
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=newline)
    writer.writerow([f"c{i}" for i in range(len(columns))])
    writer.writerows(zip(*(["" if cell is None else cell for cell in values] for _, values in columns), strict=True))
    path = tmp_path_factory.mktemp("round") / "table.csv"
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data) if zipped else data)
    expected = {
        f"c{i}": ("number" if all(cell is None for cell in values) else kind, values)
        for i, (kind, values) in enumerate(columns)
    }
    assert contents(read_table(path, delimiter=delimiter)) == expected


FRAMES = {
    "int": ([1, None, 3], ("number", [1.0, None, 3.0])),
    "float": ([1.5, None, 2.5], ("number", [1.5, None, 2.5])),
    "bool": ([True, None, False], ("boolean", [1.0, None, 0.0])),
    "text": (["x", None, " ? "], ("text", ["x", None, None])),
    "text of numbers": (["1", "2.5", "NA"], ("number", [1.0, 2.5, None])),
    "date": ([datetime.date(1970, 1, 2), None, datetime.date(1970, 1, 1)], ("datetime", [86400.0, None, 0.0])),
    "time": (
        [datetime.datetime(1970, 1, 1, 1), None, datetime.datetime(1970, 1, 1)],
        ("datetime", [3600.0, None, 0.0]),
    ),
    "duration": ([datetime.timedelta(seconds=1.5), None, datetime.timedelta(0)], ("number", [1.5, None, 0.0])),
    "decimal": ([decimal.Decimal("1.5"), None, decimal.Decimal(2)], ("number", [1.5, None, 2.0])),
    "none": ([None, None, None], ("number", [None, None, None])),
    "long": ([2**60 + 1, None, 2**60], ("text", [str(2**60 + 1), None, str(2**60)])),
}


def as_pandas(data):
    return pytest.importorskip("pandas").DataFrame(data)


def as_polars(data):
    return pytest.importorskip("polars").DataFrame(data)


def as_lazy(data):
    return pytest.importorskip("polars").LazyFrame(data)


def as_arrays(data):
    return {name: np.array(values, dtype=object) for name, values in data.items()}


@pytest.mark.parametrize("make", [as_pandas, as_polars, as_lazy, pa.table, as_arrays, dict])
def test_dataframes_of_any_kind(make):
    data = {name: values for name, (values, _) in FRAMES.items()}
    if make is as_pandas:  # pandas makes a column of whole numbers with a gap into floats
        del data["long"]
    table = from_dataframe(make(data))
    assert contents(table) == {name: FRAMES[name][1] for name in data}
    assert table.rows == 3 and not table.notes
    assert from_dataframe(table) is table


def test_pandas_nullable_object_and_categorical_columns():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {
            "Int64": pd.array([1, None, 3], dtype="Int64"),
            "boolean": pd.array([True, None, False], dtype="boolean"),
            "mixed": [1, "a", None],
            "zone": pd.to_datetime(["1970-01-01 01:00", None, "1970-01-02 01:00"]).tz_localize("Europe/Rome"),
            "category": pd.Categorical(["1", None, "2"]),
            "missing": np.array([pd.NA, pd.NaT, "x"], dtype=object),
        }
    )
    assert contents(from_dataframe(frame)) == {
        "Int64": ("number", [1.0, None, 3.0]),
        "boolean": ("boolean", [1.0, None, 0.0]),
        "mixed": ("text", ["1", "a", None]),
        "zone": ("datetime", [0.0, None, 86400.0]),
        "category": ("text", ["1", None, "2"]),
        "missing": ("text", [None, None, "x"]),
    }
    assert from_dataframe(frame)["category"].declared


def test_numpy_arrays_of_any_dtype():
    table = from_dataframe(
        {
            "half": np.array([1, 2], np.float16),
            "big-endian": np.array([1, 2], ">i4"),
            "strided": np.arange(4)[::2],
            "read-only": np.frombuffer(np.array([1.0, 2.0]).tobytes()),
            "masked": np.ma.masked_array([1.0, 5.0], [False, True]),
            "text": np.array(["x", "NA"]),
            "time": np.array(["1970-01-02", "NaT"], "datetime64[D]"),
            "long": np.array([2**60, 2**60 + 1]),
        }
    )
    assert contents(table) == {
        "half": ("number", [1.0, 2.0]),
        "big-endian": ("number", [1.0, 2.0]),
        "strided": ("number", [0.0, 2.0]),
        "read-only": ("number", [1.0, 2.0]),
        "masked": ("number", [1.0, None]),
        "text": ("text", ["x", None]),
        "time": ("datetime", [86400.0, None]),
        "long": ("text", [str(2**60), str(2**60 + 1)]),
    }


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([1, 2], "not a table: got list"),
        (np.zeros((2, 2)), "got numpy.ndarray"),
        ({"a": [1, 2], "b": [1]}, "column 'b': got 1 row; needed 2 rows, as in column 'a'"),
        ({"a": np.zeros((2, 2))}, "column 'a': got shape (2, 2)"),
        ({"a": np.array([1j])}, "column 'a'"),
        ({"a": np.array([[1], {}], dtype=object)}, "column 'a'"),
        ({"a": [1], "a ": [2]}, "'a' twice"),
    ],
)
def test_what_is_no_table(data, expected):
    with pytest.raises(DataError) as error:
        from_dataframe(data)
    assert expected in message(error)


def test_equal_names_in_dataframes():
    pd = pytest.importorskip("pandas")
    with pytest.raises(DataError, match="different name"):
        from_dataframe(pd.DataFrame(np.zeros((2, 2)), columns=["a", "a"]))
    with pytest.raises(DataError, match="twice"):
        from_dataframe(pd.DataFrame(np.zeros((2, 2)), columns=["1", 1]))


def test_nested_columns_are_left_out_with_a_note():
    table = from_dataframe(pa.table({"a": [1, 2], "b": [[1], [2]]}))
    assert table.names == ["a"]
    assert "'b'" in table.notes[0]


def test_parquet(tmp_path):
    from pyarrow import parquet

    path = tmp_path / "table.bin"  # told by its content
    parquet.write_table(pa.table({"a": [1, None], "b": pa.array(["x", "y"]).dictionary_encode()}), path)
    table = read_table(path)
    assert contents(table) == {"a": ("number", [1.0, None]), "b": ("text", ["x", "y"])}
    assert table["b"].declared and table.source == "table.bin"
    parquet.write_table(pa.table({"a": pa.array([], pa.int64())}), path)
    with pytest.raises(DataError, match="no rows"):
        read_table(path)
    parquet.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), path)
    with pytest.raises(DataError, match="'a' twice"):
        read_table(path)


def test_a_column_that_is_not_there():
    table = from_dataframe({"income": [1], "age": [2]})
    with pytest.raises(DataError) as error:
        table["incom"]
    assert message(error) == "table: no column 'incom': needed one of income, age. Hint: did you mean 'income'?"


CELLS = {
    "word": (["1", "x", "3"], "numbers", "row 2: got 'x'; needed a number, as in 2 other rows"),
    "infinite": ([1.0, np.inf], "numbers", "row 2: got inf; needed a number of size at most 3.4e+38"),
    "negative infinite": ([-np.inf], "numbers", "row 1: got -inf"),
    "too large": ([1.0, 1e308], "numbers", "row 2: got 1e+308; needed a number of size at most 3.4e+38"),
    "just too large": ([-1.001 * LARGEST], "numbers", "row 1: got -3.4"),
    "date": (np.array(["NaT", "2020-01-31"], "datetime64[s]"), "numbers", "row 2: got '2020-01-31'; needed a number"),
    "no truth": (["true", "maybe"], "booleans", "row 2: got 'maybe'; needed true or false"),
    "no truth value": ([1, 2], "booleans", "row 2: got '2'; needed true or false"),
    "no date": (["2020-01-31", "soon"], "times", "row 2: got 'soon'; needed a date such as"),
    "number for a date": ([NAN, 2020.0], "times", "row 2: got '2020'; needed a date such as"),
}


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_that_is_not_what_is_needed(name):
    values, method, expected = CELLS[name]
    column = from_dataframe({"a": values})["a"]
    with pytest.raises(DataError) as error:
        getattr(column, method)()
    assert f"table, column 'a', {expected}" in message(error)


def test_cells_as_what_they_can_be():
    table = from_dataframe(
        {"n": [1.0, NAN, 0.0], "b": [True, False, True], "t": ["0", "1", "x"], "d": ["1970-01-02", "x", "NA"]}
    )
    assert table["n"].words.levels == ("0", "1")
    assert cells(Column("n", "text", table["n"].words)) == ["1", None, "0"]
    np.testing.assert_array_equal(table["n"].booleans(), [1, NAN, 0])
    np.testing.assert_array_equal(table["b"].numbers(), [1, 0, 1])
    assert table["b"].words.levels == ("False", "True")
    assert table["t"].strays() == (2, 1)
    assert from_dataframe({"n": [LARGEST, -LARGEST]})["n"].numbers().tolist() == [LARGEST, -LARGEST]
    dates = from_dataframe(
        {"d": np.array(["1970-01-02", "1970-01-01T01:00", "1970-01-01T00:00:00.5"], "datetime64[ms]")}
    )
    assert dates["d"].words.levels == ("1970-01-01T00:00:00.500", "1970-01-01T01:00:00", "1970-01-02")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_read_back_the_same(value):
    assert parse_number(format_number(value)) == value


def test_an_absent_extra_names_its_remedy():
    with pytest.raises(MissingExtraError, match=r"pip install 'slalom\[cli\]'"):
        load_extra("no_such_package.part", "cli", "this")
    with pytest.raises(ModuleNotFoundError):  # the package is there, the module is not: not the user's to install
        load_extra("pyarrow.no_such_module", "cli", "this")

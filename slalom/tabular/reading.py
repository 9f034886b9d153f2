"""Tables from files and dataframes: CSV with any delimiter (plain or .gz), Parquet, and whatever narwhals knows.

Every CSV cell is read as text first and becomes a number only where the whole column does, so that no cell is lost
to a guess made on the first rows. A cell is missing when it is empty or one of ``MISSING``, after trimming blanks.
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import decimal
import io
import itertools
import numbers
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slalom.core.extras import load_extra
from slalom.errors import DataError
from slalom.tabular.table import (
    EXACT,
    CellType,
    Column,
    FloatArray,
    Table,
    Words,
    format_number,
    parse_all,
    parse_boolean,
    parse_number,
    parse_time,
    quantity,
    shorten,
    unique_names,
)

__all__ = ["MISSING", "find_delimiter", "from_dataframe", "read_table"]

MISSING = ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", "None", "NaT", "?")
"""Cells of text that mean "no value" (pandas' markers, and the question mark of the UCI archive)."""

_SAMPLE_BYTES = 1 << 18
_SAMPLE_LINES = 200
_BLOCK_BYTES = 8 << 20  # a row of a very wide table must fit into one block
_FOREIGN = {
    b"PK\x03\x04": "a zip or Excel file",
    b"%PDF": "a PDF file",
    b"{": "JSON",
    b"[": "JSON",
    b"<": "HTML or XML",
}


def read_table(path: str | os.PathLike[str], *, delimiter: str | None = None) -> Table:
    """Read a CSV file (plain or gzip) or a Parquet file, told apart by their content, not by their name.

    UTF-8 (with or without its mark) or UTF-16 with its mark; what is neither is read as Latin-1, with a note. The
    first line holds the column names; a column without a name is called by its place ("column 1"). In a table cut by
    semicolons, numbers may have a decimal comma.

    Raises:
        DataError: no such file, or it is empty, damaged, no table, has no rows, unequal rows or equal column names.
    """
    path = Path(path)
    pyarrow = load_extra("pyarrow", "cli", "reading a table")
    try:
        if path.is_fifo():  # it could be read once only, and a table is read more often
            raise OSError("a pipe")
        with path.open("rb") as file:
            start = file.read(4)
        if start == b"PAR1":
            return _read_parquet(path)
        stream = {"compression": "gzip" if start.startswith(b"\x1f\x8b") else None}
        with pyarrow.input_stream(path, **stream) as file:
            sample = file.read(_SAMPLE_BYTES)
        return _read_csv(path, stream, sample, delimiter)
    except (OSError, UnicodeError, pyarrow.ArrowException) as error:
        # A damaged gzip stream is an OSError without a number.
        reason = getattr(error, "strerror", None) or shorten(str(error), 120)
        raise DataError(
            f"{path}: can't be read as a table", got=reason, needed="a CSV (plain or .gz) or Parquet file"
        ) from error


def _read_parquet(path: Path) -> Table:
    parquet = load_extra("pyarrow.parquet", "cli", "reading a Parquet file")
    with parquet.ParquetFile(path) as file:
        unique_names(file.schema_arrow.names, path.name)
        return _with_rows(from_dataframe(file.read(), source=path.name))


def _read_csv(path: Path, stream: Mapping[str, object], sample: bytes, delimiter: str | None) -> Table:
    pyarrow = load_extra("pyarrow", "cli", "reading a table")
    if not sample.strip(b"\xef\xbb\xbf \t\r\n"):
        raise DataError(f"{path}: the file is empty", needed="a line of column names, then one line for each row")
    is_utf16 = sample.startswith((b"\xff\xfe", b"\xfe\xff"))
    foreign = next(
        (kind for mark, kind in _FOREIGN.items() if sample.lstrip(b"\xef\xbb\xbf \r\n").startswith(mark)), None
    )
    if foreign or (b"\0" in sample and not is_utf16):
        raise DataError(
            f"{path}: not a table",
            got=foreign or "binary data",
            needed="a CSV (plain or .gz) or Parquet file",
            hint="export it as CSV" if foreign else None,
        )
    encodings = ["utf-16"] if is_utf16 else ["utf-8", "latin-1"]
    text = sample.decode(encodings[0], errors="replace")
    is_complete = len(sample) < _SAMPLE_BYTES
    if is_complete and len(text.strip().splitlines()) == 1:  # pyarrow can't tell the columns of one unended line
        return _with_rows(Table(path.name, (), 0))
    if delimiter is None:
        delimiter = find_delimiter(text, is_complete)
    try:
        cells, notes = _parse_csv(path, stream, text, delimiter, encodings[0]), []
    except pyarrow.ArrowInvalid as error:
        if "UTF8" not in str(error) or is_utf16:
            raise
        cells = _parse_csv(path, stream, text, delimiter, encodings[1])
        notes = ["the file is not UTF-8; read as Latin-1"]

    header = [str(column[0]).strip() for column in cells.columns]
    names = [name or f"column {place}" for place, name in enumerate(header, 1)]
    numeric = [name for name in names if parse_number(name) is not None]
    is_data = len(numeric) > len(names) / 2 and names != [str(i) for i in range(len(names))]
    unique_names(names, path.name, "the first line looks like data; add a line of column names" if is_data else None)
    if is_data:
        notes.append("the first line is taken as column names although it is mostly numbers")
    point = "," if delimiter == ";" else "."
    columns = [
        _column_of_strings(name, column.slice(1).cast(pyarrow.string()), path.name, point)
        for name, column in zip(names, cells.columns, strict=True)
    ]
    return _with_rows(Table(path.name, columns, len(cells) - 1, notes))


def _parse_csv(path: Path, stream: Mapping[str, object], text: str, delimiter: str, encoding: str) -> Any:
    """All cells as strings, the header among them, in a pyarrow Table; ``text`` is how the file begins."""
    pyarrow = load_extra("pyarrow", "cli", "reading a table")
    arrow_csv = load_extra("pyarrow.csv", "cli", "reading a CSV file")
    unequal: list[Any] = []
    strings = {f"f{i}": pyarrow.string() for i in range(1 + text.strip().partition("\n")[0].count(delimiter))}

    def on_unequal(row: Any) -> str:
        if not row.text.strip():
            return "skip"
        unequal.append(row)
        return "error"

    def parse(use_threads: bool) -> Any:
        with pyarrow.input_stream(path, **stream) as file:
            return arrow_csv.read_csv(
                file,
                read_options=arrow_csv.ReadOptions(
                    autogenerate_column_names=True, encoding=encoding, use_threads=use_threads, block_size=_BLOCK_BYTES
                ),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=delimiter, newlines_in_values=True, invalid_row_handler=on_unequal
                ),
                convert_options=arrow_csv.ConvertOptions(column_types=strings),
            )

    try:
        return parse(use_threads=True)
    except pyarrow.ArrowInvalid as error:
        if not unequal:
            raise
        unequal.clear()
        with contextlib.suppress(pyarrow.ArrowInvalid):
            parse(use_threads=False)  # again, because only one thread knows the row's number
        row = unequal[0]
        raise DataError(
            f"{path.name}, row {row.number - 1}",
            got=f"{quantity(row.actual_columns, 'cell')} ({shorten(row.text)!r})",
            needed=f"{quantity(row.expected_columns, 'cell')}, as in the line of column names",
            hint=f"cells are taken to be cut by {delimiter!r}; quote a cell that holds it",
        ) from error


def _with_rows(table: Table) -> Table:
    if table.rows == 0:
        raise DataError(f"{table.source}: no rows", got="only column names", needed="at least one row below them")
    return table


def find_delimiter(text: str, is_complete: bool = True) -> str:
    """The delimiter that cuts the first rows into the most fields, equally many in each; a comma if none does.

    >>> find_delimiter("a;b\\n1,5;2,5\\n"), find_delimiter("name\\nanna bell\\n")
    (';', ',')
    """
    lines = list(itertools.islice(io.StringIO(text, newline=None), _SAMPLE_LINES))
    if len(lines) < _SAMPLE_LINES and not is_complete:
        lines = lines[:-1] or lines  # the sample's end may have cut the last line
    for candidates, enough_rows in ((",;\t|", 1), (" :^~", 4)):  # blanks and colons also stand inside ordinary cells
        best, most = "", 1
        for candidate in candidates:
            try:
                widths = {len(row) for row in csv.reader(lines, delimiter=candidate) if row}
            except csv.Error:  # a field beyond the csv module's limit: no delimiter of this file
                continue
            if len(widths) == 1 and max(widths) > most and len(lines) >= enough_rows:
                best, most = candidate, max(widths)
        if best:
            return best
    header = lines[0] if lines else ""
    return max(",;\t|", key=header.count)  # rows of unequal length: reading will name the first


def from_dataframe(data: Any, *, source: str = "table") -> Table:
    """A table from a dataframe that narwhals knows (pandas, polars, pyarrow, duckdb, …) or from a dict of arrays.

    Raises:
        DataError: not a table, columns of unequal length, or equal column names.
    """
    if isinstance(data, Table):
        return data
    if isinstance(data, Mapping):
        return _from_arrays(data, source)
    narwhals = load_extra("narwhals.stable.v2", "cli", "taking a dataframe")
    exceptions = load_extra("narwhals.exceptions", "cli", "taking a dataframe")
    try:
        frame = narwhals.from_native(data)
        if isinstance(frame, narwhals.LazyFrame):
            frame = frame.collect()
        series = list(frame.iter_columns())
    except exceptions.DuplicateError as error:
        raise DataError(
            f"{source}: column names", got=shorten(str(error), 120), needed="a different name for each column"
        ) from error
    except TypeError as error:
        kind = f"{type(data).__module__}.{type(data).__qualname__}".removeprefix("builtins.")
        raise DataError(
            f"{source}: not a table", got=kind, needed="a dataframe (pandas, polars, pyarrow, …) or a dict of arrays"
        ) from error
    names = [str(item.name).strip() for item in series]
    unique_names(names, source)
    columns, notes = [], []
    for name, item in zip(names, series, strict=True):
        column = _column_of_series(name, item, source)
        if column is None:
            notes.append(f"column {shorten(name)!r} is left out: its cells are {item.dtype}, neither numbers nor text")
        else:
            columns.append(column)
    return Table(source, columns, len(frame), notes)


def _column_of_series(name: str, item: Any, source: str) -> Column | None:
    narwhals = load_extra("narwhals.stable.v2", "cli", "taking a dataframe")
    dtype = item.dtype

    def floats(series: Any) -> FloatArray:
        return np.array(series.cast(narwhals.Float64).to_numpy(), dtype=np.float64)

    if item.is_null().all():
        return Column(name, "number", np.full(len(item), np.nan), source=source)
    if dtype == narwhals.Boolean:
        return Column(name, "boolean", floats(item), source=source)
    if dtype.is_integer() and item.abs().max() >= EXACT:
        return _column_of_strings(name, item.cast(narwhals.String).to_arrow(), source)
    if dtype.is_numeric():
        return Column(name, "number", floats(item), source=source)
    if dtype in (narwhals.Date, narwhals.Datetime):
        return Column(name, "datetime", floats(item.dt.timestamp("ms")) / 1000, source=source)
    if dtype == narwhals.Duration:
        return Column(name, "number", floats(item.dt.total_microseconds()) / 1e6, source=source)
    if dtype in (narwhals.Categorical, narwhals.Enum):
        return _column_of_strings(name, item.cast(narwhals.String).to_arrow(), source, declared=True)
    if dtype == narwhals.String:
        return _column_of_strings(name, item.to_arrow(), source)
    if dtype == narwhals.Object:
        return _column_of_objects(name, item.to_numpy(), source)
    return None


def _from_arrays(data: Mapping[Any, npt.ArrayLike], source: str) -> Table:
    names = [str(name).strip() for name in data]
    unique_names(names, source)
    columns: list[Column] = []
    rows: int | None = None
    for name, values in zip(names, data.values(), strict=True):
        # A masked array hides its missing cells from np.asarray.
        array = (
            np.ma.filled(values.astype(object), None) if isinstance(values, np.ma.MaskedArray) else np.asarray(values)
        )
        fits = array.ndim == 1 and array.dtype.kind in "biufMmUO"
        column = _column_of_array(name, array, source) if fits else None
        if column is None:
            raise DataError(
                f"{source}, column {name!r}",
                got=f"shape {array.shape} of {array.dtype}",
                needed="one dimension of numbers, booleans, dates or text",
            )
        if rows is not None and len(array) != rows:
            raise DataError(
                f"{source}, column {name!r}",
                got=quantity(len(array), "row"),
                needed=f"{quantity(rows, 'row')}, as in column {names[0]!r}",
            )
        rows = len(array)
        columns.append(column)
    return Table(source, columns, rows or 0)


def _column_of_array(name: str, array: npt.NDArray[Any], source: str) -> Column | None:
    kind = array.dtype.kind
    if kind in "Mm":
        missing = np.isnat(array)
        seconds = array.astype(f"{kind}8[ms]").astype(np.float64) / 1000
        seconds[missing] = np.nan
        return Column(name, "datetime" if kind == "M" else "number", seconds, source=source)
    if kind in "OU" or (kind in "iu" and array.size and np.abs(array).max() >= EXACT):
        return _column_of_objects(name, array, source)
    return Column(name, "boolean" if kind == "b" else "number", array.astype(np.float64), source=source)


def _column_of_objects(name: str, cells: npt.NDArray[Any], source: str) -> Column | None:
    """Python objects: numbers if all are, booleans if all are, otherwise the text of each; None for containers."""
    objects = [None if str(cell).strip() in MISSING else cell for cell in cells.tolist()]
    objects = [cell.total_seconds() if isinstance(cell, datetime.timedelta) else cell for cell in objects]
    kinds = {type(cell) for cell in objects} - {type(None)}
    if any(issubclass(kind, (list, tuple, dict, set, np.ndarray)) for kind in kinds):
        return None
    numeric = {kind for kind in kinds if issubclass(kind, (numbers.Real, decimal.Decimal))} - {bool}
    is_long = any(isinstance(cell, numbers.Integral) and abs(int(cell)) >= EXACT for cell in objects)
    if kinds and not is_long and (kinds == numeric or kinds <= {bool, np.bool_}):
        values = np.array([np.nan if cell is None else float(cell) for cell in objects], dtype=np.float64)
        return Column(name, "number" if numeric else "boolean", values, source=source)
    pyarrow = load_extra("pyarrow", "cli", "a column of text")
    texts = [
        format_number(cell) if isinstance(cell, float) else None if cell is None else str(cell) for cell in objects
    ]
    return _column_of_strings(name, pyarrow.array(texts, pyarrow.large_string()), source)


def _column_of_strings(name: str, strings: Any, source: str, point: str = ".", declared: bool = False) -> Column:
    """A column of an Arrow array of strings: numbers, booleans or datetimes if all its cells are, otherwise text."""
    pyarrow = load_extra("pyarrow", "cli", "a column of text")
    compute = load_extra("pyarrow.compute", "cli", "a column of text")
    if not isinstance(strings, pyarrow.ChunkedArray):
        strings = pyarrow.chunked_array([strings])
    strings = compute.utf8_trim_whitespace(strings)
    missing = compute.is_in(strings, value_set=pyarrow.array(MISSING, strings.type))
    strings = compute.if_else(missing, pyarrow.scalar(None, strings.type), strings)
    numbers = None if declared else _cast_numbers(strings, point)
    if numbers is not None:
        return Column(name, "number", numbers, source=source)
    words = _words_of(strings)
    for type, parse in () if declared else _PARSERS:
        values = parse_all(words.levels, parse)
        if values is not None:
            return Column(name, type, np.append(values, np.nan)[words.codes], source=source)
    return Column(name, "text", words, source=source, decimal=point, declared=declared)


_PARSERS: tuple[tuple[CellType, Callable[[str], float | None]], ...] = (
    ("boolean", parse_boolean),
    ("datetime", parse_time),
)


def _cast_numbers(strings: Any, point: str) -> FloatArray | None:
    """The numbers that all cells spell, or None: also where whole numbers are too long to be kept apart as floats."""
    pyarrow = load_extra("pyarrow", "cli", "a column of text")
    compute = load_extra("pyarrow.compute", "cli", "a column of text")
    for spelled in (strings, compute.replace_substring(strings, point, ".", max_replacements=1)):
        try:
            values = np.array(compute.cast(spelled, pyarrow.float64()).to_numpy(), dtype=np.float64)
            is_long = bool((np.abs(values) >= EXACT).any())
            is_code = is_long and compute.any(compute.match_substring_regex(strings, r"^[+-]?\d{16,}$")).as_py()
            return None if is_code else values
        except pyarrow.ArrowInvalid:  # a word among the cells
            if point == ".":
                return None
    return None


def _words_of(strings: Any) -> Words:
    compute = load_extra("pyarrow.compute", "cli", "a column of text")
    encoded = strings.dictionary_encode().unify_dictionaries()
    levels = encoded.chunk(0).dictionary.to_pylist() if encoded.num_chunks else []
    codes = [compute.fill_null(chunk.indices, -1).to_numpy() for chunk in encoded.chunks]
    return Words.of(np.concatenate([np.empty(0, np.int64), *codes]), levels)

"""A small column store: what a file or a dataframe becomes before anything is learnt from it.

Numbers, booleans and datetimes are float64 with NaN for a missing cell (booleans 0 and 1, datetimes in seconds since
1970-01-01 UTC); text is integer codes into its sorted distinct words.
"""

from __future__ import annotations

import datetime
import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NoReturn, final

import numpy as np
from numpy.typing import NDArray

from slalom.errors import DataError

__all__ = [
    "EXACT",
    "LARGEST",
    "BoolArray",
    "CellType",
    "Column",
    "FloatArray",
    "IntArray",
    "Table",
    "Words",
    "format_number",
    "parse_all",
    "parse_boolean",
    "parse_number",
    "parse_time",
    "plain",
    "quantity",
    "shorten",
    "unique_names",
]

CellType = Literal["number", "boolean", "datetime", "text"]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

EXACT = 2**53
"""Whole numbers below this size are exact in float64."""

LARGEST = float(np.finfo(np.float32).max)
"""The largest size of a number that a model can take: it computes in float32."""

_NUMBER = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf(?:inity)?|nan)", re.ASCII | re.IGNORECASE)


def parse_number(word: str, decimal: str = ".") -> float | None:
    """The number that a word spells, or None.

    >>> parse_number("-1.5e3"), parse_number("1_000"), parse_number("2,5", decimal=",")
    (-1500.0, None, 2.5)
    """
    if decimal != ".":
        word = word.replace(decimal, ".", 1)
    return float(word) if _NUMBER.fullmatch(word) else None


def parse_boolean(word: str) -> float | None:
    """1 for "true", 0 for "false" in any mixture of cases, otherwise None."""
    return {"true": 1.0, "false": 0.0}.get(word.casefold())


def parse_time(word: str) -> float | None:
    """Seconds since 1970-01-01 UTC for an ISO 8601 date or time, or None; a time without zone is taken as UTC.

    >>> parse_time("1970-01-02"), parse_time("1970-01-01T02:00+01:00"), parse_time("2 Jan 1970")
    (86400.0, 3600.0, None)
    """
    try:
        time = datetime.datetime.fromisoformat(word)
    except ValueError:
        return None
    return (time if time.tzinfo else time.replace(tzinfo=datetime.UTC)).timestamp()


def parse_all(words: Iterable[str], parse: Callable[[str], float | None]) -> FloatArray | None:
    """All words parsed, or None as soon as one cannot be."""
    values: list[float] = []
    for word in words:
        value = parse(word)
        if value is None:
            return None
        values.append(value)
    return np.array(values, dtype=np.float64)


def format_number(value: float) -> str:
    """The shortest text of a number that reads back the same: whole numbers without a point.

    >>> format_number(3.0), format_number(0.1), format_number(1e300)
    ('3', '0.1', '1e+300')
    """
    return str(int(value)) if value.is_integer() and abs(value) < EXACT else repr(float(value))


def quantity(number: int, noun: str) -> str:
    """A number of things, in words.

    >>> quantity(1, "row"), quantity(30000, "row"), quantity(2, "class")
    ('1 row', '30,000 rows', '2 classes')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "es" if noun.endswith("s") else "s")


def shorten(text: str, width: int = 40) -> str:
    """A cell as it is quoted in a message: on one line and of bounded length."""
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"


def plain(name: str) -> str:
    """A name as it stands in a list: shortened, and without quotation marks unless it would be unreadable.

    >>> print(plain("Oslo"), plain("Oslo, Norway"), plain(""))
    Oslo 'Oslo, Norway' ''
    """
    short = shorten(name)
    return short if short.isprintable() and short and "," not in short else repr(short)


def unique_names(names: Sequence[str], source: str, hint: str | None = None) -> None:
    """Raises:
    DataError: two columns have one name.
    """
    first: dict[str, int] = {}
    for place, name in enumerate(names, 1):
        if name in first:
            raise DataError(
                f"{source}: column names",
                got=f"{shorten(name)!r} twice (columns {first[name]} and {place})",
                needed="a different name for each column",
                hint=hint,
            )
        first[name] = place


@final
@dataclass(frozen=True, eq=False)
class Words:
    """Text cells: ``levels[codes[row]]`` is a row's word; a missing cell has code −1. Levels are sorted and distinct.

    Shapes: codes (rows,), levels of any length.
    """

    codes: IntArray
    levels: tuple[str, ...]

    @classmethod
    def of(cls, codes: IntArray, levels: Sequence[str]) -> Words:
        """Sort the levels, so that nothing learnt from them depends on the order of the rows."""
        order = sorted(range(len(levels)), key=levels.__getitem__)
        rank = np.full(len(levels) + 1, -1, dtype=np.int64)  # the last place serves code −1
        rank[order] = np.arange(len(levels))
        return cls(rank[codes], tuple(levels[i] for i in order))

    def counts(self, rows: IntArray | slice = slice(None)) -> IntArray:
        """How many of the rows hold each level."""
        codes = self.codes[rows]
        return np.bincount(codes[codes >= 0], minlength=len(self.levels)).astype(np.int64)


@final
class Column:
    """One named column of a table: its cells are float64 values or, for text, words.

    ``type`` says what the cells are; the methods give them as what the caller needs, or say which cell cannot be.
    ``declared`` marks text that its source already calls categories (pandas, polars, Arrow dictionaries).
    """

    def __init__(
        self,
        name: str,
        type: CellType,
        cells: FloatArray | Words,
        *,
        source: str = "table",
        decimal: str = ".",
        declared: bool = False,
    ) -> None:
        self.name, self.type, self.source, self.decimal, self.declared = name, type, source, decimal, declared
        self._cells = cells

    def __repr__(self) -> str:
        return f"Column({self.name!r}, {self.type}, {len(self.is_missing)} rows)"

    @cached_property
    def is_missing(self) -> BoolArray:
        cells = self._cells
        return np.asarray(cells.codes < 0 if isinstance(cells, Words) else np.isnan(cells), dtype=np.bool_)

    @cached_property
    def levels(self) -> int:
        """How many different cells there are, missing ones aside."""
        cells = self._cells
        return len(cells.levels) if isinstance(cells, Words) else len(np.unique(cells[~self.is_missing]))

    @cached_property
    def words(self) -> Words:
        """The cells as text; those that are values in their shortest form ("1", never "1.0")."""
        if isinstance(self._cells, Words):
            return self._cells
        distinct, codes = np.unique(self._cells, return_inverse=True)  # all NaN are one, the last
        codes[self.is_missing] = -1
        return Words.of(
            codes.astype(np.int64), [self._spell(value) for value in distinct[~np.isnan(distinct)].tolist()]
        )

    def _spell(self, value: float) -> str:
        if self.type == "boolean":
            return str(bool(value))
        if self.type == "datetime":
            unit = "D" if value % 86400 == 0 else "s" if value % 1 == 0 else "ms"
            return str(np.datetime64(round(value * 1000), "ms").astype(f"datetime64[{unit}]"))
        return format_number(value)

    def numbers(self, hint: str = "correct the cell, or leave it empty if the value is missing") -> FloatArray:
        """The cells as numbers, NaN where missing; ``hint`` is what to do about a word.

        Raises:
            DataError: a cell is a word or a date, is infinite, or is larger than float32 can hold.
        """
        if self.type == "datetime" and not self.is_missing.all():
            self._refuse(int((~self.is_missing).argmax()), "a number", hint)
        values = self._cells
        if isinstance(values, Words):
            values = self._parsed(values, self._parse_number, "a number", hint)
        wrong = np.flatnonzero(np.abs(values) > LARGEST)  # a comparison with NaN is False
        if len(wrong):
            value = values[wrong[0]]
            raise DataError(
                self.where(int(wrong[0])),
                got=format_number(value) if math.isfinite(value) else str(value),
                needed=f"a number of size at most {LARGEST:.2g}",
                hint="leave the cell empty if the value is missing",
            )
        return values

    def booleans(self) -> FloatArray:
        """The cells as 0 and 1, NaN where missing.

        Raises:
            DataError: a cell is neither true or false nor 0 or 1.
        """
        needed = "true or false"
        if isinstance(self._cells, Words):
            return self._parsed(self._cells, lambda word: _ZERO_ONE.get(word, parse_boolean(word)), needed)
        wrong = ~(self.is_missing | (self._cells == 0) | (self._cells == 1))
        if wrong.any():
            self._refuse(int(wrong.argmax()), needed)
        return self._cells

    def times(self) -> FloatArray:
        """The cells in seconds since 1970-01-01 UTC, NaN where missing.

        Raises:
            DataError: a cell is no ISO 8601 date or time.
        """
        needed = "a date such as 2024-12-31 or 2024-12-31T23:59"
        if isinstance(self._cells, Words):
            return self._parsed(self._cells, parse_time, needed)
        if self.type != "datetime" and not self.is_missing.all():
            self._refuse(int((~self.is_missing).argmax()), needed)
        return self._cells

    def strays(self) -> tuple[int, int]:
        """How many cells of a text column are numbers, and how many are other words."""
        counts = self.words.counts()
        is_number = np.array([self._parse_number(word) is not None for word in self.words.levels], dtype=np.bool_)
        return int(counts[is_number].sum()), int(counts[~is_number].sum())

    def where(self, row: int) -> str:
        """The place of a cell as messages name it: the first row after the header is row 1."""
        return f"{self.source}, column {self.name!r}, row {row + 1}"

    def _parse_number(self, word: str) -> float | None:
        return parse_number(word, self.decimal)

    def _parsed(
        self, words: Words, parse: Callable[[str], float | None], needed: str, hint: str | None = None
    ) -> FloatArray:
        parsed = [parse(word) for word in words.levels]
        is_wrong = np.array([value is None for value in parsed] + [False])  # the last place serves code −1
        wrong = is_wrong[words.codes]
        if wrong.any():
            good = len(wrong) - int(wrong.sum()) - int(self.is_missing.sum())
            needed += f", as in {quantity(good, 'other row')}" if good else ""
            self._refuse(int(wrong.argmax()), needed, hint)
        return np.array([*parsed, math.nan], dtype=np.float64)[words.codes]

    def _refuse(self, row: int, needed: str, hint: str | None = None) -> NoReturn:
        word = self.words.levels[self.words.codes[row]]
        raise DataError(self.where(row), got=repr(shorten(word)), needed=needed, hint=hint)


_ZERO_ONE = {"0": 0.0, "1": 1.0}


@final
class Table:
    """Named columns of one length, from ``source`` (a file's name), with notes on how they were read."""

    def __init__(self, source: str, columns: Sequence[Column], rows: int, notes: Sequence[str] = ()) -> None:
        self.source, self.rows, self.notes = source, rows, tuple(notes)
        self._columns = {column.name: column for column in columns}

    def __repr__(self) -> str:
        return f"Table({self.source!r}, {self.rows} rows, {len(self._columns)} columns)"

    @property
    def names(self) -> list[str]:
        return list(self._columns)

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[Column]:
        return iter(self._columns.values())

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __getitem__(self, name: str) -> Column:
        """Raises:
        DataError: there is no column of this name.
        """
        try:
            return self._columns[name]
        except KeyError:
            near = difflib.get_close_matches(str(name), self._columns, n=1)
            shown = [shorten(other) for other in self.names[:12]] + ["…"] * (len(self._columns) > 12)
            raise DataError(
                f"{self.source}: no column {name!r}",
                needed=f"one of {', '.join(shown)}" if shown else "a table with columns",
                hint=f"did you mean {near[0]!r}?" if near else None,
            ) from None

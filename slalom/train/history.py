"""History: one row of numbers for each epoch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, overload

from slalom.errors import DataError, MissingExtraError
from slalom.train.files import write_atomic

__all__ = ["History"]

Row = dict[str, float]
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class History:
    """What was measured after each epoch: ``history[-1]["val_loss"]`` is a number, ``history["loss"]`` a list.

    Each row has ``epoch`` (from 1), ``step`` (how many updates were made so far), ``seconds`` (of this epoch), ``lr``,
    ``loss`` and the metrics, and with a validation set the same names with ``val_`` before them. ``interrupted``: the
    last fit was ended by Ctrl-C. ``stopped``: in words, why the last fit ended before its last epoch, else None.

    >>> history = History([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}])
    >>> len(history), history[-1]["loss"], history["loss"]
    (2, 0.25, [0.5, 0.25])
    """

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.rows: list[Row] = [dict(row) for row in rows]
        self.interrupted = False
        self.stopped: str | None = None

    def append(self, row: Row) -> None:
        """Add an epoch."""
        self.rows.append(row)

    @property
    def columns(self) -> list[str]:
        """The names in the order of their first appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and self.rows == other.rows

    __hash__ = None  # type: ignore[assignment]  # it grows

    @overload
    def __getitem__(self, key: int) -> Row: ...
    @overload
    def __getitem__(self, key: slice) -> History: ...
    @overload
    def __getitem__(self, key: str) -> list[float]: ...
    def __getitem__(self, key: int | slice | str) -> Any:
        """A row by number, rows by slice, a column by name (NaN where an epoch does not have it)."""
        if isinstance(key, str):
            if key not in self.columns:
                raise KeyError(f"history has no column {key!r}; it has {', '.join(self.columns) or 'none yet'}")
            return [row.get(key, math.nan) for row in self.rows]
        return History(self.rows[key]) if isinstance(key, slice) else self.rows[key]

    def best(self, name: str = "val_loss", mode: str = "min") -> Row:
        """The row with the smallest (``mode="max"``: largest) finite value in a column; of equals, the first.

        Raises: DataError when there is none.
        """
        rows = [row for row in self.rows if math.isfinite(row.get(name, math.nan))]
        if not rows:
            raise DataError(f"the best epoch by {name!r}", got="no finite value", needed=f"one of {self.columns}")
        return (min if mode == "min" else max)(rows, key=lambda row: row[name])

    def to_dataframe(self) -> Any:
        """A pandas DataFrame. Raises: MissingExtraError where pandas is not installed."""
        try:
            import pandas
        except ImportError as error:
            hint = "pip install pandas, or hand history.rows to the library you use"
            raise MissingExtraError("History.to_dataframe", needed="pandas", hint=hint) from error
        return pandas.DataFrame({name: self[name] for name in self.columns})

    def to_jsonl(self, path: str | os.PathLike[str]) -> None:
        """Write a file of one JSON object a line; numbers that are not finite are the strings "nan", "inf", "-inf"."""
        lines = [json.dumps({name: _plain(value) for name, value in row.items()}) for row in self.rows]
        write_atomic(path, "".join(f"{line}\n" for line in lines).encode())

    @classmethod
    def from_jsonl(cls, path: str | os.PathLike[str]) -> History:
        """Read what ``to_jsonl`` wrote.

        Raises: DataError naming the line that is no row of numbers.
        """
        rows = []
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"history file {path}", got=str(error)) from error
        for number, line in enumerate(text.splitlines(), 1):
            try:
                rows.append(
                    {name: _NOT_FINITE[v] if isinstance(v, str) else v + 0 for name, v in json.loads(line).items()}
                )
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DataError(f"history file {path}, line {number}", needed="a JSON object of numbers") from error
        return cls(rows)

    def __repr__(self) -> str:
        """A table; of a long history the first rows and the last."""
        if not self.rows:
            return "History(no epochs)"
        names = self.columns
        shown: list[Row | None] = list(self.rows)
        if len(shown) > 12:
            shown[5:-6] = [None]
        cells = [names] + [["…"] * len(names) if r is None else [_cell(r.get(n)) for n in names] for r in shown]
        widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
        return "\n".join(lines + ([f"stopped: {self.stopped}"] if self.stopped else []))


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _cell(value: float | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.4g}"

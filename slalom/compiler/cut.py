"""Cut: the part of a row that a band leaves of it, in whole vectors."""

from __future__ import annotations

from typing import Final

from slalom.compiler.bands import Band
from slalom.compiler.ir import Builder, Value

Part = tuple[Value | None, Value | None]
"""From where to where a loop goes; None for its own ends."""
ALL: Final[Part] = None, None


def part_of_row(b: Builder, band: Band, row: Value, columns: Value, shape: tuple[int, ...], lanes: int) -> Part:
    """The vectors of a row that hold something of a band, of a matrix of that shape with so many columns; all of a row
    that has nothing."""
    rows, extent = shape
    start, end = b.number(0), columns
    if band.low > 1 - rows:
        start = _down(b, b.add(row, b.word(("low", band), band.low)), lanes)
    if band.high < extent - 1:
        end = _down(b, b.add(row, b.add(b.word(("high", band), band.high), b.number(lanes))), lanes)
        end = b.intrinsic("smin", end, columns)
    some = b.compare("slt", start, end)
    return (
        b.select(some, start, b.number(0)) if band.low > 1 - rows else None,
        b.select(some, end, columns) if band.high < extent - 1 else None,
    )


def _down(b: Builder, column: Value, lanes: int) -> Value:
    """Where the vector begins that a column is in; 0 for what is before all."""
    return b.binary("and", b.intrinsic("smax", column, b.number(0)), b.number(-lanes))

"""Tiles: short rows of 16 lines turned so that the lanes run over the lines.

Where rows are no longer than a vector (class scores, two or ten of them), sixteen rows are copied to the stack with
the elements of one column side by side. Maxima and sums over a row are then sums of vectors, and what is computed once
a row is computed for sixteen rows at once.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from slalom.compiler.index import Expr
from slalom.compiler.ir import LANES, Builder, Type, Value
from slalom.compiler.packs import transposed

_BLOCK: Final = 4
"""Elements of a row that are turned at once."""


class _Stored(NamedTuple):
    base: Value
    line: tuple[Value, Value]


class Tiles:
    """The tiles of one kernel: [element of the row][lane] on the stack.

    lane, reduced: the axes along which the lanes and the rows run · extents: of all axes.
    """

    def __init__(self, b: Builder, lane: int, reduced: int, extents: dict[int, int]) -> None:
        self.b, self.lane, self.reduced = b, lane, reduced
        self._lines, self._length = extents[lane], extents[reduced]
        self._places: dict[Any, tuple[Value, Type]] = {}
        self._stored: dict[int, _Stored] = {}

    def serves(self, flat: Expr) -> bool:
        """Whether an access goes over whole rows, element by element."""
        rest = flat.without(self.lane).without(self.reduced)
        return (
            flat.coefficient(self.reduced) == 1
            and not rest.axes & {self.lane, self.reduced}
            and (flat.coefficient(self.lane) != 0)
        )

    def holds(self, key: Any) -> bool:
        return key in self._places

    def get(self, key: Any, place: dict[int, Value]) -> Value:
        """The present column of a tile."""
        at, type = self._places[key]
        return self.b.load(type, self.b.offset(at, place[self.reduced], type), 64)

    def put(self, key: Any, value: Value, place: dict[int, Value]) -> None:
        """Keep a column."""
        if value.type.scalar == "i1":
            value = self.b.convert("zext", value, "i8")
        at, type = self._place(key, value.type.element)
        self.b.store(value, self.b.offset(at, place[self.reduced], type), 64)

    def _place(self, key: Any, element: Type) -> tuple[Value, Type]:
        if key not in self._places:
            type = Type(element.scalar, LANES)
            self._places[key] = (self.b.stack(type, LANES), type)
        return self._places[key]

    def load(self, key: Any, element: Type, base: Value, line: tuple[Value, Value], place: dict[int, Value]) -> None:
        """Fill a tile from memory."""
        b, (at, type) = self.b, self._place(key, element)
        start, step = line
        count = self._count(place)
        if self._length >= _BLOCK and element.scalar in ("float", "i32"):
            rows = [b.intrinsic("smin", b.number(r), b.sub(count, b.number(1))) for r in range(LANES)]
            lines = [b.offset(base, b.add(start, b.mul(row, step)), element) for row in rows]
            length = self._extent(self.reduced, self._length)
            with b.loop(0, length, _BLOCK) as first:
                # The last block begins early enough to be whole.
                c = b.intrinsic("smin", first, b.sub(length, b.number(_BLOCK)))
                four = [b.load(Type(element.scalar, _BLOCK), b.offset(line, c, element)) for line in lines]
                for j, column in enumerate(transposed(b, four)):
                    b.store(column, b.offset(at, b.add(c, b.number(j)), type), 64)
            return
        with b.loop(0, count) as r:
            row = b.offset(base, b.add(start, b.mul(r, step)), element)
            with b.loop(0, self._extent(self.reduced, self._length)) as c:
                one = b.load(element, b.offset(row, c, element))
                b.store(one, b.offset(at, b.add(b.mul(c, b.number(LANES)), r), element))

    def store(self, value: int, column: Value, base: Value, line: tuple[Value, Value], place: dict[int, Value]) -> None:
        """Take a column of a result, which ``flush`` writes to memory."""
        self.put(value, column, place)
        self._stored[value] = _Stored(base, line)
        self._present = place[self.lane]

    def flush(self, values: list[int]) -> None:
        """Write finished tiles to memory."""
        b = self.b
        for value in values:
            base, (start, step) = self._stored[value]
            at, type = self._places[value]
            element = type.element
            with b.loop(0, self._count({self.lane: self._present})) as r:
                row = b.offset(base, b.add(start, b.mul(r, step)), element)
                with b.loop(0, self._extent(self.reduced, self._length)) as c:
                    one = b.load(element, b.offset(at, b.add(b.mul(c, b.number(LANES)), r), element))
                    b.store(one, b.offset(row, c, element))

    def _extent(self, axis: int, extent: int) -> Value:
        return self.b.word(("extent", axis), extent)

    def _count(self, place: dict[int, Value]) -> Value:
        """How many of the 16 lines exist."""
        left = self.b.sub(self._extent(self.lane, self._lines), place[self.lane])
        return self.b.intrinsic("smin", left, self.b.number(LANES))

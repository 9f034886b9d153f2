"""Packs: a matrix laid out anew, in panels of columns, so that a product reads it in one run; transposed if need be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from slalom.compiler.ir import I64, LANES, PTR, Builder, Type, Value, literal

Outer = tuple[Value, ...]
"""Which matrix of a batch: an index along each outer axis."""
_BLOCK: Final = 4
"""Elements of a column that a transposing packing reads at once: four floats are 128 bits, the unit of shuffles."""


@dataclass(frozen=True)
class Packing:
    """The structure of a kernel that writes a K × N matrix in panels of ``columns`` columns: [panel][k][column].

    columns: of a panel; in memory it is ``width`` wide. Those of a right-hand side are multiples of 16; a left-hand
        side in panels is its transpose, in panels of as many columns as a tile has rows.
    order: how the source lies: "rows" (n has stride 1), "columns" (k has: the transpose of a row-major matrix), or
    "any" (element by element: slow).
    batched: over how many outer indices there is such a matrix for each.
    open: rather a transpose than panels: rows of the target are ``row`` apart, and nothing is written beyond N.
    """

    scalar: str = "float"
    columns: int = 2 * LANES
    order: Literal["rows", "columns", "any"] = "rows"
    batched: int = 0
    open: bool = False

    @property
    def width(self) -> int:
        """Columns of a panel in memory: 2, 4, 8 or a multiple of 16."""
        return -(-self.columns // LANES) * LANES if self.columns > LANES // 2 else 1 << (self.columns - 1).bit_length()

    def tasks(self, n: int, batch: int = 1) -> int:
        """The extent of the kernel's parallel loop: its panels."""
        return -(-n // self.columns) * batch


class PackOperands(NamedTuple):
    """What stands in the argument words. Strides count elements.

    k, n: the extents. source, source_k, source_n: where the matrix's [k, n] is.
    panels, panel: where the panels begin, and the stride from one to the next (≥ k·width).
    batch, source_batch, panels_batch: of a batched packing, the extents of all outer indices but the first, and the
        strides along each of them. row: of an open one.
    """

    k: Any
    n: Any
    source: Any
    source_k: Any
    source_n: Any
    panels: Any
    panel: Any
    batch: tuple[Any, ...] = ()
    source_batch: tuple[Any, ...] = ()
    panels_batch: tuple[Any, ...] = ()
    row: Any = None


def emit_pack(b: Builder, packing: Packing, operands: PackOperands) -> None:
    """Write the kernel; its range counts ``packing.tasks(…)``. Columns beyond N become zeros."""
    _Packer(b, packing, operands).panels()


class _Packer:
    """Writes one packing kernel."""

    def __init__(self, b: Builder, packing: Packing, operands: PackOperands) -> None:
        self.b, self.packing, self.operands = b, packing, operands
        self.scalar = Type(packing.scalar)
        self.k, self.n = self.word("k"), self.word("n")
        self.k_stride = b.number(1) if packing.order == "columns" else self.word("source_k")
        self.n_stride = b.number(1) if packing.order == "rows" else self.word("source_n")
        # Rows are copied by as many vectors as there are; all else is loops, whose text need not say how far they go.
        known = packing.order == "rows"
        self.columns = b.number(packing.columns) if known else b.word(("pack", "columns"), packing.columns)
        self.width = b.number(packing.width) if known else b.word(("pack", "width"), packing.width)
        row = self.word("row") if packing.open else self.width
        self.turn = Turn(b, self.scalar, (self.k_stride, self.n_stride), (row, self.columns, self.width), packing.open)

    def word(self, name: str, type: Type = I64) -> Value:
        return self.b.word(("pack", name), getattr(self.operands, name), type)

    def words(self, name: str) -> list[Value]:
        return words_of(self.b, "pack", name, self.operands)

    def panels(self) -> None:
        b, packing = self.b, self.packing
        source, target = self.word("source", PTR), self.word("panels", PTR)
        panels = ceil_div(b, self.n, self.columns)
        with b.loop(b.begin, b.end) as task:
            panel, read, write = task, source, target
            if packing.batched:
                flat = b.binary("udiv", task, panels)
                panel = b.sub(task, b.mul(flat, panels))
                batch, found, made = map(self.words, ("batch", "source_batch", "panels_batch"))
                for index, source_step, step in zip(outer(b, flat, batch), found, made, strict=True):
                    read = b.offset(read, b.mul(index, source_step), self.scalar)
                    write = b.offset(write, b.mul(index, step), self.scalar)
            n = b.mul(panel, self.columns)
            read = b.offset(read, b.mul(n, self.n_stride), self.scalar)
            write = b.offset(write, b.mul(panel, self.word("panel")), self.scalar)
            left = b.sub(self.n, n)
            if packing.order == "rows":
                self.copy(read, write, left)
            elif packing.order == "any":
                self.turn.elements(read, write, left, self.k)
            else:
                self.turn.all(read, write, left, self.k)

    def copy(self, read: Value, write: Value, left: Value) -> None:
        """Row by row, by vectors."""
        b, width = self.b, self.packing.width
        lanes = min(width, LANES)
        vector = Type(self.packing.scalar, lanes)
        valid = b.intrinsic("smin", left, b.number(self.packing.columns))
        masks = [b.lanes_below(b.sub(valid, b.number(at)), lanes) for at in range(0, width, lanes)]
        with b.loop(0, self.k) as k:
            line = b.offset(read, b.mul(k, self.k_stride), self.scalar)
            out = b.offset(write, b.mul(k, b.number(width)), self.scalar)
            for v, mask in enumerate(masks):
                row = b.load_masked(vector, b.offset(line, v * lanes, self.scalar), mask)
                b.store(row, b.offset(out, v * lanes, self.scalar))


class Turn:
    """Writes columns side by side.

    strides: of the source, along k and n · target: how far apart its rows are, how many columns are written, and how
    many of zeros follow in a row · open: nothing is written beyond the columns that exist.
    """

    def __init__(
        self,
        b: Builder,
        scalar: Type,
        strides: tuple[Value, Value],
        target: tuple[Value, Value, Value],
        open: bool = False,
    ) -> None:
        self.b, self.scalar, self.open = b, scalar, open
        self.k_stride, self.n_stride = strides
        self.row, self.columns, self.width = target

    def all(self, read: Value, write: Value, left: Value, length: Value) -> None:
        """``length`` elements of each of the columns, of which so many are left; k has stride 1."""
        b = self.b
        whole = b.compare("sge", length, b.number(_BLOCK))
        with b.when(whole):
            self.blocks(read, write, left, length)
        with b.when(b.binary("xor", whole, literal(1, whole.type))):
            self.elements(read, write, left, length)

    def blocks(self, read: Value, write: Value, left: Value, length: Value) -> None:
        """In blocks of four k by 16 columns; the last block begins early enough to be whole."""
        b = self.b
        with b.loop(0, self.columns, LANES) as group:
            valid = b.sub(left, group)
            mask = b.lanes_below(valid)
            last = b.sub(b.intrinsic("smin", left, self.columns), b.number(1))
            rows = []
            for r in range(LANES):
                row = b.intrinsic("smin", b.add(group, b.number(r)), last)
                rows.append(b.offset(read, b.mul(row, self.n_stride), self.scalar))
            out = b.offset(write, group, self.scalar)
            with b.loop(0, length, _BLOCK) as start:
                k = b.intrinsic("smin", start, b.sub(length, b.number(_BLOCK)))
                four = [b.load(Type(self.scalar.scalar, _BLOCK), b.offset(row, k, self.scalar)) for row in rows]
                for j, line in enumerate(transposed(b, four)):
                    place = b.offset(out, b.mul(b.add(k, b.number(j)), self.row), self.scalar)
                    if self.open:
                        b.store_masked(line, place, mask)
                    else:
                        b.store(b.select(mask, line, literal(0, line.type)), place)

    def elements(self, read: Value, write: Value, left: Value, length: Value) -> None:
        """Element by element."""
        b = self.b
        valid = b.intrinsic("smin", left, self.columns)
        with b.loop(0, length) as k:
            line = b.offset(read, b.mul(k, self.k_stride), self.scalar)
            out = b.offset(write, b.mul(k, self.row), self.scalar)
            with b.loop(0, valid) as n:
                one = b.load(self.scalar, b.offset(line, b.mul(n, self.n_stride), self.scalar))
                b.store(one, b.offset(out, n, self.scalar))
            if not self.open:
                with b.loop(valid, self.width) as n:
                    b.store(literal(0, self.scalar), b.offset(out, n, self.scalar))


def transposed(b: Builder, rows: list[Value]) -> list[Value]:
    """16 rows of four as four rows of 16: by 128-bit quarters, each of which takes every fourth row."""

    def join(x: Value, y: Value) -> Value:
        return b.shuffle(x, y, range(2 * x.type.lanes))

    def quarters(*lanes: int) -> list[int]:
        """A pattern within the quarters: 0 … 3 from the first vector, 4 … 7 from the second."""
        return [4 * q + lane % 4 + (LANES if lane > 3 else 0) for q in range(4) for lane in lanes]

    w = [join(join(rows[i], rows[i + 4]), join(rows[i + 8], rows[i + 12])) for i in range(4)]
    low, high = quarters(0, 4, 1, 5), quarters(2, 6, 3, 7)
    first, second = quarters(0, 1, 4, 5), quarters(2, 3, 6, 7)
    pairs = [(b.shuffle(w[0], w[1], half), b.shuffle(w[2], w[3], half)) for half in (low, high)]
    return [b.shuffle(x, y, half) for x, y in pairs for half in (first, second)]


def words_of(b: Builder, of: str, name: str, operands: Any) -> list[Value]:
    """The words of an operand that has one for each outer axis."""
    return [b.word((of, name, i), meaning) for i, meaning in enumerate(getattr(operands, name))]


def outer(b: Builder, flat: Value, extents: list[Value]) -> Outer:
    """The index along each outer axis, from the number in row-major order and all extents but the first."""
    batch = Outer()
    for extent in reversed(extents):
        rest = b.binary("udiv", flat, extent)
        batch = (b.sub(flat, b.mul(rest, extent)), *batch)
        flat = rest
    return flat, *batch


def ceil_div(b: Builder, value: Value, by: Value | int) -> Value:
    most = b.number(by - 1) if isinstance(by, int) else b.sub(by, b.number(1))
    return b.binary("udiv", b.add(value, most), b.number(by))

"""Products over windows: C[m, n] = Σₜ A[m, t]·B[t, n], where B's elements lie in an image and are read there.

Nothing is laid out as columns. Where the parts of a term lie is a row of a table: an offset in A, an offset in B. Terms
that would meet padding, or the gaps of a spread out gradient, are left out of the table, so that nothing is multiplied
by zeros: columns that have the same terms, at the same distances, form a class with a table of its own.

Two forms. In a **spread** product (a convolution, and the gradient of its input) the lanes run along the columns: each
vector of columns has an address, to which the terms' offsets are added. In a **dot** product (the gradient of the
weights, a sum over all pixels) the lanes run along the sum: a tile of rows × columns holds a vector for each, whose
lanes are joined by a tree at the end. Each element is the same chain, or the same 16 chains and their tree, whatever
the tile and the split of the work are.

Source: M. Dukhan, The Indirect Convolution Algorithm, 2019 (a table instead of columns).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from slalom.compiler.gemm import Epilogue
from slalom.compiler.index import Axis, Condition, Expr, Quotient, Remainder
from slalom.compiler.ir import I64, LANES, PTR, Builder, Type, Value, Variable, literal
from slalom.compiler.nodes import Windows
from slalom.compiler.packs import Outer
from slalom.core.primitive import Array

STRETCH: Final = 64
"""Terms of a dot product that a tile goes through before the next tile does: what it reads stays near."""
KEPT: Final = 128 << 10
"""Bytes of the sums of tiles that take turns."""
BAND: Final = 8
"""Row tiles among them, at most."""
_ABSENT: Final = np.iinfo(np.int64).min
_BYTES: Final = {"float": 4, "double": 8}


# --- tables -------------------------------------------------------------------------------------------------------
class Tables(NamedTuple):
    """``terms``: rows (offset in A, offset in B) in bytes, class after class · ``starts``, ``counts``: of the classes
    in it · ``classes``, ``bases``: of each column, and where B begins for it, in bytes."""

    terms: Array
    starts: Array
    counts: Array
    classes: Array
    bases: Array


def tables(a: Expr, b: Expr, windows: Windows, itemsize: int) -> Tables:
    """Where terms lie. a, b: the places of the operands' elements, over the axes; those of the lanes left out."""
    columns, terms = ([i for i in axes if i != windows.lane] for axes in (windows.columns, windows.terms))
    mixed = {i for expr in _mixed(b, windows.conditions) for i in expr.axes}
    some = [[i for i in axes if i in mixed] for axes in (columns, terms)]
    grid = _grid([*some[0], *some[1]], windows.extents)
    shape = [int(np.prod([windows.extents[i] for i in axes], dtype=np.int64)) for axes in some]
    part = Expr(tuple(t for t in b.terms if not (isinstance(t[0], Axis) and t[0].number not in mixed)), b.constant)
    offsets = np.broadcast_to(_evaluated(part, grid), _extent(grid)).reshape(shape)
    valid = np.ones(_extent(grid), bool)
    for condition in windows.conditions:
        valid = valid & _holds(condition, grid)
    valid = valid.reshape(shape)
    first = valid.argmax(1)
    base = offsets[np.arange(shape[0]), first]
    apart = np.where(valid, offsets - base[:, None], _ABSENT)
    kinds, kind_of = np.unique(apart, axis=0, return_inverse=True)

    at = _number_of(columns, some[0], windows.extents)
    plain = Expr(tuple(t for t in b.terms if isinstance(t[0], Axis) and t[0].number not in mixed))
    beside = _evaluated(_over(plain, columns), _grid(columns, windows.extents)).reshape(-1)
    bases = base[at] + beside
    in_b = _evaluated(_over(plain, terms), _grid(terms, windows.extents)).reshape(-1)
    in_a = _evaluated(_over(a, terms), _grid(terms, windows.extents)).reshape(-1)
    among = _number_of(terms, some[1], windows.extents)
    count = int(np.prod([windows.extents[i] for i in terms], dtype=np.int64))
    rows = []
    for kind in kinds:
        full = np.broadcast_to(kind[among], count)
        there = full != _ABSENT
        rows.append(np.stack([np.broadcast_to(in_a, count)[there], (full + in_b)[there]], 1))
    counts = np.array([len(r) for r in rows])
    return Tables(
        np.concatenate(rows) * itemsize, np.cumsum(counts) - counts, counts, kind_of.reshape(-1)[at], bases * itemsize
    )


def _mixed(b: Expr, conditions: Sequence[Condition]) -> list[Expr]:
    """What does not follow from each axis by itself."""
    return [Expr(((atom, 1),)) for atom, _ in b.terms if not isinstance(atom, Axis)] + [c.expr for c in conditions]


def _over(expr: Expr, axes: Sequence[int]) -> Expr:
    """What an expression has of some axes; a constant stays with the columns' bases."""
    return Expr(tuple(t for t in expr.terms if Expr((t,)).axes and Expr((t,)).axes <= {*axes}))


def _grid(axes: Sequence[int], extents: dict[int, int]) -> dict[int, Array]:
    """The number of each element along each of the axes, for all elements of the box that they span."""
    rank = len(axes)
    return {
        i: np.arange(extents[i]).reshape((1,) * at + (-1,) + (1,) * (rank - at - 1)) for at, i in enumerate(axes)
    } or {-1: np.zeros((), np.int64)}


def _extent(grid: dict[int, Array]) -> tuple[int, ...]:
    return np.broadcast_shapes(*(array.shape for array in grid.values()))


def _number_of(axes: Sequence[int], some: Sequence[int], extents: dict[int, int]) -> Array:
    """For each element of the box of ``axes``, the number of its part in the box of ``some`` of them."""
    grid, total = _grid(axes, extents), np.zeros((), np.int64)
    for i in some:
        total = total * extents[i] + grid[i]
    return np.broadcast_to(total, _extent(grid)).reshape(-1)


def _evaluated(expr: Expr, grid: dict[int, Array]) -> Array:
    total = np.full(_extent(grid), expr.constant, np.int64)
    for atom, c in expr.terms:
        if isinstance(atom, Axis):
            total = total + c * grid[atom.number]
            continue
        assert isinstance(atom, Quotient | Remainder), "windows are read at known places"
        of = _evaluated(atom.of, grid)
        total = total + c * (of // atom.by if isinstance(atom, Quotient) else of % atom.by)
    return total


def _holds(condition: Condition, grid: dict[int, Array]) -> Array:
    x, n = _evaluated(condition.expr, grid), condition.number
    found: Array = {"lt": x < n, "ge": x >= n, "eq": x == n, "ne": x != n}[condition.how]
    return found


class Plan(NamedTuple):
    """A kernel's tables as its code reads them, int32. ``tiles``: a row for each tile of columns."""

    terms: Array
    tiles: Array


def spread_plan(found: Tables, lane: int, vectors: int, itemsize: int) -> Plan:
    """Rows of ``tiles``: (first term, terms, whether all lanes exist), and for each vector of the tile (where B begins,
    its first column, its lanes). ``lane``: how many columns are neighbours."""
    each = -(-lane // LANES)
    rows = []
    for kind, (start, count) in enumerate(zip(found.starts, found.counts, strict=True)):
        (pixels,) = np.nonzero(found.classes == kind)
        pixel, part = np.repeat(pixels, each), np.tile(np.arange(each) * LANES, len(pixels))
        vector = np.stack(
            [found.bases[pixel] + part * itemsize, pixel * lane + part, np.minimum(LANES, lane - part)], 1
        )
        tiles = -(-len(vector) // vectors)
        full = np.repeat(vector[-1:], tiles * vectors, 0)
        full[:, 2] = 0
        full[: len(vector)] = vector
        full = full.reshape(tiles, vectors, 3)
        head = np.stack([np.full(tiles, start), np.full(tiles, count), (full[:, :, 2] == LANES).all(1)], 1)
        rows.append(np.concatenate([head, full.reshape(tiles, -1)], 1))
    tiles_ = np.concatenate(rows)
    return Plan(found.terms.astype(np.int32), tiles_.astype(np.int32))


def dot_plan(found: Tables, lane: int, width: int, itemsize: int) -> Plan:
    """Rows of ``tiles``: (first term, terms of 16 lanes, terms of fewer), and for each column of the tile (where B
    begins, its number); a column that does not exist has the number −1. ``lane``: elements of the sum side by side."""
    each, rest = divmod(lane, LANES)
    parts, rows, first = [], [], 0
    for kind, (start, count) in enumerate(zip(found.starts, found.counts, strict=True)):
        one = found.terms[start : start + count]
        whole = (one[:, None, :] + (np.arange(each) * LANES * itemsize)[None, :, None]).reshape(-1, 2)
        tail = one + each * LANES * itemsize if rest else one[:0]
        (numbers,) = np.nonzero(found.classes == kind)
        tiles = -(-len(numbers) // width)
        column = np.stack([np.repeat(found.bases[numbers[-1:]], tiles * width), np.full(tiles * width, -1)], 1)
        column[: len(numbers)] = np.stack([found.bases[numbers], numbers], 1)
        head = np.repeat([[first, len(whole), len(tail)]], tiles, 0)
        rows.append(np.concatenate([head, column.reshape(tiles, -1)], 1))
        parts += [whole, tail]
        first += len(whole) + len(tail)
    tiles_ = np.concatenate(rows)
    return Plan(np.concatenate(parts).astype(np.int32), tiles_.astype(np.int32))


# --- tiles --------------------------------------------------------------------------------------------------------
class Tile(NamedTuple):
    """The structure of a kernel. rows: of A · width: vectors of columns, or in a dot product columns."""

    scalar: str
    rows: int
    width: int
    dot: bool = False
    batched: bool = False
    tails: bool = False
    """Whether a dot product has terms of fewer than 16 lanes."""


def choose(m: int, found: Tables, lane: int, scalar: str, *, dot: bool, batched: bool, register_bytes: int) -> Tile:
    """The tile with the least cycles, of a processor that multiplies, and loads, two registers in each, and waits four
    for a sum."""
    wide = LANES * _BYTES[scalar] // register_bytes  # registers of a vector
    most = (24 if register_bytes >= 64 else 12) // wide
    sizes = np.bincount(found.classes)
    each = 1 if dot else -(-lane // LANES)
    best, least = Tile(scalar, 1, 1), float("inf")
    for rows in range(1, min(12, most) + 1):
        for width in range(1, min(12 if dot else 8, most // rows) + 1):
            if dot and (rows * width + rows + width) * wide > (31 if register_bytes >= 64 else 15):
                continue  # code generation loads all of a term's vectors first
            products = rows * width * wide / 2
            loads = (rows * (wide if dot else 1) + width * wide) / 2
            tiles = -(-m // rows) * int((-(-(sizes * each) // width)).sum())
            cycles = tiles * (max(products, loads, 4) + loads / 4)
            if cycles < least:
                best, least = Tile(scalar, rows, width), cycles
    return best._replace(dot=dot, batched=batched, tails=dot and lane % LANES > 0)


class Operands(NamedTuple):
    """What stands in the argument words. m: rows · a, b, terms, tiles: addresses · a_row, a_batch, b_batch: strides in
    bytes · count: tiles of columns · of a dot product tall, chunk: row tiles and column tiles that take turns, lanes:
    of the terms that have fewer than 16."""

    m: Any
    a: Any
    b: Any
    terms: Any
    tiles: Any
    count: Any
    a_row: Any
    a_batch: Any = None
    b_batch: Any = None
    tall: Any = None
    chunk: Any = None
    lanes: Any = None


def blocks(tile: Tile, m: int, count: int, batch: int, threads: int) -> tuple[int, int]:
    """Of a dot product, how many row tiles and column tiles take turns: many, but some for each thread."""
    row_tiles, size = -(-m // tile.rows), tile.rows * tile.width * LANES * _BYTES[tile.scalar]
    tall = min(row_tiles, BAND)
    share = -(-count * -(-row_tiles // tall) * batch // (2 * threads if threads > 1 else 1))
    return tall, max(1, min(count, KEPT // (size * tall), share))


def tasks(tile: Tile, m: int, count: int, block: tuple[int, int], batch: int) -> int:
    """The extent of the kernel's parallel loop: its tiles, or blocks of (row tiles, column tiles)."""
    return -(-m // (tile.rows * block[0])) * -(-count // block[1]) * batch


def _ceil_div(b: Builder, value: Value, by: Value) -> Value:
    return b.binary("udiv", b.add(value, b.sub(by, b.number(1))), by)


def emit(b: Builder, tile: Tile, operands: Operands, epilogue: Epilogue, *, direct: bool = True) -> None:
    """Write the kernel; its range counts ``tasks(…)``.

    ``epilogue`` as for ``gemm.emit``; for a dot product the second place is a vector, the columns' numbers.
    """
    (_Dot if tile.dot else _Spread)(b, tile, operands, epilogue, direct).run()


_BYTE: Final = Type("i8")
_I32: Final = Type("i32")


class _Emitter:
    """What both forms have in common."""

    def __init__(self, b: Builder, tile: Tile, operands: Operands, epilogue: Epilogue, direct: bool) -> None:
        self.b, self.tile, self.operands, self.epilogue, self.direct = b, tile, operands, epilogue, direct
        self.scalar, self.vector = Type(tile.scalar), Type(tile.scalar, LANES)
        self.m, self.a_row, self.count = self.word("m"), self.word("a_row"), self.word("count")
        self.a, self.right, self.terms, self.tiles = (self.word(n, PTR) for n in ("a", "b", "terms", "tiles"))

    def word(self, name: str, type: Type = I64) -> Value:
        return self.b.word(("windows", name), getattr(self.operands, name), type)

    def number(self, row: Value, place: int) -> Value:
        """An entry of a row of a table."""
        return self.b.convert("sext", self.b.load(_I32, self.b.offset(row, place, _I32)), "i64")

    def moved(self, pointer: Value, bytes: Value) -> Value:
        return self.b.offset(pointer, bytes, _BYTE)

    def of_batch(self, batch: Outer) -> tuple[Value, Value]:
        """Where both operands begin."""
        b, a, right = self.b, self.a, self.right
        for index in batch:
            a = self.moved(a, b.mul(index, self.word("a_batch")))
            right = self.moved(right, b.mul(index, self.word("b_batch")))
        return a, right

    def rows_from(self, a: Value, m: Value) -> list[Value]:
        """Where the rows of a tile begin; those beyond M repeat the last one."""
        b = self.b
        last = b.sub(self.m, b.number(1))
        rows = [b.intrinsic("smin", b.add(m, b.number(r)), last) for r in range(self.tile.rows)]
        return [self.moved(a, b.mul(row, self.a_row)) for row in rows]

    def split(self, task: Value, columns: Value) -> tuple[Outer, Value, Value]:
        """(batch, first row, number among the columns) of a task: row tiles of one column tile are neighbours."""
        b = self.b
        tiles = b.binary("udiv", b.add(self.m, b.number(self.tile.rows - 1)), b.number(self.tile.rows))
        rest = b.binary("udiv", task, tiles)
        m = b.mul(b.sub(task, b.mul(rest, tiles)), b.number(self.tile.rows))
        if not self.tile.batched:
            return (), m, rest
        batch = b.binary("udiv", rest, columns)
        return (batch,), m, b.sub(rest, b.mul(batch, columns))


class _Spread(_Emitter):
    """Lanes along the columns."""

    def run(self) -> None:
        b, tile = self.b, self.tile
        places = None if self.direct else b.stack(self.vector, tile.rows * tile.width)
        with b.loop(b.begin, b.end) as task:
            batch, m, at = self.split(task, self.count)
            row = b.offset(self.tiles, b.mul(at, b.number(3 + 3 * tile.width)), _I32)
            a, right = self.of_batch(batch)
            starts = [self.moved(right, self.number(row, 3 + 3 * v)) for v in range(tile.width)]
            columns = [self.number(row, 4 + 3 * v) for v in range(tile.width)]
            masks = [b.lanes_below(self.number(row, 5 + 3 * v)) for v in range(tile.width)]
            masks = [b.binary("or", mask, literal(0, mask.type)) for mask in masks]  # as in gemm.py
            sums = [b.variable(literal(0, self.vector)) for _ in range(tile.rows * tile.width)]
            first, count = b.offset(self.terms, b.mul(self.number(row, 0), b.number(2)), _I32), self.number(row, 1)
            rows = self.rows_from(a, m)
            whole = b.compare("ne", self.number(row, 2), b.number(0))
            with b.when(b.compare("sgt", count, b.number(0))):
                with b.when(whole):
                    self.chain(rows, starts, first, count, sums, None)
                with b.when(b.binary("xor", whole, literal(1, whole.type))):
                    self.chain(rows, starts, first, count, sums, masks)
            values = [total.get() for total in sums]
            if places is None:
                for number in range(tile.rows):
                    r = b.add(m, b.number(number))
                    with b.when(b.compare("slt", r, self.m)):
                        for v, mask in enumerate(masks):
                            self.epilogue(b, r, columns[v], values[number * tile.width + v], mask, batch)
            else:
                for i, value in enumerate(values):
                    b.store(value, b.offset(places, i, self.vector), 64)
                with b.loop(0, b.intrinsic("smin", b.sub(self.m, m), b.number(tile.rows))) as r:
                    for v, mask in enumerate(masks):
                        place = b.add(b.mul(r, b.number(tile.width)), b.number(v))
                        found = b.load(self.vector, b.offset(places, place, self.vector), 64)
                        self.epilogue(b, b.add(m, r), columns[v], found, mask, batch)

    def chain(
        self, rows: list[Value], starts: list[Value], first: Value, count: Value, sums: list[Variable],
        masks: list[Value] | None,
    ) -> None:  # fmt: skip
        """All terms, one after the other."""
        b, width = self.b, self.tile.width
        at, left = b.variable(first), b.variable(count)
        with b.repeat_while(1000) as again:
            term = at.get()
            in_a, in_b = self.number(term, 0), self.number(term, 1)
            places = [self.moved(start, in_b) for start in starts]
            vectors = [
                b.load(self.vector, place) if masks is None else b.load_masked(self.vector, place, masks[v])
                for v, place in enumerate(places)
            ]
            for r, row in enumerate(rows):
                element = b.splat(b.load(self.scalar, self.moved(row, in_a)))
                for v, vector in enumerate(vectors):
                    total = sums[r * width + v]
                    total.set(b.fma(element, vector, total.get()))
            at.set(b.offset(term, 2, _I32))
            left.set(b.sub(left.get(), b.number(1)))
            again.append(b.compare("sgt", left.get(), b.number(0)))


class _Dot(_Emitter):
    """Lanes along the sum."""

    def run(self) -> None:
        b, tile = self.b, self.tile
        self.size = tile.rows * tile.width
        self.kept = b.stack(self.vector, KEPT // _BYTES[tile.scalar] // LANES)
        self.joined = b.stack(self.scalar, -(-self.size // LANES) * LANES + LANES)
        self.numbers = b.stack(I64, LANES)
        self.tall, self.chunk = self.word("tall"), self.word("chunk")
        row_tiles = _ceil_div(b, self.m, b.number(tile.rows))
        bands, chunks = _ceil_div(b, row_tiles, self.tall), _ceil_div(b, self.count, self.chunk)
        with b.loop(b.begin, b.end) as task:
            rest = b.binary("udiv", task, bands)
            top = b.mul(b.sub(task, b.mul(rest, bands)), self.tall)
            batch, at = Outer(), rest
            if tile.batched:
                batch = (b.binary("udiv", rest, chunks),)
                at = b.sub(rest, b.mul(batch[0], chunks))
            first = b.mul(at, self.chunk)
            tall = b.intrinsic("smin", self.tall, b.sub(row_tiles, top))
            wide = b.intrinsic("smin", self.chunk, b.sub(self.count, first))
            self.block(batch, (top, tall), (first, wide))

    def block(self, batch: Outer, band: tuple[Value, Value], chunk: tuple[Value, Value]) -> None:
        """Some row tiles times some column tiles, (first, how many) of each. A stretch of terms goes through all of
        them before the next one does: what it reads comes from afar once, and a row tile's part of it stays near."""
        b, tile, (top, tall), (first, wide) = self.b, self.tile, band, chunk
        a, right = self.of_batch(batch)
        with b.loop(0, b.mul(b.mul(tall, wide), b.number(self.size))) as i:
            b.store(literal(0, self.vector), b.offset(self.kept, i, self.vector), 64)
        longest = b.variable(b.number(0))
        with b.loop(0, wide) as t:
            longest.set(b.intrinsic("smax", longest.get(), self.number(self.row_of(b.add(first, t)), 1)))
        with b.loop(0, longest.get(), STRETCH) as done, b.loop(0, tall) as i:
            rows = self.rows_from(a, b.mul(b.add(top, i), b.number(tile.rows)))
            with b.loop(0, wide) as t:
                row = self.row_of(b.add(first, t))
                left = b.sub(self.number(row, 1), done)
                with b.when(b.compare("sgt", left, b.number(0))):
                    count = b.intrinsic("smin", left, b.number(STRETCH))
                    kept = self.place_of(b.add(b.mul(i, wide), t))
                    self.stretch(rows, right, row, kept, b.add(self.number(row, 0), done), count, None)
        with b.loop(0, tall) as i:
            m = b.mul(b.add(top, i), b.number(tile.rows))
            rows = self.rows_from(a, m) if tile.tails else []
            with b.loop(0, wide) as t:
                row, kept = self.row_of(b.add(first, t)), self.place_of(b.add(b.mul(i, wide), t))
                if tile.tails:
                    rest = self.number(row, 2)
                    mask = b.lanes_below(self.word("lanes"))
                    with b.when(b.compare("sgt", rest, b.number(0))):
                        begin = b.add(self.number(row, 0), self.number(row, 1))
                        self.stretch(rows, right, row, kept, begin, rest, mask)
                self.finish(batch, m, row, kept)

    def row_of(self, number: Value) -> Value:
        return self.b.offset(self.tiles, self.b.mul(number, self.b.number(3 + 2 * self.tile.width)), _I32)

    def place_of(self, number: Value) -> Value:
        return self.b.offset(self.kept, self.b.mul(number, self.b.number(self.size)), self.vector)

    def stretch(
        self, rows: list[Value], right: Value, row: Value, kept: Value, begin: Value, count: Value, mask: Value | None
    ) -> None:
        """Some terms of one tile, whose sums lie in memory before and after."""
        b, width = self.b, self.tile.width
        sums = [b.variable(b.load(self.vector, b.offset(kept, i, self.vector), 64)) for i in range(self.size)]
        starts = [self.moved(right, self.number(row, 3 + 2 * v)) for v in range(width)]
        at, left = b.variable(b.offset(self.terms, b.mul(begin, b.number(2)), _I32)), b.variable(count)

        def load(place: Value) -> Value:
            return b.load(self.vector, place) if mask is None else b.load_masked(self.vector, place, mask)

        with b.repeat_while(1000) as again:
            term = at.get()
            in_a, in_b = self.number(term, 0), self.number(term, 1)
            few, many = (rows, starts) if len(rows) < len(starts) else (starts, rows)
            held = [load(self.moved(x, in_a if few is rows else in_b)) for x in few]
            for j, x in enumerate(many):
                other = load(self.moved(x, in_b if few is rows else in_a))
                for i, vector in enumerate(held):
                    r, v = (i, j) if few is rows else (j, i)
                    total = sums[r * width + v]
                    total.set(b.fma(*((vector, other) if few is rows else (other, vector)), total.get()))
            at.set(b.offset(term, 2, _I32))
            left.set(b.sub(left.get(), b.number(1)))
            again.append(b.compare("sgt", left.get(), b.number(0)))
        for i, total in enumerate(sums):
            b.store(total.get(), b.offset(kept, i, self.vector), 64)

    def finish(self, batch: Outer, m: Value, row: Value, kept: Value) -> None:
        """Join the lanes of all sums of a tile, and hand on its elements row by row."""
        b, tile = self.b, self.tile
        for start in range(0, self.size, LANES):
            some = [
                b.load(self.vector, b.offset(kept, i, self.vector), 64)
                for i in range(start, min(start + LANES, self.size))
            ]
            b.store(joined(b, some), b.offset(self.joined, start, self.scalar), 64)
        numbers = [self.number(row, 4 + 2 * v) for v in range(tile.width)]
        for v in range(LANES):
            b.store(numbers[v] if v < tile.width else b.number(-1), b.offset(self.numbers, v, I64))
        columns = b.load(Type("i64", LANES), self.numbers, 64)
        mask = b.compare("sge", columns, literal(0, columns.type))
        with b.loop(0, b.intrinsic("smin", b.sub(self.m, m), b.number(tile.rows))) as r:
            found = b.load(self.vector, b.offset(self.joined, b.mul(r, b.number(tile.width)), self.scalar))
            self.epilogue(b, b.add(m, r), columns, found, mask, batch)


def joined(b: Builder, vectors: Sequence[Value]) -> Value:
    """The sums of the lanes of up to 16 vectors as one vector: each by halves, (v₀ + v₈), …, as ``Builder.tree``."""
    parts = [*vectors] + [literal(0, vectors[0].type)] * (LANES - len(vectors))
    width = LANES
    while width > 1:
        half = width // 2
        # A vector holds LANES / width numbers' worth of partial sums, ``width`` lanes each.
        low = [lane for start in range(0, 2 * LANES, width) for lane in range(start, start + half)]
        high = [lane + half for lane in low]
        parts = [
            b.add(b.shuffle(x, y, low), b.shuffle(x, y, high)) for x, y in zip(parts[::2], parts[1::2], strict=True)
        ]
        width = half
    return parts[0]

"""Native kernels of indexed access (gather, scatter_add, fold), and the table of all emitters of whole primitives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

from slalom.compiler.draws import random_bits
from slalom.compiler.emitter import FAILED, Emitter, Plan, memory_type, opposite, read, widened, write
from slalom.compiler.ir import I8, I16, I32, I64, LANES, Builder, Type, Value, literal
from slalom.compiler.lines import argmax, argsort, cumsum
from slalom.core.dtype import DType
from slalom.core.graph import Type as Operand
from slalom.core.shape import Shape, size

__all__ = ["EMITTERS", "FAILED", "Plan", "gather_rows"]

Place = tuple[Value, Value]
"""Where loops stand in the input and in the output, in elements."""


# --- indexed access ---------------------------------------------------------------------------------------------------
class _Rows:
    """Which row of an array the i-th index (or tuple of indices) means, and whether it exists."""

    def __init__(self, b: Builder, indices: Sequence[Operand], shape: Shape) -> None:
        self._builder = b
        self._indices = [
            (b.pointer(("index", axis), ("in", axis + 1)), b.word(("extent", axis), shape[axis]), index.dtype)
            for axis, index in enumerate(indices)
        ]
        self._failed = b.variable(literal(0, Type("i1")))

    def at(self, i: Value) -> tuple[Value, Value]:
        """(the row, whether it exists): as unsigned numbers, negative indices are too large."""
        b = self._builder
        row = exists = None
        for pointer, extent, dtype in self._indices:
            type = memory_type(dtype)
            value = widened(b, b.load(type, b.offset(pointer, i, type)), dtype)
            inside = b.compare("ult", value, extent)
            row = value if row is None else b.add(b.mul(row, extent), value)
            exists = inside if exists is None else b.binary("and", exists, inside)
        assert row is not None and exists is not None, "there is at least one index"
        self._failed.set(b.binary("or", self._failed.get(), opposite(b, exists)))
        return row, exists

    def report(self) -> None:
        """Set the status word if a row did not exist."""
        b = self._builder
        with b.when(self._failed.get()):
            b.store(literal(FAILED, I64), b.pointer("status", ("status",)))


def _gather(b: Builder, inputs: Sequence[Operand], output: Operand, params: Mapping[str, Any]) -> Plan:
    """A row of bytes, or one element where all axes are indexed, for each index. A bad index writes nothing."""
    x, *indices = inputs
    if len(x.shape) > len(indices):
        row_bytes = size(x.shape[len(indices) :]) * x.dtype.itemsize
        return _copy_rows(b, indices, x.shape, row_bytes)
    type, rows = Type(f"i{8 * x.dtype.itemsize}"), _Rows(b, indices, x.shape)
    source, to = b.pointer("x", ("in", 0)), b.pointer("out", ("out", 0))
    with b.loop(b.begin, b.end) as i:
        row, exists = rows.at(i)
        with b.when(exists):
            b.store(b.load(type, b.offset(source, row, type)), b.offset(to, i, type))
    rows.report()
    return Plan(size(indices[0].shape))


def gather_rows(b: Builder, rows: int, row_bytes: int, index: Operand) -> Plan:
    """Copy the rows that ("in", 1), an ``index`` array, names from ("in", 0), ``rows`` of so many bytes each."""
    return _copy_rows(b, [index], (rows,), row_bytes)


def _copy_rows(b: Builder, indices: Sequence[Operand], shape: Shape, row_bytes: int) -> Plan:
    rows, width = _Rows(b, indices, shape), b.word("row bytes", row_bytes)
    source, to = b.pointer("x", ("in", 0)), b.pointer("out", ("out", 0))
    copy = _words_copy(b, width) if row_bytes % _WORD == 0 else _bytes_copy(b, width)
    with b.loop(b.begin, b.end) as i:
        row, exists = rows.at(i)
        with b.when(exists):
            copy(b.offset(source, b.mul(row, width), I8), b.offset(to, b.mul(i, width), I8))
    rows.report()
    return Plan(size(indices[0].shape))


_Copy = Callable[[Value, Value], None]
_WORD: Final = 4


def _words_copy(b: Builder, size: Value) -> _Copy:
    """Copies a run of 32-bit words: whole vectors, and the rest as one with a mask."""
    vector = Type("i32", LANES)
    whole = b.binary("and", size, literal(-_CHUNK, I64))
    rest = b.sub(size, whole)
    some, mask = b.compare("ne", rest, literal(0, I64)), b.lanes_below(b.binary("udiv", rest, literal(_WORD, I64)))

    def copy(source: Value, to: Value) -> None:
        with b.loop(0, whole, _CHUNK) as at:
            b.store(b.load(vector, b.offset(source, at, I8), 1), b.offset(to, at, I8), 1)
        with b.when(some):
            b.store_masked(b.load_masked(vector, b.offset(source, whole, I8), mask), b.offset(to, whole, I8), mask)

    return copy


def _bytes_copy(b: Builder, size: Value) -> _Copy:
    pieces = _pieces(b, size)

    def copy(source: Value, to: Value) -> None:
        _each_piece(
            b,
            pieces,
            lambda type, at: b.store(b.load(type, b.offset(source, at, I8), 1), b.offset(to, at, I8), 1),
        )

    return copy


_Pieces = tuple[Value, list[tuple[Type, Value, Value]]]
_CHUNK: Final = 64


def _pieces(b: Builder, size: Value) -> _Pieces:
    """A run of bytes cut into chunks of 64 and, for the rest, at most one piece of 32, 16, 8, 4, 2, 1 each.

    The bytes in whole chunks; for each smaller piece its type, its size or 0, its place.
    """
    rest = []
    for type, bytes in ((Type("i32", 8), 32), (Type("i32", 4), 16), (I64, 8), (I32, 4), (I16, 2), (I8, 1)):
        present = b.binary("and", size, literal(bytes, I64))
        rest.append((type, present, b.binary("and", size, literal(-2 * bytes, I64))))
    return b.binary("and", size, literal(-_CHUNK, I64)), rest


def _each_piece(b: Builder, pieces: _Pieces, move: Callable[[Type, Value], None]) -> None:
    whole, rest = pieces
    with b.loop(0, whole, _CHUNK) as at:
        move(Type("i32", _CHUNK // 4), at)
    for type, present, at in rest:
        with b.when(b.compare("ne", present, literal(0, I64))):
            move(type, at)


def _clear(b: Builder, pointer: Value, bytes: Value) -> None:
    _each_piece(b, _pieces(b, bytes), lambda type, at: b.store(literal(0, type), b.offset(pointer, at, I8), 1))


def _sum(b: Builder, old: Value, new: Value, dtype: DType) -> Value:
    """NumPy's sum in a dtype: bools are joined by or, integers wrap."""
    return b.binary("or", old, new) if dtype.kind == "b" else b.add(old, new)


def _scatter_add(b: Builder, inputs: Sequence[Operand], output: Operand, params: Mapping[str, Any]) -> Plan:
    """Zeros, to which rows are added in index order: each task owns 16 columns; without columns there is one task."""
    updates, *indices = inputs
    type, depth = memory_type(updates.dtype), len(indices)
    source, to = b.pointer("updates", ("in", 0)), b.pointer("out", ("out", 0))
    places, count = _Rows(b, indices, output.shape), b.word("count", size(indices[0].shape))

    def add(target: Value, given: Value, type: Type, mask: Value | None) -> None:
        old, new = read(b, type, target, mask), read(b, type, given, mask)
        write(b, _sum(b, old, new, updates.dtype), target, mask)

    if len(output.shape) == depth:
        with b.loop(b.begin, b.end):
            _clear(b, to, b.word("out bytes", size(output.shape) * output.dtype.itemsize))
            with b.loop(0, count) as i:
                row, exists = places.at(i)
                with b.when(exists):
                    add(b.offset(to, row, type), b.offset(source, i, type), type, None)
        places.report()
        return Plan(1)

    columns = size(output.shape[depth:])
    width, vector = b.word("width", columns), Type(type.scalar, LANES)
    begin = b.mul(b.begin, literal(LANES, I64))
    stop = b.intrinsic("smin", b.mul(b.end, literal(LANES, I64)), width)
    # The columns in whole vectors, and those that are left for a mask.
    whole = b.add(begin, b.binary("and", b.sub(stop, begin), literal(-LANES, I64)))
    some, mask = b.compare("slt", whole, stop), b.lanes_below(b.sub(stop, whole))

    def each(row: Value, move: Callable[[Value, Value | None], None]) -> None:
        with b.loop(begin, whole, LANES) as column:
            move(b.add(row, column), None)
        with b.when(some):
            move(b.add(row, whole), mask)

    with b.loop(0, b.word("rows", size(output.shape[:depth]))) as row:
        zero = literal(0, vector)
        each(b.mul(row, width), lambda at, mask: write(b, zero, b.offset(to, at, type), mask))
    with b.loop(0, count) as i:
        row, exists = places.at(i)
        with b.when(exists):
            shift, target = b.mul(b.sub(i, row), width), b.mul(row, width)
            each(
                target,
                lambda at, mask: add(b.offset(to, at, type), b.offset(source, b.add(at, shift), type), vector, mask),
            )
    places.report()
    return Plan(-(-columns // LANES))


# --- fold -------------------------------------------------------------------------------------------------------------
def _fold(b: Builder, inputs: Sequence[Operand], output: Operand, params: Mapping[str, Any]) -> Plan:
    """Windows added back to where they were read, tap by tap in row-major order; a task is one leading index."""
    (y,), rank = inputs, len(params["size"])
    type, lead = memory_type(y.dtype), len(y.shape) - 2 * rank
    spatial, counts, taps = output.shape[lead:], y.shape[lead : lead + rank], y.shape[lead + rank :]
    source, to = b.pointer("y", ("in", 0)), b.pointer("out", ("out", 0))
    room, given = b.word("out size", size(spatial)), b.word("in size", size(counts) * size(taps))
    room_bytes = b.word("out bytes", size(spatial) * output.dtype.itemsize)

    def loops(stack: ExitStack, kind: str, extents: Shape, steps: Shape, strides: Shape, at: Place) -> Place:
        """Nested loops over the extents, and where they are in y (by ``strides``) and in the output (by ``steps``)."""
        for axis, (n, step, stride) in enumerate(zip(extents, steps, strides, strict=True)):
            i = stack.enter_context(b.loop(0, b.word((kind, axis), n)))
            moves = b.word((kind, "in", axis), stride), b.word((kind, "out", axis), step)
            at = b.add(at[0], b.mul(i, moves[0])), b.add(at[1], b.mul(i, moves[1]))
        return at

    inside = [size(spatial[axis + 1 :]) for axis in range(rank)]
    strides = [size((*counts, *taps)[axis + 1 :]) for axis in range(2 * rank)]
    with b.loop(b.begin, b.end) as task, ExitStack() as stack:
        first = b.mul(task, given), b.mul(task, room)
        _clear(b, b.offset(to, first[1], type), room_bytes)
        steps = tuple(d * n for d, n in zip(params["dilation"], inside, strict=True))
        at = loops(stack, "tap", taps, steps, tuple(strides[rank:]), first)
        steps = tuple(s * n for s, n in zip(params["stride"], inside, strict=True))
        taken, target = loops(stack, "window", counts, steps, tuple(strides[:rank]), at)
        place = b.offset(to, target, type)
        b.store(_sum(b, b.load(type, place), b.load(type, b.offset(source, taken, type)), y.dtype), place)
    return Plan(size(y.shape[:lead]))


EMITTERS: Final[dict[str, Emitter]] = {
    "argmax": argmax,
    "argsort": argsort,
    "cumsum": cumsum,
    "fold": _fold,
    "gather": _gather,
    "random_bits": random_bits,
    "scatter_add": _scatter_add,
}
"""For each primitive's name: write its kernel, given the types of its operands and its result, and its parameters."""

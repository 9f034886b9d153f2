"""Native kernels along the lines of an axis: running sums, the place of the maximum, the sorting order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from slalom.compiler.emitter import Plan, memory_type, opposite, read, widened, write
from slalom.compiler.ir import I8, I16, I64, LANES, Builder, Type, Value, literal
from slalom.core.dtype import DType
from slalom.core.graph import Type as Operand
from slalom.core.shape import Shape, size

__all__ = ["argmax", "argsort", "cumsum"]


# --- lines along an axis ----------------------------------------------------------------------------------------------
def _extents(shape: Shape, axis: int) -> tuple[int, int, int]:
    """The extents before, along and after an axis; a 0-d array has one line of one element."""
    return (size(shape[:axis]), shape[axis], size(shape[axis + 1 :])) if shape else (1, 1, 1)


@contextmanager
def _lines(b: Builder, extents: tuple[int, int, int], lanes: int) -> Iterator[tuple[Value, Value, Value | None]]:
    """Each task's line, or 16 lines side by side, of an array with the extents (before, along, after the axis).

    Yields: where they begin, where their result stands in an output without the axis, the mask of those that exist.
    """
    _, n, inner = extents
    if not lanes:
        with b.loop(b.begin, b.end) as task:
            yield b.mul(task, b.word("n", n)), task, None
        return
    width, blocks, slab = b.word("inner", inner), b.word("blocks", -(-inner // LANES)), b.word("slab", n * inner)
    with b.loop(b.begin, b.end) as task:
        block = b.binary("udiv", task, blocks)
        column = b.mul(b.sub(task, b.mul(block, blocks)), literal(LANES, I64))
        mask = b.lanes_below(b.sub(width, column))
        yield b.add(b.mul(block, slab), column), b.add(b.mul(block, width), column), mask


def _line_tasks(extents: tuple[int, int, int], lanes: int) -> Plan:
    outer, _, inner = extents
    return Plan(outer * -(-inner // LANES) if lanes else outer)


def cumsum(b: Builder, inputs: Sequence[Operand], output: Operand, params: Mapping[str, Any]) -> Plan:
    """A chain of sums along each line; where the axis is not the last, along 16 neighbouring lines at once."""
    (x,), axis = inputs, params["axis"]
    _, n, inner = extents = _extents(x.shape, axis)
    lanes = 0 if axis == len(x.shape) - 1 else LANES
    given, wanted = memory_type(x.dtype), memory_type(output.dtype)
    source, to = b.pointer("x", ("in", 0)), b.pointer("out", ("out", 0))
    count = b.word("n", n)
    first = b.word("first", (n - 1) * inner if params["reverse"] else 0)
    step = b.word("step", -inner if params["reverse"] else inner)
    with _lines(b, extents, lanes) as (begin, _, mask):
        # −0 + x is x for every x, so that a line begins with its first element, as NumPy's does.
        total = b.variable(literal(-0.0, Type(wanted.scalar, lanes)))
        place = b.variable(b.add(begin, first))
        with b.loop(0, count):
            at = place.get()
            value = read(b, Type(given.scalar, lanes), b.offset(source, at, given), mask)
            total.set(b.add(total.get(), value if wanted.floating else widened(b, value, x.dtype)))
            write(b, total.get(), b.offset(to, at, wanted), mask)
            place.set(b.add(at, step))
    return _line_tasks(extents, lanes)


def argmax(b: Builder, inputs: Sequence[Operand], output: Operand, params: Mapping[str, Any]) -> Plan:
    """The first maximum: of 16 neighbouring lines at once, along the last axis, of 16 lanes that are then joined."""
    (x,), axis = inputs, params["axis"]
    _, n, inner = extents = _extents(x.shape, axis)
    last = axis == max(len(x.shape) - 1, 0)
    type = memory_type(x.dtype)
    vector, places = Type(type.scalar, LANES), Type("i64", LANES)
    source, to, count = b.pointer("x", ("in", 0)), b.pointer("out", ("out", 0)), b.word("n", n)
    stride = None if last else b.word("inner", inner)
    with _lines(b, extents, 0 if last else LANES) as (begin, place, mask):
        start = b.offset(source, begin, type)
        best = b.variable(b.splat(b.load(type, start)) if mask is None else b.load_masked(vector, start, mask))
        where = b.variable(literal(0, places))
        with b.loop(0, count, LANES if last else 1) as i:
            if stride is None:
                valid, lane = b.lanes_below(b.sub(count, i)), b.add(b.splat(i), b.iota())
                value = b.load_masked(vector, b.offset(start, i, type), valid)
                better = b.binary("and", _beats(b, value, best.get(), x.dtype), valid)
            else:
                lane = b.splat(i)
                value = read(b, vector, b.offset(start, b.mul(i, stride), type), mask)
                better = _beats(b, value, best.get(), x.dtype)
            best.set(b.select(better, value, best.get()))
            where.set(b.select(better, lane, where.get()))
        target = b.offset(to, place, I64)
        if last:
            b.store(_first_best(b, best.get(), where.get(), x.dtype), target)
        else:
            write(b, where.get(), target, mask)
    return _line_tasks(extents, 0 if last else LANES)


def _beats(b: Builder, new: Value, old: Value, dtype: DType) -> Value:
    """Whether ``new`` is larger; NaN is larger than all numbers."""
    if dtype.kind == "f":
        return b.binary("and", b.compare("ugt", new, old), b.compare("ord", old, old))
    return b.compare("sgt" if dtype.kind == "i" else "ugt", new, old)


def _first_best(b: Builder, best: Value, where: Value, dtype: DType) -> Value:
    """Where the largest lane is; among equal ones the lowest place."""
    while best.type.lanes > 1:
        half = best.type.lanes // 2
        low, high = (range(half), range(half, 2 * half))
        (old, new), (here, there) = ((b.shuffle(v, v, low), b.shuffle(v, v, high)) for v in (best, where))
        tied = opposite(b, _beats(b, old, new, dtype))
        earlier = b.binary("and", tied, b.compare("slt", there, here))
        take = b.binary("or", _beats(b, new, old, dtype), earlier)
        best, where = b.select(take, new, old), b.select(take, there, here)
    return b.extract(where)


# --- orders -----------------------------------------------------------------------------------------------------------
_FEW: Final = 48
"""Up to so many elements, ranks are counted by comparing all pairs; above, digits are sorted."""
_CHUNKS: Final = 32
"""The lines are sorted in at most so many tasks, each with scratch memory for one line."""
_RADIX: Final = 256


def argsort(b: Builder, inputs: Sequence[Operand], output: Operand, params: Mapping[str, Any]) -> Plan:
    """The stable order: by counting ranks in short lines, else by a radix sort from the lowest byte.

    Elements become unsigned keys in the same order (−0 equal to 0, every NaN the largest key); descending order is
    that of the inverted keys.
    Source: Knuth (1998), "The Art of Computer Programming", volume 3, section 5.2.5, algorithm R.
    """
    (x,) = inputs
    outer, n, inner = _extents(x.shape, params["axis"])
    type, bits = memory_type(x.dtype), 8 * x.dtype.itemsize
    lines = outer * inner
    tasks = min(lines, _CHUNKS)
    scratch = 2 * 16 * n if n > _FEW else 0
    source, to, count = b.pointer("x", ("in", 0)), b.pointer("out", ("out", 0)), b.word("n", n)
    room = b.pointer("scratch", ("scratch", tasks * scratch))
    stride, slab = b.word("inner", inner), b.word("slab", n * inner)
    every = b.word("every", -(-lines // max(tasks, 1)))
    end = b.call("llvm.smin.i64", I64, b.mul(b.end, every), b.word("lines", lines))
    inverted = b.word("inverted", (-1 if bits == 64 else (1 << bits) - 1) if params["descending"] else 0)
    counters, few = b.stack(I64, _RADIX), b.compare("sle", count, literal(_FEW, I64))
    room = b.offset(room, b.mul(b.begin, b.word("scratch bytes", scratch)), I8)
    with b.loop(b.mul(b.begin, every), end) as line:
        block = b.binary("udiv", line, stride)
        begin = b.add(b.mul(block, slab), b.sub(line, b.mul(block, stride)))

        def key(i: Value) -> Value:
            value = b.load(type, b.offset(source, b.add(begin, b.mul(i, stride)), type))
            return b.binary("xor", _key(b, value, x.dtype), inverted)

        def put(i: Value, place: Value) -> None:
            b.store(i, b.offset(to, b.add(begin, b.mul(place, stride)), I64))

        with b.when(few):
            _count_ranks(b, count, counters, key, put)
        with b.when(opposite(b, few)):
            _sort_digits(b, count, bits, counters, room, key, put)
    return Plan(tasks, tasks * scratch)


def _key(b: Builder, value: Value, dtype: DType) -> Value:
    """An unsigned number (i64) in the order of the values."""
    bits = 8 * dtype.itemsize
    type = Type(f"i{bits}")
    sign = literal(-1 << (bits - 1), type)
    if dtype.kind == "f":
        number = b.convert("bitcast", b.add(value, literal(0.0, value.type)), type.scalar)  # −0 + 0 is 0
        flip = b.binary("or", b.binary("ashr", number, literal(bits - 1, type)), sign)
        unordered = b.compare("uno", value, value)
        number = b.select(unordered, literal(-1, type), b.binary("xor", number, flip))
    else:
        number = b.binary("xor", value, sign) if dtype.kind == "i" else value
    return number if bits == 64 else b.convert("zext", number, "i64")


def _count_ranks(
    b: Builder, count: Value, keys: Value, key: Callable[[Value], Value], put: Callable[[Value, Value], None]
) -> None:
    """Element i comes after all that are smaller, and after the equal ones before it."""
    places = Type("i64", LANES)
    with b.loop(0, _FEW, LANES) as i:  # the largest key behind the last one counts nowhere
        b.store(literal(-1, places), b.offset(keys, i, I64))
    with b.loop(0, count) as i:
        b.store(key(i), b.offset(keys, i, I64))
    with b.loop(0, count) as i:
        mine, me, rank = b.splat(b.load(I64, b.offset(keys, i, I64))), b.splat(i), b.variable(literal(0, I64))
        with b.loop(0, count, LANES) as j:
            other, place = b.load(places, b.offset(keys, j, I64)), b.add(b.splat(j), b.iota())
            equal = b.binary("and", b.compare("eq", other, mine), b.compare("slt", place, me))
            before = b.binary("or", b.compare("ult", other, mine), equal)
            found = b.intrinsic("ctpop", b.op(f"bitcast {before} to i16", I16))
            rank.set(b.add(rank.get(), b.convert("zext", found, "i64")))
        put(i, rank.get())


def _sort_digits(
    b: Builder,
    count: Value,
    bits: int,
    counters: Value,
    room: Value,
    key: Callable[[Value], Value],
    put: Callable[[Value, Value], None],
) -> None:
    """Records (key, place) go from one half of the scratch memory to the other, digit after digit."""
    record, zero = Type("i64", 2), literal(0, I64)
    source, target = b.variable(room), b.variable(b.offset(room, count, record))
    with b.loop(0, count) as i:
        at = b.offset(room, i, record)
        b.store(key(i), at)
        b.store(i, b.offset(at, 1, I64))
    with b.loop(0, bits, 8) as shift:
        here, there = source.get(), target.get()

        def counter(number: Value) -> Value:
            digit = b.binary("and", b.binary("lshr", number, shift), literal(_RADIX - 1, I64))
            return b.offset(counters, digit, I64)

        with b.loop(0, _RADIX, LANES) as i:
            b.store(literal(0, Type("i64", LANES)), b.offset(counters, i, I64))
        with b.loop(0, count) as i:
            place = counter(b.load(I64, b.offset(here, i, record)))
            b.store(b.add(b.load(I64, place), literal(1, I64)), place)
        # Where all have one digit (the high bytes of small integers, say) nothing moves.
        same = b.load(I64, counter(b.load(I64, here)))
        with b.when(b.compare("ne", same, count)):
            total = b.variable(zero)
            with b.loop(0, _RADIX) as i:
                place, before = b.offset(counters, i, I64), total.get()
                total.set(b.add(before, b.load(I64, place)))
                b.store(before, place)
            with b.loop(0, count) as i:
                moved = b.load(record, b.offset(here, i, record))
                place = counter(b.extract(moved))
                to = b.load(I64, place)
                b.store(b.add(to, literal(1, I64)), place)
                b.store(moved, b.offset(there, to, record))
            source.set(there)
            target.set(here)
    final = source.get()
    with b.loop(0, count) as i:
        put(b.load(I64, b.offset(b.offset(final, i, record), 1, I64)), i)

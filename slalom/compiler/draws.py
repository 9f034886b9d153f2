"""Native kernels of the random numbers: the words of ``random_bits`` and the rows of ``permutation_at``.

Both are pure functions of a key and a position, so 16 of them are computed side by side and any range of tasks can be
computed alone. Their arithmetic is on integers: the bits are those of ``core.kernels``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from slalom.compiler.emitter import FAILED, Plan
from slalom.compiler.ir import I32, I64, LANES, Builder, Type, Value, literal
from slalom.core import kernels
from slalom.core.graph import Type as Operand
from slalom.core.shape import size
from slalom.errors import ShapeError

__all__ = ["permutation", "permutation_keys", "random_bits"]

_LONGS: Final = Type("i64", LANES)
_WORDS: Final = Type("i32", LANES)
_LOW: Final = 0xFFFF_FFFF


# --- random bits ------------------------------------------------------------------------------------------------------
_PHILOX_ROUNDS: Final = 10
_MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
_WEYL: Final = (0x9E3779B9, 0xBB67AE85)


def random_bits(b: Builder, inputs: Sequence[Operand], output: Operand, params: Mapping[str, Any]) -> Plan:
    """Philox4x32-10, 16 blocks (64 words) a task.

    Words are kept in lanes of 64 bits whose upper half is anything: the product takes the lower halves alone.
    Raises: ShapeError for more words than one draw has (2³⁴).
    Source: Salmon, Moraes, Dror, Shaw (2011), "Parallel random numbers: as easy as 1, 2, 3", section 3.3.
    """
    words = size(output.shape)
    if words > 4 << 32:
        raise ShapeError("random_bits", got=f"{words} elements", needed="at most 2^34 in one draw")
    state, to, n = b.pointer("state", ("in", 0)), b.pointer("out", ("out", 0)), b.word("n", words)
    seed, stream, draw = (b.load(I64, b.offset(state, i, I64)) for i in range(3))
    keys = _round_keys(b, seed)
    fixed = [b.splat(word) for word in (stream, draw, b.binary("lshr", draw, literal(32, I64)))]
    lower, multipliers = literal(_LOW, _LONGS), [literal(m, _LONGS) for m in _MULTIPLIERS]
    with b.loop(b.begin, b.end) as task:
        block = b.add(b.splat(b.mul(task, literal(LANES, I64))), b.iota())
        counter = [b.variable(word) for word in (block, *fixed)]
        with b.loop(0, _PHILOX_ROUNDS) as i:
            now = [word.get() for word in counter]
            key = [b.splat(b.load(I64, b.offset(keys, b.add(b.add(i, i), literal(h, I64)), I64))) for h in (0, 1)]
            product = [b.mul(b.binary("and", now[2 * h], lower), multipliers[h]) for h in (0, 1)]
            for h in (0, 1):
                high = b.binary("lshr", product[1 - h], literal(32, _LONGS))
                counter[2 * h].set(b.binary("xor", b.binary("xor", high, now[2 * h + 1]), key[h]))
                counter[2 * h + 1].set(product[1 - h])
        _store_blocks(b, [b.convert("trunc", word.get(), "i32") for word in counter], to, task, n)
    return Plan(-(-words // (4 * LANES)))


def _round_keys(b: Builder, seed: Value) -> Value:
    """An array of the keys of all rounds: the halves of the seed, and Weyl's increments added round by round."""
    keys = b.stack(I64, 2 * _PHILOX_ROUNDS)
    halves = [b.variable(word) for word in (seed, b.binary("lshr", seed, literal(32, I64)))]
    with b.loop(0, 2 * _PHILOX_ROUNDS, 2) as i:
        for h, half in enumerate(halves):
            b.store(half.get(), b.offset(keys, b.add(i, literal(h, I64)), I64))
            half.set(b.add(half.get(), literal(_WEYL[h], I64)))
    return keys


def _store_blocks(b: Builder, words: list[Value], to: Value, task: Value, n: Value) -> None:
    """Write 16 blocks of four words, given word by word, block after block; nothing beyond ``n`` words."""
    pairs = [[16 * (i % 2) + i // 2 + 8 * half for i in range(LANES)] for half in (0, 1)]
    fours = [[16 * (i % 4 // 2) + 2 * (i // 4) + i % 2 + 8 * half for i in range(LANES)] for half in (0, 1)]
    first = b.mul(task, literal(4 * LANES, I64))
    left = b.sub(n, first)
    target = b.offset(to, first, I32)
    for q in range(4):
        low, high = (b.shuffle(words[w], words[w + 1], pairs[q // 2]) for w in (0, 2))
        value = b.shuffle(low, high, fours[q % 2])
        mask = b.lanes_below(b.sub(left, literal(LANES * q, I64)))
        b.store_masked(value, b.offset(target, LANES * q, I32), mask)


# --- the keyed permutation --------------------------------------------------------------------------------------------
_FEISTEL_ROUNDS: Final = 12
_AT_ONCE: Final = 32  # a round is one chain of 17 cycles: 16 numbers would wait for it half of the time
_NUMBERS: Final = Type("i64", _AT_ONCE)
_MIX: Final = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def permutation_keys(seed: int, epochs: Sequence[int]) -> npt.NDArray[np.int64]:
    """What a ``permutation`` kernel reads in each epoch: the keys of the rounds, and whether 0 and 1 change places.

    Shapes: E epochs; result (E, 13).
    """
    return kernels.permutation_words(seed, epochs).view(np.int64)


def permutation(b: Builder, n: int, count: int) -> Plan:
    """``kernels.permutation_at(seed, epoch, n, position … position + count)``, 32 rows a task.

    ("in", 0) are an epoch's keys as ``permutation_keys`` gives them, ("in", 1) is the position (an int64), which must
    leave ``count`` of the ``n`` rows: if not, the status word is set and nothing written. ("out", 0): the rows, int64.
    Source: Black, Rogaway (2002), "Ciphers with arbitrary finite domains"; see ``kernels.permutation_at``.
    """
    keys, to = b.pointer("keys", ("in", 0)), b.pointer("out", ("out", 0))
    rows, side, total = b.word("rows", n), b.word("side", isqrt(max(n - 1, 0)) + 1), b.word("count", count)
    position = b.load(I64, b.pointer("position", ("in", 1)))
    early, late = b.compare("slt", position, literal(0, I64)), b.compare("sgt", position, b.sub(rows, total))
    outside = b.binary("or", early, late)
    with b.when(outside):
        b.store(literal(FAILED, I64), b.pointer("status", ("status",)))
    end = b.select(outside, b.begin, b.end)
    highest, a = b.splat(b.sub(rows, literal(1, I64)), _AT_ONCE), b.splat(side, _AT_ONCE)
    several = b.convert("zext", b.compare("sgt", rows, literal(1, I64)), "i64")
    swap = b.splat(b.binary("and", b.load(I64, b.offset(keys, _FEISTEL_ROUNDS, I64)), several), _AT_ONCE)
    inverse = b.splat(b.div(literal(1, Type("double")), b.convert("sitofp", side, "double")), _AT_ONCE)
    with b.loop(b.begin, end) as task:
        first = b.mul(task, literal(_AT_ONCE, I64))
        index = b.add(b.splat(b.add(position, first), _AT_ONCE), b.iota(lanes=_AT_ONCE))
        # Lanes past the end take the last row: outside of 0 … n−1 the walk might not come back.
        value = b.intrinsic("umin", index, highest)
        left, right = map(b.variable, _divided(b, value, a, inverse))
        walking, result = b.variable(literal(1, _NUMBERS.of("i1"))), b.variable(value)
        with b.repeat_while() as again:
            moved = _feistel(b, left.get(), right.get(), a, keys)
            active = walking.get()
            for half, new in zip((left, right), moved, strict=True):
                half.set(b.select(active, new, half.get()))
            number = b.add(b.mul(left.get(), a), right.get())
            result.set(number)
            beyond = b.compare("ugt", number, highest)
            walking.set(beyond)
            again.append(b.compare("ne", b.op(f"bitcast {beyond} to {I32}", I32), literal(0, I32)))
        number = result.get()
        swapped = b.binary("xor", number, swap)
        number = b.select(b.compare("ult", number, literal(2, _NUMBERS)), swapped, number)
        b.store_masked(number, b.offset(to, first, I64), b.lanes_below(b.sub(total, first), _AT_ONCE))
    return Plan(-(-count // _AT_ONCE))


def _divided(b: Builder, value: Value, a: Value, inverse: Value) -> tuple[Value, Value]:
    """⌊value / a⌋ and the remainder, for value < a² ≤ 2⁶²: by the reciprocal, which is off by one at most."""
    estimate = b.convert("fptosi", b.mul(b.convert("sitofp", value, "double"), inverse), "i64")
    rest = b.sub(value, b.mul(estimate, a))
    one, zero = literal(1, _NUMBERS), literal(0, _NUMBERS)
    low, high = b.compare("slt", rest, zero), b.compare("sge", rest, a)
    step = b.select(low, literal(-1, _NUMBERS), b.select(high, one, zero))
    return b.add(estimate, step), b.sub(rest, b.mul(step, a))


def _feistel(b: Builder, left: Value, right: Value, a: Value, keys: Value) -> tuple[Value, Value]:
    """All rounds: (left, right) ← (right, (left + F(right)) mod a)."""
    lefts, rights = b.variable(left), b.variable(right)
    shift, mix = literal(32, _NUMBERS), [literal(m, _NUMBERS) for m in _MIX]
    half = literal(_LOW, _NUMBERS)
    with b.loop(0, _FEISTEL_ROUNDS) as i:
        now = rights.get()
        x = b.mul(b.add(now, b.splat(b.load(I64, b.offset(keys, i, I64)), _AT_ONCE)), mix[0])
        x = b.mul(b.binary("xor", x, b.binary("lshr", x, shift)), mix[1])
        # a < 2³², which is to be seen here: a product of halves takes a third of the time of one of 64 bits.
        x = b.binary("lshr", b.mul(b.binary("lshr", x, shift), b.binary("and", a, half)), shift)
        x = b.add(x, lefts.get())
        # Both terms are below a: a difference below zero wraps to a huge number.
        rights.set(b.intrinsic("umin", x, b.sub(x, a)))
        lefts.set(now)
    return lefts.get(), rights.get()

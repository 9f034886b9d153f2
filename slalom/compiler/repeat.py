"""Loops over time steps: the calls of one step, and what their argument words hold at each of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import NamedTuple

from slalom.compiler.calls import Call, Lowered, Repeat
from slalom.compiler.ir import STATUS, Builder, Memory
from slalom.compiler.memory import Place, Plan
from slalom.core.scan import fields
from slalom.core.shape import size


class Moving(NamedTuple):
    """What an argument word holds at the first step, and by how many bytes it moves on from step to step."""

    word: Memory | Place | int
    stride: int = 0


class Row(NamedTuple):
    """A call of a program: its code, what its words hold, how it is shared, and what it takes (see ``calls.Call``).

    ``commit``: whether what comes from here on may write outside.
    """

    label: str
    builder: Builder
    words: tuple[Moving, ...]
    tasks: int = 1
    ways: int = 1
    flops: int = 0
    bytes: int = 0
    commit: bool = False


def row_of(call: Call, lowered: Lowered, words: Iterable[Moving], commit: bool = False) -> Row:
    """The row of a call whose words are these."""
    bytes = sum(map(lowered.bytes_of, {*call.reads, *call.writes}))
    return Row(str(call), call.builder, tuple(words), call.tasks, call.ways, call.flops, bytes, commit)


def copying(copier: Builder, target: Moving, source: Moving, bytes: int, commit: bool = False) -> Row:
    """The row of a copy."""
    return Row(f"copy of {bytes} bytes", copier, (target, source, Moving(bytes)), bytes=2 * bytes, commit=commit)


def _zeroing(target: Moving, bytes: int) -> Row:
    """The row that fills a gap."""
    b = Builder()
    to, size = b.pointer("to", None), b.word("bytes", None)
    b.declared["llvm.memset.p0.i64"] = "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)"
    b.do(f"call void @llvm.memset.p0.i64({to}, i8 0, {size}, i1 false)")
    return Row(f"gap of {bytes} bytes", b, (target, Moving(bytes)), bytes=bytes)


class Places:
    """Where the values of a step are, from step to step. ``numbers``: those of its constants in the program."""

    def __init__(self, loop: Repeat, plan: Plan, numbers: Mapping[int, int]) -> None:
        self._loop, self._plan, self._numbers = loop, plan, numbers
        self._fields = fields(loop.body, loop.steps)
        self._itemsize = loop.body.outputs[0].dtype.itemsize

    def rows(self, copier: Builder) -> tuple[list[Row], list[Row]]:
        """The calls that are made once, and those of each step."""
        loop, step = self._loop, self._loop.step
        starts = [
            copying(copier, self._row(k, False)._replace(stride=0), Moving(loop.operands[k]), self._bytes(k))
            for k in range(loop.body.carries)
        ]
        starts += [
            _zeroing(Moving(Memory(loop.out, a.end * self._itemsize)), (b.begin - a.end) * self._itemsize)
            for a, b in pairwise(self._fields)
            if b.begin > a.end
        ]
        made = [row_of(call, step, map(self._word, call.words)) for call in loop.calls]
        ends = [copying(copier, self._at(c.target), self._at(c.source), c.bytes) for c in self._plan.copies]
        return [*starts, *made[: loop.once]], [*made[loop.once :], *ends]

    def _word(self, word: Memory | int) -> Moving:
        if word == STATUS or isinstance(word, int):
            return Moving(word)
        at = self._at(self._plan.places[word.value])
        assert isinstance(at.word, Memory), "places are in memory"
        return Moving(at.word._replace(offset=at.word.offset + word.offset), at.stride)

    def _at(self, place: Place) -> Moving:
        loop, (where, number) = self._loop, place
        if where == "arena":
            return Moving(Memory(loop.room, number))
        if where == "constant":
            return Moving(Memory(self._numbers[number]))
        if where == "output":
            return self._row(number, True)
        if number < loop.body.carries:
            return self._row(number, False)
        given = loop.operands[number]
        if number >= loop.body.carries + loop.body.pieces:
            return Moving(given)
        of = loop.body.inputs[number]
        return self._moving(given, 0, size(of.shape) * of.dtype.itemsize)

    def _row(self, k: int, after: bool) -> Moving:
        """The row of an output as a step leaves it, or finds it."""
        next = k < self._loop.body.carries and after != self._loop.reverse
        return self._moving(Memory(self._loop.out, self._fields[k].begin * self._itemsize), next, self._bytes(k))

    def _moving(self, base: Memory, first: int, bytes: int) -> Moving:
        at, stride = first * bytes, bytes
        if self._loop.reverse:
            at, stride = at + (self._loop.steps - 1) * bytes, -bytes
        return Moving(base._replace(offset=base.offset + at), stride)

    def _bytes(self, k: int) -> int:
        return size(self._fields[k].shape) * self._itemsize

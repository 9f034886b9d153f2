"""Program: a graph as native code with its memory, ready to be called. The executor of choice where llvmlite is."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from ctypes import addressof, c_char
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np

from slalom.compiler import cache, llvm, memory, outline, runtime, threads, walker
from slalom.compiler.calls import Lowered, Repeat
from slalom.compiler.ir import STATUS, Builder, Memory
from slalom.compiler.lower import lower
from slalom.compiler.nodes import Schedule
from slalom.compiler.outline import Outline, Step, Word
from slalom.compiler.repeat import Moving, Places, Row, copying, row_of
from slalom.compiler.schedule import schedule
from slalom.compiler.simplify import simplify
from slalom.compiler.split import split
from slalom.compiler.times import spent, timed
from slalom.core.graph import Graph
from slalom.core.primitive import Array

STAGES: Final = ("graph", "kernels", "loops", "llvm", "asm", "memory", "times")
"""What SLALOM_DEBUG may name, separated by commas."""


class Cost(NamedTuple):
    """What one call takes: elementary operations (a multiplication and its addition are two) and bytes of memory."""

    call: str
    flops: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.flops:13,} operations {self.bytes:13,} bytes  {self.call}"


class Program:
    """The native form of a graph.

    targets: for outputs whose value becomes the content of an input, that input's number · guard: the number of an
    output that must be known before anything outside is written · target: the processor, by default this machine's ·
    beside: functions that will be needed, too, and are compiled in the same go.

    ``calls``: what a ``threads.Table`` is made of · ``words``: the argument words of all calls · ``flops``: of a run.
    The stages, which are gone through only when they are asked for if the program was compiled before: ``graph``
    (simplified), ``kernels``, ``lowered``, ``memory``; as text ``loops``, ``llvm``, ``asm``; ``cost`` · ``times``: the
    seconds by stage that making it took.
    """

    def __init__(
        self,
        graph: Graph,
        targets: Mapping[int, int] | None = None,
        *,
        guard: int | None = None,
        target: llvm.Target | None = None,
        beside: Sequence[Builder] = (),
    ) -> None:
        self.source, self._targets, self._guard, self._target = graph, dict(targets or {}), guard, target
        self._threads, before = runtime.get_num_threads(), spent()
        with timed("key"):
            key = outline.key_of(graph, self._targets, guard, target or llvm.Target.host(), self._threads)
        with timed("disk"):
            kept = cache.get(key)
            found = None if kept is None else Outline.unpack(kept)
        addresses = None if found is None else llvm.find(found.keys, target)
        if found is None or addresses is None:
            with runtime.uncollected():
                found, addresses = self._compiled(beside)
            with timed("keep"):
                packed = found.pack()
                if packed is not None:
                    cache.put([key], packed)
        with timed("lay out"):
            self._lay_out(found, addresses)
        self.times = spent().since(before)
        for name in os.environ.get("SLALOM_DEBUG", "").split(","):
            if name in STAGES:
                sys.stderr.write(f"--- {name}\n{getattr(self, name)}\n")

    # --- stages ---------------------------------------------------------------------------------------------------
    @cached_property
    def graph(self) -> Graph:
        """The simplified graph."""
        with timed("simplify"):
            found = split(simplify(self.source))
        with timed("check"):
            return found.check()

    @cached_property
    def kernels(self) -> Schedule:
        """The graph cut into kernels."""
        graph = self.graph
        with timed("schedule"):
            return schedule(graph)

    @cached_property
    def lowered(self) -> Lowered:
        """The kernels as calls of generated functions."""
        return self._lower(lambda builder: None)

    def _lower(self, written: Callable[[Builder], None]) -> Lowered:
        kernels = self.kernels
        with timed("lower"):
            return lower(kernels, _register_bytes(self._target), self._threads, written)

    @cached_property
    def memory(self) -> memory.Plan:
        """Where each value is."""
        lowered = self.lowered
        with timed("memory"):
            return memory.plan(lowered, self._targets, self._guard)

    @property
    def loops(self) -> str:
        """The loops of each call."""
        return "\n".join("\n".join([str(call), *(f"  {line}" for line in call.loops)]) for call in self.lowered.calls)

    @property
    def llvm(self) -> str:
        """The LLVM IR of each kernel, as code generation meets it."""
        return "\n".join(llvm.optimized(b, self._target) for b in self._distinct())

    @property
    def asm(self) -> str:
        """The machine code of each kernel."""
        return "\n".join(llvm.assembly(b, self._target) for b in self._distinct())

    @property
    def cost(self) -> list[Cost]:
        """What each call takes, counted from the extents of the graph; for those of loops, all steps together."""
        return [
            Cost(row.label if times == 1 else f"{times} × {row.label}", times * row.flops, times * row.bytes)
            for part, times in self.parts
            for row in part
        ]

    def _distinct(self) -> list[Builder]:
        builders = [row.builder for part, _ in self.parts for row in part]
        return list(dict(zip(llvm.keys(builders), builders, strict=True)).values())

    def totals(self, times: Sequence[float]) -> list[float]:
        """By ``cost``, how long its calls took, from the times of all ``calls``."""
        found, at = [], 0
        for rows, count in self.parts:
            end = at + len(rows) * count
            found += [sum(times[at + i : end : len(rows)]) for i in range(len(rows))]
            at = end
        return found

    @cached_property
    def parts(self) -> list[tuple[list[Row], int]]:
        """All calls in their order, in parts: those of a part are made so many times."""
        plan, lowered, copier = self.memory, self.lowered, _copier()
        parts: list[tuple[list[Row], int]] = []
        for n, call in enumerate(lowered.calls):
            if isinstance(call, Repeat):
                once, each = Places(call, plan.steps[call.step], plan.constants[call.step]).rows(copier)
                parts += [(once, 1), (each, call.steps)]
            else:
                parts.append(([row_of(call, lowered, map(Moving, call.words), n == plan.commit)], 1))
        copies = [
            copying(copier, Moving(copy.target), Moving(copy.source), copy.bytes, n == plan.commit)
            for n, copy in enumerate(plan.copies, len(lowered.calls))
        ]
        return [*parts, (copies, 1)]

    def _compiled(self, beside: Sequence[Builder]) -> tuple[Outline, list[int]]:
        """Go through all stages; code generation begins as soon as there is a text."""
        others = [] if self._target is not None else [*walker.CODE.missing, *beside]
        llvm.begin(others, self._target)
        self.lowered = self._lower(lambda builder: llvm.begin([builder], self._target))
        rows = [row for part, _ in self.parts for row in part]
        builders = [row.builder for row in rows]
        addresses = llvm.load([*builders, *others], target=self._target)[: len(builders)]
        steps = tuple(
            Step(n, row.tasks, row.ways, row.flops, row.commit, tuple(map(self._word, row.words)))
            for n, row in enumerate(rows)
        )
        used = {word[1] for step in steps for word in step.words if isinstance(word, tuple) and word[0] == "constant"}
        known = dict(self.lowered.constants)
        for body, numbers in self.memory.constants.items():
            known |= {number: body.constants[v] for v, number in numbers.items()}
        constants = {v: np.ascontiguousarray(known[v]) for v in used}
        ends = np.cumsum([len(part) for part, _ in self.parts]).tolist()
        loops = [
            (end - len(part), end, times) for end, (part, times) in zip(ends, self.parts, strict=True) if times > 1
        ]
        return Outline(tuple(llvm.keys(builders)), steps, self.memory.arena, constants, tuple(loops)), addresses

    def _word(self, at: Moving) -> Word:
        """What an argument word holds, with places instead of values."""
        word, stride = at
        if word == STATUS:
            return "status", 0, 0
        if isinstance(word, int):
            return int(word)
        place, offset = (self.memory.places[word.value], word.offset) if isinstance(word, Memory) else (word, 0)
        return (place.where, place.number, offset, stride) if stride else (place.where, place.number, offset)

    # --- memory ---------------------------------------------------------------------------------------------------
    def _lay_out(self, found: Outline, addresses: list[int]) -> None:
        """Write the argument words of all calls, and note which of them depend on where inputs and outputs are."""
        self._arena, self._constants = aligned(found.arena), found.constants
        parts = found.parts
        self._memory = aligned(8 * sum(times * sum(len(step.words) for step in steps) for steps, times in parts))
        self.words = self._memory.data.cast("q")
        self.flops = sum(times * step.flops for steps, times in parts for step in steps)
        self.calls: list[threads.Call] = []
        self._changing: dict[str, list[tuple[int, int, int]]] = {"input": [], "output": [], "status": []}
        self._fixed = {n: address(array) for n, array in found.constants.items()}
        at = 0
        for steps, times in parts:
            at = self._lay_out_part(steps, times, at, addresses)

    def _lay_out_part(self, steps: Sequence[Step], times: int, at: int, addresses: list[int]) -> int:
        """Write the words of steps that are made so many times, from word ``at`` on; where those after them begin."""
        words = [word for step in steps for word in step.words]
        base, strides = np.zeros(len(words), np.int64), np.zeros(len(words), np.int64)
        arena, first, changing = address(self._arena), address(self._memory), []
        for i, word in enumerate(words):
            if isinstance(word, int):
                base[i] = word
                continue
            where, number, offset, *stride = word
            strides[i] = sum(stride)
            if where in self._changing:
                changing.append((i, where, number, offset))
            else:
                base[i] = (arena + number if where == "arena" else self._fixed[number]) + offset
        for n in range(times):
            now = at + n * len(words)
            for i, where, number, offset in changing:
                self._changing[where].append((now + i, number, offset + n * int(strides[i])))
            for step in steps:
                args = first + 8 * now
                call = threads.Call(addresses[step.kernel], args, step.tasks, step.ways, commit=step.commit)
                self.calls.append(call)
                now += len(step.words)
        end = at + times * len(words)
        block = base + np.arange(times)[:, None] * strides
        self._memory.view(np.int64)[at:end] = block.ravel()
        return end

    def words_for(self, where: str, number: int) -> list[tuple[int, int]]:
        """Where the address of an input or output stands among ``words``, and what is added to it."""
        return [(i, offset) for i, n, offset in self._changing[where] if n == number]

    def address_of(self, word: int) -> int:
        """Where in memory a word is."""
        return address(self._memory) + 8 * word

    def report_to(self, status: int) -> None:
        """Tell where the status word is."""
        for i, *_ in self._changing["status"]:
            self.words[i] = status


def address(array: Array) -> int:
    """Where an array's first element is."""
    try:
        # A third of the time, for what can be written and has no gaps.
        return addressof(c_char.from_buffer(array))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return array.__array_interface__["data"][0]  # type: ignore[no-any-return]


def aligned(bytes: int) -> Array:
    """Memory that begins at a multiple of 64, a cache line; filled with zeros."""
    raw = np.zeros(max(bytes, 64) + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + max(bytes, 64)]


def _copier() -> Builder:
    """A kernel that copies bytes."""
    b = Builder()
    to, source = b.pointer("to", None), b.pointer("source", None)
    size = b.word("bytes", None)
    b.declared["llvm.memmove.p0.p0.i64"] = "declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)"
    b.do(f"call void @llvm.memmove.p0.p0.i64({to}, {source}, {size}, i1 false)")
    return b


def _register_bytes(target: llvm.Target | None) -> int:
    features = (target or llvm.Target.host()).features.split(",")
    return 64 if "+avx512f" in features and "-avx512f" not in features else 32

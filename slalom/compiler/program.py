"""Program: a graph as native code with its memory, ready to be called. The executor of choice where llvmlite is."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from ctypes import addressof, c_char
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np

from slalom.compiler import cache, llvm, memory, outline, runtime, threads, walker
from slalom.compiler.ir import STATUS, Builder, Memory
from slalom.compiler.lower import Call, Lowered, lower
from slalom.compiler.memory import Place
from slalom.compiler.nodes import Schedule
from slalom.compiler.outline import Outline, Step, Word
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
        kernels = self.kernels
        with timed("lower"):
            return lower(kernels, _register_bytes(self._target), self._threads)

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
        """What each call takes, counted from the extents of the graph."""
        return [Cost(str(call), call.flops, self._bytes(call)) for call in self.lowered.calls]

    def _bytes(self, call: Call) -> int:
        types, scratch = self.kernels.graph.types, self.lowered.scratch
        scratch = scratch | {number: table.nbytes for number, table in self.lowered.tables.items()}
        values = {*call.reads, *call.writes}
        return sum(scratch.get(v) or self.kernels.elements(v) * types[v].dtype.itemsize for v in values)

    def _distinct(self) -> list[Builder]:
        builders = [call.builder for call in self.lowered.calls]
        return list(dict(zip(llvm.keys(builders), builders, strict=True)).values())

    def _compiled(self, beside: Sequence[Builder]) -> tuple[Outline, list[int]]:
        """Go through all stages."""
        plan, calls = self.memory, self.lowered.calls
        copies = [(copy, _copier()) for copy in plan.copies]
        builders = [call.builder for call in calls] + [b for _, b in copies]
        others = [] if self._target is not None else [*walker.CODE.missing, *beside]
        addresses = llvm.load([*builders, *others], target=self._target)[: len(builders)]
        rows: list[tuple[Sequence[Memory | Place | int], int, int, int]]
        rows = [(call.words, call.tasks, call.ways, call.flops) for call in calls]
        rows += [((copy.target, copy.source, copy.bytes), 1, 1, 0) for copy, _ in copies]
        steps = tuple(
            Step(n, tasks, ways, flops, n == plan.commit, tuple(self._word(word) for word in words))
            for n, (words, tasks, ways, flops) in enumerate(rows)
        )
        used = {word[1] for step in steps for word in step.words if isinstance(word, tuple) and word[0] == "constant"}
        known = self.graph.constants | self.lowered.tables
        constants = {v: np.ascontiguousarray(known[v]) for v in used}
        return Outline(tuple(llvm.keys(builders)), steps, plan.arena, constants), addresses

    def _word(self, word: Memory | Place | int) -> Word:
        """What an argument word holds, with places instead of values."""
        if word == STATUS:
            return "status", 0, 0
        if isinstance(word, int):
            return int(word)
        place, offset = (self.memory.places[word.value], word.offset) if isinstance(word, Memory) else (word, 0)
        return place.where, place.number, offset

    # --- memory ---------------------------------------------------------------------------------------------------
    def _lay_out(self, found: Outline, addresses: list[int]) -> None:
        """Write the argument words of all calls, and note which of them depend on where inputs and outputs are."""
        self._arena, self._constants = aligned(found.arena), found.constants
        starts = np.cumsum([0, *(len(step.words) for step in found.steps)]).tolist()
        self._memory = aligned(8 * starts[-1])
        self.words = self._memory.data.cast("q")
        base = address(self._memory)
        fixed = {"arena": address(self._arena)}
        constants = {n: address(array) for n, array in found.constants.items()}
        self.flops = sum(step.flops for step in found.steps)
        self.calls: list[threads.Call] = []
        self._changing: dict[str, list[tuple[int, int, int]]] = {"input": [], "output": [], "status": []}
        for step, start in zip(found.steps, starts, strict=False):
            args = base + 8 * start
            self.calls.append(threads.Call(addresses[step.kernel], args, step.tasks, step.ways, commit=step.commit))
            for i, word in enumerate(step.words, start):
                if isinstance(word, int):
                    self.words[i] = word
                    continue
                where, number, offset = word
                if where in self._changing:
                    self._changing[where].append((i, number, offset))
                else:
                    self.words[i] = (fixed["arena"] + number if where == "arena" else constants[number]) + offset

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

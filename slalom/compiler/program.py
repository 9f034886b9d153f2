"""Program: a graph as native code with its memory, ready to be called. The executor of choice where llvmlite is."""

from __future__ import annotations

from typing import Final

import numpy as np

from slalom.compiler import llvm, memory, threads
from slalom.compiler.ir import STATUS, Builder, Memory
from slalom.compiler.lower import Call, Lowered, lower
from slalom.compiler.memory import Copy, Place
from slalom.compiler.schedule import Schedule, schedule
from slalom.compiler.simplify import simplify
from slalom.core.graph import Graph
from slalom.core.primitive import Array

GRAIN: Final = 60_000
"""Elementary operations below which a call is not worth a second thread."""


class Program:
    """The native form of a graph: ``graph`` (simplified), ``kernels``, ``lowered``, ``memory``.

    targets: for outputs whose value becomes the content of an input, that input's number · guard: the number of an
    output that must be known before anything outside is written · target: the processor, by default this machine's.

    ``calls``: what a ``threads.Table`` is made of · ``words``: the argument words of all calls.
    """

    def __init__(
        self,
        graph: Graph,
        targets: dict[int, int] | None = None,
        *,
        guard: int | None = None,
        target: llvm.Target | None = None,
    ) -> None:
        self.source = graph
        self.graph = simplify(graph)
        self.kernels: Schedule = schedule(self.graph)
        self.lowered: Lowered = lower(self.kernels, _register_bytes(target))
        self.memory = memory.plan(self.lowered, targets or {}, guard)
        copies = [(copy, _copier()) for copy in self.memory.copies]
        calls = self.lowered.calls
        addresses = llvm.load([call.builder for call in calls] + [b for _, b in copies], target=target)
        self._layout(calls, [copy for copy, _ in copies], addresses)

    # --- memory ---------------------------------------------------------------------------------------------------
    def _layout(self, calls: list[Call], copies: list[Copy], addresses: list[int]) -> None:
        """Lay out the argument words of all calls, and note which of them change from run to run."""
        self._arena = aligned(self.memory.arena)
        self._constants = {v: np.ascontiguousarray(a) for v, a in self.graph.constants.items()}
        rows: list[list[Memory | Place | int]] = [list(call.words) for call in calls]
        rows += [[copy.target, copy.source, copy.bytes] for copy in copies]
        starts = np.cumsum([0, *(len(row) for row in rows)])
        self._memory = aligned(8 * int(starts[-1]))
        self.words = memoryview(self._memory).cast("q")
        base = self._memory.ctypes.data
        self.calls: list[threads.Call] = []
        for n, (start, address) in enumerate(zip(starts, addresses, strict=False)):
            tasks, ways = (calls[n].tasks, calls[n].flops // GRAIN + 1) if n < len(calls) else (1, 1)
            commit = n == self.memory.commit
            self.calls.append(threads.Call(address, base + 8 * int(start), tasks, min(tasks, ways), commit=commit))
        self._changing: dict[str, list[tuple[int, int, int]]] = {"input": [], "output": [], "status": []}
        for start, row in zip(starts, rows, strict=False):
            for i, word in enumerate(row, int(start)):
                self._fill(i, word)

    def _fill(self, i: int, word: Memory | Place | int) -> None:
        """Write an argument word, or note what it depends on."""
        if word == STATUS:
            self._changing["status"].append((i, 0, 0))
            return
        if isinstance(word, int):
            self.words[i] = word
            return
        place, offset = (self.memory.places[word.value], word.offset) if isinstance(word, Memory) else (word, 0)
        if place.where == "arena":
            self.words[i] = self._arena.ctypes.data + place.number + offset
        elif place.where == "constant":
            self.words[i] = self._constants[place.number].ctypes.data + offset
        else:
            self._changing[place.where].append((i, place.number, offset))

    def words_for(self, where: str, number: int) -> list[tuple[int, int]]:
        """Where the address of an input or output stands among ``words``, and what is added to it."""
        return [(i, offset) for i, n, offset in self._changing[where] if n == number]

    def address_of(self, word: int) -> int:
        """Where in memory a word is."""
        return self._memory.ctypes.data + 8 * word

    def report_to(self, status: int) -> None:
        """Tell where the status word is."""
        for i, *_ in self._changing["status"]:
            self.words[i] = status


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

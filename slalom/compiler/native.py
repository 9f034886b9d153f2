"""The native executor: runs a graph's program on NumPy arrays, and falls back on the NumPy executor to name errors."""

from __future__ import annotations

import functools
import os
import threading
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from slalom.compiler import llvm, runtime
from slalom.compiler.executor import NumpyExecutor
from slalom.compiler.program import Program
from slalom.compiler.threads import Table
from slalom.core.graph import Graph
from slalom.core.primitive import Array

SHARED: Final = 20_000_000
"""Elementary operations of a call from Python from which on it is shared among threads."""


def native() -> bool:
    """Whether graphs run as machine code here."""
    return obstacle() is None


def obstacle() -> str | None:
    """Why graphs do not run as machine code here; None where they do.

    Environment: ``SLALOM_EXECUTOR=numpy`` asks for the NumPy executor.
    """
    if os.environ.get("SLALOM_EXECUTOR", "") == "numpy":
        return "SLALOM_EXECUTOR=numpy"
    return None if _available() else "it needs llvmlite, and a processor with FMA"


_available: Final = functools.cache(llvm.available)


class NativeExecutor:
    """Runs a graph as machine code: ``give`` it what has changed among its inputs, then ``run``; or call it.

    targets: for outputs that become the content of an input, that input's number: the program writes there itself.
    """

    def __init__(self, graph: Graph, targets: Mapping[int, int]) -> None:
        self.graph, self.targets = graph, dict(targets)
        self.program = Program(graph, self.targets)
        self._table = Table(self.program.calls)
        self.program.report_to(self._table.status_address)
        self._made = [
            (i, graph.types[o.value], self.program.words_for("output", i))
            for i, o in enumerate(graph.outputs)
            if i not in self.targets
        ]
        self._words = [self.program.words_for("input", i) for i in range(len(graph.inputs))]
        cells = np.zeros(len(graph.inputs))
        self.numbers: Final = cells.view(np.uint8).data.cast("d")
        """Where the inputs that are numbers are kept, by number: they are set here rather than given."""
        self.lock: Final = threading.Lock()
        self.given: Final[list[Any]] = [None] * len(graph.inputs)
        """The arrays that were given last; None for those of which a copy is used."""
        self._used: list[Any] = [None] * len(graph.inputs)
        self._written = frozenset(self.targets.values())
        self._elsewhere: dict[int, Array] = {}  # what is written to in the end, where the program works on a copy
        self._starts: list[int] = []  # of the memory that is written, in order …
        self._ends: list[int] = []
        self._owned = False
        for i, place in enumerate(graph.inputs):
            if place.kind == "number":
                self._use(i, cells[i : i + 1].reshape(()))
        self._large = self.program.flops >= SHARED
        self.clock: list[list[float]] | None = None
        """Where the times of the calls of each run go, if they are wanted."""

    def __call__(self, inputs: Sequence[Array]) -> list[Array]:
        """The outputs; those with a target are that input's array, written in place.

        Raises: whatever the NumPy executor raises where a kernel reports an error; nothing is written then.
        """
        with self.lock:
            changed = {}
            for i, (place, array) in enumerate(zip(self.graph.inputs, inputs, strict=True)):
                if place.kind == "number":
                    self.numbers[i] = float(array)
                elif array is not self.given[i]:
                    changed[i] = array
            self.give(changed)
            outputs = self.run()
        for i, source in self.targets.items():
            outputs[i] = inputs[source]
        return outputs

    def give(self, changed: Mapping[int, Array]) -> None:
        """Use these arrays from now on, until others are given. The caller holds the lock."""
        for i, array in changed.items():
            self.given[i] = array
            self._elsewhere.pop(i, None)
            if not array.flags.c_contiguous:
                if i in self._written:
                    self._elsewhere[i] = array
                array, self.given[i] = array.copy("C"), None
            self._use(i, array)
        if not self._written:
            return
        check: Iterable[int] = changed
        if not self._written.isdisjoint(changed):
            spans = sorted(_span(self._used[i]) for i in self._written)
            self._starts, self._ends = [s[0] for s in spans], [s[1] for s in spans]
            self._owned = all(self._used[i].base is None for i in self._written)
            check = range(len(self._used))
        for i in check:
            apart = self._owned and self._used[i].base is None  # arrays that both own their memory share none
            if i not in self._written and not apart and self._overlaps(self._used[i]):
                self.given[i] = None  # it must keep its values while others are written
                self._use(i, self._used[i].copy())

    def _use(self, i: int, array: Array) -> None:
        self._used[i] = array
        address, words = array.__array_interface__["data"][0], self.program.words
        for at, offset in self._words[i]:
            words[at] = address + offset

    def _overlaps(self, array: Array) -> bool:
        """Whether an array shares memory with what is written."""
        start, end = _span(array)
        at = bisect_right(self._starts, end - 1) - 1
        return at >= 0 and self._ends[at] > start and end > start

    def run(self) -> list[Any]:
        """The outputs; None for those with a target. The caller holds the lock. Raises: as ``__call__``."""
        outputs: list[Any] = [None] * len(self.graph.outputs)
        words = self.program.words
        for i, of, places in self._made:
            made = outputs[i] = np.empty(of.shape, of.dtype)
            address = made.__array_interface__["data"][0]
            for at, offset in places:
                words[at] = address + offset
        table = self._table
        if self.clock is None:
            table.run(1, runtime.get_num_threads() if self._large else 1)
        else:
            self.clock.append(table.times())
        if table.status:
            table.status = 0
            NumpyExecutor(self.graph)(self._used)
            raise AssertionError("a kernel reported an error that the NumPy executor does not see")
        for i, array in self._elsewhere.items():
            np.copyto(array, self._used[i])
        return outputs


def _span(array: Array) -> tuple[int, int]:
    """The first byte of a contiguous array, and the one after its last."""
    start: int = array.__array_interface__["data"][0]
    return start, start + array.nbytes

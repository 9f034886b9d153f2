"""The native executor: runs a graph's program on NumPy arrays, and falls back on the NumPy executor to name errors."""

from __future__ import annotations

import functools
import os
import threading
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from sys import getrefcount
from typing import Any, Final

import numpy as np

from slalom.compiler import llvm, runtime
from slalom.compiler.executor import NumpyExecutor
from slalom.compiler.program import Program, address
from slalom.compiler.threads import Table
from slalom.core.graph import Graph, Type
from slalom.core.primitive import Array
from slalom.core.shape import size

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
            (i, _Room(graph.types[o.value]), self.program.words_for("output", i))
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
        self._at = [0] * len(graph.inputs)  # the addresses of these
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
        elsewhere, written = self._elsewhere, self._written
        for i, array in changed.items():
            self.given[i] = array
            if elsewhere:
                elsewhere.pop(i, None)
            if not array.flags.c_contiguous:
                if i in written:
                    elsewhere[i] = array
                array, self.given[i] = array.copy("C"), None
            self._use(i, array)
        if not written:
            return
        check: Iterable[int] = changed
        if not written.isdisjoint(changed):
            spans = sorted(self._span(i) for i in written)
            self._starts, self._ends = [s[0] for s in spans], [s[1] for s in spans]
            self._owned = all(self._used[i].base is None for i in written)
            check = range(len(self._used))
        for i in check:
            apart = self._owned and self._used[i].base is None  # arrays that both own their memory share none
            if not apart and i not in written and self._overlaps(i):
                self.given[i] = None  # it must keep its values while others are written
                self._use(i, self._used[i].copy())

    def _use(self, i: int, array: Array) -> None:
        self._used[i] = array
        start = self._at[i] = address(array)
        words = self.program.words
        for at, offset in self._words[i]:
            words[at] = start + offset

    def _span(self, i: int) -> tuple[int, int]:
        """The first byte of what is used for an input, and the one after its last."""
        return self._at[i], self._at[i] + self._used[i].nbytes

    def _overlaps(self, i: int) -> bool:
        """Whether what is used for an input shares memory with what is written."""
        start = self._at[i]
        end = start + self._used[i].nbytes
        at = bisect_right(self._starts, end - 1) - 1
        return at >= 0 and self._ends[at] > start and end > start

    def run(self) -> list[Any]:
        """The outputs; None for those with a target. The caller holds the lock. Raises: as ``__call__``."""
        outputs: list[Any] = [None] * len(self.graph.outputs)
        words = self.program.words
        for i, room, places in self._made:
            outputs[i], start = room.take()
            for at, offset in places:
                words[at] = start + offset
        table = self._table
        if self.clock is None and not self._large:
            status = table.step()
        else:
            if self.clock is not None:
                self.clock.append(table.times())
            else:
                table.run(1, runtime.get_num_threads())
            status = table.status
        if status:
            table.status = 0
            NumpyExecutor(self.graph)(self._used)
            raise AssertionError("a kernel reported an error that the NumPy executor does not see")
        for i, array in self._elsewhere.items():
            np.copyto(array, self._used[i])
        return outputs


class _Room:
    """Arrays for an output of small size: what was handed out and is held by nobody any more is handed out again."""

    SMALL: Final = 1 << 16
    """Bytes up to which finding memory takes longer than what is computed for it."""
    MOST: Final = 4

    def __init__(self, of: Type) -> None:
        self._shape, self._dtype = of.shape, of.dtype
        self._small = size(of.shape) * of.dtype.itemsize <= self.SMALL
        self._arrays: list[tuple[Array, int]] = []

    def take(self) -> tuple[Array, int]:
        """An array that nobody else holds, and its address."""
        for entry in self._arrays:
            if getrefcount(entry[0]) <= _ALONE:
                return entry
        array = np.empty(self._shape, self._dtype)
        entry = array, address(array)
        if self._small:
            self._arrays = [*self._arrays[1 - self.MOST :], entry]
        return entry


_ALONE: Final = max(getrefcount(entry[0]) for entry in [(np.empty(0), 0)])
"""What Python counts for an array that only one tuple holds, by the very expression above."""

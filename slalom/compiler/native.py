"""The native executor: runs a graph's program on NumPy arrays, and falls back on the NumPy executor to name errors."""

from __future__ import annotations

import functools
import os
import threading
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from ctypes import addressof, c_char
from sys import getrefcount
from typing import Any, Final
from weakref import getweakrefcount

import numpy as np

from slalom.compiler import llvm, runtime
from slalom.compiler.executor import NumpyExecutor
from slalom.compiler.program import Program, address
from slalom.compiler.threads import Table
from slalom.core.graph import Graph, Type
from slalom.core.node import Storage
from slalom.core.primitive import Array
from slalom.core.shape import size
from slalom.core.tensor import Tensor

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
        self._lowest = self._highest = 0  # … and where all of it is
        self._owned = False
        for i, place in enumerate(graph.inputs):
            if place.kind == "number":
                cell = cells[i : i + 1].reshape(())
                self._use(i, cell, address(cell))
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
            slots = self.run()
        return [inputs[self.targets[i]] if slot is None else slot.array for i, slot in enumerate(slots)]

    def give(self, changed: Mapping[int, Array]) -> None:
        """Use these arrays from now on, until others are given. The caller holds the lock."""
        elsewhere, written = self._elsewhere, self._written
        for i, array in changed.items():
            self.given[i] = array
            if elsewhere:
                elsewhere.pop(i, None)
            try:  # what can be written and has no gaps
                self._use(i, array, addressof(c_char.from_buffer(array)))  # type: ignore[arg-type]
            except (TypeError, ValueError):
                if not array.flags.c_contiguous:
                    if i in written:
                        elsewhere[i] = array
                    array, self.given[i] = array.copy("C"), None
                self._use(i, array, address(array))
        if not written:
            return
        check: Iterable[int] = changed
        if not written.isdisjoint(changed):
            spans = sorted(self._span(i) for i in written)
            self._starts, self._ends = [s[0] for s in spans], [s[1] for s in spans]
            self._lowest, self._highest = self._starts[0], max(self._ends)
            self._owned = all(self._used[i].base is None for i in written)
            check = range(len(self._used))
        for i in check:
            apart = self._owned and self._used[i].base is None  # arrays that both own their memory share none
            if not apart and i not in written and self._overlaps(i):
                self.given[i] = None  # it must keep its values while others are written
                copy = self._used[i].copy()
                self._use(i, copy, address(copy))

    def _use(self, i: int, array: Array, start: int) -> None:
        self._used[i], self._at[i] = array, start
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
        if start >= self._highest or end <= self._lowest:
            return False
        at = bisect_right(self._starts, end - 1) - 1
        return at >= 0 and self._ends[at] > start and end > start

    def run(self) -> list[Any]:
        """Where the outputs are, ``Slot``s; None for those with a target. The caller holds the lock.

        Raises: as ``__call__``.
        """
        outputs: list[Any] = [None] * len(self.graph.outputs)
        words = self.program.words
        for i, room, places in self._made:
            outputs[i] = slot = room.take()
            start = slot.start
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


class Slot:
    """Memory for an output, and a tensor on it."""

    __slots__ = ("array", "start", "tensor")

    def __init__(self, array: Array) -> None:
        self.array, self.start, self.tensor = array, address(array), Tensor._handle(Storage(array), None, False)

    def counts(self) -> tuple[int, int, int]:
        """How often Python counts its tensor, itself, and the buffer between tensor and array."""
        t = self.tensor
        return getrefcount(t), getrefcount(self), getrefcount(t._storage)

    def is_free(self) -> bool:
        """Whether nobody else holds anything of it but perhaps the array; the tensor then is as new."""
        t = self.tensor
        if getrefcount(t) != _TENSOR or getrefcount(self) != _SLOT or getweakrefcount(t):
            return False
        t._node, t._live, t._grad, t._storage._views = None, False, None, None  # nobody sees it
        return getrefcount(t._storage) == _BUFFER


_TENSOR, _SLOT, _BUFFER = next(slot.counts() for slots in ([Slot(np.empty(0))],) for slot in slots)
"""The counts of a slot that is in a list and a variable, as in ``_Room.take``, and of which nobody holds anything."""
_ARRAY: Final = next(getrefcount(slot.array) for slots in ([Slot(np.empty(0))],) for slot in slots)


class _Room:
    """Memory for an output; if it is small, what nobody holds any more of what was handed out is handed out again."""

    SMALL: Final = 1 << 16
    """Bytes up to which finding memory takes longer than what is computed for it."""
    MOST: Final = 4

    def __init__(self, of: Type) -> None:
        self._shape, self._dtype = of.shape, of.dtype
        self._small = size(of.shape) * of.dtype.itemsize <= self.SMALL
        self._slots: list[Slot] = []

    def _fits(self, array: Array) -> bool:
        """Whether it is as it was: who held it may have changed its shape, or that it can be written."""
        return array.shape == self._shape and array.dtype == self._dtype and array.flags.writeable

    def take(self) -> Slot:
        """A slot that nobody else holds anything of."""
        for slot in self._slots:
            if getrefcount(slot.array) == _ARRAY and slot.is_free() and self._fits(slot.array):
                break
        else:
            slot = Slot(np.empty(self._shape, self._dtype))
            if self._small:
                self._slots = [*self._slots[1 - self.MOST :], slot]
        return slot

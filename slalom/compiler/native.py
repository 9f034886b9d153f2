"""The native executor: runs a graph's program on NumPy arrays, and falls back on the NumPy executor to name errors."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Mapping, Sequence
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
    """Whether graphs run as machine code here: llvmlite is installed, and SLALOM_EXECUTOR is not "numpy"."""
    return os.environ.get("SLALOM_EXECUTOR", "") != "numpy" and llvm.available()


class NativeExecutor:
    """Runs a graph as machine code.

    targets: for outputs that become the content of an input, that input's number: the program writes there itself.
    """

    def __init__(self, graph: Graph, targets: Mapping[int, int]) -> None:
        self.graph, self.targets = graph, dict(targets)
        self.program = Program(graph, self.targets)
        self._table = Table(self.program.calls)
        self.program.report_to(self._table.status_address)
        types = graph.types
        self._made = [(i, types[o.value]) for i, o in enumerate(graph.outputs) if i not in self.targets]
        self._given: list[Any] = [None] * len(graph.inputs)
        self._in = np.zeros(len(graph.inputs), np.int64)
        self._out = np.zeros(len(graph.outputs), np.int64)
        self._written = frozenset(self.targets.values())
        self._lock = threading.Lock()
        self._starts: list[int] = []  # of the memory that is written, in order …
        self._ends: list[int] = []
        self._large = sum(call.flops for call in self.program.lowered.calls) >= SHARED

    def __call__(self, inputs: Sequence[Array]) -> list[Array]:
        """The outputs; those with a target are that input's array, written in place.

        Raises: whatever the NumPy executor raises where a kernel reports an error; nothing is written then.
        """
        with self._lock:
            arrays = self._bound(inputs)
            outputs: list[Any] = [None] * len(self._out)
            for i, of in self._made:
                made = outputs[i] = np.empty(of.shape, of.dtype)
                self._out[i] = made.__array_interface__["data"][0]
            self.program.bind(self._in, self._out)
            table = self._table
            table.run(1, runtime.get_num_threads() if self._large else 1)
            failed, table.status = table.status, 0
        if failed:
            NumpyExecutor(self.graph)(inputs)
            raise AssertionError("a kernel reported an error that the NumPy executor does not see")
        for i, source in self.targets.items():
            outputs[i] = inputs[source]
            if arrays[source] is not inputs[source]:
                np.copyto(inputs[source], arrays[source])
        return outputs

    def _bound(self, inputs: Sequence[Array]) -> list[Array]:
        """The arrays that the program works on, whose addresses are noted: contiguous, and no two over one another."""
        given, addresses = self._given, self._in
        arrays = list(inputs)
        fresh = [i for i, array in enumerate(inputs) if array is not given[i]]
        if not fresh:
            return arrays
        for i in fresh:
            array = inputs[i]
            given[i] = array
            if not array.flags.c_contiguous:
                array, given[i] = np.ascontiguousarray(array), None
            arrays[i] = array
            addresses[i] = array.__array_interface__["data"][0]
        if not self._written:
            return arrays
        if not self._written.isdisjoint(fresh):
            spans = sorted((int(addresses[i]), int(addresses[i]) + arrays[i].nbytes) for i in self._written)
            self._starts, self._ends = [s[0] for s in spans], [s[1] for s in spans]
            fresh = list(range(len(arrays)))
        for i in fresh:
            if i in self._written or not arrays[i].nbytes:
                continue
            start = int(addresses[i])
            at = bisect_right(self._starts, start + arrays[i].nbytes - 1) - 1
            if at >= 0 and self._ends[at] > start:  # an argument that shares memory with what is written
                arrays[i], given[i] = arrays[i].copy(), None
                addresses[i] = arrays[i].__array_interface__["data"][0]
        return arrays

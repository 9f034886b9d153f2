"""The NumPy executor: the oracle that every compiled program is compared with, and the fallback without llvmlite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from slalom.core.primitive import Array
from slalom.core.trace import Graph


class NumpyExecutor:
    """Runs a Graph one primitive after the other, with the same implementations as eager mode: the same bits.

    A value's memory is released after its last use.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._slots: list[Any] = [None] * len(graph.types)
        for value, array in graph.constants.items():
            self._slots[value] = array
        kept = {o.value for o in graph.outputs} | set(graph.constants)
        last = {value: i for i, eq in enumerate(graph.equations) for value in eq.inputs}
        freed: list[list[int]] = [[] for _ in graph.equations]
        for value, i in last.items():
            if value not in kept:
                freed[i].append(value)
        self._steps = [
            (eq.prim.impl, eq.inputs, eq.params, eq.out, tuple(free))
            for eq, free in zip(graph.equations, freed, strict=True)
        ]
        # What is handed out must be nobody else's memory: not an input's, not a constant's, not given out twice.
        given = {i.value for i in graph.inputs} | set(graph.constants)
        seen: set[int] = set()
        self._outputs: list[tuple[int, bool]] = []
        for output in graph.outputs:
            self._outputs.append((output.value, output.value in given or output.value in seen))
            seen.add(output.value)

    def __call__(self, inputs: Sequence[Array]) -> list[Array]:
        """The graph's outputs for its inputs; the outputs own their memory."""
        env = self._slots.copy()
        for place, array in zip(self.graph.inputs, inputs, strict=True):
            env[place.value] = array
        for impl, sources, params, out, free in self._steps:
            array = impl(*[env[i] for i in sources], **params)
            env[out] = array if type(array) is np.ndarray else np.asarray(array)
            for value in free:
                env[value] = None
        results = []
        for value, copy in self._outputs:
            array = env[value]
            results.append(array.copy() if copy or array.base is not None else array)
        return results

"""The NumPy executor: the oracle that every compiled program is compared with, and the fallback without llvmlite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from slalom.core.graph import Graph
from slalom.core.primitive import Array


class NumpyExecutor:
    """Runs a Graph one primitive after the other, with the same implementations as eager mode: the same bits.

    A value's memory is released after its last use.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._values: list[Any] = [None] * len(graph.types)
        for value, array in graph.constants.items():
            self._values[value] = array
        kept = {output.value for output in graph.outputs} | set(graph.constants)
        last = {value: i for i, eq in enumerate(graph.equations) for value in eq.inputs}
        freed: list[list[int]] = [[] for _ in graph.equations]
        for value, i in last.items():
            if value not in kept:
                freed[i].append(value)
        self._steps = [
            (eq.prim.bare, eq.inputs, eq.params, eq.out, tuple(free))
            for eq, free in zip(graph.equations, freed, strict=True)
        ]

    def __call__(self, inputs: Sequence[Array]) -> list[Array]:
        """The graph's outputs for its inputs; each owns its memory.

        An error (an index out of range, say) carries a note with the user's line.
        """
        env = self._values.copy()
        for place, array in zip(self.graph.inputs, inputs, strict=True):
            env[place.value] = array
        out = -1
        try:
            with np.errstate(all="ignore"):  # IEEE results (inf, nan) are answers
                for impl, sources, params, out, free in self._steps:
                    array = impl(*[env[i] for i in sources], **params)
                    env[out] = array if type(array) is np.ndarray else np.asarray(array)
                    for value in free:
                        env[value] = None
        except Exception as error:
            eq = next(eq for eq in self.graph.equations if eq.out == out)
            error.add_note(f"in {eq.prim.name}, recorded at {eq.site}")
            raise
        # What is handed out is nobody else's memory: not an input's, not a constant's, no view, not given out twice.
        taken = {id(array) for array in (*inputs, *self.graph.constants.values())}
        results = []
        for output in self.graph.outputs:
            array = env[output.value]
            if array.base is not None or id(array) in taken:
                array = array.copy()
            taken.add(id(array))
            results.append(array)
        return results

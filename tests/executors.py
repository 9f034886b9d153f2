"""Native code, checked call by call: ``Checked`` stands in for the native executor in every test.

Each call also runs the NumPy executor, and the same graph in a wider dtype. Native results must be as good as NumPy's:
their error at most 4 times NumPy's own, plus 2 units in the last place of the largest magnitude on the path. Then they
are replaced with NumPy's, so that a test may demand the bits of eager mode in the same breath.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from slalom.compiler.executor import NumpyExecutor
from slalom.compiler.native import NativeExecutor
from slalom.core.graph import Graph, Output
from slalom.core.ops.pointwise import ERF

Array = np.ndarray[Any, Any]
_ERF = replace(ERF, impl=lambda x: np.vectorize(math.erf, otypes=[x.dtype])(x))  # Slalom's is of two dtypes alone
SINGLE, DOUBLE, LONG = np.dtype("f4"), np.dtype("f8"), np.dtype(np.longdouble)


class Bound:
    """How far a graph's float outputs may be from exact ones."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        floats = {t.dtype for t in graph.types if t.dtype.kind == "f"}
        self._wider = {SINGLE: DOUBLE if DOUBLE not in floats else LONG, DOUBLE: LONG}
        self._exact = NumpyExecutor(self._everything(self._widened()))

    def _widened(self) -> Graph:
        """The graph in wider floats."""
        wider = self._wider
        types = tuple(t._replace(dtype=wider.get(t.dtype, t.dtype)) for t in self.graph.types)
        equations = tuple(
            replace(
                eq,
                prim=_ERF if eq.prim is ERF else eq.prim,
                params={key: wider.get(value, value) if key == "dtype" else value for key, value in eq.params.items()},
            )
            for eq in self.graph.equations
        )
        constants = {v: a.astype(wider.get(a.dtype, a.dtype)) for v, a in self.graph.constants.items()}
        return replace(self.graph, types=types, equations=equations, constants=constants)

    @staticmethod
    def _everything(graph: Graph) -> Graph:
        """The graph with all its values as outputs, in the order of their numbers."""
        return replace(graph, outputs=tuple(Output(v, "result", "") for v in range(len(graph.types))))

    @cached_property
    def _paths(self) -> list[list[int]]:
        """For each output, the float values that it is computed from, and itself."""
        above: dict[int, frozenset[int]] = {}
        for eq in self.graph.equations:
            above[eq.out] = frozenset({eq.out}).union(*(above.get(v, frozenset({v})) for v in eq.inputs))
        floats = {v for v, t in enumerate(self.graph.types) if t.dtype.kind == "f"}
        return [sorted(above.get(o.value, frozenset({o.value})) & floats) for o in self.graph.outputs]

    def check(self, inputs: Sequence[Array], expected: Sequence[Array], found: Sequence[Array]) -> None:
        """Raises: AssertionError naming the output whose error is too large."""
        different = [i for i, (a, b) in enumerate(zip(expected, found, strict=True)) if not same(a, b)]
        if not different:
            return
        values = self._exact([a.astype(self._wider.get(a.dtype, a.dtype)) for a in inputs])
        for i in different:
            name = f"output {i} ({self.graph.outputs[i].name})"
            want, got, exact = expected[i], found[i], values[self.graph.outputs[i].value]
            assert got.shape == want.shape and got.dtype == want.dtype, name
            assert want.dtype.kind == "f", f"{name}: {got} is not {want}"
            finite = np.isfinite(want)
            np.testing.assert_array_equal(got[~finite], want[~finite], err_msg=name)
            finite &= np.isfinite(exact)
            own = np.abs(want[finite] - exact[finite]).max(initial=0)
            sizes = [np.abs(a[np.isfinite(a)]).max(initial=0) for a in (values[v] for v in self._paths[i])]
            ulp = np.spacing(np.max(sizes).astype(want.dtype))
            error = np.abs(got[finite] - exact[finite]).max(initial=0)
            assert error <= 4 * own + 2 * ulp, f"{name}: error {error:.3g}, NumPy's {own:.3g}, ulp {ulp:.3g}"


def same(a: Array, b: Array) -> bool:
    """Equal to the bit, but for NaN, which is one value."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return a.tobytes() == b.tobytes() or bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))


class Checked(NativeExecutor):
    """The native executor, beside NumPy's, whose results it hands out."""

    def __init__(self, graph: Graph, targets: Mapping[int, int]) -> None:
        self._latest: dict[int, Array] = {}  # as given: NumPy's order of a sum follows the memory layout
        super().__init__(graph, targets)
        self._bound = Bound(graph)

    def give(self, changed: Mapping[int, Array]) -> None:
        self._latest |= changed
        super().give(changed)

    def run(self) -> list[Any]:
        inputs = [self._latest.get(i, array) for i, array in enumerate(self._used)]
        before = [array.copy("K") for array in inputs]
        try:
            expected = NumpyExecutor(self.graph)(before)
        except Exception as error:
            try:
                super().run()
            except type(error):
                assert all(map(same, before, inputs)), "something was written before an error"
                raise
            raise AssertionError(f"native code does not raise {error!r}") from error
        outputs = super().run()
        written = set(self.targets.values())
        assert all(same(a, b) for i, (a, b) in enumerate(zip(before, inputs, strict=True)) if i not in written)
        found = [inputs[self.targets[i]] if i in self.targets else array for i, array in enumerate(outputs)]
        self._bound.check(before, expected, found)
        for got, want in zip(found, expected, strict=True):
            got[...] = want
        return outputs

"""Whole graphs as native code: random ones, training steps of many shapes, other machines, shared kernels.

Half of the random graphs hold small multiples of powers of two, whose sums and products are exact in any order: there
every bit counts. All run between pages that must not be touched.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from executors import DOUBLE, SINGLE, Bound, retyped, run_fenced
from hypothesis import given, settings
from hypothesis import strategies as st

from slalom.compiler.compile import compile as staged
from slalom.compiler.executor import NumpyExecutor
from slalom.compiler.program import Program as Native
from slalom.core.graph import Graph
from slalom.core.node import Abstract
from slalom.core.tensor import Tensor
from tests import test_graphs
from tests.test_graphs import STEPS, Draw, Program, pick

PLACES = 2  # binary places of the values that exact graphs begin with
LIMIT = 2.0  # and their magnitude


@pytest.fixture(autouse=True)
def _larger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_graphs, "LARGEST", 5000)


# --- random graphs ------------------------------------------------------------------------------------------------
class Exact(Program):
    """A program whose values are multiples of small powers of two, and so small that no sum of them is rounded."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, tuple[float, int]] = {}  # by place: the largest magnitude, and the binary places

    def step(self, name: str, *inputs: int, grows: bool = False, **params: Any) -> int:
        name = "neg" if name == "sin" else name
        place = super().step(name, *inputs, **params)
        if place == inputs[0]:
            return place
        size, places = self.sizes[place] = self._size(name, inputs)
        if size * 2.0**places <= 2**6:  # a sum of thousands of products of two such numbers has less than 24 bits
            return place
        self.values[place] = Abstract(self.values[place].shape, np.dtype(SINGLE), None, "")  # not to be picked
        scale, back, high, low = (self.constant(np.array(v)) for v in (2.0**PLACES, 2.0**-PLACES, LIMIT, -LIMIT))
        for other, name in ((scale, "mul"), (None, "floor"), (back, "mul"), (high, "minimum"), (low, "maximum")):
            place = super().step(name, *([place] if other is None else [place, other]))
            self.values[place] = Abstract(self.values[place].shape, np.dtype(SINGLE), None, "")
        self.values[place] = Abstract(self.values[place].shape, np.dtype(DOUBLE), None, "")
        self.sizes[place] = LIMIT, PLACES
        return place

    def _size(self, name: str, inputs: tuple[int, ...]) -> tuple[float, int]:
        """Bounds on the magnitude and the places of a result, from those of the inputs."""
        sizes, places = zip(*(self.sizes.get(i, (LIMIT, PLACES)) for i in inputs), strict=True)
        shape = self.values[inputs[0]].shape
        if name in ("add", "sub"):
            return sum(sizes), max(places)
        if name in ("mul", "matmul"):
            return math.prod(sizes) * (shape[-1] if name == "matmul" else 1), sum(places)
        several = math.prod(shape) if name in ("sum", "cumsum", "scatter_add", "fold") else 1
        return max(sizes) * several, max(places)


def exact_one(draw: Draw, p: Program) -> None:
    p.step(draw(st.sampled_from(["neg", "relu", "abs", "alias", "sign", "floor"])), pick(draw, p))


def exact_two(draw: Draw, p: Program) -> None:
    x = pick(draw, p)
    shape = p.values[x].shape
    y = pick(draw, p, lambda s: s in (shape, shape[-1:], ()))
    p.step(draw(st.sampled_from(["add", "sub", "mul", "mul", "maximum", "minimum"])), x, y, grows=True)


EXACT_STEPS = tuple({"elementwise": exact_one, "two": exact_two}.get(step.__name__, step) for step in STEPS)
JOINING = {"sum", "amax", "matmul"}


@st.composite
def graphs(draw: Draw, exact: bool) -> tuple[Graph, list[np.ndarray]]:
    """A graph of 5 to 40 nodes with a product or a reduction among them, and its inputs, in float32."""
    program = Exact() if exact else Program()
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    for _ in range(draw(st.integers(1, 3))):
        rank = draw(st.integers(0, 3))
        sizes = st.one_of(st.sampled_from([0, 1, 2, 16, 17]), st.integers(0, 70 if rank < 3 else 9))
        shape = tuple(draw(st.lists(sizes, min_size=rank, max_size=rank)))
        leaf = rng.integers(-8, 9, shape) * 2.0**-PLACES if exact else rng.uniform(-1, 1, shape)
        program.leaves.append(leaf)
        program.values.append(leaf)
    steps = EXACT_STEPS if exact else STEPS
    for _ in range(draw(st.integers(2, 20))):
        if len(program.steps) < 30:
            draw(st.sampled_from(steps))(draw, program)
    if JOINING.isdisjoint(name for name, *_ in program.steps):
        x = pick(draw, program)
        axes = tuple(range(len(program.values[x].shape)))[draw(st.integers(0, 1)) :]
        program.step("sum", x, axes=axes, keepdims=draw(st.booleans()), grows=True)
    while len(program.steps) < 5:
        program.step("neg", pick(draw, program))
    step = staged(program.run)
    record, _ = step.record(*(Tensor(leaf) for leaf in program.leaves))
    return retyped(record.graph, {DOUBLE: SINGLE}), [leaf.astype(SINGLE) for leaf in program.leaves]


def compare(graph: Graph, inputs: list[np.ndarray], exact: bool) -> None:
    """Run a graph between guard pages, at both ends, and compare it with NumPy's."""
    expected = NumpyExecutor(graph)(inputs)
    program = Native(graph)
    for at_end in (True, False):
        found = run_fenced(program, inputs, at_end=at_end)
        if exact:
            for a, b in zip(expected, found, strict=True):
                assert np.array_equal(a, b, equal_nan=True), f"{a}\n{b}\n{graph}"
        else:
            Bound(graph).check(inputs, expected, found)


def sweep(exact: bool, examples: int) -> None:
    counts: Counter[str] = Counter()

    @settings(max_examples=examples)
    @given(graphs(exact))
    def each(drawn: tuple[Graph, list[np.ndarray]]) -> None:
        graph, inputs = drawn
        counts.update(eq.prim.name for eq in graph.equations)
        compare(graph, inputs, exact)

    each()
    print(f"{examples} graphs, {sum(counts.values())} nodes:", ", ".join(f"{n} {k}" for k, n in counts.most_common()))


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "rounded"])
def test_random_graphs(exact: bool) -> None:
    sweep(exact, 200)


@pytest.mark.exhaustive
@pytest.mark.parametrize("exact", [True, False], ids=["exact", "rounded"])
def test_many_random_graphs(exact: bool) -> None:
    sweep(exact, 1000)

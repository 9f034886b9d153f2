"""Rewriting a graph: each rule where it applies and where it must not, random programs, whole training steps.

Graphs are run by the NumPy implementations on contiguous copies of every value, as NumPy's own order of a sum follows
the memory layout; then results are compared bit for bit, with all NaNs alike. Rules about products are compared on
small whole numbers, whose sums are exact in every order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import slalom
from slalom import nn, optim
from slalom.compiler.executor import NumpyExecutor
from slalom.compiler.rules import RULES
from slalom.compiler.simplify import simplify
from slalom.core.graph import Graph
from slalom.errors import IndexRangeError
from tests.table_simplify import EXACT, PRODUCTS, Maker, targets
from tests.table_simplify_images import IMAGES
from tests.test_graphs import Program, backward, fresh, programs


@pytest.fixture(autouse=True, scope="module")
def _numpy() -> Iterator[None]:
    """Recorded functions are run by NumPy here; and a program may use each of its leaves, of up to 7³ elements."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLALOM_EXECUTOR", "numpy")
        patch.setattr("tests.test_graphs.LARGEST", 400)
        yield


def prims(graph: Graph) -> list[str]:
    return sorted(eq.prim.name for eq in graph.equations)


def run(graph: Graph, arrays: list[np.ndarray]) -> list[np.ndarray]:
    env = dict(graph.constants) | {place.value: a for place, a in zip(graph.inputs, arrays, strict=True)}
    with np.errstate(all="ignore"):
        for eq in graph.equations:
            env[eq.out] = np.array(eq.prim.bare(*(env[i] for i in eq.inputs), **eq.params), order="C")
    return [env[output.value] for output in graph.outputs]


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind == "f":
        a, b = (np.where(np.isnan(x), np.array(np.nan, x.dtype), x) for x in (a, b))
    return a.tobytes() == b.tobytes()


SPECIAL = (0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 1e-40, 2.5e-38, 3e38, -1.7, 0.3)


def arguments(graph: Graph, rng: np.random.Generator, whole: bool = False) -> list[np.ndarray]:
    """Random inputs: floats among which are the special ones, or small ``whole`` numbers; integers of 0 to 2."""
    arrays = []
    for place in graph.inputs:
        shape, dtype = graph.types[place.value]
        if dtype.kind != "f":
            arrays.append(rng.integers(0, 2 if dtype.kind == "b" else 3, shape).astype(dtype))
        elif whole:
            arrays.append(rng.integers(-3, 4, shape).astype(dtype))
        else:
            special = rng.choice(np.array(SPECIAL), shape)
            arrays.append(np.where(rng.random(shape) < 0.6, special, rng.normal(size=shape)).astype(dtype))
    return arrays


def assert_equal_graphs(before: Graph, after: Graph, whole: bool = False) -> None:
    after.check()
    names = [[(place.kind, place.name) for place in (*g.inputs, *g.outputs)] for g in (before, after)]
    assert names[0] == names[1]
    for seed in range(8):
        arrays = arguments(before, np.random.default_rng(seed), whole)
        for a, b in zip(run(before, arrays), run(after, arrays), strict=True):
            assert same_bits(a, b), f"seed {seed}: {a} is not {b}\n{before}\n{after}"


# --- the rules ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [*EXACT, *PRODUCTS, *IMAGES])
def test_a_rule(name: str) -> None:
    build, left, rules = (EXACT | PRODUCTS | IMAGES)[name]
    m = Maker()
    outs = build(m)
    graph = m.graph(*(outs if isinstance(outs, tuple) else (outs,)))
    fired: Counter[str] = Counter()
    simple = simplify(graph, fired)
    views = ("reshape", "transpose") if name in IMAGES else ()
    assert [prim for prim in prims(simple) if prim not in views] == left.split(), f"{graph}\n{simple}"
    if rules is not None:
        assert set(fired) == rules
    if name != "an index error":
        assert_equal_graphs(graph, simple, whole=name not in EXACT)


def test_every_rule_has_a_row_and_a_line_that_says_what_it_does() -> None:
    named = {rule for _, _, rules in (EXACT | PRODUCTS | IMAGES).values() for rule in rules or ()}
    assert named == set(RULES)
    assert all(text and "\n" not in text and "→" in text for text in RULES.values())


# --- what is kept ---------------------------------------------------------------------------------------------------
def test_inputs_outputs_and_lines_of_the_user_are_kept() -> None:
    m = Maker()
    unused, x = m.arg(2), m.arg(3)
    y = m.tanh(m.neg(m.neg(x)))
    simple = simplify(m.graph(y, x, m.alias(y)))
    assert [place.name for place in simple.inputs] == [f"argument {unused}", f"argument {x}"]
    assert [output.value for output in simple.outputs] == [2, 1, 2]
    assert [eq.site for eq in simple.equations] == ["user.py:2"]


def test_an_index_out_of_range_is_still_reported() -> None:
    m = Maker()
    graph = simplify(m.graph(*targets(m)))
    assert "scatter_add" not in prims(graph)
    x, j, updates = np.ones((4, 3), "f4"), np.array([0, 3, 1, 0]), np.ones(4, "f4")
    with pytest.raises(IndexRangeError):
        NumpyExecutor(graph)([x, j, updates])


def test_a_gather_without_use_does_not_stand_in_for_a_check() -> None:
    m = Maker()
    _, grad = targets(m)
    assert prims(simplify(m.graph(grad))) == ["scatter_add"]


def test_narrow_indices_that_cannot_count_the_columns_stay() -> None:
    m = Maker()
    x, j, updates, i = m.arg(4, 300), m.arg(4, dtype="u1"), m.arg(4), m.const(np.arange(4), "i8")
    # The two index arrays need not have one dtype.
    graph = m.graph(m.gather(x, i, j), m.scatter_add(updates, i, j, shape=(4, 300)))
    assert "scatter_add" in prims(simplify(graph))


def test_constants_are_told_apart_by_their_bits() -> None:
    m = Maker()
    x = m.arg(2)
    constants = [m.const(0.0), m.const(-0.0), m.const(np.nan), m.const(0, "i4"), m.const(False, "?")]
    graph = m.graph(m.maximum(x, constants[0]), m.maximum(x, constants[1]), *constants)
    simple = simplify(graph)
    assert len(simple.constants) == 5 and prims(simple) == ["maximum", "maximum"]
    mixed = m.graph(m.maximum(x, m.const([0.0, -0.0])))
    assert [a.shape for a in simplify(mixed).constants.values()] == [(2,)]


# --- random programs ------------------------------------------------------------------------------------------------
REORDERS = {"transposed_product", "batch_into_rows", "stacked_product", "stacked_steps", "common_factor"}
"""Rules after which BLAS may add, or a term is rounded, in another order."""


@settings(max_examples=200)
@given(programs())
def test_random_programs_forwards_and_backwards(program: Program) -> None:
    step = slalom.compile(backward(program))
    step(*fresh(program))
    fired: Counter[str] = Counter()
    simple = simplify(step.graph, fired).check()
    assert len(simple.equations) <= len(step.graph.equations)
    arrays = [np.random.default_rng(3).uniform(-1, 1, step.graph.types[i.value].shape) for i in step.graph.inputs]
    for a, b in zip(run(step.graph, arrays), run(simple, arrays), strict=True):
        if REORDERS.isdisjoint(fired):
            assert same_bits(a, b)
        else:
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    again = simplify(simple)
    assert prims(again) == prims(simple)


# --- whole steps ----------------------------------------------------------------------------------------------------
def training_step(model: nn.Module, loss: Callable[..., Any], *data: slalom.Tensor) -> tuple[Graph, Graph]:
    """A step's graph as recorded and simplified, which compute the same."""
    optimizer = optim.Adam(model.parameters())

    def step(*data: slalom.Tensor) -> slalom.Tensor:
        optimizer.zero_grad()
        value = loss(model, *data)
        value.backward()
        optimizer.step()
        return value

    compiled = slalom.compile(step)
    compiled(*data)
    compiled(*data)  # the first call makes the optimizer's state
    graph = compiled.graph
    simple = simplify(graph).check()
    rng = np.random.default_rng(0)
    arrays = []
    for place in graph.inputs:
        shape, dtype = graph.types[place.value]
        arrays.append(rng.integers(0, 2, shape) if dtype.kind != "f" else rng.uniform(0.1, 1, shape).astype(dtype))
    for a, b in zip(NumpyExecutor(graph)(arrays), NumpyExecutor(simple)(arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    return graph, simple


def test_a_classifier() -> None:
    slalom.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
    x, y = slalom.randn(16, 5), slalom.zeros(16, dtype="int64")
    graph, simple = training_step(model, lambda f, x, y: nn.CrossEntropyLoss()(f(x), y), x, y)
    before, after = Counter(prims(graph)), Counter(prims(simple))
    assert after.total() <= before.total() - 20
    assert not {"alias", "scatter_add", "broadcast"} & set(after)
    assert after["matmul"] == before["matmul"] == 5  # two layers, no gradient of the first one's input
    # Each product is of a value, its transpose, or a weight: no result is transposed.
    product = {eq.out for eq in simple.equations if eq.prim.name == "matmul"}
    assert not [eq for eq in simple.equations if eq.prim.name == "transpose" and eq.inputs[0] in product]


def test_a_layer_over_time() -> None:
    slalom.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 1)), slalom.randn(4, 7, 5)

    def loss(model: nn.Module, x: slalom.Tensor) -> slalom.Tensor:
        for layer in model:
            x = slalom.tanh(x @ layer.weight.mT.expand(4, -1, -1))  # a plain x @ W is recorded as a product of rows
        return (x**2).mean()

    graph, simple = training_step(model, loss, x)
    ranks = [{len(g.types[eq.out].shape) for eq in g.equations if eq.prim.name == "matmul"} for g in (graph, simple)]
    assert ranks == [{3}, {2}]


def test_a_recurrence() -> None:
    slalom.manual_seed(0)
    cell, x, steps = nn.Linear(4, 4), slalom.randn(3, 40, 4), range(40)

    def loss(cell: nn.Module, x: slalom.Tensor) -> slalom.Tensor:
        x = cell(x)  # so that the slices have a gradient
        h = slalom.zeros(3, 4)
        for t in steps:
            h = slalom.tanh(x[:, t] + h * 0.5)
        return h.sum()

    graph, simple = training_step(cell, loss, x)
    assert prims(graph).count("pad") == 40
    assert prims(simple).count("pad") == 0 and prims(simple).count("concatenate") == 1

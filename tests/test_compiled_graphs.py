"""Whole graphs as native code: random ones, training steps of many shapes, other machines, shared kernels.

Half of the random graphs hold small multiples of powers of two, whose sums and products are exact in any order: there
every bit counts. All run between pages that must not be touched.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from executors import DOUBLE, SINGLE, Bound, retyped, run_fenced, same
from hypothesis import given, settings
from hypothesis import strategies as st

import slalom
from slalom import compile as staged
from slalom import nn, optim
from slalom.compiler import llvm, lower, native, runtime
from slalom.compiler.executor import NumpyExecutor
from slalom.compiler.native import NativeExecutor
from slalom.compiler.nodes import reads
from slalom.compiler.program import Program as Native
from slalom.compiler.replay import held
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
    return retyped(record.graph, {DOUBLE: SINGLE}), [np.asarray(leaf, SINGLE) for leaf in program.leaves]


def compare(graph: Graph, inputs: list[np.ndarray], *, exact: bool, targets: dict[int, int] | None = None) -> None:
    """Compare with NumPy: between guard pages, at both ends, whole and in pieces; and as it is run for users."""
    expected, executor = NumpyExecutor(graph)(inputs), NativeExecutor(graph, targets or {})
    found = [run_fenced(executor.program, inputs, at_end=at_end, split=not at_end) for at_end in (True, False)]
    found.append(executor([array.copy() for array in inputs]))
    if exact:
        for a, b in zip(expected, found[0], strict=True):
            assert np.array_equal(a, b, equal_nan=True), f"{a}\n{b}\n{graph}"
    else:
        Bound(graph).check(inputs, expected, found[0])
    for other in found[1:]:
        assert all(map(same, found[0], other)), f"{graph}"


def sweep(exact: bool, examples: int) -> str:
    """Compare so many graphs; which operations they had."""
    counts: Counter[str] = Counter()

    @settings(max_examples=examples)
    @given(graphs(exact))
    def each(drawn: tuple[Graph, list[np.ndarray]]) -> None:
        graph, inputs = drawn
        counts.update(eq.prim.name for eq in graph.equations)
        compare(graph, inputs, exact=exact)

    each()
    names = ", ".join(f"{n} {name}" for name, n in counts.most_common())
    return f"{examples} graphs, {sum(counts.values())} nodes: {names}"


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "rounded"])
def test_random_graphs(exact: bool) -> None:
    sys.stdout.write(sweep(exact, 200) + "\n")


@pytest.mark.exhaustive
@pytest.mark.parametrize("exact", [True, False], ids=["exact", "rounded"])
def test_many_random_graphs(exact: bool, keep_result: Callable[[str], None]) -> None:
    keep_result(sweep(exact, 1000))


# --- networks -----------------------------------------------------------------------------------------------------
Recorded = tuple[Graph, dict[int, int], list[np.ndarray]]


def training(model: nn.Module, loss_of: Callable[[Tensor, Tensor], Tensor], x: Any, y: Any) -> Recorded:
    """A training step with Adam: its graph, which outputs are written to which inputs, and the inputs."""
    optimizer = optim.Adam(model.parameters(), lr=0.01)

    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return recorded(staged(step), Tensor(x), Tensor(y))


def network(sizes: tuple[int, ...], batch: int) -> Recorded:
    """A training step of a classifier."""
    slalom.manual_seed(0)
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    rng = np.random.default_rng(batch)
    x, y = rng.normal(size=(batch, sizes[0])).astype(np.float32), rng.integers(0, sizes[-1], batch)
    return training(nn.Sequential(*layers[:-1]), nn.CrossEntropyLoss(), x, y)


def recorded(function: Any, *arguments: Tensor) -> Recorded:
    """The graph of a call, the outputs that are written to inputs, and the inputs."""
    function.record(*arguments)  # the first one makes the optimizer's state
    record, leaves = function.record(*arguments)

    def given(kind: str, source: Any) -> np.ndarray:
        if kind in ("state", "number"):
            return np.asarray(source.array if kind == "state" else source())
        return held(kind, source, leaves)

    sources = zip(record.graph.inputs, record.binding.inputs, strict=True)
    return record.graph, record.targets, [given(place.kind, source) for place, source in sources]


def test_training_steps_of_many_shapes() -> None:
    """Batches of 1 to 130 rows, each once, and each width of 1 to 70 in each of three places, in pairs that differ."""
    rng = np.random.default_rng(0)
    batches = rng.permutation(np.arange(1, 131))
    widths = [np.concatenate([rng.permutation(np.arange(1, 71)) for _ in range(2)])[:130] for _ in range(3)]
    for batch, *sizes in zip(batches.tolist(), *(w.tolist() for w in widths), strict=True):
        graph, targets, inputs = network(tuple(sizes), batch)
        compare(graph, inputs, exact=False, targets=targets)


@pytest.mark.exhaustive
def test_training_steps_of_every_shape(keep_result: Callable[[str], None]) -> None:
    for batch in range(1, 131):
        for width in range(1, 71):
            graph, targets, inputs = network((width, 71 - width, 1 + (batch * width) % 70), batch)
            compare(graph, inputs, exact=False, targets=targets)
    keep_result("training steps of batches of 1 to 130 rows with 1 to 70 columns, each with each: 9,100, none differs")


# --- kernels are shared -------------------------------------------------------------------------------------------
def kernels_of(graph: Graph, targets: dict[int, int]) -> set[str]:
    return set(llvm.keys([call.builder for call in Native(graph, targets).lowered.calls]))


NETS: dict[str, Callable[[], list[nn.Module]]] = {
    "plain": lambda: [nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)],
    "batch norm": lambda: [nn.Linear(30, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10)],
    "layer norm": lambda: [nn.Linear(30, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 10), nn.Tanh()],
}
LOSSES = {"classes": nn.CrossEntropyLoss(), "values": nn.MSELoss()}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("net", NETS)
def test_other_numbers_of_rows_need_no_other_kernels(net: str, loss: str) -> None:
    """1,003 rows at batch 128 end with 107; and predictions for any number."""
    model = nn.Sequential(*NETS[net]())
    made = []
    for rows in (128, 1003 % 128):
        y = np.arange(rows) % 10 if loss == "classes" else np.ones((rows, 10), np.float32)
        made.append(kernels_of(*training(model, LOSSES[loss], np.ones((rows, 30), np.float32), y)[:2]))
    assert made[1] <= made[0]
    step = staged(nn.Sequential(*NETS[net](), nn.Softmax(1)).eval().forward)
    made = [kernels_of(*recorded(step, slalom.ones(n, 30))[:2]) for n in (1024, 2, 7, 33, 128, 1000, 1003)]
    assert set().union(*made) == made[0]


ACTIVATIONS = ["GELU", "SiLU", "Mish", "Tanh", "Sigmoid", "ReLU"]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_one_array_of_a_hidden_layer_is_kept_for_the_way_back(name: str) -> None:
    """Beside the activations, that which gradients are multiplied by; where it follows from those, nothing."""
    rows, hidden = 64, 48
    model = nn.Sequential(nn.Linear(24, hidden), getattr(nn, name)(), nn.Linear(hidden, 3))
    x, y = np.ones((rows, 24), np.float32), np.ones((rows, 3), np.float32)
    products = [k for k in Native(*training(model, nn.MSELoss(), x, y)[:2]).kernels.kernels if k.kind == "product"]
    forward, *_, back = [k for k in products if k.space == (rows, hidden)]
    assert len(forward.stores) == (1 if name in ("Tanh", "Sigmoid", "ReLU") else 2)
    assert len({read.value for body in back.bodies.values() for read in reads(body)} & {*forward.stores}) == 1


def test_what_a_reader_has_at_hand_is_not_kept() -> None:
    """Of a layer norm its result alone, and numbers of rows: the way back has its input, and normalises that again."""
    rows, hidden = 64, 48
    model = nn.Sequential(nn.Linear(24, hidden), nn.LayerNorm(hidden), nn.Linear(hidden, 3))
    x, y = np.ones((rows, 24), np.float32), np.ones((rows, 3), np.float32)
    program = Native(*training(model, nn.MSELoss(), x, y)[:2])
    large = [v for k in program.kernels.kernels for v in k.stores if program.graph.types[v].shape == (rows, hidden)]
    assert len(large) == 4  # what goes into it and comes out, and the gradients of both


# --- other machines -----------------------------------------------------------------------------------------------
def on_every_width(graph: Graph, inputs: list[np.ndarray]) -> None:
    """The same bits from registers of 512, 256 and 128 bits."""
    found = []
    for bits in (512, 256, 128):
        target = llvm.Target.host().limited(bits)
        found.append(run_fenced(Native(graph, target=target), inputs, at_end=True, target=target))
    for other in found[1:]:
        assert all(map(same, found[0], other)), f"{graph}"


@pytest.mark.parametrize("batch", [1, 37, 128])
def test_a_training_step_has_the_same_bits_on_every_machine(batch: int) -> None:
    graph, _, inputs = network((30, 64, 50, 10), batch)
    on_every_width(graph, inputs)


def test_random_graphs_have_the_same_bits_on_every_machine() -> None:
    @settings(max_examples=40)
    @given(graphs(False))
    def each(drawn: tuple[Graph, list[np.ndarray]]) -> None:
        on_every_width(*drawn)

    each()


# --- threads ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("threads", [2, 3])
def test_random_graphs_have_the_same_bits_on_several_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLALOM_CACHE_DIR", "")
    run, teams = native.Table.run, Counter[int]()

    def counted(table: native.Table, steps: int, wanted: int) -> Any:
        outcome = run(table, steps, wanted)
        teams[outcome.threads] += 1
        return outcome

    @settings(max_examples=40)
    @given(graphs(False))
    def each(drawn: tuple[Graph, list[np.ndarray]]) -> None:
        graph, inputs = drawn
        alone = NativeExecutor(graph, {})(inputs)
        with monkeypatch.context() as patch:  # every call is worth another thread
            patch.setattr(lower, "GRAIN", 1)
            patch.setattr(native, "SHARED", 0)
            patch.setattr(native.Table, "run", counted)
            patch.setattr(runtime, "get_num_threads", lambda: threads)
            assert all(map(same, alone, NativeExecutor(graph, {})(inputs))), f"{graph}"

    each()
    assert teams[threads] > 20, f"{teams}"

"""Random programs over the primitives: every way to differentiate and to run them must agree.

A program is a list of steps (primitive, places of its inputs, parameters) over a few leaves; it is drawn so that every
step fits. Values stay of the order of 1: what may grow goes through a sine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slalom.compiler.compile import compile as staged
from slalom.core import autodiff
from slalom.core.node import Abstract
from slalom.core.ops import TABLE
from slalom.core.shape import broadcast
from slalom.core.tensor import Tensor, apply
from slalom.errors import ShapeError

LARGEST = 200  # elements of a value
Draw = st.DrawFn


@dataclass
class Program:
    """Leaves and constants first, then one value for each step."""

    leaves: list[np.ndarray] = field(default_factory=list)
    values: list[np.ndarray | Abstract] = field(default_factory=list)
    steps: list[tuple[str, tuple[int, ...], dict[str, Any]]] = field(default_factory=list)
    constants: dict[int, np.ndarray] = field(default_factory=dict)

    def constant(self, array: np.ndarray) -> int:
        self.constants[len(self.values)] = array
        self.values.append(array)
        return len(self.values) - 1

    def step(self, name: str, *inputs: int, grows: bool = False, **params: Any) -> int:
        """Append a step; the place of its value."""
        operands = [self.values[i] for i in inputs]
        shape = tuple(TABLE[name].shape(*operands, **params))
        if math.prod(shape) > LARGEST:
            return inputs[0]
        self.values.append(Abstract(shape, np.dtype(np.float64), None, ""))
        self.steps.append((name, inputs, params))
        place = len(self.values) - 1
        return self.step("sin", place) if grows else place

    def run(self, *leaves: Tensor) -> list[Tensor]:
        """The floating values that no step uses."""
        given, steps = iter(leaves), iter(self.steps)
        values: list[Tensor] = []
        for i in range(len(self.values)):
            if i < len(self.leaves):
                values.append(next(given))
            elif i in self.constants:
                values.append(Tensor._of(self.constants[i]))
            else:
                name, inputs, params = next(steps)
                values.append(apply(TABLE[name], *(values[k] for k in inputs), **params))
        used = {i for _, inputs, _ in self.steps for i in inputs}
        return [t for i, t in enumerate(values) if i not in used and t.dtype == np.float64]

    def scalar(self, *leaves: Tensor) -> Tensor:
        total = Tensor._of(np.zeros(()))
        for k, t in enumerate(self.run(*leaves)):
            weights = np.cos(np.arange(t.numel()) + k).reshape(t.shape)
            total = total + (t * Tensor._of(weights)).sum()
        return total


# --- steps --------------------------------------------------------------------------------------------------------
def pick(draw: Draw, program: Program, wanted: Callable[[tuple[int, ...]], bool] = lambda shape: True) -> int | None:
    """A floating value of a wanted shape, rather a late one."""
    found = [i for i, v in enumerate(program.values) if v.dtype == np.float64 and wanted(v.shape)]
    return found[-1 - min(draw(st.integers(0, 5)), len(found) - 1)] if found else None


def elementwise(draw: Draw, p: Program) -> None:
    name = draw(
        st.sampled_from(["neg", "tanh", "sin", "cos", "sigmoid", "softplus", "relu", "abs", "erf", "exp", "alias"])
    )
    p.step(name, pick(draw, p), grows=name in ("exp", "softplus"))


def two(draw: Draw, p: Program) -> None:
    def fits(shape: tuple[int, ...]) -> bool:
        try:
            return math.prod(broadcast("", [p.values[x].shape, shape])) <= LARGEST
        except ShapeError:
            return False

    x = pick(draw, p)
    y = pick(draw, p, fits)
    name = draw(st.sampled_from(["add", "sub", "mul", "mul", "maximum", "minimum", "div"]))
    if name == "div":
        y = p.step("exp", y)
    p.step(name, x, y, grows=True)


def reduction(draw: Draw, p: Program) -> None:
    name = draw(st.sampled_from(["sum", "sum", "amax"]))
    x = pick(draw, p, lambda shape: name == "sum" or math.prod(shape) > 0)
    if x is not None:
        rank = len(p.values[x].shape)
        axes = tuple(sorted(draw(st.sets(st.integers(0, rank - 1))))) if rank else ()
        p.step(name, x, axes=axes, keepdims=draw(st.booleans()), grows=True)


def reordered(draw: Draw, p: Program) -> None:
    x = pick(draw, p)
    shape = p.values[x].shape
    kind = draw(st.sampled_from(["transpose", "flip", "reshape", "broadcast"]))
    if kind == "transpose":
        p.step(kind, x, axes=tuple(draw(st.permutations(range(len(shape))))))
    elif kind == "flip":
        p.step(kind, x, axes=tuple(sorted(draw(st.sets(st.sampled_from(range(len(shape))))))) if shape else ())
    elif kind == "reshape":
        p.step(kind, x, shape=draw(st.sampled_from([(math.prod(shape),), (1, *shape), shape[::-1], (*shape, 1)])))
    else:
        wider = tuple(draw(st.sampled_from([1, 2, 3])) if n == 1 else n for n in shape)
        p.step(kind, x, shape=draw(st.sampled_from([wider, (2, *wider)])))


def moved(draw: Draw, p: Program) -> None:
    x = pick(draw, p, lambda shape: len(shape) > 0)
    if x is None:
        return
    shape = p.values[x].shape
    numbers = [st.tuples(*(st.integers(0, 2) for _ in shape))] * 3
    for _ in range(draw(st.integers(0, 3))):  # several of one value, as in a loop over time
        start = tuple(draw(st.integers(0, max(0, n - 1))) for n in shape)
        stop = tuple(draw(st.integers(a, n)) for a, n in zip(start, shape, strict=True))
        p.step("slice", x, start=start, stop=stop, step=tuple(draw(st.integers(1, 2)) for _ in shape))
    if draw(st.booleans()):
        low, high, interior = map(draw, numbers)
        p.step("pad", x, low=low, high=high, interior=interior)


def joined(draw: Draw, p: Program) -> None:
    x = pick(draw, p, lambda shape: len(shape) > 0)
    if x is not None:
        axis = draw(st.integers(0, len(p.values[x].shape) - 1))
        rest = [i for i in (pick(draw, p, lambda s: s == p.values[x].shape) for _ in range(2)) if i is not None]
        p.step("concatenate", x, *rest, axis=axis)


def scanned(draw: Draw, p: Program) -> None:
    x = pick(draw, p, lambda shape: len(shape) > 0)
    if x is not None:
        axis = draw(st.integers(0, len(p.values[x].shape) - 1))
        p.step("cumsum", x, axis=axis, reverse=draw(st.booleans()), grows=True)


def product(draw: Draw, p: Program) -> None:
    x = pick(draw, p, lambda shape: len(shape) > 1)
    if x is not None:
        k = p.values[x].shape[-1]
        y = pick(draw, p, lambda shape: len(shape) == 2 and k in shape)
        if y is None:
            y = pick(draw, p, lambda shape: shape == p.values[x].shape)
        rank = len(p.values[y].shape)
        if p.values[y].shape[-2] != k:
            y = p.step("transpose", y, axes=(*range(rank - 2), rank - 1, rank - 2))
        p.step("matmul", x, y, grows=True)


def indexed(draw: Draw, p: Program) -> None:
    x = pick(draw, p, lambda shape: len(shape) > 0 and shape[0] > 0)
    if x is None:
        return
    shape = p.values[x].shape
    if draw(st.booleans()):
        places = draw(st.lists(st.integers(0, shape[0] - 1), max_size=5))
        p.step("gather", x, p.constant(np.array(places, np.int64)))
    else:
        places = draw(st.lists(st.integers(0, 3), min_size=shape[0], max_size=shape[0]))
        p.step("scatter_add", x, p.constant(np.array(places, np.int64)), shape=(4, *shape[1:]), grows=True)


def windowed(draw: Draw, p: Program) -> None:
    x = pick(draw, p, lambda shape: len(shape) > 0 and shape[-1] > 2)
    if x is not None:
        n = p.values[x].shape[-1]
        size, stride, dilation = ((draw(st.integers(1, 2)),) for _ in range(3))
        y = p.step("windows", x, size=size, stride=stride, dilation=dilation)
        if y != x and draw(st.booleans()):
            p.step("fold", p.step("sin", y), output=(n,), size=size, stride=stride, dilation=dilation, grows=True)


def selected(draw: Draw, p: Program) -> None:
    x = pick(draw, p)
    shape = p.values[x].shape
    y = pick(draw, p, lambda s: s == shape)
    mask = draw(st.lists(st.booleans(), min_size=math.prod(shape), max_size=math.prod(shape)))
    p.step("where", p.constant(np.array(mask, bool).reshape(shape)), x, y)


STEPS = (
    elementwise,
    elementwise,
    two,
    two,
    reduction,
    reordered,
    moved,
    joined,
    scanned,
    product,
    indexed,
    windowed,
    selected,
)


@st.composite
def programs(draw: Draw) -> Program:
    program = Program()
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    for _ in range(draw(st.integers(1, 3))):
        leaf = rng.uniform(-1, 1, tuple(draw(st.lists(st.sampled_from([0, 1, 2, 3, 5, 7]), max_size=3))))
        program.leaves.append(leaf)
        program.values.append(leaf)
    for _ in range(draw(st.integers(5, 30))):
        draw(st.sampled_from(STEPS))(draw, program)
    return program


# --- the agreement ------------------------------------------------------------------------------------------------
def backward(program: Program) -> Callable[..., tuple[Tensor, list[Tensor]]]:
    """PyTorch's way: gradients are added to the leaves, and slices of one value share a buffer."""

    def run(*leaves: Tensor) -> tuple[Tensor, list[Tensor]]:
        loss = program.scalar(*leaves)
        if loss.requires_grad:
            loss.backward()
        grads = [t._zeros() if t.grad is None else t.grad for t in leaves]
        for t in leaves:
            t.grad = None
        return loss.detach(), grads

    return run


def fresh(program: Program) -> list[Tensor]:
    return [Tensor(x, requires_grad=True) for x in program.leaves]


@settings(max_examples=200)
@given(programs())
def test_derivatives_and_runs_of_a_program_agree(program):
    with pytest.MonkeyPatch.context() as patch:  # machine code: below, and in test_compiled_graphs
        patch.setenv("SLALOM_EXECUTOR", "numpy")
        agree(program)


@settings(max_examples=50)
@given(programs())
def test_derivatives_and_machine_code_of_a_program_agree(program):
    agree(program)


def agree(program: Program) -> None:
    xs = program.leaves
    rng = np.random.default_rng(1)
    vs = [rng.uniform(-1, 1, x.shape) for x in xs]
    loss, grads = backward(program)(*fresh(program))

    # Reverse mode with everything recorded; forward mode along the same tape.
    recorded = autodiff.grad(program.scalar, tuple(range(len(xs))))(*fresh(program))
    _, slope = autodiff.jvp(program.scalar, xs, vs)
    for a, b in zip(grads, recorded, strict=True):
        np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=1e-10, atol=1e-11)
    pulled = math.fsum(float(np.vdot(g.numpy(), v)) for g, v in zip(grads, vs, strict=True))
    assert abs(pulled - slope.item()) <= 1e-9 * max(1.0, abs(pulled))

    # Central differences.
    h = 1e-5
    up, down = (program.scalar(*(Tensor(x + s * h * v) for x, v in zip(xs, vs, strict=True))).item() for s in (1, -1))
    assert abs((up - down) / (2 * h) - pulled) <= 1e-4 * max(1.0, abs(pulled))

    # The staged graph: the same bits, forwards and backwards.
    step = staged(backward(program))
    for _ in range(2):
        again, replayed = step(*fresh(program))
        assert again.item() == loss.item()
        for a, b in zip(grads, replayed, strict=True):
            assert np.array_equal(a.numpy(), b.numpy())
    step.graph.check()
    assert step.traces == 1

"""Native code against NumPy: every primitive in every dtype, views, reductions, errors, state, outputs, randomness.

What is compiled through ``slalom.compile`` is compared at each call (see conftest); graphs written here line by line
also run between pages that must not be touched.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import table_ops
from executors import compare, run_fenced
from op_rows import Op

import slalom
from slalom import Tensor, nn
from slalom.compiler.executor import NumpyExecutor
from slalom.compiler.program import Program
from slalom.core.dtype import ALL
from slalom.core.ops import TABLE
from slalom.errors import DTypeError, IndexRangeError, SlalomError
from tests.table_simplify import Maker

Array = np.ndarray[Any, Any]


class Sheet:
    """Many little calculations as one graph, so that they are compiled together."""

    def __init__(self) -> None:
        self.m, self.arrays, self.outs = Maker(), list[Array](), list[int]()

    def given(self, array: Any) -> int:
        self.arrays.append(np.asarray(array))
        return self.m.arg(*self.arrays[-1].shape, dtype=self.arrays[-1].dtype.str)

    def out(self, value: int) -> None:
        self.outs.append(value)

    def compare(self) -> None:
        compare(self.m.graph(*self.outs), self.arrays)


# --- primitives ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("floating", ["float32", "float64"])
@pytest.mark.parametrize("op", table_ops.ROWS, ids=lambda op: op.name)
def test_every_sample_of_a_primitive(op: Op, floating: str) -> None:
    sheet = Sheet()
    for name, sample in op.samples.items():
        inputs, params = sample.make(op.name, name, floating)
        sheet.out(getattr(sheet.m, op.name)(*map(sheet.given, inputs), **params))
    sheet.compare()


SHAPES = [((), ()), ((0,), (0,)), ((1,), (1,)), ((17,), ()), ((3, 35), (35,)), ((2, 1, 3), (4, 1)), ((70,), (1,))]
INTEGERS = [d for d in ALL if d.kind in "bui"]
ELEMENTWISE = [prim for prim in TABLE.values() if prim.expr is not None and prim.name != "where"]


def integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Array:
    """Of the whole range, with its ends and small numbers."""
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    info = np.iinfo(dtype)
    ends = np.array([info.min, info.max, 0, 1, info.max - 1, info.min + 1, 2, 3], dtype)
    return np.where(
        rng.random(shape) < 0.5, rng.choice(ends, shape), rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    )


TAKEN = [(prim, dtype) for prim in ELEMENTWISE for dtype in INTEGERS if dtype.kind in prim.takes]


@pytest.mark.parametrize(("prim", "dtype"), TAKEN, ids=lambda x: x.name)
def test_elementwise_integers(prim: Any, dtype: Any) -> None:
    sheet, rng = Sheet(), np.random.default_rng(0)
    for shapes in SHAPES:
        operands = [integers(rng, shape, dtype) for shape in shapes[: 1 + ("y" in prim.expr)]]
        if prim.name in ("pow", "shift_right"):  # negative exponents are an error, negative distances undefined
            operands[1] = np.asarray(rng.integers(0, 8 * dtype.itemsize + 3, shapes[1])).astype(dtype)
        sheet.out(getattr(sheet.m, prim.name)(*map(sheet.given, operands)))
    sheet.compare()


@pytest.mark.parametrize("target", ALL, ids=lambda d: d.name)
def test_casts(target: Any) -> None:
    sheet, rng = Sheet(), np.random.default_rng(0)
    for source in ALL:
        for shape in ((), (0,), (1,), (35,), (3, 17)):
            if source.kind != "f":
                values = integers(rng, shape, source)
            elif target.kind in "ui":  # what does not fit is undefined
                values = np.asarray(rng.uniform(0 if target.kind == "u" else -100, 100, shape)).astype(source)
            else:
                special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-42, 3e38, 1e-300, 0.1], source)
                values = rng.choice(special, shape).astype(source)
            sheet.out(sheet.m.cast(sheet.given(values), dtype=target))
    sheet.compare()


@pytest.mark.parametrize("dtype", ALL, ids=lambda d: d.name)
def test_the_other_primitives_in_every_dtype(dtype: Any) -> None:
    sheet, rng = Sheet(), np.random.default_rng(0)
    m = sheet.m

    def draw(*shape: int) -> int:
        if dtype.kind == "f":
            return sheet.given(rng.integers(-8, 9, shape).astype(dtype) / 4)
        return sheet.given(integers(rng, shape, dtype))

    x, y, one = draw(5, 7, 18), draw(5, 7, 18), draw()
    mask = sheet.given(rng.random((7, 1)) < 0.5)
    rows, columns = (sheet.given(rng.integers(0, n, (4, 3))) for n in (5, 7))
    small = sheet.given(np.array([3, 0, 4, 4], np.uint8))
    for value in (
        m.where(mask, x, y),
        m.where(mask, one, y),
        *(m.sum(x, axes=axes, keepdims=False) for axes in ((0,), (1, 2), (0, 1, 2))),
        *(m.amax(x, axes=axes, keepdims=True) for axes in ((2,), (0, 1))),
        *(m.argmax(x, axis=axis, keepdims=False) for axis in (0, 2)),
        *(m.cumsum(x, axis=axis, reverse=reverse) for axis in (0, 2) for reverse in (False, True)),
        *(m.argsort(x, axis=axis, descending=descending) for axis in (0, 2) for descending in (False, True)),
        m.gather(x, rows),
        m.gather(x, rows, columns),
        m.gather(x, small),
        m.scatter_add(m.gather(y, rows, columns), rows, columns, shape=(5, 7, 18)),
        m.scatter_add(m.gather(y, small), small, shape=(6, 7, 18)),
        m.transpose(x, axes=(2, 0, 1)),
        m.flip(x, axes=(0, 2)),
        m.reshape(m.transpose(x, axes=(1, 2, 0)), shape=(18, 35)),
        m.pad(x, low=(1, 0, 2), high=(0, 1, 1), interior=(0, 1, 2)),
        m.slice(x, start=(1, 0, 3), stop=(5, 7, 17), step=(2, 3, 5)),
        m.concatenate(x, m.flip(y, axes=(1,)), x, axis=1),
        m.windows(x, size=(2, 3), stride=(2, 1), dilation=(3, 2)),
        m.fold(m.windows(y, size=(2, 3), stride=(2, 1), dilation=(3, 2)),
               output=(7, 18), size=(2, 3), stride=(2, 1), dilation=(3, 2)),
        m.broadcast(one, shape=(3, 17)),
        m.alias(x),
    ):  # fmt: skip
        sheet.out(value)
    if dtype.kind != "b":
        sheet.out(m.matmul(x, m.transpose(y, axes=(0, 2, 1))))
        sheet.out(m.matmul(m.transpose(m.gather(x, small), axes=(0, 2, 1)), m.slice(y, **ROWS)))
    sheet.compare()


ROWS = {"start": (1, 0, 0), "stop": (5, 7, 18), "step": (1, 1, 3)}


# --- views and reductions -----------------------------------------------------------------------------------------
def chains(m: Maker, x: int) -> list[int]:
    """Views of views, of a (6, 5, 7) array."""
    turned = m.transpose(x, axes=(2, 0, 1))
    padded = m.pad(turned, low=(2, 0, 1), high=(0, 3, 1), interior=(1, 0, 0))  # (15, 9, 7)
    back = m.slice(m.flip(padded, axes=(0, 1)), start=(0, 1, 0), stop=(15, 9, 7), step=(2, 3, 1))  # (8, 3, 7)
    joined = m.concatenate(back, m.slice(padded, start=(4, 0, 0), stop=(12, 3, 7), step=(1, 1, 1)), axis=2)
    flat = m.reshape(joined, shape=(8 * 3 * 14,))
    again = m.reshape(m.pad(flat, low=(5,), high=(3,), interior=(0,)), shape=(8, 43))
    taps = m.windows(again, size=(2, 3), stride=(1, 5), dilation=(2, 1))  # (6, 9, 2, 3)
    wide = m.broadcast(m.reshape(taps, shape=(6, 1, 9, 6)), shape=(6, 2, 9, 6))
    stacked = m.concatenate(m.reshape(x, shape=(210,)), m.reshape(wide, shape=(648,)), axis=0)
    return [turned, padded, back, joined, flat, again, taps, wide, m.reshape(stacked, shape=(11, 78))]


@pytest.mark.parametrize("step", range(9))
def test_views_of_views(step: int) -> None:
    rng = np.random.default_rng(0)
    for use in (
        lambda m, v: v,
        lambda m, v: m.neg(v),
        lambda m, v: m.exp(v),
        lambda m, v: m.sum(v, axes=(0,), keepdims=False),
        lambda m, v: m.cumsum(v, axis=0, reverse=True),
    ):
        for inner in (lambda m, x: x, lambda m, x: m.add(x, x), lambda m, x: m.tanh(x)):
            m = Maker()
            x = m.arg(6, 5, 7)
            compare(m.graph(use(m, chains(m, inner(m, x))[step])), [rng.integers(-9, 9, (6, 5, 7)).astype(np.float32)])


FOUR = [(2, 3, 5, 7), (33, 2, 1, 20), (3, 1, 17, 4), (1, 16, 1, 64), (2, 70, 3, 1)]


@pytest.mark.parametrize("shape", FOUR, ids=str)
@pytest.mark.parametrize("axes", [c for n in range(5) for c in combinations(range(4), n)], ids=str)
def test_reductions_over_every_subset_of_four_axes(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).integers(-32, 33, shape).astype(np.float32) / 4
    kept = {"axes": axes, "keepdims": True}
    for build in (
        lambda m, x: m.sum(x, axes=axes, keepdims=False),
        lambda m, x: m.amax(m.mul(x, x), axes=axes, keepdims=False),
        lambda m, x: m.sub(x, m.amax(x, **kept)),
        lambda m, x: m.div(e := m.exp(m.sub(x, m.amax(x, **kept))), m.sum(e, **kept)),  # softmax
        lambda m, x: m.mul(d := m.sub(x, m.sum(x, **kept)), m.sum(m.mul(d, d), **kept)),
    ):
        m = Maker()
        compare(m.graph(build(m, m.arg(*shape))), [x])


# --- errors -------------------------------------------------------------------------------------------------------
GATHERS: dict[str, Callable[[Any, Any], Any]] = {
    "rows": lambda x, i: x[i],
    "summed": lambda x, i: x[i].sum(),
    "product": lambda x, i: x[i] @ x[i].T,
    "elements": lambda x, i: x[i, i],
    "after a sum": lambda x, i: (x * x.sum(1, keepdim=True))[i],
    "a part": lambda x, i: x[i][:1] * 2,
    "of a gather": lambda x, i: x[slalom.zeros(3, dtype="int64")][:, i],
    "among zeros": lambda x, i: nn.functional.pad(x[i], (1, 1)),
    "joined": lambda x, i: slalom.cat([x, x[i]]),
    "of a repeated row": lambda x, i: x[:1].expand(7, 7)[i],
    "of one row": lambda x, i: x.reshape(1, 49)[i // 7],
    "of a number": lambda x, i: x[i.sum() - i.sum() + i[-1]],
}


@pytest.mark.parametrize("bad", [7, -8, 2**40], ids=str)
@pytest.mark.parametrize("name", GATHERS)
def test_an_index_out_of_range_is_the_same_error_and_writes_nothing(name: str, bad: int) -> None:
    total = slalom.zeros(7, 7)

    @slalom.compile
    def step(x: Tensor, i: Tensor) -> Any:
        total.add_(1)
        return GATHERS[name](x, i), total + 1

    x = slalom.randn(7, 7)
    step(x, slalom.tensor([0, 6, 3]))
    with pytest.raises(IndexRangeError):
        step(x, slalom.tensor([0, 3, bad]))
    assert (total.numpy() == 1).all()
    step(x, slalom.tensor([6, 6, 6]))
    assert (total.numpy() == 2).all()


def test_more_rows_than_there_are() -> None:
    step = slalom.compile(lambda x: x[slalom.arange(8)] * 2)
    step(slalom.ones(8, 3))
    with pytest.raises(IndexRangeError):
        step(slalom.ones(7, 3))


def test_a_scatter_out_of_range_and_a_negative_power() -> None:
    state = slalom.zeros(3)

    def fails(build: Callable[..., int], arrays: list[Array], error: type[SlalomError]) -> None:
        m = Maker()
        graph = m.graph(build(m, *(m.arg(*a.shape, dtype=a.dtype.str) for a in arrays)))
        with pytest.raises(error):
            NumpyExecutor(graph)(arrays)
        with pytest.raises(AssertionError, match="a kernel reported an error"):
            run_fenced(Program(graph), arrays, at_end=True)

    places, x = np.array([0, 3]), np.ones((2, 5), np.float32)
    fails(lambda m, x, i: m.scatter_add(x, i, shape=(3, 5)), [x, places], IndexRangeError)
    fails(lambda m, x, y: m.pow(x, y), [np.array([2, 3]), np.array([1, -1])], DTypeError)

    @slalom.compile
    def power(x: Tensor, y: Tensor) -> Tensor:
        state.add_(1)
        return x**y

    with pytest.raises(DTypeError):
        power(slalom.tensor([2, 3]), slalom.tensor([1, -1]))
    assert not state.numpy().any()


# --- state --------------------------------------------------------------------------------------------------------
def states(*shapes: tuple[int, ...]) -> list[Tensor]:
    rng = np.random.default_rng(0)
    return [Tensor(rng.normal(size=shape).astype(np.float32)) for shape in shapes]


def exchange(*tensors: Tensor) -> None:
    for t, value in zip(tensors, [t.clone() for t in (*tensors[1:], tensors[0])], strict=True):
        t.copy_(value)


WRITES: dict[str, Callable[[Tensor, Tensor, Tensor], Any]] = {
    "chain": lambda a, b, c: a.add_(b).mul_(a).sub_(c),
    "swap": lambda a, b, c: exchange(a, b),
    "rotate": exchange,
    "flip": lambda a, b, c: a.copy_(a.flip(0)),
    "transpose": lambda a, b, c: a.copy_(a.T),
    "shift": lambda a, b, c: a.__setitem__(slice(1, None), a[:-1]),
    "of another": lambda a, b, c: (a.copy_(b.T), b.copy_(a * 2)),
    "after a sum": lambda a, b, c: a.div_(a.sum(1, keepdim=True)),
    "softmax": lambda a, b, c: a.copy_(a.softmax(0) + b.softmax(1)),
    "product": lambda a, b, c: a.copy_(a @ b + a),
    "both sides": lambda a, b, c: (a.add_(b @ c), b.add_(a), c.copy_(a.T @ b)),
    "broadcast": lambda a, b, c: a.copy_(b[0]),
    "same into two": lambda a, b, c: [t.copy_(c.exp()) for t in (a, b)],
    "constant": lambda a, b, c: (a.zero_(), b.fill_(2.0)),
    "sorted": lambda a, b, c: a.copy_(a.sort(0)[0]),
    "running": lambda a, b, c: a.copy_(a.cumsum(1)),
    "row": lambda a, b, c: a.__setitem__(2, b[1] + a[2]),
    "old and new": lambda a, b, c: (b.copy_(a + 1), a.copy_(b * a)),
}


@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("observed", [False, True], ids=["alone", "observed"])
@pytest.mark.parametrize("executor", ["native", "numpy"])
@pytest.mark.parametrize("name", WRITES)
def test_writing_state(name: str, executor: str, observed: bool, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As eager mode does it, three times; observed: with results that read what was there before and is then."""
    monkeypatch.setenv("SLALOM_EXECUTOR", executor)

    def run(call: Callable[[Callable[[], Any]], Callable[[], Any]]) -> list[Any]:
        made = states((5, 5), (5, 5), (5, 5))
        if layout == "columns":
            made = [slalom.from_numpy(np.asfortranarray(t.numpy())) for t in made]

        def step() -> list[Tensor]:
            before = [t * 1 for t in made]
            WRITES[name](*made)
            return [*before, made[0], made[1] + made[2]] if observed else []

        step = call(step)
        return [t.numpy().copy() for _ in range(3) for t in (*step(), *made)]

    for a, b in zip(run(lambda f: f), run(slalom.compile), strict=True):
        np.testing.assert_array_equal(a, b)


# --- outputs ------------------------------------------------------------------------------------------------------
def test_outputs_are_memory_of_their_own() -> None:
    state, constant = slalom.ones(3, 4), np.arange(12.0, dtype=np.float32).reshape(3, 4)
    constant.flags.writeable = False

    @slalom.compile
    def step(x: Tensor) -> list[Tensor]:
        y = x + 1
        fixed = Tensor(constant)
        return [x, x, x.T, x.reshape(4, 3), y, y, y.reshape(12), y[1:], state, state.T, fixed, fixed, fixed.T, x[0, 0]]

    given = slalom.randn(3, 4)
    kept = given.numpy().copy()
    first, second = step(given), step(given)
    arrays = [t.numpy() for t in (*first, *second, given, state)] + [constant]
    for a, b in combinations(arrays, 2):
        assert not np.shares_memory(a, b)
    values = [a.copy() for a in arrays]
    for a in arrays[: len(first)]:
        a[...] = 99
    for a, before in zip(arrays[len(first) :], values[len(first) :], strict=True):
        np.testing.assert_array_equal(a, before)
    np.testing.assert_array_equal(step(given)[0].numpy(), kept)


def test_arguments_of_every_layout() -> None:
    @slalom.compile
    def step(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return x + y, x @ y.T, (x * y).sum(0), y.cumsum(1)

    base = np.random.default_rng(0).normal(size=(40, 60)).astype(np.float32)
    layouts = [
        base[:10, :20],
        base[:20, :10].T,
        base[::4, ::3],
        base[::-4, ::-3],
        np.broadcast_to(base[:1, :20], (10, 20)),
        np.frombuffer(b"\0" + base[:10, :20].tobytes(), np.uint8)[1:].view(np.float32).reshape(10, 20),
    ]
    for x in layouts:
        for y in layouts:
            step(slalom.from_numpy(x) if x.flags.writeable else Tensor(x), Tensor(y))
    assert step.traces == 1


# --- random numbers -----------------------------------------------------------------------------------------------
def test_random_numbers_are_numpys() -> None:
    shapes = [(), (1,), (3,), (63,), (64,), (65,), (5, 7), (0, 4), (1000,)]

    def draw() -> list[Tensor]:
        made = [slalom.rand(*shape) for shape in shapes] + [slalom.rand(*shape, dtype="float64") for shape in shapes]
        made += [slalom.randint(0, 10, (37,)), slalom.bernoulli(slalom.full((50,), 0.3))]
        return [*made, nn.functional.dropout(slalom.ones(70), 0.5)]

    slalom.manual_seed(5)
    eager = [[t.numpy() for t in draw()] for _ in range(3)]
    slalom.manual_seed(5)
    step = slalom.compile(draw)
    for expected in eager:
        for a, b in zip(expected, step(), strict=True):
            np.testing.assert_array_equal(a, b.numpy())

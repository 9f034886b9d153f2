"""Loops over time steps as one operation: values, both derivatives and second ones, and machine code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from derivatives import check_derivatives
from executors import compare
from hypothesis import given
from hypothesis import strategies as st

import slalom
from slalom import Tensor, nn
from slalom.compiler.calls import Repeat
from slalom.compiler.program import Program
from slalom.core.graph import Type
from slalom.core.scan import SCAN, fields
from slalom.core.scan import loop as run_loop
from slalom.core.step import Body, body_of
from slalom.errors import ConfigError, DTypeError, ShapeError, StagingError

Step = Callable[..., Sequence[Tensor]]


class Loop(NamedTuple):
    """A step, the shapes of its carries, pieces and fixed inputs, and how many results it has."""

    step: Step
    carries: tuple[tuple[int, ...], ...]
    pieces: tuple[tuple[int, ...], ...]
    fixed: tuple[tuple[int, ...], ...] = ()
    results: int = 0


def _elman(h: Tensor, x: Tensor, w: Tensor, b: Tensor) -> list[Tensor]:
    return [(x + h @ w + b).tanh()]


def _crossed(a: Tensor, b: Tensor, x: Tensor) -> list[Tensor]:
    """Carries that change places, and one that is a result as well."""
    new = (b * x).sin()
    return [new, a, new + a, x * 2.0]


def _shared(h: Tensor, w: Tensor, v: Tensor, s: Tensor) -> list[Tensor]:
    """Weights used twice, turned, broadcast, and by themselves; no piece at all."""
    return [(h @ w + h @ w.mT * 0.5).tanh() * s + v.reshape(1, 3).exp(), (w * w).sum(0) + v]


def _kept(h: Tensor, x: Tensor) -> list[Tensor]:
    return [h, x * h]


def _scored(h: Tensor, x: Tensor, w: Tensor) -> list[Tensor]:
    """A softmax over what is carried, and a sum that is dear to do again."""
    return [(h.softmax(-1) @ w + x) / (1.0 + (h * h).sum(-1, keepdim=True)).sqrt()]


LOOPS = {
    "recurrent": Loop(_elman, ((2, 3),), ((2, 3),), ((3, 3), (3,))),
    "carries that change places": Loop(_crossed, ((4,), (4,)), ((4,),), results=2),
    "weights used in many ways": Loop(_shared, ((2, 3),), (), ((3, 3), (3,), ()), results=1),
    "a carry that stays": Loop(_kept, ((3,),), ((3,),), results=1),
    "softmax": Loop(_scored, ((2, 3),), ((2, 3),), ((3, 3),)),
    "scalars": Loop(lambda a, x, w: [a * w + x.exp()], ((),), ((),), ((),)),
}


def _body(loop: Loop, dtype: Any = np.float64) -> Body:
    groups = [[Type(shape, np.dtype(dtype)) for shape in group] for group in loop[1:4]]
    return body_of(loop.step, *groups)


def _arrays(loop: Loop, steps: int, dtype: Any = np.float64, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = [*loop.carries, *((steps, *shape) for shape in loop.pieces), *loop.fixed]
    return [np.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def _looped(loop: Loop, body: Body, steps: int, reverse: bool) -> Callable[..., list[Tensor]]:
    c, m = len(loop.carries), len(loop.pieces)
    return lambda *t: run_loop(body, t[:c], t[c : c + m], t[c + m :], steps=steps, reverse=reverse)


def _one_by_one(loop: Loop, steps: int, reverse: bool) -> Callable[..., list[Tensor]]:
    """The same in Python."""
    c, m = len(loop.carries), len(loop.pieces)

    def run(*t: Tensor) -> list[Tensor]:
        carries, rows = t[:c], [[each] for each in t[:c]] + [[] for _ in range(loop.results)]
        for i in reversed(range(steps)) if reverse else range(steps):
            out = loop.step(*carries, *(x[i] for x in t[c : c + m]), *t[c + m :])
            carries = tuple(out[:c])
            for row, value in zip(rows, out, strict=True):
                row.append(value)
        return [slalom.stack(row[::-1] if reverse else row) for row in rows]

    return run


def _flat(function: Callable[..., list[Tensor]]) -> Callable[..., Tensor]:
    return lambda *t: slalom.cat([out.reshape(-1) for out in function(*t)])


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_is_its_steps_one_after_the_other(name: str, reverse: bool) -> None:
    loop = LOOPS[name]
    arrays = _arrays(loop, 5)
    tensors = [Tensor(a) for a in arrays]
    looped, plain = _flat(_looped(loop, _body(loop), 5, reverse)), _flat(_one_by_one(loop, 5, reverse))
    np.testing.assert_allclose(looped(*tensors).numpy(), plain(*tensors).numpy(), rtol=1e-12)
    check_derivatives(looped, arrays)
    weights = Tensor(np.random.default_rng(1).normal(size=plain(*tensors).shape))
    for which in range(len(arrays)):  # each input by itself: what is not wanted is not computed
        got, want = [slalom.grad(lambda *t, f=f: (f(*t) * weights).sum(), which)(*tensors) for f in (looped, plain)]
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", LOOPS)
def test_compiled_loops_and_their_ways_back_are_the_oracles(name: str) -> None:
    loop = LOOPS[name]
    for reverse in (False, True):
        function = _flat(_looped(loop, _body(loop, np.float32), 9, reverse))
        numbers = tuple(range(len(_arrays(loop, 9))))

        def step(*t: Tensor, f: Any = function, numbers: Any = numbers) -> tuple[Any, Any]:
            return f(*t), slalom.grad(lambda *t: (f(*t) * f(*t)).sum(), numbers)(*t)

        compiled = slalom.compile(step)  # beside NumPy's executor: see conftest
        arrays = _arrays(loop, 9, np.float32)
        compiled(*map(Tensor, arrays))
        graph = compiled.graph
        assert {eq.prim.name for eq in graph.equations} >= {"scan"}
        compare(graph, arrays)  # between guard pages


@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 12), st.booleans(), st.booleans())
def test_compiled_loops_of_any_size(batch: int, units: int, steps: int, reverse: bool, strided: bool) -> None:
    """Also where pieces are views of a larger array."""
    loop = Loop(_elman, ((batch, units),), ((batch, units),), ((units, units), (units,)))
    body = _body(loop, np.float32)

    def run(h: Tensor, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        pieces = x.transpose(0, 1)[:, :batch] if strided else x[1:]
        return run_loop(body, [h], [pieces], [w, b], steps=steps, reverse=reverse)[0] * 2.0

    rng = np.random.default_rng(batch + 10 * units)
    shape = (batch + 1, steps, units) if strided else (steps + 1, batch, units)
    arrays = [rng.normal(size=s).astype(np.float32) for s in ((batch, units), shape, (units, units), (units,))]
    compiled = slalom.compile(run)
    compiled(*map(Tensor, arrays))
    compare(compiled.graph, arrays)


def test_what_a_step_reads_is_checked() -> None:
    of = Type((3,), np.dtype(np.float32))
    outside = slalom.ones(3)
    with pytest.raises(AssertionError, match="not among its arguments"):
        body_of(lambda h: [h + outside], [of], [], [])
    with pytest.raises(StagingError, match="while staging"):
        body_of(lambda h: [h * float(h.sum())], [of], [], [])
    with pytest.raises(ShapeError, match="what a step carries"):
        body_of(lambda h: [h.sum()], [of], [], [])
    body = body_of(lambda h, x: [h + x], [of], [of], [])
    for shapes, steps in ([(3,), (2, 3)], 4), ([(2,), (4, 3)], 4), ([(3,), (0, 3)], 0):
        h, x = [slalom.ones(*shape) for shape in shapes]
        with pytest.raises(ShapeError, match="scan"):
            run_loop(body, [h], [x], [], steps=steps)
    with pytest.raises(DTypeError, match="scan: dtypes"):
        run_loop(body, [slalom.ones(3, dtype=slalom.float64)], [slalom.ones(4, 3)], [], steps=4)


def test_gradients_of_weights_are_one_product_for_all_steps() -> None:
    """No sum that grows from step to step: the way back carries the state's cotangent alone."""
    loop = LOOPS["recurrent"]
    body, arrays = _body(loop), _arrays(loop, 20)

    def step(*t: Tensor) -> Any:
        return slalom.grad(lambda *t: _flat(_looped(loop, body, 20, False))(*t).sum(), (0, 1, 2, 3))(*t)

    compiled = slalom.compile(step)
    compiled(*map(Tensor, arrays))
    loops = [eq for eq in compiled.graph.equations if eq.prim is SCAN]
    back = loops[-1].params["body"]
    assert len(loops) == 2 and back.carries == 1
    assert [of.shape for of in back.outputs] == [(2, 3), (2, 3)], "the carry, and what piece and weights share"


def test_large_outputs_are_kept_apart_in_the_cache() -> None:
    of = Type((64, 32), np.dtype(np.float32))
    body = body_of(lambda h, x: [h + x, h * x, x], [of], [of], [])
    first, second, third = fields(body, 16)
    for a, b in ((first, second), (second, third)):
        assert b.begin > a.end and (b.begin - a.begin) * 4 % 4096
    small = fields(_body(LOOPS["scalars"]), 3)
    assert [f.begin for f in small] == [0]


# --- networks -----------------------------------------------------------------------------------------------------
def _program(kind: str, steps: int) -> Program:
    layer = getattr(nn, kind)(5, 8, num_layers=2, bidirectional=True)
    lengths = slalom.tensor([steps, 3])

    @slalom.compile
    def step(x: Tensor) -> Tensor:
        out, _ = layer(x, lengths=lengths)
        loss = (out * out).sum()
        loss.backward()
        return loss

    step(slalom.randn(steps, 2, 5))
    return step.program


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_the_program_of_a_network_does_not_grow_with_the_time_steps(kind: str) -> None:
    few, many = _program(kind, 300), _program(kind, 600)
    assert len(few.source.equations) == len(many.source.equations), "recorded"
    assert len(few.lowered.calls) == len(many.lowered.calls), "lowered"
    loops = [call for call in many.lowered.calls if isinstance(call, Repeat)]
    assert [(loop.steps, loop.reverse) for loop in loops].count((600, True)) == 4
    assert len(loops) == 8, "two layers, two directions, both ways"
    assert any(loop.once for loop in loops), "weights are packed once"
    assert f"{many.cost}".count("600 × ") == f"{few.cost}".count("300 × ") > 0


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("lengths", [None, [12, 5, 0]], ids=["full", "ragged"])
def test_recorded_networks_learn_as_those_run_step_by_step(kind: str, lengths: list[int] | None) -> None:
    slalom.manual_seed(0)
    layer = getattr(nn, kind)(5, 7, num_layers=2, bidirectional=True)
    x = slalom.randn(12, 3, 5, requires_grad=True)
    learned = [x, *layer.parameters()]

    def step(x: Tensor) -> tuple[Tensor, ...]:
        out, last = layer(x, lengths=lengths)
        states = last if isinstance(last, tuple) else (last,)
        return slalom.autograd.grad((out * out.sin()).sum() + sum((s * s).sum() for s in states), learned)

    for got, want in zip(slalom.compile(step)(x), step(x), strict=True):
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=2e-5, atol=2e-6)


# --- the loop that users write ------------------------------------------------------------------------------------
def _attending(cell: nn.GRUCell, keys: Tensor) -> Callable[[Any, Any], Any]:
    """A step of a decoder that looks at all of ``keys`` (B, T, H)."""

    def step(carry: dict[str, Tensor], x: Tensor) -> Any:
        weights = (keys @ carry["h"].unsqueeze(-1)).softmax(1)
        h = cell(x + (weights * keys).sum(1), carry["h"])
        return {"h": h, "total": carry["total"] + h.sum()}, (h * 2, [weights.squeeze(-1)])

    return step


def _python(f: Any, carry: Any, xs: Any, reverse: bool = False) -> Any:
    rows = []
    for x in xs.unbind(0)[::-1] if reverse else xs.unbind(0):
        carry, y = f(carry, x)
        rows.append(y)
    rows = rows[::-1] if reverse else rows
    return carry, (slalom.stack([a for a, _ in rows]), [slalom.stack([b for _, (b,) in rows])])


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
def test_a_users_loop_reads_weights_from_outside_and_hands_out_trees(reverse: bool, compiled: bool) -> None:
    slalom.manual_seed(0)
    cell, xs = nn.GRUCell(4, 4), slalom.randn(9, 2, 4)
    keys = slalom.randn(2, 5, 4, requires_grad=True)
    learned = [keys, *cell.parameters()]

    def run(loop: Any, keys: Tensor, xs: Tensor) -> list[Tensor]:
        init = {"h": slalom.zeros(2, 4), "total": slalom.tensor(0.0)}
        carry, (outs, (weights,)) = loop(_attending(cell, keys * 1.5), init, xs, reverse=reverse)
        loss = carry["total"] + (outs * outs).sum() + (weights**3).sum()
        return [carry["h"], outs, weights, *slalom.autograd.grad(loss, learned)]

    want = run(_python, keys, xs)
    got = (slalom.compile(run) if compiled else run)(slalom.scan, keys, xs)
    assert got[1].shape == (9, 2, 4) and got[2].shape == (9, 2, 5)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=2e-5, atol=2e-6)


def test_what_a_users_loop_does_without_pieces_results_or_floats() -> None:
    total, none = slalom.scan(lambda c, _: (c * 2, None), slalom.tensor(1.0), length=10)
    assert total == 1024 and none is None
    count, seen = slalom.scan(lambda c, x: (c + 1, x > c), slalom.tensor(0), slalom.tensor([5, 0, 7]))
    assert count == 3 and seen.tolist() == [True, False, True]
    last, rows = slalom.scan(lambda c, x: (c, x * c), slalom.tensor(2.0), slalom.ones(0, 3))
    assert last == 2 and rows.shape == (0, 3)
    _, sums = slalom.scan(lambda c, x: (c, x.sum()), (), slalom.ones(4, 3))
    assert sums.tolist() == [3, 3, 3, 3]


def test_loops_inside_of_steps_are_unrolled() -> None:
    layer, xs = nn.RNN(3, 3), slalom.randn(4, 9, 2, 3)

    def step(h: Tensor, x: Tensor) -> Any:
        out, _ = layer(x)
        inner, _ = slalom.scan(lambda c, row: (c + row.sin(), None), h, out)
        return inner, inner.sum()

    def f(xs: Tensor) -> Tensor:
        last, sums = slalom.scan(step, slalom.zeros(2, 3), xs)
        return last.sum() + (sums * sums).sum()

    value, gradient = slalom.value_and_grad(f)(xs)
    again, compiled = slalom.compile(slalom.value_and_grad(f))(xs)
    np.testing.assert_allclose(again.item(), value.item(), rtol=1e-5)
    np.testing.assert_allclose(compiled.detach().numpy(), gradient.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_second_derivatives_of_a_users_loop() -> None:
    weights = np.random.default_rng(0).normal(size=(3, 3))

    def f(w: Tensor, xs: Tensor) -> Tensor:
        return slalom.scan(lambda h, x: ((h @ w + x).tanh(), h * h), slalom.zeros(3, dtype=slalom.float64), xs)[1]

    check_derivatives(f, [weights, np.random.default_rng(1).normal(size=(4, 3))])


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_what_is_detached_in_a_step_or_made_under_no_grad_ends_derivatives(compiled: bool) -> None:
    w = slalom.tensor([0.5, -0.3, 0.8], requires_grad=True)
    outside = slalom.tensor([1.0, 2.0, 3.0], requires_grad=True)

    def step(h: Tensor, x: Tensor) -> Any:
        with slalom.no_grad():
            gate = (h * w).sigmoid()
        new = (h.detach() * w + x * gate + outside.detach()).tanh()
        return new, (new * outside, [h * w.detach()])

    def run(loop: Any, xs: Tensor) -> Any:
        h, (a, (b,)) = loop(step, slalom.zeros(3), xs)
        return slalom.autograd.grad((h * h).sum() + (a * a).sum() + (b**3).sum(), [w, outside, xs])

    xs = slalom.randn(6, 3, requires_grad=True)
    for got, want in zip((slalom.compile(run) if compiled else run)(slalom.scan, xs), run(_python, xs), strict=True):
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-5, atol=1e-6)


def test_a_step_may_take_gradients_and_is_differentiated_through_them() -> None:
    """Descent as a loop, and how where it ends depends on what it descends."""

    def ends(w: Tensor, rates: Tensor) -> Tensor:
        def step(x: Tensor, rate: Tensor) -> Any:
            return x - rate * slalom.grad(lambda z: ((z * w).cos() + z * z).sum())(x), None

        return slalom.scan(step, slalom.ones(2, dtype=slalom.float64), rates)[0]

    check_derivatives(ends, [np.array([0.7, 1.9]), np.array([0.1, 0.2, 0.05])])


def test_what_a_step_reads_is_read_anew_at_each_call() -> None:
    scale = slalom.tensor(2.0)
    factor = 3.0

    @slalom.compile
    def f(xs: Tensor) -> Tensor:
        return slalom.scan(lambda c, x: (c + x * scale * factor, None), slalom.tensor(0.0), xs)[0]

    xs = slalom.ones(10)
    assert f(xs) == 60
    scale.fill_(1.0)
    assert f(xs) == 30
    factor = 1.0
    assert f(xs) == 10


def test_other_floats_than_the_loops_own_go_step_by_step() -> None:
    """A weight in float64 that a step casts, and one that meets float32 carries by promotion."""
    xs = slalom.randn(9, 1, 2)

    def f(w: Tensor) -> Tensor:
        step = lambda c, x: ((c @ w.float() + x).tanh(), c)  # noqa: E731
        return slalom.scan(step, slalom.zeros(1, 2), xs)[0].sum()

    w = Tensor(np.eye(2))
    got, compiled = slalom.grad(f)(w), slalom.compile(slalom.grad(f))(w)
    assert got.dtype == compiled.dtype == slalom.float64
    np.testing.assert_allclose(compiled.numpy(), got.numpy(), rtol=1e-5)
    layer, start = nn.Linear(2, 2), Tensor(np.zeros((1, 2)))
    last, _ = slalom.scan(lambda c, x: ((layer(x) + c).tanh(), c), start, xs)
    last.sum().backward()
    assert last.dtype == slalom.float64 and layer.weight.grad.dtype == slalom.float32
    of = Type((2,), np.dtype(np.float32))
    body = body_of(lambda c, w: [c + w.to(slalom.float32)], [of], [], [Type((2,), np.dtype(np.float64))])
    with pytest.raises(DTypeError, match="got float32, float64; needed one floating dtype"):
        run_loop(body, [slalom.ones(2)], [], [Tensor(np.ones(2))], steps=3)


def test_carries_that_nothing_depends_on_have_no_derivative() -> None:
    """log of a carry that falls below 0 is NaN, and 0 times that is as well."""

    def f(loop: Any, w: Tensor, xs: Tensor) -> Tensor:
        step = lambda c, x: ((c[0] * w + x, (c[1] * w).log()), (c[0], [x]))  # noqa: E731
        return loop(step, (slalom.zeros(2), slalom.zeros(2)), xs)[0][0].sum()

    w, xs = slalom.ones(2) * 2, slalom.ones(6, 2)
    want = slalom.grad(lambda w: f(_python, w, xs))(w)
    assert want.isfinite().all()
    for transform in (slalom.grad, lambda g: slalom.compile(slalom.grad(g))):
        np.testing.assert_allclose(transform(lambda w: f(slalom.scan, w, xs))(w).numpy(), want.numpy(), rtol=1e-6)


def test_numbers_and_arrays_are_tensors_to_a_users_loop() -> None:
    total, y = slalom.scan(lambda c, x: (c + x.sum(), c * 1.0), 0.0, np.ones((3, 2), np.float32))
    assert total == 6 and y.tolist() == [0, 2, 4]
    init, xs = {"h": slalom.zeros(2), "n": 0.0}, {"a": slalom.ones(3, 2), "b": np.arange(3, dtype=np.float32)}
    carry, y = slalom.scan(lambda c, x: ({"h": c["h"] + x["a"] * x["b"], "n": c["n"] + 1}, 1.0), init, xs)
    assert carry["h"].tolist() == [3, 3] and carry["n"] == 3 and y.tolist() == [1, 1, 1]
    start = slalom.ones(2)
    same, _ = slalom.scan(lambda c, x: (c, x), start, slalom.ones(0, 2))
    same.mul_(5.0)
    assert start.tolist() == [1, 1]


def test_mistakes_in_a_users_loop_are_named() -> None:
    xs, one, buffer, noisy = slalom.ones(4, 3), slalom.ones(3), slalom.zeros(3), nn.Dropout(0.5)

    given = slalom.ones(3, requires_grad=True)
    for length in (-1, 2.5, True):
        with pytest.raises(ConfigError, match="length: got"):
            slalom.scan(lambda c, x: (c, None), one, length=length)

    def writing(c: Tensor, x: Tensor) -> Any:
        buffer.add_(x)
        return c, x

    refused: list[tuple[Any, Any, Any, type[Exception], str]] = [
        (lambda c, x: c + x, one, xs, DTypeError, "what f returns: got Tensor; needed a pair"),
        (lambda c, x: (c.sum(), x), one, xs, ShapeError, r"the carry that f returns: got f32\[\]; needed f32\[3\]"),
        (lambda c, x: ((c, c), x), one, xs, ShapeError, "the carry that f returns"),
        (lambda c, x: (c, x), one, slalom.tensor(1.0), ShapeError, "xs: got a 0-d tensor"),
        (lambda c, x: (c, x), one, (xs, slalom.ones(5)), ShapeError, r"lengths \[4, 5\]"),
        (lambda c, x: (c, x), one, None, ConfigError, "neither xs nor length"),
        (lambda c, x: (c, x if x.sum() > 0 else c), one, xs, StagingError, "while staging"),
        (lambda c, x: ((c * x * given).sum().backward(), (c, c))[1], one, xs, StagingError, "reads or writes .grad"),
        (lambda c, x: (x, x), None, xs, ShapeError, "got 1 tensors; needed 0, as in init"),
        (writing, one, xs, StagingError, "writes into a tensor from outside"),
        (lambda c, x: (c, noisy(x)), one, xs, StagingError, "draw random numbers before the loop"),
    ]
    for f, init, rows, kind, text in refused:
        with pytest.raises(kind, match=text):
            slalom.scan(f, init, rows)
    assert buffer.tolist() == [0, 0, 0]

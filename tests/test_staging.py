"""slalom.compile records what the eager program would do, and replays just that: each trap of the design is a test."""

from __future__ import annotations

import functools
import gc
import resource
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import slalom
from slalom import Tensor, nn, optim, tensor
from slalom.compiler.stage import Compiled
from slalom.core.graph import Graph
from slalom.core.trace import steering


def ops(step: Compiled) -> list[str]:
    """The names of the recorded primitives."""
    return [eq.prim.name for eq in step.graph.equations]


def places(step: Compiled, kind: str) -> list[str]:
    """The names of the inputs and outputs of one kind."""
    return [place.name for place in (*step.graph.inputs, *step.graph.outputs) if place.kind == kind]


def leaf(*values: float) -> Tensor:
    return tensor(list(values), requires_grad=True)


class Task(NamedTuple):
    """A small network with dropout, its optimizer and a batch."""

    model: nn.Module
    optimizer: optim.Optimizer
    step: Callable[[Tensor, Tensor], Tensor]
    x: Tensor
    y: Tensor


def make_task(zero_grad: str = "end", dropout: float = 0.5, dtype: str = "float32") -> Task:
    slalom.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 1), nn.Sigmoid())
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    criterion = nn.BCELoss()

    def step(x: Tensor, y: Tensor) -> Tensor:
        if zero_grad == "start":
            optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        if zero_grad == "end":
            optimizer.zero_grad()
        return loss

    rng = np.random.default_rng(0)
    x = rng.standard_normal((32, 3)).astype(np.float32)
    return Task(model, optimizer, step, tensor(x), tensor((x[:, :1] > 0).astype(np.float32)))


# --- a whole step -------------------------------------------------------------------------------------------------
def test_a_staged_mlp_bce_adam_step_is_bit_identical_to_eager_over_100_steps_and_traced_once() -> None:
    eager, staged = make_task(), make_task()
    step = slalom.compile(staged.step)
    results = []
    for task, run in ((eager, eager.step), (staged, step)):
        slalom.manual_seed(7)
        losses = [run(task.x, task.y).item() for _ in range(100)]
        slots = [t.numpy().tobytes() for held in task.optimizer.state.values() for t in held.values()]
        results.append((losses, [p.detach().numpy().tobytes() for p in task.model.parameters()], slots))
    assert results[0] == results[1]
    assert results[0][0][-1] < results[0][0][0]
    assert step.traces == 1
    assert all(p.grad is None for p in staged.model.parameters())


def test_the_state_list_is_exactly_parameters_slots_and_counters() -> None:
    """Trap: constants are Const nodes, or they swell the state list."""
    task = make_task()
    step = slalom.compile(task.step)
    step(task.x, task.y)
    parameters = [name for name, _ in task.model.named_parameters()]
    assert len(parameters) == 4
    state = places(step, "state")
    assert len(state) == 4 + 8 + 1 + 1  # parameters, both moments of each, the step count, the random counter
    assert set(parameters) <= set(state)
    assert set(places(step, "write")) == set(state)
    assert set(places(step, "number")) == {"lr", "betas[0]", "betas[1]", "eps"}
    assert places(step, "argument") == ["argument 0", "argument 1"]
    assert not places(step, "grad")
    assert step.graph.constants


def test_no_gradient_of_the_input_data_is_recorded() -> None:
    """Trap: one vjp function for each input, called only where it is needed."""
    task = make_task(dropout=0.0)
    step = slalom.compile(task.step)
    step(task.x, task.y)
    assert ops(step).count("matmul") == 2 + 3
    assert not any(step.graph.types[eq.out].shape == (32, 3) for eq in step.graph.equations)


def test_a_changed_learning_rate_is_seen_without_a_retrace() -> None:
    """Trap: hyper-parameters are read from param_groups at each call."""
    task = make_task()
    step = slalom.compile(task.step)
    step(task.x, task.y)
    group, weights = task.optimizer.param_groups[0], [p.detach() for p in task.model.parameters()]
    before = [w.numpy().copy() for w in weights]
    group["lr"] = 0.0
    step(task.x, task.y)
    assert all(np.array_equal(b, w.numpy()) for b, w in zip(before, weights, strict=True))
    group["lr"] = 0.1
    step(task.x, task.y)
    assert not any(np.array_equal(b, w.numpy()) for b, w in zip(before, weights, strict=True))
    assert step.traces == 1


def test_steering_numbers_never_widen_arrays_and_are_read_at_each_call() -> None:
    rate = [2.0]
    step = slalom.compile(lambda x: x * steering(lambda: rate[0], "lr"))
    assert step(tensor([1.0])).tolist() == [2.0]
    rate[0] = 5.0
    assert step(tensor([1.0])).tolist() == [5.0]
    assert step(tensor([1.0])).dtype == np.float32 and step.traces == 1


def test_dropout_draws_fresh_numbers_at_each_call_and_the_same_as_eager() -> None:
    """Trap: the random counter is state."""
    draw = slalom.compile(lambda x: nn.functional.dropout(x, 0.5))
    x = slalom.ones(64)
    slalom.manual_seed(3)
    staged = [tuple(draw(x).tolist()) for _ in range(5)]
    slalom.manual_seed(3)
    eager = [tuple(nn.functional.dropout(x, 0.5).tolist()) for _ in range(5)]
    assert staged == eager and len(set(staged)) == 5 and draw.traces == 1


def test_eval_mode_retraces_and_train_mode_comes_back_to_the_first_record() -> None:
    task = make_task()
    predict = slalom.compile(task.model)
    noisy = predict(task.x)
    task.model.eval()
    assert predict(task.x).tolist() == predict(task.x).tolist() == task.model(task.x).tolist()
    assert predict.traces == 2 and "random_bits" not in ops(predict)
    task.model.train()
    assert predict(task.x).tolist() != noisy.tolist()
    assert predict.traces == 2


# --- gradients are state ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("zero_grad", ["end", "start", "never"])
def test_gradients_do_not_leak_out_of_staging(zero_grad: str) -> None:
    """Trap: .grad is state too, with and without zero_grad."""
    eager, staged = make_task(zero_grad, dropout=0.0), make_task(zero_grad, dropout=0.0)
    step = slalom.compile(staged.step)
    for _ in range(4):
        assert step(staged.x, staged.y).item() == eager.step(eager.x, eager.y).item()
        for p, q in zip(staged.model.parameters(), eager.model.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None) == (zero_grad == "end")
            if p.grad is not None and q.grad is not None:
                assert p.grad.tolist() == q.grad.tolist()  # readable: no abstract tensor
    assert step.traces == (2 if zero_grad == "never" else 1)  # .grad was None at first
    assert all(p.detach().tolist() == q.detach().tolist() for p, q in zip(*parameters(staged, eager), strict=True))


def parameters(*tasks: Task) -> list[list[Tensor]]:
    return [list(task.model.parameters()) for task in tasks]


def test_gradients_accumulate_over_calls() -> None:
    w = leaf(1.0, 2.0)

    @slalom.compile
    def accumulate(x: Tensor) -> None:
        (w * x).sum().backward()

    for _ in range(3):
        accumulate(tensor([1.0, 10.0]))
    assert w.grad is not None and w.grad.tolist() == [3.0, 30.0] and not w.grad.requires_grad
    w.grad = None
    accumulate(tensor([1.0, 1.0]))
    assert w.grad is not None and w.grad.tolist() == [1.0, 1.0]
    assert accumulate.traces == 2


def test_gradients_can_be_read_scaled_and_cleared_inside() -> None:
    w = leaf(3.0)

    @slalom.compile
    def step() -> Tensor:
        (w * w).sum().backward()
        assert w.grad is not None
        with slalom.no_grad():
            w.grad.mul_(0.5)
            w.sub_(w.grad)
        return w.grad

    assert step().tolist() == [3.0] and w.tolist() == [0.0]
    assert w.grad is not None and w.grad.tolist() == [3.0]

    @slalom.compile
    def clear() -> None:
        w.grad = None

    clear()
    assert w.grad is None


def test_gradients_of_arguments() -> None:
    w, x = leaf(2.0, 3.0), leaf(1.0, 1.0)

    @slalom.compile
    def loss(x: Tensor) -> Tensor:
        out = (w * x * x).sum()
        out.backward()
        return out

    loss(x)
    assert x.grad is not None and x.grad.tolist() == [4.0, 6.0]
    loss(x)
    assert x.grad.tolist() == [8.0, 12.0]
    other = leaf(10.0, 10.0)
    loss(other)
    assert other.grad is not None and other.grad.tolist() == [40.0, 60.0]
    assert x.grad.tolist() == [8.0, 12.0]


def test_gradients_of_values_inside_end_with_the_trace() -> None:
    x = tensor([3.0])

    @slalom.compile
    def f(x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        inner = x.detach().requires_grad_()
        (inner * inner).sum().backward()
        return inner.grad, x.grad

    found, none = f(x)
    assert found.tolist() == [6.0] and none is None
    assert x.grad is None and not x.requires_grad


def test_every_way_to_differentiate_can_be_staged() -> None:
    def f(x: Tensor) -> Tensor:
        return (x.sin() * x).sum()

    x, v = tensor([0.3, 1.2]), tensor([1.0, -2.0])
    ways: list[Callable[[Tensor], Any]] = [
        slalom.grad(f),
        slalom.jacobian(lambda x: x.sin() * x.sum()),
        slalom.jacobian(lambda x: x.sin() * x.sum(), mode="forward"),
        slalom.hessian(f),
        lambda x: slalom.jvp(f, (x,), (v,))[1],
        lambda x: slalom.hvp(f, (x,), (v,))[1][0],
        lambda x: slalom.vjp(f, x)[1](2.0)[0],
        slalom.grad(lambda x: slalom.jvp(slalom.grad(f), (x,), (v,))[1].sum()),
    ]
    for way in ways:
        assert slalom.compile(way)(x).tolist() == way(x).tolist()


def test_functional_gradients_leave_no_history_in_state() -> None:
    w = tensor([2.0])

    @slalom.compile
    def step() -> Tensor:
        w.assign(w - 0.1 * slalom.grad(lambda w: (w * w).sum())(w))
        return (w * 3).sum()

    values = [step().item() for _ in range(3)]
    assert values == pytest.approx([3 * 2 * 0.8**k for k in (1, 2, 3)])
    assert ops(step).count("mul") == 2 + 1 + 1  # two of the derivative; nothing is differentiated twice


# --- identity -----------------------------------------------------------------------------------------------------
def test_identity_is_the_nodes_not_the_handles() -> None:
    """Trap: the same value under two identities has two gradients, and the record keeps them apart."""
    x = tensor([3.0])

    def f(x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x.detach().requires_grad_(), x.detach().requires_grad_()
        (a * b * b).sum().backward()
        assert a.grad is not None and b.grad is not None
        return a.grad, b.grad

    assert [g.tolist() for g in slalom.compile(f)(x)] == [g.tolist() for g in f(x)] == [[9.0], [18.0]]


def test_a_parameter_met_through_two_handles_is_one_state() -> None:
    w = leaf(1.0, 2.0)

    @slalom.compile
    def f() -> Tensor:
        with slalom.no_grad():
            w.data.mul_(3)
            w.detach()[0] = 10.0
        return w * 1

    assert f().tolist() == [10.0, 6.0] and w.tolist() == [10.0, 6.0]
    assert len(places(f, "state")) == 1
    assert f().tolist() == [10.0, 18.0]


# --- state --------------------------------------------------------------------------------------------------------
def test_writes_are_seen_afterwards_in_the_same_memory() -> None:
    w = tensor([1.0, 2.0])
    array, view = w.numpy(), w.reshape(2, 1)

    @slalom.compile
    def step() -> None:
        w.add_(1)
        w[0] = w[1] * 10

    step()
    assert w.tolist() == [30.0, 3.0] and w.numpy() is array and array.tolist() == [30.0, 3.0]
    assert view.tolist() == [[1.0], [2.0]]
    w.fill_(0.0)  # state is read anew at each call
    step()
    assert array.tolist() == [10.0, 1.0]
    assert step.traces == 1


def test_reads_after_writes_inside_see_them() -> None:
    w = tensor([1.0])

    @slalom.compile
    def f() -> tuple[Tensor, Tensor, Tensor]:
        before = w * 1
        w.mul_(2)
        middle = w + 0
        w.assign(middle + 5)
        return before, middle, w

    assert [t.tolist() for t in f()] == [[1.0], [2.0], [7.0]] and w.tolist() == [7.0]


def test_swapping_two_states() -> None:
    a, b = tensor([1.0]), tensor([2.0])

    @slalom.compile
    def swap() -> None:
        old = a.clone()
        a.assign(b)
        b.assign(old)

    swap()
    assert (a.tolist(), b.tolist()) == ([2.0], [1.0])
    swap()
    assert (a.tolist(), b.tolist()) == ([1.0], [2.0])


def test_a_state_that_is_only_written_or_only_read() -> None:
    total, scale = tensor([0.0]), tensor([3.0])

    @slalom.compile
    def f(x: Tensor) -> None:
        total.assign(x * scale)

    f(tensor([2.0]))
    assert total.tolist() == [6.0]
    assert places(f, "write") and len(places(f, "state")) == 1


def test_tracked_values_written_into_state_carry_gradients_within_the_step() -> None:
    w, buffer = leaf(2.0), tensor([0.0])

    def step(x: Tensor) -> None:
        buffer.copy_(w * x)
        (buffer * buffer + buffer.detach()).sum().backward()

    slalom.compile(step)(tensor([3.0]))
    assert w.grad is not None and w.grad.tolist() == [2 * 6.0 * 3.0]
    assert buffer.tolist() == [6.0] and not buffer.requires_grad


def test_writes_under_no_grad_of_tracked_values_carry_none() -> None:
    w, average = leaf(2.0), tensor([0.0])

    @slalom.compile
    def step(x: Tensor) -> Tensor:
        hidden = w * x
        with slalom.no_grad():
            average.assign(average * 0.9 + hidden * 0.1)
        loss = (hidden * average).sum()
        loss.backward()
        return loss

    step(tensor([1.0]))
    assert w.grad is not None and w.grad.tolist() == pytest.approx([0.2])


def test_exceptions_while_tracing_leave_everything_as_it_was() -> None:
    w, slot = leaf(1.0, 2.0), tensor([5.0])
    w.grad = tensor([7.0, 7.0])
    draws = slalom.get_rng_state().tolist()
    fail = True

    @slalom.compile
    def step(x: Tensor) -> Tensor:
        x.mul_(2)
        slot.add_(1)
        slalom.rand(3)
        (w * x).sum().backward()
        w.requires_grad_(False)
        w.grad = None
        if fail:
            raise ZeroDivisionError
        w.requires_grad_(True)
        return slot

    x = tensor([1.0, 1.0])
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            step(x)
        assert w.requires_grad and w.grad is not None and w.grad.tolist() == [7.0, 7.0]
        assert (slot.tolist(), x.tolist(), slalom.get_rng_state().tolist()) == ([5.0], [1.0, 1.0], draws)
        assert step.traces == 0 and (w * 2).requires_grad
    fail = False
    assert step(x).tolist() == [6.0] and w.grad is None and w.requires_grad


def test_exceptions_while_running_write_nothing() -> None:
    table, count = tensor([1.0, 2.0, 3.0]), tensor([0.0])

    @slalom.compile
    def look_up(i: Tensor) -> Tensor:
        count.add_(1)
        return table[i]

    assert look_up(tensor([2])).tolist() == [3.0]
    with pytest.raises(IndexError) as caught:
        look_up(tensor([7]))
    assert count.tolist() == [1.0]
    assert any("test_staging.py" in note for note in caught.value.__notes__)  # the user's line


# --- arguments and results ----------------------------------------------------------------------------------------
def test_the_same_tensor_twice() -> None:
    @slalom.compile
    def f(a: Tensor, b: Tensor) -> Tensor:
        a.add_(1)
        return a + 10 * b

    x, y = tensor([1.0]), tensor([5.0])
    assert f(x, y).tolist() == [52.0] and (x.tolist(), y.tolist()) == ([2.0], [5.0])
    assert f(x, x).tolist() == [33.0] and x.tolist() == [3.0]
    assert f(x, y).tolist() == [54.0]
    assert f(x, x.detach()).tolist() == [55.0] and x.tolist() == [5.0]  # two handles on one buffer
    assert f.traces == 3


def test_one_leaf_given_twice_has_one_gradient() -> None:
    @slalom.compile
    def f(a: Tensor, b: Tensor) -> None:
        (a * b).sum().backward()

    x, y = leaf(3.0), leaf(5.0)
    f(x, x)
    assert x.grad is not None and x.grad.tolist() == [6.0]
    f(y, x)
    assert y.grad is not None and y.grad.tolist() == [3.0] and x.grad.tolist() == [11.0]


@pytest.mark.parametrize("order", ["alias first", "alias last"])
def test_an_argument_that_is_also_state(order: str) -> None:
    w = tensor([1.0])

    @slalom.compile
    def f(x: Tensor) -> Tensor:
        w.add_(1)
        return x * 10 + w

    other = tensor([7.0])
    for x in (w, other, w, other) if order == "alias first" else (other, w, other, w):
        expected = (w.item() + 1) * 11 if x is w else 70 + w.item() + 1
        assert f(x).tolist() == [expected]
    assert w.tolist() == [5.0] and other.tolist() == [7.0] and f.traces == 2


def test_an_argument_that_is_also_a_parameter_has_one_gradient() -> None:
    w = leaf(3.0)

    @slalom.compile
    def f(x: Tensor) -> None:
        (x * w).sum().backward()

    f(w)
    assert w.grad is not None and w.grad.tolist() == [6.0]
    f(w)
    assert w.grad.tolist() == [12.0]
    other = leaf(5.0)
    f(other)
    assert other.grad is not None and other.grad.tolist() == [3.0] and w.grad.tolist() == [17.0]


def test_in_place_on_an_argument() -> None:
    @slalom.compile
    def f(x: Tensor) -> Tensor:
        x += 1
        y = x.detach()
        y *= 2
        return x

    x = tensor([1.0, 2.0])
    array = x.numpy()
    out = f(x)
    assert x.tolist() == out.tolist() == [4.0, 6.0] and array is x.numpy() and array.tolist() == [4.0, 6.0]
    data = np.array([1.0, 2.0], np.float32)
    f(data)
    assert data.tolist() == [4.0, 6.0]


def test_a_step_by_hand_on_an_argument() -> None:
    @slalom.compile
    def step(w: Tensor) -> Tensor:
        loss = (w * w).sum()
        loss.backward()
        assert w.grad is not None
        with slalom.no_grad():
            w -= 0.25 * w.grad
        w.grad = None
        return loss

    w = leaf(4.0)
    assert [step(w).item() for _ in range(3)] == [16.0, 4.0, 1.0]
    assert w.tolist() == [0.5] and w.grad is None and w.requires_grad and step.traces == 1


def test_results_are_values_of_their_own() -> None:
    w, x = leaf(1.0, 2.0), tensor([3.0, 4.0])

    @slalom.compile
    def f(x: Tensor) -> Any:
        y = x + w
        return {
            "state": w,
            "argument": x,
            "constant": tensor([5.0, 6.0]),
            "view of an argument": x.reshape(2, 1),
            "view of a state": w.reshape(2, 1),
            "value": y,
            "the same value": y,
            "its view": y.reshape(2, 1),
            "its alias": y.detach(),
            "clone of an argument": x.clone(),
            "detached state": w.detach(),
        }

    first, second = f(x), f(x)
    for results in (first, second):
        for name, t in results.items():
            assert isinstance(t, Tensor) and not t.requires_grad and t.is_leaf, name
    arrays = [t.numpy() for t in (*first.values(), *second.values(), x, w.detach())]
    for i, a in enumerate(arrays):
        for b in arrays[:i]:
            assert not np.shares_memory(a, b)
    for t in first.values():
        t.fill_(-1.0)
    assert second["value"].tolist() == [4.0, 6.0] and (w.tolist(), x.tolist()) == ([1.0, 2.0], [3.0, 4.0])
    assert f(x)["constant"].tolist() == [5.0, 6.0]


def test_earlier_results_are_not_overwritten_by_later_calls() -> None:
    """Footgun of tinygrad's: output_buffer_reuse."""
    f = slalom.compile(lambda x: x.sum())
    results = [f(tensor([float(i)] * 2)) for i in range(4)]
    assert [r.item() for r in results] == [0.0, 2.0, 4.0, 6.0]


def test_results_can_be_fed_back() -> None:
    """Footgun of tinygrad's: graph_input_output_aliasing."""
    step = slalom.compile(lambda x: (x + 1) * 2)
    for start in (10.0, 20.0, 100.0):
        x = tensor([start])
        for _ in range(3):
            x = step(x)
        assert x.item() == 8 * start + 14


class Pair(NamedTuple):
    first: Any
    second: Any


def test_trees_of_arguments_and_results() -> None:
    @slalom.compile
    def f(pair: Pair, named: dict[str, Any], *rest: Any, flag: bool = False) -> Any:
        return Pair(pair.first + named["a"][0], [rest[0], ("text", 3, None)]), {"flag": flag}

    one = tensor([1.0])
    for _ in range(2):
        out, more = f(Pair(one, None), {"a": [one, one]}, one * 5, flag=True)
        assert isinstance(out, Pair) and out.first.tolist() == [2.0]
        assert out.second[0].tolist() == [5.0] and out.second[1] == ("text", 3, None) and more == {"flag": True}
    assert f.traces == 1


def test_numpy_arguments_are_tensors_inside_and_never_constants() -> None:
    f = slalom.compile(lambda x: x * 2)
    frozen = np.array([1.0, 2.0])
    frozen.flags.writeable = False
    assert f(frozen).tolist() == [2.0, 4.0]
    assert f(np.array([5.0, 6.0])).tolist() == [10.0, 12.0]
    assert f.traces == 1 and f(frozen).dtype == np.float64


# --- functions ----------------------------------------------------------------------------------------------------
def test_nested_compiled_functions_become_one_graph() -> None:
    w = leaf(2.0)
    inner = slalom.compile(lambda x: x * w)
    outer = slalom.compile(lambda x: inner(inner(x)).sum().backward())
    outer(tensor([3.0]))
    outer(tensor([3.0]))
    assert w.grad is not None and w.grad.tolist() == [24.0]
    assert inner.traces == 0
    assert inner(tensor([1.0])).tolist() == [2.0]


class Scaled:
    def __init__(self, scale: float) -> None:
        self.scale = tensor([scale])

    @slalom.compile
    def method(self, x: Tensor) -> Tensor:
        return x * self.scale

    @slalom.compile
    def power(self, x: Tensor, n: int) -> Tensor:
        return x if n == 0 else x * self.power(x, n - 1)


def test_methods_are_recorded_for_each_instance() -> None:
    """Footgun of tinygrad's: class_method_shared_across_instances."""
    a, b = Scaled(2.0), Scaled(3.0)
    for _ in range(2):
        assert a.method(tensor([5.0])).tolist() == [10.0]
        assert b.method(tensor([5.0])).tolist() == [15.0]
    assert Scaled.method.traces == 2
    bound = slalom.compile(a.method)
    assert bound(tensor([1.0])).tolist() == [2.0]


def test_recursion() -> None:
    assert Scaled(1.0).power(tensor([3.0]), 4).tolist() == [3.0 * 81.0]


def test_partials_lambdas_and_callables() -> None:
    def scaled(w: Tensor, x: Tensor) -> Tensor:
        return w * x

    f = slalom.compile(functools.partial(scaled, tensor([2.0])))
    model = nn.Linear(1, 1)
    g = slalom.compile(model)
    assert f(tensor([3.0])).tolist() == [6.0]
    assert g(tensor([[3.0]])).tolist() == model(tensor([[3.0]])).tolist()
    assert slalom.compile(f) is f


def test_python_runs_while_recording_only() -> None:
    runs: list[int] = []

    @slalom.compile
    def f(x: Tensor) -> Tensor:
        """A docstring."""
        runs.append(1)
        return x + 1

    for i in range(3):
        f(tensor([float(i)]))
    assert len(runs) == 1 and f.__name__ == "f" and f.__doc__ == "A docstring."


def test_slices_over_time_are_recorded() -> None:
    w = leaf(0.5)

    def recurrent(x: Tensor) -> Tensor:
        h = slalom.zeros(4)
        for x_t in x.unbind(0):
            h = (h * w + x_t).tanh()
        return h.sum()

    x = tensor(np.linspace(-1, 1, 24, dtype=np.float32).reshape(6, 4), requires_grad=True)
    recurrent(x).backward()
    assert x.grad is not None and w.grad is not None
    eager, w.grad, x.grad = (x.grad.tolist(), w.grad.tolist()), None, None
    slalom.compile(lambda x: recurrent(x).backward())(x)
    assert x.grad is not None and w.grad is not None
    assert (x.grad.tolist(), w.grad.tolist()) == eager


# --- threads ------------------------------------------------------------------------------------------------------
def test_two_threads_trace_at_once() -> None:
    barrier = threading.Barrier(2, timeout=30)
    found: dict[str, Any] = {}

    def work(name: str, factor: float) -> None:
        w = leaf(factor)

        @slalom.compile
        def step(x: Tensor) -> Tensor:
            y = x * w
            barrier.wait()  # both are in the middle of their traces
            assert slalom.core.trace.current() is not None
            y.sum().backward()
            barrier.wait()
            return y

        out = step(tensor([10.0]))
        assert w.grad is not None
        found[name] = (out.tolist(), w.grad.tolist(), len(places(step, "state")), step(tensor([1.0])).tolist())

    threads = [threading.Thread(target=work, args=(name, f)) for name, f in (("a", 2.0), ("b", 3.0))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {"a": ([20.0], [10.0], 1, [2.0]), "b": ([30.0], [10.0], 1, [3.0])}


def test_a_thread_computes_while_another_traces() -> None:
    seen: list[Any] = []

    @slalom.compile
    def f(x: Tensor) -> Tensor:
        thread = threading.Thread(target=lambda: seen.append((tensor([2.0]) * 3).tolist()))
        thread.start()
        thread.join(30)
        return x + 1

    assert f(tensor([1.0])).tolist() == [2.0] and seen == [[6.0]]


def test_threads_share_one_compiled_function() -> None:
    f = slalom.compile(lambda x: (x * 2).sum())
    wrong: list[float] = []

    def work(value: float) -> None:
        x = tensor([value] * 100)
        wrong.extend(r for _ in range(50) if (r := f(x).item()) != 200 * value)

    threads = [threading.Thread(target=work, args=(float(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong and f.traces == 1


# --- memory -------------------------------------------------------------------------------------------------------
def test_with_gc_disabled_1000_eager_steps_leave_memory_flat() -> None:
    task = make_task()
    for _ in range(20):
        task.step(task.x, task.y)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        before, peak = tracemalloc.get_traced_memory()[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(1000):
            task.step(task.x, task.y)
        risen = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
        cycles = gc.collect()  # finds nothing, but empties Python's own store of small tuples for reuse
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        gc.enable()
    assert cycles == 0
    assert grown < 20_000  # bytes; one step's tape alone has more
    assert risen < 20_000  # KiB


def test_neither_tracing_nor_replaying_leaves_cycles() -> None:
    task = make_task()
    gc.collect()
    gc.disable()
    try:
        step = slalom.compile(task.step)
        step(task.x, task.y)
        slalom.grad(slalom.grad(lambda x: x**3))(2.0)
        assert gc.collect() == 0
        for _ in range(20):
            step(task.x, task.y)
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_records_of_tensors_that_are_gone_are_dropped() -> None:
    class Holder:
        w: Tensor

    holder = Holder()
    step = slalom.compile(lambda x: x * holder.w)
    for i in range(5):
        holder.w = tensor([float(i)])
        assert step(tensor([1.0])).tolist() == [float(i)]
    assert sum(len(entries) for entries in step._entries.values()) == 1


def test_the_graph_prints_itself() -> None:
    task = make_task(dropout=0.0)
    step = slalom.compile(task.step)
    step(task.x, task.y)
    text = str(step.graph)
    assert text == repr(step.graph) and isinstance(step.graph, Graph)
    for line in ("%0: f32[32,3]  # argument argument 0", "# state 0.weight", "write 0.weight = %", "# number lr"):
        assert line in text
    assert "matmul(" in text and "# test_staging.py:" in text

"""slalom.compile records what the eager program would do, and replays just that: each trap of the design is a test."""

from __future__ import annotations

import functools
import gc
import resource
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from staging_task import Task, leaf, make_task, ops, places

import slalom
from slalom import Tensor, nn, tensor
from slalom.core.graph import Graph
from slalom.core.trace import steering
from slalom.errors import GradError


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
    predict = slalom.compile(task.model.__call__)
    noisy = predict(task.x)
    task.model.eval()
    assert predict(task.x).tolist() == predict(task.x).tolist() == task.model(task.x).tolist()
    assert predict.traces == 2 and "random_bits" not in ops(predict)
    task.model.train()
    assert predict(task.x).tolist() != noisy.tolist()
    assert predict.traces == 2


def test_values_of_state_are_never_baked_in() -> None:
    """What eager code may look at (are there classes to ignore? negative indices?) differs from call to call."""
    target, places = tensor([0, 1, 1]), tensor([0, 1])
    f = slalom.compile(lambda x: (nn.functional.cross_entropy(x, target), x[places]))
    x = tensor([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]])
    f(x)
    target[0], places[0] = -100, -1
    loss, rows = f(x)
    assert loss.item() == nn.functional.cross_entropy(x, target).item() and rows.tolist() == x[places].tolist()
    assert f.traces == 1


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


def test_writes_behind_a_history_leave_it() -> None:
    """As in eager mode: under no_grad, or through detach(), the value changes and what it was made from does not."""

    def f(w: Tensor, x: Tensor) -> Tensor:
        y = x * w
        with slalom.no_grad():
            y += 100
        y.detach()[0] = 7.0
        (y * y).sum().backward()
        assert w.grad is not None
        return w.grad

    x, eager, state = tensor([1.0, 2.0]), leaf(2.0, 3.0), leaf(2.0, 3.0)
    expected = f(eager, x).tolist()
    assert expected == [2 * 7.0 * 1, 2 * 106.0 * 2]
    assert slalom.compile(lambda x: f(state, x))(x).tolist() == expected


def test_several_steps_in_one_record() -> None:
    def steps(task: Task, x: Tensor, y: Tensor) -> list[Tensor]:
        return [task.step(x, y) for _ in range(3)]

    eager, staged = make_task(), make_task()
    three = slalom.compile(lambda x, y: steps(staged, x, y))
    for task in (eager, staged):
        slalom.manual_seed(1)
        call = three if task is staged else functools.partial(steps, eager)
        for _ in range(3):
            losses = [loss.item() for loss in call(task.x, task.y)]
        assert losses[0] > losses[2]
    for p, q in zip(*parameters(eager, staged), strict=True):
        assert p.detach().numpy().tobytes() == q.detach().numpy().tobytes()
    assert three.traces == 1


def test_values_saved_for_backward_are_those_of_their_time() -> None:
    """What eager mode must refuse, since the value is gone, a record still has."""
    w, buffer = leaf(2.0), tensor([3.0])

    def step(x: Tensor) -> Tensor:
        hidden = x * w
        loss = (hidden * hidden * buffer).sum()
        with slalom.no_grad():
            hidden += 100
            buffer.zero_()
            w.sub_(1)
        loss.backward()
        return loss

    with pytest.raises(GradError, match="overwritten"):
        step(tensor([5.0]))
    with slalom.no_grad():
        w.fill_(2.0)
        buffer.fill_(3.0)
    slalom.compile(step)(tensor([5.0]))
    assert w.grad is not None and w.grad.tolist() == [2 * 25.0 * 2.0 * 3.0]
    assert (w.tolist(), buffer.tolist()) == ([1.0], [0.0])


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
    assert "matmul(" in text and "# staging_task.py:" in text

"""What goes into a recorded function and comes out of it: arguments, results, methods, nesting, threads."""

from __future__ import annotations

import functools
import threading
from typing import Any, NamedTuple

import numpy as np
import pytest
from staging_task import leaf, places

import slalom
from slalom import Tensor, nn, tensor


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


def test_an_argument_that_an_optimizer_moves() -> None:
    w, v = leaf(1.0), leaf(1.0)
    optimizer, twin = (slalom.optim.SGD([p], lr=0.1, momentum=0.9) for p in (w, v))

    def step(p: Tensor, optimizer: Any) -> Tensor:
        loss = (p * p).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    staged = slalom.compile(step)
    for _ in range(4):
        assert staged(w, optimizer).item() == step(v, twin).item()
    assert w.tolist() == v.tolist() and w.grad is None and staged.traces == 1


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
    g = slalom.compile(model.__call__)
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

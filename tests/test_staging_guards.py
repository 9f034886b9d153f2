"""What a recorded graph depends on: a change of it records anew, nothing else does; after 8 a warning says why."""

from __future__ import annotations

import collections
import functools
import types
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import slalom
from slalom import Tensor, nn, tensor
from slalom.compiler.stage import Compiled


def leaf(*values: float) -> Tensor:
    return tensor(list(values), requires_grad=True)


class Recorded:
    """A compiled function beside the plain one: both are called, agree, and tell how often was recorded."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.plain, self.staged = function, slalom.compile(function)

    def __call__(self, *args: Any, **kwargs: Any) -> int:
        expected = self.plain(*args, **kwargs)
        found = self.staged(*args, **kwargs)
        assert found.dtype == expected.dtype
        assert str(found.tolist()) == str(expected.tolist())  # NaN equals itself, 0.0 is not −0.0
        return self.staged.traces


# --- arguments ----------------------------------------------------------------------------------------------------
ARGUMENTS: dict[str, tuple[Callable[..., Any], list[tuple[tuple[Any, ...], int]]]] = {
    # calls, each with the number of recordings after it
    "shapes": (
        lambda x: x.sum(),
        [((slalom.zeros(3),), 1), ((slalom.ones(3),), 1), ((slalom.ones(4),), 2), ((slalom.ones(3),), 2)],
    ),
    "ranks": (lambda x: x * 1, [((slalom.zeros(3),), 1), ((slalom.zeros(3, 1),), 2), ((slalom.zeros(3),), 2)]),
    "dtypes": (lambda x: x + x, [((tensor([1]),), 1), ((tensor([1.0]),), 2), ((tensor([2]),), 2)]),
    "numbers": (lambda x, n: x * n, [((tensor([1]), n), i) for n, i in ((2, 1), (3, 2), (2, 2), (2.0, 3), (True, 4))]),
    "zeros": (lambda x, z: x * z, [((tensor([1.0]), z), i) for z, i in ((0.0, 1), (-0.0, 2), (0.0, 2))]),
    "NaN": (lambda x, z: x * z, [((tensor([1.0]), float("nan")), 1), ((tensor([1.0]), float("nan")), 1)]),
    "NumPy numbers": (
        lambda x, n: x * n,
        [((tensor([1]), n), i) for n, i in ((np.int64(1), 1), (np.float64(1), 2), (np.int64(1), 2), (np.int64(2), 3))],
    ),
    "strings and None": (
        lambda x, how: x.sum() if how == "sum" else x.max() if how is None else x.mean(),
        [((tensor([1.0, 2.0]), how), i) for how, i in (("sum", 1), ("mean", 2), (None, 3), ("sum", 3))],
    ),
    "branches": (
        lambda x, square: x * x if square else x * 2,
        [((tensor([3.0]), b), i) for b, i in ((1, 1), (0, 2), (1, 2))],
    ),
    "trees": (
        lambda xs: functools.reduce(Tensor.add, xs.values() if isinstance(xs, dict) else xs),
        [
            (([tensor([1.0])] * 2,), 1),
            (([tensor([1.0])] * 3,), 2),
            (((tensor([1.0]), tensor([2.0])),), 3),
            (({"a": tensor([1.0])},), 4),
            (({"b": tensor([1.0])},), 5),
            (([tensor([5.0])] * 2,), 5),
        ],
    ),
    "slices": (lambda x, s: x[s], [((slalom.arange(5), slice(0, n)), i) for n, i in ((2, 1), (3, 2), (2, 2))]),
    "sets": (
        lambda x, axes: x.sum(tuple(sorted(axes))),
        [((slalom.ones(2, 3), axes), i) for axes, i in (({0}, 1), ({0, 1}, 2), ({0}, 2))],
    ),
    "dtype arguments": (
        lambda x, dtype: x.to(dtype),
        [((tensor([1.5]), d), i) for d, i in ((slalom.int64, 1), (slalom.float64, 2), (slalom.int64, 2))],
    ),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_signature(name: str) -> None:
    function, calls = ARGUMENTS[name]
    f = Recorded(function)
    for args, recordings in calls:
        assert f(*args) == recordings


def test_keyword_arguments() -> None:
    f = Recorded(lambda x, scale=2.0: x * scale)
    x = tensor([1.0])
    assert [f(x), f(x, scale=2.0), f(x, scale=3.0), f(x, scale=2.0)] == [1, 2, 3, 3]
    g = Recorded(lambda a, b: a - b)
    y = tensor([5.0])
    assert [g(x, y), g(x, b=y), g(a=x, b=y), g(b=y, a=x), g(x, y)] == [1, 2, 3, 4, 4]


@dataclass(frozen=True)
class Frozen:
    rate: float


@dataclass
class Mutable:
    rate: float


def test_objects_among_the_arguments() -> None:
    f, x = Recorded(lambda x, config: x * config.rate), tensor([1.0])
    assert [f(x, Frozen(2.0)), f(x, Frozen(2.0)), f(x, Frozen(3.0))] == [1, 1, 2]  # by value
    one, other = Mutable(2.0), Mutable(2.0)
    assert [f(x, one), f(x, one), f(x, other), f(x, one)] == [3, 3, 4, 4]  # by identity
    one.rate = 5.0
    assert [f(x, one), f(x, other)] == [5, 5]
    assert f(x, types.SimpleNamespace(rate=1.0)) == 6
    assert [f(x, config=one), f(x, config=one)] == [7, 7]
    one.rate = 9.0
    assert f(x, config=one) == 8


def test_objects_that_are_defaults() -> None:
    config, other = Mutable(2.0), Mutable(3.0)

    def scaled(x: Tensor, config: Mutable = config, *, other: Mutable = other) -> Tensor:
        return x * config.rate + other.rate

    f, x = Recorded(scaled), tensor([1.0])
    assert [f(x), f(x)] == [1, 1]
    config.rate = 5.0
    assert [f(x), f(x)] == [2, 2]
    other.rate = 6.0
    assert [f(x), f(x)] == [3, 3]


def test_requires_grad_of_an_argument_and_whether_it_has_a_gradient() -> None:
    @slalom.compile
    def f(x: Tensor) -> Tensor:
        return x * (2.0 if x.requires_grad else 3.0)

    x = tensor([1.0])
    assert f(x).tolist() == [3.0]
    assert f(x.requires_grad_()).tolist() == [2.0]
    x.grad = tensor([1.0])
    f(x)
    assert f.traces == 3
    f(leaf(1.0))
    assert f.traces == 3


def test_modes() -> None:
    w = leaf(2.0)
    f = slalom.compile(lambda x: x * (2.0 if (x * w).requires_grad else 3.0))
    assert f(tensor([1.0])).tolist() == [2.0]
    with slalom.no_grad():
        assert f(tensor([1.0])).tolist() == [3.0]
    assert f(tensor([1.0])).tolist() == [2.0] and f.traces == 2
    g = Recorded(lambda x: x * tensor([1.5]))
    assert g(tensor([1])) == 1
    slalom.set_default_dtype("float64")
    assert g(tensor([1])) == 2


# --- state --------------------------------------------------------------------------------------------------------
def test_requires_grad_of_state() -> None:
    w = leaf(2.0)
    f = slalom.compile(lambda x: (x * w, x * (2.0 if (x * w).requires_grad else 3.0))[1])
    assert f(tensor([1.0])).tolist() == [2.0]
    w.requires_grad = False
    assert f(tensor([1.0])).tolist() == [3.0]
    w.requires_grad = True
    assert f(tensor([1.0])).tolist() == [2.0] and f.traces == 2


def test_state_of_which_only_a_fact_was_read() -> None:
    """Met once as state (its .grad was None), then passed as the argument."""
    w = leaf(2.0)

    @slalom.compile
    def f(x: Tensor) -> None:
        (x * x).sum().backward()
        if w.grad is not None:
            with slalom.no_grad():
                w.grad.mul_(0.5)

    f(leaf(1.0))
    f(w)
    assert w.grad is not None and w.grad.tolist() == [2.0] and f.traces == 2


def test_a_frozen_parameter_is_set_inside_and_back() -> None:
    """As in a step of two adversaries: one network's parameters are frozen for a while."""
    a, b = leaf(2.0), leaf(3.0)

    @slalom.compile
    def step(x: Tensor) -> None:
        a.requires_grad_(False)
        (x * a * b).sum().backward()
        a.requires_grad_(True)

    for _ in range(2):
        step(tensor([5.0]))
    assert b.grad is not None and b.grad.tolist() == [20.0] and a.grad is None and a.requires_grad
    assert step.traces == 2  # b.grad was None at first


def test_a_replaced_buffer() -> None:
    w = leaf(1.0, 2.0)
    f = Recorded(lambda: (w * 2).sum() + 0)
    assert [f(), f()] == [1, 1]
    w.data = tensor([1.0, 2.0, 3.0])
    assert f() == 2
    w.data = tensor([5.0, 2.0, 3.0])  # the same shape: the same buffer
    assert f() == 2


def test_a_rebound_closure() -> None:
    w = tensor([2.0])

    def f(x: Tensor) -> Tensor:
        return x * w

    staged = Recorded(f)
    assert staged(tensor([1.0])) == 1
    old, w = w, tensor([5.0])  # the old one lives on
    assert [staged(tensor([1.0])), staged(tensor([1.0]))] == [2, 2]
    w = old
    assert staged(tensor([1.0])) == 2


GLOBAL = tensor([2.0])
RATE = 2.0
TABLE = {"rate": 2.0, "other": 1.0}


def helper(x: Tensor) -> Tensor:
    return x * RATE


@pytest.mark.parametrize(
    ("name", "function", "value"),
    [
        ("GLOBAL", lambda x: x * GLOBAL, tensor([5.0])),
        ("RATE", lambda x: x * RATE, 5.0),
        ("RATE", lambda x: helper(x) + 0, 5.0),
        ("RATE", lambda x: next(helper(x) for _ in range(2)), 5.0),
        ("helper", lambda x: helper(x) + 0, lambda x: x + 100),
        ("TABLE", lambda x: x * TABLE["rate"], {"rate": 7.0}),
    ],
    ids=["tensor", "number", "in a function that is called", "in a comprehension", "the function", "the table"],
)
def test_a_rebound_global(name: str, function: Any, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    f, x = Recorded(function), tensor([1.0])
    old = globals()[name]
    assert [f(x), f(x)] == [1, 1]
    monkeypatch.setitem(globals(), name, value)
    assert [f(x), f(x)] == [2, 2]
    monkeypatch.setitem(globals(), name, old)
    assert f(x) == 2


def test_python_constants_are_not_frozen() -> None:
    """Footguns of tinygrad's: python_constants_frozen, conditional_branches_frozen."""
    factor, square, how = 1, False, "sum"

    def f(x: Tensor) -> Tensor:
        y = x * x if square else x * factor
        return y.sum() if how == "sum" else y.max()

    staged, x = Recorded(f), tensor([10.0, 2.0])
    assert staged(x) == 1
    factor = 3
    assert staged(x) == 2
    square = True
    assert staged(x) == 3
    how = "max"
    assert staged(x) == 4
    factor = 1
    assert staged(x) == 5  # though it does not matter now
    square, how = False, "sum"
    assert staged(x) == 5


class Net:
    factor = 2.0

    def __init__(self) -> None:
        self.w = tensor([1.0])
        self.rate = 2.0
        self.config = types.SimpleNamespace(depth=2)
        self.options = {"bias": 1.0, "unused": 0.0}
        self.layers = [tensor([2.0]), tensor([3.0])]
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[: self.config.depth]:
            x = x * layer
        options = self.options
        return self.scaled(x * self.w + options["bias"])

    def scaled(self, x: Tensor) -> Tensor:
        return x * self.rate

    def __call__(self, x: Tensor) -> Tensor:
        return self.forward(x)


CHANGES: dict[str, Callable[[Net], Any]] = {
    "a tensor attribute": lambda net: setattr(net, "w", tensor([5.0])),
    "a number in a method that is called": lambda net: setattr(net, "rate", 7.0),
    "an attribute of an attribute": lambda net: setattr(net.config, "depth", 1),
    "that attribute": lambda net: setattr(net, "config", types.SimpleNamespace(depth=1)),
    "a key of a dict, through a local name": lambda net: net.options.update(bias=-1.0),
    "a tensor in a list": lambda net: net.layers.__setitem__(0, tensor([9.0])),
    "the length of a list": lambda net: net.layers.pop(),
    "the method": lambda net: setattr(net, "scaled", lambda x: x - 1),
}


@pytest.mark.parametrize("how", ["method", "object", "closure", "argument", "partial"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_read_from_objects(change: str, how: str) -> None:
    net, x = Net(), tensor([1.0])
    f = {
        "method": Recorded(net.forward),
        "object": Recorded(net),
        "closure": Recorded(net),
        "argument": Recorded(lambda x, net=None: net(x) if net else x),
        "partial": Recorded(functools.partial(lambda net, x: net(x), net)),
    }[how]
    call = functools.partial(f, x, net) if how == "argument" else functools.partial(f, x)
    if how == "argument":
        f = Recorded(lambda net, x: net(x))
        call = functools.partial(f, net, x)
    assert [call(), call()] == [1, 1]
    CHANGES[change](net)
    assert [call(), call()] == [2, 2]


def test_what_is_not_read_does_not_matter() -> None:
    net = Net()
    f, x = Recorded(net), tensor([1.0])
    f(x)
    net.count += 1
    net.options["unused"] = 5.0
    net.new = tensor([1.0])  # type: ignore[attr-defined]
    assert f(x) == 1


def test_counters_that_a_method_name_resembles_do_not_matter() -> None:
    class Trainer:
        step = 0

        def __init__(self) -> None:
            self.step = 0
            self.optimizer = slalom.optim.SGD([leaf(1.0)], lr=0.0)

        def train(self, x: Tensor) -> Tensor:
            self.optimizer.step()
            return x * 2

    trainer = Trainer()
    f = Recorded(trainer.train)
    for _ in range(3):
        trainer.step += 1
        assert f(tensor([1.0])) == 1


def test_modules() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(1, 1, bias=False)
            self.scale = 2.0

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x).relu() * self.scale

    model = nn.Sequential(Block(), nn.Dropout(0.5))
    model.eval()
    f, x = Recorded(model.__call__), tensor([[1.0]])
    assert [f(x), f(x)] == [1, 1]
    model[0].fc.weight = nn.Parameter([[3.0]])
    assert f(x) == 2
    model[0].fc = nn.Linear(1, 1)
    assert f(x) == 3
    model[1] = nn.Identity()
    assert f(x) == 4
    model[0].scale = 5.0
    assert f(x) == 5
    assert f(x) == 5


def test_state_that_nobody_holds_any_more_is_stale() -> None:
    holders = collections.deque([tensor([2.0])])  # found by computation: no name leads to it
    f = Recorded(lambda x: x * holders[0])
    assert f(tensor([1.0])) == 1
    old = weakref.ref(holders[0])
    holders[0] = tensor([3.0])
    assert old() is None  # a record does not keep its state alive
    assert f(tensor([1.0])) == 2


def test_optimizer_state_that_was_replaced() -> None:
    w = leaf(1.0)
    optimizer = slalom.optim.SGD([w], lr=1.0, momentum=0.5)

    @slalom.compile
    def step() -> None:
        (w * 1).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    saved = optimizer.state_dict()
    step()
    assert w.tolist() == [1 - 1 - 1.5] and step.traces == 1
    optimizer.load_state_dict(saved)
    step()
    assert w.tolist() == [-1.5 - 1.75] and step.traces == 2


# --- the warning --------------------------------------------------------------------------------------------------
def recording_warnings(calls: Iterator[Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in calls:
            pass
    assert all(w.category is RuntimeWarning and w.filename == __file__ for w in caught)
    return [str(w.message) for w in caught]


def test_after_8_retraces_a_warning_names_the_shape() -> None:
    @slalom.compile
    def grow(x: Tensor) -> Tensor:
        return x.sum()

    assert recording_warnings(grow(slalom.zeros(n)) for n in range(8)) == []
    (text,) = recording_warnings(grow(slalom.zeros(n)) for n in range(8, 20))
    assert "grow was recorded 9 times" in text and "argument 0 (f32[7], then f32[8])" in text


def test_after_8_retraces_a_warning_names_the_guard() -> None:
    net = Net()
    f = slalom.compile(net.forward)

    def calls() -> Iterator[Any]:
        for i in range(12):
            net.rate = float(i)
            yield f(tensor([1.0]))

    (text,) = recording_warnings(calls())
    assert "what self.rate refers to" in text and "Pass numbers that change as tensors" in text
    assert f.traces == 12


@pytest.mark.parametrize(
    ("calls", "what"),
    [
        (lambda f: (f(tensor([1.0]), i) for i in range(9)), "the Python values or the structure of the arguments"),
        (lambda f: (f(tensor([1.0]), i, k=1) for i in range(9)), "the Python values or the structure of the arguments"),
    ],
)
def test_a_warning_names_python_values(calls: Callable[[Compiled], Iterator[Any]], what: str) -> None:
    (text,) = recording_warnings(calls(slalom.compile(lambda x, n, k=0: x * n + k)))
    assert what in text

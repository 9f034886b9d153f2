"""``optimizer.step()`` of an ordinary loop as machine code: eager mode's bits, and eager mode where it cannot be."""

from __future__ import annotations

import copy
import pickle
import random
from typing import Any

import numpy as np
import pytest

import slalom
from slalom import Tensor, optim, tensor
from slalom.compiler import llvm
from slalom.compiler.stage import Compiled
from tests.table_optimizers import IDS, SAMPLES, Row

native_only = pytest.mark.skipif(not llvm.available(), reason="needs llvmlite")


def leaf(*values: float) -> Tensor:
    return tensor(list(values), requires_grad=True)


SHAPES = ((3, 4), (4,), ())
MATRICES = ((3, 4), (4, 1), (2, 2))


def walked(
    name: str, options: dict[str, Any], eager: bool, steps: int = 6, shapes: Any = SHAPES
) -> tuple[Any, list[Tensor]]:
    """An optimizer after some steps over three parameters, the last of them without a gradient at times."""
    rng = np.random.default_rng(2)
    params = [tensor(rng.normal(size=s).astype(np.float32), requires_grad=True) for s in shapes]
    optimizer = getattr(optim, name)(params, **options)
    if eager:
        optimizer._compiled = False
    for t in range(steps):
        for p in params:
            p.grad = None if p is params[-1] and t == 3 else tensor(np.cos(p.detach().numpy() + np.float32(t)))
        if t == 4:
            optimizer.param_groups[0]["lr"] *= 0.3
        optimizer.step()
    return optimizer, params


@native_only
@pytest.mark.parametrize(("row", "options"), SAMPLES, ids=IDS)
def test_steps_are_those_of_eager_mode(row: Row, options: dict[str, Any]) -> None:
    shapes = MATRICES if row.problems == ("matrices",) else SHAPES
    _, expected = walked(row.name, options, eager=True, shapes=shapes)
    optimizer, found = walked(row.name, options, eager=False, shapes=shapes)
    assert isinstance(optimizer._compiled, Compiled) and 1 <= optimizer._compiled.traces <= 4
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours.detach().numpy(), theirs.detach().numpy())


@native_only
def test_the_first_steps_wait_for_no_compiler() -> None:
    optimizer, _ = walked("Adam", {}, eager=False, steps=2)
    assert optimizer._compiled is None
    optimizer.step()
    assert optimizer._compiled.traces == 1


def test_without_native_code_steps_stay_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLALOM_EXECUTOR", "numpy")
    optimizer, found = walked("Adam", {}, eager=False)
    _, expected = walked("Adam", {}, eager=True)
    assert optimizer._compiled is False
    assert [p.tolist() for p in found] == [p.tolist() for p in expected]


class Rule(optim.Optimizer):
    """p ← p − rate·g."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})

    @staticmethod
    def update(param: Tensor, grad: Tensor, slots: Any, hyper: Any) -> Any:
        return param - rate * grad, {}


class Branching(Rule):
    @staticmethod
    def update(param: Tensor, grad: Tensor, slots: Any, hyper: Any) -> Any:
        return (param - grad if grad.sum() > 0 else param), {}


class Stepping(Rule):
    def step(self, closure: Any = None) -> None:
        with slalom.no_grad():
            for p in self.param_groups[0]["params"]:
                p.sub_(p.grad * random.choice([1.0]))


rate = 1.0


@native_only
def test_a_rule_of_ones_own_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    p = leaf(10.0)
    optimizer = Rule([p])
    p.grad = tensor([1.0])
    for _ in range(4):
        optimizer.step()
    monkeypatch.setitem(globals(), "rate", 3.0)
    optimizer.step()
    assert p.tolist() == [3.0] and optimizer._compiled.traces == 2


@native_only
def test_a_rule_that_cannot_be_recorded_stays_eager() -> None:
    p = leaf(10.0)
    optimizer = Branching([p])
    for grad in (1.0, 1.0, 1.0, -1.0, 1.0):
        p.grad = tensor([grad])
        optimizer.step()
    assert p.tolist() == [6.0] and optimizer._compiled is False
    stepping = Stepping([p])
    for _ in range(4):
        stepping.step()
    assert p.tolist() == [2.0] and stepping._compiled is None


@native_only
def test_what_changes_all_the_time_is_not_recorded_for_ever() -> None:
    params = [leaf(float(n)) for n in range(12)]
    optimizer = optim.SGD(params, lr=1.0)
    for n in range(12):
        for i, p in enumerate(params):
            p.grad = tensor([1.0]) if i == n else None
        optimizer.step()
    assert [p.item() for p in params] == [n - 1.0 for n in range(12)]
    assert optimizer._compiled.traces == 8


@native_only
def test_a_step_whose_closure_computes_the_loss() -> None:
    w = leaf(1.0)
    optimizer = optim.SGD([w], lr=0.25)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (w * w).sum()
        loss.backward()
        return loss

    assert [optimizer.step(closure).item() for _ in range(4)] == [1.0, 0.25, 0.0625, 0.015625]
    assert optimizer._compiled.traces == 1


@native_only
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_copied_and_a_resumed_optimizer_go_on_in_the_same_way(copied: Any) -> None:
    optimizer, params = walked("Adam", {"lr": 0.01}, eager=False)
    twin, twins = copied((optimizer, params))
    assert twin._compiled is None
    resumed = optim.Adam([tensor(p.detach().numpy(), requires_grad=True) for p in params])
    resumed.load_state_dict(optimizer.state_dict())
    for one in (optimizer, twin, resumed):
        for p in one.param_groups[0]["params"]:
            p.grad = p.detach() * 0.5
        one.step()
        assert one._compiled.traces >= 1, "a loaded state is not new"
    for ours, theirs in zip(twins, params, strict=True):
        assert ours.tolist() == theirs.tolist()
    for ours, theirs in zip(resumed.param_groups[0]["params"], params, strict=True):
        assert ours.tolist() == theirs.tolist()

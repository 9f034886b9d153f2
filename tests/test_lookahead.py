"""Lookahead: by hand, with several rules inside, compiled, and saved."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import slalom
from slalom import Tensor, optim
from slalom.errors import ConfigError
from slalom.optim import Lookahead, Optimizer
from slalom.optim.optimizer import Hyper, Slots
from tests.optimizer_walks import INNER, LOOKS, lookahead_loss, lookahead_start, lookahead_walk


def inner_of(rule: str, params: list[Tensor]) -> Optimizer:
    return getattr(optim, rule)(params, **INNER[rule])


@pytest.mark.parametrize("rule", INNER)
@pytest.mark.parametrize(("k", "alpha"), LOOKS)
def test_it_is_the_inner_rule_with_a_look_back(rule: str, k: int, alpha: float) -> None:
    walks = (lookahead_walk(rule, k, alpha, 11, lib=lib) for lib in (None, slalom))
    for t, (ours, by_hand) in enumerate(zip(*walks, strict=True)):
        for p, q in zip(ours, by_hand, strict=True):
            np.testing.assert_allclose(p, q, rtol=1e-12, err_msg=f"step {t + 1}")


@pytest.mark.parametrize("rule", INNER)
def test_compiled_and_resumed_it_goes_the_same_way(rule: str) -> None:
    def compiled(optimizer: Optimizer, params: list[Tensor]) -> Callable[[], Tensor]:
        @slalom.compile
        def step() -> Tensor:
            optimizer.zero_grad()
            loss = lookahead_loss(params)
            loss.backward()
            optimizer.step()
            return loss

        return step

    params = lookahead_start(slalom)
    optimizer = Lookahead(inner_of(rule, params), k=3)
    step = compiled(optimizer, params)
    for _ in range(7):
        step()
    again = [slalom.tensor(p.detach().numpy().copy(), requires_grad=True) for p in params]
    other = Lookahead(inner_of(rule, again), k=3)
    other.load_state_dict(optimizer.state_dict())
    assert other.inner.state is other.state
    resumed = compiled(other, again)
    for _ in range(5):
        assert step().item() == resumed().item()
    for p, q in zip(params, again, strict=True):
        np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy())
    assert step.traces == 1


def test_what_is_refused() -> None:
    start = lookahead_start(slalom)
    inner = inner_of("SGD", start)
    for arguments, words in (
        ((inner, 0), "k: got 0; needed an integer of at least 1"),
        ((inner, 5, 1.5), "alpha: got 1.5"),
        (("Adam",), "optimizer: got str"),
        ((Lookahead(inner_of("SGD", start)),), "optimizer: got Lookahead; needed one .*, not wrapped yet"),
        ((optim.LBFGS(start),), "optimizer: got LBFGS; needed one with an update rule, not wrapped"),
    ):
        with pytest.raises(ConfigError, match=words):
            Lookahead(*arguments)


def test_its_text_names_what_it_wraps() -> None:
    # Checkpoints compare it: a fit must not go on with another k, or around another optimizer.
    text = repr(Lookahead(optim.SGD([slalom.tensor([1.0], requires_grad=True)], lr=0.5), k=3, alpha=0.25))
    assert text.startswith("Lookahead of SGD (")
    assert all(words in text for words in ("lr=0.5", "lookahead_alpha=0.25", "lookahead_k=3"))


def moved(optimizer: Optimizer, w: Tensor, steps: int) -> float:
    for _ in range(steps):
        w.grad = slalom.ones(1)
        optimizer.step()
    return w.item()


def test_its_numbers_steer_and_are_saved() -> None:
    w = slalom.tensor([1.0], requires_grad=True)
    optimizer = Lookahead(optim.SGD([w], lr=0.25), k=3, alpha=0.5)
    assert moved(optimizer, w, 5) == 1 - 0.5 * 0.75 - 0.5  # natively from the third on
    optimizer.param_groups[0].update(lookahead_alpha=0.0)
    assert moved(optimizer, w, 1) == 1 - 0.5 * 0.75  # back at the slow weights
    other = Lookahead(optim.SGD([slalom.tensor([1.0], requires_grad=True)], lr=1.0))
    other.load_state_dict(optimizer.state_dict())
    assert [other.param_groups[0][name] for name in ("lr", "lookahead_k", "lookahead_alpha")] == [0.25, 3, 0.0]
    wrong = optimizer.state_dict()
    wrong["param_groups"][0]["lookahead_k"] = 0
    with pytest.raises(ConfigError, match="lookahead_k: got 0"):
        other.load_state_dict(wrong)


def test_groups_may_come_later_and_schedules_take_either() -> None:
    w, v = (slalom.tensor([1.0], requires_grad=True) for _ in range(2))
    inner = optim.SGD([w], lr=0.5)
    scheduler = optim.lr_scheduler.StepLR(inner, 1, gamma=0.5)
    optimizer = Lookahead(inner, k=2)
    moved(optimizer, w, 1)
    scheduler.step()
    optimizer.add_param_group({"params": [v], "lr": 1.0})
    v.grad = slalom.ones(1)
    assert moved(optimizer, w, 1) == 1 + 0.5 * (0.25 - 1)
    assert v.item() == 0.0


def test_slow_weights_stay_where_fast_ones_are_lost() -> None:
    # Selected, not multiplied by 0: 0·∞ would be NaN.
    w = slalom.tensor([1.0], requires_grad=True)
    optimizer = Lookahead(optim.SGD([w], lr=1.0), k=10)
    w.grad = slalom.tensor([float("inf")])
    optimizer.step()
    assert (w.item(), optimizer.state[w]["slow"].item()) == (float("-inf"), 1.0)


FACTORS = {"gradient": 1.0}


class Scaled(Optimizer):
    """A rule that reads a number by name."""

    @staticmethod
    def update(param: Tensor, grad: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        return param - hyper["lr"] * FACTORS["gradient"] * grad, {}


def test_what_the_inner_rule_reads_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    w = slalom.tensor([2.0], requires_grad=True)
    optimizer = Lookahead(Scaled([w], {"lr": 0.25}), k=100)
    assert moved(optimizer, w, 4) == 1.0
    monkeypatch.setitem(FACTORS, "gradient", 2.0)
    assert moved(optimizer, w, 1) == 0.5

"""L-BFGS beside PyTorch's, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import slalom
from slalom import nn, optim
from slalom.errors import ConfigError, ModelFileError, StagingError
from tests.optimizer_walks import LBFGS_START, lbfgs_loss, lbfgs_walk


def closure_of(optimizer: Any, function: Any) -> Any:
    def closure() -> Any:
        optimizer.zero_grad()
        loss = function().sum()
        loss.backward()
        return loss

    return closure


@pytest.mark.parametrize("line_search", [None, "strong_wolfe"])
def test_it_goes_on_from_the_state_of_pytorch(line_search: str | None) -> None:
    torch = pytest.importorskip("torch")
    theirs = [torch.tensor(array, requires_grad=True) for array in LBFGS_START["quartic"]]
    other = torch.optim.LBFGS(theirs, max_iter=5, line_search_fn=line_search)
    closure = closure_of(other, lambda: lbfgs_loss("quartic", theirs))
    for _ in range(2):
        other.step(closure)
    ours = [slalom.tensor(p.detach().numpy(), requires_grad=True) for p in theirs]
    optimizer = optim.LBFGS(ours)
    optimizer.load_state_dict(other.state_dict())
    optimizer.step(closure_of(optimizer, lambda: lbfgs_loss("quartic", ours)))
    other.step(closure)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-9, atol=1e-12)
    mine, also = (o.state_dict()["state"][0] for o in (optimizer, other))
    assert mine.keys() == also.keys() - {"al"}  # the last weights of its two loops, which nothing reads
    assert {name: mine[name] for name in ("n_iter", "func_evals")} == {n: also[n] for n in ("n_iter", "func_evals")}


def test_a_state_of_other_parameters_is_refused() -> None:
    w, v = slalom.ones(3, requires_grad=True), slalom.ones(2, requires_grad=True)
    optimizer, other = optim.LBFGS([w]), optim.LBFGS([v])
    optimizer.step(closure_of(optimizer, lambda: w**4))
    with pytest.raises(ModelFileError, match=r"LBFGS: saved .*: got shape \(3,\); needed shape \(2,\)"):
        other.load_state_dict(optimizer.state_dict())


def test_the_line_search_stays_where_the_loss_is_finite() -> None:
    # w − log w from 3 with a first step far below 0, where there is no logarithm.
    w = slalom.tensor([3.0], dtype=slalom.float64, requires_grad=True)
    optimizer = optim.LBFGS([w], lr=1e3, line_search_fn="strong_wolfe")
    optimizer.step(closure_of(optimizer, lambda: w - w.log()))
    assert w.item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("slope", [1.0, -3.0])
def test_a_loss_without_end_raises_nothing(slope: float) -> None:
    w = slalom.tensor([1.0], dtype=slalom.float64, requires_grad=True)
    optimizer = optim.LBFGS([w], line_search_fn="strong_wolfe")
    optimizer.step(closure_of(optimizer, lambda: slope * w))  # the cubic through two of its points is a line
    assert slope * w.item() < -1e6


def test_a_loss_that_is_not_a_number_moves_nothing() -> None:
    w = slalom.tensor([1.0], requires_grad=True)
    for line_search in (None, "strong_wolfe"):
        optimizer = optim.LBFGS([w], line_search_fn=line_search)
        optimizer.step(closure_of(optimizer, lambda: w * float("nan")))
        assert w.item() == 1.0


def test_it_finds_the_minimum() -> None:
    found = lbfgs_walk(slalom, "rosenbrock", {"line_search_fn": "strong_wolfe"}, steps=4)
    np.testing.assert_allclose(found[-1][1][0], [1, 1], atol=1e-6)


def test_a_network_is_fitted_and_a_resumed_run_goes_on() -> None:
    rng = np.random.default_rng(0)
    x = slalom.tensor(rng.normal(size=(40, 3)))
    y = x.sin().sum(1, keepdim=True)
    slalom.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()

    def run(model: nn.Module, optimizer: optim.LBFGS, steps: int) -> float:
        @slalom.compile
        def evaluate() -> slalom.Tensor:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            return loss

        return [float(optimizer.step(evaluate)) for _ in range(steps)][-1]

    optimizer = optim.LBFGS(model.parameters(), max_iter=10, line_search_fn="strong_wolfe")
    assert run(model, optimizer, 8) < 1e-2
    again = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    again.load_state_dict(model.state_dict())
    other = optim.LBFGS(again.parameters(), max_iter=1)
    other.load_state_dict(optimizer.state_dict())
    assert run(again, other, 3) == run(model, optimizer, 3)
    for p, q in zip(model.parameters(), again.parameters(), strict=True):
        np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy())


def test_what_is_refused() -> None:
    w = slalom.ones(2, requires_grad=True)
    for options, words in (
        ({"lr": -1}, "lr: got -1"),
        ({"max_iter": 0}, "max_iter: got 0"),
        ({"history_size": 0}, "history_size: got 0"),
        ({"line_search_fn": "armijo"}, "line_search_fn: got armijo; needed 'strong_wolfe' or None"),
    ):
        with pytest.raises(ConfigError, match=words):
            optim.LBFGS([w], **options)
    with pytest.raises(ConfigError, match="got more than one group; needed one"):
        optim.LBFGS([{"params": [w]}, {"params": [slalom.ones(1, requires_grad=True)]}])
    with pytest.raises(ConfigError, match="closure: got none; needed a function"):
        optim.LBFGS([w]).step()
    with pytest.raises(ConfigError, match="what the closure returns: got None; needed the loss"):
        optim.LBFGS([w]).step(lambda: None)
    with pytest.raises(StagingError, match=r"LBFGS.step\(\) while staging, at .*test_lbfgs"):
        slalom.compile(lambda: optim.LBFGS([w]).step(w.sum))()


def test_trainer_says_that_it_has_no_closure() -> None:
    model = nn.Linear(2, 1)
    with pytest.raises(ConfigError, match=r"Trainer: optimizer: got LBFGS; .*step\(closure\)"):
        slalom.Trainer(model, nn.MSELoss(), optim.LBFGS(model.parameters()))

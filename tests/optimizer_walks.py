"""Walks of the optimizers that are no rules (L-BFGS, Lookahead) and of SWALR; ``lib`` is Slalom or PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import slalom
from slalom.train import swa_utils

Arrays = list[np.ndarray]
Options = dict[str, Any]

# --- L-BFGS -------------------------------------------------------------------------------------------------------
LBFGS_START = {
    "rosenbrock": [np.array([-1.2, 1.0])],
    "quartic": [np.array([3.0, -2.0]), np.array([[1.0, 0.5, -4.0]])],
}
LBFGS_OPTIONS: tuple[Options, ...] = (
    {},
    {"lr": 0.1},
    {"line_search_fn": "strong_wolfe"},
    {"line_search_fn": "strong_wolfe", "history_size": 2, "max_iter": 5},
    {"line_search_fn": "strong_wolfe", "lr": 0.01, "max_iter": 10},
    {"line_search_fn": "strong_wolfe", "max_eval": 7, "tolerance_change": 1e-5, "tolerance_grad": 1e-3},
    *({"line_search_fn": "strong_wolfe", "lr": lr, "max_iter": 1} for lr in (1e-9, 1e-4, 30.0)),
    *({"line_search_fn": "strong_wolfe", "lr": 1e-4, "max_iter": 1, "max_eval": n} for n in (2, 3, 4, 100)),
    {"max_eval": 3},
)


def lbfgs_cases() -> Iterator[tuple[str, Options, int]]:
    """Problem, options, and how many steps can be compared."""
    for problem in LBFGS_START:
        for options in LBFGS_OPTIONS:
            if "line_search_fn" not in options and problem == "rosenbrock":
                options = options | {"max_iter": 3}  # unguarded steps leap about, and rounding with them
            # Where it goes on by tiny steps, rounding decides when it ends.
            yield problem, options, 1 if "line_search_fn" in options and "lr" in options else 6


def lbfgs_loss(problem: str, params: list[Any]) -> Any:
    if problem == "rosenbrock":
        x, y = params[0][0], params[0][1]
        return (1 - x) ** 2 + 20 * (y - x * x) ** 2
    return sum(((p - 1) ** 4).sum() + (p * p).sum() for p in params)


def lbfgs_walk(lib: Any, problem: str, options: Options, steps: int = 6) -> list[tuple[float, Arrays, int]]:
    """The loss that each step returns, the parameters after it, and how often the loss was asked for by then."""
    params = [lib.tensor(array, requires_grad=True) for array in LBFGS_START[problem]]
    optimizer, found, calls = lib.optim.LBFGS(params, **options), [], 0

    def closure() -> Any:
        nonlocal calls
        calls += 1
        optimizer.zero_grad()
        loss = lbfgs_loss(problem, params)
        loss.backward()
        return loss

    for _ in range(steps):
        loss = optimizer.step(closure)
        found.append((float(loss.detach()), [p.detach().numpy().copy() for p in params], calls))
    return found


# --- Lookahead ----------------------------------------------------------------------------------------------------
INNER: dict[str, Options] = {"SGD": {"lr": 0.1, "momentum": 0.5}, "AdamW": {"lr": 0.05}, "Adafactor": {"lr": 0.05}}
LOOKS = ((1, 0.5), (3, 0.8), (5, 0.0), (2, 1.0))


def lookahead_start(lib: Any) -> list[Any]:
    rng = np.random.default_rng(0)
    return [lib.tensor(rng.normal(size=shape), requires_grad=True) for shape in ((3, 4), (4,))]


def lookahead_loss(params: list[Any]) -> Any:
    return sum(((p - 1) ** 2 + p.sin()).sum() for p in params)


def lookahead_walk(rule: str, k: int, alpha: float, steps: int, *, lib: Any = None) -> Iterator[Arrays]:
    """The parameters after each step of Lookahead; with ``lib``, of its inner rule, with the look back by hand."""
    params = lookahead_start(lib or slalom)
    optimizer = getattr((lib or slalom).optim, rule)(params, **INNER[rule])
    if lib is None:
        optimizer = slalom.optim.Lookahead(optimizer, k, alpha)
    slow = [p.detach().numpy().copy() for p in params]
    for t in range(1, steps + 1):
        optimizer.zero_grad()
        lookahead_loss(params).backward()
        optimizer.step()
        if lib is not None and t % k == 0:
            with lib.no_grad():
                for p, s in zip(params, slow, strict=True):
                    s += alpha * (p.detach().numpy() - s)
                    p.copy_(lib.tensor(s))
        yield [p.detach().numpy().copy() for p in params]


# --- SWALR --------------------------------------------------------------------------------------------------------
SWALR_OPTIONS: tuple[Options, ...] = (
    {"swa_lr": 0.05},
    {"swa_lr": [0.05, 0.5], "anneal_strategy": "linear", "anneal_epochs": 4},
    {"swa_lr": 0.2, "anneal_epochs": 0},
)


def swalr_rates(lib: Any, options: Options, epochs: int = 100) -> list[list[float]]:
    """The rates of two groups, of which SWALR takes over after five epochs."""
    params = [lib.tensor([1.0], requires_grad=True) for _ in range(2)]
    optimizer = lib.optim.SGD([{"params": [params[0]]}, {"params": [params[1]], "lr": 1.0}], lr=0.1)
    other = lib.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    utils = swa_utils if lib is slalom else lib.optim.swa_utils
    scheduler = utils.SWALR(optimizer, **options)
    found = []
    for epoch in range(epochs):
        optimizer.step()
        (other if epoch < 5 else scheduler).step()
        found.append([group["lr"] for group in optimizer.param_groups])
    return found

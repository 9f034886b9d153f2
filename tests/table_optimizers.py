"""THE table of optimizers: one row each. What is tested of every row stands in test_optimizers.py.

Problems are given by their gradients as functions of NumPy arrays, and ``lib`` is PyTorch or Slalom, so that both walk
through the very same lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Arrays = list[np.ndarray]
STEPS, SEEN = 120, (1, 3, 60, 120)
"""How long problems are worked on, and after how many steps the parameters are compared."""


@dataclass(frozen=True)
class Row:
    """``name``: in ``slalom.optim`` and ``torch.optim``. ``wrong``: options, and words of the error they must give."""

    name: str
    samples: tuple[dict[str, Any], ...]
    wrong: tuple[tuple[dict[str, Any], str], ...]
    slots: dict[str, tuple[str, ...]] = field(default_factory=dict)


RATES = (({"lr": -0.1}, "lr: got -0.1"), ({"lr": "high"}, "lr: got high"), ({"lr": float("nan")}, "lr: got nan"))
DECAY = (({"lr": 0.1, "weight_decay": -1}, "weight_decay: got -1"), ({"lr": 0.1, "maximize": 1}, "maximize: got 1"))
ADAM_WRONG = (
    *RATES,
    *DECAY,
    ({"betas": (0.9, 1.0)}, "betas: got (0.9, 1.0)"),
    ({"betas": (0.9,)}, "betas: got (0.9,)"),
    ({"betas": 0.9}, "betas: got 0.9"),
    ({"eps": -1e-8}, "eps: got -1e-08"),
    ({"amsgrad": "no"}, "amsgrad: got no"),
)

TABLE = (
    Row(
        "SGD",
        samples=(
            {"lr": 0.05},
            {"lr": 0.05, "weight_decay": 0.1},
            {"lr": 0.05, "momentum": 0.9},
            {"lr": 0.05, "momentum": 0.9, "dampening": 0.3},
            {"lr": 0.05, "momentum": 0.9, "nesterov": True},
            {"lr": 0.02, "momentum": 0.5, "weight_decay": 0.01, "nesterov": True},
            {"lr": 0.001, "momentum": 0.5, "maximize": True},
        ),
        wrong=(
            *RATES,
            *DECAY,
            ({"lr": 0.1, "momentum": -0.9}, "momentum: got -0.9"),
            ({"lr": 0.1, "nesterov": True}, "nesterov: got momentum 0.0"),
            ({"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "nesterov": True}, "nesterov: got momentum 0.9, dampening"),
        ),
    ),
    Row(
        "Adam",
        samples=(
            {"lr": 0.02},
            {"lr": 0.02, "weight_decay": 0.1},
            {"lr": 0.02, "betas": (0.5, 0.99)},
            {"lr": 0.02, "betas": (0.0, 0.9), "eps": 1e-3},
            {"lr": 0.02, "amsgrad": True},
            {"lr": 0.02, "amsgrad": True, "weight_decay": 0.01, "betas": (0.9, 0.8)},
            {"lr": 0.001, "maximize": True},
        ),
        wrong=ADAM_WRONG,
    ),
    Row(
        "AdamW",
        samples=(
            {"lr": 0.02},
            {"lr": 0.02, "weight_decay": 0.0},
            {"lr": 0.02, "weight_decay": 0.5},
            {"lr": 0.02, "betas": (0.9, 0.99), "eps": 1e-3},
            {"lr": 0.02, "amsgrad": True, "weight_decay": 0.1},
            {"lr": 0.001, "maximize": True, "betas": (0.9, 0.95)},
        ),
        wrong=ADAM_WRONG,
    ),
)
SAMPLES = [(row, sample) for row in TABLE for sample in row.samples]
IDS = [f"{row.name}({', '.join(f'{k}={v}' for k, v in sample.items())})" for row, sample in SAMPLES]


# --- problems -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Problem:
    """``start``: the parameters. ``gradient(params, t)``: theirs at step t, None where there is none.

    ``groups``: for each group the positions of its parameters and its own options. At step ``change`` the rate of the
    last group is multiplied by 0.3. ``tolerance``: relative, of a comparison with other arithmetic.
    """

    start: Callable[[], Arrays]
    gradient: Callable[[Arrays, int], list[np.ndarray | None]]
    groups: tuple[tuple[tuple[int, ...], dict[str, Any]], ...] = (((0,), {}),)
    change: int | None = None
    tolerance: float = 1e-10


def _rosenbrock(params: Arrays, t: int) -> list[np.ndarray | None]:
    x, y = params[0]
    return [np.array([-2 * (1 - x) - 40 * x * (y - x * x), 20 * (y - x * x)]) / 20]


def _net_start() -> Arrays:
    rng = np.random.default_rng(3)
    return [rng.normal(size=shape).astype(np.float32) * 0.5 for shape in ((6, 4), (4,), (4, 1), (1,))]


def _net_gradient(params: Arrays, t: int) -> list[np.ndarray | None]:
    """A small network on mini-batches; its last bias is frozen at first, and then at every fifth step."""
    rng = np.random.default_rng(t % 7)
    x = rng.normal(size=(16, 6)).astype(np.float32)
    y = np.sin(x[:, :1] + x[:, 1:2])
    w1, b1, w2, b2 = params
    hidden = np.tanh(x @ w1 + b1)
    error = (hidden @ w2 + b2 - y) / np.float32(len(x))
    back = (error @ w2.T) * (1 - hidden**2)
    frozen = t < 3 or t % 5 == 0
    return [x.T @ back, back.sum(0), hidden.T @ error, None if frozen else error.sum(0)]


def _shapes_start() -> Arrays:
    rng = np.random.default_rng(5)
    shapes = ((), (1,), (0, 3), (7,), (1, 5))
    return [*(rng.normal(size=shape).astype(np.float32) for shape in shapes), rng.normal(size=(3, 5)).T]


def _shapes_gradient(params: Arrays, t: int) -> list[np.ndarray | None]:
    return [np.asarray(w * np.float32(0.5) + np.cos(np.float32(t) + w), w.dtype) for w in params]


PROBLEMS = {
    "bowl": Problem(
        lambda: [np.array([1.0, -1.0, 2.0, 0.5, -0.1])],
        lambda params, t: [params[0] * 10.0 ** np.arange(-3, 2)],
        change=50,
    ),
    "rosenbrock": Problem(lambda: [np.array([-1.2, 1.0])], _rosenbrock),
    "network": Problem(
        _net_start,
        _net_gradient,
        groups=(((1, 3), {}), ((0, 2), {"lr": 0.01, "weight_decay": 0.02})),
        change=40,
        tolerance=2e-4,
    ),
    "shapes": Problem(
        _shapes_start, _shapes_gradient, groups=(((0, 1, 2), {}), ((3, 4, 5), {"lr": 0.1})), change=20, tolerance=1e-4
    ),
}


def walk(lib: Any, name: str, options: dict[str, Any], problem: Problem, steps: int = STEPS) -> Iterator[tuple]:
    """(t, parameters, optimizer) after each step t = 1, 2, … of an optimizer of ``lib`` on a problem."""
    params = [lib.tensor(array, requires_grad=True) for array in problem.start()]
    groups = [{"params": [params[i] for i in members], **own} for members, own in problem.groups]
    optimizer = getattr(lib.optim, name)(groups, **options)
    for t in range(steps):
        step(lib, optimizer, params, problem, t)
        yield t + 1, [p.detach().numpy() for p in params], optimizer


def step(lib: Any, optimizer: Any, params: list[Any], problem: Problem, t: int) -> None:
    if t == problem.change:
        optimizer.param_groups[-1]["lr"] *= 0.3
    optimizer.zero_grad()
    for p, grad in zip(params, problem.gradient([p.detach().numpy() for p in params], t), strict=True):
        p.grad = None if grad is None else lib.from_numpy(grad)
    optimizer.step()


def trajectory(lib: Any, name: str, options: dict[str, Any], problem: Problem) -> list[list[float]]:
    """All parameters in one list, after each number of steps in SEEN."""
    return [
        [float(x) for p in params for x in p.flat] for t, params, _ in walk(lib, name, options, problem) if t in SEEN
    ]


def close(found: list[list[float]], expected: list[list[float]], tolerance: float) -> None:
    """Raise where two trajectories differ by more than a tolerance, relative to the largest number."""
    for t, ours, theirs in zip(SEEN, found, expected, strict=True):
        scale = 1 + np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * scale, err_msg=f"after {t} steps")

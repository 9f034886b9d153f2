"""THE table of optimizers: one row each. What is tested of every row stands in test_optimizers.py.

Problems are given by their gradients as functions of NumPy arrays, and ``lib`` is PyTorch or Slalom, so that both walk
through the very same lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray
Arrays = list[Array]
State = dict[str, Array]
Reference = Callable[[Array, Array, int, State, dict[str, Any]], Array]
"""(parameter, gradient, count of steps from 1, what is kept, options) → the parameter after the step."""
STEPS, SEEN = 100, (1, 3, 60, 100)
"""How long problems are worked on, and after how many steps the parameters are compared."""


@dataclass(frozen=True)
class Row:
    """``name``: in ``slalom.optim`` and ``torch.optim``. ``wrong``: options, and words of the error they must give."""

    name: str
    samples: tuple[dict[str, Any], ...]
    wrong: tuple[tuple[dict[str, Any], str], ...]
    reference: Reference | None = None
    """The paper's formulas in NumPy, where PyTorch does not walk the same way."""
    problems: tuple[str, ...] = ()
    """Those it is made for, where they are not those in EVERYWHERE."""
    tolerance: float = 0.0
    """Of a comparison in float64, where PyTorch's rounding alone makes more than 1e-10."""


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


# --- what PyTorch has not, as its papers say it --------------------------------------------------------------------
def _lion(w: Array, g: Array, t: int, state: State, o: dict[str, Any]) -> Array:
    (b1, b2), m = o.get("betas", (0.9, 0.99)), state.get("m", 0 * w)
    direction = np.sign(b1 * m + (1 - b1) * g)
    state["m"] = b2 * m + (1 - b2) * g
    return w - o["lr"] * (direction + o.get("weight_decay", 0.0) * w)


def _adabelief(w: Array, g: Array, t: int, state: State, o: dict[str, Any]) -> Array:
    (b1, b2), eps, decay = o.get("betas", (0.9, 0.999)), o.get("eps", 1e-16), o.get("weight_decay", 0.0)
    if o.get("decoupled_weight_decay", True):
        w = w * (1 - o["lr"] * decay)
    else:
        g = g + decay * w
    state["m"] = b1 * state.get("m", 0 * w) + (1 - b1) * g
    state["s"] = b2 * state.get("s", 0 * w) + (1 - b2) * (g - state["m"]) ** 2 + eps
    return w - o["lr"] * state["m"] / (1 - b1**t) / (np.sqrt(state["s"] / (1 - b2**t)) + eps)


def _lamb(w: Array, g: Array, t: int, state: State, o: dict[str, Any]) -> Array:
    (b1, b2), eps = o.get("betas", (0.9, 0.999)), o.get("eps", 1e-6)
    state["m"] = b1 * state.get("m", 0 * w) + (1 - b1) * g
    state["v"] = b2 * state.get("v", 0 * w) + (1 - b2) * g * g
    r = state["m"] / (1 - b1**t) / (np.sqrt(state["v"] / (1 - b2**t)) + eps) + o.get("weight_decay", 0.0) * w
    lengths = np.linalg.norm(w.ravel()), np.linalg.norm(r.ravel())
    return w - o["lr"] * (lengths[0] / lengths[1] if min(lengths) > 0 else 1.0) * r


def _muon(w: Array, g: Array, t: int, state: State, o: dict[str, Any]) -> Array:
    mu, (a, b, c) = o.get("momentum", 0.95), o.get("ns_coefficients", (3.4445, -4.775, 2.0315))
    state["b"] = mu * state.get("b", 0 * w) + (1 - mu) * g
    u = (1 - mu) * g + mu * state["b"] if o.get("nesterov", True) else state["b"]
    x = u / max(np.linalg.norm(u), o.get("eps", 1e-7))
    for _ in range(o.get("ns_steps", 5)):
        x = a * x + b * x @ x.T @ x + c * x @ x.T @ x @ x.T @ x
    rows, columns = w.shape
    matched = o.get("adjust_lr_fn") == "match_rms_adamw"
    scale = 0.2 * np.sqrt(max(rows, columns)) if matched else np.sqrt(max(1, rows / columns))
    return w - o["lr"] * (o.get("weight_decay", 0.1) * w + scale * x)


# --- the table ----------------------------------------------------------------------------------------------------
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
    Row(
        "Adagrad",
        samples=(
            {"lr": 0.1},
            {"lr": 0.1, "lr_decay": 0.05},
            {"lr": 0.1, "weight_decay": 0.1},
            {"lr": 0.1, "initial_accumulator_value": 0.5},
            {"lr": 0.1, "eps": 1e-3, "initial_accumulator_value": 0.1, "lr_decay": 0.01},
            {"lr": 0.005, "maximize": True},
        ),
        wrong=(*RATES, *DECAY, ({"lr_decay": -1}, "lr_decay: got -1"), ({"eps": -1}, "eps: got -1")),
    ),
    Row(
        "Adadelta",
        samples=(
            {},
            {"lr": 0.5, "rho": 0.5},
            {"rho": 0.95, "eps": 1e-3},
            {"weight_decay": 0.1},
            {"lr": 3.0, "weight_decay": 0.01},
            {"lr": 0.1, "maximize": True},
        ),
        wrong=(*RATES, *DECAY, ({"rho": 1.5}, "rho: got 1.5"), ({"eps": -1}, "eps: got -1")),
    ),
    Row(
        "RMSprop",
        samples=(
            {"lr": 0.02},
            {"lr": 0.005, "alpha": 0.9, "weight_decay": 0.1},
            {"lr": 0.02, "centered": True, "eps": 1e-3},
            {"lr": 0.005, "momentum": 0.9},
            {"lr": 0.005, "momentum": 0.5, "centered": True, "eps": 1e-3, "weight_decay": 0.01},
            {"lr": 0.001, "maximize": True},
        ),
        wrong=(*RATES, *DECAY, ({"alpha": -0.1}, "alpha: got -0.1"), ({"momentum": -1}, "momentum: got -1")),
    ),
    Row(
        "Adamax",
        samples=(
            {"lr": 0.02},
            {"lr": 0.02, "weight_decay": 0.1},
            {"lr": 0.02, "betas": (0.5, 0.99)},
            {"lr": 0.02, "eps": 1e-2},
            {"lr": 0.02, "betas": (0.0, 0.99), "weight_decay": 0.01},
            {"lr": 0.001, "maximize": True},
        ),
        wrong=ADAM_WRONG[:-1],
    ),
    Row(
        "NAdam",
        samples=(
            {"lr": 0.02},
            {"lr": 0.02, "weight_decay": 0.1},
            {"lr": 0.02, "weight_decay": 0.1, "decoupled_weight_decay": True},
            {"lr": 0.02, "momentum_decay": 0.1, "betas": (0.8, 0.99)},
            {"lr": 0.02, "eps": 1e-3},
            {"lr": 0.001, "maximize": True},
        ),
        wrong=(*ADAM_WRONG[:-1], ({"momentum_decay": -1}, "momentum_decay: got -1")),
        tolerance=1e-7,  # PyTorch keeps the product of momenta in float32
    ),
    Row(
        "RAdam",
        samples=(
            {"lr": 0.02},
            {"lr": 0.02, "weight_decay": 0.1},
            {"lr": 0.02, "weight_decay": 0.1, "decoupled_weight_decay": True},
            {"lr": 0.02, "betas": (0.8, 0.9)},
            {"lr": 0.02, "eps": 1e-3},
            {"lr": 0.001, "maximize": True},
        ),
        wrong=(*ADAM_WRONG[:-1], ({"decoupled_weight_decay": 1}, "decoupled_weight_decay: got 1")),
    ),
    Row(
        "Rprop",
        samples=(
            {"lr": 0.02},
            {"lr": 0.1},
            {"lr": 0.02, "etas": (0.3, 1.5)},
            {"lr": 0.02, "step_sizes": (1e-3, 0.05)},
            {"lr": 0.001, "etas": (0.8, 1.1), "step_sizes": (1e-4, 1.0)},
            {"lr": 0.001, "step_sizes": (0.0, 0.002), "maximize": True},
        ),
        wrong=(
            *RATES,
            ({"etas": (1.2, 0.5)}, "etas: got (1.2, 0.5)"),
            ({"step_sizes": (2, 1)}, "step_sizes: got (2, 1)"),
        ),
    ),
    Row(
        "ASGD",
        samples=(
            {"lr": 0.05},
            {"lr": 0.05, "lambd": 0.05},
            {"lr": 0.05, "t0": 20},
            {"lr": 0.05, "alpha": 0.5, "lambd": 0.1, "t0": 0},
            {"lr": 0.05, "weight_decay": 0.1},
            {"lr": 0.001, "maximize": True},
        ),
        wrong=(*RATES, *DECAY, ({"lambd": -1}, "lambd: got -1"), ({"t0": -1}, "t0: got -1")),
        tolerance=1e-7,  # PyTorch keeps the rates in float32
    ),
    Row(
        "Adafactor",
        samples=(
            {"lr": 0.05},
            {"lr": 0.05, "weight_decay": 0.1},
            {"lr": 0.05, "beta2_decay": -0.5, "d": 2.0},
            {"lr": 0.05, "eps": (1e-4, 0.1)},
            {"lr": 0.2, "eps": (None, 1e-2), "d": 1.5},
            {"lr": 0.001, "maximize": True},
        ),
        wrong=(*RATES, *DECAY, ({"d": 0.5}, "d: got 0.5"), ({"beta2_decay": 0.5}, "beta2_decay: got 0.5")),
        problems=("rosenbrock", "network", "bowl"),  # PyTorch divides by the 0 elements of an empty one
        tolerance=1e-6,
    ),
    Row(
        "Lion",
        samples=(
            {"lr": 0.01},
            {"lr": 0.01, "weight_decay": 0.1},
            {"lr": 0.01, "betas": (0.5, 0.9)},
            {"lr": 0.001, "betas": (0.0, 0.5), "weight_decay": 1.0},
            {"lr": 0.003, "betas": (0.95, 0.98)},
            {"lr": 0.001, "maximize": True},
        ),
        wrong=ADAM_WRONG[:-2],
        reference=_lion,
    ),
    Row(
        "AdaBelief",
        samples=(
            {"lr": 0.02},
            {"lr": 0.02, "weight_decay": 0.1},
            {"lr": 0.02, "weight_decay": 0.1, "decoupled_weight_decay": False},
            {"lr": 0.02, "betas": (0.5, 0.9)},
            {"lr": 0.02, "eps": 1e-4},
            {"lr": 0.001, "maximize": True},
        ),
        wrong=(*ADAM_WRONG[:-1], ({"decoupled_weight_decay": 1}, "decoupled_weight_decay: got 1")),
        reference=_adabelief,
    ),
    Row(
        "LAMB",
        samples=(
            {"lr": 0.02},
            {"lr": 0.02, "weight_decay": 0.1},
            {"lr": 0.02, "betas": (0.5, 0.9)},
            {"lr": 0.02, "eps": 1e-2},
            {"lr": 0.05, "betas": (0.8, 0.99), "weight_decay": 0.01},
            {"lr": 0.001, "maximize": True},
        ),
        wrong=ADAM_WRONG[:-1],
        reference=_lamb,
    ),
    Row(
        "Muon",
        samples=(
            {"lr": 0.02},
            {"lr": 0.02, "weight_decay": 0.0},
            {"lr": 0.02, "momentum": 0.8, "nesterov": False},
            {"lr": 0.02, "adjust_lr_fn": "match_rms_adamw"},
            {"lr": 0.02, "ns_steps": 3, "ns_coefficients": (2.0, -1.5, 0.5), "eps": 1e-3},
            {"lr": 0.001, "maximize": True, "adjust_lr_fn": "original"},
        ),
        wrong=(*RATES, *DECAY, ({"ns_steps": 0}, "ns_steps: got 0"), ({"adjust_lr_fn": "x"}, "adjust_lr_fn: got x")),
        reference=_muon,
        problems=("matrices",),
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


def _matrices_start() -> Arrays:
    rng = np.random.default_rng(7)
    return [rng.normal(size=shape) for shape in ((3, 5), (6, 2), (1, 4))]


def _matrices_gradient(params: Arrays, t: int) -> list[np.ndarray | None]:
    return [w + 0.1 * np.sin(t + np.arange(w.size)).reshape(w.shape) for w in params]


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
    "matrices": Problem(_matrices_start, _matrices_gradient, groups=(((0, 1), {}), ((2,), {"lr": 0.01})), change=40),
    "shapes": Problem(
        _shapes_start, _shapes_gradient, groups=(((0, 1, 2), {}), ((3, 4, 5), {"lr": 0.1})), change=20, tolerance=1e-4
    ),
}


EVERYWHERE = ("bowl", "rosenbrock", "network", "shapes")
CASES = [(row, options, problem) for row, options in SAMPLES for problem in row.problems or EVERYWHERE]
CASE_IDS = [f"{IDS[SAMPLES.index((row, options))]} on {problem}" for row, options, problem in CASES]
TORCH_CASES = [case for case in CASES if case[0].reference is None]
TORCH_IDS = [name for name, case in zip(CASE_IDS, CASES, strict=True) if case[0].reference is None]


def walk(lib: Any, name: str, options: dict[str, Any], problem: Problem, steps: int = STEPS) -> Iterator[tuple]:
    """(t, parameters, optimizer) after each step t = 1, 2, … of an optimizer of ``lib`` on a problem."""
    params = [lib.tensor(array, requires_grad=True) for array in problem.start()]
    groups = [{"params": [params[i] for i in members], **own} for members, own in problem.groups]
    optimizer = getattr(lib.optim, name)(groups, **options)
    for t in range(steps):
        step(lib, optimizer, params, problem, t)
        yield t + 1, [p.detach().numpy() for p in params], optimizer


def paper_walk(row: Row, options: dict[str, Any], problem: Problem, steps: int) -> Iterator[Arrays]:
    """The parameters after each step as ``row.reference`` says it, all in float64 but for the parameters' own dtype."""
    params: Arrays = [p.copy() for p in problem.start()]
    states: list[State] = [{} for _ in params]
    counts = [0] * len(params)
    sign = -1.0 if options.get("maximize") else 1.0
    for t in range(steps):
        for i, grad in enumerate(problem.gradient(params, t)):
            if grad is None:
                continue
            own = next(own for members, own in problem.groups if i in members)
            o = options | own
            if problem.change is not None and t >= problem.change and i in problem.groups[-1][0]:
                o["lr"] *= 0.3
            counts[i] += 1
            params[i] = row.reference(params[i], sign * grad, counts[i], states[i], o).astype(params[i].dtype)
        yield list(params)


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

"""THE tables of schedules and schedulers: one row each. What is tested of every row stands in test_schedules.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

EPOCHS = 25


@dataclass(frozen=True)
class Row:
    """``formula(t, **numbers)``: the definition again, written apart from the code. ``wrong``: numbers and words."""

    name: str
    formula: Callable[..., float]
    samples: tuple[dict[str, Any], ...]
    wrong: tuple[tuple[dict[str, Any], str], ...]


def _linear(t: float, steps: float, start: float = 1, end: float = 0) -> float:
    return end if t >= steps else (1 - t / steps) * start + t / steps * end


def _cosine(t: float, steps: float, warmup: float = 0, start: float = 1, end: float = 0) -> float:
    if t < warmup:
        return start * t / warmup
    return end if t >= steps else end + (start - end) * math.cos(math.pi * (t - warmup) / (steps - warmup) / 2) ** 2


SCHEDULES = (
    Row(
        "linear",
        _linear,
        (
            {"steps": 10},
            {"steps": 10, "start": 0.1, "end": 0.01},
            {"steps": 1},
            {"steps": 7.5},
            {"steps": 3, "end": 2.0},
            {"steps": 4, "start": 0.0, "end": 1.0},
        ),
        (
            ({"steps": 0}, "linear: steps: got 0; needed a finite number above 0"),
            ({"steps": 3, "end": -1}, "end: got -1"),
            ({"steps": "3"}, "steps: got 3"),
            ({"steps": math.inf}, "steps: got inf"),
            ({"steps": True}, "steps: got True"),
        ),
    ),
    Row(
        "power",
        lambda t, steps, exponent=-0.5, start=1: start * math.exp(exponent * math.log1p(t / steps)),
        (
            {"steps": 10},
            {"steps": 10, "exponent": -0.5, "start": 0.1},
            {"steps": 1, "exponent": -1},
            {"steps": 2, "exponent": 0},
            {"steps": 3, "exponent": 1.5},
            {"steps": 1000, "exponent": -2, "start": 3.0},
        ),
        (({"steps": -0.5}, "steps: got -0.5"), ({"steps": 1, "exponent": math.nan}, "exponent: got nan")),
    ),
    Row(
        "exponential",
        lambda t, base, steps=1, start=1: (
            start * math.exp(t / steps * math.log(base)) if base else float(start * (t == 0))
        ),
        (
            {"base": 0.9},
            {"base": 0.5, "steps": 10, "start": 0.1},
            {"base": 1.0},
            {"base": 1.05, "steps": 2},
            {"base": 0.0},
            {"base": 0.97, "steps": 2.4, "start": 0.256},
        ),
        (({"base": -1}, "base: got -1"), ({"base": 0.9, "steps": 0}, "steps: got 0")),
    ),
    Row(
        "staircase",
        lambda t, every, base=0.1, start=1: start * math.prod([base] * int(t // every)),
        (
            {"every": 10},
            {"every": 3, "base": 0.5},
            {"every": 1, "base": 0.9, "start": 0.1},
            {"every": 30},
            {"every": 2.5},
            {"every": 5, "base": 2.0},
        ),
        (({"every": 0}, "every: got 0"), ({"every": 1, "base": -0.1}, "base: got -0.1")),
    ),
    Row(
        "cosine",
        _cosine,
        (
            {"steps": 10},
            {"steps": 20, "warmup": 5},
            {"steps": 20, "warmup": 5, "start": 0.1, "end": 0.001},
            {"steps": 1},
            {"steps": 12, "warmup": 0.5},
            {"steps": 11, "start": 3.0, "end": 3.0},
        ),
        (
            ({"steps": 5, "warmup": 5}, "cosine: warmup: got 5, with 5 steps"),
            ({"steps": 5, "warmup": -1}, "warmup: got -1"),
        ),
    ),
    Row(
        "inverse_sqrt",
        lambda t, warmup, scale=1: scale * (t / warmup**1.5 if t <= warmup else 1 / math.sqrt(t)),
        (
            {"warmup": 4},
            {"warmup": 1},
            {"warmup": 4000, "scale": 512**-0.5},
            {"warmup": 10, "scale": 0.0},
            {"warmup": 7.5},
            {"warmup": 100, "scale": 2},
        ),
        (({"warmup": 0}, "warmup: got 0"), ({"warmup": 4, "scale": -1}, "scale: got -1")),
    ),
)


@dataclass(frozen=True)
class Adapter:
    """``name``: in ``slalom.optim.lr_scheduler`` and in PyTorch's. ``options``: a factory, as functions are no data."""

    name: str
    samples: tuple[dict[str, Any], ...]
    wrong: tuple[tuple[dict[str, Any], str], ...]


SCHEDULERS = (
    Adapter(
        "ExponentialLR",
        ({"gamma": 0.9}, {"gamma": 0.5}, {"gamma": 1.0}, {"gamma": 0.999}, {"gamma": 1.05}, {"gamma": 0.1}),
        (({"gamma": -0.9}, "base: got -0.9"), ({"gamma": "slow"}, "base: got slow")),
    ),
    Adapter(
        "StepLR",
        (
            {"step_size": 5},
            {"step_size": 1},
            {"step_size": 10, "gamma": 0.5},
            {"step_size": 3, "gamma": 1.0},
            {"step_size": 100},
            {"step_size": 2, "gamma": 0.9},
        ),
        (({"step_size": 0}, "every: got 0"), ({"step_size": 2, "gamma": -1}, "base: got -1")),
    ),
    Adapter(
        "LinearLR",
        (
            {},
            {"total_iters": 10},
            {"start_factor": 0.1, "total_iters": 1},
            {"start_factor": 1.0, "end_factor": 0.0},
            {"start_factor": 0.5, "end_factor": 0.25, "total_iters": 8},
            {"total_iters": 100},
        ),
        (({"total_iters": 0}, "steps: got 0"), ({"start_factor": -1.0}, "start: got -1")),
    ),
    Adapter(
        "CosineAnnealingLR",
        (
            {"T_max": 10},
            {"T_max": 10, "eta_min": 0.01},
            {"T_max": 3},
            {"T_max": 25},
            {"T_max": 7, "eta_min": 0.001},
            {"T_max": 50},
        ),
        (({"T_max": 0}, "T_max: got 0"), ({"T_max": -3}, "T_max: got -3")),
    ),
    Adapter(
        "LambdaLR",
        (
            {"lr_lambda": lambda e: 0.9**e},
            {"lr_lambda": lambda e: 1 / (1 + e)},
            {"lr_lambda": lambda e: 1.0},
            {"lr_lambda": lambda e: float(e % 2)},
            {"lr_lambda": [lambda e: 0.5**e, lambda e: 1.0]},
            {"lr_lambda": lambda e: max(0.0, 1 - e / 10)},
        ),
        (({"lr_lambda": [lambda e: 1.0]}, "lr_lambda"), ({"lr_lambda": 0.9}, "lr_lambda: got 0.9")),
    ),
)


def rates(lib: Any, name: str, options: dict[str, Any]) -> list[list[float]]:
    """The rates of two groups at each epoch, in a loop as users write it."""
    params = [lib.tensor([0.0], requires_grad=True) for _ in range(2)]
    optimizer = lib.optim.SGD([{"params": params[:1]}, {"params": params[1:], "lr": 0.5}], lr=0.1)
    scheduler = getattr(lib.optim.lr_scheduler, name)(optimizer, **options)
    found = []
    for _ in range(EPOCHS):
        found.append([float(group["lr"]) for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return found

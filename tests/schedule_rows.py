"""What a row of table_schedules.py is, the formulas that need more than a line, and how a row is walked."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import slalom
from slalom.optim.schedules import Schedule

EPOCHS = 100
STORED = slice(None, None, 4)
"""The epochs of which the golden file holds the rates; PyTorch itself is asked for all."""


@dataclass(frozen=True)
class Row:
    """``formula(t, **numbers)``: the definition again, written apart from the code. ``wrong``: numbers and words."""

    name: str
    formula: Callable[..., float]
    samples: tuple[dict[str, Any], ...]
    wrong: tuple[tuple[dict[str, Any], str], ...]


def linear(t: float, steps: float, start: float = 1, end: float = 0) -> float:
    return end if t >= steps else (1 - t / steps) * start + t / steps * end


def cosine(t: float, steps: float, warmup: float = 0, start: float = 1, end: float = 0) -> float:
    if t < warmup:
        return start * t / warmup
    return end if t >= steps else end + (start - end) * math.cos(math.pi * (t - warmup) / (steps - warmup) / 2) ** 2


def flat_cosine(t: float, steps: float, flat: float, start: float = 1, end: float = 0) -> float:
    return start if t < flat else cosine(t - flat, steps - flat, 0, start, end)


def restarts(t: float, period: float, mult: float = 1, start: float = 1, end: float = 0) -> float:
    while t >= period:
        t, period = t - period, period * mult
    return cosine(t, period, 0, start, end)


def cyclic(
    t: float, up: float, down: float | None = None, low: float = 0, high: float = 1, mode: str = "triangular",
    gamma: float = 1,
) -> float:  # fmt: skip
    down = up if down is None else down
    height = high - low
    if mode == "exp_range":
        height *= gamma**t
    while t >= up + down:
        t -= up + down
        height *= 0.5 if mode == "triangular2" else 1
    return low + height * float(np.interp(t, (0, up, up + down), (0, 1, 0)))


def one_cycle(
    t: float, steps: float, peak: float = 1, pct_start: float = 0.3, anneal: str = "cos", div_factor: float = 25,
    final_div_factor: float = 1e4, three_phase: bool = False,
) -> float:  # fmt: skip
    top, first, last = pct_start * steps - 1, peak / div_factor, peak / div_factor / final_div_factor
    knots = [(0.0, first), (top, peak), *([(2 * top, first)] if three_phase else []), (steps - 1, last)]
    for (begin, low), (end, high) in itertools.pairwise(knots):
        if t <= end and end > begin:
            part = (t - begin) / (end - begin)
            return low + (high - low) * (part if anneal == "linear" else math.sin(math.pi / 2 * part) ** 2)
    return last


def sequence(t: float, schedules: tuple[Schedule, ...], milestones: tuple[float, ...]) -> float:
    number = sum(t >= m for m in milestones)
    return float(schedules[number](t - (milestones[number - 1] if number else 0)))


Options = dict[str, Any] | Callable[[Any, Any], dict[str, Any]]
LOSSES = [3 / (1 + e // 9) + 0.1 * math.sin(e) for e in range(EPOCHS + 50)]


def another_optimizer() -> Any:
    """An optimizer that no scheduler of the table has."""
    return slalom.optim.SGD([slalom.tensor([0.0], requires_grad=True)], lr=0.1)


@dataclass(frozen=True)
class Adapter:
    """``name``: in ``slalom.optim.lr_scheduler`` and in PyTorch's.

    ``samples``: options, or a function of (the module of schedulers, an optimizer) that makes them. ``momentum``: it
    moves the momentum too, of SGD and Adam by turns. ``metric``: its ``step`` is given ``LOSSES``. ``ours``: for a
    class that PyTorch does not have, the factor at each epoch.
    """

    name: str
    samples: tuple[Options, ...]
    wrong: tuple[tuple[Options, str], ...]
    momentum: bool = False
    metric: bool = False
    ours: Callable[..., float] | None = None

    def build(self, lib: Any, held: Any, options: Options, **more: Any) -> Any:
        """The scheduler of a library for an optimizer."""
        names = lib.optim.lr_scheduler
        given = options(names, held) if callable(options) else {"optimizer": held, **options}
        if self.name == "SequentialLR":
            given["optimizer"] = held
        return getattr(names, self.name)(**given, **more)

    def arguments(self, epoch: int) -> tuple[float, ...]:
        """What ``step`` is given."""
        return (LOSSES[epoch],) if self.metric else ()


def optimizer_for(lib: Any, row: Adapter, number: int) -> Any:
    """An optimizer of two groups."""
    params = [lib.tensor([0.0], requires_grad=True) for _ in range(2)]
    kind = lib.optim.Adam if row.momentum and number % 2 else lib.optim.SGD
    return kind([{"params": params[:1]}, {"params": params[1:], "lr": 0.5}], lr=0.1)


def rates(lib: Any, row: Adapter, number: int) -> list[list[float]]:
    """The rates of two groups at each epoch, in a loop as users write it; after them the momenta, if they move."""
    optimizer = optimizer_for(lib, row, number)
    scheduler = row.build(lib, optimizer, row.samples[number])
    found = []
    for epoch in range(EPOCHS):
        found.append([float(group["lr"]) for group in optimizer.param_groups])
        if row.momentum:
            groups = optimizer.param_groups
            found[-1] += [float(group["betas"][0] if "betas" in group else group["momentum"]) for group in groups]
        optimizer.step()
        scheduler.step(*row.arguments(epoch))
    return found

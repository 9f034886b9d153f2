"""Schedules that go one way: straight lines, powers, stairs; each with its class under PyTorch's name beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from slalom.optim.optimizer import Optimizer
from slalom.optim.scheduler import LRScheduler
from slalom.optim.schedules.schedule import (
    ABOVE_0,
    AT_LEAST_0,
    Needs,
    Schedule,
    Time,
    ascending,
    floor,
    larger,
    reached,
    schedule,
    smaller,
)

__all__ = [
    "ConstantLR", "ExponentialLR", "InverseSqrtLR", "LinearLR", "MultiStepLR", "PolynomialLR", "StepLR", "constant",
    "exponential", "inverse_sqrt", "linear", "multi_step", "polynomial", "power", "staircase",
]  # fmt: skip

_MILESTONES = Needs("ascending numbers of at least 0", ascending, tuple)


# --- lines --------------------------------------------------------------------------------------------------------
@schedule(steps=AT_LEAST_0, factor=AT_LEAST_0, start=AT_LEAST_0)
def constant(t: Time, steps: float = 0, factor: float = 1 / 3, start: float = 1.0) -> Any:
    """The same rate all the time, but for a factor in the first steps.

    η(t) = start·factor for t < ``steps``, then ``start``

    >>> constant(steps=5, factor=0.1).values(7).tolist()
    [0.1, 0.1, 0.1, 0.1, 0.1, 1.0, 1.0]
    """
    since = reached(t, steps)
    return start * (since + factor * (1 - since))


class ConstantLR(LRScheduler):
    """Times ``factor`` in the first ``total_iters`` epochs.

    lr(e) = base·factor for e < ``total_iters``, then base
    """

    def __init__(
        self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5, last_epoch: int = -1
    ) -> None:
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def schedule(self, base: float) -> Schedule:
        return constant(self.total_iters, self.factor, base)


@schedule(steps=ABOVE_0, start=AT_LEAST_0, end=AT_LEAST_0)
def linear(t: Time, steps: float, start: float = 1.0, end: float = 0.0) -> Any:
    """A straight line from ``start`` to ``end``.

    η(t) = (1 − t/K)·start + (t/K)·end for t ≤ K = ``steps``, then ``end``

    Raises: ConfigError for negative numbers and for 0 steps; so do the other schedules.

    >>> f"{linear(steps=10, start=0.1, end=0.01)(5):.3f}"
    '0.055'
    """
    part = smaller(t, steps) / steps
    return (1 - part) * start + part * end


class LinearLR(LRScheduler):
    """A straight line between two factors, then constant; a warm-up with the defaults.

    lr(e) = base·(start_factor + (end_factor − start_factor)·min(e, K)/K) with K = ``total_iters``
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return base * float(linear(self.total_iters, self.start_factor, self.end_factor)(epoch))


@schedule(steps=ABOVE_0, exponent=AT_LEAST_0, start=AT_LEAST_0, end=AT_LEAST_0)
def polynomial(t: Time, steps: float, exponent: float = 1.0, start: float = 1.0, end: float = 0.0) -> Any:
    """A power of the time that is left.

    η(t) = end + (start − end)·(1 − t/K)ᵖ for t ≤ K = ``steps``, then ``end``; p = ``exponent``

    Note: ``power`` is a power of the time that has passed, and never ends.

    >>> polynomial(steps=4, exponent=2).values(6).tolist()
    [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]
    """
    return end + (start - end) * (1 - smaller(t, steps) / steps) ** exponent


class PolynomialLR(LRScheduler):
    """A power of the epochs that are left, down to 0 in ``total_iters`` epochs.

    lr(e) = base·(1 − min(e, K)/K)ᵖ with K = ``total_iters``, p = ``power``
    """

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1) -> None:
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer, last_epoch)

    def schedule(self, base: float) -> Schedule:
        return polynomial(self.total_iters, self.power, base)


# --- powers -------------------------------------------------------------------------------------------------------
@schedule(steps=ABOVE_0, start=AT_LEAST_0)
def power(t: Time, steps: float, exponent: float = -0.5, start: float = 1.0) -> Any:
    """A power of time.

    η(t) = start·(1 + t/s)ᶜ with s = ``steps``, c = ``exponent``

    Note: ``exponent=-1`` with s = 1/d is the schedule start/(1 + d·t).

    >>> f"{power(steps=10, exponent=-0.5, start=0.1)(30):.3f}"
    '0.050'
    """
    return start * (1 + t / steps) ** exponent


@schedule(steps=ABOVE_0, base=AT_LEAST_0, start=AT_LEAST_0)
def exponential(t: Time, base: float, steps: float = 1, start: float = 1.0) -> Any:
    """Multiplied by the same number every so many steps, smoothly.

    η(t) = start·c^(t/s) with c = ``base``, s = ``steps``

    Note: with s = 1 this is PyTorch's ExponentialLR with gamma = c.

    >>> exponential(base=0.5, steps=10, start=0.1)(10)
    0.05
    """
    return start * base ** (t / steps)


class ExponentialLR(LRScheduler):
    """Multiplied by ``gamma`` each epoch.

    lr(e) = base·γᵉ
    """

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def schedule(self, base: float) -> Schedule:
        return exponential(base=self.gamma, start=base)


@schedule(warmup=ABOVE_0, scale=AT_LEAST_0)
def inverse_sqrt(t: Time, warmup: float, scale: float = 1.0) -> Any:
    """A straight rise for ``warmup`` steps, then falling with the root of time: the Transformer's schedule.

    η(t) = scale·min(t^−½, t·W^−³ᐟ²) with W = ``warmup``; the largest rate, scale/√W, is at t = W

    Source: Vaswani et al. (2017), "Attention is all you need", eq. 3, with scale = d^−½ for a model of width d.

    >>> f"{inverse_sqrt(warmup=4000, scale=512**-0.5)(4000):.6e}"
    '6.987712e-04'
    """
    later = larger(t, warmup)
    return scale * smaller(t * warmup**-1.5, later**-0.5)


class InverseSqrtLR(LRScheduler):
    """A straight rise to the group's rate in ``warmup`` epochs, then falling with the root of time.

    lr(e) = base·min(√(W/e), e/W) with W = ``warmup``

    Note: PyTorch has no such class. The first rate is 0: the first step of a warm-up moves nothing.
    """

    def __init__(self, optimizer: Optimizer, warmup: int, last_epoch: int = -1) -> None:
        self.warmup = warmup
        super().__init__(optimizer, last_epoch)

    def schedule(self, base: float) -> Schedule:
        return inverse_sqrt(self.warmup, base * max(self.warmup, 0) ** 0.5)


# --- stairs -------------------------------------------------------------------------------------------------------
@schedule(every=ABOVE_0, base=AT_LEAST_0, start=AT_LEAST_0)
def staircase(t: Time, every: float, base: float = 0.1, start: float = 1.0) -> Any:
    """Multiplied by the same number at once every so many steps.

    η(t) = start·c^⌊t/s⌋ with c = ``base``, s = ``every``

    >>> staircase(every=10, base=0.5)(19)
    0.5
    """
    return start * base ** floor(t / every)


class StepLR(LRScheduler):
    """Multiplied by ``gamma`` every ``step_size`` epochs.

    lr(e) = base·γ^⌊e/s⌋
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def schedule(self, base: float) -> Schedule:
        return staircase(every=self.step_size, base=self.gamma, start=base)


@schedule(milestones=_MILESTONES, base=AT_LEAST_0, start=AT_LEAST_0)
def multi_step(t: Time, milestones: Sequence[float], base: float = 0.1, start: float = 1.0) -> Any:
    """Multiplied by the same number at each of some moments.

    η(t) = start·cⁿ with c = ``base``, n = how many of the ``milestones`` are ≤ t; one named twice counts twice

    >>> multi_step([2, 4], base=0.5).values(6).tolist()
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """
    passed: Any = 0 * t
    for milestone in milestones:
        passed = passed + reached(t, milestone)
    return start * base**passed


class MultiStepLR(LRScheduler):
    """Multiplied by ``gamma`` at each of the epochs ``milestones``.

    lr(e) = base·γⁿ with n = how many milestones are ≤ e
    """

    def __init__(
        self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def schedule(self, base: float) -> Schedule:
        return multi_step(self.milestones, self.gamma, base)

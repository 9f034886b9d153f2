"""Schedules that rise and fall: cosines, cycles; each with its class under PyTorch's name beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from slalom.errors import ConfigError
from slalom.optim.optimizer import Optimizer
from slalom.optim.scheduler import CyclesMomentum, LRScheduler, each_group
from slalom.optim.schedules.schedule import (
    ABOVE_0,
    AT_LEAST_0,
    COUNT,
    FRACTION,
    SWITCH,
    Needs,
    Schedule,
    Time,
    cos,
    fewer_than_steps,
    floor,
    is_number,
    larger,
    log,
    one_of,
    schedule,
    select,
    smaller,
)

__all__ = [
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "OneCycleLR",
    "cosine",
    "cosine_restarts",
    "coslog",
    "cyclic",
    "flat_cosine",
    "one_cycle",
    "warmup_stable_decay",
]  # fmt: skip

_AT_LEAST_1 = Needs("a finite number of at least 1", lambda n: is_number(n) and n >= 1)
_PERIOD = Needs("a finite number above 0, or None", lambda n: n is None or ABOVE_0.holds(n))
_ROUNDING: Final = 1e-12
"""So little before a restart is after it: else the rounding of a quotient would put off the restart by a step."""


def _half_cosine(part: Any, start: Any, end: Any) -> Any:
    """From ``start`` to ``end`` as ``part`` goes from 0 to 1."""
    return end + (start - end) * (1 + cos(math.pi * part)) / 2


# --- cosines ------------------------------------------------------------------------------------------------------
@schedule(fewer_than_steps("warmup"), steps=ABOVE_0, warmup=AT_LEAST_0, start=AT_LEAST_0, end=AT_LEAST_0)
def cosine(t: Time, steps: float, warmup: float = 0, start: float = 1.0, end: float = 0.0) -> Any:
    """A straight rise to ``start``, then half a cosine down to ``end``.

    η(t) = start·t/W for t < W = ``warmup``
    η(t) = end + (start − end)·(1 + cos π(t − W)/(K − W))/2 for W ≤ t ≤ K = ``steps``, then ``end``

    Raises: ConfigError for a warm-up that leaves no step for the cosine.
    Source: Loshchilov, Hutter (2017), "SGDR: stochastic gradient descent with warm restarts", eq. 5, without restarts.
    Note: the rate of step t = 0 is 0 where there is a warm-up; ``steps`` counts the warm-up too.

    >>> [round(cosine(steps=110, warmup=10)(t), 3) for t in (0, 5, 10, 60, 110, 200)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    """
    part = larger(smaller(t, steps) - warmup, 0) / (steps - warmup)
    rise = smaller(t / warmup, 1.0) if warmup else 1.0
    return rise * _half_cosine(part, start, end)


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the first rate to ``eta_min`` in ``T_max`` epochs, and up again in as many.

    lr(e) = η_min + (base − η_min)·(1 + cos πe/T)/2

    Note: as in PyTorch it goes on periodically; ``schedules.cosine`` stays at its end.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        if not T_max > 0:
            raise ConfigError("CosineAnnealingLR: T_max", got=T_max, needed="a number above 0")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, epoch: int) -> float:
        return float(_half_cosine(epoch / self.T_max, base, self.eta_min))

    def _scaled_on(self, now: float, new: float, was: float) -> float:
        """What is above ``eta_min`` is scaled, not all of it."""
        low = self.eta_min
        return low + (now - low) * ((new - low) / (was - low)) if was != low else now + (new - low)


@schedule(fewer_than_steps("flat"), steps=ABOVE_0, flat=AT_LEAST_0, start=AT_LEAST_0, end=AT_LEAST_0)
def flat_cosine(t: Time, steps: float, flat: float, start: float = 1.0, end: float = 0.0) -> Any:
    """Flat for some steps, then half a cosine down to ``end``.

    η(t) = start for t ≤ F = ``flat``
    η(t) = end + (start − end)·(1 + cos π(t − F)/(K − F))/2 for F ≤ t ≤ K = ``steps``, then ``end``

    Raises: ConfigError where no step is left for the cosine.
    Note: fastai's ``fit_flat_cos`` has F = ¾·K.

    >>> [round(flat_cosine(steps=100, flat=75, end=0.1)(t), 3) for t in (0, 75, 87.5, 100)]
    [1.0, 1.0, 0.55, 0.1]
    """
    return _half_cosine(larger(smaller(t, steps) - flat, 0) / (steps - flat), start, end)


def _warmup_and_decay(options: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """What is wrong with the numbers of steps, if it is."""
    warmup, decay, steps = options["warmup"], options["decay"], options["steps"]
    if warmup + decay <= steps:
        return None
    return "decay", f"{decay} after a warmup of {warmup}, with {steps} steps", "no more steps than there are"


@schedule(
    _warmup_and_decay,
    steps=ABOVE_0,
    warmup=AT_LEAST_0,
    decay=ABOVE_0,
    start=AT_LEAST_0,
    end=AT_LEAST_0,
    anneal=one_of("linear", "cos", "sqrt"),
)
def warmup_stable_decay(
    t: Time, steps: float, warmup: float, decay: float, start: float = 1.0, end: float = 0.0, anneal: str = "linear"
) -> Any:
    """A straight rise, a long flat stretch, and a short fall ("WSD", a trapezoid).

    η(t) = start·t/W for t < W = ``warmup``, then start until K − D; K = ``steps``, D = ``decay``
    η(t) = end + (start − end)·s(τ) with τ = (t − K + D)/D for K − D ≤ t ≤ K, then ``end``
    s(τ) = 1 − τ for "linear", (1 + cos πτ)/2 for "cos", 1 − √τ for "sqrt"

    Raises: ConfigError where warm-up and fall take more steps than there are.
    Source: Hu et al. (2024), "MiniCPM: unveiling the potential of small language models with scalable training
    strategies", section 4.2; Hägele et al. (2024), "Scaling laws and compute-optimal training beyond fixed training
    durations", section 3, for the falls.
    Note: a run can be prolonged from before its fall. A fifth of all steps is a usual ``decay``.

    >>> warmup_stable_decay(steps=8, warmup=2, decay=4).values(9).tolist()
    [0.0, 0.5, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    part = larger(smaller(t, steps) - (steps - decay), 0) / decay
    rise = smaller(t / warmup, 1.0) if warmup else 1.0
    if anneal == "cos":
        return rise * _half_cosine(part, start, end)
    return rise * (end + (start - end) * (1 - (part**0.5 if anneal == "sqrt" else part)))


@schedule(period=ABOVE_0, mult=_AT_LEAST_1, start=AT_LEAST_0, end=AT_LEAST_0)
def cosine_restarts(t: Time, period: float, mult: float = 1, start: float = 1.0, end: float = 0.0) -> Any:
    """Half a cosine from ``start`` to ``end``, again and again; each one ``mult`` times as long as that before it.

    η(t) = end + (start − end)·(1 + cos πτ/Tₙ)/2, Tₙ = T₀·mⁿ with T₀ = ``period``, m = ``mult``,
    τ the time since the last restart, at T₀ + T₁ + … + Tₙ₋₁

    Source: Loshchilov, Hutter (2017), "SGDR: stochastic gradient descent with warm restarts", eq. 5.

    >>> cosine_restarts(period=2, mult=2).values(7).round(3).tolist()
    [1.0, 0.5, 1.0, 0.854, 0.5, 0.146, 1.0]
    """
    if mult == 1:
        length: Any = period
        begun = floor(t / period + _ROUNDING) * period
    else:
        number = floor(log(1 + t * ((mult - 1) / period)) / math.log(mult) + _ROUNDING)
        length = period * mult**number
        begun = (length - period) / (mult - 1)
    return _half_cosine(larger(t - begun, 0) / length, start, end)


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half a cosine from the first rate to ``eta_min``, again and again: in ``T_0`` epochs, then ``T_0·T_mult``, …

    lr(e) = η_min + (base − η_min)·(1 + cos πτ/Tₙ)/2 with τ epochs since the last restart

    ``step(epoch)`` takes a fraction of an epoch too, for loops that step within epochs.

    Raises: ConfigError for a period or factor that is no integer of at least 1.
    """

    absolute = True

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        for name, value in (("T_0", T_0), ("T_mult", T_mult)):
            if not COUNT.holds(value):
                raise ConfigError(f"CosineAnnealingWarmRestarts: {name}", got=value, needed=COUNT.words)
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        super().__init__(optimizer, last_epoch)

    def schedule(self, base: float) -> Schedule:
        return cosine_restarts(self.T_0, self.T_mult, base, self.eta_min)

    def step(self, epoch: float | None = None) -> None:
        """Go to the next epoch, or to the one given.

        Raises: ConfigError for a negative epoch; StagingError inside ``slalom.compile``.
        """
        if epoch is None:
            super().step()
            return
        self._not_staging()
        if not epoch >= 0:
            raise ConfigError("CosineAnnealingWarmRestarts: epoch", got=epoch, needed="a number of at least 0")
        self.last_epoch = math.floor(epoch)
        self._write([float(self.schedule(base)(epoch)) for base in self.base_lrs])


@schedule(steps=ABOVE_0, cycles=ABOVE_0, start=AT_LEAST_0)
def coslog(t: Time, steps: float, cycles: float = 4, start: float = 1.0) -> Any:
    """Cosine cycles over the logarithm of time: from 0 up and down again, each cycle twice as long as that before it.

    η(t) = start·½·(1 − cos(2π·log₂(1 + (2ᵏ − 1)·t/K))) for t ≤ K = ``steps``, then 0; k = ``cycles``

    Source: Holzmüller, Grinsztajn, Steinwart (2024), "Better by default: strong pre-tuned MLPs and boosted trees on
    tabular data", appendix A: with k = 4, coslog4.

    >>> [round(coslog(steps=15)(t), 3) for t in (0, 1, 3, 7, 15)]
    [0.0, 0.0, 0.0, 0.0, 0.0]
    """
    part = smaller(t, steps) / steps
    turns = log(1 + (2**cycles - 1) * part) / math.log(2)
    return start * (1 - cos(2 * math.pi * turns)) / 2


# --- cycles -------------------------------------------------------------------------------------------------------
_MODES = ("triangular", "triangular2", "exp_range")


def _triangle(t: Any, up: float, down: float) -> tuple[Any, Any]:
    """How high a triangle wave is, from 0 to 1, and the number of its cycle, from 0."""
    cycle = floor(t / (up + down) + _ROUNDING)
    phase = larger(t - cycle * (up + down), 0)
    return select(phase <= up, phase / up, (up + down - phase) / down), cycle


def _shrinking(t: Any, cycle: Any, mode: str, gamma: float) -> Any:
    """By what a mode multiplies the height."""
    return 0.5**cycle if mode == "triangular2" else gamma**t if mode == "exp_range" else 1.0


@schedule(up=ABOVE_0, down=_PERIOD, low=AT_LEAST_0, high=AT_LEAST_0, mode=one_of(*_MODES), gamma=AT_LEAST_0)
def cyclic(
    t: Time,
    up: float,
    down: float | None = None,
    low: float = 0.0,
    high: float = 1.0,
    mode: str = "triangular",
    gamma: float = 1.0,
) -> Any:
    """Up in a straight line from ``low`` to ``high``, and down again, again and again.

    η(t) = low + (high − low)·Λ(t)·s(t), Λ the triangle wave that rises for ``up`` steps and falls for ``down``;
    s(t) = 1 for "triangular", ½ⁿ in cycle n = 0, 1, … for "triangular2", γᵗ for "exp_range"

    ``down``: as many steps as ``up`` if it is None.

    Source: Smith (2017), "Cyclical learning rates for training neural networks", section 3.

    >>> cyclic(up=2, low=0.5, mode="triangular2").values(8).tolist()
    [0.5, 0.75, 1.0, 0.75, 0.5, 0.625, 0.75, 0.625]
    """
    height, cycle = _triangle(t, up, up if down is None else down)
    return low + (high - low) * height * _shrinking(t, cycle, mode, gamma)


class CyclicLR(CyclesMomentum):
    """Rates go up and down between ``base_lr`` and ``max_lr``, and the momentum the other way; usually step by step.

    lr(e) = base_lr + (max_lr − base_lr)·Λ(e)·s(e)
    momentum(e) = max_momentum − (max_momentum − base_momentum)·Λ(e)·s(e)

    Λ and s as in ``schedules.cyclic``; or s = ``scale_fn`` of the number of the cycle, from 1 (``scale_mode`` "cycle"),
    or of the epoch ("iterations").

    Raises: ConfigError for an unknown mode without ``scale_fn``, sizes that are not above 0, lists whose length is not
    that of the groups, and an optimizer without momentum unless ``cycle_momentum=False``.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | list[float],
        max_lr: float | list[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.8,
        max_momentum: float | list[float] = 0.9,
        last_epoch: int = -1,
    ) -> None:
        down = step_size_up if step_size_down is None else step_size_down
        for name, value, holds, needed in (
            ("mode", mode, scale_fn is not None or mode in _MODES, f"one of {', '.join(_MODES)}"),
            ("scale_mode", scale_mode, scale_mode in ("cycle", "iterations"), "'cycle' or 'iterations'"),
            ("step_size_up", step_size_up, ABOVE_0.holds(step_size_up), ABOVE_0.words),
            ("step_size_down", down, ABOVE_0.holds(down), ABOVE_0.words),
        ):
            if not holds:
                raise ConfigError(f"CyclicLR: {name}", got=repr(value), needed=needed)
        self.step_size_up, self.step_size_down = step_size_up, down
        self.mode, self.gamma, self.scale_fn, self.scale_mode = mode, gamma, scale_fn, scale_mode
        self.min_lrs = each_group(self, "base_lr", optimizer, base_lr)
        self.max_lrs = each_group(self, "max_lr", optimizer, max_lr)
        super().__init__(optimizer, cycle_momentum, base_momentum, max_momentum, last_epoch)
        self.base_lrs = self.min_lrs

    def _height(self, epoch: int) -> float:
        height, cycle = _triangle(epoch, self.step_size_up, self.step_size_down)
        if self.scale_fn is None:
            return float(height * _shrinking(epoch, cycle, self.mode, self.gamma))
        return float(height * self.scale_fn(cycle + 1 if self.scale_mode == "cycle" else epoch))

    def rates(self, epoch: int) -> list[float]:
        height = self._height(epoch)
        return [low + (high - low) * height for low, high in zip(self.min_lrs, self.max_lrs, strict=True)]

    def momenta(self, epoch: int) -> list[float]:
        height = self._height(epoch)
        pairs = zip(self.base_momentums, self.max_momentums, strict=True)
        return [high - (high - low) * height for low, high in pairs]


def _phases(t: Any, levels: tuple[float, ...], steps: float, rise: float, anneal: str) -> Any:
    """Along three levels (up, down) or four (up, down, further down), in phases of the lengths that PyTorch gives them.

    The phases end at r·K − 1, (2·r·K − 2 if there are three) and K − 1.
    """
    ends = [rise * steps - 1, *([2 * rise * steps - 2] if len(levels) == 4 else []), steps - 1]
    begins = [0.0, *ends[:-1]]
    value: Any = None
    for begin, end, low, high in reversed(list(zip(begins, ends, levels[:-1], levels[1:], strict=True))):
        part = larger(smaller((t - begin) / (end - begin), 1.0), 0.0) if end != begin else 1.0
        phase = _half_cosine(part, low, high) if anneal == "cos" else low + (high - low) * part
        value = phase if value is None else select(t <= end, phase, value)
    return value


@schedule(
    steps=_AT_LEAST_1,
    peak=AT_LEAST_0,
    pct_start=FRACTION,
    anneal=one_of("cos", "linear"),
    div_factor=ABOVE_0,
    final_div_factor=ABOVE_0,
    three_phase=SWITCH,
)
def one_cycle(
    t: Time,
    steps: float,
    peak: float = 1.0,
    pct_start: float = 0.3,
    anneal: str = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
) -> Any:
    """One rise to the ``peak`` and one fall far below where it began, along half cosines or straight lines.

    From peak/div_factor at t = 0 to peak at r·K − 1, then to peak/(div_factor·final_div_factor) at K − 1, and no
    further; r = ``pct_start``, K = ``steps``. With ``three_phase`` the fall stops over at the first rate, at 2·r·K − 2.

    Source: Smith, Topin (2018), "Super-convergence: very fast training of neural networks using large learning rates";
    fastai's two phases are the default, the paper's three are ``three_phase``.

    >>> one_cycle(steps=11, pct_start=5 / 11, anneal="linear", div_factor=5).values(11).round(3).tolist()
    [0.2, 0.4, 0.6, 0.8, 1.0, 0.833, 0.667, 0.5, 0.333, 0.167, 0.0]
    """
    low = peak / div_factor
    levels = (low, peak, *([low] if three_phase else []), low / final_div_factor)
    return _phases(t, levels, steps, pct_start, anneal)


class OneCycleLR(CyclesMomentum):
    """One rise of the rate to ``max_lr`` and one long fall, with the momentum going the other way; stepped every batch.

    lr: ``schedules.one_cycle``; momentum: max_momentum → base_momentum → max_momentum along the same phases

    ``total_steps``, or ``epochs`` times ``steps_per_epoch``: how many steps there are in all.

    Raises: ConfigError for steps that are no positive integers, a ``pct_start`` outside [0, 1], an unknown
    ``anneal_strategy``, and a step beyond the last.
    Note: after the last step the rate stays; PyTorch's goes on along the last curve by one step, which nobody uses.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        counts: dict[str, Any] = {"total_steps": total_steps}
        if total_steps is None:
            counts = {"epochs": epochs, "steps_per_epoch": steps_per_epoch}
        for name, count in counts.items():
            if not COUNT.holds(count):
                hint = "give total_steps, or epochs and steps_per_epoch" if count is None else None
                raise ConfigError(f"OneCycleLR: {name}", got=repr(count), needed=COUNT.words, hint=hint)
        self.total_steps: int = math.prod(counts.values())
        self.pct_start, self.anneal_strategy, self.three_phase = pct_start, anneal_strategy, three_phase
        self.div_factor, self.final_div_factor = div_factor, final_div_factor
        self.max_lrs = each_group(self, "max_lr", optimizer, max_lr)
        for group, peak in zip(optimizer.param_groups, self.max_lrs, strict=True):
            if last_epoch == -1:
                group["initial_lr"], group["max_lr"] = peak / div_factor, peak
                group["min_lr"] = group["initial_lr"] / final_div_factor
        super().__init__(optimizer, cycle_momentum, base_momentum, max_momentum, last_epoch)

    def _cycle(self, peak: float) -> Schedule:
        return one_cycle(
            self.total_steps, peak, self.pct_start, self.anneal_strategy, self.div_factor, self.final_div_factor,
            self.three_phase,
        )  # fmt: skip

    def rates(self, epoch: int) -> list[float]:
        if epoch > self.total_steps:
            raise ConfigError(
                "OneCycleLR: step", got=f"number {epoch}", needed=f"at most {self.total_steps}, the total"
            )
        return [float(self._cycle(peak)(epoch)) for peak in self.max_lrs]

    def momenta(self, epoch: int) -> list[float]:
        found = []
        for low, high in zip(self.base_momentums, self.max_momentums, strict=True):
            levels = (high, low, high, high) if self.three_phase else (high, low, high)
            found.append(float(_phases(epoch, levels, self.total_steps, self.pct_start, self.anneal_strategy)))
        return found

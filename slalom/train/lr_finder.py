"""The learning-rate range test: one ramp of the rate, and which rate the loss fell fastest at."""

from __future__ import annotations

import itertools
import math
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from slalom.core.primitive import Array
from slalom.core.random import default_generator
from slalom.errors import ConfigError, DataError, MissingExtraError
from slalom.train.callbacks import write
from slalom.train.feed import Order, Source
from slalom.train.loop import set_modes, training_modes
from slalom.train.native import STEP_STREAM
from slalom.train.steps import Program

if TYPE_CHECKING:
    from slalom.train.trainer import Trainer

__all__ = ["RateCurve", "find_lr"]

MEMORY: Final = 0.9
"""Of the running mean that decides when to stop: how much of it is kept from step to step."""
DIVERGED: Final = 3.0
"""The test stops where the running mean is above its best by this many times the first loss."""
WIDTH: Final = 1 / 30
"""The spread of the smoothing, as a part of the whole ramp."""


@dataclass(frozen=True, eq=False)
class RateCurve:
    """What a range test saw: ``losses[i]`` of a batch at ``rates[i]``, and ``smoothed``, their means over neighbours.

    ``suggestion``: the rate at which the smoothed loss fell fastest per factor of the rate, before its minimum; None
    where it never fell. ``reason``: in words, why the test ended.
    """

    rates: Array
    losses: Array
    smoothed: Array
    suggestion: float | None
    reason: str

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """A matplotlib Figure of loss over rate, written to a file if a path is given.

        Raises: MissingExtraError where matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            hint = "pip install 'slalom[report]'"
            raise MissingExtraError("RateCurve.plot", needed="matplotlib", hint=hint) from error
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot(self.rates, self.losses, color="0.75", linewidth=1, label="each batch")
        axes.plot(self.rates, self.smoothed, color="#0072b2", linewidth=2, label="smoothed")
        if self.suggestion is not None:
            axes.axvline(self.suggestion, color="#d55e00", linestyle="--", label=f"suggestion {self.suggestion:.2g}")
        low, high = float(np.nanmin(self.smoothed)), float(np.nanmax(self.smoothed))
        margin = 0.1 * (high - low) or 1.0
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(low - margin, high + margin))
        axes.set_title(f"Range test: {self.reason}", loc="left", fontsize="medium")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure

    def __repr__(self) -> str:
        suggestion = "none" if self.suggestion is None else f"{self.suggestion:.3g}"
        return f"RateCurve({len(self.rates)} steps, suggestion {suggestion}: {self.reason})"


def find_lr(
    trainer: Trainer, source: Source, batch_size: int, low: float, high: float, steps: Any, seed: int
) -> RateCurve:
    """The range test of ``Trainer.find_lr``."""
    if not 0 < low < high < math.inf:
        raise ConfigError("find_lr: low and high", got=f"{low} and {high}", needed="two numbers above 0, ascending")
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 10:
        raise ConfigError("find_lr: steps", got=repr(steps), needed="an integer of at least 10")
    ramp = np.geomspace(low, high, steps)
    with _untouched(trainer), np.errstate(all="ignore"):
        losses, reason = _ramp(trainer, source, batch_size, ramp, seed)
    if len(losses) < 2:
        what = f"find_lr: the loss at the rate {low:g}"
        raise DataError(what, got="not a finite number", needed="one", hint="begin lower, or look at the data")
    smoothed = _smoothed(np.array(losses), max(1.0, WIDTH * steps))
    return RateCurve(ramp[: len(losses)], np.array(losses), smoothed, _steepest(ramp, smoothed), reason)


def _ramp(trainer: Trainer, source: Source, batch_size: int, ramp: Array, seed: int) -> tuple[list[float], str]:
    """The losses of training steps with one rate after the other, and why they end."""
    # A program of its own, so that the records of the trainer's stay as they are.
    own = trainer.program
    program = Program(
        trainer.objective, trainer.optimizer, own.clip, "training" not in own.eager, penalties=own.penalties
    )
    groups = trainer.optimizer.param_groups
    shares = [float(group["lr"]) / max(float(groups[0]["lr"]), 1e-300) for group in groups]
    losses: list[float] = []
    running, best = 0.0, math.inf
    epochs = (source.batches(batch_size, Order(seed, epoch)) for epoch in itertools.count())
    for i, (rate, batch) in enumerate(zip(ramp, itertools.chain.from_iterable(epochs), strict=False)):
        default_generator.set(seed, STEP_STREAM, i << 20)
        for group, share in zip(groups, shares, strict=True):
            group["lr"] = float(rate) * share
        sums, finite = program.gradients(batch.items, batch.weight, batch.rows)
        loss = trainer.objective.finish(sums)["loss"]
        if not finite or not math.isfinite(loss):
            return losses, f"loss or gradients were not finite at {rate:.2g}"
        losses.append(loss)
        running = MEMORY * running + (1 - MEMORY) * loss
        mean = running / (1 - MEMORY ** (i + 1))
        best = min(best, mean)
        if mean > best + DIVERGED * abs(losses[0]):
            return losses, f"the loss diverged at {rate:.2g}"
        program.update()
    return losses, f"all {len(ramp)} rates were tried"


def _smoothed(losses: Array, width: float) -> Array:
    """The mean over neighbours on both sides, so that nothing is shifted; weights fall as a Gaussian."""
    # What is far above the start is cut off: else the last, exploding losses would reach far back.
    capped = np.minimum(losses, np.median(losses[: max(1, int(width))]) + DIVERGED * abs(losses[0]))
    place = np.arange(len(losses))
    weights = np.exp(-0.5 * ((place[:, None] - place) / width) ** 2)
    return np.asarray(weights @ capped / weights.sum(axis=1))


def _steepest(ramp: Array, smoothed: Array) -> float | None:
    """The rate at which the loss falls fastest per factor of the rate, on the way to its minimum."""
    end = int(np.argmin(smoothed)) + 1
    if end < 2:
        return None
    slopes = np.gradient(smoothed[:end])
    steepest = int(np.argmin(slopes))
    return float(ramp[steepest]) if slopes[steepest] < 0 else None


@contextmanager
def _untouched(trainer: Trainer) -> Iterator[None]:
    """After this block model, optimizer and random numbers are as before it; the optimizer begins it without state."""
    optimizer, tensors = trainer.optimizer, trainer.tensors()
    values = {name: t.detach().numpy().copy() for name, t in tensors.items()}
    grads = [(t, t.grad) for t in tensors.values() if t.is_leaf]
    attributes = dict(vars(optimizer))
    groups = [dict(group) for group in optimizer.param_groups]
    modes = {module: module.training for module in trainer.model.modules()}
    generator = default_generator.get_state()
    optimizer.state = defaultdict(dict)
    set_modes(training_modes(trainer.model))
    try:
        yield
    finally:
        vars(optimizer).clear()
        vars(optimizer).update(attributes)
        for group, saved in zip(optimizer.param_groups, groups, strict=True):
            group.clear()
            group.update(saved)
        write(tensors, values)
        for t, grad in grads:
            t.grad = grad
        set_modes(modes)
        default_generator.set_state(generator)

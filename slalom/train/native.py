"""Tier A of the loop: gather, step, sums and counters all native, back to Python some twenty times a second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np

from slalom.compiler.loop import Draw, Loop, Pace, Reason, row_order
from slalom.compiler.native import native
from slalom.core.primitive import Array
from slalom.core.random import default_generator
from slalom.core.tensor import Tensor
from slalom.data.loader import batch_slices
from slalom.train.feed import Order

if TYPE_CHECKING:
    from slalom.train.loop import Fit

__all__ = ["STEP_STREAM", "NativeSteps"]

STEP_STREAM: Final = 1
"""The stream of the default generator during training steps: dropout is a pure function of (seed, step)."""


class NativeSteps:
    """Makes the steps of a fit natively.

    What stops a step (an index out of range, a loss that is not finite) stops it before it has written anything; the
    step is then made once more in Python, which raises the error that names the cause.
    """

    def __init__(self, fit: Fit, arrays: list[Array], weight: Array | None) -> None:
        self.fit, self.arrays, self.weight = fit, arrays, weight
        self._loops: dict[int, Loop] = {}  # by rows of a batch
        self._paces: dict[int, Pace] = {}

    @classmethod
    def of(cls, fit: Fit) -> NativeSteps | None:
        """For a fit whose loop needs no Python inside; None for others, and where there is no native code."""
        program = fit.trainer.program
        if not native() or fit.step_hooks or "training" in program.eager or program.objective.outside:
            return None
        data = fit.source.whole()
        if data is None:
            return None
        made = cls(fit, *data)
        try:
            sizes = {cut.stop - cut.start for cut in made._cuts()}
            return made if all(made._loop(rows) is not None for rows in sizes) else None
        except LookupError:
            return None

    def _cuts(self) -> list[slice]:
        return batch_slices(len(self.arrays[0]), self.fit.options.batch_size, merge_last=True)

    def _loop(self, rows: int) -> Loop | None:
        """The loop for batches of so many rows, made or made anew if what it was recorded from has changed."""
        held = self._loops.get(rows)
        if held is not None and held.holds():
            return held
        given = [np.empty((rows, *array.shape[1:]), array.dtype) for array in self.arrays]
        for batch, array in zip(given, self.arrays, strict=True):
            batch[:] = array[:1]  # values that a recording may look at
        items = tuple(map(Tensor._of, given))
        weight = None if self.weight is None else Tensor._of(np.ones(rows, self.weight.dtype))
        recording = self.fit.trainer.program.recorded_step(items, weight)
        if recording is None:
            return None
        arrays = self.arrays if self.weight is None else [*self.arrays, self.weight]
        loop = self._loops[rows] = Loop(recording, arrays, default_generator.state._storage)
        self._paces[rows] = Pace(loop.shared)
        return loop

    def steps(self, order: Order) -> Iterator[None]:
        """The rest of an epoch, a run of steps at a time."""
        fit = self.fit
        cuts = self._cuts()
        index = row_order(order.seed, order.epoch, len(self.arrays[0]))
        while fit.batch < len(cuts):
            rows = cuts[fit.batch].stop - cuts[fit.batch].start
            loop = self._loop(rows)
            last = len(cuts) - 1
            alike = 1 if cuts[last].stop - cuts[last].start == rows else 0
            left = max(1, last - fit.batch + alike)
            if loop is None or not self._run(loop, self._paces[rows], index[cuts[fit.batch].start :], left):
                fit.make_step(next(iter(fit.source.batches(fit.options.batch_size, order, fit.batch))))
            yield

    def _run(self, loop: Loop, pace: Pace, index: Array, left: int) -> bool:
        """Make at most ``left`` steps; whether it went well."""
        fit, trainer = self.fit, self.fit.trainer
        threads, steps = pace.next()
        steps = min(steps, left)
        if fit.checkpoint is not None:
            steps = min(steps, fit.checkpoint.steps_until_due(fit))
        first = trainer.step
        default_generator.set(fit.options.seed, STEP_STREAM, first << 20)
        rates = self._rates(loop, steps)
        loop.total[:] = 0 if fit.sums is None else fit.sums
        started = time.perf_counter()
        outcome = loop.run(index, steps, threads, rates=rates, draw=Draw(first << 20, 1 << 20))
        if outcome.steps:
            pace.note(threads, outcome.steps, time.perf_counter() - started)
            fit.made(outcome.steps, loop.total.copy(), loop.latest.copy())
        loop.table.status = 0
        return outcome.reason in (Reason.FINISHED, Reason.STOPPED)

    def _rates(self, loop: Loop, steps: int) -> Array | None:
        """What steers each of the next steps; None if a schedule does not change it."""
        trainer = self.fit.trainer
        trainer.set_rates()
        if trainer.schedule is None or hasattr(trainer.schedule, "step"):
            return None
        now, rows = trainer.step, []
        for trainer.step in range(now, now + steps):
            trainer.set_rates()
            rows.append(loop.numbers())
        trainer.step = now
        return np.array(rows)

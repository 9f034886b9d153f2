"""Native steps: gather, step, sums and counters in one run, from which the loop comes back some twenty times a second
(tier A), or a native step for each batch that is made in Python (B). Where a hook looks at every step (C), gradients
and update are native calls of their own, so that it sees both.
"""

from __future__ import annotations

import itertools
import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from slalom.compiler.loop import Draw, Loop, Reason, Recording, Rows, Run
from slalom.compiler.native import native, obstacle
from slalom.core.primitive import Array
from slalom.core.random import Generator
from slalom.core.tensor import Tensor
from slalom.data.loader import batch_slices
from slalom.train.feed import Batch, Order

if TYPE_CHECKING:
    from slalom.train.loop import Fit

__all__ = ["STEP_STREAM", "NativeSteps", "explained"]

EQUATIONS: Final = 6000
"""A step of several batches is recorded as one, batch after batch, where they have no more equations together: a longer
record takes too long to compile."""
STEP_STREAM: Final = 1
"""The stream of the default generator during training steps: dropout is a pure function of (seed, step)."""


class NativeSteps:
    """Makes the steps of a fit natively: all of them inside (tier A), or one for each batch that Python makes (B).

    What stops a step (an index out of range, a loss that is not finite) stops it before it has written anything; the
    step is then made once more in Python, which raises the error that names the cause.
    """

    def __init__(self, fit: Fit, data: tuple[list[Array], Array | None] | None) -> None:
        self.fit: Fit = weakref.proxy(fit)  # which holds this
        self.whole = data is not None
        """Whether batches are gathered natively."""
        self.arrays, self.weight = ([], None) if data is None else data
        cuts = batch_slices(len(self.arrays[0]), fit.options.batch_size, merge_last=True) if self.arrays else []
        self._together = fit.trainer.accumulate
        """Of how many batches a step is made; the last of an epoch perhaps of fewer."""
        self._kinds = _kinds([cut.stop - cut.start for cut in cuts], self._together)
        self._batches, self._count = len(cuts), sum(self._kinds.values())
        """In an epoch, how many batches and how many steps."""
        self._loops: dict[Any, Loop] = {}  # by the types of a batch; of all batches of an epoch under None
        self._generator = Generator(fit.options.seed, STEP_STREAM).state.tolist()
        self._many = not fit.needs_each_epoch
        self.threads: set[int] = set()
        """How many threads took part in runs."""
        self.finite: bool | None = None
        """Whether all tensors of the fit were finite at the end of the epoch; None if nobody has looked."""

    @classmethod
    def of(cls, fit: Fit) -> NativeSteps | None:
        """For a fit; None where there is no native code, or the step cannot be recorded whole."""
        program = fit.trainer.program
        if not native() or fit.step_hooks or "training" in program.eager or program.objective.outside:
            return None
        made = cls(fit, fit.source.whole())
        if made._together > 1 and not (made.whole and made._is_short()):
            return None
        return made if not made.whole or made._loop() is not None else None

    def _blank(self, rows: int) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """A batch to record a step with."""
        items = tuple(Tensor._of(np.repeat(array[:1], rows, axis=0)) for array in self.arrays)
        return items, None if self.weight is None else Tensor._of(np.ones(rows, self.weight.dtype))

    def _is_short(self) -> bool:
        """Whether a step of several batches may be one record."""
        first = next(iter(self._kinds), (1,))
        recording = self.fit.trainer.program.recorded_step(*self._blank(first[0]))
        return recording is not None and len(recording.record.graph.equations) * len(first) <= EQUATIONS

    def _loop(self) -> Loop | None:
        """The loop over all batches of an epoch; None if not all of a step can be recorded."""
        held = self._loops.get(None)
        if held is not None and held.holds():
            return held
        recordings, fit = [], self.fit
        for cuts, times in self._kinds.items():
            recordings.append((fit.trainer.program.recorded_step(*self._blank(sum(cuts)), cuts), times))
        loop = self._made(
            None,
            recordings,
            Rows(len(self.arrays[0]), list(fit.tensors.values()), [name in fit.checked for name in fit.tensors]),
        )
        if loop is not None:
            loop.take_from(self.arrays if self.weight is None else [*self.arrays, self.weight], fit.options.seed)
            for name, array in zip(fit.tensors, loop.kept, strict=True):
                np.copyto(array, fit.start[name])
                fit.start[name] = array
        return loop

    def _loop_like(self, batch: Batch) -> Loop | None:
        """The loop for batches like this one, which it now holds."""
        given = [*batch.items, *([] if batch.weight is None else [batch.weight])]
        if not all(isinstance(t, Tensor) for t in given):
            return None
        key = tuple((t.shape, t.dtype) for t in given)
        loop = self._loops.get(key)
        if loop is None or not loop.holds():
            weight = None if batch.weight is None else Tensor(batch.weight)
            recording = self.fit.trainer.program.recorded_step(tuple(map(Tensor, batch.items)), weight)
            loop = self._made(key, [(recording, 1)], None)
        for own, t in zip([] if loop is None else loop.batch, given, strict=loop is not None):
            np.copyto(own, t.detach().numpy())
        return loop

    def _made(self, key: Any, recordings: list[tuple[Recording | None, int]], rows: Rows | None) -> Loop | None:
        """A loop over records; None if not all of a step is there."""
        given = [(recording, times) for recording, times in recordings if recording is not None]
        made = self.fit.trainer.program.loop(given, rows) if len(given) == len(recordings) else None
        if made is not None:
            self._loops[key] = made
        return made

    def end(self) -> None:
        """Let go of the data."""
        for loop in self._loops.values():
            loop.release()

    def __str__(self) -> str:
        counts = sorted({len(turn.program.calls) for loop in self._loops.values() for turn in loop.turns})
        calls, threads = (" or ".join(map(str, found)) or "no" for found in (counts, sorted(self.threads)))
        return f"{calls} kernels a step; threads: {threads}"

    @property
    def _done(self) -> int:
        """How many steps of this epoch are made."""
        return self.fit.batch // self._together

    def steps(self, order: Order) -> Iterator[None]:
        """The rest of an epoch; perhaps of a later one, if nobody needs to hear of those in between."""
        return self._inside() if self.whole else self._fed(order)

    def _inside(self) -> Iterator[None]:
        """Runs of many steps at a time."""
        fit = self.fit
        while fit.batch < self._batches:
            loop = self._loop()
            if (loop is None or not self._run_inside(loop)) and fit.batch < self._batches:
                if fit.batch == 0:
                    fit.keep()
                order = Order(fit.options.seed, fit.trainer.epoch)
                batches = fit.source.batches(fit.options.batch_size, order, fit.batch)
                fit.make_step(*itertools.islice(batches, self._together))
            yield

    def _fed(self, order: Order) -> Iterator[None]:
        """A step for each batch that the source gives."""
        fit = self.fit
        for batch in fit.source.batches(fit.options.batch_size, order, fit.batch):
            loop = self._loop_like(batch)
            if loop is None or not self._run(loop, 1):
                fit.make_step(batch)
            yield

    def _run_inside(self, loop: Loop) -> bool:
        """Make many steps, also of several epochs where that may be; whether it went well."""
        fit, trainer = self.fit, self.fit.trainer
        epochs = min(loop.ahead(trainer.epoch), fit.epochs - trainer.epoch) if self._many else 1
        return self._run(loop, epochs * self._count - self._done, trainer.epoch, self._done)

    def _run(self, loop: Loop, left: int, epoch: int = 0, batch: int = 0) -> bool:
        """Make at most ``left`` steps; whether it went well."""
        fit, trainer = self.fit, self.fit.trainer
        threads, steps = loop.pace.next()
        # A rate that is a tensor is state, which a run leaves as it finds it: the schedule sets it between runs.
        steps = 1 if trainer.schedule is not None and self._rates_are_tensors() else min(steps, left)
        if fit.checkpoint is not None:
            steps = min(steps, fit.checkpoint.steps_until_due(fit))
        rates = self._rates(loop, steps)
        loop.total[:] = 0 if fit.sums is None else fit.sums
        seed, stream, _ = self._generator
        draw = Draw((seed, stream, trainer.step << 20), 1 << 20)
        started = time.perf_counter()
        run = loop.run(steps, threads, epoch=epoch, batch=batch, rates=rates, draw=draw)
        seconds = time.perf_counter() - started
        if run.steps:
            self.threads.add(run.outcome.threads)
            loop.pace.note(threads, run.steps, seconds)
            self._note(loop, run, started, seconds)
        loop.table.status = 0
        return run.outcome.reason in (Reason.FINISHED, Reason.STOPPED)

    def _note(self, loop: Loop, run: Run, started: float, seconds: float) -> None:
        """Let the fit know what was done. The end of the last epoch, if nothing came after it, is its own affair."""
        fit, ended = self.fit, len(run.when)
        left = self._done + run.steps - ended * self._count
        for sums, when in zip(run.sums[: ended - (left == 0)], run.when, strict=False):
            fit.passed(self._count - self._done, sums, started + seconds * when)
        closed = ended > 0 and left == 0
        self.finite = loop.finite if closed else None
        steps, sums = (self._count, run.sums[-1]) if closed else (left, loop.total.copy())
        batches = min(steps * self._together, self._batches) if self.whole else steps
        fit.made(steps - self._done, sums, loop.latest.copy(), batches - fit.batch)

    def _rates_are_tensors(self) -> bool:
        return any(isinstance(group["lr"], Tensor) for group in self.fit.optimizer.param_groups)

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


def _kinds(sizes: list[int], together: int) -> dict[tuple[int, ...], int]:
    """How many steps there are of each kind (the rows of its batches), in order; only the last may differ."""
    steps = [tuple(sizes[i : i + together]) for i in range(0, len(sizes), together)]
    return {kind: steps.count(kind) for kind in dict.fromkeys(steps)}


def explained(fit: Fit) -> str:
    """The tier in which a fit ran, and what forced it.

    A: all of the loop is native · B: native steps on batches made in Python · C: Python after every step.
    """
    program, off = fit.trainer.program, obstacle()
    if "training" in program.eager:
        return f"loop: eager ({program.eager['training']})"
    if off is not None:
        return f"loop: in Python, run by the NumPy executor ({off})"
    if fit.native is not None and fit.native.whole:
        return f"loop: tier A (arrays, and nothing that needs Python at each step); {fit.native}"
    after = [f"on_step_end of {type(callback).__name__}" for callback in fit.step_hooks]
    after += [f"metric {name!r}: {reason}" for name, reason in program.objective.outside.items()]
    together = f"accumulate={fit.trainer.accumulate}"
    if fit.trainer.accumulate > 1 and fit.source.origin is not None:
        after.append(f"{together}: gradients run several times for one update")
    elif fit.trainer.accumulate > 1 and not after:
        after.append(f"{together}: of so many batches one record would be too long")
    before = [] if fit.source.origin is None else [f"batches come from {type(fit.source.origin).__name__}"]
    reasons = [*after, *before] or ["the step reads or writes more than its batch and its state"]
    ran = f"; {fit.native}" if fit.native is not None else ""
    return f"loop: tier {'B' if before and not after else 'C'} ({'; '.join(reasons)}){ran}"

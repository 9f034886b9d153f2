"""The one loop. A Fit is one call of ``trainer.fit`` in progress; callbacks get it."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from slalom.core.primitive import Array
from slalom.core.random import default_generator
from slalom.core.tensor import Tensor
from slalom.errors import DataError, DivergenceError, IndexRangeError
from slalom.nn import Module
from slalom.optim import Optimizer
from slalom.train.callbacks import Best, Callback, EarlyStopping, write
from slalom.train.checkpoint import Checkpoint
from slalom.train.divergence import diagnose, is_finite, overflow, refused
from slalom.train.feed import Batch, Order, Source, described
from slalom.train.history import History
from slalom.train.metrics import Columns
from slalom.train.native import STEP_STREAM, NativeSteps
from slalom.train.steps import Program

if TYPE_CHECKING:
    from slalom.train.trainer import Trainer

__all__ = ["EVALUATION_BATCH", "Began", "Fit", "Options", "evaluating", "set_modes", "summed", "training_modes"]

VALIDATION_STREAM: Final = 2
EVALUATION_BATCH: Final = 1024
"""Rows at once where nothing is learned, unless the training batches are larger."""
REPORT_SECONDS: Final = 0.06
"""How often ``on_steps_end`` is called, about."""


@dataclass(frozen=True)
class Options:
    """The numbers of a fit."""

    batch_size: int
    epochs: int
    seed: int
    tol: float | None


@dataclass(frozen=True)
class Began:
    """Where a fit started: the epoch, and optimizer and schedule in words, as they were then."""

    epoch: int
    optimizer: str
    schedule: str

    @staticmethod
    def now(trainer: Trainer) -> Began:
        """The state of a trainer."""
        schedule = trainer.schedule
        text = (
            f"{type(schedule).__name__} {schedule.state_dict()}"
            if hasattr(schedule, "state_dict")
            else described(schedule)
        )
        return Began(trainer.epoch, described(trainer.optimizer), text)


class Fit:
    """One fit in progress: where it is, and what it runs on.

    ``trainer``, ``model``, ``optimizer``, ``history``, ``options`` · ``epoch``: the number of the current one, from 1 ·
    ``epochs``: the number of the last one · ``batch``: how many batches of this epoch are done ·
    ``batches``: how many it has, if known · ``step``: how many updates were made, in all fits · ``loss``: of the latest
    batch · ``row``: the numbers of the last epoch that ended · ``validates``: whether there is a validation set ·
    ``tensors``: weights and buffers by name · ``checked``: those of them that must stay finite.
    """

    def __init__(
        self,
        trainer: Trainer,
        source: Source,
        validation: Source | None,
        options: Options,
        callbacks: Sequence[Callback],
        checkpoint: Checkpoint | None,
        began: Began,
    ) -> None:
        self.trainer, self.source, self.validation, self.options = trainer, source, validation, options
        self.model: Module = trainer.model
        self.optimizer: Optimizer = trainer.optimizer
        self.history: History = trainer.history
        self.callbacks, self.checkpoint = list(callbacks), checkpoint
        self.tensors: dict[str, Tensor] = trainer.tensors()
        # A buffer may hold infinities by design: a mask of what may be seen.
        self.checked = {name: t for name, t in self.tensors.items() if t.requires_grad or is_finite(t)}
        self.began, self.epoch = began, trainer.epoch + 1
        self.epochs = began.epoch + options.epochs
        self.batches = source.count(options.batch_size)
        self.batch = 0
        self.sums: Array | None = None
        self.start: dict[str, Array] = {}
        """The weights at the beginning of the epoch."""
        self.row: dict[str, float] = {}
        self.seconds = 0.0
        """Of this epoch, up to the last interruption."""
        stopping = next((c for c in self.callbacks if isinstance(c, EarlyStopping)), None)
        self.best: Best | None = stopping.best if stopping else Best() if validation is not None else None
        self.watches = stopping is None and self.best is not None
        self.reason: str | None = None
        self.interrupted = False
        self._latest: Array | None = None
        self._reported = self.step
        self._next_report = self._begun = 0.0
        self._training_modes = training_modes(self.model)
        self.native: NativeSteps | None = None
        self.step_hooks = [c for c in self.callbacks if type(c).on_step_end is not Callback.on_step_end]
        self._chunk_hooks = [c for c in self.callbacks if type(c).on_steps_end is not Callback.on_steps_end]

    @property
    def step(self) -> int:
        """How many updates were made, in all fits of the trainer."""
        return self.trainer.step

    @property
    def loss(self) -> float:
        """The loss of the latest batch; NaN before the first."""
        return float("nan") if self._latest is None else self.trainer.objective.finish(self._latest)["loss"]

    @property
    def validates(self) -> bool:
        """Whether there is a validation set."""
        return self.validation is not None

    @property
    def restores(self) -> bool:
        """Whether the weights at the end are those of the best epoch."""
        return self.best is not None and (not self.watches or self.interrupted)

    @property
    def needs_each_epoch(self) -> bool:
        """Whether anything must be done in Python at the end of each epoch."""
        hooks = ("on_epoch_begin", "on_steps_end", "on_epoch_end")
        asked = any(
            getattr(type(callback), hook) is not getattr(Callback, hook)
            for callback in self.callbacks
            if not callback._only_reads_rows
            for hook in hooks
        )
        saves = self.checkpoint is not None and self.checkpoint.unit == "epochs"
        return (
            asked
            or saves
            or self.validation is not None
            or self.options.tol is not None
            or self.trainer.schedule is not None
        )

    @property
    def running(self) -> dict[str, float]:
        """Loss and metrics over the batches of this epoch so far."""
        return {} if self.sums is None else self.trainer.objective.finish(self.sums)

    def stop(self, reason: str) -> None:
        """End the fit after the current step; the first reason given stands in ``history.stopped``."""
        self.reason = self.reason or reason

    # --- from beginning to end ------------------------------------------------------------------------------------
    def run(self, resume: bool = False) -> History:
        """Train. Raises: DivergenceError when loss or gradients are not finite; nothing of that step was written."""
        self.history.interrupted, self.history.stopped = False, None
        generator = default_generator.get_state()
        modes = {module: module.training for module in self.model.modules()}
        try:
            with np.errstate(all="ignore"), self._interruptible():
                if self.checkpoint is not None:
                    self.checkpoint.begin(self)
                self._call("on_fit_begin")
                finished = resume and self.checkpoint is not None and self.checkpoint.resume(self)
                if not finished:
                    if self.batch == 0 or not self.start:
                        self.keep()
                    self.native = NativeSteps.of(self)
                    self._epochs()
                    self._end()
        finally:
            if self.native is not None:
                self.native.end()
            default_generator.set_state(generator)
            set_modes(modes)
            self.trainer.program.forget_gradients()
        return self.history

    def _epochs(self) -> None:
        try:
            while self.trainer.epoch < self.epochs and not self._ending:
                self._epoch()
        except DivergenceError as error:
            self._roll_back()
            self.history.stopped = str(error)
            self._call("on_fit_end")
            raise
        except KeyboardInterrupt:
            if self.interrupted:  # the second one
                raise
            # Not through our handler (another thread's, a callback's own): perhaps in the middle of a step, so that
            # there is nothing to keep; the last checkpoint stands.
            self.interrupted, self.checkpoint = True, None

    @property
    def _ending(self) -> bool:
        return self.interrupted or self.reason is not None

    def _end(self) -> None:
        if self.interrupted:
            if self.checkpoint is not None:  # before the best weights come back: a resumed run goes on from here
                self.checkpoint.save(self)
            if self.best is not None:
                self.best.restore(self.tensors)
            self.history.interrupted = True
            self.reason = "interrupted"
        self.history.stopped = self.reason
        self._call("on_fit_end")
        if self.checkpoint is not None and not self.interrupted:
            self.checkpoint.save(self, finished=True)

    def _roll_back(self) -> None:
        """After a divergence: the best weights, or else the latest that are finite."""
        restored = self.best is not None and self.best.restore(self.tensors)
        if not restored and not all(map(is_finite, self.checked.values())):
            write(self.tensors, self.start)
        state = self.optimizer.state
        if not all(is_finite(t) for held in state.values() for t in held.values()):
            state.clear()

    def went_on(self) -> None:
        """Called when a checkpoint has been read."""
        self._reported = self.step

    def _call(self, hook: str) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Ctrl-C ends the fit after the current step; a second one at once."""
        ours = threading.current_thread() is threading.main_thread()
        if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return

        def handle(number: int, frame: Any) -> None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True

        signal.signal(signal.SIGINT, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    # --- one epoch ------------------------------------------------------------------------------------------------
    def _epoch(self) -> None:
        """To the end of an epoch; natively, several may end before."""
        self._begin(time.perf_counter() - self.seconds)
        set_modes(self._training_modes)
        if self.batch == 0:
            self._call("on_epoch_begin")
            if self.native is None or not self.native.whole:
                self.keep()
        for _ in self._steps(Order(self.options.seed, self.trainer.epoch)):
            self.seconds = time.perf_counter() - self._begun
            if self._ending:
                break
        self._report()
        if self.sums is None:
            raise DataError("fit: data", got="no batches", needed="at least one")
        row = None if self.interrupted else self._close()
        if row is not None:
            self._epoch_ended(row)

    def _begin(self, now: float) -> None:
        """Be in the epoch that follows those which are done."""
        self.epoch, self._begun = self.trainer.epoch + 1, now
        if self.batch == 0:
            self.sums = None

    def keep(self) -> None:
        """Keep the weights of the beginning of the epoch."""
        _keep(self.start, self.tensors)

    def passed(self, steps: int, sums: Array, now: float) -> None:
        """Note the rest of an epoch that ended in the middle of a native run, and when; its weights are gone."""
        self.trainer.step += steps
        self.sums = sums
        self.row = self._row(now)
        self.history.append(self.row)
        self._call("on_epoch_end")
        self._next()
        self._begin(now)

    def _steps(self, order: Order) -> Iterator[None]:
        """Make the rest of the epoch's steps, one or many at a time."""
        if self.native is not None:
            yield from self.native.steps(order)
        else:
            batches = iter(self.source.batches(self.options.batch_size, order, self.batch))
            while group := list(itertools.islice(batches, self.trainer.accumulate)):
                self.make_step(*group)
                yield

    def make_step(self, *batches: Batch) -> None:
        """One step, on the gradients of all these batches together.

        Raises: DivergenceError, or IndexRangeError for a class or an index that there is not; nothing was written.
        """
        trainer, program = self.trainer, self.trainer.program
        default_generator.set(self.options.seed, STEP_STREAM, trainer.step << 20)
        trainer.set_rates()
        if len(batches) == 1:
            place = default_generator.get_state()
            try:
                sums, finite = program.gradients(batches[0].items, batches[0].weight, batches[0].rows)
            except IndexRangeError as error:
                raise self._refused(batches[0], place, error) from error
            if not finite:
                raise self._diverged(batches[0], place)
        else:
            sums = self._accumulated(batches)
        program.update()
        self.made(1, sums.copy() if self.sums is None else self.sums + sums, sums, len(batches))

    def _accumulated(self, batches: Sequence[Batch]) -> Array:
        """Put the gradients of several batches, as if they were one, into ``.grad``; their sums."""
        program, total = self.trainer.program, None
        buffers = {name: buffer for name, buffer in self.tensors.items() if not buffer.requires_grad}
        before: dict[str, Array] = {}
        _keep(before, buffers)
        for batch in batches:
            place = default_generator.get_state()
            try:
                sums, finite = program.share(batch.items, batch.weight, batch.rows, first=total is None)
            except IndexRangeError as error:
                write(buffers, before)
                raise self._refused(batch, place, error) from error
            total = sums.copy() if total is None else total + sums
            if not finite or (batch is batches[-1] and not program.average(float(total[1]))):
                write(buffers, before)
                raise self._diverged(batch, place)
        assert total is not None  # there is at least one batch
        return total

    def _diverged(self, batch: Batch, place: Tensor) -> DivergenceError:
        """The error for a batch, which drew its random numbers from a place on."""
        default_generator.set_state(place)
        return diagnose(self, batch)

    def _refused(self, batch: Batch, place: Tensor, error: IndexRangeError) -> IndexRangeError:
        """The error for a batch with an index out of range, which drew its random numbers from a place on."""
        default_generator.set_state(place)
        return refused(self, batch, error)

    def made(self, steps: int, sums: Array, latest: Array, batches: int | None = None) -> None:
        """Note steps that were made, one a batch if nothing else is said: the sums of the epoch, and of the last."""
        self.sums, self._latest = sums, latest
        self.trainer.step += steps
        self.batch += steps if batches is None else batches
        for callback in self.step_hooks:
            callback.on_step_end(self)
        self._save_if(self.checkpoint is not None and self.checkpoint.due_at_step(self))
        if time.perf_counter() >= self._next_report:
            self._report()

    def _report(self) -> None:
        """Tell those that want to know about the steps since the last time."""
        steps = range(self._reported, self.step)
        self._reported = self.step
        self._next_report = time.perf_counter() + REPORT_SECONDS
        if steps:
            for callback in self._chunk_hooks:
                callback.on_steps_end(self, steps)
        self._save_if(self.checkpoint is not None and self.checkpoint.due_by_time())

    def _save_if(self, due: bool) -> None:
        """Write a checkpoint, unless the fit is about to end: that has a checkpoint of its own."""
        if due and self.checkpoint is not None and not self._ending:
            self.checkpoint.save(self)

    def _close(self) -> dict[str, float] | None:
        """The numbers of the epoch; None if validation was interrupted."""
        known = None if self.native is None else self.native.finite
        if not (all(map(is_finite, self.checked.values())) if known is None else known):
            raise overflow(self)
        row = self._row(self._begun)
        if self.validation is not None:
            measured = self._validated(self.validation)
            if measured is None:
                return None
            row |= {f"val_{name}": value for name, value in self.trainer.objective.finish(*measured).items()}
        row["seconds"] = time.perf_counter() - self._begun
        return row

    def _row(self, now: float) -> dict[str, float]:
        """The numbers of training in this epoch."""
        assert self.sums is not None, "there were batches"
        rate, seconds = self.trainer.rate(), now - self._begun
        row: dict[str, float] = {"epoch": self.epoch, "step": self.step, "seconds": seconds, "lr": rate}
        return row | self.trainer.objective.finish(self.sums)

    def _validated(self, source: Source) -> tuple[Array, Columns] | None:
        """What loss and metrics need of the validation set; None if Ctrl-C came between."""
        default_generator.set(self.options.seed, VALIDATION_STREAM, self.trainer.epoch << 20)
        batches = source.batches(max(self.options.batch_size, EVALUATION_BATCH), None)
        with evaluating(self.model):
            total = summed(self.trainer.program, itertools.takewhile(lambda _: not self.interrupted, batches))
        if total is None and not self.interrupted:
            raise DataError("fit: validation", got="no batches", needed="at least one")
        return None if self.interrupted else total

    def _epoch_ended(self, row: dict[str, float]) -> None:
        self.row = row
        self.history.append(row)
        self.trainer.end_epoch(row)
        if self.watches and self.best is not None:
            self.best.observe(row, self.tensors)
        self._call("on_epoch_end")
        tol = self.options.tol
        if tol is not None and self._largest_move() <= tol:
            self.stop(f"no parameter moved by more than {tol:g} in epoch {self.epoch}")
        self._next()
        self._save_if(
            self.checkpoint is not None and self.trainer.epoch < self.epochs and self.checkpoint.due_at_epoch(self)
        )

    def _next(self) -> None:
        """Leave an epoch behind."""
        self.trainer.epoch += 1
        self.batch, self.sums, self.seconds = 0, None, 0.0

    def _largest_move(self) -> float:
        """max |θ − θ at the beginning of the epoch| over all parameters."""
        moves = [
            float(np.abs(t.detach().numpy() - self.start[name]).max(initial=0.0))
            for name, t in self.tensors.items()
            if t.requires_grad
        ]
        return max(moves, default=0.0)


def _keep(arrays: dict[str, Array], tensors: dict[str, Tensor]) -> None:
    for name, t in tensors.items():
        np.copyto(arrays.setdefault(name, np.empty(t.shape, t.dtype)), t.detach().numpy())


def summed(program: Program, batches: Iterable[Batch]) -> tuple[Array, Columns] | None:
    """What loss and metrics need of some batches, for a model in evaluation mode; None for no batches."""
    total: Array | None = None
    columns = Columns(program.objective.whole)
    for batch in batches:
        sums = program.measure(batch.items, batch.weight, batch.rows, columns)
        total = sums.copy() if total is None else np.add(total, sums, out=total)
    return None if total is None else (total, columns)


# --- training and evaluation mode ---------------------------------------------------------------------------------
def training_modes(model: Module) -> dict[Module, bool]:
    """The modes to train in: as they are, so that a part in evaluation mode stays frozen, unless the whole model is."""
    return {module: module.training or not model.training for module in model.modules()}


def set_modes(modes: dict[Module, bool]) -> None:
    """Set the mode of each module."""
    for module, training in modes.items():
        if module.training is not training:
            module.training = training


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Evaluation mode inside this block, and the modes of before after it."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        set_modes(modes)

"""Trainer: a model, what it minimises, and what minimises it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from slalom.core import tree
from slalom.core.dtype import DType, get_default_dtype
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError, DataError
from slalom.nn import Module
from slalom.optim import LBFGS, Adam, Optimizer
from slalom.train import model_file
from slalom.train.callbacks import Callback
from slalom.train.checkpoint import Checkpoint
from slalom.train.feed import Source, source_of
from slalom.train.history import History
from slalom.train.loop import EVALUATION_BATCH, Began, Fit, Options, evaluating, summed
from slalom.train.lr_finder import RateCurve, find_lr
from slalom.train.metrics import Reading, resolve
from slalom.train.native import explained
from slalom.train.penalties import penalised
from slalom.train.progress import Progress
from slalom.train.steps import Objective, Program

__all__ = ["Trainer"]

StrPath = str | os.PathLike[str]


class Trainer:
    """Trains a model: ``fit``, ``evaluate``, ``predict``, ``save``, ``load``.

    ``loss``: a loss of ``slalom.nn`` or a function (output, target); or ``step``, a function that gets the parts of a
    batch and returns the loss, for models that are not called as model(*inputs). ``optimizer``: Adam with its defaults
    if none is given. ``metrics``: names (``["auc", "f1_macro"]``) or functions, see ``train.METRICS``. ``clip_norm``,
    ``clip_value``: limits of the gradients' norm, or of each element. ``schedule``: a function of the number of updates
    made so far that gives a factor for the optimizer's rates, or an ``optim.lr_scheduler``, stepped once an epoch
    (``ReduceLROnPlateau`` with the validation loss, or the training loss where there is no validation).
    ``class_weight``: a dict or list of the weights of classes, or "balanced"; it weights the training loss only.
    ``augment``: a function of the parts of a batch that returns as many, ``data.augment.RandomCrop(28, padding=2)`` for
    one; it changes batches of training alone, inside the recorded step, by numbers that depend on (seed, step) only.
    ``penalties``: by patterns of parameters' names, what training adds to the loss to keep them small,
    ``{"*weight": nn.L1Penalty(1e-4)}``, or a function of a list of parameters; what is reported is the loss without.
    ``accumulate``: add up the gradients of so many batches (at the end of an epoch, of those that are left) before each
    update, which is then that of one large batch, in the memory of a small one. ``compile=False``: run everything
    eagerly, to look into it with a debugger.

    With weights w of rows (``sample_weight``, times ``class_weight`` of the target) the loss of a batch is the weighted
    mean Σ wᵢ·lᵢ / Σ wᵢ, so that a weight of 2 is the row given twice; training metrics are weighted alike.

    ``history``, ``epoch`` (how many are done) and ``step`` (how many updates were made) go on when ``fit`` is called
    again.

    Raises: ConfigError for arguments that make no sense together.

    >>> from slalom import nn, optim
    >>> model = nn.Linear(1, 1)
    >>> trainer = Trainer(model, loss=nn.MSELoss(), optimizer=optim.Adam(model.parameters(), lr=0.1))
    >>> X = np.linspace(-1, 1, 64, dtype=np.float32).reshape(-1, 1)
    >>> history = trainer.fit((X, 2 * X + 1), batch_size=16, epochs=50, progress=False)
    >>> history[-1]["loss"] < 1e-3, trainer.predict(X[:2]).shape
    (True, (2, 1))
    """

    def __init__(
        self,
        model: Module,
        loss: Any = None,
        optimizer: Optimizer | None = None,
        *,
        step: Callable[..., Tensor] | None = None,
        metrics: Any = (),
        clip_norm: float | None = None,
        clip_value: float | None = None,
        schedule: Any = None,
        class_weight: Any = None,
        augment: Callable[..., Any] | None = None,
        penalties: Mapping[str, Callable[[list[Tensor]], Tensor]] | None = None,
        accumulate: int = 1,
        compile: bool = True,
    ) -> None:
        if not isinstance(model, Module):
            raise ConfigError("Trainer: model", got=type(model).__name__, needed="a Module")
        if (loss is None) == (step is None) or not callable(loss or step):
            got = "both" if loss is not None and step is not None else repr(loss if loss is not None else step)
            raise ConfigError("Trainer: loss or step", got=got, needed="one of them, a function or a loss of slalom.nn")
        if step is not None and (metrics or class_weight is not None):
            needed = "a loss, whose model gives the output that they need"
            raise ConfigError("Trainer: metrics or class_weight", got="a step of your own", needed=needed)
        if clip_norm is not None and clip_value is not None:
            raise ConfigError("Trainer: clip_norm and clip_value", got="both", needed="one of them")
        for name, value in (("clip_norm", clip_norm), ("clip_value", clip_value)):
            if value is not None and not value > 0:
                raise ConfigError(f"Trainer: {name}", got=value, needed="a number above 0")
        self.model = model
        self.optimizer = Adam(model.parameters()) if optimizer is None else optimizer
        self._check_optimizer()
        if schedule is not None and not callable(schedule) and not hasattr(schedule, "step"):
            raise ConfigError(
                "Trainer: schedule", got=repr(schedule), needed="a function of the step, or an lr_scheduler"
            )
        if augment is not None and not callable(augment):
            raise ConfigError("Trainer: augment", got=repr(augment), needed="a function of the parts of a batch")
        if type(accumulate) is not int or accumulate < 1:
            raise ConfigError("Trainer: accumulate", got=repr(accumulate), needed="a whole number of at least 1")
        self.schedule, self.class_weight, self.accumulate = schedule, class_weight, accumulate
        self.objective = Objective(model, loss, step, resolve(metrics, Reading.of(loss)))
        clip = {"norm": clip_norm, "value": clip_value}
        self.program = Program(self.objective, self.optimizer, clip, compile, augment, penalised(model, penalties))
        self.history = History()
        self.epoch = 0
        self.step = 0
        self.base_rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self._unfinished: tuple[str, Began] | None = None
        self._loop = "loop: no fit yet"

    def _check_optimizer(self) -> None:
        if not isinstance(self.optimizer, Optimizer):
            raise ConfigError("Trainer: optimizer", got=repr(self.optimizer), needed="an optimizer of slalom.optim")
        if isinstance(self.optimizer, LBFGS):
            hint = "in a loop of your own, call optimizer.step(closure) with all the data"
            raise ConfigError("Trainer: optimizer", got="LBFGS", needed="one that moves once a batch", hint=hint)
        own = {id(p) for p in self.model.parameters()}
        held = [p for group in self.optimizer.param_groups for p in group["params"]]
        if own and not any(id(p) in own for p in held):
            hint = "make the optimizer from model.parameters() of this very model"
            raise ConfigError("Trainer: optimizer", got="none of the model's parameters", needed="some", hint=hint)

    # --- training -------------------------------------------------------------------------------------------------
    def fit(
        self,
        data: Any,
        *,
        batch_size: int | None = 128,
        epochs: int = 10,
        validation: Any = None,
        sample_weight: Any = None,
        callbacks: Sequence[Callback] = (),
        seed: int = 0,
        progress: bool = True,
        tol: float | None = None,
        checkpoint: StrPath | Checkpoint | None = None,
        checkpoint_every: float | str | None = None,
        resume: bool = False,
    ) -> History:
        """Train for some epochs, or on from where the last fit ended; returns the history of all of them.

        ``data``: a tuple of arrays or tensors, the target last, a Dataset, or a DataLoader (which brings its own batch
        size and order). ``batch_size=None``: all rows at once. Arrays and Datasets are shuffled each epoch, in an
        order that depends on (seed, epoch) only; dropout depends on (seed, step) only. A last batch of one row joins
        the batch before it. ``validation``: the same kinds of data, measured after each epoch. ``tol``: stop after an
        epoch in which no parameter moved by more than this. ``checkpoint``: a file to keep the state of the fit in,
        every so many seconds, or "100 steps", or "2 epochs" (by default in a twentieth of the time); with ``resume`` a
        fit that was interrupted or killed goes on from there, and ends with the same bits as one that never was.

        The weights at the end are the last ones; the best ones with ``EarlyStopping``. Ctrl-C ends the fit after the
        current step with the best weights, if there is a validation set, and ``history.interrupted``.

        Raises: DataError, ConfigError; DivergenceError when a loss or gradient is not finite: that step has written
        nothing, and the best weights are back, if there is a validation set.
        """
        source = self._source("fit", data, sample_weight, self.class_weight)
        checked = None if validation is None else self._source("fit: validation", validation)
        given = list(callbacks)
        for callback in given:
            if not isinstance(callback, Callback):
                raise ConfigError("fit: callback", got=repr(callback), needed="a Callback")
        keepers = [callback for callback in given if isinstance(callback, Checkpoint)]
        if checkpoint is not None:
            keepers.append(
                checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint, checkpoint_every)
            )
        if len(keepers) > 1 or (resume and not keepers):
            raise ConfigError(
                "fit: checkpoint", got=f"{len(keepers)} of them", needed="one" if resume else "at most one"
            )
        keeper = keepers[0] if keepers else None
        given = [callback for callback in given if not isinstance(callback, Checkpoint)]
        shown = Progress() if progress else None
        options = self._options(source, batch_size, epochs, seed, tol)
        began = Began.now(self)
        if resume and self._unfinished is not None and keeper is not None and self._unfinished[0] == str(keeper.path):
            began = self._unfinished[1]
        fit = Fit(self, source, checked, options, [*given, *([shown] if shown else [])], keeper, began)
        try:
            return fit.run(resume)
        finally:
            self._unfinished = (str(keeper.path), began) if keeper is not None and fit.interrupted else None
            self._loop = explained(fit)
            if shown is not None:
                shown.close()

    def _options(self, source: Source, batch_size: int | None, epochs: Any, seed: Any, tol: float | None) -> Options:
        whole = isinstance(epochs, int | np.integer) and not isinstance(epochs, bool)
        if not whole or epochs < 0:
            raise ConfigError("fit: epochs", got=epochs, needed="an integer of at least 0")
        if tol is not None and not tol >= 0:
            raise ConfigError("fit: tol", got=tol, needed="a number of at least 0")
        if not isinstance(seed, int | np.integer) or isinstance(seed, bool):
            raise ConfigError("fit: seed", got=repr(seed), needed="an integer")
        size = source.rows if batch_size is None else batch_size
        if size is None:
            raise ConfigError("fit: batch_size", got="None, with a loader", needed="the loader's own")
        source.count(size)  # raises for a size that is none
        return Options(int(size), int(epochs), int(seed), tol)

    def _source(self, what: str, data: Any, sample_weight: Any = None, class_weight: Any = None) -> Source:
        return source_of(what, data, self._dtype(), sample_weight, class_weight)

    def _dtype(self) -> DType:
        """The model's floating dtype."""
        return next((p.dtype for p in self.model.parameters() if p.dtype.kind == "f"), get_default_dtype())

    def tensors(self) -> dict[str, Tensor]:
        """All that a fit changes, by name: weights and buffers of model and loss, and what else is trained."""
        found: dict[str, Tensor] = dict([*self.model.named_parameters(), *self.model.named_buffers()])
        if isinstance(self.objective.loss, Module):
            members = [*self.objective.loss.named_parameters(), *self.objective.loss.named_buffers()]
            found |= {f"loss.{name}": t for name, t in members}
        known = {id(t) for t in found.values()}
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        return found | {f"optimizer.{i}": p for i, p in enumerate(trained) if id(p) not in known}

    # --- the learning rate ----------------------------------------------------------------------------------------
    def find_lr(
        self,
        data: Any,
        *,
        batch_size: int | None = 128,
        low: float = 1e-7,
        high: float = 10.0,
        steps: int = 100,
        sample_weight: Any = None,
        seed: int = 0,
    ) -> RateCurve:
        """Try learning rates from ``low`` to ``high``, one a batch, and suggest that at which the loss falls fastest.

        The rate of the first group rises geometrically, the others' in proportion; the test ends where the loss
        diverges. Model, optimizer, history and random numbers are afterwards as they were; during the test the
        optimizer has no state of earlier steps. ``curve.plot()`` draws what was seen (matplotlib).

        Raises: ConfigError for rates that do not ascend; DataError where not even the first loss is finite.
        Source: Smith (2017), "Cyclical learning rates for training neural networks", section 3.3; the choice of the
        steepest descent is that of fastai's ``lr_find``.
        Note: a hint, not a measurement: schedules with a warm-up bear several times as much.

        >>> from slalom import nn
        >>> trainer = Trainer(nn.Linear(1, 1), loss=nn.MSELoss())
        >>> X = np.linspace(-1, 1, 64, dtype=np.float32).reshape(-1, 1)
        >>> curve = trainer.find_lr((X, 2 * X + 1), batch_size=16)
        >>> 1e-3 < curve.suggestion < 1, trainer.step
        (True, 0)
        """
        source = self._source("find_lr", data, sample_weight, self.class_weight)
        options = self._options(source, batch_size, 0, seed, None)
        return find_lr(self, source, options.batch_size, low, high, steps, options.seed)

    def rate(self) -> float:
        """The learning rate of the first group, now."""
        return float(self.optimizer.param_groups[0]["lr"])

    def set_rates(self) -> None:
        """Set the rates of the next update, where a function of the step gives them."""
        if self.schedule is None or hasattr(self.schedule, "step"):
            return
        factor = float(self.schedule(self.step))
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(base * factor)
            else:
                group["lr"] = base * factor

    def end_epoch(self, row: dict[str, float]) -> None:
        """Let a scheduler with a ``step`` of its own go to the next epoch; ``row``: the numbers of the last."""
        if getattr(self.schedule, "needs_a_metric", False):
            self.schedule.step(row.get("val_loss", row["loss"]))
        elif hasattr(self.schedule, "step"):
            self.schedule.step()

    # --- evaluation -----------------------------------------------------------------------------------------------
    def evaluate(self, data: Any, *, batch_size: int = EVALUATION_BATCH, sample_weight: Any = None) -> dict[str, float]:
        """Loss and metrics of the model in evaluation mode, over all rows of some data.

        The loss is what the loss function gives on all rows at once, up to rounding, whatever the batch size.

        >>> from slalom import nn
        >>> trainer = Trainer(nn.Identity(), loss=nn.MSELoss(), optimizer=Adam([Tensor(0.0)]), metrics=["mae"])
        >>> trainer.evaluate((np.zeros((3, 1)), np.full((3, 1), 2.0)))
        {'loss': 4.0, 'mae': 2.0}
        """
        source = self._source("evaluate", data, sample_weight)
        with np.errstate(all="ignore"), evaluating(self.model):
            measured = summed(self.program, source.batches(batch_size, None))
        if measured is None:
            raise DataError("evaluate: data", got="no batches", needed="at least one")
        return self.objective.finish(*measured)

    def predict(self, data: Any, *, batch_size: int = EVALUATION_BATCH) -> Any:
        """The outputs of the model in evaluation mode for all rows, as NumPy arrays.

        ``data``: X, or a tuple of arrays for a model of several inputs; or a Dataset or DataLoader, whose rows end with
        a target, which is left out.
        """
        source = source_of("predict", data, self._dtype(), empty=True)
        outputs = []
        with np.errstate(all="ignore"), evaluating(self.model):
            for batch in source.batches(batch_size, None):
                inputs = batch.items if source.origin is None or len(batch.items) == 1 else batch.items[:-1]
                outputs.append(self.program.predict(inputs, batch.rows))
        if not outputs:
            raise DataError("predict: data", got="no batches", needed="at least one")
        return _joined(outputs)

    # --- files ----------------------------------------------------------------------------------------------------
    def save(self, path: StrPath) -> None:
        """Write the model to a file that ``slalom.load`` or this trainer's ``load`` reads.

        Raises: ModelFileError when it cannot be written.
        """
        model_file.save(self.model, path)

    def load(self, path: StrPath) -> None:
        """Fill the model with the weights of a file, also a model of the user's own.

        Raises: ModelFileError naming what does not fit; then nothing was written.
        """
        model_file.load_weights(self.model, path)

    # --- what runs ------------------------------------------------------------------------------------------------
    def explain(self) -> str:
        """What ran natively, what as one recorded graph and what in Python, and why: of the latest fit.

        The tiers of the loop: A, all of it native · B, native steps on batches made in Python (a Dataset or loader) ·
        C, native steps with Python after each (a callback's ``on_step_end``, a metric that cannot be recorded).
        """
        return "\n".join([self._loop, *self.program.explain()])


def _joined(outputs: list[Any]) -> Any:
    """The outputs of batches one after the other, in the tree that the model returns."""
    columns = zip(*(tree.leaves(output) for output in outputs), strict=True)
    joined = [
        np.concatenate([t.numpy() for t in column]) if len(column) > 1 else column[0].numpy() for column in columns
    ]
    parts = iter(joined)
    return tree.map(lambda t: next(parts), outputs[0])

"""Callbacks: what a fit calls at fixed places. All hooks do nothing unless they are overridden.

The order of one fit::

    on_fit_begin
        on_epoch_begin
            on_step_end, on_step_end, …, on_steps_end(range of the steps since the last call), …
        on_epoch_end                        # the epoch's row, validation included, is fit.row and in the history
    on_fit_end

Several callbacks are called in the order in which they were given.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from slalom.core.primitive import Array
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError
from slalom.train.metrics import is_score

if TYPE_CHECKING:
    from slalom.train.loop import Fit

__all__ = ["Best", "Callback", "EarlyStopping"]


class Callback:
    """Base of all callbacks. ``fit`` is the fit in progress.

    It knows ``trainer``, ``model``, ``optimizer``, ``history``, ``epoch`` and ``epochs`` (the numbers of the current
    epoch, from 1, and of the last one), ``step`` (updates made so far), ``loss`` (of the latest batch), ``row`` (what
    was measured in the epoch just ended), and ``stop(reason)`` ends the fit after the current step.

    Note: ``on_step_end`` makes the loop come back to Python after every step. ``on_steps_end`` does not: when it is
    called is a matter of time, so nothing in it may change the course of the training, but for ``stop``.
    """

    _only_reads_rows: ClassVar[bool] = False
    """Whether what is called at the ends of epochs looks at nothing but their numbers, and may be called later."""

    def on_fit_begin(self, fit: Fit) -> None:
        """Before the first step."""

    def on_epoch_begin(self, fit: Fit) -> None:
        """Before the first batch of an epoch."""

    def on_steps_end(self, fit: Fit, steps: range) -> None:
        """Several times a second and at the end of each epoch; ``steps``: those ended since the last call."""

    def on_step_end(self, fit: Fit) -> None:
        """After each update; the gradients it was made with are still in ``.grad``."""

    def on_epoch_end(self, fit: Fit) -> None:
        """After validation."""

    def on_fit_end(self, fit: Fit) -> None:
        """At the end, however it came about."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must keep: numbers, strings, None, arrays, and lists and dicts of them."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` returned."""


class Best:
    """The weights of the epoch at which a monitored number was best, and that number.

    ``mode``: "min", "max", or "auto": "min" for losses and errors, "max" for scores such as accuracy and r2.
    """

    def __init__(self, monitor: str = "val_loss", mode: str = "auto") -> None:
        if mode not in ("auto", "min", "max"):
            raise ConfigError("mode", got=repr(mode), needed="'auto', 'min' or 'max'")
        self.monitor = monitor
        self.sign = -1.0 if mode == "max" or (mode == "auto" and is_score(monitor.removeprefix("val_"))) else 1.0
        self.clear()

    def clear(self) -> None:
        """Know nothing yet."""
        self.value = math.nan
        self.epoch: int | None = None
        self.weights: dict[str, Array] = {}

    def read(self, row: dict[str, float]) -> float:
        """The monitored number of an epoch. Raises: ConfigError when there is none of that name."""
        if self.monitor not in row:
            hint = "give fit a validation set" if self.monitor.startswith("val_") else None
            raise ConfigError("monitor", got=repr(self.monitor), needed=f"one of {', '.join(row)}", hint=hint)
        return row[self.monitor]

    def observe(self, row: dict[str, float], tensors: dict[str, Tensor]) -> None:
        """Keep these weights if the number is better than any before; NaN is never better."""
        value = self.read(row)
        if math.isnan(value) or (self.epoch is not None and not self.better(value, self.value)):
            return
        self.value, self.epoch = value, int(row["epoch"])
        for name, t in tensors.items():
            held = self.weights.setdefault(name, np.empty(t.shape, t.dtype))
            np.copyto(held, t.detach().numpy())

    def better(self, value: float, than: float, by: float = 0.0) -> bool:
        """Whether one number is better than another by more than ``by``."""
        return self.sign * value < self.sign * than - by

    def restore(self, tensors: dict[str, Tensor]) -> bool:
        """Write the kept weights back; False when there are none."""
        if self.epoch is None:
            return False
        write(tensors, self.weights)
        return True

    def state_dict(self) -> dict[str, Any]:
        """Everything, for a checkpoint."""
        return {"value": self.value, "epoch": self.epoch, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` returned."""
        self.value, self.epoch = state["value"], state["epoch"]
        self.weights = {name: array.copy() for name, array in state["weights"].items()}


def write(tensors: dict[str, Tensor], arrays: dict[str, Array]) -> None:
    """Copy arrays into the tensors of the same names."""
    for name, t in tensors.items():
        t.detach().assign(Tensor._of(arrays[name]))


class EarlyStopping(Callback):
    """Stop when a monitored number has not become better for some time; the best weights come back at the end.

    ``patience``: after how many epochs in a row without an improvement by more than ``min_delta`` to stop.

    Note: the weights of the best epoch (by any margin) are restored however the fit ends, also after its last epoch;
    Keras restores them only where it stops early (keras #12511), PyTorch has no such thing.

    >>> EarlyStopping("val_accuracy", patience=5)
    EarlyStopping('val_accuracy', mode='max', patience=5, min_delta=0.0)
    """

    def __init__(
        self, monitor: str = "val_loss", patience: int = 10, min_delta: float = 0.0, mode: str = "auto"
    ) -> None:
        if patience < 0 or isinstance(patience, bool):
            raise ConfigError("EarlyStopping: patience", got=patience, needed="a number of epochs, 0 or more")
        if not min_delta >= 0:
            raise ConfigError("EarlyStopping: min_delta", got=min_delta, needed="a number of at least 0")
        self.patience, self.min_delta = patience, float(min_delta)
        self.best = Best(monitor, mode)
        self.reference = math.nan
        self.wait = 0

    def on_fit_begin(self, fit: Fit) -> None:
        """Start anew. Raises: ConfigError when a validation number is monitored and there is no validation."""
        if self.best.monitor.startswith("val_") and not fit.validates:
            needed = "a validation set"
            raise ConfigError(
                f"EarlyStopping of {self.best.monitor!r}", got="none", needed=needed, hint="validation=(Xv, yv)"
            )
        self.best.clear()
        self.reference, self.wait = math.nan, 0

    def on_epoch_end(self, fit: Fit) -> None:
        """Look at the number."""
        value = self.best.read(fit.row)
        self.best.observe(fit.row, fit.tensors)
        if not math.isnan(value) and (
            math.isnan(self.reference) or self.best.better(value, self.reference, self.min_delta)
        ):
            self.reference, self.wait = value, 0
            return
        self.wait += 1
        if self.wait >= max(self.patience, 1):
            since = (
                "from the first epoch on"
                if self.best.epoch is None
                else f"best {self.best.value:.6g} in epoch {self.best.epoch}"
            )
            fit.stop(f"{self.best.monitor} did not improve for {self.wait} epochs ({since})")

    def on_fit_end(self, fit: Fit) -> None:
        """Bring the best weights back."""
        self.best.restore(fit.tensors)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best.state_dict(), "reference": self.reference, "wait": self.wait}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best.load_state_dict(state["best"])
        self.reference, self.wait = state["reference"], state["wait"]

    def __repr__(self) -> str:
        mode = "min" if self.best.sign > 0 else "max"
        monitor = self.best.monitor
        return f"EarlyStopping({monitor!r}, mode={mode!r}, patience={self.patience}, min_delta={self.min_delta})"

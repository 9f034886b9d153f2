"""Checkpoints: all that a fit needs to go on as if it had never stopped, in one file.

The file's document is a tree of plain JSON in which each array stands as ``{"$array": name}``; the arrays are the
file's tensors. The data and settings of the fit are part of it, so that nothing else can be resumed by mistake.
"""

from __future__ import annotations

import os
import re
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from slalom.core.dtype import get_default_dtype
from slalom.core.primitive import Array
from slalom.core.random import default_generator
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError, ModelFileError
from slalom.nn import Module
from slalom.train.callbacks import Callback, write
from slalom.train.feed import described
from slalom.train.files import arrays_sha256, load_newest, save_file
from slalom.train.progress import Progress

if TYPE_CHECKING:
    from slalom.train.loop import Fit

__all__ = ["Checkpoint", "pack", "previous_path", "unpack"]

StrPath = str | os.PathLike[str]
_ARRAY: Final = "$array"
_ABSENT: Final = object()


class Checkpoint(Callback):
    """Keep a checkpoint of the fit at ``path``, and the one before it beside it; the newest is always whole.

    ``every``: seconds, or a text such as "100 steps", "1 epoch"; by default as often as writing takes less than a
    twentieth of the time. Whatever it is, one is written at the end, and when the fit is interrupted.
    ``fit(…, checkpoint=path, checkpoint_every=…)`` is the same.

    >>> Checkpoint("run.safetensors", every="2 epochs").previous.name
    'run.previous.safetensors'
    """

    def __init__(self, path: StrPath, every: float | str | None = None) -> None:
        self.path = Path(path)
        self.previous = previous_path(path)
        self.count: float | None
        self.count, self.unit = (None, "seconds") if every is None else _interval(every)
        self._written = time.perf_counter()
        self._cost = 0.0
        self._settings: dict[str, Any] | None = None

    def begin(self, fit: Fit) -> None:
        """Note what a fit runs on, before anything changes it."""
        self._settings = settings_of(fit)
        self._written = time.perf_counter()

    def due_at_step(self, fit: Fit) -> bool:
        """Whether to write after this step."""
        return self.unit == "steps" and fit.step % int(self.count or 1) == 0

    def steps_until_due(self, fit: Fit) -> int:
        """After how many more steps it may be due: so many can be made at once."""
        every = int(self.count or 1)
        return every - fit.step % every if self.unit == "steps" else sys.maxsize

    def due_at_epoch(self, fit: Fit) -> bool:
        """Whether to write between two epochs."""
        return self.due_by_time() or (self.unit == "epochs" and fit.trainer.epoch % int(self.count or 1) == 0)

    def due_by_time(self) -> bool:
        """Whether the last one is old enough."""
        wait = 20 * self._cost if self.count is None else self.count
        return self.unit == "seconds" and time.perf_counter() - self._written >= wait

    def save(self, fit: Fit, finished: bool = False) -> None:
        """Write the state of a fit. Raises: ModelFileError when that fails; the last checkpoint is intact then."""
        began = time.perf_counter()
        arrays: dict[str, Array] = {}
        state = {"settings": self._settings, **_state_of(fit), "finished": finished}
        document = pack(state, arrays)
        save_file(self.path, arrays, document, "checkpoint", keep_previous=self.previous.name)
        self._written = time.perf_counter()
        self._cost = self._written - began

    def resume(self, fit: Fit) -> bool:
        """Bring a fit to where its checkpoint was written, if there is one; whether the fit had ended there.

        Raises: ModelFileError when neither the newest nor its predecessor is whole; ConfigError naming what differs
        for a checkpoint of other data or settings. Nothing is changed then.
        """
        if not self.path.exists() and not self.previous.exists():
            return False
        arrays, document, found = load_newest([self.path, self.previous], "checkpoint")
        if found != self.path:
            warnings.warn(
                f"checkpoint {self.path} is damaged or missing; going on from its predecessor {found.name}",
                RuntimeWarning,
                stacklevel=4,
            )
        try:
            state = unpack(document, arrays)
            _check_settings(found, state["settings"], self._settings or {})
            _restore(fit, state)
            return bool(state["finished"])
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ModelFileError(f"{found} is no checkpoint of this version", got=repr(error)) from error

    def __repr__(self) -> str:
        every = "" if self.count is None else f", every='{self.count:g} {self.unit}'"
        return f"Checkpoint({str(self.path)!r}{every})"


def previous_path(path: StrPath) -> Path:
    """Where the predecessor of a checkpoint is kept."""
    path = Path(path)
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def _interval(every: float | str) -> tuple[float, str]:
    match = re.fullmatch(r"([1-9]\d*) ?(step|epoch)s?", every) if isinstance(every, str) else None
    if match:
        return int(match[1]), f"{match[2]}s"
    if isinstance(every, (str, bool)) or not every >= 0:
        raise ConfigError("checkpoint: every", got=repr(every), needed="seconds, or a text like '100 steps', '1 epoch'")
    return float(every), "seconds"


# --- trees of numbers, strings and arrays ------------------------------------------------------------------------
def pack(value: Any, arrays: dict[str, Array], path: str = "") -> Any:
    """A tree as plain JSON; its arrays and tensors go to ``arrays`` under the path where they stand."""
    if isinstance(value, Tensor):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray):
        arrays[path] = value
        return {_ARRAY: path}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ConfigError("state for a checkpoint", got=f"keys {list(value)[:3]}", needed="strings")
        return {key: pack(item, arrays, f"{path}/{key}" if path else key) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [pack(item, arrays, f"{path}/{i}" if path else str(i)) for i, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(
        "state for a checkpoint", got=type(value).__name__, needed="numbers, strings, arrays, lists, dicts"
    )


def unpack(value: Any, arrays: Mapping[str, Array]) -> Any:
    """The tree that ``pack`` was given, with lists for tuples and arrays for tensors."""
    if isinstance(value, dict):
        if value.keys() == {_ARRAY}:
            return arrays[value[_ARRAY]]
        return {key: unpack(item, arrays) for key, item in value.items()}
    return [unpack(item, arrays) for item in value] if isinstance(value, list) else value


# --- the state of a fit ------------------------------------------------------------------------------------------
def _state_of(fit: Fit) -> dict[str, Any]:
    trainer, schedule = fit.trainer, fit.trainer.schedule
    return {
        "step": fit.step,
        "epoch": trainer.epoch,
        "batch": fit.batch,
        "seconds": fit.seconds,
        "stopped": fit.reason,
        "sums": fit.sums,
        "sizes": {name: list(sizes) for name, sizes in trainer.objective.sizes[False].items()},
        "outside": trainer.objective.outside,
        "generator": default_generator.get_state(),
        "weights": dict(fit.tensors),
        "start": fit.start if fit.options.tol is not None else None,
        "best": fit.best.state_dict() if fit.best is not None and fit.watches else None,
        "optimizer": _optimizer_state(trainer.optimizer.state_dict()),
        "schedule": schedule.state_dict() if hasattr(schedule, "state_dict") else None,
        "callbacks": [callback.state_dict() for callback in _kept(fit)],
        "history": fit.history.rows,
    }


def _kept(fit: Fit) -> list[Callback]:
    """The callbacks whose state is part of a checkpoint: all that are the user's."""
    return [c for c in fit.callbacks if not isinstance(c, Progress)]


def _restore(fit: Fit, state: dict[str, Any]) -> None:
    trainer = fit.trainer
    missing = fit.tensors.keys() ^ state["weights"].keys()
    if missing:
        raise ModelFileError("checkpoint: weights", got=", ".join(sorted(missing)), needed="those of this model")
    held = {int(i): slots for i, slots in state["optimizer"]["state"].items()}
    trainer.optimizer.load_state_dict({**state["optimizer"], "state": held})
    write(fit.tensors, state["weights"])
    trainer.step, trainer.epoch = state["step"], state["epoch"]
    fit.batch, fit.seconds = state["batch"], state["seconds"]
    fit.reason, fit.sums = state["stopped"], state["sums"]
    fit.history.stopped = state["stopped"]
    trainer.objective.sizes[False] = {name: tuple(sizes) for name, sizes in state["sizes"].items()}
    trainer.objective.outside.update(state["outside"])
    fit.start = {name: array.copy() for name, array in (state["start"] or {}).items()}
    if fit.best is not None and fit.watches:
        fit.best.load_state_dict(state["best"])
    if state["schedule"] is not None:
        trainer.schedule.load_state_dict(state["schedule"])
    for callback, kept in zip(_kept(fit), state["callbacks"], strict=True):
        callback.load_state_dict(kept)
    fit.history.rows[:] = state["history"]
    default_generator.set_state(Tensor(state["generator"]))
    fit.went_on()


def _optimizer_state(state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state dict with strings for keys."""
    return {"state": {str(i): held for i, held in state["state"].items()}, "param_groups": state["param_groups"]}


# --- the data and settings of a fit ------------------------------------------------------------------------------
def settings_of(fit: Fit) -> dict[str, Any]:
    """What a fit runs on, by name, in plain JSON: a resumed one must have the same."""
    trainer, options = fit.trainer, fit.options
    found: dict[str, Any] = {f"data: {name}": value for name, value in fit.source.digest().items()}
    for name, weights in (("sample_weight", fit.source.weight), ("class_weight", fit.source.by_class)):
        found[name] = None if weights is None else arrays_sha256({"": weights})
    if fit.validation is not None:
        found |= {f"validation: {name}": value for name, value in fit.validation.digest().items()}
    found |= {"batch_size": options.batch_size, "seed": options.seed, "tol": options.tol}
    found |= {"epochs": f"{fit.began.epoch} to {fit.epochs}"}
    found |= {"optimizer": fit.began.optimizer, "schedule": fit.began.schedule}
    found["model"] = described(fit.model)
    found["weights"] = {name: f"{t.dtype.name}{list(t.shape)}" for name, t in fit.tensors.items()}
    found["loss"] = _described_loss(trainer.objective.step or trainer.objective.loss)
    found |= {f"clip_{name}": value for name, value in trainer.program.clip.items()}
    if trainer.accumulate > 1:
        found["accumulate"] = trainer.accumulate
    if trainer.program.penalties:
        found["penalties"] = {each.pattern: described(each.penalty) for each in trainer.program.penalties}
    if trainer.program.augment is not None:
        found["augment"] = described(trainer.program.augment)
    found["metrics"] = [metric.name for metric in trainer.objective.metrics]
    found["callbacks"] = [described(c) for c in _kept(fit)]
    found["default dtype"] = get_default_dtype().name
    return found


def _described_loss(loss: Any) -> str:
    if not isinstance(loss, Module):
        return described(loss)
    options = {name: getattr(loss, name) for name in loss.__constants__}
    weights = {name: t.detach().numpy() for name, t in loss.named_buffers()}
    return f"{described(loss)} {options} {arrays_sha256(weights) if weights else ''}"


def _check_settings(path: Path, saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    names = [name for name in {**own, **saved} if saved.get(name, _ABSENT) != own.get(name, _ABSENT)]
    if names:
        pairs = [(name, *_apart(str(own.get(name)), str(saved.get(name)))) for name in names]
        got = ", ".join(f"{name} {text}" for name, text, _ in pairs)
        needed = ", ".join(f"{name} {text}" for name, _, text in pairs)
        hint = "give fit what the checkpoint was made with, or another checkpoint path"
        raise ConfigError(f"resuming {path} with other data or settings", got=got, needed=needed, hint=hint)


def _apart(a: str, b: str) -> tuple[str, str]:
    """Two texts on one line each, of long ones the part where they begin to differ."""
    a, b = " ".join(a.split()), " ".join(b.split())
    if max(len(a), len(b)) <= 80:
        return a, b
    same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    start = max(same - 30, 0)
    cut = [f"{'…' if start else ''}{text[start : start + 75]}{'…' if text[start + 75 :] else ''}" for text in (a, b)]
    return cut[0], cut[1]

"""Where a training step stopped being finite, or was refused: the batch is run once more, eagerly, module by module."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from slalom.core import tree
from slalom.core.autodiff import no_grad
from slalom.core.tensor import Tensor
from slalom.errors import DivergenceError, IndexRangeError
from slalom.nn import Module

if TYPE_CHECKING:
    from slalom.train.feed import Batch
    from slalom.train.loop import Fit

__all__ = ["diagnose", "is_finite", "overflow", "refused"]

_SLOWER = "a lower learning rate, or clip_norm="


def is_finite(t: Tensor) -> bool:
    """Whether no value is infinite or NaN."""
    array = t.detach().numpy()
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def diagnose(fit: Fit, batch: Batch) -> DivergenceError:
    """The error for a batch whose loss or gradients are not finite. Leaves weights and buffers as they were.

    Its attributes: ``step`` and ``epoch``, counted from 1, and ``module``, the path of the first module whose output is
    not finite (None where it is something else).
    """
    for name, t in fit.checked.items():
        if not is_finite(t):
            return _error(fit, fit.step, f"the update left {name!r} with values that are not finite", hint=_SLOWER)
    names = [*(f"input {i}" for i in range(len(batch.items) - 1)), "the target"]
    for name, item in zip(names, batch.items, strict=True):
        for t in tree.leaves(item):
            if not is_finite(t):
                rows = np.nonzero(~np.isfinite(t.numpy().reshape(t.shape[0], -1)).all(axis=1))[0]
                row = rows[0] if batch.which is None else batch.which[rows[0]]
                where = "of the batch" if batch.which is None else "of the data"
                return _error(fit, fit.step + 1, f"{name} is not finite in row {row} {where}")
    return _replayed(fit, batch)


def refused(fit: Fit, batch: Batch, error: IndexRangeError) -> IndexRangeError:
    """What the eager step says of a batch that the recorded one refused: it knows the class, and names the module."""
    with _buffers_kept(fit):
        try:
            _eager_loss(fit, batch)
        except IndexRangeError as told:
            return told
    return error


def overflow(fit: Fit) -> DivergenceError:
    """The error for weights found to be not finite at the end of an epoch."""
    name = next(name for name, t in fit.checked.items() if not is_finite(t))
    return _error(fit, fit.step, f"an update left {name!r} with values that are not finite", hint=_SLOWER)


@contextmanager
def _buffers_kept(fit: Fit) -> Iterator[None]:
    buffers = [(buffer, Tensor(buffer.detach().numpy())) for buffer in fit.model.buffers()]
    try:
        yield
    finally:
        with no_grad():
            for buffer, before in buffers:
                buffer.assign(before)


def _eager_loss(fit: Fit, batch: Batch) -> Tensor:
    return fit.trainer.objective(fit.trainer.program.augmented(batch.items), batch.weight)[0]


def _replayed(fit: Fit, batch: Batch) -> DivergenceError:
    found: list[tuple[str, Module]] = []
    paths = {module: path for path, module in fit.model.named_modules()}

    def look(module: Module, inputs: Any, output: Any) -> None:
        if not found and not all(map(is_finite, tree.leaves(output))):
            found.append((paths[module], module))

    hooks = [module.register_forward_hook(look) for module in fit.model.modules()]
    try:
        with _buffers_kept(fit):
            loss = _eager_loss(fit, batch)
            value = float(loss.detach().item())
            if math.isfinite(value):
                fit.trainer.program.forget_gradients()
                fit.trainer.program.minimised(loss).backward()
    finally:
        for hook in hooks:
            hook.remove()
    if not math.isfinite(value):
        if not found:
            return _error(fit, fit.step + 1, f"the loss is {value}, from an output of the model that is finite")
        path, module = found[0]
        where = f"model.{path}" if path else "model"
        text = f"the loss is {value}; the first output that is not finite is that of {where} ({module._label()})"
        return _error(fit, fit.step + 1, text, path, _SLOWER)
    # Backward goes from the last layer to the first: the last parameter is where it began.
    for name, p in reversed(list(fit.model.named_parameters())):
        if p.grad is not None and not is_finite(p.grad):
            text = f"the loss is {value:.6g}, but the gradient of {name!r} is not finite"
            return _error(fit, fit.step + 1, text, name.rpartition(".")[0])
    if not is_finite(fit.trainer.program.limited_gradients()):
        return _error(fit, fit.step + 1, "the gradients are so large that their sum or norm overflows", hint=_SLOWER)
    text = "the recorded step gives values that are not finite, but run eagerly the same batch does not"
    hint = "numbers inside lists stay what they were when the step was recorded; keep them in tensors or attributes"
    return _error(fit, fit.step + 1, text, hint=hint)


def _error(fit: Fit, step: int, what: str, module: str | None = None, hint: str | None = None) -> DivergenceError:
    error = DivergenceError(f"training diverged in step {step} (epoch {fit.epoch}): {what}", hint=hint)
    error.step, error.epoch, error.module = step, fit.epoch, module  # type: ignore[attr-defined]
    return error

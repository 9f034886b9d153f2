"""What losses share: reductions, and the checks of their inputs."""

from __future__ import annotations

import warnings
from typing import Any

from slalom.core.functional.registry import loss as registered
from slalom.core.tensor import Tensor, as_tensor
from slalom.errors import ConfigError, DTypeError, ShapeError

__all__ = ["class_numbers", "compared", "powered", "reduced", "registered", "same_shape", "signs", "weighted"]


def reduced(loss: Tensor, reduction: str, total: Any = None) -> Tensor:
    """The loss of each element, their sum, or their mean (the sum divided by ``total`` if given)."""
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if reduction == "mean":
        return loss.mean() if total is None else loss.sum() / total
    raise ConfigError("reduction", got=repr(reduction), needed="'mean', 'sum' or 'none'")


def weighted(loss: Tensor, weight: Tensor | None) -> Tensor:
    """Each element's loss times a weight that broadcasts to it. Raises: ShapeError for one that is larger."""
    if weight is None:
        return loss
    out = loss * weight
    if out.shape != loss.shape:
        raise ShapeError("weight", got=f"shape {weight.shape}", needed=f"one that broadcasts to {loss.shape}")
    return out


def compared(name: str, input: Tensor, target: Any) -> Tensor:
    """The target of a regression as a tensor; another shape than the input's is broadcast with a warning."""
    goal: Tensor = as_tensor(target, input)
    if goal.shape != input.shape:
        warnings.warn(
            f"{name}: input {input.shape} and target {goal.shape} are broadcast to each other, which is seldom "
            "meant; give them equal shapes",
            UserWarning,
            stacklevel=3,
        )
    return goal


def same_shape(name: str, input: Tensor, target: Any) -> Tensor:
    """The target in the input's dtype. Raises: ShapeError unless it has the input's shape."""
    target = as_tensor(target, input)
    if target.shape != input.shape:
        raise ShapeError(
            f"{name}: target", got=f"shape {target.shape}", needed=f"{input.shape}, the input's", hint="reshape one"
        )
    converted: Tensor = target.to(input.dtype)
    return converted


def signs(name: str, like: Tensor, target: Any) -> Tensor:
    """A target of 1 and −1, in the dtype of the input. Raises: ConfigError for other numbers, where they are known."""
    target = as_tensor(target, like)
    array = target._known()
    if array is not None and not ((array == 1) | (array == -1)).all():
        bad = array[(array != 1) & (array != -1)].flat[0]
        raise ConfigError(f"{name}: target", got=f"{bad:g}", needed="1 or -1", hint="2 * target - 1 if it is 0 or 1")
    converted: Tensor = target.to(like.dtype)
    return converted


def class_numbers(name: str, target: Any, shape: tuple[int, ...], why: str) -> Tensor:
    """Class numbers as int64. Raises: ShapeError for another shape than ``shape``; DTypeError unless integers."""
    target = as_tensor(target)
    if target.shape != shape:
        hint = "squeeze the last axis of the target" if target.shape == (*shape, 1) else None
        raise ShapeError(f"{name}: target", got=f"shape {target.shape}", needed=f"{shape} {why}", hint=hint)
    if target.dtype.kind not in "ui":
        raise DTypeError(f"{name}: target", got=target.dtype.name, needed="class numbers", hint="target.long()")
    numbers: Tensor = target.to("int64")
    return numbers


def powered(name: str, share: Tensor, gamma: float) -> Tensor:
    """A share of 0 … 1 to the power γ; at 0 both it and its derivative are 0, also where γ < 1.

    Raises: ConfigError for γ < 0.
    """
    if not gamma >= 0:
        raise ConfigError(f"{name}: gamma", got=gamma, needed="0 or more")
    none = share <= 0
    return (share.masked_fill(none, 1.0) ** gamma).masked_fill(none, 0.0)

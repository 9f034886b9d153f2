"""Losses as functions of (prediction, target). ``reduction`` is "mean" (default), "sum" or "none"."""

from __future__ import annotations

import math
import warnings
from typing import Any

from slalom.core.functional.activation import log_softmax, log_total_of
from slalom.core.functional.indexing import _iota
from slalom.core.functional.registry import LOSSES as LOSSES  # filled by importing this module
from slalom.core.functional.registry import loss as registered
from slalom.core.ops import pointwise, reductions
from slalom.core.tensor import Tensor, apply, as_tensor
from slalom.errors import ConfigError, DTypeError, IndexRangeError, ShapeError

__all__ = ["binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "mse_loss", "nll_loss"]


def _reduced(loss: Tensor, reduction: str, total: Any = None) -> Tensor:
    """The loss of each element, their sum, or their mean (the sum divided by ``total`` if given)."""
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if reduction == "mean":
        return loss.mean() if total is None else loss.sum() / total
    raise ConfigError("reduction", got=repr(reduction), needed="'mean', 'sum' or 'none'")


def _weighted(loss: Tensor, weight: Tensor | None) -> Tensor:
    return loss if weight is None else loss * weight


# --- regression ---------------------------------------------------------------------------------------------------
@registered("MSELoss", without=("weight",))
def mse_loss(input: Tensor, target: Any, *, reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """Squared error (x − y)², the mean over all elements by default.

    Shapes: input and target equal; others broadcast with a warning, as in PyTorch.
    Note: no factor ½ (some lectures write 1/(2N) Σ); "mean" divides by all elements, with ``weight`` by its sum.

    >>> mse_loss(Tensor([1.0, 2.0]), Tensor([3.0, 2.0]))
    tensor(2.)
    """
    target = as_tensor(target, input)
    if target.shape != input.shape:
        warnings.warn(
            f"mse_loss: input {input.shape} and target {target.shape} are broadcast to each other, which is seldom "
            "meant; give them equal shapes",
            UserWarning,
            stacklevel=2,
        )
    error = input - target
    loss = error * error
    if weight is None:
        return _reduced(loss, reduction)
    weight = weight.expand(loss.shape)
    return _reduced(loss * weight, reduction, weight.sum())


# --- two classes --------------------------------------------------------------------------------------------------
def _binary_target(name: str, input: Tensor, target: Any) -> Tensor:
    target = as_tensor(target, input)
    if target.shape != input.shape:
        raise ShapeError(
            f"{name}: target", got=f"shape {target.shape}", needed=f"{input.shape}, the input's", hint="reshape one"
        )
    converted: Tensor = target.to(input.dtype)
    return converted


_LEAST = math.exp(-100)


@registered("BCELoss")
def binary_cross_entropy(
    input: Tensor, target: Any, weight: Tensor | None = None, *, reduction: str = "mean"
) -> Tensor:
    """−(y ln p + (1 − y) ln(1 − p)) of probabilities p; each logarithm is at least −100.

    Shapes: input and target equal; weight broadcasts.
    Raises: ShapeError for unequal shapes; ConfigError for probabilities outside 0 … 1.
    Note: where a logarithm is held at −100 its derivative is 0 (PyTorch's is ∓10¹²); the logits form never needs that.

    >>> binary_cross_entropy(Tensor([0.5, 1.0]), Tensor([1.0, 1.0]))
    tensor(0.3466)
    """
    target = _binary_target("binary_cross_entropy", input, target)
    array = input._known()
    if array is not None and array.size and (array.min() < 0 or array.max() > 1):
        raise ConfigError(
            "binary_cross_entropy: probabilities",
            got=f"{array.min():.6g} to {array.max():.6g}",
            needed="0 to 1",
            hint="apply sigmoid, or use binary_cross_entropy_with_logits",
        )
    # Filled before the logarithm too: the derivative of ln at 0 is infinite, and 0·∞ is NaN.
    low, high = input <= _LEAST, input >= 1
    log_yes = input.masked_fill(low, 1.0).log().masked_fill(low, -100.0)
    log_no = (-input.masked_fill(high, 0.0)).log1p().masked_fill(high, -100.0)
    return _reduced(_weighted(-(target * log_yes + (1 - target) * log_no), weight), reduction)


@registered("BCEWithLogitsLoss")
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Any,
    weight: Tensor | None = None,
    *,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Binary cross-entropy of σ(x), computed as (1 − y)·x + (1 + (w₊ − 1)·y)·ln(1 + e⁻ˣ), which never overflows.

    Shapes: input and target equal; weight and pos_weight (w₊, the weight of the positive class) broadcast.
    Raises: ShapeError for unequal shapes.
    """
    target = _binary_target("binary_cross_entropy_with_logits", input, target)
    tail = apply(pointwise.SOFTPLUS, -input)
    if pos_weight is not None:
        tail = tail * ((pos_weight - 1) * target + 1)
    return _reduced(_weighted((1 - target) * input + tail, weight), reduction)


# --- many classes -------------------------------------------------------------------------------------------------
def _class_axis(name: str, input: Tensor, weight: Tensor | None) -> int:
    if not input.ndim:
        raise ShapeError(f"{name}: input", got="a 0-d tensor", needed="(C) or (B, C, …)")
    axis = 1 if input.ndim > 1 else 0
    if weight is not None and weight.shape != (input.shape[axis],):
        raise ShapeError(f"{name}: weight", got=weight.shape, needed=f"({input.shape[axis]},), one for each class")
    return axis


def _class_target(name: str, input: Tensor, target: Any, axis: int) -> Tensor:
    """Class numbers as int64, of the shape of the input without its class axis."""
    target = as_tensor(target)
    shape = (*input.shape[:axis], *input.shape[axis + 1 :])
    if target.shape != shape:
        hint = "squeeze the last axis of the target" if target.shape == (*shape, 1) else None
        needed = f"{shape} for class numbers, with input {input.shape}"
        raise ShapeError(f"{name}: target", got=f"shape {target.shape}", needed=needed, hint=hint)
    if target.dtype.kind not in "ui":
        raise DTypeError(f"{name}: target", got=target.dtype.name, needed="class numbers", hint="target.long()")
    numbers: Tensor = target.to("int64")
    return numbers


def _picked(name: str, x: Tensor, target: Tensor, axis: int) -> Tensor:
    """x at the target's class, for each place of the target."""
    indices = [target if a == axis else _iota(target.shape, a - (a > axis)) for a in range(x.ndim)]
    try:
        return apply(reductions.GATHER, x, *indices)
    except IndexRangeError as error:
        array, classes = target._storage.array, x.shape[axis]
        bad = array.min() if array.min() < 0 else array.max()
        needed = f"0 to {classes - 1}, for {classes} classes"
        raise IndexRangeError(f"{name}: class {bad} in the target", needed=needed) from error


def _nll(
    name: str,
    x: Tensor,
    log_total: Tensor | None,
    target: Any,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    smoothing: float = 0.0,
) -> Tensor:
    """−wₜ·log_p[t] of class numbers t, smoothed towards all classes, where log_p = x − log_total.

    Shapes: x (B, C, …), log_total (B, 1, …), target (B, …).
    """
    axis = _class_axis(name, x, weight)
    target = _class_target(name, x, target, axis)
    array = target._known()
    # An eager call can see that nothing is ignored, which saves it a third of its operations; a trace cannot.
    kept = target != ignore_index if array is None or (array == ignore_index).any() else None
    if kept is not None:
        target = target.where(kept, 0)
    picked = _picked(name, x, target, axis)
    loss = -picked if log_total is None else log_total.reshape(target.shape) - picked
    share = None
    if weight is not None:
        share = apply(reductions.GATHER, weight, target)
        loss = loss * share
    if smoothing:
        classes = x.shape[axis]
        across = x if log_total is None else x - log_total
        if weight is not None:
            across = across * weight.reshape((classes,) + (1,) * (x.ndim - axis - 1))
        loss = loss * (1 - smoothing) - across.sum(axis) * (smoothing / classes)
    if kept is not None:
        loss = loss.where(kept, 0.0)
        share = kept.to(x.dtype) if share is None else share.where(kept, 0.0)
    return _reduced(loss, reduction, None if share is None else share.sum())


@registered("NLLLoss")
def nll_loss(
    input: Tensor, target: Any, weight: Tensor | None = None, *, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """−wₜ·xₜ of log-probabilities x at class numbers t; "mean" divides by Σ wₜ.

    Shapes: input (B, C, …) or (C), target (B, …) or (), weight (C).
    Raises: IndexRangeError for a class outside 0 … C − 1; ShapeError; DTypeError unless the target is integer.
    """
    return _nll("nll_loss", input, None, target, weight, ignore_index, reduction)


@registered("CrossEntropyLoss")
def cross_entropy(
    input: Tensor,
    target: Any,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy −Σ_c w_c·q_c·ln softmax(x)_c of logits x, where q is a class number or probabilities of classes.

    Smoothing replaces q by (1 − s)·q + s/C. "mean" divides by Σ wₜ for class numbers, by B·… for probabilities.

    Shapes: input (B, C, …) or (C); target class numbers (B, …) or (), or probabilities (B, C, …); weight (C).
    Raises: IndexRangeError for a class outside 0 … C − 1; ShapeError; DTypeError; ConfigError.
    Source: C. Szegedy et al., Rethinking the Inception Architecture, 2016, section 7 (smoothing).
    Note: takes logits, never softmax's result; in nats.

    >>> cross_entropy(Tensor([[2.0, 1.0, 0.1]]), Tensor([0]))
    tensor(0.4170)
    """
    if not 0 <= label_smoothing <= 1:
        raise ConfigError("cross_entropy: label_smoothing", got=label_smoothing, needed="0 to 1")
    axis = _class_axis("cross_entropy", input, weight)
    target = as_tensor(target)
    if target.shape != input.shape:
        shifted, log_total = log_total_of(input, axis)
        return _nll("cross_entropy", shifted, log_total, target, weight, ignore_index, reduction, label_smoothing)
    if target.dtype.kind != "f":
        needed = "floating probabilities, as it has the input's shape"
        raise DTypeError("cross_entropy: target", got=target.dtype.name, needed=needed)
    classes = input.shape[axis]
    target = target.to(input.dtype)
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / classes
    if weight is not None:
        target = target * weight.reshape((classes,) + (1,) * (input.ndim - axis - 1))
    loss = -(log_softmax(input, axis) * target).sum(axis)
    return _reduced(loss, reduction)

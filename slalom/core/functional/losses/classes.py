"""Losses of one of several classes: cross-entropy, and what is made of it."""

from __future__ import annotations

from typing import Any

from slalom.core.functional.activation import log_softmax, log_total_of
from slalom.core.functional.indexing import _iota
from slalom.core.functional.losses.common import class_numbers, powered, reduced, registered
from slalom.core.ops import reductions
from slalom.core.tensor import Tensor, apply, as_tensor
from slalom.errors import ConfigError, DTypeError, IndexRangeError, ShapeError

__all__ = ["cross_entropy", "focal_loss", "nll_loss", "ordinal_loss"]


def class_axis(name: str, input: Tensor, weight: Tensor | None) -> int:
    if not input.ndim:
        raise ShapeError(f"{name}: input", got="a 0-d tensor", needed="(C) or (B, C, …)")
    axis = 1 if input.ndim > 1 else 0
    if not input.shape[axis]:
        raise ShapeError(f"{name}: input", got=f"shape {input.shape}", needed="at least one class")
    if weight is not None and weight.shape != (input.shape[axis],):
        raise ShapeError(f"{name}: weight", got=weight.shape, needed=f"({input.shape[axis]},), one for each class")
    return axis


def _class_target(name: str, input: Tensor, target: Any, axis: int) -> Tensor:
    """Class numbers as int64, of the shape of the input without its class axis."""
    shape = (*input.shape[:axis], *input.shape[axis + 1 :])
    return class_numbers(name, target, shape, f"for class numbers, with input {input.shape}")


def picked_of(name: str, x: Tensor, target: Tensor, axis: int) -> Tensor:
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
    gamma: float = 0.0,
) -> Tensor:
    """−wₜ·log_p[t] of class numbers t, smoothed towards all classes, where log_p = x − log_total; times (1 − p[t])^γ.

    Shapes: x (B, C, …), log_total (B, 1, …), target (B, …).
    """
    axis = class_axis(name, x, weight)
    target = _class_target(name, x, target, axis)
    array = target._known()
    # An eager call can see that nothing is ignored, which saves it a third of its operations; a trace cannot.
    kept = target != ignore_index if array is None or (array == ignore_index).any() else None
    if kept is not None:
        target = target.where(kept, 0)
    picked = picked_of(name, x, target, axis)
    loss = -picked if log_total is None else log_total.reshape(target.shape) - picked
    if gamma:
        loss = loss * powered(name, -(-loss).expm1(), gamma)
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
    return reduced(loss, reduction, None if share is None else share.sum())


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
    axis = class_axis("cross_entropy", input, weight)
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
    return reduced(loss, reduction)


@registered("FocalLoss")
def focal_loss(
    input: Tensor,
    target: Any,
    weight: Tensor | None = None,
    *,
    gamma: float = 2.0,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """−wₜ (1 − pₜ)^γ ln pₜ of logits, with p = softmax(x) and class numbers t: easy examples count little.

    γ = 0 is cross-entropy, and "mean" divides as it does there, by Σ wₜ.

    Shapes: input (B, C, …) or (C), target (B, …) or (), weight (C).
    Raises: IndexRangeError for a class outside 0 … C − 1; ShapeError; DTypeError; ConfigError for γ < 0.
    Source: T.-Y. Lin et al., Focal Loss for Dense Object Detection, 2017, equation 5, with softmax for the sigmoid.
    Note: beyond PyTorch. ``binary_focal_loss`` is the paper's own.

    >>> focal_loss(Tensor([[2.0, 1.0, 0.1]]), Tensor([0]))
    tensor(0.0485)
    """
    if not gamma >= 0:
        raise ConfigError("focal_loss: gamma", got=gamma, needed="0 or more")
    axis = class_axis("focal_loss", input, weight)
    shifted, log_total = log_total_of(input, axis)
    return _nll("focal_loss", shifted, log_total, target, weight, ignore_index, reduction, gamma=gamma)


@registered("OrdinalLoss", looks=True)
def ordinal_loss(input: Tensor, target: Any, thresholds: Tensor, *, reduction: str = "mean") -> Tensor:
    """−ln P(y) of ordered classes by one score x: P(y ≤ k) = σ(θ_k − x) with thresholds θ₀ < θ₁ < … (cumulative logit).

    Computed as ln(1 + e^(x − θ_y)) + ln(1 + e^(θ_(y−1) − x)) − ln(1 − e^(θ_(y−1) − θ_y)), which never overflows.

    Shapes: input (…), target class numbers (…), thresholds (C − 1).
    Raises: ShapeError; DTypeError; IndexRangeError for a class outside 0 … C − 1; ConfigError unless thresholds rise.
    Source: P. McCullagh, Regression Models for Ordinal Data, 1980, equation 2.1 (proportional odds).
    Note: beyond PyTorch. Thresholds are learned with the rest: make them a Parameter. In nats.

    >>> ordinal_loss(Tensor([0.0, 3.0]), Tensor([1, 2]), Tensor([-1.0, 1.0]), reduction="none")
    tensor([0.7719, 0.1269])
    """
    if thresholds.ndim != 1 or not thresholds.shape[0]:
        raise ShapeError("ordinal_loss: thresholds", got=f"shape {thresholds.shape}", needed="(C - 1), for C classes")
    array = thresholds._known()
    if array is not None and (array[1:] <= array[:-1]).any():
        raise ConfigError("ordinal_loss: thresholds", got=array.tolist(), needed="each larger than the one before")
    target = class_numbers("ordinal_loss", target, input.shape, "for class numbers, the input's shape")
    highest = thresholds.shape[0]
    numbers = target._known()
    if numbers is not None and numbers.size and not 0 <= numbers.min() <= numbers.max() <= highest:
        bad = numbers.min() if numbers.min() < 0 else numbers.max()
        needed = f"0 to {highest}, for {highest} thresholds"
        raise IndexRangeError(f"ordinal_loss: class {bad} in the target", needed=needed)
    first, last = target == 0, target == highest
    above = apply(reductions.GATHER, thresholds, target.where(~last, 0))
    below = apply(reductions.GATHER, thresholds, (target - 1).where(~first, 0))
    loss = (input - above).softplus().masked_fill(last, 0.0)
    loss = loss + (below - input).softplus().masked_fill(first, 0.0)
    ends = first | last
    return reduced(loss - (-(below - above).masked_fill(ends, -1.0).expm1()).log().masked_fill(ends, 0.0), reduction)

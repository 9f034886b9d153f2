"""Losses of yes or no: of one answer, or of several that do not exclude each other."""

from __future__ import annotations

import math
from typing import Any

from slalom.core.functional.losses.common import powered, reduced, registered, same_shape, signs, weighted
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError, ShapeError

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "binary_focal_loss",
    "multilabel_soft_margin_loss",
    "soft_margin_loss",
]

_LEAST = math.exp(-100)


@registered("BCELoss", looks=True)
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
    target = same_shape("binary_cross_entropy", input, target)
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
    return reduced(weighted(-(target * log_yes + (1 - target) * log_no), weight), reduction)


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
    target = same_shape("binary_cross_entropy_with_logits", input, target)
    tail = (-input).softplus()
    if pos_weight is not None:
        tail = tail * ((pos_weight - 1) * target + 1)
        if tail.shape != input.shape:
            needed = f"one that broadcasts to {input.shape}"
            raise ShapeError("pos_weight", got=f"shape {pos_weight.shape}", needed=needed)
    return reduced(weighted((1 - target) * input + tail, weight), reduction)


@registered("BinaryFocalLoss")
def binary_focal_loss(
    input: Tensor, target: Any, alpha: float | None = None, gamma: float = 2.0, *, reduction: str = "mean"
) -> Tensor:
    """−α_t (1 − p_t)^γ ln p_t of logits, where p_t is the probability of what is true: easy examples count little.

    ``alpha`` weighs the positive class, 1 − alpha the negative one; None: neither. γ = 0 is binary cross-entropy.

    Shapes: input and target (0 or 1) equal.
    Raises: ShapeError; ConfigError for γ < 0 or α outside 0 … 1.
    Source: T.-Y. Lin et al., Focal Loss for Dense Object Detection, 2017, equation 5.
    Note: beyond ``torch.nn``; torchvision's ``sigmoid_focal_loss`` has α = 0.25 and no reduction by default.
    """
    if alpha is not None and not 0 <= alpha <= 1:
        raise ConfigError("binary_focal_loss: alpha", got=alpha, needed="0 to 1, or None")
    target = same_shape("binary_focal_loss", input, target)
    loss = binary_cross_entropy_with_logits(input, target, reduction="none")
    if gamma:
        p = input.sigmoid()
        # 1 − p_t without a difference of nearly equal numbers: σ(−x) where y is 1, σ(x) where it is 0.
        loss = loss * powered("binary_focal_loss", target * (-input).sigmoid() + (1 - target) * p, gamma)
    if alpha is not None:
        loss = loss * (target * (2 * alpha - 1) + (1 - alpha))
    return reduced(loss, reduction)


@registered("SoftMarginLoss", looks=True)
def soft_margin_loss(input: Tensor, target: Any, *, reduction: str = "mean") -> Tensor:
    """ln(1 + e^(−y·x)) of a target of 1 or −1: binary cross-entropy of the logit x.

    Shapes: input and target equal.
    Raises: ShapeError; ConfigError for a target that is neither 1 nor −1.
    """
    target = same_shape("soft_margin_loss", input, signs("soft_margin_loss", input, target))
    return reduced((-target * input).softplus(), reduction)


@registered("MultiLabelSoftMarginLoss")
def multilabel_soft_margin_loss(
    input: Tensor, target: Any, weight: Tensor | None = None, *, reduction: str = "mean"
) -> Tensor:
    """Binary cross-entropy of logits, the mean over the last axis: each class is there or not, for itself.

    Shapes: input and target (…, C), weight (C) → (…).
    Raises: ShapeError for unequal shapes, or no axis.
    """
    if not input.ndim:
        raise ShapeError("multilabel_soft_margin_loss: input", got="a 0-d tensor", needed="(C) or (B, C)")
    target = same_shape("multilabel_soft_margin_loss", input, target)
    loss = binary_cross_entropy_with_logits(input, target, reduction="none")
    return reduced(weighted(loss, weight).mean(-1), reduction)

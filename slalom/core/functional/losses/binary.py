"""Losses of yes or no: of one answer, or of several that do not exclude each other."""

from __future__ import annotations

import math
from typing import Any

from slalom.core.functional.losses.common import reduced, registered, same_shape, weighted
from slalom.core.ops import pointwise
from slalom.core.tensor import Tensor, apply
from slalom.errors import ConfigError

__all__ = ["binary_cross_entropy", "binary_cross_entropy_with_logits"]

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
    tail = apply(pointwise.SOFTPLUS, -input)
    if pos_weight is not None:
        tail = tail * ((pos_weight - 1) * target + 1)
    return reduced(weighted((1 - target) * input + tail, weight), reduction)

"""Losses of numbers: how far they are off, and how likely they were."""

from __future__ import annotations

from typing import Any

from slalom.core.functional.losses.common import compared, reduced, registered
from slalom.core.tensor import Tensor

__all__ = ["mse_loss"]


@registered("MSELoss", without=("weight",))
def mse_loss(input: Tensor, target: Any, *, reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """Squared error (x − y)², the mean over all elements by default.

    Shapes: input and target equal; others broadcast with a warning, as in PyTorch.
    Note: no factor ½ (some lectures write 1/(2N) Σ); "mean" divides by all elements, with ``weight`` by its sum.

    >>> mse_loss(Tensor([1.0, 2.0]), Tensor([3.0, 2.0]))
    tensor(2.)
    """
    target = compared("mse_loss", input, target)
    error = input - target
    loss = error * error
    if weight is None:
        return reduced(loss, reduction)
    weight = weight.expand(loss.shape)
    return reduced(loss * weight, reduction, weight.sum())

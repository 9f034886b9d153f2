"""Dropout: of elements, of whole channels, and with a negative value that keeps mean and variance."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from slalom.core.random import Generator, rand
from slalom.core.shape import Shape
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError, ShapeError

__all__ = ["alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"]

_DROPPED: Final = -1.7580993408473766
"""What alpha dropout puts in place of an element: SELU's value at −∞, −λα."""


def _drop(
    name: str, input: Tensor, p: float, training: bool, inplace: bool, shape: Shape, generator: Generator | None = None
) -> Tensor:
    """0 with probability p, one draw for each element of ``shape``, which broadcasts to the input's."""
    if not 0 <= p <= 1:
        raise ConfigError(f"{name}: p", got=p, needed="a probability, 0 to 1")
    if not training or p == 0:
        return input
    if p == 1:
        out = input.where(Tensor._of(np.zeros((), bool)), 0.0)
    else:
        kept = rand(shape, generator=generator, dtype=np.float32) >= p
        out = (input * (1 / (1 - p))).where(kept, 0.0)
    return input._write(out) if inplace else out


def dropout(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Each element 0 with probability p, else divided by 1 − p; the input itself outside training.

    Raises: ConfigError unless 0 ≤ p ≤ 1.
    Source: N. Srivastava et al., Dropout, 2014, section 10 (scaled while training: "inverted").
    Note: lectures that scale by 1 − p at evaluation instead describe the same expected value.
    """
    return _drop("dropout", input, p, training, inplace, input.shape, generator)


def _channels(name: str, input: Tensor, *ranks: int, single: int) -> Shape:
    """One draw for each channel of each example; ``single``: the rank of a single example (C, …)."""
    if input.ndim not in ranks:
        needed = f"{' or '.join(map(str, ranks))} dimensions"
        raise ShapeError(f"{name}: input", got=f"shape {input.shape}", needed=needed)
    lead = 1 if input.ndim == single else 2
    return (*input.shape[:lead], *(1,) * (input.ndim - lead))


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels 0 with probability p, else divided by 1 − p; the input itself outside training.

    Shapes: (B, C, T) or (C, T), unchanged. Raises: ConfigError unless 0 ≤ p ≤ 1; ShapeError for another rank.
    Source: J. Tompson et al., Efficient Object Localization Using Convolutional Networks, 2015, section 3.2.
    """
    return _drop("dropout1d", input, p, training, inplace, _channels("dropout1d", input, 2, 3, single=2))


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """As ``dropout1d``, of images.

    Shapes: (B, C, H, W), unchanged. Note: three axes are (B, C, T), not one image, as in PyTorch.
    """
    return _drop("dropout2d", input, p, training, inplace, _channels("dropout2d", input, 3, 4, single=0))


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """As ``dropout1d``, of volumes. Shapes: (B, C, D, H, W) or (C, D, H, W), unchanged."""
    return _drop("dropout3d", input, p, training, inplace, _channels("dropout3d", input, 4, 5, single=4))


def _alpha_drop(name: str, input: Tensor, p: float, training: bool, inplace: bool, shape: Shape) -> Tensor:
    if not 0 <= p <= 1:
        raise ConfigError(f"{name}: p", got=p, needed="a probability, 0 to 1")
    if not training or p == 0:
        return input
    if p == 1:
        out = input.where(Tensor._of(np.zeros((), bool)), 0.0)
    else:
        scale = 1 / math.sqrt((1 - p) * (1 + p * _DROPPED**2))
        kept = rand(shape, dtype=np.float32) >= p
        out = (input * scale).where(kept, _DROPPED * scale) - p * _DROPPED * scale
    return input._write(out) if inplace else out


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Each element α′ with probability p, then all scaled and shifted so that mean 0 and variance 1 stay.

    a·(x or α′) + b with α′ = −λα of SELU, a = ((1 − p)(1 + p·α′²))^(−½), b = −a·p·α′; for networks of SELUs.

    Raises: ConfigError unless 0 ≤ p ≤ 1.
    Source: G. Klambauer et al., Self-Normalizing Neural Networks, 2017, section "New Dropout Technique".
    Note: ``training`` is False by default, as in PyTorch.
    """
    return _alpha_drop("alpha_dropout", input, p, training, inplace, input.shape)


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """As ``alpha_dropout``, of whole channels. Shapes: (B, C, …), unchanged."""
    if input.ndim < 2:
        raise ShapeError("feature_alpha_dropout: input", got=f"shape {input.shape}", needed="(B, C, …)")
    shape = (*input.shape[:2], *(1,) * (input.ndim - 2))
    return _alpha_drop("feature_alpha_dropout", input, p, training, inplace, shape)

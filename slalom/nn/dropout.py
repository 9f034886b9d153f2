"""Dropout: of elements, of whole channels, and the kind that goes with SELU."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from slalom.core.tensor import Tensor
from slalom.errors import ConfigError
from slalom.nn import functional as F
from slalom.nn.module import Module

__all__ = ["AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout"]


class _Dropout(Module):
    __constants__ = ("inplace", "p")
    _drop: ClassVar[Callable[..., Tensor]]

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ConfigError(f"{type(self).__name__}: p", got=p, needed="a probability, 0 to 1")
        self.p, self.inplace = p, inplace

    def forward(self, input: Tensor) -> Tensor:
        return type(self)._drop(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """In training, each element 0 with probability p, else divided by 1 − p; the input itself at evaluation.

    Note: p is the share that is zeroed, as in PyTorch and Keras; some lectures call the share that is kept p.
    """

    _drop = staticmethod(F.dropout)


class Dropout1d(_Dropout):
    """As ``Dropout``, of whole channels of signals. Shapes: (B, C, T) or (C, T), unchanged."""

    _drop = staticmethod(F.dropout1d)


class Dropout2d(_Dropout):
    """As ``Dropout``, of whole channels of images. Shapes: (B, C, H, W), unchanged; three axes are (B, C, T)."""

    _drop = staticmethod(F.dropout2d)


class Dropout3d(_Dropout):
    """As ``Dropout``, of whole channels of volumes. Shapes: (B, C, D, H, W) or (C, D, H, W), unchanged."""

    _drop = staticmethod(F.dropout3d)


class AlphaDropout(_Dropout):
    """Dropout that keeps mean 0 and variance 1, for networks of SELUs; see ``functional.alpha_dropout``."""

    _drop = staticmethod(F.alpha_dropout)


class FeatureAlphaDropout(_Dropout):
    """As ``AlphaDropout``, of whole channels. Shapes: (B, C, …), unchanged."""

    _drop = staticmethod(F.feature_alpha_dropout)

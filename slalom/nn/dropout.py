"""Dropout."""

from __future__ import annotations

from slalom.core.tensor import Tensor
from slalom.errors import ConfigError
from slalom.nn import functional as F
from slalom.nn.module import Module

__all__ = ["Dropout"]


class Dropout(Module):
    """In training, each element 0 with probability p, else divided by 1 − p; the input itself at evaluation.

    Note: p is the share that is zeroed, as in PyTorch and Keras; some lectures call the share that is kept p.
    """

    __constants__ = ("inplace", "p")

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ConfigError("Dropout: p", got=p, needed="a probability, 0 to 1")
        self.p, self.inplace = p, inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"

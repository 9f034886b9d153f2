"""Activations as Modules. Those without weights are made from the functions in ``core/functional/activation.py``."""

from __future__ import annotations

from typing import Any

from slalom.core.functional.activation import ACTIVATIONS
from slalom.core.functional.creation import full
from slalom.core.tensor import Tensor
from slalom.errors import ShapeError
from slalom.nn import functional as F
from slalom.nn.generated import modules
from slalom.nn.module import Module, Parameter

globals().update(modules(ACTIVATIONS, __name__))
__all__ = ["PReLU", "Softmax2d"]
__all__ += list(ACTIVATIONS)


class PReLU(Module):
    """x where x > 0, else w · x, with a learned w for all (``num_parameters=1``) or for each channel.

    Source: K. He et al., Delving Deep into Rectifiers, 2015, equation 1.
    Note: weight decay pulls w to 0 and makes it a ReLU; leave w out of it.
    """

    weight: Parameter

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.num_parameters, self.init = num_parameters, init
        self.weight = Parameter(full((num_parameters,), float(init), device=device, dtype=dtype))

    def forward(self, input: Tensor) -> Tensor:
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class Softmax2d(Module):
    """Softmax over the channels at each place of an image.

    Shapes: (B, C, H, W) or (C, H, W). Raises: ShapeError for another number of axes.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim not in (3, 4):
            raise ShapeError("input", got=f"shape {input.shape}", needed="(B, C, H, W) or (C, H, W)")
        return F.softmax(input, -3)

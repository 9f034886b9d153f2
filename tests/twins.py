"""Twins, in PyTorch's own words, of layers that PyTorch does not have: what the tables compare those layers with.

Nothing here imports torch: its ``nn`` is handed in.
"""

from __future__ import annotations

from typing import Any


def of(nn: Any, name: str) -> Any:
    """A layer of Slalom's ``nn``, or its twin for PyTorch's."""
    return getattr(nn, name, None) or TWINS[name](nn)


def ntk_linear(nn: Any) -> Any:
    """y = (γ/√in)·x·Wᵀ + β·b."""

    class NTKLinear(nn.Linear):
        def __init__(self, inputs: int, outputs: int, bias: bool = True, gain: float = 1.0, beta: float = 0.1) -> None:
            super().__init__(inputs, outputs, bias)
            self.gain, self.beta = gain, beta

        def forward(self, x: Any) -> Any:
            bias = None if self.bias is None else self.beta * self.bias
            return nn.functional.linear(x, self.gain * self.in_features**-0.5 * self.weight, bias)

        def extra_repr(self) -> str:
            return f"{super().extra_repr()}, gain={self.gain}, beta={self.beta}"

    return NTKLinear


TWINS = {"NTKLinear": ntk_linear}

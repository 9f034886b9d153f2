"""Twins, in PyTorch's own words, of layers that PyTorch does not have: what the tables compare those layers with.

Nothing here imports torch: its ``nn`` is handed in.
"""

from __future__ import annotations

import math
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


def residual(nn: Any) -> Any:
    """x + f(x)."""

    class Residual(nn.Module):
        def __init__(self, module: Any, shortcut: Any = None) -> None:
            super().__init__()
            self.module, self.shortcut = module, shortcut

        def forward(self, x: Any) -> Any:
            return (x if self.shortcut is None else self.shortcut(x)) + self.module(x)

    return Residual


def _steps(x: Any, batch_first: bool) -> int:
    return int(x.shape[1 if batch_first and x.ndim == 3 else 0])


def _with_batch(table: Any, x: Any, batch_first: bool) -> Any:
    """(T, D), so that it broadcasts to the input."""
    return (table if batch_first or x.ndim == 2 else table.unsqueeze(1)).to(x.dtype)


def sinusoidal_positions(nn: Any) -> Any:
    """The formula, number by number."""

    class SinusoidalPositions(nn.Module):
        def __init__(self, max_wavelength: float = 10000.0, batch_first: bool = False) -> None:
            super().__init__()
            self.max_wavelength, self.batch_first = max_wavelength, batch_first

        def forward(self, x: Any) -> Any:
            steps, width = _steps(x, self.batch_first), x.shape[-1]
            table = x.new_empty((steps, width)).double()
            for t in range(steps):
                for i in range(width):
                    wave = math.cos if i % 2 else math.sin
                    table[t, i] = wave(t / self.max_wavelength ** (2 * (i // 2) / width))
            return x + _with_batch(table, x, self.batch_first)

        def extra_repr(self) -> str:
            return f"max_wavelength={self.max_wavelength}, batch_first={self.batch_first}"

    return SinusoidalPositions


def learned_positions(nn: Any) -> Any:
    """A row of a table for each step."""

    class LearnedPositions(nn.Module):
        def __init__(self, max_length: int, embedding_dim: int, batch_first: bool = False) -> None:
            super().__init__()
            self.weight, self.batch_first = nn.Embedding(max_length, embedding_dim).weight, batch_first

        def forward(self, x: Any) -> Any:
            return x + _with_batch(self.weight[: _steps(x, self.batch_first)], x, self.batch_first)

        def extra_repr(self) -> str:
            rows, width = self.weight.shape
            return f"{rows}, {width}, batch_first={self.batch_first}"

    return LearnedPositions


TWINS = {
    "LearnedPositions": learned_positions,
    "NTKLinear": ntk_linear,
    "Residual": residual,
    "SinusoidalPositions": sinusoidal_positions,
}

"""Modules made from functions, and their like.

Written by tools/make_stub.py; do not edit.
"""
# fmt: off

from collections.abc import Iterable

from slalom.core.tensor import Tensor
from slalom.nn.module import Module

__all__ = [
    "ElasticNetPenalty",
    "L1Penalty",
    "L2Penalty",
]

class ElasticNetPenalty(Module):
    """λ (ρ Σ|w| + ½ (1 − ρ) Σ w²): between ``l2_penalty`` (ρ = 0) and ``l1_penalty`` (ρ = 1)."""
    strength: float
    l1_ratio: float
    def __init__(self, strength: float = 1.0, l1_ratio: float = 0.5) -> None: ...
    def forward(self, parameters: Tensor | Iterable[Tensor]) -> Tensor: ...
    def extra_repr(self) -> str: ...

class L1Penalty(Module):
    """λ Σ|w| over all elements of all parameters, which draws many of them towards 0; derivative λ·sign(w), 0 at
    0."""
    strength: float
    def __init__(self, strength: float = 1.0) -> None: ...
    def forward(self, parameters: Tensor | Iterable[Tensor]) -> Tensor: ...
    def extra_repr(self) -> str: ...

class L2Penalty(Module):
    """½ λ Σ w² over all elements of all parameters; derivative λ·w, as an optimizer's ``weight_decay=λ`` adds
    it."""
    strength: float
    def __init__(self, strength: float = 1.0) -> None: ...
    def forward(self, parameters: Tensor | Iterable[Tensor]) -> Tensor: ...
    def extra_repr(self) -> str: ...

"""Modules made from functions, and their like.

Written by tools/make_stub.py; do not edit.
"""
# fmt: off

from slalom.core.tensor import Tensor
from slalom.nn.module import Module

__all__ = [
    "CosineSimilarity",
    "PairwiseDistance",
]

class CosineSimilarity(Module):
    """x₁·x₂ / (max(‖x₁‖, ε) · max(‖x₂‖, ε)) along an axis: the cosine of the angle between them, −1 … 1."""
    dim: int
    eps: float
    def __init__(self, dim: int = 1, eps: float = 1e-08) -> None: ...
    def forward(self, x1: Tensor, x2: Tensor) -> Tensor: ...
    def extra_repr(self) -> str: ...

class PairwiseDistance(Module):
    """‖x₁ − x₂ + ε‖ₚ along the last axis."""
    p: float
    eps: float
    keepdim: bool
    def __init__(self, p: float = 2.0, eps: float = 1e-06, keepdim: bool = False) -> None: ...
    def forward(self, x1: Tensor, x2: Tensor) -> Tensor: ...
    def extra_repr(self) -> str: ...

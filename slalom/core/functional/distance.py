"""Lengths of vectors, and how far or how alike two of them are."""

from __future__ import annotations

from slalom.core.functional.reduce import norm
from slalom.core.functional.registry import DISTANCES as DISTANCES  # filled by importing this module
from slalom.core.functional.registry import distance
from slalom.core.ops import reductions
from slalom.core.shape import axis_index, broadcast
from slalom.core.tensor import Tensor, apply, floating

__all__ = ["cosine_similarity", "normalize", "pairwise_distance"]


def _length(x: Tensor, p: float, dim: int, eps: float) -> Tensor:
    """The p-norm along an axis, which is kept; at least ε, with derivative 0 there."""
    length = norm(floating(x), p, dim, keepdim=True)
    return length.masked_fill(length < eps, eps)


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """x / max(‖x‖ₚ, ε) along an axis.

    Raises: ShapeError for an axis that there is not; ConfigError for p ≤ 0.

    >>> normalize(Tensor([[3.0, 4.0]]))
    tensor([[0.6, 0.8]])
    """
    return input / _length(input, p, dim, eps)


@distance("CosineSimilarity")
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x₁·x₂ / (max(‖x₁‖, ε) · max(‖x₂‖, ε)) along an axis: the cosine of the angle between them, −1 … 1.

    Shapes: (…, D, …) each, broadcast to each other → (…, …).
    Raises: ShapeError for shapes that do not fit.
    Note: where a length is held at ε, the derivative is that of x / ε; PyTorch's forgets that it was held.
    """
    if x1.shape != x2.shape:  # lengths are those of what is compared
        shape = broadcast("cosine_similarity", [x1.shape, x2.shape])
        x1, x2 = x1.expand(shape), x2.expand(shape)
    one, two = x1 / _length(x1, 2, dim, eps), x2 / _length(x2, 2, dim, eps)
    product = one * two
    return apply(reductions.SUM, product, axes=(axis_index("cosine_similarity", dim, product.ndim),), keepdims=False)


@distance("PairwiseDistance")
def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """‖x₁ − x₂ + ε‖ₚ along the last axis.

    Shapes: (…, D) each, broadcast to each other → (…), or (…, 1) with ``keepdim``.
    Raises: ShapeError for shapes that do not fit; ConfigError for p ≤ 0.
    Note: ε keeps equal vectors from the corner of the root, as in PyTorch: their distance is ε·√D, not 0.
    """
    return norm(x1 - x2 + eps, p, -1, keepdim)

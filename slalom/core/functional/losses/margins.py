"""Losses with a margin: zero where something is right by far enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slalom.core.functional.distance import pairwise_distance
from slalom.core.functional.indexing import _iota
from slalom.core.functional.losses.classes import class_axis, picked_of
from slalom.core.functional.losses.common import class_numbers, reduced, registered, same_shape, signs
from slalom.core.ops import pointwise, reductions
from slalom.core.tensor import Tensor, apply
from slalom.errors import ConfigError, IndexRangeError, ShapeError

__all__ = [
    "cosine_embedding_loss",
    "hinge_embedding_loss",
    "margin_ranking_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
]


def _positive(x: Tensor) -> Tensor:
    return apply(pointwise.RELU, x)


# --- pairs --------------------------------------------------------------------------------------------------------
@registered("HingeEmbeddingLoss", looks=True)
def hinge_embedding_loss(input: Tensor, target: Any, margin: float = 1.0, *, reduction: str = "mean") -> Tensor:
    """x where y is 1, max(0, margin − x) where it is −1: of distances x between what is alike (1), or not (−1).

    Shapes: input and target equal.
    Raises: ShapeError; ConfigError for a target that is neither 1 nor −1.
    Source: R. Hadsell et al., Dimensionality Reduction by Learning an Invariant Mapping, 2006 (there with squares).
    """
    target = same_shape("hinge_embedding_loss", input, signs("hinge_embedding_loss", input, target))
    return reduced(input.where(target == 1, _positive(margin - input)), reduction)


@registered("MarginRankingLoss", looks=True)
def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Any, margin: float = 0.0, *, reduction: str = "mean"
) -> Tensor:
    """max(0, margin − y·(x₁ − x₂)): y = 1 where x₁ should be the larger, −1 where x₂ should.

    Shapes: all equal, or broadcast to each other.
    Raises: ShapeError; ConfigError for a target that is neither 1 nor −1.
    """
    target = signs("margin_ranking_loss", input1, target)
    if not input1.ndim == input2.ndim == target.ndim:
        found = f"shapes {input1.shape}, {input2.shape} and {target.shape}"
        raise ShapeError("margin_ranking_loss", got=found, needed="inputs and target with as many axes")
    return reduced(_positive(margin - target * (input1 - input2)), reduction)


@registered("CosineEmbeddingLoss", looks=True)
def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Any, margin: float = 0.0, *, reduction: str = "mean"
) -> Tensor:
    """1 − cos(x₁, x₂) where y is 1, max(0, cos(x₁, x₂) − margin) where it is −1.

    Shapes: inputs (B, D) and target (B), or (D) and ().
    Raises: ShapeError; ConfigError for a target that is neither 1 nor −1.
    Note: the squares of both lengths are taken 10⁻¹² larger, as in PyTorch: finite for vectors of zeros.
    """
    if input1.ndim not in (1, 2) or input1.shape != input2.shape:
        found = f"shapes {input1.shape} and {input2.shape}"
        raise ShapeError("cosine_embedding_loss: inputs", got=found, needed="equal shapes, (B, D) or (D)")
    target = signs("cosine_embedding_loss", input1, target)
    if target.shape != input1.shape[:-1]:
        found = f"shape {target.shape}"
        raise ShapeError("cosine_embedding_loss: target", got=found, needed=f"{input1.shape[:-1]}")
    squares = ((input1 * input1).sum(-1) + 1e-12) * ((input2 * input2).sum(-1) + 1e-12)
    cosine = (input1 * input2).sum(-1) / squares.sqrt()
    return reduced((1 - cosine).where(target == 1, _positive(cosine - margin)), reduction)


# --- triplets -----------------------------------------------------------------------------------------------------
@registered("TripletMarginLoss")
def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    *,
    reduction: str = "mean",
) -> Tensor:
    """max(0, d(a, p) − d(a, n) + margin) with the p-norm's distance; ``swap``: min(d(a, n), d(p, n)) for d(a, n).

    Shapes: all (B, D), or (D).
    Raises: ShapeError unless they have as many axes; ConfigError unless margin > 0, or for p ≤ 0.
    Source: F. Schroff et al., FaceNet, 2015, equation 2 (there with squares); V. Balntas et al., Learning Local Feature
    Descriptors with Triplets, 2016, section 3.3 (swap).
    """

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return pairwise_distance(a, b, p, eps)

    return _triplet("triplet_margin_loss", (anchor, positive, negative), distance, margin, swap, reduction)


@registered("TripletMarginWithDistanceLoss", looks=True)
def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """``triplet_margin_loss`` with any distance, a function of two tensors; None: ``pairwise_distance``.

    Shapes: as the distance takes them, and as many axes in each.
    Raises: as ``triplet_margin_loss``.
    """
    distance = pairwise_distance if distance_function is None else distance_function
    inputs = (anchor, positive, negative)
    return _triplet("triplet_margin_with_distance_loss", inputs, distance, margin, swap, reduction)


def _triplet(
    name: str,
    inputs: tuple[Tensor, Tensor, Tensor],
    distance: Callable[[Tensor, Tensor], Tensor],
    margin: float,
    swap: bool,
    reduction: str,
) -> Tensor:
    anchor, positive, negative = inputs
    if not margin > 0:
        raise ConfigError(f"{name}: margin", got=margin, needed="above 0")
    if not anchor.ndim == positive.ndim == negative.ndim:
        found = f"{anchor.ndim}, {positive.ndim} and {negative.ndim} axes"
        raise ShapeError(f"{name}: anchor, positive and negative", got=found, needed="as many in each")
    far = distance(anchor, negative)
    if swap:
        far = far.minimum(distance(positive, negative))
    return reduced(_positive(distance(anchor, positive) - far + margin), reduction)


# --- classes ------------------------------------------------------------------------------------------------------
def _rows_of_classes(name: str, input: Tensor) -> int:
    """The axis of classes. Raises: ShapeError unless the input is (B, C) or (C) with C > 0."""
    if input.ndim not in (1, 2) or not input.shape[-1]:
        raise ShapeError(f"{name}: input", got=f"shape {input.shape}", needed="(B, C) or (C)")
    return input.ndim - 1


@registered("MultiMarginLoss")
def multi_margin_loss(
    input: Tensor,
    target: Any,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    *,
    reduction: str = "mean",
) -> Tensor:
    """Σ_(i ≠ t) wₜ · max(0, margin − xₜ + xᵢ)ᵖ / C of scores x and class numbers t.

    Shapes: input (B, C) or (C), target (B) or (), weight (C).
    Raises: IndexRangeError for a class outside 0 … C − 1; ShapeError; DTypeError; ConfigError unless p is 1 or 2.
    Source: K. Crammer and Y. Singer, On the Algorithmic Implementation of Kernel-based Vector Machines, 2001.
    Note: "mean" divides by the number of rows, also with weights.
    """
    if p not in (1, 2):
        raise ConfigError("multi_margin_loss: p", got=p, needed="1 or 2")
    axis = _rows_of_classes("multi_margin_loss", input)
    class_axis("multi_margin_loss", input, weight)
    needed = f"for class numbers, with input {input.shape}"
    target = class_numbers("multi_margin_loss", target, input.shape[:-1], needed)
    own = picked_of("multi_margin_loss", input, target, axis)
    excess = _positive(margin - own.unsqueeze(-1) + input)
    excess = excess if p == 1 else excess * excess
    loss = excess.masked_fill(_iota(input.shape, axis) == target.unsqueeze(-1), 0.0).sum(-1) / input.shape[-1]
    if weight is not None:
        loss = loss * apply(reductions.GATHER, weight, target)
    return reduced(loss, reduction)


@registered("MultiLabelMarginLoss", looks=True)
def multilabel_margin_loss(input: Tensor, target: Any, *, reduction: str = "mean") -> Tensor:
    """Σⱼ Σᵢ max(0, 1 − (xⱼ − xᵢ)) / C over classes j that are there and classes i that are not.

    The target lists those that are there, up to its first −1.

    Shapes: input (B, C) or (C), target the same.
    Raises: IndexRangeError for a class outside −1 … C − 1; ShapeError; DTypeError.
    """
    name = "multilabel_margin_loss"
    axis, classes = _rows_of_classes(name, input), input.shape[-1]
    target = class_numbers(name, target, input.shape, "for class numbers, the input's shape")
    array = target._known()
    if array is not None and array.size and not -1 <= array.min() <= array.max() < classes:
        bad = array.min() if array.min() < -1 else array.max()
        raise IndexRangeError(f"{name}: class {bad} in the target", needed=f"-1 to {classes - 1}, the classes")
    listed = (target < 0).to("int64").cumsum(-1) == 0  # (B, C) places before the first −1
    numbers = target.where(listed, 0)
    rows = [_iota(input.shape, 0)] if axis else []
    own = apply(reductions.GATHER, input, *rows, numbers).unsqueeze(-1)  # (B, C, 1) scores of what is there
    pairs = (*input.shape, classes)
    same = (_iota(pairs, len(pairs) - 1) == numbers.unsqueeze(-1)) & listed.unsqueeze(-1)
    there = same.any(axis, keepdim=True)  # (B, 1, C) whether a class is there
    excess = _positive(1 - own + input.unsqueeze(axis))
    # Nothing is counted for places that list nothing, nor against classes that are there.
    loss = excess.where(listed.unsqueeze(-1) & ~there, 0.0).sum((-2, -1)) / classes
    return reduced(loss, reduction)

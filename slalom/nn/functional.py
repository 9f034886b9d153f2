"""PyTorch's ``torch.nn.functional``: layers and losses as functions without state."""

from __future__ import annotations

from slalom.core.functional.activation import ACTIVATIONS, dropout, gumbel_softmax, prelu
from slalom.core.functional.attention import scaled_dot_product_attention
from slalom.core.functional.distance import DISTANCES, normalize
from slalom.core.functional.embedding import embedding, embedding_bag
from slalom.core.functional.indexing import one_hot
from slalom.core.functional.losses import LOSSES
from slalom.core.functional.norm import batch_norm, layer_norm
from slalom.core.functional.penalty import elastic_net_penalty, l1_penalty, l2_penalty
from slalom.core.functional.shaping import pad
from slalom.core.ops import structural
from slalom.core.tensor import Tensor, apply
from slalom.errors import ShapeError

_registered = {e.function.__name__: e.function for table in (ACTIVATIONS, DISTANCES, LOSSES) for e in table.values()}
globals().update(_registered)
__all__ = [
    "batch_norm", "dropout", "elastic_net_penalty", "embedding", "embedding_bag", "gumbel_softmax", "l1_penalty",
    "l2_penalty", "layer_norm", "linear", "normalize", "one_hot", "pad", "prelu", "scaled_dot_product_attention",
]  # fmt: skip
__all__ += list(_registered)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x·Wᵀ + b. Shapes: input (…, in), weight (out, in), bias (out) → (…, out).

    Raises: ShapeError naming both numbers when the input's last axis is not the weight's.
    """
    shape, needed = input.shape, weight.shape[-1]
    if not shape or shape[-1] != needed:
        found = f"{shape[-1]} features" if shape else "no axes"
        raise ShapeError(f"input has {found}, needs {needed}; input shape {shape}")
    out = input @ apply(structural.TRANSPOSE, weight, axes=(1, 0))
    return out if bias is None else out + bias

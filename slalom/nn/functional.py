"""PyTorch's ``torch.nn.functional``: layers and losses as functions without state."""

from __future__ import annotations

from slalom.core.functional.activation import (
    dropout,
    gelu,
    leaky_relu,
    log_softmax,
    prelu,
    relu,
    silu,
    softmax,
    softplus,
)
from slalom.core.functional.attention import scaled_dot_product_attention
from slalom.core.functional.embedding import embedding, embedding_bag
from slalom.core.functional.indexing import one_hot
from slalom.core.functional.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    mse_loss,
    nll_loss,
)
from slalom.core.functional.norm import batch_norm, layer_norm
from slalom.core.functional.shaping import pad
from slalom.core.ops import structural
from slalom.core.tensor import Tensor, apply
from slalom.errors import ShapeError

__all__ = [
    "batch_norm", "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "dropout", "embedding",
    "embedding_bag", "gelu", "layer_norm", "leaky_relu", "linear", "log_softmax", "mse_loss", "nll_loss", "one_hot",
    "pad", "prelu", "relu", "scaled_dot_product_attention", "sigmoid", "silu", "softmax", "softplus", "tanh",
]  # fmt: skip


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + e⁻ˣ)."""
    return input.sigmoid()


def tanh(input: Tensor) -> Tensor:
    """tanh x."""
    return input.tanh()


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

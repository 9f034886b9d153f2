"""PyTorch's ``torch.nn.functional``: layers and losses as functions without state."""

from __future__ import annotations

from slalom.core.functional import indexing
from slalom.core.functional.activation import ACTIVATIONS, dropout, gumbel_softmax, prelu
from slalom.core.functional.distance import DISTANCES, normalize
from slalom.core.functional.indexing import one_hot
from slalom.core.functional.losses import LOSSES
from slalom.core.functional.norm import batch_norm, layer_norm
from slalom.core.functional.penalty import elastic_net_penalty, l1_penalty, l2_penalty
from slalom.core.functional.shaping import pad
from slalom.core.ops import structural
from slalom.core.tensor import Tensor, apply
from slalom.errors import IndexRangeError, ShapeError

_registered = {e.function.__name__: e.function for table in (ACTIVATIONS, DISTANCES, LOSSES) for e in table.values()}
globals().update(_registered)
__all__ = ["batch_norm", "dropout", "embedding", "gumbel_softmax", "layer_norm", "linear", "normalize", "one_hot"]
__all__ += ["elastic_net_penalty", "l1_penalty", "l2_penalty", "pad", "prelu"]
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


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """Rows of ``weight`` at integer indices; the row ``padding_idx`` gets no gradient.

    Shapes: input (…), weight (N, D) → (…, D). Raises: IndexRangeError for an index outside 0 … N − 1; DTypeError.
    """
    out = indexing.embedding(input, weight)
    if padding_idx is None:
        return out
    rows = weight.shape[0]
    if not -rows <= padding_idx < rows:
        raise IndexRangeError("embedding: padding_idx", got=padding_idx, needed=f"{-rows} to {rows - 1}")
    return out.where((input != padding_idx % rows).unsqueeze(-1), out.detach())

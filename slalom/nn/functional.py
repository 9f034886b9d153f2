"""PyTorch's ``torch.nn.functional``: layers and losses as functions without state."""

from __future__ import annotations

from slalom.core.functional import conv, fractional, image, norm, padding, pool, unpool
from slalom.core.functional import dropout as dropouts
from slalom.core.functional.activation import ACTIVATIONS, gumbel_softmax, prelu
from slalom.core.functional.attention import scaled_dot_product_attention
from slalom.core.functional.conv import *
from slalom.core.functional.distance import DISTANCES, normalize
from slalom.core.functional.dropout import *
from slalom.core.functional.embedding import embedding, embedding_bag
from slalom.core.functional.fractional import *
from slalom.core.functional.image import *
from slalom.core.functional.indexing import one_hot
from slalom.core.functional.losses import LOSSES
from slalom.core.functional.norm import *
from slalom.core.functional.padding import *
from slalom.core.functional.penalty import PENALTIES
from slalom.core.functional.pool import *
from slalom.core.functional.unpool import *
from slalom.core.ops import structural
from slalom.core.tensor import Tensor, apply
from slalom.errors import ShapeError

_tables = (ACTIVATIONS, DISTANCES, LOSSES, PENALTIES)
_registered = {entry.function.__name__: entry.function for table in _tables for entry in table.values()}
globals().update(_registered)
__all__ = [
    "bilinear", "embedding", "embedding_bag", "gumbel_softmax", "linear", "normalize", "one_hot", "prelu",
    "scaled_dot_product_attention",
]  # fmt: skip
__all__ += list(_registered)
__all__ += conv.__all__
__all__ += dropouts.__all__
__all__ += fractional.__all__
__all__ += image.__all__
__all__ += norm.__all__
__all__ += padding.__all__
__all__ += pool.__all__
__all__ += unpool.__all__


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


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """yₖ = Σᵢⱼ x₁ᵢ · Wₖᵢⱼ · x₂ⱼ + bₖ.

    Shapes: input1 (…, in1), input2 (…, in2), weight (out, in1, in2), bias (out) → (…, out).
    Raises: ShapeError naming what does not fit.
    """
    if weight.ndim != 3:
        raise ShapeError("bilinear: weight", got=f"shape {weight.shape}", needed="(out, in1, in2)")
    out, *needed = weight.shape
    for number, (x, n) in enumerate(zip((input1, input2), needed, strict=True), 1):
        if not x.ndim or x.shape[-1] != n:
            raise ShapeError(f"bilinear: input{number}", got=f"shape {x.shape}", needed=f"{n} features")
    lead = input1.shape[:-1]
    if input2.shape[:-1] != lead:
        raise ShapeError(f"bilinear: inputs {input1.shape} and {input2.shape}", needed="equal axes before the last")
    spread = linear(input2, weight.reshape(out * needed[0], needed[1])).reshape(*lead, out, needed[0])  # W·x₂
    result = (spread @ input1.unsqueeze(-1)).squeeze(-1)
    return result if bias is None else result + bias

"""Scaled dot-product attention, by itself and with several heads between learned projections."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from slalom.core.dtype import bool_, int64
from slalom.core.functional.arithmetic import logical_and
from slalom.core.functional.dropout import dropout
from slalom.core.functional.padding import pad
from slalom.core.functional.shaping import cat
from slalom.core.ops import pointwise, reductions
from slalom.core.shape import broadcast
from slalom.core.tensor import Tensor, apply
from slalom.errors import ConfigError, DTypeError, ShapeError

__all__ = ["Heads", "Mask", "causal_mask", "multi_head_attention", "scaled_dot_product_attention"]


# --- masks --------------------------------------------------------------------------------------------------------
class Mask(NamedTuple):
    """Which keys a query may look at (True: it may), and what is added to their scores; None: all, and nothing.

    A key that is added −∞ is one that a query may not look at: so none of the sums below meets an infinite number.
    """

    allowed: Tensor | None = None
    added: Tensor | None = None

    @classmethod
    def of(cls, name: str, given: Tensor | None, *, true_is_masked: bool = False) -> Mask:
        """From a mask of bools or numbers. Raises: DTypeError for integers."""
        if given is None:
            return cls()
        if given.dtype == bool_:
            return cls(~given if true_is_masked else given)
        if given.dtype.kind != "f":
            raise DTypeError(name, got=given.dtype.name, needed="bool or floating")
        allowed = given != -math.inf
        return cls(allowed, given.where(allowed, 0.0))

    def also(self, other: Mask) -> Mask:
        """Both."""
        a, b, x, y = self.allowed, other.allowed, self.added, other.added
        allowed = (b if a is None else a) if a is None or b is None else logical_and(a, b)
        return Mask(allowed, (y if x is None else x) if x is None or y is None else x + y)

    def extended(self, keys: int) -> Mask:
        """With further keys at the end, which every query may look at."""
        one = None if self.allowed is None else pad(self.allowed, (0, keys), value=True)
        return Mask(one, None if self.added is None else pad(self.added, (0, keys)))

    def reshaped(self, *shape: int) -> Mask:
        one, two = self
        return Mask(None if one is None else one.reshape(shape), None if two is None else two.reshape(shape))


def causal_mask(queries: int, keys: int) -> Tensor:
    """Whether query i may look at key j: for j ≤ i. Shapes: (queries, keys)."""
    i, j = (Tensor._of(np.arange(n, dtype=int64)) for n in (queries, keys))
    return j <= i.unsqueeze(1)


def _shares(scores: Tensor, mask: Mask) -> Tensor:
    """The softmax over keys of what is not masked; 0 for all keys where all are masked."""
    if mask.added is not None:
        scores = scores + mask.added.to(scores.dtype)
    if not scores.shape[-1]:
        return scores
    axes, allowed = (scores.ndim - 1,), mask.allowed
    seen = scores.detach() if allowed is None else scores.detach().where(allowed, -math.inf)
    shifted = scores - apply(reductions.AMAX, seen, axes=axes, keepdims=True)
    if allowed is not None:
        # Before the exponential and after it: so no hidden score, be it infinite, has a part in values or gradients.
        shifted = shifted.where(allowed, 0.0)
    powers = apply(pointwise.EXP, shifted)
    if allowed is not None:
        powers = powers.where(allowed, 0.0)
    total = apply(reductions.SUM, powers, axes=axes, keepdims=True)
    if allowed is not None:
        total = total.masked_fill(total == 0, 1.0)
    return powers * (1 / total)  # one division a row, also backwards


# --- attention ----------------------------------------------------------------------------------------------------
def _attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Mask, dropout_p: float, scale: float | None
) -> tuple[Tensor, Tensor]:
    """What each query gets of the values, and its shares of the keys."""
    # The scores are scaled, not the query: so query and key are read where they lie, be they parts of one projection.
    scores = (query @ key.mT) * (1 / math.sqrt(max(query.shape[-1], 1)) if scale is None else scale)
    shares = dropout(_shares(scores, mask), dropout_p)  # (…, L, S)
    return shares @ value, shares


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(Q·Kᵀ / √E + mask)·V: for each query a mean of the values, weighted by how well their keys match it.

    ``attn_mask``: True where a query may look at a key, or numbers that are added to the scores. ``is_causal``: query
    i looks at keys up to i. ``dropout_p`` drops shares, also at evaluation: give 0 then. ``scale`` instead of 1/√E.
    ``enable_gqa``: each head of key and value serves several of query.

    Shapes: query (…, L, E), key (…, S, E), value (…, S, Eᵥ), mask that broadcasts to (…, L, S) → (…, L, Eᵥ).
    Raises: ShapeError for shapes that do not fit; DTypeError for a mask of integers; ConfigError for a mask and
    ``is_causal`` together.
    Source: A. Vaswani et al., Attention Is All You Need, 2017, equation 1.
    Note: a query that may look at no key gets zeros, with gradients of 0, as in PyTorch.

    >>> x = Tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> scaled_dot_product_attention(x, x, x, is_causal=True)
    tensor([[1.    , 0.    ],
            [0.3302, 0.6698]])
    """
    what = "scaled_dot_product_attention"
    for name, t in (("query", query), ("key", key), ("value", value)):
        if t.ndim < 2:
            raise ShapeError(f"{what}: {name}", got=f"shape {t.shape}", needed="at least two axes")
    if query.shape[-1] != key.shape[-1]:
        raise ShapeError(f"{what}: query {query.shape}, key {key.shape}", needed="equal last axes")
    if key.shape[-2] != value.shape[-2]:
        raise ShapeError(f"{what}: key {key.shape}, value {value.shape}", needed="a value for each key")
    if attn_mask is not None and is_causal:
        raise ConfigError(what, got="attn_mask and is_causal", needed="one of them")
    if enable_gqa:
        key, value = (_repeated(what, query, t) for t in (key, value))
    queries, keys = query.shape[-2], key.shape[-2]
    if is_causal:
        attn_mask = causal_mask(queries, keys)
    if attn_mask is not None:
        full = (*broadcast(what, [query.shape[:-2], key.shape[:-2]]), queries, keys)
        if broadcast(f"{what}: attn_mask", [attn_mask.shape, full]) != full:
            raise ShapeError(f"{what}: attn_mask", got=attn_mask.shape, needed=f"a shape that stretches to {full}")
    return _attend(query, key, value, Mask.of(f"{what}: attn_mask", attn_mask), dropout_p, scale)[0]


def _repeated(what: str, query: Tensor, t: Tensor) -> Tensor:
    heads, served = t.shape[-3:-2], query.shape[-3:-2]
    if not heads or not served or not heads[0] or served[0] % heads[0]:
        raise ShapeError(what, got=f"{heads} and {served} heads", needed="a multiple of key's and value's for query")
    return t.repeat_interleave(served[0] // heads[0], -3)


class Heads(NamedTuple):
    """What attention with several heads has learned: rows for query, key and value, in one matrix or in three.

    Shapes: in_proj (3E, E) or (E, E), (E, kdim), (E, vdim); in_bias (3E); bias_k, bias_v (1, 1, E), a key and a value
    that follow those of every sequence; out_proj (E, E); out_bias (E).
    """

    in_proj: tuple[Tensor, ...]
    in_bias: Tensor | None
    bias_k: Tensor | None
    bias_v: Tensor | None
    out_proj: Tensor
    out_bias: Tensor | None


def _projected(query: Tensor, key: Tensor, value: Tensor, learned: Heads) -> list[Tensor]:
    """Query, key and value times their weights; what is the same tensor is multiplied once."""
    width = query.shape[-1]
    if len(learned.in_proj) == 1 and key is value:
        (weight,) = learned.in_proj
        if query is key:
            return _linear(query, weight, learned.in_bias).split(width, -1)  # type: ignore[return-value]
        first, rest = (
            (weight.narrow(0, at, n), None if learned.in_bias is None else learned.in_bias.narrow(0, at, n))
            for at, n in ((0, width), (width, 2 * width))
        )
        return [_linear(query, *first), *_linear(key, *rest).split(width, -1)]
    parts = learned.in_proj if len(learned.in_proj) > 1 else learned.in_proj[0].split(width)
    biases = [None] * 3 if learned.in_bias is None else learned.in_bias.split(width)
    return [_linear(x, w, b) for x, w, b in zip((query, key, value), parts, biases, strict=True)]


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out = x @ weight.mT
    return out if bias is None else out + bias


def multi_head_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    num_heads: int,
    learned: Heads,
    mask: Mask,
    *,
    add_zero_attn: bool = False,
    dropout_p: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """concat(head₁ … headₕ)·Wₒᵀ with headᵢ = attention(Q·Wᵢᵀ, K·Wᵢᵀ, V·Wᵢᵀ), and each head's shares of the keys.

    ``add_zero_attn``: a key and a value of zeros follow those of every sequence.

    Shapes: query (B, L, E), key (B, S, kdim), value (B, S, vdim), mask that broadcasts to (B, heads, L, S) →
    (B, L, E) and (B, heads, L, S′), where S′ counts keys that were added.
    Source: A. Vaswani et al., Attention Is All You Need, 2017, section 3.2.2.
    """
    batch, _, width = query.shape
    q, k, v = _projected(query, key, value, learned)
    if learned.bias_k is not None and learned.bias_v is not None:
        k, v = (cat([x, b.expand(batch, 1, width)], 1) for x, b in ((k, learned.bias_k), (v, learned.bias_v)))
    if add_zero_attn:
        k, v = (pad(x, (0, 0, 0, 1)) for x in (k, v))
    if k.shape[1] > key.shape[1]:
        mask = mask.extended(k.shape[1] - key.shape[1])
    q, k, v = (x.unflatten(-1, (num_heads, width // num_heads)).transpose(1, 2) for x in (q, k, v))  # (B, h, ·, E/h)
    out, shares = _attend(q, k, v, mask, dropout_p, None)
    return _linear(out.transpose(1, 2).flatten(2), learned.out_proj, learned.out_bias), shares

"""Attention with several heads, and positions for networks that would not know them otherwise."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from slalom.core.functional.attention import Heads, Mask, causal_mask, multi_head_attention
from slalom.core.functional.creation import empty
from slalom.core.tensor import Tensor, floating
from slalom.errors import ConfigError, ShapeError
from slalom.nn import init
from slalom.nn.linear import Linear
from slalom.nn.module import Module, Parameter

__all__ = ["LearnedPositions", "MultiheadAttention", "SinusoidalPositions"]


class MultiheadAttention(Module):
    """concat(head₁ … headₕ)·Wₒᵀ with headᵢ = softmax(Qᵢ·Kᵢᵀ / √dᵢ)·Vᵢ, where Qᵢ, Kᵢ, Vᵢ are learned projections.

    ``bias``: of the projections. ``add_bias_kv``: a learned key and value follow those of every sequence,
    ``add_zero_attn``: one of zeros. ``kdim``, ``vdim``: features of keys and values, embed_dim if not given.
    ``batch_first`` puts the batch before time. ``dropout`` drops shares of keys while training.

    Called with query, key, value it returns the result and, if ``need_weights``, each query's shares of the keys
    (their mean over the heads if ``average_attn_weights``), else None. ``attn_mask`` (L, S) or (B · heads, L, S) and
    ``key_padding_mask`` (B, S) are True where a query may NOT look, or numbers added to the scores; ``is_causal``
    lets query i look at keys up to i.

    Shapes: query (L, B, E), key (S, B, kdim), value (S, B, vdim) → (L, B, E) and (B, L, S) or (B, heads, L, S); all
    without B for one sequence.
    Raises: ConfigError unless the heads divide embed_dim; ShapeError for inputs and masks that do not fit.
    Source: A. Vaswani et al., Attention Is All You Need, 2017, section 3.2.2.
    Note: masks are the other way round in ``functional.scaled_dot_product_attention``, as in PyTorch. A query that may
    look at nothing gets zeros (and the output's bias), where PyTorch gives NaN if weights are asked for. ``is_causal``
    needs no mask beside it.

    >>> x = Tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    >>> out, shares = MultiheadAttention(2, 1)(x, x, x, is_causal=True)
    >>> out.shape, shares[0]
    ((3, 2), tensor([1., 0., 0.], grad_fn=<reshape>))
    """

    __constants__ = ("add_zero_attn", "batch_first", "dropout", "num_heads")

    in_proj_weight: Parameter | None
    q_proj_weight: Parameter | None
    k_proj_weight: Parameter | None
    v_proj_weight: Parameter | None
    in_proj_bias: Parameter | None
    bias_k: Parameter | None
    bias_v: Parameter | None

    _native = None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1 or embed_dim % num_heads:
            got = f"embed_dim {embed_dim}, num_heads {num_heads}"
            raise ConfigError("MultiheadAttention", got=got, needed="heads that divide embed_dim, both at least 1")
        if not 0 <= dropout <= 1:
            raise ConfigError("MultiheadAttention: dropout", got=dropout, needed="a probability, 0 to 1")
        self.embed_dim, self.num_heads, self.dropout, self.bias = embed_dim, num_heads, dropout, bias
        self.head_dim = embed_dim // num_heads
        self.add_bias_kv, self.add_zero_attn, self.batch_first = add_bias_kv, add_zero_attn, batch_first
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        shapes: dict[str, tuple[int, ...] | None] = {"in_proj_weight": (3 * embed_dim, embed_dim)}
        shapes |= dict.fromkeys(("q_proj_weight", "k_proj_weight", "v_proj_weight"))
        if self.kdim != embed_dim or self.vdim != embed_dim:
            widths = {"q_proj_weight": embed_dim, "k_proj_weight": self.kdim, "v_proj_weight": self.vdim}
            shapes |= {"in_proj_weight": None} | {name: (embed_dim, n) for name, n in widths.items()}
        shapes["in_proj_bias"] = (3 * embed_dim,) if bias else None
        shapes["bias_k"] = shapes["bias_v"] = (1, 1, embed_dim) if add_bias_kv else None
        for name, shape in shapes.items():
            made = None if shape is None else Parameter(empty(shape, device=device, dtype=dtype))
            self.register_parameter(name, made)
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values anew."""
        self.out_proj.reset_parameters()
        for name, p in self._parameters.items():
            if p is not None:
                (init.xavier_uniform_ if "proj" in name else init.xavier_normal_)(p) if p.ndim > 1 else init.zeros_(p)
        if self.out_proj.bias is not None:
            init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        single = query.ndim == 2
        self._check(query, key, value)
        q, k, v = self._batch_first(query, key, value)
        mask = self._mask(q, k, attn_mask, key_padding_mask, is_causal)
        weights = [self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        held = tuple([w for w in weights if w is not None])
        learned = Heads(held, self.in_proj_bias, self.bias_k, self.bias_v, self.out_proj.weight, self.out_proj.bias)
        out, shares = multi_head_attention(
            q, k, v, self.num_heads, learned, mask,
            add_zero_attn=self.add_zero_attn, dropout_p=self.dropout if self.training else 0.0,
        )  # fmt: skip
        out = out.squeeze(0) if single else out if self.batch_first else out.transpose(0, 1)
        if not need_weights:
            return out, None
        shares = shares.mean(1) if average_attn_weights else shares
        return out, shares.squeeze(0) if single else shares

    def _batch_first(self, *inputs: Tensor) -> list[Tensor]:
        """The inputs as (B, T, ·); what is one tensor stays one."""
        made: dict[int, Tensor] = {}
        for t in inputs:
            if id(t) not in made:
                made[id(t)] = t.unsqueeze(0) if t.ndim == 2 else t if self.batch_first else t.transpose(0, 1)
        return [made[id(t)] for t in inputs]

    def _check(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        layout = "(B, T, D)" if self.batch_first else "(T, B, D)"
        for name, t, width in (
            ("query", query, self.embed_dim), ("key", key, self.kdim), ("value", value, self.vdim),
        ):  # fmt: skip
            if t.ndim not in (2, 3) or t.ndim != query.ndim:
                raise ShapeError(name, got=f"shape {t.shape}", needed=f"{layout}, or (T, D) for one sequence")
            if t.shape[-1] != width:
                raise ShapeError(f"{name} has {t.shape[-1]} features, needs {width}; its shape {t.shape}")
        batch = 0 if self.batch_first else 1
        if key.shape[:-1] != value.shape[:-1]:
            raise ShapeError(f"key {key.shape}, value {value.shape}", needed="a value for each key")
        if query.ndim == 3 and query.shape[batch] != key.shape[batch]:
            raise ShapeError(f"query {query.shape}, key {key.shape}", needed="the same batch")

    def _mask(self, q: Tensor, k: Tensor, attn_mask: Tensor | None, padding: Tensor | None, is_causal: bool) -> Mask:
        """All masks as one, which broadcasts to (B, heads, L, S)."""
        batch, queries, keys = q.shape[0], q.shape[1], k.shape[1]
        mask = Mask(causal_mask(queries, keys)) if is_causal else Mask()
        if attn_mask is not None:
            one, each = (queries, keys), (batch * self.num_heads, queries, keys)
            if attn_mask.shape not in (one, each):
                raise ShapeError("attn_mask", got=f"shape {attn_mask.shape}", needed=f"{one} or {each}")
            given = Mask.of("attn_mask", attn_mask, true_is_masked=True)
            mask = mask.also(given if attn_mask.ndim == 2 else given.reshaped(batch, self.num_heads, queries, keys))
        if padding is not None:
            if padding.shape != (batch, keys) and not (batch == 1 and padding.shape == (keys,)):
                raise ShapeError("key_padding_mask", got=f"shape {padding.shape}", needed=(batch, keys))
            given = Mask.of("key_padding_mask", padding, true_is_masked=True)
            mask = mask.also(given.reshaped(batch, 1, 1, keys))
        return mask

    def _label(self) -> str:
        return f"MultiheadAttention {self.embed_dim}, {self.num_heads} heads"


# --- positions ----------------------------------------------------------------------------------------------------
@functools.lru_cache(maxsize=16)
def _waves(steps: int, features: int, max_wavelength: float) -> Any:
    angle = np.arange(steps)[:, None] / max_wavelength ** (np.arange(0, features, 2) / features)
    out = np.empty((steps, features))
    out[:, 0::2], out[:, 1::2] = np.sin(angle), np.cos(angle[:, : features // 2])
    out.flags.writeable = False
    return out


def _along_time(table: Tensor, input: Tensor, batch_first: bool) -> Tensor:
    """(T, D), so that it broadcasts to the input."""
    return table if input.ndim == 2 or batch_first else table.unsqueeze(1)


def _steps(input: Tensor, features: int | None, batch_first: bool) -> int:
    """The number of time steps. Raises: ShapeError."""
    shape = input.shape
    if len(shape) not in (2, 3):
        layout = "(B, T, D)" if batch_first else "(T, B, D)"
        raise ShapeError("input", got=f"shape {shape}", needed=f"{layout}, or (T, D) for one sequence")
    if features is not None and shape[-1] != features:
        raise ShapeError(f"input has {shape[-1]} features, needs {features}; input shape {shape}")
    return shape[1] if len(shape) == 3 and batch_first else shape[0]


class SinusoidalPositions(Module):
    """x + P with P[t, 2i] = sin(t / w^(2i/D)) and P[t, 2i+1] = cos(t / w^(2i/D)), w = ``max_wavelength``.

    It learns nothing, and takes sequences of any length.

    Shapes: (T, B, D), with ``batch_first`` (B, T, D), or (T, D) → the same.
    Raises: ShapeError for other numbers of axes.
    Source: A. Vaswani et al., Attention Is All You Need, 2017, section 3.5.
    Note: PyTorch has none; its tutorial's PositionalEncoding has a table of a largest length, and dropout behind it.

    >>> SinusoidalPositions()(Tensor([[0.0, 0.0], [0.0, 0.0]]))
    tensor([[0.    , 1.    ],
            [0.8415, 0.5403]])
    """

    __constants__ = ("batch_first", "max_wavelength")

    def __init__(self, max_wavelength: float = 10000.0, batch_first: bool = False) -> None:
        super().__init__()
        if not max_wavelength > 0:
            raise ConfigError("SinusoidalPositions: max_wavelength", got=max_wavelength, needed="a positive number")
        self.max_wavelength, self.batch_first = max_wavelength, batch_first

    def forward(self, input: Tensor) -> Tensor:
        input = floating(input)
        steps = _steps(input, None, self.batch_first)
        table = _waves(steps, input.shape[-1], self.max_wavelength).astype(input.dtype)
        return input + _along_time(Tensor._of(table), input, self.batch_first)

    def extra_repr(self) -> str:
        return f"max_wavelength={self.max_wavelength}, batch_first={self.batch_first}"


class LearnedPositions(Module):
    """x + W[: T]: a learned vector for each place in a sequence, up to ``max_length`` of them.

    They start in N(0, 0.02²).

    Shapes: (T, B, D), with ``batch_first`` (B, T, D), or (T, D) → the same; weight (max_length, D).
    Raises: ShapeError for a longer sequence, and for other features than ``embedding_dim``.
    Source: J. Gehring et al., Convolutional Sequence to Sequence Learning, 2017, section 3.1; the spread is BERT's
    (J. Devlin et al., 2018).
    """

    __constants__ = ("batch_first",)

    weight: Parameter

    def __init__(
        self, max_length: int, embedding_dim: int, batch_first: bool = False, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.max_length, self.embedding_dim, self.batch_first = max_length, embedding_dim, batch_first
        self.weight = Parameter(empty(max_length, embedding_dim, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values anew."""
        init.normal_(self.weight, std=0.02)

    def forward(self, input: Tensor) -> Tensor:
        steps = _steps(input, self.embedding_dim, self.batch_first)
        if steps > self.max_length:
            raise ShapeError(f"input has {steps} time steps, at most {self.max_length}; input shape {input.shape}")
        return input + _along_time(self.weight[:steps], input, self.batch_first)

    def extra_repr(self) -> str:
        return f"{self.max_length}, {self.embedding_dim}, batch_first={self.batch_first}"

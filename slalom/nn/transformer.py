"""Transformers: the layers of encoder and decoder, stacks of them, and both together."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

from slalom.core.functional.attention import causal_mask
from slalom.core.functional.creation import reserve, zeros
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError, DTypeError
from slalom.nn import functional as F
from slalom.nn import init
from slalom.nn.attention import MultiheadAttention
from slalom.nn.container import ModuleList
from slalom.nn.dropout import Dropout
from slalom.nn.linear import Linear
from slalom.nn.module import Module
from slalom.nn.norm import LayerNorm

__all__ = [
    "Transformer", "TransformerDecoder", "TransformerDecoderLayer", "TransformerEncoder", "TransformerEncoderLayer",
]  # fmt: skip

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


class _Layer(Module):
    """What the layers of encoder and decoder have in common: two linear layers, an activation, and how they are made.

    Each part f becomes x ← norm(x + drop(f(x))), or with ``norm_first`` x ← x + drop(f(norm(x))).
    """

    __constants__ = ("activation", "norm_first")
    _native = None
    _PARTS: int
    """How many parts there are, each with a norm and a dropout of its own."""

    activation: str | Module

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float | Dropout = 0.1,
        activation: str | Module | Callable[[Tensor], Tensor] = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        p = dropout.p if isinstance(dropout, Dropout) else dropout
        named = next((name for name, function in _ACTIVATIONS.items() if activation is function), activation)
        if not isinstance(named, Module) and named not in _ACTIVATIONS:
            got, needed = repr(activation), "'relu', 'gelu' or a Module"
            raise ConfigError(f"{type(self).__name__}: activation", got=got, needed=needed)
        self.d_model, self.nhead, self.dim_feedforward = d_model, nhead, dim_feedforward
        self.layer_norm_eps, self.batch_first, self.norm_first, self.bias = (
            layer_norm_eps,
            batch_first,
            norm_first,
            bias,
        )
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        for name in ("self_attn", "multihead_attn")[: self._PARTS - 1]:
            made = MultiheadAttention(d_model, nhead, p, bias=bias, batch_first=batch_first, **options)
            self.register_module(name, made)
        self.linear1 = Linear(d_model, dim_feedforward, bias=bias, **options)
        self.dropout = Dropout(p)
        self.linear2 = Linear(dim_feedforward, d_model, bias=bias, **options)
        for n in range(1, self._PARTS + 1):
            self.register_module(f"norm{n}", LayerNorm(d_model, layer_norm_eps, bias=bias, **options))
        for n in range(1, self._PARTS + 1):
            self.register_module(f"dropout{n}", Dropout(p))
        self.activation = named

    def _part(self, n: int, x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        norm, drop = getattr(self, f"norm{n}"), getattr(self, f"dropout{n}")
        out: Tensor = x + drop(f(norm(x))) if self.norm_first else norm(x + drop(f(x)))
        return out

    def _feed_forward(self, x: Tensor) -> Tensor:
        f = _ACTIVATIONS[self.activation] if isinstance(self.activation, str) else self.activation
        out: Tensor = self.linear2(self.dropout(f(self.linear1(x))))
        return out


class TransformerEncoderLayer(_Layer):
    """Self-attention, then two linear layers for each place alone; around each x ← LayerNorm(x + dropout(part(x))).

    ``norm_first``: x ← x + dropout(part(LayerNorm(x))) instead. ``activation`` "relu", "gelu" or a Module stands
    between the linear layers, which have ``dim_feedforward`` units. Masks are those of MultiheadAttention: True where
    a place may not be looked at.

    Shapes: src (T, B, d_model), with ``batch_first`` (B, T, d_model), or (T, d_model) → the same.
    Raises: ConfigError for another activation, and unless ``nhead`` divides d_model.
    Source: A. Vaswani et al., Attention Is All You Need, 2017, section 3; ``norm_first``: R. Xiong et al., On Layer
    Normalization in the Transformer Architecture, 2020.
    """

    _PARTS = 2

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        def attention(x: Tensor) -> Tensor:
            out: Tensor = self.self_attn(x, x, x, src_key_padding_mask, False, src_mask, True, is_causal)[0]
            return out

        return self._part(2, self._part(1, src, attention), self._feed_forward)


class TransformerDecoderLayer(_Layer):
    """Self-attention, attention to what an encoder made (``memory``), then two linear layers for each place alone.

    Options, masks and errors are those of TransformerEncoderLayer; ``memory_mask`` and ``memory_key_padding_mask`` say
    what of the memory may not be looked at.

    Shapes: tgt (T, B, d_model), memory (S, B, d_model) → as tgt; with ``batch_first``, or without B, as there.
    """

    _PARTS = 3

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        def attention(x: Tensor) -> Tensor:
            out: Tensor = self.self_attn(x, x, x, tgt_key_padding_mask, False, tgt_mask, True, tgt_is_causal)[0]
            return out

        def attention_to_memory(x: Tensor) -> Tensor:
            padding, causal = memory_key_padding_mask, memory_is_causal
            out: Tensor = self.multihead_attn(x, memory, memory, padding, False, memory_mask, True, causal)[0]
            return out

        x = self._part(2, self._part(1, tgt, attention), attention_to_memory)
        return self._part(3, x, self._feed_forward)


# --- stacks -------------------------------------------------------------------------------------------------------
class _Stack(Module):
    """Copies of a layer, and a norm after the last of them."""

    _native = None

    def __init__(self, layer: Module, num_layers: int, norm: Module | None) -> None:
        super().__init__()
        if not isinstance(layer, Module):
            raise DTypeError(f"{type(self).__name__}: layer", got=type(layer).__name__, needed="a Module")
        if num_layers < 1:
            raise ConfigError(f"{type(self).__name__}: num_layers", got=num_layers, needed="at least 1")
        numbers = sum(t.numel() for t in layer.state_dict().values())
        self.layers = ModuleList()
        for _ in range(num_layers):
            reserve(max(numbers, 1), "a copy of the layer")
            self.layers.append(copy.deepcopy(layer))
        self.num_layers = num_layers
        self.norm = norm

    def _run(self, x: Tensor, *inputs: Any) -> Tensor:
        for layer in self.layers:
            x = layer(x, *inputs)
        out: Tensor = x if self.norm is None else self.norm(x)
        return out


class TransformerEncoder(_Stack):
    """``num_layers`` copies of an encoder layer, then ``norm`` if there is one.

    Shapes: as the layer.
    Note: the copies begin with the same weights, as in PyTorch; ``enable_nested_tensor`` and ``mask_check`` are taken
    and change nothing.
    """

    def __init__(
        self,
        encoder_layer: Module,
        num_layers: int,
        norm: Module | None = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ) -> None:
        super().__init__(encoder_layer, num_layers, norm)
        self.enable_nested_tensor, self.mask_check = enable_nested_tensor, mask_check

    @property
    def encoder_layer(self) -> Module:
        """The first of the copies."""
        first: Module = self.layers[0]
        return first

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        return self._run(src, mask, src_key_padding_mask, bool(is_causal))


class TransformerDecoder(_Stack):
    """``num_layers`` copies of a decoder layer, then ``norm`` if there is one. Shapes: as the layer."""

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__(decoder_layer, num_layers, norm)

    @property
    def decoder_layer(self) -> Module:
        """The first of the copies."""
        first: Module = self.layers[0]
        return first

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        masks = tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask
        return self._run(tgt, memory, *masks, bool(tgt_is_causal), memory_is_causal)


class Transformer(Module):
    """An encoder reads ``src``; a decoder makes, from what it made and from ``tgt``, the output.

    The options are those of the layers; ``custom_encoder`` and ``custom_decoder`` take the places of the two.

    Shapes: src (S, B, d_model), tgt (T, B, d_model) → as tgt; with ``batch_first`` B comes first; both without B.
    Source: A. Vaswani et al., Attention Is All You Need, 2017.
    Note: there are no embeddings, positions or output layer in it, as in PyTorch. Without ``tgt_mask`` or
    ``tgt_is_causal`` a place sees what comes after it.
    """

    _native = None

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Module | Callable[[Tensor], Tensor] = "relu",
        custom_encoder: Module | None = None,
        custom_decoder: Module | None = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.d_model, self.nhead, self.dim_feedforward, self.dropout = d_model, nhead, dim_feedforward, dropout
        self.num_encoder_layers, self.num_decoder_layers = num_encoder_layers, num_decoder_layers
        self.layer_norm_eps, self.batch_first, self.norm_first, self.bias = (
            layer_norm_eps,
            batch_first,
            norm_first,
            bias,
        )
        self._own = custom_encoder is None, custom_decoder is None
        placed: dict[str, Any] = {"device": device, "dtype": dtype}

        def norm() -> LayerNorm:
            return LayerNorm(d_model, layer_norm_eps, bias=bias, **placed)

        options = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias)
        if custom_encoder is None:
            layer: Module = TransformerEncoderLayer(*options, **placed)
            custom_encoder = TransformerEncoder(layer, num_encoder_layers, norm())
        if custom_decoder is None:
            layer = TransformerDecoderLayer(*options, **placed)
            custom_decoder = TransformerDecoder(layer, num_decoder_layers, norm())
        self.encoder, self.decoder = custom_encoder, custom_decoder
        self.reset_parameters()

    @property
    def activation(self) -> Any:
        """What stands between the linear layers; the usual one where both encoder and decoder were given."""
        stack = self.encoder if self._own[0] else self.decoder if self._own[1] else None
        return "relu" if stack is None else stack.layers[0].activation

    @property
    def custom_encoder(self) -> Module | None:
        """The encoder if it was given."""
        return None if self._own[0] else self.encoder

    @property
    def custom_decoder(self) -> Module | None:
        """The decoder if it was given."""
        return None if self._own[1] else self.decoder

    def reset_parameters(self) -> None:
        """Draw the initial values of all matrices anew, after Glorot."""
        for p in self.parameters():
            if p.ndim > 1:
                init.xavier_uniform_(p)

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        memory = self.encoder(src, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal)
        out: Tensor = self.decoder(
            tgt, memory, tgt_mask=tgt_mask, memory_mask=memory_mask, tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask, tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )  # fmt: skip
        return out

    @staticmethod
    def generate_square_subsequent_mask(sz: int, device: Any = None, dtype: Any = None) -> Tensor:
        """The mask of a sequence that may not look ahead: −∞ above the diagonal, else 0. Shapes: (sz, sz)."""
        return zeros(sz, sz, device=device, dtype=dtype).masked_fill(~causal_mask(sz, sz), -math.inf)

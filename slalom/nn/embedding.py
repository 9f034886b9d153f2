"""Embedding: rows of a learned table, by index; EmbeddingBag: their sum, mean or maximum over bags of indices."""

from __future__ import annotations

from typing import Any

from slalom.core.autodiff import no_grad
from slalom.core.functional.creation import empty
from slalom.core.functional.embedding import MODES
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError, IndexRangeError, ShapeError
from slalom.nn import functional as F
from slalom.nn import init
from slalom.nn.module import Module, Parameter

__all__ = ["Embedding", "EmbeddingBag"]


class _Table(Module):
    """A learned table, and what is done with the rows that are asked for."""

    weight: Parameter

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None,
        max_norm: float | None,
        norm_type: float,
        scale_grad_by_freq: bool,
        sparse: bool,
        device: Any,
        dtype: Any,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                needed = f"{-num_embeddings} to {num_embeddings - 1}"
                raise IndexRangeError(f"{name}: padding_idx", got=padding_idx, needed=needed)
            padding_idx %= num_embeddings
        if sparse:
            raise ConfigError(f"{name}: sparse", got=True, needed="False", hint="gradients are dense here")
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.max_norm, self.norm_type = max_norm, norm_type
        self.scale_grad_by_freq, self.sparse = scale_grad_by_freq, sparse
        self.weight = Parameter(empty(num_embeddings, embedding_dim, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values anew."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0.0

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, *options: Any, **named: Any) -> Any:
        """A layer on a given table (N, D), which is not learned unless ``freeze`` is False; then the other options."""
        if embeddings.ndim != 2:
            raise ShapeError("from_pretrained: embeddings", got=f"shape {embeddings.shape}", needed="two axes")
        make: Any = cls
        made = make(*embeddings.shape, *options, **named)
        made.weight = Parameter(embeddings, requires_grad=not freeze)
        return made

    def _label(self) -> str:
        return f"{type(self).__name__} {self.num_embeddings}→{self.embedding_dim}"

    def _said(self, *names: str) -> str:
        """The sizes, and those settings that are not as usual."""
        usual = {"padding_idx": None, "max_norm": None, "norm_type": 2, "scale_grad_by_freq": False, "mode": ""}
        said = [f"{name}={getattr(self, name)!r}" for name in names if getattr(self, name) != usual[name]]
        return ", ".join([str(self.num_embeddings), str(self.embedding_dim), *said])


class Embedding(_Table):
    """The rows of a learned table at integer indices; rows start in N(0, 1).

    ``padding_idx``: a row that starts as zeros and gets no gradient. ``max_norm``: rows that are asked for and whose
    ``norm_type``-norm is larger are scaled down to it, in place. ``scale_grad_by_freq``: a row's gradient is divided by
    how often it is asked for.

    Shapes: (…) → (…, embedding_dim); weight (num_embeddings, embedding_dim).
    Raises: IndexRangeError for an index outside 0 … num_embeddings − 1; DTypeError for indices that are no integers;
    ConfigError for ``sparse``.
    """

    __constants__ = ("max_norm", "norm_type", "padding_idx", "scale_grad_by_freq")

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        options = (padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, device, dtype)
        super().__init__(num_embeddings, embedding_dim, *options)

    def forward(self, input: Tensor) -> Tensor:
        return F.embedding(input, self.weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq)

    def extra_repr(self) -> str:
        return self._said("padding_idx", "max_norm", "norm_type", "scale_grad_by_freq")


class EmbeddingBag(_Table):
    """The sum, mean or maximum (``mode``) of a learned table's rows over bags of indices; 0 for a bag without any.

    Called with the indices (B, N), or with a vector of them and ``offsets``, where bags begin; with
    ``include_last_offset`` the last offset is where the last one ends. ``per_sample_weights``, one for each index, only
    with "sum". ``padding_idx`` is left out of its bag; the other options are those of Embedding.

    Shapes: (B, N), or (N) with offsets (B) or (B + 1) → (B, embedding_dim); weight (num_embeddings, embedding_dim).
    Raises: as Embedding; ConfigError, ShapeError, IndexRangeError for offsets and weights that do not fit.
    """

    __constants__ = ("include_last_offset", "max_norm", "mode", "norm_type", "padding_idx", "scale_grad_by_freq")

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        *,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if mode not in MODES:
            raise ConfigError("EmbeddingBag: mode", got=repr(mode), needed=" or ".join(map(repr, MODES)))
        if mode == "max" and scale_grad_by_freq:
            raise ConfigError("EmbeddingBag: scale_grad_by_freq", got="mode 'max'", needed="'sum' or 'mean'")
        options = (padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, device, dtype)
        super().__init__(num_embeddings, embedding_dim, *options)
        self.mode, self.include_last_offset = mode, include_last_offset

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        return F.embedding_bag(
            input, self.weight, offsets, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.mode,
            per_sample_weights=per_sample_weights, include_last_offset=self.include_last_offset,
            padding_idx=self.padding_idx,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return self._said("max_norm", "norm_type", "scale_grad_by_freq", "mode", "padding_idx")

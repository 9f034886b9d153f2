"""Embedding: a table of learned vectors."""

from __future__ import annotations

from typing import Any

from slalom.core.autodiff import no_grad
from slalom.core.functional.creation import empty
from slalom.core.tensor import Tensor
from slalom.errors import IndexRangeError, ShapeError
from slalom.nn import functional as F
from slalom.nn import init
from slalom.nn.module import Module, Parameter

__all__ = ["Embedding"]


class Embedding(Module):
    """The rows of a learned table at integer indices; rows start in N(0, 1).

    ``padding_idx``: a row that starts as zeros and gets no gradient.

    Shapes: (…) → (…, embedding_dim); weight (num_embeddings, embedding_dim).
    Raises: IndexRangeError for an index outside 0 … num_embeddings − 1; DTypeError for indices that are no integers.
    """

    __constants__ = ("padding_idx",)
    weight: Parameter

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                needed = f"{-num_embeddings} to {num_embeddings - 1}"
                raise IndexRangeError("Embedding: padding_idx", got=padding_idx, needed=needed)
            padding_idx %= num_embeddings
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.weight = Parameter(empty(num_embeddings, embedding_dim, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values anew."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0.0

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, padding_idx: int | None = None) -> Embedding:
        """An Embedding on a given table (N, D), which is not learned unless ``freeze`` is False."""
        if embeddings.ndim != 2:
            raise ShapeError("from_pretrained: embeddings", got=f"shape {embeddings.shape}", needed="two axes")
        rows, width = embeddings.shape
        made = cls(rows, width, padding_idx)
        made.weight = Parameter(embeddings, requires_grad=not freeze)
        return made

    def forward(self, input: Tensor) -> Tensor:
        return F.embedding(input, self.weight, self.padding_idx)

    def _label(self) -> str:
        return f"Embedding {self.num_embeddings}→{self.embedding_dim}"

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"

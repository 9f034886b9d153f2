"""The network for tables: periodic embeddings of numbers, learned embeddings of many-levelled columns, an MLP.

The embedding of a number is RealMLP's: x with three linear combinations of cos(2π·f·x + φ), whose frequencies are
learned; it lets a small network bend sharply in one column, which trees do by a split.
Source: Holzmüller, Grinsztajn and Steinwart, Better by Default, 2024 (arXiv:2407.04491), section 3 (PBLD).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from slalom import nn
from slalom.core.functional.shaping import cat
from slalom.core.random import rand, randn
from slalom.core.tensor import Tensor
from slalom.errors import ModelFileError

__all__ = ["NetworkSizes", "TabularNetwork"]


@dataclass(frozen=True)
class NetworkSizes:
    """All that is needed to build the network again: plain numbers, kept in the model file.

    continuous, other: how many of the prepared numbers can take many values (they come first), and how many are
    flags. cardinalities: levels + 1 of each embedded column. outputs: classes, or 1 for a number.
    """

    continuous: int
    other: int
    cardinalities: tuple[int, ...]
    outputs: int
    hidden: tuple[int, ...] = (256, 256, 256)
    frequencies: int = 16
    periodic: int = 3
    embedding: int = 8
    dropout: float = 0.1

    @property
    def inputs(self) -> int:
        """Width of the first linear layer."""
        return self.continuous * (1 + self.periodic) + self.other + self.embedding * len(self.cardinalities)

    @property
    def parameters(self) -> int:
        """How many numbers the network learns."""
        per_number = 2 * self.frequencies + (self.frequencies + 1) * self.periodic
        widths = (self.inputs, *self.hidden, self.outputs)
        linear = sum((before + 1) * after for before, after in pairwise(widths))
        return self.continuous * per_number + self.embedding * sum(self.cardinalities) + linear

    def check(self) -> NetworkSizes:
        """Raises: ModelFileError for sizes no network can have."""
        counts = (self.continuous, self.other, *self.cardinalities)
        widths = (self.outputs, *self.hidden, self.frequencies, self.periodic, self.embedding, self.inputs)
        if min(counts) < 0 or min(widths) < 1 or not 0 <= self.dropout < 1:
            raise ModelFileError("network sizes", got=str(self)[:120], needed="sizes above 0, 0 ≤ dropout < 1")
        return self


class PeriodicEmbedding(nn.Module):
    """Each number with linear combinations of cosines of it.

    Shapes: x (B, F) → (B, F·(1 + periodic)).
    """

    def __init__(self, features: int, frequencies: int, periodic: int, bend: float) -> None:
        super().__init__()
        self.frequency = nn.Parameter(randn(features, frequencies) * bend)
        self.phase = nn.Parameter((rand(features, frequencies) * 2 - 1) * math.pi)
        bound = 1 / math.sqrt(frequencies)
        self.weight = nn.Parameter((rand(features, frequencies, periodic) * 2 - 1) * bound)
        self.bias = nn.Parameter((rand(features, 1, periodic) * 2 - 1) * bound)

    def extra_repr(self) -> str:
        features, frequencies, periodic = self.weight.shape
        return f"{features} numbers, {frequencies} frequencies and {periodic} outputs for each"

    def forward(self, x: Tensor) -> Tensor:
        column = x.t().unsqueeze(2)  # (F, B, 1)
        angle = column * (self.frequency * (2 * math.pi)).unsqueeze(1) + self.phase.unsqueeze(1)  # (F, B, K)
        waves = angle.cos() @ self.weight + self.bias  # (F, B, P)
        return cat([column, waves], 2).permute(1, 0, 2).flatten(1)  # (B, F·(1 + P))


class TabularNetwork(nn.Module):
    """The network of a table; ``bend`` is the spread of its embeddings' frequencies at first.

    Shapes: numbers (B, continuous + other), categories (B, K) int64 → (B, outputs).
    """

    def __init__(self, sizes: NetworkSizes, bend: float = 0.3) -> None:
        super().__init__()
        self.sizes = sizes
        self.periodic = (
            PeriodicEmbedding(sizes.continuous, sizes.frequencies, sizes.periodic, bend) if sizes.continuous else None
        )
        for i, levels in enumerate(sizes.cardinalities):
            self.add_module(f"embedding{i}", nn.Embedding(levels, sizes.embedding))
        layers: list[nn.Module] = []
        width = sizes.inputs
        for hidden in sizes.hidden:
            layers += [nn.Linear(width, hidden), nn.SiLU(), nn.Dropout(sizes.dropout)]
            width = hidden
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, sizes.outputs)

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        sizes = self.sizes
        parts = []
        if self.periodic is not None:
            parts.append(self.periodic(numbers[:, : sizes.continuous]))
        if sizes.other:
            parts.append(numbers[:, sizes.continuous :])
        for i in range(len(sizes.cardinalities)):
            parts.append(getattr(self, f"embedding{i}")(categories[:, i]))
        return self.head(self.body(cat(parts, 1)))  # type: ignore[no-any-return]

"""The adaptive softmax: many classes, of which few are frequent."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from slalom.core.functional.losses.common import class_numbers
from slalom.core.functional.shaping import cat
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError, IndexRangeError, ShapeError
from slalom.nn import functional as F
from slalom.nn.container import ModuleList, Sequential
from slalom.nn.linear import Linear
from slalom.nn.module import Module

__all__ = ["AdaptiveLogSoftmaxWithLoss"]


class ASMOutput(NamedTuple):
    """``output``: the log-probability of each row's target; ``loss``: the mean of their negatives."""

    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """A softmax over classes in order of frequency: the frequent ones in full, the rare ones in clusters, by low rank.

    log p(y) = log softmax(head x)_y for y < c₁, else log softmax(head x)_(c₁ + i) + log softmax(tailᵢ x)_(y − cᵢ)

    with cᵢ ≤ y < cᵢ₊₁, c = ``cutoffs``: the head has an output for each class below c₁ and one for each cluster i;
    tailᵢ goes through in_features/divⁱ values, div = ``div_value``.

    Shapes: input (B, D) or (D), target (B) or () → ``output`` of the target's shape, ``loss`` (); ``log_prob`` and
    ``predict`` (B, D) → (B, n_classes) and (B).
    Raises: ConfigError for cutoffs that are not whole numbers rising from above 0 to below ``n_classes``; ShapeError;
    IndexRangeError for a target that is no class.
    Source: Grave et al. (2017), "Efficient softmax approximation for GPUs", section 4.3.
    Note: names of the weights are PyTorch's. It computes a cluster for the rows whose targets lie in it alone; here all
    are computed for all rows, so that no shape depends on values and a step can be recorded; what is saved is the rank.

    >>> layer = AdaptiveLogSoftmaxWithLoss(8, 20, cutoffs=[4, 10])
    >>> layer.log_prob(Tensor([[0.5] * 8])).exp().sum().item()
    1.0...
    """

    __constants__ = ("cutoffs", "n_classes")

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        given: list[Any] = list(cutoffs)
        whole = all(isinstance(c, int) and not isinstance(c, bool) for c in given)
        if not given or not whole or any(b <= a for a, b in itertools.pairwise((0, *given, n_classes))):
            needed = f"whole numbers that rise, from above 0 to below {n_classes}, the number of classes"
            raise ConfigError("AdaptiveLogSoftmaxWithLoss: cutoffs", got=given, needed=needed)
        self.in_features, self.n_classes, self.cutoffs = in_features, n_classes, tuple(given)
        self.div_value, self.head_bias = div_value, head_bias
        options = {"device": device, "dtype": dtype}
        self.head = Linear(in_features, given[0] + len(given), bias=head_bias, **options)
        self.tail = ModuleList()
        for i, (low, high) in enumerate(itertools.pairwise((*given, n_classes)), 1):
            width = int(in_features // div_value**i)
            down = Linear(in_features, width, bias=False, **options)
            self.tail.append(Sequential(down, Linear(width, high - low, bias=False, **options)))

    def reset_parameters(self) -> None:
        """Draw the initial values anew."""
        for module in self.modules():
            if isinstance(module, Linear):
                module.reset_parameters()

    def _head(self, input: Tensor) -> Tensor:
        if input.ndim != 2:
            raise ShapeError(
                "adaptive_log_softmax: input", got=f"shape {input.shape}", needed="(B, D), or in a call (D)"
            )
        return F.log_softmax(self.head(input), 1)  # (B, c₁ + clusters)

    def forward(self, input: Tensor, target: Tensor) -> ASMOutput:
        rows = input.unsqueeze(0) if input.ndim == 1 else input
        head, first = self._head(rows), self.cutoffs[0]
        wanted = class_numbers("adaptive_log_softmax", target, input.shape[:-1], "a class for each row").reshape(
            rows.shape[:1]
        )
        array = wanted._known()
        if array is not None and array.size and not 0 <= array.min() <= array.max() < self.n_classes:
            got = f"{array.min()} to {array.max()}"
            raise IndexRangeError("adaptive_log_softmax: target", got=got, needed=f"0 to {self.n_classes - 1}")
        # A class beyond all of them is one of the last cluster, whose gather refuses it inside a compiled step too.
        found = _at(head, wanted, wanted < first, 0)  # (B,)
        clusters = zip(self.tail, self.cutoffs, (*self.cutoffs[1:], None), strict=True)
        for i, (tail, low, high) in enumerate(clusters, first):
            inside = wanted >= low if high is None else (wanted >= low) & (wanted < high)
            share = head[:, i] + _at(F.log_softmax(tail(rows), 1), wanted, inside, low)
            found = share.where(inside, found)
        output = found.reshape(input.shape[:-1])
        return ASMOutput(output, -found.mean())

    def log_prob(self, input: Tensor) -> Tensor:
        """The log-probabilities of all classes. Shapes: (B, D) → (B, n_classes). Raises: ShapeError."""
        head, first = self._head(input), self.cutoffs[0]
        tails = [F.log_softmax(tail(input), 1) + head[:, first + i, None] for i, tail in enumerate(self.tail)]
        return cat([head[:, :first], *tails], 1)

    def predict(self, input: Tensor) -> Tensor:
        """The most probable class of each row. Shapes: (B, D) → (B). Raises: ShapeError."""
        return self.log_prob(input).argmax(1)


def _at(scores: Tensor, wanted: Tensor, inside: Tensor, low: int) -> Tensor:
    """The score of each row's class, counted from ``low``; of rows that are not inside, any."""
    index = (wanted - low).where(inside, 0)
    return scores.gather(1, index.unsqueeze(1)).squeeze(1)

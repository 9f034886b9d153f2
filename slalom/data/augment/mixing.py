"""Augmentations that mix the rows of a batch, and their targets alike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from slalom.core.dtype import float32, float64
from slalom.core.functional.arithmetic import where
from slalom.core.functional.creation import eye, ones, zeros
from slalom.core.functional.shaping import roll
from slalom.core.ops.reductions import GATHER
from slalom.core.random import rand, randn
from slalom.core.tensor import Tensor, apply, as_tensor
from slalom.data.augment.base import Augmentation, Parts, amount, floats, images, per_row
from slalom.data.augment.images import columns_of, rows_of
from slalom.errors import ConfigError, IndexRangeError, ShapeError

__all__ = ["CutMix", "MixUp", "beta"]

_TRIES = 8


def beta(alpha: float, rows: int) -> Tensor:
    """Numbers of the distribution Beta(α, α), in float64: g/(g + h) of two from the distribution Gamma(α).

    Of 8 tries for each, the first that the method accepts; that none is has a probability below 10⁻¹⁰. α = 0 gives 1.

    Source: G. Marsaglia and W. Tsang, A simple method for generating gamma variables, 2000; section 6 for α < 1.
    """
    if alpha == 0:
        return ones(rows, dtype=float64)
    d = alpha + 2 / 3  # of Gamma(α + 1)
    z = randn(2, _TRIES, rows, dtype=float64)
    u = 1 - rand(2, _TRIES, rows, dtype=float64)
    v = 1 + z * (1 / math.sqrt(9 * d))
    positive = v > 0
    v = where(positive, v, 1.0) ** 3
    accepted = positive & (u.log() < z * z * 0.5 + d * (1 - v + v.log()))
    log_gamma = zeros(2, rows, dtype=float64)
    for k in reversed(range(_TRIES)):
        log_gamma = where(accepted[:, k], v[:, k].log(), log_gamma)
    log_gamma = log_gamma + (1 - rand(2, rows, dtype=float64)).log() * (1 / alpha)  # Gamma(α) = Gamma(α + 1)·U^(1/α)
    return (log_gamma[0] - log_gamma[1]).sigmoid()


class _Mixing(Augmentation):
    """What mixes: a strength and a number of classes."""

    alpha: float
    num_classes: int | None

    def _check(self) -> None:
        name = type(self).__name__
        amount(f"{name}: alpha", self.alpha)
        if self.num_classes is not None and (type(self.num_classes) is not int or self.num_classes < 1):
            raise ConfigError(f"{name}: num_classes", got=repr(self.num_classes), needed="a number of at least 1")

    def _split(self, parts: Parts) -> tuple[list[Tensor], Tensor]:
        """Inputs, and the target as floating numbers."""
        name = type(self).__name__
        if len(parts) < 2:
            raise ConfigError(name, got="one part", needed="input and target, whose labels are mixed as well")
        inputs = [floats(name, as_tensor(part), "input") for part in parts[:-1]]
        target = as_tensor(parts[-1])
        if any(t.ndim == 0 or t.shape[0] != target.shape[0] for t in inputs):
            got = ", ".join(str(t.shape) for t in (*inputs, target))
            raise ShapeError(f"{name}: parts", got=got, needed="as many rows of each")
        if target.dtype.kind == "f":
            return inputs, target
        if self.num_classes is None:
            hint = "num_classes=…, or a target of floating numbers"
            raise ConfigError(f"{name}: a target of {target.dtype.name}", needed="the number of classes", hint=hint)
        if target.ndim != 1:
            raise ShapeError(f"{name}: target", got=target.shape, needed="class numbers of shape (B,)")
        known = target._known()  # while staging it is not; then the gather refuses such a class when it runs
        bad = None if known is None else known[(known < 0) | (known >= self.num_classes)]
        if bad is not None and bad.size:
            raise IndexRangeError(f"{name}: class {bad[0]} in the target", needed=f"0 to {self.num_classes - 1}")
        return inputs, apply(GATHER, eye(self.num_classes, dtype=inputs[0].dtype), target.long())


def _mixed(t: Tensor, share: Tensor) -> Tensor:
    """λ·row + (1 − λ)·the row before it; where λ is 1, the row itself to the bit."""
    share = share.to(t.dtype).reshape(-1, *(1,) * (t.ndim - 1))
    return t * share + roll(t, 1, 0) * (1 - share)


@dataclass(frozen=True)
class MixUp(_Mixing):
    """Each row mixed with the one before it in the batch: x' = λ·xᵢ + (1 − λ)·xⱼ, y' = λ·yᵢ + (1 − λ)·yⱼ.

    λ ~ Beta(α, α), for each row anew; batches are shuffled, so the row before is a random one. ``num_classes``: to turn
    class numbers into vectors, whose elements sum to 1; a floating target (B, …) is mixed as it is. Images and tables
    alike; of several inputs all are mixed.

    Shapes: inputs (B, …) floating; target (B,) class numbers → (B, num_classes), or (B, …) floating.
    Raises: ConfigError without a target, or for class numbers without ``num_classes``; DTypeError, ShapeError.
    Source: H. Zhang et al., mixup: Beyond Empirical Risk Minimization, 2018, section 2.
    Note: torchvision and the paper's program draw one λ for a batch.
    Note: what can go wrong: labels become shares, so a loss that needs class numbers cannot be used, and keeping the
    hard label of an image that is mostly another one teaches what is wrong: use ``CrossEntropyLoss``, which takes
    probabilities, or ``BCEWithLogitsLoss``. Accuracy in training counts the larger share and looks low; between two
    classes of a curved region lies a third. Codes and tokens have no mean.

    >>> x, y = MixUp(alpha=0.2, num_classes=3)(Tensor([[0.0], [1.0]]), Tensor([0, 2]))
    >>> y.sum(1)
    tensor([1., 1.])
    """

    alpha: float = 1.0
    num_classes: int | None = None

    def __post_init__(self) -> None:
        self._check()

    def parts(self, parts: Parts) -> Parts:
        inputs, target = self._split(parts)
        share = beta(self.alpha, target.shape[0])
        return tuple(_mixed(t, share) for t in (*inputs, target))


@dataclass(frozen=True)
class CutMix(_Mixing):
    """A rectangle of each image replaced by that of the one before it in the batch; labels are mixed by area.

    The rectangle has the share 1 − λ of the area, λ ~ Beta(α, α), and its middle anywhere; what lies inside the image
    counts: y' = λ'·yᵢ + (1 − λ')·yⱼ with λ' = 1 − its pixels / (H·W).

    Shapes: images (B, C, H, W); target (B,) class numbers → (B, num_classes), or (B, …) floating.
    Raises: ConfigError without a target, or for class numbers without ``num_classes``; DTypeError, ShapeError.
    Source: S. Yun et al., CutMix, 2019, equations (1) and (2).
    Note: what can go wrong: as for ``MixUp``; and a rectangle of background still counts for its label.
    """

    alpha: float = 1.0
    num_classes: int | None = None

    def __post_init__(self) -> None:
        self._check()

    def parts(self, parts: Parts) -> Parts:
        if len(parts) > 2:
            raise ConfigError("CutMix", got=f"{len(parts)} parts", needed="images and target")
        (x,), target = self._split(parts)
        images("CutMix", x)
        side = (1 - beta(self.alpha, x.shape[0])).sqrt().to(float32).reshape(-1, 1, 1, 1)
        inside: Any = None
        pixels: Any = 1.0
        for place, n in ((rows_of(x), x.shape[2]), (columns_of(x), x.shape[3])):
            half, middle = (side * (n / 2)).floor(), (per_row(x) * float(n)).floor()
            first, last = (middle - half).clamp(min=0.0), (middle + half).clamp(max=float(n))
            line = (place >= first) & (place < last)
            inside, pixels = line if inside is None else inside & line, pixels * (last - first)
        mixed = where(inside, roll(x, 1, 0), x)
        return mixed, _mixed(target, 1 - pixels * (1 / (x.shape[2] * x.shape[3])))

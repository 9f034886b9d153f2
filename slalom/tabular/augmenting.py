"""Augmentation of training batches: by name, or any of ``data.augment``, made to fit the parts of a table's batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from slalom.core.functional.arithmetic import where
from slalom.core.functional.indexing import one_hot
from slalom.core.functional.shaping import roll
from slalom.core.random import rand
from slalom.core.tensor import Tensor
from slalom.data.augment import Augmentation, ColumnNoise, MixUp
from slalom.data.augment.base import Parts
from slalom.data.augment.mixing import beta
from slalom.errors import ConfigError

__all__ = ["AUGMENTATIONS", "Augment", "TableMixUp", "augmentation_of"]

Augment = str | Callable[..., Any] | None
AUGMENTATIONS: Final[dict[str, Augmentation]] = {"noise": ColumnNoise(0.1), "mixup": MixUp(0.2)}
"""By name, with moderate strengths."""


@dataclass(frozen=True)
class TableMixUp(Augmentation):
    """``MixUp`` of rows with numbers, codes and a target: of codes there is no mean, so each is one of the two rows'.

    λ ~ Beta(α, α) for each row; numbers and target λ·row + (1 − λ)·the row before it; a code is the other row's with
    probability 1 − λ. ``classes``: how many there are, or None for a target of numbers.

    Shapes: numbers (B, D), codes (B, K), target (B,) classes → (B, classes), or (B, 1).
    Source: H. Zhang et al., mixup: Beyond Empirical Risk Minimization, 2018, section 2; the codes are ours.
    """

    alpha: float
    classes: int | None

    def parts(self, parts: Parts) -> Parts:
        numbers, codes, target = parts
        share = beta(self.alpha, numbers.shape[0]).to(numbers.dtype).unsqueeze(1)  # (B, 1)
        if self.classes is not None:
            target = one_hot(target, self.classes).to(numbers.dtype)
        own = rand(codes.shape) < share.to("float32")
        return _mixed(numbers, share), where(own, codes, roll(codes, 1, 0)), _mixed(target, share)


def _mixed(t: Tensor, share: Tensor) -> Tensor:
    return t * share + roll(t, 1, 0) * (1 - share)


def augmentation_of(augment: Augment, continuous: int, classes: int | None) -> Callable[..., Any] | None:
    """What a fit gives its Trainer. ``continuous``: how many of the numbers, from the first, take many values.

    Raises: ConfigError for an unknown name, or what is no augmentation.
    """
    found = AUGMENTATIONS.get(augment) if isinstance(augment, str) else augment
    if augment is not None and not callable(found):
        needed = f"{', '.join(map(repr, AUGMENTATIONS))}, or a function of (numbers, codes, target)"
        raise ConfigError("augment", got=repr(augment), needed=needed)
    if isinstance(found, ColumnNoise) and found.columns is None:
        return replace(found, columns=tuple(range(continuous)))  # flags stay flags
    if isinstance(found, MixUp):
        return TableMixUp(found.alpha, classes)
    return found

"""What all augmentations share: how they are called, how batches are checked, and their random numbers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from slalom.core.dtype import DType, float32
from slalom.core.functional.shaping import cat
from slalom.core.random import rand
from slalom.core.tensor import Tensor, as_tensor
from slalom.errors import ConfigError, DTypeError, ShapeError

__all__ = [
    "Augmentation", "Compose", "OfInput", "amount", "floats", "images", "interval", "noise", "per_row", "probability",
]  # fmt: skip

Parts = tuple[Any, ...]
"""The parts of a batch: the inputs, and last the target."""


class Augmentation(ABC):
    """A random change of a batch, made of traced operations: it is recorded as part of a training step.

    It is called with the parts of a batch, ``augment(x)`` or ``augment(x, y)``, and returns as many. Every row is
    changed by numbers of its own, which come from ``slalom.manual_seed``'s generator; inside a fit they depend on
    (seed, step) only. Subclasses are frozen dataclasses, so that their ``repr`` says all of them: checkpoints hold it.

    Note: torchvision draws once for a whole batch, here each row is drawn for.
    """

    @abstractmethod
    def parts(self, parts: Parts) -> Parts:
        """The parts of the batch, changed."""

    def __call__(self, *parts: Any) -> Any:
        if not parts:
            raise ConfigError(type(self).__name__, got="nothing", needed="the parts of a batch, (x) or (x, y)")
        changed = self.parts(parts)
        return changed[0] if len(parts) == 1 else changed


class OfInput(Augmentation):
    """An augmentation that changes the first part of a batch alone; the others are handed on as they are."""

    @abstractmethod
    def input(self, x: Tensor) -> Tensor:
        """The first part, changed."""

    def parts(self, parts: Parts) -> Parts:
        return (self.input(as_tensor(parts[0])), *parts[1:])


@dataclass(frozen=True, init=False)
class Compose(Augmentation):
    """Augmentations one after the other; each may be any function that takes the parts of a batch and returns them.

    Raises: ConfigError for none, or for what cannot be called.

    >>> from slalom.data.augment import RandomCrop, RandomHorizontalFlip
    >>> Compose([RandomHorizontalFlip(), RandomCrop(28, padding=2)])
    Compose([RandomHorizontalFlip(p=0.5), RandomCrop(size=28, padding=2, fill=0.0, padding_mode='constant')])
    """

    transforms: tuple[Callable[..., Any], ...]

    def __init__(self, transforms: Sequence[Callable[..., Any]]) -> None:
        given = list(transforms) if isinstance(transforms, (list, tuple)) else transforms
        if not isinstance(given, list) or not given or not all(map(callable, given)):
            raise ConfigError("Compose", got=repr(given), needed="a list of one or more functions of a batch")
        object.__setattr__(self, "transforms", tuple(given))

    def parts(self, parts: Parts) -> Parts:
        n = len(parts)
        for transform in self.transforms:
            found = transform(*parts)
            given = (found,) if n == 1 else found
            if not isinstance(given, (tuple, list)) or len(given) != n:
                got = f"{len(given)} parts" if isinstance(given, (tuple, list)) else type(found).__name__
                raise ConfigError(f"what {transform!r} returns", got=got, needed=f"{n}, all parts of the batch")
            parts = tuple(given)
        return parts

    def __repr__(self) -> str:
        return f"Compose([{', '.join(map(repr, self.transforms))}])"


# --- checks -------------------------------------------------------------------------------------------------------
def images(what: str, x: Tensor, *, floating: bool = False) -> Tensor:
    """Images (B, C, H, W). Raises: ShapeError; DTypeError for whole numbers, where fractions will come of them."""
    if x.ndim != 4:
        hint = "x.reshape(-1, 1, height, width)" if x.ndim in (2, 3) else None
        raise ShapeError(f"{what}: images", got=f"shape {x.shape}", needed="(B, C, H, W)", hint=hint)
    return floats(what, x, "images") if floating else x


def floats(what: str, x: Tensor, of: str) -> Tensor:
    """A floating tensor. Raises: DTypeError."""
    if x.dtype.kind != "f":
        hint = "x.float() / 255, for values 0 … 255" if of == "images" else "x.float()"
        raise DTypeError(f"{what}: {of}", got=x.dtype.name, needed="a floating dtype", hint=hint)
    return x


def probability(what: str, p: Any) -> None:
    """Raises: ConfigError unless 0 ≤ p ≤ 1."""
    if isinstance(p, bool) or not isinstance(p, (int, float)) or not 0 <= p <= 1:
        raise ConfigError(what, got=repr(p), needed="a probability, 0 to 1")


def amount(what: str, value: Any) -> None:
    """Raises: ConfigError unless it is a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ConfigError(what, got=repr(value), needed="a finite number of at least 0")


def interval(what: str, value: Any, *, around: float | None = None, least: float = -math.inf) -> tuple[float, float]:
    """A pair (low, high); a single number n ≥ 0 means around − n to around + n, where that is given.

    Raises: ConfigError for others, and for a bound below ``least`` (that of a single number is raised to it).
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and around is not None and math.isfinite(value) and value >= 0:
        return max(around - value, least), around + value
    if isinstance(value, (tuple, list)) and len(value) == 2:
        low, high = value
        if least <= low <= high < math.inf and low > -math.inf:
            return float(low), float(high)
    single = "" if around is None else "a number of at least 0, or "
    bound = "" if least == -math.inf else f", at least {least:g}"
    raise ConfigError(what, got=repr(value), needed=f"{single}(low, high){bound}")


# --- random numbers -----------------------------------------------------------------------------------------------
def per_row(x: Tensor, low: float = 0.0, high: float = 1.0, dtype: DType = float32) -> Tensor:
    """A uniform number in [low, high) for each row of a batch, shaped to broadcast with it: (B, 1, …)."""
    return rand(x.shape[0], *(1,) * (x.ndim - 1), dtype=dtype) * (high - low) + low


def noise(x: Tensor) -> Tensor:
    """Standard normal numbers of x's shape and dtype, a seventh of the work of ``randn_like``.

    √(−2 ln u)·cos 2πv and √(−2 ln u)·sin 2πv in float32, so that none exceeds 5.8.
    Source: G. Box and M. Muller, A note on the generation of random normal deviates, 1958.
    """
    n = x.numel()
    u = rand(2, (n + 1) // 2, dtype=float32)
    radius, angle = (-2 * (1 - u[0]).log()).sqrt(), u[1] * (2 * math.pi)
    return cat([radius * angle.cos(), radius * angle.sin()])[:n].reshape(x.shape).to(x.dtype)

"""Padding layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from slalom.core.shape import integers
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError, ShapeError
from slalom.nn import functional as F
from slalom.nn.module import Module

__all__ = [
    "CircularPad1d", "CircularPad2d", "CircularPad3d", "ConstantPad1d", "ConstantPad2d", "ConstantPad3d",
    "ReflectionPad1d", "ReflectionPad2d", "ReflectionPad3d", "ReplicationPad1d", "ReplicationPad2d",
    "ReplicationPad3d", "ZeroPad1d", "ZeroPad2d", "ZeroPad3d",
]  # fmt: skip

Widths = int | Sequence[int]


class _Pad(Module):
    """``padding``: one width for all sides, or (before, after) of the last axis, then of the one before it, …"""

    __constants__: tuple[str, ...] = ("padding",)
    rank: ClassVar[int]

    def __init__(self, padding: Widths) -> None:
        super().__init__()
        given = integers(f"{type(self).__name__}: padding", (padding,))
        self.padding = given * (2 * self.rank) if isinstance(padding, int) else given
        if len(self.padding) != 2 * self.rank:
            needed = f"a whole number, or {2 * self.rank} of them"
            raise ConfigError(f"{type(self).__name__}: padding", got=padding, needed=needed)

    def _padded(self, input: Tensor, mode: str) -> Tensor:
        if input.ndim not in (self.rank + 1, self.rank + 2):
            needed = f"{self.rank + 1} or {self.rank + 2} dimensions"
            raise ShapeError("input", got=f"shape {input.shape}", needed=needed)
        return F.pad(input, self.padding, mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    __constants__ = ("padding", "value")

    def __init__(self, padding: Widths, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """``value`` before and after the last axis; see ``functional.pad``."""

    rank = 1


class ConstantPad2d(_ConstantPad):
    """``value`` around the last two axes; see ``functional.pad``."""

    rank = 2


class ConstantPad3d(_ConstantPad):
    """``value`` around the last three axes; see ``functional.pad``."""

    rank = 3


class _ZeroPad(_Pad):
    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding)


class ZeroPad1d(_ZeroPad):
    """Zeros before and after the last axis."""

    rank = 1


class ZeroPad2d(_ZeroPad):
    """Zeros around the last two axes."""

    rank = 2


class ZeroPad3d(_ZeroPad):
    """Zeros around the last three axes."""

    rank = 3


class _ReflectionPad(_Pad):
    def forward(self, input: Tensor) -> Tensor:
        return self._padded(input, "reflect")


class ReflectionPad1d(_ReflectionPad):
    """The last axis mirrored at its first and last element, which are not repeated: 2 1 | 0 1 2 | 1 0.

    Shapes: (B, C, T) or (C, T) → (…, before + T + after). Raises: ShapeError for widths of T or more.
    """

    rank = 1


class ReflectionPad2d(_ReflectionPad):
    """As ``ReflectionPad1d``, of the last two axes."""

    rank = 2


class ReflectionPad3d(_ReflectionPad):
    """As ``ReflectionPad1d``, of the last three axes."""

    rank = 3


class _ReplicationPad(_Pad):
    def forward(self, input: Tensor) -> Tensor:
        return self._padded(input, "replicate")


class ReplicationPad1d(_ReplicationPad):
    """The first and the last element of the last axis repeated: 0 0 | 0 1 2 | 2 2.

    Shapes: (B, C, T) or (C, T) → (…, before + T + after).
    """

    rank = 1


class ReplicationPad2d(_ReplicationPad):
    """As ``ReplicationPad1d``, of the last two axes."""

    rank = 2


class ReplicationPad3d(_ReplicationPad):
    """As ``ReplicationPad1d``, of the last three axes."""

    rank = 3


class _CircularPad(_Pad):
    def forward(self, input: Tensor) -> Tensor:
        return self._padded(input, "circular")


class CircularPad1d(_CircularPad):
    """The last axis continued from its other end: 1 2 | 0 1 2 | 0 1.

    Shapes: (B, C, T) or (C, T) → (…, before + T + after). Raises: ShapeError for widths above T.
    """

    rank = 1


class CircularPad2d(_CircularPad):
    """As ``CircularPad1d``, of the last two axes."""

    rank = 2


class CircularPad3d(_CircularPad):
    """As ``CircularPad1d``, of the last three axes."""

    rank = 3

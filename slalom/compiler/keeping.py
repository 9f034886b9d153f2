"""Keeping: what of a kernel goes to memory for others, and what those compute again from what is there anyway.

The walk over a graph finds by the cost of a value alone whether its readers may compute it again. When all kernels are
known, and are settled from the last to the first, two more things are: whether a value that is cheap stands for several
that would have to be kept in its place, and whether one that is dear is at hand, as its reader has all that it is made
of.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Final

from slalom.compiler.nodes import MOVES, Kernel
from slalom.compiler.operands import Operands
from slalom.core.shape import size

MASKS: Final = frozenset({"eq", "ne", "lt", "le"})
"""Comparisons: one bit, made of what has to be read anyway."""
CHEAP: Final = MASKS | {
    *("add", "sub", "mul", "neg", "abs", "sign", "relu", "maximum", "minimum", "where", "cast"),
    *("bitand", "bitor", "bitnot", "shift_right"),
}
"""Operations that may be done again rather than kept in memory …"""
JOINED: Final = frozenset({"bitand", "bitor"})
"""Of truth values, they are made of several comparisons, but are one byte."""
WHOLE: Final = MOVES | {"broadcast"}
"""Views that hold all elements."""
FREE_COST: Final = 4
"""… up to so many in a row."""
SMALL: Final = 8
"""How many times as large a value is that makes no matter of reading another one."""


class Keeping(Operands):
    """Operands, and what is worth keeping of those that are computed. ``readers``: the kernels that read a value."""

    readers: dict[int, list[Kernel]]

    @abstractmethod
    def _free(self, value: int) -> bool:
        """Whether a value may be computed again by every reader."""

    @abstractmethod
    def _carries_sums(self, value: int) -> bool:
        """Whether a value is stored in the place of the sums of a product."""

    def _spares(self, value: int, kernel: Kernel) -> bool:
        """Whether more of its kernel would be kept for one that may compute a value again than it takes itself."""
        home, left, seen, stack = self.home[value], self._bytes(value), {value}, [value]
        while stack and left >= 0:
            for v in self.made[stack.pop()].inputs:
                if v in seen or self.home.get(v) is not home:
                    continue
                seen.add(v)
                if self._free(v):
                    stack.append(v)
                elif v not in self.stored and all(k in (home, kernel) for k in self.readers.get(v, ())):
                    left -= self._bytes(v)
        return left < 0

    def _at_hand(self, value: int, kernel: Kernel) -> bool:
        """Whether a few cheap operations make a value of what a kernel reads anyway, and of what is small."""
        steps, stack = 0, [value]
        while stack and steps <= FREE_COST:
            v = stack.pop()
            read = v in kernel.near
            if self._is_cheap(v) and v not in self.stored and not (read and self._carries_sums(v)):
                steps += self.made[v].prim.index is None
                stack.extend(self.made[v].inputs)
            elif not read and SMALL * self._bytes(v) > self._bytes(value):
                return False
        return 0 < steps <= FREE_COST

    def _is_cheap(self, value: int) -> bool:
        """Whether one of the cheap operations makes a value that is no mask of several, or what moves all elements."""
        eq = self.made.get(value)
        return eq is not None and (eq.prim.name in CHEAP - JOINED or eq.prim.name in WHOLE)

    def _bytes(self, value: int) -> int:
        of = self.types[value]
        return size(of.shape) * of.dtype.itemsize

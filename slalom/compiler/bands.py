"""Bands: of matrices that are zero, or never read, but for a band along the diagonal, which masks known beforehand say.

A causal mask hides half of the scores of attention. The scores are computed for nothing there, the shares of the keys
are exactly 0, and so are the gradients of the scores: products leave out what lies outside of a band, tile by tile.

Only a selection makes such a zero (``where`` with a mask made of constants, or exp of the −∞ that one put there), and
only what keeps it one passes it on: a factor that is the same for a whole row may be anything, as one that is not
finite shows in that row all the same; of a factor for each element we know nothing. A product then takes 0·y to be 0
for whatever y, and so does a sum over a row: where y is not finite, it still shows in the rows that do see it, but not
in those from which a mask hides it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from slalom.compiler.draft import swap
from slalom.compiler.nodes import Kernel, levels_of
from slalom.core.graph import Equation, Graph
from slalom.core.primitive import Array
from slalom.core.shape import Shape, size

FAR: Final = 1 << 40
"""Beyond every matrix."""
LARGEST: Final = 1 << 24
"""Elements of a mask that is worth looking at."""
ROWWISE: Final = frozenset({"mul", "div"})
"""They keep the zeros of their first operand where the second is one number for a row."""
GENTLE: Final = frozenset({"add", "sub", "neg", "mul", "maximum", "minimum", "relu", "abs", "where", "cast", "alias"})
"""They make something finite of zeros in the place of what nobody reads."""
MOVES: Final = frozenset({"broadcast", "reshape", "transpose"})
MASKS: Final = MOVES | {"bitand", "bitor", "bitnot"}
"""Of these a mask is made that is known in part."""
MASKED: Final = frozenset({"where", "bitand", "bitor"})
"""These may be the first that see a mask."""
MASKING: Final = MASKS | {"eq", "ne", "lt", "le", "add", "sub", "neg", "where", "cast"}
"""Of these one is made that is known."""


class Band(NamedTuple):
    """Of the elements [row, column] of a matrix those with low ≤ column − row ≤ high."""

    low: int
    high: int

    def __and__(self, other: Band) -> Band:
        return Band(max(self.low, other.low), min(self.high, other.high))

    def __or__(self, other: Band) -> Band:
        return Band(min(self.low, other.low), max(self.high, other.high))

    @property
    def turned(self) -> Band:
        """Of the transpose."""
        return Band(-self.high, -self.low)

    def narrows(self, rows: int, columns: int) -> bool:
        """Whether it leaves out a corner of such a matrix."""
        return self.low > 1 - rows or self.high < columns - 1


ALL: Final = Band(-FAR, FAR)
NONE: Final = Band(FAR, -FAR)


class _Mask(NamedTuple):
    """In which bands a mask may be true, and may be false."""

    true: Band
    false: Band


class Bands:
    """Of a graph. ``kept``: by value, outside of which band it is 0 · ``needed``: outside of which nobody reads it, so
    that it may be 0 there; values that are not in them are as any."""

    def __init__(self, graph: Graph) -> None:
        self._graph, self._types = graph, graph.types
        self._known: dict[int, Array] = {}
        self._masks: dict[int, _Mask] = {}
        self._infinite: dict[int, Band] = {}  # outside of which band a value is −∞
        self.kept: dict[int, Band] = {}
        self.needed: dict[int, Band] = {}
        if any(eq.prim.name == "matmul" for eq in graph.equations):
            self._known |= {v: array for v, array in graph.constants.items() if array.size <= LARGEST}
            for eq in graph.equations:  # thousands of which have nothing to do with masks
                if self._masks or eq.inputs[-1] in self._known or eq.prim.name in MASKED:
                    self._forwards(eq)
            if self.kept or self._infinite:
                self._backwards()

    def of(self, product: Equation, *, turned: bool = False) -> tuple[int, ...] | None:
        """Both ends of the bands of the operands and of the result, turned: of its transpose; None if none has any."""
        x, y = product.inputs
        bands = self.kept.get(x, ALL), self.kept.get(y, ALL), self.needed.get(product.out, ALL)
        if bands == (ALL, ALL, ALL) or self._types[product.out].dtype.kind != "f":
            return None
        if turned:
            bands = bands[1].turned, bands[0].turned, bands[2].turned
        return tuple([end for band in bands for end in band])

    def of_rows(self, kernel: Kernel) -> tuple[Band, ...]:
        """For each pass of a kernel over its rows the band outside of which it has nothing to do but to write zeros:
        sums have terms of 0 there, maxima of −∞, and what is stored is 0 by selection or read by nobody. Empty if no
        pass has one."""
        if not self.kept or kernel.kind != "row" or kernel.reduced != {len(kernel.space) - 1} or len(kernel.space) < 2:
            return ()
        found: dict[int, Band] = {}
        for value, level in levels_of(kernel).items():
            band = NONE
            if value in kernel.sums:
                (term,) = self._graph.made[value].inputs
                band = self._of_terms(term, kernel.sums[value]) if self._shape(term) == kernel.space else ALL
            elif value in kernel.stores and self._shape(value)[-1:] != (1,):
                band = self._selected(value) & self.needed.get(value, ALL)
                band = band if self._shape(value) == kernel.space else ALL
            found[level] = found.get(level, NONE) | band
        bands = [found.get(level, ALL) for level in range(max(found, default=-1) + 1)]
        whole = [band if band != NONE and band.narrows(*kernel.space[-2:]) else ALL for band in bands]
        return tuple(whole) if any(band != ALL for band in whole) else ()

    def _selected(self, value: int) -> Band:
        """Outside of which a value is 0 whatever else its row holds: NaN in a row makes NaN of other zeros of it."""
        eq = self._graph.made.get(value)
        while eq is not None and eq.prim.name in ("mul", "neg", "cast"):
            others = [v for v in eq.inputs[1:] if v not in self._known]
            if others:
                return ALL
            value = eq.inputs[0]
            eq = self._graph.made.get(value)
        return self.kept.get(value, ALL) if eq is not None and eq.prim.name == "where" else ALL

    def _of_terms(self, term: int, how: str) -> Band:
        """Outside of which a term makes no difference to a sum or maximum; as in products, 0·y is 0 for whatever y."""
        if how == "amax":
            return self._infinite.get(term, ALL)
        eq = self._graph.made.get(term)
        factors = eq.inputs if eq is not None and eq.prim.name == "mul" else ()
        bands = [self.kept.get(v, ALL) for v in factors if self._shape(v) == self._shape(term)]
        return functools.reduce(Band.__and__, bands, self.kept.get(term, ALL))

    # --- what is zero ---------------------------------------------------------------------------------------------
    def _forwards(self, eq: Equation) -> None:
        name, inputs = eq.prim.name, eq.inputs
        if all(v in self._known for v in inputs):
            if name in MASKING and size(self._shape(eq.out)) <= LARGEST:
                self._known[eq.out] = eq.prim.bare(*(self._known[v] for v in inputs), **eq.params)
        elif self._types[eq.out].dtype.kind == "b":
            self._mask(eq)
        elif name == "where":
            mask, yes, no = inputs
            at = self._of(eq, mask, self._holds(mask).true), self._of(eq, mask, self._holds(mask).false)
            for found, number in ((self.kept, 0.0), (self._infinite, -np.inf)):
                parts = [band & self._of_number(eq, v, found, number) for band, v in zip(at, (yes, no), strict=True)]
                self._note(found, eq.out, parts[0] | parts[1])
        elif name in MOVES:
            for found in (self.kept, self._infinite):
                if inputs[0] in found:
                    self._note(found, eq.out, self._moved(eq, found[inputs[0]]))
        elif name in ROWWISE:
            first, second = inputs if name == "div" or inputs[0] in self.kept else inputs[::-1]
            if first in self.kept and self._is_rowwise(second):
                self._note(self.kept, eq.out, self._of(eq, first, self.kept[first]))
        elif name in ("add", "sub"):
            x, y = (self._of_number(eq, v, self.kept, 0.0) for v in inputs)
            self._note(self.kept, eq.out, x | y)
            if inputs[0] in self._infinite and self._is_rowwise(inputs[1]):
                self._note(self._infinite, eq.out, self._of(eq, inputs[0], self._infinite[inputs[0]]))
        elif name in ("neg", "cast", "alias") and inputs[0] in self.kept:
            self.kept[eq.out] = self.kept[inputs[0]]
        elif name == "exp" and inputs[0] in self._infinite:
            self.kept[eq.out] = self._infinite[inputs[0]]

    def _mask(self, eq: Equation) -> None:
        """A mask that is known in part: by one of those that it is made of."""
        name = eq.prim.name
        if name not in MASKS or all(v not in self._masks and v not in self._known for v in eq.inputs):
            return
        masks = [self._holds(v) for v in eq.inputs]
        if name in MOVES:
            found = _Mask(*(self._moved(eq, band) for band in masks[0]))
        elif name == "bitnot":
            found = _Mask(*masks[0][::-1])
        else:
            x, y = (_Mask(*(self._of(eq, v, band) for band in mask)) for v, mask in zip(eq.inputs, masks, strict=True))
            found = _Mask(x.true & y.true, ALL) if name == "bitand" else _Mask(ALL, x.false & y.false)
        if found != (ALL, ALL):
            self._masks[eq.out] = found

    def _holds(self, value: int) -> _Mask:
        """Where a mask may be true, and false."""
        found = self._masks.get(value)
        if found is None:
            array, found = self._known.get(value), _Mask(ALL, ALL)
            if array is not None and array.ndim > 1:
                found = self._masks[value] = _Mask(_band_of(array != 0), _band_of(array == 0))
        return found

    def _shape(self, value: int) -> Shape:
        return self._types[value].shape

    def _is_rowwise(self, value: int) -> bool:
        """Whether an operand is the same for all elements of a row."""
        return self._shape(value)[-1:] in ((), (1,))

    def _of(self, eq: Equation, value: int, band: Band) -> Band:
        """The band of an operand as one of the result's."""
        return band if self._shape(value)[-2:] == self._shape(eq.out)[-2:] else ALL

    def _of_number(self, eq: Equation, value: int, found: Mapping[int, Band], number: float) -> Band:
        """The same, outside of which it is a number; that one itself has no band."""
        array = self._known.get(value)
        if array is not None and array.size == 1 and (array == number).all():
            return NONE
        return self._of(eq, value, found.get(value, ALL))

    def _note(self, found: dict[int, Band], value: int, band: Band) -> None:
        shape = self._shape(value)
        if len(shape) > 1 and band.narrows(*shape[-2:]):
            found[value] = band

    def _moved(self, eq: Equation, band: Band) -> Band:
        """The band of what moves a value: of the result if it is the operand's, and the other way round."""
        before, after = self._shape(eq.inputs[0]), self._shape(eq.out)
        if eq.prim.name == "transpose":
            rank, last = len(after), eq.params["axes"][-2:]
            return band if last == (rank - 2, rank - 1) else band.turned if last == swap(rank)[-2:] else ALL
        return band if before[-2:] == after[-2:] else ALL

    # --- what is read ---------------------------------------------------------------------------------------------
    def _backwards(self) -> None:
        needed = dict.fromkeys((o.value for o in self._graph.outputs), ALL)
        summed = dict.fromkeys(needed, False)
        for eq in reversed(self._graph.equations):
            name, band = eq.prim.name, needed.get(eq.out, NONE)
            for number, value in enumerate(eq.inputs):
                summed[value] = summed.get(value, True) and name == "sum"
                now = ALL
                if name in MOVES:
                    now = self._moved(eq, band)
                elif name in GENTLE and self._shape(value)[-2:] == self._shape(eq.out)[-2:]:
                    now = band
                    if name == "where" and number:
                        now &= self._of(eq, eq.inputs[0], self._holds(eq.inputs[0])[number - 1])
                    elif name == "mul" and summed.get(eq.out, False):
                        # In a sum, which begins at +0, it makes no difference which sign a zero has.
                        other = eq.inputs[1 - number]
                        now &= self._of(eq, other, self.kept.get(other, ALL))
                needed[value] = needed.get(value, NONE) | now
        for value, band in needed.items():
            self._note(self.needed, value, band)


def _band_of(mask: Array) -> Band:
    """The band in which a mask, or any of several, is true."""
    rows, columns = np.nonzero(mask.any(axis=tuple(range(mask.ndim - 2))))
    if not rows.size:
        return NONE
    found = columns - rows
    band = Band(int(found.min()), int(found.max()))
    return band if band.narrows(*mask.shape[-2:]) else ALL

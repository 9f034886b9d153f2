"""Augmentations of tables, (B, D): noise, features left out, features of other rows; ``MixUp`` takes tables too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slalom.core.dtype import float32
from slalom.core.functional.arithmetic import where
from slalom.core.functional.indexing import gather
from slalom.core.random import rand, randint
from slalom.core.tensor import Tensor
from slalom.data.augment.base import OfInput, amount, floats, noise, probability
from slalom.errors import ConfigError, IndexRangeError, ShapeError

__all__ = ["ColumnNoise", "FeatureDropout", "SwapNoise"]


class _OfColumns(OfInput):
    """Changes some columns of a table; all if ``columns`` is None."""

    columns: Sequence[int] | None

    def _check_columns(self) -> None:
        columns = self.columns
        if columns is not None and not (isinstance(columns, (list, tuple)) and all(type(c) is int for c in columns)):
            raise ConfigError(f"{type(self).__name__}: columns", got=repr(columns), needed="a list of column numbers")

    def _chosen(self, x: Tensor) -> Tensor:
        """Which columns are meant, (D,). Raises: ShapeError for no table; IndexRangeError for a column beyond it."""
        name = type(self).__name__
        if x.ndim != 2:
            raise ShapeError(f"{name}: table", got=f"shape {x.shape}", needed="(B, D)")
        chosen = np.full(x.shape[1], self.columns is None)
        for column in self.columns or ():
            if not -x.shape[1] <= column < x.shape[1]:
                raise IndexRangeError(f"{name}: column {column}", needed=f"{-x.shape[1]} to {x.shape[1] - 1}")
            chosen[column] = True
        return Tensor._of(chosen)


@dataclass(frozen=True)
class ColumnNoise(_OfColumns):
    """A normal number added to each value of the columns: x + sigma·ε.

    ``sigma``: one number, or one for each column of the table. ``columns``: the numeric ones; all if None.

    Shapes: (B, D). Units: those of x, so that one sigma suits columns that are standardised.
    Raises: ShapeError, DTypeError, IndexRangeError; ConfigError for a sigma that is negative.
    Note: what can go wrong: noise turns codes, flags and counts into values that never occur: name the columns. A
    column that was rounded, or is 0 for most rows, loses what made it telling.
    """

    sigma: float | Sequence[float] = 0.1
    columns: Sequence[int] | None = None

    def __post_init__(self) -> None:
        self._check_columns()
        given = self.sigma if isinstance(self.sigma, (list, tuple)) else [self.sigma]
        for sigma in given:
            amount("ColumnNoise: sigma", sigma)

    def input(self, x: Tensor) -> Tensor:
        chosen = self._chosen(floats("ColumnNoise", x, "table"))
        sigma = np.array(self.sigma, x.dtype)
        if sigma.ndim and len(sigma) != x.shape[1]:
            needed = f"{x.shape[1]}, one for each column"
            raise ShapeError("ColumnNoise: sigma", got=f"{len(sigma)} of them", needed=needed)
        return (x + noise(x) * Tensor._of(sigma)).where(chosen, x)


@dataclass(frozen=True)
class FeatureDropout(_OfColumns):
    """Each value of the columns replaced by ``fill`` with probability p, the others as they are.

    Unlike ``nn.Dropout`` nothing is scaled: a feature left out looks like a missing one that was filled with its mean,
    which of standardised columns is 0.

    Shapes: (B, D). Raises: ShapeError, IndexRangeError; ConfigError unless 0 ≤ p ≤ 1.
    Source: P. Vincent et al., Stacked Denoising Autoencoders, 2010, section 3.2 ("masking noise").
    Note: what can go wrong: where ``fill`` is a value that means something (a code, a true 0), the network learns that
    it means nothing.
    """

    p: float = 0.1
    fill: float = 0.0
    columns: Sequence[int] | None = None

    def __post_init__(self) -> None:
        probability("FeatureDropout: p", self.p)
        self._check_columns()

    def input(self, x: Tensor) -> Tensor:
        dropped = self._chosen(x) & (rand(x.shape, dtype=float32) < self.p)
        return where(dropped, Tensor(self.fill).to(x.dtype), x)


@dataclass(frozen=True)
class SwapNoise(_OfColumns):
    """Each value of the columns replaced, with probability p, by that of another random row of the batch.

    x'[i, d] = x[j, d] with a row j of its own for each value. So every column keeps its distribution, codes stay codes,
    and only how columns go together is disturbed.

    Shapes: (B, D), of any dtype. Raises: ShapeError, IndexRangeError; ConfigError unless 0 ≤ p ≤ 1.
    Source: M. Jahrer, first place in Porto Seguro's Safe Driver Prediction, 2017; J. Yoon et al., VIME, 2020, eq. (3).
    Note: the other row is drawn from all rows of the batch, so that it may be the same one.
    Note: what can go wrong: where a few columns decide, swapping one of them makes a row whose label is wrong; 0.15 is
    Jahrer's for some 200 columns, fewer columns bear less.
    """

    p: float = 0.15
    columns: Sequence[int] | None = None

    def __post_init__(self) -> None:
        probability("SwapNoise: p", self.p)
        self._check_columns()

    def input(self, x: Tensor) -> Tensor:
        swapped = self._chosen(x) & (rand(x.shape, dtype=float32) < self.p)
        return gather(x, 0, randint(0, max(x.shape[0], 1), x.shape)).where(swapped, x)

"""Columns into the arrays a network learns from, fitted on the training rows only and saved inside the model.

Read `Preparation` first; each kind of column is one small `Feature` class below it. The recipe is RealMLP's, with
missing values added: robust scale and smooth clip for numbers, ±1 for two levels, one-hot for few, codes for many.
Source: Holzmüller, Grinsztajn & Steinwart 2024, "Better by Default: Strong Pre-Tuned MLPs and Boosted Trees on
Tabular Data", section 3 (arXiv:2407.04491).
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from slalom.errors import DataError, ModelFileError
from slalom.tabular.closed import read_record, write_record
from slalom.tabular.schema import ColumnSchema, Schema
from slalom.tabular.table import (
    LARGEST,
    BoolArray,
    Column,
    FloatArray,
    IntArray,
    Table,
    Words,
    parse_boolean,
    parse_number,
    plain,
    quantity,
    shorten,
)

__all__ = ["FEW_LEVELS", "Feature", "LeftOut", "Preparation", "Prepared", "find_levels"]

FEW_LEVELS = 9
"""Most levels of a categorical column that become one-hot numbers; with more, they become codes of an embedding."""

MOST_LEVELS = 16_384
"""Most levels that get a code of their own; rarer ones share code 0 with missing and unseen ones."""

_DAY = 86400.0
_PERIODS = {"day": _DAY, "week": 7 * _DAY, "year": 365.25 * _DAY}


class Prepared(NamedTuple):
    """What a network takes: numbers float32 (n, d), categories int64 (n, k) with 0 for missing, unseen and rare."""

    numbers: NDArray[np.float32]
    categories: IntArray


@final
@dataclass(frozen=True)
class LeftOut:
    """A column that the model does not use, and why."""

    name: str
    reason: str


class Feature(ABC):
    """How one column becomes inputs: a frozen dataclass whose fields are all that was fitted."""

    name: str

    @abstractmethod
    def labels(self) -> list[str]:
        """A label for each number it gives."""

    @abstractmethod
    def numbers(self, column: Column) -> FloatArray:
        """Shapes: (n, len(labels))."""

    @abstractmethod
    def describe(self) -> str:
        """What it does to the column, in words."""

    def is_continuous(self) -> list[bool]:
        """For each number: whether it can take more than two or three values."""
        return [False] * len(self.labels())

    @property
    def is_sound(self) -> bool:
        """Whether fitting can have made these fields; asked when they are read from a file."""
        return True


@final
@dataclass(frozen=True)
class Numeric(Feature):
    """z = (x − center)·scale, then z/√(1 + (z/3)²), within ±3; missing is 0, told apart by an indicator if fitted so.

    center is the median; scale is 1/(q₇₅ − q₂₅), or 2/(max − min) if the quartiles coincide, or 0 if all values do.
    """

    name: str
    center: float
    scale: float
    indicator: bool

    def labels(self) -> list[str]:
        return [self.name] * (self.scale > 0) + [f"{self.name} is missing"] * self.indicator

    def is_continuous(self) -> list[bool]:
        return [True] * (self.scale > 0) + [False] * self.indicator

    def numbers(self, column: Column) -> FloatArray:
        return _scaled(column.numbers(), self.center, self.scale, self.indicator)

    def describe(self) -> str:
        scale = f"median {self.center:.6g}, spread {1 / self.scale:.6g}" if self.scale else "constant"
        return f"number: {scale}" + ", and whether it is missing" * self.indicator

    @property
    def is_sound(self) -> bool:
        return _is_scale(self.center, self.scale)


@final
@dataclass(frozen=True)
class Datetime(Feature):
    """The time as a number (see Numeric), and sine and cosine of its place in the day, the week and the year."""

    name: str
    center: float
    scale: float
    indicator: bool
    periods: tuple[str, ...]

    def labels(self) -> list[str]:
        waves = [f"{self.name} {wave} of the {period}" for period in self.periods for wave in ("sine", "cosine")]
        return [self.name] * (self.scale > 0) + [f"{self.name} is missing"] * self.indicator + waves

    def is_continuous(self) -> list[bool]:
        return [True] * (self.scale > 0) + [False] * self.indicator + [True] * (2 * len(self.periods))

    def numbers(self, column: Column) -> FloatArray:
        times = column.times()
        waves = []
        for period in self.periods:
            angle = 2 * np.pi * times / _PERIODS[period]
            waves += [np.sin(angle), np.cos(angle)]
        scaled = _scaled(times, self.center, self.scale, self.indicator)
        return np.concatenate([scaled, *(np.nan_to_num(wave)[:, None] for wave in waves)], axis=1)

    def describe(self) -> str:
        return f"time, and its place in the {', '.join(self.periods)}" if self.periods else "time"

    @property
    def is_sound(self) -> bool:
        return _is_scale(self.center, self.scale) and set(self.periods) <= set(_PERIODS)


@final
@dataclass(frozen=True)
class Boolean(Feature):
    """+1 for true, −1 for false, 0 for missing."""

    name: str

    def labels(self) -> list[str]:
        return [self.name]

    def numbers(self, column: Column) -> FloatArray:
        return np.nan_to_num(2 * column.booleans() - 1)[:, None]

    def describe(self) -> str:
        return "true or false"


@final
@dataclass(frozen=True)
class OneHot(Feature):
    """1 in the column of the level, 0 elsewhere; two levels share one column of −1 and +1. Missing, unseen: zeros."""

    name: str
    levels: tuple[str, ...]

    def labels(self) -> list[str]:
        chosen = self.levels[1:] if len(self.levels) == 2 else self.levels
        return [f"{self.name} = {shorten(level)}" for level in chosen]

    def numbers(self, column: Column) -> FloatArray:
        codes = find_levels(column.words, self.levels)
        rows: FloatArray = np.eye(len(self.levels) + 1)[codes, 1:]
        return rows[:, 1:] - rows[:, :1] if len(self.levels) == 2 else rows

    def describe(self) -> str:
        return f"one of {', '.join(map(plain, self.levels))}"

    @property
    def is_sound(self) -> bool:
        return 0 < len(self.levels) == len(set(self.levels))


@final
@dataclass(frozen=True)
class Embedded(Feature):
    """Codes 1, 2, … of the levels, 0 for missing, unseen and rare ones; gives no numbers."""

    name: str
    levels: tuple[str, ...]

    def labels(self) -> list[str]:
        return []

    def numbers(self, column: Column) -> FloatArray:
        return np.empty((len(column.is_missing), 0))

    def codes(self, column: Column) -> IntArray:
        return find_levels(column.words, self.levels)

    def describe(self) -> str:
        return f"one of {quantity(len(self.levels), 'level')}"

    @property
    def is_sound(self) -> bool:
        return 0 < len(self.levels) == len(set(self.levels))


_FEATURES: dict[str, type[Feature]] = {
    "numeric": Numeric,
    "datetime": Datetime,
    "boolean": Boolean,
    "one-hot": OneHot,
    "embedded": Embedded,
}
_KINDS = {cls: kind for kind, cls in _FEATURES.items()}


@final
@dataclass(frozen=True)
class Preparation:
    """The fitted preparation of a table. Columns are found by name: order does not matter, extra ones are ignored."""

    features: tuple[Feature, ...]
    left_out: tuple[LeftOut, ...]

    @classmethod
    def fit(cls, table: Table, schema: Schema, rows: IntArray) -> Preparation:
        """Fit on the given (training) rows alone: no other row has any influence.

        Raises:
            DataError: no column says anything on these rows.
        """
        left_out = [LeftOut(column.name, column.detail) for column in schema.columns if not column.is_used]
        features: list[Feature] = []
        for column in schema.used:
            feature = _fit_feature(table[column.name], column, rows)
            if feature is None:
                left_out.append(LeftOut(column.name, "constant in the training rows"))
            else:
                features.append(feature)
        if not features:
            raise DataError(f"{table.source}: no column differs within the {quantity(len(rows), 'training row')}")
        return cls(tuple(features), tuple(left_out))

    @cached_property
    def _flags(self) -> BoolArray:
        """For each number in the order of the features: whether it can take many values."""
        return np.array([flag for feature in self.features for flag in feature.is_continuous()], dtype=np.bool_)

    @cached_property
    def _order(self) -> IntArray:
        """The places of the features' numbers: those that can take many values first, then flags and one-hot levels."""
        return np.argsort(~self._flags, kind="stable")

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """What each number is."""
        labels = [label for feature in self.features for label in feature.labels()]
        return tuple(labels[place] for place in self._order)

    @cached_property
    def is_continuous(self) -> BoolArray:
        """Which numbers can take many values (they come first), rather than being flags or one-hot levels."""
        return self._flags[self._order]

    @cached_property
    def cardinalities(self) -> tuple[int, ...]:
        """The rows of each embedding: the levels, and code 0."""
        return tuple(len(feature.levels) + 1 for feature in self.features if isinstance(feature, Embedded))

    def transform(self, table: Table, rows: IntArray | None = None) -> Prepared:
        """All rows of the table (or those asked for) as a network's inputs; always finite.

        Shapes: numbers (n, len(labels)), categories (n, len(cardinalities)).
        Raises:
            DataError: a column is missing, or a cell is not of its column's kind.
        """
        self.check_columns(table)
        chosen = slice(None) if rows is None else rows
        numbers = [feature.numbers(table[feature.name])[chosen].astype(np.float32) for feature in self.features]
        codes = [f.codes(table[f.name])[chosen] for f in self.features if isinstance(f, Embedded)]
        n = len(numbers[0])
        return Prepared(
            np.concatenate(numbers, axis=1)[:, self._order],
            np.stack(codes, axis=1) if codes else np.empty((n, 0), dtype=np.int64),
        )

    def check_columns(self, table: Table) -> None:
        """Raises:
        DataError: a column that the model needs is not in the table.
        """
        missing = [feature.name for feature in self.features if feature.name not in table]
        if missing:
            extra = [name for name in table.names if name not in self.names]
            near = difflib.get_close_matches(missing[0], extra, n=1)
            more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
            raise DataError(
                f"{table.source}: no column {missing[0]!r}{more}",
                needed=f"the {quantity(len(self.features), 'column')} that the model was trained on",
                hint=f"rename {near[0]!r}?" if near else None,
            )

    @cached_property
    def names(self) -> frozenset[str]:
        """All columns of the training table but the target, used or not."""
        return frozenset([feature.name for feature in self.features] + [item.name for item in self.left_out])

    def notes(self, table: Table, ignore: Collection[str] = ()) -> list[str]:
        """What a user should know of a table to predict: extra columns (but those to ignore), words never seen."""
        extra = [shorten(name) for name in table.names if name not in self.names and name not in ignore]
        notes = [f"{quantity(len(extra), 'extra column')} ignored: {', '.join(extra[:6])}"] if extra else []
        for feature in self.features:
            if isinstance(feature, OneHot):
                words = table[feature.name].words
                unseen = (find_levels(words, feature.levels) == 0) & (words.codes >= 0)
                if unseen.any():
                    word = shorten(words.levels[words.codes[unseen.argmax()]])
                    rows = quantity(int(unseen.sum()), "row")
                    notes.append(
                        f"column {shorten(feature.name)!r}: {rows} with a level not seen in training ({word!r}), "
                        "taken as missing"
                    )
        return notes

    def describe(self) -> list[str]:
        """A line for each column, for `slalom show`."""
        used = [f"{shorten(feature.name)}: {feature.describe()}" for feature in self.features]
        return used + [f"{shorten(item.name)}: left out, {item.reason}" for item in self.left_out]

    def to_json(self) -> dict[str, Any]:
        """Plain data of a closed schema; see `closed`."""
        return {
            "features": [{"kind": _KINDS[type(feature)], **write_record(feature)} for feature in self.features],
            "left_out": [write_record(item) for item in self.left_out],
        }

    @classmethod
    def from_json(cls, data: object) -> Preparation:
        """The inverse of ``to_json``.

        Raises:
            ModelFileError: anything that ``to_json`` can't have made.
        """
        where = "preparation"
        if not isinstance(data, Mapping) or set(data) != {"features", "left_out"}:
            raise ModelFileError(where, got=type(data).__name__, needed="the fields ['features', 'left_out']")
        if not all(isinstance(items, list) for items in data.values()) or not data["features"]:
            raise ModelFileError(where, needed="lists, of features at least one")
        features = tuple(_read_feature(item, f"{where}, feature {i}") for i, item in enumerate(data["features"]))
        left_out = tuple(
            read_record(LeftOut, item, f"{where}, left out {i}") for i, item in enumerate(data["left_out"])
        )
        preparation = cls(features, left_out)
        if len(preparation.names) != len(features) + len(left_out):
            raise ModelFileError(where, got="a column name twice")
        return preparation


def _read_feature(data: object, where: str) -> Feature:
    kind = data.get("kind") if isinstance(data, Mapping) else None
    if not isinstance(data, Mapping) or not isinstance(kind, str) or kind not in _FEATURES:
        raise ModelFileError(where, got=f"kind {kind!r}", needed=f"one of {', '.join(_FEATURES)}")
    feature = read_record(_FEATURES[kind], {name: value for name, value in data.items() if name != "kind"}, where)
    if not feature.is_sound:
        raise ModelFileError(where, got=shorten(repr(feature), 80), needed="fields as fitting makes them")
    return feature


def _fit_feature(column: Column, schema: ColumnSchema, rows: IntArray) -> Feature | None:
    """The fitted feature of a column, or None if the rows hold nothing to learn from."""
    missing = column.is_missing[rows]
    if missing.all():
        return None
    match schema.kind:
        case "numeric":
            center, scale = _robust_scale(column.numbers()[rows][~missing])
            return Numeric(column.name, center, scale, bool(missing.any())) if scale or missing.any() else None
        case "datetime":
            times = column.times()[rows][~missing]
            center, scale = _robust_scale(times)
            periods = tuple(period for period in _PERIODS if _recurs(times, period))
            return (
                Datetime(column.name, center, scale, bool(missing.any()), periods) if scale or missing.any() else None
            )
        case "boolean":
            differs = missing.any() or len(np.unique(column.booleans()[rows])) > 1
            return Boolean(column.name) if differs else None
        case _:
            return _fit_categories(column, rows, bool(missing.any()))


def _fit_categories(column: Column, rows: IntArray, has_missing: bool) -> Feature | None:
    counts = column.words.counts(rows)
    kept = np.flatnonzero(counts)
    if len(kept) == 1 and not has_missing:
        return None
    if len(kept) > FEW_LEVELS:
        # What comes up once can't be learnt; it is used to learn what an unseen level is like.
        kept = kept[counts[kept] > 1]
        kept = np.sort(kept[np.argsort(-counts[kept], kind="stable")[:MOST_LEVELS]])
    levels = tuple(column.words.levels[level] for level in kept)
    if not levels:
        return None
    return (OneHot if len(levels) <= FEW_LEVELS else Embedded)(column.name, levels)


_NARROWEST = float(np.finfo(np.float32).tiny)
"""Values closer together than the smallest normal float32 count as equal: the inverse must be finite there."""


def _is_scale(center: float, scale: float) -> bool:
    return abs(center) <= LARGEST and 0 <= scale <= 1 / _NARROWEST


def _robust_scale(values: FloatArray) -> tuple[float, float]:
    low, q25, median, q75, high = np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist()
    for spread in (q75 - q25, (high - low) / 2):
        if spread > _NARROWEST:
            return median, 1 / spread
    return median, 0.0


def _scaled(values: FloatArray, center: float, scale: float, indicator: bool) -> FloatArray:
    missing = np.isnan(values)
    parts = []
    if scale > 0:
        z = np.where(missing, 0.0, (values - center) * scale)
        parts.append(z / np.sqrt(1 + (z / 3) ** 2))
    if indicator:
        parts.append(missing.astype(np.float64))
    return np.stack(parts, axis=1) if parts else np.empty((len(values), 0))


def _recurs(times: FloatArray, period: str) -> bool:
    """Whether the place in the period differs between rows, and the rows span at least two of the periods."""
    phase = times % _PERIODS[period]
    return bool(np.ptp(times) >= 2 * _PERIODS[period] and np.ptp(phase) > 0)


def find_levels(words: Words, levels: tuple[str, ...]) -> IntArray:
    """Each cell's place in the levels, counted from 1; 0 where it is missing or not among them.

    A word that is not found as it is spelled is looked for by its meaning as a number or truth value: "1.0", "01", "1"
    and "True" are one level unless they are levels of their own, for a file and a dataframe of the same data may spell
    them differently.
    """
    exact = {level: place for place, level in enumerate(levels, 1)}
    loose: dict[float | str, int] = {}
    for level, place in exact.items():
        loose.setdefault(_meaning(level), place)
    places = [exact.get(word) or loose.get(_meaning(word), 0) for word in words.levels]
    return np.array([*places, 0], dtype=np.int64)[words.codes]


def _meaning(word: str) -> float | str:
    for parse in (parse_number, parse_boolean):
        value = parse(word)
        if value is not None:
            return value
    return word

"""The target column into what is learnt and back: classes as codes, or numbers standardised on the training rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from slalom.errors import DataError, ModelFileError
from slalom.tabular.closed import read_record, write_record
from slalom.tabular.preparation import find_levels
from slalom.tabular.schema import Schema, Task
from slalom.tabular.table import (
    EXACT,
    LARGEST,
    Column,
    FloatArray,
    IntArray,
    Table,
    parse_boolean,
    parse_number,
    plain,
    quantity,
    shorten,
)

__all__ = ["ClassTarget", "NumberTarget", "Target", "fit_target", "read_target", "write_target"]

_PARSERS: dict[str, Callable[[str], Any]] = {"text": str, "number": parse_number, "boolean": parse_boolean}
"""What makes a label of its text again."""


@final
@dataclass(frozen=True)
class ClassTarget:
    """A target of classes. Their order, and so the codes, is by number where all are numbers, otherwise by text."""

    name: str
    type: str  # a key of _PARSERS: what `restore` gives back
    classes: tuple[str, ...]

    @property
    def task(self) -> Task:
        return "classification"

    def encode(self, table: Table, rows: IntArray) -> IntArray:
        """The code of each row's class.

        Shapes: (len(rows),), values 0 … C − 1.
        Raises:
            DataError: a row has no value, or one that is no class of the model.
        """
        column = table[self.name]
        _refuse_missing(column, rows)
        codes = find_levels(column.words, self.classes)[rows] - 1
        if (codes < 0).any():
            row = int(rows[(codes < 0).argmax()])
            word = column.words.levels[column.words.codes[row]]
            shown = ", ".join(map(plain, self.classes[:12])) + ", …" * (len(self.classes) > 12)
            raise DataError(column.where(row), got=repr(shorten(word)), needed=f"one of the classes {shown}")
        return codes

    def restore(self, codes: NDArray[Any]) -> NDArray[Any]:
        """The classes as they were: numbers, truth values, or text."""
        labels = np.array([_PARSERS[self.type](label) for label in self.classes])
        if self.type == "number" and not (labels % 1).any() and np.abs(labels).max() < EXACT:
            labels = labels.astype(np.int64)
        if self.type == "boolean":
            labels = labels.astype(np.bool_)
        chosen: NDArray[Any] = labels[codes]
        return chosen

    def is_sound(self) -> bool:
        parse = _PARSERS.get(self.type)
        if parse is None or not 2 <= len(self.classes) == len(set(self.classes)):
            return False
        return all(parse(label) is not None for label in self.classes)


@final
@dataclass(frozen=True)
class NumberTarget:
    """A target of numbers: z = (y − mean)/scale, mean and standard deviation of the training rows."""

    name: str
    mean: float
    scale: float
    low: float
    high: float

    @property
    def task(self) -> Task:
        return "regression"

    def encode(self, table: Table, rows: IntArray) -> FloatArray:
        """The values of the rows in the target's own unit.

        Raises:
            DataError: a row has no value, or none that is a number.
        """
        column = table[self.name]
        _refuse_missing(column, rows)
        return column.numbers()[rows]

    def standardise(self, y: FloatArray) -> FloatArray:
        return (y - self.mean) / self.scale

    def restore(self, z: NDArray[Any]) -> FloatArray:
        """The inverse of ``standardise``, kept within the range of the training rows (as RealMLP does)."""
        y = np.asarray(z, dtype=np.float64) * self.scale + self.mean
        return np.clip(y, self.low, self.high)

    def is_sound(self) -> bool:
        return self.scale > 0 and -LARGEST <= self.low <= self.mean <= self.high <= LARGEST


Target = ClassTarget | NumberTarget
_TARGETS: dict[str, type[ClassTarget] | type[NumberTarget]] = {"classes": ClassTarget, "numbers": NumberTarget}


def fit_target(table: Table, schema: Schema, rows: IntArray) -> Target:
    """The target of a schema: its classes are those of all rows, its mean and scale those of the given rows alone.

    Raises:
        DataError: numbers that do not differ within the rows.
    """
    column, where = table[schema.target], f"{table.source}, target {schema.target!r}"
    if schema.task == "regression":
        y = column.numbers()[rows]
        scale = float(y.std())
        if not scale > 0:
            raise DataError(where, got="one value in all training rows", needed="two at least")
        return NumberTarget(schema.target, float(y.mean()), scale, float(y.min()), float(y.max()))
    if column.words.counts(rows).max() == len(rows):
        raise DataError(where, got="one class in all training rows", needed="two at least")
    labels = column.words.levels
    if column.type == "number":
        labels = tuple(sorted(labels, key=float))
    return ClassTarget(schema.target, column.type if column.type in _PARSERS else "text", labels)


def _refuse_missing(column: Column, rows: IntArray) -> None:
    missing = rows[column.is_missing[rows]]
    if len(missing):
        raise DataError(
            column.where(int(missing[0])),
            got=f"no value (in {quantity(len(missing), 'row')} of {len(rows):,})",
            needed="the target in every row to learn from or to score",
        )


def write_target(target: Target) -> dict[str, Any]:
    """Plain data of a closed schema; see `closed`."""
    kind = "classes" if isinstance(target, ClassTarget) else "numbers"
    return {"kind": kind, **write_record(target)}


def read_target(data: object) -> Target:
    """The inverse of ``write_target``.

    Raises:
        ModelFileError: anything that ``write_target`` can't have made.
    """
    kind = data.get("kind") if isinstance(data, Mapping) else None
    if not isinstance(data, Mapping) or not isinstance(kind, str) or kind not in _TARGETS:
        raise ModelFileError("target", got=f"kind {kind!r}", needed=f"one of {', '.join(_TARGETS)}")
    target = read_record(_TARGETS[kind], {name: value for name, value in data.items() if name != "kind"}, "target")
    if not target.is_sound():
        raise ModelFileError("target", got=shorten(repr(target), 80), needed="fields as fitting makes them")
    return target

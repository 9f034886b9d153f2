"""What a table means: the kind of each column, the task that the target sets, and the words to say so.

Kinds are read from the whole table and can be overridden; nothing that is *fitted* (medians, scales, levels) is found
here, that is `preparation`, on the training rows alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from slalom.errors import ConfigError, DataError
from slalom.tabular.table import Column, IntArray, Table, format_number, plain, quantity, shorten

__all__ = ["LEAST_ROWS", "ColumnSchema", "Kind", "Schema", "Task", "infer_schema"]

Kind = Literal["numeric", "boolean", "categorical", "datetime", "constant", "identifier", "dropped"]
Task = Literal["classification", "regression"]

LEAST_ROWS = 5
"""Fewest rows with a target that can be cut into training, validation and test rows."""

_LEFT_OUT: tuple[Kind, ...] = ("constant", "identifier", "dropped")
_MANY = 10  # rows from which "all different" says something about a column
_CLASSES = 10  # most whole numbers in a target that are taken for classes
_ID_NAME = re.compile(r"(?i:(.*[_ .-])?(id|uuid|guid|rowid)|index)|.*[a-z]I[dD]", re.ASCII)


@final
@dataclass(frozen=True)
class ColumnSchema:
    """One column as understood: ``levels`` is the number of different cells, ``detail`` says why it is left out."""

    name: str
    kind: Kind
    missing: int
    levels: int
    detail: str = ""

    @property
    def is_used(self) -> bool:
        return self.kind not in _LEFT_OUT


@final
@dataclass(frozen=True, eq=False)
class Schema:
    """A table as understood. ``rows`` are those with a target; ``columns`` are in the table's order, without it."""

    source: str
    target: str
    task: Task
    rows: IntArray
    columns: tuple[ColumnSchema, ...]
    facts: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def used(self) -> tuple[ColumnSchema, ...]:
        return tuple(column for column in self.columns if column.is_used)

    def describe(self) -> list[str]:
        """Lines that tell a user what was understood of the table."""
        lines = list(self.facts)
        for kind in ("numeric", "boolean", "categorical", "datetime"):
            members = [column for column in self.columns if column.kind == kind]
            if members:
                lines.append(f"{kind:<12} {_listed(map(_brief, members), len(members))}")
        left_out = [column for column in self.columns if not column.is_used]
        if left_out:
            lines.append(
                f"{'left out':<12} {_listed((f'{plain(c.name)} ({c.detail})' for c in left_out), len(left_out))}"
            )
        return lines + [f"{'note':<12} {note}" for note in self.notes]


def infer_schema(
    table: Table,
    target: str,
    *,
    task: Task | None = None,
    numeric: Collection[str] = (),
    categorical: Collection[str] = (),
    drop: Collection[str] = (),
) -> Schema:
    """Understand a table: the kind of each column and the task.

    A text column of which no more than one cell in a hundred is a word is a number column with a mistake in it, not a
    column of categories. The task is classification where the target is text or boolean, or holds two different
    numbers, or at most ten whole numbers that each come up often; otherwise regression.

    Raises:
        DataError: no such column; a stray word or a number that can't be used in a number column; a target that is
            all missing or has one value only; no column to learn from.
        ConfigError: contradicting overrides.
    """
    overrides = _overrides(table, target, {"numeric": numeric, "categorical": categorical, "dropped": drop})
    column = table[target]
    notes = list(table.notes)
    rows = np.flatnonzero(~column.is_missing)
    if not len(rows):
        raise DataError(
            f"{table.source}, target {target!r}",
            got=f"no value in {quantity(table.rows, 'row')}",
            needed="a value to learn in most rows",
        )
    if len(rows) < table.rows:
        notes.append(f"{quantity(table.rows - len(rows), 'row')} without a value of {target!r} set aside")
    if len(rows) < LEAST_ROWS:
        raise DataError(
            f"{table.source}: too few rows",
            got=f"{quantity(len(rows), 'row')} with a value of {target!r}",
            needed=f"at least {LEAST_ROWS}, for training, validation and test",
        )
    if task is None:
        task, because = _infer_task(column, len(rows))
        notes.extend(f"the task is {task} because {reason}" for reason in because)
    target_fact = _check_target(column, task, rows)

    columns = [_column_schema(other, overrides.get(other.name), notes) for other in table if other.name != target]
    schema = Schema(
        table.source,
        target,
        task,
        rows,
        tuple(columns),
        (
            f"{'table':<12} {table.source}: {quantity(table.rows, 'row')}, {quantity(len(table.names), 'column')}",
            f"{'target':<12} {plain(target)}: {task}, {target_fact}",
        ),
        tuple(notes),
    )
    if not schema.used:
        reasons = "; ".join(f"{shorten(c.name)!r}: {c.detail}" for c in columns[:6])
        raise DataError(f"{table.source}: no column to learn from", got=reasons or "only the target")
    return schema


def _overrides(table: Table, target: str, asked: Mapping[Kind, Collection[str]]) -> dict[str, Kind]:
    chosen: dict[str, Kind] = {}
    for kind, names in asked.items():
        if isinstance(names, str):
            raise ConfigError(f"{kind} columns", got=repr(names), needed="a list of column names")
        for name in names:
            if table[name].name == target:
                raise ConfigError(f"{kind} column {name!r}", got="the target", needed="the name of another column")
            if chosen.setdefault(name, kind) != kind:
                raise ConfigError(f"column {name!r}", got=f"both {chosen[name]} and {kind}", needed="one of them")
    return chosen


def _column_schema(column: Column, override: Kind | None, notes: list[str]) -> ColumnSchema:
    missing = int(column.is_missing.sum())
    kind, detail = (override, "as you asked") if override else _infer_kind(column, notes)
    if kind == "numeric":
        column.numbers()  # refuses what can't be a number of a model
    return ColumnSchema(column.name, kind, missing, column.levels, detail if kind in _LEFT_OUT else "")


def _infer_kind(column: Column, notes: list[str]) -> tuple[Kind, str]:
    filled, levels = int((~column.is_missing).sum()), column.levels
    if filled == 0:
        return "constant", "empty"
    if levels == 1 and filled == len(column.is_missing):
        return "constant", f"always {shorten(column.words.levels[0], 20)}"
    match column.type:
        case "boolean":
            return "boolean", ""
        case "datetime":
            return "datetime", ""
        case "number":
            return _infer_number(column, filled, levels)
        case "text":
            return _infer_text(column, filled, levels, notes)


def _infer_number(column: Column, filled: int, levels: int) -> tuple[Kind, str]:
    values = column.numbers()
    if levels < len(values) or levels < _MANY or (values % 1).any():
        return "numeric", ""
    steps = np.diff(values)
    span = float(values.max() - values.min())
    if (steps > 0).all():
        return "identifier", "whole numbers that grow from row to row"
    if span == levels - 1:
        return "identifier", f"each of {format_number(values.min())} to {format_number(values.max())} once"
    if _ID_NAME.fullmatch(column.name):
        return "identifier", "a different whole number in each row"
    return "numeric", ""


def _infer_text(column: Column, filled: int, levels: int, notes: list[str]) -> tuple[Kind, str]:
    if column.declared:
        return "categorical", ""
    numbers, words = column.strays()
    if _is_mistake(numbers, words):
        column.numbers(
            "correct the cell, leave it empty if the value is missing, "
            f"or make the column categorical (--categorical {column.name})"
        )
    if numbers > words:
        why = f"{words:,} of its {filled:,} cells are words" if words else "whole numbers so long are codes"
        notes.append(f"column {shorten(column.name)!r} is taken as text: {why} (numeric is the other choice)")
    if filled >= _MANY and levels > 0.9 * filled:
        return "identifier", f"{levels:,} different texts in {quantity(filled, 'row')}"
    return "categorical", ""


def _is_mistake(numbers: int, words: int) -> bool:
    return 0 < words <= max(1, (numbers + words) // 100) and numbers >= _MANY - 1


def _infer_task(column: Column, rows: int) -> tuple[Task, list[str]]:
    """The task, and why where it is not plain."""
    if column.type == "text" and not column.declared and _is_mistake(*column.strays()):
        column.numbers("correct the cell, leave it empty if the value is missing, or ask for --task classification")
    if column.type in ("text", "boolean"):
        return "classification", []
    values, levels = column.numbers(), column.levels
    if levels <= 2:
        return "classification", []
    is_whole = not (values[~np.isnan(values)] % 1).any()
    if is_whole and levels <= _CLASSES and rows >= 10 * levels:
        return "classification", [
            f"{shorten(column.name)!r} holds {levels} different whole numbers (or --task regression)"
        ]
    return "regression", []


def _check_target(column: Column, task: Task, rows: IntArray) -> str:
    """What is learnt, in words."""
    where, levels = f"{column.source}, target {column.name!r}", column.levels
    if levels == 1:
        raise DataError(
            where,
            got=f"{shorten(column.words.levels[0])!r} in all of {quantity(len(rows), 'row')}",
            needed="at least two classes" if task == "classification" else "numbers that differ",
        )
    if task == "regression" or column.type == "number":
        values = column.numbers()[rows]
    if task == "regression":
        low, middle, high = (format_number(float(f"{q:.10g}")) for q in np.quantile(values, [0, 0.5, 1]).tolist())
        return f"{low} to {high}, median {middle}"
    if levels > _MANY and levels > len(rows) / 2:
        raise DataError(
            where,
            got=f"{levels:,} different values in {quantity(len(rows), 'row')}",
            needed="classes that come up more than once",
            hint="ask for --task regression" if column.type == "number" else None,
        )
    counts = column.words.counts()
    common = np.argsort(-counts, kind="stable")[:6]
    shares = [f"{plain(column.words.levels[level])} {counts[level] / len(rows):.1%}" for level in common]
    return f"{quantity(levels, 'class')}: {_listed(shares, levels)}"


def _brief(column: ColumnSchema) -> str:
    facts = [quantity(column.levels, "level")] if column.kind == "categorical" else []
    facts += [f"{column.missing:,} missing"] if column.missing else []
    return plain(column.name) + (f" ({', '.join(facts)})" if facts else "")


def _listed(items: Iterable[str], total: int, most: int = 12) -> str:
    shown = [item for item, _ in zip(items, range(most), strict=False)]
    return ", ".join(shown) + (f" … and {total - len(shown):,} more" if total > len(shown) else "")

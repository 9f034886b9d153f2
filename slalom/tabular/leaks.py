"""Columns that alone determine the target: most often a copy of it, or something known only after it.

A column is suspected on evidence from rows that share a value (or lie next to each other in order), never because its
values are all different: a row can't vouch for itself.
"""

from __future__ import annotations

import shlex

import numpy as np

from slalom.tabular.schema import Schema
from slalom.tabular.table import BoolArray, Column, FloatArray, IntArray, Table, quantity, shorten
from slalom.tabular.target import ClassTarget, Target

__all__ = ["find_leaks"]

_WRONG = 1 / 1000  # share of the rows that a leaking column may get wrong …
_WRONG_OF_CONSTANT = 1 / 50  # … and share of those that the commonest class gets wrong
_LEAST_EVIDENCE = 5  # rows outside the commonest class, below which all is chance
_LEAST_ROWS = 20
_DETERMINED = 0.999  # r² or rank correlation of a leak


def find_leaks(table: Table, schema: Schema, target: Target, rows: IntArray) -> list[str]:
    """A sentence for each used column that alone determines the target in the given rows.

    Classes: the column's value (or its interval, for ordered values, or its being missing) gives the class of all but
    one row in a thousand, of the rows that share a value. Numbers: the target is a monotone function of the column
    (rank correlation ≥ 0.999), or its mean over the rows with the same value explains 99.9 % of its variance.
    """
    sentences = []
    for used in schema.used:
        if isinstance(target, ClassTarget):
            fact = _class_fact(table[used.name], rows, target.encode(table, rows))
        else:
            fact = _number_fact(table[used.name], rows, target.encode(table, rows))
        if fact:
            sentences.append(
                f"column {shorten(used.name)!r} alone determines the target {shorten(schema.target)!r} ({fact}): "
                f"a leak, unless it is known before the target is; leave it out with --drop {shlex.quote(used.name)}"
            )
    return sentences


def _class_fact(column: Column, rows: IntArray, y: IntArray) -> str | None:
    """In how many rows the column gives the class, if it determines it."""
    value = _ranks(column, rows)
    shared = _is_shared(value)
    ways = [(_wrong_by_value(value[shared], y[shared]), y[shared])] if 2 * shared.sum() >= len(y) else []
    ways.append((_wrong_by_value((value >= 0).astype(np.int64), y), y))
    if column.type != "text":
        ways.append((_wrong_by_interval(value, y), y))
    for wrong, y in ways:
        by_constant = len(y) - int(np.bincount(y).max())
        is_evident = by_constant >= _LEAST_EVIDENCE and len(y) >= _LEAST_ROWS
        if is_evident and wrong <= min(_WRONG * len(y), _WRONG_OF_CONSTANT * by_constant):
            return f"it gives {len(y) - wrong:,} of {quantity(len(y), 'row')}"
    return None


def _ranks(column: Column, rows: IntArray) -> IntArray:
    """Each row's value as its place among the distinct values, in their order; −1 where missing."""
    if column.type == "text":
        return column.words.codes[rows]
    values = column.times() if column.type == "datetime" else column.numbers()
    ranks = np.unique(values[rows], return_inverse=True)[1].astype(np.int64)
    ranks[column.is_missing[rows]] = -1
    return ranks


def _is_shared(value: IntArray) -> BoolArray:
    """Whether another row has the same value."""
    return np.bincount(value + 1)[value + 1] > 1


def _class_counts(value: IntArray, y: IntArray) -> IntArray:
    """Rows of each class (columns) for each distinct value (rows), in the order of the values."""
    place = np.unique(value, return_inverse=True)[1]
    classes = int(y.max()) + 1
    return np.bincount(place * classes + y, minlength=(int(place.max()) + 1) * classes).reshape(-1, classes)


def _wrong_by_value(value: IntArray, y: IntArray) -> int:
    """Rows outside the commonest class of their value."""
    counts = _class_counts(value, y)
    return int((counts.sum(axis=1) - counts.max(axis=1)).sum())


def _wrong_by_interval(value: IntArray, y: IntArray) -> int:
    """Rows outside their value's class, and changes of class along the ordered values beyond one for each class."""
    counts = _class_counts(value, y)
    changes = int(np.count_nonzero(np.diff(counts.argmax(axis=1))))
    classes = int(np.count_nonzero(counts.sum(axis=0)))
    return _wrong_by_value(value, y) + max(0, changes - (classes - 1))


def _number_fact(column: Column, rows: IntArray, y: FloatArray) -> str | None:
    """How the column gives the number, if it determines it."""
    value = _ranks(column, rows)
    filled = value >= 0
    if filled.sum() < max(_LEAST_ROWS, len(y) / 2):
        return None
    value, y = value[filled], y[filled]
    shared = _is_shared(value)
    if 2 * shared.sum() >= len(y) and _r2_by_value(value[shared], y[shared]) >= _DETERMINED:
        return "rows of one value have one target"
    if column.type != "text" and abs(_correlation(_mean_ranks(value), _mean_ranks(y))) >= _DETERMINED:
        return "they rise and fall together"
    return None


def _r2_by_value(value: IntArray, y: FloatArray) -> float:
    """The share of y's variance explained by the mean of the rows with the same value."""
    place, size = np.unique(value, return_inverse=True, return_counts=True)[1:]
    residual = y - (np.bincount(place, weights=y) / size)[place]
    total = float(np.sum((y - y.mean()) ** 2))
    return 1 - float(np.sum(residual**2)) / total if total > 0 else 0.0


def _mean_ranks(values: IntArray | FloatArray) -> FloatArray:
    place, counts = np.unique(values, return_inverse=True, return_counts=True)[1:]
    ranks: FloatArray = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def _correlation(a: FloatArray, b: FloatArray) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt(np.sum(a**2) * np.sum(b**2)))
    return float(np.sum(a * b)) / scale if scale > 0 else 0.0

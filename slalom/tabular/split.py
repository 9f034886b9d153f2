"""Rows cut into training, validation and test: a pure function of the seed, the number of rows, labels and groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from slalom.errors import ConfigError, DataError
from slalom.tabular.table import FloatArray, IntArray, quantity

__all__ = ["Split", "split_rows"]


@final
@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers, each part sorted; every row is in exactly one part."""

    train: IntArray
    validation: IntArray
    test: IntArray


def split_rows(
    rows: IntArray,
    *,
    seed: int,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.2,
    labels: NDArray[Any] | None = None,
    groups: NDArray[Any] | None = None,
) -> Split:
    """Cut rows into training, validation and test rows; ``validation_fraction`` is of those that are not test rows.

    With ``labels`` (classes), each class is shared out in proportion, and each keeps training rows: one that is too
    rare to share stays in training. With ``groups``, rows of one group stay together; a group then counts as having
    its most frequent label. The test rows depend on seed, rows, labels, groups and ``test_fraction`` alone.

    Shapes: rows, labels, groups (n,).
    Raises:
        ConfigError: a fraction outside 0 to 1.
        DataError: too few rows or groups for three parts.
    Note: the order is that of raw Philox output, which NumPy keeps from version to version; the methods of its
        ``Generator`` may change.

    >>> parts = split_rows(np.arange(10), seed=0)
    >>> len(parts.train), len(parts.validation), len(parts.test)
    (6, 2, 2)
    """
    for name, fraction in (("test_fraction", test_fraction), ("validation_fraction", validation_fraction)):
        if not isinstance(fraction, (int, float)) or not 0 < fraction < 1:
            raise ConfigError(name, got=repr(fraction), needed="a number between 0 and 1, such as 0.2")
    n = len(rows)
    of_row = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]  # each row's unit
    label = np.zeros(n, dtype=np.int64) if labels is None else np.unique(labels, return_inverse=True)[1]
    units = int(of_row.max()) + 1 if n else 0
    if units < 3:
        raise DataError(
            "splitting the rows",
            got=quantity(n, "row") if groups is None else f"{quantity(n, 'row')} in {quantity(units, 'group')}",
            needed=f"at least 3 {'rows' if groups is None else 'groups'}: for training, validation and test",
        )
    sizes = np.bincount(of_row, minlength=units)
    label_of_unit = _most_frequent(of_row, label, units)
    order = np.argsort(np.random.Philox(key=seed).random_raw(units), kind="stable")

    left = order
    parts: list[IntArray] = []
    for fraction, others in ((test_fraction, 2), (validation_fraction, 1)):
        taken = _share(left, fraction, sizes, label_of_unit, others)
        parts.append(np.sort(rows[np.isin(of_row, taken)]))
        left = left[~np.isin(left, taken)]
    return Split(np.sort(rows[np.isin(of_row, left)]), parts[1], parts[0])


def _most_frequent(of_row: IntArray, label: IntArray, units: int) -> IntArray:
    pairs, counts = np.unique(np.stack([of_row, label]), axis=1, return_counts=True)
    best = np.lexsort((-pairs[1], counts, pairs[0]))  # by unit, then count: the last of a unit is its label
    result = np.empty(units, dtype=np.int64)
    result[pairs[0][best]] = pairs[1][best]
    return result


def _share(order: IntArray, fraction: float, sizes: IntArray, label: IntArray, others: int) -> IntArray:
    """The units to take in this order, so that their rows come near to the fraction of each label's rows.

    ``others`` parts are still to be filled from what is left over, each with one unit at least.
    """
    members = [order[label[order] == value] for value in np.unique(label[order])]
    quotas = _whole_quotas(np.array([sizes[units].sum() for units in members]) * fraction)
    taken = [units[_near(sizes[units], quota)] for units, quota in zip(members, quotas.tolist(), strict=True)]
    if not any(len(units) for units in taken):  # each unit is larger than its quota, or its label's only one
        return order[[sizes[order].argmin()]]
    while sum(map(len, taken)) > len(order) - others:
        longest = max(range(len(taken)), key=lambda place: len(taken[place]))
        taken[longest] = taken[longest][:-1]
    return np.concatenate(taken)


def _whole_quotas(quotas: FloatArray) -> IntArray:
    """Largest remainders: whole numbers that sum to the rounded sum of the quotas."""
    whole = np.floor(quotas).astype(np.int64)
    short = round(float(quotas.sum())) - int(whole.sum())
    whole[np.argsort(whole - quotas, kind="stable")[:short]] += 1
    return whole


def _near(sizes: IntArray, quota: int) -> IntArray:
    """The places of the units to take: each that brings the sum of sizes nearer to the quota, but never all."""
    if sizes.max() == 1:
        return np.arange(min(quota, len(sizes) - 1))
    places, total = [], 0
    for place, size in enumerate(sizes.tolist()):
        if abs(total + size - quota) < abs(total - quota):
            places.append(place)
            total += size
    return np.array(places[: len(sizes) - 1], dtype=np.int64)

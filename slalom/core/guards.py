"""Guards: facts of the Python world that a record depends on, of which many are looked at in one go.

A fact is anything that tells when it is called whether it still holds. The kinds below are the common ones: ``Facts``
looks at all of a kind in one loop, since a compiled step of a small network takes less time than a call for each.
"""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import is_
from typing import Any, Final

__all__ = [
    "NOTHING",
    "Content",
    "Entry",
    "Equals",
    "Facts",
    "Guard",
    "Holds",
    "Kept",
    "NoGrad",
    "Refers",
    "Same",
    "Unset",
]

_get: Final = dict.get
NOTHING: Final[Any] = object()
"""Stands for a value where there is none."""


@dataclass(frozen=True)
class Guard:
    """A fact that must still hold for a recorded graph to be used again."""

    text: str
    holds: Callable[[], bool]


# --- where a value stands -----------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Entry:
    """What a dict holds under a name."""

    table: Mapping[str, Any]
    name: str

    def __call__(self) -> Any:
        return self.table.get(self.name, NOTHING)


@dataclass(frozen=True, slots=True)
class Content:
    """What a variable of an enclosing function is bound to."""

    cell: types.CellType

    def __call__(self) -> Any:
        try:
            return self.cell.cell_contents
        except ValueError:  # not assigned yet, or deleted
            return NOTHING


# --- kinds of facts -----------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Kept:
    """A tensor that is not kept alive is there, on the same buffer, and requires gradients or not as before."""

    tensor: weakref.ref[Any]
    storage: Any
    live: bool

    def __call__(self) -> bool:
        held = self.tensor()
        return held is not None and held._storage is self.storage and held._live == self.live


@dataclass(frozen=True, slots=True)
class NoGrad:
    """Whether ``.grad`` of a tensor is None."""

    tensor: weakref.ref[Any]
    empty: bool

    def __call__(self) -> bool:
        held = self.tensor()
        return held is not None and (held._grad is None) == self.empty


@dataclass(frozen=True, slots=True)
class Refers:
    """At a place there is this very object. ``value``: how to find it, without keeping it alive where that can be."""

    place: Callable[[], Any]
    value: Callable[[], Any]

    def __call__(self) -> bool:
        held = self.value()
        return held is not None and self.place() is held


@dataclass(frozen=True, slots=True)
class Same:
    """A dict holds this very object under a name."""

    table: dict[Any, Any]
    name: Any
    value: Any

    def __call__(self) -> bool:
        return self.table.get(self.name) is self.value


@dataclass(frozen=True, slots=True)
class Equals:
    """A dict holds a value like this under a name."""

    table: Mapping[Any, Any]
    name: Any
    value: Any

    def __call__(self) -> bool:
        return bool(self.table.get(self.name) == self.value)


class Holds:
    """A dict holds these very objects under these names, in this order, and nothing else."""

    __slots__ = ("_names", "_table", "_values")

    def __init__(self, table: Mapping[Any, Any]) -> None:
        self._table, self._names, self._values = table, list(table), list(table.values())

    def __call__(self) -> bool:  # tensors compare by value, so dicts of them cannot be compared
        return list(self._table) == self._names and all(map(is_, self._table.values(), self._values))


@dataclass(frozen=True, slots=True)
class Unset:
    """These containers are empty."""

    containers: tuple[Any, ...]

    def __call__(self) -> bool:
        return not any(self.containers)


class Facts:
    """Facts that are looked at together."""

    def __init__(self, facts: Iterable[Callable[[], bool]]) -> None:
        self._kept: list[tuple[weakref.ref[Any], Any, bool]] = []
        self._grads: list[tuple[weakref.ref[Any], bool]] = []
        self._entries: list[tuple[Mapping[str, Any], str, Callable[[], Any]]] = []
        self._contents: list[tuple[types.CellType, Callable[[], Any]]] = []
        self._tables: list[dict[Any, Any]] = []  # with the next two: what stands where
        self._names: list[Any] = []
        self._values: list[Any] = []
        self._equal: list[tuple[Mapping[Any, Any], Any, Any]] = []
        self._unset: list[Any] = []
        self._others: list[Callable[[], bool]] = []
        for fact in facts:
            if isinstance(fact, Kept):
                self._kept.append((fact.tensor, fact.storage, fact.live))
            elif isinstance(fact, NoGrad):
                self._grads.append((fact.tensor, fact.empty))
            elif isinstance(fact, Refers) and isinstance(fact.place, Entry):
                self._entries.append((fact.place.table, fact.place.name, fact.value))
            elif isinstance(fact, Refers) and isinstance(fact.place, Content):
                self._contents.append((fact.place.cell, fact.value))
            elif isinstance(fact, Same):
                self._tables.append(fact.table)
                self._names.append(fact.name)
                self._values.append(fact.value)
            elif isinstance(fact, Equals):
                self._equal.append((fact.table, fact.name, fact.value))
            elif isinstance(fact, Unset):
                self._unset.extend(fact.containers)
            else:
                self._others.append(fact)

    def hold(self) -> bool:
        """Whether all of them do."""
        for ref, storage, live in self._kept:
            t = ref()
            if t is None or t._storage is not storage or t._live is not live:
                return False
        for ref, empty in self._grads:
            t = ref()
            if t is None or (t._grad is None) is not empty:
                return False
        for table, name, value in self._entries:
            held = value()
            if held is None or table.get(name) is not held:
                return False
        try:
            for cell, value in self._contents:
                held = value()
                if held is None or cell.cell_contents is not held:
                    return False
        except ValueError:  # not assigned yet, or deleted
            return False
        if not all(map(is_, map(_get, self._tables, self._names), self._values)):
            return False
        for table, name, expected in self._equal:
            if (now := table.get(name)) is not expected and now != expected:
                return False
        if any(self._unset):
            return False
        for holds in self._others:  # noqa: SIM110 - all() of a generator takes longer
            if not holds():
                return False
        return True

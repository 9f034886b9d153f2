"""Plain data out of and into small dataclasses, for model files: a closed list of fields, each of one checked type.

What is read can only ever become text, numbers, truth values and tuples of them, in a class that the reader names; a
field that is missing, foreign or of another type is an error. No pickle, no names that lead to code.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from slalom.errors import ModelFileError

__all__ = ["read_record", "write_record"]

T = TypeVar("T")


def write_record(record: Any) -> dict[str, Any]:
    """A dataclass of str, bool, int, float and tuple[…, ...] fields as plain data."""
    fields = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def read_record(cls: type[T], data: object, where: str) -> T:
    """The inverse of ``write_record``; floats come back to the bit through JSON.

    Raises:
        ModelFileError: not exactly the class's fields, or a value of another type, or a number that is not finite.
    """
    types = {field.name: str(field.type) for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if not isinstance(data, Mapping) or set(data) != set(types):
        got = sorted(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
        raise ModelFileError(where, got=got, needed=f"the fields {sorted(types)}")
    return cls(**{name: _read_value(type_, data[name], f"{where}, field {name!r}") for name, type_ in types.items()})


def _read_value(type_: str, value: object, where: str) -> object:
    if type_ == "float" and isinstance(value, float) and math.isfinite(value):
        return value
    if type_ in _PLAIN and type(value) is _PLAIN[type_]:
        return value
    item = type_.removeprefix("tuple[").removesuffix(", ...]")
    if item != type_ and type(value) is list:
        return tuple(_read_value(item, element, where) for element in value)
    raise ModelFileError(where, got=repr(value)[:60], needed=type_)


_PLAIN: dict[str, type] = {"str": str, "bool": bool, "int": int}  # exactly: True is no int here

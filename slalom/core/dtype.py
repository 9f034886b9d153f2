"""Data types are NumPy's; this module holds which ones exist, the default, and how operands are promoted.

The rules are PyTorch's: bool < integer < floating; within a category the wider type wins, but a 0-d tensor or a
Python number never widens an array of its own category ("a 0-d operand never widens an array").
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from slalom.errors import DTypeError

DType = np.dtype[Any]

bool_: Final[DType] = np.dtype(np.bool_)
uint8: Final[DType] = np.dtype(np.uint8)
int8: Final[DType] = np.dtype(np.int8)
int16: Final[DType] = np.dtype(np.int16)
int32: Final[DType] = np.dtype(np.int32)
int64: Final[DType] = np.dtype(np.int64)
uint32: Final[DType] = np.dtype(np.uint32)  # random bits
float32: Final[DType] = np.dtype(np.float32)
float64: Final[DType] = np.dtype(np.float64)

ALL: Final = (bool_, uint8, int8, int16, int32, int64, uint32, float32, float64)
_KNOWN: Final = frozenset(ALL)
SHORT: Final = {d: d.kind + str(8 * d.itemsize) for d in ALL} | {bool_: "bool"}
"""Names used when graphs are printed: f32, i64, bool."""

_default: contextvars.ContextVar[DType] = contextvars.ContextVar("slalom_default_dtype", default=float32)


def get_default_dtype() -> DType:
    """The dtype of tensors made from Python floats; float32 unless ``set_default_dtype`` changed it."""
    return _default.get()


def set_default_dtype(dtype: Any) -> None:
    """Make float32 or float64 the dtype of tensors made from Python floats.

    Raises: DTypeError for anything else.
    """
    wanted = as_dtype(dtype)
    if wanted.kind != "f":
        raise DTypeError("set_default_dtype", got=wanted, needed="float32 or float64")
    _default.set(wanted)


def as_dtype(dtype: Any) -> DType:
    """The dtype meant by a NumPy dtype, a NumPy or Python type, or a name; big-endian becomes native.

    Raises: DTypeError for types that Slalom does not have (float16, complex, strings, …).
    """
    if dtype is float:
        return get_default_dtype()
    try:
        found = np.dtype(dtype).newbyteorder("=")
    except TypeError:
        found = None
    if found not in _KNOWN:
        names = ", ".join(d.name for d in ALL)
        raise DTypeError("dtype", got=dtype, needed=f"one of {names}")
    return found


_CATEGORY: Final = {"b": 0, "u": 1, "i": 1, "f": 2}


def promote(operands: Iterable[tuple[DType | type, int]]) -> DType:
    """The common dtype of operands, each given as (dtype or Python number type, rank).

    A Python number has the type bool, int or float instead of a dtype and rank −1. Arrays (rank ≥ 1) decide; 0-d
    tensors count only where they are of a higher category, and Python numbers only where they are of a higher one
    still (then an int gives int64 and a float gives the default dtype).
    """
    groups: list[DType | None] = [None, None]  # arrays, 0-d tensors
    number = -1
    for dtype, rank in operands:
        if rank < 0:
            number = max(number, _NUMBER_CATEGORY[dtype])  # type: ignore[index]
            continue
        group = 0 if rank > 0 else 1
        groups[group] = _join(groups[group], dtype)  # type: ignore[arg-type]
    result: DType | None = None
    for candidate in groups:
        if candidate is not None and (result is None or _CATEGORY[candidate.kind] > _CATEGORY[result.kind]):
            result = candidate
    if result is None or number > _CATEGORY[result.kind]:
        return (bool_, int64, get_default_dtype())[number]
    return result


_NUMBER_CATEGORY: Final = {bool: 0, int: 1, float: 2}


def _join(a: DType | None, b: DType) -> DType:
    """The wider of two dtypes; an integer never decides the width of a float."""
    if a is None or a == b:
        return b
    if _CATEGORY[a.kind] != _CATEGORY[b.kind]:
        return a if _CATEGORY[a.kind] > _CATEGORY[b.kind] else b
    return np.promote_types(a, b)

"""Data types are NumPy's; this module holds which ones exist, the default, and how operands are promoted.

The rules are PyTorch's: bool < integer < floating; within a category the wider type wins, but a 0-d tensor or a
Python number never widens an array of its own category ("a 0-d operand never widens an array").
"""

from __future__ import annotations

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

_default: DType = float32


def get_default_dtype() -> DType:
    """The dtype of tensors made from Python floats; float32 unless ``set_default_dtype`` changed it."""
    return _default


def set_default_dtype(dtype: Any) -> None:
    """Make float32 or float64 the dtype of tensors made from Python floats, in all threads.

    Raises: DTypeError for anything else.
    """
    global _default  # noqa: PLW0603 (a setting of the process, as in PyTorch)
    wanted = as_dtype(dtype)
    if wanted.kind != "f":
        raise DTypeError("set_default_dtype", got=wanted, needed="float32 or float64")
    _default = wanted


def as_dtype(dtype: Any) -> DType:
    """The dtype meant by a NumPy dtype, a NumPy or Python type, or a name; big-endian becomes native.

    Raises: DTypeError for types that Slalom does not have (float16, complex, strings, …).
    """
    if dtype is float:
        return get_default_dtype()
    if isinstance(dtype, np.dtype) and dtype in _KNOWN:
        return dtype
    try:
        found: DType | None = None if dtype is None else np.dtype(dtype).newbyteorder("=")
    except (TypeError, ValueError):
        found = None
    if found is None or found not in _KNOWN:
        names = ", ".join(d.name for d in ALL)
        raise DTypeError("dtype", got=str(dtype), needed=f"one of {names}")
    return found


_CATEGORY: Final = {"b": 0, "u": 1, "i": 1, "f": 2}


def promote(operands: Iterable[tuple[DType, int]]) -> DType:
    """The common dtype of operands, each given as (dtype, rank).

    Arrays (rank ≥ 1) decide; 0-d tensors count only where they are of a higher category.
    """
    arrays: DType | None = None
    scalars: DType | None = None
    for dtype, rank in operands:
        if rank:
            arrays = _join(arrays, dtype)
        else:
            scalars = _join(scalars, dtype)
    if arrays is None or (scalars is not None and _CATEGORY[scalars.kind] > _CATEGORY[arrays.kind]):
        arrays = scalars
    assert arrays is not None, "an operation has at least one operand"
    return arrays


def promote_number(dtype: DType, number: object) -> DType:
    """The dtype of a tensor of ``dtype`` combined with a Python number, which counts only by a higher category.

    Then an int gives int64 and a float the default dtype.
    """
    category = 2 if isinstance(number, float) else 0 if isinstance(number, bool) else 1
    return dtype if category <= _CATEGORY[dtype.kind] else (bool_, int64, get_default_dtype())[category]


def _join(a: DType | None, b: DType) -> DType:
    """The wider of two dtypes; an integer never decides the width of a float."""
    if a is None or a == b:
        return b
    if _CATEGORY[a.kind] != _CATEGORY[b.kind]:
        return a if _CATEGORY[a.kind] > _CATEGORY[b.kind] else b
    return np.promote_types(a, b)

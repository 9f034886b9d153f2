"""The order of rows in an epoch, natively: the bits of ``core.kernels.permutation``."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np

from slalom.compiler import llvm
from slalom.compiler.draws import permutation, permutation_keys
from slalom.compiler.ir import Builder
from slalom.compiler.native import native
from slalom.compiler.program import address
from slalom.core import kernels
from slalom.core.primitive import Array

__all__ = ["row_order"]


def row_order(seed: int, epoch: int, n: int) -> Array:
    """``kernels.permutation(seed, epoch, n)``, natively."""
    if not native() or n == 0:
        return kernels.permutation(seed, epoch, n)
    function, bound, tasks = _permuting(n)
    rows = np.empty(n, np.int64)
    counter, status = np.zeros((2, 1), np.int64)
    held: dict[Any, Array] = {("in", 0): permutation_keys(seed, (epoch,)), ("in", 1): counter}
    held |= {("out", 0): rows, ("status",): status}
    words = np.array([address(held[m]) if isinstance(m, tuple) else m for m in bound], np.int64)
    function(address(words), 0, tasks)
    return rows


@functools.lru_cache(maxsize=64)
def _permuting(n: int) -> tuple[Any, list[Any], int]:
    """The kernel that computes the order of n rows, what its words mean, and its tasks."""
    b = Builder()
    plan = permutation(b, n, n)
    (code,) = llvm.load([b])
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    return prototype(code), b.bound, plan.tasks

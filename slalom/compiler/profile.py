"""How long each kernel of a program takes, beside what the machine could do in that time."""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from slalom.compiler import llvm
from slalom.compiler.ir import LANES, Builder, Type, literal

__all__ = ["Profile", "Timing", "fma_peak"]

_CALL: Final = 4e-7
"""Seconds that a call from Python takes, about, which is no part of a kernel's time."""


class Timing(NamedTuple):
    """A kernel: elementary operations, bytes of memory that it reads and writes, and seconds at best, on one thread."""

    call: str
    flops: int
    bytes: int
    seconds: float


class Profile(NamedTuple):
    """The kernels of a program in the order in which they run, and the peak of one core in operations a second."""

    timings: Sequence[Timing]
    peak: float

    @property
    def seconds(self) -> float:
        """Of all kernels."""
        return sum(timing.seconds for timing in self.timings)

    def __str__(self) -> str:
        lines = [f"{'µs':>9} {'GFLOP/s':>8} {'of peak':>8} {'GB/s':>7}  kernel"]
        for timing in self.timings:
            rate = timing.flops / timing.seconds
            speeds = f"{rate / 1e9:8.1f} {rate / self.peak:8.1%} {timing.bytes / timing.seconds / 1e9:7.1f}"
            lines.append(f"{timing.seconds * 1e6:9.2f} {speeds}  {timing.call}")
        rate = sum(timing.flops for timing in self.timings) / self.seconds
        lines.append(f"{self.seconds * 1e6:9.2f} {rate / 1e9:8.1f} {rate / self.peak:8.1%} {'':7}  all")
        return "\n".join(lines)


def seconds_of(function: int, args: int, tasks: int) -> float:
    """How long one call of a kernel takes now."""
    kernel = _prototype(function)
    started = time.perf_counter()
    kernel(args, 0, tasks)
    return max(time.perf_counter() - started - _CALL, 1e-9)


@functools.lru_cache(maxsize=4096)
def _prototype(function: int) -> ctypes._CFunctionType:
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(function)


@functools.cache
def fma_peak(scalar: str = "float", rounds: int = 5) -> float:
    """Operations a second of one core in a loop of independent fused multiply-adds, each of which counts as two."""
    b, vector, chains, steps = Builder(), Type(scalar, LANES), 12, 100_000
    x = b.splat(b.load(Type(scalar), b.pointer("x", "x")))
    sums = [b.variable(literal(i, vector)) for i in range(chains)]
    with b.loop(b.begin, b.end):
        for total in sums:
            total.set(b.fma(x, x, total.get()))
    for i, total in enumerate(sums):
        b.store(total.get(), b.offset(b.pointer("y", "y"), i, vector))
    memory = np.zeros(chains * LANES + 1)
    words = np.array([memory.ctypes.data + {"x": 0, "y": 8}[name] for name in b.bound], np.int64)
    (address,) = llvm.load([b])
    best = min(seconds_of(address, words.ctypes.data, steps) for _ in range(rounds))
    return 2 * LANES * chains * steps / best

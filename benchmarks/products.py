"""Single matrix products on one core: the compiler's kernels beside NumPy's, in GFLOP/s and as a share of the FMA peak.

Usage: python benchmarks/products.py [--rounds N] [--double] [--json]

FLOPs are the useful ones, 2·M·N·K, without the padding of tiles. "plain" reads B as it lies, "packed" from panels;
"packing" is what writing the panels costs: nanoseconds an element, from a row-major Wᵀ, a call from Python (0.3 µs)
included. A round repeats a product for some milliseconds (within one native call; NumPy's calls cost about 1 µs each,
which small products feel); the best round counts. The peak is a loop of independent fused multiply-adds in registers,
the better of one before and one after all products: clocks drift by some per cent.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from slalom.compiler import gemm, llvm, packs
from slalom.compiler.ir import Builder, Type, Value
from slalom.compiler.profile import fma_peak


class Case(NamedTuple):
    """M, K, N; ``strided``: A is the transpose of a matrix in memory, and M is not the batch (dW = dYᵀ·X)."""

    name: str
    m: int
    k: int
    n: int
    strided: bool = False


CASES = (
    Case("forward, tiny", 32, 20, 32),
    Case("forward, small, first", 128, 30, 64),
    Case("forward, small", 128, 64, 64),
    Case("forward, small, last", 128, 64, 10),
    Case("dW, small, last", 10, 128, 64, True),
    Case("dW, ten classes", 10, 128, 128, True),
    Case("dW, small", 64, 128, 64, True),
    Case("cube", 64, 64, 64),
    Case("cube", 256, 256, 256),
    Case("48 columns", 128, 64, 48),
    Case("odd", 100, 70, 50),
    Case("one row", 1, 64, 64),
    Case("forward, mnist", 128, 784, 256),
    Case("dW, mid", 256, 256, 256, True),
    Case("forward, wide", 256, 1024, 1024),
    Case("dW, wide", 1024, 256, 1024, True),
)
Native = Callable[[int, int, int], None]


def native(b: Builder) -> Native:
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(llvm.load([b])[0])


def words(b: Builder, values: dict[str, int]) -> np.ndarray:
    return np.array([values[name] for name in b.bound], np.int64)


def aligned(values: np.ndarray) -> np.ndarray:
    """A copy that begins with a cache line, as the compiler's own buffers do."""
    raw = np.empty(values.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    copy: np.ndarray = raw[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy


def best(run: Callable[[], Any], repeats: int, rounds: int) -> float:
    """Seconds a repeat, in the best round."""
    run()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) / repeats)
    return min(times)


def store(b: Builder, m: Value, n: Value, sums: Value, mask: Value, batch: gemm.Outer) -> None:
    at = b.add(b.mul(m, b.word("c_row", "c_row")), n)
    b.store_masked(sums, b.offset(b.pointer("c", "c"), at, Type(sums.type.scalar)), mask)


def measure(case: Case, scalar: str, rounds: int) -> dict[str, Any]:
    """GFLOP/s of one product, three ways, and nanoseconds an element of packing."""
    dtype = np.float32 if scalar == "float" else np.float64
    rng, (m, k, n) = np.random.default_rng(0), case[1:4]
    stored = aligned(rng.standard_normal((k, m) if case.strided else (m, k)).astype(dtype))
    a = stored.T if case.strided else stored
    weight = aligned(rng.standard_normal((n, k)).astype(dtype))
    right, c = aligned(weight.T), aligned(np.zeros((m, n), dtype))
    flops = 2 * m * k * n
    repeats = max(1, int(2e-3 * 250e9 / flops))

    product = gemm.choose(n, scalar, m=m if case.strided else None, batched=1)  # the batch repeats the product
    width = product.columns
    panels = aligned(np.zeros((-(-n // width), k, width), dtype))
    packing, packer = packs.Packing(scalar, product.columns, "columns"), Builder()
    packs.emit_pack(packer, packing, packs.PackOperands(*packs.PackOperands._fields))
    pack, extents = native(packer), {"k": k, "n": n, "source": weight.ctypes.data, "source_n": k}
    packed = words(packer, {**extents, "panels": panels.ctypes.data, "panel": k * width})
    times = max(1, 500_000 // (n * k))
    cost = best(lambda: [pack(packed.ctypes.data, 0, packing.tasks(n)) for _ in range(times)], times, rounds)

    b = Builder()
    operands = gemm.Operands(*gemm.Operands._fields)
    gemm.emit(b, product, operands._replace(batch=(), a_batch=("a_batch",), b_batch=("b_batch",)), store)
    kernel, (row, column) = native(b), (stride // a.itemsize for stride in a.strides)
    common = {
        "m": m,
        "n": n,
        "k": k,
        "a": a.ctypes.data,
        "a_tile": product.rows * row,
        "a_row": row,
        "a_k": column,
        "a_batch": 0,
        "b_batch": 0,
    }
    common |= {"block": 1 << 40, "c": c.ctypes.data, "c_row": n}
    found: dict[str, Any] = {"case": case.name, "size": f"{m}×{k}×{n}", "tile": f"{product.rows}×{width}"}
    layouts = {"plain": (right, width, n), "packed": (panels, k * width, width)}
    for name, (source, panel, line) in layouts.items():
        table = words(b, {**common, "b": source.ctypes.data, "b_panel": panel, "b_row": line})
        tasks = product.tasks(m, n, repeats)
        c[...] = 0
        seconds = best(lambda table=table, tasks=tasks: kernel(table.ctypes.data, 0, tasks), repeats, rounds)
        found[name] = flops / seconds / 1e9
        np.testing.assert_allclose(c, a.astype(np.float64) @ right, rtol=0, atol=1e-5 * k)
    found["numpy"] = flops / best(lambda: [np.matmul(a, right, out=c) for _ in range(repeats)], repeats, rounds) / 1e9
    found["packing"] = cost / (n * k) * 1e9
    return found


def clean_environment() -> dict[str, str]:
    """Nothing that pins OpenBLAS to slower kernels than the CPU has, and one thread."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENBLAS_", "OMP_"))}
    return kept | {"OMP_NUM_THREADS": "1"}


def rows() -> list[dict[str, Any]]:
    """All cases, from a process of their own."""
    command = [sys.executable, __file__, "--json"]
    run = subprocess.run(command, env=clean_environment(), check=True, capture_output=True, text=True)
    found: list[dict[str, Any]] = json.loads(run.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--double", action="store_true", help="float64")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    if clean_environment() != dict(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.argv], clean_environment())
    scalar = "double" if chosen.double else "float"
    top = fma_peak(scalar, chosen.rounds) / 1e9
    found = [measure(case, scalar, chosen.rounds) for case in CASES]
    top = max(top, fma_peak(scalar, chosen.rounds + 1) / 1e9)
    if chosen.json:
        print(json.dumps([row | {"peak": top} for row in found]))
        return
    print(f"FMA peak of one core: {top:.0f} GFLOP/s\n")
    print("| product | M×K×N | tile | plain | packed | share of peak | NumPy | packing ns/element |")
    print("|---|---|---|---|---|---|---|---|")
    for row in found:
        share = max(row["plain"], row["packed"]) / top
        speeds = f"{row['plain']:.0f} | {row['packed']:.0f} | {share:.0%} | {row['numpy']:.0f} | {row['packing']:.2f}"
        print(f"| {row['case']} | {row['size']} | {row['tile']} | {speeds} |")


if __name__ == "__main__":
    main()

"""One training step, operation by operation, beside PyTorch's: 30-64-64-10, batch 128, ReLU, cross-entropy, Adam.

Usage: python benchmarks/eager_step.py [--steps N] [--rounds N] [--threads N] [--profile]

The same weights and batch in both, rounds interleaved in one process, the median of the rounds; Adam is each
library's default one. OPENBLAS_* variables may pin NumPy to slower kernels than the CPU has: they are unset first.
Promised: at most 3 times PyTorch's time. Slalom's staged step (NumPy executor) is shown for comparison.
"""

from __future__ import annotations

import argparse
import cProfile
import itertools
import json
import os
import pstats
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

SIZES, BATCH = (30, 64, 64, 10), 128
LIMIT = 3.0
Step = Callable[[], Any]


def data() -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((o, i)).astype(np.float32) / np.sqrt(i) for i, o in itertools.pairwise(SIZES)]
    return weights, rng.standard_normal((BATCH, SIZES[0])).astype(np.float32), rng.integers(0, SIZES[-1], BATCH)


def slalom_step() -> Step:
    import slalom
    from slalom import nn, optim

    weights, x, y = data()
    model = nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    with slalom.no_grad():
        for layer, w in zip(model[::2], weights, strict=True):
            layer.weight.copy_(slalom.tensor(w))
            layer.bias.zero_()
    optimizer, criterion = optim.Adam(model.parameters()), nn.CrossEntropyLoss()
    inputs, targets = slalom.tensor(x), slalom.tensor(y)

    def step() -> Any:
        with slalom.no_compile():
            loss = criterion(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def torch_step() -> Step:
    import torch
    from torch import nn

    weights, x, y = data()
    model = nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    with torch.no_grad():
        for layer, w in zip(model[::2], weights, strict=True):
            layer.weight.copy_(torch.tensor(w))
            layer.bias.zero_()
    optimizer, criterion = torch.optim.Adam(model.parameters()), nn.CrossEntropyLoss()
    inputs, targets = torch.tensor(x), torch.tensor(y)

    def step() -> Any:
        loss = criterion(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def staged_step() -> Step:
    import slalom

    return slalom.compile(slalom_step())


def measure(steps: int, rounds: int, threads: int | None = None) -> list[dict[str, Any]]:
    """Microseconds a step, and the ratio to PyTorch's where it is installed."""
    contenders: dict[str, Step] = {"slalom eager": slalom_step(), "slalom staged, NumPy": staged_step()}
    try:
        contenders["torch eager"] = torch_step()
    except ImportError:
        print("PyTorch is not installed: no ratio", file=sys.stderr)
    if threads is not None:
        limit_threads(threads)
    losses = {name: [float(step().item()) for _ in range(50)][-1] for name, step in contenders.items()}
    if max(losses.values()) - min(losses.values()) > 1e-3:
        raise SystemExit(f"the steps do not compute the same: {losses}")
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, step in contenders.items():
            start = time.perf_counter()
            for _ in range(steps):
                step()
            times[name].append((time.perf_counter() - start) / steps * 1e6)
    rows: list[dict[str, Any]] = [{"case": n, "microseconds": statistics.median(t)} for n, t in times.items()]
    if "torch eager" in times:
        for row in rows:
            row["ratio"] = row["microseconds"] / statistics.median(times["torch eager"])
            row["limit"] = LIMIT if row["case"] == "slalom eager" else None
    return rows


def limit_threads(threads: int) -> None:
    import slalom

    slalom.set_num_threads(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}


def rows() -> list[dict[str, Any]]:
    """The measurement with each library's own number of threads, and with one, in processes of their own."""
    found: list[dict[str, Any]] = []
    for label, options in (("", []), (", 1 thread", ["--threads", "1"])):
        command = [sys.executable, __file__, "--json", *options]
        run = subprocess.run(command, env=clean_environment(), check=True, capture_output=True, text=True)
        found += [{**row, "case": row["case"] + label} for row in json.loads(run.stdout)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50, help="steps in a round")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, help="of both libraries; 1 is what a busy machine can measure")
    parser.add_argument("--profile", action="store_true", help="where Slalom's time goes")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    if clean_environment() != dict(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.argv], clean_environment())
    if chosen.profile:
        limit_threads(chosen.threads or 1)
        step = slalom_step()
        for _ in range(20):
            step()
        with cProfile.Profile() as profile:
            for _ in range(300):
                step()
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)
        return
    found = measure(chosen.steps, chosen.rounds, chosen.threads)
    if chosen.json:
        print(json.dumps(found))
        return
    for row in found:
        ratio = f"  {row['ratio']:.2f} × PyTorch" if "ratio" in row else ""
        print(f"{row['case']:22} {row['microseconds']:8.0f} µs{ratio}")


if __name__ == "__main__":
    main()

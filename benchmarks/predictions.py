"""Predictions of networks in a loop, under `no_grad`, beside PyTorch's.

Usage: python benchmarks/predictions.py [--rounds N] [--threads N]

The same weights and inputs in both libraries, each in a process of its own; the processes take turns, one round of all
cases each. A figure in µs is the wall time of a call, the best of a round's; then the best and the median of the
rounds. What comes out must agree.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Row = dict[str, Any]
WARM, SECONDS = 100, 0.15
"""Calls before any is timed, and how long a case is timed in a round."""


def networks(nn: Any) -> dict[str, tuple[Any, tuple[tuple[int, ...], ...]]]:
    """By name, a network, and shapes of what it is called with."""

    def dense(*sizes: int) -> Any:
        layers = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*layers[:-1])

    images = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    return {
        "30-64-64-10": (dense(30, 64, 64, 10), ((1, 30), (256, 30))),
        "784-1024-1024-10": (dense(784, 1024, 1024, 10), ((1, 784), (4, 784), (32, 784), (256, 784))),
        "2 convolutions, 32 × 32": (images, ((1, 3, 32, 32), (16, 3, 32, 32))),
        "LSTM 32 → 128": (nn.LSTM(32, 128, batch_first=True), ((1, 20, 32), (1, 200, 32), (32, 50, 32))),
        "encoder layer of 128": (
            nn.TransformerEncoderLayer(128, 4, 512, batch_first=True),
            ((1, 16, 128), (8, 64, 128), (1, 512, 128)),
        ),
    }


def serve(name: str, threads: int) -> None:
    """Answer each line of input with a round of all cases: [µs, first numbers of the output] by case."""
    library = __import__(name)
    library.set_num_threads(threads)
    rng = np.random.default_rng(0)
    calls: dict[str, Callable[[], Any]] = {}
    for title, (model, shapes) in networks(library.nn).items():
        state = model.state_dict()
        model.load_state_dict({key: library.tensor(_weights(rng, tuple(t.shape))) for key, t in state.items()})
        model.eval()
        for shape in shapes:
            x = library.tensor(np.random.default_rng(len(calls)).standard_normal(shape, np.float32))
            calls[f"{title}, {' × '.join(map(str, shape[:-1] if 'conv' not in title else shape[:1]))}"] = (
                lambda model=model, x=x: model(x)
            )
    with library.no_grad():
        for call in calls.values():
            for _ in range(WARM):
                call()
        for _ in sys.stdin:
            print(json.dumps({title: _timed(call) for title, call in calls.items()}), flush=True)


def _weights(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return (rng.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))).astype(np.float32)


def _timed(call: Callable[[], Any]) -> tuple[float, list[float]]:
    best, ends = float("inf"), time.perf_counter() + SECONDS
    while (started := time.perf_counter()) < ends:
        out = call()
        best = min(best, time.perf_counter() - started)
    first = out[0] if isinstance(out, tuple) else out
    return best * 1e6, first.reshape(-1)[:4].tolist()


def rows(rounds: int = 5, threads: int = 1) -> list[Row]:
    """One row a case: µs of a call, and how many times as long PyTorch takes, where it is installed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
    workers = {}
    for name in ("slalom", "torch"):
        command = [sys.executable, __file__, "--serve", name, "--threads", str(threads)]
        workers[name] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            assert worker.stdin is not None and worker.stdout is not None
            try:
                worker.stdin.write("\n")
                worker.stdin.flush()
                line = worker.stdout.readline()
            except BrokenPipeError:
                line = ""
            if line:
                found[name].append(json.loads(line))
    for worker in workers.values():
        worker.communicate()
    made = []
    for title in found["slalom"][0]:
        times = {name: [one[title][0] for one in of] for name, of in found.items() if of}
        row: Row = {"case": title, "us": min(times["slalom"]), "us_median": statistics.median(times["slalom"])}
        if "torch" in times:
            outputs = [found[name][0][title][1] for name in ("slalom", "torch")]
            row["times"] = min(times["torch"]) / row["us"]
            row["times_median"] = statistics.median(times["torch"]) / row["us_median"]
            row["agrees"] = bool(np.allclose(*outputs, rtol=1e-3, atol=1e-4))
        made.append(row)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.serve, chosen.threads)
        return
    for row in rows(chosen.rounds, chosen.threads):
        ratio = f"  {row['times']:.2f} × (median {row['times_median']:.2f}), {row['agrees']}" if "times" in row else ""
        print(f"{row['case']:36} {row['us']:9.1f} µs{ratio}")


if __name__ == "__main__":
    main()

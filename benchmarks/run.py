"""What `make bench` prints: our times beside the peers that are installed, and the limits that are promised.

Usage: make bench [ARGS="--only NAME …"]. Every row names what was run; ratios come from interleaved rounds in one
process. Results are kept as JSON under benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import eager_step
import predictions
import training

ROOT = Path(__file__).resolve().parent.parent
Row = dict[str, Any]


def import_time() -> list[Row]:
    """A fresh interpreter: `import slalom`, and that it brings none of the optional libraries."""
    code = (
        "import sys, time, numpy; t = time.perf_counter(); import slalom; s = time.perf_counter() - t; "
        "heavy = [m for m in ('sklearn', 'pyarrow', 'rich', 'pandas', 'torch') if m in sys.modules]; print(s, heavy)"
    )
    outputs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(5)
    ]
    seconds = min(float(line.split()[0]) for line in outputs)
    whole = _wall([sys.executable, "-c", "import slalom"])
    heavy = outputs[0].split(maxsplit=1)[1].strip()
    return [
        {"case": "import slalom, after NumPy", "seconds": seconds, "limit": 0.25, "brings": heavy},
        {"case": "python -c 'import slalom'", "seconds": whole, "limit": None},
    ]


def _wall(command: list[str], rounds: int = 5, **options: Any) -> float:
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, **options)
        best = min(best, time.perf_counter() - started)
    return best


MAIN_JOBS = (
    # file, target, metric, bound on it, whether higher is better, limit in seconds
    ("adult.csv.gz", "income", "accuracy", 0.850, True, 180),
    ("diamonds.csv.gz", "price", "rmse", 620, False, None),
    ("phoneme.csv", "nasal", "accuracy", 0.86, True, None),
    ("abalone.csv", "rings", "rmse", None, False, None),
    ("titanic.csv", "survived", "accuracy", None, True, None),
    ("penguins.csv", "species", "accuracy", None, True, None),
)


def main_job() -> list[Row]:
    """`slalom train … --seed 0` on the real tables beside this repository, where they are present."""
    rows = []
    for file, target, metric, bound, higher, limit in MAIN_JOBS:
        path = ROOT.parent / "shared" / "data" / file
        if not path.exists():
            continue
        out = ROOT / "demo-out" / f"bench-{Path(file).stem}"
        command = [sys.executable, "-m", "slalom.cli", "train", str(path), "--target", target, "--seed", "0"]
        started = time.perf_counter()
        run = subprocess.run(
            [*command, "--out", str(out), "--overwrite", "--json", "--quiet"],
            capture_output=True,
            text=True,
            check=True,
        )
        result = json.loads(run.stdout)
        score = result["test"][metric]
        rows.append(
            {
                "case": f"slalom train {file}",
                "seconds": time.perf_counter() - started,
                "limit": limit,
                metric: score,
                "bound": bound,
                "met": bound is None or (score >= bound if higher else score <= bound),
                "trees": result["baselines"]["gradient_boosting"][metric],
            }
        )
    return rows


SUITES: dict[str, Callable[[], list[Row]]] = {
    "import": import_time,
    "eager": eager_step.rows,
    "predictions": predictions.rows,
    "main": main_job,
    "train": training.rows,
    "conv": training.image_rows,
    "sequences": training.sequence_rows,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SUITES, default=list(SUITES))
    chosen = parser.parse_args().only
    cpus = len(os.sched_getaffinity(0))
    facts = {"machine": platform.machine(), "cpu": training.cpu(), "cpus": cpus, "python": sys.version}
    print(f"{facts['cpu']}, {facts['cpus']} CPUs, Python {platform.python_version()}")
    report: dict[str, Any] = {"facts": facts}
    for name in chosen:
        report[name] = SUITES[name]()
        if name in ("train", "conv", "sequences"):
            training.show(report[name])
            continue
        for row in report[name]:
            print("  ".join(f"{key} {_short(value)}" for key, value in row.items() if value is not None), flush=True)
    results = ROOT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    (results / f"{'-'.join(chosen)}.json").write_text(json.dumps(report, indent=1) + "\n")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()

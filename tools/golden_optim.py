"""Write tests/golden/optimizers.json and schedulers.json: what PyTorch computes for the rows of the tables.

Run from the checkout, where PyTorch is installed: python tools/golden_optim.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests import schedule_rows, table_optimizers, table_schedules  # noqa: E402 (the checkout must be on the path first)


def write(name: str, content: dict[str, Any]) -> None:
    path = ROOT / "tests" / "golden" / name
    lines = [f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in content.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")


def main() -> None:
    torch.set_num_threads(1)
    found: dict[str, Any] = {"torch": torch.__version__}
    for name, (row, options, problem) in zip(table_optimizers.TORCH_IDS, table_optimizers.TORCH_CASES, strict=True):
        walked = table_optimizers.trajectory(torch, row.name, options, table_optimizers.PROBLEMS[problem])
        found[name] = [[float(f"{x:.9g}") for x in params] for params in walked]
    write("optimizers.json", found)
    found = {"torch": torch.__version__}
    for adapter in table_schedules.SCHEDULERS:
        for i in range(0 if adapter.ours is not None else len(adapter.samples)):
            found[f"{adapter.name} {i}"] = schedule_rows.rates(torch, adapter, i)[schedule_rows.STORED]
    write("schedulers.json", found)


if __name__ == "__main__":
    main()

"""Write tests/golden/lecture.json: the lecture's loop run by PyTorch from Slalom's weights, on Slalom's batches.

Run from the checkout, where PyTorch is installed: python tools/golden_lecture.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.test_lecture import GOLDEN, same, with_pytorch, with_slalom  # noqa: E402 (the checkout must be on the path)


def main() -> None:
    torch.set_num_threads(1)
    run = with_slalom()
    found = with_pytorch(run)
    same(run, found)
    content = {"torch": torch.__version__, "start": run["start"], "order": run["order"], **found}
    lines = [f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in content.items()]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{GOLDEN.relative_to(ROOT)}: {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()

"""Write tests/golden/layers.json and losses.json: PyTorch's results for the rows of the tables, condensed.

Run it where PyTorch is installed, after a change of the tables: ``python tools/golden_layers.py``. Each array is kept
as one number (tests/layer_cases.py), so that the parity of layers and losses is tested where PyTorch is not, too.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path.insert(0, str(TESTS))

from layer_cases import case_id, comparable_cases, condensed, loss_case_id, loss_cases  # noqa: E402
from torch_reference import layer_results, loss_results  # noqa: E402


def write(name: str, results: dict[str, Any]) -> None:
    """One line a case, so that a change of one row is a change of few lines."""
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in results.items())
    (TESTS / "golden" / f"{name}.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    print(f"{name}: {len(results)} cases by PyTorch {torch.__version__}")


def main() -> None:
    warnings.simplefilter("ignore")
    write(
        "layers",
        {
            case_id(row, sample, mode): condensed(layer_results(torch, row, sample, mode, "float64"))
            for row, sample, mode in comparable_cases()
        },
    )
    write(
        "losses",
        {
            loss_case_id(row, i, reduction): condensed(loss_results(torch, row, i, reduction, "float64"))
            for row, i in loss_cases()
            for reduction in ("mean", "none")
        },
    )


if __name__ == "__main__":
    main()

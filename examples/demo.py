"""The main job on a table that is already on this machine: what ``make demo`` runs.

Writes scikit-learn's breast-cancer table as a CSV file and hands it to the ``slalom`` command, as a user would.
"""

from __future__ import annotations

import csv
import os
import shlex
import subprocess
import sys
from pathlib import Path

from sklearn.datasets import load_breast_cancer

OUT = Path("demo-out")


def write_table(path: Path) -> None:
    """Write the 569 tumours, 30 measurements each, with the diagnosis in words."""
    data = load_breast_cancer()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*data.feature_names, "diagnosis"])
        for row, label in zip(data.data.tolist(), data.target, strict=True):
            writer.writerow([*row, data.target_names[label]])


def main() -> int:
    """Write the table, train on it, and return the exit code of the training."""
    table = OUT / "breast_cancer.csv"
    write_table(table)
    model = OUT / "breast_cancer.slalom"
    # The installed command stands beside the interpreter that runs this file, which need not be on the PATH.
    slalom = os.path.relpath(Path(sys.executable).with_name("slalom"))
    command = [slalom, "train", str(table), "--target", "diagnosis", "--seed", "0", "--out", str(model), "--overwrite"]
    print("$", shlex.join(command), flush=True)
    code = subprocess.run(command, check=False).returncode
    if code == 0:
        print(f"\nNext: {shlex.join([slalom, 'show', str(model)])}")
    return code


if __name__ == "__main__":
    sys.exit(main())

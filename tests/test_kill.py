"""SIGKILL at random moments of `slalom train`: every checkpoint stays readable, every resumed run ends the same."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slalom.train.files import load_newest

COMMAND = [sys.executable, "-m", "slalom.cli", "train"]
SLOW_SAVE = """
import sys, time
from slalom.train import files
write = files.os.write
def slow(fd, data):
    n = write(fd, data[: max(1, len(data) // 20)])
    open(sys.argv[1], "w").close()  # tells the killer that a save is under way
    time.sleep(0.004)
    return n
files.os.write = slow
from slalom.cli import main
sys.exit(main(sys.argv[2:]))
"""


def _table(folder: Path) -> Path:
    draw = random.Random(5)
    lines = ["a,b,c,y"]
    for _ in range(600):
        a, b, c = draw.gauss(0, 1), draw.gauss(0, 1), draw.choice("pqr")
        lines.append(f"{a:.5f},{b:.5f},{c},{'yes' if a * b + (c == 'p') + draw.gauss(0, 0.3) > 0.5 else 'no'}")
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    return folder / "t.csv"


def _arguments(table: Path, out: Path) -> list[str]:
    return [str(table), "--target", "y", "--seed", "3", "--epochs", "12", "--out", str(out), "--quiet", "--resume"]


def _sha(out: Path) -> str:
    return json.loads((out / "result.json").read_text())["weights_sha256"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> tuple[Path, str, float]:
    """The table, the weights of a run never interrupted, and how long it took."""
    folder = tmp_path_factory.mktemp("kill")
    table = _table(folder)
    started = time.monotonic()
    subprocess.run([*COMMAND, *_arguments(table, folder / "whole")], check=True)
    return table, _sha(folder / "whole"), time.monotonic() - started


def _kill_once(table: Path, out: Path, seconds: float, draw: random.Random, inside_a_save: bool) -> bool:
    """Start or continue the run and kill it; whether it had still been running."""
    if not inside_a_save:
        process = subprocess.Popen([*COMMAND, *_arguments(table, out)])
        time.sleep(draw.uniform(0.3, 1) * seconds)
    else:
        flag = out.with_suffix(".saving")
        flag.unlink(missing_ok=True)
        process = subprocess.Popen([sys.executable, "-c", SLOW_SAVE, str(flag), "train", *_arguments(table, out)])
        deadline = time.monotonic() + 60
        while not flag.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.15))
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return alive


def _kills(reference, folder: Path, moments: int, seed: int) -> int:
    table, wanted, seconds = reference
    draw = random.Random(seed)
    killed = 0
    for moment in range(moments):
        out = folder / f"run{moment}"
        killed += _kill_once(table, out, seconds, draw, inside_a_save=moment % 2 == 1)
        if (out / "checkpoint.safetensors").exists():
            load_newest([out / "checkpoint.safetensors", out / "checkpoint.previous.safetensors"], kind="checkpoint")
        subprocess.run([*COMMAND, *_arguments(table, out)], check=True)
        assert _sha(out) == wanted, f"moment {moment}: the resumed run ended at other weights"
    return killed


def test_six_kills(reference, tmp_path):
    assert _kills(reference, tmp_path, 6, seed=1) >= 3


@pytest.mark.exhaustive
def test_fifty_kills(reference, tmp_path, keep_result):
    killed = _kills(reference, tmp_path, 50, seed=2)
    assert killed >= 40
    keep_result(f"50 moments, {killed} of them while running: 0 unreadable checkpoints, 50 of 50 at the same weights")

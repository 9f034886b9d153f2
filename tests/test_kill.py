"""SIGKILL at random moments of `slalom train`: every checkpoint stays readable, every resumed run ends the same."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from slalom.train.files import load_newest

NATIVE_BITS = True

DRIVER = """
import sys, time
from pathlib import Path
from slalom.cli import main, train
from slalom.tabular.fitting import Plan
from slalom.train import files

flag, slow_save = Path(sys.argv[1]), int(sys.argv[2])
train.need_baselines = Plan.compare = lambda *arguments: None  # starting scikit-learn takes longer than the training
write, write_atomic, train_plan, saves = files.os.write, files._write_atomic, Plan.train, 0

def begin(plan, **options):
    if not slow_save:
        flag.touch()
    return train_plan(plan, **options)

def save(path, chunks, previous):  # the one save in so many small pieces that it can't be missed
    global saves
    saves += previous is not None  # which only checkpoints have
    if saves == slow_save and previous is not None:
        flag.touch()
        files.os.write = lambda fd, data: (time.sleep(0.002), write(fd, data[:50_000]))[1]
    write_atomic(path, chunks, previous)
    files.os.write = write

Plan.train, files._write_atomic = begin, save
sys.exit(main(sys.argv[3:]))
"""


@dataclass(frozen=True)
class Whole:
    """A run never interrupted: its table, its weights, and the seconds of its training."""

    table: Path
    weights_sha256: str
    seconds: float


def _table(folder: Path) -> Path:
    draw = random.Random(5)
    lines = ["a,b,c,y"]
    for _ in range(400):
        a, b, c = draw.gauss(0, 1), draw.gauss(0, 1), draw.choice("pqr")
        lines.append(f"{a:.5f},{b:.5f},{c},{'yes' if a * b + (c == 'p') + draw.gauss(0, 0.3) > 0.5 else 'no'}")
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    return folder / "t.csv"


def _arguments(table: Path, out: Path) -> list[str]:
    named = ["--target", "y", "--seed", "3", "--epochs", "10", "--out", str(out)]
    return ["train", str(table), *named, "--quiet", "--resume"]


def _start(table: Path, out: Path, slow_save: int = 0) -> subprocess.Popen[bytes]:
    flag = out.with_suffix(".flag")
    flag.unlink(missing_ok=True)
    command = [sys.executable, "-c", DRIVER, str(flag), str(slow_save), *_arguments(table, out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def _wait_for_flag(process: subprocess.Popen[bytes], out: Path) -> None:
    deadline = time.monotonic() + 60
    while not out.with_suffix(".flag").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)


def _sha(out: Path) -> str:
    return json.loads((out / "result.json").read_text())["weights_sha256"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Whole:
    folder = tmp_path_factory.mktemp("kill")
    table = _table(folder)
    subprocess.run([sys.executable, "-m", "slalom.cli", *_arguments(table, folder / "whole")], check=True)
    process = _start(table, folder / "again")
    _wait_for_flag(process, folder / "again")
    started = time.monotonic()
    assert process.wait() == 0
    seconds = time.monotonic() - started
    assert _sha(folder / "again") == _sha(folder / "whole")
    return Whole(table, _sha(folder / "whole"), seconds)


def _kill_once(whole: Whole, out: Path, draw: random.Random, slow_save: int) -> bool:
    """Start a run and kill it; whether it was still running then."""
    process = _start(whole.table, out, slow_save)
    _wait_for_flag(process, out)
    time.sleep(draw.uniform(0, 0.15 if slow_save else 0.9 * whole.seconds))
    alive = process.poll() is None
    process.kill()
    process.wait()
    return alive


def _kill_and_resume(whole: Whole, folder: Path, kills: int, seed: int) -> int:
    """Kill so many runs, every other one inside its first or second save; how many left a checkpoint."""
    draw = random.Random(seed)
    found = 0
    for kill in range(kills):
        slow_save = draw.choice((1, 2)) if kill % 2 else 0
        outs = (folder / f"run{kill}-{attempt}" for attempt in range(10))
        out = next(out for out in outs if _kill_once(whole, out, draw, slow_save))
        checkpoint = out / "checkpoint.safetensors"
        if checkpoint.exists():
            load_newest([checkpoint, out / "checkpoint.previous.safetensors"], kind="checkpoint")
            found += 1
        assert _start(whole.table, out).wait() == 0
        assert _sha(out) == whole.weights_sha256, f"kill {kill}: the resumed run ended at other weights"
    return found


def test_six_kills(whole, tmp_path):
    _kill_and_resume(whole, tmp_path, 6, seed=1)


@pytest.mark.exhaustive
def test_fifty_kills(whole, tmp_path, keep_result):
    found = _kill_and_resume(whole, tmp_path, 50, seed=2)
    assert found >= 10
    keep_result(
        f"50 of 50 runs killed while they ran, 25 of them inside a save; {found} left a checkpoint, 0 of these "
        "unreadable; 50 of 50 resumed runs ended at the weights of the run never killed"
    )

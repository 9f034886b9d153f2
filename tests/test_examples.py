"""The worked examples run, at reduced size, and show what they say they show. (``demo.py`` has tests of its own.)"""

from __future__ import annotations

import math
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NATIVE_BITS = True
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def example(name: str) -> Callable[[list[str]], Any]:
    main: Callable[[list[str]], Any] = runpy.run_path(str(EXAMPLES / name))["main"]
    return main


def test_digits(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    found = example("digits.py")(["--epochs", "30", "--seeds", "1"])
    right, *_, wrong = found.values()
    assert right > 0.85 and wrong < right - 0.1
    printed = capsys.readouterr().out
    assert "6 and 9 wrong" in printed and "augmentation: part of the training step: RandomRotation" in printed


def test_language_model(capsys: pytest.CaptureFixture[str]) -> None:
    loss, bound = example("language_model.py")(["--epochs", "3", "--sentences", "600"])
    assert bound * 0.97 < loss < 2 * bound < math.log(21) / 4
    assert "at night" in capsys.readouterr().out


def test_language_model_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "text.txt"
    path.write_text("to be, or not to be, that is the question. " * 60, encoding="utf-8")
    loss, bound = example("language_model.py")(["--text", str(path), "--epochs", "4"])
    assert loss < 0.3 and bound is None
    assert "2,322 characters to learn from, 15 different ones" in capsys.readouterr().out

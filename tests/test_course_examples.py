"""The programs in examples/course run and arrive at the course's numbers."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

NATIVE_BITS = True
"""Twenty thousand steps: they run as users run them, and are held to the course's numbers."""

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "course"


def program(name: str) -> dict[str, Any]:
    return runpy.run_path(str(FOLDER / f"{name}.py"))


def test_xor_by_hand_and_learned(capsys: pytest.CaptureFixture[str]) -> None:
    assert program("xor")["main"]() == (18, 20)
    assert "by hand: [0, 1, 1, 0]" in capsys.readouterr().out


def test_layers_that_know_only_their_own_rule() -> None:
    assert program("dense_learner")["main"]() < 1e-12


def test_three_regressions(capsys: pytest.CaptureFixture[str]) -> None:
    found = program("regressions")["main"]()
    expected = {
        "linear: gradient at 0": [-23, -10],
        "linear: closed form": [1.5, 1 / 3],
        "linear: descended": [1.5, 1 / 3],
        "logistic: loss at 0": 2.0794415,
        "logistic: gradient at 0": [0, 0.5],
        "softmax: probabilities": [0.659001, 0.242433, 0.098566],
        "softmax: loss": 0.417030,
        "softmax: gradient": [-0.340999, 0.242433, 0.098566],
    }
    assert found.keys() == expected.keys() and "closed form" in capsys.readouterr().out
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], atol=1e-6, err_msg=name)

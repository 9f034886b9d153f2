"""Optimizers that PyTorch lacks or computes in bfloat16, beside the formulas of their papers in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import slalom
from slalom import optim
from tests.table_optimizers import CASE_IDS, CASES, PROBLEMS, Row, walk

Array = np.ndarray
State = dict[str, Array]


def lion(w: Array, g: Array, t: int, state: State, o: dict[str, Any]) -> Array:
    (b1, b2), m = o.get("betas", (0.9, 0.99)), state.get("m", 0 * w)
    direction = np.sign(b1 * m + (1 - b1) * g)
    state["m"] = b2 * m + (1 - b2) * g
    return w - o["lr"] * (direction + o.get("weight_decay", 0.0) * w)


def lamb(w: Array, g: Array, t: int, state: State, o: dict[str, Any]) -> Array:
    (b1, b2), eps = o.get("betas", (0.9, 0.999)), o.get("eps", 1e-6)
    state["m"] = b1 * state.get("m", 0 * w) + (1 - b1) * g
    state["v"] = b2 * state.get("v", 0 * w) + (1 - b2) * g * g
    r = state["m"] / (1 - b1**t) / (np.sqrt(state["v"] / (1 - b2**t)) + eps) + o.get("weight_decay", 0.0) * w
    lengths = np.linalg.norm(w.ravel()), np.linalg.norm(r.ravel())
    return w - o["lr"] * (lengths[0] / lengths[1] if min(lengths) > 0 else 1.0) * r


def muon(w: Array, g: Array, t: int, state: State, o: dict[str, Any]) -> Array:
    mu, (a, b, c) = o.get("momentum", 0.95), o.get("ns_coefficients", (3.4445, -4.775, 2.0315))
    state["b"] = mu * state.get("b", 0 * w) + (1 - mu) * g
    u = (1 - mu) * g + mu * state["b"] if o.get("nesterov", True) else state["b"]
    x = u / max(np.linalg.norm(u), o.get("eps", 1e-7))
    for _ in range(o.get("ns_steps", 5)):
        x = a * x + b * x @ x.T @ x + c * x @ x.T @ x @ x.T @ x
    rows, columns = w.shape
    matched = o.get("adjust_lr_fn") == "match_rms_adamw"
    scale = 0.2 * np.sqrt(max(rows, columns)) if matched else np.sqrt(max(1, rows / columns))
    return w - o["lr"] * (o.get("weight_decay", 0.1) * w + scale * x)


REFERENCES: dict[str, Callable[..., Array]] = {"Lion": lion, "LAMB": lamb, "Muon": muon}
OURS = [(name, case) for name, case in zip(CASE_IDS, CASES, strict=True) if not case[0].torch]


@pytest.mark.parametrize(("row", "options", "problem"), [case for _, case in OURS], ids=[name for name, _ in OURS])
def test_walks_as_the_paper_says(row: Row, options: dict[str, Any], problem: str) -> None:
    task = PROBLEMS[problem]
    params: list[Array] = [p.copy() for p in task.start()]
    states: list[State] = [{} for _ in params]
    counts = [0] * len(params)
    sign = -1.0 if options.get("maximize") else 1.0
    lion_on_float32 = row.name == "Lion" and params[0].dtype == np.float32
    for t, found, _ in walk(slalom, row.name, options, task, steps=30 if lion_on_float32 else 100):
        for i, grad in enumerate(task.gradient(params, t - 1)):
            if grad is None:
                continue
            own = next(own for members, own in task.groups if i in members)
            last = any(i in members for members, _ in task.groups[-1:])
            o = options | own
            o["lr"] *= 0.3 if last and task.change is not None and t - 1 >= task.change else 1.0
            counts[i] += 1
            params[i] = REFERENCES[row.name](params[i], sign * grad, counts[i], states[i], o).astype(params[i].dtype)
        if t in (1, 10, 30, 100):
            for ours, theirs in zip(found, params, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=max(task.tolerance, 1e-9), err_msg=f"step {t}")


def test_muon_is_that_of_pytorch_but_for_bfloat16() -> None:
    torch = pytest.importorskip("torch")
    for options in ({}, {"nesterov": False}, {"adjust_lr_fn": "match_rms_adamw"}):
        walks = [walk(lib, "Muon", {"lr": 0.02, **options}, PROBLEMS["matrices"], steps=20) for lib in (slalom, torch)]
        for (_, ours, _), (_, theirs, _) in zip(*walks, strict=True):
            for a, b in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(a, b, rtol=0, atol=0.02)


def test_muon_takes_matrices_only() -> None:
    bias = slalom.ones(3, requires_grad=True)
    with pytest.raises(slalom.errors.ConfigError, match=r"Muon: a parameter: got shape \(3,\); needed a matrix"):
        optim.Muon([bias])

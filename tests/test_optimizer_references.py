"""Optimizers that PyTorch lacks or computes in bfloat16, beside the formulas of their papers in the table."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np
import pytest

import slalom
from slalom import optim
from tests.table_optimizers import PROBLEMS, State, walk

Array = np.ndarray


# --- ε inside the root, which PyTorch has not ----------------------------------------------------------------------
def _adam(w: Array, g: Array, t: int, s: State, lr: float, eps: float) -> Array:
    s["m"], s["v"] = 0.9 * s.get("m", 0.0 * g) + 0.1 * g, 0.999 * s.get("v", 0.0 * g) + 0.001 * g**2
    return w - lr * s["m"] / (1 - 0.9**t) / np.sqrt(s["v"] / (1 - 0.999**t) + eps)


def _rmsprop(w: Array, g: Array, t: int, s: State, lr: float, eps: float) -> Array:
    s["v"] = 0.99 * s.get("v", 0.0 * g) + 0.01 * g**2
    return w - lr * g / np.sqrt(s["v"] + eps)


def _adagrad(w: Array, g: Array, t: int, s: State, lr: float, eps: float) -> Array:
    s["v"] = s.get("v", 0.0 * g) + g**2
    return w - lr * g / np.sqrt(s["v"] + eps)


INSIDE: dict[str, Callable[[Array, Array, int, State, float, float], Array]] = {
    "Adam": _adam,
    "AdamW": lambda w, g, t, s, lr, eps: _adam(w * (1 - lr * 0.01), g, t, s, lr, eps),
    "RMSprop": _rmsprop,
    "Adagrad": _adagrad,
}


@pytest.mark.parametrize("name", INSIDE)
def test_epsilon_inside_the_root(name: str) -> None:
    w = np.array([1.0, -2.0, 0.5])
    param, state = slalom.tensor(w, requires_grad=True), State()
    optimizer = getattr(optim, name)([param], lr=0.02, eps=1e-2, eps_inside_sqrt=True)
    for t in range(1, 101):
        gradient = w * np.array([1e-3, 0.1, 10.0])
        w = INSIDE[name](w, gradient, t, state, 0.02, 1e-2)
        param.grad = slalom.tensor(gradient)
        optimizer.step()
        np.testing.assert_allclose(param.detach().numpy(), w, rtol=0, atol=1e-12)


def test_every_such_optimizer_is_compared() -> None:
    public = {name: getattr(optim, name) for name in optim.__all__}
    signatures = {name: inspect.signature(value) for name, value in public.items() if isinstance(value, type)}
    assert {name for name, found in signatures.items() if "eps_inside_sqrt" in found.parameters} == INSIDE.keys()


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

"""Models that are called until they become machine code by themselves, and what is seen of it."""

from __future__ import annotations

from typing import Any

import numpy as np

import slalom
from slalom import Tensor, nn, tensor

CALLS = nn.Module._eager_calls


def network() -> nn.Sequential:
    slalom.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Sequential(nn.Linear(8, 8), nn.GELU()), nn.Linear(8, 3))


def rows(n: int = 6) -> Tensor:
    return tensor(np.random.default_rng(n).normal(size=(n, 5)).astype("float32"))


def warmed(model: nn.Module, x: Tensor | None = None) -> nn.Module:
    for _ in range(CALLS):
        model(rows() if x is None else x)
    return model


def runs(model: nn.Module) -> int:
    """How often it was recorded; 0 where it runs operation by operation."""
    return model._native.traces if model.__dict__.get("_native") else 0


def gradients(model: nn.Module, x: Tensor) -> list[np.ndarray]:
    model.zero_grad()
    (model(x) ** 2).sum().backward()
    return [p.grad.numpy().copy() for p in model.parameters() if p.grad is not None]


def close(found: Any, expected: Any) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)

"""A small training task whose step is run eagerly and recorded, and what is asked of a record."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import slalom
from slalom import Tensor, nn, optim, tensor
from slalom.compiler.stage import Compiled


def ops(step: Compiled) -> list[str]:
    """The names of the recorded primitives."""
    return [eq.prim.name for eq in step.graph.equations]


def places(step: Compiled, kind: str) -> list[str]:
    """The names of the inputs and outputs of one kind."""
    return [place.name for place in (*step.graph.inputs, *step.graph.outputs) if place.kind == kind]


def leaf(*values: float) -> Tensor:
    return tensor(list(values), requires_grad=True)


class Task(NamedTuple):
    """A small network with dropout, its optimizer and a batch."""

    model: nn.Module
    optimizer: optim.Optimizer
    step: Callable[[Tensor, Tensor], Tensor]
    x: Tensor
    y: Tensor


def make_task(zero_grad: str = "end", dropout: float = 0.5, dtype: str = "float32") -> Task:
    slalom.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 1), nn.Sigmoid())
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    criterion = nn.BCELoss()

    def step(x: Tensor, y: Tensor) -> Tensor:
        if zero_grad == "start":
            optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        if zero_grad == "end":
            optimizer.zero_grad()
        return loss

    rng = np.random.default_rng(0)
    x = rng.standard_normal((32, 3)).astype(np.float32)
    return Task(model, optimizer, step, tensor(x), tensor((x[:, :1] > 0).astype(np.float32)))

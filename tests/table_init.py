"""THE table of initialisers: calls of each, beside PyTorch's. What is tested of them stands in test_init.py."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import slalom
from slalom.nn import init

Array = np.ndarray[Any, Any]

WIDE, TALL, KERNEL = (300, 200), (100, 500), (64, 16, 5, 5)
FILLS: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [  # name, shape, options
    ("uniform_", WIDE, {}),
    ("uniform_", TALL, {"a": -1.0, "b": 3.0}),
    ("normal_", WIDE, {"mean": 0.5, "std": 0.2}),
    ("trunc_normal_", WIDE, {}),
    ("trunc_normal_", TALL, {"mean": 0.1, "std": 0.02, "a": 0.08, "b": 0.2}),
    ("xavier_uniform_", WIDE, {}),
    ("xavier_uniform_", KERNEL, {"gain": 1.7}),
    ("xavier_normal_", TALL, {"gain": 0.5}),
    ("kaiming_uniform_", KERNEL, {"nonlinearity": "relu"}),
    ("kaiming_uniform_", TALL, {"a": 0.3, "mode": "fan_out"}),
    ("kaiming_normal_", WIDE, {"a": 0.5}),
    ("kaiming_normal_", KERNEL, {"mode": "fan_out", "nonlinearity": "selu"}),
    ("orthogonal_", WIDE, {"gain": 2.0}),
    ("orthogonal_", KERNEL, {}),
    ("sparse_", WIDE, {"sparsity": 0.25, "std": 0.1}),
    ("sparse_", TALL, {"sparsity": 0.9}),
]
EXACT: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("constant_", (2, 3), {"val": 1.5}),
    ("zeros_", (3,), {}),
    ("ones_", (3, 2), {}),
    ("eye_", (3, 5), {}),
    ("eye_", (4, 2), {}),
    ("dirac_", (4, 3, 3), {}),
    ("dirac_", (4, 3, 4), {"groups": 2}),
    ("dirac_", (2, 5, 2, 3), {}),
    ("dirac_", (6, 2, 1, 3, 3), {"groups": 3}),
]
OURS = ("lsuv_", "output_bias_")
"""Set from data, and not in PyTorch: their tests hold them to what they promise."""
MOMENT, DISTANCE = 4.0, 2.2
"""What chance may make of two samples of one distribution: see ``moments`` and ``distance``."""


def filled(torch: Any, name: str, shape: tuple[int, ...], options: dict[str, Any]) -> tuple[Array, Array]:
    """What Slalom and PyTorch fill a tensor with."""
    torch.manual_seed(0)
    slalom.manual_seed(0)
    theirs = getattr(torch.nn.init, name)(torch.empty(shape), **options).numpy()
    return getattr(init, name)(slalom.empty(shape), **options).numpy(), theirs


def moments(ours: Array, theirs: Array) -> list[tuple[float, float]]:
    """How far the first four moments are apart, relative to PyTorch's moments of magnitudes; and in standard errors.

    They are of numbers over PyTorch's standard deviation. By chance they are more than 4 standard errors apart once in
    16,000 times (and the seeds are fixed).
    """
    ours, theirs = (a.astype(float).ravel() for a in (ours, theirs))
    spread, found = theirs.std(), []
    for power in (1, 2, 3, 4):
        mine, other = ((a / spread) ** power for a in (ours, theirs))
        apart = abs(mine.mean() - other.mean())
        error = math.sqrt(2 / mine.size) * max(other.std(), 1e-3)
        found.append((apart / np.abs(other).mean(), apart / error))
    return found


def distance(ours: Array, theirs: Array) -> float:
    """Kolmogorov and Smirnov's, times √(n/2): more than 2.2 by chance once in 10,000 times."""
    ours, theirs = (np.sort(a, axis=None) for a in (ours, theirs))
    both = np.concatenate([ours, theirs])
    gap = np.searchsorted(ours, both, "right") - np.searchsorted(theirs, both, "right")
    return float(np.abs(gap).max() / ours.size / math.sqrt(2 / ours.size))

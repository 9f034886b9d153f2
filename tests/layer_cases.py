"""The numbers that layers and losses are tested with, and how results are condensed for the golden files.

Pure NumPy, so that the script that asks PyTorch (tools/golden_layers.py) and the tests see the very same values.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from table_layers import TABLE, Row, Sample
from table_losses import LOSSES, LossRow

Array = np.ndarray[Any, Any]


def _generator(*names: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(names).encode()))


def sample_input(row: str, sample: Sample, draw: int = 0) -> Array:
    """A sample's values: float64, or int64 for indices."""
    rng, shape = _generator(row, sample.shape, sample.how, draw), sample.shape
    if sample.how == "index":
        return rng.integers(0, sample.below, shape)
    if sample.how == "transposed":
        return np.asarray(rng.normal(size=shape[::-1])).T
    if sample.how == "strided":
        return rng.normal(size=(*shape[:-1], 2 * shape[-1]))[..., ::2]
    values = np.asarray(rng.normal(size=shape))
    if sample.how == "kink":
        values[..., ::2] = 0.0
    return np.asarray(values * {"large": 1000, "huge": 1e4}.get(sample.how, 1))


def state_values(row: Row) -> dict[str, Array]:
    """A value for each entry of a row's state dict."""
    made = {}
    for name, shape in row.state.items():
        rng = _generator(row.id, name)
        if name.endswith("num_batches_tracked"):
            made[name] = np.array(3)
        elif name.endswith("running_var"):
            made[name] = rng.uniform(0.5, 2.0, shape)
        else:
            made[name] = rng.normal(size=shape)
    return made


def loss_values(row: LossRow, i: int, draw: int = 0) -> tuple[Array, Array, list[Array]]:
    """Input, target and weights of a row's i-th sample."""
    sample = row.samples[i]
    shape, axis = sample.shape, 1 if len(sample.shape) > 1 else 0
    source = Sample(shape, sample.how)
    values = sample_input(row.id, source, draw)
    other = sample_input(row.id, source, draw + 100)
    if sample.input == "probability":
        values = 1 / (1 + np.exp(-values))
    elif sample.input == "log":
        values = np.log(_softmax(values, axis))
    classes = (*shape[:axis], *shape[axis + 1 :])
    rng = _generator(row.id, i, "target")
    if sample.target == "binary":
        other = (other > 0).astype(np.float64)
    elif sample.target == "rate":
        other = 1 / (1 + np.exp(-other))
    elif sample.target == "classes":
        other = _softmax(other, axis)
    elif sample.target in ("class", "some"):
        other = np.asarray(rng.integers(0, shape[axis], classes))
        if sample.target == "some":
            other.flat[-1:] = -7  # the rows' ignore_index
    weights = [_generator(row.id, n, "weight").uniform(0.5, 2.0, w) for n, w in enumerate(row.weights)]
    return np.asarray(values), np.asarray(other), weights


def _softmax(x: Array, axis: int) -> Array:
    powers = np.exp(x)
    return powers / powers.sum(axis, keepdims=True)


def layer_cases() -> Iterator[tuple[Row, Sample, str]]:
    """Each row with each sample in each mode."""
    return ((row, sample, mode) for row in TABLE for sample in row.samples for mode in sample.modes)


def loss_cases() -> Iterator[tuple[LossRow, int]]:
    """Each loss row with the number of each of its samples."""
    return ((row, i) for row in LOSSES for i in range(len(row.samples)))


def case_id(row: Row, sample: Sample, mode: str) -> str:
    return f"{row.id}:{'x'.join(map(str, sample.shape)) or 'scalar'}:{sample.how}:{mode}"


def loss_case_id(row: LossRow, i: int, reduction: str) -> str:
    sample = row.samples[i]
    return f"{row.id}:{'x'.join(map(str, sample.shape)) or 'scalar'}:{i}:{reduction}"


def cotangent(shape: tuple[int, ...]) -> Array:
    """Fixed weights of an output's elements, to make it a scalar."""
    return np.asarray(_generator("cotangent", shape).uniform(0.5, 1.5, shape))


def condensed(results: Mapping[str, Array]) -> dict[str, float]:
    """Each array as one number: its elements' sum with fixed random weights, in which no single change gets lost."""
    return {name: float((np.asarray(a, np.float64) * cotangent(np.shape(a))).sum()) for name, a in results.items()}

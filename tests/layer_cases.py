"""The numbers that layers and losses are tested with, and how results are condensed for the golden files.

Pure NumPy, so that the script that asks PyTorch (tools/golden_layers.py) and the tests see the very same values.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from layer_rows import Row, Sample
from loss_rows import Given, LossRow
from table_layers import TABLE
from table_losses import LOSSES

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


DIFFERENTIABLE = ("real", "probability", "positive", "log", "rate", "classes", "rising", "binary", "lower")
"""Kinds of inputs of losses that derivatives are taken of."""


def loss_values(row: LossRow, i: int, draw: int = 0) -> tuple[list[Array], list[Array]]:
    """Inputs (the input, the target, and what else the loss takes) and weights of a row's i-th sample."""
    sample = row.samples[i]
    given = (Given(sample.input), Given(sample.target), *sample.extra)
    values = []
    for n, (kind, shape) in enumerate(given):
        source = Sample(sample.shape if shape is None else shape, sample.how if shape is None else "plain")
        values.append(np.asarray(_of_kind(row, i, kind, sample_input(row.id, source, draw + 100 * n), source.shape)))
    weights = [_generator(row.id, n, "weight").uniform(0.5, 2.0, w) for n, w in enumerate(row.weights)]
    return values, weights


def learned(row: LossRow, i: int) -> list[int]:
    """The inputs whose gradients are compared: the first, and all others where there are more than two."""
    sample = row.samples[i]
    kinds = (sample.input, sample.target, *(extra.kind for extra in sample.extra))
    return [n for n, kind in enumerate(kinds) if kind in DIFFERENTIABLE and (not n or sample.extra)]


def _of_kind(row: LossRow, i: int, kind: Any, values: Array, shape: tuple[int, ...]) -> Any:
    """Normal numbers made to be of a kind."""
    axis = 1 if len(shape) > 1 else 0
    rng = _generator(row.id, i, "target")
    if not isinstance(kind, str):
        return np.asarray(kind)
    if kind in ("probability", "rate"):
        return 1 / (1 + np.exp(-values))
    if kind == "positive":
        return np.exp(values)
    if kind == "log":
        return np.log(_softmax(values, axis))
    if kind == "classes":
        return _softmax(values, axis)
    if kind == "binary":
        return (values > 0).astype(np.float64)
    if kind == "sign":
        return np.where(values > 0, 1.0, -1.0)
    if kind == "sign-rows":
        return np.where(values.sum(-1) > 0, 1.0, -1.0)
    if kind == "lower":
        return values.sum(-1)
    if kind == "count":
        return np.floor(np.exp(values) * 2)
    if kind == "rising":
        return np.cumsum(np.exp(values), -1) - 1.5
    if kind == "listed":
        return np.where(np.cumsum(rng.uniform(size=shape) < 0.4, -1) > 0, -1, rng.integers(0, shape[-1], shape))
    if kind == "level":
        return rng.integers(0, 4, shape)
    if kind in ("class", "some"):
        numbers = np.asarray(rng.integers(0, shape[axis], (*shape[:axis], *shape[axis + 1 :])))
        if kind == "some":
            numbers.flat[-1:] = -7  # the rows' ignore_index
        return numbers
    return values


def _softmax(x: Array, axis: int) -> Array:
    powers = np.exp(x)
    return powers / powers.sum(axis, keepdims=True)


def layer_cases() -> Iterator[tuple[Row, Sample, str]]:
    """Each row with each sample in each mode."""
    return ((row, sample, mode) for row in TABLE for sample in row.samples for mode in sample.modes)


def comparable_cases() -> Iterator[tuple[Row, Sample, str]]:
    """Those in which nothing is drawn, so that PyTorch's numbers are the same."""
    return (case for case in layer_cases() if not (case[0].random and case[2] == "train"))


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

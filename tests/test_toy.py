"""Toy problems: shapes, seeds, and that each is the problem its name says."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from slalom import nn, optim
from slalom.data import toy
from slalom.errors import ConfigError
from slalom.train import Trainer

CLASSES = [name for name in toy.TOYS if name != "linear"]
each = pytest.mark.parametrize("name", toy.TOYS)


def test_all_have_a_place_in_the_table() -> None:
    assert {*toy.TOYS, "TOYS"} == set(toy.__all__)


@each
@pytest.mark.parametrize("n", [1, 2, 7, 500])
def test_shapes(name: str, n: int) -> None:
    x, y = toy.TOYS[name](n)
    assert x.shape == (n, 2) and x.dtype == np.float32 and y.shape == (n,)
    assert y.dtype == (np.float32 if name == "linear" else np.int64)
    assert np.abs(x).max() < 1.6 and x.flags.c_contiguous
    if name != "linear":
        counts = np.bincount(y, minlength=2)
        assert counts.max() - counts.min() <= 1


@each
def test_the_same_seed_gives_the_same_points(name: str) -> None:
    make = toy.TOYS[name]
    (x, y), (again, labels), (other, _) = make(50, seed=3), make(50, seed=3), make(50, seed=4)
    assert np.array_equal(x, again) and np.array_equal(y, labels) and not np.array_equal(x, other)
    assert len(np.unique(x, axis=0)) == 50


def test_moons_and_circles_lie_on_their_curves() -> None:
    x, y = toy.moons(400, noise=0)
    upper = x[y == 0] * 1.5 + [0.5, 0.25]
    lower = x[y == 1] * 1.5 + [0.5, 0.25]
    np.testing.assert_allclose(np.hypot(*upper.T), 1, atol=1e-5)
    np.testing.assert_allclose(np.hypot(*(lower - [1, 0.5]).T), 1, atol=1e-5)
    assert upper[:, 1].min() > -1e-5 and lower[:, 1].max() < 0.5 + 1e-5
    x, y = toy.circles(400, noise=0, factor=0.4)
    np.testing.assert_allclose(np.hypot(*x.T), np.where(y == 0, 0.9, 0.36), atol=1e-6)


def test_spirals_have_an_arm_for_each_class() -> None:
    x, y = toy.spirals(600, noise=0, classes=3, turns=1.5)
    radius, angle = np.hypot(*x.T), np.arctan2(*x.T)
    whole = (angle / (2 * math.pi) - 1.5 * radius - y / 3) % 1
    assert np.minimum(whole, 1 - whole).max() < 1e-4
    assert np.bincount(y).tolist() == [200] * 3 and 0.09 < radius.min() < radius.max() <= 1


def test_xor_is_decided_by_signs() -> None:
    x, y = toy.xor(1000, noise=0)
    assert np.array_equal(y, (x[:, 0] * x[:, 1] < 0).astype(int)) and np.abs(x).min() >= 0.05
    quarters, counts = np.unique(np.sign(x), axis=0, return_counts=True)
    assert len(quarters) == 4 and counts.min() > 200


def test_gaussians_have_their_middles_and_spread() -> None:
    x, y = toy.gaussians(6000, noise=0.3, classes=4)
    middles = np.array([x[y == k].mean(0) for k in range(4)])
    a = 0.6 * math.sqrt(0.5)
    np.testing.assert_allclose(middles, [[a, a], [-a, a], [-a, -a], [a, -a]], atol=0.04)
    np.testing.assert_allclose([x[y == k].std(0) for k in range(4)], 0.3, atol=0.02)


def test_linear_is_a_plane() -> None:
    x, y = toy.linear(3000, noise=0.2)
    weights, (residual,), *_ = np.linalg.lstsq(np.c_[x, np.ones(3000)], y)
    np.testing.assert_allclose(weights, [2, -1, 0.5], atol=0.03)
    assert math.sqrt(residual / 3000) == pytest.approx(0.2, rel=0.05)
    x, y = toy.linear(noise=0)
    np.testing.assert_allclose(y, 2 * x[:, 0] - x[:, 1] + 0.5, rtol=1e-5)


def accuracy(name: str, model: nn.Module) -> float:
    trainer = Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optim.Adam(model.parameters(), lr=0.02))
    trainer.fit(toy.TOYS[name](400), batch_size=64, epochs=150, progress=False)
    x, y = toy.TOYS[name](400, seed=1)
    return float((trainer.predict(x).argmax(-1) == y).mean())


@pytest.mark.parametrize("name", CLASSES)
def test_a_small_network_learns_it_and_a_line_only_what_is_linear(name: str) -> None:
    network = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 2))
    assert accuracy(name, network) > 0.93
    line = accuracy(name, nn.Linear(2, 2))
    assert line > 0.93 if name == "gaussians" else line < 0.92


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: toy.moons(0), "moons: n: got 0; needed an integer of at least 1"),
        (lambda: toy.xor(2.5), "xor: n: got 2.5"),  # type: ignore[arg-type]
        (lambda: toy.linear(noise=-1), "linear: noise: got -1; needed a finite number of at least 0"),
        (lambda: toy.spirals(classes=1), "spirals: classes: got 1; needed an integer of at least 2"),
        (lambda: toy.gaussians(classes=True), "gaussians: classes: got True"),
        (lambda: toy.circles(factor=1.0), "circles: factor: got 1.0; needed a number between 0 and 1"),
        (lambda: toy.circles(seed="a"), "seed: got 'a'; needed an integer"),  # type: ignore[arg-type]
    ],
)
def test_mistakes(call: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()

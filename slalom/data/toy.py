"""Small two-dimensional problems to look at: seeded, so that the same call gives the same points.

Each function returns (X, y) as arrays: X float32 (n, 2) within about −1 … 1, and y class numbers int64 (n,), or values
float32 (n,) where it is a regression. Classes take turns, so that they are as equal in number as n allows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np

from slalom.core.primitive import Array
from slalom.core.random import Generator, rand, randn
from slalom.errors import ConfigError

__all__ = ["TOYS", "circles", "gaussians", "linear", "moons", "spirals", "xor"]

Points = tuple[Array, Array]


class _Draws:
    """Random numbers of one problem, checked options."""

    def __init__(self, name: str, n: int, noise: float, seed: int, classes: int = 2) -> None:
        for what, value, least in (("n", n, 1), ("classes", classes, 2)):
            if type(value) is not int or value < least:
                raise ConfigError(f"{name}: {what}", got=repr(value), needed=f"an integer of at least {least}")
        if not 0 <= noise < math.inf:
            raise ConfigError(f"{name}: noise", got=repr(noise), needed="a finite number of at least 0")
        self.n, self.noise = n, noise
        self.labels = np.arange(n, dtype=np.int64) % classes
        self._generator = Generator(seed)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Array:
        return rand(*shape, generator=self._generator, dtype="float64").numpy() * (high - low) + low

    def normal(self, *shape: int) -> Array:
        return randn(*shape, generator=self._generator, dtype="float64").numpy()

    def points(self, x: Array, y: Array) -> Points:
        """The coordinates as columns, with noise."""
        plane = np.stack([x, y], 1)
        return (plane + self.normal(self.n, 2) * self.noise).astype(np.float32), self.labels


def moons(n: int = 200, noise: float = 0.1, seed: int = 0) -> Points:
    """Two half circles, one reaching into the other.

    >>> X, y = moons(4, noise=0.0)
    >>> X.shape, y.tolist()
    ((4, 2), [0, 1, 0, 1])
    """
    draws = _Draws("moons", n, noise, seed)
    angle = draws.uniform(n, high=math.pi)
    upper = draws.labels == 0
    x = np.where(upper, np.cos(angle), 1 - np.cos(angle)) - 0.5
    y = np.where(upper, np.sin(angle), 0.5 - np.sin(angle)) - 0.25
    return draws.points(x / 1.5, y / 1.5)


def circles(n: int = 200, noise: float = 0.05, seed: int = 0, factor: float = 0.5) -> Points:
    """A circle of radius 0.9 (class 0) around one that is ``factor`` times as large. Raises: ConfigError."""
    if not 0 < factor < 1:
        raise ConfigError("circles: factor", got=repr(factor), needed="a number between 0 and 1")
    draws = _Draws("circles", n, noise, seed)
    angle = draws.uniform(n, high=2 * math.pi)
    radius = 0.9 * np.where(draws.labels == 0, 1.0, factor)
    return draws.points(radius * np.cos(angle), radius * np.sin(angle))


def spirals(n: int = 300, noise: float = 0.03, seed: int = 0, classes: int = 2, turns: float = 1.25) -> Points:
    """One arm for each class, wound about the middle ``turns`` times; evenly spread along its length.

    Source: K. Lang and M. Witbrock, Learning to tell two spirals apart, 1988.
    """
    draws = _Draws("spirals", n, noise, seed, classes)
    radius = np.sqrt(draws.uniform(n, low=0.01))
    angle = 2 * math.pi * (turns * radius + draws.labels / classes)
    return draws.points(radius * np.sin(angle), radius * np.cos(angle))


def xor(n: int = 200, noise: float = 0.05, seed: int = 0) -> Points:
    """Class 1 where the signs of the two inputs differ: no straight line tells the classes apart.

    Points keep a distance of 0.05 from the axes, before the noise.
    """
    draws = _Draws("xor", n, noise, seed)
    x, y = draws.uniform(2, n, low=0.05)
    right = np.where(draws.uniform(n) < 0.5, 1.0, -1.0)
    return draws.points(x * right, y * np.where(draws.labels == 1, -right, right))


def gaussians(n: int = 200, noise: float = 0.2, seed: int = 0, classes: int = 2) -> Points:
    """A round cloud for each class, with middles on a circle of radius 0.6; ``noise`` is the standard deviation."""
    draws = _Draws("gaussians", n, noise, seed, classes)
    angle = 2 * math.pi * draws.labels / classes + math.pi / 4
    return draws.points(0.6 * np.cos(angle), 0.6 * np.sin(angle))


def linear(n: int = 100, noise: float = 0.1, seed: int = 0) -> Points:
    """A regression: y = 2·x₁ − x₂ + 0.5 + noise·ε, with x uniform in −1 … 1 and ε standard normal."""
    draws = _Draws("linear", n, noise, seed)
    x = draws.uniform(n, 2, low=-1.0).astype(np.float32)
    y = x @ np.array([2.0, -1.0]) + 0.5 + noise * draws.normal(n)
    return x, y.astype(np.float32)


TOYS: Final[dict[str, Callable[..., Points]]] = {
    "spirals": spirals, "moons": moons, "circles": circles, "xor": xor, "gaussians": gaussians, "linear": linear,
}  # fmt: skip
"""All of them by name."""

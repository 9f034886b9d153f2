"""Augmentations that move pixels between grid points: rotation, translation, scaling and shear, as one affine map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from slalom.core.dtype import float32, float64, int32
from slalom.core.functional.padding import pad
from slalom.core.functional.shaping import stack
from slalom.core.tensor import Tensor
from slalom.data.augment.base import OfInput, images, interval, per_row
from slalom.data.augment.images import columns_of, picked, rows_of
from slalom.errors import ConfigError, ShapeError

__all__ = ["RandomAffine", "RandomRotation", "affine"]

STEPS: Final = 1024
"""Coordinates are rounded to this part of a pixel, so that right angles and whole shifts are exact."""
MODES: Final = ("bilinear", "nearest")


def affine(x: Tensor, matrix: Tensor, *, interpolation: str = "bilinear", fill: float = 0.0) -> Tensor:
    """Images seen through affine maps, one an image: out[c, i, j] = x[c, v, u] with (u, v) = M·(j, i, 1).

    Coordinates are those of pixels: u to the right, v downwards, both from 0. Between pixels the four neighbours are
    weighted by how near they are, or the nearest one is taken; beyond the image everything is ``fill``.

    Shapes: x (B, C, H, W), matrix (B, 2, 3) → (B, C, H, W).
    Raises: ShapeError, DTypeError; ConfigError for another interpolation.
    Note: coordinates are rounded to 1/1024 of a pixel.

    >>> right = Tensor([[[1.0, 0.0, -1.0], [0.0, 1.0, 0.0]]])
    >>> affine(Tensor([[[[1.0, 2.0, 3.0]]]]), right)
    tensor([[[[0., 1., 2.]]]])
    """
    _check_mode("affine", interpolation)
    images("affine", x, floating=True)
    if matrix.shape != (x.shape[0], 2, 3):
        raise ShapeError("affine: matrix", got=matrix.shape, needed=f"({x.shape[0]}, 2, 3), one for each image")
    height, width = x.shape[2:]
    across, down, shift = (matrix[:, :, k].to(float32).reshape(-1, 2, 1, 1) for k in range(3))
    where_to = across * columns_of(x) + down * rows_of(x) + shift  # (B, 2, H, W)
    v, dv = _split(where_to[:, 1:], height, interpolation)
    u, du = _split(where_to[:, :1], width, interpolation)
    padded = pad(x, (1, 2, 1, 2), value=fill)
    if interpolation == "nearest":
        return picked(padded, v, u)
    dv, du = dv.to(x.dtype), du.to(x.dtype)
    above, below = (
        picked(padded, v + k, u) * (1 - du) + picked(padded, v + k, u + 1) * du  # (B, C, H, W)
        for k in (0, 1)
    )
    return above * (1 - dv) + below * dv


def _split(place: Tensor, n: int, interpolation: str) -> tuple[Tensor, Tensor]:
    """The pixel before each coordinate, counted in the padded image, and how far it is from there, 0 to 1."""
    steps = 1 if interpolation == "nearest" else STEPS
    inside = (place + 1).clamp(0.0, float(n + 1))  # beyond, only the padding is seen
    rounded = (inside * float(steps) + 0.5).floor() * (1 / steps)
    before = rounded.floor()
    return before.to(int32), rounded - before


def _check_mode(what: str, interpolation: Any) -> None:
    if interpolation not in MODES:
        raise ConfigError(f"{what}: interpolation", got=repr(interpolation), needed=" or ".join(map(repr, MODES)))


@dataclass(frozen=True)
class RandomAffine(OfInput):
    """Each image rotated, moved, scaled and sheared about its middle, by random amounts.

    p' = c + t + R(θ)·Y(φᵧ)·X(φₓ)·s·(p − c), where c is the middle, and X, Y shear along the axes:
    X(φ) = (1, −tan φ; 0, 1), Y(φ) = (1, 0; −tan φ, 1).

    ``degrees``: n for angles θ from −n to n, or (low, high); clockwise. ``translate``: (a, b), by up to a·W to the
    sides and b·H up and down, in whole pixels. ``scale``: (low, high). ``shear``: n, (low, high) for φₓ in degrees, or
    four numbers for φₓ and φᵧ. What comes from outside is ``fill``.

    Shapes: (B, C, H, W). Raises: ShapeError, DTypeError; ConfigError.
    Note: torchvision takes the nearest pixel by default; here the four neighbours are interpolated.
    Note: what can go wrong: under rotation 6 becomes 9 and N becomes Z, a chequered texture blurs, and ``fill`` leaves
    corners that the network may learn to see; a large translation moves the object out of the image, with its label.
    """

    degrees: float | Sequence[float]
    translate: Sequence[float] | None = None
    scale: Sequence[float] | None = None
    shear: float | Sequence[float] | None = None
    interpolation: str = "bilinear"
    fill: float = 0.0

    def __post_init__(self) -> None:
        self._angles()
        self._shears()
        moves = self.translate
        if moves is not None and (len(moves) != 2 or not all(0 <= part <= 1 for part in moves)):
            raise ConfigError("RandomAffine: translate", got=repr(moves), needed="two shares of the size, 0 to 1")
        if self.scale is not None and interval("RandomAffine: scale", self.scale, least=0)[0] <= 0:
            raise ConfigError("RandomAffine: scale", got=repr(self.scale), needed="factors above 0")
        _check_mode("RandomAffine", self.interpolation)

    def _angles(self) -> tuple[float, float]:
        return interval("RandomAffine: degrees", self.degrees, around=0.0)

    def _shears(self) -> tuple[tuple[float, float], tuple[float, float]]:
        shear = self.shear
        none = (0.0, 0.0)
        if shear is None:
            return none, none
        pairs = [shear[:2], shear[2:]] if isinstance(shear, (tuple, list)) and len(shear) == 4 else [shear]
        bounds = [interval("RandomAffine: shear", pair, around=0.0) for pair in pairs]
        if any(abs(angle) >= 90 for pair in bounds for angle in pair):
            raise ConfigError("RandomAffine: shear", got=repr(shear), needed="angles between −90 and 90 degrees")
        return bounds[0], bounds[1] if len(bounds) > 1 else none

    def input(self, x: Tensor) -> Tensor:
        images("RandomAffine", x, floating=True)
        height, width = x.shape[2:]
        turn = _drawn(x, self._angles()) * (math.pi / 180)
        slant, tilt = (_drawn(x, pair) * (math.pi / 180) for pair in self._shears())
        size = _drawn(x, self.scale or (1.0, 1.0))
        a, b = self.translate or (0.0, 0.0)
        right, down = ((_drawn(x, (-part, part)) + 0.5).floor() for part in (a * width, b * height))
        cos, sin, tan_x, tan_y = turn.cos(), turn.sin(), slant.tan(), tilt.tan()
        # The inverse, X⁻¹·Y⁻¹·R⁻¹ / s, since every pixel of the result looks up where it comes from.
        lower = (tan_y * cos - sin, tan_y * sin + cos)
        upper = (cos + tan_x * lower[0], sin + tan_x * lower[1])
        middle = ((width - 1) / 2, (height - 1) / 2)
        away = (right + middle[0], down + middle[1])
        rows = []
        for (m, n), c in zip((upper, lower), middle, strict=True):
            m, n = m / size, n / size
            rows.append(stack([m, n, c - m * away[0] - n * away[1]], 1))
        return affine(x, stack(rows, 1), interpolation=self.interpolation, fill=self.fill)


def _drawn(x: Tensor, bounds: Sequence[float]) -> Tensor:
    """A number for each image, (B,), in float64: its errors must stay far below a pixel."""
    return per_row(x[:, 0, 0, 0], bounds[0], bounds[1], dtype=float64)


@dataclass(frozen=True)
class RandomRotation(OfInput):
    """Each image rotated about its middle by a random angle: n for −n to n degrees, or (low, high); anticlockwise.

    Shapes: (B, C, H, W). Raises: ShapeError, DTypeError; ConfigError.
    Note: anticlockwise as in torchvision, whose RandomAffine turns clockwise; it takes the nearest pixel by default,
    here the four neighbours are interpolated.
    Note: what can go wrong: 6 and 9 under rotation: at 180° one is the other, and both keep their labels. Keep angles
    of characters below about 20°.

    >>> RandomRotation((90, 90))(Tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
    tensor([[[[2., 4.],
              [1., 3.]]]])
    """

    degrees: float | Sequence[float]
    interpolation: str = "bilinear"
    fill: float = 0.0

    def __post_init__(self) -> None:
        interval("RandomRotation: degrees", self.degrees, around=0.0)
        _check_mode("RandomRotation", self.interpolation)

    def input(self, x: Tensor) -> Tensor:
        images("RandomRotation", x, floating=True)
        low, high = interval("RandomRotation: degrees", self.degrees, around=0.0)
        return RandomAffine((-high, -low), interpolation=self.interpolation, fill=self.fill).input(x)

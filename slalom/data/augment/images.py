"""Augmentations of images that keep pixels on their grid: flips, crops, erased parts, noise, brightness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slalom.core.dtype import float32, int32
from slalom.core.functional.arithmetic import where
from slalom.core.functional.creation import arange
from slalom.core.ops.reductions import GATHER
from slalom.core.random import randint
from slalom.core.tensor import Tensor, apply
from slalom.data.augment.base import OfInput, amount, floats, images, interval, noise, per_row, probability
from slalom.errors import ConfigError, ShapeError

__all__ = [
    "ColorJitter", "Cutout", "GaussianNoise", "RandomCrop", "RandomErasing", "RandomHorizontalFlip",
    "RandomVerticalFlip", "columns_of", "picked", "rows_of",
]  # fmt: skip


def rows_of(x: Tensor, dtype: Any = float32) -> Tensor:
    """The number of each row of pixels: (1, 1, H, 1)."""
    return arange(x.shape[2], dtype=dtype).reshape(1, 1, -1, 1)


def columns_of(x: Tensor, dtype: Any = float32) -> Tensor:
    """The number of each column of pixels: (1, 1, 1, W)."""
    return arange(x.shape[3], dtype=dtype).reshape(1, 1, 1, -1)


def picked(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The pixels of each image at whole coordinates inside it, alike in all channels.

    Shapes: x (B, C, H, W); rows and columns broadcast to (B, 1, h, w) → (B, C, h, w).
    """
    shape = (*x.shape[:2], rows.shape[2], columns.shape[3])
    image, channel = arange(shape[0], dtype=int32).reshape(-1, 1, 1, 1), arange(shape[1], dtype=int32).reshape(-1, 1, 1)
    return apply(GATHER, x, *(index.to(int32).expand(shape) for index in (image, channel, rows, columns)))


# --- flips --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class RandomHorizontalFlip(OfInput):
    """Each image mirrored left to right with probability p: out[c, i, j] = x[c, i, W − 1 − j].

    Shapes: (B, C, H, W). Raises: ShapeError; ConfigError unless 0 ≤ p ≤ 1.
    Note: what can go wrong: a label that depends on the side. Mirrored text cannot be read, b becomes d, a left hand a
    right one, an arrow points the other way; then leave it out.

    >>> RandomHorizontalFlip(p=1.0)(Tensor([[[[1.0, 2.0, 3.0]]]]))
    tensor([[[[3., 2., 1.]]]])
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        probability(f"{type(self).__name__}: p", self.p)

    def input(self, x: Tensor) -> Tensor:
        return self._flipped(x, -1)

    def _flipped(self, x: Tensor, axis: int) -> Tensor:
        images(type(self).__name__, x)
        return x.flip(axis).where(per_row(x) < self.p, x)


@dataclass(frozen=True)
class RandomVerticalFlip(RandomHorizontalFlip):
    """Each image turned upside down with probability p: out[c, i, j] = x[c, H − 1 − i, j].

    Shapes: (B, C, H, W). Raises: ShapeError; ConfigError unless 0 ≤ p ≤ 1.
    Note: what can go wrong: where there is an up and a down (photographs, characters) it makes images that never occur,
    or that mean something else: 6 resembles 9, M becomes W. It suits views from above and microscopes.
    """

    def input(self, x: Tensor) -> Tensor:
        return self._flipped(x, -2)


# --- crops --------------------------------------------------------------------------------------------------------
_MODES = ("constant", "edge", "reflect")


@dataclass(frozen=True)
class RandomCrop(OfInput):
    """A part of each image at a random place: out[c, i, j] = x[c, i + top, j + left], after padding.

    ``size``: (height, width), or one number for both. ``padding``: added on all sides, or (left and right, top and
    bottom), or (left, top, right, bottom). ``padding_mode``: "constant" (``fill``), "edge" (the last pixel goes on) or
    "reflect" (mirrored, the last pixel not doubled). With the images' own size and some padding it is a random shift.

    Shapes: (B, C, H, W) → (B, C, height, width).
    Raises: ConfigError for sizes or a mode that are none; ShapeError for images smaller than the crop.
    Note: what can go wrong: a crop without the object keeps its label, and a small one shows objects larger than they
    are at prediction. Prediction needs images of the same size, so cut their middle, or use padding here.
    """

    size: int | Sequence[int]
    padding: int | Sequence[int] = 0
    fill: float = 0.0
    padding_mode: str = "constant"

    def __post_init__(self) -> None:
        whole = _whole_numbers(self.size)
        if len(whole) not in (1, 2) or min(whole) < 1:
            raise ConfigError(
                "RandomCrop: size", got=repr(self.size), needed="a size of at least 1, or (height, width)"
            )
        sides = _whole_numbers(self.padding)
        if len(sides) not in (1, 2, 4) or min(sides) < 0:
            needed = "a width of at least 0, or 2 or 4 of them"
            raise ConfigError("RandomCrop: padding", got=repr(self.padding), needed=needed)
        if self.padding_mode not in _MODES:
            raise ConfigError("RandomCrop: padding_mode", got=repr(self.padding_mode), needed=" or ".join(_MODES))

    def input(self, x: Tensor) -> Tensor:
        images("RandomCrop", x)
        height, width = (_whole_numbers(self.size) * 2)[:2]
        left, top, right, bottom = (_whole_numbers(self.padding) * 4)[:4]
        rows, inside_rows = self._line(x, "height", height, x.shape[2], top, bottom)
        columns, inside_columns = self._line(x, "width", width, x.shape[3], left, right)
        out = picked(x, rows.reshape(-1, 1, height, 1), columns.reshape(-1, 1, 1, width))
        if self.padding_mode != "constant" or not (left or top or right or bottom):
            return out
        inside = inside_rows.reshape(-1, 1, height, 1) & inside_columns.reshape(-1, 1, 1, width)
        return where(inside, out, Tensor(self.fill).to(x.dtype))

    def _line(self, x: Tensor, what: str, size: int, n: int, before: int, after: int) -> tuple[Tensor, Tensor]:
        """Which places along an axis are taken for each image, (B, size), and which of them lie inside."""
        padded = n + before + after
        if size > padded:
            got = f"{n}, {padded} with padding" if before or after else n
            raise ShapeError(f"RandomCrop: {what} of the images", got=got, needed=f"at least {size}, the crop's")
        if self.padding_mode == "reflect" and max(before, after) >= n:
            raise ShapeError(f"RandomCrop: reflected padding of {max(before, after)}", got=f"{what} {n}", needed="more")
        first = randint(0, padded - size + 1, (x.shape[0], 1)) - before
        places = first + arange(size)  # (B, size)
        inside = (places >= 0) & (places < n)
        if self.padding_mode == "reflect":
            return (n - 1) - ((n - 1) - places.abs()).abs(), inside
        return places.clamp(0, n - 1), inside


def _whole_numbers(value: Any) -> list[int]:
    """Whole numbers as a list; one that is empty for anything else."""
    given = list(value) if isinstance(value, (list, tuple)) else [value]
    return given if all(isinstance(n, int) and not isinstance(n, bool) for n in given) else []


# --- erasing ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class RandomErasing(OfInput):
    """With probability p, a rectangle of each image set to ``value``, in all channels.

    Its area is ``scale`` (low, high) times the image's, its height divided by its width is ``ratio`` (low, high), drawn
    evenly on a logarithmic scale; it lies inside the image, at a random place.

    Shapes: (B, C, H, W). Raises: ShapeError; ConfigError.
    Source: Z. Zhong et al., Random Erasing Data Augmentation, 2020, algorithm 1.
    Note: a rectangle longer than the image is cut to it; the paper draws again.
    Note: what can go wrong: the thing that the label is about may be what is erased; keep small objects in mind.
    """

    p: float = 0.5
    scale: Sequence[float] = (0.02, 0.33)
    ratio: Sequence[float] = (0.3, 3.3)
    value: float = 0.0

    def __post_init__(self) -> None:
        probability("RandomErasing: p", self.p)
        if interval("RandomErasing: scale", self.scale, least=0)[1] > 1:
            raise ConfigError("RandomErasing: scale", got=repr(self.scale), needed="shares of the area, at most 1")
        if interval("RandomErasing: ratio", self.ratio, least=0)[0] <= 0:
            raise ConfigError("RandomErasing: ratio", got=repr(self.ratio), needed="height / width, above 0")

    def input(self, x: Tensor) -> Tensor:
        images("RandomErasing", x)
        erased = per_row(x) < self.p
        area = per_row(x, *interval("RandomErasing: scale", self.scale)) * float(x.shape[2] * x.shape[3])
        low, high = self.ratio
        ratio = per_row(x, math.log(low), math.log(high)).exp()
        lines = []
        for place, n, length in (
            (rows_of(x), x.shape[2], (area * ratio).sqrt()),
            (columns_of(x), x.shape[3], (area / ratio).sqrt()),
        ):
            length = (length + 0.5).floor().clamp(0.0, float(n))
            first = (per_row(x) * (n - length + 1)).floor()
            lines.append((place >= first) & (place < first + length))
        return where(lines[0] & lines[1] & erased, Tensor(self.value).to(x.dtype), x)


@dataclass(frozen=True)
class Cutout(OfInput):
    """With probability p, a square of ``size`` pixels set to ``value``; its middle may be any pixel.

    So the part of the square inside the image varies. A size of 0 erases nothing.

    Shapes: (B, C, H, W). Raises: ShapeError; ConfigError.
    Source: T. DeVries and G. Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017.
    Note: what can go wrong: a square as large as the object leaves an image of nothing with the label of something.
    """

    size: int
    p: float = 1.0
    value: float = 0.0

    def __post_init__(self) -> None:
        probability("Cutout: p", self.p)
        if min(_whole_numbers(self.size) or [-1]) < 0 or not isinstance(self.size, int):
            raise ConfigError("Cutout: size", got=repr(self.size), needed="a number of pixels, at least 0")

    def input(self, x: Tensor) -> Tensor:
        images("Cutout", x)
        hit = per_row(x) < self.p
        for place, n in ((rows_of(x), x.shape[2]), (columns_of(x), x.shape[3])):
            first = (per_row(x) * float(n)).floor() - float(self.size // 2)
            hit = hit & (place >= first) & (place < first + float(self.size))
        return where(hit, Tensor(self.value).to(x.dtype), x)


# --- values -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class GaussianNoise(OfInput):
    """A normal number added to each value: x + mean + sigma·ε, then clipped to 0 … 1 if asked.

    Shapes: any, (B, …). Units: those of x. Raises: DTypeError unless x is floating; ConfigError for a negative sigma.
    Source: C. Bishop, Training with Noise is Equivalent to Tikhonov Regularization, 1995.
    Note: torchvision clips by default, for images in 0 … 1. Here ``clip`` is False by default, since of standardised
    values it would cut away half.
    Note: what can go wrong: noise larger than the differences between classes leaves labels that are wrong.
    """

    mean: float = 0.0
    sigma: float = 0.1
    clip: bool = False

    def __post_init__(self) -> None:
        amount("GaussianNoise: sigma", self.sigma)

    def input(self, x: Tensor) -> Tensor:
        out = floats("GaussianNoise", x, "input") + (noise(x) * self.sigma + self.mean)
        return out.clamp(0.0, 1.0) if self.clip else out


@dataclass(frozen=True)
class ColorJitter(OfInput):
    """Brightness and contrast changed by random factors: x·b, then m + (x − m)·c about the image's mean m; 0 to 1.

    ``brightness``, ``contrast``: n for factors from max(0, 1 − n) to 1 + n, or (low, high).

    Shapes: (B, C, H, W), values in 0 … 1. Raises: ShapeError, DTypeError; ConfigError for negative factors.
    Note: torchvision applies the two in random order, weights the channels in m by how bright they look, and also
    changes saturation and hue.
    Note: what can go wrong: it is clipped to 0 … 1, so it must come before standardising; where brightness is the label
    (day or night, a stain's strength) it changes the truth.
    """

    brightness: float | Sequence[float] = 0.0
    contrast: float | Sequence[float] = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast"):
            interval(f"ColorJitter: {name}", getattr(self, name), around=1.0, least=0.0)

    def input(self, x: Tensor) -> Tensor:
        images("ColorJitter", x, floating=True)
        b, c = (
            per_row(x, *interval(name, value, around=1.0, least=0.0), dtype=x.dtype)
            for name, value in (("brightness", self.brightness), ("contrast", self.contrast))
        )
        x = (x * b).clamp(0.0, 1.0)
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        return where(c == 1, x, (x - mean) * c + mean).clamp(0.0, 1.0)

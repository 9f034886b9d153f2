"""One row for each augmentation: what test_augment.py checks. Data only.

Each entry is a function of the module ``slalom.data.augment`` (A), so that this file imports nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Make = Callable[[Any], Any]
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class AugmentRow:
    """``make(A)``: one that changes (nearly) every row. ``still(A)``: one of no strength. ``data``: "images", "table".

    ``shape``: of the result for the batch of the tests, where it differs. ``mixes``: whether it needs a target.
    ``exact``: pairs (make, NumPy's result for a batch). ``errors``: calls of (A, tensor) that must be refused, and the
    message.
    """

    name: str
    make: Make
    still: Make | None
    data: str = "images"
    shape: tuple[int, ...] | None = None
    mixes: bool = False
    exact: tuple[tuple[Make, Callable[[Array], Array]], ...] = ()
    errors: tuple[tuple[Callable[[Any, Any], Any], str], ...] = ()


IMAGES, TABLE = (6, 3, 8, 8), (6, 5)
"""The shapes of the batches of the tests."""


def _padded(x: Array, width: int, mode: str) -> Array:
    return np.pad(x, ((0, 0), (0, 0), (width, width), (width, width)), mode)


def _shifted(x: Array, right: int, down: int) -> Array:
    """Moved, with zeros from outside."""
    out = np.zeros_like(x)
    h, w = x.shape[2:]
    out[:, :, max(down, 0) : h + min(down, 0), max(right, 0) : w + min(right, 0)] = x[
        :, :, max(-down, 0) : h - max(down, 0), max(-right, 0) : w - max(right, 0)
    ]
    return out


def _turned(x: Array, degrees: float, fill: float) -> Array:
    """Turned about the middle: each pixel is the nearest one of where it comes from, or of the filling."""
    h, w = x.shape[2:]
    down, right = np.meshgrid(np.arange(h) - (h - 1) / 2, np.arange(w) - (w - 1) / 2, indexing="ij")
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    i = np.rint(c * down + s * right + (h - 1) / 2).astype(int)
    j = np.rint(c * right - s * down + (w - 1) / 2).astype(int)
    inside = (i >= 0) & (i < h) & (j >= 0) & (j < w)
    return np.where(inside, x[:, :, i.clip(0, h - 1), j.clip(0, w - 1)], np.asarray(fill, x.dtype))


NOT_IMAGES = r"images: got shape \(2, 64\); needed \(B, C, H, W\). Hint: x.reshape\(-1, 1, height, width\)"
WHOLE = r"images: got uint8; needed a floating dtype. Hint: x.float\(\) / 255, for values 0 … 255"
NOT_FLOATING = r"got int64; needed a floating dtype. Hint: x.float\(\)"


def _flat(name: str, *args: Any, **options: Any) -> tuple[Callable[[Any, Any], Any], str]:
    return (lambda A, tensor: getattr(A, name)(*args, **options)(tensor(np.zeros((2, 64))))), f"{name}: {NOT_IMAGES}"


def _bytes(name: str, *args: Any) -> tuple[Callable[[Any, Any], Any], str]:
    return (lambda A, tensor: getattr(A, name)(*args)(tensor(np.zeros((2, 1, 4, 4), np.uint8)))), f"{name}: {WHOLE}"


def _refuses(message: str, name: str, *args: Any, **options: Any) -> tuple[Callable[[Any, Any], Any], str]:
    """Options that make no sense."""
    return (lambda A, tensor: getattr(A, name)(*args, **options)), message


AUGMENTATIONS: tuple[AugmentRow, ...] = (
    # --- images ---------------------------------------------------------------------------------------------------
    AugmentRow(
        "RandomHorizontalFlip",
        lambda A: A.RandomHorizontalFlip(0.9),
        lambda A: A.RandomHorizontalFlip(0),
        exact=((lambda A: A.RandomHorizontalFlip(1.0), lambda x: x[:, :, :, ::-1]),),
        errors=(
            _flat("RandomHorizontalFlip"),
            _refuses("RandomHorizontalFlip: p: got 1.5; needed a probability, 0 to 1", "RandomHorizontalFlip", 1.5),
            _refuses("RandomHorizontalFlip: p: got True; needed a probability", "RandomHorizontalFlip", True),
        ),
    ),
    AugmentRow(
        "RandomVerticalFlip",
        lambda A: A.RandomVerticalFlip(0.9),
        lambda A: A.RandomVerticalFlip(0),
        exact=((lambda A: A.RandomVerticalFlip(1.0), lambda x: x[:, :, ::-1]),),
        errors=(_flat("RandomVerticalFlip"), _refuses("RandomVerticalFlip: p", "RandomVerticalFlip", "often")),
    ),
    AugmentRow(
        "RandomCrop",
        lambda A: A.RandomCrop((5, 6), padding=1),
        lambda A: A.RandomCrop(8),
        shape=(6, 3, 5, 6),
        exact=(
            (lambda A: A.RandomCrop(10, 1), lambda x: _padded(x, 1, "constant")),
            (
                lambda A: A.RandomCrop(10, 1, fill=0.5),
                lambda x: np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=0.5),
            ),
            (lambda A: A.RandomCrop(12, 2, padding_mode="edge"), lambda x: _padded(x, 2, "edge")),
            (lambda A: A.RandomCrop(22, 7, padding_mode="reflect"), lambda x: _padded(x, 7, "reflect")),
            (lambda A: A.RandomCrop((8, 10), (1, 0)), lambda x: _padded(x, 1, "constant")[:, :, 1:-1]),
            (lambda A: A.RandomCrop((10, 9), (1, 2, 0, 0)), lambda x: _padded(x, 2, "constant")[:, :, :-2, 1:-2]),
        ),
        errors=(
            _flat("RandomCrop", 4),
            (
                lambda A, tensor: A.RandomCrop(9)(tensor(np.zeros((2, 1, 8, 8)))),
                "RandomCrop: height of the images: got 8; needed at least 9, the crop's",
            ),
            (
                lambda A, tensor: A.RandomCrop((8, 13), 2)(tensor(np.zeros((2, 1, 8, 8)))),
                "RandomCrop: width of the images: got 8, 12 with padding; needed at least 13",
            ),
            (
                lambda A, tensor: A.RandomCrop(4, 8, padding_mode="reflect")(tensor(np.zeros((2, 1, 8, 8)))),
                "RandomCrop: reflected padding of 8: got height 8; needed more",
            ),
            _refuses(r"RandomCrop: size: got 0; needed a size of at least 1, or \(height, width\)", "RandomCrop", 0),
            _refuses("RandomCrop: size", "RandomCrop", (3, 3, 3)),
            _refuses("RandomCrop: size", "RandomCrop", 3.5),
            _refuses("RandomCrop: padding: got -1; needed a width of at least 0, or 2 or 4", "RandomCrop", 3, -1),
            _refuses("RandomCrop: padding: got", "RandomCrop", 3, (1, 2, 3)),
            _refuses("RandomCrop: padding_mode: got 'wrap'; needed constant or edge or", "RandomCrop", 3, 1, 0, "wrap"),
        ),
    ),
    AugmentRow(
        "RandomErasing",
        lambda A: A.RandomErasing(1.0, value=0.5),
        lambda A: A.RandomErasing(0.0),
        exact=(
            (lambda A: A.RandomErasing(1.0, scale=(1, 1), ratio=(1, 1)), np.zeros_like),
            (lambda A: A.RandomErasing(1.0, scale=(0, 0)), lambda x: x),
        ),
        errors=(
            _flat("RandomErasing"),
            _refuses("RandomErasing: p", "RandomErasing", -0.1),
            _refuses("RandomErasing: scale: got .*; needed shares of the area, at most 1", "RandomErasing", 1, (0, 2)),
            _refuses(r"RandomErasing: scale: got 0.5; needed \(low, high\), at least 0", "RandomErasing", 1, 0.5),
            _refuses("RandomErasing: ratio: got .*; needed height / width, above 0", "RandomErasing", 1, ratio=(0, 1)),
            _refuses("RandomErasing: ratio", "RandomErasing", 1, ratio=(3, 1)),
        ),
    ),
    AugmentRow(
        "Cutout",
        lambda A: A.Cutout(4, value=0.5),
        lambda A: A.Cutout(0),
        exact=((lambda A: A.Cutout(16), np.zeros_like), (lambda A: A.Cutout(16, 0.0), lambda x: x)),
        errors=(
            _flat("Cutout", 2),
            _refuses("Cutout: size: got -1; needed a number of pixels, at least 0", "Cutout", -1),
            _refuses("Cutout: size", "Cutout", (2, 2)),
            _refuses("Cutout: p", "Cutout", 2, 1.1),
        ),
    ),
    AugmentRow(
        "GaussianNoise",
        lambda A: A.GaussianNoise(sigma=0.2),
        lambda A: A.GaussianNoise(sigma=0.0),
        exact=(
            (lambda A: A.GaussianNoise(mean=0.25, sigma=0), lambda x: x + np.float32(0.25)),
            (lambda A: A.GaussianNoise(mean=0.5, sigma=0, clip=True), lambda x: (x + np.float32(0.5)).clip(0, 1)),
        ),
        errors=(
            (
                lambda A, tensor: A.GaussianNoise()(tensor(np.zeros((2, 3), np.int64))),
                NOT_FLOATING,
            ),
            _refuses("GaussianNoise: sigma: got -0.1; needed a finite number of at least 0", "GaussianNoise", 0, -0.1),
            _refuses("GaussianNoise: sigma", "GaussianNoise", 0, float("nan")),
        ),
    ),
    AugmentRow(
        "ColorJitter",
        lambda A: A.ColorJitter(0.5, 0.5),
        lambda A: A.ColorJitter(),
        exact=(
            (lambda A: A.ColorJitter((0.5, 0.5)), lambda x: x * np.float32(0.5)),
            (lambda A: A.ColorJitter((2, 2)), lambda x: (x * 2).clip(0, 1)),
        ),
        errors=(
            _flat("ColorJitter"),
            _bytes("ColorJitter"),
            _refuses("ColorJitter: brightness: got -1; needed a number of at least 0, or", "ColorJitter", -1),
            _refuses(r"ColorJitter: contrast: got \(-1, 1\); needed .*, at least 0", "ColorJitter", 0, (-1, 1)),
        ),
    ),
    AugmentRow(
        "RandomRotation",
        lambda A: A.RandomRotation(40),
        lambda A: A.RandomRotation(0),
        exact=(
            *(
                (
                    lambda A, k=k, mode=mode: A.RandomRotation((90 * k, 90 * k), mode),
                    lambda x, k=k: np.rot90(x, k, (2, 3)),
                )
                for k in (-1, 0, 1, 2, 3)
                for mode in ("bilinear", "nearest")
            ),
            (lambda A: A.RandomRotation((30, 30), "nearest", 0.5), lambda x: _turned(x, 30, 0.5)),
        ),
        errors=(
            _flat("RandomRotation", 10),
            _bytes("RandomRotation", 10),
            _refuses(
                r"RandomRotation: degrees: got -5; needed a number of at least 0, or",
                "RandomRotation",
                -5,
            ),
            _refuses("RandomRotation: degrees", "RandomRotation", (5, -5)),
            _refuses("RandomRotation: degrees", "RandomRotation", float("inf")),
            _refuses(
                "RandomRotation: interpolation: got 'cubic'; needed 'bilinear' or",
                "RandomRotation",
                5,
                "cubic",
            ),
        ),
    ),
    AugmentRow(
        "RandomAffine",
        lambda A: A.RandomAffine(20, (0.2, 0.2), (0.8, 1.2), (-10, 10, -5, 5)),
        lambda A: A.RandomAffine(0, (0, 0), (1, 1), 0),
        exact=(
            (lambda A: A.RandomAffine((90, 90)), lambda x: np.rot90(x, -1, (2, 3))),
            (
                lambda A: A.RandomAffine(0, scale=(3, 3), interpolation="nearest"),
                lambda x: x.repeat(3, 2).repeat(3, 3)[:, :, 8:16, 8:16],
            ),
            (
                lambda A: A.RandomAffine(0, shear=(45, 45), interpolation="nearest"),
                lambda x: np.stack([_shifted(x, 3 - i, 0)[:, :, i] for i in range(8)], 2),
            ),
            (
                lambda A: A.RandomAffine((30, 30), interpolation="nearest", fill=-1.0),
                lambda x: _turned(x, -30, -1.0),
            ),
        ),
        errors=(
            _flat("RandomAffine", 10),
            _bytes("RandomAffine", 10),
            _refuses("RandomAffine: degrees", "RandomAffine", "some"),
            _refuses("RandomAffine: translate: got .*; needed two shares of the size", "RandomAffine", 0, (2, 0)),
            _refuses("RandomAffine: scale: got .*; needed factors above 0", "RandomAffine", 0, None, (0, 1)),
            _refuses("RandomAffine: shear: got 90; needed angles between", "RandomAffine", 0, None, None, 90),
            _refuses("RandomAffine: interpolation", "RandomAffine", 0, interpolation="area"),
        ),
    ),
    # --- mixing ---------------------------------------------------------------------------------------------------
    AugmentRow(
        "MixUp",
        lambda A: A.MixUp(1.0, 4),
        lambda A: A.MixUp(0, 4),
        mixes=True,
        errors=(
            (
                lambda A, tensor: A.MixUp(1.0, 4)(tensor(np.zeros((2, 3)))),
                "MixUp: got one part; needed input",
            ),
            (
                lambda A, tensor: A.MixUp()(tensor(np.zeros((2, 3))), tensor([0, 1])),
                r"MixUp: a target of int64: needed the number of classes. Hint: num_classes=…, or a target of floating",
            ),
            (lambda A, tensor: A.MixUp(1.0, 4)(tensor([[1], [2]]), tensor([0, 1])), f"MixUp: input: {NOT_FLOATING}"),
            (
                lambda A, tensor: A.MixUp(1.0, 4)(tensor(np.zeros((3, 3))), tensor([0, 1])),
                "MixUp: parts: .* as many rows",
            ),
            (
                lambda A, tensor: A.MixUp(1.0, 4)(tensor(np.zeros((2, 3))), tensor([[0], [1]])),
                r"MixUp: target: got",
            ),
            (
                lambda A, tensor: A.MixUp(1.0, 4)(tensor(np.zeros((2, 3))), tensor([0, 4])),
                "MixUp: class 4 in the target",
            ),
            _refuses("MixUp: alpha: got -1; needed a finite number of at least 0", "MixUp", -1),
            _refuses("MixUp: num_classes: got 0; needed a number of at least 1", "MixUp", 1, 0),
        ),
    ),
    AugmentRow(
        "CutMix",
        lambda A: A.CutMix(1.0, 4),
        lambda A: A.CutMix(0, 4),
        mixes=True,
        errors=(
            (lambda A, tensor: A.CutMix(1.0, 4)(tensor(np.zeros((2, 64))), tensor([0, 1])), f"CutMix: {NOT_IMAGES}"),
            (lambda A, tensor: A.CutMix(1.0, 4)(tensor(np.zeros((2, 1, 4, 4)))), "CutMix: got one part"),
            (lambda A, tensor: A.CutMix(1.0, 4)(*[tensor(np.zeros((2, 1, 4, 4)))] * 3), "CutMix: got 3 parts"),
            _refuses("CutMix: alpha", "CutMix", True),
        ),
    ),
    # --- tables ---------------------------------------------------------------------------------------------------
    AugmentRow(
        "ColumnNoise",
        lambda A: A.ColumnNoise(0.3, columns=[0, -2]),
        lambda A: A.ColumnNoise(0),
        "table",
        errors=(
            (lambda A, tensor: A.ColumnNoise()(tensor([[1, 2]])), f"ColumnNoise: table: {NOT_FLOATING}"),
            (
                lambda A, tensor: A.ColumnNoise()(tensor([1.0])),
                r"table: got shape \(1,\); needed \(B, D\)",
            ),
            (
                lambda A, tensor: A.ColumnNoise(columns=[2])(tensor([[1.0, 2.0]])),
                "ColumnNoise: column 2: needed -2",
            ),
            (
                lambda A, tensor: A.ColumnNoise((0.1, 0.2))(tensor([[1.0]])),
                "ColumnNoise: sigma: got 2 of them",
            ),
            _refuses("ColumnNoise: sigma: got -1", "ColumnNoise", (0.1, -1)),
            _refuses("ColumnNoise: columns: got 'age'; needed a list of column numbers", "ColumnNoise", 0.1, "age"),
        ),
    ),
    AugmentRow(
        "FeatureDropout",
        lambda A: A.FeatureDropout(0.5, fill=-9.0),
        lambda A: A.FeatureDropout(0),
        "table",
        exact=(
            (lambda A: A.FeatureDropout(1.0), np.zeros_like),
            (lambda A: A.FeatureDropout(1.0, 2.0, [0, -1]), lambda x: np.where([1, 0, 0, 0, 1], np.float32(2), x)),
        ),
        errors=(
            (lambda A, tensor: A.FeatureDropout()(tensor(np.zeros((2, 1, 4, 4)))), "FeatureDropout: table: got shape"),
            _refuses("FeatureDropout: p", "FeatureDropout", 2),
            _refuses("FeatureDropout: columns", "FeatureDropout", 0.1, 0.0, [True]),
        ),
    ),
    AugmentRow(
        "SwapNoise",
        lambda A: A.SwapNoise(0.8, columns=[1, 2]),
        lambda A: A.SwapNoise(0),
        "table",
        errors=(
            (lambda A, tensor: A.SwapNoise(columns=[-3])(tensor([[1, 2]])), "SwapNoise: column -3: needed -2 to 1"),
            _refuses("SwapNoise: p", "SwapNoise", None),
        ),
    ),
    # --- several --------------------------------------------------------------------------------------------------
    AugmentRow(
        "Compose",
        lambda A: A.Compose([A.RandomRotation(20), A.RandomCrop(8, padding=1), A.GaussianNoise()]),
        lambda A: A.Compose([A.GaussianNoise(sigma=0), A.RandomRotation(0)]),
        exact=(
            (lambda A: A.Compose([A.RandomHorizontalFlip(1), A.RandomVerticalFlip(1)]), lambda x: x[:, :, ::-1, ::-1]),
            (lambda A: A.Compose([lambda x: x + 1, A.RandomHorizontalFlip(1)]), lambda x: x[..., ::-1] + 1),
        ),
        errors=(
            _refuses(r"Compose: got \[\]; needed a list of one or more functions of a batch", "Compose", []),
            _refuses("Compose: got", "Compose", [3]),
            _refuses("Compose: got", "Compose", None),
            (
                lambda A, tensor: A.Compose([lambda x, y: x])(tensor([1.0]), tensor([1.0])),
                "what .* returns: got Tensor; needed 2, all parts of the batch",
            ),
            (lambda A, tensor: A.Compose([lambda x, y: (x,)])(tensor([1.0]), tensor([1.0])), "returns: got 1 parts"),
            (lambda A, tensor: A.Compose([A.GaussianNoise()])(), "Compose: got nothing; needed the parts of a batch"),
        ),
    ),
)

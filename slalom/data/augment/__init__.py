"""Random changes of batches, recorded as part of a training step: more data than there are, for what they are worth."""

from __future__ import annotations

from slalom.data.augment.base import Augmentation, Compose
from slalom.data.augment.geometry import RandomAffine, RandomRotation, affine
from slalom.data.augment.images import (
    ColorJitter,
    Cutout,
    GaussianNoise,
    RandomCrop,
    RandomErasing,
    RandomHorizontalFlip,
    RandomVerticalFlip,
)
from slalom.data.augment.mixing import CutMix, MixUp
from slalom.data.augment.tables import ColumnNoise, FeatureDropout, SwapNoise

__all__ = [
    "Augmentation",
    "ColorJitter",
    "ColumnNoise",
    "Compose",
    "CutMix",
    "Cutout",
    "FeatureDropout",
    "GaussianNoise",
    "MixUp",
    "RandomAffine",
    "RandomCrop",
    "RandomErasing",
    "RandomHorizontalFlip",
    "RandomRotation",
    "RandomVerticalFlip",
    "SwapNoise",
    "affine",
]

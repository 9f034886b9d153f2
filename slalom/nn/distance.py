"""Distances as Modules, made from the functions in ``core/functional/distance.py``."""

from __future__ import annotations

from slalom.core.functional.distance import DISTANCES
from slalom.nn.generated import modules

globals().update(modules(DISTANCES, __name__))
__all__ = list(DISTANCES)

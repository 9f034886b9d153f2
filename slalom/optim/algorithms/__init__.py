"""One file for each family of rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slalom.optim.algorithms import adam, adaptive, layerwise, sgd, signs
from slalom.optim.algorithms.adam import *
from slalom.optim.algorithms.adaptive import *
from slalom.optim.algorithms.layerwise import *
from slalom.optim.algorithms.sgd import *
from slalom.optim.algorithms.signs import *

if not TYPE_CHECKING:  # mypy reads no joined list, and would take it for empty
    __all__ = adam.__all__ + adaptive.__all__ + layerwise.__all__ + sgd.__all__ + signs.__all__

"""One file for each family of rules."""

from __future__ import annotations

from slalom.optim.algorithms import adam, adaptive, layerwise, sgd, signs
from slalom.optim.algorithms.adam import *
from slalom.optim.algorithms.adaptive import *
from slalom.optim.algorithms.layerwise import *
from slalom.optim.algorithms.sgd import *
from slalom.optim.algorithms.signs import *

__all__: list[str] = []
__all__ += adam.__all__
__all__ += adaptive.__all__
__all__ += layerwise.__all__
__all__ += sgd.__all__
__all__ += signs.__all__

"""Layers, losses, initialisation and Module, with PyTorch's names: whatever the modules' ``__all__`` list."""

from __future__ import annotations

from slalom.nn import (
    activation,
    adaptive,
    attention,
    container,
    conv,
    distance,
    dropout,
    embedding,
    functional,
    init,
    linear,
    losses,
    module,
    norm,
    padding,
    penalty,
    perceptron,
    pooling,
    recurrent,
    resampling,
    transformer,
    utils,
)
from slalom.nn.activation import *
from slalom.nn.adaptive import *
from slalom.nn.attention import *
from slalom.nn.container import *
from slalom.nn.conv import *
from slalom.nn.distance import *
from slalom.nn.dropout import *
from slalom.nn.embedding import *
from slalom.nn.linear import *
from slalom.nn.losses import *
from slalom.nn.module import *
from slalom.nn.norm import *
from slalom.nn.padding import *
from slalom.nn.penalty import *
from slalom.nn.perceptron import *
from slalom.nn.pooling import *
from slalom.nn.recurrent import *
from slalom.nn.resampling import *
from slalom.nn.transformer import *

__all__ = ["functional", "init", "utils"]
__all__ += activation.__all__
__all__ += adaptive.__all__
__all__ += attention.__all__
__all__ += container.__all__
__all__ += conv.__all__
__all__ += distance.__all__
__all__ += dropout.__all__
__all__ += embedding.__all__
__all__ += linear.__all__
__all__ += losses.__all__
__all__ += module.__all__
__all__ += norm.__all__
__all__ += padding.__all__
__all__ += penalty.__all__
__all__ += perceptron.__all__
__all__ += pooling.__all__
__all__ += recurrent.__all__
__all__ += resampling.__all__
__all__ += transformer.__all__

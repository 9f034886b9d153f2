"""Layers, losses, initialisation and Module, with PyTorch's names."""

from __future__ import annotations

from slalom.nn import (
    activation,
    container,
    conv,
    dropout,
    embedding,
    functional,
    init,
    linear,
    losses,
    norm,
    padding,
    perceptron,
    pooling,
    resampling,
    utils,
)
from slalom.nn.activation import *
from slalom.nn.container import *
from slalom.nn.conv import *
from slalom.nn.dropout import *
from slalom.nn.embedding import *
from slalom.nn.linear import *
from slalom.nn.losses import *
from slalom.nn.module import Buffer, Module, Parameter
from slalom.nn.norm import *
from slalom.nn.padding import *
from slalom.nn.perceptron import *
from slalom.nn.pooling import *
from slalom.nn.resampling import *

__all__ = ["Buffer", "Module", "Parameter", "functional", "init", "utils"]
for _module in (
    *(activation, container, conv, dropout, embedding, linear, losses, norm, padding, perceptron, pooling, resampling),
):
    __all__ += _module.__all__

"""Layers, losses, initialisation and Module, with PyTorch's names."""

from __future__ import annotations

from slalom.nn import functional, init, utils
from slalom.nn.activation import (
    GELU,
    LeakyReLU,
    LogSoftmax,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from slalom.nn.container import Sequential
from slalom.nn.dropout import Dropout
from slalom.nn.embedding import Embedding
from slalom.nn.linear import Flatten, Identity, Linear, NTKLinear
from slalom.nn.losses import BCELoss, BCEWithLogitsLoss, CrossEntropyLoss, MSELoss, NLLLoss
from slalom.nn.module import Buffer, Module, Parameter
from slalom.nn.norm import BatchNorm1d, LayerNorm

__all__ = [
    "GELU", "BCELoss", "BCEWithLogitsLoss", "BatchNorm1d", "Buffer", "CrossEntropyLoss", "Dropout", "Embedding",
    "Flatten", "Identity", "LayerNorm", "LeakyReLU", "Linear", "LogSoftmax", "MSELoss", "Module", "NLLLoss",
    "NTKLinear", "PReLU", "Parameter", "ReLU", "Sequential", "SiLU", "Sigmoid", "Softmax", "Softplus", "Tanh",
    "functional", "init", "utils",
]  # fmt: skip

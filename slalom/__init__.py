"""Slalom trains neural networks on the CPU you have, and lets you see every step of it.

Names and semantics are PyTorch's for tensors, layers, losses, optimizers and loops, scikit-learn's for estimators,
JAX's for ``grad``, ``jvp``, ``vjp``, ``scan``. Layers above ``train`` are imported at their first use.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from slalom import autograd, data, errors, information, linalg, nn, optim, train, utils
from slalom.compiler.compile import compile
from slalom.compiler.runtime import get_num_threads, set_num_threads
from slalom.core.autodiff import (
    enable_grad,
    grad,
    hessian,
    hvp,
    is_grad_enabled,
    jacobian,
    jvp,
    no_grad,
    set_grad_enabled,
    value_and_grad,
    vjp,
)
from slalom.core.dtype import (
    bool_,
    float32,
    float64,
    get_default_dtype,
    int8,
    int16,
    int32,
    int64,
    set_default_dtype,
    uint8,
    uint32,
)
from slalom.core.functional.activation import *
from slalom.core.functional.arithmetic import *
from slalom.core.functional.creation import *
from slalom.core.functional.dropout import dropout
from slalom.core.functional.indexing import *
from slalom.core.functional.padding import pad
from slalom.core.functional.reduce import *
from slalom.core.functional.scanning import scan
from slalom.core.functional.shaping import *
from slalom.core.functional.shaping import device
from slalom.core.random import *
from slalom.core.tensor import Tensor
from slalom.core.trace import no_compile
from slalom.train import Trainer, load, save, summary

__version__ = "0.1.0"

float = float32
double = float64
long = int64
int = int32
short = int16
bool = bool_

_LATER = ("cli", "estimators", "inspect", "playground", "report", "tabular", "tune")


def __getattr__(name: str) -> Any:
    if name in _LATER and importlib.util.find_spec(f"slalom.{name}") is not None:
        return importlib.import_module(f"slalom.{name}")
    raise AttributeError(f"module 'slalom' has no attribute {name!r}")

"""Initial values of parameters: PyTorch's ``torch.nn.init``, and the output bias set from data.

Every function fills its tensor in place, records nothing for backward, and returns the tensor.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from slalom.core import kernels
from slalom.core.autodiff import no_grad
from slalom.core.random import Generator, rand, randn
from slalom.core.shape import size
from slalom.core.tensor import Tensor, to_array
from slalom.errors import ConfigError, DataError, ShapeError

__all__ = [
    "calculate_gain", "constant_", "eye_", "kaiming_normal_", "kaiming_uniform_", "normal_", "ones_", "orthogonal_",
    "output_bias_", "trunc_normal_", "uniform_", "xavier_normal_", "xavier_uniform_", "zeros_",
]  # fmt: skip


# --- plain distributions ------------------------------------------------------------------------------------------
@no_grad()
def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Uniform in [a, b)."""
    return tensor.uniform_(a, b, generator=generator)


@no_grad()
def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normal with the given mean and standard deviation."""
    return tensor.normal_(mean, std, generator=generator)


@no_grad()
def constant_(tensor: Tensor, val: float) -> Tensor:
    """One value everywhere."""
    return tensor.fill_(val)


def zeros_(tensor: Tensor) -> Tensor:
    """Zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Ones."""
    return constant_(tensor, 1.0)


@no_grad()
def eye_(tensor: Tensor) -> Tensor:
    """The identity matrix. Raises: ShapeError unless the tensor has two dimensions."""
    if tensor.ndim != 2:
        raise ShapeError("eye_", got=f"{tensor.ndim} dimensions", needed="2")
    rows, columns = tensor.shape
    return tensor.assign(Tensor(np.eye(rows, columns), dtype=tensor.dtype))


@no_grad()
def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Normal, cut off outside [a, b]; the inverse of its distribution function, by a table of 2¹⁴ steps."""
    low, high = max((a - mean) / std, -9.0), min((b - mean) / std, 9.0)
    if not low < high:
        raise ConfigError(
            "trunc_normal_", got=f"a {a}, b {b}", needed="a below b, and mean within 9 std of one of them"
        )
    grid = np.linspace(low, high, 2**14 + 1)
    below = kernels.erf(grid * math.sqrt(0.5))
    u = rand(tensor.shape, generator=generator, dtype=np.float64).numpy()
    drawn = np.interp(below[0] + u * (below[-1] - below[0]), below, grid)
    return tensor.assign(Tensor((drawn * std + mean).clip(a, b), dtype=tensor.dtype))


@no_grad()
def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Orthonormal rows or columns, whichever are fewer, times ``gain``; axes after the first count as one.

    Source: A. Saxe, J. McClelland and S. Ganguli, Exact solutions to the nonlinear dynamics of learning, 2013.
    """
    if tensor.ndim < 2:
        raise ShapeError("orthogonal_", got=f"{tensor.ndim} dimensions", needed="at least 2")
    rows, columns = tensor.shape[0], size(tensor.shape[1:])
    drawn = randn((max(rows, columns), min(rows, columns)), generator=generator, dtype=np.float64).numpy()
    q, r = np.linalg.qr(drawn)
    q *= np.sign(np.diag(r))  # otherwise the decomposition's own choice of signs is not uniform
    return tensor.assign(Tensor((q if rows >= columns else q.T).reshape(tensor.shape) * gain, dtype=tensor.dtype))


# --- variance-preserving ones -------------------------------------------------------------------------------------
def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which a weight's spread makes up for what the nonlinearity takes away."""
    gains = dict.fromkeys(("linear", "conv1d", "conv2d", "conv3d", "sigmoid"), 1.0)
    gains |= {"tanh": 5 / 3, "relu": math.sqrt(2), "selu": 0.75}
    gains["leaky_relu"] = math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in gains:
        raise ConfigError("calculate_gain: nonlinearity", got=repr(nonlinearity), needed=f"one of {', '.join(gains)}")
    return gains[nonlinearity]


def _fans(tensor: Tensor) -> tuple[int, int]:
    """How many inputs an output unit has, and outputs an input unit: weight (out, in, *kernel)."""
    if tensor.ndim < 2:
        raise ShapeError(
            "initialising by fan-in and fan-out", got=f"shape {tensor.shape}", needed="2 dimensions or more"
        )
    field = size(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """U(−a, a) with a = gain · √(6 / (fan_in + fan_out)).

    Source: X. Glorot and Y. Bengio, Understanding the difficulty of training deep networks, 2010, equation 16.
    """
    bound = gain * math.sqrt(6 / sum(_fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """N(0, σ²) with σ = gain · √(2 / (fan_in + fan_out))."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(_fans(tensor))), generator)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ConfigError("kaiming: mode", got=repr(mode), needed="'fan_in' or 'fan_out'")
    fan = _fans(tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(max(fan, 1))


def kaiming_uniform_(
    tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """U(−b, b) with b = gain · √(3 / fan).

    Source: K. He et al., Delving Deep into Rectifiers, 2015, equations 10 and 14.
    """
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """N(0, σ²) with σ = gain / √fan."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


# --- from data ----------------------------------------------------------------------------------------------------
def output_bias_(layer: Any, targets: Any, task: str, *, sample_weight: Any = None, zero_weight: bool = False) -> Any:
    """Set an output layer's bias so that, where its weights say nothing, it predicts what is best without features.

    ``task`` "regression": the mean of the targets; "binary": ln(p / (1 − p)) of the rate p of ones; "multiclass":
    ln of each class's rate. ``zero_weight`` zeroes the weights too, and the first loss is that of the naive baseline.

    Shapes: targets (N) or (N, out_features) with a value for each output; class numbers (N) for "multiclass".
    Raises: ConfigError for another task or a layer without a bias; DataError for targets that do not fit.
    Note: a rate of 0 or 1 counts as half an example, or the bias would be infinite.
    """
    bias = getattr(layer, "bias", None)
    if bias is None:
        raise ConfigError("output_bias_", got=f"{type(layer).__name__} without a bias", needed="a layer with one")
    values = to_array(targets, copy=False)
    if not len(values):
        raise DataError("output_bias_: targets", got="none", needed="at least one")
    outputs = bias.shape[0]
    if task == "multiclass":
        if values.ndim != 1 or values.dtype.kind not in "ui" or values.min() < 0 or values.max() >= outputs:
            raise DataError("output_bias_: targets", needed=f"class numbers 0 to {outputs - 1} in one axis")
        values = values[:, None] == np.arange(outputs)
    values = values.reshape(len(values), -1).astype(np.float64)
    if values.shape[1] != outputs:
        raise DataError("output_bias_: targets", got=f"{values.shape[1]} columns", needed=f"{outputs}, one an output")
    mean = np.average(values, axis=0, weights=None if sample_weight is None else to_array(sample_weight, copy=False))
    if task in ("binary", "multiclass"):
        least = 0.5 / len(values)
        mean = mean.clip(least, 1 - least) if task == "binary" else mean.clip(least)
        mean = np.log(mean / (1 - mean)) if task == "binary" else np.log(mean)
    elif task != "regression":
        raise ConfigError("output_bias_: task", got=repr(task), needed="'regression', 'binary' or 'multiclass'")
    with no_grad():
        bias.assign(Tensor(mean, dtype=bias.dtype))
        if zero_weight:
            layer.weight.zero_()
    return layer

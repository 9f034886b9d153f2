"""Initial values of parameters: PyTorch's ``torch.nn.init``, and values that are set from data.

Every function fills its tensor (or those of its layer or model) in place, records nothing for backward, and returns it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from slalom.core import kernels
from slalom.core.autodiff import no_grad
from slalom.core.primitive import Array
from slalom.core.random import Generator, rand, randn
from slalom.core.shape import size
from slalom.core.tensor import Tensor, to_array
from slalom.errors import ConfigError, DataError, ShapeError

if TYPE_CHECKING:
    from slalom.nn.module import Module

__all__ = [
    "calculate_gain", "constant_", "dirac_", "eye_", "kaiming_normal_", "kaiming_uniform_", "lsuv_", "normal_", "ones_",
    "orthogonal_", "output_bias_", "sparse_", "trunc_normal_", "uniform_", "xavier_normal_", "xavier_uniform_",
    "zeros_",
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
def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """A convolution that passes its channels on: 1 in the middle of the kernel from channel i to i, else 0.

    ``groups``: the output channels fall into so many groups, each of which passes on the channels from the first.

    Raises: ShapeError unless the tensor has 3 to 5 dimensions (out, in, *kernel), with out divisible by ``groups``.
    """
    if tensor.ndim not in (3, 4, 5) or tensor.shape[0] % groups:
        needed = f"3 to 5 dimensions, the first of them divisible by {groups}"
        raise ShapeError("dirac_", got=f"shape {tensor.shape}", needed=needed)
    values = np.zeros(tensor.shape)
    middle = tuple(n // 2 for n in tensor.shape[2:])
    outputs = tensor.shape[0] // groups
    for group in range(groups):
        for channel in range(min(outputs, tensor.shape[1])):
            values[(group * outputs + channel, channel, *middle)] = 1.0
    return tensor.assign(Tensor(values, dtype=tensor.dtype))


@no_grad()
def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> Tensor:
    """N(0, std²), with the same number of zeros, ⌈sparsity · rows⌉, at random places of each column.

    Raises: ShapeError unless the tensor has two dimensions; ConfigError for a sparsity outside [0, 1].
    Source: J. Martens, Deep learning via Hessian-free optimization, 2010.
    """
    if tensor.ndim != 2:
        raise ShapeError("sparse_", got=f"{tensor.ndim} dimensions", needed="2")
    if not 0 <= sparsity <= 1:
        raise ConfigError("sparse_: sparsity", got=sparsity, needed="a number from 0 to 1")
    values = randn(tensor.shape, generator=generator, dtype=np.float64).numpy() * std
    order = rand(tensor.shape, generator=generator, dtype=np.float64).numpy().argsort(axis=0)
    np.put_along_axis(values, order[: math.ceil(sparsity * tensor.shape[0])], 0.0, axis=0)
    return tensor.assign(Tensor(values, dtype=tensor.dtype))


@no_grad()
def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Normal, cut off outside [a, b]; the inverse of its distribution function, by a table of 2¹⁴ steps."""
    if not std > 0:
        raise ConfigError("trunc_normal_: std", got=std, needed="a number above 0")
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
    plain = ("linear", *(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)), "sigmoid")
    gains = dict.fromkeys(plain, 1.0)
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


@no_grad()
def lsuv_(model: Module, *inputs: Any, tol: float = 0.1, max_iter: int = 10, orthogonal: bool = True) -> Module:
    """Layer-sequential unit variance: on a batch of data, the output of every layer has variance 1.

    Layer by layer, in the order in which they are used: W ← orthogonal, then W ← W / std(output) until
    |Var(output) − 1| < ``tol``, at most ``max_iter`` times. The layers are those with ``in_features`` or
    ``in_channels`` (Linear, convolutions); the model is called as model(*inputs), in evaluation mode.

    ``orthogonal=False``: start from the weights that are there.

    Raises: DataError where a layer's output is constant or not finite, naming the layer.
    Source: D. Mishkin and J. Matas, All you need is a good init, 2016, algorithm 1.
    Note: biases stay as they are; a bias alone may keep the variance from reaching 1.

    >>> from slalom import nn, randn
    >>> model = lsuv_(nn.Sequential(nn.Linear(50, 40), nn.Tanh(), nn.Linear(40, 30)), x := randn(200, 50))
    >>> 0.9 < model(x).var().item() < 1.1
    True
    """
    names = {module: name for name, module in model.named_modules()}
    batch = [value if isinstance(value, Tensor) else Tensor(value) for value in inputs]
    outputs: dict[Module, Array] = {}

    def keep(module: Module, args: Any, output: Tensor) -> None:
        outputs.setdefault(module, output.numpy())

    layers = [layer for layer in names if hasattr(layer, "in_features") or hasattr(layer, "in_channels")]
    modes = {module: module.training for module in names}
    hooks = [layer.register_forward_hook(keep) for layer in layers]
    model.eval()
    try:
        model(*batch)
        for layer in list(outputs):  # in the order in which they were first used
            weight: Any = layer.weight
            if orthogonal:
                orthogonal_(weight)
            for _ in range(max_iter):
                outputs.clear()
                model(*batch)
                variance = float(outputs[layer].var(dtype=np.float64))
                if not 0 < variance < math.inf:
                    got = f"variance {variance:g}"
                    raise DataError(f"lsuv_: output of {names[layer] or 'the model'}", got=got, needed="one above 0")
                if abs(variance - 1) < tol:
                    break
                weight.assign(weight / math.sqrt(variance))
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
    return model

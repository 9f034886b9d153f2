"""Activations and softmax, composed of primitives. ``__all__`` lists those that PyTorch has at top level.

The ones that are primitives themselves (relu, sigmoid, tanh, erf, …) stand in ``arithmetic``.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from slalom.core.functional.registry import ACTIVATIONS as ACTIVATIONS  # filled by importing this module
from slalom.core.functional.registry import activation
from slalom.core.ops import pointwise, reductions
from slalom.core.random import Generator, rand
from slalom.core.shape import axis_index
from slalom.core.tensor import Tensor, apply, as_tensor, floating, method
from slalom.errors import ConfigError, ShapeError

__all__ = ["log_softmax", "prelu", "softmax"]


def _placed(input: Tensor, out: Tensor, inplace: bool) -> Tensor:
    """The result, written over the input where PyTorch's ``inplace=True`` asks for it."""
    return input._write(out) if inplace else out


# --- rectifiers ---------------------------------------------------------------------------------------------------
@activation("ReLU")
def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0); derivative 0 at 0."""
    return _placed(input, input.relu(), inplace)


@activation("LeakyReLU")
def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where x > 0, else slope · x.

    Note: the slope is fixed; ``prelu`` learns it.
    """
    return _placed(input, input.where(input > 0, input * negative_slope), inplace)


@method
def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where x > 0, else w · x, with one learned w for all or one for each channel (axis 1).

    Shapes: input (B, C, …), weight (1) or (C).
    Raises: ShapeError when the number of weights is neither 1 nor that of the channels.

    >>> prelu(Tensor([-2.0, 3.0]), Tensor([0.25]))
    tensor([-0.5,  3. ])
    """
    slope = weight
    if weight.numel() != 1:
        channels = input.shape[1] if input.ndim > 1 else 1
        if weight.shape != (channels,):
            raise ShapeError("prelu: weight", got=weight.shape, needed=f"(1,) or ({channels},) for {input.shape}")
        slope = weight.reshape((channels,) + (1,) * (input.ndim - 2))
    elif weight.ndim > input.ndim:
        slope = weight.reshape(())
    return input.where(input > 0, input * slope)


@activation("RReLU")
def rrelu(
    input: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """x where x > 0, else slope · x, with a slope drawn from lower … upper for each element; its mean outside training.

    Raises: ConfigError unless lower ≤ upper.
    Source: B. Xu et al., Empirical Evaluation of Rectified Activations, 2015, section 2.4.
    """
    if not lower <= upper:
        raise ConfigError("rrelu: lower", got=lower, needed=f"at most upper, {upper}")
    slope: Any = (lower + upper) / 2
    if training:
        slope = rand(input.shape, generator=generator, dtype=np.float32).to(input.dtype) * (upper - lower) + lower
    return _placed(input, input.where(input > 0, input * slope), inplace)


@activation("Threshold")
def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where x > threshold, else ``value``; derivative 0 there."""
    return _placed(input, input.masked_fill(input <= threshold, value), inplace)


@activation("Step")
def step(input: Tensor, at_zero: float = 1.0) -> Tensor:
    """0 for x < 0, 1 for x > 0 (Heaviside's function), the perceptron's activation; derivative 0 everywhere.

    Source: F. Rosenblatt, The Perceptron, 1958.
    Note: its derivative says nothing, so gradient descent can't train through it: learn with sigmoid, decide with Step.

    >>> step(Tensor([-0.5, 0.0, 2.0]))
    tensor([0., 1., 1.])
    """
    input = floating(input)
    out = input.masked_fill(input > 0, 1.0).masked_fill(input < 0, 0.0)  # what is left is 0, or not a number
    return out.masked_fill(input == 0, at_zero)


# --- pieces of straight lines --------------------------------------------------------------------------------------
def _clipped(input: Tensor, low: float, high: float) -> Tensor:
    """x held to low … high; derivative 0 at the ends too, as in PyTorch's hard functions."""
    return floating(input).masked_fill(input <= low, low).masked_fill(input >= high, high)


@activation("Hardtanh")
def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x held to ``min_val`` … ``max_val``; derivative 0 at and beyond both.

    Raises: ConfigError unless min_val < max_val.
    """
    if not min_val < max_val:
        raise ConfigError("hardtanh: min_val", got=min_val, needed=f"less than max_val, {max_val}")
    return _placed(input, _clipped(input, min_val, max_val), inplace)


@activation("ReLU6")
def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6).

    Source: A. Krizhevsky, Convolutional Deep Belief Networks on CIFAR-10, 2010, section 3.2.
    """
    return _placed(input, _clipped(input, 0.0, 6.0), inplace)


@activation("Hardsigmoid")
def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x + 3, 0), 6) / 6. Note: Keras's older form is x / 5 + ½, held to 0 … 1."""
    return _placed(input, _clipped(input + 3, 0.0, 6.0) / 6, inplace)


@activation("Hardswish")
def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x · min(max(x + 3, 0), 6) / 6.

    Source: A. Howard et al., Searching for MobileNetV3, 2019, section 5.2.
    """
    return _placed(input, input * _clipped(input + 3, 0.0, 6.0) / 6, inplace)


@activation("Hardshrink", text="{lambd}")
def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x where |x| > λ, else 0."""
    input = floating(input)
    return input.masked_fill(input.abs() <= lambd, 0.0)


@activation("Softshrink", text="{lambd}")
def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x drawn towards 0 by λ: sign(x) · max(|x| − λ, 0), which solves the lasso for one variable.

    Raises: ConfigError for λ < 0.
    """
    if not lambd >= 0:
        raise ConfigError("softshrink: lambd", got=lambd, needed="0 or more")
    input = floating(input)
    return (input - input.detach().sign() * lambd).masked_fill(input.abs() <= lambd, 0.0)


# --- smooth activations -------------------------------------------------------------------------------------------
@activation("GELU")
def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x · Φ(x) with the normal distribution function Φ; "tanh" takes ½(1 + tanh(√(2/π)(x + 0.044715 x³))) for Φ.

    Raises: ConfigError for another ``approximate``.
    Source: D. Hendrycks and K. Gimpel, Gaussian Error Linear Units, 2016, section 2.

    >>> gelu(Tensor([-1.0, 1.0, 2.0]))
    tensor([-0.1587,  0.8413,  1.9545])
    """
    if approximate == "none":
        return input * ((input * math.sqrt(0.5)).erf() + 1) * 0.5
    if approximate == "tanh":
        inner = (input + input * input * input * 0.044715) * math.sqrt(2 / math.pi)
        return input * (inner.tanh() + 1) * 0.5
    raise ConfigError("gelu: approximate", got=repr(approximate), needed="'none' or 'tanh'")


@activation("Sigmoid")
def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + e⁻ˣ)."""
    return input.sigmoid()


@activation("Tanh")
def tanh(input: Tensor) -> Tensor:
    """tanh x."""
    return input.tanh()


@activation("SiLU")
def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x · σ(x), also called swish."""
    return _placed(input, input * input.sigmoid(), inplace)


@activation("Softplus")
def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """ln(1 + e^(βx)) / β, and x itself where βx > threshold.

    Note: the method ``Tensor.softplus`` is the plain ln(1 + eˣ), which needs no threshold to be exact.
    """
    scaled = input if beta == 1 else input * beta
    soft = scaled.softplus()
    return input.where(scaled > threshold, soft if beta == 1 else soft / beta)


def _negative(input: Tensor) -> Tensor:
    """x below 0, else 0: selected before an exponential, which overflows where it would be selected away after it."""
    return floating(input).masked_fill(input > 0, 0.0)


@activation("ELU")
def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, else α(eˣ − 1).

    Source: D.-A. Clevert et al., Exponential Linear Units, 2016, equation 15.
    """
    return _placed(input, input.where(input > 0, _negative(input).expm1() * alpha), inplace)


@activation("CELU")
def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, else α(e^(x/α) − 1), whose derivative is continuous for every α.

    Raises: ConfigError for α = 0.
    Source: J. T. Barron, Continuously Differentiable Exponential Linear Units, 2017, equation 2.
    """
    if alpha == 0:
        raise ConfigError("celu: alpha", got=alpha, needed="a number other than 0")
    return _placed(input, input.where(input > 0, (_negative(input) / alpha).expm1() * alpha), inplace)


_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


@activation("SELU")
def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """λ · ELU(x) with α = 1.67326… and λ = 1.05070…, for which mean 0 and variance 1 are a stable fixed point.

    Source: G. Klambauer et al., Self-Normalizing Neural Networks, 2017, equation 2 and appendix A1.
    Note: meant for weights from a normal distribution of variance 1/inputs (LeCun).
    """
    low = _negative(input).expm1() * (_SELU_ALPHA * _SELU_SCALE)
    return _placed(input, (input * _SELU_SCALE).where(input > 0, low), inplace)


@activation("Mish")
def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x · tanh(ln(1 + eˣ)).

    Source: D. Misra, Mish, 2019, equation 1.
    """
    return _placed(input, input * input.softplus().tanh(), inplace)


@activation("LogSigmoid")
def logsigmoid(input: Tensor) -> Tensor:
    """ln σ(x) = −ln(1 + e⁻ˣ), exact where σ itself would underflow."""
    return -(-floating(input)).softplus()


@activation("SquaredReLU")
def squared_relu(input: Tensor) -> Tensor:
    """max(x, 0)²: a rectifier without a kink in its derivative.

    Source: D. So et al., Primer: Searching for Efficient Transformers for Language Modeling, 2021, section 3.
    Note: beyond PyTorch.

    >>> squared_relu(Tensor([-1.0, 3.0]))
    tensor([0., 9.])
    """
    positive = input.relu()
    return positive * positive


@activation("Softsign")
def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return input / (input.abs() + 1)


@activation("Tanhshrink")
def tanhshrink(input: Tensor) -> Tensor:
    """x − tanh x."""
    return input - input.tanh()


@activation("GLU")
def glu(input: Tensor, dim: int = -1) -> Tensor:
    """a · σ(b) of the two halves a, b of an axis: one half says how much of the other passes.

    Shapes: (…, 2N, …) → (…, N, …).
    Raises: ShapeError for an axis of odd length, or none.
    Source: Y. N. Dauphin et al., Language Modeling with Gated Convolutional Networks, 2017, equation 1.
    """
    axis = axis_index("glu", dim, input.ndim)
    if not input.ndim or input.shape[axis] % 2:
        raise ShapeError("glu: input", got=f"shape {input.shape}", needed=f"an even number along axis {dim}")
    half = input.shape[axis] // 2
    return input.narrow(axis, 0, half) * input.narrow(axis, half, half).sigmoid()


# --- softmax ------------------------------------------------------------------------------------------------------
def _shifted(name: str, input: Any, dim: int | None, dtype: Any) -> tuple[Tensor, int]:
    """The input less its maximum along an axis, so that no exponential overflows, and that axis."""
    x = floating(input if dtype is None else as_tensor(input).to(dtype))
    if dim is None:
        dim = 0 if x.ndim in (0, 1, 3) else 1
        warnings.warn(f"{name}: dim not given, taken to be {dim}; name it", UserWarning, stacklevel=4)
    axis = axis_index(name, dim, x.ndim)
    axes = (axis,) if x.ndim else ()
    if x.ndim and not x.shape[axis]:
        return x, axis
    # The shift cancels out, so no gradient needs to flow through it.
    return x - apply(reductions.AMAX, x.detach(), axes=axes, keepdims=True), axis


def _total(x: Tensor, axis: int) -> Tensor:
    return apply(reductions.SUM, x, axes=(axis,) if x.ndim else (), keepdims=True)


def log_total_of(input: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """x less its maximum, and the logarithm of the sum of its exponentials: their difference is ln softmax(x)."""
    shifted, axis = _shifted("log_softmax", input, axis, None)
    return shifted, _total(shifted.exp(), axis).log()


@activation("Softmax", without=("dtype",))
@method
def softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """exp(xᵢ) / Σⱼ exp(xⱼ) along an axis.

    Note: without ``dim`` PyTorch's old rule chooses (0 for 1 or 3 dimensions, else 1), with a warning.

    >>> softmax(Tensor([2.0, 1.0, 0.1]), 0)
    tensor([0.659 , 0.2424, 0.0986])
    """
    shifted, axis = _shifted("softmax", input, dim, dtype)
    powers = shifted.exp()
    return powers / _total(powers, axis)


@activation("LogSoftmax", without=("dtype",))
@method
def log_softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """ln softmax(x) = x − ln Σⱼ exp(xⱼ) along an axis, exact where softmax itself would underflow."""
    shifted, axis = _shifted("log_softmax", input, dim, dtype)
    return shifted - _total(shifted.exp(), axis).log()


@activation("Softmin", without=("dtype",))
def softmin(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """exp(−xᵢ) / Σⱼ exp(−xⱼ) along an axis: softmax of −x."""
    shifted, axis = _shifted("softmin", -floating(input), dim, dtype)
    powers = shifted.exp()
    return powers / _total(powers, axis)


def gumbel_softmax(
    logits: Tensor,
    tau: float = 1.0,
    hard: bool = False,
    eps: float = 1e-10,
    dim: int = -1,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """softmax((x + g) / τ) with noise g = −ln(−ln u): nearly a draw from softmax(x), through which gradients flow.

    ``hard``: 1 at the largest and 0 elsewhere, with the gradients of the soft result (straight through). ``eps`` is not
    used, as in PyTorch.

    Raises: ConfigError unless τ > 0.
    Source: E. Jang et al., Categorical Reparameterization with Gumbel-Softmax, 2017, equations 1 and 2.
    """
    if not tau > 0:
        raise ConfigError("gumbel_softmax: tau", got=tau, needed="above 0")
    logits = floating(logits)
    uniform = rand(logits.shape, generator=generator, dtype=np.float64)
    # In float64 a draw of 0, whose logarithm is infinite, is as good as never; then it is the least that can follow.
    waited = -apply(pointwise.LOG, uniform.masked_fill(uniform == 0, 2.0**-53))
    soft = softmax((logits - apply(pointwise.LOG, waited).to(logits.dtype)) / tau, dim)
    if not hard:
        return soft
    axis = axis_index("gumbel_softmax", dim, soft.ndim)
    numbers = Tensor._of(np.arange(soft.shape[axis]).reshape((-1,) + (1,) * (soft.ndim - axis - 1)))
    first = numbers == soft.detach().argmax(axis, keepdim=True)
    return first.to(soft.dtype) - soft.detach() + soft

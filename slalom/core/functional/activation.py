"""Activations and softmax, composed of primitives. ``__all__`` lists those that PyTorch has at top level.

The ones that are primitives themselves (relu, sigmoid, tanh, erf, …) stand in ``arithmetic``.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

from slalom.core.ops import pointwise, reductions
from slalom.core.shape import axis_index
from slalom.core.tensor import Tensor, apply, as_tensor, method
from slalom.errors import ConfigError, ShapeError

__all__ = ["log_softmax", "prelu", "softmax"]


def _placed(input: Tensor, out: Tensor, inplace: bool) -> Tensor:
    """The result, written over the input where PyTorch's ``inplace=True`` asks for it."""
    return input._write(out) if inplace else out


# --- rectifiers ---------------------------------------------------------------------------------------------------
def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0); derivative 0 at 0."""
    return _placed(input, apply(pointwise.RELU, input), inplace)


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


# --- smooth activations -------------------------------------------------------------------------------------------
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


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x · σ(x), also called swish."""
    return _placed(input, input * apply(pointwise.SIGMOID, input), inplace)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """ln(1 + e^(βx)) / β, and x itself where βx > threshold.

    Note: the method ``Tensor.softplus`` is the plain ln(1 + eˣ), which needs no threshold to be exact.
    """
    scaled = input if beta == 1 else input * beta
    soft = apply(pointwise.SOFTPLUS, scaled)
    return input.where(scaled > threshold, soft if beta == 1 else soft / beta)


# --- softmax ------------------------------------------------------------------------------------------------------
def _shifted(name: str, input: Any, dim: int | None, dtype: Any) -> tuple[Tensor, int]:
    """The input less its maximum along an axis, so that no exponential overflows, and that axis."""
    x = as_tensor(input) if dtype is None else as_tensor(input).to(dtype)
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
    return shifted, apply(pointwise.LOG, _total(apply(pointwise.EXP, shifted), axis))


@method
def softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """exp(xᵢ) / Σⱼ exp(xⱼ) along an axis.

    Note: without ``dim`` PyTorch's old rule chooses (0 for 1 or 3 dimensions, else 1), with a warning.

    >>> softmax(Tensor([2.0, 1.0, 0.1]), 0)
    tensor([0.659 , 0.2424, 0.0986])
    """
    shifted, axis = _shifted("softmax", input, dim, dtype)
    powers = apply(pointwise.EXP, shifted)
    return powers / _total(powers, axis)


@method
def log_softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """ln softmax(x) = x − ln Σⱼ exp(xⱼ) along an axis, exact where softmax itself would underflow."""
    shifted, axis = _shifted("log_softmax", input, dim, dtype)
    return shifted - apply(pointwise.LOG, _total(apply(pointwise.EXP, shifted), axis))

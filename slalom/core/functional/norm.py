"""Normalisation over a batch, over features, or over channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from slalom.core.autodiff import no_grad
from slalom.core.functional.padding import pad
from slalom.core.ops import reductions
from slalom.core.shape import size
from slalom.core.tensor import Tensor, apply, floating
from slalom.errors import ConfigError, ShapeError

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "local_response_norm", "rms_norm"]


def _moments(x: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor, int]:
    """Mean, x − mean and the biased variance over axes (kept, of size 1), and how many values each is made of."""
    count = size(tuple(x.shape[a] for a in axes))
    mean = apply(reductions.SUM, x, axes=axes, keepdims=True) / count
    centred = x - mean
    variance = apply(reductions.SUM, centred * centred, axes=axes, keepdims=True) / count
    return mean, centred, variance, count


def _scaled(out: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


def _check_channels(name: str, input: Tensor, **given: Tensor | None) -> int:
    """How many channels there are, which is also the size of all that belongs to channels."""
    if input.ndim < 2:
        raise ShapeError(f"{name}: input", got=f"{input.ndim} dimensions", needed="at least 2 (B, C, …)")
    channels = input.shape[1]
    for role, t in given.items():
        if t is not None and t.shape != (channels,):
            raise ShapeError(f"{name}: input has {channels} channels, {role} has shape {t.shape}")
    return channels


def _across(t: Tensor | None, input: Tensor) -> Tensor | None:
    """A value for each channel, in the shape that goes with (B, C, …)."""
    return t if t is None or input.ndim == 2 else t.reshape(t.shape + (1,) * (input.ndim - 2))


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x − μ) / √(σ² + ε) · γ + β for each channel, with the batch's μ and σ² in training, else the running ones.

    In training, running ← (1 − momentum) · running + momentum · batch.

    Shapes: input (B, C, …), all others (C).
    Raises: ShapeError in training with a single value for each channel, whose variance says nothing.
    Source: S. Ioffe and C. Szegedy, Batch Normalization, 2015, algorithms 1 and 2.
    Note: as in PyTorch, the batch is normalised by the biased variance (divided by n), and the running variance takes
    the unbiased one (n − 1). Keras's momentum is 1 − this one.
    """
    channels = _check_channels(
        "batch_norm", input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )
    if training:
        mean, centred, variance, count = _moments(input, (0, *range(2, input.ndim)))
        if count == 1:
            raise ShapeError(
                "batch_norm while training",
                got=f"one value for each channel (input shape {input.shape})",
                needed="more than one",
                hint="leave out a last batch of one row (drop_last=True), or call eval()",
            )
        with no_grad():
            for running, batch in ((running_mean, mean), (running_var, variance * (count / max(count - 1, 1)))):
                if running is not None:
                    running.assign(running * (1 - momentum) + batch.reshape(channels) * momentum)
    else:
        if running_mean is None or running_var is None:
            raise ShapeError("batch_norm: running_mean and running_var", got=None, needed="both unless training")
        centred, variance = input - _across(running_mean, input), _across(running_var, input)  # type: ignore[assignment]
    return _scaled(centred * (1 / (variance + eps).sqrt()), _across(weight, input), _across(bias, input))


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x − μ) / √(σ² + ε) · γ + β for each channel of each example, with its own μ and σ² (biased).

    Running statistics, where they are given, follow the mean of these over the batch; without ``use_input_stats`` they
    take their place, as in batch norm at evaluation.

    Shapes: input (B, C, …), all others (C).
    Raises: ShapeError for a single value for each channel, whose variance says nothing.
    Source: D. Ulyanov, A. Vedaldi and V. Lempitsky, Instance Normalization, 2016, equation 7.
    """
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    channels = _check_channels(
        "instance_norm", input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )
    if size(input.shape[2:]) < 2:
        got = f"{size(input.shape[2:])} values for each channel (input shape {input.shape})"
        raise ShapeError("instance_norm", got=got, needed="more than one")
    mean, centred, variance, count = _moments(input, tuple(range(2, input.ndim)))
    with no_grad():
        for running, each in ((running_mean, mean), (running_var, variance * (count / (count - 1)))):
            if running is not None:
                batch = each.reshape(input.shape[0], channels).sum(0) / input.shape[0]
                running.assign(running * (1 - momentum) + batch * momentum)
    return _scaled(centred * (1 / (variance + eps).sqrt()), _across(weight, input), _across(bias, input))


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """(x − μ) / √(σ² + ε) · γ + β with μ and σ² (biased) over each group of channels of each example.

    Shapes: input (B, C, …), weight and bias (C).
    Raises: ConfigError for groups that do not divide the channels; ShapeError for a single value in all.
    Source: Y. Wu and K. He, Group Normalization, 2018, equations 1 to 4 and 7.
    Note: one group is layer norm over (C, …), C groups are instance norm; γ and β belong to channels.
    """
    channels = _check_channels("group_norm", input, weight=weight, bias=bias)
    if num_groups < 1 or channels % num_groups:
        needed = f"a number that divides {channels} channels"
        raise ConfigError("group_norm: num_groups", got=num_groups, needed=needed)
    batch, each = input.shape[0], channels // num_groups * size(input.shape[2:])
    if batch * each == 1:
        raise ShapeError("group_norm", got=f"one value in each group (input shape {input.shape})", needed="more")
    _, centred, variance, _ = _moments(input.reshape(batch, num_groups, each), (2,))
    out = (centred * (1 / (variance + eps).sqrt())).reshape(input.shape)
    return _scaled(out, _across(weight, input), _across(bias, input))


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x − μ) / √(σ² + ε) · γ + β with μ and σ² (biased) over the last axes, for each example by itself.

    Shapes: input (…, *normalized_shape), weight and bias ``normalized_shape``.
    Raises: ShapeError when the last axes of the input are others.
    Source: J. Ba, J. Kiros and G. Hinton, Layer Normalization, 2016, equation 4.
    Note: γ and β belong to features, not to examples.
    """
    shape = tuple(normalized_shape)
    if not shape or input.shape[max(input.ndim - len(shape), 0) :] != shape:
        raise ShapeError("layer_norm: input", got=f"shape {input.shape}", needed=f"last axes {shape}")
    for name, t in (("weight", weight), ("bias", bias)):
        if t is not None and t.shape != shape:
            raise ShapeError(f"layer_norm: {name}", got=t.shape, needed=shape)
    _, centred, variance, _ = _moments(input, tuple(range(input.ndim - len(shape), input.ndim)))
    return _scaled(centred * (1 / (variance + eps).sqrt()), weight, bias)


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """x / √(mean(x²) + ε) · γ over the last axes; ``eps=None`` is the distance from 1 to the next number.

    Shapes: input (…, *normalized_shape), weight ``normalized_shape``.
    Raises: ShapeError when the last axes of the input are others.
    Source: B. Zhang and R. Sennrich, Root Mean Square Layer Normalization, 2019, equation 4.
    Note: layer norm without its mean and without β.
    """
    shape = tuple(normalized_shape)
    if not shape or input.shape[max(input.ndim - len(shape), 0) :] != shape:
        raise ShapeError("rms_norm: input", got=f"shape {input.shape}", needed=f"last axes {shape}")
    if weight is not None and weight.shape != shape:
        raise ShapeError("rms_norm: weight", got=weight.shape, needed=shape)
    axes = tuple(range(input.ndim - len(shape), input.ndim))
    input = floating(input)
    square = apply(reductions.SUM, input * input, axes=axes, keepdims=True) / size(shape)
    floor = float(np.finfo(input.dtype).eps) if eps is None else eps
    return _scaled(input * (1 / (square + floor).sqrt()), weight, None)


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x / (k + α · m)^β, with m the mean of x² over ``size`` neighbouring channels, zeros beyond the first and last.

    Shapes: (B, C, …) with at least three axes, unchanged.
    Raises: ShapeError for fewer axes; ConfigError for a size below 1.
    Source: A. Krizhevsky et al., ImageNet Classification with Deep CNNs, 2012, section 3.3.
    Note: as in PyTorch, α stands before the mean; in the paper before the sum. Of an even size, one more channel
    before than after.
    """
    if input.ndim < 3:
        raise ShapeError("local_response_norm: input", got=f"shape {input.shape}", needed="(B, C, T) or more axes")
    if size < 1:
        raise ConfigError("local_response_norm: size", got=size, needed="at least 1")
    after = input.ndim - 2
    square = pad(input * input, (*(0, 0) * after, size // 2, (size - 1) // 2))
    total = square.narrow(1, 0, input.shape[1])
    for i in range(1, size):
        total = total + square.narrow(1, i, input.shape[1])
    return input / (total * (alpha / size) + k) ** beta

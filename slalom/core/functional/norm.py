"""Normalisation over a batch or over features."""

from __future__ import annotations

from collections.abc import Sequence

from slalom.core.autodiff import no_grad
from slalom.core.ops import reductions
from slalom.core.shape import size
from slalom.core.tensor import Tensor, apply
from slalom.errors import ShapeError

__all__ = ["batch_norm", "layer_norm"]


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
    if input.ndim < 2:
        raise ShapeError("batch_norm: input", got=f"{input.ndim} dimensions", needed="at least 2 (B, C, …)")
    channels = input.shape[1]
    across = (channels,) + (1,) * (input.ndim - 2)
    for name, t in (("running_mean", running_mean), ("running_var", running_var), ("weight", weight), ("bias", bias)):
        if t is not None and t.shape != (channels,):
            raise ShapeError(f"batch_norm: input has {channels} channels, {name} has shape {t.shape}")

    def aligned(t: Tensor | None) -> Tensor | None:
        return t if t is None or input.ndim == 2 else t.reshape(across)

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
        centred, variance = input - aligned(running_mean), aligned(running_var)  # type: ignore[assignment]
    return _scaled(centred * (1 / (variance + eps).sqrt()), aligned(weight), aligned(bias))


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

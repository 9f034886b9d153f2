"""Batch and layer normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slalom.core.functional.creation import ones, zeros
from slalom.core.tensor import Tensor
from slalom.errors import ShapeError
from slalom.nn import functional as F
from slalom.nn import init
from slalom.nn.module import Module, Parameter

__all__ = ["BatchNorm1d", "LayerNorm"]


def _reset(weight: Parameter | None, bias: Parameter | None) -> None:
    """γ = 1 and β = 0."""
    if weight is not None:
        init.ones_(weight)
    if bias is not None:
        init.zeros_(bias)


class BatchNorm1d(Module):
    """Each feature less its mean, by its standard deviation, times γ plus β; see ``functional.batch_norm``.

    In training mean and variance are the batch's and the running ones follow them; at evaluation they are the running
    ones. ``momentum=None`` makes these the plain average over all batches seen.

    Shapes: (B, C) or (B, C, T), unchanged; weight, bias, running_mean, running_var (C).
    Raises: ShapeError for another number of features, and in training for one value a feature.
    """

    __constants__ = ("eps", "momentum", "track_running_stats")
    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        options = {"device": device, "dtype": dtype}
        self.register_parameter("weight", Parameter(ones(num_features, **options)) if affine else None)
        self.register_parameter("bias", Parameter(zeros(num_features, **options)) if affine and bias else None)
        track = track_running_stats
        self.register_buffer("running_mean", zeros(num_features, **options) if track else None)
        self.register_buffer("running_var", ones(num_features, **options) if track else None)
        self.register_buffer("num_batches_tracked", Tensor(0) if track else None)

    def reset_running_stats(self) -> None:
        """Forget the batches seen."""
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1.0)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Forget what was learned and the batches seen."""
        self.reset_running_stats()
        _reset(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim not in (2, 3):
            raise ShapeError("input", got=f"shape {input.shape}", needed="(B, C) or (B, C, T)")
        if input.shape[1] != self.num_features:
            features = input.shape[1]
            raise ShapeError(f"input has {features} features, needs {self.num_features}; input shape {input.shape}")
        seen = self.num_batches_tracked if self.training else None
        factor: float | Tensor = 0.0 if self.momentum is None else self.momentum
        if seen is not None and self.momentum is None:
            factor = 1 / (seen.to("float64") + 1)
        out = F.batch_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or self.running_mean is None,
            factor,
            self.eps,
        )
        if seen is not None:
            seen.add_(1)
        return out

    def _label(self) -> str:
        return f"BatchNorm1d {self.num_features}"

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class LayerNorm(Module):
    """Each example less its mean, by its standard deviation, times γ plus β; see ``functional.layer_norm``.

    Shapes: (…, *normalized_shape), unchanged; weight and bias ``normalized_shape``.
    """

    __constants__ = ("eps", "normalized_shape")
    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape, self.eps, self.elementwise_affine = shape, eps, elementwise_affine
        affine, options = elementwise_affine, {"device": device, "dtype": dtype}
        self.register_parameter("weight", Parameter(ones(shape, **options)) if affine else None)
        self.register_parameter("bias", Parameter(zeros(shape, **options)) if affine and bias else None)

    def reset_parameters(self) -> None:
        """Set γ to 1 and β to 0."""
        _reset(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
            f"bias={self.bias is not None}"
        )

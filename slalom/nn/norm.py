"""Normalisation over a batch, over features, and over channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from slalom.core.functional.creation import ones, zeros
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError, ShapeError
from slalom.nn import functional as F
from slalom.nn import init
from slalom.nn.module import Module, Parameter

__all__ = [
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "GroupNorm", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d",
    "LayerNorm", "LocalResponseNorm", "RMSNorm",
]  # fmt: skip


def _reset(weight: Parameter | None, bias: Parameter | None) -> None:
    """γ = 1 and β = 0."""
    if weight is not None:
        init.ones_(weight)
    if bias is not None:
        init.zeros_(bias)


class _ChannelNorm(Module):
    """What batch and instance norm have: γ and β, and running statistics, for each channel."""

    __constants__ = ("eps", "momentum", "track_running_stats")
    shapes: ClassVar[dict[int, str]]
    """The inputs that are taken, by their number of axes."""
    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        device: Any,
        dtype: Any,
        *,
        bias: bool,
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

    def _check(self, input: Tensor, axis: int) -> None:
        if input.ndim not in self.shapes:
            raise ShapeError("input", got=f"shape {input.shape}", needed=" or ".join(self.shapes.values()))
        if input.shape[axis] != self.num_features:
            features = input.shape[axis]
            raise ShapeError(f"input has {features} features, needs {self.num_features}; input shape {input.shape}")

    def _label(self) -> str:
        return f"{type(self).__name__} {self.num_features}"

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_ChannelNorm):
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
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        self._check(input, 1)
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


class BatchNorm1d(_BatchNorm):
    """Each feature less its mean, by its standard deviation, times γ plus β; see ``functional.batch_norm``.

    In training mean and variance are the batch's and the running ones follow them; at evaluation they are the running
    ones. ``momentum=None`` makes these the plain average over all batches seen.

    Shapes: (B, C) or (B, C, T), unchanged; weight, bias, running_mean, running_var (C).
    Raises: ShapeError for another number of features, and in training for one value a feature.
    """

    shapes: ClassVar = {2: "(B, C)", 3: "(B, C, T)"}


class BatchNorm2d(_BatchNorm):
    """As ``BatchNorm1d``, for each channel of images over the batch and all pixels. Shapes: (B, C, H, W), unchanged."""

    shapes: ClassVar = {4: "(B, C, H, W)"}


class BatchNorm3d(_BatchNorm):
    """As ``BatchNorm1d``, for each channel of volumes. Shapes: (B, C, D, H, W), unchanged."""

    shapes: ClassVar = {5: "(B, C, D, H, W)"}


class _InstanceNorm(_ChannelNorm):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        single = input.ndim == min(self.shapes)
        self._check(input, 0 if single else 1)
        out = F.instance_norm(
            input.unsqueeze(0) if single else input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
        )
        return out.squeeze(0) if single else out


class InstanceNorm1d(_InstanceNorm):
    """Each channel of each example less its mean, by its standard deviation; see ``functional.instance_norm``.

    γ and β only with ``affine``; with ``track_running_stats`` running statistics follow, and replace the example's own
    at evaluation.

    Shapes: (B, C, T) or (C, T), unchanged; weight, bias, running_mean, running_var (C).
    Raises: ShapeError for another number of features, and for one value a channel.
    """

    shapes: ClassVar = {3: "(B, C, T)", 2: "(C, T)"}


class InstanceNorm2d(_InstanceNorm):
    """As ``InstanceNorm1d``, of images. Shapes: (B, C, H, W) or (C, H, W), unchanged."""

    shapes: ClassVar = {4: "(B, C, H, W)", 3: "(C, H, W)"}


class InstanceNorm3d(_InstanceNorm):
    """As ``InstanceNorm1d``, of volumes. Shapes: (B, C, D, H, W) or (C, D, H, W), unchanged."""

    shapes: ClassVar = {5: "(B, C, D, H, W)", 4: "(C, D, H, W)"}


class GroupNorm(Module):
    """Each group of channels of each example less its mean, by its standard deviation; see ``functional.group_norm``.

    Shapes: (B, C, …), unchanged; weight and bias (C).
    Raises: ConfigError for groups that do not divide the channels; ShapeError for another number of channels.
    """

    __constants__ = ("eps", "num_groups")
    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            needed = f"a number that divides {num_channels} channels"
            raise ConfigError("GroupNorm: num_groups", got=num_groups, needed=needed)
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        options = {"device": device, "dtype": dtype}
        self.register_parameter("weight", Parameter(ones(num_channels, **options)) if affine else None)
        self.register_parameter("bias", Parameter(zeros(num_channels, **options)) if affine and bias else None)

    def reset_parameters(self) -> None:
        """Set γ to 1 and β to 0."""
        _reset(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim > 1 and input.shape[1] != self.num_channels:
            raise ShapeError(
                f"input has {input.shape[1]} channels, needs {self.num_channels}; input shape {input.shape}"
            )  # fmt: skip
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def _label(self) -> str:
        return f"GroupNorm {self.num_channels}"

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
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


class RMSNorm(Module):
    """Each example by the root of its mean square, times γ; see ``functional.rms_norm``.

    Shapes: (…, *normalized_shape), unchanged; weight ``normalized_shape``.
    """

    __constants__ = ("eps", "normalized_shape")
    weight: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape, self.eps, self.elementwise_affine = shape, eps, elementwise_affine
        made = Parameter(ones(shape, device=device, dtype=dtype)) if elementwise_affine else None
        self.register_parameter("weight", made)

    def reset_parameters(self) -> None:
        """Set γ to 1."""
        _reset(self.weight, None)

    def forward(self, input: Tensor) -> Tensor:
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class LocalResponseNorm(Module):
    """Each element less, the larger those of neighbouring channels are; see ``functional.local_response_norm``.

    Shapes: (B, C, …) with at least three axes, unchanged.
    """

    __constants__ = ("alpha", "beta", "k", "size")

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"

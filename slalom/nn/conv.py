"""Convolutions of signals, images and volumes, their transposes, and windows as columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from slalom.core.functional.conv import Padding, Sizes, pad_list, same_padding
from slalom.core.functional.creation import empty
from slalom.core.shape import Shape, per_axis
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError, ShapeError
from slalom.nn import functional as F
from slalom.nn import init
from slalom.nn.module import Module, Parameter

__all__ = [
    "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Fold", "Unfold",
]  # fmt: skip

_CONV: Final = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSE: Final = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_PAD_MODES: Final = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


class _Conv(Module):
    """What all convolutions have: settings of one number for each axis, and weights that start in U(−1/√n, 1/√n),
    where n is the number of values that each output is made of (weight's second axis, times the kernel's elements)."""

    __constants__ = ("dilation", "groups", "output_padding", "padding", "padding_mode", "stride")
    rank: ClassVar[int]
    weight: Parameter
    bias: Parameter | None
    kernel_size: Shape
    stride: Shape
    padding: Any  # Shape, or "same" or "valid"
    dilation: Shape

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        settings: dict[str, Any],
        groups: int,
        bias: bool,
        padding_mode: str,
        transposed: bool,
        options: dict[str, Any],
    ) -> None:
        super().__init__()
        kind = type(self).__name__
        if groups < 1 or in_channels % groups or out_channels % groups:
            needed = f"a number that divides {in_channels} input and {out_channels} output channels"
            raise ConfigError(f"{kind}: groups", got=groups, needed=needed)
        if padding_mode not in _PAD_MODES or (transposed and padding_mode != "zeros"):
            needed = "'zeros'" if transposed else f"one of {', '.join(map(repr, _PAD_MODES))}"
            raise ConfigError(f"{kind}: padding_mode", got=repr(padding_mode), needed=needed)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        for name, value in settings.items():
            low = 0 if "padding" in name else 1
            of_axes = value if isinstance(value, str) else per_axis(f"{kind}: {name}", value, self.rank, low)
            setattr(self, name, of_axes)
        if isinstance(self.padding, str):
            if self.padding not in ("same", "valid"):
                raise ConfigError(f"{kind}: padding", got=repr(self.padding), needed="numbers, 'same' or 'valid'")
            if self.padding == "same" and max(self.stride) > 1:
                raise ConfigError(f"{kind}: padding 'same' with stride", got=self.stride, needed="a stride of 1")
        self.padding_mode = padding_mode
        outer, inner = (in_channels, out_channels) if transposed else (out_channels, in_channels)
        self.weight = Parameter(empty(outer, inner // groups, *self.kernel_size, **options))
        self.register_parameter("bias", Parameter(empty(out_channels, **options)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values anew."""
        bound = 1 / math.sqrt(max(math.prod(self.weight.shape[1:]), 1))
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def _label(self) -> str:
        return f"{type(self).__name__} {self.in_channels}→{self.out_channels}"

    def extra_repr(self) -> str:
        nothing = (0,) * self.rank
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        if self.padding != nothing:
            parts.append(f"padding={self.padding}")
        if self.dilation != (1,) * self.rank:
            parts.append(f"dilation={self.dilation}")
        if getattr(self, "output_padding", nothing) != nothing:
            parts.append(f"output_padding={self.output_padding}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)


class _Forward(_Conv):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Padding = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        settings = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation}
        options = {"device": device, "dtype": dtype}
        super().__init__(in_channels, out_channels, settings, groups, bias, padding_mode, False, options)

    def forward(self, input: Tensor) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            if self.padding == "same":
                widths = same_padding(self.kernel_size, self.dilation)
            else:
                widths = tuple([(p, p) for p in ((0,) * self.rank if padding == "valid" else padding)])
            if input.ndim in (self.rank + 1, self.rank + 2):  # others are refused with the input's own shape
                input = F.pad(input, pad_list(widths), _PAD_MODES[self.padding_mode])
            padding = 0
        convolve = _CONV[self.rank]
        return convolve(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class Conv1d(_Forward):
    """A convolution of signals: each output channel a weighted sum of windows of the input; see ``functional.conv1d``.

    ``padding``: zeros on both sides, "valid" for none, or "same" for as many as keep the length (stride 1 only).
    ``padding_mode``: what to pad with: "zeros", "reflect", "replicate", "circular". ``groups``: channels are cut into
    so many, each with output channels of its own.

    Shapes: (B, in, T) or (in, T) → (B, out, T'), see ``functional.conv1d``; weight (out, in / groups, k), bias (out).
    Raises: ShapeError for another number of channels, or a kernel that is larger than the padded input; ConfigError
    for settings that do not fit together.
    """

    rank = 1


class Conv2d(_Forward):
    """A convolution of images; as ``Conv1d``, with one number for both axes or one for each.

    Shapes: (B, in, H, W) or (in, H, W) → (B, out, H', W'); weight (out, in / groups, kh, kw), bias (out).

    >>> Conv2d(3, 8, 5, stride=2, padding="valid").weight.shape
    (8, 3, 5, 5)
    """

    rank = 2


class Conv3d(_Forward):
    """A convolution of volumes or films; as ``Conv1d``, with one number for all axes or one for each.

    Shapes: (B, in, D, H, W) or (in, D, H, W) → (B, out, D', H', W'); weight (out, in / groups, kd, kh, kw), bias (out).
    """

    rank = 3


class _Transposed(_Conv):
    output_padding: Shape

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Sizes = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        settings = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation}
        settings["output_padding"] = output_padding
        options = {"device": device, "dtype": dtype}
        super().__init__(in_channels, out_channels, settings, groups, bias, padding_mode, True, options)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        extra = self.output_padding if output_size is None else self._extra(input, tuple(output_size))
        convolve = _TRANSPOSE[self.rank]
        return convolve(
            input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation
        )  # fmt: skip

    def _extra(self, input: Tensor, output_size: Shape) -> Shape:
        """The output_padding that gives an output of a wanted size."""
        wanted = output_size[-self.rank :] if len(output_size) == input.ndim else output_size
        sizes = zip(input.shape[-self.rank :], self.stride, self.padding, self.dilation, self.kernel_size, strict=False)
        least = tuple([(n - 1) * s - 2 * p + d * (k - 1) + 1 for n, s, p, d, k in sizes])
        most = tuple([m + s - 1 for m, s in zip(least, self.stride, strict=False)])
        if len(wanted) != self.rank or any(not m <= w <= n for m, w, n in zip(least, wanted, most, strict=True)):
            raise ShapeError("output_size", got=output_size, needed=f"{least} to {most} for input shape {input.shape}")
        return tuple([w - m for w, m in zip(wanted, least, strict=True)])


class ConvTranspose1d(_Transposed):
    """The transpose of ``Conv1d``: each element of the input spreads the kernel; see ``functional.conv_transpose1d``.

    ``output_padding``: elements added at the end; calling with ``output_size`` finds how many a wanted size needs.

    Shapes: (B, in, T) or (in, T) → (B, out, T'), T' = (T − 1)·stride − 2·padding + dilation·(k − 1) + 1 +
    output_padding; weight (in, out / groups, k), bias (out).
    Raises: as ``Conv1d``; ShapeError for an output_size that no output_padding below the stride gives.
    """

    rank = 1


class ConvTranspose2d(_Transposed):
    """The transpose of ``Conv2d``; as ``ConvTranspose1d``, with one number for both axes or one for each.

    Shapes: (B, in, H, W) or (in, H, W) → (B, out, H', W'); weight (in, out / groups, kh, kw), bias (out).
    """

    rank = 2


class ConvTranspose3d(_Transposed):
    """The transpose of ``Conv3d``; as ``ConvTranspose1d``, with one number for all axes or one for each.

    Shapes: (B, in, D, H, W) or (in, D, H, W) → (B, out, D', H', W'); weight (in, out / groups, kd, kh, kw), bias (out).
    """

    rank = 3


class Unfold(Module):
    """The windows of images as columns; see ``functional.unfold``. Shapes: (B, C, H, W) → (B, C·kh·kw, windows)."""

    __constants__ = ("dilation", "kernel_size", "padding", "stride")

    def __init__(self, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1) -> None:
        super().__init__()
        self.kernel_size, self.dilation, self.padding, self.stride = kernel_size, dilation, padding, stride

    def forward(self, input: Tensor) -> Tensor:
        return F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, stride={self.stride}"


class Fold(Module):
    """The transpose of ``Unfold``: columns added up as windows of an image; see ``functional.fold``.

    Shapes: (B, C·kh·kw, windows) → (B, C, *output_size).
    """

    __constants__ = ("dilation", "kernel_size", "output_size", "padding", "stride")

    def __init__(
        self,
        output_size: Sizes,
        kernel_size: Sizes,
        dilation: Sizes = 1,
        padding: Sizes = 0,
        stride: Sizes = 1,
    ) -> None:
        super().__init__()
        self.output_size, self.kernel_size = output_size, kernel_size
        self.dilation, self.padding, self.stride = dilation, padding, stride

    def forward(self, input: Tensor) -> Tensor:
        return F.fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, kernel_size={self.kernel_size}, dilation={self.dilation}, "
            f"padding={self.padding}, stride={self.stride}"
        )

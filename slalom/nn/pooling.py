"""Pooling layers: maxima, means and norms of windows, and the way back from maxima."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from slalom.core.functional.fractional import Ratios
from slalom.core.functional.pool import OptionalSizes, Sizes
from slalom.core.shape import per_axis
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError
from slalom.nn import functional as F
from slalom.nn.module import Module

__all__ = [
    "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d", "AvgPool1d", "AvgPool2d", "AvgPool3d", "FractionalMaxPool2d", "FractionalMaxPool3d",
    "LPPool1d", "LPPool2d", "LPPool3d", "MaxPool1d", "MaxPool2d", "MaxPool3d", "MaxUnpool1d", "MaxUnpool2d",
    "MaxUnpool3d",
]  # fmt: skip

_MAX: Final = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG: Final = {2: F.avg_pool2d, 3: F.avg_pool3d}
_LP: Final = {1: F.lp_pool1d, 2: F.lp_pool2d, 3: F.lp_pool3d}
_ADAPTIVE_AVG: Final = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
_ADAPTIVE_MAX: Final = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}
_UNPOOL: Final = {1: F.max_unpool1d, 2: F.max_unpool2d, 3: F.max_unpool3d}
_FRACTIONAL: Final = {2: F.fractional_max_pool2d, 3: F.fractional_max_pool3d}


class _MaxPool(Module):
    __constants__ = ("ceil_mode", "dilation", "kernel_size", "padding", "return_indices", "stride")
    rank: ClassVar[int]

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, input: Tensor) -> Any:
        return _MAX[self.rank](
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """The maximum of each window; see ``functional.max_pool1d``. Shapes: (B, C, T) or (C, T) → (…, T').

    ``stride``: the kernel's size if it is not given. ``return_indices``: (values, where they were).
    ``ceil_mode``: a last window may end beyond the input.
    """

    rank = 1


class MaxPool2d(_MaxPool):
    """As ``MaxPool1d``, over two axes. Shapes: (B, C, H, W) or (C, H, W) → (…, H', W').

    >>> MaxPool2d(2)(Tensor([[[1.0, 2.0], [4.0, 3.0]]]))
    tensor([[[4.]]])
    """

    rank = 2


class MaxPool3d(_MaxPool):
    """As ``MaxPool1d``, over three axes. Shapes: (B, C, D, H, W) or (C, D, H, W) → (…, D', H', W')."""

    rank = 3


class AvgPool1d(Module):
    """The mean of each window; see ``functional.avg_pool1d``. Shapes: (B, C, T) or (C, T) → (…, T').

    ``count_include_pad``: whether zeros of the padding count. Others as ``MaxPool1d``.
    """

    __constants__ = ("ceil_mode", "count_include_pad", "kernel_size", "padding", "stride")

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size = per_axis("AvgPool1d: kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else per_axis("AvgPool1d: stride", stride, 1)
        self.padding = per_axis("AvgPool1d: padding", padding, 1, 0)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool1d(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AvgPool(Module):
    __constants__ = ("ceil_mode", "count_include_pad", "divisor_override", "kernel_size", "padding", "stride")
    rank: ClassVar[int]

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def forward(self, input: Tensor) -> Tensor:
        return _AVG[self.rank](
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(_AvgPool):
    """As ``AvgPool1d``, over two axes; ``divisor_override`` is divided by instead of the number of elements.

    Shapes: (B, C, H, W) or (C, H, W) → (…, H', W').
    """

    rank = 2


class AvgPool3d(_AvgPool):
    """As ``AvgPool2d``, over three axes. Shapes: (B, C, D, H, W) or (C, D, H, W) → (…, D', H', W')."""

    rank = 3


class _LPPool(Module):
    __constants__ = ("ceil_mode", "kernel_size", "norm_type", "stride")
    rank: ClassVar[int]

    def __init__(
        self, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
    ) -> None:
        super().__init__()
        self.norm_type, self.kernel_size, self.stride, self.ceil_mode = norm_type, kernel_size, stride, ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        return _LP[self.rank](input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class LPPool1d(_LPPool):
    """(Σ xᵖ)^(1/p) over each window; see ``functional.lp_pool1d``. Shapes: (B, C, T) or (C, T) → (…, T')."""

    rank = 1


class LPPool2d(_LPPool):
    """As ``LPPool1d``, over two axes. Shapes: (B, C, H, W) or (C, H, W) → (…, H', W')."""

    rank = 2


class LPPool3d(_LPPool):
    """As ``LPPool1d``, over three axes. Shapes: (B, C, D, H, W) or (C, D, H, W) → (…, D', H', W')."""

    rank = 3


def _plain(output_size: OptionalSizes) -> OptionalSizes:
    return tuple(output_size) if isinstance(output_size, Sequence) else output_size


class _AdaptiveAvgPool(Module):
    __constants__ = ("output_size",)
    rank: ClassVar[int]

    def __init__(self, output_size: OptionalSizes) -> None:
        super().__init__()
        self.output_size = _plain(output_size)

    def forward(self, input: Tensor) -> Tensor:
        return _ADAPTIVE_AVG[self.rank](input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """The means of ``output_size`` windows that cover the input; see ``functional.adaptive_avg_pool1d``.

    Shapes: (B, C, T) or (C, T) → (…, output_size).
    """

    rank = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """As ``AdaptiveAvgPool1d``, over two axes; None keeps the size of an axis.

    Shapes: (B, C, H, W) or (C, H, W) → (…, *output_size); one number stands for both.
    """

    rank = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """As ``AdaptiveAvgPool2d``, over three axes. Shapes: (B, C, D, H, W) or (C, D, H, W) → (…, *output_size)."""

    rank = 3


class _AdaptiveMaxPool(Module):
    __constants__ = ("output_size", "return_indices")
    rank: ClassVar[int]

    def __init__(self, output_size: OptionalSizes, return_indices: bool = False) -> None:
        super().__init__()
        self.output_size, self.return_indices = _plain(output_size), return_indices

    def forward(self, input: Tensor) -> Any:
        return _ADAPTIVE_MAX[self.rank](input, self.output_size, self.return_indices)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """The maxima of ``output_size`` windows that cover the input; see ``functional.adaptive_max_pool1d``.

    ``return_indices``: (values, where they were). Shapes: (B, C, T) or (C, T) → (…, output_size).
    """

    rank = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """As ``AdaptiveMaxPool1d``, over two axes; None keeps the size of an axis.

    Shapes: (B, C, H, W) or (C, H, W) → (…, *output_size); one number stands for both.
    """

    rank = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """As ``AdaptiveMaxPool2d``, over three axes. Shapes: (B, C, D, H, W) or (C, D, H, W) → (…, *output_size)."""

    rank = 3


class _MaxUnpool(Module):
    __constants__ = ("kernel_size", "padding", "stride")
    rank: ClassVar[int]

    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0) -> None:
        super().__init__()
        what, rank = type(self).__name__, self.rank
        self.kernel_size = per_axis(f"{what}: kernel_size", kernel_size, rank)
        self.stride = self.kernel_size if stride is None else per_axis(f"{what}: stride", stride, rank)
        self.padding = per_axis(f"{what}: padding", padding, rank, 0)

    def forward(self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        return _UNPOOL[self.rank](input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """Maxima back in their places, zeros elsewhere; see ``functional.max_unpool1d``.

    Called with what ``MaxPool1d(…, return_indices=True)`` returned, and the size before it where that is ambiguous.

    Shapes: (B, C, T') or (C, T') → (…, T).

    >>> pool, unpool = MaxPool1d(2, return_indices=True), MaxUnpool1d(2)
    >>> unpool(*pool(Tensor([[1.0, 2.0, 4.0, 3.0]])))
    tensor([[0., 2., 4., 0.]])
    """

    rank = 1


class MaxUnpool2d(_MaxUnpool):
    """As ``MaxUnpool1d``, over two axes. Shapes: (B, C, H', W') or (C, H', W') → (…, H, W)."""

    rank = 2


class MaxUnpool3d(_MaxUnpool):
    """As ``MaxUnpool1d``, over three axes. Shapes: (B, C, D', H', W') or (C, D', H', W') → (…, D, H, W)."""

    rank = 3


class _FractionalMaxPool(Module):
    __constants__ = ("kernel_size", "output_ratio", "output_size", "return_indices")
    rank: ClassVar[int]

    def __init__(
        self,
        kernel_size: Sizes,
        output_size: Sizes | None = None,
        output_ratio: Ratios = None,
        return_indices: bool = False,
        _random_samples: Tensor | None = None,
    ) -> None:
        super().__init__()
        if (output_size is None) == (output_ratio is None):
            got = "neither" if output_size is None else "both"
            what = f"{type(self).__name__}: output_size and output_ratio"
            raise ConfigError(what, got=got, needed="one of them")
        self.kernel_size, self.output_size, self.output_ratio = kernel_size, output_size, output_ratio
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)

    def forward(self, input: Tensor) -> Any:
        return _FRACTIONAL[self.rank](
            input, self.kernel_size, self.output_size, self.output_ratio, self.return_indices, self._random_samples
        )


class FractionalMaxPool2d(_FractionalMaxPool):
    """The maxima of ``output_size`` windows whose starts are drawn; see ``functional.fractional_max_pool2d``.

    ``output_ratio``: the output's size as a share of the input's. ``return_indices``: (values, where they were).

    Shapes: (B, C, H, W) or (C, H, W) → (…, H', W').
    Note: as in PyTorch they are drawn in evaluation too, unless ``_random_samples`` gives them.
    """

    rank = 2


class FractionalMaxPool3d(_FractionalMaxPool):
    """As ``FractionalMaxPool2d``, over three axes. Shapes: (B, C, D, H, W) or (C, D, H, W) → (…, D', H', W')."""

    rank = 3

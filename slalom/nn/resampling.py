"""Layers that change the size of images and signals, or the order of channels."""

from __future__ import annotations

from collections.abc import Sequence

from slalom.core.tensor import Tensor
from slalom.nn import functional as F
from slalom.nn.module import Module

__all__ = [
    "ChannelShuffle",
    "PixelShuffle",
    "PixelUnshuffle",
    "Upsample",
    "UpsamplingBilinear2d",
    "UpsamplingNearest2d",
]

Numbers = float | Sequence[float]


def _floats(given: Numbers) -> Numbers:
    return tuple(map(float, given)) if isinstance(given, Sequence) else float(given)


class Upsample(Module):
    """The input at another size; see ``functional.interpolate``.

    ``size``: the last axes' new sizes, or ``scale_factor``: times the present ones. ``mode``: "nearest",
    "nearest-exact", "linear", "bilinear", "trilinear". ``align_corners``: whether the outermost elements keep their
    places, in the last three modes.

    Shapes: (B, C, T), (B, C, H, W) or (B, C, D, H, W) → the same with other last axes.
    """

    __constants__ = ("align_corners", "mode", "recompute_scale_factor", "scale_factor", "size")

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        scale_factor: Numbers | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        super().__init__()
        self.size = tuple(size) if isinstance(size, Sequence) else size
        self.scale_factor = None if scale_factor is None else _floats(scale_factor)
        self.mode, self.align_corners, self.recompute_scale_factor = mode, align_corners, recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.interpolate(
            input, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor
        )

    def extra_repr(self) -> str:
        size = f"size={self.size}" if self.scale_factor is None else f"scale_factor={self.scale_factor}"
        return f"{size}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """``Upsample`` of images, each element from the nearest one. Shapes: (B, C, H, W) → (B, C, H', W')."""

    def __init__(self, size: int | Sequence[int] | None = None, scale_factor: Numbers | None = None) -> None:
        super().__init__(size, scale_factor, "nearest")


class UpsamplingBilinear2d(Upsample):
    """``Upsample`` of images between neighbours, with aligned corners. Shapes: (B, C, H, W) → (B, C, H', W')."""

    def __init__(self, size: int | Sequence[int] | None = None, scale_factor: Numbers | None = None) -> None:
        super().__init__(size, scale_factor, "bilinear", True)


class PixelShuffle(Module):
    """r² channels of a pixel as r × r pixels of a channel. Shapes: (…, C·r², H, W) → (…, C, H·r, W·r)."""

    __constants__ = ("upscale_factor",)

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """The inverse of ``PixelShuffle``. Shapes: (…, C, H·r, W·r) → (…, C·r², H, W)."""

    __constants__ = ("downscale_factor",)

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = downscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"


class ChannelShuffle(Module):
    """The first channel of each group, then the second of each, and so on. Shapes: (B, C, …), unchanged."""

    __constants__ = ("groups",)

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, input: Tensor) -> Tensor:
        return F.channel_shuffle(input, self.groups)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"

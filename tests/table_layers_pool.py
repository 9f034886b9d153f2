"""Rows for pooling. Data only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from layer_rows import ONE, Row, Sample, Shape, joined, lines, through
from table_layers_conv import each

SIGNALS = lines((0, 2, 4), (2, 2, 7), (1, 1, 3), (2, 5), extra=(Sample((1, 2, 6), "kink", ONE),))
IMAGES = lines((0, 1, 4, 3), (2, 2, 3, 5), (1, 1, 3, 3), (2, 5, 4), extra=(Sample((1, 2, 4, 6), "kink", ONE),))
VOLUMES = lines((0, 1, 3, 3, 3), (1, 2, 3, 4, 3), (1, 1, 3, 3, 3), (1, 4, 3, 5))


def pooled(
    rank: int, k: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil: bool = False
) -> Callable[[Shape], Shape]:
    """The shape of what pooling makes of an input's shape."""

    def size(n: int, k: int, s: int, p: int, d: int) -> int:
        room = n + 2 * p - d * (k - 1) - 1
        count = (-(-room // s) if ceil else room // s) + 1
        return count - 1 if ceil and (count - 1) * s >= n + p else count

    def shape(given: Shape) -> Shape:
        settings = (each(v, rank) for v in (k, k if stride is None else stride, padding, dilation))
        return (*given[:-rank], *(size(*one) for one in zip(given[-rank:], *settings, strict=True)))

    return shape


def cut(rank: int, size: Any) -> Callable[[Shape], Shape]:
    def shape(given: Shape) -> Shape:
        wanted = (size,) * rank if not isinstance(size, tuple) else size
        return (*given[:-rank], *(n if m is None else m for m, n in zip(wanted, given[-rank:], strict=True)))

    return shape


def both(layer: Any, x: Any) -> Any:
    """Values and places of what returns both, as one vector."""
    values, places = layer.plain(x)
    return joined(values, places.to(values.dtype))


def twice(shape: Callable[[Shape], Shape]) -> Callable[[Shape], Shape]:
    def total(given: Shape) -> Shape:
        count = 2
        for n in shape(given):
            count *= n
        return (count,)

    return total


MAX = (
    Row(
        "MaxPool1d",
        lambda nn: nn.MaxPool1d(2),
        SIGNALS,
        out=pooled(1, 2),
        errors=(
            (Sample((4,)), r"MaxPool1d: max_pool1d: input: got shape \(4,\); needed \(B, C, T\) or \(C, T\)"),
            (Sample((1, 1, 1)), r"max_pool1d: the input's size: got \(1,\) with padding 0; needed room for a window o"),
        ),
        bad=(
            (lambda nn: nn.MaxPool1d(0)(nn.Parameter([[1.0]])), r"max_pool1d: kernel_size: got 0; needed a whole numb"),
            (lambda nn: nn.MaxPool1d(3, padding=2)(nn.Parameter([[1.0]])), r"padding: got 2; needed at most half of t"),
            (lambda nn: nn.MaxPool1d((1, 2))(nn.Parameter([[1.0]])), r"kernel_size: got \(1, 2\)"),
        ),
    ),
    Row("MaxPool1d", lambda nn: nn.MaxPool1d(3, 2, 1, 1, ceil_mode=True), SIGNALS, out=pooled(1, 3, 2, 1, 1, True),
        variant="ceil"),
    Row("MaxPool1d", lambda nn: nn.MaxPool1d(2, 1, 1, 2), SIGNALS, out=pooled(1, 2, 1, 1, 2), variant="dilated"),
    Row("MaxPool1d", lambda nn: through(nn.MaxPool1d(3, 1, return_indices=True), both), SIGNALS,
        out=twice(pooled(1, 3, 1)), variant="indices"),
    Row(
        "MaxPool2d",
        lambda nn: nn.MaxPool2d(2),
        IMAGES,
        out=pooled(2, 2),
        errors=((Sample((3, 4)), r"max_pool2d: input: got shape \(3, 4\); needed \(B, C, H, W\) or \(C, H, W\)"),),
    ),
    Row("MaxPool2d", lambda nn: nn.MaxPool2d((2, 3), (1, 2), (1, 1), (2, 1), False, True), IMAGES,
        out=pooled(2, (2, 3), (1, 2), (1, 1), (2, 1), True), variant="options"),
    Row("MaxPool2d", lambda nn: through(nn.MaxPool2d(3, 2, 1, return_indices=True), both), IMAGES,
        out=twice(pooled(2, 3, 2, 1)), variant="indices"),
    Row("MaxPool3d", lambda nn: nn.MaxPool3d(2, (1, 2, 2), (0, 1, 1)), VOLUMES, out=pooled(3, 2, (1, 2, 2), (0, 1, 1)),
        errors=((Sample((3, 3, 3)), r"max_pool3d: input: got shape \(3, 3, 3\); needed \(B, C, D, H, W\)"),)),
    Row("MaxPool3d", lambda nn: through(nn.MaxPool3d(2, 2, 0, (1, 2, 1), True, True), both), VOLUMES,
        out=twice(pooled(3, 2, 2, 0, (1, 2, 1), True)), variant="indices"),
)  # fmt: skip

AVG = (
    Row(
        "AvgPool1d",
        lambda nn: nn.AvgPool1d(2),
        SIGNALS,
        out=pooled(1, 2),
        errors=((Sample((4,)), r"AvgPool1d: avg_pool1d: input: got shape \(4,\); needed \(B, C, T\) or \(C, T\)"),),
        bad=((lambda nn: nn.AvgPool1d(0), r"AvgPool1d: kernel_size: got 0"),),
    ),
    Row("AvgPool1d", lambda nn: nn.AvgPool1d(3, 2, 1, True, False), SIGNALS, out=pooled(1, 3, 2, 1, 1, True),
        variant="options"),
    Row("AvgPool2d", lambda nn: nn.AvgPool2d(2), IMAGES, out=pooled(2, 2),
        errors=((Sample((1, 1, 1, 4)), r"avg_pool2d: the input's size: got \(1, 4\) with padding 0"),),
        bad=((lambda nn: nn.AvgPool2d(2, divisor_override=0)(nn.Parameter([[[1.0, 2], [3, 4]]])), r"divisor_overri"),)),
    Row("AvgPool2d", lambda nn: nn.AvgPool2d(3, (2, 1), 1, True, True), IMAGES, out=pooled(2, 3, (2, 1), 1, 1, True),
        variant="ceil"),
    Row("AvgPool2d", lambda nn: nn.AvgPool2d((2, 3), 2, (1, 1), False, False), IMAGES, out=pooled(2, (2, 3), 2, 1),
        variant="uncounted"),
    Row("AvgPool2d", lambda nn: nn.AvgPool2d(2, 1, 1, False, True, 3), IMAGES, out=pooled(2, 2, 1, 1),
        variant="divisor"),
    Row("AvgPool3d", lambda nn: nn.AvgPool3d(2, 1, (0, 1, 1), True, False, None), VOLUMES,
        out=pooled(3, 2, 1, (0, 1, 1), 1, True),
        errors=((Sample((2, 3, 3)), r"avg_pool3d: input: got shape \(2, 3, 3\); needed \(B, C, D, H, W\)"),)),
    Row("AvgPool3d", lambda nn: nn.AvgPool3d((1, 2, 2), divisor_override=3), VOLUMES, out=pooled(3, (1, 2, 2)),
        variant="divisor"),
)  # fmt: skip

LP = (
    Row("LPPool1d", lambda nn: nn.LPPool1d(2, 3), SIGNALS[:-1], out=pooled(1, 3),
        errors=((Sample((4,)), r"lp_pool1d: input: got shape \(4,\); needed \(B, C, T\)"),
            (Sample((1, 1, 2)), r"lp_pool1d: the input's size: got \(2,\) with padding 0")),
        bad=((lambda nn: nn.LPPool1d(0, 2)(nn.Parameter([[1.0, 2.0]])), r"lp_pool1d: norm_type: got 0.0; needed a"),)),
    Row("LPPool1d", lambda nn: nn.LPPool1d(4, 2, 1, True), SIGNALS[:-1], out=pooled(1, 2, 1, 0, 1, True),
        variant="options"),
    Row("LPPool2d", lambda nn: nn.LPPool2d(2.0, (2, 3), stride=2), IMAGES[:-1], out=pooled(2, (2, 3), 2),
        errors=((Sample((4, 4)), r"lp_pool2d: input: got shape \(4, 4\); needed \(B, C, H, W\)"),)),
    Row("LPPool2d", lambda nn: nn.LPPool2d(2, 2, ceil_mode=True), IMAGES[:-1], out=pooled(2, 2, None, 0, 1, True),
        variant="ceil"),
    Row("LPPool3d", lambda nn: nn.LPPool3d(2, 2), VOLUMES, out=pooled(3, 2),
        errors=((Sample((2, 3, 3)), r"lp_pool3d: input: got shape \(2, 3, 3\); needed \(B, C, D, H, W\)"),)),
    Row("LPPool3d", lambda nn: nn.LPPool3d(4, 2, (1, 2, 3), True), VOLUMES,
        out=pooled(3, 2, (1, 2, 3), 0, 1, True), variant="options"),
)  # fmt: skip

ADAPTIVE = (
    Row(
        "AdaptiveAvgPool1d",
        lambda nn: nn.AdaptiveAvgPool1d(3),
        SIGNALS,
        out=cut(1, 3),
        errors=(
            (Sample((4,)), r"AdaptiveAvgPool1d: adaptive_avg_pool1d: input: got shape \(4,\); needed \(B, C, T\)"),
            (Sample((1, 2, 0)), r"adaptive_avg_pool1d: input: got shape \(1, 2, 0\); needed at least one element"),
        ),
        bad=((lambda nn: nn.AdaptiveAvgPool1d(0)(nn.Parameter([[1.0]])), r"output_size: got 0; needed a whole numbe"),),
    ),
    Row("AdaptiveAvgPool2d", lambda nn: nn.AdaptiveAvgPool2d(1), IMAGES, out=cut(2, 1),
        errors=((Sample((4, 4)), r"adaptive_avg_pool2d: input: got shape \(4, 4\); needed \(B, C, H, W\)"),)),
    Row("AdaptiveAvgPool2d", lambda nn: nn.AdaptiveAvgPool2d((2, None)), IMAGES, out=cut(2, (2, None)), variant="kept"),
    Row("AdaptiveAvgPool3d", lambda nn: nn.AdaptiveAvgPool3d((2, 1, 4)), VOLUMES, out=cut(3, (2, 1, 4)),
        errors=((Sample((2, 3, 3)), r"adaptive_avg_pool3d: input: got shape \(2, 3, 3\); needed \(B, C, D, H, W\)"),)),
    Row("AdaptiveMaxPool1d", lambda nn: nn.AdaptiveMaxPool1d(3), SIGNALS, out=cut(1, 3),
        errors=((Sample((4,)), r"adaptive_max_pool1d: input: got shape \(4,\)"),)),
    Row("AdaptiveMaxPool2d", lambda nn: nn.AdaptiveMaxPool2d((None, 2)), IMAGES, out=cut(2, (None, 2)),
        errors=((Sample((4, 4)), r"adaptive_max_pool2d: input: got shape \(4, 4\); needed \(B, C, H, W\)"),)),
    Row("AdaptiveMaxPool2d", lambda nn: through(nn.AdaptiveMaxPool2d(2, True), both), IMAGES, out=twice(cut(2, 2)),
        variant="indices"),
    Row("AdaptiveMaxPool3d", lambda nn: nn.AdaptiveMaxPool3d(2), VOLUMES, out=cut(3, 2),
        errors=((Sample((2, 3, 3)), r"adaptive_max_pool3d: input: got shape \(2, 3, 3\); needed \(B, C, D, H, W\)"),)),
    Row("AdaptiveMaxPool1d", lambda nn: through(nn.AdaptiveMaxPool1d(2, True), both), SIGNALS, out=twice(cut(1, 2)),
        variant="indices"),
    Row("AdaptiveMaxPool3d", lambda nn: through(nn.AdaptiveMaxPool3d((2, 1, 3), True), both), VOLUMES,
        out=twice(cut(3, (2, 1, 3))), variant="indices"),
)  # fmt: skip

ROWS = (*MAX, *AVG, *LP, *ADAPTIVE)

FUNCTION_ROWS = (
    Row("max_pool1d", lambda nn: lambda x: nn.functional.max_pool1d(x, 2, 1), SIGNALS, out=pooled(1, 2, 1)),
    Row("max_pool2d", lambda nn: lambda x: nn.functional.max_pool2d(x, 2, ceil_mode=True), IMAGES,
        out=pooled(2, 2, None, 0, 1, True)),
    Row("max_pool3d", lambda nn: lambda x: nn.functional.max_pool3d(x, 2), VOLUMES, out=pooled(3, 2)),
    Row("avg_pool1d", lambda nn: lambda x: nn.functional.avg_pool1d(x, 2, 1, 1), SIGNALS, out=pooled(1, 2, 1, 1)),
    Row("avg_pool2d", lambda nn: lambda x: nn.functional.avg_pool2d(x, (1, 2)), IMAGES, out=pooled(2, (1, 2))),
    Row("avg_pool3d", lambda nn: lambda x: nn.functional.avg_pool3d(x, 2, divisor_override=-2), VOLUMES,
        out=pooled(3, 2)),
    Row("lp_pool1d", lambda nn: lambda x: nn.functional.lp_pool1d(x.abs(), 2.5, 2), SIGNALS[:-1], out=pooled(1, 2)),
    Row("lp_pool2d", lambda nn: lambda x: nn.functional.lp_pool2d(x, 2, 2, 1), IMAGES[:-1], out=pooled(2, 2, 1)),
    Row("lp_pool3d", lambda nn: lambda x: nn.functional.lp_pool3d(x, 2, 3), VOLUMES, out=pooled(3, 3)),
    Row("adaptive_avg_pool1d", lambda nn: lambda x: nn.functional.adaptive_avg_pool1d(x, 2), SIGNALS, out=cut(1, 2)),
    Row("adaptive_avg_pool2d", lambda nn: lambda x: nn.functional.adaptive_avg_pool2d(x, (4, 2)), IMAGES,
        out=cut(2, (4, 2))),
    Row("adaptive_avg_pool3d", lambda nn: lambda x: nn.functional.adaptive_avg_pool3d(x, (None, 2, 1)), VOLUMES,
        out=cut(3, (None, 2, 1))),
    Row("adaptive_max_pool1d", lambda nn: lambda x: nn.functional.adaptive_max_pool1d(x, 2), SIGNALS, out=cut(1, 2)),
    Row("adaptive_max_pool2d", lambda nn: lambda x: nn.functional.adaptive_max_pool2d(x, 2), IMAGES, out=cut(2, 2)),
    Row("adaptive_max_pool3d", lambda nn: lambda x: nn.functional.adaptive_max_pool3d(x, (1, 2, None)), VOLUMES,
        out=cut(3, (1, 2, None))),
)  # fmt: skip

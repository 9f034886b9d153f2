"""Rows for convolutions, their transposes, and windows as columns. Data only."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from layer_rows import ONE, Row, Sample, Shape, lines, through


def each(value: Any, rank: int) -> Shape:
    """A setting of one number for all axes, or of one for each."""
    return (value,) * rank if isinstance(value, int) else tuple(value)


def convolved(
    rank: int, out: int, k: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1
) -> Callable[..., Shape]:
    """The shape of what a convolution makes of an input's shape."""

    def shape(given: Shape) -> Shape:
        settings = (each(v, rank) for v in (k, stride, padding, dilation))
        sizes = zip(given[-rank:], *settings, strict=True)
        return (*given[: -rank - 1], out, *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes))

    return shape


def spread(
    rank: int, out: int, k: Any, stride: Any = 1, padding: Any = 0, extra: Any = 0, dilation: Any = 1
) -> Callable[..., Shape]:
    """The shape of what a transposed convolution makes of an input's shape."""

    def shape(given: Shape) -> Shape:
        settings = (each(v, rank) for v in (k, stride, padding, extra, dilation))
        sizes = zip(given[-rank:], *settings, strict=True)
        return (*given[: -rank - 1], out, *((n - 1) * s - 2 * p + d * (k - 1) + 1 + e for n, k, s, p, e, d in sizes))

    return shape


def state(*weight: int, bias: int = 0) -> dict[str, Shape]:
    return {"weight": weight} | ({"bias": (bias,)} if bias else {})


SIGNALS = lines((0, 2, 4), (2, 2, 6), (1, 2, 3), (2, 7))
"""With a batch of none, of one whose length is the kernel's, and a single example."""
IMAGES = lines((0, 2, 4, 3), (2, 2, 3, 5), (1, 2, 2, 3), (2, 5, 4))
VOLUMES = lines((0, 2, 2, 3, 2), (1, 2, 2, 3, 4), (2, 2, 2, 2, 2), (2, 3, 2, 3))
FOUR = lines((0, 4, 6), (2, 4, 7), (1, 4, 5), (4, 8))
FOUR_IMAGES = lines((0, 4, 5, 4), (1, 4, 5, 7), (2, 4, 5, 4), (4, 6, 5))

FORWARD = (
    Row(
        "Conv1d",
        lambda nn: nn.Conv1d(2, 3, 3),
        SIGNALS,
        out=convolved(1, 3, 3),
        state=state(3, 2, 3, bias=3),
        errors=(
            (Sample((2, 3, 6)), r"Conv1d 2→3: input has 3 channels, needs 2; input shape \(2, 3, 6\)"),
            (Sample((6,)), r"Conv1d 2→3: conv1d: input: got shape \(6,\); needed \(B, C, T\) or \(C, T\)"),
            (Sample((1, 2, 3, 4)), r"needed \(B, C, T\) or \(C, T\)"),
            (
                Sample((2, 2, 2)),
                r"conv1d: the input's size: got \(2,\) with its padding; needed at least \(3,\), which",
            ),
        ),
        bad=(
            (lambda nn: nn.Conv1d(4, 6, 3, groups=4), r"groups: got 4; needed a number that divides 4 input and 6 out"),
            (lambda nn: nn.Conv1d(4, 6, 3, groups=0), r"Conv1d: groups: got 0"),
            (lambda nn: nn.Conv1d(2, 2, 3, stride=2, padding="same"), r"'same' with stride: got \(2,\); needed a stri"),
            (lambda nn: nn.Conv1d(2, 2, 3, padding="full"), r"padding: got 'full'; needed numbers, 'same' or 'valid'"),
            (
                lambda nn: nn.Conv1d(2, 2, 3, padding_mode="mirror"),
                r"padding_mode: got 'mirror'; needed one of 'zeros'",
            ),
            (lambda nn: nn.Conv1d(2, 2, 0), r"kernel_size: got 0; needed a whole number of at least 1"),
            (lambda nn: nn.Conv1d(2, 2, (2, 3)), r"kernel_size: got \(2, 3\); needed a whole number of at least 1"),
            (lambda nn: nn.Conv1d(2, 2, 2, stride=0), r"stride: got 0"),
            (lambda nn: nn.Conv1d(2, 2, 2, padding=-1), r"padding: got -1; needed a whole number of at least 0"),
            (lambda nn: nn.Conv1d(2, 2, 2.5), r"kernel_size: got 2.5; needed whole numbers"),
        ),
    ),
    Row(
        "Conv1d",
        lambda nn: nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2, bias=False),
        FOUR,
        out=convolved(1, 6, 3, 2, 2, 2),
        state=state(6, 2, 3),
        variant="options",
    ),
    Row(
        "Conv1d",
        lambda nn: nn.Conv1d(2, 3, 4, padding="same", dilation=1),
        SIGNALS,
        out=lambda s: (*s[:-2], 3, s[-1]),
        state=state(3, 2, 4, bias=3),
        variant="same",
    ),
    Row(
        "Conv1d",
        lambda nn: nn.Conv1d(2, 2, 2, padding="same", padding_mode="circular", groups=2),
        SIGNALS,
        state=state(2, 1, 2, bias=2),
        variant="circular",
    ),
    Row(
        "Conv2d",
        lambda nn: nn.Conv2d(2, 3, (2, 3)),
        IMAGES,
        out=convolved(2, 3, (2, 3)),
        state=state(3, 2, 2, 3, bias=3),
        errors=(
            (Sample((2, 3, 4, 5)), r"Conv2d 2→3: input has 3 channels, needs 2; input shape \(2, 3, 4, 5\)"),
            (Sample((4, 5)), r"conv2d: input: got shape \(4, 5\); needed \(B, C, H, W\) or \(C, H, W\)"),
            (
                Sample((1, 2, 4, 2)),
                r"got \(4, 2\) with its padding; needed at least \(2, 3\), which the kernel \(2, 3\)",
            ),
        ),
        bad=((lambda nn: nn.Conv2d(2, 3, (1, 2, 3)), r"got \(1, 2, 3\); needed .* at least 1, or 2 of them"),),
    ),
    Row(
        "Conv2d",
        lambda nn: nn.Conv2d(4, 2, (3, 2), stride=(2, 1), padding=(0, 1), dilation=(1, 3), groups=2, bias=False),
        FOUR_IMAGES,
        out=convolved(2, 2, (3, 2), (2, 1), (0, 1), (1, 3)),
        state=state(2, 2, 3, 2),
        variant="options",
    ),
    Row(
        "Conv2d",
        lambda nn: nn.Conv2d(2, 4, 3, 2, 1, groups=2),
        IMAGES,
        out=convolved(2, 4, 3, 2, 1),
        state=state(4, 1, 3, 3, bias=4),
        variant="depthwise",
    ),
    Row(
        "Conv2d",
        lambda nn: nn.Conv2d(2, 1, 2, stride=3, padding="valid"),
        IMAGES,
        out=convolved(2, 1, 2, 3),
        state=state(1, 2, 2, 2, bias=1),
        variant="gaps",
    ),
    Row(
        "Conv2d",
        lambda nn: nn.Conv2d(2, 3, 1),
        IMAGES,
        out=convolved(2, 3, 1),
        state=state(3, 2, 1, 1, bias=3),
        variant="pixels",
    ),
    Row(
        "Conv2d",
        lambda nn: nn.Conv2d(2, 2, 3, padding=(1, 2), padding_mode="reflect", bias=False),
        lines((0, 2, 3, 3), (1, 2, 4, 3), (2, 2, 2, 3), (2, 3, 4)),
        out=convolved(2, 2, 3, 1, (1, 2)),
        state=state(2, 2, 3, 3),
        errors=(
            (Sample((1, 2, 3, 2)), r"pad: reflect: got widths 2 and 2 for an axis of 2; needed at most 1 elements"),
        ),
        variant="reflect",
    ),
    Row(
        "Conv2d",
        lambda nn: nn.Conv2d(2, 2, 2, padding=1, padding_mode="replicate"),
        IMAGES,
        out=convolved(2, 2, 2, 1, 1),
        state=state(2, 2, 2, 2, bias=2),
        variant="replicate",
    ),
    Row(
        "Conv3d",
        lambda nn: nn.Conv3d(2, 2, 2),
        VOLUMES,
        out=convolved(3, 2, 2),
        state=state(2, 2, 2, 2, 2, bias=2),
        errors=(
            (Sample((2, 2, 2)), r"conv3d: input: got shape \(2, 2, 2\); needed \(B, C, D, H, W\) or \(C, D, H, W\)"),
        ),
    ),
    Row(
        "Conv3d",
        lambda nn: nn.Conv3d(2, 2, (1, 2, 3), (1, 2, 1), (0, 1, 1), (2, 1, 1), 2, False),
        VOLUMES,
        out=convolved(3, 2, (1, 2, 3), (1, 2, 1), (0, 1, 1), (2, 1, 1)),
        state=state(2, 1, 1, 2, 3),
        variant="options",
    ),
    Row(
        "Conv3d",
        lambda nn: nn.Conv3d(2, 1, 2, padding=(0, 1, 2), padding_mode="circular"),
        VOLUMES,
        out=convolved(3, 1, 2, 1, (0, 1, 2)),
        state=state(1, 2, 2, 2, 2, bias=1),
        variant="circular",
    ),
)

TRANSPOSED = (
    Row(
        "ConvTranspose1d",
        lambda nn: nn.ConvTranspose1d(2, 3, 3),
        SIGNALS,
        out=spread(1, 3, 3),
        state=state(2, 3, 3, bias=3),
        errors=(
            (Sample((2, 3, 6)), r"ConvTranspose1d 2→3: input has 3 channels, needs 2; input shape \(2, 3, 6\)"),
            (Sample((6,)), r"conv_transpose1d: input: got shape \(6,\); needed \(B, C, T\) or \(C, T\)"),
            (
                Sample((1, 2, 0)),
                r"conv_transpose1d: the output's size: got input shape \(1, 2, 0\), padding \(0,\); need",
            ),
        ),
        bad=(
            (lambda nn: nn.ConvTranspose1d(4, 6, 3, groups=3), r"ConvTranspose1d: groups: got 3"),
            (lambda nn: nn.ConvTranspose1d(2, 2, 3, padding_mode="reflect"), r"padding_mode: got 'reflect'; needed 'z"),
            (
                lambda nn: nn.ConvTranspose1d(1, 1, 3, stride=2, output_padding=2)(nn.Parameter([[1.0]])),
                r"output_padding: got \(2,\); needed less than the stride \(2,\) or the dilation \(1,\)",
            ),
            (
                lambda nn: nn.ConvTranspose1d(1, 1, 3, 2)(nn.Parameter([[1.0, 2.0]]), output_size=(7,)),
                r"ConvTranspose1d 1→1: output_size: got \(7,\); needed \(5,\) to \(6,\) for input shape \(1, 2\)",
            ),
        ),
    ),
    Row(
        "ConvTranspose1d",
        lambda nn: nn.ConvTranspose1d(4, 6, 3, 2, 1, 1, 2, False, 2),
        FOUR,
        out=spread(1, 6, 3, 2, 1, 1, 2),
        state=state(4, 3, 3),
        variant="options",
    ),
    Row(
        "ConvTranspose1d",
        lambda nn: through(nn.ConvTranspose1d(2, 1, 2, 3, 1), lambda f, x: f.plain(x, (3 * x.shape[-1] - 1,))),
        SIGNALS,
        out=lambda s: (*s[:-2], 1, 3 * s[-1] - 1),
        state=state(2, 1, 2, bias=1),
        variant="sized",
    ),
    Row(
        "ConvTranspose2d",
        lambda nn: nn.ConvTranspose2d(2, 3, (2, 3)),
        IMAGES,
        out=spread(2, 3, (2, 3)),
        state=state(2, 3, 2, 3, bias=3),
        errors=(
            (Sample((4, 5)), r"conv_transpose2d: input: got shape \(4, 5\); needed \(B, C, H, W\) or \(C, H, W\)"),
        ),
    ),
    Row(
        "ConvTranspose2d",
        lambda nn: nn.ConvTranspose2d(4, 2, (3, 2), (2, 1), (1, 0), (1, 2), 2, False, (1, 3)),
        lines((0, 4, 2, 2), (1, 4, 2, 3), (2, 4, 1, 2), (4, 3, 2)),
        out=spread(2, 2, (3, 2), (2, 1), (1, 0), (1, 2), (1, 3)),
        state=state(4, 1, 3, 2),
        variant="options",
    ),
    Row(
        "ConvTranspose2d",
        lambda nn: nn.ConvTranspose2d(2, 2, 2, stride=2, groups=2),
        IMAGES,
        out=spread(2, 2, 2, 2),
        state=state(2, 1, 2, 2, bias=2),
        variant="depthwise",
    ),
    Row(
        "ConvTranspose3d",
        lambda nn: nn.ConvTranspose3d(2, 1, (1, 2, 2), (2, 1, 1), (0, 1, 0), (1, 0, 0)),
        VOLUMES,
        out=spread(3, 1, (1, 2, 2), (2, 1, 1), (0, 1, 0), (1, 0, 0)),
        state=state(2, 1, 1, 2, 2, bias=1),
        errors=(
            (Sample((2, 3, 3)), r"conv_transpose3d: input: got shape \(2, 3, 3\); needed \(B, C, D, H, W\) or \(C, D"),
            (
                Sample((1, 1, 2, 2, 2)),
                r"ConvTranspose3d 2→1: input has 1 channels, needs 2; input shape \(1, 1, 2, 2, 2\)",
            ),
        ),
    ),
    Row(
        "ConvTranspose3d",
        lambda nn: nn.ConvTranspose3d(2, 4, (1, 2, 2), groups=2, bias=False, dilation=(1, 2, 1)),
        VOLUMES,
        out=spread(3, 4, (1, 2, 2), dilation=(1, 2, 1)),
        state=state(2, 2, 1, 2, 2),
        variant="grouped",
    ),
)


def columns(k: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> Callable[[Shape], Shape]:
    """The shape of the columns that unfold makes of an image's shape."""

    def shape(given: Shape) -> Shape:
        *lead, channels, h, w = convolved(2, given[-3], k, stride, padding, dilation)(given)
        return (*lead, channels * prod(each(k, 2)), h * w)

    return shape


COLUMNS = (
    Row(
        "Unfold",
        lambda nn: nn.Unfold(2),
        lines((0, 2, 4, 3), (2, 2, 3, 4), (1, 1, 2, 2), (2, 3, 2)),
        out=columns(2),
        errors=(
            (Sample((2, 3)), r"Unfold: unfold: input: got shape \(2, 3\); needed \(B, C, H, W\) or \(C, H, W\)"),
            (
                Sample((1, 2, 1, 3)),
                r"unfold: the input's size: got \(1, 3\) with its padding; needed at least one window",
            ),
        ),
    ),
    Row(
        "Unfold",
        lambda nn: nn.Unfold((2, 3), dilation=(1, 2), padding=(1, 2), stride=2),
        lines((0, 2, 4, 3), (2, 2, 3, 4), (1, 1, 2, 2), (2, 3, 2)),
        out=columns((2, 3), 2, (1, 2), (1, 2)),
        variant="options",
    ),
    Row(
        "Fold",
        lambda nn: nn.Fold((3, 4), 2),
        lines((0, 4, 6), (3, 4, 6), (1, 8, 6), (4, 6)),
        out=lambda s: (*s[:-2], s[-2] // 4, 3, 4),
        errors=(
            (Sample((2, 5, 6)), r"Fold: fold: input: got shape \(2, 5, 6\); needed a multiple of 4 rows and 6 windows"),
            (Sample((2, 4, 5)), r"needed a multiple of 4 rows and 6 windows, for an output of \(3, 4\)"),
            (Sample((6,)), r"fold: input: got shape \(6,\); needed \(B, C·kh·kw, L\)"),
        ),
    ),
    Row(
        "Fold",
        lambda nn: nn.Fold(4, (2, 3), dilation=(2, 1), padding=(1, 0), stride=(1, 2)),
        # No plain memory: there NaN is looked for in the result, of the first element, which ends up in the padding.
        tuple(
            Sample(shape, how, ONE)
            for shape in ((0, 6, 4), (2, 6, 4), (1, 12, 4), (6, 4))
            for how in ("transposed", "strided")
        ),
        out=lambda s: (*s[:-2], s[-2] // 6, 4, 4),
        variant="options",
    ),
)

ROWS = (*FORWARD, *TRANSPOSED, *COLUMNS)


def channels(x: Any, rank: int) -> Any:
    """A weight that depends on the input: all of it summed, for 2 output and the given input channels, of size 2."""
    return (x.sum() * 0.1).reshape((1,) * (rank + 2)).expand((2, 2, *(2,) * rank))


FUNCTION_ROWS = (
    Row("conv1d", lambda nn: lambda x: nn.functional.conv1d(x, channels(x, 1), stride=2), SIGNALS,
        out=convolved(1, 2, 2, 2),
        errors=((Sample((2, 4, 5)), r"input has 4 channels, needs 2"),),
        bad=(
            (lambda nn: nn.functional.conv1d(nn.Parameter([[1.0]]), nn.Parameter([1.0])), r"weight: got shape \(1,\)"),
            (lambda nn: nn.functional.conv1d(nn.Parameter([[1.0]]), nn.Parameter([[[1.0]]]), nn.Parameter([1.0, 2.0])),
             r"conv1d: bias: got \(2,\); needed \(1,\)"),
            (lambda nn: nn.functional.conv1d(nn.Parameter([[1.0]]), nn.Parameter([[[1.0]]]), padding="all"),
             r"conv1d: padding: got 'all'"),
            (lambda nn: nn.functional.conv1d(nn.Parameter([[1.0]]), nn.Parameter([[[1.0]]]), groups=2), r"groups: got"),
        )),
    Row("conv2d", lambda nn: lambda x: nn.functional.conv2d(x, channels(x, 2), None, 1, "same"), IMAGES),
    Row("conv3d", lambda nn: lambda x: nn.functional.conv3d(x, channels(x, 3), x.sum().reshape(1).expand(2)), VOLUMES,
        out=convolved(3, 2, 2)),
    Row("conv_transpose1d", lambda nn: lambda x: nn.functional.conv_transpose1d(x, channels(x, 1)), SIGNALS,
        out=spread(1, 2, 2)),
    Row("conv_transpose2d", lambda nn: lambda x: nn.functional.conv_transpose2d(x, channels(x, 2), None, 2, 1, 1),
        IMAGES, out=spread(2, 2, 2, 2, 1, 1)),
    Row("conv_transpose3d", lambda nn: lambda x: nn.functional.conv_transpose3d(x, channels(x, 3)), VOLUMES,
        out=spread(3, 2, 2)),
    Row("unfold", lambda nn: lambda x: nn.functional.unfold(x, 2, 1, 1, 2),
        lines((0, 2, 4, 3), (2, 2, 3, 4), (1, 1, 2, 2), (2, 3, 2)), out=columns(2, 2, 1)),
    Row("fold", lambda nn: lambda x: nn.functional.fold(x, (3, 4), 2), lines((0, 4, 6), (2, 4, 6), (1, 8, 6), (4, 6)),
        out=lambda s: (*s[:-2], s[-2] // 4, 3, 4)),
)  # fmt: skip

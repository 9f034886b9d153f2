"""Rows for padding. Data only."""

from __future__ import annotations

from collections.abc import Callable

from layer_rows import Row, Sample, Shape, lines

SIGNALS = lines((0, 2, 3), (2, 2, 4), (1, 1, 3), (2, 5))
IMAGES = lines((0, 2, 3, 3), (2, 1, 3, 4), (1, 1, 4, 3), (2, 3, 3))
VOLUMES = lines((0, 1, 2, 2, 3), (1, 2, 2, 3, 2), (1, 1, 2, 2, 2), (2, 3, 2, 2))


def wider(*widths: int) -> Callable[[Shape], Shape]:
    """The shape that widths, as ``pad`` takes them, make of a shape."""
    added = [a + b for a, b in zip(widths[::2], widths[1::2], strict=True)][::-1]

    def shape(given: Shape) -> Shape:
        k = len(given) - len(added)
        return (*given[:k], *(n + more for n, more in zip(given[k:], added, strict=True)))

    return shape


CONSTANT = (
    Row("ConstantPad1d", lambda nn: nn.ConstantPad1d((2, 1), 3.5), SIGNALS, out=wider(2, 1),
        bad=((lambda nn: nn.ConstantPad1d((1, 2, 3), 1.0), r"ConstantPad1d: padding: got \(1, 2, 3\); needed a who"),)),
    Row("ConstantPad2d", lambda nn: nn.ConstantPad2d(1, -1.0), IMAGES, out=wider(1, 1, 1, 1)),
    Row("ConstantPad2d", lambda nn: nn.ConstantPad2d((2, -1, 0, 1), 0.5), IMAGES, out=wider(2, -1, 0, 1),
        errors=((Sample((2, 3, 0)), r"pad: got widths \(2, -1, 0, 1\) for shape \(2, 3, 0\); needed no more cropped"),),
        variant="crop"),
    Row("ConstantPad3d", lambda nn: nn.ConstantPad3d((1, 0, 0, 2, 1, 1), 2.0), VOLUMES, out=wider(1, 0, 0, 2, 1, 1),
        errors=((Sample((4,)), r"ConstantPad3d: pad: got 6 widths; needed pairs for at most 1 axes"),)),
    Row("ZeroPad1d", lambda nn: nn.ZeroPad1d(2), SIGNALS, out=wider(2, 2)),
    Row("ZeroPad2d", lambda nn: nn.ZeroPad2d((1, 2, 0, 1)), IMAGES, out=wider(1, 2, 0, 1),
        errors=((Sample((4,)), r"ZeroPad2d: pad: got 4 widths; needed pairs for at most 1 axes"),)),
    Row("ZeroPad3d", lambda nn: nn.ZeroPad3d(1), VOLUMES, out=wider(1, 1, 1, 1, 1, 1),
        errors=((Sample((4,)), r"ZeroPad3d: pad: got 6 widths; needed pairs for at most 1 axes"),)),
)  # fmt: skip

MIRRORS = (
    Row(
        "ReflectionPad1d",
        lambda nn: nn.ReflectionPad1d((2, 1)),
        SIGNALS,
        out=wider(2, 1),
        errors=(
            (
                Sample((1, 1, 2)),
                r"ReflectionPad1d: pad: reflect: got widths 2 and 1 for an axis of 2; needed at most 1 e",
            ),
            (Sample((4,)), r"ReflectionPad1d: input: got shape \(4,\); needed 2 or 3 dimensions"),
        ),
    ),
    Row("ReflectionPad1d", lambda nn: nn.ReflectionPad1d((2, -1)), SIGNALS, out=wider(2, -1), variant="crop"),
    Row(
        "ReflectionPad2d",
        lambda nn: nn.ReflectionPad2d(2),
        IMAGES,
        out=wider(2, 2, 2, 2),
        errors=((Sample((4, 4)), r"ReflectionPad2d: input: got shape \(4, 4\); needed 3 or 4 dimensions"),),
    ),
    Row(
        "ReflectionPad3d",
        lambda nn: nn.ReflectionPad3d((1, 0, 0, 1, 1, 1)),
        VOLUMES,
        out=wider(1, 0, 0, 1, 1, 1),
        errors=((Sample((4, 4)), r"ReflectionPad3d: input: got shape \(4, 4\); needed 4 or 5 dimensions"),),
    ),
    Row(
        "ReplicationPad1d",
        lambda nn: nn.ReplicationPad1d(3),
        SIGNALS,
        out=wider(3, 3),
        errors=(
            (Sample((1, 2, 0)), r"pad: replicate: got widths 3 and 3 for an axis of 0; needed at most 0 elements"),
        ),
    ),
    Row(
        "ReplicationPad2d",
        lambda nn: nn.ReplicationPad2d((1, 2, 0, 3)),
        IMAGES,
        out=wider(1, 2, 0, 3),
        errors=((Sample((4, 4)), r"ReplicationPad2d: input: got shape \(4, 4\); needed 3 or 4 dimensions"),),
    ),
    Row(
        "ReplicationPad3d",
        lambda nn: nn.ReplicationPad3d((0, 1, 2, 0, 1, 1)),
        VOLUMES,
        out=wider(0, 1, 2, 0, 1, 1),
        errors=((Sample((4, 4)), r"ReplicationPad3d: input: got shape \(4, 4\); needed 4 or 5 dimensions"),),
    ),
    Row(
        "CircularPad1d",
        lambda nn: nn.CircularPad1d((3, 2)),
        SIGNALS,
        out=wider(3, 2),
        errors=(
            (Sample((1, 1, 2)), r"CircularPad1d: pad: circular: got widths 3 and 2 for an axis of 2; needed at most 2"),
        ),
    ),
    Row(
        "CircularPad2d",
        lambda nn: nn.CircularPad2d((1, 2, 3, 0)),
        IMAGES,
        out=wider(1, 2, 3, 0),
        errors=((Sample((4, 4)), r"CircularPad2d: input: got shape \(4, 4\); needed 3 or 4 dimensions"),),
    ),
    Row(
        "CircularPad3d",
        lambda nn: nn.CircularPad3d(1),
        VOLUMES,
        out=wider(1, 1, 1, 1, 1, 1),
        errors=((Sample((4, 4)), r"CircularPad3d: input: got shape \(4, 4\); needed 4 or 5 dimensions"),),
    ),
)

ROWS = (*CONSTANT, *MIRRORS)

FUNCTION_ROWS = (
    Row("pad", lambda nn: lambda x: nn.functional.pad(x, (1, 2), "reflect"), SIGNALS, out=wider(1, 2),
        bad=(
            (lambda nn: nn.functional.pad(nn.Parameter([1.0]), (1, 1), "mirror"), r"pad: mode: got 'mirror'; needed o"),
            (lambda nn: nn.functional.pad(nn.Parameter([1.0]), (1, 1), "reflect", 2.0), r"value in mode 'reflect': go"),
            (lambda nn: nn.functional.pad(nn.Parameter([1.0]), (1, 1, 1)), r"pad: got 3 widths; needed pairs for at m"),
        ),
        variant="reflect"),
    Row("pad", lambda nn: lambda x: nn.functional.pad(x, (1, 2, -1, 3), "circular"),
        lines((0, 2, 4, 3), (2, 1, 4, 4), (1, 1, 4, 3), (2, 5, 3)), out=wider(1, 2, -1, 3), variant="circular"),
    Row("pad", lambda nn: lambda x: nn.functional.pad(x, (-1, 2, 4, -2), "replicate"), IMAGES, out=wider(-1, 2, 4, -2),
        variant="replicate"),
)  # fmt: skip

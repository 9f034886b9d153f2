"""Rows for dropout of channels, other sizes and orders of channels, products of two inputs, steps. Data only."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from layer_rows import BOTH, ONE, ROWS_OF_5, Row, Sample, Shape, last, library, lines, on_a_copy, through

SIGNALS = lines((0, 2, 3), (2, 2, 4), (1, 1, 3), (2, 5), modes=BOTH)
IMAGES = lines((0, 2, 3, 2), (2, 1, 3, 4), (1, 2, 1, 3), (2, 3, 3), modes=BOTH)
VOLUMES = lines((0, 1, 2, 2, 3), (1, 2, 2, 3, 2), (1, 1, 2, 2, 2), (2, 3, 2, 2), modes=BOTH)
ANY = lines((0, 5), (4, 5), (1, 1), (7,), (2, 3, 2), modes=BOTH)
CHANNELS = lines((0, 2, 3), (2, 3), (1, 1, 3), (3, 2, 2), modes=BOTH)

DROPOUT = (
    Row("Dropout1d", lambda nn: nn.Dropout1d(0.4), SIGNALS, random=True,
        errors=((Sample((4,)), r"Dropout1d: dropout1d: input: got shape \(4,\); needed 2 or 3 dimensions"),),
        bad=((lambda nn: nn.Dropout1d(2), r"Dropout1d: p: got 2; needed a probability, 0 to 1"),)),
    Row("Dropout2d", lambda nn: nn.Dropout2d(), IMAGES, random=True,
        errors=((Sample((4, 2)), r"dropout2d: input: got shape \(4, 2\); needed 3 or 4 dimensions"),)),
    Row("Dropout3d", lambda nn: nn.Dropout3d(0.6), VOLUMES, random=True,
        errors=((Sample((4, 2)), r"dropout3d: input: got shape \(4, 2\); needed 4 or 5 dimensions"),)),
    Row("Dropout2d", lambda nn: on_a_copy(nn.Dropout2d(1.0, True)), IMAGES, variant="all"),
    Row("AlphaDropout", lambda nn: nn.AlphaDropout(0.3), ANY, random=True,
        bad=((lambda nn: nn.AlphaDropout(-1), r"AlphaDropout: p: got -1; needed a probability, 0 to 1"),)),
    Row("AlphaDropout", lambda nn: on_a_copy(nn.AlphaDropout(0.0, True)), ANY, variant="none"),
    Row("AlphaDropout", lambda nn: nn.AlphaDropout(1.0), ANY, variant="all"),
    Row("FeatureAlphaDropout", lambda nn: nn.FeatureAlphaDropout(), CHANNELS, random=True,
        errors=((Sample((3,)), r"feature_alpha_dropout: input: got shape \(3,\); needed \(B, C, …\)"),)),
    Row("FeatureAlphaDropout", lambda nn: on_a_copy(nn.FeatureAlphaDropout(0.3, True)), CHANNELS, random=True,
        variant="inplace"),
    Row("Dropout1d", lambda nn: on_a_copy(nn.Dropout1d(0.6, True)), SIGNALS, random=True, variant="inplace"),
    Row("Dropout3d", lambda nn: on_a_copy(nn.Dropout3d(0.4, True)), VOLUMES, random=True, variant="inplace"),
)  # fmt: skip


def resized(*sizes: int) -> Callable[[Shape], Shape]:
    return lambda shape: (*shape[:2], *sizes)


def scaled(*factors: float) -> Callable[[Shape], Shape]:
    return lambda shape: (*shape[:2], *(math.floor(n * f) for n, f in zip(shape[2:], factors, strict=True)))


T = lines((0, 2, 3), (2, 2, 4), (1, 1, 1), (1, 2, 5))
HW = lines((0, 2, 3, 2), (2, 1, 3, 4), (1, 1, 1, 1), (1, 2, 2, 5))
DHW = lines((0, 1, 2, 2, 3), (1, 2, 2, 3, 2), (1, 1, 1, 1, 1), (1, 1, 3, 2, 2))

SIZES = (
    Row(
        "Upsample",
        lambda nn: nn.Upsample(scale_factor=2),
        HW,
        out=scaled(2, 2),
        errors=(
            (Sample((2, 3)), r"Upsample: interpolate: input in mode 'nearest': got shape \(2, 3\); needed 3 to 5 dim"),
            (Sample((1, 2, 0)), r"interpolate: input: got last axes \(0,\); needed at least one element on each"),
        ),
        bad=(
            (lambda nn: nn.Upsample()(nn.Parameter([[[1.0]]])), r"size and scale_factor: got neither; needed one of t"),
            (lambda nn: nn.Upsample(2, 2)(nn.Parameter([[[1.0]]])), r"size and scale_factor: got both; needed one of"),
            (lambda nn: nn.Upsample(2, mode="cubic")(nn.Parameter([[[1.0]]])), r"interpolate: mode: got 'cubic'"),
            (lambda nn: nn.Upsample(2, align_corners=True)(nn.Parameter([[[1.0]]])), r"align_corners in mode 'nearest"),
            (lambda nn: nn.Upsample(2, mode="bilinear")(nn.Parameter([[[1.0]]])), r"in mode 'bilinear': .*needed 4 di"),
            (lambda nn: nn.Upsample((1, 2))(nn.Parameter([[[1.0]]])), r"interpolate: size: got \(1, 2\)"),
            (lambda nn: nn.Upsample(scale_factor=(1, 2))(nn.Parameter([[[1.0]]])), r"scale_factor: got \(1.0, 2.0\)"),
            (lambda nn: nn.Upsample(scale_factor=0.5)(nn.Parameter([[[1.0]]])), r"scale_factor: got 0.5 for \(1,\); n"),
            (lambda nn: nn.Upsample(3, None, "nearest", None, True)(nn.Parameter([[[1.0]]])), r"recompute_scale_facto"),
        ),
    ),
    Row("Upsample", lambda nn: nn.Upsample(5), T, out=resized(5), variant="size"),
    Row("Upsample", lambda nn: nn.Upsample((3, 7), mode="nearest-exact"), HW, out=resized(3, 7), variant="exact"),
    Row("Upsample", lambda nn: nn.Upsample(scale_factor=2.5, mode="linear", align_corners=True), T, out=scaled(2.5),
        variant="linear"),
    Row("Upsample", lambda nn: nn.Upsample(scale_factor=(2, 1.7), mode="bilinear", align_corners=False), HW,
        out=scaled(2, 1.7), variant="bilinear"),
    Row("Upsample", lambda nn: nn.Upsample(None, 1.6, "trilinear", None, True), DHW, out=scaled(1.6, 1.6, 1.6),
        variant="trilinear"),
    Row("UpsamplingNearest2d", lambda nn: nn.UpsamplingNearest2d(scale_factor=(3, 2)), HW, out=scaled(3, 2),
        errors=((Sample((2, 3)), r"UpsamplingNearest2d: interpolate: input in mode 'nearest': got shape \(2, 3\)"),)),
    Row("UpsamplingBilinear2d", lambda nn: nn.UpsamplingBilinear2d((4, 3)), HW, out=resized(4, 3),
        errors=((Sample((1, 2, 3)), r"UpsamplingBilinear2d: interpolate: input in mode 'bilinear': got shape"),)),
    Row("UpsamplingNearest2d", lambda nn: nn.UpsamplingNearest2d((2, 5)), HW, out=resized(2, 5), variant="size"),
    Row("UpsamplingBilinear2d", lambda nn: nn.UpsamplingBilinear2d(scale_factor=2), HW, out=scaled(2, 2),
        variant="factor"),
)  # fmt: skip


def shuffled(r: int) -> Callable[[Shape], Shape]:
    return lambda s: (*s[:-3], s[-3] // (r * r), s[-2] * r, s[-1] * r)


def unshuffled(r: int) -> Callable[[Shape], Shape]:
    return lambda s: (*s[:-3], s[-3] * r * r, s[-2] // r, s[-1] // r)


ORDER = (
    Row(
        "PixelShuffle",
        lambda nn: nn.PixelShuffle(2),
        # No empty batch: of that PyTorch 2.13 gives no gradient (tests/test_image_layers.py has it).
        lines((3, 4, 2, 3), (2, 4, 1, 2), (1, 8, 1, 1), (4, 2, 3), (2, 1, 4, 2, 1)),
        out=shuffled(2),
        errors=(
            (Sample((6, 2, 2)), r"pixel_shuffle: channels: got 6 of shape \(6, 2, 2\); needed a multiple of 4"),
            (Sample((4, 2)), r"PixelShuffle: pixel_shuffle: got shape \(4, 2\); needed \(…, C, H, W\)"),
        ),
        bad=((lambda nn: nn.PixelShuffle(0)(nn.Parameter([[[1.0]]])), r"pixel_shuffle: upscale_factor: got 0"),),
    ),
    Row("PixelUnshuffle", lambda nn: nn.PixelUnshuffle(2),
        lines((3, 1, 2, 4), (2, 2, 4, 2), (1, 1, 2, 2), (3, 2, 6), (2, 1, 1, 2, 2)),
        out=unshuffled(2),
        errors=((Sample((4, 3, 2)), r"pixel_unshuffle: height and width: got 3, 2 of shape .*; needed multiples of"),)),
    Row("ChannelShuffle", lambda nn: nn.ChannelShuffle(2),
        lines((0, 4, 2), (2, 4, 3), (1, 2, 1), (3, 6, 1), (2, 4, 2, 2)),
        errors=(
            (Sample((2, 3, 4)), r"channel_shuffle: groups: got 2; needed a number that divides 3 channels"),
            (Sample((2, 4)), r"ChannelShuffle: channel_shuffle: input: got shape \(2, 4\); needed \(B, C, …\)"),
        )),
    Row("Unflatten", lambda nn: nn.Unflatten(1, (2, 3)),
        lines((0, 6), (4, 6), (1, 6), (2, 6, 2), (1, 6, 1, 3)),
        out=lambda s: (s[0], 2, 3, *s[2:]),
        errors=((Sample((2, 5)), r"Unflatten: unflatten: \(5,\) to \(2, 3\): got 5 elements"),
                (Sample((6,)), r"Unflatten: unflatten: axis 1"))),
    Row("Unflatten", lambda nn: nn.Unflatten(-1, (3, -1)), lines((0, 6), (4, 3), (1, 9), (6,), (2, 2, 3)),
        out=lambda s: (*s[:-1], 3, s[-1] // 3), variant="last"),
)  # fmt: skip


def with_its_mirror(layer: Any, x: Any) -> Any:
    """A layer of two inputs: of one, and of its last 4 of 5 features in reverse order."""
    return layer.plain(x, x.flip(-1)[..., :4])


def stepped(nn: Any, bias: bool = True) -> Any:
    """The perceptron in PyTorch, which has none: a linear layer and a step that lets NaN through."""

    def step(layer: Any, x: Any) -> Any:
        score = layer.plain(x)
        return score.where(score.isnan(), (score > 0).to(score.dtype))

    return through(nn.Linear(5, 2, bias), step)


PRODUCTS = (
    Row(
        "Bilinear",
        lambda nn: through(nn.Bilinear(5, 4, 3), with_its_mirror),
        ROWS_OF_5,
        out=last(3),
        state={"weight": (3, 5, 4), "bias": (3,)},
        errors=((Sample((2, 6)), r"Bilinear 5, 4→3: bilinear: input1: got shape \(2, 6\); needed 5 features"),),
        bad=(
            (lambda nn: nn.Bilinear(0, 2, 3), r"Bilinear: features: got \(0, 2\); needed at least 1 each"),
            (
                lambda nn: nn.Bilinear(1, 1, 1)(nn.Parameter([[1.0]]), nn.Parameter([[1.0], [2.0]])),
                r"bilinear: inputs \(1, 1\) and \(2, 1\): needed equal axes before the last",
            ),
            (lambda nn: nn.Bilinear(1, 1, 1)(nn.Parameter([1.0]), nn.Parameter([1.0, 2.0])), r"bilinear: input2: got"),
        ),
    ),
    Row("Bilinear", lambda nn: through(nn.Bilinear(5, 4, 1, bias=False), with_its_mirror), ROWS_OF_5, out=last(1),
        state={"weight": (1, 5, 4)}, variant="no-bias"),
    Row(
        "Perceptron",
        lambda nn: nn.Perceptron(5, 2),
        ROWS_OF_5,
        out=last(2),
        state={"weight": (2, 5), "bias": (2,)},
        errors=((Sample((2, 4)), r"Perceptron 5→2: input has 4 features, needs 5; input shape \(2, 4\)"),),
        reference=stepped,
    ),
    Row("Perceptron", lambda nn: nn.Perceptron(5, 2, bias=False), ROWS_OF_5, out=last(2), state={"weight": (2, 5)},
        reference=lambda nn: stepped(nn, bias=False), variant="no-bias"),
)  # fmt: skip

ROWS = (*DROPOUT, *SIZES, *ORDER, *PRODUCTS)


def plain(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """Functions have one mode."""
    return tuple(sample._replace(modes=ONE) for sample in samples)


FUNCTION_ROWS = (
    *(Row(name, lambda nn, name=name: lambda x: getattr(nn.functional, name)(x, 0.4, training=False), plain(samples))
      for name, samples in (("dropout1d", SIGNALS), ("dropout2d", IMAGES), ("dropout3d", VOLUMES),
                            ("alpha_dropout", ANY), ("feature_alpha_dropout", CHANNELS))),
    Row("interpolate", lambda nn: lambda x: nn.functional.interpolate(x, (2, 3), mode="area"), HW, out=resized(2, 3)),
    Row("pixel_shuffle", lambda nn: lambda x: nn.functional.pixel_shuffle(x, 1),
        lines((3, 2, 2, 3), (2, 2, 1, 2), (1, 1, 1, 1), (4, 2, 3)), out=shuffled(1)),
    Row("pixel_unshuffle", lambda nn: lambda x: nn.functional.pixel_unshuffle(x, 3),
        lines((4, 1, 3, 6), (2, 2, 3, 3), (1, 1, 3, 3), (2, 6, 3)), out=unshuffled(3)),
    Row("channel_shuffle", lambda nn: lambda x: nn.functional.channel_shuffle(x, 3),
        lines((0, 6, 2), (2, 6, 3), (1, 3, 1), (3, 3, 2))),
    Row("bilinear", lambda nn: lambda x: nn.functional.bilinear(x, x, library(x).ones(2, 5, 5).to(x.dtype)),
        ROWS_OF_5, out=last(2),
        bad=((lambda nn: nn.functional.bilinear(*(nn.Parameter([1.0]),) * 3), r"bilinear: weight: got shape \(1,\)"),)),
)  # fmt: skip

"""Rows for the way back from max pooling, and for pooling with windows that are drawn. Data only."""

from __future__ import annotations

from typing import Any

from layer_rows import ONE, Row, Sample, joined, library, lines, through
from table_layers_pool import twice

SIGNALS = lines((0, 2, 4), (2, 2, 6), (1, 1, 2), (2, 8), extra=(Sample((1, 2, 6), "kink", ONE),))
ODD = lines((0, 2, 5), (2, 2, 7), (1, 1, 3), (2, 9), extra=(Sample((1, 2, 5), "kink", ONE),))
IMAGES = lines((0, 1, 4, 2), (2, 2, 2, 6), (1, 1, 2, 2), (2, 6, 4), extra=(Sample((1, 2, 4, 6), "kink", ONE),))
UNEVEN = lines((0, 1, 5, 3), (2, 2, 3, 5), (1, 1, 3, 3), (2, 7, 3), extra=(Sample((1, 2, 5, 5), "kink", ONE),))
VOLUMES = lines((0, 1, 2, 2, 2), (1, 2, 4, 2, 2), (1, 1, 2, 4, 2), (3, 2, 4, 6))
DRAWN_IMAGES = lines(
    (2, 3, 5, 4),
    (2, 3, 6, 7),
    (1, 3, 4, 4),
    (2, 3, 9, 5),
    extra=(Sample((2, 3, 5, 5), "kink", ONE), Sample((0, 3, 5, 4), "plain", ONE)),
)
DRAWN_VOLUMES = lines((1, 2, 4, 4, 5), (1, 2, 5, 4, 4), (1, 2, 6, 4, 4), (0, 2, 4, 5, 6))
U = ((0.1, 0.8), (0.6, 0.25), (0.0, 0.99))
V = ((0.1, 0.8, 0.5), (0.6, 0.25, 0.9))


def _pool(x: Any, layer: Any) -> Any:
    rank = len(layer.kernel_size)
    pool = getattr(library(x).nn.functional, f"max_pool{rank}d")
    return pool(x, layer.kernel_size, layer.stride, layer.padding, return_indices=True)


def back(layer: Any) -> Any:
    """Pooled and unpooled: the largest are left."""
    return through(layer, lambda self, x: self.plain(*_pool(x, self)))


def back_to_its_size(layer: Any) -> Any:
    return through(layer, lambda self, x: self.plain(*_pool(x, self), output_size=x.shape[-len(self.kernel_size) :]))


def _there_and_back(rank: int, kernel: int, to_size: bool = False) -> Any:
    def build(nn: Any) -> Any:
        pool, unpool = (getattr(nn.functional, f"max_{what}{rank}d") for what in ("pool", "unpool"))

        def call(x: Any) -> Any:
            size = x.shape[-rank:] if to_size else None
            return unpool(*pool(x, kernel, return_indices=True), kernel, output_size=size)

        return call

    return build


def _mean_of_equals(nn: Any) -> Any:
    """What overlapping windows found in the same place, as its mean: PyTorch keeps one, and the gradient of each."""

    def call(x: Any) -> Any:
        values, places = nn.functional.max_pool1d(x, 3, 2, 1, return_indices=True)
        total, count = (x.new_zeros(x.shape).scatter_add(-1, places, v) for v in (values, 0 * values + 1))
        return total / count.clamp(min=1)

    return call


def _unpooled(nn: Any, values: Any, places: Any, size: Any = None) -> Any:
    tensor = library(nn.Identity()).tensor
    return nn.MaxUnpool1d(2)(tensor(values), tensor(places), output_size=size)


def _fixed(nn: Any, x: Any, *options: Any) -> Any:
    """A function of ``nn.functional``, with draws of its own."""
    values = U if x.shape[1] == len(U) else V
    rank = len(values[0])
    pool = getattr(nn.functional, f"fractional_max_pool{rank}d")
    return pool(x, *options, _random_samples=(x * 0.5).new_tensor(values).expand(*x.shape[:2], rank))


def _drawn(layer: Any) -> Any:
    """A layer, with draws that are given to its function, since they stand in no state dict."""

    def call(self: Any, x: Any) -> Any:
        options = (self.kernel_size, self.output_size, self.output_ratio, self.return_indices)
        found = _fixed(library(x).nn, x, *options)
        return joined(*(part.to(x.dtype) for part in found)) if self.return_indices else found

    return through(layer, call)


def _shares(*ratios: float) -> Any:
    rank = len(ratios)
    return lambda s: (*s[:-rank], *(int(n * r) for n, r in zip(s[-rank:], ratios, strict=True)))


UNPOOL = (
    Row(
        "MaxUnpool1d",
        lambda nn: back(nn.MaxUnpool1d(2)),
        SIGNALS,
        errors=((Sample((4,)), r"max_pool1d: input: got shape \(4,\); needed \(B, C, T\) or \(C, T\)"),),
        bad=(
            (lambda nn: nn.MaxUnpool1d(0), r"MaxUnpool1d: kernel_size: got 0; needed a whole number of at least 1"),
            (lambda nn: _unpooled(nn, [[1.0]], [[2]]), r"max_unpool1d: indices: got 2 to 2; needed 0 to 1, for an out"),
            (lambda nn: _unpooled(nn, [[1.0]], [[1.0]]), r"indices: got float32; needed integers, those of max pool"),
            (lambda nn: _unpooled(nn, [[1.0]], [[1, 0]]), r"indices: got shape \(1, 2\); needed \(1, 1\), the input's"),
            (lambda nn: _unpooled(nn, [1.0], [1]), r"max_unpool1d: input: got shape \(1,\); needed \(B, C, T'\)"),
            (lambda nn: _unpooled(nn, [[1.0]], [[1]], [4]), r"output_size: got \(4,\); needed \(2,\), each changed b"),
        ),
    ),
    Row("MaxUnpool1d", lambda nn: back_to_its_size(nn.MaxUnpool1d(2)), ODD, variant="odd"),
    Row("MaxUnpool1d", lambda nn: back_to_its_size(nn.MaxUnpool1d(3, 2, 1)), ODD, reference=_mean_of_equals,
        variant="overlapping"),
    Row("MaxUnpool2d", lambda nn: back(nn.MaxUnpool2d((2, 1))), IMAGES,
        errors=((Sample((4, 4)), r"MaxUnpool2d: max_pool2d: input: got shape \(4, 4\)"),)),
    Row("MaxUnpool2d", lambda nn: back_to_its_size(nn.MaxUnpool2d(2, 2, 1)), UNEVEN, variant="odd"),
    Row("MaxUnpool3d", lambda nn: back(nn.MaxUnpool3d((1, 2, 2))), VOLUMES,
        errors=((Sample((4, 4, 4)), r"MaxUnpool3d: max_pool3d: input: got shape \(4, 4, 4\)"),)),
    Row("MaxUnpool3d", lambda nn: back_to_its_size(nn.MaxUnpool3d(2, 3, 1)), VOLUMES, variant="apart"),
)  # fmt: skip

FRACTIONAL = (
    Row(
        "FractionalMaxPool2d",
        lambda nn: _drawn(nn.FractionalMaxPool2d(2, output_size=(3, 2))),
        DRAWN_IMAGES,
        out=lambda shape: (*shape[:-2], 3, 2),
        errors=(
            (Sample((2, 3, 3, 4)), r"the input's size: got \(3, 4\), for \(3, 2\) windows of \(2, 2\); needed room"),
        ),
        bad=(
            (lambda nn: nn.FractionalMaxPool2d(2), r"FractionalMaxPool2d: output_size and output_ratio: got neither"),
            (lambda nn: nn.FractionalMaxPool2d(2, 3, 0.5), r"output_size and output_ratio: got both; needed one of th"),
            (lambda nn: nn.FractionalMaxPool2d(1, 1, _random_samples=nn.Parameter([0.5]))(nn.Parameter([[[1.0]]])),
                r"_random_samples: got shape \(1,\); needed \(1, 1, 2\)"),
            (lambda nn: nn.FractionalMaxPool2d(2, 1)(nn.Parameter([[1.0]])), r"input: got shape \(1, 1\); needed \(B"),
            (lambda nn: nn.FractionalMaxPool2d(1, None, 1.5)(nn.Parameter([[[1.0]]])), r"output_ratio: got 1.5; need"),
        ),
    ),
    Row("FractionalMaxPool2d", lambda nn: _drawn(nn.FractionalMaxPool2d((1, 3), output_ratio=(0.6, 0.5))),
        DRAWN_IMAGES, out=_shares(0.6, 0.5), variant="ratio"),
    Row("FractionalMaxPool2d", lambda nn: _drawn(nn.FractionalMaxPool2d(2, 3, None, True)),
        DRAWN_IMAGES, out=twice(lambda shape: (*shape[:-2], 3, 3)), variant="indices"),
    Row("FractionalMaxPool3d", lambda nn: _drawn(nn.FractionalMaxPool3d(2, 2)), DRAWN_VOLUMES,
        out=lambda shape: (*shape[:-3], 2, 2, 2),
        errors=((Sample((1, 2, 4, 1, 4)), r"fractional_max_pool3d: the input's size: got \(4, 1, 4\)"),)),
    Row("FractionalMaxPool3d", lambda nn: _drawn(nn.FractionalMaxPool3d(2, None, (0.5, 0.7, 0.6), True)),
        DRAWN_VOLUMES, out=twice(_shares(0.5, 0.7, 0.6)), variant="ratio"),
)  # fmt: skip

ROWS = (*UNPOOL, *FRACTIONAL)


FUNCTION_ROWS = (
    Row("max_unpool1d", _there_and_back(1, 2), SIGNALS),
    Row("max_unpool2d", _there_and_back(2, 2, to_size=True), UNEVEN),
    Row("max_unpool3d", _there_and_back(3, 2), VOLUMES),
    Row("fractional_max_pool2d", lambda nn: lambda x: _fixed(nn, x, (2, 1), (2, 4)), DRAWN_IMAGES,
        out=lambda shape: (*shape[:-2], 2, 4)),
    Row("fractional_max_pool3d", lambda nn: lambda x: _fixed(nn, x, 1, None, 0.5), DRAWN_VOLUMES,
        out=_shares(0.5, 0.5, 0.5)),
)  # fmt: skip

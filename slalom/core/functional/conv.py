"""Convolutions of 1 to 3 axes, their transposes, and the windows they see, laid out as columns.

A convolution is one view and one product: the windows of the input as columns, one column for each pixel of all
examples, under the weights. The transposed one is the same read backwards: a product, then ``fold``. Channels come
first in both (C, B, …), so that pixels lie side by side in every long loop and the sums over a batch are inside the
product of the backward pass. Groups are the product's batch axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Final

from slalom.core.autodiff import is_grad_enabled
from slalom.core.dtype import promote
from slalom.core.functional.padding import pad
from slalom.core.functional.shaping import cat
from slalom.core.ops import reductions, structural
from slalom.core.shape import Shape, per_axis
from slalom.core.tensor import Tensor, apply
from slalom.errors import ConfigError, ShapeError

__all__ = [
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "fold", "unfold",
]  # fmt: skip

Sizes = int | Sequence[int]
Padding = int | Sequence[int] | str

BLOCK: Final = 1 << 24
"""Elements of columns that are made at once where nothing has to be kept for a backward pass."""


# --- what is checked --------------------------------------------------------------------------------------------------
def batched(name: str, input: Tensor, rank: int) -> tuple[Tensor, bool]:
    """The input as a batch, and whether it was one: (B, C, *spatial), or one example (C, *spatial)."""
    if input.ndim == rank + 2:
        return input, True
    if input.ndim == rank + 1:
        return input.reshape(1, *input.shape), False
    axes = ("T", "H, W", "D, H, W")[rank - 1]
    raise ShapeError(f"{name}: input", got=f"shape {input.shape}", needed=f"(B, C, {axes}) or (C, {axes})")


def _given_back(out: Tensor, as_batch: bool) -> Tensor:
    return out if as_batch else out.reshape(out.shape[1:])


def _check_channels(name: str, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, axis: int) -> None:
    """``axis``: which of the weight's axes goes over all channels of the output (0), or of the input (1)."""
    rank = x.ndim - 2
    if weight.ndim != rank + 2:
        raise ShapeError(f"{name}: weight", got=f"shape {weight.shape}", needed=f"{rank + 2} dimensions")
    out, inner = weight.shape[axis], weight.shape[1 - axis]
    inputs, outputs = (inner * groups, out) if axis == 0 else (inner, out * groups)
    if groups < 1 or (outputs % groups or inputs % groups):
        needed = f"a number that divides {inputs} input and {outputs} output channels"
        raise ConfigError(f"{name}: groups", got=groups, needed=needed)
    if x.shape[1] != inputs:
        raise ShapeError(f"input has {x.shape[1]} channels, needs {inputs}; input shape {x.shape}")
    if bias is not None and bias.shape != (outputs,):
        raise ShapeError(f"{name}: bias", got=bias.shape, needed=(outputs,))


def _alike(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one dtype, as the operands of a product of matrices."""
    if x.dtype == weight.dtype:
        return x, weight
    dtype = promote(((x.dtype, 1), (weight.dtype, 1)))
    return x.to(dtype), weight.to(dtype)


def same_padding(size: Sequence[int], dilation: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Widths (before, after) for each axis with which an output is as long as its input; an odd one goes after."""
    totals = [d * (k - 1) for k, d in zip(size, dilation, strict=True)]
    return tuple([(total // 2, total - total // 2) for total in totals])


def pad_list(widths: Sequence[tuple[int, int]]) -> list[int]:
    """Widths of each axis, first to last, as ``pad`` takes them: from the last axis backwards, in one list."""
    return [n for pair in reversed(widths) for n in pair]


# --- convolution ------------------------------------------------------------------------------------------------------
def _conv(
    rank: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: Padding,
    dilation: Sizes,
    groups: int,
) -> Tensor:
    name = f"conv{rank}d"
    x, as_batch = batched(name, input, rank)
    _check_channels(name, x, weight, bias, groups, 0)
    x, weight = _alike(x, weight)
    size = weight.shape[2:]
    steps = {
        "size": size,
        "stride": per_axis(f"{name}: stride", stride, rank),
        "dilation": per_axis(f"{name}: dilation", dilation, rank),
    }
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ConfigError(f"{name}: padding", got=repr(padding), needed="numbers, 'same' or 'valid'")
        if padding == "same" and max(steps["stride"]) > 1:
            raise ConfigError(f"{name}: padding 'same' with stride", got=stride, needed="a stride of 1")
        widths = same_padding(size, steps["dilation"]) if padding == "same" else ((0, 0),) * rank
    else:
        widths = tuple([(p, p) for p in per_axis(f"{name}: padding", padding, rank, 0)])
    if any(map(any, widths)):
        x = pad(x, pad_list(widths))
    reach = tuple([d * (k - 1) + 1 for k, d in zip(size, steps["dilation"], strict=True)])
    if any(n < r for n, r in zip(x.shape[2:], reach, strict=True)):
        got, needed = f"{x.shape[2:]} with its padding", f"at least {reach}, which the kernel {size} covers"
        raise ShapeError(f"{name}: the input's size", got=got, needed=needed)

    rows = _rows_at_once(x, weight, steps["stride"])
    if rows < x.shape[0] and x._known() is not None and not _keeps(x, weight):
        starts = range(0, x.shape[0], rows)
        blocks = [x.narrow(0, start, min(rows, x.shape[0] - start)) for start in starts]
        return _given_back(cat([_product(block, weight, bias, steps, groups) for block in blocks]), as_batch)
    return _given_back(_product(x, weight, bias, steps, groups), as_batch)


def _keeps(*inputs: Tensor) -> bool:
    """Whether what is computed from these is kept for a backward pass."""
    return is_grad_enabled() and any(t.requires_grad for t in inputs)


def _rows_at_once(x: Tensor, weight: Tensor, stride: Shape) -> int:
    """Examples whose columns are within BLOCK elements."""
    pixels = prod(n // s for n, s in zip(x.shape[2:], stride, strict=True))
    return max(1, BLOCK // max(1, x.shape[1] * prod(weight.shape[2:]) * pixels))


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, steps: dict[str, Shape], groups: int) -> Tensor:
    """The windows of a padded batch as columns, under the weights."""
    rank, batch, outputs = x.ndim - 2, x.shape[0], weight.shape[0]
    seen = apply(structural.WINDOWS, x, **steps)  # (B, C, *P, *k)
    pixels = seen.shape[2 : 2 + rank]
    depth = prod(weight.shape[1:])
    order = (1, *range(2 + rank, 2 + 2 * rank), 0, *range(2, 2 + rank))
    columns = apply(structural.TRANSPOSE, seen, axes=order)  # (C, *k, B, *P)
    columns = apply(structural.RESHAPE, columns, shape=(groups, depth, batch * prod(pixels)))
    rows = apply(structural.RESHAPE, weight, shape=(groups, outputs // groups, depth))
    out = apply(reductions.MATMUL, rows, columns)  # (g, O/g, B·P)
    out = apply(structural.RESHAPE, out, shape=(outputs, batch, *pixels))
    if bias is not None:
        out = out + bias.reshape(outputs, *(1,) * (rank + 1))
    return apply(structural.TRANSPOSE, out, axes=(1, 0, *range(2, 2 + rank)))  # (B, O, *P)


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """Each output channel a weighted sum of windows of the input.

    out[b, o, t] = bias[o] + Σ_{c, k} weight[o, c, k] · input[b, c, t·stride + k·dilation − padding], where c goes over
    the channels of o's group.

    ``padding``: zeros on both sides; "valid" is none, "same" keeps the length (an odd one goes to the end).

    Shapes: input (B, C, T) or (C, T), weight (O, C/groups, k), bias (O) → (B, O, T') or (O, T'),
    T' = ⌊(T + 2·padding − dilation·(k − 1) − 1) / stride⌋ + 1.
    Raises: ShapeError for another number of channels, or a kernel that is larger than the padded input; ConfigError
    for groups that do not divide the channels, or a stride with "same".
    Source: V. Dumoulin and F. Visin, A Guide to Convolution Arithmetic, 2016, relation 14.
    Note: the kernel is not flipped, as in all deep learning; signal processing calls this cross-correlation.

    >>> conv1d(Tensor([[1.0, 2.0, 4.0]]), Tensor([[[1.0, -1.0]]]))
    tensor([[-1., -2.]])
    """
    return _conv(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """As ``conv1d``, over two axes.

    Shapes: input (B, C, H, W) or (C, H, W), weight (O, C/groups, kh, kw), bias (O) → (B, O, H', W') or (O, H', W').
    """
    return _conv(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """As ``conv1d``, over three axes.

    Shapes: input (B, C, D, H, W) or (C, D, H, W), weight (O, C/groups, kd, kh, kw), bias (O) → (B, O, D', H', W').
    """
    return _conv(3, input, weight, bias, stride, padding, dilation, groups)


# --- transposed convolution -------------------------------------------------------------------------------------------
def _conv_transpose(
    rank: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: Sizes,
    output_padding: Sizes,
    groups: int,
    dilation: Sizes,
) -> Tensor:
    name = f"conv_transpose{rank}d"
    x, as_batch = batched(name, input, rank)
    _check_channels(name, x, weight, bias, groups, 1)
    x, weight = _alike(x, weight)
    size = weight.shape[2:]
    steps = {
        "size": size,
        "stride": per_axis(f"{name}: stride", stride, rank),
        "dilation": per_axis(f"{name}: dilation", dilation, rank),
    }
    widths = per_axis(f"{name}: padding", padding, rank, 0)
    extra = per_axis(f"{name}: output_padding", output_padding, rank, 0)
    if any(e >= max(s, d) for e, s, d in zip(extra, steps["stride"], steps["dilation"], strict=True)):
        needed = f"less than the stride {steps['stride']} or the dilation {steps['dilation']}"
        raise ConfigError(f"{name}: output_padding", got=output_padding, needed=needed)
    batch, pixels = x.shape[0], x.shape[2:]
    full = tuple([
        (n - 1) * s + d * (k - 1) + 1
        for n, s, d, k in zip(pixels, steps["stride"], steps["dilation"], size, strict=True)
    ])  # fmt: skip
    crops = [(-p, e - p) for p, e in zip(widths, extra, strict=True)]
    if min(pixels) < 1 or any(n + a + b < 1 for n, (a, b) in zip(full, crops, strict=True)):
        got = f"input shape {input.shape}, padding {padding}"
        raise ShapeError(f"{name}: the output's size", got=got, needed="at least one element on each axis")

    channels, inner = weight.shape[:2]
    outputs, depth = inner * groups, inner * prod(size)
    columns = apply(structural.TRANSPOSE, x, axes=(1, 0, *range(2, 2 + rank)))  # (C, B, *P)
    columns = apply(structural.RESHAPE, columns, shape=(groups, channels // groups, batch * prod(pixels)))
    rows = apply(structural.RESHAPE, weight, shape=(groups, channels // groups, depth))
    spread = apply(reductions.MATMUL, rows.mT, columns)  # (g, O/g·k, B·P)
    spread = apply(structural.RESHAPE, spread, shape=(outputs, *size, batch, *pixels))
    order = (1 + rank, 0, *range(2 + rank, 2 + 2 * rank), *range(1, 1 + rank))
    spread = apply(structural.TRANSPOSE, spread, axes=order)  # (B, O, *P, *k)
    out = apply(structural.FOLD, spread, output=full, **steps)
    if any(map(any, crops)):
        out = pad(out, pad_list(crops))
    if bias is not None:
        out = out + bias.reshape(outputs, *(1,) * rank)
    return _given_back(out, as_batch)


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Tensor:
    """The transpose of ``conv1d``: each element of the input spreads the kernel, times itself, over the output.

    out[b, o, t·stride + k·dilation − padding] += Σ_c weight[c, o, k] · input[b, c, t], and the bias.

    ``output_padding``: elements that are added at the end, since strides make several input lengths give one output
    length.

    Shapes: input (B, C, T) or (C, T), weight (C, O/groups, k), bias (O) → (B, O, T') or (O, T'),
    T' = (T − 1)·stride − 2·padding + dilation·(k − 1) + 1 + output_padding.
    Raises: as ``conv1d``; ConfigError for an output_padding that is neither below the stride nor below the dilation.
    Source: V. Dumoulin and F. Visin, A Guide to Convolution Arithmetic, 2016, section 4.
    Note: not an inverse ("deconvolution" is a misnomer): what it restores is the shape.

    >>> conv_transpose1d(Tensor([[1.0, 2.0]]), Tensor([[[1.0, 10.0]]]))
    tensor([[ 1., 12., 20.]])
    """
    return _conv_transpose(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Tensor:
    """As ``conv_transpose1d``, over two axes.

    Shapes: input (B, C, H, W) or (C, H, W), weight (C, O/groups, kh, kw), bias (O) → (B, O, H', W') or (O, H', W').
    """
    return _conv_transpose(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Tensor:
    """As ``conv_transpose1d``, over three axes.

    Shapes: input (B, C, D, H, W) or (C, D, H, W), weight (C, O/groups, kd, kh, kw), bias (O) → (B, O, D', H', W').
    """
    return _conv_transpose(3, input, weight, bias, stride, padding, output_padding, groups, dilation)


# --- windows as columns -----------------------------------------------------------------------------------------------
def _steps(name: str, kernel_size: Sizes, dilation: Sizes, stride: Sizes) -> dict[str, Shape]:
    return {
        "size": per_axis(f"{name}: kernel_size", kernel_size, 2),
        "stride": per_axis(f"{name}: stride", stride, 2),
        "dilation": per_axis(f"{name}: dilation", dilation, 2),
    }


def unfold(input: Tensor, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1) -> Tensor:
    """The windows of images as columns ("im2col").

    Shapes: (B, C, H, W) or (C, H, W) → (B, C·kh·kw, L) or (C·kh·kw, L) for L windows, row by row.
    Raises: ShapeError for a kernel that is larger than the padded input.
    """
    steps = _steps("unfold", kernel_size, dilation, stride)
    x, as_batch = batched("unfold", input, 2)
    x = pad(x, pad_list([(p, p) for p in per_axis("unfold: padding", padding, 2, 0)]))
    seen = apply(structural.WINDOWS, x, **steps)  # (B, C, h, w, kh, kw)
    count = prod(seen.shape[2:4])
    if not count:
        raise ShapeError(
            "unfold: the input's size", got=f"{x.shape[2:]} with its padding", needed="at least one window"
        )
    columns = seen.permute(0, 1, 4, 5, 2, 3).reshape(x.shape[0], x.shape[1] * prod(steps["size"]), count)
    return _given_back(columns, as_batch)


def fold(
    input: Tensor,
    output_size: Sizes,
    kernel_size: Sizes,
    dilation: Sizes = 1,
    padding: Sizes = 0,
    stride: Sizes = 1,
) -> Tensor:
    """The transpose of ``unfold``: columns added up where their windows lie in the image.

    Shapes: (B, C·kh·kw, L) or (C·kh·kw, L) → (B, C, *output_size) or (C, *output_size).
    Raises: ShapeError for another number of rows or windows.
    Note: not its inverse: what lies in several windows is summed, so that ``fold(unfold(x))`` is x times how often.
    """
    steps = _steps("fold", kernel_size, dilation, stride)
    widths = per_axis("fold: padding", padding, 2, 0)
    output = per_axis("fold: output_size", output_size, 2)
    padded = tuple([n + 2 * p for n, p in zip(output, widths, strict=True)])
    if input.ndim not in (2, 3):
        raise ShapeError("fold: input", got=f"shape {input.shape}", needed="(B, C·kh·kw, L) or (C·kh·kw, L)")
    x = input if input.ndim == 3 else input.reshape(1, *input.shape)
    rows, taps = x.shape[1], prod(steps["size"])
    counts = tuple([
        max(0, (n - d * (k - 1) - 1) // s + 1)
        for n, k, s, d in zip(padded, steps["size"], steps["stride"], steps["dilation"], strict=True)
    ])  # fmt: skip
    if rows % taps or x.shape[2] != prod(counts) or not prod(counts):
        needed = f"a multiple of {taps} rows and {prod(counts)} windows, for an output of {output}"
        raise ShapeError("fold: input", got=f"shape {input.shape}", needed=needed)
    spread = x.reshape(x.shape[0], rows // taps, *steps["size"], *counts).permute(0, 1, 4, 5, 2, 3)
    out = apply(structural.FOLD, spread, output=padded, **steps)
    if any(widths):
        out = pad(out, pad_list([(-p, -p) for p in widths]))
    return _given_back(out, input.ndim == 3)

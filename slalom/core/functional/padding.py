"""Padding: constant, reflected, replicated, circular."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from slalom.core.functional.shaping import cat, expand, flip, narrow
from slalom.core.ops import structural
from slalom.core.tensor import Tensor, apply
from slalom.errors import ConfigError, ShapeError

__all__ = ["pad"]

MODES: Final = ("constant", "reflect", "replicate", "circular")


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """More elements before and after, given from the last axis backwards as (before, after) pairs; negative ones crop.

    constant: ``value`` (0) · reflect: mirrored at the first and last element, 2 1 | 0 1 2 | 1 0 · replicate: these two
    repeated, 0 0 | 0 1 2 | 2 2 · circular: continued from the other end, 1 2 | 0 1 2 | 0 1.

    Shapes: (…, n) → (…, before + n + after) for each axis that widths are given for.
    Raises: ShapeError for widths that are not pairs, crop more than there is, or take more than an axis has;
    ConfigError for another mode, or for a value where it has no place.

    >>> pad(Tensor([1.0, 2.0, 3.0]), (2, 1), "reflect")
    tensor([3., 2., 1., 2., 3., 2.])
    """
    if mode not in MODES:
        raise ConfigError("pad: mode", got=repr(mode), needed=f"one of {', '.join(map(repr, MODES))}")
    if mode != "constant" and value:
        raise ConfigError(f"pad: value in mode {mode!r}", got=value, needed="none")
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise ShapeError("pad", got=f"{len(pad)} widths", needed=f"pairs for at most {input.ndim} axes")
    low, high = [0] * input.ndim, [0] * input.ndim
    for k in range(len(pad) // 2):
        low[-1 - k], high[-1 - k] = pad[2 * k], pad[2 * k + 1]
    if any(max(0, -a) > n - max(0, -b) for a, b, n in zip(low, high, input.shape, strict=True)):
        got = f"widths {tuple(pad)} for shape {input.shape}"
        raise ShapeError("pad", got=got, needed="no more cropped than there is")
    if mode == "constant":
        return _constant(input, low, high, value)
    if mode == "circular":  # what is cropped does not come back at the other end
        input = _cropped(input, low, high)
    for axis in reversed(range(input.ndim)):
        before, after = max(0, low[axis]), max(0, high[axis])
        if before or after:
            input = cat(_parts(mode, input, axis, before, after), axis)
    return input if mode == "circular" else _cropped(input, low, high)


def _cropped(x: Tensor, low: Sequence[int], high: Sequence[int]) -> Tensor:
    """Without what negative widths take away."""
    start = tuple([max(0, -n) for n in low])
    stop = tuple([n - max(0, -h) for n, h in zip(x.shape, high, strict=True)])
    if not any(start) and stop == x.shape:
        return x
    return apply(structural.SLICE, x, start=start, stop=stop, step=(1,) * x.ndim)


def _constant(x: Tensor, low: Sequence[int], high: Sequence[int], value: float | None) -> Tensor:
    inner = _cropped(x, low, high)
    widths: dict[str, Any] = {
        "low": tuple([max(0, n) for n in low]),
        "high": tuple([max(0, n) for n in high]),
        "interior": (0,) * x.ndim,
    }
    out = apply(structural.PAD, inner, **widths)
    if not value:
        return out
    # Where there is nothing to fill, one element stands for the whole axis.
    sides = zip(inner.shape, widths["low"], widths["high"], strict=True)
    filled = np.ones(tuple([n if a or b else 1 for n, a, b in sides]), bool)
    return out.masked_fill(Tensor._of(~structural.PAD.impl(filled, **widths)), value)


def _parts(mode: str, x: Tensor, axis: int, before: int, after: int) -> list[Tensor]:
    """What stands before an axis, the tensor itself, and what stands after it."""
    n = x.shape[axis]
    limit = {"reflect": n - 1, "replicate": before + after if n else 0, "circular": n}[mode]
    if max(before, after) > limit:
        got = f"widths {before} and {after} for an axis of {n}"
        raise ShapeError(f"pad: {mode}", got=got, needed=f"at most {max(limit, 0)} elements on each side")
    if mode == "reflect":
        left, right = narrow(x, axis, 1, before), narrow(x, axis, n - 1 - after, after)
        parts = [flip(left, axis), x, flip(right, axis)]
    elif mode == "circular":
        parts = [narrow(x, axis, n - before, before), x, narrow(x, axis, 0, after)]
    else:
        first, last = narrow(x, axis, 0, 1), narrow(x, axis, n - 1, 1)
        shapes = [(*x.shape[:axis], width, *x.shape[axis + 1 :]) for width in (before, after)]
        parts = [expand(first, shapes[0]), x, expand(last, shapes[1])]
    return [part for part in parts if part.shape[axis]]

"""Rows of a learned table: one for each index, or joined for each bag of indices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from slalom.core.autodiff import no_grad
from slalom.core.dtype import int64
from slalom.core.functional.indexing import embedding as rows_at
from slalom.core.functional.shaping import cat
from slalom.core.ops import reductions
from slalom.core.tensor import Tensor, apply
from slalom.errors import ConfigError, DTypeError, IndexRangeError, ShapeError

__all__ = ["embedding", "embedding_bag"]

MODES = ("sum", "mean", "max")


# --- what both take -----------------------------------------------------------------------------------------------
def _padding(name: str, padding_idx: int | None, rows: int) -> int | None:
    if padding_idx is None:
        return None
    if not -rows <= padding_idx < rows:
        raise IndexRangeError(f"{name}: padding_idx", got=padding_idx, needed=f"{-rows} to {rows - 1}")
    return padding_idx % rows


def _dense(name: str, sparse: bool) -> None:
    if sparse:
        raise ConfigError(f"{name}: sparse", got=True, needed="False", hint="gradients are dense here")


def _counted(index: Tensor, rows: int, dtype: Any) -> Tensor:
    """How often each row is asked for."""
    flat = index.reshape(-1).to(int64)
    return apply(reductions.SCATTER_ADD, flat.new_ones(flat.shape, dtype=dtype), flat, shape=(rows,))


@no_grad()
def _renormalise(weight: Tensor, index: Tensor, max_norm: float, norm_type: float) -> None:
    """Scale the rows that are asked for, and whose norm is larger, in place."""
    norms = weight.norm(norm_type, 1)
    asked = _counted(index, weight.shape[0], weight.dtype) > 0
    factor = (max_norm / (norms + 1e-7)).where(asked & (norms > max_norm), 1.0)
    weight.assign(weight * factor.unsqueeze(1))


def _by_frequency(rows: Tensor, index: Tensor, total: int) -> Tensor:
    """The same rows, whose gradients are divided by how often each was asked for."""
    share = 1 / rows_at(index, _counted(index, total, rows.dtype)).unsqueeze(-1)
    still = rows.detach()
    return still + (rows - still) * share


def _looked_up(
    input: Tensor, weight: Tensor, max_norm: float | None, norm_type: float, scale_grad_by_freq: bool
) -> Tensor:
    if max_norm is not None:
        rows_at(input, weight.detach())  # an index that does not exist is an error before anything is written
        _renormalise(weight, input, max_norm, norm_type)
    rows = rows_at(input, weight)
    return _by_frequency(rows, input, weight.shape[0]) if scale_grad_by_freq else rows


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of ``weight`` at integer indices; the row ``padding_idx`` gets no gradient.

    ``max_norm``: rows that are asked for and whose ``norm_type``-norm is larger are scaled down to it, in place.
    ``scale_grad_by_freq``: a row's gradient is divided by how often it is asked for.

    Shapes: input (…), weight (N, D) → (…, D). Raises: IndexRangeError for an index outside 0 … N − 1; DTypeError;
    ConfigError for ``sparse``, since gradients are dense here.
    """
    _dense("embedding", sparse)
    padding_idx = _padding("embedding", padding_idx, weight.shape[0])
    out = _looked_up(input, weight, max_norm, norm_type, scale_grad_by_freq)
    return out if padding_idx is None else out.where((input != padding_idx).unsqueeze(-1), out.detach())


# --- bags ---------------------------------------------------------------------------------------------------------
def _bags(offsets: Tensor, count: int, last_is_end: bool) -> tuple[Tensor, int]:
    """The bag that each of ``count`` elements belongs to, and how many bags there are.

    Elements behind the last offset, where that is an end, belong to one bag more.
    """
    if offsets.ndim != 1 or not offsets.shape[0]:
        raise ShapeError("embedding_bag: offsets", got=f"shape {offsets.shape}", needed="one axis, not empty")
    if offsets.dtype.kind not in "ui":
        raise DTypeError("embedding_bag: offsets", got=offsets.dtype.name, needed="integers")
    known = offsets._known()
    if known is not None and (known[0] != 0 or known[-1] > count or (np.diff(known) < 0).any()):
        raise IndexRangeError("embedding_bag: offsets", got=known.tolist(), needed=f"0, then rising up to {count}")
    starts = offsets.to(int64)[1:]
    marks = apply(reductions.SCATTER_ADD, starts.new_ones(starts.shape), starts, shape=(count + 1,))
    return marks.cumsum(0)[:count], offsets.shape[0] - last_is_end


def _largest(rows: Tensor, bag: Tensor, bags: int) -> Tensor:
    """The maximum over each bag's rows, which stand together; −∞ for a bag without any.

    Each round doubles how many rows before it a row has met; the last row of a bag has met them all.
    """
    count, width = rows.shape
    reach = 1
    while reach < count:
        before, own = rows.narrow(0, 0, count - reach), rows.narrow(0, reach, count - reach)
        together = (bag.narrow(0, 0, count - reach) == bag.narrow(0, reach, count - reach)).unsqueeze(1)
        rows = cat([rows.narrow(0, 0, reach), own.maximum(before).where(together, own)])
        reach *= 2
    sizes = apply(reductions.SCATTER_ADD, bag.new_ones(bag.shape), bag, shape=(bags,))
    ends = sizes.cumsum(0)  # one more than the place of a bag's last row
    rows = cat([rows.new_full((1, width), -math.inf), rows])
    return rows_at(ends, rows).where((sizes > 0).unsqueeze(1), -math.inf)


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """The sum, mean or maximum of rows of ``weight`` over bags of indices; 0 for a bag without any.

    Bags are the rows of a (B, N) input, or begin at ``offsets`` in a vector (whose last entry is an end with
    ``include_last_offset``). ``padding_idx`` is left out of its bag; ``per_sample_weights``, one for each index, only
    with "sum"; the other options are those of ``embedding``.

    Shapes: input (B, N), or (N) with offsets (B) or (B + 1); weight (rows, D) → (B, D).
    Raises: ConfigError, ShapeError, DTypeError; IndexRangeError for an index outside the table, and for offsets that do
    not rise from 0 to at most N.
    Note: with ``scale_grad_by_freq``, PyTorch 2.13 on the CPU divides some gradients by the number of another row.

    >>> embedding_bag(Tensor([0, 1, 1]), Tensor([[1.0], [3.0]]), Tensor([0, 2]), mode="sum")
    tensor([[4.],
            [3.]])
    """
    what = "embedding_bag"
    _dense(what, sparse)
    if mode not in MODES:
        raise ConfigError(f"{what}: mode", got=repr(mode), needed=" or ".join(map(repr, MODES)))
    if mode == "max" and scale_grad_by_freq:
        raise ConfigError(f"{what}: scale_grad_by_freq", got="mode 'max'", needed="'sum' or 'mean'")
    if per_sample_weights is not None and (mode != "sum" or per_sample_weights.shape != input.shape):
        got = f"shape {per_sample_weights.shape} with mode {mode!r}"
        raise ConfigError(f"{what}: per_sample_weights", got=got, needed=f"shape {input.shape} and mode 'sum'")
    if input.ndim not in (1, 2):
        raise ShapeError(f"{what}: input", got=f"shape {input.shape}", needed="(B, N), or (N) with offsets")
    if (offsets is None) != (input.ndim == 2):
        got, needed = "no offsets" if offsets is None else "offsets", "offsets for a vector, none for (B, N)"
        raise ConfigError(f"{what}: input of shape {input.shape}", got=got, needed=needed)
    padding_idx = _padding(what, padding_idx, weight.shape[0])
    flat = input.reshape(-1)
    if offsets is None:
        bags, each = input.shape
        bag, spare = Tensor._of(np.repeat(np.arange(bags, dtype=int64), each)), 0
    else:
        bag, bags = _bags(offsets, flat.shape[0], include_last_offset)
        spare = int(include_last_offset)
    rows = _looked_up(flat, weight, max_norm, norm_type, scale_grad_by_freq)  # (indices, D)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.reshape(-1, 1).to(rows.dtype)
    counts = rows.new_ones(flat.shape)
    if padding_idx is not None:
        kept = flat != padding_idx
        rows = rows.where(kept.unsqueeze(1), -math.inf if mode == "max" else 0.0)
        counts = counts.where(kept, 0.0)
    if mode == "max":
        out = _largest(rows, bag, bags + spare)
    else:
        out = apply(reductions.SCATTER_ADD, rows, bag, shape=(bags + spare, weight.shape[1]))
    counts = apply(reductions.SCATTER_ADD, counts, bag, shape=(bags + spare,))
    if mode == "mean":
        out = out / counts.masked_fill(counts == 0, 1.0).unsqueeze(1)
    elif mode == "max":
        out = out.where((counts > 0).unsqueeze(1), 0.0)
    return out[:bags]

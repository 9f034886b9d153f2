"""Connectionist temporal classification: the likelihood of a sequence of labels, however it is laid out in time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from slalom.core.functional.indexing import _iota, take_along_dim
from slalom.core.functional.losses.common import reduced, registered
from slalom.core.functional.shaping import pad
from slalom.core.ops import pointwise, reductions
from slalom.core.tensor import Tensor, apply, as_tensor
from slalom.errors import ConfigError, DTypeError, IndexRangeError, ShapeError

__all__ = ["ctc_loss"]


def _whole(name: str, given: Any) -> Tensor:
    """Whole numbers as int64. Raises: DTypeError for others."""
    t = as_tensor(given)
    if t.dtype.kind not in "ui" and t.numel():
        raise DTypeError(f"ctc_loss: {name}", got=t.dtype.name, needed="integers", hint=f"{name}.long()")
    numbers: Tensor = t.to("int64")
    return numbers


def _lengths(name: str, given: Any, shape: tuple[int, ...], highest: int | None) -> Tensor:
    """Raises: ShapeError; DTypeError; IndexRangeError for a length that is negative, or above ``highest``."""
    lengths = _whole(name, given)
    if lengths.shape != shape:
        raise ShapeError(f"ctc_loss: {name}", got=f"shape {lengths.shape}", needed=f"{shape}, one for each sequence")
    array = lengths._known()
    if array is not None and array.size:
        low, high = int(array.min()), int(array.max())
        if low < 0 or (highest is not None and high > highest):
            needed = "0 or more" if highest is None else f"0 to {highest}"
            raise IndexRangeError(f"ctc_loss: length {low if low < 0 else high} in {name}", needed=needed)
    return lengths


def _rows(labels: Tensor, lengths: Tensor) -> Tensor:
    """Labels that stand one row after the other, as rows of equal length."""
    array, total = lengths._known(), labels.shape[0]
    if array is not None and array.sum() != total:
        needed = f"{array.sum()} labels, the sum of target_lengths"
        raise ShapeError("ctc_loss: targets", got=f"shape {labels.shape}", needed=needed)
    batch = lengths.shape[0]
    longest = total if array is None or not array.size else int(array.max())  # in a trace: no row is longer than all
    if not total:
        return Tensor._of(np.zeros((batch, 0), np.int64))
    places = (lengths.cumsum(0) - lengths).unsqueeze(1) + _iota((batch, longest), 1)
    return apply(reductions.GATHER, labels, places.where(places < total, total - 1))


def _log_sum(terms: list[Tensor]) -> Tensor:
    """ln Σ eᵃ of numbers that may be −∞, with derivatives of 0 where all of them are."""
    highest = terms[0].detach()
    for term in terms[1:]:
        highest = highest.maximum(term.detach())
    none = highest == -math.inf
    highest = highest.masked_fill(none, 0.0)
    total = apply(pointwise.EXP, terms[0] - highest)
    for term in terms[1:]:
        total = total + apply(pointwise.EXP, term - highest)
    return (apply(pointwise.LOG, total.masked_fill(none, 1.0)) + highest).masked_fill(none, -math.inf)


def _shifted(alpha: Tensor, by: int) -> Tensor:
    """Each place's value moved ``by`` places on, along the last axis."""
    return pad(alpha, (by, -by), value=-math.inf)


@registered("CTCLoss")
def ctc_loss(
    log_probs: Tensor,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """−ln P(labels): the sum over all layouts of the labels in time, each held or parted by blanks, of Π p.

    "mean" divides each loss by its number of labels (at least 1) and takes the mean over the batch. ``zero_infinity``:
    0, with gradients of 0, where the input is too short for its labels; else the loss is infinite there.

    Shapes: log_probs (T, B, C) or (T, C), over classes from ``log_softmax``; targets (B, S), or all labels in one axis,
    or (S); lengths (B) or ().
    Raises: ShapeError; DTypeError; IndexRangeError for a length or a class out of range; ConfigError for ``blank``.
    Source: A. Graves et al., Connectionist Temporal Classification, 2006, equations 6 to 8, in logarithms.
    Note: the derivative is that of the log-probabilities as they are given; PyTorch's already contains that of a
    ``log_softmax`` before it, so both agree below one. In a trace, labels in one axis cost as if each row had them all.
    """
    if log_probs.ndim not in (2, 3):
        raise ShapeError("ctc_loss: log_probs", got=f"shape {log_probs.shape}", needed="(T, B, C) or (T, C)")
    if not 0 <= blank < log_probs.shape[-1]:
        raise ConfigError("ctc_loss: blank", got=blank, needed=f"a class, 0 to {log_probs.shape[-1] - 1}")
    alone = log_probs.ndim == 2
    shape: tuple[int, ...] = () if alone else (log_probs.shape[1],)
    labels = _whole("targets", targets)
    if labels.ndim > 2 or (labels.ndim == 2 and not alone and labels.shape[0] != shape[0]):
        raise ShapeError("ctc_loss: targets", got=f"shape {labels.shape}", needed="(B, S), or all labels in one axis")
    if alone:
        labels = labels.reshape(1, -1)
    steps, highest = log_probs.shape[0], labels.shape[1] if labels.ndim == 2 else None
    inputs = _lengths("input_lengths", input_lengths, shape, steps)
    lengths = _lengths("target_lengths", target_lengths, shape, highest)
    if alone:
        log_probs, inputs, lengths = log_probs.unsqueeze(1), inputs.reshape(1), lengths.reshape(1)
    batch, classes = log_probs.shape[1:]
    labels = labels if labels.ndim == 2 else _rows(labels, lengths)
    longest = labels.shape[1]
    there = _iota(labels.shape, 1) < lengths.unsqueeze(1)
    _check_labels(labels, there, classes, blank)
    labels = labels.where(there, blank)

    # Places 0 … 2S: blanks at even ones, labels at odd ones. A place is reached from itself, from the one before it,
    # and a label also from the label before it, if that is another.
    places = 2 * longest + 1
    pairs = labels.unsqueeze(2)
    extended = pad(pairs, (1, 0), value=blank).reshape(batch, 2 * longest)
    extended = pad(extended, (0, 1), value=blank)  # (B, 2S + 1)
    before = pad(extended, (2, -2), value=blank) if places > 2 else extended
    skips = (extended != blank) & (extended != before)
    at = (steps, batch, places)
    emitted = apply(reductions.GATHER, log_probs, _iota(at, 0), _iota(at, 1), extended.expand(at))
    alpha = Tensor._of(np.where(np.arange(places) == 0, 0.0, -math.inf).astype(log_probs.dtype)).expand(batch, places)
    for t in range(steps):
        terms = [alpha]
        if longest:
            terms += [_shifted(alpha, 1), _shifted(alpha, 2).masked_fill(~skips, -math.inf)]
        moved = _log_sum(terms) + emitted[t]
        alpha = moved.where((inputs > t).unsqueeze(1), alpha)
    end = (lengths * 2).unsqueeze(1)
    label = take_along_dim(alpha, (end - 1).where(end > 0, 0), 1).masked_fill(end == 0, -math.inf)
    loss = -_log_sum([take_along_dim(alpha, end, 1), label]).squeeze(1)
    if zero_infinity:
        loss = loss.masked_fill(loss == math.inf, 0.0)
    if reduction == "mean":
        return reduced(loss / lengths.maximum(1).to(loss.dtype), reduction)
    return reduced(loss.reshape(shape), reduction)


def _check_labels(labels: Tensor, there: Tensor, classes: int, blank: int) -> None:
    numbers, mask = labels._known(), there._known()
    if numbers is None or mask is None or not (used := numbers[mask]).size:
        return
    if used.min() < 0 or used.max() >= classes:
        bad = used.min() if used.min() < 0 else used.max()
        raise IndexRangeError(f"ctc_loss: class {bad} in the targets", needed=f"0 to {classes - 1}, the classes")
    if (used == blank).any():
        raise ConfigError("ctc_loss: targets", got=f"the blank, {blank}", needed="labels that are not the blank")

"""Connectionist temporal classification: the loss of a sequence whose labels have no known places in time.

A path names a class, or the blank, at each time; it spells a target when, after repeats are merged and blanks dropped,
the target is left. The loss is −ln of the probability of all paths that do. They are counted in order of time, in
logarithms: an unreachable state has the logarithm ``_NEVER``, which is finite, so that no ∞ − ∞ arises in a derivative.
"""

from __future__ import annotations

from typing import Any, Final

from slalom.core.dtype import int64
from slalom.core.functional.creation import full
from slalom.core.functional.indexing import _iota
from slalom.core.functional.losses.common import reduced, registered
from slalom.core.functional.shaping import cat
from slalom.core.ops import reductions
from slalom.core.tensor import Tensor, apply, as_tensor
from slalom.errors import ConfigError, DTypeError, IndexRangeError, ShapeError

__all__ = ["ctc_loss"]

_NEVER: Final = -1e30
"""The logarithm of what cannot be: far below any path's, far above where float32 ends, also after many additions."""


@registered("CTCLoss", looks=True)
def ctc_loss(
    log_probs: Tensor,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """−ln Σ exp(Σₜ log_probs[t, πₜ]) over all paths π that spell the target; ∞ where the input is too short for one.

    "mean" divides each loss by its target's length, at least 1, and takes the mean over the batch. ``zero_infinity``:
    an infinite loss counts 0.

    Shapes: log_probs (T, B, C) or (T, C); targets (B, S), padded with anything, or all one after the other, (Σ
    lengths); lengths (B), or () without a batch → (B) or () where nothing is reduced.
    Raises: ShapeError; DTypeError; IndexRangeError for lengths or classes out of range; ConfigError for a blank in a
    target.
    Source: A. Graves et al., Connectionist Temporal Classification, 2006, equations 5–8.
    Note: the gradient is that of this very formula. PyTorch's is right only behind ``log_softmax``, where both agree.
    An infinite loss has the gradient 0 (PyTorch's is NaN).

    >>> even = Tensor([[0.5, 0.5]] * 2).log()  # of 4 equal paths, 3 spell "1": 1 1, 1 –, – 1
    >>> ctc_loss(even, Tensor([1], dtype="int64"), 2, 1, reduction="sum").neg().exp()
    tensor(0.75)
    """
    if log_probs.ndim not in (2, 3):
        raise ShapeError("ctc_loss: log_probs", got=f"shape {log_probs.shape}", needed="(T, B, C) or (T, C)")
    if log_probs.dtype.kind != "f":
        raise DTypeError("ctc_loss: log_probs", got=log_probs.dtype.name, needed="a floating dtype")
    single = log_probs.ndim == 2
    if single:
        log_probs = log_probs.unsqueeze(1)  # (T, 1, C)
    times, batch, classes = log_probs.shape
    if not 0 <= blank < classes:
        raise IndexRangeError("ctc_loss: blank", got=blank, needed=f"a class, 0 to {classes - 1}")
    ends = _lengths("input_lengths", input_lengths, batch, times)
    counts, labels = _labels(targets, target_lengths, batch, classes, blank)
    elements = -_log_total(log_probs, blank, labels, ends, counts)
    impossible = elements > -_NEVER / 2
    elements = elements.masked_fill(impossible, 0.0 if zero_infinity else float("inf"))
    if reduction == "mean":
        elements = elements / counts.clamp(min=1).to(elements.dtype)
    return reduced(elements.reshape(()) if single else elements, reduction)


def _log_total(log_probs: Tensor, blank: int, labels: Tensor, ends: Tensor, counts: Tensor) -> Tensor:
    """ln of the probability of all paths that spell each target. Shapes: (T, B, C), (B, S) … → (B).

    A path stands in one of 2·S + 1 states: a blank, the first label, a blank, …, the last label, a blank. At each time
    it stays, or goes on by one, or by two: over a blank, unless that stands between equal labels.
    """
    times, batch, _ = log_probs.shape
    width = labels.shape[1]
    states = 2 * width + 1
    dtype = log_probs.dtype
    before = full((batch, 2), _NEVER, dtype=dtype)
    blanks = full((batch, width, 1), blank, dtype=int64)
    pairs = cat([blanks, labels.unsqueeze(-1)], 2).reshape(batch, 2 * width)
    classes = cat([pairs, full((batch, 1), blank, dtype=int64)], 1)  # (B, 2·S + 1)
    places = [_iota((times, batch, states), axis) for axis in (0, 1)]
    heard = apply(reductions.GATHER, log_probs, *places, classes.expand(times, batch, states))  # (T, B, 2·S + 1)
    heard = heard.clamp(min=_NEVER)
    at = full((batch, 1), 0.0, dtype=dtype)
    if width:
        at = cat([at, *[before] * width], 1)
        skips = cat([before < 0, classes[:, 2:] != classes[:, :-2]], 1)
    end = ends.reshape(batch, 1)
    for t in range(times):
        moved = at
        if width:
            behind = cat([before, at], 1)
            moved = _log_sum(at, behind[:, 1:-1], behind[:, :-2].where(skips, _NEVER))
        at = (moved + heard[t]).where(end > t, at)
    rows = _iota((batch,), 0)
    last = 2 * counts
    ended: Tensor = apply(reductions.GATHER, at, rows, last)
    if width:
        in_label = apply(reductions.GATHER, at, rows, (last - 1).clamp(min=0))
        ended = _log_sum(ended, in_label.where(counts > 0, _NEVER))
    return ended


def _log_sum(*terms: Tensor) -> Tensor:
    """ln Σ eˣ of each place. The shift by the greatest cancels out, so no gradient needs to flow through it."""
    most = terms[0].detach()
    for term in terms[1:]:
        most = most.maximum(term.detach())
    powers = [(term - most).exp() for term in terms]
    total = powers[0]
    for power in powers[1:]:
        total = total + power
    return total.log() + most


# --- what is given ------------------------------------------------------------------------------------------------
def _lengths(name: str, given: Any, batch: int, most: int | None) -> Tensor:
    lengths: Tensor = as_tensor(given)
    if lengths.numel() == 0 and not batch:
        return lengths.reshape(0).to(int64)
    if lengths.dtype.kind not in "ui":
        raise DTypeError(f"ctc_loss: {name}", got=lengths.dtype.name, needed="integers")
    if lengths.shape != (batch,) and not (batch == 1 and lengths.shape == ()):
        raise ShapeError(f"ctc_loss: {name}", got=f"shape {lengths.shape}", needed=f"({batch},), one for each sequence")
    array = lengths._known()
    if array is not None and (array.min() < 0 or (most is not None and array.max() > most)):
        bad = array.min() if array.min() < 0 else array.max()
        needed = "at least 0" if most is None else f"0 to {most}"
        raise IndexRangeError(f"ctc_loss: length {bad} in {name}", needed=needed)
    return lengths.reshape(batch).to(int64)


def _labels(targets: Any, lengths: Any, batch: int, classes: int, blank: int) -> tuple[Tensor, Tensor]:
    """How long each target is, and its labels, filled up with blanks. Shapes: (B), (B, S)."""
    labels: Tensor = as_tensor(targets)
    if labels.dtype.kind not in "ui" and labels.numel():
        raise DTypeError("ctc_loss: targets", got=labels.dtype.name, needed="integers", hint="targets.long()")
    labels = labels.to(int64)
    if labels.ndim == 2:
        if labels.shape[0] != batch:
            needed = f"({batch}, S), one row for each sequence"
            raise ShapeError("ctc_loss: targets", got=f"shape {labels.shape}", needed=needed)
        counts = _lengths("target_lengths", lengths, batch, labels.shape[1])
        spoken = _iota(labels.shape, 1) < counts.unsqueeze(-1)
    elif labels.ndim == 1:
        counts = _lengths("target_lengths", lengths, batch, None)
        array, total = counts._known(), labels.shape[0]
        if array is not None and array.sum() != total:
            needed = f"{array.sum()} labels, the sum of target_lengths, or (B, S)"
            raise ShapeError("ctc_loss: targets", got=f"shape {labels.shape}", needed=needed)
        # How wide the widest is, a trace cannot know: all labels may belong to one sequence.
        width = total if array is None else int(array.max(initial=0))
        place = _iota((batch, width), 1)
        spoken = place < counts.unsqueeze(-1)
        starts = (counts.cumsum(0) - counts).unsqueeze(-1)
        labels = apply(reductions.GATHER, labels, (place + starts).where(spoken, 0)) if width else place
    else:
        raise ShapeError("ctc_loss: targets", got=f"shape {labels.shape}", needed="(B, S), or all in one row")
    array, said = labels._known(), spoken._known()
    if array is not None and said is not None and said.any():
        kept = array[said]
        if kept.min() < 0 or kept.max() >= classes:
            bad = kept.min() if kept.min() < 0 else kept.max()
            needed = f"0 to {classes - 1}, for {classes} classes"
            raise IndexRangeError(f"ctc_loss: class {bad} in the targets", needed=needed)
        if (kept == blank).any():
            hint = "give another class as blank, or shift the labels"
            raise ConfigError("ctc_loss: targets", got=f"the blank, {blank}", needed="labels that are not", hint=hint)
    return counts, labels.where(spoken, blank)

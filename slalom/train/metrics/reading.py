"""How the output of a model is to be read, which follows from its loss; and the shapes that metrics work on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from slalom.core.dtype import float64
from slalom.core.functional.arithmetic import where
from slalom.core.functional.shaping import stack
from slalom.core.shape import size
from slalom.core.tensor import Tensor
from slalom.errors import ShapeError
from slalom.nn import BCELoss, BCEWithLogitsLoss, NLLLoss
from slalom.nn import functional as F

__all__ = ["Answers", "Reading", "aligned", "over", "per_row"]

_BINARY = (BCELoss, BCEWithLogitsLoss)
_LIKE = {
    F.binary_cross_entropy: ("probabilities", True, None),
    F.binary_cross_entropy_with_logits: ("logits", True, None),
    F.nll_loss: ("log_probabilities", False, -100),
    F.cross_entropy: ("logits", False, -100),
}


class Answers(NamedTuple):
    """Outputs and targets side by side.

    Shapes, if the outputs are classes: scores (B, C, …), true and kept (B, …), class numbers and truth values. If they
    are labels (questions with the answers no and yes): all three (B, K, …). ``kept`` is None where everything counts.
    """

    scores: Tensor
    true: Tensor
    kept: Tensor | None
    labels: bool


@dataclass(frozen=True)
class Reading:
    """How outputs and targets are to be read.

    ``scale``: "logits", "probabilities" or "log_probabilities". ``labels``: each output is a question of its own, not
    one class of several. ``ignored``: the class number that marks positions which do not count; so does NaN in
    floating targets.
    """

    scale: str = "logits"
    labels: bool = False
    ignored: int | None = None

    @classmethod
    def of(cls, loss: Any) -> Reading:
        """What a loss makes of a model's output; logits, of losses that are not known."""
        known = next((options for function, options in _LIKE.items() if function is loss), None)
        if known is not None:
            return cls(*known)
        kinds = ((BCELoss, "probabilities"), (NLLLoss, "log_probabilities"))
        scale = next((name for kind, name in kinds if isinstance(loss, kind)), "logits")
        return cls(scale, isinstance(loss, _BINARY), getattr(loss, "ignore_index", None))

    @property
    def threshold(self) -> float:
        """The score above which the answer is yes."""
        return 0.0 if self.scale == "logits" else 0.5

    def answers(self, name: str, output: Tensor, target: Tensor) -> Answers:
        """Outputs and targets side by side. Raises: ShapeError, naming the metric, where they do not fit."""
        if output.ndim > 1 and output.shape[1] > 1 and not self.labels:
            return self._classes(name, output, target)
        output = output.reshape(-1, 1) if output.ndim == 1 else output
        target = aligned(output, target)
        if target.shape != output.shape:
            got = f"output {output.shape} and target {target.shape}"
            raise ShapeError(f"metric {name!r}", got=got, needed="one shape")
        return Answers(output, (target > 0.5).long(), self._kept(target), True)

    def _classes(self, name: str, output: Tensor, target: Tensor) -> Answers:
        """Class numbers: the target's own, or the largest entry of one-hot and soft targets."""
        kept = None
        if target.shape == output.shape and target.dtype.kind == "f":
            true = target.argmax(dim=1)
        else:
            column = output.ndim == 2 and target.ndim == 2 and target.shape[1] == 1
            true = (target.squeeze(1) if column else target).long()
            if target.dtype.kind != "f":
                kept = self._kept(true)
        if true.shape != (output.shape[0], *output.shape[2:]):
            got = f"scores {output.shape} and targets {target.shape}"
            needed = f"classes {(output.shape[0], *output.shape[2:])}, or the shape of the scores"
            raise ShapeError(f"metric {name!r}", got=got, needed=needed)
        return Answers(output, true if kept is None else where(kept, true, 0), kept, False)

    def _kept(self, target: Tensor) -> Tensor | None:
        if target.dtype.kind == "f":
            return ~target.isnan()
        return None if self.ignored is None else target != self.ignored

    # --- what the scores mean -------------------------------------------------------------------------------------
    def guesses(self, answers: Answers) -> Tensor:
        """The answers that the model gives, like ``answers.true``."""
        return (answers.scores > self.threshold).long() if answers.labels else answers.scores.argmax(dim=1)

    def log_probabilities(self, answers: Answers) -> Tensor:
        """Of the classes, (B, C, …); of labels, no and yes on a new axis 1: (B, 2, K, …).

        Probabilities are kept away from 0 by the spacing of numbers below 1, as in scikit-learn.
        """
        scores = answers.scores
        if self.scale == "log_probabilities":
            return scores
        if self.scale == "probabilities":
            scores = scores.clamp(eps := _spacing(scores), 1 - eps)
            return stack([(1 - scores).log(), scores.log()], dim=1) if answers.labels else scores.log()
        if answers.labels:
            return stack([-F.softplus(scores), -F.softplus(-scores)], dim=1)
        return F.log_softmax(scores, dim=1)


def _spacing(t: Tensor) -> float:
    return 2.0**-52 if t.dtype == float64 else 2.0**-23


def aligned(output: Tensor, target: Tensor) -> Tensor:
    """The target in the output's shape where the two differ by axes of size 1 only: (B,) and (B, 1).

    Without this, (B, 1) − (B,) would silently be a (B, B) table.
    """
    if target.shape == output.shape or [n for n in target.shape[1:] if n != 1] != [
        n for n in output.shape[1:] if n != 1
    ]:
        return target
    return target.reshape(output.shape) if target.shape[:1] == output.shape[:1] else target


def per_row(values: Tensor, kept: Tensor | None = None) -> list[Tensor]:
    """The means over everything but the rows, (B, …) → (B,); or, where not everything counts, sums and counts."""
    values = values.to(float64)
    if kept is None:
        return [values if values.ndim == 1 else _flat(values).mean(dim=1)]
    return [_flat(where(kept, values, 0.0)).sum(dim=1), _flat(kept.to(float64)).sum(dim=1)]


def _flat(t: Tensor) -> Tensor:
    return t.reshape(t.shape[0], size(t.shape[1:]))


def over(part: float, whole: float = 1.0) -> float:
    """What ``per_row`` gives as one number; NaN where nothing counts."""
    return part / whole if whole else float("nan")

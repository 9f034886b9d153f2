"""Rows of losses with a margin, of labels, of order and of sequences. Data only; joined in table_losses.py."""

from __future__ import annotations

from typing import Any

import numpy as np
from layer_rows import library
from loss_rows import Given, LossRow, Sample, classes, rows_of_3, same, without_last

SIGNS = same("real", "sign")
LABELS = rows_of_3("real", "class")[1:]  # PyTorch's means of no rows are numbers of chance for these two
SETS = rows_of_3("real", "listed")[1:]
ANSWERS = rows_of_3("real", "binary")
TRIPLES = rows_of_3("real", "real", Given("real"))
LOGITS = classes("real", "class")
SOME = classes("real", "some")
RANKED = same("real", "real", Given("sign"))
LEVELS = same("real", "level", Given("rising", (3,)))
ALIKE = tuple(
    Sample(shape, "real", "real", how, (Given("sign-rows"),))
    for shape, how in (
        ((0, 3), "plain"), ((4, 3), "plain"), ((1, 3), "plain"), ((7, 2), "plain"), ((3,), "plain"),
        ((4, 3), "transposed"), ((5, 3), "strided"),
    )
)  # fmt: skip
ROW = [[1e4, -1e4, 0.0]]
FAR = ([[1e4, 0.0]], [[-1e4, 0.0]], [[0.0, 1e4]])


def _reduced(each: Any, reduction: str) -> Any:
    return each if reduction == "none" else getattr(each, reduction)()


def _city(a: Any, b: Any) -> Any:
    return (a - b).abs().sum(-1)


def _focal(reduction: str, gamma: float, weight: Any = None, ignored: int = -100) -> Any:
    def loss(x: Any, y: Any) -> Any:
        functional = library(x).nn.functional
        kept = y != ignored
        t = y.where(kept, y.new_zeros(()))
        chances = functional.log_softmax(x, 1 if x.ndim > 1 else 0)
        lp = -functional.nll_loss(chances, t, reduction="none")
        share = lp.new_ones(t.shape) if weight is None else weight[t]
        share = share * kept
        each = (-share * (1 - lp.exp()) ** gamma * lp).where(kept, lp.new_zeros(()))
        return each.sum() / share.sum() if reduction == "mean" else _reduced(each, reduction)

    return loss


def _binary_focal(reduction: str, gamma: float, alpha: float | None) -> Any:
    def loss(x: Any, y: Any) -> Any:
        p = library(x).sigmoid(x)
        true = p * y + (1 - p) * (1 - y)
        share = 1 if alpha is None else alpha * y + (1 - alpha) * (1 - y)
        return _reduced(-share * (1 - true) ** gamma * true.log(), reduction)

    return loss


def _ordinal(reduction: str) -> Any:
    def loss(x: Any, y: Any, thresholds: Any) -> Any:
        module = library(x)
        below = module.sigmoid(thresholds - x.unsqueeze(-1))
        ends = x.new_zeros((*x.shape, 1))
        chances = module.cat([below, ends + 1], -1) - module.cat([ends, below], -1)
        return _reduced(-chances.gather(-1, y.unsqueeze(-1)).squeeze(-1).log(), reduction)

    return loss


# --- sequences: (T, B, C), labels, lengths of inputs, lengths of labels ---
def _sequence(shape: Any, labels: Any, steps: Any, lengths: Any, how: str = "plain") -> Sample:
    return Sample(shape, "real", labels, how, (Given(steps), Given(lengths)))


PLAIN_TEXT = (
    _sequence((5, 4, 3), ((1, 2), (2, 1), (1, 1), (2, 2)), (5, 4, 3, 5), (2, 1, 2, 0)),
    _sequence((4, 4, 3), ((1, 2), (2, 1), (1, 1), (2, 2)), (4, 4, 4, 4), (2, 2, 2, 2)),
    _sequence((6, 2, 4), (1, 2, 3, 3, 1), (6, 5), (3, 2)),
    _sequence((3, 1, 2), ((1,),), (3,), (1,)),
    _sequence((5, 3), (1, 2, 1), 5, 3),
    _sequence((4, 3, 5), ((4, 2, 1), (3, 3, 3), (1, 4, 1)), (4, 4, 3), (3, 1, 2)),
    _sequence((4, 4, 3), ((1, 2), (2, 1), (1, 1), (2, 2)), (4, 4, 4, 4), (2, 2, 2, 2), "transposed"),
    _sequence((5, 2, 3), ((1, 2), (2, 1)), (5, 0), (2, 0), "strided"),
)  # fmt: skip
LAST_BLANK = tuple(
    _sequence((steps, 2, 4), ((0, 1, 2), (2, 2, 1)), (steps, steps - 1), (2, n)) for steps in (2, 4, 5) for n in (0, 3)
)


def _per_label(elements: Any, x: Any, labels: Any, steps: Any, lengths: Any) -> float:
    return float(np.mean(elements / np.maximum(lengths, 1)))


def _ctc(nn: Any, t: Any, **changed: Any) -> Any:
    given = {"labels": [[1, 2]], "steps": [4], "lengths": [2], "blank": 0} | changed
    x = t([[[0.1, 0.2, 0.7]]] * 4).log()
    return nn.CTCLoss(given["blank"])(x, t(given["labels"]), t(given["steps"]), t(given["lengths"]))


def _batch(shape: Any) -> Any:
    return shape[1:-1]


ROWS: tuple[LossRow, ...] = (
    LossRow("HingeEmbeddingLoss", "hinge_embedding_loss", lambda nn, r: nn.HingeEmbeddingLoss(reduction=r), SIGNS,
        extreme=(([1e4, -1e4, -1e4], [-1.0, -1.0, 1.0], [0.0, 1e4 + 1, -1e4]),),
        errors=(
            (lambda nn, t: nn.HingeEmbeddingLoss()(t([1.0, 2.0]), t([1.0, 0.0])), r"target: got 0; needed 1 or -1"),
            (lambda nn, t: nn.HingeEmbeddingLoss()(t([[1.0]]), t([1.0])), r"target: got shape \(1,\)"),
        )),
    LossRow("HingeEmbeddingLoss", "hinge_embedding_loss", lambda nn, r: nn.HingeEmbeddingLoss(0.2, reduction=r), SIGNS,
        variant="narrow"),
    LossRow("SoftMarginLoss", "soft_margin_loss", lambda nn, r: nn.SoftMarginLoss(reduction=r), SIGNS,
        extreme=(([1e4, -1e4, -1e4], [-1.0, -1.0, 1.0], [1e4, 0.0, 1e4]),),
        errors=((lambda nn, t: nn.SoftMarginLoss()(t([1.0]), t([0.5])), r"target: got 0.5; needed 1 or -1"),)),
    LossRow("MarginRankingLoss", "margin_ranking_loss", lambda nn, r: nn.MarginRankingLoss(reduction=r), RANKED,
        extreme=(([1e4, 1e4], [-1e4, 1e4], [-1.0, 1.0], [2e4, 0.0]),),
        errors=(
            (lambda nn, t: nn.MarginRankingLoss()(t([1.0]), t([1.0]), t([0.0])), r"target: got 0; needed 1 or -1"),
            (lambda nn, t: nn.MarginRankingLoss()(t([1.0]), t([[1.0]]), t([1.0])), r"as many axes"),
        )),
    LossRow("MarginRankingLoss", "margin_ranking_loss", lambda nn, r: nn.MarginRankingLoss(0.5, reduction=r), RANKED,
        variant="margin"),
    LossRow("CosineEmbeddingLoss", "cosine_embedding_loss", lambda nn, r: nn.CosineEmbeddingLoss(reduction=r), ALIKE,
        out=without_last,
        extreme=(([[1e4, -1e4], [0.0, 0.0]], [[1e4, -1e4], [0.0, 0.0]], [1.0, 1.0], [0.0, 1.0]),),
        errors=(
            (lambda nn, t: nn.CosineEmbeddingLoss()(t([[1.0]]), t([[1.0]]), t([0.0])), r"target: got 0; needed 1 or"),
            (lambda nn, t: nn.CosineEmbeddingLoss()(t([[1.0]]), t([[1.0]]), t([[1.0]])), r"target: got shape \(1, 1\)"),
            (lambda nn, t: nn.CosineEmbeddingLoss()(t([[1.0]]), t([1.0]), t([1.0])), r"inputs: got shapes \(1, 1\)"),
        )),
    LossRow("CosineEmbeddingLoss", "cosine_embedding_loss", lambda nn, r: nn.CosineEmbeddingLoss(0.3, reduction=r),
        ALIKE, out=without_last, variant="margin"),
    LossRow("TripletMarginLoss", "triplet_margin_loss", lambda nn, r: nn.TripletMarginLoss(reduction=r), TRIPLES,
        out=without_last,
        extreme=((*FAR, None), ([[1e4]], [[1e4]], [[1e4]], [1.0])),
        errors=(
            (lambda nn, t: nn.TripletMarginLoss(0)(t([1.0]), t([1.0]), t([1.0])), r"margin: got 0; needed above 0"),
            (lambda nn, t: nn.TripletMarginLoss()(t([1.0]), t([[1.0]]), t([1.0])), r"got 1, 2 and 1 axes"),
        )),
    LossRow("TripletMarginLoss", "triplet_margin_loss",
        lambda nn, r: nn.TripletMarginLoss(0.5, 1, 0.01, swap=True, reduction=r), TRIPLES, out=without_last,
        variant="swap"),
    LossRow("TripletMarginWithDistanceLoss", "triplet_margin_with_distance_loss",
        lambda nn, r: nn.TripletMarginWithDistanceLoss(reduction=r), TRIPLES, out=without_last,
        extreme=((*FAR, None),), text=False,
        errors=((lambda nn, t: nn.TripletMarginWithDistanceLoss(margin=-1.0)(t([1.0]), t([1.0]), t([1.0])),
            r"margin: got -1.0"),)),
    LossRow("TripletMarginWithDistanceLoss", "triplet_margin_with_distance_loss",
        lambda nn, r: nn.TripletMarginWithDistanceLoss(distance_function=_city, swap=True, margin=2.0, reduction=r),
        TRIPLES, out=without_last, variant="city"),
    LossRow("MultiMarginLoss", "multi_margin_loss", lambda nn, r: nn.MultiMarginLoss(reduction=r), LABELS,
        extreme=((ROW, [0], [0.0]), (ROW, [1], [(3e4 + 2) / 3]), ([[2.0, 2.0, 2.0]], [1], [2 / 3])),
        errors=(
            (lambda nn, t: nn.MultiMarginLoss(3)(t([[1.0]]), t([0])), r"multi_margin_loss: p: got 3; needed 1 or 2"),
            (lambda nn, t: nn.MultiMarginLoss()(t([[1.0]]), t([1])), r"class 1 in the target: needed 0 to 0"),
            (lambda nn, t: nn.MultiMarginLoss()(t([[1.0]]), t([0.0])), r"target: got float32; needed class numbers"),
            (lambda nn, t: nn.MultiMarginLoss()(t([[[1.0]]]), t([[0]])), r"input: got shape \(1, 1, 1\); needed"),
        )),
    LossRow("MultiMarginLoss", "multi_margin_loss", lambda nn, r, w: nn.MultiMarginLoss(2, 0.7, w, reduction=r), LABELS,
        weights=((3,),), variant="squares"),
    LossRow("MultiLabelMarginLoss", "multilabel_margin_loss", lambda nn, r: nn.MultiLabelMarginLoss(reduction=r), SETS,
        out=without_last,
        extreme=((ROW, [[1, -1, 0]], [(3e4 + 2) / 3]), (ROW, [[-1, 0, 0]], [0.0]), (ROW, [[0, 1, 2]], [0.0])),
        errors=(
            (lambda nn, t: nn.MultiLabelMarginLoss()(t([[1.0, 2.0]]), t([[2, -1]])), r"class 2 in the target: n"),
            (lambda nn, t: nn.MultiLabelMarginLoss()(t([[1.0, 2.0]]), t([0])), r"target: got shape \(1,\)"),
        )),
    LossRow("MultiLabelSoftMarginLoss", "multilabel_soft_margin_loss",
        lambda nn, r: nn.MultiLabelSoftMarginLoss(reduction=r), ANSWERS, out=without_last,
        extreme=((ROW, [[1.0, 0.0, 1.0]], None), (ROW, [[0.0, 1.0, 1.0]], None)),
        errors=(
            (lambda nn, t: nn.MultiLabelSoftMarginLoss()(t([[1.0]]), t([1.0])), r"target: got shape \(1,\)"),
            (lambda nn, t: nn.MultiLabelSoftMarginLoss()(t(1.0), t(1.0)), r"input: got a 0-d tensor"),
        )),
    LossRow("MultiLabelSoftMarginLoss", "multilabel_soft_margin_loss",
        lambda nn, r, w: nn.MultiLabelSoftMarginLoss(w, reduction=r), ANSWERS, weights=((3,),), out=without_last,
        variant="weight"),
    LossRow("FocalLoss", "focal_loss", lambda nn, r: nn.FocalLoss(reduction=r), LOGITS,
        reference=lambda nn, r: _focal(r, 2.0),
        extreme=(([[1e4, -1e4], [1e4, -1e4], [0.0, 0.0]], [0, 1, 0], [0.0, 2e4, 0.25 * 0.6931471805599453]),),
        errors=(
            (lambda nn, t: nn.FocalLoss(gamma=-1)(t([[1.0]]), t([0])), r"gamma: got -1; needed 0 or more"),
            (lambda nn, t: nn.FocalLoss()(t([[1.0]]), t([3])), r"class 3 in the target: needed 0 to 0"),
        )),
    LossRow("FocalLoss", "focal_loss", lambda nn, r, w: nn.FocalLoss(w, gamma=0.5, ignore_index=-7, reduction=r), SOME,
        weights=((3,),), reference=lambda nn, r, w: _focal(r, 0.5, w, -7), variant="all",
        extreme=(([[1e4, -1e4, 0.0]], [0], [0.0]),)),
    LossRow("FocalLoss", "focal_loss", lambda nn, r: nn.FocalLoss(gamma=0.0, reduction=r), LOGITS,
        reference=lambda nn, r: nn.CrossEntropyLoss(reduction=r), variant="cross-entropy"),
    LossRow("BinaryFocalLoss", "binary_focal_loss", lambda nn, r: nn.BinaryFocalLoss(reduction=r),
        same("real", "binary"), reference=lambda nn, r: _binary_focal(r, 2.0, None),
        extreme=(([1e4, -1e4, 1e4, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0, 1e4, 1e4, 0.25 * 0.6931471805599453]),),
        errors=(
            (lambda nn, t: nn.BinaryFocalLoss(2.0)(t([1.0]), t([1.0])), r"alpha: got 2.0; needed 0 to 1, or None"),
            (lambda nn, t: nn.BinaryFocalLoss(gamma=-0.5)(t([1.0]), t([1.0])), r"gamma: got -0.5; needed 0 or more"),
        )),
    LossRow("BinaryFocalLoss", "binary_focal_loss", lambda nn, r: nn.BinaryFocalLoss(0.25, 0.5, reduction=r),
        same("real", "binary"), reference=lambda nn, r: _binary_focal(r, 0.5, 0.25), variant="all",
        extreme=(([1e4, -1e4], [1.0, 1.0], [0.0, 2500.0]),)),
    LossRow("OrdinalLoss", "ordinal_loss", lambda nn, r: nn.OrdinalLoss(reduction=r), LEVELS,
        reference=lambda nn, r: _ordinal(r),
        extreme=(
            ([1e4, -1e4, 1e4, -1e4, 1e4], [2, 0, 0, 2, 1], [-1.0, 1.0],
                [0.0, 0.0, 1e4 + 1, 1e4 + 1, 1e4 - 1 - np.log(-np.expm1(-2))]),
            ([0.0, 0.0], [0, 1], [0.0], [0.6931471805599453] * 2),
        ),
        errors=(
            (lambda nn, t: nn.OrdinalLoss()(t([0.0]), t([3]), t([0.0, 1.0])), r"class 3 in the target: needed 0 to 2"),
            (lambda nn, t: nn.OrdinalLoss()(t([0.0]), t([0]), t([1.0, 1.0])), r"thresholds: got \[1.0, 1.0\]; need"),
            (lambda nn, t: nn.OrdinalLoss()(t([0.0]), t([[0]]), t([1.0])), r"target: got shape \(1, 1\)"),
            (lambda nn, t: nn.OrdinalLoss()(t([0.0]), t([0]), t(1.0)), r"thresholds: got shape \(\); needed \(C - 1\)"),
        )),
    LossRow("CTCLoss", "ctc_loss", lambda nn, r: nn.CTCLoss(reduction=r), PLAIN_TEXT,
        out=_batch, before=lambda x: x.log_softmax(-1), mean=_per_label, rows=False,
        extreme=(
            ([[[1e4, -1e4, 0.0]]] * 3, [[1]], [3], [1], [2e4 - np.log(3)]),
            ([[[-1e4, 1e4]]] * 3, [[1]], [3], [1], [0.0]),
        ),
        errors=(
            (lambda nn, t: _ctc(nn, t, blank=3), r"ctc_loss: blank: got 3; needed a class, 0 to 2"),
            (lambda nn, t: _ctc(nn, t, labels=[[1, 5]]), r"ctc_loss: class 5 in the targets: needed 0 to 2"),
            (lambda nn, t: _ctc(nn, t, labels=[[1, 0]]), r"targets: got the blank, 0; needed labels"),
            (lambda nn, t: _ctc(nn, t, labels=[[1.0, 2.0]]), r"targets: got float32; needed integers"),
            (lambda nn, t: _ctc(nn, t, labels=[1, 2, 1]), r"targets: got shape \(3,\); needed 2 labels, the sum"),
            (lambda nn, t: _ctc(nn, t, labels=[[1], [2]]), r"targets: got shape \(2, 1\)"),
            (lambda nn, t: _ctc(nn, t, steps=[5]), r"length 5 in input_lengths: needed 0 to 4"),
            (lambda nn, t: _ctc(nn, t, steps=[-1]), r"length -1 in input_lengths: needed 0 to 4"),
            (lambda nn, t: _ctc(nn, t, steps=[4, 4]), r"input_lengths: got shape \(2,\); needed \(1,\)"),
            (lambda nn, t: _ctc(nn, t, lengths=[3]), r"length 3 in target_lengths: needed 0 to 2"),
            (lambda nn, t: _ctc(nn, t, lengths=[-1]), r"length -1 in target_lengths: needed 0 to 2"),
            (lambda nn, t: nn.CTCLoss()(t([0.5]), t([1]), t(1), t(1)), r"log_probs: got shape \(1,\)"),
        )),
    LossRow("CTCLoss", "ctc_loss", lambda nn, r: nn.CTCLoss(3, r, zero_infinity=True), LAST_BLANK,
        out=_batch, before=lambda x: x.log_softmax(-1), mean=_per_label, rows=False, variant="last"),
)  # fmt: skip

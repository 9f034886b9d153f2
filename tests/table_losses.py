"""One row for each loss: what test_losses.py checks. Data only.

``build`` makes the loss from PyTorch's or Slalom's ``nn``; the same line serves both.
Families of losses have tables of their own, which are joined here.
"""

from __future__ import annotations

import table_losses_margin
import table_losses_regression
from loss_rows import LossRow, classes, same

TABLES = (table_losses_regression, table_losses_margin)

LOGITS, PROBABILITIES = classes("real", "class"), classes("real", "classes")
SOME, LOG, LOG_SOME = classes("real", "some"), classes("log", "class"), classes("log", "some")
COMPARED = same("real", "real")
BINARY, RATES = same("probability", "binary"), same("probability", "rate")
LOGIT_BINARY, LOGIT_RATES = same("real", "binary"), same("real", "rate")

LOSSES: tuple[LossRow, ...] = (
    LossRow(
        "MSELoss",
        "mse_loss",
        lambda nn, r: nn.MSELoss(reduction=r),
        COMPARED,
        errors=(
            (lambda nn, t: nn.MSELoss(reduction="avg")(t([1.0]), t([1.0])), r"reduction: got 'avg'; needed 'mean', 's"),
            (
                lambda nn, t: nn.MSELoss()(t([[1.0], [2.0]]), t([1.0, 2.0, 3.0])),
                r"input \(2, 1\) and target \(3,\) are",
            ),
        ),
        extreme=(([1e4, -1e4], [-1e4, -1e4], [4e8, 0.0]),),
    ),
    LossRow(
        "BCELoss",
        "binary_cross_entropy",
        lambda nn, r: nn.BCELoss(reduction=r),
        BINARY,
        errors=(
            (lambda nn, t: nn.BCELoss()(t([0.5, 1.5]), t([1.0, 1.0])), r"probabilities: got 0.5 to 1.5; needed 0 to 1"),
            (
                lambda nn, t: nn.BCELoss()(t([[0.5]]), t([1.0])),
                r"target: got shape \(1,\); needed \(1, 1\), the input's",
            ),
        ),
        extreme=(([0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 100.0, 100.0]),),
    ),
    LossRow("BCELoss", "binary_cross_entropy", lambda nn, r: nn.BCELoss(reduction=r), RATES, variant="rates"),
    LossRow(
        "BCELoss",
        "binary_cross_entropy",
        lambda nn, r, w: nn.BCELoss(w, reduction=r),
        tuple(sample for sample in BINARY if sample.shape[-1:] == (3,)),
        weights=((3,),),
        variant="weight",
    ),
    LossRow(
        "BCEWithLogitsLoss",
        "binary_cross_entropy_with_logits",
        lambda nn, r: nn.BCEWithLogitsLoss(reduction=r),
        LOGIT_BINARY,
        errors=(
            (lambda nn, t: nn.BCEWithLogitsLoss()(t([0.5]), t(1.0)), r"target: got shape \(\); needed \(1,\)"),
            (
                lambda nn, t: nn.BCEWithLogitsLoss(t([1.0, 2.0]))(t([0.5]), t([1.0])),
                r"BCEWithLogitsLoss: weight: got shape \(2,\); needed one that broadcasts to \(1,\)",
            ),
            (
                lambda nn, t: nn.BCEWithLogitsLoss(pos_weight=t([1.0, 2.0]))(t([0.5]), t([1.0])),
                r"BCEWithLogitsLoss: pos_weight: got shape \(2,\); needed one that broadcasts to \(1,\)",
            ),
        ),
        extreme=(([1e4, -1e4, 1e4, -1e4], [1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1e4, 1e4]),),
    ),
    LossRow(
        "BCEWithLogitsLoss",
        "binary_cross_entropy_with_logits",
        lambda nn, r, w, p: nn.BCEWithLogitsLoss(w, reduction=r, pos_weight=p),
        tuple(sample for sample in LOGIT_RATES if sample.shape[-1:] == (3,)),
        weights=((3,), (3,)),
        extreme=(([[1e4, -1e4, 0.0]], [[1.0, 0.0, 0.0]], None),),
        variant="weights",
    ),
    LossRow(
        "CrossEntropyLoss",
        "cross_entropy",
        lambda nn, r: nn.CrossEntropyLoss(reduction=r),
        LOGITS,
        errors=(
            (
                lambda nn, t: nn.CrossEntropyLoss()(t([[0.0] * 3] * 2), t([0, 7])),
                r"cross_entropy: class 7 in the target: needed 0 to 2, for 3 classes",
            ),
            (lambda nn, t: nn.CrossEntropyLoss()(t([[0.0, 1.0]]), t([-1])), r"class -1 in the target: needed 0 to 1"),
            (
                lambda nn, t: nn.CrossEntropyLoss()(t([[0.0] * 3] * 2), t([[0], [1]])),
                r"target: got shape \(2, 1\); needed \(2,\) for class numbers, with input \(2, 3\). Hint: squeeze",
            ),
            (
                lambda nn, t: nn.CrossEntropyLoss()(t([[0.0] * 3] * 2), t([0.0, 1.0])),
                r"target: got float32; needed class numbers. Hint: target.long\(\)",
            ),
            (
                lambda nn, t: nn.CrossEntropyLoss()(t([[0.0, 1.0]]), t([[0, 1]])),
                r"target: got int64; needed floating probabilities, as it has the input's shape",
            ),
            (
                lambda nn, t: nn.CrossEntropyLoss(t([1.0, 1.0]))(t([[0.0] * 3]), t([0])),
                r"weight: got \(2,\); needed \(3,\), one for each class",
            ),
            (
                lambda nn, t: nn.CrossEntropyLoss(label_smoothing=0.1)(t([1.0])[:0], t([1.0])[:0]),
                r"cross_entropy: input: got shape \(0,\); needed at least one class",
            ),
            (
                lambda nn, t: nn.CrossEntropyLoss()(t(1.0), t(0)),
                r"input: got a 0-d tensor; needed \(C\) or \(B, C, …\)",
            ),
            (
                lambda nn, t: nn.CrossEntropyLoss(label_smoothing=1.5)(t([[0.0, 1.0]]), t([0])),
                r"label_smoothing: got 1.5; needed 0 to 1",
            ),
        ),
        extreme=(
            ([[1e4, -1e4], [1e4, -1e4], [-1e4, -1e4]], [0, 1, 0], [0.0, 2e4, 0.6931471805599453]),
            ([[1e4, -1e4], [-1e4, 1e4]], [[1.0, 0.0], [0.5, 0.5]], [0.0, 1e4]),
        ),
    ),
    LossRow(
        "CrossEntropyLoss",
        "cross_entropy",
        lambda nn, r: nn.CrossEntropyLoss(reduction=r, ignore_index=-7),
        SOME,
        variant="ignore",
    ),
    LossRow(
        "CrossEntropyLoss",
        "cross_entropy",
        lambda nn, r, w: nn.CrossEntropyLoss(w, reduction=r, ignore_index=-7, label_smoothing=0.1),
        LOGITS + SOME,
        weights=((3,),),
        extreme=(([[1e4, -1e4, 0.0]], [-7], [0.0]),),
        variant="all",
    ),
    LossRow(
        "CrossEntropyLoss",
        "cross_entropy",
        lambda nn, r: nn.CrossEntropyLoss(reduction=r, label_smoothing=0.3),
        LOGITS,
        variant="smooth",
    ),
    LossRow(
        "CrossEntropyLoss",
        "cross_entropy",
        lambda nn, r: nn.CrossEntropyLoss(reduction=r),
        PROBABILITIES,
        variant="probabilities",
    ),
    LossRow(
        "CrossEntropyLoss",
        "cross_entropy",
        lambda nn, r, w: nn.CrossEntropyLoss(w, reduction=r, label_smoothing=0.2),
        PROBABILITIES,
        weights=((3,),),
        variant="probabilities-all",
    ),
    LossRow(
        "NLLLoss",
        "nll_loss",
        lambda nn, r: nn.NLLLoss(reduction=r),
        LOG,
        errors=(
            (lambda nn, t: nn.NLLLoss()(t([[0.0, 1.0]]), t([2])), r"nll_loss: class 2 in the target: needed 0 to 1"),
        ),
        extreme=(([[-1e4, 0.0]], [0], [1e4]),),
    ),
    LossRow(
        "NLLLoss",
        "nll_loss",
        lambda nn, r, w: nn.NLLLoss(w, ignore_index=-7, reduction=r),
        LOG_SOME,
        weights=((3,),),
        variant="all",
    ),
    *(row for table in TABLES for row in table.ROWS),
)

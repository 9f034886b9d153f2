"""Rows of losses of numbers, and of likelihoods. Data only; joined in table_losses.py."""

from __future__ import annotations

import math
from typing import Any

from layer_rows import library
from loss_rows import Given, LossRow, over, same

COMPARED = same("real", "real")
APART = ([1e4, -1e4, 0.0], [-1e4, -1e4, 0.0])
COUNTS = same("real", "count")
RATES_COUNTS = same("positive", "count")
VARIANCES = same("real", "real", Given("positive"))
DISTRIBUTIONS = over(((0, 3), (4, 3), (1, 3), (7, 3), (2, 3, 5), (3,)), "log", "classes")
LOG_TARGETS = over(((0, 3), (4, 3), (1, 3), (7, 3), (2, 3, 5), (3,)), "log", "log")


def _quantile(reduction: str, q: Any) -> Any:
    def loss(x: Any, y: Any) -> Any:
        module = library(x)
        if isinstance(q, tuple):
            y = y.unsqueeze(-1)
        share = module.tensor(q, dtype=x.dtype)
        each = module.maximum(share * (y - x), (share - 1) * (y - x))
        return each if reduction == "none" else getattr(each, reduction)()

    return loss


def _log_cosh(reduction: str) -> Any:
    def loss(x: Any, y: Any) -> Any:
        each = library(x).logaddexp(x - y, y - x) - 0.6931471805599453
        return each if reduction == "none" else getattr(each, reduction)()

    return loss


ROWS: tuple[LossRow, ...] = (
    LossRow("L1Loss", "l1_loss", lambda nn, r: nn.L1Loss(reduction=r), COMPARED,
        extreme=((*APART, [2e4, 0.0, 0.0]),),
        errors=((lambda nn, t: nn.L1Loss()(t([[1.0]]), t([1.0])), r"input \(1, 1\) and target \(1,\) are"),)),
    LossRow("SmoothL1Loss", "smooth_l1_loss", lambda nn, r: nn.SmoothL1Loss(reduction=r), COMPARED,
        extreme=((*APART, [2e4 - 0.5, 0.0, 0.0]), ([1e30], [-1e30], [2e30])),
        errors=((lambda nn, t: nn.SmoothL1Loss(beta=-1.0)(t([1.0]), t([1.0])), r"beta: got -1.0; needed 0 or more"),)),
    LossRow("SmoothL1Loss", "smooth_l1_loss", lambda nn, r: nn.SmoothL1Loss(reduction=r, beta=0.0), COMPARED,
        variant="corner"),
    LossRow("SmoothL1Loss", "smooth_l1_loss", lambda nn, r: nn.SmoothL1Loss(reduction=r, beta=2.5), COMPARED,
        variant="wide"),
    LossRow("HuberLoss", "huber_loss", lambda nn, r: nn.HuberLoss(reduction=r), COMPARED,
        extreme=((*APART, [2e4 - 0.5, 0.0, 0.0]), ([1e30], [-1e30], [2e30])),
        errors=((lambda nn, t: nn.HuberLoss(delta=0)(t([1.0]), t([1.0])), r"delta: got 0; needed above 0"),)),
    LossRow("HuberLoss", "huber_loss", lambda nn, r: nn.HuberLoss(r, 0.3), COMPARED, variant="narrow"),
    LossRow("GaussianNLLLoss", "gaussian_nll_loss", lambda nn, r: nn.GaussianNLLLoss(reduction=r), VARIANCES,
        extreme=(
            ([1e4, 0.0], [-1e4, 0.0], [1.0, 1e4], [2e8, 0.5 * math.log(1e4)]),
            ([0.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.5 * math.log(1e-6)] * 2),
        ),
        errors=(
            (lambda nn, t: nn.GaussianNLLLoss()(t([1.0]), t([1.0]), t([-1.0])), r"var: got -1; needed 0 or more"),
            (lambda nn, t: nn.GaussianNLLLoss()(t([1.0, 2.0]), t([1.0, 2.0]), t([1.0, 2.0, 3.0])),
                r"var: got shape \(3,\); needed \(2,\), \(1,\) or \(\)"),
            (lambda nn, t: nn.GaussianNLLLoss(eps=0)(t([1.0]), t([1.0]), t([1.0])), r"eps: got 0; needed above 0"),
        )),
    LossRow("GaussianNLLLoss", "gaussian_nll_loss", lambda nn, r: nn.GaussianNLLLoss(full=True, eps=1e-3, reduction=r),
        over(((0, 3), (4, 3), (1, 3), (7, 3), (2, 5, 3)), "real", "real", Given("positive")), variant="full"),
    LossRow("PoissonNLLLoss", "poisson_nll_loss", lambda nn, r: nn.PoissonNLLLoss(reduction=r), COUNTS,
        extreme=(([-1e4, 0.0], [1.0, 1e4], [1e4, 1.0]),),
        errors=(
            (lambda nn, t: nn.PoissonNLLLoss()(t([1.0]), t([-2.0])), r"target: got -2; needed counts, 0 or more"),
            (lambda nn, t: nn.PoissonNLLLoss()(t([[1.0]]), t([2.0])), r"target: got shape \(1,\); needed \(1, 1\)"),
        )),
    LossRow("PoissonNLLLoss", "poisson_nll_loss", lambda nn, r: nn.PoissonNLLLoss(full=True, reduction=r), COUNTS,
        variant="full"),
    LossRow("PoissonNLLLoss", "poisson_nll_loss", lambda nn, r: nn.PoissonNLLLoss(False, True, eps=1e-3, reduction=r),
        RATES_COUNTS, extreme=(([1e4, 0.0], [0.0, 0.0], [1e4, 0.0]),), variant="plain"),
    LossRow("KLDivLoss", "kl_div", lambda nn, r: nn.KLDivLoss(reduction=r), DISTRIBUTIONS,
        out=lambda shape: shape,
        extreme=(([0.0, -1e4], [0.0, 1.0], [0.0, 1e4]), ([0.0, -1e4], [1.0, 0.0], [0.0, 0.0])),
        errors=((lambda nn, t: nn.KLDivLoss()(t([1.0]), t([-0.5])), r"target: got -0.5; needed probabilities"),)),
    LossRow("KLDivLoss", "kl_div", lambda nn, r: nn.KLDivLoss(reduction=r, log_target=True), LOG_TARGETS,
        extreme=(([0.0, -1e4], [-1e4, 0.0], [0.0, 1e4]),), variant="logs"),
    LossRow("LogCoshLoss", "log_cosh_loss", lambda nn, r: nn.LogCoshLoss(reduction=r), COMPARED,
        reference=lambda nn, r: _log_cosh(r),
        extreme=((*APART, [2e4 - 0.6931471805599453, 0.0, 0.0]),),
        errors=((lambda nn, t: nn.LogCoshLoss()(t([1.0]), t([[1.0]])), r"target: got shape \(1, 1\); needed \(1,\)"),)),
    LossRow("QuantileLoss", "quantile_loss", lambda nn, r: nn.QuantileLoss(0.3, reduction=r), COMPARED,
        reference=lambda nn, r: _quantile(r, 0.3),
        extreme=((*APART, [1.4e4, 0.0, 0.0]),),
        errors=(
            (lambda nn, t: nn.QuantileLoss(1.0)(t([1.0]), t([1.0])), r"quantile: got 1.0; needed between 0 and 1"),
            (lambda nn, t: nn.QuantileLoss()(t([1.0]), t([[1.0]])), r"target: got shape \(1, 1\); needed \(1,\)"),
        )),
    LossRow("QuantileLoss", "quantile_loss", lambda nn, r: nn.QuantileLoss((0.1, 0.5, 0.9), reduction=r),
        tuple(s._replace(target="lower") for s in over(((0, 3), (4, 3), (1, 3), (2, 5, 3)), "real", "real")),
        reference=lambda nn, r: _quantile(r, (0.1, 0.5, 0.9)),
        extreme=(([[1e4, 0.0, -1e4]], [0.0], [[9e3, 0.0, 9e3]]),),
        errors=((lambda nn, t: nn.QuantileLoss((0.1, 0.9))(t([1.0]), t(1.0)), r"input: got shape \(1,\); needed a las"),
            (lambda nn, t: nn.QuantileLoss((0.1, 0.9))(t([1.0, 2.0]), t([1.0])), r"target: got shape \(1,\)")),
        variant="several"),
)  # fmt: skip

"""Losses of numbers: how far they are off, and how likely they were."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from slalom.core.functional.losses.common import compared, reduced, registered, same_shape
from slalom.core.tensor import Tensor, as_tensor
from slalom.errors import ConfigError, ShapeError

__all__ = [
    "gaussian_nll_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "poisson_nll_loss",
    "quantile_loss",
    "smooth_l1_loss",
]


@registered("MSELoss", without=("weight",))
def mse_loss(input: Tensor, target: Any, *, reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """Squared error (x − y)², the mean over all elements by default.

    Shapes: input and target equal; others broadcast with a warning, as in PyTorch.
    Note: no factor ½ (some lectures write 1/(2N) Σ); "mean" divides by all elements, with ``weight`` by its sum.

    >>> mse_loss(Tensor([1.0, 2.0]), Tensor([3.0, 2.0]))
    tensor(2.)
    """
    target = compared("mse_loss", input, target)
    error = input - target
    return _mean_of(error * error, reduction, weight)


def _mean_of(loss: Tensor, reduction: str, weight: Tensor | None) -> Tensor:
    """Reduced; with weights, the mean divides by their sum."""
    if weight is None:
        return reduced(loss, reduction)
    weight = weight.expand(loss.shape)
    return reduced(loss * weight, reduction, weight.sum())


@registered("L1Loss", without=("weight",))
def l1_loss(input: Tensor, target: Any, *, reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """Absolute error |x − y|, least at the median; derivative 0 at 0.

    Shapes: as ``mse_loss``, and ``weight`` too.

    >>> l1_loss(Tensor([1.0, 2.0]), Tensor([3.0, 2.0]))
    tensor(1.)
    """
    error = (input - compared("l1_loss", input, target)).abs()
    return _mean_of(error, reduction, weight)


@registered("SmoothL1Loss")
def smooth_l1_loss(input: Tensor, target: Any, *, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """d² / 2β where d = |x − y| < β, else d − β/2. β = 0: absolute error.

    Raises: ConfigError for β < 0.
    Source: R. Girshick, Fast R-CNN, 2015, equation 3 (β = 1).
    Note: ``huber_loss`` is β times this.
    """
    if not beta >= 0:
        raise ConfigError("smooth_l1_loss: beta", got=beta, needed="0 or more")
    error = (input - compared("smooth_l1_loss", input, target)).abs()
    if beta == 0:
        return reduced(error, reduction)
    near = error < beta
    return reduced((_square(error, near) * (0.5 / beta)).where(near, error - 0.5 * beta), reduction)


@registered("HuberLoss", without=("weight",))
def huber_loss(
    input: Tensor, target: Any, reduction: str = "mean", delta: float = 1.0, *, weight: Tensor | None = None
) -> Tensor:
    """d² / 2 where d = |x − y| ≤ δ, else δ(d − δ/2).

    Raises: ConfigError unless δ > 0.
    Source: P. J. Huber, Robust Estimation of a Location Parameter, 1964, section 1.
    """
    if not delta > 0:
        raise ConfigError("huber_loss: delta", got=delta, needed="above 0")
    error = (input - compared("huber_loss", input, target)).abs()
    near = error <= delta
    return _mean_of((_square(error, near) * 0.5).where(near, (error - 0.5 * delta) * delta), reduction, weight)


def _square(error: Tensor, near: Tensor) -> Tensor:
    """Where it will be selected: elsewhere it may be infinite."""
    error = error.where(near, 0.0)
    return error * error


@registered("LogCoshLoss")
def log_cosh_loss(input: Tensor, target: Any, *, reduction: str = "mean") -> Tensor:
    """ln cosh(x − y): half the squared error near 0, the absolute error less ln 2 far from it.

    Shapes: input and target equal. Raises: ShapeError.
    Source: R. Neuneier and H. Zimmermann, How to Train Neural Networks, 1998, section 5.1.2.
    Note: beyond PyTorch. Computed as |e| + ln(1 + e^(−2|e|)) − ln 2, which never overflows.

    >>> log_cosh_loss(Tensor([1.0, 1000.0]), Tensor([1.0, 0.0]), reduction="none")
    tensor([  0.    , 999.3068])
    """
    error = input - same_shape("log_cosh_loss", input, target)
    size = error.abs()
    return reduced(size + (size * -2).softplus() - math.log(2), reduction)


@registered("QuantileLoss")
def quantile_loss(
    input: Tensor, target: Any, quantile: float | Sequence[float] = 0.5, *, reduction: str = "mean"
) -> Tensor:
    """The pinball loss q·e where e = y − x ≥ 0, else (q − 1)·e: least where x is the q-quantile of y.

    Several quantiles: one for each place of the input's last axis, which the target does not have.

    Shapes: input and target equal; with Q quantiles input (…, Q), target (…).
    Raises: ConfigError unless 0 < q < 1; ShapeError.
    Source: R. Koenker and G. Bassett, Regression Quantiles, 1978, equation 2.1.
    Note: beyond PyTorch. q = ½ is half the absolute error.

    >>> quantile_loss(Tensor([1.0, 1.0]), Tensor([2.0, 0.0]), 0.9, reduction="none")
    tensor([0.9, 0.1])
    """
    several = isinstance(quantile, Sequence)
    shares = tuple(quantile) if isinstance(quantile, Sequence) else (quantile,)
    if not shares or not all(0 < q < 1 for q in shares):
        raise ConfigError("quantile_loss: quantile", got=quantile, needed="between 0 and 1")
    if not several:
        error = same_shape("quantile_loss", input, target) - input
        return reduced((error * shares[0]).where(error >= 0, error * (shares[0] - 1)), reduction)
    if input.shape[-1:] != (len(shares),):
        needed = f"a last axis of {len(shares)}, one for each quantile"
        raise ShapeError("quantile_loss: input", got=f"shape {input.shape}", needed=needed)
    target = as_tensor(target, input)
    if target.shape != input.shape[:-1]:
        raise ShapeError("quantile_loss: target", got=f"shape {target.shape}", needed=f"{input.shape[:-1]}")
    error = target.to(input.dtype).unsqueeze(-1) - input
    q = Tensor._of(np.asarray(shares, input.dtype))
    return reduced((error * q).where(error >= 0, error * (q - 1)), reduction)


# --- likelihoods --------------------------------------------------------------------------------------------------
@registered("GaussianNLLLoss", looks=True)
def gaussian_nll_loss(
    input: Tensor,
    target: Any,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """½(ln v + (x − y)²/v) of a normal distribution with mean x and variance v; ``full`` adds ½ ln 2π.

    Shapes: input and target equal; var equal, or (…, 1), or (…) without the last axis: one for all of it.
    Raises: ShapeError; ConfigError for a negative variance, or ε ≤ 0.
    Source: D. A. Nix and A. S. Weigend, Estimating the Mean and Variance of the Target Probability Distribution, 1994.
    Note: a variance below ε counts as ε, with the derivative it has there: so it can grow again, as in PyTorch.
    """
    if not eps > 0:
        raise ConfigError("gaussian_nll_loss: eps", got=eps, needed="above 0")
    target = compared("gaussian_nll_loss", input, target)
    variance = as_tensor(var, input)
    if variance.ndim and variance.shape != input.shape:
        if variance.shape == input.shape[:-1]:
            variance = variance.unsqueeze(-1)
        elif variance.shape != (*input.shape[:-1], 1):
            needed = f"{input.shape}, {(*input.shape[:-1], 1)} or {input.shape[:-1]}"
            raise ShapeError("gaussian_nll_loss: var", got=f"shape {variance.shape}", needed=needed)
    array = variance._known()
    if array is not None and (array < 0).any():
        raise ConfigError("gaussian_nll_loss: var", got=f"{array.min():g}", needed="0 or more")
    low = variance.detach()
    variance = variance + (eps - low).masked_fill(low >= eps, 0.0)
    error = input - target
    loss = (variance.log() + error * error / variance) * 0.5
    return reduced(loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction)


@registered("PoissonNLLLoss", looks=True)
def poisson_nll_loss(
    input: Tensor,
    target: Any,
    log_input: bool = True,
    full: bool = False,
    *,
    eps: float = 1e-8,
    reduction: str = "mean",
) -> Tensor:
    """eˣ − y·x of counts y with the expected count eˣ; without ``log_input`` x − y·ln(x + ε), with x itself expected.

    ``full`` adds Stirling's y ln y − y + ½ ln 2πy for y > 1, nearly ln y!, which does not depend on x.

    Shapes: input and target equal.
    Raises: ShapeError; ConfigError for a negative count.
    Source: J. A. Nelder and R. W. M. Wedderburn, Generalized Linear Models, 1972, section 2 (log link).
    Note: eˣ overflows from x ≈ 88 in float32, where the loss is infinite; no form of it is not.
    """
    target = same_shape("poisson_nll_loss", input, target)
    array = target._known()
    if array is not None and (array < 0).any():
        raise ConfigError("poisson_nll_loss: target", got=f"{array.min():g}", needed="counts, 0 or more")
    loss = input.exp() - target * input if log_input else input - target * (input + eps).log()
    if full:
        small = target <= 1
        count = target.masked_fill(small, 1.0)
        loss = loss + (count * count.log() - count + (count * (2 * math.pi)).log() * 0.5).masked_fill(small, 0.0)
    return reduced(loss, reduction)


@registered("KLDivLoss", looks=True)
def kl_div(input: Tensor, target: Any, *, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """y·(ln y − x) of log-probabilities x and probabilities y (0 where y is 0), or eʸ·(y − x) with ``log_target``.

    ``reduction`` may be "batchmean" too: the sum divided by the size of the first axis.

    Shapes: input and target equal, or broadcast with a warning.
    Raises: ConfigError for a negative probability.
    Source: S. Kullback and R. A. Leibler, On Information and Sufficiency, 1951, equation 2.4.
    Note: takes (ln q, p) and measures p from q: Σ p ln(p/q), in nats. "mean" divides by all elements, also those of
    one distribution: "batchmean" is the mean divergence. ``slalom.information`` has the plain one, with a unit.

    >>> kl_div(Tensor([0.25, 0.75]).log(), Tensor([0.5, 0.5]), reduction="sum")
    tensor(0.1438)
    """
    target = compared("kl_div", input, target).to(input.dtype)
    loss: Tensor
    if log_target:
        loss = target.exp() * (target - input)
    else:
        array = target._known()
        if array is not None and (array < 0).any():
            raise ConfigError("kl_div: target", got=f"{array.min():g}", needed="probabilities, 0 or more")
        none = target == 0
        loss = (target * (target.masked_fill(none, 1.0).log() - input)).masked_fill(none, 0.0)
    if reduction == "batchmean":
        reduction, loss = "sum", loss / (input.shape[0] if input.ndim else 1)
    return reduced(loss, reduction)

"""Penalties on the size of weights, to be added to a loss: of the parameters that are chosen, no others."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from slalom.core.functional.registry import PENALTIES as PENALTIES  # filled by importing this module
from slalom.core.functional.registry import penalty
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError

__all__ = ["elastic_net_penalty", "l1_penalty", "l2_penalty"]


def _total(
    name: str, parameters: Tensor | Iterable[Tensor], strength: float, size: Callable[[Tensor], Tensor]
) -> Tensor:
    chosen = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    if not chosen:
        raise ConfigError(f"{name}: parameters", got="none", needed="at least one tensor", hint="a generator used up?")
    if not strength >= 0:
        raise ConfigError(f"{name}: strength", got=strength, needed="0 or more")
    total = size(chosen[0])
    for parameter in chosen[1:]:
        total = total + size(parameter)
    return total * strength


def _half_square(w: Tensor) -> Tensor:
    return (w * w).sum() * 0.5


@penalty("L1Penalty")
def l1_penalty(parameters: Tensor | Iterable[Tensor], strength: float = 1.0) -> Tensor:
    """λ Σ|w| over all elements of all parameters, which draws many of them towards 0; derivative λ·sign(w), 0 at 0.

    Raises: ConfigError for no parameters, or λ < 0.
    Source: R. Tibshirani, Regression Shrinkage and Selection via the Lasso, 1996, equation 1.
    Note: gradient steps make weights small, seldom exactly 0.

    >>> l1_penalty([Tensor([1.0, -2.0]), Tensor([3.0])], 0.5)
    tensor(3.)
    """
    return _total("l1_penalty", parameters, strength, lambda w: w.abs().sum())


@penalty("L2Penalty")
def l2_penalty(parameters: Tensor | Iterable[Tensor], strength: float = 1.0) -> Tensor:
    """½ λ Σ w² over all elements of all parameters; derivative λ·w, as an optimizer's ``weight_decay=λ`` adds it.

    Raises: ConfigError for no parameters, or λ < 0.
    Source: A. Hoerl and R. Kennard, Ridge Regression, 1970.
    Note: Keras's ``L2(λ)`` and some lectures have no ½. AdamW's weight decay is no penalty: it passes by
    the moments.

    >>> l2_penalty([Tensor([1.0, -2.0]), Tensor([3.0])], 0.5)
    tensor(3.5000)
    """
    return _total("l2_penalty", parameters, strength, _half_square)


@penalty("ElasticNetPenalty")
def elastic_net_penalty(parameters: Tensor | Iterable[Tensor], strength: float = 1.0, l1_ratio: float = 0.5) -> Tensor:
    """λ (ρ Σ|w| + ½ (1 − ρ) Σ w²): between ``l2_penalty`` (ρ = 0) and ``l1_penalty`` (ρ = 1).

    Raises: ConfigError for no parameters, λ < 0, or ρ outside 0 … 1.
    Source: H. Zou and T. Hastie, Regularization and Variable Selection via the Elastic Net, 2005, with scikit-learn's
    parameters.
    """
    if not 0 <= l1_ratio <= 1:
        raise ConfigError("elastic_net_penalty: l1_ratio", got=l1_ratio, needed="0 to 1")

    def size(w: Tensor) -> Tensor:
        return w.abs().sum() * l1_ratio + _half_square(w) * (1 - l1_ratio)

    return _total("elastic_net_penalty", parameters, strength, size)

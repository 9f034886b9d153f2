"""PyTorch's ``torch.nn.utils``: clipping of gradients, parameters as one vector."""

from __future__ import annotations

import math
from collections.abc import Iterable

from slalom.core.autodiff import no_grad
from slalom.core.functional.shaping import cat, stack
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError, DivergenceError, ShapeError

__all__ = ["clip_grad_norm_", "clip_grad_value_", "parameters_to_vector", "vector_to_parameters"]


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    listed = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [grad for grad in (p.grad for p in listed) if grad is not None]


def _check_limit(what: str, limit: float | Tensor) -> None:
    if not isinstance(limit, Tensor) and not limit >= 0:
        raise ConfigError(what, got=limit, needed="0 or more")


@no_grad()
def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """Scale all gradients in place by min(1, max_norm / (norm + 10⁻⁶)), with one norm over all; returns that norm.

    Raises: ConfigError for a negative max_norm, which would turn gradients round; DivergenceError for a norm that is
    not finite, if ``error_if_nonfinite``.
    Source: R. Pascanu, T. Mikolov and Y. Bengio, On the difficulty of training recurrent networks, 2013, algorithm 1.
    """
    _check_limit("clip_grad_norm_: max_norm", max_norm)
    grads = _gradients(parameters)
    if not grads:
        return Tensor(0.0)
    norm_type = float(norm_type)
    total = stack([grad.norm(p=norm_type) for grad in grads]).norm(p=norm_type)
    if error_if_nonfinite and not math.isfinite(total.item()):
        raise DivergenceError("clip_grad_norm_: norm of the gradients", got=total.item(), needed="a finite number")
    factor = (max_norm / (total + 1e-6)).clamp(max=1.0)
    for grad in grads:
        grad.mul_(factor)
    return total


@no_grad()
def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Limit every element of the gradients to −clip_value … clip_value, in place.

    Raises: ConfigError for a negative clip_value.
    """
    _check_limit("clip_grad_value_: clip_value", clip_value)
    for grad in _gradients(parameters):
        grad.clamp_(-clip_value, clip_value)


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters in one axis, one after the other."""
    return cat([p.reshape(-1) for p in parameters])


@no_grad()
def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Write a vector made by ``parameters_to_vector`` back into the parameters."""
    listed = list(parameters)
    total = sum(p.numel() for p in listed)
    if vec.shape != (total,):
        raise ShapeError("vector_to_parameters: vec", got=f"shape {vec.shape}", needed=f"({total},)")
    at = 0
    for p in listed:
        p.assign(vec[at : at + p.numel()].reshape(p.shape))
        at += p.numel()

"""Lookahead: an optimizer around an optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slalom.core.tensor import Tensor
from slalom.errors import ConfigError
from slalom.optim.optimizer import Group, Hyper, Optimizer, Slots

__all__ = ["Lookahead"]


class Lookahead(Optimizer):
    """Lets another optimizer run ahead, and follows it half of the way every few steps.

    every ``k`` steps: s ← s + α·(w − s),   w ← s,   with α = ``alpha``; s begins at w

    Parameter groups and state are those of the inner optimizer, with one tensor ``slow`` more for each parameter, so
    that schedules, ``state_dict`` and compiled steps work as without it.

    Raises: ConfigError for anything but an optimizer with an ``update`` rule, and for k below 1 or α outside 0 … 1.
    Source: Zhang, Lucas, Hinton, Ba (2019), "Lookahead optimizer: k steps forward, 1 step back", algorithm 1.

    >>> from slalom.optim import SGD
    >>> w = Tensor(15.0, requires_grad=True)
    >>> optimizer = Lookahead(SGD([w], lr=0.1), k=1)
    >>> ((w - 10) ** 2).backward(); optimizer.step(); w.item()
    14.5
    """

    def __init__(self, optimizer: Any, k: int = 5, alpha: float = 0.5) -> None:
        if not isinstance(optimizer, Optimizer) or type(optimizer).update is Optimizer.update:
            raise ConfigError("Lookahead: optimizer", got=type(optimizer).__name__, needed="one with an update rule")
        if type(k) is not int or k < 1:
            raise ConfigError("Lookahead: k", got=k, needed="an integer of at least 1")
        if not 0 <= alpha <= 1:
            raise ConfigError("Lookahead: alpha", got=alpha, needed="a number from 0 to 1")
        self.inner: Optimizer = optimizer
        self.k, self.alpha = k, alpha
        self.defaults, self.param_groups, self.state = optimizer.defaults, optimizer.param_groups, optimizer.state

    optional = property(lambda self: self.inner.optional)
    fixed = property(lambda self: self.inner.fixed)
    constraints = property(lambda self: self.inner.constraints)

    def slots_for(self, param: Tensor, group: Group) -> tuple[str, ...]:
        return (*self.inner.slots_for(param, group), "slow")

    def slot(self, name: str, param: Tensor, group: Group) -> Tensor:
        return Tensor(param.detach()) if name == "slow" else self.inner.slot(name, param, group)

    def scalars(self, hyper: Hyper, step: Tensor) -> Hyper:  # type: ignore[override]
        follow = (step * 0 + self.alpha).where(step % self.k == 0, 0.0)
        return {**self.inner.scalars(hyper, step), "follow": follow, "meet": follow * 0 + (step % self.k == 0)}

    def update(self, param: Tensor, grad: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:  # type: ignore[override]
        ahead, new = self.inner.update(param, grad, {k: v for k, v in slots.items() if k != "slow"}, hyper)
        slow = slots["slow"] + hyper["follow"] * (ahead - slots["slow"])
        return slow.where(hyper["meet"] > 0, ahead), {**new, "slow": slow}

    def add_param_group(self, param_group: Group) -> None:
        self.inner.add_param_group(param_group)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.inner.state = self.state

    def __repr__(self) -> str:
        return f"Lookahead(k={self.k}, alpha={self.alpha}) of {self.inner!r}"

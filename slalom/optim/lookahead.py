"""Lookahead: an optimizer around an optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from slalom.core.tensor import Tensor
from slalom.errors import ConfigError
from slalom.optim.optimizer import COUNT, FRACTION, Constraints, Group, Hyper, Optimizer, Slots, refuse_wrong

__all__ = ["Lookahead"]

_K, _ALPHA = "lookahead_k", "lookahead_alpha"
_OWN: Final[Constraints] = {_K: COUNT, _ALPHA: FRACTION}


class Lookahead(Optimizer):
    """Lets another optimizer run ahead, and follows it half of the way every few steps.

    every ``k`` steps: s ← s + α·(w − s),   w ← s,   with α = ``alpha``; s begins at w

    Parameter groups and state are those of the inner optimizer, with one tensor ``slow`` more for each parameter, so
    that schedules, ``state_dict`` and compiled steps work as without it. k and α stand in the groups, as
    ``lookahead_k`` and ``lookahead_alpha``, are saved with them, and may be set at any time.

    Raises: ConfigError for anything but an optimizer with an ``update`` rule, and for k below 1 or α outside 0 … 1.
    Source: Zhang, Lucas, Hinton, Ba (2019), "Lookahead optimizer: k steps forward, 1 step back", algorithm 1.
    Note: the inner rule keeps its state (momentum) when the weights go back.

    >>> from slalom.optim import SGD
    >>> w = Tensor(15.0, requires_grad=True)
    >>> optimizer = Lookahead(SGD([w], lr=0.1), k=1)
    >>> ((w - 10) ** 2).backward(); optimizer.step(); w.item()
    14.5
    """

    constraints: ClassVar[Constraints] = _OWN

    def __init__(self, optimizer: Any, k: int = 5, alpha: float = 0.5) -> None:
        wrong = not isinstance(optimizer, Optimizer) or type(optimizer).update is Optimizer.update
        if wrong or isinstance(optimizer, Lookahead):
            needed = "one with an update rule, not wrapped yet"
            raise ConfigError("Lookahead: optimizer", got=type(optimizer).__name__, needed=needed)
        refuse_wrong("Lookahead", {"k": COUNT, "alpha": FRACTION}, {"k": k, "alpha": alpha})
        self.inner: Optimizer = optimizer
        self.optional, self.fixed = optimizer.optional, optimizer.fixed
        self.defaults = {**optimizer.defaults, _K: k, _ALPHA: alpha}
        self.param_groups, self.state = optimizer.param_groups, optimizer.state
        for group in self.param_groups:
            group.update({_K: k, _ALPHA: alpha})

    def _check(self, group: Group) -> None:
        self.inner._check(group)
        refuse_wrong("Lookahead", _OWN, group)

    def _rules(self) -> tuple[Callable[..., Any], ...]:
        return self.inner._rules()

    def slots_for(self, param: Tensor, group: Group) -> tuple[str, ...]:
        return (*self.inner.slots_for(param, group), "slow")

    def slot(self, name: str, param: Tensor, group: Group) -> Tensor:
        return Tensor(param.detach()) if name == "slow" else self.inner.slot(name, param, group)

    def scalars(self, hyper: Hyper, step: Tensor) -> Hyper:  # type: ignore[override]
        return {**self.inner.scalars(hyper, step), "follow": hyper[_ALPHA], "meet": step % hyper[_K] == 0}

    def update(self, param: Tensor, grad: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:  # type: ignore[override]
        slow = slots["slow"]
        ahead, new = self.inner.update(param, grad, {k: v for k, v in slots.items() if k != "slow"}, hyper)
        slow = (slow + hyper["follow"] * (ahead - slow)).where(hyper["meet"], slow)
        return slow.where(hyper["meet"], ahead), {**new, "slow": slow}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.inner.state = self.state

    def __repr__(self) -> str:
        return f"Lookahead of {self.inner!r}"

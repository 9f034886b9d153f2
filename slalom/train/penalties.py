"""Penalties on the size of chosen parameters, which a training step adds to the loss that it minimises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from slalom.core.autodiff import no_grad
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError, ShapeError
from slalom.nn import Module
from slalom.train.feed import described

__all__ = ["Penalised", "penalised"]


@dataclass(frozen=True)
class Penalised:
    """A penalty, and the parameters that it is on, which a pattern of their names chose."""

    pattern: str
    penalty: Callable[[list[Tensor]], Tensor]
    parameters: Mapping[str, Tensor]

    def __call__(self) -> Tensor:
        """The penalty now. Raises: ShapeError for one that is no scalar tensor."""
        found: Any = self.penalty(list(self.parameters.values()))
        if not isinstance(found, Tensor) or found.shape != ():
            got = f"shape {found.shape}" if isinstance(found, Tensor) else type(found).__name__
            raise ShapeError(f"penalties: what that of {self.pattern!r} returns", got=got, needed="a scalar tensor")
        return found

    def __str__(self) -> str:
        names = list(self.parameters)
        shown = ", ".join(names if len(names) <= 4 else [*names[:3], f"{len(names) - 3} more"])
        return f"{described(self.penalty)} on {shown}"


def penalised(model: Module, penalties: Any) -> tuple[Penalised, ...]:
    """For each pattern of a dict, as the shell's, the penalty on all parameters of a model whose names match it.

    Raises: ConfigError for a pattern that matches none, or something that is no penalty.
    """
    if not isinstance(penalties, Mapping | None):
        hint = 'penalties={"*weight": nn.L2Penalty(1e-4)}'
        raise ConfigError("Trainer: penalties", got=repr(penalties), needed="a dict of them by names", hint=hint)
    found: list[Penalised] = []
    named = dict(model.named_parameters())
    for pattern, penalty in (penalties or {}).items():
        if not callable(penalty):
            needed = "nn.L1Penalty(…), or a function of a list of parameters"
            raise ConfigError(f"Trainer: penalties[{pattern!r}]", got=repr(penalty), needed=needed)
        chosen = {name: p for name, p in named.items() if fnmatchcase(name, str(pattern))}
        if not chosen:
            names = ", ".join([*list(named)[:6], *(["…"] if len(named) > 6 else [])]) or "no parameters"
            got = f"the pattern {pattern!r}, which none matches"
            raise ConfigError("Trainer: penalties", got=got, needed=f"names of parameters ({names})")
        found.append(Penalised(str(pattern), penalty, chosen))
        with no_grad():
            found[-1]()  # what is wrong with it is said here, not in the first step
    return tuple(found)

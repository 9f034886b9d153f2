"""Loss: the base of the losses, which compiles them where a loop is compiled around them."""

from __future__ import annotations

from typing import Any

from slalom.core.trace import from_compiled
from slalom.nn.module import Module

__all__ = ["Loss"]


class Loss(Module):
    """Base of the losses. On what a compiled module returns, they are soon compiled themselves.

    Note: in a loop around ``slalom.compile(model)`` the loss would take longer than the model.
    """

    _native = None
    _eager_calls = 2

    _looks: bool
    """Whether it refuses values of its inputs, or calls a user's function: it must run to do so."""

    def _is_worth(self, x: Any) -> bool:
        return from_compiled(x)

"""Loss: the base of the losses, which compiles them where a loop is compiled around them."""

from __future__ import annotations

from typing import Any, Final

from slalom.core.node import MODE
from slalom.core.trace import from_compiled, natively
from slalom.errors import SlalomError, StagingError
from slalom.nn.module import HOOKS, Module

__all__ = ["Loss"]

_EAGER_CALLS: Final = 2
"""So many calls are made operation by operation, so that short scripts do not wait for a compiler."""
_RECORDS: Final = 8
"""After so many records, whatever changes all the time is not worth another."""


class Loss(Module):
    """Base of the losses. On what a compiled module returns, they are soon compiled themselves.

    Note: in a loop around ``slalom.compile(model)`` the loss would take longer than the model. What cannot be
    compiled, refuses values of its inputs, has hooks, or is a user's subclass runs operation by operation as ever.
    """

    _looks: bool
    """Whether it refuses values of its inputs, or calls a user's function: it must run to do so."""

    _calls: int = 0
    _native: Any = None
    """What runs such calls; False: nothing does."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if args and self._native is not False and from_compiled(args[0]) and MODE.get().trace is None:
            made = self._natively(args, kwargs)
            if made is not None:
                return made
        return super().__call__(*args, **kwargs)

    def _natively(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The loss by machine code; None if it is left to be computed operation by operation."""
        held = self.__dict__
        calls = held["_calls"] = self._calls + 1
        own = "_looks" in vars(type(self)) and not self._looks and not any(held[name] for name in HOOKS)
        if calls <= _EAGER_CALLS or not own or self._compiled_call is not None:
            return None
        if self._native is None:
            held["_native"] = natively(self) or False
        if not self._native or self._native.traces >= _RECORDS:
            return None
        try:
            return self._native(*args, **kwargs)
        except StagingError:
            held["_native"] = False
        except SlalomError:  # the operations say the same, and more closely
            pass
        return None

"""Warm: the base of modules that become machine code once they have been called often enough."""

from __future__ import annotations

from typing import Any, ClassVar

from slalom.core.node import MODE
from slalom.core.tensor import Tensor
from slalom.core.trace import compiling, natively
from slalom.errors import SlalomError, StagingError
from slalom.nn.module import HOOKS, Module

__all__ = ["Warm", "is_plain"]

_RECORDS = 8
"""After so many records, whatever changes all the time is not worth another."""


class Warm(Module):
    """Base of modules whose calls are compiled once they have come again and again, in an ordinary loop.

    What cannot be compiled, writes states, has hooks or parts of the user's making runs operation by operation as
    ever, and so does all under ``slalom.no_compile()``.
    """

    _eager_calls: ClassVar[int]
    """So many calls are made operation by operation, so that short scripts do not wait for a compiler."""

    _calls: int = 0
    _native: Any = None
    """What runs such calls; False: nothing does."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._native is not False and args and MODE.get().trace is None and self._is_worth(args[0]):
            made = self._natively(args, kwargs)
            if made is not None:
                return made
        return super().__call__(*args, **kwargs)

    def _is_worth(self, x: Any) -> bool:
        """Whether a call with this first argument is one that is compiled in the end."""
        raise NotImplementedError

    def _natively(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        """The result by machine code; None if it is left to be computed operation by operation."""
        held = self.__dict__
        calls = held["_calls"] = self._calls + 1
        if calls <= self._eager_calls or self._compiled_call is not None or not is_plain(self) or not compiling():
            return None
        if self._native is None:
            held["_native"] = natively(self) or False
        if not self._native or self._native.traces >= _RECORDS:
            return None
        try:
            made = self._native(*args, **kwargs)
            if isinstance(made, Tensor):
                return made
            held["_native"] = False
        except StagingError:
            held["_native"] = False
        except SlalomError:  # the operations say the same, and more closely
            pass
        return None


def is_plain(module: Module) -> bool:
    """Whether nothing of the user's runs in a call of a module: it and its parts are layers of this package, and have
    no hooks."""
    parts = [module]
    for part in parts:
        held = part.__dict__
        if not _is_own(type(part)) or "forward" in held or any(map(held.__getitem__, HOOKS)):
            return False
        parts += [each for each in held["_modules"].values() if each is not None]
    return True


def _is_own(kind: type[Module]) -> bool:
    """Whether a class is one of this package that calls no function of the user's and refuses no values."""
    return kind.__module__.startswith(f"{__package__}.") and not vars(kind).get("_looks", False)

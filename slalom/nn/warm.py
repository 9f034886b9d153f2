"""Warm: modules that are called again and again in an ordinary loop become machine code.

What a call must be for that is said in ``plain``; who has no part in it at all keeps ``_native`` at False.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from slalom.core.tensor import Tensor
from slalom.core.trace import compiling, natively
from slalom.errors import SlalomError, StagingError

if TYPE_CHECKING:
    from slalom.nn.module import Module

__all__ = ["native_call"]

_RECORDS: Final = 8
"""After so many records, whatever changes all the time is not worth another."""
_AGAIN: Final = 8
"""What cannot be recorded is tried again after so many times as many calls: hooks may be gone by then."""
_FIXED: Final = (Tensor, bool, int, float, str, type(None))
"""What the arguments are: nothing that a call could change but tensors."""


def native_call(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The result of a call by machine code; None if it is left to be computed operation by operation.

    The first calls are: short scripts shall not wait for a compiler. So are those that a debugger follows.
    """
    held = module.__dict__
    calls = held["_calls"] = module._calls + 1
    if calls <= module._eager_calls or module._compiled_call is not None or not compiling():
        return None
    if sys.gettrace() is not None or any(not isinstance(x, _FIXED) for x in (*args, *kwargs.values())):
        return None
    if module._native is None:
        held["_native"] = natively(module) or False
    if module._native is False or module._native.traces >= _RECORDS:
        return None
    try:
        made = module._native(*args, **kwargs)
        if isinstance(made, Tensor):
            return made
    except StagingError:
        pass
    except SlalomError:  # the operations say the same, and more closely
        return None
    held["_calls"] = -_AGAIN * calls
    return None

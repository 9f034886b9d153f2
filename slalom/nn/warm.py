"""Warm: modules that are called again and again in an ordinary loop become machine code.

What a call must be for that is said in ``plain``; who has no part in it at all keeps ``_native`` at False.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from slalom.core.node import MODE
from slalom.core.tensor import Tensor
from slalom.core.trace import compiling, natively
from slalom.errors import SlalomError, StagingError

__all__ = ["native_call"]

_PACKAGE: Final = __name__.partition(".")[0]
_MONITORING: Final = getattr(sys, "monitoring", None)
_DEBUGGER: Final = 0
"""How Python from 3.12 on names the one that does not use ``sys.settrace``: ``sys.monitoring.DEBUGGER_ID``."""
_AGAIN: Final = 8
"""What cannot be recorded is tried again after so many times as many calls: hooks may be gone by then."""
PREDICTIONS: Final = 64
"""So many calls without gradients, with arguments of the same shapes, are computed operation by operation."""
_KINDS: Final = 16
"""Of so many shapes are such calls counted; where there are more, none of them comes back often."""
_FIXED: Final = (bool, int, float, str, type(None))


def _is_fixed(value: Any) -> bool:
    """Whether an argument is nothing that a call could change but tensors of this package's own classes."""
    kind = type(value)
    if kind is tuple:
        return all(map(_is_fixed, value))
    return kind in _FIXED or (isinstance(value, Tensor) and kind.__module__.partition(".")[0] == _PACKAGE)


def _is_watched() -> bool:
    """Whether a debugger follows the lines that run."""
    return sys.gettrace() is not None or (_MONITORING is not None and _MONITORING.get_tool(_DEBUGGER) is not None)


def _counted(held: dict[str, Any], kind: Any) -> int:
    """Count a call without gradients: how many there were of its kind."""
    counts: dict[Any, int] = held.setdefault("_predictions", {})
    count = counts[kind] = counts.get(kind, 0) + 1
    if count == 1 and len(counts) > _KINDS:
        held["_predictions"] = {kind: 1} | {known: n for known, n in counts.copy().items() if n > PREDICTIONS}
    return count


def native_call(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of a Module's call by machine code; None if it is left to be computed operation by operation.

    The first calls are: short scripts shall not wait for a compiler. So are those that a debugger follows. When it
    begins depends on the number of calls alone, not on the time they take: the same script computes the same bits.
    """
    held, learns, kind = module.__dict__, MODE.get().grad, None
    if learns:
        calls = held["_calls"] = module._calls + 1
    else:
        kind = tuple([x.shape if isinstance(x, Tensor) else None for x in (*args, *kwargs.values())])
        calls = _counted(held, kind)
    enough = calls > (module._eager_calls if learns else PREDICTIONS)
    if not enough or module._compiled_call is not None or not compiling():
        return None
    if _is_watched() or not all(map(_is_fixed, (*args, *kwargs.values()))):
        return None
    if module._native is None:
        held["_native"] = natively(module) or False
    if module._native is False:
        return None
    try:
        return module._native(*args, **kwargs)
    except StagingError:
        pass
    except SlalomError:  # the operations say the same, and more closely; or there are records enough
        return None
    if learns:
        held["_calls"] = -_AGAIN * calls
    else:
        held["_predictions"][kind] = -_AGAIN * calls
    return None

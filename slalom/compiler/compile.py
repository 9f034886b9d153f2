"""``slalom.compile``: functions, and modules in place."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from slalom.compiler.modules import ModuleCall
from slalom.compiler.native import native
from slalom.compiler.stage import Compiled
from slalom.core.trace import offer_native
from slalom.errors import StagingError

__all__ = ["compile"]


def compile(function: Any) -> Any:
    """Record ``function`` at its first call and run the record from then on; usable as a decorator.

    Everything that Tensor operations do inside is recorded: forward, ``backward()``, ``optimizer.step()``. Tensors
    from outside (parameters, buffers, optimizer slots, random counters) are found, read anew at each call and
    written back; nothing has to be declared. NumPy arrays among the arguments are seen as tensors inside. Python code
    runs only while recording, so a branch on a tensor's value is an error there that names the line; plain Python
    values are part of the record, and a change of one that the function reads by name records anew.

    A Module is returned as it is; from then on its calls are compiled, forward and backward, and an ordinary loop
    around it stays what it was. Its hooks are part of the record; a copy of the module is not compiled.

    Returns: a function whose results are new tensors without history, never the arguments or states themselves.
    Raises: StagingError for what cannot be recorded.
    Note: through the call of a compiled module there are first derivatives only, in reverse mode. For others, compile
    the function that takes them.

    >>> from slalom import tensor
    >>> step = compile(lambda x: x * 2 + 1)
    >>> step(tensor([1.0, 2.0]))
    tensor([3., 5.])
    """
    if not callable(function):
        raise StagingError("compile", got=type(function).__name__, needed="a function")
    if isinstance(function, type):
        raise StagingError("compile", got=f"the class {function.__name__}", needed="a function or an instance")
    if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
        raise StagingError("compile", got="a generator or coroutine function", needed="a function that returns")
    if hasattr(function, "_compiled_call"):  # a Module
        if function._compiled_call is None:
            function._compiled_call = ModuleCall(function)
        return function
    return function if isinstance(function, Compiled) else Compiled(function)


@offer_native
def _natively(function: Callable[..., Any]) -> Compiled | None:
    if not native():
        return None
    return ModuleCall(function, pure=True) if hasattr(function, "_compiled_call") else Compiled(function)

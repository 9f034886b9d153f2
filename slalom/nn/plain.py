"""Plain: whether a call of a module does nothing but compute, so that machine code may stand for it unasked.

The layers of this package compute, draw random numbers and keep statistics, all of which is recorded. Of a user's class
the code of ``forward`` is looked at, and that of the user's functions which it calls: it is plain if all that it names
are its parts, its tensors, numbers, and the functions of tensors. Whoever prints, counts, collects or keeps something
there is not, nor is what has hooks.
"""

from __future__ import annotations

import builtins
import dis
import inspect
import math
import re
import types
from typing import Any, Final

import numpy as np

from slalom.core.tensor import Tensor
from slalom.nn.hooks import HOOKS

__all__ = ["is_plain"]

_PACKAGE: Final = __name__.partition(".")[0]
_FUNCTIONS: Final = (f"{_PACKAGE}.core.functional.", f"{_PACKAGE}.nn.functional", f"{_PACKAGE}.core.tensor")
_CONSTANTS: Final = (bool, int, float, complex, str, type(None), types.EllipsisType, np.dtype)
_BUILTINS: Final = (
    *(abs, all, any, bool, divmod, enumerate, float, int, isinstance, len, list, max, min, range, reversed, round),
    *(slice, sorted, str, sum, tuple, zip),
)
_IGNORED: Final = ("CACHE", "EXTENDED_ARG", "NOP", "NOT_TAKEN", "PRECALL", "PUSH_NULL", "RESUME")
_EFFECTS: Final = (
    "STORE_ATTR",
    "STORE_GLOBAL",
    "STORE_NAME",
    "DELETE_",
    "IMPORT_",
    "YIELD_",
    "RETURN_GENERATOR",
    "GET_A",
)
_ENCLOSED: Final = ("DEREF", "CLOSURE", "MAKE_CELL", "LOAD_SUPER", "BUILD_CLASS")
_OF_MODULES: Final = frozenset(("forward", "items", "keys", "values"))
_OF_TENSORS: Final = frozenset(("backward", "data", "grad", "requires_grad_", "retain_grad"))
"""Attributes of a submodule that a call may take, and those that it may take of nothing."""
_OWN_CALLS: Final = ("__call__", "__getattr__", "__getattribute__", "__setattr__")


def is_plain(module: Any) -> bool:
    """Whether a call of a module, with all its parts, is plain."""
    parts = [module]
    for part in parts:
        held = part.__dict__
        if "forward" in held or any(map(held.__getitem__, HOOKS)):
            return False
        kind = type(part)
        if kind.__module__.startswith(f"{_PACKAGE}.nn."):
            if vars(kind).get("_looks", False) or any(_is_users(name, value) for name, value in held.items()):
                return False
        elif not _Looked(part).is_plain():
            return False
        parts += [each for each in held["_modules"].values() if each is not None]
    return True


def _is_users(name: str, value: Any) -> bool:
    """Whether what a layer holds is a function of the user's, to be called."""
    if not callable(value) or name in ("_compiled_call", "_native"):
        return False
    return not (getattr(value, "__module__", None) or "").startswith(f"{_PACKAGE}.")


class _NotPlainError(Exception):
    """Something that is not plain was named. The class itself stands for a name with nothing under it."""


class _Part:
    """A submodule, as the code of another names it."""

    def __init__(self, module: Any) -> None:
        self.module = module


class _Unknown:
    """What is known only when the code runs: a tensor, most of the time."""


class _Looked:
    """A user's module, whose code is looked at."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._seen: set[Any] = set()

    def is_plain(self) -> bool:
        kind = type(self._module)
        users = [base for base in kind.__mro__ if not base.__module__.startswith(f"{_PACKAGE}.")]
        if any(name in vars(base) for base in users if base is not object for name in _OWN_CALLS):
            return False
        try:
            return self._function(kind.forward, own=True)
        except _NotPlainError:
            return False

    def _function(self, function: Any, own: bool) -> bool:
        """Whether a function of the user's is plain; ``own``: its first argument is the module."""
        if not isinstance(function, types.FunctionType):
            return False
        if function not in self._seen:
            self._seen.add(function)
            self._code(function.__code__, function.__globals__, own)
        return True

    def _code(self, code: types.CodeType, names: dict[str, Any], own: bool) -> None:
        """Raises: _NotPlainError."""
        self_ = code.co_varnames[0] if own and code.co_argcount else None
        now: Any = _Unknown  # what the last instruction has named
        for instruction in dis.get_instructions(code):
            op, arg = instruction.opname, instruction.argval
            if op in _IGNORED:
                continue
            if op.startswith(_EFFECTS) or "DEREF" in op or "CLOSURE" in op:
                raise _NotPlainError
            if op in ("LOAD_ATTR", "LOAD_METHOD"):
                now = self._member(now, arg)
                continue
            self._settle(now)
            now = _Unknown
            if "LOAD_FAST" in op:  # later Pythons join two instructions in one
                variables = zip(re.findall("LOAD|STORE", op), arg if isinstance(arg, tuple) else (arg,), strict=True)
                *before, now = [self._module if v == (how == "LOAD" and self_) else _Unknown for how, v in variables]
                if self._module in before:
                    raise _NotPlainError
            elif op == "LOAD_GLOBAL":
                now = names[arg] if arg in names else getattr(builtins, arg, _NotPlainError)
        self._settle(now)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._code(constant, names, own=False)

    def _settle(self, value: Any) -> None:
        """A name that stands alone, to be called, passed on or computed with."""
        if value is _NotPlainError:  # there is nothing under this name
            raise _NotPlainError
        if value is _Unknown or isinstance(value, (_Part, Tensor, *_CONSTANTS)):
            return
        if isinstance(value, tuple) and all(isinstance(x, _CONSTANTS) for x in value):
            return
        if isinstance(value, types.FunctionType) and not value.__module__.startswith(f"{_PACKAGE}."):
            self._function(value, own=False)
            return
        if isinstance(value, types.BuiltinFunctionType) and getattr(math, value.__name__, None) is value:
            return
        home = getattr(value, "__module__", None) or ""
        if home.startswith(_FUNCTIONS) or any(value is each for each in _BUILTINS):
            return
        if isinstance(value, type) and issubclass(value, Exception):
            return
        raise _NotPlainError

    def _member(self, value: Any, name: str) -> Any:
        """What an attribute of something named is."""
        if value is self._module:
            return self._own(name)
        if isinstance(value, types.ModuleType) and (value is math or value.__name__.startswith(_PACKAGE)):
            return getattr(value, name, _NotPlainError)
        if isinstance(value, _Part):
            held = value.module.__dict__
            if name in held["_modules"]:
                return _Part(held["_modules"][name])
            if name in held["_parameters"] or name in held["_buffers"] or name in _OF_MODULES:
                return _Unknown
            return held.get(name, _NotPlainError)
        if name in _OF_TENSORS or name.startswith("register_"):
            raise _NotPlainError
        if value is _Unknown or isinstance(value, (Tensor, *_CONSTANTS)):
            return _Unknown
        raise _NotPlainError

    def _own(self, name: str) -> Any:
        held = self._module.__dict__
        if name in held["_modules"]:
            part = held["_modules"][name]
            return None if part is None else _Part(part)
        if name == "training" or name in held["_parameters"] or name in held["_buffers"]:
            return _Unknown
        if name in held:
            return held[name]
        found = getattr(type(self._module), name, _NotPlainError)
        if isinstance(found, types.FunctionType) and not found.__module__.startswith(f"{_PACKAGE}."):
            self._function(found, own=not isinstance(inspect.getattr_static(self._module, name), staticmethod))
            return _Unknown
        return found

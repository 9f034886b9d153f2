"""Plain: whether a call of a module does nothing but compute, so that machine code may stand for it unasked.

The layers of this package compute, draw random numbers and keep statistics, all of which is recorded. Of a user's class
the code of ``forward`` is looked at, and that of the user's functions which it calls: it is plain if all that it names
are its parts, its tensors, numbers, and the functions of tensors. Whoever prints, counts, collects or keeps something
there is not, nor is what has hooks. While a call is recorded, the record is made to depend on what was read.

Nothing is followed through variables: what one holds may be any of the parts, so that an attribute taken of it must be
harmless in all of them.
"""

from __future__ import annotations

import builtins
import dis
import functools
import math
import re
import sys
import types
from typing import Any, Final

import numpy as np

from slalom.core import random
from slalom.core.autodiff import enable_grad, no_grad
from slalom.core.guards import NOTHING, Content, Equals, Same
from slalom.core.tensor import Tensor
from slalom.core.trace import current
from slalom.nn.hooks import HOOKS

__all__ = ["is_plain"]

_PACKAGE: Final = __name__.partition(".")[0]
_FUNCTIONS: Final = (f"{_PACKAGE}.core.functional.", f"{_PACKAGE}.nn.functional", f"{_PACKAGE}.core.tensor")
_CONSTANTS: Final = (bool, int, float, complex, str, type(None), types.EllipsisType, np.dtype)
_CALLED: Final = (
    *(enable_grad, no_grad),
    *(abs, all, any, bool, dict, divmod, enumerate, filter, float, int, isinstance, len, list, map, max, min, pow),
    *(range, reversed, round, slice, sorted, str, sum, tuple, zip),
    *(random.bernoulli, random.normal, random.rand, random.rand_like, random.randint, random.randn),
    *(random.randn_like, random.randperm),
)
"""What may be called, besides the functions of tensors and the user's own."""
_IGNORED: Final = (
    *("CACHE", "COPY_FREE_VARS", "EXTENDED_ARG", "LOAD_CLOSURE", "MAKE_CELL", "NOP", "NOT_TAKEN", "PRECALL"),
    *("PUSH_NULL", "RESUME"),
)
_EFFECTS: Final = (
    *("STORE_ATTR", "STORE_GLOBAL", "STORE_NAME", "DELETE_", "IMPORT_", "LOAD_BUILD_CLASS", "LOAD_NAME", "GET_A"),
    "CHECK_E",
)
_OF_GENERATORS: Final = ("YIELD_", "RETURN_GENERATOR")
_SUPER: Final = ("CALL", "LOAD_DEREF", "LOAD_FAST", "LOAD_GLOBAL")
"""What stands between ``super`` and the attribute taken of it."""
_OF_MODULES: Final = frozenset(("forward", "items", "keys", "training", "values"))
"""What may be taken of any module, besides what it holds and the methods of the user's classes."""
_OF_VALUES: Final = frozenset(
    name for kind in (Tensor, dict, list, range, slice, str, tuple) for name in dir(kind) if not name.startswith("_")
) - {"backward", "data", "grad", "grad_fn", "is_leaf", "numpy", "requires_grad_", "retain_grad"}
"""What may be taken of tensors and containers."""
_UNCALLED: Final = frozenset(
    f"__{name}__"
    for name in ("init", "new", "del", "repr", "str", "init_subclass", "getstate", "setstate", "reduce", "deepcopy")
)
"""Methods of a class that a call of its instance does not come by."""


def is_plain(module: Any) -> bool:
    """Whether a call of a module, with all its parts, is plain."""
    parts = {id(module): module}
    stack = [module]
    while stack:
        below = vars(stack.pop())["_modules"].values()
        new = {id(part): part for part in below if part is not None and id(part) not in parts}
        parts.update(new)
        stack += new.values()
    look = _Look(parts)
    try:
        for part in parts.values():
            look.part(part)
    except _NotPlainError:
        return False
    return True


def _is_ours(home: Any) -> bool:
    return str(home).startswith(f"{_PACKAGE}.")


def _users(kind: type) -> list[type]:
    """The classes of the user's that one is made of."""
    return [base for base in kind.__mro__ if base is not object and not _is_ours(base.__module__)]


def _is_users(name: str, value: Any) -> bool:
    """Whether what a layer of ours holds is a function of the user's, to be called."""
    return callable(value) and name not in ("_compiled_call", "_native") and not _is_ours(_home(value))


def _home(value: Any) -> str:
    return str(getattr(value, "__module__", None))


def _is_users_function(value: Any) -> bool:
    """Whether a function's code is the user's, whatever it says of itself."""
    return isinstance(value, types.FunctionType) and not _is_ours(value.__globals__.get("__name__"))


def _is_tensor(value: Any) -> bool:
    """Whether a value is a tensor of this package's own classes: the user's may compute in other ways."""
    return isinstance(value, Tensor) and _is_ours(type(value).__module__)


def _is_constant(value: Any) -> bool:
    return isinstance(value, _CONSTANTS) or (isinstance(value, tuple) and all(map(_is_constant, value)))


class _NotPlainError(Exception):
    """Something that is not plain was named. The class itself stands for a name with nothing under it."""


class _Unknown:
    """What is known only when the code runs: a tensor, most of the time."""


class _Look:
    """A look at the code of the user's that a call of one of these modules runs. Raises: _NotPlainError."""

    def __init__(self, parts: dict[int, Any]) -> None:
        self._parts = parts
        self._seen: set[Any] = set()

    def part(self, part: Any) -> None:
        """Look at one of the modules."""
        held, kind = vars(part), type(part)
        if "forward" in held or any(map(held.__getitem__, HOOKS)) or getattr(kind, "_looks", False):
            raise _NotPlainError
        for t in (*held["_parameters"].values(), *held["_buffers"].values()):
            self._settle(t)
        for base in _users(kind):
            for name, value in vars(base).items():
                if name.startswith("__") and isinstance(value, types.FunctionType) and name not in _UNCALLED:
                    raise _NotPlainError
        self._forwards(part, first=True)

    def _forwards(self, part: Any, first: bool) -> None:
        """Look at ``forward``, that of the class or all that ``super()`` may mean."""
        kind = type(part)
        for base in [base for base in kind.__mro__ if "forward" in vars(base)][: 1 if first else None]:
            if base in _users(kind):
                self._taken(part, base, "forward")
                continue
            own = {name for users in _users(kind) for name in vars(users)} - {"forward", "extra_repr", "_native"}
            if any(not name.startswith("__") and hasattr(base, name) for name in own):
                raise _NotPlainError  # a layer of ours that calls a method of the user's
            if any(_is_users(name, value) for name, value in vars(part).items()):
                raise _NotPlainError

    # --- code -----------------------------------------------------------------------------------------------------
    def _function(self, function: Any, module: Any = None) -> None:
        """Look at a function of the user's, whose first argument is the module."""
        if not _is_users_function(function):
            raise _NotPlainError
        if (function, module) not in self._seen:
            self._seen.add((function, module))
            for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
                self._settle(value)
            cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
            names = {name: content if (content := Content(cell)()) is not NOTHING else None for name, cell in cells}
            self._code(function.__code__, function.__globals__, names, module)

    def _code(self, code: types.CodeType, outside: dict[str, Any], known: dict[str, Any], module: Any = None) -> None:
        """``outside``: what its global names mean; ``known``: those of its variables of which that is known."""
        if code.co_argcount and module is not None:
            known = {**known, code.co_varnames[0]: module}
        effects = _EFFECTS if code.co_name == "<genexpr>" else (*_EFFECTS, *_OF_GENERATORS)
        now: Any = _Unknown  # what the last instruction has named
        before = ""
        for instruction in dis.get_instructions(code):
            op, arg = instruction.opname, instruction.argval
            if op in _IGNORED:
                continue
            if op.startswith(effects) or (before == "PUSH_EXC_INFO" and op != "WITH_EXCEPT_START"):
                raise _NotPlainError  # whoever catches errors would catch those of a recording too
            before = op
            if instruction.is_jump_target:  # here several ways meet
                self._settle(now)
                now = _Unknown
            if op in ("LOAD_ATTR", "LOAD_METHOD") or op.startswith("LOAD_SUPER"):
                now = self._member(now, arg, module)
                continue
            if now is super and op.startswith(_SUPER):
                continue
            self._settle(now)
            now = _Unknown
            if "_FAST" in op or "_DEREF" in op:  # later Pythons join two instructions in one
                names = arg if isinstance(arg, tuple) else (arg,)
                for how, name in zip(re.findall("LOAD|STORE", op), names, strict=True):
                    self._settle(now)
                    if how == "STORE" and name in known:
                        raise _NotPlainError
                    now = known.get(name, _Unknown) if how == "LOAD" else _Unknown
            elif op == "LOAD_GLOBAL":
                now = outside[arg] if arg in outside else getattr(builtins, arg, _NotPlainError)
        self._settle(now)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                inner = {name: known[name] for name in constant.co_freevars if name in known}
                self._code(constant, outside, inner)

    def _settle(self, value: Any) -> None:
        """A name that stands alone, to be called, passed on or computed with."""
        if value is _Unknown or _is_constant(value) or _is_tensor(value):
            return
        if type(value) is functools.partial:
            for each in (value.func, *value.args, *value.keywords.values()):
                self._settle(each)
            return
        if _is_users_function(value):
            self._function(value)
            return
        if isinstance(value, types.BuiltinFunctionType) and getattr(math, value.__name__, None) is value:
            return
        if id(value) in self._parts or isinstance(value, np.ufunc) or any(value is each for each in _CALLED):
            return
        if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == "builtins":
            return
        if not _home(value).startswith(_FUNCTIONS):
            raise _NotPlainError

    # --- attributes -----------------------------------------------------------------------------------------------
    def _member(self, value: Any, name: str, module: Any) -> Any:
        """What an attribute of something named is."""
        if value is super:
            if name != "forward" or module is None:
                raise _NotPlainError
            return self._forwards(module, first=False)
        if id(value) in self._parts:
            return self._of(value, name)
        if isinstance(value, types.ModuleType):
            top = value.__name__.partition(".")[0]
            if value in (math, np) or top == _PACKAGE or top not in (*sys.stdlib_module_names, "numpy"):
                return getattr(value, name, _NotPlainError)
        elif value is _Unknown:
            return self._of_any(name)
        elif _is_tensor(value) or _is_constant(value):
            if name in _OF_VALUES:
                return _Unknown
        elif not isinstance(value, type) and not _is_ours(type(value).__module__):
            return self._field(value, name)
        raise _NotPlainError

    def _of(self, part: Any, name: str) -> Any:
        """What a module has under a name."""
        held = vars(part)
        if name in held["_modules"]:
            return held["_modules"][name]
        if name == "training" or name in held["_parameters"] or name in held["_buffers"]:
            return _Unknown
        if name in held:
            return self._read(part, name)
        base = next((base for base in type(part).__mro__ if name in vars(base)), None)
        if base is None:
            raise _NotPlainError
        if not _is_ours(base.__module__):
            return self._taken(part, base, name)
        if name not in _OF_MODULES:
            raise _NotPlainError
        return _Unknown

    def _of_any(self, name: str) -> Any:
        """What is known of an attribute of who knows what."""
        found = name in _OF_VALUES or name in _OF_MODULES
        for part in self._parts.values():
            held = vars(part)
            tables = (held, held["_modules"], held["_parameters"], held["_buffers"], *map(vars, _users(type(part))))
            if any(name in table for table in tables):
                self._settle(self._of(part, name))
                found = True
        if not found:
            raise _NotPlainError
        return _Unknown

    def _taken(self, part: Any, base: type, name: str) -> Any:
        """What a module finds in a class of the user's."""
        value = self._read(base, name)
        if isinstance(value, types.FunctionType):
            self._function(value, part)
        elif isinstance(value, property):
            self._function(value.fget, part)
        elif isinstance(value, staticmethod):
            self._settle(value.__func__)
        elif not _is_constant(value):
            raise _NotPlainError
        else:
            return value
        return _Unknown

    def _field(self, value: Any, name: str) -> Any:
        """A field of an object of the user's that holds settings."""
        classes = type(value).__mro__
        if any(isinstance(vars(base).get("__getattribute__"), types.FunctionType) for base in classes):
            raise _NotPlainError
        if name not in getattr(value, "__dict__", {}) or any(
            hasattr(vars(base).get(name), "__set__") for base in classes
        ):
            raise _NotPlainError
        return self._read(value, name)

    def _read(self, holder: Any, name: str) -> Any:
        """What stands under a name: a fact that the record depends on."""
        table, trace = vars(holder), current()
        value = table[name]
        if trace is not None:
            fact = Same(table, name, value) if isinstance(table, dict) else Equals(table, name, value)
            trace.guard(("plain", id(holder), name), f"what {name} refers to", fact)
        return value

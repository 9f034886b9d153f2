"""What a function reads by name, as guards of its record: rebinding a name, or changing its number, is a change.

While staging, tensors are found and read anew at each call. But *which* tensor a name refers to, and every plain Python
value, becomes part of the record. So this walks along what the function's code mentions (``scale``, ``self.w``,
``config["rate"]``), through closures, globals, the user's objects, containers of tensors, and the user's own functions.

Note: numbers inside lists, and whatever code finds by reflection or gets as an argument, are not followed: they stay
as they were when the function was recorded.
"""

from __future__ import annotations

import dis
import functools
import re
import sys
import types
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from slalom.core.guards import NOTHING, Content, Entry, Refers
from slalom.core.tensor import Tensor
from slalom.core.trace import Trace

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_NO_NAMES: Mapping[str, Any] = types.MappingProxyType({})
_PACKAGE = __name__.partition(".")[0]
Get = Callable[[], Any]


class Step(NamedTuple):
    """One step along a path: a name in some scope, an attribute, or a key."""

    kind: str
    name: str


Path = tuple[Step, ...]


def guard_reads(trace: Trace, function: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] = _NO_NAMES) -> None:
    """Guard what ``function``, called with these arguments, can read by name."""
    if trace.reads is None:
        trace.reads = _Reads(trace)
    trace.reads.callable(function, args, kwargs)


# --- what code mentions -------------------------------------------------------------------------------------------
_IGNORED = {"CACHE", "COPY_FREE_VARS", "EXTENDED_ARG", "NOP", "NOT_TAKEN", "PRECALL", "PUSH_NULL", "RESUME"}


@functools.lru_cache(maxsize=1024)
def _paths(code: types.CodeType) -> tuple[Path, ...]:
    """The names that a function's code reads, each with the attributes and keys that it takes from there at once.

    A local variable that was set to such a path stands for it.
    """
    found: dict[Path, None] = {}
    stands_for: dict[str, set[Path]] = {}
    top: set[Path] = set()  # what the last instruction has put on the stack
    below: set[Path] = set()
    key: Any = None
    for instruction in dis.get_instructions(code):
        name, arg = instruction.opname, instruction.argval
        if name in _IGNORED:
            continue
        if name.startswith(("LOAD_FAST", "STORE_FAST")):  # later Pythons join two of them in one
            names = arg if isinstance(arg, tuple) else (arg,)
            for action, variable in zip(re.findall("LOAD|STORE", name), names, strict=True):
                if action == "STORE":
                    stands_for.setdefault(variable, set()).update(top)
                    top = set()
                else:
                    top = {(Step("local", variable),)} | stands_for.get(variable, set())
        elif name in ("LOAD_DEREF", "LOAD_CLASSDEREF"):
            top = {(Step("local", arg),)}
        elif name in ("LOAD_GLOBAL", "LOAD_NAME"):
            top = {(Step("global", arg),)}
        elif name in ("LOAD_ATTR", "LOAD_METHOD"):
            top = {(*path, Step("attribute", arg)) for path in top}
        elif name == "LOAD_CONST" and isinstance(arg, str):
            top, below, key = set(), top, arg
            continue
        elif key is not None and (name == "BINARY_SUBSCR" or instruction.argrepr == "[]"):
            top = {(*path, Step("key", key)) for path in below}
        else:
            top = set()
        key = None
        found.update(dict.fromkeys(sorted(top)))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found.update(dict.fromkeys(_paths(constant)))
    return tuple(found)


# --- what stands there --------------------------------------------------------------------------------------------
class _Reads:
    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._seen: dict[Any, Any] = {}

    def _first(self, *objects: Any, about: Any = None) -> bool:
        """Whether these very objects, which are kept alive as long, are new in this respect."""
        key = (*map(id, objects), about)
        new = key not in self._seen
        self._seen[key] = objects
        return new

    def callable(self, function: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] = _NO_NAMES) -> None:
        """Follow what may be called: a function, method, partial, or object with ``__call__`` (``forward``)."""
        if isinstance(function, functools.partial):
            self._contents(f"partial of {function.func}", [*function.args, *function.keywords.values()])
            self.callable(function.func, function.args + args, {**function.keywords, **kwargs})
        elif isinstance(function, types.MethodType):
            self.callable(function.__func__, (function.__self__, *args), kwargs)
        elif isinstance(function, types.FunctionType):
            self._function(function, args, kwargs)
        elif hasattr(function, "__wrapped__"):
            self.callable(function.__wrapped__, args, kwargs)
        else:
            for name in ("__call__", "forward"):
                method = _of_class(type(function), name)
                if isinstance(method, types.FunctionType) and not _is_library(method.__module__):
                    self._function(method, (function, *args), kwargs)

    def _function(self, function: types.FunctionType, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        code, defaults = function.__code__, function.__defaults__ or ()
        names = code.co_varnames[: code.co_argcount]
        known = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
        known |= {**(function.__kwdefaults__ or {}), **dict(zip(names, args, strict=False)), **kwargs}
        if not self._first(function, *known.values()):
            return
        cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
        if _is_library(function.__module__):  # a decorator: only what it decorates is the user's
            for name, cell in cells.items():
                if isinstance(Content(cell)(), (Tensor, types.FunctionType, types.MethodType)):
                    self._place(name, Content(cell), cell)
            return
        for root, *steps in _paths(code):
            if root.kind == "global":
                get = Entry(function.__globals__, root.name)
                self._walk(root.name, get, function.__globals__, root, steps)
            elif root.name in known:
                self.callable(known[root.name])
                self._follow(root.name, known[root.name], steps)
            elif root.name in cells:
                cell = cells[root.name]
                self._walk(root.name, Content(cell), cell, root, steps)

    def _walk(self, where: str, get: Get, holder: Any, step: Step, steps: list[Step]) -> None:
        value = self._place(where, get, holder, step)
        if value is not NOTHING:
            self._follow(where, value, steps)

    def _follow(self, where: str, value: Any, steps: list[Step]) -> None:
        """Take the next step from a value."""
        if not steps or isinstance(value, (Tensor, *_PLAIN)) or _is_library_object(value):
            return
        step, *rest = steps
        if step.kind == "key" and isinstance(value, Mapping):
            get: Get = Entry(value, step.name)
            self._walk(f"{where}[{step.name!r}]", get, value, step, rest)
        elif step.kind == "attribute":
            where = f"{where}.{step.name}"
            found = self._place(where, functools.partial(_member, _reference(value), step.name), value, step)
            method = found.fget if isinstance(found, property) else found
            if isinstance(method, types.FunctionType) and step.name not in getattr(value, "__dict__", {}):
                self._function(method, (value,), _NO_NAMES)
            elif found is not NOTHING:
                self._follow(where, found, rest)

    def _place(self, where: str, get: Get, holder: Any, step: Step | None = None) -> Any:
        """Guard what stands at a place, once; returns it, or NOTHING where there is nothing to guard."""
        value = get()
        if value is NOTHING or isinstance(value, (type, types.BuiltinFunctionType)):
            return NOTHING
        if isinstance(value, types.ModuleType):
            return NOTHING if _is_library(value.__name__) else value
        if not self._first(holder, about=step):
            return value
        if isinstance(value, _PLAIN):
            self._guard(where, functools.partial(_is_plain, get, value))
        elif isinstance(value, types.FunctionType) and _is_library(value.__module__):
            self.callable(value)
        else:
            self._guard(where, Refers(get, _reference(value)))
            if isinstance(value, (list, tuple, dict)):
                self._contents(where, value)
            elif not isinstance(value, Tensor):
                self.callable(value)
        return value

    def _contents(self, where: str, held: Any) -> None:
        """Guard which tensors and other objects a container holds."""
        if not self._first(held, about="contents"):
            return

        def objects() -> list[Any]:
            return [item for item in (held.values() if isinstance(held, dict) else held) if type(item) not in _PLAIN]

        now = objects()
        same = [_reference(item) for item in now]
        if now:
            self._guard(
                f"{where}[…]",
                lambda: len(then := objects()) == len(same) and all(a is b() for a, b in zip(then, same, strict=True)),
            )
        for item in now:
            if isinstance(item, (list, tuple, dict)):
                self._contents(where, item)
            elif not isinstance(item, Tensor):
                self.callable(item)

    def _guard(self, where: str, holds: Callable[[], bool]) -> None:
        self._trace.guard(("read", len(self._trace.guards)), f"what {where} refers to", holds)


def _reference(value: Any) -> Get:
    """How to find a value again, without keeping it alive where that is possible."""
    try:
        return weakref.ref(value)
    except TypeError:
        return lambda: value


def _is_plain(get: Get, value: Any) -> bool:
    now = get()
    if now is value or type(now) is not type(value):
        return now is value
    # repr tells 0.0 from −0.0, and NaN is itself.
    return repr(now) == repr(value) if isinstance(value, (float, complex)) else bool(now == value)


def _member(reference: Get, name: str) -> Any:
    """What an object or its class holds under a name, without running descriptors."""
    value = reference()
    held = getattr(value, "__dict__", {})
    if name in held:
        return held[name]
    found = _of_class(type(value), name)
    return getattr(value, name, NOTHING) if isinstance(found, types.MemberDescriptorType) else found


def _of_class(kind: type, name: str) -> Any:
    return next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), NOTHING)


def _is_library(module: str | None) -> bool:
    """Whether code is Slalom's, NumPy's or Python's own, which is not followed."""
    top = (module or "").partition(".")[0]
    return top in (_PACKAGE, "numpy") or top in sys.stdlib_module_names


def _is_library_object(value: Any) -> bool:
    """Whether an object's attributes are Slalom's or NumPy's business (Python's own namespaces hold users' values)."""
    return (type(value).__module__ or "").partition(".")[0] in (_PACKAGE, "numpy")

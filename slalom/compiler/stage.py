"""``slalom.compile``: trace a function once for each signature, then run its graph.

The signature is the shapes, dtypes, tree and Python values of the arguments; guards add what was met while tracing
(each Module's ``training``, each ``requires_grad``, whether each ``.grad`` is None, the identity of each state, …).
"""

from __future__ import annotations

import functools
import threading
import types
import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np

from slalom.compiler.executor import NumpyExecutor
from slalom.compiler.native import NativeExecutor, native
from slalom.compiler.profile import Profile, Timing, fma_peak
from slalom.compiler.program import Program
from slalom.compiler.replay import Replay, held, stored, whose
from slalom.compiler.runtime import uncollected
from slalom.compiler.times import Times, spent, timed
from slalom.core.dtype import DType, get_default_dtype
from slalom.core.graph import Graph, Type
from slalom.core.guards import Facts, Guard
from slalom.core.node import MODE, Abstract, Mode, Storage, _user_frame
from slalom.core.reads import guard_reads
from slalom.core.tensor import Tensor, to_array
from slalom.core.trace import Binding, Trace
from slalom.errors import StagingError

RETRACES_BEFORE_WARNING = 8


class _Signature(NamedTuple):
    """What a call must share with a recorded one."""

    tree: Any
    tensors: tuple[_Given, ...]
    grad_mode: bool
    default_dtype: DType


class _Given(NamedTuple):
    """What a record depends on in a tensor among the arguments."""

    shape: tuple[int, ...]
    dtype: DType
    requires_grad: bool
    has_grad: bool
    first_on_buffer: int
    """The first argument with the same buffer: a write to one must be seen in the other."""
    first: int
    """The first argument that is this very tensor."""


@dataclass(frozen=True)
class _Leaf:
    """The place of a tensor in the tree of arguments or results."""

    position: int


@dataclass(frozen=True)
class _Fixed:
    """A Python value in such a tree."""

    value: Any


@dataclass
class _Record:
    """One recorded graph and all that is needed to run it again."""

    graph: Graph
    binding: Binding
    guards: tuple[Guard, ...]
    result: Any
    identities: list[_Identity]
    """Of the objects among the arguments."""
    simple: _Signature | None = None
    """What it is recorded under, if its arguments are tensors alone, none of them on another's buffer or state."""
    recording: Times = field(default_factory=Times)
    """How long the recording took."""

    @cached_property
    def targets(self) -> dict[int, int]:
        """By output that becomes the content of an input (a state, an argument), the number of that input."""
        graph, binding = self.graph, self.binding
        places = {
            (place.kind, source if place.kind == "argument" else id(source)): i
            for i, (place, source) in enumerate(zip(graph.inputs, binding.inputs, strict=True))
        }
        found = {}
        for i, (place, target) in enumerate(zip(graph.outputs, binding.outputs, strict=True)):
            key = ("argument", target) if isinstance(target, int) else ("state", id(target))
            if place.kind == "write" and key in places:
                found[i] = places[key]
        return found

    @cached_property
    def run(self) -> NumpyExecutor | NativeExecutor:
        """What runs it: native code where that can be made."""
        return NativeExecutor(self.graph, self.targets) if native() else NumpyExecutor(self.graph)

    @cached_property
    def replay(self) -> Replay | None:
        """Runs it natively; None where NumPy does."""
        run = self.run
        return Replay(self.graph, self.binding, run) if isinstance(run, NativeExecutor) else None

    @cached_property
    def facts(self) -> Facts:
        """What it depends on, to be looked at in one go."""
        return Facts(guard.holds for guard in self.guards)

    @property
    def times(self) -> Times:
        """The seconds by stage from the function to what runs it."""
        run = self.run
        return self.recording.plus(run.program.times) if isinstance(run, NativeExecutor) else self.recording

    def changed(self, leaves: list[Tensor]) -> str | None:
        """The fact that no longer holds, if there is one."""
        if not self.facts.hold():
            for guard in self.guards:
                if not guard.holds():
                    return guard.text
        aliases, states = self.binding.aliases, self.binding.states
        for i, t in enumerate(leaves):
            if not aliases[i](t) if i in aliases else id(t._storage) in states:
                return f"whether argument {i} is also state"
        return None

    def takes(self, mode: Mode, args: tuple[Any, ...]) -> bool:
        """Whether these arguments are seen at once to be like those that were recorded: tensors, each given once."""
        simple = self.simple
        if simple is None or len(args) != len(simple.tensors) or mode.grad is not simple.grad_mode:
            return False
        states = self.binding.states
        for t, (shape, dtype, live, has_grad, _, _) in zip(args, simple.tensors, strict=True):
            if t.__class__ is not Tensor:
                return False
            array = t._storage.array
            if (
                array.__class__ is not np.ndarray
                or array.dtype is not dtype
                or array.shape != shape
                or t._live is not live
                or (t._grad is not None) is not has_grad
                or id(t._storage) in states
            ):
                return False
        buffers = len(args) if len(args) < 2 else len({id(t._storage) for t in args})
        return buffers == len(args) and get_default_dtype() is simple.default_dtype

    def dead(self) -> bool:
        """Whether it can never be used again: a tensor or an object that it belongs to is gone."""
        return any(ref() is None for ref in self.binding.watched) or any(i.gone() for i in self.identities)


class Compiled:
    """A function that is recorded once for each signature and then runs as one graph.

    ``graph``: that of the latest call. ``traces``: how often the function was recorded.
    """

    _record_type: ClassVar[type[_Record]] = _Record

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function, updated=())
        self._function = function
        self._entries: dict[_Signature, list[_Record]] = {}
        self._latest: _Record | None = None
        self._traced: _Signature | None = None
        self._lock = threading.RLock()
        self.traces = 0

    @property
    def graph(self) -> Graph:
        """The graph that ran last. Raises: StagingError before the first call."""
        return self._last("graph").graph

    @property
    def program(self) -> Program:
        """Its native form, every stage of which can be printed: ``program.graph`` (simplified), ``.kernels``,
        ``.loops``, ``.llvm``, ``.asm``, ``.memory``, ``.cost``.

        Raises: StagingError before the first call, and where the NumPy executor runs.
        """
        run = self._last("program").run
        if not isinstance(run, NativeExecutor):
            raise StagingError("program of a compiled function", got="the NumPy executor", needed="llvmlite")
        return run.program

    def _last(self, what: str) -> _Record:
        if self._latest is None:
            raise StagingError(f"{what} of a compiled function", got="no call yet", needed="a call, which records it")
        return self._latest

    def profile(self, *args: Any, **kwargs: Any) -> Profile:
        """How long each kernel takes, at best of 20 calls with these arguments, beside the peak of a core; it prints.

        The calls are real: what the function changes is changed 20 times. They run on one thread, kernel by kernel.

        Raises: StagingError where the NumPy executor runs.
        """
        self(*args, **kwargs)
        run, program = self._last("profile").run, self.program
        assert isinstance(run, NativeExecutor), "a program is one of these"
        run.clock = []
        try:
            for _ in range(20):
                self(*args, **kwargs)
            times = [min(of_call) for of_call in zip(*run.clock, strict=True)]
        finally:
            run.clock = None
        timings = [Timing(*cost, seconds) for cost, seconds in zip(program.cost, program.totals(times), strict=True)]
        return Profile(timings, fma_peak())

    kernels = property(lambda self: self.program.kernels, doc="The kernels that its graph is cut into.")
    loops = property(lambda self: self.program.loops, doc="Their loops.")
    llvm = property(lambda self: self.program.llvm, doc="Their LLVM IR, as code generation meets it.")
    asm = property(lambda self: self.program.asm, doc="Their machine code.")
    memory = property(lambda self: self.program.memory, doc="Where each value is kept.")
    times = property(
        lambda self: self._last("times").times, doc="Seconds by stage, from the function to what ran last."
    )
    cost = property(lambda self: self.program.cost, doc="Operations and bytes of each kernel.")

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        mode = MODE.get()
        if mode.trace is not None:
            return self._function(*args, **kwargs)  # part of the outer graph
        latest = self._latest
        if latest is not None and not kwargs and latest.takes(mode, args) and latest.facts.hold():
            return _execute(latest, args)
        leaves: list[Tensor] = []
        return _execute(self._recorded(mode, args, kwargs, leaves), leaves)

    def record(self, *args: Any, **kwargs: Any) -> tuple[_Record, list[Tensor]]:
        """The record for such arguments, made if there is none that holds, and the tensors among them. Nothing runs."""
        leaves: list[Tensor] = []
        return self._recorded(MODE.get(), args, kwargs, leaves), leaves

    def _check(self, t: Tensor) -> None:
        """Refuse a tensor that cannot be an argument."""
        array = t._storage.array
        if isinstance(array, Abstract):
            array.refuse("calling a compiled function")
        if t._live and not t.is_leaf and MODE.get().grad:
            raise StagingError(
                f"compile: an argument of shape {t.shape} that was computed from tensors requiring gradients",
                hint="detach() it, or compute it inside the compiled function",
            )

    def _outcome(self, trace: Trace, args: Any, kwargs: Any) -> Any:
        """What is recorded."""
        return self._function(*args, **kwargs)

    def _recorded(self, mode: Mode, args: Any, kwargs: Any, leaves: list[Tensor]) -> _Record:
        latest = self._latest
        if latest is not None and not kwargs and latest.takes(mode, args) and latest.facts.hold():
            leaves += args
            return latest
        tree = _flatten((args, kwargs), leaves, _key)
        signature = _Signature(tree, _given(leaves), mode.grad, get_default_dtype())
        entry, _ = self._find(signature, leaves)
        if entry is None:
            with self._lock:
                entry, changed = self._find(signature, leaves)
                if entry is None:
                    before = spent()
                    with timed("trace"), uncollected():
                        entry = self._trace(signature, args, kwargs, leaves, changed)
                    entry.recording = spent().since(before)
        self._latest = entry
        return entry

    def _find(self, signature: _Signature, leaves: list[Tensor]) -> tuple[_Record | None, str]:
        """The recorded graph that still holds, or what changed since the last one under this signature."""
        changed = ""
        for entry in self._entries.get(signature, ()):
            failed = entry.changed(leaves)
            if failed is None:
                return entry, ""
            changed = failed
        return None, changed

    def _trace(self, signature: _Signature, args: Any, kwargs: Any, leaves: list[Tensor], changed: str) -> _Record:
        identities: list[_Identity] = []
        template = _flatten((args, kwargs), [], lambda value: _noted(value, identities))
        for t in leaves:
            self._check(t)
        trace = Trace()
        token = MODE.set(Mode(signature.grad_mode, trace))
        try:
            stand_ins = [trace.argument(i, t) for i, t in enumerate(leaves)]
            objects = {name: value for name, value in kwargs.items() if _has_identity(value)}
            guard_reads(trace, self._function, tuple(v if _has_identity(v) else None for v in args), objects)
            given_args, given_kwargs = _rebuild(template, stand_ins)
            outs: list[Tensor] = []
            result = _flatten(self._outcome(trace, given_args, given_kwargs), outs, _Fixed)
            graph, binding = trace.finish(outs)
            guards = tuple(trace.guards.values())
        finally:
            MODE.reset(token)
            trace.close()
        with timed("check"):
            graph.check()
        entry = self._record_type(graph, binding, guards, result, identities)
        if _is_simple(signature) and not binding.aliases:
            entry.simple = signature
        for known, entries in list(self._entries.items()):
            entries[:] = [e for e in entries if not e.dead()]
            if not entries:
                del self._entries[known]
        self._entries.setdefault(signature, []).append(entry)
        self.traces += 1
        if self.traces == RETRACES_BEFORE_WARNING + 1:
            name, what = getattr(self, "__name__", "a function"), changed or _difference(self._traced, signature)
            text = f"{name} was recorded {self.traces} times; the last time because this changed: {what}. "
            frame = _user_frame()
            at = frame.f_code.co_filename, frame.f_lineno
            warnings.warn_explicit(f"{text}Pass numbers that change as tensors.", RuntimeWarning, *at)
        self._traced = signature
        return entry


# --- the signature ------------------------------------------------------------------------------------------------
def _given(leaves: list[Tensor]) -> tuple[_Given, ...]:
    buffers: dict[int, int] = {}
    handles: dict[int, int] = {}
    return tuple(
        [
            _Given(
                t.shape,
                t.dtype,
                t._live,
                t._grad is not None,
                buffers.setdefault(id(t._storage), i),
                handles.setdefault(id(t), i),
            )
            for i, t in enumerate(leaves)
        ]
    )


def _is_simple(signature: _Signature) -> bool:
    """Whether the arguments are tensors alone, by position, and no two share a buffer."""
    given = signature.tensors
    positions = tuple(map(_Leaf, range(len(given))))
    apart = all(t.first_on_buffer == i for i, t in enumerate(given))
    return apart and bool(signature.tree == (tuple, ((tuple, positions), (dict, ()))))


class _Identity:
    """Stands for an object in a signature that is equal to itself only; does not keep it alive."""

    __slots__ = ("_id", "_ref")

    def __init__(self, value: Any) -> None:
        self._id = id(value)
        try:
            self._ref: Callable[[], Any] = weakref.ref(value)
        except TypeError:
            self._ref = lambda: value

    def gone(self) -> bool:
        return self._ref() is None

    def __hash__(self) -> int:
        return self._id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and not self.gone() and self._ref() is other._ref()


def _key(value: Any) -> Any:
    """What of a Python value a record depends on, hashable."""
    if isinstance(value, float):
        return type(value), value.hex()  # tells 0.0 from −0.0, and NaN is itself
    if isinstance(value, (slice, set, frozenset)):
        parts = [value.start, value.stop, value.step] if isinstance(value, slice) else value
        return type(value), (tuple if isinstance(value, slice) else frozenset)(_key(part) for part in parts)
    return _Identity(value) if _has_identity(value) else (type(value), value)  # 1, 1.0 and True are equal


def _has_identity(value: Any) -> bool:
    """Whether a value is not one of those that are told apart by what they hold."""
    if isinstance(value, (Tensor, np.ndarray, np.generic, list, tuple, dict, set, slice)):
        return False
    rule: Any = type(value).__hash__
    return rule is None or (rule is object.__hash__ and value is not None)


def _noted(value: Any, identities: list[_Identity]) -> _Fixed:
    key = _key(value)
    if isinstance(key, _Identity):
        identities.append(key)
    return _Fixed(value)


def _difference(before: _Signature | None, now: _Signature) -> str:
    """In what two signatures differ, in words."""
    if before is None or before.tree != now.tree:
        return "the Python values or the structure of the arguments"
    for i, (a, b) in enumerate(zip(before.tensors, now.tensors, strict=True)):
        if a != b:
            types_ = f" ({Type(a.shape, a.dtype)}, then {Type(b.shape, b.dtype)})" if a[:2] != b[:2] else ""
            return f"argument {i}{types_ or ': its requires_grad, .grad or buffer'}"
    return "grad mode or the default dtype"


# --- trees of arguments and results -------------------------------------------------------------------------------
def _flatten(value: Any, leaves: list[Tensor], fixed: Callable[[Any], Any]) -> Any:
    """The structure of a tree, with ``fixed(value)`` for Python values; its tensors are appended to ``leaves``."""
    if isinstance(value, np.ndarray):
        value = Tensor._of(to_array(value, copy=False))  # while staging, an error for an array that may change
    if isinstance(value, Tensor):
        leaves.append(value)
        return _Leaf(len(leaves) - 1)
    if isinstance(value, dict):
        return (dict, tuple([(key, _flatten(item, leaves, fixed)) for key, item in value.items()]))
    if isinstance(value, (list, tuple)):
        return (type(value), tuple([_flatten(item, leaves, fixed) for item in value]))
    return fixed(value)


def _rebuild(tree: Any, leaves: list[Tensor]) -> Any:
    if isinstance(tree, _Leaf):
        return leaves[tree.position]
    if isinstance(tree, _Fixed):
        return tree.value
    kind, items = tree
    if kind is dict:
        return {key: _rebuild(item, leaves) for key, item in items}
    rebuilt = [_rebuild(item, leaves) for item in items]
    return kind(*rebuilt) if hasattr(kind, "_fields") else kind(rebuilt)


# --- running ------------------------------------------------------------------------------------------------------
def _execute(record: _Record, leaves: Sequence[Tensor]) -> Any:
    replay = record.replay
    return _rebuild(record.result, _interpreted(record, leaves) if replay is None else replay(leaves))


def _interpreted(record: _Record, leaves: Sequence[Tensor]) -> list[Tensor]:
    """Run a record by NumPy; the tensors of its results."""
    inputs = []
    for place, source in zip(record.graph.inputs, record.binding.inputs, strict=True):
        if place.kind == "state":
            inputs.append(source.array)
        else:
            inputs.append(np.array(source()) if place.kind == "number" else held(place.kind, source, leaves))
    results: list[Tensor] = []
    for output, target, array in zip(record.graph.outputs, record.binding.outputs, record.run(inputs), strict=True):
        if output.kind == "write":
            stored(target, leaves).write(array)
        elif output.kind == "result":
            results.append(Tensor._handle(Storage(array), None, False))
        else:
            whose(target, leaves)._grad = Tensor._handle(Storage(array), None, False)
    for source in record.binding.cleared:
        whose(source, leaves)._grad = None
    return results

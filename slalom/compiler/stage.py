"""``slalom.compile``: trace a function once for each signature, then run its graph.

The signature is the shapes, dtypes, tree and Python values of the arguments; guards add what was met while tracing
(each Module's ``training``, each ``requires_grad``, whether each ``.grad`` is None, the identity of each state, …).
"""

from __future__ import annotations

import functools
import threading
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from slalom.compiler.executor import NumpyExecutor
from slalom.core.dtype import get_default_dtype
from slalom.core.node import MODE, Abstract, Mode, Storage
from slalom.core.primitive import Array
from slalom.core.tensor import Tensor, to_array
from slalom.core.trace import Binding, Graph, Guard, Trace, Type
from slalom.core.tree import is_named_tuple
from slalom.errors import StagingError

RETRACES_BEFORE_WARNING = 8


@dataclass(frozen=True)
class _Leaf:
    """The place of a tensor in the tree of arguments or results."""

    position: int


@dataclass
class _Entry:
    """One recorded graph and all that is needed to run it again."""

    graph: Graph
    binding: Binding
    guards: list[Guard]
    run: NumpyExecutor
    result: Any
    states: frozenset[int]
    """Ids of the storages that are state (the binding keeps them alive)."""


class Compiled:
    """A function that is recorded once for each signature and then runs as one graph.

    ``graph``: that of the latest call. ``traces``: how often the function was recorded.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._entries: dict[Any, list[_Entry]] = {}
        self._latest: _Entry | None = None
        self._lock = threading.RLock()
        self.traces = 0

    @property
    def graph(self) -> Graph:
        """The graph that ran last. Raises: StagingError before the first call."""
        if self._latest is None:
            raise StagingError("graph of a compiled function", got="no call yet", needed="a call, which records it")
        return self._latest.graph

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if MODE.get().trace is not None:
            return self._function(*args, **kwargs)  # part of the outer graph
        leaves: list[Tensor] = []
        tree = _flatten((args, kwargs), leaves)
        mode = MODE.get()
        signature = (
            tree,
            tuple((t.shape, t.dtype, t.requires_grad) for t in leaves),
            _shared(leaves),
            mode.grad,
            get_default_dtype(),
        )
        entry, changed = self._find(signature, leaves)
        if entry is None:
            with self._lock:
                entry, changed = self._find(signature, leaves)
                if entry is None:
                    entry = self._trace(signature, args, kwargs, leaves, changed)
        self._latest = entry
        return _execute(entry, leaves)

    def _find(self, signature: Any, leaves: list[Tensor]) -> tuple[_Entry | None, str]:
        """The recorded graph that still holds, or what changed since the last one under this signature."""
        try:
            entries = self._entries.get(signature, ())
        except TypeError as error:
            raise StagingError(
                f"compile: an argument that is not hashable ({error})",
                needed="tensors, arrays, numbers, strings, None, or lists, tuples and dicts of them",
            ) from error
        changed = "the shapes, dtypes or Python values of the arguments"
        for entry in entries:
            failed = next((g.text for g in entry.guards if not g.holds()), None)
            if failed is None and any(id(t._storage) in entry.states for t in leaves):
                failed = "an argument that is also state"
            if failed is None:
                return entry, ""
            changed = failed
        return None, changed

    def _trace(self, signature: Any, args: Any, kwargs: Any, leaves: list[Tensor], changed: str) -> _Entry:
        self.traces += 1
        if self.traces == RETRACES_BEFORE_WARNING + 1:
            warnings.warn(
                f"{getattr(self, '__name__', 'function')} was recorded {self.traces} times; the last time because this "
                f"changed: {changed}. Pass numbers that change as tensors.",
                RuntimeWarning,
                stacklevel=4,
            )
        trace = Trace()
        token = MODE.set(Mode(MODE.get().grad, trace))
        try:
            stand_ins = [
                trace.argument(i, Type(t.shape, t.dtype), _differentiable(t), t._storage)  # type: ignore[arg-type]
                for i, t in enumerate(leaves)
            ]
            _guard_names(trace, self._function)
            given_args, given_kwargs = _rebuild(_flatten((args, kwargs), []), stand_ins)
            outs: list[Tensor] = []
            result = _flatten(self._function(*given_args, **given_kwargs), outs)
            graph, binding = trace.finish(outs)
        finally:
            trace.open = False
            MODE.reset(token)
        graph.check()
        states = frozenset(id(s) for s in binding.inputs if isinstance(s, Storage))
        arguments = {id(t._storage) for t in leaves}
        entry = _Entry(
            graph, binding, list(trace.guards.values()), NumpyExecutor(graph), result, states - arguments
        )
        self._entries.setdefault(signature, []).append(entry)
        return entry


def compile(function: Callable[..., Any]) -> Compiled:  # noqa: A001 (PyTorch's name)
    """Record ``function`` at its first call and run the record from then on; usable as a decorator.

    Everything that Tensor operations do inside is recorded: forward, ``backward()``, ``optimizer.step()``. Tensors
    from outside (parameters, buffers, optimizer slots, random counters) are found, read anew at each call and
    written back; nothing has to be declared. Python code runs only while recording, so a branch on a tensor's
    value is an error there that names the line.

    Raises: StagingError for what cannot be recorded.

    >>> step = compile(lambda x: x * 2 + 1)
    >>> step(Tensor([1.0, 2.0]))
    tensor([3., 5.])
    """
    if not callable(function):
        raise StagingError("compile", got=type(function).__name__, needed="a function")
    return function if isinstance(function, Compiled) else Compiled(function)


def _differentiable(t: Tensor) -> bool:
    if t.requires_grad and not t.is_leaf and MODE.get().grad:
        raise StagingError(
            f"compile: an argument of shape {t.shape} that was computed from tensors requiring gradients",
            hint="detach() it, or compute it inside the compiled function",
        )
    return t.requires_grad


# --- trees of arguments and results -------------------------------------------------------------------------------
def _flatten(value: Any, leaves: list[Tensor]) -> Any:
    """A hashable picture of a tree, its tensors (and arrays, as tensors) appended to ``leaves``."""
    if isinstance(value, Tensor):
        leaves.append(value)
        return _Leaf(len(leaves) - 1)
    if isinstance(value, (np.ndarray, np.generic)):
        if isinstance(value, np.ndarray) and MODE.get().trace is None:
            leaves.append(Tensor._of(to_array(value, copy=False)))
            return _Leaf(len(leaves) - 1)
        return value.item() if isinstance(value, np.generic) else value
    if is_named_tuple(value):
        return ("namedtuple", type(value), tuple(_flatten(item, leaves) for item in value))
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, type(value), tuple(_flatten(item, leaves) for item in value))
    if isinstance(value, dict):
        return ("dict", dict, tuple((key, _flatten(item, leaves)) for key, item in value.items()))
    return ("value", type(value), value)  # the type too: 1, 1.0 and True are equal but not the same


def _rebuild(tree: Any, leaves: list[Tensor]) -> Any:
    if isinstance(tree, _Leaf):
        return leaves[tree.position]
    if not isinstance(tree, tuple):
        return tree
    kind, of, items = tree
    if kind == "value":
        return items
    if kind == "dict":
        return {key: _rebuild(item, leaves) for key, item in items}
    rebuilt = [_rebuild(item, leaves) for item in items]
    return of(*rebuilt) if kind == "namedtuple" else of(rebuilt)


def _shared(leaves: list[Tensor]) -> tuple[int, ...]:
    """For each argument, the first one with the same buffer: a write to one must be seen in the other."""
    ids = [id(t._storage) for t in leaves]
    return tuple(ids.index(i) for i in ids)


def _guard_names(trace: Trace, function: Callable[..., Any]) -> None:
    """Guard the identity of what the function's free names refer to: rebinding one is a change."""
    inner: Any = getattr(function, "__func__", function)
    for name, cell in zip(
        getattr(getattr(inner, "__code__", None), "co_freevars", ()), getattr(inner, "__closure__", None) or (), strict=True
    ):
        try:
            held = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
        if isinstance(held, Tensor):
            trace.guard(("cell", name), f"what the name {name!r} refers to", _cell_is(cell, held))
    space = getattr(inner, "__globals__", {})
    for name in getattr(getattr(inner, "__code__", None), "co_names", ()):
        if isinstance(space.get(name), Tensor):
            trace.guard(("global", name), f"what the name {name!r} refers to", _global_is(space, name, space[name]))


def _cell_is(cell: Any, held: Any) -> Callable[[], bool]:
    return lambda: cell.cell_contents is held


def _global_is(space: dict[str, Any], name: str, held: Any) -> Callable[[], bool]:
    return lambda: space.get(name) is held


# --- running ------------------------------------------------------------------------------------------------------
def _input(kind: str, source: Any, leaves: list[Tensor]) -> Array:
    if kind == "argument":
        array = leaves[source]._storage.array
        if isinstance(array, Abstract):
            array.refuse("calling a compiled function")
        return array  # type: ignore[no-any-return]
    if kind == "state":
        return source.array  # type: ignore[no-any-return]
    if kind == "grad":
        return source._grad._storage.array  # type: ignore[no-any-return]
    return np.array(source(), np.float64)


def _execute(entry: _Entry, leaves: list[Tensor]) -> Any:
    inputs = [
        _input(place.kind, source, leaves)
        for place, source in zip(entry.graph.inputs, entry.binding.inputs, strict=True)
    ]
    outputs = entry.run(inputs)
    results: list[Tensor] = []
    for place, target, array in zip(entry.graph.outputs, entry.binding.outputs, outputs, strict=True):
        if place.kind == "result":
            results.append(Tensor._handle(Storage(array), None, False))
        elif place.kind == "write":
            storage = leaves[target]._storage if isinstance(target, int) else target
            storage.write(array)
        elif isinstance(target, int):
            held, made = leaves[target]._grad, Tensor._handle(Storage(array), None, False)
            leaves[target]._grad = made if held is None else held + made
        else:
            target._grad = Tensor._handle(Storage(array), None, False)
    for t in entry.binding.cleared:
        t._grad = None
    return _rebuild(entry.result, results)

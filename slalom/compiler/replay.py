"""Replay: a record is run natively again and again; what does not change from call to call is looked up once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy import ndarray

from slalom.compiler.native import NativeExecutor
from slalom.core.graph import Graph
from slalom.core.node import Abstract, Storage, note_writes
from slalom.core.primitive import Array
from slalom.core.tensor import Tensor
from slalom.core.trace import Binding

__all__ = ["Replay", "held", "stored", "whose"]


def whose(source: Any, leaves: Sequence[Tensor]) -> Tensor:
    """The tensor that a binding means: an argument, or one from outside."""
    owner: Tensor = leaves[source] if isinstance(source, int) else source()
    return owner


def stored(target: Any, leaves: Sequence[Tensor]) -> Storage:
    """The buffer that a binding means: that of an argument, or a state."""
    return leaves[target]._storage if isinstance(target, int) else target


def held(kind: str, source: Any, leaves: Sequence[Tensor]) -> Array:
    """The array of an argument, or of a gradient."""
    if kind == "argument":
        array = leaves[source]._storage.array
        if isinstance(array, Abstract):
            array.refuse("calling a compiled function")
        return array  # type: ignore[no-any-return]
    grad = whose(source, leaves)._grad
    assert grad is not None, "a guard or the signature says so"
    return grad._storage.array  # type: ignore[no-any-return]


class Replay:
    """Runs a graph as its binding says. A call takes the tensors among the arguments, and gives those of the results.

    States are found where they were at the call before, unless they have moved.
    """

    def __init__(self, graph: Graph, binding: Binding, run: NativeExecutor) -> None:
        self._run = run
        self._states: list[tuple[int, Storage]] = []
        self._moving: list[tuple[int, str, Any]] = []
        self._numbers: list[tuple[int, Any]] = []
        for i, (place, source) in enumerate(zip(graph.inputs, binding.inputs, strict=True)):
            if place.kind == "state":
                self._states.append((i, source))
            elif place.kind == "number":
                self._numbers.append((i, source))
            else:
                self._moving.append((i, place.kind, source))
        self._sources = list(run.targets.values())
        targets = [binding.outputs[i] for i in run.targets]
        self._lent = targets if any(isinstance(target, int) for target in targets) else None
        """What is written, where arguments are; else ``_written`` is all of it."""
        self._written: list[Storage] = [] if self._lent else targets
        places = [(i, o.kind, binding.outputs[i]) for i, o in enumerate(graph.outputs) if i not in run.targets]
        self._results = [i for i, kind, _ in places if kind == "result"]
        self._stores = [(i, target) for i, kind, target in places if kind == "write"]
        self._grads = [(i, target) for i, kind, target in places if kind == "grad"]
        self._cleared = binding.cleared

    def __call__(self, leaves: Sequence[Tensor]) -> list[Tensor]:
        run = self._run
        given, cells = run.given, run.numbers
        written = self._written if self._lent is None else [stored(target, leaves) for target in self._lent]
        with run.lock:
            for storage in written:
                if storage.root is not None or storage._views is not None:
                    storage.writable()
            changed = {i: storage.array for i, storage in self._states if storage.array is not given[i]}
            for i, read in self._numbers:
                cells[i] = read()
            for i, kind, source in self._moving:
                array = leaves[source]._storage.array if kind == "argument" else None
                if array.__class__ is not ndarray:
                    array = held(kind, source, leaves)
                if array is not given[i]:
                    changed[i] = array
            if changed:
                for storage, i in zip(written, self._sources, strict=True):
                    if i in changed:
                        changed[i] = storage.writable()
                run.give(changed)
            outputs = run.run()
            note_writes(written)
        for i, target in self._stores:
            stored(target, leaves).write(outputs[i].array)
        for i, source in self._grads:
            owner = leaves[source] if source.__class__ is int else source()
            owner._grad = outputs[i].tensor
        for source in self._cleared:
            whose(source, leaves)._grad = None
        return [outputs[i].tensor for i in self._results]

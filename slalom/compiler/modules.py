"""The call of a compiled module: forward and backward as two graphs, and a node on the tape for each output."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, NamedTuple, NoReturn

import numpy as np

from slalom.compiler.halves import Halves, cut
from slalom.compiler.stage import Compiled, _execute, _Fixed, _flatten, _Leaf, _rebuild, _Record
from slalom.core.autodiff import _forward as _forward_mode
from slalom.core.autodiff import _reverse, _seeds
from slalom.core.graph import Type
from slalom.core.node import MODE, Abstract, Leaf, Node, Storage, clock, enable_grad
from slalom.core.primitive import Array, Kind, Params, Primitive
from slalom.core.tensor import Tensor
from slalom.core.trace import MODULE_CALL, Binding, Trace, no_compile
from slalom.errors import GradError, SlalomError, StagingError

__all__ = ["ModuleCall"]


_RECORDS: Final = 8
"""After so many records of a pure module, whatever changes all the time is not worth another."""
_RESULTS: Final = (Tensor, bool, int, float, str, type(None))
"""What a pure call may return, in lists, tuples and dicts."""


@dataclass(frozen=True)
class _Plan:
    """What a recorded call of a module gives, besides tensors: first those in ``tree``, then the gradients."""

    tree: Any
    outputs: int
    live: tuple[int, ...]
    """The outputs that require gradients."""
    owners: tuple[Any, ...]
    """Whose gradients: an argument's position, or a weak reference to a tensor from outside."""


class _Joint(_Record):
    """A record of forward and backward."""

    @cached_property
    def call(self) -> _Call:
        return _Call(self)


class ModuleCall(Compiled):
    """Calls a module outside of staging. A copy of the module has none.

    ``pure``: it does nothing but compute outputs from inputs and perhaps write states, so that it may be called once
    more, operation by operation, for forward-mode derivatives and those of gradients.
    """

    _record_type = _Joint

    def __init__(self, module: Any, *, pure: bool = False) -> None:
        super().__init__(module)
        self.__name__, self._module, self._pure = type(module).__name__, module, pure

    def __deepcopy__(self, memo: Any) -> None:
        return None

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return type(None), ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves: list[Tensor] = []
        record: Any = self._recorded(MODE.get(), args, kwargs, leaves)
        call = vars(record).get("call")
        if call is None:
            with self._lock:
                call = record.call
        if self._pure and call.divided:
            self._keep_eager("one of which backward wants several outputs")
        return call(leaves, _Again(self._function, args, kwargs, leaves, record) if self._pure else None)

    def _check(self, t: Tensor) -> None:
        array = t._storage.array
        if isinstance(array, Abstract):
            array.refuse("calling a compiled module")
        if self._pure and self.traces >= _RECORDS:
            raise SlalomError(f"{self.__name__}: a call", got=f"another kind after {_RECORDS}", needed="one of those")

    def _outcome(self, trace: Trace, args: Any, kwargs: Any) -> tuple[list[Tensor], _Plan]:
        if self._pure and not self._module._is_plain():
            self._keep_eager("one with effects of its own")
        trace.unasked = self._pure
        outs: list[Tensor] = []
        result = self._function(*args, **kwargs)
        tree = _flatten(result, outs, _Fixed)
        if self._pure:
            if not outs or not _is_new(result):
                self._keep_eager("one that returns an object")
            if any(map(trace.is_given, outs)) or len({id(t._storage) for t in outs}) < len(outs):
                self._keep_eager("one that returns the same tensor twice, or what it was given")
        carrier = trace.carries_history()
        if carrier is not None:
            raise StagingError(
                f"{carrier}: what a compiled module writes into it requires gradients, which would end with the call",
                hint="detach() the value, or return it from forward",
            )
        live = tuple([i for i, t in enumerate(outs) if MODE.get().grad and t.requires_grad])
        cts = [trace.awaited(-1 - i, Type(outs[i].shape, outs[i].dtype), f"cotangent {i}") for i in live]
        found = _reverse(_seeds([outs[i] for i in live], cts), None, create_graph=False)
        owners, gradients = [], []
        for node, ct in found.items():
            t = None if node.owner is None else node.owner()
            owner = None if t is None else trace.whose(t)
            if owner is not None:
                owners.append(owner)
                gradients.append(ct)
        return [*outs, *gradients], _Plan(tree, len(outs), live, tuple(owners))

    def _keep_eager(self, got: str) -> NoReturn:
        raise StagingError(f"{self.__name__}: a call", got=got, needed="one that machine code may stand for")


def _is_new(result: Any) -> bool:
    """Whether a result is tensors in containers that the call itself has made, which can be made anew each time."""
    kind = type(result)
    if kind is dict:
        return all(map(_is_new, result.values()))
    return all(map(_is_new, result)) if kind in (list, tuple) else kind in _RESULTS


# --- running ------------------------------------------------------------------------------------------------------
class _From(NamedTuple):
    """Where backward finds an input: in one of the node's inputs, in what forward kept, or as a cotangent."""

    place: Literal["node", "kept", "cotangent"]
    number: int


class _Call:
    """Forward and backward of a record.

    Each output's node has as inputs the tensors that get gradients, then what backward reads besides.
    """

    def __init__(self, record: _Joint) -> None:
        _, (_, fixed) = record.result
        plan: _Plan = fixed.value
        graph, sources = record.graph, record.binding.inputs
        targets = [target for target in record.binding.outputs if target is not None]
        self.written: Final = [target for target in targets if isinstance(target, Storage)]
        """The buffers of all states that a call writes, …"""
        self.read: Final = [at for at in sources if isinstance(at, Storage) and at not in self.written]
        """… and of those that it only reads."""
        self.repeatable: Final = len(self.written) == len(targets)
        """Whether it writes no argument."""
        gradients = range(plan.outputs, plan.outputs + len(plan.owners))
        cotangents = {i: -1 - at for i, at in enumerate(sources) if isinstance(at, int) and at < 0}
        gone = {*record.targets.values(), *cotangents}
        there = {i for i, place in enumerate(graph.inputs) if place.kind in ("argument", "state") and i not in gone}
        halves = cut(graph, set(cotangents), gradients, there)
        self._plan = plan
        self._forward = _forward(record, halves, cotangents, gradients)
        self._backward = _backward(halves)
        self._lock = threading.Lock()
        self.divided = False
        """Whether several outputs of a call have got cotangents: each costs a whole backward, unlike on the tape."""
        self._read: list[tuple[str, Any, bool]] = []
        """The inputs of the node that get no gradient: arguments, states and outputs; and whether a view is enough."""
        self._found = self._find(sources, halves, cotangents)
        depend = {k: halves.gradients_of(i) if len(cotangents) > 1 else None for i, k in cotangents.items()}
        self._depend = [(k, depend[k]) for k in plan.live]
        """The live outputs, each with the numbers of the gradients that depend on it; None: of all."""
        types = {k: graph.types[graph.outputs[k].value] for k in plan.live if len(plan.live) > 1}
        self._zeros = {k: np.zeros(of.shape, of.dtype) for k, of in types.items()}

    def _find(self, sources: list[Any], halves: Halves, cotangents: dict[int, int]) -> list[_From]:
        """Where each input of backward is found."""
        places = [owner if isinstance(owner, int) else owner()._storage for owner in self._plan.owners]
        numbers = {_key(place): n for n, place in enumerate(places)}
        found = []
        for kind, n in halves.sources:
            if kind == "kept":
                found.append(_From("kept", n))
            elif kind == "input" and n in cotangents:
                found.append(_From("cotangent", cotangents[n]))
            else:
                place = ("output", n) if kind == "output" else sources[n]
                viewed = kind == "input" and n in halves.viewed
                key = ("view", _key(place)) if viewed else _key(place)
                if key not in numbers:
                    numbers[key] = len(numbers)
                    self._read.append((*_described(place), viewed))
                found.append(_From("node", numbers[key]))
        return found

    def __call__(self, leaves: list[Tensor], again: _Again | None = None) -> Any:
        """What the module returns for arguments with these tensors, which have a history if they should."""
        made: list[Tensor] = _execute(self._forward, leaves)
        outs = made[: self._plan.outputs]
        if self._depend:
            nodes = self._nodes(leaves, outs)
            kept = [t._storage.array for t in made[self._plan.outputs :]]
            wanted: set[int] = set()
            for k, gradients in self._depend:
                inputs = nodes
                if gradients is not None:
                    learned = len(self._plan.owners)
                    inputs = [x if n in gradients or n >= learned else _value(x.storage) for n, x in enumerate(nodes)]
                # A handle of its own: that of the forward's memory outlives it, and would keep all that backward needs.
                out = outs[k] = Tensor._handle(outs[k]._storage, None, False)
                params = {"pullback": _Pullback(self, k, kept, wanted), "again": again, "output": k}
                out._node, out._live = Node(_PRIMITIVE, tuple(inputs), params, out._storage, True), True
        return _rebuild(self._plan.tree, outs)

    def _nodes(self, leaves: list[Tensor], outs: list[Tensor]) -> list[Node]:
        nodes = [(leaves[owner] if type(owner) is int else owner())._latest() for owner in self._plan.owners]
        for kind, what, viewed in self._read:
            if viewed:
                nodes.append(_view(leaves[what]._storage if kind == "argument" else what.storage))
            elif kind == "state":
                nodes.append(what)
            else:
                t = leaves[what] if kind == "argument" else outs[what]
                nodes.append(_value(t._storage) if t._live or kind == "output" else t._latest())
        return nodes

    def backward(self, k: int, ct: Tensor, inputs: Sequence[Tensor], kept: list[Array]) -> dict[int, Tensor]:
        """The gradients by number for a cotangent of output k; those of the other outputs are 0."""
        arrays = []
        for place, n in self._found:
            if place == "kept":
                arrays.append(kept[n])
            elif place == "cotangent":
                arrays.append(ct._storage.array if n == k else self._zeros[n])
            else:
                array = inputs[n]._storage.array
                if isinstance(array, Abstract):
                    array.refuse("backward")
                arrays.append(array)
        with self._lock:
            run = self._backward.run
        return {n: Tensor._of(array) for n, array in enumerate(run(arrays))}


def _key(place: Any) -> Any:
    return id(place) if isinstance(place, Storage) else place


def _described(place: Any) -> tuple[str, Any]:
    if isinstance(place, Storage):
        return "state", _value(place)
    return place if isinstance(place, tuple) else ("argument", place)


def _value(storage: Storage) -> Leaf:
    """A buffer as it is now, as a node without history."""
    return Leaf(None, (), {}, storage, False)


def _view(storage: Storage) -> Leaf:
    """A buffer that keeps the value it has now when the other is written, as the views do that forward makes."""
    kept = Storage(storage.array)
    kept.view_of(storage)
    return _value(kept)


def _forward(record: _Record, halves: Halves, cotangents: Container[int], gradients: range) -> _Record:
    """The record of forward; its result is the list of the outputs and of what is kept."""
    graph, binding = halves.forward, record.binding
    inputs = [source for i, source in enumerate(binding.inputs) if i not in cotangents]
    outputs = [target for i, target in enumerate(binding.outputs) if i not in gradients]
    outputs += [None] * (len(graph.outputs) - len(outputs))
    results = sum(output.kind == "result" for output in graph.outputs)
    tree = (list, tuple(map(_Leaf, range(results))))
    return _Record(graph, Binding(inputs, outputs, binding.cleared), (), tree, [])


def _backward(halves: Halves) -> _Record:
    """The record of backward, all of whose inputs are given."""
    graph = halves.backward
    return _Record(graph, Binding([None] * len(graph.inputs), [None] * len(graph.outputs)), (), None, [])


class _Again:
    """A call of a pure module, to be made once more operation by operation, from the states as they were."""

    __slots__ = ("_args", "_before", "_buffers", "_facts", "_kwargs", "_module", "_time")

    def __init__(self, module: Any, args: Any, kwargs: Any, leaves: list[Tensor], record: _Joint) -> None:
        call = record.call
        if not call.repeatable:
            raise StagingError(type(module).__name__, got="a call that writes an argument", needed="one that does not")
        self._module, self._args, self._kwargs = module, args, kwargs
        self._buffers = [*call.read, *[t._storage for t in leaves]]
        self._before = [(storage, storage.array.copy()) for storage in call.written]
        self._facts, self._time = record.facts, next(clock)

    def __call__(self, output: int) -> Tensor:
        """The output of that number. Raises: GradError if the module was changed meanwhile, or an input overwritten."""
        what = f"derivatives of gradients through {type(self._module).__name__}"
        if not self._facts.hold():
            raise GradError(what, got="a module that was changed since the call", needed="it as it was")
        if any(storage.written > self._time for storage in self._buffers):
            raise GradError(what, got="an input that was overwritten in place", needed="it as it was")
        now = [(storage, storage.array, storage.written) for storage, _ in self._before]
        try:
            for storage, array in self._before:
                storage.array = array.copy()
            with enable_grad(), no_compile():
                outs: list[Tensor] = []
                _flatten(self._module.forward(*self._args, **self._kwargs), outs, _Fixed)
                return outs[output]
        finally:
            for storage, array, written in now:
                storage.array, storage.written = array, written


# --- on the tape --------------------------------------------------------------------------------------------------
class _Pullback:
    """Gradients for one output of a call; computed all at once, and handed out one by one."""

    __slots__ = ("_call", "_held", "_kept", "_output", "_wanted")

    def __init__(self, call: _Call, output: int, kept: list[Array], wanted: set[int]) -> None:
        self._call, self._output, self._kept, self._wanted = call, output, kept, wanted
        self._held: tuple[Tensor, int, dict[int, Tensor]] | None = None

    def __call__(self, i: int, ct: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        held = self._held
        if held is None or held[0] is not ct or held[1] != ct._storage.written or i not in held[2]:
            self._wanted.add(self._output)
            self._call.divided |= len(self._wanted) > 1
            made = self._call.backward(self._output, ct, inputs, self._kept)
            held = self._held = ct, ct._storage.written, made
        return held[2].pop(i)


class _ModuleCall(Kind):
    """First derivatives in reverse mode, which are computed already."""

    def vjp(self, prim: Primitive, i: int, ct: Tensor, out: Tensor, inputs: Sequence[Tensor], params: Params) -> Tensor:
        if MODE.get().grad:
            if params["again"] is None:
                self._refuse("derivatives of gradients")
            return self._recorded(params["again"](params["output"]), inputs[i], ct)
        gradient: Tensor = params["pullback"](i, ct, inputs)
        return gradient

    def _recorded(self, out: Tensor, x: Tensor, ct: Tensor) -> Tensor:
        """The share of an input in the derivative of what was computed once more, as operations on the tape."""
        node = x._latest()
        found = _reverse(_seeds([out], [ct]), {node}, create_graph=True)
        return found[node] if node in found else x._zeros()

    def jvp(
        self, prim: Primitive, tangents: Sequence[Tensor | None], out: Tensor, inputs: Sequence[Tensor], params: Params
    ) -> Tensor | None:
        if params["again"] is None:
            self._refuse("forward-mode derivatives")
        seeds = {x._latest(): t for x, t in zip(inputs, tangents, strict=True) if t is not None}
        return _forward_mode(seeds, [params["again"](params["output"])._latest()], create_graph=MODE.get().grad)[0]

    def _refuse(self, what: str) -> NoReturn:
        raise GradError(
            f"{what} through the call of a compiled module",
            hint="compile the function that takes the derivatives, not the module",
        )


def _never(*arrays: Array, **params: Any) -> NoReturn:
    raise AssertionError("a node of a compiled module's call is never computed again")


_PRIMITIVE: Final = Primitive(MODULE_CALL, _never, _ModuleCall(), _never, "an output of a compiled module's call")

"""Staging: a Trace records what ``apply`` is asked to do, and makes a Graph of it.

Inside a trace nothing is computed. Concrete tensors met there are state: inputs that are read anew at each call, and
outputs where they are written. So are gradients, numbers that steer (learning rates), and random counters. Guards
note which facts of the Python world the record depends on.

A tensor of the function's arguments is replaced by an abstract stand-in; if the tensor itself is met too (it is a
parameter, say), it means its stand-in. State is watched through weak references: a record whose tensors are gone is
of no use to anybody.
"""

from __future__ import annotations

import contextvars
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import numpy as np

from slalom.core.dtype import float64
from slalom.core.graph import Equation, Graph, Input, Output, Type
from slalom.core.guards import Guard, Kept, NoGrad
from slalom.core.node import MODE, Abstract, Leaf, Node, Rewritten, Storage, Watched, pass_on_owner, user_line
from slalom.core.ops.structural import ALIAS
from slalom.core.primitive import Array, Primitive
from slalom.core.tensor import Tensor, check_operands
from slalom.errors import StagingError

F = TypeVar("F", bound=Callable[[Callable[..., Any]], Any])
_UNREAD: Any = object()


@dataclass
class _Slot:
    """A place outside that the trace reads and may write: ``read`` is its value on entry, ``now`` the latest.

    ``target``: a Storage or an argument's position, and for gradients the tensor. ``now`` is a Node, and for gradients
    a tensor, None, or _UNREAD. ``buffer``: what the stand-ins of an argument share.
    """

    target: Any
    read: Node | None
    now: Any
    buffer: Storage | None = None


@dataclass(frozen=True)
class _Argument:
    position: int
    given: Tensor
    stand_in: Tensor


@dataclass
class Binding:
    """Where a graph's inputs come from and its outputs go, in the order of ``graph.inputs`` and ``.outputs``.

    Inputs by kind: argument: its position · state: a Storage · grad: whose gradient, as an argument's position or a
    weak reference to a tensor · number: a function that returns it.
    Outputs by kind: result: None · write: an argument's position or a Storage · grad: as for inputs.
    ``cleared``: whose gradient is None after the call. ``aliases``: the arguments that were state too, and what tells
    whether a tensor given at that position still is. ``states``: ids of all storages that were met as state.
    ``watched``: the tensors from outside that were met.
    """

    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    cleared: list[Any] = field(default_factory=list)
    aliases: dict[int, Callable[[Tensor], bool]] = field(default_factory=dict)
    states: frozenset[int] = frozenset()
    watched: list[weakref.ref[Tensor]] = field(default_factory=list)


class Trace:
    """One recording. ``open`` until ``close``; abstract tensors kept beyond that raise when they are used."""

    def __init__(self) -> None:
        self.open: bool = True
        self.unasked: bool = False  # nobody has asked for this recording: texts must not tell of it
        self.guards: dict[Any, Guard] = {}
        self.reads: Any = None  # where core.reads keeps what it has followed
        self._nodes: list[Node] = []
        self._inputs: list[tuple[Node, str, Any]] = []
        self._labels: dict[Node, str] = {}
        self._constants: dict[Node, Array] = {}
        self._still: dict[Node, Node] = {}  # live nodes → their aliases without history
        self._arguments: dict[int, _Argument] = {}  # by id of the tensor given, and of its stand-in
        self._states: dict[int, _Slot] = {}  # by id of the storage
        self._written: dict[int, tuple[Storage, Node]] = {}  # by id of an abstract storage: its latest value
        self._grads: dict[int, _Slot] = {}  # by id of the tensor
        self._names: dict[int, tuple[Tensor, str]] = {}
        self._met: dict[int, Tensor] = {}  # concrete tensors by id, which this keeps alive and unique
        self._made: set[int] = set()  # ids of tensors whose gradients end with the trace: detach() made them in here, …
        self._flags: dict[int, tuple[Tensor, bool]] = {}  # requires_grad as it was, where it was changed in here
        self._leaves: dict[int, Node] = {}  # by id of a concrete tensor that requires gradients
        self._histories: dict[int, Node] = {}  # by id of a concrete tensor: the live value that was written through it
        self._aliases: dict[int, Callable[[Tensor], bool]] = {}

    # --- what apply and Tensor call -----------------------------------------------------------------------------
    def record(self, prim: Primitive, inputs: tuple[Tensor, ...], params: dict[str, Any]) -> Tensor:
        nodes = tuple([self.lift(t) for t in inputs])
        of = Type(*check_operands(prim, [n.storage.array for n in nodes], params))
        live = (
            MODE.get().grad
            and of.dtype.kind == "f"
            and any(n.live and prim.kind.differentiable(i) for i, n in enumerate(nodes))
        )
        return _handle(self._emit(Node, prim, nodes, params, of, live))

    def _emit(
        self, kind: type[Node], prim: Primitive, nodes: tuple[Node, ...], params: dict[str, Any], of: Type, live: bool
    ) -> Any:
        site = user_line()
        node = kind(prim, nodes, params, Storage(Abstract(of.shape, of.dtype, self, site)), live, site)
        self._nodes.append(node)
        return node

    def _rewritten(self, was: Node, value: Node) -> Node:
        node: Rewritten = self._emit(Rewritten, ALIAS, (was,), {}, Type(value.shape, value.dtype), was.live)
        node.value = value
        return node

    def _alias(self, node: Node, live: bool) -> Node:
        return self._emit(Node, ALIAS, (node,), {}, Type(node.shape, node.dtype), live)  # type: ignore[no-any-return]

    def _leaf(self, node: Node, owner: weakref.ref[Tensor] | None) -> Leaf:
        """The value of a node as a beginning of its own, at which gradients arrive."""
        leaf: Leaf = self._emit(Leaf, ALIAS, (node,), {}, Type(node.shape, node.dtype), True)
        leaf.owner = owner
        return leaf

    def _without_history(self, node: Node) -> Node:
        if not node.live:
            return node
        if node not in self._still:
            self._still[node] = self._alias(node, live=False)
        return self._still[node]

    def _given(self, of: Type, kind: str, source: Any, label: str) -> Node:
        node = Node(None, (), {}, Storage(Abstract(of.shape, of.dtype, self, user_line())), False)
        self._inputs.append((node, kind, source))
        self._labels[node] = label
        return node

    def constant(self, array: Array) -> Tensor:
        """A value known while tracing: part of the graph."""
        node = Node(None, (), {}, Storage(Abstract(array.shape, array.dtype, self, user_line())), False)
        self._constants[node] = array
        return _handle(node)

    def number(self, read: Callable[[], float], name: str) -> Tensor:
        """A 0-d float64 input whose value is asked for at each call."""
        return _handle(self._given(Type((), float64), "number", read, name))

    def awaited(self, position: int, of: Type, name: str) -> Tensor:
        """An argument that is none yet: whoever runs the graph knows what the position means."""
        return _handle(self._given(of, "argument", position, name))

    def argument(self, position: int, given: Tensor) -> Tensor:
        """The stand-in for an argument; a tensor given twice has one, and two on the same buffer share theirs."""
        if id(given) in self._arguments:
            return self._arguments[id(given)].stand_in
        slot = self._states.get(id(given._storage))
        if slot is None:
            node = self._given(Type(given.shape, given.dtype), "argument", position, f"argument {position}")
            slot = _Slot(position, node, node, Storage(node.storage.array))
            self._states[id(given._storage)] = self._states[id(slot.buffer)] = slot
        stand_in = Tensor._handle(slot.buffer, slot.read, False)
        known = _Argument(position, given, stand_in)
        self._arguments[id(given)] = self._arguments[id(stand_in)] = known
        if given._live:
            self.mark_leaf(stand_in, True)
        return stand_in

    def _meant(self, t: Tensor) -> Tensor:
        """The stand-in of a tensor that is an argument and was met as state too; else the tensor."""
        known = self._arguments.get(id(t))
        if known is None or t is known.stand_in:
            return t
        ref = weakref.ref(t)
        self._aliases[known.position] = lambda given: given is ref()
        return known.stand_in

    def lift(self, t: Tensor) -> Node:
        """The node that stands for ``t`` now."""
        t = self._meant(t)
        array = t._storage.array
        if isinstance(array, Abstract):
            if array.trace is not self:
                array.refuse("using a tensor")
            node = t._node
            assert node is not None
            latest = self._written.get(id(t._storage))
            if latest is not None and _plain(node) is not _plain(latest[1]):
                node = self._rewritten(node, latest[1]) if t._live else self._without_history(latest[1])
                t._node = node
            return node
        now: Node = self._state(t).now
        history = self._histories.get(id(t))
        if history is not None:
            if _plain(history) is not _plain(now):
                history = self._histories[id(t)] = self._rewritten(history, now)
            return history
        if not (t._live and MODE.get().grad):
            return self._without_history(now)
        if not t.is_leaf:
            raise StagingError(
                f"staging, at {user_line()}: a tensor of shape {t.shape} that was computed from parameters outside",
                hint="compute it inside the compiled function, or detach() it",
            )
        leaf = self._leaves.get(id(t))
        if leaf is None:
            leaf = self._leaves[id(t)] = self._leaf(now, weakref.ref(t))
        elif _plain(leaf) is not _plain(now):
            leaf = self._leaves[id(t)] = self._rewritten(leaf, now)
        return leaf

    def _state(self, t: Tensor) -> _Slot:
        storage = t._storage
        slot = self._states.get(id(storage))
        if slot is None:
            node = self._given(Type(t.shape, t.dtype), "state", storage, f"state {len(self._states)}")
            slot = self._states[id(storage)] = _Slot(storage, node, node)
        if id(t) not in self._met:
            self._meet(t, slot)
        return slot

    def _meet(self, t: Tensor, slot: _Slot) -> None:
        self._met[id(t)] = t
        if id(t) in self._made:
            return
        storage, live = t._storage, self._flags.get(id(t), (t, t._live))[1]
        fact = Kept(weakref.ref(t), storage, live)
        self.guard(("tensor", id(t)), f"{self._name(t)}: the tensor, its buffer or its requires_grad", fact)
        if isinstance(slot.target, int):
            self._aliases.setdefault(slot.target, lambda given: given._storage is storage)

    def requires_grad(self, t: Tensor) -> bool:
        """Whether it does in here; a fact that the record depends on."""
        t = self._meant(t)
        if not isinstance(t._storage.array, Abstract):
            self._state(t)
        return t._live or id(t) in self._histories

    def is_leaf(self, t: Tensor) -> bool:
        t = self._meant(t)
        node = t._node.identity() if isinstance(t._node, Rewritten) else t._node
        return not self.requires_grad(t) or (id(t) not in self._histories and (node is None or node.leaf))

    def fresh(self, t: Tensor) -> Tensor:
        """``t`` under a new identity through which gradients flow."""
        return _handle(self._alias(self.lift(t), live=True))

    def watched(self, t: Tensor) -> Tensor:
        """``t`` under a new identity whose adjoint can be watched."""
        node = self.lift(t)
        return _handle(self._emit(Watched, ALIAS, (node,), {}, Type(node.shape, node.dtype), live=True))

    def mark_leaf(self, t: Tensor, live: bool) -> None:
        """Set whether a leaf requires gradients; for a tensor from outside, until the end of the trace only."""
        t = self._meant(t)
        if isinstance(t._storage.array, Abstract):
            known = self._arguments.get(id(t))
            if known is not None and live != known.given._live:
                self._made.add(id(t))  # what it is in here, it is not outside
            value = self.lift(t)
            t._node = self._leaf(value, weakref.ref(t)) if live else self._without_history(value)
        else:
            self._flags.setdefault(id(t), (t, t._live))
            self._leaves.pop(id(t), None)
            t._node = None
        t._live = live

    def detach(self, t: Tensor) -> Tensor:
        t = self._meant(t)
        if isinstance(t._storage.array, Abstract):
            return Tensor._handle(t._storage, self._without_history(self.lift(t)), False)
        self._state(t)
        made = Tensor._handle(t._storage, None, False)
        self._met[id(made)] = made
        self._made.add(id(made))
        return made

    def write(self, t: Tensor, value: Tensor) -> None:
        """An in-place operation: later readers of the buffer get ``value``."""
        t, node = self._meant(t), self.lift(value)
        storage, recording = t._storage, MODE.get().grad
        if isinstance(storage.array, Abstract):
            self.lift(t)  # refuses tensors of other traces
            self._written[id(storage)] = (storage, node)
            slot = self._states.get(id(storage))
            if slot is not None:
                slot.now = node
            old = t._node
            if not recording:  # a write under no_grad leaves the history as it is
                assert old is not None
                t._node = self._rewritten(old, node) if t._live else self._without_history(node)
            else:
                if node.live:
                    pass_on_owner(old, node)
                t._node, t._live = node, node.live
            return
        slot = self._state(t)
        slot.now = node
        if slot.buffer is not None:  # an argument on the same buffer sees it
            self._written[id(slot.buffer)] = (slot.buffer, node)
        if recording and node.live:
            self._histories[id(t)] = node
        elif recording:
            self._histories.pop(id(t), None)

    def is_given(self, t: Tensor) -> bool:
        """Whether a tensor has the buffer of an argument or of a state."""
        return id(t._storage) in self._states or not isinstance(t._storage.array, Abstract)

    def carries_history(self) -> str | None:
        """The name of a tensor from outside whose new content requires gradients, if there is one."""
        for known in self._arguments.values():
            if known.stand_in._live and not self.is_leaf(known.stand_in):
                return self._name(known.stand_in)
        return next((self._name(self._met[key]) for key in self._histories if key not in self._made), None)

    # --- gradients ----------------------------------------------------------------------------------------------
    def _grad_slot(self, t: Tensor) -> _Slot:
        t = self._meant(t)
        slot = self._grads.get(id(t))
        if slot is None:
            if not isinstance(t._storage.array, Abstract):
                self._state(t)
            slot = self._grads[id(t)] = _Slot(t, None, _UNREAD)
        return slot

    def read_grad(self, t: Tensor) -> Tensor | None:
        slot = self._grad_slot(t)
        if slot.now is _UNREAD:
            slot.now = None
            t = slot.target
            known, source = self._arguments.get(id(t)), self.whose(t)
            before = known.given._grad if known is not None else t._grad
            if before is not None and source is not None:
                slot.read = self._given(Type(before.shape, before.dtype), "grad", source, "")
                slot.now = _handle(slot.read)
            if isinstance(source, weakref.ref):  # for arguments the signature says it
                empty = before is None
                self.guard(("grad", id(t)), f"whether .grad of {self._name(t)} is None", NoGrad(source, empty))
        return slot.now  # type: ignore[no-any-return]

    def write_grad(self, t: Tensor, value: Tensor | None) -> None:
        self._grad_slot(t).now = value

    def whose(self, t: Tensor) -> Any:
        """Whose gradient slot outside this is: an argument's position or a tensor; None if it ends with the trace."""
        known = self._arguments.get(id(t))
        if id(t) in self._made or (known is None and isinstance(t._storage.array, Abstract)):
            return None
        return known.position if known is not None else weakref.ref(t)

    # --- guards -------------------------------------------------------------------------------------------------
    def guard(self, key: Any, text: str, holds: Callable[[], bool]) -> None:
        """Note that the record depends on ``holds``; the first fact under a key stands."""
        if key not in self.guards:
            self.guards[key] = Guard(text, holds)

    @property
    def nodes(self) -> Sequence[Node]:
        """What was recorded so far, in its order."""
        return self._nodes

    def named(self, t: Tensor, name: str) -> None:
        """Give a state the name it is printed with."""
        self._names.setdefault(id(t), (t, name))

    def _name(self, t: Tensor) -> str:
        known = self._arguments.get(id(t))
        default = f"argument {known.position}" if known is not None else f"a tensor of shape {t.shape}"
        return self._names.get(id(t), (t, default))[1]

    # --- the end ------------------------------------------------------------------------------------------------
    def finish(self, results: list[Tensor]) -> tuple[Graph, Binding]:
        """The graph, with everything that no output needs left out."""
        for t, before in self._flags.values():
            if t._live != before and id(t) not in self._made:
                raise StagingError(
                    f"requires_grad of {self._name(t)} was changed while staging",
                    hint="change it outside the compiled function, or set it back at its end",
                )
        for t, name in self._names.values():
            slot = self._states.get(id(t._storage))
            if slot is not None and slot.read is not None:
                self._labels[slot.read] = name
        outs: list[tuple[Node, str, Any, str]] = [
            (self.lift(t), "result", None, f"result {i}") for i, t in enumerate(results)
        ]
        for slot in {id(slot): slot for slot in self._states.values()}.values():
            if _plain(slot.now) is not slot.read:
                assert slot.read is not None
                outs.append((slot.now, "write", slot.target, self._labels[slot.read]))
        binding = Binding(aliases=dict(self._aliases))
        for slot in self._grads.values():
            self._finish_grad(slot, outs, binding)
        binding.states = frozenset(id(s.target) for s in self._states.values() if isinstance(s.target, Storage))
        binding.watched = [weakref.ref(t) for key, t in self._met.items() if key not in self._made]
        return self._graph(outs, binding), binding

    def _finish_grad(self, slot: _Slot, outs: list[tuple[Node, str, Any, str]], binding: Binding) -> None:
        target, label = self.whose(slot.target), f"grad of {self._name(slot.target)}"
        if slot.read is not None:
            self._labels[slot.read] = label
        if target is None or slot.now is _UNREAD:
            return
        if slot.now is None:
            binding.cleared.append(target)
            return
        node = self.lift(slot.now)
        if node is not slot.read:
            outs.append((node, "grad", target, label))

    def _graph(self, outs: list[tuple[Node, str, Any, str]], binding: Binding) -> Graph:
        needed: set[Node] = set()
        stack = [node for node, *_ in outs]
        while stack:
            node = stack.pop()
            if node not in needed:
                needed.add(node)
                stack.extend(_operands(node))
        numbers: dict[Node, int] = {}
        types: list[Type] = []

        def number(node: Node) -> int:
            numbers[node] = len(types)
            types.append(Type(node.shape, node.dtype))
            return numbers[node]

        inputs = []
        for node, kind, source in self._inputs:
            if node in needed or kind == "argument":
                inputs.append(Input(number(node), kind, self._labels[node]))  # type: ignore[arg-type]
                binding.inputs.append(source)
        constants = {number(node): array for node, array in self._constants.items() if node in needed}
        equations = []
        for node in self._nodes:
            if node in needed:
                assert node.prim is not None
                sources = tuple(numbers[n] for n in _operands(node))
                equations.append(Equation(number(node), node.prim, sources, node.params, node.site))
        outputs = []
        for node, kind, target, name in outs:
            outputs.append(Output(numbers[node], kind, name))  # type: ignore[arg-type]
            binding.outputs.append(target)
        return Graph(tuple(types), tuple(inputs), constants, tuple(equations), tuple(outputs))

    def close(self) -> None:
        """End the recording, also after an error: what it changed outside is as before, and its nodes can go."""
        for t, before in self._flags.values():
            if t._live != before:
                t._live, t._node = before, None
        for held in vars(self).values():
            if isinstance(held, (dict, list, set)):
                held.clear()  # nodes know their trace: without this, a cycle
        self.reads = None
        self.open = False


def _handle(node: Node) -> Tensor:
    """A tensor with this value, for the user: its buffer can be written, the node's value never changes."""
    return Tensor._handle(Storage(node.storage.array), node, node.live)


def _operands(node: Node) -> tuple[Node, ...]:
    """The nodes whose values this one is computed from."""
    return (node.value,) if isinstance(node, Rewritten) else node.inputs


def _plain(node: Node) -> Node:
    """The node behind aliases."""
    while node.prim is ALIAS:
        (node,) = _operands(node)
    return node


# --- what other layers call ---------------------------------------------------------------------------------------
def current() -> Trace | None:
    """The trace that is recording in this thread, if any."""
    return MODE.get().trace


def steering(read: Callable[[], float], name: str) -> Tensor:
    """A number that steers the computation (a learning rate): a 0-d float64 tensor, read anew at each call.

    While staging it becomes an input of the graph, so that a changed value reaches the compiled step without a
    retrace; 0-d float64 tensors never widen arrays.
    """
    trace = MODE.get().trace
    if trace is not None:
        return trace.number(read, name)
    return Tensor._of(np.array(read(), float64))


_COMPILERS: list[Callable[[Callable[..., Any]], Any]] = []


def offer_native(compiler: F) -> F:
    """Tell the layers that do not know the compiler how a function becomes machine code (None: not here)."""
    _COMPILERS.append(compiler)
    return compiler


def natively(function: Callable[..., Any]) -> Any:
    """A function, or the call of a module, compiled, if it would run as machine code; else None."""
    return _COMPILERS[-1](function) if _COMPILERS else None


_COMPILING: Final = contextvars.ContextVar("slalom_compiling", default=True)


def compiling() -> bool:
    """Whether layers may become machine code by themselves."""
    return _COMPILING.get()


@contextmanager
def no_compile() -> Iterator[None]:
    """Inside, layers and losses run operation by operation, however often they are called.

    What was given to ``compile`` stays compiled.

    >>> from slalom import nn, ones
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> with no_compile():
    ...     model(ones(1, 2)).shape
    (1, 3)
    """
    token = _COMPILING.set(False)
    try:
        yield
    finally:
        _COMPILING.reset(token)


MODULE_CALL: Final = "module call"
"""The name of the primitive that stands on the tape for the call of a compiled module."""


def from_compiled(value: Any) -> bool:
    """Whether a value is what a compiled module has returned."""
    node = value._node if isinstance(value, Tensor) else None
    return node is not None and node.prim is not None and node.prim.name == MODULE_CALL


@contextmanager
def unstaged() -> Iterator[None]:
    """Compute for real inside this block, also while staging: for state that is made at its first use."""
    token = MODE.set(MODE.get()._replace(trace=None))
    try:
        yield
    finally:
        MODE.reset(token)

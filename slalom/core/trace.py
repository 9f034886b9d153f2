"""Staging: a Trace records what ``apply`` is asked to do; a Graph is the finished record.

Inside a trace nothing is computed. Concrete tensors met there are state: inputs that are read anew at each call, and
outputs where they are written. So are gradients, numbers that steer (learning rates), and random counters. Guards
note which facts of the Python world the record depends on.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from slalom.core.dtype import SHORT, DType, float64
from slalom.core.node import MODE, Abstract, Node, Storage, user_line
from slalom.core.ops.structural import ALIAS
from slalom.core.primitive import Array, Primitive
from slalom.core.shape import Shape
from slalom.core.tensor import Tensor, check_operands
from slalom.errors import StagingError


# --- the finished record ------------------------------------------------------------------------------------------
class Type(NamedTuple):
    """Shape and dtype of a value; prints as ``f32[64,10]``."""

    shape: Shape
    dtype: DType

    def __str__(self) -> str:
        return f"{SHORT[self.dtype]}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Input:
    """A value given from outside: an argument, state, the gradient slot of a tensor, or a number that steers."""

    value: int
    kind: Literal["argument", "state", "grad", "number"]
    name: str


@dataclass(frozen=True)
class Output:
    """A value handed out: a result, the new content of a state or argument, or a gradient."""

    value: int
    kind: Literal["result", "write", "grad"]
    name: str


@dataclass(frozen=True)
class Equation:
    """``out = prim(*inputs, **params)``, and the user's line it came from."""

    out: int
    prim: Primitive
    inputs: tuple[int, ...]
    params: dict[str, Any]
    site: str | None


@dataclass(frozen=True)
class Graph:
    """A recorded computation in the order of its recording. Values are numbered; ``types`` gives their types."""

    types: tuple[Type, ...]
    inputs: tuple[Input, ...]
    constants: dict[int, Array]
    equations: tuple[Equation, ...]
    outputs: tuple[Output, ...]

    def check(self) -> Graph:
        """Check that every value is defined once before its use and that every type is what the rules say.

        Returns: the graph itself. Raises: AssertionError naming the equation (a defect of a pass, never a user's).
        """
        known = {i.value for i in self.inputs} | set(self.constants)
        for value, array in self.constants.items():
            if Type(array.shape, array.dtype) != self.types[value]:
                raise AssertionError(f"constant %{value} is {array.dtype}{array.shape}, not {self.types[value]}")
        for eq in self.equations:
            if eq.out in known or not known.issuperset(eq.inputs):
                raise AssertionError(f"defined twice, or used before it is defined: {self._line(eq)}")
            operands = [Abstract(*self.types[i], None, "") for i in eq.inputs]
            shape, dtype = eq.prim.shape(*operands, **eq.params), eq.prim.dtype(*operands, **eq.params)
            if Type(tuple(shape), dtype) != self.types[eq.out]:
                raise AssertionError(f"rules give {Type(tuple(shape), dtype)}: {self._line(eq)}")
            known.add(eq.out)
        for output in self.outputs:
            if output.value not in known:
                raise AssertionError(f"output {output.name} is never defined")
        return self

    def _line(self, eq: Equation) -> str:
        params = [f"{k}={_brief(v)}" for k, v in eq.params.items()]
        return (
            f"%{eq.out}: {self.types[eq.out]} = {eq.prim.name}({', '.join([f'%{i}' for i in eq.inputs] + params)})"
        )

    def __str__(self) -> str:
        lines = ["graph("]
        lines += [f"  %{i.value}: {self.types[i.value]}  # {i.kind} {i.name}" for i in self.inputs]
        lines.append("):")
        lines += [f"  %{v}: {self.types[v]} = {_brief(a)}" for v, a in self.constants.items()]
        for eq in self.equations:
            text = self._line(eq)
            lines.append(f"  {text}" if eq.site is None else f"  {text:<72}  # {eq.site.rpartition('/')[2]}")
        lines += [f"  {o.kind} {o.name} = %{o.value}" for o in self.outputs]
        return "\n".join(lines)


def _brief(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return str(value.item()) if value.size == 1 else f"constant of {value.size} elements"
    return getattr(value, "name", None) or repr(value).replace(" ", "")


# --- recording ----------------------------------------------------------------------------------------------------
@dataclass
class Slot:
    """A place outside that the trace reads and may write: ``read`` is its value on entry, ``now`` the latest."""

    target: Any
    read: Node | None
    now: Any
    name: str


@dataclass(frozen=True)
class Guard:
    """A fact that must still hold for a recorded graph to be used again."""

    text: str
    holds: Callable[[], bool]


@dataclass
class Binding:
    """Where a graph's inputs come from and its outputs go, in the order of ``graph.inputs`` and ``.outputs``.

    Inputs: an argument's position, a Storage, a Tensor whose gradient is meant, or a function that returns a number.
    Outputs: None (a result), an argument's position, a Storage, or a Tensor whose gradient is set. ``cleared`` lists
    the tensors whose gradient is None after the call.
    """

    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    cleared: list[Tensor] = field(default_factory=list)


class Trace:
    """One recording. ``open`` until ``finish``; abstract tensors kept beyond that raise when they are used."""

    def __init__(self) -> None:
        self.open: bool = True
        self.guards: dict[Any, Guard] = {}
        self._nodes: list[Node] = []
        self._inputs: list[tuple[Node, str, Any, str]] = []
        self._constants: dict[Node, Array] = {}
        self._states: dict[int, Slot] = {}  # by id of the storage, which the slot keeps alive
        self._grads: dict[int, Slot] = {}  # by id of the tensor
        self._written: dict[int, tuple[Any, Node]] = {}  # by id of an abstract storage: its latest value
        self._arguments: dict[int, int] = {}  # id of an abstract argument's storage → position
        self._leaves: dict[tuple[int, int], tuple[Tensor, Node]] = {}
        self._names: dict[int, str] = {}

    # --- what apply and Tensor call -----------------------------------------------------------------------------
    def record(self, prim: Primitive, inputs: tuple[Tensor, ...], params: dict[str, Any]) -> Tensor:
        nodes = tuple([self.lift(t) for t in inputs])
        operands = [n.storage.array for n in nodes]
        check_operands(prim, operands, params)
        dtype = prim.dtype(*operands, **params)
        live = (
            MODE.get().grad
            and dtype.kind == "f"
            and any(n.live and prim.kind.differentiable(i) for i, n in enumerate(nodes))
        )
        return self._emit(prim, nodes, params, Type(tuple(prim.shape(*operands, **params)), dtype), live)

    def _emit(self, prim: Primitive, nodes: tuple[Node, ...], params: dict[str, Any], of: Type, live: bool) -> Tensor:
        site = user_line()
        node = Node(prim, nodes, params, Storage(Abstract(of.shape, of.dtype, self, site)), live, site)
        self._nodes.append(node)
        return Tensor._handle(node.storage, node, live)

    def _given(self, of: Type, kind: str, source: Any, name: str) -> Node:
        node = Node(None, (), {}, Storage(Abstract(of.shape, of.dtype, self, user_line())), False)
        self._inputs.append((node, kind, source, name))
        return node

    def constant(self, array: Array) -> Tensor:
        """A value known while tracing: part of the graph."""
        node = Node(None, (), {}, Storage(Abstract(array.shape, array.dtype, self, user_line())), False)
        self._constants[node] = array
        return Tensor._handle(node.storage, node, False)

    def number(self, read: Callable[[], float], name: str) -> Tensor:
        """A 0-d float64 input whose value is asked for at each call."""
        node = self._given(Type((), float64), "number", read, name)
        return Tensor._handle(node.storage, node, False)

    def argument(self, position: int, of: Type, live: bool, same_as: Storage | None) -> Tensor:
        """The stand-in for an argument. ``same_as``: the real one's storage, so that state seen to be it is it."""
        node = self._given(of, "argument", position, f"argument {position}")
        handle = Tensor._handle(node.storage, node, False)
        self._arguments[id(node.storage)] = position
        self._states[id(node.storage)] = slot = Slot(position, node, node, f"argument {position}")
        if same_as is not None:
            self._states[id(same_as)] = slot
        if live:
            self.mark_leaf(handle, True)
        return handle

    def lift(self, t: Tensor) -> Node:
        """The node that stands for ``t`` now."""
        array = t._storage.array
        if isinstance(array, Abstract):
            if array.trace is not self:
                array.refuse("using a tensor")
            assert t._node is not None
            _, written = self._written.get(id(t._storage), (None, None))
            if written is not None and _plain(t._node) is not _plain(written):
                t._node = self._rebased(written, t) if t._live else self._alias(written, live=False)
            return t._node
        slot = self._state(t)
        if not (t._live and MODE.get().grad):
            return slot.now  # type: ignore[no-any-return]
        if not t.is_leaf:
            raise StagingError(
                f"staging, at {user_line()}: a tensor of shape {t.shape} that was computed from parameters outside",
                hint="compute it inside the compiled function, or detach() it",
            )
        key = (id(t), id(slot.now))
        if key not in self._leaves:
            node = self._alias(slot.now, live=True)
            node.owner = weakref.ref(t)
            self._leaves[key] = (t, node)
        return self._leaves[key][1]

    def _state(self, t: Tensor) -> Slot:
        storage: Any = t._storage
        slot = self._states.get(id(storage))
        if slot is None:
            name = self._names.get(id(t), f"state {len(self._states)}")
            node = self._given(Type(t.shape, t.dtype), "state", storage, name)
            slot = self._states[id(storage)] = Slot(storage, node, node, name)
        live, handle = t._live, t
        self.guard(
            ("tensor", id(t), live),
            f"{slot.name}: the tensor, its buffer or its requires_grad",
            lambda: handle._storage is storage and handle._live == live,
        )
        return slot

    def _alias(self, node: Node, live: bool) -> Node:
        made = self._emit(ALIAS, (node,), {}, Type(node.shape, node.dtype), live)
        assert made._node is not None
        return made._node

    def fresh(self, t: Tensor) -> Tensor:
        """``t`` under a new identity through which gradients flow."""
        node = self._alias(self.lift(t), live=True)
        return Tensor._handle(node.storage, node, True)

    def mark_leaf(self, t: Tensor, live: bool) -> None:
        """Make an abstract tensor a leaf that does (not) require gradients."""
        node = self._alias(self.lift(t), live)
        node.owner = weakref.ref(t) if live else None
        t._node, t._live = node, live

    def detach(self, t: Tensor) -> Tensor:
        if not isinstance(t._storage.array, Abstract):
            return Tensor._handle(t._storage, None, False)
        return Tensor._handle(t._storage, self._alias(self.lift(t), live=False), False)

    def write(self, t: Tensor, value: Tensor) -> None:
        """An in-place operation: later readers of the buffer get ``value``."""
        node = self.lift(value)
        storage: Any = t._storage
        if isinstance(storage.array, Abstract):
            if storage.array.trace is not self:
                storage.array.refuse("writing into a tensor")
            self._written[id(storage)] = (storage, node)
            if id(storage) in self._states:
                self._states[id(storage)].now = node
            keeps = MODE.get().grad or not t._live
            t._node, t._live = (node, node.live) if keeps else (self._rebased(node, t), True)
        else:
            slot = self._state(t)
            slot.now = node
            if slot.read is not None:  # an argument that is this very state sees the write too
                self._written[id(slot.read.storage)] = (slot.read.storage, node)

    def _rebased(self, node: Node, t: Tensor) -> Node:
        """A write under no_grad changes the value of a tensor but not what its gradient is with respect to."""
        alias = self._alias(node, live=True)
        alias.owner = t._node.owner if t._node is not None else None
        return alias

    # --- gradients ----------------------------------------------------------------------------------------------
    def _grad_slot(self, t: Tensor) -> Slot:
        slot = self._grads.get(id(t))
        if slot is None:
            slot = self._grads[id(t)] = Slot(t, None, t, self._names.get(id(t), "tensor"))
        return slot

    def read_grad(self, t: Tensor) -> Tensor | None:
        slot = self._grad_slot(t)
        if slot.now is t:  # not met before; the tensor itself marks that
            before = None if isinstance(t._storage.array, Abstract) else t._grad
            empty, handle = before is None, t
            self.guard(
                ("grad", id(t)),
                f"whether .grad of {slot.name} (shape {t.shape}) is None",
                lambda: (handle._grad is None) == empty,
            )
            slot.now = None
            if before is not None:
                slot.read = self._given(Type(before.shape, before.dtype), "grad", t, f"grad of {slot.name}")
                slot.now = Tensor._handle(slot.read.storage, slot.read, False)
        return slot.now  # type: ignore[no-any-return]

    def write_grad(self, t: Tensor, value: Tensor | None) -> None:
        self._grad_slot(t).now = value

    # --- guards -------------------------------------------------------------------------------------------------
    def guard(self, key: Any, text: str, holds: Callable[[], bool]) -> None:
        """Note that the record depends on ``holds``; the first fact under a key stands."""
        if key not in self.guards:
            self.guards[key] = Guard(text, holds)

    def named(self, t: Tensor, name: str) -> None:
        """Give a state the name it is printed with."""
        self._names.setdefault(id(t), name)

    # --- the end ------------------------------------------------------------------------------------------------
    def finish(self, results: list[Tensor]) -> tuple[Graph, Binding]:
        """Close the trace and build its graph with everything that no output needs left out."""
        outs: list[tuple[Node, str, Any, str]] = [
            (self.lift(t), "result", None, f"result {i}") for i, t in enumerate(results)
        ]
        binding = Binding()
        for slot in {id(s): s for s in self._states.values()}.values():
            if _plain(slot.now) is not slot.read:
                outs.append((slot.now, "write", slot.target, slot.name))
        for slot in self._grads.values():
            self._finish_grad(slot, outs, binding)
        self.open = False
        return self._graph(outs, binding), binding

    def _finish_grad(self, slot: Slot, outs: list[tuple[Node, str, Any, str]], binding: Binding) -> None:
        t: Tensor = slot.target
        abstract = isinstance(t._storage.array, Abstract)
        if abstract and id(t._storage) not in self._arguments:
            return  # the gradient of an intermediate value ends with the trace
        target = self._arguments[id(t._storage)] if abstract else t
        if slot.now is None:
            if slot.read is not None or not abstract:
                binding.cleared.append(t)
        elif slot.now is not t:
            node = self.lift(slot.now)
            if node is not slot.read:
                outs.append((node, "grad", target, f"grad of {slot.name}"))

    def _graph(self, outs: list[tuple[Node, str, Any, str]], binding: Binding) -> Graph:
        needed: set[Node] = set()
        stack = [node for node, *_ in outs]
        while stack:
            node = stack.pop()
            if node not in needed:
                needed.add(node)
                stack.extend(node.inputs)
        numbers: dict[Node, int] = {}
        types: list[Type] = []

        def number(node: Node) -> int:
            numbers[node] = len(types)
            types.append(Type(node.shape, node.dtype))
            return numbers[node]

        inputs = []
        for node, kind, source, name in self._inputs:
            if node in needed or kind == "argument":
                inputs.append(Input(number(node), kind, name))  # type: ignore[arg-type]
                binding.inputs.append(source)
        constants = {number(node): array for node, array in self._constants.items() if node in needed}
        equations = []
        for node in self._nodes:
            if node in needed:
                assert node.prim is not None
                sources = tuple(numbers[n] for n in node.inputs)
                equations.append(Equation(number(node), node.prim, sources, node.params, node.site))
        outputs = []
        for node, kind, target, name in outs:
            outputs.append(Output(numbers[node], kind, name))  # type: ignore[arg-type]
            binding.outputs.append(target)
        return Graph(tuple(types), tuple(inputs), constants, tuple(equations), tuple(outputs))


def _plain(node: Node) -> Node:
    """The node behind aliases."""
    while node.prim is ALIAS:
        node = node.inputs[0]
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


@contextmanager
def unstaged() -> Iterator[None]:
    """Compute for real inside this block, also while staging: for state that is made at its first use."""
    token = MODE.set(MODE.get()._replace(trace=None))
    try:
        yield
    finally:
        MODE.reset(token)



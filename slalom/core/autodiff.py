"""Differentiation: two walks over the same tape, and the functions that users call.

The tape is the graph of Nodes. Reverse mode walks it from the newest node to the oldest with vjp, forward mode from
the oldest to the newest with jvp. Rules are ordinary Tensor operations; with ``create_graph`` they are recorded
themselves, so derivatives nest to any depth and in any order.

Source: B. Pearlmutter and J. Siskind, Reverse-Mode AD in a Functional Framework, 2008, for nested perturbations, which
are kept apart here by giving each differentiated argument an identity of its own.
"""

from __future__ import annotations

import functools
import operator
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from slalom.core import tree
from slalom.core.node import (
    MODE,
    Mode,
    Node,
    Rewritten,
    Watched,
    enable_grad,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
)
from slalom.core.ops.structural import ALIAS
from slalom.core.primitive import Array
from slalom.core.tensor import Tensor, apply, as_tensor, method
from slalom.errors import ConfigError, DTypeError, GradError, ShapeError

__all__ = [
    "enable_grad", "grad", "grad_of", "hessian", "hvp", "is_grad_enabled", "jacobian", "jvp", "no_grad",
    "set_grad_enabled", "value_and_grad", "vjp", "watched",
]  # fmt: skip


# --- the walks ----------------------------------------------------------------------------------------------------
def _reachable(roots: Iterable[Node]) -> set[Node]:
    """The live nodes that ``roots`` were made from, and themselves."""
    seen: set[Node] = set()
    stack = [node for node in roots if node.live]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend([source for source in node.inputs if source.live])
    return seen


def _in_order(nodes: Iterable[Node]) -> list[Node]:
    """Oldest first."""
    return sorted(nodes, key=_TIME)


_TIME = operator.attrgetter("time")


def _dependent(order: list[Node], on: Iterable[Node]) -> set[Node]:
    """Those nodes of ``order`` (oldest first) that were made from one of ``on``, and these themselves.

    A freed node that is new enough may have been: the walk that comes to it then says that it is gone.
    """
    found = set(on)
    oldest = min((node.time for node in found), default=0)
    for node in order:
        if not found.isdisjoint(node.inputs) or (node.freed and node.time > oldest):
            found.add(node)
    return found


class _Buffer:
    """An adjoint summed in place: T slices of one tensor cost one buffer, not T padded copies."""

    __slots__ = ("array",)

    def __init__(self, held: Tensor | None, node: Node) -> None:
        self.array: Array = np.zeros(node.shape, node.dtype) if held is None else held._storage.array.copy()


def _reverse(
    seeds: dict[Node, Tensor], wanted: set[Node] | None, *, create_graph: bool, retain: bool = True
) -> dict[Node, Tensor]:
    """Adjoints of the wanted nodes (None: of all that have an owner) for adjoints of some newer nodes.

    Unless ``retain``, what a node needed is released as soon as it has been walked.
    """
    order = _in_order(_reachable(seeds))
    needed = None if wanted is None else _dependent(order, wanted)
    adjoints: dict[Node, Tensor | _Buffer] = dict(seeds)
    found: dict[Node, Tensor] = {}
    shown: set[_Watch] = set()
    trace = MODE.get().trace
    in_place = not create_graph and trace is None
    token = MODE.set(Mode(create_graph, trace))
    try:
        while order:
            node = order.pop()
            if node.watch is not None:
                node.watch.show(adjoints, shown)
            held = adjoints.pop(node, None)
            if held is not None:
                ct = Tensor._of(held.array) if isinstance(held, _Buffer) else held
                if node.owner is not None if wanted is None else node in wanted:
                    found[node] = ct
                if not node.leaf:
                    _pull_back(node, ct, adjoints, needed, in_place)
            if not retain and not node.leaf:
                node.free(keep_inputs=trace is not None)  # a trace's nodes are the graph
        _part(found, seeds.values())
    finally:
        MODE.reset(token)
    return found


def _part(found: dict[Node, Tensor], seeds: Iterable[Tensor]) -> None:
    """Give each gradient a buffer of its own (copied when one is written), apart from the others' and the seeds'."""
    taken = {id(seed._storage) for seed in seeds}
    for node, ct in found.items():
        if id(ct._storage) in taken:
            found[node] = ct = apply(ALIAS, ct)
        taken.add(id(ct._storage))


def _pull_back(
    node: Node, ct: Tensor, adjoints: dict[Node, Tensor | _Buffer], needed: set[Node] | None, in_place: bool
) -> None:
    """Add this node's share to the adjoints of its inputs."""
    if node.freed:
        raise GradError(
            "backward a second time through the same values, which the first one freed",
            hint="give retain_graph=True to the first backward()",
        )
    prim = node.prim
    assert prim is not None
    kind, params = prim.kind, node.params
    out = Tensor._saved(node, node)
    inputs = [Tensor._saved(source, node) for source in node.inputs]
    wanted = [
        (i, source)
        for i, source in enumerate(node.inputs)
        if source.live and kind.differentiable(i) and (needed is None or source in needed)
    ]
    if in_place and prim.add_into is not None:
        for _, source in wanted:
            held = adjoints.get(source)
            if not isinstance(held, _Buffer):
                held = adjoints[source] = _Buffer(held, source)
            prim.add_into(held.array, ct._storage.array, *[t._storage.array for t in inputs[1:]], **params)
        return
    parts = kind.vjps(prim, [i for i, _ in wanted], ct, out, inputs, params)
    for (_, source), part in zip(wanted, parts, strict=True):
        if part.shape != source.shape:
            part = part.sum_to_size(source.shape)
        held = adjoints.get(source)
        if held is None:
            adjoints[source] = part
        elif isinstance(held, _Buffer):
            held.array += part._storage.array
        else:
            adjoints[source] = held + part


def _forward(seeds: dict[Node, Tensor], outputs: Sequence[Node], *, create_graph: bool) -> list[Tensor | None]:
    """Tangents of ``outputs`` for tangents of some older nodes; None is zero."""
    order = _in_order(_reachable(outputs))
    needed = _dependent(order, seeds)
    tangents: dict[Node, Tensor] = dict(seeds)
    token = MODE.set(Mode(create_graph, MODE.get().trace))
    try:
        for node in order:
            if node in needed and node not in seeds:
                _push_forward(node, tangents)
    finally:
        MODE.reset(token)
    return [tangents.get(node) for node in outputs]


def _push_forward(node: Node, tangents: dict[Node, Tensor]) -> None:
    """Add the tangent of this node, if it has one, from those of its inputs."""
    if node.freed:
        raise GradError("jvp through values that backward() freed", hint="give retain_graph=True to that backward()")
    prim = node.prim
    assert prim is not None
    ts = [tangents.get(source) if prim.kind.differentiable(i) else None for i, source in enumerate(node.inputs)]
    if all(t is None for t in ts):
        return
    inputs = [Tensor._saved(source, node) for source in node.inputs]
    made = prim.kind.jvp(prim, ts, Tensor._saved(node, node), inputs, node.params)
    if made is not None:
        tangents[node] = made if made.shape == node.shape else made.expand(node.shape)


class _Watch:
    """Shows the adjoints of some nodes, made one right after the other, once all of them are known.

    The newest that backward meets stands for all: what could add to the others has been walked by then.
    """

    def __init__(self, seen: Callable[[list[Tensor | None]], Sequence[Tensor | None]]) -> None:
        self.seen = seen
        self.nodes: list[weakref.ref[Node] | None] = []

    def show(self, adjoints: dict[Node, Tensor | _Buffer], shown: set[_Watch]) -> None:
        """Show them, once in a walk."""
        if self in shown:
            return
        shown.add(self)
        nodes = [None if ref is None else ref() for ref in self.nodes]
        held = [None if node is None else adjoints.get(node) for node in nodes]
        cts = [Tensor._of(ct.array) if isinstance(ct, _Buffer) else ct for ct in held]
        for node, ct, now in zip(nodes, cts, self.seen(list(cts)), strict=True):
            if node is not None and now is not None and now is not ct:
                if now.shape != node.shape:
                    raise ShapeError("a gradient that a hook returned", got=now.shape, needed=node.shape)
                adjoints[node] = now


def watched(values: Sequence[Any], seen: Callable[[list[Tensor | None]], Sequence[Tensor | None]]) -> list[Any]:
    """The same values, the tensors that require gradients under new identities whose adjoints are shown to ``seen``.

    It is called during backward when all of them are known, with one for each value (None: there is none), and returns
    what backward goes on with. While staging it is called while recording.
    """
    trace, watch, made = MODE.get().trace, _Watch(seen), []
    for value in values:
        node: Node | None = None
        if isinstance(value, Tensor) and value.requires_grad and MODE.get().grad:
            if trace is not None:
                value = trace.watched(value)
                node = value._node
            else:
                value = apply(ALIAS, value)
                was = value._node
                assert was is not None
                node = value._node = Watched(was.prim, was.inputs, was.params, was.storage, True)
            assert node is not None
            node.watch = watch
        watch.nodes.append(None if node is None else weakref.ref(node))
        made.append(value)
    return made


# --- PyTorch's surface --------------------------------------------------------------------------------------------
@method
def backward(
    self: Tensor, gradient: Tensor | None = None, retain_graph: bool | None = None, create_graph: bool = False
) -> None:
    """Add d self / d leaf to ``.grad`` of every leaf that requires gradients (times ``gradient``; default 1).

    The recorded values are freed unless ``retain_graph`` or ``create_graph``; then a second call is an error.

    Raises: GradError if nothing is recorded, or if a value that is needed was overwritten in place.
    """
    if not self.requires_grad:
        raise GradError(
            "backward() of a tensor that does not require gradients",
            hint="no input has requires_grad=True, it was computed under no_grad(), or it is the result of a compiled "
            "function (call backward inside that)",
        )
    retain = create_graph if retain_graph is None else retain_graph
    found = _reverse(_seeds([self], [gradient]), None, create_graph=create_graph, retain=retain)
    with enable_grad() if create_graph else no_grad():
        for node, ct in found.items():
            owner = node.owner() if node.owner is not None else None
            if owner is not None:
                held = owner.grad
                owner.grad = ct if held is None else held + ct


@method
def retain_grad(self: Tensor) -> None:
    """Keep ``.grad`` of this tensor too at backward, though it is not a leaf."""
    if not self.requires_grad:
        raise GradError("retain_grad() of a tensor that does not require gradients")
    node = _identity(self)
    if node.owner is None:
        node.owner = weakref.ref(self)


@method
def requires_grad_(self: Tensor, requires_grad: bool = True) -> Tensor:
    """Set ``requires_grad`` and return the tensor."""
    self.requires_grad = requires_grad
    return self


def _node(t: Tensor) -> Node:
    trace = MODE.get().trace
    return trace.lift(t) if trace is not None else t._latest()


def _identity(t: Tensor) -> Node:
    """What gradients with respect to ``t`` are with respect to."""
    node = _node(t)
    return node.identity() if isinstance(node, Rewritten) else node


def _seed(out: Tensor, gradient: Tensor | None) -> Tensor:
    if gradient is None:
        if out.shape and out._storage.array.size != 1:
            raise GradError(
                "backward of a tensor that is not a scalar", got=f"shape {out.shape}", hint="give the gradient argument"
            )
        return Tensor._of(np.ones(out.shape, out.dtype))
    gradient = as_tensor(gradient, out)
    if gradient.shape != out.shape:
        raise ShapeError("backward: gradient", got=gradient.shape, needed=out.shape)
    return gradient.to(out.dtype)


def _seeds(outs: Sequence[Tensor], cts: Iterable[Any]) -> dict[Node, Tensor]:
    """The cotangents of live outputs by node; outputs that are one value get their sum."""
    seeds: dict[Node, Tensor] = {}
    for out, ct in zip(outs, cts, strict=True):
        seed = _seed(out, ct)
        if out.requires_grad:
            node = _node(out)
            seeds[node] = seeds[node] + seed if node in seeds else seed
    return seeds


def grad_of(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """Gradients of the sum of ``outputs`` with respect to ``inputs``, as values (``torch.autograd.grad``).

    Raises: GradError if an input was not used and ``allow_unused`` is False.
    """
    outs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    ins = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    cts = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs or [None] * len(outs))
    if len(cts) != len(outs):
        raise ConfigError("grad: grad_outputs", got=f"{len(cts)} for {len(outs)} outputs", needed="one for each output")
    for t in (*outs, *ins):
        if not t.requires_grad:
            raise GradError(f"grad: a tensor of shape {t.shape} that does not require gradients")
    seeds = _seeds(outs, cts)
    wanted = [_identity(t) for t in ins]
    retain = create_graph if retain_graph is None else retain_graph
    found = _reverse(seeds, set(wanted), create_graph=create_graph, retain=retain)
    for t, node in zip(ins, wanted, strict=True):
        if node not in found and not allow_unused:
            raise GradError(
                f"grad: an input of shape {t.shape} was not used to compute the outputs",
                hint="allow_unused=True gives None for it",
            )
    return tuple(found.get(node) for node in wanted)


# --- JAX's surface ------------------------------------------------------------------------------------------------
def _fresh(t: Any) -> Tensor:
    """``t`` under a new identity of its own, through which gradients flow; writing to it leaves ``t`` as it is."""
    t = as_tensor(t)
    if t.dtype.kind != "f":
        raise DTypeError("differentiation", got=f"an argument of dtype {t.dtype.name}", needed="a floating dtype")
    trace = MODE.get().trace
    if trace is not None:
        return trace.fresh(t)
    made = apply(ALIAS, t)
    made._node, made._live = Node(ALIAS, (_node(t),), {}, made._storage, True), True
    return made


class _Call:
    """A function run on fresh identities of the arguments to differentiate, and the tape of that run.

    ``nested``: whether an enclosing derivative, or a leaf outside, follows the run too. Only then are its derivatives
    recorded themselves; otherwise the results are plain values.
    """

    def __init__(
        self, function: Callable[..., Any], args: Sequence[Any], argnums: Iterable[int], kwargs: dict[str, Any]
    ) -> None:
        given = list(args)
        for i in argnums:
            given[i] = tree.map(_fresh, given[i], also_numbers=True)
        self.inputs = [given[i] for i in argnums]
        self.leaves: list[Tensor] = tree.leaves(self.inputs)
        self.nodes = [_node(t) for t in self.leaves]  # before the function can write into its arguments
        recording = MODE.get().grad
        with enable_grad():
            self.out = function(*given, **kwargs)
        self.nested = recording and self._followed()

    def _followed(self) -> bool:
        """Whether the tape begins anywhere else than at the arguments' own identities."""
        own = set(self.nodes)
        tape = _reachable(_node(t) for t in tree.leaves(self.out) if t.requires_grad)
        return any(node not in own and not any(source.live for source in node.inputs) for node in tape)

    def settle(self, values: Any) -> Any:
        """Results as values without the history of this run, where nobody outside follows it."""
        return values if self.nested else tree.map(lambda t: t.detach() if t.requires_grad else t, values)

    def pull(self, outputs: Any, cotangents: Any) -> Any:
        """Cotangents of the arguments; zero where one was not used. No cotangents mean 1."""
        outs = tree.leaves(outputs)
        cts = [None] * len(outs) if cotangents is None else tree.matched(cotangents, outputs, "vjp: cotangents")
        nested = self.nested or (MODE.get().grad and any(isinstance(ct, Tensor) and ct.requires_grad for ct in cts))
        with enable_grad() if nested else no_grad():
            found = _reverse(_seeds(outs, cts), set(self.nodes), create_graph=nested)
            parts = iter([found[n] if n in found else t._zeros() for t, n in zip(self.leaves, self.nodes, strict=True)])
        return tree.map(lambda _: next(parts), self.inputs)

    def push(self, tangents: Any) -> Any:
        """The tangents of the outputs for tangents of the arguments."""
        given = tree.matched(tangents, self.inputs, "jvp: tangents")
        nested = self.nested or (MODE.get().grad and any(isinstance(t, Tensor) and t.requires_grad for t in given))
        seeds: dict[Node, Tensor] = {}
        with enable_grad() if nested else no_grad():
            for t, node, tangent in zip(self.leaves, self.nodes, given, strict=True):
                value = as_tensor(tangent, t)
                if value.shape != t.shape:
                    raise ShapeError("jvp: tangent", got=value.shape, needed=t.shape)
                seeds[node] = value.to(t.dtype)
            moved = iter(_forward(seeds, [_node(t) for t in tree.leaves(self.out)], create_graph=nested))

        def tangent_of(t: Tensor) -> Tensor:
            made = next(moved)
            return t._zeros() if made is None else made

        return tree.map(tangent_of, self.out)


def _argnums(argnums: int | Sequence[int], count: int) -> list[int]:
    """The numbers of the arguments to differentiate, from 0."""
    numbers = [argnums] if isinstance(argnums, int) else list(argnums)
    for i in numbers:
        if not -count <= i < count:
            raise ConfigError("argnums", got=i, needed=f"the number of one of {count} positional arguments")
    return [i % count for i in numbers]


def value_and_grad(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """A function that returns ``(function(*args), gradient)``; the value must be a scalar.

    ``argnums``: which arguments to differentiate; each may be a tensor, a number, or a list, tuple or dict of them.
    ``has_aux``: the function returns ``(value, anything else)``.

    Raises: GradError when the value is not a scalar; DTypeError for integer arguments or values.

    >>> value_and_grad(lambda x: x * x)(3.0)
    (tensor(9.), tensor(6.))
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        call = _Call(function, args, _argnums(argnums, len(args)), kwargs)
        value = _scalar(call.out[0] if has_aux else call.out)
        grads = call.pull([value], None)
        out = (value, call.out[1]) if has_aux else value
        return call.settle(out), grads[0] if isinstance(argnums, int) else tuple(grads)

    return run


def _scalar(value: Any) -> Tensor:
    if isinstance(value, (int, float)):
        value = as_tensor(value)
    if not isinstance(value, Tensor) or value.shape != ():
        got = f"shape {value.shape}" if isinstance(value, Tensor) else type(value).__name__
        raise GradError("grad: the function's value", got=got, needed="a scalar tensor", hint="use jacobian or vjp")
    if value.dtype.kind != "f":
        raise DTypeError("grad: the function's value", got=value.dtype.name, needed="a floating dtype")
    return value


def grad(function: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that returns the gradient of a scalar-valued function (see ``value_and_grad``).

    >>> grad(grad(lambda x: x ** 3))(2.0)
    tensor(12.)
    """
    both = value_and_grad(function, argnums, has_aux)

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        out, answer = both(*args, **kwargs)
        return (answer, out[1]) if has_aux else answer

    return run


def vjp(function: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., tuple[Any, ...]]]:
    """``(function(*primals), pullback)``: pullback(ct) gives ctᵀ·J as a tuple, one entry a primal; reverse mode."""
    call = _Call(function, primals, range(len(primals)), {})

    def pullback(cotangent: Any) -> tuple[Any, ...]:
        return tuple(call.pull(call.out, cotangent))

    return call.settle(call.out), pullback


def jvp(function: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """``(function(*primals), J·tangents)``; forward mode: one walk along the tape, oldest node first."""
    call = _Call(function, primals, range(len(primals)), {})
    moved = call.push(list(tangents))
    return call.settle(call.out), moved


def jacobian(function: Callable[[Any], Tensor], mode: str = "reverse") -> Callable[[Any], Tensor]:
    """A function that returns the matrix of derivatives, of shape (*output shape, *input shape).

    ``mode``: "reverse" takes one walk per output element, "forward" one per input element.
    """
    if mode not in ("reverse", "forward"):
        raise ConfigError("jacobian: mode", got=mode, needed="'reverse' or 'forward'")

    @functools.wraps(function)
    def run(x: Any) -> Tensor:
        call = _Call(function, [as_tensor(x)], [0], {})
        (given,), out = call.inputs, call.out
        if not isinstance(out, Tensor) or out.dtype.kind != "f":
            got = out.dtype.name if isinstance(out, Tensor) else type(out).__name__
            raise DTypeError("jacobian: the function's value", got=got, needed="one tensor of a floating dtype")
        if mode == "reverse":
            rows = [call.pull(out, unit)[0] for unit in _basis(out)]
        else:
            rows = [call.push([unit]) for unit in _basis(given)]
        if not rows:
            return Tensor._of(np.zeros((*out.shape, *given.shape), out.dtype))
        first, *rest = (row.reshape((1, *row.shape)) for row in rows)
        table: Tensor = first._concatenate(rest, 0) if rest else first
        if mode == "forward":
            table = table.permute((*range(1, table.ndim), 0))
        return table.reshape((*out.shape, *given.shape))

    return run


def _basis(t: Tensor) -> Iterator[Tensor]:
    """The unit tensors of t's shape, in row-major order."""
    count = t._storage.array.size
    for k in range(count):
        unit = np.zeros(count, t.dtype)
        unit[k] = 1
        yield Tensor._of(unit.reshape(t.shape))


def hessian(function: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    """A function that returns the second derivatives of a scalar-valued function: forward over reverse."""
    return jacobian(grad(function), mode="forward")


def hvp(function: Callable[..., Tensor], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """``(gradient, Hessian·v)`` of a scalar-valued function, without the Hessian: forward over reverse."""
    numbers = tuple(range(len(primals)))
    return jvp(grad(function, numbers), primals, tangents)

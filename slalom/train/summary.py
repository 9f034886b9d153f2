"""What a model is made of: each layer's output, parameters, operations and memory, counted without computing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from slalom.core.dtype import get_default_dtype
from slalom.core.graph import Type
from slalom.core.node import MODE, Mode, Node
from slalom.core.ops import reductions, structural
from slalom.core.shape import size
from slalom.core.tensor import Tensor
from slalom.core.trace import Trace
from slalom.core.tree import leaves
from slalom.errors import ConfigError, DTypeError
from slalom.nn.module import Module

__all__ = ["LayerSummary", "Summary", "summary"]

_MOVES = frozenset({structural.CAST, reductions.GATHER})
"""Primitives that compute nothing, besides those with an index map."""


@dataclass
class LayerSummary:
    """One module, with all that is below it.

    ``path``: its name in the model, "" for the model itself · ``kind``: its class · ``outputs``: shapes of what it
    returned last · ``calls``: how often it was called · ``parameters``: how many numbers, of which ``learned`` require
    gradients · ``operations``: of all its calls, elementary ones (a multiplication and its addition are two) ·
    ``memory``: bytes of its parameters and buffers · ``results``: bytes of what it returned.
    """

    path: str
    kind: str
    parameters: int
    learned: int
    memory: int
    outputs: tuple[tuple[int, ...], ...] = ()
    calls: int = 0
    operations: int = 0
    results: int = 0


@dataclass
class Summary:
    """A table of all modules, the model itself first; prints as one.

    The fields of the first row are those of the summary too: ``parameters``, ``learned``, ``operations``, ``memory``.
    ``activations``: bytes of what all layers without layers inside return, about what a training step keeps.
    """

    rows: list[LayerSummary] = field(default_factory=list)
    activations: int = 0

    parameters = property(lambda self: self.rows[0].parameters, doc="How many numbers the parameters hold.")
    learned = property(lambda self: self.rows[0].learned, doc="How many of them require gradients.")
    operations = property(lambda self: self.rows[0].operations, doc="Elementary operations of one call.")
    memory = property(lambda self: self.rows[0].memory, doc="Bytes of parameters and buffers.")

    def __str__(self) -> str:
        lines = [("layer", "output", "parameters", "operations")]
        for row in self.rows:
            depth = row.path.count(".") + 1 if row.path else 0
            name = row.path.rpartition(".")[2]
            label = f"{'  ' * depth}{name}: {row.kind}" if name else row.kind
            shapes = " ".join("×".join(map(str, shape)) or "scalar" for shape in row.outputs) if row.calls else "–"
            times = f" ({row.calls} calls)" if row.calls > 1 else ""
            lines.append((label, shapes + times, f"{row.parameters:,}", f"{row.operations:,}"))
        wide = [max(len(line[i]) for line in lines) for i in range(4)]
        text = [f"{a:<{wide[0]}}  {b:<{wide[1]}}  {c:>{wide[2]}}  {d:>{wide[3]}}" for a, b, c, d in lines]
        rule = "─" * (sum(wide) + 6)
        fixed = self.parameters - self.learned
        parts = [f"{self.parameters:,} parameters" + (f", {fixed:,} of them frozen" if fixed else "")]
        parts += [f"{_bytes(self.memory)} with buffers", f"{self.operations:,} operations a call"]
        parts.append(f"{_bytes(self.activations)} of results")
        return "\n".join([text[0], rule, *text[1:], rule, " · ".join(parts)])

    __repr__ = __str__


def summary(model: Module, *inputs: Any) -> Summary:
    """What each layer of a model gives, holds and costs, for inputs of given shapes.

    Nothing is computed: the model's call, in evaluation mode, is recorded as by ``slalom.compile``, and counted; its
    states and modes are as before. Each input is a shape of floats, batch included, or a tensor or array like it.

    Raises: ConfigError without inputs; the model's own errors, such as a ShapeError that names the layer.
    Note: a row counts all that is below it; operations count what is written, before the compiler simplifies it.

    >>> from slalom import nn
    >>> summary(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1)), (32, 8)).operations
    10272
    """
    if not isinstance(model, Module):
        raise DTypeError("summary: model", got=type(model).__name__, needed="a Module")
    if not inputs:
        raise ConfigError("summary: inputs", got="none", needed="a shape or tensor for each argument of the model")
    made = Summary([_held(path, module) for path, module in model.named_modules()])
    types = [_type_of(given, model) for given in inputs]
    trace = Trace()
    with _evaluating(model), _counting(model, made, trace):
        token = MODE.set(Mode(False, trace))
        try:
            model(*[trace.awaited(i, of, f"input {i}") for i, of in enumerate(types)])
        finally:
            MODE.reset(token)
            trace.close()
    return made


def _type_of(given: Any, model: Module) -> Type:
    if isinstance(given, (tuple, list)) and all(isinstance(n, int) and not isinstance(n, bool) for n in given):
        floats = (p.dtype for p in model.parameters() if p.dtype.kind == "f")
        return Type(tuple(given), next(floats, get_default_dtype()))
    if hasattr(given, "shape") and hasattr(given, "dtype"):
        like = given if isinstance(given, Tensor) else Tensor(given)
        return Type(like.shape, like.dtype)
    raise DTypeError("summary: input", got=type(given).__name__, needed="a shape, a tensor or an array")


def _held(path: str, module: Module) -> LayerSummary:
    parameters, buffers = list(module.parameters()), list(module.buffers())
    return LayerSummary(
        path,
        type(module).__name__,
        sum(p.numel() for p in parameters),
        sum(p.numel() for p in parameters if p.requires_grad),
        sum(t.nbytes for t in (*parameters, *buffers)),
    )


# --- counting -----------------------------------------------------------------------------------------------------
@contextmanager
def _evaluating(model: Module) -> Iterator[None]:
    """In evaluation mode; then as before."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


@contextmanager
def _counting(model: Module, made: Summary, trace: Trace) -> Iterator[None]:
    """Count at the end of each module's call what was recorded since it began."""
    began: list[int] = []

    def before(module: Module, args: Any) -> None:
        began.append(len(trace.nodes))

    def after(row: LayerSummary) -> Callable[..., None]:
        def hook(module: Module, args: Any, out: Any) -> None:
            tensors = leaves(out)
            row.calls += 1
            row.operations += sum(map(_operations, trace.nodes[began.pop() :]))
            row.outputs = tuple(t.shape for t in tensors)
            row.results += sum(t.nbytes for t in tensors)
            if not any(True for _ in module.children()):
                made.activations += sum(t.nbytes for t in tensors)

        return hook

    handles = []
    for row, module in zip(made.rows, model.modules(), strict=True):
        handles.append(module.register_forward_pre_hook(before))
        handles.append(module.register_forward_hook(after(row)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _operations(node: Node) -> int:
    """Elementary operations: none for what moves values, one for each that is computed or summed."""
    prim = node.prim
    if prim is None or prim.index is not None or prim in _MOVES:
        return 0
    if prim is reductions.MATMUL:
        return 2 * size(node.shape) * node.inputs[0].shape[-1]
    return max(size(node.shape), *(size(source.shape) for source in node.inputs))


def _bytes(count: int) -> str:
    unit = min(int(math.log(max(count, 1), 1000)), 3)
    return f"{count / 1000**unit:.3g} {('B', 'kB', 'MB', 'GB')[unit]}"

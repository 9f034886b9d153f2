"""A recorded call with its backward, cut into two graphs.

Backward computes what depends on the cotangents, and what it alone needs. It takes the rest from forward: an input or
an output is read again, another value is kept, and one that only looks at another in a new way is made anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from slalom.core.graph import Graph, Input, Output
from slalom.core.ops.structural import ALIAS

__all__ = ["Halves", "Source", "cut"]


class Source(NamedTuple):
    """What an input of backward is: the whole graph's input or output of that number, or that one of the kept."""

    kind: Literal["input", "output", "kept"]
    number: int


class Halves(NamedTuple):
    """``forward``: the whole graph's inputs but the cotangents; its outputs but the gradients, then what is kept.

    ``backward``: inputs from ``sources``; the gradients. ``viewed``: the whole graph's inputs of which backward needs
    no more than views that forward has made.
    """

    forward: Graph
    backward: Graph
    sources: tuple[Source, ...]
    viewed: frozenset[int]

    def gradients_of(self, cotangent: int) -> set[int]:
        """The gradients, by number, that depend on an input of the whole graph."""
        at = self.sources.index(Source("input", cotangent)) if Source("input", cotangent) in self.sources else None
        reached = set() if at is None else {self.backward.inputs[at].value}
        for eq in self.backward.equations:
            if not reached.isdisjoint(eq.inputs):
                reached.add(eq.out)
        return {i for i, output in enumerate(self.backward.outputs) if output.value in reached}


def cut(graph: Graph, cotangents: set[int], gradients: range, lasting: set[int]) -> Halves:
    """Part backward from forward.

    cotangents: the inputs that are known after forward only · gradients: the outputs that backward gives · lasting:
    the inputs that forward leaves as they are. All by their numbers.
    """
    early = [output for i, output in enumerate(graph.outputs) if i not in gradients]
    forward = _needed(graph, [output.value for output in early])
    sources = _lasting(graph, gradients, lasting | cotangents)
    kept: list[int] = []
    taken: dict[int, Source] = {}
    backward: set[int] = set()
    stack = [graph.outputs[i].value for i in gradients]
    while stack:
        value = stack.pop()
        if value in taken or value in backward or value in graph.constants:
            continue
        eq = graph.made.get(value)
        if value in sources:
            taken[value] = sources[value]
        elif eq is not None and (value not in forward or eq.prim.view):
            backward.add(value)
            stack.extend(eq.inputs)
        else:
            taken[value] = Source("kept", len(kept))
            kept.append(value)
    return Halves(
        graph.part(
            [place for i, place in enumerate(graph.inputs) if i not in cotangents],
            forward,
            [*early, *(Output(value, "result", f"kept {i}") for i, value in enumerate(kept))],
        ),
        graph.part(
            [Input(value, "argument", f"{source.kind} {source.number}") for value, source in taken.items()],
            backward,
            [graph.outputs[i] for i in gradients],
        ),
        tuple(taken.values()),
        frozenset(
            [at.number for value, at in taken.items() if at.kind == "input" and _is_viewed(graph, value, forward)]
        ),
    )


def _is_viewed(graph: Graph, value: int, forward: set[int]) -> bool:
    """Whether what is not in forward reads a value through forward's views of it alone."""
    same = {value}
    for eq in graph.equations:
        if eq.prim is ALIAS and eq.inputs[0] in same:
            same.add(eq.out)
        elif eq.out not in forward and not same.isdisjoint(eq.inputs):
            return False
    return True


def _lasting(graph: Graph, gradients: range, inputs: Iterable[int]) -> dict[int, Source]:
    """The values that are there for backward anyway."""
    found: dict[int, Source] = {}
    for i, output in enumerate(graph.outputs):
        if i not in gradients and output.kind == "result":
            found[output.value] = Source("output", i)
    for eq in reversed(graph.equations):
        if eq.prim is ALIAS and eq.out in found:
            found.setdefault(eq.inputs[0], found[eq.out])
    return found | {graph.inputs[i].value: Source("input", i) for i in inputs}


def _needed(graph: Graph, values: list[int]) -> set[int]:
    """The values that some are computed from, and themselves."""
    found, stack = set[int](), list(values)
    while stack:
        value = stack.pop()
        if value not in found:
            found.add(value)
            if value in graph.made:
                stack.extend(graph.made[value].inputs)
    return found

"""A recorded call and its backward, cut into two graphs."""

from __future__ import annotations

from typing import Any

import numpy as np

import slalom
from slalom import nn, tensor
from slalom.compiler.executor import NumpyExecutor
from slalom.compiler.halves import cut

X = tensor(np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32))


def recorded() -> Any:
    """The record of a call of a module with state, noise and two products."""
    layers = (nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, 2))
    model = slalom.compile(nn.Sequential(*layers))
    model(X).sum().backward()
    return next(iter(model._compiled_call._entries.values()))[0]


def test_the_second_half_computes_nothing_twice_but_views() -> None:
    record = recorded()
    graph, call = record.graph, record.call
    forward, backward = call._forward.graph, call._backward.graph
    both = [eq.prim.name for eq in (*forward.equations, *backward.equations) if not eq.prim.view]
    assert sorted(both) == sorted(eq.prim.name for eq in graph.equations if not eq.prim.view)
    assert "random_bits" not in {eq.prim.name for eq in backward.equations}
    assert len([eq for eq in forward.equations if eq.prim.name == "matmul"]) == 2
    assert len([eq for eq in backward.equations if eq.prim.name == "matmul"]) == 3  # the data get no gradient


def test_a_cut_graph_computes_what_the_whole_one_does() -> None:
    record = recorded()
    graph = record.graph
    cotangents = {i for i, place in enumerate(graph.inputs) if place.name.startswith("cotangent")}
    gradients = range(1, sum(output.kind == "result" for output in graph.outputs))
    states = {i for i, place in enumerate(graph.inputs) if place.kind == "state"} - set(record.targets.values())
    rng = np.random.default_rng(1)
    inputs = [
        np.asarray(rng.integers(1, 5, graph.types[i.value].shape), graph.types[i.value].dtype) for i in graph.inputs
    ]
    whole = NumpyExecutor(graph)(inputs)
    for lasting in (states | {0}, states, set()):
        halves = cut(graph, cotangents, gradients, lasting)
        made = NumpyExecutor(halves.forward)([a for i, a in enumerate(inputs) if i not in cotangents])
        early = len(graph.outputs) - len(gradients)
        of = {"input": inputs, "output": [made[0]], "kept": made[early:]}
        found = NumpyExecutor(halves.backward)([of[source.kind][source.number] for source in halves.sources])
        expected = [a for i, a in enumerate(whole) if i not in gradients]
        for ours, theirs in zip([*made[:early], *found], [*expected, *(whole[i] for i in gradients)], strict=True):
            np.testing.assert_array_equal(ours, theirs)
        read = {source.number for source in halves.sources if source.kind == "input"}
        assert read - cotangents <= lasting and cotangents <= read

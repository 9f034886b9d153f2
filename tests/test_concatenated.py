"""Concatenations: their pieces are computed where they belong, and nobody sees a difference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from executors import compare

from slalom.compiler.program import Program
from tests.table_simplify import Maker

Case = Callable[[Maker], tuple[int, ...]]


def gates(m: Maker) -> tuple[int, ...]:
    """Sums of products, elementwise work and a row of sums, side by side."""
    x, w = m.arg(5, 17), m.arg(17, 24)
    y = m.matmul(x, w)
    return (m.concatenate(m.tanh(y), m.exp(x), m.sum(m.tanh(y), axes=(1,), keepdims=True), axis=1),)


def turned(m: Maker) -> tuple[int, ...]:
    """Heads of attention: what is put side by side is the transpose of what was computed."""
    pieces = []
    for _ in range(3):
        product = m.matmul(m.arg(2, 3, 7, 5), m.arg(2, 3, 5, 4))
        pieces.append(m.reshape(m.transpose(product, axes=(0, 2, 1, 3)), shape=(2, 7, 12)))
    return (m.matmul(m.concatenate(*pieces, axis=2), m.arg(36, 9)),)


def across(m: Maker) -> tuple[int, ...]:
    """A piece whose own rows are columns of the whole."""
    y = m.tanh(m.matmul(m.arg(6, 5), m.arg(5, 20)))
    return (m.concatenate(m.arg(20, 3), m.transpose(y, axes=(1, 0)), axis=1),)


def nested(m: Maker) -> tuple[int, ...]:
    """Pieces of pieces, as the gates of all time steps are."""
    x, steps = m.arg(4, 8), []
    for _ in range(5):
        x = m.tanh(m.matmul(x, m.arg(8, 8)))
        steps.append(m.concatenate(m.exp(x), m.sin(x), m.mul(x, x), axis=1))
    whole = m.concatenate(*steps, axis=0)
    return m.matmul(m.transpose(whole, axes=(1, 0)), m.arg(20, 6)), m.sum(whole, axes=(0,), keepdims=False), x


def shared(m: Maker) -> tuple[int, ...]:
    """A piece of two wholes, twice in one of them, sorted and handed out as well."""
    x, y = m.exp(m.arg(9)), m.sin(m.arg(9))
    first, second = m.concatenate(x, y, x, axis=0), m.concatenate(y, m.arg(2), x, axis=0)
    return first, m.tanh(second), m.argsort(y, axis=0, descending=False), x


def batched(m: Maker) -> tuple[int, ...]:
    """A piece that a product reads as a batch, by one step from head to head and another from example to example."""
    y = m.tanh(m.arg(2, 3, 4, 5))
    return m.concatenate(y, m.arg(2, 2, 4, 5), axis=1), m.matmul(y, m.arg(2, 3, 5, 6))


def read_as_rows(m: Maker) -> tuple[int, ...]:
    """A value that a product reads as one matrix: in the whole its rows would not follow each other evenly."""
    x = m.tanh(m.arg(4, 8, 16))
    return m.matmul(m.reshape(x, shape=(32, 16)), m.arg(16, 5)), m.concatenate(x, m.arg(4, 3, 16), axis=1)


def heads(m: Maker) -> tuple[int, ...]:
    """Attention: what its heads make is put side by side, which no concatenation says, but a transpose."""
    shares, values = m.exp(m.arg(2, 3, 7, 5)), m.arg(2, 3, 5, 16)
    y = m.reshape(m.transpose(m.matmul(shares, values), axes=(0, 2, 1, 3)), shape=(2, 7, 48))
    return (m.matmul(y, m.arg(48, 9)),)


def narrow_heads(m: Maker) -> tuple[int, ...]:
    """Heads so narrow that vectors of several of them are better copied."""
    y = m.reshape(m.transpose(m.exp(m.arg(2, 3, 7, 4)), axes=(0, 2, 1, 3)), shape=(2, 7, 12))
    return (m.matmul(y, m.arg(12, 9)),)


def single(m: Maker) -> tuple[int, ...]:
    """Products of one column and of one row, beside inputs."""
    column, row = m.matmul(m.arg(5, 7), m.arg(7, 1)), m.matmul(m.arg(1, 6), m.arg(6, 5))
    flat = m.reshape(column, shape=(1, 5))
    return m.concatenate(m.arg(5, 3), column, axis=1), m.concatenate(m.tanh(flat), row, m.arg(1, 5), axis=0)


def alone(m: Maker) -> tuple[int, ...]:
    """A softmax over a batch of one, whose piece does not know the axes of one element."""
    scores = m.exp(m.arg(1, 1, 1, 2))
    shares = m.div(scores, m.sum(scores, axes=(3,), keepdims=True))
    return m.concatenate(m.arg(4), m.reshape(m.add(shares, m.arg()), shape=(2,)), axis=0), shares


def wide(m: Maker) -> tuple[int, ...]:
    """Rows of a power of two of bytes, between which the whole keeps gaps."""
    y = m.matmul(m.arg(16, 12), m.arg(12, 64))
    whole = m.concatenate(y, m.neg(m.exp(y)), axis=1)
    return m.matmul(m.transpose(whole, axes=(1, 0)), m.arg(16, 8)), m.sum(whole, axes=(1,), keepdims=False)


CASES: list[tuple[Case, int]] = [
    (gates, 2), (turned, 3), (across, 0), (nested, 15), (shared, 2), (batched, 1), (read_as_rows, 0),
    (heads, 1), (narrow_heads, 0), (single, 2), (alone, 1), (wide, 2),
]  # fmt: skip
"""Each with how many pieces at least are made in place, by the kernel that computes them."""


@pytest.mark.parametrize(("case", "in_place"), CASES, ids=lambda case: getattr(case, "__name__", None))
def test_pieces_are_made_where_they_belong(case: Case, in_place: int) -> None:
    m = Maker()
    graph = m.graph(*case(m))
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(graph.types[i.value].shape).astype("f4") for i in graph.inputs]
    program = compare(graph, arrays)
    schedule = program.kernels
    computed = [v for v in schedule.parts if schedule.graph.made[v].prim.name not in ("alias", "concatenate")]
    assert len(computed) >= in_place
    places = program.memory.places
    assert all(places[value] == places[schedule.holder(value)] for value in schedule.parts)


def test_a_concatenation_of_many_pieces_costs_no_cases() -> None:
    m = Maker()
    pieces = [m.tanh(m.arg(3, 4)) for _ in range(40)]
    program = Program(m.graph(m.exp(m.concatenate(*pieces, axis=0))))
    assert " else " not in str(program.kernels)
    assert len({call.kernel.space for call in program.lowered.calls if call.kernel}) == 2

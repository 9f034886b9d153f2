"""Long sums in blocks: which are cut, into what, and that the sum stays the same up to rounding."""

from __future__ import annotations

import numpy as np
import pytest
from table_simplify import Maker

from slalom.compiler.executor import NumpyExecutor
from slalom.compiler.split import split
from slalom.core.graph import Graph


def columns(m: Maker) -> int:
    return m.sum(m.arg(10_000, 3), axes=(0,), keepdims=False)


def columns_kept(m: Maker) -> int:
    return m.sum(m.arg(2048, 3), axes=(0,), keepdims=True)


def gradient(m: Maker) -> int:
    return m.matmul(m.transpose(m.arg(10_000, 4), axes=(1, 0)), m.arg(10_000, 5))


def checked(m: Maker) -> int:
    return m.sum(m.matmul(m.arg(64, 8), m.arg(8, 70)), axes=(0, 1), keepdims=False)


def checked_kept(m: Maker) -> int:
    return m.sum(m.matmul(m.arg(96, 8), m.arg(8, 70)), axes=(0, 1), keepdims=True)


def vector(m: Maker) -> int:
    return m.sum(m.arg(100_000), axes=(0,), keepdims=False)


CUT = [
    # what is written, the shapes of the sums that are left
    (columns, [(10, 3), (3,)]),
    (columns_kept, [(2, 3), (1, 3)]),
    (gradient, [(4, 5)]),
    (vector, [(100,), ()]),
    (checked, [(16,), ()]),
    (checked_kept, [(16,), ()]),
]


def few_rows(m: Maker) -> int:
    return m.sum(m.arg(2047, 3), axes=(0,), keepdims=False)


def prime(m: Maker) -> int:
    return m.sum(m.arg(10_007, 3), axes=(0,), keepdims=False)


def whole_numbers(m: Maker) -> int:
    return m.sum(m.arg(10_000, 3, dtype="i4"), axes=(0,), keepdims=False)


def large_product(m: Maker) -> int:
    return m.matmul(m.transpose(m.arg(10_000, 200), axes=(1, 0)), m.arg(10_000, 100))


def a_loss(m: Maker) -> int:
    """The sum of a batch's losses: how it is made must not depend on the size of the last batch."""
    return m.sum(m.arg(128, 64), axes=(0, 1), keepdims=False)


WHOLE = [few_rows, prime, whole_numbers, large_product, a_loss]


def made(write: object) -> Graph:
    m = Maker()
    return m.graph(write(m))  # type: ignore[operator]


@pytest.mark.parametrize(("write", "sums"), CUT, ids=lambda row: getattr(row, "__name__", ""))
def test_what_is_cut(write: object, sums: list[tuple[int, ...]]) -> None:
    graph = made(write)
    found = split(graph).check()
    assert [found.types[eq.out].shape for eq in found.equations if eq.prim.name == "sum"] == sums
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(graph.types[i.value].shape).astype("f4") for i in graph.inputs]
    (expected,), (result,) = NumpyExecutor(graph)(inputs), NumpyExecutor(found)(inputs)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("write", WHOLE)
def test_what_stays_whole(write: object) -> None:
    graph = made(write)
    assert [eq.prim.name for eq in split(graph).equations] == [eq.prim.name for eq in graph.equations]

"""Which loops kernels have: those that make indices plain sums, in the order that suits memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from executors import compare

from slalom.compiler.arrange import along, arrange
from slalom.compiler.index import Expr, axes_of, axis, ravel, substituted, unravel
from tests.table_simplify import Maker


def loops(space: tuple[int, ...], reduced: set[int], *exprs: Expr) -> tuple[list[int], list[int]]:
    """The extents of the loops over what is kept and what is reduced."""
    found = arrange(space, frozenset(reduced), exprs)
    assert [substituted(e, found.axes) for e in found.axes] == found.axes, "what is over loops already stays so"
    return [found.extents[i] for i in found.kept], [found.extents[i] for i in found.reduced]


def test_neighbours_that_are_walked_as_one_become_one() -> None:
    space = (4, 5, 6)
    assert loops(space, set(), ravel(axes_of(space), space)) == ([120], [])
    assert loops(space, {2}, ravel(axes_of(space), space)) == ([20], [6])
    turned = ravel(axes_of(space)[::-1], space[::-1])
    assert loops(space, set(), ravel(axes_of(space), space), turned) == ([4, 5, 6], [])


def test_axes_of_one_element_are_no_loops() -> None:
    space = (1, 7, 1, 9, 1)
    assert loops(space, set(), ravel(axes_of(space), space)) == ([63], [])
    assert loops(space, {2, 3}, ravel(axes_of(space), space)) == ([7], [9])
    assert loops((1, 1), {0}, axis(0, 1)) == ([1], [1])  # somebody has to go round once


def test_a_loop_is_cut_where_indices_divide_it() -> None:
    group, place = axis(1, 4096), unravel(axis(1, 4096), (4, 32, 32))
    image = ravel((axis(0, 16), *place), (16, 4, 32, 32))
    assert loops((16, 4096), {1}, image, group.quotient(1024)) == ([16], [4, 1024])
    assert loops((16, 4096), {1}, image) == ([16], [4096])  # the parts are one loop again


def test_a_short_remainder_is_not_worth_a_loop() -> None:
    whole = axis(0, 4096)
    assert loops((4096,), set(), whole, whole.quotient(8), whole.remainder(8)) == ([4096], [])


def test_lanes_run_along_what_is_long_and_contiguous() -> None:
    extents = {0: 64, 1: 64}
    stored, read = axis(0, 64).times(64).plus(axis(1, 64)), axis(1, 64).times(64).plus(axis(0, 64))
    assert along([0, 1], extents, [stored]) == ([0, 1], 1)
    assert along([0, 1], extents, [stored, read]) == ([1, 0], 1)
    windows = {0: 32, 1: 3}
    stored, read = axis(0, 32).times(3).plus(axis(1, 3)), axis(1, 3).times(32).plus(axis(0, 32))
    assert along([0, 1], windows, [stored, read]) == ([0, 1], 0)
    assert along([0, 1], windows, [stored]) == ([0, 1], 1)


# --- and what they compute ----------------------------------------------------------------------------------------
def groups(m: Maker, n: int) -> int:
    """Means over groups of channels, and what they are taken from."""
    x, scale = m.arg(3, 6, n, 5), m.arg(6, 1, 1)
    grouped = m.reshape(x, shape=(3, 2, 3 * n * 5))
    centred = m.sub(grouped, m.sum(grouped, axes=(2,), keepdims=True))
    return m.sum(m.mul(m.reshape(centred, shape=(3, 6, n, 5)), scale), axes=(0, 2, 3), keepdims=False)


def turned(m: Maker, n: int) -> int:
    return m.exp(m.add(m.transpose(m.arg(n, 3, 18), axes=(2, 1, 0)), m.arg(18, 3, n)))


def windows(m: Maker, n: int) -> int:
    """Sums and maxima over windows of an image."""
    seen = m.windows(m.arg(2, n, 21), size=(3, 2), stride=(2, 1), dilation=(1, 1))
    return m.add(m.sum(seen, axes=(3, 4), keepdims=False), m.amax(seen, axes=(3, 4), keepdims=False))


def spread(m: Maker, n: int) -> int:
    """A result whose last axis is short, from rows that lie along another."""
    return m.neg(m.transpose(m.arg(2, 3, n), axes=(0, 2, 1)))


def ones(m: Maker, n: int) -> int:
    return m.exp(m.transpose(m.arg(1, n, 1, 3, 1), axes=(2, 3, 0, 1, 4)))


@pytest.mark.parametrize("case", [groups, turned, windows, spread, ones], ids=lambda case: case.__name__)
def test_the_result_does_not_depend_on_the_loops(case: Callable[[Maker, int], int]) -> None:
    rng = np.random.default_rng(0)
    for n in (3, 16, 17, 37, 64):
        m = Maker()
        graph = m.graph(case(m, n))
        compare(graph, [rng.standard_normal(graph.types[i.value].shape).astype("f4") for i in graph.inputs])

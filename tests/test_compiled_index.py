"""Views as index expressions: exact where they go below zero, and of bounded size, however deep views are stacked."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import slalom
from slalom import Tensor
from slalom.compiler.index import (
    Axis,
    Condition,
    Element,
    Expr,
    Quotient,
    Remainder,
    axes_of,
    axis,
    cases,
    nested,
    ravel,
    settled,
    unravel,
)
from slalom.compiler.native import native
from slalom.compiler.nodes import matched, walk
from slalom.compiler.schedule import CASES
from slalom.core.ops.structural import CONCATENATE, PAD
from slalom.core.shape import size

NATIVE_BITS = True
native_only = pytest.mark.skipif(not native(), reason="no native code here")


# --- quotients and remainders -----------------------------------------------------------------------------------------
def value(expr: Expr, at: tuple[int, ...]) -> int:
    """An expression where the axes have these values, as code computes it: it divides without a sign."""
    total = expr.constant
    for atom, c in expr.terms:
        assert not isinstance(atom, Element)
        if isinstance(atom, Axis):
            total += c * at[atom.number]
            continue
        of = value(atom.of, at) % 2**64
        total += c * (of // atom.by if isinstance(atom, Quotient) else of % atom.by)
    return total


@st.composite
def expressions(draw: st.DrawFn) -> tuple[Expr, tuple[int, ...]]:
    extents = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    expr = Expr((), draw(st.integers(-40, 40)))
    for i, n in enumerate(extents):
        expr = expr.plus(Expr(((Axis(i, n), 1),)), draw(st.integers(-12, 12)))
    return expr, tuple(extents)


def places(extents: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    return product(*map(range, extents))


@given(expressions(), st.integers(1, 12), st.integers(1, 12))
def test_quotients_and_remainders(drawn: tuple[Expr, tuple[int, ...]], n: int, m: int) -> None:
    expr, extents = drawn
    for at in places(extents):
        x = value(expr, at)
        assert value(expr.quotient(n), at) == x // n
        assert value(expr.remainder(n), at) == x % n
        assert value(expr.quotient(n).plus(expr.remainder(m), 2).remainder(n), at) == (x // n + 2 * (x % m)) % n
        assert value(expr.remainder(n).plus(Expr((), -3)).quotient(m), at) == (x % n - 3) // m
        assert value(expr.quotient(n).quotient(m), at) == x // n // m
        assert value(expr.quotient(n).remainder(m), at) == x // n % m


@given(st.lists(st.integers(2, 6), min_size=1, max_size=5))
def test_an_index_from_a_number_gives_the_number_back(shape: list[int]) -> None:
    """Or a product could not read what was reshaped before (a convolution's columns) at even strides."""
    flat = axis(0, size(tuple(shape)))
    assert ravel(unravel(flat, tuple(shape)), tuple(shape)) == flat


@given(expressions(), st.integers(1, 12))
def test_what_is_divided_is_never_negative(drawn: tuple[Expr, tuple[int, ...]], n: int) -> None:
    expr, _ = drawn
    for found in (expr.quotient(n), expr.remainder(n)):
        for part in nested(found):
            assert all(a.of.range[0] >= 0 for a, _ in part.terms if isinstance(a, Quotient | Remainder))


# --- stacked views ----------------------------------------------------------------------------------------------------
def same(function: Callable[[Tensor], Tensor], x: Tensor) -> slalom.compiler.stage.Compiled:
    compiled = slalom.compile(function)
    np.testing.assert_array_equal(compiled(x).numpy(), function(x).numpy())
    return compiled


def rolled(x: Tensor, n: int) -> Tensor:
    flat = x.reshape(-1)
    return slalom.cat([flat[n:], flat[:n]]).reshape(x.shape)


@native_only
@pytest.mark.parametrize("n", [4, 5, 7, 16, 17])
@pytest.mark.parametrize("by", [1, 3, 8, 15])
def test_flips_of_what_was_rolled(n: int, by: int) -> None:
    x = slalom.arange(n * n).reshape(n, n)
    same(lambda x: rolled(rolled(x, 2 * by % n).T, by).flip(0) + 1, x)
    same(lambda x: rolled(rolled(x.flip(1), by).T.flip(0), by).flip(0, 1) + 1, x)


@native_only
@pytest.mark.parametrize("times", [3, 10])
@pytest.mark.parametrize(
    "end", [lambda x: x, lambda x: x + 1, lambda x: x.sum(), lambda x: x.reshape(-1, 1) @ x[:1].reshape(1, 1)]
)
def test_views_of_views_do_not_grow_without_bound(times: int, end: Callable[[Tensor], Tensor]) -> None:
    def doubled(x: Tensor) -> Tensor:
        for _ in range(times):
            x = slalom.cat([x, x])
        return end(x)

    compiled = same(doubled, Tensor(np.arange(3, dtype=np.float32)))
    for kernel in compiled.kernels.kernels:
        nodes = sum(1 for body in kernel.bodies.values() for _ in walk(body))
        assert nodes <= 4 * CASES


def test_a_case_holds_two_bounds_however_many_there_are() -> None:
    pieces = [(1, 5)] * 20
    found = cases(CONCATENATE.index, axes_of((20, 5)), pieces, {"axis": 0})
    assert len(found) == 20 and max(len(case.conditions) for case in found) == 2
    for row in range(20):
        held = [case for case in found if all(holds(c, (row, 0)) for c in case.conditions)]
        assert [case.operand for case in held] == [row]
        assert value(settled(held[0].at[0]), (row, 0)) == 0


def holds(condition: Condition, at: tuple[int, ...]) -> bool:
    x = value(condition.expr, at)
    return bool(getattr(operator, condition.how)(x, condition.number))


def test_what_padding_tells_of_an_index_is_known_to_the_views_behind_it() -> None:
    """An image cut into rows of two halves: padded, no row of it would be divided."""
    (inside,) = [case for case in cases(PAD.index, axes_of((6, 10)), [(4, 8)], PADDED) if case.operand is not None]
    at = unravel(ravel(inside.at, (4, 8)), (2, 2, 8))
    assert [str(settled(part)) for part in at] == ["(i0 + 1 // 2) + -1", "(i0 + 1 % 2)", "i1 + -1"]
    assert len(inside.conditions) == 4
    row = unravel(ravel(inside.at, (4, 8)), (1, 4, 1, 8))
    assert all(settled(part).affine for part in row)


PADDED = {"low": (1, 1), "high": (1, 1), "interior": (0, 0)}


@native_only
def test_many_pieces_are_one_view() -> None:
    compiled = same(
        lambda x: slalom.cat([x[i : i + 1] * (i + 1) for i in range(3 * CASES)]), slalom.arange(3.0 * CASES)
    )
    assert len(compiled.kernels.kernels) <= 2


# --- long chains ------------------------------------------------------------------------------------------------------
@native_only
@pytest.mark.parametrize(
    "end", [lambda x: x, lambda x: x.sum(1), lambda x: x - x.amax(1, keepdim=True), lambda x: x.sum(0)]
)
def test_a_long_chain_of_operations_is_one_kernel(end: Callable[[Tensor], Tensor]) -> None:
    def chain(x: Tensor) -> Tensor:
        for i in range(400):
            x = float(i % 7) - x
        return end(x)

    compiled = same(chain, slalom.arange(40.0).reshape(2, 20))
    assert len(compiled.kernels.kernels) == 1


@native_only
def test_a_long_chain_after_a_product() -> None:
    def chain(x: Tensor) -> Tensor:
        y = x @ x
        for _ in range(600):
            y = y + x[0, 0]
        return y

    compiled = same(chain, slalom.arange(16.0).reshape(4, 4))
    assert [kernel.kind for kernel in compiled.kernels.kernels] == ["product"]


# --- rows that are kept apart -----------------------------------------------------------------------------------------
ROWS, COLUMNS = 17, 512
ORDER = Tensor(np.arange(ROWS)[::-1] // 2)


def added(x: Tensor) -> Tensor:
    y = x * 0
    y.index_add_(0, ORDER, x)
    return y


TEMPLATES: dict[str, Callable[[Tensor], Tensor]] = {
    "cumsum": lambda x: x.cumsum(0),
    "argsort": lambda x: x.argsort(1),
    "scatter_add": added,
    "random_bits": slalom.rand_like,
}


@native_only
@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("reader", [lambda y: y + 1, lambda y: y.T + 1, lambda y: y.to(np.float32).mean(0)])
def test_what_templates_write_has_no_gaps(name: str, reader: Callable[[Tensor], Tensor]) -> None:
    """Rows of 2 KiB are kept apart in memory, for the cache's sake; but not where a template writes them."""
    x = Tensor(np.random.default_rng(0).integers(-9, 9, (ROWS, COLUMNS)).astype(np.float32))

    def function(x: Tensor) -> Tensor:
        return reader(TEMPLATES[name](x))

    slalom.manual_seed(4)
    expected = function(x)
    slalom.manual_seed(4)
    compiled = slalom.compile(function)
    np.testing.assert_allclose(compiled(x).numpy(), expected.numpy(), rtol=1e-6)
    assert any(kernel.eq and kernel.eq.prim.name == name for kernel in compiled.kernels.kernels)


@native_only
def test_what_loops_write_is_kept_apart() -> None:
    compiled = same(lambda x: x.exp() @ x.exp().T * 0, slalom.zeros(COLUMNS, COLUMNS))
    assert (COLUMNS + 16, 1) in compiled.kernels.strides.values()


SPACES = [(6, 4), (24,), (2, 3, 4), (3, 2, 4), (1, 6, 1, 4), (6, 2, 2, 1), (4, 6), (12, 2)]


@pytest.mark.parametrize("shape", SPACES, ids=str)
@pytest.mark.parametrize("space", SPACES, ids=str)
def test_axes_of_a_sum_under_another_shape(shape: tuple[int, ...], space: tuple[int, ...]) -> None:
    x = np.arange(24)
    for axes in (c for n in range(1, len(shape) + 1) for c in combinations(range(len(shape)), n)):
        found = matched(frozenset(axes), shape, space)
        if found is None:
            assert shape != space
            continue
        one, other = x.reshape(shape).sum(axes).ravel(), x.reshape(space).sum(tuple(found)).ravel()
        assert one.tolist() == other.tolist()
    assert matched(frozenset({0}), (6, 4), (2, 3, 4)) == {0, 1} and matched(frozenset({0}), (6, 4), (4, 6)) is None

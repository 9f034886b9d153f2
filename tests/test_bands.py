"""Bands: what masks hide is left out of products, at any size, to the same bits on every machine."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from executors import compare, run_fenced, same

import slalom
import slalom.nn.functional as F
from slalom import Tensor
from slalom.compiler import llvm
from slalom.compiler.bands import ALL, Bands
from slalom.compiler.native import native
from slalom.compiler.program import Program
from slalom.core.graph import Graph

NATIVE_BITS = True
pytestmark = pytest.mark.skipif(not native(), reason="no native code here")

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As it is often written: −∞ in the scores, then any softmax."""
    hidden = slalom.ones(q.shape[-2], k.shape[-2]).tril() == 0
    return (q @ k.mT * 0.3).masked_fill(hidden, -math.inf).softmax(-1) @ v


def near(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The last five keys alone."""
    i, j = slalom.arange(q.shape[-2]).unsqueeze(1), slalom.arange(k.shape[-2])
    return F.scaled_dot_product_attention(q, k, v, attn_mask=(j <= i) & (i - j < 5))


def added(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """By numbers of which some are −∞."""
    mask = slalom.zeros(q.shape[-2], k.shape[-2]).masked_fill(
        slalom.ones(q.shape[-2], k.shape[-2]).triu(1) > 0, -math.inf
    )
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def padded(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A causal mask, and one of data."""
    i, j = slalom.arange(q.shape[-2]).unsqueeze(1), slalom.arange(k.shape[-2])
    return F.scaled_dot_product_attention(q, k, v, attn_mask=(j <= i) & (k[..., 0] > -1.0).unsqueeze(-2))


def full(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def of_data(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=(q[..., :1] > k[..., 0].unsqueeze(-2)))


BELOW, CLOSE = (-63, 0), (-4, 0)
CASES: dict[str, tuple[Attention, tuple[int, int]]] = {
    # and the band of the scores of 64 by 64
    "causal": (causal, BELOW),
    "by hand": (by_hand, BELOW),
    "near": (near, CLOSE),
    "added": (added, BELOW),
    "padded": (padded, BELOW),
    "full": (full, ALL),
    "of data": (of_data, ALL),
}
SIZES = [(64, 64), (37, 37), (20, 50), (50, 20), (1, 3), (3, 1), (200, 200)]


def step_of(attention: Attention, queries: int, keys: int) -> tuple[Graph, list[np.ndarray]]:
    """The graph of what attention gives and of its three gradients, and numbers to run it with."""

    @slalom.compile
    def step(q: Tensor, k: Tensor, v: Tensor, towards: Tensor) -> tuple[Tensor, ...]:
        q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
        out = attention(q, k, v)
        (out * towards).sum().backward()
        assert q.grad is not None and k.grad is not None and v.grad is not None
        return out.detach(), q.grad, k.grad, v.grad

    rng = np.random.default_rng(0)
    shapes = (2, queries, 24), (2, keys, 24), (2, keys, 40), (2, queries, 40)
    arrays = [rng.standard_normal(shape).astype("f4") for shape in shapes]
    step(*map(slalom.tensor, arrays))
    graph = step.program.graph
    assert all(given.kind == "argument" for given in graph.inputs)
    return graph, arrays


@pytest.mark.parametrize("name", CASES)
def test_what_is_known_of_products(name: str) -> None:
    attention, band = CASES[name]
    graph, _ = step_of(attention, 64, 64)
    bands = Bands(graph)
    found = sorted(of or () for of in (bands.of(eq) for eq in graph.equations if eq.prim.name == "matmul"))
    low, high = band
    want = [
        (*ALL, *ALL, low, high),  # q·kᵀ and what its shares give
        (*ALL, *ALL, low, high),
        (low, high, *ALL, *ALL),  # shares · v and the gradient of q
        (low, high, *ALL, *ALL),
        (-high, -low, *ALL, *ALL),  # the gradients of v and k, by the transposes
        (-high, -low, *ALL, *ALL),
    ]
    assert found == sorted(() if band == ALL else of for of in want)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_what_is_left_out_is_not_missed(name: str, size: tuple[int, int]) -> None:
    graph, arrays = step_of(CASES[name][0], *size)
    found = [run_fenced(compare(graph, arrays), arrays, at_end=True)]
    for bits in (256, 128):
        target = llvm.Target.host().limited(bits)
        found.append(run_fenced(Program(graph, target=target), arrays, at_end=True, target=target))
    for other in found[1:]:
        assert all(map(same, found[0], other))


def test_a_mask_of_constants_costs_nothing() -> None:
    """What the gradient of the scores is summed from is computed again rather than kept beside them."""
    graph, _ = step_of(causal, 64, 64)
    products = [kernel for kernel in Program(graph).kernels.kernels if kernel.kind == "product"]
    assert len(products) == 6 and all(len(kernel.stores) == 1 for kernel in products)


def test_a_zero_has_no_sign_that_depends_on_the_tile() -> None:
    """What is left of a sum may be too small for a number: −0, which further terms of 0 make +0 of."""
    values = np.full((2, 64, 40), -1e-30, np.float32)
    values[:, 40:] = 1.0
    weights = np.full((2, 64, 64), 1e-30, np.float32)

    @slalom.compile
    def step(weights: Tensor, values: Tensor) -> Tensor:
        return weights.tril() @ values

    step(slalom.tensor(weights), slalom.tensor(values))
    graph, found = step.program.graph, []
    assert any(Bands(graph).of(eq) for eq in graph.equations if eq.prim.name == "matmul")
    for bits in (512, 256, 128):
        target = llvm.Target.host().limited(bits)
        found += run_fenced(Program(graph, target=target), [weights, values], at_end=True, target=target)
    assert not np.signbit(found[0][:, :40]).any()
    assert all(same(found[0], other) for other in found[1:])


def test_a_number_for_each_element_promises_nothing() -> None:
    """0·∞ is NaN: what is multiplied by a triangle is not one."""

    @slalom.compile
    def step(weights: Tensor, other: Tensor, x: Tensor) -> Tensor:
        return (weights.tril() * other) @ x

    weights, other, x = slalom.ones(20, 20), slalom.ones(20, 20), slalom.ones(20, 20)
    other[0, 19] = math.inf
    assert np.isnan(step(weights, other, x).numpy()[0]).all()
    assert not np.isnan(step(weights, other, x).numpy()[1:]).any()


# --- rows ---------------------------------------------------------------------------------------------------------
def test_rows_end_where_the_mask_does() -> None:
    """The maximum, the powers and their sum; the shares are made of whole rows, as NaN among them shows in all."""
    for name, found in (("causal", [(BELOW, BELOW), (BELOW, BELOW, ALL)]), ("full", [(), ()]), ("of data", [(), ()])):
        graph, _ = step_of(CASES[name][0], 64, 64)
        bands, kernels = Bands(graph), Program(graph).kernels.kernels
        rows = [bands.of_rows(kernel) for kernel in kernels if kernel.kind == "row" and kernel.space[-2:] == (64, 64)]
        assert sorted(rows) == found


def windowed(scores: Tensor, left: int, right: int) -> Tensor:
    """What attention with a window makes of scores, twice: by a softmax of −∞, and as in the library."""
    i, j = slalom.arange(scores.shape[-2]).unsqueeze(1), slalom.arange(scores.shape[-1])
    seen = (j - i <= right) & (i - j <= left)
    other = (scores - scores.masked_fill(~seen, -math.inf).amax(-1, keepdim=True)).masked_fill(~seen, 0.0)
    powers = other.exp().masked_fill(~seen, 0.0)
    return slalom.stack([scores.masked_fill(~seen, -math.inf).softmax(-1), powers / powers.sum(-1, keepdim=True)])


@pytest.mark.parametrize("special", [0.0, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("size", [(64, 64), (37, 70), (70, 37), (5, 600)], ids=str)
def test_special_rows_are_as_ever(size: tuple[int, int], special: float) -> None:
    """Rows that see nothing, a row of numbers that are none, and one such key, in windows of several kinds."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, size[0], 3)).astype("f4"), rng.standard_normal((2, 3, size[1])).astype("f4")
    x[0, size[0] // 2] = special
    y[1, :, size[1] // 2] = special
    x, y = slalom.tensor(x), slalom.tensor(y)
    for window in ((600, 0), (9, -2), (3, 20), (600, -33)):

        def forward(x: Tensor, y: Tensor, window: tuple[int, int] = window) -> Tensor:
            return windowed(x @ y, *window)

        with slalom.no_compile():
            expected = forward(x, y).numpy()
        compiled = slalom.compile(forward)
        np.testing.assert_allclose(compiled(x, y).numpy(), expected, rtol=1e-5, atol=1e-6)
        graph = compiled.program.graph
        some = size[0] > -window[1]  # whether any row sees anything
        assert any(Bands(graph).of_rows(kernel) for kernel in compiled.kernels.kernels) == some


def test_rows_of_two_bands_are_two_texts() -> None:
    """Kernels alike but for what they see, one after the other."""

    def forward(x: Tensor, y: Tensor) -> Tensor:
        for left, right in ((600, 0), (9, -2), (0, 20)):
            x = windowed(x @ y, left, right).nan_to_num().sum(0)
        return x

    x, y = slalom.rand(2, 50, 50), slalom.rand(2, 50, 50)
    with slalom.no_compile():
        expected = forward(x, y).numpy()
    compiled = slalom.compile(forward)
    np.testing.assert_allclose(compiled(x, y).numpy(), expected, rtol=1e-4)
    bands = [Bands(compiled.program.graph).of_rows(kernel) for kernel in compiled.kernels.kernels]
    assert len({band for band in bands if band}) == 3

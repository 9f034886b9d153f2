"""The course's worked examples of gradient descent by hand and of automatic differentiation, by their numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

import slalom
from slalom import Tensor, tensor
from slalom.autograd import grad as autograd_grad
from slalom.core.autodiff import grad, jvp, value_and_grad


def t64(value: float) -> Tensor:
    return tensor(value, dtype="float64")


def leaf(value: float) -> Tensor:
    return tensor(value, dtype="float64", requires_grad=True)


# --- gradient descent by hand -------------------------------------------------------------------------------------
def test_one_weight_model() -> None:
    """A02–A05: f(x) = w·x against y = 10x, squared loss, rate 0.1, from w = 15."""
    w, x = leaf(15.0), 1.0
    weights, losses, slopes = [], [], []
    for _ in range(5):
        loss = (w * x - 10 * x) ** 2
        loss.backward()
        assert w.grad is not None
        losses.append(loss.item())
        slopes.append(w.grad.item())
        with slalom.no_grad():
            w -= 0.1 * w.grad
        w.grad = None
        weights.append(w.item())
    assert losses == pytest.approx([25, 16, 10.24, 6.5536, 4.194304], rel=1e-12)
    assert slopes[:2] == pytest.approx([10, 8], rel=1e-12)
    assert weights == pytest.approx([14, 13.2, 12.56, 12.048, 11.6384], rel=1e-12)
    assert weights == pytest.approx([10 + 5 * 0.8**k for k in range(1, 6)], rel=1e-12)


def test_chain_rule_through_deep_layers() -> None:
    """A06: dL/dw(l) = dL/dŷ · dŷ/dx(L) · … · dx(l+1)/dw(l), for tanh layers of one unit."""
    weights = [leaf(v) for v in (0.5, -1.2, 0.8, 2.0)]
    activations = [t64(0.7)]
    for w in weights:
        activations.append((w * activations[-1]).tanh())
    loss = (activations[-1] - 1) ** 2
    loss.backward()
    values = [a.item() for a in activations]
    adjoint = 2 * (values[-1] - 1)
    for i in reversed(range(4)):
        local = 1 - values[i + 1] ** 2
        found = weights[i].grad
        assert found is not None
        assert found.item() == pytest.approx(adjoint * local * values[i], rel=1e-12)
        adjoint *= local * weights[i].item()


def test_two_weight_network() -> None:
    """A07, A08: ŷ = w₁·σ(w₀·x); the deck drops the factor x of dL/dw₀, which would give 0.312337132."""
    w0, w1 = leaf(0.5), leaf(2.0)
    prediction = w1 * (w0 * 1.5).sigmoid()
    loss = (prediction - 1) ** 2
    loss.backward()
    assert w0.grad is not None and w1.grad is not None
    found = [prediction.item(), loss.item(), w0.grad.item(), w1.grad.item()]
    assert found == pytest.approx([1.358357398, 0.128420025, 0.468505698, 0.486777423], abs=5e-10)
    assert w0.grad.item() / 1.5 == pytest.approx(0.312337132, abs=5e-10)


def test_squares() -> None:
    """A09: x² → 2x; w₁² + w₂² → 2w."""
    assert grad(lambda x: x**2)(3.0).item() == 6.0
    assert grad(lambda w: (w**2).sum())(tensor([3.0, -4.0])).tolist() == [6.0, -8.0]


def test_chain_rule_example() -> None:
    """A22: F(x) = (2x² + 1)², F′ = 8x(2x² + 1)."""
    slope = grad(lambda x: (2 * x**2 + 1) ** 2)
    assert [slope(x).item() for x in (1.0, 2.0)] == [24.0, 144.0]


def test_example_by_example_equals_one_matrix_product() -> None:
    """A26: gradients accumulated over the examples, divided by their number, are those of the batch."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((7, 3)), rng.standard_normal((7, 2))
    w1, w2 = rng.standard_normal((3, 4)), rng.standard_normal((4, 2))
    one, all_ = ([tensor(w, requires_grad=True) for w in (w1, w2)] for _ in range(2))
    for i in range(7):
        hidden = (tensor(x[i]) @ one[0]).tanh()
        ((hidden @ one[1] - tensor(y[i])) ** 2).sum().backward()
    hidden = (tensor(x) @ all_[0]).tanh()
    (((hidden @ all_[1] - tensor(y)) ** 2).sum() / 7).backward()
    for w, v in zip(one, all_, strict=True):
        assert w.grad is not None and v.grad is not None
        np.testing.assert_allclose(w.grad.numpy() / 7, v.grad.numpy(), rtol=1e-12, atol=1e-14)


# --- automatic differentiation ------------------------------------------------------------------------------------
def test_numeric_differentiation_is_only_approximate() -> None:
    """B02: the error of differences on A22 at x = 1 falls, then rises; by order of magnitude."""

    def f(x: float) -> float:
        return (2 * x**2 + 1) ** 2

    errors = {h: abs((f(1 + h) - f(1)) / h - 24) for h in (1e-1, 1e-3, 1e-8, 1e-12, 1e-15)}
    assert errors[1e-1] == pytest.approx(2.964, abs=5e-4)
    assert errors[1e-3] == pytest.approx(2.80e-2, rel=5e-3)
    assert errors[1e-8] < 1e-6
    assert 1e-4 < errors[1e-12] < 1e-2
    assert errors[1e-15] == pytest.approx(2.65, abs=0.01)
    central = abs((f(1 + 1e-5) - f(1 - 1e-5)) / 2e-5 - 24)
    assert central < 1e-7
    exact = grad(lambda x: (2 * x**2 + 1) ** 2)(t64(1.0)).item()
    assert exact == 24.0


def test_symbolic_example() -> None:
    """B03: d/dx(2x + 3x² + x(6 − 2)) = 6(x + 1)."""
    assert grad(lambda x: 2 * x + 3 * x**2 + x * (6 - 2))(2.0).item() == 18.0


def test_autodiff_does_not_simplify() -> None:
    """B04: sin²x + cos²x is computed in full: value 1 and derivative 0, to rounding."""

    def f(x: Tensor) -> Tensor:
        return x.sin() ** 2 + x.cos() ** 2

    value, slope = value_and_grad(f)(t64(0.8))
    assert value.item() == pytest.approx(1, rel=1e-15) and abs(slope.item()) < 1e-15
    compiled = slalom.compile(f)
    compiled(t64(0.8))
    assert {"sin", "cos", "mul", "add"} <= {eq.prim.name for eq in compiled.graph.equations}


def test_data_dependent_loop() -> None:
    """B05: while |x| > 5: x = x/2, at x = 100."""
    halvings = 0

    def f(x: Tensor) -> Tensor:
        nonlocal halvings
        halvings = 0
        while abs(x) > 5:
            x = x / 2
            halvings += 1
        return x

    value, slope = value_and_grad(f)(100.0)
    assert (value.item(), slope.item(), halvings) == (3.125, 0.03125, 5)


def trace_table(x1: Tensor, x2: Tensor) -> list[Tensor]:
    """B08: f = x₁x₂ + exp(x₁x₂) − sin x₂ as v₁ … v₇."""
    v3 = x1 * x2
    v4 = x2.sin()
    v5 = v3.exp()
    v6 = v3 - v4
    return [x1, x2, v3, v4, v5, v6, v5 + v6]


@pytest.mark.parametrize(
    ("point", "value", "slopes"),
    [((1.0, 2.0), 8.479759, (16.778112, 8.805203)), ((2.0, 0.5), 3.238856, (1.859141, 6.558981))],
)
def test_both_modes(point: tuple[float, float], value: float, slopes: tuple[float, float]) -> None:
    """B11, B13: forward mode takes a pass for each input, reverse mode one for both."""
    x1, x2 = map(t64, point)

    def f(x1: Tensor, x2: Tensor) -> Tensor:
        return trace_table(x1, x2)[-1]

    found, reverse = value_and_grad(f, argnums=(0, 1))(x1, x2)
    assert found.item() == pytest.approx(value, abs=5e-7)
    assert [g.item() for g in reverse] == pytest.approx(slopes, abs=5e-7)
    forward = [jvp(f, (x1, x2), tangents)[1].item() for tangents in ((1.0, 0.0), (0.0, 1.0))]
    assert forward == pytest.approx([g.item() for g in reverse], rel=1e-14)


def test_the_whole_trace_table() -> None:
    """B09–B12: every value, every tangent in the direction of x₁ and every adjoint, at (1, 2)."""
    x1, x2 = leaf(1.0), leaf(2.0)
    values = trace_table(x1, x2)
    assert [v.item() for v in values[2:]] == pytest.approx([2, 0.909297, 7.389056, 1.090703, 8.479759], abs=5e-7)
    adjoints = [g.item() for g in autograd_grad(values[-1], values)]
    assert adjoints[::-1] == pytest.approx([1, 1, 1, -1, 8.389056, 8.805203, 16.778112], abs=5e-7)
    _, tangents = jvp(trace_table, (t64(1.0), t64(2.0)), (1.0, 0.0))
    assert [t.item() for t in tangents] == pytest.approx([1, 0, 2, 0, 14.778112, 2, 16.778112], abs=5e-7)


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_a_value_used_twice(mode: str) -> None:
    """B16: tangents sum over the parents, adjoints over the children: y = x·x + x."""

    def f(x: Tensor) -> Tensor:
        return x * x + x

    slope: Callable[[Tensor], Tensor] = grad(f) if mode == "reverse" else lambda x: jvp(f, (x,), (1.0,))[1]
    assert slope(t64(3.0)).item() == 7.0
    assert slope(t64(math.pi)).item() == pytest.approx(2 * math.pi + 1, rel=1e-15)

"""What the rows of activations don't say: what is drawn, what is written in place, and where derivatives end."""

from __future__ import annotations

import numpy as np
import pytest

import slalom
from slalom import nn
from slalom.nn import functional as F


def test_rrelu_draws_its_slopes_and_takes_their_mean_at_evaluation() -> None:
    slalom.manual_seed(2)
    layer, x = nn.RReLU(0.1, 0.3), slalom.full((100, 100), -1.0)
    slopes = -layer(x).numpy()
    assert slopes.min() >= 0.1 and slopes.max() < 0.3 and abs(slopes.mean() - 0.2) < 0.003  # 5 deviations of the mean
    np.testing.assert_allclose(layer.eval()(x).numpy(), -0.2, rtol=1e-6)
    np.testing.assert_array_equal(layer.train()(-x).numpy(), 1)


def test_rrelu_has_the_derivative_of_the_slope_that_it_drew() -> None:
    x = slalom.full((50,), -2.0, requires_grad=True)
    out = nn.RReLU()(x)
    out.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), out.detach().numpy() / -2, rtol=1e-6)


def test_gumbel_softmax_draws_from_the_softmax() -> None:
    slalom.manual_seed(5)
    logits = slalom.tensor([0.0, 1.0, 2.0]).expand(20_000, 3)
    drawn = F.gumbel_softmax(logits, tau=0.5, hard=True).numpy()
    np.testing.assert_allclose(drawn.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(drawn.mean(0), F.softmax(logits[0], 0).numpy(), atol=0.018)  # 5 deviations


def test_hard_gumbel_softmax_has_the_gradients_of_the_soft_one() -> None:
    gradients = []
    for hard in (False, True):
        slalom.manual_seed(7)
        x = slalom.tensor([[0.3, -1.0, 2.0]], requires_grad=True)
        (F.gumbel_softmax(x, hard=hard) * slalom.tensor([1.0, 2.0, 4.0])).sum().backward()
        gradients.append(x.grad.numpy())
    np.testing.assert_allclose(*gradients, rtol=1e-6)
    assert np.any(gradients[0])


def test_gumbel_softmax_is_finite_for_large_logits() -> None:
    x = slalom.tensor([[1e4, -1e4], [1e4, 1e4]], requires_grad=True)
    F.gumbel_softmax(x, tau=0.1).square().sum().backward()
    assert np.isfinite(x.grad.numpy()).all()


MAKERS = [
    lambda inplace: nn.ELU(0.5, inplace),
    lambda inplace: nn.CELU(0.5, inplace),
    nn.SELU,
    nn.Mish,
    nn.ReLU6,
    lambda inplace: nn.Hardtanh(-1.0, 1.0, inplace),
    nn.Hardsigmoid,
    nn.Hardswish,
    lambda inplace: nn.Threshold(0.5, 3.0, inplace),
    lambda inplace: nn.RReLU(0.25, 0.25, inplace),
]


@pytest.mark.parametrize("make", MAKERS)
def test_inplace_writes_over_the_input(make) -> None:
    x = slalom.tensor([-1.5, -0.25, 0.0, 0.75, 7.0])
    y = x.clone()
    assert make(True)(y) is y
    np.testing.assert_array_equal(y.numpy(), make(False)(x).numpy())


def test_hard_functions_have_derivative_zero_at_their_ends() -> None:
    for function, ends in ((F.hardtanh, (-1.0, 1.0)), (F.relu6, (0.0, 6.0)), (F.hardsigmoid, (-3.0, 3.0))):
        x = slalom.tensor(ends, requires_grad=True)
        function(x).sum().backward()
        np.testing.assert_array_equal(x.grad.numpy(), 0)


def test_a_perceptron_of_steps_computes_or_and_and() -> None:
    rows = slalom.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    assert nn.Step()(rows.sum(1) - 0.5).tolist() == [0, 1, 1, 1]
    assert nn.Step()(rows.sum(1) - 1.5).tolist() == [0, 0, 0, 1]


def test_zero_vectors_have_finite_derivatives() -> None:
    for function in (F.normalize, lambda x: F.cosine_similarity(x, x + 1), lambda x: F.pairwise_distance(x, x * 2)):
        x = slalom.zeros(2, 3, requires_grad=True)
        function(x).sum().backward()
        assert np.isfinite(x.grad.numpy()).all()

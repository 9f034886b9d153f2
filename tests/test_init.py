"""Initial values: distributions, bounds and gains, the layers' defaults, and the output bias set from data."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest

import slalom
from slalom import nn
from slalom.errors import ConfigError, DataError, ShapeError
from slalom.nn import init

WIDE, TALL, KERNEL = (300, 200), (100, 500), (64, 16, 5, 5)
FAN = {WIDE: (200, 300), TALL: (500, 100), KERNEL: (400, 1600)}
"""Inputs of an output unit, and outputs of an input unit."""

UNIFORM = [  # call, shape, bounds
    (init.uniform_, WIDE, (0.0, 1.0)),
    (lambda t: init.uniform_(t, -2.0, 0.5), TALL, (-2.0, 0.5)),
    (init.xavier_uniform_, WIDE, math.sqrt(6 / 500)),
    (lambda t: init.xavier_uniform_(t, gain=2.0), KERNEL, 2 * math.sqrt(6 / 2000)),
    (init.kaiming_uniform_, TALL, math.sqrt(6 / 500)),
    (lambda t: init.kaiming_uniform_(t, a=math.sqrt(5)), WIDE, math.sqrt(1 / 200)),
    (lambda t: init.kaiming_uniform_(t, mode="fan_out", nonlinearity="relu"), KERNEL, math.sqrt(6 / 1600)),
    (lambda t: init.kaiming_uniform_(t, nonlinearity="tanh"), TALL, 5 / 3 * math.sqrt(3 / 500)),
]
NORMAL = [  # call, shape, mean and standard deviation
    (init.normal_, WIDE, (0.0, 1.0)),
    (lambda t: init.normal_(t, 3.0, 0.1), TALL, (3.0, 0.1)),
    (lambda t: init.xavier_normal_(t, 0.5), WIDE, (0.0, 0.5 * math.sqrt(2 / 500))),
    (lambda t: init.kaiming_normal_(t, nonlinearity="relu"), KERNEL, (0.0, math.sqrt(2 / 400))),
    (lambda t: init.kaiming_normal_(t, 0.2, "fan_out"), TALL, (0.0, math.sqrt(2 / 1.04 / 100))),
]


@pytest.mark.parametrize(("call", "shape", "bounds"), UNIFORM)
def test_uniform(call: Any, shape: tuple[int, ...], bounds: Any) -> None:
    low, high = bounds if isinstance(bounds, tuple) else (-bounds, bounds)
    slalom.manual_seed(0)
    t = nn.Parameter(slalom.zeros(shape))
    assert call(t) is t and t.requires_grad and t.is_leaf
    unit = np.sort((t.detach().numpy().ravel().astype(float) - low) / (high - low))
    assert unit[0] >= 0 and unit[-1] <= 1 + 1e-6
    # Kolmogorov's distance: 2.2/√n is exceeded by chance once in 10,000 times (and the seed is fixed).
    assert np.abs(unit - np.arange(unit.size) / unit.size).max() < 2.2 / math.sqrt(unit.size)


@pytest.mark.parametrize(("call", "shape", "moments"), NORMAL)
def test_normal(call: Any, shape: tuple[int, ...], moments: tuple[float, float]) -> None:
    slalom.manual_seed(0)
    t = nn.Parameter(slalom.zeros(shape))
    assert call(t) is t and t.is_leaf
    z = np.sort((t.detach().numpy().ravel().astype(float) - moments[0]) / moments[1])
    below = 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))
    assert np.abs(below - np.arange(z.size) / z.size).max() < 2.2 / math.sqrt(z.size)


@pytest.mark.parametrize(
    ("mean", "std", "a", "b"),
    [(0.0, 1.0, -2.0, 2.0), (1.0, 0.5, 0.0, 1.0), (0.0, 1.0, 3.0, 4.0), (0.0, 0.02, -2.0, 2.0)],
)
def test_trunc_normal(mean: float, std: float, a: float, b: float) -> None:
    t = init.trunc_normal_(slalom.zeros(300, 100, dtype="float64"), mean, std, a, b)
    values = np.sort(t.numpy().ravel())
    assert a <= values[0] and values[-1] <= b

    def phi(x: Any) -> Any:
        return 0.5 * np.vectorize(math.erf)((x - mean) / std / math.sqrt(2))

    below = (phi(values) - phi(a)) / (phi(b) - phi(a))
    assert np.abs(below - np.arange(values.size) / values.size).max() < 2.2 / math.sqrt(values.size)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (4, 3, 2, 2)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    t = init.orthogonal_(slalom.zeros(shape, dtype="float64"), gain=2.0).numpy().reshape(shape[0], -1)
    product = t @ t.T if t.shape[0] <= t.shape[1] else t.T @ t
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-12)


def test_constants() -> None:
    t = nn.Parameter(slalom.randn(2, 3))
    assert init.constant_(t, 1.5).tolist() == [[1.5] * 3] * 2
    assert init.zeros_(t).tolist() == [[0.0] * 3] * 2 and init.ones_(t).tolist() == [[1.0] * 3] * 2
    assert init.eye_(t).tolist() == [[1, 0, 0], [0, 1, 0]] and t.requires_grad


BAD = [
    (lambda: init.eye_(slalom.ones(3)), ShapeError, "eye_: got 1 dimensions; needed 2"),
    (lambda: init.orthogonal_(slalom.ones(3)), ShapeError, "orthogonal_: got 1 dimensions; needed at least 2"),
    (lambda: init.xavier_normal_(slalom.ones(3)), ShapeError, r"fan-out: got shape \(3,\); needed 2 dimensions"),
    (lambda: init.kaiming_normal_(slalom.ones(3, 3), mode="in"), ConfigError, "mode: got 'in'; needed 'fan_in'"),
    (lambda: init.calculate_gain("gelu"), ConfigError, "got 'gelu'; needed one of linear"),
    (lambda: init.trunc_normal_(slalom.ones(3), a=1, b=0), ConfigError, "got a 1, b 0; needed a below b"),
]


@pytest.mark.parametrize(("call", "kind", "message"), BAD)
def test_bad_arguments(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_the_same_seed_gives_the_same_values_and_a_generator_of_its_own_is_used() -> None:
    for name in init.__all__:
        if "generator" not in inspect.signature(getattr(init, name)).parameters:
            continue
        fill, first, second, other = getattr(init, name), *(slalom.zeros(4, 5) for _ in range(3))
        before = slalom.get_rng_state().tolist()
        fill(first, generator=slalom.Generator(3))
        fill(second, generator=slalom.Generator(3))
        assert slalom.get_rng_state().tolist() == before, name
        fill(other, generator=slalom.Generator(4))
        assert first.tolist() == second.tolist() != other.tolist(), name


def test_gains_are_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    for name in ("linear", "conv1d", "conv2d", "conv3d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"):
        for param in (None, 0.3):
            expected = torch.nn.init.calculate_gain(name, param)
            assert init.calculate_gain(name, param) == pytest.approx(expected, rel=1e-15)


# --- defaults of the layers -------------------------------------------------------------------------------------------
def test_default_values_of_layers() -> None:
    slalom.manual_seed(0)
    linear = nn.Linear(100, 400)
    for t in (linear.weight, linear.bias):
        spread = t.detach().numpy()
        assert 0.099 < np.abs(spread).max() <= 0.1 and abs(spread.std() * math.sqrt(3) - 0.1) < 0.01
    table = nn.Embedding(200, 100).weight.detach().numpy()
    assert abs(table.mean()) < 0.03 and abs(table.std() - 1) < 0.02
    assert nn.PReLU().weight.tolist() == [0.25] and nn.LeakyReLU().negative_slope == 0.01
    before = linear.weight.detach().numpy().copy()
    linear.reset_parameters()
    assert (linear.weight.detach().numpy() != before).mean() > 0.99
    assert nn.Linear(2, 3, dtype="float64").weight.dtype == np.float64
    assert nn.Linear(0, 2)(slalom.zeros(3, 0)).shape == (3, 2)


# --- the output bias from data ----------------------------------------------------------------------------------------
def test_output_bias_of_a_rate_makes_the_first_loss_the_naive_baseline() -> None:  # mission S07
    target = slalom.tensor([[1.0]] * 2 + [[0.0]] * 8)
    layer = init.output_bias_(nn.Linear(3, 1), target, "binary", zero_weight=True)
    assert layer.bias.item() == pytest.approx(-1.386294, abs=1e-6)
    loss = nn.BCEWithLogitsLoss()(layer(slalom.randn(10, 3)), target)
    assert loss.item() == pytest.approx(0.500402, abs=1e-6)


def test_output_bias_of_a_mean_and_of_class_rates() -> None:
    target = np.array([[1.0, 10.0], [3.0, 20.0], [5.0, 60.0]])
    layer = nn.Linear(4, 2)
    weight = layer.weight.detach().numpy().copy()
    assert init.output_bias_(layer, target, "regression").bias.tolist() == [3, 30]
    np.testing.assert_array_equal(layer.weight.detach().numpy(), weight)
    assert init.output_bias_(layer, target, "regression", sample_weight=[0, 1, 1]).bias.tolist() == [4, 40]
    classes = init.output_bias_(nn.Linear(4, 3), np.array([0, 0, 1, 2]), "multiclass", zero_weight=True)
    np.testing.assert_allclose(classes(slalom.ones(1, 4)).softmax(1).detach().numpy(), [[0.5, 0.25, 0.25]], rtol=1e-6)


def test_output_bias_stays_finite_where_a_class_is_missing() -> None:
    one = init.output_bias_(nn.Linear(1, 1), np.ones(10), "binary").bias.item()
    assert one == pytest.approx(math.log(0.95 / 0.05), rel=1e-6)
    two = init.output_bias_(nn.Linear(1, 2), np.zeros(10, int), "multiclass").bias.tolist()
    assert two == pytest.approx([0.0, math.log(0.05)], rel=1e-6)


BAD_TARGETS = [
    (nn.Linear(1, 2), [1.0, 2.0], "regression", DataError, "targets: got 1 columns; needed 2, one an output"),
    (nn.Linear(1, 2), [0, 2], "multiclass", DataError, "needed class numbers 0 to 1 in one axis"),
    (nn.Linear(1, 2), [0.0, 1.0], "multiclass", DataError, "needed class numbers"),
    (nn.Linear(1, 1), [], "regression", DataError, "targets: got none; needed at least one"),
    (nn.Linear(1, 1), [1.0], "ranking", ConfigError, "task: got 'ranking'; needed 'regression', 'binary' or"),
    (nn.Linear(1, 1, bias=False), [1.0], "binary", ConfigError, "got Linear without a bias; needed a layer with one"),
]


@pytest.mark.parametrize(("layer", "targets", "task", "kind", "message"), BAD_TARGETS)
def test_output_bias_refuses(layer: nn.Module, targets: Any, task: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        init.output_bias_(layer, targets, task)

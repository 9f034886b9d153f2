"""Initial values: distributions, bounds and gains, the layers' defaults, and the output bias set from data."""

from __future__ import annotations

import functools
import inspect
import math
from typing import Any

import numpy as np
import pytest

import slalom
from slalom import nn
from slalom.errors import ConfigError, DataError, ShapeError
from slalom.nn import init
from tests.table_init import DISTANCE, EXACT, FILLS, KERNEL, MOMENT, OURS, TALL, WIDE, distance, filled, moments

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


# --- the same distributions as PyTorch's ------------------------------------------------------------------------------
def test_every_function_of_pytorch_is_there_and_has_a_row() -> None:
    torch = pytest.importorskip("torch")
    theirs = {name for name in dir(torch.nn.init) if name.endswith("_") and not name.startswith("_")}
    ours = {name for name in init.__all__ if name.endswith("_")} - set(OURS)
    assert theirs == ours == {name for name, *_ in FILLS + EXACT}


@pytest.mark.parametrize(("name", "shape", "options"), FILLS)
def test_moments_are_those_of_pytorch(name: str, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    ours, theirs = filled(pytest.importorskip("torch"), name, shape, options)
    assert all(errors < MOMENT for _, errors in moments(ours, theirs))
    assert distance(ours, theirs) < DISTANCE
    if name == "sparse_":
        np.testing.assert_array_equal((ours == 0).sum(axis=0), (theirs == 0).sum(axis=0))


@pytest.mark.parametrize(("name", "shape", "options"), EXACT)
def test_constant_values_are_those_of_pytorch(name: str, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    np.testing.assert_array_equal(*filled(pytest.importorskip("torch"), name, shape, options))


def test_a_dirac_kernel_passes_channels_on() -> None:
    values = init.dirac_(slalom.empty(5, 3, 3)).numpy()
    assert values.sum() == 3 and all(values[i, i, 1] == 1 for i in range(3))


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
    (lambda: init.dirac_(slalom.ones(3, 3)), ShapeError, r"dirac_: got shape \(3, 3\); needed 3 to 5 dimensions"),
    (lambda: init.dirac_(slalom.ones(3, 3, 3), 2), ShapeError, "the first of them divisible by 2"),
    (lambda: init.sparse_(slalom.ones(3), 0.5), ShapeError, "sparse_: got 1 dimensions; needed 2"),
    (lambda: init.sparse_(slalom.ones(3, 3), 1.5), ConfigError, "sparsity: got 1.5; needed a number from 0 to 1"),
    (lambda: init.eye_(slalom.ones(3)), ShapeError, "eye_: got 1 dimensions; needed 2"),
    (lambda: init.orthogonal_(slalom.ones(3)), ShapeError, "orthogonal_: got 1 dimensions; needed at least 2"),
    (lambda: init.xavier_normal_(slalom.ones(3)), ShapeError, r"fan-out: got shape \(3,\); needed 2 dimensions"),
    (lambda: init.kaiming_normal_(slalom.ones(3, 3), mode="in"), ConfigError, "mode: got 'in'; needed 'fan_in'"),
    (lambda: init.calculate_gain("gelu"), ConfigError, "got 'gelu'; needed one of linear"),
    (lambda: init.trunc_normal_(slalom.ones(3), a=1, b=0), ConfigError, "got a 1, b 0; needed a below b"),
    (lambda: init.trunc_normal_(slalom.ones(3), std=0), ConfigError, "trunc_normal_: std: got 0; needed a number abov"),
    (lambda: init.uniform_(slalom.ones(3), 1, 0), ConfigError, "uniform_: got a 1, b 0; needed a at most b"),
    (lambda: init.normal_(slalom.ones(3), std=-1), ConfigError, "normal_: std: got -1; needed 0 or more"),
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
        if name == "sparse_":
            fill = functools.partial(fill, sparsity=0.3)
        fill(first, generator=slalom.Generator(3))
        fill(second, generator=slalom.Generator(3))
        assert slalom.get_rng_state().tolist() == before, name
        fill(other, generator=slalom.Generator(4))
        assert first.tolist() == second.tolist() != other.tolist(), name


def test_gains_are_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    transposed = [f"conv_transpose{n}d" for n in (1, 2, 3)]
    for name in ("linear", "conv1d", "conv2d", "conv3d", *transposed, "sigmoid", "tanh", "relu", "leaky_relu", "selu"):
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


# --- layer-sequential unit variance -----------------------------------------------------------------------------------
class Crossed(nn.Module):
    """Layers that are not used in the order in which they are declared, one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first = nn.Linear(30, 4), nn.Linear(20, 30)
        self.again = nn.Linear(30, 30)
        self.norm, self.drop, self.unused = nn.LayerNorm((2, 30)), nn.Dropout(0.5), nn.Linear(3, 3)

    def forward(self, x: slalom.Tensor, scale: slalom.Tensor) -> slalom.Tensor:
        y = self.norm(self.first(x * scale).reshape(-1, 2, 30)).reshape(-1, 30)
        return self.last(self.again(self.drop(self.again(y).relu())).relu())


def test_lsuv_gives_every_output_variance_1() -> None:
    slalom.manual_seed(0)
    model = Crossed()
    x, scale = slalom.randn(400, 20) * 30, slalom.tensor(0.1)
    kept = {name: t.numpy().copy() for name, t in model.state_dict().items() if "weight" not in name or "n" in name[:2]}
    assert init.lsuv_(model, x, scale) is model
    seen: dict[str, float] = {}
    for name in ("first", "again", "last"):
        layer = getattr(model, name)
        layer.register_forward_hook(
            lambda m, a, out, name=name: seen.setdefault(name, float(out.numpy().var())) and None
        )
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())
    model.eval()
    with slalom.no_grad():
        model(x, scale)
    assert set(seen) == {"first", "again", "last"} and all(abs(var - 1) < 0.1 for var in seen.values()), seen
    for name, array in kept.items():
        np.testing.assert_array_equal(model.state_dict()[name].numpy(), array)


def test_lsuv_with_the_weights_that_are_there() -> None:
    layer = nn.Linear(5, 3, bias=False)
    before = layer.weight.detach().numpy().copy()
    init.lsuv_(layer, np.random.default_rng(0).normal(size=(100, 5)).astype(np.float32), orthogonal=False, tol=1e-3)
    ratio = layer.weight.detach().numpy() / before
    assert ratio.std() < 1e-6 * ratio.mean() and abs(ratio.mean() - 1) > 0.01


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_lsuv_names_the_layer_whose_output_says_nothing(value: float) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 2, bias=False)))
    init.zeros_(model[0].bias)
    with pytest.raises(DataError, match=r"lsuv_: output of 0: got variance (0|nan); needed one above 0"):
        init.lsuv_(model, slalom.full((4, 3), value))
    assert model.training and not model[0]._forward_hooks


# --- the neural-tangent parameterisation ------------------------------------------------------------------------------
def test_in_the_neural_tangent_parameterisation_a_step_moves_the_function_alike_at_any_width() -> None:
    def moved(kind: Any, width: int) -> float:
        """By how much a step of gradient descent changes the output at another point, over 20 draws."""
        found = []
        for seed in range(20):
            slalom.manual_seed(seed)
            model = nn.Sequential(kind(2, width), nn.ReLU(), kind(width, 1))
            x, other = slalom.tensor([[1.0, 0.5]]), slalom.tensor([[0.8, 0.7]])
            before = model(other).item()
            model(x).sum().backward()
            with slalom.no_grad():
                for p in model.parameters():
                    p.sub_(0.01 * p.grad)
            found.append(abs(model(other).item() - before))
        return float(np.mean(found))

    assert moved(nn.NTKLinear, 2048) == pytest.approx(moved(nn.NTKLinear, 64), rel=0.2)
    assert moved(nn.Linear, 2048) > 5 * moved(nn.Linear, 64)


def test_the_neural_tangent_kernel_is_that_of_the_limit() -> None:
    # z ~ N(0, |x|²/2) before the ReLU: Θ(x, x) = 2·E[relu(z)²] + 2·E[relu'(z)²]·|x|²/2 = |x|²/2 + |x|²/2
    slalom.manual_seed(3)
    model = nn.Sequential(nn.NTKLinear(2, 4096, False), nn.ReLU(), nn.NTKLinear(4096, 1, False, gain=math.sqrt(2)))
    model(slalom.tensor([[3.0, 4.0]])).sum().backward()
    kernel = sum(float((p.grad * p.grad).sum().item()) for p in model.parameters())
    assert kernel == pytest.approx(25, rel=0.1)

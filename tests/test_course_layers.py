"""Worked examples of the lectures on models, losses, initialisation and normalisation, with their printed numbers.

Each test's name starts with the item's number in the collection of examples (C models and layers, D losses and
information, S initialisation, N normalisation and dropout).
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import slalom
from slalom import Tensor, nn, tensor
from slalom.nn import functional as F

BOTH = tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
LINE, ONES_AND_X = tensor([2.0, 3.0, 5.0]), tensor([[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]])


class Step(nn.Module):
    """1 above 0, else 0."""

    def forward(self, x: Tensor) -> Tensor:
        return (x > 0).float()


def neuron(bias: list[float], *weights: list[float]) -> nn.Sequential:
    """Step units with the given weights, one row a unit."""
    layer = nn.Linear(len(weights[0]), len(weights))
    layer.load_state_dict({"weight": tensor(list(weights)), "bias": tensor(bias)})
    return nn.Sequential(layer, Step())


# --- C: models, layers, activations -----------------------------------------------------------------------------------
def test_c01_perceptrons_of_or_and_and() -> None:
    assert neuron([-0.5], [1.0, 1.0])(BOTH)[:, 0].tolist() == [0, 1, 1, 1]
    assert neuron([-1.5], [1.0, 1.0])(BOTH)[:, 0].tolist() == [0, 0, 0, 1]


def test_c02_xor_by_hand() -> None:
    network = nn.Sequential(neuron([-0.5, -0.5], [1.0, -1.0], [-1.0, 1.0]), neuron([-0.5], [1.0, 1.0]))
    assert network(BOTH)[:, 0].tolist() == [0, 1, 1, 0]


def test_c03_two_linear_layers_are_one() -> None:
    slalom.manual_seed(0)
    first, second = nn.Linear(3, 7).double(), nn.Linear(7, 2).double()
    one = nn.Linear(3, 2).double()
    one.load_state_dict({"weight": second.weight @ first.weight, "bias": second.weight @ first.bias + second.bias})
    x = slalom.randn(5, 3, dtype="float64")
    np.testing.assert_allclose(second(first(x)).detach().numpy(), one(x).detach().numpy(), rtol=1e-12)


def test_c05_least_squares_and_its_gradient() -> None:
    x, y = ONES_AND_X.numpy().astype(float), LINE.numpy().astype(float)
    exact = np.linalg.solve(x.T @ x, x.T @ y)
    np.testing.assert_allclose(exact, [1.5, 1 / 3], rtol=1e-12)

    def half(w: Tensor) -> Tensor:
        return F.mse_loss(Tensor(x) @ w, Tensor(y), reduction="sum") / 2

    np.testing.assert_allclose(slalom.grad(half)(slalom.zeros(2, dtype="float64")).numpy(), [-23, -10])
    np.testing.assert_allclose(slalom.grad(half)(Tensor(exact)).numpy(), [0, 0], atol=1e-12)


def test_c06_logistic_regression() -> None:
    model = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(model.weight)
    y = tensor([[0.0], [0.0], [1.0]])
    loss = nn.BCELoss(reduction="sum")(slalom.sigmoid(model(ONES_AND_X)), y)
    assert loss.item() == pytest.approx(2.0794415, abs=1e-6)
    loss.backward()
    np.testing.assert_allclose(model.weight.grad.numpy(), [[0, 0.5]], atol=1e-6)
    model.zero_grad()
    nn.BCEWithLogitsLoss(reduction="sum")(model(ONES_AND_X), y).backward()
    np.testing.assert_allclose(model.weight.grad.numpy(), [[0, 0.5]], atol=1e-6)


def test_c07_softmax_regression() -> None:
    z = tensor([[2.0, 1.0, 0.1]], requires_grad=True)
    np.testing.assert_allclose(nn.Softmax(1)(z).detach().numpy(), [[0.659001, 0.242433, 0.098566]], atol=1e-6)
    loss = nn.CrossEntropyLoss()(z, tensor([0]))
    assert loss.item() == pytest.approx(0.417030, abs=1e-6)
    loss.backward()
    np.testing.assert_allclose(z.grad.numpy(), [[-0.340999, 0.242433, 0.098566]], atol=1e-6)


def test_c10_and_c11_xor_is_learned_by_small_sigmoid_layers() -> None:
    slalom.manual_seed(0)
    x = slalom.cat([BOTH, slalom.ones(4, 1)], 1)  # the bias as a column of ones
    y = tensor([[0.0], [1.0], [1.0], [0.0]])
    model = nn.Sequential()
    for inputs, outputs in ((3, 4), (4, 4), (4, 1)):
        model.append(nn.Linear(inputs, outputs, bias=False)).append(nn.Sigmoid())
    for p in model.parameters():
        nn.init.uniform_(p)

    @slalom.compile
    def step() -> Tensor:
        model.zero_grad()
        loss = F.mse_loss(model(x), y, reduction="sum")
        loss.backward()
        with slalom.no_grad():
            for p in model.parameters():
                p -= 1.0 * p.grad
        return loss

    first = step().item()
    for _ in range(3000):
        last = step()
    assert last.item() < 0.01 < first
    assert (model(x) > 0.5).float().tolist() == y.tolist()


def test_c12_to_c15_activations() -> None:
    assert F.softplus(tensor(0.0)).item() == pytest.approx(0.693147, abs=1e-6)
    x = tensor([-1.0, 1.0, 2.0])
    np.testing.assert_allclose(F.gelu(x).numpy(), [-0.158655, 0.841345, 1.954500], atol=1e-6)
    np.testing.assert_allclose(F.gelu(x, "tanh").numpy(), [-0.158808, 0.841192, 1.954598], atol=1e-6)
    assert F.prelu(tensor([-2.0]), tensor([0.25])).item() == -0.5
    z = np.linspace(-3, 3, 7)
    np.testing.assert_allclose(F.tanh(Tensor(z)).numpy(), (1 - np.exp(-2 * z)) / (1 + np.exp(-2 * z)), rtol=1e-12)
    learned, fixed = nn.PReLU(), nn.LeakyReLU()
    assert [p.tolist() for p in learned.parameters()] == [[0.25]] and list(fixed.parameters()) == []
    learned(tensor([-2.0])).sum().backward()
    assert learned.weight.grad.tolist() == [-2]
    assert fixed(tensor(-1.0)).item() == pytest.approx(-0.01)


# --- D: losses and information ----------------------------------------------------------------------------------------
def bits(p: list[float], q: list[float]) -> float:
    """The cross-entropy of two distributions, in bits."""
    return F.cross_entropy(Tensor(q, dtype="float64").log(), Tensor(p, dtype="float64")).item() / math.log(2)


def test_d02_reductions_and_factors() -> None:
    x, y = tensor([1.0, 2.0, 4.0]), tensor([0.0, 2.0, 1.0])
    squared = nn.MSELoss(reduction="none")(x, y)
    assert squared.tolist() == [1, 0, 9] and nn.MSELoss(reduction="sum")(x, y).item() == 10
    lecture = squared.sum() / (2 * len(x))  # 1/(2N) Σ is half of PyTorch's mean
    assert nn.MSELoss()(x, y).item() == pytest.approx(2 * lecture.item())


def test_d03_to_d05_entropy_cross_entropy_perplexity() -> None:
    p, uniform = [0.5, 0.25, 0.25], [1 / 3] * 3
    assert bits(p, p) == pytest.approx(1.5) and bits(p, uniform) == pytest.approx(1.5849625, abs=1e-7)
    assert bits(p, uniform) - bits(p, p) == pytest.approx(0.0849625, abs=1e-7)
    assert 2 ** bits(p, p) == pytest.approx(2.828427, abs=1e-6) and 2 ** bits(p, uniform) == pytest.approx(3)
    assert math.exp(bits(p, uniform) * math.log(2)) == pytest.approx(3)


def test_d04_binary_entropy() -> None:
    theta = slalom.linspace(0.0, 1.0, 101, dtype="float64")
    entropy = nn.BCELoss(reduction="none")(theta, theta).numpy() / math.log(2)
    assert entropy[50] == pytest.approx(1) == entropy.max() and entropy[10] == pytest.approx(0.4689956, abs=1e-7)
    assert entropy[0] == entropy[100] == 0 and entropy.min() == 0


def test_d06_mutual_information() -> None:
    joint = [0.4, 0.1, 0.1, 0.4]
    assert bits(joint, [0.25] * 4) - bits(joint, joint) == pytest.approx(0.278072, abs=1e-6)


# --- S: initialisation ------------------------------------------------------------------------------------------------
def train(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> None:
    for _ in range(steps):
        model.zero_grad()
        F.mse_loss(model(x), y).backward()
        with slalom.no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad


def test_s06_equal_hidden_units_stay_equal() -> None:
    slalom.manual_seed(1)
    x, y = slalom.randn(20, 3), slalom.randn(20, 1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    for p in model.parameters():
        nn.init.constant_(p, 0.3)
    before = model[0].weight.detach().numpy().copy()
    train(model, x, y, 10)
    rows = model[0].weight.detach().numpy()
    np.testing.assert_array_equal(rows, np.repeat(rows[:1], 4, 0))
    assert not np.array_equal(rows, before)
    nn.init.uniform_(model[0].weight, -0.1, 0.1)  # random values break the symmetry
    train(model, x, y, 10)
    rows = model[0].weight.detach().numpy()
    assert len(np.unique(rows[:, 0])) == 4


def test_s07_output_layer_from_data() -> None:
    y = tensor([1.0] * 2 + [0.0] * 8)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1), nn.Flatten(0))
    nn.init.output_bias_(model[2], y, "binary", zero_weight=True)
    assert model[2].bias.item() == pytest.approx(-1.386294, abs=1e-6)
    assert nn.BCEWithLogitsLoss()(model(slalom.randn(10, 3)), y).item() == pytest.approx(0.500402, abs=1e-6)


@pytest.mark.parametrize("name", ["xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_"])
def test_s08_variances(name: str) -> None:
    slalom.manual_seed(0)
    weight = getattr(nn.init, name)(slalom.empty(400, 600)).numpy()
    expected = 2 / (400 + 600) if name.startswith("xavier") else 2 / 600
    assert weight.var() == pytest.approx(expected, rel=0.02)


# --- N: normalisation and dropout -------------------------------------------------------------------------------------
X = tensor([[1.0, 2.0, 3.0], [4.0, 6.0, 8.0]])


def test_n01_batch_norm() -> None:
    layer = nn.BatchNorm1d(3)
    out = layer(X).detach().numpy()
    np.testing.assert_allclose(out, [[-0.999998, -0.999999, -0.999999], [0.999998, 0.999999, 0.999999]], atol=1e-6)
    np.testing.assert_allclose(layer.running_mean.numpy(), [0.25, 0.4, 0.55], rtol=1e-6)
    np.testing.assert_allclose(layer.running_var.numpy(), [1.35, 1.7, 2.15], rtol=1e-6)
    frozen = layer.eval()(X).detach().numpy()
    expected = (X.numpy() - layer.running_mean.numpy()) / np.sqrt(layer.running_var.numpy() + 1e-5)
    np.testing.assert_allclose(frozen, expected, rtol=1e-5)


def test_n02_layer_norm() -> None:
    out = nn.LayerNorm(3)(X).detach().numpy()
    np.testing.assert_allclose(out, [[-1.224736, 0, 1.224736], [-1.224743, 0, 1.224743]], atol=1e-6)


def test_n05_dropout_is_scaled_while_training_and_off_at_evaluation() -> None:
    slalom.manual_seed(0)
    layer, x = nn.Dropout(0.5), slalom.ones(10_000)
    out = layer(x).numpy()
    assert set(np.unique(out)) == {0.0, 2.0} and abs(out.mean() - 1) < 0.05
    assert layer.eval()(x) is x

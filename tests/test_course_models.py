"""Worked examples of the lectures on whole models, and what is right where the slides err or leave a choice open.

The numbers of single layers and losses are in ``test_course_layers``, of optimizers and schedules in
``test_course_optim``, of differentiation in ``test_course_autodiff``. As there, a test's name starts with the item's
number in the collection of examples (A descent and backpropagation, C models, D losses and information, O optimizers,
S initialisation, N normalisation and regularisation, E errors and conflicts of the slides).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

import slalom
from slalom import Tensor, Trainer, nn, optim, tensor
from slalom.data import DataLoader, TensorDataset
from slalom.nn import functional as F

Array = np.ndarray
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((12, 3)), RNG.standard_normal((12, 1))
LINE_X, LINE_Y = np.array([[1.0], [2.0], [3.0]]), np.array([[2.0], [3.0], [5.0]])  # and a column of ones for the bias
XOR_X, XOR_Y = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]]), np.array([[0.0], [1], [1], [0]])


def values(t: Tensor | None) -> Array:
    assert t is not None
    return t.detach().numpy()


def sigma(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


# --- A: descent and backpropagation -----------------------------------------------------------------------------------
def one_weight() -> Trainer:
    """f(x) = w·x from w = 15, to learn y = 10x at the rate 0.1."""
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, 15.0)
    return Trainer(model, loss=nn.MSELoss(), optimizer=optim.SGD(model.parameters(), lr=0.1))


def test_a04_the_trainer_descends_as_by_hand() -> None:
    trainer = one_weight()
    history = trainer.fit((np.array([[1.0]]), np.array([[10.0]])), epochs=4, progress=False)
    assert history["loss"] == pytest.approx([25, 16, 10.24, 6.5536], rel=1e-12)
    assert trainer.model.weight.item() == pytest.approx(12.048, rel=1e-12)


@pytest.mark.parametrize(("iterations", "tol", "done"), [(12, 0.01, 12), (1000, 0.01, 22), (1000, 0.5, 5)])
def test_a18_for_n_iterations_or_until_no_parameter_moves_by_more_than_epsilon(
    iterations: int, tol: float, done: int
) -> None:
    # w after k steps is 10 + 5·0.8ᵏ: step k moves it by 0.8ᵏ⁻¹, which is at most 0.01 from k = 22, 0.5 from k = 5 on.
    trainer = one_weight()
    history = trainer.fit((np.array([[1.0]]), np.array([[10.0]])), epochs=iterations, tol=tol, progress=False)
    assert len(history) == done
    assert trainer.model.weight.item() == pytest.approx(10 + 5 * 0.8**done, rel=1e-12)
    assert (history.stopped is not None) == (done < iterations)


def test_a20_a21_and_e20_rows_of_a_weight_are_outputs() -> None:
    layer = nn.Linear(3, 2).double()
    assert layer.weight.shape == (2, 3)  # w[j, i]: to output j from input i
    w, b = values(layer.weight), values(layer.bias)
    np.testing.assert_allclose(values(layer(Tensor(X))), X @ w.T + b, rtol=1e-12)
    for mode in ("reverse", "forward"):  # rows of a Jacobian are outputs, columns inputs: here the weight itself
        np.testing.assert_allclose(values(slalom.jacobian(layer, mode=mode)(Tensor(X[0]))), w, rtol=1e-12)


def test_a10_a24_a25_e17_and_e26_backpropagation_by_hand() -> None:
    # With a = Wz + b and z = σ(a): δ_k = dL/da_k at the output, δ_j = σ'(a_j) Σ_k w_kj δ_k below, dL/dw_ji = δ_j z_i.
    model = nn.Sequential(nn.Linear(3, 5), nn.Sigmoid(), nn.Linear(5, 4), nn.Sigmoid(), nn.Linear(4, 1)).double()
    layers = list(model)[::2]
    z: list[Array] = []  # what goes into each Linear
    a: list[Array] = []  # its pre-activations
    for layer in layers:
        layer.register_forward_pre_hook(lambda _, args: z.append(values(args[0])))
        layer.register_forward_hook(lambda _, args, out: a.append(values(out)))
    x = tensor(X, requires_grad=True)
    F.mse_loss(model(x), tensor(Y)).backward()
    delta = 2 * (a[2] - Y) / len(Y)
    for i in (2, 1, 0):
        np.testing.assert_allclose(values(layers[i].weight.grad), delta.T @ z[i], rtol=1e-12)
        np.testing.assert_allclose(values(layers[i].bias.grad), delta.sum(0), rtol=1e-12)
        delta = delta @ values(layers[i].weight)
        if i > 0:
            np.testing.assert_allclose(z[i], sigma(a[i - 1]), rtol=1e-12)
            delta = delta * z[i] * (1 - z[i])  # E17: σ' from the activation, not from a
    np.testing.assert_allclose(values(x.grad), delta, rtol=1e-12)


def test_a16_a17_and_e14_examples_one_by_one_divided_by_their_number_are_the_batch() -> None:
    one, all_ = nn.Linear(3, 1).double(), nn.Linear(3, 1).double()
    all_.load_state_dict(one.state_dict())
    for i in range(len(X)):
        F.mse_loss(one(Tensor(X[i])), Tensor(Y[i])).backward()
    F.mse_loss(all_(Tensor(X)), Tensor(Y)).backward()
    optim.SGD(one.parameters(), lr=0.1 / len(X)).step()
    optim.SGD(all_.parameters(), lr=0.1).step()
    for p, q in zip(one.parameters(), all_.parameters(), strict=True):
        np.testing.assert_allclose(values(p), values(q), rtol=1e-12)


def test_e19_backward_computes_gradients_and_step_updates_weights() -> None:
    model = nn.Linear(3, 1).double()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    before = values(model.weight).copy()

    def backward() -> Array:
        F.mse_loss(model(Tensor(X)), Tensor(Y)).backward()
        np.testing.assert_array_equal(values(model.weight), before)
        return values(model.weight.grad).copy()

    gradient, again = backward(), backward()
    np.testing.assert_allclose(again, 2 * gradient, rtol=1e-12)  # they add up until zero_grad
    optimizer.step()
    np.testing.assert_array_equal(values(model.weight.grad), again)
    np.testing.assert_allclose(values(model.weight), before - 0.1 * again, rtol=1e-12)


# --- C: models --------------------------------------------------------------------------------------------------------
def negative_log_likelihood(w: Tensor, spread: float) -> Tensor:
    """−ln Π N(y; x·w, spread²), from the densities themselves."""
    density = (-((Tensor(Y) - Tensor(X) @ w) ** 2) / (2 * spread**2)).exp() / math.sqrt(2 * math.pi * spread**2)
    return -density.log().sum()


def test_c04_a_gaussian_likelihood_is_the_squared_error() -> None:
    w, spread = tensor([[0.3], [-1.0], [0.5]], dtype="float64"), 1.7
    likelihood = slalom.grad(lambda w: negative_log_likelihood(w, spread))(w)
    squared = slalom.grad(lambda w: F.mse_loss(Tensor(X) @ w, Tensor(Y)))(w)
    np.testing.assert_allclose(values(likelihood), values(squared) * len(X) / (2 * spread**2), rtol=1e-10)


def test_c05_descent_ends_at_the_analytic_solution() -> None:
    model = nn.Linear(1, 1).double()
    trainer = Trainer(model, loss=nn.MSELoss(), optimizer=optim.SGD(model.parameters(), lr=0.15))
    trainer.fit((LINE_X, LINE_Y), batch_size=None, epochs=5000, tol=1e-9, progress=False)
    assert (model.weight.item(), model.bias.item()) == pytest.approx((1.5, 0.333333), abs=5e-7)
    design = tensor(np.hstack([LINE_X, np.ones((3, 1))]))

    def half(w: Tensor) -> Tensor:
        return ((design @ w - Tensor(LINE_Y)) ** 2).sum() / 2

    # The Hessian is XᵀX: one step of Newton's method from anywhere is w = (XᵀX)⁻¹Xᵀy.
    zero = slalom.zeros(2, 1, dtype="float64")
    curvature = values(slalom.hessian(half)(zero)).reshape(2, 2)
    np.testing.assert_allclose(curvature, [[14, 6], [6, 3]], rtol=1e-12)
    newton = np.linalg.solve(curvature, -values(slalom.grad(half)(zero)))
    np.testing.assert_allclose(newton.ravel(), [1.5, 1 / 3], rtol=1e-10)


CLASSES = RNG.integers(0, 4, 12)
REGRESSIONS: dict[str, tuple[Array, nn.Module, Callable[[Tensor, Tensor], Tensor]]] = {
    "linear": (Y, nn.Identity(), lambda a, y: F.mse_loss(a, y, reduction="sum") / 2),
    "logistic": ((Y > 0).astype(float), nn.Sigmoid(), nn.BCEWithLogitsLoss(reduction="sum")),
    "logistic, probabilities": (
        (Y > 0).astype(float),
        nn.Sigmoid(),
        lambda a, y: F.binary_cross_entropy(a.sigmoid(), y, reduction="sum"),
    ),
    "softmax": (np.eye(4)[CLASSES], nn.Softmax(1), nn.CrossEntropyLoss(reduction="sum")),
    "softmax, class numbers": (
        np.eye(4)[CLASSES],
        nn.Softmax(1),
        lambda a, y: F.cross_entropy(a, y.argmax(1), reduction="sum"),
    ),
}


@pytest.mark.parametrize("name", REGRESSIONS)
def test_c04_c06_c07_and_c08_one_gradient_for_three_regressions(name: str) -> None:
    target, link, loss = REGRESSIONS[name]
    inputs, outputs = X.shape[1], target.shape[1]
    model = nn.Linear(inputs, outputs).double()
    assert sum(p.numel() for p in model.parameters()) == (inputs + 1) * outputs
    a = model(Tensor(X))
    loss(a, Tensor(target)).backward()
    with_ones = np.hstack([X, np.ones((len(X), 1))])
    expected = with_ones.T @ (values(link(a)) - target)  # Xᵀ(h(Xw) − y); the bias is the weight of a column of ones
    np.testing.assert_allclose(values(model.weight.grad).T, expected[:-1], rtol=1e-10)
    np.testing.assert_allclose(values(model.bias.grad), expected[-1], rtol=1e-10)


def test_c09_three_layers() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    w, b = ([values(p) for p in model.parameters() if p.ndim == ndim] for ndim in (2, 1))
    h1 = np.maximum(X @ w[0].T + b[0], 0)
    h2 = np.tanh(h1 @ w[1].T + b[1])
    np.testing.assert_allclose(values(model(Tensor(X))), h2 @ w[2].T + b[2], rtol=1e-12)


class CourseNet(nn.Module):
    """The course's class ``NeuralNetwork``: d → 4 → 4 → 1 sigmoids without biases, each weight (…, inputs, outputs)."""

    def __init__(self, *weights: Array) -> None:
        super().__init__()
        self.w1, self.w2, self.w3 = map(nn.Parameter, weights)

    def forward(self, x: Tensor) -> Tensor:
        for w in (self.w1, self.w2, self.w3):
            x = (x @ w).sigmoid()
        return x


def course_weights(inputs: int, seed: int) -> list[Array]:
    """Uniform in [0, 1), as the class draws them."""
    random = np.random.RandomState(seed)
    return [random.rand(*shape) for shape in ((inputs, 4), (4, 4), (4, 1))]


def with_bias_column(x: Array) -> Array:
    return np.hstack([x, np.ones((len(x), 1))])


def test_c10_e17_and_e18_the_class_of_the_course_line_by_line() -> None:
    # Its ``+=`` is right because it uses (y − output); its ``sigmoid_derivative(x) = x·(1 − x)`` takes the activation.
    x = with_bias_column(XOR_X)
    w1, w2, w3 = course_weights(3, seed=0)
    model = CourseNet(w1.copy(), w2.copy(), w3.copy())
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    for _ in range(20):
        layer1 = sigma(x @ w1)
        layer2 = sigma(layer1 @ w2)
        output = sigma(layer2 @ w3)
        d3 = 2 * (XOR_Y - output) * output * (1 - output)
        d2 = d3 @ w3.T * layer2 * (1 - layer2)
        d1 = d2 @ w2.T * layer1 * (1 - layer1)
        w1 += 0.1 * x.T @ d1
        w2 += 0.1 * layer1.T @ d2
        w3 += 0.1 * layer2.T @ d3
        optimizer.zero_grad()
        F.mse_loss(model(Tensor(x)), Tensor(XOR_Y), reduction="sum").backward()
        optimizer.step()
    for found, expected in zip(model.parameters(), (w1, w2, w3), strict=True):
        np.testing.assert_allclose(values(found), expected, rtol=1e-11)


def test_c12_sigmoid_saturates_and_is_not_centred_and_relu_dies() -> None:
    slope = slalom.grad(lambda z: z.sigmoid().sum())(tensor([-10.0, 0.0, 10.0], dtype="float64"))
    np.testing.assert_allclose(values(slope), [4.5396e-5, 0.25, 4.5396e-5], rtol=1e-4)
    symmetric = slalom.linspace(-4.0, 4.0, 9, dtype="float64")
    assert symmetric.sigmoid().mean().item() == pytest.approx(0.5)
    assert symmetric.tanh().mean().item() == pytest.approx(0, abs=1e-15)
    layer = nn.Linear(3, 1).double()
    nn.init.constant_(layer.bias, -100.0)
    layer(Tensor(X)).relu().sum().backward()
    assert not values(layer.weight.grad).any() and layer.bias.grad.tolist() == [0]


def phi(z: Array) -> Array:
    """The standard normal distribution function."""
    return np.vectorize(lambda v: 0.5 * (1 + math.erf(v / math.sqrt(2))))(z)


Function = Callable[[Array], Array]


def bent(slope: float) -> tuple[Function, Function]:
    """max(z, 0) + slope·min(z, 0), and its derivative."""
    return lambda z: np.maximum(z, 0) + slope * np.minimum(z, 0), lambda z: np.where(z > 0, 1, slope)


DERIVATIVES: dict[str, tuple[Callable[[Tensor], Tensor], Function, Function]] = {
    "sigmoid": (F.sigmoid, sigma, lambda z: sigma(z) * (1 - sigma(z))),
    "ReLU": (F.relu, *bent(0.0)),
    "leaky ReLU": (F.leaky_relu, *bent(0.01)),
    "pReLU": (lambda z: F.prelu(z, tensor([0.3], dtype="float64")), *bent(0.3)),
    "tanh": (F.tanh, lambda z: (1 - np.exp(-2 * z)) / (1 + np.exp(-2 * z)), lambda z: 1 - np.tanh(z) ** 2),
    "softplus": (F.softplus, lambda z: np.log(1 + np.exp(z)), sigma),
    "GELU": (F.gelu, lambda z: z * phi(z), lambda z: phi(z) + z * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_c12_and_c13_activations_and_their_derivatives(name: str) -> None:
    function, formula, derivative = DERIVATIVES[name]
    z = np.linspace(-4, 4, 24)  # without 0, where some have no derivative
    np.testing.assert_allclose(values(function(Tensor(z))), formula(z), rtol=1e-11)
    np.testing.assert_allclose(values(slalom.grad(lambda z: function(z).sum())(Tensor(z))), derivative(z), rtol=1e-11)


def test_e16_a_sigmoid_is_the_softmax_of_two_classes() -> None:
    z, y = tensor(Y[:, 0]), tensor((X[:, 0] > 0).astype(float))
    logits = slalom.stack([slalom.zeros_like(z), z], 1)
    np.testing.assert_allclose(values(logits.softmax(1)[:, 1]), values(z.sigmoid()), rtol=1e-12)
    both = [F.cross_entropy(logits, y.long()).item(), F.binary_cross_entropy_with_logits(z, y).item()]
    assert both[0] == pytest.approx(both[1], rel=1e-12)


# --- D: losses and information ----------------------------------------------------------------------------------------
def entropy(p: Tensor, q: Tensor | None = None) -> Tensor:
    """−Σ p·log₂ q, the cross-entropy in bits; of p itself by default. What never happens adds nothing."""
    return -(p * (p if q is None else q).log2()).where(p > 0, 0.0).sum()


def distribution(*p: float) -> Tensor:
    return tensor(p, dtype="float64")


def test_d02_losses_are_their_formulas() -> None:
    y, mu = tensor((Y > 0).astype(float)), tensor(sigma(X[:, :1]))
    formula = -(y * mu.log() + (1 - y) * (1 - mu).log()).sum().item()
    assert nn.BCELoss(reduction="sum")(mu, y).item() == pytest.approx(formula, rel=1e-12)
    assert nn.BCEWithLogitsLoss(reduction="sum")(tensor(X[:, :1]), y).item() == pytest.approx(formula, rel=1e-12)
    logits, one_hot = tensor(X), np.eye(3)[CLASSES % 3]
    formula = -(tensor(one_hot) * logits.softmax(1).log()).sum().item()
    assert nn.CrossEntropyLoss(reduction="sum")(logits, tensor(CLASSES % 3)).item() == pytest.approx(formula, rel=1e-12)
    assert nn.CrossEntropyLoss(reduction="sum")(logits, tensor(one_hot)).item() == pytest.approx(formula, rel=1e-12)


@pytest.mark.parametrize(
    ("lecture", "factor"),
    [
        (lambda a, y: F.mse_loss(a, y) / 2, 1 / 3),  # 1/(2N) Σ
        (F.mse_loss, 2 / 3),  # the mean, PyTorch's default
        (lambda a, y: F.mse_loss(a, y, reduction="sum"), 2.0),
        (lambda a, y: F.mse_loss(a, y, reduction="sum") / 2, 1.0),  # its gradient is the slides' Xᵀ(Xw − y)
    ],
    ids=["half mean", "mean", "sum", "half sum"],
)
def test_e13_a_gradient_is_its_reductions(lecture: Callable[[Tensor, Tensor], Tensor], factor: float) -> None:
    design = tensor(np.hstack([LINE_X, np.ones((3, 1))]))
    gradient = slalom.grad(lambda w: lecture(design @ w, tensor(LINE_Y)))(slalom.zeros(2, 1, dtype="float64"))
    np.testing.assert_allclose(values(gradient).ravel(), factor * np.array([-23, -10]), rtol=1e-12)


def test_e14_with_means_a_rate_does_not_depend_on_the_batch_size() -> None:
    model = nn.Linear(3, 1).double()

    def gradient(copies: int, reduction: str) -> Array:
        model.zero_grad()
        x, y = Tensor(np.tile(X, (copies, 1))), Tensor((np.tile(Y, (copies, 1)) > 0).astype(float))
        nn.BCEWithLogitsLoss(reduction=reduction)(model(x), y).backward()
        return values(model.weight.grad).copy()

    np.testing.assert_allclose(gradient(5, "mean"), gradient(1, "mean"), rtol=1e-10)
    np.testing.assert_allclose(gradient(5, "sum"), 5 * gradient(1, "sum"), rtol=1e-10)


def test_d03_entropy_in_bits() -> None:
    p, uniform = distribution(0.5, 0.25, 0.25), slalom.full((3,), 1 / 3, dtype="float64")
    assert entropy(p).item() == pytest.approx(1.5, rel=1e-12)
    assert entropy(p, uniform).item() == pytest.approx(1.5849625, abs=5e-8)
    assert (entropy(p, uniform) - entropy(p)).item() == pytest.approx(0.0849625, abs=5e-8)


def test_d03_entropy_is_largest_for_the_uniform_and_smallest_for_a_certain_one() -> None:
    assert entropy(distribution(0.0, 1.0, 0.0)).item() == 0
    uniform = slalom.zeros(3, dtype="float64")  # as logits

    def of_logits(z: Tensor) -> Tensor:
        return entropy(z.softmax(0))

    assert of_logits(uniform).item() == pytest.approx(math.log2(3), rel=1e-12)
    np.testing.assert_allclose(values(slalom.grad(of_logits)(uniform)), np.zeros(3), atol=1e-15)
    curvature = np.linalg.eigvalsh(values(slalom.hessian(of_logits)(uniform)))
    assert (curvature[:2] < -0.1).all() and curvature[2] == pytest.approx(0, abs=1e-12)  # 0: a shift of all logits


def test_d04_binary_entropy() -> None:
    def binary(theta: Tensor) -> Tensor:
        return entropy(slalom.stack([theta, 1 - theta]))

    assert [binary(distribution(t)).item() for t in (0.0, 0.5, 1.0)] == [0, 1, 0]
    assert binary(distribution(0.1)).item() == pytest.approx(0.4689956, abs=5e-8)
    assert slalom.grad(binary)(tensor(0.5, dtype="float64")).item() == pytest.approx(0, abs=1e-15)
    assert slalom.hessian(binary)(tensor(0.5, dtype="float64")).item() == pytest.approx(-4 / math.log(2))


def test_d05_and_e23_perplexity_needs_the_unit_of_its_entropy() -> None:
    p, uniform = distribution(0.5, 0.25, 0.25), slalom.full((3,), 1 / 3, dtype="float64")
    assert 2 ** entropy(p).item() == pytest.approx(2.828427, abs=5e-7)
    bits = entropy(p, uniform).item()
    nats = F.cross_entropy(uniform.log(), p).item()  # losses are in nats
    assert nats == pytest.approx(bits * math.log(2), rel=1e-12)
    assert 2**bits == pytest.approx(3) == math.exp(nats)
    assert math.exp(bits) == pytest.approx(4.879, abs=1e-3)  # what mixing the units would give


def test_d06_divergence_and_mutual_information() -> None:
    def divergence(p: Tensor, q: Tensor) -> float:
        return (entropy(p, q) - entropy(p)).item()

    joint = tensor([[0.4, 0.1], [0.1, 0.4]], dtype="float64")
    independent = joint.sum(1)[:, None] * joint.sum(0)
    assert divergence(joint, independent) == pytest.approx(0.278072, abs=5e-7)
    assert divergence(independent, independent) == 0
    drawn = Tensor(np.random.default_rng(1).dirichlet(np.ones(5), 40))
    assert all(divergence(p, q) > 0 for p, q in zip(drawn[::2], drawn[1::2], strict=True))


def test_d07_squared_error_is_not_convex_under_a_sigmoid() -> None:
    one = tensor(1.0, dtype="float64")

    def curvature(loss: Callable[[Tensor], Tensor], *w: float) -> Array:
        return np.linalg.eigvalsh(values(slalom.hessian(loss)(tensor(w, dtype="float64"))))

    def squared(w: Tensor) -> Tensor:
        return F.mse_loss(w[0].sigmoid(), one)

    def likelihood(w: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(w[0], one)

    def two_weights(w: Tensor) -> Tensor:  # ŷ = w₁·σ(w₀·x) of A08
        return F.mse_loss(w[1] * (w[0] * 1.5).sigmoid(), one)

    assert curvature(squared, -3.0) < 0 < curvature(squared, 1.0)
    assert all(curvature(likelihood, w) > 0 for w in (-3.0, 0.0, 1.0, 3.0))
    lowest, highest = curvature(two_weights, 0.5, 2.0)
    assert lowest < 0 < highest


@pytest.mark.parametrize(
    ("function", "signs"),
    [
        (lambda w: (w**2).sum(), (1, 1)),
        (lambda w: -(w**2).sum(), (-1, -1)),
        (lambda w: w[0] ** 2 - w[1] ** 2, (-1, 1)),
        (lambda w: (w**4).sum(), (0, 0)),  # E15: a minimum all the same; a positive Hessian is sufficient only
    ],
    ids=["minimum", "maximum", "saddle", "fourth power"],
)
def test_d08_and_e15_stationary_points(function: Callable[[Tensor], Tensor], signs: tuple[int, int]) -> None:
    origin = slalom.zeros(2, dtype="float64")
    assert slalom.grad(function)(origin).tolist() == [0, 0]
    assert tuple(np.sign(np.linalg.eigvalsh(values(slalom.hessian(function)(origin))))) == signs


# --- O: descent by batches --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("batch_size", [1, 3, 4, 12])
def test_o01_the_mean_of_all_batches_gradients_is_that_of_the_whole(batch_size: int) -> None:
    model = nn.Linear(3, 1).double()
    whole = slalom.autograd.grad(F.mse_loss(model(Tensor(X)), Tensor(Y)), model.weight)
    loader = DataLoader(TensorDataset(tensor(X), tensor(Y)), batch_size=batch_size, shuffle=True)
    batches = [values(slalom.autograd.grad(F.mse_loss(model(x), y), model.weight)[0]) for x, y in loader]
    assert len(batches) == 12 // batch_size
    np.testing.assert_allclose(np.mean(batches, 0), values(whole[0]), rtol=1e-10)
    assert batch_size == 12 or np.ptp(batches, 0).min() > 0.01  # each alone is noisy


def test_o18_momentum_leaves_a_saddle_sooner() -> None:
    distances = []
    for momentum in (0.0, 0.9):
        w = tensor([1.0, 1e-6], dtype="float64", requires_grad=True)
        optimizer = optim.SGD([w], lr=0.01, momentum=momentum)
        for _ in range(150):
            optimizer.zero_grad()
            (w[0] ** 2 - w[1] ** 2).backward()
            optimizer.step()
        distances.append(abs(w[1].item()))
    assert distances[0] == pytest.approx(1e-6 * 1.02**150) and distances[1] > 100 * distances[0]


def test_e07_and_e08_defaults_are_pytorchs() -> None:
    w = tensor(1.0, requires_grad=True)
    adam, decoupled = (kind([w]).param_groups[0] for kind in (optim.Adam, optim.AdamW))
    for group, decay in ((adam, 0.0), (decoupled, 0.01)):
        found = {name: group[name] for name in ("lr", "betas", "eps", "weight_decay", "eps_inside_sqrt")}
        assert found == {
            "lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": decay, "eps_inside_sqrt": False
        }  # fmt: skip


# --- S: initialisation ------------------------------------------------------------------------------------------------
def test_s06_equal_hidden_units_stay_equal_under_adam_too() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    for p in model.parameters():
        nn.init.constant_(p, 0.3)
    Trainer(model, nn.MSELoss(), optim.Adam(model.parameters(), lr=0.1)).fit((X, Y), epochs=25, progress=False)
    for columns in (values(model[0].weight).T, values(model[2].weight)):
        assert np.ptp(columns, 1).max() == 0
    assert not np.allclose(values(model[0].weight)[0], 0.3, atol=0.05)


NAIVE: dict[str, tuple[Array, nn.Module, float]] = {
    "regression": (np.array([[1.0], [3.0], [5.0], [11.0]]), nn.MSELoss(), 14.0),  # the variance
    "binary": (np.array([[1.0]] * 2 + [[0.0]] * 8), nn.BCEWithLogitsLoss(), 0.500402),
    "multiclass": (np.array([0, 0, 1, 2]), nn.CrossEntropyLoss(), 1.5 * math.log(2)),  # D03's entropy, in nats
}


@pytest.mark.parametrize("task", NAIVE)
def test_s07_the_first_loss_is_the_naive_baseline(task: str) -> None:
    target, loss, baseline = NAIVE[task]
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 3 if task == "multiclass" else 1)).double()
    nn.init.output_bias_(model[2], target, task, zero_weight=True)
    assert Trainer(model, loss).evaluate((X[: len(target)], target))["loss"] == pytest.approx(baseline, abs=5e-7)


# --- N: normalisation and regularisation ------------------------------------------------------------------------------
def test_n01_and_e12_batch_norm_divides_by_n_while_training_and_keeps_n_minus_1() -> None:
    layer = nn.BatchNorm1d(3).double()
    gamma, beta = np.array([2.0, 0.5, -1.0]), np.array([0.1, 0.2, 0.3])
    layer.load_state_dict({"weight": gamma, "bias": beta}, strict=False)
    expected = gamma * (X - X.mean(0)) / np.sqrt(X.var(0) + 1e-5) + beta
    np.testing.assert_allclose(values(layer(Tensor(X))), expected, rtol=1e-10)
    mean, variance = 0.1 * X.mean(0), 0.9 + 0.1 * X.var(0, ddof=1)
    np.testing.assert_allclose(values(layer.running_mean), mean, rtol=1e-10)
    np.testing.assert_allclose(values(layer.running_var), variance, rtol=1e-10)
    expected = gamma * (X - mean) / np.sqrt(variance + 1e-5) + beta
    np.testing.assert_allclose(values(layer.eval()(Tensor(X))), expected, rtol=1e-10)


def test_n02_and_e11_layer_norm_has_a_mean_for_each_example_and_a_scale_for_each_feature() -> None:
    layer = nn.LayerNorm(3).double()
    gamma, beta = np.array([2.0, 0.5, -1.0]), np.array([0.1, 0.2, 0.3])
    layer.load_state_dict({"weight": gamma, "bias": beta})
    mean, variance = X.mean(1, keepdims=True), X.var(1, keepdims=True)
    expected = gamma * (X - mean) / np.sqrt(variance + 1e-5) + beta
    np.testing.assert_allclose(values(layer(Tensor(X))), expected, rtol=1e-10)


def test_n04_weight_decay_is_the_gradient_of_a_penalty() -> None:
    decayed, penalised, sparse = (nn.Linear(3, 1, bias=False).double() for _ in range(3))
    start = np.array([[0.5, -1.0, 2.0]])
    for model in (decayed, penalised, sparse):
        model.load_state_dict({"weight": start})
    zero = Tensor(np.zeros_like(X))  # so that nothing but the penalty moves the weights
    for model, decay, penalty in (
        (decayed, 0.1, lambda w: 0 * w.sum()),
        (penalised, 0.0, lambda w: 0.05 * (w**2).sum()),
        (sparse, 0.0, lambda w: 0.05 * w.abs().sum()),
    ):
        optimizer = optim.SGD(model.parameters(), lr=0.5, weight_decay=decay)
        for _ in range(3):
            optimizer.zero_grad()
            (F.mse_loss(model(zero), Tensor(np.zeros_like(Y))) + penalty(model.weight)).backward()
            optimizer.step()
    np.testing.assert_allclose(values(decayed.weight), start * 0.95**3, rtol=1e-12)
    np.testing.assert_allclose(values(penalised.weight), start * 0.95**3, rtol=1e-12)
    np.testing.assert_allclose(values(sparse.weight), start - np.sign(start) * 0.075, rtol=1e-12)


def test_n05_and_e10_survivors_are_scaled_while_training_forward_and_backward() -> None:
    layer = nn.Dropout(0.25)
    x = slalom.full((100, 100), 3.0, dtype="float64", requires_grad=True)
    out = layer(x)
    out.sum().backward()
    kept = values(out) != 0
    assert kept.mean() == pytest.approx(0.75, abs=0.02)  # the rate is the share that is zeroed
    np.testing.assert_allclose(values(out), np.where(kept, 3 / 0.75, 0.0), rtol=1e-12)
    np.testing.assert_allclose(values(x.grad), np.where(kept, 1 / 0.75, 0.0), rtol=1e-12)
    x.grad = None
    layer.eval()(x).sum().backward()
    np.testing.assert_array_equal(values(x.grad), np.ones((100, 100)))


def test_n05_evaluation_is_the_mean_of_what_training_sees() -> None:
    model = nn.Sequential(nn.Dropout(0.2), nn.Linear(3, 1)).double()  # linear, so that means pass through it
    x = tensor(np.repeat(X[:1], 40_000, 0))
    seen = values(model(x))
    expected = model.eval()(Tensor(X[:1])).item()
    assert seen.std() > 0.05 and abs(seen.mean() - expected) < 5 * seen.std() / math.sqrt(len(seen))

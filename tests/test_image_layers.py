"""Convolutions, pooling, dropout of channels and the perceptron, beyond what every row of the tables is tested for."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

import slalom
from slalom import nn, tensor
from slalom.core.functional import conv, pool
from slalom.nn import functional as F

INF, NAN = math.inf, math.nan


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


def gradient(function: Any, x: Any) -> Any:
    """The gradient of the sum of all that ``function`` returns."""
    return slalom.grad(lambda t: function(t).sum())(tensor(x)).numpy()


# --- convolution ------------------------------------------------------------------------------------------------------
def test_a_convolution_is_its_definition() -> None:
    x, w, b = normal(2, 4, 7, 6), normal(6, 2, 3, 2, seed=1), normal(6, seed=2)
    out = F.conv2d(tensor(x), tensor(w), tensor(b), stride=(2, 1), padding=(1, 2), dilation=(1, 3), groups=2).numpy()
    wide = np.zeros((2, 4, 9, 10))
    wide[:, :, 1:8, 2:8] = x
    expected = np.empty_like(out)
    for n, o, i, j in itertools.product(*map(range, out.shape)):
        seen = wide[n, 2 * (o // 3) : 2 * (o // 3) + 2, 2 * i : 2 * i + 3, j : j + 4 : 3]
        expected[n, o, i, j] = b[o] + (w[o] * seen).sum()
    np.testing.assert_allclose(out, expected, rtol=1e-12)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_transposed_convolution_is_the_transpose(rank: int) -> None:
    """⟨conv(x), y⟩ = ⟨x, convᵀ(y)⟩."""
    shape = (2, 4, *(9, 6, 5)[:rank])
    x, w = tensor(normal(*shape)), tensor(normal(6, 2, *(3, 2, 2)[:rank], seed=1))
    there, back = (getattr(F, f"conv{t}{rank}d") for t in ("", "_transpose"))
    y = there(x, w, stride=2, padding=1, groups=2)
    z = tensor(normal(*y.shape, seed=2))
    left = [
        n - ((m - 1) * 2 - 2 + k) for n, m, k in zip(x.shape[2:], y.shape[2:], w.shape[2:], strict=True)
    ]  # what the stride left out
    returned = back(z, w, stride=2, padding=1, output_padding=left, groups=2)
    assert returned.shape == x.shape
    assert float((y * z).sum()) == pytest.approx(float((x * returned).sum()), rel=1e-12)


def test_same_padding_puts_an_odd_element_at_the_end() -> None:
    kernel = tensor([[[0.0, 1.0]]])
    np.testing.assert_array_equal(F.conv1d(tensor([[1.0, 2.0, 3.0]]), kernel, padding="same").numpy(), [[2, 3, 0]])


def test_columns_are_made_in_blocks_where_no_gradient_needs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = nn.Conv2d(2, 3, 3, padding=1), tensor(normal(7, 2, 5, 5).astype(np.float32))
    whole = layer(x).detach().numpy()
    rows = []
    product = conv._product

    def counted(x: Any, *rest: Any) -> Any:
        rows.append(x.shape[0])
        return product(x, *rest)

    monkeypatch.setattr(conv, "_product", counted)
    monkeypatch.setattr(conv, "BLOCK", 2 * 3 * 3 * 7 * 7 * 2)  # of a padded image 7 × 7 = 49 places at most
    layer(x)
    with slalom.no_grad():
        layer(x)
        frozen = layer.requires_grad_(False)(x)
    assert rows == [7, *[2, 2, 2, 1] * 2]
    np.testing.assert_allclose(frozen.numpy(), whole, rtol=1e-6, atol=1e-6)


def test_no_example_is_an_output_of_none() -> None:
    layer = nn.Conv2d(2, 3, 3)
    out = layer(slalom.zeros(0, 2, 5, 5))
    out.sum().backward()
    assert out.shape == (0, 3, 3, 3)
    assert not layer.weight.grad.numpy().any()


@pytest.mark.parametrize("staged", [False, True])
def test_a_small_network_learns_bars(staged: bool) -> None:
    """Horizontal against vertical lines, in any place, of which no linear model sees the difference."""
    slalom.manual_seed(0)
    images, labels = np.zeros((16, 1, 8, 8), np.float32), np.arange(16) % 2
    for n in range(16):
        images[(n, 0, n // 2) if n % 2 else (n, 0, slice(None), n // 2)] = 1
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip
    optimizer = slalom.optim.Adam(model.parameters(), lr=0.02)
    x, y = tensor(images), tensor(labels)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run = slalom.compile(step) if staged else step
    losses = [float(run(x, y)) for _ in range(60)]
    assert losses[-1] < 0.1 * losses[0]
    assert (model(x).argmax(1) == y).all()


# --- pooling ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("k", [2, 3, 5, 17, 20])
def test_ties_give_the_whole_gradient_to_the_first(k: int) -> None:
    x = np.zeros((1, 1, k, k))
    (grad,) = gradient(lambda t: F.max_pool2d(t, k), x)
    assert grad[0, 0, 0] == 1 and grad.sum() == 1
    x[0, 0, 0, 1] = x[0, 0, 1, 0] = 1.0  # row by row, the first is that of the upper row
    (grad,) = gradient(lambda t: F.max_pool2d(t, k), x)
    assert grad[0, 0, 1] == 1 and grad.sum() == 1
    (grad,) = gradient(lambda t: F.adaptive_max_pool2d(t, 1), x)
    assert grad[0, 0, 1] == 1 and grad.sum() == 1


@pytest.mark.parametrize(
    ("k", "stride", "padding", "dilation"), [(3, 2, 1, 1), (20, 3, 4, 1), (18, 18, 9, 1), (2, 1, 1, 3)]
)
def test_places_are_those_of_the_maxima(k: int, stride: int, padding: int, dilation: int) -> None:
    x = np.random.default_rng(k).integers(-3, 3, (2, 3, 40)).astype(float)
    values, places = F.max_pool1d(tensor(x), k, stride, padding, dilation, True, True)
    for n, c, i in itertools.product(*map(range, values.shape)):
        seen = [p for p in range(i * stride - padding, i * stride - padding + k * dilation, dilation) if 0 <= p < 40]
        best = max(seen, key=lambda p: (x[n, c, p], -p))
        assert (values[n, c, i].item(), places[n, c, i].item()) == (x[n, c, best], best)


def test_padding_is_never_chosen() -> None:
    x = tensor([[-INF, -INF, -INF]])
    values, places = F.max_pool1d(x, 3, 1, 1, return_indices=True)
    assert places.tolist() == [[0, 0, 1]] and values.tolist() == [[-INF] * 3]
    np.testing.assert_array_equal(gradient(lambda t: F.max_pool1d(t, 3, 1, 1), x.numpy()), [[2, 1, 0]])
    assert F.max_pool1d(tensor([[-5, -4]]), 2, 1, 1).tolist() == [[-5, -4, -4]]  # of integers too


def test_not_a_number_is_the_largest() -> None:
    values, places = F.max_pool1d(tensor([[1.0, NAN, 3.0, 2.0, 5.0, NAN]]), 2, return_indices=True)
    np.testing.assert_array_equal(values.numpy(), [[NAN, 3.0, NAN]])
    assert places.tolist() == [[1, 2, 5]]


def test_drawn_windows_are_steps_apart_and_reach_both_ends() -> None:
    slalom.manual_seed(3)
    x = tensor(np.tile(np.arange(10.0), (4, 5, 1, 1)))  # (4, 5, 1, 10): a maximum tells where its window ends
    pooled = F.fractional_max_pool2d(x, (1, 2), output_size=(1, 6)).numpy()[:, :, 0]
    steps = np.diff(pooled)  # (n − k)/(n' − 1) = 1.6: of 1 and 2
    assert (pooled[..., 0] == 1).all() and (pooled[..., -1] == 9).all() and {*steps.flat} == {1.0, 2.0}
    assert len({tuple(row) for row in pooled.reshape(-1, 6).tolist()}) > 1  # each channel its own


def test_windows_are_drawn_anew_at_each_compiled_call_as_eagerly() -> None:
    layer, x = nn.FractionalMaxPool2d(2, output_ratio=0.6), tensor(normal(2, 3, 12, 11))
    found = []
    for call in (layer, slalom.compile(layer)):
        slalom.manual_seed(7)
        found.append([call(x).numpy() for _ in range(3)])
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0][0] != found[0][1]).any()


@pytest.mark.parametrize(("size", "padding"), [(2, 2), (18, 34)])
def test_a_dilated_window_of_nothing_but_padding_is_as_low_as_its_padding(size: int, padding: int) -> None:
    for x, least in ((tensor([[-3.0, 5.0]]), -INF), (tensor([[-3, 5]]), np.iinfo(np.int64).min)):
        assert F.max_pool1d(x, size, 1, padding, 4).tolist() == [[least, least]]  # taps at −2 and 2, at −1 and 3
    assert gradient(lambda t: F.max_pool1d(t, size, 1, padding, 4), [[-3.0, 5.0]]).tolist() == [[0, 0]]
    assert F.max_pool2d(tensor([[[1.0], [2.0]]]), 2, 1, 1, (1, 2)).tolist() == [[[-INF], [-INF], [-INF]]]


def test_unpooling_checks_places_inside_a_compiled_function_too() -> None:
    back = slalom.compile(lambda values, places: F.max_unpool1d(values, places, 2))
    np.testing.assert_array_equal(back(tensor([[5.0]]), tensor([[1]])).numpy(), [[0, 5]])
    with pytest.raises(slalom.errors.IndexRangeError):
        back(tensor([[5.0], [6.0]]), tensor([[2], [0]]))


def test_means_never_see_what_is_not_theirs() -> None:
    """Infinity in one window is in no other: nothing is multiplied by a mask."""
    x = tensor([[INF, 1.0, 2.0, 3.0, 4.0]])
    np.testing.assert_array_equal(F.adaptive_avg_pool1d(x, 3).numpy(), [[INF, 2.0, 3.5]])
    np.testing.assert_array_equal(F.avg_pool1d(x, 2, 1, 1).numpy(), [[INF, INF, 1.5, 2.5, 3.5, 2.0]])


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_large_windows_are_reduced_as_small_ones(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = tensor(normal(2, 3, 13, 17))
    functions = (
        lambda t: F.adaptive_max_pool2d(t, size),
        lambda t: F.adaptive_avg_pool2d(t, size),
        lambda t: F.max_pool2d(t, 5, 2, 2, 1, True),
        lambda t: F.avg_pool2d(t, 4, 3, 2, True, False),
        lambda t: F.lp_pool2d(t, 2, (3, 5)),
    )
    small = [(f(x).numpy(), gradient(f, x)) for f in functions]
    monkeypatch.setattr(pool, "_FEW", 0)
    for f, (out, grad) in zip(functions, small, strict=True):
        np.testing.assert_allclose(f(x).numpy(), out, rtol=1e-13, atol=1e-14)
        np.testing.assert_allclose(gradient(f, x), grad, rtol=1e-13, atol=1e-14)


def test_the_gradient_of_a_norm_is_0_where_all_is_0() -> None:
    np.testing.assert_array_equal(gradient(lambda t: F.lp_pool1d(t, 2, 2), np.zeros((1, 4))), np.zeros((1, 4)))


# --- dropout of channels ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "shape", "lead"), [
    ("Dropout1d", (40, 50, 3), 2), ("Dropout1d", (2000, 3), 1), ("Dropout2d", (40, 50, 2, 3), 2),
    ("Dropout2d", (40, 50, 3), 2), ("Dropout3d", (40, 50, 2, 1, 3), 2), ("Dropout3d", (2000, 2, 1, 3), 1),
])  # fmt: skip
def test_channels_are_dropped_as_a_whole(name: str, shape: tuple[int, ...], lead: int) -> None:
    slalom.manual_seed(1)
    out = getattr(nn, name)(0.25)(slalom.ones(shape)).numpy()
    channels = out.reshape(*shape[:lead], -1)
    assert (channels == channels[..., :1]).all()
    assert set(np.unique(out)) == {np.float32(0), np.float32(4 / 3)}
    assert abs((channels[..., 0] == 0).mean() - 0.25) < 0.05  # five standard deviations


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_alpha_dropout_keeps_mean_and_variance(p: float) -> None:
    slalom.manual_seed(2)
    x = slalom.randn(400, 500)
    out = nn.AlphaDropout(p)(x).numpy()
    assert abs(out.mean()) < 0.01 and abs(out.var() - 1) < 0.02
    counts = np.unique(out, return_counts=True)[1]
    assert counts.max() == pytest.approx(p * x.numel(), rel=0.02)  # all that were dropped have one value
    assert nn.AlphaDropout(p).eval()(x) is x


def test_feature_alpha_dropout_drops_channels() -> None:
    slalom.manual_seed(3)
    out = nn.FeatureAlphaDropout(0.5)(slalom.zeros(40, 50, 4)).numpy()
    assert (out == out[..., :1]).all() and len(np.unique(out)) == 2


# --- channels and pixels ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(2, 9, 2, 3), (0, 9, 2, 3), (9, 1, 1)])
def test_pixel_unshuffle_undoes_pixel_shuffle(shape: tuple[int, ...]) -> None:
    x = tensor(normal(*shape))
    np.testing.assert_array_equal(F.pixel_unshuffle(F.pixel_shuffle(x, 3), 3).numpy(), x.numpy())
    np.testing.assert_array_equal(gradient(lambda t: F.pixel_shuffle(t, 3), x), np.ones(shape))


# --- the perceptron ---------------------------------------------------------------------------------------------------
CORNERS = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]


def test_a_perceptron_learns_or_and_and_at_once() -> None:
    targets = [[0, 0], [1, 0], [1, 0], [1, 1]]
    layer = nn.Perceptron(2, 2).learn(CORNERS, targets)
    assert layer(tensor(CORNERS)).tolist() == targets
    layer.reset_parameters()
    assert not any(p.detach().numpy().any() for p in layer.parameters())


def test_a_perceptron_without_bias_learns_what_a_line_through_0_parts() -> None:
    x, y = [[1.0, 2.0], [2.0, 1.0], [-1.0, 1.0], [-2.0, -1.0]], [[1], [1], [0], [0]]
    layer = nn.Perceptron(2, 1, bias=False).learn(x, y, lr=0.1)
    assert layer(tensor(x)).tolist() == y


def test_no_perceptron_learns_xor_but_two_layers_hold_it() -> None:
    with pytest.raises(slalom.errors.ConfigError, match=r"learn: examples that are wrong: got \d of 4; needed"):
        nn.Perceptron(2, 1).learn(CORNERS, [[0], [1], [1], [0]])
    hidden, out = (
        nn.Perceptron(2, 2),
        nn.Perceptron(2, 1),
    )  # v₁ = g(−½ + x₁ − x₂), v₂ = g(−½ − x₁ + x₂), g(−½ + v₁ + v₂)
    for layer, weight in ((hidden, [[1.0, -1.0], [-1.0, 1.0]]), (out, [[1.0, 1.0]])):
        layer.load_state_dict({"weight": weight, "bias": [-0.5] * len(weight)})
    assert nn.Sequential(hidden, out)(tensor(CORNERS)).flatten().tolist() == [0, 1, 1, 0]


def test_learn_names_shapes_that_do_not_fit() -> None:
    with pytest.raises(slalom.errors.ShapeError, match=r"learn: .*got shapes \(4, 2\) and \(4,\); needed \(B, 2\) and"):
        nn.Perceptron(2, 1).learn(CORNERS, [0, 1, 1, 1])

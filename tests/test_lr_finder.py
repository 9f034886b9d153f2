"""The learning-rate range test: what it suggests, where it ends, and that it leaves no trace."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import slalom
from slalom import nn, optim
from slalom.errors import ConfigError, DataError, MissingExtraError
from tests.fits import CLASSES, VALUES, N, X, assert_same, classifier, network, regressor, state


@pytest.mark.parametrize("steps_before", [0, 1])
@pytest.mark.parametrize("compiled", [True, False])
def test_leaves_no_trace(compiled, steps_before):
    def run(tested):
        t = classifier(network(dropout=0.3, norm=True), compile=compiled)
        for _ in range(steps_before):
            t.fit((X, CLASSES), batch_size=16, epochs=1, progress=False)
        t.model.eval()
        if tested:
            before, seen = state(t.model), t.optimizer.state_dict()
            moments = {i: {n: v.numpy().copy() for n, v in held.items()} for i, held in seen["state"].items()}
            slalom.manual_seed(5)
            generator = slalom.get_rng_state().tolist()
            t.find_lr((X, CLASSES), batch_size=16)
            assert slalom.get_rng_state().tolist() == generator
            assert_same(state(t.model), before)
            after = t.optimizer.state_dict()
            assert after["param_groups"] == seen["param_groups"]
            assert after["state"].keys() == moments.keys()
            for i, held in moments.items():
                assert_same(held, {n: v.numpy() for n, v in after["state"][i].items()})
            assert (t.step, t.epoch, len(t.history)) == (4 * steps_before, steps_before, steps_before)
            assert not t.model.training and all(p.grad is None for p in t.model.parameters())
        t.fit((X, CLASSES), batch_size=16, epochs=2, progress=False)
        return t

    assert_same(state(run(True).model), state(run(False).model))


def test_a_rate_that_is_a_tensor_and_the_ratio_of_groups_stay():
    model = network()
    rate = slalom.tensor(0.5, dtype="float64")
    groups = [{"params": [*model[0].parameters()], "lr": rate}, {"params": [*model[3].parameters()], "lr": 0.05}]
    optimizer, seen = optim.SGD(groups, lr=1.0), []
    update = optimizer.step
    optimizer.step = lambda: seen.append([float(g["lr"]) for g in optimizer.param_groups]) or update()
    t = slalom.Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optimizer, compile=False)
    curve = t.find_lr((X, CLASSES), steps=12, high=1e-2)
    assert optimizer.param_groups[0]["lr"] is rate and rate.item() == 0.5
    np.testing.assert_allclose([low for low, _ in seen], np.geomspace(1e-7, 1e-2, 12))
    np.testing.assert_allclose([high / low for low, high in seen], 0.1)
    assert curve.reason == "all 12 rates were tried"


def test_the_suggestion_is_where_a_quadratic_bowl_is_left_fastest():
    # f = ½·c·w² has one curvature c: rates far below 1/c do nothing, and from 2/c on the loss grows.
    for curvature in (0.1, 10.0):
        w = nn.Parameter(slalom.tensor([3.0]))
        model = nn.Module()
        model.w = w
        t = slalom.Trainer(
            model,
            step=lambda x, w=w, c=curvature: 0.5 * c * (w * w).sum() + 0 * x.sum(),
            optimizer=optim.SGD([w], lr=1.0),
        )
        curve = t.find_lr((X,), batch_size=N, low=1e-4 / curvature, high=100 / curvature, steps=150)
        assert 0.02 / curvature < curve.suggestion < 1 / curvature
        assert "diverged" in curve.reason and 2 < curve.rates[-1] * curvature < 30
        assert len(curve.rates) == len(curve.losses) == len(curve.smoothed) < 150
        assert w.item() == 3.0


def test_training_at_the_suggestion_learns():
    t = regressor()
    curve = t.find_lr((X, VALUES), batch_size=16, sample_weight=np.ones(N))
    t.optimizer.param_groups[0]["lr"] = curve.suggestion
    t.base_rates = [curve.suggestion]
    history = t.fit((X, VALUES), batch_size=16, epochs=30, progress=False)
    assert history[-1]["loss"] < 0.1 * curve.losses[0]


def test_where_there_is_nothing_to_suggest():
    flat = slalom.Trainer(nn.Linear(4, 1), loss=lambda output, target: 0 * output.sum(), optimizer=None)
    curve = flat.find_lr((X, VALUES), steps=20)
    assert curve.suggestion is None and repr(curve) == "RateCurve(20 steps, suggestion none: all 20 rates were tried)"


def test_a_loss_that_is_not_finite_ends_the_test():
    curve = regressor().find_lr((X, VALUES), high=1e30, steps=20)
    assert len(curve.losses) < 20 and np.isfinite(curve.losses).all()
    bad = X.copy()
    bad[:] = np.nan
    t = regressor()
    with pytest.raises(DataError, match="find_lr: the loss at the rate 1e-07: got not a finite number"):
        t.find_lr((bad, VALUES))
    assert np.isfinite(state(t.model)["weight"]).all()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"low": 0.0}, "low and high: got 0.0 and 10.0"),
        ({"low": 1.0, "high": 0.1}, "got 1.0 and 0.1"),
        ({"steps": 3}, "steps: got 3; needed an integer of at least 10"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_mistakes(options, text):
    with pytest.raises(ConfigError, match=text):
        regressor().find_lr((X, VALUES), **options)


def test_a_plot_needs_matplotlib(monkeypatch):
    curve = regressor().find_lr((X, VALUES), steps=20)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"needed matplotlib. Hint: pip install 'slalom\[report\]'"):
        curve.plot()


def test_a_plot_shows_the_suggestion(tmp_path):
    pytest.importorskip("matplotlib")
    curve = regressor().find_lr((X, VALUES), steps=40)
    axes = curve.plot(tmp_path / "curve.png").axes[0]
    assert (tmp_path / "curve.png").stat().st_size > 1000
    assert [line.get_label() for line in axes.lines][:2] == ["each batch", "smoothed"]
    assert axes.lines[2].get_xdata()[0] == curve.suggestion
    assert axes.get_xscale() == "log"

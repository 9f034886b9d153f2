"""Trainer(penalties=…): training differentiates the loss and the penalties, and reports the loss."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from fits import CLASSES, N, X, assert_close, assert_same, network, state

import slalom
from slalom import Tensor, nn, optim
from slalom.compiler.native import native
from slalom.errors import ConfigError, DivergenceError, ShapeError
from slalom.nn import functional as F
from slalom.train import Callback, Trainer

BOTH = {"*weight": nn.L1Penalty(0.01), "2.*": nn.ElasticNetPenalty(0.1, l1_ratio=0.3)}


def cubes(parameters):
    """A penalty of one's own."""
    return sum((p.abs() ** 3).sum() for p in parameters) * 0.02


def model():
    slalom.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def fitted(penalties, *, epochs=3, batch_size=16, loss=None, callbacks=(), **options) -> Trainer:
    made = model()
    optimizer = optim.SGD(made.parameters(), lr=0.05, momentum=0.9)
    t = Trainer(made, loss or nn.CrossEntropyLoss(), optimizer, penalties=penalties, **options)
    t.fit((X, CLASSES), epochs=epochs, batch_size=batch_size, progress=False, callbacks=list(callbacks))
    return t


class EachStep(Callback):
    """Forces the loop to come back after every step."""

    def on_step_end(self, fit):
        pass


def by_hand(added, *, epochs=3) -> Trainer:
    """A step that adds the penalties itself."""
    made = model()

    def step(x, y):
        return F.cross_entropy(made(x), y) + added(dict(made.named_parameters()))

    t = Trainer(made, optimizer=optim.SGD(made.parameters(), lr=0.05, momentum=0.9), step=step)
    t.fit((X, CLASSES), epochs=epochs, batch_size=16, progress=False)
    return t


def both(p):
    weights = [p["0.weight"], p["2.weight"]]
    return F.l1_penalty(weights, 0.01) + F.elastic_net_penalty([p["2.weight"], p["2.bias"]], 0.1, 0.3)


ADDED = {
    "both": (BOTH, both),
    "l2": ({"0.weight": nn.L2Penalty(0.3)}, lambda p: F.l2_penalty(p["0.weight"], 0.3)),
    "own": ({"?.bias": cubes}, lambda p: cubes([p["0.bias"], p["2.bias"]])),
}


@pytest.mark.parametrize("name", ADDED)
def test_it_is_the_sum_written_by_hand(name):
    penalties, added = ADDED[name]
    ours, theirs = fitted(penalties), by_hand(added)
    assert_close(state(ours.model), state(theirs.model), rtol=1e-6)
    assert ours.step == theirs.step == 3 * -(-N // 16)
    plain = state(fitted(None).model)
    assert all(np.abs(plain[k] - v).max() > 1e-4 for k, v in state(ours.model).items() if "weight" in k)


@pytest.mark.parametrize("options", [{"callbacks": [EachStep()]}, {"compile": False}], ids=["each step", "eager"])
def test_however_the_fit_runs(options):
    assert_close(state(fitted(BOTH).model), state(fitted(BOTH, **options).model), rtol=1e-6)


def test_l2_is_weight_decay():
    decayed = model()
    groups = [{"params": decayed.parameters(), "weight_decay": 0.2}]
    t = Trainer(decayed, nn.CrossEntropyLoss(), optim.SGD(groups, lr=0.05, momentum=0.9))
    t.fit((X, CLASSES), epochs=3, batch_size=16, progress=False)
    assert_close(state(fitted({"*": nn.L2Penalty(0.2)}).model), state(decayed), rtol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_one_update_counts_them_once(reduction):
    loss = nn.CrossEntropyLoss(reduction=reduction)
    small = fitted(BOTH, loss=loss, batch_size=5, accumulate=10, clip_norm=0.5)
    large = fitted(BOTH, loss=loss, batch_size=50, clip_norm=0.5)
    assert small.step == large.step == 3
    assert_close(state(small.model), state(large.model))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_frozen_parameters_stand_still(accumulate):
    made = model()
    made[0].weight.requires_grad = False
    before = state(made)
    t = Trainer(made, nn.CrossEntropyLoss(), penalties={"0.weight": nn.L1Penalty(1.0)}, accumulate=accumulate)
    t.fit((X, CLASSES), epochs=1, progress=False)
    np.testing.assert_array_equal(state(made)["0.weight"], before["0.weight"])
    assert np.abs(state(made)["2.weight"] - before["2.weight"]).max() > 0


def test_what_is_reported_is_the_loss_without():
    made = model()
    t = Trainer(made, nn.CrossEntropyLoss(), optim.SGD(made.parameters(), lr=0.0), penalties={"*": nn.L2Penalty(1e3)})
    history = t.fit((X, CLASSES), validation=(X, CLASSES), batch_size=N, epochs=1, progress=False)
    expected = F.cross_entropy(made(Tensor(X)), Tensor(CLASSES)).item()
    assert history[-1]["loss"] == pytest.approx(expected, rel=1e-6)
    assert history[-1]["val_loss"] == pytest.approx(expected, rel=1e-6)


def test_explain_names_them_and_the_loop_stays_native():
    t = fitted({"*weight": nn.L1Penalty(0.01), "0.bias": cubes})
    said = t.explain()
    assert "penalties: part of the training step: L1Penalty(strength=0.01) on 0.weight, 2.weight; " in said
    assert "test_penalties.cubes on 0.bias" in said
    if native():
        assert said.startswith("loop: tier A")
    deep = nn.Sequential(*[nn.Linear(2, 2) for _ in range(9)])
    assert "0.weight, 1.weight, 2.weight, 6 more" in Trainer(deep, nn.MSELoss(), penalties=BOTH).explain()


def test_another_strength_reaches_the_recorded_step():
    penalty = nn.L2Penalty(0.0)
    t = fitted({"*": penalty}, epochs=1)
    small = t.model[0].weight.abs().sum().item()
    penalty.strength = 2.0
    t.fit((X, CLASSES), epochs=20, batch_size=16, progress=False)
    assert t.model[0].weight.abs().sum().item() < small / 2


def test_a_fit_with_others_is_not_resumed(tmp_path: Path):
    file = tmp_path / "fit.slalom"

    def fit(penalties, **options):
        made = model()
        optimizer = optim.SGD(made.parameters(), lr=0.05)
        t = Trainer(made, nn.CrossEntropyLoss(), optimizer, penalties=penalties)
        t.fit((X, CLASSES), batch_size=16, epochs=2, progress=False, checkpoint=file, **options)
        return state(made)

    first = fit(BOTH)
    assert_same(first, fit(BOTH, resume=True))
    with pytest.raises(ConfigError, match=r"got penalties .*=0\.02.*; needed penalties .*=0\.01"):
        fit({"*weight": nn.L1Penalty(0.02)}, resume=True)


def test_a_penalty_that_is_not_finite_writes_nothing_and_is_found():
    made = model()
    before = state(made)
    t = Trainer(made, nn.CrossEntropyLoss(), penalties={"0.weight": lambda ps: (ps[0] * 1e30).square().sum()})
    with pytest.raises(DivergenceError, match=r"the gradient of '0\.weight' is not finite"):
        t.fit((X, CLASSES), epochs=1, progress=False)
    assert_same(state(made), before)


@pytest.mark.parametrize(
    ("penalties", "error", "words"),
    [
        ({"*.wieght": nn.L1Penalty()}, ConfigError, "got the pattern '*.wieght', which none matches; needed names of"),
        ({"*": 0.1}, ConfigError, "Trainer: penalties['*']: got 0.1; needed nn.L1Penalty(…), or a function"),
        (
            nn.L1Penalty(),
            ConfigError,
            "Trainer: penalties: got L1Penalty(strength=1.0); needed a dict of them by",
        ),
        ({"*": nn.L1Penalty(-1)}, ConfigError, "l1_penalty: strength: got -1"),
        ({"*": lambda ps: ps[0]}, ShapeError, "penalties: what that of '*' returns: got shape (8, 4); needed a scalar"),
        ({"*": lambda ps: 1.0}, ShapeError, "got float; needed a scalar tensor"),
    ],
)
def test_mistakes_are_named(penalties, error, words):
    with pytest.raises(error, match=re.escape(words)):
        Trainer(network(), nn.CrossEntropyLoss(), penalties=penalties)

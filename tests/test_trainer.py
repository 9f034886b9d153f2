"""Trainer: what a fit computes, from what data, with which weights, and how it ends when it goes wrong."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
from contextlib import nullcontext

import numpy as np
import pytest

import slalom
from slalom import Tensor, nn, no_grad, optim
from slalom.core import kernels
from slalom.errors import ConfigError, DataError, DivergenceError, DTypeError, ShapeError
from slalom.optim import schedules
from slalom.optim.lr_scheduler import ExponentialLR
from slalom.train import Callback, EarlyStopping
from slalom.train.feed import Order, source_of
from slalom.train.loop import STEP_STREAM
from slalom.train.model_file import weights_sha256
from slalom.utils.data import DataLoader, Dataset, TensorDataset

RNG = np.random.default_rng(11)
N = 50
X = RNG.normal(size=(N, 4)).astype(np.float32)
CLASSES = (X[:, 0] * X[:, 1] > 0).astype(np.int64) + (X[:, 2] > 1)
VALUES = (X @ np.array([1, -2, 3, 0.5], np.float32)).astype(np.float32)


def network(outputs=3, dropout=0.0, norm=False, seed=0):
    slalom.manual_seed(seed)
    middle = [nn.BatchNorm1d(8)] if norm else []
    return nn.Sequential(nn.Linear(4, 8), *middle, nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, outputs))


def classifier(model=None, loss=None, lr=0.01, **options):
    model = network() if model is None else model
    optimizer = optim.Adam(model.parameters(), lr=lr)
    return slalom.Trainer(model, loss=loss or nn.CrossEntropyLoss(), optimizer=optimizer, **options)


def regressor(lr=0.05, loss=None, **options):
    slalom.manual_seed(0)
    model = nn.Linear(4, 1)
    return slalom.Trainer(model, loss=loss or nn.MSELoss(), optimizer=optim.SGD(model.parameters(), lr=lr), **options)


def state(model):
    return {name: t.numpy().copy() for name, t in model.state_dict().items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def assert_close(a, b, rtol=1e-5):
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=rtol, atol=1e-6, err_msg=name)


# --- the loop is the loop that everybody writes by hand -----------------------------------------------------------
def by_hand(model, optimizer, loss, epochs, batch_size, seed, step=0, first=0, y=CLASSES):
    generator = slalom.core.random.default_generator
    for epoch in range(first, first + epochs):
        order = kernels.permutation(seed, epoch, N)
        for at in range(0, N, batch_size):
            index = order[at : at + batch_size]
            generator.set(seed, STEP_STREAM, step << 20)
            optimizer.zero_grad()
            loss(model(Tensor(X[index])), Tensor(y[index])).backward()
            optimizer.step()
            step += 1
    return step


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(("dropout", "norm"), [(0.0, False), (0.3, True)])
def test_same_bits_as_the_loop_by_hand(compiled, dropout, norm):
    own = network(dropout=dropout, norm=norm)
    by_hand(own, optim.Adam(own.parameters(), lr=0.01), nn.CrossEntropyLoss(), 3, 16, seed=7)
    model = network(dropout=dropout, norm=norm)
    classifier(model, compile=compiled).fit((X, CLASSES), batch_size=16, epochs=3, seed=7, progress=False)
    assert_same(state(own), state(model))


def test_fitting_again_continues():
    once, twice = classifier(network(dropout=0.2)), classifier(network(dropout=0.2))
    once.fit((X, CLASSES), batch_size=16, epochs=5, progress=False)
    twice.fit((X, CLASSES), batch_size=16, epochs=2, progress=False)
    history = twice.fit((X, CLASSES), batch_size=16, epochs=3, progress=False)
    assert_same(state(once.model), state(twice.model))
    assert history is twice.history and [row["epoch"] for row in history] == [1, 2, 3, 4, 5]
    assert twice.epoch == 5 and twice.step == 20
    assert history["loss"] == once.history["loss"]


def test_the_seed_decides_everything_and_nothing_else_does():
    hashes = set()
    for seed, draws in ((0, 0), (0, 5), (1, 0)):
        t = classifier(network(dropout=0.5))
        slalom.rand(draws + 1)
        t.fit((X, CLASSES), batch_size=16, epochs=2, seed=seed, progress=False)
        hashes.add((seed, weights_sha256(t.model)))
    assert len(hashes) == 2


def test_the_users_random_numbers_go_on_as_if_there_had_been_no_fit():
    t = classifier(network(dropout=0.5))
    slalom.manual_seed(4)
    slalom.rand(2)
    before = slalom.get_rng_state().tolist()
    t.fit((X, CLASSES), epochs=1, validation=(X, CLASSES), progress=False)
    assert slalom.get_rng_state().tolist() == before


def test_a_step_is_recorded_once_for_each_batch_shape():
    t = classifier(schedule=schedules.linear(steps=100))
    t.fit((X, CLASSES), batch_size=16, epochs=4, validation=(X, CLASSES), progress=False)
    traces = {key: record.compiled.traces for key, record in t.program._records.items()}
    assert traces == {("_gradients", 16): 1, ("_gradients", 2): 1, ("_update", 0): 1, ("_measure", N): 1}


def test_no_gradients_and_modes_are_left_behind():
    model = network(norm=True).eval()
    t = classifier(model)
    t.fit((X, CLASSES), epochs=1, progress=False)
    assert not any(module.training for module in model.modules())
    assert all(p.grad is None for p in model.parameters())
    model.train()
    model[1].eval()  # a frozen layer stays frozen
    before = state(model)["1.running_mean"]
    t.fit((X, CLASSES), epochs=1, validation=(X, CLASSES), progress=False)
    assert model.training and not model[1].training
    np.testing.assert_array_equal(state(model)["1.running_mean"], before)


# --- data -----------------------------------------------------------------------------------------------------------
class RowByRow(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, i):
        return X[i], int(CLASSES[i])


def test_arrays_tensors_and_datasets_are_the_same():
    given = [
        (X, CLASSES),
        (X.astype(np.float64), CLASSES),
        [X.astype(">f4"), CLASSES.astype(np.int32)],
        (Tensor(X), Tensor(CLASSES)),
        TensorDataset(Tensor(X), Tensor(CLASSES)),
        RowByRow(),
    ]
    hashes = set()
    for data in given:
        t = classifier()
        t.fit(data, batch_size=16, epochs=2, validation=data, progress=False)
        hashes.add((weights_sha256(t.model), t.history[-1]["val_loss"]))
    assert len(hashes) == 1


def test_a_loader_brings_its_own_batches_and_order():
    data = TensorDataset(Tensor(X), Tensor(CLASSES))
    model = network()
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    for _ in range(2):
        for at in range(0, N, 20):
            optimizer.zero_grad()
            nn.CrossEntropyLoss()(model(Tensor(X[at : at + 20])), Tensor(CLASSES[at : at + 20])).backward()
            optimizer.step()
    t = classifier()
    t.fit(DataLoader(data, batch_size=20), epochs=2, validation=DataLoader(data, batch_size=7), progress=False)
    assert_same(state(model), state(t.model))
    assert t.history[-1]["val_loss"] == pytest.approx(t.evaluate((X, CLASSES))["loss"], rel=1e-6)


def test_a_shuffling_loader_has_another_order_each_epoch_and_repeats_with_the_seed():
    seen = []

    class Look(Callback):
        def on_step_end(self, fit):
            seen.append(fit.loss)

    def run(seed):
        seen.clear()
        loader = DataLoader(TensorDataset(Tensor(X), Tensor(CLASSES)), batch_size=10, shuffle=True)
        classifier(lr=0.0).fit(loader, epochs=2, seed=seed, callbacks=[Look()], progress=False)
        return list(seen)

    first = run(1)
    assert first[:5] != first[5:] and sum(first[:5]) == pytest.approx(sum(first[5:]), rel=1e-5)
    assert run(1) == first != run(2)


def test_any_iterable_of_batches_and_several_inputs():
    class TwoInputs(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(2, 1), nn.Linear(2, 1)

        def forward(self, a, b):
            return self.left(a) + self.right(b)

    slalom.manual_seed(0)
    t = slalom.Trainer(model := TwoInputs(), loss=nn.MSELoss(), optimizer=optim.Adam(model.parameters(), lr=0.1))
    batches = [(X[:25, :2], X[:25, 2:], VALUES[:25]), [X[25:, :2], X[25:, 2:], VALUES[25:]]]
    t.fit(batches_of(batches), epochs=150, progress=False)
    assert t.history[-1]["loss"] < 0.05
    predicted = t.predict((X[:, :2], X[:, 2:]))
    assert predicted.shape == (N, 1)
    np.testing.assert_array_equal(predicted, t.predict(batches_of(batches)))
    np.testing.assert_array_equal(predicted, t.predict(TensorDataset(X[:, :2], X[:, 2:], VALUES)))
    t.fit((X[:, :2], X[:, 2:], VALUES), epochs=1, progress=False)


class batches_of:
    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


@pytest.mark.parametrize("batch_size", [7, 49])
def test_a_last_batch_of_one_row_joins_the_one_before(batch_size):
    assert N % batch_size == 1
    sizes = [[batch.rows for batch in source_of("t", data, np.dtype("f4")).batches(batch_size, Order(0, 0))]
             for data in ((X, CLASSES), RowByRow())]  # fmt: skip
    assert sizes[0] == sizes[1] == [batch_size] * (N // batch_size - 1) + [batch_size + 1]
    for data in ((X, CLASSES), DataLoader(TensorDataset(X, CLASSES), batch_size)):
        t = classifier(network(norm=True))
        t.fit(data, batch_size=batch_size, epochs=1, progress=False)
        assert t.step == N // batch_size
        assert int(t.model[1].num_batches_tracked.item()) == N // batch_size


def test_batches_of_one_row_are_possible():
    t = classifier()
    t.fit((X[:5], CLASSES[:5]), batch_size=1, epochs=1, progress=False)
    assert t.step == 5
    with pytest.raises(ShapeError, match="one value for each channel"):
        classifier(network(norm=True)).fit((X[:1], CLASSES[:1]), epochs=1, progress=False)


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        ((X, CLASSES[:-1]), DataError, "fit: data of unequal lengths: got X with 50 rows, y with 49 rows; needed"),
        ((X[:, :1], X[1:], CLASSES), DataError, "part 0 with 50 rows, part 1 with 49 rows, part 2 with 50 rows"),
        ((X[:0], CLASSES[:0]), DataError, "fit: data: got 0 rows; needed at least 1"),
        ((), DataError, "fit: data: got no arrays"),
        ((X, 3.0), DataError, "fit: y: got a single number"),
        ((X, [[1], [1, 2]]), DataError, "fit: y: got nested sequences"),
        ((np.array([["a"]] * 3), CLASSES[:3]), DTypeError, "fit: X: got dtype <U1; needed numbers"),
        ("adult.csv", DataError, "fit: data: got str"),
        (iter([(X, CLASSES)]), DataError, "again and again"),
        (5, DataError, "fit: data: got int"),
        (batches_of([]), DataError, "fit: data: got no batches"),
        (TensorDataset(X[:0], CLASSES[:0]), DataError, "got 0 rows"),
    ],
)
def test_data_that_cannot_be_used(data, error, text):
    with pytest.raises(error, match=text):
        classifier().fit(data, epochs=1, progress=False)


def test_validation_data_are_named_as_such():
    with pytest.raises(DataError, match="fit: validation: data of unequal lengths"):
        classifier().fit((X, CLASSES), validation=(X, CLASSES[1:]), progress=False)
    with pytest.raises(DataError, match="fit: validation: got no batches"):
        classifier().fit((X, CLASSES), validation=batches_of([]), progress=False)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"batch_size": 2.5}, "batch_size: got 2.5"),
        ({"epochs": -1}, "fit: epochs: got -1"),
        ({"epochs": True}, "fit: epochs: got True"),
        ({"seed": "x"}, "fit: seed: got 'x'"),
        ({"tol": -1}, "fit: tol: got -1"),
        ({"resume": True}, "fit: checkpoint: got 0 of them; needed one"),
    ],
)
def test_options_of_fit(options, text):
    with pytest.raises(ConfigError, match=text):
        classifier().fit((X, CLASSES), **options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "Trainer: loss or step: got None"),
        ({"loss": nn.MSELoss(), "step": len}, "Trainer: loss or step: got both"),
        ({"loss": 3}, "Trainer: loss or step: got 3"),
        ({"step": len, "metrics": ["mae"]}, "Trainer: metrics or class_weight: got a step"),
        ({"loss": nn.MSELoss(), "clip_norm": 0}, "Trainer: clip_norm: got 0"),
        ({"loss": nn.MSELoss(), "clip_norm": 1, "clip_value": 1}, "clip_norm and clip_value: got both"),
        ({"loss": nn.MSELoss(), "schedule": 3}, "Trainer: schedule: got 3"),
        ({"loss": nn.MSELoss(), "optimizer": "adam"}, "Trainer: optimizer: got 'adam'"),
        ({"loss": nn.MSELoss(), "optimizer": optim.Adam(nn.Linear(1, 1).parameters())}, "none of the model's param"),
    ],
)
def test_options_of_trainer(options, text):
    with pytest.raises(ConfigError, match=text):
        slalom.Trainer(nn.Linear(4, 1), **options)
    with pytest.raises(ConfigError, match="Trainer: model: got function"):
        slalom.Trainer(lambda x: x, loss=nn.MSELoss())


# --- evaluation ---------------------------------------------------------------------------------------------------
LOSSES = [
    (nn.CrossEntropyLoss(), CLASSES),
    (nn.CrossEntropyLoss(Tensor([1.0, 3.0, 0.5]), label_smoothing=0.1), CLASSES),
    (nn.CrossEntropyLoss(ignore_index=1), CLASSES),
    (nn.CrossEntropyLoss(reduction="sum"), CLASSES),
    (nn.CrossEntropyLoss(), np.eye(3, dtype=np.float32)[CLASSES]),
    (nn.MSELoss(), np.eye(3, dtype=np.float32)[CLASSES]),
    (nn.BCEWithLogitsLoss(pos_weight=Tensor([1.0, 2.0, 3.0])), np.eye(3, dtype=np.float32)[CLASSES]),
    (lambda output, target: (output[:, 0] - target).abs().mean(), VALUES),
]


@pytest.mark.parametrize(("loss", "target"), LOSSES, ids=range(len(LOSSES)))
def test_in_batches_as_on_the_whole(loss, target):
    model = network(norm=True)
    t = classifier(model, loss)
    with no_grad():
        expected = loss(model.eval()(Tensor(X)), Tensor(target)).item()
    model.train()
    for batch_size in (N, 16, 7, 1):
        assert t.evaluate((X, target), batch_size=batch_size)["loss"] == pytest.approx(expected, rel=1e-5)
    assert model.training


def test_training_loss_is_measured_alike():
    t = regressor(lr=0.0)
    t.fit((X, VALUES), batch_size=16, epochs=1, progress=False)
    assert t.history[-1]["loss"] == pytest.approx(t.evaluate((X, VALUES))["loss"], rel=1e-6)


def test_predict():
    t = classifier(network(dropout=0.5, norm=True))
    with no_grad():
        expected = t.model.eval()(Tensor(X)).numpy()
    t.model.train()
    predicted = t.predict(X, batch_size=16)
    assert isinstance(predicted, np.ndarray)
    np.testing.assert_allclose(predicted, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(t.predict(Tensor(X)), t.predict(X.astype(np.float64)))
    assert t.predict(X[:0]).shape == (0, 3) and t.model.training
    for n in range(1, 20):  # each number of rows is a record of its own: no warning about retracing
        np.testing.assert_allclose(t.predict(X[:n]), expected[:n], rtol=1e-5, atol=1e-6)


def test_predict_keeps_the_tree_of_outputs():
    class Two(nn.Module):
        def forward(self, x):
            return {"twice": x * 2, "pair": (x[:, 0], x.sum(1))}

    found = slalom.Trainer(Two(), loss=nn.MSELoss(), optimizer=optim.SGD([Tensor(0.0, requires_grad=True)])).predict(
        X, batch_size=20
    )
    np.testing.assert_array_equal(found["twice"], X * 2)
    np.testing.assert_array_equal(found["pair"][0], X[:, 0])


def test_targets_in_the_shape_of_the_output():
    """(n,) targets meet (n, 1) outputs: the classic (n, n) table of differences must not arise."""
    flat, column = regressor(), regressor()
    flat.fit((X, VALUES), epochs=3, progress=False)
    column.fit((X, VALUES[:, None]), epochs=3, progress=False)
    assert_same(state(flat.model), state(column.model))


def test_metrics_in_history_and_evaluation():
    t = classifier(metrics=["accuracy", "top2", lambda output, target: (output.argmax(1) == target).float().mean()])
    t.fit((X, CLASSES), batch_size=16, epochs=20, validation=(X, CLASSES), progress=False)
    row = t.history[-1]
    assert list(row) == ["epoch", "step", "seconds", "lr", "loss", "accuracy", "top2", "<lambda>",
                         "val_loss", "val_accuracy", "val_top2", "val_<lambda>"]  # fmt: skip
    assert row["val_accuracy"] == pytest.approx((t.predict(X).argmax(1) == CLASSES).mean()) == row["val_<lambda>"]
    assert row["val_top2"] >= row["val_accuracy"] > 0.6


def test_bce_of_probabilities_decides_at_one_half():
    class Half(nn.Module):
        def forward(self, x):
            return (x[:, :1] > 0).float() * 0.2 + 0.4

    t = slalom.Trainer(Half(), loss=nn.BCELoss(), optimizer=optim.SGD([Tensor(0.0, requires_grad=True)]),
                       metrics=["accuracy"])  # fmt: skip
    assert t.evaluate((X, (X[:, 0] > 0).astype(np.float32)))["accuracy"] == 1.0


# --- weights --------------------------------------------------------------------------------------------------------
COUNTS = RNG.integers(0, 4, N)


@pytest.mark.parametrize(
    ("loss", "target", "outputs"),
    [
        (nn.CrossEntropyLoss(), CLASSES, 3),
        (nn.CrossEntropyLoss(Tensor([1.0, 3.0, 0.5])), CLASSES, 3),
        (nn.CrossEntropyLoss(ignore_index=2, label_smoothing=0.2), CLASSES, 3),
        (nn.CrossEntropyLoss(reduction="sum"), CLASSES, 3),
        (nn.MSELoss(), VALUES, 1),
        (nn.MSELoss(), np.stack([VALUES, -VALUES], 1), 2),
        (nn.BCEWithLogitsLoss(), (CLASSES > 0).astype(np.float32), 1),
        (nn.functional.mse_loss, VALUES[:, None], 1),
    ],
)
def test_a_weight_is_the_row_that_often(loss, target, outputs):
    weighted, repeated = classifier(network(outputs), loss), classifier(network(outputs), loss)
    weighted.fit((X, target), batch_size=None, epochs=3, sample_weight=COUNTS, progress=False)
    rows = np.repeat(np.arange(N), COUNTS)
    repeated.fit((X[rows], target[rows]), batch_size=None, epochs=3, progress=False)
    assert_close(state(weighted.model), state(repeated.model), rtol=1e-4)
    np.testing.assert_allclose(weighted.history["loss"], repeated.history["loss"], rtol=1e-5)
    expected = repeated.evaluate((X[rows], target[rows]))
    assert weighted.evaluate((X, target), sample_weight=COUNTS, batch_size=9) == pytest.approx(expected, rel=1e-4)


def test_class_weights():
    per_class = np.array([2, 0, 3])
    trainers = {
        "dict": (classifier(class_weight={0: 2, 2: 3.0, 1: 0}), None),
        "list": (classifier(class_weight=[2, 0, 3]), None),
        "rows": (classifier(), per_class[CLASSES]),
        "loss": (classifier(loss=nn.CrossEntropyLoss(Tensor([2.0, 0.0, 3.0]))), None),
        "both": (classifier(class_weight={0: 1, 1: 1, 2: 1.5}), np.array([2, 0, 2])[CLASSES]),
    }
    for t, weight in trainers.values():
        t.fit((X, CLASSES), batch_size=16, epochs=2, sample_weight=weight, progress=False)
    for name in ("list", "rows", "loss", "both"):
        assert_close(state(trainers["dict"][0].model), state(trainers[name][0].model))
    loader = classifier(class_weight={0: 2, 2: 3.0, 1: 0})
    arrays = classifier(class_weight={0: 2, 2: 3.0, 1: 0})
    loader.fit(DataLoader(TensorDataset(X, CLASSES), batch_size=N), epochs=2, progress=False)
    arrays.fit((X, CLASSES), batch_size=None, epochs=2, progress=False)
    assert_close(state(loader.model), state(arrays.model))


def test_balanced_is_sklearns():
    utils = pytest.importorskip("sklearn.utils.class_weight")
    weights = utils.compute_sample_weight("balanced", CLASSES)
    for data in ((X, CLASSES), TensorDataset(X, CLASSES)):
        a, b = classifier(class_weight="balanced"), classifier()
        a.fit(data, batch_size=16, epochs=2, validation=(X, CLASSES), progress=False)
        b.fit(data, batch_size=16, epochs=2, validation=(X, CLASSES), sample_weight=weights, progress=False)
        assert_close(state(a.model), state(b.model))
        # validation is not weighted
        assert a.history[-1]["val_loss"] == pytest.approx(a.evaluate((X, CLASSES))["loss"])


def test_a_batch_without_weight_moves_nothing():
    weight = np.zeros(N)
    weight[:1] = 1
    t = regressor()
    moves = []

    class Look(Callback):
        def on_step_end(self, fit):
            moves.append(float(fit.model.weight.grad.abs().sum()))

    t.fit((X, VALUES), batch_size=10, epochs=1, sample_weight=weight, callbacks=[Look()], progress=False)
    assert sum(move > 0 for move in moves) == 1 and math.isfinite(t.history[-1]["loss"])


@pytest.mark.parametrize(
    ("weight", "text"),
    [
        (np.ones(N - 1), r"sample_weight: got shape \(49,\); needed \(50,\)"),
        (np.full(N, np.nan), "finite numbers of at least 0"),
        (-np.ones(N), "finite numbers of at least 0"),
        (np.zeros(N), "some above it"),
    ],
)
def test_weights_that_make_no_sense(weight, text):
    with pytest.raises(DataError, match=text):
        classifier().fit((X, CLASSES), sample_weight=weight, progress=False)


def test_weights_that_cannot_be_used():
    data, loader = (X, CLASSES), DataLoader(TensorDataset(X, CLASSES), batch_size=10)
    with pytest.raises(ConfigError, match="sample_weight: got a loader"):
        classifier().fit(loader, sample_weight=np.ones(N), progress=False)
    for weights, text in (("even", "got 'even'"), ({-1: 2.0}, "got {-1"), ({0: math.inf}, "finite weight")):
        with pytest.raises(ConfigError, match=text):
            classifier(class_weight=weights).fit(data, progress=False)
    with pytest.raises(ConfigError, match="targets are not at hand; needed a dict"):
        classifier(class_weight="balanced").fit(loader, progress=False)
    with pytest.raises(DataError, match="class_weight: targets: got float32 of shape"):
        classifier(class_weight="balanced").fit((X, VALUES), progress=False)
    t = regressor(loss=lambda output, target: (output[:, 0] - target).abs().mean())
    with pytest.raises(ShapeError, match="let the loss return one value a row"):
        t.fit((X, VALUES), sample_weight=np.ones(N), progress=False)


# --- the step -----------------------------------------------------------------------------------------------------
def test_a_step_of_ones_own():
    given, own = regressor(), regressor()
    given.fit((X, VALUES[:, None]), epochs=2, validation=(X, VALUES[:, None]), progress=False)
    model = own.model
    own = slalom.Trainer(
        model, step=lambda x, y: ((model(x) - y) ** 2).mean(), optimizer=optim.SGD(model.parameters(), lr=0.05)
    )
    own.fit((X, VALUES[:, None]), epochs=2, validation=(X, VALUES[:, None]), progress=False)
    assert_close(state(given.model), state(model))
    assert own.history[-1]["val_loss"] == pytest.approx(given.history[-1]["val_loss"], rel=1e-5)
    own.fit(X_only := DataLoader(TensorDataset(X, VALUES[:, None])), epochs=1, progress=False)
    assert len(X_only) == N


def test_a_step_without_a_target():
    slalom.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 4))
    t = slalom.Trainer(
        model, step=lambda x: ((model(x) - x) ** 2).mean(), optimizer=optim.Adam(model.parameters(), lr=0.02)
    )
    history = t.fit(X, epochs=30, progress=False)
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]


def test_what_a_step_returns():
    t = slalom.Trainer(model := nn.Linear(4, 1), step=lambda x, y: model(x))
    with pytest.raises(ShapeError, match=r"what the step returns: got shape \(50, 1\); needed a scalar"):
        t.fit((X, VALUES), epochs=1, progress=False)
    with pytest.raises(ConfigError, match="weights of rows: got a step of your own"):
        t.fit((X, VALUES), epochs=1, sample_weight=np.ones(N), progress=False)


@pytest.mark.parametrize(("kind", "limit"), [("clip_norm", 0.01), ("clip_value", 0.003)])
def test_clipping(kind, limit):
    seen = []

    class Look(Callback):
        def on_step_end(self, fit):
            seen.append([p.grad.numpy().copy() for p in fit.model.parameters()])

    t = regressor(**{kind: limit})
    t.fit((X, VALUES), batch_size=10, epochs=1, callbacks=[Look()], progress=False)
    for grads in seen:
        flat = np.concatenate([g.ravel() for g in grads])
        measured = np.linalg.norm(flat) if kind == "clip_norm" else np.abs(flat).max()
        assert measured == pytest.approx(limit, rel=1e-3)
    free = regressor(**{kind: 1e9})
    free.fit((X, VALUES), batch_size=10, epochs=1, progress=False)
    plain = regressor()
    plain.fit((X, VALUES), batch_size=10, epochs=1, progress=False)
    assert_same(state(free.model), state(plain.model))


def test_schedules():
    t = regressor(lr=0.1, schedule=schedules.linear(steps=10))
    rates = []

    class Look(Callback):
        def on_step_end(self, fit):
            rates.append(fit.trainer.rate())

    t.fit((X, VALUES), batch_size=10, epochs=1, callbacks=[Look()], progress=False)
    t.fit((X, VALUES), batch_size=10, epochs=2, callbacks=[Look()], progress=False)
    expected = [0.1 * (1 - min(step, 10) / 10) for step in range(15)]
    np.testing.assert_allclose(rates, expected, atol=1e-12)

    model = regressor().model
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    t = slalom.Trainer(model, loss=nn.MSELoss(), optimizer=optimizer, schedule=ExponentialLR(optimizer, gamma=0.5))
    t.fit((X, VALUES), epochs=3, progress=False)
    np.testing.assert_allclose(t.history["lr"], [0.1, 0.05, 0.025])
    before = state(model)
    optimizer.param_groups[0]["lr"] = 0.0  # reaches the compiled step
    t.fit((X, VALUES), epochs=1, progress=False)
    assert_same(before, state(model))


def test_what_cannot_be_recorded_runs_eagerly_and_says_so_once():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def forward(self, x):
            out = self.layer(x)
            return out if float(out.detach().sum()) > 0 else out * 1.0

    slalom.manual_seed(0)
    t = slalom.Trainer(model := Branches(), loss=nn.MSELoss(), optimizer=optim.SGD(model.parameters(), lr=0.05))
    with pytest.warns(
        RuntimeWarning, match=r"training runs eagerly.*while staging, at .*test_trainer.py:\d+"
    ) as caught:
        t.fit((X, VALUES), batch_size=16, epochs=2, progress=False)
    assert len(caught) == 1
    plain = regressor()
    plain.fit((X, VALUES), batch_size=16, epochs=2, progress=False)
    np.testing.assert_array_equal(model.layer.weight.detach().numpy(), plain.model.weight.detach().numpy())
    lines = t.explain().splitlines()
    assert lines[0].startswith("loop: eager (") and lines[1].startswith("training: eager, operation by operation (")


def test_explain():
    t = classifier(metrics=["accuracy"])
    assert t.explain().splitlines()[:2] == ["loop: no fit yet", "training: not run yet"]
    t.fit((X, CLASSES), epochs=1, progress=False)
    first, training, evaluation, _prediction = t.explain().splitlines()
    assert first.startswith("loop: tier A (") and evaluation == "evaluation: not run yet"
    assert training.startswith("training: recorded, ") and training.endswith("run by the NumPy executor")
    t.fit(RowByRow(), epochs=1, progress=False)
    assert t.explain().startswith("loop: tier B (batches come from RowByRow)")
    t.fit((X, CLASSES), epochs=1, callbacks=[StepHook()], progress=False)
    assert t.explain().startswith("loop: tier C (on_step_end of StepHook)")
    eager = classifier(compile=False)
    eager.fit((X, CLASSES), epochs=1, progress=False)
    assert eager.explain().startswith("loop: eager (compile=False asks for it)")


class StepHook(Callback):
    def on_step_end(self, fit):
        pass


def test_a_metric_in_numpy_is_computed_outside_the_record():
    def in_numpy(output, target):
        return float(np.mean(output.numpy().argmax(1) == target.numpy()))

    t = classifier(metrics=["accuracy", in_numpy, "top2"])
    t.fit((X, CLASSES), batch_size=16, epochs=3, validation=(X, CLASSES), progress=False)
    for row in t.history:
        for own, built_in in (("in_numpy", "accuracy"), ("val_in_numpy", "val_accuracy")):
            assert row[own] == pytest.approx(row[built_in])
    assert "loop: tier C (metric 'in_numpy': numpy() while staging" in t.explain()
    assert "training: recorded" in t.explain()


# --- divergence ---------------------------------------------------------------------------------------------------
class Bad(nn.Module):
    """Gives NaN after so many calls in training."""

    __constants__ = ("after",)

    def __init__(self, after):
        super().__init__()
        self.after = after
        self.register_buffer("calls", Tensor(0))

    def forward(self, x):
        if self.training:
            with no_grad():
                self.calls.add_(1)
        return x + slalom.where(self.calls > self.after, float("nan"), 0.0)


def bad_model(after):
    slalom.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Sequential(nn.Tanh(), Bad(after)), nn.Linear(8, 3))


@pytest.mark.parametrize("compiled", [True, False])
def test_divergence_names_step_and_module_and_writes_nothing(compiled):
    stopped, good = classifier(bad_model(6), compile=compiled), classifier(bad_model(99), compile=compiled)
    text = (r"training diverged in step 7 \(epoch 2\): the loss is nan; the first output that is not finite is that of "
            r"model.2.1 \(Bad\). Hint: a lower learning rate")  # fmt: skip
    with pytest.raises(DivergenceError, match=text) as caught:
        stopped.fit((X, CLASSES), batch_size=16, epochs=5, progress=False)
    assert (caught.value.step, caught.value.epoch, caught.value.module) == (7, 2, "2.1")
    good.fit((X, CLASSES), batch_size=16, epochs=5, callbacks=[StopAfter(6)], progress=False)
    assert_same(state(stopped.model), state(good.model))  # buffers too
    assert stopped.step == 6 and len(stopped.history) == 1
    assert stopped.history.stopped.startswith("training diverged in step 7")
    assert all(p.grad is None for p in stopped.model.parameters())


class StopAfter(Callback):
    def __init__(self, steps):
        self.steps = steps

    def on_step_end(self, fit):
        if fit.step >= self.steps:
            fit.stop("enough")


@pytest.mark.parametrize("stopping", [False, True])
def test_after_divergence_the_best_weights_are_back(stopping):
    t = classifier(bad_model(11), lr=0.1)
    seen = {}

    class Keep(Callback):
        ended = False

        def on_epoch_end(self, fit):
            seen[fit.epoch] = (fit.row["val_loss"], state(fit.model))

        def on_fit_end(self, fit):
            self.ended = True

    keep = Keep()
    callbacks = [keep, EarlyStopping(patience=50)] if stopping else [keep]
    with pytest.raises(DivergenceError):
        t.fit((X, CLASSES), batch_size=16, epochs=9, validation=(X, CLASSES), callbacks=callbacks, progress=False)
    assert keep.ended and len(seen) == 2
    assert_same(state(t.model), min(seen.values(), key=lambda pair: pair[0])[1])


def test_a_gradient_that_is_not_finite_under_a_finite_loss():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 2, bias=False), nn.Linear(2, 1)
            with no_grad():
                self.first.weight.zero_()

        def forward(self, x):
            return self.second((self.first(x) ** 2).sum(1, keepdim=True).sqrt().expand(x.shape[0], 2))

    for options in ({}, {"clip_norm": 1.0}, {"clip_value": 1.0}):
        t = slalom.Trainer(model := Root(), loss=nn.MSELoss(), optimizer=optim.Adam(model.parameters()), **options)
        before = state(model)
        with pytest.raises(DivergenceError, match=r"but the gradient of 'first.weight' is not finite") as caught:
            t.fit((X, VALUES), epochs=1, progress=False)
        assert caught.value.module == "first"
        assert_same(before, state(model))
        assert not model.first.weight.grad and not t.optimizer.state


def test_data_that_are_not_finite_are_named_by_row():
    spoilt = X.copy()
    spoilt[17, 2] = np.inf
    with pytest.raises(DivergenceError, match=r"step 1 .epoch 1.: input 0 is not finite in row 17 of the data"):
        classifier().fit((spoilt, CLASSES), batch_size=None, epochs=1, progress=False)
    values = VALUES.copy()
    values[3] = np.nan
    with pytest.raises(DivergenceError, match="the target is not finite in row 3 of the batch"):
        regressor().fit(DataLoader(TensorDataset(X, values), batch_size=N), epochs=1, progress=False)


@pytest.mark.parametrize("lr", [1e30, 1e38])
def test_weights_stay_finite_whatever_the_rate(lr):
    for epochs in (1, 5):
        t = regressor(lr=lr)
        with pytest.raises(DivergenceError, match="training diverged") if lr > 1e37 or epochs > 1 else nullcontext():
            t.fit((1e3 * X, VALUES), batch_size=None, epochs=epochs, progress=False)
        assert all(np.isfinite(array).all() for array in state(t.model).values())


def test_an_update_that_overflows_at_the_end_of_an_epoch():
    t = regressor(lr=1e38)
    before = state(t.model)
    with pytest.raises(DivergenceError, match=r"step 1 .epoch 1.: an update left 'weight' with values"):
        t.fit((1e3 * X, 1e3 * VALUES), batch_size=None, epochs=1, progress=False)
    assert_same(before, state(t.model))


def test_a_record_that_is_out_of_date_is_told_from_a_divergence():
    class Drifts(nn.Module):
        factor = math.nan

        def forward(self, x):
            return x * self.factor

    model = nn.Sequential(nn.Linear(4, 1), Drifts())
    t = slalom.Trainer(model, loss=nn.MSELoss(), optimizer=optim.SGD(model.parameters(), lr=0.01))
    with pytest.raises(DivergenceError, match=r"first output that is not finite is that of model.1 \(Drifts\)"):
        t.fit((X, VALUES), epochs=1, progress=False)
    model[1].factor = 1.0
    with pytest.raises(DivergenceError, match=r"run eagerly the same batch does not. Hint: .* __constants__"):
        t.fit((X, VALUES), epochs=1, progress=False)


def test_training_can_go_on_after_a_divergence():
    t = classifier(bad_model(2), lr=0.01)
    with pytest.raises(DivergenceError):
        t.fit((X, CLASSES), batch_size=16, epochs=1, progress=False)
    t.model[2][1].after = 10**6
    assert math.isfinite(t.fit((X, CLASSES), batch_size=16, epochs=1, progress=False)[-1]["loss"])


# --- Ctrl-C -------------------------------------------------------------------------------------------------------
class Interrupt(Callback):
    """Sends SIGINT to this process in the middle of an epoch."""

    def __init__(self, step, times=1):
        self.at, self.times = step, times

    def on_step_end(self, fit):
        if fit.step == self.at:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_ends_with_the_best_weights():
    seen = {}

    class Keep(Callback):
        def on_epoch_end(self, fit):
            seen[fit.row["val_loss"]] = state(fit.model)

    t = classifier(lr=0.3)
    data = {"batch_size": 10, "epochs": 100, "validation": (X, CLASSES), "progress": False}
    history = t.fit((X, CLASSES), callbacks=[Keep(), Interrupt(33)], **data)
    assert history.interrupted and history.stopped == "interrupted" and len(history) == 6 and t.step == 33
    assert_same(state(t.model), seen[min(seen)])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not t.fit((X, CLASSES), batch_size=10, epochs=1, progress=False).interrupted


def test_without_validation_ctrl_c_keeps_the_latest_weights():
    t, same = regressor(), regressor()
    t.fit((X, VALUES), batch_size=10, epochs=9, callbacks=[Interrupt(7)], progress=False)
    same.fit((X, VALUES), batch_size=10, epochs=9, callbacks=[StopAfter(7)], progress=False)
    assert_same(state(t.model), state(same.model))


def test_a_second_ctrl_c_raises():
    with pytest.raises(KeyboardInterrupt):
        regressor().fit((X, VALUES), epochs=9, callbacks=[Interrupt(2, times=2)], progress=False)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_keyboard_interrupt_from_elsewhere_ends_the_fit_too():
    class Raises(Callback):
        def on_step_end(self, fit):
            if fit.step == 3:
                raise KeyboardInterrupt

    history = regressor().fit((X, VALUES), batch_size=10, epochs=9, callbacks=[Raises()], progress=False)
    assert history.interrupted


def test_ctrl_c_in_a_process_of_its_own():
    script = textwrap.dedent("""
        import sys, numpy as np, slalom
        from slalom import nn
        class Tell(slalom.train.Callback):
            def on_epoch_end(self, fit):
                print("epoch", fit.epoch, flush=True)
        x = np.random.default_rng(0).normal(size=(256, 8)).astype(np.float32)
        t = slalom.Trainer(nn.Linear(8, 1), loss=nn.MSELoss())
        h = t.fit((x, x[:, 0]), batch_size=4, epochs=10**6, validation=(x, x[:, 0]), callbacks=[Tell()])
        print("interrupted", h.interrupted, len(h) > 1, np.isfinite(t.predict(x)).all(), flush=True)
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line == "epoch 2\n":
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.splitlines()[-1] == "interrupted True True True"
    assert "stopped: interrupted" in err and "weights of epoch" in err and "Traceback" not in err


def test_a_fit_in_another_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(regressor().fit((X, VALUES), epochs=2, progress=False)))
    thread.start()
    thread.join()
    main = regressor()
    main.fit((X, VALUES), epochs=2, progress=False)
    assert found[0]["loss"] == main.history["loss"]


# --- saving -------------------------------------------------------------------------------------------------------
def test_save_and_load(tmp_path):
    t = classifier(network(norm=True))
    t.fit((X, CLASSES), epochs=2, progress=False)
    t.save(tmp_path / "m.safetensors")
    again = slalom.load(tmp_path / "m.safetensors")
    other = classifier(network(norm=True, seed=5))
    other.load(tmp_path / "m.safetensors")
    assert weights_sha256(again) == weights_sha256(other.model) == weights_sha256(t.model)
    np.testing.assert_array_equal(other.predict(X), t.predict(X))

"""Trainer: what a fit computes, and from what data."""

from __future__ import annotations

import numpy as np
import pytest
from fits import CLASSES, VALUES, N, RowByRow, X, assert_close, assert_same, classifier, network, state

import slalom
from slalom import Tensor, nn, optim
from slalom.compiler.native import native
from slalom.core import kernels
from slalom.errors import ConfigError, DataError, DTypeError, ShapeError
from slalom.optim import schedules
from slalom.train import Callback
from slalom.train.feed import Order, source_of
from slalom.train.loop import STEP_STREAM
from slalom.train.model_file import weights_sha256
from slalom.utils.data import DataLoader, TensorDataset

NATIVE_BITS = True


# --- the loop is the loop that everybody writes by hand -----------------------------------------------------------
def by_hand(model, optimizer, loss, epochs, batch_size, seed):
    generator, step = slalom.core.random.default_generator, 0
    before = generator.get_state()
    for epoch in range(epochs):
        order = kernels.permutation(seed, epoch, N)
        for at in range(0, N, batch_size):
            index = order[at : at + batch_size]
            generator.set(seed, STEP_STREAM, step << 20)
            optimizer.zero_grad()
            loss(model(Tensor(X[index])), Tensor(CLASSES[index])).backward()
            optimizer.step()
            step += 1
    generator.set_state(before)


@pytest.mark.parametrize("how", ["eager", "numpy", "native"])
@pytest.mark.parametrize(("dropout", "norm"), [(0.0, False), (0.3, True)])
def test_same_as_the_loop_by_hand(how, dropout, norm, monkeypatch):
    """To the bit where NumPy computes; native code sums in another order."""
    monkeypatch.setenv("SLALOM_EXECUTOR", how)
    own = network(dropout=dropout, norm=norm)
    by_hand(own, optim.Adam(own.parameters(), lr=0.01), nn.CrossEntropyLoss(), 3, 16, seed=7)
    model = network(dropout=dropout, norm=norm)
    classifier(model, compile=how != "eager").fit((X, CLASSES), batch_size=16, epochs=3, seed=7, progress=False)
    if how != "native":
        return assert_same(state(own), state(model))
    # A bias in front of a norm changes nothing but the mean that is taken away: it follows the rounding of zeros.
    free = {"0.bias", "1.running_mean"} if norm else set()
    kept = [{name: array for name, array in state(net).items() if name not in free} for net in (own, model)]
    return assert_close(*kept)


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
    parts = {("_step", 16): 1, ("_step", 2): 1} if native() else {("_gradients", 16): 1, ("_gradients", 2): 1}
    assert traces == parts | {("_measure", N): 1} | ({} if native() else {("_update", 0): 1})


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


def test_what_a_dataset_draws_does_not_depend_on_what_the_model_draws():
    def drawn(dropout):
        seen = []

        class Noisy(RowByRow):
            def __getitem__(self, i):
                seen.append((i, slalom.rand(1).item()))
                return super().__getitem__(i)

        model = network(dropout=dropout)
        classifier(model).fit(Noisy(), batch_size=16, epochs=2, seed=3, progress=False)
        return seen

    first = drawn(0.0)
    assert drawn(0.5) == first and len(set(first)) == 2 * N


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
    assert_close(state(model), state(t.model))
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

"""Trainer: evaluation, weights of rows and classes, the step, and what is recorded of it."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from fits import CLASSES, RNG, VALUES, N, RowByRow, X, assert_close, assert_same, classifier, network, regressor, state

import slalom
from slalom import Tensor, nn, no_grad, optim
from slalom.compiler import runtime
from slalom.compiler.native import native
from slalom.errors import ConfigError, DataError, ShapeError
from slalom.optim import schedules
from slalom.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau
from slalom.train import Callback
from slalom.utils.data import DataLoader, TensorDataset

NATIVE_BITS = True


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


def test_only_so_many_records_are_kept(monkeypatch):
    monkeypatch.setattr("slalom.train.steps.Program.KEPT", 3)
    t = classifier()
    for n in (1, 2, 3, 1, 4):
        t.predict(X[:n])
    assert list(t.program._records) == [("_predict", 3), ("_predict", 1), ("_predict", 4)]


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


SCALE = 1.0


@pytest.mark.parametrize("kind", ["loss", "step", "metrics"])
def test_what_a_users_function_reads_by_name_is_seen_when_it_changes(kind, monkeypatch):
    def scaled(output, target):
        return (output[:, 0] - target).abs().mean() * SCALE

    model = regressor().model
    options = {"loss": {"loss": scaled}, "step": {"step": lambda x, y: scaled(model(x), y)},
               "metrics": {"loss": nn.MSELoss(), "metrics": [scaled]}}[kind]  # fmt: skip
    t = slalom.Trainer(model, optimizer=optim.SGD(model.parameters(), lr=0.0), **options)
    name = "scaled" if kind == "metrics" else "loss"
    t.fit((X, VALUES), epochs=1, progress=False)
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    t.fit((X, VALUES), epochs=1, progress=False)
    assert t.history[1][name] == pytest.approx(3 * t.history[0][name])


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


@pytest.mark.parametrize("validation", [None, (X[:9], VALUES[:9])], ids=["training loss", "validation loss"])
def test_a_plateau_lowers_the_rate(validation):
    t = regressor(lr=0.1)
    watched = []

    class Watching(ReduceLROnPlateau):
        def step(self, metrics):
            watched.append(metrics)
            super().step(metrics)

    t.schedule = Watching(t.optimizer, factor=0.5, patience=0, threshold=1e6, threshold_mode="abs")
    history = t.fit((X, VALUES), epochs=4, validation=validation, progress=False)
    np.testing.assert_allclose(history["lr"], [0.1, 0.1, 0.05, 0.025])
    assert watched == history["loss" if validation is None else "val_loss"]


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
        RuntimeWarning, match=r"training runs eagerly.*while staging, at .*test_trainer_step.py:\d+"
    ) as caught:
        t.fit((X, VALUES), batch_size=16, epochs=2, progress=False)
    assert len(caught) == 1
    plain = regressor()
    plain.fit((X, VALUES), batch_size=16, epochs=2, progress=False)
    eager, recorded = model.layer.weight.detach().numpy(), plain.model.weight.detach().numpy()
    np.testing.assert_allclose(eager, recorded, rtol=1e-5)  # sums in another order
    lines = t.explain().splitlines()
    assert lines[0].startswith("loop: eager (") and lines[1].startswith("training: eager, operation by operation (")


@pytest.mark.skipif(not native(), reason="no native code here")
def test_explain(monkeypatch):
    t = classifier(metrics=["accuracy"])
    assert t.explain().splitlines()[:2] == ["loop: no fit yet", "training: not run yet"]
    monkeypatch.setattr(runtime, "_chosen", [1])
    t.fit((X, CLASSES), epochs=1, progress=False)
    first, training, evaluation, _prediction = t.explain().splitlines()
    assert re.fullmatch(r"loop: tier A \(arrays, .*\); \d+ kernels a step; threads: 1", first)
    assert re.fullmatch(r"training: recorded, \d+ equations, run as machine code", training)
    assert evaluation == "evaluation: not run yet"
    t.evaluate((X, CLASSES))
    assert re.search(r"^evaluation: recorded, \d+ equations, run as machine code$", t.explain(), re.MULTILINE)
    t.fit(RowByRow(), epochs=1, progress=False)
    assert t.explain().startswith("loop: tier B (batches come from RowByRow)")
    t.fit((X, CLASSES), epochs=1, callbacks=[StepHook()], progress=False)
    assert t.explain().startswith("loop: tier C (on_step_end of StepHook)")


def test_explain_names_what_is_not_native(monkeypatch):
    monkeypatch.setenv("SLALOM_EXECUTOR", "numpy")
    t = classifier()
    t.fit((X, CLASSES), epochs=1, progress=False)
    first, training, *_ = t.explain().splitlines()
    assert first == "loop: in Python, run by the NumPy executor (SLALOM_EXECUTOR=numpy)"
    assert training.endswith("equations, run by the NumPy executor (SLALOM_EXECUTOR=numpy)")
    eager = classifier(compile=False)
    eager.fit((X, CLASSES), epochs=1, progress=False)
    assert eager.explain().startswith("loop: eager (compile=False asks for it)")


class StepHook(Callback):
    def on_step_end(self, fit):
        pass


def test_a_metric_that_can_be_recorded_for_some_batches_only():
    def shy(output, target):
        right = (output.argmax(1) == target).float()
        return right if output.shape[0] > 2 else float(right.numpy().mean())

    t = classifier(metrics=[shy, "accuracy"])  # the last batch has two rows
    t.fit((X, CLASSES), batch_size=16, epochs=3, validation=(X, CLASSES), progress=False)
    for row in t.history:
        assert row["shy"] == pytest.approx(row["accuracy"]) and row["val_shy"] == pytest.approx(row["val_accuracy"])


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

"""Metrics in the trainer: by name, masked, from sums or from whole columns, and what they do to the native loop."""

from __future__ import annotations

import numpy as np
import pytest

import slalom
from slalom import nn, optim
from slalom.compiler.native import native
from slalom.data import TensorDataset
from slalom.train import EarlyStopping, Metric
from tests.fits import CLASSES, N, X, classifier, network, regressor, state

sklearn = pytest.importorskip("sklearn.metrics")
RNG = np.random.default_rng(5)
WEIGHT = RNG.integers(1, 4, N).astype(np.float32)


def softmax(scores):
    raised = np.exp(scores.astype(np.float64))
    return raised / raised.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("compiled", [True, False])
def test_metrics_by_name(compiled):
    t = classifier(metrics=["accuracy", "auc", "f1_macro", "log_loss", "average_precision"], compile=compiled)
    history = t.fit((X, CLASSES), batch_size=16, epochs=2, validation=(X[:33], CLASSES[:33]), progress=False)
    names = ["loss", "accuracy", "f1_macro", "log_loss"]
    validated = ["loss", "accuracy", "auc", "f1_macro", "log_loss", "average_precision"]
    assert list(history[-1]) == ["epoch", "step", "seconds", "lr", *names, *(f"val_{name}" for name in validated)]
    found = t.evaluate((X, CLASSES), batch_size=7, sample_weight=WEIGHT)
    assert list(found) == validated
    p = softmax(t.predict(X))
    auc = sklearn.roc_auc_score(CLASSES, p, multi_class="ovr", sample_weight=WEIGHT)
    assert found["auc"] == pytest.approx(auc, rel=1e-9)
    assert found["log_loss"] == pytest.approx(found["loss"], rel=1e-6)
    part = softmax(t.predict(X[:33]))
    auc = sklearn.roc_auc_score(CLASSES[:33], part, multi_class="ovr")
    assert history[-1]["val_auc"] == pytest.approx(auc, rel=1e-9)


@pytest.mark.skipif(not native(), reason="no native code here")
def test_a_metric_of_all_rows_leaves_training_native_and_says_so():
    t = classifier(metrics=["accuracy", "auc", "average_precision"])
    plain = classifier(metrics=["accuracy"])
    for trainer in (t, plain):
        trainer.fit((X, CLASSES), batch_size=16, epochs=2, validation=(X, CLASSES), progress=False)
    assert "loop: tier A" in t.explain()
    line = "metrics: auc, average_precision from all rows at once, so in evaluation and validation only"
    assert t.explain().splitlines()[-1] == line and "metrics" not in plain.explain()
    assert all((a == b).all() for a, b in zip(state(t.model).values(), state(plain.model).values(), strict=True))


@pytest.mark.skipif(not native(), reason="no native code here")
def test_one_of_ones_own_that_cannot_be_recorded_leaves_training_native_too():
    def rows(output, target):
        return [slalom.tensor(output.numpy().argmax(1)), target]

    def kappa(guess, true, weight):
        return sklearn.cohen_kappa_score(guess, true, sample_weight=weight)

    t = classifier(metrics=[Metric("kappa", rows, kappa, whole=True), "accuracy"])
    for _ in range(2):
        t.fit((X, CLASSES), batch_size=16, epochs=1, validation=(X, CLASSES), progress=False)
        assert "loop: tier A" in t.explain()
    expected = sklearn.cohen_kappa_score(t.predict(X).argmax(1), CLASSES, sample_weight=WEIGHT)
    assert t.evaluate((X, CLASSES), sample_weight=WEIGHT, batch_size=20)["kappa"] == pytest.approx(expected)


def test_positions_that_the_loss_ignores_are_ignored():
    slalom.manual_seed(0)

    class Tagger(nn.Module):
        """(B, T) words → (B, C, T) scores of their tags."""

        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(20, 3)

        def forward(self, words):
            return self.table(words).movedim(-1, 1)

    words, tags = RNG.integers(0, 20, (N, 6)), RNG.integers(0, 3, (N, 6))
    tags[RNG.random((N, 6)) < 0.4] = 9
    names = ["accuracy", "perplexity", "f1_macro", "auc", "top2", "mcc"]
    t = slalom.Trainer(
        model := Tagger(), nn.CrossEntropyLoss(ignore_index=9), optim.SGD(model.parameters(), lr=0.0), metrics=names
    )
    trained = t.fit((words, tags), batch_size=16, epochs=1, progress=False)[-1]
    found = t.evaluate((words, tags), batch_size=7)
    counts = tags != 9
    scores, true = np.moveaxis(t.predict(words), 1, -1)[counts], tags[counts]
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(true, scores.argmax(1)))
    assert found["perplexity"] == pytest.approx(np.exp(found["loss"]), rel=1e-6)
    assert found["f1_macro"] == pytest.approx(sklearn.f1_score(true, scores.argmax(1), average="macro"))
    assert found["mcc"] == pytest.approx(sklearn.matthews_corrcoef(true, scores.argmax(1)))
    assert found["auc"] == pytest.approx(sklearn.roc_auc_score(true, softmax(scores), multi_class="ovr"))
    for name in ("accuracy", "perplexity", "top2"):
        assert trained[name] == pytest.approx(found[name], rel=1e-6)


def test_several_labels_at_once():
    target = (X[:, :3] > 0).astype(np.float32)
    t = slalom.Trainer(
        model := network(3),
        nn.BCEWithLogitsLoss(),
        optim.Adam(model.parameters(), lr=0.05),
        metrics=["accuracy", "f1", "auc", "log_loss"],
    )
    history = t.fit((X, target), batch_size=16, epochs=20, validation=(X, target), progress=False)
    scores = t.predict(X)
    found = t.evaluate((X, target))
    assert found["accuracy"] == pytest.approx(((scores > 0) == target).mean()) and found["accuracy"] > 0.8
    assert found["f1"] == pytest.approx(sklearn.f1_score(target, scores > 0, average="macro"))
    assert found["auc"] == pytest.approx(sklearn.roc_auc_score(target, scores)) == history[-1]["val_auc"]
    assert found["log_loss"] == pytest.approx(found["loss"], rel=1e-6)


def test_early_stopping_looks_at_an_area():
    t = classifier(metrics="auc")
    stopping = EarlyStopping("val_auc", patience=3)
    history = t.fit((X, CLASSES), epochs=40, validation=(X, CLASSES), callbacks=[stopping], progress=False)
    assert repr(stopping).startswith("EarlyStopping('val_auc', mode='max'")
    best = max(history["val_auc"])
    assert t.evaluate((X, CLASSES))["auc"] == pytest.approx(best)


def test_a_dataset_and_regression():
    target = X[:, :1] * 2 + 1
    t = regressor(metrics=["r2", "mape", "rmse"])
    t.fit(TensorDataset(slalom.tensor(X), slalom.tensor(target)), batch_size=16, epochs=30, progress=False)
    found, predicted = t.evaluate((X, target)), t.predict(X)
    assert found["r2"] == pytest.approx(sklearn.r2_score(target, predicted))
    assert found["mape"] == pytest.approx(sklearn.mean_absolute_percentage_error(target, predicted), rel=1e-5)

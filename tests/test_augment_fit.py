"""Augmentation inside a fit: part of the recorded step and of training alone, the same bits however the fit runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fits import assert_close, assert_same, state

import slalom
from slalom import nn, optim
from slalom.compiler import llvm, runtime
from slalom.compiler.native import native
from slalom.data import DataLoader, TensorDataset
from slalom.data.augment import (
    ColorJitter,
    ColumnNoise,
    Compose,
    CutMix,
    Cutout,
    FeatureDropout,
    GaussianNoise,
    MixUp,
    RandomAffine,
    RandomCrop,
    RandomErasing,
    RandomHorizontalFlip,
    SwapNoise,
)
from slalom.errors import ConfigError, DivergenceError, ShapeError
from slalom.train import Callback, Trainer

NATIVE_BITS = True

RNG = np.random.default_rng(5)
IMAGES = RNG.random((70, 1, 6, 6), np.float32)
LABELS = (IMAGES.mean((1, 2, 3)) * 40).astype(np.int64) % 3
ALL = Compose([RandomHorizontalFlip(), RandomAffine(20, (0.2, 0.2)), RandomCrop(6, 1), GaussianNoise(), MixUp(0.4, 3)])


def trainer(augment: Any = ALL, **options: Any) -> Trainer:
    slalom.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    return Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optimizer, augment=augment, **options)


def fitted(t: Trainer, **options: Any) -> Any:
    options = {"epochs": 4, "batch_size": 16, "progress": False, "seed": 3} | options
    t.fit(options.pop("data", (IMAGES, LABELS)), **options)
    return state(t.model)


class EachStep(Callback):
    """Forces the loop to come back after every step."""

    def on_step_end(self, fit: Any) -> None:
        pass


def test_the_native_loop_augments_inside() -> None:
    t = trainer(metrics=["accuracy"])
    found = fitted(t)
    inside = f"augmentation: part of the training step: {ALL!r}"
    assert inside in t.explain().splitlines()
    assert ("loop: tier A" in t.explain()) == native()
    assert_same(found, fitted(trainer(metrics=["accuracy"]), callbacks=[EachStep()]))  # step by step
    assert_close(found, fitted(trainer(metrics=["accuracy"], compile=False)), rtol=1e-3)  # eagerly
    assert not np.allclose(found["1.weight"], fitted(trainer(None))["1.weight"])
    assert not np.array_equal(found["1.weight"], fitted(trainer(), seed=4)["1.weight"])
    assert "augmentation" not in trainer(None).explain()


@pytest.mark.skipif(not native(), reason="no native code here")
def test_the_same_bits_on_any_number_of_threads() -> None:
    before = list(runtime._chosen)
    try:
        results = []
        for n in (1, 2, 3):
            slalom.set_num_threads(n)
            results.append(fitted(trainer()))
    finally:
        runtime._chosen[:] = before
    assert_same(results[0], results[1])
    assert_same(results[0], results[2])


@pytest.mark.skipif(not native(), reason="no native code here")
@pytest.mark.parametrize(
    "augment", [ALL, Compose([RandomErasing(0.9), Cutout(2), ColorJitter(0.2, 0.2), CutMix(1, 3)])]
)
def test_the_same_bits_on_narrower_registers(augment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    host = llvm.Target.host()
    expected = fitted(trainer(augment))
    for bits in (256, 128):
        monkeypatch.setattr(llvm, "_host", lambda bits=bits: host.limited(bits))
        assert_same(expected, fitted(trainer(augment)))


@pytest.mark.skipif(not native(), reason="no native code here")
def test_tables_are_augmented_in_the_native_loop() -> None:
    def run(callbacks: list[Any]) -> tuple[Any, str]:
        slalom.manual_seed(0)
        augment = Compose([ColumnNoise(0.1, [0, 1]), FeatureDropout(0.1), SwapNoise(), MixUp(0.2, 3)])
        t = Trainer(nn.Linear(36, 3), loss=nn.CrossEntropyLoss(), augment=augment)
        return fitted(t, data=(IMAGES.reshape(70, 36), LABELS), callbacks=callbacks), t.explain()

    (inside, tier), (outside, _) = run([]), run([EachStep()])
    assert_same(inside, outside)
    assert "loop: tier A" in tier


def test_it_leaves_the_users_numbers_and_data_alone() -> None:
    x = IMAGES.copy()
    slalom.manual_seed(9)
    expected = slalom.rand(3).tolist()
    t = trainer()
    slalom.manual_seed(9)
    fitted(t, data=(x, LABELS))
    assert slalom.rand(3).tolist() == expected
    np.testing.assert_array_equal(x, IMAGES)


def test_evaluation_and_prediction_see_the_data_as_they_are() -> None:
    """An augmentation that wipes the images out changes training, and nothing else."""
    t, plain = trainer(lambda x, y: (x * 0, y)), trainer(None)
    assert t.evaluate((IMAGES, LABELS)) == plain.evaluate((IMAGES, LABELS))
    np.testing.assert_array_equal(t.predict(IMAGES), plain.predict(IMAGES))
    fitted(t, validation=(IMAGES, LABELS))
    assert np.ptp(t.predict(IMAGES), axis=0).max() > 0
    assert t.history[-1]["val_loss"] == pytest.approx(t.evaluate((IMAGES, LABELS))["loss"])
    np.testing.assert_array_equal(state(t.model)["1.weight"], state(plain.model)["1.weight"])  # no input, no gradient


class Stop(Callback):
    """Ends a fit after so many steps, as Ctrl-C does."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_steps_end(self, fit: Any, steps: range) -> None:
        fit.interrupted = fit.interrupted or fit.step >= self.at


@pytest.mark.parametrize("hooks", [[], [EachStep()]], ids=["native loop", "step by step"])
def test_a_resumed_fit_has_the_same_bits(tmp_path: Path, hooks: list[Any]) -> None:
    whole = fitted(trainer(), callbacks=hooks)
    options = {"checkpoint": tmp_path / "c", "checkpoint_every": "1 step"}
    t = trainer()
    fitted(t, callbacks=[*hooks, Stop(7)], **options)
    assert 7 <= t.step < 16 and t.history.interrupted
    assert_same(whole, fitted(trainer(), callbacks=[*hooks, Stop(1000)], resume=True, **options))


@pytest.mark.parametrize("other", [None, RandomHorizontalFlip(0.4)])
def test_another_augmentation_cannot_be_resumed(tmp_path: Path, other: Any) -> None:
    options = {"checkpoint": tmp_path / "c", "epochs": 1}
    fitted(trainer(RandomHorizontalFlip()), **options)
    with pytest.raises(ConfigError, match=r"other data or settings: .*augment .*RandomHorizontalFlip\(p=0.5\)"):
        fitted(trainer(other), resume=True, **options)


def test_batches_of_a_loader_are_augmented_too() -> None:
    loader = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=16, shuffle=True)
    t = trainer(CutMix(1.0, 3), metrics=["accuracy"])
    fitted(t, data=loader)
    assert np.isfinite(t.history[-1]["loss"]) and 0 < t.history[-1]["accuracy"] < 1
    assert ("loop: tier B" in t.explain()) == native()


def test_metrics_see_the_augmented_target() -> None:
    shapes = set()

    def outside(output: Any, target: Any) -> float:
        shapes.add(target.numpy().shape)  # needs values, so it cannot be recorded
        return float(np.abs(target.numpy().sum(1) - 1).max())

    t = trainer(MixUp(1.0, 3), metrics=["accuracy", outside])
    fitted(t, epochs=1)
    assert shapes == {(16, 3), (6, 3)} and t.history[-1]["outside"] < 1e-6
    assert ("metric 'outside'" in t.explain()) == native()


def test_weights_of_rows_go_with_it() -> None:
    """A row of weight 0 has no say, augmented or not."""
    weight = (np.arange(70) % 2).astype(np.float32)
    wrong = np.where(weight > 0, LABELS, (LABELS + 1) % 3)
    found = [fitted(trainer(RandomCrop(6, 1)), data=(IMAGES, y), sample_weight=weight) for y in (LABELS, wrong)]
    assert_same(*found)


def test_a_divergence_is_looked_into_with_the_same_draws() -> None:
    def blow(x: Any, y: Any) -> Any:
        return slalom.where(slalom.rand(()) < 0.2, x / 0, x), y

    messages = []
    for options in ({}, {"callbacks": [EachStep()]}):
        t = trainer(blow)
        with pytest.raises(DivergenceError, match=r"first output that is not finite is that of model.0") as caught:
            fitted(t, epochs=20, **options)
        messages.append(str(caught.value))
        assert all(np.isfinite(array).all() for array in state(t.model).values())
    assert messages[0] == messages[1]


def test_what_cannot_be_recorded_runs_eagerly_and_says_so() -> None:
    def by_numpy(x: Any, y: Any) -> Any:
        return slalom.tensor(x.numpy()[:, :, ::-1].copy()), y

    t = trainer(by_numpy)
    with pytest.warns(RuntimeWarning, match="training runs eagerly"):
        fitted(t, epochs=1)
    assert "loop: eager" in t.explain()
    assert_close(state(t.model), fitted(trainer(lambda x, y: (x.flip(2), y)), epochs=1), rtol=1e-3)


@pytest.mark.parametrize(
    ("augment", "error", "message"),
    [
        (3, ConfigError, "Trainer: augment: got 3; needed a function of the parts of a batch"),
        (
            lambda x, y: x,
            ShapeError,
            r"augment returns for a batch: got Tensor; needed 2 parts with \[16, 16\]",
        ),
        (lambda x, y: (x[:3], y), ShapeError, r"got 2 parts with \[3, 16\] rows; needed 2 parts"),
        (lambda x, y: (x, y, y), ShapeError, "got 3 parts with"),
        (RandomCrop(7), ShapeError, "RandomCrop: height of the images: got 6; needed at least 7"),
        (MixUp(), ConfigError, "MixUp: a target of int64: needed the number of classes"),
    ],
)
def test_error_messages(augment: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fitted(trainer(augment), epochs=1)


def test_metrics_of_shares_stand_beside_those_of_class_numbers() -> None:
    """Targets of training are mixed, those of validation are not: what a metric sums is another."""
    plain, checked = (trainer(MixUp(0.4, 3), metrics=["accuracy", "f1_macro"]) for _ in range(2))
    fitted(plain)
    fitted(checked, validation=(IMAGES, LABELS))
    for name in ("accuracy", "f1_macro"):
        rows = [[row[name] for row in t.history.rows] for t in (plain, checked)]
        assert rows[0] == rows[1] and len(rows[0]) == 4
        # The best weights are back in the end.
        assert checked.evaluate((IMAGES, LABELS))[name] in [row[f"val_{name}"] for row in checked.history.rows]

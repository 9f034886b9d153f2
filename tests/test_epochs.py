"""Several epochs in one native run: everything is as if Python had been asked between them, and it is asked less."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fits import assert_same, network, state

import slalom
from slalom import Tensor, nn, optim
from slalom.compiler.loop import Loop
from slalom.compiler.native import native
from slalom.compiler.threads import Table
from slalom.core import kernels
from slalom.errors import DivergenceError
from slalom.train import Callback, EarlyStopping, Trainer
from slalom.train.loop import Fit

NATIVE_BITS = True
pytestmark = pytest.mark.skipif(not native(), reason="no native code here")

RNG = np.random.default_rng(7)
X = RNG.normal(size=(300, 4)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(np.int64)


class EachEpoch(Callback):
    """Asks for a look at every epoch; notes what it sees."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int, bool]] = []

    def on_epoch_end(self, fit: Fit) -> None:
        weights = np.concatenate([t.detach().numpy().ravel() for t in fit.tensors.values()])
        self.seen.append((fit.epoch, fit.step, fit.batch, bool(np.isfinite(weights).all())))


class EachStep(Callback):
    def on_step_end(self, fit: Fit) -> None:
        pass


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many steps of a table each run makes."""
    found: list[int] = []
    run = Table.run

    def counted(table: Table, steps: int, threads: int = 1, *, start: int = 0) -> Any:
        found.append(steps)
        return run(table, steps, threads, start=start)

    monkeypatch.setattr(Table, "run", counted)
    return found


def fitted(*callbacks: Callback, epochs: int = 60, batch_size: int = 64, lr: float = 0.01, **options: Any) -> Trainer:
    model = network(2, dropout=0.2, norm=True)
    trainer = Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optim.Adam(model.parameters(), lr=lr))
    trainer.fit((X, Y), batch_size=batch_size, epochs=epochs, progress=False, callbacks=callbacks, **options)
    return trainer


def rows(trainer: Trainer) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in trainer.history.rows]


@pytest.mark.parametrize("batch_size", [64, 100, 300, 2, 299], ids=lambda n: f"batch {n}")
@pytest.mark.parametrize("weights", [None, RNG.random(300).astype(np.float32)], ids=["even", "weighted"])
def test_weights_and_history_are_the_same(batch_size: int, weights: Any, runs: list[int]) -> None:
    many = fitted(batch_size=batch_size, sample_weight=weights, epochs=12)
    at_once = len(runs)
    each = fitted(EachEpoch(), batch_size=batch_size, sample_weight=weights, epochs=12)
    stepwise = fitted(EachStep(), batch_size=batch_size, sample_weight=weights, epochs=12)
    assert rows(many) == rows(each) == rows(stepwise)
    assert_same(state(many.model), state(each.model))
    assert_same(state(many.model), state(stepwise.model))
    assert [row["epoch"] for row in many.history.rows] == list(range(1, 13))
    assert at_once < 12 <= len(runs) - at_once


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_same_bits_on_any_number_of_threads(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the order of 10,000 rows, which several threads compute together, and of all that comes after it."""
    x, y = np.tile(X, (34, 1))[:10_000], np.tile(Y, 34)[:10_000]
    found = []
    for threads in (n, 2):
        monkeypatch.setattr("slalom.compiler.runtime._chosen", [threads])
        trainer = trainer_of()
        trainer.fit((x, y), batch_size=512, epochs=6, progress=False)
        assert f"threads: {threads}" in trainer.explain()
        found.append(trainer)
    assert rows(found[0]) == rows(found[1])
    assert_same(state(found[0].model), state(found[1].model))


def test_more_epochs_than_are_known_ahead(runs: list[int]) -> None:
    many = fitted(epochs=150)
    assert len(runs) < 20
    assert rows(many) == rows(fitted(EachEpoch(), epochs=150))


def test_a_second_fit_goes_on(runs: list[int]) -> None:
    parts = fitted(epochs=5)
    parts.fit((X, Y), batch_size=64, epochs=55, progress=False)
    assert rows(parts) == rows(fitted())


def test_a_trainer_goes_from_data_to_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other rows, as many or fewer, another seed, one and the same array again: as trainers that know nothing yet."""
    data = [((X, Y), 0), ((X[::-1].copy(), Y[::-1].copy()), 0), ((X, Y), 3), ((X[:200], Y[:200]), 3), ((X, Y), 0)]
    made: list[Loop] = []
    monkeypatch.setattr("slalom.train.steps.Loop", lambda *args: made.append(Loop(*args)) or made[-1])

    def run(forget: bool) -> Trainer:
        trainer = trainer_of()
        for arrays, seed in data:
            trainer.fit(arrays, batch_size=64, epochs=3, seed=seed, progress=False)
            if forget:
                trainer.program._loops = []
        return trainer

    again, anew = run(False), run(True)
    assert len(made) == 2 + len(data)
    assert rows(again) == rows(anew)
    assert_same(state(again.model), state(anew.model))


def test_a_small_step_is_never_tried_on_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order of its rows would be worth."""
    monkeypatch.setattr("slalom.compiler.runtime._chosen", [])
    monkeypatch.setattr("slalom.compiler.runtime.available_cpus", lambda: 2)
    trainer, n = trainer_of(), 20_000
    trainer.fit((np.tile(X, (67, 1))[:n], np.tile(Y, 67)[:n]), batch_size=32, epochs=2, progress=False)
    (loop,) = trainer.program._loops
    assert any(call.ways > 1 for call in loop.table.calls) and not loop.shared and loop.pace._choices == [1]


def test_the_data_are_let_go_after_a_fit() -> None:
    trainer, x = trainer_of(), X.copy()
    trainer.fit((x, Y), batch_size=64, epochs=3, progress=False)
    gone = weakref.ref(x)
    del x
    gc.collect()
    assert gone() is None


def test_epochs_have_their_share_of_the_time() -> None:
    started = time.perf_counter()
    trainer = fitted(epochs=200)
    elapsed = time.perf_counter() - started
    seconds = trainer.history["seconds"]
    assert len(seconds) == 200 and min(seconds) > 0 and sum(seconds) < elapsed


def test_progress_does_not_ask_for_each_epoch(runs: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    model = network(2)
    trainer = Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optim.Adam(model.parameters()))
    trainer.fit((X, Y), batch_size=64, epochs=40)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == [f"{i}/40" for i in range(1, 41)]
    assert len(runs) < 20


def test_what_needs_each_epoch_gets_it(runs: list[int], tmp_path: Path) -> None:
    """Validation, tolerance, a schedule, a callback, checkpoints by epochs: each sees the weights of its epoch."""
    watch = EachEpoch()
    fitted(watch, epochs=20)
    assert [(epoch, step) for epoch, step, *_ in watch.seen] == [(i, 5 * i) for i in range(1, 21)]
    options: list[dict[str, Any]] = [
        {"validation": (X[:50], Y[:50])},
        {"tol": 0.0},
        {"checkpoint": tmp_path / "run", "checkpoint_every": "1 epoch"},
    ]
    for given in options:
        runs.clear()
        fitted(epochs=20, **given)
        assert len(runs) >= 20, given
    model = network(2)
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    trainer = Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optimizer, schedule=schedule)
    trainer.fit((X, Y), batch_size=64, epochs=5, progress=False)
    assert trainer.history["lr"] == [0.1 * 0.5**i for i in range(5)]


def test_early_stopping_stops_at_its_epoch() -> None:
    inside = fitted(EarlyStopping("loss", patience=3, min_delta=0.02))
    stepwise = fitted(EarlyStopping("loss", patience=3, min_delta=0.02), EachStep())
    assert rows(inside) == rows(stepwise) and inside.epoch < 60
    assert_same(state(inside.model), state(stepwise.model))


# --- what goes wrong --------------------------------------------------------------------------------------------------
def diverging(*callbacks: Callback, bad: int, kind: str) -> tuple[str, Trainer]:
    """One weight, one step an epoch: it grows until its square, the loss, or the weight itself is no number, about in
    epoch ``bad``."""
    slalom.manual_seed(0)
    model = nn.Linear(1, 1, bias=False)
    with slalom.no_grad():
        model.weight.fill_(1.0)
    x = np.ones((16, 1), np.float32)
    rate = (1 + 10 ** (19.2 / bad)) / 2 if kind == "loss" else 3.4e38 / (bad - 0.5)
    optimizer = optim.SGD(model.parameters(), lr=rate)
    if kind == "loss":
        trainer = Trainer(model, loss=nn.MSELoss(), optimizer=optimizer)
    else:
        trainer = Trainer(model, step=lambda x, y: model(x[:1]).sum(), optimizer=optimizer)
    with pytest.raises(DivergenceError) as caught:
        trainer.fit((x, 0 * x), batch_size=16, epochs=500, progress=False, callbacks=callbacks)
    return str(caught.value), trainer


@pytest.mark.parametrize("kind", ["loss", "weight"])
@pytest.mark.parametrize("bad", [1, 2, 3, 20, 64, 65, 128])
def test_a_divergence_is_named_and_rolled_back_alike(kind: str, bad: int, runs: list[int]) -> None:
    text, many = diverging(bad=bad, kind=kind)
    at_once = len(runs)
    expected, each = diverging(EachEpoch(), bad=bad, kind=kind)
    assert text == expected and rows(many) == rows(each)
    assert ("the loss is" if kind == "loss" else f"in step {bad} (epoch {bad}): an update left 'weight'") in text
    assert_same(state(many.model), state(each.model))
    assert np.isfinite(state(many.model)["weight"]).all()
    assert at_once < len(runs) - at_once or bad < 20


def test_a_row_that_is_not_finite_in_a_later_part_of_the_epoch() -> None:
    x = X.copy()
    x[kernels.permutation(0, 0, 300)[-3]] = np.nan
    model = network(2)
    before = state(model)
    trainer = Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optim.Adam(model.parameters()))
    with pytest.raises(DivergenceError, match=r"step 5 .epoch 1.*not finite in row"):
        trainer.fit((x, Y), batch_size=64, epochs=50, progress=False)
    assert trainer.step == 4 and not trainer.history.rows
    assert any((state(model)[name] != before[name]).any() for name in before)


def test_a_buffer_that_becomes_infinite_ends_the_first_epoch_and_one_that_was_does_not() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 2)
            self.mask = nn.Buffer(Tensor([0.0, -float("inf")]))
            self.growing = nn.Buffer(Tensor([1.0]))
            self.factor = 1.0

        def forward(self, x: Tensor) -> Tensor:
            with slalom.no_grad():
                self.growing.mul_(self.factor)
            return self.inner(x)

    for callbacks in ([], [EachEpoch()], [EachStep()]):
        model = Odd()
        trainer = Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optim.Adam(model.parameters()))
        trainer.fit((X, Y), batch_size=64, epochs=2, progress=False, callbacks=callbacks)
        assert trainer.step == 10
        model.factor = 1e30
        with pytest.raises(DivergenceError, match="left 'growing'"):
            trainer.fit((X, Y), batch_size=64, epochs=5, progress=False, callbacks=callbacks)
        assert trainer.step == 15


# --- interruptions ----------------------------------------------------------------------------------------------------
def trainer_of() -> Trainer:
    model = network(2, dropout=0.2, norm=True)
    return Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optim.Adam(model.parameters(), lr=0.01))


def interrupt(trainer: Trainer, step: int) -> threading.Thread:
    """Ctrl-C soon after a step."""

    def watch() -> None:
        while trainer.step < step:
            time.sleep(0.0005)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@pytest.mark.parametrize("step", [1, 3000, 7001])
def test_ctrl_c_anywhere_and_going_on_gives_the_same_bits(step: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"batch_size": 64, "epochs": 5000, "progress": False}
    kept = {**options, "checkpoint": tmp_path / "run", "checkpoint_every": 3600.0}
    trainer = trainer_of()
    thread = interrupt(trainer, step)
    history = trainer.fit((X, Y), **kept)
    thread.join()
    assert history.interrupted and step <= trainer.step < 25_000
    assert [row["epoch"] for row in history] == list(range(1, len(history) + 1))
    assert trainer.step - 5 <= history["step"][-1] <= trainer.step if len(history) else trainer.step <= 5
    resumed, whole = trainer_of(), trainer_of()
    resumed.fit((X, Y), **kept, resume=True)
    whole.fit((X, Y), **options)
    assert rows(resumed) == rows(whole)
    assert_same(state(resumed.model), state(whole.model))


def test_checkpoints_by_steps_are_those_of_these_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from slalom.train.checkpoint import Checkpoint

    saved: list[tuple[int, int, int]] = []
    save = Checkpoint.save

    def noted(self: Checkpoint, fit: Fit, finished: bool = False) -> None:
        saved.append((fit.step, fit.trainer.epoch, fit.batch))
        save(self, fit, finished)

    monkeypatch.setattr(Checkpoint, "save", noted)
    fitted(epochs=10, checkpoint=tmp_path / "run", checkpoint_every="12 steps")
    assert saved == [(12, 2, 2), (24, 4, 4), (36, 7, 1), (48, 9, 3), (50, 10, 0)]

"""Callbacks: their order, stopping, the best weights, History, and progress."""

from __future__ import annotations

import io
import json
import math
import sys

import numpy as np
import pytest

import slalom
from slalom import nn, optim
from slalom.errors import ConfigError, DataError
from slalom.train import Callback, EarlyStopping, History
from slalom.train.callbacks import Best
from slalom.train.progress import Progress

NATIVE_BITS = True
RNG = np.random.default_rng(3)
X = RNG.normal(size=(40, 3)).astype(np.float32)
Y = (X @ np.array([1.0, -2.0, 0.5], np.float32) + 0.1 * RNG.normal(size=40)).astype(np.float32)


def trainer(lr=0.05, **options):
    slalom.manual_seed(0)
    model = nn.Linear(3, 1)
    return slalom.Trainer(model, loss=nn.MSELoss(), optimizer=optim.SGD(model.parameters(), lr=lr), **options)


def weights(t):
    return {name: p.detach().numpy().copy() for name, p in t.model.named_parameters()}


class Recorder(Callback):
    def __init__(self, log, name=""):
        self.log, self.name = log, name

    def on_fit_begin(self, fit):
        self.log.append(f"{self.name}fit_begin")

    def on_epoch_begin(self, fit):
        self.log.append(f"{self.name}epoch_begin {fit.epoch}")

    def on_steps_end(self, fit, steps):
        self.log.append(f"{self.name}steps_end {steps.start}-{steps.stop}")

    def on_step_end(self, fit):
        assert fit.model.weight.grad.shape == (1, 3)
        assert math.isfinite(fit.loss)
        self.log.append(f"{self.name}step_end {fit.step}")

    def on_epoch_end(self, fit):
        assert fit.row is fit.history[-1] and fit.row["epoch"] == fit.epoch
        self.log.append(f"{self.name}epoch_end {fit.epoch}")

    def on_fit_end(self, fit):
        self.log.append(f"{self.name}fit_end")


def test_order(monkeypatch):
    monkeypatch.setattr("slalom.train.loop.REPORT_SECONDS", 1e9)
    log: list[str] = []
    trainer().fit((X, Y), batch_size=20, epochs=2, callbacks=[Recorder(log)], progress=False)
    assert log == [
        "fit_begin",
        "epoch_begin 1", "step_end 1", "steps_end 0-1", "step_end 2", "steps_end 1-2", "epoch_end 1",
        "epoch_begin 2", "step_end 3", "step_end 4", "steps_end 2-4", "epoch_end 2",
        "fit_end",
    ]  # fmt: skip


def test_several_are_called_in_the_order_given():
    log: list[str] = []
    trainer().fit((X, Y), epochs=1, callbacks=[Recorder(log, "a "), Recorder(log, "b ")], progress=False)
    assert [entry[2:] for entry in log if entry[0] == "a"] == [entry[2:] for entry in log if entry[0] == "b"]
    assert log[:4] == ["a fit_begin", "b fit_begin", "a epoch_begin 1", "b epoch_begin 1"]


def test_steps_end_covers_every_step_once():
    seen: list[int] = []

    class Steps(Callback):
        def on_steps_end(self, fit, steps):
            seen.extend(steps)

    trainer().fit((X, Y), batch_size=1, epochs=3, callbacks=[Steps()], progress=False)
    assert seen == list(range(120))


def test_the_base_does_nothing_and_must_be_one():
    log: list[str] = []
    history = trainer().fit((X, Y), epochs=1, callbacks=[Callback(), Recorder(log)], progress=False)
    assert len(history) == 1 and len(log) > 3
    with pytest.raises(ConfigError, match="fit: callback: got 'x'; needed a Callback"):
        trainer().fit((X, Y), callbacks=["x"])


class StopAt(Callback):
    def __init__(self, step):
        self.at = step

    def on_step_end(self, fit):
        if fit.step == self.at:
            fit.stop("time is up")
            fit.stop("a second reason")


def test_stop_in_the_middle_of_an_epoch_still_ends_it():
    t = trainer()
    history = t.fit((X, Y), batch_size=10, epochs=5, validation=(X, Y), callbacks=[StopAt(6)], progress=False)
    assert [row["step"] for row in history] == [4, 6]
    assert history.stopped == "time is up" and not history.interrupted
    assert "val_loss" in history[-1]
    assert repr(history).endswith("stopped: time is up")


# --- early stopping -----------------------------------------------------------------------------------------------
class Script(Callback):
    """Puts given numbers in place of a validation loss, and remembers the weights of each epoch."""

    def __init__(self, values):
        self.values, self.seen = values, []

    def on_epoch_end(self, fit):
        fit.row["val_loss"] = self.values[fit.epoch - 1]
        self.seen.append({name: t.detach().numpy().copy() for name, t in fit.model.named_parameters()})


def stopped_fit(values, epochs=None, **options):
    t, script = trainer(), Script(values)
    stopping = EarlyStopping(**options)
    history = t.fit(
        (X, Y), epochs=epochs or len(values), validation=(X, Y), callbacks=[script, stopping], progress=False
    )
    return t, script, stopping, history


@pytest.mark.parametrize(
    ("values", "options", "epochs", "best"),
    [
        ([3, 2, 2.5, 2.6, 2.7, 1], {"patience": 2}, 4, 2),
        ([3, 2, 2.5, 1.5, 2.7, 2.8, 0], {"patience": 2}, 6, 4),
        ([3, 2, 1], {"patience": 2}, 3, 3),
        ([3, 1, 2], {"patience": 5}, 3, 2),  # it never stops, and still the best weights come back
        ([3, 2.95, 2.9, 2.85], {"patience": 2, "min_delta": 0.2}, 3, 3),  # better by less counts for the weights only
        ([1, 2, 3, 2.5], {"patience": 2, "mode": "max"}, 4, 3),
        ([math.nan, 2, math.nan, math.nan, 1], {"patience": 2}, 4, 2),
        ([2, 2, 2], {"patience": 1}, 2, 1),
        ([2, 3, 1], {"patience": 0}, 2, 1),
        ([math.inf, math.inf, 5.0, 6.0], {"patience": 3}, 4, 3),
    ],
)
def test_early_stopping(values, options, epochs, best):
    t, script, stopping, history = stopped_fit(values, **options)
    assert len(history) == epochs
    assert stopping.best.epoch == best
    for name, array in weights(t).items():
        np.testing.assert_array_equal(array, script.seen[best - 1][name])
    if epochs < len(values):
        assert history.stopped is not None and history.stopped.startswith("val_loss did not improve for")


def test_all_nan_keeps_the_last_weights():
    t, script, stopping, history = stopped_fit([math.nan] * 4, patience=9)
    assert stopping.best.epoch is None and len(history) == 4
    np.testing.assert_array_equal(weights(t)["weight"], script.seen[-1]["weight"])


def test_without_early_stopping_the_last_weights_stay():
    t, script = trainer(), Script([1, 2, 3])
    t.fit((X, Y), epochs=3, validation=(X, Y), callbacks=[script], progress=False)
    np.testing.assert_array_equal(weights(t)["weight"], script.seen[-1]["weight"])


def test_a_second_fit_starts_anew():
    stopping = EarlyStopping("loss", patience=1, min_delta=1e-3)
    t = trainer(lr=0.0)
    assert len(t.fit((X, Y), epochs=9, callbacks=[stopping], progress=False)) == 2
    assert len(t.fit((X, Y), epochs=9, callbacks=[stopping], progress=False)) == 4


def test_what_is_monitored_must_exist():
    with pytest.raises(ConfigError, match="EarlyStopping of 'val_loss': got none; needed a validation set"):
        trainer().fit((X, Y), callbacks=[EarlyStopping()], progress=False)
    with pytest.raises(ConfigError, match="monitor: got 'accuracy'; needed one of epoch, step, seconds, lr, loss"):
        trainer().fit((X, Y), callbacks=[EarlyStopping("accuracy")], progress=False)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"patience": -1}, "patience: got -1"),
        ({"min_delta": math.nan}, "min_delta: got nan"),
        ({"mode": "least"}, "mode: got 'least'"),
    ],
)
def test_early_stopping_mistakes(options, text):
    with pytest.raises(ConfigError, match=text):
        EarlyStopping(**options)


@pytest.mark.parametrize(
    ("monitor", "sign"),
    [("val_loss", 1), ("loss", 1), ("val_rmse", 1), ("val_accuracy", -1), ("val_balanced_accuracy", -1),
     ("r2", -1), ("val_f1", -1), ("top3", -1), ("topology", 1)],
)  # fmt: skip
def test_which_way_is_better(monitor, sign):
    assert Best(monitor).sign == sign


# --- tol ----------------------------------------------------------------------------------------------------------
def test_tol_stops_when_nothing_moves():
    """The lecture's gradient descent: for N iterations, or until |Δθ| < ε."""
    t = trainer(lr=0.1)
    history = t.fit((X, Y), batch_size=None, epochs=5000, tol=1e-4, progress=False)
    assert 10 < len(history) < 5000
    assert history.stopped == f"no parameter moved by more than 0.0001 in epoch {len(history)}"
    before = weights(t)
    t.fit((X, Y), batch_size=None, epochs=1, progress=False)
    assert max(np.abs(before[name] - now).max() for name, now in weights(t).items()) <= 1e-4
    assert trainer(lr=0.0).fit((X, Y), epochs=5, tol=0, progress=False)[-1]["epoch"] == 1


# --- history ------------------------------------------------------------------------------------------------------
def test_history_reads_like_a_table(tmp_path):
    history = trainer().fit((X, Y), epochs=3, validation=(X, Y), progress=False)
    assert len(history) == 3 and [row["epoch"] for row in history] == [1, 2, 3]
    assert history.columns == ["epoch", "step", "seconds", "lr", "loss", "val_loss"]
    assert history["val_loss"][-1] == history[-1]["val_loss"] == history[2]["val_loss"]
    assert history["lr"] == [0.05] * 3
    assert history.best("val_loss") is min(history, key=lambda row: row["val_loss"])
    assert len(history[1:]) == 2 and isinstance(history[1:], History)
    lines = repr(history).splitlines()
    assert lines[0].split() == history.columns and len(lines) == 4
    with pytest.raises(KeyError, match="no column 'acc'; it has epoch, step"):
        history["acc"]
    history.to_jsonl(tmp_path / "h.jsonl")
    assert History.from_jsonl(tmp_path / "h.jsonl") == history
    assert json.loads((tmp_path / "h.jsonl").read_text().splitlines()[1])["epoch"] == 2


def test_history_as_dataframe(monkeypatch):
    history = History([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25, "val_loss": 1.0}])
    pytest.importorskip("pandas")
    frame = history.to_dataframe()
    assert list(frame.columns) == ["epoch", "loss", "val_loss"] and frame["loss"].tolist() == [0.5, 0.25]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"needed pandas. Hint: pip install pandas"):
        history.to_dataframe()


def test_history_keeps_numbers_that_are_not_finite(tmp_path):
    history = History([{"epoch": 1, "loss": math.nan, "val_loss": math.inf, "r2": -math.inf}])
    history.to_jsonl(tmp_path / "h")
    again = History.from_jsonl(tmp_path / "h")
    assert math.isnan(again[0]["loss"]) and again[0]["val_loss"] == math.inf and again[0]["r2"] == -math.inf
    assert "NaN" not in (tmp_path / "h").read_text()
    with pytest.raises(DataError, match="the best epoch by 'loss'"):
        again.best("loss")


@pytest.mark.parametrize("line", ["[1]", '{"epoch": "x"}', '{"epoch": null}', "{"])
def test_history_files_that_are_none(tmp_path, line):
    (tmp_path / "h").write_text('{"epoch": 1}\n' + line)
    with pytest.raises(DataError, match="line 2: needed a JSON object of numbers"):
        History.from_jsonl(tmp_path / "h")
    with pytest.raises(DataError, match="No such file"):
        History.from_jsonl(tmp_path / "none")


def test_empty_and_long_histories_print():
    assert repr(History()) == "History(no epochs)"
    assert History() == History() and History().columns == []
    text = repr(History([{"epoch": i} for i in range(1, 101)]))
    assert text.split() == ["epoch", *"12345", "…", *map(str, range(95, 101))]


# --- progress -----------------------------------------------------------------------------------------------------
def test_plain_lines_on_standard_error(capsys):
    t = trainer(metrics=["mae"])
    t.fit((X, Y), epochs=2, validation=(X, Y))
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) == 2
    assert lines[1].startswith(
        f"epoch 2/2  loss {t.history[-1]['loss']:.4g}  mae {t.history[-1]['mae']:.4g}  val_loss "
    )
    t.fit((X, Y), epochs=1, progress=False)
    assert capsys.readouterr() == ("", "")


def test_long_fits_print_some_epochs_and_the_last(capsys):
    trainer().fit((X, Y), batch_size=None, epochs=250)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 84 and lines[0].startswith("epoch 1/250 ") and lines[-1].startswith("epoch 250/250 ")


def test_why_it_stopped_is_printed(capsys):
    trainer(lr=0.0).fit((X, Y), epochs=9, validation=(X, Y), callbacks=[EarlyStopping(patience=2)])
    lines = capsys.readouterr().err.splitlines()
    assert lines[2].startswith("epoch 3/9 ")
    assert lines[3].startswith("stopped: val_loss did not improve for 2 epochs (best ")
    assert lines[4].startswith("weights of epoch 1, the best: val_loss ") and len(lines) == 5


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_in_a_terminal(monkeypatch):
    pytest.importorskip("rich")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    trainer().fit((X, Y), batch_size=1, epochs=2)
    assert "\x1b[" in stream.getvalue()
    assert stream.getvalue().rstrip().rpartition("epoch 2/2  loss ")[1]


def test_without_rich_a_terminal_gets_lines(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    for name in ("rich", "rich.console", "rich.progress"):
        monkeypatch.setitem(sys.modules, name, None)
    trainer().fit((X, Y), epochs=1)
    assert "\x1b" not in stream.getvalue() and stream.getvalue().startswith("epoch 1/1  loss ")


def test_the_bar_is_closed_when_a_callback_fails(monkeypatch):
    pytest.importorskip("rich")

    class Fails(Callback):
        def on_epoch_end(self, fit):
            raise RuntimeError("mine")

    closed = []
    close = Progress.close
    monkeypatch.setattr(Progress, "close", lambda self: (closed.append(True), close(self)))
    monkeypatch.setattr(sys, "stderr", Terminal())
    t = trainer()
    with pytest.raises(RuntimeError, match="mine"):
        t.fit((X, Y), epochs=1, callbacks=[Fails()])
    assert closed
    assert len(t.fit((X, Y), epochs=1, progress=False)) == 2  # and the trainer is still good

"""Trainer: how a fit ends when it diverges or is interrupted, and what is left then."""

from __future__ import annotations

import gc
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import weakref
from contextlib import nullcontext

import numpy as np
import pytest
from fits import CLASSES, VALUES, N, X, assert_same, classifier, network, regressor, state

import slalom
from slalom import Tensor, nn, no_grad, optim
from slalom.errors import DivergenceError
from slalom.train import Callback, EarlyStopping
from slalom.train.model_file import weights_sha256
from slalom.utils.data import DataLoader, TensorDataset

NATIVE_BITS = True


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
        assert not model.first.weight.grad
        assert not any(held.numpy().any() for slots in t.optimizer.state.values() for held in slots.values())


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
        factors = [math.nan]  # noqa: RUF012 (numbers inside lists are not followed)

        def forward(self, x):
            return x * self.factors[0]

    model = nn.Sequential(nn.Linear(4, 1), Drifts())
    t = slalom.Trainer(model, loss=nn.MSELoss(), optimizer=optim.SGD(model.parameters(), lr=0.01))
    with pytest.raises(DivergenceError, match=r"first output that is not finite is that of model.1 \(Drifts\)"):
        t.fit((X, VALUES), epochs=1, progress=False)
    model[1].factors[0] = 1.0
    with pytest.raises(DivergenceError, match=r"run eagerly the same batch does not. Hint: numbers inside lists"):
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


# --- memory -------------------------------------------------------------------------------------------------------
class Watching(Callback):
    def on_step_end(self, fit):
        pass


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"compile": False}], ids=str)
@pytest.mark.parametrize("callbacks", [[], [Watching()]], ids=["free", "watched"])
def test_a_trainer_goes_at_once_with_all_that_it_made(options, callbacks):
    gc.collect()
    gc.disable()  # nothing may be left to it
    try:
        t = classifier(**options)
        t.fit((X, CLASSES), epochs=2, batch_size=16, validation=(X, CLASSES), callbacks=callbacks, progress=False)
        t.predict(X)
        made = [weakref.ref(held) for held in (t, t.model, t.program, *t.program._loops)]
        made += [weakref.ref(record.compiled) for record in t.program._records.values()]
        del t
        assert not [ref for ref in made if ref() is not None]
    finally:
        gc.enable()

"""Trainer(accumulate=k) in the native loop: one record for the batches of an update, the bits of share by share."""

from __future__ import annotations

import numpy as np
import pytest
from fits import CLASSES, N, X, assert_same, network, state

from slalom import Tensor, nn, optim
from slalom.compiler.native import native
from slalom.data.augment import ColumnNoise
from slalom.errors import DivergenceError
from slalom.train import Callback, Trainer

NATIVE_BITS = True
pytestmark = pytest.mark.skipif(not native(), reason="no native code here")


class EachStep(Callback):
    """Forces the loop to come back after every step."""

    def on_step_end(self, fit):
        pass


def in_arrays(k, *, inside=True, batch_size=8, epochs=3, target=CLASSES, loss=None, **options):
    fit = {
        name: options.pop(name) for name in ("sample_weight", "validation", "checkpoint", "resume") if name in options
    }
    model = network(dropout=0.3, norm=True)
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    t = Trainer(model, loss or nn.CrossEntropyLoss(), optimizer, accumulate=k, **options)
    callbacks = [] if inside else [EachStep()]
    t.fit((X, target), batch_size=batch_size, epochs=epochs, progress=False, callbacks=callbacks, **fit)
    assert t.explain().startswith("loop: tier A" if inside else "loop: tier C")
    return t


WAYS = {
    "plain": {},
    "clipped": {"clip_norm": 0.05, "metrics": ["accuracy"]},
    "values": {"clip_value": 0.01, "loss": nn.CrossEntropyLoss(reduction="sum")},
    "ignored": {"loss": nn.CrossEntropyLoss(Tensor([1.0, 3.0, 0.5]), ignore_index=1)},
    "weighted": {"sample_weight": np.linspace(0.1, 2.0, N).astype(np.float32), "class_weight": "balanced"},
    "scheduled": {"schedule": optim.schedules.cosine(steps=8, warmup=2), "validation": (X[:9], CLASSES[:9])},
    "penalised": {"penalties": {"*weight": nn.L1Penalty(0.01)}, "augment": ColumnNoise(0.2)},
}


@pytest.mark.parametrize("k", [2, 3, 7, 60])
@pytest.mark.parametrize("way", WAYS)
def test_the_native_loop_gives_the_same_bits(way, k):
    inside, outside = (in_arrays(k, inside=where, **WAYS[way]) for where in (True, False))
    assert_same(state(inside.model), state(outside.model))
    assert inside.step == outside.step == 3 * -(-len(range(0, N, 8)) // k)
    for ours, theirs in zip(inside.history.rows, outside.history.rows, strict=True):
        assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}


def test_an_update_too_long_for_one_record_runs_share_by_share(monkeypatch):
    short = in_arrays(3)
    monkeypatch.setattr("slalom.train.native.EQUATIONS", 500)
    t = Trainer(network(dropout=0.3, norm=True), nn.CrossEntropyLoss(), accumulate=3)
    t.fit((X, CLASSES), batch_size=8, epochs=1, progress=False)
    assert "tier C (accumulate=3: of so many batches one record would be too long)" in t.explain()
    assert "tier A" in short.explain()


def test_a_native_fit_goes_on_in_the_middle_of_an_epoch(tmp_path):
    class Stop(Callback):
        def on_steps_end(self, fit, steps):
            if fit.step >= 3:
                raise KeyboardInterrupt

        def __repr__(self):
            return "Stop"

    path, whole = tmp_path / "run.safetensors", in_arrays(2)
    options = {"batch_size": 8, "epochs": 3, "progress": False}
    keep = {"checkpoint": path, "checkpoint_every": "1 steps"}

    def fit(callbacks, **more):
        model = network(dropout=0.3, norm=True)
        t = Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=0.01), accumulate=2)
        t.fit((X, CLASSES), **options, callbacks=callbacks, **keep, **more)
        return t

    stopped = fit([Stop()])
    assert 3 <= stopped.step < whole.step
    again = fit([Stop.__new__(type("Stop", (Callback,), {"__repr__": lambda self: "Stop"}))], resume=True)
    assert again.step == whole.step
    assert_same(state(again.model), state(whole.model))


def test_what_diverges_natively_writes_nothing_of_the_whole_step():
    x = X.copy()
    x[7] = np.inf
    model = nn.Sequential(nn.BatchNorm1d(X.shape[1]), nn.Linear(X.shape[1], 1))
    before = state(model)
    t = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1), accumulate=N)
    with pytest.raises(DivergenceError, match="input 0 is not finite in row 7 of the data"):
        t.fit((x, np.zeros((N, 1), np.float32)), batch_size=8, epochs=1, progress=False)
    assert_same(state(model), before)
    assert t.step == 0

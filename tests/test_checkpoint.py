"""Checkpoints: a fit that was stopped anywhere and resumed ends with the same bits as one that never was."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import slalom
from slalom import Tensor, nn, optim
from slalom.errors import ConfigError, ModelFileError
from slalom.optim import schedules
from slalom.optim.lr_scheduler import ExponentialLR
from slalom.train import Callback, Checkpoint, EarlyStopping, files
from slalom.train.checkpoint import pack, previous_path, unpack
from slalom.train.files import load_file, save_file
from slalom.train.model_file import weights_sha256
from slalom.utils.data import DataLoader, Dataset, TensorDataset

NATIVE_BITS = True

RNG = np.random.default_rng(2)
N = 41
X = RNG.normal(size=(N, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0.5)
WEIGHT = RNG.uniform(size=N)


def trainer(kind=optim.Adam, seed=0, **options):
    slalom.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3))
    optimizer = kind(model.parameters(), lr=0.05)
    schedule = options.pop("schedule", None)
    if schedule == "epochs":
        schedule = ExponentialLR(optimizer, gamma=0.7)
    loss = options.pop("loss", None) or nn.CrossEntropyLoss()
    return slalom.Trainer(model, loss=loss, optimizer=optimizer, schedule=schedule, **options)


class Copies(Checkpoint):
    """Keeps a copy of every file it writes."""

    def save(self, fit, finished=False):
        super().save(fit, finished)
        shutil.copy(self.path, self.path.with_name(f"copy.{len(self.copies())}"))

    def copies(self):
        return sorted(self.path.parent.glob("copy.*"), key=lambda path: int(path.suffix[1:]))


def outcome(t):
    """All that must be the same: bits of weights, of optimizer and scheduler, and of all numbers but the time."""
    optimizer = {f"{i} {name}": slot.numpy().tobytes() for i, held in t.optimizer.state_dict()["state"].items()
                 for name, slot in held.items()}  # fmt: skip
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in t.history]
    schedule = t.schedule.state_dict() if hasattr(t.schedule, "state_dict") else None
    return weights_sha256(t.model), optimizer, rows, schedule, t.epoch, t.step, t.history.stopped


class RowByRow(Dataset):
    """Rows with noise: augmentation that draws from the default generator."""

    def __len__(self):
        return N

    def __getitem__(self, i):
        return Tensor(X[i]) + 0.1 * slalom.randn(4), int(Y[i])


def loader():
    return DataLoader(TensorDataset(X, Y), batch_size=8, shuffle=True, merge_last=True)


def sgd(params, lr):
    return optim.SGD(params, lr=lr, momentum=0.9)


CASES = {
    "arrays": (lambda: (X, Y), {"schedule": schedules.cosine(steps=12, warmup=2), "clip_norm": 0.5},
               {"sample_weight": WEIGHT}),
    "scheduler": (lambda: (X, Y), {"schedule": "epochs", "kind": sgd, "class_weight": "balanced"}, {"tol": 1e-9}),
    "dataset": (RowByRow, {"metrics": ["accuracy", "f1"]}, {}),
    "loader": (loader, {"metrics": [lambda output, target: output.numpy().std()]}, {}),
}  # fmt: skip


STOPS = {"dataset": 9.0}
"""The cases that stop early, and the least improvement that they ask for."""


@pytest.mark.parametrize("case", CASES)
def test_resumed_at_every_step_the_bits_are_the_same(tmp_path, case):
    data, settings, options = CASES[case]

    def fit(t, checkpoint, resume=False):
        callbacks = [EarlyStopping(patience=1, min_delta=STOPS.get(case, 0.0))]
        held_out = loader() if case == "loader" else (X[:17], Y[:17])
        t.fit(data(), batch_size=8, epochs=3, validation=held_out, callbacks=callbacks, seed=3, progress=False,
              checkpoint=checkpoint, resume=resume, **options)  # fmt: skip
        return outcome(t)

    plain = fit(trainer(**settings), None)
    copies = Copies(tmp_path / "run", every="1 step")
    assert fit(trainer(**settings), copies) == plain
    assert len(copies.copies()) == plain[5] + 1 == (11 if case in STOPS else 16)
    assert (plain[6] is not None) == (case in STOPS)
    for path in copies.copies():
        target = tmp_path / "again"
        shutil.copy(path, target)
        assert fit(trainer(**settings, seed=9), target, resume=True) == plain, path.name


def test_resuming_a_finished_fit_gives_its_result_at_once(tmp_path):
    t = trainer()
    t.fit((X, Y), epochs=3, checkpoint=tmp_path / "c", progress=False, callbacks=[Stop(2)])
    again = trainer(seed=4)
    steps = []
    history = again.fit((X, Y), epochs=3, checkpoint=tmp_path / "c", progress=False, resume=True,
                        callbacks=[Stop(2, steps)])  # fmt: skip
    assert outcome(again) == outcome(t) and not steps
    assert history.stopped == "enough" and len(history) == 2


def test_a_fit_that_was_stopped_within_an_epoch(tmp_path):
    def fit(t, checkpoint, resume=False):
        t.fit((X, Y), batch_size=8, epochs=3, validation=(X, Y), callbacks=[Stop(7)], checkpoint=checkpoint,
              resume=resume, progress=False)  # fmt: skip
        return outcome(t)

    copies = Copies(tmp_path / "run", every="1 step")
    plain = fit(trainer(), copies)
    assert plain[5:] == (7, "enough") and len(copies.copies()) == 7
    for path in copies.copies():
        shutil.copy(path, tmp_path / "again")
        again = trainer(seed=5)
        assert fit(again, tmp_path / "again", resume=True) == plain
        assert again.optimizer.param_groups[0]["betas"] == (0.9, 0.999)


class Stop(Callback):
    def __init__(self, step, log=None):
        self.at, self.log = step, [] if log is None else log

    def on_step_end(self, fit):
        self.log.append(fit.step)
        if fit.step == self.at:
            fit.stop("enough")

    def __repr__(self):
        return "Stop"


class Crash(Callback):
    def __init__(self, step):
        self.at = step

    def on_step_end(self, fit):
        if fit.step == self.at:
            raise MemoryError

    def __repr__(self):
        return "Crash"


def test_without_a_checkpoint_resume_starts_anew(tmp_path):
    a, b = trainer(), trainer()
    a.fit((X, Y), epochs=2, checkpoint=tmp_path / "c", resume=True, progress=False)
    b.fit((X, Y), epochs=2, progress=False)
    assert outcome(a) == outcome(b)


def test_after_ctrl_c_the_same_trainer_or_another_goes_on(tmp_path):
    class Interrupt(Callback):
        def __init__(self, step):
            self.at = step

        def on_step_end(self, fit):
            if fit.step == self.at:
                os.kill(os.getpid(), signal.SIGINT)

        def __repr__(self):
            return "Interrupt"

    best = {}

    class Keep(Callback):
        def on_epoch_end(self, fit):
            best[fit.row["val_loss"]] = weights_sha256(fit.model)

        def on_steps_end(self, fit, steps):
            assert steps.stop == fit.step and len(steps) <= 6

        def __repr__(self):
            return "Keep"

    def fit(t, at, resume):
        return t.fit((X, Y), batch_size=8, epochs=4, validation=(X, Y), callbacks=[Keep(), Interrupt(at)],
                     checkpoint=tmp_path / "c", resume=resume, progress=False)  # fmt: skip

    plain = trainer(schedule="epochs")
    plain.fit((X, Y), batch_size=8, epochs=4, validation=(X, Y), progress=False)
    t = trainer(schedule="epochs")
    assert fit(t, 12, False).interrupted and len(t.history) == 2
    shutil.copy(tmp_path / "c", tmp_path / "first")
    assert fit(t, 14, True).interrupted and len(t.history) == 2
    shutil.copy(tmp_path / "c", tmp_path / "second")
    shutil.copy(tmp_path / "first", tmp_path / "c")
    other = trainer(schedule="epochs", seed=8)
    assert fit(other, 14, True).interrupted and other.step == 14
    assert weights_sha256(other.model) == weights_sha256(t.model) == best[min(best)]  # of epochs of the first fit
    for run in (t, other):
        shutil.copy(tmp_path / "second", tmp_path / "c")
        assert not fit(run, 0, True).interrupted
    assert outcome(t) == outcome(plain) == outcome(other)


def test_another_fit_of_the_same_trainer_does_not_take_the_finished_one_for_its_own(tmp_path):
    t = trainer()
    t.fit((X, Y), epochs=1, checkpoint=tmp_path / "c", resume=True, progress=False)
    with pytest.raises(ConfigError, match=r"got epochs 1 to 2.*; needed epochs 0 to 1"):
        t.fit((X, Y), epochs=1, checkpoint=tmp_path / "c", resume=True, progress=False)


# --- other data, other settings -----------------------------------------------------------------------------------
def test_other_data_or_settings_are_named(tmp_path):
    path = tmp_path / "c"

    def fit(data=(X, Y), settings=None, validation=(X, Y), callbacks=(), **options):
        t = trainer(**(settings or {}))
        options = {"batch_size": 8, "epochs": 2, "seed": 0, "progress": False} | options
        t.fit(data, validation=validation, callbacks=callbacks, checkpoint=path, resume=path.exists(), **options)

    fit()
    changed = X.copy()
    changed[3, 1] += 1e-6
    cases = [
        ({"batch_size": 9}, r"got batch_size 9; needed batch_size 8"),
        ({"seed": 1}, r"got seed 1; needed seed 0"),
        ({"epochs": 3, "tol": 1e-3}, r"got tol 0.001, epochs 0 to 3; needed tol None, epochs 0 to 2"),
        ({"data": (changed, Y)}, r"got data: X \w+; needed data: X \w+"),
        ({"data": (X[1:], Y[1:])}, r"got data: rows 40, data: X"),
        ({"data": (X, Y[::-1])}, r"got data: y \w+; needed"),
        ({"sample_weight": WEIGHT}, r"got sample_weight \w+; needed sample_weight None"),
        ({"validation": (changed, Y)}, r"got validation: X"),
        ({"validation": None}, r"got validation: rows None, .*; needed validation: rows 41"),
        ({"settings": {"kind": sgd}}, r"got optimizer SGD"),
        ({"settings": {"clip_norm": 1.0}}, r"got clip_norm 1.0; needed clip_norm None"),
        ({"settings": {"metrics": ["accuracy"]}}, r"got metrics \['accuracy'\]; needed metrics \[\]"),
        ({"settings": {"schedule": "epochs"}}, r"schedule ExponentialLR"),
        ({"settings": {"class_weight": {0: 2}}}, r"got class_weight"),
        ({"settings": {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)}}, r"got loss .*'label_smoothing': 0.1"),
        ({"settings": {"loss": nn.CrossEntropyLoss(Tensor([1.0, 2.0, 3.0]))}}, r"'loss.weight': .*, loss …"),
        ({"callbacks": [EarlyStopping()]}, r"got callbacks \[\"EarlyStopping"),
        ({"data": TensorDataset(X, Y)}, r"data: dataset TensorDataset"),
    ]
    before = path.read_bytes()
    for options, text in cases:
        with pytest.raises(ConfigError, match=f"resuming .* with other data or settings: .*{text}"):
            fit(**options)
        assert path.read_bytes() == before
    fit()


def test_the_data_behind_a_loader_count_too(tmp_path):
    def fit(x, batch_size=8, **options):
        data = DataLoader(TensorDataset(x, Y), batch_size=batch_size, merge_last=True, **options)
        trainer().fit(data, epochs=1, checkpoint=tmp_path / "c", resume=True, progress=False)

    fit(X)
    fit(X)
    with pytest.raises(ConfigError, match=r"got data: contents \w+; needed"):
        fit(-X)
    with pytest.raises(ConfigError, match=r"got data: batch_size 9; needed data: batch_size 8"):
        fit(X, batch_size=9)
    with pytest.raises(ConfigError, match=r"data: sampler RandomSampler; needed data: sampler SequentialSampler"):
        fit(X, shuffle=True)


def test_another_model_is_refused_and_left_as_it_was(tmp_path):
    trainer().fit((X, Y), epochs=1, checkpoint=tmp_path / "c", progress=False)
    other = slalom.Trainer(nn.Linear(4, 3), loss=nn.CrossEntropyLoss())
    before = weights_sha256(other.model)
    with pytest.raises(ConfigError, match=r"got optimizer Adam .*model Linear"):
        other.fit((X, Y), epochs=1, checkpoint=tmp_path / "c", resume=True, progress=False)
    assert weights_sha256(other.model) == before


# --- damage ---------------------------------------------------------------------------------------------------------
def test_a_damaged_file_gives_way_to_its_predecessor_with_a_note(tmp_path):
    path = tmp_path / "c.safetensors"
    plain = trainer()
    plain.fit((X, Y), batch_size=8, epochs=3, progress=False)
    with pytest.raises(MemoryError):
        trainer().fit((X, Y), batch_size=8, epochs=3, checkpoint=path, checkpoint_every="1 step", progress=False,
                      callbacks=[Crash(9)])  # fmt: skip
    assert load_file(path)[1]["step"] == 8 and load_file(previous_path(path))[1]["step"] == 7
    shutil.copytree(tmp_path, tmp_path / "whole")
    for damage in ("cut", "flipped", "gone"):
        shutil.copytree(tmp_path / "whole", tmp_path, dirs_exist_ok=True)
        spoil(path, damage)
        t = trainer(seed=6)
        log: list[int] = []
        with pytest.warns(RuntimeWarning, match=r"going on from its predecessor c.previous.safetensors"):
            t.fit((X, Y), batch_size=8, epochs=3, checkpoint=path, resume=True, progress=False,
                  callbacks=[CrashNever(log)])  # fmt: skip
        assert log[0] == 8
        assert outcome(t) == outcome(plain)
    shutil.copytree(tmp_path / "whole", tmp_path, dirs_exist_ok=True)
    for damaged in (path, previous_path(path)):
        spoil(damaged, "flipped")
    with pytest.raises(ModelFileError, match=r"c.safetensors was changed after it was written"):
        trainer().fit((X, Y), batch_size=8, epochs=3, checkpoint=path, resume=True, progress=False,
                      callbacks=[Crash(9)])  # fmt: skip


class CrashNever(Stop):
    def __init__(self, log):
        super().__init__(10**9, log)

    def __repr__(self):
        return "Crash"


def spoil(path: Path, damage: str) -> None:
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[-5] ^= 1
        path.write_bytes(content)


def test_files_of_another_version_or_kind(tmp_path):
    t = trainer()
    save_file(tmp_path / "m", {}, {}, "model")
    with pytest.raises(ModelFileError, match="got a model; needed a checkpoint"):
        t.fit((X, Y), checkpoint=tmp_path / "m", resume=True, progress=False)
    save_file(tmp_path / "c", {}, {"settings": {}}, "checkpoint")
    with pytest.raises(ConfigError, match="with other data or settings"):
        t.fit((X, Y), checkpoint=tmp_path / "c", resume=True, progress=False)
    t.fit((X, Y), epochs=1, checkpoint=tmp_path / "d", progress=False)
    arrays, document = load_file(tmp_path / "d")
    del document["best"], document["history"]
    save_file(tmp_path / "d", arrays, document, "checkpoint")
    with pytest.raises(ModelFileError, match="no checkpoint of this version: got KeyError"):
        trainer().fit((X, Y), epochs=1, checkpoint=tmp_path / "d", resume=True, progress=False)


def test_a_write_that_fails_is_an_error_and_the_last_file_stands(tmp_path, monkeypatch):
    path, writes = tmp_path / "c", []
    real = files.write_atomic

    def failing(*args):
        writes.append(True)
        if len(writes) == 3:
            raise ModelFileError(f"{path} cannot be written", got="No space left on device")
        real(*args)

    monkeypatch.setattr(files, "write_atomic", failing)
    with pytest.raises(ModelFileError, match="No space left"):
        trainer().fit((X, Y), batch_size=8, epochs=3, checkpoint=path, checkpoint_every="1 step", progress=False)
    assert load_file(path)[1]["step"] == 2


# --- when, and what ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("every", "steps"),
    [("2 steps", [2, 4, 6, 8, 10, 10]), ("1 epoch", [5, 10]), ("2 epochs", [10]), (0, None), (1e9, [10]),
     ("3 steps", [3, 6, 9, 10])],
)  # fmt: skip
def test_how_often(tmp_path, every, steps):
    written = []

    class Noted(Checkpoint):
        def save(self, fit, finished=False):
            written.append(fit.step)
            super().save(fit, finished)

    trainer().fit((X, Y), batch_size=8, epochs=2, callbacks=[Noted(tmp_path / "c", every)], progress=False)
    assert written[-1] == 10 and (steps is None or written == steps)
    assert load_file(tmp_path / "c", "checkpoint")[1]["finished"]


def test_by_default_writing_takes_a_twentieth_of_the_time(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("slalom.train.checkpoint.time.perf_counter", lambda: clock[0])
    checkpoint = Checkpoint(tmp_path / "c")
    assert checkpoint.due_by_time()
    checkpoint._cost = 0.5
    clock[0] = 9.9
    assert not checkpoint.due_by_time()
    clock[0] = 10.1
    assert checkpoint.due_by_time()
    assert repr(checkpoint) == f"Checkpoint({str(tmp_path / 'c')!r})"
    assert repr(Checkpoint("c", "5 steps")) == "Checkpoint('c', every='5 steps')"


@pytest.mark.parametrize("every", ["", "0 steps", "often", -1, True, math.nan])
def test_intervals_that_are_none(every):
    with pytest.raises(ConfigError, match="checkpoint: every: got"):
        Checkpoint("c", every)


def test_one_checkpoint_for_a_fit(tmp_path):
    with pytest.raises(ConfigError, match="fit: checkpoint: got 2 of them; needed at most one"):
        trainer().fit((X, Y), callbacks=[Checkpoint(tmp_path / "a")], checkpoint=tmp_path / "b")


def test_callbacks_keep_their_state(tmp_path):
    class Counts(Callback):
        def __init__(self):
            self.count, self.trail = 0, np.zeros(0)

        def on_step_end(self, fit):
            self.count += 1
            self.trail = np.append(self.trail, fit.loss)

        def state_dict(self):
            return {"count": self.count, "trail": self.trail, "nested": [{"a": None}, (1, 2.5)]}

        def load_state_dict(self, state):
            assert state["nested"] == [{"a": None}, [1, 2.5]]
            self.count, self.trail = state["count"], state["trail"].copy()

        def __repr__(self):
            return "Counts"

    whole, parts = Counts(), Counts()
    trainer().fit((X, Y), batch_size=8, epochs=2, callbacks=[whole, Quiet()], progress=False)
    options = {"batch_size": 8, "epochs": 2, "checkpoint": tmp_path / "c", "progress": False}
    with pytest.raises(MemoryError):
        trainer().fit((X, Y), callbacks=[Counts(), Crash(7)], checkpoint_every="1 step", **options)
    trainer().fit((X, Y), callbacks=[parts, Quiet()], resume=True, **options)
    assert parts.count == whole.count == 10
    np.testing.assert_array_equal(parts.trail, whole.trail)


class Quiet(Callback):
    def __repr__(self):
        return "Crash"


def test_trees_of_plain_values_and_arrays():
    value = {
        "a": [1, {"b": np.arange(3)}],
        "c": None,
        "d": Tensor([1.5]),
        "e": (np.float64(2), True, "x"),
        "n": math.nan,
    }
    arrays: dict[str, np.ndarray] = {}
    packed = json.loads(json.dumps(pack(value, arrays)))
    assert set(arrays) == {"a/1/b", "d"}
    again = unpack(packed, arrays)
    assert again["a"][0] == 1 and again["a"][1]["b"].tolist() == [0, 1, 2] and again["e"] == [2.0, True, "x"]
    assert again["c"] is None and again["d"].tolist() == [1.5] and math.isnan(again["n"])
    for bad in ({1: 2}, [object()], {"f": len}):
        with pytest.raises(ConfigError, match="state for a checkpoint"):
            pack(bad, {})


# --- killed -------------------------------------------------------------------------------------------------------
SCRIPT = textwrap.dedent("""
    import os, sys
    sys.path.insert(0, sys.argv[1])
    import test_checkpoint as t
    class Die(t.Callback):
        def on_steps_end(self, fit, steps):
            if fit.step >= int(sys.argv[3]) > 0:
                os.kill(os.getpid(), 9)
        def __repr__(self):
            return "Die"
    run = t.trainer()
    run.fit((t.X, t.Y), batch_size=4, epochs=40, validation=(t.X, t.Y), callbacks=[Die()], progress=False,
            checkpoint=sys.argv[2], checkpoint_every=0, resume=True)
    print(t.weights_sha256(run.model))
""")


def test_killed_again_and_again_the_end_is_the_same(tmp_path):
    def run(path, at):
        folder = str(Path(__file__).parent)
        return subprocess.run(
            [sys.executable, "-c", SCRIPT, folder, str(path), str(at)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    whole = run(tmp_path / "whole", 0)
    assert whole.returncode == 0, whole.stderr
    for at in (50, 150):
        killed = run(tmp_path / "c", at)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = run(tmp_path / "c", 0)
    assert resumed.stdout == whole.stdout, resumed.stderr

"""The main job from the command line: train, predict, show, resume, interrupt."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import slalom
from slalom.cli import console, main, train
from slalom.cli.folder import Folder
from slalom.tabular import Model, fit, fitting, read_table
from slalom.tabular.fitting import make_plan
from slalom.train import EarlyStopping

sklearn_datasets = pytest.importorskip("sklearn.datasets")

NATIVE_BITS = True


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """The breast-cancer table that ships with scikit-learn."""
    data = sklearn_datasets.load_breast_cancer()
    path = tmp_path_factory.mktemp("data") / "cancer.csv"
    header = ",".join([*(name.replace(" ", "_") for name in data.feature_names), "diagnosis"])
    names = np.array(["malignant", "benign"])[data.target]
    rows = [",".join([*(repr(float(v)) for v in row), name]) for row, name in zip(data.data, names, strict=True)]
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def run(table, tmp_path_factory) -> Path:
    """A finished run of it."""
    out = tmp_path_factory.mktemp("run") / "out"
    assert main([*arguments(table, out), "--epochs", "12"]) == 0
    return out


def result_of(out: Path) -> dict:
    return json.loads((out / "result.json").read_text())


def arguments(table: Path, out: Path) -> list[str]:
    return ["train", str(table), "--target", "diagnosis", "--seed", "0", "--out", str(out), "--quiet"]


def _small(path: Path, delimiter: str = ",", comma: str = ".", kind: str = "kind") -> Path:
    """A table that trains in no time."""
    draw = np.random.default_rng(3)
    size, colour = draw.normal(size=80), draw.choice(["grün", "red", "blue"], 80)
    answer = np.where(size + (colour == "red") + draw.normal(size=80) / 2 > 0.3, "yes", "no")
    rows = [(f"{a:.4f}".replace(".", comma), b, c) for a, b, c in zip(size, colour, answer, strict=True)]
    lines = [delimiter.join(row) for row in [("size", "colour", kind), *rows]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return _small(tmp_path_factory.mktemp("small") / "small.csv")


def small_run(table: Path, out: Path | None = None) -> list[str]:
    named = [] if out is None else ["--out", str(out)]
    return ["train", str(table), "--target", "kind", "--epochs", "2", "--quiet", *named]


def test_the_folder_holds_what_is_promised(run):
    names = {path.name for path in run.iterdir()}
    assert {"model.safetensors", "checkpoint.safetensors", "history.jsonl", "result.json"} <= names
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, len(lines) + 1))
    assert 1 <= len(lines) <= 12
    assert {"loss", "val_loss"} <= set(lines[0])


def test_the_result(run):
    result = json.loads((run / "result.json").read_text())
    assert result["task"] == "classification"
    assert result["test"]["accuracy"] > 0.93
    assert set(result["baselines"]) == {"constant", "logistic", "gradient_boosting"}
    assert all(set(scores) >= {"accuracy", "log_loss"} for scores in result["baselines"].values())
    assert sum(result["rows"].values()) == 569
    assert result["seconds"] > 0
    assert len(result["weights_sha256"]) == 64
    assert Path(result["model"]) == run / "model.safetensors"


def test_json_is_one_object_on_standard_output(table, tmp_path, capsys):
    assert main([*arguments(table, tmp_path / "out"), "--epochs", "1", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == json.loads((tmp_path / "out" / "result.json").read_text())
    assert captured.err == ""


def test_predict_reproduces_the_stored_predictions(table, run, tmp_path, capsys):
    model = Model.load(run / "model.safetensors")
    assert main(["predict", str(run), str(table), "--out", str(tmp_path / "p.csv")]) == 0
    rows = [line.split(",") for line in (tmp_path / "p.csv").read_text().splitlines()]
    assert rows[0] == ["diagnosis", "probability of benign", "probability of malignant"]
    printed = np.array([row[1:] for row in rows[1:]], dtype=float)
    np.testing.assert_allclose(printed[model.test_rows], model.test_predictions, atol=1e-6)
    labels = np.array([row[0] for row in rows[1:]])
    assert (labels == np.array(["benign", "malignant"])[printed.argmax(1)]).all()


def test_show(run, capsys):
    assert main(["show", str(run)]) == 0
    text = capsys.readouterr().out
    assert "classification of 'diagnosis'" in text
    assert "mean_radius" in text
    assert "gradient boosting" in text
    assert main(["show", str(run / "model.safetensors"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["classes"] == ["benign", "malignant"]
    assert facts["result"]["test"]["accuracy"] > 0.93


def test_resume_of_a_finished_run_prints_its_result(table, run, capsys):
    before = (run / "model.safetensors").stat().st_mtime_ns
    assert main([*arguments(table, run), "--epochs", "12", "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((run / "result.json").read_text())
    assert (run / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--epochs", "13"], "--epochs is not that of the run in .*: got 13; needed 12"),
        (["--seed", "1"], "--seed is not"),
        (["--test-fraction", "0.3"], "--test-fraction is not .*: got 0.3; needed 0.2"),
        (["--drop", "mean_radius,mean_area"], "--drop is not .*: got mean_radius,mean_area; needed none"),
        (["--augment", "noise"], "--augment is not .*: got noise; needed none"),
        (["--groups", "mean_radius"], "--groups is not .*: got mean_radius; needed none"),
        (["--target", "mean_radius"], "--target is not"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
@pytest.mark.parametrize("finished", [True, False], ids=["finished", "stopped"])
def test_resume_with_other_flags_is_an_error(table, run, tmp_path, capsys, change, said, finished):
    out = run
    if not finished:  # as a run that was killed leaves it
        out = tmp_path / "out"
        out.mkdir()
        (out / "settings.json").write_bytes((run / "settings.json").read_bytes())
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert main([*arguments(table, out), "--epochs", "12", *change, "--resume"]) == 2
    assert re.search(f"slalom: error: --resume: {said}", capsys.readouterr().err)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_resume_with_other_data_is_an_error(table, run, tmp_path, capsys):
    other = tmp_path / table.name
    other.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    assert main([*arguments(other, run), "--epochs", "12", "--resume"]) == 2
    assert "the data is not that of the run" in capsys.readouterr().err


def test_resume_without_a_checkpoint_starts_anew(table, run, tmp_path):
    """And the same seed gives the same weights and scores."""
    assert main([*arguments(table, tmp_path / "new"), "--epochs", "12", "--resume"]) == 0
    first, second = (result_of(out) for out in (run, tmp_path / "new"))
    assert first["weights_sha256"] == second["weights_sha256"]
    assert (first["test"], first["baselines"]) == (second["test"], second["baselines"])


def test_a_finished_run_that_was_moved_says_where_its_model_is_now(table, run, tmp_path, capsys):
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    assert main([*arguments(table, moved), "--epochs", "12", "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == str(moved / "model.safetensors")


def test_overwrite_leaves_strange_files_alone(small, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    command = [*small_run(small, tmp_path), "--epochs", "1"]
    assert main(command) == 2
    assert main([*command, "--overwrite"]) == 0
    (tmp_path / "checkpoint.previous.safetensors").write_bytes(b"of another run")
    assert main([*command, "--overwrite"]) == 0
    assert (tmp_path / "mine.txt").read_text() == "keep"
    previous = tmp_path / "checkpoint.previous.safetensors"
    assert not previous.exists() or previous.read_bytes() != b"of another run"


def test_a_run_that_cannot_begin_costs_no_earlier_one(small, tmp_path):
    command = small_run(small, tmp_path / "out")
    assert main(command) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    for mistake in (["--target", "absent"], ["--drop", "absent"], ["--drop", "size,colour"]):
        assert main([*command, *mistake, "--overwrite"]) == 2
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert main([*small_run(small, tmp_path / "new"), "--target", "absent"]) == 2
    assert not (tmp_path / "new").exists()


def test_folders_without_a_name_are_numbered(small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = [*small_run(small), "--json"]
    for number in ("", "-2", "-3"):
        assert main(command) == 0
        assert json.loads(capsys.readouterr().out)["model"] == f"small-kind{number}.slalom/model.safetensors"
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")}
    assert main([*command, "--resume"]) == main([*command, "--overwrite"]) == 0  # both mean the latest
    assert all(json.loads(line)["model"].startswith("small-kind-3") for line in capsys.readouterr().out.splitlines())
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")}.keys() == times.keys()


def test_the_latest_folder_is_that_of_the_highest_number(small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("small-kind-2.slalom", "small-kind-10.slalom", "small-kind-011.slalom", "small-kind-x.slalom"):
        (tmp_path / name).mkdir()
    models = []
    for flags in (["--resume"], ["--overwrite"], [], ["--resume"]):
        assert main([*small_run(small), "--json", *flags]) == 0
        models.append(json.loads(capsys.readouterr().out)["model"])
    assert models == [f"small-kind-{number}.slalom/model.safetensors" for number in (10, 10, 11, 11)]


def test_a_target_whose_name_ends_in_a_number(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    table = _small(tmp_path / "t.csv", kind="kind-2")
    for number in ("", "-2"):
        assert main([*small_run(table), "--target", "kind-2", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["model"] == f"t-kind-2{number}.slalom/model.safetensors"


@pytest.mark.parametrize("flag", ["--resume", "--overwrite"])
def test_two_trainings_do_not_share_a_folder(flag, small, tmp_path, capsys):
    out = tmp_path / "out"
    with Folder(out).begun({}, clear=False):
        before = sorted(path.name for path in out.iterdir())
        assert main([*small_run(small, out), flag]) == 2
        assert "got a folder that another training is writing to; needed another" in capsys.readouterr().err
        assert sorted(path.name for path in out.iterdir()) == before
    assert main([*small_run(small, out), "--overwrite"]) == 0


@pytest.mark.parametrize("named", [False, True])
def test_a_folder_that_is_taken_while_the_table_is_read(named, small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / ("out" if named else "small-kind.slalom")

    def taking(*arguments, **options):
        out.mkdir()
        (out / "settings.json").write_text("of another training")
        return make_plan(*arguments, **options)

    monkeypatch.setattr(train, "make_plan", taking)
    assert main([*small_run(small, out if named else None), "--json"]) == (2 if named else 0)
    captured = capsys.readouterr()
    if named:
        assert "got a folder that exists" in captured.err
    else:
        assert json.loads(captured.out)["model"] == "small-kind-2.slalom/model.safetensors"
    assert (out / "settings.json").read_text() == "of another training"


def test_a_long_and_odd_target_makes_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    target = "Straße <€>/../ 価格 \t" + "很长" * 90
    path = _small(tmp_path / "a table.CSV", kind=target)
    for _ in range(2):
        assert main([*small_run(path), "--target", target]) == 0
    names = sorted(p.name for p in tmp_path.iterdir() if p.is_dir())
    assert len(names) == 2 and all(name.startswith("a_table-Straße_____..__価格") for name in names)


def test_python_is_the_twin(table, run):
    model = fit(read_table(table), "diagnosis", seed=0, epochs=12)
    assert model.weights_sha256 == result_of(run)["weights_sha256"]
    assert model.result["test"] == result_of(run)["test"]


# --- interruptions -------------------------------------------------------------------------------------------------
def test_an_interrupted_run_goes_on_to_the_same_weights(table, run, tmp_path, monkeypatch, capsys):
    class Interrupting(EarlyStopping):
        def on_epoch_end(self, fit):
            super().on_epoch_end(fit)
            if fit.epoch == 5:
                os.kill(os.getpid(), signal.SIGINT)

    Interrupting.__name__ = "EarlyStopping"  # a checkpoint goes on with callbacks of the same names only
    out = tmp_path / "out"
    command = [*arguments(table, out), "--epochs", "12"]
    with monkeypatch.context() as patched:
        patched.setattr(fitting, "EarlyStopping", Interrupting)
        assert main([*command, "--json"]) == 130
    first = json.loads(capsys.readouterr().out)
    assert first["interrupted"] and first["baselines"] == {}
    assert Model.load(out / "model.safetensors").weights_sha256 == first["weights_sha256"]
    assert main(["show", str(out)]) == 0
    assert "not compared with baselines" in capsys.readouterr().out
    assert main([*command, "--resume"]) == 0
    assert result_of(out)["weights_sha256"] == result_of(run)["weights_sha256"]
    assert result_of(out)["test"] == result_of(run)["test"]
    rows, wanted = ([json.loads(line) for line in (p / "history.jsonl").read_text().splitlines()] for p in (out, run))
    assert [row | {"seconds": 0} for row in rows] == [row | {"seconds": 0} for row in wanted]


def test_an_interrupt_during_the_baselines_costs_no_model(table, run, tmp_path, monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    command = [arg for arg in [*arguments(table, out), "--epochs", "12"] if arg != "--quiet"]
    with monkeypatch.context() as patched:
        patched.setattr(fitting, "run_baselines", interrupted)
        assert main(command) == 130
    assert "the same command with --resume goes on" in capsys.readouterr().err
    assert Model.load(out / "model.safetensors").weights_sha256 == result_of(run)["weights_sha256"]
    assert main([*command, "--resume"]) == 0
    assert "epoch 1/12" not in capsys.readouterr().err  # it does not train again
    assert result_of(out)["baselines"] == result_of(run)["baselines"]


def test_an_interrupt_before_there_is_a_model(small, tmp_path, monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    command = [arg for arg in small_run(small, out) if arg != "--quiet"]
    with monkeypatch.context() as patched:
        patched.setattr(fitting, "score", interrupted)
        assert main(command) == 130
    error = capsys.readouterr().err
    assert error.endswith("there is no model yet; the same command with --resume goes on\nslalom: interrupted\n")
    assert main(["show", str(out)]) == 2
    assert "got a training that has not come to its end. Hint: if it was stopped, the same" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    assert main(small_run(small, tmp_path / "whole")) == 0
    assert result_of(out)["weights_sha256"] == result_of(tmp_path / "whole")["weights_sha256"]


def test_a_finished_run_without_its_model_is_finished_again(small, tmp_path):
    command = small_run(small, tmp_path)
    assert main([*command, "--overwrite"]) == 0
    weights = result_of(tmp_path)["weights_sha256"]
    (tmp_path / "model.safetensors").unlink()
    assert main([*command, "--resume"]) == 0
    assert Model.load(tmp_path / "model.safetensors").weights_sha256 == weights


def test_an_interrupt_leaves_a_usable_model(table, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "slalom.cli", *arguments(table, out), "--epochs", "100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (out / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert main(["predict", str(out), str(table), "--out", str(tmp_path / "p.csv")]) == 0
    assert json.loads((out / "result.json").read_text())["interrupted"]


@pytest.mark.filterwarnings("always")
def test_a_damaged_checkpoint_gives_way_to_its_predecessor(small, tmp_path, capsys):
    out = tmp_path / "out"
    command = small_run(small, out)
    assert main(command) == 0
    weights = result_of(out)["weights_sha256"]
    (out / "result.json").unlink()  # as if it had been killed before
    content = bytearray((out / "checkpoint.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (out / "checkpoint.safetensors").write_bytes(content)
    capsys.readouterr()
    assert main([*command, "--resume"]) == 0
    assert re.fullmatch(
        "slalom: warning: checkpoint .* is damaged or missing; going on from .*\n", capsys.readouterr().err
    )
    assert result_of(out)["weights_sha256"] == weights


# --- what it reads and prints --------------------------------------------------------------------------------------
def _gzipped(folder: Path) -> Path:
    path = folder / "t.csv.gz"
    path.write_bytes(gzip.compress(_small(folder / "plain.csv").read_bytes()))
    return path


def _parquet(folder: Path) -> Path:
    parquet, csv = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow.csv")
    parquet.write_table(csv.read_csv(_small(folder / "plain.csv")), folder / "t.parquet")
    return folder / "t.parquet"


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: _small(folder / "t.csv", ";", ","),
        lambda folder: _small(folder / "t.tsv", "\t"),
        _gzipped,
        _parquet,
    ],
    ids=["semicolons and decimal commas", "tabs", "gzip", "Parquet"],
)
def test_the_same_table_in_another_form(make, small, tmp_path):
    assert main(small_run(make(tmp_path), tmp_path / "out")) == 0
    wanted = fit(read_table(small), "kind", epochs=2).weights_sha256
    assert result_of(tmp_path / "out")["weights_sha256"] == wanted


def test_columns_are_named_together_or_one_by_one(tmp_path):
    path = _small(tmp_path / "t.csv")
    lines = path.read_text().splitlines()
    more = [f"{line},{i % 7},{i % 5},{i % 3}" for i, line in enumerate(lines)]
    path.write_text("\n".join([f'{lines[0]},"a, b",c,d', *more[1:]]) + "\n")
    command = small_run(path, tmp_path / "out")
    assert main([*command, "--drop", "a, b", "--drop", "c, d", "--categorical", "colour", "--groups", "size"]) == 0
    model = Model.load(tmp_path / "out" / "model.safetensors")
    assert [feature.name for feature in model.preparation.features] == ["colour"]
    assert result_of(tmp_path / "out")["settings"]["drop"] == ["a, b", "c", "d"]


def test_a_model_says_nothing_of_where_it_was_made(small, tmp_path):
    assert main(small_run(small, tmp_path / "out")) == 0
    content = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert str(tmp_path).encode() not in content and str(small).encode() not in content


RESULT = {
    "task": "regression",
    "rows": {"test": 1200},
    "test": {"rmse": 537.97, "mae": 295.4, "r2": 0.98},
    "baselines": {
        "constant": {"rmse": 4002.4, "mae": 3032.3},
        "gradient_boosting": {"rmse": 528.42, "mae": 279.7, "r2": -1e-5},
    },
    "leads": {
        "constant": {"mean": 9e6, "standard_error": 1e5},
        "gradient_boosting": {"mean": -9e3, "standard_error": 8e3},
    },
}


def test_the_score_table_is_aligned():
    assert console.score_table(RESULT) == [
        "1,200 test rows       rmse      mae       r2",
        "slalom               538.0    295.4   0.9800",
        "constant           4,002.4  3,032.3        –",
        "gradient boosting    528.4    279.7  -0.0000",
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "The gradient boosting baseline wins: rmse 528.4, ahead of the network with 538.0. "
             "With 1,200 test rows, that may be chance."),
        ({"test": {"rmse": 5.2}, "leads": {"gradient_boosting": {"mean": 3.0, "standard_error": 0.5}}},
         "The network wins: rmse 5.2, ahead of the gradient boosting baseline with 528.4."),
        ({"test": {"rmse": 528.42}}, "A tie: the network and the gradient boosting baseline both have rmse 528.4."),
        ({"baselines": {}}, "rmse 537.97; not compared with baselines"),
        ({"task": "classification", "test": {"accuracy": 0.5}, "baselines": {"constant": {"accuracy": 0.75}},
          "leads": {"constant": {"mean": -0.25, "standard_error": 0.1}}},
         "The constant baseline wins: accuracy 0.7500, ahead of the network with 0.5000."),
    ],
)  # fmt: skip
def test_the_verdict(change, words):
    assert console.verdict(RESULT | change) == words


def test_lines_are_folded_in_a_terminal_only(monkeypatch, capsys):
    line = f"{'numeric':<12} " + ", ".join(f"column{i}" for i in range(12))
    console.teller(quiet=False)(line)
    assert capsys.readouterr().err == line + "\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "fileno", lambda: 2)
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((60, 24)))
    console.teller(quiet=False)(line)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 1 and all(len(part) <= 60 for part in lines)
    assert all(part.startswith(" " * 13) for part in lines[1:])
    assert " ".join(" ".join(lines).split()) == " ".join(line.split())


@pytest.fixture(scope="module")
def small_model(small, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("model") / "out"
    assert main(small_run(small, out)) == 0
    return out


def test_predictions_on_standard_output_are_those_of_a_file(small, small_model, tmp_path, capsys):
    assert main(["predict", str(small_model), str(small), "--out", str(tmp_path / "p.csv")]) == 0
    assert "80 predictions written to" in capsys.readouterr().err
    assert main(["predict", str(small_model), str(small)]) == 0
    assert capsys.readouterr() == ((tmp_path / "p.csv").read_text(), "")


def test_predictions_of_numbers(small, tmp_path, capsys):
    assert main([*small_run(small, tmp_path / "out"), "--target", "size"]) == 0
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "out"), str(small)]) == 0
    lines = capsys.readouterr().out.splitlines()
    model = Model.load(tmp_path / "out" / "model.safetensors")
    assert lines[0] == "size"
    assert [float(line) for line in lines[1:]] == model.predict(read_table(small)).tolist()


@pytest.mark.parametrize(
    ("redirect", "code", "out", "error"),
    [
        ("| head -1", 0, "kind,probability of no,probability of yes\n", ""),
        (">&-", 0, "", ""),
        ("2>&- | tail -1", 0, None, ""),
        ("> /dev/full", 2, "", "slalom: error: output: No space left on device\n"),
    ],
)
def test_where_the_output_goes(redirect, code, out, error, small, small_model):
    command = f'set -o pipefail; "{sys.executable}" -m slalom.cli predict "{small_model}" "{small}" {redirect}'
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (code, error)
    assert out is None or done.stdout == out


def test_what_runs_instead_of_machine_code_is_said(small, tmp_path, monkeypatch, capsys):
    command = [arg for arg in small_run(small) if arg != "--quiet"]
    assert main([*command, "--out", str(tmp_path / "native")]) == 0
    assert "machine code" not in capsys.readouterr().err
    monkeypatch.setenv("SLALOM_EXECUTOR", "numpy")
    assert main([*command, "--out", str(tmp_path / "numpy")]) == 0
    note = "note         run by NumPy, not as machine code (SLALOM_EXECUTOR=numpy)"
    assert note in capsys.readouterr().err.splitlines()
    native, by_numpy = (result_of(tmp_path / how)["test"] for how in ("native", "numpy"))
    assert native == pytest.approx(by_numpy, rel=1e-4)


def test_the_bar_stays_in_a_narrow_terminal(small, tmp_path, monkeypatch):
    pytest.importorskip("rich")
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    fit(read_table(small), "kind", epochs=2, progress=True)
    bar = re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue())
    assert re.search("━{20} .* epoch 2/2  loss .*…", bar)


def test_classes_that_need_quotation_marks_get_them(tmp_path, capsys):
    model = fit({"a": np.arange(40) % 7 / 2, "b": ["yes, sir", "\x1b[2Jno"] * 20}, "b", epochs=1)
    model.save(tmp_path / "model.safetensors")
    assert main(["show", str(tmp_path)]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == r"classification of 'b', 2 classes: '\x1b[2Jno', 'yes, sir'"


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"slalom {slalom.__version__}\n"

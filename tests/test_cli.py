"""The main job from the command line: train, predict, show, resume, interrupt."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from slalom.cli import main
from slalom.tabular import Model, fit, read_table

sklearn_datasets = pytest.importorskip("sklearn.datasets")


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


def arguments(table: Path, out: Path) -> list[str]:
    return ["train", str(table), "--target", "diagnosis", "--seed", "0", "--out", str(out), "--quiet"]


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


def test_the_same_seed_gives_the_same_weights(table, tmp_path, run):
    assert main([*arguments(table, tmp_path / "again"), "--epochs", "12"]) == 0
    again = json.loads((tmp_path / "again" / "result.json").read_text())
    first = json.loads((run / "result.json").read_text())
    assert again["weights_sha256"] == first["weights_sha256"]
    assert again["test"] == first["test"]


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
    assert "gradient_boosting" in text
    assert main(["show", str(run / "model.safetensors"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["classes"] == ["benign", "malignant"]
    assert facts["result"]["test"]["accuracy"] > 0.93


def test_resume_of_a_finished_run_prints_its_result(table, run, capsys):
    before = (run / "model.safetensors").stat().st_mtime_ns
    assert main([*arguments(table, run), "--epochs", "12", "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((run / "result.json").read_text())
    assert (run / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("change", [["--epochs", "13"], ["--epochs", "12", "--seed", "1"]])
def test_resume_with_other_flags_is_an_error(table, run, capsys, change):
    assert main([*arguments(table, run), *change, "--resume"]) == 2
    assert "--resume: --" in capsys.readouterr().err


def test_resume_with_other_data_is_an_error(table, run, tmp_path, capsys):
    other = tmp_path / table.name
    other.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    assert main([*arguments(other, run), "--epochs", "12", "--resume"]) == 2
    assert "the data is not that of the run" in capsys.readouterr().err


def test_resume_without_a_checkpoint_starts_anew(table, run, tmp_path):
    assert main([*arguments(table, tmp_path / "new"), "--epochs", "12", "--resume"]) == 0
    first, second = (json.loads((p / "result.json").read_text()) for p in (run, tmp_path / "new"))
    assert first["weights_sha256"] == second["weights_sha256"]


def test_overwrite_leaves_strange_files_alone(table, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    command = [*arguments(table, tmp_path), "--epochs", "1"]
    assert main(command) == 2
    assert main([*command, "--overwrite"]) == 0
    assert main([*command, "--overwrite"]) == 0
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_folders_without_a_name_are_numbered(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["train", str(table), "--target", "diagnosis", "--epochs", "1", "--quiet"]
    assert main(command) == main(command) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cancer-diagnosis-2.slalom", "cancer-diagnosis.slalom"]


def test_python_is_the_twin(table, run):
    model = fit(read_table(table), "diagnosis", seed=0, epochs=12)
    assert model.weights_sha256 == Model.load(run / "model.safetensors").weights_sha256
    frame = {"mean_radius": [1.0]}
    with pytest.raises(Exception, match="no column"):
        model.predict(frame)


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

"""Bad input: one line that names what is wrong, exit code 2, no traceback, nothing lost."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path

import numpy as np
import pytest

from slalom.cli import main
from slalom.train import files


def _csv(path: Path, rows: int = 60, **columns) -> Path:
    """A small table with a numeric, a categorical and a target column, some of them replaced."""
    rng = np.random.default_rng(0)
    size = rng.normal(size=rows)
    table = {
        "size": [f"{v:.4f}" for v in size],
        "colour": rng.choice(["red", "green", "blue"], rows).tolist(),
        "kind": np.where(size + rng.normal(size=rows) > 0, "yes", "no").tolist(),
    }
    table |= {name: list(values) for name, values in columns.items()}
    lines = [",".join(table), *(",".join(map(str, row)) for row in zip(*table.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return path


def _with_cell(path: Path, column: str, row: int, text: str, rows: int = 60) -> Path:
    values = [f"{v:.4f}" for v in np.random.default_rng(1).normal(size=rows)]
    values[row] = text
    return _csv(path, rows, **{column: values})


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A finished run to predict with."""
    folder = tmp_path_factory.mktemp("trained")
    table = _csv(folder / "table.csv")
    assert (
        main(["train", str(table), "--target", "kind", "--out", str(folder / "run"), "--epochs", "2", "--quiet"]) == 0
    )
    return folder


TRAIN = {
    "no such file": (lambda d: d / "absent.csv", "kind", r"absent\.csv.*no such file"),
    "no such column": (lambda d: _csv(d / "t.csv"), "kin", r"kin.*kind"),
    "empty file": (lambda d: _text(d, ""), "kind", r"empty"),
    "header only": (lambda d: _text(d, "size,kind\n"), "kind", r"(no|0) rows?"),
    "one row": (lambda d: _text(d, "size,kind\n1,yes\n"), "kind", r"1 row"),
    "one class": (lambda d: _csv(d / "t.csv", kind=["yes"] * 60), "kind", r"'yes' in all of 60 rows"),
    "target all missing": (lambda d: _csv(d / "t.csv", kind=[""] * 60), "kind", r"no value"),
    "word in row 30,000": (lambda d: _with_cell(d / "t.csv", "size", 29_999, "abc", 30_100), "kind", r"30,?000.*abc"),
    "inf in a feature": (lambda d: _with_cell(d / "t.csv", "size", 7, "inf"), "kind", r"row 8.*inf"),
    "1e308 in a feature": (lambda d: _with_cell(d / "t.csv", "size", 7, "1e308"), "kind", r"row 8.*1e\+?308"),
    "inf in the target": (lambda d: _with_cell(d / "t.csv", "kind", 7, "inf"), "kind", r"row 8.*inf"),
    "1e308 in the target": (lambda d: _with_cell(d / "t.csv", "kind", 7, "1e308"), "kind", r"row 8.*1e\+?308"),
    "duplicate names": (lambda d: _text(d, "a,a,kind\n" + "1,2,yes\n3,4,no\n" * 30), "kind", r"'a'"),
    "not a table": (lambda d: _bytes(d, bytes(range(256)) * 20), "kind", r"t\.csv"),
}  # fmt: skip


def _text(folder: Path, text: str) -> Path:
    (folder / "t.csv").write_text(text)
    return folder / "t.csv"


def _bytes(folder: Path, content: bytes) -> Path:
    (folder / "t.csv").write_bytes(content)
    return folder / "t.csv"


def one_line(capsys, pattern: str) -> str:
    """The single line that the user sees, matched against what it must say."""
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("slalom: error: ")]
    assert "Traceback" not in captured.err
    assert len(lines) == 1, captured.err
    assert re.search(pattern, lines[0], re.IGNORECASE), lines[0]
    return lines[0]


@pytest.mark.parametrize("case", TRAIN)
def test_train(case, tmp_path, capsys):
    make, target, pattern = TRAIN[case]
    code = main(["train", str(make(tmp_path)), "--target", target, "--out", str(tmp_path / "out"), "--quiet"])
    assert code == 2
    one_line(capsys, pattern)


def test_a_missing_feature_is_no_mistake(tmp_path):
    table = _with_cell(tmp_path / "t.csv", "size", 7, "nan")
    out = ["--out", str(tmp_path / "out"), "--epochs", "1", "--quiet"]
    assert main(["train", str(table), "--target", "kind", *out]) == 0


def _copy(trained: Path, folder: Path, change) -> Path:
    rows = [line.split(",") for line in (trained / "table.csv").read_text().splitlines()]
    (folder / "t.csv").write_text("\n".join(",".join(row) for row in change(rows)) + "\n")
    return folder / "t.csv"


def _predictions(trained: Path, table: Path, out: Path) -> list[str]:
    assert main(["predict", str(trained / "run"), str(table), "--out", str(out)]) == 0
    return out.read_text().splitlines()


def test_predict_needs_its_columns(trained, tmp_path, capsys):
    table = _copy(trained, tmp_path, lambda rows: [row[1:] for row in rows])
    assert main(["predict", str(trained / "run"), str(table)]) == 2
    one_line(capsys, "no column 'size'")


def test_extra_and_reordered_columns_change_nothing(trained, tmp_path):
    plain = _predictions(trained, trained / "table.csv", tmp_path / "a.csv")
    moved = _copy(trained, tmp_path, lambda rows: [[row[2], "x", row[1], row[0]] for row in rows])
    text = moved.read_text().replace("kind,x,", "kind,extra,", 1)
    moved.write_text(text)
    assert _predictions(trained, moved, tmp_path / "b.csv") == plain


def test_an_unseen_category_is_a_note(trained, tmp_path, capsys):
    rows = _copy(trained, tmp_path, lambda rows: [rows[0], [rows[1][0], "violet", rows[1][2]], *rows[2:]])
    assert len(_predictions(trained, rows, tmp_path / "a.csv")) == 61
    assert "violet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "pattern"),
    [
        (lambda b: b[: len(b) // 2], "truncated|shorter|incomplete|bytes"),
        (lambda b: b[:-100] + bytes([b[-100] ^ 1]) + b[-99:], "changed|digest"),
        (lambda b: b"PK\x03\x04" + bytes(200), "not a"),
        (lambda b: b"", "empty|not a"),
    ],
    ids=["truncated", "a flipped bit", "no model at all", "empty"],
)
def test_a_damaged_model(trained, tmp_path, capsys, damage, pattern):
    broken = tmp_path / "model.safetensors"
    broken.write_bytes(damage((trained / "run" / "model.safetensors").read_bytes()))
    for command in (["predict", str(broken), str(trained / "table.csv")], ["show", str(broken)]):
        assert main(command) == 2
        one_line(capsys, pattern)


def test_no_such_model(tmp_path, capsys):
    assert main(["show", str(tmp_path / "absent.safetensors")]) == 2
    one_line(capsys, "absent")


def test_a_named_folder_that_exists(trained, capsys):
    before = (trained / "run" / "model.safetensors").read_bytes()
    arguments = ["train", str(trained / "table.csv"), "--target", "kind", "--out", str(trained / "run"), "--quiet"]
    assert main(arguments) == 2
    one_line(capsys, "--resume or --overwrite")
    assert (trained / "run" / "model.safetensors").read_bytes() == before


def test_a_folder_that_cannot_be_made(trained, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    arguments = ["train", str(trained / "table.csv"), "--target", "kind", "--out", str(tmp_path / "file" / "out")]
    assert main([*arguments, "--quiet"]) == 2
    one_line(capsys, "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(trained, tmp_path, capsys):
    tmp_path.chmod(0o500)
    try:
        arguments = ["train", str(trained / "table.csv"), "--target", "kind", "--out", str(tmp_path / "out"), "--quiet"]
        assert main(arguments) == 2
    finally:
        tmp_path.chmod(0o700)
    one_line(capsys, "permission denied")


def test_a_full_disk(trained, tmp_path, capsys, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    arguments = [
        "train",
        str(trained / "table.csv"),
        "--target",
        "kind",
        "--out",
        str(tmp_path / "out"),
        "--epochs",
        "1",
    ]
    assert main([*arguments, "--quiet"]) == 2
    one_line(capsys, "no space left")
    with contextlib.suppress(FileNotFoundError):
        assert not [p for p in (tmp_path / "out").iterdir() if ".tmp" in p.name]


@pytest.mark.parametrize("arguments", [[], ["train"], ["train", "x.csv"], ["fly"], ["train", "x", "--epochs", "0"]])
def test_usage(arguments, capsys):
    assert main(arguments) == 2
    assert "usage: slalom" in capsys.readouterr().err

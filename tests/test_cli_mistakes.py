"""Bad input: one line that names what is wrong, exit code 2, no traceback, nothing lost."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import subprocess
import sys
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


@pytest.mark.parametrize("command", [["show"], ["predict"]], ids="".join)
def test_no_such_model(command, trained, tmp_path, capsys):
    more = [str(trained / "table.csv")] if command == ["predict"] else []
    assert main([*command, str(tmp_path / "absent.safetensors"), *more]) == 2
    one_line(capsys, "absent")
    assert main([*command, str(tmp_path), *more]) == 2  # a folder without one
    one_line(capsys, r"model\.safetensors")


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("", "the file is empty"),
        ("size,colour\n", "no rows"),
        ("size,colour\n0.5,red\ninf,red\n", "column 'size', row 2: got inf; needed a number"),
        ("size,colour\n1e308,red\n", "row 1: got 1e308|row 1: got 1e\\+308"),
        ("size,colour\nlarge,red\n", "column 'size', row 1: got 'large'; needed a number"),
        ("sise,colour\n1,red\n", "no column 'size'.*Hint: rename 'sise'"),
    ],
    ids=["empty", "header only", "inf", "1e308", "a word", "a missing column"],
)
def test_a_table_that_cannot_be_predicted(text, pattern, trained, tmp_path, capsys):
    (tmp_path / "t.csv").write_text(text)
    out = tmp_path / "p.csv"
    assert main(["predict", str(trained / "run"), str(tmp_path / "t.csv"), "--out", str(out)]) == 2
    one_line(capsys, pattern)
    assert not out.exists()


def test_a_pipe_is_no_table(trained, capsys):
    reading, writing = os.pipe()
    os.close(writing)
    assert main(["predict", str(trained / "run"), f"/dev/fd/{reading}"]) == 2
    os.close(reading)
    one_line(capsys, "got a pipe; needed a CSV")


def test_predictions_overwrite_neither_table_nor_model(trained, tmp_path, capsys):
    table, model = trained / "table.csv", trained / "run" / "model.safetensors"
    (tmp_path / "link.csv").symlink_to(table)
    before = table.read_bytes(), model.read_bytes()
    for out in (table, tmp_path / "link.csv", model):
        assert main(["predict", str(trained / "run"), str(table), "--out", str(out)]) == 2
        one_line(capsys, "needed another file")
    assert (table.read_bytes(), model.read_bytes()) == before


def test_predictions_go_into_a_pipe_and_do_not_replace_it(trained, capsys):
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8") as pipe:
        command = ["predict", str(trained / "run"), str(trained / "table.csv"), "--out", f"/dev/fd/{writing}"]
        assert main(command) == 0
        os.close(writing)
        assert pipe.read().count("\n") == 61


@pytest.mark.parametrize("out", ["absent/p.csv", "."])
def test_predictions_that_cannot_be_written(out, trained, tmp_path, capsys):
    command = ["predict", str(trained / "run"), str(trained / "table.csv"), "--out", str(tmp_path / out)]
    assert main(command) == 2
    one_line(capsys, "cannot be written|got a folder")


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
    command = ["train", str(trained / "table.csv"), "--target", "kind", "--out", str(tmp_path / "out"), "--epochs", "1"]
    assert main([*command, "--quiet"]) == 2
    one_line(capsys, "no space left")
    with contextlib.suppress(FileNotFoundError):
        assert not [p for p in (tmp_path / "out").iterdir() if ".tmp" in p.name]


def test_out_is_a_file(trained, capsys):
    table = str(trained / "table.csv")
    for more in ([], ["--resume"], ["--overwrite"]):
        assert main(["train", table, "--target", "kind", "--out", table, "--quiet", *more]) == 2
        one_line(capsys, "got a file; needed a folder")


def test_resume_and_overwrite_contradict(trained, capsys):
    command = ["train", str(trained / "table.csv"), "--target", "kind", "--out", str(trained / "run")]
    assert main([*command, "--resume", "--overwrite"]) == 2
    one_line(capsys, "--resume and --overwrite: got both; needed one")


@pytest.mark.parametrize("name", ["settings.json", "result.json"])
@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff"], ids=["empty", "cut", "a list", "not UTF-8"])
def test_resume_of_a_damaged_run(name, text, trained, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(trained / "run", out)
    (out / name).write_bytes(text.encode("latin-1"))
    command = ["train", str(trained / "table.csv"), "--target", "kind", "--out", str(out), "--epochs", "2", "--quiet"]
    assert main([*command, "--resume"]) == 2
    one_line(capsys, re.escape(name))


@pytest.mark.parametrize(
    ("module", "command"),
    [("pyarrow", "train"), ("pyarrow", "predict"), ("sklearn", "train")],
)
def test_a_missing_extra_is_named(module, command, trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)  # importing it fails as if it were not installed
    table = str(trained / "table.csv")
    train = ["train", table, "--target", "kind", "--out", str(tmp_path / "out"), "--quiet"]
    assert main(train if command == "train" else ["predict", str(trained / "run"), table]) == 2
    one_line(capsys, rf"needs {module}.*pip install 'slalom\[cli\]'|{module}.*slalom\[cli\]")
    assert not (tmp_path / "out").exists()


def test_show_needs_no_extra(trained):
    """And ``import slalom.cli`` loads none."""
    program = (
        "import sys\n"
        "for name in ('pyarrow', 'sklearn', 'rich', 'narwhals', 'pandas'): sys.modules[name] = None\n"
        "from slalom.cli import main\n"
        "sys.exit(main(['show', sys.argv[1]]))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(trained / "run")], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["fly"], "fly"),
        (["train"], "FILE"),
        (["train", "x.csv"], "--target"),
        (["train", "x.csv", "--target", "y", "--epochs", "0"], "--epochs: got '0'; needed a whole number"),
        (["train", "x.csv", "--target", "y", "--epochs", "many"], "--epochs: got 'many'; needed a whole number"),
        (["train", "x.csv", "--target", "y", "--seed", "-1"], "--seed: got '-1'; needed a whole number from 0"),
        (["train", "x.csv", "--target", "y", "--test-fraction", "nan"], "--test-fraction: got 'nan'; needed a number"),
        (["train", "x.csv", "--target", "y", "--task", "guess"], "--task"),
    ],
)
def test_usage(arguments, said, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "usage: slalom" in error and said in error


def test_help(capsys):
    assert main(["train", "--help"]) == 0
    assert "--test-fraction" in capsys.readouterr().out

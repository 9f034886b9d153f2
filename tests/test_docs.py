"""The Python blocks of README files and guides run, in order, as a reader would type them.

(The examples in docstrings are collected by pytest itself, see ``--doctest-modules`` in pyproject.toml.)
"""

from __future__ import annotations

import doctest
import os
import re
import runpy
import shlex
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

NATIVE_BITS = True
"""Pages are run as a reader runs them; what they compile is compared with NumPy where it is tested."""

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for page in [*ROOT.glob("*.md"), *(ROOT / "slalom").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    if "```python" in page.read_text(encoding="utf-8")
)
_PYTHON, _CONSOLE = (re.compile(rf"^```{kind}\n(.*?)^```$", re.MULTILINE | re.DOTALL) for kind in ("python", "console"))
_FLAGS = doctest.ELLIPSIS | doctest.REPORT_NDIFF


def run_page(text: str, name: str) -> int:
    """Run the Python blocks of a page in one namespace, and compare what prompts (``>>>``) show; the number run."""
    scope: dict[str, Any] = {"__name__": "__main__"}
    blocks = list(_PYTHON.finditer(text))
    for block in blocks:
        source, line = block[1], text.count("\n", 0, block.start(1))
        if ">>> " in source:
            runner = doctest.DebugRunner(verbose=False, optionflags=_FLAGS)
            example = doctest.DocTestParser().get_doctest(source, scope, name, name, line)
            runner.run(example, clear_globs=False)
            scope = example.globs
        else:
            # Padding with newlines makes a traceback point at the line of the page.
            exec(compile("\n" * line + source, name, "exec"), scope)
    return len(blocks)


@pytest.mark.parametrize("page", PAGES)
def test_page(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_page((ROOT / page).read_text(encoding="utf-8"), page) > 0


def test_console_commands_of_the_readme(tmp_path: Path) -> None:
    runpy.run_path(str(ROOT / "examples" / "demo.py"))["write_table"](tmp_path / "demo-out" / "breast_cancer.csv")
    blocks = _CONSOLE.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    commands = [shlex.split(line) for line in "".join(blocks).splitlines() if line.startswith("slalom ")]
    assert {command[1] for command in commands} == {"train", "show", "predict"}
    program = "import sys; from slalom.cli import main; sys.exit(main())"
    for command in commands:
        run = subprocess.run(
            [sys.executable, "-c", program, *command[1:]],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, f"{shlex.join(command)}\n{run.stdout}{run.stderr}"
    assert (tmp_path / "predictions.csv").read_text(encoding="utf-8").count("\n") == 570


def test_blocks_share_their_names() -> None:
    page = "```python\nx = 1\n```\ntext\n```python\n>>> x + 1\n2\n>>> y = 3\n```\n\n```python\nassert y == 3\n```\n"
    assert run_page(page, "page") == 3


def test_a_wrong_output_fails() -> None:
    with pytest.raises(doctest.DocTestFailure):
        run_page("```python\n>>> 1 + 1\n3\n```\n", "page")


def test_an_error_names_the_line_of_the_page() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run_page("# Title\n\n```python\nx = 1\nx / 0\n```\n", "page.md")
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (last.filename, last.lineno) == ("page.md", 5)

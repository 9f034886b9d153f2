"""What all tests share: a fresh state for each, one profile for generated examples, and where large data may lie."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from executors import Checked

from slalom.compiler import stage
from slalom.core import dtype, random

ROOT = Path(__file__).resolve().parents[1]

collect_ignore = ["lecture"]  # programs written for PyTorch, which test_lecture.py runs with Slalom's imports

# The same examples at every run: a failure in CI must be the failure at the desk. Timings are never tests.
hypothesis.settings.register_profile("slalom", derandomize=True, deadline=None)
hypothesis.settings.load_profile("slalom")


def pytest_configure(config: pytest.Config) -> None:
    """Keep compiled code in a folder of this session: empty at first, and shared by its worker processes."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        folder = os.environ["SLALOM_CACHE_DIR"] = tempfile.mkdtemp(prefix="slalom-tests-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.fixture(autouse=True)
def _fresh_state() -> Iterator[None]:
    """No test sees what another one set."""
    random.default_generator.set(0, 0, 0)
    yield
    dtype.set_default_dtype(dtype.float32)


@pytest.fixture(autouse=True)
def _checked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled in any test is compared with the NumPy executor at each call, and replaced with its result.

    Not in modules that say ``NATIVE_BITS = True``: they compare runs of native code with one another.
    """
    if not getattr(request.module, "NATIVE_BITS", False):
        monkeypatch.setattr(stage, "NativeExecutor", Checked)


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """The path of a file of real data beside the checkout; the test is skipped where it is absent."""

    def find(name: str) -> Path:
        path = ROOT.parent / "shared" / "data" / name
        if not path.is_file():
            pytest.skip(f"needs ../shared/data/{name}")
        return path

    return find


def _processor() -> str:
    """The name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


@pytest.fixture
def keep_result(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Write what a long sweep found to a file that is committed, tests/results/<test>.txt, and where it found it."""

    def keep(text: str) -> None:
        folder = ROOT / "tests" / "results"
        folder.mkdir(exist_ok=True)
        git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
        commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
        (folder / f"{request.node.name}.txt").write_text(f"{text}\n{_processor()}, commit {commit}\n")

    return keep

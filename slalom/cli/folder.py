"""The folder that `slalom train` writes: which one, what it holds, and whether it may be used."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slalom.errors import ConfigError, ModelFileError
from slalom.train.files import write_atomic

__all__ = ["Folder", "choose_folder", "model_path"]

_SUFFIXES = (".gz", ".csv", ".tsv", ".txt", ".data", ".parquet", ".pq")
_LONGEST_NAME = 60  # characters; file systems allow 255 bytes, and a character may take four


@dataclass(frozen=True)
class Folder:
    """The files of one run. It counts as begun when it has settings, as finished when it has a result."""

    path: Path

    @property
    def model(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.safetensors"

    @property
    def history(self) -> Path:
        return self.path / "history.jsonl"

    def read(self, what: str) -> dict[str, Any] | None:
        """What ``write`` wrote; None where there is none.

        Raises: ModelFileError if the file cannot be read.
        """
        path = self.path / f"{what}.json"
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ModelFileError(f"{path}", got=str(error), hint="train again with --overwrite") from error
        if not isinstance(document, dict):
            raise ModelFileError(f"{path}", got="something else", needed=f"the {what} of a run")
        return document

    def write(self, what: str, document: dict[str, Any]) -> None:
        """Write the ``settings`` or the ``result`` of a run.

        Raises: ModelFileError when that fails.
        """
        write_atomic(self.path / f"{what}.json", json.dumps(document, indent=2, allow_nan=False).encode() + b"\n")

    @contextmanager
    def begun(self, settings: dict[str, Any], *, clear: bool) -> Iterator[None]:
        """Make the folder, remove an earlier run from it if asked to (and nothing else), and write the settings.

        No other training can begin in it before the context is left, or the process ends.
        Raises: ConfigError where another training is at work; ConfigError, ModelFileError where nothing can be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            held = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            self._lock(held)
            if clear:
                self._clear()
            self.write("settings", settings)
            yield
        finally:
            os.close(held)

    def _lock(self, held: int) -> None:
        """The lock is the folder's own: no file is left over, and it ends with the process."""
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            got, needed = "a folder that another training is writing to", "another folder, or to wait for its end"
            raise ConfigError(f"--out {self.path}", got=got, needed=needed) from error
        except OSError:  # a file system without locks
            pass

    def _clear(self) -> None:
        try:
            for found in self._files():
                shutil.rmtree(found) if found.is_dir() else found.unlink()
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> ConfigError:
        return ConfigError(f"--out {self.path}", got=error.strerror, needed="a folder that can be written")

    def _files(self) -> Iterator[Path]:
        # The result goes first: without it no half-removed run counts as finished.
        for pattern in ("result.json", "settings.json", "history.jsonl", "checkpoint*.safetensors", self.model.name):
            yield from self.path.glob(pattern)


def choose_folder(file: Path, target: str, out: Path | None, *, resume: bool, overwrite: bool) -> Folder:
    """The folder for this run; nothing is made or changed yet.

    Without ``--out``: ``<stem>-<target>.slalom``, numbered on from the highest that is taken; with ``--resume`` or
    ``--overwrite`` that one.

    Raises: ConfigError for a named folder that is in use, and for contradicting flags.
    """
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite", got="both", needed="one of them")
    if out is None:
        latest = _latest(file, target)
        return Folder(Path(_default_name(file, target, max(1, latest if resume or overwrite else latest + 1))))
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}", got="a file", needed="a folder")
    if out.exists() and not (resume or overwrite) and any(out.iterdir()):
        raise ConfigError(f"--out {out}", got="a folder that exists", needed="a new one, --resume or --overwrite")
    return Folder(out)


def _latest(file: Path, target: str) -> int:
    """The highest number of a folder, or anything else, with a default name here; 0 if there is none."""
    numbers = [0]
    for path in Path().iterdir():
        match = re.search(r"(?:-([1-9]\d*))?\.slalom$", path.name)
        possible = (1, int(match[1] or 1)) if match else ()  # the target's own name may end in a number
        numbers += [number for number in possible if path.name == _default_name(file, target, number)]
    return max(numbers)


def _default_name(file: Path, target: str, number: int) -> str:
    stem = file.name
    for suffix in _SUFFIXES:
        if stem.lower().endswith(suffix):
            stem = stem[: -len(suffix)]
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in f"{stem}-{target}")[:_LONGEST_NAME]
    return f"{safe}-{number}.slalom" if number > 1 else f"{safe}.slalom"


def model_path(given: Path) -> Path:
    """The model file meant by a path to it or to its folder.

    Raises: ModelFileError for the folder of a run that has none yet.
    """
    if not given.is_dir():
        return given
    folder = Folder(given)
    if folder.checkpoint.exists() and not folder.model.exists():
        hint = "if it was stopped, the same train command with --resume goes on"
        raise ModelFileError(f"{folder.model}", got="a training that has not come to its end", hint=hint)
    return folder.model

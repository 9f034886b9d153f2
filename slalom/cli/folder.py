"""The folder that `slalom train` writes: which one, and whether it may be used."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slalom.errors import ConfigError, ModelFileError
from slalom.train.files import write_atomic

__all__ = ["Folder", "model_path", "open_folder"]


@dataclass(frozen=True)
class Folder:
    """The files of one run."""

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

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    def read_result(self) -> dict[str, Any] | None:
        """The result of a finished run; None where there is none.

        Raises: ModelFileError if the file cannot be read.
        """
        try:
            text = self.result.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            result = json.loads(text)
        except ValueError as error:
            raise ModelFileError(f"{self.result}: {error}", hint="train again with --overwrite") from error
        if not isinstance(result, dict) or not isinstance(result.get("settings"), dict):
            raise ModelFileError(f"{self.result}", got="something else", needed="the result of a run")
        return result

    def write_result(self, result: dict[str, Any]) -> None:
        """Write the result; only after it is there does the run count as finished."""
        write_atomic(self.result, json.dumps(result, indent=2, allow_nan=False).encode() + b"\n")


def open_folder(file: Path, target: str, out: Path | None, *, resume: bool, overwrite: bool) -> Folder:
    """The folder for this run, made if need be.

    Without ``--out``: ``<stem>-<target>.slalom``, with a number if that is taken (the same again with ``--resume`` or
    ``--overwrite``).

    Raises: ConfigError for a named folder that exists, for a place that cannot be written, for contradicting flags.
    """
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite", needed="one of them")
    path = out or Path.cwd() / _default_name(file, target)
    if out is None and not (resume or overwrite):
        number = 2
        while path.exists():
            path = path.with_name(_default_name(file, f"{target}-{number}"))
            number += 1
    elif path.exists() and not path.is_dir():
        raise ConfigError(f"--out {path}", got="a file", needed="a folder")
    elif path.exists() and not (resume or overwrite) and any(path.iterdir()):
        raise ConfigError(f"--out {path}", got="a folder that exists", needed="a new one, --resume or --overwrite")
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"--out {path}", got=error.strerror, needed="a folder that can be written") from error
    folder = Folder(path)
    if overwrite:
        _clear(folder)
    return folder


def _clear(folder: Folder) -> None:
    """Remove the files of an earlier run, and nothing else that may lie there."""
    for pattern in ("model.safetensors*", "checkpoint.safetensors*", "history.jsonl", "result.json"):
        for found in folder.path.glob(pattern):
            if found.is_dir():
                shutil.rmtree(found)
            else:
                found.unlink()


def _default_name(file: Path, target: str) -> str:
    stem = file.name
    for suffix in (".gz", ".csv", ".tsv", ".txt", ".data", ".parquet", ".pq"):
        stem = stem.removesuffix(suffix)
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in f"{stem}-{target}")
    return f"{safe[:100]}.slalom"


def model_path(given: Path) -> Path:
    """The model file meant by a path to it or to its folder."""
    return given / "model.safetensors" if given.is_dir() else given

"""Train a network on a table and print its score on rows it never saw, beside three honest baselines."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

from slalom.cli.console import score_table, teller, verdict
from slalom.cli.folder import Folder, open_folder
from slalom.errors import ConfigError, DataError
from slalom.tabular.fitting import fit
from slalom.tabular.reading import read_table

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """``slalom train FILE --target COLUMN …``: 0 when done, 130 when interrupted (the model is usable)."""
    started = time.perf_counter()
    table = read_table(arguments.file)
    settings = _settings(arguments)
    folder = open_folder(
        arguments.file, arguments.target, arguments.out, resume=arguments.resume, overwrite=arguments.overwrite
    )
    tell = teller(arguments.quiet)
    result = folder.read_result()
    if result is not None:
        _same(result["settings"], settings, folder)
        if not result["interrupted"]:
            tell(f"{folder.path}: this run is finished")
            return _report(result, arguments.json)
    model = fit(
        table,
        arguments.target,
        task=arguments.task,
        seed=arguments.seed,
        epochs=arguments.epochs,
        test_fraction=arguments.test_fraction,
        numeric=arguments.numeric,
        categorical=arguments.categorical,
        drop=arguments.drop,
        baselines=True,
        tell=tell,
        progress=not arguments.quiet,
        checkpoint=folder.checkpoint,
        history=folder.history,
        resume=arguments.resume,
    )
    model.result |= {
        "seconds": round(time.perf_counter() - started, 3),
        "weights_sha256": model.weights_sha256,
        "model": str(folder.model),
        "settings": settings,
    }
    model.save(folder.model)
    folder.write_result(model.result)
    code = _report(model.result, arguments.json)
    return 130 if model.result["interrupted"] else code


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a resumed run must have in common with the one it continues."""
    names = ("target", "seed", "epochs", "task", "test_fraction", "numeric", "categorical", "drop")
    return {"data_sha256": _sha256(arguments.file)} | {name: getattr(arguments, name) for name in names}


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}", got=error.strerror, needed="a file that can be read") from error


def _same(old: dict[str, Any], new: dict[str, Any], folder: Folder) -> None:
    for name, value in new.items():
        if old.get(name) != value:
            what = "the data" if name == "data_sha256" else f"--{name.replace('_', '-')}"
            got, needed = (None, None) if name == "data_sha256" else (value, old.get(name))
            raise ConfigError(
                f"--resume: {what} is not that of the run in {folder.path}",
                got=got,
                needed=needed,
                hint="use the same file and flags, or --overwrite",
            )


def _report(result: dict[str, Any], as_json: bool) -> int:
    if as_json:
        print(json.dumps(result, allow_nan=False))
        return 0
    print("\n".join(score_table(result)))
    print(verdict(result))
    print(f"model: {result['model']}")
    return 0

"""Train a network on a table and print its score on rows it never saw, beside three honest baselines."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slalom.cli.console import score_table, teller, verdict
from slalom.cli.folder import Folder, choose_folder
from slalom.errors import ConfigError, DataError
from slalom.tabular.fitting import make_plan, need_baselines
from slalom.tabular.reading import read_table
from slalom.tabular.table import Table

__all__ = ["run"]

_PLAIN = ("task", "seed", "epochs", "test_fraction", "groups", "augment")
_COLUMNS = ("numeric", "categorical", "drop")


def run(arguments: argparse.Namespace) -> int:
    """``slalom train FILE --target COLUMN …``: 0 when done, 130 when interrupted (the model is usable)."""
    started = time.perf_counter()
    tell = teller(arguments.quiet)
    folder = _folder(arguments)
    table = read_table(arguments.file)
    options = {name: getattr(arguments, name) for name in _PLAIN}
    options |= {name: _columns(getattr(arguments, name), table) for name in _COLUMNS}
    settings = {"data_sha256": _sha256(arguments.file), "target": arguments.target, **options}
    if arguments.resume:
        _check_same(folder, settings)
        result = folder.read("result")
        if result is not None and not result.get("interrupted") and folder.model.exists():
            tell(f"{folder.path}: this run is finished")
            _report({**result, "model": str(folder.model)}, arguments.json)
            return 0
    need_baselines()
    plan = make_plan(table, arguments.target, **options)
    for line in plan.describe():
        tell(line)
    if not (arguments.resume or arguments.overwrite):
        folder = _folder(arguments)  # once more: another training may have taken it meanwhile
    with folder.begun(settings, clear=arguments.overwrite):  # only now: a run that can't begin costs no earlier one
        try:
            model = plan.train(
                progress=not arguments.quiet,
                checkpoint=folder.checkpoint,
                history=folder.history,
                resume=arguments.resume,
            )
        except KeyboardInterrupt:
            tell("there is no model yet; the same command with --resume goes on")
            raise
        if not model.result["interrupted"]:
            try:
                plan.compare(model, tell)
            except KeyboardInterrupt:  # the model is trained; a resumed run only compares
                tell("")
                model.result["interrupted"] = True
        model.save(folder.model)
        seconds = round(time.perf_counter() - started, 3)
        result = {**model.result, "seconds": seconds, "model": str(folder.model), "settings": settings}
        folder.write("result", result)
    _report(result, arguments.json)
    if result["interrupted"]:
        tell("interrupted: the model can be used; the same command with --resume goes on")
        return 130
    return 0


def _folder(arguments: argparse.Namespace) -> Folder:
    return choose_folder(
        arguments.file, arguments.target, arguments.out, resume=arguments.resume, overwrite=arguments.overwrite
    )


def _columns(texts: Sequence[str], table: Table) -> list[str]:
    """The columns named by ``A,B`` or one by one; a name with a comma in it is taken whole."""
    names = [name for text in texts for name in ([text] if text in table else text.split(","))]
    return [name.strip() for name in names if name.strip()]


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}", got=error.strerror, needed="a file that can be read") from error


def _check_same(folder: Folder, settings: dict[str, Any]) -> None:
    """Raises: ConfigError if the run in the folder, if there is one, was made with other data or flags."""
    for name, needed in (folder.read("settings") or {}).items():
        if settings.get(name) == needed:
            continue
        hint = "use the same file and flags, or --overwrite"
        if name == "data_sha256":
            raise ConfigError(f"--resume: the data is not that of the run in {folder.path}", hint=hint)
        what = f"--resume: --{name.replace('_', '-')} is not that of the run in {folder.path}"
        raise ConfigError(what, got=_given(settings.get(name)), needed=_given(needed), hint=hint)


def _given(value: Any) -> str:
    return "none" if value in (None, []) else ",".join(value) if isinstance(value, list) else str(value)


def _report(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, allow_nan=False))
        return
    print("\n".join(score_table(result)))
    print(verdict(result))
    print(f"model: {result['model']}")

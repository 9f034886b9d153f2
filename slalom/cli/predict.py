"""Predict the target of each row of a table, with the probability of each class."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path

from slalom.cli.folder import model_path
from slalom.errors import ConfigError
from slalom.tabular.model import Model
from slalom.tabular.reading import read_table
from slalom.tabular.table import Table, quantity
from slalom.train.files import write_atomic

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """``slalom predict MODEL FILE [--out FILE.csv]``: one row of predictions a row of the table, in its order."""
    path = model_path(arguments.model)
    _check_out(arguments.out, path, arguments.file)
    model = Model.load(path)
    table = read_table(arguments.file)
    model.preparation.check_columns(table)
    for note in [*table.notes, *model.preparation.notes(table, ignore=(model.target.name,))]:
        print(f"note: {note}", file=sys.stderr)
    text = _predictions(model, table)
    if arguments.out is None:
        sys.stdout.write(text)
        return 0
    if arguments.out.exists() and not arguments.out.is_file():  # a pipe or a device: it must not be replaced by a file
        arguments.out.write_text(text, encoding="utf-8")
    else:
        write_atomic(arguments.out, text.encode())
    print(f"{quantity(table.rows, 'prediction')} written to {arguments.out}", file=sys.stderr)
    return 0


def _check_out(out: Path | None, *inputs: Path) -> None:
    """Raises: ConfigError before a model or a table is overwritten by predictions."""
    if out is None or not out.exists():
        return
    if out.is_dir() or any(path.exists() and out.samefile(path) for path in inputs):
        got = "a folder" if out.is_dir() else "the model or the table itself"
        raise ConfigError(f"--out {out}", got=got, needed="another file")


def _predictions(model: Model, table: Table) -> str:
    """CSV: the prediction, and for classes the probability of each; numbers in the shortest form that is exact."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    raw = model.predict_raw(table)
    labels = model.restore(raw).tolist()
    writer.writerow([model.target.name, *(f"probability of {name}" for name in model.classes)])
    if model.classes:
        writer.writerows([label, *map(repr, row)] for label, row in zip(labels, raw.tolist(), strict=True))
    else:
        writer.writerows([repr(label)] for label in labels)
    return text.getvalue()

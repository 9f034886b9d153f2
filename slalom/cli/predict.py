"""Predict the target of each row of a table, with the probability of each class."""

from __future__ import annotations

import argparse
import csv
import io
import sys

import numpy as np

from slalom.cli.folder import model_path
from slalom.tabular.model import Model
from slalom.tabular.reading import read_table
from slalom.train.files import write_atomic

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """``slalom predict MODEL FILE [--out FILE.csv]``: one row of predictions a row of the table, in its order."""
    model = Model.load(model_path(arguments.model))
    table = read_table(arguments.file)
    for note in model.preparation.notes(table, ignore=(model.target.name,)):
        print(f"note: {note}", file=sys.stderr)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    raw = model.predict_raw(table)
    predictions = model.restore(raw)
    if model.target.task == "classification":
        writer.writerow([model.target.name, *(f"probability of {c}" for c in model.target.classes)])
        writer.writerows(
            [_plain(label), *(repr(float(p)) for p in row)] for label, row in zip(predictions, raw, strict=True)
        )
    else:
        writer.writerow([model.target.name])
        writer.writerows([repr(float(value))] for value in predictions)
    if arguments.out is None:
        sys.stdout.write(text.getvalue())
    else:
        write_atomic(arguments.out, text.getvalue().encode())
        print(f"{table.rows:,} predictions written to {arguments.out}", file=sys.stderr)
    return 0


def _plain(label: object) -> object:
    return label.item() if isinstance(label, np.generic) else label

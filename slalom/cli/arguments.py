"""What can be said on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from slalom import __version__
from slalom.cli import predict, show, train
from slalom.tabular.augmenting import AUGMENTATIONS

__all__ = ["parse"]

Number = TypeVar("Number", int, float)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments, with ``run`` set to the command's function.

    Raises: SystemExit after argparse has printed help or what is wrong.
    """
    parser = argparse.ArgumentParser(prog="slalom", description="Train neural networks on the CPU you have.")
    parser.add_argument("--version", action="version", version=f"slalom {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _train(commands.add_parser("train", help="train a model on a table", description=train.__doc__))
    _predict(commands.add_parser("predict", help="predict with a trained model", description=predict.__doc__))
    _show(commands.add_parser("show", help="show what a model is", description=show.__doc__))
    return parser.parse_args(argv)


def _number(kind: type[Number], holds: Callable[[Number], bool], needed: str) -> Callable[[str], Number]:
    """A reader of numbers for which a condition holds."""

    def read(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not holds(value):
            raise argparse.ArgumentTypeError(f"got {text!r}; needed {needed}")
        return value

    return read


def _train(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=train.run)
    positive = _number(int, lambda value: value >= 1, "a whole number of at least 1")
    seed = _number(int, lambda value: 0 <= value < 2**63, "a whole number from 0 to 2^63 - 1")
    fraction = _number(float, lambda value: 0 < value < 1, "a number between 0 and 1, such as 0.2")
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="a CSV (also .gz, any delimiter) or Parquet file")
    add("--target", required=True, metavar="COLUMN", help="the column to predict")
    add("--out", type=Path, metavar="DIR", help="where to write (default: FILE-COLUMN.slalom, numbered if taken)")
    add("--seed", type=seed, default=0, metavar="N", help="of the split, the weights and the order of rows (0)")
    add("--epochs", type=positive, metavar="N", help="at most this many passes over the rows")
    add("--task", choices=("classification", "regression"), help="instead of what the target suggests")
    add("--test-fraction", type=fraction, default=0.2, metavar="F", help="share of rows kept for the test (0.2)")
    for kind, meaning in (
        ("numeric", "columns to read as numbers"),
        ("categorical", "columns to read as categories"),
        ("drop", "columns to leave out"),
    ):
        add(f"--{kind}", action="append", default=[], metavar="A,B", help=meaning)
    add("--groups", metavar="COLUMN", help="keep rows of one value together when splitting, and leave the column out")
    add("--augment", choices=AUGMENTATIONS, help="change the training rows at random: noise on numbers, rows mixed")
    add("--resume", action="store_true", help="go on where the run in DIR was stopped")
    add("--overwrite", action="store_true", help="replace the run in DIR")
    add("--json", action="store_true", help="print the result as one JSON object on standard output")
    add("--quiet", action="store_true", help="no progress on standard error")


def _predict(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=predict.run)
    parser.add_argument("model", type=Path, metavar="MODEL", help="model.safetensors, or the folder that holds it")
    parser.add_argument("file", type=Path, metavar="FILE", help="a table with the columns the model was trained on")
    parser.add_argument("--out", type=Path, metavar="FILE.csv", help="where to write (default: standard output)")


def _show(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=show.run)
    parser.add_argument("model", type=Path, metavar="MODEL", help="model.safetensors, or the folder that holds it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")

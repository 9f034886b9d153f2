"""What can be said on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from slalom.cli import predict, show, train

__all__ = ["parse"]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments, with ``run`` set to the command's function.

    Raises: SystemExit after argparse has printed help or what is wrong.
    """
    parser = argparse.ArgumentParser(prog="slalom", description="Train neural networks on the CPU you have.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _train(commands.add_parser("train", help="train a model on a table", description=train.__doc__))
    _predict(commands.add_parser("predict", help="predict with a trained model", description=predict.__doc__))
    _show(commands.add_parser("show", help="show what a model is", description=show.__doc__))
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"{value} is not in 0 … 2^63 - 1")
    return value


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not between 0 and 1")
    return value


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _train(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=train.run)
    parser.add_argument("file", type=Path, metavar="FILE", help="a CSV (also .gz, any delimiter) or Parquet file")
    parser.add_argument("--target", required=True, metavar="COLUMN", help="the column to predict")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: FILE-COLUMN.slalom)")
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="of the split, the weights, the order (0)")
    parser.add_argument("--epochs", type=_positive, metavar="N", help="at most this many passes over the rows")
    parser.add_argument("--task", choices=("classification", "regression"), help="instead of what the target suggests")
    parser.add_argument("--test-fraction", type=_fraction, default=0.2, metavar="F", help="share of test rows (0.2)")
    for kind, meaning in (
        ("numeric", "columns to read as numbers"),
        ("categorical", "columns to read as categories"),
        ("drop", "columns to leave out"),
    ):
        parser.add_argument(f"--{kind}", type=_names, default=[], metavar="A,B", help=meaning)
    parser.add_argument("--resume", action="store_true", help="go on where the run in DIR was stopped")
    parser.add_argument("--overwrite", action="store_true", help="replace what is in DIR")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object on standard output")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")


def _predict(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=predict.run)
    parser.add_argument("model", type=Path, metavar="MODEL", help="model.safetensors, or the folder that holds it")
    parser.add_argument("file", type=Path, metavar="FILE", help="a table with the columns the model was trained on")
    parser.add_argument("--out", type=Path, metavar="FILE.csv", help="where to write (default: standard output)")


def _show(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=show.run)
    parser.add_argument("model", type=Path, metavar="MODEL", help="model.safetensors, or the folder that holds it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")

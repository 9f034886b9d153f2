"""Show a model: its architecture, its preparation of a table, its scores."""

from __future__ import annotations

import argparse
import json

from slalom.cli.console import score_table, verdict
from slalom.cli.folder import model_path
from slalom.tabular.model import Model

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """``slalom show MODEL [--json]``."""
    model = Model.load(model_path(arguments.model))
    if arguments.json:
        print(json.dumps(model.facts(), indent=2, allow_nan=False))
        return 0
    print(f"{model.target.task} of {model.target.name!r}")
    print("\nPreparation")
    for line in model.preparation.describe():
        print(f"  {line}")
    print("\nNetwork")
    for line in repr(model.network).splitlines():
        print(f"  {line}")
    print(f"  {model.parameters:,} parameters")
    if model.result:
        print("\nScores")
        for line in score_table(model.result):
            print(f"  {line}")
        print(f"  {verdict(model.result)}")
    return 0

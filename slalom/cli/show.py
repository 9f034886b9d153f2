"""Show a model: its architecture, its preparation of a table, its scores."""

from __future__ import annotations

import argparse
import json

from slalom.cli.console import score_table, verdict
from slalom.cli.folder import model_path
from slalom.tabular.model import Model
from slalom.tabular.table import plain, quantity

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """``slalom show MODEL [--json]``."""
    model = Model.load(model_path(arguments.model))
    if arguments.json:
        print(json.dumps(model.facts(), indent=2, allow_nan=False))
        return 0
    names = [*map(plain, model.classes[:12]), *["…"] * (len(model.classes) > 12)]
    classes = f", {quantity(len(model.classes), 'class')}: {', '.join(names)}" if names else ""
    print(f"{model.target.task} of {model.target.name!r}{classes}")
    _section("Preparation", model.preparation.describe())
    _section("Network", [*repr(model.network).splitlines(), f"{model.parameters:,} parameters"])
    if model.result:
        leaks = [f"warning: {leak}" for leak in model.result.get("leaks", ())]
        _section("Scores", [*score_table(model.result), verdict(model.result), *leaks])
    return 0


def _section(title: str, lines: list[str]) -> None:
    print(f"\n{title}")
    for line in lines:
        print(f"  {line}")

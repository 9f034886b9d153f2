"""What the commands print: results on standard output, everything else on standard error."""

from __future__ import annotations

import math
import os
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from slalom.tabular.table import quantity

__all__ = ["score_table", "teller", "verdict"]

_INDENT = 13  # where the second column of what `tell` gets begins
_LOWER_IS_BETTER = ("rmse",)


def teller(quiet: bool) -> Callable[[str], None]:
    """A function that prints a line for the user to read along, folded to a terminal's width; nothing when quiet."""
    if quiet:
        return lambda line: None
    width = _terminal_width()

    def tell(line: str) -> None:
        lines = textwrap.wrap(line, width, subsequent_indent=" " * _INDENT, break_long_words=False) if width else [line]
        print("\n".join(lines), file=sys.stderr, flush=True)

    return tell


def _terminal_width() -> int | None:
    """None where standard error is no terminal: a log or another program gets each fact on one line."""
    if not sys.stderr.isatty():
        return None
    return max(40, os.get_terminal_size(sys.stderr.fileno()).columns or 80)


def score_table(result: Mapping[str, Any]) -> list[str]:
    """The test score of the network beside the baselines, one row each."""
    rows: dict[str, Mapping[str, float]] = {"slalom": result["test"], **result["baselines"]}
    columns = [_padded([quantity(result["rows"]["test"], "test row"), *map(_spoken, rows)], str.ljust)]
    for metric in result["test"]:
        cells = _cells([scores.get(metric) for scores in rows.values()])
        columns.append(_padded([_spoken(metric), *cells], str.rjust))
    return ["  ".join(line).rstrip() for line in zip(*columns, strict=True)]


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _padded(cells: Sequence[str], pad: Callable[[str, int], str]) -> list[str]:
    width = max(map(len, cells))
    return [pad(cell, width) for cell in cells]


def _cells(values: list[float | None]) -> list[str]:
    """Numbers with equally many decimals: four, or fewer where they are large, more where all are small."""
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    place = math.floor(math.log10(largest)) if largest else 0
    decimals = max(0, 4 - place) if place > 0 else 4 if place >= -2 else min(12, 2 - place)
    return ["–" if value is None else f"{value:,.{decimals}f}" for value in values]


def verdict(result: Mapping[str, Any]) -> str:
    """In words, who wins by the main metric, and whether that is more than chance."""
    metric = "accuracy" if result["task"] == "classification" else "rmse"
    sign = -1 if metric in _LOWER_IS_BETTER else 1
    scores = {name: values[metric] for name, values in result["baselines"].items()}
    own = _cells([result["test"][metric], *scores.values()])
    if not scores:
        return f"{metric} {own[0]}; not compared with baselines"
    best = max(scores, key=lambda name: sign * scores[name])
    text = dict(zip(scores, own[1:], strict=True))
    rival = f"the {_spoken(best)} baseline"
    if scores[best] == result["test"][metric]:
        return f"A tie: the network and {rival} both have {metric} {own[0]}."
    if sign * result["test"][metric] > sign * scores[best]:
        words = f"The network wins: {metric} {own[0]}, ahead of {rival} with {text[best]}."
    else:
        words = f"T{rival[1:]} wins: {metric} {text[best]}, ahead of the network with {own[0]}."
    lead = result["leads"][best]
    if abs(lead["mean"]) < 2 * lead["standard_error"]:
        words += f" With {quantity(result['rows']['test'], 'test row')}, that may be chance."
    return words

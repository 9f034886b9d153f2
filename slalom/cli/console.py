"""What the commands print: results on standard output, everything else on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["score_table", "teller", "verdict"]

_BETTER_LOW = ("log_loss", "rmse", "mae")


def teller(quiet: bool) -> Callable[[str], None]:
    """A function that prints a line for the user to read along; does nothing when quiet."""

    def tell(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    return tell


def score_table(result: Mapping[str, Any]) -> list[str]:
    """The test score of the network beside the baselines, one row each."""
    rows = {"slalom": result["test"], **result["baselines"]}
    metrics = list(result["test"])
    width = max(len(name) for name in rows) + 2
    head = "".join(f"{metric:>18}" for metric in metrics)
    lines = [f"{'test rows: ' + format(result['rows']['test'], ','):<{width}}{head}"] if metrics else []
    width = max(width, len(lines[0]) - len(head)) if lines else width
    for name, scores in rows.items():
        lines.append(f"{name:<{width}}" + "".join(_cell(scores.get(metric)) for metric in metrics))
    return lines


def _cell(value: float | None) -> str:
    return f"{'-':>18}" if value is None else f"{value:>18.5g}"


def verdict(result: Mapping[str, Any]) -> str:
    """In words, who wins by the main metric."""
    metric = "accuracy" if result["task"] == "classification" else "rmse"
    sign = -1 if metric in _BETTER_LOW else 1
    scores = {"the network": result["test"][metric]}
    scores |= {_article(name): values[metric] for name, values in result["baselines"].items() if metric in values}
    ranked: Sequence[tuple[str, float]] = sorted(scores.items(), key=lambda item: -sign * item[1])
    (first, best), second = ranked[0], ranked[1] if len(ranked) > 1 else None
    if second is None:
        return f"{metric} {best:.5g}"
    if best == second[1]:
        return f"A tie: {first} and {second[0]} both have {metric} {best:.5g}."
    return f"{first[0].upper()}{first[1:]} wins: {metric} {best:.5g}, ahead of {second[0]} with {second[1]:.5g}."


def _article(name: str) -> str:
    return f"the {name.replace('_', ' ')} baseline"

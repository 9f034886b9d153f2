"""Write docs/parity.md: how far every layer, loss, optimizer, schedule and initialiser is from PyTorch's.

Run it where PyTorch is installed, after a change of the tables: ``make parity``. It walks through the cases that
tests/test_parity.py checks, and fails where one is out of its bound.
"""

from __future__ import annotations

import platform
import sys
import warnings
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "parity.md"
FIGURES = ("float64", "float64 gradients", "float32", "float32 gradients")
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

import parity as cases  # noqa: E402 (the checkout must be on the path first)

from tests import table_init  # noqa: E402

TORCH = torch.__version__.partition("+")[0]
HEAD = f"""# Parity with PyTorch

What Slalom and PyTorch {TORCH} make of the same numbers: the worst of all cases that the tests compare, for each
public name. `make parity` writes this page; the tests see to it that no name is missing and that every figure is below
the bound of its test.

A figure is max |a − b| / max |b| over an array, where a is Slalom's and b is PyTorch's, and the worst of all arrays and
cases counts. Where all of b is small, max |b| counts as 0.01 in float64 and as 0.1 in float32: a gradient that is
nothing but rounding (through a normalisation, say) has no relative error. 0 is equal to the bit, – is nothing to
compare. Among the cases are batches of one row and of none, odd sizes, transposed and strided memory, extreme numbers,
and every option of every constructor. † PyTorch has no such thing: compared is its formula, written apart in PyTorch's
operations or in NumPy's.

Computed with NumPy {np.__version__} on {platform.machine()}; rounding differs between processors.
Steps of optimizers are machine code; of all other it is compared with NumPy at each call in the tests.
"""
NOTES = {
    "Layers": """
Output and buffers, then gradients of the input and of every parameter, in training and in evaluation. What draws random
numbers in training is compared in evaluation.""",
    "Functions": """
Of `nn.functional`; those of the losses are the same code as their Modules.""",
    "Losses": """
Value and gradients, for each of the reductions "mean", "sum" and "none".""",
    "Optimizers": """
The parameters after each of 100 steps, on a badly scaled bowl, Rosenbrock's valley, a small network and parameters of
odd shapes, with changing rates and missing gradients. max |b| counts as 1 if it is less. Muon, which PyTorch computes
in bfloat16, is compared with its formula; L-BFGS for as long as rounding does not decide how often it asks for the
loss; Lion in float32 for 30 steps, as it moves by signs.""",
    "Schedulers": """
The rates of two groups, and the momenta that are moved, at each of 100 epochs. max |b| counts as 0.001 if it is
less.""",
    "Schedules": """
The pure functions of `optim.schedules` at each of 100 epochs, beside their formulas, which the tests state once
more.""",
    "Initialisers": f"""
How far the first four moments of 30,000 to 60,000 numbers are apart, relative to those of their magnitudes (0: nothing
is drawn, and all numbers are equal), and in standard errors, below {table_init.MOMENT:g}; then Kolmogorov and Smirnov's
distance times √(n/2), below {table_init.DISTANCE:g}. † is set from data, and tested in tests/test_init.py.""",
}
HOMES = {
    "Layers": [torch.nn],
    "Functions": [torch.nn.functional],
    "Losses": [torch.nn],
    "Optimizers": [torch.optim],
    "Schedulers": [torch.optim.lr_scheduler, torch.optim.swa_utils],
    "Schedules": [cases.schedules],  # † says nothing where all are beside their formulas
}


def shown(figure: float | None, style: str = ".1e") -> str:
    return "–" if figure is None else "0" if figure == 0 else f"{figure:{style}}"


def titled(name: str, homes: Iterable[Any]) -> str:
    return f"`{name}`" if any(hasattr(home, name) for home in homes) else f"`{name}` †"


def worst(found: Iterable[float | None]) -> float | None:
    return max((figure for figure in found if figure is not None), default=None)


def rows(title: str) -> Iterator[list[str]]:
    """For each name its number of cases, and the worst differences of results and of gradients in each dtype."""
    section = sorted(cases.SECTIONS[title](), key=lambda case: (case.name.lower(), case.name))
    for name, own in groupby(section, lambda case: case.name):
        figures: dict[str, list[tuple[float, float | None]]] = {dtype: [] for dtype in cases.DTYPES}
        for case in own:
            pair = case.ours(), case.theirs(torch)
            case.check(*pair)
            figures[case.dtype].append(case.differences(*pair))
        columns = [worst(pair[n] for pair in pairs) for pairs in figures.values() for n in (0, 1)]
        yield [titled(name, HOMES[title]), str(sum(map(len, figures.values()))), *map(shown, columns)]


def initialisers() -> Iterator[list[str]]:
    """For each name its calls, how far moments are apart, that in standard errors, and the distributions' distance."""
    calls: dict[str, list[tuple[Any, ...]]] = {name: [] for name in table_init.OURS}
    for call in (*table_init.FILLS, *table_init.EXACT):
        calls.setdefault(call[0], []).append(call)
    for name, own in sorted(calls.items()):
        drawn = [table_init.filled(torch, *call) for call in own if call in table_init.FILLS]
        exact = [table_init.filled(torch, *call) for call in own if call in table_init.EXACT]
        moments = [moment for pair in drawn for moment in table_init.moments(*pair)]
        apart = [apart for apart, _ in moments] + [cases.difference(*pair, 1.0) for pair in exact]
        errors, distances = [errors for _, errors in moments], [table_init.distance(*pair) for pair in drawn]
        figures = [shown(worst(apart)), *(shown(worst(values), ".2f") for values in (errors, distances))]
        yield [titled(name, [torch.nn.init]), str(len(own)), *figures]


def table(head: list[str], lines: Iterable[list[str]]) -> str:
    """Without columns in which nothing is compared."""
    columns = [column for column in zip(head, *lines, strict=True) if set(column[1:]) != {"–"}]
    names, *rest = zip(*columns, strict=True)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (names, ["---"] + ["--:"] * (len(names) - 1), *rest))


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    tables = {}
    for title in cases.SECTIONS:
        tables[title] = table(["name", "cases", *FIGURES], rows(title))
        print(title, flush=True)
    tables["Initialisers"] = table(["name", "calls", "moments", "in errors", "distance"], initialisers())
    sections = [f"## {title}\n{NOTES[title]}\n\n{lines}\n" for title, lines in tables.items()]
    PAGE.write_text("\n".join([HEAD, *sections]), encoding="utf-8")


if __name__ == "__main__":
    main()

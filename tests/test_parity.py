"""Every row of every table beside PyTorch, where that is installed; and the table of it in docs/parity.md."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import parity
import pytest
from grouped import all_of
from parity import Case, difference

from slalom import nn, optim
from slalom.nn import init
from slalom.optim import lr_scheduler, schedules
from tests import table_init

NATIVE_BITS = True
"""Steps of optimizers are compared as users make them: in machine code."""

PAGE = Path(__file__).resolve().parents[1] / "docs" / "parity.md"
"""tools/parity.py writes it."""


def by_name(cases: Iterator[Case]) -> dict[str, list[Case]]:
    return {name: list(own) for name, own in groupby(sorted(cases, key=lambda case: case.name), lambda c: c.name)}


SECTIONS = {title: by_name(section()) for title, section in parity.SECTIONS.items()}
NAMES = [(title, name) for title, section in SECTIONS.items() for name in section]


@cache
def live() -> Any:
    """PyTorch on one thread, like NumPy here; None where it is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    return torch


@pytest.mark.parametrize(("title", "name"), NAMES, ids=[name for _, name in NAMES])
def test_is_pytorchs(title: str, name: str) -> None:
    """As stored in tests/golden, where it is, and as PyTorch makes it here, where that is installed."""
    torch = live()
    cases = [case for case in SECTIONS[title][name] if torch is not None or case.alone or case.stored is not None]
    if not cases:
        pytest.skip("needs PyTorch")

    def check(case: Case) -> None:
        found = case.ours()
        if case.stored is not None:
            case.stored(found)
        if torch is not None or case.alone:
            case.check(found, case.theirs(torch))

    all_of(check, [(case,) for case in cases], lambda case: case.id)


# --- docs/parity.md -------------------------------------------------------------------------------------------------
@cache
def page() -> dict[str, dict[str, dict[str, str]]]:
    """For each section of the page, and each name in it, the cells by their columns' heads."""
    found = {}
    for section in re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        head, _rule, *lines = (
            [cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")
        )
        rows = {cells[0].split("`")[1]: dict(zip(head[1:], cells[1:], strict=True)) for cells in lines}
        assert len(rows) == len(lines), "a name stands there twice"
        found[section.split("\n")[0]] = rows
    return found


def test_the_page_has_a_line_for_every_public_name() -> None:
    modules = {
        name for name in nn.__all__ if inspect.isclass(value := getattr(nn, name)) and issubclass(value, nn.Module)
    }
    layers, losses = page()["Layers"].keys(), page()["Losses"].keys()
    assert modules - {"Module"} == layers | losses and not layers & losses
    assert {name for name in optim.__all__ if inspect.isclass(getattr(optim, name))} - {"Optimizer"} == page()[
        "Optimizers"
    ].keys()
    assert set(lr_scheduler.__all__) - {"LRScheduler"} | {"SWALR"} == page()["Schedulers"].keys()
    assert set(schedules.__all__) - {"Schedule"} == page()["Schedules"].keys()
    assert {name for name in init.__all__ if name.endswith("_")} == page()["Initialisers"].keys()


@pytest.mark.parametrize("title", SECTIONS)
def test_the_page_has_the_tables_names_and_figures_within_the_tests_bounds(title: str) -> None:
    assert list(page()[title]) == sorted(SECTIONS[title], key=str.lower), "run make parity"
    for name, cells in page()[title].items():
        figures = {column: float(cell) for column, cell in cells.items() if column != "cases" and cell != "–"}
        for column, figure in figures.items():
            bounds = [case.bound for case in SECTIONS[title][name] if case.dtype == column.split()[0]]
            assert 0 <= figure < max(bounds), (name, column)
        assert figures and int(cells["cases"]) > 0, name


def test_initialisers_are_on_the_page_with_what_chance_allows() -> None:
    drawn, exact = ({name for name, *_ in rows} for rows in (table_init.FILLS, table_init.EXACT))
    for name, cells in page()["Initialisers"].items():
        if name in drawn:
            assert float(cells["in errors"]) < table_init.MOMENT and float(cells["distance"]) < table_init.DISTANCE
        else:
            assert cells["moments"] == ("0" if name in exact else "–"), name


def test_a_difference_is_relative_to_the_largest_number_and_never_hides_one_that_is_not_finite() -> None:
    a, inf, nan = np.array([1.0, -4.0]), np.inf, np.nan
    assert difference(a, np.array([1.5, -4.0]), 0.01) == 0.5 / 4
    assert difference(a * 1e-3, a * 2e-3, 0.01) == pytest.approx(0.4)
    assert difference(np.array([inf, nan, 2.0]), np.array([inf, nan, 2.5]), 0.01) == 0.5 / 2.5
    for x, y in ((inf, 1.0), (1.0, inf), (nan, 1.0), (1.0, nan), (inf, -inf), (nan, inf)):
        assert difference(np.array([1.0, x]), np.array([1.0, y]), 0.01) == inf

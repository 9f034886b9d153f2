"""What is compared with PyTorch, and how far apart it may be: for the parity tests, and for docs/parity.md.

Nothing here imports torch: it is handed in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layer_cases import case_id, comparable_cases, condensed, loss_case_id, loss_cases
from layer_rows import Row, Sample
from loss_rows import LossRow
from slalom_results import as_input, made_layer, made_loss, run_layer, run_loss
from table_layers import LAYERS
from torch_reference import layer_results, loss_results

import slalom
from slalom.optim import schedules
from tests import optimizer_walks as walks
from tests import schedule_rows, table_optimizers, table_schedules

Array = np.ndarray[Any, Any]
Results = dict[str, Array]
DTYPES = ("float64", "float32")
REDUCTIONS = ("mean", "sum", "none")
STEPS = 100
"""Of each optimizer."""


def _golden(name: str) -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "golden" / f"{name}.json").read_text(encoding="utf-8"))


LAYERS_STORED, LOSSES_STORED = _golden("layers"), _golden("losses")
OPTIMIZERS_STORED, SCHEDULERS_STORED = _golden("optimizers"), _golden("schedulers")


@dataclass(frozen=True)
class Case:
    """``ours()`` and ``theirs(torch)``: what Slalom and PyTorch make of the same numbers, by name.

    Names of gradients end in ``.grad``. They may differ by ``atol`` plus ``rtol`` times each number, or times the
    largest one of the array if ``whole``. ``stored``: compares with what PyTorch once made of it, without PyTorch.
    ``alone``: ``theirs`` is a formula, and needs no PyTorch.
    """

    name: str
    id: str
    dtype: str
    ours: Callable[[], Results]
    theirs: Callable[[Any], Results]
    rtol: float
    atol: float
    whole: bool = False
    stored: Callable[[Results], None] | None = None
    alone: bool = False

    @property
    def bound(self) -> float:
        """Of ``differences``."""
        return max(self.rtol, self.atol)

    def check(self, found: Results, expected: Results) -> None:
        """Raises: AssertionError, where they differ by more."""
        assert found.keys() == expected.keys()
        for name, array in found.items():
            want = expected[name]
            assert array.dtype == want.dtype
            more = self.rtol * np.abs(want).max(initial=0) if self.whole else 0.0
            rtol = 0.0 if self.whole else self.rtol
            np.testing.assert_allclose(array, want, rtol=rtol, atol=self.atol + more, err_msg=name)

    def differences(self, found: Results, expected: Results) -> tuple[float, float | None]:
        """The worst relative difference of results, and of gradients (None: there are none)."""
        floor = self.atol / self.rtol if self.rtol else 1.0
        each = {name: difference(array, expected[name], floor) for name, array in found.items()}
        gradients = [each.pop(name) for name in list(each) if name.endswith(".grad")]
        return max(each.values()), max(gradients, default=None)


def difference(found: Array, expected: Array, floor: float) -> float:
    """max |a − b| / max |b|, where max |b| counts as ``floor`` if it is less; ∞ if only one is finite somewhere.

    A gradient that is 0 but for rounding (through a normalisation, say) has no relative error: hence the floor.
    """
    a, b = found.astype(np.float64), expected.astype(np.float64)
    apart = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    if not apart.any():
        return 0.0
    if not np.isfinite([a[apart], b[apart]]).all():
        return np.inf
    return float(np.abs(a[apart] - b[apart]).max() / max(np.abs(b[np.isfinite(b)]).max(), floor))


# --- layers and losses ------------------------------------------------------------------------------------------------
def _layer(row: Row, sample: Sample, mode: str, dtype: str) -> Results:
    return run_layer(made_layer(row, mode, dtype), as_input(row, sample, dtype))


def _condensed_as(expected: dict[str, float], found: Results) -> None:
    assert condensed(found) == pytest.approx(expected, rel=1e-10, abs=1e-11, nan_ok=True)


def layers(functions: bool) -> Iterator[Case]:
    """Every comparable sample of the layers, or of the functions."""
    for row, sample, mode in comparable_cases():
        if (row not in LAYERS) is functions:
            name = case_id(row, sample, mode)
            for dtype in DTYPES:
                rtol, atol = (1e-10, 1e-12) if dtype == "float64" else (2e-4, 2e-5)
                given = {"row": row, "sample": sample, "mode": mode, "dtype": dtype}
                stored = partial(_condensed_as, LAYERS_STORED[name]) if dtype == "float64" else None
                ours, theirs = partial(_layer, **given), partial(layer_results, **given)
                yield Case(row.name, f"{name}-{dtype}", dtype, ours, theirs, rtol, atol, stored=stored)


def _loss(row: LossRow, i: int, reduction: str, dtype: str) -> Results:
    return run_loss(row, i, *made_loss(row, i, reduction, dtype))


def losses() -> Iterator[Case]:
    for row, i in loss_cases():
        for reduction in REDUCTIONS:
            name = loss_case_id(row, i, reduction)
            for dtype in DTYPES:
                rtol, atol = (1e-10, 1e-12) if dtype == "float64" else (1e-4, 1e-5)
                given = {"row": row, "i": i, "reduction": reduction, "dtype": dtype}
                kept = dtype == "float64" and reduction != "sum"
                stored = partial(_condensed_as, LOSSES_STORED[name]) if kept else None
                ours, theirs = partial(_loss, **given), partial(loss_results, **given)
                yield Case(row.name, f"{name}-{dtype}", dtype, ours, theirs, rtol, atol, stored=stored)


# --- optimizers -------------------------------------------------------------------------------------------------------
def _by_step(walk: Iterable[Any]) -> Results:
    return {f"step {t}": np.concatenate([p.ravel() for p in params]) for t, params in enumerate(walk, 1)}


def _rule(lib: Any, row: table_optimizers.Row, options: Any, problem: str, steps: int) -> Results:
    task = table_optimizers.PROBLEMS[problem]
    return _by_step(params for _, params, _ in table_optimizers.walk(lib, row.name, options, task, steps))


def _paper(_torch: Any, row: table_optimizers.Row, options: Any, problem: str, steps: int) -> Results:
    return _by_step(table_optimizers.paper_walk(row, options, table_optimizers.PROBLEMS[problem], steps))


def _walked_as(expected: list[list[float]], tolerance: float, found: Results) -> None:
    table_optimizers.close([found[f"step {t}"] for t in table_optimizers.SEEN], expected, tolerance)


def rules() -> Iterator[Case]:
    """Walks of the rules beside PyTorch's, or, of those that it lacks, beside the formulas of their papers."""
    for name, (row, options, problem) in zip(table_optimizers.CASE_IDS, table_optimizers.CASES, strict=True):
        task = table_optimizers.PROBLEMS[problem]
        dtype, tolerance = str(task.start()[0].dtype), max(task.tolerance, row.tolerance)
        # Where a sign decides, float32 and the paper's float64 part in the end.
        steps = 30 if row.name == "Lion" and dtype == "float32" else STEPS
        given = {"row": row, "options": options, "problem": problem, "steps": steps}
        if row.reference is None:
            stored = partial(_walked_as, OPTIMIZERS_STORED[name], max(tolerance, 1e-8))
            walked = partial(_rule, **given)
            ours = partial(walked, slalom)
            yield Case(row.name, name, dtype, ours, walked, tolerance, tolerance, whole=True, stored=stored)
        else:
            ours, theirs = partial(_rule, slalom, **given), partial(_paper, **given)
            yield Case(row.name, name, dtype, ours, theirs, rtol=0.0, atol=max(tolerance, 1e-9), alone=True)


def _lbfgs(lib: Any, problem: str, options: Any, steps: int) -> Results:
    found = walks.lbfgs_walk(lib, problem, options, steps)
    rest = {"losses": np.array([step[0] for step in found]), "calls": np.array([step[2] for step in found])}
    return _by_step(params for _, params, _ in found) | rest


def lbfgs() -> Iterator[Case]:
    for problem, options, steps in walks.lbfgs_cases():
        walked = partial(_lbfgs, problem=problem, options=options, steps=steps)
        ours = partial(walked, slalom)
        yield Case("LBFGS", f"{options} on {problem}", "float64", ours, walked, rtol=1e-6, atol=1e-9)


def lookahead() -> Iterator[Case]:
    for rule in walks.INNER:
        for k, alpha in walks.LOOKS:

            def walked(lib: Any, rule: str = rule, k: int = k, alpha: float = alpha) -> Results:
                return _by_step(walks.lookahead_walk(rule, k, alpha, STEPS, lib=lib))

            ours = partial(walked, None)
            yield Case("Lookahead", f"{rule}, {k}, {alpha}", "float64", ours, walked, 1e-10, 1e-10, whole=True)


def optimizers() -> Iterator[Case]:
    for cases in (rules(), lbfgs(), lookahead()):
        yield from cases


# --- schedules --------------------------------------------------------------------------------------------------------
def _by_epoch(rates: Iterable[Any]) -> Results:
    return {f"epoch {epoch}": np.asarray(rate, np.float64) for epoch, rate in enumerate(rates)}


def _rates_as(expected: list[list[float]], found: Results) -> None:
    np.testing.assert_allclose(list(found.values())[schedule_rows.STORED], expected, rtol=1e-12, atol=1e-15)


def _formula_rates(_torch: Any, row: schedule_rows.Adapter, number: int) -> Results:
    factors = (row.ours(epoch, **row.samples[number]) for epoch in range(schedule_rows.EPOCHS))
    return _by_epoch([0.1 * factor, 0.5 * factor] for factor in factors)


def _rates(lib: Any, row: schedule_rows.Adapter, number: int) -> Results:
    return _by_epoch(schedule_rows.rates(lib, row, number))


def _swalr(lib: Any, options: Any) -> Results:
    return _by_epoch(walks.swalr_rates(lib, options))


def schedulers() -> Iterator[Case]:
    """Rates by PyTorch's class names."""
    exact = {"dtype": "float64", "rtol": 1e-12, "atol": 1e-15}
    for row in table_schedules.SCHEDULERS:
        for number in range(len(row.samples)):
            name, rates = f"{row.name} {number}", partial(_rates, row=row, number=number)
            ours = partial(rates, slalom)
            if row.ours is None:
                yield Case(row.name, name, ours=ours, theirs=rates, **exact,
                           stored=partial(_rates_as, SCHEDULERS_STORED[name]))  # fmt: skip
            else:
                theirs = partial(_formula_rates, row=row, number=number)
                yield Case(row.name, name, ours=ours, theirs=theirs, **exact, alone=True)
    for options in walks.SWALR_OPTIONS:
        rates = partial(_swalr, options=options)
        yield Case("SWALR", f"{options}", ours=partial(rates, slalom), theirs=rates, **exact)


def _values(row: schedule_rows.Row, numbers: Any) -> Results:
    return _by_epoch(map(getattr(schedules, row.name)(**numbers), range(schedule_rows.EPOCHS)))


def _formula(_torch: Any, row: schedule_rows.Row, numbers: Any) -> Results:
    return _by_epoch(row.formula(t, **numbers) for t in range(schedule_rows.EPOCHS))


def pure_schedules() -> Iterator[Case]:
    """Schedules as functions, beside their formulas."""
    for row in table_schedules.SCHEDULES:
        for numbers in row.samples:
            ours, theirs = (partial(of, row=row, numbers=numbers) for of in (_values, _formula))
            yield Case(row.name, f"{row.name}({numbers})", "float64", ours, theirs, 1e-12, 1e-15, alone=True)


SECTIONS: dict[str, Callable[[], Iterator[Case]]] = {
    "Layers": lambda: layers(functions=False),
    "Functions": lambda: layers(functions=True),
    "Losses": losses,
    "Optimizers": optimizers,
    "Schedulers": schedulers,
    "Schedules": pure_schedules,
}

"""What is compared with PyTorch, and how far apart it may be: for the parity tests, and for docs/parity.md.

Nothing here imports torch: it is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from layer_cases import case_id, comparable_cases, loss_case_id, loss_cases
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


@dataclass(frozen=True)
class Case:
    """``pair(torch)``: what Slalom and what PyTorch make of the same numbers, by name; of gradients it ends in .grad.

    They may differ by ``atol`` plus ``rtol`` times each number, or times the largest one of the array if ``whole``.
    """

    name: str
    id: str
    dtype: str
    pair: Callable[[Any], tuple[Results, Results]]
    rtol: float
    atol: float
    whole: bool = False

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
def _layer(torch: Any, row: Row, sample: Sample, mode: str, dtype: str) -> tuple[Results, Results]:
    found = run_layer(made_layer(row, mode, dtype), as_input(row, sample, dtype))
    return found, layer_results(torch, row, sample, mode, dtype)


def layers(functions: bool) -> Iterator[Case]:
    """Every comparable sample of the layers, or of the functions."""
    for row, sample, mode in comparable_cases():
        if (row not in LAYERS) is functions:
            for dtype in DTYPES:
                rtol, atol = (1e-10, 1e-12) if dtype == "float64" else (2e-4, 2e-5)
                pair = partial(_layer, row=row, sample=sample, mode=mode, dtype=dtype)
                yield Case(row.name, f"{case_id(row, sample, mode)}-{dtype}", dtype, pair, rtol, atol)


def _loss(torch: Any, row: LossRow, i: int, reduction: str, dtype: str) -> tuple[Results, Results]:
    found = run_loss(row, i, *made_loss(row, i, reduction, dtype))
    return found, loss_results(torch, row, i, reduction, dtype)


def losses() -> Iterator[Case]:
    for row, i in loss_cases():
        for reduction in REDUCTIONS:
            for dtype in DTYPES:
                rtol, atol = (1e-10, 1e-12) if dtype == "float64" else (1e-4, 1e-5)
                pair = partial(_loss, row=row, i=i, reduction=reduction, dtype=dtype)
                yield Case(row.name, f"{loss_case_id(row, i, reduction)}-{dtype}", dtype, pair, rtol, atol)


# --- optimizers -------------------------------------------------------------------------------------------------------
def _by_step(walk: Iterator[Any]) -> Results:
    return {f"step {t}": np.concatenate([p.ravel() for p in params]) for t, params in enumerate(walk, 1)}


def _rule(torch: Any, row: table_optimizers.Row, options: Any, problem: str, steps: int) -> tuple[Results, Results]:
    task = table_optimizers.PROBLEMS[problem]

    def walk(lib: Any) -> Iterator[Any]:
        return (params for _, params, _ in table_optimizers.walk(lib, row.name, options, task, steps))

    theirs = walk(torch) if row.reference is None else table_optimizers.paper_walk(row, options, task, steps)
    return _by_step(walk(slalom)), _by_step(theirs)


def _lbfgs(torch: Any, problem: str, options: Any, steps: int) -> tuple[Results, Results]:
    pair = []
    for lib in (slalom, torch):
        found = walks.lbfgs_walk(lib, problem, options, steps)
        pair.append(_by_step(iter([params for _, params, _ in found])))
        pair[-1] |= {"losses": np.array([step[0] for step in found]), "calls": np.array([step[2] for step in found])}
    return pair[0], pair[1]


def _lookahead(torch: Any, rule: str, k: int, alpha: float) -> tuple[Results, Results]:
    ours, theirs = (walks.lookahead_walk(rule, k, alpha, STEPS, lib=lib) for lib in (None, torch))
    return _by_step(ours), _by_step(theirs)


def rules(papers: bool) -> Iterator[Case]:
    """Walks of the optimizers that PyTorch has; or of those that it lacks, beside the formulas of their papers."""
    for name, (row, options, problem) in zip(table_optimizers.CASE_IDS, table_optimizers.CASES, strict=True):
        if (row.reference is not None) is papers:
            task = table_optimizers.PROBLEMS[problem]
            dtype = str(task.start()[0].dtype)
            # Where a sign decides, float32 and the paper's float64 part in the end.
            steps = 30 if row.name == "Lion" and dtype == "float32" else STEPS
            pair = partial(_rule, row=row, options=options, problem=problem, steps=steps)
            tolerance = max(task.tolerance, row.tolerance)
            if papers:
                yield Case(row.name, name, dtype, pair, rtol=0.0, atol=max(tolerance, 1e-9))
            else:
                yield Case(row.name, name, dtype, pair, rtol=tolerance, atol=tolerance, whole=True)


def lbfgs() -> Iterator[Case]:
    for problem, options, steps in walks.lbfgs_cases():
        pair = partial(_lbfgs, problem=problem, options=options, steps=steps)
        yield Case("LBFGS", f"{options} on {problem}", "float64", pair, rtol=1e-6, atol=1e-9)


def lookahead() -> Iterator[Case]:
    for rule in walks.INNER:
        for k, alpha in walks.LOOKS:
            pair = partial(_lookahead, rule=rule, k=k, alpha=alpha)
            yield Case("Lookahead", f"{rule}, {k}, {alpha}", "float64", pair, rtol=1e-10, atol=1e-10, whole=True)


def optimizers() -> Iterator[Case]:
    for cases in (rules(papers=False), rules(papers=True), lbfgs(), lookahead()):
        yield from cases


# --- schedules --------------------------------------------------------------------------------------------------------
def _by_epoch(rates: Any) -> Results:
    return {f"epoch {epoch}": np.asarray(rate, np.float64) for epoch, rate in enumerate(rates)}


def _scheduler(torch: Any, row: schedule_rows.Adapter, number: int) -> tuple[Results, Results]:
    found = schedule_rows.rates(slalom, row, number)
    return _by_epoch(found), _by_epoch(schedule_rows.expected_rates(torch, row, number))


def schedulers() -> Iterator[Case]:
    """Rates by PyTorch's class names."""
    for row in table_schedules.SCHEDULERS:
        for number in range(len(row.samples)):
            pair = partial(_scheduler, row=row, number=number)
            yield Case(row.name, f"{row.name} {number}", "float64", pair, rtol=1e-12, atol=1e-15)


def _swalr(torch: Any, options: Any) -> tuple[Results, Results]:
    return _by_epoch(walks.swalr_rates(slalom, options)), _by_epoch(walks.swalr_rates(torch, options))


def swalr() -> Iterator[Case]:
    for options in walks.SWALR_OPTIONS:
        yield Case("SWALR", f"{options}", "float64", partial(_swalr, options=options), rtol=1e-12, atol=1e-15)


def all_schedulers() -> Iterator[Case]:
    yield from schedulers()
    yield from swalr()


def _schedule(_torch: Any, row: schedule_rows.Row, numbers: Any) -> tuple[Results, Results]:
    schedule, epochs = getattr(schedules, row.name)(**numbers), range(schedule_rows.EPOCHS)
    return _by_epoch(map(schedule, epochs)), _by_epoch(row.formula(t, **numbers) for t in epochs)


def pure_schedules() -> Iterator[Case]:
    """Schedules as functions, beside their formulas."""
    for row in table_schedules.SCHEDULES:
        for numbers in row.samples:
            pair = partial(_schedule, row=row, numbers=numbers)
            yield Case(row.name, f"{row.name}({numbers})", "float64", pair, rtol=1e-12, atol=1e-15)


SECTIONS: dict[str, Callable[[], Iterator[Case]]] = {
    "Layers": lambda: layers(functions=False),
    "Functions": lambda: layers(functions=True),
    "Losses": losses,
    "Optimizers": optimizers,
    "Schedulers": all_schedulers,
    "Schedules": pure_schedules,
}

"""Every option of whatever has a row is given, with another value than its default, in a row of its table.

Options are read from signatures, and what rows give is recorded while they build: a new option fails here until a row
has it. Those that no row can have stand in EXCUSED with a reason, which fails when it is no longer true.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
from layer_rows import Row
from optimizer_walks import LBFGS_OPTIONS, LOOKS, SWALR_OPTIONS
from table_augment import AUGMENTATIONS
from table_layers import LAYERS
from table_losses import LOSSES

import slalom
from slalom import Tensor, nn, optim
from slalom.data import augment
from slalom.nn import init
from slalom.optim import lr_scheduler, schedules
from slalom.train.swa_utils import SWALR
from tests.schedule_rows import optimizer_for
from tests.table_init import EXACT, FILLS
from tests.table_optimizers import TABLE as OPTIMIZERS
from tests.table_schedules import SCHEDULERS, SCHEDULES

EXCUSED = {
    "device": "there is one, the CPU: below every layer takes it",
    "dtype": "rows are run in each dtype: below every layer takes it",
    "sparse": "refused, as the rows' bad constructions say: there are no sparse gradients",
    "generator": "its draws cannot be PyTorch's: test_init.py gives one to every function that takes one",
    "eps_inside_sqrt": "PyTorch has it not: test_optimizer_references.py compares it with the papers' formulas",
    "last_epoch": "needs an optimizer that was stopped: test_schedules.py resumes every scheduler by it",
    "FractionalMaxPool2d._random_samples": "in no state dict: rows give their draws to the layer's function",
    "FractionalMaxPool3d._random_samples": "in no state dict: rows give their draws to the layer's function",
    "ConvTranspose1d.padding_mode": "has but one value, as in PyTorch; a bad construction of its row says so",
    "ConvTranspose2d.padding_mode": "has but one value, as in PyTorch",
    "ConvTranspose3d.padding_mode": "has but one value, as in PyTorch",
}
"""Why an option, or that of one class, is in no row."""

Given = Iterator[tuple[Any, dict[str, Any]]]
"""What is called, and the arguments of a row by name."""


def options(called: Any) -> dict[str, Any]:
    """The default of each argument that has one."""
    return {p.name: p.default for p in inspect.signature(called).parameters.values() if p.default is not p.empty}


@contextmanager
def constructions(kind: type, **forced: Any) -> Iterator[list[dict[str, Any]]]:
    """The arguments of all that is made of a class meanwhile; those of ``forced`` are given besides."""
    init, own, signature = kind.__init__, "__init__" in vars(kind), inspect.signature(kind)
    made: list[dict[str, Any]] = []

    def recording(self: Any, *args: Any, **named: Any) -> None:
        named |= forced
        made.append(signature.bind(*args, **named).arguments)
        init(self, *args, **named)

    kind.__init__ = recording  # type: ignore[misc]
    try:
        yield made
    finally:
        if own:
            kind.__init__ = init  # type: ignore[misc]
        else:
            del kind.__init__


def built(kind: type, *builds: Callable[[], Any]) -> Given:
    """What these functions make of a class."""
    with constructions(kind) as made:
        for build in builds:
            build()
    yield from ((kind, arguments) for arguments in made)


def _layers() -> Given:
    for row in LAYERS:
        yield from built(getattr(nn, row.name), partial(row.build, nn))


def _losses() -> Given:
    for row in LOSSES:
        weights = [Tensor(np.ones(shape)) for shape in row.weights]
        for reduction in ("mean", "sum"):
            yield from built(getattr(nn, row.name), partial(row.build, nn, reduction, *weights))


def _optimizers() -> Given:
    yield from ((getattr(optim, row.name), sample) for row in OPTIMIZERS for sample in row.samples)
    yield from ((optim.LBFGS, sample) for sample in LBFGS_OPTIONS)
    yield from ((optim.Lookahead, {"k": k, "alpha": alpha}) for k, alpha in LOOKS)


def _schedules() -> Given:
    yield from ((getattr(schedules, row.name), sample) for row in SCHEDULES for sample in row.samples)


def _schedulers() -> Given:
    for row in SCHEDULERS:
        for number, sample in enumerate(row.samples):
            held = optimizer_for(slalom, row, number)
            yield from built(getattr(lr_scheduler, row.name), partial(row.build, slalom, held, sample))
    yield from ((SWALR, sample) for sample in SWALR_OPTIONS)


def _initialisers() -> Given:
    yield from ((getattr(init, name), given) for name, _, given in (*FILLS, *EXACT))


def _augmentations() -> Given:
    for row in AUGMENTATIONS:
        makes = (row.make, row.still, *(make for make, _ in row.exact))
        yield from built(getattr(augment, row.name), *(partial(make, augment) for make in makes if make))


TABLES: dict[str, Callable[[], Given]] = {
    "layers": _layers,
    "losses": _losses,
    "optimizers": _optimizers,
    "schedules": _schedules,
    "schedulers": _schedulers,
    "initialisers": _initialisers,
    "augmentations": _augmentations,
}


def other(value: Any, default: Any) -> bool:
    """Whether it is another value, and not the default by another name (as 0 is of 0.0)."""
    plain = bool, int, float, str, tuple, list, type(None)
    return value is not default and not (isinstance(value, plain) and value == default)


def not_given(given: Iterable[tuple[Any, dict[str, Any]]]) -> set[str]:
    """Options, as "Class.option", that no row gives."""
    missing: dict[str, set[str]] = {}
    for called, arguments in given:
        defaults = options(called)
        left = missing.setdefault(called.__name__, set(defaults))
        left -= {name for name, value in arguments.items() if name in defaults and other(value, defaults[name])}
    return {f"{name}.{option}" for name, left in missing.items() for option in left}


def excuses(missing: str) -> set[str]:
    """Those that hold for an option."""
    return {missing, missing.partition(".")[2]} & EXCUSED.keys()


@pytest.mark.parametrize("table", TABLES)
def test_every_option_is_in_a_row(table: str) -> None:
    missing = not_given(TABLES[table]())
    assert sorted(option for option in missing if not excuses(option)) == []


def test_every_excuse_is_needed() -> None:
    missing = set().union(*(not_given(given()) for given in TABLES.values()))
    assert set().union(*map(excuses, missing)) == EXCUSED.keys()


def test_what_is_not_given_is_found() -> None:
    """The test of the tests: defaults count for nothing, under whatever name and wherever they stand."""
    rows = [lambda: nn.Linear(2, 3, True), lambda: nn.Sequential(nn.Linear(2, 3, dtype=None))]
    assert not_given(built(nn.Linear, *rows)) == {"Linear.bias", "Linear.device", "Linear.dtype"}
    assert not_given(built(nn.Linear, *rows, lambda: nn.Linear(2, 3, False))) == {"Linear.device", "Linear.dtype"}
    assert not_given(built(nn.Dropout, lambda: nn.Dropout(p=0.5, inplace=0))) == {"Dropout.p", "Dropout.inplace"}
    assert nn.Linear.__init__.__name__ == "__init__"


PLACED = {row.name: row for row in reversed(LAYERS) if row.state and "dtype" in options(getattr(nn, row.name))}.values()
"""The first row of each layer that holds something."""


@pytest.mark.parametrize("row", PLACED, ids=lambda row: row.name)
def test_layers_are_made_where_and_of_what_dtype_they_are_told(row: Row) -> None:
    kind = getattr(nn, row.name)
    with constructions(kind, device="cpu", dtype=slalom.float64) as made:
        layer = row.build(nn)
    kinds = [t.dtype for t in layer.state_dict().values() if t.dtype.kind == "f"]
    assert made and all(dtype == np.float64 for dtype in kinds)
    with constructions(kind, device="cuda"), pytest.raises(slalom.errors.SlalomError, match=r"device: got .*cuda"):
        row.build(nn)

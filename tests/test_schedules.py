"""Every schedule and scheduler of the tables: values, traced rates, parity with PyTorch, resume, errors."""

from __future__ import annotations

import copy
import inspect
import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import slalom
from slalom.errors import ConfigError, ModelFileError, StagingError
from slalom.optim import SGD, Adam, Optimizer, lr_scheduler, schedules
from slalom.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR, LinearLR, LRScheduler, StepLR
from tests.schedule_rows import Adapter, Row, optimizer_for
from tests.table_schedules import SCHEDULERS, SCHEDULES

GOLDEN = json.loads((Path(__file__).parent / "golden" / "schedulers.json").read_text(encoding="utf-8"))
each_schedule = pytest.mark.parametrize(
    ("row", "numbers"), [(row, numbers) for row in SCHEDULES for numbers in row.samples]
)
each_scheduler = pytest.mark.parametrize(
    ("row", "number"), [(row, i) for row in SCHEDULERS for i in range(len(row.samples))]
)
TIMES = (0, 1, 2, 3, 4.5, 5, 7, 9, 10, 12, 19, 20, 24, 100, 3999, 4000, 4001)


def make(row: Row, numbers: dict[str, Any]) -> schedules.Schedule:
    return getattr(schedules, row.name)(**numbers)


def optimizer(*rates: float) -> SGD:
    given = [{"params": [slalom.tensor([0.0], requires_grad=True)], "lr": rate} for rate in rates]
    return SGD(given)


# --- schedules ----------------------------------------------------------------------------------------------------
def test_every_schedule_has_a_row_and_every_row_a_name() -> None:
    assert {row.name for row in SCHEDULES} == set(schedules.__all__) - {"Schedule"}
    assert {row.name for row in SCHEDULERS} == set(lr_scheduler.__all__) - {"LRScheduler"}
    assert all(len(row.samples) >= 6 and row.wrong for row in (*SCHEDULES, *SCHEDULERS))


@each_schedule
def test_is_what_its_formula_says(row: Row, numbers: dict[str, Any]) -> None:
    schedule = make(row, numbers)
    for t in TIMES:
        value = schedule(t)
        assert isinstance(value, float | int)
        assert value == pytest.approx(row.formula(t, **numbers), rel=1e-12, abs=1e-15), f"t = {t}"


@each_schedule
def test_takes_tensors_and_may_be_compiled(row: Row, numbers: dict[str, Any]) -> None:
    schedule = make(row, numbers)
    compiled = slalom.compile(schedule)
    for t in TIMES:
        given = slalom.tensor(float(t), dtype=slalom.float64)
        for value in (schedule(given), compiled(given)):
            assert value.dtype == np.float64 and value.shape == ()
            assert value.item() == pytest.approx(schedule(t), rel=1e-14, abs=1e-15), f"t = {t}"
    assert compiled.traces == 1


@each_schedule
def test_prints_compares_and_pickles_as_what_it_is(row: Row, numbers: dict[str, Any]) -> None:
    schedule = make(row, numbers)
    assert eval(repr(schedule), vars(schedules)) == schedule
    assert pickle.loads(pickle.dumps(schedule)) == schedule == copy.deepcopy(schedule)
    assert hash(schedule) == hash(make(row, numbers))
    assert len({make(row, other) for other in row.samples}) == len(row.samples)
    np.testing.assert_array_equal(schedule.values(12), [schedule(t) for t in range(12)])


@pytest.mark.parametrize("row", SCHEDULES, ids=lambda row: row.name)
def test_wrong_numbers_are_named(row: Row) -> None:
    for numbers, words in row.wrong:
        with pytest.raises(ConfigError) as caught:
            make(row, numbers)
        assert f"{row.name}: " in str(caught.value) and words in str(caught.value)
    with pytest.raises(TypeError, match="unexpected"):
        getattr(schedules, row.name)(**row.samples[0], nonsense=1)


# --- schedulers ---------------------------------------------------------------------------------------------------
@each_scheduler
def test_goes_on_from_a_saved_state(row: Adapter, number: int) -> None:
    options = row.samples[number]
    first = optimizer_for(slalom, row, number)
    scheduler = row.build(slalom, first, options)
    for epoch in range(7):
        scheduler.step(*row.arguments(epoch))
    again = optimizer_for(slalom, row, number)
    again.param_groups[0]["lr"] = 3.0
    resumed = row.build(slalom, again, options)
    resumed.load_state_dict(json.loads(json.dumps(scheduler.state_dict())))
    again.load_state_dict(first.state_dict())
    assert resumed.get_last_lr() == scheduler.get_last_lr()
    walking = [scheduler, resumed]
    if "last_epoch" in inspect.signature(type(scheduler)).parameters and row.name != "SequentialLR":
        # PyTorch's other way: from the optimizer's state and the number of the last epoch.
        third = optimizer_for(slalom, row, number)
        third.load_state_dict(first.state_dict())
        walking.append(row.build(slalom, third, options, last_epoch=scheduler.last_epoch - 1))
    for epoch in range(7, 40):
        for other in walking:
            other.step(*row.arguments(epoch))
        assert all(other.get_last_lr() == scheduler.get_last_lr() for other in walking)


@pytest.mark.parametrize("row", SCHEDULERS, ids=lambda row: row.name)
def test_wrong_options_are_named(row: Adapter) -> None:
    for options, words in row.wrong:
        with pytest.raises(ConfigError) as caught:
            row.build(slalom, optimizer(0.1, 0.1), options)
        assert words in str(caught.value)
    if isinstance(row.samples[0], dict):
        with pytest.raises(ConfigError, match=f"{row.name}"):
            row.build(slalom, [0.1], row.samples[0])


def test_two_schedulers_on_one_optimizer_multiply_as_in_pytorch() -> None:
    torch = pytest.importorskip("torch")

    def walk(lib: Any) -> list[float]:
        held = lib.optim.SGD([lib.tensor([0.0], requires_grad=True)], lr=0.3)
        names = lib.optim.lr_scheduler
        both = [
            names.LinearLR(held, start_factor=0.25, total_iters=4),
            names.ExponentialLR(held, gamma=0.9),
            names.StepLR(held, step_size=3, gamma=0.5),
        ]
        found = []
        for _ in range(12):
            found.append(held.param_groups[0]["lr"])
            held.step()
            for scheduler in both:
                scheduler.step()
        return found

    assert walk(slalom) == pytest.approx(walk(torch), rel=1e-12)


def test_restarts_may_be_asked_for_within_an_epoch() -> None:
    torch = pytest.importorskip("torch")

    def walk(lib: Any, mult: int) -> list[float]:
        held = lib.optim.SGD([lib.tensor([0.0], requires_grad=True)], lr=0.3)
        scheduler = lib.optim.lr_scheduler.CosineAnnealingWarmRestarts(held, 3, mult, eta_min=0.01)
        found = []
        for epoch in [*np.arange(0, 30, 0.25).tolist(), 7, None, None, 2.5, None]:
            scheduler.step(*([] if epoch is None else [epoch]))
            found.append(held.param_groups[0]["lr"])
        return found

    for mult in (1, 2):
        assert walk(slalom, mult)[:121] == pytest.approx(walk(torch, mult)[:121], rel=1e-12)
    scheduler = lr_scheduler.CosineAnnealingWarmRestarts(optimizer(0.3), 3)
    scheduler.step(2.5)
    scheduler.step()
    assert scheduler.last_epoch == 3 and scheduler.get_last_lr() == [0.3]
    with pytest.raises(ConfigError, match="epoch: got -1"):
        scheduler.step(-1)


def test_joined_schedulers_may_be_joined_again() -> None:
    held = optimizer(0.8)
    inner = lr_scheduler.SequentialLR(
        held, [lr_scheduler.ConstantLR(held, 0.5, 9), lr_scheduler.ExponentialLR(held, 0.5)], [2]
    )
    chained = lr_scheduler.ChainedScheduler([lr_scheduler.ConstantLR(held, 0.25, 2), ExponentialLR(held, 0.5)])
    scheduler = lr_scheduler.SequentialLR(held, [lr_scheduler.ConstantLR(held, 1.0), inner, chained], [1, 5])
    found = []
    for _ in range(9):
        found.append(scheduler.get_last_lr()[0])
        assert found[-1] == held.param_groups[0]["lr"]
        scheduler.step()
    assert found == [0.8, 0.4, 0.4, 0.8, 0.4, 0.2, 0.1, 0.2, 0.1]


def test_one_cycle_ends_and_says_so() -> None:
    scheduler = lr_scheduler.OneCycleLR(optimizer(0.1), max_lr=1.0, total_steps=5, cycle_momentum=False)
    for _ in range(5):
        scheduler.step()
    assert scheduler.get_last_lr() == pytest.approx([1 / 25 / 1e4])
    with pytest.raises(ConfigError, match="step: got number 6; needed at most 5"):
        scheduler.step()


class Plain(Optimizer):
    """An optimizer without momentum."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1})


@pytest.mark.parametrize(
    "make", [lambda held: lr_scheduler.OneCycleLR(held, 1.0, 9), lambda held: lr_scheduler.CyclicLR(held, 0.1, 1.0)]
)
def test_an_optimizer_without_momentum_is_refused(make: Any) -> None:
    with pytest.raises(ConfigError, match="optimizer: got Plain, which has no momentum; needed 'momentum' or 'betas'"):
        make(Plain([slalom.tensor([0.0], requires_grad=True)]))


def test_a_compiled_step_sees_the_momentum() -> None:
    def walk(staged: bool) -> list[float]:
        w = slalom.tensor([0.0], dtype="float64", requires_grad=True)
        held = SGD([w], lr=1.0)
        scheduler = lr_scheduler.OneCycleLR(held, max_lr=0.1, total_steps=20)

        def step() -> None:
            held.zero_grad()
            ((w - 3) ** 2).sum().backward()
            held.step()

        run = slalom.compile(step) if staged else step
        found = []
        for _ in range(20):
            run()
            scheduler.step()
            found.append(w.item())
        assert not staged or run.traces == 1
        return found

    assert walk(True) == pytest.approx(walk(False), rel=1e-14)


def test_a_plateau_reaches_a_rate_that_is_a_tensor() -> None:
    rate = slalom.tensor(0.5, dtype=slalom.float64)
    scheduler = lr_scheduler.ReduceLROnPlateau(SGD([slalom.tensor([0.0], requires_grad=True)], lr=rate), patience=0)
    for loss in (slalom.tensor(1.0), 2.0):
        scheduler.step(loss)
    assert rate.item() == pytest.approx(0.05) and scheduler.get_last_lr() == [rate.item()]


def test_a_rate_set_by_hand_is_scaled_on() -> None:
    held = optimizer(0.1)
    scheduler = ExponentialLR(held, gamma=0.5)
    scheduler.step()
    held.param_groups[0]["lr"] = 0.8
    scheduler.step()
    assert scheduler.get_last_lr() == [0.4]


def test_a_schedule_is_a_factor_for_each_group() -> None:
    held = optimizer(0.1, 0.5)
    scheduler = LambdaLR(held, schedules.cosine(steps=10, warmup=2))
    found = []
    for _ in range(4):
        found.append(scheduler.get_last_lr())
        scheduler.step()
    factors = [0.0, 0.5, 1.0, (1 + math.cos(math.pi / 8)) / 2]
    assert found == [pytest.approx([0.1 * f, 0.5 * f]) for f in factors]


def test_a_scheduler_of_ones_own() -> None:
    class Halved(LRScheduler):
        def rate(self, base: float, epoch: int) -> float:
            return base / 2**epoch

    class Sawtooth(LRScheduler):
        def get_lr(self) -> list[float]:
            return [base * (1 + self.last_epoch % 2) for base in self.base_lrs]

    for kind, expected in ((Halved, [0.8, 0.4, 0.2]), (Sawtooth, [0.8, 1.6, 0.8])):
        scheduler = kind(optimizer(0.8))
        found = [scheduler.get_last_lr()[0]]
        for _ in range(2):
            scheduler.step()
            found.append(scheduler.get_last_lr()[0])
        assert found == expected
    with pytest.raises(NotImplementedError, match="rate"):
        LRScheduler(optimizer(0.1))


def test_continuing_needs_what_the_first_run_left() -> None:
    with pytest.raises(ConfigError, match="initial_lr"):
        ExponentialLR(optimizer(0.1), gamma=0.9, last_epoch=3)
    state = StepLR(optimizer(0.1, 0.2), 2).state_dict()
    with pytest.raises(ModelFileError, match="2 groups; needed 1"):
        StepLR(optimizer(0.1), 2).load_state_dict(state)


def test_a_rate_that_is_a_tensor_is_written_in_place() -> None:
    rate = slalom.tensor(0.5, dtype=slalom.float64)
    held = Adam([slalom.tensor([0.0], requires_grad=True)], lr=rate)
    scheduler = LinearLR(held, total_iters=2)
    scheduler.step()
    assert held.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.5 * 2 / 3)


def test_a_compiled_step_sees_the_rate_and_is_recorded_once() -> None:
    w = slalom.tensor([0.0], requires_grad=True)
    held = SGD([w], lr=1.0)
    scheduler = CosineAnnealingLR(held, T_max=4)

    @slalom.compile
    def step() -> None:
        held.zero_grad()
        w.sum().backward()
        held.step()

    seen = []
    for _ in range(5):
        before = w.item()
        step()
        seen.append(before - w.item())
        scheduler.step()
    assert seen == pytest.approx([(1 + math.cos(math.pi * t / 4)) / 2 for t in range(5)], abs=1e-6)
    assert step.traces == 1


def test_a_scheduler_inside_a_compiled_function_is_an_error_with_the_users_line() -> None:
    scheduler = ExponentialLR(optimizer(0.1), gamma=0.9)

    @slalom.compile
    def step() -> None:
        scheduler.step()

    with pytest.raises(StagingError, match=r"ExponentialLR\.step\(\) while staging, at .*test_schedules\.py:\d+"):
        step()
    assert scheduler.get_last_lr() == [0.1]

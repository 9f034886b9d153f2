"""THE tables of schedules and schedulers: one row each. What is tested of every row stands in test_schedules.py."""

from __future__ import annotations

import math

from slalom.optim import schedules as S
from tests import schedule_rows as formulas
from tests.schedule_rows import Adapter, Row, another_optimizer


def _warmup_stable_decay(
    t: float, steps: float, warmup: float, decay: float, start: float = 1, end: float = 0, anneal: str = "linear"
) -> float:
    if t < steps - decay:
        return start if t >= warmup else start * t / warmup
    left = max(steps - t, 0) / decay
    fallen = {"linear": 1 - left, "cos": math.cos(math.pi / 2 * left) ** 2, "sqrt": math.sqrt(1 - left)}
    return start + (end - start) * fallen[anneal]


LINE, FALL = S.linear(steps=10, start=0.2, end=1.0), S.exponential(base=0.5, steps=4)

SCHEDULES = (
    Row(
        "linear",
        formulas.linear,
        (
            {"steps": 10},
            {"steps": 10, "start": 0.1, "end": 0.01},
            {"steps": 1},
            {"steps": 7.5},
            {"steps": 3, "end": 2.0},
            {"steps": 4, "start": 0.0, "end": 1.0},
        ),
        (
            ({"steps": 0}, "linear: steps: got 0; needed a finite number above 0"),
            ({"steps": 3, "end": -1}, "end: got -1"),
            ({"steps": "3"}, "steps: got 3"),
            ({"steps": math.inf}, "steps: got inf"),
            ({"steps": True}, "steps: got True"),
        ),
    ),
    Row(
        "power",
        lambda t, steps, exponent=-0.5, start=1: start * math.exp(exponent * math.log1p(t / steps)),
        (
            {"steps": 10},
            {"steps": 10, "exponent": -0.5, "start": 0.1},
            {"steps": 1, "exponent": -1},
            {"steps": 2, "exponent": 0},
            {"steps": 3, "exponent": 1.5},
            {"steps": 1000, "exponent": -2, "start": 3.0},
        ),
        (({"steps": -0.5}, "steps: got -0.5"), ({"steps": 1, "exponent": math.nan}, "exponent: got nan")),
    ),
    Row(
        "exponential",
        lambda t, base, steps=1, start=1: (
            start * math.exp(t / steps * math.log(base)) if base else float(start * (t == 0))
        ),
        (
            {"base": 0.9},
            {"base": 0.5, "steps": 10, "start": 0.1},
            {"base": 1.0},
            {"base": 1.05, "steps": 2},
            {"base": 0.0},
            {"base": 0.97, "steps": 2.4, "start": 0.256},
        ),
        (({"base": -1}, "base: got -1"), ({"base": 0.9, "steps": 0}, "steps: got 0")),
    ),
    Row(
        "staircase",
        lambda t, every, base=0.1, start=1: start * math.prod([base] * int(t // every)),
        (
            {"every": 10},
            {"every": 3, "base": 0.5},
            {"every": 1, "base": 0.9, "start": 0.1},
            {"every": 30},
            {"every": 2.5},
            {"every": 5, "base": 2.0},
        ),
        (({"every": 0}, "every: got 0"), ({"every": 1, "base": -0.1}, "base: got -0.1")),
    ),
    Row(
        "cosine",
        formulas.cosine,
        (
            {"steps": 10},
            {"steps": 20, "warmup": 5},
            {"steps": 20, "warmup": 5, "start": 0.1, "end": 0.001},
            {"steps": 1},
            {"steps": 12, "warmup": 0.5},
            {"steps": 11, "start": 3.0, "end": 3.0},
        ),
        (
            ({"steps": 5, "warmup": 5}, "cosine: warmup: got 5, with 5 steps"),
            ({"steps": 5, "warmup": -1}, "warmup: got -1"),
        ),
    ),
    Row(
        "inverse_sqrt",
        lambda t, warmup, scale=1: scale * (t / warmup**1.5 if t <= warmup else 1 / math.sqrt(t)),
        (
            {"warmup": 4},
            {"warmup": 1},
            {"warmup": 4000, "scale": 512**-0.5},
            {"warmup": 10, "scale": 0.0},
            {"warmup": 7.5},
            {"warmup": 100, "scale": 2},
        ),
        (({"warmup": 0}, "warmup: got 0"), ({"warmup": 4, "scale": -1}, "scale: got -1")),
    ),
    Row(
        "constant",
        lambda t, steps=0, factor=1 / 3, start=1: start * factor if t < steps else start,
        (
            {},
            {"steps": 5},
            {"steps": 4.5, "factor": 0.1, "start": 0.3},
            {"steps": 10, "factor": 2.0},
            {"steps": 3, "factor": 0.0},
            {"start": 0.01},
        ),
        (({"steps": -1}, "steps: got -1"), ({"factor": -0.5}, "factor: got -0.5")),
    ),
    Row(
        "polynomial",
        lambda t, steps, exponent=1.0, start=1, end=0: (
            end if t >= steps else end + (start - end) * math.exp(exponent * math.log1p(-t / steps))
        ),
        (
            {"steps": 10},
            {"steps": 10, "exponent": 2},
            {"steps": 24, "exponent": 0.5, "start": 0.3},
            {"steps": 7.5, "exponent": 3, "start": 0.1, "end": 0.2},
            {"steps": 5000, "exponent": 0.9},
            {"steps": 12, "end": 1.0},
        ),
        (({"steps": 0}, "steps: got 0"), ({"steps": 3, "exponent": -1}, "exponent: got -1")),
    ),
    Row(
        "multi_step",
        lambda t, milestones, base=0.1, start=1: start * math.prod([base for m in milestones if t >= m]),
        (
            {"milestones": (4, 9)},
            {"milestones": (), "start": 0.3},
            {"milestones": (0, 4.5, 4.5, 12), "base": 0.5},
            {"milestones": (3999, 4000), "base": 0.9, "start": 0.1},
            {"milestones": (2,), "base": 0.0},
            {"milestones": (1, 2, 3, 5, 7), "base": 2.0},
        ),
        (
            ({"milestones": (4, 2)}, "milestones: got (4, 2); needed ascending numbers of at least 0"),
            ({"milestones": 4}, "milestones: got 4"),
            ({"milestones": (-1, 2)}, "milestones: got (-1, 2)"),
            ({"milestones": (2,), "base": -1}, "base: got -1"),
        ),
    ),
    Row(
        "flat_cosine",
        lambda t, steps, flat, start=1, end=0: (
            start if t < flat else formulas.cosine(t - flat, steps - flat, 0, start, end)
        ),
        (
            {"steps": 20, "flat": 15},
            {"steps": 20, "flat": 0},
            {"steps": 12, "flat": 4.5, "start": 0.1, "end": 0.01},
            {"steps": 4000, "flat": 3000},
            {"steps": 1, "flat": 0.5},
            {"steps": 10, "flat": 2, "end": 3.0},
        ),
        (
            ({"steps": 5, "flat": 5}, "flat_cosine: flat: got 5, with 5 steps"),
            ({"steps": 5, "flat": -1}, "flat: got -1"),
        ),
    ),
    Row(
        "warmup_stable_decay",
        _warmup_stable_decay,
        (
            {"steps": 20, "warmup": 5, "decay": 8},
            {"steps": 20, "warmup": 0, "decay": 20, "anneal": "cos"},
            {"steps": 4000, "warmup": 10, "decay": 800, "anneal": "sqrt", "start": 0.1, "end": 0.001},
            {"steps": 12, "warmup": 4.5, "decay": 7.5, "anneal": "sqrt"},
            {"steps": 24, "warmup": 2, "decay": 0.5, "end": 3.0},
            {"steps": 10, "warmup": 0.5, "decay": 6, "anneal": "cos", "end": 0.1},
        ),
        (
            ({"steps": 5, "warmup": 2, "decay": 4}, "decay: got 4 after a warmup of 2, with 5 steps; needed no more"),
            ({"steps": 5, "warmup": 2, "decay": 0}, "decay: got 0; needed a finite number above 0"),
            ({"steps": 5, "warmup": -1, "decay": 2}, "warmup: got -1"),
            ({"steps": 5, "warmup": 1, "decay": 2, "anneal": "exp"}, "anneal: got exp; needed one of 'linear', 'cos'"),
        ),
    ),
    Row(
        "cosine_restarts",
        formulas.restarts,
        (
            {"period": 10},
            {"period": 5, "mult": 2},
            {"period": 1, "mult": 2, "start": 0.1, "end": 0.001},
            {"period": 3, "mult": 3},
            {"period": 2.5},
            {"period": 4, "mult": 1.5, "end": 0.1},
        ),
        (({"period": 0}, "period: got 0"), ({"period": 2, "mult": 0.5}, "mult: got 0.5; needed a finite number of at")),
    ),
    Row(
        "coslog",
        lambda t, steps, cycles=4, start=1: (
            start * math.sin(math.pi * math.log2(1 + (2**cycles - 1) * min(t, steps) / steps)) ** 2
        ),
        (
            {"steps": 20},
            {"steps": 4000},
            {"steps": 10, "cycles": 1},
            {"steps": 24, "cycles": 2, "start": 0.04},
            {"steps": 100, "cycles": 2.5},
            {"steps": 7.5, "cycles": 3},
        ),
        (({"steps": 0}, "steps: got 0"), ({"steps": 3, "cycles": 0}, "cycles: got 0")),
    ),
    Row(
        "cyclic",
        formulas.cyclic,
        (
            {"up": 5},
            {"up": 2, "down": 7, "low": 0.1, "high": 0.5},
            {"up": 3, "mode": "triangular2", "low": 0.01},
            {"up": 2.5, "down": 1, "mode": "exp_range", "gamma": 0.9},
            {"up": 1000, "mode": "exp_range", "gamma": 0.999, "high": 3.0},
            {"up": 4, "down": 4, "low": 1.0, "high": 0.0},
        ),
        (
            ({"up": 0}, "up: got 0"),
            ({"up": 1, "down": 0}, "down: got 0; needed a finite number above 0, or None"),
            ({"up": 1, "mode": "square"}, "mode: got square; needed one of 'triangular', 'triangular2', 'exp_range'"),
        ),
    ),
    Row(
        "one_cycle",
        formulas.one_cycle,
        (
            {"steps": 20},
            {"steps": 4001, "peak": 0.1},
            {"steps": 25, "anneal": "linear", "pct_start": 0.5},
            {"steps": 20, "three_phase": True},
            {"steps": 24, "three_phase": True, "anneal": "linear", "div_factor": 10, "final_div_factor": 2.0},
            {"steps": 10, "pct_start": 0.1, "div_factor": 4},
        ),
        (
            ({"steps": 0.5}, "steps: got 0.5"),
            ({"steps": 5, "pct_start": 1.5}, "pct_start: got 1.5; needed a number from 0 to 1"),
            ({"steps": 5, "anneal": "exp"}, "anneal: got exp; needed one of 'cos', 'linear'"),
            ({"steps": 5, "three_phase": 1}, "three_phase: got 1; needed True or False"),
        ),
    ),
    Row(
        "product",
        lambda t, schedules: math.prod(each(t) for each in schedules),
        (
            {"schedules": (LINE,)},
            {"schedules": (LINE, FALL)},
            {"schedules": (FALL, FALL, LINE)},
            {"schedules": (LINE, S.cosine(steps=12))},
            {"schedules": (S.multi_step((3, 9)), LINE)},
            {"schedules": (S.product((LINE, FALL)), FALL)},
        ),
        (
            ({"schedules": ()}, "schedules: got (); needed a list of schedules"),
            ({"schedules": (math.sqrt,)}, "schedules: got"),
        ),
    ),
    Row(
        "sequence",
        formulas.sequence,
        (
            {"schedules": (LINE,), "milestones": ()},
            {"schedules": (LINE, FALL), "milestones": (5,)},
            {"schedules": (FALL, LINE, FALL), "milestones": (4.5, 12)},
            {"schedules": (LINE, S.power(steps=10)), "milestones": (19,)},
            {"schedules": (FALL, S.coslog(steps=100)), "milestones": (3999,)},
            {"schedules": (LINE, LINE), "milestones": (0,)},
        ),
        (
            ({"schedules": (LINE, FALL), "milestones": ()}, "milestones: got (), with 2 schedules; needed one fewer"),
            ({"schedules": (LINE, FALL), "milestones": (-2,)}, "milestones: got (-2,)"),
        ),
    ),
)

SCHEDULERS = (
    Adapter(
        "ExponentialLR",
        ({"gamma": 0.9}, {"gamma": 0.5}, {"gamma": 1.0}, {"gamma": 0.999}, {"gamma": 1.05}, {"gamma": 0.1}),
        (({"gamma": -0.9}, "base: got -0.9"), ({"gamma": "slow"}, "base: got slow")),
    ),
    Adapter(
        "StepLR",
        (
            {"step_size": 5},
            {"step_size": 1},
            {"step_size": 10, "gamma": 0.5},
            {"step_size": 3, "gamma": 1.0},
            {"step_size": 100},
            {"step_size": 2, "gamma": 0.9},
        ),
        (({"step_size": 0}, "every: got 0"), ({"step_size": 2, "gamma": -1}, "base: got -1")),
    ),
    Adapter(
        "LinearLR",
        (
            {},
            {"total_iters": 10},
            {"start_factor": 0.1, "total_iters": 1},
            {"start_factor": 1.0, "end_factor": 0.0},
            {"start_factor": 0.5, "end_factor": 0.25, "total_iters": 8},
            {"total_iters": 100},
        ),
        (({"total_iters": 0}, "steps: got 0"), ({"start_factor": -1.0}, "start: got -1")),
    ),
    Adapter(
        "CosineAnnealingLR",
        (
            {"T_max": 10},
            {"T_max": 10, "eta_min": 0.01},
            {"T_max": 3},
            {"T_max": 25},
            {"T_max": 7, "eta_min": 0.001},
            {"T_max": 50},
        ),
        (({"T_max": 0}, "T_max: got 0"), ({"T_max": -3}, "T_max: got -3")),
    ),
    Adapter(
        "LambdaLR",
        (
            {"lr_lambda": lambda e: 0.9**e},
            {"lr_lambda": lambda e: 1 / (1 + e)},
            {"lr_lambda": lambda e: 1.0},
            {"lr_lambda": lambda e: float(e % 2)},
            {"lr_lambda": [lambda e: 0.5**e, lambda e: 1.0]},
            {"lr_lambda": lambda e: max(0.0, 1 - e / 10)},
        ),
        (({"lr_lambda": [lambda e: 1.0]}, "lr_lambda"), ({"lr_lambda": 0.9}, "lr_lambda: got 0.9")),
    ),
    Adapter(
        "MultiplicativeLR",
        (
            {"lr_lambda": lambda e: 0.95},
            {"lr_lambda": lambda e: 1 / (1 + e) + 0.5},
            {"lr_lambda": [lambda e: 0.9, lambda e: 1.01]},
            {"lr_lambda": lambda e: 1.0},
            {"lr_lambda": lambda e: 0.0 if e == 50 else 0.99},
            {"lr_lambda": [lambda e: 0.5 if e % 10 == 0 else 1.0] * 2},
        ),
        (({"lr_lambda": [lambda e: 1.0] * 3}, "MultiplicativeLR: lr_lambda"), ({"lr_lambda": 1}, "lr_lambda: got 1")),
    ),
    Adapter(
        "MultiStepLR",
        (
            {"milestones": [30, 80]},
            {"milestones": [3, 3, 7], "gamma": 0.5},
            {"milestones": [], "gamma": 0.5},
            {"milestones": [80, 30], "gamma": 0.9},
            {"milestones": range(10, 100, 10), "gamma": 0.7},
            {"milestones": [1, 2], "gamma": 2.0},
        ),
        (({"milestones": [-2]}, "milestones: got [-2]"), ({"milestones": [2], "gamma": -1}, "base: got -1")),
    ),
    Adapter(
        "ConstantLR",
        (
            {},
            {"factor": 0.5, "total_iters": 10},
            {"factor": 1.0},
            {"factor": 0.1, "total_iters": 1},
            {"factor": 0.25, "total_iters": 99},
            {"total_iters": 200},
        ),
        (({"factor": -1.0}, "factor: got -1"), ({"total_iters": -1}, "steps: got -1")),
    ),
    Adapter(
        "PolynomialLR",
        (
            {},
            {"total_iters": 50, "power": 2.0},
            {"total_iters": 100, "power": 0.5},
            {"total_iters": 30, "power": 1.0},
            {"total_iters": 1, "power": 3.0},
            {"total_iters": 200, "power": 0.9},
        ),
        (({"total_iters": 0}, "steps: got 0"), ({"power": -1.0}, "exponent: got -1")),
    ),
    Adapter(
        "CosineAnnealingWarmRestarts",
        (
            {"T_0": 10},
            {"T_0": 10, "T_mult": 2},
            {"T_0": 3, "T_mult": 3, "eta_min": 0.001},
            {"T_0": 1},
            {"T_0": 1, "T_mult": 2},
            {"T_0": 7, "eta_min": 0.05},
        ),
        (
            ({"T_0": 0}, "T_0: got 0; needed an integer of at least 1"),
            ({"T_0": 2.5}, "T_0: got 2.5"),
            ({"T_0": 2, "T_mult": 0}, "T_mult: got 0"),
        ),
    ),
    Adapter(
        "OneCycleLR",
        (
            {"max_lr": 0.3, "total_steps": 100},
            {"max_lr": [0.3, 1.0], "epochs": 10, "steps_per_epoch": 12},
            {"max_lr": 0.1, "total_steps": 110, "anneal_strategy": "linear", "pct_start": 0.5},
            {"max_lr": 0.3, "total_steps": 100, "three_phase": True, "base_momentum": 0.5, "max_momentum": 0.9},
            {"max_lr": 0.3, "total_steps": 150, "three_phase": True, "anneal_strategy": "linear", "div_factor": 10.0},
            {"max_lr": 1.0, "total_steps": 100, "cycle_momentum": False, "final_div_factor": 10.0},
            {"max_lr": 0.2, "total_steps": 120, "base_momentum": [0.8, 0.9], "max_momentum": [0.95, 0.9]},
        ),
        (
            ({"max_lr": 0.1}, "epochs: got None; needed an integer of at least 1. Hint: give total_steps, or epochs"),
            ({"max_lr": 0.1, "total_steps": 2.5}, "total_steps: got 2.5"),
            ({"max_lr": [0.1], "total_steps": 5}, "max_lr: got 1 of them; needed one number, or one for each of 2"),
            ({"max_lr": 0.1, "total_steps": 5, "anneal_strategy": "exp"}, "anneal: got exp"),
            ({"max_lr": 0.1, "total_steps": 5, "pct_start": 2.0}, "pct_start: got 2.0"),
        ),
        momentum=True,
    ),
    Adapter(
        "CyclicLR",
        (
            {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 10},
            {"base_lr": [0.01, 0.2], "max_lr": [0.1, 0.3], "step_size_up": 5, "step_size_down": 15},
            {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 7, "mode": "triangular2"},
            {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 8, "mode": "exp_range", "gamma": 0.97},
            {"base_lr": 0.01, "max_lr": 0.1, "cycle_momentum": False},
            {"base_lr": 0.1, "max_lr": 0.4, "step_size_up": 3, "base_momentum": 0.6, "max_momentum": 0.95},
            {"base_lr": 0.1, "max_lr": 0.4, "step_size_up": 6, "scale_fn": lambda x: 1 / (5 ** (x * 0.1))},
            {
                "base_lr": 0.1,
                "max_lr": 0.4,
                "step_size_up": 6,
                "scale_fn": lambda x: 0.9**x,
                "scale_mode": "iterations",
            },
        ),
        (
            ({"base_lr": 0.1, "max_lr": 0.2, "mode": "square"}, "mode: got 'square'"),
            ({"base_lr": 0.1, "max_lr": 0.2, "scale_mode": "epochs"}, "scale_mode: got 'epochs'"),
            ({"base_lr": 0.1, "max_lr": 0.2, "step_size_up": 0}, "step_size_up: got 0"),
            ({"base_lr": 0.1, "max_lr": [0.2]}, "max_lr: got 1 of them"),
        ),
        momentum=True,
    ),
    Adapter(
        "ChainedScheduler",
        (
            lambda names, held: {"schedulers": [names.ConstantLR(held, 0.1, 3), names.ExponentialLR(held, 0.9)]},
            lambda names, held: {
                "schedulers": [names.LinearLR(held, total_iters=20), names.StepLR(held, 15, 0.5)],
                "optimizer": held,
            },
            lambda names, held: {"schedulers": [names.ExponentialLR(held, 0.98)]},
            lambda names, held: {
                "schedulers": [names.CosineAnnealingLR(held, 120, eta_min=0.01), names.ConstantLR(held)]
            },
            lambda names, held: {
                "schedulers": [names.MultiStepLR(held, [5, 40]), names.MultiplicativeLR(held, lambda e: 0.99)]
            },
            lambda names, held: {"schedulers": [names.LinearLR(held), names.LambdaLR(held, lambda e: 1 / (1 + e))]},
        ),
        (
            ({"schedulers": []}, "ChainedScheduler: schedulers: got none"),
            (
                lambda names, held: {"schedulers": [names.ReduceLROnPlateau(held)]},
                "scheduler 0: got ReduceLROnPlateau; needed a scheduler whose step() needs no metric",
            ),
            (
                lambda names, held: {"schedulers": [names.ConstantLR(held), names.ConstantLR(another_optimizer())]},
                "scheduler 1: got another optimizer",
            ),
        ),
    ),
    Adapter(
        "SequentialLR",
        (
            lambda names, held: {
                "schedulers": [names.ConstantLR(held, 0.1, 20), names.ExponentialLR(held, 0.9)],
                "milestones": [20],
            },
            lambda names, held: {
                "schedulers": [names.LinearLR(held, 0.01, total_iters=5), names.CosineAnnealingLR(held, 95)],
                "milestones": [5],
            },
            lambda names, held: {
                "schedulers": [names.StepLR(held, 2), names.LambdaLR(held, lambda e: 0.9**e), names.PolynomialLR(held)],
                "milestones": [10, 30],
            },
            lambda names, held: {"schedulers": [names.ExponentialLR(held, 0.9)], "milestones": []},
            lambda names, held: {
                "schedulers": [names.LinearLR(held), names.CosineAnnealingWarmRestarts(held, 5, 2)],
                "milestones": [8],
            },
            lambda names, held: {
                "schedulers": [names.LinearLR(held, total_iters=7), names.MultiplicativeLR(held, lambda e: 0.9)],
                "milestones": [4],
            },
        ),
        (
            (
                lambda names, held: {"schedulers": [names.ConstantLR(held)] * 2, "milestones": []},
                "milestones: got []; needed 1 ascending epochs, one fewer than schedulers",
            ),
            (
                lambda names, held: {"schedulers": [names.ConstantLR(held)] * 3, "milestones": [5, 2]},
                "milestones: got [5, 2]",
            ),
            (
                lambda names, held: {"schedulers": [names.ConstantLR(held)], "milestones": [], "last_epoch": 3},
                "last_epoch: got 3",
            ),
        ),
    ),
    Adapter(
        "ReduceLROnPlateau",
        (
            {},
            {"mode": "max", "factor": 0.5, "patience": 2},
            {"factor": 0.5, "patience": 3, "threshold": 0.05, "cooldown": 4},
            {"mode": "max", "factor": 0.7, "patience": 0, "threshold": 0.01, "threshold_mode": "abs"},
            {"factor": 0.1, "patience": 1, "min_lr": [0.001, 0.2], "threshold_mode": "abs"},
            {"factor": 0.5, "patience": 0, "min_lr": 1e-3, "eps": 0.01, "cooldown": 1},
        ),
        (
            ({"factor": 1.0}, "factor: got 1.0"),
            ({"mode": "auto"}, "mode: got 'auto'"),
            ({"threshold_mode": "ratio"}, "threshold_mode: got 'ratio'"),
            ({"min_lr": [0.1]}, "min_lr: got 1 of them"),
        ),
        metric=True,
    ),
    Adapter(
        "InverseSqrtLR",
        ({"warmup": 4}, {"warmup": 1}, {"warmup": 10}, {"warmup": 50}, {"warmup": 200}, {"warmup": 2}),
        (({"warmup": 0}, "warmup: got 0"), ({"warmup": -2}, "warmup: got -2")),
        ours=lambda e, warmup: e / warmup if e < warmup else math.sqrt(warmup / e),
    ),
)

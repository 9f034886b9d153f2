"""The course's worked examples of gradient descent, optimizers and schedules, to the digits that its slides print."""

from __future__ import annotations

import math
from typing import Any

import pytest

import slalom
from slalom import optim, tensor
from slalom.optim import SGD, Adagrad, Adam, AdamW, RMSprop, schedules
from slalom.optim.lr_scheduler import ExponentialLR


def descend(
    make: Any, steps: int, start: float = 15.0, gradient: Any = None, dtype: Any = slalom.float64
) -> list[float]:
    """w after each step on f = (w − 10)², or along a given gradient (a function of w and the step)."""
    w = tensor(start, dtype=dtype, requires_grad=True)
    optimizer = make([w])
    found = []
    for t in range(steps):
        optimizer.zero_grad()
        if gradient is None:
            ((w - 10) ** 2).backward()
        else:
            w.grad = tensor(gradient(w.item(), t), dtype=dtype)
        optimizer.step()
        found.append(w.item())
    return found


def test_one_weight_by_hand() -> None:
    # f(x) = w·x for the target 10·x at x = 1: the gradient is 2·(w − 10).
    w, x = tensor(15.0, dtype=slalom.float64, requires_grad=True), 1.0
    losses, gradients, weights = [], [], [w.item()]
    for _ in range(5):
        loss = (w * x - 10 * x) ** 2
        loss.backward()
        losses.append(loss.item())
        gradients.append(w.grad.item())
        with slalom.no_grad():
            w -= 0.1 * w.grad
        w.grad = None
        weights.append(w.item())
    assert gradients[:2] == pytest.approx([10, 8])
    assert losses[:4] == pytest.approx([25, 16, 10.24, 6.5536])
    assert weights == pytest.approx([15, 14, 13.2, 12.56, 12.048, 11.6384])
    assert weights == pytest.approx([10 + 5 * 0.8**k for k in range(6)])
    assert descend(lambda p: SGD(p, lr=0.1), 5) == pytest.approx(weights[1:])


TRACES = {
    "SGD": (lambda p: SGD(p, lr=0.1), [14, 13.2, 12.56, 12.048]),
    "momentum": (lambda p: SGD(p, lr=0.1, momentum=0.9), [14, 12.3, 10.31, 8.457]),
    "Nesterov": (lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True), [13.1, 11.112, 9.45824, 8.3758848]),
    "Adagrad": (lambda p: Adagrad(p, lr=0.1), [14.9, 14.83000714, 14.77321848, 14.72427786]),
    "RMSprop": (lambda p: RMSprop(p, lr=0.1), [14.00000001, 13.37339165, 12.90433212, 12.52825514]),
    "RMSprop, 0.9": (lambda p: RMSprop(p, lr=0.1, alpha=0.9), [14.68377223, 14.46158461, 14.27928873, 14.12005438]),
    "Adam": (lambda p: Adam(p, lr=0.1), [14.9, 14.80005776, 14.70021329, 14.60050767]),
    "Adam, 0.99": (lambda p: Adam(p, lr=0.1, betas=(0.9, 0.99)), [14.9, 14.80005319, 14.70019644, 14.60046760]),
    "AdamW": (lambda p: AdamW(p, lr=0.1, weight_decay=0.01), [14.885, 14.77018241, 14.65559399, 14.54128284]),
    "Adam, L2": (lambda p: Adam(p, lr=0.1, weight_decay=0.01), [14.9, 14.80005713, 14.70021097, 14.60050210]),
}


@pytest.mark.parametrize("name", TRACES)
def test_traces_on_a_parabola(name: str) -> None:
    make, expected = TRACES[name]
    assert descend(make, 4) == pytest.approx(expected, abs=6e-9)


def test_momentum_descends_where_the_misprinted_sign_climbs() -> None:
    # v = γ·v − α·g; w = w − v, as one slide has it, goes 15, 16, 18.1, 21.61.
    w, v, wrong = 15.0, 0.0, []
    for _ in range(3):
        v = 0.9 * v - 0.1 * 2 * (w - 10)
        w -= v
        wrong.append(w)
    assert wrong == pytest.approx([16, 18.1, 21.61])
    assert descend(TRACES["momentum"][0], 3) == pytest.approx([14, 12.3, 10.31])


def test_momentum_makes_the_rate_ten_times_as_large() -> None:
    found = descend(lambda p: SGD(p, lr=0.01, momentum=0.9), 100, start=0.0, gradient=lambda w, t: 1.0)
    assert (found[98] - found[99]) / 0.01 == pytest.approx(9.99973, abs=6e-6)


def test_the_rate_multiplies_the_velocity_as_in_pytorch() -> None:
    # v ← μ·v − η·g; w ← w + v would go on with the old rate in its velocity: the two differ once η changes.
    w = tensor(0.0, dtype=slalom.float64, requires_grad=True)
    optimizer = SGD([w], lr=1.0, momentum=0.5)
    for rate in (1.0, 0.1):
        optimizer.param_groups[0]["lr"] = rate
        w.grad = tensor(1.0, dtype=slalom.float64)
        optimizer.step()
    assert w.item() == pytest.approx(-1 - 0.1 * 1.5)
    assert w.item() != pytest.approx(-1 - (0.5 * 1.0 + 0.1))


@pytest.mark.parametrize("gradient", [1e3, 1.0, -1e-3, -1e3])
def test_the_first_step_of_adam_is_the_rate_times_the_sign(gradient: float) -> None:
    (first,) = descend(lambda p: Adam(p, lr=0.1), 1, start=0.0, gradient=lambda w, t: gradient)
    assert first == pytest.approx(-math.copysign(0.1, gradient), rel=1e-4)


def test_epsilon_stands_outside_the_root_unless_asked_otherwise() -> None:
    # g = 1e-5 and ε = 1e-8: the first step is 0.9990 of the rate outside, 0.0995 inside.
    outside, inside = (
        -descend(lambda p, i=i: Adam(p, lr=1.0, eps_inside_sqrt=i), 1, start=0.0, gradient=lambda w, t: 1e-5)[0]
        for i in (False, True)
    )
    assert (outside, inside) == (pytest.approx(0.9990, abs=1e-4), pytest.approx(0.0995, abs=1e-4))


@pytest.mark.parametrize("centered", [False, True])
def test_epsilon_of_rmsprop_may_stand_inside_the_root_too(centered: bool) -> None:
    g, eps, share = 0.01, 1e-3, 0.01
    for inside in (False, True):
        (first,) = descend(
            lambda p, i=inside: RMSprop(p, lr=1.0, eps=eps, centered=centered, eps_inside_sqrt=i),
            1,
            start=0.0,
            gradient=lambda w, t: g,
        )
        variance = share * g**2 - (share * g) ** 2 * centered
        assert -first == pytest.approx(g / (math.sqrt(variance + eps) if inside else math.sqrt(variance) + eps))


def test_a_variance_that_rounding_leaves_below_zero_counts_as_zero() -> None:
    w = tensor([0.0] * 64, requires_grad=True)
    optimizer = RMSprop([w], centered=True)
    for _ in range(1500):
        w.grad = slalom.linspace(-2, 2, 64)
        optimizer.step()
    assert bool(w.isfinite().all())


def test_the_rate_of_adagrad_falls_and_that_of_rmsprop_does_not() -> None:
    steps = {}
    for make in (lambda p: Adagrad(p, lr=0.1), lambda p: RMSprop(p, lr=0.1)):
        found = descend(make, 1000, start=0.0, gradient=lambda w, t: 1.0)
        steps[len(steps)] = found[998] - found[999]
    assert steps[0] == pytest.approx(0.1 / math.sqrt(1000))
    assert steps[1] == pytest.approx(0.1, rel=1e-4)


def test_running_means_stay_finite() -> None:
    # Code printed as `r += α·r + (1 − α)·g²` has r = 6e57 after 200 steps with g = 1; it is 1 − 0.99²⁰⁰ = 0.866.
    w = tensor(0.0, dtype=slalom.float64, requires_grad=True)
    optimizer = Adam([w], betas=(0.9, 0.99))
    for _ in range(200):
        w.grad = tensor(1.0, dtype=slalom.float64)
        optimizer.step()
    assert optimizer.state[w]["exp_avg_sq"].item() == pytest.approx(0.866, abs=1e-4)
    assert optimizer.state[w]["exp_avg"].item() == pytest.approx(1)


def test_steps_are_counted_from_one() -> None:
    # With t = 0 at the first step the correction would divide by 1 − β⁰ = 0.
    (first,) = descend(lambda p: Adam(p, lr=0.1), 1)
    assert math.isfinite(first)
    w = tensor(1.0, requires_grad=True)
    optimizer = Adam([w])
    w.grad = tensor(1.0)
    optimizer.step()
    assert optimizer.state[w]["step"].item() == 1


def test_the_calls_of_the_slides_work() -> None:
    model = slalom.nn.Linear(2, 1)
    for make in (
        lambda p: optim.SGD(p, lr=1e-3),
        lambda p: optim.SGD(p, lr=0.01, momentum=0.9),
        lambda p: optim.Adagrad(p, lr=0.01, eps=1e-10),
        lambda p: optim.RMSprop(p, lr=0.01, alpha=0.99, eps=1e-8),
        lambda p: optim.Adam(p, lr=0.001, betas=(0.9, 0.99), eps=1e-8),
        lambda p: optim.AdamW(p, lr=0.001, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.01),
    ):
        optimizer = make(model.parameters())
        before = model.weight.detach().clone()
        model(tensor([[1.0, 2.0]])).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert model.weight.grad is None
        assert not bool((model.weight == before).any())


def test_momentum_leaves_a_flat_spot() -> None:
    # A velocity outlasts a gradient that is 0: 1, then flat.
    plain, heavy = (
        descend(lambda p, m=m: SGD(p, lr=0.1, momentum=m), 3, start=0.0, gradient=lambda w, t: float(t == 0))
        for m in (0.0, 0.9)
    )
    assert plain == pytest.approx([-0.1, -0.1, -0.1])
    assert heavy == pytest.approx([-0.1, -0.19, -0.271])


def test_momentum_damps_the_canyon() -> None:
    # f = (x² + 50·y²)/2 at a rate where plain descent swings across the canyon and creeps along it.
    ends = []
    for momentum in (0.0, 0.8):
        w = tensor([10.0, 1.0], requires_grad=True)
        optimizer = SGD([w], lr=0.039, momentum=momentum)
        for _ in range(60):
            optimizer.zero_grad()
            (w * w * tensor([0.5, 25.0])).sum().backward()
            optimizer.step()
        ends.append((w * w).sum().sqrt().item())
    assert ends[1] < 0.1 * ends[0]


# --- schedules ----------------------------------------------------------------------------------------------------
def test_linear_schedule() -> None:
    schedule = schedules.linear(steps=10, start=0.1, end=0.01)
    assert (schedule(0), schedule(5), schedule(10), schedule(99)) == pytest.approx((0.1, 0.055, 0.01, 0.01))


def test_power_schedule() -> None:
    schedule = schedules.power(steps=10, exponent=-0.5, start=0.1)
    assert (schedule(10), schedule(30)) == pytest.approx((0.070711, 0.05), abs=5e-7)


def test_exponential_schedule() -> None:
    schedule = schedules.exponential(base=0.5, steps=10, start=0.1)
    assert [schedule(t) for t in (0, 10, 20)] == pytest.approx([0.1, 0.05, 0.025])


def test_exponential_scheduler() -> None:
    scheduler = ExponentialLR(SGD([tensor(0.0, requires_grad=True)], lr=0.01), gamma=0.9)
    rates = scheduler.get_last_lr()
    for _ in range(10):
        scheduler.step()
        rates += scheduler.get_last_lr()
    assert (rates[1], rates[2], rates[10]) == pytest.approx((0.009, 0.0081, 0.003486784), abs=5e-10)


def test_decay_by_epochs_is_a_power() -> None:
    schedule = schedules.power(steps=1 / 3, exponent=-1, start=0.1)
    assert [schedule(t) for t in range(5)] == pytest.approx([0.1 / (1 + 3 * t) for t in range(5)])


def test_schedule_of_the_transformer() -> None:
    schedule = schedules.inverse_sqrt(warmup=4000, scale=512**-0.5)
    rates = [schedule(t) for t in range(1, 20_000)]
    assert max(rates) == rates[3999] == pytest.approx(6.987712e-4, rel=1e-7)
    for t in (1, 100, 4000, 19_999):
        assert rates[t - 1] == pytest.approx(512**-0.5 * min(t**-0.5, t * 4000**-1.5))

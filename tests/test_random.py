"""Random numbers: pure functions of (seed, stream, draw, element), the same eager and staged, rightly distributed."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import slalom
from slalom import Tensor, tensor
from slalom.core import kernels
from slalom.core.random import Generator, default_generator
from slalom.errors import ConfigError, ShapeError, SlalomError

DRAWS: dict[str, Callable[[Generator], Tensor]] = {
    "rand": lambda g: slalom.rand(5, 3, generator=g),
    "rand float64": lambda g: slalom.rand(5, 3, generator=g, dtype="float64"),
    "randn": lambda g: slalom.randn(7, generator=g),
    "randn float64": lambda g: slalom.randn(7, generator=g, dtype="float64"),
    "rand_like": lambda g: slalom.rand_like(slalom.zeros(4), generator=g),
    "randn_like": lambda g: slalom.randn_like(slalom.zeros(4, dtype="float64"), generator=g),
    "normal": lambda g: slalom.normal(5.0, 2.0, (6,), generator=g),
    "normal of tensors": lambda g: slalom.normal(tensor([0.0, 100.0]), tensor([1.0, 5.0]), generator=g),
    "randint": lambda g: slalom.randint(-5, 5, (9,), generator=g),
    "bernoulli": lambda g: slalom.bernoulli(tensor([0.1, 0.5, 0.9]), generator=g),
    "uniform_": lambda g: slalom.zeros(3).uniform_(-1.0, 1.0, generator=g),
    "normal_": lambda g: slalom.zeros(3).normal_(1.0, 2.0, generator=g),
    "bernoulli_": lambda g: slalom.zeros(30).bernoulli_(0.3, generator=g),
    "a scalar": lambda g: slalom.rand((), generator=g),
    "nothing": lambda g: slalom.rand(0, 3, generator=g),
}


# --- the same numbers ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", DRAWS)
def test_eager_and_staged_draw_the_same(name: str) -> None:
    draw = DRAWS[name]
    eager, staged = Generator(11), Generator(11)
    step = slalom.compile(lambda: draw(staged))
    for _ in range(3):
        expected = draw(eager)
        found = step()
        assert found.dtype == expected.dtype and found.tolist() == expected.tolist()
        assert eager.state.tolist() == staged.state.tolist()
    assert eager.state.tolist()[2] == 3
    assert step.traces == 1
    draw(staged)  # eager again, from where the record has left
    assert staged.state.tolist() == [11, 0, 4]


@pytest.mark.parametrize("name", [name for name in DRAWS if name != "nothing"])
def test_a_seed_determines_the_numbers(name: str) -> None:
    draw = DRAWS[name]
    g = Generator(5)
    first = [draw(g).tolist() for _ in range(20)]
    g.manual_seed(5)
    assert [draw(g).tolist() for _ in range(20)] == first
    g.manual_seed(6)
    assert [draw(g).tolist() for _ in range(20)] != first


def test_the_bits_are_philoxs() -> None:
    words = Generator(seed=0x1234567_89ABCDEF, stream=3).bits((5,)).numpy()
    blocks = kernels.philox((0x89ABCDEF, 0x01234567), (np.arange(2), 3, 0, 0))
    assert words.tolist() == blocks.reshape(-1)[:5].tolist()


def test_elements_do_not_depend_on_the_shape() -> None:
    long, square = (slalom.rand(*shape, generator=Generator(1)) for shape in ((100,), (3, 3)))
    assert square.reshape(-1).tolist() == long[:9].tolist()


def test_known_numbers_stay() -> None:
    """A change here changes everybody's results."""
    slalom.manual_seed(0)
    assert slalom.rand(2).tolist() == [0.3990464210510254, 0.8805201649665833]
    assert slalom.randn(1, dtype="float64").tolist() == pytest.approx([1.124003475491597], rel=1e-14)
    assert slalom.randint(1000, (2,)).tolist() == [24, 148]
    assert slalom.randperm(5).tolist() == [2, 4, 3, 1, 0]


# --- streams and states -------------------------------------------------------------------------------------------
def test_streams_and_seeds_are_independent() -> None:
    columns = [
        slalom.rand(20_000, generator=Generator(s, stream), dtype="float64").numpy()
        for s in (0, 1)
        for stream in (0, 1, 2)
    ]
    columns += [slalom.rand(20_000, generator=g, dtype="float64").numpy() for g in [Generator(0)] for _ in range(2)][1:]
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlation).max() < 5 / math.sqrt(20_000)


def test_manual_seed_keeps_the_stream() -> None:
    g = Generator(1, stream=4)
    g.bits((3,))
    assert g.manual_seed(9).state.tolist() == [9, 4, 0]
    g.set(1, 2, 3)
    assert repr(g) == "Generator(seed=1, stream=2, draw=3)"


def test_states_are_saved_and_restored() -> None:
    slalom.manual_seed(3)
    slalom.rand(5)
    saved = slalom.get_rng_state()
    first = [slalom.rand(3).tolist() for _ in range(2)]
    slalom.set_rng_state(saved)
    assert [slalom.rand(3).tolist() for _ in range(2)] == first
    assert saved.tolist() == [3, 0, 1]  # a copy
    g = Generator(0)
    g.set_state(saved)
    assert slalom.rand(3, generator=g).tolist() == first[0]


def test_the_default_generator() -> None:
    assert slalom.manual_seed(42) is default_generator and slalom.initial_seed() == 42
    expected = slalom.rand(3, generator=Generator(42)).tolist()
    assert slalom.rand(3).tolist() == expected
    one, other = slalom.seed(), slalom.seed()
    assert one != other == slalom.initial_seed()


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1, np.int32(7)])
def test_seeds_of_64_bits(seed: int) -> None:
    assert Generator(seed).initial_seed() == seed
    assert Generator(seed).bits((4,)).tolist() != Generator(int(seed) ^ 1).bits((4,)).tolist()


def test_negative_seeds_count_from_the_end() -> None:
    assert Generator(-1).initial_seed() == 2**64 - 1
    assert Generator(-1).bits((4,)).tolist() == Generator(2**64 - 1).bits((4,)).tolist()


def test_drawing_needs_no_grad_mode_and_leaves_it() -> None:
    w = tensor([2.0], requires_grad=True)
    (w * slalom.rand(1)).sum().backward()
    assert w.grad is not None and not slalom.rand(1).requires_grad and slalom.is_grad_enabled()
    assert slalom.rand(2, requires_grad=True).requires_grad and slalom.randn(2, requires_grad=True).is_leaf


# --- distributions ------------------------------------------------------------------------------------------------
N = 200_000
SIX = 6 / math.sqrt(N)  # six standard errors of a mean of N values of variance 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_uniform_moments_and_range(dtype: str) -> None:
    u = slalom.rand(N, generator=Generator(1), dtype=dtype).numpy()
    assert u.dtype == dtype and u.min() >= 0 and u.max() < 1
    moments = [np.mean(u.astype(np.float64) ** k) for k in (1, 2, 3, 4)]
    assert moments == pytest.approx([1 / 2, 1 / 3, 1 / 4, 1 / 5], abs=SIX / 3)
    counts = np.bincount((u * 100).astype(int), minlength=100)
    assert ((counts - N / 100) ** 2 / (N / 100)).sum() < 99 + 6 * math.sqrt(2 * 99)  # χ² with 99 degrees of freedom


def test_float32_has_24_bits_and_float64_53() -> None:
    single = slalom.rand(N, generator=Generator(2)).numpy().astype(np.float64) * 2**24
    assert (single == np.floor(single)).all()
    double = slalom.rand(N, generator=Generator(2), dtype="float64").numpy() * 2**53
    whole = double.astype(np.uint64)
    assert (whole == double).all()
    for bit in range(53):  # each is set half of the time
        assert np.mean(whole >> np.uint64(bit) & np.uint64(1)) == pytest.approx(0.5, abs=SIX / 2)
    assert len(np.unique(whole)) == N


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normal_moments_and_tails(dtype: str) -> None:
    z = slalom.randn(N, generator=Generator(3), dtype=dtype).numpy().astype(np.float64)
    assert np.isfinite(z).all()
    found = [np.mean(z**k) for k in (1, 2, 3, 4)]
    deviations = [1, math.sqrt(2), math.sqrt(15), math.sqrt(96)]
    for value, wanted, deviation in zip(found, [0, 1, 0, 3], deviations, strict=True):
        assert value == pytest.approx(wanted, abs=SIX * deviation)
    for bound in (1.0, 2.0, 3.0):
        share = math.erfc(bound / math.sqrt(2))
        assert np.mean(np.abs(z) > bound) == pytest.approx(share, abs=SIX * math.sqrt(share))
    assert 4 < np.abs(z).max() < 6.5
    assert np.corrcoef(z[:-1], z[1:])[0, 1] == pytest.approx(0, abs=SIX)


def test_normal_with_mean_and_deviation() -> None:
    z = slalom.normal(tensor([10.0]).expand(N), 3.0, generator=Generator(4)).numpy()
    assert (z.mean(), z.std()) == pytest.approx((10.0, 3.0), abs=0.05)
    x = slalom.zeros(N).normal_(-2.0, 0.5, generator=Generator(4)).numpy()
    assert (x.mean(), x.std()) == pytest.approx((-2.0, 0.5), abs=0.01)


def test_uniform_in_place() -> None:
    x = slalom.zeros(N).uniform_(-3.0, 5.0, generator=Generator(5)).numpy()
    assert -3 <= x.min() < -2.99 and 4.99 < x.max() <= 5


@pytest.mark.parametrize(("low", "high"), [(0, 2), (-3, 4), (0, 1), (10, 17)])
def test_randint_bounds_and_shares(low: int, high: int) -> None:
    k = slalom.randint(low, high, (N,), generator=Generator(6)).numpy()
    assert k.dtype == np.int64
    values, counts = np.unique(k, return_counts=True)
    assert values.tolist() == list(range(low, high))
    assert counts / N == pytest.approx(np.full(high - low, 1 / (high - low)), abs=SIX / 2)


def test_randint_of_wide_ranges() -> None:
    k = slalom.randint(-(2**52), 2**52, (1000,), generator=Generator(7)).numpy()
    assert k.min() < -(2**51) and k.max() > 2**51 and len(np.unique(k)) == 1000
    assert (
        slalom.randint(5, size=(3,), generator=Generator(7)).tolist()
        == slalom.randint(5, (3,), generator=Generator(7)).tolist()
    )


def test_bernoulli() -> None:
    p = tensor([0.0, 0.25, 1.0]).expand(N, 3)
    share = slalom.bernoulli(p, generator=Generator(8)).mean(0).tolist()
    assert share == pytest.approx([0, 0.25, 1], abs=SIX / 2)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 64, 1000])
def test_randperm_is_a_permutation(n: int) -> None:
    g = Generator(9)
    orders = [slalom.randperm(n, generator=g).tolist() for _ in range(5)]
    assert all(sorted(order) == list(range(n)) for order in orders)
    if n > 7:
        assert len({tuple(order) for order in orders}) == 5


def test_randperm_is_fair() -> None:
    g = Generator(10)
    counts = np.zeros((4, 4))
    for _ in range(2400):
        for place, value in enumerate(slalom.randperm(4, generator=g).tolist()):
            counts[place, value] += 1
    assert np.abs(counts - 600).max() < 6 * math.sqrt(600)


# --- threads ------------------------------------------------------------------------------------------------------
def test_threads_never_get_the_same_numbers() -> None:
    g, drawn = Generator(12), []

    def work() -> None:
        for _ in range(200):
            drawn.append(tuple(slalom.rand(4, generator=g).tolist()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # without the lock, about a hundred draws would be the same
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(usual)
    assert len(drawn) == len(set(drawn)) == 800
    assert g.state.tolist() == [12, 0, 800]
    alone = Generator(12)
    assert set(drawn) == {tuple(slalom.rand(4, generator=alone).tolist()) for _ in range(800)}


# --- mistakes -----------------------------------------------------------------------------------------------------
MISTAKES: dict[str, tuple[Callable[[], Any], type[SlalomError], str]] = {
    "seed": (lambda: slalom.manual_seed("one"), ConfigError, "seed: got 'one'"),  # type: ignore[arg-type]
    "a fraction": (lambda: slalom.manual_seed(0.5), ConfigError, "seed: got 0.5"),  # type: ignore[arg-type]
    "a flag": (lambda: Generator(True), ConfigError, "seed: got True"),
    "a seed of 65 bits": (lambda: Generator(2**64), ConfigError, "seed"),
    "stream": (lambda: Generator(0, stream=-1), ConfigError, "stream: got -1"),
    "the stream of permutations": (lambda: Generator(0, stream=2**32 - 1), ConfigError, "stream"),
    "dtype": (lambda: slalom.rand(3, dtype="int64"), ConfigError, "int64.*floating"),
    "shape": (lambda: slalom.rand(-1), ShapeError, "-1"),
    "an empty range": (lambda: slalom.randint(5, 5, (2,)), ConfigError, "low 5, high 5"),
    "a range beyond 53 bits": (lambda: slalom.randint(0, 2**53 + 2, (2,)), ConfigError, "randint"),
    "no size": (lambda: slalom.randint(5), ConfigError, "size None"),
    "normal without a size": (lambda: slalom.normal(0.0, 1.0), ShapeError, "size"),
    "another generator's state": (lambda: Generator(0).set_state(tensor([1, 2])), ShapeError, r"\(3,\)|3"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str) -> None:
    act, kind, text = MISTAKES[name]
    before = default_generator.state.tolist()
    with pytest.raises(kind, match=text):
        act()
    assert default_generator.state.tolist() == before

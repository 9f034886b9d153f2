"""The NumPy kernels: special functions, the generator, the permutation, windows, gather, and their transposes."""

from __future__ import annotations

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slalom.core import kernels
from slalom.core.shape import window_count
from slalom.errors import ConfigError, DTypeError, IndexRangeError, ShapeError

FLOATS = (np.float32, np.float64)
SHAPES = ((), (0,), (1,), (7,), (3, 5), (2, 0, 3))


def ulps(values, exact):
    """The error in units in the last place of the dtype of ``values``; ``exact`` in float64."""
    unit = np.spacing(np.abs(exact.astype(values.dtype)))
    return np.abs(values.astype(np.float64) - exact) / unit


def chi_square(counts, expected):
    """χ² in standard deviations above its mean, for counts that should all be ``expected``."""
    counts = np.asarray(counts, float)
    freedom = counts.size - 1
    return (((counts - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom)


# --- special functions ------------------------------------------------------------------------------------------------


def sweep(dtype):
    """Points of every magnitude and sign, dense where the two formulas of erf meet."""
    rng = np.random.default_rng(0)
    small = 10.0 ** rng.uniform(math.log10(np.finfo(dtype).tiny) - 5, 1, 20_000)
    points = [rng.uniform(-7, 7, 40_000), rng.standard_normal(20_000), small, -small, rng.uniform(0.99, 1.01, 20_000)]
    return np.concatenate(points).astype(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_erf_is_within_two_ulps(dtype):
    x = sweep(dtype)
    exact = np.array([math.erf(v) for v in x.tolist()])
    assert ulps(kernels.erf(x), exact).max() <= 2.0
    assert np.array_equal(kernels.erf(-x), -kernels.erf(x))


@pytest.mark.exhaustive
def test_erf_float32_at_every_number(keep_result):
    # The float64 kernel is the oracle: it is checked against math.erf above. Up to 5, and erf is odd.
    worst = 0.0
    for high in range(0x40A0):
        x = (np.arange(1 << 16, dtype=np.uint32) + np.uint32(high << 16)).view(np.float32)
        exact = kernels.erf(x.astype(np.float64))
        worst = max(worst, ulps(kernels.erf(x), exact).max())
    assert worst <= 2.0
    keep_result(f"every float32 from 0 to 5, beyond which erf is 1: at most {worst:.3f} ulp from the float64 kernel")


def logistic(x):
    return 1 / (1 + math.exp(-x)) if x > -700 else math.exp(x)


def log_one_plus_exp(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("kernel", "exact"),
    [(kernels.sigmoid, logistic), (kernels.softplus, log_one_plus_exp)],
    ids=["sigmoid", "softplus"],
)
def test_sigmoid_and_softplus_are_accurate_everywhere(kernel, exact, dtype):
    x = np.concatenate([sweep(dtype), np.linspace(-100, 100, 10_000, dtype=dtype)])
    assert ulps(kernel(x), np.array([exact(v) for v in x.tolist()])).max() <= 6.0  # NumPy's exp may be 4 ulps off


INF, NAN = math.inf, math.nan
SPECIAL = {
    "erf": [(0.0, 0.0), (INF, 1.0), (-INF, -1.0), (1e4, 1.0), (-1e4, -1.0), (1e30, 1.0), (NAN, NAN), (6.0, 1.0)],
    "sigmoid": [(0.0, 0.5), (INF, 1.0), (-INF, 0.0), (1e4, 1.0), (-1e4, 0.0), (-1e30, 0.0), (NAN, NAN)],
    "softplus": [(0.0, math.log(2)), (INF, INF), (-INF, 0.0), (1e4, 1e4), (-1e4, 0.0), (1e30, 1e30), (NAN, NAN)],
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", SPECIAL)
def test_special_values_without_a_floating_point_error(name, dtype):
    x, expected = (np.array(column, dtype) for column in zip(*SPECIAL[name], strict=True))
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        got = getattr(kernels, name)(x)
    np.testing.assert_array_equal(got, expected)


def test_erf_keeps_the_sign_of_zero():
    assert np.signbit(kernels.erf(np.array([-0.0, 0.0]))).tolist() == [True, False]


def test_sigmoid_keeps_the_denormals():
    assert 0 < kernels.sigmoid(np.float32([-90]))[0] < np.finfo(np.float32).tiny


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", SPECIAL)
def test_shape_dtype_and_input_are_kept(name, shape, dtype):
    x = np.linspace(-3, 3, math.prod(shape), dtype=dtype).reshape(shape)
    before = x.copy()
    got = getattr(kernels, name)(x)
    assert (got.shape, got.dtype) == (shape, dtype)
    assert np.array_equal(x, before)


@pytest.mark.parametrize("name", SPECIAL)
def test_strided_and_long_inputs_give_the_same_bits(name):
    kernel = getattr(kernels, name)
    x = np.random.default_rng(1).standard_normal((300, 120)) * 4  # more than two blocks
    assert np.array_equal(kernel(x.T[::3]), kernel(x).T[::3])
    assert kernel(x)[7, 11] == kernel(x[7:8, 11:12])[0, 0]


def test_erf_takes_float32_and_float64_only():
    with pytest.raises(DTypeError, match="erf: got int64; needed float32 or float64"):
        kernels.erf(np.arange(3))


# --- the counter-based generator --------------------------------------------------------------------------------------

KNOWN_ANSWERS = [  # Random123's kat_vectors: counter, key, result
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_known_answers(counter, key, expected):
    got = kernels.philox(tuple(words(key)), words(counter))
    assert got.dtype == np.uint32
    assert got.tolist() == words(expected)


def test_philox_over_blocks_is_philox_of_each():
    c0, c1 = np.arange(3)[:, None], np.array([5, 2**32 - 1])
    got = kernels.philox((1, 2), (c0, c1, 7, 9))
    assert got.shape == (3, 2, 4)
    for i, j in np.ndindex(3, 2):
        assert np.array_equal(got[i, j], kernels.philox((1, 2), (c0[i, 0], c1[j], 7, 9)))


def test_random_bits_have_the_documented_key_and_counter():
    state = np.array([0x299F31D0A4093822, 0x85A308D3, 0x0370734413198A2E])
    block = 3
    expected = kernels.philox((0xA4093822, 0x299F31D0), (block, 0x85A308D3, 0x13198A2E, 0x03707344))
    assert np.array_equal(kernels.random_bits(state, 20)[4 * block : 4 * block + 4], expected)


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 100, 4 * kernels._BLOCK + 5])
def test_random_bits_are_a_function_of_the_element(n):
    state = np.array([-5, 2**40 + 1, -1])
    longest = kernels.random_bits(state, 4 * kernels._BLOCK + 100)
    got = kernels.random_bits(state, n)
    assert got.shape == (n,) and got.dtype == np.uint32
    assert np.array_equal(got, longest[:n])


def test_random_bits_differ_by_seed_stream_and_draw():
    states = [(0, 0, 0), (1, 0, 0), (2**32, 0, 0), (-1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 2**32)]
    assert len({kernels.random_bits(np.array(s), 4).tobytes() for s in states}) == len(states)


def test_random_bits_are_even():
    bits = kernels.random_bits(np.array([42, 0, 0]), 200_000)
    ones = np.unpackbits(bits.view(np.uint8)).reshape(-1, 32).sum(axis=0, dtype=np.int64)
    assert np.abs(ones - 100_000).max() < 5 * math.sqrt(50_000)
    assert chi_square(np.bincount(bits >> 24, minlength=256), 200_000 / 256) < 5


def test_random_bits_have_a_limit():
    with pytest.raises(ShapeError, match=r"random_bits: got 17179869185 elements; needed at most 2\^34"):
        kernels.random_bits(np.zeros(3, np.int64), 2**34 + 1)


# --- the keyed permutation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [*range(1, 71), 255, 256, 257, 1000, 4096, 20_000, 99_999])
def test_permutation_is_a_bijection(n):
    for seed, epoch in ((0, 0), (1, 0), (-3, 7), (2**63, 2**40)):
        order = kernels.permutation(seed, epoch, n)
        assert order.dtype == np.int64
        assert np.array_equal(np.bincount(order, minlength=n), np.ones(n))


def test_permutation_does_not_change():
    # Runs are resumed and repeated with these numbers, by other versions too.
    assert kernels.permutation(0, 0, 10).tolist() == [2, 7, 8, 4, 9, 6, 3, 0, 1, 5]
    assert kernels.permutation_at(7, 3, 10**12, np.arange(3)).tolist() == [903429971440, 226342691011, 428826824250]


@pytest.mark.parametrize("n", [1, 2, 10, 1000, 40_000])
def test_permutation_at_evaluates_a_part(n):
    order = kernels.permutation(5, 2, n)
    for part in (slice(0, 0), slice(n // 3, n // 2 + 1), slice(None, None, -1)):
        assert np.array_equal(kernels.permutation_at(5, 2, n, np.arange(n)[part]), order[part])
    assert kernels.permutation_at(5, 2, n, np.array(n - 1)) == order[-1]
    assert kernels.permutation_at(5, 2, n, np.zeros((2, 3), np.int32)).shape == (2, 3)


def test_permutation_of_nothing():
    assert kernels.permutation(0, 0, 0).shape == (0,)


def test_permutation_at_an_index_outside():
    with pytest.raises(IndexRangeError, match="index for axis 0 of size 10: got 10; needed 0 ≤ index < 10"):
        kernels.permutation_at(0, 0, 10, np.array([3, 10]))


@pytest.mark.parametrize("n", [-1, 2**62 + 1])
def test_permutation_of_an_impossible_number(n):
    with pytest.raises(ConfigError, match="permutation: number of elements"):
        kernels.permutation_at(0, 0, n, np.array([0]))


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_all_orders_of_a_few_are_equally_likely(n):
    runs = 50 * math.factorial(n)
    orders = Counter(tuple(kernels.permutation(seed, 1, n).tolist()) for seed in range(runs))
    assert len(orders) == math.factorial(n)
    assert chi_square(list(orders.values()), 50) < 4


@pytest.mark.parametrize("n", [9, 10, 25, 31])
def test_every_place_is_equally_likely_for_every_element(n):
    runs = 2000
    orders = np.stack([kernels.permutation(3, epoch, n) for epoch in range(runs)])
    for places in orders.T:
        assert chi_square(np.bincount(places, minlength=n), runs / n) < 5
    pairs = np.bincount(orders[:, 0] * n + orders[:, 1], minlength=n * n).reshape(n, n)
    assert chi_square(pairs[~np.eye(n, dtype=bool)], runs / (n * (n - 1))) < 4


def test_epochs_and_seeds_give_unrelated_orders():
    n = 10_000
    orders = [kernels.permutation(seed, epoch, n) for seed, epoch in product((0, 1, 2**32), (0, 1, 2**32))]
    for i, a in enumerate(orders):
        assert (a == np.arange(n)).sum() < 8  # fixed points: Poisson with mean 1
        for b in orders[:i]:
            assert (a == b).sum() < 8
            assert abs(np.corrcoef(a, b)[0, 1]) < 5 / math.sqrt(n)


@pytest.mark.parametrize("n", [4096, 10_000, 20_000])
def test_neighbours_in_the_order_are_unrelated(n):
    order = kernels.permutation(11, 4, n)
    for lag in (1, 2, 3, math.isqrt(n - 1) + 1, 64, 128):
        assert abs(np.corrcoef(order[:-lag], order[lag:])[0, 1]) < 5 / math.sqrt(n)
        steps = (order[lag:] - order[:-lag]) % n
        assert chi_square(np.bincount(steps * 32 // n, minlength=32), len(steps) / 32) < 5
    assert (np.abs(np.diff(order)) == 1).sum() < 12  # Poisson with mean 2


# --- windows and their transpose --------------------------------------------------------------------------------------

WINDOWS = [  # shape of x, size, stride, dilation
    ((7,), (3,), (1,), (1,)),
    ((2, 9), (3,), (2,), (2,)),
    ((9,), (2,), (5,), (1,)),  # the stride leaves gaps
    ((9,), (3,), (2,), (3,)),  # taps further apart than windows
    ((3,), (1,), (1,), (1,)),
    ((2, 3), (5,), (1,), (1,)),  # no window fits
    ((0, 6), (2,), (1,), (1,)),
    ((2, 0), (2,), (1,), (1,)),
    ((2, 3, 6, 5), (3, 2), (2, 1), (1, 2)),
    ((8, 7), (2, 3), (3, 3), (1, 1)),
    ((2, 4, 5, 6), (2, 3, 2), (1, 2, 3), (2, 1, 1)),
]


def naive_windows(x, size, stride, dilation):
    rank = len(size)
    lead, spatial = x.shape[: x.ndim - rank], x.shape[x.ndim - rank :]
    counts = tuple(window_count(*sizes) for sizes in zip(spatial, size, stride, dilation, strict=True))
    out = np.zeros((*lead, *counts, *size), x.dtype)
    for o in np.ndindex(*counts):
        for k in np.ndindex(*size):
            at = tuple(oi * s + ki * d for oi, ki, s, d in zip(o, k, stride, dilation, strict=True))
            out[(..., *o, *k)] = x[(..., *at)]
    return out


@pytest.mark.parametrize(("shape", "size", "stride", "dilation"), WINDOWS)
def test_windows_against_loops(shape, size, stride, dilation):
    x = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    for array in (x, np.asfortranarray(x), np.repeat(x, 2, axis=-1)[..., ::2]):
        got = kernels.windows(array, size, stride, dilation)
        np.testing.assert_array_equal(got, naive_windows(x, size, stride, dilation), strict=True)


@pytest.mark.parametrize(("shape", "size", "stride", "dilation"), WINDOWS)
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_fold_is_the_transpose_of_windows(shape, size, stride, dilation, dtype):
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 10, shape).astype(dtype)  # small integers: sums are exact, whatever their order
    views = kernels.windows(x, size, stride, dilation)
    y = rng.integers(-9, 10, views.shape).astype(dtype)
    back = kernels.fold(y, shape[len(shape) - len(size) :], size, stride, dilation)
    assert (back.shape, back.dtype) == (shape, dtype)
    assert (views * y).sum() == (x * back).sum()


def test_fold_adds_tap_by_tap():
    y = np.float32([[1e8, 1.0], [0.0, -1e8]])  # element 1 receives y[1, 0] and then y[0, 1]
    y[1, 0] = 1e8
    y[0, 1] = 3.0
    assert kernels.fold(y, (3,), (2,), (1,), (1,))[1] == np.float32(1e8) + np.float32(3.0)
    z = np.float32([[0, 0, 1], [0, 1e8, 0], [-1e8, 0, 0]])  # tap 0, 1, 2: (−1e8 + 1e8) + 1
    assert kernels.fold(z, (5,), (3,), (1,), (1,))[2] == 1.0


def test_windows_are_a_read_only_view():
    x = np.zeros((2, 6), np.float32)
    got = kernels.windows(x, (3,), (1,), (1,))
    assert np.shares_memory(got, x) and not got.flags.writeable


@pytest.mark.parametrize(
    ("size", "stride", "dilation"),
    [
        ((0,), (1,), (1,)),
        ((2,), (0,), (1,)),
        ((2,), (1,), (-1,)),
        ((2,), (1, 1), (1,)),
        ((), (), ()),
        ((1, 1), (1, 1), (1, 1)),
    ],
)
def test_windows_refuse_what_would_leave_the_array(size, stride, dilation):
    with pytest.raises(ShapeError, match="windows: parameters"):
        kernels.windows(np.zeros(5), size, stride, dilation)
    with pytest.raises(ShapeError, match="fold: parameters"):
        kernels.fold(np.zeros((5,) + (1,) * len(size)), (5,), size, stride, dilation)


@pytest.mark.parametrize("output", [(4,), (7,), (5, 5)])
def test_fold_refuses_an_output_that_does_not_fit(output):
    with pytest.raises(ShapeError, match="fold: windows: got"):
        kernels.fold(np.zeros((4, 2)), output, (2,), (1,), (1,))


# --- gather and its transpose -----------------------------------------------------------------------------------------

GATHERS = [  # shape of x, shapes of the indices
    ((5,), [(4,)]),
    ((5, 3), [(4,)]),
    ((5, 3), [()]),
    ((5, 3), [(2, 0)]),
    ((5, 3, 2), [(2, 6)]),
    ((5, 3), [(7,), (7,)]),
    ((5, 3, 2), [(4, 1), (3,)]),
    ((4, 0), [(3,)]),
    ((1, 40_000), [(3,)]),  # a row wider than a block
    ((50, 8), [(9000,)]),  # many blocks, every index many times
]


def gather_case(shape, index_shapes, dtype):
    rng = np.random.default_rng(2)
    indices = tuple(rng.integers(0, n, s, dtype=dtype) for n, s in zip(shape, index_shapes, strict=False))
    return rng.standard_normal(shape).astype(np.float32), indices, rng


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize(("shape", "index_shapes"), GATHERS)
def test_gather_is_indexing(shape, index_shapes, dtype):
    x, indices, _ = gather_case(shape, index_shapes, dtype)
    np.testing.assert_array_equal(kernels.gather(x, indices), x[indices], strict=True)
    transposed = np.asfortranarray(x)
    np.testing.assert_array_equal(kernels.gather(transposed, indices), x[indices], strict=True)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize(("shape", "index_shapes"), GATHERS)
def test_scatter_add_adds_in_index_order(shape, index_shapes, dtype):
    _, indices, rng = gather_case(shape, index_shapes, dtype)
    updates = (rng.standard_normal(np.zeros(shape, bool)[indices].shape) * 1e3).astype(np.float32)
    expected = np.zeros(shape, np.float32)
    places = list(zip(*(index.flat for index in np.broadcast_arrays(*indices)), strict=True))
    for place, update in zip(places, updates.reshape(len(places), *shape[len(indices) :]), strict=True):
        expected[place] += update
    for array in (updates, np.asfortranarray(updates)):
        np.testing.assert_array_equal(kernels.scatter_add(array, indices, shape), expected, strict=True)


@given(st.lists(st.integers(-3, 6), max_size=8), st.sampled_from([np.int8, np.int64]))
def test_indices_outside_are_named(values, dtype):
    index = np.array(values, dtype)
    x = np.arange(12.0).reshape(4, 3)
    bad = [v for v in values if not 0 <= v < 4]
    if not bad:
        assert np.array_equal(kernels.gather(x, (index,)), x[index])
        return
    message = rf"index for axis 0 of size 4: got {bad[0]}; needed 0 ≤ index < 4"
    with pytest.raises(IndexRangeError, match=f"gather: {message}"):
        kernels.gather(x, (index,))
    with pytest.raises(IndexRangeError, match=f"scatter_add: {message}"):
        kernels.scatter_add(np.zeros((len(values), 3)), (index,), (4, 3))


def test_the_axis_of_a_wrong_index_is_named():
    with pytest.raises(IndexRangeError, match="index for axis 1 of size 3: got 3"):
        kernels.gather(np.zeros((4, 3)), (np.array([3]), np.array([3])))


@pytest.mark.parametrize("index", [np.array([True, False]), np.array([1.0])], ids=["bool", "float"])
def test_indices_are_integers(index):
    with pytest.raises(DTypeError, match=r"gather: index for axis 0: got (bool|float64); needed integers"):
        kernels.gather(np.zeros(2), (index,))


def test_scatter_add_of_updates_that_do_not_fit():
    with pytest.raises(ShapeError, match=r"scatter_add: updates: got \(3, 2\); needed \(4, 2\)"):
        kernels.scatter_add(np.zeros((3, 2)), (np.zeros(4, int),), (5, 2))

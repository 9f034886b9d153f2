"""The compiler's vector mathematics: error in ulps, special values, the same bits at every width and in every lane."""

from __future__ import annotations

import ctypes
import math
from functools import cache

import numpy as np
import pytest

from slalom.compiler import llvm, mathlib
from slalom.compiler.ir import Builder, Type
from slalom.core import kernels

pytestmark = pytest.mark.skipif(not llvm.available(), reason="needs llvmlite")

FLOATS = (np.float32, np.float64)
SCALAR = {np.float32: "float", np.float64: "double"}
KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
UNARY = tuple(name for name in mathlib.NAMES if name != "pow")
WIDEST = np.longdouble  # 64 bits of mantissa: 2048 times as fine as float64


def kernel(name, scalar, lanes=16):
    """out[i] = name(x[i], …) over begin … end."""
    b = Builder()
    type, element = Type(scalar, lanes), Type(scalar)
    inputs = [b.pointer(i, i) for i in range(1 + (name == "pow"))]
    out = b.pointer("out", "out")
    with b.loop(b.begin, b.end, lanes or 1) as i:
        values = [b.load(type, b.offset(x, i, element)) for x in inputs]
        b.store(mathlib.call(b, name, *values), b.offset(out, i, element))
    return b


@cache
def addresses(target=None):
    """Those of all functions, compiled in one module."""
    keys = [(name, scalar) for name in mathlib.NAMES for scalar in SCALAR.values()]
    return dict(zip(keys, llvm.load([kernel(*key) for key in keys], target=target), strict=True))


def run(address, *inputs, step=16):
    count = inputs[0].size
    padded = [np.ascontiguousarray(np.append(x, np.ones(-count % step, x.dtype))) for x in inputs]
    out = np.empty_like(padded[0])
    words = np.array([a.ctypes.data for a in (*padded, out)], np.int64)
    KERNEL(address)(words.ctypes.data, 0, out.size)
    return out[:count]


def compute(name, *inputs, target=None):
    return run(addresses(target)[name, SCALAR[inputs[0].dtype.type]], *inputs)


# --- the oracles ------------------------------------------------------------------------------------------------------


def erf_widest(x):
    """2/√π · exp(−x²) · Σ 2ⁿ x²ⁿ⁺¹ / (1·3·…·(2n + 1)): no term is negative."""
    term = total = np.minimum(np.abs(x), 7)
    for n in range(1, 250):
        term = term * 2 * np.minimum(x * x, 49) / (2 * n + 1)
        total = total + term
    pi = WIDEST("3.14159265358979323846264338")
    return np.copysign(2 / np.sqrt(pi) * np.exp(-np.minimum(x * x, 49)) * total, x)


def sigmoid_widest(x):
    return 1 / (1 + np.exp(-x))


def softplus_widest(x):
    return np.where(x > 100, x, np.log1p(np.exp(np.minimum(x, 100))))  # e⁻¹⁰⁰ is nothing beside 100


ORACLES = {name: getattr(np, name) for name in ("exp", "expm1", "log", "log1p", "tanh", "sin", "cos")} | {
    "sigmoid": sigmoid_widest,
    "softplus": softplus_widest,
    "erf": erf_widest,
    "pow": np.power,
}


def ulps(values, exact):
    """The error in units in the last place of the dtype of ``values``; infinite where only one is, or is NaN."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(values.dtype)
        unit = np.spacing(np.minimum(np.abs(rounded), np.finfo(values.dtype).max)).astype(exact.dtype)
        error = np.abs(values.astype(exact.dtype) - exact) / unit
    same = (values == rounded) | (np.isnan(values) & np.isnan(rounded))
    error[same & ~np.isfinite(rounded)] = 0
    error[np.isnan(error)] = math.inf
    return error


def worst(name, *inputs, oracle=None):
    """The largest error over the inputs, and where."""
    got = compute(name, *inputs)
    with np.errstate(all="ignore"):
        exact = (oracle or ORACLES[name])(*(x.astype(WIDEST) for x in inputs))
    error = ulps(got, exact)
    at = error.argmax()
    return float(error[at]), [float(x[at]) for x in inputs], float(got[at])


def every_magnitude(dtype, seed=0, count=6_000):
    """Numbers of all exponents and signs, and dense ones where the functions bend."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, np.iinfo(f"u{np.dtype(dtype).itemsize}").max, count, f"u{np.dtype(dtype).itemsize}")
    low = math.log10(np.finfo(dtype).smallest_subnormal)
    parts = [rng.standard_normal(count), rng.uniform(-20, 20, count), rng.uniform(-110, 110, count)]
    parts += [rng.choice([-1, 1], count) * 10 ** rng.uniform(low, 2, count), rng.uniform(-760, 760, count)]
    parts += [1 + rng.standard_normal(count) * 1e-3, np.round(rng.uniform(-3e5, 3e5, count)) * (math.pi / 2)]
    with np.errstate(over="ignore"):
        return np.concatenate([bits.view(dtype), *(part.astype(dtype) for part in parts)])


# --- the bound --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", UNARY)
def test_at_most_two_ulps(name, dtype):
    error, at, got = worst(name, every_magnitude(dtype))
    assert error <= 2, (error, at, got)


@pytest.mark.parametrize("dtype", FLOATS)
def test_pow_at_most_two_ulps(dtype):
    rng, n = np.random.default_rng(2), 4_000
    info = np.finfo(dtype)
    wide = 2.0 ** rng.uniform(info.minexp, info.maxexp, n)
    tiny = 2.0 ** rng.uniform(info.minexp - info.nmant, info.minexp, n)
    close = 1 + rng.integers(-60, 60, n) * float(info.epsneg)
    pairs = [
        (rng.uniform(0, 4, n), rng.uniform(-30, 30, n)),
        (rng.uniform(-9, 9, n), rng.integers(-60, 60, n)),
        (wide, rng.uniform(-1.05, 1.05, n) * info.maxexp / np.log2(wide)),  # results over the whole range and beyond
        (tiny, rng.uniform(-1.1, 1.1, n)),
        ((near := rng.uniform(0.5, 2, 8 * n)), rng.uniform(-1.05, 1.05, 8 * n) * info.maxexp / np.log2(near)),
        (close, rng.uniform(-800, 800, n) / float(info.epsneg) / 60),
        (1 + rng.uniform(-1e-3, 1e-3, n), rng.uniform(-8e5, 8e5, n)),
    ]
    x, y = (np.concatenate(column).astype(dtype) for column in zip(*pairs, strict=True))
    error, at, got = worst("pow", x, y)
    assert error <= 2, (error, at, got)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["sin", "cos"])
def test_angles_next_to_a_multiple_of_half_pi(name, dtype):
    rng = np.random.default_rng(3)
    n = np.concatenate([rng.integers(0, 1 << k, 400) for k in (4, 12, 20, 30, 40)])
    x = (n * WIDEST("1.57079632679489661923132169163975144")).astype(dtype)
    error, at, got = worst(name, np.concatenate([x, -x]))
    assert error <= 2, (error, at, got)


def test_the_angle_that_is_hardest_to_reduce():
    # Of all doubles it is the nearest to a multiple of π/2 (Muller, "Elementary functions", 2016, section 11.1).
    hardest = np.ldexp(6381956970095103.0, 797)
    got = compute("cos", np.array([hardest, -hardest, 1e22]))
    np.testing.assert_allclose(got[:2], -4.68716592425462761112e-19, rtol=4e-16)
    assert got[2] == pytest.approx(0.5232147853951389, rel=4e-16)
    assert compute("sin", np.array([1e22]))[0] == pytest.approx(-0.8522008497671888, rel=4e-16)


@pytest.mark.exhaustive
@pytest.mark.timeout(0)
def test_float32_at_every_number(keep_result):
    # The oracles are NumPy's float64 functions and, for erf, the float64 kernel: 2²⁹ times as fine.
    oracles = ORACLES | {"erf": kernels.erf, "sigmoid": kernels.sigmoid, "softplus": kernels.softplus}
    lines = []
    for name in UNARY:
        most = (0.0, math.nan)
        for high in range(1 << 16):
            x = (np.arange(1 << 16, dtype=np.uint32) + np.uint32(high << 16)).view(np.float32)
            with np.errstate(all="ignore"):
                error = ulps(compute(name, x), oracles[name](x.astype(np.float64)))
            at = error.argmax()
            most = max(most, (float(error[at]), float(x[at])), key=lambda pair: pair[0])
        lines.append(f"{name:9}{most[0]:6.3f} ulp at {most[1]!r}")
        assert most[0] <= 2, lines[-1]
    keep_result("\n".join(["the largest error over every float32:", *lines]))


# --- special values ---------------------------------------------------------------------------------------------------

INF, NAN = math.inf, math.nan
SPECIAL = {
    "exp": [(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, 0.0), (1e4, INF), (-1e4, 0.0)],
    "expm1": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -1.0), (1e4, INF), (-1e4, -1.0)],
    "log": [(0.0, -INF), (-0.0, -INF), (1.0, 0.0), (INF, INF), (-INF, NAN), (-1.0, NAN), (-1e-40, NAN)],
    "log1p": [(0.0, 0.0), (-0.0, -0.0), (-1.0, -INF), (INF, INF), (-INF, NAN), (-1.5, NAN)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (1e30, 1.0), (-1e30, -1.0)],
    "sigmoid": [(0.0, 0.5), (-0.0, 0.5), (INF, 1.0), (-INF, 0.0), (1e4, 1.0), (-1e4, 0.0), (-1e30, 0.0)],
    "softplus": [(INF, INF), (-INF, 0.0), (1e4, 1e4), (-1e4, 0.0), (1e30, 1e30)],
    "erf": [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (7.0, 1.0), (-1e30, -1.0)],
    "sin": [(0.0, 0.0), (-0.0, -0.0), (INF, NAN), (-INF, NAN)],
    "cos": [(0.0, 1.0), (-0.0, 1.0), (INF, NAN), (-INF, NAN)],
}


def assert_same_number(got, expected):
    np.testing.assert_array_equal(got, expected)
    signs = np.signbit(got) == np.signbit(expected)
    assert (signs | np.isnan(expected)).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", UNARY)
def test_special_values(name, dtype):
    x, expected = (np.array(column, dtype) for column in zip(*SPECIAL[name], (NAN, NAN), strict=True))
    assert_same_number(compute(name, x), expected)


@pytest.mark.parametrize("dtype", FLOATS)
def test_pow_has_the_special_cases_of_c99(dtype):
    info = np.finfo(dtype)
    values = [0.0, 1.0, 2.0, 0.5, 3.0, 2.5, INF, info.max, info.smallest_subnormal, info.tiny, 2.0**info.nmant + 1]
    values = np.array([*values, *(-v for v in values), NAN], dtype)
    x, y = (grid.reshape(-1) for grid in np.meshgrid(values, values))
    got = compute("pow", x, y)
    with np.errstate(all="ignore"):
        expected = np.power(x, y)
        exact = np.power(x.astype(WIDEST), y.astype(WIDEST))
    special = ~np.isfinite(expected) | (expected == 0)
    assert special.sum() > 200
    assert_same_number(got[special], expected[special])
    assert ulps(got, exact).max() <= 2


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["expm1", "log1p", "tanh", "sin"])
def test_denormal_numbers_are_kept(name, dtype):
    smallest = np.finfo(dtype).smallest_subnormal
    x = np.arange(-40, 41) * smallest
    assert_same_number(compute(name, x), x)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["exp", "sigmoid", "softplus"])
def test_underflow_is_gradual(name, dtype):
    info = np.finfo(dtype)
    x = np.linspace(math.log(info.tiny), math.log(info.smallest_subnormal), 100).astype(dtype)
    got = compute(name, x)
    assert (got[1:] < info.tiny).all() and (got > 0).all() and (np.diff(got) <= 0).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_exp_overflows_where_it_should(dtype):
    limit = dtype(np.log(WIDEST(np.finfo(dtype).max)))
    if WIDEST(limit) > np.log(WIDEST(np.finfo(dtype).max)):
        limit = np.nextafter(limit, dtype(0))
    for name in ("exp", "expm1"):
        inside, outside = compute(name, np.array([limit, np.nextafter(limit, dtype(INF))]))
        assert np.isfinite(inside) and np.isinf(outside)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["tanh", "erf", "sin"])
def test_odd_functions_are_odd_to_the_bit(name, dtype):
    x = every_magnitude(dtype, seed=4, count=1_000)
    x = x[np.isfinite(x)]
    assert_same_number(compute(name, -x), -compute(name, x))


# --- bits -------------------------------------------------------------------------------------------------------------


def inputs(name, dtype, seed):
    x = every_magnitude(dtype, seed, count=1_000)
    return (x, np.random.default_rng(seed).permutation(x)) if name == "pow" else (x,)


@pytest.mark.parametrize("bits", [256, 128])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", mathlib.NAMES)
def test_the_same_bits_at_every_vector_width(name, dtype, bits):
    arguments = inputs(name, dtype, seed=5)
    narrow = compute(name, *arguments, target=llvm.Target.host().limited(bits))
    assert_same_number(narrow, compute(name, *arguments))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", mathlib.NAMES)
def test_a_lane_does_not_depend_on_the_others(name, dtype):
    arguments = inputs(name, dtype, seed=6)
    order = np.random.default_rng(7).permutation(arguments[0].size)
    shuffled = compute(name, *(x[order] for x in arguments))
    assert_same_number(shuffled, compute(name, *arguments)[order])


@pytest.mark.parametrize("lanes", [0, 32, 64])
@pytest.mark.parametrize("name", ["tanh", "pow"])
def test_scalars_and_long_vectors_give_the_bits_of_sixteen_lanes(name, lanes):
    arguments = [x[:640] for x in inputs(name, np.float32, seed=8)]
    (address,) = llvm.load([kernel(name, "float", lanes)])
    assert_same_number(run(address, *arguments, step=64), compute(name, *arguments))


# --- the text ---------------------------------------------------------------------------------------------------------


def test_each_function_is_written_once_in_an_order_of_its_own():
    needed = [("sin", "float"), ("exp", "double"), ("cos", "float"), ("exp", "float"), ("sin", "float")]
    text = mathlib.functions(needed)
    assert text == mathlib.functions(needed[::-1])
    defined = [line.split("@")[1].split("(")[0] for line in text.splitlines() if line.startswith("define")]
    names = [f"slalom.{name}.v16" for name in ("cos.float", "exp.double", "exp.float", "sin.float")]
    assert defined == [*names, "slalom.large_angles"]
    assert mathlib.functions(()) == ""


def test_a_kernel_notes_what_it_calls():
    assert kernel("log", "double").functions == {("log", "double")}
    assert kernel("exp", "float", lanes=64).functions == {("exp", "float")}

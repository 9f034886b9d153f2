"""Vector functions that carry more than the precision of their result: pow, sin, cos.

Those of float work in double; those of double carry the critical numbers as unevaluated sums of two.
"""

from __future__ import annotations

import math
from typing import Final

from slalom.compiler.ir import F64, I1, I8, I64, LANES, PTR, Builder, Type, Value, literal
from slalom.compiler.mathlib_basic import (
    at_least,
    at_most,
    floating,
    format_of,
    halves,
    horner,
    number,
    power_of_two,
    split_exp,
    split_log,
    split_normal,
    where,
)

# Coefficients as in mathlib_basic.
_POW_EXP: Final = (  # as EXP, absolute error of eʳ 2^-33.2
    *(0.5, 0.16666666805360278, 0.0416664590656844, 0.00833327513154418, 0.0013935451275291875, 0.00019913251033018027),
)
_POW_LOG: Final = (  # as LOG, relative error 2^-38.0
    *(-0.5, 0.3333333334792795, -0.2499999871588027, 0.19999994663928314, -0.16666797390396995, 0.14286278467135027),
    *(-0.12495992418592723, 0.11088695952002837, -0.10029632813056226, 0.09440247875635834, -0.08762846890694463),
    *(0.0630367058324464, -0.02274236418345966),
)
_ATANH: Final = (  # (atanh s / s − 1 − z/3 − z²/5) / z³ over z = s² ≤ 1/25; absolute error of atanh s / s 2^-67.9
    *(0.14285714285734868, 0.11111111103825744, 0.0909091011726245, 0.07692232082041746),
    *(0.06669840374687887, 0.05806112024615987, 0.062299227482001306),
)
_THIRD: Final = (0.3333333333333333, 1.850371707708594e-17)
_FIFTH: Final = (0.2, -1.1102230246251566e-17)
_SIN: Final = {  # (sin r − r) / r³ over r² ≤ (π/4)²; error relative to sin 2^-28 and 2^-57
    "float": (-0.166666552, 0.00833219104, -0.000195185989),
    "double": (
        *(-0.16666666666666632, 0.00833333333332237, -0.00019841269829770728, 2.7557313678578514e-06),
        *(-2.505075595437223e-08, 1.589666635914651e-10),
    ),
}
_COS: Final = {  # (cos r − 1 + r²/2) / r⁴ over r² ≤ (π/4)²; absolute error of cos 2^-33.1 and 2^-59.7
    "float": (0.0416666456, -0.00138873013, 2.44306702e-05),
    "double": (
        *(0.0416666666666666, -0.0013888888888874066, 2.4801587289443963e-05, -2.7557314340797675e-07),
        *(2.0875721642395262e-09, -1.1359560289510558e-11),
    ),
}
_LOG2: Final = (0.693147180559663, 2.8235290563031577e-13)
"""ln 2 in 41 bits, and the rest."""
_HALF_PI: Final = (1.5707963267948966, 6.123233995736766e-17)
_HALF_PI_SPLIT: Final = (1.5707963267341256, 6.077100506506192e-11, 3.5215598651832e-27)
"""π/2 in 33 bits, the next 53, the next."""
_LARGE: Final = {"float": 2.0**40, "double": 2.0**20}
"""From here on an angle is reduced by Payne and Hanek's method."""
_LARGE_ANGLES: Final = "slalom.large_angles"
_TABLE: Final = "slalom.two_over_pi"
_PADDING: Final = 8
"""Bytes of 0 before it in the table."""
_TWO_OVER_PI: Final = (  # 147 bytes
    "a2f9836e4e441529fc2757d1f534ddc0db6295993c439041fe5163abdebbc561b7246e3a424dd2e006492eea09d1921cfe1deb1cb129a73ee8"
    "8235f52ebb4484e99c7026b45f7e413991d639835339f49c845f8bbdf9283b1ff897ffde05980fef2f118b5a0a6d1f6d367ecf27cb09b74f46"
    "3f669e5fea2d7527bac7ebe5f17b3d0739f78a5292ea6bfb5fb11f8d5d08560330"
)


# --- sums of two ------------------------------------------------------------------------------------------------------

Pair = tuple[Value, Value]
"""An unevaluated sum, the larger first."""


def _sum(b: Builder, x: Value, y: Value) -> Pair:
    """x + y without error, for |x| ≥ |y| or x = 0."""
    total = b.add(x, y)
    return total, b.add(b.sub(x, total), y)


def _product(b: Builder, x: Value, y: Value) -> Pair:
    """x · y without error."""
    total = b.mul(x, y)
    return total, b.fma(x, y, b.neg(total))


def _pair_product(b: Builder, x: Pair, y: Pair) -> Pair:
    """x · y to some 104 bits."""
    total, rest = _product(b, x[0], y[0])
    return total, b.fma(x[0], y[1], b.fma(x[1], y[0], rest))


def _constant_plus(b: Builder, constant: tuple[float, float], x: Pair) -> Pair:
    """constant + x, where the constant is the larger."""
    total, rest = _sum(b, number(constant[0], x[0]), x[0])
    return total, b.add(b.add(rest, number(constant[1], x[0])), x[1])


# --- pow --------------------------------------------------------------------------------------------------------------


def pow(b: Builder, x: Value, y: Value) -> Value:
    """xʸ = e^(y·ln |x|), negative where x is and y is odd; with the special cases of C99, annex F.9.4.4.

    Error: below 0.6 ulp (float), 1.1 (double).
    """
    one = number(1.0, x)
    size, floor = b.intrinsic("fabs", x), b.intrinsic("floor", y)
    value = (_pow_float if x.type.scalar == "float" else _pow_double)(b, size, y)
    # |x| = 1 to an infinite power is 0·∞ there.
    unit = b.binary("and", b.compare("oeq", size, one), b.compare("ord", y, y))
    value = b.select(unit, one, value)
    half = b.mul(y, number(0.5, y))
    odd = b.binary("and", b.compare("oeq", floor, y), b.compare("une", b.intrinsic("floor", half), half))
    value = b.intrinsic("copysign", value, b.select(odd, x, size))
    negative = b.binary("and", b.compare("olt", x, number(0.0, x)), b.compare("ogt", x, number(-math.inf, x)))
    value = b.select(b.binary("and", negative, b.compare("une", floor, y)), number(math.nan, x), value)
    trivial = b.binary("or", b.compare("oeq", x, one), b.compare("oeq", y, number(0.0, y)))
    return b.select(trivial, one, value)


def _pow_float(b: Builder, x: Value, y: Value) -> Value:
    """xʸ, x ≥ 0, by way of double: the exponent is within 104·2^-38, hundredths of a unit in a float's last place."""
    x, y = b.convert("fpext", x, "double"), b.convert("fpext", y, "double")
    n, f = split_normal(b, x)  # a denormal float is a normal double
    log = b.fma(b.mul(f, f), horner(b, f, _POW_LOG), f)
    log = b.fma(floating(b, n, "double"), number(math.log(2), x), log)
    log = where(b, "oeq", x, 0.0, -math.inf, where(b, "olt", x, math.inf, log, x))
    n, h = split_exp(b, at_least(b, at_most(b, b.mul(y, log), 150.0), -150.0), coefficients=_POW_EXP)
    s = power_of_two(b, n, "double")
    return b.convert("fptrunc", b.fma(s, h, s), "float")


def _pow_double(b: Builder, x: Value, y: Value) -> Value:
    """xʸ, x ≥ 0: the logarithm and the exponent are pairs."""
    high, low = _log_pair(b, x)
    high = where(b, "oeq", x, 0.0, -math.inf, where(b, "olt", x, math.inf, high, x))
    exponent, rest = _product(b, y, high)
    rest = b.fma(y, low, rest)
    near = b.compare("olt", b.intrinsic("fabs", exponent), number(746.0, x))  # elsewhere rest may be ∞ − ∞
    rest = b.select(near, rest, number(0.0, x))
    n, h = split_exp(b, at_least(b, at_most(b, exponent, 710.0), -746.0), rest)
    first, second = halves(b, n, "double")
    return b.mul(b.mul(b.add(h, number(1.0, x)), first), second)


def _log_pair(b: Builder, x: Value) -> Pair:
    """ln x = n·ln 2 + 2s(1 + z(1/3 + z(1/5 + z·T(z)))) of a finite x > 0: s = (m − 1)/(m + 1), z = s², x = 2ⁿm.

    All but z·T is in pairs: the error is about 2^-66 of ln x, which powers near the ends of the range magnify by 2¹⁰.

    Source: Dekker (1971), "A floating-point technique for extending the available precision".
    """
    n, f = split_log(b, x)
    below, below_rest = _sum(b, number(2.0, x), f)
    s = b.div(f, below)
    s_rest = b.div(b.fma(b.neg(s), below_rest, b.fma(b.neg(s), below, f)), below)
    z = _pair_product(b, (s, s_rest), (s, s_rest))
    u = _constant_plus(b, _FIFTH, (b.mul(z[0], horner(b, z[0], _ATANH)), number(0.0, x)))
    u = _pair_product(b, z, _constant_plus(b, _THIRD, _pair_product(b, z, u)))
    twice = b.add(s, s), b.add(s_rest, s_rest)
    part, part_rest = _pair_product(b, twice, u)
    whole = floating(b, n, "double")
    total, rest = _sum(b, b.mul(whole, number(_LOG2[0], x)), twice[0])
    total, more = _sum(b, total, part)
    rest = b.add(b.add(rest, more), b.add(twice[1], part_rest))
    return _sum(b, total, b.fma(whole, number(_LOG2[1], x), rest))


# --- sin, cos ---------------------------------------------------------------------------------------------------------


def sin(b: Builder, x: Value) -> Value:
    """sin x; NaN for an infinite x. Error: below 1.6 ulp (float), 0.8 (double)."""
    return _circle(b, x, 0)


def cos(b: Builder, x: Value) -> Value:
    """cos x = sin(x + π/2); NaN for an infinite x. Error: below 1.6 ulp (float), 0.8 (double)."""
    return _circle(b, x, 1)


def _circle(b: Builder, x: Value, quarter: int) -> Value:
    """sin(x + quarter·π/2), from sin r and cos r with x = q·π/2 + r."""
    scalar, integer = x.type.scalar, format_of(x).integer
    if scalar == "float":
        q, r, _ = _reduce(b, b.convert("fpext", x, "double"), scalar)
        q, r = b.convert("trunc", q, integer), b.convert("fptrunc", r, scalar)
        sine, cosine = _near_zero(b, r)
    else:
        q, r, rest = _reduce(b, x, scalar)
        sine, cosine = _near_zero_pair(b, r, rest)
    one, two = literal(1, q.type), literal(2, q.type)
    q = b.add(q, literal(quarter, q.type))
    odd = b.compare("eq", b.binary("and", q, one), one)
    value = b.select(odd, cosine, b.intrinsic("copysign", sine, r))  # for −0
    sign = b.binary("shl", b.binary("and", q, two), literal(format_of(x).width - 2, q.type))
    return b.convert("bitcast", b.binary("xor", b.convert("bitcast", value, integer), sign), scalar)


def _near_zero(b: Builder, r: Value) -> Pair:
    """sin r and cos r for |r| ≤ π/4."""
    z = b.mul(r, r)
    sine = b.fma(b.mul(z, r), horner(b, z, _SIN[r.type.scalar]), r)
    cosine = b.fma(z, b.fma(z, horner(b, z, _COS[r.type.scalar]), number(-0.5, r)), number(1.0, r))
    return sine, cosine


def _near_zero_pair(b: Builder, r: Value, rest: Value) -> Pair:
    """sin(r + rest) = r + (r·z·S + rest·w) and cos(r + rest) = w + (z²·C − r·rest), with w = 1 − z/2 in two parts."""
    z = b.mul(r, r)
    half, one = b.mul(z, number(0.5, r)), number(1.0, r)
    w = b.sub(one, half)
    w_rest = b.sub(b.sub(one, w), half)
    sine = b.add(r, b.fma(b.mul(z, r), horner(b, z, _SIN[r.type.scalar]), b.mul(rest, w)))
    tail = b.fma(b.mul(z, z), horner(b, z, _COS[r.type.scalar]), w_rest)
    return sine, b.add(w, b.fma(b.neg(r), rest, tail))


def _reduce(b: Builder, x: Value, scalar: str) -> tuple[Value, Value, Value]:
    """q (low bits alone), r and the rest of r in x = q·π/2 + r + rest, |r| ≤ π/4; x double, of values of ``scalar``.

    Those of float lie 2^-30 or more from a multiple of π/2: below 2⁴⁰ a π/2 of 106 bits leaves them 37 right bits, and
    one double holds r. For those of double, below 2²⁰, π/2 goes in three parts, the first exactly. Lanes beyond are
    done over by ``large_angles``, each by itself.

    Source: Cody, Waite (1980), "Software manual for the elementary functions".
    """
    magic = number(format_of(x).magic, x)
    shifted = b.fma(x, number(2 / math.pi, x), magic)
    turns = b.neg(b.sub(shifted, magic))  # −q, and −0 for the sake of −0
    if scalar == "float":
        high = b.fma(turns, number(_HALF_PI[1], x), b.fma(turns, number(_HALF_PI[0], x), x))
        low = number(0.0, x)
    else:
        first, second, third = (number(part, x) for part in _HALF_PI_SPLIT)
        start = b.fma(turns, first, x)
        move, rest = _product(b, turns, second)
        high = b.add(start, move)
        moved = b.sub(high, start)
        low = b.add(b.sub(start, b.sub(high, moved)), b.sub(move, moved))  # what that addition has rounded away
        low = b.add(low, b.fma(turns, third, rest))
    results = [b.variable(value) for value in (b.convert("bitcast", shifted, "i64"), high, low)]
    large = b.compare("oge", b.intrinsic("fabs", x), number(_LARGE[scalar], x))
    with b.when(b.op(f"call i1 @llvm.vector.reduce.or.v{LANES}i1({large})", I1)):
        values = [x, *(result.get() for result in results)]
        places = [b.stack(value.type) for value in values]
        for value, place in zip(values, places, strict=True):
            b.store(value, place)
        limit = literal(_LARGE[scalar], F64)
        b.do(f"call void @{_LARGE_ANGLES}({', '.join(map(str, (*places, limit)))})")
        for result, place in zip(results, places[1:], strict=True):
            result.set(b.load(result.type, place))
    q, high, low = (result.get() for result in results)
    return q, high, low


def large_angles() -> str:
    """The text of the function that reduces the large ones among 16 angles, exactly, and its table.

    With |x| = M·2ᵉ only the bits of 2/π from weight 2^(1 − e) downwards matter to |x|·2/π modulo 4: 192 of them
    times M give it to 126 places, of which the nearest integer is q; at least 60 are left for r, as no double is nearer
    to a multiple of π/2 than 2^-62.

    Source: Payne, Hanek (1983), "Radian reduction for trigonometric functions".
    """
    b = Builder()
    arguments = [Value(f"%{name}", PTR) for name in ("x", "q", "high", "low")]
    limit = Value("%limit", F64)
    x_at, *places = arguments
    with b.loop(0, LANES) as lane:
        x = b.load(F64, b.offset(x_at, lane, F64))
        size = b.intrinsic("fabs", x)
        with b.when(b.compare("oge", size, limit)):
            for value, place in zip(_reduce_large(b, x, size), places, strict=True):
                b.store(value, b.offset(place, lane, value.type))
    table = "".join(f"\\{byte:02X}" for byte in bytes(_PADDING) + bytes.fromhex(_TWO_OVER_PI))
    count = _PADDING + len(_TWO_OVER_PI) // 2
    constant = f'@{_TABLE} = internal constant [{count} x i8] c"{table}"'
    return constant + "\n" + b.function(_LARGE_ANGLES, None, *arguments, limit)


def _reduce_large(b: Builder, x: Value, size: Value) -> tuple[Value, Value, Value]:
    """q, r and the rest of r for one |x| ≥ 2²⁰; NaN for infinity."""
    wide = Type("i128")

    def integer(number: int, type: Type = I64) -> Value:
        return literal(number, type)

    bits = b.convert("bitcast", size, "i64")
    mantissa = b.binary("or", b.binary("and", bits, integer((1 << 52) - 1)), integer(1 << 52))
    # The table has 2/π's bit of weight 2^-i at place 8·padding + i − 1; e is the stored exponent less 1075.
    first = b.add(b.binary("lshr", bits, integer(52)), integer(8 * _PADDING - 1077))
    mantissa = b.binary("shl", mantissa, b.binary("and", first, integer(7)))
    start = b.offset(Value(f"@{_TABLE}", PTR), b.binary("lshr", first, integer(3)), I8)
    words = [b.intrinsic("bswap", b.load(I64, b.offset(start, 8 * i, I8), align=1)) for i in range(3)]
    m, *factors = (b.convert("zext", word, "i128") for word in (mantissa, *words))
    top, middle, bottom = (b.mul(m, factor) for factor in factors)
    total = b.add(b.binary("shl", top, integer(64, wide)), b.add(middle, b.binary("lshr", bottom, integer(64, wide))))
    q = b.binary("lshr", b.add(total, integer(1 << 125, wide)), integer(126, wide))
    part = b.sub(total, b.binary("shl", q, integer(126, wide)))  # signed, in units of 2^-126
    pieces = []
    for shift in (96, 64, 32, 0):
        word = b.convert("trunc", b.binary("ashr", part, integer(shift, wide)), "i64")
        if shift < 96:
            word = b.binary("and", word, integer(0xFFFF_FFFF))
        pieces.append(b.mul(b.convert("sitofp", word, "double"), literal(2.0 ** (shift - 126), F64)))
    high, low = _sum(b, pieces[0], pieces[1])
    high, more = _sum(b, high, b.add(pieces[2], pieces[3]))
    low = b.add(low, more)
    turn, turn_rest = (literal(half, F64) for half in _HALF_PI)
    r, rest = _product(b, high, turn)
    rest = b.add(rest, b.fma(high, turn_rest, b.mul(low, turn)))
    negative = b.compare("olt", x, literal(0.0, F64))
    q = b.convert("trunc", q, "i64")
    q = b.select(negative, b.neg(q), q)
    r = b.select(negative, b.neg(r), r)
    rest = b.select(negative, b.neg(rest), rest)
    return q, b.select(b.compare("oeq", size, literal(math.inf, F64)), literal(math.nan, F64), r), rest

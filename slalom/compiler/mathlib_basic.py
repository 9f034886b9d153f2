"""Pieces of vector functions, and those that work in the precision of their argument: exp, log, tanh, erf, …

All is written for float and double alike, over any number of lanes.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from slalom.compiler.ir import Builder, Value, literal

# Coefficients in rising powers: minimax fits of our own (Remez and Lawson in 60 digits, rounded one by one and the rest
# refitted). The errors are those of the polynomial, before rounding, for float and for double.
_EXP: Final = {  # (eʳ − 1 − r) / r² for |r| ≤ ln 2 / 2; absolute error of eʳ 2^-28.2 and 2^-57.3
    "float": (0.5, 0.166665196, 0.0416664109, 0.00836882461, 0.00139398745),
    "double": (
        *(0.5, 0.16666666666666685, 0.041666666666602604, 0.008333333333314631, 0.0013888888927352412),
        *(0.00019841269903505981, 2.480150797799348e-05, 2.755722725127456e-06, 2.762546816293829e-07),
        2.5114745414000603e-08,
    ),
}
_LOG: Final = {  # (ln(1 + f) − f) / f² for −1/4 ≤ f ≤ 1/2; error relative to ln(1 + f) 2^-27.6 and 2^-55.6
    "float": (
        *(-0.5, 0.333334506, -0.250001013, 0.199908093, -0.16647099),
        *(0.144787118, -0.131633207, 0.104653478, -0.0450773463),
    ),
    "double": (
        *(-0.5, 0.3333333333333375, -0.25000000000010564, 0.19999999999850226, -0.1666666666380209),
        *(0.14285714299946228, -0.12500000290579888, 0.11111110771681822, -0.09999985541574774, 0.090908930505129),
        *(-0.08333704495243371, 0.07693386872296845, -0.07138579844111725, 0.06643360793190212),
        *(-0.062498715279448835, 0.06083080552142758, -0.05968052248215649, 0.050693520453515654),
        *(-0.029386340062945774, 0.008089866782882548),
    ),
}
_TANH: Final = {  # (tanh x − x) / x³ over x² ≤ 0.36; error relative to tanh 2^-28.4 and 2^-57.7
    "float": (-0.333332986, 0.133319363, -0.0537847169, 0.0207986254, -0.00589796668),
    "double": (
        *(-0.33333333333333126, 0.13333333333299763, -0.05396825394933242, 0.02186948800327698),
        *(-0.008863226785782332, 0.0035920374411107948, -0.0014552156621713552, 0.0005871893458644942),
        *(-0.00023039866122997638, 7.931602166488375e-05, -1.7179731726290056e-05),
    ),
}
_ERF_NEAR: Final = {  # erf x / x − 1 over x² ≤ 1; error relative to erf 2^-29.3 and 2^-56
    "float": (*(0.128379166, -0.37612626, 0.112835787, -0.0268533472, 0.0051871622, -0.00079978531, 7.80690389e-05),),
    "double": (
        *(0.12837916709551256, -0.3761263890318341, 0.11283791670942124, -0.026866170643087574),
        *(0.005223977607713076, -0.0008548326064815086, 0.00012055298822795066, -1.4924828354894723e-05),
        *(1.644868673832752e-06, -1.6218821414097016e-07, 1.3766623041909323e-08, -7.884846276432269e-10),
    ),
}
_ERF_FAR: Final = {  # ln(1 − erf x) over x − 1, for 1 ≤ x ≤ 4 or 6; error relative to erf 2^-26.6, 2^-57.6
    "float": (*(-1.84960556, -2.63896275, -0.843172312, -0.0412654914, 0.00946913008, -0.00150591019, 0.000101305064),),
    "double": (
        *(-1.8496055099332482, -2.6389675142347886, -0.843107256358659, -0.04156109804218087),
        *(0.010033825378441084, -0.001977902593910382, 0.0002373225901185756, 2.6277564165813468e-05),
        *(-2.715848047998415e-05, 9.607966299941359e-06, -2.0587513561878806e-06, 1.420443575578048e-07),
        *(9.805194662294943e-08, -5.226478556176976e-08, 1.4985791153623628e-08, -2.8812450509324785e-09),
        *(3.7090791573867103e-10, -2.9061575562999778e-11, 1.0493774047781143e-12),
    ),
}


class Format(NamedTuple):
    """What the bit tricks need to know of a floating type."""

    integer: str
    mantissa: int
    """Stored bits of the mantissa."""
    bias: int
    log2_high: float
    """ln 2 in so few bits that its product with any exponent is exact."""
    log2_low: float
    log2: tuple[float, float]
    """ln 2 to the full precision, and the rest."""

    @property
    def width(self) -> int:
        """All bits."""
        return int(self.integer[1:])

    @property
    def smallest(self) -> float:
        """The smallest normal number."""
        return math.ldexp(1.0, 1 - self.bias)

    @property
    def magic(self) -> float:
        """Added to a number below 2^(mantissa − 2) it leaves the nearest integer in the low bits."""
        return math.ldexp(1.5, self.mantissa)

    @property
    def magic_bits(self) -> int:
        return (self.mantissa + self.bias << self.mantissa) + (1 << self.mantissa - 1)


FORMATS: Final = {
    "float": Format("i32", 23, 127, 0.693359375, -2.1219444005469057e-4, (0.6931471824645996, -1.904654299957768e-9)),
    "double": Format(
        *("i64", 52, 1023, 0.6931471803691238, 1.9082149292705877e-10),
        (0.6931471805599453, 2.3190468138462996e-17),
    ),
}


# --- pieces -----------------------------------------------------------------------------------------------------------


def format_of(x: Value) -> Format:
    return FORMATS[x.type.scalar]


def number(value: float, like: Value) -> Value:
    return literal(value, like.type)


def horner(b: Builder, x: Value, coefficients: tuple[float, ...]) -> Value:
    """The polynomial with these coefficients, in rising powers, at x."""
    *rest, highest = coefficients
    total = number(highest, x)
    for c in reversed(rest):
        total = b.fma(total, x, number(c, x))
    return total


def at_most(b: Builder, x: Value, bound: float) -> Value:
    """min(x, bound), where NaN stays."""
    limit = number(bound, x)
    return b.select(b.compare("olt", limit, x), limit, x)


def at_least(b: Builder, x: Value, bound: float) -> Value:
    """max(x, bound), where NaN stays."""
    limit = number(bound, x)
    return b.select(b.compare("ogt", limit, x), limit, x)


def where(b: Builder, how: str, x: Value, bound: float, yes: Value | float, no: Value) -> Value:
    """yes where x compares with the bound as said, else no."""
    chosen = yes if isinstance(yes, Value) else number(yes, x)
    return b.select(b.compare(how, x, number(bound, x)), chosen, no)


def power_of_two(b: Builder, n: Value, scalar: str) -> Value:
    """2ⁿ of an integer in the range of normal numbers."""
    format = FORMATS[scalar]
    biased = b.add(n, literal(format.bias, n.type))
    return b.convert("bitcast", b.binary("shl", biased, literal(format.mantissa, n.type)), scalar)


def halves(b: Builder, n: Value, scalar: str) -> tuple[Value, Value]:
    """2^⌊n/2⌋ and 2^⌈n/2⌉, so that 2ⁿ may lie beyond the range."""
    half = b.binary("ashr", n, literal(1, n.type))
    return power_of_two(b, half, scalar), power_of_two(b, b.sub(n, half), scalar)


def split_exp(
    b: Builder, x: Value, rest: Value | None = None, coefficients: tuple[float, ...] | None = None
) -> tuple[Value, Value]:
    """The integer n and h of eˣ = 2ⁿ·(1 + h), for |x| below 2^(mantissa − 2).

    n = round(x / ln 2) and h = r + r²·q(r) with r = x − n·ln 2, |r| ≤ ln 2 / 2. With ``rest``, maybe 0, it is
    e^(x + rest), and what r loses by rounding goes into h: without, a quarter of a unit in the last place of 1 + h.

    Source: Cody, Waite (1980), "Software manual for the elementary functions", for r in two steps of which the first
    is exact.
    """
    format, coefficients = format_of(x), coefficients or _EXP[x.type.scalar]
    shifted = b.fma(x, number(1 / math.log(2), x), number(format.magic, x))
    n = b.sub(b.convert("bitcast", shifted, format.integer), literal(format.magic_bits, x.type.of(format.integer)))
    whole = b.sub(shifted, number(format.magic, x))
    r = b.fma(whole, number(-format.log2_high, x), x)
    low = number(-format.log2_low, x)
    if rest is None:
        r = b.fma(whole, low, r)
        return n, b.fma(b.mul(r, r), horner(b, r, coefficients), r)
    rest = b.fma(whole, low, rest)
    total = b.add(r, rest)
    rest = b.add(b.sub(r, total), rest)
    return n, b.add(total, b.fma(b.mul(total, total), horner(b, total, coefficients), rest))


def split_log(b: Builder, x: Value) -> tuple[Value, Value]:
    """The integer n and f of x = 2ⁿ·(1 + f), −1/4 ≤ f < 1/2, for x > 0."""
    format = format_of(x)
    digits = format.mantissa + 1
    denormal = b.compare("olt", x, number(format.smallest, x))
    n, f = split_normal(b, b.select(denormal, b.mul(x, number(2.0**digits, x)), x))
    return b.sub(n, b.select(denormal, literal(digits, n.type), literal(0, n.type))), f


def split_normal(b: Builder, x: Value) -> tuple[Value, Value]:
    """``split_log`` of a number that is not denormal."""
    format = format_of(x)
    bits = b.convert("bitcast", x, format.integer)
    threshold = (format.bias - 1 << format.mantissa) + (1 << format.mantissa - 1)  # the bits of 3/4
    mantissa = literal(format.mantissa, bits.type)
    n = b.binary("ashr", b.sub(bits, literal(threshold, bits.type)), mantissa)
    m = b.convert("bitcast", b.sub(bits, b.binary("shl", n, mantissa)), x.type.scalar)
    return n, b.sub(m, number(1.0, x))


def floating(b: Builder, n: Value, scalar: str) -> Value:
    """A small integer as a floating number, by way of the magic number: not every machine converts 64 bits."""
    format = FORMATS[scalar]
    shifted = b.convert("bitcast", b.add(n, literal(format.magic_bits, n.type)), scalar)
    return b.sub(shifted, number(format.magic, shifted))


def join_log(b: Builder, k: Value, f: Value) -> Value:
    """k·ln 2 + ln(1 + f)."""
    high, low = format_of(f).log2
    part = b.fma(b.mul(f, f), horner(b, f, _LOG[f.type.scalar]), f)
    return b.fma(k, number(high, k), b.fma(k, number(low, k), part))


# --- the functions ----------------------------------------------------------------------------------------------------


def exp(b: Builder, x: Value) -> Value:
    """eˣ = 2ⁿ(1 + h), where 2ⁿ is multiplied in two halves: one rounding, also to a denormal number.

    Error: below 1.1 ulp.
    """
    low, high = (-104.0, 89.0) if x.type.scalar == "float" else (-746.0, 710.0)  # beyond: 0 and infinity
    n, h = split_exp(b, at_least(b, at_most(b, x, high), low))
    first, second = halves(b, n, x.type.scalar)
    return b.mul(b.mul(b.add(h, number(1.0, x)), first), second)


def expm1(b: Builder, x: Value) -> Value:
    """eˣ − 1 = 2ⁿ·h + (2ⁿ − 1), by halves a·c = 2ⁿ: c·(a·h + (a − 1/c)), whose inner difference is exact.

    Error: below 1.6 ulp (float), 1.8 (double).
    """
    low, high = (-20.0, 89.0) if x.type.scalar == "float" else (-40.0, 710.0)
    n, h = split_exp(b, at_least(b, at_most(b, x, high), low), number(0.0, x))
    half = b.binary("ashr", n, literal(1, n.type))
    a, c, inverse = (power_of_two(b, m, x.type.scalar) for m in (half, b.sub(n, half), b.sub(half, n)))
    return b.intrinsic("copysign", b.mul(b.fma(a, h, b.sub(a, inverse)), c), x)


def log(b: Builder, x: Value) -> Value:
    """ln x = n·ln 2 + ln(1 + f) with x = 2ⁿ(1 + f).

    Error: below 1 ulp (float), 1.2 (double).
    """
    n, f = split_log(b, x)
    value = join_log(b, floating(b, n, x.type.scalar), f)
    value = where(b, "olt", x, math.inf, value, x)
    value = where(b, "olt", x, 0.0, math.nan, value)
    return where(b, "oeq", x, 0.0, -math.inf, value)


def log1p(b: Builder, x: Value) -> Value:
    """ln(1 + x) = n·ln 2 + ln(1 + f) with n from the rounded 1 + x, but f = 2⁻ⁿ·x + (2⁻ⁿ − 1) from x itself.

    Error: below 1.3 ulp.
    """
    scalar, one = x.type.scalar, number(1.0, x)
    n, f = split_normal(b, b.add(x, one))
    scale = power_of_two(b, b.neg(n), scalar)
    # Where 1 does not count beside x, the f of 1 + x is right, and 2⁻ⁿ may leave the range of normal numbers.
    f = where(b, "olt", x, 2.0 ** (format_of(x).mantissa + 2), b.fma(scale, x, b.sub(scale, one)), f)
    value = b.intrinsic("copysign", join_log(b, floating(b, n, scalar), f), x)
    value = where(b, "olt", x, math.inf, value, x)
    value = where(b, "olt", x, -1.0, math.nan, value)
    return where(b, "oeq", x, -1.0, -math.inf, value)


def tanh(b: Builder, x: Value) -> Value:
    """x + x·z·P(z), z = x², for |x| ≤ 0.6; beyond, 1 − 2 / (E + 1) with E = e^(2|x|) = 2ⁿ(1 + h), all divided by 2ⁿ.

    Error: below 1.3 ulp.
    """
    scalar, one = x.type.scalar, number(1.0, x)
    size = b.intrinsic("fabs", x)
    n, h = split_exp(b, at_most(b, b.add(size, size), 20.0 if scalar == "float" else 40.0))
    s = power_of_two(b, b.neg(n), scalar)
    far = b.sub(one, b.div(b.add(s, s), b.add(b.add(one, s), h)))
    z = b.mul(x, x)
    near = b.fma(b.mul(size, z), horner(b, z, _TANH[scalar]), size)
    return b.intrinsic("copysign", where(b, "ogt", size, 0.6, far, near), x)


def sigmoid(b: Builder, x: Value) -> Value:
    """1 / (1 + E) with E = e⁻ˣ = 2ⁿ(1 + h), as s / ((1 + s) + h) with s = 2⁻ⁿ.

    Error: below 1.8 ulp.
    """
    low, high = (-18.0, 104.0) if x.type.scalar == "float" else (-40.0, 746.0)
    n, h = split_exp(b, at_least(b, at_most(b, b.neg(x), high), low))
    first, second = halves(b, b.neg(n), x.type.scalar)
    s, one = b.mul(first, second), number(1.0, x)
    total = b.add(s, one)
    rest = b.sub(s, b.sub(total, one))  # what 1 + s has rounded away
    return b.mul(b.div(first, b.add(total, b.add(h, rest))), second)


def softplus(b: Builder, x: Value) -> Value:
    """max(x, 0) + ln(1 + e), e = exp(−|x|); for e > 1/2 the logarithm is ln 2 + ln(1 + (e − 1)/2).

    Error: below 1.8 ulp.
    """
    e = exp(b, b.neg(b.intrinsic("fabs", x)))
    large = b.compare("ogt", e, number(0.5, e))
    zero, half = number(0.0, x), number(0.5, x)
    f = b.select(large, b.fma(e, half, b.neg(half)), e)
    value = join_log(b, b.select(large, number(1.0, x), zero), f)
    return b.add(where(b, "ogt", x, 0.0, x, zero), value)


def erf(b: Builder, x: Value) -> Value:
    """x + x·P(x²) for |x| ≤ 1; beyond, 1 − e^p with p = ln(1 − erf |x|) a polynomial, e^p = 2ⁿ(1 + h).

    Error: below 1 ulp.
    Source: the form of the second is that of Norbert Juffa's erff (2016).
    """
    scalar = x.type.scalar
    size = b.intrinsic("fabs", x)
    z, one = b.mul(x, x), number(1.0, x)
    near = b.fma(size, horner(b, z, _ERF_NEAR[scalar]), size)
    beyond = b.sub(at_most(b, size, 4.0 if scalar == "float" else 6.0), one)  # erf has rounded to 1 there
    n, h = split_exp(b, horner(b, beyond, _ERF_FAR[scalar]))
    s = power_of_two(b, n, scalar)
    far = b.fma(b.neg(s), h, b.sub(one, s))
    return b.intrinsic("copysign", where(b, "ogt", size, 1.0, far, near), x)

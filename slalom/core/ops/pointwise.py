"""Elementwise primitives: arithmetic, functions, comparisons, bits, selection.

``expr`` is the scalar expression over x, y, z (in Python's syntax, with the function names of ``slalom.core``) from
which machine code is made; the tests evaluate it against ``impl``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from slalom.core import kernels
from slalom.core.dtype import DType, bool_
from slalom.core.primitive import Array, Constant, Elementwise, Kind, Primitive, Select
from slalom.core.shape import Shape, broadcast


def _pointwise(
    name: str, impl: Callable[..., Any], kind: Kind, expr: str, doc: str, *, takes: str = "buif", **rules: Any
) -> Primitive:
    def shape(*inputs: Any) -> Shape:
        return broadcast(name, [x.shape for x in inputs])

    return Primitive(name, impl, kind, shape, doc, expr=expr, takes=frozenset(takes), **rules)


def _bool_result(*inputs: Any) -> DType:
    return bool_


def _second_dtype(*inputs: Any) -> DType:
    return inputs[1].dtype  # type: ignore[no-any-return]


def _quiet(impl: Callable[..., Any]) -> Callable[..., Any]:
    """IEEE results (inf, nan) are answers here, not warnings."""

    def run(*arrays: Array) -> Any:
        with np.errstate(all="ignore"):
            return impl(*arrays)

    return run


def _pow_base(out: Any, x: Any, y: Any) -> Any:
    return (y * x ** (y - 1)).where(y != 0, 0)  # d/dx x⁰ is 0, also at x = 0 where x⁻¹ is infinite


def _pow_exponent(out: Any, x: Any, y: Any) -> Any:
    return (out * x.log()).where((x != 0) | (y < 0), 0)  # 0ʸ is flat in y > 0, where log 0 is infinite


def _larger(t: Any, out: Any, x: Any, y: Any) -> Any:
    return t.where(x > y, (t * 0.5).where(x == y, 0))


def _smaller(t: Any, out: Any, x: Any, y: Any) -> Any:
    return t.where(x < y, (t * 0.5).where(x == y, 0))


# --- arithmetic -------------------------------------------------------------------------------------------------
ADD: Final = _pointwise("add", np.add, Elementwise(1, 1), "x + y", "x + y")
SUB: Final = _pointwise("sub", np.subtract, Elementwise(1, -1), "x - y", "x − y", takes="uif")
MUL: Final = _pointwise("mul", np.multiply, Elementwise(lambda o, x, y: y, lambda o, x, y: x), "x * y", "x · y")
DIV: Final = _pointwise(
    "div", _quiet(np.divide), Elementwise(lambda o, x, y: 1 / y, lambda o, x, y: -o / y), "x / y", "x / y", takes="f"
)
NEG: Final = _pointwise("neg", np.negative, Elementwise(-1), "-x", "−x", takes="uif")
POW: Final = _pointwise("pow", _quiet(np.power), Elementwise(_pow_base, _pow_exponent), "x ** y", "xʸ", takes="uif")
MOD: Final = _pointwise(
    "mod",
    _quiet(np.remainder),
    Elementwise(1, lambda o, x, y: -(x / y).floor()),
    "x % y",
    "x − y·⌊x/y⌋, with the sign of y",
    takes="uif",
)
FLOOR: Final = _pointwise("floor", np.floor, Constant(), "floor(x)", "⌊x⌋", takes="f")
ABS: Final = _pointwise("abs", np.abs, Elementwise(lambda o, x: x.sign()), "abs(x)", "|x|; derivative 0 at 0")
SIGN: Final = _pointwise("sign", np.sign, Constant(), "sign(x)", "−1, 0 or 1", takes="uif")
MAXIMUM: Final = _pointwise(
    "maximum",
    np.maximum,
    Select(_larger, lambda t, o, x, y: _larger(t, o, y, x)),
    "maximum(x, y)",
    "the larger; at ties each gets half of the gradient; NaN wins",
)
MINIMUM: Final = _pointwise(
    "minimum",
    np.minimum,
    Select(_smaller, lambda t, o, x, y: _smaller(t, o, y, x)),
    "minimum(x, y)",
    "the smaller; at ties each gets half of the gradient; NaN wins",
)
RELU: Final = _pointwise(
    "relu",
    lambda x: np.maximum(x, 0),
    Select(lambda t, o, x: t.where(o > 0, 0)),
    "maximum(x, 0)",
    "max(x, 0); derivative 0 at 0",
)

# --- functions --------------------------------------------------------------------------------------------------
EXP: Final = _pointwise("exp", _quiet(np.exp), Elementwise(lambda o, x: o), "exp(x)", "eˣ", takes="f")
EXPM1: Final = _pointwise(
    "expm1", _quiet(np.expm1), Elementwise(lambda o, x: o + 1), "expm1(x)", "eˣ − 1, exact near 0", takes="f"
)
LOG: Final = _pointwise("log", _quiet(np.log), Elementwise(lambda o, x: 1 / x), "log(x)", "ln x", takes="f")
LOG1P: Final = _pointwise(
    "log1p", _quiet(np.log1p), Elementwise(lambda o, x: 1 / (1 + x)), "log1p(x)", "ln(1 + x), exact near 0", takes="f"
)
SQRT: Final = _pointwise("sqrt", _quiet(np.sqrt), Elementwise(lambda o, x: 0.5 / o), "sqrt(x)", "√x", takes="f")
TANH: Final = _pointwise("tanh", np.tanh, Elementwise(lambda o, x: 1 - o * o), "tanh(x)", "tanh x", takes="f")
SIGMOID: Final = _pointwise(
    "sigmoid", kernels.sigmoid, Elementwise(lambda o, x: o * (1 - o)), "sigmoid(x)", "1 / (1 + e⁻ˣ)", takes="f"
)
SOFTPLUS: Final = _pointwise(
    "softplus", kernels.softplus, Elementwise(lambda o, x: x.sigmoid()), "softplus(x)", "ln(1 + eˣ)", takes="f"
)
ERF: Final = _pointwise(
    "erf",
    kernels.erf,
    Elementwise(lambda o, x: (-x * x).exp() * (2 / math.sqrt(math.pi))),
    "erf(x)",
    "2/√π ∫₀ˣ e^(−t²) dt",
    takes="f",
)
SIN: Final = _pointwise("sin", _quiet(np.sin), Elementwise(lambda o, x: x.cos()), "sin(x)", "sin x", takes="f")
COS: Final = _pointwise("cos", _quiet(np.cos), Elementwise(lambda o, x: -x.sin()), "cos(x)", "cos x", takes="f")

# --- comparisons, selection, bits -------------------------------------------------------------------------------
EQ: Final = _pointwise("eq", np.equal, Constant(), "x == y", "x = y", dtype=_bool_result)
NE: Final = _pointwise("ne", np.not_equal, Constant(), "x != y", "x ≠ y", dtype=_bool_result)
LT: Final = _pointwise("lt", np.less, Constant(), "x < y", "x < y", dtype=_bool_result)
LE: Final = _pointwise("le", np.less_equal, Constant(), "x <= y", "x ≤ y", dtype=_bool_result)
WHERE: Final = _pointwise(
    "where",
    np.where,
    Select(None, lambda t, o, c, x, y: t.where(c, 0), lambda t, o, c, x, y: t.masked_fill(c, 0)),
    "y if x else z",
    "x where the condition holds, else y",
    dtype=_second_dtype,
)
BITAND: Final = _pointwise("bitand", np.bitwise_and, Constant(), "x & y", "bits of both; on bool: and", takes="bui")
BITOR: Final = _pointwise("bitor", np.bitwise_or, Constant(), "x | y", "bits of either; on bool: or", takes="bui")
BITNOT: Final = _pointwise("bitnot", np.invert, Constant(), "~x", "the other bits; on bool: not", takes="bui")
SHIFT_RIGHT: Final = _pointwise(
    "shift_right", np.right_shift, Constant(), "x >> y", "x moved right by y bits", takes="ui"
)

PRIMITIVES: Final = tuple(value for value in dict(globals()).values() if isinstance(value, Primitive))

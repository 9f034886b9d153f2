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
from slalom.core.primitive import Array, Constant, Elementwise, Kind, Primitive, Select, common_dtype, quiet
from slalom.core.shape import Shape, broadcast
from slalom.errors import DTypeError


def _pointwise(
    name: str, impl: Callable[..., Any], kind: Kind, expr: str, doc: str, *, takes: str = "buif", **rules: Any
) -> Primitive:
    def shape(*inputs: Any) -> Shape:
        return broadcast(name, [x.shape for x in inputs])

    rules.setdefault("dtype", common_dtype(name))
    return Primitive(name, impl, kind, shape, doc, expr=expr, takes=frozenset(takes), **rules)


def _compare(name: str, impl: Callable[..., Any], expr: str, doc: str) -> Primitive:
    operands = common_dtype(name)

    def dtype(*inputs: Any) -> DType:
        operands(*inputs)
        return bool_

    return _pointwise(name, impl, Constant(), expr, doc, dtype=dtype)


def _where_dtype(condition: Any, x: Any, y: Any) -> DType:
    if condition.dtype != bool_:
        raise DTypeError("where: condition", got=condition.dtype.name, needed="bool")
    return common_dtype("where")(x, y)


@quiet
def _power(x: Array, y: Array) -> Any:
    if y.dtype.kind == "i" and (y < 0).any():
        raise DTypeError("pow", got=f"{x.dtype.name} to a negative power", needed="a floating dtype")
    return np.power(x, y)


def _pow_base(out: Any, x: Any, y: Any) -> Any:
    # d/dx x⁰ is 0, also at x = 0, where x⁻¹ is infinite. The mask stands inside, as 0·∞ would be NaN one order higher.
    return y * x.masked_fill((x == 0) & (y == 0), 1) ** (y - 1)


def _pow_exponent(out: Any, x: Any, y: Any) -> Any:
    return out * x.masked_fill((x == 0) & (y >= 0), 1).log()  # 0ʸ is flat in y > 0, where log 0 is infinite


def _larger(t: Any, out: Any, x: Any, y: Any) -> Any:
    return (t * 0.5).where(x == y, t).masked_fill(x < y, 0)  # where either is NaN, neither is the smaller


def _smaller(t: Any, out: Any, x: Any, y: Any) -> Any:
    return (t * 0.5).where(x == y, t).masked_fill(x > y, 0)


# --- arithmetic -------------------------------------------------------------------------------------------------
ADD: Final = _pointwise("add", quiet(np.add), Elementwise(1, 1), "x + y", "x + y")
SUB: Final = _pointwise("sub", quiet(np.subtract), Elementwise(1, -1), "x - y", "x − y", takes="uif")
MUL: Final = _pointwise("mul", quiet(np.multiply), Elementwise(lambda o, x, y: y, lambda o, x, y: x), "x * y", "x · y")
DIV: Final = _pointwise(
    "div", quiet(np.divide), Elementwise(lambda o, x, y: 1 / y, lambda o, x, y: -o / y), "x / y", "x / y", takes="f"
)
FLOOR_DIVIDE: Final = _pointwise(
    "floor_divide", quiet(np.floor_divide), Constant(), "x // y", "⌊x/y⌋; of integers, 0 where y is 0", takes="uif"
)
MOD: Final = _pointwise(
    "mod",
    quiet(np.remainder),
    Elementwise(1, lambda o, x, y: -x._apply(FLOOR_DIVIDE, y)),
    "x % y",
    "x − y·⌊x/y⌋, with the sign of y; of integers, 0 where y is 0",
    takes="uif",
)
POW: Final = _pointwise("pow", _power, Elementwise(_pow_base, _pow_exponent), "x ** y", "xʸ", takes="uif")
NEG: Final = _pointwise("neg", np.negative, Elementwise(-1), "-x", "−x", takes="uif")
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
    Select(lambda t, o, x: t.masked_fill(o <= 0, 0)),
    "maximum(x, 0)",
    "max(x, 0); derivative 0 at 0",
    takes="uif",
)

# --- functions --------------------------------------------------------------------------------------------------
EXP: Final = _pointwise("exp", quiet(np.exp), Elementwise(lambda o, x: o), "exp(x)", "eˣ", takes="f")
EXPM1: Final = _pointwise(
    "expm1", quiet(np.expm1), Elementwise(lambda o, x: o + 1), "expm1(x)", "eˣ − 1, exact near 0", takes="f"
)
LOG: Final = _pointwise("log", quiet(np.log), Elementwise(lambda o, x: 1 / x), "log(x)", "ln x", takes="f")
LOG1P: Final = _pointwise(
    "log1p", quiet(np.log1p), Elementwise(lambda o, x: 1 / (1 + x)), "log1p(x)", "ln(1 + x), exact near 0", takes="f"
)
SQRT: Final = _pointwise("sqrt", quiet(np.sqrt), Elementwise(lambda o, x: 0.5 / o), "sqrt(x)", "√x", takes="f")
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
SIN: Final = _pointwise("sin", quiet(np.sin), Elementwise(lambda o, x: x.cos()), "sin(x)", "sin x", takes="f")
COS: Final = _pointwise("cos", quiet(np.cos), Elementwise(lambda o, x: -x.sin()), "cos(x)", "cos x", takes="f")

# --- comparisons, selection, bits -------------------------------------------------------------------------------
EQ: Final = _compare("eq", np.equal, "x == y", "x = y")
NE: Final = _compare("ne", np.not_equal, "x != y", "x ≠ y")
LT: Final = _compare("lt", np.less, "x < y", "x < y")
LE: Final = _compare("le", np.less_equal, "x <= y", "x ≤ y")
WHERE: Final = _pointwise(
    "where",
    np.where,
    Select(None, lambda t, o, c, x, y: t.where(c, 0), lambda t, o, c, x, y: t.masked_fill(c, 0)),
    "y if x else z",
    "y where the condition x holds, else z",
    dtype=_where_dtype,
)
BITAND: Final = _pointwise("bitand", np.bitwise_and, Constant(), "x & y", "bits of both; on bool: and", takes="bui")
BITOR: Final = _pointwise("bitor", np.bitwise_or, Constant(), "x | y", "bits of either; on bool: or", takes="bui")
BITNOT: Final = _pointwise("bitnot", np.invert, Constant(), "~x", "the other bits; on bool: not", takes="bui")
SHIFT_RIGHT: Final = _pointwise(
    "shift_right", np.right_shift, Constant(), "x >> y", "x moved right by y bits", takes="ui"
)

PRIMITIVES: Final = tuple(value for value in dict(globals()).values() if isinstance(value, Primitive))

"""Operators, elementwise functions, comparisons, clamping and selection, as functions and methods."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from slalom.core.dtype import bool_, get_default_dtype, promote, promote_number
from slalom.core.ops import pointwise, reductions, structural
from slalom.core.primitive import Primitive
from slalom.core.tensor import (
    _OPERANDS,
    Tensor,
    _operator,
    apply,
    as_tensor,
    binary,
    check_operands,
    floating,
    method,
    operands,
)
from slalom.errors import ConfigError, DTypeError, ShapeError

__all__ = [
    "abs", "absolute", "add", "bmm", "ceil", "clamp", "clip", "cos", "cosh", "div", "divide", "dot", "eq", "erf", "exp",
    "exp2", "expm1", "floor", "floor_divide", "frac", "ge", "gt", "isfinite", "isinf", "isnan", "le", "lerp", "log",
    "log1p", "log2", "log10", "logical_and", "logical_not", "logical_or", "logical_xor", "lt", "masked_fill", "matmul",
    "maximum", "minimum", "mm", "mul", "multiply", "nan_to_num", "ne", "neg", "negative", "pow", "reciprocal", "relu",
    "remainder", "round", "rsqrt", "sigmoid", "sign", "sin", "sinh", "softplus", "sqrt", "square", "sub", "subtract",
    "tan", "tanh", "true_divide", "trunc", "where",
]  # fmt: skip


# --- functions of one argument, one a primitive -------------------------------------------------------------------
def _unary(prim: Primitive) -> Callable[[Any], Tensor]:
    takes = prim.takes

    def function(input: Any) -> Tensor:
        x = input if isinstance(input, Tensor) else as_tensor(input)
        if x._storage.array.dtype.kind not in takes:
            if len(takes) > 1:
                check_operands(prim, (x._storage.array,), {})
            x = x.to(get_default_dtype())
        return apply(prim, x)

    function.__name__ = function.__qualname__ = prim.name
    function.__doc__ = f"{prim.doc}, elementwise."
    return method(function)


exp, expm1, log, log1p = map(_unary, (pointwise.EXP, pointwise.EXPM1, pointwise.LOG, pointwise.LOG1P))
sqrt, erf, sin, cos = map(_unary, (pointwise.SQRT, pointwise.ERF, pointwise.SIN, pointwise.COS))
tanh, sigmoid, softplus = map(_unary, (pointwise.TANH, pointwise.SIGMOID, pointwise.SOFTPLUS))
neg, abs, sign, relu = map(_unary, (pointwise.NEG, pointwise.ABS, pointwise.SIGN, pointwise.RELU))
negative, absolute = neg, abs


def _copy(x: Tensor) -> Tensor:
    """The same value as a result of its own: what rounding gives for integers."""
    return apply(structural.ALIAS, x)


# --- binary arithmetic --------------------------------------------------------------------------------------------
def _scaled(other: Any, alpha: float) -> Any:
    return other if alpha == 1 else as_tensor(other) * alpha


@method
def add(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """input + alpha · other."""
    return binary(pointwise.ADD, input, _scaled(other, alpha))


@method
def sub(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """input − alpha · other."""
    return binary(pointwise.SUB, input, _scaled(other, alpha))


@method
def mul(input: Any, other: Any) -> Tensor:
    """input · other."""
    return binary(pointwise.MUL, input, other)


@method
def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """input / other as floats; ``rounding_mode`` "floor" or "trunc" rounds the quotient, and keeps integers.

    Raises: ShapeError for shapes that do not broadcast; ConfigError for another rounding mode.
    """
    if rounding_mode == "floor":
        return floor_divide(input, other)
    x, y = operands(input, other)
    if rounding_mode is None:
        if x.dtype.kind != "f" and y.dtype.kind != "f":
            x = x.to(get_default_dtype())
        return binary(pointwise.DIV, x, y)
    if rounding_mode != "trunc":
        raise ConfigError("div: rounding_mode", got=repr(rounding_mode), needed="None, 'floor' or 'trunc'")
    if x.dtype.kind != "f" and y.dtype.kind != "f":
        return floor_divide(abs(x), abs(y)) * sign(x) * sign(y)
    return trunc(binary(pointwise.DIV, x, y))


@method
def floor_divide(input: Any, other: Any) -> Tensor:
    """⌊input / other⌋; integers stay integers.

    Note: an integer divided by 0 gives 0 here and an error in PyTorch.
    """
    return binary(pointwise.FLOOR_DIVIDE, input, other)


@method
def remainder(input: Any, other: Any) -> Tensor:
    """input − other·⌊input/other⌋: the sign is that of ``other``, as in Python."""
    return binary(pointwise.MOD, input, other)


@method
def pow(input: Any, exponent: Any) -> Tensor:
    """input ** exponent; small whole exponents are products.

    Raises: DTypeError for an integer to a negative power.
    """
    if isinstance(exponent, (bool, int, float)):
        x = as_tensor(input)
        input = x = x.to(promote_number(x.dtype, exponent))
        if exponent == 2:
            return apply(pointwise.MUL, x, x)
        if exponent == 1:
            return _copy(x)
        if exponent == 3:
            return apply(pointwise.MUL, apply(pointwise.MUL, x, x), x)
        if exponent == 0.5:
            return sqrt(x)
    return binary(pointwise.POW, input, exponent)


multiply, subtract, divide, true_divide = mul, sub, div, div


@method
def maximum(input: Any, other: Any) -> Tensor:
    """The larger of two, elementwise; ties share the gradient; NaN wins."""
    return binary(pointwise.MAXIMUM, input, other)


@method
def minimum(input: Any, other: Any) -> Tensor:
    """The smaller of two, elementwise; ties share the gradient; NaN wins."""
    return binary(pointwise.MINIMUM, input, other)


# --- composites of one argument -----------------------------------------------------------------------------------
@method
def reciprocal(input: Any) -> Tensor:
    """1 / x."""
    return div(1.0, input)


@method
def rsqrt(input: Any) -> Tensor:
    """1 / √x."""
    return reciprocal(sqrt(input))


@method
def square(input: Any) -> Tensor:
    """x²."""
    return pow(input, 2)


@method
def exp2(input: Any) -> Tensor:
    """2ˣ, exact for whole x."""
    return pow(2.0, as_tensor(input))


@method
def log2(input: Any) -> Tensor:
    """log₂ x."""
    return log(input) * 1.4426950408889634


@method
def log10(input: Any) -> Tensor:
    """log₁₀ x."""
    return log(input) * 0.4342944819032518


@method
def tan(input: Any) -> Tensor:
    """tan x = sin x / cos x."""
    return sin(input) / cos(input)


@method
def sinh(input: Any) -> Tensor:
    """sinh x = (eˣ − e⁻ˣ)/2, by eˣ − 1, which is exact near 0."""
    x = floating(input)
    return (expm1(x) - expm1(-x)) * 0.5


@method
def cosh(input: Any) -> Tensor:
    """cosh x = (eˣ + e⁻ˣ)/2."""
    x = floating(input)
    return (exp(x) + exp(-x)) * 0.5


# --- rounding -----------------------------------------------------------------------------------------------------
@method
def floor(input: Any) -> Tensor:
    """⌊x⌋, without a derivative."""
    x = as_tensor(input)
    return apply(pointwise.FLOOR, x) if x.dtype.kind == "f" else _copy(x)


@method
def ceil(input: Any) -> Tensor:
    """⌈x⌉, without a derivative."""
    x = as_tensor(input)
    return -apply(pointwise.FLOOR, -x) if x.dtype.kind == "f" else _copy(x)


@method
def trunc(input: Any) -> Tensor:
    """x without its fraction, towards 0; without a derivative."""
    x = as_tensor(input)
    return apply(pointwise.FLOOR, abs(x)) * sign(x) if x.dtype.kind == "f" else _copy(x)


@method
def frac(input: Any) -> Tensor:
    """The fraction x − trunc x."""
    x = as_tensor(input)
    return x - trunc(x)


@method
def round(input: Any, *, decimals: int = 0) -> Tensor:
    """The nearest whole number (or multiple of 10^−decimals), without a derivative; halves go to the even one."""
    x = as_tensor(input)
    if x.dtype.kind != "f":
        return _copy(x)
    if decimals:
        return round(x * 10.0**decimals) / 10.0**decimals
    size = abs(x)
    low = apply(pointwise.FLOOR, size)
    rest = size - low
    up = (rest > 0.5) | ((rest == 0.5) & (low % 2 == 1))
    return (low + up.to(x.dtype)) * sign(x)


# --- NaN and infinity ---------------------------------------------------------------------------------------------
@method
def isnan(input: Any) -> Tensor:
    """Whether each value is NaN."""
    x = as_tensor(input)
    return ne(x, x)


@method
def isinf(input: Any) -> Tensor:
    """Whether each value is +∞ or −∞."""
    x = as_tensor(input)
    return eq(abs(x), float("inf")) if x.dtype.kind == "f" else ne(x, x)


@method
def isfinite(input: Any) -> Tensor:
    """Whether each value is neither infinite nor NaN."""
    x = as_tensor(input)
    return lt(abs(x), float("inf")) if x.dtype.kind == "f" else eq(x, x)


@method
def nan_to_num(input: Any, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:
    """NaN, +∞ and −∞ replaced by numbers; the infinities by the largest and smallest of the dtype if not given."""
    x = as_tensor(input)
    if x.dtype.kind != "f":
        return _copy(x)
    largest = float(np.finfo(x.dtype).max)
    x = masked_fill(x, isnan(x), nan)
    x = masked_fill(x, eq(x, float("inf")), largest if posinf is None else posinf)
    return masked_fill(x, eq(x, -float("inf")), -largest if neginf is None else neginf)


# --- clamping, selection, interpolation ---------------------------------------------------------------------------
@method
def clamp(input: Any, min: Any = None, max: Any = None) -> Tensor:
    """Values below ``min`` become it, values above ``max`` become it; the gradient passes inside the bounds.

    Raises: ConfigError without any bound. Note: at the bounds themselves the gradient is 1, as in PyTorch.
    """
    out = as_tensor(input)
    if min is None and max is None:
        raise ConfigError("clamp", got="neither min nor max", needed="at least one of them")
    if min is not None:
        out = where(lt(out, min), min, out)
    if max is not None:
        out = where(gt(out, max), max, out)
    return out


clip = clamp


def where(condition: Any, input: Any, other: Any) -> Tensor:
    """``input`` where the condition holds, else ``other``; operands broadcast and are promoted.

    As a method, ``t.where(condition, other)`` keeps t where the condition holds, as in PyTorch.
    Raises: DTypeError for a condition that is not bool.
    """
    cond = as_tensor(condition)
    if cond.dtype != bool_:
        raise DTypeError("where: condition", got=cond.dtype.name, needed="bool")
    x, y = operands(input, other)
    if x.dtype != y.dtype:
        dtype = promote(((x.dtype, x.ndim), (y.dtype, y.ndim)))
        x, y = x.to(dtype), y.to(dtype)
    return apply(pointwise.WHERE, cond, x, y)


def _where_method(self: Tensor, condition: Any, other: Any) -> Tensor:
    """self where the condition holds, else ``other``."""
    return where(condition, self, other)


@method
def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """``value`` where the mask holds, else the input, in the dtype of the input.

    Raises: DTypeError for a mask that is not bool, and for a float to be put into integers.
    """
    x, cond = as_tensor(input), as_tensor(mask)
    if cond.dtype != bool_:
        raise DTypeError("masked_fill: mask", got=cond.dtype.name, needed="bool")
    filled = as_tensor(value, x)
    if filled.dtype != x.dtype:
        if promote(((x.dtype, 1), (filled.dtype, 0))) != x.dtype:
            raise DTypeError("masked_fill: value", got=filled.dtype.name, needed=f"one that fits into {x.dtype.name}")
        filled = filled.to(x.dtype)
    return apply(pointwise.WHERE, cond, filled, x)


@method
def lerp(input: Any, end: Any, weight: Any) -> Tensor:
    """input + weight · (end − input)."""
    x = as_tensor(input)
    return add(x, mul(sub(end, x), weight))


# --- comparisons and logic ----------------------------------------------------------------------------------------
@method
def eq(input: Any, other: Any) -> Tensor:
    """input = other, elementwise."""
    return binary(pointwise.EQ, input, other)


@method
def ne(input: Any, other: Any) -> Tensor:
    """input ≠ other, elementwise."""
    return binary(pointwise.NE, input, other)


@method
def lt(input: Any, other: Any) -> Tensor:
    """input < other, elementwise."""
    return binary(pointwise.LT, input, other)


@method
def le(input: Any, other: Any) -> Tensor:
    """input ≤ other, elementwise."""
    return binary(pointwise.LE, input, other)


@method
def gt(input: Any, other: Any) -> Tensor:
    """input > other, elementwise."""
    x, y = operands(input, other)
    return binary(pointwise.LT, y, x)


@method
def ge(input: Any, other: Any) -> Tensor:
    """input ≥ other, elementwise."""
    x, y = operands(input, other)
    return binary(pointwise.LE, y, x)


def _truth(x: Any) -> Tensor:
    t = as_tensor(x)
    return t if t.dtype == bool_ else ne(t, 0)


@method
def logical_and(input: Any, other: Any) -> Tensor:
    """Both are true (nonzero)."""
    return apply(pointwise.BITAND, _truth(input), _truth(other))


@method
def logical_or(input: Any, other: Any) -> Tensor:
    """Either is true (nonzero)."""
    return apply(pointwise.BITOR, _truth(input), _truth(other))


@method
def logical_xor(input: Any, other: Any) -> Tensor:
    """Exactly one is true (nonzero)."""
    return apply(pointwise.NE, _truth(input), _truth(other))


@method
def logical_not(input: Any) -> Tensor:
    """Not true (zero)."""
    return apply(pointwise.BITNOT, _truth(input))


# --- products -----------------------------------------------------------------------------------------------------
@method
def matmul(input: Any, other: Any) -> Tensor:
    """Matrix product over the last axes; vectors and leading batch axes as in PyTorch and NumPy.

    Shapes: (…, M, K) @ (…, K, N) → (…, M, N). Raises: ShapeError naming both shapes and the sizes that clash.
    """
    x, y = as_tensor(input), as_tensor(other)
    a, b = x.shape, y.shape
    if not a or not b:
        raise ShapeError(f"matmul: {a} @ {b}", needed="at least one dimension on each side", hint="use *")
    rows = b[-2] if len(b) > 1 else b[0]
    if a[-1] != rows:
        raise ShapeError(f"matmul: {a} @ {b}: columns of the left ({a[-1]}) must equal rows of the right ({rows})")
    if x.dtype != y.dtype:
        dtype = promote(((x.dtype, 1), (y.dtype, 1)))
        x, y = x.to(dtype), y.to(dtype)
    if x.dtype.kind not in reductions.MATMUL.takes:
        check_operands(reductions.MATMUL, (x._storage.array, y._storage.array), {})
    if len(a) == 1 or len(b) == 1:
        left = x.reshape((1, *a)) if len(a) == 1 else x
        right = y.reshape((*b, 1)) if len(b) == 1 else y
        out = matmul(left, right)
        return out.reshape((*out.shape[:-2], *a[-2:-1], *(b[-1:] if len(b) > 1 else ())))
    if len(a) > 2 and len(b) == 2:
        # One product of all rows, forward and backward, instead of a batch of small ones.
        return apply(reductions.MATMUL, x.reshape((math.prod(a[:-1]), a[-1])), y).reshape((*a[:-1], b[-1]))
    return apply(reductions.MATMUL, x, y)


mm = bmm = matmul


@method
def dot(input: Tensor, other: Tensor) -> Tensor:
    """Σᵢ xᵢyᵢ of two vectors."""
    x, y = as_tensor(input), as_tensor(other)
    if x.ndim != 1 or y.ndim != 1:
        raise ShapeError("dot", got=f"{x.shape} and {y.shape}", needed="two vectors")
    return matmul(x, y)


# --- operators and in-place forms ---------------------------------------------------------------------------------
def _checked(function: Callable[..., Tensor], swapped: bool = False) -> Callable[[Tensor, Any], Any]:
    def operator(self: Tensor, other: Any) -> Any:
        if not isinstance(other, _OPERANDS):
            return NotImplemented
        return function(as_tensor(other, self), self) if swapped else function(self, other)

    return operator


def _inverted(self: Tensor) -> Tensor:
    """The other bits; of bools, the opposite."""
    return apply(pointwise.BITNOT, self)


def _in_place(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(function)
    def run(self: Tensor, *others: Any, **options: Any) -> Tensor:
        return self._write(function(self, *others, **options))

    run.__name__ = run.__qualname__ = f"{function.__name__}_"
    run.__doc__ = f"{(function.__doc__ or '').partition(chr(10))[0]} In place."
    return run


_function: Callable[..., Any]
for _name, _function in (("truediv", div), ("pow", pow), ("matmul", matmul)):
    setattr(Tensor, f"__{_name}__", _checked(_function))
    setattr(Tensor, f"__r{_name}__", _checked(_function, swapped=True))
    setattr(Tensor, f"__i{_name}__", _in_place(_function))
for _prefix, _function in zip(("", "r", "i"), _operator(pointwise.FLOOR_DIVIDE), strict=True):
    setattr(Tensor, f"__{_prefix}floordiv__", _function)
for _name, _prim, _swapped in (
    ("eq", pointwise.EQ, False), ("ne", pointwise.NE, False), ("lt", pointwise.LT, False), ("le", pointwise.LE, False),
    ("gt", pointwise.LT, True), ("ge", pointwise.LE, True),
):  # fmt: skip
    setattr(Tensor, f"__{_name}__", _operator(_prim)[_swapped])
for _name, _function in (
    ("__neg__", neg), ("__pos__", _copy), ("__abs__", abs), ("__invert__", _inverted),
    ("absolute", abs), ("negative", neg), ("mm", matmul), ("bmm", matmul),
    ("multiply", mul), ("subtract", sub), ("divide", div), ("true_divide", div), ("clip", clamp),
    ("where", _where_method),
):  # fmt: skip
    setattr(Tensor, _name, _function)
for _function in (
    exp, expm1, log, log1p, sqrt, erf, sin, cos, tanh, sigmoid, softplus, neg, abs, sign, relu, reciprocal, rsqrt,
    square, floor, ceil, trunc, round, add, sub, mul, div, floor_divide, remainder, pow, clamp, masked_fill, lerp,
    maximum, minimum,
):  # fmt: skip
    method(_in_place(_function))


@method
def addcmul_(self: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """self += value · tensor1 · tensor2."""
    return self._write(self + tensor1 * tensor2 * value)


@method
def addcdiv_(self: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """self += value · tensor1 / tensor2."""
    return self._write(self + tensor1 / tensor2 * value)

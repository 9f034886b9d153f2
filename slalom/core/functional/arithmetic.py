"""Operators, elementwise functions, comparisons, clamping and selection, as functions and methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slalom.core.dtype import bool_, get_default_dtype, promote
from slalom.core.ops import TABLE, pointwise, reductions
from slalom.core.primitive import Primitive
from slalom.core.tensor import _OPERANDS, Tensor, apply, as_tensor, binary, method
from slalom.errors import DTypeError, ShapeError

_NEEDS_FLOAT = "exp expm1 log log1p sqrt tanh sigmoid softplus erf sin cos".split()
_KEEPS_DTYPE = "neg abs sign floor relu".split()
__all__ = [
    *_NEEDS_FLOAT, *_KEEPS_DTYPE, "absolute", "add", "bmm", "ceil", "clamp", "clip", "cosh", "div", "divide", "dot", "eq",
    "exp2", "floor_divide", "frac", "ge", "gt", "isfinite", "isinf", "isnan", "le", "lerp", "log10", "log2", "logical_and",
    "logical_not", "logical_or", "logical_xor", "lt", "masked_fill", "matmul", "maximum", "minimum", "mm", "mul",
    "multiply", "nan_to_num", "ne", "negative", "pow", "reciprocal", "remainder", "round", "rsqrt", "sinh", "square",
    "sub", "subtract", "tan", "true_divide", "trunc", "where",
]  # fmt: skip


# --- unary functions, one a primitive -----------------------------------------------------------------------------
def _unary(prim: Primitive) -> Callable[[Any], Tensor]:
    only_float = prim.name in _NEEDS_FLOAT or prim.name == "floor"

    def function(input: Any) -> Tensor:
        x = input if isinstance(input, Tensor) else as_tensor(input)
        if only_float and x._storage.array.dtype.kind != "f":
            if prim.name == "floor":
                return x
            x = x.to(get_default_dtype())
        return apply(prim, x)

    def in_place(self: Tensor) -> Tensor:
        return self._write(function(self))

    function.__name__ = function.__qualname__ = prim.name
    function.__doc__ = f"{prim.doc}, elementwise."
    in_place.__name__, in_place.__doc__ = f"{prim.name}_", f"{prim.doc}, in place."
    method(in_place)
    return method(function)


for _name in (*_NEEDS_FLOAT, *_KEEPS_DTYPE):
    globals()[_name] = _unary(TABLE[_name])

TABLE_FUNCTIONS: dict[str, Callable[[Any], Tensor]] = {n: globals()[n] for n in (*_NEEDS_FLOAT, *_KEEPS_DTYPE)}
absolute, negative = TABLE_FUNCTIONS["abs"], TABLE_FUNCTIONS["neg"]


# --- binary arithmetic --------------------------------------------------------------------------------------------
def _scaled(other: Any, alpha: float) -> Any:
    return other if alpha == 1 else other * alpha


@method
def add(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """input + alpha · other."""
    return binary(pointwise.ADD, as_tensor(input), _scaled(other, alpha))


@method
def sub(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """input − alpha · other."""
    return binary(pointwise.SUB, as_tensor(input), _scaled(other, alpha))


@method
def mul(input: Any, other: Any) -> Tensor:
    """input · other."""
    return binary(pointwise.MUL, as_tensor(input), other)


@method
def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """input / other as floats; ``rounding_mode`` "floor" or "trunc" rounds the quotient.

    Raises: ShapeError for shapes that do not broadcast.
    """
    x = as_tensor(input)
    if rounding_mode == "floor":
        return floor_divide(x, other)
    kind = promote(((x.dtype, x.ndim), _rank(other))).kind
    if kind != "f":
        x = x.to(get_default_dtype())
    out = binary(pointwise.DIV, x, other)
    return out if rounding_mode is None else trunc(out)


def _rank(other: Any) -> tuple[Any, int]:
    if isinstance(other, (bool, int, float)):
        return type(other), -1
    array = as_tensor(other)
    return array.dtype, array.ndim


@method
def floor_divide(input: Any, other: Any) -> Tensor:
    """⌊input / other⌋; integers stay integers."""
    x = as_tensor(input)
    dtype = promote(((x.dtype, x.ndim), _rank(other)))
    if dtype.kind == "f":
        return apply(pointwise.FLOOR, div(x, other))
    # Exact for |x| < 2⁵³: the remainder is removed before dividing.
    rest = binary(pointwise.MOD, x, other)
    return div((x - rest).to("float64"), as_tensor(other, x).to("float64")).to(dtype)


@method
def remainder(input: Any, other: Any) -> Tensor:
    """input − other·⌊input/other⌋: the sign is that of ``other``, as in Python."""
    return binary(pointwise.MOD, as_tensor(input), other)


@method
def pow(input: Any, exponent: Any) -> Tensor:  # noqa: A001
    """input ** exponent; small whole exponents are products."""
    x = as_tensor(input, exponent if isinstance(exponent, Tensor) else None)
    if isinstance(exponent, (int, float)) and not isinstance(exponent, bool):
        if exponent == 2:
            return apply(pointwise.MUL, x, x)
        if exponent == 1:
            return x.clone()
        if exponent == 3:
            return apply(pointwise.MUL, apply(pointwise.MUL, x, x), x)
        if exponent == 0.5:
            return TABLE_FUNCTIONS["sqrt"](x)
        if x.dtype.kind != "f" and exponent < 0:
            raise DTypeError("pow", got=f"{x.dtype.name} to a negative power", needed="a floating dtype")
    return binary(pointwise.POW, x, exponent)


@method
def maximum(input: Any, other: Any) -> Tensor:
    """The larger of two, elementwise; ties share the gradient; NaN wins."""
    return binary(pointwise.MAXIMUM, as_tensor(input), other)


@method
def minimum(input: Any, other: Any) -> Tensor:
    """The smaller of two, elementwise; ties share the gradient; NaN wins."""
    return binary(pointwise.MINIMUM, as_tensor(input), other)


# --- composites of one argument -----------------------------------------------------------------------------------
@method
def reciprocal(input: Any) -> Tensor:
    """1 / x."""
    return div(1.0, as_tensor(input))


@method
def rsqrt(input: Any) -> Tensor:
    """1 / √x."""
    return reciprocal(as_tensor(input).sqrt())


@method
def square(input: Any) -> Tensor:
    """x²."""
    return pow(input, 2)


@method
def exp2(input: Any) -> Tensor:
    """2ˣ."""
    return (as_tensor(input) * 0.6931471805599453).exp()


@method
def log2(input: Any) -> Tensor:
    """log₂ x."""
    return as_tensor(input).log() * 1.4426950408889634


@method
def log10(input: Any) -> Tensor:
    """log₁₀ x."""
    return as_tensor(input).log() * 0.4342944819032518


@method
def tan(input: Any) -> Tensor:
    """tan x = sin x / cos x."""
    x = as_tensor(input)
    return x.sin() / x.cos()


@method
def sinh(input: Any) -> Tensor:
    """sinh x = (e + e/(e + 1))/2 with e = eˣ − 1, which is exact near 0."""
    e = as_tensor(input).abs().expm1()
    return (e + e / (e + 1)) * 0.5 * as_tensor(input).sign()


@method
def cosh(input: Any) -> Tensor:
    """cosh x = (eˣ + e⁻ˣ)/2."""
    e = as_tensor(input).abs().exp()
    return (e + 1 / e) * 0.5


@method
def ceil(input: Any) -> Tensor:
    """⌈x⌉."""
    x = as_tensor(input)
    return -(-x).floor() if x.dtype.kind == "f" else x


@method
def trunc(input: Any) -> Tensor:
    """x without its fraction, towards 0."""
    x = as_tensor(input)
    return x.abs().floor() * x.sign() if x.dtype.kind == "f" else x


@method
def frac(input: Any) -> Tensor:
    """The fraction x − trunc x."""
    return as_tensor(input) - trunc(input)


@method
def round(input: Any, *, decimals: int = 0) -> Tensor:  # noqa: A001
    """The nearest whole number; halves go to the even one."""
    x = as_tensor(input)
    if x.dtype.kind != "f":
        return x
    if decimals:
        return round(x * 10.0**decimals) / 10.0**decimals
    low = x.floor()
    up = (x - low > 0.5) | ((x - low == 0.5) & (low % 2 != 0))
    return low + up.to(x.dtype)


@method
def isnan(input: Any) -> Tensor:
    """Whether each value is NaN."""
    x = as_tensor(input)
    return ne(x, x)


@method
def isinf(input: Any) -> Tensor:
    """Whether each value is +∞ or −∞."""
    x = as_tensor(input)
    return eq(x.abs(), float("inf")) if x.dtype.kind == "f" else ne(x, x)


@method
def isfinite(input: Any) -> Tensor:
    """Whether each value is neither infinite nor NaN."""
    x = as_tensor(input)
    return lt(x.abs(), float("inf")) if x.dtype.kind == "f" else eq(x, x)


@method
def nan_to_num(input: Any, nan: float = 0.0) -> Tensor:
    """NaN replaced by ``nan``."""
    x = as_tensor(input)
    return masked_fill(x, isnan(x), nan)


# --- clamping, selection, interpolation ---------------------------------------------------------------------------
@method
def clamp(input: Any, min: Any = None, max: Any = None) -> Tensor:  # noqa: A002
    """Values below ``min`` become it, values above ``max`` become it; the gradient passes inside the bounds.

    Note: at the bounds themselves the gradient is 1, as in PyTorch.
    """
    x = as_tensor(input)
    out = x
    if min is not None:
        out = where(lt(out, min), min, out)
    if max is not None:
        out = where(gt(out, max), max, out)
    return out


clip = clamp
Tensor.clip = clamp


@method
def where(condition: Any, input: Any, other: Any) -> Tensor:
    """``input`` where the condition holds, else ``other``; operands broadcast and are promoted.

    As a method, ``t.where(condition, other)`` keeps t where the condition holds, as in PyTorch.
    """
    cond = as_tensor(condition)
    if cond.dtype != bool_:
        raise DTypeError("where: condition", got=cond.dtype.name, needed="bool")
    x = input if isinstance(input, Tensor) else None
    y = other if isinstance(other, Tensor) else None
    a = as_tensor(input, y) if x is None else x
    b = as_tensor(other, x) if y is None else y
    if x is None and y is None and isinstance(input, (int, float)) and isinstance(other, (int, float)):
        a, b = as_tensor(input), as_tensor(other)
    if a.dtype != b.dtype:
        dtype = promote(((a.dtype, a.ndim), (b.dtype, b.ndim)))
        a, b = a.to(dtype), b.to(dtype)
    return apply(pointwise.WHERE, cond, a, b)


def _where_method(self: Tensor, condition: Any, other: Any) -> Tensor:
    """self where the condition holds, else ``other``."""
    return where(condition, self, other)


Tensor.where = _where_method


@method
def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """``value`` where the mask holds, else the input."""
    x = as_tensor(input)
    return apply(pointwise.WHERE, as_tensor(mask), as_tensor(value, x).to(x.dtype), x)


@method
def lerp(input: Any, end: Any, weight: Any) -> Tensor:
    """input + weight · (end − input)."""
    x = as_tensor(input)
    return x + (end - x) * weight


# --- comparisons and logic ----------------------------------------------------------------------------------------
@method
def eq(input: Any, other: Any) -> Tensor:
    """input = other, elementwise."""
    return binary(pointwise.EQ, as_tensor(input), other)


@method
def ne(input: Any, other: Any) -> Tensor:
    """input ≠ other, elementwise."""
    return binary(pointwise.NE, as_tensor(input), other)


@method
def lt(input: Any, other: Any) -> Tensor:
    """input < other, elementwise."""
    return binary(pointwise.LT, as_tensor(input), other)


@method
def le(input: Any, other: Any) -> Tensor:
    """input ≤ other, elementwise."""
    return binary(pointwise.LE, as_tensor(input), other)


@method
def gt(input: Any, other: Any) -> Tensor:
    """input > other, elementwise."""
    x = as_tensor(input)
    return binary(pointwise.LT, as_tensor(other, x), x)


@method
def ge(input: Any, other: Any) -> Tensor:
    """input ≥ other, elementwise."""
    x = as_tensor(input)
    return binary(pointwise.LE, as_tensor(other, x), x)


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
    if x.dtype != y.dtype:
        dtype = promote(((x.dtype, 1), (y.dtype, 1)))
        x, y = x.to(dtype), y.to(dtype)
    if not x.ndim or not y.ndim:
        raise ShapeError(f"matmul: {x.shape} @ {y.shape}", needed="at least one dimension on each side", hint="use *")
    if x.ndim == 1 or y.ndim == 1:
        a = x.reshape((1, *x.shape)) if x.ndim == 1 else x
        b = y.reshape((*y.shape, 1)) if y.ndim == 1 else y
        out = matmul(a, b)
        rows = () if x.ndim == 1 else out.shape[-2:-1]
        columns = () if y.ndim == 1 else out.shape[-1:]
        return out.reshape((*out.shape[:-2], *rows, *columns))
    if x.ndim > 2 and y.ndim == 2:
        # One product of all rows, forward and backward, instead of a batch of small ones.
        return apply(reductions.MATMUL, x.reshape((-1, x.shape[-1])), y).reshape((*x.shape[:-1], y.shape[-1]))
    return apply(reductions.MATMUL, x, y)


mm = bmm = matmul


@method
def dot(input: Tensor, other: Tensor) -> Tensor:
    """Σᵢ xᵢyᵢ of two vectors."""
    if input.ndim != 1 or other.ndim != 1:
        raise ShapeError("dot", got=f"{input.shape} and {other.shape}", needed="two vectors")
    return matmul(input, other)


# --- operators and in-place forms ---------------------------------------------------------------------------------
def _checked(function: Callable[[Any, Any], Tensor], swapped: bool = False) -> Callable[[Tensor, Any], Any]:
    def operator(self: Tensor, other: Any) -> Any:
        if not isinstance(other, _OPERANDS):
            return NotImplemented
        return function(as_tensor(other, self), self) if swapped else function(self, other)

    return operator


def _in_place(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def operator(self: Tensor, *others: Any, **options: Any) -> Tensor:
        return self._write(function(self, *others, **options))

    operator.__name__, operator.__doc__ = f"{function.__name__}_", f"{function.__doc__} In place."
    return operator


for _symbol, _function in (
    ("truediv", div), ("floordiv", floor_divide), ("pow", pow), ("matmul", matmul),
):  # fmt: skip
    setattr(Tensor, f"__{_symbol}__", _checked(_function))
    setattr(Tensor, f"__r{_symbol}__", _checked(_function, swapped=True))
    setattr(Tensor, f"__i{_symbol}__", _in_place(_function))
for _function in (eq, ne, lt, le, gt, ge):
    setattr(Tensor, f"__{_function.__name__}__", _checked(_function))
for _function in (add, sub, mul, div, pow, remainder, clamp, masked_fill, lerp, maximum, minimum):
    method(_in_place(_function))
Tensor.__neg__ = TABLE_FUNCTIONS["neg"]
Tensor.__abs__ = TABLE_FUNCTIONS["abs"]
Tensor.__invert__ = lambda self: apply(pointwise.BITNOT, self)
Tensor.absolute, Tensor.negative = TABLE_FUNCTIONS["abs"], TABLE_FUNCTIONS["neg"]
Tensor.mm = Tensor.bmm = matmul
multiply, subtract, divide, true_divide = mul, sub, div, div
Tensor.multiply, Tensor.subtract, Tensor.divide, Tensor.true_divide = mul, sub, div, div


@method
def addcmul_(self: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """self += value · tensor1 · tensor2."""
    return self._write(self + tensor1 * tensor2 * value)


@method
def addcdiv_(self: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """self += value · tensor1 / tensor2."""
    return self._write(self + tensor1 / tensor2 * value)

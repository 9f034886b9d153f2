"""Machine code of the elementwise primitives, made from the expression in each one's record.

A new primitive whose ``expr`` uses only the operators and functions below, with numbers as right operands, needs
nothing here.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import numpy as np

from slalom.compiler import mathlib
from slalom.compiler.ir import I64, STATUS, Builder, Type, Value, literal
from slalom.core.dtype import DType
from slalom.core.primitive import Primitive

_SCALARS: Final = {"f4": "float", "f8": "double", "b1": "i1"}
MATH: Final = frozenset(mathlib.NAMES) - {"pow"}
"""What mathlib computes of one argument."""


def scalar_of(dtype: DType) -> str:
    """The type in which values of a dtype are computed; bools are single bits there."""
    return _SCALARS.get(dtype.str[1:], f"i{8 * dtype.itemsize}")


def memory_scalar(dtype: DType) -> str:
    """The type in which they are kept in memory."""
    return "i8" if dtype.kind == "b" else scalar_of(dtype)


class Operand:
    """A value and the dtype that it stands for: the machine does not tell signed integers from unsigned ones."""

    __slots__ = ("dtype", "value")

    def __init__(self, value: Value, dtype: DType) -> None:
        self.value, self.dtype = value, dtype


def emit(b: Builder, prim: Primitive, operands: list[Operand]) -> Value:
    """The result of an elementwise primitive, for operands of equal lanes."""
    assert prim.expr is not None
    return _Translator(b, dict(zip("xyz", operands, strict=False))).visit(_parsed(prim.expr)).value


@lru_cache(maxsize=256)
def _parsed(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


class _Translator:
    def __init__(self, b: Builder, names: dict[str, Operand]) -> None:
        self.b, self.names = b, names

    def visit(self, node: ast.expr) -> Operand:
        if isinstance(node, ast.Name):
            return self.names[node.id]
        if isinstance(node, ast.IfExp):
            test, yes, no = map(self.visit, (node.test, node.body, node.orelse))
            return Operand(self.b.select(test.value, yes.value, no.value), yes.dtype)
        if isinstance(node, ast.Compare):
            x = self.visit(node.left)
            y = self._beside(x, node.comparators[0])
            return Operand(compare(self.b, type(node.ops[0]).__name__, x, y), x.dtype)
        if isinstance(node, ast.UnaryOp):
            x = self.visit(node.operand)
            return Operand(_UNARY[type(node.op).__name__](self.b, x.value), x.dtype)
        if isinstance(node, ast.BinOp):
            x = self.visit(node.left)
            y = self._beside(x, node.right)
            return Operand(_BINARY[type(node.op).__name__](self.b, x, y), x.dtype)
        assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name), f"no expression: {ast.dump(node)}"
        x, name = self.visit(node.args[0]), node.func.id
        if name in MATH:
            return Operand(mathlib.call(self.b, name, x.value), x.dtype)
        return Operand(_FUNCTIONS[name](self.b, x, *[self._beside(x, arg) for arg in node.args[1:]]), x.dtype)

    def _beside(self, x: Operand, node: ast.expr) -> Operand:
        """A second operand; a number is taken as one of the first's dtype."""
        if isinstance(node, ast.Constant):
            assert isinstance(node.value, int | float), f"no number: {node.value!r}"
            return Operand(literal(node.value, x.value.type), x.dtype)
        return self.visit(node)


# --- comparisons --------------------------------------------------------------------------------------------------
def compare(b: Builder, how: str, x: Operand, y: Operand) -> Value:
    """Eq, NotEq, Lt, LtE, Gt or GtE; with NaN only NotEq holds."""
    short = {"Eq": "eq", "NotEq": "ne", "Lt": "lt", "LtE": "le", "Gt": "gt", "GtE": "ge"}[how]
    if x.dtype.kind == "f":
        return b.compare(("u" if short == "ne" else "o") + short, x.value, y.value)
    sign = "" if short in ("eq", "ne") else "s" if x.dtype.kind == "i" else "u"
    return b.compare(sign + short, x.value, y.value)


def _extreme(b: Builder, how: str, x: Operand, y: Operand) -> Value:
    chosen = b.select(compare(b, how, x, y), x.value, y.value)
    if x.dtype.kind != "f":
        return chosen
    return b.select(b.compare("uno", x.value, x.value), x.value, chosen)  # a NaN in y was chosen already


def maximum(b: Builder, x: Operand, y: Operand) -> Value:
    """The larger; NaN wins."""
    return _extreme(b, "Gt", x, y)


def least(dtype: DType) -> Any:
    """What every maximum starts from."""
    return -np.inf if dtype.kind == "f" else 0 if dtype.kind == "b" else int(np.iinfo(dtype).min)


# --- arithmetic ---------------------------------------------------------------------------------------------------
def _add(b: Builder, x: Operand, y: Operand) -> Value:
    return b.binary("or", x.value, y.value) if x.dtype.kind == "b" else b.add(x.value, y.value)


def _mul(b: Builder, x: Operand, y: Operand) -> Value:
    return b.binary("and", x.value, y.value) if x.dtype.kind == "b" else b.mul(x.value, y.value)


def _floor_divide(b: Builder, x: Operand, y: Operand) -> Value:
    return _float_divmod(b, x.value, y.value)[0] if x.dtype.kind == "f" else _int_divmod(b, x, y)[0]


def _mod(b: Builder, x: Operand, y: Operand) -> Value:
    return _float_divmod(b, x.value, y.value)[1] if x.dtype.kind == "f" else _int_divmod(b, x, y)[1]


def _float_divmod(b: Builder, x: Value, y: Value) -> tuple[Value, Value]:
    """NumPy's: the remainder is exact and has the sign of y; the quotient is made from it."""
    zero, one = literal(0, x.type), literal(1, x.type)
    rest = b.binary("frem", x, y)
    quotient = b.div(b.sub(x, rest), y)
    some = b.compare("une", rest, zero)
    other = b.binary("and", some, b.binary("xor", b.compare("olt", y, zero), b.compare("olt", rest, zero)))
    rest = b.select(other, b.add(rest, y), rest)
    quotient = b.select(other, b.sub(quotient, one), quotient)
    rest = b.select(some, rest, b.intrinsic("copysign", zero, y))
    floor = b.intrinsic("floor", quotient)
    up = b.compare("ogt", b.sub(quotient, floor), literal(0.5, x.type))
    floor = b.select(up, b.add(floor, one), floor)
    plain = b.div(x, y)
    floor = b.select(b.compare("une", quotient, zero), floor, b.intrinsic("copysign", zero, plain))
    by_zero = b.compare("oeq", y, zero)
    return b.select(by_zero, plain, floor), b.select(by_zero, literal(float("nan"), x.type), rest)


def _int_divmod(b: Builder, x: Operand, y: Operand) -> tuple[Value, Value]:
    """⌊x/y⌋ and the rest, both 0 where y is 0; the one quotient that overflows wraps."""
    type = x.value.type
    zero, one = literal(0, type), literal(1, type)
    by_zero = b.compare("eq", y.value, zero)
    if x.dtype.kind == "u":
        safe = b.select(by_zero, one, y.value)
        quotient, rest = b.binary("udiv", x.value, safe), b.binary("urem", x.value, safe)
    else:
        minus = b.compare("eq", y.value, literal(-1, type))  # −x by subtraction, which wraps where division traps
        safe = b.select(b.binary("or", by_zero, minus), one, y.value)
        quotient, rest = b.binary("sdiv", x.value, safe), b.binary("srem", x.value, safe)
        sign = b.compare("slt", b.binary("xor", rest, safe), zero)
        down = b.binary("and", b.compare("ne", rest, zero), sign)
        quotient = b.select(down, b.sub(quotient, one), quotient)
        rest = b.select(down, b.add(rest, safe), rest)
        quotient = b.select(minus, b.neg(x.value), quotient)
        rest = b.select(minus, zero, rest)
    return b.select(by_zero, zero, quotient), b.select(by_zero, zero, rest)


def _pow(b: Builder, x: Operand, y: Operand) -> Value:
    if x.dtype.kind == "f":
        return mathlib.call(b, "pow", x.value, y.value)
    type = x.value.type
    if y.dtype.kind == "i":
        _refuse(b, b.compare("slt", y.value, literal(0, type)))
    result, base, left = b.variable(literal(1, type)), b.variable(x.value), b.variable(y.value)
    with b.loop(0, 8 * x.dtype.itemsize):  # by squaring, one bit of the exponent after the other
        odd = b.compare("ne", b.binary("and", left.get(), literal(1, type)), literal(0, type))
        result.set(b.select(odd, b.mul(result.get(), base.get()), result.get()))
        base.set(b.mul(base.get(), base.get()))
        left.set(b.binary("lshr", left.get(), literal(1, type)))
    return result.get()


def _refuse(b: Builder, bad: Value) -> None:
    """Report values for which the primitive raises an error."""
    if bad.type.lanes:
        bits = Type(f"i{bad.type.lanes}")
        bad = b.compare("ne", b.op(f"bitcast {bad} to {bits}", bits), literal(0, bits))
    with b.when(bad):
        b.store(Value("1", I64), b.pointer("status", STATUS))


def _shift_right(b: Builder, x: Operand, y: Operand) -> Value:
    """Moved by the width or more, everything has gone: 0, or −1 for negative numbers."""
    type, last = x.value.type, 8 * x.dtype.itemsize - 1
    far = b.compare("ugt", y.value, literal(last, type))
    if x.dtype.kind == "i":
        return b.binary("ashr", x.value, b.select(far, literal(last, type), y.value))
    moved = b.binary("lshr", x.value, b.select(far, literal(last, type), y.value))
    return b.select(far, literal(0, type), moved)


def _absolute(b: Builder, x: Operand) -> Value:
    if x.dtype.kind == "f":
        return b.intrinsic("fabs", x.value)
    if x.dtype.kind != "i":
        return x.value
    return b.select(b.compare("slt", x.value, literal(0, x.value.type)), b.neg(x.value), x.value)


def _sign(b: Builder, x: Operand) -> Value:
    type = x.value.type
    zero, one, minus = literal(0, type), literal(1, type), literal(-1, type)
    nought = Operand(zero, x.dtype)
    if x.dtype.kind != "f":
        below = b.select(compare(b, "Lt", x, nought), minus, zero) if x.dtype.kind == "i" else zero
        return b.select(compare(b, "Gt", x, nought), one, below)
    below = b.select(compare(b, "Lt", x, nought), minus, x.value)  # 0 and NaN are their own signs
    return b.select(compare(b, "Gt", x, nought), one, below)


def _maximum_or_relu(b: Builder, x: Operand, y: Operand) -> Value:
    if x.dtype.kind == "f" and y.value == literal(0, x.value.type):
        return b.select(b.compare("ole", x.value, y.value), y.value, x.value)  # NaN is not ≤ 0, and stays
    return maximum(b, x, y)


_UNARY: Final[dict[str, Callable[[Builder, Value], Value]]] = {
    "USub": lambda b, x: b.neg(x),
    "Invert": lambda b, x: b.binary("xor", x, literal(1 if x.type.scalar == "i1" else -1, x.type)),
}
_BINARY: Final[dict[str, Callable[[Builder, Operand, Operand], Value]]] = {
    "Add": _add,
    "Sub": lambda b, x, y: b.sub(x.value, y.value),
    "Mult": _mul,
    "Div": lambda b, x, y: b.div(x.value, y.value),
    "FloorDiv": _floor_divide,
    "Mod": _mod,
    "Pow": _pow,
    "BitAnd": lambda b, x, y: b.binary("and", x.value, y.value),
    "BitOr": lambda b, x, y: b.binary("or", x.value, y.value),
    "RShift": _shift_right,
}
_FUNCTIONS: Final[dict[str, Callable[..., Value]]] = {
    "maximum": _maximum_or_relu,
    "minimum": lambda b, x, y: _extreme(b, "Lt", x, y),
    "abs": _absolute,
    "sign": _sign,
    "floor": lambda b, x: b.intrinsic("floor", x.value),
    "sqrt": lambda b, x: b.intrinsic("sqrt", x.value),
}


# --- casts --------------------------------------------------------------------------------------------------------
def cast(b: Builder, x: Value, source: DType, target: DType) -> Value:
    """The value in another dtype, as C and NumPy convert; floats beyond an integer's range give some integer."""
    to = scalar_of(target)
    if source == target:
        return x
    if target.kind == "b":
        return b.compare("une" if source.kind == "f" else "ne", x, literal(0, x.type))
    if source.kind == "b":
        return b.convert("uitofp" if target.kind == "f" else "zext", x, to)
    if source.kind == target.kind == "f":
        return b.convert("fpext" if target.itemsize > source.itemsize else "fptrunc", x, to)
    if source.kind == "f":
        wide = x.type.of("i64")  # by way of int64: small integers wrap, as in C compilers' code
        name = f"llvm.fptosi.sat.{wide.suffix}.{x.type.suffix}"
        whole = b.call(name, wide, x)
        return whole if to == "i64" else b.convert("trunc", whole, to)
    if target.kind == "f":
        return b.convert("uitofp" if source.kind == "u" else "sitofp", x, to)
    if target.itemsize == source.itemsize:
        return x
    if target.itemsize < source.itemsize:
        return b.convert("trunc", x, to)
    return b.convert("zext" if source.kind == "u" else "sext", x, to)

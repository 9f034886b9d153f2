"""Vector mathematics in LLVM IR: exp, log, tanh, … as polynomials of our own over 16 lanes, float and double.

Every function uses explicit fused multiply-adds and selects alone, so that it gives the same bits for vectors of any
width, and in every lane whatever the others hold. Its error is at most 2 units in the last place of the result,
denormal numbers included; the tests sweep float over all of its numbers. Special values are those of C.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Final

from slalom.compiler import mathlib_basic as basic
from slalom.compiler import mathlib_double as double
from slalom.compiler.ir import LANES, Builder, Type, Value

__all__ = ["NAMES", "call", "functions"]

_FUNCTIONS: Final[dict[str, Callable[..., Value]]] = {
    "exp": basic.exp,
    "expm1": basic.expm1,
    "log": basic.log,
    "log1p": basic.log1p,
    "pow": double.pow,
    "tanh": basic.tanh,
    "sigmoid": basic.sigmoid,
    "softplus": basic.softplus,
    "erf": basic.erf,
    "sin": double.sin,
    "cos": double.cos,
}
NAMES: Final = tuple(_FUNCTIONS)
"""What ``call`` takes. All are functions of one argument, but pow(x, y)."""


def call(b: Builder, name: str, *args: Value) -> Value:
    """Emit name(args) into a kernel: for a scalar, or for vectors of 16, 32, 64, … lanes, of float or double."""
    type = args[0].type
    if not type.lanes:
        return b.extract(call(b, name, *(b.splat(a) for a in args)))
    if type.lanes > LANES:
        half = type.lanes // 2
        parts = [call(b, name, *(b.shuffle(a, a, range(start, start + half)) for a in args)) for start in (0, half)]
        return b.shuffle(parts[0], parts[1], range(type.lanes))
    b.functions.add((name, type.scalar))
    return b.op(f"call {type} @{_symbol(name, type.scalar)}({', '.join(map(str, args))})", type)


def functions(needed: Iterable[tuple[str, str]]) -> str:
    """The text of the functions needed, (name, scalar type) each, and of what they call, in a fixed order.

    The intrinsics in it are not declared: LLVM knows them.
    """
    texts = [_define(*key) for key in sorted(set(needed))]
    if any(name in ("sin", "cos") for name, _ in needed):
        texts.append(double.large_angles())
    return "\n".join(texts)


def _symbol(name: str, scalar: str) -> str:
    return f"slalom.{name}.{scalar}.v{LANES}"


@cache
def _define(name: str, scalar: str) -> str:
    b = Builder()
    args = [Value(f"%{letter}", Type(scalar, LANES)) for letter in ("xy" if name == "pow" else "x")]
    return b.function(_symbol(name, scalar), _FUNCTIONS[name](b, *args), *args)

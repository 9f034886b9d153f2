"""What the emitters of whole primitives share: how a kernel is described, and how elements lie in memory.

An emitter writes one kernel over contiguous row-major buffers and returns how to call it. The words of its arguments
mean ("in", i), ("out", 0), ("status",) or ("scratch", bytes) where they are addresses, and otherwise are their own
value. The text depends on dtypes and ranks, never on extents. Results are those of the primitive's NumPy ``impl``, for
any split of the tasks: integers and orders to the bit, float sums in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from slalom.compiler.ir import Builder, Type, Value, literal
from slalom.compiler.pointwise import memory_scalar
from slalom.core.dtype import DType
from slalom.core.graph import Type as Operand

FAILED: Final = 1
"""What a kernel stores in the status word when an index lies outside its axis."""


class Plan(NamedTuple):
    """How a kernel is called: over ``tasks`` independent pieces, with so many bytes of scratch memory in all."""

    tasks: int
    scratch: int = 0


Emitter = Callable[[Builder, Sequence[Operand], Operand, Mapping[str, Any]], Plan]
"""(builder, the types of the operands, the type of the result, the primitive's parameters) to a Plan."""


def memory_type(dtype: DType, lanes: int = 0) -> Type:
    """How elements lie in memory; a bool is a byte, 0 or 1."""
    return Type(memory_scalar(dtype), lanes)


def widened(b: Builder, value: Value, dtype: DType) -> Value:
    """An integer of a dtype as i64."""
    return value if dtype.itemsize == 8 else b.convert("sext" if dtype.kind == "i" else "zext", value, "i64")


def opposite(b: Builder, condition: Value) -> Value:
    """not."""
    return b.binary("xor", condition, literal(1, condition.type))


def read(b: Builder, type: Type, pointer: Value, mask: Value | None) -> Value:
    """Load, where there is a mask only the lanes that are on."""
    return b.load(type, pointer) if mask is None else b.load_masked(type, pointer, mask)


def write(b: Builder, value: Value, pointer: Value, mask: Value | None) -> None:
    """Store, where there is a mask only the lanes that are on."""
    if mask is None:
        b.store(value, pointer)
    else:
        b.store_masked(value, pointer, mask)

"""The record of a primitive operation, and the kinds that turn its one derivative fact into both rules.

Reverse mode asks a kind for ``vjp`` (one input at a time, only where it is needed), forward mode for ``jvp``.
Facts are written with the operators and methods of their arguments, so that any nesting of the two modes works and
nothing here needs to import Tensor.
"""

from __future__ import annotations

import contextvars
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from slalom.core.dtype import DType
from slalom.core.shape import Shape
from slalom.errors import DTypeError

if TYPE_CHECKING:
    from slalom.core.tensor import Tensor

Params = Mapping[str, Any]
Array = npt.NDArray[Any]
Partial = Callable[..., "Tensor"] | float
"""A partial derivative: a number, or a function of (output, *inputs)."""
quiet: Final = np.errstate(all="ignore")
"""Decorates implementations in which IEEE results (inf, nan) are answers, not warnings."""


class _Silence(threading.local):
    """``run(function, …)`` calls it with NumPy's warnings off, at a tenth of what entering ``np.errstate`` costs."""

    def __init__(self) -> None:
        context = contextvars.Context()
        context.run(np.seterr, all="ignore")
        self.run: Final = context.run


silence: Final = _Silence()


class Kind(ABC):
    """How a primitive is differentiated."""

    reads_values: bool = True
    """Whether its rules read values of inputs or output, not only shapes."""

    @abstractmethod
    def vjp(self, prim: Primitive, i: int, ct: Tensor, out: Tensor, inputs: Sequence[Tensor], params: Params) -> Tensor:
        """The cotangent of input ``i``; it may still have the shape of the output (the walk sums it to shape)."""

    def vjps(
        self, prim: Primitive, wanted: Sequence[int], ct: Tensor, out: Tensor, inputs: Sequence[Tensor], params: Params
    ) -> Iterator[Tensor]:
        """The cotangents of several inputs, in turn."""
        return (self.vjp(prim, i, ct, out, inputs, params) for i in wanted)

    @abstractmethod
    def jvp(
        self, prim: Primitive, tangents: Sequence[Tensor | None], out: Tensor, inputs: Sequence[Tensor], params: Params
    ) -> Tensor | None:
        """The tangent of the output; None stands for zero, in and out."""

    def differentiable(self, i: int) -> bool:
        """Whether a derivative with respect to input ``i`` exists."""
        return True


class Elementwise(Kind):
    """``elementwise(partials)``: jvp = Σ ∂ᵢ·tᵢ and vjp = ∂ᵢ·ct."""

    def __init__(self, *partials: Partial) -> None:
        self.partials: Final = partials
        self.reads_values = any(map(callable, partials))

    def _times(self, i: int, t: Tensor, out: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        partial = self.partials[i]
        if callable(partial):
            return t * partial(out, *inputs)
        return t if partial == 1 else -t if partial == -1 else t * partial

    def vjp(self, prim: Primitive, i: int, ct: Tensor, out: Tensor, inputs: Sequence[Tensor], params: Params) -> Tensor:
        return self._times(i, ct, out, inputs)

    def jvp(
        self, prim: Primitive, tangents: Sequence[Tensor | None], out: Tensor, inputs: Sequence[Tensor], params: Params
    ) -> Tensor | None:
        return _total(self._times(i, t, out, inputs) for i, t in enumerate(tangents) if t is not None)


class Select(Kind):
    """``select(masks)``: each input's share of t is chosen, never multiplied, since 0·inf is NaN.

    A mask is a function of (t, output, *inputs) that returns t where the input is taken and 0 elsewhere; None marks
    an input without a derivative (the condition).
    """

    def __init__(self, *masks: Callable[..., Tensor] | None) -> None:
        self.masks: Final = masks

    def differentiable(self, i: int) -> bool:
        return self.masks[i] is not None

    def vjp(self, prim: Primitive, i: int, ct: Tensor, out: Tensor, inputs: Sequence[Tensor], params: Params) -> Tensor:
        mask = self.masks[i]
        assert mask is not None, "the walk asks only for differentiable inputs"
        return mask(ct, out, *inputs)

    def jvp(
        self, prim: Primitive, tangents: Sequence[Tensor | None], out: Tensor, inputs: Sequence[Tensor], params: Params
    ) -> Tensor | None:
        pairs = zip(self.masks, tangents, strict=True)
        return _total(mask(t, out, *inputs) for mask, t in pairs if t is not None and mask is not None)


class Linear(Kind):
    """``linear(transpose)``: jvp is the operation itself; vjp is ``transpose(ct, *inputs, **params)``.

    Only the first input is a linear argument (the others are indices); ``variadic`` says that all are, and then the
    transpose is called as ``transpose(i, ct, *inputs, **params)``.
    """

    reads_values = False

    def __init__(self, transpose: Callable[..., Tensor], *, variadic: bool = False) -> None:
        self.transpose: Final = transpose
        self.variadic: Final = variadic

    def differentiable(self, i: int) -> bool:
        return self.variadic or i == 0

    def vjp(self, prim: Primitive, i: int, ct: Tensor, out: Tensor, inputs: Sequence[Tensor], params: Params) -> Tensor:
        if self.variadic:
            return self.transpose(i, ct, *inputs, **params)
        return self.transpose(ct, *inputs, **params)

    def jvp(
        self, prim: Primitive, tangents: Sequence[Tensor | None], out: Tensor, inputs: Sequence[Tensor], params: Params
    ) -> Tensor | None:
        if not self.variadic:
            moved = tangents[0]
            return None if moved is None else moved._apply(prim, *inputs[1:], **params)
        first, *rest = (x._zeros() if t is None else t for t, x in zip(tangents, inputs, strict=True))
        return first._apply(prim, *rest, **params)


class Bilinear(Kind):
    """``bilinear(lhs, rhs)``: the two vjps, called as ``lhs(ct, x, y)``; jvp is op(tx, y) + op(x, ty)."""

    def __init__(self, lhs: Callable[..., Tensor], rhs: Callable[..., Tensor]) -> None:
        self.sides: Final = (lhs, rhs)

    def vjp(self, prim: Primitive, i: int, ct: Tensor, out: Tensor, inputs: Sequence[Tensor], params: Params) -> Tensor:
        return self.sides[i](ct, *inputs)

    def jvp(
        self, prim: Primitive, tangents: Sequence[Tensor | None], out: Tensor, inputs: Sequence[Tensor], params: Params
    ) -> Tensor | None:
        (tx, ty), (x, y) = tangents, inputs
        parts = [tx._apply(prim, y, **params)] if tx is not None else []
        return _total([*parts, x._apply(prim, ty, **params)] if ty is not None else parts)


class Constant(Kind):
    """``constant``: piecewise constant or integer-valued; no derivative."""

    def differentiable(self, i: int) -> bool:
        return False

    def vjp(self, prim: Primitive, i: int, ct: Tensor, out: Tensor, inputs: Sequence[Tensor], params: Params) -> Tensor:
        raise AssertionError(f"{prim.name} has no derivative")

    def jvp(
        self, prim: Primitive, tangents: Sequence[Tensor | None], out: Tensor, inputs: Sequence[Tensor], params: Params
    ) -> Tensor | None:
        return None


class Custom(Kind):
    """``custom(jvp, vjp)`` of one input, both called as ``rule(t, out, x, **params)``; for the very few."""

    def __init__(self, jvp: Callable[..., Tensor], vjp: Callable[..., Tensor]) -> None:
        self._jvp, self._vjp = jvp, vjp

    def vjp(self, prim: Primitive, i: int, ct: Tensor, out: Tensor, inputs: Sequence[Tensor], params: Params) -> Tensor:
        return self._vjp(ct, out, *inputs, **params)

    def jvp(
        self, prim: Primitive, tangents: Sequence[Tensor | None], out: Tensor, inputs: Sequence[Tensor], params: Params
    ) -> Tensor | None:
        return None if tangents[0] is None else self._jvp(tangents[0], out, *inputs, **params)


def _total(terms: Any) -> Tensor | None:
    """The sum of terms, None when there are none."""
    result = None
    for term in terms:
        result = term if result is None else result + term
    return result


def first_dtype(*inputs: Any, **params: Any) -> DType:
    """The dtype rule of operations whose result has the dtype of their first input."""
    return inputs[0].dtype  # type: ignore[no-any-return]


def common_dtype(name: str) -> Callable[..., DType]:
    """The dtype rule of operations whose inputs have one dtype, which is the result's too."""

    def rule(*inputs: Any, **params: Any) -> DType:
        for x in inputs[1:]:
            if x.dtype != inputs[0].dtype:
                raise DTypeError(f"{name}: dtypes {inputs[0].dtype.name} and {x.dtype.name}", needed="one dtype")
        return first_dtype(*inputs)

    return rule


@dataclass(frozen=True, eq=False)
class Primitive:
    """One operation: everything that is known of it, in one record.

    name: as printed in graphs. impl: the NumPy reference, arrays in, array out. kind: its derivative.
    shape, dtype: rules over (*inputs, **params), where an input is anything with ``shape`` and ``dtype``; the shape
    rule raises the error text that users see. expr: for elementwise operations the scalar expression over x, y, z
    from which machine code is made. index: for structural ones the map from an output index to where the value is
    read (see ops/structural). view: the NumPy result may share memory with its first input. add_into: adds the
    transpose of a cotangent into a buffer without building it at full size. doc: one line.
    """

    name: str
    impl: Callable[..., Any]
    kind: Kind
    shape: Callable[..., Shape]
    doc: str
    dtype: Callable[..., DType] = first_dtype
    expr: str | None = None
    index: Callable[..., Any] | None = None
    view: bool = False
    add_into: Callable[..., None] | None = None
    takes: frozenset[str] = field(default=frozenset("buif"))
    """The dtype kinds that the inputs may have (b bool, u and i integers, f floating)."""
    bare: Callable[..., Any] = field(init=False)
    """``impl`` without ``quiet``, for callers that have turned the warnings off themselves."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "bare", getattr(self.impl, "__wrapped__", self.impl))

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"


def is_array(value: object) -> bool:
    """Whether ``value`` is a NumPy array or scalar."""
    return isinstance(value, (np.ndarray, np.generic))

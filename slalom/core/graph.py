"""Graph: a finished record of a computation, the one thing that executors take and compiler passes rewrite.

Values are numbered; every value is defined once, as an input, a constant or the result of an equation.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from slalom.core.dtype import SHORT, DType
from slalom.core.primitive import Array, Primitive
from slalom.core.shape import Shape
from slalom.core.tensor import check_operands
from slalom.errors import SlalomError


class Type(NamedTuple):
    """Shape and dtype of a value; prints as ``f32[64,10]``."""

    shape: Shape
    dtype: DType

    def __str__(self) -> str:
        return f"{SHORT[self.dtype]}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Input:
    """A value given from outside: an argument, state, the gradient slot of a tensor, or a number that steers."""

    value: int
    kind: Literal["argument", "state", "grad", "number"]
    name: str


@dataclass(frozen=True)
class Output:
    """A value handed out: a result, the new content of a state or argument, or a gradient."""

    value: int
    kind: Literal["result", "write", "grad"]
    name: str


@dataclass(frozen=True)
class Equation:
    """``out = prim(*inputs, **params)``, and the user's line it came from."""

    out: int
    prim: Primitive
    inputs: tuple[int, ...]
    params: dict[str, Any]
    site: str | None


@dataclass(frozen=True, repr=False)
class Graph:
    """A recorded computation in the order of its recording; ``types`` gives the type of each value."""

    types: tuple[Type, ...]
    inputs: tuple[Input, ...]
    constants: dict[int, Array]
    equations: tuple[Equation, ...]
    outputs: tuple[Output, ...]

    @cached_property
    def made(self) -> dict[int, Equation]:
        """By value, the equation that computes it."""
        return {eq.out: eq for eq in self.equations}

    def part(self, inputs: Sequence[Input], made: Container[int], outputs: Sequence[Output]) -> Graph:
        """The equations that make some values, as a graph of their own; ``inputs`` are given there instead."""
        equations = [eq for eq in self.equations if eq.out in made]
        numbers: dict[int, int] = {}
        types: list[Type] = []

        def number(value: int) -> int:
            numbers[value] = len(types)
            types.append(self.types[value])
            return numbers[value]

        read = {value for eq in equations for value in eq.inputs} | {output.value for output in outputs}
        new_inputs = tuple([replace(place, value=number(place.value)) for place in inputs])
        constants = {number(value): array for value, array in self.constants.items() if value in read}
        new_equations: list[Equation] = []
        for eq in equations:
            operands = tuple([numbers[value] for value in eq.inputs])
            new_equations.append(replace(eq, inputs=operands, out=number(eq.out)))
        new_outputs = tuple([replace(output, value=numbers[output.value]) for output in outputs])
        return Graph(tuple(types), new_inputs, constants, tuple(new_equations), new_outputs).check()

    def check(self) -> Graph:
        """Check that every value is defined once and before its use, and that every type is what the rules say.

        Returns: the graph itself. Raises: AssertionError naming the line (a defect of a pass, never a user's).
        """
        known: set[int] = set()

        def define(value: int, by: Equation | str) -> None:
            if value in known or not 0 <= value < len(self.types):
                line = by if isinstance(by, str) else self._line(by)
                raise AssertionError(f"defined twice, or without a type: {line}")
            known.add(value)

        for place in self.inputs:
            define(place.value, f"%{place.value}  # {place.kind} {place.name}")
        for value, array in self.constants.items():
            define(value, f"%{value} = {_brief(array)}")
            if Type(array.shape, array.dtype) != self.types[value]:
                raise AssertionError(f"constant %{value} is {array.dtype}{array.shape}, not {self.types[value]}")
        for eq in self.equations:
            if not known.issuperset(eq.inputs):
                raise AssertionError(f"used before it is defined: {self._line(eq)}")
            define(eq.out, eq)
            found = self._type_by_rule(eq)
            if found != self.types[eq.out]:
                raise AssertionError(f"the rules give {found}: {self._line(eq)}")
        for output in self.outputs:
            if output.value not in known:
                raise AssertionError(f"output {output.name} = %{output.value} is never defined")
        if len(known) != len(self.types):
            raise AssertionError(f"{len(self.types)} types for {len(known)} values")
        return self

    def _type_by_rule(self, eq: Equation) -> Type:
        try:
            return Type(*check_operands(eq.prim, [self.types[i] for i in eq.inputs], eq.params))
        except (SlalomError, TypeError, IndexError) as error:
            raise AssertionError(f"the rules refuse ({error}): {self._line(eq)}") from error

    def _line(self, eq: Equation) -> str:
        params = [f"{k}={_brief(v)}" for k, v in eq.params.items()]
        typed = self.types[eq.out] if 0 <= eq.out < len(self.types) else "?"
        return f"%{eq.out}: {typed} = {eq.prim.name}({', '.join([f'%{i}' for i in eq.inputs] + params)})"

    def __str__(self) -> str:
        lines = ["graph("]
        lines += [f"  %{i.value}: {self.types[i.value]}  # {i.kind} {i.name}" for i in self.inputs]
        lines.append("):")
        lines += [f"  %{v}: {self.types[v]} = {_brief(a)}" for v, a in self.constants.items()]
        for eq in self.equations:
            text = self._line(eq)
            lines.append(f"  {text}" if eq.site is None else f"  {text:<72}  # {eq.site.rpartition('/')[2]}")
        lines += [f"  {o.kind} {o.name} = %{o.value}" for o in self.outputs]
        return "\n".join(lines)

    __repr__ = __str__


def _brief(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return str(value.item()) if value.size == 1 else f"constant of {value.size} elements"
    return getattr(value, "name", None) or repr(value).replace(" ", "")

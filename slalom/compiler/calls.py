"""Calls: what lowering makes of kernels, for the memory plan and the program to read."""

from __future__ import annotations

from dataclasses import dataclass, field

from slalom.compiler.ir import Builder, Memory
from slalom.compiler.nodes import Kernel, Schedule
from slalom.core.primitive import Array
from slalom.core.step import Body


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a kernel. ``words``: what its argument words hold, a Memory or a number · ``writes``, ``reads``: the
    values in memory that it touches · ``checks``: whether it may report an index out of range · ``flops``: elementary
    operations, from the extents of the graph · ``loops``: its loops in words."""

    kernel: Kernel | None
    builder: Builder
    tasks: int
    words: tuple[Memory | int, ...]
    writes: tuple[int, ...]
    reads: frozenset[int]
    checks: bool = False
    flops: int = 0
    loops: tuple[str, ...] = ()
    ways: int = 1
    """Among how many threads it is worth sharing."""

    def __str__(self) -> str:
        name = "pack" if self.kernel is None else f"{self.kernel.kind} {list(self.kernel.space)}"
        return f"{name} → {', '.join(f'%{v}' for v in self.writes)}"


@dataclass(frozen=True, eq=False)
class Repeat:
    """A loop among the calls of a program. ``step``: what its step is, and its ``calls``, of which the first ``once``
    are made only once · ``operands``: where the loop's own begin · ``room``: the value that is the memory of a step."""

    kernel: Kernel
    body: Body
    step: Lowered
    calls: tuple[Call, ...]
    once: int
    operands: tuple[Memory, ...]
    out: int
    room: int
    steps: int
    reverse: bool

    @property
    def writes(self) -> tuple[int, ...]:
        return self.out, self.room

    @property
    def reads(self) -> frozenset[int]:
        return frozenset(memory.value for memory in self.operands)

    @property
    def checks(self) -> bool:
        return any(call.checks for call in self.calls)

    @property
    def loops(self) -> tuple[str, ...]:
        lines = [f"{self.steps} steps, {'backwards' if self.reverse else 'forwards'}, each of"]
        for call in self.calls:
            lines += [f"  {call}", *(f"    {line}" for line in call.loops)]
        return tuple(lines)

    def __str__(self) -> str:
        return f"loop of {self.steps} steps → %{self.out}"


@dataclass(eq=False)
class Lowered:
    """The calls, and the sizes in bytes of the memory that they need beside the values of the graph."""

    schedule: Schedule
    calls: list[Call | Repeat] = field(default_factory=list)
    scratch: dict[int, int] = field(default_factory=dict)
    tables: dict[int, Array] = field(default_factory=dict)
    """Constants beside those of the graph."""

    @property
    def constants(self) -> dict[int, Array]:
        """Those of the graph, and the tables."""
        return self.schedule.graph.constants | self.tables

    def bytes_of(self, value: int) -> int:
        """How many bytes the memory of a value has."""
        if value in self.tables:
            return self.tables[value].nbytes
        if value in self.scratch:
            return self.scratch[value]
        return self.schedule.elements(value) * self.schedule.graph.types[value].dtype.itemsize

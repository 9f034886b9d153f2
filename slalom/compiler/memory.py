"""Memory plan: where each value lives. One arena for what only the program sees, no allocation while it runs.

A value that becomes the new content of a state is computed in place, in the state's own memory, where nobody needs the
old content any more; otherwise it is made aside and copied at the end.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from slalom.compiler.calls import Call, Lowered, Repeat
from slalom.compiler.nodes import Kernel, reads

ALIGN: Final = 64
SKEW: Final = 64 * 5
"""Between large values, so that equal elements of several do not compete for one place in the cache."""


class Place(NamedTuple):
    """An input, an output or a constant by number, or an offset in the arena in bytes."""

    where: Literal["input", "output", "constant", "arena"]
    number: int

    def __str__(self) -> str:
        return f"{self.where} {self.number}"


class Copy(NamedTuple):
    """At the end of a step: so many bytes of a value become an output."""

    source: Place
    target: Place
    bytes: int

    def __str__(self) -> str:
        return f"{self.bytes} bytes of {self.source} to {self.target}"


@dataclass(eq=False)
class Plan:
    """``places`` of values, bytes of the ``arena``, ``copies`` after the last call, and the first call (by number)
    from which on the outside is written."""

    places: dict[int, Place] = field(default_factory=dict)
    arena: int = 0
    copies: list[Copy] = field(default_factory=list)
    commit: int = 0
    in_place: dict[int, int] = field(default_factory=dict)
    """Output number → input number, where the output is the input's own memory."""
    steps: dict[Lowered, Plan] = field(default_factory=dict)
    """By the step of a loop, where its values live …"""
    constants: dict[Lowered, dict[int, int]] = field(default_factory=dict)
    """… and the numbers that its constants have here."""

    def __str__(self) -> str:
        lines = [f"arena of {self.arena} bytes, commit before call {self.commit}"]
        lines += [f"  %{v}: {place}" for v, place in sorted(self.places.items())]
        lines += [f"  output {output}: in place of input {given}" for output, given in self.in_place.items()]
        lines += [f"  at the end: {copy}" for copy in self.copies]
        for step in self.steps.values():
            lines += ["  in each step of a loop:", *(f"    {line}" for line in str(step).splitlines())]
        return "\n".join(lines)


def plan(lowered: Lowered, targets: dict[int, int], guard: int | None = None) -> Plan:
    """Place all values.

    targets: for outputs that become the content of an input, the number of that input · guard: the number of an output
    that must be known before anything outside is written.
    """
    return _Planner(lowered, targets, guard).plan()


class _Planner:
    def __init__(self, lowered: Lowered, targets: dict[int, int], guard: int | None, lasting: int = 0) -> None:
        self.lasting = lasting  # so many calls are made once, and what they leave behind stays
        self.lowered, self.targets, self.guard = lowered, targets, guard
        self.graph, self.calls, self.roots = lowered.schedule.graph, lowered.calls, lowered.schedule.roots
        self.holder = lowered.schedule.holder
        self.found = Plan(commit=len(lowered.calls))

    def plan(self) -> Plan:
        graph, found = self.graph, self.found
        self._steps()
        for i, given in enumerate(graph.inputs):
            found.places[given.value] = Place("input", i)
        for value in (*graph.constants, *self.lowered.tables):
            found.places[value] = Place("constant", value)
        self._outputs()
        self._arena()
        for value in self.lowered.schedule.parts:
            found.places[value] = found.places[self.holder(value)]
        self._copies()
        return found

    def _steps(self) -> None:
        """Plan the steps of loops, of which several may have the same."""
        found, free = self.found, 1 + max([*self.lowered.constants, *self.lowered.scratch, len(self.graph.types)])
        for call in self.calls:
            if not isinstance(call, Repeat):
                continue
            if call.step not in found.steps:
                found.steps[call.step] = _Planner(call.step, {}, None, lasting=call.once).plan()
                found.constants[call.step] = {v: free + i for i, v in enumerate(call.step.constants)}
                free += len(call.step.constants)
                found.places |= {n: Place("constant", n) for n in found.constants[call.step].values()}
            self.lowered.scratch[call.room] = max(found.steps[call.step].arena, ALIGN)

    def _copies(self) -> None:
        """Copy what lies elsewhere; first aside, what an earlier copy would overwrite (states that are swapped)."""
        found, taken = self.found, set[Place]()
        aside: list[Copy] = []
        for i, output in enumerate(self.graph.outputs):
            root, target = self.roots[output.value], self._target(i)
            place, bytes = found.places[root], self.lowered.bytes_of(root)
            if place == target:
                continue
            if place in taken:
                aside.append(Copy(place, Place("arena", found.arena), bytes))
                place = aside[-1].target
                found.arena += -(-bytes // ALIGN) * ALIGN
            taken.add(target)
            found.copies.append(Copy(place, target, bytes))
        found.copies[:0] = aside

    def _target(self, i: int) -> Place:
        return Place("input", self.targets[i]) if i in self.targets else Place("output", i)

    def _outputs(self) -> None:
        """Let results be computed where they are wanted."""
        places = self.found.places
        checked = max((i for i, call in enumerate(self.calls) if call.checks), default=-1)
        if self.guard is not None:
            checked = max(checked, self._maker(self.roots[self.graph.outputs[self.guard].value]))
        for i, output in enumerate(self.graph.outputs):
            root = self.roots[output.value]
            if root in places:
                continue
            if i not in self.targets:
                places[root] = Place("output", i)
                continue
            given = self.graph.inputs[self.targets[i]].value
            maker = self._maker(root)
            if (
                maker > checked
                and self._last_read(given) <= maker
                and self._may_replace(self.calls[maker], root, given)
            ):
                places[root] = Place("input", self.targets[i])
                self.found.in_place[i] = self.targets[i]
                self.found.commit = min(self.found.commit, maker)

    def _maker(self, value: int) -> int:
        """The number of the call that stores a value; −1 for what was there before."""
        return next((n for n, call in enumerate(self.calls) if value in call.writes), -1)

    def _last_read(self, value: int) -> int:
        last = max((n for n, call in enumerate(self.calls) if value in call.reads), default=-1)
        copied = any(self.roots[o.value] == value for o in self.graph.outputs)
        return len(self.calls) if copied else last

    def _may_replace(self, call: Call | Repeat, root: int, old: int) -> bool:
        """Whether a call may write a value over another: it reads that, if at all, at the same element only."""
        kernel = call.kernel
        if old not in call.reads:
            return True
        if kernel is None or kernel.kind not in ("sweep", "product") or any(v == old for v, _ in kernel.operands):
            return False
        place = self.lowered.schedule.place
        at = place(root, kernel.members[root])
        return all(place(old, index) == at for index in _reads_of(kernel, old))

    # --- the arena ------------------------------------------------------------------------------------------------
    def _arena(self) -> None:
        places, found = self.found.places, self.found
        lives: dict[int, list[int]] = {}
        for n, call in enumerate(self.calls):
            for value in map(self.holder, (*call.writes, *call.reads)):
                if value not in places:
                    life = lives.setdefault(value, [n, n])
                    life[1] = max(life[1], len(self.calls) if n < self.lasting else n)
        for output in self.graph.outputs:
            if self.roots[output.value] in lives:
                lives[self.roots[output.value]][1] = len(self.calls)
        taken: list[tuple[int, int, int, int]] = []  # from and to which byte, by that, and from and to which call
        for value, (first, last) in sorted(lives.items(), key=lambda item: (-self.lowered.bytes_of(item[0]), item[0])):
            need = -(-self.lowered.bytes_of(value) // ALIGN) * ALIGN
            need = need + SKEW if need >= 4096 else max(need, ALIGN)
            start = 0
            for low, high, a, b in taken:
                if low >= start + need:
                    break
                if a <= last and first <= b and start < high:
                    start = high
            insort(taken, (start, start + need, first, last))
            places[value] = Place("arena", start)
            found.arena = max(found.arena, start + need)


def _reads_of(kernel: Kernel, value: int) -> Iterator[tuple]:  # type: ignore[type-arg]
    for node in (*kernel.bodies.values(), *kernel.elements.values()):
        for read in reads(node):
            if read.value == value:
                yield read.at

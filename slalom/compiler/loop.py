"""The native loop: many steps of a recorded function over mini-batches, and whole epochs, without Python in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from slalom.compiler import llvm
from slalom.compiler.epochs import Epochs
from slalom.compiler.pace import Pace
from slalom.compiler.program import address
from slalom.compiler.threads import Outcome, Reason, Section, Table
from slalom.compiler.turn import Copies, Recording, Shared, Turn
from slalom.core.node import Storage, note_writes
from slalom.core.primitive import Array
from slalom.core.tensor import Tensor

__all__ = ["Draw", "Loop", "Outcome", "Reason", "Recording", "Rows", "Run"]


class Draw(NamedTuple):
    """The state of the random generator before the first step, and by how much its last number grows from step to
    step."""

    state: tuple[int, ...]
    stride: int


START: Final = Draw((0, 0, 0), 0)


@dataclass(frozen=True)
class Rows:
    """What batches are made of: so many rows; and the tensors that are looked at after each epoch.

    They are copied to ``Loop.kept`` where an epoch begins; ``Loop.finite`` tells whether those that are ``checked``
    were where it ended.
    """

    count: int
    tensors: Sequence[Tensor]
    checked: Sequence[bool]


class Run(NamedTuple):
    """What a run has done."""

    steps: int
    sums: Array
    """Of each epoch that ended, those of its steps since ``total`` was set; one row an epoch …"""
    when: list[float]
    """… and when it did: between 0, the beginning of the run, and 1."""
    outcome: Outcome


class Loop:
    """Steps of recorded functions whose arguments are mini-batches.

    recordings: those of an epoch in order, each with the number of steps that are made of it; of functions that return
    (sums, finite): a float64 vector, and a truth value without which a step writes nothing. rows: what batches are made
    of, after ``take_from``; None: the caller puts each batch into ``batch``, and makes one step at a time. generator:
    the state of a random generator, whose last number is set anew before each step; runs work on a copy of their own,
    so that several loops can share it.

    ``total``: the sums of the steps of this epoch, which the caller may set · ``latest``: those of the last step ·
    ``finite``: whether all of ``rows.tensors`` were · ``pace``: how to run it ·
    ``turns``: the steps by themselves.

    Raises: LookupError for a record that depends on more than its arguments, states and numbers.
    """

    def __init__(
        self, recordings: Sequence[tuple[Recording, int]], rows: Rows | None = None, generator: Storage | None = None
    ) -> None:
        self._shared = shared = Shared(recordings[0][0])
        count = None if rows is None else rows.count
        self._epochs = epochs = None if rows is None else Epochs(rows.count, rows.tensors, rows.checked, shared)
        beside = [] if epochs is None else epochs.builders
        self.turns = [Turn(recording, count, generator, shared, beside) for recording, _ in recordings]
        self.steps: Final = sum(times for _, times in recordings)
        """In an epoch."""
        self._times = [times for _, times in recordings]
        self._arrays: list[Array] = []
        self._generator = generator
        self._written = list({id(storage): storage for turn in self.turns for storage in turn.written}.values())
        self.total, self.latest = shared.total, shared.latest
        self.table: Final = self._table()
        self.pace: Final = Pace(self.shared)

    @property
    def batch(self) -> list[Array]:
        """The memory of the present batch, by argument."""
        return self.turns[0].batch

    @property
    def finite(self) -> bool:
        """Whether the tensors that are kept were finite at the end of the last epoch."""
        return self._epochs is None or bool(self._epochs.finite)

    def _table(self) -> Table:
        turns, epochs = self.turns, self._epochs
        builders = [turn.builders for turn in turns]
        beside = [] if epochs is None else epochs.builders
        addresses = iter(llvm.load([*(b for found in builders for b in found), *beside]))
        codes = [[next(addresses) for _ in found] for found in builders]
        # What steers moves on with every step, of whichever kind, and so does the place in the random numbers.
        along = [(word, 0) for turn in turns for word in turn.number_words()]
        along.append((address(self._shared.draw) + 8, 0))
        sections = []
        for turn, times, code in zip(turns, self._times, codes, strict=True):
            moves = [(word, 8 * turn.rows) for word in turn.index_words()]
            sections.append(Section(turn.calls(code), [*along, *moves], times))
        self._moving = len(along)
        if epochs is not None:
            code, (begun, ended) = list(addresses), epochs.advances()
            for turn, times in zip(turns, self._times, strict=True):
                ended += [(word, -8 * turn.rows * times) for word in turn.index_words()]
            sections = [Section(epochs.begin(code), begun), *sections, Section(epochs.end(code), ended)]
        table = Table.in_sections(sections)
        for turn in turns:
            turn.report_to(table.status_address)
        if epochs is not None:
            epochs.report_to(table.status_address)
        return table

    # --- what it runs on ------------------------------------------------------------------------------------------
    @property
    def kept(self) -> list[Array]:
        """What the tensors were where the epoch began."""
        return [] if self._epochs is None else self._epochs.kept

    def take_from(self, arrays: Sequence[Array], seed: int) -> None:
        """Make batches of the rows of these arrays, by argument, in an order that is a function of (seed, epoch)."""
        assert self._epochs is not None, "there are rows"
        self._arrays = [np.ascontiguousarray(array) for array in arrays]
        self._epochs.seed = seed
        for turn in self.turns:
            turn.take_from(self._arrays)

    def release(self) -> None:
        """Let go of the arrays: before the next run it needs others."""
        self._arrays = []

    def is_of(self, recordings: Sequence[tuple[Recording, int]], rows: Rows | None) -> bool:
        """Whether these are what it was made of."""
        given = [(recording.record, times) for recording, times in recordings]
        own = [(turn.recording.record, times) for turn, times in zip(self.turns, self._times, strict=True)]
        if len(own) != len(given) or any(a is not b or n != m for (a, n), (b, m) in zip(own, given, strict=True)):
            return False
        if rows is None or self._epochs is None:
            return rows is None and self._epochs is None
        tensors = self._epochs.tensors
        return (
            rows.count == len(self._epochs.index)
            and len(rows.tensors) == len(tensors)
            and all(a is b for a, b in zip(rows.tensors, tensors, strict=True))
        )

    # --- running --------------------------------------------------------------------------------------------------
    def holds(self) -> bool:
        """Whether the records still fit the world: nothing that they depend on has changed."""
        return all(turn.recording.holds() for turn in self.turns)

    def numbers(self) -> list[float]:
        """The numbers that steer, as they are now."""
        return self.turns[0].numbers()

    @property
    def shared(self) -> bool:
        """Whether any of the work of its steps is worth more than one thread."""
        sections = self.table.sections if self._epochs is None else self.table.sections[1:-1]
        return any(call.ways > 1 for section in sections for call in section.calls)

    def ahead(self, epoch: int) -> int:
        """How many epochs, from this one on, one run can make."""
        return 1 if self._epochs is None else self._epochs.ahead(epoch)

    def run(
        self,
        steps: int,
        threads: int,
        *,
        epoch: int = 0,
        batch: int = 0,
        rates: Array | None = None,
        draw: Draw = START,
    ) -> Run:
        """Make so many steps, from a batch of an epoch on, over the rows in order; also the ends of epochs.

        rates: (steps, numbers), what steers each step; None: the numbers as they are now, for all of them.
        """
        assert self._epochs is None or self._arrays, "take_from says what batches are made of"
        shared = self._shared
        if rates is None:
            shared.now[:] = self.numbers()
        copies = self._bind(epoch, batch, address(shared.now if rates is None else rates))
        stride = 0 if rates is None else 8 * shared.numbers
        for moves in self.table.advances if self._epochs is None else self.table.advances[1:-1]:
            moves[: self._moving, 1] = stride
            moves[self._moving - 1, 1] = draw.stride
        shared.state[:], shared.draw[1] = draw.state, draw.state[-1]
        start = self._place(batch)
        outcome = self.table.run(self._place(batch + steps) - start, threads, start=start)
        for storage, copy in copies.values():
            if storage in self._written:
                np.copyto(storage.array, copy)
        note_writes(self._written)
        if self._generator is not None:
            self._generator.write(shared.state)
        return self._run(epoch, batch, start + outcome.steps, outcome)

    def _place(self, batch: int) -> int:
        """The step of the table's cycle (or of a later one) before a batch: the first comes before the beginning."""
        epoch, batch = divmod(batch, self.steps)
        return self.table.cycle * epoch + (0 if self._epochs is None else batch and 1 + batch)

    def _bind(self, epoch: int, batch: int, numbers: int) -> Copies:
        """Tell all parts where everything is; the copies that are used of what does not lie in row order."""
        copies: Copies = {}
        epochs = self._epochs
        place = 0 if epochs is None else address(epochs.index)
        left = batch
        for turn, times in zip(self.turns, self._times, strict=True):
            done = min(left, times)
            left -= done
            turn.bind(place + 8 * turn.rows * done, numbers, copies)
            place += 8 * turn.rows * times
        if epochs is not None:
            epochs.bind(epoch, batch > 0, copies)
        return copies

    def _run(self, epoch: int, batch: int, place: int, outcome: Outcome) -> Run:
        """What was done in a run that ended at a place of the cycle (or of a later one)."""
        epochs = self._epochs
        if epochs is None:
            return Run(outcome.steps, np.empty((0, self.total.size)), [], outcome)
        ended, place = divmod(place, self.table.cycle)
        steps = ended * self.steps + max(0, place - 1) - batch
        if ended or place:
            epochs.ordered = epoch + ended - (place == 0)
        sums, ticks = epochs.noted(ended)
        return Run(steps, sums, [self.table.clock(at) for at in ticks], outcome)

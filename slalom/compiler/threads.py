"""Runs a program: a table of calls in memory, walked natively for many steps by one thread or by a team of them.

One thread walks without an atomic instruction. Several stay inside one call for the whole run: each takes its
contiguous share of a call's tasks, and they meet at barriers. Whoever arrives last does what needs doing alone before
it lets the others go: calls for a single thread, the end of a step (counters move on, the stop flag is read) and the
check before a commit; so all threads always agree on how the run goes on. A wait spins briefly, then yields the
processor, then sleeps in the kernel (futex). Which thread does what never changes a result: a task's outcome must not
depend on who runs it. The machine code of all this is in ``walker``.

The workers of a team are daemon threads that never come back to Python; between runs they sleep. Teams are kept for
the next run. A child of fork starts without any.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slalom.compiler.profile import seconds_of
from slalom.compiler.runtime import available_cpus
from slalom.compiler.walker import BARRIER, COMMIT, SINGLE, Head, Reason, Record, State, Team, walkers

__all__ = ["Call", "Outcome", "Reason", "Section", "Table"]

_STEPS, _DONE, _REASON = int(State.STEPS), int(State.DONE), int(State.REASON)  # looked up at every step
_STOP, _STATUS = int(State.STOP), int(State.STATUS)
_ALL: Final = 2**31  # ways of a call that any number of threads may share


class Call(NamedTuple):
    """One call of a kernel ``void (ptr args, i64 begin, i64 end)`` over the tasks 0 … tasks − 1."""

    function: int
    """Address of the code."""
    args: int
    """Address of its words."""
    tasks: int
    ways: int = _ALL
    """How many threads may share it; 1: a single thread runs it."""
    barrier: bool = True
    """Whether all threads meet after it. Without, the next call may begin before this one has ended."""
    commit: bool = False
    """Whether it must not run after an error: it is skipped, and the run ends, if the status word is not 0 …"""
    guard: int = 0
    """… or if the byte at this address (0: none) is 0."""


class Section(NamedTuple):
    """Calls that are made so many times, each of which is a step, before those of the next section."""

    calls: Sequence[Call]
    advances: Sequence[tuple[int, int]] = ()
    """Pairs (address of a 64-bit word, increment), added after each of these steps."""
    times: int = 1


class Outcome(NamedTuple):
    """How a run went."""

    steps: int
    """Steps completed."""
    reason: Reason
    at: int
    """The call before which the run ended; the number of calls where it ended between steps."""
    threads: int
    """How many threads took part."""
    waits: tuple[float, ...]
    """The share of the run that each thread waited for others: 0 … 1."""


class Table:
    """A program: calls, made in order in every step, and counters that move on after each.

    ``advances``: pairs (address of a 64-bit word, increment), added after every completed step. ``in_sections`` makes
    a table whose steps are not all alike. All memory that is named by address must outlive the runs.
    """

    def __init__(self, calls: Sequence[Call], advances: Sequence[tuple[int, int]] = ()) -> None:
        self._lay_out([Section(calls, advances)])

    @classmethod
    def in_sections(cls, sections: Sequence[Section]) -> Table:
        """A table that goes through sections in order, and then through all of them again."""
        table = cls.__new__(cls)
        table._lay_out(sections)
        return table

    def _lay_out(self, sections: Sequence[Section]) -> None:
        self.sections = tuple(section for section in sections if section.calls and section.times)
        self.calls = tuple(call for section in self.sections for call in section.calls)
        self.cycle = sum(section.times for section in self.sections)
        """After how many steps the first section begins anew."""
        self._records = _aligned(len(self.calls) * Record.WORDS)
        self._heads = _aligned(len(self.sections) * Head.WORDS)
        self.advances = [np.array(section.advances, np.int64).reshape(-1, 2) for section in self.sections]
        """By section, the pairs; increments may be changed between runs."""
        first, heads = self._records.ctypes.data, self._heads.reshape(-1, Head.WORDS)
        for section, moves, head in zip(self.sections, self.advances, heads, strict=True):
            end = first + 8 * Record.WORDS * len(section.calls)
            head[:5] = first, end, moves.ctypes.data, len(moves), section.times
            first = end
        rows = [
            _record(call, then) for s in self.sections for call, then in zip(s.calls, [*s.calls[1:], None], strict=True)
        ]
        self._records.reshape(-1, Record.WORDS)[:, :6] = np.array(rows, np.int64).reshape(-1, 6)
        self._state = _aligned(State.WORDS)
        self._words = self._state.data
        self._address = self._state.ctypes.data
        self._words[State.SECTIONS] = self._heads.ctypes.data
        self._words[State.LAST] = self._heads.ctypes.data + self._heads.nbytes
        self._busy = threading.Lock()
        self._walk: Callable[..., None] = walkers().alone
        self._alone = ctypes.c_void_p(), ctypes.c_int64(self._address), ctypes.c_int64()
        if self.sections:
            self._go_to(0)

    @property
    def status_address(self) -> int:
        """Where a kernel stores a number other than 0 to report an error."""
        return self._address + 8 * State.STATUS

    @property
    def status(self) -> int:
        """The error that a kernel reported; 0 for none. Whoever handles it sets it to 0 again."""
        return self._words[State.STATUS]

    @status.setter
    def status(self, value: int) -> None:
        self._words[State.STATUS] = value

    def stop(self) -> None:
        """End the run after the step that is being made, or else the next run at once. For any thread."""
        self._words[State.STOP] = 1

    def run(self, steps: int, threads: int = 1, *, start: int = 0) -> Outcome:
        """Make so many steps with so many threads, from step ``start`` of a cycle of all sections on.

        Other Python threads go on meanwhile.
        Raises: RuntimeError if a run of this table is under way.
        """
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("the table is being run by another thread")
        try:
            return self._run(steps, threads, start)
        finally:
            self._busy.release()

    def step(self) -> int:
        """Make one step on this thread, and return the status word: ``run(1)`` in less time, for tables that have no
        sections and one caller, who sees to it that no other run is under way."""
        words = self._words
        if words[_STOP] or not self.calls:
            self._run(1, 1, 0)
            return words[_STATUS]
        words[_STEPS] = 1
        words[_DONE] = words[_REASON] = 0
        _running.append(self)
        try:
            self._walk(*self._alone)
        finally:
            _running.remove(self)
        return words[_STATUS]

    def times(self) -> list[float]:
        """Make one step call by call from Python, on this thread; how many seconds each call took.

        Raises: RuntimeError if a run of this table is under way.
        """
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("the table is being run by another thread")
        try:
            found = []
            for call in self.calls:
                if call.commit and self.status:
                    break
                found.append(seconds_of(call.function, call.args, call.tasks))
            return found
        finally:
            self._busy.release()

    def clock(self, ticks: int) -> float:
        """When a call of the last run read the clock: between 0, where that run began, and 1, where it ended."""
        return (ticks - self._words[State.STARTED]) / max(1, self._words[State.TICKS])

    def _run(self, steps: int, threads: int, start: int) -> Outcome:
        words = self._words
        if words[State.STOP] or steps < 1 or not self.calls:
            reason = Reason.STOPPED if words[State.STOP] else Reason.FINISHED
            words[State.STOP] = 0
            return Outcome(0, reason, len(self.calls), 0, ())
        words[State.STEPS], words[State.THREADS] = steps, threads
        words[State.DONE] = words[State.REASON] = 0
        words[State.AT] = end = self._records.ctypes.data + self._records.nbytes
        self._go_to(start)
        _running.append(self)
        try:
            if threads == 1:
                walkers().alone(0, self._address, 0)
                waits: tuple[float, ...] = (0.0,)
            else:
                waits = self._run_shared(threads)
        finally:
            _running.remove(self)
        reason = Reason(words[State.REASON])
        if reason is Reason.STOPPED:
            words[State.STOP] = 0
        at = len(self.calls) - (end - words[State.AT]) // (8 * Record.WORDS)
        return Outcome(words[State.DONE], reason, at, len(waits), waits)

    def _go_to(self, step: int) -> None:
        """Let the next run begin at a step of the cycle."""
        words, heads = self._words, self._heads.data
        for i, section in enumerate(self.sections):
            if step < section.times:
                words[State.SECTION] = words[State.SECTIONS] + 8 * Head.WORDS * i
                words[State.LEFT] = section.times - step
                words[State.END] = heads[Head.WORDS * i + Head.END]
                return
            step -= section.times
        raise IndexError("a step behind the end of the cycle")

    def _run_shared(self, threads: int) -> tuple[float, ...]:
        with _lock:
            idle = _idle.setdefault(threads, [])
            team = idle.pop() if idle else None
        if team is None:
            team = _Workers(threads)
        waits = team.run(self._address, self._words)
        with _lock:
            _idle.setdefault(threads, []).append(team)
        return waits


class _Workers:
    """A team: the caller's thread and n − 1 workers, which wait for its runs for good."""

    def __init__(self, threads: int) -> None:
        words = _aligned(Team.LINES + 8 * threads)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(words))  # the workers outlive even the interpreter
        self._address = words.ctypes.data
        self._words = words.data
        self._lines = [Team.LINES + 8 * i for i in range(threads)]
        native = walkers()
        self._words[Team.WALKER] = native.shared_address
        self._words[Team.SPINS] = 200 if threads <= available_cpus() else 0
        for i in range(1, threads):
            worker = threading.Thread(target=native.serve, args=(0, self._address, i), daemon=True)
            worker.name = f"slalom-{i}"
            worker.start()

    def run(self, state: int, words: memoryview) -> tuple[float, ...]:
        """Run a table; the share of the time that each thread which took part has waited."""
        before = [self._words[line + 1] for line in self._lines]
        self._words[Team.STATE] = state
        words[State.TEAM] = self._address
        walkers().shared(0, state, 0)
        ticket, ticks = self._words[Team.TICKET], max(1, words[State.TICKS])
        ran = [line for line in self._lines if self._words[line] == ticket]
        return tuple(min(1.0, (self._words[line + 1] - was) / ticks) for line, was in zip(ran, before, strict=True))


# --- lives of teams ---------------------------------------------------------------------------------------------------
_lock: Final = threading.RLock()
_idle: Final[dict[int, list[_Workers]]] = {}
_running: Final[list[Table]] = []


def _after_fork() -> None:
    """In the child there are no workers, and no runs of other threads."""
    _idle.clear()
    _running.clear()
    _lock.release()


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_after_fork)


@atexit.register
def _stop_all() -> None:
    """Runs of daemon threads must end before the interpreter takes their memory away: a second is granted."""
    until = time.monotonic() + 1.0
    while _running and time.monotonic() < until:
        for table in tuple(_running):
            table.stop()
        time.sleep(0.001)


def _record(call: Call, following: Call | None) -> tuple[int, int, int, int, int, int]:
    """The words of a call; whether all threads meet after it depends on the one that follows in its section."""
    barrier = call.barrier or following is None or following.commit
    ways = min(call.ways, max(1, call.tasks))
    flags = barrier * BARRIER | call.commit * COMMIT | (barrier and ways == 1) * SINGLE
    return call.function, call.args, call.tasks, ways, flags, call.guard


def _aligned(words: int) -> NDArray[np.int64]:
    """So many zeros, from the start of a cache line on."""
    room = np.zeros(words + 8, np.int64)
    start = -room.ctypes.data // 8 % 8
    return room[start : start + words]

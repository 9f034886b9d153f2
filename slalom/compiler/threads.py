"""Runs a program: a table of calls in memory, walked natively for many steps by one thread or by a team of them.

One thread walks without an atomic instruction. Several stay inside one call for the whole run: each takes its
contiguous share of a call's tasks, and they meet at barriers. Whoever arrives last does what needs doing alone before
it lets the others go: calls for a single thread, the end of a step (counters move on, the stop flag is read) and the
check before a commit; so all threads always agree on how the run goes on. A wait spins briefly, then yields the
processor, then sleeps in the kernel (futex). Which thread does what never changes a result: a task's outcome must not
depend on who runs it.

The workers of a team are daemon threads that never come back to Python; between runs they sleep. Teams are kept for
the next run. A child of fork starts without any.

Source: J. M. Mellor-Crummey, M. L. Scott, Algorithms for Scalable Synchronization on Shared-Memory Multiprocessors
(1991), section 3 (sense-reversing barrier, here with a generation number); U. Drepper, Futexes Are Tricky (2011).
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import platform
import threading
import time
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slalom.compiler import llvm
from slalom.compiler.ir import I1, I8, I32, I64, PTR, Builder, Value, Variable, literal
from slalom.compiler.profile import seconds_of
from slalom.compiler.runtime import available_cpus

__all__ = ["Call", "Outcome", "Reason", "Table"]

_ALL: Final = 2**31  # ways of a call that any number of threads may share
_BARRIER, _COMMIT, _SINGLE = 1, 2, 4  # flags of a record


class Reason(IntEnum):
    """Why a run ended."""

    FINISHED = 0
    STOPPED = 1
    """``Table.stop`` was called."""
    STATUS = 2
    """A kernel stored an error in the status word."""
    GUARD = 3
    """The guard of a commit held 0."""


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


class _State(IntEnum):
    """Words of a table's state. What other threads write has a cache line (8 words) of its own."""

    STEPS = 0
    CALLS = 1
    END = 2
    """Address after the last record."""
    ADVANCES = 3
    PAIRS = 4
    TEAM = 5
    THREADS = 6
    DONE = 8
    REASON = 9
    AT = 10
    TICKS = 11
    STOP = 16
    STATUS = 24
    WORDS = 32


class _Record(IntEnum):
    """Words of a call's record."""

    FUNCTION = 0
    ARGS = 1
    TASKS = 2
    WAYS = 3
    FLAGS = 4
    GUARD = 5
    WORDS = 8


class _Team(IntEnum):
    """Words of a team's memory, by cache lines."""

    TICKET = 0
    """Number of the latest run."""
    STATE = 1
    WALKER = 2
    SPINS = 3
    """Pauses before a wait yields; 0 if there are more threads than processors."""
    PARKED = 8
    """Workers that sleep until the next run."""
    ARRIVED = 16
    GENERATION = 24
    POSITION = 25
    """The record that comes after the barrier; 0 at the end of the run."""
    SLEEPERS = 32
    LINES = 40
    """From here on, a line for each thread: the latest run it took part in, and all the ticks it waited."""


class Table:
    """A program: calls, made in order in every step, and counters that move on after each.

    ``advances``: pairs (address of a 64-bit word, increment), added after every completed step; an int64 array
    (pairs, 2) that may be changed between runs.
    All memory that is named by address must outlive the runs.
    """

    def __init__(self, calls: Sequence[Call], advances: Sequence[tuple[int, int]] = ()) -> None:
        self.calls = tuple(calls)
        self._records = _aligned(len(calls) * _Record.WORDS)
        rows = self._records.reshape(len(calls), _Record.WORDS)
        for i, call in enumerate(calls):
            barrier = call.barrier or i + 1 == len(calls) or calls[i + 1].commit
            ways = min(call.ways, max(1, call.tasks))
            flags = barrier * _BARRIER | call.commit * _COMMIT | (barrier and ways == 1) * _SINGLE
            rows[i, :6] = call.function, call.args, call.tasks, ways, flags, call.guard
        self.advances = np.array(advances, np.int64).reshape(-1, 2)
        self._state = _aligned(_State.WORDS)
        self._words = self._state.data
        self._address = self._state.ctypes.data
        self._words[_State.CALLS] = self._records.ctypes.data
        self._words[_State.END] = self._records.ctypes.data + self._records.nbytes
        self._words[_State.ADVANCES] = self.advances.ctypes.data
        self._words[_State.PAIRS] = len(self.advances)
        self._busy = threading.Lock()

    @property
    def status_address(self) -> int:
        """Where a kernel stores a number other than 0 to report an error."""
        return self._address + 8 * _State.STATUS

    @property
    def status(self) -> int:
        """The error that a kernel reported; 0 for none. Whoever handles it sets it to 0 again."""
        return self._words[_State.STATUS]

    @status.setter
    def status(self, value: int) -> None:
        self._words[_State.STATUS] = value

    def stop(self) -> None:
        """End the run after the step that is being made, or else the next run at once. For any thread."""
        self._words[_State.STOP] = 1

    def run(self, steps: int, threads: int = 1) -> Outcome:
        """Make so many steps with so many threads. Other Python threads go on meanwhile.

        Raises: RuntimeError if a run of this table is under way.
        """
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("the table is being run by another thread")
        try:
            return self._run(steps, threads)
        finally:
            self._busy.release()

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

    def _run(self, steps: int, threads: int) -> Outcome:
        words = self._words
        if words[_State.STOP] or steps < 1 or not self.calls:
            reason = Reason.STOPPED if words[_State.STOP] else Reason.FINISHED
            words[_State.STOP] = 0
            return Outcome(0, reason, len(self.calls), 0, ())
        words[_State.STEPS], words[_State.THREADS] = steps, threads
        words[_State.DONE] = words[_State.REASON] = 0
        words[_State.AT] = words[_State.END]
        _running.append(self)
        try:
            if threads == 1:
                _native().alone(0, self._address, 0)
                waits: tuple[float, ...] = (0.0,)
            else:
                waits = self._run_shared(threads)
        finally:
            _running.remove(self)
        reason = Reason(words[_State.REASON])
        if reason is Reason.STOPPED:
            words[_State.STOP] = 0
        at = (words[_State.AT] - words[_State.CALLS]) // (8 * _Record.WORDS)
        return Outcome(words[_State.DONE], reason, at, len(waits), waits)

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
        words = _aligned(_Team.LINES + 8 * threads)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(words))  # the workers outlive even the interpreter
        self._address = words.ctypes.data
        self._words = words.data
        self._lines = [_Team.LINES + 8 * i for i in range(threads)]
        native = _native()
        self._words[_Team.WALKER] = native.shared_address
        self._words[_Team.SPINS] = 200 if threads <= available_cpus() else 0
        for i in range(1, threads):
            worker = threading.Thread(target=native.serve, args=(0, self._address, i), daemon=True)
            worker.name = f"slalom-{i}"
            worker.start()

    def run(self, state: int, words: memoryview) -> tuple[float, ...]:
        """Run a table; the share of the time that each thread which took part has waited."""
        before = [self._words[line + 1] for line in self._lines]
        self._words[_Team.STATE] = state
        words[_State.TEAM] = self._address
        _native().shared(0, state, 0)
        ticket, ticks = self._words[_Team.TICKET], max(1, words[_State.TICKS])
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


# --- native code ------------------------------------------------------------------------------------------------------
class _Native(NamedTuple):
    alone: Callable[[int, int, int], None]
    shared: Callable[[int, int, int], None]
    serve: Callable[[int, int, int], None]
    shared_address: int


@functools.cache
def _native() -> _Native:
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    alone, shared, serve = llvm.load([_alone(), _shared(), _serve()])
    return _Native(prototype(alone), prototype(shared), prototype(serve), shared)


_NULL: Final = Value("null", PTR)


def _pointed(b: Builder) -> Value:
    """The memory that a walker works on comes as a number, since LLVM takes ``args`` for memory no call writes to."""
    return b.convert("inttoptr", b.begin, "ptr")


class _Walk:
    """Writes what both walkers have in common."""

    def __init__(self) -> None:
        self.b = b = Builder()
        self.state = _pointed(b)
        self.steps, self.calls = self.get(_State.STEPS), self.get(_State.CALLS, PTR)
        self.end, self.advances = self.get(_State.END, PTR), self.get(_State.ADVANCES, PTR)
        self.pairs = self.get(_State.PAIRS)
        self.start = _ticks(b)
        self.now = b.variable(self.calls)

    def get(self, word: int, type: Any = I64) -> Value:
        return self.b.load(type, self.b.offset(self.state, word, I64))

    def put(self, word: int, value: Value) -> None:
        self.b.store(value, self.b.offset(self.state, word, I64))

    def settle(self, every: bool) -> None:
        """What one thread does while no other works: ends of steps, checks before commits, calls for a single thread.

        ``every``: all calls are its own. ``now`` is left at the next call for all threads, or at null at the end.
        """
        b, now = self.b, self.now
        live = b.variable(I1)
        with b.repeat_while() as going:
            with b.when(b.compare("eq", now.get(), self.end)):
                self._end_step()
            live.set(b.compare("ne", now.get(), _NULL))
            with b.when(live.get()):
                record = now.get()
                flags = _field(b, record, _Record.FLAGS)
                with b.when(_has(b, flags, _COMMIT)):
                    self._check(record, live)
                if not every:
                    live.set(b.binary("and", live.get(), _has(b, flags, _SINGLE)))
                with b.when(live.get()):
                    _make_call(b, record, literal(0, I64), _field(b, record, _Record.TASKS))
                    now.set(b.offset(record, _Record.WORDS, I64))
            going.append(live.get())

    def _end_step(self) -> None:
        b = self.b
        with b.loop(0, self.pairs) as i:
            pair = b.offset(self.advances, b.mul(i, literal(2, I64)), I64)
            place = b.load(PTR, pair)
            b.store(b.add(b.load(I64, place), b.load(I64, b.offset(pair, 1, I64))), place)
        done = b.add(self.get(_State.DONE), literal(1, I64))
        self.put(_State.DONE, done)
        stop = _load_atomic(b, b.offset(self.state, _State.STOP, I64), "monotonic")
        reason = b.select(_is(b, stop, 0), literal(Reason.FINISHED, I64), literal(Reason.STOPPED, I64))
        reason = b.select(_is(b, self.get(_State.STATUS), 0), reason, literal(Reason.STATUS, I64))
        self.put(_State.REASON, reason)
        ends = b.binary("or", b.compare("sge", done, self.steps), b.compare("ne", reason, literal(0, I64)))
        self.now.set(b.select(ends, _NULL, self.calls))

    def _check(self, record: Value, live: Variable) -> None:
        b = self.b
        byte = b.variable(literal(1, I8))
        guard = b.load(PTR, b.offset(record, _Record.GUARD, I64))
        with b.when(b.compare("ne", guard, _NULL)):
            byte.set(b.load(I8, guard))
        reason = b.select(_is(b, byte.get(), 0), literal(Reason.GUARD, I64), literal(Reason.FINISHED, I64))
        reason = b.select(_is(b, self.get(_State.STATUS), 0), reason, literal(Reason.STATUS, I64))
        with b.when(b.compare("ne", reason, literal(0, I64))):
            self.put(_State.REASON, reason)
            b.store(record, b.offset(self.state, _State.AT, I64))
            self.now.set(_NULL)
            live.set(literal(0, I1))


def _alone() -> Builder:
    """``(–, state, –)``: one thread makes all calls."""
    walk = _Walk()
    walk.settle(every=True)
    walk.put(_State.TICKS, walk.b.sub(_ticks(walk.b), walk.start))
    return walk.b


def _shared() -> Builder:
    """``(–, state, thread)``: one of several threads. Thread 0 wakes the others."""
    walk = _Walk()
    b, now, thread = walk.b, walk.now, walk.b.end
    team, threads = walk.get(_State.TEAM, PTR), walk.get(_State.THREADS)
    ticket, arrived, generation = (b.offset(team, w, I64) for w in (_Team.TICKET, _Team.ARRIVED, _Team.GENERATION))
    position, sleepers = b.offset(team, _Team.POSITION, I64), b.offset(team, _Team.SLEEPERS, I64)
    line = b.offset(team, b.add(b.mul(thread, literal(8, I64)), literal(_Team.LINES, I64)), I64)
    waited = b.offset(line, 1, I64)
    spins = b.load(I64, b.offset(team, _Team.SPINS, I64))
    one = literal(1, I64)
    with b.when(_is(b, thread, 0)):
        _release(b, ticket, b.offset(team, _Team.PARKED, I64))
    b.store(_load_atomic(b, ticket, "monotonic"), line)

    with b.repeat_while() as going:
        old = _load_atomic(b, generation, "monotonic")
        others = b.op(f"atomicrmw add {arrived}, {one} acq_rel, align 8", I64)
        last = b.compare("eq", b.add(others, one), threads)
        with b.when(last):
            walk.settle(every=False)
            b.store(now.get(), position)
            b.do(f"store atomic {literal(0, I64)}, {arrived} monotonic, align 8")
            _release(b, generation, sleepers)
        with b.when(b.binary("xor", last, literal(1, I1))):
            since = _ticks(b)
            _await(b, generation, old, sleepers, spins)
            b.store(b.add(b.load(I64, waited), b.sub(_ticks(b), since)), waited)
        now.set(b.load(PTR, position))
        live = b.compare("ne", now.get(), _NULL)
        with b.when(live), b.repeat_while() as more:
            record = now.get()
            _make_share(b, record, thread, threads)
            now.set(b.offset(record, _Record.WORDS, I64))
            more.append(_is(b, b.binary("and", _field(b, record, _Record.FLAGS), literal(_BARRIER, I64)), 0))
        going.append(live)
    with b.when(_is(b, thread, 0)):
        walk.put(_State.TICKS, b.sub(_ticks(b), walk.start))
    return b


def _serve() -> Builder:
    """``(–, team, thread)``: a worker, which takes part in every run of its team and never returns."""
    b = Builder()
    team = _pointed(b)
    ticket, parked = b.offset(team, _Team.TICKET, I64), b.offset(team, _Team.PARKED, I64)
    spins = b.load(I64, b.offset(team, _Team.SPINS, I64))
    walker = b.load(PTR, b.offset(team, _Team.WALKER, I64))
    seen = b.variable(literal(0, I64))
    with b.repeat_while() as going:
        _await(b, ticket, seen.get(), parked, spins)
        seen.set(_load_atomic(b, ticket, "acquire"))
        state = b.load(I64, b.offset(team, _Team.STATE, I64))
        b.do(f"call void {walker.text}({_NULL}, {state}, {b.end})")
        going.append(literal(1, I1))
    return b


def _make_share(b: Builder, record: Value, thread: Value, threads: Value) -> None:
    """A thread's own tasks: ⌊t·n/w⌋ … ⌊(t+1)·n/w⌋ of n, as one of w threads."""
    tasks = _field(b, record, _Record.TASKS)
    ways = b.intrinsic("smin", _field(b, record, _Record.WAYS), threads)
    with b.when(b.compare("slt", thread, ways)):
        begin = b.binary("udiv", b.mul(tasks, thread), ways)
        end = b.binary("udiv", b.mul(tasks, b.add(thread, literal(1, I64))), ways)
        with b.when(b.compare("slt", begin, end)):
            _make_call(b, record, begin, end)


def _make_call(b: Builder, record: Value, begin: Value, end: Value) -> None:
    function = b.load(PTR, b.offset(record, _Record.FUNCTION, I64))
    args = b.load(PTR, b.offset(record, _Record.ARGS, I64))
    b.do(f"call void {function.text}({args}, {begin}, {end})")


def _await(b: Builder, word: Value, old: Value, sleepers: Value, spins: Value) -> None:
    """Wait until a word is no longer what it was: spin, then yield 100 times (some 50 µs), then sleep."""
    yields = b.add(spins, literal(100, I64))
    tries = b.variable(literal(0, I64))
    one = literal(1, I64)
    with b.repeat_while() as waiting:
        same = b.compare("eq", _load_atomic(b, word, "acquire"), old)
        with b.when(same):
            count = tries.get()
            tries.set(b.add(count, one))
            spinning, yielding = b.compare("slt", count, spins), b.compare("slt", count, yields)
            with b.when(spinning):
                _pause(b)
            with b.when(b.binary("xor", spinning, yielding)):
                b.call("sched_yield", I32)
            with b.when(b.binary("xor", yielding, literal(1, I1))):
                b.op(f"atomicrmw add {sleepers}, {one} seq_cst, align 8", I64)
                _futex(b, word, _WAIT, b.convert("trunc", old, "i32"))
                b.op(f"atomicrmw sub {sleepers}, {one} seq_cst, align 8", I64)
        waiting.append(same)


def _release(b: Builder, word: Value, sleepers: Value) -> None:
    """Add 1 to a word that others wait for.

    Either a waiter's count is seen here, or the kernel sees the new word in its place: both orders are total.
    """
    b.op(f"atomicrmw add {word}, {literal(1, I64)} seq_cst, align 8", I64)
    with b.when(b.compare("ne", _load_atomic(b, sleepers, "seq_cst"), literal(0, I64))):
        _futex(b, word, _WAKE, literal(2**31 - 1, I32))


_WAIT, _WAKE = 128, 129  # FUTEX_WAIT_PRIVATE, FUTEX_WAKE_PRIVATE
_FUTEX: Final = {"x86_64": 202, "aarch64": 98}  # the number of the system call


def _futex(b: Builder, word: Value, what: int, value: Value) -> None:
    """The system call; it looks at the lower half of the word, which stands first on these machines."""
    b.declared.setdefault("syscall", "declare i64 @syscall(i64, ...)")
    number = literal(_FUTEX[platform.machine()], I64)
    rest = f"{literal(what, I64)}, {value}, {_NULL}, {_NULL}, {literal(0, I64)}"
    b.do(f"call i64 (i64, ...) @syscall({number}, {word}, {rest})")


def _pause(b: Builder) -> None:
    if platform.machine() == "x86_64":
        b.declared.setdefault("pause", "declare void @llvm.x86.sse2.pause()")
        b.do("call void @llvm.x86.sse2.pause()")
    else:
        b.declared.setdefault("pause", "declare void @llvm.aarch64.hint(i32)")
        b.do("call void @llvm.aarch64.hint(i32 1)")


def _ticks(b: Builder) -> Value:
    """A clock of constant pace."""
    x86 = platform.machine() == "x86_64"
    return b.call("llvm.readcyclecounter" if x86 else "llvm.readsteadycounter", I64)


def _field(b: Builder, record: Value, word: int) -> Value:
    return b.load(I64, b.offset(record, word, I64))


def _has(b: Builder, flags: Value, flag: int) -> Value:
    return b.compare("ne", b.binary("and", flags, literal(flag, I64)), literal(0, I64))


def _is(b: Builder, value: Value, number: int) -> Value:
    return b.compare("eq", value, literal(number, value.type))


def _load_atomic(b: Builder, place: Value, order: str) -> Value:
    return b.op(f"load atomic i64, {place} {order}, align 8", I64)


def _aligned(words: int) -> NDArray[np.int64]:
    """So many zeros, from the start of a cache line on."""
    room = np.zeros(words + 8, np.int64)
    start = -room.ctypes.data // 8 % 8
    return room[start : start + words]

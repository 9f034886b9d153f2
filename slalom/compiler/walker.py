"""Machine code that walks a table of calls: alone, as one of a team, and the life of a team's worker.

A table is sections of calls, each made so many times before the next one begins; the last is followed by the first.
What is kept where in memory is said by the enumerations of words here; ``threads`` fills them.

Source: J. M. Mellor-Crummey, M. L. Scott, Algorithms for Scalable Synchronization on Shared-Memory Multiprocessors
(1991), section 3 (sense-reversing barrier, here with a generation number); U. Drepper, Futexes Are Tricky (2011).
"""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final, NamedTuple

from slalom.compiler import llvm
from slalom.compiler.ir import I1, I8, I32, I64, PTR, Builder, Value, Variable, literal

__all__ = [
    "BARRIER", "CODE", "COMMIT", "SINGLE", "Head", "Reason", "Record", "State", "Team", "Walkers", "ticks", "walkers",
]  # fmt: skip

BARRIER, COMMIT, SINGLE = 1, 2, 4  # flags of a record


class Reason(IntEnum):
    """Why a run ended."""

    FINISHED = 0
    STOPPED = 1
    """``Table.stop`` was called."""
    STATUS = 2
    """A kernel stored an error in the status word."""
    GUARD = 3
    """The guard of a commit held 0."""


class State(IntEnum):
    """Words of a table's state. What other threads write has a cache line (8 words) of its own."""

    STEPS = 0
    SECTIONS = 1
    LAST = 2
    """Address after the last section."""
    TEAM = 3
    THREADS = 4
    DONE = 8
    REASON = 9
    AT = 10
    SECTION = 11
    """The one that is being made, …"""
    LEFT = 12
    """… how many more times, …"""
    END = 13
    """… and the address after its last record."""
    STARTED = 14
    """The clock when the run began, …"""
    TICKS = 15
    """… and how far it moved."""
    STOP = 16
    STATUS = 24
    WORDS = 32


class Head(IntEnum):
    """Words that say what a section is."""

    CALLS = 0
    """Address of its first record, …"""
    END = 1
    """… and after the last."""
    ADVANCES = 2
    PAIRS = 3
    TIMES = 4
    WORDS = 8


class Record(IntEnum):
    """Words of a call's record."""

    FUNCTION = 0
    ARGS = 1
    TASKS = 2
    WAYS = 3
    FLAGS = 4
    GUARD = 5
    WORDS = 8


class Team(IntEnum):
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


class Walkers(NamedTuple):
    alone: Callable[[int, int, int], None]
    shared: Callable[[int, int, int], None]
    serve: Callable[[int, int, int], None]
    shared_address: int


@functools.cache
def walkers() -> Walkers:
    """The code, compiled once."""
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    alone, shared, serve = CODE.addresses
    return Walkers(prototype(alone), prototype(shared), prototype(serve), shared)


CODE: Final = llvm.Standing("walkers", lambda: [_alone(), _shared(), _serve()])
_NULL: Final = Value("null", PTR)


def _pointed(b: Builder) -> Value:
    """The memory that a walker works on comes as a number, since LLVM takes ``args`` for memory no call writes to."""
    return b.convert("inttoptr", b.begin, "ptr")


class _Walk:
    """Writes what both walkers have in common."""

    def __init__(self) -> None:
        self.b = b = Builder()
        self.state = _pointed(b)
        self.steps = self.get(State.STEPS)
        self.start = ticks(b)
        self.now = b.variable(self.of_section(Head.CALLS, PTR))

    def get(self, word: int, type: Any = I64) -> Value:
        return self.b.load(type, self.b.offset(self.state, word, I64))

    def put(self, word: int, value: Value) -> None:
        self.b.store(value, self.b.offset(self.state, word, I64))

    def of_section(self, word: int, type: Any = I64) -> Value:
        """A word of the section that is being made."""
        return self.b.load(type, self.b.offset(self.get(State.SECTION, PTR), word, I64))

    def end(self) -> None:
        """Note how long the run took."""
        self.put(State.STARTED, self.start)
        self.put(State.TICKS, self.b.sub(ticks(self.b), self.start))

    def settle(self, every: bool) -> None:
        """What one thread does while no other works: ends of steps, checks before commits, calls for a single thread.

        ``every``: all calls are its own. ``now`` is left at the next call for all threads, or at null at the end.
        """
        b, now = self.b, self.now
        live = b.variable(I1)
        with b.repeat_while() as going:
            with b.when(b.compare("eq", now.get(), self.get(State.END, PTR))):
                self._end_step()
            live.set(b.compare("ne", now.get(), _NULL))
            with b.when(live.get()):
                record = now.get()
                flags = _field(b, record, Record.FLAGS)
                with b.when(_has(b, flags, COMMIT)):
                    self._check(record, live)
                if not every:
                    live.set(b.binary("and", live.get(), _has(b, flags, SINGLE)))
                with b.when(live.get()):
                    _make_call(b, record, literal(0, I64), _field(b, record, Record.TASKS))
                    now.set(b.offset(record, Record.WORDS, I64))
            going.append(live.get())

    def _end_step(self) -> None:
        b = self.b
        advances = self.of_section(Head.ADVANCES, PTR)
        with b.loop(0, self.of_section(Head.PAIRS)) as i:
            pair = b.offset(advances, b.mul(i, literal(2, I64)), I64)
            place = b.load(PTR, pair)
            b.store(b.add(b.load(I64, place), b.load(I64, b.offset(pair, 1, I64))), place)
        done = b.add(self.get(State.DONE), literal(1, I64))
        self.put(State.DONE, done)
        left = b.sub(self.get(State.LEFT), literal(1, I64))
        self.put(State.LEFT, left)
        with b.when(_is(b, left, 0)):
            following = b.offset(self.get(State.SECTION, PTR), Head.WORDS, I64)
            ended = b.compare("eq", following, self.get(State.LAST, PTR))
            self.put(State.SECTION, b.select(ended, self.get(State.SECTIONS, PTR), following))
            self.put(State.LEFT, self.of_section(Head.TIMES))
            self.put(State.END, self.of_section(Head.END, PTR))
        stop = _load_atomic(b, b.offset(self.state, State.STOP, I64), "monotonic")
        reason = b.select(_is(b, stop, 0), literal(Reason.FINISHED, I64), literal(Reason.STOPPED, I64))
        reason = b.select(_is(b, self.get(State.STATUS), 0), reason, literal(Reason.STATUS, I64))
        self.put(State.REASON, reason)
        ends = b.binary("or", b.compare("sge", done, self.steps), b.compare("ne", reason, literal(0, I64)))
        self.now.set(b.select(ends, _NULL, self.of_section(Head.CALLS, PTR)))

    def _check(self, record: Value, live: Variable) -> None:
        b = self.b
        byte = b.variable(literal(1, I8))
        guard = b.load(PTR, b.offset(record, Record.GUARD, I64))
        with b.when(b.compare("ne", guard, _NULL)):
            byte.set(b.load(I8, guard))
        reason = b.select(_is(b, byte.get(), 0), literal(Reason.GUARD, I64), literal(Reason.FINISHED, I64))
        reason = b.select(_is(b, self.get(State.STATUS), 0), reason, literal(Reason.STATUS, I64))
        with b.when(b.compare("ne", reason, literal(0, I64))):
            self.put(State.REASON, reason)
            b.store(record, b.offset(self.state, State.AT, I64))
            self.now.set(_NULL)
            live.set(literal(0, I1))


def _alone() -> Builder:
    """``(–, state, –)``: one thread makes all calls."""
    walk = _Walk()
    walk.settle(every=True)
    walk.end()
    return walk.b


def _shared() -> Builder:
    """``(–, state, thread)``: one of several threads. Thread 0 wakes the others."""
    walk = _Walk()
    b, now, thread = walk.b, walk.now, walk.b.end
    team, threads = walk.get(State.TEAM, PTR), walk.get(State.THREADS)
    ticket, arrived, generation = (b.offset(team, w, I64) for w in (Team.TICKET, Team.ARRIVED, Team.GENERATION))
    position, sleepers = b.offset(team, Team.POSITION, I64), b.offset(team, Team.SLEEPERS, I64)
    line = b.offset(team, b.add(b.mul(thread, literal(8, I64)), literal(Team.LINES, I64)), I64)
    waited = b.offset(line, 1, I64)
    spins = b.load(I64, b.offset(team, Team.SPINS, I64))
    one = literal(1, I64)
    with b.when(_is(b, thread, 0)):
        _release(b, ticket, b.offset(team, Team.PARKED, I64))
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
            since = ticks(b)
            _await(b, generation, old, sleepers, spins)
            b.store(b.add(b.load(I64, waited), b.sub(ticks(b), since)), waited)
        now.set(b.load(PTR, position))
        live = b.compare("ne", now.get(), _NULL)
        with b.when(live), b.repeat_while() as more:
            record = now.get()
            _make_share(b, record, thread, threads)
            now.set(b.offset(record, Record.WORDS, I64))
            more.append(_is(b, b.binary("and", _field(b, record, Record.FLAGS), literal(BARRIER, I64)), 0))
        going.append(live)
    with b.when(_is(b, thread, 0)):
        walk.end()
    return b


def _serve() -> Builder:
    """``(–, team, thread)``: a worker, which takes part in every run of its team and never returns."""
    b = Builder()
    team = _pointed(b)
    ticket, parked = b.offset(team, Team.TICKET, I64), b.offset(team, Team.PARKED, I64)
    spins = b.load(I64, b.offset(team, Team.SPINS, I64))
    walker = b.load(PTR, b.offset(team, Team.WALKER, I64))
    seen = b.variable(literal(0, I64))
    with b.repeat_while() as going:
        _await(b, ticket, seen.get(), parked, spins)
        seen.set(_load_atomic(b, ticket, "acquire"))
        state = b.load(I64, b.offset(team, Team.STATE, I64))
        b.do(f"call void {walker.text}({_NULL}, {state}, {b.end})")
        going.append(literal(1, I1))
    return b


def _make_share(b: Builder, record: Value, thread: Value, threads: Value) -> None:
    """A thread's own tasks: ⌊t·n/w⌋ … ⌊(t+1)·n/w⌋ of n, as one of w threads."""
    tasks = _field(b, record, Record.TASKS)
    ways = b.intrinsic("smin", _field(b, record, Record.WAYS), threads)
    with b.when(b.compare("slt", thread, ways)):
        begin = b.binary("udiv", b.mul(tasks, thread), ways)
        end = b.binary("udiv", b.mul(tasks, b.add(thread, literal(1, I64))), ways)
        with b.when(b.compare("slt", begin, end)):
            _make_call(b, record, begin, end)


def _make_call(b: Builder, record: Value, begin: Value, end: Value) -> None:
    function = b.load(PTR, b.offset(record, Record.FUNCTION, I64))
    args = b.load(PTR, b.offset(record, Record.ARGS, I64))
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


def ticks(b: Builder) -> Value:
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

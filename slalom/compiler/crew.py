"""Crew: results that threads of its own make, while the one that needs them still finds out which.

Whoever knows what will be needed ``begin``s it; whoever needs it ``finish``es, and helps as long as anything waits. A
thread takes a share of what waits: a like part for each processor, so that shares become smaller towards the end and
all threads end at about the same time, but no less than is worth a share of its own.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

from slalom.compiler.runtime import available_cpus

__all__ = ["LEAST", "Crew", "Job"]

LEAST: Final = 400
"""The weight of a share that is worth a thread: some 10 ms of code generation; a share takes 3 ms for itself."""

_TURN: Final = 0.0002
"""Seconds until a thread that computes in Python lets another one have the interpreter, while helpers are at work: they
want it often, and never for long. By default it is 25 times that, and so late would each of their steps begin."""

Result = TypeVar("Result")


class Job(NamedTuple):
    """What is to be made. ``kind``: only what is of one kind goes into one share · ``weight``: how long it takes ·
    ``alone``: whether it gets a share of its own."""

    key: Hashable
    kind: Any
    weight: int
    item: Any
    alone: bool = False


class Crew(Generic[Result]):
    """``make``: the results of the items of a share, in order · ``made``: all results so far, by key · ``lock``: under
    which it changes; whoever has it may look up a key and then begin it."""

    def __init__(self, make: Callable[[Sequence[Any], Any], Sequence[Result]]) -> None:
        self.made: dict[Hashable, Result] = {}
        self.lock: Final = threading.Condition(threading.RLock())
        self._make = make
        self._waiting: dict[Hashable, Job] = {}
        self._making: set[Hashable] = set()
        self._failed: dict[Hashable, Exception] = {}
        self._helpers = self._finishing = 0
        self._turn = 0.0
        self._paused = False
        # A child of fork has none of these threads, and must not begin with a lock that one of them held, here or in
        # a library: the fork waits for the shares that are under way.
        os.register_at_fork(before=self._pause, after_in_parent=self._resume, after_in_child=self._alone)

    def begin(self, jobs: Iterable[Job]) -> None:
        """Let other threads make this meanwhile, as far as there are processors for it."""
        with self.lock:
            for job in jobs:
                if job.key not in self.made and job.key not in self._making:
                    self._failed.pop(job.key, None)
                    self._waiting.setdefault(job.key, job)
            self._hire()

    def finish(self, keys: Sequence[Hashable]) -> list[Result]:
        """The results of what was begun, in order. What could not be made may be begun anew.

        Raises: what ``make`` raised for one of them; LookupError for what was not begun.
        """
        with self.lock:
            self._finishing += 1
        try:
            while True:
                with self.lock:
                    for key in keys:
                        if key in self._failed:
                            raise self._failed[key]
                    if all(key in self.made for key in keys):
                        return [self.made[key] for key in keys]
                    if not all(any(key in known for known in (self.made, self._making, self._waiting)) for key in keys):
                        raise LookupError("not begun")
                    self._hire()
                if not self._do():
                    with self.lock:
                        self.lock.wait_for(lambda: self._may_go_on(keys))
        finally:
            with self.lock:
                self._finishing -= 1

    def _may_go_on(self, keys: Sequence[Hashable]) -> bool:
        """Whether there is something to make, or nothing of these that others are making."""
        return not self._paused and (bool(self._waiting) or self._making.isdisjoint(keys))

    def _hire(self) -> None:
        """Start threads for shares that wait, besides one that the caller takes if it finishes."""
        shares = sum(job.weight for job in self._waiting.values()) // LEAST - (self._finishing > 0)
        for _ in range(min(shares, available_cpus() - 1) - self._helpers):
            self._count(self._helpers + 1)
            try:
                threading.Thread(target=self._help, name="slalom compiles").start()
            except RuntimeError:  # the interpreter ends, or the system has no more threads: then without
                self._count(self._helpers - 1)
                return

    def _count(self, helpers: int) -> None:
        """Note how many there are."""
        if not self._helpers and helpers:
            self._turn = sys.getswitchinterval()
            sys.setswitchinterval(min(self._turn, _TURN))
        elif self._helpers and not helpers:
            sys.setswitchinterval(self._turn)
        self._helpers = helpers

    def _help(self) -> None:
        main = threading.main_thread()  # when that has ended, nobody waits any more
        try:
            while main.is_alive() and self._do():
                pass
        finally:
            with self.lock:
                self._count(self._helpers - 1)
                if main.is_alive():  # what was begun just now
                    self._hire()

    def _take(self) -> list[Job]:
        """A share of what waits, the heaviest first; nothing if more will come, and this is not worth it yet."""
        if self._paused:
            return []
        first = max(self._waiting.values(), key=lambda job: job.alone, default=None)
        if first is None:
            return []
        jobs = [first] if first.alone else [job for job in self._waiting.values() if job.kind == first.kind]
        total = sum(job.weight for job in jobs)
        if total < LEAST and not self._finishing and not first.alone:
            return []
        share: list[Job] = []
        left = max(LEAST, total // available_cpus())
        for job in sorted(jobs, key=lambda job: -job.weight):
            if job.weight <= left or not share:
                share.append(job)
                left -= job.weight
        for job in share:
            del self._waiting[job.key]
            self._making.add(job.key)
        return share

    def _do(self) -> bool:
        """Make a share, if there is one. Where that fails, it is one of them: each is tried alone."""
        share: list[Job] = []
        found: Sequence[Result] = ()
        again: list[Job] | None = None
        failed: dict[Hashable, Exception] = {}
        try:
            with self.lock:
                share = self._take()
            if share:
                found = self._make([job.item for job in share], share[0].kind)
            again = []
        except Exception as error:  # raised again where it is waited for
            again = [job._replace(alone=True) for job in share] if len(share) > 1 else []
            failed = {job.key: error for job in share if not again}
        finally:
            with self.lock:
                self._making.difference_update(job.key for job in share)
                self.made.update(zip([job.key for job in share], found, strict=False))
                self._failed |= failed
                # After an interrupt another thread may wait for it.
                self._waiting.update((job.key, job) for job in (share if again is None else again))
                if share:
                    self.lock.notify_all()
        return bool(share)

    # --- fork -----------------------------------------------------------------------------------------------------
    def _pause(self) -> None:
        self.lock.acquire()
        self._paused = True
        self.lock.wait_for(lambda: not self._making)

    def _resume(self) -> None:
        self._paused = False
        self._hire()
        self.lock.notify_all()
        self.lock.release()

    def _alone(self) -> None:
        self._waiting.clear()
        self._count(0)
        self._finishing, self._paused = 0, False
        self.lock.release()

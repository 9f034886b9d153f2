"""Pace: how many threads a loop uses, and how many steps it makes at once, chosen from the times of its runs."""

from __future__ import annotations

from typing import Final

from slalom.compiler import runtime

__all__ = ["Pace"]


class Pace:
    """Chooses how many threads to use, and how many steps to make at once, from the times of the runs before.

    Bits do not depend on either, so both may change at any time. A number of threads that was set is kept.
    """

    SECONDS: Final = 0.04
    """About how long a run lasts: so often can the caller look after other things."""
    AGAIN: Final = 64
    """After so many runs, the choice is made anew: the machine may have become busy, or quiet."""

    def __init__(self, shared: bool) -> None:
        self._shared = shared
        self._begin()

    def _begin(self) -> None:
        n, chosen = self._setting = runtime.get_num_threads(), runtime.chosen()
        powers = [1 << k for k in range(n.bit_length()) if 1 << k < n]
        self._choices = [n] if chosen else [n, *reversed(powers)] if self._shared else [1]
        self._seconds: dict[int, float] = {}
        self._tries = dict.fromkeys(self._choices, 0)
        self._runs = 0

    def next(self) -> tuple[int, int]:
        """(threads, steps at most) of the next run."""
        if self._setting != (runtime.get_num_threads(), runtime.chosen()):
            self._begin()
        trying = [n for n in self._choices if self._tries[n] < 2]
        threads = trying[0] if trying else min(self._choices, key=lambda n: self._seconds[n])
        known = self._seconds.get(threads) or min(self._seconds.values(), default=0.0)
        if not known:
            return threads, 1
        # A try is short: it may be slower by far.
        return threads, max(1, int((0.1 if trying else 1.0) * self.SECONDS / known))

    def note(self, threads: int, steps: int, seconds: float) -> None:
        """How long a run took. The first one of its kind counts for little: threads start, caches are cold."""
        self._seconds[threads] = seconds / steps
        self._tries[threads] += 1
        self._runs += 1
        if self._runs % self.AGAIN == 0:
            self._tries = {n: self._tries[n] if n == threads else 0 for n in self._choices}

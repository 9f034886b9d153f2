"""Times: where the seconds go between a function and its machine code."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

__all__ = ["Times", "spent", "timed"]


class Times(dict[str, float]):
    """Seconds by stage, in the order in which the stages came; it prints as milliseconds."""

    @property
    def total(self) -> float:
        """Of all stages, none of which counts the time of another."""
        return sum(self.values())

    def since(self, before: Mapping[str, float]) -> Times:
        """What was added to ``before`` since."""
        rest = {name: seconds - before.get(name, 0.0) for name, seconds in self.items()}
        return Times({name: seconds for name, seconds in rest.items() if seconds > 0.0})

    def plus(self, other: Mapping[str, float]) -> Times:
        """Stage by stage."""
        return Times(self | {name: seconds + self.get(name, 0.0) for name, seconds in other.items()})

    def __str__(self) -> str:
        stages = ", ".join(f"{name} {1e3 * seconds:.1f}" for name, seconds in self.items())
        return f"ms: {stages or 'nothing'}; all {1e3 * self.total:.1f}"


class _Clock(threading.local):
    """``times``: what this thread has spent · ``running``: the stages that it is in, the innermost last."""

    def __init__(self) -> None:
        self.times: Final = Times()
        self.running: Final[list[str]] = []
        self.since = 0.0

    def turn(self) -> None:
        """Give the time since the last turn to the innermost stage."""
        now = time.perf_counter()
        if self.running:
            self.times[self.running[-1]] = self.times.get(self.running[-1], 0.0) + now - self.since
        self.since = now


_clock: Final = _Clock()


def spent() -> Times:
    """What this thread has spent on each stage so far."""
    return Times(_clock.times)


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Count what runs in here as a stage; a stage inside it counts for itself alone."""
    _clock.turn()
    _clock.running.append(name)
    _clock.times.setdefault(name, 0.0)
    try:
        yield
    finally:
        _clock.turn()
        _clock.running.pop()

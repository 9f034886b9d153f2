"""Threads that make results while others are still asked for: shares, failures, interrupts, fork."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from slalom.compiler import crew
from slalom.compiler.crew import Crew, Job


@pytest.fixture(autouse=True)
def _two_processors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(crew, "available_cpus", lambda: 2)
    monkeypatch.setattr(crew, "LEAST", 10)
    yield
    for thread in threading.enumerate():
        if thread.name == "slalom compiles":
            thread.join()


class Squares:
    """A crew that squares numbers, and refuses negative ones."""

    def __init__(self) -> None:
        self.shares: list[tuple[threading.Thread, Any, list[int]]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.crew: Crew[int] = Crew(self.make)

    def make(self, items: Sequence[int], kind: Any) -> list[int]:
        self.shares.append((threading.current_thread(), kind, list(items)))
        assert self.gate.wait(20)
        for item in items:
            if item < 0:
                raise ValueError(f"{item} is negative")
        return [item * item for item in items]

    def begin(self, *items: int, weight: int = 10, kind: Any = None) -> None:
        self.crew.begin([Job(item, kind, weight, item) for item in items])

    @property
    def made(self) -> list[int]:
        return sorted(item for _, _, items in self.shares for item in items)


def ended(condition: Any) -> bool:
    """Wait until a condition on the crew's state holds."""
    made = threading.Event()
    for _ in range(2000):
        if condition():
            return True
        made.wait(0.005)
    return False


def test_what_is_begun_is_made_meanwhile():
    squares = Squares()
    squares.begin(3, 4)
    assert ended(lambda: squares.crew.made == {3: 9, 4: 16})
    assert threading.current_thread() not in {thread for thread, *_ in squares.shares}
    assert squares.crew.finish([4, 3, 4]) == [16, 9, 16] and squares.made == [3, 4]


def test_too_little_waits_until_it_is_needed_or_more():
    squares = Squares()
    squares.begin(1, 2, weight=4)
    assert not squares.shares
    squares.begin(3, weight=4)
    assert ended(lambda: len(squares.crew.made) == 2)
    squares.begin(5, weight=4)
    assert squares.crew.finish([5]) == [25]
    assert squares.shares[-1] == (threading.current_thread(), None, [3, 5])


def test_one_processor_makes_all_itself(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(crew, "available_cpus", lambda: 1)
    squares = Squares()
    squares.begin(*range(20))
    assert not squares.shares
    assert squares.crew.finish(range(20)) == [i * i for i in range(20)]
    assert {thread for thread, *_ in squares.shares} == {threading.current_thread()}


def test_only_what_is_of_one_kind_shares():
    squares = Squares()
    for item in range(12):
        squares.begin(item, kind=item % 3)
    squares.crew.finish(range(12))
    assert all({item % 3 for item in items} == {kind} for _, kind, items in squares.shares)
    assert squares.made == [*range(12)]


@pytest.mark.parametrize("begun", [False, True], ids=["asked for", "begun"])
def test_who_fails_is_blamed_alone_and_may_be_tried_again(begun: bool):
    squares = Squares()
    squares.begin(1, -2, 3, 4)
    if begun:
        assert ended(lambda: len(squares.crew.made) == 3 and not squares.crew._helpers)
    with pytest.raises(ValueError, match="-2 is negative"):
        squares.crew.finish([1, -2, 3, 4])
    assert squares.crew.finish([1, 3, 4]) == [1, 9, 16]
    squares.begin(-2)
    with pytest.raises(ValueError, match="-2 is negative"):
        squares.crew.finish([-2])


def test_several_that_wait_for_one_result_get_it_from_one_making():
    squares, found = Squares(), []
    squares.gate.clear()

    def ask() -> None:
        squares.begin(7)
        found.append(squares.crew.finish([7]))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert ended(lambda: squares.shares)
    squares.gate.set()
    for thread in threads:
        thread.join()
    assert found == [[49]] * 4 and squares.made == [7]


def test_all_who_wait_for_what_fails_are_told():
    squares, errors = Squares(), []
    squares.gate.clear()

    def ask() -> None:
        squares.begin(-7)
        try:
            squares.crew.finish([-7])
        except ValueError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert ended(lambda: squares.shares)
    squares.gate.set()
    for thread in threads:
        thread.join(20)
    assert errors == ["-7 is negative"] * 3
    with pytest.raises(LookupError, match="not begun"):
        squares.crew.finish([8])


def test_what_an_interrupt_breaks_off_is_made_by_whoever_waits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(crew, "available_cpus", lambda: 1)
    squares, real = Squares(), Squares.make

    def interrupted(items: Sequence[int], kind: Any) -> list[int]:
        squares.crew._make = lambda items, kind: real(squares, items, kind)
        raise KeyboardInterrupt

    squares.crew._make = interrupted
    squares.begin(5, 6)
    with pytest.raises(KeyboardInterrupt):
        squares.crew.finish([5, 6])
    assert squares.crew.finish([6, 5]) == [36, 25]


def test_the_interpreter_changes_threads_as_before_when_no_helper_is_left():
    before, squares = sys.getswitchinterval(), Squares()
    squares.gate.clear()
    squares.begin(1)
    assert ended(lambda: squares.shares) and sys.getswitchinterval() < before
    squares.gate.set()
    squares.crew.finish([1])
    assert ended(lambda: not squares.crew._helpers) and sys.getswitchinterval() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_of_fork_waits_for_no_thread_that_it_has_not():
    squares, before = Squares(), sys.getswitchinterval()
    squares.gate.clear()
    squares.begin(1, 2, 3, 4)
    assert ended(lambda: squares.shares)
    threading.Timer(0.1, squares.gate.set).start()
    child = os.fork()  # waits for the share that is being made
    if not child:
        code = 1
        try:
            known = set(squares.crew.made) and sys.getswitchinterval() == before
            squares.begin(1, 2, 3, 4, 5)
            right = squares.crew.finish([1, 2, 3, 4, 5]) == [1, 4, 9, 16, 25]
            code = 0 if right and known else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert squares.crew.finish([1, 2, 3, 4]) == [1, 4, 9, 16] and squares.made == [1, 2, 3, 4]

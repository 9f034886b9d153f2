"""One test for all cases of a row: to report thousands of little tests takes longer than to run them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from slalom.core import random

Check = Callable[..., None]
Case = tuple[Any, ...]
"""The arguments of a check."""


def all_of(check: Check, cases: Iterable[Case], name: Callable[..., str]) -> None:
    """Check one case after the other; each of them finds the random numbers as a test of its own does.

    Raises: ExceptionGroup of all that fail, each with its case's name.
    """
    failed = []
    for case in cases:
        random.default_generator.set(0, 0, 0)
        try:
            check(*case)
        except Exception as error:
            error.add_note(name(*case))
            failed.append(error)
    if failed:
        raise ExceptionGroup(f"{len(failed)} cases", failed)


def grouped(groups: Iterable[Any], name: Callable[..., str]) -> Callable[[Check], Check]:
    """Makes of a check of one case a test for each group, a ``pytest.param`` of a list of cases."""

    def decorate(check: Check) -> Check:
        @pytest.mark.parametrize("own", list(groups))
        def test(own: list[Case]) -> None:
            all_of(check, own, name)

        test.__name__, test.__doc__, test.__module__ = check.__name__, check.__doc__, check.__module__
        return test

    return decorate


def over(cases: Iterable[Case], name: Callable[..., str]) -> Callable[[Check], Check]:
    """Makes of a check of one case a test for each row, which is the first item of a case: of all its cases."""
    rows: dict[str, list[Case]] = {}
    for case in cases:
        rows.setdefault(case[0].id, []).append(case)
    return grouped([pytest.param(own, id=row) for row, own in rows.items()], name)

"""The table of rewrite rules, by primitive and phase: where the files that hold rules enter them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from slalom.compiler.draft import Rule
from slalom.core.primitive import Primitive

LOCAL, WHOLE, IMAGES, CHECKED = range(4)
_IN_FORCE: Final = {LOCAL: (LOCAL, WHOLE, IMAGES), WHOLE: (WHOLE,), IMAGES: (IMAGES,), CHECKED: (CHECKED,)}
RULES: Final[dict[str, str]] = {}
"""The docstring of each rule by its name."""
TABLES: Final[tuple[dict[Primitive, list[Rule]], ...]] = ({}, {}, {}, {})


def rule(*prims: Primitive, phase: int = LOCAL, but: int | None = None) -> Callable[[Rule], Rule]:
    """Enter a function into the table of rules for ``prims``; those entered first are tried first. but: a later phase
    of which the rules want the opposite."""

    def enter(function: Rule) -> Rule:
        RULES[function.__name__] = function.__doc__ or ""
        for each in _IN_FORCE[phase]:
            for prim in () if each == but else prims:
                TABLES[each].setdefault(prim, []).append(function)
        return function

    return enter

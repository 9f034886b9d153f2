"""Schedule: a rule with all its numbers; ``schedule``: what makes a pure function of time one; numbers and tensors."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from numbers import Real
from typing import Any, Concatenate, Final, ParamSpec

import numpy as np

from slalom.core.functional.arithmetic import where
from slalom.core.primitive import Array
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError

__all__ = [
    "ABOVE_0", "AT_LEAST_0", "COUNT", "FRACTION", "SWITCH", "Needs", "Schedule", "Time", "ascending", "cos",
    "fewer_than_steps", "floor", "is_number", "larger", "log", "one_of", "reached", "schedule", "select", "smaller",
]  # fmt: skip

P = ParamSpec("P")
Time = Any
"""An int, a float or a 0-d tensor; the value of a schedule is of the same sort."""

_RULES: Final[dict[str, Callable[..., Any]]] = {}
Check = Callable[[Mapping[str, Any]], tuple[str, str, str] | None]
"""Of options that are each what they must be, what is wrong with them together: (which one, got, needed)."""


@dataclass(frozen=True)
class Schedule:
    """A rule with all its numbers: a pure function of time, which prints, compares and pickles as what it is."""

    rule: str
    options: tuple[tuple[str, Any], ...]

    def __call__(self, t: Time) -> Any:
        return _RULES[self.rule](t, **dict(self.options))

    def values(self, steps: int) -> Array:
        """The values at 0, 1, …, ``steps`` − 1, in float64: to look at, to plot, to compare.

        >>> from slalom.optim.schedules import linear
        >>> linear(steps=4).values(6).tolist()
        [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
        """
        return np.array([self(t) for t in range(steps)], np.float64)

    def __repr__(self) -> str:
        return f"{self.rule}({', '.join(f'{name}={value!r}' for name, value in self.options)})"


# --- what options must be -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Needs:
    """What an option must be, in words and as a test; ``kept``: the hashable value that stands for it."""

    words: str
    holds: Callable[[Any], bool]
    kept: Callable[[Any], Any] = lambda value: value


def is_number(value: Any) -> bool:
    """Whether this is a finite number (True and False are none)."""
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


FINITE: Final = Needs("a finite number", is_number)
AT_LEAST_0: Final = Needs("a finite number of at least 0", lambda n: is_number(n) and n >= 0)
ABOVE_0: Final = Needs("a finite number above 0", lambda n: is_number(n) and n > 0)
FRACTION: Final = Needs("a number from 0 to 1", lambda n: is_number(n) and 0 <= n <= 1)
SWITCH: Final = Needs("True or False", lambda b: isinstance(b, bool))
COUNT: Final = Needs("an integer of at least 1", lambda n: not isinstance(n, bool) and isinstance(n, int) and n >= 1)


def one_of(*words: str) -> Needs:
    """One of some strings."""
    return Needs(f"one of {', '.join(map(repr, words))}", lambda word: isinstance(word, str) and word in words)


def schedule(
    check: Check | None = None, /, **needs: Needs
) -> Callable[[Callable[Concatenate[Time, P], Any]], Callable[P, Schedule]]:
    """Make of a pure function of (t, options) a function of the options that returns the function of t.

    An option that is not mentioned must be a finite number. ``check`` looks at all of them together.
    """

    def decorate(rule: Callable[Concatenate[Time, P], Any]) -> Callable[P, Schedule]:
        _RULES[rule.__name__] = rule
        signature = inspect.signature(rule)
        options = signature.replace(parameters=list(signature.parameters.values())[1:], return_annotation=Schedule)

        @wraps(rule)
        def make(*args: P.args, **kwargs: P.kwargs) -> Schedule:
            given = options.bind(*args, **kwargs)
            given.apply_defaults()
            kept = []
            for name, value in given.arguments.items():
                need = needs.get(name, FINITE)
                if not need.holds(value):
                    raise ConfigError(f"{rule.__name__}: {name}", got=value, needed=need.words)
                kept.append((name, need.kept(value)))
            wrong = None if check is None else check(given.arguments)
            if wrong is not None:
                raise ConfigError(f"{rule.__name__}: {wrong[0]}", got=wrong[1], needed=wrong[2])
            return Schedule(rule.__name__, tuple(kept))

        make.__signature__ = options  # type: ignore[attr-defined]
        return make

    return decorate


def ascending(numbers: Any) -> bool:
    """Whether this is a sequence of finite numbers of at least 0, none less than the one before it."""
    return (
        isinstance(numbers, Sequence)
        and not isinstance(numbers, str)
        and all(map(AT_LEAST_0.holds, numbers))
        and list(numbers) == sorted(numbers)
    )


def fewer_than_steps(name: str) -> Check:
    """An option that counts some of the ``steps``, but not all."""

    def check(options: Mapping[str, Any]) -> tuple[str, str, str] | None:
        if options[name] < options["steps"]:
            return None
        return name, f"{options[name]}, with {options['steps']} steps", "fewer steps than all"

    return check


# --- numbers and tensors alike ------------------------------------------------------------------------------------
def smaller(a: Any, b: Any) -> Any:
    """The smaller of two."""
    return a.minimum(b) if isinstance(a, Tensor) else b.minimum(a) if isinstance(b, Tensor) else min(a, b)


def larger(a: Any, b: Any) -> Any:
    """The larger of two."""
    return a.maximum(b) if isinstance(a, Tensor) else b.maximum(a) if isinstance(b, Tensor) else max(a, b)


def cos(x: Any) -> Any:
    """The cosine."""
    return x.cos() if isinstance(x, Tensor) else math.cos(x)


def log(x: Any) -> Any:
    """The natural logarithm."""
    return x.log() if isinstance(x, Tensor) else math.log(x)


def floor(x: Any) -> Any:
    """The largest whole number that is not larger."""
    return x.floor() if isinstance(x, Tensor) else math.floor(x)


def reached(t: Time, moment: float) -> Any:
    """1 from this moment on, 0 before it."""
    return (t >= moment).to(t.dtype) if isinstance(t, Tensor) else float(t >= moment)


def select(condition: Any, a: Any, b: Any) -> Any:
    """``a`` where the condition holds, else ``b``; both are computed, so both must be there for every t."""
    return where(condition, a, b) if isinstance(condition, Tensor) else a if condition else b

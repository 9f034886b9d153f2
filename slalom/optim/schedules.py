"""Schedules: learning rates as pure functions of time.

``linear(steps=10)`` is a function of t, where t counts steps or epochs from 0: a number, or a 0-d tensor inside a
compiled function. With the default ``start=1`` its value is a factor for the optimizer's own rate; with a rate as
``start`` it is the rate itself. What lies beyond the last step is constant.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from numbers import Real
from typing import Any, Concatenate, Final, ParamSpec

from slalom.core.tensor import Tensor
from slalom.errors import ConfigError

__all__ = ["Schedule", "cosine", "exponential", "inverse_sqrt", "linear", "power", "staircase"]

P = ParamSpec("P")
Time = Any
"""An int, a float or a 0-d tensor; the value of a schedule is of the same sort."""

_RULES: Final[dict[str, Callable[..., Any]]] = {}


@dataclass(frozen=True)
class Schedule:
    """A rule with all its numbers: a pure function of time, which prints, compares and pickles as what it is."""

    rule: str
    options: tuple[tuple[str, float], ...]

    def __call__(self, t: Time) -> Any:
        return _RULES[self.rule](t, **dict(self.options))

    def __repr__(self) -> str:
        return f"{self.rule}({', '.join(f'{name}={value!r}' for name, value in self.options)})"


Bound = tuple[str, Callable[[float], bool]]
_FINITE: Final[Bound] = ("a finite number", lambda n: True)
_AT_LEAST_0: Final[Bound] = ("a finite number of at least 0", lambda n: n >= 0)
_ABOVE_0: Final[Bound] = ("a finite number above 0", lambda n: n > 0)


def _schedule(**bounds: Bound) -> Callable[[Callable[Concatenate[Time, P], Any]], Callable[P, Schedule]]:
    """Make of a pure function of (t, numbers) a function of the numbers that returns the function of t."""

    def decorate(rule: Callable[Concatenate[Time, P], Any]) -> Callable[P, Schedule]:
        _RULES[rule.__name__] = rule
        signature = inspect.signature(rule)
        numbers = signature.replace(parameters=list(signature.parameters.values())[1:], return_annotation=Schedule)

        @wraps(rule)
        def make(*args: P.args, **kwargs: P.kwargs) -> Schedule:
            given = numbers.bind(*args, **kwargs)
            given.apply_defaults()
            for name, value in given.arguments.items():
                needed, holds = bounds.get(name, _FINITE)
                number = isinstance(value, Real) and not isinstance(value, bool)
                if not number or not math.isfinite(value) or not holds(value):
                    raise ConfigError(f"{rule.__name__}: {name}", got=value, needed=needed)
            if given.arguments.get("warmup", 0) >= given.arguments.get("steps", math.inf):
                got = f"{given.arguments['warmup']}, with {given.arguments['steps']} steps"
                raise ConfigError(f"{rule.__name__}: warmup", got=got, needed="fewer steps than all")
            return Schedule(rule.__name__, tuple(given.arguments.items()))

        make.__signature__ = numbers  # type: ignore[attr-defined]
        return make

    return decorate


# --- numbers and tensors alike ------------------------------------------------------------------------------------
def _smaller(a: Any, b: Any) -> Any:
    return a.minimum(b) if isinstance(a, Tensor) else b.minimum(a) if isinstance(b, Tensor) else min(a, b)


def _larger(a: Any, b: Any) -> Any:
    return a.maximum(b) if isinstance(a, Tensor) else max(a, b)


def _cos(x: Any) -> Any:
    return x.cos() if isinstance(x, Tensor) else math.cos(x)


def _floor(x: Any) -> Any:
    return x.floor() if isinstance(x, Tensor) else math.floor(x)


# --- the schedules ------------------------------------------------------------------------------------------------
@_schedule(steps=_ABOVE_0, start=_AT_LEAST_0, end=_AT_LEAST_0)
def linear(t: Time, steps: float, start: float = 1.0, end: float = 0.0) -> Any:
    """A straight line from ``start`` to ``end``.

    η(t) = (1 − t/K)·start + (t/K)·end for t ≤ K = ``steps``, then ``end``

    Raises: ConfigError for negative numbers and for 0 steps; so do the other schedules.

    >>> f"{linear(steps=10, start=0.1, end=0.01)(5):.3f}"
    '0.055'
    """
    part = _smaller(t, steps) / steps
    return (1 - part) * start + part * end


@_schedule(steps=_ABOVE_0, start=_AT_LEAST_0)
def power(t: Time, steps: float, exponent: float = -0.5, start: float = 1.0) -> Any:
    """A power of time.

    η(t) = start·(1 + t/s)ᶜ with s = ``steps``, c = ``exponent``

    Note: ``exponent=-1`` with s = 1/d is the schedule start/(1 + d·t).

    >>> f"{power(steps=10, exponent=-0.5, start=0.1)(30):.3f}"
    '0.050'
    """
    return start * (1 + t / steps) ** exponent


@_schedule(steps=_ABOVE_0, base=_AT_LEAST_0, start=_AT_LEAST_0)
def exponential(t: Time, base: float, steps: float = 1, start: float = 1.0) -> Any:
    """Multiplied by the same number every so many steps, smoothly.

    η(t) = start·c^(t/s) with c = ``base``, s = ``steps``

    Note: with s = 1 this is PyTorch's ExponentialLR with gamma = c.

    >>> exponential(base=0.5, steps=10, start=0.1)(10)
    0.05
    """
    return start * base ** (t / steps)


@_schedule(every=_ABOVE_0, base=_AT_LEAST_0, start=_AT_LEAST_0)
def staircase(t: Time, every: float, base: float = 0.1, start: float = 1.0) -> Any:
    """Multiplied by the same number at once every so many steps.

    η(t) = start·c^⌊t/s⌋ with c = ``base``, s = ``every``

    >>> staircase(every=10, base=0.5)(19)
    0.5
    """
    return start * base ** _floor(t / every)


@_schedule(steps=_ABOVE_0, warmup=_AT_LEAST_0, start=_AT_LEAST_0, end=_AT_LEAST_0)
def cosine(t: Time, steps: float, warmup: float = 0, start: float = 1.0, end: float = 0.0) -> Any:
    """A straight rise to ``start``, then half a cosine down to ``end``.

    η(t) = start·t/W for t < W = ``warmup``
    η(t) = end + (start − end)·(1 + cos π(t − W)/(K − W))/2 for W ≤ t ≤ K = ``steps``, then ``end``

    Raises: ConfigError for a warm-up that leaves no step for the cosine.
    Source: Loshchilov, Hutter (2017), "SGDR: stochastic gradient descent with warm restarts", eq. 5, without restarts.
    Note: the rate of step t = 0 is 0 where there is a warm-up; ``steps`` counts the warm-up too.

    >>> [round(cosine(steps=110, warmup=10)(t), 3) for t in (0, 5, 10, 60, 110, 200)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    """
    part = _larger(_smaller(t, steps) - warmup, 0) / (steps - warmup)
    rise = _smaller(t / warmup, 1.0) if warmup else 1.0
    return rise * (end + (start - end) * (1 + _cos(math.pi * part)) / 2)


@_schedule(warmup=_ABOVE_0, scale=_AT_LEAST_0)
def inverse_sqrt(t: Time, warmup: float, scale: float = 1.0) -> Any:
    """A straight rise for ``warmup`` steps, then falling with the root of time: the Transformer's schedule.

    η(t) = scale·min(t^−½, t·W^−³ᐟ²) with W = ``warmup``; the largest rate, scale/√W, is at t = W

    Source: Vaswani et al. (2017), "Attention is all you need", eq. 3, with scale = d^−½ for a model of width d.

    >>> f"{inverse_sqrt(warmup=4000, scale=512**-0.5)(4000):.6e}"
    '6.987712e-04'
    """
    later = _larger(t, warmup)
    return scale * _smaller(t * warmup**-1.5, later**-0.5)

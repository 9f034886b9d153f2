"""Which functions are activations, distances, losses and penalties: what ``slalom.nn`` makes its Modules from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

__all__ = ["ACTIVATIONS", "DISTANCES", "LOSSES", "PENALTIES", "Entry", "activation", "distance", "loss", "penalty"]

F = TypeVar("F", bound=Callable[..., Any])


class Entry(NamedTuple):
    """A function that is a layer without weights.

    Its parameters without a default are tensors that a call gives, unless they are declared to be numbers; the others
    are options of the layer. ``training`` is the layer's mode. ``without``: options that the function has and the layer
    has not. ``text``: how the options print, as a format; None: each with its name, ``inplace`` only where it is on.
    ``looks``: whether it refuses values of its inputs, or calls a user's function: it must run to do so.
    """

    function: Callable[..., Any]
    without: tuple[str, ...] = ()
    text: str | None = None
    looks: bool = False


ACTIVATIONS: Final[dict[str, Entry]] = {}
"""Activations by the names of their Modules."""
DISTANCES: Final[dict[str, Entry]] = {}
"""Functions of two tensors by the names of their Modules."""
LOSSES: Final[dict[str, Entry]] = {}
"""Losses by the names of their Modules; options that may be tensors (weights) are buffers there."""
PENALTIES: Final[dict[str, Entry]] = {}
"""Functions of a list of parameters by the names of their Modules."""


def activation(name: str, *, without: tuple[str, ...] = (), text: str | None = None) -> Callable[[F], F]:
    """Make a function an activation: ``nn.functional`` shows it, and ``nn`` has a Module of this name."""
    return _entered(ACTIVATIONS, name, without, text)


def distance(name: str) -> Callable[[F], F]:
    """Make a function of two tensors a distance: ``nn.functional`` shows it, and ``nn`` has a Module of this name."""
    return _entered(DISTANCES, name, (), "")


def loss(name: str, *, without: tuple[str, ...] = (), looks: bool = False) -> Callable[[F], F]:
    """Make a function a loss: ``nn.functional`` shows it, and ``nn`` has a Module of this name."""
    return _entered(LOSSES, name, without, "", looks)


def penalty(name: str) -> Callable[[F], F]:
    """Make a function of parameters a penalty: ``nn.functional`` shows it, and ``nn`` has a Module of this name."""
    return _entered(PENALTIES, name, (), None)


def _entered(
    table: dict[str, Entry], name: str, without: tuple[str, ...], text: str | None, looks: bool = False
) -> Callable[[F], F]:
    def enter(function: F) -> F:
        table[name] = Entry(function, without, text, looks)
        return function

    return enter

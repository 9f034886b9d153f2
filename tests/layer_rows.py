"""Row and Sample, of which the tables of layers are made, and what several tables share. Data only."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Shape = tuple[int, ...]


class Sample(NamedTuple):
    """An input. ``how``: plain, transposed or strided memory; "kink" (with zeros), "large" (±1000) and "huge"
    (±10⁴) are compared with PyTorch only; "index" are whole numbers below ``below``. ``modes``: train, eval or both.
    """

    shape: Shape
    how: str = "plain"
    modes: tuple[str, ...] = ("train", "eval")
    below: int = 0


@dataclass(frozen=True)
class Row:
    """``name``: the public name. ``state``: the state dict's names and shapes. ``out``: output shape of input shape.

    ``errors``: an input that must be refused, and what the message must say. ``bad``: constructions or calls that must
    be refused. ``random``: the result in training is drawn, so that there PyTorch's numbers are others. ``reference``:
    the same in PyTorch, where the line of ``build`` does not say it. ``smooth``: gradients are derivatives.
    """

    name: str
    build: Callable[[Any], Any]
    samples: tuple[Sample, ...]
    out: Callable[[Shape], Shape] = lambda shape: shape
    state: dict[str, Shape] = field(default_factory=dict)
    errors: tuple[tuple[Sample, str], ...] = ()
    bad: tuple[tuple[Callable[[Any], Any], str], ...] = ()
    variant: str = ""
    random: bool = False
    reference: Callable[[Any], Any] | None = None
    smooth: bool = True

    @property
    def id(self) -> str:
        return f"{self.name}-{self.variant}" if self.variant else self.name


def lines(*shapes: Shape, modes: tuple[str, ...] = ("train",), extra: tuple[Sample, ...] = ()) -> tuple[Sample, ...]:
    """Plain samples of some shapes, then transposed and strided ones of the second shape."""
    plain = tuple(Sample(shape, "plain", modes) for shape in shapes)
    return (*plain, Sample(shapes[1], "transposed", modes), Sample(shapes[1], "strided", modes), *extra)


ONE = ("train",)
BOTH = ("train", "eval")
ANY = lines((0, 5), (4, 5), (1, 1), (7,), (2, 3, 5), extra=(Sample((2, 5), "kink", ONE), Sample((6,), "large", ONE)))
ROWS_OF_5 = lines((0, 5), (4, 5), (1, 5), (5,), (2, 3, 5), (2, 0, 5))
AXIS_1 = lines((0, 5), (4, 5), (1, 1), (3, 1), (2, 3, 5), extra=(Sample((3, 4), "large", ONE),))
BATCHES = (
    *lines((7, 3), (4, 3), (2, 3), modes=BOTH),
    Sample((4, 3, 5), "plain", BOTH),
    Sample((1, 3, 2), "plain", BOTH),
    Sample((2, 3, 4), "strided", BOTH),
    Sample((1, 3), "plain", ("eval",)),
    Sample((0, 3), "plain", ("eval",)),
)
INDICES = tuple(Sample(shape, "index", ONE, 6) for shape in ((0,), (4,), (1,), (), (3, 2), (2, 1, 3), (7,)))
STATS = {"running_mean": (3,), "running_var": (3,), "num_batches_tracked": ()}
AFFINE = {"weight": (3,), "bias": (3,)}


def last(size: int) -> Callable[[Shape], Shape]:
    return lambda shape: (*shape[:-1], size)


def library(x: Any) -> Any:
    """The library that a tensor belongs to: Slalom or PyTorch."""
    return sys.modules[type(x).__module__.partition(".")[0]]


def through(layer: Any, call: Callable[[Any, Any], Any]) -> Any:
    """A layer that takes or returns several tensors as one of one tensor: x → ``call(layer, x)``.

    The layer's own forward is ``layer.plain`` there.
    """
    kind = type(layer)

    def forward(self: Any, x: Any) -> Any:
        return call(self, x)

    called = next(base for base in kind.__mro__ if base.__name__ == "Module").__call__  # PyTorch's lists refuse calls
    body = {"forward": forward, "plain": kind.forward, "__call__": called, "__module__": kind.__module__}
    layer.__class__ = type(kind.__name__, (kind,), body)
    return layer


def on_a_copy(layer: Any) -> Any:
    """A layer that writes over its input as one that leaves it alone: leaves must not be written."""
    return through(layer, lambda self, x: self.plain(x.clone()))


def bare(layer: Any) -> Any:
    """The layer itself, without the call that ``through`` gave it."""
    if "plain" in vars(type(layer)):
        layer.__class__ = type(layer).__base__
    return layer


def joined(*parts: Any) -> Any:
    """Tensors, or tuples of them, as one vector."""
    flat = [t.reshape(-1) for part in parts for t in (part if isinstance(part, tuple) else (part,))]
    return library(flat[0]).cat(flat)

"""LossRow and Sample, of which the tables of losses are made, and what several tables share. Data only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

Shape = tuple[int, ...]


class Given(NamedTuple):
    """An input beyond the first two: its kind, and its shape where it is another than the sample's."""

    kind: Any
    shape: Shape | None = None


class Sample(NamedTuple):
    """Input and target, and what else a loss takes. Kinds of numbers: "real", "probability", "positive", "log"
    (log-probabilities over axis 1), "binary", "rate" (in 0 … 1), "count", "sign" (1 or −1), "class", "some" (classes,
    some of them ignored), "classes" (probabilities over axis 1), "rising" (along the last axis), "listed" (classes up
    to a −1), "level" (a class for each element), "sign-rows" and "lower" (a sign, or a number, for each place without
    the last axis). A kind may also be the numbers themselves.
    """

    shape: Shape
    input: str
    target: Any
    how: str = "plain"
    extra: tuple[Given, ...] = ()


@dataclass(frozen=True)
class LossRow:
    """``name``: the Module; ``function``: its twin in ``nn.functional``. ``build(nn, reduction, *weights)`` makes it;
    ``weights``: the shapes of those tensors. ``errors``: calls of (nn, tensor) that must be refused, and the message.
    ``extreme``: inputs, and the exact loss of each row of them (None: any finite one).

    ``out``: the shape of each element's loss, where it is neither the input's nor, for classes, the input's without
    its axis 1. ``before`` is applied to the first input. ``mean``: what "mean" makes of (elements, inputs), where it is
    neither the plain mean nor the one with ``ignore_index``. ``reference``: the same in PyTorch, which has no such
    Module. ``rows``: the inputs' first axes count the same rows. ``text``: it prints as PyTorch's.
    """

    name: str
    function: str
    build: Callable[..., Any]
    samples: tuple[Sample, ...]
    weights: tuple[Shape, ...] = ()
    errors: tuple[tuple[Callable[[Any, Any], Any], str], ...] = ()
    extreme: tuple[tuple[Any, ...], ...] = ()
    variant: str = ""
    out: Callable[[Shape], Shape] | None = None
    before: Callable[[Any], Any] = lambda x: x
    mean: Callable[..., float] | None = None
    reference: Callable[..., Any] | None = None
    rows: bool = True
    text: bool = True

    @property
    def id(self) -> str:
        return f"{self.name}-{self.variant}" if self.variant else self.name

    def shape(self, i: int) -> Shape:
        """Of each element's loss, for the i-th sample."""
        sample = self.samples[i]
        shape = sample.shape
        if self.out is not None:
            return self.out(shape)
        if sample.target in ("class", "some", "classes"):
            axis = 1 if len(shape) > 1 else 0
            return (*shape[:axis], *shape[axis + 1 :])
        return shape


def over(shapes: tuple[Shape, ...], input: str, target: Any, *extra: Given) -> tuple[Sample, ...]:
    """Plain samples of some shapes, then transposed and strided ones."""
    plain = tuple(Sample(shape, input, target, "plain", extra) for shape in shapes)
    return (
        *plain,
        Sample((4, 3), input, target, "transposed", extra),
        Sample((5, 3), input, target, "strided", extra),
    )


def same(input: str, target: str, *extra: Given) -> tuple[Sample, ...]:
    return over(((0, 3), (4, 3), (1, 1), (7,), (2, 5, 3), (), (1, 3)), input, target, *extra)


def classes(input: str, target: str) -> tuple[Sample, ...]:
    return over(((0, 3), (4, 3), (1, 3), (7, 3), (2, 3, 5), (2, 3, 2, 2), (3,)), input, target)


def rows_of_3(input: str, target: str, *extra: Given) -> tuple[Sample, ...]:
    """Batches of vectors, and one vector."""
    return over(((0, 3), (4, 3), (1, 3), (7, 3), (3,), (2, 3)), input, target, *extra)


def without_last(shape: Shape) -> Shape:
    return shape[:-1]

"""How a row of the operation tables is written: arrays by shape and layout, samples, what is wrong input.

``tests/table_ops.py`` and ``tests/table_functions.py`` hold rows only; ``tests/test_ops.py`` checks them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

try:
    import torch
except ImportError:  # then there is nothing to be compared with
    torch = None

INF, NAN = float("inf"), float("nan")
SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 1000.0, -1000.0, INF, -INF, NAN)


@dataclass(frozen=True)
class Array:
    """An array to be made: floating numbers of the dtype under test unless ``dtype`` is given."""

    shape: tuple[int, ...]
    low: float = -2.0
    high: float = 2.0
    dtype: str | None = None
    layout: str = "rows"
    values: tuple[Any, ...] | None = None

    def make(self, rng: np.random.Generator, floating: str) -> np.ndarray:
        if self.values is not None:
            with np.errstate(over="ignore"):
                return np.array(self.values, self.dtype or floating).reshape(self.shape)
        if self.layout == "columns":
            return self._draw(rng, floating, self.shape[::-1]).T
        if self.layout == "backwards":
            return np.flip(self._draw(rng, floating, self.shape))
        if self.layout == "gaps":
            return self._draw(rng, floating, tuple(2 * n for n in self.shape))[
                tuple(slice(None, None, 2) for _ in self.shape)
            ]
        if self.layout == "repeated":
            return np.broadcast_to(self._draw(rng, floating, self.shape[1:]), self.shape)
        return self._draw(rng, floating, self.shape)

    def _draw(self, rng: np.random.Generator, floating: str, shape: tuple[int, ...]) -> np.ndarray:
        if self.dtype is None or self.dtype.startswith("float"):
            return rng.uniform(self.low, self.high, shape).astype(self.dtype or floating)
        return rng.integers(int(self.low), int(self.high) + 1, shape).astype(self.dtype)


def F(*shape: int, low: float = -2.0, high: float = 2.0, layout: str = "rows") -> Array:
    """Floating numbers."""
    return Array(shape, low, high, None, layout)


def I(*shape: int, low: int = -3, high: int = 3, dtype: str = "int64", layout: str = "rows") -> Array:  # noqa: E743
    """Integers from low to high, both included."""
    return Array(shape, low, high, dtype, layout)


def B(*shape: int) -> Array:
    """Truth values."""
    return Array(shape, 0, 1, "bool")


def V(*values: Any, shape: tuple[int, ...] | None = None, dtype: str | None = None) -> Array:
    """These values."""
    return Array(shape if shape is not None else (len(values),), dtype=dtype, values=values)


class S:
    """A sample: arguments, among them arrays to be made. Not ``smooth``: no derivative is compared with differences."""

    def __init__(self, *args: Any, smooth: bool = True, **kwargs: Any) -> None:
        self.args, self.kwargs, self.smooth = args, kwargs, smooth

    def make(self, row: str, name: str, floating: str = "float64") -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with their arrays; the same numbers at every call."""
        rng = np.random.default_rng(zlib.crc32(f"{row}/{name}".encode()))
        return made((self.args, self.kwargs), lambda a: a.make(rng, floating))


def made(value: Any, function: Callable[[Array], Any]) -> Any:
    """A tree of arguments with ``function`` of its arrays."""
    if isinstance(value, Array):
        return function(value)
    if isinstance(value, (list, tuple)):
        return type(value)(made(item, function) for item in value)
    if isinstance(value, dict):
        return {key: made(item, function) for key, item in value.items()}
    return value


@dataclass(frozen=True)
class Wrong:
    """Arguments that are an error, with its class and what its message says (a regular expression).

    Not ``staged``: it is in the values, which are not known while staging.
    """

    sample: S
    error: type[Exception]
    match: str
    staged: bool = True


@dataclass(frozen=True)
class Op:
    """A row: one operation, with at least six samples.

    ref: an independent NumPy reference; primitives are their own (``impl``) where there is none. torch: the name of
    PyTorch's counterpart ("": the row's), a function of the same arguments, or None. smooth: it has derivatives.
    dynamic: its shape depends on values, so staging is an error. arrays: it takes NumPy arrays, not tensors.
    xfail: reasons by "check" or "check[sample]".
    """

    name: str
    samples: Mapping[str, S]
    ref: Callable[..., Any] | None = None
    torch: str | Callable[..., Any] | None = ""
    errors: tuple[Wrong, ...] = ()
    smooth: bool = True
    dynamic: bool = False
    arrays: bool = False
    xfail: Mapping[str, str] = field(default_factory=dict)


# --- samples that many rows share ---------------------------------------------------------------------------------
def unary(low: float = -2.0, high: float = 2.0, *, special: Iterable[float] = SPECIAL, **more: S) -> dict[str, S]:
    """Every layout for a function of one tensor."""
    shapes = {"scalar": (), "empty": (0,), "one": (1,), "odd": (7,), "matrix": (3, 5), "hole": (2, 0, 3)}
    layouts = {"columns": (4, 3), "backwards": (5,), "gaps": (3, 4), "repeated": (2, 3)}
    return (
        {name: S(F(*shape, low=low, high=high)) for name, shape in shapes.items()}
        | {layout: S(F(*shape, low=low, high=high, layout=layout)) for layout, shape in layouts.items()}
        | {"special": S(V(*special), smooth=False)}
        | more
    )


def binary(
    left: tuple[float, float] = (-2.0, 2.0),
    right: tuple[float, float] = (-2.0, 2.0),
    *,
    special: Iterable[float] = SPECIAL,
    **more: S,
) -> dict[str, S]:
    """Every way of broadcasting, and the layouts, for a function of two tensors."""

    def pair(a: tuple[int, ...], b: tuple[int, ...], **layout: str) -> S:
        return S(F(*a, low=left[0], high=left[1], **layout), F(*b, low=right[0], high=right[1]))

    values = tuple(special)
    n = len(values)
    return {
        "scalars": pair((), ()),
        "empty": pair((0,), (0,)),
        "one": pair((1,), (1,)),
        "odd": pair((7,), (7,)),
        "row": pair((3, 5), (5,)),
        "column_row": pair((3, 1), (1, 4)),
        "scalar_left": pair((), (2, 3)),
        "scalar_right": pair((2, 3), ()),
        "stretched": pair((2, 1, 3), (4, 1)),
        "hole": pair((2, 0, 3), (3,)),
        "columns": pair((4, 3), (4, 3), layout="columns"),
        "backwards": pair((5,), (5,), layout="backwards"),
        "gaps": pair((3, 4), (4,), layout="gaps"),
        "special": S(V(*values, shape=(n, 1)), V(*values, shape=(1, n)), smooth=False),
    } | more


def axes(*, low: float = -2.0, high: float = 2.0, empty: bool = True, **options: Any) -> dict[str, S]:
    """Axes and ``keepdim`` for a reduction over one axis, several or all."""

    def x(*shape: int, layout: str = "rows") -> Array:
        return F(*shape, low=low, high=high, layout=layout)

    samples = {
        "all": S(x(3, 4), **options),
        "scalar": S(x(), **options),
        "one": S(x(1), **options),
        "first": S(x(3, 4), 0, **options),
        "last_kept": S(x(2, 3, 5), dim=-1, keepdim=True, **options),
        "two": S(x(2, 3, 4), dim=(0, 2), **options),
        "all_kept": S(x(2, 3), dim=(0, 1), keepdim=True, **options),
        "odd": S(x(7), 0, **options),
        "long": S(x(33, 17), 0, **options),
        "no_rows": S(x(0, 3), 1, **options),
        "columns": S(x(4, 3, layout="columns"), 1, **options),
        "backwards": S(x(5, 3, layout="backwards"), 0, **options),
        "gaps": S(x(3, 4, layout="gaps"), 1, **options),
    }
    return samples | ({"empty": S(x(0), **options), "hole": S(x(2, 0, 3), 1, **options)} if empty else {})


def each(*args: Any, **kwargs: Any) -> dict[str, S]:
    """The layouts of a 4 × 3 matrix, each with these arguments."""
    return {layout: S(F(4, 3, layout=layout), *args, **kwargs) for layout in ("columns", "backwards", "gaps")}

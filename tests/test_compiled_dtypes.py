"""Random native graphs in which all dtypes meet: comparisons, casts, bits, selections, reductions, sorting, indices."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from executors import run_fenced, same

from slalom.compiler.executor import NumpyExecutor
from slalom.compiler.native import NativeExecutor
from slalom.compiler.program import Program
from slalom.core.dtype import ALL, int64
from slalom.core.graph import Graph, Type
from slalom.core.shape import broadcast
from slalom.errors import ShapeError
from tests.table_simplify import Maker
from tests.test_compiled import integers

LARGEST = 4000  # elements of a value
FLOATS, INTEGERS, BITS = "f", "ui", "bui"


class Mixture:
    """A graph in the making; ``steps`` add a value each, where what was drawn fits."""

    def __init__(self, seed: int) -> None:
        self.rng, self.m = np.random.default_rng(seed), Maker()
        self.arrays: list[np.ndarray] = []
        self.values: list[int] = []
        base = tuple(self.rng.choice([1, 2, 3, 5, 16, 17, 33], size=self.rng.integers(1, 4)).tolist())
        base = base if math.prod(base) < LARGEST else base[:2]
        shapes = [base, base[-1:], (1,) * (len(base) - 1) + base[-1:], (*base[:-1], 1), ()]
        for _ in range(self.rng.integers(2, 5)):
            shape, dtype = self.one(shapes), self.one(ALL)
            array = integers(self.rng, shape, dtype) if dtype.kind in BITS else self.rng.integers(-8, 9, shape) / 4
            self.arrays.append(np.asarray(array, dtype))
            self.values.append(self.m.arg(*shape, dtype=dtype.str))
        for _ in range(self.rng.integers(4, 16)):
            made = self.one(STEPS)(self)
            self.values += [] if made is None else [made]

    def graph(self) -> Graph:
        used = {i for eq in self.m.equations for i in eq.inputs}
        return self.m.graph(*[v for v in self.values if v not in used])

    def one(self, things: Any) -> Any:
        return things[self.rng.integers(len(things))]

    def type(self, value: int) -> Type:
        return self.m.types[value]

    def pick(self, kinds: str = "buif") -> int | None:
        """One of these kinds, rather a late one."""
        found = [v for v in self.values if self.type(v).dtype.kind in kinds]
        return found[-1 - min(int(self.rng.integers(6)), len(found) - 1)] if found else None

    def partner(self, *others: int) -> int:
        """A value of the dtype of the last of the others that broadcasts with them."""
        for value in self.rng.permutation(self.values).tolist():
            try:
                shape = broadcast("", [self.type(v).shape for v in (*others, value)])
            except ShapeError:
                continue
            if self.type(value).dtype == self.type(others[-1]).dtype and math.prod(shape) < LARGEST:
                return value
        return others[-1]


def two(g: Mixture) -> int:
    x = g.pick()
    names = ["eq", "ne", "lt", "le", "maximum", "minimum", "add", "mul"]
    kind = g.type(x).dtype.kind
    names += ["sub"] if kind != "b" else []
    names += ["bitand", "bitor"] if kind in BITS else []
    names += ["floor_divide", "mod"] if kind in INTEGERS else []
    return getattr(g.m, g.one(names))(x, g.partner(x))


def one(g: Mixture) -> int:
    x = g.pick()
    kind = g.type(x).dtype.kind
    names = ["abs", *(["neg", "sign", "relu"] if kind != "b" else []), *(["bitnot"] if kind in BITS else ["floor"])]
    return getattr(g.m, g.one(names))(x)


def cast(g: Mixture) -> int:
    x = g.pick()
    dtypes = [d for d in ALL if d.kind not in INTEGERS] if g.type(x).dtype.kind == "f" else ALL
    return g.m.cast(x, dtype=g.one(dtypes))


def chosen(g: Mixture) -> int | None:
    condition, x = g.pick("b"), g.pick()
    if condition is None:
        return None
    try:
        broadcast("", [g.type(v).shape for v in (condition, x)])
    except ShapeError:
        return None
    return g.m.where(condition, x, g.partner(condition, x))


def along(g: Mixture) -> int | None:
    x = g.pick()
    rank = len(g.type(x).shape)
    if not rank:
        return None
    axes = tuple(sorted(g.rng.choice(rank, size=g.rng.integers(1, rank + 1), replace=False).tolist()))
    flag = bool(g.rng.integers(2))
    lines: list[Callable[[], int]] = [
        lambda: g.m.sum(x, axes=axes, keepdims=flag),
        lambda: g.m.amax(x, axes=axes, keepdims=flag),
        lambda: g.m.argmax(x, axis=axes[0], keepdims=flag),
        lambda: g.m.argsort(x, axis=axes[0], descending=flag),
        lambda: g.m.cumsum(x, axis=axes[0], reverse=flag),
    ]
    return g.one(lines)()


def moved(g: Mixture) -> int | None:
    x = g.pick()
    shape = g.type(x).shape
    zeros, steps = (0,) * len(shape), tuple(g.rng.integers(0, 2, len(shape)).tolist())
    alike = [v for v in g.values if g.type(v) == g.type(x)]
    views: list[Callable[[], int]] = [
        lambda: g.m.transpose(x, axes=tuple(g.rng.permutation(len(shape)).tolist())),
        lambda: g.m.flip(x, axes=(int(g.rng.integers(len(shape))),)),
        lambda: g.m.pad(x, low=(1,) * len(shape), high=zeros, interior=steps),
        lambda: g.m.slice(x, start=zeros, stop=shape, step=tuple(s + 1 for s in steps)),
        lambda: g.m.concatenate(x, g.one(alike), axis=int(g.rng.integers(len(shape)))),
    ]
    return g.one(views)() if shape and math.prod(shape) < LARGEST // 4 else None


def gathered(g: Mixture) -> int | None:
    x, index = g.pick(), g.pick(INTEGERS)
    shape = g.type(x).shape
    if index is None or not shape or math.prod(g.type(index).shape) * math.prod(shape[1:]) > LARGEST:
        return None
    return g.m.gather(x, g.m.mod(g.m.cast(index, dtype=int64), g.m.const(shape[0], "i8")))


STEPS: tuple[Callable[[Mixture], int | None], ...] = (two, two, two, one, cast, chosen, along, along, moved, gathered)


def compare(seed: int) -> None:
    """All values are integers or small multiples of 1/4 at first; sums of products of them may be rounded."""
    drawn = Mixture(seed)
    graph, arrays = drawn.graph(), drawn.arrays
    with np.errstate(all="ignore"):
        expected = NumpyExecutor(graph)(arrays)
    program = Program(graph)
    found = [run_fenced(program, arrays, at_end=at_end, split=not at_end) for at_end in (True, False)]
    found.append(NativeExecutor(graph, {})([array.copy() for array in arrays]))
    for a, b in zip(expected, found[0], strict=True):
        close = {"rtol": 1e-5} if a.dtype.kind == "f" else {"rtol": 0}
        np.testing.assert_allclose(b, a, **close, err_msg=str(graph))
        assert a.dtype == b.dtype
    for other in found[1:]:
        assert all(map(same, found[0], other)), f"{graph}"


@pytest.mark.parametrize("block", range(8))
def test_all_dtypes(block: int) -> None:
    for seed in range(25 * block, 25 * block + 25):
        compare(seed)


@pytest.mark.exhaustive
def test_all_dtypes_often() -> None:
    for seed in range(5000):
        compare(seed)

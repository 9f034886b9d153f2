"""Outlines: all that is needed to run a program that was compiled before, without going through the stages again.

An outline names the kernels by their keys and says what their argument words hold. It is kept on disk beside the code,
as JSON, under a digest of the graph, so that a warm start costs a few milliseconds.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import numpy as np

from slalom.compiler import cache
from slalom.core.graph import Graph
from slalom.core.primitive import Array
from slalom.core.step import Body

LARGEST: Final = 1 << 20
"""Bytes of constants with which an outline is not kept."""

Word = int | tuple[str, int, int] | tuple[str, int, int, int]
"""A number, or an address: of an "input", "output" or "constant", of the "arena" or "status", its number, an offset,
and by how much it moves on each time that the step is repeated."""


class Step(NamedTuple):
    """One call: the number of its kernel, its tasks, among how many threads they are shared, elementary operations and
    words; whether it may write outside."""

    kernel: int
    tasks: int
    ways: int
    flops: int
    commit: bool
    words: tuple[Word, ...]


class Outline(NamedTuple):
    """``keys`` of the kernels, the ``steps``, bytes of the ``arena``, the ``constants`` by number, and the loops: from
    which step to before which one is repeated how often."""

    keys: tuple[str, ...]
    steps: tuple[Step, ...]
    arena: int
    constants: dict[int, Array]
    loops: tuple[tuple[int, int, int], ...] = ()

    @property
    def parts(self) -> list[tuple[tuple[Step, ...], int]]:
        """Steps in a row, and how often they are made."""
        found, done = [], 0
        for first, end, times in self.loops:
            found += [(self.steps[done:first], 1), (self.steps[first:end], times)]
            done = end
        return [*found, (self.steps[done:], 1)]

    def pack(self) -> bytes | None:
        """As bytes; None if it is too large to be kept."""
        if sum(array.nbytes for array in self.constants.values()) > LARGEST:
            return None
        constants = {
            str(n): (array.dtype.str, array.shape, base64.b64encode(array.tobytes()).decode())
            for n, array in self.constants.items()
        }
        return json.dumps([self.keys, self.steps, self.arena, constants, self.loops]).encode()

    @classmethod
    def unpack(cls, data: bytes) -> Outline:
        keys, steps, arena, constants, loops = json.loads(data)
        arrays = {
            int(n): np.frombuffer(base64.b64decode(text), np.dtype(dtype)).reshape(shape)
            for n, (dtype, shape, text) in constants.items()
        }
        return cls(tuple(keys), tuple(Step(*step) for step in steps), arena, arrays, tuple(map(tuple, loops)))


def key_of(graph: Graph, targets: Mapping[int, int], *others: object) -> str:
    """A digest of all that an outline follows from: this package's own text, and NumPy, which folds constants, too."""
    digest = blake2b(digest_size=20)
    digest.update(repr([cache.sources(), np.__version__, sorted(targets.items()), others]).encode())
    _add(graph, digest)
    return digest.hexdigest()


def _add(graph: Graph, digest: blake2b) -> None:
    parts: list[Any] = [[(of.shape, of.dtype.str) for of in graph.types]]
    parts += [[(place.value, place.kind) for place in graph.inputs]]
    parts += [(eq.out, eq.prim.name, eq.inputs, [*map(_plain, eq.params.items())]) for eq in graph.equations]
    parts += [[(output.value, output.kind) for output in graph.outputs], sorted(graph.constants)]
    digest.update(repr(parts).encode())
    for value in sorted(graph.constants):
        digest.update(np.ascontiguousarray(graph.constants[value]).data)


def _plain(item: tuple[str, Any]) -> tuple[str, Any]:
    """A parameter; the text of a dtype takes longer than that of all else, and a loop's step is a graph."""
    name, value = item
    if isinstance(value, Body):
        known = value.derived.get("digest")
        if known is None:
            digest = blake2b(digest_size=20)
            _add(value.graph, digest)
            known = value.derived["digest"] = digest.hexdigest(), value.carries, value.pieces
        return name, known
    return (name, value.str) if isinstance(value, np.dtype) else item

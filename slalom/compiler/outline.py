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

LARGEST: Final = 1 << 20
"""Bytes of constants with which an outline is not kept."""

Word = int | tuple[str, int, int]
"""A number, or an address: of an "input", "output" or "constant", of the "arena" or "status", its number, an offset."""


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
    """``keys`` of the kernels, the ``steps``, bytes of the ``arena``, and the ``constants`` by number."""

    keys: tuple[str, ...]
    steps: tuple[Step, ...]
    arena: int
    constants: dict[int, Array]

    def pack(self) -> bytes | None:
        """As bytes; None if it is too large to be kept."""
        if sum(array.nbytes for array in self.constants.values()) > LARGEST:
            return None
        constants = {
            str(n): (array.dtype.str, array.shape, base64.b64encode(array.tobytes()).decode())
            for n, array in self.constants.items()
        }
        return json.dumps([self.keys, self.steps, self.arena, constants]).encode()

    @classmethod
    def unpack(cls, data: bytes) -> Outline:
        keys, steps, arena, constants = json.loads(data)
        arrays = {
            int(n): np.frombuffer(base64.b64decode(text), np.dtype(dtype)).reshape(shape)
            for n, (dtype, shape, text) in constants.items()
        }
        return cls(tuple(keys), tuple(Step(*step) for step in steps), arena, arrays)


def key_of(graph: Graph, targets: Mapping[int, int], *others: object) -> str:
    """A digest of all that an outline follows from: this package's own text, and NumPy, which folds constants, too."""
    digest = blake2b(digest_size=20)
    parts: list[Any] = [cache.sources(), np.__version__, sorted(targets.items()), others]
    parts += [[(of.shape, of.dtype.str) for of in graph.types]]
    parts += [[(place.value, place.kind) for place in graph.inputs]]
    parts += [(eq.out, eq.prim.name, eq.inputs, [*map(_plain, eq.params.items())]) for eq in graph.equations]
    parts += [[(output.value, output.kind) for output in graph.outputs], sorted(graph.constants)]
    digest.update(repr(parts).encode())
    for value in sorted(graph.constants):
        digest.update(np.ascontiguousarray(graph.constants[value]).data)
    return digest.hexdigest()


def _plain(item: tuple[str, Any]) -> tuple[str, Any]:
    """A parameter; the text of a dtype takes longer than that of all else."""
    name, value = item
    return (name, value.str) if isinstance(value, np.dtype) else item

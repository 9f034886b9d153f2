"""Turn: what one step of a loop is made of.

The rows of its batch are gathered from whole arrays through a row of indices, its program runs, and its sums are added
up. What may stop the step stops it before anything outside is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from slalom.compiler.indexed import Plan, gather_rows
from slalom.compiler.ir import F64, Builder
from slalom.compiler.program import Program, address
from slalom.compiler.threads import Call
from slalom.core.dtype import int64
from slalom.core.graph import Type
from slalom.core.node import Storage
from slalom.core.primitive import Array
from slalom.core.tensor import Tensor

__all__ = ["Copies", "Recording", "Shared", "Turn", "in_rows"]

SHARED_BYTES: Final = 1 << 16
"""For each of which in a batch another thread helps to gather it."""


Copies = dict[int, tuple[Storage, Array]]


class Recording(NamedTuple):
    """A record as ``Compiled.record`` gives it, and the tensors among its arguments: the batch, which a loop fills."""

    record: Any
    leaves: list[Tensor]

    def holds(self) -> bool:
        """Whether the record still fits the world: nothing that it depends on has changed."""
        return self.record.changed(self.leaves) is None


class Shared:
    """Memory that all steps of a loop have in common.

    ``sums``, ``latest``, ``total``: of the step that is made, of the last one that ended, and of all · ``finite``:
    whether the step may be written · ``state``: of the random generator, on which the programs work · ``draw``: where
    the next step's last number of it is written, and that number · ``now``: the numbers that steer.
    """

    def __init__(self, recording: Recording) -> None:
        graph = recording.record.graph
        sums, _ = results = [i for i, output in enumerate(graph.outputs) if output.kind == "result"]
        self.results: tuple[int, ...] = tuple(results)
        self.sums = np.zeros(graph.types[graph.outputs[sums].value].shape)  # also of a step that is stopped
        self.latest, self.total = np.zeros_like(self.sums), np.zeros_like(self.sums)
        self.finite = np.zeros((), np.bool_)
        self.state = np.zeros(3, np.int64)
        self.draw = np.array([address(self.state[-1:]), 0], np.int64)  # in the order of the setter's words
        self.ends = np.array([*map(address, (self.total, self.latest, self.sums)), self.total.size], np.int64)
        self.numbers = sum(place.kind == "number" for place in graph.inputs)
        self.now = np.zeros(self.numbers)


class Turn:
    """A recorded step with its memory, as calls of a table.

    recording: of a function that returns (sums, finite): a float64 vector, and a truth value without which a step
    writes nothing. rows: how many there are to make batches of; None: the caller puts each batch into ``batch``.
    generator: the state of a random generator, of which ``shared`` has a copy.

    beside: functions that will be needed, too. ``batch``: the memory of the present batch, by argument · ``rows``: how
    many it has · ``written``: what a step writes to · ``builders``: the kernels beside the program.

    Raises: LookupError for a record that depends on more than its arguments, states and numbers.
    """

    def __init__(
        self,
        recording: Recording,
        rows: int | None,
        generator: Storage | None,
        shared: Shared,
        beside: Sequence[Builder] = (),
    ) -> None:
        self.recording, self._shared = recording, shared
        record, leaves = recording
        graph, binding = record.graph, record.binding
        self.written: list[Storage] = [binding.outputs[i] for i in record.targets]
        if (
            len(shared.results) + len(self.written) != len(graph.outputs)
            or any(place.kind == "grad" for place in graph.inputs)
            or not all(isinstance(target, Storage) for target in self.written)
        ):
            raise LookupError("the record reads or writes more than a loop can give it")
        self.batch = [np.asarray(t._storage.array, order="C") for t in leaves]
        self.rows = len(self.batch[0])
        # The words that hold where the arrays are, their rows' numbers, and the status.
        self._sources: list[tuple[Array, int]] = []
        self._indices: list[tuple[Array, int]] = []
        self._statuses: list[tuple[Array, int]] = []
        self._gathers = [] if rows is None else [self._gather(rows, batch) for batch in self.batch]
        self.builders = [*(b for b, _, _ in self._gathers), _setter(), _adder()]
        sums, finite = shared.results
        beside = [*self.builders, *beside]
        self.program = program = Program(graph, record.targets, guard=finite, beside=beside)
        self._put("output", sums, address(shared.sums))
        self._put("output", finite, address(shared.finite))
        self._numbers: list[tuple[Any, list[tuple[int, int]]]] = []
        self._states: list[tuple[Storage, list[tuple[int, int]]]] = []
        for i, (place, source) in enumerate(zip(graph.inputs, binding.inputs, strict=True)):
            at = program.words_for("input", i)
            if place.kind == "number":
                self._numbers.append((source, at))
            elif place.kind == "argument":
                self._put("input", i, address(self.batch[source]))
            elif source is generator:
                self._put("input", i, address(shared.state))
            else:
                self._states.append((source, at))
        self._bound: list[Any] = [None] * len(self._states)

    def _gather(self, rows: int, batch: Array) -> tuple[Builder, Plan, Array]:
        """A kernel that copies the rows of a batch, and its words."""
        b = Builder()
        plan = gather_rows(b, rows, batch[:1].nbytes, Type((self.rows,), int64))
        words = np.zeros(len(b.bound), np.int64)
        places = {("in", 0): self._sources, ("in", 1): self._indices, ("status",): self._statuses}
        for i, meaning in enumerate(b.bound):
            if meaning in places:
                places[meaning].append((words, i))
            else:
                words[i] = address(batch) if meaning == ("out", 0) else meaning
        return b, plan, words

    def _put(self, where: str, number: int, start: int) -> None:
        for word, offset in self.program.words_for(where, number):
            self.program.words[word] = start + offset

    # --- the calls ------------------------------------------------------------------------------------------------
    def calls(self, codes: Sequence[int]) -> list[Call]:
        """Gathers, the counter, the program, and the sum of its sums; ``codes``: where the builders' code is."""
        calls: list[Call] = []
        for (_, plan, words), batch, code in zip(self._gathers, self.batch, codes, strict=False):
            ways = 1 + batch.nbytes // SHARED_BYTES
            calls.append(Call(code, address(words), plan.tasks, ways, barrier=False))
        calls.append(Call(codes[-2], address(self._shared.draw), 1, 1))
        finite = address(self._shared.finite)
        calls += [call._replace(guard=finite) if call.commit else call for call in self.program.calls]
        guarded = any(call.commit for call in calls)
        calls.append(Call(codes[-1], address(self._shared.ends), 1, 1, commit=not guarded, guard=finite))
        return [call for call in calls if call.tasks]

    def index_words(self) -> list[int]:
        """The addresses of the words that hold where the index of the batch is."""
        return [address(words) + 8 * i for words, i in self._indices]

    def number_words(self) -> list[int]:
        """The addresses of the words that hold where the numbers that steer are."""
        return [self.program.address_of(word) for _, at in self._numbers for word, _ in at]

    def report_to(self, status: int) -> None:
        """Tell the kernels where the status word is."""
        self.program.report_to(status)
        for words, i in self._statuses:
            words[i] = status

    # --- before a run ---------------------------------------------------------------------------------------------
    def take_from(self, arrays: Sequence[Array]) -> None:
        """Make batches of the rows of these arrays, by argument, which must outlive the runs."""
        for (words, i), array in zip(self._sources, arrays, strict=True):
            words[i] = address(array)

    def numbers(self) -> list[float]:
        """The numbers that steer, as they are now."""
        return [read() for read, _ in self._numbers]

    def bind(self, index: int, numbers: int, copies: Copies) -> None:
        """Tell the program where everything is: the index of its batch, the numbers that steer, the states.

        copies: by id, the states that do not lie in row order, and what stands for them; more are added.
        """
        words = self.program.words
        for held, i in self._indices:
            held[i] = index
        for _, at in self._numbers:
            for word, offset in at:
                words[word] = numbers + offset
            numbers += 8
        for storage in self.written:
            if storage.shared:
                storage.writable()
        for n, (storage, at) in enumerate(self._states):
            if storage.array is not self._bound[n]:
                if not storage.array.flags.writeable and storage in self.written:
                    storage.writable()
                array = in_rows(storage, copies)
                self._bound[n] = array if array is storage.array else None
                for word, offset in at:
                    words[word] = address(array) + offset


def in_rows(storage: Storage, copies: Copies) -> Array:
    """An array, or if it does not lie in row order the copy that stands for it."""
    array: Array = storage.array
    if array.flags.c_contiguous:
        return array
    return copies.setdefault(id(storage), (storage, array.copy("C")))[1]


def _setter() -> Builder:
    """A kernel that stores a number at an address."""
    b = Builder()
    where = b.pointer("where", None)
    b.store(b.word("what", None), where)
    return b


def _adder() -> Builder:
    """A kernel that adds a vector of float64 to another, in order, and copies it to a third."""
    b = Builder()
    total, latest, sums = (b.pointer(name, None) for name in ("total", "latest", "sums"))
    with b.loop(0, b.word("n", None)) as i:
        into, found = b.offset(total, i, F64), b.load(F64, b.offset(sums, i, F64))
        b.store(b.add(b.load(F64, into), found), into)
        b.store(found, b.offset(latest, i, F64))
    return b

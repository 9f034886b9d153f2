"""The native loop: many steps of a recorded function over mini-batches, without Python in between.

In each step the rows of the batch are gathered from whole arrays through a row of indices, the program runs, and its
sums are added up. What may stop a step stops it before anything outside is written.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from slalom.compiler import llvm, runtime
from slalom.compiler.draws import permutation, permutation_keys
from slalom.compiler.indexed import Plan, gather_rows
from slalom.compiler.ir import F64, Builder
from slalom.compiler.native import native
from slalom.compiler.program import Program, address
from slalom.compiler.threads import Call, Outcome, Reason, Table
from slalom.core import kernels
from slalom.core.dtype import int64
from slalom.core.graph import Type
from slalom.core.node import Storage, note_writes
from slalom.core.primitive import Array
from slalom.core.tensor import Tensor

__all__ = ["Draw", "Loop", "Outcome", "Pace", "Reason", "Recording", "row_order"]


SHARED_BYTES: Final = 1 << 16
"""For each of which in a batch another thread helps to gather it."""


class Recording(NamedTuple):
    """A record as ``Compiled.record`` gives it, and the tensors among its arguments: the batch, which a loop fills."""

    record: Any
    leaves: list[Tensor]


class Draw(NamedTuple):
    """The state of the random generator before the first step, and by how much its last number grows from step to
    step."""

    state: tuple[int, ...]
    stride: int


START: Final = Draw((0, 0, 0), 0)


class Loop:
    """Steps of a recorded function whose arguments are mini-batches.

    recording: of a function that returns (sums, finite): a float64 vector, and a truth value without which a step
    writes nothing. arrays: by argument, the array whose rows the batches are made of; None: the caller puts each batch
    into ``batch``, and makes one step at a time. generator: the state of a random generator, whose last number is set
    anew before each step; runs work on a copy of their own, so that several loops can share it.

    ``batch``: the memory of the present batch, by argument · ``pace``: how to run it · ``latest``: the sums of the last
    step · ``total``: those of all steps, which the caller may set to 0.

    Raises: LookupError for a record that depends on more than its arguments, states and numbers.
    """

    def __init__(self, recording: Recording, arrays: Sequence[Array] | None, generator: Storage | None = None) -> None:
        self.record, self.leaves = recording
        graph, binding = self.record.graph, self.record.binding
        self.arrays = [np.ascontiguousarray(array) for array in arrays or ()]
        self.batch = [np.asarray(t._storage.array, order="C") for t in self.leaves]
        self.rows = len(self.batch[0])
        results = [i for i, output in enumerate(graph.outputs) if output.kind == "result"]
        self._written = [binding.outputs[i] for i in self.record.targets]
        if (
            len(results) != 2
            or len(results) + len(self._written) != len(graph.outputs)
            or any(place.kind == "grad" for place in graph.inputs)
            or not all(isinstance(target, Storage) for target in self._written)
        ):
            raise LookupError("the record reads or writes more than a loop can give it")
        sums, finite = results
        self.program = Program(graph, self.record.targets, guard=finite)
        self._sums = np.zeros(graph.types[graph.outputs[sums].value].shape)  # also of a step that is stopped
        self.latest, self.total = np.zeros_like(self._sums), np.zeros_like(self._sums)
        self._finite = np.zeros((), np.bool_)
        self._numbers = [i for i, place in enumerate(graph.inputs) if place.kind == "number"]
        self._now = np.zeros(len(self._numbers))
        self._put("output", sums, address(self._sums))
        self._put("output", finite, address(self._finite))
        self._generator = generator
        self._state = np.zeros(3, np.int64)  # of the generator
        self._draw = np.array([address(self._state[-1:]), 0], np.int64)  # in the order of the setter's words
        ends = address(self.total), address(self.latest), address(self._sums), self.total.size
        self._ends = np.array(ends, np.int64)
        self._words: list[Array] = []
        self._indices: list[int] = []  # the addresses of the words that hold where the index is …
        self._places = [self.program.words_for("input", i) for i in range(len(graph.inputs))]
        self._starts: list[tuple[Array, int]] = []  # … and where those are in arrays
        self._statuses: list[tuple[Array, int]] = []
        self._table()
        self.pace: Final = Pace(self.shared)

    # --- the table ------------------------------------------------------------------------------------------------
    def _table(self) -> None:
        """Gathers, the counter, the program, and the sum of its sums, as one table of calls."""
        gathers = [self._gather(array, batch) for array, batch in zip(self.arrays, self.batch, strict=False)]
        addresses = llvm.load([*(b for b, _ in gathers), _setter(), _adder()])
        calls: list[Call] = []
        for (_, plan), words, batch, code in zip(gathers, self._words, self.batch, addresses, strict=False):
            ways = 1 + batch.nbytes // SHARED_BYTES
            calls.append(Call(code, address(words), plan.tasks, ways, barrier=False))
        calls.append(Call(addresses[-2], address(self._draw), 1, 1))
        finite = address(self._finite)
        calls += [call._replace(guard=finite) if call.commit else call for call in self.program.calls]
        guarded = any(call.commit for call in calls)
        calls.append(Call(addresses[-1], address(self._ends), 1, 1, commit=not guarded, guard=finite))
        moving = [(word, 8 * self.rows) for word in self._indices]
        program = self.program
        self._rate_words = [program.address_of(w) for i in self._numbers for w, _ in program.words_for("input", i)]
        moving += [(word, 0) for word in (*self._rate_words, address(self._draw) + 8)]
        self.table = Table([call for call in calls if call.tasks], moving)
        self.program.report_to(self.table.status_address)
        for words, i in self._statuses:
            words[i] = self.table.status_address

    def _gather(self, array: Array, batch: Array) -> tuple[Builder, Plan]:
        """A kernel that copies the rows of a batch, and its words."""
        b = Builder()
        row_bytes = array.dtype.itemsize * int(np.prod(array.shape[1:]))
        plan = gather_rows(b, len(array), row_bytes, Type((self.rows,), int64))
        words = np.zeros(len(b.bound), np.int64)
        self._words.append(words)
        for i, meaning in enumerate(b.bound):
            if meaning == ("in", 1):
                self._indices.append(address(words) + 8 * i)
                self._starts.append((words, i))
            elif meaning == ("status",):
                self._statuses.append((words, i))
            else:
                words[i] = {("in", 0): address(array), ("out", 0): address(batch)}.get(meaning, meaning)
        return b, plan

    # --- running --------------------------------------------------------------------------------------------------
    def holds(self) -> bool:
        """Whether the record still fits the world: nothing that it depends on has changed."""
        return self.record.changed(self.leaves) is None

    def run(
        self, index: Array | None, steps: int, threads: int, *, rates: Array | None = None, draw: Draw = START
    ) -> Outcome:
        """Make so many steps over the rows that ``index`` (int64) names, batch after batch.

        rates: (steps, numbers), what steers each step; None: the numbers as they are now, for all of them.
        """
        for storage in self._written:
            storage.writable()
        copies = self._bind(rates)
        for words, i in self._starts:
            assert index is not None, "batches are gathered"
            words[i] = address(index)
        moves = self.table.advances[0][len(self._indices) :, 1]
        moves[:-1] = 0 if rates is None else 8 * len(self._numbers)
        self._state[:], self._draw[1], moves[-1] = draw.state, draw.state[-1], draw.stride
        outcome = self.table.run(steps, threads)
        for storage, copy in copies:
            if storage in self._written:
                np.copyto(storage.array, copy)
        note_writes(self._written)
        if self._generator is not None:
            self._generator.write(self._state)
        return outcome

    def _bind(self, rates: Array | None) -> list[tuple[Storage, Array]]:
        """Tell the program where everything is; the copies that it works on of what does not lie in row order."""
        copies = []
        graph, sources = self.record.graph, self.record.binding.inputs
        if rates is None:
            self._now[:] = self.numbers()
        numbers = address(self._now if rates is None else rates)
        words = self.program.words
        for place, source, at in zip(graph.inputs, sources, self._places, strict=True):
            if place.kind == "number":
                start, numbers = numbers, numbers + 8
            elif place.kind == "argument":
                start = address(self.batch[source])
            elif source is self._generator:
                start = address(self._state)
            else:
                array = source.array
                if not array.flags.c_contiguous:
                    array = array.copy("C")
                    copies.append((source, array))
                start = address(array)
            for word, offset in at:
                words[word] = start + offset
        return copies

    def _put(self, where: str, number: int, start: int) -> None:
        for word, offset in self.program.words_for(where, number):
            self.program.words[word] = start + offset

    @property
    def shared(self) -> bool:
        """Whether any of its work is worth more than one thread."""
        return any(call.ways > 1 for call in self.table.calls)

    def numbers(self) -> list[float]:
        """The numbers that steer, as they are now."""
        return [self.record.binding.inputs[i]() for i in self._numbers]


class Pace:
    """Chooses how many threads to use, and how many steps to make at once, from the times of the runs before.

    Bits do not depend on either, so both may change at any time. A number of threads that was set is kept.
    """

    SECONDS: Final = 0.04
    """About how long a run lasts: so often can the caller look after other things."""
    AGAIN: Final = 64
    """After so many runs, the choice is made anew: the machine may have become busy, or quiet."""

    def __init__(self, shared: bool) -> None:
        self._shared = shared
        self._begin()

    def _begin(self) -> None:
        n, chosen = self._setting = runtime.get_num_threads(), runtime.chosen()
        powers = [1 << k for k in range(n.bit_length()) if 1 << k < n]
        self._choices = [n] if chosen else [n, *reversed(powers)] if self._shared else [1]
        self._seconds: dict[int, float] = {}
        self._tries = dict.fromkeys(self._choices, 0)
        self._runs = 0

    def next(self) -> tuple[int, int]:
        """(threads, steps at most) of the next run."""
        if self._setting != (runtime.get_num_threads(), runtime.chosen()):
            self._begin()
        trying = [n for n in self._choices if self._tries[n] < 2]
        threads = trying[0] if trying else min(self._choices, key=lambda n: self._seconds[n])
        known = self._seconds.get(threads) or min(self._seconds.values(), default=0.0)
        if not known:
            return threads, 1
        # A try is short: it may be slower by far.
        return threads, max(1, int((0.1 if trying else 1.0) * self.SECONDS / known))

    def note(self, threads: int, steps: int, seconds: float) -> None:
        """How long a run took. The first one of its kind counts for little: threads start, caches are cold."""
        self._seconds[threads] = seconds / steps
        self._tries[threads] += 1
        self._runs += 1
        if self._runs % self.AGAIN == 0:
            self._tries = {n: self._tries[n] if n == threads else 0 for n in self._choices}


def row_order(seed: int, epoch: int, n: int) -> Array:
    """``kernels.permutation(seed, epoch, n)``, natively."""
    if not native() or n == 0:
        return kernels.permutation(seed, epoch, n)
    function, bound, tasks = _permuting(n)
    rows = np.empty(n, np.int64)
    counter, status = np.zeros((2, 1), np.int64)
    held: dict[Any, Array] = {("in", 0): permutation_keys(seed, epoch), ("in", 1): counter}
    held |= {("out", 0): rows, ("status",): status}
    words = np.array([address(held[m]) if isinstance(m, tuple) else m for m in bound], np.int64)
    function(address(words), 0, tasks)
    return rows


@functools.lru_cache(maxsize=64)
def _permuting(n: int) -> tuple[Any, list[Any], int]:
    """The kernel that computes the order of n rows, what its words mean, and its tasks."""
    b = Builder()
    plan = permutation(b, n, n)
    (code,) = llvm.load([b])
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    return prototype(code), b.bound, plan.tasks


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

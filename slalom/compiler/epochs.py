"""Epochs: what is done between the epochs of a loop, as machine code.

Where one begins, the rows get a new order, and some tensors are copied, so that one can go back to them. Where it ends,
its sums are noted and begin anew, and the tensors are looked at: a value that is not finite stops the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from slalom.compiler.draws import permutation, permutation_keys
from slalom.compiler.ir import F64, I8, I32, I64, LANES, PTR, Builder, Type, literal
from slalom.compiler.order import row_order
from slalom.compiler.program import address
from slalom.compiler.threads import Call
from slalom.compiler.turn import Copies, Shared, in_rows
from slalom.compiler.walker import ticks
from slalom.core.primitive import Array
from slalom.core.tensor import Tensor

__all__ = ["Epochs"]

AHEAD: Final = 64
"""Of how many epochs the keys of the orders are known ahead: computed together, they cost little."""
PIECE: Final = 1 << 16
"""Bytes of a tensor that are copied, or looked at, as one task; each is worth another thread."""
ROWS: Final = 1 << 12
"""Rows whose places in the order are worth another thread."""
_TYPES: Final = ("float", "double")


class Epochs:
    """The beginning and the end of each epoch, as calls of a table.

    ``seed``: the order of the rows is a function of (seed, epoch) · ``index``: the rows in order · ``tensors``: what is
    copied to ``kept`` at the beginning · ``finite``: whether all of them that are ``checked`` were at the end ·
    ``builders``: the kernels.
    """

    def __init__(self, rows: int, tensors: Sequence[Tensor], checked: Sequence[bool], shared: Shared) -> None:
        self.tensors = list(tensors)
        self.kept = [np.empty(t.shape, t.dtype) for t in tensors]
        self.index = np.empty(rows, np.int64)
        self.finite = np.ones((), np.bool_)
        self.ordered: int | None = None
        """The epoch whose order ``index`` holds."""
        self._seed = 0
        self._first = self._last = 0  # the epochs whose keys are known
        self._keys = np.zeros((AHEAD, 13), np.int64)
        self._position = np.zeros(1, np.int64)
        self._bound: list[Any] = [None] * len(tensors)
        self._permutation = Builder()
        self._tasks = permutation(self._permutation, rows, rows).tasks
        places = {("in", 0): self._keys, ("in", 1): self._position, ("out", 0): self.index}
        words = [0 if m == ("status",) else address(places[m]) if m in places else m for m in self._permutation.bound]
        self._order = np.array(words, np.int64)
        self._noted = np.zeros((AHEAD, shared.total.size + 1))
        self._closing = np.array([address(shared.total), address(self._noted), shared.total.size], np.int64)
        self._lay_out(checked)
        self.builders = [self._permutation, _copier(), _closer(), *(_looker(name) for name in self._looked)]

    def _lay_out(self, checked: Sequence[bool]) -> None:
        """The pieces of the tensors: (where to, where from, bytes), and by floating type (where, elements)."""
        copied: list[tuple[int, int, int]] = []
        looked: dict[str, list[tuple[int, int]]] = {name: [] for name in _TYPES}
        self._spans: list[tuple[slice, str, slice]] = []  # by tensor: its pieces among the copied, and the looked at
        for array, counts in zip(self.kept, checked, strict=True):
            cuts = [(start, min(PIECE, array.nbytes - start)) for start in range(0, array.nbytes, PIECE)]
            first, name = len(copied), "double" if array.dtype.itemsize == 8 else "float"
            copied += [(address(array) + start, start, size) for start, size in cuts]
            pieces = looked[name]
            second = len(pieces)
            if counts and array.dtype.kind == "f":
                pieces += [(start, size // array.dtype.itemsize) for start, size in cuts]
            self._spans.append((slice(first, len(copied)), name, slice(second, len(pieces))))
        self._copied = np.array(copied, np.int64).reshape(-1, 3)
        self._offsets = self._copied[:, 1].copy()
        self._looked: dict[str, Array] = {
            name: np.array(found, np.int64).reshape(-1, 2) for name, found in looked.items() if found
        }
        self._starts = {name: pieces[:, 0].copy() for name, pieces in self._looked.items()}
        self._copying = np.array([address(self._copied)], np.int64)
        self._looking = {
            name: np.array([address(pieces), address(self.finite)], np.int64) for name, pieces in self._looked.items()
        }

    # --- the calls ------------------------------------------------------------------------------------------------
    def begin(self, codes: Sequence[int]) -> list[Call]:
        """The calls where an epoch begins; ``codes``: where the builders' code is."""
        ways = 1 + len(self.index) // ROWS
        calls = [
            Call(codes[0], address(self._order), self._tasks, ways, False, commit=True, guard=address(self.finite)),
            Call(codes[1], address(self._copying), len(self._copied), len(self._copied)),
        ]
        return [call for call in calls if call.tasks]

    def end(self, codes: Sequence[int]) -> list[Call]:
        """The calls where one ends."""
        looks = [
            Call(code, address(self._looking[name]), len(pieces), len(pieces), barrier=False)
            for code, (name, pieces) in zip(codes[3:], self._looked.items(), strict=True)
        ]
        return [*looks, Call(codes[2], address(self._closing), 1, 1)]

    def advances(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """The words that move on after a beginning, and after an end: by how much."""
        (keys,) = [i for i, meaning in enumerate(self._permutation.bound) if meaning == ("in", 0)]
        return [(address(self._order) + 8 * keys, 13 * 8)], [(address(self._closing) + 8, self._noted.strides[0])]

    def report_to(self, status: int) -> None:
        """Tell the kernels where the status word is."""
        for i, meaning in enumerate(self._permutation.bound):
            if meaning == ("status",):
                self._order[i] = status

    # --- before and after a run -----------------------------------------------------------------------------------
    @property
    def seed(self) -> int:
        return self._seed

    @seed.setter
    def seed(self, seed: int) -> None:
        if seed != self._seed:
            self._seed, self.ordered, self._last = seed, None, self._first

    def ahead(self, epoch: int) -> int:
        """How many epochs from this one on one run can make."""
        if not self._first <= epoch < self._last:
            self._first, self._last = epoch, epoch + AHEAD
            self._keys[:] = permutation_keys(self._seed, range(epoch, epoch + AHEAD))
        return self._last - epoch

    def bind(self, epoch: int, begun: bool, copies: Copies) -> None:
        """Before a run from an epoch on, of which a part may be made: say where everything is."""
        self.ahead(epoch)
        if begun and self.ordered != epoch:
            self.index[:] = row_order(self._seed, epoch, len(self.index))
        next_one = epoch + 1 if begun else epoch
        for i, meaning in enumerate(self._permutation.bound):
            if meaning == ("in", 0):
                self._order[i] = address(self._keys) + (next_one - self._first) * self._keys.strides[0]
        self._closing[1] = address(self._noted)
        self.finite[()] = True
        for n, (t, (pieces, name, looked)) in enumerate(zip(self.tensors, self._spans, strict=True)):
            storage = t._storage
            if storage.array is not self._bound[n]:
                array = in_rows(storage, copies)
                self._bound[n] = array if array is storage.array else None
                self._copied[pieces, 1] = self._offsets[pieces] + address(array)
                if looked.stop > looked.start:
                    self._looked[name][looked, 0] = self._starts[name][looked] + address(array)

    def noted(self, ended: int) -> tuple[Array, list[int]]:
        """Of the epochs that ended in the last run, the sums and when."""
        rows = self._noted[:ended]
        return rows[:, :-1].copy(), rows[:, -1].view(np.int64).tolist()


def _copier() -> Builder:
    """A kernel that copies pieces: (where to, where from, bytes)."""
    b = Builder()
    pieces = b.pointer("pieces", None)
    b.declared["llvm.memmove.p0.p0.i64"] = "declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)"
    with b.loop(b.begin, b.end) as i:
        piece = b.offset(pieces, b.mul(i, literal(3, I64)), I64)
        to, source, size = (b.load(type, b.offset(piece, k, I64)) for k, type in enumerate((PTR, PTR, I64)))
        b.do(f"call void @llvm.memmove.p0.p0.i64({to}, {source}, {size}, i1 false)")
    return b


def _looker(scalar: str) -> Builder:
    """A kernel that stores 0 in a byte if anything in its pieces, (where, elements), is not finite."""
    b = Builder()
    type, vector = Type(scalar), Type(scalar, LANES)
    pieces, finite = b.pointer("pieces", None), b.pointer("finite", None)
    with b.loop(b.begin, b.end) as i:
        piece = b.offset(pieces, b.mul(i, literal(2, I64)), I64)
        source, count = b.load(PTR, piece), b.load(I64, b.offset(piece, 1, I64))
        rest = b.variable(literal(0, vector))  # x − x is 0, or else NaN, and NaN stays
        with b.loop(0, count, LANES) as j:
            x = b.load_masked(vector, b.offset(source, j, type), b.lanes_below(b.sub(count, j)))
            rest.set(b.add(rest.get(), b.sub(x, x)))
        found = b.compare("uno", rest.get(), rest.get())
        bits = b.convert("zext", b.op(f"bitcast {found} to i{LANES}", Type(f"i{LANES}")), "i32")
        with b.when(b.compare("ne", bits, literal(0, I32))):
            b.store(literal(0, I8), finite)
    return b


def _closer() -> Builder:
    """A kernel that moves a vector of float64 elsewhere, which leaves zeros, and notes the time behind it."""
    b = Builder()
    total, noted, n = b.pointer("total", None), b.pointer("noted", None), b.word("n", None)
    with b.loop(0, n) as i:
        place = b.offset(total, i, F64)
        b.store(b.load(F64, place), b.offset(noted, i, F64))
        b.store(literal(0, F64), place)
    b.store(ticks(b), b.offset(noted, n, I64))
    return b

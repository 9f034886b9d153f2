"""Native code, checked call by call: ``Checked`` stands in for the native executor in every test.

Each call also runs the NumPy executor and, where they differ, the same graph in a wider dtype. Native results must be
as good as NumPy's; then they are replaced with NumPy's, so that a test may demand the bits of eager mode all the same.
"""

from __future__ import annotations

import ctypes
import math
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from slalom.compiler import llvm
from slalom.compiler.executor import NumpyExecutor
from slalom.compiler.ir import STATUS, Memory
from slalom.compiler.memory import Place
from slalom.compiler.native import NativeExecutor
from slalom.compiler.program import Program
from slalom.core.graph import Equation, Graph, Output
from slalom.core.ops import TABLE
from slalom.core.ops.pointwise import ERF
from slalom.core.ops.reductions import SUM
from slalom.core.primitive import Primitive
from slalom.core.step import Body

Array = np.ndarray[Any, Any]
SINGLE, DOUBLE, LONG = np.dtype("f4"), np.dtype("f8"), np.dtype(np.longdouble)
ROUNDED = (
    *("add", "sub", "mul", "div", "pow", "mod", "exp", "expm1", "log", "log1p", "sqrt", "tanh", "sigmoid", "softplus"),
    *("erf", "sin", "cos", "sum", "cumsum", "matmul", "scatter_add", "fold"),
)
"""Primitives that round."""
_LONG_ERF = replace(ERF, impl=lambda x: np.vectorize(math.erf, otypes=[x.dtype])(x))  # Slalom's is of two dtypes alone


def same(a: Array, b: Array) -> bool:
    """Equal to the bit, but for NaN, which is one value."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.tobytes() == b.tobytes():
        return True
    if a.dtype.kind != "f":
        return False
    a, b = (np.where(np.isnan(x), np.array(np.nan, x.dtype), x) for x in (a, b))
    return a.tobytes() == b.tobytes()


def retyped(graph: Graph, other: Mapping[Any, Any]) -> Graph:
    """The graph in other dtypes."""
    equations = []
    for eq in graph.equations:
        params = {key: _retyped(value, other) for key, value in eq.params.items()}
        equations.append(replace(eq, params=params))
    types = tuple(t._replace(dtype=other.get(t.dtype, t.dtype)) for t in graph.types)
    constants = {v: a.astype(other.get(a.dtype, a.dtype)) for v, a in graph.constants.items()}
    return replace(graph, types=types, constants=constants, equations=tuple(equations))


def _retyped(value: Any, other: Mapping[Any, Any]) -> Any:
    if isinstance(value, Body):
        return replace(value, graph=retyped(value.graph, other), derived={})
    return other.get(value, value) if isinstance(value, np.dtype) else value


def _chain(x: Array, *, axes: tuple[int, ...], keepdims: bool) -> Array:
    """A sum in the order of the elements, with all of its roundings."""
    out = SUM.bare(x, axes=axes, keepdims=keepdims)
    if x.dtype.kind != "f" or not x.size:
        return out  # type: ignore[no-any-return]
    last = np.moveaxis(x, axes, range(-len(axes), 0)).reshape(*(n for i, n in enumerate(x.shape) if i not in axes), -1)
    return np.add.accumulate(last, -1)[..., -1].reshape(np.shape(out))


# --- how far native results may be from exact ones ----------------------------------------------------------------
class Bound:
    """How good a graph's outputs must be.

    Integers and truth values are NumPy's. The largest error of a float output is at most 4 times that of NumPy's, plus
    2 units in the last place of the largest magnitude on the path. NumPy's error may be small by chance (of a single
    number above all); then what counts is the largest of several runs in which each rounded result is moved by one
    unit in the last place, up or down, and sums are chains in the order of the elements, as native ones may be.
    Source: Parker (1997), "Monte Carlo Arithmetic"; Vignes (1978), the CESTAC method.
    """

    RUNS = 4

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        wide = any(t.dtype == DOUBLE for t in graph.types)
        self._wider = {SINGLE: LONG, DOUBLE: LONG} if wide else {SINGLE: DOUBLE}

    @cached_property
    def _exact(self) -> NumpyExecutor:
        """Computes all values in wider floats."""
        graph = retyped(self.graph, self._wider)
        long = [
            replace(eq, prim=_LONG_ERF) if eq.prim is ERF and LONG in self._wider.values() else eq
            for eq in graph.equations
        ]
        outputs = tuple(Output(v, "result", "") for v in range(len(graph.types)))
        return NumpyExecutor(replace(graph, equations=tuple(long), outputs=outputs))

    @cached_property
    def _moved(self) -> NumpyExecutor:
        """Computes the outputs with all roundings off by one, this way or that."""
        rng = np.random.default_rng(0)

        def moved(prim: Primitive) -> Primitive:
            run = _chain if prim is SUM else prim.bare

            def impl(*inputs: Array, **params: Any) -> Any:
                x = np.asarray(run(*inputs, **params))
                if x.dtype.kind != "f":
                    return x
                return np.nextafter(x, np.where(rng.random(x.shape) < 0.5, -np.inf, np.inf).astype(x.dtype))

            return replace(prim, impl=impl)

        table = {name: moved(TABLE[name]) for name in ROUNDED}

        def of(graph: Graph) -> Graph:
            return replace(graph, equations=tuple(map(line, graph.equations)))

        def line(eq: Equation) -> Equation:
            params = {
                key: replace(value, graph=of(value.graph), derived={}) if isinstance(value, Body) else value
                for key, value in eq.params.items()
            }
            return replace(eq, prim=table.get(eq.prim.name, eq.prim), params=params)

        return NumpyExecutor(of(self.graph))

    @cached_property
    def _paths(self) -> list[list[int]]:
        """For each output, the float values that it is computed from, and itself."""
        above: dict[int, frozenset[int]] = {}
        for eq in self.graph.equations:
            above[eq.out] = frozenset({eq.out}).union(*(above.get(v, frozenset({v})) for v in eq.inputs))
        floats = {v for v, t in enumerate(self.graph.types) if t.dtype.kind == "f"}
        return [sorted(above.get(o.value, frozenset({o.value})) & floats) for o in self.graph.outputs]

    def check(self, inputs: Sequence[Array], expected: Sequence[Array], found: Sequence[Array]) -> None:
        """Compare native results with NumPy's for these inputs. Raises: AssertionError naming an output."""
        different = [i for i, (a, b) in enumerate(zip(expected, found, strict=True)) if not same(a, b)]
        if not different:
            return
        values = self._exact([a.astype(self._wider.get(a.dtype, a.dtype)) for a in inputs])
        others: list[list[Array]] = []
        for i in different:
            name = f"output {i} ({self.graph.outputs[i].name})"
            want, got, exact = expected[i], found[i], values[self.graph.outputs[i].value]
            assert got.shape == want.shape and got.dtype == want.dtype, name
            assert want.dtype.kind == "f", f"{name}: {got} is not {want}"
            finite = np.isfinite(want) & np.isfinite(exact)
            beyond = ~np.isfinite(want)
            assert np.array_equal(got[beyond], want[beyond], equal_nan=True), f"{name}: {got} is not {want}"
            sizes = [np.abs(a[np.isfinite(a)]).max(initial=0) for a in (values[v] for v in self._paths[i])]
            largest = min(float(np.max(sizes)), float(np.finfo(want.dtype).max) / 2)
            least = 2 * np.spacing(want.dtype.type(largest))
            error, own = (float(np.abs(a[finite] - exact[finite]).max(initial=0)) for a in (got, want))
            if error <= 4 * own + least:
                continue
            others = others or [self._moved(inputs) for _ in range(self.RUNS)]
            own = max([own, *(float(np.abs(run[i][finite] - exact[finite]).max(initial=0)) for run in others)])
            assert error <= 4 * own + least, f"{name}: error {error:.3g}, NumPy's {own:.3g}, 2 ulp {least:.3g}"


# --- beside every native call -------------------------------------------------------------------------------------
class Checked(NativeExecutor):
    """The native executor, beside NumPy's, whose results it hands out."""

    def __init__(self, graph: Graph, targets: Mapping[int, int]) -> None:
        self._latest: dict[int, Array] = {}  # as given: NumPy's order of a sum follows the memory layout
        super().__init__(graph, targets)
        self._bound, self._numpy = Bound(graph), NumpyExecutor(graph)

    def give(self, changed: Mapping[int, Array]) -> None:
        self._latest |= changed
        super().give(changed)

    def run(self) -> list[Any]:
        inputs = [self._latest.get(i, array) for i, array in enumerate(self._used)]
        before = [array.copy() for array in inputs]
        try:
            expected = self._numpy(inputs)
        except Exception as error:
            try:
                super().run()
            except type(error):
                assert all(map(same, before, inputs)), "something was written before an error"
                raise
            raise AssertionError(f"native code does not raise {error!r}") from error
        outputs = super().run()
        written = set(self.targets.values())
        assert all(same(a, b) for i, (a, b) in enumerate(zip(before, inputs, strict=True)) if i not in written)
        found = [inputs[self.targets[i]] if slot is None else slot.array for i, slot in enumerate(outputs)]
        self._bound.check(before, expected, found)
        for got, want in zip(found, expected, strict=True):
            got[...] = want
        return outputs


# --- between pages that must not be touched -----------------------------------------------------------------------
_PAGE, _NO_ACCESS = mmap.PAGESIZE, 0
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


class Fenced:
    """``bytes`` bytes between two pages that end the process when they are touched.

    at_end: they lie close to the second page rather than to the first.
    """

    def __init__(self, bytes: int, at_end: bool) -> None:
        room = -(-bytes // _PAGE) * _PAGE
        self._map = mmap.mmap(-1, room + 2 * _PAGE)
        whole = np.frombuffer(self._map, np.uint8)
        start = _PAGE + (room - bytes if at_end else 0)
        self.bytes = whole[start : start + bytes]
        self.bytes[:] = 0xA5
        self.address = whole.ctypes.data + start
        for page in (whole.ctypes.data, whole.ctypes.data + _PAGE + room):
            assert _libc.mprotect(page, _PAGE, _NO_ACCESS) == 0


def run_fenced(
    program: Program,
    inputs: Sequence[Array],
    *,
    at_end: bool,
    split: bool = False,
    target: llvm.Target | None = None,
) -> list[Array]:
    """A program's outputs, where every value in memory lies between two pages that must not be touched.

    split: run the tasks of each call by themselves, the last one first · target: what the program was made for.
    """
    graph, lowered = program.graph, program.lowered
    types, given = lowered.schedule.graph.types, {place.value: i for i, place in enumerate(graph.inputs)}
    fences: dict[int, Fenced] = {STATUS.value: Fenced(8, at_end)}
    fences[STATUS.value].bytes[:] = 0

    def fence(value: int) -> Fenced:
        value = lowered.schedule.holder(value)
        if value not in fences:
            known = graph.constants | lowered.tables
            for step, numbers in program.memory.constants.items():
                known |= {number: step.constants[v] for v, number in numbers.items()}
            array = inputs[given[value]] if value in given else known.get(value)
            size = lowered.schedule.elements(value) * types[value].dtype.itemsize if value < len(types) else None
            size = lowered.scratch.get(value, size or (0 if array is None else array.nbytes))
            made = fences[value] = Fenced(size, at_end)
            if array is not None:
                made.bytes[:] = np.frombuffer(array.tobytes(), np.uint8)
        return fences[value]

    for rows, times in program.parts:
        addresses = llvm.load([row.builder for row in rows], target=target)
        for n, (row, address) in product(range(times), list(zip(rows, addresses, strict=True))):
            if any(isinstance(at.word, Place) for at in row.words):
                continue  # a copy to an output
            words = np.array([
                fence(w.value).address + w.offset + n * stride if isinstance(w, Memory) else w
                for w, stride in row.words
            ], np.int64)  # fmt: skip
            for task in reversed(range(row.tasks if split else 1)):
                _KERNEL(address)(words.ctypes.data, task, task + 1 if split else row.tasks)
    assert not fences[STATUS.value].bytes.any(), "a kernel reported an error"
    outputs = []
    for output in graph.outputs:
        shape, dtype = types[output.value]
        outputs.append(fence(program.kernels.roots[output.value]).bytes.copy().view(dtype).reshape(shape))
    return outputs


def compare(graph: Graph, arrays: Sequence[Array]) -> Program:
    """Check what a graph's program computes between guard pages at either end, with all tasks of a call at once and
    one by one, against NumPy; returns the program."""
    expected, program, bound = NumpyExecutor(graph)(list(arrays)), Program(graph), Bound(graph)
    for at_end in (True, False):
        bound.check(arrays, expected, run_fenced(program, arrays, at_end=at_end, split=not at_end))
    return program

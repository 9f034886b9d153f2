"""Native kernels of scans, orders, indexed access and random numbers, against the NumPy implementations."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from slalom.compiler import llvm
from slalom.compiler.draws import permutation, permutation_keys
from slalom.compiler.indexed import EMITTERS, FAILED, gather_rows
from slalom.compiler.ir import Builder
from slalom.core import dtype, kernels
from slalom.core.graph import Type
from slalom.core.ops import reductions, structural
from slalom.errors import ShapeError

PRIMITIVES = {prim.name: prim for prim in (*reductions.PRIMITIVES, *structural.PRIMITIVES)}
GUARD, FILL = 256, 0xA5

if not llvm.available():
    pytest.skip("needs llvmlite", allow_module_level=True)


# --- running one kernel -----------------------------------------------------------------------------------------------
class Guarded:
    """Memory with bytes around it that must stay as they are. ``skew`` is its distance from an aligned address."""

    def __init__(self, size: int, skew: int = 0) -> None:
        self.bytes = np.full(size + 2 * GUARD + 128, FILL, np.uint8)
        self.start = GUARD + -(self.bytes.ctypes.data + GUARD) % 64 + skew
        self.stop = self.start + size
        self.address = self.bytes.ctypes.data + self.start

    def view(self, shape, kind):
        return self.bytes[self.start : self.stop].view(kind).reshape(shape)

    def intact(self):
        return (self.bytes[: self.start] == FILL).all() and (self.bytes[self.stop :] == FILL).all()


def compiled(emit, target=None):
    """(address, what its argument words mean, Plan) of a kernel."""
    b = Builder()
    plan = emit(b)
    return llvm.load([b], target=target)[0], b.bound, plan


def run(address, words, begin, end):
    """One call of a kernel."""
    words = np.array(words, np.int64)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(address)(words.ctypes.data, begin, end)


def nbytes(type: Type) -> int:
    return int(np.prod(type.shape)) * type.dtype.itemsize


def call(emit, arrays: Sequence[np.ndarray], output: Type, pieces: int = 1, target=None):
    """(result, status) of a kernel run over its tasks in so many pieces, the last one first."""
    address, bound, plan = compiled(emit, target)
    result, status = Guarded(nbytes(output), skew=output.dtype.itemsize), Guarded(8)
    scratch = Guarded(plan.scratch)
    status.view((), np.int64)[...] = 0
    inputs = [Guarded(array.nbytes, skew=array.itemsize) for array in arrays]
    for place, array in zip(inputs, arrays, strict=True):
        place.view(array.shape, array.dtype)[...] = array

    def word(meaning):
        match meaning:
            case ("in", i):
                return inputs[i].address
            case ("out", 0):
                return result.address
            case ("status",):
                return status.address
            case ("scratch", size):
                assert size == plan.scratch
                return scratch.address
            case int():
                return meaning
        raise AssertionError(f"an argument that nobody binds: {meaning}")

    words = [word(meaning) for meaning in bound]
    ends = [plan.tasks * i // pieces for i in range(pieces + 1)]
    for begin, end in reversed(list(itertools.pairwise(ends))):
        run(address, words, begin, end)
    assert all(place.intact() for place in (result, status, scratch, *inputs)), "written outside of a buffer"
    for place, array in zip(inputs, arrays, strict=True):
        assert place.view(-1, np.uint8).tobytes() == array.tobytes(), "an input was written"
    return result.view(output.shape, output.dtype).copy(), int(status.view((), np.int64))


def operands(arrays):
    return [Type(array.shape, array.dtype) for array in arrays]


def native(name, *arrays, pieces=1, target=None, **params):
    """(result, status) of a primitive's kernel."""
    wanted = PRIMITIVES[name]
    output = Type(wanted.shape(*operands(arrays), **params), wanted.dtype(*operands(arrays), **params))
    emit = lambda b: EMITTERS[name](b, operands(arrays), output, params)  # noqa: E731
    return call(emit, arrays, output, pieces, target)


def check(name, *arrays, pieces=(1, 3), target=None, **params):
    """The kernel's result has the bits of the primitive's NumPy implementation (any NaN is a NaN)."""
    arrays = [np.asarray(array, order="C") for array in arrays]
    with np.errstate(all="ignore"):
        wanted = np.asarray(PRIMITIVES[name].impl(*arrays, **params))
    for count in pieces:
        found, status = native(name, *arrays, pieces=count, target=target, **params)
        assert status == 0
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
        if wanted.dtype.kind != "f":
            np.testing.assert_array_equal(found.view(f"u{wanted.itemsize}"), wanted.view(f"u{wanted.itemsize}"))
        else:
            np.testing.assert_array_equal(found, wanted)
            np.testing.assert_array_equal(np.signbit(found) & ~np.isnan(found), np.signbit(wanted) & ~np.isnan(wanted))


# --- data -------------------------------------------------------------------------------------------------------------
DTYPES = [pytest.param(kind, id=kind.name) for kind in dtype.ALL]
LINES = [
    ((), 0), ((0,), 0), ((1,), 0), ((7,), 0), ((16,), 0), ((47,), 0), ((49,), 0), ((300,), 0), ((5, 33), 0),
    ((5, 33), 1), ((70, 17), 0), ((3, 4, 20), 1), ((3, 60, 2), 1), ((2, 3, 19), 2), ((1, 65, 1), 1),
    ((4, 0, 3), 1), ((0, 5), 1), ((3, 5, 0), 1), ((40, 3), 1),
]  # fmt: skip
"""(shape, axis)."""


def values(kind, shape, seed=0):
    """Values of a dtype with many ties, its extremes, and for floats the special ones."""
    rng = np.random.default_rng(seed)
    if kind.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if kind.kind == "f":
        chosen = rng.integers(-3, 4, shape).astype(kind) / 2
        tiny = np.finfo(kind).smallest_subnormal
        special = np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, tiny, -tiny, np.finfo(kind).max], kind)
        return np.where(rng.random(shape) < 0.3, rng.choice(special, shape), chosen).astype(kind)
    bounds = np.iinfo(kind)
    edges = np.array([bounds.min, bounds.max, 0, 1, bounds.max // 2], kind)
    chosen = rng.integers(max(bounds.min, -4), 5, shape).astype(kind)
    return np.where(rng.random(shape) < 0.3, rng.choice(edges, shape), chosen).astype(kind)


# --- lines ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", DTYPES)
def test_cumsum(kind, reverse):
    for shape, axis in LINES[1:]:
        check("cumsum", values(kind, shape), axis=axis, reverse=reverse)
        if kind.kind == "f":
            x = np.random.default_rng(1).standard_normal(shape).astype(kind)
            check("cumsum", x, axis=axis, reverse=reverse)


def test_cumsum_of_negative_zeros_is_negative_zero():
    check("cumsum", np.full((3, 4), -0.0, np.float32), axis=0, reverse=False)
    check("cumsum", np.full((3, 4), -0.0, np.float64), axis=1, reverse=True)


@pytest.mark.parametrize("kind", DTYPES)
def test_argmax(kind):
    for shape, axis in LINES:
        if not shape or shape[axis]:
            check("argmax", values(kind, shape), axis=axis, keepdims=False)
            check("argmax", np.zeros(shape, kind), axis=axis, keepdims=True)
    for seed in range(20):
        check("argmax", values(kind, (9, 35), seed), axis=seed % 2, keepdims=False)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("kind", DTYPES)
def test_argsort(kind, descending):
    for shape, axis in LINES[1:]:
        check("argsort", values(kind, shape), axis=axis, descending=descending)
        check("argsort", np.zeros(shape, kind), axis=axis, descending=descending)
    check("argsort", values(kind, (5000,)), axis=0, descending=descending)
    if kind.kind != "b":
        bits = np.random.default_rng(2).integers(0, 256, 3000 * kind.itemsize, np.uint8).view(kind)
        check("argsort", bits, axis=0, descending=descending)


@given(
    hnp.arrays(
        st.sampled_from([kind for kind in dtype.ALL if kind.itemsize > 1]),
        hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=70),
    ),
    st.data(),
)
def test_lines_of_any_array(x, data):
    axis = data.draw(st.integers(0, x.ndim - 1))
    if x.shape[axis]:
        check("argmax", x, axis=axis, keepdims=data.draw(st.booleans()))
    check("argsort", x, axis=axis, descending=data.draw(st.booleans()))
    check("cumsum", x, axis=axis, reverse=data.draw(st.booleans()))


def test_many_lines_share_the_scratch_memory_of_few():
    x = np.random.default_rng(3).standard_normal((500, 64)).astype(np.float32)
    check("argsort", x, axis=1, descending=False, pieces=(1, 2, 32))


def test_tasks_sort_in_scratch_memory_of_their_own():
    b, x = Builder(), np.random.default_rng(3).standard_normal((3, 100))
    types = Type(x.shape, x.dtype), Type(x.shape, dtype.int64)
    plan = EMITTERS["argsort"](b, [types[0]], types[1], {"axis": 1, "descending": False})
    out, scratch = np.full(x.shape, -1), np.full((3, plan.scratch // 3), FILL, np.uint8)
    places = {"in": x, "out": out, "scratch": scratch}
    words = [meaning if isinstance(meaning, int) else places[meaning[0]].ctypes.data for meaning in b.bound]
    run(llvm.load([b])[0], words, 1, 2)
    assert (scratch[[0, 2]] == FILL).all() and (scratch[1] != FILL).any()
    assert (out[[0, 2]] == -1).all() and (out[1] == np.argsort(x[1])).all()


# --- indexed access ---------------------------------------------------------------------------------------------------
INDEXED = [
    ((7,), 1, (5,)), ((7, 1), 1, (5,)), ((7, 5), 1, (4, 3)), ((7, 16), 1, (9,)), ((7, 37), 1, (9,)), ((3, 4), 2, (6,)),
    ((3, 4, 33), 2, (6,)), ((3, 4, 5), 3, (8,)), ((3, 0), 1, (4,)), ((3, 5), 1, (0,)), ((4, 2, 3), 1, ()),
    ((0, 3), 1, (0,)), ((2, 100), 1, (50,)),
]  # fmt: skip
"""(shape, how many axes are indexed, the shape of the indices)."""
INDEX_DTYPES = [kind for kind in dtype.ALL if kind.kind in "ui"]


def indices_of(shape, depth, index_shape, kind, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, n, index_shape).astype(kind) for n in shape[:depth]]


@pytest.mark.parametrize("kind", DTYPES)
def test_gather(kind):
    for (shape, depth, index_shape), index_kind in zip(INDEXED, INDEX_DTYPES * 2, strict=False):
        indices = indices_of(shape, depth, index_shape, index_kind)
        check("gather", values(kind, shape), *indices)


@pytest.mark.parametrize("kind", DTYPES)
def test_scatter_add(kind):
    for (shape, depth, index_shape), index_kind in zip(INDEXED, INDEX_DTYPES * 2, strict=False):
        indices = indices_of(shape, depth, index_shape, index_kind)
        updates = (*index_shape, *shape[depth:])
        check("scatter_add", values(kind, updates), *indices, shape=shape)
        if kind.kind == "f":
            x = np.random.default_rng(4).standard_normal(updates).astype(kind)
            check("scatter_add", x, *indices, shape=shape)


@given(st.data())
def test_gather_and_scatter_add_of_any_rows(data):
    kind = data.draw(st.sampled_from(dtype.ALL))
    depth = data.draw(st.integers(1, 3))
    shape = (*data.draw(st.tuples(*[st.integers(1, 6)] * depth)), *data.draw(st.lists(st.integers(0, 40), max_size=2)))
    index_shape = tuple(data.draw(st.lists(st.integers(0, 9), max_size=2)))
    indices = indices_of(
        shape, depth, index_shape, data.draw(st.sampled_from(INDEX_DTYPES)), data.draw(st.integers(0, 9))
    )
    check("gather", values(kind, shape), *indices)
    check("scatter_add", values(kind, (*index_shape, *shape[depth:])), *indices, shape=shape)


@pytest.mark.parametrize("bad", [-1, 5, np.iinfo(np.int64).min, np.iinfo(np.int64).max])
@pytest.mark.parametrize("rest", [(), (3,), (40,)])
def test_an_index_outside_sets_the_status_and_touches_nothing(rest, bad):
    x = np.random.default_rng(5).standard_normal((5, *rest)).astype(np.float32)
    index = np.array([4, 0, bad, 2, 4])
    good = np.delete(np.arange(5), 2)
    for pieces in (1, 2):
        found, status = native("gather", x, index, pieces=pieces)
        assert status == FAILED
        np.testing.assert_array_equal(found[good], x[index[good]])
        assert (found[2].reshape(-1).view(np.uint8) == FILL).all()
        found, status = native("scatter_add", x, index, pieces=pieces, shape=x.shape)
        assert status == FAILED
        np.testing.assert_array_equal(found, kernels.scatter_add(x[good], (index[good],), x.shape))


@pytest.mark.parametrize("kind", INDEX_DTYPES, ids=str)
def test_an_index_is_checked_in_its_own_dtype_and_on_every_axis(kind):
    x = np.arange(12, dtype=np.float64).reshape(3, 4)
    inside, outside = np.array([2], kind), np.array([4], kind)
    assert native("gather", x, inside, outside)[1] == native("gather", x, outside, inside)[1] == FAILED
    assert native("gather", x, outside)[1] == FAILED
    negative = np.array([-1]).astype(kind)  # the largest number of an unsigned dtype
    assert native("gather", x, negative)[1] == FAILED
    assert native("scatter_add", x[:1], negative, shape=(3, 4))[1] == FAILED


def test_nothing_can_be_read_from_an_axis_of_no_elements():
    for rest in ((), (4,)):
        assert native("gather", np.zeros((0, *rest)), np.zeros(3, np.int64))[1] == FAILED


@pytest.mark.parametrize("row_bytes", [1, 2, 3, 4, 7, 8, 31, 63, 64, 65, 80, 127, 216, 1001])
def test_rows_of_any_size_are_copied(row_bytes):
    rng = np.random.default_rng(6)
    x = rng.integers(0, 256, (20, row_bytes), np.uint8)
    index = rng.integers(0, 20, 33)
    types = Type((33,), np.dtype(np.int64)), Type((33, row_bytes), np.dtype(np.uint8))
    for pieces in (1, 4):
        found, status = call(lambda b: gather_rows(b, 20, row_bytes, types[0]), [x, index], types[1], pieces)
        assert status == 0
        np.testing.assert_array_equal(found, x[index])


def test_all_rows_are_copied_by_two_kernels():
    """One for whole words, one for other bytes."""
    index = Type((5,), dtype.int64)
    texts: dict[bool, set[str]] = {True: set(), False: set()}
    for rows, row_bytes in ((20, 3), (70_000, 217), (20, 4), (70_000, 216)):
        b = Builder()
        gather_rows(b, rows, row_bytes, index)
        texts[row_bytes % 4 == 0].add(b.text("k"))
    for kind, shape in ((dtype.int8, (3, 2)), (dtype.float64, (9, 5, 5))):
        b = Builder()
        EMITTERS["gather"](b, [Type(shape, kind), index], Type((5, *shape[1:]), kind), {})
        texts[kind == dtype.float64].add(b.text("k"))
    assert [len(found) for found in texts.values()] == [1, 1]


# --- fold -------------------------------------------------------------------------------------------------------------
FOLDS = [
    ((2, 3), (7,), (3,), (1,), (1,)), ((), (10,), (2,), (3,), (2,)), ((4,), (6, 5), (3, 3), (1, 1), (1, 1)),
    ((2, 3), (9, 8), (3, 2), (2, 1), (1, 3)), ((1,), (4, 5, 6), (2, 2, 3), (1, 2, 1), (2, 1, 1)),
    ((0, 2), (5,), (2,), (1,), (1,)),
    ((2,), (2,), (3,), (1,), (1,)), ((3,), (5, 5), (5, 5), (1, 1), (1, 1)), ((2,), (40, 41), (3, 3), (1, 2), (1, 1)),
]  # fmt: skip
"""(leading shape, output, size, stride, dilation)."""


@pytest.mark.parametrize("kind", DTYPES)
def test_fold(kind):
    for lead, output, extent, stride, dilation in FOLDS:
        params = {"size": extent, "stride": stride, "dilation": dilation}
        windows = kernels.windows(np.zeros((*lead, *output)), **params).shape
        for y in (values(kind, windows), (np.random.default_rng(7).standard_normal(windows) * 50).astype(kind)):
            check("fold", y, output=output, **params)


# --- random numbers ---------------------------------------------------------------------------------------------------
STATES = [(0, 0, 0), (7, 3, 11), (-1, 2**32 - 2, 2**40 + 5), (2**63 - 1, 1, 2**63 - 1), (-(2**63), 5, 2**32 - 1)]


@pytest.mark.parametrize("state", STATES, ids=str)
def test_random_bits(state):
    for shape in ((), (0,), (1,), (3,), (63,), (64,), (65,), (5, 77), (4097,)):
        check("random_bits", np.array(state), shape=shape)


def test_random_bits_of_late_blocks():
    # The block's number has 32 bits: the last task of the longest draw there is, alone.
    b, count = Builder(), 2**34
    plan = EMITTERS["random_bits"](b, [Type((3,), dtype.int64)], Type((count,), dtype.uint32), {"shape": (count,)})
    out, state = np.zeros(64, np.uint32), np.array([3, 4, 5])
    places = {("in", 0): state.ctypes.data, ("out", 0): out.ctypes.data - 4 * (count - 64)}
    run(llvm.load([b])[0], [places.get(meaning, meaning) for meaning in b.bound], plan.tasks - 1, plan.tasks)
    wanted = kernels.philox((3, 0), (np.arange(2**32 - 16, 2**32, dtype=np.uint64), 4, 5, 0))
    np.testing.assert_array_equal(out, wanted.reshape(-1))


def test_a_draw_has_an_end():
    many = 2**34 + 1
    with pytest.raises(ShapeError, match="at most 2\\^34"):
        EMITTERS["random_bits"](Builder(), [Type((3,), dtype.int64)], Type((many,), dtype.uint32), {"shape": (many,)})


def rows_of(seed, epoch, n, position, count, pieces=1, target=None):
    arrays = permutation_keys(seed, [epoch])[0], np.array([position])
    return call(lambda b: permutation(b, n, count), arrays, Type((count,), dtype.int64), pieces, target)


@pytest.mark.parametrize(
    "n", [1, 2, 3, 4, 5, 9, 10, 16, 17, 100, 1000, 1003, 49**2, 65_536, 2**31 + 11, 10**15 + 1, 2**62]
)
def test_permutation(n):
    for seed in range(4):
        count = min(n, 131)
        for position in {0, (n - count) // 2, n - count}:
            wanted = kernels.permutation_at(seed, 9 * seed, n, np.arange(position, position + count))
            for pieces in (1, 3):
                found, status = rows_of(seed, 9 * seed, n, position, count, pieces)
                assert status == 0
                np.testing.assert_array_equal(found, wanted)


@given(st.integers(1, 2**62), st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**32), st.data())
def test_permutation_of_any_size(n, seed, epoch, data):
    count = min(n, 40)
    position = data.draw(st.integers(0, n - count))
    wanted = kernels.permutation_at(seed, epoch, n, np.arange(position, position + count))
    np.testing.assert_array_equal(rows_of(seed, epoch, n, position, count)[0], wanted)


@pytest.mark.parametrize(("n", "position", "count"), [(10, 5, 6), (10, -1, 3), (10, 11, 1), (0, 0, 1), (5, 0, 17)])
def test_a_permutation_is_not_read_past_its_end(n, position, count):
    found, status = rows_of(1, 2, n, position, count, pieces=2)
    assert status == FAILED
    assert (found.view(np.uint8) == FILL).all()


def test_no_rows_of_no_rows():
    assert rows_of(1, 2, 0, 0, 0)[1] == 0


# --- structure --------------------------------------------------------------------------------------------------------
CASES = {
    "cumsum": ([(6, 5)], [(90, 71)], {"axis": 0, "reverse": False}, {"axis": 0, "reverse": True}),
    "argmax": ([(6, 5)], [(90, 71)], {"axis": 1, "keepdims": False}, {"axis": 1, "keepdims": True}),
    "argsort": ([(6, 5)], [(90, 71)], {"axis": 0, "descending": False}, {"axis": 1, "descending": True}),
    "random_bits": ([(3,)], [(3,)], {"shape": (4,)}, {"shape": (5, 100)}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_text_holds_no_extents(name):
    kind = dtype.int64 if name == "random_bits" else dtype.float32
    texts = set()
    for shapes, params in zip(CASES[name][:2], CASES[name][2:], strict=True):
        types = [Type(shape, kind) for shape in shapes]
        rule = PRIMITIVES[name]
        b = Builder()
        EMITTERS[name](b, types, Type(rule.shape(*types, **params), rule.dtype(*types, **params)), params)
        texts.add(b.text("k"))
    assert len(texts) == 1


@pytest.mark.parametrize("bits", [256, 128])
def test_narrower_vectors_give_the_same_bits(bits):
    target = llvm.Target.host().limited(bits)
    rng = np.random.default_rng(8)
    for kind in (dtype.float32, dtype.int8, dtype.float64):
        x, index = values(kind, (19, 37)), [rng.integers(0, 19, 30)]
        for axis in (0, 1):
            check("cumsum", x, axis=axis, reverse=False, target=target)
            check("argmax", x, axis=axis, keepdims=False, target=target)
            check("argsort", x, axis=axis, descending=True, target=target)
        check("argsort", values(kind, (200,)), axis=0, descending=False, target=target)
        check("gather", x, *index, target=target)
        check("scatter_add", values(kind, (30, 37)), *index, shape=x.shape, target=target)
        check("fold", values(kind, (2, 5, 3)), output=(7,), size=(3,), stride=(1,), dilation=(1,), target=target)
    check("random_bits", np.array([5, 6, 7]), shape=(333,), target=target)
    found, _ = rows_of(3, 4, 1003, 500, 300, target=target)
    np.testing.assert_array_equal(found, kernels.permutation_at(3, 4, 1003, np.arange(500, 800)))

"""Product kernels against NumPy: every size, layout and type, at the end of readable memory, and the same bits always.

Values are small integers where exact results are compared (every order of summation gives the same), and normal
numbers where bits are compared with each other or with a float64 product within the bound of a chain of K terms.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from executors import compare

import slalom
from slalom.compiler import deep, llvm
from slalom.compiler.gemm import Operands, Product, choose, emit
from slalom.compiler.ir import Builder, Type, Value
from slalom.compiler.packs import Outer, Packing, PackOperands, emit_pack

SCALARS = {
    "float": np.float32,
    "double": np.float64,
    "i8": np.uint8,
    "i16": np.int16,
    "i32": np.int32,
    "i64": np.int64,
}
ALL_TILES = 1 << 40
MARK = 77
Array = np.ndarray[Any, Any]


# --- memory that ends at a page which must not be touched -------------------------------------------------------------
_libc = ctypes.CDLL(None, use_errno=True)
_pages: list[mmap.mmap] = []


def guarded(values: Array, at_end: bool = True) -> Array:
    """A copy of an array between two pages that cannot be read or written, flush with the second or the first."""
    page = mmap.PAGESIZE
    size = -(-max(values.nbytes, 1) // page) * page
    memory = mmap.mmap(-1, size + 2 * page)
    _pages.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for edge in (start, start + page + size):
        assert _libc.mprotect(ctypes.c_void_p(edge), ctypes.c_size_t(page), 0) == 0
    offset = page + (size - values.nbytes if at_end else 0)
    copy = np.frombuffer(memory, values.dtype, values.size, offset).reshape(values.shape)
    copy[...] = values
    return copy


@pytest.fixture(autouse=True)
def _free_pages() -> Iterator[None]:
    yield
    _pages.clear()


# --- kernels ----------------------------------------------------------------------------------------------------------
def stores(b: Builder, m: Value, n: Value, sums: Value, mask: Value, batch: Outer) -> None:
    """The plain epilogue: C[batch, m, n …] = sums."""
    at = b.add(b.mul(m, b.word(("c", "row"), "c_row")), n)
    for i, index in enumerate(batch):
        at = b.add(at, b.mul(index, b.word(("c", i), f"c_batch{i}")))
    b.store_masked(sums, b.offset(b.pointer(("c",), "c"), at, Type(sums.type.scalar)), mask)


Call = Callable[[dict[str, int], list[tuple[int, int]]], None]


def loaded(b: Builder, target: llvm.Target | None = None) -> Call:
    """Runs a kernel on named words, range after range."""
    native = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(llvm.load([b], target=target)[0])

    def call(words: dict[str, int], ranges: list[tuple[int, int]]) -> None:
        arguments = guarded(np.array([words.get(name, name) for name in b.bound], np.int64))
        for begin, end in ranges:
            native(arguments.ctypes.data, begin, end)

    return call


def by_axis(name: str, outer: Sequence[int]) -> dict[str, int]:
    """A word for each outer axis."""
    return {f"{name}{i}": number for i, number in enumerate(outer)}


def outer_words(batched: int, *names: str) -> dict[str, tuple[str, ...]]:
    """The names of the words of a batch."""
    axes = {f"{name}_batch": tuple([f"{name}_batch{i}" for i in range(batched)]) for name in names}
    return {"batch": tuple([f"batch{i}" for i in range(batched)])[1:], **axes}


@cache
def product_kernel(product: Product, direct: bool = True, bits: int = 512) -> Call:
    b = Builder()
    operands = Operands(*Operands._fields)._replace(**outer_words(product.batched, "a", "b"))
    operands = operands._replace(band=tuple([f"band{i}" for i in range(6)]))
    emit(b, product, operands, stores, direct=direct)
    return loaded(b, llvm.Target.host().limited(bits))


@cache
def packing_kernel(packing: Packing, bits: int = 512) -> Call:
    b = Builder()
    operands = PackOperands(*PackOperands._fields)._replace(**outer_words(packing.batched, "source", "panels"))
    emit_pack(b, packing, operands)
    return loaded(b, llvm.Target.host().limited(bits))


def elements(array: Array) -> list[int]:
    return [stride // array.itemsize for stride in array.strides]


def steps(array: Array, outer: tuple[int, ...], inner: int) -> list[int]:
    """By how many elements it moves on along each outer axis, when its last axes are broadcast along those."""
    return elements(np.broadcast_to(array, (*outer, *array.shape[array.ndim - inner :])))[: len(outer)]


def packed(b: Array, columns: int, width: int) -> Array:
    """NumPy's way to panels: (K, N) → (panels, K, width), each of so many columns and zeros after them."""
    count = -(-b.shape[-1] // columns)
    whole = np.zeros((*b.shape[:-1], count * columns), b.dtype)
    whole[..., : b.shape[-1]] = b
    panels = np.zeros((*b.shape[:-2], count, b.shape[-2], width), b.dtype)
    panels[..., :columns] = np.moveaxis(whole.reshape(*b.shape[:-1], count, columns), -2, -3)
    return panels


def run(
    product: Product,
    a: Array,
    b: Array,
    *,
    panels: bool = False,
    left_panels: bool = False,
    block: int = ALL_TILES,
    cuts: tuple[int, ...] = (),
    only: tuple[int, int] | None = None,
    rows: Array | None = None,
    direct: bool = True,
    bits: int = 512,
    at_end: bool = True,
    band: tuple[int, ...] = (),
    chunk: int = 8,
) -> Array:
    """The kernel's product; C lies in rows a little apart, with a mark between them that must survive.

    cuts: where the range of tasks is split; only: the one range that is run; band, chunk: of a banded one.
    """
    outer = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    m, k, n = a.shape[-2] if rows is None else len(rows), a.shape[-1], b.shape[-1]
    mark = a.dtype.type(MARK)
    c = guarded(np.full((*outer, m, n + 3), mark, a.dtype), at_end)
    right = guarded(packed(b, product.columns, product.columns), at_end) if panels else b
    packing = Packing(product.scalar, product.rows)
    left = guarded(packed(a.swapaxes(-1, -2), packing.columns, packing.width), at_end) if left_panels else a
    words = {
        "m": m,
        "n": n,
        "k": k,
        "a": left.ctypes.data,
        "a_tile": elements(left)[-3] if left_panels else product.rows * elements(a)[-2],
        "a_row": 1 if left_panels else elements(a)[-2],
        "a_k": elements(left)[-2] if left_panels else elements(a)[-1],
        **by_axis("batch", outer),
        **by_axis("a_batch", steps(left, outer, 3 if left_panels else 2)),
        "b": right.ctypes.data,
        "b_panel": elements(right)[-3] if panels else product.columns * (elements(b)[-1] if product.across else 1),
        "b_row": elements(right)[-1 if product.across else -2],
        **by_axis("b_batch", steps(right, outer, 3 if panels else 2)),
        "block": block,
        "chunk": chunk,
        **by_axis("band", band),
        "c": c.ctypes.data,
        "c_row": n + 3,
        **by_axis("c_batch", steps(c, outer, 2)),
        "a_index": 0 if rows is None else guarded(rows).ctypes.data,
    }
    tasks = product.tasks(m, n, math.prod(outer))
    ends = [0, *sorted(min(cut, tasks) for cut in cuts), tasks]
    product_kernel(product, direct, bits)(words, [only] if only else list(itertools.pairwise(ends)))
    assert (c[..., n:] == mark).all()
    return c[..., :n]


def numbers(rng: np.random.Generator, shape: tuple[int, ...], scalar: str, *, whole: bool = True) -> Array:
    """Small integers (of any size for integer types, which wrap), or normal numbers."""
    dtype = np.dtype(SCALARS[scalar])
    if dtype.kind != "f":
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    return (rng.integers(-8, 9, shape) if whole else rng.standard_normal(shape)).astype(dtype)


def laid(values: Array, layout: str, at_end: bool = True) -> Array:
    """The same matrix lying differently in guarded memory."""
    *outer, rows, columns = values.shape
    if layout == "transposed":
        return guarded(np.ascontiguousarray(values.swapaxes(-1, -2)), at_end).swapaxes(-1, -2)
    if layout == "wide":
        wide = np.full((*outer, rows, columns + 5), 99, values.dtype)
        wide[..., :columns] = values
        return guarded(wide, at_end)[..., :columns]
    if layout == "sparse":
        sparse = np.full((*outer, rows, 3 * columns), 99, values.dtype)
        sparse[..., ::3] = values
        return guarded(sparse, at_end)[..., ::3]
    if layout == "reversed":
        return guarded(np.ascontiguousarray(values[..., ::-1, ::-1]), at_end)[..., ::-1, ::-1]
    return guarded(np.ascontiguousarray(values), at_end)


PRODUCTS = [
    Product(),
    choose(10),
    choose(48),
    choose(128),
    choose(200, m=10),
    choose(64, "double"),
    choose(64, register_bytes=32),
    choose(64, "double", register_bytes=32),
    *(choose(64, scalar) for scalar in ("i8", "i16", "i32", "i64")),
]
ACROSS = [
    replace(choose(n, scalar, register_bytes=bytes), across=True)
    for scalar, sizes, bytes in [("float", (10, 48, 64, 128), 64), ("double", (64,), 64), ("float", (64,), 32)]
    for n in sizes
]
LAYOUTS: list[dict[str, Any]] = [{}, {"panels": True}, {"left_panels": True}, {"panels": True, "left_panels": True}]
SIZES = [*range(1, 9), 12, 13, 15, 16, 17, 23, 24, 25, 31, 32, 33, 47, 48, 49, 63, 64, 65, 70]


def pairwise(rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Sizes (M, N, K) in which every pair of two sizes of the list meets in each of the three places."""
    count = len(SIZES)
    shift = int(rng.integers(count))
    return [(SIZES[i], SIZES[j], SIZES[(i + j + shift) % count]) for i in range(count) for j in range(count)]


def identity(product: Product) -> str:
    return f"{product.scalar}-{product.rows}x{product.vectors}"


@pytest.mark.parametrize("product", ACROSS, ids=identity)
def test_what_lies_across_is_turned_on_the_way(product: Product) -> None:
    """Exact at every size, nothing outside is touched, and of numbers that round each has the bits of panels."""
    rng = np.random.default_rng(2)
    for number, (m, n, k) in enumerate([*pairwise(rng)[::5], (5, 70, 300), (50, 33, 700), (1, 1, 2100), (7, 3, 0)]):
        at_end = number % 2 == 0
        a, b = numbers(rng, (m, k), product.scalar), numbers(rng, (k, n), product.scalar)
        got = run(product, laid(a, "wide", at_end), laid(b, "transposed", at_end), at_end=at_end)
        np.testing.assert_array_equal(got, np.matmul(a, b), err_msg=f"{(m, n, k)}")
        a, b = numbers(rng, (m, k), product.scalar, whole=False), numbers(rng, (k, n), product.scalar, whole=False)
        here, other = laid(b, "transposed", at_end), replace(product, across=False)
        cuts = (1, 2, 5) if number % 3 else ()
        got, panels = run(product, a, here, cuts=cuts, at_end=at_end), run(other, a, b, panels=True)
        assert got.tobytes() == panels.tobytes(), f"{(m, n, k)}"
        _pages.clear()
    a, b = numbers(rng, (2, 3, 7, 40), product.scalar), numbers(rng, (2, 3, 40, 20), product.scalar)
    batched = replace(product, batched=2)
    np.testing.assert_array_equal(run(batched, a, laid(b, "transposed")), np.matmul(a, b))


@pytest.mark.parametrize("product", PRODUCTS, ids=identity)
def test_every_size_is_exact_and_touches_nothing_outside(product: Product) -> None:
    rng = np.random.default_rng(1)
    layouts = itertools.cycle(["rows", "wide", "transposed", "sparse", "reversed"])
    for number, (m, n, k) in enumerate(pairwise(rng)):
        if number % 3 and product != Product():
            continue  # a third of the sizes is enough for tiles that share the text
        at_end = number % 2 == 0
        a, b = numbers(rng, (m, k), product.scalar), numbers(rng, (k, n), product.scalar)
        left, right = laid(a, next(layouts), at_end), laid(b, "wide" if number % 5 else "rows", at_end)
        got = run(product, left, right, panels=number % 4 == 1, left_panels=number % 4 > 1, at_end=at_end)
        np.testing.assert_array_equal(got, np.matmul(a, b), err_msg=f"{(m, n, k)}")
        _pages.clear()


@pytest.mark.parametrize("product", PRODUCTS, ids=identity)
def test_long_sums_are_interrupted_and_go_on(product: Product) -> None:
    """Around the stretch of k that a tile goes through at once, with more row tiles than are taken in turn."""
    rng = np.random.default_rng(6)
    depth = product.depth
    for k in (depth - 1, depth, depth + 1, 2 * depth, 3 * depth + 7):
        a, b = numbers(rng, (9 * product.rows + 1, k), product.scalar), numbers(rng, (k, 35), product.scalar)
        for layout in LAYOUTS:
            np.testing.assert_array_equal(run(product, laid(a, "wide"), laid(b, "wide"), **layout), np.matmul(a, b))
        _pages.clear()


@pytest.mark.parametrize("product", [Product(), choose(10), choose(64, "double"), choose(8, "i32")], ids=identity)
def test_no_rows_columns_or_terms(product: Product) -> None:
    rng = np.random.default_rng(2)
    for m, n, k in [(0, 5, 4), (5, 0, 4), (5, 4, 0), (1, 1, 0), (0, 0, 0), (40, 40, 0)]:
        a, b = numbers(rng, (m, k), product.scalar), numbers(rng, (k, n), product.scalar)
        assert product.tasks(m, n) == 0 or (m > 0 and n > 0)
        np.testing.assert_array_equal(run(product, a, b), np.zeros((m, n)))


@pytest.mark.parametrize("product", [Product(), choose(10), choose(48), choose(64, "double")], ids=identity)
def test_error_is_that_of_one_chain(product: Product) -> None:
    rng = np.random.default_rng(3)
    for m, n, k in [(33, 40, 500), (7, 100, 64), (128, 10, 17)]:
        a = numbers(rng, (m, k), product.scalar, whole=False)
        b = numbers(rng, (k, n), product.scalar, whole=False)
        exact = np.matmul(a.astype(np.longdouble), b.astype(np.longdouble))
        bound = k * np.finfo(a.dtype).eps / 2 * np.matmul(abs(a), abs(b), dtype=np.float64)
        error = abs(run(product, a, b) - exact)
        assert (error <= bound).all()


def test_order_of_the_sum_is_that_of_k() -> None:
    huge = np.float32(2**30)
    a = np.array([[huge, 1, -huge, 1]], np.float32)  # (2³⁰ + 1) rounds to 2³⁰, and the last 1 stays
    assert run(Product(), a, np.ones((4, 1), np.float32)) == [[1]]
    once = np.array([[-1, 1 + 2.0**-12]], np.float32)  # a product rounded before it is added would lose 2⁻²⁴
    other = np.array([[1 + 2.0**-11], [1 + 2.0**-12]], np.float32)
    assert run(Product(), once, other) == [[2.0**-24]]


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_values_that_are_not_finite_stay_in_their_rows_and_columns(value: float) -> None:
    rng = np.random.default_rng(4)
    for m, n in [(9, 17), (20, 40), (1, 1)]:
        a, b = numbers(rng, (m, 5), "float"), numbers(rng, (5, n), "float")
        b[:, 0] = 1
        a[m - 1, 2] = value
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(run(Product(), a, b), np.matmul(a, b))


def test_bits_do_not_depend_on_tile_split_block_layout_or_width() -> None:
    rng = np.random.default_rng(5)
    tiles = [Product(), Product(rows=6), Product(rows=12, vectors=1), choose(48), choose(9, m=10), Product(rows=1)]
    for m, n, k in [(37, 45, 70), (128, 10, 64), (10, 128, 128), (3, 33, 5), (20, 33, 400)]:
        a, b = numbers(rng, (m, k), "float", whole=False), numbers(rng, (k, n), "float", whole=False)
        want = run(tiles[0], a, b)
        for product in tiles:
            tasks = product.tasks(m, n)
            for block in (1, 2, 3, ALL_TILES):
                cuts = tuple(rng.integers(0, tasks + 1, 3).tolist())
                for layout, how in itertools.product(LAYOUTS, ((), cuts, tuple(range(tasks)))):
                    got = run(product, a, b, **layout, block=block, cuts=how)
                    np.testing.assert_array_equal(got, want)
        for bits, direct in itertools.product((256, 128), (True, False)):
            product = choose(n, register_bytes=bits // 8)
            np.testing.assert_array_equal(run(product, a, b, bits=bits, direct=direct), want)
            np.testing.assert_array_equal(run(tiles[0], a, b, bits=bits, direct=direct), want)


@pytest.mark.parametrize("block", [1, 2, 3, ALL_TILES])
def test_tasks_are_a_partition_of_the_elements(block: int) -> None:
    rng = np.random.default_rng(12)
    product = replace(Product(rows=4), batched=1)
    a, b = rng.integers(-2, 3, (3, 22, 2)).astype(np.float32), rng.integers(-2, 3, (2, 70)).astype(np.float32)
    want, tasks = np.matmul(a, b), product.tasks(22, 70, 3)
    times = np.zeros(want.shape, int)
    for task in range(tasks):
        got = run(product, a, b, block=block, only=(task, task + 1))
        times += got != MARK
        np.testing.assert_array_equal(got[got != MARK], want[got != MARK])
    assert (times == 1).all()
    assert (run(product, a, b, only=(5, 5)) == MARK).all()


@pytest.mark.parametrize("scalar", ["float", "double", "i16"])
def test_rolled_epilogue(scalar: str) -> None:
    rng = np.random.default_rng(6)
    product = Product(scalar, 4, 3)
    for m, n, k in [(9, 50, 8), (4, 48, 3), (1, 1, 1), (5, 33, 20), (6, 97, 2)]:
        a, b = numbers(rng, (m, k), scalar), numbers(rng, (k, n), scalar)
        np.testing.assert_array_equal(run(product, a, b, direct=False), np.matmul(a, b))


@pytest.mark.parametrize("panels", [False, True])
@pytest.mark.parametrize(
    ("outer_a", "outer_b"),
    [((5,), (5,)), ((), (5,)), ((5,), ()), ((2, 3), (2, 3)), ((3, 1), (2,)), ((3,), (2, 1)), ((2, 1, 3), (2, 1))],
)
def test_batches(outer_a: tuple[int, ...], outer_b: tuple[int, ...], panels: bool) -> None:
    rng = np.random.default_rng(7)
    for scalar, (m, n, k) in itertools.product(["float", "double", "i32"], [(19, 35, 11), (1, 70, 3), (8, 5, 1)]):
        outer = np.broadcast_shapes(outer_a, outer_b)
        product = replace(choose(n, scalar), batched=len(outer))
        a, b = numbers(rng, (*outer_a, m, k), scalar), numbers(rng, (*outer_b, k, n), scalar)
        tasks = product.tasks(m, n, math.prod(outer))
        for block, cuts in [(ALL_TILES, ()), (1, tuple(range(0, tasks, 3))), (2, (1, 7))]:
            got = run(product, laid(a, "wide"), laid(b, "rows"), panels=panels, block=block, cuts=cuts)
            np.testing.assert_array_equal(got, np.matmul(a, b))


ENDS = [(-200, 200), (-200, 0), (-3, 200), (-5, 2), (10, 30), (-70, -20), (200, -200)]


@pytest.mark.parametrize("chunk", [1, 8])
@pytest.mark.parametrize("panels", [False, True])
def test_bands(panels: bool, chunk: int) -> None:
    rng = np.random.default_rng(13)

    def inside(shape: tuple[int, int], band: tuple[int, int]) -> Array:
        distance = np.arange(shape[1]) - np.arange(shape[0])[:, None]
        return (band[0] <= distance) & (distance <= band[1])

    for (m, n, k), left, right, out in itertools.product(
        [(19, 35, 11), (50, 70, 90), (8, 5, 40)], ENDS, ENDS[:5], ENDS[:6]
    ):
        a, b = rng.integers(-3, 4, (m, k)).astype("f4"), rng.integers(-3, 4, (k, n)).astype("f4")
        a, b = np.where(inside(a.shape, left), a, 0), np.where(inside(b.shape, right), b, 0)
        want, here = np.matmul(a, b), inside((m, n), out)
        product = choose(n, m=m, banded=True)
        got = run(product, a, b, panels=panels, band=(*left, *right, *out), chunk=chunk)
        np.testing.assert_array_equal(got[here], want[here])
        assert ((got == want) | (got == 0)).all()
    _pages.clear()


def test_what_is_outside_of_a_band_is_not_read() -> None:
    rng = np.random.default_rng(14)
    a, b = numbers(rng, (30, 90), "float"), numbers(rng, (90, 40), "float")
    a[:, 34:], b[34:] = np.nan, np.nan  # no row sees beyond column 29 + 4
    assert not np.isnan(run(choose(40, m=30, banded=True), a, b, band=(-4, 4, *ENDS[0], *ENDS[0]), chunk=1)).any()
    a, b = numbers(rng, (8, 20), "float"), numbers(rng, (20, 200), "float")
    got = run(choose(200, banded=True), a, b, band=(*ENDS[0], *ENDS[0], -4, 4))
    assert (got[:, 64:] == 0).all()


def test_rows_through_an_index() -> None:
    rng = np.random.default_rng(8)
    product = choose(40, indexed=True)
    a, b = numbers(rng, (30, 21), "float"), numbers(rng, (21, 40), "float")
    for count in (1, 7, 8, 30, 61):
        rows = rng.integers(0, 30, count)
        np.testing.assert_array_equal(run(product, laid(a, "wide"), b, rows=rows), np.matmul(a[rows], b))


def test_booleans_are_or_of_and() -> None:
    rng = np.random.default_rng(9)
    a, b = rng.random((20, 300)) < 0.1, rng.random((300, 37)) < 0.1
    got = run(choose(37, "i8", logical=True), a.view(np.uint8), b.view(np.uint8))
    np.testing.assert_array_equal(got.view(bool), np.matmul(a, b))


def test_tile_follows_columns_and_a_fixed_number_of_rows() -> None:
    assert [choose(n).columns for n in (0, 1, 16, 17, 32, 40, 48, 49, 1000)] == [16, 16, 16, 32, 32, 48, 48, 64, 64]
    assert [choose(n, "double").columns for n in (1, 1000)] == [16, 16]
    assert [choose(90, m=m).rows for m in (10, 8, 128, 4, 3, 12, 1000)] == [10, 8, 8, 4, 4, 12, 8]
    assert [choose(128, m=m).rows for m in (10, 8, 128, 4, 3, 12, 1000)] == [5, 4, 6, 4, 4, 6, 6]
    for scalar, width in itertools.product(SCALARS, (16, 32, 64)):
        product = choose(64, scalar, register_bytes=width)
        assert product.rows >= 1 and product.columns >= 16
    assert Product().tasks(9, 33) == 4 and Product().tasks(9, 33, 3) == 12 and Product().tasks(0, 33) == 0


# --- packing ----------------------------------------------------------------------------------------------------------
WIDTHS = {"rows": (16, 32, 48, 2, 5, 6, 8, 10), "columns": (16, 32, 48), "any": (16, 32, 48, 2, 5, 6, 8, 10)}
PACKINGS = [(scalar, order, columns) for scalar in SCALARS for order in WIDTHS for columns in WIDTHS[order]]


@pytest.mark.parametrize(("scalar", "order", "columns"), PACKINGS)
def test_packing_every_size(scalar: str, order: str, columns: int) -> None:
    rng = np.random.default_rng(10)
    packing = Packing(scalar, columns, order)  # type: ignore[arg-type]
    for number, (k, n) in enumerate(itertools.product([0, 1, 2, 3, 4, 5, 7, 8, 9, 30], [1, 5, 15, 16, 17, 32, 50, 70])):
        if (number + columns // 16) % 2 and scalar not in ("float", "double"):
            continue
        matrix = numbers(rng, (k, n), scalar)
        check_packing(packing, matrix, number % 3 == 0, at_end=number % 2 == 0)
        _pages.clear()


def check_packing(packing: Packing, matrix: Array, wide: bool, *, at_end: bool = True, bits: int = 512) -> None:
    k, n = matrix.shape[-2:]
    layouts = {"rows": "wide" if wide else "rows", "columns": "transposed", "any": "sparse"}
    source = laid(matrix, layouts[packing.order], at_end)
    want = packed(matrix, packing.columns, packing.width)
    spare = 7  # a panel may be longer than its K rows
    panels = guarded(np.full((*want.shape[:-2], k * packing.width + spare), 55, matrix.dtype), at_end)
    words = {
        "k": k,
        "n": n,
        "source": source.ctypes.data,
        "source_k": elements(source)[-2],
        "source_n": elements(source)[-1],
        **by_axis("batch", matrix.shape[:-2]),
        **by_axis("source_batch", elements(source)[:-2]),
        "panels": panels.ctypes.data,
        "panel": panels.shape[-1],
        **by_axis("panels_batch", elements(panels)[:-2]),
    }
    tasks = packing.tasks(n, math.prod(matrix.shape[:-2]))
    packing_kernel(packing, bits)(words, [(0, tasks // 2), (tasks // 2, tasks)])
    np.testing.assert_array_equal(panels[..., :-spare].reshape(want.shape), want)
    assert (panels[..., -spare:] == 55).all()


@pytest.mark.parametrize("order", ["rows", "columns", "any"])
@pytest.mark.parametrize("bits", [512, 256, 128])
def test_packing_batches_at_every_width(order: str, bits: int) -> None:
    rng = np.random.default_rng(11)
    for k, n in [(9, 40), (4, 32), (3, 1), (33, 65)]:
        for outer in [(3,), (2, 3)]:
            packing = Packing("float", 32, order, batched=len(outer))  # type: ignore[arg-type]
            check_packing(packing, numbers(rng, (*outer, k, n), "float", whole=False), False, bits=bits)


# --- deep products --------------------------------------------------------------------------------------------------
@cache
def deep_kernel(product: Product, direct: bool, bits: int) -> Call:
    b = Builder()
    deep.emit(b, product, Operands(*Operands._fields)._replace(batch=(), a_batch=(), b_batch=()), stores, direct=direct)
    return loaded(b, llvm.Target.host().limited(bits))


@pytest.mark.parametrize("bits", [512, 256])
@pytest.mark.parametrize("scalar", ["float", "double"])
@pytest.mark.parametrize("direct", [False, True], ids=["from memory", "from registers"])
def test_deep_products_are_the_others_to_the_bit(scalar: str, bits: int, direct: bool) -> None:
    """Any extents, rows that lie far apart, column tiles in any order and by several threads' ranges."""
    rng, of = np.random.default_rng(0), np.dtype(SCALARS[scalar])
    for m, n, k in ((1, 1, 1), (5, 65, 40), (6, 64, 128), (37, 130, 129), (100, 49, 700), (70, 200, 517), (13, 17, 0)):
        product = choose(n, scalar, register_bytes=bits // 8)
        whole_a, whole_b = rng.normal(size=(k, m + 3)).astype(of), rng.normal(size=(k, n + 2)).astype(of)
        a, b = guarded(whole_a)[:, 3:], guarded(whole_b)[:, 2:]
        want = run(product, np.ascontiguousarray(a.T), np.ascontiguousarray(b))
        deeper = replace(product, deep=True)
        tasks, rows = deeper.tasks(m, n), -(-m // product.rows) * product.rows
        apart = -(-m // 16) * 16 * product.depth
        # Vectors are stored whole: buffers begin at multiples of 64 bytes, and in pages of their own.
        room = [rng.normal(size=tasks * size + 16) for size in (apart, product.depth * product.columns)]
        room.append(rng.normal(size=tasks * rows * product.columns + 16))
        copies = [each.astype(of) for each in room]
        places = [-(-each.ctypes.data // 64) * 64 for each in copies]
        for ranges in ([(0, tasks)], [(t, t + 1) for t in reversed(range(tasks))], [(1, tasks), (0, 1), (1, 1)]):
            c = guarded(np.full((m, n), MARK, of))
            sizes = {"m": m, "n": n, "k": k, "block": 0, "a_apart": apart}
            left = {"a": a.ctypes.data, "a_tile": product.rows, "a_row": 1, "a_k": m + 3}
            right = {"b": b.ctypes.data, "b_panel": product.columns, "b_row": n + 2}
            kept = dict(zip(("a_copy", "b_copy", "kept"), places, strict=True))
            words = sizes | left | right | kept | {"c": c.ctypes.data, "c_row": n}
            deep_kernel(deeper, direct, bits)(words, [(i, j) for i, j in ranges if i <= tasks])
            assert c.tobytes() == want.tobytes(), f"{m} × {n} × {k}, ranges {ranges}"


def test_a_long_sum_is_a_deep_product_and_a_short_one_is_not() -> None:
    """In a program: with an epilogue, beside NumPy and between guard pages."""
    for rows, isdeep in ((1024, True), (128, False)):
        x, y = (np.random.default_rng(i).normal(size=(rows, n)).astype(np.float32) for i, n in ((0, 40), (1, 150)))
        product = slalom.compile(lambda x, y: (x.T @ y).tanh() * 2)
        product(x, y)
        compare(product.graph, [x, y])
        assert any(len(call.writes) == 4 for call in product.program.lowered.calls) == isdeep

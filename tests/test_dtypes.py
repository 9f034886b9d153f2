"""Which dtypes there are, how operands are promoted (PyTorch's rules), and what data become when they enter."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from op_rows import torch

from slalom.compiler.compile import compile as staged
from slalom.core import dtype as dtypes
from slalom.core.functional import arithmetic, creation, indexing, reduce, shaping
from slalom.core.functional.creation import tensor
from slalom.core.tensor import Tensor, to_array
from slalom.errors import DTypeError, ShapeError, StagingError

needs_torch = pytest.mark.skipif(torch is None, reason="needs PyTorch")
NAMES = [d.name for d in dtypes.ALL]


def name_of(value) -> str:
    """A dtype's name, NumPy's or PyTorch's."""
    return str(value).removeprefix("torch.")


# --- promotion ----------------------------------------------------------------------------------------------------
def expected(a, b, ranks) -> str:
    """PyTorch's answer; it has no rule for uint32 beside another integer, and there the rule is NumPy's."""
    x, y = (torch.ones((2,) * rank, dtype=getattr(torch, d.name)) for d, rank in zip((a, b), ranks, strict=True))
    try:
        return name_of(torch.result_type(x, y))
    except RuntimeError:
        if dtypes.uint32 not in (a, b):
            raise
        return name_of(np.promote_types(a, b))


@needs_torch
@pytest.mark.parametrize("ranks", [(1, 1), (0, 0), (1, 0), (0, 1), (2, 1)], ids=str)
@pytest.mark.parametrize(("a", "b"), [*itertools.product(dtypes.ALL, repeat=2)], ids=name_of)
def test_promotion_of_tensors_is_pytorchs(a, b, ranks):
    wanted = expected(a, b, ranks)
    x, y = (creation.ones((2,) * rank, dtype=d) for d, rank in zip((a, b), ranks, strict=True))
    assert dtypes.promote(((a, ranks[0]), (b, ranks[1]))) == wanted
    assert (
        arithmetic.mul(x, y).dtype == arithmetic.where(x == x, x, y).dtype == arithmetic.maximum(x, y).dtype == wanted
    )
    assert staged(arithmetic.mul)(x, y).dtype == wanted


@needs_torch
@pytest.mark.parametrize("number", [True, 2, 2.5, np.float64(2.5)], ids=["bool", "int", "float", "numpy_float"])
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("dtype", dtypes.ALL, ids=name_of)
def test_promotion_with_numbers_is_pytorchs(dtype, rank, number):
    wanted = name_of(torch.result_type(torch.ones((2,) * rank, dtype=getattr(torch, dtype.name)), number))
    x = creation.ones((2,) * rank, dtype=dtype)
    assert dtypes.promote_number(dtype, number) == wanted
    assert (x * number).dtype == (number * x).dtype == arithmetic.where(x == x, x, number).dtype == wanted


@needs_torch
@pytest.mark.parametrize("number", [1.5, 2], ids=["float", "int"])
@pytest.mark.parametrize("dtype", dtypes.ALL, ids=name_of)
def test_default_float64_decides_only_where_a_float_comes_from_nowhere(dtype, number):
    theirs = torch.ones(2, dtype=getattr(torch, dtype.name))
    torch.set_default_dtype(torch.float64)
    dtypes.set_default_dtype("float64")
    try:
        ours = creation.ones(2, dtype=dtype)
        assert (ours * number).dtype == name_of(
            (theirs * number).dtype if dtype != dtypes.uint32 else (ours * number).dtype
        )
        assert arithmetic.exp(ours).dtype == name_of(torch.exp(theirs).dtype)
        assert tensor([1.5]).dtype == name_of(torch.tensor([1.5]).dtype)
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_0d_operand_never_widens_an_array():
    weights, rate = creation.ones(3), tensor(0.1, dtype="float64")
    assert (weights - rate * weights).dtype == np.float32
    weights -= rate * weights
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights.numpy(), np.float32(0.9), rtol=1e-7)


def test_numbers_keep_their_precision_beside_float64():
    x = creation.full((2,), 1.0, dtype="float64")
    for out in (0.1 * x, x * 0.1, arithmetic.mul(0.1, x), arithmetic.sub(1.1, x), arithmetic.where(x > 0, 0.1, x)):
        assert abs(out[0].item() - 0.1) < 1e-15


def test_a_number_that_does_not_fit_is_an_error():
    with pytest.raises(DTypeError, match="number: got 300; needed a value that fits into uint8"):
        creation.ones(2, dtype="uint8") + 300
    with pytest.raises(DTypeError, match="number: got -1; needed a value that fits into uint8"):
        creation.ones(2, dtype="uint8").lt(-1)


# --- dtypes by name -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("float32", "float32"),
        ("f8", "float64"),
        (np.int8, "int8"),
        (np.dtype(">f4"), "float32"),
        (np.dtype("<i2"), "int16"),
        (bool, "bool"),
        (int, "int64"),
        (float, "float32"),
        (dtypes.uint8, "uint8"),
    ],
    ids=str,
)
def test_as_dtype(given, wanted):
    assert dtypes.as_dtype(given) == wanted
    assert dtypes.as_dtype(given).isnative


@pytest.mark.parametrize(
    "given", ["float16", complex, "U4", "bananas", object, None, 5, np.uint64, "datetime64[s]", [1]]
)
def test_dtypes_that_do_not_exist_are_named_with_those_that_do(given):
    with pytest.raises(DTypeError, match=r"dtype: got .*; needed one of bool, uint8, int8, .*, float32, float64$"):
        dtypes.as_dtype(given)


def test_the_default_dtype_is_float32_or_float64_in_all_threads():
    dtypes.set_default_dtype(np.float64)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(creation.zeros, 2).result().dtype == np.float64
    assert creation.zeros(2).dtype == tensor(1.5).dtype == tensor([1, 2]).sqrt().dtype == np.float64
    assert tensor(1).dtype == np.int64
    for wrong in ("int64", bool):
        with pytest.raises(DTypeError, match=r"set_default_dtype: got .*; needed float32 or float64"):
            dtypes.set_default_dtype(wrong)


# --- data that enter ------------------------------------------------------------------------------------------------
@needs_torch
@pytest.mark.parametrize(
    "data",
    [1, 1.5, True, [1, 2], [1, 2.5], [True, 2], [[1.0], [2.0]], [], [[], []], (1, (2)), np.float64(2), np.arange(3),
     np.ones(2, np.float32), np.int8(3), [np.float32(1), 2], range(3), [np.array([1, 2]), np.array([3, 4])]],
    ids=repr,
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Creating a tensor from a list of numpy:UserWarning")
def test_data_get_the_dtype_and_shape_that_pytorch_gives_them(data):
    theirs, ours = torch.tensor(data), tensor(data)
    assert (ours.dtype, ours.shape) == (name_of(theirs.dtype), tuple(theirs.shape))
    assert ours.tolist() == theirs.tolist()


def test_tensors_in_lists_are_read():
    assert tensor([tensor(1.5), tensor(2.5)]).tolist() == [1.5, 2.5]
    assert tensor([[tensor(1), 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
    assert tensor(tensor([1.5])).tolist() == [1.5]


@pytest.mark.parametrize("order", [">", "<"])
@pytest.mark.parametrize("kind", ["f4", "f8", "i4", "i8"])
def test_arrays_of_any_byte_order_become_native(order, kind):
    array = np.array([1, -2, 3], order + kind)
    out = tensor(array)
    assert out.dtype.isnative and out.dtype == np.dtype(kind)
    assert out.tolist() == [1, -2, 3]
    assert (creation.ones(3, dtype=kind) * array).tolist() == [1, -2, 3]


def test_to_array_copies_only_when_asked():
    array = np.ones(3, np.float32)
    assert to_array(array, copy=False) is array
    assert np.shares_memory(to_array(array, "float32", copy=False), array)
    assert not np.shares_memory(to_array(array, copy=True), array)
    assert to_array(array, "float64", copy=False).dtype == np.float64


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (1j, DTypeError, "dtype: got complex128; needed one of"),
        (np.ones(2, np.float16), DTypeError, "dtype: got float16; needed one of"),
        (np.ones(2, np.uint64), DTypeError, "dtype: got uint64; needed one of"),
        ("text", DTypeError, "dtype: got <U4; needed one of"),
        (["a", "b"], DTypeError, "dtype: got <U1; needed one of"),
        (None, DTypeError, "dtype: got object; needed one of"),
        ([1, None], DTypeError, "dtype: got object; needed one of"),
        ({"a": 1}, DTypeError, "dtype: got object; needed one of"),
        (2**70, DTypeError, "dtype: got object; needed one of"),
        (np.array(["2020-01-01"], "datetime64[s]"), DTypeError, "dtype: got datetime64"),
        ([[1], [2, 3]], ShapeError, "tensor: got nested sequences of unequal lengths; needed a regular array"),
    ],
    ids=repr,
)
def test_data_that_cannot_be_a_tensor(data, error, message):
    for function in (tensor, creation.as_tensor, Tensor):
        with pytest.raises(error, match=message):
            function(data)


def test_values_are_cut_and_wrapped_as_numpy_does_it():
    assert tensor([1.7, -1.7], dtype="int64").tolist() == [1, -1]
    assert tensor([0.0, 0.5, np.nan], dtype=bool).tolist() == [False, True, True]
    assert tensor(np.array([1e300]), dtype="float32").tolist() == [np.inf]
    assert tensor([1e300]).tolist() == [np.inf]


def test_a_writable_array_met_while_staging_is_an_error():
    array = np.ones(3, np.float32)
    with pytest.raises(
        StagingError, match=r"a NumPy array of shape \(3,\) met while staging, at .*test_dtypes.py:\d+.*"
    ):
        staged(lambda x: x + array)(creation.ones(3))
    array.flags.writeable = False
    assert staged(lambda x: x + array)(creation.ones(3)).tolist() == [2, 2, 2]


# --- dtypes of results ----------------------------------------------------------------------------------------------
def results(x) -> Iterator[tuple[str, object]]:
    yield "sum", reduce.sum(x)
    yield "cumsum", reduce.cumsum(x, 0)
    yield "prod", reduce.prod(x)
    yield "argmax", reduce.argmax(x)
    yield "eq", x == x
    yield "div", x / x
    yield "sqrt", arithmetic.sqrt(x)
    yield "count", reduce.count_nonzero(x)
    yield "nonzero", indexing.nonzero(x)
    yield "stack", shaping.stack([x, x])


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=name_of)
def test_results_have_the_dtype_of_their_kind(dtype):
    floating = dtype.kind == "f"
    wanted = dict.fromkeys(("sum", "cumsum", "prod"), dtype if floating else "int64")
    wanted |= dict.fromkeys(("argmax", "count", "nonzero"), "int64") | {"eq": "bool", "stack": dtype}
    wanted |= dict.fromkeys(("div", "sqrt"), dtype if floating else "float32")
    assert {name: t.dtype.name for name, t in results(creation.ones(3, dtype=dtype))} == {
        name: name_of(d) for name, d in wanted.items()
    }

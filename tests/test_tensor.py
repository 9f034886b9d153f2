"""Tensor as a Python object: the names that NumPy and PyTorch code touches, operators, conversions, protocols."""

from __future__ import annotations

import copy
import math
import operator
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from op_rows import torch

from slalom.core import autodiff
from slalom.core.functional import creation, shaping
from slalom.core.functional.creation import from_dlpack, from_numpy, ones, tensor, zeros
from slalom.core.functional.shaping import device
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError, DTypeError, GradError, ShapeError

ROOT = Path(__file__).resolve().parents[1]


# --- what lecture code touches ------------------------------------------------------------------------------------
def test_conversions_of_dtype_by_pytorchs_names():
    t = tensor([1.7, -2.0, 0.0])
    names = {"float": "float32", "double": "float64", "long": "int64", "int": "int32", "short": "int16", "bool": "bool"}
    assert {name: getattr(t, name)().dtype.name for name in names} == names
    assert t.abs().byte().dtype == np.uint8
    assert t.long().tolist() == [1, -2, 0] and t.bool().tolist() == [True, True, False]
    assert t.float() is t and t.to("float32") is t
    assert t.to(np.float64).dtype == t.to(dtype="float64").dtype == t.to(zeros(1, dtype="float64")).dtype == np.float64
    assert t.type_as(tensor(1)).dtype == np.int64


def test_devices():
    t = ones(2)
    for same in (t.to("cpu"), t.to(device("cpu")), t.to("cpu:0", non_blocking=True), t.cpu(), t.to(device="cpu")):
        assert same is t
    assert t.to("cpu", "float64").dtype == np.float64
    assert t.to("cpu", copy=True) is not t
    assert t.device == device("cpu") == "cpu" and str(t.device) == "cpu" and repr(t.device) == "device(type='cpu')"
    assert t.device.type == "cpu" and not t.is_cuda and hash(t.device) == hash(device())
    for wrong in (
        lambda: t.to("cuda"),
        t.cuda,
        lambda: t.to(device="cuda:0"),
        lambda: device("mps"),
        lambda: t.to("gpu"),
    ):
        with pytest.raises(ConfigError, match=r"device: got '.*'; needed 'cpu'. Hint: Slalom trains on the CPU"):
            wrong()
    with pytest.raises(DTypeError, match="dtype: got float16; needed one of"):
        t.to("float16")
    with pytest.raises(TypeError, match="unexpected keyword argument 'devise'"):
        t.to(devise="cpu")


def test_shapes_by_both_libraries_names():
    t = Tensor(np.arange(24.0).reshape(2, 3, 4))
    assert t.shape == t.size() == (2, 3, 4) and t.size(-1) == 4
    assert t.ndim == t.dim() == 3 and t.numel() == 24 and len(t) == 2
    assert t.nbytes == 24 * t.element_size() == 192 and t.is_floating_point() and not t.bool().is_floating_point()
    for same in (t.view(4, 6), t.view(-1, 6), t.reshape((4, 6)), t.reshape(np.int64(4), 6), t.view(np.int64(4), -1)):
        assert same.tolist() == np.arange(24.0).reshape(4, 6).tolist()
    assert t.T.shape == (4, 3, 2) and t.mT.shape == (2, 4, 3) and t.view_as(ones(24)).shape == (24,)
    assert t.repeat(2, 1, 1).shape == (4, 3, 4) and ones(1, 3).expand(2, -1).shape == (2, 3)
    assert ones(3).expand_as(t.transpose(1, 2)).shape == (2, 4, 3) and t.contiguous() is t
    with pytest.raises(DTypeError, match=r"view\(dtype\): got float64; needed a shape. Hint: use .to\(dtype\)"):
        t.view(np.dtype("float64"))
    with pytest.raises(IndexError, match=r"size: axis 0: needed an axis of a tensor with 0 dimensions"):
        tensor(1.0).size(0)


def test_reductions_by_both_libraries_names():
    t = tensor([[1.0, 2.0], [3.0, 5.0]])
    assert t.sum(axis=0).tolist() == t.sum(0).tolist() == t.sum(dim=0).tolist() == [4, 7]
    assert t.mean(axis=(0, 1), keepdims=True).shape == t.mean((0, 1), keepdim=True).shape == (1, 1)
    assert t.max(dim=1).values.tolist() == t.amax(axis=1).tolist() == [2, 5]
    assert t.argmin(axis=1).tolist() == t.max(axis=1).indices.tolist()[::-1] or t.argmin(axis=1).tolist() == [0, 0]
    assert t.var(0).tolist() == [2, 4.5] and t.var(0, False).tolist() == t.var(0, unbiased=False).tolist() == [1, 2.25]
    assert t.var(False).item() == pytest.approx(np.var(t.numpy())) and t.std(0, correction=0).tolist() == [1, 1.5]
    assert t.norm().item() == pytest.approx(math.sqrt(39)) and t.norm(1).item() == 11 and t.norm(2, 1).shape == (2,)
    assert t.cumsum(axis=1).tolist() == [[1, 3], [3, 8]] and t.max(tensor(3.0)).tolist() == [[3, 3], [3, 5]]
    for wrong in (lambda: t.sum(axes=0), lambda: t.argmax(foo=1), lambda: t.max(dims=1), lambda: t.cumsum(axes=0)):
        with pytest.raises(TypeError, match=r"got an unexpected keyword argument '(axes|foo|dims)'"):
            wrong()


def test_new_tensors_like_this_one():
    t = tensor([1, 2], dtype="int32")
    made = t.new_zeros(2, 3), t.new_ones((2,)), t.new_full((2,), 7), t.new_tensor([3, 4])
    assert [m.dtype.name for m in made] == ["int32"] * 4
    assert [m.tolist() for m in made] == [[[0] * 3] * 2, [1, 1], [7, 7], [3, 4]]


def test_data_is_the_buffer_without_history():
    w = ones(3, requires_grad=True)
    loss = (w * w).sum()
    w.data -= 0.5
    assert w.tolist() == [0.5] * 3 and w.requires_grad and w.is_leaf
    w.data = zeros(3)
    w.data[0] = 7.0
    assert w.tolist() == [7.0, 0.0, 0.0]
    with pytest.raises(GradError, match="was overwritten in place"):
        loss.backward()


def test_item_and_numbers():
    assert tensor([[2.5]]).item() == float(tensor(2.5)) == 2.5 and int(tensor(2.9)) == 2 and bool(tensor([0.1]))
    assert [10, 20, 30][tensor(1)] == 20 and list(range(tensor(3))) == [0, 1, 2]
    assert tensor([[1, 2]]).tolist() == [[1, 2]] and isinstance(tensor(1).item(), int)
    with pytest.raises(ShapeError, match=r"item\(\): got shape \(2,\); needed exactly one element"):
        ones(2).item()
    with pytest.raises(DTypeError, match="index: got float32; needed an integer tensor"):
        operator.index(tensor(1.0))


@pytest.mark.parametrize("shape", [(2,), (0,)], ids=str)
def test_truth_of_many_is_ambiguous(shape):
    with pytest.raises(
        ShapeError, match=r"truth of a tensor: got shape .*; needed one element. Hint: any\(\) or all\(\)"
    ):
        bool(ones(*shape) > 0)
    assert bool((ones(2) > 0).all()) and not bool((ones(0) > 0).any())


# --- operators ----------------------------------------------------------------------------------------------------
ARITHMETIC = (operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.pow)
COMPARISONS = (operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge)
OTHERS = {
    "tensor": tensor([[2.0], [3.0]]),
    "array": np.array([[2.0], [3.0]], np.float32),
    "double_array": np.array([2.0, 3.0, 4.0]),
    "list": [2.0, 3.0, 4.0],
    "int": 2,
    "float": 2.5,
    "bool": True,
    "numpy_float64": np.float64(2.5),
    "numpy_float32": np.float32(2.5),
    "numpy_int64": np.int64(2),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("function", [*ARITHMETIC, *COMPARISONS], ids=lambda f: f.__name__)
def test_operators_with_anything_on_either_side(function, other):
    t = tensor([1.0, 2.5, 4.0])
    plain = np.asarray(other)
    for ours, theirs in (
        (function(t, other), function(t.numpy(), plain)),
        (function(other, t), function(plain, t.numpy())),
    ):
        assert isinstance(ours, Tensor)
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-6)


@pytest.mark.parametrize(
    "function", [*ARITHMETIC, operator.matmul, operator.lt, operator.and_], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("other", [None, 1j, object(), {}], ids=["None", "complex", "object", "dict"])
def test_operators_with_what_is_no_number_are_type_errors(function, other):
    with pytest.raises(TypeError, match=r"unsupported operand|not supported between"):
        function(ones(2), other)
    with pytest.raises(TypeError, match=r"unsupported operand|not supported between"):
        function(other, ones(2))


def test_equality_with_what_is_no_number_is_false():
    assert (ones(2) == None) is False and (ones(2) != "a") is True  # noqa: E711
    assert ones(2) not in [None, "a"]


def test_functions_of_what_is_no_tensor_say_so():
    with pytest.raises(DTypeError, match=r"reshape: input: got ndarray; needed a Tensor. Hint: tensor\(…\) makes one"):
        shaping.reshape(np.ones(2), (2, 1))


def test_products_with_arrays():
    t, a = ones(2, 3), np.ones((3, 2), np.float32)
    assert (t @ a).tolist() == (a.T @ t.T).tolist() == [[3, 3], [3, 3]]
    assert isinstance(a @ t, Tensor)


def test_unary_operators():
    t = tensor([-1.5, 2.0])
    assert (-t).tolist() == [1.5, -2] and abs(t).tolist() == [1.5, 2] and (+t).tolist() == t.tolist()
    assert (~tensor([True, False])).tolist() == [False, True] and (~tensor([0, 5])).tolist() == [-1, -6]
    assert (+t) is not t
    with pytest.raises(DTypeError, match="bitnot: dtype: got float32; needed bool or unsigned or integer"):
        operator.invert(t)


def test_logic_and_shifts():
    a, b = tensor([True, True, False]), tensor([True, False, False])
    assert (a & b).tolist() == [True, False, False] and (a | b).tolist() == [True, True, False]
    assert (True & b).tolist() == b.tolist() and (tensor([5, 8]) >> 1).tolist() == [2, 4]
    with pytest.raises(DTypeError, match="bitand: dtype: got float32; needed bool or unsigned or integer"):
        ones(2) & ones(2)


def test_in_place_operators_keep_buffer_and_dtype():
    t = tensor([4.0, 9.0])
    buffer = t.numpy()
    for function in (operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.imod, operator.ipow):
        assert function(t, np.array([2.0, 3.0])) is t
    t //= 2
    assert t.numpy() is buffer and t.dtype == np.float32
    flags = tensor([True, False])
    flags &= True
    flags |= tensor([False, True])
    assert flags.tolist() == [True, True]


UNARY = (
    "exp", "expm1", "log", "log1p", "sqrt", "erf", "sin", "cos", "tanh", "sigmoid", "softplus", "neg", "abs", "sign",
    "relu", "reciprocal", "rsqrt", "square", "floor", "ceil", "trunc", "round",
)  # fmt: skip
BINARY = ("add", "sub", "mul", "div", "floor_divide", "remainder", "pow", "maximum", "minimum")
IN_PLACE = {
    **dict.fromkeys(UNARY, ()),
    **dict.fromkeys(BINARY, (tensor([0.5, 2.0, 3.0]),)),
    "clamp": (0.5, 2.0),
    "masked_fill": (tensor([True, False, True]), 7.0),
    "lerp": (tensor([1.0, 2.0, 3.0]), 0.25),
}
OWN_FORM = {"addcmul_", "addcdiv_", "index_add_", "zero_", "fill_", "copy_", "requires_grad_"}
RANDOM = {"uniform_", "normal_", "bernoulli_"}  # tests/test_random.py


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_methods_write_what_the_plain_ones_return(name):
    t = tensor([0.25, 1.5, 2.75])
    buffer, expected = t.numpy(), getattr(t, name)(*IN_PLACE[name])
    assert getattr(t, f"{name}_")(*IN_PLACE[name]) is t
    assert t.numpy() is buffer and np.array_equal(buffer, expected.numpy())


def test_every_in_place_method_is_tested():
    found = {name for name in vars(Tensor) if name.endswith("_") and not name.startswith("_")}
    assert found == {f"{name}_" for name in IN_PLACE} | OWN_FORM | RANDOM


def test_in_place_methods_of_their_own_form():
    t = tensor([1.0, 2.0])
    assert t.addcmul_(tensor([2.0, 3.0]), tensor([4.0, 5.0]), value=0.5).tolist() == [5, 9.5]
    assert t.addcdiv_(tensor([2.0, 3.0]), tensor([4.0, 2.0]), value=2).tolist() == [6, 12.5]
    assert t.zero_().tolist() == [0, 0] and t.fill_(3).tolist() == [3, 3] and t.copy_([1, 2]).tolist() == [1, 2]
    rows = zeros(3, 2)
    rows.index_add_(0, tensor([2, 0, 2]), tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    assert rows.tolist() == [[3, 4], [0, 0], [6, 8]]
    assert rows.index_add_(1, tensor([-1]), ones(3, 1)).tolist() == [[3, 5], [0, 1], [6, 9]]


def test_in_place_results_must_fit():
    with pytest.raises(ShapeError, match=r"in-place operation: got a result of shape \(2, 3\); needed \(3,\)"):
        ones(3).add_(ones(2, 3))
    with pytest.raises(DTypeError, match="in-place operation: got a float32 result; needed int64"):
        tensor([1, 2]).sqrt_()


def test_sum_to_size_is_the_transpose_of_broadcasting():
    t = ones(2, 3, 4)
    for shape in ((2, 3, 4), (3, 4), (1, 4), (3, 1), (2, 1, 4), (1,), ()):
        out = t.sum_to_size(shape)
        assert out.shape == shape and out.sum().item() == 24
    for wrong in ((2,), (2, 3), (4, 3, 2), (1, 2, 3, 4)):
        with pytest.raises(
            ShapeError, match=r"sum_to_size: \(2, 3, 4\) to \(.*\): needed equal sizes, 1, or fewer axes"
        ):
            t.sum_to_size(wrong)


# --- NumPy and DLPack ---------------------------------------------------------------------------------------------
def test_numpy_shares_memory_both_ways():
    a = np.zeros(3, np.float32)
    t = from_numpy(a)
    a[0] = 1
    t[1] = 2.0
    t.numpy()[2] = 3
    assert a.tolist() == t.tolist() == [1, 2, 3]
    assert not np.shares_memory(tensor(a).numpy(), a) and np.shares_memory(creation.as_tensor(a).numpy(), a)


def test_array_protocol():
    t = tensor([1.0, 2.0])
    assert np.shares_memory(np.asarray(t), t.numpy()) and not np.shares_memory(np.array(t), t.numpy())
    assert np.asarray(t, dtype="float64").dtype == np.float64
    assert np.asarray(t, copy=False) is not None and np.concatenate([t, t]).tolist() == [1, 2, 1, 2]
    with pytest.raises(ValueError, match="copy"):
        np.asarray(t, dtype="float64", copy=False)
    with pytest.raises(
        GradError, match=r"numpy\(\) of a tensor that requires gradients. Hint: use .detach\(\).numpy\(\)"
    ):
        np.asarray(ones(2, requires_grad=True))


def test_numpy_functions_refuse_tensors_rather_than_lose_gradients():
    with pytest.raises(TypeError, match="does not support ufuncs"):
        np.exp(ones(2))


def test_arrays_given_to_numpy_are_not_seen_by_other_tensors():
    x = Tensor(np.arange(6.0))
    y = x.reshape(2, 3)
    x.numpy()[0] = 99
    assert y[0, 0].item() == 0
    y.numpy()[0, 0] = 7
    assert x[0].item() == 99


def test_dlpack_both_ways():
    a = np.arange(3.0)
    t = from_dlpack(a)
    assert t.tolist() == [0, 1, 2] and np.shares_memory(np.from_dlpack(t), t.numpy())
    assert t.__dlpack_device__() == (1, 0)
    for layout in (Tensor(np.arange(6.0).reshape(2, 3)).T, Tensor(np.arange(6.0))[::2], ones(3).expand(2, 3)):
        assert np.from_dlpack(layout).tolist() == layout.tolist()
    with pytest.raises(GradError, match="requires gradients"):
        np.from_dlpack(ones(2, requires_grad=True))


@pytest.mark.skipif(torch is None, reason="needs PyTorch")
def test_dlpack_with_torch():
    theirs = torch.arange(3.0)
    ours = from_dlpack(theirs)
    theirs[0] = 9
    assert ours.tolist() == [9, 1, 2]
    back = torch.from_dlpack(ours)
    back[1] = 8
    assert ours.tolist() == [9, 8, 2] and theirs.tolist() == [9, 8, 2]
    assert torch.from_numpy(ours.numpy()).tolist() == [9, 8, 2]


# --- text ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: tensor([1.0, 2.5]), "tensor([1. , 2.5])"),
        (lambda: tensor(3), "tensor(3)"),
        (lambda: tensor([True]), "tensor([ True])"),
        (lambda: tensor([1.0], dtype="float64"), "tensor([1.], dtype=float64)"),
        (lambda: tensor([1], dtype="uint8"), "tensor([1], dtype=uint8)"),
        (lambda: zeros(0), "tensor([], dtype=float32)"),
        (lambda: zeros(2, 0), "tensor([], shape=(2, 0), dtype=float32)"),
        (lambda: tensor([[1.0, 2.0], [3.0, 4.0]]), "tensor([[1., 2.],\n        [3., 4.]])"),
        (lambda: tensor([1e-10, 2e-10]), "tensor([1.e-10, 2.e-10])"),
        (lambda: tensor(1e-10), "tensor(1.e-10)"),
        (lambda: tensor([math.nan, math.inf]), "tensor([nan, inf])"),
        (lambda: tensor([1.0], requires_grad=True), "tensor([1.], requires_grad=True)"),
        (lambda: tensor([1.0], requires_grad=True) * 2, "tensor([2.], grad_fn=<mul>)"),
        (lambda: tensor([1.0], requires_grad=True).detach(), "tensor([1.])"),
    ],
)
def test_repr(make: Callable[[], Tensor], text):
    assert repr(make()) == str(make()) == text


def test_repr_of_many_values_is_short():
    assert len(repr(zeros(100, 100))) < 1000 and "..." in repr(zeros(100, 100))


def test_format():
    t = tensor(3.14159, requires_grad=True)
    assert f"{t:.2f}" == "3.14" and f"{tensor(7):03d}" == "007" and f"{t}" == "3.141590118408203"
    assert f"{tensor([1.0])}" == "tensor([1.])" and f"{tensor([1.0]):>14}" == "  tensor([1.])"


# --- protocols ----------------------------------------------------------------------------------------------------
def test_iteration():
    rows = list(tensor([[1, 2], [3, 4]]))
    assert [r.tolist() for r in rows] == [[1, 2], [3, 4]]
    a, b = tensor([1.0, 2.0])
    assert a.item() == 1 and b.shape == ()
    assert list(zeros(0)) == [] and len(zeros(0, 3)) == 0
    for function, name in ((len, r"len\(\)"), (iter, "iteration")):
        with pytest.raises(ShapeError, match=f"{name}: got a 0-d tensor; needed at least one dimension"):
            function(tensor(1.0))
    w = tensor([1.0, 2.0], requires_grad=True)
    sum(x * x for x in w).backward()
    assert w.grad.tolist() == [2, 4]


def test_membership():
    assert 2 in tensor([1, 2]) and 3 not in tensor([1, 2])


def test_hash_is_identity():
    a, b = ones(2), ones(2)
    assert len({a, b, a}) == 2 and {a: 1}[a] == 1 and hash(a) != hash(b)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("make", [lambda: ones(2, 3), lambda: ones(3).expand(2, 3) * 1, lambda: ones(3, 2).T + 0])
def test_pickle_and_deepcopy(make, grad):
    t = make().detach().requires_grad_(grad)
    for again in (pickle.loads(pickle.dumps(t)), copy.deepcopy(t)):
        assert again.tolist() == t.tolist() and again.dtype == t.dtype
        assert again.requires_grad == grad and again.is_leaf
        with autodiff.no_grad():
            again += 1
        assert t.sum().item() == 6


def test_deepcopy_keeps_gradients_and_shared_tensors():
    w = ones(2, requires_grad=True)
    (w * 3).sum().backward()
    first, second = copy.deepcopy([w, w])
    assert first is second and first.grad.tolist() == [3, 3] and first.grad is not w.grad
    with pytest.raises(GradError, match=r"deepcopy of a tensor with history. Hint: use detach\(\) first"):
        copy.deepcopy(w * 2)


def test_copy_is_another_handle_on_the_same_buffer():
    w = ones(2, requires_grad=True)
    handle, loss = copy.copy(w), (w * w).sum()
    assert handle.requires_grad and handle.is_leaf
    with autodiff.no_grad():
        handle += 1
    assert w.tolist() == [2, 2]
    with pytest.raises(GradError, match="was overwritten in place"):
        loss.backward()


def test_pickling_a_result_drops_its_history():
    again = pickle.loads(pickle.dumps(ones(2, requires_grad=True) * 2))
    assert again.tolist() == [2, 2] and not again.requires_grad


def test_results_are_values_even_where_nothing_changes():
    t, whole = tensor([[1.5, 2.0]]), tensor([1, 2])
    same = [
        t.expand(1, 2),
        t[...],
        t.reshape(1, 2),
        t.clone(),
        t.to("cpu", copy=True),
        t.flip(),
        t.t().t(),
        t.cumprod(0),
    ]
    same += [t.roll(0, 0), t.sum(()), t.squeeze(1), t.clamp(min=0), t**1, t.sum_to_size(1, 2)]
    for out in same:
        assert out is not t and out.tolist() == [[1.5, 2.0]]
        out.zero_()
    assert t.tolist() == [[1.5, 2.0]]
    for out in (whole.floor(), whole.ceil(), whole.round(), whole.trunc(), whole.nan_to_num()):
        out.zero_()
    assert whole.tolist() == [1, 2]


def test_infinities_are_values_not_warnings():
    big = tensor([3e38, -3e38, math.inf, 0.0])
    assert (big * 10 - big * 10).isnan().tolist() == [True, True, True, False]
    assert (ones(2) * 1e300).tolist() == [math.inf, math.inf]
    assert (big / 0).isnan().tolist() == [False, False, False, True]
    assert big.sum().item() == math.inf and (big[:1].reshape(1, 1) @ big[:1].reshape(1, 1)).item() == math.inf
    assert tensor([1e39], dtype="float64").float().item() == math.inf
    assert creation.is_tensor(big) and not creation.is_tensor(big.numpy())


# --- the stub -----------------------------------------------------------------------------------------------------
def test_the_stubs_are_current():
    tool = [sys.executable, str(ROOT / "tools" / "make_stub.py"), "--check"]
    assert subprocess.run(tool, check=False, capture_output=True, encoding="utf-8").stderr == ""
    stub = (ROOT / "slalom" / "core" / "methods.pyi").read_text(encoding="utf-8")
    for name in ("relu", "__add__", "__eq__", "T", "device", "sum", "backward", "add_"):
        assert re.search(rf"def {name}\(\s*self", stub), name
    made = (ROOT / "slalom" / "nn" / "losses.pyi").read_text(encoding="utf-8")
    assert "class CTCLoss(Loss):" in made and "class FocalLoss(Loss):" in made

"""Writing in place: the same buffer and a new version; results are values, never views of something that can change."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import slalom
from slalom import Tensor, tensor
from slalom.errors import DTypeError, GradError, ShapeError


def leaf(*values: float) -> Tensor:
    return tensor(list(values), requires_grad=True)


def here() -> int:
    """The line of the caller."""
    frame = inspect.currentframe()
    assert frame is not None and frame.f_back is not None
    return frame.f_back.f_lineno


# --- versions -----------------------------------------------------------------------------------------------------
def test_an_overwritten_value_that_backward_needs_is_an_error_that_names_it() -> None:
    x = leaf(1.0, 2.0)
    y = x * 2
    loss = y.exp().sum()
    with slalom.no_grad():
        x.add_(1)  # nobody needs x: 2·x was linear
    loss.backward(retain_graph=True)
    exp = y.exp()
    square = y * y
    line = here() + 1
    y += 1
    exp.sum().backward(retain_graph=True)  # exp needs its result only
    with pytest.raises(GradError) as caught:
        square.sum().backward()
    text = str(caught.value)
    assert re.search(r"derivative of mul needs the value made by mul, of shape \(2,\)", text)
    assert f"test_inplace.py:{line}" in text and "clone()" in text and "\n" not in text


def test_an_overwritten_result_is_noticed_too() -> None:
    x = leaf(1.0, 2.0)
    y = x.exp()
    y *= 2  # exp's own derivative reads its result
    with pytest.raises(GradError, match="derivative of exp needs the value made by exp"):
        y.sum().backward()


def test_an_overwritten_leaf_is_noticed() -> None:
    w, x = leaf(1.0, 2.0), leaf(3.0, 4.0)
    loss = (w * x).sum()
    with slalom.no_grad():
        w -= 0.1
    with pytest.raises(GradError, match="the value of a leaf"):
        loss.backward()


@pytest.mark.parametrize("through", ["detach", "data"])
def test_a_write_through_another_handle_is_noticed(through: str) -> None:
    x = leaf(1.0, 2.0)
    y = x * 3
    loss = (y * y).sum()
    (y.detach() if through == "detach" else y.data).zero_()
    with pytest.raises(GradError, match="overwritten"):
        loss.backward()


SHAPES_ONLY: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda y: y.sum(),
    "reshape": lambda y: y.reshape(3, 2),
    "transpose": lambda y: y.T,
    "slice": lambda y: y[0],
    "expand": lambda y: y.expand(4, 2, 3),
    "cat": lambda y: slalom.cat([y, y]),
    "add": lambda y: y + 1,
    "pad": lambda y: slalom.pad(y, (1, 1)),
}


@pytest.mark.parametrize("name", SHAPES_ONLY)
def test_operations_that_need_shapes_only_do_not_mind(name: str) -> None:
    x = tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    y = x * 2
    out = SHAPES_ONLY[name](y)
    expected = np.asarray(out.detach()).copy()
    y += 100
    np.testing.assert_array_equal(np.asarray(out.detach()), expected)
    out.sum().backward()
    assert x.grad is not None and np.isfinite(x.grad.numpy()).all() and x.grad.numpy().any()


def test_a_write_before_the_use_is_fine() -> None:
    x = leaf(1.0, 2.0)
    y = x * 2
    y += 1
    y *= y
    (y * y).sum().backward()  # ((2x + 1)²)²
    assert x.grad is not None and x.grad.tolist() == [8 * 3.0**3, 8 * 5.0**3]


# --- gradients ----------------------------------------------------------------------------------------------------
def test_a_leaf_that_requires_gradients_cannot_be_written_while_recording() -> None:
    w = leaf(1.0, 2.0)
    writes: list[Callable[[], Any]] = [
        lambda: w.add_(1),
        w.zero_,
        lambda: w.assign(0.0),
        lambda: w.__setitem__(0, 5.0),
        lambda: w.__iadd__(1),
    ]
    for write in writes:
        with pytest.raises(GradError, match=r"leaf.*no_grad"):
            write()
    assert w.tolist() == [1.0, 2.0]
    with slalom.no_grad():
        w += 1
        w[0] = 10.0
    assert w.tolist() == [10.0, 3.0] and w.is_leaf and w.requires_grad
    (w * 2).sum().backward()
    assert w.grad is not None and w.grad.tolist() == [2.0, 2.0]


def test_in_place_on_a_tracked_value_keeps_its_history() -> None:
    x, z = leaf(1.0, 2.0), leaf(10.0, 20.0)
    y = x * 3
    before = y
    y += z
    assert y is before and y.tolist() == [13.0, 26.0] and not y.is_leaf
    y[1] = z[0] * 7
    (y * tensor([1.0, 100.0])).sum().backward()
    assert x.grad is not None and z.grad is not None
    assert (x.grad.tolist(), z.grad.tolist()) == ([3.0, 0.0], [1.0 + 700.0, 0.0])


def test_an_untracked_value_takes_the_history_of_what_is_written() -> None:
    x, buffer = leaf(1.0, 2.0), slalom.zeros(3)
    for i in range(2):
        buffer[i] = x[i] * (i + 1)
    assert buffer.requires_grad and not buffer.is_leaf
    buffer.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [1.0, 2.0]


def test_a_copy_is_not_the_original() -> None:
    x, y = leaf(1.0, 2.0), slalom.zeros(2)
    y.copy_(x)
    assert not y.is_leaf
    (y * y).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2.0, 4.0] and y.grad is None
    w = leaf(0.0, 0.0)
    with slalom.no_grad():
        w.copy_(x)  # as when one network is set to another
    (w * 5).sum().backward()
    assert w.grad is not None and w.grad.tolist() == [5.0, 5.0] and x.grad.tolist() == [2.0, 4.0]
    assert w.is_leaf


def test_a_constant_written_over_a_tracked_value_stops_its_gradient() -> None:
    x = leaf(1.0, 2.0)
    y = x * 3
    y.zero_()
    assert y.requires_grad
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0.0, 0.0]
    y = x * 2
    y.fill_(5.0)
    y += x
    y.sum().backward()
    assert y.tolist() == [6.0, 7.0] and x.grad.tolist() == [1.0, 1.0]


def test_operations_that_read_what_they_overwrite() -> None:
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    y = x * 2
    y *= w
    y *= y
    y /= w
    y **= 3
    y.log_()
    y.sum().backward()  # log((4x²w²/w)³) = 3 log 4 + 6 log x + 3 log w
    assert x.grad is not None and w.grad is not None
    assert x.grad.tolist() == pytest.approx([6.0, 3.0]) and w.grad.tolist() == pytest.approx([1.0, 0.75])
    constant = tensor([5.0, 6.0])
    constant *= w
    constant.sum().backward()
    assert w.grad.tolist() == pytest.approx([6.0, 6.75])


def test_writes_after_a_tracked_write_are_what_is_read() -> None:
    """A value written while recording, then changed behind its history: the rules read the latest."""
    x = leaf(1.0, 2.0)
    y = x * 2
    y += 1
    with slalom.no_grad():
        y *= 10
    y.detach().fill_(7.0)
    (y * y).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2 * 2 * 7.0] * 2


def test_writes_under_no_grad_leave_the_history() -> None:
    x = leaf(1.0, 2.0)
    y = x * 2
    with slalom.no_grad():
        y += 100
    assert y.requires_grad and y.tolist() == [102.0, 104.0]
    (y * y).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2 * 2 * 102.0, 2 * 2 * 104.0]


def test_retained_gradients_belong_to_the_latest_value() -> None:
    x = leaf(1.0, 2.0)
    y = x * 2
    y.retain_grad()
    y *= 5
    (y * 3).sum().backward()
    assert y.grad is not None and y.grad.tolist() == [3.0, 3.0]


# --- buffers ------------------------------------------------------------------------------------------------------
def test_detach_and_data_share_the_buffer() -> None:
    x = leaf(1.0, 2.0)
    d, e = x.detach(), x.data
    d[0] = 5.0
    e += 1
    assert x.tolist() == d.tolist() == e.tolist() == [6.0, 3.0]
    assert not d.requires_grad and np.shares_memory(d.numpy(), e.numpy())


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "reshape": lambda x: x.reshape(3, 2),
    "same shape": lambda x: x.reshape(2, 3),
    "transpose": lambda x: x.T,
    "row": lambda x: x[1],
    "column": lambda x: x[:, 1],
    "step": lambda x: x[:, ::2],
    "backwards": lambda x: x.flip(1),
    "ellipsis": lambda x: x[...],
    "expanded": lambda x: x.expand(2, 2, 3),
    "clone": lambda x: x.clone(),
    "view of a view": lambda x: x.T[1:].reshape(-1),
    "unbound": lambda x: x.unbind(0)[1],
    "split": lambda x: x.split(2, 1)[0],
    "squeezed": lambda x: x.unsqueeze(0).squeeze(0),
}
WRITES: dict[str, Callable[[Tensor], Any]] = {
    "+=": lambda t: t.__iadd__(100),
    "zero_": lambda t: t.zero_(),
    "fill_": lambda t: t.fill_(7.0),
    "copy_": lambda t: t.copy_(t + 1),
    "assign itself backwards": lambda t: t.assign(t.flip(0) + 50),
    "t[…] =": lambda t: t.__setitem__(Ellipsis, 9.0),
    "exp_": lambda t: t.exp_(),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("view", VIEWS)
def test_results_are_values_never_views(view: str, write: str) -> None:
    x = tensor(np.arange(6.0, dtype=np.float32).reshape(2, 3))
    y = VIEWS[view](x)
    before = y.numpy().copy()
    y = VIEWS[view](x)
    WRITES[write](x)
    np.testing.assert_array_equal(y.numpy(), before)  # the base was written
    x = tensor(np.arange(6.0, dtype=np.float32).reshape(2, 3))
    y, z = VIEWS[view](x), VIEWS[view](x)
    WRITES[write](y)
    np.testing.assert_array_equal(x.numpy(), np.arange(6.0).reshape(2, 3))  # and the other way round
    np.testing.assert_array_equal(z.numpy(), before)


def test_views_are_copied_only_when_somebody_writes() -> None:
    x = slalom.zeros(4, 4)
    y = x.reshape(16)
    assert np.shares_memory(x._storage.array, y._storage.array)
    x += 1
    assert not np.shares_memory(x._storage.array, y._storage.array)


def test_ten_thousand_views_of_one_tensor_are_cheap() -> None:
    x = slalom.zeros(10_000)
    views = [x[i] for i in range(10_000)]
    x += 1
    assert sum(v.item() for v in views) == 0.0
    storage = x._storage
    for i in range(1000):  # and those that are gone are forgotten
        x[i]
    assert storage._views is not None and len(storage._views) < 100


def test_the_array_of_numpy_is_the_buffer_and_nobody_elses() -> None:
    x = slalom.zeros(2, 2)
    y = x.reshape(4)
    array = x.numpy()
    assert array is x.numpy()
    array[0, 0] = 5.0
    assert x[0, 0].item() == 5.0 and y.tolist() == [0.0] * 4
    x += 1
    assert array[0, 0] == 6.0
    y.numpy()[0] = 3.0
    assert x[0, 0].item() == 6.0
    with pytest.raises(GradError, match="detach"):
        leaf(1.0).numpy()


def test_from_numpy_shares_and_tensor_copies() -> None:
    array = np.zeros(3, np.float32)
    shared, copied = slalom.from_numpy(array), tensor(array)
    array[0] = 1.0
    assert (shared.tolist(), copied.tolist()) == ([1.0, 0.0, 0.0], [0.0] * 3)
    shared[1] = 2.0
    shared += 10
    assert array.tolist() == [11.0, 12.0, 10.0]
    doubled = shared * 2
    array[:] = 0
    assert doubled.tolist() == [22.0, 24.0, 20.0]


def test_a_read_only_array_is_left_alone() -> None:
    array = np.zeros(3, np.float32)
    array.flags.writeable = False
    shared = slalom.from_numpy(array)
    shared += 1
    assert shared.tolist() == [1.0] * 3 and array.tolist() == [0.0] * 3


def test_setting_data() -> None:
    w = leaf(1.0, 2.0)
    buffer = w.detach().numpy()
    w.data = tensor([5.0, 6.0])
    assert w.tolist() == [5.0, 6.0] and w.is_leaf and w.requires_grad
    assert buffer.tolist() == [5.0, 6.0]  # of the same shape: the buffer stays
    source = tensor([1.0, 2.0, 3.0])
    w.data = source
    assert w.shape == (3,) and w.requires_grad
    source.zero_()
    assert w.tolist() == [1.0, 2.0, 3.0]
    (w * w).sum().backward()
    assert w.grad is not None and w.grad.tolist() == [2.0, 4.0, 6.0]
    w.data = w.data.to("float64")
    assert w.dtype == np.float64
    with pytest.raises(GradError, match="int64"):
        w.data = tensor([1, 2, 3])
    v = leaf(1.0, 2.0)
    loss = (v * v).sum()
    v.data = tensor([7.0, 7.0])
    with pytest.raises(GradError, match="overwritten"):
        loss.backward()


def test_a_step_by_hand_as_in_lectures() -> None:
    w = leaf(15.0)
    (w * w).sum().backward()
    assert w.grad is not None
    w.data -= 0.1 * w.grad.data
    assert w.tolist() == pytest.approx([12.0]) and w.is_leaf and w.requires_grad
    w.grad.zero_()
    assert w.grad.tolist() == [0.0]


# --- assignment ---------------------------------------------------------------------------------------------------
def test_assign_broadcasts_and_casts() -> None:
    x = slalom.zeros(2, 3)
    assert x.assign(tensor([1.0, 2.0, 3.0])).tolist() == [[1.0, 2.0, 3.0]] * 2
    assert x.assign(5).tolist() == [[5.0] * 3] * 2
    assert x.assign(tensor([[1], [2]])).tolist() == [[1.0] * 3, [2.0] * 3]
    assert x.assign(np.ones((2, 3))).dtype == np.float32


MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "shape": (lambda: slalom.zeros(2).assign(slalom.zeros(3)), ShapeError, r"\(3,\)|3"),
    "a larger result": (lambda: slalom.zeros(2).add_(slalom.zeros(3, 2)), ShapeError, r"\(3, 2\).*\(2,\)"),
    "float into int": (lambda: tensor([1, 2]).add_(0.5), DTypeError, "float32.*int64"),
    "int into bool": (lambda: tensor([True]).assign(tensor([2])), DTypeError, "int64.*bool"),
    "index": (lambda: slalom.zeros(2).__setitem__(5, 1.0), (ShapeError, IndexError), "5"),
    "value": (lambda: slalom.zeros(2).__setitem__(slice(None), [1.0, 2.0, 3.0]), ShapeError, "2"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str) -> None:
    act, kind, text = MISTAKES[name]
    with pytest.raises(kind, match=text):
        act()


def test_a_failed_write_changes_nothing() -> None:
    x = tensor([1.0, 2.0])
    with pytest.raises(ShapeError):
        x += tensor([1.0, 2.0, 3.0])
    with pytest.raises(ShapeError):
        x[:] = [1.0, 2.0, 3.0]
    with pytest.raises(ShapeError):
        x.copy_(slalom.zeros(3, 2))
    assert x.tolist() == [1.0, 2.0]


# --- copies -------------------------------------------------------------------------------------------------------
def test_pickle_and_deepcopy() -> None:
    w = leaf(1.0, 2.0)
    (w * w).sum().backward()
    twin = copy.deepcopy(w)
    assert twin.requires_grad and twin.is_leaf and twin.grad is not None and twin.grad.tolist() == [2.0, 4.0]
    with slalom.no_grad():
        w += 1
        assert w.grad is not None
        w.grad += 1
    assert twin.tolist() == [1.0, 2.0] and twin.grad.tolist() == [2.0, 4.0]
    loaded = pickle.loads(pickle.dumps(w))
    assert loaded.tolist() == [2.0, 3.0] and loaded.requires_grad and loaded.grad is None
    with pytest.raises(GradError, match="history"):
        copy.deepcopy(w * 2)

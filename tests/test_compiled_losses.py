"""Losses on what a compiled module returns: compiled themselves after two calls, else what they were in all ways."""

from __future__ import annotations

import copy
import pickle
import sys
from typing import Any

import numpy as np
import pytest
from layer_cases import cotangent, learned, loss_case_id, loss_cases, loss_values
from loss_rows import LossRow

import slalom
from slalom import Tensor, autograd, nn, optim, tensor
from slalom.compiler.native import native
from slalom.core.functional import registry
from slalom.errors import GradError, IndexRangeError, ShapeError

NATIVE_BITS = True
pytestmark = pytest.mark.skipif(not native(), reason="no native code here")

CASES = [(row, i) for row, i in loss_cases() if 0 in learned(row, i)]


class Through(nn.Module):
    """Gives what it gets, through the node of a compiled call."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 1.0


def through(x: Tensor, model: nn.Module | None = None) -> Tensor:
    out: Tensor = (slalom.compile(Through()) if model is None else model)(x)
    return out


def runs(loss: nn.Module) -> int:
    """How often the loss was recorded; 0 where it runs operation by operation."""
    return loss._native.traces if loss.__dict__.get("_native") else 0


@pytest.mark.parametrize(("row", "i"), CASES, ids=[loss_case_id(row, i, "") for row, i in CASES])
def test_five_calls_are_those_of_eager_mode(row: LossRow, i: int) -> None:
    inputs, weights = loss_values(row, i)
    model = slalom.compile(Through())
    built: Any = row.build(nn, "mean", *(Tensor(w, dtype="float64") for w in weights))
    for n in range(5):
        results = []
        for compiled in (True, False):
            given = [tensor(a * (1 - n / 16) if a.dtype.kind == "f" and k == 0 else a) for k, a in enumerate(inputs)]
            for k in learned(row, i):
                given[k].requires_grad_()
            x = row.before(given[0])
            loss = built if compiled else copy.deepcopy(built)
            out = loss(through(x, model) if compiled else x, *given[1:])
            (out * Tensor(cotangent(out.shape), dtype=out.dtype)).sum().backward()
            results.append([out.detach(), *(given[k].grad for k in learned(row, i))])
        for found, expected in zip(*results, strict=True):
            assert found.shape == expected.shape and found.dtype == expected.dtype
            np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-9, atol=1e-12)
    assert runs(built) == (not registry.LOSSES[row.name].looks)


@pytest.mark.parametrize(("row", "i"), CASES, ids=[loss_case_id(row, i, "") for row, i in CASES])
def test_what_looks_at_values_says_so(row: LossRow, i: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """``_nll`` looks only for what it need not compute."""
    inputs, weights = loss_values(row, i)
    asked: set[str] = set()
    known = Tensor._known

    def noted(t: Tensor) -> Any:
        frame = sys._getframe(1)
        if "/losses/" in frame.f_code.co_filename and frame.f_code.co_name != "_nll":
            asked.add(frame.f_code.co_name)
        return known(t)

    monkeypatch.setattr(Tensor, "_known", noted)
    loss = row.build(nn, "mean", *(Tensor(w, dtype="float64") for w in weights))
    loss(row.before(tensor(inputs[0])), *map(tensor, inputs[1:]))
    assert bool(asked) <= registry.LOSSES[row.name].looks, asked


def test_it_is_compiled_after_two_calls_and_only_on_what_a_compiled_module_returns() -> None:
    loss, x, y = nn.CrossEntropyLoss(), slalom.randn(4, 3, requires_grad=True), tensor([0, 2, 1, 1])
    for _ in range(5):
        loss(x, y).backward()
    assert runs(loss) == 0
    for n in range(5):
        loss(through(x), y).backward()
        assert runs(loss) == (n > 1)
    with slalom.no_grad():
        loss(through(x), y)
    assert runs(loss) == 1


def test_numpy_runs_it_operation_by_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLALOM_EXECUTOR", "numpy")
    loss, x = nn.MSELoss(), slalom.randn(4, 3, requires_grad=True)
    for _ in range(5):
        loss(through(x), slalom.zeros(4, 3)).backward()
    assert runs(loss) == 0


def test_hooks_and_subclasses_see_every_call() -> None:
    class Own(nn.MSELoss):  # type: ignore[misc,name-defined]
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            seen.append("own")
            out: Tensor = super().forward(x, y)
            return out

    seen: list[str] = []
    x, y = slalom.randn(4, 3, requires_grad=True), slalom.zeros(4, 3)
    hooked, own = nn.MSELoss(), Own()
    for _ in range(4):
        hooked(through(x), y)
    assert runs(hooked) == 1
    handle = hooked.register_forward_hook(lambda *_: seen.append("hook"))
    for _ in range(5):
        hooked(through(x), y)
        own(through(x), y)
    assert seen == ["hook", "own"] * 5 and runs(own) == 0
    handle.remove()
    hooked(through(x), y)
    assert runs(hooked) == 1 and len(seen) == 10


def test_an_error_is_that_of_eager_mode_and_the_next_call_is_compiled() -> None:
    loss, x = nn.CrossEntropyLoss(), slalom.randn(4, 3, requires_grad=True)
    good, bad = tensor([0, 2, 1, 1]), tensor([0, 3, 1, 1])
    for _ in range(3):
        loss(through(x), good)
    with pytest.raises(IndexRangeError, match="cross_entropy: class 3 in the target"):
        loss(through(x), bad)
    with pytest.raises(ShapeError):
        loss(through(x), tensor([0, 1]))
    loss(through(x), good)
    assert runs(loss) == 1


def test_options_reach_the_next_call() -> None:
    loss: Any = nn.CrossEntropyLoss(weight=tensor([1.0, 2.0, 3.0]))
    x, y = slalom.randn(4, 3, requires_grad=True), tensor([0, 2, 1, 1])

    def check() -> None:
        expected = nn.functional.cross_entropy(
            x, y, loss.weight, ignore_index=loss.ignore_index, reduction=loss.reduction,
            label_smoothing=loss.label_smoothing,
        )  # fmt: skip
        np.testing.assert_allclose(loss(through(x), y).detach().numpy(), expected.detach().numpy(), rtol=1e-6)

    for _ in range(4):
        check()
    for name, value in (("reduction", "sum"), ("ignore_index", 1), ("label_smoothing", 0.1), ("reduction", "none")):
        setattr(loss, name, value)
        check()
    loss.weight.mul_(2)
    check()
    loss.weight = tensor([3.0, 1.0, 1.0])
    check()
    assert runs(loss) == 6


def test_shapes_that_change_all_the_time_are_not_recorded_for_ever() -> None:
    loss = nn.MSELoss()
    for n in range(2, 30):
        x = slalom.randn(n, requires_grad=True)
        loss(through(x), slalom.zeros(n)).backward()
        np.testing.assert_allclose(x.grad.numpy(), 2 * x.detach().numpy() / n, rtol=1e-6)
    assert runs(loss) < 12


def test_derivatives_of_gradients() -> None:
    """Of the loss by the output, which eager mode has: the loss is computed once more, on the tape."""
    loss, y = nn.MSELoss(reduction="sum"), slalom.zeros(3)
    for n in range(5):
        x = tensor([1.0, 2.0, 3.0 + n], requires_grad=True)
        out = through(x)
        (g,) = autograd.grad(loss(out, y), [out], create_graph=True)
        np.testing.assert_allclose(g.detach().numpy(), 2 * x.detach().numpy())
        (g**3).sum().backward()  # Σ 8·x³
        np.testing.assert_allclose(x.grad.numpy(), 24 * x.detach().numpy() ** 2)
    assert runs(loss) == 1
    out = through(x)
    value = loss(out, y)
    y.add_(1.0)
    with pytest.raises(GradError, match="overwritten"):
        autograd.grad(value, [out], create_graph=True)


def test_a_target_that_is_overwritten_before_backward() -> None:
    """Where it was needed it is an error; compiled, what is needed of it has been kept: the gradient is right."""
    loss, x = nn.CrossEntropyLoss(), slalom.randn(3, 3, requires_grad=True)
    nn.functional.cross_entropy(x, tensor([0, 1, 2])).backward()
    expected = x.grad.numpy().copy()
    for n in range(5):
        target = tensor([0, 1, 2])
        value = loss(through(x), target)
        target.zero_()
        x.grad = None
        if runs(loss):
            value.backward()
            np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-5)
        else:
            with pytest.raises(GradError, match="overwritten"):
                value.backward()
        assert runs(loss) == (n > 1)


def test_copies_and_pickles_begin_anew() -> None:
    loss, x, y = nn.HuberLoss(), slalom.randn(3, requires_grad=True), slalom.zeros(3)
    for _ in range(4):
        loss(through(x), y)
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert runs(twin) == 0
        for _ in range(4):
            twin(through(x), y)
        assert runs(twin) == 1
    assert str(loss) == str(nn.HuberLoss()) and loss.state_dict() == {}


def test_a_loop_learns_what_it_learns_eagerly() -> None:
    rng = np.random.default_rng(0)
    x, y = tensor(rng.normal(size=(64, 5)).astype(np.float32)), tensor(rng.integers(0, 3, 64))
    losses = []
    for compiled in (False, True):
        slalom.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 3))
        if compiled:
            slalom.compile(model)
        loss, optimizer = nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=0.01)
        with slalom.enable_grad() if compiled else slalom.no_compile():
            for _ in range(30):
                optimizer.zero_grad()
                value = loss(model(x), y)
                value.backward()
                optimizer.step()
        losses.append(value.item())
        assert runs(loss) == compiled
    np.testing.assert_allclose(*losses, rtol=1e-4)

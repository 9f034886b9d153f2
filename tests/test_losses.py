"""Every row of table_losses.py: reductions, derivatives, staging, extremes, messages, and PyTorch's own results."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from derivatives import check_derivatives
from layer_cases import condensed, cotangent, loss_case_id, loss_cases, loss_values
from table_losses import LOSSES, LossRow
from torch_reference import loss_results

import slalom
from slalom import Tensor, nn

CASES = list(loss_cases())
GOLDEN = json.loads((Path(__file__).parent / "golden" / "losses.json").read_text(encoding="utf-8"))
PLAIN = ("mse_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits")
"""The losses without an axis of classes."""
BATCHES = [(row, i) for row, i in CASES if len(row.samples[i].shape) > (row.function not in PLAIN)]
REDUCTIONS = ("mean", "sum", "none")
each_case = pytest.mark.parametrize(("row", "i"), CASES, ids=[loss_case_id(row, i, "") for row, i in CASES])
each_row = pytest.mark.parametrize("row", LOSSES, ids=lambda row: row.id)


def made(row: LossRow, i: int, reduction: str, dtype: str = "float64") -> tuple[Any, Tensor, Tensor]:
    """The loss, an input that requires gradients, and the target."""
    x, target, weights = loss_values(row, i)
    loss = row.build(nn, reduction, *(Tensor(w, dtype=dtype) for w in weights))
    given = slalom.from_numpy(x if dtype == "float64" else x.astype(dtype)).requires_grad_()
    goal = slalom.from_numpy(target if target.dtype.kind == "i" or dtype == "float64" else target.astype(dtype))
    return loss, given, goal


def run(loss: Any, x: Tensor, target: Tensor) -> dict[str, Any]:
    out = loss(x, target)
    (out * Tensor(cotangent(out.shape), dtype=out.dtype)).sum().backward()
    assert x.grad is not None
    return {"out": out.detach().numpy(), "input.grad": x.grad.numpy()}


@each_row
def test_rows_have_six_samples_and_know_their_function(row: LossRow) -> None:
    assert len(row.samples) >= 6 and len({row.id for row in LOSSES}) == len(LOSSES)
    ours = inspect.signature(getattr(nn.functional, row.function)).parameters
    module = inspect.signature(getattr(nn, row.name)).parameters
    assert set(module) <= set(ours) and list(ours)[:2] == ["input", "target"]
    assert all(module[name].default == ours[name].default for name in module)


@each_case
def test_module_is_its_function(row: LossRow, i: int) -> None:
    loss, x, target = made(row, i, "none")
    options = {
        name: getattr(loss, name)
        for name in inspect.signature(getattr(nn.functional, row.function)).parameters
        if name not in ("input", "target") and hasattr(loss, name)
    }
    expected = getattr(nn.functional, row.function)(x, target, **options)
    np.testing.assert_array_equal(loss(x, target).detach().numpy(), expected.detach().numpy())


@each_case
def test_reductions(row: LossRow, i: int) -> None:
    mean, total, each = (made(row, i, r)[0] for r in REDUCTIONS)
    _, x, target = made(row, i, "none")
    elements = each(x, target).detach().numpy()
    axis = 1 if x.ndim > 1 else 0
    assert elements.shape == (x.shape if row.function in PLAIN else (*x.shape[:axis], *x.shape[axis + 1 :]))
    np.testing.assert_allclose(total(x, target).item(), elements.sum(), rtol=1e-12)
    weight = getattr(each, "weight", None)
    count = float(elements.size)
    if target.dtype.kind == "i":  # ignored places count nothing, weighted classes their weight
        kept = target.numpy() != each.ignore_index
        count = float((kept if weight is None else weight.numpy()[target.numpy() * kept] * kept).sum())
    expected = elements.sum() / count if count else np.nan
    np.testing.assert_allclose(mean(x, target).item(), expected, rtol=1e-12)


@each_case
def test_derivatives(row: LossRow, i: int) -> None:
    loss, x, target = made(row, i, "none")
    if target.dtype.kind == "f":
        check_derivatives(loss, [x.detach().numpy(), target.numpy()])
    else:
        check_derivatives(lambda x: loss(x, target), [x.detach().numpy()])


@each_case
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_staged_equals_eager_bit_for_bit(row: LossRow, i: int, reduction: str) -> None:
    loss, x, target = made(row, i, reduction, "float32")
    expected = run(loss, x, target)
    weights = Tensor(cotangent(expected["out"].shape), dtype="float32")

    @slalom.compile
    def step(x: Tensor, target: Tensor) -> Any:
        x.requires_grad = True
        out = loss(x, target)
        (out * weights).sum().backward()
        return out, x.grad

    for _ in range(2):
        out, gradient = step(x.detach(), target)
        np.testing.assert_array_equal(out.numpy(), expected["out"])
        np.testing.assert_array_equal(gradient.numpy(), expected["input.grad"])
    assert step.traces == 1


@pytest.mark.parametrize(("row", "i"), BATCHES)
def test_samples_can_be_weighted_through_no_reduction(row: LossRow, i: int) -> None:
    """What a training loop with weights for rows does: a row of weight 2 is a row that stands there twice."""
    loss, x, target = made(row, i, "none")
    elements = loss(x, target)
    weight = Tensor(np.arange(len(x)) % 3, dtype="float64").reshape((len(x),) + (1,) * (elements.ndim - 1))
    repeated = np.repeat(np.arange(len(x)), np.arange(len(x)) % 3)
    once = (elements * weight).sum().item()
    twice = loss(x[slalom.tensor(repeated)], target[slalom.tensor(repeated)]).sum().item() if len(repeated) else 0.0
    np.testing.assert_allclose(once, twice, rtol=1e-12)


EXTREMES = [(row, *extreme) for row in LOSSES for extreme in row.extreme]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("row", "x", "target", "exact"), EXTREMES, ids=[e[0].id for e in EXTREMES])
def test_extreme_inputs_give_finite_losses_and_gradients(
    row: LossRow, x: Any, target: Any, exact: Any, dtype: str
) -> None:
    weights = [Tensor(np.full(shape, 1.0), dtype=dtype) for shape in row.weights]
    given = slalom.tensor(x, dtype=dtype, requires_grad=True)
    goal = slalom.tensor(target)
    elements = row.build(nn, "none", *weights)(given, goal)
    elements.sum().backward()
    assert given.grad is not None
    assert np.isfinite(elements.detach().numpy()).all() and np.isfinite(given.grad.numpy()).all()
    if exact is not None:
        np.testing.assert_allclose(elements.detach().numpy(), exact, rtol=1e-6)


@each_row
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_nan_is_never_hidden(row: LossRow, reduction: str) -> None:
    loss, x, target = made(row, 1, reduction)
    with slalom.no_grad():
        x[0, 0] = float("nan")
    target[0] = 0  # a class that is not ignored
    assert np.isnan(loss(x, target).detach().numpy()).any()


ERRORS = [(row, *error) for row in LOSSES for error in row.errors]


@pytest.mark.parametrize(("row", "call", "message"), ERRORS, ids=[f"{e[0].id}:{i}" for i, e in enumerate(ERRORS)])
def test_error_text(row: LossRow, call: Any, message: str) -> None:
    raised = UserWarning if "are" in message[-4:] else slalom.errors.SlalomError
    with pytest.raises(raised, match=message) as caught:
        call(nn, slalom.tensor)
    assert "\n" not in str(caught.value)
    assert raised is UserWarning or str(caught.value).startswith(f"{row.name}: ")


def test_a_staged_class_out_of_range_is_an_error_when_it_runs() -> None:
    step = slalom.compile(nn.CrossEntropyLoss().forward)
    x = slalom.zeros(2, 3)
    np.testing.assert_allclose(step(x, slalom.tensor([0, 2])).item(), np.log(3), rtol=1e-6)
    with pytest.raises(slalom.errors.IndexRangeError, match="got 7"):
        step(x, slalom.tensor([0, 7]))


def test_broadcast_weight_of_the_squared_error() -> None:
    x, y, w = slalom.tensor([[1.0, 2.0], [3.0, 5.0]]), slalom.zeros(2, 2), slalom.tensor([[3.0], [1.0]])
    assert nn.functional.mse_loss(x, y, weight=w).item() == pytest.approx((3 * 1 + 3 * 4 + 9 + 25) / 8)
    assert nn.functional.mse_loss(x, y, weight=w, reduction="sum").item() == 49


def test_targets_of_other_dtypes() -> None:
    logits = slalom.tensor([0.5, -1.0])
    expected = nn.BCEWithLogitsLoss()(logits, slalom.tensor([1.0, 0.0])).item()
    for target in (np.array([1, 0]), np.array([True, False]), np.array([1.0, 0.0])):
        found = nn.BCEWithLogitsLoss()(logits, slalom.tensor(target))
        assert found.item() == expected and found.dtype == np.float32
    byte = slalom.tensor(np.array([1, 0], np.uint8))
    assert nn.CrossEntropyLoss()(slalom.zeros(2, 2), byte).item() == pytest.approx(np.log(2))


# --- PyTorch ----------------------------------------------------------------------------------------------------------
@each_case
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_golden(row: LossRow, i: int, reduction: str) -> None:
    found = condensed(run(*made(row, i, reduction)))
    assert found == pytest.approx(GOLDEN[loss_case_id(row, i, reduction)], rel=1e-10, abs=1e-11, nan_ok=True)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@each_case
def test_torch_parity(row: LossRow, i: int, reduction: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    expected, found = loss_results(torch, row, i, reduction, dtype), run(*made(row, i, reduction, dtype))
    tolerance = {"rtol": 1e-10, "atol": 1e-12} if dtype == "float64" else {"rtol": 1e-4, "atol": 1e-5}
    for name, array in found.items():
        assert array.dtype == expected[name].dtype
        np.testing.assert_allclose(array, expected[name], err_msg=name, **tolerance)


@each_row
def test_torch_state(row: LossRow) -> None:
    torch = pytest.importorskip("torch")
    theirs = row.build(torch.nn, "mean", *(torch.ones(shape) for shape in row.weights))
    ours = row.build(nn, "mean", *(slalom.ones(shape) for shape in row.weights))
    assert repr(ours) == repr(theirs)
    assert [(name, t.shape) for name, t in ours.state_dict().items()] == [
        (name, tuple(t.shape)) for name, t in theirs.state_dict().items()
    ]

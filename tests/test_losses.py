"""Every row of table_losses.py: reductions, derivatives, staging, extremes, messages, and PyTorch's own results."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest
from derivatives import check_derivatives
from grouped import over
from layer_cases import DIFFERENTIABLE, cotangent, learned, loss_case_id, loss_cases
from loss_rows import LossRow
from parity import REDUCTIONS
from slalom_results import loss_value, made_loss, run_loss
from table_losses import LOSSES

import slalom
from slalom import Tensor, nn
from slalom.errors import IndexRangeError

CASES = list(loss_cases())
BATCHES = [(row, i) for row, i in CASES if row.rows and row.shape(i)]
each_case = over(CASES, lambda row, i: loss_case_id(row, i, ""))
each_row = pytest.mark.parametrize("row", LOSSES, ids=lambda row: row.id)


@each_row
def test_rows_have_six_samples_and_know_their_function(row: LossRow) -> None:
    assert len(row.samples) >= 6 and len({row.id for row in LOSSES}) == len(LOSSES)
    ours = inspect.signature(getattr(nn.functional, row.function)).parameters
    module = inspect.signature(getattr(nn, row.name)).parameters
    given = list(inspect.signature(getattr(nn, row.name).forward).parameters)[1:]
    assert set(module) <= set(ours) and list(ours)[: len(given)] == given
    assert all(len(given) == 2 + len(sample.extra) for sample in row.samples)
    assert all(module[name].default == ours[name].default for name in module)


@each_case
def test_module_is_its_function(row: LossRow, i: int) -> None:
    loss, inputs = made_loss(row, i, "none")
    options = {name: getattr(loss, name) for name in inspect.signature(type(loss)).parameters}
    expected = getattr(nn.functional, row.function)(row.before(inputs[0]), *inputs[1:], **options)
    np.testing.assert_array_equal(loss_value(row, loss, inputs).detach().numpy(), expected.detach().numpy())


@each_case
def test_reductions(row: LossRow, i: int) -> None:
    mean, total, each = (made_loss(row, i, r)[0] for r in REDUCTIONS)
    inputs = made_loss(row, i, "none")[1]
    elements = loss_value(row, each, inputs).detach().numpy()
    assert elements.shape == row.shape(i)
    np.testing.assert_allclose(loss_value(row, total, inputs).item(), elements.sum(), rtol=1e-12)
    weight = getattr(each, "weight", None)
    count = float(elements.size)
    if hasattr(each, "ignore_index") and inputs[1].dtype.kind == "i":
        kept = inputs[1].numpy() != each.ignore_index  # ignored places count nothing, weighted classes their weight
        count = float((kept if weight is None else weight.numpy()[inputs[1].numpy() * kept] * kept).sum())
    expected = elements.sum() / count if count else np.nan
    if row.mean is not None:
        expected = row.mean(elements, *(t.detach().numpy() for t in inputs))
    np.testing.assert_allclose(loss_value(row, mean, inputs).item(), expected, rtol=1e-12)


@each_case
def test_derivatives(row: LossRow, i: int) -> None:
    loss, inputs = made_loss(row, i, "none")
    sample = row.samples[i]
    moved = learned(row, i)
    if not sample.extra and sample.target in DIFFERENTIABLE:
        moved.append(1)

    def function(*values: Tensor) -> Tensor:
        given = list(inputs)
        for n, x in zip(moved, values, strict=True):
            given[n] = x
        return loss_value(row, loss, given)

    check_derivatives(function, [inputs[n].detach().numpy() for n in moved])


@each_case
def test_staged_equals_eager_bit_for_bit(row: LossRow, i: int) -> None:
    """In each reduction, in one program."""
    made = {reduction: made_loss(row, i, reduction, "float32") for reduction in REDUCTIONS}
    expected = {reduction: run_loss(row, i, *each) for reduction, each in made.items()}
    weights = {reduction: Tensor(cotangent(each["out"].shape), dtype="float32") for reduction, each in expected.items()}

    @slalom.compile
    def step(*inputs: Tensor) -> Any:
        found = {}
        for reduction, (loss, _) in made.items():
            given = [t.detach() for t in inputs]
            for n in learned(row, i):
                given[n].requires_grad = True
            out = loss_value(row, loss, given)
            (out * weights[reduction]).sum().backward()
            found[reduction] = out, *(given[n].grad for n in learned(row, i))
        return found

    for _ in range(2):
        for reduction, found in step(*(t.detach() for t in made["none"][1])).items():
            for t, (name, array) in zip(found, expected[reduction].items(), strict=True):
                np.testing.assert_array_equal(t.numpy(), array, err_msg=f"{name}, {reduction}")
    assert step.traces == 1


@over(BATCHES, lambda row, i: loss_case_id(row, i, ""))
def test_samples_can_be_weighted_through_no_reduction(row: LossRow, i: int) -> None:
    """What a training loop with weights for rows does: a row of weight 2 is a row that stands there twice."""
    loss, inputs = made_loss(row, i, "none")
    elements = loss_value(row, loss, inputs)
    rows = len(inputs[0])
    weight = Tensor(np.arange(rows) % 3, dtype="float64").reshape((rows,) + (1,) * (elements.ndim - 1))
    repeated = slalom.tensor(np.repeat(np.arange(rows), np.arange(rows) % 3))
    once = (elements * weight).sum().item()
    shared = [given.shape is not None for given in row.samples[i].extra]  # the same for all rows
    again = [t if fixed else t[repeated] for t, fixed in zip(inputs, [False, False, *shared], strict=True)]
    twice = loss_value(row, loss, again).sum().item() if len(repeated) else 0.0
    np.testing.assert_allclose(once, twice, rtol=1e-12)


EXTREMES = [(row, extreme) for row in LOSSES for extreme in row.extreme]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("row", "extreme"), EXTREMES, ids=[row.id for row, _ in EXTREMES])
def test_extreme_inputs_give_finite_losses_and_gradients(row: LossRow, extreme: Any, dtype: str) -> None:
    weights = [Tensor(np.full(shape, 1.0), dtype=dtype) for shape in row.weights]
    *values, exact = extreme
    inputs = [slalom.tensor(x, dtype=dtype) if n == 0 else slalom.tensor(x) for n, x in enumerate(values)]
    inputs[0].requires_grad_()
    elements = loss_value(row, row.build(nn, "none", *weights), inputs)
    elements.sum().backward()
    assert inputs[0].grad is not None
    assert np.isfinite(elements.detach().numpy()).all() and np.isfinite(inputs[0].grad.numpy()).all()
    if exact is not None:
        np.testing.assert_allclose(elements.detach().numpy(), exact, rtol=1e-6)


@each_row
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_nan_is_never_hidden(row: LossRow, reduction: str) -> None:
    loss, inputs = made_loss(row, 1, reduction)
    with slalom.no_grad():
        inputs[0][(0,) * inputs[0].ndim] = float("nan")
    if hasattr(loss, "ignore_index"):
        inputs[1][0] = 0  # a class that is not ignored
    assert np.isnan(loss_value(row, loss, inputs).detach().numpy()).any()


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


def test_batchmean_divides_by_rows() -> None:
    x, y = slalom.tensor([[0.5, 0.5], [0.9, 0.1]]).log(), slalom.tensor([[0.25, 0.75], [0.9, 0.1]])
    total = nn.KLDivLoss(reduction="sum")(x, y).item()
    assert nn.KLDivLoss(reduction="batchmean")(x, y).item() == pytest.approx(total / 2) != 0
    with pytest.raises(slalom.errors.ConfigError, match="reduction: got 'rowmean'"):
        nn.KLDivLoss(reduction="rowmean")(x, y)


def test_a_variance_at_its_floor_can_grow_again() -> None:
    variance = slalom.tensor([1e-9, 2.0], requires_grad=True)
    nn.GaussianNLLLoss(eps=1e-2, reduction="sum")(slalom.tensor([1.0, 0.0]), slalom.zeros(2), variance).backward()
    np.testing.assert_allclose(variance.grad.numpy(), [0.5 * (1e2 - 1e4), 0.25], rtol=1e-5)


def test_variances_that_stretch() -> None:
    x, y = slalom.tensor([[1.0, 2.0], [3.0, 4.0]]), slalom.zeros(2, 2)
    whole = nn.GaussianNLLLoss()(x, y, slalom.tensor([[2.0, 2.0], [3.0, 3.0]])).item()
    for variance in (slalom.tensor([2.0, 3.0]), slalom.tensor([[2.0], [3.0]])):
        assert nn.GaussianNLLLoss()(x, y, variance).item() == pytest.approx(whole)
    same = nn.functional.gaussian_nll_loss(x, y, 2.0).item()
    assert same == pytest.approx(nn.GaussianNLLLoss()(x, y, slalom.full((2, 2), 2.0)).item())


@pytest.mark.parametrize("name", ["MultiMarginLoss", "MultiLabelMarginLoss"])
def test_no_rows_have_a_sum_and_no_mean(name: str) -> None:
    target = slalom.zeros(0, dtype="int64") if name == "MultiMarginLoss" else slalom.zeros(0, 3, dtype="int64")
    assert getattr(nn, name)(reduction="sum")(slalom.zeros(0, 3), target).item() == 0
    assert np.isnan(getattr(nn, name)()(slalom.zeros(0, 3), target).item())


def test_ctc_of_what_does_not_fit_is_infinite_or_zero() -> None:
    x = slalom.randn(2, 2, 3, requires_grad=True)
    given = (slalom.tensor([[1, 1], [1, 2]]), slalom.tensor([2, 2]), slalom.tensor([2, 2]))
    infinite = nn.CTCLoss(reduction="none")(x.log_softmax(-1), *given)
    assert np.isinf(infinite[0].item()) and np.isfinite(infinite[1].item())  # equal labels need a blank between them
    zero = nn.CTCLoss(reduction="none", zero_infinity=True)(x.log_softmax(-1), *given)
    assert zero[0].item() == 0 and zero[1].item() == infinite[1].item()
    zero.sum().backward()
    assert np.isfinite(x.grad.numpy()).all() and not x.grad[:, 0].numpy().any() and x.grad[:, 1].numpy().any()


def test_ctc_is_the_sum_over_all_layouts() -> None:
    p = slalom.randn(4, 3, dtype="float64").softmax(-1)
    array, total = p.numpy(), 0.0
    for path in np.ndindex(3, 3, 3, 3):
        merged = [k for i, k in enumerate(path) if not i or k != path[i - 1]]
        if [k for k in merged if k] == [1, 2]:
            total += np.prod(array[range(4), path])
    loss = nn.CTCLoss(reduction="sum")(p.log(), [1, 2], slalom.tensor(4), slalom.tensor(2))
    assert loss.item() == pytest.approx(-np.log(total), rel=1e-12)


def test_ordinal_thresholds_are_learned() -> None:
    """Scores fixed at the class: thresholds move between the classes."""
    y = slalom.tensor([0, 0, 1, 1, 2, 2])
    x, thresholds = y.double() * 3, nn.Parameter(slalom.tensor([0.0, 0.1], dtype="float64"))
    before = nn.OrdinalLoss()(x, y, thresholds).item()
    for _ in range(200):
        thresholds.grad = None
        nn.OrdinalLoss()(x, y, thresholds).backward()
        with slalom.no_grad():
            thresholds -= 0.5 * thresholds.grad
    assert nn.OrdinalLoss()(x, y, thresholds).item() < before / 4
    np.testing.assert_allclose(thresholds.detach().numpy(), [1.5, 4.5], atol=0.2)


# --- PyTorch ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("row", [row for row in LOSSES if row.reference is None], ids=lambda row: row.id)
def test_torch_state(row: LossRow) -> None:
    torch = pytest.importorskip("torch")
    theirs = row.build(torch.nn, "mean", *(torch.ones(shape) for shape in row.weights))
    ours = row.build(nn, "mean", *(slalom.ones(shape) for shape in row.weights))
    assert not row.text or repr(ours) == repr(theirs)
    assert [(name, t.shape) for name, t in ours.state_dict().items()] == [
        (name, tuple(t.shape)) for name, t in theirs.state_dict().items()
    ]


# --- the adaptive softmax ---------------------------------------------------------------------------------------------
def test_the_adaptive_softmax_is_a_distribution_over_all_classes() -> None:
    slalom.manual_seed(0)
    layer = nn.AdaptiveLogSoftmaxWithLoss(6, 13, [2, 5, 6]).double()
    x = Tensor(np.random.default_rng(0).normal(size=(13, 6)))
    every = layer.log_prob(x).detach()
    np.testing.assert_allclose(every.exp().sum(1).numpy(), 1, rtol=1e-12)
    found = layer(x, Tensor(np.arange(13)))
    np.testing.assert_allclose(found.output.detach().numpy(), np.diag(every.numpy()), rtol=1e-12)
    assert found.loss.item() == pytest.approx(-np.diag(every.numpy()).mean(), rel=1e-12)
    np.testing.assert_array_equal(layer.predict(x).numpy(), every.numpy().argmax(1))
    one = layer(x[3], Tensor(9))
    assert one.output.shape == () and one.output.item() == pytest.approx(every[3, 9].item(), rel=1e-12)


@pytest.mark.parametrize("target", [13, -1])
def test_the_adaptive_softmax_refuses_what_is_no_class_inside_a_compiled_step_too(target: int) -> None:
    layer = nn.AdaptiveLogSoftmaxWithLoss(6, 13, [2, 5, 6])
    step = slalom.compile(lambda x, y: layer(x, y).loss)
    assert math.isfinite(step(slalom.ones(1, 6), Tensor([12])).item())
    with pytest.raises(IndexRangeError):
        step(slalom.ones(1, 6), Tensor([target]))

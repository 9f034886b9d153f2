"""Every row of table_layers.py: shapes, derivatives, staging, state, messages, and PyTorch's own results."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from derivatives import check_derivatives
from grouped import over
from layer_cases import case_id, cotangent, layer_cases, sample_input, state_values
from slalom_results import as_input, made_layer, run_layer
from table_layers import FUNCTIONS, LAYERS, TABLE, Row, Sample
from table_losses import LOSSES

import slalom
from slalom import Tensor, nn

CASES = list(layer_cases())
SMOOTH = [case for case in CASES if case[0].smooth and case[1].how in ("plain", "strided", "index")]


# --- the tables themselves ------------------------------------------------------------------------------------------
def test_every_public_name_has_a_row_and_every_row_a_name() -> None:
    public = {name: getattr(nn, name) for name in nn.__all__}
    modules = {name for name, value in public.items() if inspect.isclass(value) and issubclass(value, nn.Module)}
    assert modules - {"Module"} == {row.name for row in (*LAYERS, *LOSSES)}
    assert set(nn.functional.__all__) == {row.name for row in FUNCTIONS} | {row.function for row in LOSSES}


@pytest.mark.parametrize("name", sorted({row.name for row in LAYERS}))
def test_a_layer_that_does_not_take_every_shape_has_error_rows(name: str) -> None:
    """And says so in one line that names the module, for each rank."""
    rows = [row for row in LAYERS if row.name == name]
    refused = []
    for rank in range(2, 7):
        try:
            made_layer(rows[0])(slalom.ones((2, 1, 3, 5, 7, 2)[:rank], dtype="float64"))
        except slalom.errors.SlalomError as error:
            refused.append(str(error))
    assert all("\n" not in message and (name in message or "model." in message) for message in refused)
    assert not refused or any(row.errors for row in rows)


def test_rows_have_six_samples_and_names_of_their_own() -> None:
    assert [row.id for row in TABLE if len(row.samples) < 6] == []
    assert len({row.id for row in TABLE}) == len(TABLE)


def test_samples_are_one_row_too_odd_sizes_and_memory_out_of_order() -> None:
    given: dict[str, list[Any]] = {}
    for row in (*LAYERS, *LOSSES):
        given.setdefault(row.name, []).extend(row.samples)
    hows = {name: {sample.how for sample in samples} for name, samples in given.items()}
    assert [name for name, samples in given.items() if not any(1 in s.shape[:2] for s in samples)] == []
    assert [name for name, samples in given.items() if not any(n % 2 and n > 1 for s in samples for n in s.shape)] == []
    assert [name for name, how in hows.items() if not how >= {"transposed", "strided"} and how != {"index"}] == []


# --- what a layer computes ------------------------------------------------------------------------------------------
@over(SMOOTH, case_id)
def test_derivatives(row: Row, sample: Sample, mode: str) -> None:
    layer = made_layer(row, mode)
    places = [
        (module._parameters, name)
        for module in (layer.modules() if isinstance(layer, nn.Module) else ())
        for name, p in module._parameters.items()
        if p is not None
    ]
    x = as_input(row, sample)
    fixed = [] if x.dtype.kind == "f" else [x]

    def function(*values: Tensor) -> Tensor:
        rest = [*fixed, *values]
        for (table, name), value in zip(places, rest[1:], strict=True):
            table[name] = value
        slalom.manual_seed(0)
        return layer(rest[0])

    primals = [] if fixed else [x.numpy()]
    primals += [table[name].detach().numpy() for table, name in places]
    if row.id == "Embedding-padding":
        # The row that is held still: the function depends on it, its derivative does not (tested on its own below).
        primals[0] = np.where(np.arange(6)[:, None] == 2, 0.0, primals[0])
        function = _without_padding(function)
    if primals and row.name != "one_hot":
        check_derivatives(function, primals)


def _without_padding(function: Any) -> Any:
    held = Tensor(np.arange(6)[:, None] != 2)
    return lambda weight: function(weight.where(held, 0.0))


def by_shape() -> Iterator[tuple[Row, str, list[Sample]]]:
    """Samples of one shape in one mode: the same program, called with numbers that lie otherwise in memory."""
    for row in TABLE:
        for mode in ("train", "eval"):
            samples = [sample for sample in row.samples if mode in sample.modes]
            for shape in dict.fromkeys(sample.shape for sample in samples):
                yield row, mode, [sample for sample in samples if sample.shape == shape]


@over(by_shape(), lambda row, mode, samples: case_id(row, samples[0], mode))
def test_staged_equals_eager_bit_for_bit(row: Row, mode: str, samples: list[Sample]) -> None:
    """And both have the shape and dtype that the row says. Recorded once, and native code as good as NumPy's."""
    eager, staged = made_layer(row, mode, "float32"), made_layer(row, mode, "float32")
    weights = Tensor(cotangent(row.out(samples[0].shape)), dtype="float32")
    learned = list(staged.parameters()) if isinstance(staged, nn.Module) else []

    def reset(layer: Any) -> None:
        slalom.manual_seed(0)
        if isinstance(layer, nn.Module):
            layer.load_state_dict(state_values(row))
            layer.zero_grad()

    @slalom.compile
    def step(x: Tensor) -> Any:
        if x.dtype.kind == "f":
            x.requires_grad = True
        out = staged(x)
        if out.requires_grad:
            (out * weights).sum().backward()
        return out, x.grad

    for repeat, sample in enumerate([samples[0], *samples]):
        reset(eager)
        x = as_input(row, sample, "float32")
        expected = run_layer(eager, x)
        assert expected["out"].shape == row.out(sample.shape)
        assert expected["out"].dtype == (np.int64 if row.name == "one_hot" else np.float32)
        reset(staged)
        for p in learned:
            p.grad = None
        out, x_grad = step(x)
        found = {"out": out, "input.grad": x_grad}
        if isinstance(staged, nn.Module):
            found |= {f"{name}.grad": p.grad for name, p in staged.named_parameters()} | dict(staged.named_buffers())
        arrays = {name: t.detach().numpy() for name, t in found.items() if t is not None}
        assert arrays.keys() == expected.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, expected[name], err_msg=f"{name}, call {repeat}, {sample.how}")
    assert step.traces == 1


@pytest.mark.parametrize("row", [row for row in TABLE if row.samples[1].how == "plain"], ids=lambda row: row.id)
def test_whole_numbers_are_taken_as_floats_or_refused_eager_and_staged(row: Row) -> None:
    """Of int64, one of float32's numbers comes out, or whole numbers; or a message, which no NumPy error stands in."""
    values = (sample_input(row.id, row.samples[1]) * 2).round()
    x, layer = slalom.from_numpy(values.astype(np.int64)), made_layer(row, "eval", "float32")
    found = []

    @slalom.compile
    def staged_layer(x: Tensor) -> Tensor:
        return layer(x)

    for call in (layer, staged_layer, lambda x: layer(x.float())):
        slalom.manual_seed(0)
        try:
            found.append(call(x).detach().numpy())
        except slalom.errors.SlalomError:
            found.append(None)
    eager, staged, floats = found
    assert (eager is None) == (staged is None) and floats is not None
    if eager is not None:
        np.testing.assert_array_equal(eager, staged)
        assert eager.dtype == staged.dtype and eager.dtype in (np.float32, np.int64)
        np.testing.assert_allclose(eager, floats, rtol=1e-6, atol=1e-7)


PLAIN = [case for case in CASES if case[0] in LAYERS and case[1].how == "plain" and 0 not in case[1].shape]


@over([case for case in PLAIN if "Dropout" not in case[0].id], case_id)
def test_nan_is_never_hidden(row: Row, sample: Sample, mode: str) -> None:
    array = sample_input(row.id, sample)
    array.flat[0] = np.nan
    assert np.isnan(made_layer(row, mode)(Tensor(array)).detach().numpy()).any()


# --- state, modes, messages -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("row", LAYERS, ids=lambda row: row.id)
def test_state_dict_round_trip(row: Row) -> None:
    layer, other = made_layer(row), row.build(nn).double()
    assert {name: t.shape for name, t in layer.state_dict().items()} == row.state
    assert list(other.load_state_dict(layer.state_dict())) == [[], []]
    for sample in row.samples:
        if "eval" not in sample.modes and sample.shape and sample.how == "plain":
            x = as_input(row, sample)
            np.testing.assert_array_equal(layer(x).detach().numpy(), other(x).detach().numpy())
    for name, t in other.state_dict().items():
        np.testing.assert_array_equal(t.numpy(), layer.state_dict()[name].numpy())


@pytest.mark.parametrize("row", LAYERS, ids=lambda row: row.id)
def test_train_and_eval(row: Row) -> None:
    layer = made_layer(row)
    assert layer.training and not layer.eval().training and not any(m.training for m in layer.modules())
    before = {name: t.numpy().copy() for name, t in layer.state_dict().items()}
    for sample in row.samples:
        first, second = (layer(as_input(row, sample)).detach().numpy() for _ in range(2))
        np.testing.assert_array_equal(first, second)  # nothing is drawn
    for name, t in layer.state_dict().items():  # and nothing is written, but where rows are kept short
        assert getattr(layer, "max_norm", None) is not None or np.array_equal(t.numpy(), before[name]), name
    assert layer.train() is layer and all(m.training for m in layer.modules())


@pytest.mark.parametrize("row", LAYERS, ids=lambda row: row.id)
def test_copies_are_independent(row: Row) -> None:
    layer = made_layer(row)
    copied = copy.deepcopy(layer)
    assert type(copied) is type(layer) and repr(copied) == repr(layer)
    for (name, p), (_, q) in zip(layer.named_parameters(), copied.named_parameters(), strict=True):
        assert p is not q and q.requires_grad == p.requires_grad, name
        with slalom.no_grad():
            q.zero_()
        assert p.detach().numpy().any()


ERRORS = [(row, *error) for row in TABLE for error in row.errors]
BAD = [(row, *bad) for row in TABLE for bad in row.bad]


@pytest.mark.parametrize(("row", "sample", "message"), ERRORS, ids=[f"{e[0].id}:{e[1].shape}" for e in ERRORS])
def test_error_text(row: Row, sample: Sample, message: str) -> None:
    layer = made_layer(row)
    before = {name: t.numpy().copy() for name, t in layer.state_dict().items()} if row.state else {}
    with pytest.raises(slalom.errors.SlalomError, match=message) as caught:
        layer(as_input(row, sample))
    assert "\n" not in str(caught.value)
    for name, array in before.items():
        np.testing.assert_array_equal(layer.state_dict()[name].numpy(), array, err_msg=f"{name} was written")


@pytest.mark.parametrize(("row", "construct", "message"), BAD, ids=[f"{b[0].id}:{i}" for i, b in enumerate(BAD)])
def test_bad_arguments(row: Row, construct: Any, message: str) -> None:
    with pytest.raises(slalom.errors.SlalomError, match=message):
        construct(nn)


# --- PyTorch ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("row", [row for row in LAYERS if row.reference is None], ids=lambda row: row.id)
def test_torch_text_and_state(row: Row) -> None:
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings(action="ignore"):  # of PyTorch, on how it will compute
        theirs, ours = row.build(torch.nn), row.build(nn)
    if not isinstance(ours, (nn.ParameterList, nn.ParameterDict)):
        assert repr(ours) == repr(theirs).replace("NonDynamicallyQuantizableLinear", "Linear")
    assert [(name, t.shape) for name, t in ours.state_dict().items()] == [
        (name, tuple(t.shape)) for name, t in theirs.state_dict().items()
    ]


# --- what only some layers have ---------------------------------------------------------------------------------------
def test_dropout_keeps_its_share_and_scale() -> None:
    slalom.manual_seed(3)
    x = slalom.full((200, 500), 2.0)
    out = nn.Dropout(0.3)(x).numpy()
    assert set(np.unique(out)) == {np.float32(0), np.float32(2 / 0.7)}
    assert abs((out == 0).mean() - 0.3) < 0.01  # five standard deviations of the mean are 0.007


def test_dropout_draws_anew_at_each_compiled_call_as_it_does_eagerly() -> None:
    layer, x = nn.Dropout(0.5), slalom.ones(64)
    compiled = slalom.compile(layer.__call__)
    slalom.manual_seed(1)
    eager = [layer(x).numpy() for _ in range(4)]
    slalom.manual_seed(1)
    staged = [compiled(x).numpy() for _ in range(4)]
    np.testing.assert_array_equal(eager, staged)
    assert len({a.tobytes() for a in staged}) == 4 and compiled.traces == 1


def test_dropout_never_makes_nan_of_infinity() -> None:
    x = slalom.full((100,), float("inf"), requires_grad=True)
    for p in (0.5, 1.0):
        out = nn.functional.dropout(x, p)
        assert not slalom.isnan(out).any()


def test_dropout_backward_is_scaled_too() -> None:
    x = slalom.ones(1000, requires_grad=True)
    out = nn.Dropout(0.25)(x)
    out.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), out.detach().numpy())


def test_embedding_padding_row_starts_at_zero_and_stays() -> None:
    layer = nn.Embedding(4, 3, padding_idx=1)
    assert not layer.weight[1].detach().numpy().any()
    layer(slalom.tensor([1, 1, 2])).sum().backward()
    np.testing.assert_array_equal(layer.weight.grad.numpy()[:, 0], [0, 0, 1, 0])


def test_embedding_from_pretrained_shares_and_freezes() -> None:
    table = slalom.randn(5, 2)
    layer = nn.Embedding.from_pretrained(table)
    assert not layer.weight.requires_grad
    np.testing.assert_array_equal(layer(slalom.tensor([3])).numpy()[0], table.numpy()[3])
    assert nn.Embedding.from_pretrained(table, freeze=False).weight.requires_grad
    with pytest.raises(slalom.errors.ShapeError, match="two axes"):
        nn.Embedding.from_pretrained(slalom.ones(3))


@pytest.mark.parametrize("make", [lambda: nn.ReLU(True), lambda: nn.LeakyReLU(0.1, True), lambda: nn.SiLU(True)])
def test_inplace_writes_over_the_input(make: Any) -> None:
    x = slalom.tensor([-1.0, 2.0])
    expected = type(make())()(x)
    y = x.clone()
    assert make()(y) is y
    if isinstance(make(), nn.LeakyReLU):
        expected = nn.LeakyReLU(0.1)(x)
    np.testing.assert_array_equal(y.numpy(), expected.numpy())
    assert "inplace=True" in repr(make())


def test_softmax_without_dim_chooses_as_pytorch_did_and_warns() -> None:
    for shape, dim in (((3,), 0), ((2, 3), 1), ((2, 3, 2), 0), ((2, 3, 2, 2), 1)):
        x = slalom.randn(shape)
        with pytest.warns(UserWarning, match=f"dim not given, taken to be {dim}"):
            implied = nn.Softmax()(x)
        np.testing.assert_array_equal(implied.numpy(), x.softmax(dim).numpy())


def test_softmax_of_huge_and_infinite_values() -> None:
    x = slalom.tensor([[1e30, 1e30, -1e30], [-float("inf"), 0.0, 0.0]])
    np.testing.assert_array_equal(x.softmax(1).numpy(), [[0.5, 0.5, 0], [0, 0.5, 0.5]])
    assert x.log_softmax(1).numpy()[1, 0] == -np.inf


def test_batch_norm_needs_running_statistics_at_evaluation() -> None:
    with pytest.raises(slalom.errors.ShapeError, match="both unless training"):
        nn.functional.batch_norm(slalom.ones(2, 3), None, None)
    with pytest.raises(slalom.errors.ShapeError, match=r"3 channels, weight has shape \(2,\)"):
        nn.functional.batch_norm(slalom.ones(2, 3), None, None, slalom.ones(2), training=True)


def test_batch_norm_resets() -> None:
    layer = nn.BatchNorm1d(3)
    fresh = {name: t.numpy().copy() for name, t in layer.state_dict().items()}
    with slalom.no_grad():
        layer.weight.fill_(2.0)
        layer(slalom.randn(8, 3))
    assert layer.num_batches_tracked.item() == 1
    layer.reset_parameters()
    for name, t in layer.state_dict().items():
        np.testing.assert_array_equal(t.numpy(), fresh[name])

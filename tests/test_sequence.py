"""Sequences: what recurrent layers, attention and bags do beyond what the rows of their tables say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import slalom
from slalom import Tensor, nn
from slalom.errors import DTypeError, IndexRangeError, ShapeError

KINDS = [nn.RNN, nn.GRU, nn.LSTM]
every_kind = pytest.mark.parametrize("kind", KINDS)


def values(result: Any) -> list[Any]:
    """All arrays of a nested result."""
    if isinstance(result, tuple):
        return [array for part in result for array in values(part)]
    return [result.detach().numpy()]


def equal(a: Any, b: Any) -> None:
    for x, y in zip(values(a), values(b), strict=True):
        np.testing.assert_array_equal(x, y)


def close(a: Any, b: Any, tolerance: float = 1e-5) -> None:
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


# --- recurrent layers -----------------------------------------------------------------------------------------------
@every_kind
def test_each_step_is_one_product_and_all_inputs_are_one(kind: Any) -> None:
    layer = kind(3, 4)
    compiled = slalom.compile(layer.forward)
    compiled(slalom.randn(7, 2, 3))
    assert sum(eq.prim.name == "matmul" for eq in compiled.graph.equations) == 1 + 7


@every_kind
def test_a_layer_is_its_cell_repeated(kind: Any) -> None:
    layer = kind(3, 4)
    cell = getattr(nn, f"{kind.__name__}Cell")(3, 4)
    cell.load_state_dict({name.removesuffix("_l0"): t for name, t in layer.state_dict().items()})
    x = slalom.randn(5, 2, 3)
    out, last = layer(x)
    state = None
    for t in range(5):
        state = cell(x[t], state)
        close(values(state)[:1], [out[t].detach().numpy()], 1e-6)
    close(values(last), [array[None] for array in values(state)], 1e-6)


@every_kind
def test_padding_has_no_influence_and_no_gradient_whatever_it_holds(kind: Any) -> None:
    layer, x = kind(3, 2, 2, bidirectional=True), slalom.randn(4, 3, 3)
    lengths = [4, 0, 2]
    clean = layer(x, lengths=lengths)
    dirty = x.clone()
    dirty[2:, 2] = float("nan")
    dirty[:, 1] = float("inf")
    dirty.requires_grad = True
    found = layer(dirty, lengths=Tensor(lengths))
    equal(found, clean)
    found[0].sum().backward()
    assert not dirty.grad[:, 1].numpy().any() and not dirty.grad[2:, 2].numpy().any()
    assert all(np.isfinite(p.grad.numpy()).all() for p in layer.parameters())
    assert not clean[0][2:, 2].detach().numpy().any() and not clean[0][:, 1].detach().numpy().any()


@every_kind
def test_a_sequence_cut_to_its_length_is_the_same_alone(kind: Any) -> None:
    layer, x = kind(3, 2, bidirectional=True, batch_first=True), slalom.randn(3, 5, 3)
    out, states = layer(x, lengths=[5, 1, 3])
    for b, length in enumerate((5, 1, 3)):
        alone, own = layer(x[b : b + 1, :length])
        close(values(alone), [out[b : b + 1, :length].detach().numpy()], 1e-6)
        close(values(own), [array[:, b : b + 1] for array in values(states)], 1e-6)
    single, _ = layer(x[0], lengths=2)
    close(values(single), [layer(x[:1], lengths=[2])[0][0].detach().numpy()], 1e-6)


@every_kind
def test_a_sequence_of_length_0_keeps_its_state(kind: Any) -> None:
    layer, x, h = kind(3, 2), slalom.randn(2, 2, 3), slalom.randn(1, 2, 2)
    _, last = layer(x, (h, h + 1) if kind is nn.LSTM else h, lengths=[0, 0])
    equal(last, (h, h + 1) if kind is nn.LSTM else h)


def test_lengths_change_from_call_to_call_without_a_new_record() -> None:
    layer, x = nn.GRU(3, 2, bidirectional=True), slalom.randn(4, 2, 3)
    compiled = slalom.compile(lambda x, lengths: layer(x, lengths=lengths))
    for lengths in ([4, 1], [2, 3], [0, 4]):
        equal(compiled(x, Tensor(lengths)), layer(x, lengths=lengths))
    assert compiled.traces == 1


BAD_CALLS = [
    (lambda: nn.GRU(3, 2)(slalom.ones(4, 2, 3), lengths=[5, 1]), IndexRangeError, r"GRU 3→2: lengths: got 1 to 5; nee"),
    (
        lambda: nn.GRU(3, 2)(slalom.ones(4, 2, 3), lengths=[-1, 1]),
        IndexRangeError,
        r"needed 0 to 4, the number of time",
    ),
    (lambda: nn.GRU(3, 2)(slalom.ones(4, 2, 3), lengths=[1]), ShapeError, r"lengths: got shape \(1,\); needed \(2,\)"),
    (lambda: nn.GRU(3, 2)(slalom.ones(4, 2, 3), lengths=[1.0, 2.0]), DTypeError, r"lengths: got float32; needed integ"),
    (lambda: nn.GRU(3, 2)(slalom.ones(4, 2, 3), slalom.ones(1, 3, 2)), ShapeError, r"hx: h: got shape \(1, 3, 2\); n"),
    (lambda: nn.LSTM(3, 2)(slalom.ones(4, 2, 3), slalom.ones(1, 2, 2)), DTypeError, r"hx: got Tensor; needed a pair"),
    (lambda: nn.LSTMCell(3, 2)(slalom.ones(2, 3), (slalom.ones(2, 2),)), DTypeError, r"hx: got tuple; needed a pair"),
]


@pytest.mark.parametrize(("call", "kind", "message"), BAD_CALLS)
def test_bad_states_and_lengths(call: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_dropout_in_a_single_layer_does_nothing_and_says_so() -> None:
    with pytest.warns(UserWarning, match=r"RNN: dropout 0.5 stands between layers, and there is one"):
        layer = nn.RNN(3, 2, dropout=0.5)
    x = slalom.randn(2, 1, 3)
    equal(layer(x), layer(x))


def test_initial_values_follow_from_the_size_of_the_state() -> None:
    layer = nn.LSTM(50, 25)
    drawn = np.concatenate([p.detach().numpy().ravel() for p in layer.parameters()])
    assert np.abs(drawn).max() <= 0.2 and np.abs(drawn).max() > 0.19 and abs(drawn.mean()) < 0.01
    assert len(layer.all_weights) == 1 and len(layer.all_weights[0]) == 4
    layer.flatten_parameters()


# --- attention ------------------------------------------------------------------------------------------------------
def test_a_query_that_may_look_at_nothing_gets_zeros_and_no_nan() -> None:
    layer, x = nn.MultiheadAttention(4, 2, bias=False), slalom.randn(3, 2, 4)
    x.requires_grad = True
    padding = Tensor([[True, True, True], [False, False, True]])
    for mask in (padding, Tensor(np.where(padding.numpy(), -np.inf, 0.0), dtype="float32")):
        out, shares = layer(x, x, x, key_padding_mask=mask)
        assert not out[:, 0].detach().numpy().any() and not shares[0].detach().numpy().any()
        np.testing.assert_allclose(shares[1].sum(-1).detach().numpy(), 1, rtol=1e-6)
        x.grad = None
        out.sum().backward()
        assert np.isfinite(x.grad.numpy()).all() and not x.grad[:, 0].numpy().any()


def test_masked_scores_may_be_anything() -> None:
    q, k = slalom.ones(1, 2), Tensor([[1.0, 2.0], [np.inf, 0.0], [1e30, 1e30]])
    allowed = Tensor([[True, False, False]])
    k.requires_grad = True
    out = nn.functional.scaled_dot_product_attention(q, k, slalom.ones(3, 2), allowed)
    assert out.tolist() == [[1, 1]]


def test_causal_attention_needs_no_mask_beside_it() -> None:
    layer, x = nn.MultiheadAttention(4, 2), slalom.randn(3, 2, 4)
    mask = nn.Transformer.generate_square_subsequent_mask(3)
    assert mask.tolist() == [[0, -np.inf, -np.inf], [0, 0, -np.inf], [0, 0, 0]]
    expected = layer(x, x, x, attn_mask=mask)
    equal(layer(x, x, x, is_causal=True), expected)
    equal(layer(x, x, x, attn_mask=mask == -np.inf), expected)
    out, shares = layer(x, x, x, is_causal=True, need_weights=False)
    assert shares is None
    equal(out, expected[0])


def test_self_attention_multiplies_its_input_once() -> None:
    layer = nn.MultiheadAttention(4, 2)
    for call, products in ((lambda x: layer(x, x, x)[0], 4), (lambda x: layer(x, x * 2, x)[0], 6)):
        compiled = slalom.compile(call)
        compiled(slalom.randn(3, 2, 4))
        assert sum(eq.prim.name == "matmul" for eq in compiled.graph.equations) == products


def test_what_comes_later_has_no_influence_on_a_causal_encoder() -> None:
    layer = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True), 2)
    x = slalom.randn(1, 5, 4)
    y = x.clone()
    y[:, 3:] = 9.0
    close(values(layer(x, is_causal=True)[:, :3]), values(layer(y, is_causal=True)[:, :3]), 1e-6)
    assert np.abs((layer(x) - layer(y)).detach().numpy()[:, :3]).max() > 1e-3


def test_copies_of_a_layer_begin_equal_and_learn_apart() -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, 0.0), 2)
    first, second = (list(layer.parameters()) for layer in model.layers)
    assert all(a is not b and np.array_equal(a.tolist(), b.tolist()) for a, b in zip(first, second, strict=True))
    assert model.encoder_layer is model.layers[0]


def test_activations_are_a_name_or_a_module() -> None:
    for given in ("gelu", nn.functional.gelu):
        assert nn.TransformerDecoderLayer(4, 2, 8, activation=given).activation == "gelu"
    act = nn.PReLU()
    layer = nn.TransformerEncoderLayer(4, 2, 8, nn.Dropout(0.3), act)
    assert layer.activation is act and "activation.weight" in layer.state_dict() and layer.dropout1.p == 0.3
    both = nn.Transformer(4, 2, 1, 1, 8, activation="gelu")
    assert both.activation == "gelu" and both.custom_encoder is None and both.custom_decoder is None
    own = nn.Transformer(4, custom_encoder=nn.Identity(), custom_decoder=nn.Identity())
    assert own.activation == "relu" and own.custom_encoder is own.encoder and own.custom_decoder is own.decoder


# --- bags -----------------------------------------------------------------------------------------------------------
def test_gradients_by_frequency() -> None:
    table = slalom.ones(4, 2, requires_grad=True)
    for call in (
        lambda: nn.functional.embedding(Tensor([0, 0, 2, 0]), table, scale_grad_by_freq=True),
        lambda: nn.functional.embedding_bag(
            Tensor([0, 0, 2, 0]), table, Tensor([0, 2]), scale_grad_by_freq=True, mode="sum"
        ),
    ):
        table.grad = None
        call().sum().backward()
        np.testing.assert_allclose(table.grad.numpy()[:, 0], [1, 0, 1, 0], rtol=1e-6)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_without_any_index_are_zero(mode: str) -> None:
    layer = nn.EmbeddingBag(3, 2, mode=mode)
    nothing = slalom.zeros(0, dtype="int64")
    assert layer(nothing, Tensor([0, 0])).tolist() == [[0, 0], [0, 0]]
    assert layer(nothing.reshape(2, 0)).tolist() == [[0, 0], [0, 0]]
    assert nn.EmbeddingBag(3, 2, mode=mode, padding_idx=1)(Tensor([[1, 1]])).tolist() == [[0, 0]]


@pytest.mark.parametrize("sizes", [(1, 7, 0, 2, 16), (0, 0, 5), (33,)])
def test_the_largest_of_bags_of_any_size(sizes: tuple[int, ...]) -> None:
    layer, rng = nn.EmbeddingBag(9, 3, mode="max"), np.random.default_rng(0)
    index, table = rng.integers(0, 9, sum(sizes)), layer.weight.detach().numpy()
    offsets = np.cumsum([0, *sizes[:-1]])
    out = layer(Tensor(index), Tensor(offsets)).detach().numpy()
    for row, start, n in zip(out, offsets, sizes, strict=True):
        np.testing.assert_array_equal(row, table[index[start : start + n]].max(0) if n else 0)


def test_rows_kept_short_are_written_at_each_compiled_call() -> None:
    layer = nn.Embedding(4, 2, max_norm=1.0)
    with slalom.no_grad():
        layer.weight.assign([[3.0, 4.0], [0.3, 0.4], [6.0, 8.0], [0.0, 0.0]])
    compiled = slalom.compile(layer.forward)
    compiled(Tensor([0, 1, 3]))
    np.testing.assert_allclose(layer.weight.tolist(), [[0.6, 0.8], [0.3, 0.4], [6, 8], [0, 0]], rtol=1e-6)
    compiled(Tensor([2, 2, 2]))
    np.testing.assert_allclose(layer.weight[2].tolist(), [0.6, 0.8], rtol=1e-6)
    assert compiled.traces == 1
    with pytest.raises(IndexRangeError):
        nn.Embedding(4, 2, max_norm=1e-3)(Tensor([9]))


def test_a_given_table_keeps_its_options() -> None:
    table = slalom.randn(5, 2)
    layer = nn.EmbeddingBag.from_pretrained(table, mode="sum", padding_idx=1)
    assert not layer.weight.requires_grad and layer.mode == "sum" and layer.padding_idx == 1
    assert nn.Embedding.from_pretrained(table, True, 1).padding_idx == 1


# --- weights of PyTorch -----------------------------------------------------------------------------------------------
FOLDER = Path(__file__).parent / "golden"


def tagger(nn: Any) -> Any:
    """An LSTM, attention over its results, a norm over their mean, and a linear layer; PyTorch's or Slalom's."""

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(5, 4, 2, batch_first=True, bidirectional=True)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.norm = nn.BatchNorm1d(8)
            self.head = nn.Linear(8, 3)

        def forward(self, x: Any) -> Any:
            x, _ = self.lstm(x)
            x, _ = self.attention(x, x, x)
            return self.head(self.norm(x.mean(1)))

    return Tagger().eval()


def test_weights_of_pytorch_give_its_results() -> None:
    """The file was written by PyTorch (tools/golden_weights.py): a state dict, and what its model made of an input."""
    held = load_file(FOLDER / "tagger.safetensors")
    x, expected = held.pop("x"), held.pop("out")
    model = tagger(nn)
    assert list(model.load_state_dict(held)) == [[], []]
    np.testing.assert_allclose(model(Tensor(x)).detach().numpy(), expected, rtol=1e-5, atol=1e-5)


def test_weights_go_to_pytorch_and_come_back(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    slalom.manual_seed(5)
    ours, theirs = tagger(nn), tagger(torch.nn)
    ours.norm.running_mean.assign(slalom.randn(8))
    x = slalom.randn(2, 4, 5)
    save_file({name: t.numpy() for name, t in ours.state_dict().items()}, tmp_path / "ours.safetensors")
    given = {name: torch.from_numpy(array) for name, array in load_file(tmp_path / "ours.safetensors").items()}
    assert list(theirs.load_state_dict(given)) == [[], []]
    assert list(theirs.state_dict()) == list(ours.state_dict())
    expected = theirs(torch.from_numpy(x.numpy())).detach().numpy()
    np.testing.assert_allclose(ours(x).detach().numpy(), expected, rtol=1e-5, atol=1e-5)
    other = tagger(nn)
    other.load_state_dict({name: t.numpy() for name, t in theirs.state_dict().items()})
    equal(other(x), ours(x))

"""Rows for attention, transformers, positions and bags of embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import twins
from layer_rows import BOTH, INDICES, ONE, Row, Sample, Shape, joined, library, lines, through

SEQUENCES = (*lines((2, 0, 4), (3, 2, 4), (1, 1, 4), (3, 4)), Sample((2, 3, 4), "large", ONE))
BATCHES_FIRST = lines((2, 2, 4), (2, 3, 4), (1, 1, 4), (2, 1, 4))
LONG = lines((2, 1, 4), (3, 2, 4), (2, 2, 4), (4, 1, 4))


def attention_state(width: int, bias: bool = True, kv: bool = False) -> dict[str, Shape]:
    state: dict[str, Shape] = {"in_proj_weight": (3 * width, width)}
    if bias:
        state["in_proj_bias"] = (3 * width,)
    if kv:
        state |= {"bias_k": (1, 1, width), "bias_v": (1, 1, width)}
    return state | under("out_proj", linear(width, width, bias))


def linear(width: int, out: int, bias: bool = True) -> dict[str, Shape]:
    state: dict[str, Shape] = {"weight": (out, width)}
    return state | {"bias": (out,)} if bias else state


def norm(width: int, bias: bool = True) -> dict[str, Shape]:
    state: dict[str, Shape] = {"weight": (width,)}
    return state | {"bias": (width,)} if bias else state


def under(name: str, state: dict[str, Shape]) -> dict[str, Shape]:
    return {f"{name}.{key}": shape for key, shape in state.items()}


def layer_state(wide: int, decoder: bool = False, bias: bool = True) -> dict[str, Shape]:
    """The state of an encoder or decoder layer of 4 features."""
    state = under("self_attn", attention_state(4, bias))
    if decoder:
        state |= under("multihead_attn", attention_state(4, bias))
    state |= under("linear1", linear(4, wide, bias)) | under("linear2", linear(wide, 4, bias))
    for n in range(1, 4 if decoder else 3):
        state |= under(f"norm{n}", norm(4, bias))
    return state


def of_two(features: int, heads: int = 0, extra: int = 0) -> Callable[[Shape], Shape]:
    """How many numbers the result and the shares of keys are, for (T, B, ·); ``extra`` keys beyond those of T."""

    def out(shape: Shape) -> Shape:
        steps, batch = shape[0], shape[1] if len(shape) == 3 else 1
        return (batch * steps * (features + max(heads, 1) * (steps + extra)),)

    return out


def more(x: Any) -> Any:
    """The sequences (T, B, ·) with their first step once more at the end, halved."""
    return library(x).cat([x, x[:1] * 0.5])


def flags(x: Any, *rows: list[bool]) -> Any:
    return library(x).tensor(list(rows))


def above(x: Any, steps: int) -> Any:
    """True where query i must not look at key j: for j > i."""
    return flags(x, *([j > i for j in range(steps)] for i in range(steps)))


def few(x: Any, batch: int, keys: int) -> Any:
    """Padding that hides the last key of each second sequence."""
    return flags(x, *([keys > 1 and j == keys - 1 and b % 2 == 0 for j in range(keys)] for b in range(batch)))


def masked(layer: Any, x: Any) -> Any:
    """A mask of bools for each head, and padding; (B, T, ·)."""
    batch, steps = x.shape[:2]
    heads = flags(x, *([j > i + n % 2 for j in range(steps)] for n in range(batch * 2) for i in range(steps)))
    mask = heads.reshape(batch * 2, steps, steps)
    return joined(*layer.plain(x, x, x, few(x, batch, steps), True, mask, average_attn_weights=False))


def added(layer: Any, x: Any) -> Any:
    """Other features for keys and values, and masks of numbers; (T, B, ·) or (T, ·)."""
    other = more(x)
    steps, keys = x.shape[0], other.shape[0]
    far = float("-inf")
    mask = library(x).tensor([[far if j > i + 1 else 0.3 * i - 0.2 * j for j in range(keys)] for i in range(steps)])
    padding = few(x, x.shape[1], keys) if x.ndim == 3 else few(x, 1, keys)[0]
    number = (mask[0, 0] * 0 + padding.to(mask.dtype)).to(x.dtype) * -2
    return layer.plain(x, other[..., :3], other[..., 1:3], number, need_weights=False, attn_mask=mask.to(x.dtype))[0]


def causal(layer: Any, x: Any) -> Any:
    return joined(*layer.plain(x, x, x, attn_mask=above(x, x.shape[0]), is_causal=True))


def memory(layer: Any, x: Any) -> Any:
    other = more(x)
    return joined(*layer.plain(x, other, other))


ATTENTION_ERRORS = (
    (Sample((3, 2, 5)), r"MultiheadAttention 4, 2 heads: query has 5 features, needs 4; its shape \(3, 2, 5\)"),
    (Sample((4,)), r"query: got shape \(4,\); needed \(T, B, D\), or \(T, D\) for one sequence"),
)
BAD_ATTENTION = (
    (lambda nn: nn.MultiheadAttention(4, 3), r"got embed_dim 4, num_heads 3; needed heads that divide embed_dim"),
    (lambda nn: nn.MultiheadAttention(4, 2, dropout=-1), r"MultiheadAttention: dropout: got -1"),
    (lambda nn: attended(nn, attn_mask=(2, 2)), r"attn_mask: got shape \(2, 2\); needed \(3, 3\) or \(4, 3, 3\)"),
    (lambda nn: attended(nn, key_padding_mask=(3, 2)), r"key_padding_mask: got shape \(3, 2\); needed \(2, 3\)"),
    (lambda nn: attended(nn, attn_mask=(3, 3), dtype="int64"), r"attn_mask: got int64; needed bool or floating"),
)


def attended(nn: Any, dtype: str = "bool", **masks: Shape) -> Any:
    """Attention with masks of these shapes, for 2 sequences of 3 steps."""
    x = nn.Parameter([[[1.0, 2.0, 3.0, 4.0]] * 2] * 3).detach()
    return nn.MultiheadAttention(4, 2)(x, x, x, **{name: x.new_ones(s, dtype=dtype) for name, s in masks.items()})


ATTENTION: tuple[Row, ...] = (
    Row(
        "MultiheadAttention",
        lambda nn: through(nn.MultiheadAttention(4, 2), lambda layer, x: joined(*layer.plain(x, x, x))),
        SEQUENCES,
        out=of_two(4),
        state=attention_state(4),
        errors=ATTENTION_ERRORS,
        bad=BAD_ATTENTION,
    ),
    Row(
        "MultiheadAttention",
        lambda nn: through(nn.MultiheadAttention(4, 1, bias=False), memory),
        SEQUENCES,
        out=of_two(4, extra=1),
        state=attention_state(4, bias=False),
        variant="memory",
    ),
    Row(
        "MultiheadAttention",
        lambda nn: through(nn.MultiheadAttention(4, 2, batch_first=True), masked),
        BATCHES_FIRST,
        out=lambda shape: (shape[0] * shape[1] * (4 + 2 * shape[1]),),
        state=attention_state(4),
        variant="masked",
    ),
    Row(
        "MultiheadAttention",
        lambda nn: through(nn.MultiheadAttention(4, 2, 0.0, True, True, True, kdim=3, vdim=2), added),
        (*lines((1, 2, 4), (3, 2, 4), (2, 1, 4), (3, 4)), Sample((2, 3, 4))),
        state={"q_proj_weight": (4, 4), "k_proj_weight": (4, 3), "v_proj_weight": (4, 2), "in_proj_bias": (12,)}
        | {"bias_k": (1, 1, 4), "bias_v": (1, 1, 4), "out_proj.weight": (4, 4), "out_proj.bias": (4,)},
        variant="added",
    ),
    Row(
        "MultiheadAttention",
        lambda nn: through(nn.MultiheadAttention(4, 4, add_bias_kv=True), causal),
        LONG,
        out=of_two(4, extra=1),
        state=attention_state(4, kv=True),
        variant="causal",
    ),
    Row(
        "MultiheadAttention",
        lambda nn: through(nn.MultiheadAttention(4, 2, dropout=0.3), lambda layer, x: joined(*layer.plain(x, x, x))),
        tuple(sample._replace(modes=BOTH) for sample in LONG),
        out=of_two(4),
        state=attention_state(4),
        variant="dropout",
        random=True,
    ),
)


# --- transformers -------------------------------------------------------------------------------------------------
def encoded(layer: Any, x: Any) -> Any:
    """With both masks; (B, T, ·)."""
    return layer.plain(x, above(x, x.shape[1]), few(x, *x.shape[:2]), is_causal=True)


def decoded(layer: Any, x: Any) -> Any:
    """With all masks; (B, T, ·)."""
    batch, steps = x.shape[:2]
    other = more(x.transpose(0, 1)).transpose(0, 1)
    ahead = flags(x, *([j > i + 1 for j in range(steps + 1)] for i in range(steps)))
    return layer.plain(x, other, above(x, steps), ahead, few(x, batch, steps), few(x, batch, steps + 1), True, False)


def translated(layer: Any, x: Any) -> Any:
    """(B, T, ·): the source is one step longer."""
    source = more(x.transpose(0, 1)).transpose(0, 1)
    return layer.plain(
        source, x, tgt_mask=above(x, x.shape[1]), memory_key_padding_mask=few(x, x.shape[0], source.shape[1])
    )


def encoder(nn: Any, **options: Any) -> Any:
    return nn.TransformerEncoderLayer(4, 2, 3, 0.0, **options)


def decoder(nn: Any, **options: Any) -> Any:
    return nn.TransformerDecoderLayer(4, 2, 3, 0.0, **options)


FEW = lines((2, 1, 4), (2, 2, 4), (1, 1, 4), (1, 3, 4))
TRANSFORMER_STATE = (
    {f"encoder.layers.0.{k}": v for k, v in layer_state(3).items()}
    | under("encoder.norm", norm(4))
    | {f"decoder.layers.{n}.{k}": v for n in range(2) for k, v in layer_state(3, decoder=True).items()}
    | under("decoder.norm", norm(4))
)

TRANSFORMERS: tuple[Row, ...] = (
    Row(
        "TransformerEncoderLayer",
        encoder,
        (*lines((2, 0, 4), (3, 2, 4), (1, 1, 4), (3, 4)), Sample((2, 2, 4), "large", ONE)),
        state=layer_state(3),
        errors=(
            (Sample((2, 2, 5)), r"model\.self_attn \(MultiheadAttention 4, 2 heads\): query has 5 features, needs 4"),
        ),
        bad=(
            (lambda nn: nn.TransformerEncoderLayer(4, 3), r"num_heads 3; needed heads that divide"),
            (
                lambda nn: encoder(nn, activation="sin"),
                r"TransformerEncoderLayer: activation: got 'sin'; needed 'relu'",
            ),
        ),
    ),
    Row(
        "TransformerEncoderLayer",
        lambda nn: through(
            encoder(nn, activation="gelu", layer_norm_eps=0.1, batch_first=True, norm_first=True, bias=False), encoded
        ),
        FEW,
        state=layer_state(3, bias=False),
        variant="norm-first",
    ),
    Row(
        "TransformerEncoderLayer",
        lambda nn: nn.TransformerEncoderLayer(4, 1, 3, 0.2, activation=nn.Tanh()),
        tuple(sample._replace(modes=BOTH) for sample in FEW),
        state=layer_state(3),
        variant="dropout",
        random=True,
    ),
    Row(
        "TransformerDecoderLayer",
        lambda nn: through(decoder(nn), lambda layer, x: layer.plain(x, more(x))),
        lines((2, 0, 4), (3, 2, 4), (1, 1, 4), (3, 4)),
        state=layer_state(3, decoder=True),
        errors=(
            (Sample((4,)), r"model\.self_attn \(MultiheadAttention 4, 2 heads\): query: got shape \(4,\); needed"),
        ),
    ),
    Row(
        "TransformerDecoderLayer",
        lambda nn: through(
            decoder(
                nn,
                activation=nn.functional.gelu,
                layer_norm_eps=0.1,
                batch_first=True,
                norm_first=True,
                bias=False,
            ),
            decoded,
        ),
        FEW,
        state=layer_state(3, decoder=True, bias=False),
        variant="norm-first",
    ),
    Row(
        "TransformerEncoder",
        lambda nn: nn.TransformerEncoder(encoder(nn), 2, nn.LayerNorm(4), enable_nested_tensor=False, mask_check=False),
        FEW,
        state={f"layers.{n}.{k}": v for n in range(2) for k, v in layer_state(3).items()} | under("norm", norm(4)),
        errors=((Sample((2, 2, 5)), r"model\.layers\.0\.self_attn \(Mul.*\): query has 5 features, needs 4"),),
        bad=(
            (lambda nn: nn.TransformerEncoder(encoder(nn), 0), r"TransformerEncoder: num_layers: got 0"),
            (lambda nn: nn.TransformerEncoder(len, 1), r"TransformerEncoder: layer: got builtin.*needed a Module"),
        ),
    ),
    Row(
        "TransformerDecoder",
        lambda nn: through(
            nn.TransformerDecoder(decoder(nn), 2, nn.LayerNorm(4)), lambda layer, x: layer.plain(x, more(x))
        ),
        FEW,
        state={f"layers.{n}.{k}": v for n in range(2) for k, v in layer_state(3, decoder=True).items()}
        | under("norm", norm(4)),
        errors=((Sample((4,)), r"model\.layers\.0\.self_attn \(MultiheadAttention 4, 2 heads\): query: got shape"),),
    ),
    Row(
        "Transformer",
        lambda nn: through(nn.Transformer(4, 2, 1, 2, 3, 0.0, batch_first=True), translated),
        FEW,
        state=TRANSFORMER_STATE,
        errors=((Sample((2, 2, 2)), r"model\.encoder\.layers\.0\.self_attn \(Mul.*\): query has 2 features, needs 4"),),
        bad=((lambda nn: nn.Transformer(5, 2, 1, 1), r"needed heads that divide"),),
    ),
    Row(
        "Transformer",
        lambda nn: through(
            nn.Transformer(
                *(4, 2, 1, 1, 3, 0.0),
                activation=nn.functional.gelu,
                layer_norm_eps=0.1,
                batch_first=True,
                norm_first=True,
                bias=False,
            ),
            translated,
        ),
        FEW,
        state={f"encoder.layers.0.{k}": v for k, v in layer_state(3, bias=False).items()}
        | {f"decoder.layers.0.{k}": v for k, v in layer_state(3, decoder=True, bias=False).items()}
        | {"encoder.norm.weight": (4,), "decoder.norm.weight": (4,)},
        variant="norm-first",
    ),
    Row(
        "Transformer",
        lambda nn: through(
            nn.Transformer(4, custom_encoder=nn.Identity(), custom_decoder=nn.TransformerDecoder(decoder(nn), 1)),
            lambda layer, x: layer.decoder(x, layer.encoder(more(x))),
        ),
        FEW,
        state={f"decoder.layers.0.{k}": v for k, v in layer_state(3, decoder=True).items()},
        variant="custom",
    ),
)


# --- positions, bags ----------------------------------------------------------------------------------------------
PLACES = lines((0, 2, 3), (4, 2, 3), (1, 1, 3), (5, 3))
POSITIONS: tuple[Row, ...] = (
    Row(
        "SinusoidalPositions",
        lambda nn: twins.of(nn, "SinusoidalPositions")(),
        PLACES,
        errors=((Sample((3,)), r"SinusoidalPositions: input: got shape \(3,\); needed \(T, B, D\), or \(T, D\)"),),
        bad=((lambda nn: nn.SinusoidalPositions(0), r"max_wavelength: got 0; needed a positive number"),),
    ),
    Row(
        "SinusoidalPositions",
        lambda nn: twins.of(nn, "SinusoidalPositions")(50.0, batch_first=True),
        lines((2, 4, 2), (2, 3, 5), (1, 1, 1), (5, 4)),
        variant="batch-first",
    ),
    Row(
        "LearnedPositions",
        lambda nn: twins.of(nn, "LearnedPositions")(6, 3),
        PLACES,
        state={"weight": (6, 3)},
        errors=(
            (Sample((7, 2, 3)), r"LearnedPositions: input has 7 time steps, at most 6; input shape \(7, 2, 3\)"),
            (Sample((2, 2, 4)), r"input has 4 features, needs 3"),
        ),
    ),
    Row(
        "LearnedPositions",
        lambda nn: twins.of(nn, "LearnedPositions")(6, 3, batch_first=True),
        PLACES,
        state={"weight": (6, 3)},
        variant="batch-first",
    ),
)


def bags(layer: Any, x: Any) -> Any:
    """A vector of indices in four bags, of which the second is empty; the last offset is the end."""
    count = x.shape[0]
    return layer.plain(x, library(x).tensor([0, count // 3, count // 3, count]))


def weighted(layer: Any, x: Any) -> Any:
    """Weights that depend on the table, so that gradients meet them."""
    share = layer.weight[:1, :1] * 0.5 + library(x).arange(x.numel()).reshape(x.shape).to(layer.weight.dtype)
    return layer.plain(x, per_sample_weights=share)


IN_BAGS = tuple(Sample(shape, "index", ONE, 6) for shape in ((3, 2), (1, 1), (2, 4), (5, 3), (1, 3), (4, 1)))
IN_LINE = tuple(Sample((n,), "index", ONE, 6) for n in (6, 1, 3, 9, 4, 12))
BAGS: tuple[Row, ...] = (
    Row(
        "EmbeddingBag",
        lambda nn: nn.EmbeddingBag(6, 3),
        (*IN_BAGS, Sample((0, 2), "index", ONE, 6)),
        out=lambda shape: (shape[0], 3),
        state={"weight": (6, 3)},
        errors=(
            (Sample((4,), "index", ONE, 6), r"EmbeddingBag 6→3: embedding_bag: input of shape \(4,\): got no offsets"),
            (Sample((1, 2, 2), "index", ONE, 6), r"embedding_bag: input: got shape \(1, 2, 2\); needed \(B, N\)"),
            (Sample((4, 2), "index", ONE, 60), r"gather: index .*needed 0 ≤ index < 6"),
            (Sample((4, 2)), r"embedding: ind.*: got float64; needed integers"),
        ),
        bad=(
            (lambda nn: nn.EmbeddingBag(6, 3, mode="min"), r"EmbeddingBag: mode: got 'min'; needed 'sum' or 'mean' or"),
            (lambda nn: nn.EmbeddingBag(6, 3, padding_idx=6), r"EmbeddingBag: padding_idx: got 6; needed -6 to 5"),
            (lambda nn: nn.EmbeddingBag(6, 3, sparse=True), r"EmbeddingBag: sparse: got True; needed False"),
            (lambda nn: nn.EmbeddingBag(6, 3, None, 2.0, True, "max"), r"scale_grad_by_freq: got mode 'max'"),
        ),
    ),
    Row(
        "EmbeddingBag",
        lambda nn: through(nn.EmbeddingBag(6, 3, mode="sum", include_last_offset=True, padding_idx=2), bags),
        IN_LINE,
        out=lambda shape: (3, 3),
        state={"weight": (6, 3)},
        variant="padding",
    ),
    Row(
        "EmbeddingBag",
        lambda nn: through(nn.EmbeddingBag(6, 3, mode="mean"), bags),
        IN_LINE,
        out=lambda shape: (4, 3),
        state={"weight": (6, 3)},
        variant="offsets",
    ),
    Row(
        "EmbeddingBag",
        lambda nn: through(nn.EmbeddingBag(6, 3, mode="max", padding_idx=-2), bags),
        IN_LINE,
        out=lambda shape: (4, 3),
        state={"weight": (6, 3)},
        variant="max",
    ),
    Row(
        "EmbeddingBag",
        lambda nn: nn.EmbeddingBag(6, 3, scale_grad_by_freq=True),
        IN_BAGS,
        out=lambda shape: (shape[0], 3),
        state={"weight": (6, 3)},
        variant="frequency",
        # PyTorch's bags divide some gradients by the number of another row; its Embedding does not.
        reference=lambda nn: through(
            nn.Embedding(6, 3, scale_grad_by_freq=True), lambda layer, x: layer.plain(x).mean(1)
        ),
        smooth=False,
    ),
    Row(
        "EmbeddingBag",
        lambda nn: through(nn.EmbeddingBag(6, 3, mode="sum"), weighted),
        IN_BAGS,
        out=lambda shape: (shape[0], 3),
        state={"weight": (6, 3)},
        variant="weighted",
    ),
    Row(
        "EmbeddingBag",
        lambda nn: nn.EmbeddingBag(6, 3, 1.5, 3.0, mode="max"),
        IN_BAGS,
        out=lambda shape: (shape[0], 3),
        state={"weight": (6, 3)},
        variant="max-norm",
        smooth=False,  # what is written into the table is none of the derivative
    ),
    Row(
        "Embedding",
        lambda nn: nn.Embedding(6, 3, None, 1.5),
        INDICES,
        out=lambda shape: (*shape, 3),
        state={"weight": (6, 3)},
        errors=((Sample((4,), "index", ONE, 60), r"Embedding 6→3: gather: index .*needed 0 ≤ index < 6"),),
        bad=((lambda nn: nn.Embedding(6, 3, sparse=True), r"Embedding: sparse: got True; needed False"),),
        variant="max-norm",
        smooth=False,
    ),
    Row(
        "Embedding",
        lambda nn: nn.Embedding(6, 3, 2, 2.0, 1.0, True),
        INDICES,
        out=lambda shape: (*shape, 3),
        state={"weight": (6, 3)},
        variant="frequency",
        smooth=False,
    ),
)

ROWS: tuple[Row, ...] = (*ATTENTION, *TRANSFORMERS, *POSITIONS, *BAGS)


# --- functions ----------------------------------------------------------------------------------------------------
def attend(nn: Any, x: Any, **options: Any) -> Any:
    return nn.functional.scaled_dot_product_attention(x, x * 2, x - 1, **options)


def own_mask(nn: Any, x: Any) -> Any:
    """The second query may look at nothing."""
    steps = x.shape[-2]
    return attend(nn, x, attn_mask=flags(x, *([i != 1 and j <= i for j in range(steps)] for i in range(steps))))


def numbers(nn: Any, x: Any) -> Any:
    """A mask of numbers that depends on the input; its first row hides all keys but one."""
    steps = x.shape[-2]
    far = library(x).tensor([[0.0 if i or j == i else float("-inf") for j in range(steps)] for i in range(steps)])
    return attend(nn, x, attn_mask=far.to(x.dtype) + x[..., :1], scale=0.7)


def grouped(nn: Any, x: Any) -> Any:
    key = x[..., :1, :, :]
    return nn.functional.scaled_dot_product_attention(x, key * 2, key, enable_gqa=True, is_causal=True)


MATRICES = (*lines((0, 3, 5), (2, 4, 5), (1, 1), (3, 2)), Sample((2, 3, 2), "large", ONE))
ATTEND = "scaled_dot_product_attention"

FUNCTION_ROWS: tuple[Row, ...] = (
    Row(
        ATTEND,
        lambda nn: lambda x: attend(nn, x),
        MATRICES,
        errors=((Sample((4,)), r"scaled_dot_product_attention: query: got shape \(4,\); needed at least two axes"),),
        bad=(
            (lambda nn: attend(nn, eye(nn, 2), attn_mask=eye(nn, 2), is_causal=True), r"got attn_mask and is_causal"),
            (lambda nn: attend(nn, eye(nn, 2), attn_mask=eye(nn, 3)), r"attn_mask"),
            (lambda nn: attend(nn, eye(nn, 2), attn_mask=eye(nn, 2).to("int64")), r"attn_mask: got int64; needed bool"),
            (lambda nn: attend(nn, eye(nn, 2), enable_gqa=True), r"needed a multiple of key's and value's for query"),
            (
                lambda nn: nn.functional.scaled_dot_product_attention(eye(nn, 2), eye(nn, 3), eye(nn, 3)),
                r"query \(2, 2\), key \(3, 3\): needed equal last axes",
            ),
            (
                lambda nn: nn.functional.scaled_dot_product_attention(eye(nn, 2), eye(nn, 2), eye(nn, 3)),
                r"key \(2, 2\), value \(3, 3\): needed a value for each key",
            ),
        ),
    ),
    Row(ATTEND, lambda nn: lambda x: attend(nn, x, is_causal=True), MATRICES, variant="causal"),
    Row(ATTEND, lambda nn: lambda x: own_mask(nn, x), MATRICES, variant="bools"),
    Row(ATTEND, lambda nn: lambda x: numbers(nn, x), MATRICES, variant="numbers"),
    Row(
        ATTEND, lambda nn: lambda x: grouped(nn, x), lines((2, 3, 2), (4, 2, 3), (1, 1, 1), (2, 2, 3, 1)), variant="gqa"
    ),
    Row(
        "embedding_bag",
        lambda nn: (
            lambda i: nn.functional.embedding_bag(
                i, library(i).arange(12).reshape(6, 2) * 0.5, library(i).tensor([0, 1, i.shape[0]]), mode="max"
            )
        ),
        IN_LINE,
        out=lambda shape: (3, 2),
        bad=(
            (lambda nn: bag(nn, [1, 2]), r"embedding_bag: offsets: got \[1, 2\]; needed 0, then rising up to 2"),
            (lambda nn: bag(nn, [0, 3]), r"got \[0, 3\]"),
            (lambda nn: bag(nn, [0, 2, 1]), r"got \[0, 2, 1\]"),
            (lambda nn: bag(nn, [[0]]), r"offsets: got shape \(1, 1\); needed one axis, not empty"),
            (lambda nn: bag(nn, [0.0]), r"offsets: got float32; needed integers"),
            (lambda nn: bag(nn, [0], per_sample_weights=eye(nn, 2)[0]), r"with mode 'mean'; needed shape \(2,\) and"),
            (lambda nn: bag(nn, [0], mode="min"), r"mode: got 'min'"),
            (lambda nn: bag(nn, [0], mode="max", scale_grad_by_freq=True), r"scale_grad_by_freq: got mode 'max'"),
        ),
    ),
)


def eye(nn: Any, n: int) -> Any:
    return nn.Parameter([[float(i == j) for j in range(n)] for i in range(n)]).detach()


def bag(nn: Any, offsets: list[Any], **options: Any) -> Any:
    of = library(eye(nn, 1)).tensor
    return nn.functional.embedding_bag(of([0, 1]), eye(nn, 3), of(offsets), **options)

"""One row for each layer and each function of ``nn.functional``: what test_layers.py checks. Data only.

``build`` makes the layer, or a function of one tensor, from PyTorch's or Slalom's ``nn``; the same line serves both.
Families of layers have tables of their own, which are joined here.
"""

from __future__ import annotations

from typing import Any

import table_layers_activation
import table_layers_attention
import table_layers_channels
import table_layers_container
import table_layers_conv
import table_layers_norm
import table_layers_padding
import table_layers_pool
import table_layers_recurrent
import table_layers_unpool
import twins
from layer_rows import (
    AFFINE,
    ANY,
    AXIS_1,
    BATCHES,
    BOTH,
    INDICES,
    ONE,
    ROWS_OF_5,
    STATS,
    Row,
    Sample,
    last,
    lines,
    on_a_copy,
)

TABLES = (
    table_layers_activation,
    table_layers_conv,
    table_layers_pool,
    table_layers_norm,
    table_layers_padding,
    table_layers_channels,
    table_layers_recurrent,
    table_layers_attention,
    table_layers_container,
    table_layers_unpool,
)


def _maxout(nn: Any, pieces: int, bias: bool = True) -> Any:
    """A wide Linear, and the largest of every few features."""

    class Maxout(nn.Linear):
        def forward(self, x: Any) -> Any:
            return super().forward(x).unflatten(-1, (3, pieces)).max(-1).values

    return Maxout(5, 3 * pieces, bias)


LAYERS: tuple[Row, ...] = (
    Row("Identity", lambda nn: nn.Identity(54, unused=0.1), ANY),
    Row(
        "Flatten",
        lambda nn: nn.Flatten(),
        lines((0, 5), (4, 5), (1, 1), (2, 3, 5), (2, 1, 3, 2), (3, 4)),
        out=lambda shape: (shape[0], 5 * 3 if len(shape) == 3 else 6 if len(shape) == 4 else shape[1]),
        errors=((Sample((5,)), r"Flatten: flatten.*axis 1"),),
    ),
    Row(
        "Flatten",
        lambda nn: nn.Flatten(0, 1),
        lines((0, 5), (4, 5), (1, 1), (2, 3, 5), (2, 1, 3, 2), (3, 4)),
        out=lambda shape: (shape[0] * shape[1], *shape[2:]),
        variant="first",
    ),
    Row(
        "Linear",
        lambda nn: nn.Linear(5, 3),
        ROWS_OF_5,
        out=last(3),
        state={"weight": (3, 5), "bias": (3,)},
        errors=(
            (Sample((64, 8)), r"Linear 5→3: input has 8 features, needs 5; input shape \(64, 8\)"),
            (Sample(()), r"Linear 5→3: input has no axes, needs 5"),
        ),
    ),
    Row(
        "NTKLinear",
        lambda nn: twins.of(nn, "NTKLinear")(5, 3, gain=1.5, beta=0.3),
        ROWS_OF_5,
        out=last(3),
        state={"weight": (3, 5), "bias": (3,)},
        errors=((Sample((64, 8)), r"NTKLinear 5→3: input has 8 features, needs 5; input shape \(64, 8\)"),),
    ),
    Row(
        "NTKLinear",
        lambda nn: twins.of(nn, "NTKLinear")(5, 1, bias=False),
        ROWS_OF_5,
        out=last(1),
        state={"weight": (1, 5)},
        variant="no-bias",
    ),
    Row(
        "Linear",
        lambda nn: nn.Linear(5, 1, bias=False),
        ROWS_OF_5,
        out=last(1),
        state={"weight": (1, 5)},
        variant="no-bias",
    ),
    Row(
        "Maxout",
        lambda nn: nn.Maxout(5, 3),
        ROWS_OF_5,
        out=last(3),
        state={"weight": (6, 5), "bias": (6,)},
        reference=lambda nn: _maxout(nn, 2),
        errors=((Sample((64, 8)), r"Maxout 5→3: input has 8 features, needs 5; input shape \(64, 8\)"),),
        bad=((lambda nn: nn.Maxout(5, 3, num_pieces=0), r"Maxout: num_pieces: got 0; needed at least 1"),),
    ),
    Row(
        "Maxout",
        lambda nn: nn.Maxout(5, 3, num_pieces=4, bias=False),
        ROWS_OF_5,
        out=last(3),
        state={"weight": (12, 5)},
        reference=lambda nn: _maxout(nn, 4, bias=False),
        variant="no-bias",
    ),
    Row(
        "Embedding",
        lambda nn: nn.Embedding(6, 3),
        INDICES,
        out=lambda shape: (*shape, 3),
        state={"weight": (6, 3)},
        errors=(
            (Sample((4,), "index", ONE, 60), r"Embedding 6→3: gather: index .*got \d\d; needed 0 ≤ index < 6"),
            (Sample((4,)), r"Embedding 6→3: embedding: ind.*: got float64; needed integers"),
        ),
        bad=((lambda nn: nn.Embedding(6, 3, padding_idx=6), r"padding_idx: got 6; needed -6 to 5"),),
    ),
    Row(
        "Embedding",
        lambda nn: nn.Embedding(6, 3, padding_idx=-4),
        INDICES,
        out=lambda shape: (*shape, 3),
        state={"weight": (6, 3)},
        variant="padding",
    ),
    Row(
        "Dropout",
        lambda nn: nn.Dropout(0.3),
        lines((0, 5), (4, 5), (1, 1), (7,), (2, 3, 5), modes=BOTH),
        bad=(
            (lambda nn: nn.Dropout(1.5), r"Dropout: p: got 1.5; needed a probability, 0 to 1"),
            (lambda nn: nn.Dropout(-0.1), r"got -0.1"),
        ),
        random=True,
    ),
    Row("Dropout", lambda nn: nn.Dropout(0.0), ANY, variant="none"),
    Row("Dropout", lambda nn: on_a_copy(nn.Dropout(1.0, inplace=True)), ANY, variant="all"),
    Row(
        "BatchNorm1d",
        lambda nn: nn.BatchNorm1d(3),
        BATCHES,
        state=AFFINE | STATS,
        errors=(
            (Sample((1, 3)), r"BatchNorm1d 3: batch_norm while training: got one value for each channel.*drop_last"),
            (Sample((4, 5)), r"BatchNorm1d 3: input has 5 features, needs 3; input shape \(4, 5\)"),
            (Sample((3,)), r"BatchNorm1d 3: input: got shape \(3,\); needed \(B, C\) or \(B, C, T\)"),
            (Sample((2, 3, 4, 5)), r"needed \(B, C\) or \(B, C, T\)"),
        ),
    ),
    Row(
        "BatchNorm1d",
        lambda nn: nn.BatchNorm1d(3, momentum=None, bias=False),
        BATCHES,
        state={"weight": (3,)} | STATS,
        variant="average",
    ),
    Row(
        "BatchNorm1d",
        lambda nn: nn.BatchNorm1d(3, eps=0.1, track_running_stats=False),
        tuple(sample for sample in BATCHES if sample.modes == BOTH),
        state=AFFINE,
        errors=((Sample((1, 3)), r"one value for each channel"),),
        variant="untracked",
    ),
    Row("BatchNorm1d", lambda nn: nn.BatchNorm1d(3, 1e-3, 0.5, affine=False), BATCHES, state=STATS, variant="plain"),
    Row(
        "LayerNorm",
        lambda nn: nn.LayerNorm(5),
        ROWS_OF_5,
        state={"weight": (5,), "bias": (5,)},
        errors=((Sample((4, 3)), r"LayerNorm: layer_norm: input: got shape \(4, 3\); needed last axes \(5,\)"),),
    ),
    Row(
        "LayerNorm",
        lambda nn: nn.LayerNorm((3, 2), eps=0.1, bias=False),
        lines((0, 3, 2), (4, 3, 2), (1, 3, 2), (3, 2), (2, 2, 3, 2)),
        state={"weight": (3, 2)},
        errors=((Sample((2,)), r"needed last axes \(3, 2\)"),),
        variant="two-axes",
    ),
    Row("LayerNorm", lambda nn: nn.LayerNorm(5, elementwise_affine=False), ROWS_OF_5, variant="plain"),
    Row("ReLU", lambda nn: nn.ReLU(), ANY),
    Row("LeakyReLU", lambda nn: nn.LeakyReLU(), ANY),
    Row("LeakyReLU", lambda nn: on_a_copy(nn.LeakyReLU(0.3, True)), ANY, variant="steep"),
    Row("PReLU", lambda nn: nn.PReLU(), (*ANY, Sample((), "plain", ONE)), state={"weight": (1,)}),
    Row(
        "PReLU",
        lambda nn: nn.PReLU(5, init=0.1),
        lines((0, 5), (4, 5), (1, 5), (2, 5, 3), (2, 5, 1, 2), extra=(Sample((2, 5), "kink", ONE),)),
        state={"weight": (5,)},
        errors=((Sample((4, 3)), r"PReLU: prelu: weight: got \(5,\); needed \(1,\) or \(3,\)"),),
        variant="channels",
    ),
    Row("Sigmoid", lambda nn: nn.Sigmoid(), ANY),
    Row("Tanh", lambda nn: nn.Tanh(), ANY),
    Row(
        "GELU",
        lambda nn: nn.GELU(),
        ANY,
        bad=((lambda nn: nn.GELU("fast")(nn.Parameter([1.0])), r"GELU: gelu: approximate: got 'fast'; needed 'none'"),),
    ),
    Row("GELU", lambda nn: nn.GELU(approximate="tanh"), ANY, variant="tanh"),
    Row("SiLU", lambda nn: nn.SiLU(), ANY),
    Row("Softplus", lambda nn: nn.Softplus(), ANY),
    Row("Softplus", lambda nn: nn.Softplus(beta=2.5, threshold=3.0), ANY, variant="threshold"),
    Row("Softmax", lambda nn: nn.Softmax(1), AXIS_1, errors=((Sample((4,)), r"Softmax: softmax: axis 1"),)),
    Row("Softmax", lambda nn: nn.Softmax(dim=-1), ANY, variant="last"),
    Row("LogSoftmax", lambda nn: nn.LogSoftmax(1), AXIS_1, errors=((Sample((4,)), r"log_softmax: axis 1"),)),
    Row("LogSoftmax", lambda nn: nn.LogSoftmax(0), ANY, variant="first"),
    Row(
        "Sequential",
        lambda nn: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Sequential(nn.Linear(4, 2), nn.Identity())),
        ROWS_OF_5,
        out=last(2),
        state={"0.weight": (4, 5), "0.bias": (4,), "2.0.weight": (2, 4), "2.0.bias": (2,)},
        errors=((Sample((3, 4)), r"model\.0 \(Linear 5→4\): input has 4 features, needs 5"),),
        bad=((lambda nn: nn.Sequential(nn.Identity(), len), r"Sequential: part 1: got builtin.*needed a Module"),),
    ),
    *(row for table in TABLES for row in table.ROWS),
)

FUNCTIONS: tuple[Row, ...] = (
    Row("pad", lambda nn: lambda x: nn.functional.pad(x, (1, 2)), ANY, out=lambda s: (*s[:-1], s[-1] + 3)),
    Row(
        "pad",
        lambda nn: lambda x: nn.functional.pad(x, (-1, 2, 0, 1), value=7.0),
        lines((0, 5), (4, 5), (1, 1), (2, 3, 5), (3, 2)),
        out=lambda s: (*s[:-2], s[-2] + 1, s[-1] + 1),
        variant="value",
    ),
    Row(
        "one_hot",
        lambda nn: lambda x: nn.functional.one_hot(x, 6),
        INDICES,
        out=lambda s: (*s, 6),
        errors=((Sample((9,), "index", ONE, 60), r"one_hot: class: got \d+ to \d+; needed 0 to 5"),),
    ),
    Row("relu", lambda nn: nn.functional.relu, ANY),
    Row("leaky_relu", lambda nn: lambda x: nn.functional.leaky_relu(x, 0.2), ANY),
    Row("gelu", lambda nn: nn.functional.gelu, ANY),
    Row("silu", lambda nn: nn.functional.silu, ANY),
    Row("sigmoid", lambda nn: nn.functional.sigmoid, ANY),
    Row("tanh", lambda nn: nn.functional.tanh, ANY),
    Row("softplus", lambda nn: lambda x: nn.functional.softplus(x, 0.5), ANY),
    Row("softmax", lambda nn: lambda x: nn.functional.softmax(x, 0), ANY),
    Row("log_softmax", lambda nn: lambda x: nn.functional.log_softmax(x, dim=-1), ANY),
    Row("dropout", lambda nn: lambda x: nn.functional.dropout(x, 0.4, training=False), ANY),
    Row("linear", lambda nn: lambda x: nn.functional.linear(x, x[:3, :5]),
        lines((3, 5), (4, 5), (1, 5), (2, 5), (9, 5)),
        out=lambda s: (s[0], min(3, s[0]))),
    Row("prelu", lambda nn: lambda x: nn.functional.prelu(x, (x.sum() * 0.1).reshape(1)), ANY),
    Row("layer_norm", lambda nn: lambda x: nn.functional.layer_norm(x, (5,)), ROWS_OF_5),
    Row("batch_norm", lambda nn: lambda x: nn.functional.batch_norm(x, None, None, training=True),
        lines((7, 3), (4, 3), (2, 3), (4, 3, 5), (2, 3, 2, 2)),
        errors=((Sample((4,)), r"batch_norm: input: got 1 dimensions"),)),
    Row("embedding", lambda nn: lambda i: nn.functional.embedding(i, i.new_ones(6, 2) * 0.5, 2), INDICES,
        out=lambda s: (*s, 2)),
    *(row for table in TABLES for row in table.FUNCTION_ROWS),
)  # fmt: skip

TABLE = (*LAYERS, *FUNCTIONS)

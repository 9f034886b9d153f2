"""Rows for RNN, GRU, LSTM and their cells. Results and states are tested together, as one vector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from layer_rows import BOTH, ONE, Row, Sample, Shape, joined, library, lines, through

# From 8 time steps on, compiled networks are loops.
SEQUENCES = (*lines((2, 0, 3), (2, 3, 3), (1, 1, 3), (3, 3), (9, 2, 3), (8, 0, 3)), Sample((2, 2, 3), "large", ONE))
BATCHES_FIRST = (*lines((0, 2, 3), (2, 3, 3), (1, 1, 3), (3, 3), (2, 9, 3), (8, 3)), Sample((2, 2, 3), "large", ONE))
RAGGED = lines((1, 2, 3), (2, 3, 3), (3, 4, 3), (4, 1, 3), (2, 1, 3), (9, 3, 3), (3, 9, 3))
DROPPED = lines((2, 0, 3), (2, 2, 3), (1, 1, 3), (3, 3), (8, 2, 3), modes=BOTH)
STEPS = (*lines((0, 3), (4, 3), (1, 3), (3,)), Sample((2, 3), "kink", ONE), Sample((2, 3), "large", ONE))


def params(rows: int, width: int, out: int, *, suffix: str = "", bias: bool = True, proj: int = 0) -> dict[str, Shape]:
    """The state of one direction of one layer: ``rows`` for all gates, ``out`` features of its own state."""
    state: dict[str, Shape] = {"weight_ih": (rows, width), "weight_hh": (rows, out)}
    if bias:
        state |= {"bias_ih": (rows,), "bias_hh": (rows,)}
    if proj:
        state["weight_hr"] = (proj, rows // 4)
    return {name + suffix: shape for name, shape in state.items()}


def stacked(gates: int, size: int, layers: int = 1, both: bool = False, bias: bool = True, proj: int = 0) -> Any:
    """The state of layers for 3 features."""
    state: dict[str, Shape] = {}
    out, directions = proj or size, 2 if both else 1
    for n in range(layers):
        for suffix in ("", "_reverse")[:directions]:
            wide = out * directions if n else 3
            state |= params(gates * size, wide, out, suffix=f"_l{n}{suffix}", bias=bias, proj=proj)
    return state


def first_states(x: Any, *sizes: int, count: int, batch_first: bool = False) -> Any:
    """States before the first step that depend on the input: (count, B, size) for each size, or without B."""
    total = x.sum(-1) if x.ndim == 2 else x.sum(-1).sum(1 if batch_first else 0)
    spread = total.sum(-1).reshape(1, 1) if x.ndim == 2 else total.reshape(1, -1, 1)
    made = []
    for size in sizes:
        each = library(x).arange(count * size).to(x.dtype) * 0.1 + 0.1
        made.append(spread * each.reshape((count, size) if x.ndim == 2 else (count, 1, size)))
    return tuple(made) if len(made) > 1 else made[0]


def from_states(*sizes: int, count: int, batch_first: bool = False) -> Callable[[Any, Any], Any]:
    """A call that gives the first states."""

    def call(layer: Any, x: Any) -> Any:
        return joined(*layer.plain(x, first_states(x, *sizes, count=count, batch_first=batch_first)))

    return call


def ragged(*sizes: int, count: int, batch_first: bool = False) -> Callable[[Any, Any], Any]:
    """A call with sequences of T, T − 1, …, 0, T, … steps; in PyTorch, of the packed ones that have any."""

    def call(layer: Any, x: Any) -> Any:
        steps, batch = (x.shape[1], x.shape[0]) if batch_first else x.shape[:2]
        lengths = [(steps - n) % (steps + 1) for n in range(batch)]
        first = first_states(x, *sizes, count=count, batch_first=batch_first)
        lib = library(x)
        if not hasattr(lib.nn.utils, "rnn"):
            return joined(*layer.plain(x, first, lengths=lengths))
        rnn, axis, states = lib.nn.utils.rnn, 0 if batch_first else 1, first if len(sizes) > 1 else (first,)
        kept = lib.tensor([n for n in range(batch) if lengths[n]])
        given = rnn.pack_padded_sequence(
            x.index_select(axis, kept), [n for n in lengths if n], batch_first, enforce_sorted=False
        )
        some = tuple(s.index_select(1, kept) for s in states)
        out, last = layer.plain(given, some if len(sizes) > 1 else some[0])
        out, _ = rnn.pad_packed_sequence(out, batch_first, total_length=steps)
        shape = list(x.shape[:2])
        whole = out.new_zeros(*shape, out.shape[-1]).index_copy(axis, kept, out)
        lasts = last if len(sizes) > 1 else (last,)
        return joined(whole, *(s.index_copy(1, kept, t) for s, t in zip(states, lasts, strict=True)))

    return call


def plain(layer: Any, x: Any) -> Any:
    return joined(*layer.plain(x))


def size(features: int, *states: int) -> Callable[[Shape], Shape]:
    """How many numbers there are for ``features`` of each step and states of these sizes (layers · features)."""

    def out(shape: Shape) -> Shape:
        batch = shape[1] if len(shape) == 3 else 1
        return (shape[0] * batch * features + batch * sum(states),)

    return out


def size_batch_first(features: int, *states: int) -> Callable[[Shape], Shape]:
    def out(shape: Shape) -> Shape:
        return size(features, *states)((shape[1], shape[0], shape[2]) if len(shape) == 3 else shape)

    return out


FEATURES = ((Sample((4, 2, 5)), r"(RNN|GRU|LSTM) 3→\d: input has 5 features, needs 3; input shape \(4, 2, 5\)"),)
BAD_SIZES = (
    (lambda nn: nn.LSTM(3, 0), r"LSTM: hidden_size: got 0; needed at least 1"),
    (lambda nn: nn.GRU(0, 2), r"GRU: input_size: got 0"),
    (lambda nn: nn.RNN(3, 2, 0), r"RNN: num_layers: got 0"),
    (lambda nn: nn.GRU(3, 2, 2, dropout=1.5), r"GRU: dropout: got 1.5; needed a probability"),
    (lambda nn: nn.LSTM(3, 2, proj_size=2), r"LSTM: proj_size: got 2; needed below hidden_size, 0 to 1"),
)

ROWS: tuple[Row, ...] = (
    Row(
        "RNN",
        lambda nn: through(nn.RNN(3, 2), plain),
        SEQUENCES,
        out=size(2, 2),
        state=stacked(1, 2),
        errors=(
            *FEATURES,
            (Sample((0, 2, 3)), r"RNN 3→2: input has no time steps: got shape \(0, 2, 3\)"),
            (Sample((3,)), r"input: got shape \(3,\); needed \(T, B, D\), or \(T, D\) for one sequence"),
        ),
        bad=(*BAD_SIZES, (lambda nn: nn.RNN(3, 2, nonlinearity="sin"), r"RNN: nonlinearity: got 'sin'; needed 'tanh'")),
    ),
    Row(
        "RNN",
        lambda nn: through(nn.RNN(3, 2, 2, "relu", False, True, 0.0, True), from_states(2, count=4, batch_first=True)),
        BATCHES_FIRST,
        out=size_batch_first(4, 8),
        state=stacked(1, 2, 2, both=True, bias=False),
        errors=(
            (Sample((2, 3, 3, 1)), r"needed \(B, T, D\), or"),
            (Sample((2, 0, 3)), r"no time steps: got shape \(2, 0, 3\)"),
        ),
        variant="relu",
    ),
    Row(
        "RNN",
        lambda nn: through(nn.RNN(3, 2, 2, dropout=0.5), plain),
        DROPPED,
        out=size(2, 4),
        state=stacked(1, 2, 2),
        variant="dropout",
        random=True,
    ),
    Row(
        "RNN",
        lambda nn: through(nn.RNN(3, 2, bidirectional=True), ragged(2, count=2)),
        RAGGED,
        out=size(4, 4),
        state=stacked(1, 2, both=True),
        variant="ragged",
    ),
    Row(
        "GRU",
        lambda nn: through(nn.GRU(3, 2), from_states(2, count=1)),
        SEQUENCES,
        out=size(2, 2),
        state=stacked(3, 2),
        errors=FEATURES,
    ),
    Row(
        "GRU",
        lambda nn: through(nn.GRU(3, 2, 2, bias=False, batch_first=True, dropout=0.4), plain),
        tuple(sample._replace(modes=BOTH) for sample in BATCHES_FIRST),
        out=size_batch_first(2, 4),
        state=stacked(3, 2, 2, bias=False),
        variant="dropout",
        random=True,
    ),
    Row(
        "GRU",
        lambda nn: through(nn.GRU(3, 2, 2, bidirectional=True), ragged(2, count=4)),
        RAGGED,
        out=size(4, 8),
        state=stacked(3, 2, 2, both=True),
        variant="ragged",
    ),
    Row(
        "LSTM",
        lambda nn: through(nn.LSTM(3, 2), from_states(2, 2, count=1)),
        SEQUENCES,
        out=size(2, 2, 2),
        state=stacked(4, 2),
        errors=FEATURES,
    ),
    Row(
        "LSTM",
        lambda nn: through(nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True, proj_size=2), plain),
        BATCHES_FIRST,
        out=size_batch_first(4, 8, 16),
        state=stacked(4, 4, 2, both=True, proj=2),
        variant="projected",
    ),
    Row(
        "LSTM",
        lambda nn: through(nn.LSTM(3, 2, 2, dropout=0.3), plain),
        DROPPED,
        out=size(2, 4, 4),
        state=stacked(4, 2, 2),
        variant="dropout",
        random=True,
    ),
    Row(
        "LSTM",
        lambda nn: through(
            nn.LSTM(3, 2, bias=False, batch_first=True, bidirectional=True), ragged(2, 2, count=2, batch_first=True)
        ),
        RAGGED,
        out=size_batch_first(4, 4, 4),
        state=stacked(4, 2, both=True, bias=False),
        variant="ragged",
    ),
    Row(
        "RNNCell",
        lambda nn: nn.RNNCell(3, 2),
        STEPS,
        out=lambda shape: (*shape[:-1], 2),
        state=params(2, 3, 2),
        errors=(
            (Sample((4, 2)), r"RNNCell 3→2: input has 2 features, needs 3"),
            (Sample((4, 2, 3)), r"input: got shape \(4, 2, 3\); needed \(B, D\), or \(D\) for one row"),
        ),
        bad=(
            (lambda nn: nn.RNNCell(3, 2, nonlinearity="sin"), r"RNNCell: nonlinearity: got 'sin'"),
            (lambda nn: nn.GRUCell(3, 0), r"GRUCell: hidden_size: got 0"),
        ),
    ),
    Row(
        "RNNCell",
        lambda nn: through(nn.RNNCell(3, 3, False, "relu"), lambda cell, x: cell.plain(x, x * 2)),
        STEPS,
        state=params(3, 3, 3, bias=False),
        variant="relu",
    ),
    Row(
        "GRUCell",
        lambda nn: through(nn.GRUCell(3, 3), lambda cell, x: cell.plain(x, x * 2)),
        STEPS,
        state=params(9, 3, 3),
        errors=((Sample((4, 2)), r"GRUCell 3→3: input has 2 features, needs 3; input shape \(4, 2\)"),),
    ),
    Row("GRUCell", lambda nn: nn.GRUCell(3, 3, bias=False), STEPS, state=params(9, 3, 3, bias=False), variant="plain"),
    Row(
        "LSTMCell",
        lambda nn: through(nn.LSTMCell(3, 3), lambda cell, x: joined(cell.plain(x, (x * 2, x - 1)))),
        STEPS,
        out=lambda shape: (2 * 3 * (shape[0] if len(shape) > 1 else 1),),
        state=params(12, 3, 3),
        errors=((Sample((4, 2, 3)), r"LSTMCell 3→3: input: got shape \(4, 2, 3\); needed \(B, D\)"),),
    ),
    Row(
        "LSTMCell",
        lambda nn: through(nn.LSTMCell(3, 3, False), lambda cell, x: cell.plain(x)[1]),
        STEPS,
        state=params(12, 3, 3, bias=False),
        variant="plain",
    ),
)

FUNCTION_ROWS: tuple[Row, ...] = ()

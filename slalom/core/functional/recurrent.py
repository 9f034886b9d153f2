"""Recurrent networks over whole sequences.

The inputs of all time steps meet their weight in one product before the loop; a step is then one product of the state
with its own weight, and elementwise gates. Steps are rows of one matrix (time · batch, features), so that a step's
inputs are a slice. From ``LONG`` steps on, they are one operation (``core/scan.py``): recorded once, however many there
are, and the gradient of each weight is one product for all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from slalom.core.dtype import int64
from slalom.core.functional.shaping import cat
from slalom.core.graph import Type
from slalom.core.ops import pointwise, structural
from slalom.core.scan import loop
from slalom.core.step import Body, body_of, in_step
from slalom.core.tensor import Tensor, apply, as_tensor
from slalom.errors import DTypeError, IndexRangeError, ShapeError

__all__ = ["KINDS", "Kind", "Weights", "recurrent", "recurrent_cell"]

State = tuple[Tensor, ...]
LONG: Final = 8
"""From so many time steps on, they are one loop, whose step is recorded once."""


class Weights(NamedTuple):
    """What one direction of one layer has learned, in PyTorch's shapes: a row for each unit of each gate.

    Shapes: weight_ih (gates · H, D), weight_hh (gates · H, P), biases (gates · H), weight_hr (P, H) with P = H without.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None = None
    bias_hh: Tensor | None = None
    weight_hr: Tensor | None = None


class _Hidden(NamedTuple):
    """What a step needs of the weights: transposed once for all steps; the bias only where it is not with the input."""

    weight: Tensor
    bias: Tensor | None
    projection: Tensor | None


class Kind(NamedTuple):
    """A kind of cell: how many gates and states it has, what a step computes, and whether all biases are one sum."""

    gates: int
    states: int
    step: Callable[[Tensor, State, _Hidden], State]
    one_bias: bool = True


# --- one step of each kind ----------------------------------------------------------------------------------------
def _rnn_tanh(x: Tensor, state: State, hidden: _Hidden) -> State:
    """h′ = tanh(x + h·W)."""
    return ((x + state[0] @ hidden.weight).tanh(),)


def _rnn_relu(x: Tensor, state: State, hidden: _Hidden) -> State:
    """h′ = max(x + h·W, 0)."""
    return (apply(pointwise.RELU, x + state[0] @ hidden.weight),)


def _gru(x: Tensor, state: State, hidden: _Hidden) -> State:
    """h′ = (1 − z)·n + z·h with n = tanh(xₙ + r·(h·Wₙ + bₙ)): the bias stands inside the product with r."""
    (h,) = state
    own = h @ hidden.weight
    if hidden.bias is not None:
        own = own + hidden.bias
    (xr, xz, xn), (hr, hz, hn) = x.chunk(3, -1), own.chunk(3, -1)
    r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
    n = (xn + r * hn).tanh()
    return (n + z * (h - n),)


def _lstm(x: Tensor, state: State, hidden: _Hidden) -> State:
    """c′ = f·c + i·g and h′ = o·tanh c′, with h′ multiplied by the projection where there is one."""
    h, c = state
    i, f, g, o = (x + h @ hidden.weight).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    return (h if hidden.projection is None else h @ hidden.projection), c


KINDS: Final[dict[str, Kind]] = {
    "RNN_TANH": Kind(1, 1, _rnn_tanh),
    "RNN_RELU": Kind(1, 1, _rnn_relu),
    "GRU": Kind(3, 1, _gru, one_bias=False),
    "LSTM": Kind(4, 2, _lstm),
}


def _transposed(weight: Tensor) -> Tensor:
    return apply(structural.TRANSPOSE, weight, axes=(1, 0))


def _prepared(kind: Kind, x: Tensor, weights: Weights) -> tuple[Tensor, _Hidden]:
    """The inputs of all steps multiplied by their weight, biases included, and what the steps need besides."""
    out, bias, own = x @ _transposed(weights.weight_ih), weights.bias_ih, weights.bias_hh
    if kind.one_bias and bias is not None and own is not None:
        bias, own = bias + own, None
    out = out if bias is None else out + bias
    projection = None if weights.weight_hr is None else _transposed(weights.weight_hr)
    return out, _Hidden(_transposed(weights.weight_hh), own, projection)


def recurrent_cell(mode: str, input: Tensor, state: State, weights: Weights) -> State:
    """The states after one step. Shapes: input (B, D), states (B, H)."""
    kind = KINDS[mode]
    x, hidden = _prepared(kind, input, weights)
    return kind.step(x, state, hidden)


# --- sequences ----------------------------------------------------------------------------------------------------
def _running(lengths: Any, steps: int, batch: int) -> Tensor:
    """Whether each step of each sequence is one of its own, as (T · B, 1).

    Raises: ShapeError, DTypeError; IndexRangeError for lengths that are known and below 0 or above T.
    """
    given = as_tensor(lengths)
    if given.shape != (batch,):
        raise ShapeError("lengths", got=f"shape {given.shape}", needed=f"({batch},), one for each sequence")
    if given.dtype.kind not in "ui" and batch:
        raise DTypeError("lengths", got=given.dtype.name, needed="integers")
    known = given._known() if isinstance(lengths, Tensor) else np.asarray(lengths)
    if known is not None and batch and not 0 <= known.min() <= known.max() <= steps:
        needed = f"0 to {steps}, the number of time steps"
        raise IndexRangeError("lengths", got=f"{known.min()} to {known.max()}", needed=needed)
    at = Tensor._of(np.arange(steps, dtype=int64).reshape(steps, 1, 1))
    return (at < given.to(int64).reshape(1, batch, 1)).reshape(steps * batch, 1)


def _direction(
    kind: Kind, x: Tensor, state: State, weights: Weights, running: Tensor | None, steps: range
) -> tuple[Tensor, State]:
    """The states h of all steps, as rows in the order of time, and the states after the last step taken."""
    product, hidden = _prepared(kind, x, weights)
    batch = x.shape[0] // len(steps)
    same = len({t.dtype for t in (product, *state, *hidden) if t is not None}) == 1
    if len(steps) >= LONG and same and not in_step():
        out, state = _looped(kind, product, state, hidden, running, steps)
    else:
        outs = []
        for t in steps:
            now = None if running is None else running.narrow(0, t * batch, batch)
            state = _step(kind, product.narrow(0, t * batch, batch), state, hidden, now)
            outs.append(state[0])
        out = cat(outs if steps.step > 0 else outs[::-1])
    return (out if running is None else out.where(running, 0.0)), state


def _step(kind: Kind, x: Tensor, state: State, hidden: _Hidden, now: Tensor | None) -> State:
    """The states after a step; of a sequence that has ended, or has not begun, they stay what they were."""
    new = kind.step(x, state, hidden)
    return new if now is None else tuple([a.where(now, b) for a, b in zip(new, state, strict=True)])


def _looped(
    kind: Kind, product: Tensor, state: State, hidden: _Hidden, running: Tensor | None, steps: range
) -> tuple[Tensor, State]:
    """The same as steps one after the other, as a loop."""
    count, reverse = len(steps), steps.step < 0
    pieces = [t.reshape(count, -1, t.shape[-1]) for t in (product, running) if t is not None]
    fixed = [t for t in hidden if t is not None]
    given = tuple([t is not None for t in hidden])
    types = [
        tuple([Type(t.shape[lead:], t.dtype) for t in group]) for lead, group in ((0, state), (1, pieces), (0, fixed))
    ]
    rows = loop(_body(kind, given, *types), state, pieces, fixed, steps=count, reverse=reverse)
    out = rows[0].narrow(0, 0 if reverse else 1, count)
    last = tuple([t.narrow(0, 0 if reverse else count, 1).squeeze(0) for t in rows])
    return out.reshape(product.shape[0], out.shape[-1]), last


@functools.lru_cache(maxsize=64)
def _body(
    kind: Kind, given: tuple[bool, ...], state: tuple[Type, ...], pieces: tuple[Type, ...], fixed: tuple[Type, ...]
) -> Body:
    """A step as a graph; ``given``: which of the weights there are."""

    def step(*inputs: Tensor) -> State:
        carries, rest = inputs[: len(state)], inputs[len(state) :]
        (x, *now), weights = rest[: len(pieces)], iter(rest[len(pieces) :])
        hidden = _Hidden(*[next(weights) if there else None for there in given])  # type: ignore[arg-type]
        return _step(kind, x, carries, hidden, now[0] if now else None)

    return body_of(step, state, pieces, fixed)


def recurrent(
    mode: str,
    input: Tensor,
    state: State,
    weights: Sequence[Weights],
    *,
    bidirectional: bool = False,
    lengths: Any = None,
    between: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, State]:
    """Layers of recurrent cells over sequences: the last layer's h of all steps, and the states after the last step.

    ``state``: those before the first step, one row of ``weights`` after the other: layer by layer, forwards then
    backwards. ``lengths``: how many steps of each sequence are its own; what stands beyond has no influence, results
    are 0 there, and a sequence read backwards begins at its own end. ``between`` is applied between layers.

    Shapes: input (T, B, D), states (layers · directions, B, H), lengths (B) → (T, B, directions · H), states as given.
    Raises: ShapeError without a time step.
    Source: J. Elman, Finding Structure in Time, 1990 (RNN); S. Hochreiter and J. Schmidhuber, Long Short-Term Memory,
    1997, with the forget gate of F. Gers et al., 2000; K. Cho et al., Learning Phrase Representations, 2014 (GRU).
    """
    kind, (steps, batch, _) = KINDS[mode], input.shape
    if not steps:
        raise ShapeError("input has no time steps", got=f"shape {input.shape}")
    x = input.reshape(steps * batch, input.shape[-1])  # (T·B, D)
    running = None if lengths is None else _running(lengths, steps, batch)
    if running is not None:
        x = x.where(running, 0.0)  # whatever padding holds, NaN included
    forwards = range(steps)
    directions = (forwards, forwards[::-1]) if bidirectional else (forwards,)
    finals: list[State] = []
    for layer in range(len(weights) // len(directions)):
        if layer and between is not None:
            x = between(x)
        outs = []
        for order in directions:
            k = len(finals)
            out, final = _direction(kind, x, tuple([s[k] for s in state]), weights[k], running, order)
            outs.append(out)
            finals.append(final)
        x = cat(outs, 1) if bidirectional else outs[0]  # (T·B, directions·H)
    last = [cat(parts) for parts in zip(*finals, strict=True)]
    return x.reshape(steps, batch, x.shape[-1]), tuple([t.reshape(s.shape) for t, s in zip(last, state, strict=True)])

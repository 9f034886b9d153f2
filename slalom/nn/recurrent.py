"""Recurrent layers: RNN, LSTM and GRU over sequences, and their cells for one step."""

from __future__ import annotations

import math
import warnings
from typing import Any

from slalom.core.functional.creation import empty
from slalom.core.functional.recurrent import KINDS, Weights, recurrent, recurrent_cell
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError, DTypeError, ShapeError
from slalom.nn import functional as F
from slalom.nn import init
from slalom.nn.module import Module, Parameter

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell"]


def _positive(what: str, value: int) -> None:
    if value < 1:
        raise ConfigError(what, got=value, needed="at least 1")


def _mode_of(name: str, nonlinearity: str) -> str:
    if nonlinearity not in ("tanh", "relu"):
        raise ConfigError(f"{name}: nonlinearity", got=repr(nonlinearity), needed="'tanh' or 'relu'")
    return f"RNN_{nonlinearity.upper()}"


class _Recurrent(Module):
    """What sequences and single steps have in common: the input, and where the parameters begin."""

    input_size: int
    hidden_size: int

    def reset_parameters(self) -> None:
        """Draw the initial values anew: U(−1/√H, 1/√H) for all."""
        bound = 1 / math.sqrt(self.hidden_size)
        for p in self._parameters.values():
            if p is not None:
                init.uniform_(p, -bound, bound)

    def _check_input(self, input: Tensor, dims: tuple[int, int], needed: str) -> None:
        shape = input.shape
        if len(shape) not in dims:
            raise ShapeError("input", got=f"shape {shape}", needed=needed)
        if shape[-1] != self.input_size:
            raise ShapeError(f"input has {shape[-1]} features, needs {self.input_size}; input shape {shape}")

    def _states(self, given: Any, shapes: list[tuple[int, ...]], input: Tensor) -> tuple[Tensor, ...]:
        """The states given, checked; zeros where there are none."""
        if given is None:
            return tuple([input.new_zeros(shape) for shape in shapes])
        states = given if len(shapes) > 1 else (given,)
        if not isinstance(states, (tuple, list)) or len(states) != len(shapes):
            raise DTypeError("hx", got=type(given).__name__, needed="a pair of tensors, h and c")
        for name, t, shape in zip("hc", states, shapes, strict=False):
            if t.shape != shape:
                raise ShapeError(f"hx: {name}", got=f"shape {t.shape}", needed=shape)
        return tuple(states)

    def _label(self) -> str:
        return f"{type(self).__name__} {self.input_size}→{self.hidden_size}"


# --- sequences ----------------------------------------------------------------------------------------------------
class RNNBase(_Recurrent):
    """What RNN, LSTM and GRU have in common: layers, directions, and where time and batch stand."""

    __constants__ = ("batch_first", "bidirectional", "dropout", "mode", "num_layers")
    _native = None

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        for what, value in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
            _positive(f"{name}: {what}", value)
        if not 0 <= dropout <= 1:
            raise ConfigError(f"{name}: dropout", got=dropout, needed="a probability, 0 to 1")
        if dropout and num_layers == 1:
            warnings.warn(f"{name}: dropout {dropout} stands between layers, and there is one", stacklevel=3)
        if not 0 <= proj_size < hidden_size:
            raise ConfigError(f"{name}: proj_size", got=proj_size, needed=f"below hidden_size, 0 to {hidden_size - 1}")
        self.mode, self.input_size, self.hidden_size, self.num_layers = mode, input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional, self.proj_size = bidirectional, proj_size
        rows, out = KINDS[mode].gates * hidden_size, proj_size or hidden_size
        for layer in range(num_layers):
            wide = input_size if not layer else out * (2 if bidirectional else 1)
            shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, wide), "weight_hh": (rows, out)}
            if bias:
                shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
            if proj_size:
                shapes["weight_hr"] = (proj_size, hidden_size)
            for suffix in self._suffixes(layer):
                for kind, shape in shapes.items():
                    self.register_parameter(kind + suffix, Parameter(empty(shape, device=device, dtype=dtype)))
        self.reset_parameters()

    def _suffixes(self, layer: int) -> tuple[str, ...]:
        return (f"_l{layer}", f"_l{layer}_reverse") if self.bidirectional else (f"_l{layer}",)

    def _weights(self) -> list[Weights]:
        """The parameters of each direction of each layer."""
        suffixes = [suffix for layer in range(self.num_layers) for suffix in self._suffixes(layer)]
        held = self._parameters
        return [Weights(**{kind: getattr(self, kind + s) for kind in Weights._fields if kind + s in held})
                for s in suffixes]  # fmt: skip

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters, a list for each direction of each layer."""
        return [[t for t in weights if t is not None] for weights in self._weights()]

    def flatten_parameters(self) -> None:
        """Nothing: where parameters lie in memory does not matter here."""

    def forward(self, input: Tensor, hx: Any = None, *, lengths: Any = None) -> Any:
        needed = "(B, T, D)" if self.batch_first else "(T, B, D)"
        self._check_input(input, (2, 3), f"{needed}, or (T, D) for one sequence")
        single = input.ndim == 2
        time_first = self.batch_first and not single
        x = input.unsqueeze(1) if single else input.transpose(0, 1) if time_first else input  # (T, B, D)
        if not x.shape[0]:
            raise ShapeError("input has no time steps", got=f"shape {input.shape}")
        count, units = len(self._suffixes(0)) * self.num_layers, self.proj_size or self.hidden_size
        batch = () if single else (x.shape[1],)
        shapes = [(count, *batch, n) for n in (units, self.hidden_size)[: KINDS[self.mode].states]]
        states = self._states(hx, shapes, x)
        if single:
            states = tuple([s.unsqueeze(1) for s in states])
            lengths = [lengths] if isinstance(lengths, int) else lengths
        out, states = recurrent(
            self.mode, x, states, self._weights(), bidirectional=self.bidirectional, lengths=lengths,
            between=lambda t: F.dropout(t, self.dropout, self.training),
        )  # fmt: skip
        if single:
            out, states = out.squeeze(1), tuple([s.squeeze(1) for s in states])
        elif time_first:
            out = out.transpose(0, 1)
        return out, states if len(states) > 1 else states[0]

    def extra_repr(self) -> str:
        usual = {"proj_size": 0, "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0}
        usual["bidirectional"] = False
        given = [f"{name}={getattr(self, name)}" for name, v in usual.items() if getattr(self, name) != v]
        return ", ".join([str(self.input_size), str(self.hidden_size), *given])


class RNN(RNNBase):
    """Elman's recurrent network: hₜ = tanh(xₜ·W_ihᵀ + b_ih + hₜ₋₁·W_hhᵀ + b_hh), or max(…, 0) with "relu".

    ``num_layers`` stacks it, ``bidirectional`` adds a network that reads backwards, ``dropout`` drops between layers,
    ``batch_first`` puts the batch before time. Call it with the sequences, the states before them (0 if not given) and
    ``lengths``; it returns the last layer's h of all steps, and the states after the last one.

    Shapes: (T, B, input_size) → (T, B, directions · hidden_size) and (num_layers · directions, B, hidden_size);
    (T, input_size) for one sequence without B.
    Raises: ShapeError for other features, states, lengths, and for T = 0.
    Source: J. Elman, Finding Structure in Time, 1990.
    Note: ``lengths`` (B) says how many steps of each sequence are its own: results beyond are 0, the states are those
    at the length, and the backward direction begins there. It does what PyTorch does by packing, in any order of
    lengths, and a length may be 0: then the states stay what they were. Keras returns the last step only, unless told.

    >>> out, h = RNN(3, 4)(Tensor([[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]]), lengths=[1])
    >>> out.shape, h.shape, (out[1] == 0).all()
    ((2, 1, 4), (1, 1, 4), tensor(True))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            _mode_of("RNN", nonlinearity), input_size, hidden_size, num_layers, bias, batch_first, dropout,
            bidirectional, device=device, dtype=dtype,
        )  # fmt: skip
        self.nonlinearity = nonlinearity


class GRU(RNNBase):
    """Gated recurrent units: hₜ = (1 − z)·n + z·hₜ₋₁ with

    r = σ(xₜ·W_irᵀ + hₜ₋₁·W_hrᵀ), z = σ(xₜ·W_izᵀ + hₜ₋₁·W_hzᵀ), n = tanh(xₜ·W_inᵀ + r·(hₜ₋₁·W_hnᵀ)), and biases.

    Options, shapes, ``lengths`` and errors are those of RNN. The rows of the weights are r, z, n.

    Source: K. Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, 2014, equations 5 to 8.
    Note: as in PyTorch, r multiplies the product with W_hn and its bias, not hₜ₋₁ itself, and z keeps the old state;
    the paper has r·hₜ₋₁ inside the product.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            device=device, dtype=dtype,
        )  # fmt: skip


class LSTM(RNNBase):
    """Long short-term memory: cₜ = f·cₜ₋₁ + i·g and hₜ = o·tanh cₜ with

    i, f, o = σ(xₜ·Wᵀ + hₜ₋₁·Uᵀ + b), each with its own W, U, b, and g = tanh(…) alike.

    Options, ``lengths`` and errors are those of RNN; the states are a pair (h, c), given and returned. With
    ``proj_size`` P, hₜ is multiplied by a learned (P, H) matrix. The rows of the weights are i, f, g, o.

    Shapes: as RNN; with ``proj_size``, P takes the place of hidden_size in the output and in h.
    Source: S. Hochreiter and J. Schmidhuber, Long Short-Term Memory, 1997; the forget gate: F. Gers et al., Learning
    to Forget, 2000; the projection: H. Sak et al., Long Short-Term Memory Recurrent Neural Network Architectures, 2014.
    Note: the biases of the forget gate start as all others, as in PyTorch; Keras starts them at 1.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size,
            device=device, dtype=dtype,
        )  # fmt: skip


# --- single steps -------------------------------------------------------------------------------------------------
class _Cell(_Recurrent):
    """What the cells have in common. ``mode`` names what a step computes."""

    __constants__ = ("mode",)

    weight_ih: Parameter
    weight_hh: Parameter
    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(self, mode: str, input_size: int, hidden_size: int, bias: bool, device: Any, dtype: Any) -> None:
        super().__init__()
        for what, value in (("input_size", input_size), ("hidden_size", hidden_size)):
            _positive(f"{type(self).__name__}: {what}", value)
        self.mode, self.input_size, self.hidden_size, self.bias = mode, input_size, hidden_size, bias
        rows = KINDS[mode].gates * hidden_size
        for name, columns in (("weight_ih", input_size), ("weight_hh", hidden_size)):
            self.register_parameter(name, Parameter(empty(rows, columns, device=device, dtype=dtype)))
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, Parameter(empty(rows, device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        self._check_input(input, (1, 2), "(B, D), or (D) for one row")
        shape = (*input.shape[:-1], self.hidden_size)
        states = self._states(hx, [shape] * KINDS[self.mode].states, input)
        single = input.ndim == 1
        if single:
            input, states = input.unsqueeze(0), tuple([s.unsqueeze(0) for s in states])
        weights = Weights(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        states = recurrent_cell(self.mode, input, states, weights)
        if single:
            states = tuple([s.squeeze(0) for s in states])
        return states if len(states) > 1 else states[0]

    def extra_repr(self) -> str:
        return ", ".join([str(self.input_size), str(self.hidden_size), *([] if self.bias else ["bias=False"])])


class RNNCell(_Cell):
    """One step of RNN. Shapes: (B, input_size) and h (B, hidden_size) → h; both without B for one row."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(_mode_of("RNNCell", nonlinearity), input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = nonlinearity

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.nonlinearity == "tanh" else f", nonlinearity={self.nonlinearity}")


class GRUCell(_Cell):
    """One step of GRU. Shapes: (B, input_size) and h (B, hidden_size) → h; both without B for one row."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__("GRU", input_size, hidden_size, bias, device, dtype)


class LSTMCell(_Cell):
    """One step of LSTM. Shapes: (B, input_size) and a pair h, c, each (B, hidden_size) → such a pair; or without B."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__("LSTM", input_size, hidden_size, bias, device, dtype)

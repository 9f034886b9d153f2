"""Random numbers as pure functions of (seed, stream, draw, element).

A Generator is three int64 numbers in a tensor: seed, stream, draw. Every draw reads them and writes draw + 1, eager
and staged alike: inside ``slalom.compile`` the counter is state like any other, so a compiled dropout draws anew at
each call. The bits are Philox4x32-10's (J. Salmon et al., 2011), the same in every executor.

Note: draws from several threads never get the same numbers, but which thread gets which is up to the machine; give
each thread a Generator with a stream of its own. A compiled function reads its generators when it is called.
"""

from __future__ import annotations

import math
import os
import threading
from typing import Any

import numpy as np

from slalom.core import kernels
from slalom.core.autodiff import no_grad
from slalom.core.dtype import as_dtype, float32, float64, get_default_dtype, int64
from slalom.core.functional.creation import _shape
from slalom.core.node import MODE, user_line
from slalom.core.ops.pointwise import SHIFT_RIGHT
from slalom.core.ops.reductions import RANDOM_BITS
from slalom.core.tensor import Tensor, apply, method
from slalom.errors import ConfigError, ShapeError, StagingError

__all__ = [
    "Generator", "bernoulli", "default_generator", "get_rng_state", "initial_seed", "manual_seed", "normal", "rand",
    "rand_like", "randint", "randn", "randn_like", "randperm", "seed", "set_rng_state",
]  # fmt: skip


_DRAWING = threading.RLock()
_STREAMS = 2**32 - 1  # the last one is that of permutations


class Generator:
    """A stream of random numbers. ``state`` (int64: seed, stream, draw) can be read, saved and assigned.

    Raises: ConfigError unless the seed is an integer in −2⁶³ … 2⁶⁴ − 1 and the stream one in 0 … 2³² − 2.

    >>> g = Generator(7)
    >>> a = rand(3, generator=g); g.manual_seed(7); b = rand(3, generator=g); bool((a == b).all())
    Generator(seed=7, stream=0, draw=0)
    True
    """

    def __init__(self, seed: int = 0, stream: int = 0) -> None:
        self.state = _state(seed, stream, 0)

    def manual_seed(self, seed: int) -> Generator:
        """Start again from ``seed``, in the same stream."""
        self.state.assign(self.state * Tensor([0, 1, 0], dtype=int64) + _state(seed, 0, 0))
        return self

    def set(self, seed: int, stream: int, draw: int) -> None:
        """Go to a known place, so that what follows is a function of it (a training step, for one)."""
        self.state.assign(_state(seed, stream, draw))

    def initial_seed(self) -> int:
        """The seed in use; a negative one counts from 2⁶⁴, as in PyTorch."""
        return int(self.state[0].item()) % 2**64

    def get_state(self) -> Tensor:
        """A copy of the state."""
        return Tensor(self.state.numpy())

    def set_state(self, state: Tensor) -> None:
        """Continue where ``get_state`` was called."""
        self.state.assign(state)

    def bits(self, shape: tuple[int, ...]) -> Tensor:
        """uint32 words of the next draw."""
        with no_grad(), _DRAWING:
            words = apply(RANDOM_BITS, self.state, shape=shape)
            self.state.assign(self.state + Tensor._of(np.array([0, 0, 1], int64)))
        return words

    def __repr__(self) -> str:
        seed, stream, draw = self.state.tolist()
        return f"Generator(seed={seed}, stream={stream}, draw={draw})"


def _state(seed: int, stream: int, draw: int) -> Tensor:
    _check_whole("seed", seed, -(2**63), 2**64)
    _check_whole("stream", stream, 0, _STREAMS)
    signed = int(seed) - 2**64 if seed >= 2**63 else int(seed)
    return Tensor([signed, int(stream), draw], dtype=int64)


def _check_whole(what: str, value: Any, low: int, end: int) -> None:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not low <= value < end:
        raise ConfigError(what, got=repr(value), needed=f"an integer from {low} to {end - 1}")


default_generator = Generator(0)


def manual_seed(seed: int) -> Generator:
    """Seed the generator that everything uses unless it is given one of its own."""
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Seed the default generator from the operating system; returns the seed."""
    chosen = int.from_bytes(os.urandom(6), "little")
    manual_seed(chosen)
    return chosen


def initial_seed() -> int:
    """The default generator's seed."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """A copy of the default generator's state."""
    return default_generator.get_state()


def set_rng_state(state: Tensor) -> None:
    """Let the default generator continue from a saved state."""
    default_generator.set_state(state)


# --- distributions ------------------------------------------------------------------------------------------------
def _uniform(shape: tuple[int, ...], dtype: Any, generator: Generator | None) -> Tensor:
    """k·2⁻²⁴ in float32, k·2⁻⁵³ in float64, from the upper bits of the words; in [0, 1)."""
    source = generator or default_generator
    if dtype == float64:
        words = source.bits((*shape, 2))
        high = apply(SHIFT_RIGHT, words[..., 0], Tensor._of(np.array(5, np.uint32))).to(float64)
        low = apply(SHIFT_RIGHT, words[..., 1], Tensor._of(np.array(6, np.uint32))).to(float64)
        return (high * 2.0**26 + low) * 2.0**-53
    words = apply(SHIFT_RIGHT, source.bits(shape), Tensor._of(np.array(8, np.uint32)))
    return words.to(dtype) * 2.0**-24


def _floating(dtype: Any) -> Any:
    wanted = get_default_dtype() if dtype is None else as_dtype(dtype)
    if wanted.kind != "f":
        raise ConfigError("random numbers: dtype", got=wanted.name, needed="a floating dtype")
    return wanted


def rand(*size: Any, generator: Generator | None = None, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Uniform in [0, 1)."""
    out = _uniform(_shape(size), _floating(dtype), generator)
    return out.requires_grad_() if requires_grad else out


def randn(*size: Any, generator: Generator | None = None, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Standard normal, by √(−2 ln u)·cos 2πv in float64 (G. Box and M. Muller, 1958)."""
    shape = _shape(size)
    pair = _uniform((*shape, 2), float64, generator)
    out = ((-2 * (1 - pair[..., 0]).log()).sqrt() * (pair[..., 1] * (2 * math.pi)).cos()).to(_floating(dtype))
    return out.requires_grad_() if requires_grad else out


def rand_like(input: Tensor, *, generator: Generator | None = None) -> Tensor:
    """Uniform in [0, 1), in the shape and dtype of another tensor."""
    return rand(input.shape, generator=generator, dtype=input.dtype)


def randn_like(input: Tensor, *, generator: Generator | None = None) -> Tensor:
    """Standard normal, in the shape and dtype of another tensor."""
    return randn(input.shape, generator=generator, dtype=input.dtype)


def normal(mean: Any, std: Any, size: Any = None, *, generator: Generator | None = None) -> Tensor:
    """Normal with the given mean and standard deviation."""
    if size is None:
        like = mean if isinstance(mean, Tensor) else std
        if not isinstance(like, Tensor):
            raise ShapeError("normal", got="two numbers", needed="a size, or a tensor for mean or std")
        size = like.shape
    out: Tensor = randn(size, generator=generator) * std + mean
    return out


def randint(low: int, high: int | None = None, size: Any = None, *, generator: Generator | None = None) -> Tensor:
    """Whole numbers in low … high − 1 (int64); called as (high, size) the lower bound is 0.

    Raises: ConfigError unless low < high, at most 2⁵³ apart.
    Note: ⌊u·n⌋ with u of 53 bits: the probabilities differ by less than n·2⁻⁵³.
    """
    if size is None:
        high, size = None, high
    if high is None:
        low, high = 0, low
    if size is None or not 0 < high - low <= 2**53:
        raise ConfigError("randint", got=f"low {low}, high {high}, size {size}", needed="low below high, and a size")
    u = _uniform(_shape((size,)), float64, generator)
    return (u * float(high - low)).to(int64) + low


def randperm(n: int, *, generator: Generator | None = None) -> Tensor:
    """A random order of 0 … n−1: a keyed bijection evaluated by index, never a sort.

    Raises: StagingError inside ``slalom.compile``.
    """
    if MODE.get().trace is not None:
        what = f"randperm while staging, at {user_line()}"
        raise StagingError(what, hint="draw it outside and pass it as an argument")
    key = (generator or default_generator).bits((2,)).tolist()
    return Tensor._of(kernels.permutation(key[0] | key[1] << 32, 0, n))


def bernoulli(input: Tensor, *, generator: Generator | None = None) -> Tensor:
    """1 with the given probabilities, else 0."""
    return (_uniform(input.shape, float32, generator) < input).to(input.dtype)


@method
def uniform_(self: Tensor, a: float = 0.0, b: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with uniform numbers in [a, b). Raises: ConfigError for b < a. Note: rounding may give b, as in PyTorch."""
    if not a <= b:
        raise ConfigError("uniform_", got=f"a {a}, b {b}", needed="a at most b")
    return self.assign(rand(self.shape, generator=generator, dtype=self.dtype) * (b - a) + a)


@method
def normal_(self: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with normal numbers. Raises: ConfigError for std < 0."""
    if not std >= 0:
        raise ConfigError("normal_: std", got=std, needed="0 or more")
    return self.assign(randn(self.shape, generator=generator, dtype=self.dtype) * std + mean)


@method
def bernoulli_(self: Tensor, p: float = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Fill with 1 with probability p, else 0."""
    return self.assign((rand(self.shape, generator=generator, dtype=float32) < p).to(self.dtype))

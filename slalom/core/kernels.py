"""NumPy kernels that are more than one NumPy call: what primitives use as their ``impl``.

Pure functions of arrays: the special functions, the counter-based generator, the keyed permutation, windows and their
transpose, gather and its transpose. They are the oracle that compiled code is compared with, so the order of every
sum and every bit of the integer arithmetic is part of their definition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
from math import isqrt, prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from slalom.core.shape import Shape, window_count
from slalom.errors import ConfigError, DTypeError, IndexRangeError, ShapeError

__all__ = [
    "erf",
    "fold",
    "gather",
    "permutation",
    "permutation_at",
    "philox",
    "random_bits",
    "scatter_add",
    "sigmoid",
    "softplus",
    "windows",
]

Array = npt.NDArray[Any]
_BLOCK: Final = 16_384
"""Elements worked on at a time by the kernels of many passes, so that the scratch arrays stay in the L2 cache."""


def _blocks(size: int, block: int = _BLOCK) -> Iterator[slice]:
    return (slice(start, min(start + block, size)) for start in range(0, size, block))


# --- special functions ------------------------------------------------------------------------------------------------

_Rational = tuple[tuple[float, ...], tuple[float, ...]]
_ERF: Final[dict[np.dtype[Any], tuple[float, _Rational, _Rational]]] = {
    # dtype: (where erf has rounded to 1, R of |x| ≤ 1, R of |x| > 1); a rational as (numerator, denominator), in
    # rising powers. The errors relative to erf before rounding: 2^-28.6 and 2^-32.4; 2^-60.3 and 2^-59.4.
    np.dtype(np.float32): (
        4.0,
        ((0.1283791644, -0.3309802624, -0.01459749163, -0.001342137179), (1.0, 0.3516607628, 0.03767061492)),
        ((1.001017035, 0.7613180365, 0.245938743), (1.0, 1.896251601, 1.365911065, 0.4346356314)),
    ),
    np.dtype(np.float64): (
        6.0,
        (
            (
                *(0.12837916709551257, -0.31700613950510412, -0.048329455750273899),
                *(-0.0088156679494334175, -0.00049561345606778904, -2.0732538611310449e-5),
            ),
            (
                *(1.0, 0.46051279864394852, 0.093813068502773818),
                *(0.010693079023432571, 0.00069249818858016878, 2.081025615889054e-5),
            ),
        ),
        (
            (
                *(0.99999988895173015, 1.3901328421555996, 0.94896829441111162),
                *(0.37326942915355036, 0.084243831130895047, 0.0089145331015082438),
            ),
            (
                *(1.0, 2.5185108378046981, 2.7908093484101888, 1.7560836113874523),
                *(0.6695629399580809, 0.1493143751914849, 0.015800721817203958),
            ),
        ),
    ),
}


def erf(x: Array) -> Array:
    """The error function.

    erf(x) = 2/√π ∫₀ˣ exp(−t²) dt; computed as x + x·R(x²) for |x| ≤ 1 and as ±(1 − exp(−x²)·R(|x|)) beyond, within
    2 units in the last place of float32 or float64.

    Shapes: any, kept.
    Raises: DTypeError for other dtypes.
    Source: Cody (1969), "Rational Chebyshev approximations for the error function", the form of his equations;
    the coefficients are minimax fits of our own (Lawson's weighted least squares in 90 digits, joined at 1).
    """
    x = np.asarray(x)
    if x.dtype not in _ERF:
        raise DTypeError("erf", got=x.dtype, needed="float32 or float64")
    out = np.empty(x.shape, x.dtype)
    source, target = x.reshape(-1), out.reshape(-1)
    for block in _blocks(x.size):
        _erf_into(target[block], source[block])
    return out


def _erf_into(out: Array, x: Array) -> None:
    limit, central, tail = _ERF[x.dtype]
    x = np.minimum(x, limit)
    np.maximum(x, -limit, out=x)
    square = x * x
    np.multiply(_ratio(square, central), x, out=out)
    out += x
    (far,) = np.nonzero(square > 1.0)
    if far.size:
        x = x[far]
        distance = np.abs(x)
        rest = np.exp(np.negative(square[far]))
        rest *= _ratio(distance, tail)
        out[far] = np.copysign(np.subtract(1.0, rest, out=rest), x)


def _ratio(x: Array, rational: _Rational) -> Array:
    """The rational function at x, by Horner's rule above and below."""
    above, below = (_horner(x, coefficients) for coefficients in rational)
    return np.divide(above, below, out=above)


def _horner(x: Array, coefficients: tuple[float, ...]) -> Array:
    *rest, highest = coefficients
    total = x * highest
    for c in rest[:0:-1]:
        total += c
        total *= x
    total += rest[0]
    return total


def sigmoid(x: Array) -> Array:
    """The logistic function 1 / (1 + exp(−x)), without overflow.

    With e = exp(−|x|) it is 1 / (1 + e) for x ≥ 0 and e / (1 + e) below: max(e, [x ≥ 0]) serves as the numerator,
    since e ≤ 1, and hands on NaN.
    """
    e = np.exp(np.copysign(x, -1.0))
    result: Array = np.maximum(e, np.greater_equal(x, 0.0)) / (e + 1.0)
    return result


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), computed as max(x, 0) + log1p(exp(−|x|)), without overflow."""
    result: Array = np.maximum(x, 0.0) + np.log1p(np.exp(np.copysign(x, -1.0)))
    return result


# --- the counter-based generator --------------------------------------------------------------------------------------

_ROUNDS: Final = 10
_LOW: Final = 0xFFFF_FFFF
_MULTIPLIERS: Final = np.array([[0xD2511F53], [0xCD9E8D57]], np.uint64)
_WEYL: Final = np.array([0x9E3779B9, 0xBB67AE85], np.uint64)
_SCHEDULE: Final = np.arange(_ROUNDS, dtype=np.uint64)[:, None] * _WEYL  # (rounds, 2)
_PERMUTATION_STREAM: Final = _LOW
"""The stream number of permutations; all others are free for ``random_bits``."""


def philox(key: tuple[int, int], counter: Sequence[Any]) -> npt.NDArray[np.uint32]:
    """Philox4x32-10: four random words for each block of four counter words, under a key of two.

    Shapes: counter of four integers or arrays that broadcast to S, each in 0 … 2³²−1; result (*S, 4), uint32.
    Source: Salmon, Moraes, Dror, Shaw (2011), "Parallel random numbers: as easy as 1, 2, 3", section 3.3.
    """
    shape = np.broadcast_shapes(*map(np.shape, counter))
    words = np.empty((4, *shape), np.uint64)
    for i, value in enumerate(counter):
        words[i] = value
    words = words.reshape(4, -1)
    keys = (np.array(key, np.uint64) + _SCHEDULE)[..., None] & _LOW  # (rounds, 2, 1)
    # One row for each half: (c0, c2) are multiplied, (c1, c3) wait; the halves change places in every round.
    even, odd = words[0::2].copy(), words[1::2].copy()
    products = np.empty_like(even)
    crossed = products[::-1]
    for round_key in keys:
        np.multiply(even, _MULTIPLIERS, out=products)
        np.right_shift(crossed, 32, out=even)
        even ^= odd
        even ^= round_key
        np.bitwise_and(crossed, _LOW, out=odd)
    result = np.empty((words.shape[1], 4), np.uint32)
    result[:, 0::2], result[:, 1::2] = even.T, odd.T
    return result.reshape(*shape, 4)


def random_bits(state: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.uint32]:
    """``n`` random words of 32 bits; each is a pure function of (seed, stream, draw, its index).

    Element e is word e mod 4 of the Philox block with the key (seed's low word, seed's high word) and the counter
    (e div 4, stream's low word, draw's low word, draw's high word).

    Shapes: state (3,) = seed, stream, draw; result (n,), uint32.
    Raises: ShapeError for more words than one draw has (2³⁴).
    """
    count = -(-n // 4)
    if count > _LOW + 1:
        raise ShapeError("random_bits", got=f"{n} elements", needed="at most 2^34 in one draw")
    seed, stream, draw = (int(word) for word in state)
    out = np.empty((count, 4), np.uint32)
    for block in _blocks(count, _BLOCK // 4):
        index = np.arange(block.start, block.stop, dtype=np.uint64)
        out[block] = philox(_words(seed), (index, stream & _LOW, *_words(draw)))
    return out.reshape(-1)[:n]


def _words(number: int) -> tuple[int, int]:
    """The low and the high 32 bits of an integer's two's complement."""
    return number & _LOW, (number >> 32) & _LOW


# --- the keyed permutation --------------------------------------------------------------------------------------------

_FEISTEL_ROUNDS: Final = 12  # with 8, orders of fewer than ten rows are still not equally likely
_MIX: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # of SplitMix64
_SHIFT: Final = np.uint64(32)


def permutation(seed: int, epoch: int, n: int) -> npt.NDArray[np.int64]:
    """The order of ``n`` rows in ``epoch``: a permutation of 0 … n−1 that is a pure function of its arguments.

    Nothing is sorted and no element depends on another: see ``permutation_at``.
    """
    return permutation_at(seed, epoch, n, np.arange(n, dtype=np.int64))


def permutation_at(seed: int, epoch: int, n: int, indices: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """``permutation(seed, epoch, n)[indices]`` without the rest of it, as a run resumed within an epoch needs it.

    A number v in 0 … a²−1, where a = ⌈√n⌉, is written as v = a·left + right and goes through 12 rounds of
    (left, right) ← (right, (left + F(right)) mod a), a bijection for any F. What comes out as n or more goes through
    again until it is below n, which keeps the whole a bijection of 0 … n−1 ("cycle walking"; a² − n ≤ 2√n of the
    numbers are that large). F(r) = ⌊a·h/2³²⌋ with h the high word of M₂·(x xor ⌊x/2³²⌋), x = M₁·(r + key), modulo
    2⁶⁴. The keys of the rounds are Philox words of (seed, epoch), and a last bit of them says whether the numbers 0
    and 1 change places: for a > 2 the rounds alone give even permutations only.

    Shapes: indices any; the same out, int64.
    Raises: ConfigError for n > 2⁶²; IndexRangeError for an index outside 0 … n−1.
    Source: Black, Rogaway (2002), "Ciphers with arbitrary finite domains", the generalised Feistel cipher.
    """
    if not 0 <= n <= 1 << 62:
        raise ConfigError("permutation: number of elements", got=n, needed="0 … 2^62")
    indices = np.asarray(indices)
    _check_index("permutation_at", 0, indices, n)
    side = np.uint64(isqrt(max(n - 1, 0)) + 1)  # ⌈√n⌉
    keys, swap = permutation_keys(seed, epoch)
    values = indices.reshape(-1).astype(np.uint64)
    for block in _blocks(values.size):
        part = _feistel(values[block], side, keys)
        (outside,) = np.nonzero(part >= n)
        while outside.size:
            again = _feistel(part[outside], side, keys)
            part[outside] = again
            outside = outside[again >= n]
        if swap and n > 1:
            part[part < 2] ^= np.uint64(1)
        values[block] = part
    return values.astype(np.int64).reshape(indices.shape)


@lru_cache(maxsize=64)
def permutation_keys(seed: int, epoch: int) -> tuple[tuple[np.uint64, ...], bool]:
    """What ``permutation`` mixes with: the keys of its rounds, and whether 0 and 1 change places."""
    *keys, swap = permutation_words(seed, (epoch,))[0]
    return tuple(keys), bool(swap)


def permutation_words(seed: int, epochs: Sequence[int]) -> npt.NDArray[np.uint64]:
    """For each of some epochs the keys of the rounds, then 1 where 0 and 1 change places, or else 0.

    Shapes: E epochs; result (E, 13).
    """
    blocks = np.arange(_FEISTEL_ROUNDS // 2 + 1)
    low, high = (np.array(half)[:, None] for half in zip(*map(_words, epochs), strict=True))
    words = philox(_words(seed), (blocks, _PERMUTATION_STREAM, low, high)).astype(np.uint64)  # (E, blocks, 4)
    words = (words[..., 0::2] | words[..., 1::2] << _SHIFT).reshape(len(epochs), -1)
    return np.append(words[:, :_FEISTEL_ROUNDS], words[:, -1:] & np.uint64(1), axis=1)


def _feistel(values: Array, side: np.uint64, keys: Sequence[np.uint64]) -> Array:
    left, right = np.divmod(values, side)
    for key in keys:
        mixed = right + key
        mixed *= _MIX[0]
        mixed ^= mixed >> _SHIFT
        mixed *= _MIX[1]
        mixed >>= _SHIFT
        mixed *= side
        mixed >>= _SHIFT
        mixed += left
        # Both terms are below ``side``: min(s, s − side), where a difference below zero wraps to a huge number.
        left, right = right, np.minimum(mixed, mixed - side, out=mixed)
    left *= side
    left += right
    return left


# --- windows and their transpose --------------------------------------------------------------------------------------


def windows(x: Array, size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Array:
    """All windows over the last len(size) axes, as a read-only view.

    out[…, o, k] = x[…, o·stride + k·dilation]

    Shapes: x (…, *spatial); result (…, *counts, *size), counts as ``window_count`` gives them.
    Raises: ShapeError for sizes, strides or dilations below 1, or of different lengths.
    """
    axes = _check_windows("windows", x.ndim, size, stride, dilation)
    counts = _counts(x.shape[axes:], size, stride, dilation)
    outer = tuple(n * s for n, s in zip(x.strides[axes:], stride, strict=True))
    inner = tuple(n * d for n, d in zip(x.strides[axes:], dilation, strict=True))
    shape, strides = (*x.shape[:axes], *counts, *size), (*x.strides[:axes], *outer, *inner)
    return as_strided(x, shape, strides, writeable=False)


def fold(y: Array, output: Shape, size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Array:
    """The transpose of ``windows``: every window is added back to where it was read.

    out[…, i] = Σ y[…, o, k] over o·stride + k·dilation = i, tap by tap with k in row-major order.

    Shapes: y (…, *counts, *size), output = *spatial; result (…, *spatial).
    Raises: ShapeError as ``windows``, and where ``output`` does not give the windows that y holds.
    """
    rank = len(size)
    axes = _check_windows("fold", y.ndim - rank, size, stride, dilation)
    counts = y.shape[axes : axes + rank]
    expected = _counts(output, size, stride, dilation) if len(output) == rank else ()
    if (*counts, *y.shape[axes + rank :]) != (*expected, *size):
        needed = f"last {2 * rank} axes {(*expected, *size)} for an output of {tuple(output)}"
        raise ShapeError("fold: windows", got=y.shape, needed=needed)
    out = np.zeros((*y.shape[:axes], *output), y.dtype)
    if y.size:
        for tap in product(*map(range, size)):
            starts = [k * d for k, d in zip(tap, dilation, strict=True)]
            slices = [slice(b, b + s * (n - 1) + 1, s) for b, s, n in zip(starts, stride, counts, strict=True)]
            target: tuple[Any, ...] = (..., *slices)
            source: tuple[Any, ...] = (..., *tap)
            out[target] += y[source]
    return out


def _check_windows(name: str, rank: int, *parameters: Sequence[int]) -> int:
    """The number of leading axes. Strided views trust these numbers with memory, so they are checked here too."""
    size, stride, dilation = parameters
    if not 0 < len(size) == len(stride) == len(dilation) <= rank or min(map(min, parameters)) < 1:
        got = f"size {tuple(size)}, stride {tuple(stride)}, dilation {tuple(dilation)} for {rank} axes"
        raise ShapeError(f"{name}: parameters", got=got, needed="one number of at least 1 for each spatial axis")
    return rank - len(size)


def _counts(spatial: Shape, size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Shape:
    return tuple(map(window_count, spatial, size, stride, dilation))


# --- gather and its transpose -----------------------------------------------------------------------------------------


def gather(x: Array, indices: tuple[Array, ...]) -> Array:
    """``x[indices]`` over the leading axes; the index arrays broadcast.

    Shapes: x (n₀, …, *rest), indices that broadcast to I; result (*I, *rest).
    Raises: IndexRangeError for an index outside its axis; negative ones are, here. DTypeError for non-integers.
    """
    for axis, index in enumerate(indices):
        _check_index("gather", axis, index, x.shape[axis])
    if len(indices) == 1 and x.flags.c_contiguous:
        return x.take(indices[0], axis=0)  # two to three times as fast as the general form
    result: Array = x[indices]
    return result


def scatter_add(updates: Array, indices: tuple[Array, ...], shape: Shape) -> Array:
    """The transpose of ``gather``: zeros of ``shape``, to which the updates are added in index order.

    out[indices] += updates, where an index that occurs m times receives m updates, first to last.

    Shapes: indices that broadcast to I; updates (*I, *rest) where shape = (n₀, …, *rest); result ``shape``.
    Raises: IndexRangeError and DTypeError as ``gather``; ShapeError for updates of another shape.
    """
    depth = len(indices)
    for axis, index in enumerate(indices):
        _check_index("scatter_add", axis, index, shape[axis])
    common = np.broadcast_shapes(*(index.shape for index in indices))
    if updates.shape != (*common, *shape[depth:]):
        raise ShapeError("scatter_add: updates", got=updates.shape, needed=(*common, *shape[depth:]))
    out = np.zeros(prod(shape), updates.dtype)
    if updates.size == 0:
        return out.reshape(shape)
    # np.add.at is fast for flat arrays alone, so the index of every element is written out, a few rows at a time.
    width = prod(shape[depth:])
    rows: Array = np.zeros(common, np.intp)
    for index, n in zip(indices, shape[:depth], strict=True):
        rows *= n
        rows += index
    rows, columns = rows.reshape(-1, 1) * width, np.arange(width)
    values = updates.reshape(-1, width)
    for block in _blocks(len(rows), max(1, _BLOCK // width)):
        np.add.at(out, (rows[block] + columns).reshape(-1), values[block].reshape(-1))
    return out.reshape(shape)


_UNSIGNED: Final = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}


def _check_index(name: str, axis: int, index: Array, n: int) -> None:
    """Raises unless all of ``index`` lies in 0 … n−1, in one pass: as unsigned numbers negative ones are huge."""
    if index.dtype.kind not in "iu":
        raise DTypeError(f"{name}: index for axis {axis}", got=index.dtype, needed="integers")
    if index.size and np.maximum.reduce(index.view(_UNSIGNED[index.itemsize]), axis=None) >= n:
        bad = index[(index < 0) | (index >= n)].flat[0]
        raise IndexRangeError(f"{name}: index for axis {axis} of size {n}", got=int(bad), needed=f"0 ≤ index < {n}")

"""Sequences of tokens as batches: windows to learn the next token from, padding, buckets of similar lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from slalom.core import kernels
from slalom.core.dtype import int64
from slalom.core.random import Generator, default_generator
from slalom.core.tensor import Tensor
from slalom.data.dataset import TensorDataset
from slalom.data.loader import Sampler, batch_slices, default_collate
from slalom.errors import ConfigError, DataError

__all__ = [
    "BucketSampler", "NextTokenCollate", "PadCollate", "Seq2SeqBatch", "Seq2SeqCollate", "length_mask",
    "pad_sequences", "windows",
]  # fmt: skip

Ids = npt.NDArray[np.int64]


# --- windows ------------------------------------------------------------------------------------------------------
def windows(ids: Any, length: int, stride: int | None = None) -> TensorDataset:
    """Pieces of a long sequence to learn the next token from: (input, target), the target one token further on.

    Piece k starts at k·stride; ``stride`` is ``length`` by default, so that every token is predicted once. What is left
    over at the end, less than a piece, is left out.

    Shapes: ids (n,) → input (⌊(n − 1 − length) / stride⌋ + 1, length), target alike.
    Raises: ConfigError for lengths below 1; DataError for less than ``length`` + 1 tokens, or for no sequence of them.
    Note: with a stride below the length, tokens occur in several pieces, and memory grows by length / stride.

    >>> windows([1, 2, 3, 4, 5], length=2)[1]
    (tensor([3, 4]), tensor([4, 5]))
    """
    step = length if stride is None else stride
    if min(length, step) < 1:
        raise ConfigError("windows", got=f"length {length}, stride {stride}", needed="at least 1")
    array = np.asarray(ids.numpy() if isinstance(ids, Tensor) else ids)
    if array.ndim != 1 or array.dtype.kind not in "ui":
        got = f"{array.dtype} of shape {array.shape}"
        raise DataError("windows: ids", got=got, needed="one sequence of token numbers")
    if len(array) <= length:
        raise DataError(
            "windows: ids", got=f"{len(array)} tokens", needed=f"at least {length + 1}, one more than a piece"
        )
    pieces = np.lib.stride_tricks.sliding_window_view(array.astype(np.int64), length + 1)[::step]
    return TensorDataset(np.ascontiguousarray(pieces[:, :-1]), np.ascontiguousarray(pieces[:, 1:]))


# --- batches of unequal lengths -----------------------------------------------------------------------------------
def pad_sequences(sequences: Sequence[Any], value: int = 0, *, multiple: int = 1) -> tuple[Tensor, Tensor]:
    """Sequences as one tensor, filled up with ``value`` to the longest one, and how long each is.

    ``multiple``: the length is rounded up to a multiple of it. A compiled step is recorded anew for each length that it
    meets, so that 8 or 16 saves most of that.

    Shapes: B sequences (tᵢ,) → (B, T), (B,) with T = max tᵢ.
    Raises: DataError for no sequences, or for what is no sequence of whole numbers.

    >>> pad_sequences([[5, 6, 7], [8]])
    (tensor([[5, 6, 7],
            [8, 0, 0]]), tensor([3, 1]))
    """
    if multiple < 1:
        raise ConfigError("pad_sequences: multiple", got=multiple, needed="at least 1")
    arrays = [_sequence(sequence) for sequence in sequences]
    if not arrays:
        raise DataError("pad_sequences", got="no sequences", needed="at least one")
    lengths = np.array([len(array) for array in arrays], np.int64)
    padded = np.full((len(arrays), -(-int(lengths.max()) // multiple) * multiple), value, np.int64)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return Tensor._of(padded), Tensor._of(lengths)


def _sequence(sequence: Any) -> Ids:
    array = np.asarray(sequence.numpy() if isinstance(sequence, Tensor) else sequence)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "ui"):
        got = f"{array.dtype} of shape {array.shape}"
        raise DataError("a sequence of a batch", got=got, needed="one sequence of token numbers")
    return array.astype(np.int64)


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """Where sequences of given lengths have tokens: out[i, t] = t < lengths[i]. Shapes: (B,) → (B, size).

    Note: True means "look at it"; PyTorch's ``key_padding_mask`` is the opposite, ``~length_mask(…)``.

    >>> length_mask(Tensor([2, 0]), 3).tolist()
    [[True, True, False], [False, False, False]]
    """
    return Tensor._of(np.arange(size, dtype=int64)) < lengths.reshape(-1, 1)


class BucketSampler(Sampler):
    """Batches of rows of similar length, so that little is padding; for ``DataLoader(…, batch_sampler=…)``.

    At each pass the rows are shuffled, cut into pools of ``pool`` batches, sorted by length within each pool, and cut
    into batches, whose order is shuffled in turn. All of it is a pure function of (seed, epoch): the seed is that of
    ``generator`` (by default the one of ``slalom.manual_seed``); ``epoch`` counts the passes and may be set.

    ``lengths``: of all rows. ``pool``: the larger, the less padding, and the less chance which rows meet.
    ``shuffle=False``: rows sorted by length, in the same batches at each pass.

    Raises: ConfigError for sizes that are none; DataError for lengths that are no whole numbers.
    """

    def __init__(
        self,
        lengths: Any,
        batch_size: int,
        *,
        shuffle: bool = True,
        drop_last: bool = False,
        pool: int = 100,
        generator: Generator | None = None,
    ) -> None:
        self.lengths = _sequence(lengths)
        self.batch_size, self.shuffle, self.drop_last, self.pool = batch_size, shuffle, drop_last, pool
        self.generator = generator
        self.epoch = 0
        batch_slices(0, batch_size)  # raises for a size that is none
        if pool < 1:
            raise ConfigError("BucketSampler: pool", got=pool, needed="at least 1 batch")

    def __len__(self) -> int:
        return len(batch_slices(len(self.lengths), self.batch_size, self.drop_last))

    def __iter__(self) -> Iterator[list[int]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        return iter(self._batches(epoch))

    def _batches(self, epoch: int) -> list[list[int]]:
        n = len(self.lengths)
        if not self.shuffle:
            order = np.argsort(self.lengths, kind="stable")
            return [order[cut].tolist() for cut in batch_slices(n, self.batch_size, self.drop_last)]
        seed = (self.generator or default_generator).initial_seed()
        order = kernels.permutation(seed, epoch, n)
        size = self.pool * self.batch_size
        for start in range(0, n, size):
            part = order[start : start + size]
            order[start : start + size] = part[np.argsort(self.lengths[part], kind="stable")]
        cuts = batch_slices(n, self.batch_size, self.drop_last)
        return [order[cuts[i]].tolist() for i in kernels.permutation(seed ^ 1, epoch, len(cuts))]

    def __repr__(self) -> str:
        options = f"shuffle={self.shuffle}, drop_last={self.drop_last}, pool={self.pool}"
        return f"BucketSampler({len(self.lengths)} rows, {self.batch_size}, {options})"


@dataclass(frozen=True)
class PadCollate:
    """Rows (ids, …) as a batch (padded ids, lengths, …), the other fields as ``default_collate`` puts them together.

    >>> PadCollate()([([5, 6], 1), ([7], 0)])
    (tensor([[5, 6],
            [7, 0]]), tensor([2, 1]), tensor([1, 0]))
    """

    pad: int = 0
    multiple: int = 1

    def __call__(self, rows: Sequence[Any]) -> tuple[Any, ...]:
        fields = [row if isinstance(row, tuple) else (row,) for row in rows]
        ids, lengths = pad_sequences([row[0] for row in fields], self.pad, multiple=self.multiple)
        rest = default_collate([row[1:] for row in fields]) if fields[0][1:] else ()
        return (ids, lengths, *rest)


@dataclass(frozen=True)
class NextTokenCollate:
    """Sequences as a batch to learn the next token from: input (start, a, b, c), target (a, b, c, end).

    The input is filled up with ``pad``, the target with ``ignore``, which ``CrossEntropyLoss`` leaves out.

    Shapes: B sequences (tᵢ,) → (B, T), (B, T) with T = 1 + max tᵢ.

    >>> NextTokenCollate(start=1, end=2)([[5, 6], [7]])
    (tensor([[1, 5, 6],
            [1, 7, 0]]), tensor([[   5,    6,    2],
            [   7,    2, -100]]))
    """

    start: int
    end: int
    pad: int = 0
    ignore: int = -100
    multiple: int = 1

    def __call__(self, rows: Sequence[Any]) -> tuple[Tensor, Tensor]:
        sequences = [_sequence(row) for row in rows]
        given, _ = pad_sequences([[self.start, *ids] for ids in sequences], self.pad, multiple=self.multiple)
        target, _ = pad_sequences([[*ids, self.end] for ids in sequences], self.ignore, multiple=self.multiple)
        return given, target


class Seq2SeqBatch(NamedTuple):
    """A batch of pairs of sequences: what a model gets, and last what it is to say.

    Masks are True where there is a token.
    """

    source: Tensor
    target_in: Tensor
    source_mask: Tensor
    target_mask: Tensor
    target_out: Tensor


@dataclass(frozen=True)
class Seq2SeqCollate:
    """Pairs (source ids, target ids) as a Seq2SeqBatch: the decoder gets (start, a, b), and is to say (a, b, end).

    Shapes: source, source_mask (B, S); target_in, target_mask, target_out (B, T) with T = 1 + the longest target.
    Note: the last of the batch is the target, filled up with ``ignore``, so that ``Trainer`` calls the model as
    model(source, target_in, source_mask, target_mask), and ``CrossEntropyLoss`` leaves the padding out.

    >>> batch = Seq2SeqCollate(start=1, end=2)([([5, 6], [7]), ([8], [9, 9])])
    >>> batch.target_in.tolist(), batch.target_out.tolist()
    ([[1, 7, 0], [1, 9, 9]], [[7, 2, -100], [9, 9, 2]])
    """

    start: int
    end: int
    pad: int = 0
    ignore: int = -100
    multiple: int = 1

    def __call__(self, rows: Sequence[Any]) -> Seq2SeqBatch:
        if not all(isinstance(row, (tuple, list)) and len(row) == 2 for row in rows):
            raise DataError("Seq2SeqCollate", got="rows of another form", needed="pairs (source ids, target ids)")
        source, lengths = pad_sequences([row[0] for row in rows], self.pad, multiple=self.multiple)
        shift = NextTokenCollate(self.start, self.end, self.pad, self.ignore, self.multiple)
        target_in, target_out = shift([row[1] for row in rows])
        targets = Tensor([len(row[1]) + 1 for row in rows])
        masks = length_mask(lengths, source.shape[1]), length_mask(targets, target_in.shape[1])
        return Seq2SeqBatch(source, target_in, *masks, target_out)

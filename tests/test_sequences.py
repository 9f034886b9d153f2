"""Windows, padding, buckets and pairs of sequences; and a fit on each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fits import assert_same, state
from hypothesis import given
from hypothesis import strategies as st

import slalom
from slalom import Tensor, nn, optim, tensor
from slalom.compiler.native import native
from slalom.core.random import Generator
from slalom.data import DataLoader, text
from slalom.data.text import (
    BucketSampler,
    CharTokenizer,
    NextTokenCollate,
    PadCollate,
    Seq2SeqBatch,
    Seq2SeqCollate,
    length_mask,
    pad_sequences,
    windows,
)
from slalom.errors import ConfigError, DataError, SlalomError
from slalom.train import Trainer

NATIVE_BITS = True

SEQUENCES = st.lists(st.lists(st.integers(0, 1000), max_size=12), min_size=1, max_size=8)


def test_every_name_is_gathered() -> None:
    from_modules = {*text.sequences.__all__, *text.tokens.__all__}
    assert set(text.__all__) == from_modules


# --- windows ------------------------------------------------------------------------------------------------------
@given(st.integers(2, 60), st.integers(1, 20), st.integers(1, 20) | st.none())
def test_windows_are_pieces_and_what_follows(n: int, length: int, stride: int | None) -> None:
    ids = np.arange(n) * 3
    if n <= length:
        with pytest.raises(DataError, match=f"got {n} tokens; needed at least {length + 1}"):
            windows(ids, length, stride)
        return
    inputs, targets = (t.numpy() for t in windows(tensor(ids), length, stride).tensors)
    step = stride or length
    assert inputs.shape == targets.shape == ((n - 1 - length) // step + 1, length)
    for k, (piece, following) in enumerate(zip(inputs, targets, strict=True)):
        assert np.array_equal(piece, ids[k * step : k * step + length])
        assert np.array_equal(following, piece + 3)
    if stride is None:
        assert len(np.unique(targets)) == targets.size, "each is predicted once"


# --- padding ------------------------------------------------------------------------------------------------------
@given(SEQUENCES, st.integers(1, 5))
def test_padding(sequences: list[list[int]], multiple: int) -> None:
    padded, lengths = (t.numpy() for t in pad_sequences(sequences, -7, multiple=multiple))
    longest = max(map(len, sequences))
    assert padded.dtype == np.int64 and padded.shape[1] % multiple == 0
    assert longest <= padded.shape[1] < longest + multiple and lengths.tolist() == [len(s) for s in sequences]
    mask = length_mask(tensor(lengths), padded.shape[1]).numpy()
    assert [row[kept].tolist() for row, kept in zip(padded, mask, strict=True)] == sequences
    assert (padded[~mask] == -7).all()


def test_a_mask_is_traced() -> None:
    step = slalom.compile(lambda lengths: length_mask(lengths, 4))
    for lengths in ([1, 4], [0, 2]):
        assert step(tensor(lengths)).tolist() == [[t < n for t in range(4)] for n in lengths]
    assert step.traces == 1


# --- buckets ------------------------------------------------------------------------------------------------------
LENGTHS = np.random.default_rng(0).integers(1, 50, 203)


@pytest.mark.parametrize("options", [{}, {"shuffle": False}, {"pool": 1}, {"pool": 3}, {"drop_last": True}], ids=str)
def test_buckets_hold_every_row_once(options: dict[str, Any]) -> None:
    sampler = BucketSampler(LENGTHS, 8, **options)
    batches = list(sampler)
    rows = [i for batch in batches for i in batch]
    assert len(batches) == len(sampler) == (25 if options.get("drop_last") else 26)
    assert len(set(rows)) == len(rows) == (200 if options.get("drop_last") else 203)
    assert sorted(map(len, batches))[1:] == [8] * (len(batches) - 1)
    assert all(type(i) is int for i in rows)


def waste(batches: list[list[int]]) -> float:
    """The share of padding."""
    padded = sum(len(batch) * LENGTHS[batch].max() for batch in batches)
    return 1 - sum(LENGTHS[batch].sum() for batch in batches) / padded


def test_little_is_padding() -> None:
    unsorted, pools, whole = (waste(list(BucketSampler(LENGTHS, 8, pool=pool))) for pool in (1, 5, 100))
    assert unsorted > 0.4 and pools < 0.2 and whole < 0.06
    assert waste(list(BucketSampler(LENGTHS, 8, shuffle=False))) < 0.06


def test_buckets_are_a_function_of_seed_and_epoch() -> None:
    a, b, other = (BucketSampler(LENGTHS, 8, generator=Generator(seed)) for seed in (1, 1, 2))
    first, second = list(a), list(a)
    assert first != second and list(b) == first != list(other)
    b.epoch = 1
    assert list(b) == second and a.epoch == b.epoch == 2
    slalom.manual_seed(1)
    slalom.rand(3)
    assert list(BucketSampler(LENGTHS, 8)) == first
    lengths = [LENGTHS[batch].max() for batch in first[:-1]]
    assert lengths != sorted(lengths) and lengths != sorted(lengths, reverse=True), "batches come in any order"
    still = BucketSampler(LENGTHS, 8, shuffle=False)
    assert list(still) == list(still)


# --- collation ----------------------------------------------------------------------------------------------------
def test_padded_rows_and_their_other_fields() -> None:
    rows = [(np.array([1, 2, 3]), 1, {"w": 0.5}), (np.array([4]), 0, {"w": 1.5})]
    ids, lengths, labels, extra = PadCollate(pad=9, multiple=4)(rows)
    assert ids.tolist() == [[1, 2, 3, 9], [4, 9, 9, 9]] and lengths.tolist() == [3, 1]
    assert labels.tolist() == [1, 0] and extra["w"].tolist() == [0.5, 1.5]
    assert [t.tolist() for t in PadCollate()([[1, 2], [3]])] == [[[1, 2], [3, 0]], [2, 1]]


@given(SEQUENCES, st.integers(1, 4))
def test_the_next_token_is_the_target(sequences: list[list[int]], multiple: int) -> None:
    given_, target = (t.numpy() for t in NextTokenCollate(2001, 2002, 2000, -100, multiple)(sequences))
    assert given_.shape == target.shape
    for row, goal, ids in zip(given_, target, sequences, strict=True):
        assert row[row != 2000].tolist() == [2001, *ids] and goal[goal != -100].tolist() == [*ids, 2002]
        assert np.array_equal(row[1 : 1 + len(ids)], goal[: len(ids)])


@given(
    st.lists(st.tuples(st.lists(st.integers(3, 9), max_size=5), st.lists(st.integers(3, 9), max_size=5)), min_size=1)
)
def test_pairs_of_sequences(pairs: list[tuple[list[int], list[int]]]) -> None:
    batch = Seq2SeqCollate(start=1, end=2)(pairs)
    assert isinstance(batch, Seq2SeqBatch)
    arrays = [t.numpy() for t in batch]
    for (source, target), row, fed, seen, said, goal in zip(pairs, *arrays, strict=True):
        assert row[seen].tolist() == source and not row[~seen].any()
        assert fed[said].tolist() == [1, *target] and not fed[~said].any()
        assert goal[said].tolist() == [*target, 2] and (goal[~said] == -100).all()


# --- fits ---------------------------------------------------------------------------------------------------------
class NextToken(nn.Module):
    """Looks at one token, and at the length of the text so far."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.table = nn.Embedding(tokens, 8)
        self.out = nn.Linear(8, tokens)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.table(ids)).transpose(1, 2)  # (B, T) → (B, C, T)


def fitted(data: Any, tokens: int, **options: Any) -> Trainer:
    slalom.manual_seed(0)
    model = NextToken(tokens)
    trainer = Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optim.Adam(model.parameters(), lr=0.05))
    trainer.fit(data, **({"epochs": 3, "progress": False, "seed": 1} | options))
    return trainer


def test_windows_train_in_the_native_loop() -> None:
    letters = CharTokenizer("abc")
    trainer = fitted(windows(letters.encode("abc" * 200), 12), 3, batch_size=8, epochs=20)
    assert trainer.history[-1]["loss"] < 0.05  # what follows is certain
    assert ("tier A" in trainer.explain()) == native()


def loader(batch_size: int = 8) -> DataLoader[Any]:
    rng = np.random.default_rng(0)
    rows = [rng.integers(3, 9, n).tolist() for n in LENGTHS[:60] % 7]
    sampler = BucketSampler([len(row) for row in rows], batch_size, pool=2)
    return DataLoader(rows, batch_sampler=sampler, collate_fn=NextTokenCollate(1, 2, multiple=4))


def test_a_fit_on_buckets_is_resumed_to_the_same_bits(tmp_path: Path) -> None:
    whole = fitted(loader(), 9)
    assert ("tier B" in whole.explain()) == native() and np.isfinite(whole.history[-1]["loss"])
    options = {"checkpoint": tmp_path / "c", "checkpoint_every": "1 step", "epochs": 3}

    class Stop(slalom.train.Callback):
        def __init__(self, at: int) -> None:
            self.at = at

        def on_steps_end(self, fit: Any, steps: range) -> None:
            fit.interrupted = fit.interrupted or fit.step >= self.at

    assert fitted(loader(), 9, callbacks=[Stop(11)], **options).step < 24
    with pytest.raises(ConfigError, match=r"other data or settings: .*batch_sampler"):
        fitted(loader(9), 9, callbacks=[Stop(11)], resume=True, **options)
    resumed = fitted(loader(), 9, callbacks=[Stop(1000)], resume=True, **options)
    assert_same(state(whole.model), state(resumed.model))


def test_names(shared_data: Callable[[str], Path]) -> None:
    """A model of first letters and last ones learns more than how often letters occur."""
    names = shared_data("names.txt").read_text(encoding="utf-8").split()[:2000]
    letters = CharTokenizer("".join(names), specials=["<pad>", "<start>", "<end>"])
    rows = [letters.encode(name) for name in names]
    collate = NextTokenCollate(letters["<start>"], letters["<end>"], multiple=16)
    sampler = BucketSampler([len(row) for row in rows], 64)
    trainer = fitted(DataLoader(rows, batch_sampler=sampler, collate_fn=collate), len(letters), epochs=4)
    counts = np.bincount(np.concatenate([[*row, letters["<end>"]] for row in rows]))
    shares = counts[counts > 0] / counts.sum()
    assert trainer.history[-1]["loss"] < -(shares * np.log(shares)).sum() - 0.2


# --- mistakes -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: windows([1, 2, 3], 0), ConfigError, "windows: got length 0, stride None; needed at least 1"),
        (lambda: windows([1, 2, 3], 2, 0), ConfigError, "stride 0"),
        (lambda: windows([], 1), DataError, "windows: ids: got"),
        (lambda: windows([0.5, 1.5], 1), DataError, "got float64 of shape"),
        (lambda: windows([[1, 2]], 1), DataError, "needed one sequence of token numbers"),
        (lambda: pad_sequences([]), DataError, "got no sequences; needed at least one"),
        (lambda: pad_sequences([[1], [0.5]]), DataError, "a sequence of a batch: got float64"),
        (lambda: pad_sequences([3]), DataError, r"got int64 of shape \(\)"),
        (lambda: pad_sequences([[1]], multiple=0), ConfigError, "multiple: got 0"),
        (lambda: BucketSampler([1, 2], 0), ConfigError, "batch_size: got 0"),
        (lambda: BucketSampler([1, 2], 1, pool=0), ConfigError, "pool: got 0; needed at least 1 batch"),
        (lambda: BucketSampler([1.5], 1), DataError, "got float64"),
        (lambda: Seq2SeqCollate(1, 2)([[1, 2, 3]]), DataError, "needed pairs"),
    ],
)
def test_mistakes(call: Callable[[], Any], error: type[SlalomError], message: str) -> None:
    with pytest.raises(error, match=message):
        call()

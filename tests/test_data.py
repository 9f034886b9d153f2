"""Datasets, samplers, collation, the loader: PyTorch's semantics, one gather a batch, an order that is a function."""

from __future__ import annotations

import math
from collections import namedtuple
from typing import Any

import numpy as np
import pytest

import slalom
from slalom import data, tensor
from slalom.core import kernels
from slalom.core.ops.reductions import GATHER
from slalom.core.tensor import apply
from slalom.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    batch_slices,
    default_collate,
    random_split,
)
from slalom.errors import ConfigError, DataError, IndexRangeError


class Squares(Dataset):
    """Rows made one by one; notes which were asked for."""

    def __init__(self, n: int) -> None:
        self.n, self.asked = n, []

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Any, int]:
        assert type(index) is int
        self.asked.append(index)
        return tensor([float(index), float(index) ** 2]), index


class Stream(IterableDataset):
    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self) -> Any:
        return ((tensor([float(i)]), i) for i in range(self.n))


def table(n: int) -> TensorDataset:
    return TensorDataset(slalom.arange(2 * n).reshape(n, 2).float(), slalom.arange(n))


def order(loader: Any) -> list[int]:
    return [int(i) for *_, y in loader for i in y]


def sizes(loader: Any) -> list[int]:
    return [len(batch[-1]) for batch in loader]


# --- datasets -----------------------------------------------------------------------------------------------------
def test_tensor_dataset() -> None:
    rows = TensorDataset(tensor([[1.0], [2.0], [3.0]]), np.array([4, 5, 6]))
    assert len(rows) == 3
    x, y = rows[-1]
    assert (x.tolist(), y.item()) == ([3.0], 6)
    assert rows[1:][1].tolist() == [5, 6]


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ([], "got none"),
        ([(3, 2), (4,)], "got shapes (3, 2), (4,)"),
        ([(3,), ()], "got shapes (3,), ()"),
    ],
)
def test_tensors_of_unequal_length_are_refused(shapes: Any, words: str) -> None:
    with pytest.raises(DataError) as caught:
        TensorDataset(*map(slalom.zeros, shapes))
    assert words in str(caught.value)


def test_subset_of_a_subset() -> None:
    part = Subset(Subset(table(10), range(1, 10, 2)), [4, 0])
    assert [y.item() for _, y in part] == [9, 1]
    assert part[-1][1].item() == 1
    assert len(part) == 2
    assert isinstance(part.indices, np.ndarray)


def test_concatenated_datasets() -> None:
    rows = table(3) + Squares(2) + [("row", 7)]
    assert isinstance(rows, ConcatDataset)
    assert [int(rows[i][1]) for i in range(-len(rows), len(rows))] == [0, 1, 2, 0, 1, 7] * 2
    for i in (6, -7):
        with pytest.raises(IndexRangeError, match=f"index {i}: needed -6 to 5"):
            rows[i]
    with pytest.raises(ConfigError, match="no datasets"):
        ConcatDataset([])


@pytest.mark.parametrize(
    ("n", "lengths", "expected"),
    [
        (10, [7, 3], [7, 3]),
        (10, [0.7, 0.3], [7, 3]),
        (10, [0.55, 0.25, 0.2], [6, 2, 2]),
        (5, [0.5, 0.5], [3, 2]),
        (11, [1 / 3, 1 / 3, 1 / 3], [4, 4, 3]),
        (3, [1.0], [3]),
        (1, [1, 0], [1, 0]),
        (0, [0, 0], [0, 0]),
        (4, [0.0, 1.0], [0, 4]),
    ],
)
def test_random_split(n: int, lengths: list[float], expected: list[int]) -> None:
    parts = random_split(range(n), lengths, generator=slalom.Generator(3))
    assert [len(part) for part in parts] == expected
    assert sorted(row for part in parts for row in part) == list(range(n))
    again = random_split(range(n), lengths, generator=slalom.Generator(3))
    assert [list(part) for part in again] == [list(part) for part in parts]


def test_random_split_follows_the_seed() -> None:
    splits = []
    for seed in (1, 1, 2):
        slalom.manual_seed(seed)
        splits.append(list(random_split(range(50), [25, 25])[0]))
    assert splits[0] == splits[1] != splits[2]


@pytest.mark.parametrize("lengths", [[5, 4], [-1, 11], [0.5, 0.4], [5.5, 4.5], [0.5, 9.5]])
def test_lengths_that_do_not_add_up_are_refused(lengths: list[float]) -> None:
    with pytest.raises(ConfigError, match="random_split: lengths"):
        random_split(range(10), lengths)


# --- cutting into batches -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("n", [0, 1, 2, 5, 8, 9, 10])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 8, 20])
def test_batches_cover_the_rows(n: int, batch_size: int) -> None:
    cuts = batch_slices(n, batch_size)
    assert [i for cut in cuts for i in range(n)[cut]] == list(range(n))
    assert len(cuts) == math.ceil(n / batch_size)
    dropped = batch_slices(n, batch_size, drop_last=True)
    assert dropped == [cut for cut in cuts if cut.stop - cut.start == batch_size]
    merged = batch_slices(n, batch_size, merge_last=True)
    assert [i for cut in merged for i in range(n)[cut]] == list(range(n))
    if n > 1 and batch_size > 1:
        assert all(cut.stop - cut.start > 1 for cut in merged)
    assert all(batch_size <= cut.stop - cut.start <= batch_size + 1 for cut in merged[:-1])


def test_no_batch_of_one_row_reaches_batch_norm() -> None:
    norm = slalom.nn.BatchNorm1d(2)
    for options in ({"merge_last": True}, {"drop_last": True}):
        for rows in (table(9), Subset(table(10), range(9))):
            for x, _ in DataLoader(rows, batch_size=4, **options):
                assert bool(slalom.isfinite(norm(x)).all())
    assert sizes(DataLoader(Stream(9), batch_size=4, merge_last=True)) == [4, 5]


# --- collation ----------------------------------------------------------------------------------------------------
Point = namedtuple("Point", "x y")

COLLATED = [
    ([0.5, 1.5], np.float64, [0.5, 1.5]),
    ([1, 2], np.int64, [1, 2]),
    ([True, False], np.bool_, [True, False]),
    ([np.float32(1), np.float32(2)], np.float32, [1, 2]),
    ([np.arange(2), np.arange(2)], np.int64, [[0, 1], [0, 1]]),
    ([np.zeros((2, 0)), np.zeros((2, 0))], np.float64, [[[], []], [[], []]]),
]


@pytest.mark.parametrize(("rows", "dtype", "expected"), COLLATED)
def test_collated_as_pytorch_does(rows: list[Any], dtype: Any, expected: Any) -> None:
    batch = default_collate(rows)
    assert batch.dtype == dtype and batch.tolist() == expected
    torch = pytest.importorskip("torch")
    theirs = torch.utils.data.default_collate(rows)
    assert theirs.tolist() == expected and str(theirs.dtype) == f"torch.{np.dtype(dtype).name}"


def test_collation_goes_through_nested_rows() -> None:
    rows = [
        {"image": tensor([1.0, 2.0]), "point": Point(1, 0.5), "name": "a", "pair": [np.int64(3), b"x"]},
        {"image": tensor([3.0, 4.0]), "point": Point(2, 1.5), "name": "b", "pair": [np.int64(4), b"y"]},
    ]
    batch = default_collate(rows)
    assert batch["image"].tolist() == [[1, 2], [3, 4]]
    assert isinstance(batch["point"], Point) and batch["point"].x.tolist() == [1, 2]
    assert batch["name"] == ["a", "b"]
    assert isinstance(batch["pair"], list) and batch["pair"][0].tolist() == [3, 4] and batch["pair"][1] == [b"x", b"y"]


def test_gradients_flow_through_collated_rows() -> None:
    w = tensor(2.0, requires_grad=True)
    batch = default_collate([w * tensor([1.0, 3.0]), tensor([5.0, 5.0])])
    batch.sum().backward()
    assert batch.tolist() == [[2, 6], [5, 5]] and w.grad.item() == 4


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([tensor([1.0]), tensor([1.0, 2.0])], "a batch of rows of unequal shapes: got (1,), (2,)"),
        ([np.zeros(2), np.zeros((2, 2))], "a batch of rows of unequal shapes: got (2,), (2, 2)"),
        ([(1, 2), (1, 2, 3)], "unequal numbers of fields: got [2, 3]"),
        ([None, None], "rows of type NoneType; needed a collate_fn"),
        ([np.array(["a"]), np.array(["b"])], "rows of type ndarray"),
    ],
)
def test_rows_that_make_no_batch_are_named(rows: list[Any], words: str) -> None:
    with pytest.raises(DataError) as caught:
        default_collate(rows)
    assert words in str(caught.value)


# --- the loader ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rows", [table(10), Squares(10), Subset(table(20), range(10)), [(0.5, i) for i in range(10)]])
def test_a_loader_gives_batches_in_order(rows: Any) -> None:
    loader = DataLoader(rows, batch_size=4)
    assert len(loader) == 3
    assert sizes(loader) == [4, 4, 2]
    assert order(loader) == order(loader) == list(range(10))
    x, y = next(iter(loader))
    assert isinstance(x, slalom.Tensor) and y.dtype == np.int64


@pytest.mark.parametrize("rows", [table(30), Squares(30), Subset(table(40), range(30))])
def test_every_pass_is_another_order_that_seed_and_pass_decide(rows: Any) -> None:
    slalom.manual_seed(5)
    loader = DataLoader(rows, batch_size=8, shuffle=True)
    passes = [order(loader) for _ in range(3)]
    assert passes == [kernels.permutation(5, epoch, 30).tolist() for epoch in range(3)]
    assert len({tuple(p) for p in passes}) == 3
    slalom.rand(7)  # what others draw does not change it
    loader.sampler.epoch = 1
    assert order(loader) == passes[1]
    own = DataLoader(rows, batch_size=8, shuffle=True, generator=slalom.Generator(6))
    assert order(own) == kernels.permutation(6, 0, 30).tolist()


def test_a_pass_makes_no_draw() -> None:
    slalom.manual_seed(5)
    before = slalom.get_rng_state().tolist()
    list(DataLoader(table(30), batch_size=8, shuffle=True))
    assert slalom.get_rng_state().tolist() == before


def test_two_passes_at_once_do_not_disturb_each_other() -> None:
    loader = DataLoader(table(6), batch_size=2, shuffle=True)
    pairs = list(zip(loader, loader, strict=True))
    for side in (0, 1):
        assert sorted(order([pair[side] for pair in pairs])) == list(range(6))


@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: Subset(rows, range(1000))])
def test_a_batch_in_memory_is_one_gather_a_tensor(wrap: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, calls = wrap(table(1000)), []
    monkeypatch.setattr(data.dataset, "apply", lambda prim, *inputs: calls.append(prim) or apply(prim, *inputs))
    loader = DataLoader(rows, batch_size=100, shuffle=True)
    assert sizes(loader) == [100] * 10
    assert calls == [GATHER] * 20


def test_a_dataset_with_rows_of_its_own_is_asked_for_them() -> None:
    class Doubled(TensorDataset):
        def __getitem__(self, index: int) -> Any:
            return tuple(2 * t for t in super().__getitem__(index))

    class Shifted(Subset):
        def __getitem__(self, index: int) -> Any:
            return tuple(t + 1 for t in super().__getitem__(index))

    assert order(DataLoader(Doubled(*table(5).tensors), batch_size=2)) == [0, 2, 4, 6, 8]
    assert order(DataLoader(Subset(Doubled(*table(5).tensors), [1, 2]), batch_size=2)) == [2, 4]
    assert order(DataLoader(Shifted(table(5), [0, 1]), batch_size=2)) == [1, 2]


def test_batches_are_values_of_their_own() -> None:
    rows = table(4)
    for x, _ in DataLoader(rows, batch_size=2):
        x += 100
    assert rows.tensors[0].sum().item() == sum(range(8))


def test_samplers() -> None:
    rows = table(6)
    assert list(SequentialSampler(rows)) == list(range(6))
    assert sorted(RandomSampler(rows)) == list(range(6))
    assert len(RandomSampler(rows)) == len(SequentialSampler(rows)) == 6
    batches = BatchSampler([5, 3, 1], batch_size=2)
    assert (list(batches), len(batches)) == ([[5, 3], [1]], 2)
    assert list(BatchSampler(SequentialSampler(rows), 4, drop_last=True)) == [[0, 1, 2, 3]]
    assert order(DataLoader(rows, batch_size=2, sampler=[5, 3, 1])) == [5, 3, 1]
    assert sizes(DataLoader(rows, batch_size=4, sampler=BatchSampler([0], 1).sampler)) == [1]
    loader = DataLoader(rows, batch_sampler=[[5], [0, 1, 2]])
    assert (sizes(loader), order(loader), len(loader)) == ([1, 3], [5, 0, 1, 2], 2)
    with pytest.raises(NotImplementedError, match="__iter__"):
        iter(Sampler())


def test_collate_fn_makes_the_batch() -> None:
    seen = DataLoader(table(5), batch_size=2, collate_fn=lambda rows: [int(y) for _, y in rows])
    assert list(seen) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(
    ("n", "options", "expected"),
    [
        (7, {}, [3, 3, 1]),
        (7, {"drop_last": True}, [3, 3]),
        (7, {"merge_last": True}, [3, 4]),
        (8, {"merge_last": True}, [3, 3, 2]),
        (1, {"merge_last": True}, [1]),
        (0, {}, []),
    ],
)
def test_streams_are_cut_as_tables_are(n: int, options: dict[str, Any], expected: list[int]) -> None:
    assert sizes(DataLoader(Stream(n), batch_size=3, **options)) == expected
    assert sizes(DataLoader(table(n), batch_size=3, **options)) == expected
    assert len(DataLoader(table(n), batch_size=3, **options)) == len(expected)
    with pytest.raises(TypeError, match="len"):
        len(DataLoader(Stream(n), batch_size=3))


def test_options_of_pytorch_without_a_meaning_here_are_taken() -> None:
    loader = DataLoader(table(4), 2, True, None, None, 2, None, True, prefetch_factor=4, persistent_workers=True)
    assert sorted(order(loader)) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"batch_size": 2.0}, "batch_size: got 2.0"),
        ({"batch_size": True}, "batch_size: got True"),
        ({"batch_size": None}, "batch_size: got None"),
        ({"shuffle": True, "sampler": [0]}, "shuffle: got it and a sampler"),
        ({"batch_sampler": [[0]], "batch_size": 2}, "batch_sampler"),
        ({"batch_sampler": [[0]], "shuffle": True}, "batch_sampler"),
        ({"drop_last": True, "merge_last": True}, "got drop_last and merge_last"),
        ({"num_workers": -1}, "num_workers: got -1"),
        ({"dataset": Stream(3), "shuffle": True}, "shuffle: got it and an IterableDataset"),
        ({"dataset": Stream(3), "sampler": [0]}, "sampler: got it and an IterableDataset"),
    ],
)
def test_options_that_make_no_sense_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DataLoader(**{"dataset": table(4), **options})
    assert words in str(caught.value)


def test_a_class_without_its_methods_says_which() -> None:
    with pytest.raises(NotImplementedError, match="Dataset needs __getitem__"):
        Dataset()[0]
    with pytest.raises(NotImplementedError, match="IterableDataset needs __iter__"):
        iter(IterableDataset())


def test_everything_stands_under_pytorchs_name_too() -> None:
    assert slalom.utils.data.__all__ == data.__all__
    assert all(getattr(slalom.utils.data, name) is getattr(data, name) for name in data.__all__)

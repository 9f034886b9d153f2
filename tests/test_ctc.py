"""Connectionist temporal classification: against all paths counted one by one, and against PyTorch."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from derivatives import check_derivatives

import slalom
from slalom import Tensor, nn, tensor
from slalom.nn import functional as F

Array = np.ndarray[Any, Any]


class Case(NamedTuple):
    """Times, classes, the target of each sequence, how long each input is, and the blank."""

    times: int
    classes: int
    targets: tuple[tuple[int, ...], ...]
    ends: tuple[int, ...]
    blank: int = 0

    @property
    def lengths(self) -> list[int]:
        return [len(target) for target in self.targets]

    @property
    def logits(self) -> Array:
        return np.random.default_rng(self.times).normal(size=(self.times, len(self.targets), self.classes))

    @property
    def log_probs(self) -> Array:
        logits = self.logits
        return np.asarray(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))

    def padded(self, fill: int) -> Tensor:
        width = max(self.lengths, default=0)
        rows = [[*target, *[fill] * (width - len(target))] for target in self.targets]
        return Tensor(np.array(rows, np.int64).reshape(len(rows), width))

    @property
    def joined(self) -> Tensor:
        return Tensor(np.array([c for target in self.targets for c in target], np.int64))


CASES = {
    "plain": Case(5, 4, ((1, 2), (3, 1), (2, 3)), (5, 5, 5)),
    "repeats": Case(5, 3, ((1, 1), (1, 2, 2), (2, 2, 2)), (5, 5, 5)),
    "lengths": Case(6, 3, ((1, 2, 1), (2,), (1, 1)), (6, 2, 4)),
    "empty targets": Case(4, 3, ((), (1,), ()), (4, 4, 0)),
    "all empty": Case(3, 3, ((), ()), (3, 2)),
    "tight": Case(3, 4, ((1, 2, 3), (1, 1)), (3, 3)),
    "too short": Case(3, 3, ((1, 1, 2), (1, 2), (1,)), (3, 1, 0)),
    "last is blank": Case(4, 3, ((0, 1), (1, 1)), (4, 3), blank=2),
    "one": Case(1, 2, ((1,),), (1,)),
    "no time": Case(0, 2, ((1,), ()), (0, 0)),
}
each = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
TIMED = {name: case for name, case in CASES.items() if case.times}
"""Those with an input at all: PyTorch refuses an empty one, and nothing could be differentiated."""
each_timed = pytest.mark.parametrize("case", TIMED.values(), ids=TIMED)


def spelt(path: tuple[int, ...], blank: int) -> tuple[int, ...]:
    return tuple(c for c, _ in itertools.groupby(path) if c != blank)


def counted(case: Case) -> Array:
    """The loss by its definition: the sum over every path that spells the target."""
    losses = []
    for n, (target, end) in enumerate(zip(case.targets, case.ends, strict=True)):
        paths = itertools.product(range(case.classes), repeat=end)
        chances = [
            np.exp(sum(case.log_probs[t, n, c] for t, c in enumerate(path)))
            for path in paths
            if spelt(path, case.blank) == target
        ]
        losses.append(-np.log(sum(chances)) if chances else np.inf)
    return np.array(losses)


def reduced(losses: Array, lengths: list[int], reduction: str) -> Array:
    if reduction == "mean":
        return np.asarray((losses / np.maximum(lengths, 1)).mean())
    return np.asarray(losses.sum()) if reduction == "sum" else losses


@each
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("zero_infinity", [False, True])
def test_all_paths_counted(case: Case, reduction: str, zero_infinity: bool) -> None:
    losses = counted(case)
    if zero_infinity:
        losses[np.isinf(losses)] = 0
    expected = reduced(losses, case.lengths, reduction)
    x = Tensor(case.log_probs)
    for targets in (case.padded(-1), case.padded(99), case.joined):
        loss = nn.CTCLoss(case.blank, reduction, zero_infinity)
        found = loss(x, targets, tensor(list(case.ends)), tensor(case.lengths, dtype="int64"))
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)
        options = {"blank": case.blank, "reduction": reduction, "zero_infinity": zero_infinity}
        twin = F.ctc_loss(x, targets, case.ends, tuple(case.lengths), **options)
        np.testing.assert_array_equal(twin.numpy(), found.numpy())


@each
def test_derivatives(case: Case) -> None:
    targets, lengths = case.padded(0), tuple(case.lengths)
    check_derivatives(
        lambda x: F.ctc_loss(x, targets, case.ends, lengths, case.blank, "none", zero_infinity=True), [case.log_probs]
    )


@each_timed
@pytest.mark.parametrize("joined", [False, True])
def test_staged_equals_eager_bit_for_bit(case: Case, joined: bool) -> None:
    targets = case.joined if joined else case.padded(0)
    given = (targets, tensor(list(case.ends)), tensor(case.lengths, dtype="int64"))

    def step(x: Tensor, targets: Tensor, ends: Tensor, lengths: Tensor) -> Any:
        x.requires_grad = True
        out = F.ctc_loss(slalom.log_softmax(x, -1), targets, ends, lengths, case.blank, "none")
        out.masked_fill(out == float("inf"), 0.0).sum().backward()
        return out.detach(), x.grad

    expected = step(Tensor(case.logits.astype(np.float32)), *given)
    staged = slalom.compile(step)
    for _ in range(2):
        found = staged(Tensor(case.logits.astype(np.float32)), *given)
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    assert staged.traces == 1


@each_timed
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_parity(case: Case, reduction: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(case.logits.astype(dtype)).requires_grad_()
    lengths = [torch.tensor(case.ends), torch.tensor(case.lengths)]
    theirs = torch.nn.CTCLoss(case.blank, reduction, True)
    expected = theirs(x.log_softmax(-1), torch.from_numpy(case.padded(0).numpy()), *lengths)
    expected.sum().backward()
    ours = Tensor(case.logits, dtype=dtype).requires_grad_()
    loss = nn.CTCLoss(case.blank, reduction, True)
    found = loss(slalom.log_softmax(ours, -1), case.padded(0), case.ends, tuple(case.lengths))
    found.sum().backward()
    assert found.dtype == dtype and repr(loss) == repr(theirs)
    assert ours.grad is not None
    tolerance = {"rtol": 1e-10, "atol": 1e-12} if dtype == "float64" else {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), **tolerance)
    np.testing.assert_allclose(ours.grad.numpy(), x.grad.numpy(), **tolerance)


@pytest.mark.parametrize("fill", [np.nan, -np.inf, 1e4])
def test_what_stands_behind_the_end_of_an_input_does_not_matter(fill: float) -> None:
    case = CASES["lengths"]
    x = case.log_probs
    for n, end in enumerate(case.ends):
        x[end:, n] = fill
    given = Tensor(x).requires_grad_()
    found = F.ctc_loss(given, case.padded(0), case.ends, tuple(case.lengths), reduction="none")
    np.testing.assert_allclose(found.detach().numpy(), counted(case), rtol=1e-12)
    found.masked_fill(found == float("inf"), 0.0).sum().backward()
    assert given.grad is not None and np.isfinite(given.grad.numpy()).all()
    assert not any(given.grad.numpy()[end:, n].any() for n, end in enumerate(case.ends))


def test_one_sequence_without_a_batch() -> None:
    case = CASES["one"]
    for lengths in ((tensor(1), tensor(1)), (1, 1), ((1,), (1,))):
        found = F.ctc_loss(Tensor(case.log_probs[:, 0]), tensor([1]), *lengths, reduction="none")
        assert found.shape == () and found.item() == pytest.approx(-case.log_probs[0, 0, 1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1e4, float("inf")])
def test_extreme_inputs_give_finite_gradients(dtype: str, scale: float) -> None:
    """A path that is all but impossible has a finite loss; one that is impossible an infinite one."""
    logs = np.where(np.eye(3)[[0, 2, 0, 2]], 0, -scale)[:, None]  # – 2 – 2, all but surely
    for target, expected in (((2, 2), 0.0), ((2,), scale), ((1, 2), scale), ((2, 2, 2), float("inf"))):
        x = Tensor(logs, dtype=dtype).requires_grad_()
        loss = F.ctc_loss(x, tensor([list(target)]), (4,), (len(target),), reduction="sum")
        loss.backward()
        assert x.grad is not None and np.isfinite(x.grad.numpy()).all()
        assert loss.item() == pytest.approx(expected, rel=1e-3)


def test_long_sequences_stay_exact_in_float32() -> None:
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(200, 2, 20)), Tensor(rng.integers(1, 20, (2, 30)))
    exact, rough = (
        F.ctc_loss(slalom.log_softmax(Tensor(logits, dtype=d), -1), targets, (200, 150), (30, 25), reduction="none")
        for d in ("float64", "float32")
    )
    np.testing.assert_allclose(rough.numpy(), exact.numpy(), rtol=1e-5)


def test_nan_is_never_hidden() -> None:
    x = CASES["plain"].log_probs
    x[2, 1, 3] = np.nan
    found = F.ctc_loss(Tensor(x), CASES["plain"].padded(0), (5, 5, 5), (2, 2, 2), reduction="none").numpy()
    assert np.isnan(found).tolist() == [False, True, False]


X = slalom.zeros(3, 2, 4)
MISTAKES: tuple[tuple[Callable[[], Any], str], ...] = (
    (lambda: F.ctc_loss(X[0, 0], [1], 1, 1), r"log_probs: got shape \(4,\); needed \(T, B, C\) or \(T, C\)"),
    (lambda: F.ctc_loss(X.long(), [[1], [1]], (3, 3), (1, 1)), r"log_probs: got int64; needed a floating dtype"),
    (lambda: F.ctc_loss(X, [[1], [1]], (3, 3), (1, 1), blank=4), r"blank: got 4; needed a class, 0 to 3"),
    (lambda: F.ctc_loss(X, [[1], [1]], (3, 3), (1, 1), reduction="avg"), r"reduction: got 'avg'; needed 'mean'"),
    (lambda: F.ctc_loss(X, [[1], [1]], (3, 4), (1, 1)), r"length 4 in input_lengths: needed 0 to 3"),
    (lambda: F.ctc_loss(X, [[1], [1]], (3, -1), (1, 1)), r"length -1 in input_lengths: needed 0 to 3"),
    (lambda: F.ctc_loss(X, [[1], [1]], (3,), (1, 1)), r"input_lengths: got shape \(1,\); needed \(2,\), one for each"),
    (lambda: F.ctc_loss(X, [[1], [1]], (3.0, 3.0), (1, 1)), r"input_lengths: got float32; needed integers"),
    (lambda: F.ctc_loss(X, [[1], [1]], (3, 3), (1, 2)), r"length 2 in target_lengths: needed 0 to 1"),
    (lambda: F.ctc_loss(X, [[1], [1]], (3, 3), (-1, 1)), r"length -1 in target_lengths: needed 0 to 1"),
    (lambda: F.ctc_loss(X, [1, 2, 3], (3, 3), (1, 1)), r"targets: got shape \(3,\); needed 2 labels, the sum of"),
    (lambda: F.ctc_loss(X, [[1]], (3, 3), (1, 1)), r"targets: got shape \(1, 1\); needed \(2, S\), one row for each"),
    (lambda: F.ctc_loss(X, [[[1]]], (3, 3), (1, 1)), r"targets: got shape \(1, 1, 1\); needed \(B, S\), or all in"),
    (lambda: F.ctc_loss(X, [[1.0], [1.0]], (3, 3), (1, 1)), r"targets: got float32; needed integers. Hint"),
    (lambda: F.ctc_loss(X, [[1], [4]], (3, 3), (1, 1)), r"class 4 in the targets: needed 0 to 3, for 4 classes"),
    (lambda: F.ctc_loss(X, [[1], [-1]], (3, 3), (1, 1)), r"class -1 in the targets: needed 0 to 3"),
    (
        lambda: F.ctc_loss(X, [[1], [0]], (3, 3), (1, 1)),
        r"targets: got the blank, 0; needed labels that are not. Hint",
    ),
)


@pytest.mark.parametrize(("call", "message"), MISTAKES)
def test_mistakes(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(slalom.errors.SlalomError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_it_learns_to_spell() -> None:
    slalom.manual_seed(0)
    targets, lengths = tensor([[1, 2, 2], [3, 1, 0]]), (3, 2)
    logits = slalom.zeros(8, 2, 4).requires_grad_()
    optimizer = slalom.optim.Adam([logits], lr=0.2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.ctc_loss(slalom.log_softmax(logits, -1), targets, (8, 8), lengths)
        loss.backward()
        optimizer.step()
    best = logits.argmax(-1).numpy()
    assert [spelt(tuple(best[:, n].tolist()), 0) for n in (0, 1)] == [(1, 2, 2), (3, 1)]

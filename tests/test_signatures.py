"""Kernels of equal structure are written once: the program is the same, word by word, as if each had been written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import slalom
from slalom import compile as staged
from slalom import nn
from slalom.compiler import llvm, lower
from slalom.compiler.calls import Repeat
from slalom.compiler.native import native
from slalom.compiler.program import Program
from slalom.compiler.signature import Templates
from slalom.core.graph import Graph
from slalom.core.tensor import Tensor
from tests import test_graphs
from tests.test_compiled_graphs import graphs, recorded, training

pytestmark = pytest.mark.skipif(not native(), reason="no native code here")


@pytest.fixture(autouse=True)
def _larger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_graphs, "LARGEST", 5000)


class Forgetful(Templates):
    """Writes every kernel."""

    def get(self, *given: Any) -> Any:
        self._known.clear()
        return super().get(*given)


class Counting(Templates):
    """Counts what it gives and what it writes."""

    given = written = 0

    def get(self, key: Any, held: Any, write: Callable[[], Any]) -> Any:
        def counted() -> Any:
            self.written += 1
            return write()

        self.given += 1
        return super().get(key, held, counted)


def calls(graph: Graph, targets: dict[int, int], templates: Templates, patch: pytest.MonkeyPatch) -> list[Any]:
    """All that the calls of a program say, lowered with these templates."""
    patch.setattr(lower, "Templates", lambda written: templates)
    program = Program(graph, targets)
    found = [one for call in program.lowered.calls for one in (call.calls if isinstance(call, Repeat) else (call,))]
    return [
        (key, call.words, call.tasks, call.writes, call.reads, call.checks, call.flops, call.loops, call.ways)
        for key, call in zip(llvm.keys([call.builder for call in found]), found, strict=True)
    ]


def test_random_graphs_share_kernels_with_all_before(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = Counting()

    @settings(max_examples=150)
    @given(graphs(False))
    def each(drawn: tuple[Graph, list[np.ndarray]]) -> None:
        with monkeypatch.context() as patch:
            assert calls(drawn[0], {}, shared, patch) == calls(drawn[0], {}, Forgetful(), patch), f"{drawn[0]}"

    each()
    assert shared.written < 0.9 * shared.given, "some are shared"


ALIKE: list[Callable[[Tensor], Tensor]] = [
    *(lambda x: x.exp(), lambda x: x.T.exp(), lambda x: x.flip(0).exp(), lambda x: x.flip(1).exp(), lambda x: x.tanh()),
    *(lambda x: x[::2].exp(), lambda x: x[1::2].exp(), lambda x: x[:, ::2].exp(), lambda x: x[:4].exp()),
    *(lambda x: x.to(slalom.int32), lambda x: x.to(slalom.int64), lambda x: x.to(slalom.float64), lambda x: x > 0),
    *(lambda x: x.sum(0), lambda x: x.amax(0), lambda x: x.sum(1), lambda x: x.sum(), lambda x: x.sum(0, keepdim=True)),
    *(lambda x: x.sum(0, dtype=slalom.float64), lambda x: x.argmax(0), lambda x: x.argmax(1), lambda x: x.cumsum(0)),
    *(lambda x, pads=pads: nn.functional.pad(x, pads).exp() for pads in [(1, 0), (0, 1), (1, 1), (2, 2), (0, 0, 1, 0)]),
    *(lambda x, other=other: slalom.where(x > 0, x, other).exp() for other in (0.0, -0.0, np.inf, -np.inf, 2.0)),
    *(lambda x: slalom.where(x > 0, 0.0, x).exp(), lambda x: (x * x.exp()).exp(), lambda x: (x * x.sigmoid()).exp()),
    *(lambda x: x @ x.T, lambda x: x.T @ x, lambda x: (x @ x.T).relu(), lambda x: x[:4] @ x.T, lambda x: x @ x[:4].T),
    *(
        lambda x: x[slalom.arange(8) % 3],
        lambda x: x.exp()[slalom.arange(8), slalom.arange(8)],
        lambda x: x[::2].sum(0),
    ),
    *(lambda x: slalom.cat([x, x.exp()]), lambda x: slalom.cat([x.exp(), x]), lambda x: slalom.cat([x, x.exp()], 1)),
    *(lambda x, at=at: x.roll(*at).exp() for at in [(1, 0), (2, 0), (1, 1)]),
    *(lambda x, k=k: x.tril(k).exp() for k in (-1, 0, 1)),
]
"""What differs in one thing that the text or the words of a kernel follow from."""


@pytest.mark.parametrize("shape", [(8, 8), (9, 9), (8, 64)])
def test_what_differs_little_is_told_apart(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    shared = Counting()
    for f in ALIKE:
        graph, targets, _ = recorded(staged(f), Tensor(np.ones(shape, np.float32)))
        for _ in range(2):
            assert calls(graph, targets, shared, monkeypatch) == calls(graph, targets, Forgetful(), monkeypatch)
    assert shared.written <= shared.given // 2


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.layer, self.out = nn.Embedding(11, 6), nn.LSTM(6, 20, batch_first=True), nn.Linear(20, 11)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(self.embedding(x))[0]).reshape(-1, 11)


def sequence(length: int) -> tuple[Graph, dict[int, int]]:
    """A training step of a network that goes along sequences."""
    slalom.manual_seed(0)
    letters = np.random.default_rng(0).integers(0, 11, (4, length + 1))
    return training(Recurrent(), nn.CrossEntropyLoss(), letters[:, :-1], letters[:, 1:].reshape(-1))[:2]


def alignment(length: int) -> tuple[Graph, dict[int, int]]:
    """The derivative of CTC's loss, whose steps read what moves on by one and two places."""

    def loss(x: Tensor) -> Tensor:
        x.requires_grad_()
        found = nn.functional.ctc_loss(x.log_softmax(2), [[1, 2, 2]] * 2, [length] * 2, [3, 2])
        found.backward()
        return x.grad

    return recorded(staged(loss), Tensor(np.zeros((length, 2, 5), np.float32)))[:2]


def shifted(length: int) -> tuple[Graph, dict[int, int]]:
    """Slices from other places on: read by products, and padded by other numbers, with conditions that say where."""
    weight = slalom.ones(4, 5)

    def f(x: Tensor) -> tuple[Tensor, Tensor]:
        parts = [x[:, i : i + 4] for i in range(length)]
        sums = [nn.functional.pad(part, (i, length - i)).cumsum(1) for i, part in enumerate(parts)]
        return slalom.stack([part @ weight for part in parts]), slalom.stack(sums)

    return recorded(staged(f), Tensor(np.ones((3, length + 4), np.float32)))[:2]


LONG = {"LSTM": sequence, "CTC": alignment, "slices": shifted}


@pytest.mark.parametrize("name", LONG)
def test_longer_sequences_have_the_same_program_and_write_no_more_kernels(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    for length in (8, 12):
        graph, targets = LONG[name](length)
        counting = Counting()
        assert calls(graph, targets, counting, monkeypatch) == calls(graph, targets, Forgetful(), monkeypatch)
        written.append((counting.written, counting.given))
    (few, calls_of_few), (more, calls_of_more) = written
    assert few == more, f"{written}"
    # A loop over time steps is the same however long it is.
    assert calls_of_few == calls_of_more if name == "LSTM" else calls_of_few < calls_of_more, f"{written}"

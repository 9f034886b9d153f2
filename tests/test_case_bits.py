"""The cases that are measured, small: one hash of the weights on any number of threads and any width of registers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import slalom
import slalom.nn.functional as F
from slalom import Tensor, nn, optim
from slalom.compiler import llvm, lower, runtime
from slalom.compiler import native as natively
from slalom.compiler.native import native

NATIVE_BITS = True
pytestmark = pytest.mark.skipif(not native(), reason="no native code here")
TOKENS = 17
STEPS = 4


def lenet() -> nn.Module:
    first = nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2)
    second = nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))


def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, stride, size // 2), nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    """relu(inner(x) + skip(x)), which is half as large where the stride is 2."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        first, second = convolution(inputs, outputs, 3, stride), convolution(outputs, outputs, 3)
        self.inner = nn.Sequential(first, nn.ReLU(), second)
        self.skip = convolution(inputs, outputs, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return (self.inner(x) + self.skip(x)).relu()


def resnet() -> nn.Module:
    blocks = Residual(8, 8, 1), Residual(8, 16, 2), Residual(16, 24, 2)
    return nn.Sequential(
        convolution(3, 8, 3), nn.ReLU(), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10)
    )


class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(TOKENS, 8), nn.LSTM(8, 20, batch_first=True)
        self.out = nn.Linear(20, TOKENS)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(self.embedding(x))[0]).flatten(0, 1)


class Block(nn.Module):
    """A layer of GPT-2: 2 heads of 16, GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(32), nn.LayerNorm(32)
        self.qkv, self.proj = nn.Linear(32, 96), nn.Linear(32, 32)
        self.up, self.down = nn.Linear(32, 128), nn.Linear(128, 32)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = (part.reshape(b, t, 2, 16).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1))
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(seen.transpose(1, 2).reshape(b, t, 32))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Gpt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(TOKENS, 32), nn.Embedding(21, 32)
        self.blocks, self.norm, self.out = nn.Sequential(Block(), Block()), nn.LayerNorm(32), nn.Linear(32, TOKENS)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.blocks(self.embedding(x) + self.positions(slalom.arange(21))))).flatten(0, 1)


class Gru(nn.Module):
    """Of 2 layers, both ways, over sequences that end where their zeros begin."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.out = nn.Embedding(TOKENS, 8), nn.Linear(24, 10)
        self.gru = nn.GRU(8, 12, num_layers=2, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        last = self.gru(self.embedding(x), lengths=(x != 0).sum(1))[1]
        return self.out(slalom.cat([last[-2], last[-1]], 1))


class Translator(nn.Module):
    """An encoder-decoder Transformer, 1 + 1 layers: the first half of x is read, the second is what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.out = nn.Embedding(TOKENS, 32), nn.Linear(32, TOKENS)
        self.transformer = nn.Transformer(32, 2, 1, 1, 48, dropout=0.0, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        read, written = self.embedding(x[:, :10]), self.embedding(x[:, 10:])
        mask = nn.Transformer.generate_square_subsequent_mask(11)
        return self.out(self.transformer(read, written, tgt_mask=mask, tgt_is_causal=True)).flatten(0, 1)


def pixels(*shape: int) -> Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]:
    return lambda rng: (rng.standard_normal(shape).astype(np.float32), rng.integers(0, 10, shape[0]))


def tokens(batch: int, targets: int) -> Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]:
    return lambda rng: (rng.integers(0, TOKENS, (batch, 21)), rng.integers(0, TOKENS, (batch * targets)))


def ragged(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = rng.integers(1, TOKENS, (7, 12))
    x[np.arange(12) >= np.array([12, 0, 5, 1, 12, 11, 3])[:, None]] = 0
    return x, rng.integers(0, 10, 7)


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]]] = {
    "lenet": (lenet, pixels(9, 1, 20, 20)),
    "resnet": (resnet, pixels(5, 3, 16, 16)),
    "lstm": (Lstm, tokens(9, 21)),
    "gpt": (Gpt, tokens(5, 21)),
    "gru": (Gru, ragged),
    "translator": (Translator, tokens(6, 11)),
}


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[int]]:
    """The numbers of threads that steps ran on: as many as there are, however small the work is."""
    before, run, teams = list(runtime._chosen), natively.Table.run, set[int]()

    def counted(table: natively.Table, steps: int, wanted: int) -> Any:
        outcome = run(table, steps, wanted)
        teams.add(outcome.threads)
        return outcome

    monkeypatch.setenv("SLALOM_CACHE_DIR", "")
    monkeypatch.setattr(lower, "GRAIN", 1)
    monkeypatch.setattr(natively, "SHARED", 0)
    monkeypatch.setattr(natively.Table, "run", counted)
    yield teams
    runtime._chosen[:] = before


def trained(case: str) -> str:
    """A digest of the weights, the buffers and all losses of a few steps."""
    make, draw = CASES[case]
    slalom.manual_seed(0)
    x, y = map(slalom.tensor, draw(np.random.default_rng(0)))
    model = make()
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)

    @slalom.compile
    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    losses = [step(x, y).item() for _ in range(STEPS)]
    assert losses[-1] < losses[0]
    digest = hashlib.blake2b(repr(losses).encode())
    for value in model.state_dict().values():
        digest.update(np.ascontiguousarray(value.numpy()))
    return digest.hexdigest()


@pytest.mark.parametrize("case", CASES)
def test_one_hash_of_the_weights(case: str, threads: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    found, host = {}, llvm.Target.host()
    for n in (1, 2, 3):
        threads.clear()
        slalom.set_num_threads(n)
        found[f"{n} threads"] = trained(case)
        assert n in threads
    for bits in (256, 128):
        monkeypatch.setattr(llvm, "_host", lambda bits=bits: host.limited(bits))
        found[f"{bits} bits"] = trained(case)
    assert len(set(found.values())) == 1, f"{found}"

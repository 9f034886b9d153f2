"""The sequence cases of `training.py`: networks over tokens, written once for PyTorch and Slalom, and for JAX.

Each takes integers (B, …) and returns the scores of what is to be predicted as rows, (B · T, classes) or (B, classes);
``Scores`` is their loss. Modules and weights have the same names in both libraries. Nothing is dropped out, so that
losses can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

TOKENS = 65
"""The size of the vocabulary, that of Shakespeare's characters."""


# --- networks -----------------------------------------------------------------------------------------------------
def lstm(nn: Any, F: Any, library: Any) -> Any:
    """A language model: embedding 65 → 32, LSTM 32 → 128, linear 128 → 65."""

    class Lstm(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(TOKENS, 32)
            self.lstm = nn.LSTM(32, 128, batch_first=True)
            self.out = nn.Linear(128, TOKENS)

        def forward(self, x: Any) -> Any:
            return self.out(self.lstm(self.embedding(x))[0]).flatten(0, 1)

    return Lstm()


def gpt(nn: Any, F: Any, library: Any) -> Any:
    """A decoder as in GPT-2: 4 layers × 128 wide × 4 heads, GELU, learned positions, normalised before each part."""
    layers, wide, heads, steps = 4, 128, 4, 64

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(wide), nn.LayerNorm(wide)
            self.qkv, self.proj = nn.Linear(wide, 3 * wide), nn.Linear(wide, wide)
            self.up, self.down = nn.Linear(wide, 4 * wide), nn.Linear(4 * wide, wide)

        def forward(self, x: Any) -> Any:
            b, t, _ = x.shape
            q, k, v = (
                part.reshape(b, t, heads, wide // heads).transpose(1, 2)
                for part in self.qkv(self.norm1(x)).chunk(3, -1)
            )
            seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.proj(seen.transpose(1, 2).reshape(b, t, wide))
            return x + self.down(F.gelu(self.up(self.norm2(x))))

    class Gpt(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.positions = nn.Embedding(TOKENS, wide), nn.Embedding(steps, wide)
            self.blocks = nn.Sequential(*(Block() for _ in range(layers)))
            self.norm, self.out = nn.LayerNorm(wide), nn.Linear(wide, TOKENS)
            self.register_buffer("steps", library.arange(steps), persistent=False)

        def forward(self, x: Any) -> Any:
            return self.out(self.norm(self.blocks(self.embedding(x) + self.positions(self.steps)))).flatten(0, 1)

    return Gpt()


def gru(nn: Any, F: Any, library: Any) -> Any:
    """A classifier of sequences that end where their zeros begin: embedding, GRU 32 → 64 of 2 layers, both ways."""

    class Gru(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(TOKENS, 32)
            self.gru = nn.GRU(32, 64, num_layers=2, bidirectional=True, batch_first=True)
            self.out = nn.Linear(128, 10)

        def forward(self, x: Any) -> Any:
            lengths, inputs = (x != 0).sum(1), self.embedding(x)
            if library.__name__ == "torch":
                ragged = nn.utils.rnn.pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
                last = self.gru(ragged)[1]
            else:
                last = self.gru(inputs, lengths=lengths)[1]
            return self.out(library.cat([last[-2], last[-1]], 1))

    return Gru()


def translator(nn: Any, F: Any, library: Any) -> Any:
    """An encoder-decoder Transformer, 2 + 2 layers × 64 wide × 4 heads: the first half of x is read, the second is what
    was written so far."""

    class Translator(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(TOKENS, 64)
            self.transformer = nn.Transformer(64, 4, 2, 2, 256, dropout=0.0, batch_first=True)
            self.out = nn.Linear(64, TOKENS)
            mask = nn.Transformer.generate_square_subsequent_mask(32)
            self.register_buffer("mask", mask, persistent=False)

        def forward(self, x: Any) -> Any:
            read, written = self.embedding(x[:, :32]), self.embedding(x[:, 32:])
            return self.out(self.transformer(read, written, tgt_mask=self.mask, tgt_is_causal=True)).flatten(0, 1)

    return Translator()


NETWORKS: dict[str, Callable[[Any, Any, Any], Any]] = {"lstm": lstm, "gpt": gpt, "gru": gru, "translator": translator}


def model(name: str, library: Any) -> Any:
    """A network of a library: of ``torch`` or ``slalom``."""
    return NETWORKS[name](library.nn, library.nn.functional, library)


def scores_loss(library: Any) -> Any:
    """Cross-entropy of scores as rows and targets of any shape."""

    class Scores(library.nn.CrossEntropyLoss):  # type: ignore[misc]
        def forward(self, scores: Any, target: Any) -> Any:
            return super().forward(scores, target.flatten())

    return Scores()


# --- data ---------------------------------------------------------------------------------------------------------
def data(name: str, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and targets: what follows is a sum of two that went before; classes are the most frequent residue."""
    rng = np.random.default_rng(0)
    if name == "gru":
        x = rng.integers(1, TOKENS, (rows, 40))
        x[np.arange(40) >= rng.integers(1, 41, (rows, 1))] = 0
        return x, np.stack([((x % 10 == c) & (x != 0)).sum(1) for c in range(10)], 1).argmax(1)
    steps = 64
    x = rng.integers(0, TOKENS, (rows, steps + 1))
    for t in range(2, steps + 1):
        kept = rng.random(rows) < 0.8
        x[kept, t] = (x[kept, t - 1] + 3) % TOKENS
    if name == "translator":
        return np.concatenate([x[:, :32], x[:, 31:0:-1], x[:, :1]], 1), np.concatenate([x[:, 30::-1], x[:, 1:2]], 1)
    return x[:, :-1], x[:, 1:]


def flops(name: str, batch: int) -> float:
    """Of the products of a step: forwards, and twice backwards."""
    if name == "lstm":
        each, count = 32 * 512 + 128 * 512 + 128 * TOKENS, batch * 64
    elif name == "gpt":
        each, count = 4 * (12 * 128 * 128 + 2 * 64 * 128) + 128 * TOKENS, batch * 64
    elif name == "gru":
        each, count = 2 * (32 * 192 + 64 * 192) + 2 * (128 * 192 + 64 * 192), batch * 40
    else:
        attention, wide = 4 * 64 * 64 + 2 * 32 * 64, 2 * 64 * 256
        each, count = 2 * (attention + wide) + 2 * (2 * attention + wide) + 64 * TOKENS, batch * 32
    return 3 * 2.0 * each * count


# --- JAX ----------------------------------------------------------------------------------------------------------
def _jax_lstm(jax: Any, w: Any, x: Any) -> Any:
    jnp = jax.numpy
    inputs = w["embedding.weight"][x].swapaxes(0, 1) @ w["lstm.weight_ih_l0"].T
    inputs = inputs + w["lstm.bias_ih_l0"] + w["lstm.bias_hh_l0"]

    def step(state: Any, now: Any) -> Any:
        h, c = state
        i, f, g, o = jnp.split(now + h @ w["lstm.weight_hh_l0"].T, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    zero = jnp.zeros((len(x), 128))
    _, hidden = jax.lax.scan(step, (zero, zero), inputs)
    return (hidden.swapaxes(0, 1) @ w["out.weight"].T + w["out.bias"]).reshape(-1, TOKENS)


def _jax_gpt(jax: Any, w: Any, x: Any) -> Any:
    jnp = jax.numpy

    def linear(x: Any, name: str) -> Any:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: Any, name: str) -> Any:
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(var + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    b, t = x.shape
    h = w["embedding.weight"][x] + w["positions.weight"]
    seen = jnp.tril(jnp.ones((t, t), bool))
    for n in range(4):
        at = f"blocks.{n}."
        parts = jnp.split(linear(norm(h, at + "norm1"), at + "qkv"), 3, -1)
        q, k, v = (part.reshape(b, t, 4, -1).swapaxes(1, 2) for part in parts)
        scores = jnp.where(seen, q @ k.swapaxes(2, 3) / q.shape[-1] ** 0.5, -jnp.inf)
        mixed = (jax.nn.softmax(scores) @ v).swapaxes(1, 2).reshape(b, t, -1)
        h = h + linear(mixed, at + "proj")
        h = h + linear(jax.nn.gelu(linear(norm(h, at + "norm2"), at + "up"), approximate=False), at + "down")
    return linear(norm(h, "norm"), "out").reshape(-1, TOKENS)


IN_JAX: dict[str, Callable[[Any, Any, Any], Any]] = {"lstm": _jax_lstm, "gpt": _jax_gpt}
"""By name, what JAX makes of tokens: ``scores(jax, weights by PyTorch's names, x)``; the others are not written."""

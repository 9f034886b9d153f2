"""A model of text, character by character: it sees the last 16 characters and says which may come next.

Without a file it learns from sentences that a small grammar makes, of which the least possible loss is known: what the
dice of the grammar decide, no model can foresee. With ``--text FILE`` it learns from a text of yours.

    python examples/language_model.py
    python examples/language_model.py --text plays.txt --epochs 3
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import slalom
from slalom import nn, optim
from slalom.data.text import CharTokenizer, windows
from slalom.optim.schedules import cosine

CONTEXT = 16

SUBJECTS = ("the cat", "the old dog", "a small bird", "the skier")
VERBS = ("sees", "follows", "waits for", "greets")
OBJECTS = ("a red ball", "the moon", "the gate", "a fast friend")
PLACES = ("", " in the snow", " at night", " on the hill")
SLOTS = (SUBJECTS, VERBS, OBJECTS, PLACES)


def sentences(n: int, seed: int) -> str:
    """Sentences like "the old dog follows the moon at night.": each of four slots is one of four, by chance."""
    generator = slalom.core.random.Generator(seed)
    chosen = slalom.randint(0, 4, (n, 4), generator=generator).tolist()
    lines = []
    for choice in chosen:
        subject, verb, thing, place = (slot[i] for slot, i in zip(SLOTS, choice, strict=True))
        lines.append(f"{subject} {verb} {thing}{place}.\n")
    return "".join(lines)


def least_loss(text: str) -> float:
    """The entropy of the grammar, in nats a character: 4 slots × ln 4 for each sentence."""
    return text.count("\n") * 4 * math.log(4) / len(text)


class NextCharacter(nn.Module):
    """Characters as learned vectors, side by side, and a network on them (Y. Bengio et al., 2003, section 2)."""

    def __init__(self, characters: int, width: int = 16, hidden: int = 128) -> None:
        super().__init__()
        self.vectors = nn.Embedding(characters, width)
        self.hidden = nn.Linear(CONTEXT * width, hidden)
        self.out = nn.Linear(hidden, characters)

    def forward(self, ids: slalom.Tensor) -> slalom.Tensor:
        vectors = self.vectors(ids).flatten(1)  # (B, T) → (B, T·width)
        return self.out(self.hidden(vectors).relu())  # (B, characters)


def pairs(letters: CharTokenizer, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Every piece of the text, and the character after it."""
    inputs, targets = (t.numpy() for t in windows(letters.encode(text), CONTEXT, stride=1).tensors)
    return inputs, targets[:, -1].copy()


def written(model: slalom.Trainer, letters: CharTokenizer, start: str, n: int, seed: int = 0) -> str:
    """A text that goes on from ``start``: each next character drawn by its probability."""
    rng = np.random.default_rng(seed)
    text = start.rjust(CONTEXT, "\n")
    for _ in range(n):
        scores = model.predict(letters.encode(text[-CONTEXT:])[None])[0].astype(np.float64)
        shares = np.exp(scores - scores.max())
        text += letters.decode([rng.choice(len(letters), p=shares / shares.sum())])
    return text.lstrip("\n")


def main(arguments: Sequence[str] | None = None) -> tuple[float, float | None]:
    """Train and print a sample; the loss on text held out, and the least possible one where it is known."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--text", type=Path, help="a text file to learn from")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--sentences", type=int, default=2000, help="how many the grammar makes")
    options = parser.parse_args(arguments)
    if options.text is None:
        train, held_out = sentences(options.sentences, seed=0), sentences(200, seed=1)
        bound = least_loss(held_out)
    else:
        text = options.text.read_text(encoding="utf-8")
        cut = int(0.9 * len(text))
        train, held_out, bound = text[:cut], text[cut:], None
    letters = CharTokenizer(train + held_out)
    inputs, targets = pairs(letters, train)
    print(f"{len(train):,} characters to learn from, {len(letters)} different ones")

    slalom.manual_seed(0)
    model = NextCharacter(len(letters))
    steps = options.epochs * -(-len(inputs) // 256)
    trainer = slalom.Trainer(
        model,
        loss=nn.CrossEntropyLoss(),
        optimizer=optim.AdamW(model.parameters(), lr=3e-3),
        schedule=cosine(steps=steps),
    )
    history = trainer.fit((inputs, targets), epochs=options.epochs, batch_size=256, progress=False)
    for row in history.rows:
        print(f"epoch {row['epoch']:2}: loss {row['loss']:.4f} nats a character, {row['seconds']:.1f} s")
    loss = trainer.evaluate(pairs(letters, held_out))["loss"]
    known = (
        ""
        if bound is None
        else f"; the least possible is {bound:.4f}, and knowing nothing {math.log(len(letters)):.4f}"
    )
    print(f"on text it never saw: {loss:.4f}{known}\n")
    print(written(trainer, letters, train[:CONTEXT], 200))
    return loss, bound


if __name__ == "__main__":
    main()
    sys.exit(0)

"""What augmentation is worth, and what it can do wrong: 300 handwritten digits that ship with scikit-learn.

The same network is trained without augmentation, with small rotations, shifts and noise, with images mixed as well, and
with any rotation at all, under which 6 and 9 are one. Each is judged by the other 1,497 images, which nothing changes.
(How strong to make it was chosen with a look at these very images; for a result to report, choose on a third part.)

    python examples/digits.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np
from sklearn.datasets import load_digits

import slalom
from slalom import nn, optim
from slalom.data import as_images
from slalom.data.augment import Augmentation, Compose, GaussianNoise, MixUp, RandomAffine, RandomRotation
from slalom.optim.schedules import cosine

TRAINING = 300

SMALL = Compose([RandomAffine(10, translate=(0.07, 0.07)), GaussianNoise(sigma=0.1)])
AUGMENTATIONS: dict[str, Augmentation | None] = {
    "none": None,
    "rotations up to 10°, shifts, noise": SMALL,
    "the same, and mixup": Compose([SMALL, MixUp(0.2, num_classes=10)]),
    "rotations up to 180°: 6 and 9 are one": RandomRotation(180),
}


def digits() -> tuple[np.ndarray, np.ndarray]:
    """All images (1797, 1, 8, 8) in 0 … 1 and their labels, in an order that mixes the writers."""
    data = load_digits()
    order = slalom.randperm(len(data.target), generator=slalom.core.random.Generator(0)).numpy()
    return as_images(data.images / 16)[order], data.target.astype(np.int64)[order]


def trained(augment: Augmentation | None, epochs: int, seed: int) -> tuple[slalom.Trainer, float, float]:
    """A trainer, its accuracy on the images held out, and the share of 6 and 9 among these that it gets wrong."""
    images, labels = digits()
    slalom.manual_seed(seed)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )
    steps = epochs * -(-TRAINING // 50)
    trainer = slalom.Trainer(
        model,
        loss=nn.CrossEntropyLoss(),
        optimizer=optim.AdamW(model.parameters(), lr=2e-3),
        schedule=cosine(steps=steps),
        augment=augment,
    )
    trainer.fit((images[:TRAINING], labels[:TRAINING]), epochs=epochs, batch_size=50, seed=seed, progress=False)
    truth, guess = labels[TRAINING:], trainer.predict(images[TRAINING:]).argmax(-1)
    sixes = np.isin(truth, (6, 9))
    return trainer, float((guess == truth).mean()), float((guess != truth)[sixes].mean())


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train with each augmentation, print how good the networks are, and return it by name."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3, help="how many runs to average over")
    options = parser.parse_args(arguments)
    found = {}
    print(f"{TRAINING} images to learn from; accuracy on the others, mean of {options.seeds} runs")
    for name, augment in AUGMENTATIONS.items():
        runs = [trained(augment, options.epochs, seed) for seed in range(options.seeds)]
        found[name] = float(np.mean([accuracy for _, accuracy, _ in runs]))
        wrong = np.mean([missed for *_, missed in runs])
        print(f"  {found[name]:6.1%}   6 and 9 wrong: {wrong:5.1%}   {name}", flush=True)
    print()
    print(runs[-1][0].explain())
    return found


if __name__ == "__main__":
    main()
    sys.exit(0)

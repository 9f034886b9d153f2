"""XOR, three times: units set by hand, the perceptron that cannot, and the course's network of sigmoids that learns it.

The network is the one that courses write out in NumPy: two hidden layers of four sigmoids, weights drawn from [0, 1),
learning rate 0.1, 10,000 steps of plain descent on the squared error. Whether it ends at XOR depends on the draw.
"""

from __future__ import annotations

import numpy as np

import slalom
from slalom import Tensor, nn, optim, tensor

X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float64)
Y = np.array([[0], [1], [1], [0]], np.float64)


def step(score: Tensor) -> Tensor:
    """1 where the score is positive, else 0."""
    return (score > 0).double()


def by_hand(x: Tensor) -> Tensor:
    """Two units find "only one of them", and a third joins them."""
    first = step(x @ tensor([1.0, -1.0]).double() - 0.5)
    second = step(x @ tensor([-1.0, 1.0]).double() - 0.5)
    return step(first + second - 0.5)


class Networks(nn.Module):
    """One network for each seed, side by side; a column of ones in x takes the place of biases."""

    def __init__(self, inputs: int, seeds: int) -> None:
        super().__init__()
        drawn = [np.random.RandomState(seed).rand for seed in range(seeds)]
        for i, shape in enumerate(((inputs, 4), (4, 4), (4, 1))):
            self.register_parameter(f"w{i}", nn.Parameter(np.stack([draw(*shape) for draw in drawn])))

    def forward(self, x: Tensor) -> Tensor:
        for weight in self.parameters():
            x = (x @ weight).sigmoid()  # (seeds, 4, 4), in the end (seeds, 4, 1)
        return x


def learned(x: np.ndarray, seeds: int, steps: int) -> int:
    """How many of the networks end at XOR."""
    model, inputs, target = Networks(x.shape[1], seeds), tensor(x), tensor(Y)
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    @slalom.compile
    def descend() -> Tensor:
        optimizer.zero_grad()
        loss = ((model(inputs) - target) ** 2).sum()  # a sum, so that no network's gradient knows of the others
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(steps):
        descend()
    right = (model(inputs) > 0.5) == (target > 0.5)
    return int(right.all(2).all(1).sum().item())


def main(seeds: int = 20, steps: int = 10_000) -> tuple[int, int]:
    """How many of so many networks learned it, without and with a bias."""
    print("by hand:", by_hand(tensor(X)).long().tolist())
    without, with_bias = learned(X, seeds, steps), learned(np.hstack([X, np.ones((4, 1))]), seeds, steps)
    print(f"learned by {without} of {seeds} networks without a bias, by {with_bias} with one")
    return without, with_bias


if __name__ == "__main__":
    main()

"""Linear, logistic and softmax regression: one gradient, Xᵀ(ŷ − y), for three models; and the closed form of the first.

Squared error under the identity, binary cross-entropy under a sigmoid and cross-entropy under a softmax are the three
losses whose gradient is that. Only the first has a solution in one step, w = (XᵀX)⁻¹Xᵀy.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import slalom
from slalom import Tensor, tensor
from slalom.nn import functional as F

X = tensor([[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]]).double()
"""One feature, and a column of ones for the bias."""


def linear(w: Tensor) -> Tensor:
    """Half the squared error, for y = 2, 3, 5."""
    return 0.5 * ((X @ w - tensor([2.0, 3.0, 5.0]).double()) ** 2).sum()


def logistic(w: Tensor) -> Tensor:
    """Binary cross-entropy, for y = 0, 0, 1."""
    return F.binary_cross_entropy_with_logits(X @ w, tensor([0.0, 0.0, 1.0]).double(), reduction="sum")


def softmax(scores: Tensor) -> Tensor:
    """Cross-entropy of one example of class 0."""
    return F.cross_entropy(scores, tensor(0))


def closed_form() -> Tensor:
    """The w at which the gradient of ``linear`` is 0."""
    y = tensor([2.0, 3.0, 5.0]).double()
    return slalom.linalg.solve(X.T @ X, X.T @ y)


def descended(loss: Callable[[Tensor], Tensor], rate: float, steps: int) -> Tensor:
    """Where plain descent from 0 arrives."""
    w = slalom.zeros(2, dtype="float64")
    slope = slalom.grad(loss)
    for _ in range(steps):
        w = w - rate * slope(w)
    return w


def main() -> dict[str, np.ndarray]:
    """The numbers that a reader can check by hand."""
    origin, scores = slalom.zeros(2, dtype="float64"), tensor([2.0, 1.0, 0.1]).double()
    found = {
        "linear: gradient at 0": slalom.grad(linear)(origin),
        "linear: closed form": closed_form(),
        "linear: descended": descended(linear, 0.1, 1000),
        "logistic: loss at 0": logistic(origin),
        "logistic: gradient at 0": slalom.grad(logistic)(origin),
        "softmax: probabilities": scores.softmax(0),
        "softmax: loss": softmax(scores),
        "softmax: gradient": slalom.grad(softmax)(scores),
    }
    numbers = {name: value.numpy() for name, value in found.items()}
    for name, value in numbers.items():
        print(f"{name:26}{np.round(value, 6).tolist()}")
    return numbers


if __name__ == "__main__":
    main()

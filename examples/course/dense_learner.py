"""Backpropagation by layers that know only their own rule, as courses write it, beside automatic differentiation.

A ``Dense`` layer takes one example at a time: ``output`` goes forward, ``backprop`` hands the error down and adds up
what its weights should change by, ``update`` moves them by the mean over the batch. The same batch in one matrix
product, differentiated by ``backward``, must move the weights to the same place.
"""

from __future__ import annotations

import numpy as np

from slalom import Tensor, nn, optim, tensor

Array = np.ndarray


class Dense:
    """A layer of n_o sums of n_i inputs; the last row of ``w`` is the bias."""

    def __init__(self, w: Array) -> None:
        self.w, self.d = w, np.zeros_like(w)

    def output(self, x: Array) -> Array:
        """The sums for one example."""
        self.x = np.append(x, 1.0)
        return self.x @ self.w  # (n_o,)

    def backprop(self, error: Array) -> Array:
        """Take ∂E/∂output, remember ∂E/∂w, and return ∂E/∂input."""
        self.d += np.outer(self.x, error)
        return self.w[:-1] @ error  # (n_i,)

    def update(self, rate: float, batch_size: int) -> None:
        """w ← w − (η / B)·Σ ∂E/∂w."""
        self.w -= rate / batch_size * self.d
        self.d[:] = 0


class Tanh:
    """The hidden units."""

    def output(self, x: Array) -> Array:
        """tanh of one example."""
        self.y = np.tanh(x)
        return self.y

    def backprop(self, error: Array) -> Array:
        """∂tanh x/∂x = 1 − tanh² x."""
        return error * (1 - self.y**2)


def by_hand(layers: list[Dense | Tanh], x: Array, y: Array, rate: float, epochs: int) -> None:
    """Descend example by example, and move once a batch."""
    for _ in range(epochs):
        for inputs, target in zip(x, y, strict=True):
            for layer in layers:
                inputs = layer.output(inputs)
            error = inputs - target  # of ½(ŷ − y)²
            for layer in reversed(layers):
                error = layer.backprop(error)
        for layer in layers:
            if isinstance(layer, Dense):
                layer.update(rate, len(x))


def by_slalom(model: nn.Module, x: Tensor, y: Tensor, rate: float, epochs: int) -> None:
    """The same batch at once."""
    optimizer = optim.SGD(model.parameters(), lr=rate)
    for _ in range(epochs):
        optimizer.zero_grad()
        (((model(x) - y) ** 2).sum() / (2 * len(x))).backward()
        optimizer.step()


def main(epochs: int = 200) -> float:
    """The largest difference between the weights that both arrive at."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 3))
    y = np.sin(x[:, :1]) + 0.5 * x[:, 1:2]
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    dense = [Dense(np.vstack([p.weight.detach().numpy().T, p.bias.detach().numpy()])) for p in linear]
    by_hand([dense[0], Tanh(), dense[1]], x, y, 0.3, epochs)
    by_slalom(model, tensor(x), tensor(y), 0.3, epochs)
    after = [np.vstack([p.weight.detach().numpy().T, p.bias.detach().numpy()]) for p in linear]
    apart = max(float(abs(a - layer.w).max()) for a, layer in zip(after, dense, strict=True))
    print(f"after {epochs} steps the weights of both differ by at most {apart:.1e}")
    return apart


if __name__ == "__main__":
    main()

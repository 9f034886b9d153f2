"""The perceptron: a linear layer with a step, and the rule by which it learns without a gradient."""

from __future__ import annotations

from typing import Any

from slalom.core.autodiff import no_grad
from slalom.core.functional.creation import zeros
from slalom.core.tensor import Tensor, as_tensor
from slalom.errors import ConfigError, ShapeError
from slalom.nn import functional as F
from slalom.nn.module import Module, Parameter

__all__ = ["Perceptron"]


class Perceptron(Module):
    """1 where w·x + b > 0, else 0, for each output.

    The step has no derivative to learn by; ``learn`` applies the perceptron rule instead. Weights start at 0.

    Shapes: (…, in_features) → (…, out_features); weight (out_features, in_features), bias (out_features).
    Raises: ShapeError naming both numbers when the input's last axis is another.
    Source: F. Rosenblatt, The Perceptron, 1958.
    Note: what one line cannot part, XOR for one, no perceptron learns: that takes a second layer.

    >>> x = Tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> Perceptron(2, 1).learn(x, [[0], [1], [1], [1]])(x).tolist()
    [[0.0], [1.0], [1.0], [1.0]]
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        options = {"device": device, "dtype": dtype}
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(zeros(out_features, in_features, **options))
        self.register_parameter("bias", Parameter(zeros(out_features, **options)) if bias else None)

    def reset_parameters(self) -> None:
        """Forget what was learned."""
        with no_grad():
            for p in self.parameters():
                p.zero_()

    def forward(self, input: Tensor) -> Tensor:
        score = F.linear(input, self.weight, self.bias)
        return score.where(score.isnan(), (score > 0).to(score.dtype))

    def learn(self, input: Any, target: Any, lr: float = 1.0, max_epochs: int = 100) -> Perceptron:
        """Go through the examples in order, w ← w + lr·(target − output)·x and b likewise, until all are right.

        Shapes: input (B, in_features), target (B, out_features) of zeros and ones.
        Raises: ShapeError for other shapes; ConfigError when ``max_epochs`` went by and some are wrong still.
        Source: F. Rosenblatt, 1958; A. Novikoff, On Convergence Proofs on Perceptrons, 1962: it ends wherever a plane
        parts the two classes.
        """
        x, y = as_tensor(input).to(self.weight.dtype), as_tensor(target).to(self.weight.dtype)
        if x.ndim != 2 or y.shape != (x.shape[0], self.out_features):
            needed = f"(B, {self.in_features}) and (B, {self.out_features})"
            raise ShapeError("learn: input and target", got=f"shapes {x.shape} and {y.shape}", needed=needed)
        wrong = 0
        with no_grad():
            for _ in range(max_epochs):
                wrong = 0
                for row, wanted in zip(x, y, strict=True):
                    error = wanted - self(row)
                    if error.any():
                        wrong += 1
                        self.weight.add_(error.unsqueeze(-1) * row * lr)
                        if self.bias is not None:
                            self.bias.add_(error * lr)
                if not wrong:
                    return self
        hint = "no plane may part the two classes: put a layer before it and train by gradients"
        needed = f"none within {max_epochs} epochs"
        raise ConfigError("learn: examples that are wrong", got=f"{wrong} of {len(x)}", needed=needed, hint=hint)

    def _label(self) -> str:
        return f"Perceptron {self.in_features}→{self.out_features}"

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"

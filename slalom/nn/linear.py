"""Linear, and the layers that only pass on or reshape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from slalom.core.functional.creation import empty
from slalom.core.shape import integers
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError
from slalom.nn import functional as F
from slalom.nn import init
from slalom.nn.module import Module, Parameter

__all__ = ["Bilinear", "Flatten", "Identity", "Linear", "Maxout", "NTKLinear", "Unflatten"]


class Identity(Module):
    """The input itself; any arguments are taken and ignored."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        return input


class Flatten(Module):
    """Axes ``start_dim`` to ``end_dim`` as one. Shapes: (B, …) → (B, product of the others) by default."""

    __constants__ = ("start_dim", "end_dim")

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """One axis as several: the inverse of Flatten. Shapes: (…, n, …) → (…, *unflattened_size, …); one may be −1."""

    __constants__ = ("dim", "unflattened_size")

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        self.dim, self.unflattened_size = dim, integers("Unflatten: unflattened_size", (unflattened_size,))

    def forward(self, input: Tensor) -> Tensor:
        return input.unflatten(self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Linear(Module):
    """x·Wᵀ + b.

    Weights and biases start in U(−1/√in, 1/√in).

    Shapes: (…, in_features) → (…, out_features); weight (out_features, in_features), bias (out_features).
    Raises: ShapeError naming both numbers when the input's last axis is another.
    Note: lectures often write X·W with W of shape (in, out): that is ``weight.T`` here, as in PyTorch.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        options = {"device": device, "dtype": dtype}
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(empty(out_features, in_features, **options))
        self.register_parameter("bias", Parameter(empty(out_features, **options)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values anew."""
        bound = 1 / math.sqrt(max(self.in_features, 1))
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)

    def _label(self) -> str:
        return f"Linear {self.in_features}→{self.out_features}"

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class NTKLinear(Linear):
    """A linear layer in the neural-tangent parameterisation: what shrinks with the width is the layer, not its weights.

    y = (γ/√in)·x·Wᵀ + β·b with W, b ~ N(0, 1), γ = ``gain``, β = ``beta``

    At first it computes what a Linear with weights in N(0, γ²/in) and biases in N(0, β²) does; but a step of gradient
    descent moves the function by an amount that stays the same as layers grow wider, while that of Linear's grows.

    Shapes: (…, in_features) → (…, out_features); weight (out_features, in_features), bias (out_features).
    Source: Jacot, Gabriel, Hongler (2018), "Neural tangent kernel: convergence and generalization in neural networks",
    section 2.1, with their β = 0.1.
    Note: PyTorch has none. The rate that suits plain gradient descent is about √in times that of a Linear's weights.

    >>> layer = NTKLinear(10_000, 500, bias=False)
    >>> 0.95 < layer.weight.std().item() < 1.05, 0.9 < layer(Tensor([[1.0] * 10_000])).std().item() < 1.1
    (True, True)
    """

    __constants__ = ("gain", "beta")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        gain: float = 1.0,
        beta: float = 0.1,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        self.gain, self.beta = gain, beta
        super().__init__(in_features, out_features, bias, device, dtype)

    def reset_parameters(self) -> None:
        """Draw the initial values anew."""
        init.normal_(self.weight)
        if self.bias is not None:
            init.normal_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        output = F.linear(input, self.weight) * (self.gain / math.sqrt(max(self.in_features, 1)))
        return output if self.bias is None else output + self.beta * self.bias

    def _label(self) -> str:
        return f"NTKLinear {self.in_features}→{self.out_features}"

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, gain={self.gain}, beta={self.beta}"


class Maxout(Linear):
    """The largest of k linear maps, for each output: a convex activation of line segments, which is learned.

    yᵢ = maxⱼ (x·Wᵢⱼᵀ + bᵢⱼ), j = 1 … k = ``num_pieces``

    Two pieces, one of them 0, are a ReLU; one is a Linear. Weights and biases start in U(−1/√in, 1/√in).

    Shapes: (…, in_features) → (…, out_features); weight (out_features·k, in_features), bias (out_features·k), in which
    the k pieces of an output stand one after another.
    Raises: ConfigError for less than 1 piece; ShapeError naming both numbers when the input's last axis is another.
    Source: Goodfellow et al. (2013), "Maxout networks", section 3.
    Note: PyTorch has none. Where pieces are equal, the gradient is shared among them.

    >>> layer = Maxout(1, 1, bias=False)
    >>> layer.weight.data = Tensor([[1.0], [-1.0]])
    >>> layer(Tensor([[-3.0], [2.0]])).flatten().detach()
    tensor([3., 2.])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_pieces: int = 2,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if num_pieces < 1:
            raise ConfigError("Maxout: num_pieces", got=num_pieces, needed="at least 1")
        super().__init__(in_features, out_features * num_pieces, bias, device, dtype)
        self.out_features, self.num_pieces = out_features, num_pieces

    def forward(self, input: Tensor) -> Tensor:
        pieces = F.linear(input, self.weight, self.bias)  # (…, out·k)
        return pieces.unflatten(-1, (self.out_features, self.num_pieces)).amax(-1)  # (…, out)

    def _label(self) -> str:
        return f"Maxout {self.in_features}→{self.out_features}"

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_pieces={self.num_pieces}"


class Bilinear(Module):
    """yₖ = x₁ᵀ·Wₖ·x₂ + bₖ, of two inputs.

    Weights and biases start in U(−1/√in1, 1/√in1).

    Shapes: (…, in1_features), (…, in2_features) → (…, out_features); weight (out, in1, in2), bias (out).
    Raises: ShapeError naming what does not fit.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        options = {"device": device, "dtype": dtype}
        if min(in1_features, in2_features) < 1:
            raise ConfigError("Bilinear: features", got=(in1_features, in2_features), needed="at least 1 each")
        self.in1_features, self.in2_features, self.out_features = in1_features, in2_features, out_features
        self.weight = Parameter(empty(out_features, in1_features, in2_features, **options))
        self.register_parameter("bias", Parameter(empty(out_features, **options)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values anew."""
        bound = 1 / math.sqrt(self.in1_features)
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        return F.bilinear(input1, input2, self.weight, self.bias)

    def _label(self) -> str:
        return f"Bilinear {self.in1_features}, {self.in2_features}→{self.out_features}"

    def extra_repr(self) -> str:
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
            f"out_features={self.out_features}, bias={self.bias is not None}"
        )

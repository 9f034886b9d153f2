"""The image cases of `training.py`: networks as lists of layers by the names that PyTorch and Slalom share.

A layer is (kind, arguments). ``Residual`` holds two lists: relu(inner(x) + skip(x)), where no skip is x itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Layer = tuple[str, tuple[Any, ...]]

LENET: list[Layer] = [
    ("Conv2d", (1, 6, 5)), ("ReLU", ()), ("MaxPool2d", (2,)),
    ("Conv2d", (6, 16, 5)), ("ReLU", ()), ("MaxPool2d", (2,)), ("Flatten", ()),
    ("Linear", (256, 120)), ("ReLU", ()), ("Linear", (120, 84)), ("ReLU", ()), ("Linear", (84, 10)),
]  # fmt: skip
"""LeNet-5 as SimpleChains.jl trains it: 28 × 28 pixels, valid convolutions, maxima."""


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> list[Layer]:
    return [("Conv2d", (inputs, outputs, size, stride, size // 2)), ("BatchNorm2d", (outputs,))]


def _block(inputs: int, outputs: int, stride: int) -> Layer:
    inner = [*_conv(inputs, outputs, 3, stride), ("ReLU", ()), *_conv(outputs, outputs, 3)]
    return "Residual", (inner, _conv(inputs, outputs, 1, stride) if stride > 1 else [])


RESNET: list[Layer] = [
    *_conv(3, 16, 3), ("ReLU", ()), _block(16, 16, 1), _block(16, 32, 2), _block(32, 64, 2),
    ("AdaptiveAvgPool2d", (1,)), ("Flatten", ()), ("Linear", (64, 10)),
]  # fmt: skip
"""ResNet-8 for CIFAR (He et al., 2016, section 4.2, with n = 1): seven convolutions of 3 × 3, two of 1 × 1 where a
block is half as large."""


def sequential(nn: Any, layers: list[Layer]) -> Any:
    """The network of a library."""

    class Residual(nn.Module):  # type: ignore[misc]
        def __init__(self, inner: list[Layer], skip: list[Layer]) -> None:
            super().__init__()
            self.inner, self.skip = sequential(nn, inner), sequential(nn, skip)

        def forward(self, x: Any) -> Any:
            return (self.inner(x) + self.skip(x)).relu()

    made = {"Residual": Residual}
    return nn.Sequential(*(made.get(kind, getattr(nn, kind, None))(*args) for kind, args in layers))


def run(layers: list[Layer], x: Any, apply: Callable[[str, tuple[Any, ...], str, Any], Any], path: str = "") -> Any:
    """What the layers make of x, if ``apply(kind, arguments, name, x)`` does one that has no others inside."""
    for i, (kind, args) in enumerate(layers):
        if kind == "Residual":
            inner, skip = (
                run(part, x, apply, f"{path}{i}.{n}.") for n, part in zip(("inner", "skip"), args, strict=True)
            )
            x = apply("ReLU", (), "", inner + skip)
        else:
            x = apply(kind, args, f"{path}{i}", x)
    return x


def leaves(layers: list[Layer], path: str = "") -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    """(name, kind, arguments) of every layer that has no others inside."""
    for i, (kind, args) in enumerate(layers):
        if kind == "Residual":
            for name, part in zip(("inner", "skip"), args, strict=True):
                yield from leaves(part, f"{path}{i}.{name}.")
        else:
            yield f"{path}{i}", kind, args


def weight_shape(kind: str, args: tuple[Any, ...]) -> tuple[int, ...] | None:
    """Of a layer that multiplies by a weight; None for others."""
    if kind == "Linear":
        return args[1], args[0]
    return (args[1], args[0], args[2], args[2]) if kind == "Conv2d" else None


def products(layers: list[Layer], shape: tuple[int, ...]) -> list[float]:
    """Operations of each product of a forward pass of one example."""
    found: list[float] = []

    def one(kind: str, args: tuple[Any, ...], name: str, x: np.ndarray) -> np.ndarray:
        out = numpy_layer(kind, args, name, x, {})
        weight = weight_shape(kind, args)
        if weight is not None:
            found.append(2.0 * out.size * math.prod(weight[1:]))
        return out

    run(layers, np.zeros((1, *shape), np.float32), one)
    return found


def numpy_layer(kind: str, args: tuple[Any, ...], name: str, x: np.ndarray, weights: dict[str, np.ndarray]) -> Any:
    """One layer in evaluation mode; without ``weights``, of ones."""
    weight = weight_shape(kind, args)
    if weight is not None:
        w, b = weights.get(f"{name}.weight"), weights.get(f"{name}.bias", np.zeros(weight[0], np.float32))
        w = np.ones(weight, np.float32) if w is None else w
        if kind == "Linear":
            return x @ w.T + b
        stride, padding = (*args[3:], 1, 0)[:2] if len(args) > 3 else (1, 0)
        x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        seen = sliding_window_view(x, w.shape[2:], (2, 3))[:, :, ::stride, ::stride]
        return np.moveaxis(np.tensordot(seen, w, ((1, 4, 5), (1, 2, 3))), -1, 1) + b[:, None, None]
    if kind.startswith("BatchNorm"):
        if not weights:
            return x
        mean, var, scale, shift = (
            weights[f"{name}.{part}"].reshape(-1, *(1,) * (x.ndim - 2))
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) * (scale / np.sqrt(var + 1e-5)) + shift
    if kind == "MaxPool2d":
        return x.reshape(*x.shape[:2], x.shape[2] // args[0], args[0], x.shape[3] // args[0], args[0]).max((3, 5))
    if kind == "AdaptiveAvgPool2d":
        return x.mean((2, 3), keepdims=True)
    if kind == "Flatten":
        return x.reshape(len(x), -1)
    if kind == "Dropout":
        return x
    return np.maximum(x, 0) if kind == "ReLU" else np.tanh(x)

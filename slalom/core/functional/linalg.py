"""Linear algebra that is no composite of primitives: NumPy's LAPACK, at once, never inside a compiled function.

Derivatives come from a step of iterative refinement, x + A₀⁻¹(b − A·x) with the inverse A₀⁻¹ held constant: its value
is x, refined, and each such step makes one more order of derivatives exact. Two are made.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from slalom.core.dtype import get_default_dtype
from slalom.core.functional.creation import as_tensor
from slalom.core.node import user_line
from slalom.core.primitive import Array
from slalom.core.tensor import Tensor
from slalom.core.trace import current
from slalom.errors import ConfigError, ShapeError, StagingError

__all__ = ["inv", "solve"]


def _square(name: str, given: Any) -> tuple[Tensor, Array]:
    """A matrix, or a stack of them, and its inverse."""
    if current() is not None:
        hint = "call it outside slalom.compile, and pass the result"
        raise StagingError(f"linalg.{name} while staging, at {user_line()}", got="no values yet", hint=hint)
    a = as_tensor(given)
    if a.dtype.kind != "f":
        a = a.to(get_default_dtype())
    if a.ndim < 2 or a.shape[-1] != a.shape[-2]:
        raise ShapeError(f"linalg.{name}: A", got=f"shape {a.shape}", needed="square matrices (…, N, N)")
    try:
        return a, np.linalg.inv(a.detach().numpy())
    except np.linalg.LinAlgError as error:
        hint = "add a small multiple of the identity"
        raise ConfigError(f"linalg.{name}: A", got="a singular matrix", needed="an inverse", hint=hint) from error


def solve(A: Any, B: Any) -> Tensor:
    """The x of A·x = B.

    Shapes: A (…, N, N); B (N,) or (…, N, K) → the shape of B.
    Raises: ShapeError for other shapes; ConfigError for a singular matrix; StagingError inside ``slalom.compile``.
    Note: derivatives are exact to the second order.

    >>> solve([[2.0, 0.0], [1.0, 1.0]], [2.0, 3.0])
    tensor([1., 2.])
    """
    a, inverse = _square("solve", A)
    b = as_tensor(B, a.dtype)
    vector = b.ndim == 1
    if b.ndim < 1 or b.shape[0 if vector else -2] != a.shape[-1]:
        raise ShapeError("linalg.solve: B", got=f"shape {b.shape}", needed=f"{a.shape[-1]} rows, for A {a.shape}")
    if vector:
        b = b.unsqueeze(-1)  # (N, 1)
    held = Tensor._of(inverse)
    x = Tensor._of(np.linalg.solve(a.detach().numpy(), b.detach().numpy()))
    for _ in range(2):
        x = x + held @ (b - a @ x)
    return x.squeeze(-1) if vector else x


def inv(A: Any) -> Tensor:
    """The inverse of a matrix. Shapes: (…, N, N). Raises: as ``solve``, which is the better way to A⁻¹·b.

    >>> inv([[2.0, 0.0], [0.0, 4.0]])
    tensor([[0.5 , 0.  ],
            [0.  , 0.25]])
    """
    a, inverse = _square("inv", A)
    x = held = Tensor._of(inverse)
    eye = Tensor._of(np.eye(a.shape[-1], dtype=a.dtype))
    for _ in range(2):
        x = x + held @ (eye - a @ x)
    return x

"""Tensors from nothing, from numbers and from arrays. While staging they are constants of the graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from slalom.core.dtype import as_dtype, get_default_dtype
from slalom.core.functional.shaping import device as _device
from slalom.core.tensor import Tensor, as_tensor, method, to_array
from slalom.errors import ShapeError

__all__ = [
    "arange", "as_tensor", "empty", "empty_like", "eye", "from_dlpack", "from_numpy", "full", "full_like", "is_tensor",
    "linspace", "ones", "ones_like", "tensor", "zeros", "zeros_like",
]  # fmt: skip


def _made(array: Any, requires_grad: bool = False, device: Any = None) -> Tensor:
    if device is not None:
        _device(device)
    out = Tensor._of(array)
    return out.requires_grad_() if requires_grad else out


def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A copy of numbers, nested sequences or an array as a new leaf.

    Python floats become the default dtype, arrays keep theirs. Raises: ShapeError for ragged sequences.

    >>> tensor([1, 2, 3])
    tensor([1, 2, 3])
    """
    return _made(to_array(data, dtype, copy=True), requires_grad, device)


def from_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor that shares the array's memory (dtypes that Slalom does not have are an error)."""
    return Tensor._of(to_array(array, None, copy=False))


def from_dlpack(source: Any) -> Tensor:
    """A tensor on the memory of any object with ``__dlpack__``."""
    return from_numpy(np.from_dlpack(source))


def is_tensor(value: object) -> bool:
    """Whether ``value`` is a Tensor."""
    return isinstance(value, Tensor)


def _shape(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    if len(sizes) == 1 and not hasattr(sizes[0], "__index__"):
        sizes = tuple(sizes[0])
    shape = tuple(int(n) for n in sizes)
    if any(n < 0 for n in shape):
        raise ShapeError("shape", got=shape, needed="sizes of at least 0")
    return shape


def _of_dtype(dtype: Any) -> Any:
    return get_default_dtype() if dtype is None else as_dtype(dtype)


def zeros(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros of a shape."""
    return _made(np.zeros(_shape(size), _of_dtype(dtype)), requires_grad, device)


def ones(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones of a shape."""
    return _made(np.ones(_shape(size), _of_dtype(dtype)), requires_grad, device)


empty = zeros


def full(size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """One value in a shape; the dtype is the value's."""
    value = to_array(fill_value, dtype, copy=False)
    return _made(np.full(_shape((size,)), value), requires_grad, device)


def zeros_like(input: Tensor, *, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros of another tensor's shape and dtype."""
    return zeros(input.shape, dtype=dtype or input.dtype, requires_grad=requires_grad)


def ones_like(input: Tensor, *, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones of another tensor's shape and dtype."""
    return ones(input.shape, dtype=dtype or input.dtype, requires_grad=requires_grad)


empty_like = zeros_like


def full_like(input: Tensor, fill_value: Any, *, dtype: Any = None) -> Tensor:
    """One value in another tensor's shape and dtype."""
    return full(input.shape, fill_value, dtype=dtype or input.dtype)


def arange(start: Any, end: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None) -> Tensor:
    """start, start + step, … below end; int64 for whole numbers."""
    first, last = (0, start) if end is None else (start, end)
    if step == 0:
        raise ShapeError("arange: step", got=0, needed="a step that is not 0")
    whole = all(isinstance(n, (int, np.integer)) for n in (first, last, step))
    wanted = (np.dtype(np.int64) if whole else get_default_dtype()) if dtype is None else as_dtype(dtype)
    return _made(np.arange(first, last, step).astype(wanted), device=device)


def linspace(start: float, end: float, steps: int, *, dtype: Any = None) -> Tensor:
    """``steps`` values from start to end, both included."""
    return _made(np.linspace(start, end, steps).astype(_of_dtype(dtype)))


def eye(n: int, m: int | None = None, *, dtype: Any = None) -> Tensor:
    """Ones on the diagonal."""
    return _made(np.eye(n, m, dtype=_of_dtype(dtype)))


@method
def new_zeros(self: Tensor, *size: Any, dtype: Any = None) -> Tensor:
    """Zeros of a shape in this tensor's dtype."""
    return zeros(*size, dtype=dtype or self.dtype)


@method
def new_ones(self: Tensor, *size: Any, dtype: Any = None) -> Tensor:
    """Ones of a shape in this tensor's dtype."""
    return ones(*size, dtype=dtype or self.dtype)


@method
def new_full(self: Tensor, size: Any, fill_value: Any, dtype: Any = None) -> Tensor:
    """One value in a shape, in this tensor's dtype."""
    return full(size, fill_value, dtype=dtype or self.dtype)


@method
def new_tensor(self: Tensor, data: Any, dtype: Any = None) -> Tensor:
    """Data as a tensor of this tensor's dtype."""
    return tensor(data, dtype=dtype or self.dtype)

"""Tensors from nothing, from numbers and from arrays. While staging they are constants of the graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from slalom.core.dtype import DType, as_dtype, get_default_dtype, int64
from slalom.core.functional.shaping import device as _device
from slalom.core.shape import Shape, integers
from slalom.core.shape import size as size_of
from slalom.core.tensor import Tensor, method, to_array
from slalom.errors import ConfigError, DTypeError, ShapeError

__all__ = [
    "arange", "as_tensor", "empty", "empty_like", "eye", "from_dlpack", "from_numpy", "full", "full_like", "is_tensor",
    "linspace", "ones", "ones_like", "tensor", "zeros", "zeros_like",
]  # fmt: skip


def _made(array: Any, requires_grad: bool = False, device: Any = None) -> Tensor:
    if device is not None:
        _device(device)
    out = Tensor._of(array)
    return out.requires_grad_() if requires_grad else out


_room: ContextVar[list[int] | None] = ContextVar("room", default=None)
"""How many more numbers may be made."""


@contextmanager
def limited(numbers: int | None) -> Iterator[None]:
    """Let tensors of a given shape be made here for so many numbers in all (None: any), checked before memory is taken.

    For building what a file from elsewhere describes. Raises: ConfigError at the first tensor beyond.
    """
    token = _room.set(None if numbers is None else [numbers])
    try:
        yield
    finally:
        _room.reset(token)


def reserve(numbers: int, what: str) -> None:
    """Count what is about to be made against the limit, if there is one. Raises: ConfigError beyond it."""
    room = _room.get()
    if room is not None:
        room[0] -= numbers
        if room[0] < 0:
            raise ConfigError("numbers", got=f"{-room[0]} more than there are", needed=f"room for {what}")


def _shape(sizes: tuple[Any, ...]) -> Shape:
    shape = integers("shape", sizes)
    if min(shape, default=0) < 0:
        raise ShapeError("shape", got=shape, needed="sizes of at least 0")
    reserve(size_of(shape), f"shape {shape}")
    return shape


def _of_dtype(dtype: Any) -> DType:
    return get_default_dtype() if dtype is None else as_dtype(dtype)


# --- from values --------------------------------------------------------------------------------------------------
def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A copy of numbers, nested sequences or an array as a new leaf.

    Python floats become the default dtype, arrays keep theirs. Raises: ShapeError for ragged sequences.

    >>> tensor([1, 2, 3])
    tensor([1, 2, 3])
    """
    return _made(to_array(data, dtype, copy=True), requires_grad, device)


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """``data`` as a tensor: itself if it is one of this dtype; arrays share their memory where they can."""
    if device is not None:
        _device(device)
    if isinstance(data, Tensor):
        return data if dtype is None else data.to(dtype)
    return Tensor._of(to_array(data, dtype, copy=False))


def from_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor that shares the array's memory; a write to one is seen in the other.

    Raises: DTypeError for anything but an array of a dtype that Slalom has, in this machine's byte order.
    """
    if not isinstance(array, np.ndarray):
        raise DTypeError("from_numpy", got=type(array).__name__, needed="a NumPy array", hint="use tensor()")
    if not array.dtype.isnative:
        raise DTypeError("from_numpy", got="another byte order", needed="this machine's", hint="use tensor()")
    return Tensor._of(to_array(array, None, copy=False))


def from_dlpack(source: Any) -> Tensor:
    """A tensor on the memory of any object with ``__dlpack__``."""
    return from_numpy(np.from_dlpack(source))


def is_tensor(value: object) -> bool:
    """Whether ``value`` is a Tensor."""
    return isinstance(value, Tensor)


# --- of a shape ---------------------------------------------------------------------------------------------------
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


def zeros_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros of another tensor's shape and dtype."""
    return zeros(input.shape, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)


def ones_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones of another tensor's shape and dtype."""
    return ones(input.shape, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)


empty_like = zeros_like


def full_like(
    input: Tensor, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """One value in another tensor's shape and dtype."""
    return full(input.shape, fill_value, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)


# --- sequences and patterns ---------------------------------------------------------------------------------------
def arange(
    start: Any, end: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """start, start + step, … before end (arange(end) starts at 0); int64 for whole numbers.

    Raises: ConfigError for a step of 0, or one that leads away from the end.
    """
    first, last = (0, start) if end is None else (start, end)
    if not step or (last - first) * step < 0:
        raise ConfigError("arange", got=f"step {step} from {first} to {last}", needed="a step towards the end")
    whole = all(isinstance(n, (int, np.integer)) for n in (first, last, step))
    wanted = (int64 if whole else get_default_dtype()) if dtype is None else as_dtype(dtype)
    return _made(np.arange(first, last, step).astype(wanted), requires_grad, device)


def linspace(
    start: float, end: float, steps: int, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """``steps`` values from start to end, both included.

    Raises: ConfigError for a negative number of steps.
    """
    if steps < 0:
        raise ConfigError("linspace: steps", got=steps, needed="at least 0")
    return _made(np.linspace(start, end, steps).astype(_of_dtype(dtype)), requires_grad, device)


def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones on the diagonal of a matrix of n rows and m (default: n) columns."""
    return _made(np.eye(*_shape((n, n if m is None else m)), dtype=_of_dtype(dtype)), requires_grad, device)


# --- like this tensor ---------------------------------------------------------------------------------------------
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

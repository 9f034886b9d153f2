"""Tensor: a handle to a value, and ``apply``, the only way to run a primitive.

Only construction, identity and reading stand here. The other methods and operators are attached by ``@method``
where the function is defined (core/functional, core/autodiff, core/random); ``methods.pyi``, generated from them,
shows all of them to editors and type checkers.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from slalom.core.dtype import DType, as_dtype, get_default_dtype, promote, promote_number
from slalom.core.node import (
    MODE,
    Abstract,
    Leaf,
    Node,
    Overwritten,
    Rewritten,
    Storage,
    clock,
    keep_value,
    no_grad,
    pass_on_owner,
    user_line,
)
from slalom.core.ops import TABLE, pointwise, structural
from slalom.core.primitive import Array, Primitive, is_array, silence
from slalom.core.shape import Shape
from slalom.errors import DTypeError, GradError, ShapeError, SlalomError, StagingError

if TYPE_CHECKING:
    from slalom.core.methods import Methods
else:
    Methods = object

F = TypeVar("F", bound=Callable[..., Any])


def apply(prim: Primitive, *inputs: Tensor, **params: Any) -> Tensor:
    """Run ``prim``: compute it with NumPy and note how it was made, or only record it while staging."""
    recording, trace = MODE.get()
    if trace is not None:
        return trace.record(prim, inputs, params)
    try:
        array = silence.run(prim.bare, *[t._storage.array for t in inputs], **params)
    except Exception as error:
        array = _again(prim, inputs, params, error)
    if type(array) is not np.ndarray:
        array = np.asarray(array)
    storage = Storage(array)
    if (prim.view and array.base is not None) or (inputs and array is inputs[0]._storage.array):
        storage.view_of(inputs[0]._storage)
    out = Tensor.__new__(Tensor)
    out._storage, out._node, out._live, out._grad = storage, None, False, None
    if recording and array.dtype.kind == "f":
        for i, t in enumerate(inputs):
            if t._live and prim.kind.differentiable(i):
                out._live = True
                nodes = [n if (n := t._node) is not None and n.storage is t._storage else t._latest() for t in inputs]
                out._node = Node(prim, tuple(nodes), params, storage, True)
                break
    return out


def _again(prim: Primitive, inputs: tuple[Tensor, ...], params: dict[str, Any], error: Exception) -> Any:
    """Raise the error that the primitive's rules give for these operands; NumPy's own where they find nothing wrong."""
    if isinstance(error, SlalomError):
        raise error
    for t in inputs:
        if not isinstance(t, Tensor):
            raise DTypeError(f"{prim.name}: input", got=type(t).__name__, needed="a Tensor", hint="tensor(…) makes one")
    arrays = [t._storage.array for t in inputs]
    for array in arrays:
        if isinstance(array, Abstract):
            array.refuse(prim.name)
    check_operands(prim, arrays, params)
    if isinstance(error, RuntimeError):  # a signal handler computes while an operation is under way
        return prim.impl(*arrays, **params)
    raise error


def check_operands(prim: Primitive, arrays: Any, params: dict[str, Any]) -> tuple[Shape, DType]:
    """Shape and dtype of the result, or the error of ``prim``'s rules for operands that do not fit."""
    for array in arrays:
        if array.dtype.kind not in prim.takes:
            kinds = {"b": "bool", "u": "unsigned", "i": "integer", "f": "floating"}
            needed = " or ".join(kinds[k] for k in "buif" if k in prim.takes)
            raise DTypeError(f"{prim.name}: dtype", got=array.dtype.name, needed=needed)
    return tuple(prim.shape(*arrays, **params)), prim.dtype(*arrays, **params)


def method(function: F) -> F:
    """Attach a function whose first argument is a Tensor as a method of the same name."""
    setattr(Tensor, function.__name__, function)
    return function


class Tensor(Methods):
    """An n-dimensional array that can be differentiated and staged.

    Semantics and names are PyTorch's, except that results are values, never views: writing into a tensor changes
    no other tensor but those made from it by ``detach()`` or ``data``.

    Note: ``requires_grad`` can be set on leaves only; an in-place operation on a leaf that requires gradients is an
    error outside ``no_grad()``.
    """

    __slots__ = ("__weakref__", "_grad", "_live", "_node", "_storage")
    __array_ufunc__ = None  # np_array * tensor calls our __rmul__

    _storage: Storage
    _node: Node | None
    _live: bool
    _grad: Tensor | None

    def __init__(self, data: Any = (), dtype: Any = None, requires_grad: bool = False) -> None:
        array = to_array(data, dtype, copy=True)
        self._storage, self._node, self._live, self._grad = Storage(array), None, False, None
        trace = MODE.get().trace
        if trace is not None:
            made = trace.constant(array)
            self._storage, self._node = made._storage, made._node
        if requires_grad:
            self.requires_grad = True

    # --- identity ---------------------------------------------------------------------------------------------
    @staticmethod
    def _of(array: Array) -> Tensor:
        """A new leaf on this very array (no copy); a constant while staging."""
        trace = MODE.get().trace
        if trace is not None:
            return trace.constant(array)
        return Tensor._handle(Storage(array), None, False)

    @staticmethod
    def _handle(storage: Any, node: Node | None, live: bool) -> Tensor:
        out = Tensor.__new__(Tensor)
        out._storage, out._node, out._live, out._grad = storage, node, live, None
        return out

    def _rows(self, rows: slice) -> Tensor | None:
        """These rows, in less time than ``apply`` takes; None where what is made of them must be known."""
        source = self._storage
        recording, trace = MODE.get()
        if trace is not None or (recording and self._live) or source.array.__class__ is not np.ndarray:
            return None
        storage = Storage(source.array[rows])
        storage.view_of(source)
        out = Tensor.__new__(Tensor)
        out._storage, out._node, out._live, out._grad = storage, None, False, None
        return out

    @staticmethod
    def _saved(node: Node, reader: Node) -> Tensor:
        """A handle for the rule of ``reader`` on a node's value as it was then; without one if it was overwritten."""
        storage = node.storage
        if storage.written > reader.time:
            storage = Storage(Overwritten(node, reader))
        out = Tensor.__new__(Tensor)
        out._storage, out._node, out._live, out._grad = storage, node, node.live, None
        return out

    def _leaf(self) -> Node:
        """The node of a handle without history, made when first needed."""
        node = Leaf(None, (), {}, self._storage, self._live)
        if self._live:
            node.owner = weakref.ref(self)
        self._node = node
        return node

    def _latest(self) -> Node:
        """The node that stands for the present value, made where there is none yet.

        A tensor that was written while recording has a node on another storage, which keeps the value for backward; a
        later write that did not move the history (under no_grad, or through detach()) is in the tensor's own only.
        """
        node = self._node
        if node is None:
            return self._leaf()
        if node.storage is not self._storage and self._storage.written > node.moved:
            node = self._node = Rewritten(structural.ALIAS, (node,), {}, self._storage, node.live)
        return node

    def _apply(self, prim: Primitive, *others: Tensor, **params: Any) -> Tensor:
        return apply(prim, self, *others, **params)

    def _zeros(self) -> Tensor:
        """Zeros of this shape and dtype."""
        array = self._storage.array
        return Tensor._of(np.zeros(array.shape, array.dtype))

    def _known(self) -> Array | None:
        """The array if its values may be read now; None while staging, where they differ from call to call."""
        array = self._storage.array
        return None if MODE.get().trace is not None or isinstance(array, Abstract) else array

    def _refuse(self, what: str) -> None:
        """Raise where a value is read that cannot be: while staging, or after a trace has ended."""
        array = self._storage.array
        if isinstance(array, Abstract):
            array.refuse(what)
        if MODE.get().trace is not None:
            raise StagingError(
                f"{what} while staging, at {user_line()}",
                got=f"a tensor of shape {array.shape} that is state, read anew at each call",
                hint="read it outside the compiled function",
            )
        return None

    # --- attributes -------------------------------------------------------------------------------------------
    @property
    def shape(self) -> tuple[int, ...]:
        return self._storage.array.shape  # type: ignore[no-any-return]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._storage.array.dtype  # type: ignore[no-any-return]

    @property
    def ndim(self) -> int:
        return self._storage.array.ndim  # type: ignore[no-any-return]

    @property
    def nbytes(self) -> int:
        return self._storage.array.nbytes  # type: ignore[no-any-return]

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made this tensor; what requires no gradients is a leaf."""
        trace = MODE.get().trace
        if trace is not None:
            return trace.is_leaf(self)
        return not self._live or self._node is None or self._node.leaf

    @property
    def requires_grad(self) -> bool:
        """Whether gradients are recorded for this tensor; can be set on leaves of floating dtype."""
        trace = MODE.get().trace
        return self._live if trace is None else trace.requires_grad(self)

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        if wanted == self.requires_grad:
            return
        if wanted and self.dtype.kind != "f":
            raise GradError("requires_grad", got=self.dtype.name, needed="a floating dtype")
        if not self.is_leaf:
            raise GradError("requires_grad can be changed on leaf tensors only", hint="use detach()")
        trace = MODE.get().trace
        if trace is not None:
            trace.mark_leaf(self, wanted)
        else:
            self._live, self._node = wanted, None

    @property
    def grad(self) -> Tensor | None:
        """The gradient that backward accumulated, None before the first and after ``zero_grad``."""
        trace = MODE.get().trace
        return self._grad if trace is None else trace.read_grad(self)

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        given: Any = value
        if given is not None and (not isinstance(given, Tensor) or given.shape != self.shape):
            got = given.shape if isinstance(given, Tensor) else type(given).__name__
            raise ShapeError("grad", got=got, needed=f"a tensor of shape {self.shape} or None")
        trace = MODE.get().trace
        if trace is None:
            self._grad = value
        else:
            trace.write_grad(self, value)

    @property
    def grad_fn(self) -> Node | None:
        """The node that made this tensor; None for leaves."""
        return None if self.is_leaf else self._node

    @property
    def data(self) -> Tensor:
        """The same buffer under a new identity without history: writes are seen, gradients are not."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        # For the same shape and dtype the buffer stays (NumPy arrays on it see the new values); else it is replaced.
        if value._storage is self._storage:
            return
        if value.shape == self.shape and value.dtype == self.dtype:
            with no_grad():
                self._write(value)
            return
        self._refuse("replacing data by another shape or dtype")
        if self._live and value.dtype.kind != "f":
            raise GradError("data of a tensor that requires gradients", got=value.dtype.name, needed="a floating dtype")
        self._storage, self._node = Storage(value.detach().numpy().copy()), None

    def detach(self) -> Tensor:
        """The same buffer under a new identity without history."""
        trace = MODE.get().trace
        if trace is not None:
            return trace.detach(self)
        return Tensor._handle(self._storage, None, False)

    # --- writing ----------------------------------------------------------------------------------------------
    def _write(self, value: Tensor) -> Tensor:
        """Make ``value`` the content of this tensor's buffer and its history the history of this handle."""
        if value.shape != self.shape:
            raise ShapeError("in-place operation", got=f"a result of shape {value.shape}", needed=self.shape)
        if value.dtype != self.dtype:
            if (value.dtype.kind == "f" and self.dtype.kind != "f") or self.dtype.kind == "b":
                raise DTypeError("in-place operation", got=f"a {value.dtype.name} result", needed=self.dtype.name)
            value = apply(structural.CAST, value, dtype=self.dtype)
        mode = MODE.get()
        if mode.grad and self.requires_grad:
            if self.is_leaf:
                raise GradError("in-place operation on a leaf that requires gradients", hint="use `with no_grad():`")
            if not value.requires_grad:  # what was there still gets a gradient, of 0
                value = apply(pointwise.WHERE, Tensor._of(np.array(False)), self, value)
        if mode.trace is not None:
            mode.trace.write(self, value)
            return self
        array = value._storage.array
        if isinstance(array, Abstract):
            array.refuse("writing a tensor")
        if isinstance(self._storage.array, Abstract):
            self._storage.array.refuse("writing into a tensor")
        old, new = self._node, value._node if mode.grad and value._live else None
        if value is self or new is None:  # a write under no_grad leaves the history as it is
            self._storage.write(array)
            return self
        if old is not None and old.storage is self._storage:
            keep_value(old, new)
        self._storage.write(array)
        pass_on_owner(old, new)
        new.moved = next(clock)
        self._node, self._live = new, True
        return self

    def assign(self, value: Any) -> Tensor:
        """Copy ``value`` (broadcast to this shape) into this tensor's buffer; while staging, an output."""
        given = as_tensor(value, self)
        if given.shape != self.shape:
            given = given.expand(self.shape)
        elif given is value and given.requires_grad and MODE.get().grad:
            given = apply(structural.ALIAS, given)  # a copy of a tensor is not that tensor
        return self._write(given)

    copy_ = assign

    def zero_(self) -> Tensor:
        """Fill with zeros."""
        return self._write(self._zeros())

    def fill_(self, value: float) -> Tensor:
        """Fill with one value."""
        return self.assign(value)

    # --- reading values ---------------------------------------------------------------------------------------
    def numpy(self) -> Array:
        """The array itself, without a copy: each sees what is written into the other.

        Note: a write through NumPy is not noticed by backward; tensors sliced or reshaped from this one afterwards may
        see it too.

        Raises: GradError if gradients are recorded (use ``detach()`` first); StagingError while staging.
        """
        self._refuse("numpy()")
        if self._live:
            raise GradError("numpy() of a tensor that requires gradients", hint="use .detach().numpy()")
        return self._storage.exposed()

    def item(self) -> Any:
        """The single value as a Python number.

        Raises: ShapeError unless the tensor has exactly one element.
        """
        self._refuse("item()")
        if self._storage.array.size != 1:
            raise ShapeError("item()", got=f"shape {self.shape}", needed="exactly one element")
        return self._storage.array.item()

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers."""
        self._refuse("tolist()")
        return self._storage.array.tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self.numpy(), dtype=dtype, copy=copy)

    def __dlpack__(self, **options: Any) -> Any:
        return self.numpy().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # the CPU

    def __bool__(self) -> bool:
        self._refuse("bool() of a tensor")
        if self._storage.array.size != 1:
            raise ShapeError(
                "truth of a tensor", got=f"shape {self.shape}", needed="one element", hint="any() or all()"
            )
        return bool(self._storage.array)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        value = self.item()
        if self.dtype.kind not in "ui":
            raise DTypeError("index", got=self.dtype.name, needed="an integer tensor")
        return int(value)

    def __len__(self) -> int:
        if not self.shape:
            raise ShapeError("len()", got="a 0-d tensor", needed="at least one dimension")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.shape:
            raise ShapeError("iteration", got="a 0-d tensor", needed="at least one dimension")
        self._refuse("iteration over a tensor")
        return (self[i] for i in range(self.shape[0]))

    def __contains__(self, value: Any) -> bool:
        return bool((self == value).any())

    __hash__ = object.__hash__  # __eq__ compares values, and would take it away

    def __repr__(self) -> str:
        array = self._storage.array
        if isinstance(array, Abstract):
            if array.trace is not None and array.trace.unasked:
                array.refuse("the text of a tensor")
            return f"tensor(abstract, shape={array.shape}, dtype={array.dtype.name})"
        body = np.array2string(array, separator=", ", prefix="tensor(", precision=4)
        usual = array.dtype in (get_default_dtype(), np.dtype(np.int64), np.dtype(np.bool_)) and array.size > 0
        notes = [f"shape={array.shape}"] if array.size == 0 and array.ndim > 1 else []
        notes += [] if usual else [f"dtype={array.dtype.name}"]
        if self._live:
            prim = None if self.is_leaf or self._node is None else self._node.prim
            notes.append("requires_grad=True" if prim is None else f"grad_fn=<{prim.name}>")
        return f"tensor({', '.join([body, *notes])})"

    def __format__(self, spec: str) -> str:
        if self.shape == () and (spec or self._known() is not None):
            return format(self.item(), spec)
        return format(repr(self), spec)

    def __reduce__(self) -> Any:
        self._refuse("pickling a tensor")
        return _restored, (type(self), self._storage.array, self._live and self.is_leaf)

    def __copy__(self) -> Tensor:
        self._refuse("copy of a tensor")
        copied = _restored(type(self), self._storage.array, self._live and self.is_leaf)
        copied._storage = self._storage  # one buffer: a write through either is seen, and noticed by backward
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        self._refuse("deepcopy of a tensor")
        if not self.is_leaf:
            raise GradError("deepcopy of a tensor with history", hint="use detach() first")
        copied = _restored(type(self), self._storage.array.copy(), self._live)
        memo[id(self)] = copied
        if self._grad is not None:
            copied._grad = self._grad.__deepcopy__(memo)
        return copied


def _restored(kind: type[Tensor], array: Array, requires_grad: bool) -> Tensor:
    out = kind.__new__(kind)
    out._storage, out._node, out._live, out._grad = Storage(array), None, requires_grad, None
    return out


# --- conversion ---------------------------------------------------------------------------------------------------
def to_array(data: Any, dtype: Any = None, *, copy: bool) -> Array:
    """``data`` (number, nested sequence, array, tensor) as an array of a dtype that Slalom has.

    Python floats get the default dtype; arrays keep theirs. Raises: DTypeError for ragged or foreign data.
    """
    wanted = None if dtype is None else as_dtype(dtype)
    if isinstance(data, Tensor):
        data = data.detach().numpy()
    elif isinstance(data, np.ndarray) and MODE.get().trace is not None and data.flags.writeable:
        raise StagingError(
            f"a NumPy array of shape {data.shape} met while staging, at {user_line()}",
            hint="pass it as an argument or wrap it in a Tensor outside, or it would become a frozen constant",
        )
    elif not is_array(data):
        try:
            array = np.asarray(data)
        except ValueError as error:
            raise ShapeError("tensor", got="nested sequences of unequal lengths", needed="a regular array") from error
        if array.dtype.kind == "f" and wanted is None:
            wanted = get_default_dtype()
        data = array
    if wanted is None:
        wanted = as_dtype(data.dtype)
    copy = copy or MODE.get().trace is not None  # a constant of a graph never changes
    with np.errstate(all="ignore"):
        return np.array(data, dtype=wanted, copy=True) if copy else np.asarray(data, dtype=wanted)


def as_tensor(value: Any, like: Tensor | None = None) -> Tensor:
    """``value`` itself if it is a Tensor; else a leaf: Python numbers get a dtype that does not widen ``like``."""
    if isinstance(value, Tensor):
        return value
    if like is not None and isinstance(value, (bool, int, float)):
        return Tensor._of(_number(value, promote_number(like._storage.array.dtype, value)))
    return Tensor._of(to_array(value, copy=False))


def floating(value: Any) -> Tensor:
    """``value`` as a tensor of a floating dtype: the default one for whole numbers and bools."""
    x = as_tensor(value)
    return x if x._storage.array.dtype.kind == "f" else x.to(get_default_dtype())


def _number(value: float, dtype: Any) -> Array:
    try:
        if -1e38 < value < 1e38:
            return np.array(value, dtype)
        with np.errstate(all="ignore"):  # what float32 does not hold is infinite
            return np.array(value, dtype)
    except OverflowError as error:
        raise DTypeError("number", got=value, needed=f"a value that fits into {dtype.name}") from error


# --- operators ----------------------------------------------------------------------------------------------------
def binary(prim: Primitive, x: Any, y: Any) -> Tensor:
    """An elementwise operation of two operands after promotion to a common dtype.

    Raises: DTypeError for dtypes that the operation does not take.
    """
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        x, y = operands(x, y)
    a, b = x._storage.array, y._storage.array
    dtype = a.dtype
    if dtype != b.dtype:
        dtype = promote(((dtype, a.ndim), (b.dtype, b.ndim)))
        x, y = x.to(dtype), y.to(dtype)
    if dtype.kind not in prim.takes:
        check_operands(prim, (x._storage.array, y._storage.array), {})
    return apply(prim, x, y)


def operands(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Both as tensors; a Python number takes a dtype that does not widen the other."""
    if isinstance(y, Tensor):
        return as_tensor(x, y), y
    x = as_tensor(x)
    return x, as_tensor(y, x)


def _operator(prim: Primitive) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    def forward(self: Tensor, other: Any) -> Any:
        if isinstance(other, _OPERANDS):
            return binary(prim, self, other)
        return NotImplemented

    def reflected(self: Tensor, other: Any) -> Any:
        if isinstance(other, _OPERANDS):
            return binary(prim, as_tensor(other, self), self)
        return NotImplemented

    def in_place(self: Tensor, other: Any) -> Any:
        if isinstance(other, _OPERANDS):
            return self._write(binary(prim, self, other))
        return NotImplemented

    return forward, reflected, in_place


_OPERANDS = (Tensor, bool, int, float, np.ndarray, np.generic, list)

for _name, _prim in (
    ("add", "add"),
    ("sub", "sub"),
    ("mul", "mul"),
    ("mod", "mod"),
    ("and", "bitand"),
    ("or", "bitor"),
):
    for _prefix, _function in zip(("", "r", "i"), _operator(TABLE[_prim]), strict=True):
        setattr(Tensor, f"__{_prefix}{_name}__", _function)
Tensor.__rshift__ = _operator(pointwise.SHIFT_RIGHT)[0]  # type: ignore[method-assign]

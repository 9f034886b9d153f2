"""What a value is made of: Storage (the buffer), Node (how it was made), Mode (what apply does now).

Identity is the Node's: a Tensor is only a handle, and an in-place operation moves the handle to a new Node. A clock
counts nodes and writes; a buffer written after a node was made no longer holds that node's value, which is how
backward finds out that it would use an overwritten value. Nodes point only to older nodes, so the tape is acyclic.
"""

from __future__ import annotations

import contextvars
import functools
import itertools
import sys
import types
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, NoReturn, TypeVar

import numpy as np

from slalom.core.dtype import DType
from slalom.core.ops.structural import ALIAS
from slalom.core.primitive import Array, Primitive
from slalom.core.shape import Shape, size
from slalom.errors import GradError, StagingError

if TYPE_CHECKING:
    from slalom.core.tensor import Tensor
    from slalom.core.trace import Trace

F = TypeVar("F", bound=Callable[..., Any])

clock = itertools.count(1)
_INTERNAL = (__name__.partition(".")[0] + ".", "numpy.")
_BETWEEN = {"contextlib", "copy", "functools"}


def user_line() -> str:
    """``file:line`` of the innermost frame outside this package, NumPy and what stands between."""
    frame = _user_frame()
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _user_frame() -> types.FrameType:
    frame = sys._getframe(2)
    while frame.f_back is not None and _internal(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    return frame


@functools.cache
def _internal(module: str) -> bool:
    """Whether a module is not the user's."""
    return module.startswith(_INTERNAL) or module in _BETWEEN


class Abstract:
    """Stands where an array would be: shape and dtype are known, the value is not (while staging)."""

    __slots__ = ("dtype", "shape", "site", "trace")
    __array_ufunc__ = None

    def __init__(self, shape: Shape, dtype: DType, trace: Trace | None, site: str) -> None:
        self.shape, self.dtype, self.trace, self.site = shape, dtype, trace, site

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return size(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def refuse(self, what: str) -> NoReturn:
        """Raise the error for reading a value that does not exist."""
        if self.trace is not None and self.trace.open:
            raise StagingError(
                f"{what} while staging, at {user_line()}",
                got=f"a tensor made at {self.site}, whose value is known only when the compiled function runs",
                hint="branch with slalom.where, or move this line out of the compiled function",
            )
        raise StagingError(
            f"{what}, at {user_line()}: this tensor was recorded inside slalom.compile at {self.site} and kept after "
            "tracing ended",
            hint="return it from the compiled function, or assign it into a tensor made outside",
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        self.refuse("reading a value")


class Overwritten(Abstract):
    """Stands for a value on the tape that an in-place operation has replaced: rules may still ask for its shape."""

    __slots__ = ("_maker", "_reader")

    def __init__(self, node: Node, reader: Node) -> None:
        super().__init__(node.shape, node.dtype, None, node.storage.site)
        self._maker = f"made by {node.prim.name}" if node.prim is not None else "of a leaf"
        self._reader = reader.prim.name if reader.prim is not None else "a leaf"

    def refuse(self, what: str) -> NoReturn:
        raise GradError(
            f"the derivative of {self._reader} needs the value {self._maker}, of shape {self.shape}, which was "
            f"overwritten in place at {self.site}",
            hint="use the out-of-place operation (x = x + y, not x += y), or clone() before writing",
        )


class Storage:
    """A buffer shared by the handles of one value: ``array``, and when and where it was written last.

    ``root`` is the storage whose memory this one views; before a root is written, its views get copies of their own,
    so that results are values, never views.
    """

    __slots__ = ("__weakref__", "_crowd", "_views", "_writer", "array", "root", "written")

    _writer: tuple[types.CodeType, int]
    """The user's code that wrote last, and where in it; set by the first write."""
    _crowd: int
    """How many references to views are kept before dead ones are swept out; doubles with the living."""

    def __init__(self, array: Any) -> None:
        self.array: Any = array
        self.written = 0
        self.root: Storage | None = None
        self._views: list[weakref.ref[Storage]] | None = None

    def view_of(self, source: Storage) -> None:
        """Note that this array shares memory with ``source``."""
        root = self.root = source.root or source
        if root._views is None:
            root._views, root._crowd = [], 32
        elif len(root._views) >= root._crowd:
            root._views = [ref for ref in root._views if ref() is not None]
            root._crowd = max(32, 2 * len(root._views))
        root._views.append(weakref.ref(self))

    def own(self) -> None:
        """Make sure that this array is nobody else's memory."""
        if self.root is not None:
            self.array = self.array.copy()
            self.root = None

    def _part(self) -> None:
        """Part from the views: they keep the value they have."""
        if self._views is not None:
            views, self._views = self._views, None
            for ref in views:
                view = ref()
                if view is not None and view.root is self:
                    view.own()

    def exposed(self) -> Array:
        """The array for a caller who may write into it: no other value that exists now shares its memory."""
        self.own()
        self._part()
        return self.array  # type: ignore[no-any-return]

    def write(self, value: Array) -> None:
        """Copy ``value`` into the buffer; values that viewed it keep what they had."""
        np.copyto(self.writable(), value)
        self.note_write()

    def writable(self) -> Array:
        """The array, made ready to be written: values that viewed it have got copies of what they were."""
        self.own()
        self._part()
        if not self.array.flags.writeable:
            self.array = self.array.copy()
        return self.array  # type: ignore[no-any-return]

    @property
    def shared(self) -> bool:
        """Whether other values share this memory, or did: ``writable`` has something to do."""
        return self.root is not None or self._views is not None

    def note_write(self) -> None:
        """Remember that the buffer was written, and where."""
        note_writes((self,))

    @property
    def site(self) -> str:
        """``file:line`` of the last write (looked up when an error needs it)."""
        code, at = self._writer
        line = next(line for first, last, line in code.co_lines() if first <= at < last)
        return f"{code.co_filename}:{line}"


def note_writes(storages: Iterable[Storage]) -> None:
    """Remember that buffers were written, and where."""
    now, frame = next(clock), _user_frame()
    writer = frame.f_code, frame.f_lasti
    for storage in storages:
        storage.written, storage._writer = now, writer


class Node:
    """How a value was made: the primitive, its input nodes and parameters (none for what came from outside).

    ``live``: gradients flow through it. ``owner``: the handle that receives ``.grad`` (leaves, retain_grad).
    """

    __slots__ = (
        "__weakref__",
        "freed",
        "inputs",
        "live",
        "moved",
        "owner",
        "params",
        "prim",
        "site",
        "storage",
        "time",
    )

    leaf: ClassVar[bool] = False
    watch: Any = None
    """Who sees this value's adjoint before it is passed on (a ``Watched`` has one)."""
    time: float
    moved: int
    """When an in-place operation gave this value to a tensor on another storage; else unset."""

    def __init__(
        self,
        prim: Primitive | None,
        inputs: tuple[Node, ...],
        params: dict[str, Any],
        storage: Storage,
        live: bool,
        site: str | None = None,
    ) -> None:
        self.prim, self.inputs, self.params, self.storage, self.live = prim, inputs, params, storage, live
        self.site = site
        self.time = next(clock)
        self.owner: weakref.ref[Tensor] | None = None
        self.freed = False

    @property
    def shape(self) -> Shape:
        return self.storage.array.shape  # type: ignore[no-any-return]

    @property
    def dtype(self) -> DType:
        return self.storage.array.dtype  # type: ignore[no-any-return]

    def free(self, keep_inputs: bool) -> None:
        """Drop what backward needed, as PyTorch does, so that memory returns before the next step."""
        self.freed = True
        if not keep_inputs:
            self.inputs, self.params = (), {}

    def __repr__(self) -> str:
        return f"<node {self.prim.name if self.prim else 'leaf'} {self.dtype.name}{list(self.shape)}>"


class Leaf(Node):
    """Where gradients arrive: a tensor's own beginning. While staging it is an alias of the value read."""

    __slots__ = ()

    leaf = True


class Watched(Node):
    """An alias whose adjoint is shown to its ``watch``, together with those of other nodes, and may be replaced."""

    __slots__ = ("watch",)


class Rewritten(Node):
    """What a tensor is after a write that left its history alone (under no_grad, or through detach()).

    On the tape it is an alias of what the tensor was, its only input. Its value is another one: while staging, that of
    the node ``value``.
    """

    __slots__ = ("value",)

    value: Node

    def identity(self) -> Node:
        """What the tensor was before any such write."""
        node: Node = self
        while isinstance(node, Rewritten):
            node = node.inputs[0]
        return node

    def free(self, keep_inputs: bool) -> None:
        """Nothing: it belongs to the tensor, as a leaf does, and backward needs no value of it."""


def pass_on_owner(old: Node | None, new: Node) -> None:
    """Let ``new``, the latest value of a tensor, receive the gradient that ``retain_grad()`` asked for."""
    was = old.identity() if isinstance(old, Rewritten) else old
    if was is not None and was.owner is not None and not was.leaf:
        new.owner, was.owner = was.owner, None


def keep_value(old: Node, new: Node) -> None:
    """Let the rules on the way from ``old`` to ``new`` read the value of ``old`` after its buffer is written."""
    kept: Rewritten | None = None
    seen: set[Node] = set()
    stack = [new]
    while stack:
        node = stack.pop()
        if node in seen or node.time <= old.time:
            continue
        seen.add(node)
        stack.extend(node.inputs)
        if old in node.inputs and node.prim is not None and node.prim.kind.reads_values:
            if kept is None:
                kept = Rewritten(ALIAS, (old,), {}, Storage(old.storage.array.copy()), old.live)
                kept.time = old.time + 0.5
            node.inputs = tuple([kept if source is old else source for source in node.inputs])


class Mode(NamedTuple):
    """What ``apply`` does: record for differentiation, and record into a trace instead of computing."""

    grad: bool
    trace: Trace | None


MODE: contextvars.ContextVar[Mode] = contextvars.ContextVar("slalom_mode", default=Mode(True, None))


# --- grad mode ----------------------------------------------------------------------------------------------------
class _GradMode:
    """A context manager, and a decorator with or without parentheses, that sets whether gradients are recorded."""

    enabled: ClassVar[bool]

    def __new__(cls, function: Any = None) -> Any:
        made = super().__new__(cls)
        if callable(function):
            cls.__init__(made)
            return made(function)
        return made

    def __init__(self, function: Any = None) -> None:
        self._tokens: list[contextvars.Token[Mode]] = []

    def __enter__(self) -> None:
        self._tokens.append(MODE.set(Mode(self.enabled, MODE.get().trace)))

    def __exit__(self, *exc: object) -> None:
        MODE.reset(self._tokens.pop())

    def __call__(self, function: F) -> F:
        kind = type(self)

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with kind():
                return function(*args, **kwargs)

        return run  # type: ignore[return-value]


class no_grad(_GradMode):
    """Record nothing for backward inside this block or function."""

    enabled = False


class enable_grad(_GradMode):
    """Record for backward inside this block or function, also within ``no_grad``."""

    enabled = True


class set_grad_enabled:
    """Switch recording on or off, at once; as a context manager, until the end of the block."""

    def __init__(self, mode: bool) -> None:
        self._token = MODE.set(MODE.get()._replace(grad=bool(mode)))

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        MODE.reset(self._token)


def is_grad_enabled() -> bool:
    """Whether operations are being recorded for backward."""
    return MODE.get().grad

"""What a value is made of: Storage (the buffer), Node (how it was made), Mode (what apply does now).

Identity is the Node's: a Tensor is only a handle, and an in-place operation moves the handle to a new Node. A clock
counts nodes and writes; a buffer written after a node was made no longer holds that node's value, which is how
backward finds out that it would use an overwritten value. Nodes point only to older nodes, so the tape is acyclic.
"""

from __future__ import annotations

import contextvars
import itertools
import sys
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from slalom.core.dtype import DType
from slalom.core.primitive import Array, Primitive
from slalom.core.shape import Shape, size
from slalom.errors import GradError, StagingError

if TYPE_CHECKING:
    from slalom.core.tensor import Tensor
    from slalom.core.trace import Trace

clock = itertools.count(1)
_PACKAGE = __name__.partition(".")[0] + "."


def user_line() -> str:
    """``file:line`` of the innermost frame outside this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_PACKAGE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


class Abstract:
    """Stands where an array will be: shape and dtype are known, the value is not (while staging)."""

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
            f"{what}: this tensor was recorded inside slalom.compile at {self.site} and kept after tracing ended",
            hint="return it from the compiled function, or assign it into a tensor made outside",
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        self.refuse("reading a value")


class Storage:
    """A buffer shared by the handles of one value: ``array``, and the time of the last write into it.

    ``root`` is the storage whose memory this one views; before a root is written, its views get copies of their own,
    so that results are values, never views.
    """

    __slots__ = ("__weakref__", "_views", "array", "root", "written")

    def __init__(self, array: Any) -> None:
        self.array: Any = array
        self.written = 0
        self.root: Storage | None = None
        self._views: list[weakref.ref[Storage]] | None = None

    def view_of(self, source: Storage) -> None:
        """Note that this array shares memory with ``source``."""
        root = source.root or source
        self.root = root
        if root._views is None:
            root._views = []
        elif len(root._views) > 64:
            root._views = [ref for ref in root._views if ref() is not None]
        root._views.append(weakref.ref(self))

    def own(self) -> None:
        """Make sure that this array is nobody else's memory."""
        if self.root is not None:
            self.array = self.array.copy()
            self.root = None

    def write(self, value: Array) -> None:
        """Copy ``value`` into the buffer; values that viewed it keep what they had."""
        self.own()
        if self._views is not None:
            views, self._views = self._views, None
            for ref in views:
                view = ref()
                if view is not None and view.root is self:
                    view.own()
        if not self.array.flags.writeable:
            self.array = self.array.copy()
        np.copyto(self.array, value)
        self.written = next(clock)


class Overwritten:
    """Stands for the storage of a value that an in-place operation has replaced; reading it is an error."""

    __slots__ = ("_was", "written")
    root = None

    def __init__(self, storage: Storage) -> None:
        self._was = storage.array
        self.written = storage.written

    @property
    def array(self) -> Any:
        raise GradError(
            f"backward: a value of shape {self._was.shape} that is needed here was overwritten in place",
            hint="use the out-of-place operation (x = x + y, not x += y), or clone() before writing",
        )


class Node:
    """How a value was made: the primitive, its input nodes and parameters. A leaf has no primitive.

    ``live``: gradients flow through it. ``owner``: the handle that receives ``.grad`` (leaves, retain_grad).
    """

    __slots__ = ("__weakref__", "freed", "inputs", "live", "owner", "params", "prim", "site", "storage", "time")

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


class Mode(NamedTuple):
    """What ``apply`` does: record for differentiation, and record into a trace instead of computing."""

    grad: bool
    trace: Trace | None


MODE: contextvars.ContextVar[Mode] = contextvars.ContextVar("slalom_mode", default=Mode(True, None))

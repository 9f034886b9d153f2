"""Compiled modules: a module's call as one node of the tape, with native forward and native backward.

Forward and backward are recorded together, as one graph, and then parted: backward gets the values that forward has
made and it needs (the residuals), and computes the rest itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from slalom.compiler.executor import NumpyExecutor
from slalom.compiler.native import NativeExecutor, native
from slalom.compiler.stage import Compiled, flattened, rebuilt
from slalom.core import tree
from slalom.core.autodiff import enable_grad, grad_of, no_grad
from slalom.core.graph import Equation, Graph, Input, Output
from slalom.core.node import MODE, Node, Storage, clock, note_writes
from slalom.core.primitive import Array, Kind, Params, Primitive
from slalom.core.tensor import Tensor
from slalom.errors import GradError

__all__ = ["ModuleCall"]


class ModuleCall:
    """Calls a module natively. A copy of the module is not compiled."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._plain = Compiled(module.call)
        self._joint = Compiled(self._both)
        self._halves: dict[int, _Halves] = {}
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: Any) -> None:
        return None

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        module = self._module
        if MODE.get().trace is not None:
            return module.call(*args, **kwargs)
        leaves = tree.leaves((args, kwargs))
        learned = [p for p in module.parameters() if p.requires_grad]
        live = [t for t in leaves if isinstance(t, Tensor) and t.requires_grad]
        if not MODE.get().grad or not (learned or live):
            return self._plain(*args, **kwargs)
        return self._recorded(args, kwargs, live, learned)

    def _both(self, args: Any, kwargs: Any, cts: Any) -> Any:
        """What is recorded: the outputs, and the gradients of the inputs and parameters that have one."""
        inputs = [t for t in tree.leaves((args, kwargs)) if t.requires_grad]
        inputs += [p for p in self._module.parameters() if p.requires_grad]
        out = self._module.call(*args, **kwargs)
        outs = [(t, ct) for t, ct in zip(tree.leaves(out), cts, strict=True) if t.requires_grad]
        if not outs:
            return out, [None] * len(inputs)
        with no_grad():
            grads = grad_of([t for t, _ in outs], inputs, [ct for _, ct in outs], allow_unused=True)
        return out, list(grads)

    def _recorded(self, args: Any, kwargs: Any, live: list[Tensor], learned: list[Tensor]) -> Any:
        def alone(t: Tensor) -> Tensor:
            return t.detach().requires_grad_() if t.requires_grad else t

        args, kwargs = tree.map(alone, (args, kwargs))
        with self._lock:
            cts = self._cotangents(args, kwargs)
            record, leaves = self._joint.record(args, kwargs, cts)
            halves = self._halves.get(id(record))
            if halves is None:
                halves = self._halves[id(record)] = _Halves(record, len(cts))
        return halves.forward(leaves, [*live, *learned])

    def _cotangents(self, args: Any, kwargs: Any) -> list[Tensor]:
        """Something of the shapes of the outputs."""
        with no_grad():
            record, _ = self._plain.record(*args, **kwargs)
        types = [record.graph.types[o.value] for o in record.graph.outputs if o.kind == "result"]
        return [Tensor._of(np.broadcast_to(np.zeros((), of.dtype), of.shape)) for of in types]
'''

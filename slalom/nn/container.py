"""Modules that hold other modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from slalom.errors import DTypeError, IndexRangeError
from slalom.nn.module import Module

__all__ = ["Sequential"]


class Sequential(Module):
    """Modules called one after the other; given one by one, or with names in one dict.

    >>> model = Sequential(Module(), Module())
    >>> len(model), len(model[:1])
    (2, 1)
    """

    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], Mapping):
            named = dict(args[0])
        else:
            named = {str(i): module for i, module in enumerate(args)}
        for name, module in named.items():
            if not isinstance(module, Module):
                raise DTypeError(f"Sequential: part {name}", got=type(module).__name__, needed="a Module")
            self.register_module(name, module)

    def forward(self, input: Any) -> Any:
        for module in self:
            input = module(input)
        return input

    def __iter__(self) -> Iterator[Module]:
        return (module for _, module in self._held("_modules"))

    def __len__(self) -> int:
        return len(self._modules)

    def _name(self, index: int) -> str:
        names = list(self._modules)
        i = index.__index__()
        if not -len(names) <= i < len(names):
            raise IndexRangeError(f"Sequential: index {i}", needed=f"{-len(names)} to {len(names) - 1}")
        return names[i]

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(dict(list(self._held("_modules"))[index]))
        return getattr(self, self._name(index))

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, self._name(index), module)

    def __delitem__(self, index: int | slice) -> None:
        kept = list(self._modules.values())
        del kept[index]
        self._modules.clear()
        for i, module in enumerate(kept):  # numbered anew, as in PyTorch
            self.register_module(str(i), module)

    def append(self, module: Module) -> Sequential:
        """Add a module at the end."""
        self.register_module(str(len(self)), module)
        return self

"""Modules that hold other modules, or parameters."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from slalom.core.tensor import Tensor
from slalom.errors import ConfigError, DTypeError, IndexRangeError, ShapeError
from slalom.nn.module import Module, Parameter

__all__ = ["ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Residual", "Sequential"]


# --- numbered ones ------------------------------------------------------------------------------------------------
class _Numbered(Module):
    """What is held under the numbers from 0: indexed, sliced and changed like a list. ``_table``: where it stands."""

    _table = "_modules"

    def __iter__(self) -> Iterator[Any]:
        return (held for _, held in self._held(self._table))

    def __len__(self) -> int:
        return len(self.__dict__[self._table])

    def _checked(self, value: Any, where: str) -> Any:
        """The value as it may be held. Raises: DTypeError."""
        if not isinstance(value, Module):
            raise DTypeError(f"{type(self).__name__}: part {where}", got=type(value).__name__, needed="a Module")
        return value

    def _place(self, index: Any, end: int) -> int:
        try:
            i = operator.index(index)
        except TypeError as error:
            got = type(index).__name__
            raise DTypeError(f"{type(self).__name__}: index", got=got, needed="an integer or a slice") from error
        if not -len(self) <= i < end:
            raise IndexRangeError(f"{type(self).__name__}: index {i}", needed=f"{-len(self)} to {end - 1}")
        return i + len(self) if i < 0 else i

    def _name(self, index: int) -> str:
        names: list[str] = list(self.__dict__[self._table])
        return names[self._place(index, len(self))]

    def _renumber(self, held: Iterable[Any]) -> None:
        """Hold these instead, under the numbers from 0."""
        kept = {str(i): self._checked(value, str(i)) for i, value in enumerate(held)}
        self.__dict__[self._table].clear()
        for name, value in kept.items():
            self._register(self._table, name, value)

    def _of(self, entries: list[tuple[str, Any]]) -> Any:
        """Another one of this kind, for entries of this one and perhaps others."""
        made: Any = type(self)()
        return made.extend([value for _, value in entries])

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self._of(list(self._held(self._table))[index])
        return getattr(self, self._name(index))

    def __setitem__(self, index: int, value: Any) -> None:
        name = self._name(index)
        setattr(self, name, self._checked(value, name))

    def __delitem__(self, index: int | slice) -> None:
        kept = list(self.__dict__[self._table].values())
        del kept[index if isinstance(index, slice) else self._place(index, len(self))]
        self._renumber(kept)

    def append(self, value: Any) -> Any:
        """Add one at the end; returns this."""
        return self.extend([value])

    def extend(self, values: Iterable[Any]) -> Any:
        """Add several at the end; returns this."""
        for value in list(values):
            name = str(len(self))
            self._register(self._table, name, self._checked(value, name))
        return self

    def insert(self, index: int, value: Any) -> Any:
        """Put one before the place ``index``; returns this."""
        held = list(self.__dict__[self._table].values())
        held.insert(self._place(index, len(self) + 1), value)
        self._renumber(held)
        return self

    def pop(self, index: int | slice = -1) -> Any:
        """Take one out."""
        taken = self[index]
        del self[index]
        return taken

    def __iadd__(self, values: Iterable[Any]) -> Any:
        return self.extend(values)

    def __add__(self, values: Iterable[Any]) -> Any:
        made = self._of(list(self._held(self._table)))
        return made.extend(values)


class Sequential(_Numbered):
    """Modules called one after the other; given one by one, or with names in one dict.

    >>> model = Sequential(Module(), Module())
    >>> len(model), len(model[:1])
    (2, 1)
    """

    _native = None

    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], Mapping):
            named = dict(args[0])
        else:
            named = {str(i): module for i, module in enumerate(args)}
        for name, module in named.items():
            self.register_module(name, self._checked(module, name))

    def forward(self, input: Any) -> Any:
        for module in self:
            input = module(input)
        return input

    def _of(self, entries: list[tuple[str, Any]]) -> Any:
        return type(self)(dict(entries))


class ModuleList(_Numbered):
    """Modules in a list that Module knows of; it computes nothing itself.

    >>> layers = ModuleList([Module(), Module()])
    >>> len(layers), len(layers.append(Module())), len(layers[1:])
    (2, 3, 2)
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        self.extend(modules or ())

    def __repr__(self) -> str:
        """Equal neighbours once, with their number."""
        if not len(self):
            return f"{type(self).__name__}()"
        lines, first = [], 0
        for text, same in groupby(map(repr, self)):
            count = len(list(same))
            head = f"({first})" if count == 1 else f"({first}-{first + count - 1}): {count} x"
            lines.append(f"{head}{':' if count == 1 else ''} {text}".replace("\n", "\n  "))
            first += count
        body = "\n  ".join(lines)
        return f"{type(self).__name__}(\n  {body}\n)"


class ParameterList(_Numbered):
    """Parameters in a list that Module knows of; a plain tensor becomes one.

    Note: unlike PyTorch's, it holds nothing but parameters.

    >>> weights = ParameterList([Tensor([1.0]), Tensor([2.0, 3.0])])
    >>> [name for name, _ in weights.named_parameters()], weights
    (['0', '1'], ParameterList((0): float32 (1,), (1): float32 (2,)))
    """

    _table = "_parameters"

    def __init__(self, values: Iterable[Any] | None = None) -> None:
        super().__init__()
        self.extend(values or ())

    def _checked(self, value: Any, where: str) -> Parameter:
        return _as_parameter(f"{type(self).__name__}: part {where}", value)

    def extra_repr(self) -> str:
        return _listed(self)


# --- named ones ---------------------------------------------------------------------------------------------------
class _Named(Module):
    """What is held under names: read and changed like a dict. ``_table``: where it stands."""

    _table = "_modules"

    def __init__(self, held: Any = None) -> None:
        super().__init__()
        self.update(held or {})

    def _checked(self, value: Any, where: str) -> Any:
        if not isinstance(value, Module):
            raise DTypeError(f"{type(self).__name__}: part {where}", got=type(value).__name__, needed="a Module")
        return value

    def __getitem__(self, key: str) -> Any:
        if key not in self:
            got, needed = repr(key), f"one of {', '.join(map(repr, self.keys())) or 'none: it is empty'}"
            raise IndexRangeError(f"{type(self).__name__}: key", got=got, needed=needed)
        return getattr(self, key)

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise DTypeError(f"{type(self).__name__}: key", got=type(key).__name__, needed="str")
        self._register(self._table, key, self._checked(value, repr(key)))

    def __delitem__(self, key: str) -> None:
        self.pop(key)

    def __len__(self) -> int:
        return len(self.__dict__[self._table])

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._held(self._table))

    def __contains__(self, key: object) -> bool:
        return key in self.__dict__[self._table]

    def clear(self) -> None:
        """Take everything out."""
        self.__dict__[self._table].clear()

    def pop(self, key: str) -> Any:
        """Take one out."""
        taken = self[key]
        delattr(self, key)
        return taken

    def keys(self) -> list[str]:
        """The names."""
        return list(self)

    def values(self) -> list[Any]:
        """What is held."""
        return [held for _, held in self._held(self._table)]

    def items(self) -> list[tuple[str, Any]]:
        """Names with what is held under them."""
        return list(self._held(self._table))

    def update(self, held: Any) -> None:
        """Add what a dict, or pairs of names and values, hold."""
        pairs = held.items() if isinstance(held, (Mapping, _Named)) else held
        for key, value in list(pairs):
            self[key] = value


class ModuleDict(_Named):
    """Modules in a dict that Module knows of; it computes nothing itself.

    >>> heads = ModuleDict({"price": Module(), "sold": Module()})
    >>> heads.keys(), "sold" in heads
    (['price', 'sold'], True)
    """

    def __init__(self, modules: Any = None) -> None:
        super().__init__(modules)


class ParameterDict(_Named):
    """Parameters in a dict that Module knows of; a plain tensor becomes one.

    Note: unlike PyTorch's, it holds nothing but parameters.
    """

    _table = "_parameters"

    def __init__(self, parameters: Any = None) -> None:
        super().__init__(parameters)

    def _checked(self, value: Any, where: str) -> Parameter:
        return _as_parameter(f"{type(self).__name__}: part {where}", value)

    def extra_repr(self) -> str:
        return _listed(self)


def _as_parameter(what: str, value: Any) -> Parameter:
    if isinstance(value, Parameter):
        return value
    if not isinstance(value, Tensor):
        raise DTypeError(what, got=type(value).__name__, needed="a Parameter or a Tensor")
    return Parameter(value)


def _listed(module: Module) -> str:
    return ", ".join([f"({name}): {p.dtype.name} {p.shape}" for name, p in module._parameters.items() if p is not None])


# --- around another module ----------------------------------------------------------------------------------------
class Residual(Module):
    """x + f(x), or shortcut(x) + f(x) where a shortcut fits x to another shape.

    Shapes: those of ``module``, whose result must have the shape of what is added to it.
    Raises: ShapeError when it has another (it would broadcast otherwise).
    Source: K. He et al., Deep Residual Learning for Image Recognition, 2015, equations 1 and 2.
    Note: PyTorch has none.
    """

    def __init__(self, module: Module, shortcut: Module | None = None) -> None:
        super().__init__()
        for name, part in (("module", module), ("shortcut", shortcut)):
            if not isinstance(part, Module) and not (name == "shortcut" and part is None):
                raise ConfigError(f"Residual: {name}", got=type(part).__name__, needed="a Module")
        self.module, self.shortcut = module, shortcut

    def forward(self, input: Tensor) -> Tensor:
        kept = input if self.shortcut is None else self.shortcut(input)
        out = self.module(input)
        if out.shape != kept.shape:
            hint = "give a shortcut that changes the shape alike" if self.shortcut is None else None
            raise ShapeError(f"Residual: {kept.shape} + {out.shape}", needed="equal shapes", hint=hint)
        return kept + out  # type: ignore[no-any-return]

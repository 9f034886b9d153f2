"""Modules made from functions: a class for each activation and loss in the registry of ``core/functional``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

from slalom.core.functional.registry import Entry
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError
from slalom.nn.module import Module

__all__ = ["modules"]

NUMBERS = (int, float)
"""A parameter of these types is an option, with or without a default."""


def modules(entries: Mapping[str, Entry], home: str, base: type[Module] = Module) -> dict[str, type[Module]]:
    """A subclass of ``base`` for each entry, by name; ``home``: the module that they belong to."""
    return {name: _made(name, entry, home, base) for name, entry in entries.items()}


def _made(name: str, entry: Entry, home: str, base: type[Module]) -> type[Module]:
    function = entry.function
    signature, hints = inspect.signature(function), get_type_hints(function)
    required = [p for p in signature.parameters.values() if p.default is p.empty]
    given = [p for p in required if hints[p.name] not in NUMBERS]
    hidden = {p.name for p in given} | {"training", "generator", *entry.without}
    options = [p for p in signature.parameters.values() if p.name not in hidden]
    tensors = [p.name for p in options if Tensor in getattr(hints[p.name], "__args__", ())]
    plain = [p.name for p in options if p.name not in tensors]
    trains = "training" in signature.parameters
    constructor = inspect.Signature(options)

    def __init__(self: Module, *args: Any, **kwargs: Any) -> None:
        Module.__init__(self)
        try:
            bound = constructor.bind(*args, **kwargs)
        except TypeError as error:
            raise ConfigError(f"{name}: {error}", needed=f"{name}{constructor}") from error
        bound.apply_defaults()
        for option, value in bound.arguments.items():
            if option in tensors:
                self.register_buffer(option, value)
            else:
                setattr(self, option, value)

    def forward(self: Module, *inputs: Any) -> Tensor:
        values = {p.name: getattr(self, p.name) for p in options}
        if trains:
            values["training"] = self.training
        result: Tensor = function(*inputs, **values)
        return result

    def extra_repr(self: Module) -> str:
        values = {option: getattr(self, option) for option in plain}
        if entry.text is not None:
            return entry.text.format(**values)
        return ", ".join(f"{k}={v!r}" for k, v in values.items() if k != "inplace" or v)

    # Without the function's example, which calls it by its own name.
    described = (inspect.getdoc(function) or "").partition("\n\n>>>")[0]
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    __init__.__signature__ = inspect.Signature([own, *options])  # type: ignore[attr-defined]
    __init__.__annotations__ = {p.name: hints[p.name] for p in options} | {"return": None}
    forward.__signature__ = inspect.Signature([own, *given], return_annotation="Tensor")  # type: ignore[attr-defined]
    body: dict[str, Any] = {"__init__": __init__, "forward": forward, "extra_repr": extra_repr}
    for method in (__init__, forward, extra_repr):
        method.__module__, method.__qualname__ = home, f"{name}.{method.__name__}"
    body |= {"__doc__": described, "__module__": home, "__constants__": tuple(plain), "_looks": entry.looks}
    return type(name, (base,), body)

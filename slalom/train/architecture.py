"""A model's architecture in closed words: plain JSON from which a model of Slalom's own layers is rebuilt.

A layer is ``["Linear", {"in_features": 4, "out_features": 3, "bias": true}]``: its name, and the options of its
constructor, each read from the attribute of the same name. A container is ``["Sequential", {"0": […], "1": […]}]``. The
words are the public layers of ``slalom.nn`` and the names of their options; values are numbers, truth values, strings,
lists of them, and layers again. Nothing in a description can name a function, a module to import, or a size that the
numbers beside it do not fill. A new layer needs nothing here.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import numpy as np

from slalom import nn
from slalom.core.functional.creation import limited
from slalom.core.random import default_generator
from slalom.errors import ConfigError, ModelFileError, SlalomError
from slalom.nn import Module

__all__ = ["LAYERS", "Architecture", "Layer", "architecture", "build"]

Architecture = list[Any]
_MAX_PARTS: Final = 100_000
_MAX_SIZE: Final = 2**31 - 1
_MAX_LIST: Final = 64
_CONTAINERS: Final = (nn.Sequential,)
"""What is described by its parts, under their names."""
_NOT_DESCRIBED: Final = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
"""What computes nothing by itself, and so stands in modules of the user's own only."""
_LISTS: Final = (list, tuple, Sequence, Iterable)
_ON_THE_WAY: Final = 4
"""How many times as many numbers as a model holds may be made while its initial values are drawn."""
_NOT_KEPT: Final = frozenset({"device", "dtype"})


class Layer:
    """How a kind of layer is written down: what its constructor takes by name, with the types that it states.

    An option that is stated as a bool and whose attribute is a parameter (``bias``) is whether there is one. One with a
    default and no attribute keeps the default.
    """

    def __init__(self, kind: type[Module]) -> None:
        self.kind = kind

    @cached_property
    def options(self) -> dict[str, tuple[Any, bool]]:
        """By name: the type, and whether it must be given."""
        stated = get_type_hints(self.kind.__init__)
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        return {
            name: (stated[name], parameter.default is parameter.empty)
            for name, parameter in inspect.signature(self.kind).parameters.items()
            if parameter.kind in named and name not in _NOT_KEPT and not name.startswith("_")
        }

    def read(self, module: Module, described: Callable[[Module, str], Architecture]) -> dict[str, Any]:
        """The options of a live layer; ``described`` describes layers among them.

        Raises: ConfigError for a value that no file can hold, such as a function.
        """
        found = {}
        for name, (hint, required) in self.options.items():
            if required or hasattr(module, name):
                value = getattr(module, name)
                if hint is bool and not isinstance(value, bool):
                    value = value is not None
                found[name] = _as_words(name, value, described)
        return found

    def make(self, options: Mapping[str, Any], built: Callable[[Any, str], Module]) -> Module:
        """The layer that options describe; ``built`` builds layers among them.

        Raises: ConfigError that says what is wrong with the options.
        """
        needed = {name for name, (_, required) in self.options.items() if required}
        if not needed <= options.keys() <= self.options.keys():
            raise ConfigError("options", got=_short(sorted(options)), needed=sorted(self.options))
        made = {}
        for name, value in options.items():
            hint = self.options[name][0]
            if not _fits(value, hint):
                raise ConfigError(name, got=_short(value), needed=_in_words(hint))
            is_layer = _is_description(value) and not _fits_plain(value, hint)
            made[name] = built(value, name) if is_layer else tuple(value) if isinstance(value, list) else value
        return self.kind(**made)


def _public_layers() -> dict[str, Layer]:
    found = {name: getattr(nn, name) for name in nn.__all__}
    layers = {name: kind for name, kind in found.items() if inspect.isclass(kind) and issubclass(kind, Module)}
    others = (Module, *_CONTAINERS, *_NOT_DESCRIBED)
    return {name: Layer(kind) for name, kind in layers.items() if kind not in others}


LAYERS: Final[dict[str, Layer]] = _public_layers()
"""Every layer that a description can name, beside the containers."""


# --- what options may be ---------------------------------------------------------------------------------------------
def _as_words(name: str, value: Any, described: Callable[[Module, str], Architecture]) -> Any:
    """An option as JSON holds it."""
    if isinstance(value, Module):
        return described(value, name)
    if isinstance(value, list | tuple):
        return [_as_words(name, item, described) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise ConfigError(f"option {name}", got=_short(value), needed="a number, a word, a list of them, or a layer")


def _is_description(value: Any) -> bool:
    return type(value) is list and [type(part) for part in value] == [str, dict]


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value is one of a stated type."""
    return _fits_plain(value, hint) or (_is_description(value) and any(_is_layer(h) for h in _choices(hint)))


def _is_layer(hint: Any) -> bool:
    return inspect.isclass(hint) and issubclass(hint, Module)


def _choices(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _fits_plain(value: Any, hint: Any) -> bool:
    return any(_is_of(value, choice) for choice in _choices(hint))


def _is_of(value: Any, hint: Any) -> bool:
    """Whether a value of JSON, layers aside, is of one stated type; any plain one, where none is stated."""
    kind = type(value)
    if kind is list:
        of = get_origin(hint) or hint
        items = [item for item in get_args(hint) if item is not Ellipsis] or [Any]
        if hint is not Any and of not in _LISTS:
            return False
        return len(value) <= _MAX_LIST and all(any(_fits_plain(v, item) for item in items) for v in value)
    if kind is int:
        return hint in (int, float, Any) and abs(value) <= _MAX_SIZE
    return hint in (kind, Any) if kind in (bool, float, str, type(None)) else False


def _in_words(hint: Any) -> str:
    return " or ".join(getattr(h, "__name__", str(h)) if get_origin(h) is None else str(h) for h in _choices(hint))


def _short(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 120 else f"{text[:119]}…"


# --- there and back ---------------------------------------------------------------------------------------------------
def architecture(model: Module) -> Architecture:
    """The description of a model made of Slalom's own layers.

    Raises: ConfigError naming the first part that is none, or that occurs twice.

    >>> architecture(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))[1]["1"]
    ['ReLU', {'inplace': False}]
    """
    return _Describer().describe(model, "")


class _Describer:
    """Describes the parts of one model."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def describe(self, module: Module, path: str) -> Architecture:
        kind = type(module)
        where = f"architecture of {path or 'the model'} ({kind.__name__})"
        if id(module) in self.seen:
            raise ConfigError(where, got="a layer that occurs twice", needed="each layer once")
        self.seen.add(id(module))

        def part(inner: Module, name: str) -> Architecture:
            return self.describe(inner, f"{path}.{name}".lstrip("."))

        if kind in _CONTAINERS:
            return [kind.__name__, {name: part(inner, name) for name, inner in module.named_children()}]
        layer = LAYERS.get(kind.__name__)
        if layer is None or kind is not layer.kind:
            raise ConfigError(where, got="a Module of your own", needed="Slalom's own layers only")
        return [kind.__name__, layer.read(module, part)]


def build(description: Any, most: int | None = None) -> Module:
    """The model that an architecture describes, with fresh weights; the random state is left as it was.

    ``most``: how many numbers its weights and buffers hold; what asks for far more is refused before memory is taken.

    Raises: ModelFileError for anything but a description in the words of ``LAYERS``.
    """
    held = default_generator.get_state()
    try:
        with limited(None if most is None else _ON_THE_WAY * most):
            return _Builder().build(description, "")
    finally:
        default_generator.set_state(held)


class _Builder:
    """Builds the parts of one model, and counts them."""

    def __init__(self) -> None:
        self.parts = 0

    def build(self, description: Any, path: str) -> Module:
        what = f"architecture of {path or 'the model'}"
        self.parts += 1
        if self.parts > _MAX_PARTS:
            raise ModelFileError("architecture", got=f"more than {_MAX_PARTS} layers", needed="fewer")
        if not _is_description(description):
            raise ModelFileError(what, got=_short(description), needed="[name of a layer, its options]")
        name, options = description

        def part(inner: Any, key: str) -> Module:
            return self.build(inner, f"{path}.{key}".lstrip("."))

        containers = {kind.__name__: kind for kind in _CONTAINERS}
        try:
            if name in containers:
                return containers[name]({key: part(inner, key) for key, inner in options.items()})
            if name not in LAYERS:
                needed = ", ".join([*containers, *LAYERS])
                raise ModelFileError(what, got=f"layer {_short(name)}", needed=needed)
            return LAYERS[name].make(options, part)
        except ModelFileError:
            raise
        except SlalomError as error:  # a name with dots, a probability of 2, an index out of range, …
            raise ModelFileError(f"{what} ({_short(name)})", got=_short(str(error))) from error

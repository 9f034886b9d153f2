"""Model files: weights, and an architecture in closed words, from which a model of Slalom's own layers is rebuilt.

An architecture is plain JSON: ``["Linear", {"in_features": 4, "out_features": 3, "bias": true}]``, or for a container
``["Sequential", {"0": […], "1": […]}]``. Its words are the names in ``LAYERS`` and numbers, truth values and a few
strings for each; nothing in a file can name a function, a module to import, or a size that its numbers do not fill.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np

from slalom import nn
from slalom.core.dtype import float32, float64, get_default_dtype
from slalom.core.primitive import Array
from slalom.core.random import default_generator
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError, ModelFileError, SlalomError
from slalom.nn import Module
from slalom.train.files import arrays_sha256, load_file, save_file

__all__ = ["LAYERS", "Layer", "architecture", "build", "load", "load_weights", "save", "weights_sha256"]

StrPath = str | os.PathLike[str]
Architecture = list[Any]
_MAX_PARTS: Final = 100_000
_MAX_SIZE: Final = 2**31 - 1


# --- the closed table ------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Kind:
    """What an option may be, and whether a JSON value is that."""

    words: str
    holds: Callable[[Any], bool]


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX_SIZE


SIZE: Final = Kind("a size", _is_size)
WHOLE: Final = Kind("an integer", lambda v: type(v) is int and abs(v) <= _MAX_SIZE)
OPTIONAL_WHOLE: Final = Kind("an integer or null", lambda v: v is None or WHOLE.holds(v))
NUMBER: Final = Kind("a number", lambda v: type(v) in (int, float))
OPTIONAL_NUMBER: Final = Kind("a number or null", lambda v: v is None or NUMBER.holds(v))
FLAG: Final = Kind("true or false", lambda v: type(v) is bool)
SIZES: Final = Kind("a list of sizes", lambda v: type(v) is list and len(v) <= 32 and all(map(_is_size, v)))


def one_of(*words: str) -> Kind:
    """One of a few strings."""
    return Kind(" or ".join(map(repr, words)), lambda value: type(value) is str and value in words)


def _nothing(options: Mapping[str, Any]) -> int:
    return 0


class Layer:
    """How a kind of layer is written down: its constructor's options, each read from the attribute of its name.

    ``numbers``: how many its weights and buffers hold at least, so that a file cannot ask for more memory than its own
    size. An option that is a FLAG and whose attribute is a parameter (``bias``) is whether there is one.
    """

    def __init__(self, kind: type[Module], numbers: Callable[[Any], int] = _nothing, /, **options: Kind) -> None:
        self.kind, self.numbers, self.options = kind, numbers, options

    def read(self, module: Module) -> dict[str, Any]:
        """The options of a live layer."""
        return {name: self._read(kind, getattr(module, name)) for name, kind in self.options.items()}

    @staticmethod
    def _read(kind: Kind, value: Any) -> Any:
        if kind is FLAG and not isinstance(value, bool):
            return value is not None
        if isinstance(value, tuple):
            return [int(v) for v in value]
        return value.item() if isinstance(value, np.generic) else value

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise a ConfigError that says what is wrong with the options."""
        if options.keys() != self.options.keys():
            raise ConfigError("options", got=_short(sorted(options)), needed=sorted(self.options))
        for name, kind in self.options.items():
            if not kind.holds(options[name]):
                raise ConfigError(name, got=_short(options[name]), needed=kind.words)

    def make(self, options: Mapping[str, Any]) -> Module:
        """The layer that options describe."""
        return self.kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in options.items()})


LAYERS: Final[dict[str, Layer]] = {
    layer.kind.__name__: layer
    for layer in (
        Layer(
            nn.Linear,
            lambda o: o["out_features"] * (o["in_features"] + o["bias"]),
            in_features=SIZE,
            out_features=SIZE,
            bias=FLAG,
        ),
        Layer(nn.Flatten, start_dim=WHOLE, end_dim=WHOLE),
        Layer(nn.Identity),
        Layer(
            nn.Embedding,
            lambda o: o["num_embeddings"] * o["embedding_dim"],
            num_embeddings=SIZE,
            embedding_dim=SIZE,
            padding_idx=OPTIONAL_WHOLE,
        ),
        Layer(nn.Dropout, p=NUMBER, inplace=FLAG),
        Layer(
            nn.BatchNorm1d,
            lambda o: 2 * o["num_features"] * (o["affine"] + o["track_running_stats"]),
            num_features=SIZE,
            eps=NUMBER,
            momentum=OPTIONAL_NUMBER,
            affine=FLAG,
            track_running_stats=FLAG,
        ),
        Layer(
            nn.LayerNorm,
            lambda o: prod(o["normalized_shape"]) * (o["elementwise_affine"] + (o["elementwise_affine"] and o["bias"])),
            normalized_shape=SIZES,
            eps=NUMBER,
            elementwise_affine=FLAG,
            bias=FLAG,
        ),
        Layer(nn.ReLU, inplace=FLAG),
        Layer(nn.LeakyReLU, negative_slope=NUMBER, inplace=FLAG),
        Layer(nn.PReLU, lambda o: o["num_parameters"], num_parameters=SIZE),
        Layer(nn.Sigmoid),
        Layer(nn.Tanh),
        Layer(nn.GELU, approximate=one_of("none", "tanh")),
        Layer(nn.SiLU, inplace=FLAG),
        Layer(nn.Softplus, beta=NUMBER, threshold=NUMBER),
        Layer(nn.Softmax, dim=OPTIONAL_WHOLE),
        Layer(nn.LogSoftmax, dim=OPTIONAL_WHOLE),
    )
}
"""Every layer a file can name, beside Sequential. A layer added to ``slalom.nn`` gets a row here."""


def architecture(model: Module) -> Architecture:
    """The description of a model made of Slalom's own layers.

    Raises: ConfigError naming the first part that is none, or that occurs twice.

    >>> architecture(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))[1]["1"]
    ['ReLU', {'inplace': False}]
    """
    return _described(model, "", set())


def _described(module: Module, path: str, seen: set[int]) -> Architecture:
    where = f"{path or 'the model'} ({type(module).__name__})"
    if id(module) in seen:
        raise ConfigError(f"architecture of {where}", got="a layer that occurs twice", needed="each layer once")
    seen.add(id(module))
    if type(module) is nn.Sequential:
        parts = module.named_children()
        return ["Sequential", {name: _described(part, f"{path}.{name}".lstrip("."), seen) for name, part in parts}]
    layer = LAYERS.get(type(module).__name__)
    if layer is None or type(module) is not layer.kind:
        raise ConfigError(f"architecture of {where}", got="a Module of your own", needed="Slalom's own layers only")
    return [type(module).__name__, layer.read(module)]


def build(description: Any, most: int | None = None) -> Module:
    """The model that an architecture describes, with fresh weights; the random state is left as it was.

    ``most``: how many numbers its weights and buffers may hold; checked before memory is taken.

    Raises: ModelFileError for anything but a description in the words of ``LAYERS``.
    """
    held = default_generator.get_state()
    try:
        return _Builder(most).build(description, "")
    finally:
        default_generator.set_state(held)


class _Builder:
    """Builds the parts of one model, and counts them and their numbers."""

    def __init__(self, most: int | None) -> None:
        self.most, self.parts, self.numbers = most, 0, 0

    def build(self, description: Any, path: str) -> Module:
        what = f"architecture of {path or 'the model'}"
        self.parts += 1
        if self.parts > _MAX_PARTS:
            raise ModelFileError("architecture", got=f"more than {_MAX_PARTS} layers", needed="fewer")
        if not (type(description) is list and [type(part) for part in description] == [str, dict]):
            raise ModelFileError(what, got=_short(description), needed="[name of a layer, its options]")
        name, options = description
        try:
            if name == "Sequential":
                return nn.Sequential({n: self.build(part, f"{path}.{n}".lstrip(".")) for n, part in options.items()})
            if name not in LAYERS:
                raise ModelFileError(what, got=f"layer {_short(name)}", needed=f"Sequential, {', '.join(LAYERS)}")
            LAYERS[name].check(options)
            self.numbers += LAYERS[name].numbers(options)
            if self.most is not None and self.numbers > self.most:
                needed = f"{self.numbers} or more for its architecture"
                raise ModelFileError(what, got=f"{self.most} numbers", needed=needed)
            return LAYERS[name].make(options)
        except ModelFileError:
            raise
        except SlalomError as error:  # a name with dots, a probability of 2, an index out of range, …
            raise ModelFileError(f"{what} ({_short(name)})", got=_short(str(error))) from error


def _short(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 120 else f"{text[:119]}…"


# --- files -----------------------------------------------------------------------------------------------------------
def save(model: Module, path: StrPath, extra: Mapping[str, Any] | None = None) -> None:
    """Write a model file: weights, buffers and, for models of Slalom's own layers, the architecture.

    ``extra``: plain JSON kept beside them (``load_document`` of the file returns it).

    Raises: ModelFileError when it cannot be written (the file that was there is intact).
    """
    if not isinstance(model, Module):
        raise ConfigError("save: model", got=type(model).__name__, needed="a Module")
    try:
        description: Architecture | None = architecture(model)
    except ConfigError:
        description = None  # a model of the user's own: its file holds weights for trainer.load
    document = {"class": type(model).__name__, "architecture": description, "extra": dict(extra or {})}
    save_file(path, _arrays(model), document, "model")


def load(path: StrPath) -> Module:
    """The model of a file, in evaluation mode.

    Raises: ModelFileError for a damaged or foreign file, and for a model that has parts of the user's own, which no
    file can rebuild: make such a model in code and let ``trainer.load(path)`` fill it.
    """
    tensors, document = load_file(path, "model")
    if document.get("architecture") is None:
        name = document.get("class")
        hint = "make the model in code and call trainer.load(path)"
        raise ModelFileError(f"{path} cannot be rebuilt", got=f"a model of your own ({_short(name)})", hint=hint)
    dtypes = {array.dtype for array in tensors.values() if array.dtype.kind == "f"} or {get_default_dtype()}
    if len(dtypes) > 1 or not dtypes <= {float32, float64}:
        raise ModelFileError(f"{path} is damaged", got=f"weights of {len(dtypes)} dtypes", needed="one floating dtype")
    model = build(document["architecture"], sum(array.size for array in tensors.values())).to(dtypes.pop())
    _fill(path, model, tensors)
    return model.eval()


def load_weights(model: Module, path: StrPath) -> None:
    """Fill a live model with the weights of a model file.

    Raises: ModelFileError naming what does not fit; then nothing was written.
    """
    tensors, _ = load_file(path, "model")
    _fill(path, model, tensors)


def _fill(path: StrPath, model: Module, tensors: Mapping[str, Array]) -> None:
    own = model.state_dict()
    for name, array in tensors.items():
        if name in own and own[name].dtype != array.dtype:
            got, needed = array.dtype.name, f"{own[name].dtype.name}, the model's"
            raise ModelFileError(f"{path}: {name}", got=got, needed=needed, hint=f"model.to({got!r}) before loading")
    try:
        model.load_state_dict({name: Tensor._of(array) for name, array in tensors.items()})
    except ModelFileError as error:
        raise ModelFileError(f"{path} does not fit the model", got=error.got, hint=error.hint) from error


def _arrays(model: Module) -> dict[str, Array]:
    return {name: t.numpy() for name, t in model.state_dict().items()}


def weights_sha256(model: Module) -> str:
    """SHA-256 of the weights and buffers in hexadecimal: names sorted; name, dtype, shape, little-endian bytes."""
    return arrays_sha256(_arrays(model))

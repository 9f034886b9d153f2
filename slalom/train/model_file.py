"""Model files: weights and buffers, and for models of Slalom's own layers an architecture to rebuild them from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from slalom.core.dtype import float32, float64, get_default_dtype
from slalom.core.primitive import Array
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError, ModelFileError
from slalom.nn import Module
from slalom.train.architecture import Architecture, architecture, build
from slalom.train.files import arrays_sha256, load_file, save_file

__all__ = ["load", "load_weights", "save", "weights_sha256"]

StrPath = str | os.PathLike[str]


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
        raise ModelFileError(f"{path} cannot be rebuilt", got=f"a model of your own ({str(name)[:60]})", hint=hint)
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

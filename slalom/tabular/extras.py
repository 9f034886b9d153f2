"""Optional packages, imported where they are first needed so that ``import slalom`` stays light."""

from __future__ import annotations

import importlib
from typing import Any

from slalom.errors import MissingExtraError

__all__ = ["load_extra"]


def load_extra(module: str, extra: str, purpose: str) -> Any:
    """Import ``module``, which the optional dependencies ``extra`` bring.

    Raises:
        MissingExtraError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name != package:  # the package is there and misses something of its own
            raise
        raise MissingExtraError(
            f"{purpose} needs {package}", got="no such package", hint=f"pip install 'slalom[{extra}]'"
        ) from error

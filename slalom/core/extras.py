"""Optional packages, imported where they are first needed so that ``import slalom`` stays light."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from slalom.errors import MissingExtraError

__all__ = ["load_extra", "one_thread"]


def load_extra(module: str, extra: str, purpose: str) -> Any:
    """Import ``module``, which the optional dependencies ``extra`` bring.

    Raises:
        MissingExtraError: the package, or one that it needs, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        missing = error.name or ""
        if missing.startswith(f"{package}."):  # the package is there: nothing to install will help
            raise
        got = "no such package" if missing == package else f"no {missing}, which it needs"
        raise MissingExtraError(f"{purpose} needs {package}", got=got, hint=f"pip install 'slalom[{extra}]'") from error


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep BLAS and OpenMP to one thread, where threadpoolctl is installed.

    On matrices of a few hundred rows their threads gain little; and as they spin while they wait for each other, they
    lose a factor of ten to a hundred when another program wants the processor too.
    """
    try:
        threadpoolctl = load_extra("threadpoolctl", "cli", "one thread")
    except MissingExtraError:
        limits: Any = nullcontext()
    else:
        limits = threadpoolctl.threadpool_limits(limits=1)
    with limits:
        yield

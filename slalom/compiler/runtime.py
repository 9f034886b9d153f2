"""Settings of the machine: how many threads may be used; and when Python looks for garbage."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

from slalom.errors import ConfigError

_chosen: list[int] = []  # what set_num_threads was given last


def available_cpus() -> int:
    """How many processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def get_num_threads() -> int:
    """The number of threads in use: what was set, or the processors this process may run on."""
    return _chosen[-1] if _chosen else available_cpus()


def chosen() -> bool:
    """Whether a number of threads was set."""
    return bool(_chosen)


def set_num_threads(n: int) -> None:
    """Use exactly ``n`` threads; more than there are processors is honoured.

    The NumPy executor's threads are those of NumPy's BLAS, which are limited where threadpoolctl is installed.
    Raises: ConfigError unless n is a positive integer.
    """
    if type(n) is not int or n < 1:
        raise ConfigError("set_num_threads", got=n, needed="a positive integer")
    _chosen[:] = [n]
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return
    threadpool_limits(limits=n, user_api="blas")


@contextmanager
def uncollected() -> Iterator[None]:
    """Put off the search for cycles: what is recorded and compiled is many small objects, nearly all of which stay.

    Otherwise one pass over all that was imported falls into the first compilation, some 30 ms.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

"""The cache of machine code on disk: a private folder of checksummed entries, one name for each kernel.

Kernels that were compiled together are one file under many names (hard links), so that a program which shares some of
them with an earlier one finds those. Every entry is checked when it is read; a broken one is deleted and never run.
Files are written aside and then named, which is safe with other processes. A disk that is full, read-only or missing
makes nothing fail: there is no cache then.

Environment: ``SLALOM_CACHE_DIR`` names the folder (``$XDG_CACHE_HOME/slalom`` or ``~/.cache/slalom`` otherwise); an
empty string turns the cache off.
"""

from __future__ import annotations

import functools
import os
import re
import stat
import time
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final

__all__ = ["LIMIT", "folder", "get", "key", "put", "sources", "stamp", "trim"]

LIMIT: Final = 256 * 2**20
"""Bytes that the folder may hold; what was not used for longest goes first."""

_MAGIC: Final = b"slalom code 1\n"
_DIGEST: Final = 32
_OURS: Final = re.compile(r"[0-9a-f]{40}|aside-\d+-\d+(-copy)?")


def key(*parts: str) -> str:
    """The name of an entry: a digest of all that its code follows from."""
    return blake2b("\0".join(parts).encode(), digest_size=20).hexdigest()


def stamp(*files: Path | os.DirEntry[str]) -> str:
    """Which version of some files this is: their paths, sizes and times of change (ns)."""
    facts = [(os.fspath(file), file.stat()) for file in files]
    return "\n".join(f"{file} {fact.st_size} {fact.st_mtime_ns}" for file, fact in facts)


@functools.cache
def sources() -> str:
    """Which version of this package it is that makes code: of the compiler, and of what it translates."""
    here = Path(__file__).parent
    folders = [here, *(Path(path) for path, *_ in os.walk(here.parent / "core"))]
    files = (entry for path in folders for entry in os.scandir(path) if entry.name.endswith(".py"))
    return stamp(*sorted(files, key=lambda entry: entry.path))


def folder() -> Path | None:
    """The folder of the cache, made if it is missing; None if there is none to use.

    Warns: of a folder that belongs to somebody else or that others may write to: its code is not to be run.
    """
    chosen = os.environ.get("SLALOM_CACHE_DIR")
    if chosen is None:
        root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        chosen = os.path.join(root, "slalom")
    return _checked(chosen)


@functools.cache
def _checked(chosen: str) -> Path | None:
    if not os.path.isabs(chosen):  # also the empty string, and a home that is not known
        return None
    try:
        os.makedirs(chosen, mode=0o700, exist_ok=True)
        facts = os.stat(chosen)
    except OSError:
        return None
    if facts.st_uid != os.geteuid() or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        who = "belongs to another user" if facts.st_uid != os.geteuid() else "may be written to by other users"
        warnings.warn(f"compiled code is not kept in {chosen}, which {who}", RuntimeWarning, stacklevel=4)
        return None
    return Path(chosen)


def get(key: str) -> bytes | None:
    """What was put under a key; None if nothing was, or if it is broken."""
    place = folder()
    if place is None:
        return None
    path = place / key
    try:
        data = path.read_bytes()
        payload = data[len(_MAGIC) + _DIGEST :]
        if data[: len(_MAGIC) + _DIGEST] == _head(payload):
            with suppress(OSError):  # a disk that can only be read
                os.utime(path)
            return payload
        path.unlink()
    except OSError:
        pass
    return None


def put(keys: Sequence[str], payload: bytes) -> None:
    """Keep bytes under all these keys."""
    place = folder()
    if place is None or not keys:
        return
    with suppress(OSError):
        _write(place, keys, _head(payload) + payload)
        if keys[0].startswith("0"):  # once in 16 times: it looks at every file
            trim()


def trim(limit: int = LIMIT) -> None:
    """Delete what was not used for longest, down to three quarters of a limit in bytes that is exceeded.

    Files of other names, which are somebody else's, stay and do not count.
    """
    place = folder()
    if place is None:
        return
    names: dict[int, list[str]] = {}
    facts: dict[int, os.stat_result] = {}
    for entry in filter(lambda entry: _OURS.fullmatch(entry.name), os.scandir(place)):
        with suppress(OSError):
            fact = entry.stat(follow_symlinks=False)
            facts[fact.st_ino] = fact
            names.setdefault(fact.st_ino, []).append(entry.path)
    total = sum(fact.st_size for fact in facts.values())
    if total <= limit:
        return
    for number, fact in sorted(facts.items(), key=lambda item: item[1].st_mtime_ns):
        if total <= limit * 3 // 4:
            return
        for name in names[number]:
            with suppress(OSError):
                os.unlink(name)
        total -= fact.st_size


def _head(payload: bytes) -> bytes:
    return _MAGIC + blake2b(payload, digest_size=_DIGEST).digest()


def _write(place: Path, keys: Iterable[str], data: bytes) -> None:
    """One file under all keys; where the file system knows no hard links, a file for each."""
    aside = place / f"aside-{os.getpid()}-{time.monotonic_ns()}"
    copy = aside.with_name(aside.name + "-copy")
    try:
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
        for name in keys:
            try:
                os.link(aside, place / name)
            except FileExistsError:
                pass
            except OSError:
                copy.write_bytes(data)
                copy.replace(place / name)
    finally:
        aside.unlink(missing_ok=True)
        copy.unlink(missing_ok=True)

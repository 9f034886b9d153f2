"""The one model-file format and the one atomic writer.

A file is a safetensors file, which the plain safetensors library reads too:

    8 bytes     N, the length of the header, little-endian
    N bytes     the header: UTF-8 JSON that begins {"__metadata__":{"blake2b":"<64 hex digits>", and ends in spaces so
                that the numbers start at a multiple of 64 bytes
    the rest    the numbers: little-endian, C order, wide dtypes first, without gaps

``__metadata__`` maps names to strings: ``blake2b``, ``format`` ("slalom"), ``version``, ``kind`` and ``document``, a
JSON object. The digest is BLAKE2b-256 of all bytes of the file while its own 64 digits are zeros, so that no bit can
change unseen. Every later version of the format keeps the place and the meaning of the digest.

Source: the safetensors format, https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from slalom.errors import ConfigError, DTypeError, ModelFileError

__all__ = ["KINDS", "arrays_sha256", "file_digest", "load_file", "load_newest", "save_file", "write_atomic"]

Array = npt.NDArray[Any]
Tensors = dict[str, Array]
Document = dict[str, Any]
StrPath = str | os.PathLike[str]

KINDS: Final = ("model", "checkpoint", "state")
_FORMAT: Final = "slalom"
_VERSION: Final = 1
_DTYPES: Final = {
    "BOOL": np.dtype("?"),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "I16": np.dtype("<i2"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "U32": np.dtype("<u4"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
_CODES: Final = {dtype: code for code, dtype in _DTYPES.items()}
_HALVES: Final = {"F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}  # read from other libraries' files, as float32
_PREFIX: Final = b'{"__metadata__":{"blake2b":"'
_DIGITS: Final = slice(len(_PREFIX), len(_PREFIX) + 64)
_ALIGNMENT: Final = 64
_MAX_HEADER: Final = 100_000_000  # as safetensors has it
_MAX_DEPTH: Final = 64
_MAX_BYTES: Final = 2**63 - 1
_MAX_RANK: Final = 64


# --- writing ----------------------------------------------------------------------------------------------------------

_NO_HARD_LINKS: Final = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_NO_FOLDER_SYNC: Final = {errno.EINVAL, errno.ENOTSUP}
_HINTS: Final = {
    errno.ENOSPC: "free some space on the disk",
    errno.EDQUOT: "free some space within the quota",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that is not read-only",
    errno.ENOENT: "create the folder first",
    errno.ENOTDIR: "create the folder first",
}


def write_atomic(path: StrPath, data: bytes | Iterable[bytes | memoryview], keep_previous: str | None = None) -> None:
    """Write a file so that at every moment, come a kill or a power cut, the old one or the new one is there in full.

    The bytes go to a temporary file in the same folder, which is flushed to the disk and then renamed to ``path``;
    then the folder is flushed. With ``keep_previous``, a name in the same folder, the file replaced lives on under
    that name: it is moved there only once the new one is in place, or, on file systems without hard links, just
    before. One process may write a path at a time; of two, one gets an error.

    Raises: ModelFileError when the system refuses any step; the file that was there is intact (or is the predecessor,
    on file systems without hard links). ConfigError for a ``keep_previous`` that is no other name in the folder.
    """
    path = Path(path)
    if keep_previous is not None and (
        Path(keep_previous).name != keep_previous or keep_previous in ("", "..", path.name)
    ):
        raise ConfigError("keep_previous", got=repr(keep_previous), needed=f"a file name other than {path.name!r}")
    chunks = (data,) if isinstance(data, bytes | bytearray | memoryview) else data
    try:
        _write_atomic(path, chunks, None if keep_previous is None else path.with_name(keep_previous))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ModelFileError(f"{path} cannot be written", got=reason, hint=_HINTS.get(error.errno or 0)) from error


def _write_atomic(path: Path, chunks: Iterable[bytes | memoryview], previous: Path | None) -> None:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    _remove_leftovers(path)
    token = secrets.token_hex(4)
    new, old = (path.with_name(f".{path.name}.{token}.{role}.tmp") for role in ("new", "old"))
    try:
        _write_and_sync(new, chunks)
        if previous is None or not path.exists():
            os.replace(new, path)
        elif _hard_link(path, old):
            # The predecessor gives way last: even where the current file is damaged, a good one always has a name.
            os.replace(new, path)
            os.replace(old, previous)
        else:
            os.replace(path, previous)
            os.replace(new, path)
    except BaseException:
        for temporary in (new, old):
            with contextlib.suppress(OSError):  # the first error is the one to tell; the next write tidies up again
                os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def _write_and_sync(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o666)
    try:
        for chunk in chunks:
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hard_link(source: Path, target: Path) -> bool:
    """Give a file a second name; False where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        return False
    return True


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files of runs that were killed while they wrote ``path``."""
    temporary = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.(new|old)\.tmp")
    for name in os.listdir(path.parent):
        if temporary.fullmatch(name):
            with contextlib.suppress(OSError):  # harmless where it stays; what matters is the write to come
                os.unlink(path.with_name(name))


def save_file(
    path: StrPath,
    tensors: Mapping[str, Array],
    document: Mapping[str, Any],
    kind: str,
    keep_previous: str | None = None,
) -> None:
    """Write tensors and a JSON document as one model file, atomically (see ``write_atomic``).

    Floats of the document may be NaN or infinite; its tuples come back as lists.

    Raises: ModelFileError when it cannot be written; DTypeError for a dtype the format does not have; ConfigError for
    an unknown kind, an unfit name or a document that is no JSON.
    """
    write_atomic(path, _encode(tensors, document, kind), keep_previous)


def _encode(tensors: Mapping[str, Array], document: Mapping[str, Any], kind: str) -> list[bytes | memoryview]:
    """The bytes of a model file: the header, and the numbers of each tensor."""
    if kind not in KINDS:
        raise ConfigError("kind of model file", got=repr(kind), needed=f"one of {', '.join(KINDS)}")
    arrays = {name: _stored(name, array) for name, array in tensors.items()}
    # Wide dtypes first keeps every tensor aligned without gaps; the header keeps the order of the mapping.
    layout = sorted(arrays, key=lambda name: -arrays[name].itemsize)
    ends = np.cumsum([arrays[name].nbytes for name in layout], dtype=np.int64).tolist()
    offsets = {name: [end - arrays[name].nbytes, end] for name, end in zip(layout, ends, strict=True)}
    try:
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
        _parse(text, numbers=True)  # what the strict reader would refuse must not be written
        metadata = {"blake2b": "0" * 64, "format": _FORMAT, "version": str(_VERSION), "kind": kind, "document": text}
        header = {"__metadata__": metadata} | {
            name: {"dtype": _CODES[array.dtype], "shape": array.shape, "data_offsets": offsets[name]}
            for name, array in arrays.items()
        }
        raw = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError("document of a model file", got=str(error), needed="plain JSON values") from error
    raw += b" " * (-(8 + len(raw)) % _ALIGNMENT)
    if len(raw) > _MAX_HEADER:
        raise ConfigError("document of a model file", got=f"{len(raw)} bytes", needed=f"at most {_MAX_HEADER}")
    numbers = [arrays[name].reshape(-1).view(np.uint8).data for name in layout]
    length = len(raw).to_bytes(8, "little")
    digest = _digest([length, raw, *numbers]).encode()
    return [length, raw[: _DIGITS.start], digest, raw[_DIGITS.stop :], *numbers]


def _stored(name: object, array: Array) -> Array:
    """The array as the file has it: C order, little-endian."""
    if not isinstance(name, str) or name == "__metadata__":
        raise ConfigError("name of a tensor", got=repr(name), needed="a string other than '__metadata__'")
    array = np.asarray(array, order="C")
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    if array.dtype not in _CODES:
        needed = f"one of {', '.join(dtype.name for dtype in _CODES)}"
        raise DTypeError(f"tensor {name!r} of a model file", got=array.dtype, needed=needed)
    return array


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    """What the header says of one tensor."""

    code: str
    shape: tuple[int, ...]
    begin: int
    end: int


def load_file(path: StrPath, kind: str | None = None, *, foreign: bool = False) -> tuple[Tensors, Document]:
    """Read the tensors and the document of a model file, of the given kind or of any.

    With ``foreign``, a safetensors file of another program will do: its document is empty, nothing vouches for its
    bytes, and float16 and bfloat16 become float32. The tensors are views of one buffer, which lives as long as any
    of them; they may be written to.

    Raises: ModelFileError, and nothing else, for whatever is no whole, unchanged model file. Sizes are checked against
    the length of the file before memory is taken.
    """
    path = Path(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # before it is opened: a pipe would block
            raise ModelFileError(f"{path} cannot be read", got="a folder or a device", needed="a model file")
        with open(path, "rb") as file:
            return _load(path, file, kind, foreign)
    except OSError as error:
        raise _unreadable(path, error) from error


def load_newest(paths: Sequence[StrPath], kind: str | None = None) -> tuple[Tensors, Document, Path]:
    """The first of ``paths`` (a file, then its predecessor) that is whole, and which one it was.

    Raises: the ModelFileError of the first path when none is.
    """
    first: ModelFileError | None = None
    for path in paths:
        try:
            return (*load_file(path, kind), Path(path))
        except ModelFileError as error:
            first = first or error
    raise first or ConfigError("load_newest", got="no path", needed="at least one")


def _load(path: Path, file: BufferedReader, kind: str | None, foreign: bool) -> tuple[Tensors, Document]:
    size = os.fstat(file.fileno()).st_size
    length, raw = _read_header(path, file, size)
    metadata, entries = _parse_header(path, raw, foreign)
    needed = max((entry.end for entry in entries.values()), default=0)
    got = size - 8 - len(raw)
    if got != needed:
        fault = "is cut off" if got < needed else "has bytes after its end"
        raise ModelFileError(f"{path} {fault}", got=f"{got} bytes of numbers", needed=needed)
    numbers = np.empty(needed, np.uint8)
    if file.readinto(numbers.data) != needed:
        raise ModelFileError(f"{path} became shorter while it was read", needed=f"{size} bytes")
    document: Document = {}
    if raw.startswith(_PREFIX) or metadata.get("format") == _FORMAT:
        _verify_digest(path, length, raw, numbers)
        document = _document(path, metadata, kind)
    elif not foreign:
        plain = "a safetensors file without Slalom's metadata"
        raise ModelFileError(f"{path} is not a Slalom file", got=plain, hint="foreign=True reads its tensors")
    return {name: _tensor(path, name, entry, numbers) for name, entry in entries.items()}, document


def _read_header(path: Path, file: BufferedReader, size: int) -> tuple[bytes, bytes]:
    """The eight bytes of the length, and the header."""
    if size == 0:
        raise ModelFileError(f"{path} is empty", needed="a model file")
    length = file.read(8)
    n = int.from_bytes(length, "little")
    first = file.read(1)
    if not 2 <= n <= _MAX_HEADER or first not in (b"{", b""):
        raise ModelFileError(f"{path} is not a model file", got=_looks_like(length + first), needed="safetensors")
    if len(length) < 8 or n > size - 8:
        raise ModelFileError(f"{path} is cut off", got=f"{size} bytes", needed=f"{8 + n} for the header alone")
    return length, first + file.read(n - 1)


def _looks_like(start: bytes) -> str:
    if start.startswith(b"PK\x03\x04"):
        return "a zip archive (PyTorch's .pt files are such, and hold pickles, which Slalom never opens)"
    if start.startswith(b"\x80") and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a pickle, which Slalom never opens"
    return f"a file that begins {start!r}"


def _parse_header(path: Path, raw: bytes, foreign: bool) -> tuple[dict[str, str], dict[str, _Entry]]:
    """The metadata, and the entries in the order of the file; everything is checked but the digest."""
    try:
        header = _parse(raw.decode())
    except ValueError as error:
        raise _damaged(path, f"a header that is no plain JSON ({_short(str(error))})") from error
    if not isinstance(header, dict):
        raise _damaged(path, "a header that is no JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _damaged(path, "metadata other than strings")
    codes: dict[str, np.dtype[Any]] = _DTYPES
    if foreign and metadata.get("format") != _FORMAT:
        codes = _DTYPES | _HALVES
    entries = {name: _entry(path, name, fields, codes) for name, fields in header.items()}
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != end:
            fault = "overlaps its neighbour" if entry.begin < end else "comes after a gap"
            raise _damaged(path, f"tensor {_short(name)} at byte {entry.begin}, which {fault}", f"byte {end}")
        end = entry.end
    return metadata, entries


def _entry(path: Path, name: str, fields: Any, codes: Mapping[str, np.dtype[Any]]) -> _Entry:
    what = f"tensor {_short(name)}"
    if not isinstance(fields, dict) or fields.keys() != {"dtype", "shape", "data_offsets"}:
        raise _damaged(path, f"{what} with {_short(fields)}", "dtype, shape and data_offsets")
    code, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(code, str) or code not in codes:
        raise ModelFileError(f"{path}: {what}", got=f"dtype {_short(code)}", needed=f"one of {', '.join(codes)}")
    if not _naturals(shape) or len(shape) > _MAX_RANK:
        raise _damaged(path, f"{what} of shape {_short(shape)}", f"at most {_MAX_RANK} sizes of 0 or more")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _damaged(path, f"{what} at bytes {_short(offsets)}", "where it begins and ends")
    # Python's integers do not overflow; NumPy's do, and count the sizes of an empty array without its zeros.
    itemsize = codes[code].itemsize
    if prod(max(n, 1) for n in shape) * itemsize > _MAX_BYTES or offsets[1] - offsets[0] != prod(shape) * itemsize:
        got = f"{what} of shape {_short(shape)} and dtype {code} in {_short(offsets[1] - offsets[0])} bytes"
        raise _damaged(path, got, "as many bytes as it has numbers")
    return _Entry(code, tuple(shape), *offsets)


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n <= _MAX_BYTES for n in value)


def _verify_digest(path: Path, length: bytes, raw: bytes, numbers: Array) -> None:
    zeroed = raw[: _DIGITS.start] + b"0" * 64 + raw[_DIGITS.stop :]
    stated, digest = raw[_DIGITS].decode(errors="replace"), _digest([length, zeroed, numbers.data])
    if stated != digest:
        raise ModelFileError(f"{path} was changed after it was written", got=f"digest {digest}", needed=stated)


def _document(path: Path, metadata: Mapping[str, str], kind: str | None) -> Document:
    """The document of a Slalom file, once version and kind are found right."""
    version = metadata.get("version", "")
    if version.isdecimal() and version.isascii() and len(version) < 10 and int(version) > _VERSION:
        hint = "a newer Slalom reads it"
        raise ModelFileError(f"{path} has a newer format", got=f"version {version}", needed=_VERSION, hint=hint)
    found = metadata.get("kind")
    if metadata.get("format") != _FORMAT or version != str(_VERSION) or found not in KINDS:
        raise _damaged(path, f"metadata {_short({k: v for k, v in metadata.items() if k != 'document'})}")
    if kind is not None and found != kind:
        raise ModelFileError(f"{path} is another kind of file", got=f"a {found}", needed=f"a {kind}")
    try:
        document = _parse(metadata.get("document", ""), numbers=True)
    except ValueError as error:
        raise _damaged(path, f"a document that is no plain JSON ({_short(str(error))})") from error
    if not isinstance(document, dict):
        raise _damaged(path, "a document that is no JSON object")
    return document


def _tensor(path: Path, name: str, entry: _Entry, numbers: Array) -> Array:
    part = numbers[entry.begin : entry.end]
    if entry.code == "BOOL" and part.size and part.max() > 1:
        raise _damaged(path, f"tensor {_short(name)} with the truth value {part.max()}", "0 or 1")
    values = part.view((_DTYPES | _HALVES)[entry.code])
    if entry.code == "F16":
        values = values.astype(np.float32)
    elif entry.code == "BF16":  # the high half of a float32
        values = (values.astype(np.uint32) << 16).view(np.float32)
    elif not values.flags.aligned or not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    return values.reshape(entry.shape)


_STRING: Final = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_NESTING: Final = re.compile(r"[^][}{]+")
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


def _parse(text: str, *, numbers: bool = False) -> Any:
    """Strict JSON: no key twice, no deep nesting, no half characters; NaN and infinities only with ``numbers``.

    Raises: ValueError for anything else.
    """
    depth = 0
    # Measured before it is parsed, because the parser recurses.
    for bracket in _NESTING.sub("", _STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > _MAX_DEPTH:
            raise ValueError(f"nested more than {_MAX_DEPTH} deep")
    value = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=float if numbers else _refuse)
    if _SURROGATE.search(text):
        json.dumps(value, ensure_ascii=False).encode()  # UnicodeEncodeError is a ValueError
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def _damaged(path: Path, got: str, needed: str | None = None) -> ModelFileError:
    return ModelFileError(f"{path} is damaged", got=got, needed=needed)


def _unreadable(path: Path, error: OSError) -> ModelFileError:
    return ModelFileError(f"{path} cannot be read", got=error.strerror or type(error).__name__)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


# --- digests ----------------------------------------------------------------------------------------------------------


def _digest(parts: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.blake2b(digest_size=32)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def file_digest(path: StrPath) -> str:
    """BLAKE2b-256 of a whole file of any kind, in hexadecimal: what tells whether two runs saw the same data.

    Raises: ModelFileError when it cannot be read.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def arrays_sha256(tensors: Mapping[str, Array]) -> str:
    """SHA-256 of named arrays in hexadecimal, whatever their order and memory layout.

    For each name in sorted order: the JSON array [name, dtype, shape] in ASCII without spaces, a line feed, and the
    numbers, little-endian in C order. No two different sets of arrays give the same bytes, because a line says how
    many bytes follow it.

    >>> arrays_sha256({"w": np.zeros((1, 2), np.float32)})[:16]
    'd767dd2210626459'
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = _stored(name, tensors[name])
        line = json.dumps([name, array.dtype.name, array.shape], separators=(",", ":"))
        digest.update(line.encode() + b"\n")
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()

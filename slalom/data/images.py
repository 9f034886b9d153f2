"""Images from files and arrays: the IDX format of MNIST and its relatives, and pixels as a network wants them."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from slalom.core.primitive import Array
from slalom.errors import ConfigError, DataError

__all__ = ["as_images", "read_idx"]

_TYPES: Final = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""The third byte of a file, and the dtype it stands for; numbers are stored with the highest byte first."""
_GZIP: Final = b"\x1f\x8b"


def read_idx(path: str | os.PathLike[str]) -> Array:
    """The array in an IDX file, such as MNIST's; ``.gz`` is unpacked, whatever its name.

    Two bytes 0, a byte for the type, one for the number of axes, their sizes as 4-byte numbers, then the elements.

    Raises: DataError for a file that cannot be read, that is no IDX file, or whose length is not what it says.
    Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits, 1998, "File formats".
    Note: the array is in this machine's byte order, and may be written to.
    """
    path = Path(path)
    raw = _unpacked(path)
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _TYPES or not raw[3]:
        start = raw[:4].hex(" ") or "an empty file"
        raise DataError(f"{path} is no IDX file", got=start, needed="00 00, a type from 08 to 0e, the number of axes")
    dtype, axes = np.dtype(_TYPES[raw[2]]), raw[3]
    head = 4 + 4 * axes
    if len(raw) < head:
        raise DataError(f"{path} is cut off", got=f"{len(raw)} bytes", needed=f"{head} for the sizes of {axes} axes")
    shape = tuple(int(n) for n in np.frombuffer(raw, ">u4", axes, 4))
    bytes_needed = head + math.prod(shape) * dtype.itemsize
    if len(raw) != bytes_needed:
        what = "is cut off" if len(raw) < bytes_needed else "is longer than it says"
        raise DataError(
            f"{path} {what}", got=f"{len(raw)} bytes", needed=f"{bytes_needed} for shape {shape} of {dtype.name}"
        )
    return np.frombuffer(raw, dtype, offset=head).reshape(shape).astype(dtype.newbyteorder("="))


def _unpacked(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw.startswith(_GZIP) else raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is a damaged gzip file", got=str(error)) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read", got=error.strerror or str(error)) from error


def as_images(pixels: Any, *, channels_last: bool | None = None, dtype: npt.DTypeLike = np.float32) -> Array:
    """Pixels as images (B, C, H, W) of floating numbers; whole numbers, 0 to the largest of their dtype, become 0 … 1.

    ``channels_last``: whether the last of four axes is that of the channels; None: (B, H, W) without any.

    Shapes: (B, H, W) → (B, 1, H, W); (B, H, W, C) or (B, C, H, W) → (B, C, H, W).
    Raises: DataError for other shapes, or for values that are no numbers; ConfigError if four axes are not explained.

    >>> as_images(np.full((2, 28, 28), 255, np.uint8)).shape
    (2, 1, 28, 28)
    """
    array = np.asarray(pixels)
    if array.dtype.kind not in "uif":
        raise DataError("as_images: pixels", got=f"dtype {array.dtype}", needed="numbers")
    if array.ndim not in (3, 4):
        raise DataError(
            "as_images: pixels", got=f"shape {array.shape}", needed="(B, H, W), (B, H, W, C) or (B, C, H, W)"
        )
    if array.ndim == 4 and channels_last is None:
        hint = "channels_last=True for (B, H, W, C), False for (B, C, H, W)"
        raise ConfigError(
            "as_images", got=f"shape {array.shape}", needed="which axis is that of the channels", hint=hint
        )
    array = array[:, None] if array.ndim == 3 else np.moveaxis(array, -1, 1) if channels_last else array
    scale = 1.0 if array.dtype.kind == "f" else np.iinfo(array.dtype).max
    return np.ascontiguousarray(np.divide(array, scale, dtype=np.dtype(dtype)))

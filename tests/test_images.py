"""Images from IDX files and arrays: round trips through bytes, and files that are cut off, foreign or damaged."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from slalom.data import as_images, read_idx
from slalom.errors import ConfigError, DataError

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def idx(array: np.ndarray[Any, Any]) -> bytes:
    """An IDX file, written as its description says."""
    code = CODES[array.dtype.str[1:]]
    return (
        struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
        + array.astype(array.dtype.newbyteorder(">")).tobytes()
    )


SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)
ARRAYS = st.sampled_from(sorted(CODES)).flatmap(lambda code: arrays.arrays(np.dtype(code), SHAPES))


@given(array=ARRAYS, packed=st.booleans())
def test_arrays_come_back(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray[Any, Any], packed: bool) -> None:
    path = tmp_path_factory.mktemp("idx") / "a"
    path.write_bytes(gzip.compress(idx(array), mtime=0) if packed else idx(array))
    found = read_idx(path)
    assert found.dtype == array.dtype and found.dtype.isnative and found.shape == array.shape
    assert found.tobytes() == array.tobytes() and found.flags.writeable


WHOLE = idx(np.arange(24, dtype="u1").reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no IDX file: got an empty file; needed 00 00, a type from 08 to 0e"),
        (b"\x89PNG\r\n\x1a\n", "is no IDX file: got 89 50 4e 47"),
        (b"\0\0\x08", "is no IDX file: got 00 00 08"),
        (b"\0\0\x0a\x01" + bytes(8), "is no IDX file: got 00 00 0a 01"),
        (b"\0\0\x08\0", "is no IDX file"),
        (WHOLE[:10], "is cut off: got 10 bytes; needed 16 for the sizes of 3 axes"),
        (WHOLE[:-1], r"is cut off: got 39 bytes; needed 40 for shape \(2, 3, 4\) of uint8"),
        (WHOLE + b"!", "is longer than it says: got 41 bytes; needed 40"),
        (struct.pack(">HBB3I", 0, 14, 3, *[2**32 - 1] * 3), "is cut off: got 16 bytes; needed 6338"),
        (gzip.compress(WHOLE, mtime=0)[:-9], "is a damaged gzip file"),
        (gzip.compress(WHOLE, mtime=0)[:12] + b"\xff" * 20, "is a damaged gzip file"),
        (gzip.compress(WHOLE[:-1], mtime=0), "is cut off: got 39 bytes"),
    ],
)
def test_damaged_files(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"images-idx3-ubyte {message}") as caught:
        read_idx(path)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere cannot be read: got No such file or directory"):
        read_idx(tmp_path / "nowhere")
    with pytest.raises(DataError, match="cannot be read: got Is a directory"):
        read_idx(tmp_path)


def test_digits(shared_data: Callable[[str], Path]) -> None:
    images = read_idx(shared_data("mnist-10k-images-idx3-ubyte.gz"))
    labels = read_idx(str(shared_data("mnist-10k-labels-idx1-ubyte.gz")))
    assert images.shape == (10_000, 28, 28) and images.dtype == np.uint8 and labels[:5].tolist() == [7, 2, 1, 0, 4]
    pixels = as_images(images)
    assert pixels.shape == (10_000, 1, 28, 28) and pixels.dtype == np.float32
    assert pixels.min() == 0 and pixels.max() == 1


# --- arrays -------------------------------------------------------------------------------------------------------
def test_pixels_as_images() -> None:
    grey = np.array([[[0, 51], [102, 255]]], np.uint8)
    np.testing.assert_allclose(as_images(grey), [[[[0, 0.2], [0.4, 1]]]], rtol=1e-6)
    colour = np.arange(24.0).reshape(1, 2, 4, 3)
    out = as_images(colour, channels_last=True, dtype=np.float64)
    assert out.shape == (1, 3, 2, 4) and out.flags.c_contiguous and out.dtype == np.float64
    np.testing.assert_array_equal(out[0, 1], colour[0, :, :, 1])
    np.testing.assert_array_equal(as_images(colour, channels_last=False), colour)
    assert as_images(np.array([[[32767]]], np.int16))[0, 0, 0, 0] == 1


@pytest.mark.parametrize(
    ("pixels", "error", "message"),
    [
        (
            np.zeros((2, 3, 4, 3)),
            ConfigError,
            r"got shape \(2, 3, 4, 3\); needed which axis .* Hint: channels_last=True",
        ),
        (np.zeros((2, 64)), DataError, r"pixels: got shape \(2, 64\); needed \(B, H, W\)"),
        (np.zeros((2, 3, 4), bool), DataError, "pixels: got dtype bool; needed numbers"),
        (np.array([[["a"]]]), DataError, "needed numbers"),
    ],
)
def test_mistakes(pixels: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        as_images(pixels)

"""Model files and the atomic writer: what is written comes back, and nothing damaged, hostile or torn is accepted."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import subprocess
import sys
import tracemalloc
import zipfile

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slalom.errors import ConfigError, DTypeError, ModelFileError
from slalom.train import files
from slalom.train.files import arrays_sha256, file_digest, load_file, load_newest, save_file

DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "uint32", "float32", "float64"]
SMALL = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "ok": np.array([True, False]), "n": np.array(7)}
DOCUMENT = {"layers": ["Linear", 3, 2], "best": 0.25, "note": "größer ≥ 1"}

fixture_is_shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def same(a, b):
    return list(a) == list(b) and all(
        x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
        for x, y in zip(a.values(), b.values(), strict=True)
    )


# --- what is written comes back ---------------------------------------------------------------------------------------

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda name: name != "__metadata__")
arrays = st.sampled_from(DTYPES).flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, min_side=0, max_side=3)))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)
documents = st.dictionaries(st.text(st.characters(codec="utf-8")), values, max_size=3)


@fixture_is_shared
@given(st.dictionaries(names, arrays, max_size=5), documents, st.sampled_from(files.KINDS))
def test_round_trip(tmp_path, tensors, document, kind):
    path = tmp_path / "a.safetensors"
    save_file(path, tensors, document, kind)
    got, read = load_file(path, kind)
    assert same(got, tensors) and read == document
    assert same(load_file(path, foreign=True)[0], tensors)
    plain = safetensors.numpy.load_file(path)
    assert same({name: plain[name] for name in tensors}, tensors) and len(plain) == len(tensors)


def test_loaded_arrays_are_aligned_and_writable(tmp_path):
    save_file(tmp_path / "a", SMALL, DOCUMENT, "model")
    for array in load_file(tmp_path / "a")[0].values():
        assert array.flags.aligned and array.flags.writeable and array.dtype.isnative


def test_layout_in_memory_does_not_matter(tmp_path):
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    variants = {"t": x.T, "part": x[::2, 1::2], "fortran": np.asfortranarray(x), "big": x.astype(">f4")}
    save_file(tmp_path / "a", variants, {}, "state")
    for name, array in load_file(tmp_path / "a")[0].items():
        np.testing.assert_array_equal(array, variants[name])


def test_non_finite_numbers_in_a_document(tmp_path):
    save_file(tmp_path / "a", {}, {"best": math.inf, "loss": [math.nan, -math.inf]}, "checkpoint")
    document = load_file(tmp_path / "a")[1]
    assert document["best"] == math.inf and math.isnan(document["loss"][0]) and document["loss"][1] == -math.inf


def test_the_bytes_of_a_file_are_fixed(tmp_path):
    save_file(tmp_path / "a", SMALL, DOCUMENT, "model")
    content = (tmp_path / "a").read_bytes()
    n = int.from_bytes(content[:8], "little")
    assert (8 + n) % 64 == 0
    header = json.loads(content[8 : 8 + n])
    metadata = header["__metadata__"]
    assert list(metadata) == ["blake2b", "format", "version", "kind", "document"]
    assert json.loads(metadata["document"]) == DOCUMENT
    assert header["n"] == {"dtype": "I64", "shape": [], "data_offsets": [0, 8]}
    assert header["w"] == {"dtype": "F32", "shape": [2, 3], "data_offsets": [8, 32]}
    zeroed = content.replace(metadata["blake2b"].encode(), b"0" * 64)
    assert metadata["blake2b"] == hashlib.blake2b(zeroed, digest_size=32).hexdigest()
    save_file(tmp_path / "b", SMALL, DOCUMENT, "model")
    assert (tmp_path / "b").read_bytes() == content


@pytest.mark.parametrize(
    ("tensors", "document", "kind", "error", "message"),
    [
        ({}, {}, "thing", ConfigError, "kind of model file: got 'thing'; needed one of model, checkpoint, state"),
        (
            {"h": np.zeros(2, np.float16)},
            {},
            "model",
            DTypeError,
            "tensor 'h' of a model file: got float16; needed one",
        ),
        ({"o": np.array([None])}, {}, "model", DTypeError, "tensor 'o' of a model file: got object"),
        ({"__metadata__": np.zeros(1)}, {}, "model", ConfigError, "name of a tensor: got '__metadata__'"),
        ({3: np.zeros(1)}, {}, "model", ConfigError, "name of a tensor: got 3"),
        ({"\ud800": np.zeros(1)}, {}, "model", ConfigError, "surrogates not allowed"),
        ({}, {"a": np.float32(1)}, "model", ConfigError, "document of a model file: got Object of type float32"),
        ({}, {"a": {1, 2}}, "model", ConfigError, "got Object of type set is not JSON"),
        ({}, {"a": "\udfff"}, "model", ConfigError, "surrogates not allowed"),
        ({}, {"a": 1, "b": {1: 2, "1": 3}}, "model", ConfigError, "a key occurs twice"),
    ],
)
def test_what_cannot_be_saved(tmp_path, tensors, document, kind, error, message):
    with pytest.raises(error, match=message):
        save_file(tmp_path / "a", tensors, document, kind)
    assert os.listdir(tmp_path) == []


def nested(depth):
    document = {}
    for _ in range(depth - 1):
        document = {"a": document}
    return document


def test_a_document_is_never_deeper_than_its_reader(tmp_path):
    save_file(tmp_path / "a", {}, nested(64), "model")
    assert load_file(tmp_path / "a")[1] == nested(64)
    for depth in (65, 100_000):  # further than Python recurses
        with pytest.raises(ConfigError, match="document of a model file"):
            save_file(tmp_path / "b", {}, nested(depth), "model")


# --- files of other programs ------------------------------------------------------------------------------------------


def test_a_plain_safetensors_file(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file(SMALL, path, metadata={"format": "pt"})
    with pytest.raises(ModelFileError, match=r"is not a Slalom file: got a safetensors file without .* Hint: foreign"):
        load_file(path)
    tensors, document = load_file(path, foreign=True)
    assert same({name: tensors[name] for name in SMALL}, SMALL) and document == {}


def test_half_precision_becomes_float32(tmp_path):
    numbers = np.array([1.0, -2.5, np.inf, 6e-5], np.float32)
    brain = (numbers.view(np.uint32) >> 16).astype("<u2")
    header = {
        "h": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]},
        "b": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [8, 16]},
    }
    path = tmp_path / "a"
    path.write_bytes(plain(header, numbers.astype("<f2").tobytes() + brain.tobytes()))
    tensors, _ = load_file(path, foreign=True)
    assert tensors["h"].dtype == tensors["b"].dtype == np.float32
    np.testing.assert_array_equal(tensors["h"], numbers.astype(np.float16))
    np.testing.assert_allclose(tensors["b"].ravel(), numbers, rtol=2**-8)
    path.write_bytes(sealed(header, bytes(16)))
    with pytest.raises(ModelFileError, match="tensor 'h': got dtype 'F16'; needed one of BOOL, U8"):
        load_file(path, foreign=True)


def test_unaligned_numbers_are_copied(tmp_path):
    header = {
        "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "b": {"dtype": "F64", "shape": [1], "data_offsets": [1, 9]},
    }
    (tmp_path / "a").write_bytes(plain(header, b"\x07" + np.float64(1.5).tobytes()))
    tensors, _ = load_file(tmp_path / "a", foreign=True)
    assert tensors["b"].flags.aligned and tensors["b"].tolist() == [1.5]


# --- changed, torn and hostile files ----------------------------------------------------------------------------------


def plain(header, numbers=b""):
    """A safetensors file with any header (bytes, or something for JSON), and no digest."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + numbers


def sealed(entries, numbers=b"", **changes):
    """A Slalom file with any header and a right digest: what somebody could write who means harm."""
    metadata = {"blake2b": "0" * 64, "format": "slalom", "version": "1", "kind": "model", "document": "{}"} | changes
    metadata = {key: value for key, value in metadata.items() if value is not None}
    raw = json.dumps({"__metadata__": metadata} | entries, separators=(",", ":")).encode()
    content = len(raw).to_bytes(8, "little") + raw + numbers
    digest = hashlib.blake2b(content, digest_size=32).hexdigest().encode()
    return content.replace(b"0" * 64, digest, 1)


def test_sealed_files_are_good(tmp_path):
    (tmp_path / "a").write_bytes(sealed({"x": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}, b"ab"))
    tensors, document = load_file(tmp_path / "a", "model")
    assert tensors["x"].tobytes() == b"ab" and document == {}


@pytest.mark.parametrize("foreign", [False, True])
def test_every_flipped_bit_is_detected(tmp_path, foreign):
    path = tmp_path / "a"
    save_file(path, SMALL, DOCUMENT, "model")
    content = bytearray(path.read_bytes())
    for i in range(8 * len(content)):
        content[i // 8] ^= 1 << i % 8
        path.write_bytes(content)
        with pytest.raises(ModelFileError):
            load_file(path, foreign=foreign)
        content[i // 8] ^= 1 << i % 8


@pytest.mark.parametrize("foreign", [False, True])
def test_every_length_but_the_right_one_is_detected(tmp_path, foreign):
    path = tmp_path / "a"
    save_file(path, SMALL, DOCUMENT, "model")
    content = path.read_bytes()
    for n in range(len(content)):
        path.write_bytes(content[:n])
        with pytest.raises(ModelFileError, match="is empty" if n == 0 else "is cut off: got .* needed"):
            load_file(path, foreign=foreign)
    path.write_bytes(content + b"\0")
    with pytest.raises(ModelFileError, match="has bytes after its end: got 35 bytes of numbers; needed 34"):
        load_file(path, foreign=foreign)


def entry(dtype="U8", shape=(2,), offsets=(0, 2), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)} | more


def text_header(fields):
    return b'{"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]' + fields + b"}"


HEADERS = {  # what: (header, numbers, message)
    "overlap": ({"x": entry(), "y": entry(offsets=(1, 3))}, b"abc", "overlaps its neighbour"),
    "twice the same": ({"x": entry(), "y": entry()}, b"ab", "overlaps its neighbour"),
    "hole": ({"x": entry(), "y": entry(offsets=(3, 5))}, b"abcde", "comes after a gap"),
    "hole at the start": ({"x": entry(offsets=(1, 3))}, b"abc", "comes after a gap"),
    "beyond the end": ({"x": entry(shape=[9], offsets=(0, 9))}, b"ab", "is cut off"),
    "hidden bytes": ({"x": entry()}, b"abPK\x03\x04", "has bytes after its end"),
    "nothing but bytes": ({}, b"ab", "has bytes after its end"),
    "backwards": ({"x": entry(offsets=(2, 0))}, b"ab", "where it begins and ends"),
    "negative offset": ({"x": entry(offsets=(-2, 0))}, b"ab", "where it begins and ends"),
    "one offset": ({"x": entry(offsets=(0,))}, b"ab", "where it begins and ends"),
    "offsets as text": ({"x": entry(offsets=("0", "2"))}, b"ab", "where it begins and ends"),
    "negative size": ({"x": entry(shape=(-1, -2))}, b"ab", "sizes of 0 or more"),
    "huge size": ({"x": entry(shape=(2**62,), offsets=(0, 2**62))}, b"ab", "is cut off"),
    "product beyond 64 bits": ({"x": entry(shape=(2**33, 2**33))}, b"ab", "as many bytes as it has numbers"),
    "product that wraps to 2": ({"x": entry(shape=(2**63 + 1, 2))}, b"ab", "sizes of 0 or more"),
    "bytes that wrap": ({"x": entry("F64", (2**61,), (0, 0))}, b"", "as many bytes as it has numbers"),
    "empty but huge": ({"x": entry(shape=(0, 2**62, 2**62), offsets=(0, 0))}, b"", "as many bytes as it has numbers"),
    "sizes as floats": ({"x": entry(shape=(2.0,))}, b"ab", "sizes of 0 or more"),
    "sizes as truth": ({"x": entry(shape=(True, 2))}, b"ab", "sizes of 0 or more"),
    "too many axes": ({"x": entry(shape=(1,) * 64 + (2,))}, b"ab", "at most 64 sizes"),
    "shape is no list": ({"x": entry() | {"shape": 2}}, b"ab", "sizes of 0 or more"),
    "too few bytes": ({"x": entry("F32")}, b"ab", "as many bytes as it has numbers"),
    "unknown dtype": ({"x": entry("F8_E4M3")}, b"ab", "got dtype 'F8_E4M3'; needed one of BOOL"),
    "dtype is a list": ({"x": entry() | {"dtype": []}}, b"ab", "got dtype"),
    "dtype is code": ({"x": entry("__import__('os')")}, b"ab", "got dtype"),
    "truth beyond 1": ({"x": entry("BOOL")}, b"\x01\x02", "with the truth value 2"),
    "field missing": ({"x": {"dtype": "U8", "shape": [2]}}, b"ab", "needed dtype, shape and data_offsets"),
    "field too many": ({"x": entry(more=1)}, b"ab", "needed dtype, shape and data_offsets"),
    "entry is no object": ({"x": 3}, b"ab", "needed dtype, shape and data_offsets"),
}
RAW_HEADERS = {
    "size NaN": (b'{"x":{"dtype":"U8","shape":[NaN],"data_offsets":[0,2]}}', b"ab", "NaN is no JSON"),
    "offset infinite": (b'{"x":{"dtype":"U8","shape":[2],"data_offsets":[0,Infinity]}}', b"ab", "Infinity is no JSON"),
    "offset 1e999": (b'{"x":{"dtype":"U8","shape":[2],"data_offsets":[0,1e999]}}', b"ab", "where it begins and ends"),
    "number of 9999 digits": (text_header(b',"n":' + b"9" * 9999 + b"}"), b"ab", "no plain JSON"),
    "name twice": (b'{"x":{},"x":{}}', b"", "a key occurs twice"),
    "field twice": (text_header(b',"shape":[2]}'), b"ab", "a key occurs twice"),
    "metadata twice": (b'{"__metadata__":{},"__metadata__":{}}', b"", "a key occurs twice"),
    "deep lists": (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"", "nested more than 64 deep"),
    "deep objects": (b'{"x":' * 100_000 + b"1" + b"}" * 100_000, b"", "nested more than 64 deep"),
    "deep and unclosed": (b'{"x":' + b"[" * 1_000_000, b"", "nested more than 64 deep"),
    "depth behind quotes": (b'{"a\\"[":' + b'["]",' * 100 + b"}", b"", "nested more than 64 deep"),
    "quotes unclosed": (b'{"' + b'\\"' * 100_000, b"", "no plain JSON"),
    "backslash at the end": (b'{"x\\', b"", "no plain JSON"),
    "not UTF-8": (b'{"\xff":1}', b"", "no plain JSON"),
    "half a character": (b'{"\\ud800":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}', b"ab", "no plain JSON"),
    "UTF-16": ('{"x":1}'.encode("utf-16-le"), b"", "no plain JSON"),
    "two documents": (b"{}{}", b"", "no plain JSON"),
    "cut JSON": (b'{"x":', b"", "no plain JSON"),
    "zeros behind": (b"{}\0\0", b"", "no plain JSON"),
    "metadata of numbers": (b'{"__metadata__":{"a":1}}', b"", "metadata other than strings"),
    "metadata is a list": (b'{"__metadata__":[]}', b"", "metadata other than strings"),
}


@pytest.mark.parametrize(("header", "numbers", "message"), (HEADERS | RAW_HEADERS).values(), ids=HEADERS | RAW_HEADERS)
def test_hostile_headers(tmp_path, header, numbers, message):
    path = tmp_path / "a"
    path.write_bytes(plain(header, numbers))
    with pytest.raises(ModelFileError, match=message):
        load_file(path, foreign=True)
    if isinstance(header, dict):  # a right digest does not make it any better
        path.write_bytes(sealed(header, numbers))
        with pytest.raises(ModelFileError, match=message):
            load_file(path)


SEALED = {
    "newer": ({"version": "2"}, "has a newer format: got version 2; needed 1. Hint: a newer Slalom reads it"),
    "version 0": ({"version": "0"}, "is damaged: got metadata"),
    "version of many digits": ({"version": "9" * 10_000}, "is damaged: got metadata"),
    "version in other digits": ({"version": "²"}, "is damaged: got metadata"),
    "no version": ({"version": None}, "is damaged: got metadata"),
    "another format": ({"format": "salmon"}, "is damaged: got metadata"),
    "another kind": ({"kind": "checkpoint"}, "is another kind of file: got a checkpoint; needed a model"),
    "unknown kind": ({"kind": "pickle"}, "is damaged: got metadata"),
    "no document": ({"document": None}, "a document that is no plain JSON"),
    "list for a document": ({"document": "[]"}, "a document that is no JSON object"),
    "deep document": ({"document": '{"a":' * 65 + "1" + "}" * 65}, "nested more than 64 deep"),
    "key twice": ({"document": '{"a":1,"a":1}'}, "a key occurs twice"),
    "half a character": ({"document": '{"a":"\\ud800"}'}, "a document that is no plain JSON"),
    "digest elsewhere": ({"blake2b": None, "BLAKE2b": "0" * 64}, "was changed after it was written"),
    "no digest": ({"blake2b": None}, "was changed after it was written"),
}


@pytest.mark.parametrize(("changes", "message"), SEALED.values(), ids=SEALED)
def test_hostile_metadata(tmp_path, changes, message):
    (tmp_path / "a").write_bytes(sealed({}, **changes))
    for foreign in (False, True):
        with pytest.raises(ModelFileError, match=message):
            load_file(tmp_path / "a", "model", foreign=foreign)


class Harmful:
    def __reduce__(self):
        return (os.mkdir, ("harm",))


def zip_archive(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Harmful()))
        archive.writestr("../../outside", "x")
    return path.read_bytes()


STRANGERS = {
    "empty": (lambda path: b"", "is empty"),
    "pickle": (lambda path: pickle.dumps(Harmful()), "is not a model file: got a pickle, which Slalom never opens"),
    "zip": (zip_archive, "is not a model file: got a zip archive"),
    "text": (lambda path: b"age,income\n39,77516\n", "is not a model file: got a file that begins b'age,inco"),
    "zeros": (lambda path: bytes(1000), "is not a model file"),
    "header of 4 GB": (lambda path: (2**32).to_bytes(8, "little") + b"{" + bytes(100), "is not a model file"),
    "header of 2^64": (lambda path: b"\xff" * 8 + b"{}", "is not a model file"),
    "header of 99 MB": (lambda path: (99_000_000).to_bytes(8, "little") + b"{}", "is cut off: got 10 bytes"),
    "header is a list": (lambda path: plain(b"[1,2]"), "is not a model file"),
    "header of one byte": (lambda path: plain(b"{"), "is not a model file"),
}


@pytest.mark.parametrize(("content", "message"), STRANGERS.values(), ids=STRANGERS)
def test_strangers(tmp_path, content, message):
    path = tmp_path / "a"
    path.write_bytes(content(path))
    for foreign in (False, True):
        with pytest.raises(ModelFileError, match=message):
            load_file(path, foreign=foreign)
    assert os.listdir(tmp_path) == ["a"]


def test_no_memory_is_taken_for_a_claim(tmp_path):
    claims = [
        (99_000_000).to_bytes(8, "little") + b"{}",
        plain({"x": entry(shape=(2**40,), offsets=(0, 2**40))}),
        sealed({"x": entry("F64", (2**30, 2**20), (0, 2**53))}),
    ]
    for content in claims:
        (tmp_path / "a").write_bytes(content)
        tracemalloc.start()
        try:
            with pytest.raises(ModelFileError, match="is cut off"):
                load_file(tmp_path / "a", foreign=True)
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()


@fixture_is_shared
@given(st.binary(max_size=200), st.booleans())
def test_random_bytes(tmp_path, content, with_length):
    content = (len(content).to_bytes(8, "little") + b"{" + content) if with_length else content
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ModelFileError):
        load_file(tmp_path / "a", foreign=True)


PIECES = [
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b"\\",
    b",",
    b":",
    b"0",
    b"9",
    b"-",
    b"NaN",
    b"null",
    b"1e9",
    b"\xff",
    b"F16",
    b"",
]
edits = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 4), st.sampled_from(PIECES)), min_size=1, max_size=4)


@settings(fixture_is_shared, max_examples=300)
@given(edits, st.booleans())
def test_mutated_headers_without_a_digest(tmp_path, changes, fix_length):
    content = bytearray(safetensors.numpy.save(SMALL, metadata={"a": "b"}))
    for at, length, piece in changes:
        content[8 + at : 8 + at + length] = piece
    if fix_length:
        content[:8] = (len(content) - 8 - 34).to_bytes(8, "little")
    (tmp_path / "a").write_bytes(content)
    try:
        tensors, _ = load_file(tmp_path / "a", foreign=True)
    except ModelFileError:
        return
    assert sum(array.nbytes for array in tensors.values()) <= 2 * len(content)


def test_loading_opens_nothing_else_and_imports_nothing(tmp_path):
    path = tmp_path / "a"
    save_file(path, SMALL, DOCUMENT, "model")
    (tmp_path / "bad").write_bytes(sealed({"x": entry("os.system")}))
    program = """
import sys
from slalom.errors import ModelFileError
from slalom.train.files import load_file
events = []
sys.addaudithook(lambda event, args: events.append((event, args[:1])))
load_file(sys.argv[1])
try:
    load_file(sys.argv[2])
except ModelFileError:
    pass
harmless = {"object.__getattr__", "object.__setattr__", "sys._getframe"}
print([e for e in events if e[0] not in harmless and e not in [("open", (p,)) for p in sys.argv[1:]]])
"""
    command = [sys.executable, "-c", program, str(path), str(tmp_path / "bad")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_path_that_is_no_file(tmp_path):
    with pytest.raises(ModelFileError, match="nowhere cannot be read: got No such file or directory"):
        load_file(tmp_path / "nowhere")
    with pytest.raises(ModelFileError, match="cannot be read: got a folder or a device; needed a model file"):
        load_file(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelFileError, match="got a folder or a device"):
        load_file(tmp_path / "pipe")


def test_load_newest_falls_back_to_the_predecessor(tmp_path):
    new, old = tmp_path / "new", tmp_path / "old"
    with pytest.raises(ModelFileError, match="new cannot be read: got No such file"):
        load_newest([new, old], "model")
    save_file(old, SMALL, {"epoch": 1}, "model")
    assert load_newest([new, old], "model")[1:] == ({"epoch": 1}, old)
    save_file(new, SMALL, {"epoch": 2}, "model")
    assert load_newest([new, old], "model")[1:] == ({"epoch": 2}, new)
    new.write_bytes(new.read_bytes()[:-1])
    assert load_newest([new, old], "model")[1:] == ({"epoch": 1}, old)
    old.write_bytes(b"")
    with pytest.raises(ModelFileError, match="new is cut off"):
        load_newest([new, old], "model")


# --- digests ----------------------------------------------------------------------------------------------------------


def test_arrays_sha256_is_defined_byte_by_byte():
    expected = hashlib.sha256(
        b'["a\\n\\u00e9","bool",[]]\n\x01' + b'["b","float32",[1,2]]\n' + np.array([1.5, -0.0], "<f4").tobytes()
    )
    tensors = {"b": np.float32([[1.5, -0.0]]), "a\né": np.array(True)}
    assert arrays_sha256(tensors) == expected.hexdigest()
    assert arrays_sha256({}) == hashlib.sha256().hexdigest()


def test_arrays_sha256_sees_values_only():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    first = arrays_sha256({"a": x, "b": x[0]})
    assert first == arrays_sha256({"b": x[0].copy(), "a": np.asfortranarray(x).astype(">f4")})
    others = [
        {"a": x, "c": x[0]},
        {"a": x.T, "b": x[0]},
        {"a": x.ravel(), "b": x[0]},
        {"a": x.astype(np.float64), "b": x[0]},
        {"a": x.view(np.int32), "b": x[0]},
        {"a": -x, "b": x[0]},
        {"a": x},
        {"a": x[:1], "b": x[:, 0]},
    ]
    assert len({first, *map(arrays_sha256, others)}) == len(others) + 1


def test_arrays_sha256_takes_dtypes_of_model_files_only():
    with pytest.raises(DTypeError, match="got complex128"):
        arrays_sha256({"a": np.zeros(1, complex)})


def test_file_digest(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == hashlib.blake2b(b"abc", digest_size=32).hexdigest()
    with pytest.raises(ModelFileError, match="none cannot be read: got No such file or directory"):
        file_digest(tmp_path / "none")

"""Vocabularies and tokenizers: what goes in comes out, what is unknown is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slalom import tensor
from slalom.core import extras
from slalom.data.text import BPETokenizer, CharTokenizer, Vocabulary
from slalom.errors import ConfigError, DataError, IndexRangeError, MissingExtraError, SlalomError


# --- vocabularies -------------------------------------------------------------------------------------------------
def test_a_vocabulary_is_ordered_by_frequency() -> None:
    words = Vocabulary.build(["b", "a", "c", "b", "a", "b", "<unk>", "d"], specials=["<pad>", "<unk>"], unknown="<unk>")
    assert words.tokens == ("<pad>", "<unk>", "b", "a", "c", "d")
    assert len(words) == 6 and "a" in words and "z" not in words and words["b"] == 2 and words["z"] == 1
    assert words.encode(["a", "z", "b"]).tolist() == [3, 1, 2] and words.encode([]).dtype == np.int64
    assert words.decode([0, 5]) == ["<pad>", "d"] and words.decode(tensor([2])) == ["b"]
    assert repr(words) == "Vocabulary(6 tokens, unknown='<unk>')"


def test_rare_tokens_are_left_out() -> None:
    tokens = ["a", "a", "a", "b", "b", "c"]
    assert Vocabulary.build(tokens, min_freq=2).tokens == ("a", "b")
    assert Vocabulary.build(tokens, max_size=2, specials=["<s>"]).tokens == ("<s>", "a")
    assert Vocabulary.build(iter(tokens), max_size=10).tokens == ("a", "b", "c")


@given(st.lists(st.text(), min_size=1))
def test_tokens_come_back(tokens: list[str]) -> None:
    words = Vocabulary.build(tokens)
    assert words.decode(words.encode(tokens)) == tokens
    assert set(words.tokens) == set(tokens)


# --- characters ---------------------------------------------------------------------------------------------------
TEXTS = st.text(st.characters(), min_size=1)  # all of Unicode, surrogates too


@given(TEXTS, st.data())
def test_characters_come_back(known: str, data: st.DataObject) -> None:
    letters = CharTokenizer(known, specials=["<pad>", "<end>"])
    text = data.draw(st.text(st.sampled_from(known)))
    ids = letters.encode(text)
    assert ids.dtype == np.int64 and ids.shape == (len(text),) and (ids >= 2).all()
    assert letters.decode(ids) == text
    assert letters.decode([0, *ids, 1]) == f"<pad>{text}<end>"
    assert letters.decode([0, *ids, 1], specials=False) == text
    assert len(letters) == 2 + len(set(known))


def test_unknown_characters() -> None:
    letters = CharTokenizer("abc", specials=["<pad>", "<unk>"], unknown="<unk>")
    assert letters.encode("a?c🙂").tolist() == [2, 1, 4, 1]
    assert letters.decode(letters.encode("ab?")) == "ab<unk>"
    assert letters["b"] == 3 and letters["<pad>"] == 0 and letters["?"] == 1
    with pytest.raises(DataError, match=r"character '\?' at position 2: needed one of the 3 that .* Hint: unknown=…"):
        CharTokenizer("abc").encode("ab?a?")


def test_the_name_of_a_special_is_text() -> None:
    letters = CharTokenizer("<pad>", specials=["<pad>"])
    assert letters.encode("<pad>").tolist() == [letters[c] for c in "<pad>"]
    assert letters.decode(letters.encode("<pad>")) == "<pad>"


# --- byte pairs ---------------------------------------------------------------------------------------------------
SAMPLE = "the cat sat on the mat, the rat sat on the cat. " * 30


@pytest.fixture(scope="module")
def pairs() -> BPETokenizer:
    pytest.importorskip("tokenizers")
    return BPETokenizer.train(SAMPLE, 270, specials=["<pad>", "<end>"])


def test_frequent_sequences_become_tokens(pairs: BPETokenizer) -> None:
    assert 258 < len(pairs) <= 270
    ids = pairs.encode(SAMPLE)
    assert ids.dtype == np.int64 and len(ids) < len(SAMPLE) / 2 and pairs.decode(ids) == SAMPLE
    assert len(pairs.encode("zebra")) == 5 and pairs.encode("").tolist() == []
    assert repr(pairs) == f"BPETokenizer({len(pairs)} tokens, specials=['<pad>', '<end>'])"
    again = BPETokenizer.train([SAMPLE], 270, specials=["<pad>", "<end>"])
    assert again.encode(SAMPLE).tolist() == ids.tolist()


@given(text=st.text())
def test_any_text_comes_back(pairs: BPETokenizer, text: str) -> None:
    ids = pairs.encode(text)
    assert pairs.decode(ids) == text
    assert pairs.decode([0, *ids, 1]) == f"<pad>{text}<end>" and pairs.decode([0, *ids, 1], specials=False) == text
    assert (ids >= 2).all(), "no text makes a special token"


def test_specials_do_not_arise_from_text(pairs: BPETokenizer) -> None:
    assert pairs["<pad>"] == 0 and pairs["<end>"] == 1
    ids = pairs.encode("a<end>b<pad>")
    assert not {0, 1} & set(ids.tolist()) and pairs.decode(ids) == "a<end>b<pad>"


def test_it_is_saved_and_loaded(pairs: BPETokenizer, tmp_path: Path) -> None:
    pairs.save(tmp_path / "t.json")
    loaded = BPETokenizer.load(tmp_path / "t.json")
    text = SAMPLE + "<end> ünï"
    assert loaded.encode(text).tolist() == pairs.encode(text).tolist() and loaded.specials == pairs.specials
    assert loaded.decode(loaded.encode(text)) == text
    assert json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))["specials"] == ["<pad>", "<end>"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda b: b.train(SAMPLE, 257, specials=["a", "b"]), ConfigError, "vocab_size 257, .*; needed at least 258"),
        (lambda b: b.train("", 300), DataError, "no text; needed at least one character"),
        (lambda b: b.train([], 300), DataError, "no text"),
        (lambda b: b.train([3], 300), DataError, "texts: got int; needed a string"),
        (
            lambda b: b.train("a\ud800", 300),
            DataError,
            r"text: got '\\ud800' at position 1; needed characters that UTF-8",
        ),
        (lambda b: b.train(SAMPLE, 300).encode("ab\udfff"), DataError, "position 2"),
        (lambda b: b.train(SAMPLE, 300).encode(None), DataError, "encode: got NoneType; needed a string"),
        (lambda b: b.train(SAMPLE, 300).decode([300]), IndexRangeError, "token number 300: needed 0 to"),
        (lambda b: b.train(SAMPLE, 300)["<pad>"], DataError, "token '<pad>': needed one of the vocabulary's"),
    ],
)
def test_mistakes_with_byte_pairs(call: Callable[[Any], Any], error: type[SlalomError], message: str) -> None:
    pytest.importorskip("tokenizers")
    with pytest.raises(error, match=message):
        call(BPETokenizer)


@pytest.mark.parametrize("content", ["", "{}", '{"specials": [], "tokenizer": {}}', "[1]"])
def test_foreign_files(content: str, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    path = tmp_path / "t.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"t\.json is no file of a BPETokenizer"):
        BPETokenizer.load(path)
    with pytest.raises(DataError, match=r"other\.json cannot be read: got No such file"):
        BPETokenizer.load(tmp_path / "other.json")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(extras.importlib, "import_module", absent)
    message = r"byte-pair encoding needs tokenizers: got no such package. Hint: pip install 'slalom\[text\]'"
    with pytest.raises(MissingExtraError, match=message):
        BPETokenizer.train(SAMPLE, 300)


# --- mistakes -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Vocabulary([]), ConfigError, "one or more strings"),
        (lambda: Vocabulary(["a", 3]), ConfigError, "one or more strings"),  # type: ignore[list-item]
        (lambda: Vocabulary(["a", "b", "a"]), ConfigError, "Vocabulary: got 'a' twice; needed every token once"),
        (lambda: Vocabulary(["a"], "<unk>"), ConfigError, "unknown: got '<unk>'; needed one of its tokens"),
        (lambda: Vocabulary.build([]), DataError, "got no tokens; needed one that occurs 1 times or more"),
        (
            lambda: Vocabulary.build(["a", "b"], min_freq=2),
            DataError,
            "got 2 different tokens; needed one that occurs 2",
        ),
        (lambda: Vocabulary.build(["a"], min_freq=0), ConfigError, "got min_freq 0"),
        (lambda: Vocabulary.build(["a"], max_size=1, specials=["<s>"]), ConfigError, "more than the specials"),
        (lambda: Vocabulary(["a"])["b"], DataError, "token 'b': needed one of the vocabulary's 1. Hint: build it"),
        (lambda: Vocabulary(["a"]).decode([1]), IndexRangeError, "token number 1: needed 0 to 0"),
        (lambda: Vocabulary(["a"]).decode([-1]), IndexRangeError, "token number -1"),
        (lambda: Vocabulary(["a"]).decode([0.5]), DataError, "decode: got float64 of shape"),
        (lambda: Vocabulary(["a"]).decode([[0]]), DataError, "needed one sequence of whole numbers"),
        (lambda: CharTokenizer(""), DataError, "characters: got an empty text; needed at least one character"),
        (lambda: CharTokenizer(b"abc"), DataError, "characters: got bytes; needed a string"),  # type: ignore[arg-type]
        (
            lambda: CharTokenizer("a", specials=["!"]),
            ConfigError,
            "specials: got '!'; needed names that are no character",
        ),
        (lambda: CharTokenizer("a", unknown="<unk>"), ConfigError, "unknown: got '<unk>'; needed one of the specials"),
        (lambda: CharTokenizer("a").encode(["a"]), DataError, "encode: got list; needed a string"),  # type: ignore[arg-type]
        (lambda: CharTokenizer("a").decode([1]), IndexRangeError, "token number 1: needed 0 to 0"),
    ],
)
def test_mistakes(call: Callable[[], Any], error: type[SlalomError], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# --- real text ----------------------------------------------------------------------------------------------------
def test_plays(shared_data: Callable[[str], Path]) -> None:
    text = shared_data("tinyshakespeare.txt").read_text(encoding="utf-8")
    letters = CharTokenizer(text)
    assert len(letters) == 65
    assert letters.decode(letters.encode(text)) == text

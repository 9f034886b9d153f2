"""Vocabularies and tokenizers: text as numbers, and numbers as text."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slalom.core.extras import load_extra
from slalom.core.tensor import Tensor
from slalom.errors import ConfigError, DataError, IndexRangeError

__all__ = ["BPETokenizer", "CharTokenizer", "Vocabulary"]

StrPath = str | os.PathLike[str]
Ids = npt.NDArray[np.int64]


# --- vocabularies -------------------------------------------------------------------------------------------------
class Vocabulary:
    """Tokens and their numbers: token i is ``tokens[i]``.

    ``unknown``: the token that stands for all that are not in it; without one they are an error.

    Raises: ConfigError for no tokens, for one given twice, or for an ``unknown`` that is not among them.

    >>> words = Vocabulary.build("the cat and the dog".split(), specials=["<unk>"], unknown="<unk>")
    >>> words.tokens, words.encode(["the", "bird"]).tolist()
    (('<unk>', 'the', 'and', 'cat', 'dog'), [1, 0])
    """

    def __init__(self, tokens: Iterable[str], unknown: str | None = None) -> None:
        self.tokens = tuple(tokens)
        self.unknown = unknown
        self.index = {token: i for i, token in enumerate(self.tokens)}
        if not self.tokens or not all(isinstance(token, str) for token in self.tokens):
            raise ConfigError("Vocabulary", got=f"{self.tokens[:3]}", needed="one or more strings")
        if len(self.index) < len(self.tokens):
            twice = next(token for token, n in Counter(self.tokens).items() if n > 1)
            raise ConfigError("Vocabulary", got=f"{twice!r} twice", needed="every token once")
        if unknown is not None and unknown not in self.index:
            raise ConfigError("Vocabulary: unknown", got=repr(unknown), needed="one of its tokens", hint="specials=[…]")

    @classmethod
    def build(
        cls,
        tokens: Iterable[str],
        *,
        min_freq: int = 1,
        max_size: int | None = None,
        specials: Sequence[str] = (),
        unknown: str | None = None,
    ) -> Vocabulary:
        """Of tokens that occur at least ``min_freq`` times: specials first, then the most frequent; ties by alphabet.

        ``max_size``: of all of them, specials included.

        Raises: ConfigError; DataError if nothing is left.
        """
        if min_freq < 1 or (max_size is not None and max_size <= len(specials)):
            got = f"min_freq {min_freq}, max_size {max_size}"
            raise ConfigError("Vocabulary.build", got=got, needed="at least 1, and more than the specials")
        counts = Counter(tokens)
        for special in specials:
            counts.pop(special, None)
        ranked = sorted((token for token, n in counts.items() if n >= min_freq), key=lambda t: (-counts[t], t))
        if not ranked:
            got = f"{len(counts)} different tokens" if counts else "no tokens"
            raise DataError("Vocabulary.build", got=got, needed=f"one that occurs {min_freq} times or more")
        kept = ranked if max_size is None else ranked[: max_size - len(specials)]
        return cls([*specials, *kept], unknown)

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self.index

    def __getitem__(self, token: str) -> int:
        """The number of a token. Raises: DataError for one that is not in it, if none stands for such."""
        found = self.index.get(token)
        if found is None and self.unknown is not None:
            found = self.index[self.unknown]
        if found is None:
            hint = "build it from all the text, or with unknown=…"
            raise DataError(f"token {token!r}", needed=f"one of the vocabulary's {len(self)}", hint=hint)
        return found

    def encode(self, tokens: Iterable[str]) -> Ids:
        """The numbers of tokens."""
        return np.array([self[token] for token in tokens], np.int64)

    def decode(self, ids: Any) -> list[str]:
        """The tokens of numbers. Raises: IndexRangeError for one beyond it."""
        return [self.tokens[i] for i in _checked(ids, len(self))]

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} tokens, unknown={self.unknown!r})"


def _checked(ids: Any, size: int) -> list[int]:
    numbers = np.asarray(ids.numpy() if isinstance(ids, Tensor) else ids)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "ui"):
        raise DataError(
            "decode", got=f"{numbers.dtype} of shape {numbers.shape}", needed="one sequence of whole numbers"
        )
    bad = numbers[(numbers < 0) | (numbers >= size)]
    if bad.size:
        raise IndexRangeError(f"token number {bad[0]}", needed=f"0 to {size - 1}")
    listed: list[int] = numbers.tolist()
    return listed


def _text(what: str, text: Any) -> str:
    if not isinstance(text, str):
        raise DataError(what, got=type(text).__name__, needed="a string")
    return text


# --- tokenizers ---------------------------------------------------------------------------------------------------
class CharTokenizer:
    """Characters as tokens: any text of its characters comes back as it was.

    ``characters``: those it knows. ``specials``: tokens beside them (padding, start, end), which come first and never
    arise from text. ``unknown``: the special that stands for other characters; without one they are an error.

    Raises: DataError for an empty text, or for a character that it does not know.

    >>> letters = CharTokenizer("hello", specials=["<pad>"])
    >>> letters.encode("hole").tolist(), letters.decode([2, 4, 3, 1])
    ([2, 4, 3, 1], 'hole')
    """

    def __init__(self, characters: str, *, specials: Sequence[str] = (), unknown: str | None = None) -> None:
        known = sorted(set(_text("CharTokenizer: characters", characters)))
        if not known:
            raise DataError("CharTokenizer: characters", got="an empty text", needed="at least one character")
        single = [special for special in specials if len(special) == 1]
        if single:
            raise ConfigError("CharTokenizer: specials", got=repr(single[0]), needed="names that are no character")
        if unknown is not None and unknown not in specials:
            raise ConfigError("CharTokenizer: unknown", got=repr(unknown), needed="one of the specials")
        self.specials = tuple(specials)
        self.vocabulary = Vocabulary([*specials, *known], unknown)
        self._points = np.array([ord(character) for character in known], np.uint32)

    def __len__(self) -> int:
        return len(self.vocabulary)

    def __getitem__(self, token: str) -> int:
        """The number of a character or special."""
        return self.vocabulary[token]

    def encode(self, text: str) -> Ids:
        """The numbers of a text's characters. Raises: DataError naming a character that it does not know, and where."""
        points = np.frombuffer(_text("encode", text).encode("utf-32-le", "surrogatepass"), "<u4")
        place = np.searchsorted(self._points, points).clip(max=len(self._points) - 1)
        strange = self._points[place] != points
        ids = place.astype(np.int64) + len(self.specials)
        if strange.any():
            at = int(strange.argmax())
            if self.vocabulary.unknown is None:
                needed = f"one of the {len(self._points)} that the tokenizer knows"
                raise DataError(f"character {text[at]!r} at position {at}", needed=needed, hint="unknown=…, a special")
            ids[strange] = self.vocabulary[self.vocabulary.unknown]
        return ids

    def decode(self, ids: Any, *, specials: bool = True) -> str:
        """The text of numbers; specials as their names, or left out. Raises: IndexRangeError for a number beyond it."""
        first = 0 if specials else len(self.specials)
        return "".join([self.vocabulary.tokens[i] for i in _checked(ids, len(self)) if i >= first])

    def __repr__(self) -> str:
        return f"CharTokenizer({len(self._points)} characters, specials={list(self.specials)})"


class BPETokenizer:
    """Byte-pair encoding: frequent sequences of bytes as tokens; any text comes back as it was, none is unknown.

    Starting from the 256 bytes, the most frequent pair of neighbours becomes a token of its own, again and again,
    within words. Made by ``BPETokenizer.train`` or ``load``; needs the extra ``text``.

    Source: R. Sennrich et al., Neural Machine Translation of Rare Words with Subword Units, 2016, algorithm 1;
    on bytes: A. Radford et al., Language Models are Unsupervised Multitask Learners, 2019, section 2.2.
    """

    def __init__(self, inner: Any, specials: Sequence[str]) -> None:
        self._inner = inner
        self._inner.encode_special_tokens = True  # a special's name inside a text is text like any other
        self.specials = tuple(specials)

    @classmethod
    def train(
        cls, texts: str | Iterable[str], vocab_size: int = 1024, *, min_freq: int = 2, specials: Sequence[str] = ()
    ) -> BPETokenizer:
        """Learn the pairs of some texts. ``specials``: tokens that never arise from text; they come first.

        Raises: ConfigError for a size below 256 and the specials; DataError for empty texts; MissingExtraError.
        """
        given = [texts] if isinstance(texts, str) else [_text("BPETokenizer.train: texts", text) for text in texts]
        least = 256 + len(specials)
        if vocab_size < least or min_freq < 1:
            got = f"vocab_size {vocab_size}, min_freq {min_freq}"
            raise ConfigError("BPETokenizer.train", got=got, needed=f"at least {least} (all bytes, specials), and 1")
        if not any(given):
            raise DataError("BPETokenizer.train: texts", got="no text", needed="at least one character")
        for text in given:
            _encodable("BPETokenizer.train", text)
        library = _library()
        inner = library.Tokenizer(library.models.BPE())
        inner.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=min_freq,
            special_tokens=list(specials),
            initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        inner.train_from_iterator(given, trainer)
        return cls(inner, specials)

    def __len__(self) -> int:
        size: int = self._inner.get_vocab_size()
        return size

    def __getitem__(self, token: str) -> int:
        """The number of a special, or of a token as the library writes it. Raises: DataError."""
        found: int | None = self._inner.token_to_id(token)
        if found is None:
            raise DataError(f"token {token!r}", needed=f"one of the vocabulary's {len(self)}")
        return found

    def encode(self, text: str) -> Ids:
        """The numbers of a text's tokens."""
        return np.array(self._inner.encode(_encodable("encode", _text("encode", text))).ids, np.int64)

    def decode(self, ids: Any, *, specials: bool = True) -> str:
        """The text of numbers; specials as their names, or left out. Bytes that are no UTF-8 become �.

        Raises: IndexRangeError for a number beyond it.
        """
        listed, n = _checked(ids, len(self)), len(self.specials)
        parts: list[str] = []
        run: list[int] = []
        for i in listed:
            if i >= n:
                run.append(i)
                continue
            parts += [self._inner.decode(run), self.specials[i] if specials else ""]
            run = []
        return "".join([*parts, self._inner.decode(run)])

    def save(self, path: StrPath) -> None:
        """Write it to a JSON file."""
        document = {"specials": list(self.specials), "tokenizer": json.loads(self._inner.to_str())}
        Path(path).write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: StrPath) -> BPETokenizer:
        """Read what ``save`` wrote. Raises: DataError for another file; MissingExtraError."""
        library = _library()
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
            inner = library.Tokenizer.from_str(json.dumps(document["tokenizer"]))
            return cls(inner, document["specials"])
        except OSError as error:
            raise DataError(f"{path} cannot be read", got=error.strerror or str(error)) from error
        except Exception as error:  # the library raises plain Exception
            raise DataError(f"{path} is no file of a BPETokenizer", got=str(error)) from error

    def __repr__(self) -> str:
        return f"BPETokenizer({len(self)} tokens, specials={list(self.specials)})"


def _library() -> Any:
    return load_extra("tokenizers", "text", "byte-pair encoding")


def _encodable(what: str, text: str) -> str:
    """Raises: DataError for half of a surrogate pair, which has no bytes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        got = f"{text[error.start]!r} at position {error.start}"
        raise DataError(f"{what}: text", got=got, needed="characters that UTF-8 has") from error
    return text

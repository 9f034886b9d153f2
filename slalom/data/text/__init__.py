"""Text: vocabularies, tokenizers, windows to learn the next token from, and batches of sequences of unequal lengths."""

from __future__ import annotations

from slalom.data.text.sequences import (
    BucketSampler,
    NextTokenCollate,
    PadCollate,
    Seq2SeqBatch,
    Seq2SeqCollate,
    length_mask,
    pad_sequences,
    windows,
)
from slalom.data.text.tokens import BPETokenizer, CharTokenizer, Vocabulary

__all__ = [
    "BPETokenizer",
    "BucketSampler",
    "CharTokenizer",
    "NextTokenCollate",
    "PadCollate",
    "Seq2SeqBatch",
    "Seq2SeqCollate",
    "Vocabulary",
    "length_mask",
    "pad_sequences",
    "windows",
]

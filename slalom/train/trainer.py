"""Trainer."""
from __future__ import annotations


class Trainer:
    """Being written."""


def load(path):
    raise NotImplementedError


def save(model, path):
    raise NotImplementedError

"""Composites: everything that is made of primitives. Importing this package gives Tensor its methods."""

from __future__ import annotations

from slalom.core.functional import arithmetic, creation, indexing, padding, reduce, shaping

MODULES = (arithmetic, creation, indexing, padding, reduce, shaping)

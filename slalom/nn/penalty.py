"""Penalties as Modules, made from the functions in ``core/functional/penalty.py``: for ``Trainer(penalties=…)``.

A call takes a tensor, or a list of tensors: ``L1Penalty(1e-3)(model.parameters())``.
"""

from __future__ import annotations

from slalom.core.functional.penalty import PENALTIES
from slalom.nn.generated import modules

globals().update(modules(PENALTIES, __name__))
__all__ = list(PENALTIES)

"""Losses as functions of (prediction, target), by family. ``reduction`` is "mean" (default), "sum" or "none".

Importing this package fills the registry, from which ``nn.losses`` makes Modules.
"""

from __future__ import annotations

from slalom.core.functional.losses import binary, classes, ctc, margins, regression
from slalom.core.functional.registry import LOSSES as LOSSES

MODULES = (binary, classes, ctc, margins, regression)

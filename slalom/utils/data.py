"""``slalom.data`` under PyTorch's name."""

from __future__ import annotations

from slalom.data import *  # noqa: F403
from slalom.data import __all__ as __all__

"""THE closed table of primitives, by family. Everything else is composed of these."""

from __future__ import annotations

from typing import Final

from slalom.core.ops import pointwise, reductions, structural
from slalom.core.primitive import Primitive

TABLE: Final[dict[str, Primitive]] = {
    prim.name: prim for family in (pointwise, structural, reductions) for prim in family.PRIMITIVES
}

"""How large the project is, and how much of its test suite is excused: what ``make size`` prints.

A budget, not a trophy: the numbers are for noticing growth, and a line saved by obscurity is no gain.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
EXCUSES = ("skip", "xfail")
TABLES = {
    "operations": ("table_ops", "ROWS"),
    "layers": ("table_layers", "LAYERS"),
    "losses": ("table_losses", "LOSSES"),
    "optimizers": ("table_optimizers", "TABLE"),
    "schedules": ("table_schedules", "SCHEDULES"),
    "metrics": ("table_metrics", "ROWS"),
    "augmentations": ("table_augment", "AUGMENTATIONS"),
}
"""By what their rows are: a table's module and its name there."""


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def line_count(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def parts(value: object) -> Iterable[tuple[str, object]]:
    """The named parts of a row (dataclass, named tuple, mapping) or the items of a table of rows."""
    if isinstance(value, Mapping):
        return [(str(key), item) for key, item in value.items()]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    return [("", item) for item in value] if isinstance(value, list | tuple) else []


def count_excuses(value: object, seen: set[int]) -> Counter[str]:
    """How many reasons stand under ``skip`` and ``xfail`` in a table's rows, however deep; each row counts once."""
    found: Counter[str] = Counter()
    if id(value) not in seen:
        seen.add(id(value))
        for name, item in parts(value):
            if name not in EXCUSES:
                found += count_excuses(item, seen)
            elif item:
                found[name] += len(item) if isinstance(item, Mapping | list | tuple | set | frozenset) else 1
    return found


def table_excuses() -> Counter[str]:
    """The excuses in the rows of ``tests/table_*.py``."""
    names = [path.stem for path in sorted((ROOT / "tests").glob("table_*.py"))]
    tables = [value for name in names for key, value in vars(importlib.import_module(name)).items() if key[0] != "_"]
    return count_excuses(tables, set())


def code_excuses(paths: Iterable[Path]) -> Counter[str]:
    """The excuses written in test code: ``pytest.skip``, ``pytest.mark.xfail``, ``pytest.importorskip`` and so on."""
    names = {"skip": "skip", "skipif": "skip", "importorskip": "skip", "xfail": "xfail"}
    found: Counter[str] = Counter()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("pytest", "pytest.mark"):
                found.update(names[node.attr] for _ in range(node.attr in names))
    return found


def main() -> None:
    sys.path.insert(0, str(ROOT))
    for folder in ("slalom", "tests"):
        lines = {path: line_count(path) for path in sources(folder)}
        if lines:
            longest = max(lines, key=lines.__getitem__)
            print(
                f"{folder:<12}{len(lines)} files, {sum(lines.values()):,} lines; median {median(lines.values()):.0f}, "
                f"longest {lines[longest]} ({longest.relative_to(ROOT)})"
            )
    if importlib.util.find_spec("slalom.core.ops") is not None:
        print(f"{'primitives':<12}{len(importlib.import_module('slalom.core.ops').TABLE)}")
    sys.path.insert(0, str(ROOT / "tests"))
    counts = {what: len(getattr(importlib.import_module(module), name)) for what, (module, name) in TABLES.items()}
    print(f"{'rows':<12}" + ", ".join(f"{n} {what}" for what, n in counts.items()))
    rows, code = table_excuses(), code_excuses(sources("tests"))
    for name, label in (("skip", "skips"), ("xfail", "xfails")):
        print(f"{label:<12}{rows[name]} in tables, {code[name]} in test code")


if __name__ == "__main__":
    main()

"""Writes ``slalom/core/methods.pyi``: what ``@method`` attaches to Tensor, as editors and type checkers see it.

Run it after a method was added or changed (a test says when): ``python tools/make_stub.py``; with ``--print`` the
text goes to standard output instead.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import sys
import textwrap
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from slalom.core import autodiff, functional, random, tensor  # noqa: E402, F401 (importing them attaches methods)
from slalom.core.tensor import Tensor  # noqa: E402

STUB = ROOT / "slalom" / "core" / "methods.pyi"
HEADER = '''"""The methods that are attached to Tensor where they are defined.

Written by tools/make_stub.py; do not edit.
"""
# fmt: off

from builtins import bool as _bool
from builtins import float as _float
from builtins import int as _int
'''
WIDTH = 116  # of the 120 columns of a line, less the indentation in the class
BUILTINS = ("bool", "float", "int")
"""Also names of methods, which hide them inside the class."""
OVERRIDES = ("__eq__", "__ne__")


def own_names() -> set[str]:
    """What stands in the body of the class itself."""
    module = ast.parse(Path(tensor.__file__).read_text(encoding="utf-8"))
    (body,) = (node.body for node in module.body if isinstance(node, ast.ClassDef) and node.name == "Tensor")
    return {node.name for node in body if isinstance(node, ast.FunctionDef)}


class Names(ast.NodeTransformer):
    """Finds the names that an annotation needs, and spells those out that a method hides."""

    def __init__(self, space: dict[str, Any], imports: dict[str, set[str]]) -> None:
        self.space, self.imports = space, imports

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in BUILTINS:
            return ast.Name(f"_{node.id}")
        if node.id in self.space:
            home = getattr(self.space[node.id], "__module__", None)
            # An alias (Dim = int | …) has no home of its own: it is imported from where the function finds it.
            found = sys.modules.get(home) if home is not None else None
            known = getattr(found, node.id, None) is self.space[node.id]
            self.imports[home if known and home is not None else self.space["__name__"]].add(node.id)
        return node


def annotation(value: Any, names: Names) -> str:
    return ast.unparse(names.visit(ast.parse(str(value), mode="eval").body))


def signature(function: Callable[..., Any], imports: dict[str, set[str]]) -> str:
    """``(self, dim: Dim = None) -> Tensor``, from the function itself."""
    names = Names(inspect.unwrap(function).__globals__, imports)
    _, *rest = inspect.signature(function).parameters.values()
    text: list[str] = []
    for p in rest:
        marker = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(p.kind, "")
        if p.kind is inspect.Parameter.KEYWORD_ONLY and not any(t.startswith("*") for t in text):
            text.append("*")
        default = "" if p.default is p.empty else f" = {p.default!r}"
        text.append(f"{marker}{p.name}: {annotation(p.annotation, names)}{default}")
    result = annotation(inspect.signature(function).return_annotation, names)
    return f"({', '.join(['self', *text])}) -> {result}"


def broken(head: str) -> list[str]:
    """The head of a function on one line, or with a line for each parameter where that would be too long."""
    if len(head) <= WIDTH:
        return [head]
    before, rest = head.split("(", 1)
    parameters, after = rest.rsplit(") ->", 1)
    return [f"{before}(", *(f"    {p}," for p in parameters.split(", ")), f") ->{after}"]


def documentation(value: Any) -> list[str]:
    first = (inspect.getdoc(value) or "").partition("\n")[0]
    return textwrap.wrap(f'"""{first}"""', WIDTH - 4, break_long_words=False) if first else []


def entry(name: str, value: Any, imports: dict[str, set[str]]) -> list[str]:
    """The lines of one method or property; operators and in-place forms speak for themselves."""
    if isinstance(value, property):
        assert value.fget is not None, "a property that can be read"
        lines = ["@property", f"def {name}{signature(value.fget, imports)}:"]
        return [*lines, *(f"    {line}" for line in documentation(value.fget))]
    head = f"def {name}{signature(value, imports)}:"
    if name.endswith("_"):
        head = head.replace("-> Any:", "-> Tensor:")  # an operator may return NotImplemented too
        return broken(f"{head} ..." + ("  # type: ignore[override]" if name in OVERRIDES else ""))
    lines = [f"    {line}" for line in documentation(value)]
    return [*broken(head), *lines] if lines else broken(f"{head} ...")


def stub() -> str:
    """The text of the stub."""
    for module in pkgutil.iter_modules(functional.__path__, f"{functional.__name__}."):
        importlib.import_module(module.name)
    own = own_names()
    imports: dict[str, set[str]] = defaultdict(set)
    body: list[str] = []
    for name, value in sorted(vars(Tensor).items()):
        if name not in own and (inspect.isfunction(value) or isinstance(value, property)):
            body += entry(name, value, imports)
    lines = [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(imports.items())]
    ours = [line for line in lines if line.startswith("from slalom")]
    standard = [line for line in lines if line not in ours]
    return "\n".join(
        [HEADER.rstrip(), *standard, "", *ours, "", "class Methods:", *(f"    {line}" for line in body), ""]
    )


if __name__ == "__main__":
    if "--print" in sys.argv:
        print(stub(), end="")
    else:
        STUB.write_text(stub(), encoding="utf-8")

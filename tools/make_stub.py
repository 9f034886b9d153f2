"""Writes stubs, in which editors and type checkers see what Python makes only when it runs.

``slalom/core/methods.pyi``: what ``@method`` attaches to Tensor. ``slalom/nn/*.pyi``: the functions of
``nn.functional``, and the Modules that are made from them.

Run it after a method, an activation or a loss was added or changed (a test says when): ``python tools/make_stub.py``;
with ``--check`` it writes nothing, and fails where a file is not what it would write.
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
from slalom.core.functional.registry import ACTIVATIONS, DISTANCES, LOSSES, PENALTIES  # noqa: E402
from slalom.core.tensor import Tensor  # noqa: E402
from slalom.nn import activation, distance, losses, penalty  # noqa: E402
from slalom.nn import functional as nn_functional  # noqa: E402

STUB = ROOT / "slalom" / "core" / "methods.pyi"
MADE = {activation: ACTIVATIONS, distance: DISTANCES, losses: LOSSES, penalty: PENALTIES}
"""The modules of ``nn`` that make Modules, and of what."""
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

    def __init__(self, space: dict[str, Any], imports: dict[str, set[str]], hidden: tuple[str, ...]) -> None:
        self.space, self.imports, self.hidden = space, imports, hidden

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in self.hidden:
            return ast.Name(f"_{node.id}")
        if node.id in self.space:
            home = getattr(self.space[node.id], "__module__", None)
            # An alias (Dim = int | …) has no home of its own: it is imported from where the function finds it.
            found = sys.modules.get(home) if home is not None else None
            known = getattr(found, node.id, None) is self.space[node.id]
            self.imports[home if known and home is not None else self.space["__name__"]].add(node.id)
        return node


def annotation(value: Any, names: Names) -> str:
    if value is inspect.Signature.empty:
        return "None"
    return ast.unparse(names.visit(ast.parse(str(value), mode="eval").body))


def signature(
    function: Callable[..., Any],
    imports: dict[str, set[str]],
    space: dict[str, Any] | None = None,
    hidden: tuple[str, ...] = BUILTINS,
    bound: bool = True,
) -> str:
    """``(self, dim: Dim = None) -> Tensor``, from the function itself; ``space``: where its annotations are known."""
    names = Names(inspect.unwrap(function).__globals__ if space is None else space, imports, hidden)
    parameters = list(inspect.signature(function).parameters.values())
    text: list[str] = ["self"] if bound else []
    for p in parameters[1:] if bound else parameters:
        marker = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(p.kind, "")
        if p.kind is inspect.Parameter.KEYWORD_ONLY and not any(t.startswith("*") for t in text):
            text.append("*")
        default = "" if p.default is p.empty else f" = {p.default!r}"
        text.append(f"{marker}{p.name}: {annotation(p.annotation, names)}{default}")
    result = annotation(inspect.signature(function).return_annotation, names)
    return f"({', '.join(text)}) -> {result}"


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


def import_lines(imports: dict[str, set[str]], home: str) -> list[str]:
    """Those of the standard library, and then ours."""
    lines: list[str] = []
    for module, names in sorted(imports.items()):
        line = f"from {module} import {', '.join(sorted(names))}"
        if module != home:
            lines += [line] if len(line) <= WIDTH else [f"from {module} import {name}" for name in sorted(names)]
    ours = [line for line in lines if line.startswith("from slalom")]
    standard = [line for line in lines if line not in ours]
    return [*standard, *([""] if standard and ours else []), *ours]


def methods() -> str:
    """The text of ``core/methods.pyi``."""
    for module in pkgutil.iter_modules(functional.__path__, f"{functional.__name__}."):
        importlib.import_module(module.name)
    own = own_names()
    imports: dict[str, set[str]] = defaultdict(set)
    body: list[str] = []
    for name, value in sorted(vars(Tensor).items()):
        if name not in own and (inspect.isfunction(value) or isinstance(value, property)):
            body += entry(name, value, imports)
    lines = import_lines(imports, "")
    return "\n".join([HEADER.rstrip(), *lines, "", "class Methods:", *(f"    {line}" for line in body), ""])


def text_of(module: Any, what: str, imports: dict[str, set[str]], body: list[str]) -> str:
    head = [
        f'"""{what}',
        "",
        "Written by tools/make_stub.py; do not edit.",
        '"""',
        "# fmt: off",
        "",
    ]
    public = [f'    "{name}",' for name in sorted(module.__all__)]
    lines = import_lines(imports, module.__name__)
    return "\n".join([*head, *lines, "", "__all__ = [", *public, "]", "", *body]).rstrip() + "\n"


def of_class(cls: type, made: Callable[..., Any] | None, imports: dict[str, set[str]]) -> list[str]:
    """A Module as a stub has it; ``made``: the function that it was made from."""
    space = vars(sys.modules[cls.__module__]) if made is None else made.__globals__
    names = Names(space, imports, ())
    lines = [f"    {line}" for line in documentation(cls)]
    if made is None:
        lines += [f"    {name}: {annotation(kind, names)}" for name, kind in inspect.get_annotations(cls).items()]
    else:
        options = list(inspect.signature(cls).parameters.values())
        lines += [f"    {p.name}: {annotation(p.annotation, names)}" for p in options]
    for name, value in vars(cls).items():
        if inspect.isfunction(value):
            lines += [f"    {line}" for line in broken(f"def {name}{signature(value, imports, space, ())}: ...")]
    base = cls.__mro__[1]
    imports[base.__module__].add(base.__name__)
    return [f"class {cls.__name__}({base.__name__}):", *lines, ""]


def of_modules(module: Any, entries: dict[str, Any]) -> str:
    """The text of the stub of a module that makes Modules."""
    imports: dict[str, set[str]] = defaultdict(set)
    body: list[str] = []
    for name in sorted(module.__all__):
        body += of_class(getattr(module, name), entries[name].function if name in entries else None, imports)
    return text_of(module, "Modules made from functions, and their like.", imports, body)


def of_functions(module: Any) -> str:
    """The text of the stub of ``nn.functional``: where each function comes from."""
    imports: dict[str, set[str]] = defaultdict(set)
    body: list[str] = []
    for name in sorted(module.__all__):
        value = getattr(module, name)
        if value.__module__ == module.__name__:
            body += broken(f"def {name}{signature(value, imports, hidden=(), bound=False)}: ...")
        else:
            imports[value.__module__].add(f"{value.__name__} as {name}")
    return text_of(module, "The functions of ``nn.functional``, and where they come from.", imports, body)


def stubs() -> dict[Path, str]:
    """The text of each stub."""
    made = {Path(module.__file__).with_suffix(".pyi"): of_modules(module, table) for module, table in MADE.items()}
    return {STUB: methods(), **made, Path(nn_functional.__file__).with_suffix(".pyi"): of_functions(nn_functional)}


def main() -> None:
    stale = {p: text for p, text in stubs().items() if not p.exists() or p.read_text(encoding="utf-8") != text}
    if "--check" in sys.argv:
        sys.exit(f"run tools/make_stub.py: {', '.join(path.name for path in stale)}" if stale else 0)
    for path, text in stale.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

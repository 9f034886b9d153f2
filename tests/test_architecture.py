"""The rules of the house, checked on the source with nothing but the standard library.

Each rule is a function from {path: text} to a list of violations, so that the same function judges the project and,
further down, a small fixture that breaks it: a rule that cannot fail would protect nothing.
"""

from __future__ import annotations

import ast
import graphlib
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
Files = dict[str, str]

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors"}),
    frozenset({"core"}),
    frozenset({"compiler", "nn", "optim", "data", "autograd", "information", "linalg"}),
    frozenset({"utils"}),  # PyTorch's names for what is in `data`
    frozenset({"train"}),
    frozenset({"slalom"}),  # the package's own __init__: it gathers all that is below
    frozenset({"inspect"}),
    frozenset({"tabular", "tune", "report"}),
    frozenset({"estimators", "cli", "playground"}),
    frozenset({"__main__"}),
)
SIBLINGS_ALLOWED = {("tune", "tabular"), ("report", "tabular")}

_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_IMPORT_NAME = {"scikit-learn": "sklearn"}


def _import_names(requirements: list[str]) -> set[str]:
    names = (re.match(r"[\w.-]+", requirement)[0] for requirement in requirements)  # type: ignore[index]
    return {_IMPORT_NAME.get(name, name) for name in names}


REQUIRED = _import_names(_PROJECT["dependencies"])
OPTIONAL = {"pandas", "torch"}.union(
    *(_import_names(names) for extra, names in _PROJECT["optional-dependencies"].items() if extra not in ("all", "dev"))
)
LAZY = OPTIONAL | {"llvmlite"}
EAGER = {("estimators", "sklearn")}
"""(unit, library): a unit that derives classes from an optional library may import it at the top."""

MAX_LINES, MAX_README_LINES = 600, 40
TEXT_SUFFIXES = {".py", ".pyi", ".md", ".toml", ".sh", ".html", ".css", ".js", ".ts"}
TEXT_NAMES = {"Makefile", ".gitignore", ".ci/run"}
FOLDERS = (".ci", "benchmarks", "docs", "examples", "slalom", "tests", "tools")


class Import(NamedTuple):
    """One import statement's target, and where it stands."""

    path: str
    line: int
    target: str
    place: str
    """'' at the top of the module, 'TYPE_CHECKING', or the name of the function that hides it."""

    @property
    def at(self) -> str:
        return f"{self.path}:{self.line}"

    @property
    def library(self) -> str:
        return self.target.partition(".")[0]


def module_name(path: str) -> str:
    parts = PurePosixPath(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit(module: str) -> str:
    """The part of the house a module of the package belongs to: ``slalom.core.dtype`` to ``core``."""
    return module.split(".")[1] if "." in module else module


@cache
def parsed(text: str, path: str) -> ast.Module:
    """Each rule reads all files."""
    return ast.parse(text, path)


def package_files(files: Files) -> Iterator[tuple[str, ast.Module]]:
    for path, text in files.items():
        if path.startswith("slalom/") and path.endswith(".py"):
            yield path, parsed(text, path)


def imports(files: Files) -> list[Import]:
    """Every import statement in the package; ``from a import b`` means a.b where that is a module."""
    modules = {module_name(path) for path, _ in package_files(files)}
    found: list[Import] = []

    def targets(node: ast.Import | ast.ImportFrom, path: str) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            return
        base = node.module or ""
        if node.level:
            package = PurePosixPath(path).parts[: -node.level]
            base = ".".join((*package, base) if base else package)
        for alias in node.names:
            full = f"{base}.{alias.name}"
            yield full if full in modules else base

    def walk(node: ast.AST, path: str, place: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                found.extend(Import(path, child.lineno, target, place) for target in targets(child, path))
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                walk(child, path, child.name)
            elif isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
                for statement in child.body:
                    walk(ast.Module([statement], []), path, "TYPE_CHECKING")
                walk(ast.Module(child.orelse, []), path, place)
            elif not isinstance(child, ast.expr):  # which no import stands in
                walk(child, path, place)

    for path, tree in package_files(files):
        walk(tree, path, "")
    return found


def in_root_getattr(found: Import) -> bool:
    return found.path == "slalom/__init__.py" and found.place in ("__getattr__", "TYPE_CHECKING")


def layer_order(files: Files) -> list[str]:
    """Imports, also those for type checkers only, go to lower layers; siblings do not know each other."""
    height = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    wrong = []
    for found in imports(files):
        source, target = unit(module_name(found.path)), unit(found.target)
        if found.library != "slalom" or source == target or in_root_getattr(found):
            continue
        unknown = {source, target} - height.keys()
        if unknown:
            wrong.append(f"{found.at}: {', '.join(sorted(unknown))} has no place in LAYERS")
        elif height[target] >= height[source] and (source, target) not in SIBLINGS_ALLOWED:
            wrong.append(f"{found.at}: {source} must not import {target}")
    return wrong


def import_cycles(files: Files) -> list[str]:
    """No module needs, to be imported, a module that needs it."""
    path_of = {module_name(path): path for path, _ in package_files(files)}
    graph: dict[str, set[str]] = {name: set() for name in path_of}
    for found in imports(files):
        if found.place == "" and found.target in graph:
            graph[module_name(found.path)].add(found.target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        ring = error.args[1][:-1]
        start = ring.index(min(ring))
        ring = ring[start:] + ring[: start + 1]
        return [f"{path_of[ring[0]]}: import cycle {' → '.join(reversed(ring))}"]
    return []


IMPORTERS = ("import_module", "__import__")


def called(node: ast.Call) -> str:
    """The last name of what is called: ``c`` of ``a.b.c()``."""
    return str(getattr(node.func, "attr", getattr(node.func, "id", "")))


def hidden_imports(files: Files) -> list[str]:
    """Functions import only optional libraries, and llvmlite at the first compile."""
    wrong = []
    for found in imports(files):
        allowed = found.library in LAZY or in_root_getattr(found)
        if found.place not in ("", "TYPE_CHECKING") and not allowed:
            wrong.append(f"{found.at}: {found.place} imports {found.target}")
    for path, tree in package_files(files):
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or path == "slalom/__init__.py":
                continue
            first = ast.unparse(node.args[0]) if node.args and called(node).endswith(IMPORTERS) else ""
            if re.match(r"f?['\"](slalom|\.)", first):
                wrong.append(f"{path}:{node.lineno}: {ast.unparse(node.func)}({first})")
    return wrong


def third_party_imports(files: Files) -> list[str]:
    """Only declared libraries; optional ones inside functions; llvmlite in one file, and there at the first compile."""
    wrong = []
    for found in imports(files):
        library = found.library
        if library == "slalom" or library in sys.stdlib_module_names:
            continue
        if library not in REQUIRED | OPTIONAL:
            wrong.append(f"{found.at}: {library} is no declared dependency")
        elif library == "llvmlite" and found.path != "slalom/compiler/llvm.py":
            wrong.append(f"{found.at}: only compiler/llvm.py imports llvmlite")
        elif found.place == "" and library in LAZY and (unit(module_name(found.path)), library) not in EAGER:
            wrong.append(f"{found.at}: {library} must be imported inside the function that needs it")
    return wrong


def file_sizes(files: Files) -> list[str]:
    """No file is longer than a reader's patience."""
    lines = {path: text.count("\n") for path, text in files.items()}
    return [f"{path}: {n} lines, at most {MAX_LINES}" for path, n in lines.items() if n > MAX_LINES]


def package_folders(files: Files) -> list[str]:
    """Each folder of the package has an ``__init__.py`` and a short README."""
    wrong = []
    for folder in sorted({str(PurePosixPath(path).parent) for path, _ in package_files(files)}):
        readme = files.get(f"{folder}/README.md")
        if f"{folder}/__init__.py" not in files:
            wrong.append(f"{folder}: no __init__.py")
        if folder == "slalom":
            continue  # the project's own README speaks for it
        if readme is None:
            wrong.append(f"{folder}: no README.md")
        elif readme.count("\n") > MAX_README_LINES:
            wrong.append(f"{folder}/README.md: {readme.count(chr(10))} lines, at most {MAX_README_LINES}")
    return wrong


_MACHINE_PATH = re.compile(r"(?<![\w.~/-])/(?:home|mnt|opt|root|tmp|work|Users)(?:/|\b)")


def machine_paths(files: Files) -> list[str]:
    """Nothing depends on, or speaks of, the folders of one machine."""
    return [
        f"{path}:{number}: {match[0]}"
        for path, text in files.items()
        for number, line in enumerate(text.splitlines(), 1)
        for match in _MACHINE_PATH.finditer(line)
    ]


_BROAD = {"Exception", "BaseException"}


def swallowed_exceptions(files: Files) -> list[str]:
    """No bare ``except:``; no broad exception is dropped without a word."""

    def broad(node: ast.expr) -> bool:
        return any(ast.unparse(kind) in _BROAD for kind in (node.elts if isinstance(node, ast.Tuple) else [node]))

    def empty(body: list[ast.stmt]) -> bool:
        return all(ast.unparse(statement) in ("pass", "...", "continue") for statement in body)

    wrong = []
    for path, text in files.items():
        for node in ast.walk(parsed(text, path)) if path.endswith(".py") else ():
            if isinstance(node, ast.ExceptHandler):
                if node.type is None:
                    wrong.append(f"{path}:{node.lineno}: bare except")
                elif broad(node.type) and empty(node.body):
                    wrong.append(f"{path}:{node.lineno}: {ast.unparse(node.type)} swallowed")
            elif isinstance(node, ast.Call) and called(node).endswith("suppress") and any(map(broad, node.args)):
                wrong.append(f"{path}:{node.lineno}: {ast.unparse(node)}")
    return wrong


def asserts(files: Files) -> list[str]:
    """``assert`` states an invariant of our own, with its reason, in core and compiler; users get SlalomErrors.

    ``assert x is not None`` may stand anywhere: it tells the type checker what it cannot see.
    """
    wrong = []
    for path, tree in package_files(files):
        for node in ast.walk(tree):
            if not isinstance(node, ast.Assert) or ast.unparse(node.test).endswith(" is not None"):
                continue
            if unit(module_name(path)) not in ("core", "compiler"):
                wrong.append(f"{path}:{node.lineno}: assert outside core and compiler")
            elif node.msg is None:
                wrong.append(f"{path}:{node.lineno}: assert without a reason")
    return wrong


Rule = Callable[[Files], list[str]]
RULES: tuple[Rule, ...] = (
    layer_order,
    import_cycles,
    hidden_imports,
    third_party_imports,
    file_sizes,
    package_folders,
    machine_paths,
    swallowed_exceptions,
    asserts,
)


@pytest.fixture(scope="module")
def project() -> Files:
    paths = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in FOLDERS:
        paths += (ROOT / folder).rglob("*")
    names = {path.relative_to(ROOT).as_posix(): path for path in paths}
    return {
        name: path.read_text(encoding="utf-8")
        for name, path in sorted(names.items())
        if (path.suffix in TEXT_SUFFIXES or name in TEXT_NAMES) and path.is_file()
    }


@pytest.mark.parametrize("rule", RULES)
def test_project(rule: Rule, project: Files) -> None:
    wrong = rule(project)
    assert not wrong, "\n".join(["", *wrong])


HOME = "/" + "home"  # split, or this file would break its own rule

BROKEN: list[tuple[Rule, Files, list[str]]] = [
    (
        layer_order,
        {
            "slalom/__init__.py": "from slalom import train\ndef __getattr__(n):\n    from slalom import tabular\n",
            "slalom/core/__init__.py": "from slalom import errors\nfrom slalom.nn import Linear\n",
            "slalom/errors.py": "",
            "slalom/nn/__init__.py": "from slalom.core import Tensor\nfrom slalom import optim\nimport slalom\n",
            "slalom/optim/__init__.py": "import typing\nif typing.TYPE_CHECKING:\n    from ..nn import Module\n",
            "slalom/train/__init__.py": "from slalom.attic import old\n",
            "slalom/tune/__init__.py": "import slalom\nfrom slalom import tabular\nfrom slalom import report\n",
            "slalom/tabular/__init__.py": "",
            "slalom/report/__init__.py": "",
        },
        [
            "slalom/core/__init__.py:2",
            "slalom/nn/__init__.py:2",
            "slalom/nn/__init__.py:3",
            "slalom/optim/__init__.py:3",
            "slalom/train/__init__.py:1",
            "slalom/tune/__init__.py:3",
        ],
    ),
    (
        import_cycles,
        {"slalom/core/a.py": "from slalom.core.b import f", "slalom/core/b.py": "if True:\n    from . import a\n"},
        ["slalom/core/a.py"],
    ),
    (
        import_cycles,  # through a package that gathers its modules
        {"slalom/nn/__init__.py": "from slalom.nn.a import A\n", "slalom/nn/a.py": "from slalom.nn import B\n"},
        ["slalom/nn/__init__.py"],
    ),
    (
        import_cycles,  # what only type checkers see, and what is imported by a module's own name, makes no cycle
        {
            "slalom/nn/__init__.py": "from slalom.nn.a import A\n",
            "slalom/nn/a.py": "from typing import TYPE_CHECKING\nfrom slalom.nn import b\nif TYPE_CHECKING:\n"
            "    from slalom.nn import B\n",
            "slalom/nn/b.py": "",
        },
        [],
    ),
    (
        hidden_imports,
        {
            "slalom/nn/a.py": "def f():\n    import json, pyarrow\n    def g():\n        import slalom.core\n",
            "slalom/nn/b.py": "import importlib\nimportlib.import_module('slalom')\nimportlib.import_module(name)\n",
            "slalom/nn/c.py": "class C:\n    async def f(self):\n        import numpy\n",
        },
        ["slalom/nn/a.py:2", "slalom/nn/a.py:4", "slalom/nn/c.py:3", "slalom/nn/b.py:2"],
    ),
    (
        third_party_imports,
        {
            "slalom/compiler/gemm.py": "def f():\n    from llvmlite import ir\n",
            "slalom/compiler/llvm.py": "import llvmlite.ir\ndef f():\n    import llvmlite.binding\n",
            "slalom/estimators/a.py": "from sklearn.base import BaseEstimator\n",
            "slalom/nn/a.py": "import numpy as np\nimport requests\nfrom sklearn import base\n",
        },
        ["slalom/compiler/gemm.py:2", "slalom/compiler/llvm.py:1", "slalom/nn/a.py:2", "slalom/nn/a.py:3"],
    ),
    (file_sizes, {"slalom/a.py": "\n" * 601, "tests/b.py": "\n" * 600}, ["slalom/a.py"]),
    (
        package_folders,
        {
            "slalom/__init__.py": "",
            "slalom/nn/__init__.py": "",
            "slalom/nn/README.md": "\n" * 41,
            "slalom/core/__init__.py": "",
            "slalom/core/README.md": "\n" * 40,
            "slalom/core/ops/math.py": "",
        },
        ["slalom/core/ops", "slalom/core/ops", "slalom/nn/README.md"],
    ),
    (
        machine_paths,
        {"tests/a.py": f"x = '{HOME}/me/data'\n# and{HOME}\n", "README.md": f"../shared\n\nsee {HOME}\n/usr/bin/env"},
        ["tests/a.py:1", "README.md:3"],
    ),
    (
        swallowed_exceptions,
        {
            "tools/a.py": "try: f()\nexcept: print()\ntry: f()\nexcept (OSError, Exception): pass\n",
            "slalom/b.py": "try: f()\nexcept KeyError: pass\ntry: f()\nexcept Exception as e: raise E from e\n",
            "tests/c.py": "with suppress(KeyError): f()\nwith contextlib.suppress(BaseException): f()\n",
        },
        ["tools/a.py:2", "tools/a.py:4", "tests/c.py:2"],
    ),
    (
        asserts,
        {
            "slalom/core/a.py": "assert x, 'sorted by the caller'\nassert x\n",
            "slalom/nn/a.py": "assert x, 'why'\nassert x is not None\n",
            "tests/a.py": "assert x\n",
        },
        ["slalom/core/a.py:2", "slalom/nn/a.py:1"],
    ),
]


@pytest.mark.parametrize(("rule", "files", "where"), BROKEN)
def test_rule_can_fail(rule: Rule, files: Files, where: list[str]) -> None:
    assert [violation.partition(": ")[0] for violation in rule(files)] == where


def test_every_rule_is_shown_to_fail() -> None:
    assert {rule for rule, _, where in BROKEN if where} == set(RULES)

"""The package's shape.

* Imports go one way: a module imports only from its own part or from parts to its left in `ORDER`.
* `import geobind` costs nothing: neither torch nor transformers nor matplotlib comes with it.
* Every public name is there, every module says what it is and stays short.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import geobind

PACKAGE = Path(geobind.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
ORDER = (
    "errors", "console", "storage", "media", "data", "towers", "space", "cluster", "retrieval", "tasks", "binding", "recipe", "files", "gallery", "mapping", "describe", "interop", "demo", "cli",
)  # fmt: skip

each_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, part) of every import from geobind, those within functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"line {node.lineno}: write `from geobind...` instead of a relative import"
            )
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "geobind":
                home = geobind._PUBLIC.get(rest, f"geobind.{rest}")  # `from geobind import Pairs` is data's
                yield node.lineno, home.split(".")[1]


@each_module
def test_imports_go_one_way(path):
    part = part_of(path)
    if part in ("__init__", "__main__"):  # above everything
        return
    assert part in ORDER, f"{part} is a new part: give it its place in ORDER"
    for line, other in imported_parts(ast.parse(path.read_text(encoding="utf-8"))):
        if other == "__version__":
            continue
        assert ORDER.index(other) <= ORDER.index(part), f"{path.name}:{line}: {part} imports {other}"


def test_importing_geobind_is_instant():
    code = "import sys, geobind; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "matplotlib", "numpy", "pyarrow", "pydantic"}
    assert heavy.isdisjoint(run.stdout.split())


@pytest.mark.parametrize("name", geobind.__all__)
def test_public_names_resolve(name):
    assert getattr(geobind, name).__name__ == name
    assert name in dir(geobind)


def test_unknown_names_do_not_resolve():
    with pytest.raises(AttributeError, match="no attribute 'Geobind'"):
        geobind.Geobind  # noqa: B018


@each_module
def test_modules_say_what_they_are_and_stay_short(path):
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "no docstring"
    assert text.count("\n") <= 400


@each_module
def test_public_docstrings_are_there_and_short(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in public_definitions(tree):
        lines = (ast.get_docstring(node) or "").splitlines()
        assert len(lines) <= 25, f"{node.name} (line {node.lineno}): a docstring of {len(lines)} lines"
        if node in tree.body:
            assert lines, f"{node.name} (line {node.lineno}) has no docstring"


def public_definitions(tree: ast.Module) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    """Classes and functions of a module and their methods, without those that begin with an underscore."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            yield node
            for inner in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                    yield inner

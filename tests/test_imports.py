"""Modules form no circles, however late they import one another, nor for types only."""

import ast
from collections.abc import Iterator
from pathlib import Path

import networkx as nx

import lucid

ROOT = Path(lucid.__file__).parents[1]


def modules(package: str) -> dict[str, Path]:
    """The modules of a package, by name."""
    found = {}
    for path in (ROOT / package.replace(".", "/")).rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Every import of a file, in functions and for type checkers too: the module, and the name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by a relative name"
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def test_there_are_no_circles():
    known = modules("lucid")
    edges = [
        (importer, inner if (inner := f"{module}.{name}") in known else module)
        for importer, path in known.items()
        for module, name in imports(path)
    ]
    graph = nx.DiGraph([(a, b) for a, b in edges if b in known and a != b])
    assert [sorted(c) for c in nx.strongly_connected_components(graph) if len(c) > 1] == []

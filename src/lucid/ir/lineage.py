"""Where nodes come from: the ops and modules they were fused from, and patterns over those."""

from __future__ import annotations

from fnmatch import fnmatchcase

from lucid.ir.graph import Node


def lineage(node: Node) -> tuple[str, ...]:
    """What a node was fused from, or itself: `conv2d layer1.0.conv1`."""
    return node.fused_from or (f"{node.op.name} {node.origin}".strip(),)


def origins(node: Node) -> tuple[str, ...]:
    """The paths of the modules whose work a node does, its own first."""
    parts = (part.partition(" ")[2] for part in node.fused_from)
    return tuple(dict.fromkeys((node.origin, *parts)))


def matches(origin: str, pattern: str) -> bool:
    """Whether a module path is one that a pattern means, or lies within one: `layer1.0` means all
    of that block, and `*.conv2` that of every block."""
    return fnmatchcase(origin, pattern) or fnmatchcase(origin, f"{pattern}.*")


def stems_from(node: Node, pattern: str) -> bool:
    """Whether a node does the work of a module that matches. `%relu*` is over results' names."""
    if pattern.startswith("%"):
        return any(fnmatchcase(v.name, pattern[1:]) for v in node.outputs)
    return any(matches(origin, pattern) for origin in origins(node))

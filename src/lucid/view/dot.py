"""Graphviz: a picture in the DOT language, modules as nested clusters."""

from __future__ import annotations

import json
from collections.abc import Iterator

from lucid.ir.graph import Graph
from lucid.view.colours import colour
from lucid.view.picture import Box, Group, Picture, picture

HEAD = """\
  rankdir=TB; compound=true; fontname="Helvetica"; fontsize=11;
  node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=10, color="#55606e"];
  edge [fontname="Helvetica", fontsize=8, color="#7a8694", fontcolor="#55606e", arrowsize=0.6];"""


def to_dot(graph: Graph | Picture, right: bool = False) -> str:
    """The graph in the DOT language: `dot -Tsvg g.dot -o g.svg` draws it, downwards or to the
    right."""
    drawn = picture(graph)
    head = HEAD.replace("rankdir=TB", "rankdir=LR") if right else HEAD
    lines = [f"digraph {json.dumps(drawn.name)} {{", head]
    lines += _group(drawn, (), "  ")
    for box in drawn.boxes:
        for edge in box.edges:
            ends = f"{_quote(edge.source)} -> {_quote(box.id)}"
            lines.append(f"  {ends} [label={_quote(edge.type)}];")
    return "\n".join([*lines, "}"]) + "\n"


def _group(drawn: Picture, group: Group, indent: str) -> Iterator[str]:
    """The boxes of a group and the groups inside it."""
    yield from (indent + _box(b) for b in drawn.boxes if b.group == group)
    for inner in drawn.groups():
        if inner[:-1] != group:
            continue
        yield f"{indent}subgraph {_quote('cluster_' + '.'.join(inner))} {{"
        yield f'{indent}  label={_quote(inner[-1])}; style="rounded"; color="#b8c0ca";'
        yield from _group(drawn, inner, indent + "  ")
        yield f"{indent}}}"


def _box(box: Box) -> str:
    label = "\n".join(filter(None, [box.title, box.detail, *box.results]))
    tip = "\n".join(f"{k}: {v}" for k, v in box.facts.items())
    return (
        f"{_quote(box.id)} [label={_quote(label)}, tooltip={_quote(tip)},"
        f" fillcolor={_quote(colour(box.kind))}];"
    )


def _quote(text: str) -> str:
    """A DOT string: quotes and backslashes escaped, line ends as `\\n`."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'

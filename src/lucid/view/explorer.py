"""The JSON that Google's Model Explorer reads: modules become layers that fold and unfold.

`pip install ai-edge-model-explorer; model-explorer g.json` shows it.
"""

from __future__ import annotations

import json
from typing import Any

from lucid.ir.graph import Graph
from lucid.view.colours import colour
from lucid.view.picture import Box, Picture, picture


def to_explorer(graph: Graph | Picture) -> str:
    """A list with this one graph, as Model Explorer's JSON loader takes it."""
    drawn = picture(graph)
    return json.dumps([{"id": drawn.name, "nodes": [_node(b) for b in drawn.boxes]}], indent=1)


def _node(box: Box) -> dict[str, Any]:
    return {
        "id": box.id,
        "label": box.title,
        "namespace": "/".join(box.group),
        "attrs": _pairs(box.facts),
        "incomingEdges": [
            {
                "sourceNodeId": e.source,
                "sourceNodeOutputId": str(e.result),
                "targetNodeInputId": str(e.operand),
            }
            for e in box.edges
        ],
        "outputsMetadata": [
            {"id": str(i), "attrs": _pairs({"tensor_shape": kind})}
            for i, kind in enumerate(box.results)
        ],
        "style": {"backgroundColor": colour(box.kind)},
    }


def _pairs(facts: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in facts.items()]

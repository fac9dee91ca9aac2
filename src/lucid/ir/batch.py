"""Whether the images of a batch are independent, so that a batch can be run in slices."""

from __future__ import annotations

from lucid.ir.graph import Graph, Node


def mixing_node(graph: Graph) -> Node | None:
    """The first node whose result for one image depends on the others, or that puts the results of
    one image apart; None where a batch may be run in slices."""
    return next((n for n in graph.nodes if _mixes(n)), None)


def _mixes(node: Node) -> bool:
    if any(len(v.type.batch_axes()) > 1 for v in node.outputs):
        return True
    operands = [v.type for v in node.inputs]
    return not all(node.op.keeps_images_apart(operands, v.type) for v in node.outputs)

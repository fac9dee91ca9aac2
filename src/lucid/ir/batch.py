"""The batch of a graph: whether inputs fit it (`types.batch_of`), and whether its rows are
independent, so that a batch can be run in slices."""

from __future__ import annotations

from collections.abc import Iterable

from lucid.ir.graph import Graph, Node, Value
from lucid.ir.types import Dim, Shapes, batch_of, size_text

NONE = "no batch: all sizes are fixed"


def misfit(graph: Graph, shapes: Shapes) -> str:
    """Why the inputs of a graph do not have these shapes, which they do not: by names and sizes."""
    if len(shapes) != len(graph.inputs):
        return f"{graph.name} takes {len(graph.inputs)} inputs, not {len(shapes)}"
    for value, shape in zip(graph.inputs, shapes, strict=True):
        if batch_of([value.type], (shape,)) is None:
            return f"input {value.name} of {graph.name} is {value.type}, not {size_text(shape)}"
    told = [
        f"{size} of {value.name}" + (f" (which is {dim})" if dim.coefficient > 1 else "")
        for value, shape in zip(graph.inputs, shapes, strict=True)
        for dim, size in zip(value.type.shape, shape, strict=True)
        if isinstance(dim, Dim)
    ]
    return f"the inputs of a call have one batch, got {', '.join(dict.fromkeys(told))}"


def mixing_node(graph: Graph) -> Node | None:
    """The first node whose result for one image depends on the others, or that puts the results of
    one image apart; None where there is none."""
    return next((n for n in graph.nodes if _mixes(n)), None)


def _mixes(node: Node) -> bool:
    if any(len(v.type.batch_axes()) > 1 for v in node.outputs):
        return True
    operands = [v.type for v in node.inputs]
    return not all(node.op.keeps_images_apart(operands, v.type) for v in node.outputs)


def obstacle(graph: Graph) -> str | None:
    """Why a batch cannot be run in slices of its rows; None where it can be.

    It can where the batch is in front of every input and output that depends on it, and each row of
    a result depends on that row of the operands alone (`Op.keeps_images_apart`).
    """
    if not batched(graph.inputs):
        return NONE
    for value in (*graph.inputs, *graph.outputs):
        if value.type.batch_axes() not in ([], [0]):
            return f"the batch is not in front of %{value.name}: {value.type}"
    mixing = mixing_node(graph)
    if mixing is not None:
        origin = f" ({mixing.origin})" if mixing.origin else ""
        return f"%{mixing.outputs[0].name} = {mixing.op.name}{origin} mixes rows"
    return None


def batched(values: Iterable[Value]) -> list[Value]:
    """Those whose shapes depend on the batch."""
    return [value for value in values if value.type.batch_axes()]


def described(hindrance: str | None, most: int) -> str:
    """What `obstacle` says, as a line; `most` rows are one slice."""
    if hindrance is None:
        return f"batch: rows are independent, run in slices of {most}"
    return hindrance if hindrance == NONE else f"batch: {hindrance}, so that it is run whole"

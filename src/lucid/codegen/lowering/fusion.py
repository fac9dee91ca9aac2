"""Chooses the lowering of fusion nodes, by the class of their anchor.

A family of kernels that runs bodies registers its lowering with `lowers_fused`; of any other
anchor the result is stored, and the body runs on it as a kernel of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lucid.codegen.language import integer_math, vector_math
from lucid.codegen.lowering.context import LOWERINGS, Lower, Lowering, lower_node, lowers
from lucid.codegen.lowering.strided import apply_body
from lucid.ir.graph import Node, Value
from lucid.ir.ops import Cast, Constant, Elementwise, Fusion, Op, nearest

FUSED: dict[type[Op], Lower] = {}


def lowers_fused(*anchors: type[Op]) -> Callable[[Lower], Lower]:
    """Register the decorated function as the lowering of fusions with these anchors."""

    def register(function: Lower) -> Lower:
        for anchor in anchors:
            FUSED[anchor] = function
        return function

    return register


def parts(node: Node) -> tuple[Fusion, list[Value], list[Value]]:
    """The op of a fusion node, its anchor's operands, and the extra operands of its body."""
    op = node.op
    assert isinstance(op, Fusion)
    own = op.anchor_operands(len(node.inputs))
    return op, node.inputs[:own], node.inputs[own:]


def lowered(op: Op) -> bool:
    """Whether there is a lowering for a node of this op."""
    if isinstance(op, Fusion):
        inlined = (n.op for n in op.body.nodes if not isinstance(n.op, Constant))
        return has_kernel(type(op.anchor)) and all(has_kernel(type(o)) for o in inlined)
    return has_kernel(type(op))


def has_kernel(cls: type[Op]) -> bool:
    """Whether there is code for an op: elementwise ops share a lowering, and need their arithmetic
    on vectors besides."""
    if issubclass(cls, Elementwise):
        return cls in vector_math.LOWERINGS or cls in integer_math.LOWERINGS
    return nearest(LOWERINGS, cls) is not None


@lowers(Fusion)
def _fused(ctx: Lowering, node: Node) -> None:
    op, own, extras = parts(node)
    lower = nearest(FUSED, type(op.anchor))
    if lower is not None:
        lower(ctx, node)
    else:
        apart(ctx, node, own, extras)


def apart(ctx: Lowering, node: Node, own: Sequence[Value], extras: Sequence[Value]) -> None:
    """The anchor and the body as kernels of their own."""
    op, *_ = parts(node)
    (kind,) = op.anchor.result_types(*(v.type for v in own))
    anchor = Node(op.anchor, own, node.origin, node.fused_from, node.location)
    anchor.outputs = [Value(kind, f"{node.output.name}.anchor", anchor)]
    lower_node(ctx, anchor)
    apply_body(ctx, op.body, [anchor.output, *extras], node.output, node.origin)


@lowers_fused(Elementwise, Cast)
def _chain(ctx: Lowering, node: Node) -> None:
    """An elementwise op and what follows it: one kernel."""
    op, own, _ = parts(node)
    apply_body(ctx, op.body, node.inputs, node.output, node.origin, op.anchor, len(own))

"""spell-quantize: what is left of quantising and dequantising becomes arithmetic, which fuses."""

from __future__ import annotations

from lucid.ir.graph import Node, Value
from lucid.ir.ops import (
    Cast,
    Constant,
    Dequantize,
    Div,
    Elementwise,
    Mul,
    Permute,
    Quantize,
    Reshape,
    Saturate,
    Sub,
)
from lucid.ir.passes.quantised import Step, step_of
from lucid.ir.passes.rewriter import Pass, Rewriter, rewrite

spell_quantize = Pass(
    "spell-quantize", "Spell out quantising and dequantising where nothing else took them in"
)


@rewrite(spell_quantize, Quantize)
def before_moves(node: Node, graph: Rewriter) -> None:
    """quantize(permute(x)) == permute(quantize(x)), and of a reshape likewise

    For one scale of the whole tensor: bytes are moved instead of floats, and what is computed
    before the move and after it is one kernel. Fires where the quantize alone reads what is moved.
    """
    x, *scales = node.inputs
    move = x.producer
    if move is None or step_of(node) is None or not isinstance(move.op, Permute | Reshape):
        return
    if graph.only_user(x) is not node:
        return
    quantised = graph.insert_before(node, node.op, [*move.inputs, *scales])
    graph.substitute(node, move.op, [quantised])


@rewrite(spell_quantize, Quantize)
def as_quotient(node: Node, graph: Rewriter) -> None:
    """quantize(x, s, z) == saturate{z}(x / s)

    For a scale and a zero point that are numbers of the whole tensor.
    """
    step = step_of(node)
    if step is None:
        return
    scale = graph.insert_before(node, Constant(step.scale), [], inherits=False)
    quotient = graph.insert_before(node, Div(), [node.inputs[0], scale])
    graph.substitute(node, Saturate(step.dtype, step.zero_point), [quotient])


@rewrite(spell_quantize, Dequantize)
def as_product(node: Node, graph: Rewriter) -> None:
    """dequantize(x, s, z) == (cast(x) - z) * s

    For a scale and a zero point that are numbers of the whole tensor. Each elementwise op that
    reads it has its own, so that it can join its kernel: bytes are read sooner than floats.
    """
    step = step_of(node)
    if step is None:
        return
    y = node.output
    readers = list(dict.fromkeys(u for u in y.users if isinstance(u.op, Elementwise | Cast)))
    shared = len(readers) < len(set(y.users)) or y in graph.graph.outputs
    for reader in readers if shared or len(readers) > 1 else ():
        own = _floats(node, step, reader, graph)
        graph.substitute(reader, reader.op, [own if v is y else v for v in reader.inputs])
    if node not in graph.erased:
        graph.replace(node, [_floats(node, step, node, graph)])


def _floats(node: Node, step: Step, before: Node, graph: Rewriter) -> Value:
    """What a dequantize computes, as nodes before another one."""
    y = graph.insert_before(before, Cast("f32"), [node.inputs[0]])
    if step.zero_point:
        y = _with(before, graph, Sub(), y, float(step.zero_point))
    return _with(before, graph, Mul(), y, step.scale)


def _with(before: Node, graph: Rewriter, op: Sub | Mul, y: Value, number: float) -> Value:
    constant = graph.insert_before(before, Constant(number), [], inherits=False)
    return graph.insert_before(before, op, [y, constant])

"""Lowering of quantising, dequantising, and tables of 8-bit integers."""

from __future__ import annotations

from collections.abc import Sequence

from lucid.codegen.kernels.lookup import Lookup as LookupKernel
from lucid.codegen.language.elements import STRIDED, VECTOR, Access
from lucid.codegen.lowering.context import Lowering, lower_node, lowers
from lucid.codegen.lowering.shapes import contiguous
from lucid.codegen.lowering.strided import Grid, apply_body, best_inner
from lucid.codegen.program.program import ArgumentValue
from lucid.errors import UnsupportedError
from lucid.ir.graph import Graph, Node, Value
from lucid.ir.ops import (
    Add,
    Cast,
    Dequantize,
    Div,
    Lookup,
    Mul,
    Quantize,
    Reshape,
    Round,
    Saturate,
    Sub,
)


@lowers(Quantize)
def _quantize(ctx: Lowering, node: Node) -> None:
    """saturate(round(x / scale) + zero point): as floats, which hold the sum exactly wherever it
    is within the range of 16 bits."""
    op = node.op
    assert isinstance(op, Quantize)
    operands = _operands(ctx, node, op.dtype)
    body, (x, scale, *zero_points) = _opened(operands)
    y = body.append(Div(), [x, scale]).output
    for zero_point in zero_points:
        rounded = body.append(Round(), [y]).output
        y = body.append(Add(), [rounded, _float(body, zero_point)]).output
    body.set_outputs([body.append(Saturate(op.dtype), [y]).output])
    apply_body(ctx, body, operands, node.output, node.origin)


@lowers(Dequantize)
def _dequantize(ctx: Lowering, node: Node) -> None:
    """(x - zero point) * scale, the difference of floats, which hold integers of 16 bits."""
    operands = _operands(ctx, node, node.inputs[0].type.dtype)
    body, (x, scale, *zero_points) = _opened(operands)
    y = _float(body, x)
    for zero_point in zero_points:
        y = body.append(Sub(), [y, _float(body, zero_point)]).output
    body.set_outputs([body.append(Mul(), [y, scale]).output])
    apply_body(ctx, body, operands, node.output, node.origin)


def _operands(ctx: Lowering, node: Node, dtype: str) -> list[Value]:
    """The operands of a node, vectors of scales and zero points shaped so that they broadcast with
    x. Raises UnsupportedError for what is no chain of elementwise ops."""
    op, (x, *scales), where = node.op, node.inputs, node.origin or "the model"
    assert isinstance(op, Quantize | Dequantize)
    if op.block and scales[0].type.rank:
        raise UnsupportedError(f"{where}: {op.name} with a scale for each block has no kernel")
    if len(scales) > 1 and dtype == "i32":
        raise UnsupportedError(f"{where}: {op.name} of i32 with a zero point has no kernel")
    return [x, *(_reshaped(ctx, v, op.axis, x.type.rank, node.origin) for v in scales)]


def _reshaped(ctx: Lowering, vector: Value, axis: int, rank: int, origin: str) -> Value:
    """A vector along an axis of arrays of this rank; a scalar as it is."""
    if vector.type.rank == 0:
        return vector
    shape = (vector.type.shape[0], *(1,) * (rank - axis - 1))
    node = Node(Reshape(shape), [vector], origin)
    node.outputs = [Value(vector.type.with_shape(shape), f"{vector.name}.spread", node)]
    lower_node(ctx, node)
    return node.output


def _opened(operands: Sequence[Value]) -> tuple[Graph, list[Value]]:
    """An empty body, and its inputs."""
    body = Graph("body")
    return body, [body.add_input(v.type) for v in operands]


def _float(body: Graph, value: Value) -> Value:
    return body.append(Cast("f32"), [value]).output


@lowers(Lookup)
def _lookup(ctx: Lowering, node: Node) -> None:
    """One `Lookup` call; the result lies like x."""
    x, table = ctx.view(node.inputs[0]), contiguous(ctx, node.inputs[1], node.origin)
    y = ctx.result(node.output, x)
    grid = best_inner(Grid.over(y.shape, [x.strides, y.strides]), ctx.target.vector)
    spacing = zip(grid.accesses([x.dtype, y.dtype]), (x, y), strict=True)
    accesses = [a if a.kind == VECTOR else Access(STRIDED, v.dtype) for a, v in spacing]
    arguments, tasks = grid.bind(ctx, ("x", "y"), node.origin)
    bound: dict[str, ArgumentValue] = {"x": x, "y": y, "table": table}
    reads = [x, table]
    region, inputs = ctx.region(node.origin, reads)
    region.set_outputs([region.append(node.op, inputs, origin=node.origin).output])
    kernel = LookupKernel((accesses[0], accesses[1]))
    bound |= arguments
    ctx.call(kernel, tasks, bound, reads, [y], region, node.origin, algorithm="lookup")

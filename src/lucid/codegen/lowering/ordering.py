"""Lowering of the k largest elements, and of sorting."""

from __future__ import annotations

from math import prod

from lucid.codegen.kernels import top_k
from lucid.codegen.kernels.ranks import scratch_bytes
from lucid.codegen.lowering.context import Lowering, lowers, row_major
from lucid.codegen.lowering.strided import LEAST_WORK, Grid, copy
from lucid.codegen.program.program import ArgumentValue, View
from lucid.ir import ops
from lucid.ir.graph import Node

FEW_OF = 12
"""How many elements there are, at least, for each of the best ones that a heap is kept of; of
fewer, all are sorted. Of 8,732 elements 500 took 50 us by a heap and 69 us by sorting all, 1,091
took 109 us; of 1,000 elements 62 took 7.8 and 9.9 us, 125 took 11.3 (an AMD EPYC with AVX2)."""


def along_rows(ctx: Lowering, view: View, axis: int, origin: str) -> View:
    """The view, or a copy of it, whose elements along an axis lie side by side."""
    if view.strides[axis] == 1 or view.shape[axis] == 1:
        return view
    rest = [d for i, d in enumerate(view.shape) if i != axis]
    *outer, inner = row_major([*rest, view.shape[axis]])
    strides = (*outer[:axis], inner, *outer[axis:])
    rows = ctx.allocate(f"{view.buffer}.rows", view.dtype, view.shape, strides)
    copy(ctx, view, rows, origin)
    return rows


@lowers(ops.TopK)
def _top_k(ctx: Lowering, node: Node) -> None:
    """Rows of elements side by side; a task is some rows."""
    op = node.op
    assert isinstance(op, ops.TopK)
    source = ctx.view(node.inputs[0])
    axis, length = op.axis, source.shape[op.axis]
    x = along_rows(ctx, source, axis, node.origin)
    like = [x.over(ctx.shape(value), x.strides) for value in node.outputs]
    values, places = (ctx.result(v, view) for v, view in zip(node.outputs, like, strict=True))
    kept = [i for i in range(len(x.shape)) if i != axis]
    operands = (x, values, places)
    grid = Grid.over([x.shape[i] for i in kept], [[v.strides[i] for i in kept] for v in operands])
    whole = op.k * FEW_OF > length
    kernel = top_k.TopK(x.dtype, op.largest, whole)
    rows = prod(grid.sizes)
    parts = max(1, min(rows, ctx.pieces(rows * length, LEAST_WORK)))
    arguments: dict[str, ArgumentValue] = dict(zip(top_k.OPERANDS, operands, strict=True))
    arguments |= grid.outer(range(len(grid.sizes)), top_k.OPERANDS, node.origin)
    arguments |= {"rows": rows, "parts": parts, "length": length, "k": op.k}
    arguments |= {"values_axis": values.strides[axis], "places_axis": places.strides[axis]}
    region, inputs = ctx.region(node.origin, [x])
    region.set_outputs(region.append(op, inputs).outputs)
    scratch = scratch_bytes(x.dtype, length if whole else op.k)
    ctx.call(
        kernel,
        parts,
        arguments,
        [x],
        [values, places],
        region,
        node.origin,
        algorithm="top_k",
        scratch=scratch,
    )

"""Lowering of running totals."""

from __future__ import annotations

from lucid.codegen.kernels import scan
from lucid.codegen.language.elements import STRIDED, Access
from lucid.codegen.lowering.context import Lowering, lowers
from lucid.codegen.lowering.reduction import is_along, spaced
from lucid.codegen.lowering.strided import Grid, best_inner
from lucid.codegen.program.program import ArgumentValue
from lucid.ir import ops
from lucid.ir.graph import Node

KINDS: dict[type[ops.Op], str] = {ops.CumSum: "add", ops.CumProd: "mul"}


@lowers(*KINDS)
def _scan(ctx: Lowering, node: Node) -> None:
    op = node.op
    assert isinstance(op, ops.Scan)
    x = ctx.view(node.inputs[0])
    y = ctx.result(node.output, x)
    along = is_along(x, (op.axis,))
    kept = [i for i in range(len(x.shape)) if i != op.axis]
    walked = Grid.over([x.shape[i] for i in kept], [[v.strides[i] for i in kept] for v in (x, y)])
    accesses: tuple[Access, ...] = (Access(STRIDED, x.dtype),) * 2
    if not along:
        walked = best_inner(walked, ctx.target.vector)
        accesses = spaced(walked, [x.dtype] * 2)
    kernel = scan.Scan(KINDS[type(op)], op.exclusive, op.reverse, accesses, along)
    arguments, tasks = walked.bind(ctx, scan.NAMES, node.origin)
    bound: dict[str, ArgumentValue] = {"x": x, "y": y, "length": x.shape[op.axis]}
    arguments |= bound | {"x_axis": x.strides[op.axis], "y_axis": y.strides[op.axis]}
    region, inputs = ctx.region(node.origin, [x])
    region.set_outputs([region.append(op, inputs).output])
    ctx.call(kernel, tasks, arguments, [x], [y], region, node.origin, algorithm="scan")

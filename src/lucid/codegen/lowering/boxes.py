"""Lowering of non-maximum suppression: class by class, and then one list."""

from __future__ import annotations

from lucid.codegen.kernels.boxes import Listed, Suppress, scratch_bytes
from lucid.codegen.lowering.context import Lowering, lowers, row_major
from lucid.codegen.lowering.shapes import contiguous
from lucid.codegen.program.lowered_ops import ListKept, SuppressClasses
from lucid.ir.graph import Node
from lucid.ir.ops import Constant, NonMaxSuppression
from lucid.ir.ops.boxes import threshold
from lucid.ir.recipe import Apply


@lowers(NonMaxSuppression)
def _non_max_suppression(ctx: Lowering, node: Node) -> None:
    op = node.op
    assert isinstance(op, NonMaxSuppression)
    images, classes, count = ctx.shape(node.inputs[1])
    most, name, origin = min(op.max_boxes, count), node.outputs[0].name, node.origin
    if not images * classes * most:
        found, number = node.outputs
        none = Apply(Constant(0, number.type.dtype))
        ctx.views |= {found: ctx.nothing(found), number: ctx.packed(none, (), f"{name}.none")}
        return
    boxes, scores = (contiguous(ctx, value, origin) for value in node.inputs)
    shapes = ((images, classes, most), (images, classes))
    kept, counts = (
        ctx.allocate(f"{name}.{part}", "i64", shape, row_major(shape))
        for part, shape in zip(("kept", "counts"), shapes, strict=True)
    )
    bounded = op.score_threshold is not None
    region, inputs = ctx.region(origin, [boxes, scores])
    region.set_outputs(region.append(SuppressClasses(op), inputs).outputs)
    ctx.call(
        Suppress(op.form, bounded),
        images * classes,
        {
            "boxes": boxes,
            "scores": scores,
            "kept": kept,
            "counts": counts,
            "classes": classes,
            "count": count,
            "most": most,
            "share": float(threshold(op.iou_threshold)),
            "least": float(threshold(op.score_threshold or 0.0)),
        },
        [boxes, scores],
        [kept, counts],
        region,
        origin,
        algorithm="suppress",
        scratch=scratch_bytes(count, ctx.target.vector),
    )
    rows, total = (ctx.result(value) for value in node.outputs)
    region, inputs = ctx.region(origin, [kept, counts])
    region.set_outputs(region.append(ListKept(), inputs).outputs)
    ctx.call(
        Listed(),
        1,
        {
            "kept": kept,
            "counts": counts,
            "rows": rows,
            "total": total,
            "images": images,
            "classes": classes,
            "most": most,
        },
        [kept, counts],
        [rows, total],
        region,
        origin,
        algorithm="suppress",
    )

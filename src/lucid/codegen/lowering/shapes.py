"""Lowering of ops that move elements: to a view of the same memory where possible, else a copy."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from lucid.codegen.kernels.loaders import Combine, Join, part_name
from lucid.codegen.lowering.arguments import geometry
from lucid.codegen.lowering.context import (
    Deferred,
    Lowering,
    features_last,
    lowers,
    row_major,
    row_stride,
    same_places,
)
from lucid.codegen.lowering.placement import left_to_readers
from lucid.codegen.lowering.strided import broadcast, copy
from lucid.codegen.program.program import ArgumentValue, View
from lucid.ir.graph import Graph, Node, Value
from lucid.ir.ops import Concat, Constant, Expand, Permute, Reshape, Slice
from lucid.ir.recipe import Apply


def reshaped(view: View, shape: Sequence[int]) -> View | None:
    """The same elements in the same logical order under another shape, if strides can say it."""
    if 0 in shape:
        return view.over(shape, row_major(shape))
    old = [(d, s) for d, s in zip(view.shape, view.strides, strict=True) if d != 1]
    strides: list[int] = []
    position = 0
    pending = 1  # elements of old dimension `position` that inner new dimensions have taken
    for size in reversed(shape):
        if size == 1:
            strides.append(1)
            continue
        left, step = size, None
        while left > 1:
            if position >= len(old):
                return None
            extent, between = old[len(old) - 1 - position]
            at = between * pending
            if step is None:
                step = at
                covered = 1
            elif at != step * covered:
                return None
            room = extent // pending
            take = min(left, room)
            if left % take or room % take:
                return None
            left //= take
            covered *= take
            pending *= take
            if pending == extent:
                position, pending = position + 1, 1
        strides.append(step if step is not None else 1)
    return view.over(shape, tuple(reversed(strides)))


def matrix(ctx: Lowering, value: Value, shape: tuple[int, int], origin: str) -> View:
    """The value's elements, in logical order, as contiguous rows; copied if need be."""
    source = ctx.view(value)
    view = reshaped(source, shape)
    if view is not None and row_stride(view) is not None:
        return view
    strides = row_major(source.shape)
    rows = ctx.allocate(f"{value.name}.rows", source.dtype, source.shape, strides)
    copy(ctx, source, rows, origin)
    return rows.over(shape, row_major(shape))


def contiguous(ctx: Lowering, value: Value, origin: str) -> View:
    """The value as a row-major array without gaps; copied if need be."""
    source = ctx.view(value)
    strides = row_major(source.shape)
    if same_places(source.shape, source.strides, strides):
        return source.over(source.shape, strides)
    rows = ctx.allocate(f"{value.name}.rows", source.dtype, source.shape, strides)
    copy(ctx, source, rows, origin)
    return rows


@lowers(Reshape)
def _reshape(ctx: Lowering, node: Node) -> None:
    source, shape = ctx.view(node.inputs[0]), ctx.shape(node.output)
    view = reshaped(source, shape)
    if view is None and _keeps_features(source, shape):
        view = ctx.result(node.output, strides=features_last(shape))
        parts = reshaped(view, source.shape)
        assert parts is not None, "its axes are split"
        copy(ctx, source, parts, node.origin)
    elif view is None:
        strides = row_major(source.shape)
        rows = ctx.allocate(f"{node.output.name}.flat", source.dtype, source.shape, strides)
        copy(ctx, source, rows, node.origin)
        view = rows.over(shape, row_major(shape))
    ctx.views[node.output] = view


def _keeps_features(source: View, shape: Sequence[int]) -> bool:
    """Whether the innermost axis in memory becomes a part of axis 1, or is axis 1 and stays so: as
    of blocks of pixels that become a map, or of channels that are shuffled."""
    if len(shape) < 3 or len(shape) >= len(source.shape) or source.shape[0] != shape[0]:
        return False
    joined = next((k for k in range(2, len(shape)) if prod(source.shape[1:k]) == shape[1]), 0)
    axes = zip(source.shape[1:joined], source.strides[1:joined], strict=True)
    parts = View("", source.dtype, tuple(shape), features_last(shape))
    innermost = any(size > 1 and stride == 1 for size, stride in axes)
    return innermost and reshaped(parts, source.shape) is not None


@lowers(Permute)
def _permute(ctx: Lowering, node: Node) -> None:
    op, source = node.op, ctx.view(node.inputs[0])
    assert isinstance(op, Permute)
    strides = tuple(source.strides[a] for a in op.axes)
    ctx.views[node.output] = source.over(ctx.shape(node.output), strides)


@lowers(Slice)
def _slice(ctx: Lowering, node: Node) -> None:
    op, source = node.op, ctx.view(node.inputs[0])
    assert isinstance(op, Slice)
    first = range(source.shape[op.axis])[op.start : op.stop : op.step]
    offset = source.offset + (first[0] if len(first) else 0) * source.strides[op.axis]
    strides = tuple(s * (op.step if i == op.axis else 1) for i, s in enumerate(source.strides))
    ctx.views[node.output] = source.over(ctx.shape(node.output), strides, offset)


@lowers(Expand)
def _expand(ctx: Lowering, node: Node) -> None:
    ctx.views[node.output] = broadcast(ctx.view(node.inputs[0]), ctx.shape(node.output))


@lowers(Concat)
def _concat(ctx: Lowering, node: Node) -> None:
    """Nothing at all where the operands were written side by side; else copies of those that were
    not."""
    op, joined = node.op, node.output
    assert isinstance(op, Concat)
    if left_to_readers(node):
        ctx.deferred[joined] = _joined(ctx, node)
        return
    out = ctx.result(joined)
    start = 0
    for value in node.inputs:
        source = ctx.view(value)
        first = out.offset + start * out.strides[op.axis]
        place = out.over(source.shape, out.strides, first)
        if source != place:
            copy(ctx, source, place, node.origin)
            if value in ctx.placements and ctx.slice_of(value) == place:
                ctx.views[value] = place  # so that no other concatenation copies it here again
        start += source.shape[op.axis]


def _joined(ctx: Lowering, node: Node) -> Deferred:
    """Channels side by side, left to whoever reads them: a product loads both into its rows."""
    parts = [_rows(ctx, value, node.origin) for value in node.inputs]
    arguments: dict[str, ArgumentValue] = {}
    for i, (part, value) in enumerate(zip(parts, node.inputs, strict=True)):
        own = {**part.arguments, "columns": ctx.shape(value)[1]}
        arguments |= {part_name(name, i): v for name, v in own.items()}
    first, second = parts
    count = len(first.reads)

    def build(region: Graph, read: Sequence[Value]) -> Value:
        both = [first.build(region, read[:count]), second.build(region, read[count:])]
        return region.append(Concat(1), both).output

    loader = Join((first.loader, second.loader))
    return Deferred(loader, arguments, (*first.reads, *second.reads), build, node.origin)


def _rows(ctx: Lowering, value: Value, origin: str) -> Deferred:
    """The loader of a value's rows; where they lie in memory, one that copies them."""
    rows = ctx.rows(value, whole=False)
    if isinstance(rows, Deferred):
        return rows
    _, _, height, width = rows.shape
    arguments = geometry(rows, (height, width))
    return Deferred(Combine(), arguments, (rows,), lambda region, read: read[0], origin)


@lowers(Constant)
def _constant(ctx: Lowering, node: Node) -> None:
    """A packed parameter like any other; scalars in a fused body never come here."""
    name = f"{node.output.name}.constant"
    ctx.views[node.output] = ctx.packed(Apply(node.op), ctx.shape(node.output), name)

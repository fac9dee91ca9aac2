"""simplify-shapes: replaces roundabout ops that move or pool elements by direct ones."""

from __future__ import annotations

from itertools import accumulate

from lucid.ir.graph import Node, Parameter, Value
from lucid.ir.ops import (
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    AvgPool2d,
    Concat,
    Conv2d,
    Elementwise,
    Expand,
    Linear,
    Max,
    MaxPool2d,
    Mean,
    Op,
    Pad,
    Permute,
    Reshape,
    Resize,
    Slice,
    Ternary,
)
from lucid.ir.passes.canonicalise import into_recipe, plain_permute
from lucid.ir.passes.rewriter import Pass, Rewriter, rewrite
from lucid.ir.types import Dim, Shape

simplify_shapes = Pass(
    "simplify-shapes", "Join slices, concatenations and adaptive pools with what is before them"
)

SPATIAL = (2, 3)
APART = (Elementwise, Reshape, Permute, Slice, Concat, Linear, Conv2d)

rewrite(simplify_shapes, Op)(into_recipe)  # what is the same for all images may be a parameter
rewrite(simplify_shapes, Permute)(plain_permute)


# -- pools of a given size ------------------------------------------------------------------------


@rewrite(simplify_shapes, AdaptiveAvgPool2d, AdaptiveMaxPool2d)
def plain_pool(node: Node, graph: Rewriter) -> None:
    """adaptive_avg_pool2d{1x1}(x) == mean(x); adaptive_avg_pool2d{h/2, w/2}(x) == avg_pool2d(x)

    An adaptive pool to one pixel is a mean or maximum, one to the image's own size nothing, and one
    whose windows are all alike a pool: where the size asked for divides the image's.
    """
    op, image = node.op, node.inputs[0].type.shape[2:]
    assert isinstance(op, AdaptiveAvgPool2d | AdaptiveMaxPool2d)
    average = isinstance(op, AdaptiveAvgPool2d)
    height, width = (d for d in image if isinstance(d, int))
    if op.size == (1, 1):
        whole = Mean(SPATIAL, keepdims=True) if average else Max(SPATIAL, keepdims=True)
        graph.substitute(node, whole, node.inputs)
    elif op.size == (height, width):
        graph.replace(node, node.inputs)
    elif height % op.size[0] or width % op.size[1]:
        graph.miss(node, f"{op.size} does not divide the image of {height}x{width}")
    else:
        kernel = (height // op.size[0], width // op.size[1])
        graph.substitute(node, (AvgPool2d if average else MaxPool2d)(kernel, kernel), node.inputs)


@rewrite(simplify_shapes, Resize)
def no_resize(node: Node, graph: Rewriter) -> None:
    """resize(x) == x, to the size that it has, at the ratio 1

    Another scale moves its samples, but with aligned corners, which do not look at it."""
    op = node.op
    assert isinstance(op, Resize)
    unscaled = op.scale in (None, (1.0, 1.0)) or op.coordinates == "align_corners"
    moved = op.coordinates in ("tf_half_pixel_for_nn", "tf_crop_and_resize")
    if node.output.type == node.inputs[0].type and unscaled and not moved:
        graph.replace(node, [node.inputs[0]])


@rewrite(simplify_shapes, Pad)
def no_pad(node: Node, graph: Rewriter) -> None:
    """pad{0}(x) == x"""
    if node.output.type == node.inputs[0].type:
        graph.replace(node, [node.inputs[0]])


# -- slices and concatenations --------------------------------------------------------------------


@rewrite(simplify_shapes, Slice)
def slice_of_slice(node: Node, graph: Rewriter) -> None:
    """slice(slice(x)) == slice(x), along one axis"""
    op, inner = node.op, node.inputs[0].producer
    assert isinstance(op, Slice)
    if inner is None or not isinstance(inner.op, Slice) or inner.op.axis != op.axis:
        return
    start = inner.op.start + op.start * inner.op.step
    length = node.output.type.shape[op.axis]
    assert isinstance(length, int)
    step = inner.op.step * op.step
    stop = start + (length - 1) * step + 1
    graph.substitute(node, Slice(op.axis, start, stop, step), inner.inputs)


@rewrite(simplify_shapes, Slice)
def slice_of_concat(node: Node, graph: Rewriter) -> None:
    """slice(concat(x, y)) == slice(x), or concat(y, ...), along one axis

    A slice that lies within one part of a concatenation is cut from that part; one that takes
    several parts whole concatenates those.
    """
    op, inner = node.op, node.inputs[0].producer
    assert isinstance(op, Slice)
    if inner is None or not isinstance(inner.op, Concat) or inner.op.axis != op.axis:
        return
    sizes = [v.type.shape[op.axis] for v in inner.inputs]
    ends = list(accumulate(d for d in sizes if isinstance(d, int)))
    if len(ends) < len(sizes):
        return
    starts = [0, *ends[:-1]]
    for part, start, end in zip(inner.inputs, starts, ends, strict=True):
        if start <= op.start and op.stop <= end:
            cut = Slice(op.axis, op.start - start, op.stop - start, op.step)
            if part.type == node.output.type:
                graph.replace(node, [part])
            else:
                graph.substitute(node, cut, [part])
            return
    if op.step == 1 and op.start in starts and op.stop in ends:
        parts = inner.inputs[starts.index(op.start) : ends.index(op.stop) + 1]
        graph.substitute(node, inner.op, parts)
    else:
        graph.miss(node, f"{op.start}:{op.stop} cuts through the parts of the concatenation", inner)


@rewrite(simplify_shapes, Concat)
def concat_of_concats(node: Node, graph: Rewriter) -> None:
    """concat(concat(x, y), z) == concat(x, y, z), along one axis

    Where nothing else reads the inner one.
    """
    if len(node.inputs) == 1:
        graph.replace(node, node.inputs)
        return
    parts: list[Value] = []
    for value in node.inputs:
        inner = value.producer
        alone = inner is not None and inner.op == node.op and graph.only_user(value) is node
        parts += inner.inputs if alone and inner is not None else [value]
    if len(parts) > len(node.inputs):
        graph.substitute(node, node.op, parts)


@rewrite(simplify_shapes, Concat)
def stack(node: Node, graph: Rewriter) -> None:
    """concat{a}(reshape(x), reshape(y)) == reshape(concat{a}(x, y)), where a is a new axis

    Values stacked along a new axis lie as they do one after the other along the next axis: in that
    form a selective kernel is a split attention, and what makes the values can write them in their
    place.
    """
    op, shape = node.op, node.output.type.shape
    assert isinstance(op, Concat)
    before, after = shape[: op.axis], shape[op.axis + 1 :]
    makers = [v.producer for v in node.inputs]
    parts = [n.inputs[0] for n in makers if n is not None and isinstance(n.op, Reshape)]
    if not after or len(parts) < len(node.inputs) or len(parts) < 2:
        return
    if all(v.type.shape == (*before, *after) for v in parts):
        joined = graph.insert_before(node, op, parts)
        graph.substitute(node, Reshape(shape), [joined])


@rewrite(simplify_shapes, Concat)
def concat_of_slices(node: Node, graph: Rewriter) -> None:
    """concat(slice{a:b}(x), slice{b:c}(x)) == slice{a:c}(x)

    Slices that follow each other, put together again, are one slice.
    """
    op = node.op
    assert isinstance(op, Concat)
    parts: list[tuple[Value, Slice | None]] = []
    for value in node.inputs:
        source, cut = _cut(value, op.axis)
        before, last = parts[-1] if parts else (None, None)
        if cut is not None and last is not None and before is source and last.stop == cut.start:
            parts[-1] = source, Slice(op.axis, last.start, cut.stop)
        else:
            parts.append((source, cut))
    if len(parts) < len(node.inputs):
        values = [_value(source, cut, node, graph) for source, cut in parts]
        graph.substitute(node, op, values)


def _cut(value: Value, axis: int) -> tuple[Value, Slice | None]:
    """A value as a slice along `axis`, without gaps, of another one; else itself."""
    match value.producer:
        case Node(op=Slice(step=1) as cut, inputs=[source]) if cut.axis == axis:
            return source, cut
    return value, None


def _value(source: Value, cut: Slice | None, node: Node, graph: Rewriter) -> Value:
    """The slice as a value before `node`; the source itself where it takes all."""
    if cut is None or cut.result_types(source.type) == (source.type,):
        return source
    return graph.insert_before(node, cut, [source], inherits=False)


# -- axes that are taken apart --------------------------------------------------------------------


@rewrite(simplify_shapes, Reshape)
def axes_put_together(node: Node, graph: Rewriter) -> None:
    """reshape(permute(reshape(x))) == permute(x), where each axis becomes whole again

    Exporters write the two directions of a recurrent layer so, which lie side by side anyway.
    """
    turn = node.inputs[0].producer
    if turn is None or not isinstance(turn.op, Permute):
        return
    split = turn.inputs[0].producer
    if split is None or not isinstance(split.op, Reshape):
        return
    x, axes = split.inputs[0], turn.op.axes
    before = _parts(x.type.shape, split.output.type.shape)
    after = _parts(node.output.type.shape, turn.output.type.shape)
    if before is None or after is None or len(before) != len(after):
        return
    order = [tuple(axes[part] for part in group) for group in after]
    if sorted(order) == before:
        graph.substitute(node, Permute(tuple(map(before.index, order))), [x])


def _parts(shape: Shape, parts: Shape) -> list[tuple[int, ...]] | None:
    """For each axis of a shape, which axes of `parts` it is made of; None where they do not say."""
    found, at = [], 0
    for d in shape:
        first = at
        size: int | Dim = 1
        while at < len(parts) and (at == first or _smaller(size, d)):
            part, at = parts[at], at + 1
            size = part if isinstance(part, Dim) else -1 if isinstance(size, Dim) else size * part
        if size != d:
            return None
        found.append(tuple(range(first, at)))
    return found if at == len(parts) else None


def _smaller(size: int | Dim, whole: int | Dim) -> bool:
    return isinstance(size, int) and isinstance(whole, int) and 0 < size < whole


# -- expansions -----------------------------------------------------------------------------------


@rewrite(simplify_shapes, Reshape, Permute, Slice)
def moved_number(node: Node, graph: Rewriter) -> None:
    """op(expand(c)) == expand(c), for a number c

    The states that a recurrent layer begins with are zeros that exporters cut and turn.
    """
    spread = node.inputs[0].producer
    if spread is not None and isinstance(spread.op, Expand) and not spread.inputs[0].type.shape:
        graph.substitute(node, Expand(node.output.type.shape), spread.inputs)


@rewrite(simplify_shapes, Ternary)
def broadcast_by_itself(node: Node, graph: Rewriter) -> None:
    """where(expand(x), y, z) == where(x, y, z)

    Where broadcasting makes the same of x.
    """
    for i, value in enumerate(node.inputs):
        if value.producer is None or not isinstance(value.producer.op, Expand):
            continue
        inputs = [*node.inputs[:i], value.producer.inputs[0], *node.inputs[i + 1 :]]
        if node.op.result_types(*(v.type for v in inputs)) == (node.output.type,):
            graph.substitute(node, node.op, inputs)
            return


@rewrite(simplify_shapes, *APART)
def expand_last(node: Node, graph: Rewriter) -> None:
    """op(expand(x), expand(y)) == expand(op(x, y)), along the batch

    What is the same for all images of a batch is computed for one: expanded after the op instead of
    before it. An exporter may write an embedding of positions so.

    Fires where every operand is a value expanded along the batch, a parameter or a scalar.
    """
    y = node.output.type
    expanded = [v for v in node.inputs if _is_expanded(v)]
    others = [v for v in node.inputs if v not in expanded]
    if not expanded or not _is_batch(y.shape):
        return
    if not all(isinstance(v, Parameter) or v.type.shape == () for v in others):
        return
    operands = [_for_one_image(v, node, graph) if v in expanded else v for v in node.inputs]
    op = Reshape((1, *y.shape[1:])) if isinstance(node.op, Reshape) else node.op
    graph.substitute(node, Expand(y.shape), [graph.insert_before(node, op, operands)])


def _is_batch(shape: Shape) -> bool:
    """Whether the first axis is the batch and no other depends on it."""
    return bool(shape) and isinstance(shape[0], Dim) and all(isinstance(d, int) for d in shape[1:])


def _is_expanded(value: Value) -> bool:
    """Whether a value is the same for all images, being expanded along the batch."""
    node, shape = value.producer, value.type.shape
    if node is None or not isinstance(node.op, Expand) or not _is_batch(shape):
        return False
    x = node.inputs[0].type.shape
    return len(x) < len(shape) or x[0] == 1


def _for_one_image(value: Value, node: Node, graph: Rewriter) -> Value:
    """An expanded value as it is for one image."""
    assert value.producer is not None
    (x,), shape = value.producer.inputs, (1, *value.type.shape[1:])
    return x if x.type.shape == shape else graph.insert_before(node, Expand(shape), [x])

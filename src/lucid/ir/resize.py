"""A graph for inputs of other sizes: the same ops, whose attributes follow the size."""

from __future__ import annotations

from dataclasses import replace
from math import floor

import numpy as np

from lucid.errors import ShapeError
from lucid.ir.graph import Graph, Value
from lucid.ir.ops import Expand, Op, Reshape, Resize, Slice
from lucid.ir.types import Dim, Shape, Shapes, TensorType, volume


def resized(graph: Graph, shapes: Shapes) -> Graph:
    """The same ops over inputs of these shapes; the batch of those that have one stays symbolic.

    Attributes that name a size follow it as models mostly mean them: a reshape leaves the axes
    before and behind those it joins or splits, a slice to the end ends there, a resize goes to the
    image's own size, or by its scale. It is a guess all the same: who asks compares with what the
    model is traced to. Raises ShapeError where an op does not take what it is given.
    """
    other = Graph(graph.name, graph.payload)
    mapped: dict[Value, Value] = {}
    for value, shape in zip(graph.inputs, shapes, strict=True):
        dims = zip(value.type.shape, shape, strict=True)
        type = value.type.with_shape(tuple(d if isinstance(d, Dim) else s for d, s in dims))
        mapped[value] = other.add_input(type, value.name)
    images = [(v.type.shape, mapped[v].type.shape) for v in graph.inputs]
    for name, parameter in graph.parameters.items():
        mapped[parameter] = other.add_parameter(name, parameter.recipe)
    for node in graph.nodes:
        operands = [mapped[v] for v in node.inputs]
        new = other.append(
            _following(node.op, [(v.type, mapped[v].type) for v in node.inputs], images),
            operands,
            names=[v.name for v in node.outputs],
            origin=node.origin,
            fused_from=node.fused_from,
            location=node.location,
        )
        mapped.update(zip(node.outputs, new.outputs, strict=True))
    other.set_outputs(mapped[v] for v in graph.outputs)
    return other


def _following(
    op: Op, operands: list[tuple[TensorType, TensorType]], images: list[tuple[Shape, Shape]]
) -> Op:
    """The op for operands of other types; both are given, and so are the shapes of the inputs."""
    if not operands:
        return op
    (before, after), *_ = operands
    if before == after:
        return op
    match op:
        case Reshape(shape) if -1 not in shape:
            return Reshape(_reshaped(before.shape, after.shape, shape))
        case Expand(shape):
            return Expand(_expanded(before.shape, after.shape, shape))
        case Slice(axis, _, stop) if stop == before.shape[axis]:
            (end,) = op.integers(after.shape[axis])
            return replace(op, stop=end)
        case Resize(size, scale=scale):
            return replace(op, size=_scaled(size, scale, after.shape, images))
    return op


def _reshaped(before: Shape, after: Shape, shape: Shape) -> Shape:
    """The shape that a reshape asks for: axes that it leaves in front and behind are those of x,
    what it joins into one axis is as long as that takes, and what it splits must have its size."""
    front = _common(before, shape)
    behind = _common(before[front:][::-1], shape[front:][::-1])
    last = len(before) - behind
    old, new, wanted = before[front:last], after[front:last], shape[front : len(shape) - behind]
    if new != old:
        if len(wanted) != 1:
            raise ShapeError(f"reshape: {old} is split to {wanted}, which says nothing for {new}")
        count, symbols = volume(new)
        wanted = (Dim(count, symbols[0]) if symbols else count,)
    return (*after[:front], *wanted, *after[last:])


def _common(a: Shape, b: Shape) -> int:
    """How many dimensions both begin with."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def _expanded(before: Shape, after: Shape, shape: Shape) -> Shape:
    """The shape that an expand asks for: axes that it does not repeat are those of x."""
    front = len(shape) - len(before)
    kept = zip(before, after, shape[front:], strict=True)
    return (*shape[:front], *(new if old == wanted else wanted for old, new, wanted in kept))


def _scaled(
    size: tuple[int, int],
    scale: tuple[float, float] | None,
    after: Shape,
    images: list[tuple[Shape, Shape]],
) -> tuple[int, int]:
    """The size that a resize asks for: by its scale, or that of the image."""
    if scale is not None:
        lengths = [by_scale(d, s) for d, s in zip(after[2:], scale, strict=True) if type(d) is int]
        return lengths[0], lengths[1]
    for old, new in images:
        if old[-2:] == size and type(new[-2]) is int and type(new[-1]) is int:
            return new[-2], new[-1]
    return size


def by_scale(size: int, scale: float) -> int:
    """`size` times the scale, rounded down. A scale that is a float32 is one of ONNX's, whose
    product is a float32 as well (10 by 0.7 is 7); PyTorch's is a float64."""
    if float(np.float32(scale)) == scale:
        return floor(np.float32(size) * np.float32(scale))
    return floor(size * scale)

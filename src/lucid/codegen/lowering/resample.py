"""Lowering of resizing, padding and gathering."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from lucid.codegen.kernels.packing import Flat, Indices
from lucid.codegen.kernels.resample import Gather as GatherKernel
from lucid.codegen.kernels.resample import Pad as PadKernel
from lucid.codegen.kernels.resample import Resize as ResizeKernel
from lucid.codegen.language.dtypes import COMPUTED
from lucid.codegen.lowering.arguments import only_declared
from lucid.codegen.lowering.context import Lowering, dense_like, lowers, row_major
from lucid.codegen.lowering.direct import MOST_PLANES
from lucid.codegen.lowering.fusion import apart, lowers_fused, parts
from lucid.codegen.lowering.indexing import gather_along
from lucid.codegen.lowering.maps import (
    MapNode,
    is_planar,
    map_strides,
    numbers,
    pixels,
    planes,
    region_of,
)
from lucid.codegen.lowering.reduction import Semantics
from lucid.codegen.lowering.shapes import reshaped
from lucid.codegen.lowering.strided import LEAST_WORK, Grid, broadcast, copy
from lucid.codegen.lowering.weighted import weighted
from lucid.codegen.program.program import ArgumentValue, View, WeightRef
from lucid.ir.graph import Node, Parameter, Value
from lucid.ir.ops import Constant, Fusion, Gather, Pad, Resize
from lucid.ir.recipe import Apply, Recipe
from lucid.ir.types import DTYPES, is_float

# -- resizing -------------------------------------------------------------------------------------


@lowers(Resize)
@lowers_fused(Resize)
def _resize(ctx: Lowering, node: Node) -> None:
    """One `Resize` call, with what is fused to it; straight into the user's array where that is
    all its result is for."""
    op = node.op.anchor if isinstance(node.op, Fusion) else node.op
    assert isinstance(op, Resize)
    if op.weighted:
        if isinstance(node.op, Fusion):
            _, own, extras = parts(node)
            apart(ctx, node, own, extras)
        else:
            weighted(ctx, node, op)
        return
    made = MapNode(ctx, node)
    x = pixels(ctx, made.source)
    user = ctx.output_view(node.output)
    alone = user is not None and not node.output.users and not made.body.steps
    alone = alone and x.dtype == COMPUTED
    y = ctx.result(node.output, like=user if alone else None)
    planar = y.shape[1] > 1 and y.strides[1] != 1
    n, channels, height, width = y.shape
    bilinear = op.mode == "bilinear"
    kernel = ResizeKernel(bilinear, planar, made.body, (x.dtype, y.dtype))
    reads, region = made.meaning(ctx, x)
    arguments: dict[str, ArgumentValue] = {
        **map_strides("x", x),
        **made.operands(y),
        "y_channel": y.strides[1],
        "lines": _table(ctx, op, 0, x.shape[2]),
        "columns": _table(ctx, op, 1, x.shape[3]),
        "channels": channels,
        "out_height": height,
        "out_width": width,
    }
    ctx.call(
        kernel,
        n * height,
        only_declared(kernel, arguments),
        reads,
        [y],
        region,
        node.origin,
        algorithm="resize",
    )


def _table(ctx: Lowering, op: Resize, axis: int, size: int) -> WeightRef:
    """The kernel's table for one axis: neighbours, and shares of the second one."""
    if op.mode == "nearest":
        table = op.nearest_index(axis, size)
    else:
        table = np.concatenate(op.linear_index(axis, size))
    return numbers(ctx, table, "samples")


# -- padding --------------------------------------------------------------------------------------

NARROW = ("u8", "i8", "u16", "i16", "u32", "i32")
"""Integers that are cut out of a word."""


@lowers(Pad)
def _pad(ctx: Lowering, node: Node) -> None:
    """A border around maps is made by one kernel. Other constant borders, and those of dtypes that
    have no number for it in a word, are written beside a copy of x, other reflections gathered, one
    axis after the other."""
    op, kind = node.op, node.output.type.dtype
    assert isinstance(op, Pad)
    constant, plain = op.mode == "constant", kind == COMPUTED or kind in NARROW
    axes = [i for i, ends in enumerate(zip(op.before, op.after, strict=True)) if any(ends)]
    if not axes:
        ctx.views[node.output] = ctx.view(node.inputs[0])
    elif len(op.before) == 4 and axes[0] >= 2 and (plain or not constant):
        _pad_map(ctx, node, op)
    elif constant:
        _pad_by_copies(ctx, node, op, axes)
    else:
        _pad_by_gathers(ctx, node, op, axes)


def _pad_map(ctx: Lowering, node: Node, op: Pad) -> None:
    """One `Pad` call. Planar images stay planar: a plane is an image of one channel."""
    x, shape = ctx.view(node.inputs[0]), ctx.shape(node.output)
    planar = is_planar(x) and x.shape[1] <= MOST_PLANES
    y = ctx.result(node.output, x.over(shape, x.strides) if planar else None)
    if is_planar(x) and is_planar(y):
        source, out = planes(x), planes(y)
    else:
        x = pixels(ctx, node.inputs[0])
        source, out = x, y
    n, channels, height, width = source.shape
    dense = source.strides[3] == out.strides[3] == channels
    arguments: dict[str, ArgumentValue] = {
        **map_strides("x", source),
        **map_strides("y", out),
        "height": height,
        "width": width,
        "channels": channels,
        "out_height": shape[2],
        "out_width": shape[3],
        "top": op.before[2],
        "left": op.before[3],
        "runs": 1 if dense else width,
        "run": width * channels if dense else channels,
        "value": op.value if y.dtype == COMPUTED else _number(op.value, y.dtype),
    }
    kernel = PadKernel(op.mode, y.dtype)
    region = region_of(ctx, op, [x], node.origin)
    tasks = n * shape[2]
    bound = only_declared(kernel, arguments)
    ctx.call(kernel, tasks, bound, [x], [y], region, node.origin, algorithm="pad")


def _pad_by_copies(ctx: Lowering, node: Node, op: Pad, axes: Sequence[int]) -> None:
    x, shape = ctx.view(node.inputs[0]), ctx.shape(node.output)
    y = ctx.result(node.output, x.over(shape, x.strides))
    recipe = Apply(Constant((_number(op.value, y.dtype),), y.dtype))
    name = ctx.weights(recipe, Flat(), (1,), "border", y.dtype).name
    border = View(name, y.dtype, (1,) * len(shape), (0,) * len(shape))
    middle = y
    for axis in axes:
        before, size = op.before[axis], x.shape[axis]
        for start, stop in ((0, before), (before + size, middle.shape[axis])):
            if start < stop:
                side = _part(middle, axis, start, stop)
                copy(ctx, broadcast(border, side.shape), side, node.origin)
        middle = _part(middle, axis, before, before + size)
    copy(ctx, x, middle, node.origin)


def _part(view: View, axis: int, start: int, stop: int) -> View:
    shape = tuple(stop - start if i == axis else d for i, d in enumerate(view.shape))
    return view.over(shape, view.strides, view.offset + start * view.strides[axis])


def _pad_by_gathers(ctx: Lowering, node: Node, op: Pad, axes: Sequence[int]) -> None:
    view = ctx.view(node.inputs[0])
    for axis in axes:
        sides = [
            [side[i] if i == axis else 0 for i in range(len(side))]
            for side in (op.before, op.after)
        ]
        part = Pad(tuple(sides[0]), tuple(sides[1]), mode=op.mode)
        size = view.shape[axis]
        shape = tuple(d + b + a for d, b, a in zip(view.shape, *sides, strict=True))
        like = view.over(shape, view.strides)
        if axis == axes[-1]:
            out = ctx.result(node.output, like)
        else:
            out = ctx.allocate(
                f"{node.output.name}.axis{axis}", view.dtype, shape, dense_like(like)
            )
        places = numbers(ctx, op.sources(axis, size), "places")
        region = region_of(ctx, part, [view], node.origin)
        _gather(ctx, view, out, axis, places, Semantics(region, (view,), (out,), node.origin))
        view = out


def _number(value: float, dtype: str) -> float:
    """The value of a border as one of a dtype, wrapping around like NumPy's."""
    return value if is_float(dtype) else int(np.array(int(value)).astype(DTYPES[dtype]))


# -- gathering ------------------------------------------------------------------------------------


@lowers(Gather)
def _take(ctx: Lowering, node: Node) -> None:
    """By known indices: evenly spaced ones are another view of x, others one `Gather` call; by
    computed ones one `Take` call."""
    op, (source, indices) = node.op, node.inputs
    assert isinstance(op, Gather)
    recipe = _recipe(indices)
    if recipe is None:
        gather_along(ctx, node)
        return
    x, shape, axis = ctx.view(source), ctx.shape(node.output), op.axis
    places = ctx.shape(indices)
    even = _even(recipe, x.shape[axis]) if isinstance(recipe, Apply) else None
    if even is not None and len(places) <= 1:
        first, step = even
        strides = (
            *x.strides[:axis],
            *([step * x.strides[axis]] * len(places)),
            *x.strides[axis + 1 :],
        )
        ctx.views[node.output] = x.over(shape, strides, x.offset + first * x.strides[axis])
        return
    like = x.strides if len(places) == 1 else row_major(shape)
    y = ctx.result(node.output, x.over(shape, like))
    one_axis = (*shape[:axis], prod(places), *shape[axis + len(places) :])
    flat = reshaped(y, one_axis)
    if flat is None:  # as a slice of a concatenation's channels
        y = ctx.allocate(node.output.name, node.output.type.dtype, shape, row_major(shape))
        ctx.views[node.output] = y
        flat = y.over(one_axis, row_major(one_axis))
    name = f"{node.output.name}.indices"
    packed = ctx.weights(recipe, Indices(x.shape[axis]), places, name)
    region, inputs = ctx.region(node.origin, [x])
    known = region.add_parameter(name, recipe)
    region.set_outputs([region.append(op, [*inputs, known], origin=node.origin).output])
    _gather(ctx, x, flat, axis, packed, Semantics(region, (x,), (y,), node.origin))


def _recipe(indices: Value) -> Recipe | None:
    """What makes the indices; None where the model computes them."""
    if isinstance(indices, Parameter):
        return indices.recipe
    if indices.producer is not None and isinstance(indices.producer.op, Constant):
        return Apply(indices.producer.op)
    return None


def _even(recipe: Apply, size: int) -> tuple[int, int] | None:
    """First one and step of constant indices that are evenly spaced, upwards and inside."""
    if not isinstance(recipe.op, Constant):
        return None
    numbers = recipe.op.evaluate().reshape(-1)
    numbers = np.where(numbers < 0, numbers + size, numbers)
    steps = np.unique(np.diff(numbers))
    if not numbers.size or numbers.min() < 0 or numbers.max() >= size or steps.size > 1:
        return None
    step = int(steps[0]) if steps.size else 1
    return (int(numbers[0]), step) if step > 0 else None


def _gather(
    ctx: Lowering, x: View, y: View, axis: int, indices: WeightRef, meaning: Semantics
) -> None:
    """One `Gather` call: y has one dimension for the indices, `axis`."""
    others = [i for i in range(len(x.shape)) if i != axis]
    strides = [[v.strides[i] for i in others] for v in (x, y)]
    grid = Grid.over([y.shape[i] for i in others], strides)
    *outer, last = range(len(grid.sizes))
    inner, row = 1, last
    if all(step[last] == 1 for step in grid.steps):
        inner, row = grid.sizes[last], outer.pop() if outer else -1
    rows = grid.sizes[row] if row >= 0 else 1
    arguments = grid.outer(outer, ("x", "y"), meaning.origin)
    count, repeats = y.shape[axis], prod(grid.sizes[i] for i in outer)
    wanted = ctx.pieces(prod(y.shape), LEAST_WORK)
    cuts = max(1, min(rows, -(-wanted // max(1, repeats))))
    parts = max(1, min(count, -(-wanted // max(1, repeats * cuts))))
    for name, view, step in zip("xy", (x, y), grid.steps, strict=True):
        arguments |= {name: view, f"{name}_axis": view.strides[axis]}
        arguments[f"{name}_row"] = step[row] if row >= 0 else 0
    arguments |= {"indices": indices, "rows": rows, "count": count, "inner": inner}
    arguments |= {"cuts": cuts, "parts": parts}
    kernel = GatherKernel(inner == 1, x.dtype)
    ctx.call(
        kernel,
        repeats * cuts * parts,
        only_declared(kernel, arguments),
        meaning.reads,
        meaning.writes,
        meaning.region,
        meaning.origin,
        algorithm="gather",
    )

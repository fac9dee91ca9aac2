"""Lowering of recurrent layers: one product for the input of all steps, then the steps."""

from __future__ import annotations

import dataclasses
from math import prod

from lucid.codegen.kernels.packing import Flat, Panels
from lucid.codegen.kernels.recurrent import ROWS, Recurrent, cuts, scratch_bytes
from lucid.codegen.language.dtypes import COMPUTED
from lucid.codegen.lowering.context import Lowering, lowers, row_major
from lucid.codegen.lowering.layer import Layer
from lucid.codegen.lowering.product import product
from lucid.codegen.lowering.shapes import matrix
from lucid.codegen.lowering.strided import copy
from lucid.codegen.program.lowered_ops import RecurrentSteps
from lucid.codegen.program.program import ArgumentValue, View
from lucid.ir import ops
from lucid.ir.graph import Node, Parameter, Value
from lucid.ir.ops import Add, Concat, Linear, Reshape, Slice
from lucid.ir.recipe import Apply, Recipe
from lucid.ir.types import TensorType


@lowers(ops.Recurrent)
def _recurrent(ctx: Lowering, node: Node) -> None:
    cell = node.op
    assert isinstance(cell, ops.Recurrent)
    x, weight, recurrent, bias, *rest = node.inputs
    assert isinstance(weight, Parameter)
    assert isinstance(bias, Parameter)
    states, rest = rest[: cell.states], rest[cell.states :]
    if not ctx.shape(x)[1]:
        _no_steps(ctx, node, states)
        return
    products = _input_products(ctx, node, cell, x, weight, bias)
    ends = rest[0] if rest else None
    peephole = rest[1] if len(rest) > 1 else None
    _steps(ctx, node, cell, products, recurrent, bias, states, ends, peephole)


def _no_steps(ctx: Lowering, node: Node, states: list[Value]) -> None:
    """Sequences without a step: the last states are the first ones."""
    y, *last = node.outputs
    ctx.views[y] = ctx.nothing(y)
    for before, after in zip(states, last, strict=True):
        copy(ctx, ctx.view(before), ctx.result(after), node.origin)


def _input_products(
    ctx: Lowering, node: Node, cell: ops.Recurrent, x: Value, weight: Parameter, bias: Parameter
) -> View:
    """Of all steps, for all gates of both directions: (N, T, D*G*H)."""
    n, steps, depth = ctx.shape(x)
    columns = prod(ctx.shape(weight)[:2])
    shape = (n, steps, columns)
    out = ctx.allocate(f"{node.outputs[0].name}.products", COMPUTED, shape, row_major(shape))
    rows = matrix(ctx, x, (n * steps, depth), node.origin)
    result = Value(TensorType(COMPUTED, (n * steps, columns)), out.buffer, node)
    layer = Layer(
        Linear(),
        Value(TensorType(COMPUTED, (n * steps, depth)), x.name),
        Parameter(weight.name, _reshaped(weight.recipe, columns, depth)),
        Parameter(bias.name, _reshaped(_input_bias(cell, bias.recipe), columns)),
        result,
        node.origin,
    )
    flat = out.over((n * steps, columns), (columns, 1))
    product(ctx, layer, rows, flat, count=n * steps, depth=depth, groups=1, algorithm="linear")
    return out


def _input_bias(cell: ops.Recurrent, bias: Recipe) -> Recipe:
    """All that is added once and for all: both biases, the one of the state's product but for the
    candidate where that comes late."""
    _, both = bias.type.concrete(1)
    columns = both // 2
    of_input, of_state = _columns(bias, 0, columns), _columns(bias, columns, both)
    if not cell.adds_late:
        return Apply(Add(), (of_input, of_state))
    early = columns // cell.gates * (cell.gates - 1)
    parts = [_columns(part, 0, early) for part in (of_input, of_state)]
    candidate = _columns(of_input, early, columns)
    return Apply(Concat(1), (Apply(Add(), tuple(parts)), candidate))


def _columns(recipe: Recipe, first: int, last: int) -> Recipe:
    return Apply(Slice(1, first, last), (recipe,))


def _reshaped(recipe: Recipe, *shape: int) -> Recipe:
    return Apply(Reshape(shape), (recipe,))


def _steps(
    ctx: Lowering,
    node: Node,
    cell: ops.Recurrent,
    products: View,
    recurrent: Value,
    bias: Parameter,
    states: list[Value],
    ends: Value | None,
    peephole: Value | None,
) -> None:
    assert isinstance(recurrent, Parameter)
    directions, columns, size = ctx.shape(recurrent)
    n, steps, _ = products.shape
    kernel = Recurrent(
        dataclasses.replace(cell, direction="forward"), ends is not None, peephole is not None
    )
    given = [ctx.view(v) for v in states]
    y, *last = (ctx.result(v) for v in node.outputs)
    blocks = max(-(-n // ROWS), min(n, -(-ctx.threads // directions)))
    width = ctx.target.panel_vectors * ctx.target.vector
    arguments: dict[str, ArgumentValue] = {
        "products": products,
        "products_row": products.strides[0],
        "products_step": products.strides[1],
        "y": y,
        "y_row": y.strides[0],
        "y_step": y.strides[1],
        "rows": n,
        "steps": steps,
        "size": size,
        "directions": directions,
        "blocks": blocks,
        "first_backward": int(cell.backward(0)),
        "panel": width,
    }
    for name, before, after in zip(kernel.kept, given, last, strict=True):
        for prefix, view in (("", before), ("last_", after)):
            arguments[f"{prefix}{name}"] = view
            axes = (f"{prefix}{name}_{axis}" for axis in ("row", "direction", "unit"))
            arguments |= dict(zip(axes, view.strides, strict=True))
    reads = [products, *given]
    if ends is not None:
        arguments["ends"] = ctx.view(ends)
        arguments["ends_row"] = ctx.view(ends).strides[0]
        reads.append(ctx.view(ends))
    parameters = [recurrent]
    first, widest = 0, 0
    for name, gates in zip(kernel.packed, cuts(cell), strict=True):
        recipe = Apply(Slice(1, first * size, (first + gates) * size), (recurrent.recipe,))
        flat = (directions * gates * size, size)
        rows = _reshaped(recipe, *flat)
        arguments[name] = ctx.weights(rows, Panels(directions, width), flat, recurrent.name)
        panels = -(-gates * size // width)
        arguments[f"{name}_panels"] = panels
        first, widest = first + gates, max(widest, panels * width)
    if isinstance(peephole, Parameter):
        shape = ctx.shape(peephole)
        arguments["peephole"] = ctx.weights(peephole.recipe, Flat(), shape, peephole.name)
        parameters.append(peephole)
    if cell.adds_late:
        late = _columns(bias.recipe, 2 * columns - size, 2 * columns)
        arguments["late"] = ctx.weights(late, Flat(), (directions, size), f"{bias.name}.late")
        parameters.append(Parameter(f"{bias.name}.late", late))
    region, inputs = ctx.region(node.origin, reads)
    own = [region.add_parameter(p.name, p.recipe) for p in parameters]
    meaning = RecurrentSteps(cell, ends is not None, peephole is not None)
    region.set_outputs(region.append(meaning, [*inputs, *own]).outputs)
    ctx.call(
        kernel,
        directions * blocks,
        arguments,
        reads,
        [y, *last],
        region,
        node.origin,
        algorithm="recurrent",
        scratch=scratch_bytes(cell, size, widest),
        work=2 * n * steps * directions * columns * size,
    )

"""Elementwise ops beside deferred values: deferred to a product, or fused with a gate."""

from __future__ import annotations

from collections.abc import Sequence

from lucid.codegen.kernels.body import CHANNEL, Body
from lucid.codegen.kernels.loaders import Combine, Mapped
from lucid.codegen.kernels.packing import Channels
from lucid.codegen.lowering.context import Deferred, Lowering, row_stride
from lucid.codegen.lowering.epilogue import append_body
from lucid.codegen.lowering.placement import is_pointwise
from lucid.codegen.program.program import ArgumentValue, View
from lucid.ir.graph import Graph, Parameter, Value


def left_to_product(ctx: Lowering, body: Body, operands: Sequence[Value], result: Value) -> bool:
    """Leave a body over a map and parameters by channel to the one product that reads it, if it is
    that: a DenseNet's or a pre-activation ResNet's batch norm and ReLU then need no pass over
    memory of their own."""
    x, *extras = operands
    users = result.users
    if result.type.rank != 4 or len(users) != 1 or not is_pointwise(users[0]):
        return False
    places = [v is result for v in users[0].inputs]
    if not places[0] or any(places[1:]) or ctx.output_view(result) is not None:
        return False
    if x.type != result.type or isinstance(x, Parameter):
        return False
    channels = ctx.shape(result)[1]
    shapes = ((1, channels, 1, 1), (channels, 1, 1))
    if not all(isinstance(e, Parameter) and ctx.shape(e) in shapes for e in extras):
        return False
    view, origin = ctx.rows_view(x), result.producer.origin if result.producer else ""
    width = ctx.target.vector
    arguments: dict[str, ArgumentValue] = {"x": view, "x_row": row_stride(view) or 0}
    for i, extra in enumerate(extras):
        assert isinstance(extra, Parameter)
        packing, shape = Channels(1, width), ctx.shape(extra)
        arguments[f"map{i}"] = ctx.weights(extra.recipe, packing, shape, extra.name)

    def build(region: Graph, read: Sequence[Value]) -> Value:
        own = [region.add_parameter(e.name, e.recipe) for e in extras if isinstance(e, Parameter)]
        return append_body(region, body, read[0], own)

    plain = Body((CHANNEL,) * len(extras), body.steps, body.result)
    ctx.deferred[result] = Deferred(Mapped(plain), arguments, (view,), build, origin)
    return True


def with_gates(ctx: Lowering, body: Body, operands: Sequence[Value]) -> tuple[Body, list[View]]:
    """A body and the views it reads, where an operand that waits to be multiplied by a gate, as
    after squeeze-and-excitation, is multiplied on the way."""
    views: list[View] = []
    gates: list[View] = []
    for i, value in enumerate(operands):
        waiting = ctx.deferred.get(value)
        if waiting is None or value in ctx.views or waiting.loader != GATED:
            views.append(ctx.view(value))
            continue
        x, gate = waiting.reads
        views.append(x)
        gates.append(gate)
        body = body.gated(i)
    return body, views + gates


GATED = Combine(1, "weights", "none")
"""The loader of a map that is multiplied by a gate for each image and channel."""

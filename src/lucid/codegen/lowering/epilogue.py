"""From a fusion's body graph to the `Body` a kernel inlines, with its operands bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lucid.codegen.kernels.body import PLAIN, Body, Operand
from lucid.codegen.kernels.packing import Channels
from lucid.codegen.language.kernel import MAP, KernelSpec
from lucid.codegen.lowering.context import Lowering, row_stride
from lucid.codegen.program.program import ArgumentValue, View
from lucid.ir.graph import Graph, Parameter, Value
from lucid.ir.ops import Constant, Expand, Op
from lucid.ir.types import Exact


def to_body(graph: Graph, kinds: Sequence[str]) -> Body:
    """The steps of a body graph; `kinds` are those of its extras."""
    numbers: dict[Value, Operand] = {v: i for i, v in enumerate(graph.inputs)}
    steps: list[tuple[Op, tuple[Operand, ...]]] = []
    for node in graph.nodes:
        if isinstance(node.op, Constant):
            assert isinstance(node.op.value, int | float), "a body holds scalar constants only"
            numbers[node.output] = Exact(node.op.value)
            continue
        if not graph.is_used(node.output):
            continue
        steps.append((node.op, tuple(numbers[v] for v in node.inputs)))
        numbers[node.output] = len(graph.inputs) + len(steps) - 1
    body = Body(tuple(kinds), tuple(steps))
    result = numbers[graph.outputs[0]]
    return body if result == body.returned() else replace(body, result=result)


def append_body(region: Graph, body: Body, result: Value, extras: Sequence[Value]) -> Value:
    """The body's steps as nodes of a region."""
    values = [result, *extras]
    for op, operands in body.steps:
        read = [
            region.append(Constant(o), []).output if isinstance(o, float) else values[o]
            for o in operands
        ]
        values.append(region.append(op, read).output)
    returned = body.returned()
    if not isinstance(returned, float):
        return values[returned]
    constant = region.append(Constant(returned), []).output
    return region.append(Expand(result.type.shape), [constant]).output


@dataclass
class Epilogue:
    """A body and its extra operands: values for `"tensor"`, parameters for `"channel"` extras."""

    body: Body = PLAIN
    extras: tuple[Value, ...] = ()

    def bind(
        self, ctx: Lowering, groups: int, width: int
    ) -> tuple[dict[str, ArgumentValue], list[View]]:
        """The arguments that kernels may declare for the extras, and the tensors among them as
        views: the stride from row to row, and for maps those of images, lines and pixels."""
        arguments: dict[str, ArgumentValue] = {}
        reads = []
        for i, (kind, value) in enumerate(zip(self.body.extras, self.extras, strict=True)):
            name = f"extra{i}"
            if kind == "channel":
                assert isinstance(value, Parameter)
                packing = Channels(groups, width)
                shape = ctx.shape(value)
                arguments[name] = ctx.weights(value.recipe, packing, shape, value.name)
                arguments[f"{name}_row"] = 0
            else:
                view = ctx.rows_view(value)
                arguments[name] = view
                arguments[f"{name}_row"] = row_stride(view) or 0
                if len(view.shape) == 4:
                    image, _, line, pixel = view.strides
                    steps = dict(zip(MAP, (image, line, pixel), strict=True))
                    arguments |= {f"{name}_{axis}": step for axis, step in steps.items()}
                reads.append(view)
        return arguments, reads

    def append(self, region: Graph, result: Value, tensors: Sequence[Value]) -> Value:
        """The body in a region, where `tensors` stand for the `"tensor"` extras."""
        given = iter(tensors)
        extras = [
            region.add_parameter(v.name, v.recipe)
            if isinstance(v, Parameter) and kind == "channel"
            else next(given)
            for kind, v in zip(self.body.extras, self.extras, strict=True)
        ]
        return append_body(region, self.body, result, extras)


def kind_of(ctx: Lowering, extra: Value, result: Value) -> str | None:
    """How a kernel can read an extra operand of a body: as a tensor, by channel, or not at all."""
    if isinstance(extra, Parameter):
        shape, target = ctx.shape(extra), ctx.shape(result)
        channels = target[1]
        if len(target) == 4 and shape in ((1, channels, 1, 1), (channels, 1, 1)):
            return "channel"
        return "channel" if len(target) == 2 and shape in ((channels,), (1, channels)) else None
    return "tensor" if ctx.shape(extra) == ctx.shape(result) else None


def only_declared(
    kernel: KernelSpec, arguments: dict[str, ArgumentValue]
) -> dict[str, ArgumentValue]:
    """Those of the arguments that the kernel declares."""
    return {a.name: arguments[a.name] for a in kernel.arguments()}

"""From a fusion's body graph to the `Body` a kernel inlines, and back into a region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lucid.codegen.kernels.body import PLAIN, Body, Operand
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

"""From a fusion's body graph to the `Body` a kernel inlines, and back into a region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lucid.codegen.kernels.body import PLAIN, Body, Extra, Operand, Whole
from lucid.ir.graph import Graph, Parameter, Value
from lucid.ir.ops import Constant, Expand, Op
from lucid.ir.types import Exact, is_float


def to_body(graph: Graph, extras: Sequence[Extra]) -> Body:
    """The steps of a body graph that reads these extras."""
    numbers: dict[Value, Operand] = {v: i for i, v in enumerate(graph.inputs)}
    steps: list[tuple[Op, tuple[Operand, ...]]] = []
    for node in graph.nodes:
        if isinstance(node.op, Constant):
            numbers[node.output] = _constant(node.op)
            continue
        if not graph.is_used(node.output):
            continue
        steps.append((node.op, tuple(numbers[v] for v in node.inputs)))
        numbers[node.output] = len(graph.inputs) + len(steps) - 1
    body = Body(tuple(extras), tuple(steps))
    result = numbers[graph.outputs[0]]
    return body if result == body.returned() else replace(body, result=result)


def append_body(region: Graph, body: Body, result: Value, extras: Sequence[Value]) -> Value:
    """The body's steps as nodes of a region."""
    values = [result, *extras]
    for op, operands in body.steps:
        read = [values[o] if isinstance(o, int) else _append(region, o) for o in operands]
        values.append(region.append(op, read).output)
    returned = body.returned()
    if isinstance(returned, int):
        return values[returned]
    return region.append(Expand(result.type.shape), [_append(region, returned)]).output


def _constant(op: Constant) -> Operand:
    """A scalar as a body has it."""
    assert isinstance(op.value, int | float), "a body holds scalar constants only"
    if is_float(op.dtype):
        return Exact(op.value)
    return Whole(int(op.value), op.dtype)


def _append(region: Graph, constant: float | Whole) -> Value:
    """The inverse of `_constant`, in a region."""
    op = (
        Constant(constant.value, constant.dtype)
        if isinstance(constant, Whole)
        else Constant(constant)
    )
    return region.append(op, []).output


@dataclass
class Epilogue:
    """A body and its extra operands: values for tensors, parameters for channels."""

    body: Body = PLAIN
    extras: tuple[Value, ...] = ()

    def append(self, region: Graph, result: Value, tensors: Sequence[Value]) -> Value:
        """The body in a region, where `tensors` stand for those among the extras."""
        given = iter(tensors)
        extras = [
            region.add_parameter(v.name, v.recipe)
            if isinstance(v, Parameter) and extra.kind == "channel"
            else next(given)
            for extra, v in zip(self.body.extras, self.extras, strict=True)
        ]
        return append_body(region, self.body, result, extras)

"""The whole lowering: every node in order, then the outputs, then the memory plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

from lucid.codegen.language.dtypes import dtype
from lucid.codegen.lowering.context import Lowering, lower_node, row_major
from lucid.codegen.lowering.fusion import lowered
from lucid.codegen.lowering.placement import placements
from lucid.codegen.lowering.strided import copy
from lucid.codegen.program.addressable import require_addressable
from lucid.codegen.program.estimate import threads_worth
from lucid.codegen.program.plan import plan
from lucid.codegen.program.program import Buffer, Program, View
from lucid.codegen.program.verify import verify_program
from lucid.codegen.scheduling.schedule import Schedule, check_schedule
from lucid.codegen.target import Target
from lucid.errors import UnsupportedError
from lucid.ir.graph import Graph, Node, Parameter, Value
from lucid.ir.ops import Convolution, Fusion, IntegerProduct, Linear, Recurrent


def unsupported(graph: Graph) -> list[Node]:
    """The nodes that have no lowering, and need one: convolutions and linear layers have one by
    parameters."""
    return [
        n for n in graph.nodes if not _is_empty(n) and (not lowered(n.op) or _computes_weights(n))
    ]


def _is_empty(node: Node) -> bool:
    """Whether there is nothing to compute, for any batch."""
    return all(v.type.empty for v in node.outputs)


def _computes_weights(node: Node) -> bool:
    """Whether a node is a convolution, linear or recurrent layer whose weights are computed."""
    op, own = node.op, len(node.inputs)
    if isinstance(op, Fusion):
        own, op = op.anchor_operands(own), op.anchor
    weights = node.inputs[1:own]
    if isinstance(op, Recurrent):
        weights = [*weights[:3], *weights[4 + op.states :]]
    layers = Convolution | Linear | IntegerProduct | Recurrent
    return isinstance(op, layers) and not all(isinstance(v, Parameter) for v in weights)


def lower(
    graph: Graph, schedule: Schedule, target: Target, batch: int, threads: int = 1
) -> Program:
    """The Program of a graph for one batch. Raises UnsupportedError, which lists every node that
    has no kernel, with its module path and source line, UnknownNameError where the schedule does
    not fit the graph, and InputError where a value is larger than any memory."""
    strangers = unsupported(graph)
    if strangers:
        raise UnsupportedError(_complaint(strangers))
    check_schedule(schedule, graph, batch)
    for value in graph.values():
        _require_addressable(value, batch)
    program = Program(graph.name, target.name, batch)
    program.inputs = _user_views(program, graph.inputs, "input", batch)
    program.outputs = _user_views(program, graph.outputs, "output", batch)
    context = Lowering(graph, schedule, target, batch, threads, program, copy)
    context.placements = placements(graph)
    context.views.update(zip(graph.inputs, program.inputs.values(), strict=True))
    for node in graph.nodes:
        if _is_empty(node):
            context.views.update((v, context.nothing(v)) for v in node.outputs)
        else:
            _lower_node(context, node)
    for value, out in zip(graph.outputs, program.outputs.values(), strict=True):
        if context.view(value) != out:
            copy(context, context.view(value), out, "output")
    program.may_need = frozenset(context.siblings)
    program.threads = threads_worth(program)
    plan(program, threads)
    verify_program(program)
    return program


def _lower_node(context: Lowering, node: Node) -> None:
    try:
        lower_node(context, node)
    except UnsupportedError as problem:
        problem.node = node.outputs[0].name
        raise


def _user_views(
    program: Program, values: Iterable[Value], kind: str, batch: int
) -> dict[str, View]:
    """Buffers for the user's arrays, row-major, by the values' names; one that is returned twice
    has another name the second time."""
    views: dict[str, View] = {}
    for i, value in enumerate(values):
        buffer, dtype, shape = f"{kind}{i}", value.type.dtype, value.type.concrete(batch)
        program.buffers[buffer] = Buffer(buffer, kind, prod(shape), dtype)
        name = value.name
        while name in views:
            name += "'"
        views[name] = View(buffer, dtype, shape, row_major(shape))
    return views


def _require_addressable(value: Value, batch: int) -> None:
    """Raises InputError for a value that no memory can hold."""
    kind, node = value.type, value.producer
    origin = f" ({node.origin})" if node is not None and node.origin else ""
    what = f"%{value.name}: {kind}{origin}, at a batch of {batch},"
    require_addressable(what, prod(kind.concrete(batch)) * dtype(kind.dtype).bytes)


def _complaint(nodes: Sequence[Node]) -> str:
    rows = [
        f"  {n.op.name} in {n.origin or 'the model'}"
        + (f" ({n.location})" if n.location else "")
        + (": its weights are computed, not parameters" if _computes_weights(n) else "")
        for n in nodes
    ]
    return "\n".join(
        [
            f"{len(nodes)} ops of this model have no kernel:",
            *rows,
            "`lucid ops` lists those that do",
        ]
    )

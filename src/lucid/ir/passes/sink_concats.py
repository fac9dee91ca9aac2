"""sink-concats: ops on a concatenation are applied to its parts instead, if layers produce those.

A MixNet concatenates depthwise convolutions of several kernel sizes, and then normalises and
activates the whole. Part by part both join the convolutions; and concatenating costs nothing, for
the parts are written where they belong.
"""

from __future__ import annotations

from dataclasses import dataclass

from lucid.ir.graph import Node, Parameter, Value
from lucid.ir.ops import BatchNorm, Concat, Conv2d, Elementwise, Op, Slice
from lucid.ir.passes.recipes import apply, are_parameters, recipe_of
from lucid.ir.passes.rewriter import Pass, Rewriter, rewrite
from lucid.ir.passes.simplify_shapes import concat_of_concats, slice_of_concat

sink_concats = Pass(
    "sink-concats", "Move batch norms and elementwise ops from concatenations into the parts"
)

LAYERS = (Conv2d, BatchNorm, Elementwise)

rewrite(sink_concats, Slice)(slice_of_concat)
rewrite(sink_concats, Concat)(concat_of_concats)


@dataclass(frozen=True)
class Part:
    """The channels from `start` to `stop` of a concatenation. `joins`: whether a layer makes them
    for that alone, so that what comes next can join the layer."""

    value: Value
    start: int
    stop: int
    joins: bool


@rewrite(sink_concats, BatchNorm)
def norm_of_parts(norm: Node, graph: Rewriter) -> None:
    """batch_norm(concat(x, y)) == concat(batch_norm(x), batch_norm(y))

    Each part by its share of the parameters.

    Fires where layers make all parts for the concatenation alone, and that is read by the norm
    alone.
    """
    parts = _parts(norm.inputs[0], norm, graph)
    if not parts or not are_parameters(*norm.inputs[1:]):
        return
    other = next((p for p in parts if not p.joins), None)
    if other is not None:
        graph.miss(norm, f"%{other.value.name} is not made by a layer for this alone")
        return
    results = []
    for part in parts:
        statistics = [_share(v, part, 0, graph) for v in norm.inputs[1:]]
        results.append(graph.insert_before(norm, norm.op, [part.value, *statistics]))
    graph.substitute(norm, Concat(1), results)


@rewrite(sink_concats, Elementwise)
def elementwise_of_parts(node: Node, graph: Rewriter) -> None:
    """op(concat(x, y)) == concat(op(x), op(y)), for elementwise ops

    An activation, a scale by channel or a residual.

    Fires where layers make at least half of the channels for the concatenation alone, and that is
    read by the node alone; other operands are the same for all channels, or are cut.
    """
    for x in dict.fromkeys(node.inputs):
        parts = _parts(x, node, graph)
        if not parts or x.type != node.output.type:
            continue
        if 2 * sum(p.stop - p.start for p in parts if p.joins) < parts[-1].stop:
            graph.miss(node, f"most of %{x.name} is not made by layers for this alone")
            continue
        strangers = [v for v in node.inputs if v is not x and not _can_be_cut(v, x)]
        if strangers:
            graph.miss(node, f"{strangers[0]!r} cannot be cut by channels")
            continue
        results = []
        for part in parts:
            operands = [part.value if v is x else _cut(v, part, node, graph) for v in node.inputs]
            results.append(graph.insert_before(node, node.op, operands))
        graph.substitute(node, Concat(1), results)
        return


def _parts(value: Value, node: Node, graph: Rewriter) -> list[Part]:
    """The parts of a concatenation of channels that `node` alone reads; none for anything else."""
    joined = value.producer
    if joined is None or joined.op != Concat(1) or value.type.rank != 4:
        return []
    if graph.only_user(value) is not node:
        return []
    parts, start = [], 0
    for v in joined.inputs:
        size = v.type.shape[1]
        assert isinstance(size, int)
        maker: Op | None = v.producer.op if v.producer is not None else None
        alone = graph.only_user(v) is joined and joined.inputs.count(v) == 1
        parts.append(Part(v, start, start + size, alone and isinstance(maker, LAYERS)))
        start += size
    return parts


def _can_be_cut(value: Value, whole: Value) -> bool:
    """Whether `value` broadcasts to the whole by channels, if it has any."""
    channels = _channels(value)
    return channels == 1 or channels == whole.type.shape[1]


def _channels(value: Value) -> object:
    """How many channels a value has that broadcasts to (N, C, H, W)."""
    return value.type.shape[-3] if value.type.rank >= 3 else 1


def _cut(value: Value, part: Part, node: Node, graph: Rewriter) -> Value:
    """What one part reads of an operand."""
    if _channels(value) == 1:
        return value
    axis = value.type.rank - 3
    if isinstance(value, Parameter):
        return _share(value, part, axis, graph)
    return graph.insert_before(node, Slice(axis, part.start, part.stop), [value], inherits=False)


def _share(value: Value, part: Part, axis: int, graph: Rewriter) -> Value:
    """A part's channels of a parameter."""
    recipe = apply(Slice(axis, part.start, part.stop), recipe_of(value))
    return graph.parameter(f"{value.name}.part", recipe)

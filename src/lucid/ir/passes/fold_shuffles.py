"""fold-shuffles: convolutions read channels where they lie, and permute their weights instead.

A channel shuffle moves every element to mix two groups of channels, of which the next block takes
one half apart again. A convolution does not care in which order its input channels come: what it
reads is put together from slices of what was there before the shuffle, in the order in which they
lie, and its weights are permuted to suit, once, as a recipe.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lucid.ir.graph import Node, Parameter, Value
from lucid.ir.ops import Array, Concat, Constant, Conv2d, Gather, Permute, Reshape, Slice
from lucid.ir.passes.canonicalise import equal_nodes
from lucid.ir.passes.recipes import apply, are_parameters, ints, recipe_of
from lucid.ir.passes.rewriter import Pass, Rewriter, rewrite, rewrite_graph
from lucid.ir.recipe import Apply

fold_shuffles = Pass(
    "fold-shuffles", "Permute the weights of convolutions instead of the channels they read"
)

MOST_PARTS = 24
VIEWS = (Reshape, Permute, Slice, Concat, Gather)

rewrite_graph(fold_shuffles)(equal_nodes)  # those that read the same channels share them


@rewrite(fold_shuffles, Conv2d)
def into_columns(node: Node, graph: Rewriter) -> None:
    """conv2d(x[:, p], w, b) == conv2d(x, w[:, inverse p], b), for a permutation p

    A convolution of shuffled channels: of the channels in the order in which they lie.

    Fires where its operand is made by moving channels alone, a permute or gather among the moves,
    from values with their channels in a row, and the weights are parameters. Not with groups
    (unless depthwise, below), nor where a channel is read twice or the channels lie in too many
    places.
    """
    op = node.op
    assert isinstance(op, Conv2d)
    if op.groups > 1 or not are_parameters(node.inputs[1]):
        return
    picked = _picked(node, graph)
    if picked is not None:
        weight = _permuted(node.inputs[1], picked.order, 1, graph)
        x = _joined(picked, node, graph)
        graph.substitute(node, op, [x, weight, *node.inputs[2:]])


@rewrite(fold_shuffles, Conv2d)
def past_depthwise(node: Node, graph: Rewriter) -> None:
    """conv2d(x[:, p], w, b) == conv2d(x, w[inverse p], b[inverse p])[:, p], depthwise

    A depthwise convolution of shuffled channels: its results are what is out of order then.

    Fires where only convolutions by parameters and without groups read them, which absorb that.
    """
    op, y = node.op, node.output
    assert isinstance(op, Conv2d)
    if op.groups < 2 or not are_parameters(*node.inputs[1:]):
        return
    if op.groups != node.inputs[0].type.shape[1] or op.groups != y.type.shape[1]:
        return
    picked = _picked(node, graph)
    if picked is None:
        return
    if not y.users or y in graph.graph.outputs or not all(_absorbs(n, y) for n in y.users):
        graph.miss(node, "not only convolutions without groups read its result")
        return
    weights = [_permuted(v, picked.order, 0, graph) for v in node.inputs[1:]]
    x = _joined(picked, node, graph)
    moved = graph.insert_before(node, op, [x, *weights])
    back = graph.insert_before(node, _table(np.argsort(picked.order)), [], inherits=False)
    graph.substitute(node, Gather(1), [moved, back])


def _absorbs(reader: Node, x: Value) -> bool:
    """Whether a convolution can permute its weights to suit another order of x."""
    plain = isinstance(reader.op, Conv2d) and reader.op.groups == 1
    return plain and reader.inputs[0] is x and are_parameters(reader.inputs[1])


# -- where channels come from ---------------------------------------------------------------------


@dataclass(frozen=True)
class Picked:
    """Channels `start` to `stop` of several values, and for each of all these channels in turn
    which channel of the operand it is."""

    parts: list[tuple[Value, int, int]]
    order: Array


def _picked(node: Node, graph: Rewriter) -> Picked | None:
    """The channels that a convolution reads, where they were moved to come to it."""
    x = node.inputs[0]
    if not _is_shuffled(x):
        return None
    found = Origins()
    numbers = found.of(x).ravel()
    order = np.argsort(numbers)
    lying = numbers[order]
    if np.any(lying[1:] == lying[:-1]):
        graph.miss(node, "it reads a channel twice")
        return None
    parts = found.ranges(lying)
    if len(parts) > MOST_PARTS:
        graph.miss(node, f"the channels lie in {len(parts)} places")
        return None
    return Picked(parts, order)


def _is_shuffled(value: Value) -> bool:
    """Whether a permutation is among the moves that make a value."""
    left, seen = [value], {value}
    while left:
        node = left.pop().producer
        if node is None or not _moves_channels(node):
            continue
        if isinstance(node.op, Permute | Gather):
            return True
        left += [v for v in node.inputs if v not in seen]
        seen.update(node.inputs)
    return False


def _moves_channels(node: Node) -> bool:
    """Whether a node moves whole channels: all axes between the batch and the last two."""
    x, y = node.inputs[0].type if node.inputs else node.output.type, node.output.type
    if not isinstance(node.op, VIEWS) or x.rank < 4 or y.rank < 4:
        return False
    if x.shape[0] != y.shape[0] or x.shape[-2:] != y.shape[-2:]:
        return False
    match node.op:
        case Permute(axes=axes):
            return axes[0] == 0 and axes[-2:] == (y.rank - 2, y.rank - 1)
        case Slice(axis=axis) | Concat(axis=axis):
            return 0 < axis < y.rank - 2
        case Gather(axis=axis):
            indices = node.inputs[1]
            constant = indices.producer is not None and isinstance(indices.producer.op, Constant)
            return axis == 1 and constant and indices.type.rank == 1
    return True


@dataclass
class Origins:
    """A number for every channel of the values that others are made of by moving channels."""

    first: dict[Value, int] = field(default_factory=dict)
    known: dict[Value, Array] = field(default_factory=dict)
    count: int = 0

    def of(self, value: Value) -> Array:
        """The number of each channel, in the shape of the axes that hold channels."""
        if value not in self.known:
            node = value.producer
            moved = node is not None and _moves_channels(node)
            self.known[value] = self._moved(node) if node and moved else self._new(value)
        return self.known[value]

    def _new(self, value: Value) -> Array:
        shape = ints(value.type.shape[1:-2])
        numbers = np.arange(np.prod(shape, dtype=np.int64)).reshape(shape) + self.count
        self.first[value] = self.count
        self.count += numbers.size + 1  # a gap, so that no range spans two values
        return numbers

    def _moved(self, node: Node) -> Array:
        """The numbers of a node's result: the op on those of its operands."""
        op, x = node.op, self.of(node.inputs[0])
        match op:
            case Permute(axes=axes):
                return x.transpose([a - 1 for a in axes[1:-2]])
            case Slice(axis=axis, start=start, stop=stop, step=step):
                return x[(slice(None),) * (axis - 1) + (slice(start, stop, step),)]
            case Concat(axis=axis):
                return np.concatenate([self.of(v) for v in node.inputs], axis - 1)
            case Gather():
                table = node.inputs[1].producer
                assert table is not None
                assert isinstance(table.op, Constant)
                return x[table.op.evaluate()]
        return x.reshape(ints(node.output.type.shape[1:-2]))

    def ranges(self, numbers: Array) -> list[tuple[Value, int, int]]:
        """Ascending numbers as ranges of the values' channels."""
        breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
        found = []
        for run in np.split(numbers, breaks):
            value, first = max(
                ((v, f) for v, f in self.first.items() if f <= run[0]), key=lambda pair: pair[1]
            )
            found.append((value, int(run[0]) - first, int(run[-1]) + 1 - first))
        return found


# -- rewriting ------------------------------------------------------------------------------------


def _joined(picked: Picked, node: Node, graph: Rewriter) -> Value:
    """The picked channels as one value before `node`."""
    cuts = []
    for value, start, stop in picked.parts:
        whole = (start, stop) == (0, value.type.shape[1])
        cut = Slice(1, start, stop)
        cuts.append(value if whole else graph.insert_before(node, cut, [value], inherits=False))
    if len(cuts) == 1:
        return cuts[0]
    return graph.insert_before(node, Concat(1), cuts, inherits=False)


def _permuted(value: Value, order: Array, axis: int, graph: Rewriter) -> Value:
    """A parameter with its channels along `axis` in another order."""
    assert isinstance(value, Parameter)
    if np.array_equal(order, np.arange(len(order))):
        return value
    recipe = apply(Gather(axis), recipe_of(value), Apply(_table(order)))
    return graph.parameter(f"{value.name}.shuffled", recipe)


def _table(order: Array) -> Constant:
    return Constant(tuple(int(i) for i in order), "i64")

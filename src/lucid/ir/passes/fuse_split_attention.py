"""fuse-split-attention: radix sum, mean, fc1, fc2, gate and weighted sum become one node.

A model may spell split attention in many ways. What is looked for is what is computed: where each
element of the gate comes from is found by running the reshapes, permutes and slices on an array of
indices, and compared with what rSoftmax says. So any spelling of the same thing matches.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lucid.ir.graph import Node, Value
from lucid.ir.ops import (
    Add,
    Array,
    Conv2d,
    Hardsigmoid,
    Linear,
    Mean,
    Mul,
    Op,
    Permute,
    Reshape,
    Sigmoid,
    Slice,
    Softmax,
    SplitAttention,
    Sum,
    Unary,
)
from lucid.ir.passes.fold_batch_norm import bias_name
from lucid.ir.passes.recipes import are_parameters, ints, recipe_of, reshape, zeros
from lucid.ir.passes.rewriter import Pass, Rewriter, rewrite
from lucid.ir.types import Dim, Shape

fuse_split_attention = Pass(
    "fuse-split-attention", "Fuse split attention and squeeze-and-excitation blocks into one node"
)

VIEWS = (Reshape, Permute, Slice)
MOST_TERMS = 64
BATCH = 5  # of the index arrays: any number that no radix or group count takes for its own


@dataclass(frozen=True)
class Excitation:
    """What computes the logits of a gate: pooled features -> fc1 -> activation -> fc2."""

    features: Value  # (N, C, H, W): what is averaged
    fc1: Node
    activation: Unary
    fc2: Node
    groups: int

    @property
    def logits(self) -> Value:
        return self.fc2.output


@rewrite(fuse_split_attention, Softmax)
def split_attention(softmax: Node, graph: Rewriter) -> None:
    """radix_combine(x, radix_softmax(fc2(f(fc1(radix_mean(x)))))) == split_attention(x)

    As written in plain ops: the softmax over the radix of fc2(act(fc1(mean(sum of the splits)))),
    times the splits, summed.

    Fires where all of it serves this one purpose: nothing in between is read elsewhere or
    returned (it would be computed twice), both fc are 1x1 convolutions of the same groups, or
    linears, over parameters, and the softmax is the rSoftmax of that many groups. The splits may
    be a reshape to five axes or slices along the channels; sums may be a `sum` or additions.
    """
    excitation = _excitation_of_gate(softmax, graph)
    if excitation is None:
        return
    splits = _sum_of_splits(excitation.features)
    if splits is None:
        graph.miss(softmax, f"%{excitation.features.name} is not the sum of all splits of a tensor")
        return
    gate = Gate(softmax, excitation, splits.radix)
    if not gate.is_radix_softmax():
        graph.miss(softmax, f"it is no softmax over the {splits.radix} splits of each channel")
        return
    total = _weighted_sum(splits, gate)
    if total is None or total.output.type != excitation.features.type:
        graph.miss(softmax, "its weights do not meet the splits they are of, to be summed")
        return
    _fuse(total, splits.x, softmax, splits.radix, excitation, graph)


@rewrite(fuse_split_attention, Sigmoid, Hardsigmoid)
def squeeze_and_excitation(sigmoid: Node, graph: Rewriter) -> None:
    """x * sigmoid(fc2(f(fc1(mean(x))))) == split_attention{radix=1}(x)

    A squeeze-and-excitation block; a hard sigmoid is its gate as well.

    Fires under the same conditions. Not where the mean is of another tensor than the one scaled.
    """
    excitation, product = _excitation_of_gate(sigmoid, graph), _first_product(sigmoid.output)
    if excitation is None or product is None:
        return
    x, gate = excitation.features, Gate(sigmoid, excitation, 1)
    if product.output.type == x.type and gate.weighed(product, gate.expected()[:, 0]) is x:
        _fuse(product, x, sigmoid, 1, excitation, graph)
    else:
        graph.miss(
            sigmoid, f"what it scales is not %{x.name}, which is averaged, channel by channel"
        )


@dataclass(frozen=True)
class Splits:
    """The `radix` parts of x: (N, radix*C, H, W) along its channels, however they are spelled."""

    x: Value
    radix: int
    channels: int

    def part(self) -> Shape:
        """The shape of one split: (N, C, H, W)."""
        n, _, *image = self.x.type.shape
        return (n, self.channels, *image)

    def are_all(self, value: Value) -> bool:
        """Whether `value` is x as (N, radix, C, H, W)."""
        n, *rest = self.part()
        return _unreshaped(value) is self.x and value.type.shape == (n, self.radix, *rest)

    def which(self, value: Value) -> int | None:
        """The k of which `value` is the split: a slice of x, or of x as five axes."""
        cut = _unreshaped(value).producer
        if value.type.shape != self.part() or cut is None:
            return None
        for k in range(self.radix):
            if cut.op == Slice(1, k * self.channels, (k + 1) * self.channels):
                return k if cut.inputs[0] is self.x else None
            if cut.op == Slice(1, k, k + 1) and self.are_all(cut.inputs[0]):
                return k
        return None


@dataclass(frozen=True)
class Gate:
    """The result of the softmax or sigmoid: one weight for each split and channel."""

    node: Node
    excitation: Excitation
    radix: int

    def expected(self) -> Array:
        """Which logit weighs split k, channel c of image n: (N, radix, C) positions."""
        n, count = self.excitation.logits.type.concrete(BATCH)[:2]
        per_group = count // (self.radix * self.excitation.groups)
        by_group = np.arange(n * count).reshape(n, -1, self.radix, per_group)
        return by_group.transpose(0, 2, 1, 3).reshape(n, self.radix, -1)

    def is_radix_softmax(self) -> bool:
        """Whether the softmax runs over the splits of each channel."""
        before = _positions(self.node.inputs[0], self.excitation.logits)
        assert isinstance(self.node.op, Softmax)
        if before is None or before.shape[self.node.op.axis] != self.radix:
            return False
        rivals = np.moveaxis(before, self.node.op.axis, -1).reshape(-1, self.radix)
        wanted = np.moveaxis(self.expected(), 1, -1).reshape(-1, self.radix)
        return np.array_equal(_sorted_rows(rivals), _sorted_rows(wanted))

    def weighed(self, product: Node, wanted: Array) -> Value | None:
        """What a multiplication weighs with the weights of the wanted positions."""
        if isinstance(product.op, Mul):
            for operand, weights in (product.inputs, product.inputs[::-1]):
                if self._hold(weights, wanted):
                    return operand
        return None

    def _hold(self, weights: Value, wanted: Array) -> bool:
        """Whether these are the weights of the wanted positions, as (..., 1, 1)."""
        before = _positions(self.node.inputs[0], self.excitation.logits)
        after = _positions(weights, self.node.output)
        if before is None or after is None:
            return False
        return np.array_equal(before.ravel()[after], wanted[..., None, None])


def _sorted_rows(rows: Array) -> Array:
    rows = np.sort(rows, axis=1)
    return rows[np.argsort(rows[:, 0])]


# -- from the gate upwards ------------------------------------------------------------------


def _excitation_of_gate(node: Node, graph: Rewriter) -> Excitation | None:
    """The layers before a softmax or sigmoid that is a gate: whose result scales something."""
    excitation = _excitation(node.inputs[0])
    if excitation is None and _first_product(node.output) and _dense(_unmoved(node.inputs[0])):
        graph.miss(node, "before it are not mean, fc1, activation and fc2 of the same groups")
    return excitation


def _unmoved(value: Value) -> Value:
    """The value before reshapes and permutes."""
    while value.producer is not None and isinstance(value.producer.op, (Reshape, Permute)):
        value = value.producer.inputs[0]
    return value


def _excitation(value: Value) -> Excitation | None:
    """The layers that compute a gate's logits, of which `value` is a rearrangement."""
    fc2 = _dense(_unmoved(value))
    activation = _unreshaped(fc2.inputs[0]).producer if fc2 is not None else None
    if fc2 is None or activation is None or not isinstance(activation.op, Unary):
        return None
    fc1 = _dense(_unreshaped(activation.inputs[0]))
    mean = _unreshaped(fc1.inputs[0]).producer if fc1 is not None else None
    if fc1 is None or mean is None or _groups(fc1) != _groups(fc2):
        return None
    if mean.op != Mean((2, 3), keepdims=True) or mean.output.type.rank != 4:
        return None
    return Excitation(mean.inputs[0], fc1, activation.op, fc2, _groups(fc1))


def _dense(value: Value) -> Node | None:
    """The 1x1 convolution of one pixel, or the linear over (N, features), that makes `value`."""
    node = value.producer
    match node:
        case Node(op=Conv2d(padding=padding), inputs=[x, weight, *_]):
            dense = weight.type.shape[2:] == x.type.shape[2:] == (1, 1) and not any(padding)
        case Node(op=Linear(), inputs=[x, *_]):
            dense = x.type.rank == 2
        case _:
            return None
    return node if dense and are_parameters(*node.inputs[1:]) else None


def _groups(layer: Node) -> int:
    return layer.op.groups if isinstance(layer.op, Conv2d) else 1


def _sum_of_splits(value: Value) -> Splits | None:
    """The splits of which `value` is the sum."""
    total = _unreshaped(value).producer
    if total is None:
        return None
    if total.op == Sum((1,)):
        (everything,) = total.inputs
        splits = _splits(_unreshaped(everything), everything.type.shape[1], value)
        return splits if splits is not None and splits.are_all(everything) else None
    parts = _addends(total.output)
    cut = _unreshaped(parts[0]).producer
    if cut is None or not isinstance(cut.op, Slice):
        return None
    (whole,) = cut.inputs
    splits = _splits(_unreshaped(whole) if whole.type.rank == 5 else whole, len(parts), value)
    return splits if splits is not None and _each_once(map(splits.which, parts), splits) else None


def _splits(x: Value, radix: int | Dim, total: Value) -> Splits | None:
    """x in `radix` splits, each of the type of their `total`, if x can be split so."""
    if x.type.rank != 4 or not isinstance(radix, int) or radix < 2:
        return None
    n, channels, *image = x.type.shape
    if not isinstance(channels, int) or total.type.shape != (n, channels // radix, *image):
        return None
    return Splits(x, radix, channels // radix) if channels % radix == 0 else None


def _each_once(found: Iterable[int | None], splits: Splits) -> bool:
    return sorted(-1 if k is None else k for k in found) == [*range(splits.radix)]


def _addends(value: Value) -> list[Value]:
    """The terms of a tree of additions, in no order, or `value` alone; not more than MOST_TERMS."""
    terms, left = [], [value]
    while left:
        term = left.pop()
        node = term.producer
        if node is not None and isinstance(node.op, Add) and len(left) < MOST_TERMS:
            left.extend(node.inputs)
        else:
            terms.append(term)
    return terms


def _unreshaped(value: Value) -> Value:
    """The value before a reshape."""
    node = value.producer
    return node.inputs[0] if node is not None and isinstance(node.op, Reshape) else value


def _positions(value: Value, base: Value) -> Array | None:
    """Where each element of `value` lies in `base`, of which it must be a rearrangement."""
    moves: list[Op] = []
    while value is not base:
        node = value.producer
        if node is None or not isinstance(node.op, VIEWS):
            return None
        moves.append(node.op)
        value = node.inputs[0]
    shape = base.type.concrete(BATCH)
    positions = np.arange(int(np.prod(shape))).reshape(shape)
    for op in reversed(moves):
        (positions,) = op.results(positions)
    return positions


# -- from the gate downwards ----------------------------------------------------------------


def _first_product(value: Value) -> Node | None:
    """The first multiplication by a rearrangement of `value`."""
    while value.users:
        user = value.users[0]
        if isinstance(user.op, Mul):
            return user
        if not isinstance(user.op, VIEWS):
            return None
        value = user.output
    return None


def _weighted_sum(splits: Splits, gate: Gate) -> Node | None:
    """The node that sums the splits, each times its weights."""
    product, wanted = _first_product(gate.node.output), gate.expected()
    total = _next(product)
    if product is not None and total is not None and total.op == Sum((1,)):
        everything = gate.weighed(product, wanted)
        return total if everything is not None and splits.are_all(everything) else None
    while total is not None and isinstance(total.op, Add):
        parts = _addends(total.output)
        if len(parts) >= splits.radix:
            found = [_weighed_split(part, splits, gate, wanted) for part in parts]
            return total if _each_once(found, splits) else None
        total = _next(total)
    return None


def _weighed_split(part: Value, splits: Splits, gate: Gate, wanted: Array) -> int | None:
    """The k of which `part` is split k times its weights."""
    for k in range(splits.radix):
        split = gate.weighed(part.producer, wanted[:, k]) if part.producer is not None else None
        if split is not None:
            return k if splits.which(split) == k else None
    return None


def _next(node: Node | None) -> Node | None:
    """The first reader of a node's result."""
    return node.output.users[0] if node is not None and node.output.users else None


# -- fusing ---------------------------------------------------------------------------------


def _fuse(
    total: Node, x: Value, gate: Node, radix: int, excitation: Excitation, graph: Rewriter
) -> None:
    """Put one split attention in the place of `total`, if all before it serves only that."""
    members = _between(x, total)
    leak = _read_outside(members, x, total, graph)
    if leak is not None:
        graph.miss(gate, f"%{leak.name}, which is part of it, is read elsewhere too")
        return
    operands = [x]
    for layer in (excitation.fc1, excitation.fc2):
        weight, *biases = layer.inputs[1:]
        out, per_group = ints(weight.type.shape)[:2]
        if weight.type.rank == 2:
            recipe = reshape(recipe_of(weight), out, per_group, 1, 1)
            operands.append(graph.parameter(f"{weight.name}.reshaped", recipe))
        else:
            operands.append(weight)
        zero = f"{bias_name(weight)}.zero"
        operands.append(biases[0] if biases else graph.parameter(zero, zeros(out)))
    op = SplitAttention(radix, excitation.groups, excitation.activation, gate.op.name)
    graph.substitute(total, op, operands, fuses=graph.in_order(members))


def _between(x: Value, total: Node) -> set[Node]:
    """The nodes that compute `total` from x."""
    members, left = {total}, [total]
    while left:
        for value in left.pop().inputs:
            if value is not x and value.producer is not None and value.producer not in members:
                members.add(value.producer)
                left.append(value.producer)
    return members


def _read_outside(members: set[Node], x: Value, total: Node, graph: Rewriter) -> Value | None:
    """What is read outside, `total` apart; mere views of x may be, and then stay."""
    for node in graph.in_order(members - {total}):
        inside = all(user in members for user in node.output.users)
        if (not inside or node.output in graph.graph.outputs) and not _is_view(node.output, x):
            return node.output
    return None


def _is_view(value: Value, x: Value) -> bool:
    """Whether `value` is made from x by moving elements alone."""
    while value is not x:
        node = value.producer
        if node is None or not isinstance(node.op, VIEWS):
            return False
        value = node.inputs[0]
    return True

"""fold-quantize: what is quantised next is computed in steps of the quantised tensor.

The division by a quantize's scale joins the multiplications before it, what is computed of one
8-bit tensor alone becomes a table, and a quantize comes before ops that only move or compare.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lucid.ir.graph import Node, Parameter, Value
from lucid.ir.ops import (
    Abs,
    Add,
    Cast,
    Clip,
    Concat,
    Constant,
    Dequantize,
    Div,
    Elementwise,
    LeakyRelu,
    Lookup,
    Maximum,
    MaxPool2d,
    Minimum,
    Mul,
    Neg,
    Op,
    Pad,
    Prelu,
    Quantize,
    Relu,
    Saturate,
    Sub,
    Where,
)
from lucid.ir.passes.quantised import dequantised, is_quantised, number_of, step_of
from lucid.ir.passes.recipes import apply
from lucid.ir.passes.rewriter import Pass, Rewriter, rewrite
from lucid.ir.passes.sink_dequantize import MOVES, is_nearest
from lucid.ir.passes.tables import Chain, Function, composed
from lucid.ir.recipe import Literal
from lucid.ir.types import DTYPES, INTEGERS

fold_quantize = Pass(
    "fold-quantize", "Fold the scale of a quantize into what it quantises, and chains into tables"
)

PLAIN = (Relu, Clip, LeakyRelu, Abs, Neg, Add, Sub, Mul, Maximum, Minimum, Quantize, Dequantize)
"""Ops that cost less in the epilogue of a layer than a table behind it."""
MOST_PLAIN = 6


# -- quantised once more --------------------------------------------------------------------------


@rewrite(fold_quantize, Quantize)
def same_step(node: Node, graph: Rewriter) -> None:
    """quantize(dequantize(x)) == x, of one scale and zero point

    Not the other way round: dequantize(quantize(x)) is x rounded.
    """
    found = dequantised(node.inputs[0])
    if found is not None and step_of(node) == found[1]:
        graph.replace(node, found[0].inputs[:1])


@rewrite(fold_quantize, Quantize)
def into_table(node: Node, graph: Rewriter) -> None:
    """quantize(f(dequantize(x))) == lookup(x, table), for any elementwise f

    Of one 8-bit tensor alone, which may be looked up itself in between, as in x * sigmoid(x) where
    the sigmoid is quantised. The table's recipe is f, applied to all 256 integers.

    Not where a few simple ops follow a layer that makes x for them alone: they join it.
    """
    if step_of(node) is None:
        return
    function = Chain(node, graph).function()
    if function is None or _joins_a_layer(function, graph):
        return
    name = f"{node.output.name}.table"
    table = graph.parameter(name, function.table)
    graph.substitute(node, Lookup(), [function.of, table], fuses=[*reversed(function.chain)])


def _joins_a_layer(function: Function, graph: Rewriter) -> bool:
    """Whether a chain of a few simple ops alone reads what a layer makes."""
    maker = function.of.producer
    if maker is None or not isinstance(maker.op, Saturate):
        return False
    chain = function.chain
    readers = function.of.users
    alone = len(readers) == 1 and function.of not in graph.graph.outputs
    plain = all(isinstance(n.op, PLAIN) for n in chain) and len(chain) <= MOST_PLAIN
    inner = all(graph.only_user(n.output) is not None for n in chain[1:])
    return alone and plain and inner


@rewrite(fold_quantize, Lookup)
def table_of_table(node: Node, graph: Rewriter) -> None:
    """lookup(lookup(x, t), u) == lookup(x, u[t])

    Where nothing else reads the inner one, and both tables are parameters.
    """
    x, table = node.inputs
    match x.producer:
        case Node(op=Lookup(), inputs=[base, Parameter() as inner]) as first:
            if graph.only_user(x) is node and isinstance(table, Parameter):
                both = composed(inner.recipe, table.recipe)
                parameter = graph.parameter(f"{node.output.name}.table", both)
                graph.substitute(node, Lookup(), [base, parameter], fuses=[first, node])


# -- a quantize before what moves and compares ----------------------------------------------------


@rewrite(fold_quantize, Quantize)
def before_moves(node: Node, graph: Rewriter) -> None:
    """quantize(op(x)) == op(quantize(x)), for an op that moves elements

    A reshape, a permute, a slice, a resize to the nearest pixels, a padding, a concatenation, whose
    parts are quantised one by one, and a max pool of what layers make.

    Fires where the quantize alone reads the op's result, with a scale known for the whole tensor.
    """
    value, *scales = node.inputs
    mover, step = value.producer, step_of(node)
    if mover is None or step is None or graph.only_user(value) is not node:
        return
    op = mover.op
    if isinstance(op, MaxPool2d):
        if not _of_integers(mover.inputs[0], mover, graph):
            return  # of NaN and others the largest is NaN, but NaN quantised is the least
    elif isinstance(op, Pad):
        if op.mode == "constant":
            op = replace(op, value=float(step.nearest(op.value)))
    elif not isinstance(op, (*MOVES, Concat)) and not is_nearest(op):
        return
    constants = [v.producer.op for v in scales if v.producer is not None]  # step_of has seen them
    scales = [graph.insert_before(mover, constant, []) for constant in constants]
    quantised = [graph.insert_before(mover, node.op, [v, *scales]) for v in mover.inputs]
    graph.substitute(node, op, quantised, fuses=[mover, node])


# -- the scale ------------------------------------------------------------------------------------


@rewrite(fold_quantize, Quantize)
def into_factors(node: Node, graph: Rewriter) -> None:
    """quantize(x * f) == saturate(x * (f / scale))

    The division joins the factor that x is multiplied with, or several, through sums, maxima and
    activations such as relu; a dequantized tensor among them is multiplied by the quotient of both
    scales. Where an activation lies between that is no multiple of its argument, or a tensor of
    floats takes part, it is multiplied by the inverse of the scale.

    Fires where something of it is computed of integers, and nothing else reads what lies between.
    """
    step = step_of(node)
    if step is None:
        return
    value = node.inputs[0]
    if _of_integers(value, node, graph):
        steps = _Division(step.scale, graph).of(value, node)
        graph.substitute(node, Saturate(step.dtype, step.zero_point), [steps], fuses=[node])
    elif value.producer is not None and graph.only_user(value) is None:
        _tell(node, value.producer, graph)


def _tell(node: Node, maker: Node, graph: Rewriter) -> None:
    """Say that what a layer of integers makes is read elsewhere too."""
    if any(_of_integers(v, maker, graph) for v in maker.inputs) and isinstance(
        maker.op, Elementwise
    ):
        graph.miss(node, f"%{maker.output.name} is read elsewhere too", maker)


def _of_integers(value: Value, reader: Node, graph: Rewriter) -> bool:
    """Whether a value is computed of integers, by elementwise ops for `reader` alone."""
    node = value.producer
    if node is None:
        return False
    if is_quantised(value):
        return True
    if graph.only_user(value) is not reader:
        return False
    if isinstance(node.op, Cast):
        return node.inputs[0].type.dtype in INTEGERS and value.type.dtype == "f32"
    return isinstance(node.op, Elementwise) and any(
        _of_integers(v, node, graph) for v in node.inputs
    )


def _is_known(value: Value) -> bool:
    """Whether a value is known when the model is compiled, as a parameter or a number."""
    return isinstance(value, Parameter) or number_of(value) is not None


@dataclass(frozen=True)
class _Division:
    """What is quantised, divided by a scale: each new node before the one that it is in the place
    of, or that reads it."""

    scale: float
    graph: Rewriter

    def of(self, value: Value, reader: Node) -> Value:
        """`value` / scale, for the node that reads `value`."""
        if _is_known(value):
            return self._known(value, reader)
        node = value.producer
        if node is not None and is_quantised(value):
            return self._dequantised(node, reader)
        if node is None or self.graph.only_user(value) is not reader:
            return self._multiplied(value, reader)
        match node.op:
            case Mul():
                return self._product(node, reader)
            case Clip(low=low, high=high):
                bounds = [None if b is None else b / self.scale for b in (low, high)]
                return self._insert(node, Clip(*bounds), self.of(node.inputs[0], node))
            case Where():
                condition, *cases = node.inputs
                chosen = (self.of(v, node) for v in cases)
                return self._insert(node, node.op, self.whole(condition, node), *chosen)
            case Add() | Sub() | Maximum() | Minimum():
                return self._insert(node, node.op, *(self.of(v, node) for v in node.inputs))
            case Relu() | LeakyRelu() | Prelu() | Abs() | Neg() | Div():
                first, *others = node.inputs
                divided = self.of(first, node)
                return self._insert(node, node.op, divided, *(self.whole(v, node) for v in others))
        return self._multiplied(value, reader)

    def whole(self, value: Value, reader: Node) -> Value:
        """`value` as it is, but for dequantised tensors that it is computed of: those become
        products of their integers."""
        node = value.producer
        if node is None or not _of_integers(value, reader, self.graph):
            return value
        if is_quantised(value):
            return _Division(1.0, self.graph)._dequantised(node, reader)
        if isinstance(node.op, Cast):
            return value
        operands = [self.whole(v, node) for v in node.inputs]
        return value if operands == node.inputs else self._insert(node, node.op, *operands)

    def _product(self, node: Node, reader: Node) -> Value:
        """A product, of which one factor is divided: a known one, or else one of integers. The
        scale of the other, if it is dequantised, joins the division."""
        a, b = node.inputs
        for divided, other in ((b, a), (a, b)):
            if _is_known(divided):
                return self._insert(node, Mul(), *self._factors(other, divided, node))
        for divided, other in ((a, b), (b, a)):
            if a is not b and _of_integers(divided, node, self.graph):
                return self._insert(node, Mul(), *self._factors(other, divided, node))
        return self._multiplied(node.output, reader)

    def _factors(self, whole: Value, divided: Value, reader: Node) -> tuple[Value, Value]:
        """Two factors, the second of which is divided; what is dequantised keeps no scale of its
        own, which joins the division."""
        if found := dequantised(whole):
            source, step = found
            rest = _Division(self.scale / step.scale, self.graph)
            return self._centred(source, reader), rest.of(divided, reader)
        return self.whole(whole, reader), self.of(divided, reader)

    def _known(self, value: Value, reader: Node) -> Value:
        """A parameter or a number, divided."""
        if isinstance(value, Parameter):
            quotient = apply(Div(), value.recipe, Literal(self.scale))
            return self.graph.parameter(f"{value.name}.steps", quotient)
        number = number_of(value)
        assert number is not None
        return self._number(number / self.scale, reader)

    def _dequantised(self, node: Node, reader: Node) -> Value:
        """A dequantised tensor in other steps: its integers times the quotient of both scales."""
        step, x = step_of(node), self._centred(node, reader)
        assert step is not None
        if step.scale == self.scale:
            return x
        return self._insert(reader, Mul(), x, self._number(step.scale / self.scale, reader))

    def _centred(self, node: Node, reader: Node) -> Value:
        """The integers of a dequantised tensor, less their zero point, as floats."""
        step = step_of(node)
        assert step is not None
        x = self._insert(reader, Cast("f32"), node.inputs[0])
        if not step.zero_point:
            return x
        return self._insert(reader, Sub(), x, self._number(float(step.zero_point), reader))

    def _multiplied(self, value: Value, reader: Node) -> Value:
        factor = self._number(1 / self.scale, reader)
        return self._insert(reader, Mul(), self.whole(value, reader), factor)

    def _number(self, number: float, reader: Node) -> Value:
        return self._insert(reader, Constant(number))

    def _insert(self, place: Node, op: Op, *inputs: Value) -> Value:
        return self.graph.insert_before(place, op, inputs)


@rewrite(fold_quantize, Saturate)
def bounds_of_saturate(node: Node, graph: Rewriter) -> None:
    """saturate(clip(x)) == saturate(x), where its bounds are beyond those of the dtype

    And so with a relu, which is a clip at 0.
    """
    op, maker = node.op, node.inputs[0].producer
    assert isinstance(op, Saturate)
    if maker is None or graph.only_user(maker.output) is not node:
        return
    match maker.op:
        case Relu():
            low, high = 0.0, None
        case Clip(low=low, high=high):
            pass
        case _:
            return
    least, most = np.iinfo(DTYPES[op.dtype]).min, np.iinfo(DTYPES[op.dtype]).max
    needed = (
        None if low is None or _reaches(op, low, least) else low,
        None if high is None or _reaches(op, high, most) else high,
    )
    if needed == (None, None):
        graph.substitute(node, op, maker.inputs, fuses=[maker, node])
    elif needed != (low, high):
        clipped = graph.insert_before(maker, Clip(*needed), maker.inputs)
        graph.substitute(node, op, [clipped], fuses=[node])


def _reaches(op: Saturate, number: float, bound: int) -> bool:
    """Whether a saturate makes one of its bounds of a number."""
    return int(op.evaluate(np.asarray(number, np.float32))) == bound

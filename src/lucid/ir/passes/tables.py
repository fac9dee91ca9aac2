"""Elementwise chains over one 8-bit tensor, as recipes of the 256 values that they can have."""

from __future__ import annotations

from dataclasses import dataclass, field

from lucid.ir.graph import Node, Parameter, Value
from lucid.ir.ops import (
    Add,
    Cast,
    Constant,
    CumSum,
    Dequantize,
    Elementwise,
    Lookup,
    Quantize,
)
from lucid.ir.ops.quantisation import EIGHT_BITS
from lucid.ir.passes.quantised import as_float32
from lucid.ir.passes.recipes import apply, expand, reshape, size
from lucid.ir.passes.rewriter import Rewriter
from lucid.ir.recipe import Apply, Literal, Recipe

MOST_OPS = 64
"""In a table's recipe, which is a tree: a value that is read twice counts twice."""
MOST_DEPTH = 24


@dataclass(frozen=True)
class Function:
    """What is computed of one 8-bit tensor alone: its values for all integers, from the least to
    the largest, and the nodes of the chain (not those of tables that it takes in)."""

    of: Value
    table: Recipe
    chain: tuple[Node, ...]


@dataclass
class Chain:
    """The elementwise ops between 8-bit tensors and a value, looked at backwards."""

    root: Node
    graph: Rewriter
    nodes: dict[Node, None] = field(default_factory=dict)
    leaves: dict[Value, None] = field(default_factory=dict)

    def function(self) -> Function | None:
        """The root as a function of one 8-bit tensor of its shape, if it is that."""
        if not self._collect(self.root.output, 0):
            return None
        base = self._base()
        if base is None or base.type.shape != self.root.output.type.shape:
            return None
        table = self._table(self.root.output, base)
        if size(table, MOST_OPS) >= MOST_OPS:
            return None
        return Function(base, table, tuple(self.nodes))

    def _base(self) -> Value | None:
        """The one tensor that all leaves are, or are looked up by."""
        bases = dict.fromkeys(self.leaves)
        if len(bases) > 1:
            bases = dict.fromkeys(_looked_up_by(leaf) or leaf for leaf in self.leaves)
        return next(iter(bases)) if len(bases) == 1 else None

    def _collect(self, value: Value, depth: int) -> bool:
        """Note the ops and leaves that a value is computed of; False where there are others."""
        node = value.producer
        if _number(value) is not None:
            return True
        if value.type.dtype in EIGHT_BITS and value is not self.root.output:
            self.leaves[value] = None
            return True
        if node is None or depth > MOST_DEPTH or not isinstance(node.op, PARTS):
            return False
        self.nodes[node] = None
        return all(self._collect(v, depth + 1) for v in node.inputs)

    def _table(self, value: Value, base: Value) -> Recipe:
        """The values for all integers of `base`."""
        number = _number(value)
        if number is not None:
            return number
        node = value.producer
        if value in self.leaves:
            return integers(base.type.dtype) if value is base else _lookup_table(value)
        assert node is not None
        return apply(node.op, *(self._table(v, base) for v in node.inputs))


PARTS = (Elementwise, Cast, Quantize, Dequantize)


def _number(value: Value) -> Recipe | None:
    """A number known when the model is compiled, as a recipe."""
    match value:
        case Parameter():
            return reshape(value.recipe) if all(d == 1 for d in value.type.shape) else None
        case Value(producer=Node(op=Constant(value=float() | int() as number, dtype="f32"))):
            return as_float32(Literal(float(number)))
        case Value(producer=Node(op=Constant(value=float() | int()) as constant)):
            return Apply(constant)
    return None


def _looked_up_by(value: Value) -> Value | None:
    """The tensor that a table is applied to."""
    match value.producer:
        case Node(op=Lookup(), inputs=[x, Parameter()]):
            return x
    return None


def _lookup_table(value: Value) -> Recipe:
    assert value.producer is not None
    table = value.producer.inputs[1]
    assert isinstance(table, Parameter)
    return table.recipe


def integers(dtype: str) -> Recipe:
    """All integers of an 8-bit dtype, in order."""
    counted = apply(CumSum(0, exclusive=True), expand(Literal(1.0), 256))
    if dtype == "i8":
        counted = apply(Add(), counted, Literal(-128.0))
    return apply(Cast(dtype), counted)


def composed(inner: Recipe, outer: Recipe) -> Recipe:
    """The table that looks up in `outer` what `inner` gives."""
    return apply(Lookup(), inner, outer)

"""The intermediate representation: types, ops, graphs, and what works on any graph."""

from lucid.ir import ops  # first: graphs hold ops, and the op of fusions holds a graph
from lucid.ir.graph import Graph, Node, Parameter, Value
from lucid.ir.interpret import interpret
from lucid.ir.ops import OPS, Op, op_class
from lucid.ir.recipe import Apply, Literal, Recipe, Source
from lucid.ir.text import parse_graph, print_graph
from lucid.ir.types import BATCH, Dim, Shape, TensorType, f32
from lucid.ir.verify import verify

__all__ = [
    "BATCH",
    "OPS",
    "Apply",
    "Dim",
    "Graph",
    "Literal",
    "Node",
    "Op",
    "Parameter",
    "Recipe",
    "Shape",
    "Source",
    "TensorType",
    "Value",
    "f32",
    "interpret",
    "op_class",
    "ops",
    "parse_graph",
    "print_graph",
    "verify",
]

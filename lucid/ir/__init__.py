"""The intermediate representation: types, ops, graphs, and what works on any graph."""

from lucid.ir.graph import Graph, Node, Parameter, Value
from lucid.ir.ops import OPS, Op, op_class
from lucid.ir.recipe import Apply, Literal, Recipe, Source
from lucid.ir.types import BATCH, Dim, Shape, TensorType, f32

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
    "op_class",
]

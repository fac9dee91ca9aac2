"""The intermediate representation: types, ops, graphs, and what works on any graph."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lucid.ir import ops
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

MODULES = {
    "graph": ("Graph", "Node", "Parameter", "Value"),
    "interpret": ("interpret",),
    "ops": ("OPS", "Op", "op_class"),
    "recipe": ("Apply", "Literal", "Recipe", "Source"),
    "text": ("parse_graph", "print_graph"),
    "types": ("BATCH", "Dim", "Shape", "TensorType", "f32"),
    "verify": ("verify",),
}
"""Where the names come from, each imported when first asked for: to load a compiled model takes the
types alone, and the classes of all ops take a tenth of a second."""


def __getattr__(name: str) -> Any:
    if name == "ops":
        return import_module("lucid.ir.ops")
    for module, names in MODULES.items():
        if name in names:
            return getattr(import_module(f"lucid.ir.{module}"), name)
    raise AttributeError(f"module 'lucid.ir' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


class _Package(ModuleType):
    """Shows the functions `interpret` and `verify`, and not the modules of that name, as whose
    parent it is told of them."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and name in MODULES.get(name, ()):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

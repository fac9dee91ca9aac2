"""Graphs as plain data, for scripts that would rather not parse text. One way only: what Lucid
reads back is the text."""

from __future__ import annotations

import dataclasses
from typing import Any

from lucid.ir.graph import Graph, Node, Parameter, Value
from lucid.ir.ops import Op
from lucid.ir.printer import print_recipe
from lucid.ir.recipe import sources
from lucid.ir.types import Dim, TensorType


def graph_json(graph: Graph) -> dict[str, Any]:
    """A graph: inputs, parameters, nodes in order, and the names it returns."""
    return {
        "name": graph.name,
        "inputs": [value_json(v) for v in graph.inputs],
        "parameters": [parameter_json(p) for p in graph.parameters.values()],
        "nodes": [node_json(n) for n in graph.nodes],
        "outputs": [v.name for v in graph.outputs],
    }


def node_json(node: Node) -> dict[str, Any]:
    """A node. Operands are names; `@` marks parameters, as in the text."""
    return {
        **op_json(node.op),
        "inputs": [f"@{v.name}" if isinstance(v, Parameter) else v.name for v in node.inputs],
        "outputs": [value_json(v) for v in node.outputs],
        "origin": node.origin,
        "fused_from": list(node.fused_from),
    }


def value_json(value: Value) -> dict[str, Any]:
    return {"name": value.name, **type_json(value.type)}


def parameter_json(parameter: Parameter) -> dict[str, Any]:
    """A parameter, with its recipe as text and the tensors of the state dict that it reads."""
    return {
        **value_json(parameter),
        "recipe": print_recipe(parameter.recipe),
        "sources": [s.name for s in sources(parameter.recipe)],
    }


def type_json(type: TensorType) -> dict[str, Any]:
    """`{"dtype": "f32", "shape": ["N", 64, 8, 8]}`: symbolic dimensions are strings."""
    return {"dtype": type.dtype, "shape": _plain(type.shape)}


def op_json(op: Op) -> dict[str, Any]:
    """An op with all its attributes, defaults too."""
    fields = {f.name: _plain(getattr(op, f.name)) for f in dataclasses.fields(op)}
    return {"op": op.name, "attributes": fields}


def _plain(value: Any) -> Any:
    match value:
        case tuple():
            return [_plain(v) for v in value]
        case Dim():
            return str(value)
        case Op():
            return op_json(value)
        case Graph():
            return graph_json(value)
    return value

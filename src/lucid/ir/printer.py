"""From a graph to its text. The grammar stands in `lucid.ir.text`."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

from lucid.ir.graph import Graph, Node, Parameter, Value
from lucid.ir.ops import Op
from lucid.ir.recipe import Apply, Literal, Recipe, Source
from lucid.ir.types import Dim


def print_graph(graph: Graph) -> str:
    """The text of a graph, complete but for the payload; `parse_graph` gives it back."""
    return "\n".join(_graph_lines(graph)) + "\n"


def print_op(op: Op) -> str:
    """An op alone: `conv2d{stride=(2,2)}`, `relu`."""
    return op.name + print_attributes(op)


def print_attributes(op: Op) -> str:
    """The attributes that differ from their defaults, in braces; nothing where none does."""
    shown = [
        f"{field.name}={print_attribute(value)}"
        for field in dataclasses.fields(op)
        if (value := getattr(op, field.name)) != field.default
    ]
    return f"{{{', '.join(shown)}}}" if shown else ""


def print_attribute(value: Any) -> str:
    """One attribute value, in a form that says its kind."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case int():
            return str(int(value))
        case float():
            return repr(float(value))
        case str():
            return json.dumps(value)
        case Dim():
            return str(value)
        case tuple():
            return f"({','.join(map(print_attribute, value))})"
        case Op():
            return print_op(value)
        case Graph():
            return "\n".join(_graph_lines(value))
    raise TypeError(f"an attribute cannot be of {type(value)}: {value!r}")


def print_recipe(recipe: Recipe) -> str:
    """A parameter's expression: `mul(@a, rsqrt(add(@b, 1e-05)))`."""
    match recipe:
        case Source(name):
            return _name("@", name)
        case Literal(value):
            return repr(float(value))
        case Apply(op, arguments):
            return f"{op.name}({', '.join(map(print_recipe, arguments))}){print_attributes(op)}"


def _graph_lines(graph: Graph) -> list[str]:
    inputs = ", ".join(f"{_name('%', v.name)}: {v.type}" for v in graph.inputs)
    results = ", ".join(str(v.type) for v in graph.outputs)
    name = graph.name if re.fullmatch(r"[A-Za-z_]\w*", graph.name) else json.dumps(graph.name)
    body = [*_source_lines(graph)]
    body += [print_parameter(p) for p in graph.parameters.values()]
    body += [print_node(node) for node in graph.nodes]
    if graph.outputs:
        body.append(f"return {_operands(graph.outputs)}")
    indented = [f"  {line}" for text in body for line in text.split("\n")]
    return [f"graph {name}({inputs}) -> {results or '()'} {{", *indented, "}"]


def _source_lines(graph: Graph) -> list[str]:
    """The sources that no parameter of the same name declares by being just that source."""
    declared = {p.name for p in graph.parameters.values() if _is_plain(p)}
    return [
        f"source {_name('@', source.name)}: {source.type}"
        for source in graph.sources().values()
        if source.name not in declared
    ]


def print_parameter(parameter: Parameter) -> str:
    """The line that declares a parameter, with its recipe unless it is a source as it is."""
    line = f"param {_name('@', parameter.name)}: {parameter.type}"
    return line if _is_plain(parameter) else f"{line} = {print_recipe(parameter.recipe)}"


def _is_plain(parameter: Parameter) -> bool:
    return parameter.recipe == Source(parameter.name, parameter.type)


def print_node(node: Node, lineage: bool = True) -> str:
    """The line of one node (several lines where an attribute is a graph), not indented.

    `lineage`: whether to say what it was fused from.
    """
    types = ", ".join(str(v.type) for v in node.outputs)
    attributes = print_attributes(node.op)
    line = f"{_operands(node.outputs)} = {node.op.name}({_operands(node.inputs)})"
    line += f" {attributes}" if attributes else ""
    line += f" : {types}"
    if node.origin:
        line += f" at {json.dumps(node.origin)}"
    if node.fused_from and lineage:
        line += f" from ({', '.join(map(json.dumps, node.fused_from))})"
    return line


def _operands(values: Sequence[Value]) -> str:
    return ", ".join(_name("@" if isinstance(v, Parameter) else "%", v.name) for v in values)


def _name(sigil: str, name: str) -> str:
    """A name with its sigil; quoted where it holds more than letters, digits, `_` and `.`."""
    return sigil + (name if re.fullmatch(r"[\w.]+", name, re.ASCII) else json.dumps(name))

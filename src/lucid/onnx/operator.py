"""One operator of a file with all that says what it means, and how it is written out in others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from lucid.onnx.order import in_order

if TYPE_CHECKING:
    import onnx

STANDARD = ("", "ai.onnx")
"""The names of the domain of ONNX's own operators."""


@dataclass(frozen=True, eq=False)
class Operator:
    """A node, and the versions of the operators that it speaks, by their domains."""

    proto: onnx.NodeProto
    opsets: Mapping[str, int]

    @property
    def domain(self) -> str:
        return "" if self.proto.domain in STANDARD else self.proto.domain

    @property
    def kind(self) -> str:
        """Its name, with its domain in front where that is none of ONNX's own."""
        return f"{self.domain}.{self.proto.op_type}" if self.domain else self.proto.op_type

    @property
    def opset(self) -> int:
        return self.opsets.get(self.domain, 1)

    @property
    def where(self) -> str:
        """The node as messages name it: by its module, its own name, or its first result."""
        place = self.proto.name or next(iter(self.proto.output), "")
        path = origin(self.proto)
        return f"{place!r}" if path in (place, "") else f"{place!r} ({path})"

    @cached_property
    def reads(self) -> list[str]:
        """The names that it reads, those of its subgraphs that are defined outside included."""
        names = dict.fromkeys(name for name in self.proto.input if name)
        for graph in subgraphs(self.proto):
            names.update(dict.fromkeys(captured(graph)))
        return list(names)

    @property
    def schema(self) -> onnx.defs.OpSchema | None:
        """What ONNX says of it; None of an operator that the version does not know."""
        return schema_of(self.proto.op_type, self.opset, self.domain)


@cache
def schema_of(kind: str, opset: int, domain: str) -> onnx.defs.OpSchema | None:
    from onnx.defs import SchemaError, get_schema

    try:
        return get_schema(kind, opset, domain)
    except (SchemaError, TypeError):  # a name of a damaged file may be no text
        return None


def origin(proto: onnx.NodeProto) -> str:
    """The path of the module that a node comes from, as its exporter tells it; else its name.

    PyTorch's older exporter names nodes `/layer1/layer1.0/conv1/Conv`, its newer one lists
    `['', 'layer1', 'layer1.0', 'layer1.0.conv1', 'conv2d']` beside; Lucid names them
    `layer1.0.conv1/conv2d_3`.
    """
    for entry in proto.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            scopes = [part.strip(" '\"") for part in entry.value.strip("[]").split(",")]
            if len(scopes) > 1:
                return str(scopes[-2])
    if "/" not in proto.name:
        return str(proto.name)
    path = ""
    for part in proto.name.strip("/").split("/")[:-1]:
        path = part if not path or part.startswith(f"{path}.") else f"{path}.{part}"
    return path


# -- subgraphs ----------------------------------------------------------------------------------


def subgraphs(proto: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs that are attributes of a node."""
    return [
        graph
        for attribute in proto.attribute
        for graph in ([attribute.g] if attribute.HasField("g") else list(attribute.graphs))
    ]


def captured(graph: onnx.GraphProto) -> list[str]:
    """The names that a subgraph reads and something outside of it defines."""
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {name for node in graph.node for name in node.output}
    read: dict[str, None] = {}
    for node in graph.node:
        read.update(dict.fromkeys(name for name in node.input if name))
        for inner in subgraphs(node):
            read.update(dict.fromkeys(captured(inner)))
    read.update(dict.fromkeys(output.name for output in graph.output))
    return [name for name in read if name not in own]


# -- operators written out in others -------------------------------------------------------------


@dataclass
class Expansion:
    """Operators that stand in the place of one: a branch that is taken, the body of a function, the
    rounds of a loop. `tensors`: what they hold, by name."""

    operators: list[Operator] = field(default_factory=list)
    tensors: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def add(
        self,
        kind: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        opsets: Mapping[str, int],
        **attributes: Any,
    ) -> None:
        """One more operator."""
        from onnx.helper import make_node

        self.operators.append(Operator(make_node(kind, inputs, outputs, **attributes), opsets))

    def add_graph(
        self,
        graph: onnx.GraphProto,
        inputs: Sequence[str],
        outputs: Sequence[str],
        opsets: Mapping[str, int],
        prefix: str,
    ) -> None:
        """A subgraph whose inputs and outputs are these names outside; its own get the prefix."""
        names = dict(zip((value.name for value in graph.input), inputs, strict=False))
        for tensor in graph.initializer:
            names[tensor.name] = f"{prefix}{tensor.name}"
            self.tensors[names[tensor.name]] = tensor
        given = {*names, *captured(graph)}
        body = in_order(graph.node, given)
        self._add_nodes(body, names, [o.name for o in graph.output], outputs, opsets, prefix, {})

    def add_function(
        self, function: onnx.FunctionProto, proto: onnx.NodeProto, prefix: str
    ) -> None:
        """The body of a function in the place of the node that calls it."""
        names = dict.fromkeys(function.input, "")
        names.update(zip(function.input, proto.input, strict=False))
        values = {a.name: a for a in function.attribute_proto}
        values.update({a.name: a for a in proto.attribute})
        opsets = {
            "" if entry.domain in STANDARD else entry.domain: entry.version
            for entry in function.opset_import
        }
        outputs = [*proto.output, *[""] * (len(function.output) - len(proto.output))]
        body = in_order(function.node, {*names})
        self._add_nodes(body, names, list(function.output), outputs, opsets, prefix, values)

    def _add_nodes(
        self,
        nodes: Iterable[onnx.NodeProto],
        names: dict[str, str],
        results: Sequence[str],
        outputs: Sequence[str],
        opsets: Mapping[str, int],
        prefix: str,
        values: Mapping[str, onnx.AttributeProto],
    ) -> None:
        made = {name for node in nodes for name in node.output if name}
        names.update({name: f"{prefix}{name}" for name in made})
        for inner, outer in zip(results, outputs, strict=True):
            if inner in made and outer and names[inner].startswith(prefix):
                names[inner] = outer
        for node in nodes:
            self.operators.append(Operator(renamed(node, names, values, prefix), opsets))
        for inner, outer in zip(results, outputs, strict=True):
            if outer and names.get(inner, inner) != outer:
                self.add("Identity", [names.get(inner, inner)], [outer], opsets)


def renamed(
    node: onnx.NodeProto,
    names: Mapping[str, str],
    values: Mapping[str, onnx.AttributeProto],
    prefix: str,
) -> onnx.NodeProto:
    """A node that reads and gives other names, and whose attributes that refer to those of a
    function have their `values`; the subgraphs that it holds too."""
    from onnx import NodeProto

    copy = NodeProto()
    copy.CopyFrom(node)
    copy.name = f"{prefix}{node.name}" if node.name else ""
    _rename(copy.input, lambda name: names.get(name, name))
    _rename(copy.output, lambda name: names.get(name, name))
    _settle(copy, values)
    for graph in subgraphs(copy):
        _rename_graph(graph, names, values)
    return copy


def _rename(names: Any, change: Callable[[str], str]) -> None:
    changed = [change(name) for name in names]
    del names[:]
    names.extend(changed)


def _settle(node: onnx.NodeProto, values: Mapping[str, onnx.AttributeProto]) -> None:
    """Attributes that refer to those of a function: their values, or none."""
    kept = []
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            value = values.get(attribute.ref_attr_name)
            if value is None:
                continue
            name = attribute.name
            attribute.CopyFrom(value)
            attribute.name = name
        kept.append(attribute)
    copies = [type(a).FromString(a.SerializeToString()) for a in kept]
    del node.attribute[:]
    node.attribute.extend(copies)


def _rename_graph(
    graph: onnx.GraphProto, names: Mapping[str, str], values: Mapping[str, onnx.AttributeProto]
) -> None:
    """What a subgraph reads from outside; its own names stay."""
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {name for node in graph.node for name in node.output}
    outside = {old: new for old, new in names.items() if old not in own}
    for node in graph.node:
        _rename(node.input, lambda name: outside.get(name, name))
        _settle(node, values)
        for inner in subgraphs(node):
            _rename_graph(inner, outside, values)
    for output in graph.output:
        output.name = outside.get(output.name, output.name)

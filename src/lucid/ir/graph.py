"""The graph: values, parameters and nodes in topological order, in SSA form.

Inputs, outputs and node operands are `Value`s; a `Value` knows its producer and its users, and the
mutators below keep both right. A node may have several results.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar

from lucid.ir.ops.base import Array, Op
from lucid.ir.recipe import Recipe, Source, sources
from lucid.ir.types import Shapes, TensorType


@dataclass(frozen=True)
class State:
    """What a model's weights are: shapes of floating tensors by name, and tables of integers, which
    are part of its graph and may not change."""

    shapes: Mapping[str, tuple[int, ...]]
    tables: Mapping[str, Array] = field(default_factory=dict)


class Value:
    """What flows along an edge: an input of the graph, or one result of a node."""

    __slots__ = ("_users", "name", "producer", "type")

    def __init__(self, type: TensorType, name: str, producer: Node | None = None) -> None:
        self.type = type
        self.name = name
        self.producer = producer
        self._users: dict[Node, None] = {}

    @property
    def users(self) -> list[Node]:
        """The nodes that read this value, each once (graph outputs are not users)."""
        return list(self._users)

    def __repr__(self) -> str:
        return f"%{self.name}: {self.type}"


class Parameter(Value):
    """A value known when the model is compiled, given by a recipe over the model's tensors."""

    __slots__ = ("recipe",)

    def __init__(self, name: str, recipe: Recipe) -> None:
        super().__init__(recipe.type, name)
        self.recipe = recipe

    def __repr__(self) -> str:
        return f"@{self.name}: {self.type}"


class Node:
    """One application of an op.

    `origin` is the path of the module that made it (`layer1.0.conv2.fc1`); `fused_from` the origins
    and op names it was fused from, such as `conv2d layer1.0.conv1`. `location` is the user's source
    line, for messages only: it is neither printed nor compared.
    """

    __slots__ = ("fused_from", "inputs", "location", "op", "origin", "outputs")

    def __init__(
        self,
        op: Op,
        inputs: Sequence[Value],
        origin: str = "",
        fused_from: tuple[str, ...] = (),
        location: str | None = None,
    ) -> None:
        self.op = op
        self.inputs = list(inputs)
        self.outputs: list[Value] = []
        self.origin = origin
        self.fused_from = fused_from
        self.location = location

    @property
    def output(self) -> Value:
        """The result of a node that has just one."""
        (result,) = self.outputs
        return result

    def __repr__(self) -> str:
        results = ", ".join(f"%{v.name}" for v in self.outputs)
        return f"{results} = {self.op.name}(...) at {self.origin!r}"


class Graph:
    """A traced model. Two graphs are equal when their texts are (payloads aside).

    `payload` maps the names of source tensors to arrays, or to anything `numpy.asarray` takes; it
    is what `load_weights` swaps, and it is no part of the graph's meaning.
    """

    def __init__(self, name: str = "graph", payload: Mapping[str, Any] | None = None) -> None:
        self.name = name
        self.inputs: list[Value] = []
        self.parameters: dict[str, Parameter] = {}
        self.nodes: list[Node] = []
        self.outputs: list[Value] = []
        self.payload: Mapping[str, Any] = payload if payload is not None else {}
        self._names: set[str] = set()

    # -- building ---------------------------------------------------------------------------

    def fresh_name(self, stem: str) -> str:
        """`stem`, or `stem_1`, `stem_2`, ... where it is taken. Reserves the name."""
        name, count = stem, 0
        while name in self._names:
            count += 1
            name = f"{stem}_{count}"
        self._names.add(name)
        return name

    def add_input(self, type: TensorType, name: str = "x") -> Value:
        value = Value(type, self.fresh_name(name))
        self.inputs.append(value)
        return value

    def add_parameter(self, name: str, recipe: Recipe) -> Parameter:
        """The parameter of this name. Taken by the same recipe: that one; by another: renamed."""
        stem, count = name, 0
        while (known := self.parameters.get(name)) is not None:
            if known.recipe == recipe:
                return known
            count += 1
            name = f"{stem}_{count}"
        parameter = self.parameters[name] = Parameter(name, recipe)
        return parameter

    def add_source(self, name: str, type: TensorType) -> Parameter:
        """A parameter that is one source tensor as it is."""
        return self.add_parameter(name, Source(name, type))

    def append(self, op: Op, inputs: Sequence[Value], **fields: Any) -> Node:
        """A new node at the end. `fields`: names, origin, fused_from, location."""
        return self._insert(len(self.nodes), op, inputs, **fields)

    def insert_before(self, anchor: Node, op: Op, inputs: Sequence[Value], **fields: Any) -> Node:
        """A new node just before `anchor`. `fields` as in `append`."""
        return self._insert(self.nodes.index(anchor), op, inputs, **fields)

    def _insert(
        self,
        position: int,
        op: Op,
        inputs: Sequence[Value],
        names: Sequence[str] | None = None,
        **fields: Any,
    ) -> Node:
        types = op.result_types(*(v.type for v in inputs))
        stems = names or [op.name] * len(types)
        return self._put(position, Node(op, inputs, **fields), types, stems)

    def _put(
        self, position: int, node: Node, types: Sequence[TensorType], stems: Sequence[str]
    ) -> Node:
        """Let a node with results of these types be part of the graph."""
        node.outputs = [
            Value(t, self.fresh_name(s), node) for t, s in zip(types, stems, strict=True)
        ]
        for value in node.inputs:
            value._users[node] = None
        self.nodes.insert(position, node)
        return node

    # -- rewriting --------------------------------------------------------------------------

    def set_inputs(self, node: Node, inputs: Sequence[Value]) -> None:
        """Give `node` other operands, keeping users right."""
        for value in node.inputs:
            value._users.pop(node, None)
        node.inputs = list(inputs)
        for value in inputs:
            value._users[node] = None

    def replace_uses(self, old: Value, new: Value) -> None:
        """Let everything that reads `old` (graph outputs too) read `new`."""
        for user in old.users:
            self.set_inputs(user, [new if v is old else v for v in user.inputs])
        self.outputs = [new if v is old else v for v in self.outputs]

    def replace(self, node: Node, results: Sequence[Value]) -> None:
        """Let the users of `node`'s results read `results`, and erase it."""
        for old, new in zip(node.outputs, results, strict=True):
            self.replace_uses(old, new)
        self.erase(node)

    def substitute(self, node: Node, op: Op, inputs: Sequence[Value], **fields: Any) -> Node:
        """A new node in the place of `node`, its results under the old names."""
        names = [v.name for v in node.outputs]
        self._names.difference_update(names)
        new = self._insert(self.nodes.index(node), op, inputs, names=names, **fields)
        self.replace(node, new.outputs)
        self._names.update(names)
        return new

    def rename(self, value: Value, name: str) -> None:
        """Give the result of a node a name; another node's of that name takes one like it, and so
        does `value` where an input has it."""
        self._names.discard(value.name)
        results = (v for node in self.nodes for v in node.outputs if v is not value)
        other = next((v for v in results if v.name == name), None)
        if other is None:
            value.name = self.fresh_name(name)
        else:
            other.name, value.name = self.fresh_name(name), name

    def erase(self, node: Node) -> None:
        """Remove a node that nobody reads."""
        assert not any(self.is_used(v) for v in node.outputs), f"{node} is still read"
        self.set_inputs(node, [])
        self.nodes.remove(node)
        self._names.difference_update(v.name for v in node.outputs)

    def drop_parameter(self, parameter: Parameter) -> None:
        assert not self.is_used(parameter), f"{parameter} is still read"
        del self.parameters[parameter.name]

    def drop_unread(self) -> None:
        """Remove the nodes and parameters that no output needs."""
        for node in reversed(self.nodes):
            if not any(map(self.is_used, node.outputs)):
                self.erase(node)
        for parameter in list(self.parameters.values()):
            if not self.is_used(parameter):
                self.drop_parameter(parameter)

    # -- looking ----------------------------------------------------------------------------

    def is_used(self, value: Value) -> bool:
        return bool(value._users) or any(v is value for v in self.outputs)

    def has_one_user(self, value: Value) -> bool:
        """Whether exactly one node reads the value, and the graph does not return it."""
        return len(value._users) == 1 and not any(v is value for v in self.outputs)

    def find(self, op_class: type[Op]) -> list[Node]:
        """The nodes of one op, in order."""
        return [n for n in self.nodes if isinstance(n.op, op_class)]

    def input_dtypes(self) -> list[str]:
        """Of the inputs, in order."""
        return [value.type.dtype for value in self.inputs]

    def input_types(self) -> list[TensorType]:
        """Of the inputs, in order."""
        return [value.type for value in self.inputs]

    def input_shapes(self, batch: int) -> Shapes:
        """Of the inputs, in order, for one size of the batch."""
        return tuple(value.type.concrete(batch) for value in self.inputs)

    def sources(self) -> dict[str, Source]:
        """Every source tensor that a parameter reads, by name."""
        return {s.name: s for p in self.parameters.values() for s in sources(p.recipe)}

    def parameter_count(self) -> int:
        """How many numbers the parameters hold."""
        total = 0
        for parameter in self.parameters.values():
            size = 1
            for d in parameter.type.shape:
                assert isinstance(d, int), "parameters have no batch"
                size *= d
            total += size
        return total

    def values(self) -> Iterator[Value]:
        """Inputs, parameters, and every node's results, in order."""
        yield from self.inputs
        yield from self.parameters.values()
        for node in self.nodes:
            yield from node.outputs

    def adopt(self, node: Node, mapped: Mapping[Value, Value]) -> Node:
        """A copy of another graph's node at the end, which reads what its operands are mapped
        to."""
        inputs = [mapped[v] for v in node.inputs]
        new = Node(node.op, inputs, node.origin, node.fused_from, node.location)
        types = [v.type for v in node.outputs]  # known: nothing to infer
        return self._put(len(self.nodes), new, types, [v.name for v in node.outputs])

    def clone(self) -> Graph:
        """A copy that shares ops, recipes and payload, and nothing that a pass may change."""
        copy = Graph(self.name, self.payload)
        mapped: dict[Value, Value] = {}
        for value in self.inputs:
            mapped[value] = copy.add_input(value.type, value.name)
        for name, parameter in self.parameters.items():
            mapped[parameter] = copy.add_parameter(name, parameter.recipe)
        for node in self.nodes:
            mapped.update(zip(node.outputs, copy.adopt(node, mapped).outputs, strict=True))
        copy.outputs = [mapped[v] for v in self.outputs]
        return copy

    def set_outputs(self, outputs: Iterable[Value]) -> None:
        self.outputs = list(outputs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    # -- showing itself -----------------------------------------------------------------------

    forms: ClassVar[dict[str, tuple[str, str]]] = {
        "text": ("lucid.ir.printer", "print_graph"),
        "svg": ("lucid.notebook", "picture"),
        "html": ("lucid.notebook", "page"),
    }
    """How a graph is shown, by form: modules, which are imported when they are asked for it, and
    their functions. The last two are for notebooks."""

    def _shown(self, form: str) -> str:
        module, function = self.forms[form]
        return str(getattr(import_module(module), function)(self))

    def __str__(self) -> str:
        return self._shown("text")

    def _repr_svg_(self) -> str:
        return self._shown("svg")

    def _repr_html_(self) -> str:
        return self._shown("html")

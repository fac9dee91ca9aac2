"""`import_torch`: a PyTorch module as a graph of Lucid's ops, with a symbolic batch.

The module is exported and walked once, node by node. Each result is a value of the graph, a size,
or a tensor that depends on neither input nor weights, which is computed here and now. What cannot
be expressed is collected, so that one error tells all of it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Sequence
from types import BuiltinFunctionType
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node
from torch.fx.node import map_arg

from lucid.errors import ShapeError, TraceError, UnsupportedError
from lucid.frontend.torch import (
    convolutions,
    elementwise,
    indexing,
    layers,
    ordering,
    products,
    recurrent,
    reductions,
    sampling,
    shapes,
)
from lucid.frontend.torch.aliasing import is_mutation, mutated
from lucid.frontend.torch.places import place_of
from lucid.frontend.torch.program import IGNORED, export_program, module_of
from lucid.frontend.torch.refused import Refused
from lucid.frontend.torch.tables import Known, Tables, depends_on_shape_only, dimension, shape_of
from lucid.frontend.torch.weights import floating_tensors, payload_of
from lucid.frontend.torch.writer import Notes, Writer, emitter_name, emitter_of
from lucid.frontend.trace import checked_shape, input_name
from lucid.ir.graph import Graph, Parameter, Value
from lucid.ir.types import BATCH, f32

FAMILIES = (
    convolutions,
    elementwise,
    indexing,
    layers,
    ordering,
    products,
    recurrent,
    reductions,
    sampling,
    shapes,
)
"""The modules whose functions are registered as emitters."""


def import_torch(module: torch.nn.Module | ExportedProgram, input_shape: Sequence[int]) -> Graph:
    """The graph of a module's forward for inputs of `input_shape`, the first dimension any batch.

    The module is taken in evaluation mode and left as it is; what torch.export has made of one is
    taken as it is. The payload refers to its tensors, by their names in the state dict, without a
    copy. Raises InputError for what is no module, TraceError where torch cannot export it or its
    results depend on what an earlier call wrote, UnsupportedError with everything in it that has no
    counterpart here.
    """
    module = module_of(module)
    program = export_program(module, checked_shape(input_shape))
    return Importer(module, program).graph


class Broken:
    """What stands for a result that could not be had, and has no shape either."""


class Importer:
    """Walks an exported program and writes `graph`."""

    def __init__(self, module: torch.nn.Module, program: ExportedProgram) -> None:
        name = type(module).__name__
        self.tensors = floating_tensors(module)
        self.payload = payload_of(self.tensors, name)
        self.graph = Graph(name, self.payload)
        self.results: dict[Node, Any] = {}
        self.problems: dict[tuple[str, str], list[str]] = {}
        given: dict[Node, torch.Tensor] = {}
        self.notes = Notes(self.graph, Tables(given), self.payload)
        self._bind_inputs(module, program, given)
        for node in program.graph.nodes:
            if node.op == "get_attr":
                self._bind_attribute(node, program, given)
            elif node.op == "call_function":
                self.results[node] = result = self._call(node)
                if is_mutation(node):
                    self.results[mutated(node)] = result
        self._report()
        self._set_outputs(program)
        _drop_unread(self.graph)

    # -- inputs and outputs -----------------------------------------------------------------

    def _bind_inputs(
        self, module: torch.nn.Module, program: ExportedProgram, given: dict[Node, torch.Tensor]
    ) -> None:
        """Values for what the program reads: the input, weights, and constant tensors."""
        nodes = {n.name: n for n in program.graph.nodes if n.op == "placeholder"}
        fixed = {**dict(module.named_buffers(remove_duplicate=False)), **program.constants}
        for spec in program.graph_signature.input_specs:
            node = nodes[spec.arg.name]
            if spec.kind is InputKind.USER_INPUT:
                sizes = list(node.meta["val"].shape[1:])
                name = input_name(module.forward)
                self.results[node] = self.graph.add_input(f32(BATCH, *sizes), name)
            elif spec.target in self.tensors:
                shape = tuple(self.tensors[spec.target].shape)
                self.results[node] = self.graph.add_source(spec.target, f32(*shape))
            elif isinstance(fixed.get(spec.target), torch.Tensor):
                given[node] = fixed[spec.target]
                self.results[node] = Known(node)
            else:
                self.results[node] = Broken()
                self._note(node, f"an input of the kind {spec.kind.name}", "")

    def _bind_attribute(
        self, node: Node, program: ExportedProgram, given: dict[Node, torch.Tensor]
    ) -> None:
        """A tensor that the program keeps, or a part of it that is a program itself."""
        found = program.graph_module
        for name in str(node.target).split("."):
            found = getattr(found, name)
        if isinstance(found, torch.Tensor):
            given[node] = found
            self.results[node] = Known(node)
        else:
            self.results[node] = Broken()

    def _set_outputs(self, program: ExportedProgram) -> None:
        """What the forward returns, in order, under the names that it gives them."""
        nodes = {n.name: n for n in program.graph.nodes}
        specs = program.graph_signature.output_specs
        returned = [s.arg for s in specs if s.kind is OutputKind.USER_OUTPUT]
        names = _output_names(program, len(returned))
        outputs = []
        for argument, name in zip(returned, names, strict=True):
            node = nodes.get(getattr(argument, "name", ""))
            value = None if node is None else self._now(node)
            if node is not None and _is_computed(value):
                value = self._writer(node).cast(value)
                if name and value.producer is not None and value not in outputs:
                    self.graph.rename(value, name)
                outputs.append(value)
            elif getattr(argument, "value", argument) is not None or node is not None:
                raise TraceError(
                    f"the forward of {self.graph.name} returns something that is not computed from "
                    "its input: it must return tensors computed from it"
                )
        if not outputs:
            raise TraceError(f"the forward of {self.graph.name} returns no tensor")
        self.graph.set_outputs(outputs)

    # -- nodes ------------------------------------------------------------------------------

    def _call(self, node: Node) -> Any:
        """The result of one node; where it cannot be had, one that takes its place."""
        try:
            return self._result(node)
        except (Refused, ShapeError) as problem:
            self._note(node, _target_name(node), str(problem))
            return self._stand_in(node.meta.get("val"))

    def _stand_in(self, kind: Any) -> Any:
        """A value of a result's shape, so that what reads it is looked at too."""
        if isinstance(kind, tuple | list):
            return [self._stand_in(k) for k in kind]
        try:
            return self.graph.add_input(f32(*shape_of(kind)), "unknown")
        except (Refused, AttributeError):  # no shape of the graph's, or no tensor
            return Broken()

    def _result(self, node: Node) -> Any:
        value, target = node.meta.get("val"), node.target
        if _target_name(node) in IGNORED and not isinstance(value, int | torch.SymInt):
            return None
        if isinstance(value, int | torch.SymInt):
            return _size(value)
        operands = [self._now(n) for n in node.all_input_nodes]
        emitter = emitter_of(_target_name(node))
        if any(isinstance(o, Broken) for o in operands):
            if emitter is None and not isinstance(target, BuiltinFunctionType):
                raise Refused("")
            return Broken()
        if any(o is None for o in operands):
            raise Refused("it reads a result that is only there for training")
        known = all(not _reads_graph(o) for o in operands) or depends_on_shape_only(node)
        if known and isinstance(value, torch.Tensor | tuple | list):
            return self._known(node)
        given: Any = map_arg((node.args, node.kwargs), self._now)
        args, kwargs = given
        if target is operator.getitem:
            return args[0][args[1]]
        if emitter is None:
            raise Refused("")
        return self._emitted(node, emitter(self._writer(node), *_arguments(target, args, kwargs)))

    def _now(self, node: Node) -> Any:
        """The result of a node as it is by now, after changes in place."""
        return self.results[mutated(node)]

    def _known(self, node: Node) -> Known:
        tags = getattr(node.target, "tags", ())
        if torch.Tag.nondeterministic_seeded in tags:
            raise Refused("it draws random numbers")
        return Known(node)

    def _writer(self, node: Node) -> Writer:
        first = _first_tensor(node)
        shape, kind = shape_of(first), str(first.dtype).removeprefix("torch.")
        return Writer(self.notes, shape, kind, node.name, *place_of(node))

    def _emitted(self, node: Node, result: Any) -> Any:
        """What an emitter gave, in the shape that torch has found; None for what it leaves out."""
        kinds = node.meta["val"]
        if not isinstance(kinds, tuple | list):
            return self._fitted(node, result, kinds)
        return [
            r if r is None else self._fitted(node, r, k) for r, k in zip(result, kinds, strict=True)
        ]

    def _fitted(self, node: Node, value: Value, kind: torch.Tensor) -> Value:
        value = self._writer(node).expand(value, shape_of(kind))
        if kind.dtype is torch.bool:
            self.notes.truths.add(value)
        return value

    # -- problems ---------------------------------------------------------------------------

    def _note(self, node: Node, name: str, reason: str) -> None:
        origin, location = place_of(node)
        place = (f"in {origin}" if origin else "in the module itself") + (
            f" at {location}" if location else ""
        )
        self.problems.setdefault((name, reason), []).append(place)

    def _report(self) -> None:
        """Raises UnsupportedError where anything could not be expressed."""
        if not self.problems:
            return
        lines = []
        for (name, reason), places in self.problems.items():
            times = f", {len(places)} times, first" if len(places) > 1 else ""
            lines.append(f"{name}{times} {places[0]}{': ' + reason if reason else ''}")
        count = len(lines)
        raise UnsupportedError(
            f"{self.graph.name} has {count} kind{'s' if count > 1 else ''} of operation that Lucid "
            "has no ops for:\n  " + "\n  ".join(lines)
        )


def _reads_graph(operand: Any) -> bool:
    """Whether an operand is, or holds, a value of the graph."""
    if isinstance(operand, tuple | list):
        return any(map(_reads_graph, operand))
    return isinstance(operand, Value)


def _size(value: int | torch.SymInt) -> Any:
    """A size as a dimension; where it is none, the tensor that it is of has been told of."""
    try:
        return dimension(value)
    except Refused:
        return Broken()


def _is_computed(value: Any) -> bool:
    """Whether a forward may return a value: a node's, or an input."""
    return isinstance(value, Value) and not isinstance(value, Parameter)


def _target_name(node: Node) -> str:
    if isinstance(node.target, torch._ops.OpOverload):
        return emitter_name(node.target)
    return getattr(node.target, "__name__", str(node.target))


def _first_tensor(node: Node) -> torch.Tensor:
    value = node.meta["val"]
    first: torch.Tensor = value if isinstance(value, torch.Tensor) else value[0]
    return first


def _arguments(target: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
    """The operands in the order of the schema, defaults filled in; without dtypes and the like."""
    filled = []
    for i, argument in enumerate(target._schema.arguments):
        if i < len(args):
            filled.append(args[i])
        else:
            filled.append(kwargs.get(argument.name, argument.default_value))
    return filled


def _output_names(program: ExportedProgram, count: int) -> list[str]:
    """The keys of what the forward returns where it returns mappings or objects; else empty."""
    from torch.utils._pytree import tree_flatten_with_path, tree_unflatten

    spec = program.call_spec.out_spec
    paths, _ = tree_flatten_with_path(tree_unflatten([0] * count, spec))
    keys = [[str(getattr(k, "key", getattr(k, "name", ""))) for k in path] for path, _ in paths]
    names = [re.sub(r"\W", "_", "_".join(filter(None, path)), flags=re.ASCII) for path in keys]
    return [n if re.match(r"[A-Za-z_]", n) else "" for n in names]


def _drop_unread(graph: Graph) -> None:
    """Erase the nodes and parameters that no output needs."""
    for node in reversed(graph.nodes):
        if not any(map(graph.is_used, node.outputs)):
            graph.erase(node)
    unread: Iterable[Any] = [p for p in graph.parameters.values() if not graph.is_used(p)]
    for parameter in unread:
        graph.drop_parameter(parameter)

"""`import_torch`: a PyTorch module as a graph of Lucid's ops.

The module is exported and walked once, node by node. Each result is a value of the graph, a size,
or a tensor that depends on neither input nor weights, which is computed here and now. The batch is
symbolic where the program serves every batch and the graph can say so; else all sizes are fixed.
What cannot be expressed is collected, so that one error tells all of it. What depends on a size
that only the elements of tensors tell is left for later (`lucid.frontend.torch.later`).
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping, Sequence
from types import BuiltinFunctionType
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node
from torch.fx.node import map_arg
from torch.utils import _pytree

from lucid.errors import ShapeError, TraceError, UnsupportedError
from lucid.frontend.torch import (
    convolutions,
    elementwise,
    indexing,
    layers,
    ordering,
    products,
    quantisation,
    recurrent,
    reductions,
    sampling,
    shapes,
)
from lucid.frontend.torch.aliasing import is_mutation, mutated
from lucid.frontend.torch.calling import DTYPES, Calling, Input, place_name
from lucid.frontend.torch.exported import Exported, programs_of
from lucid.frontend.torch.places import place_of
from lucid.frontend.torch.program import IGNORED, module_of
from lucid.frontend.torch.refused import DependsOnElements, Refused
from lucid.frontend.torch.sizes import Sizes
from lucid.frontend.torch.state import refuse_kept_state
from lucid.frontend.torch.tables import Known, Tables, depends_on_shape_only
from lucid.frontend.torch.unbatched import written
from lucid.frontend.torch.weights import floating_tensors, payload_of
from lucid.frontend.torch.writer import KEEPING, Notes, Writer, emitter_name, emitter_of
from lucid.frontend.trace import checked_shape
from lucid.ir import ops
from lucid.ir.graph import Graph, Parameter, Value
from lucid.ir.structure import Structure
from lucid.ir.types import INTEGERS, Shapes, TensorType, f32

FAMILIES = (
    convolutions,
    elementwise,
    indexing,
    layers,
    ordering,
    products,
    quantisation,
    recurrent,
    reductions,
    sampling,
    shapes,
)
"""The modules whose functions are registered as emitters."""
NUMBERS = int | float | bool | torch.SymInt | torch.SymFloat | torch.SymBool
"""What torch says of a node whose result is a number."""


def import_torch(module: torch.nn.Module | ExportedProgram, input_shape: Sequence[Any]) -> Graph:
    """The graph of a module's forward for one input of the shape `input_shape`, or for several of a
    sequence of shapes, by position; the batch is any where it can be.

    The module is taken in evaluation mode and left as it is; what torch.export has made of one is
    taken as it is. The payload refers to its tensors, by their names in the state dict, without a
    copy. Raises InputError for what is no module or takes other inputs, TraceError where torch
    cannot export it or its results depend on what an earlier call wrote, UnsupportedError with
    everything in it that has no counterpart here.
    """
    module = module_of(module)
    several = isinstance(input_shape, tuple | list) and any(
        isinstance(s, tuple | list) for s in input_shape
    )
    sizes = tuple(map(checked_shape, input_shape if several else [input_shape]))
    calling = Calling.of_shapes(module, len(sizes))
    made = imported(module, calling, sizes)
    if made.later:
        raise UnsupportedError(
            f"{made.graph.name} has a size that depends on the elements of a tensor, by "
            f"{made.later[0].target}: no one graph computes it (lucid.compile makes several)"
        )
    return made.graph


def imported(module: torch.nn.Module, calling: Calling, shapes: Shapes) -> Importer:
    """The import of a module that is called in this way, for inputs of exactly these shapes. Raises
    as `import_torch`."""
    programs = programs_of(module, calling)
    exported = programs.found(module, calling, shapes)
    refuse_kept_state(type(module).__name__, exported.program, exported.assigned)
    sizes = exported.any_batch(shapes)
    try:
        if sizes is not None:
            try:
                return Importer(module, calling, exported, sizes)
            except NoGraphError as problem:
                if problem.hopeless:
                    raise
        exact = programs.exactly(module, calling, shapes)
        fixed = exact.at(shapes)
        assert fixed is not None, f"{type(module).__name__} was exported for {shapes}"
        return Importer(module, calling, exact, fixed)
    except NoGraphError as problem:
        raise UnsupportedError(str(problem)) from None


class NoGraphError(UnsupportedError):
    """A program cannot be expressed as a graph. `hopeless`: for fixed sizes neither."""

    hopeless = False


def _is_weight(value: Value) -> bool:
    return isinstance(value, Parameter)


class Broken:
    """What stands for a result that could not be had, and has no shape either."""


class Later:
    """What stands for a result that depends on a size which only elements tell."""


class Given:
    """What stands for a tensor of an earlier stage, until something reads it."""


class Importer:
    """Walks an exported program and writes `graph`.

    `structure`: how its outputs nest. `later`: the nodes that its results are needed for, in order;
    `ends` the nodes whose results are the graph's outputs: all that the forward returns, which are
    `returned`, unless there are later nodes. `before`: the import that this one continues, `have`:
    the results that are there by now, of which those of the nodes `taken` are the graph's inputs.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        calling: Calling,
        exported: Exported,
        sizes: Sizes,
        before: Importer | None = None,
        have: Mapping[Node, Any] | None = None,
    ) -> None:
        self.module, self.calling, self.exported, self.sizes = module, calling, exported, sizes
        self.program = exported.program
        name = type(module).__name__
        self.tensors: dict[str, torch.Tensor]
        self.payload: dict[str, Any]
        if before is None:
            self.tensors = floating_tensors(module)
            self.payload = payload_of(self.tensors, name)
        else:
            self.tensors, self.payload = before.tensors, before.payload
        self.graph = Graph(name, self.payload)
        self.results: dict[Node, Any] = {}
        self.problems: dict[tuple[str, str], list[str]] = {}
        given: dict[Node, torch.Tensor] = {}
        self.notes = Notes(self.graph, Tables(given, sizes), self.payload)
        self._have = dict(have or {})
        self._before = before
        self.taken: list[Node] = []
        self._bind_inputs(given)
        for node in self.program.graph.nodes:
            if node.op == "get_attr":
                self._bind_attribute(node, given)
            elif node.op == "call_function":
                self.results[node] = result = self._call(node)
                if is_mutation(node):
                    self.results[mutated(node)] = result
        self._report()
        self.returned, tree = self._returned()
        self.structure = Structure.of(tree, lambda leaf: isinstance(leaf, Returned))
        self.names = _output_names(self.program)
        self.later = self._later()
        self._set_outputs()
        self.graph.drop_unread()

    # -- inputs and outputs -----------------------------------------------------------------

    def _bind_inputs(self, given: dict[Node, torch.Tensor]) -> None:
        """Values for what the program reads: inputs, weights, and constant tensors."""
        nodes = {n.name: n for n in self.program.graph.nodes if n.op == "placeholder"}
        buffers = dict(self.module.named_buffers(remove_duplicate=False))
        fixed = {**self.program.constants, **buffers}
        leaves = iter(self.calling.leaves)
        for spec in self.program.graph_signature.input_specs:
            node = nodes[spec.arg.name]
            if spec.kind is InputKind.USER_INPUT:
                self.results[node] = self._input(node, next(leaves))
            elif spec.target in self.tensors:
                shape = tuple(self.tensors[spec.target].shape)
                self.results[node] = self.graph.add_source(spec.target, f32(*shape))
            elif isinstance(fixed.get(spec.target), torch.Tensor):
                given[node] = fixed[spec.target]
                self.results[node] = Known(node)
            else:
                self.results[node] = Broken()
                self._note(node, f"an input of the kind {spec.kind.name}", "")

    def _input(self, node: Node, leaf: Any) -> Any:
        """The graph's input for one of the forward's, or the constant that it is."""
        if not isinstance(leaf, Input):
            return leaf
        if self._before is not None:
            return Given() if node in self._have else Later()
        shape = self.sizes.shape_of(node.meta["val"])
        return self._computed_in(self.graph.add_input(TensorType(leaf.dtype, shape), leaf.name))

    def _taken(self, node: Node) -> Value:
        """An input of the graph for a tensor that an earlier stage computed."""
        tensor = self._have[node]
        self.taken.append(node)
        kind = TensorType(self.declared(tensor.dtype), tuple(tensor.shape))
        return self._computed_in(self.graph.add_input(kind, node.name))

    def _computed_in(self, value: Value) -> Value:
        """An input as what graphs compute with: floats and truth values are f32."""
        if value.type.dtype == "f32" or value.type.dtype in INTEGERS:
            return value
        is_truth = value.type.dtype == "bool"
        value = self.graph.append(ops.Cast("f32"), [value]).output
        if is_truth:
            self.notes.truths.add(value)
        return value

    def declared(self, kind: torch.dtype) -> str:
        """The dtype of an output that torch has in `kind`: f32 for what was only taken to be that,
        for lack of another word about the inputs than the weights."""
        if kind in self.calling.assumed:
            return "f32"
        if kind not in DTYPES:
            raise TraceError(
                f"the forward of {self.graph.name} returns a tensor of {kind}, which Lucid has no "
                "counterpart of"
            )
        return DTYPES[kind]

    def _bind_attribute(self, node: Node, given: dict[Node, torch.Tensor]) -> None:
        """A tensor that the program keeps, or a part of it that is a program itself."""
        found: Any = self.program.graph_module
        for name in str(node.target).split("."):
            found = getattr(found, name)
        if isinstance(found, torch.Tensor):
            given[node] = found
            self.results[node] = Known(node)
        else:
            self.results[node] = Broken()

    def _returned(self) -> tuple[list[Node], Any]:
        """The nodes of the tensors that the forward returns, in order, and how they nest, with
        `Returned` for each."""
        nodes = {n.name: n for n in self.program.graph.nodes}
        specs = self.program.graph_signature.output_specs
        returned: list[Node] = []
        leaves: list[Any] = []
        for spec in (s for s in specs if s.kind is OutputKind.USER_OUTPUT):
            node = nodes.get(getattr(spec.arg, "name", ""))
            value = None if node is None else node.meta.get("val")
            if node is not None and isinstance(value, torch.Tensor):
                leaves.append(Returned(len(returned)))
                returned.append(node)
            elif node is not None:
                leaves.append(self._returned_number(value))
            else:
                leaves.append(getattr(spec.arg, "value", None))
        if not returned:
            raise TraceError(f"the forward of {self.graph.name} returns no tensor")
        nested = _pytree.tree_unflatten(leaves, self.program.call_spec.out_spec)
        return returned, _plain(nested)

    def _returned_number(self, value: Any) -> Any:
        """A size that the forward returns. Raises NoGraphError where it depends on the batch."""
        try:
            number = self.sizes.number(value)
        except Refused:
            number = None
        if isinstance(number, int | float):
            return number
        raise NoGraphError(
            f"the forward of {self.graph.name} returns the number {value}, which depends on its "
            "inputs: it must return tensors"
        )

    def _set_outputs(self) -> None:
        """What the forward returns, in order, under the names that it gives them; before later
        nodes, what they read."""
        if self.later:
            self.ends = self._fetched()
        else:
            self.ends = [n for n in self.returned if n not in self._have]
        outputs: list[Value] = []
        for node in self.ends:
            value = self._output(node)
            name = "" if self.later else self.names[self.returned.index(node)]
            if name and value.producer is not None and value not in outputs:
                self.graph.rename(value, name)
            outputs.append(value)
        self.graph.set_outputs(outputs)

    def _output(self, node: Node) -> Value:
        """A node's result in the dtype that torch says."""
        writer, result = self._writer(node), self._now(node)
        if result is None:
            self._note(node, _target_name(node), "returns a result that is only there for training")
            self._report()
        value = writer.value(result)
        dtype = self.declared(node.meta["val"].dtype)
        return value if value.type.dtype == dtype else writer.emit(ops.Cast(dtype), value)

    # -- what is left for later -------------------------------------------------------------

    def _later(self) -> list[Node]:
        """The nodes left for later that the forward's results depend on, in order. Raises
        NoGraphError where the batch is symbolic: with it, sizes have no numbers."""
        needed: set[Node] = set()
        waiting = list(self.returned)
        while waiting:
            node = waiting.pop()
            if node not in needed and isinstance(self.results[node], Later):
                needed.add(node)
                waiting += node.all_input_nodes
        later = [node for node in self.program.graph.nodes if node in needed]
        if later and self.sizes.batch:
            raise NoGraphError(f"{self.graph.name} has sizes that depend on elements")
        return later

    def _fetched(self) -> list[Node]:
        """The nodes whose results later ones read, or are returned."""
        read = dict.fromkeys(n for node in self.later for n in node.all_input_nodes)
        read |= dict.fromkeys(self.returned)
        results = {n: self.results[n] for n in read if n not in self._have}
        return [n for n, r in results.items() if isinstance(r, Value) and not _is_weight(r)]

    # -- nodes ------------------------------------------------------------------------------

    def _call(self, node: Node) -> Any:
        """The result of one node; where it cannot be had, one that takes its place."""
        if node in self._have and not isinstance(node.meta["val"], NUMBERS):
            return Given()
        if self._before is not None and isinstance(self._before.results[node], Value):
            return Later()  # that nobody reads any more
        try:
            return self._result(node)
        except DependsOnElements:
            return Later()
        except (Refused, ShapeError) as problem:
            self._note(node, _target_name(node), str(problem))
            return self._stand_in(node.meta.get("val"))

    def _stand_in(self, kind: Any) -> Any:
        """A value of a result's shape, so that what reads it is looked at too."""
        if isinstance(kind, tuple | list):
            return [self._stand_in(k) for k in kind]
        try:
            return self.graph.add_input(f32(*self.sizes.shape_of(kind)), "unknown")
        except (Refused, AttributeError):  # no shape of the graph's, or no tensor
            return Broken()

    def _result(self, node: Node) -> Any:
        value, target = node.meta.get("val"), node.target
        if _target_name(node) in IGNORED and not isinstance(value, NUMBERS):
            return None
        if isinstance(value, NUMBERS):
            return self._number(value)
        read = [self.results[mutated(n)] for n in node.all_input_nodes]
        if self.sizes.unknown(value) or any(isinstance(r, Later) for r in read):
            return Later()
        operands = [self._now(n) for n in node.all_input_nodes]
        emitter = emitter_of(_target_name(node))
        if any(isinstance(o, Broken) for o in operands):
            if emitter is None and not isinstance(target, BuiltinFunctionType):
                raise Refused("")
            return Broken()
        if any(o is None for o in operands):
            raise Refused("it reads a result that is only there for training")
        known = all(not _reads_graph(o) for o in operands) or depends_on_shape_only(node)
        keeps = _target_name(node) in KEEPING
        if known and isinstance(value, torch.Tensor | tuple | list) and not keeps:
            return self._known(node)
        given: Any = map_arg((node.args, node.kwargs), self._now)
        args, kwargs = given
        if target is operator.getitem:
            return args[0][args[1]]
        if emitter is None:
            raise Refused("")
        if isinstance(value, torch.Tensor) and value.is_complex():
            raise Refused("its result is of complex numbers")
        arguments = _arguments(target, args, kwargs)
        name = _target_name(node)
        return self._emitted(node, written(name, emitter, self._writer(node), arguments))

    def _number(self, value: Any) -> Any:
        """A number; where it is a size that is no dimension, the tensor that it is of has been told
        of."""
        try:
            return self.sizes.number(value)
        except DependsOnElements:
            raise
        except Refused:
            return Broken()

    def _now(self, node: Node) -> Any:
        """The result of a node as it is by now, after changes in place."""
        origin = mutated(node)
        if isinstance(self.results[origin], Given):
            self.results[origin] = self._taken(origin)
        return self.results[origin]

    def _known(self, node: Node) -> Known:
        tags = getattr(node.target, "tags", ())
        if torch.Tag.nondeterministic_seeded in tags:
            raise Refused("it draws random numbers")
        return Known(node)

    def _writer(self, node: Node) -> Writer:
        first = _first_tensor(node)
        shape, kind = self.sizes.shape_of(first), str(first.dtype).removeprefix("torch.")
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
        writer = self._writer(node)
        value = writer.as_kind(writer.expand(value, self.sizes.shape_of(kind)), kind.dtype)
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
        problem = NoGraphError(
            f"{self.graph.name} has {count} kind{'s' if count > 1 else ''} of operation that Lucid "
            "has no ops for:\n  " + "\n  ".join(lines)
        )
        problem.hopeless = any(not reason for _, reason in self.problems)
        raise problem


def _reads_graph(operand: Any) -> bool:
    """Whether an operand is, or holds, a value of the graph."""
    if isinstance(operand, tuple | list):
        return any(map(_reads_graph, operand))
    return isinstance(operand, Value)


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


@dataclasses.dataclass(frozen=True)
class Returned:
    """Stands for a tensor of what a forward returns, the one of this number."""

    number: int


def _output_names(program: ExportedProgram) -> list[str]:
    """The keys of the tensors that the forward returns where it returns mappings or objects; else
    empty."""
    nodes = {n.name: n for n in program.graph.nodes}
    specs = program.graph_signature.output_specs
    values = [s.arg for s in specs if s.kind is OutputKind.USER_OUTPUT]
    nested = _pytree.tree_unflatten(values, program.call_spec.out_spec)
    paths, _ = _pytree.tree_flatten_with_path(nested)
    names = []
    for path, argument in paths:
        node = nodes.get(getattr(argument, "name", ""))
        if node is not None and isinstance(node.meta.get("val"), torch.Tensor):
            names.append(place_name([k for k in path if not hasattr(k, "idx")], ""))
    return names


def _plain(nested: Any) -> Any:
    """Nested results with dicts in place of objects."""
    if isinstance(nested, Returned):
        return nested
    if isinstance(nested, Mapping):
        return {key: _plain(part) for key, part in nested.items()}
    if isinstance(nested, tuple) and hasattr(nested, "_fields"):
        return type(nested)(*map(_plain, nested))
    if isinstance(nested, tuple | list):
        return type(nested)(map(_plain, nested))
    if dataclasses.is_dataclass(nested) and not isinstance(nested, type):
        fields = ((f.name, getattr(nested, f.name)) for f in dataclasses.fields(nested))
        return {name: _plain(part) for name, part in fields}
    return nested

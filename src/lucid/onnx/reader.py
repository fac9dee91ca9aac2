"""Operators of ONNX as ops of a graph, one by one, as far as they can be read.

    stage = read_stage(program, {"x": Source(f32(BATCH, 3, 224, 224), 1)}, external)

How each operator is read stands in `operators`. Shapes follow from the inputs by the ops' own
rules: what a file says of the types between is not read. What exporters compute of shapes is
computed here (`known`), and leaves no nodes behind. What cannot be read yet is deferred: see
`stages`.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lucid.errors import LucidError, ModelFileError, UnsupportedError
from lucid.ir.graph import Graph, Parameter, Value
from lucid.ir.ops import OPS, Array, Cast, Constant, Expand, Op
from lucid.ir.ops.constant import nested
from lucid.ir.types import DTYPES, TensorType
from lucid.onnx.call import Call, DemandError
from lucid.onnx.elements import result_types
from lucid.onnx.expand import strangers, written_out
from lucid.onnx.host import rational
from lucid.onnx.host import reference as host
from lucid.onnx.known import Foreign, Held, Items, Known, Later, Nothing, Opaque, Operand, known
from lucid.onnx.operator import Expansion, Operator
from lucid.onnx.stages import Deferred, Given, Output, Program, Stage
from lucid.onnx.table import READERS, Read
from lucid.onnx.tensors import (
    External,
    StoredTensor,
    foreign_elements,
    graph_dtype,
    is_numeric,
    outer_dtype,
)

if TYPE_CHECKING:
    import onnx

MOST_OPERATORS = 200_000
"""Operators of a model, with functions and loops written out: a limit for files that call
themselves."""

LAST_BIT = "what is quantised when the model runs hangs on its last bit"


def read_stage(
    program: Program, given: Mapping[str, Given], external: External, image_by_image: bool = False
) -> Stage:
    """What can be read of a program when this is known of the names that it reads.

    `external` reads the files next to the model. `image_by_image`: the file fixes a batch of 1,
    `given` has the batch N, and what the file says of one image is to hold for each.

    Raises ModelFileError where the model breaks ONNX's rules, ShapeError where an operator does not
    accept its operands.
    """
    graph = Graph(program.name, {})
    reader = Reader(graph, program, external, image_by_image)
    for name, value in given.items():
        reader.give(name, value)
    reader.read()
    return reader.stage()


def reader_of(operator: str) -> Read | None:
    """The function that reads an operator: one of its own, or that of the op that names it."""
    if operator in READERS:
        return READERS[operator]
    named = (cls for cls in OPS.values() if cls.onnx == operator)
    return next(map(_namesake, named), None)


def _namesake(op_class: type[Op]) -> Read:
    return lambda call: call.apply(op_class(), *call.operands())


class Reader:
    """What the names of a program stand for, and the graph that grows as operators are read."""

    def __init__(
        self, graph: Graph, program: Program, external: External, image_by_image: bool
    ) -> None:
        self.graph = graph
        self.program = program
        self.external = external
        self.image_by_image = image_by_image
        self.payload: dict[str, Any] = {}
        graph.payload = self.payload
        self.weights: set[Value] = set()
        self.types = dict(program.types)
        self.deferred: list[Deferred] = []
        self._names: dict[Value, str] = {}  # of inputs
        self._given: dict[Value, Value] = {}  # inputs of other floats or of truth, by their casts
        self._held: dict[str, Held] = dict(program.constants)
        self._tensors = dict(program.tensors)
        self._wanted = program.wanted
        self._expansions = 0
        self._parameters: dict[str, Parameter] = {}  # of known numbers, by their names in the file

    # -- names ------------------------------------------------------------------------------

    def give(self, name: str, given: Given) -> None:
        """Let a name stand for an input of the graph, or for what is known of it."""
        self.types[name] = given.element
        self._held[name] = self._input(name, given.value, given.element)

    def _input(self, name: str, value: Any, element: int) -> Held:
        if isinstance(value, tuple):
            return Items(tuple(self._input(f"{name}.{i}", v, element) for i, v in enumerate(value)))
        if not isinstance(value, TensorType):
            return value  # type: ignore[no-any-return]  # a Held
        x = self.graph.add_input(value, name)
        self._names[x] = name
        dtype = "f32" if value.dtype in ("f16", "bf16", "f64", "bool") else value.dtype
        if dtype == value.dtype:
            return x
        computed = self.graph.append(Cast(dtype), [x]).output
        self._given[computed] = x
        return computed

    def define(self, name: str, held: Held) -> None:
        """Let a name of the file stand for an operand. Raises ModelFileError where it is taken."""
        if name in self._held or name in self._tensors:
            raise ModelFileError(f"two values of the model are named {name!r}")
        self._held[name] = held

    def _find(self, name: str, reader: str) -> Held:
        """What a name stands for. Tensors of the file are looked at when first used."""
        if name not in self._held:
            tensor = self._tensors.get(name)
            if tensor is None:
                raise ModelFileError(
                    f"{reader} reads {name!r}, which nothing in the model gives: an operator or an"
                    " initializer is missing"
                )
            self.types[name] = tensor.data_type
            self._held[name] = self.stored(tensor, name)
        return self._held[name]

    # -- operators --------------------------------------------------------------------------

    def read(self) -> None:
        """All operators of the program, and those that are written out in their place."""
        pending = deque(self.program.operators)
        count = 0
        while pending:
            operator, count = pending.popleft(), count + 1
            if count > MOST_OPERATORS:
                raise UnsupportedError(f"more than {MOST_OPERATORS} operators, written out")
            expansion = self._read_operator(operator)
            if expansion is not None:
                self._tensors.update(expansion.tensors)
                pending.extendleft(reversed(expansion.operators))

    def _read_operator(self, operator: Operator) -> Expansion | None:
        label = f"{operator.kind} {operator.where}"
        names = [name for name in operator.proto.output if name]
        for name in names:
            if name in self._held or name in self._tensors:
                raise ModelFileError(f"two values of the model are named {name!r}")
        held = {name: self._find(name, label) for name in operator.reads}
        self.types.update(
            zip(operator.proto.output, result_types(operator, self.types), strict=True)
        )
        if any(map(_waits, held.values())):
            self._defer(operator, "", waits=True)
            return None
        size = len(self.graph.nodes)
        try:
            results = self._results(operator, [held.get(n) for n in operator.proto.input])
            if isinstance(results, Expansion):
                return results
        except DemandError as demand:
            self._forget(size)
            name = operator.proto.input[demand.index]
            self._defer(operator, str(demand), demands=self._leaves(name))
            return None
        except UnsupportedError as problem:
            self._forget(size)
            self._defer(operator, str(problem))
            return None
        except LucidError as problem:
            raise type(problem)(f"{label}: {problem}") from None
        except (ArithmeticError, LookupError, TypeError, ValueError, MemoryError) as problem:
            raise ModelFileError(f"{label} is malformed: {problem}") from problem
        for name, result in zip(operator.proto.output, results, strict=False):
            if name:
                self.define(name, result)
        return None

    def _results(
        self, operator: Operator, operands: Sequence[Held | None]
    ) -> Sequence[Held] | Expansion:
        """What an operator gives. Raises UnsupportedError where it cannot be read."""
        read = reader_of(operator.kind)
        if operands and rational.wants_last_bit(
            operator, self.types.get(operator.proto.input[0], 0), self.program.operators
        ):
            raise UnsupportedError(LAST_BIT)
        call = Call(operator, self, operands)
        problem = ""
        if read is not None:
            try:
                with np.errstate(all="ignore"):
                    given = read(call)
                if isinstance(given, Expansion):
                    return given
                unread = call.unread()
                if unread:
                    raise UnsupportedError(f"with {', '.join(unread)}")
                results = given if isinstance(given, Sequence) else [given]
                absent = [i for i, n in enumerate(operator.proto.output) if n in self._wanted]
                if absent and absent[-1] >= len(results):
                    raise UnsupportedError(f"its result {absent[-1]} is not computed")
                return results
            except DemandError:
                raise
            except UnsupportedError as error:
                problem = str(error)
        if any(isinstance(operand, Foreign | Opaque) for operand in operands):
            raise UnsupportedError(problem)
        body = written_out(operator, self.types, self.fresh_prefix(operator))
        if body is None or strangers(operator):
            raise UnsupportedError(problem)
        return body

    def fresh_prefix(self, operator: Operator) -> str:
        """What names are put in front of those of a function or a subgraph that is written out."""
        self._expansions += 1
        stem = operator.proto.name or next(iter(operator.proto.output), "")
        return f"{stem}.{self.program.depth}.{self._expansions}/"

    def _defer(
        self, operator: Operator, reason: str, waits: bool = False, demands: Sequence[str] = ()
    ) -> None:
        unread = reader_of(operator.kind) is None
        obstacle = ""
        if (not waits and not demands) or unread:
            obstacle = strangers(operator) or host.obstacle(operator)
        self.deferred.append(
            Deferred(
                operator,
                reason or obstacle,
                tuple(demands),
                waits,
                unread and waits,
                bool(obstacle),
            )
        )
        for name in operator.proto.output:
            if name:
                self.define(name, Later())

    def _forget(self, size: int) -> None:
        """Take back what was appended for an operator that turned out not to be readable."""
        for node in reversed(self.graph.nodes[size:]):
            self.weights.difference_update(node.outputs)
            self.graph.erase(node)

    def _leaves(self, name: str) -> list[str]:
        """The names whose elements are to be known for those of this one to be: inputs of the
        graph, where nothing but a few integers is computed of them."""
        value = self._held[name]
        leaves: dict[str, None] = {}
        pending, seen = [value], set()
        while pending:
            value = pending.pop()
            if not isinstance(value, Value) or isinstance(value, Parameter) or value in seen:
                continue
            seen.add(value)
            value = self._given.get(value, value)
            if value in self._names and (value.type.rank == 0 or _few_integers(value)):
                leaves[self._names[value]] = None
            elif value.producer is None or not _few_integers(value):
                return [name]
            else:
                pending.extend(value.producer.inputs)
        return list(leaves) or [name]

    # -- constants --------------------------------------------------------------------------

    def stored(self, proto: onnx.TensorProto, name: str) -> Held:
        """A tensor of the file: weights as a parameter of the graph, anything else as known."""
        if not is_numeric(proto.data_type):
            return Foreign(foreign_elements(proto))
        tensor = self.program.opened.get(name)
        if tensor is None or not tensor.is_of(proto):
            tensor = self.program.opened[name] = StoredTensor(proto, self.external)
        if not tensor.is_floating or np.prod(tensor.shape) <= 1:
            return known(np.asarray(tensor))
        return self._source(name, tensor, tensor.shape)

    def _exact(self, proto: onnx.TensorProto) -> Foreign:
        """A tensor of the file as it is, for the host."""
        if not is_numeric(proto.data_type):
            return Foreign(foreign_elements(proto))
        return Foreign(StoredTensor(proto, self.external).exact())

    def value(self, operand: Operand) -> Value:
        """The operand as a value of the graph: known elements as a constant or a parameter."""
        if isinstance(operand, Value):
            return operand
        array, kind = operand.array, operand.type
        if operand.has_batch:
            raise UnsupportedError("computes with the batch size when the model runs")
        if kind.dtype == "f32" and array.ndim > 0 and array.size:
            digest = hashlib.sha256(array.tobytes()).hexdigest()[:8]  # differs by image size
            return self._source(f"computed.{digest}", array, array.shape)
        if array.size:
            value = self.graph.append(Constant(nested(array), kind.dtype), []).output
        else:  # nested lists would lose the axes behind the empty one
            zero = self.graph.append(Constant(0, kind.dtype), []).output
            value = self.graph.append(Expand(kind.shape), [zero]).output
        self.weights.add(value)
        return value

    def parameter(self, operand: Known, name: str) -> Parameter:
        """Known numbers, of this name in the file, as a parameter of their dtype."""
        if name not in self._parameters:
            tensor: StoredTensor | Array = operand.array
            stored = self.program.opened.get(name)
            if stored is not None and np.dtype(stored.dtype) == operand.array.dtype:
                tensor = stored
            self._parameters[name] = self._source(
                name, tensor, operand.array.shape, operand.type.dtype
            )
        return self._parameters[name]

    def _source(
        self, name: str, tensor: StoredTensor | Array, shape: tuple[int, ...], dtype: str = "f32"
    ) -> Parameter:
        stem, count = name, 0
        while name in self.payload:
            count += 1
            name = f"{stem}_{count}"
        self.payload[name] = tensor
        return self.graph.add_source(name, TensorType(dtype, shape))

    # -- the stage --------------------------------------------------------------------------

    def stage(self) -> Stage:
        """What has been read, and what is left. The graph gives what that needs, and outputs."""
        waiting = {n for d in self.deferred for n in d.operator.proto.output}
        kept: dict[str, Held] = {}
        for deferred in self.deferred:
            for name in deferred.operator.reads:
                if name in self._tensors and deferred.on_host:
                    kept[name] = self._exact(self._tensors[name])
                elif name not in waiting and name not in self._tensors:
                    held = self._find(name, deferred.operator.kind)
                    kept[name] = self._given.get(held, held) if isinstance(held, Value) else held
        finished: dict[int, Held] = {}
        left: list[tuple[int, Output]] = []
        for index, output in enumerate(self.program.outputs):
            held = self._find(output.name, "an output of the model")
            if _waits(held):
                left.append((index, output))
            else:
                finished[index] = self._returned(held, output)
        whole = not self.deferred and all(isinstance(h, Value) for h in finished.values())
        values = [v for h in (*kept.values(), *finished.values()) for v in _values(h)]
        self.graph.set_outputs(values if whole else dict.fromkeys(values))
        self._clean(finished)
        tensors = {n: t for n, t in self._tensors.items() if self.deferred}
        rest = Program(
            self.program.name,
            [d.operator for d in self.deferred if not d.on_host],
            tensors,
            [output for _, output in left],
            {
                name: held
                for name, held in kept.items()
                if isinstance(held, Known | Foreign | Nothing) and name not in tensors
            },
            self.types,
            self.program.depth + 1,
            self.program.opened,
        )
        return Stage(
            self.graph,
            self.deferred,
            kept,
            finished,
            [index for index, _ in left],
            rest,
            self.external,
        )

    def _returned(self, held: Held, output: Output) -> Held:
        """An output of the file in the element type that the file says."""
        if isinstance(held, Items):
            elements = tuple(self._returned(item, output) for item in held.elements)
            return Items(elements)
        element = output.element or self.types.get(output.name, 0)
        if not isinstance(held, Value | Known) or not is_numeric(element):
            return held
        value, dtype = self.value(held), outer_dtype(element)
        given = self._given.get(value)
        if given is not None and given.type.dtype == dtype:
            return given
        if value.type.dtype == dtype or graph_dtype(element) != value.type.dtype:
            return value  # what a file says wrongly is not believed
        return self.graph.append(Cast(dtype), [value]).output

    def _clean(self, finished: Mapping[int, Held]) -> None:
        """Names for the outputs, and nothing that nobody reads."""
        named: set[Value] = set()
        for index, held in finished.items():
            if isinstance(held, Value) and held.producer is not None and held not in named:
                self.graph.rename(held, self.program.outputs[index].name)
                named.add(held)
        self.graph.drop_unread()
        self.graph.payload = {name: self.payload[name] for name in self.graph.sources()}


MOST_FOLDED = 1 << 10
"""Integers that are computed by NumPy while reading rather than by a stage of their own."""


def _few_integers(value: Value) -> bool:
    kind = value.type
    whole = DTYPES[kind.dtype].kind in "iu"
    return whole and not kind.batch_axes() and int(np.prod(kind.concrete(1))) <= MOST_FOLDED


def _waits(held: Held) -> bool:
    if isinstance(held, Items):
        return any(map(_waits, held.elements))
    return isinstance(held, Later)


def _values(held: Held) -> list[Value]:
    """The values of the graph in what a name stands for."""
    if isinstance(held, Items):
        return [value for item in held.elements for value in _values(item)]
    return [held] if isinstance(held, Value) else []


__all__ = ["Nothing", "Reader", "read_stage", "reader_of"]

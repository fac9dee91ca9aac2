"""ONNX models as graphs: translates the operators of a file to ops, one by one.

    graph = read_graph(proto, {"x": f32(BATCH, 3, 224, 224)}, name="net")

How each operator is read stands in `operators`. Shapes follow from the inputs by the ops' own
rules: what a file says of the types between is not read. What exporters compute of shapes is
computed here (`known`), and leaves no nodes behind.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lucid.errors import LucidError, ModelFileError, UnsupportedError
from lucid.ir.graph import Graph, Parameter, Value
from lucid.ir.ops import OPS, Array, Constant, Op
from lucid.ir.ops.constant import nested
from lucid.ir.types import TensorType
from lucid.onnx.call import Call, origin
from lucid.onnx.known import Missing, Operand, Refusal, known
from lucid.onnx.order import in_order
from lucid.onnx.table import READERS, Read
from lucid.onnx.tensors import External, StoredTensor

if TYPE_CHECKING:
    import onnx

STANDARD = ("", "ai.onnx")
"""The names of the domain of ONNX's own operators."""


def read_graph(
    model: onnx.ModelProto,
    inputs: Mapping[str, TensorType],
    external: External,
    name: str,
    opset: int,
    image_by_image: bool = False,
) -> Graph:
    """The graph of a model whose inputs have these types; its weights are the payload.

    `external` reads the files next to the model. `image_by_image`: the file fixes a batch of 1,
    `inputs` have the batch N, and what the file says of one image is to hold for each.

    Raises UnsupportedError, which lists every operator that cannot be read, ModelFileError where
    the model breaks ONNX's rules, ShapeError where an operator does not accept its operands.
    """
    graph = Graph(name, {})
    reader = Reader(graph, opset, external, image_by_image)
    for label, kind in inputs.items():
        reader.define(label, graph.add_input(kind, label))
    outputs = reader.read(model.graph)
    if reader.refused:
        raise UnsupportedError(_listed(name, reader.refused))
    graph.set_outputs(reader.value(o) for o in outputs if not isinstance(o, Missing))
    for node in reversed(list(graph.nodes)):  # as the places of maxima that a file names and drops
        if not any(map(graph.is_used, node.outputs)):
            graph.erase(node)
    named: set[Value] = set()
    for value, output in zip(graph.outputs, model.graph.output, strict=True):
        if value.producer is not None and value not in named:
            graph.rename(value, output.name)
            named.add(value)
    for parameter in list(graph.parameters.values()):
        if not graph.is_used(parameter):
            graph.drop_parameter(parameter)
    graph.payload = {name: reader.payload[name] for name in graph.sources()}
    return graph


def reader_of(operator: str) -> Read | None:
    """The function that reads an operator: one of its own, or that of the op that names it."""
    if operator in READERS:
        return READERS[operator]
    named = (cls for cls in OPS.values() if cls.onnx == operator)
    return next(map(_namesake, named), None)


def _namesake(op_class: type[Op]) -> Read:
    return lambda call: call.apply(op_class(), *call.operands())


class Reader:
    """What the names of a file stand for, and the graph that grows as its operators are read."""

    def __init__(self, graph: Graph, opset: int, external: External, image_by_image: bool) -> None:
        self.graph = graph
        self.opset = opset
        self.external = external
        self.image_by_image = image_by_image
        self.payload: dict[str, Any] = {}
        graph.payload = self.payload
        self.refused: list[Refusal] = []
        self.weights: set[Value] = set()
        self._operands: dict[str, Operand | Missing] = {}
        self._tensors: dict[str, onnx.TensorProto] = {}

    def define(self, name: str, operand: Operand | Missing) -> None:
        """Let a name of the file stand for an operand. Raises ModelFileError where it is taken."""
        if name in self._operands or name in self._tensors:
            raise ModelFileError(f"two values of the model are named {name!r}")
        self._operands[name] = operand

    def read(self, graph: onnx.GraphProto) -> list[Operand | Missing]:
        """The outputs of a graph or subgraph, after all that it holds has been read."""
        if graph.sparse_initializer:
            raise UnsupportedError(f"{graph.name}: sparse initializers are not read")
        for tensor in graph.initializer:
            if tensor.name in self._tensors or tensor.name in self._operands:
                raise ModelFileError(f"two values of the model are named {tensor.name!r}")
            self._tensors[tensor.name] = tensor
        for node in in_order(graph.node, {*self._operands, *self._tensors}):
            self._read_node(node)
        return [self._find(output.name, "an output of the model") for output in graph.output]

    def _read_node(self, node: onnx.NodeProto) -> None:
        domain = "" if node.domain in STANDARD else f"{node.domain}."
        kind, where = f"{domain}{node.op_type}", _where(node)
        operands = [self._find(n, f"{kind} {where}") if n else None for n in node.input]
        read = reader_of(kind)
        results: Sequence[Operand | Missing] = [Missing()] * len(node.output)
        if read is None:
            self.refused.append((kind, where, ""))
        elif not any(isinstance(o, Missing) for o in operands):
            try:
                call = Call(node, self, [o for o in operands if not isinstance(o, Missing)])
                with np.errstate(all="ignore"):
                    given = read(call)
                unread = call.unread()
                if unread:
                    raise UnsupportedError(f"with {', '.join(unread)}")
                results = given if isinstance(given, Sequence) else [given]
            except UnsupportedError as error:
                self.refused.append((kind, where, str(error)))
            except LucidError as error:
                raise type(error)(f"{kind} {where}: {error}") from None
            except (ArithmeticError, LookupError, TypeError, ValueError, MemoryError) as error:
                raise ModelFileError(f"{kind} {where} is malformed: {error}") from error
        for index, name in enumerate(node.output):
            absent = Missing((kind, where, f"its result {index} is not computed"))
            if name:
                self.define(name, results[index] if index < len(results) else absent)

    def _find(self, name: str, reader: str) -> Operand | Missing:
        """What a name stands for. Tensors of the file are looked at when first used."""
        if name not in self._operands:
            tensor = self._tensors.get(name)
            if tensor is None:
                raise ModelFileError(
                    f"{reader} reads {name!r}, which nothing in the model gives: an operator or an"
                    " initializer is missing"
                )
            self._operands[name] = self.stored(StoredTensor(tensor, self.external), name)
        found = self._operands[name]
        if isinstance(found, Missing) and found.refusal and found.refusal not in self.refused:
            self.refused.append(found.refusal)
        return found

    # -- constants --------------------------------------------------------------------------

    def stored(self, tensor: StoredTensor, name: str) -> Operand:
        """A tensor of the file: weights as a parameter of the graph, anything else as known."""
        if not tensor.is_floating or np.prod(tensor.shape) == 1:
            return known(np.asarray(tensor))
        return self._source(name, tensor, tensor.shape)

    def value(self, operand: Operand) -> Value:
        """The operand as a value of the graph: known elements as a constant or a parameter."""
        if isinstance(operand, Value):
            return operand
        array, kind = operand.array, operand.type
        if operand.has_batch:
            raise UnsupportedError("computes with the batch size when the model runs")
        if kind.dtype == "f32" and array.ndim > 0:  # a weight may have just one element
            digest = hashlib.sha256(array.tobytes()).hexdigest()[:8]  # differs by image size
            return self._source(f"computed.{digest}", array, array.shape)
        value = self.graph.append(Constant(nested(array), kind.dtype), []).output
        self.weights.add(value)
        return value

    def _source(self, name: str, tensor: StoredTensor | Array, shape: tuple[int, ...]) -> Parameter:
        stem, count = name, 0
        while name in self.payload:
            count += 1
            name = f"{stem}_{count}"
        self.payload[name] = tensor
        return self.graph.add_source(name, TensorType("f32", shape))


def _where(node: onnx.NodeProto) -> str:
    """A node as messages name it: by its module, its own name, or its first result."""
    place = node.name or next(iter(node.output), "")
    path = origin(node)
    return f"{place!r}" if path in (place, "") else f"{place!r} ({path})"


def _listed(name: str, refused: Iterable[Refusal]) -> str:
    """One line for each operator and reason, with how many and which nodes they are."""
    groups: dict[tuple[str, str], list[str]] = {}
    for kind, where, reason in refused:
        groups.setdefault((kind, reason), []).append(where)
    lines = []
    for (kind, reason), places in sorted(groups.items()):
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        why = f" ({reason})" if reason else ""
        lines.append(f"  {kind} x{len(places)}{why}: {', '.join(places[:3])}{more}")
    kinds = len(Counter(kind for kind, _ in groups))
    what = "an operator" if kinds == 1 else f"{kinds} operators"
    return f"{name} holds {what} that Lucid cannot express:\n" + "\n".join(lines)

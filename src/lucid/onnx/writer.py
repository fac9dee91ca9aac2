"""Graphs as ONNX models, with a dynamic batch and the weights inside.

    model = to_onnx(graph)
    Path("net.onnx").write_bytes(model.SerializeToString())

Any graph of `lucid.ir.ops` will do, as traced or after passes: fusions and split attentions are
written as their parts. How each op is written stands in `operators`, one function an op.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lucid.errors import MissingPackageError, UnsupportedError
from lucid.ir import recipe
from lucid.ir.graph import Graph, Node, Parameter, Value
from lucid.ir.interpret import Tensors
from lucid.ir.ops import Array, Fusion, Op
from lucid.ir.types import DTYPES, Dim, Shape, TensorType
from lucid.onnx.table import WRITERS, Write

if TYPE_CHECKING:
    import onnx

OPSET = 18
"""The version of the standard operators: the first where all reductions take axes as operands."""
IR_VERSIONS = {OPSET: 8, 21: 10}
"""The version of the file format that goes with one of the operators, so that older runtimes read
the file. A newer one than OPSET is written where a graph needs it (`Writer.require`)."""
LARGEST = 2**31 - 1
"""Bytes of the largest message that protobuf holds."""


def to_onnx(graph: Graph, payload: Mapping[str, Any] | None = None) -> onnx.ModelProto:
    """The graph as an ONNX model. Inputs and outputs keep their names, dtypes and shapes.

    Parameters are evaluated by their recipes over `payload` (the graph's own where None) in
    float64, and rounded once to float32. A dimension that depends on the batch is named after it
    (`N`, `2N`). Nodes that no output needs are left out. Raises MissingPackageError without the
    package onnx, UnsupportedError for ops that have no counterpart (all are listed) and for models
    beyond 2 GB, WeightsError where a tensor is missing.
    """
    try:
        from onnx import helper
    except ImportError as error:
        raise MissingPackageError(
            "exporting to ONNX needs the package onnx: `pip install onnx`"
        ) from error
    nodes = _needed(graph)
    _check(graph, nodes)
    writer = Writer(graph, Tensors(graph.payload if payload is None else payload, graph))
    for node in nodes:
        writer.write(node)
    outputs = [writer.output(value) for value in graph.outputs]
    proto = helper.make_graph(
        writer.nodes,
        graph.name,
        [_value_info(Edge(v.name, v.type)) for v in graph.inputs],
        [_value_info(edge) for edge in outputs],
        initializer=writer.initializers,
    )
    return helper.make_model(
        proto,
        producer_name="lucid",
        opset_imports=[helper.make_opsetid("", writer.opset)],
        ir_version=IR_VERSIONS[writer.opset],
    )


def writer_of(op_class: type[Op]) -> Write | None:
    """The function that writes an op: one of its own, or that of all that name an operator."""
    return WRITERS.get(op_class) or (_write_namesake if op_class.onnx else None)


def _write_namesake(
    w: Writer, op: Op, operands: Sequence[Edge], kind: TensorType
) -> str | Sequence[str]:
    count = len(op.result_types(*(edge.type for edge in operands)))
    return w.emit_all(op.onnx, count, *operands)


@dataclass(frozen=True)
class Edge:
    """A value of the ONNX graph: its name, and the type it has in Lucid's."""

    name: str
    type: TensorType


class Writer:
    """An ONNX graph that grows operator by operator, under names that no two values share."""

    def __init__(self, graph: Graph, tensors: Tensors) -> None:
        self.opset = OPSET
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._graph = graph
        self._tensors = tensors
        self._bytes = 0
        inputs = {v: Edge(v.name, v.type) for v in graph.inputs}
        self._edges: dict[Value, Edge] = dict(inputs)
        self._names = {v.name for v in graph.values() if not isinstance(v, Parameter)}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._batches: dict[str, str] = {}
        self._unreturned: set[str] = set()
        self._stem, self._origin = "", ""

    # -- for `to_onnx` ----------------------------------------------------------------------

    def write(self, node: Node) -> None:
        """The operators of one node; its results are called as in the graph."""
        start = len(self.nodes)
        self._stem, self._origin = node.outputs[0].name, node.origin
        edges = self.apply_all(node.op, *(self._edge(v) for v in node.inputs))
        for value, edge in zip(node.outputs, edges, strict=True):
            self._edges[value] = edge
            if self._rename(self.nodes[start:], edge.name, value.name):
                self._edges[value] = Edge(value.name, edge.type)
                self._unreturned.add(value.name)

    def output(self, value: Value) -> Edge:
        """The edge of an output. ONNX wants one operator's own, each returned once."""
        edge = self._edge(value)
        if edge.name in self._unreturned:
            self._unreturned.remove(edge.name)
            return edge
        self._stem, self._origin = f"{value.name}.output", ""
        return Edge(self.emit("Identity", edge), value.type)

    def _edge(self, value: Value) -> Edge:
        if value not in self._edges:
            assert isinstance(value, Parameter), "nodes come in order"
            array = np.asarray(recipe.evaluate(value.recipe, self._tensors))
            name = self._fresh(value.name)
            self._initialise(name, array.astype(DTYPES[value.type.dtype]))
            self._edges[value] = Edge(name, value.type)
        return self._edges[value]

    def _rename(self, nodes: Sequence[onnx.NodeProto], old: str, new: str) -> bool:
        """Call a result of these nodes `new`. False where none of them makes it."""
        if not any(old in node.output for node in nodes):
            return False
        for node in nodes:
            for names in (node.input, node.output):
                names[:] = [new if name == old else name for name in names]
        return True

    # -- for operators ----------------------------------------------------------------------

    def require(self, opset: int) -> None:
        """Let the model speak this version of the operators, one of IR_VERSIONS, or a newer one."""
        self.opset = max(self.opset, opset)

    def edge(self, name: str, kind: TensorType) -> Edge:
        """A result of `emit` as an operand of `apply`, which wants its type."""
        return Edge(name, kind)

    def apply(self, op: Op, *operands: Edge) -> Edge:
        """The one result of an op of Lucid's, written as one or more operators."""
        (result,) = self.apply_all(op, *operands)
        return result

    def apply_all(self, op: Op, *operands: Edge) -> list[Edge]:
        """All results of an op of Lucid's."""
        kinds = op.result_types(*(edge.type for edge in operands))
        write = writer_of(type(op))
        assert write is not None, f"{op.name} has no counterpart"
        names = write(self, op, operands, kinds[0])
        names = [names] if isinstance(names, str) else names
        return [Edge(name, kind) for name, kind in zip(names, kinds, strict=True)]

    def inline(self, graph: Graph, *operands: Edge) -> Edge:
        """The one output of a graph without parameters, node by node."""
        edges = dict(zip(graph.inputs, operands, strict=True))
        for node in graph.nodes:
            results = self.apply_all(node.op, *(edges[v] for v in node.inputs))
            edges.update(zip(node.outputs, results, strict=True))
        (result,) = graph.outputs
        return edges[result]

    def emit(self, operator: str, *operands: Edge | str, **attributes: Any) -> str:
        """Append one ONNX operator; the name of its result. An operand of "" is left out."""
        (result,) = self.emit_all(operator, 1, *operands, **attributes)
        return result

    def emit_all(
        self, operator: str, count: int, *operands: Edge | str, **attributes: Any
    ) -> list[str]:
        """Append one ONNX operator; the names of its first `count` results."""
        from onnx import helper

        names = [edge.name if isinstance(edge, Edge) else edge for edge in operands]
        results = [self._fresh(f"{self._stem}.{operator}") for _ in range(count)]
        label = f"{self._origin}/{results[0]}" if self._origin else results[0]
        self.nodes.append(helper.make_node(operator, names, results, name=label, **attributes))
        return results

    def constant(self, value: Any, dtype: str = "f32") -> str:
        """The name of an initializer of this value; equal ones are shared."""
        array = np.asarray(value, DTYPES[dtype])
        key = (dtype, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self._fresh(f"constant.{len(self._constants)}")
            self._initialise(self._constants[key], array)
        return self._constants[key]

    def integers(self, *values: int) -> str:
        """The name of an initializer that lists int64 numbers: axes, bounds, a shape."""
        return self.constant(values, "i64")

    def shape(self, shape: Shape) -> str:
        """The name of a list of int64 dimensions, computed where they depend on the batch."""
        if all(isinstance(d, int) for d in shape):
            return self.integers(*(d for d in shape if isinstance(d, int)))
        return self.emit("Concat", *map(self._dimension, shape), axis=0)

    def _dimension(self, dim: int | Dim) -> str:
        """A dimension as a list of one number."""
        if isinstance(dim, int):
            return self.integers(dim)
        batch = self._batch(dim.symbol)
        return batch if dim.coefficient == 1 else self._multiplied(batch, dim.coefficient)

    def _multiplied(self, batch: str, factor: int) -> str:
        return self.emit("Mul", batch, self.integers(factor))

    def _batch(self, symbol: str) -> str:
        """The size of the batch as a list of one number, read off an input once."""
        if symbol not in self._batches:
            value, axis, dim = next(
                (value, axis, dim)
                for value in self._graph.inputs
                for axis, dim in enumerate(value.type.shape)
                if isinstance(dim, Dim) and dim.symbol == symbol
            )
            size = self.emit("Shape", value.name, start=axis, end=axis + 1)
            if dim.coefficient > 1:
                size = self.emit("Div", size, self.integers(dim.coefficient))
            self._batches[symbol] = size
        return self._batches[symbol]

    def _initialise(self, name: str, array: Array) -> None:
        from onnx import numpy_helper

        self._bytes += array.nbytes
        if self._bytes > LARGEST:
            raise UnsupportedError(
                f"{self._graph.name}: an ONNX file holds 2 GB of weights at most"
            )
        self.initializers.append(numpy_helper.from_array(np.asarray(array, order="C"), name))

    def _fresh(self, stem: str) -> str:
        name, count = stem, 0
        while name in self._names:
            count += 1
            name = f"{stem}_{count}"
        self._names.add(name)
        return name


def _needed(graph: Graph) -> list[Node]:
    """The nodes that an output depends on, in order."""
    wanted: set[Value] = set(graph.outputs)
    kept = []
    for node in reversed(graph.nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            kept.append(node)
    return kept[::-1]


def _check(graph: Graph, nodes: Sequence[Node]) -> None:
    """Raises UnsupportedError, which lists every node that cannot be written."""

    def known(op: Op) -> bool:
        return writer_of(type(op)) is not None and (not isinstance(op, Fusion) or known(op.anchor))

    strangers = [f"{n.op.name} in {n.origin or 'the model'}" for n in nodes if not known(n.op)]
    if strangers:
        raise UnsupportedError(f"{graph.name} cannot be an ONNX model: {', '.join(strangers)}")


def _value_info(edge: Edge) -> onnx.ValueInfoProto:
    from onnx import helper

    dtype = helper.np_dtype_to_tensor_dtype(DTYPES[edge.type.dtype])
    shape = [d if isinstance(d, int) else str(d) for d in edge.type.shape]
    return helper.make_tensor_value_info(edge.name, dtype, shape)

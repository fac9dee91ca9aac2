"""The interpreter: executes graphs at any stage with the ops' references.

It is what everything else is compared with, in float32 or float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lucid.errors import InputError, WeightsError
from lucid.ir import recipe
from lucid.ir.graph import Graph, Node, Parameter, Value
from lucid.ir.ops import Array, Cast, Constant, Expand, Fusion, Op, Reshape
from lucid.ir.types import Dim, TensorType, held, is_float

Observer = Callable[[Node, tuple[Array, ...]], None]
Natively = Callable[[Graph, Node, Callable[[Value], Array]], "tuple[Array, ...] | None"]


def interpret(
    graph: Graph,
    inputs: Sequence[Array],
    payload: Mapping[str, Any] | None = None,
    dtype: np.dtype[Any] | type[np.floating[Any]] = np.float32,
    observe: Observer | None = None,
    natively: Natively | None = None,
) -> list[Array]:
    """The outputs of `graph` for `inputs`, computed in `dtype` (float32 or float64).

    Parameters are evaluated by their recipes over `payload` (the graph's own where None) in
    float64 and then cast. Values are released after their last use. `observe` sees every node's
    results. `natively` may give the results of a node (`lucid.ir.pieces`), or None.

    Raises InputError where an input does not fit, WeightsError where a tensor is missing.
    """
    floating = np.dtype(dtype)
    batch = _check_inputs(graph, inputs)
    read = Tensors(graph.payload if payload is None else payload, graph)
    last_use = {value: node for node in graph.nodes for value in node.inputs}
    values: dict[Value, Array] = {
        value: np.asarray(array).astype(held(value.type.dtype, floating), copy=False)
        for value, array in zip(graph.inputs, inputs, strict=True)
    }

    def value_of(value: Value) -> Array:
        if value not in values and isinstance(value, Parameter):
            array = recipe.evaluate(value.recipe, read)
            values[value] = np.asarray(array, dtype=held(value.type.dtype, floating))
        return values[value]

    for node in graph.nodes:
        results = None if natively is None else natively(graph, node, value_of)
        if results is None:
            results = run_node(node, [value_of(v) for v in node.inputs], batch, floating)
        if observe is not None:
            observe(node, results)
        values.update(zip(node.outputs, results, strict=True))
        for value in set(node.inputs):
            if last_use[value] is node and value not in graph.outputs:
                values.pop(value, None)
        for value in node.outputs:
            if not graph.is_used(value):
                values.pop(value, None)
    return [value_of(v) for v in graph.outputs]


def run_node(
    node: Node, operands: list[Array], batch: int, floating: np.dtype[Any]
) -> tuple[Array, ...]:
    """The results of a node, at this size of the batch, by its op's reference: floats in `floating`
    whatever their dtype is, which `operands` are in already."""
    if isinstance(node.op, Constant):
        return (node.op.array(floating),)
    op = _at_batch(node, batch)
    if isinstance(op, Fusion):
        own = op.anchor_operands(len(operands))
        (y,) = _computed(op.anchor, operands[:own], [op.body.inputs[0].type], floating)
        results: tuple[Array, ...] = (np.asarray(op.applied(y, operands[own:])),)
    else:
        results = _computed(op, operands, [v.type for v in node.outputs], floating)
    for value, array in zip(node.outputs, results, strict=True):
        wanted = value.type.concrete(batch)
        assert array.shape == wanted, f"{node} gave {array.shape}, its type says {wanted}"
    return results


def _computed(
    op: Op, operands: list[Array], types: list[TensorType], floating: np.dtype[Any]
) -> tuple[Array, ...]:
    """An op's results, floats in `floating`, which not all operands have: integers are exact in
    float64 only."""
    if isinstance(op, Cast) and is_float(op.dtype):
        operands = [operands[0].astype(floating)]
    results = op.results(*operands)
    return tuple(
        array.astype(held(kind.dtype, floating), copy=False)
        for kind, array in zip(types, results, strict=True)
    )


def _at_batch(node: Node, batch: int) -> Op:
    """The node's op; where it names a shape, the one it has at this size of the batch."""
    if isinstance(node.op, Reshape | Expand):
        return type(node.op)(node.output.type.concrete(batch))
    return node.op


def _check_inputs(graph: Graph, inputs: Sequence[Array]) -> int:
    """The size of the batch (1 where no input has one). Raises InputError."""
    if len(inputs) != len(graph.inputs):
        raise InputError(f"{graph.name} takes {len(graph.inputs)} inputs, got {len(inputs)}")
    batch: int | None = None
    for value, array in zip(graph.inputs, inputs, strict=True):
        shape = np.shape(array)
        if len(shape) == value.type.rank:
            for size, dim in zip(shape, value.type.shape, strict=True):
                if batch is None and isinstance(dim, Dim):
                    batch = size // dim.coefficient
        if shape != value.type.concrete(1 if batch is None else batch):
            at = "" if batch is None else f" (N = {batch})"
            raise InputError(f"input {value.name} wants {value.type}{at}, got the shape {shape}")
    return 1 if batch is None else batch


class Tensors:
    """Looks source tensors up by name. Raises WeightsError for what is missing or misshapen."""

    def __init__(self, payload: Mapping[str, Any], graph: Graph) -> None:
        self.payload = payload
        self.types = {name: source.type for name, source in graph.sources().items()}

    def __call__(self, name: str) -> Array:
        try:
            array = np.asarray(self.payload[name])
        except KeyError:
            given = len(self.payload)
            raise WeightsError(f"there is no tensor {name!r} among the {given} given") from None
        if array.shape != self.types[name].shape:
            raise WeightsError(f"tensor {name!r} is {self.types[name]}, got shape {array.shape}")
        return array

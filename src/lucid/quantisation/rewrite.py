"""The graph in which integers stand for floats, and the one of floats that computes the same.

Both are a copy of a graph of floats in which values go through 8 bits, and the weights of layers
have been through them: as `quantize` and `dequantize` nodes over integers (`Integers`, what is
compiled and exported), or in the arithmetic of floats (`Floats`), whose results are those of
integers as they are: only sums are rounded. That is what the quantiser measures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lucid.ir.graph import Graph, Node, Parameter, Value
from lucid.ir.ops import Clip, Constant, Dequantize, Div, Mul, Quantize, Round
from lucid.ir.ops.base import Array
from lucid.ir.passes.recipes import mul, recipe_of
from lucid.ir.recipe import Literal, Source
from lucid.ir.types import TensorType
from lucid.quantisation.places import Places
from lucid.quantisation.ranges import LEVELS, Scaling, quantised_weight

MOST = 2**31 - 1
"""The largest sum that 32 bits hold."""


@dataclass(frozen=True)
class Weights:
    """The numbers of one layer: its weight in int8 (O, ...), the scale of each output channel in
    float32 (O), and the bias in floats (O), corrected."""

    name: str
    values: Array
    scales: Array
    bias_name: str
    bias: Array

    @classmethod
    def of(cls, layer: Node, payload: Mapping[str, Any], scales: Array) -> Weights:
        """Those of a layer, whose weight's channels have these scales."""
        weight, *biases = layer.inputs[1:]
        array = np.asarray(payload[weight.name])
        if biases:
            name, bias = biases[0].name, np.asarray(payload[biases[0].name])
        else:
            name, bias = f"{weight.name}.bias", np.zeros(len(array), np.float32)
        return cls(weight.name, quantised_weight(array, scales), scales, name, bias)

    def floats(self) -> Array:
        """The weight that the integers stand for."""
        shape = (-1, *(1,) * (self.values.ndim - 1))
        product: Array = self.values.astype(np.float32) * self.scales.reshape(shape)
        return product

    def bias_scales(self, x: Scaling) -> Array:
        """The scales of the layer's sums, of an operand with this scale: float32 (O)."""
        products = self.scales.astype(np.float64) * x.scale
        return products.astype(np.float32)

    def integer_bias(self, x: Scaling) -> Array | None:
        """The bias at these scales: int32 (O). None where a sum with it might not fit 32 bits."""
        with np.errstate(all="ignore"):
            steps = np.rint(self.bias.astype(np.float64) / self.bias_scales(x))
        rows = np.abs(self.values.reshape(len(self.values), -1).astype(np.int64))
        fits = np.abs(steps) + LEVELS * rows.sum(axis=1) <= MOST
        return steps.astype(np.int32) if fits.all() else None


Numbers = Mapping[Node, Weights]
"""The numbers of layers, by their nodes in the graph of floats."""
Scalings = Mapping[Value, Scaling]
"""The scales of values of the graph of floats."""


class Form(Protocol):
    """How a graph says that numbers go through integers."""

    def held(self, value: Value, as_: Scaling, origin: str) -> Value:
        """What a value is once it has been held in 8 bits."""

    def weight(self, weights: Weights, origin: str) -> Value:
        """The weight of a layer."""

    def bias(self, weights: Weights, x: Scaling, origin: str) -> Value:
        """The bias of a layer whose operand has this scale."""


class Integers:
    """In ONNX's form: `dequantize(quantize(x))`, and `dequantize` of stored weights."""

    def __init__(self, graph: Graph, payload: dict[str, Array]) -> None:
        self._graph = graph
        self._payload = payload

    def held(self, value: Value, as_: Scaling, origin: str) -> Value:
        graph = self._graph
        scale = graph.append(Constant(as_.scale), [], origin=origin).output
        zero = graph.append(Constant(as_.zero_point, "u8"), [], origin=origin).output
        held = graph.append(Quantize("u8"), [value, scale, zero], origin=origin).output
        return graph.append(Dequantize(), [held, scale, zero], origin=origin).output

    def weight(self, weights: Weights, origin: str) -> Value:
        scale = self._stored(f"{weights.name}.scale", weights.scales)
        return self._dequantized(weights.name, weights.values, scale, origin)

    def bias(self, weights: Weights, x: Scaling, origin: str) -> Value:
        steps = weights.integer_bias(x)
        if steps is None:
            return self._stored(weights.bias_name, weights.bias.astype(np.float32))
        own = self._stored(f"{weights.name}.scale", weights.scales)
        product = mul(recipe_of(own), Literal(x.scale))  # as passes look for it
        scale = self._graph.add_parameter(f"{weights.bias_name}.scale", product)
        return self._dequantized(weights.bias_name, steps, scale, origin)

    def _dequantized(self, name: str, values: Array, scale: Value, origin: str) -> Value:
        operands = [self._stored(name, values), scale]
        return self._graph.append(Dequantize(), operands, origin=origin).output

    def _stored(self, name: str, array: Array) -> Parameter:
        return stored(self._graph, self._payload, name, array)


class Floats:
    """As floats that are whole multiples of the scales."""

    def __init__(self, graph: Graph, payload: dict[str, Array]) -> None:
        self._graph = graph
        self._payload = payload

    def held(self, value: Value, as_: Scaling, origin: str) -> Value:
        graph = self._graph
        scale = graph.append(Constant(as_.scale), [], origin=origin).output
        steps = graph.append(Div(), [value, scale], origin=origin).output
        whole = graph.append(Round(), [steps], origin=origin).output
        bounds = Clip(float(-as_.zero_point), float(LEVELS - as_.zero_point))
        inside = graph.append(bounds, [whole], origin=origin).output
        return graph.append(Mul(), [inside, scale], origin=origin).output

    def weight(self, weights: Weights, origin: str) -> Value:
        return stored(self._graph, self._payload, f"{weights.name}.held", weights.floats())

    def bias(self, weights: Weights, x: Scaling, origin: str) -> Value:
        steps, bias = weights.integer_bias(x), weights.bias.astype(np.float32)
        if steps is not None:
            bias = steps.astype(np.float32) * weights.bias_scales(x)
        return stored(self._graph, self._payload, f"{weights.bias_name}.held", bias)


DTYPES = {"float32": "f32", "int8": "i8", "int32": "i32"}


def stored(graph: Graph, payload: dict[str, Array], name: str, array: Array) -> Parameter:
    """A parameter that is a tensor of its own, called `name`, or like it where that is taken by
    another one."""
    stem, count = name, 0
    while name in payload and not _same(payload[name], array):
        count += 1
        name = f"{stem}_{count}"
    payload[name] = array
    return graph.add_source(name, TensorType(DTYPES[array.dtype.name], array.shape))


def _same(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and np.array_equal(a, b)


def append_quantised(
    source: Graph,
    graph: Graph,
    form: Form,
    mapped: dict[Value, Value],
    where: Places,
    scalings: Scalings,
    numbers: Numbers,
) -> dict[Value, Value]:
    """A copy of a graph of floats at the end of another one, in which values are held in integers.

    `mapped`: what the copy reads in place of the inputs and parameters of `source`. Gives what each
    value is there as it is computed, before it is held.
    """
    computed = dict(mapped)
    read = dict(mapped)

    def hold(value: Value, origin: str) -> None:
        if value in where.values:
            read[value] = form.held(computed[value], scalings[where.values[value]], origin)

    for value in source.inputs:
        hold(value, "")
    layers = set(where.layers)
    for node in source.nodes:
        operands = [read[v] for v in node.inputs]
        if node in layers:
            own, x = numbers[node], scalings[where.values[node.inputs[0]]]
            operands[1:] = [form.weight(own, node.origin), form.bias(own, x, node.origin)]
        names = [v.name for v in node.outputs]
        new = graph.append(
            node.op,
            operands,
            names=names,
            origin=node.origin,
            fused_from=node.fused_from,
            location=node.location,
        )
        for value, result in zip(node.outputs, new.outputs, strict=True):
            computed[value] = read[value] = result
            hold(value, node.origin)
    return computed


def quantised(source: Graph, where: Places, scalings: Scalings, numbers: Numbers) -> Graph:
    """The graph of integers, with tensors of its own."""
    return _whole(Integers, source, where, scalings, numbers)


def simulated(source: Graph, where: Places, scalings: Scalings, numbers: Numbers) -> Graph:
    """The graph of floats that computes the same."""
    return _whole(Floats, source, where, scalings, numbers)


def _whole(
    form: type[Integers] | type[Floats],
    source: Graph,
    where: Places,
    scalings: Scalings,
    numbers: Numbers,
) -> Graph:
    graph = Graph(source.name)
    payload: dict[str, Array] = {}
    mapped: dict[Value, Value] = {v: graph.add_input(v.type, v.name) for v in source.inputs}
    layers = set(where.layers)
    for parameter in source.parameters.values():
        if any(user not in layers for user in parameter.users):
            array = np.asarray(source.payload[parameter.name])
            payload[parameter.name] = array
            mapped[parameter] = graph.add_source(parameter.name, parameter.type)
        else:
            mapped[parameter] = parameter  # a layer's, which is replaced
    computed = append_quantised(
        source, graph, form(graph, payload), mapped, where, scalings, numbers
    )
    graph.set_outputs(computed[v] for v in source.outputs)
    graph.payload = payload
    return graph


def own_tensors(graph: Graph, arrays: Mapping[str, Array]) -> Graph:
    """A copy of a graph each parameter of which is a tensor of its own: `arrays`, by the names of
    the parameters."""
    copy = graph.clone()
    for name, parameter in copy.parameters.items():
        parameter.recipe = Source(name, parameter.type)
    copy.payload = dict(arrays)
    return copy

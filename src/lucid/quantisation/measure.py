"""Measurements over calibration data, each in one pass: what values there are, how far each layer
is off by itself, and how far the whole network is."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lucid.compiler import CompiledModel, CompileOptions, compile
from lucid.errors import HostOpsWarning, InputError
from lucid.ir.graph import Graph, Node, Value
from lucid.ir.ops import Sub, Sum, SumSquares
from lucid.ir.ops.base import Array
from lucid.ir.passes import PIPELINE
from lucid.ir.types import batch_of
from lucid.quantisation.observers import Histogram
from lucid.quantisation.places import Places
from lucid.quantisation.rewrite import Floats, Numbers, Scalings, append_quantised, simulated

NEEDED = ("canonicalise", "fuse-epilogue", "drop-dead-parameters")
"""The passes over graphs that are measured; the others have done their work, or do not pay for a
few images."""

Pass = Callable[[str], Iterator[list[Array]]]
"""The inputs of each call in one pass over the data, told what it is for."""


@dataclass(frozen=True)
class Noise:
    """Sums over all elements of a result, and over all calibration data: the squares of what floats
    give, and of how far integers are off."""

    signal: float = 0.0
    error: float = 0.0

    def __add__(self, other: Noise) -> Noise:
        return Noise(self.signal + other.signal, self.error + other.error)

    @property
    def decibels(self) -> float:
        """The signal-to-noise ratio, 10 log10(signal / error): the larger, the better. Infinite
        where nothing is off, and where there is nothing (0 of 0)."""
        if self.error <= 0:
            return math.inf
        return 10 * math.log10(self.signal / self.error) if self.signal > 0 else -math.inf

    @staticmethod
    def between(signal: Array, result: Array) -> Noise:
        """That of a result, given what it should be."""
        wanted = signal.astype(np.float64)
        return Noise(float((wanted**2).sum()), float(((wanted - result) ** 2).sum()))


def runner(graph: Graph, threads: int | None) -> Callable[[Sequence[Array]], list[Array]]:
    """What gives the outputs of a graph, in order: compiled for the sizes of the first call."""
    compiled: list[CompiledModel] = []
    options = CompileOptions(disable=[name for name in PIPELINE if name not in NEEDED])

    def run(arrays: Sequence[Array]) -> list[Array]:
        given = [np.ascontiguousarray(array) for array in arrays]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HostOpsWarning)  # of the model, once it is compiled
            if not compiled:
                shapes = tuple(array.shape for array in given)
                compiled.append(compile(graph, shapes, threads=threads, options=options))
            return compiled[0].results(given)

    return run


def histograms(
    graph: Graph, values: Iterable[Value], data: Pass, threads: int | None
) -> dict[Value, Histogram]:
    """How the elements of each value are distributed over the data. Raises InputError where a layer
    computes what is no number."""
    seen = {value: Histogram() for value in values}
    computed = [v for v in seen if v.producer is not None]
    observed = _returning(graph, computed)
    run = runner(observed, threads) if computed else lambda arrays: []
    for arrays in data("calibrating"):
        given = dict(zip(graph.inputs, arrays, strict=True))
        for value, array in [*given.items(), *zip(computed, run(arrays), strict=True)]:
            if value not in seen:
                continue
            try:
                with np.errstate(invalid="ignore"):
                    seen[value].add(array)
            except OverflowError:
                raise InputError(_no_number(value)) from None
    return seen


def _no_number(value: Value) -> str:
    origin = value.producer.origin if value.producer is not None else ""
    where = f"{origin or 'the model'} (%{value.name})"
    return (
        f"{where} computes a NaN or an infinity from the calibration data, in float32 already: "
        "leave out the images that do, or the layer (`ignore`)"
    )


def _returning(graph: Graph, values: Sequence[Value]) -> Graph:
    """A copy that returns these values, and computes no more than they need."""
    copy = graph.clone()
    copies = dict(zip(graph.values(), copy.values(), strict=True))
    copy.set_outputs(copies[v] for v in values)
    copy.drop_unread()
    return copy


@dataclass
class LayerError:
    """How far one layer's result is off where it alone multiplies integers. `shift`: float64 (O),
    by how much each channel is too large on average; `noise` is without that."""

    noise: Noise
    shift: Array


def layer_errors(
    graph: Graph,
    where: Places,
    scalings: Scalings,
    numbers: Numbers,
    data: Pass,
    threads: int | None,
) -> dict[Node, LayerError]:
    """What each layer by itself adds to the noise, of operands as floats give them."""
    both = graph.clone()
    copies = dict(zip(graph.values(), both.values(), strict=True))
    payload = dict(graph.payload)
    form = Floats(both, payload)
    outputs: list[Value] = []
    for layer in where.layers:
        x, y = copies[layer.inputs[0]], copies[layer.output]
        own = numbers[layer]
        scale = scalings[where.values[layer.inputs[0]]]
        operands = [
            form.held(x, scale, layer.origin),
            form.weight(own, layer.origin),
            form.bias(own, scale, layer.origin),
        ]
        result = both.append(layer.op, operands, origin=layer.origin).output
        error = both.append(Sub(), [result, y], origin=layer.origin).output
        outputs += [_by_channel(both, error, layer), *_squares(both, y, error, layer)]
    both.set_outputs(outputs)
    both.payload = payload
    run = runner(both, threads)
    sums = [np.zeros(()) for _ in outputs]
    counts = np.zeros(len(where.layers))
    for arrays in data("measuring layers"):
        batch = batch_of(graph.input_types(), tuple(a.shape for a in arrays)) or 0
        for i, array in enumerate(run(arrays)):
            shift = i % 3 == 0
            sums[i] = sums[i] + array.astype(np.float64).sum(axis=0 if shift else None)
        counts += [_elements(layer, batch) for layer in where.layers]
    found = {}
    for i, layer in enumerate(where.layers):
        total, signal, squares = sums[3 * i : 3 * i + 3]
        shift = total / max(counts[i], 1)
        left = float(squares) - float((shift**2).sum() * counts[i])
        found[layer] = LayerError(Noise(float(signal), max(left, 0.0)), shift)
    return found


def _channel_axis(layer: Node) -> int:
    kind = layer.output.type
    return 1 if kind.rank == 4 else kind.rank - 1


def _elements(layer: Node, batch: int) -> float:
    """Elements of each channel of a layer's result."""
    shape = layer.output.type.concrete(batch)
    return math.prod(shape) / max(shape[_channel_axis(layer)], 1)


def _by_channel(graph: Graph, value: Value, layer: Node) -> Value:
    """Sums of a value (N, C, H, W) or (N, ..., C) by image and channel: (N, C)."""
    channel = _channel_axis(layer)
    axes = tuple(a for a in range(1, value.type.rank) if a != channel)
    return graph.append(Sum(axes), [value], origin=layer.origin).output if axes else value


def _squares(graph: Graph, y: Value, error: Value, layer: Node) -> list[Value]:
    """The sums of squares of both, by image."""
    axes = tuple(range(1, y.type.rank))
    return [graph.append(SumSquares(axes), [v], origin=layer.origin).output for v in (y, error)]


@dataclass(frozen=True)
class Whole:
    """How the whole network does. `noise`: of its outputs together. `same`: how many places of
    `classified` have the class that floats give them; none where it classifies nothing. `layers`:
    the noise of each layer's result, with all that comes in from the layers before it."""

    noise: Noise
    same: int
    classified: int
    layers: Mapping[Node, Noise]

    @property
    def agreement(self) -> float:
        """The share of classes that are those of floats."""
        return self.same / self.classified if self.classified else 1.0


def network_errors(
    graph: Graph,
    layers: Sequence[Node],
    where: Places,
    scalings: Scalings,
    numbers: Numbers,
    data: Pass,
    threads: int | None,
) -> Whole:
    """How far the results of these layers, and the network's own, are off."""
    both = graph.clone()
    copies = dict(zip(graph.values(), both.values(), strict=True))
    payload = dict(graph.payload)
    mapped = {v: copies[v] for v in (*graph.inputs, *graph.parameters.values())}
    computed = append_quantised(
        graph, both, Floats(both, payload), mapped, where, scalings, numbers
    )
    outputs = [copies[v] for v in graph.outputs] + [computed[v] for v in graph.outputs]
    count = len(graph.outputs)
    for layer in layers:
        y = copies[layer.output]
        error = both.append(Sub(), [computed[layer.output], y], origin=layer.origin).output
        outputs += _squares(both, y, error, layer)
    both.set_outputs(outputs)
    both.payload = payload
    run = runner(both, threads)
    score, found = _Score(), {layer: Noise() for layer in layers}
    for arrays in data("measuring the network"):
        results = run(arrays)
        score.add(results[:count], results[count : 2 * count])
        sums = [float(r.astype(np.float64).sum()) for r in results[2 * count :]]
        for i, layer in enumerate(layers):
            found[layer] += Noise(sums[2 * i], sums[2 * i + 1])
    return Whole(score.noise, score.same, score.classified, found)


class Reference:
    """The graph of floats, which graphs with integers in some places are compared with."""

    def __init__(self, graph: Graph, data: Pass, threads: int | None) -> None:
        self._graph, self._data, self._threads = graph, data, threads
        self._run = runner(graph, threads)

    def score(self, where: Places, scalings: Scalings, numbers: Numbers, what: str) -> Whole:
        """How the network does with integers in these places."""
        run = runner(simulated(self._graph, where, scalings, numbers), self._threads)
        score = _Score()
        for arrays in self._data(what):
            score.add(self._run(arrays), run(arrays))
        return Whole(score.noise, score.same, score.classified, {})


class _Score:
    """Compares outputs as they come."""

    def __init__(self) -> None:
        self.noise, self.same, self.classified = Noise(), 0, 0

    def add(self, wanted: Sequence[Array], given: Sequence[Array]) -> None:
        """Outputs of floats and of integers, of the same inputs."""
        for a, b in zip(wanted, given, strict=True):
            if a.dtype.kind == "f":
                self.noise += Noise.between(a, b)
        pair = next(((a, b) for a, b in zip(wanted, given, strict=True) if _has_classes(a)), None)
        if pair is not None:
            classes = [y.argmax(axis=1) for y in pair]
            self.same += int((classes[0] == classes[1]).sum())
            self.classified += classes[0].size


def _has_classes(output: Array) -> bool:
    """Whether an output is scores of classes, (N, classes, ...)."""
    return output.dtype.kind == "f" and output.ndim >= 2 and output.shape[1] > 1

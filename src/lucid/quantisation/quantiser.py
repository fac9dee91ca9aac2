"""`lucid.quantize`: from a network of floats and some images to one of integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from lucid.errors import InputError, UnknownNameError, UnsupportedError
from lucid.ir import recipe
from lucid.ir.graph import Graph, Node, Value
from lucid.ir.interpret import Tensors
from lucid.ir.lineage import origins
from lucid.ir.ops import Quantize
from lucid.ir.passes import run_passes
from lucid.ir.types import DTYPES
from lucid.model_source import ModelSource
from lucid.quantisation.batches import Batches, as_call
from lucid.quantisation.budget import Budget, least_floats
from lucid.quantisation.equalise import equalised
from lucid.quantisation.measure import (
    LayerError,
    Pass,
    Reference,
    Whole,
    histograms,
    layer_errors,
    network_errors,
)
from lucid.quantisation.model import QuantisedModel
from lucid.quantisation.observers import Histogram
from lucid.quantisation.places import Places, is_ignored, layers_of, places
from lucid.quantisation.ranges import Method, Scaling, weight_scales
from lucid.quantisation.report import LayerReport, Report, worst_first
from lucid.quantisation.rewrite import Numbers, Weights, own_tensors, quantised
from lucid.settings import Threads, asked_threads
from lucid.vision import Preprocess

Progress = Callable[[str, int, int], None]

PASSES = (
    "canonicalise",
    "simplify-shapes",
    "recognise-functions",
    "recognise-layers",
    "sink-permutes",
    "fold-pads",
    "trim-taps",
    "sink-concats",
    "fold-batch-norm",
    "pool-early",
    "fold-shuffles",
    "cut-layers",
    "merge-branches",
    "drop-dead-parameters",
)
"""What is done to a graph before it is quantised: layers get the weights that they will multiply
by, and nothing is fused yet."""


def quantize(
    model: Any,
    batches: Any,
    *,
    method: str = "mse",
    percentile: float = 99.99,
    budget: str | None = None,
    ignore: Sequence[str] | str = (),
    bias_correction: bool = True,
    equalise: bool = False,
    threads: Threads = "auto",
    progress: Progress | None = None,
) -> QuantisedModel:
    """Quantise a model to 8 bits by images like those that it will see; 100 or so are enough.

    Weights become int8, symmetric, with a scale for each output channel; what flows between layers
    becomes uint8 with one scale and zero point a tensor. The result is what `lucid.compile` takes,
    and `save_onnx` writes (QDQ); its `report` says what each layer cost.

    `model`: anything that `lucid.compile` takes, of one stage, with float inputs. `batches`: an
    iterable of arrays as the model takes them, preprocessed, batch first; of tuples or dicts of
    them where it has several inputs. It is read three times or more; of an iterator, which can be
    read once, the first 256 MB are kept for that, and the ranges still come from all of it. Memory
    does not grow with the data.

    `method`: how ranges of activations are chosen: "mse" (least square error), "minmax" (nothing is
    clipped), "percentile" (`percentile` percent are within, at either end) or "entropy" (least
    Kullback-Leibler divergence). `budget`: how close to floats the result has to stay on the
    calibration data, "agreement>=0.99" (share of classes) or "snr>=25" (decibels): the least set of
    layers is left in float32, found by measurement. `ignore`: patterns over module paths, such as
    "fc" or "layer4.*.conv2", of layers to leave in float32 in any case; or over results, "%conv_3".
    `bias_correction`: take the mean error of each output channel off the bias. `equalise`: scale
    channels between layers so that weights use their ranges better (Nagel et al. 2019).
    `threads`: as in `lucid.compile`. `progress`: called with the current activity, the steps done
    and their total, as far as it is known.

    Raises InputError for batches that do not fit, that hold NaN or infinities, or that there are
    none of, for a model without layers to quantise, for a malformed budget and patterns that match
    nothing; UnknownNameError for an unknown method; UnsupportedError for a model of several stages;
    and what `lucid.compile` raises.
    """
    how = Method(method, percentile)
    wanted = None if budget is None else Budget.parse(budget)
    asked = asked_threads(threads)
    data = Batches(batches, progress or (lambda what, done, total: None))
    source = ModelSource(model, ())
    graph = _floats(source, data)
    data.suit(graph, source.model)
    if equalise:
        graph = own_tensors(graph, equalised(graph))
    layers = _chosen(graph, (ignore,) if isinstance(ignore, str) else tuple(ignore))
    work = _Quantising(graph, layers, how, data.passes, asked, bias_correction)
    work.calibrate()
    if wanted is not None:
        work.leave_floats(wanted)
    return QuantisedModel(
        quantised(graph, work.where, work.scalings, work.numbers),
        work.report(source.name, wanted),
        source.structure,
        _metadata(model),
    )


def _metadata(model: Any) -> dict[str, Any]:
    """What the model says of its images, for who compiles the result."""
    try:
        found = Preprocess.find(model)
    except InputError:
        found = None
    return {} if found is None else {"preprocess": asdict(found)}


def _floats(source: ModelSource, data: Batches) -> Graph:
    """The graph of a model before it is quantised, with tensors of its own. Raises InputError,
    UnsupportedError, and what capturing raises."""
    positional, named = as_call(data.first())
    try:
        shapes = source.examples(positional, named)
        captured = source.captured(shapes)
    except InputError as problem:
        raise InputError(f"batch 0 of the calibration data: {problem}") from problem
    if source.rest(shapes) is not None:
        raise UnsupportedError(
            f"{source.name} goes on by what it has computed, in further stages; only models of one "
            "graph can be quantised"
        )
    source.model.require_weights()
    if captured.find(Quantize):
        raise InputError(f"{source.name} is quantised already")
    graph = run_passes(captured, PASSES)
    read = Tensors(graph.payload, graph)
    tensors = {
        name: np.asarray(recipe.evaluate(p.recipe, read)).astype(DTYPES[p.type.dtype])
        for name, p in graph.parameters.items()
    }
    return own_tensors(graph, tensors)


def _chosen(graph: Graph, ignored: tuple[str, ...]) -> list[Node]:
    """The layers to quantise. Raises InputError where there are none, UnknownNameError for patterns
    that mean none."""
    layers = layers_of(graph)
    if not layers:
        raise InputError(
            f"{graph.name} has no convolution or linear layer with weights, which is what is "
            "quantised"
        )
    for pattern in ignored:
        if not any(is_ignored(node, (pattern,)) for node in layers):
            known = dict.fromkeys(origins(node)[0] for node in layers)
            raise UnknownNameError(
                f"ignore: no layer is of a module that matches {pattern!r}; they are "
                + ", ".join(list(known)[:12])
                + (", ..." if len(known) > 12 else "")
            )
    return [node for node in layers if not is_ignored(node, ignored)]


@dataclass
class _Quantising:
    """A graph on its way. `layers`: those to quantise; `where`: the places of integers so far."""

    graph: Graph
    layers: list[Node]
    method: Method
    data: Pass
    threads: int | None
    correct: bool
    where: Places = field(init=False)
    scalings: dict[Value, Scaling] = field(init=False)
    numbers: Numbers = field(init=False)
    errors: dict[Node, LayerError] = field(init=False)
    operands: dict[Node, Scaling] = field(init=False)
    seen: dict[Value, Histogram] = field(init=False)

    def calibrate(self) -> None:
        """Choose all scales, and see what each layer costs."""
        self.where = places(self.graph, self.layers)
        leaders = dict.fromkeys(self.where.values.values())
        observed = [v for leader in leaders for v in self.where.sharing(leader)]
        self.seen = histograms(self.graph, observed, self.data, self.threads)
        self.scalings = self._scalings(self.where)
        self.numbers = {layer: self._weights(layer) for layer in self.layers}
        self.operands = {
            layer: self.scalings[self.where.values[layer.inputs[0]]] for layer in self.layers
        }
        self.errors = layer_errors(
            self.graph, self.where, self.scalings, self.numbers, self.data, self.threads
        )
        if self.correct:
            self.numbers = {
                layer: replace(own, bias=own.bias - self.errors[layer].shift)
                for layer, own in self.numbers.items()
            }

    def _weights(self, layer: Node) -> Weights:
        weight = np.asarray(self.graph.payload[layer.inputs[1].name])
        scales = weight_scales(weight, self.method.name)
        return Weights.of(layer, self.graph.payload, scales)

    def _scalings(self, where: Places) -> dict[Value, Scaling]:
        """The scale of each leader: of all that share it."""
        found = {}
        for leader in dict.fromkeys(where.values.values()):
            together = Histogram()
            for value in where.sharing(leader):
                together.merge(self.seen[value])
            found[leader] = self.method.scaling(together)
        return found

    def leave_floats(self, budget: Budget) -> None:
        """Leave the least set of layers in floats that keeps within the budget."""
        reference = Reference(self.graph, self.data, self.threads)
        tried = 0

        def holds(floats: Sequence[Node]) -> bool:
            nonlocal tried
            tried += 1
            where, scalings = self._without(floats)
            whole = reference.score(where, scalings, self.numbers, f"budget, try {tried}")
            return budget.holds(whole)

        worst = sorted(self.layers, key=lambda layer: self.errors[layer].noise.decibels)
        self.where, self.scalings = self._without(least_floats(worst, holds))

    def _without(self, floats: Sequence[Node]) -> tuple[Places, dict[Value, Scaling]]:
        """Places and scales where these layers are floats."""
        where = places(self.graph, [n for n in self.layers if n not in floats])
        return where, self._scalings(where)

    def report(self, name: str, budget: Budget | None) -> Report:
        """What it comes to, in one more pass."""
        whole = network_errors(
            self.graph,
            self.layers,
            self.where,
            self.scalings,
            self.numbers,
            self.data,
            self.threads,
        )
        work = {layer: multiply_adds(layer) for layer in layers_of(self.graph)}
        total = sum(work.values()) or 1
        done = sum(work[layer] for layer in self.where.layers)
        rows = [self._row(layer, whole, work[layer] / total) for layer in self.layers]
        return Report(
            name,
            self.method.name,
            None if budget is None else str(budget),
            whole.noise.decibels,
            whole.agreement if whole.classified else None,
            1 - done / total,
            worst_first(rows),
        )

    def _row(self, layer: Node, whole: Whole, share: float) -> LayerReport:
        least, largest = self.operands[layer].range
        return LayerReport(
            layer.origin or f"%{layer.output.name}",
            layer.op.name,
            self.errors[layer].noise.decibels,
            whole.layers[layer].decibels,
            "int8" if layer in self.where.layers else "float32",
            least,
            largest,
            share,
        )


def multiply_adds(layer: Node) -> int:
    """Of a layer, for one image."""
    weight = layer.inputs[1].type.concrete(1)  # (O, C/groups, KH, KW) or (out, in)
    return prod(layer.output.type.concrete(1)) * prod(weight[1:])

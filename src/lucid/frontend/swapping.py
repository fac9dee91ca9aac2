"""Other weights for a model: by the names of its tensors, or from another file of the network.

    matched(model, "retrained.onnx", [((1, 3, 224, 224),)])

The names of a module's tensors tell what they are. Files of whole networks number theirs as they
like, and hold scalars as part of the graph: there the graphs are compared, and each tensor is given
to where one of its kind is read.
"""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Mapping, Sequence
from typing import Any

from lucid.errors import InputError, ModelFileError, UnsupportedError, WeightsError
from lucid.frontend.images import ORIGIN
from lucid.frontend.sources import Model, Weights, as_model
from lucid.frontend.weights import NETWORKS, load_weights
from lucid.ir.graph import Graph, Value
from lucid.ir.matching import Matching, match
from lucid.ir.recipe import Source
from lucid.ir.types import Shapes

MOST_SHOWN = 20
"""Lines of a message about tensors that do not fit."""


def matched(model: Model, weights: Any, sizes: Sequence[Shapes] = ()) -> Weights:
    """Everything that the graphs of a model read, from other weights: a mapping of tensors by name,
    the path of a weight file, or a network as `lucid.compile` takes it (an ONNX file, a .lucid
    file, a module).

    `sizes`: of the model's inputs, for which graphs are compared, where they are. Raises
    WeightsError where anything is missing, unexpected or misshapen, or where the network is another
    one.
    """
    if isinstance(weights, Mapping):
        return model.match(weights, "the state dict")
    path = isinstance(weights, str | os.PathLike)
    if path and (model.by_name or not str(weights).endswith(NETWORKS)):
        return model.match(load_weights(weights), str(weights))
    try:
        other = as_model(weights)
    except (ModelFileError, UnsupportedError) as problem:
        raise WeightsError(str(problem)) from problem
    except InputError:
        kind = type(weights).__name__
        raise WeightsError(
            f"load_weights takes a path, tensors by name, or a network, got {kind}"
        ) from None
    name = str(weights) if path else f"the {type(weights).__name__}"
    if other.by_name:
        return model.match(other.tensors(), name)
    try:
        return _of_network(model, other, name, sizes)
    except ModelFileError as problem:  # its tensors are read now
        raise WeightsError(str(problem)) from problem


def _of_network(model: Model, other: Model, origin: str, sizes: Sequence[Shapes]) -> Weights:
    """The tensors of another network's file by the names of the model's own."""
    own = model.input_shapes()
    weights: dict[str, Any] = {}
    unmatched: dict[str, Source] = {}
    refusal = "the model has no input shape yet: call `prepare` first"
    for shapes in sizes or ([own] if own else []):
        graph = model.captured(shapes)
        try:
            its = other.captured(_as_taken_by(other, model, shapes))
        except InputError as problem:
            unmatched |= graph.sources()
            refusal = str(problem)
            continue
        found = match(graph, its, dict(zip(_inputs(graph), _inputs(its), strict=False)))
        _check(found, model.name, origin)
        weights |= {a.name: its.payload[b.name] for a, b in found.sources.items()}
    missing = [name for name in unmatched if name in model.state().shapes and name not in weights]
    if missing or not weights:
        raise WeightsError(f"{origin} does not fit {model.name}: {refusal}")
    constants: Any = model.constants  # grows with the sizes that are asked for
    return ChainMap(weights, constants)


def _as_taken_by(other: Model, model: Model, shapes: Shapes) -> Shapes:
    """The shapes of the model's inputs as the other takes them: images as bytes have channels last.
    As they are where the other has more inputs or fewer."""
    own, its = (m.dtypes or ("f32",) * len(shapes) for m in (model, other))
    if len({len(shapes), len(own), len(its)}) > 1:
        return shapes
    return tuple(map(_as_taken_as, shapes, own, its))


def _as_taken_as(shape: tuple[int, ...], own: str, other: str) -> tuple[int, ...]:
    if own == other or len(shape) != 4:
        return shape
    batch, *image = shape
    return (batch, *image[1:], image[0]) if other == "u8" else (batch, image[2], *image[:2])


def _inputs(graph: Graph) -> list[Value]:
    """What the network proper reads: inputs, or what normalises images before it."""
    normalised = [node.output for node in graph.nodes if node.origin == ORIGIN]
    return normalised[-1:] or graph.inputs


def _check(found: Matching, model: str, origin: str) -> None:
    """Raises WeightsError where tensors have other shapes, or else the graphs differ."""
    misfits = [
        f"{a.name}: expected shape {_shape(a)}, got {_shape(b)}"
        + (f" of {b.name}" if a.name != b.name else "")
        for a, b in found.sources.items()
        if a.type != b.type
    ]
    if misfits:
        count = f"{len(misfits)} tensor{'s' if len(misfits) > 1 else ''}"
        raise WeightsError(
            f"{origin} does not fit {model}: {count}\n  "
            + "\n  ".join(misfits[:MOST_SHOWN])
            + ("\n  ..." if len(misfits) > MOST_SHOWN else "")
            + "\nCheck that the weights are of this variant and number of classes."
        )
    if found.differences:
        mine, its = found.differences[0]
        raise WeightsError(
            f"{origin} is another network than {model}. They first differ where\n  {model} has\n"
            f"    {mine}\n  {origin} has\n    {its}\nCompile {origin} instead."
        )


def _shape(source: Source) -> list[int]:
    return list(source.type.concrete(1))

"""`ModelSource`: the graphs of a model of any kind, for each image size and at each stage."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

from lucid.errors import InputError, UnsupportedError
from lucid.frontend import saved as _saved  # noqa: F401  # registers a kind of model
from lucid.frontend.images import takes_images
from lucid.frontend.sources import Model, Plain, as_model, example_shape, only
from lucid.frontend.swapping import matched
from lucid.frontend.weights import SUFFIXES
from lucid.ir.arguments import takes
from lucid.ir.batch import misfit
from lucid.ir.graph import Graph, State
from lucid.ir.passes import PIPELINE, RewriteLog, run_passes
from lucid.ir.stage import CompileStage, Rest, Stage
from lucid.ir.structure import Structure
from lucid.ir.types import Shapes, batch_of
from lucid.runtime.arrays import CHANNELS
from lucid.vision import Preprocess

pass_log = logging.getLogger("lucid.passes")


class ModelSource:
    """The graphs of a model of any kind (see `lucid.frontend.sources`), for each image size and at
    each stage.

    `model`: what a user has, or a `Model` as it is. `images`: how uint8 images are normalised,
    where the graphs are to take those. `weights`: what the graphs hold in place of the model's own,
    as `match` takes it. `compile_stage`: set by who compiles the model, for its further stages.
    """

    def __init__(
        self,
        model: Any,
        disable: Sequence[str],
        images: Preprocess | None = None,
        weights: Any = None,
    ) -> None:
        self.model: Model = cast(Any, model) if isinstance(model, Plain) else self._of(model)
        self.disable = disable
        self.images = images
        self.weights = weights
        self.compile_stage: CompileStage = _no_stages

    @staticmethod
    def _of(model: Any) -> Model:
        try:
            return as_model(model)
        except InputError as problem:
            raise InputError(f"{problem}{_way_to(model)}") from None

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def dtypes(self) -> Sequence[str] | None:
        """Of the inputs, in order; `u8` for images. None where nothing is known of them yet."""
        return self.model.dtypes if self.images is None else ("u8",)

    @property
    def input_names(self) -> Sequence[str] | None:
        """Of the inputs, in order, where they are known."""
        return self.model.input_names if self.images is None else ("images",)

    @property
    def structure(self) -> Structure | None:
        """How the outputs are put together."""
        return self.model.structure

    def own_shapes(self) -> Shapes | None:
        """The shapes that the model takes where it takes just one size, with a batch of 1."""
        return self.model.input_shapes()

    def examples(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> Shapes:
        """The shapes of all inputs, in order, from examples of them. Raises InputError."""
        if self.images is None:
            return self.model.examples(inputs, named)
        given = [*inputs, *named.values()]
        if len(given) != 1 or set(named) - {"images"}:
            raise InputError(f"{self.name} takes one input (images), got {len(given)} examples")
        return (example_shape(given[0]),)

    def shapes_by_name(self, shapes: Mapping[str, Any]) -> Shapes:
        """The shapes of all inputs, in order, from those of some by their names; the others are
        those of a model that has just one size, for the batch of those given. Raises InputError."""
        names, own = self.input_names, self.own_shapes()
        if names is None:
            raise InputError(
                f"{self.name} has inputs without names: give input_shape or example_inputs"
            )
        strangers = [name for name in shapes if name not in names]
        missing = [name for name in names if name not in shapes]
        if strangers or (missing and own is None):
            told = ", ".join(map(str, shapes))
            raise InputError(f"{takes(self.name, len(names), names)}, got shapes of {told}")
        if not missing or own is None:
            return tuple(shapes[name] for name in names)
        types = dict(zip(names, self.captured(own).input_types(), strict=True))
        sizes = tuple(tuple(s) if isinstance(s, Sequence) else () for s in shapes.values())
        batch = batch_of([types[name] for name in shapes], sizes) or 1
        return tuple(shapes.get(name, types[name].concrete(batch)) for name in names)

    def rest(self, shapes: Shapes) -> Rest | None:
        """What is to be done with the results of the graph for inputs of these shapes."""
        return self.model.rest(self._network_shapes(shapes), self.compile_stage)

    def input_shape(self, shape: Any) -> Any:
        """The shape of the input, or the one shape in a sequence, as the graphs have it. For uint8
        images, (N, C, H, W) is taken for (N, H, W, C): no image has so many channels as it would
        say."""
        if self.images is None or not isinstance(shape, Sequence):
            return shape
        if len(shape) == 1:
            return (self.input_shape(shape[0]),)
        if len(shape) != 4:
            return shape
        batch, channels, *size = shape
        swapped = channels in CHANNELS and size[1] not in {channels, self.images.channels}
        return (batch, *size, channels) if swapped else shape

    def captured(self, shapes: Shapes) -> Graph:
        """The graph before any pass. Raises InputError where the shapes do not fit."""
        if self.images is None:
            return self._network(shapes)
        channels, shape = self.images.channels, only(shapes, self.name)
        if len(shape) != 4 or shape[3] != channels:
            raise InputError(
                f"{self.name} takes images uint8 (N, H, W, {channels}), not {shape}; "
                + _images_advice(shape)
            )
        return takes_images(self._network(self._network_shapes(shapes)), self.images)

    def _network(self, shapes: Shapes) -> Graph:
        graph = self.model.captured(shapes)
        if self.weights is not None:
            graph = graph.clone()
            graph.payload = matched(self.model, self.weights, [shapes])
        return graph

    def _network_shapes(self, shapes: Shapes) -> Shapes:
        """The shapes that the model itself takes for inputs of these shapes."""
        if self.images is None:
            return shapes
        ((batch, height, width, channels),) = shapes
        return ((batch, channels, height, width),)

    def graph(self, shapes: Shapes) -> Graph:
        """The optimised graph for inputs of these shapes. Raises InputError where they do not fit,
        WeightsError where it has no values for its parameters."""
        captured = self.captured(shapes)
        if batch_of(captured.input_types(), shapes) is None:
            raise InputError(misfit(captured, shapes))
        self.model.require_weights()
        if not pass_log.isEnabledFor(logging.DEBUG):
            return run_passes(captured, disable=self.disable)
        log = RewriteLog()
        graph = run_passes(captured, None, self.disable, log=log.firings, misses=log.misses)
        for f in log.firings:
            before, after = "\n  ".join(f.before), "\n  ".join(f.after)
            pass_log.debug("%s, %s:\n  %s\nbecomes\n  %s", f.pass_name, f.rule, before, after)
        for miss in log.misses:
            pass_log.debug("%s, %s, did not fire: %s", miss.pass_name, miss.rule, miss)
        return graph

    def rewrites(self, shapes: Shapes) -> RewriteLog:
        """What the passes do to the graph for inputs of these shapes, and what they nearly do."""
        log = RewriteLog([name for name in PIPELINE if name not in self.disable])
        captured = self.captured(shapes)
        run_passes(captured, log.passes, log=log.firings, misses=log.misses)
        return log

    def stages(self) -> list[str]:
        """`captured`, each pass of the pipeline that is not disabled, `canonical` (which is after
        canonicalise) and `fused` (after the last)."""
        first = PIPELINE.index("canonicalise") + 1
        before, after = (
            [name for name in part if name not in self.disable]
            for part in (PIPELINE[:first], PIPELINE[first:])
        )
        return ["captured", *before, "canonical", *after, "fused"]

    def stage(self, shapes: Shapes, name: str) -> Graph:
        """The graph at one of `stages`."""
        names = self.stages()
        done = names[: names.index(name) + 1]
        passes = [n for n in done if n in PIPELINE]
        return run_passes(self.captured(shapes), passes) if passes else self.captured(shapes)

    def state(self) -> State:
        """The tensors that `match` takes."""
        return self.model.state()

    def match(self, weights: Any, sizes: Sequence[Shapes] = ()) -> Mapping[str, Any]:
        """Tensors by name, of a file, a mapping, or a network, which is compared for inputs of
        these sizes. Raises WeightsError where any is unfit."""
        return matched(self.model, weights, [self._network_shapes(shapes) for shapes in sizes])


def _images_advice(shape: Sequence[int]) -> str:
    """What to do about a shape of uint8 images that is not the one of the model's preprocessing."""
    orders = {1: "grey", 3: "rgb"}
    order = orders.get(shape[3]) if len(shape) == 4 else None
    if order is None:
        return "images have one channel (grey) or three (rgb or bgr), the last axis"
    return (
        f"if the network has {shape[3]} channel{'s' if shape[3] > 1 else ''}, compile it with "
        f"preprocess=lucid.vision.Preprocess(order={order!r}, mean=..., std=...)"
    )


def _no_stages(model: Any) -> Stage:
    raise UnsupportedError(
        f"{model.name} is a further stage of a model, which is not compiled here"
    )


def _way_to(model: Any) -> str:
    """What to do with something that is no model and leads to one; empty where nobody knows."""
    from lucid.models.registry import list_models, model_info, suggestion

    if callable(model):
        return ". Call it, if it makes the model"
    if not isinstance(model, str | os.PathLike):
        return ""
    name = str(model)
    package, _, known = name.partition(":")
    if name in list_models():
        shape = model_info(name).input_shape
        return f". To compile this one: lucid.compile(lucid.models.{name}(), {shape})"
    if package in ("timm", "torchvision") and known:
        make = "timm.create_model" if package == "timm" else "torchvision.models.get_model"
        return f". In Python: lucid.compile({make}({known!r}).eval(), (1, 3, 224, 224))"
    if name.lower().endswith(SUFFIXES):
        return ", which holds weights alone: compile their network, then `load_weights` them"
    return suggestion(name, list_models())

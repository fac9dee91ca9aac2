"""`QuantisedModel`: what `lucid.quantize` gives, and `lucid.compile` takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lucid.artifact.container import replacing
from lucid.errors import InputError, ShapeError, WeightsError
from lucid.frontend.sources import GivenGraph, Plain, Weights, kind
from lucid.ir.graph import Graph, State
from lucid.ir.resize import resized
from lucid.ir.structure import Structure
from lucid.ir.types import Shapes, sizes_text
from lucid.onnx.writer import to_onnx
from lucid.quantisation.report import Report

if TYPE_CHECKING:
    import onnx


class QuantisedModel:
    """A network whose layers multiply 8-bit integers.

    `graph`: in ONNX's form, a `dequantize` after each `quantize` and after each stored weight;
    compiling makes integer products of it. `report`: what it cost. `metadata`: as that of compiled
    models, `preprocess` in it where the model said how its images are prepared.
    """

    def __init__(
        self,
        graph: Graph,
        report: Report,
        structure: Structure | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.graph = graph
        self.report = report
        self.structure = structure
        self.metadata = dict(metadata or {})

    def to_onnx(self) -> onnx.ModelProto:
        """The model in ONNX's QDQ form, which every runtime reads. Raises MissingPackageError
        without the package onnx."""
        return to_onnx(self.graph)

    def save_onnx(self, path: str | Path) -> None:
        """Write `to_onnx` to a file: whole, or not at all. Raises OSError."""
        data = self.to_onnx().SerializeToString()
        with replacing(Path(path)) as file:
            file.write(data)

    def __repr__(self) -> str:
        return f"<QuantisedModel {self.graph.name}: {self.report.snr:.1f} dB>"


@kind("the result of lucid.quantize")
class Quantised(Plain):
    """A quantised model as the compiler needs it."""

    by_name = False
    constants: ClassVar[Weights] = {}

    def __init__(self, model: QuantisedModel) -> None:
        self._graph = model.graph
        self._given = GivenGraph(model.graph)
        self.structure = model.structure
        self.name = model.graph.name
        self.dtypes = self._given.dtypes
        self.input_names = self._given.input_names

    @staticmethod
    def accepts(model: Any) -> bool:
        return isinstance(model, QuantisedModel)

    def input_shapes(self) -> Shapes:
        return self._graph.input_shapes(1)

    def captured(self, shapes: Shapes) -> Graph:
        """For images of another size than those that it was calibrated with, too."""
        try:
            return self._given.captured(shapes)
        except InputError as problem:
            if list(map(len, shapes)) != [v.type.rank for v in self._graph.inputs]:
                raise
            try:
                return resized(self._graph, shapes)
            except ShapeError as misfit:
                raise InputError(
                    f"{self.name} takes no {sizes_text(shapes)}: {misfit}; quantise it with "
                    "images of this size"
                ) from problem

    def tensors(self) -> Weights:
        return self._graph.payload

    def require_weights(self) -> None:
        """They were made with it."""

    def state(self) -> State:
        return State({n: source.type.concrete(1) for n, source in self._graph.sources().items()})

    def match(self, weights: Weights, origin: str) -> Weights:
        """Those of the same network, quantised by other data: scales of activations are part of the
        graph, and stay. Raises WeightsError."""
        own = self.tensors()
        misfits = [
            f"{name}: expected {array.dtype}{list(array.shape)}"
            for name, array in own.items()
            if name not in weights
            or np.shape(weights[name]) != array.shape
            or np.asarray(weights[name]).dtype != array.dtype
        ]
        misfits += [f"unexpected: {name}" for name in weights if name not in own]
        if misfits:
            raise WeightsError(
                f"{origin} does not fit {self.name}, which is quantised: {len(misfits)} tensors\n  "
                + "\n  ".join(misfits[:20])
                + "\nQuantise the model with those weights instead."
            )
        return weights

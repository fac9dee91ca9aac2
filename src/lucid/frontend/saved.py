"""Saved models, which `lucid.compile` accepts by path like any other model."""

from __future__ import annotations

import os
from collections import ChainMap
from typing import Any

from lucid.artifact.contents import SUFFIX, Artifact
from lucid.artifact.tensors import Chosen
from lucid.errors import InputError, ShapeError
from lucid.frontend.sources import Plain, Weights, kind
from lucid.frontend.weights import match_weights, without_tables
from lucid.ir.graph import Graph, State
from lucid.ir.resize import resized
from lucid.ir.structure import Structure
from lucid.ir.types import Shapes, TensorType, sizes_text


@kind("the path of a .lucid file (which lucid.load opens as it was compiled)")
class SavedModel(Plain):
    """The graphs and tensors of an artifact, or of the file at a path."""

    by_name = False

    def __init__(self, saved: Any) -> None:
        self.artifact = saved if isinstance(saved, Artifact) else Artifact.open(saved)
        self.name = self.artifact.manifest.name
        self.dtypes = self.artifact.manifest.dtypes

    @staticmethod
    def accepts(model: Any) -> bool:
        if isinstance(model, str | os.PathLike):
            return str(model).endswith(SUFFIX)
        return isinstance(model, Artifact)

    @property
    def structure(self) -> Structure | None:  # type: ignore[override]  # read-only here
        row = self.artifact.manifest.structure
        return Structure.from_json(row) if row else None

    def input_shapes(self) -> Shapes:
        """The shapes that the model was compiled for, with a batch of one."""
        size = self.artifact.size(self.artifact.manifest.input_shapes)
        return (size or self.artifact.manifest.sizes[0]).shapes

    def captured(self, shapes: Shapes) -> Graph:
        if self.artifact.size(shapes) is not None:
            return self.artifact.captured(shapes)
        first, *others = self.artifact.manifest.sizes
        if list(map(len, shapes)) == list(map(len, first.shapes)):
            told = sizes_text(map(_image, first.input_types, shapes))
        else:
            told = sizes_text(shapes)
        if not self.artifact.manifest.any_size:
            held = ", ".join(
                sizes_text(map(_image, size.input_types, size.shapes)) for size in (first, *others)
            )
            raise InputError(
                f"{self.artifact.container.origin} has {self.name} for inputs of {held}, not for "
                f"{told}: the graph depends on the size; `prepare` the model for this "
                "size before it is saved"
            )
        try:
            if list(map(len, shapes)) != list(map(len, first.shapes)):
                ranks = ", ".join(str(len(s)) for s in first.shapes)
                raise ShapeError(f"it takes {ranks} dimensions")
            return resized(self.artifact.captured(first.shapes), shapes)
        except ShapeError as problem:
            wanted = ", ".join(
                str(kind.with_shape((*kind.shape[:1], *shape[1:])))
                for kind, shape in zip(first.input_types, shapes, strict=False)
            )
            raise InputError(f"{self.name} takes no {wanted}: {problem}") from problem

    def require_weights(self) -> None:
        """They are in the file."""

    def tensors(self) -> Weights:
        return {name: self.artifact.payload[name] for name in self.artifact.manifest.state}

    @property
    def constants(self) -> Weights:
        return Chosen(self.artifact.payload, self.artifact.manifest.constants)

    def state(self) -> State:
        manifest = self.artifact.manifest
        return State(manifest.state, Chosen(self.artifact.payload, manifest.tables))

    def match(self, weights: Weights, origin: str) -> Weights:
        manifest = self.artifact.manifest
        found = without_tables(weights, self.state().tables, origin, self.name)
        matched, _ = match_weights(manifest.state, found, origin, self.name)
        constants: Any = self.constants
        return ChainMap(matched, constants)


def _image(kind: TensorType, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A size without the batch."""
    return tuple(d for axis, d in enumerate(shape) if axis not in kind.batch_axes())

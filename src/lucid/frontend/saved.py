"""Saved models, which `lucid.compile` accepts by path like any other model."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from lucid.artifact.contents import SUFFIX, Artifact
from lucid.errors import InputError, ShapeError, WeightsError
from lucid.frontend.sources import Weights, kind
from lucid.frontend.weights import match_weights, normalise_keys
from lucid.ir.graph import Graph, State
from lucid.ir.resize import resized
from lucid.ir.types import BATCH, Shapes, TensorType, sizes_text, with_batch


@kind("the path of a .lucid file (which lucid.load opens as it was compiled)")
class SavedModel:
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

    def input_shapes(self) -> Shapes:
        """The shapes that the model was compiled for, with a batch of one."""
        return with_batch(self.artifact.manifest.input_shapes, 1)

    def captured(self, shapes: Shapes) -> Graph:
        size = with_batch(shapes, 1)
        if self.artifact.size(size) is not None:
            return self.artifact.captured(size)
        first, *others = (s.shapes for s in self.artifact.manifest.sizes)
        if not self.artifact.manifest.any_size:
            held = ", ".join(map(_images, (first, *others)))
            raise InputError(
                f"{self.artifact.container.origin} has {self.name} for inputs of {held}, not for "
                f"{_images(size)}: the graph depends on the size; `prepare` the model for this "
                "size before it is saved"
            )
        known = self.artifact.captured(first)
        try:
            if list(map(len, size)) != list(map(len, first)):
                raise ShapeError(f"it takes {', '.join(str(len(s)) for s in first)} dimensions")
            return resized(known, size)
        except ShapeError as problem:
            wanted = ", ".join(
                str(TensorType(dtype, (BATCH, *shape[1:])))
                for dtype, shape in zip(self.dtypes, size, strict=False)
            )
            raise InputError(f"{self.name} takes no {wanted}: {problem}") from problem

    def require_weights(self) -> None:
        """They are in the file."""

    def tensors(self) -> Weights:
        return {name: self.artifact.payload[name] for name in self.artifact.manifest.state}

    @property
    def constants(self) -> Weights:
        return {name: self.artifact.payload[name] for name in self.artifact.manifest.constants}

    def state(self) -> State:
        payload, manifest = self.artifact.payload, self.artifact.manifest
        return State(manifest.state, {name: payload[name] for name in manifest.tables})

    def match(self, weights: Weights, origin: str) -> Weights:
        payload, manifest = self.artifact.payload, self.artifact.manifest
        found = normalise_keys(weights, origin)
        for name in manifest.tables:
            if name in found and not np.array_equal(np.asarray(found.pop(name)), payload[name]):
                raise WeightsError(
                    f"{origin}: {name}, a table of integers, differs from the one that "
                    f"{self.name} was saved with; compile the model with these weights"
                )
        matched, _ = match_weights(manifest.state, found, origin, self.name)
        return {**self.constants, **matched}


def _images(shapes: Shapes) -> str:
    """Sizes without the batch: `3x224x224`"""
    return sizes_text(shape[1:] for shape in shapes)

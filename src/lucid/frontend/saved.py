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


@kind("the path of a .lucid file (which lucid.load opens as it was compiled)")
class SavedModel:
    """The graphs and tensors of an artifact, or of the file at a path."""

    by_name = False

    def __init__(self, saved: Any) -> None:
        self.artifact = saved if isinstance(saved, Artifact) else Artifact.open(saved)
        self.name = self.artifact.manifest.name
        self.dtype = self.artifact.manifest.dtype

    @staticmethod
    def accepts(model: Any) -> bool:
        if isinstance(model, str | os.PathLike):
            return str(model).endswith(SUFFIX)
        return isinstance(model, Artifact)

    def input_shape(self) -> tuple[int, ...]:
        """The shape that the model was compiled for, with a batch of one."""
        return (1, *self.artifact.manifest.input_shape[1:])

    def captured(self, shape: tuple[int, ...]) -> Graph:
        image, sizes = shape[1:], self.artifact.manifest.sizes
        if self.artifact.size(image) is not None:
            return self.artifact.captured(image)
        if not self.artifact.manifest.any_size:
            held = ", ".join("x".join(map(str, s.image)) for s in sizes)
            raise InputError(
                f"{self.artifact.container.origin} has {self.name} for inputs of {held}, not for "
                f"{'x'.join(map(str, image))}: the graph depends on the size; `prepare` the model "
                "for this size before it is saved"
            )
        known = self.artifact.captured(sizes[0].image)
        try:
            if len(image) != len(sizes[0].image):
                raise ShapeError(f"it takes {len(sizes[0].image) + 1} dimensions")
            return resized(known, shape)
        except ShapeError as problem:
            (value,) = known.inputs
            wanted = value.type.with_shape((value.type.shape[0], *image))
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

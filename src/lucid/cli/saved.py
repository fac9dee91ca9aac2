"""Saved models on the command line: the preprocessing and labels in the metadata of files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lucid.cli.model import Subject, spec_for
from lucid.errors import InputError

if TYPE_CHECKING:
    from lucid.vision import Preprocess


def from_artifact(spec: str, weights: Path | None) -> Subject:
    """The model in a .lucid file. Raises ModelFileError."""
    from lucid.artifact.contents import Artifact
    from lucid.frontend.saved import SavedModel

    artifact = Artifact.open(spec)
    manifest, shapes = artifact.manifest, SavedModel(artifact).input_shapes()
    told = manifest.metadata
    labels = told.get("labels")
    return Subject(
        spec,
        spec,
        preprocess_of(told.get("preprocess")) or spec_for(shapes[0] if shapes else ()),
        bool(told.get("trained", True)),
        tuple(map(str, labels)) if isinstance(labels, list) else None,
        shapes,
        next(iter(manifest.dtypes), "f32"),
        saved=True,
        weights=weights,
    )


def metadata_of(subject: Subject) -> dict[str, Any]:
    """What an artifact is to say of a model besides how it computes."""
    return {
        "preprocess": dataclasses.asdict(subject.preprocess),
        "labels": None if subject.labels is None else list(subject.labels),
        "trained": subject.trained,
    }


PROPERTIES = {"preprocess": "lucid.preprocess", "labels": "labels", "trained": "lucid.trained"}
"""What the parts of `metadata_of` are called in the metadata of ONNX files."""


def properties_of(subject: Subject) -> dict[str, str]:
    """The same for the metadata of an ONNX file, as JSON."""
    told = metadata_of(subject)
    return {PROPERTIES[key]: json.dumps(value) for key, value in told.items() if value is not None}


def from_properties(properties: Mapping[str, str], key: str) -> Any:
    """A part of `metadata_of` in an ONNX file's metadata; None where it is missing, or no JSON."""
    try:
        return json.loads(properties.get(PROPERTIES[key], "null"))
    except ValueError:
        return None


def preprocess_of(row: Any) -> Preprocess | None:
    """The preprocessing in metadata, if it is one that this version knows."""
    from lucid.vision import Preprocess

    if not isinstance(row, Mapping):
        return None
    try:
        return Preprocess(**row)
    except (InputError, TypeError):  # another version's
        return None

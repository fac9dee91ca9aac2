"""Saved models on the command line: the preprocessing and labels in their metadata."""

from __future__ import annotations

import dataclasses
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
    from lucid.ir.types import with_batch

    manifest = Artifact.open(spec).manifest
    shapes, told = with_batch(manifest.input_shapes, 1), manifest.metadata
    labels = told.get("labels")
    return Subject(
        spec,
        spec,
        _preprocess(told.get("preprocess")) or spec_for(shapes[0]),
        bool(told.get("trained", True)),
        tuple(map(str, labels)) if isinstance(labels, list) else None,
        shapes,
        manifest.dtypes[0],
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


def _preprocess(row: Any) -> Preprocess | None:
    from lucid.vision import Preprocess

    if not isinstance(row, Mapping):
        return None
    try:
        return Preprocess(**row)
    except (InputError, TypeError):  # another version's
        return None

"""The inputs of `lucid run`: preprocessed images, or arrays as they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from lucid.cli.app import told
from lucid.cli.model import Subject, parse_size
from lucid.errors import ImageError, InputError, LucidError
from lucid.ir.types import DTYPES

if TYPE_CHECKING:
    from lucid.vision import Preprocess

Array = np.ndarray[Any, np.dtype[Any]]

BATCH = 32
"""Files that are run together, so that folders of any length fit into memory."""


def spec_with(spec: Preprocess, settings: list[str] | None, size: str | None) -> Preprocess:
    """The spec for another size and with other fields, such as `mean=0.5,0.5,0.5`. A usage error
    where they make no sense."""
    if size is not None:
        numbers = parse_size(size)
        spec = spec.at(*(numbers * 2 if len(numbers) == 1 else numbers)[-2:])
    known = {f.name for f in fields(spec)} - {"size"}
    given: dict[str, Any] = {}
    for setting in settings or ():
        key, _, text = setting.partition("=")
        if key not in known or not text:
            raise typer.BadParameter(
                f"--preprocess {setting!r}: write KEY=VALUE, KEY one of {', '.join(sorted(known))}"
            )
        given[key] = _value(key, text)
    if given.get("order", spec.order) == "grey" and spec.order != "grey":
        given = {"mean": 0.0, "std": 1.0} | given
    try:
        return replace(spec, **given)
    except InputError as error:
        raise typer.BadParameter(f"--preprocess: {error}") from error


def _value(key: str, text: str) -> Any:
    try:
        if key == "resize":
            sides = parse_size(text)
            return sides[0] if len(sides) == 1 else sides
        if key in ("mean", "std"):
            return tuple(map(float, text.split(",")))
        return text if key in ("interpolation", "order") else float(text)
    except ValueError as error:
        raise typer.BadParameter(f"--preprocess {key}={text}: not a number") from error


@dataclass(frozen=True)
class Refused:
    """An image that could not be read or run, and why; the reason names it."""

    name: str
    reason: str


def image_files(paths: list[Path], subject: Subject) -> list[Path]:
    """The paths, folders replaced by the images (or arrays) in them and in the folders inside,
    sorted. Raises ImageError for a folder without any."""
    from PIL import Image

    kinds = {".npy", *(Image.registered_extensions() if subject.layout else ())}
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        found = sorted(p for p in path.rglob("[!.]*") if p.suffix.lower() in kinds and p.is_file())
        if not found:
            raise ImageError(f"{path}: no {'images' if subject.layout else '.npy files'} in there")
        files += found
    return files


def read_batches(
    paths: list[Path], subject: Subject, spec: Preprocess, refused: list[Refused]
) -> Iterator[tuple[list[str], Array]]:
    """The images in batches of one size, of BATCH files at most, with what to call each image.

    What cannot be read is added to `refused`: files that are not images, arrays that do
    not fit, or images for a model that does not take images.
    """
    names: list[str] = []
    batch: list[Array] = []
    for path in paths:
        try:
            array = _read(path, subject, spec)
        except (LucidError, OSError) as problem:
            refused.append(Refused(str(path), told(problem)))
            continue
        if batch and (batch[0].shape[1:] != array.shape[1:] or len(batch) == BATCH):
            yield names, np.concatenate(batch)
            names, batch = [], []
        batch.append(array)
        names += [str(path)] if len(array) == 1 else [f"{path}[{i}]" for i in range(len(array))]
    if batch:
        yield names, np.concatenate(batch)


def _read(path: Path, subject: Subject, spec: Preprocess) -> Array:
    """One file as a batch, of one image mostly."""
    source: Any = path
    if path.suffix.lower() == ".npy":
        source = _load(path)
        if source.dtype != np.uint8 or not subject.layout:
            return _as_it_is(source, path, subject)
    elif not subject.layout:
        raise InputError(f"{_wanted(subject)}, not images: give arrays in .npy files")
    if subject.layout == "nhwc" and subject.dtype == "u8":
        return spec.to_uint8_nhwc(source)
    batch = spec.normalise(spec.to_uint8_nhwc(source))
    return batch if subject.layout == "nchw" else np.ascontiguousarray(np.moveaxis(batch, 1, 3))


def _as_it_is(array: Array, path: Path, subject: Subject) -> Array:
    """An array as a batch of inputs, one where it has a dimension less. Raises InputError."""
    rank = len(subject.own_shape)
    if array.ndim == rank - 1:
        array = array[None]
    if array.ndim != rank or not array.size or array.dtype.kind not in "fiu":
        shape = ",".join(map(str, array.shape))
        raise InputError(f"{path} holds {array.dtype}[{shape}]; {_wanted(subject)}")
    return array.astype(DTYPES[subject.dtype])


def _wanted(subject: Subject) -> str:
    sizes = ",".join(map(str, subject.own_shape[1:]))
    return f"{subject.name} takes {subject.dtype}[N,{sizes}]"


def _load(path: Path) -> Array:
    try:
        loaded = np.load(path, allow_pickle=False)
    except OSError:
        raise
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} is not a .npy file with one array: {error}") from error
    if not isinstance(loaded, np.ndarray):
        raise InputError(f"{path} is not a .npy file with one array")
    return loaded

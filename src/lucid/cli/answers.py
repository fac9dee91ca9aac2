"""How `lucid run` presents outputs: as classes, as classes of pixels, or as ranges of values."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer

from lucid.cli.model import Subject
from lucid.cli.output import print_table, write_bytes
from lucid.errors import InputError

Array = np.ndarray[Any, np.dtype[Any]]
Outputs = tuple[Array, ...]


def scores(outputs: Outputs) -> Array | None:
    """The outputs of a classifier as (N, classes); None for what is none."""
    if len(outputs) != 1:
        return None
    y = outputs[0]
    if y.ndim == 4 and y.shape[2:] == (1, 1):
        y = y[:, :, 0, 0]
    return y if y.ndim == 2 else None


@dataclass(frozen=True)
class Pixels:
    """The class of each pixel, (N, H, W), and how many classes there are; at least so many where
    that is not `exact`."""

    classes: Array
    count: int
    exact: bool = True


def pixels(outputs: Outputs) -> Pixels | None:
    """What a network that classifies pixels says, in scores (N, classes, H, W) or in integers; None
    for another one."""
    if scores(outputs) is not None:
        return None
    for y in outputs:
        if y.ndim == 4 and y.shape[1] > 1:
            return Pixels(y.argmax(1), y.shape[1])
        whole = y[:, 0] if y.ndim == 4 else y
        if whole.ndim == 3 and y.dtype.kind in "iu" and y.size and y.min() >= 0:
            return Pixels(whole, int(y.max()) + 1, exact=False)
    return None


def class_names(labels: Path | None, subject: Subject, results: list[Outputs]) -> list[str]:
    """The names of the classes. Raises InputError where the file has another number of them."""
    classes, exact = 0, True
    for outputs in results:
        logits, found = scores(outputs), pixels(outputs)
        if logits is not None:
            classes = logits.shape[1]
        elif found is not None:
            classes, exact = max(classes, found.count), found.exact
    if labels is None:
        known = list(subject.labels or ())
        fits = len(known) == classes or (len(known) > classes and not exact)
        return known if fits else [f"class {i}" for i in range(classes)]
    try:
        names = labels.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{labels}: not text ({error.reason})") from error
    if len(names) < classes or (len(names) > classes and exact):
        raise InputError(f"{labels} names {len(names)} classes, the model has {classes}")
    return names


def answers(
    batches: list[list[str]], results: list[Outputs], names: list[str], top: int
) -> list[dict[str, Any]]:
    """For each image its likeliest classes, the classes of its pixels, or what its outputs are;
    those of a batch together where they are not one for each image (boxes of all of them)."""
    told = []
    for images, outputs in zip(batches, results, strict=True):
        if any(y.ndim == 0 or len(y) != len(images) for y in outputs):
            told.append({"image": ", ".join(images), "outputs": list(map(_range, outputs))})
            continue
        logits, found = scores(outputs), pixels(outputs)
        for i, image in enumerate(images):
            answer: dict[str, Any] = {"image": image}
            if logits is not None:
                answer["top"] = _likeliest(logits[i], names, top)
            elif found is not None:
                answer |= _shares(found.classes[i], names, top)
            else:
                answer["outputs"] = [_range(y[i]) for y in outputs]
            told.append(answer)
    return told


def _likeliest(logits: Array, names: list[str], top: int) -> list[dict[str, Any]]:
    """Some networks end in a softmax; the others' logits go through one here."""
    likely = logits
    if not (logits.min() >= 0 and abs(float(logits.sum()) - 1) < 1e-3):
        powers = np.exp(logits - logits.max())
        likely = powers / powers.sum()
    best = np.argsort(-likely, kind="stable")[:top]
    return [{"class": int(i), "label": names[i], "probability": float(likely[i])} for i in best]


def _shares(classes: Array, names: list[str], top: int) -> dict[str, Any]:
    """The share of the pixels (H, W) that are of each class."""
    shares = np.bincount(classes.ravel(), minlength=len(names)) / classes.size
    best = [int(i) for i in np.argsort(-shares, kind="stable")[:top] if shares[i]]
    told = [{"class": i, "label": names[i], "share": float(shares[i])} for i in best]
    return {"shape": [len(names), *classes.shape], "pixels": told}


def _range(values: Array) -> dict[str, Any]:
    """The shape of values, and their range where they are numbers, and any."""
    if not values.size or values.dtype.kind in "OSU":
        return {"shape": list(values.shape)}
    numbers = {"min": values.min(), "mean": values.mean(), "max": values.max()}
    return {"shape": list(values.shape), **{k: float(v) for k, v in numbers.items()}}


# -- showing --------------------------------------------------------------------------------


def show(result: dict[str, Any]) -> None:
    """The answers as a table for people."""
    images = result["images"]
    if "top" in images[0]:
        rows = [
            _row(a["image"], i, c, "probability") for a in images for i, c in _numbered(a["top"])
        ]
        print_table(("image", "index", "class", "probability"), rows, ("index", "probability"))
    elif "pixels" in images[0]:
        rows = [
            _row(f"{a['image']} ({_by(a['shape'])})", i, c, "share")
            for a in images
            for i, c in _numbered(a["pixels"])
        ]
        print_table(("image", "index", "class of pixels", "share"), rows, ("index", "share"))
    else:
        rows = [
            (a["image"], _by(y["shape"]), *(_number(y.get(k)) for k in ("min", "mean", "max")))
            for a in images
            for y in a["outputs"]
        ]
        print_table(("image", "output", "min", "mean", "max"), rows, ("min", "mean", "max"))
    if "compare" in result:
        _show_agreement(result["compare"])


def _numbered(classes: list[dict[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
    return list(enumerate(classes))


def _row(image: str, rank: int, told: dict[str, Any], number: str) -> tuple[str, ...]:
    name = "" if rank else image
    return name, str(told["class"]), told["label"], f"{told[number]:.2%}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _by(shape: list[int]) -> str:
    return "x".join(map(str, shape)) or "a number"


def _show_agreement(agreement: dict[str, Any]) -> None:
    typer.echo(
        f"largest difference from the float64 interpreter: {agreement['relative_error']:.1e} "
        "of the largest output"
    )
    if "same_class" in agreement:
        typer.echo(f"same class: {agreement['same_class']} of {agreement['images']}")


def write_mask(outputs: Outputs, path: Path) -> None:
    """The likeliest class of each pixel of the first image, as a PNG of class numbers with a colour
    for each. Raises InputError for a network that classifies no pixels."""
    from PIL import Image

    found = pixels(outputs)
    if found is None:
        raise InputError("--out is for networks that classify pixels; this is none")
    if found.count > 256:
        mask = Image.fromarray(found.classes[0].astype(np.uint16))
    else:
        mask = Image.fromarray(found.classes[0].astype(np.uint8))
        mask.putpalette(_colours().tobytes())
    png = io.BytesIO()
    mask.save(png, "PNG")
    write_bytes(png.getvalue(), path)


def _colours() -> Array:
    """256 colours (256, 3), black first: the bits of a class's number spread over red, green and
    blue, highest bits first, as segmentation masks are often painted."""
    numbers, colours = np.arange(256), np.zeros((256, 3), np.uint8)
    for bit in range(8):
        channel, place = bit % 3, 7 - bit // 3
        colours[:, channel] |= ((numbers >> bit & 1) << place).astype(np.uint8)
    return colours

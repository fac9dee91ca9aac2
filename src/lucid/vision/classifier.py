"""`Classifier`: a compiled model from images as they are stored to columns of results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from lucid.errors import InputError
from lucid.vision.spec import Preprocess

Array = np.ndarray[Any, np.dtype[Any]]


class Spec(Protocol):
    """What a `Classifier` reads of an input or output: a `TensorSpec`, such as `float32[N,10]`."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int | str, ...]: ...


class Model(Protocol):
    """What a `Classifier` needs of its model: a `lucid.CompiledModel` has it."""

    @property
    def inputs(self) -> Sequence[Spec]: ...
    @property
    def outputs(self) -> Sequence[Spec]: ...
    def __call__(self, *inputs: Any, out: Sequence[Array]) -> Any: ...


class Classifier:
    """Images in, columns out: for engines that run a model over tables.

    classifier = lucid.vision.Classifier(lucid.load("m.lucid", threads=1))
    columns = classifier.predict(table["bytes"])  # label, score, embedding, error

    `model`: a compiled model of one input of images, uint8 (N, H, W, C) or float32 (N, C, H, W),
    whose first output is (N, classes), and whose second, if there is one, (N, size) the embedding.
    `preprocess`: what `Preprocess.of` accepts; by default what the model says. It may be called
    from many threads. Raises InputError for another model, or one that says nothing of its images.
    """

    def __init__(self, model: Model, preprocess: Any = None) -> None:
        self.model = model
        self.preprocess = Preprocess.of(model if preprocess is None else preprocess)
        self._tables = _tables(model.outputs)
        self._takes_levels = _takes_levels(model.inputs, self.preprocess.channels)

    def predict(self, images: Iterable[Any]) -> dict[str, Array]:
        """Columns with a row for each of N images, of a kind that `preprocess` takes: bytes of
        files, say.

        `label`: int64, the class with the largest score. `score`: that score, float32, as the model
        computes it (a probability where it ends in a softmax). `embedding`: (N, size) float32,
        where the model has one. `error`: "", or why the image could not be read; its label is -1,
        its score and embedding NaN, and the other rows are the bits that they are without it.
        """
        levels, errors = self.preprocess.read_each(images)
        count, read = len(errors), np.array([not error for error in errors], bool)
        outputs = [np.full((count, size), np.nan, kind) for kind, size in self._tables]
        if len(levels):
            for column, result in zip(outputs, self._run(levels), strict=True):
                column[read] = result
        columns: dict[str, Array] = {
            "label": np.full(count, -1, np.int64),
            "score": np.full(count, np.nan, np.float32),
        }
        columns["label"][read] = outputs[0][read].argmax(1)
        columns["score"][read] = outputs[0][read].max(1)
        if len(outputs) > 1:
            columns["embedding"] = outputs[1]
        return columns | {"error": np.array(errors, np.str_)}

    def _run(self, levels: Array) -> list[Array]:
        """The flat outputs for uint8 images (M, H, W, C), M at least 1."""
        batch = levels if self._takes_levels else self.preprocess.normalise(levels)
        outs: list[Array] = [np.empty((len(levels), size), kind) for kind, size in self._tables]
        self.model(batch, out=outs)
        return outs


def _tables(outputs: Sequence[Spec]) -> list[tuple[str, int]]:
    """The dtype of each output and its numbers for an image. Raises InputError."""
    tables = []
    for spec in outputs:
        match spec.shape:
            case (_, int(size)) if spec.dtype.startswith("float"):
                tables.append((spec.dtype, size))
    if len(outputs) not in (1, 2) or len(tables) != len(outputs):
        raise InputError(
            "a Classifier wants a model whose outputs are floats (N, classes) and perhaps "
            f"(N, size), the embedding; this one gives {_told(outputs)}: return only those, or use "
            "Preprocess.read_each and call the model yourself"
        )
    return tables


def _takes_levels(inputs: Sequence[Spec], channels: int) -> bool:
    """Whether the model takes uint8 images; else normalised ones. Raises InputError."""
    match [(spec.dtype, *spec.shape[1:]) for spec in inputs]:
        case [("uint8", _, _, last)] if last == channels:
            return True
        case [("float32", first, _, _)] if first == channels:
            return False
    raise InputError(
        f"a Classifier wants a model of one input, uint8 (N, H, W, {channels}) or float32 "
        f"(N, {channels}, H, W); this one takes {_told(inputs)}"
    )


def _told(specs: Sequence[Spec]) -> str:
    return ", ".join(f"{s.dtype}[{','.join(map(str, s.shape))}]" for s in specs) or "nothing"

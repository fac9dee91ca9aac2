"""Columns from images: the model's own bits, one row an image, and broken ones among them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import lucid
from lucid.errors import InputError
from lucid.models import model_info, resnest_digits
from lucid.vision import Classifier, Preprocess, preprocess

SPEC = model_info("resnest_digits").preprocess
DIGITS = sorted(Path(__file__).parents[2].glob("examples/digits/*.png"))
BROKEN = (b"", b"\x89PNG broken", None, "nowhere.png", 3.5, np.nan)


@pytest.fixture(scope="module", params=["float32_nchw", "uint8_nhwc"])
def model(request) -> lucid.CompiledModel:
    shape = (1, 1, 32, 32) if request.param == "float32_nchw" else (1, 32, 32, 1)
    return lucid.compile(resnest_digits(), shape, input=request.param, threads=1)


def test_rows_are_the_models_results(model):
    columns = Classifier(model).predict([path.read_bytes() for path in DIGITS])
    images = SPEC.to_uint8_nhwc(DIGITS)
    logits = model(images if model.inputs[0].dtype == "uint8" else SPEC.normalise(images))
    np.testing.assert_array_equal(columns["label"], [int(path.name[0]) for path in DIGITS])
    np.testing.assert_array_equal(columns["score"], logits.max(1))
    assert columns["error"].tolist() == [""] * len(DIGITS)
    assert list(columns) == ["label", "score", "error"]


def test_a_broken_image_loses_its_row_alone(model):
    classifier = Classifier(model)
    whole = classifier.predict(DIGITS[:3])
    mixed = classifier.predict([DIGITS[0], *BROKEN, *DIGITS[1:3]])
    read = mixed["error"] == ""
    assert read.tolist() == [True, *[False] * len(BROKEN), True, True]
    for name, column in mixed.items():
        np.testing.assert_array_equal(column[read], whole[name])
    assert (mixed["label"][~read] == -1).all()
    assert np.isnan(mixed["score"][~read]).all()
    assert all("image" in error for error in mixed["error"][~read])
    assert "nowhere.png" in mixed["error"][4]


@pytest.mark.parametrize("images", [[], [None, b"x"]])
def test_columns_without_any_image(model, images):
    columns = Classifier(model).predict(images)
    assert {name: column.shape for name, column in columns.items()} == {
        name: (len(images),) for name in ("label", "score", "error")
    }
    assert [columns[name].dtype.kind for name in columns] == ["i", "f", "U"]


def fake(inputs: list[tuple[str, tuple]], outputs: list[tuple[str, tuple]], **more: Any) -> Any:
    """A model with this signature, of ImageNet's preprocessing."""

    def specs(pairs):
        return [SimpleNamespace(dtype=dtype, shape=shape) for dtype, shape in pairs]

    return SimpleNamespace(
        inputs=specs(inputs), outputs=specs(outputs), preprocess=Preprocess(size=8), **more
    )


class Sums:
    """(N, 3, 8, 8) -> the sums of its channels, (N, 3), and of all, (N, 1), as an embedding."""

    def __init__(self, signature: Any) -> None:
        self.inputs, self.outputs = signature.inputs, signature.outputs
        self.preprocess = signature.preprocess

    def __call__(self, x: np.ndarray, out: list[np.ndarray]) -> None:
        out[0][:], out[1][:] = x.sum((2, 3)), x.sum((1, 2, 3))[:, None]


IMAGES = [("float32", ("N", 3, 8, 8))]


def test_a_second_output_is_the_embedding():
    outputs = [("float32", ("N", 3)), ("float32", ("N", 1))]
    classifier = Classifier(Sums(fake(IMAGES, outputs)))
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    columns = classifier.predict([image, None])
    x = preprocess(image, classifier.preprocess)
    assert columns["label"].tolist() == [int(x.sum((2, 3)).argmax()), -1]
    np.testing.assert_array_equal(columns["embedding"], [[x.sum((1, 2, 3))[0]], [np.nan]])


SCORES = [("float32", ("N", 10))]


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (IMAGES, [("float32", ("N", 10, 7, 7))]),
        (IMAGES, [("int64", ("N", 10))]),
        (IMAGES, [("float32", ("N", "?"))]),
        (IMAGES, SCORES * 3),
        (IMAGES, []),
        (IMAGES * 2, SCORES),
        ([("float32", ("N", 8, 8, 3))], SCORES),
        ([("uint8", ("N", 8, 8, 1))], SCORES),
        ([("int64", ("N", 8))], SCORES),
    ],
)
def test_other_models_are_refused(inputs, outputs):
    with pytest.raises(InputError, match=r"a Classifier wants a model.* this one (gives|takes)"):
        Classifier(fake(inputs, outputs))


def test_a_model_that_says_nothing_of_its_images_is_refused():
    silent = SimpleNamespace(inputs=[], outputs=[])
    with pytest.raises(InputError, match="says nothing about its images"):
        Classifier(silent)


def test_without_a_size_the_first_image_decides():
    spec = Preprocess(size=None)
    shapes = [(4, 6, 3), (4, 6, 3), (6, 4, 3)]
    levels, reasons = spec.read_each([None, *(np.zeros(shape, np.uint8) for shape in shapes)])
    assert levels.shape == (2, 4, 6, 3)
    assert [bool(reason) for reason in reasons] == [True, False, False, True]
    assert "becomes 6x4 and others 4x6" in reasons[3]
    assert spec.read_each([])[0].shape == (0, 0, 0, 3)

"""Files as models that are served, and the images they take."""

import asyncio
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving import Doubler

import lucid
from lucid.errors import InputError, MissingPackageError
from lucid.runtime.executable import CompiledModel
from lucid.runtime.signature import TensorSpec
from lucid.serve.errors import RequestError
from lucid.serve.images import ImageInput
from lucid.serve.model import Batching, LucidModel, _rows, run
from lucid.serve.tensors import Tensor
from lucid.vision import Preprocess, preprocess

DIGITS = sorted((Path(__file__).parents[2] / "examples" / "digits").glob("*.png"))[:3]


def encoded(size=(40, 30), mode="RGB", format="PNG"):
    file = io.BytesIO()
    Image.new(mode, size, 77).save(file, format)
    return memoryview(file.getvalue())


def test_images_become_what_lucid_run_makes_of_them(digits, digits_file):
    model = LucidModel(digits_file, Batching(max_batch=1), 8)
    images = [memoryview(path.read_bytes()) for path in DIGITS]
    (found,) = asyncio.run(run(model, [images]))
    np.testing.assert_array_equal(found, digits(preprocess(list(DIGITS), digits)))


@pytest.mark.parametrize(
    ("tensor", "preprocess", "shape"),
    [
        (Tensor("x", "FP32", (-1, 3, 8, 6)), Preprocess((8, 6)), (1, 3, 8, 6)),
        (Tensor("x", "FP32", (-1, 8, 6, 3)), Preprocess((8, 6)), (1, 8, 6, 3)),
        (Tensor("x", "UINT8", (-1, 8, 6, 3)), Preprocess((8, 6)), (1, 8, 6, 3)),
        (Tensor("x", "UINT8", (-1, 3, 8, 6)), Preprocess((8, 6)), None),
        (Tensor("x", "FP32", (-1, 3, 9, 6)), Preprocess((8, 6)), None),
        (Tensor("x", "FP32", (-1, 3, 8, 6)), Preprocess(None), None),
        (Tensor("x", "FP32", (-1, 3)), Preprocess((8, 6)), None),
    ],
)
def test_which_inputs_take_images(tensor, preprocess, shape):
    images = ImageInput.of(tensor, preprocess)
    assert (images is None) == (shape is None)
    if images is not None:
        assert images.decode([encoded()]).shape == shape
        assert tensor.takes(shape)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"GIF89a", 400),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 400),
        (bytes(encoded(format="BMP")), 400),
        (bytes(encoded())[:-30], 400),
        (bytes(encoded((9000, 9000), "1")), 413),
        (bytes(encoded((30000, 30000), "1")), 413),
    ],
)
def test_what_is_no_image(data, status):
    images = ImageInput.of(Tensor("x", "UINT8", (-1, 8, 6, 3)), Preprocess((8, 6)))
    with pytest.raises(RequestError) as refused:
        images.decode([memoryview(data)])
    assert refused.value.status == status


def test_rows_that_depend_on_one_another_are_called_one_by_one(tmp_path):
    class Mean(lucid.nn.Module):
        def forward(self, x):
            return x.mean((0, 1)), x + 1.0

    compiled = lucid.compile(Mean(), (2, 3))
    compiled.save(tmp_path / "mean.lucid")
    model = LucidModel(tmp_path / "mean.lucid", Batching(), 8)
    x = np.arange(12, dtype=np.float32).reshape(4, 3)

    async def several():
        return await asyncio.gather(*(model.infer([x[i : i + 2]]) for i in (0, 2)))

    for start, outputs in zip((0, 2), asyncio.run(several()), strict=True):
        mean, shifted = outputs
        np.testing.assert_allclose(mean, x[start : start + 2].mean())
        np.testing.assert_array_equal(shifted, x[start : start + 2] + 1)
    assert model.batch_sizes() == {}
    with pytest.raises(RequestError, match="9 rows in a request, of 8 at most"):
        asyncio.run(run(model, [np.zeros((9, 3), np.float32)]))


def test_batches_that_cannot_be_planned_are_not_made(digits_file, monkeypatch, caplog):
    prepare = CompiledModel.prepare_calls

    def limited(self, shapes):
        if shapes[0][0] == 3:
            raise MissingPackageError("no compiler")
        return prepare(self, shapes)

    monkeypatch.setattr(CompiledModel, "prepare_calls", limited)
    model = LucidModel(digits_file, Batching(), 8)
    assert "no batches of more than 2: no compiler" in caplog.text

    async def several():
        await asyncio.gather(
            *(model.infer([np.zeros((1, 1, 32, 32), np.float32)]) for _ in "12345")
        )

    asyncio.run(several())
    asyncio.run(model.infer([np.zeros((5, 1, 32, 32), np.float32)]))
    assert max(model.batch_sizes()) <= 2


def test_a_request_of_many_rows_is_several_calls(digits, digits_file, monkeypatch):
    model = LucidModel(digits_file, Batching(max_batch=4), 8)
    monkeypatch.setattr(CompiledModel, "prepare", None)  # all is planned
    x = np.random.default_rng(0).random((11, 1, 32, 32), np.float32)
    (found,) = asyncio.run(run(model, [x]))
    np.testing.assert_array_equal(found, digits(x))
    assert model.batch_sizes() == {4: 2, 3: 1}


def test_rows_of_inputs():
    specs = [TensorSpec("x", "float32", ("N", 3)), TensorSpec("y", "float32", ("2N",))]
    for sizes, rows in [((5, 10), 5), ((20, 10), 1), ((5, 11), 1)]:
        assert _rows(specs, [np.zeros((sizes[0], 3)), np.zeros(sizes[1])]) == rows
    assert _rows([TensorSpec("x", "float32", (4,))], [np.zeros(4)]) == 1


@pytest.mark.parametrize("error", [MissingPackageError("no compiler"), InputError("too wide")])
def test_what_a_model_cannot_do_is_the_requests_fault(error):
    class Limited(Doubler):
        async def infer(self, inputs):
            raise error

    with pytest.raises(RequestError, match=str(error)) as refused:
        asyncio.run(run(Limited(), []))
    assert refused.value.status == 400


def test_dtypes_that_the_protocol_does_not_have_are_refused():
    with pytest.raises(InputError, match="bfloat16"):
        Tensor.of(TensorSpec("x", "bfloat16", ("N", 3)))


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "lucid.serve")
    with pytest.raises(MissingPackageError, match=r"uvicorn.*lucid-compiler\[serve\]"):
        import lucid.serve  # noqa: F401

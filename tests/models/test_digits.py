"""`resnest_digits` answers as torch does, on every held-out digit and on the example files."""

from pathlib import Path

import numpy as np
import pytest

import lucid
from lucid.errors import WeightsError
from lucid.frontend.trace import trace
from lucid.ir.interpret import interpret
from lucid.models import create_model, model_info, resnest_digits
from lucid.vision import preprocess

ROOT = Path(__file__).parents[2]
INFO = model_info("resnest_digits")
SPEC = INFO.preprocess
EXAMPLES = sorted((ROOT / "examples/digits").glob("*.png"))


def normalised(images: np.ndarray) -> np.ndarray:
    """uint8 (N, 32, 32) -> what the network takes."""
    return SPEC.normalise(images[..., None])


@pytest.fixture(scope="module")
def heldout() -> dict[str, np.ndarray]:
    """`images` (450, 32, 32) uint8, `labels`, torch's `predicted` and its float64 `logits`."""
    with np.load(ROOT / "tests/data/digits_heldout.npz") as data:
        return dict(data)


def test_the_eager_model_predicts_what_torch_does(heldout: dict[str, np.ndarray]) -> None:
    first = {name: array[:100] for name, array in heldout.items()}
    logits = resnest_digits()(lucid.Tensor(normalised(first["images"]))).numpy()
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits.argmax(1), first["predicted"])
    error = np.abs(logits - first["logits"]).max() / np.abs(first["logits"]).max()
    assert error < 1e-6


def test_what_torch_predicts_is_mostly_right(heldout: dict[str, np.ndarray]) -> None:
    assert (heldout["predicted"] == heldout["labels"]).mean() > 0.985


@pytest.mark.parametrize("precision", ["fast", "strict"])
def test_the_compiled_model_predicts_what_torch_does(
    heldout: dict[str, np.ndarray], precision: str
) -> None:
    fast = lucid.compile(resnest_digits(), INFO.input_shape, threads=2, precision=precision)
    logits = fast(normalised(heldout["images"]))
    np.testing.assert_array_equal(logits.argmax(1), heldout["predicted"])
    error = np.abs(logits - heldout["logits"]).max() / np.abs(heldout["logits"]).max()
    assert error < 1.5e-6


def test_products_of_bfloat16_predict_the_same(heldout: dict[str, np.ndarray]) -> None:
    fast = lucid.compile(resnest_digits(), INFO.input_shape, threads=2, precision="bf16")
    logits = fast(normalised(heldout["images"]))
    assert (logits.argmax(1) == heldout["predicted"]).mean() > 0.995
    error = np.abs(logits - heldout["logits"]).max() / np.abs(heldout["logits"]).max()
    assert error < 0.03


def test_the_interpreter_agrees_with_torch_in_float64(heldout: dict[str, np.ndarray]) -> None:
    graph = trace(resnest_digits(), INFO.input_shape)
    inputs = normalised(heldout["images"])[:50].astype(np.float64)
    (logits,) = interpret(graph, [inputs], dtype=np.float64)
    np.testing.assert_allclose(logits, heldout["logits"][:50], rtol=0, atol=1e-11)


def test_the_example_files_are_held_out_digits(heldout: dict[str, np.ndarray]) -> None:
    model = resnest_digits()
    assert len(EXAMPLES) == 12
    for path in EXAMPLES:
        label, copy = map(int, path.stem.split("_"))
        index = np.flatnonzero(heldout["labels"] == label)[copy]
        image = preprocess(path, SPEC)
        np.testing.assert_array_equal(image, normalised(heldout["images"][index][None]))
        predicted = model(lucid.Tensor(image)).numpy().argmax()
        assert INFO.label(predicted) == str(label)


def test_it_is_a_resnest_of_about_300_000_parameters() -> None:
    model = resnest_digits()
    assert sum(int(np.prod(p.shape)) for p in model.parameters()) == 299_498
    assert model.fc.weight.shape == (10, 512)
    assert INFO.input_shape == (1, 1, 32, 32)
    assert INFO.weights is not None
    assert INFO.weights.stat().st_size < 2_000_000


def test_other_parameters_need_other_weights() -> None:
    with pytest.raises(WeightsError, match=r"fc\.weight"):
        create_model("resnest_digits", num_classes=7)
    model = create_model("resnest_digits", num_classes=7, weights=None)
    assert model(lucid.random.randn(1, 1, 32, 32)).shape == (1, 7)

"""`lucid.quantize` as a whole, measured by the interpreter; one network is compiled."""

import math
from pathlib import Path

import numpy as np
import pytest
from quantisation.conftest import graph_of

import lucid
from lucid.errors import InputError, UnknownNameError, WeightsError
from lucid.ir.interpret import interpret
from lucid.ir.ops import Quantize
from lucid.models import model_info, resnest_digits
from lucid.quantisation import report
from lucid.quantisation.measure import Noise
from lucid.quantisation.ranges import METHODS

ROOT = Path(__file__).parents[2]
NET = """graph net(%x: f32[N,3,8,8]) -> f32[N,5] {
  param @a.weight: f32[8,3,3,3]
  param @a.bias: f32[8]
  param @b.weight: f32[8,8,3,3]
  param @fc.weight: f32[5,8]
  param @fc.bias: f32[5]
  %h = conv2d(%x, @a.weight, @a.bias) {padding=(1,1,1,1)} : f32[N,8,8,8] at "a"
  %r = relu(%h) : f32[N,8,8,8] at "act"
  %g = conv2d(%r, @b.weight) {padding=(1,1,1,1)} : f32[N,8,8,8] at "b"
  %s = add(%g, %r) : f32[N,8,8,8]
  %m = mean(%s) {axes=(2,3)} : f32[N,8]
  %y = linear(%m, @fc.weight, @fc.bias) : f32[N,5] at "fc"
  return %y
}"""
X = np.random.default_rng(2).standard_normal((24, 3, 8, 8)).astype(np.float32)


def decibels(wanted: np.ndarray, given: np.ndarray) -> float:
    return Noise.between(wanted, given).decibels


def snr(model, x: np.ndarray = X, net: str = NET) -> float:
    """Of a quantised model's output, by the interpreter."""
    return decibels(interpret(graph_of(net), [x])[0], interpret(model.graph, [x])[0])


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("equalise", [False, True])
def test_every_method(method: str, equalise: bool) -> None:
    model = lucid.quantize(graph_of(NET), [X[:10], X[10:]], method=method, equalise=equalise)
    assert snr(model) > 25
    assert model.report.method == method
    assert model.report.snr == pytest.approx(snr(model), abs=0.1)
    assert [layer.dtype for layer in model.report.layers] == ["int8"] * 3
    assert model.report.float_work == 0


@pytest.mark.usefixtures("interpreted")
def test_what_the_report_says_of_a_layer() -> None:
    model = lucid.quantize(graph_of(NET), [X], bias_correction=False)
    layers = {layer.origin: layer for layer in model.report.layers}
    graph = graph_of(NET)
    floats: dict[str, np.ndarray] = {}
    interpret(graph, [X], observe=lambda node, results: floats.update({node.origin: results[0]}))
    held: dict[str, np.ndarray] = {}

    def note(node, results):
        if node.op.name in ("conv2d", "linear"):
            held[node.origin] = results[0]

    interpret(model.graph, [X], observe=note)
    for origin in ("a", "b", "fc"):
        wanted = decibels(floats[origin], held[origin])
        assert layers[origin].network_snr == pytest.approx(wanted, abs=0.05)
    error = held["a"] - floats["a"]  # the first layer reads what floats give it, too
    centred = error - error.mean(axis=(0, 2, 3), keepdims=True)
    alone = 10 * math.log10((floats["a"] ** 2).sum() / (centred**2).sum())
    assert layers["a"].snr == pytest.approx(alone, abs=0.05)
    assert sum(layer.work for layer in layers.values()) == pytest.approx(1)
    order = [layer.snr for layer in model.report.layers]
    assert order == sorted(order)


@pytest.mark.usefixtures("interpreted")
def test_biases_are_corrected() -> None:
    text = NET.replace("%r = relu(%h)", "%r = sigmoid(%h)")
    shifts = []
    for corrected in (False, True):
        model = lucid.quantize(graph_of(text), [X], bias_correction=corrected)
        wanted, given = (interpret(g, [X])[0] for g in (graph_of(text), model.graph))
        shifts.append(np.abs((given - wanted).mean(axis=0)).max())
    assert shifts[1] < 0.5 * shifts[0]


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(
    ("ignore", "left"),
    [("b", {"b"}), (["a", "fc"], {"a", "fc"}), (("*",), {"a", "b", "fc"}), ("%y", {"fc"})],
)
def test_ignored_layers_stay_floats(ignore, left: set[str]) -> None:
    model = lucid.quantize(graph_of(NET), [X], ignore=ignore)
    floats = {n.origin for n in model.graph.nodes if n.op.name in ("conv2d", "linear")}
    kept = {
        n.origin
        for n in model.graph.nodes
        if n.op.name in ("conv2d", "linear") and n.inputs[1].producer is None
    }
    assert floats == {"a", "b", "fc"}
    assert kept == left
    assert {layer.origin for layer in model.report.layers} == floats - left
    if left == floats:
        assert not model.graph.find(Quantize)
        assert model.report.snr == math.inf


@pytest.mark.usefixtures("interpreted")
def test_budgets_leave_the_fewest_layers_in_floats() -> None:
    plain = lucid.quantize(graph_of(NET), [X]).report.snr
    model = lucid.quantize(graph_of(NET), [X], budget=f"snr>={plain + 2:.2f}")
    left = [layer for layer in model.report.layers if layer.dtype == "float32"]
    assert 1 <= len(left) < 3
    assert model.report.snr >= plain + 2
    assert snr(model) == pytest.approx(model.report.snr, abs=0.1)
    assert 0 < model.report.float_work < 1
    assert model.report.budget == f"snr>={plain + 2:.4g}"
    easy = lucid.quantize(graph_of(NET), [X], budget="agreement>=0.5")
    assert all(layer.dtype == "int8" for layer in easy.report.layers)
    perfect = lucid.quantize(graph_of(NET), [X], budget="snr>=500")
    assert all(layer.dtype == "float32" for layer in perfect.report.layers)


@pytest.mark.usefixtures("interpreted")
def test_an_iterator_is_enough() -> None:
    once = lucid.quantize(graph_of(NET), (X[i : i + 8] for i in range(0, 24, 8)))
    again = lucid.quantize(graph_of(NET), [X[:8], X[8:16], X[16:]])
    assert once.graph == again.graph


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("value", [0.0, 1.5, -2.0])
def test_images_of_one_value(value: float) -> None:
    x = np.full((2, 3, 8, 8), value, np.float32)
    model = lucid.quantize(graph_of(NET), [x])
    (wanted,), (given,) = interpret(graph_of(NET), [x]), interpret(model.graph, [x])
    np.testing.assert_allclose(given, wanted, atol=0.02 * max(1e-3, np.abs(wanted).max()))


@pytest.mark.usefixtures("interpreted")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of what is too large
@pytest.mark.parametrize(
    ("arguments", "kind", "says"),
    [
        ({"method": "mean"}, UnknownNameError, "method is one of mse, minmax"),
        ({"percentile": 0.999}, InputError, "percentile is above 50"),
        ({"budget": "accuracy>0.9"}, InputError, "budget is"),
        ({"ignore": "layer7"}, UnknownNameError, "no module matches 'layer7'; layers are a, b, fc"),
        ({"batches": []}, InputError, "batches is empty"),
        ({"batches": [X[:, :2]]}, InputError, "batch 0"),
        ({"batches": [X, X[:, :, :4]]}, InputError, "batch 1"),
        ({"batches": [X * np.float32(np.nan)]}, InputError, "x holds nan"),
        ({"batches": [np.full_like(X, 3e38)]}, InputError, "computes a NaN or an infinity"),
        ({"model": "nothing.onnx"}, (lucid.LucidError, OSError), "nothing.onnx"),
        ({"model": 7}, InputError, "a model is"),
        ({"threads": 0}, InputError, "threads"),
    ],
)
def test_what_is_refused(arguments: dict, kind, says: str) -> None:
    with pytest.raises(kind, match=says):
        lucid.quantize(**({"model": graph_of(NET), "batches": [X]} | arguments))


@pytest.mark.usefixtures("interpreted")
def test_models_without_layers_and_quantised_ones_are_refused() -> None:
    text = "graph g(%x: f32[N,4]) -> f32[N,4] {\n  %y = relu(%x) : f32[N,4]\n  return %y\n}"
    with pytest.raises(InputError, match="no convolution or linear layer"):
        lucid.quantize(graph_of(text), [np.zeros((1, 4), np.float32)])
    model = lucid.quantize(graph_of(NET), [X])
    with pytest.raises(InputError, match="quantised already"):
        lucid.quantize(model, [X])


@pytest.mark.usefixtures("interpreted")
def test_reports_as_text_and_data() -> None:
    model = lucid.quantize(graph_of(NET), [X])
    text = str(model.report)
    assert "3 of 3 layers multiply int8" in text
    assert [line.split()[0] for line in text.splitlines()[4:]] == [
        layer.origin for layer in model.report.layers
    ]
    data = report.to_json(model.report)
    assert data["layers"][0]["origin"] == model.report.layers[0].origin
    exact = report.to_json(lucid.quantize(graph_of(NET), [X], ignore="*").report)
    assert exact["snr"] is None
    assert "exact" in str(lucid.quantize(graph_of(NET), [X], budget="snr>=500").report)


def test_the_ratio_of_signal_and_noise() -> None:
    wanted = np.array([3.0, -4.0], np.float32)
    noise = Noise.between(wanted, wanted + np.array([0.5, 0], np.float32))
    assert noise.decibels == pytest.approx(10 * math.log10(25 / 0.25))
    assert Noise(1.0, 0.0).decibels == math.inf
    assert Noise(0.0, 0.0).decibels == math.inf
    assert Noise(0.0, 1.0).decibels == -math.inf
    assert Noise(1.0, 0.5) + Noise(1.0, 0.5) == Noise(2.0, 1.0)


@pytest.fixture(scope="module")
def digits():
    """`resnest_digits`, quantised by 100 images, compiled; all held-out images, and what floats
    say."""
    spec = model_info("resnest_digits").preprocess
    with np.load(ROOT / "tests/data/digits_heldout.npz") as data:
        images, predicted = spec.normalise(data["images"][..., None]), data["predicted"]
    batches = [images[i : i + 20] for i in range(0, 100, 20)]
    return lucid.quantize(resnest_digits(), batches), images, predicted


@pytest.mark.slow
def test_digits_keep_their_classes(digits) -> None:
    model, images, predicted = digits
    (logits,) = interpret(model.graph, [images])
    assert (logits.argmax(1) == predicted).sum() >= 447
    assert model.report.agreement == 1
    assert model.metadata["preprocess"]["order"] == "grey"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::lucid.HostOpsWarning")
def test_the_compiler_takes_it(digits, tmp_path: Path) -> None:
    model, images, _ = digits
    compiled = lucid.compile(model)
    (wanted,) = interpret(model.graph, [images[:4]])
    np.testing.assert_allclose(compiled(images[:4]), wanted, atol=0.05 * np.abs(wanted).max())
    assert compiled.metadata["preprocess"]["order"] == "grey"
    with pytest.raises(WeightsError, match="which is quantised"):
        compiled.load_weights({"conv1.0.weight": np.zeros((32, 1, 3, 3), np.float32)})
    compiled.load_weights(dict(model.graph.payload))
    compiled.save(tmp_path / "q.lucid")
    loaded = lucid.load(tmp_path / "q.lucid")
    np.testing.assert_array_equal(loaded(images[:4]), compiled(images[:4]))


@pytest.mark.slow
def test_the_file_means_the_same_to_onnx_runtime(digits, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    model, images, predicted = digits
    model.save_onnx(tmp_path / "q.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "q.onnx"))
    options = runtime.SessionOptions()  # its fast integers saturate where there is no VNNI
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = runtime.InferenceSession(str(tmp_path / "q.onnx"), options)
    (given,) = session.run(None, {session.get_inputs()[0].name: images})
    assert (given.argmax(1) == predicted).sum() >= 447
    (wanted,) = interpret(model.graph, [images[:50]])
    assert decibels(wanted, given[:50]) > 45

"""LSTM, GRU and RNN of ONNX: read as ONNX Runtime computes them, and written so that it does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lucid.errors import ModelFileError, UnsupportedError
from lucid.frontend.onnx import import_onnx
from lucid.ir import interpret

pytest.importorskip("onnx", reason="the package onnx is not installed")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
from harness import check  # noqa: E402
from onnx import helper, numpy_helper  # noqa: E402

from lucid.onnx.writer import to_onnx  # noqa: E402

STEPS, N, DEPTH, SIZE = 5, 3, 4, 6
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def layer(kind: str, given: str = "", **attributes: Any) -> Any:
    """A model of one layer. `given`: which of the optional operands there are, of B (biases), S
    (sequence lengths), H and C (states), and P (peepholes)."""
    rng = np.random.default_rng(0)
    d = 2 if attributes.get("direction") == "bidirectional" else 1
    columns = GATES[kind] * SIZE
    shapes = {
        "W": (d, columns, DEPTH),
        "R": (d, columns, SIZE),
        "B": (d, 2 * columns),
        "P": (d, 3 * SIZE),
        "H": (d, N, SIZE),
        "C": (d, N, SIZE),
    }
    arrays = {n: rng.normal(0, 0.6, s).astype(np.float32) for n, s in shapes.items()}
    arrays["S"] = np.array([2, 5, 4], np.int32)
    wanted = ["W", "R", "B", "S", "H", "C", "P"][: 7 if kind == "LSTM" else 5]
    names = [n if n in f"WR{given}" else "" for n in wanted]
    outputs = ["Y", "Y_h", "Y_c"][: 3 if kind == "LSTM" else 2]
    node = helper.make_node(kind, ["X", *names], outputs, hidden_size=SIZE, **attributes)
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("X", 1, (STEPS, N, DEPTH))],
        [helper.make_tensor_value_info(o, 1, None) for o in outputs],
        [numpy_helper.from_array(arrays[n], n) for n in names if n],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def run(model: Any, *inputs: np.ndarray) -> list[np.ndarray]:
    """What ONNX Runtime gives."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options)
    names = [i.name for i in session.get_inputs()]
    return list(session.run(None, dict(zip(names, inputs, strict=True))))


LAYERS = {
    "rnn": ("RNN", "B", {}),
    "rnn of others": ("RNN", "BH", {"activations": ["LeakyRelu"], "activation_alpha": [0.2]}),
    "rnn, backwards": ("RNN", "BS", {"direction": "reverse"}),
    "rnn, clipped": ("RNN", "B", {"clip": 0.3, "activations": ["Relu"]}),
    "gru": ("GRU", "", {}),
    "gru, late": ("GRU", "BSH", {"linear_before_reset": 1, "direction": "bidirectional"}),
    "gru, all": ("GRU", "BSH", {"direction": "bidirectional", "clip": 0.5}),
    "gru of others": ("GRU", "B", {"activations": ["HardSigmoid", "Softsign"]}),
    "lstm": ("LSTM", "", {}),
    "lstm, all": ("LSTM", "BSHCP", {"direction": "bidirectional"}),
    "lstm, backwards": ("LSTM", "BHC", {"direction": "reverse"}),
    "lstm, peepholes": ("LSTM", "BP", {}),
    "lstm, coupled": ("LSTM", "BCP", {"input_forget": 1}),
    "lstm, clipped": ("LSTM", "BHC", {"clip": 0.2}),
    "lstm of others": (
        "LSTM",
        "B",
        {"activations": ["sigmoid", "Elu", "LeakyRelu"], "activation_alpha": [0.5, 0.1]},
    ),
}
for _kind, _given, _attributes in LAYERS.values():
    if "HardSigmoid" in _attributes.get("activations", ()):
        _attributes["activation_alpha"], _attributes["activation_beta"] = [1 / 6], [0.5]


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    """Read, compiled, and written again."""
    kind, given, attributes = LAYERS[name]
    model = layer(kind, given, **attributes)
    x = np.random.default_rng(1).standard_normal((STEPS, N, DEPTH)).astype(np.float32)
    wanted = run(model, x)
    graph = import_onnx(model)
    written = to_onnx(graph)
    for results in (interpret(graph, [x]), run(written, x)):
        for value, right in zip(results, wanted, strict=True):
            np.testing.assert_allclose(value, right, rtol=1e-4, atol=1e-5)
    check(graph, limit=4e-6)


@pytest.mark.parametrize("kind", GATES)
def test_sequences_first(kind: str) -> None:
    """`layout` 1, which ONNX Runtime lacks, gives what 0 does, turned."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((STEPS, N, DEPTH)).astype(np.float32)
    plain = interpret(import_onnx(layer(kind, "B", direction="bidirectional")), [x])
    model = layer(kind, "B", direction="bidirectional", layout=1)
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    sizes[0].dim_value, sizes[1].dim_value = N, STEPS
    graph = import_onnx(model)
    y, *states = interpret(graph, [x.swapaxes(0, 1)])
    np.testing.assert_array_equal(y.transpose(1, 2, 0, 3), plain[0])
    for state, other in zip(states, plain[1:], strict=True):
        np.testing.assert_array_equal(state.swapaxes(0, 1), other)


REFUSED = {
    "HardSigmoid of 0.2": ("RNN", {"activations": ["HardSigmoid"]}, UnsupportedError, "0.2 x"),
    "Affine": ("RNN", {"activations": ["Affine"]}, UnsupportedError, "activation Affine"),
    "one for each": (
        "RNN",
        {"activations": ["Tanh", "Relu"], "direction": "bidirectional"},
        UnsupportedError,
        "in each direction: Tanh, Relu",
    ),
    "too few": ("GRU", {"activations": ["Tanh"]}, ModelFileError, "1 activations for 2"),
    "unknown": ("RNN", {"activations": ["Gauss"]}, ModelFileError, "does not know"),
    "direction": ("RNN", {"direction": "up"}, ModelFileError, "direction 'up'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    kind, attributes, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        import_onnx(layer(kind, "B", **attributes))

"""Other weights for a compiled model: by names, or by where tensors stand in the graph."""

import numpy as np
import pytest

import lucid
from lucid import nn
from lucid.errors import InputError, ModelFileError, WeightsError
from lucid.frontend.sources import as_model
from lucid.frontend.swapping import matched
from lucid.ir import interpret

pytest.importorskip("onnx", reason="the package onnx is not installed")
import onnx
from onnx_models import array, model, node, run

X = array(2, 3, 8, 8)


def network(prefix="", classes=5, activation="Relu", scale=0.5):
    """Two layers, whose tensors are named by `prefix` and in another order where it is given."""
    rng = np.random.default_rng(len(prefix))
    tensors = {
        "conv": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "bias": rng.standard_normal(4).astype(np.float32),
        "fc": rng.standard_normal((4, classes)).astype(np.float32),
        "s": np.array(scale, np.float32),
    }
    names = {name: f"{prefix}{9 - i if prefix else name}" for i, name in enumerate(tensors)}
    nodes = [
        node("Conv", f"x {names['conv']} {names['bias']}", "a"),
        node(activation, "a", "b"),
        node("Mul", f"b {names['s']}", "c"),
        node("GlobalAveragePool", "c", "d"),
        node("Flatten", "d", "e"),
        node("MatMul", f"e {names['fc']}"),
    ]
    constants = {names[n]: tensors[n] for n in (reversed(tensors) if prefix else tensors)}
    return model(nodes, constants)


def swapped(old, weights, sizes=(((1, 3, 8, 8),),)):
    """The result for X of the old network with other weights, interpreted."""
    mine = as_model(old)
    graph = mine.captured(sizes[0])
    graph.payload = matched(mine, weights, sizes)
    (y,) = interpret(graph, [X], dtype=np.float64)
    return y


def test_tensors_are_given_to_where_they_stand():
    new = network("onnx::")
    np.testing.assert_array_equal(swapped(network(), new), run(new, X))


def test_a_compiled_model_and_its_file_take_either(tmp_path):
    path = tmp_path / "new.onnx"
    onnx.save(network("new."), path)
    wanted = lucid.compile(path, (1, 3, 8, 8), threads=1).save(
        tmp_path / "new.lucid", weights="both"
    )(X)
    compiled = lucid.compile(network(), (1, 3, 8, 8), threads=1).save(
        tmp_path / "old.lucid", weights="both"
    )
    for weights in (path, tmp_path / "new.lucid"):
        loaded = lucid.load(tmp_path / "old.lucid", threads=1)
        np.testing.assert_array_equal(loaded.load_weights(weights)(X), wanted)
    np.testing.assert_array_equal(compiled.load_weights(path)(X), wanted)


def test_models_of_images_take_networks(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)

    def compiled(proto):
        return lucid.compile(proto, (1, 8, 8, 3), input="uint8_nhwc", threads=1)

    wanted = compiled(network("new."))(images)
    compiled(network()).save(tmp_path / "old.lucid", weights="both")
    for old in (compiled(network()), lucid.load(tmp_path / "old.lucid", threads=1)):
        np.testing.assert_array_equal(old.load_weights(network("new."))(images), wanted)


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (network("n", classes=7), r"fc: expected shape \[4, 5\], got \[4, 7\] of n7"),
        (network("n", activation="Elu"), r"(?s)another network.*= relu\(.*= elu\("),
        (network("n", scale=0.25), r"(?s)another network.*value=0.5.*value=0.25"),
        (3, "a path, tensors by name, or a network, got int"),
        ("none.onnx", "none.onnx: No such file"),
        ("weights.txt", "not a weight file known here; those end in .safetensors"),
    ],
)
def test_what_does_not_fit_is_refused(new, message):
    with pytest.raises(WeightsError, match=message):
        swapped(network(), new)


def test_one_tensor_read_twice_is_not_two():
    constants = {"a": array(3, 1, 1), "b": array(3, 1, 1)}
    old = model([node("Mul", "x a", "m"), node("Add", "m a")], {"a": constants["a"]})
    new = model([node("Mul", "x a", "m"), node("Add", "m b")], constants)
    with pytest.raises(WeightsError, match="another network"):
        swapped(old, new)
    np.testing.assert_array_equal(swapped(new, old), run(old, X))


def test_modules_go_by_names(tmp_path):
    first, second = (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()) for _ in range(2))
    state = {name: 2 * tensor.numpy() for name, tensor in first.state_dict().items()}
    second.load_state_dict(state)
    compiled = lucid.compile(second, (1, 3, 8, 8), threads=1).save(
        tmp_path / "second.lucid", weights="both"
    )
    wanted = compiled(X)
    for weights in (second, state, tmp_path / "second.lucid"):
        fresh = lucid.compile(first, (1, 3, 8, 8), threads=1).load_weights(weights)
        np.testing.assert_array_equal(fresh(X), wanted)


def test_tables_that_the_reader_computes_are_no_weights():
    """They stay for sizes that are asked for later."""
    nodes = [
        node("Shape", "x", "s"),
        node("ConstantOfShape", "s", "ones", value=onnx.numpy_helper.from_array(np.ones(1, "f"))),
        node("Mul", "ones w", "t"),
        node("Add", "x t"),
    ]
    old, weight = model(nodes, {"w": array(3, 1, 1)}, (1, 3, "H", "W")), array(3, 1, 1)
    mine = as_model(old)
    mine.captured(((1, 3, 8, 8),))
    assert set(mine.state().shapes) == {"w"}
    payload = mine.match({"w": weight}, "here")
    graph = mine.captured(((1, 3, 4, 4),))
    graph.payload = payload
    (y,) = interpret(graph, [X[:, :, :4, :4]])
    np.testing.assert_array_equal(y, X[:, :, :4, :4] + weight)


# -- the wrong way ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("resnest_50", r"lucid.compile\(lucid.models.resnest_50\(\), \(1, 3, 224, 224\)\)"),
        ("reznest_50", "did you mean resnest_50"),
        ("timm:resnet18", r"lucid.compile\(timm.create_model\('resnet18'\).eval\(\)"),
        ("weights.pth", "weights alone"),
        (lucid.models.resnest_50, "Call it, if it makes the model"),
    ],
)
def test_compile_says_how_a_name_is_compiled(given, message):
    with pytest.raises(InputError, match=message):
        lucid.compile(given)


def test_load_says_what_compiles_a_file():
    with pytest.raises(ModelFileError, match=r"not a compiled model: lucid.compile\('net.onnx'\)"):
        lucid.load("net.onnx")
    with pytest.raises(ModelFileError, match=r"weights alone, .*: compile their network"):
        lucid.load("weights.safetensors")
    with pytest.raises(InputError, match=r"takes the path of a .lucid file, got a ReLU"):
        lucid.load(nn.ReLU())

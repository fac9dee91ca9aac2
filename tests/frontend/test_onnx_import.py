"""Models as exporters write them: idioms, batches, weights in the file and beside it."""

import os
import pickle

import numpy as np
import pytest

import lucid
from lucid.artifact.contents import Artifact
from lucid.errors import InputError, ModelFileError
from lucid.frontend.onnx import import_onnx
from lucid.ir import BATCH, TensorType, f32
from lucid.ir.passes import run_passes
from lucid.ir.text import parse_graph, print_graph
from lucid.onnx.writer import to_onnx

pytest.importorskip("onnx", reason="the package onnx is not installed")
from onnx import TensorProto, helper, numpy_helper
from onnx_models import FLOAT, array, convolution, kinds, model, node, run

# -- what exporters write -----------------------------------------------------------------------


def test_shapes_computed_by_operators_leave_nothing_behind():
    """x.view(x.size(0), -1), then an Expand by a shape with ones where it was -1."""
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n", axis=0),
        node("Unsqueeze", "n axis", "n1"),
        node("Constant", "", "rest", value_ints=[-1]),
        node("Concat", "n1 rest", "target", axis=0),
        node("Reshape", "x target", "flat"),
        node("Shape", "flat", "fs"),
        node("ConstantOfShape", "two", "ones", value=numpy_helper.from_array(np.array([1]))),
        node("Mul", "ones minus", "open"),
        node("Equal", "open minus", "is_open"),
        node("Where", "is_open ones open", "wanted"),
        node("Expand", "flat wanted"),
    ]
    constants = {"zero": np.array(0), "axis": [0], "two": [2], "minus": np.array(-1)}
    proto = model(nodes, constants)
    assert kinds(proto) == ["reshape"]
    graph = import_onnx(proto)
    assert graph.outputs[0].type == f32(BATCH, 192)
    x = array(3, 3, 8, 8)
    np.testing.assert_array_equal(run(proto, x), x.reshape(3, -1))


def test_sizes_computed_in_floats_and_products():
    """Upsampling by a factor, as older exporters write it; a flatten by a product of sizes."""
    nodes = [
        node("Shape", "x", "s"),
        node("Slice", "s two end", "hw"),
        node("Cast", "hw", "hwf", to=1),
        node("Mul", "hwf factor", "scaled"),
        node("Floor", "scaled", "floored"),
        node("Cast", "floored", "size", to=7),
        node("Slice", "s none two", "nc"),
        node("Concat", "nc size", "sizes", axis=0),
        node("Resize", "x - - sizes", "r"),
        node("Shape", "r", "rs"),
        node("ReduceProd", "rs", "count", keepdims=1),
        node("Gather", "rs none", "n", axis=0),
        node("Div", "count n", "each"),
        node("Concat", "n each", "flat", axis=0),
        node("Reshape", "r flat"),
    ]
    constants = {"two": [2], "end": [99], "none": [0], "factor": np.array([1.5, 2], np.float32)}
    assert kinds(model(nodes, constants)) == ["resize", "reshape"]
    graph = import_onnx(model(nodes, constants))
    assert graph.outputs[0].type == f32(BATCH, 3 * 12 * 16)


def test_indices_that_count_the_images():
    """as_strided, as PyTorch's newer exporter writes it: all images in one row, taken apart."""
    nodes = [
        node("ReduceMean", "x axes", "m"),
        node("Reshape", "m row", "flat"),
        node("Shape", "x", "n1", start=0, end=1),
        node("Squeeze", "n1", "n"),
        node("Range", "zero n one", "images"),
        node("Mul", "images three", "first"),
        node("Unsqueeze", "first behind", "column"),
        node("Add", "column offsets", "places"),
        node("Gather", "flat places", axis=0),
    ]
    constants = {
        "axes": [2, 3],
        "row": [-1],
        "zero": np.array(0),
        "one": np.array(1),
        "three": np.array(3),
        "behind": [1],
        "offsets": [[2, 0]],
    }
    x = array(2, 3, 8, 8)
    found = run(model(nodes, constants), x)
    np.testing.assert_allclose(found, x.astype(np.float64).mean((2, 3))[:, [2, 0]], rtol=1e-6)


def test_constants_of_every_form():
    nodes = [
        node("Constant", "", "a", value=numpy_helper.from_array(array(3, 1, 1))),
        node("Constant", "", "b", value_float=2.0),
        node("Constant", "", "c", value_floats=[1.0] * 8),
        node("Constant", "", "d", value_int=3),
        node("Cast", "d", "e", to=1),
        node("Mul", "x a", "p"),
        node("Mul", "p b", "q"),
        node("Add", "q c", "r"),
        node("Div", "r e", "s"),
        node("Identity", "s"),
    ]
    graph = import_onnx(model(nodes))
    assert [p.type for p in graph.parameters.values()] == [f32(3, 1, 1), f32(8)]
    assert "a" in graph.parameters
    x = array(1, 3, 8, 8)
    a = np.asarray(graph.payload["a"])
    np.testing.assert_allclose(run(model(nodes), x), (x * a * 2 + 1) / 3, rtol=1e-6, atol=1e-6)


def test_a_matrix_product_with_a_weight_is_a_linear_layer():
    nodes = [
        node("Transpose", "w", "wt", perm=[1, 0]),
        node("MatMul", "x wt", "m"),
        node("MatMul", "m x", name="plain"),
    ]
    assert kinds(model(nodes, {"w": array(8, 8)})) == ["permute", "permute", "linear", "matmul"]


def test_a_branch_whose_condition_is_known():
    def branch(kind):
        output = helper.make_tensor_value_info("r", FLOAT, None)
        return helper.make_graph([node(kind, "x", "r")], kind, [], [output])

    nodes = [
        node("Shape", "x", "s"),
        node("Size", "s", "rank"),
        node("Equal", "rank four", "c"),
        node("If", "c", then_branch=branch("Relu"), else_branch=branch("Tanh")),
    ]
    assert kinds(model(nodes, {"four": np.array(4)})) == ["relu"]
    assert kinds(model(nodes, {"four": np.array(3)})) == ["tanh"]


def test_functions_of_the_model_are_written_out():
    twice = helper.make_function(
        "own",
        "Twice",
        ["a"],
        ["b"],
        [node("Add", "a a", "b")],
        [helper.make_opsetid("", 18)],
    )
    proto = model([helper.make_node("Twice", ["x"], ["y"], domain="own")])
    proto.functions.append(twice)
    proto.opset_import.append(helper.make_opsetid("own", 1))
    assert kinds(proto) == ["add"]


@pytest.mark.parametrize(
    ("name", "scopes", "path"),
    [
        ("/layer1/layer1.0/conv1/Conv", None, "layer1.0.conv1"),
        ("/fc/Gemm", None, "fc"),
        ("layer1.0.conv1/conv2d_3", None, "layer1.0.conv1"),
        ("Conv_12", None, "Conv_12"),
        ("node_relu", "['', 'layer1', 'layer1.0', 'relu']", "layer1.0"),
    ],
)
def test_the_module_that_a_node_comes_from(name, scopes, path):
    made = node("Relu", "x", name=name)
    if scopes:
        made.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
    (only,) = import_onnx(model([made])).nodes
    assert only.origin == path


# -- the batch ----------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["N", "batch_size", -1, 0, None])
def test_an_open_first_axis_is_the_batch(first):
    proto = model([node("Relu", "x")], shape=(first, 3, 8, 8))
    assert import_onnx(proto).inputs[0].type == f32(BATCH, 3, 8, 8)


def test_a_batch_of_one_becomes_any_batch():
    """What the file reshapes of one image is reshaped of each."""
    nodes = [
        node("Reshape", "x one", "a"),
        node("Transpose", "a", "b", perm=[0, 2, 1]),
        node("Reshape", "b heads", "c"),
        node("Softmax", "c", "d"),
        node("Reshape", "d back", "e"),
        node("Reshape", "e flat"),
    ]
    constants = {"one": [1, 3, 64], "heads": [4, 16, 3], "back": [-1, 64, 3], "flat": [1, 192]}
    proto = model(nodes, constants, shape=(1, 3, 8, 8))
    x = array(3, 3, 8, 8)
    graph = import_onnx(proto)
    assert graph.inputs[0].type.shape[0] == BATCH
    assert graph.outputs[0].type == f32(BATCH, 192)
    one_by_one = [run(proto, image[None]) for image in x]
    np.testing.assert_allclose(run(proto, x), np.concatenate(one_by_one), rtol=1e-9)


def test_constants_beside_a_batch_of_one():
    """Channels of zeros, and an expanded weight: there for each image."""
    zeros = numpy_helper.from_array(np.zeros(1, np.float32))
    nodes = [
        node("ConstantOfShape", "shape", "zeros", value=zeros),
        node("Concat", "x zeros w", axis=1),
    ]
    proto = model(nodes, {"shape": [1, 2, 8, 8], "w": array(1, 1, 8, 8)}, shape=(1, 3, 8, 8))
    assert import_onnx(proto).outputs[0].type == f32(BATCH, 6, 8, 8)
    found = run(proto, array(2, 3, 8, 8))
    np.testing.assert_array_equal(found[0, 3:], found[1, 3:])


def test_images_of_bytes():
    """As decoders give them: the pixels' channels last, normalised by the model."""
    nodes = [
        node("Cast", "x", "f", to=FLOAT),
        node("Transpose", "f", "t", perm=[0, 3, 1, 2]),
        node("Sub", "t mean", "c"),
        node("Div", "c scale"),
    ]
    constants = {"mean": array(3, 1, 1), "scale": np.float32(58.0)}
    proto = model(nodes, constants, (1, 4, 5, 3), dtype=TensorProto.UINT8)
    graph = import_onnx(proto)
    assert str(graph.inputs[0].type) == "u8[N,4,5,3]"
    pixels = np.arange(120, dtype=np.uint8).reshape(2, 4, 5, 3)
    wanted = (pixels.transpose(0, 3, 1, 2) - constants["mean"]) / 58
    np.testing.assert_allclose(run(proto, pixels), wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([node("Softmax", "x", axis=0)], {}),
        ([node("Reshape", "x s", "a"), node("Softmax", "a", axis=0)], {"s": [3, 64]}),
        ([node("Squeeze", "x a")], {"a": [0]}),
        ([node("Squeeze", "x", "s")], {}),
        ([node("Concat", "x c", axis=0)], {"c": array(2, 3, 8, 8)}),
        ([node("ReduceMean", "x", "m", keepdims=0)], {}),
        ([node("Gather", "x i")], {"i": np.array(0)}),
        ([node("Transpose", "x", perm=[1, 0, 2, 3])], {}),
    ],
)
def test_a_batch_of_one_that_must_stay(nodes, constants):
    nodes[-1].output[0] = "y"
    proto = model(nodes, constants, shape=(1, 3, 8, 8))
    graph = import_onnx(proto)
    assert graph.inputs[0].type == f32(1, 3, 8, 8)
    from onnx.reference import ReferenceEvaluator

    x = array(1, 3, 8, 8)
    (wanted,) = ReferenceEvaluator(proto).run(None, {"x": x})
    np.testing.assert_allclose(run(proto, x), wanted, rtol=1e-5, atol=1e-6)


def test_other_fixed_batches_stay():
    proto = model([node("Relu", "x")], shape=(4, 3, 8, 8))
    assert import_onnx(proto).inputs[0].type == f32(4, 3, 8, 8)


def test_open_sizes_come_from_input_shape():
    proto = model([node("GlobalAveragePool", "x")], shape=("N", 3, "h", "w"))
    with pytest.raises(InputError, match=r"\(N, 3, h, w\) open: give input_shape"):
        import_onnx(proto)
    assert import_onnx(proto, (1, 3, 9, 7)).inputs[0].type == f32(BATCH, 3, 9, 7)
    with pytest.raises(InputError, match=r"is \(N, 3, h, w\), not \(1, 4, 9, 7\)"):
        import_onnx(proto, (1, 4, 9, 7))
    with pytest.raises(InputError, match="input_shape must be ints"):
        import_onnx(proto, (1, 3, 9.5, 7))


def test_an_input_without_a_shape():
    proto = model([node("Relu", "x")], shape=None)
    with pytest.raises(InputError, match="does not say the shape"):
        import_onnx(proto)
    assert import_onnx(proto, (2, 3, 4)).inputs[0].type == f32(BATCH, 3, 4)


@pytest.mark.parametrize("size", [(8, 8), ("h", "w")])
def test_a_compiled_file_takes_inputs_of_its_dtypes(size):
    """Also where the file leaves sizes open, and nothing is imported before a size is given."""
    proto = model([node("Cast", "x", to=FLOAT)], shape=("N", 3, *size), dtype=TensorProto.UINT8)
    x = np.arange(384, dtype=np.uint8).reshape(2, 3, 8, 8)
    np.testing.assert_array_equal(lucid.compile(proto, (1, 3, 8, 8))(x), x.astype(np.float32))


@pytest.mark.parametrize("size", [(8, 8), ("h", "w")])
def test_a_compiled_file_of_two_inputs(size):
    proto = model([node("Mul", "x scale")], shape=("N", 3, *size))
    proto.graph.input.append(helper.make_tensor_value_info("scale", FLOAT, ("N", 3, 1, 1)))
    compiled = lucid.compile(proto, [(1, 3, 8, 8), (1, 3, 1, 1)])
    x, scale = array(2, 3, 8, 8), array(2, 3, 1, 1)
    np.testing.assert_array_equal(compiled(scale=scale, x=x), x * scale)
    with pytest.raises(InputError, match=r"^scale wants|; scale wants .* got float32\[2,3,2,2\]"):
        compiled(x, array(2, 3, 2, 2))
    with pytest.raises(InputError, match=r"^net takes 2 inputs"):
        lucid.compile(proto, (1, 3, 8, 8))


# -- weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floating_weights_are_read_as_float32(dtype):
    weight = array(4, 3, 1, 1).astype(dtype)
    graph = import_onnx(convolution(weight))
    read = np.asarray(graph.payload["w"])
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, weight.astype(np.float32))


def test_bfloat16_weights_and_inputs():
    values = np.array([1.5, -2.0, 0.375], np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    tensor = helper.make_tensor("w", TensorProto.BFLOAT16, [3, 1, 1], bits.tobytes(), raw=True)
    proto = model([node("Mul", "x w")], dtype=TensorProto.BFLOAT16)
    proto.graph.initializer.append(tensor)
    graph = import_onnx(proto)
    assert graph.inputs[0].type == TensorType("bf16", (BATCH, 3, 8, 8))
    assert [node.op.name for node in graph.nodes] == ["cast", "mul"]  # computed in float32
    np.testing.assert_array_equal(np.asarray(graph.payload["w"]).ravel(), values)


def test_weights_in_typed_fields():
    tensor = helper.make_tensor("w", FLOAT, [3, 1, 1], [1.0, 2.0, 3.0])
    half = helper.make_tensor("h", TensorProto.FLOAT16, [8], np.arange(8, dtype=np.float16))
    proto = model([node("Mul", "x w", "a"), node("Add", "a h")])
    proto.graph.initializer.extend([tensor, half])
    graph = import_onnx(proto)
    assert np.asarray(graph.payload["w"]).ravel().tolist() == [1, 2, 3]
    assert np.asarray(graph.payload["h"]).tolist() == list(range(8))


def test_initializers_listed_as_inputs_are_weights():
    proto = convolution(array(4, 3, 1, 1))
    proto.graph.input.append(helper.make_tensor_value_info("w", FLOAT, (4, 3, 1, 1)))
    graph = import_onnx(proto)
    assert [v.name for v in graph.inputs] == ["x"]
    assert list(graph.parameters) == ["w"]


def test_weights_are_not_copied_and_can_be_pickled():
    proto = convolution(array(4, 3, 1, 1))
    graph = import_onnx(proto)
    stored = graph.payload["w"]
    assert not isinstance(stored, np.ndarray)  # read from the model when asked for
    again = pickle.loads(pickle.dumps(stored))
    np.testing.assert_array_equal(again, np.asarray(stored))


def external(folder, location="weights.bin", cut=0, weight=None):
    """A model in `folder`, with its weight in a file of its own."""
    weight = array(4, 3, 1, 1) if weight is None else weight
    proto = convolution(weight)
    tensor = proto.graph.initializer[0]
    data = b"\0" * 8 + tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", 8), ("length", len(data) - 8)):
        tensor.external_data.add(key=key, value=str(value))
    (folder / "weights.bin").write_bytes(data[: len(data) - cut])
    path = folder / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    return path, weight


def test_weights_in_a_file_of_their_own(tmp_path):
    path, weight = external(tmp_path)
    graph = import_onnx(path)
    assert graph.name == "net"
    read = np.asarray(graph.payload["w"])
    np.testing.assert_array_equal(read, weight)
    base = read
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)  # mapped, and not copied


def test_a_folder_of_links(tmp_path):
    """As the cache of a model hub has it: the model and its weights are links to one place."""
    store, shown = tmp_path / "store", tmp_path / "shown"
    store.mkdir(), shown.mkdir()
    path, weight = external(store)
    for name in ("net.onnx", "weights.bin"):
        os.symlink(store / name, shown / name)
    graph = import_onnx(shown / "net.onnx")
    np.testing.assert_array_equal(np.asarray(graph.payload["w"]), weight)
    path.unlink()


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "a/../../weights.bin", ""])
def test_files_outside_the_folder_are_refused(tmp_path, location):
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "weights.bin").write_bytes(b"\0" * 100)
    path, _ = external(inner, location)
    with pytest.raises(ModelFileError):
        import_onnx(path)


def test_links_out_of_the_folder_are_refused(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "other.bin").write_bytes(b"\0" * 100)
    os.symlink(tmp_path / "other.bin", inner / "link.bin")
    path, _ = external(inner, "link.bin")
    with pytest.raises(ModelFileError, match="outside the model's folder"):
        import_onnx(path)


def test_a_truncated_or_missing_file_of_weights(tmp_path):
    path, _ = external(tmp_path, cut=4)
    with pytest.raises(ModelFileError, match="it may be truncated"):
        import_onnx(path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelFileError, match=r"weights\.bin cannot be read"):
        import_onnx(path)
    with pytest.raises(ModelFileError, match="give the path of the model"):
        import_onnx(path.read_bytes())


def test_inputs_and_outputs_keep_their_names(tmp_path):
    """In the graph, through passes, in an artifact, and in an ONNX file again: one that is an input
    or another output is called so."""
    nodes = [
        node("Relu", "image", "boxes"),
        node("Identity", "boxes", "twice"),
        node("Flatten", "boxes", "f"),
        node("MatMul", "f w", "relu"),
        node("Add", "relu zero", "odd/scores:0"),
    ]
    constants = {"w": array(192, 5), "zero": np.float32(0)}
    outputs = "odd/scores:0 boxes twice"
    proto = model(nodes, constants, outputs=outputs)
    proto.graph.input[0].name = "image"
    wanted = ["odd/scores:0", "boxes", "boxes"]

    def names(graph):
        return [graph.inputs[0].name, *(value.name for value in graph.outputs)]

    graph = import_onnx(proto)
    assert names(graph) == ["image", *wanted]
    assert names(run_passes(graph)) == ["image", *wanted]
    assert names(parse_graph(print_graph(graph))) == ["image", *wanted]
    again = to_onnx(graph).graph
    assert [again.input[0].name, *(o.name for o in again.output)][:3] == ["image", *wanted[:2]]
    saved = lucid.compile(proto, threads=1).save(tmp_path / "m.lucid")
    artifact = Artifact.open(tmp_path / "m.lucid")
    assert names(artifact.captured(((1, 3, 8, 8),))) == ["image", *wanted]
    x = array(2, 3, 8, 8)
    for a, b in zip(lucid.load(tmp_path / "m.lucid", threads=1)(x), saved(x), strict=True):
        np.testing.assert_array_equal(a, b)

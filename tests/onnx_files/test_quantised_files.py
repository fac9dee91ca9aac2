"""Small networks as quantisers write them, against ONNX Runtime without its own optimisations: ONNX
Runtime's QDQ (per tensor and per channel), NNCF's (biases in floats, axes from behind, u8 and i8 in
one file), and trained ones (weights quantised in the graph). All of it runs natively, and is
exported again."""

from __future__ import annotations

import numpy as np
import pytest

import lucid
from lucid.frontend.onnx import import_onnx
from lucid.ir import interpret
from lucid.ir.passes import run_passes

pytest.importorskip("onnx", reason="the package onnx is not installed")
from onnx import TensorProto, helper, numpy_helper

from lucid.onnx.writer import to_onnx

ort = pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")

F32, U8, I8 = np.float32, np.uint8, np.int8
IMAGE = np.random.default_rng(1).normal(size=(2, 3, 9, 8)).astype(F32)


class Net:
    """An ONNX graph that grows node by node; every method gives the name of a result."""

    def __init__(self):
        self.nodes, self.tensors = [], []
        self.rng = np.random.default_rng(0)

    def node(self, kind, *operands, **attributes):
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, operands, [name], name, **attributes))
        return name

    def stored(self, array):
        name = f"tensor_{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def qdq(self, x, scale, zero):
        step = self.stored(F32(scale)), self.stored(zero)
        return self.node("DequantizeLinear", self.node("QuantizeLinear", x, *step), *step)

    def weight(self, *shape, axis=None, folded=True):
        """Weights of a scale for all, or one along an axis. Without `folded` as floats, quantised
        in the graph."""
        count = 1 if axis is None else shape[axis]
        scale = self.rng.uniform(0.004, 0.008, count).astype(F32)
        weight = self.rng.integers(-127, 128, shape).astype(I8)
        if axis is None:
            step, given = (F32(scale[0]), I8(0)), {}
        else:
            step, given = (scale, np.zeros(count, I8)), {"axis": axis}
        names = [self.stored(part) for part in step]
        if folded:
            return self.node("DequantizeLinear", self.stored(weight), *names, **given), scale
        wide = np.moveaxis(weight.astype(F32), axis or 0, -1) * scale
        floats = self.stored(np.moveaxis(wide, -1, axis or 0))
        quantised = self.node("QuantizeLinear", floats, *names, **given)
        return self.node("DequantizeLinear", quantised, *names, **given), scale

    def bias(self, scale):
        """Of 32 bits, of the scale of the sums."""
        integers = self.rng.integers(-3000, 3000, 6).astype(np.int32)
        if scale.size == 1:
            step, given = [F32(scale[0]), np.int32(0)], {}
        else:
            step, given = [scale, np.zeros(6, np.int32)], {"axis": 0}
        names = [self.stored(part) for part in step]
        return self.node("DequantizeLinear", self.stored(integers), *names, **given)

    def model(self, result, opset=13):
        shape = ("N", *IMAGE.shape[1:])
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        y = helper.make_tensor_value_info(result, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "net", [x], [y], self.tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def of_onnx_runtime(channels):
    net, axis = Net(), 0 if channels else None
    x = net.qdq("x", 0.03, I8(-3))
    weight, scale = net.weight(6, 3, 3, 3, axis=axis)
    bias = net.bias(scale * F32(0.03))
    y = net.node("Relu", net.node("Conv", x, weight, bias, pads=[1, 1, 1, 1]))
    y = net.qdq(y, 0.04, I8(-128))
    y = net.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    y = net.qdq(y, 0.04, I8(-128))
    weight, scale = net.weight(6, 6, 1, 1, axis=axis)
    other = net.qdq(net.node("Conv", y, weight, net.bias(scale * F32(0.04))), 0.05, I8(4))
    y = net.qdq(net.node("Add", y, other), 0.06, I8(-20))
    y = net.qdq(net.node("Concat", y, other, axis=1), 0.07, I8(-9))
    y = net.qdq(net.node("GlobalAveragePool", y), 0.03, I8(-100))
    return net.model(net.qdq(net.node("Sigmoid", y), 1 / 256, I8(-128)))


def of_nncf():
    net = Net()
    x = net.qdq("x", 0.03, I8(0))
    shared = net.stored(net.rng.normal(size=6).astype(F32))
    weight, _ = net.weight(6, 3, 3, 3, axis=0)
    y = net.node("Conv", x, weight, net.node("Identity", shared), strides=[2, 2])
    y = net.qdq(net.node("Relu", y), 0.04, U8(0))
    weight, _ = net.weight(6, 6, 1, 1, axis=-4)
    other = net.node("Conv", y, weight, net.node("Identity", shared))
    y = net.node("Add", net.qdq(other, 0.05, I8(4)), y)
    y = net.node("ReduceMean", net.qdq(y, 0.06, I8(-5)), axes=[2, 3], keepdims=0)
    weight, _ = net.weight(6, 6, axis=-2)
    bias = net.stored(net.rng.normal(size=6).astype(F32))
    return net.model(net.node("Gemm", net.qdq(y, 0.03, U8(50)), weight, bias, transB=1))


def trained():
    net = Net()
    weight, _ = net.weight(6, 3, 3, 3, axis=0, folded=False)
    y = net.node("Conv", net.qdq("x", 0.03, U8(120)), weight, pads=[1, 0, 1, 0])
    y = net.qdq(net.node("HardSwish", y), 0.05, U8(8))
    weight, _ = net.weight(6, 1, 3, 3, folded=False)
    return net.model(net.qdq(net.node("Conv", y, weight, group=6), 0.2, U8(128)), 14)


FILES = {
    "ONNX Runtime, one scale": of_onnx_runtime(channels=False),
    "ONNX Runtime, channels": of_onnx_runtime(channels=True),
    "NNCF": of_nncf(),
    "trained": trained(),
}


def wanted(proto):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (y,) = session.run(None, {"x": IMAGE})
    return y


def assert_close(y, right):
    """A few numbers may be a step apart: floats add up in another order than integers."""
    apart = np.abs(y - right)
    assert apart.max() <= 0.201
    assert apart.mean() < 0.01


@pytest.mark.parametrize("proto", FILES.values(), ids=FILES)
def test_a_file_gives_what_onnx_runtime_gives(proto):
    compiled = lucid.compile(proto, options=lucid.CompileOptions(host_ops="refuse"))
    assert_close(compiled(IMAGE), wanted(proto))


@pytest.mark.parametrize("proto", FILES.values(), ids=FILES)
def test_layers_are_of_integers(proto):
    graph = run_passes(import_onnx(proto))
    anchors = [n.op.anchor.name if n.op.name == "fusion" else n.op.name for n in graph.nodes]
    assert not {"conv2d", "linear"} & set(anchors)
    assert anchors.count("integer_conv2d") == 2


def joined_biases(proto):
    """Of the integer layers that a file gives, how many have a bias of integers."""
    graph = run_passes(import_onnx(proto))
    anchors = [n for n in graph.nodes if n.op.name == "fusion"]
    return [sum(v.type.dtype == "i32" for v in n.inputs) for n in anchors if layer_of(n)]


def layer_of(node):
    return node.op.anchor.name == "integer_conv2d"


@pytest.mark.parametrize("channels", [False, True])
def test_biases_at_the_scale_of_the_sums_are_added_to_these(channels):
    """As ONNX Runtime writes them: their scales are the float32 products of the others."""
    assert joined_biases(of_onnx_runtime(channels)) == [1, 1]


@pytest.mark.parametrize("factor", [np.float32(1.5), np.nextafter(F32(1), F32(2)), np.float32(0)])
def test_biases_at_any_other_scale_are_added_as_floats(factor):
    proto = of_onnx_runtime(channels=True)
    biases = {n.input[2] for n in proto.graph.node if n.op_type == "Conv"}
    scales = {n.input[1] for n in proto.graph.node if n.output[0] in biases}
    for tensor in proto.graph.initializer:
        if tensor.name in scales:
            scale = numpy_helper.to_array(tensor).copy()
            scale[3] *= factor
            tensor.CopyFrom(numpy_helper.from_array(scale, tensor.name))
    assert joined_biases(proto) == [0, 0]
    assert_close(lucid.compile(proto)(IMAGE), wanted(proto))


@pytest.mark.parametrize("channels", [False, True])
def test_biases_with_which_sums_may_leave_32_bits_are_added_as_floats(channels):
    proto = of_onnx_runtime(channels)
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.INT32 and tensor.dims:
            bias = numpy_helper.to_array(tensor).copy()
            if bias.any():  # no zero points
                bias[:2] = 2**31 - 1, -(2**31)
                tensor.CopyFrom(numpy_helper.from_array(bias, tensor.name))
    assert joined_biases(proto) == [0, 0]
    assert_close(lucid.compile(proto)(IMAGE), wanted(proto))


@pytest.mark.parametrize("transposed", [0, 1])
def test_biases_of_linear_layers_join_their_sums(transposed):
    net = Net()
    x = net.node("GlobalAveragePool", net.qdq("x", 0.03, U8(120)))
    x = net.qdq(net.node("Flatten", x), 0.02, U8(128))
    weight, scale = net.weight(*((6, 3) if transposed else (3, 6)), axis=1 - transposed)
    proto = net.model(net.node("Gemm", x, weight, net.bias(scale * F32(0.02)), transB=transposed))
    (layer,) = (n for n in run_passes(import_onnx(proto)).nodes if linear_of(n))
    assert sum(v.type.dtype == "i32" for v in layer.inputs) == 1
    assert_close(lucid.compile(proto)(IMAGE), wanted(proto))


def linear_of(node):
    return node.op.name == "fusion" and node.op.anchor.name == "integer_linear"


@pytest.mark.parametrize("proto", FILES.values(), ids=FILES)
def test_exported_again_it_gives_the_same(proto):
    """As read, for other runtimes to optimise; and as fused, where it gives the same bits."""
    graph = import_onnx(proto)
    assert_close(wanted(to_onnx(graph)), wanted(proto))
    graph = run_passes(graph)
    np.testing.assert_allclose(
        wanted(to_onnx(graph)), interpret(graph, [IMAGE])[0], rtol=1e-6, atol=1e-6
    )


def test_weights_of_integers_are_saved_and_loaded(tmp_path):
    proto = FILES["NNCF"]
    compiled = lucid.compile(proto)
    compiled.save(tmp_path / "net.lucid")
    np.testing.assert_array_equal(lucid.load(tmp_path / "net.lucid")(IMAGE), compiled(IMAGE))

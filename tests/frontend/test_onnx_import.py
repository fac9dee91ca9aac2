"""Models as other exporters write them: opsets, idioms, files, and everything that is wrong."""

import contextlib
import os
import pickle
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lucid.errors import (
    InputError,
    LucidError,
    MissingPackageError,
    ModelFileError,
    ShapeError,
    UnsupportedError,
)
from lucid.frontend.onnx import import_onnx
from lucid.ir import BATCH, f32, interpret, verify

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
RNG = np.random.default_rng(0)


def array(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def node(kind, inputs, outputs="y", name="", **attributes):
    """`inputs` and `outputs` separated by spaces; `-` is an operand left out."""
    names = ["" if n == "-" else n for n in inputs.split()]
    return helper.make_node(kind, names, outputs.split(), name=name, **attributes)


def model(nodes, constants=None, shape=("N", 3, 8, 8), outputs="y", opset=18, dtype=FLOAT):
    """A model of one input x of `shape`, with initializers `constants`."""
    initializers = [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info(n, FLOAT, None) for n in outputs.split()],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def run(proto, x, **options):
    """The one output for x, in float64."""
    graph = import_onnx(proto, **options)
    verify(graph)
    (y,) = interpret(graph, [x], dtype=np.float64)
    return y


def kinds(proto):
    """The names of the ops of the graph, in order."""
    return [n.op.name for n in import_onnx(proto).nodes]


# -- one operator in many versions --------------------------------------------------------------

IMAGE = array(2, 4, 6, 5)
VERSIONS = {
    "clip, attributes": (10, [node("Clip", "x", min=-0.5, max=0.5)], {}),
    "clip, operands": (13, [node("Clip", "x - high")], {"high": np.float32(0.3)}),
    "slice, attributes": (9, [node("Slice", "x", axes=[2, 3], starts=[1, -4], ends=[99, -1])], {}),
    "slice, operands": (
        13,
        [node("Slice", "x s e a t")],
        {"s": [-1, 0], "e": [-99, 9], "a": [1, -1], "t": [-2, 3]},
    ),
    "pad, operands": (13, [node("Pad", "x p", mode="reflect")], {"p": [0, 0, 1, 2, 0, 0, 3, 0]}),
    "pad, axes": (18, [node("Pad", "x p - a", mode="edge")], {"p": [1, 2, 0, 3], "a": [-1, 2]}),
    "unsqueeze, attribute": (11, [node("Unsqueeze", "x", axes=[0, -1])], {}),
    "unsqueeze, operand": (13, [node("Unsqueeze", "x a")], {"a": [2]}),
    "sum, attribute": (11, [node("ReduceSum", "x", axes=[1, -1], keepdims=0)], {}),
    "sum, operand": (13, [node("ReduceSum", "x a")], {"a": [2, 3]}),
    "mean, attribute": (13, [node("ReduceMean", "x", axes=[2])], {}),
    "mean, operand": (18, [node("ReduceMean", "x a", keepdims=0)], {"a": [-1]}),
    "max, min": (
        18,
        [node("ReduceMax", "x a", "m"), node("ReduceMin", "m b")],
        {"a": [1], "b": [3]},
    ),
    "no axes, nothing": (18, [node("ReduceMax", "x", noop_with_empty_axes=1)], {}),
    "l2": (18, [node("ReduceL2", "x a")], {"a": [1]}),
    "logsumexp": (18, [node("ReduceLogSumExp", "x a", keepdims=0)], {"a": [1]}),
    "softmax since 13": (13, [node("Softmax", "x", axis=2)], {}),
    "log softmax": (13, [node("LogSoftmax", "x", axis=1)], {}),
    "split, attribute": (11, [node("Split", "x", "a y", axis=1, split=[1, 3])], {}),
    "split, operand": (13, [node("Split", "x s", "a y", axis=1)], {"s": [3, 1]}),
    "split, count": (18, [node("Split", "x", "a y", axis=3, num_outputs=2)], {}),
    "dropout, attribute": (11, [node("Dropout", "x", ratio=0.5)], {}),
    "dropout, mask": (13, [node("Dropout", "x", "d m"), node("Where", "m d d")], {}),
    "pow, integer": (15, [node("Pow", "x two")], {"two": np.array(2)}),
    "pow, three": (15, [node("Pow", "x n")], {"n": np.array([3.0], np.float32)}),
    "flatten": (11, [node("Flatten", "x", axis=-2)], {}),
    "transpose": (11, [node("Transpose", "x", perm=[0, 2, 3, 1])], {}),
    "tile": (11, [node("Tile", "x n")], {"n": [1, 2, 1, 3]}),
    "expand": (11, [node("Expand", "x n")], {"n": [3, 1, 1, 1, 1]}),
    "gather one": (11, [node("Gather", "x i", axis=1)], {"i": np.array(-1)}),
    "gather many": (11, [node("Gather", "x i", axis=2)], {"i": [[0, 5], [3, 3]]}),
    "arg max": (13, [node("ArgMax", "x", axis=1, keepdims=0)], {}),
    "depth to space": (13, [node("DepthToSpace", "x", blocksize=2)], {}),
    "depth to space, CRD": (13, [node("DepthToSpace", "x", blocksize=2, mode="CRD")], {}),
    "space to depth": (
        13,
        [node("Slice", "x s e a", "c"), node("SpaceToDepth", "c", blocksize=2)],
        {"s": [0], "e": [4], "a": [3]},
    ),
    "variadic": (13, [node("Max", "x x h", "m"), node("Sum", "m x h")], {"h": array(1, 1, 6, 1)}),
    "mean of three": (13, [node("Mean", "x h h")], {"h": array(4, 1, 1)}),
    "logic": (
        13,
        [
            node("Greater", "x h", "a"),
            node("LessOrEqual", "x x", "b"),
            node("And", "a b", "c"),
            node("Not", "c", "d"),
            node("Xor", "d b", "e"),
            node("Or", "e c", "f"),
            node("Where", "f x h"),
        ],
        {"h": np.float32(0.25)},
    ),
    "cast to bool and back": (
        13,
        [node("Relu", "x", "r"), node("Cast", "r", "b", to=9), node("Cast", "b", "y", to=1)],
        {},
    ),
    "cast to int and back": (
        13,
        [node("Cast", "x", "i", to=6), node("Cast", "i", "y", to=1)],
        {},
    ),
    "is nan": (13, [node("IsNaN", "x", "n"), node("Where", "n h x")], {"h": np.float32(0)}),
    "activations": (
        18,
        [
            node("HardSigmoid", "x", "a", alpha=0.3, beta=0.4),
            node("LeakyRelu", "x", "b", alpha=0.2),
            node("Elu", "b", "c", alpha=0.7),
            node("Selu", "c", "d"),
            node("Softplus", "d", "e"),
            node("HardSwish", "e", "f"),
            node("Mish", "f", "g"),
            node("ThresholdedRelu", "g", "h", alpha=0.2),
            node("Softsign", "h", "i"),
            node("Celu", "i", "j", alpha=0.5),
            node("PRelu", "j s", "k"),
            node("Add", "k a"),
        ],
        {"s": array(4, 1, 1)},
    ),
    "gelu": (20, [node("Gelu", "x", "g"), node("Gelu", "g", approximate="tanh")], {}),
    "arithmetic": (
        13,
        [
            node("Ceil", "x", "a"),
            node("Sign", "a", "b"),
            node("Round", "x", "c"),
            node("Reciprocal", "h", "d"),
            node("Mul", "b d", "e"),
            node("Sub", "e c", "f"),
            node("Neg", "f", "g"),
            node("Min", "g x"),
        ],
        {"h": np.float32(3)},
    ),
    "layer norm": (
        17,
        [node("LayerNormalization", "x s b", axis=-2, epsilon=0.1)],
        {"s": array(6, 5), "b": array(6, 5)},
    ),
    "instance norm": (
        9,
        [node("InstanceNormalization", "x s b", epsilon=0.1)],
        {"s": array(4), "b": array(4)},
    ),
    "group norm, by channel": (
        21,
        [node("GroupNormalization", "x s b", num_groups=2)],
        {"s": array(4), "b": array(4)},
    ),
    "l2 norm": (13, [node("LpNormalization", "x", axis=1)], {}),
    "cumulative sum": (14, [node("CumSum", "x a", reverse=1)], {"a": np.array(2)}),
    "gather nd": (
        13,
        [node("Transpose", "x", "t", perm=[2, 3, 0, 1]), node("GatherND", "t i")],
        {"i": [[1, 2], [-1, 0]]},
    ),
    "gemm": (
        13,
        [
            node("Flatten", "x", "f", axis=3),
            node("Gemm", "f w c", alpha=0.5, beta=2.0, transA=1),
        ],
        {"w": array(48, 3), "c": array(5, 1)},
    ),
    "matmul of vectors": (
        13,
        [node("MatMul", "x v", "m"), node("MatMul", "u m")],
        {
            "v": array(5),
            "u": array(4),
        },
    ),
    "convolution, no bias": (
        11,
        [node("Conv", "x w", strides=[2, 1], pads=[1, 0, 2, 1], group=2, dilations=[1, 2])],
        {"w": array(6, 2, 3, 2)},
    ),
    "convolution, same": (
        11,
        [node("Conv", "x w b", auto_pad="SAME_LOWER", strides=[2, 2])],
        {"w": array(3, 4, 3, 2), "b": array(3)},
    ),
    "transposed convolution, blocks": (
        11,
        [node("ConvTranspose", "x w b", strides=[2, 3])],
        {"w": array(4, 3, 2, 3), "b": array(3)},
    ),
    "average pool": (
        11,
        [node("AveragePool", "x", kernel_shape=[3, 2], pads=[1, 1, 1, 0], strides=[2, 2])],
        {},
    ),
    "average pool, counting": (
        11,
        [node("AveragePool", "x", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)],
        {},
    ),
    "max pool, ceil": (
        11,
        [node("MaxPool", "x", kernel_shape=[2, 3], strides=[2, 3], ceil_mode=1)],
        {},
    ),
    "max pool, same": (
        11,
        [node("MaxPool", "x", kernel_shape=[2, 3], strides=[2, 2], auto_pad="SAME_UPPER")],
        {},
    ),
    "global pools": (
        11,
        [node("GlobalAveragePool", "x", "a"), node("GlobalMaxPool", "x", "b"), node("Add", "a b")],
        {},
    ),
    "upsample": (
        9,
        [node("Upsample", "x s", mode="nearest")],
        {"s": np.array([1, 1, 2, 3], np.float32)},
    ),
    "resize 11, scales": (
        11,
        [node("Resize", "x r s", mode="linear")],
        {"r": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 1.5], np.float32)},
    ),
    "resize 13, sizes": (
        13,
        [
            node(
                "Resize",
                "x - - s",
                mode="linear",
                coordinate_transformation_mode="align_corners",
            )
        ],
        {"s": [2, 4, 9, 4]},
    ),
    "resize 18, axes": (
        18,
        [node("Resize", "x - - s", axes=[3, 2], nearest_mode="ceil")],
        {"s": [8, 9]},
    ),
}


@pytest.mark.parametrize(("opset", "nodes", "constants"), VERSIONS.values(), ids=list(VERSIONS))
def test_versions_of_operators(opset, nodes, constants):
    """Against onnx's own reference, for a batch of any size where the batch is in front."""
    from onnx.reference import ReferenceEvaluator

    proto = model(nodes, constants, IMAGE.shape, opset=opset)
    (wanted,) = ReferenceEvaluator(proto).run(None, {"x": IMAGE})
    found = run(proto, IMAGE)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def softmax_of_the_rest(x):
    powers = np.exp(x)
    return powers / powers.sum((2, 3), keepdims=True)


def by_channel(values):
    return values[:, None, None]


def over_three_channels(x):
    squares = np.pad(x * x, ((0, 0), (1, 1), (0, 0), (0, 0)))
    return squares[:, :-2] + squares[:, 1:-1] + squares[:, 2:]


def scattered(x, weight, stride, dilation=(1, 1), groups=1):
    """Each pixel of x adds a window of weights to the result, uncut."""
    inner, out = len(weight) // groups, weight.shape[1]
    size = [
        s * (n - 1) + d * (k - 1) + 1
        for s, n, d, k in zip(stride, x.shape[2:], dilation, weight.shape[2:], strict=True)
    ]
    y = np.zeros((len(x), out * groups, *size))
    for i, j in np.ndindex(*x.shape[2:]):
        for u, v in np.ndindex(*weight.shape[2:]):
            row, column = i * stride[0] + u * dilation[0], j * stride[1] + v * dilation[1]
            for g in range(groups):
                part = slice(g * inner, (g + 1) * inner)
                y[:, g * out : (g + 1) * out, row, column] += (
                    x[:, part, i, j] @ weight[part, :, u, v]
                )
    return y


APART, WIDE = array(4, 3, 3, 2), array(4, 2, 3, 4)
STATISTICS = {"s": array(4), "b": array(4), "m": array(4), "v": array(4) ** 2}
BY_HAND = {
    "pad, attributes": (
        10,
        [node("Pad", "x", pads=[0, 0, 1, -1, 0, 0, 0, 2], value=1.5)],
        {},
        lambda x: np.pad(x[..., 1:], ((0, 0), (0, 0), (1, 0), (0, 2)), constant_values=1.5),
    ),
    "softmax before 13": (11, [node("Softmax", "x", axis=2)], {}, softmax_of_the_rest),
    "batch norm": (
        9,
        [node("BatchNormalization", "x s b m v", epsilon=0.1)],
        STATISTICS,
        lambda x: (
            (x - by_channel(STATISTICS["m"]))
            / np.sqrt(by_channel(STATISTICS["v"]) + 0.1)
            * by_channel(STATISTICS["s"])
            + by_channel(STATISTICS["b"])
        ),
    ),
    "local response": (
        13,
        [node("LRN", "x", size=3, alpha=0.2, beta=0.6, bias=1.5)],
        {},
        lambda x: x / (1.5 + 0.2 / 3 * over_three_channels(x)) ** 0.6,
    ),
    "transposed convolution": (
        11,
        [node("ConvTranspose", "x w", strides=[2, 3], pads=[1, 0, 0, 1], group=2)],
        {"w": APART},
        lambda x: scattered(x, APART, (2, 3), groups=2)[:, :, 1:, :-1],
    ),
    "transposed convolution, more at the end": (
        11,
        [node("ConvTranspose", "x w", strides=[2, 1], output_padding=[1, 0], dilations=[2, 1])],
        {"w": WIDE},
        lambda x: np.pad(scattered(x, WIDE, (2, 1), (2, 1)), ((0, 0), (0, 0), (0, 1), (0, 0))),
    ),
    "transposed convolution, to a size": (
        11,
        [node("ConvTranspose", "x w", strides=[3, 2], output_shape=[15, 10])],
        {"w": WIDE},
        lambda x: scattered(x, WIDE, (3, 2))[:, :, 2:-1, 1:-1],
    ),
    "resize 10": (
        10,
        [node("Resize", "x s")],
        {"s": np.array([1, 1, 0.5, 2], np.float32)},
        lambda x: x[:, :, ::2].repeat(2, 3),
    ),
}


@pytest.mark.parametrize(
    ("opset", "nodes", "constants", "formula"), BY_HAND.values(), ids=list(BY_HAND)
)
def test_versions_of_operators_by_hand(opset, nodes, constants, formula):
    """Those that onnx's reference computes by the rules of other versions, or not at all."""
    found = run(model(nodes, constants, IMAGE.shape, opset=opset), IMAGE)
    wanted = formula(IMAGE.astype(np.float64))
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_weights_standardised_by_a_batch_norm_in_training():
    weight, scale, bias = array(1, 4, 12), array(4), array(4)
    nodes = [
        node("BatchNormalization", "w s b b b", "n", training_mode=1, epsilon=0.1),
        node("Reshape", "n t", "k"),
        node("Conv", "x k"),
    ]
    constants = {"w": weight, "s": scale, "b": bias, "t": [4, 3, 2, 2]}
    centred = weight - weight.mean(2, keepdims=True)
    even = centred / np.sqrt(weight.var(2, keepdims=True) + 0.1) * scale[:, None] + bias[:, None]
    x = array(2, 3, 8, 8)
    wanted = run(model([node("Conv", "x k")], {"k": even.reshape(4, 3, 2, 2)}), x)
    np.testing.assert_allclose(run(model(nodes, constants), x), wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(UnsupportedError, match="in training mode"):
        import_onnx(model([node("BatchNormalization", "x s s s s", training_mode=1)], constants))


def test_one_spatial_axis():
    x = array(2, 4, 9)
    nodes = [
        node("Conv", "x w b", "c", strides=[2], pads=[1, 2], group=2),
        node("MaxPool", "c", "m", kernel_shape=[2], strides=[1]),
        node("AveragePool", "m", "a", kernel_shape=[2], pads=[1, 0], count_include_pad=1),
        node("ConvTranspose", "a t", strides=[2], pads=[1, 0]),
    ]
    constants = {"w": array(6, 2, 3), "b": array(6), "t": array(6, 2, 3)}
    from onnx.reference import ReferenceEvaluator

    proto = model(nodes, constants, x.shape)
    (wanted,) = ReferenceEvaluator(proto).run(None, {"x": x})
    np.testing.assert_allclose(run(proto, x), wanted, rtol=1e-5, atol=1e-5)


def test_group_norm_before_opset_21_has_a_scale_for_each_group():
    scale, bias = array(2), array(2)
    nodes = [node("GroupNormalization", "x s b", num_groups=2)]
    proto = model(nodes, {"s": scale, "b": bias}, IMAGE.shape)
    each = IMAGE.reshape(2, 2, 60).astype(np.float64)
    each = (each - each.mean(2, keepdims=True)) / np.sqrt(each.var(2, keepdims=True) + 1e-5)
    wanted = each * scale[:, None] + bias[:, None]
    np.testing.assert_allclose(run(proto, IMAGE), wanted.reshape(IMAGE.shape), rtol=1e-6)


@pytest.mark.parametrize(
    ("opset", "nodes", "constants"),
    [*VERSIONS.values(), *(case[:3] for case in BY_HAND.values())],
    ids=[*VERSIONS, *BY_HAND],
)
def test_onnx_runtime_computes_the_same(opset, nodes, constants):
    ort = pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")
    proto = model(nodes, constants, IMAGE.shape, opset=opset)
    proto.ir_version = 8
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(proto.SerializeToString(), options)
    except Exception as error:  # its own classes
        pytest.skip(f"ONNX Runtime does not take it: {error}")
    (wanted,) = session.run(None, {"x": IMAGE})
    np.testing.assert_allclose(run(proto, IMAGE), wanted, rtol=1e-4, atol=1e-4)


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


# -- weights ------------------------------------------------------------------------------------


def convolution(weight):
    return model([node("Conv", "x w", name="/stem/Conv")], {"w": weight}, ("N", 3, 8, 8))


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
    assert graph.inputs[0].type == f32(BATCH, 3, 8, 8)
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


# -- what cannot be read ------------------------------------------------------------------------


def test_every_unsupported_operator_is_listed():
    nodes = [
        node("Einsum", "x w", "a", name="/up1/Einsum"),
        node("Relu", "a", "b"),
        node("Einsum", "b w", "c", name="/up2/Einsum"),
        node("TopK", "c k", "d e", name="best"),
        node("Resize", "x - s", "f", name="cubic", mode="cubic"),
        helper.make_node("FusedThing", ["f"], ["y"], domain="com.example"),
    ]
    constants = {"w": array(3, 3, 2, 2), "k": [1], "s": np.array([1, 1, 2, 2], np.float32)}
    proto = model(nodes, constants)
    with pytest.raises(UnsupportedError) as caught:
        import_onnx(proto)
    message = str(caught.value)
    assert "net holds 4 operators that Lucid cannot express" in message
    assert "Einsum x2: '/up1/Einsum' (up1), '/up2/Einsum' (up2)" in message
    assert "TopK x1: 'best'" in message
    assert "Resize x1 (with mode cubic): 'cubic'" in message
    assert "com.example.FusedThing x1" in message
    assert "Relu" not in message


def test_results_that_only_training_needs():
    nodes = [node("MaxPool", "x", "y i", kernel_shape=[2, 2])]
    assert kinds(model(nodes)) == ["max_pool2d"]
    nodes.append(node("Cast", "i", "z", to=1))
    with pytest.raises(UnsupportedError, match=r"MaxPool x1 \(its result 1 is not computed\)"):
        import_onnx(model(nodes, outputs="y z"))


def test_control_flow_at_run_time():
    body = helper.make_graph([], "body", [], [])
    nodes = [node("Loop", "m c x", body=body)]
    with pytest.raises(UnsupportedError, match="Loop x1"):
        import_onnx(model(nodes, {"m": np.array(3), "c": np.array(True)}))


@pytest.mark.parametrize("opset", [1, 8, 999])
def test_unknown_versions(opset):
    with pytest.raises(UnsupportedError, match=f"version {opset} of ONNX's operators"):
        import_onnx(model([node("Relu", "x")], opset=opset))


def test_no_version():
    proto = model([node("Relu", "x")])
    del proto.opset_import[:]
    with pytest.raises(ModelFileError, match="does not say which version"):
        import_onnx(proto)


def test_a_cycle_is_shown():
    nodes = [node("Add", "x b", "a", name="first"), node("Relu", "a", "b"), node("Neg", "b")]
    with pytest.raises(ModelFileError, match=r"in a circle: Add 'first' <- Relu 'b' <- Add"):
        import_onnx(model(nodes))


def test_nodes_in_any_order():
    nodes = [node("Neg", "b"), node("Relu", "a", "b"), node("Abs", "x", "a")]
    assert kinds(model(nodes)) == ["abs", "relu", "neg"]


@pytest.mark.parametrize(
    ("nodes", "constants", "message"),
    [
        ([node("Add", "x w")], {}, "Add 'y' reads 'w', which nothing in the model gives"),
        ([node("Relu", "x"), node("Abs", "x")], {}, "two values of the model are named 'y'"),
        ([node("Relu", "x", "x")], {}, "two values of the model are named 'x'"),
        ([node("Relu", "x", "z")], {}, "an output of the model reads 'y'"),
        ([node("Relu", "x", "w"), node("Abs", "w")], {"w": array(2)}, "are named 'w'"),
        ([node("Concat", "x x")], {}, "Concat 'y': has no axis"),
        ([node("Concat", "x x", axis=7)], {}, "axis 7 is not one of 4"),
        ([node("Concat", "x x", axis=1.5)], {}, "attribute axis is of another type"),
        ([node("Conv", "x")], {}, "operand 1 is missing"),
        ([node("MaxPool", "x", kernel_shape=[2])], {}, "has a kernel (2,)"),
        ([node("Slice", "x s e")], {"s": [0], "e": [1, 2]}, "of unlike lengths"),
        ([node("Reshape", "x s")], {"s": [[1]]}, "should be a vector"),
    ],
)
def test_broken_models(nodes, constants, message):
    with pytest.raises(ModelFileError) as caught:
        import_onnx(model(nodes, constants))
    assert message in str(caught.value)
    assert str(caught.value).startswith("net: ")


@pytest.mark.parametrize(
    ("nodes", "constants", "message"),
    [
        ([node("Conv", "x w", name="/a/Conv")], {"w": array(2, 4, 1, 1)}, "Conv '/a/Conv' (a): "),
        ([node("Reshape", "x s")], {"s": [7, -1]}, "cannot be reshaped to 7x-1"),
        ([node("Add", "x w")], {"w": array(5)}, "shapes (N,3,8,8) and (5) cannot be broadcast"),
        ([node("Gather", "x i", axis=1)], {"i": [3]}, "takes [3] of axis 1"),
    ],
)
def test_operands_that_do_not_fit(nodes, constants, message):
    with pytest.raises(ShapeError) as caught:
        import_onnx(model(nodes, constants))
    assert message in str(caught.value)


def test_lying_shapes_are_not_believed():
    """Neither those of values between, nor those of outputs; a tensor's own must be true."""
    proto = model([node("GlobalAveragePool", "x", "p"), node("Flatten", "p")])
    proto.graph.value_info.append(helper.make_tensor_value_info("p", FLOAT, (1, 99)))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", INT64, (7, 7, 7)))
    assert import_onnx(proto).outputs[0].type == f32(BATCH, 3)
    proto = convolution(array(4, 3, 1, 1))
    proto.graph.initializer[0].dims[0] = 5
    with pytest.raises(ModelFileError, match=r"tensor 'w' has the shape \[5, 3, 1, 1\]"):
        import_onnx(proto)


def test_inputs_that_are_no_tensors():
    proto = model([node("Relu", "x")])
    proto.graph.input[0].CopyFrom(helper.make_tensor_sequence_value_info("x", FLOAT, None))
    with pytest.raises(UnsupportedError, match="input 'x' of net is no tensor"):
        import_onnx(proto)
    proto = model([node("Relu", "x")], dtype=TensorProto.STRING)
    with pytest.raises(UnsupportedError, match="elements of type 8"):
        import_onnx(proto)
    proto = model([node("Relu", "w")], {"w": array(3)})
    del proto.graph.input[:]
    with pytest.raises(UnsupportedError, match="has no inputs"):
        import_onnx(proto)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "net.onnx"
    with pytest.raises(ModelFileError, match="No such file"):
        import_onnx(path)
    path.write_bytes(b"\x89PNG\r\n" * 100)
    with pytest.raises(ModelFileError, match="not a whole ONNX file"):
        import_onnx(path)
    path.write_bytes(b"")
    with pytest.raises(ModelFileError, match="not an ONNX file"):
        import_onnx(str(path))
    with pytest.raises(ModelFileError):
        import_onnx(tmp_path)
    with pytest.raises(InputError, match="takes a path"):
        import_onnx(7)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingPackageError, match=r"lucid-compiler\[onnx\]"):
        import_onnx(b"")


WHOLE = model(
    [
        node("Conv", "x w b", "c", name="/stem/Conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("BatchNormalization", "c b b b v", "n"),
        node("Clip", "n low high", "r"),
        node("Shape", "r", "s"),
        node("Gather", "s zero", "batch", axis=0),
        node("Unsqueeze", "batch vector", "first"),
        node("Concat", "first rest", "target", axis=0),
        node("Resize", "r - scales", "u", mode="linear"),
        node("AveragePool", "u", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Reshape", "p target", "f"),
        node("Gemm", "f g", "y", transB=1),
    ],
    {
        "w": array(2, 3, 3, 3),
        "b": array(2),
        "v": array(2) ** 2,
        "low": np.float32(0),
        "high": np.float32(6),
        "zero": np.array(0),
        "vector": [0],
        "rest": [-1],
        "scales": np.array([1, 1, 2, 2], np.float32),
        "g": array(3, 32),
    },
).SerializeToString()


@settings(max_examples=150)
@given(st.data())
def test_damaged_files_raise_errors_of_lucid_only(data):
    """Bytes flipped and files cut: a graph, or an error that says what is wrong."""
    damaged = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(WHOLE) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(WHOLE))) :]
    with contextlib.suppress(LucidError):
        verify(import_onnx(bytes(damaged)))

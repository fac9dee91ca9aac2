"""Operators in the forms of many versions, against onnx's own reference and ONNX Runtime."""

import numpy as np
import pytest

from lucid.errors import UnsupportedError
from lucid.frontend.onnx import import_onnx

pytest.importorskip("onnx", reason="the package onnx is not installed")
from onnx import helper
from onnx_models import array, model, node, run

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
    "pad, around": (19, [node("Pad", "x p", mode="wrap")], {"p": [0, 0, 1, 2, 0, 0, 3, 0]}),
    "resize, cubic": (
        18,
        [node("Resize", "x - s", mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1)],
        {"s": np.array([1, 1, 2, 0.5], np.float32)},
    ),
    "resize, filtered": (
        18,
        [node("Resize", "x - - z", mode="linear", antialias=1, axes=[2, 3])],
        {"z": [3, 2]},
    ),
    "resize, filtered by a cubic": (
        18,
        [node("Resize", "x - - z", mode="cubic", antialias=1, exclude_outside=1, axes=[3, 2])],
        {"z": [3, 2]},
    ),
    "resize, a part of it": (
        18,
        [
            node(
                "Resize",
                "x r - z",
                mode="linear",
                axes=[2, 3],
                coordinate_transformation_mode="tf_crop_and_resize",
                extrapolation_value=2.5,
            )
        ],
        {"r": np.array([0.2, -0.3, 1.4, 0.6], np.float32), "z": [5, 7]},
    ),
    "resize, channels": (
        18,
        [node("Resize", "x - - z", axes=[1, 3])],
        {"z": [6, 3]},
    ),
    "resize, as large as fits": (
        18,
        [
            node(
                "Resize",
                "x - - z",
                axes=[2, 3],
                keep_aspect_ratio_policy="not_larger",
                nearest_mode="floor",
            )
        ],
        {"z": [12, 12]},
    ),
    **{
        f"grid sample, {mode}": (
            20,
            [
                node("Slice", "x s e a", "g"),
                node("Transpose", "g", "t", perm=[0, 2, 3, 1]),
                node("GridSample", "x t", mode=mode, padding_mode=padding, align_corners=1),
            ],
            {"s": [0], "e": [2], "a": [1]},
        )
        for mode, padding in (("linear", "reflection"), ("cubic", "zeros"), ("nearest", "border"))
    },
    "affine grid": (
        20,
        [
            node("Slice", "x s e a", "t"),
            node("Squeeze", "t l", "q"),
            node("AffineGrid", "q z", align_corners=1),
        ],
        {"s": [0, 0, 0], "e": [2, 3, 1], "a": [1, 2, 3], "l": [3], "z": [2, 4, 3, 5]},
    ),
    "roi align": (
        16,
        [node("RoiAlign", "x b i", output_height=2, output_width=3, spatial_scale=0.5)],
        {"b": np.array([[1, 2, 7, 11], [0, 0, 3, 3]], np.float32), "i": [1, 0]},
    ),
    "deform conv": (
        19,
        [
            node("Slice", "x s e a", "o"),
            node("Slice", "x s f a", "m"),
            node("DeformConv", "x w o b m", kernel_shape=[1, 1]),
        ],
        {
            "s": [0],
            "e": [2],
            "f": [1],
            "a": [1],
            "w": array(3, 4, 1, 1),
            "b": array(3),
        },
    ),
    "columns to image": (
        18,
        [node("Reshape", "x n", "c"), node("Col2Im", "c z k")],
        {"n": [0, 4, 30], "z": [7, 6], "k": [2, 2]},
    ),
    "max pool and back": (
        18,
        [
            node("MaxPool", "x", "m i", kernel_shape=[2, 1], strides=[2, 1]),
            node("MaxUnpool", "m i", kernel_shape=[2, 1], strides=[2, 1]),
        ],
        {},
    ),
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
    "no axes, the rest of it": (
        18,
        [
            node("ReduceL1", "x", "a", noop_with_empty_axes=1),
            node("ReduceSumSquare", "a", "b", noop_with_empty_axes=1),
            node("ReduceLogSum", "b", "c", noop_with_empty_axes=1),
            node("ReduceL2", "c", noop_with_empty_axes=1),
        ],
        {},
    ),
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
    "transposed convolution, to a larger size": (
        11,
        [node("ConvTranspose", "x w", strides=[3, 2], output_shape=[19, 13])],
        {"w": WIDE},
        lambda x: np.pad(scattered(x, WIDE, (3, 2)), ((0, 0), (0, 0), (0, 1), (0, 1))),
    ),
    "transposed convolution, to a size, the odd line at the end": (
        11,
        [
            node(
                "ConvTranspose",
                "x w",
                strides=[3, 2],
                output_shape=[15, 10],
                output_padding=[1, 0],
                auto_pad="SAME_UPPER",
            )
        ],
        {"w": WIDE},
        lambda x: scattered(x, WIDE, (3, 2))[:, :, 2:-1, 1:-1],
    ),
    "transposed convolution, to a size with batch and channels": (
        11,
        [node("ConvTranspose", "x w", strides=[3, 2], output_shape=[2, 3, 15, 10])],
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


def test_split_counts_results_without_a_name():
    nodes = [helper.make_node("Split", ["x"], ["y", "", ""], axis=3)]
    np.testing.assert_array_equal(run(model(nodes, {}, IMAGE.shape), IMAGE), IMAGE[..., :2])


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

"""Every op, in one table: inferred types and evaluated arrays agree, values are right."""

import math
import re

import numpy as np
import pytest

from lucid.errors import ShapeError, UnknownNameError
from lucid.ir import BATCH, OPS, Dim, Graph, TensorType, f32, op_class
from lucid.ir.ops import (
    Abs,
    Add,
    AvgPool2d,
    BatchNorm,
    Clip,
    Concat,
    Constant,
    Conv2d,
    Div,
    Elementwise,
    Erf,
    Exp,
    Expand,
    Fusion,
    Gelu,
    Hardsigmoid,
    Hardswish,
    Linear,
    MatMul,
    Max,
    Maximum,
    MaxPool2d,
    Mean,
    Minimum,
    Mul,
    Neg,
    Permute,
    RadixCombine,
    RadixMean,
    RadixSoftmax,
    Relu,
    Reshape,
    Rsqrt,
    Sigmoid,
    Silu,
    Slice,
    Softmax,
    SplitAttention,
    Sqrt,
    Sub,
    Sum,
    Tanh,
)

N = BATCH
IMAGE = f32(N, 4, 5, 6)
I64 = TensorType("i64", (2, 3))


def each(function):
    """A formula for one number, over arrays."""
    vectorized = np.vectorize(function, otypes=[np.float64])
    return lambda *arrays: vectorized(*arrays)


def clamp(x):
    return min(max(x, 0), 6)


def fused_body():
    """y -> relu(y * scale + residual)."""
    body = Graph("body")
    y = body.add_input(f32(N, 2, 5, 6), "y")
    scale = body.add_input(f32(2, 1, 1), "scale")
    residual = body.add_input(f32(N, 2, 5, 6), "residual")
    total = body.append(Add(), [body.append(Mul(), [y, scale]).output, residual]).output
    body.set_outputs([body.append(Relu(), [total]).output])
    return body


def pointwise(x, w, b, groups=1):
    """A 1x1 convolution, group by group."""
    inner = w.shape[1]
    outer = len(w) // groups
    parts = [
        np.einsum(
            "ncij,oc->noij",
            x[:, g * inner : (g + 1) * inner],
            w[g * outer : (g + 1) * outer, :, 0, 0],
        )
        for g in range(groups)
    ]
    return np.concatenate(parts, 1) + b[:, None, None]


def split_attention(radix, cardinality, gate=None):
    """The definition, channel by channel: softmax over radix of the logits of one channel."""

    def formula(x, w1, b1, w2, b2):
        n, channels = x.shape[0], x.shape[1] // radix
        inner = channels // cardinality
        splits = [x[:, r * channels : (r + 1) * channels] for r in range(radix)]
        gap = sum(splits).mean((2, 3), keepdims=True)
        hidden = np.maximum(pointwise(gap, w1, b1, cardinality), 0)
        z = pointwise(hidden, w2, b2, cardinality)[:, :, 0, 0]
        y = np.zeros((n, channels, *x.shape[2:]))
        for c in range(channels):
            k, i = divmod(c, inner)
            logits = np.stack([z[:, (k * radix + r) * inner + i] for r in range(radix)])
            weights = gate(logits) if gate else np.exp(logits) / np.exp(logits).sum(0)
            for r in range(radix):
                y[:, c] += splits[r][:, c] * weights[r][:, None, None]
        return y

    return formula


def conv(x, w, b):
    """3x3, stride 2, padding 1: the definition in a loop over outputs."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows, columns = (x.shape[2] + 1) // 2, (x.shape[3] + 1) // 2
    y = np.zeros((len(x), len(w), rows, columns))
    for i in range(rows):
        for j in range(columns):
            window = padded[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            y[:, :, i, j] = np.einsum("ncuv,ocuv->no", window, w) + b
    return y


CASES = [
    (Conv2d((2, 2), (1, 1, 1, 1)), [IMAGE, f32(3, 4, 3, 3), f32(3)], conv),
    (Linear(), [f32(N, 3), f32(2, 3), f32(2)], lambda x, w, b: np.einsum("ni,oi->no", x, w) + b),
    (Linear(), [f32(N, 5, 3), f32(2, 3)], lambda x, w: np.einsum("nti,oi->nto", x, w)),
    (MatMul(), [f32(N, 2, 3, 4), f32(4, 5)], lambda a, b: np.einsum("nbij,jk->nbik", a, b)),
    (MatMul(), [f32(2, 3), f32(3, 2)], lambda a, b: np.einsum("ij,jk->ik", a, b)),
    (
        BatchNorm(eps=0.1),
        [f32(N, 3, 2), f32(3), f32(3), f32(3), f32(3)],
        lambda x, w, b, m, v: ((x.transpose(0, 2, 1) - m) / np.sqrt(v + 0.1) * w + b).transpose(
            0, 2, 1
        ),
    ),
    (
        MaxPool2d((2, 2), (2, 2)),
        [f32(N, 3, 4, 7)],
        lambda x: x[:, :, :, :6].reshape(len(x), 3, 2, 2, 3, 2).max((3, 5)),
    ),
    (
        AvgPool2d((2, 2), (2, 2)),
        [f32(N, 3, 5, 6)],
        lambda x: x[:, :, :4].reshape(len(x), 3, 2, 2, 3, 2).mean((3, 5)),
    ),
    (Add(), [IMAGE, f32(4, 1, 1)], lambda a, b: np.array(a) + b),
    (Add(), [f32(), IMAGE], each(lambda a, b: a + b)),
    (Add(), [I64, I64], lambda a, b: a + b),
    (Sub(), [IMAGE, f32(N, 4, 1, 1)], each(lambda a, b: a - b)),
    (Mul(), [f32(6), f32(N, 1, 1)], each(lambda a, b: a * b)),
    (Mul(), [f32(), f32()], each(lambda a, b: a * b)),
    (Div(), [IMAGE, f32()], each(lambda a, b: a / b)),
    (Maximum(), [IMAGE, IMAGE], each(max)),
    (Minimum(), [IMAGE, f32(1, 6)], each(min)),
    (Neg(), [IMAGE], each(lambda x: -x)),
    (Relu(), [IMAGE], each(lambda x: max(x, 0))),
    (Sigmoid(), [IMAGE], each(lambda x: 1 / (1 + math.exp(-x)))),
    (Silu(), [IMAGE], each(lambda x: x / (1 + math.exp(-x)))),
    (Hardswish(), [IMAGE], each(lambda x: x * clamp(x + 3) / 6)),
    (Hardsigmoid(), [f32()], each(lambda x: clamp(x + 3) / 6)),
    (Gelu(), [IMAGE], each(lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2)),
    (
        Gelu("tanh"),
        [IMAGE],
        each(lambda x: x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2),
    ),
    (Tanh(), [IMAGE], each(math.tanh)),
    (Exp(), [IMAGE], each(math.exp)),
    (Sqrt(), [f32(3)], each(math.sqrt)),
    (Rsqrt(), [f32(3)], each(lambda x: x**-0.5)),
    (Rsqrt(), [f32()], each(lambda x: x**-0.5)),
    (Abs(), [IMAGE], each(abs)),
    (Erf(), [IMAGE], each(math.erf)),
    (Erf(), [f32()], each(math.erf)),
    (Clip(), [IMAGE], lambda x: x),
    (Clip(0.5, 1), [IMAGE], each(lambda x: min(max(x, 0.5), 1))),
    (Clip(low=0.5), [f32()], each(lambda x: max(x, 0.5))),
    (Sum((2, 3)), [IMAGE], lambda x: np.einsum("ncij->nc", x)),
    (Sum((1,), keepdims=True), [IMAGE], lambda x: np.einsum("ncij->nij", x)[:, None]),
    (Mean((3, 2)), [IMAGE], lambda x: np.einsum("ncij->nc", x) / 30),
    (Max((1,)), [IMAGE], lambda x: np.sort(x, axis=1)[:, -1]),
    (Max((2, 3), keepdims=True), [IMAGE], lambda x: x.max(3).max(2)[:, :, None, None]),
    (Softmax(1), [f32(N, 3, 2)], lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True)),
    (Reshape((N, 120)), [IMAGE], lambda x: x.reshape(len(x), 120)),
    (Reshape((-1, 6)), [IMAGE], lambda x: x.reshape(len(x) * 20, 6)),
    (Reshape((N, -1)), [IMAGE], lambda x: x.reshape(len(x), 120)),
    (Reshape((Dim(2), 2, -1)), [IMAGE], lambda x: x.reshape(2 * len(x), 2, 30)),
    (Reshape((3, -1)), [f32(2, 6)], lambda x: x.reshape(3, 4)),
    (Permute((2, 0, 1)), [f32(N, 2, 3)], lambda x: np.einsum("nij->jni", x)),
    (Concat(1), [f32(N, 2, 3), f32(N, 4, 3)], lambda *x: np.concatenate(x, 1)),
    (Concat(0), [f32(N, 2), f32(Dim(2), 2)], lambda *x: np.concatenate(x)),
    (Concat(0), [f32(2)], lambda x: x),
    (Slice(1, 1, 4, 2), [IMAGE], lambda x: x[:, [1, 3]]),
    (Slice(3, 0, 6), [IMAGE], lambda x: x),
    (Expand((-1, 3, 2)), [f32(N, 1, 2)], lambda x: np.concatenate([x] * 3, 1)),
    (Expand((N, 3, 2)), [f32(N, 1, 2)], lambda x: np.concatenate([x] * 3, 1)),
    (Expand((2, 3)), [f32()], lambda x: np.full((2, 3), x)),
    (Constant(((1.5, 2.0),)), [], lambda: np.array([[1.5, 2.0]])),
    (Constant((1, 2), "i64"), [], lambda: np.array([1, 2])),
    (
        Fusion(Conv2d(), fused_body()),
        [IMAGE, f32(2, 4, 1, 1), f32(2), f32(2, 1, 1), f32(N, 2, 5, 6)],
        lambda x, w, b, s, r: np.maximum(pointwise(x, w, b) * s + r, 0),
    ),
    (
        Fusion(Conv2d(), fused_body()),
        [IMAGE, f32(2, 4, 1, 1), f32(2, 1, 1), f32(N, 2, 5, 6)],
        lambda x, w, s, r: np.maximum(pointwise(x, w, np.zeros(2)) * s + r, 0),
    ),
    (
        RadixMean(2),
        [IMAGE],
        lambda x: (x[:, :2].mean((2, 3)) + x[:, 2:].mean((2, 3)))[:, :, None, None],
    ),
    (
        RadixSoftmax(2, 2),
        [f32(N, 4, 1, 1)],  # logits (k0 r0, k0 r1, k1 r0, k1 r1) -> weights (r0: k0 k1, r1: k0 k1)
        lambda z: (
            np.exp(z[:, [0, 2, 1, 3]]) / (np.exp(z[:, [0, 2, 0, 2]]) + np.exp(z[:, [1, 3, 1, 3]]))
        ),
    ),
    (RadixCombine(2), [IMAGE, f32(N, 4, 1, 1)], lambda x, g: (x * g)[:, :2] + (x * g)[:, 2:]),
    (RadixCombine(1), [IMAGE, f32(N, 4, 1, 1)], lambda x, g: x * g),
    (
        RadixCombine(2, folded=True),
        [IMAGE, f32(N, 2, 1, 1)],
        lambda x, g: x[:, :2] * g + x[:, 2:] * (1 - g),
    ),
    (
        SplitAttention(2),
        [IMAGE, f32(3, 2, 1, 1), f32(3), f32(4, 3, 1, 1), f32(4)],
        split_attention(2, 1),
    ),
    (
        SplitAttention(3, cardinality=2),
        [f32(N, 12, 2, 3), f32(6, 2, 1, 1), f32(6), f32(12, 3, 1, 1), f32(12)],
        split_attention(3, 2),
    ),
    (
        SplitAttention(1, gate="sigmoid"),
        [IMAGE, f32(3, 4, 1, 1), f32(3), f32(4, 3, 1, 1), f32(4)],
        split_attention(1, 1, gate=lambda z: 1 / (1 + np.exp(-z))),
    ),
    (
        SplitAttention(1, 2, gate="hardsigmoid"),
        [IMAGE, f32(2, 2, 1, 1), f32(2), f32(4, 1, 1, 1), f32(4)],
        split_attention(1, 2, gate=lambda z: np.clip(z + 3, 0, 6) / 6),
    ),
    (
        SplitAttention(2, folded=True),
        [IMAGE, f32(3, 2, 1, 1), f32(3), f32(2, 3, 1, 1), f32(2)],
        lambda x, w1, b1, w2, b2: split_attention(2, 1)(
            x, w1, b1, np.concatenate([w2, 0 * w2]), np.concatenate([b2, 0 * b2])
        ),
    ),
]

IDS = [f"{op.name}-{i}" for i, (op, *_) in enumerate(CASES)]


def operands(types, batch, dtype):
    rng = np.random.default_rng(7)
    arrays = []
    for kind in types:
        shape = kind.concrete(batch)
        if kind.dtype == "i64":
            arrays.append(rng.integers(-5, 5, shape))
        elif kind.rank < 2:  # variances, divisors, square roots
            arrays.append(rng.uniform(0.5, 1.5, shape).astype(dtype))
        else:
            arrays.append((2 * rng.standard_normal(shape)).astype(dtype))
    return [np.asarray(a) for a in arrays]


def test_the_table_holds_every_op():
    assert {op.name for op, *_ in CASES} == set(OPS)


@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize(("op", "types", "formula"), CASES, ids=IDS)
def test_types_dtypes_and_values(op, types, formula, batch):
    (kind,) = op.result_types(*types)
    arrays = operands(types, batch, np.float64)
    (value,) = op.results(*arrays)
    assert value.shape == kind.concrete(batch)
    np.testing.assert_allclose(
        value, formula(*arrays) if value.size else value, rtol=1e-12, atol=1e-12
    )
    narrow = operands(types, batch, np.float32)
    (single,) = op.results(*narrow)
    assert single.dtype == (np.float32 if kind.dtype == "f32" else np.int64)
    np.testing.assert_allclose(single, value, rtol=1e-4, atol=1e-5)
    for before, after in zip(operands(types, batch, np.float32), narrow, strict=True):
        np.testing.assert_array_equal(before, after)  # operands are left alone


@pytest.mark.parametrize(("op", "types", "formula"), CASES, ids=IDS)
def test_ops_are_values_with_a_docstring(op, types, formula):
    assert op == eval(repr(op)) if not isinstance(op, Fusion) else True
    assert hash(op) == hash(type(op)(**vars(op)))
    assert type(op) is op_class(op.name)
    assert not type(op).__doc__.startswith(type(op).__name__ + "(")  # what dataclass makes up


@pytest.mark.parametrize(
    ("op", "types", "message"),
    [
        (Conv2d(), [IMAGE], "conv2d: takes 2 or 3 operands, got 1"),
        (Relu(), [IMAGE, IMAGE], "relu: takes 1 operands, got 2"),
        (Concat(0), [], "concat: takes at least 1 operands, got 0"),
        (Conv2d(), [f32(N, 3, 5), f32(2, 3, 1, 1)], "x must be (N, C, H, W), got f32[N,3,5]"),
        (Conv2d(), [IMAGE, f32(2, 3, 1, 1)], "x has 4 channels, but the weight takes 3"),
        (Conv2d(groups=2), [IMAGE, f32(3, 2, 1, 1)], "3 output channels cannot be split"),
        (Conv2d(groups=0), [IMAGE, f32(3, 2, 1, 1)], "groups must be positive"),
        (Conv2d(), [IMAGE, f32(2, 4, 1, 1), f32(3)], "bias must be f32[2], got f32[3]"),
        (Conv2d(), [IMAGE, f32(2, 4, 7, 7)], "7x7 window (dilation (1, 1)) is larger than"),
        (Conv2d((0, 1)), [IMAGE, f32(2, 4, 1, 1)], "must be positive"),
        (Conv2d(padding=(0, -1, 0, 0)), [IMAGE, f32(2, 4, 1, 1)], "must not be negative"),
        (Conv2d(padding=(1, 1)), [IMAGE, f32(2, 4, 1, 1)], "(top, left, bottom, right)"),
        (Conv2d(), [f32(2, N, 5, 5), f32(2, 4, 1, 1)], "may depend on the batch"),
        (Conv2d(), [I64, f32(2, 4, 1, 1)], "x must be f32, got i64[2,3]"),
        (Linear(), [f32(N, 3), f32(2, 4)], "x has 3 features, but the weight takes 4"),
        (Linear(), [f32(N, 3), f32(2, 3), f32(3)], "bias must be f32[2]"),
        (MatMul(), [f32(2, 3), f32(2, 3)], "a has 3 columns, b has 2 rows"),
        (MatMul(), [f32(3), f32(3, 2)], "must be matrices"),
        (MatMul(), [f32(2, 3, 3), f32(4, 3, 3)], "matmul: shapes (2) and (4) cannot"),
        (BatchNorm(), [IMAGE, f32(4), f32(3), f32(4), f32(4)], "bias must be f32[4]"),
        (MaxPool2d((6, 2), (1, 1)), [IMAGE], "6x2 window"),
        (AvgPool2d((2, 2), (1, 1), divisor=0), [IMAGE], "divisor must not be 0"),
        (Add(), [IMAGE, f32(3, 1, 1)], "add: shapes (N,4,5,6) and (3,1,1) cannot be broadcast"),
        (Add(), [f32(N), f32(2)], "N and 2 differ"),
        (Add(), [f32(2, 3), I64], "operands must have one dtype"),
        (Div(), [I64, I64], "must be f32"),
        (Gelu("fast"), [IMAGE], "approximate is"),
        (Clip(1, 0), [IMAGE], "low must not exceed high"),
        (Sum((4,)), [IMAGE], "within 0..3, got (4,)"),
        (Mean((-1,)), [IMAGE], "within 0..3, got (-1,)"),
        (Max((1, 1)), [IMAGE], "distinct"),
        (Softmax(4), [IMAGE], "axis must be within 0..3"),
        (Reshape((N, 7)), [IMAGE], "f32[N,4,5,6] cannot be reshaped to Nx7"),
        (Reshape((120,)), [IMAGE], "cannot be reshaped"),
        (Reshape((-1, -1)), [IMAGE], "only one dimension may be -1"),
        (Reshape((N, N, -1)), [IMAGE], "cannot be reshaped"),
        (Reshape((7, -1)), [IMAGE], "cannot be reshaped"),
        (Permute((0, 1)), [IMAGE], "permutation of 0..3"),
        (Concat(1), [IMAGE, f32(N, 4, 5, 7)], "f32[N,4,5,7] does not fit f32[N,4,5,6]"),
        (Concat(1), [f32(2, N), f32(2, 2)], "cannot add dimensions N and 2"),
        (Slice(1, 2, 5), [IMAGE], "2:5:1 is not a range within 0:4"),
        (Slice(0, 0, 1), [IMAGE], "axis 0 of f32[N,4,5,6] depends on the batch"),
        (Expand((3, 3)), [f32(2, 3)], "f32[2,3] cannot be broadcast to 3x3"),
        (Expand((3,)), [f32(2, 3)], "has more axes"),
        (Constant(((1.0,), 2.0)), [], "must form a full array"),
        (Constant(1, "f16"), [], "dtype is one of f32, i64"),
        (RadixMean(3), [IMAGE], "are no multiple of radix 3"),
        (RadixSoftmax(2, 4), [f32(N, 4, 1, 1)], "no multiple of radix 2 times cardinality 4"),
        (RadixSoftmax(2), [IMAGE], "logits must be"),
        (RadixCombine(2), [IMAGE, f32(N, 2, 1, 1)], "gate must be f32[N,4,1,1]"),
        (RadixCombine(1, folded=True), [IMAGE, f32(N, 4, 1, 1)], "only radix 2"),
        (SplitAttention(1), [IMAGE] * 5, "the gate at radix 1 is one of"),
        (SplitAttention(2, gate="sigmoid"), [IMAGE] * 5, "the gate at radix 2 is one of"),
        (SplitAttention(2, activation=Add()), [IMAGE] * 5, "activation must be a unary op"),
        (Fusion(Conv2d(), fused_body()), [IMAGE], "1 operands are too few for conv2d"),
        (Fusion(Relu(), fused_body()), [IMAGE, IMAGE, IMAGE], "the body takes f32[N,2,5,6]"),
    ],
)
def test_what_does_not_fit_is_refused(op, types, message):
    with pytest.raises(ShapeError, match=re.escape(message)) as caught:
        op.result_types(*types)
    assert str(caught.value).startswith((op.name, "conv2d"))


def body_of(op, *types, outputs=1):
    body = Graph("body")
    values = [body.add_input(t) for t in types]
    body.set_outputs([body.append(op, values).output] * outputs)
    return body


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (body_of(Softmax(1), IMAGE), "must be elementwise, but holds ['softmax']"),
        (body_of(Relu(), IMAGE, outputs=2), "must give one f32[N,4,5,6]"),
        (body_of(Add(), IMAGE, f32(N, 4, 5, 6)), "takes f32[N,4,5,6], f32[N,4,5,6], given"),
    ],
)
def test_fusion_bodies_are_elementwise(body, message):
    extras = [f32(4, 1, 1)] * (len(body.inputs) - 1)
    with pytest.raises(ShapeError, match=re.escape(message)):
        Fusion(Relu(), body).result_types(IMAGE, *extras)


def test_fusion_bodies_have_no_parameters():
    body = body_of(Relu(), IMAGE)
    body.add_source("w", f32(1))
    with pytest.raises(ShapeError, match="no parameters"):
        Fusion(Relu(), body).result_types(IMAGE)


ELEMENTWISE = [op for op in OPS.values() if issubclass(op, Elementwise)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("op_type", ELEMENTWISE, ids=lambda c: c.name)
def test_nan_passes_and_extremes_do_not_warn(op_type):
    op = Clip(0, 6) if op_type is Clip else op_type()
    extremes = np.array([np.nan, 300, -300, 0, -0.0, np.inf, -np.inf], np.float32)
    if op.arity() == (2, 2):
        finite = extremes[:5]
        assert np.isnan(op.results(finite, np.ones(5, np.float32))[0][0])
        assert np.isnan(op.results(np.ones(5, np.float32), finite)[0][0])
    else:
        (y,) = op.results(extremes)
        assert y.dtype == np.float32
        assert np.isnan(y[0])


def test_extremes_of_activations():
    x = np.array([-np.inf, -1000.0, 1000.0, np.inf], np.float32)
    assert Sigmoid().evaluate(x).tolist() == [0, 0, 1, 1]
    assert Relu().evaluate(x).tolist() == [0, 0, 1000, np.inf]
    assert Softmax(0).evaluate(x[1:3]).tolist() == [0, 1]


def test_scalars_are_arrays():
    (y,) = Add().results(np.float32(1), np.asarray(np.float32(2)))
    assert isinstance(y, np.ndarray)
    assert y.shape == ()


def test_unknown_ops_are_named():
    with pytest.raises(UnknownNameError, match="no op is named 'conv3d'"):
        op_class("conv3d")


def test_constants_are_exact_in_float64():
    assert Constant(0.1).array(np.dtype(np.float64)) == 0.1
    assert Constant(0.1).evaluate().dtype == np.float32
    assert Constant(2**40, "i64").array(np.dtype(np.float64)) == 2**40

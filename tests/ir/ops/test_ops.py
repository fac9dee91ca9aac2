"""Every op, in one table: inferred types and evaluated arrays agree, values are right."""

import re

import numpy as np
import pytest
from op_cases import CASES, I64, IDS, IMAGE, N, fused_body

from lucid.errors import InputError, ShapeError, UnknownNameError
from lucid.ir import OPS, Dim, Graph, f32, op_class, ops
from lucid.ir.ops import (
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    Add,
    ArgMax,
    AvgPool2d,
    BatchNorm,
    Binary,
    Cast,
    Clip,
    Comparison,
    Concat,
    Constant,
    Conv2d,
    Dequantize,
    Div,
    Equal,
    Expand,
    Fusion,
    Gather,
    Gelu,
    GroupNorm,
    IntegerLinear,
    LayerNorm,
    Linear,
    LocalResponseNorm,
    Lookup,
    MatMul,
    Max,
    MaxPool2d,
    Mean,
    Not,
    Pad,
    Permute,
    Pow,
    Prelu,
    Quantize,
    RadixCombine,
    RadixMean,
    RadixSoftmax,
    Relu,
    Reshape,
    Resize,
    RmsNorm,
    Saturate,
    Sigmoid,
    Slice,
    Softmax,
    SplitAttention,
    Sum,
    Unary,
    Where,
)
from lucid.ir.text import parse_op, print_op
from lucid.ir.types import DTYPES, TensorType


def operands(types, batch, dtype):
    rng = np.random.default_rng(7)
    arrays = []
    for kind in types:
        shape = kind.concrete(batch)
        if kind.dtype == "i64":
            arrays.append(rng.integers(-5, 5, shape))
        elif kind.dtype != "f32":
            bounds = np.iinfo(DTYPES[kind.dtype])
            drawn = rng.integers(max(bounds.min, -256), min(bounds.max, 255), shape, endpoint=True)
            arrays.append(drawn.astype(DTYPES[kind.dtype]))
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
    kinds = op.result_types(*types)
    arrays = operands(types, batch, np.float64)
    values = op.results(*arrays)
    assert [v.shape for v in values] == [kind.concrete(batch) for kind in kinds]
    wanted = formula(*arrays) if values[0].size else values
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    for value, right in zip(values, wanted, strict=True):
        np.testing.assert_allclose(value, right, rtol=1e-12, atol=1e-12)
    narrow = operands(types, batch, np.float32)
    for single, value, kind in zip(op.results(*narrow), values, kinds, strict=True):
        assert single.dtype == (DTYPES[kind.dtype])
        np.testing.assert_allclose(single, value, rtol=1e-4, atol=1e-5)
    for before, after in zip(operands(types, batch, np.float32), narrow, strict=True):
        np.testing.assert_array_equal(before, after)  # operands are left alone


@pytest.mark.parametrize(("op", "types", "formula"), CASES, ids=IDS)
def test_ops_are_values_with_a_docstring(op, types, formula):
    assert isinstance(op, Fusion) or op == eval(repr(op), vars(ops) | {"Dim": Dim})
    assert parse_op(print_op(op)) == op
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
        (ops.Sqrt(), [I64], "x must be f32, got i64[2,3]"),
        (ops.BitwiseAnd(), [IMAGE, IMAGE], "a must be i8 or i16"),
        (Div(), [TensorType.parse("f16[2,3]")] * 2, "a must be f32 or i8"),
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
        (Constant(1, "f8"), [], "dtype is one of f32, i64, u8"),
        (Equal(), [I64, f32(2, 3)], "operands must have one dtype"),
        (Where(), [I64, IMAGE, IMAGE], "cond must be f32"),
        (Where(), [f32(), f32(2, 3), I64], "a and b must have one dtype"),
        (Where(), [f32(4), f32(2, 3), f32(2, 3)], "where: shapes (4) and (2,3) cannot"),
        (Cast("f8"), [IMAGE], ", got 'f8'"),
        (ArgMax(4), [IMAGE], "axis must be within 0..3, got 4"),
        (ArgMax(0), [f32(0, 2)], "there is no maximum along axis 0 of f32[0,2]"),
        (LayerNorm(()), [IMAGE], "distinct and within 0..3"),
        (LayerNorm((0,)), [IMAGE], "may depend on the batch"),
        (LayerNorm((3, 1)), [IMAGE, f32(4, 6)], "weight must be f32[6,4] for the axes (3, 1)"),
        (RmsNorm((4,)), [IMAGE], "within 0..3, got (4,)"),
        (GroupNorm(3), [IMAGE, f32(4), f32(4)], "4 channels cannot be split into 3 groups"),
        (GroupNorm(2), [IMAGE, f32(2), f32(4)], "weight must be f32[4] for x"),
        (LocalResponseNorm(0), [IMAGE], "size must be positive"),
        (LocalResponseNorm(1), [f32(4)], "x must be (N, C, ...)"),
        (Pad((0, 1), (0, 1)), [IMAGE], "one number for each axis of f32[N,4,5,6]"),
        (Pad((0, -1), (0, 1)), [f32(N, 2)], "must not be negative, got (-1, 1) on axis 1"),
        (Pad((1, 0), (0, 0)), [f32(N, 2)], "axis 0 of f32[N,2] depends on the batch"),
        (
            Pad((0, 2), (0, 0), mode="reflect"),
            [f32(N, 2)],
            "too short for reflect padding of (2, 0)",
        ),
        (Pad((0, 2), (0, 0), mode="edge"), [f32(N, 0)], "too short for edge padding"),
        (
            Pad((0, 0), (0, 0), mode="round"),
            [f32(N, 2)],
            "mode is one of constant, reflect, edge, wrap",
        ),
        (Gather(4), [IMAGE, I64], "axis must be within 0..3"),
        (Gather(1), [IMAGE, f32(2)], "indices must be i64, got f32[2]"),
        (AdaptiveAvgPool2d((0, 1)), [IMAGE], "two positive numbers, got (0, 1)"),
        (AdaptiveMaxPool2d((1, 1)), [f32(N, 2, 0, 3)], "nothing to pool in f32[N,2,0,3]"),
        (AdaptiveAvgPool2d((1, 1)), [f32(N, 3)], "x must be (N, C, H, W)"),
        (
            Resize((2, 2), "cubic"),
            [IMAGE],
            "mode is one of nearest, bilinear, bicubic, got 'cubic'",
        ),
        (Resize((2, 2), coordinates="corner"), [IMAGE], "coordinates is one of half_pixel"),
        (Resize((2, 2), rounding="even"), [IMAGE], "rounding is one of floor"),
        (Resize((2, 0)), [IMAGE], "two positive numbers, got (2, 0)"),
        (Resize((2, 2), scale=(1.0, 0.0)), [IMAGE], "scale must be two positive numbers"),
        (Resize((2, 2)), [f32(N, 2, 0, 3)], "nothing to resize"),
        (RadixMean(3), [IMAGE], "are no multiple of radix 3"),
        (RadixSoftmax(2, 4), [f32(N, 4, 1, 1)], "no multiple of radix 2 times cardinality 4"),
        (RadixSoftmax(2), [IMAGE], "logits must be"),
        (RadixCombine(2), [IMAGE, f32(N, 2, 1, 1)], "gate must be f32[N,4,1,1]"),
        (RadixCombine(1, folded=True), [IMAGE, f32(N, 4, 1, 1)], "only radix 2"),
        (SplitAttention(1), [IMAGE] * 5, "the gate at radix 1 is one of"),
        (SplitAttention(2, gate="sigmoid"), [IMAGE] * 5, "the gate at radix 2 is one of"),
        (SplitAttention(2, activation=Add()), [IMAGE] * 5, "activation must be a unary op"),
        (Quantize("f16"), [IMAGE, f32()], "dtype is one of u8, i8, u16, i16, i32, got 'f16'"),
        (
            Quantize("i8"),
            [IMAGE, f32(), TensorType("u8", ())],
            "the zero point must be i8[], got u8[]",
        ),
        (Quantize(axis=1), [IMAGE, f32(5)], "scale must have shape (4,), got f32[5]"),
        (Quantize(axis=4), [IMAGE, f32(4)], "axis 4 is none of f32[N,4,5,6]"),
        (Dequantize(), [IMAGE, f32()], "dtype is one of u8, i8, u16, i16, i32, got 'f32'"),
        (
            Dequantize(axis=1, block=3),
            [TensorType("i8", (N, 4)), f32(N, 3)],
            "3 numbers share a scale: it must be f32[N,2], got f32[N,3]",
        ),
        (Saturate("u8", 256), [IMAGE], "the zero point 256 is no u8"),
        (Saturate("f32"), [IMAGE], "dtype is one of u8"),
        (Lookup(), [I64, f32(256)], "x must be u8 or i8"),
        (Lookup(), [TensorType("u8", (N,)), f32(255)], "the table must have 256 numbers"),
        (IntegerLinear(), [f32(N, 3), TensorType("i8", (2, 3))], "x must be u8 or i8, got f32"),
        (IntegerLinear(), [TensorType("u8", (N, 3)), f32(2, 3)], "weight must be i8 or i16"),
        (
            IntegerLinear(),
            [TensorType("u8", (N, 3)), TensorType("i8", (2, 3)), f32(2)],
            "bias must be i32, got f32[2]",
        ),
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
        (body_of(Relu(), IMAGE, outputs=2), "must give one result of the shape of f32[N,4,5,6]"),
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


FLOATING = [op for op in ops.declared(ops.Elementwise) if "f32" in op.takes]
ELEMENTWISE = [op for op in FLOATING if issubclass(op, Unary | Binary) and op is not Not]
CHOOSING = (Comparison, Pow, Prelu)  # what may leave an operand's NaN behind


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("op_type", ELEMENTWISE, ids=lambda c: c.name)
def test_nan_passes_and_extremes_do_not_warn(op_type):
    op = Clip(0, 6) if op_type is Clip else op_type()
    extremes = np.array([np.nan, 300, -300, 0, -0.0, np.inf, -np.inf], np.float32)
    if op.arity() == (2, 2):
        finite, ones = extremes[:5], np.ones(5, np.float32)
        left, right = (op.results(*p)[0] for p in ((finite, ones), (ones, finite)))
        assert issubclass(op_type, CHOOSING) or (np.isnan(left[0]) and np.isnan(right[0]))
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


def test_casts_to_integers_stay_in_range():
    x = np.array([np.nan, np.inf, -np.inf, -0.9, 255.9, 256, 3e38], np.float32)
    assert Cast("u8").evaluate(x).tolist() == [0, 255, 0, 0, 255, 255, 255]
    most, least = 2**63 - 1, -(2**63)
    assert Cast("i64").evaluate(x).tolist() == [0, most, least, 0, 255, 256, most]
    assert Cast("i8").evaluate(x).tolist() == [0, 127, -128, 0, 127, 127, 127]
    assert Cast("bool").evaluate(x).tolist() == [True] * 7


def test_casts_between_integers_wrap_around():
    assert Cast("u8").evaluate(np.array([-1, 256, 7])).tolist() == [255, 0, 7]
    assert Cast("i8").evaluate(np.array([200, 7], np.uint8)).tolist() == [-56, 7]
    assert Cast("i64").evaluate(np.array([-5], np.int16)).tolist() == [-5]
    assert Cast("bool").evaluate(np.array([256, 0])).tolist() == [True, False]


def test_casts_round_to_floats_of_fewer_bits():
    x = np.array([1 + 2**-11, 1 + 3 * 2**-11, 2**-25, 65520, np.inf, np.nan], np.float32)
    half = Cast("f16").evaluate(x)
    np.testing.assert_array_equal(half, [1, 1 + 2**-9, 0, np.inf, np.inf, np.nan])
    brain = Cast("bf16").evaluate(x)
    np.testing.assert_array_equal(brain, [1, 1, 2**-25, 65536, np.inf, np.nan])


def test_equal_pads_are_equal_bit_by_bit():
    assert Pad((), (), float("nan")) == Pad((), (), float("nan"))
    assert Pad((), (), 0.0) != Pad((), (), -0.0)


def test_indices_out_of_range_are_refused():
    x = np.arange(6.0).reshape(2, 3)
    assert Gather(1).evaluate(x, np.array([-3, 2])).tolist() == [[0, 2], [3, 5]]
    with pytest.raises(InputError, match=r"index 3 is outside -3..2 \(axis 1 of"):
        Gather(1).evaluate(x, np.array([[0], [3]]))


def test_unknown_ops_are_named():
    with pytest.raises(UnknownNameError, match="no op is named 'conv4d'"):
        op_class("conv4d")


def test_constants_are_exact_in_float64():
    assert Constant(0.1).array(np.dtype(np.float64)) == 0.1
    assert Constant(0.1).evaluate().dtype == np.float32
    assert Constant(2**40, "i64").array(np.dtype(np.float64)) == 2**40


SAMPLES = np.array(
    [-1e30, -30.0, -3.5, -2.0, -1.0, -1e-3, -0.0, 0.0, 1e-3, 1.0, 2.5, 3.0, 50.0, 1e30]
)


@pytest.mark.parametrize("op_type", FLOATING, ids=lambda c: c.name)
def test_elementwise_ops_are_never_negative_where_they_say_so(op_type):
    """Of all signs of their operands, NaN aside, and only those that say so."""
    operands = np.meshgrid(*[SAMPLES] * op_type.arity()[0])
    with np.errstate(all="ignore"):
        results = [op.results(*operands)[0] for op in op_type.examples()]
    assert op_type.never_negative == all((r[~np.isnan(r)] >= 0).all() for r in results)


@pytest.mark.parametrize(("op", "types", "formula"), CASES, ids=IDS)
def test_ops_are_never_negative_where_they_say_so(op, types, formula):
    arrays = operands(types, 3, np.float64)
    if op.never_negative:
        assert not (op.results(*arrays)[0] < 0).any()

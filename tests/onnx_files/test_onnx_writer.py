"""ONNX models say what the graphs they come from say: ONNX Runtime against the interpreter."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_cases import CASES, IDS
from strategies import Builder, graphs, random_inputs

from lucid import models
from lucid.errors import MissingPackageError, UnsupportedError, WeightsError
from lucid.frontend.trace import trace
from lucid.ir import BATCH, OPS, Dim, Graph, f32, interpret
from lucid.ir.ops import (
    Add,
    AvgPool2d,
    Clip,
    Concat,
    Constant,
    Div,
    Exp,
    Expand,
    Linear,
    MatMul,
    Max,
    MaxPool2d,
    Mean,
    Minimum,
    Permute,
    RadixCombine,
    Relu,
    Reshape,
    Rsqrt,
    Sqrt,
    Sum,
)
from lucid.ir.passes import run_passes
from lucid.ir.types import DTYPES
from lucid.onnx import writer as export
from lucid.onnx import writer_of


@pytest.fixture(scope="module")
def onnx():
    return pytest.importorskip("onnx", reason="the package onnx is not installed")


@pytest.fixture(scope="module")
def ort(onnx):
    return pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")


def assert_exported(onnx, ort, graph, batch=2):
    """ONNX Runtime finds in the model what the interpreter finds in the graph."""
    model = export.to_onnx(graph)
    onnx.checker.check_model(model, full_check=True)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == [v.name for v in graph.inputs]
    rng = np.random.default_rng(0)
    inputs = [
        rng.uniform(0.2, 1.8, v.type.concrete(batch)).astype(DTYPES[v.type.dtype])
        if v.type.rank < 2 or v.type.dtype != "f32"  # divisors, variances, indices
        else x
        for v, x in zip(graph.inputs, random_inputs(graph, batch), strict=True)
    ]
    feeds = {v.name: x for v, x in zip(graph.inputs, inputs, strict=True)}
    given = session.run(None, feeds)
    wanted = interpret(graph, inputs, dtype=np.float64)
    assert len(given) == len(wanted)
    for a, b in zip(wanted, given, strict=True):
        assert a.shape == b.shape
        assert b.dtype == (np.float32 if a.dtype.kind == "f" else a.dtype)
        finite = np.abs(a[np.isfinite(a)])  # a pool's window may lie in the padding: -inf
        scale = max(1.0, float(finite.max(initial=0)))
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5 * scale)
    return model


def test_every_op_has_a_way_to_be_written():
    assert [name for name, cls in OPS.items() if writer_of(cls) is None] == []


@pytest.mark.parametrize(("op", "types", "formula"), CASES, ids=IDS)
def test_every_op(onnx, ort, op, types, formula):
    if not types:
        pytest.skip("an ONNX model without inputs computes nothing")
    graph = Graph("one_op")
    values = [graph.add_input(kind, f"x{i}") for i, kind in enumerate(types)]
    graph.set_outputs(graph.append(op, values).outputs)
    batched = any(isinstance(d, Dim) for kind in types for d in kind.shape)
    assert_exported(onnx, ort, graph, 2 if batched else 1)


@given(graph=graphs(), batch=st.integers(1, 3))
def test_captured_graphs(onnx, ort, graph, batch):
    assert_exported(onnx, ort, graph, batch)


@given(graph=graphs(), batch=st.integers(1, 3))
def test_fused_graphs(onnx, ort, graph, batch):
    assert_exported(onnx, ort, run_passes(graph), batch)


@pytest.mark.parametrize("name", ["resnest_14", "resnet_18"])
@pytest.mark.parametrize("passes", [[], ["canonicalise", "fold-batch-norm"], None])
def test_models(onnx, ort, name, passes):
    graph = trace(getattr(models, name)(), (1, 3, 64, 64))
    graph = run_passes(graph, passes)
    model = assert_exported(onnx, ort, graph)
    (images,) = model.graph.input
    assert images.type.tensor_type.shape.dim[0].dim_param == "N"
    if not passes and passes is not None:
        assert "layer1.0.conv1.weight" in {i.name for i in model.graph.initializer}


@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (1, 0, 1, 1), (0, 1, 2, 0), (2, 2, 3, 2)])
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"dilation": (2, 1)},
        {"count_include_pad": False},
        {"count_include_pad": True},
        {"count_include_pad": False, "divisor": 7},
    ],
)
def test_pools(onnx, ort, padding, ceil_mode, fields):
    build = Builder()
    x = build.input(2, 6, 7)
    pool = AvgPool2d if "count_include_pad" in fields else MaxPool2d
    op = pool((2, 2), (3, 2), padding, ceil_mode=ceil_mode, **fields)
    build.graph.set_outputs([build.apply(op, x)])
    assert_exported(onnx, ort, build.graph)


def test_ops_that_models_seldom_use(onnx, ort):
    build = Builder()
    x = build.input(4, 3, 5)
    positive = build.apply(Exp(), x)
    values = [
        build.apply(Div(), x, positive),
        build.apply(Sqrt(), positive),
        build.apply(Rsqrt(), positive),
        build.apply(Clip(), x),
        build.apply(Minimum(), x, build.apply(Constant(((0.1, 0.2, -0.3, 0.4, 0.0),)))),
        build.apply(Max((1, 3)), x),
        build.apply(Max((2,), keepdims=True), x),
        build.apply(Sum((0, 2)), x),
        build.apply(Sum(()), x),
        build.apply(Mean((1,)), x),
        build.apply(Mean((3, 2)), x),
        build.apply(Mean(()), x),
        build.apply(Linear(), x, build.weight("w", 6, 5), build.weight("b", 6)),
        build.apply(Linear(), x, build.weight("w2", 6, 5)),
        build.apply(MatMul(), x, build.apply(Permute((0, 1, 3, 2)), x)),
        build.apply(Add(), build.apply(Constant(2, "i64")), build.apply(Constant((1, 3), "i64"))),
    ]
    build.graph.set_outputs(values)
    assert_exported(onnx, ort, build.graph)


def test_shapes_that_depend_on_the_batch(onnx, ort):
    build = Builder()
    x = build.input(4, 1, 3)
    merged = build.apply(Reshape((Dim(4), 3)), x)
    values = [
        merged,
        build.apply(Reshape((BATCH, 12)), merged),
        build.apply(Reshape((2, -1)), merged),
        build.apply(Expand((BATCH, 4, 2, 3)), x),
        build.apply(Expand((BATCH, 3)), build.apply(Constant(0.5))),
        build.apply(Expand((Dim(2), 4, 5, 3)), build.weight("w", 1, 3)),
        build.apply(Concat(0), merged, build.apply(Relu(), merged)),
    ]
    pairs = build.apply(MatMul(), merged, build.apply(Permute((1, 0)), merged))
    values += [pairs, build.apply(Reshape((2, Dim(2), Dim(4))), pairs)]
    build.graph.set_outputs(values)
    for batch in (1, 3):
        assert_exported(onnx, ort, build.graph, batch)


def test_the_batch_of_an_input_that_holds_a_multiple(onnx, ort):
    build = Builder()
    x = build.graph.add_input(f32(Dim(2), 3))
    y = build.apply(Expand((BATCH, 4)), build.weight("w", 1, 4))
    build.graph.set_outputs([build.apply(Relu(), x), y])
    assert_exported(onnx, ort, build.graph, 3)


@pytest.mark.parametrize(("radix", "folded"), [(2, False), (2, True), (3, False)])
def test_radix_combine_alone(onnx, ort, radix, folded):
    build = Builder()
    x = build.input(6, 2, 2)
    gate = build.apply(Mean((2, 3), keepdims=True), x)
    if folded:
        gate = build.conv(gate, 3)
    build.graph.set_outputs([build.apply(RadixCombine(radix, folded), x, gate)])
    assert_exported(onnx, ort, build.graph)


def test_outputs_are_each_their_own(onnx, ort):
    """An input, a parameter, a constant and a value returned twice."""
    build = Builder()
    x = build.input(2, 2, 2)
    y = build.apply(Relu(), x)
    values = [y, x, y, build.weight("w", 3), build.apply(Constant(1.5)), x]
    build.graph.set_outputs(values)
    model = assert_exported(onnx, ort, build.graph)
    names = [o.name for o in model.graph.output]
    assert names[0] == y.name
    assert len(set(names)) == len(names)


def test_names_of_weights_and_values_may_collide(onnx, ort):
    build = Builder()
    x = build.input(2, 2, 2)
    y = build.apply(Add(), x, build.weight(x.name, 2, 2))
    build.graph.set_outputs([build.apply(Add(), y, build.weight(y.name, 2, 2))])
    assert_exported(onnx, ort, build.graph)


def test_what_nobody_needs_is_left_out(onnx):
    build = Builder()
    x = build.input(2, 2, 2)
    build.conv(x, 3)
    build.graph.set_outputs([build.apply(Relu(), x)])
    model = export.to_onnx(build.graph)
    assert [n.op_type for n in model.graph.node] == ["Relu"]
    assert not model.graph.initializer


def test_another_payload(onnx):
    build = Builder()
    x = build.input(2, 2, 2)
    build.graph.set_outputs([build.apply(Add(), x, build.weight("w", 2, 2))])
    model = export.to_onnx(build.graph, {"w": np.full((2, 2), 3.0)})
    (weight,) = model.graph.initializer
    assert (onnx.numpy_helper.to_array(weight) == 3).all()
    with pytest.raises(WeightsError, match="'w'"):
        export.to_onnx(build.graph, {})


def test_too_large_a_model(onnx, monkeypatch):
    monkeypatch.setattr(export, "LARGEST", 40)
    build = Builder()
    x = build.input(2, 2, 2)
    build.graph.set_outputs([build.conv(x, 6)])
    with pytest.raises(UnsupportedError, match="2 GB"):
        export.to_onnx(build.graph)


def test_an_op_without_a_counterpart(onnx, monkeypatch):
    monkeypatch.setattr(Relu, "onnx", "")
    build = Builder()
    build.graph.set_outputs([build.apply(Relu(), build.input(2, 2, 2), origin="layer1.act")])
    with pytest.raises(UnsupportedError, match=r"relu in layer1\.act"):
        export.to_onnx(build.graph)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    build = Builder()
    build.graph.set_outputs([build.apply(Relu(), build.input(2, 2, 2))])
    with pytest.raises(MissingPackageError, match="pip install onnx"):
        export.to_onnx(build.graph)

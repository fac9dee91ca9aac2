"""What Lucid writes it reads, and the graph computes the same in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from op_cases import CASES, IDS
from strategies import Builder, assert_equivalent, graphs

from lucid import models
from lucid.frontend.onnx import import_onnx
from lucid.frontend.trace import trace
from lucid.ir import Graph, interpret, verify
from lucid.ir.ops import Fusion, IntegerConv2d, NonMaxSuppression
from lucid.ir.passes import run_passes
from lucid.ir.types import DTYPES, Dim
from lucid.onnx.writer import to_onnx

pytest.importorskip("onnx", reason="the package onnx is not installed")


def round_trip(graph):
    """The graph as it is read again, from bytes."""
    again = import_onnx(to_onnx(graph).SerializeToString())
    verify(again)
    assert [v.name for v in again.inputs] == [v.name for v in graph.inputs]
    assert [v.type for v in again.inputs] == [v.type for v in graph.inputs]
    assert [v.type for v in again.outputs] == [v.type for v in graph.outputs]
    return again


def graph_of(op, types):
    """A graph that applies one op to its inputs."""
    graph = Graph("one_op")
    values = [graph.add_input(kind, f"x{i}") for i, kind in enumerate(types)]
    graph.set_outputs(graph.append(op, values).outputs)
    return graph


def positive(rng, shape, dtype):
    """Numbers that are variances, bases of powers and indices alike."""
    return rng.uniform(0.2, 1.8, shape).astype(dtype)


@pytest.mark.parametrize(("op", "types", "formula"), CASES, ids=IDS)
def test_every_op(op, types, formula):
    """Tables of 64-bit numbers are written as float32, hence the tolerance."""
    if not types:
        pytest.skip("an ONNX model without inputs computes nothing")
    if isinstance(op, NonMaxSuppression):
        pytest.skip("how many boxes are kept is known only when the model runs")
    if isinstance(op.anchor if isinstance(op, Fusion) else op, IntegerConv2d):
        pytest.skip("integer convolutions have known weights; tests of quantised files read them")
    graph = graph_of(op, types)
    again = round_trip(graph)
    batch = 2 if any(isinstance(d, Dim) for kind in types for d in kind.shape) else 1
    rng = np.random.default_rng(7)
    inputs = [positive(rng, kind.concrete(batch), DTYPES[kind.dtype]) for kind in types]
    results = (interpret(g, inputs, dtype=np.float64) for g in (graph, again))
    for wanted, found in zip(*results, strict=True):
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


@given(graph=graphs(), batch=st.integers(1, 3))
def test_captured_graphs(graph, batch):
    assert_equivalent_read(graph, graph, batch)


@given(graph=graphs(), batch=st.integers(1, 3))
def test_fused_graphs(graph, batch):
    assert_equivalent_read(graph, run_passes(graph), batch)


@pytest.mark.parametrize("name", ["resnest_14", "resnet_18", "resnest_50"])
def test_models(name):
    """As captured, and with all passes' fusions written as their parts."""
    graph = trace(getattr(models, name)(), (1, 3, 32, 32))
    assert_equivalent_read(graph, graph)
    if name != "resnest_50":
        assert_equivalent_read(graph, run_passes(graph))


def assert_equivalent_read(graph, written, batch=2):
    """`written`, read again, computes what `graph` does, but for weights rounded to float32."""
    inputs = [
        np.random.default_rng(0).standard_normal(v.type.concrete(batch)).astype(np.float32)
        for v in graph.inputs
    ]
    wanted = interpret(graph, inputs, dtype=np.float64)
    found = interpret(round_trip(written), inputs, dtype=np.float64)
    for a, b in zip(wanted, found, strict=True):
        assert a.shape == b.shape
        scale = max(1.0, float(np.abs(a[np.isfinite(a)]).max(initial=0)))
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5 * scale)


def test_weights_keep_their_names_and_values():
    build = Builder()
    x = build.input(3, 5, 5)
    build.graph.set_outputs([build.conv(x, 4, bias=True, origin="layer1.conv")])
    again = round_trip(build.graph)
    assert list(again.parameters) == ["layer1.conv.weight", "layer1.conv.bias"]
    assert [node.origin for node in again.nodes] == ["layer1.conv"]
    for name, array in build.graph.payload.items():
        np.testing.assert_array_equal(np.asarray(again.payload[name]), np.asarray(array))
    assert_equivalent(build.graph, again)

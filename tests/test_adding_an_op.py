"""CONTRIBUTING's "Add an op", followed for an op that lives in this file alone.

A declaration and a function for its arithmetic are all there is, and everything takes it: text,
verifier, passes, kernels, fuzzer, importers, exporter, pictures and the command line.
"""

import json
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from fuzz import errors
from fuzz.op_cases import op_case
from fuzz.oracles import Tally, check_op
from graph_builder import Builder
from typer.testing import CliRunner

import lucid
from lucid.cli import command_line
from lucid.codegen.language import transcendentals as t
from lucid.codegen.language import vector_math
from lucid.frontend.tensor import Tensor, apply
from lucid.ir import OPS, Graph, interpret, verify
from lucid.ir.batch import mixing_node
from lucid.ir.ops import Array, Conv2d, Fusion, op
from lucid.ir.ops.activations import Activation
from lucid.ir.passes import run_passes
from lucid.ir.text import parse_graph, parse_op, print_op
from lucid.view import picture, to_svg

TEXT = """
graph net(%x: f32[N,4,6,7]) -> f32[N,8,6,7] {
  param @w: f32[8,4,3,3]
  %c = conv2d(%x, @w) {padding=(1,1,1,1)} : f32[N,8,6,7] at "conv"
  %y = cosh(%c) : f32[N,8,6,7] at "act"
  return %y
}
"""


@pytest.fixture(autouse=True)
def cosh(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Activation]]:
    """The op, registered for one test. Its kernels go to a cache of its own."""
    monkeypatch.setenv("LUCID_CACHE_DIR", str(tmp_path))
    known, arithmetic = dict(OPS), dict(vector_math.LOWERINGS)
    del vector_math.LOWERINGS[OPS.pop("cosh")]  # there is such an op: as if there were none

    @op("cosh")
    class Cosh(Activation):
        """y = (exp(x) + exp(-x)) / 2."""

        onnx, torch = "Cosh", "cosh"
        never_negative = True
        ulps, domain = 4, (-80, 80)

        def evaluate(self, x: Array) -> Array:
            with np.errstate(over="ignore"):
                y: Array = np.cosh(x)
            return y

    @vector_math.lowers(Cosh)
    def _cosh(k, op: Cosh, x: Sequence[vector_math.Vector]) -> vector_math.Vector:
        return (t.exp(k, x[0]) + t.exp(k, -x[0])) * 0.5

    yield Cosh
    for registry, before in ((OPS, known), (vector_math.LOWERINGS, arithmetic)):
        registry.clear()
        registry.update(before)


def network() -> Graph:
    """A convolution and the op, with weights."""
    graph = parse_graph(TEXT)
    rng = np.random.default_rng(0)
    graph.payload = {"w": (rng.standard_normal((8, 4, 3, 3)) / 6).astype(np.float32)}
    return graph


def test_it_is_printed_parsed_and_verified(cosh):
    graph = parse_graph(TEXT)
    verify(graph)
    assert str(graph) == TEXT.lstrip()
    assert parse_op(print_op(cosh())) == cosh()
    assert mixing_node(graph) is None


def test_it_computes_eagerly_and_compiled(cosh):
    x = np.random.default_rng(1).standard_normal((3, 4, 6, 7)).astype(np.float32)
    np.testing.assert_allclose(apply(cosh(), Tensor(x)).numpy(), np.cosh(x), rtol=1e-6)
    graph = network()
    (node,) = run_passes(graph).nodes
    assert isinstance(node.op, Fusion)
    assert isinstance(node.op.anchor, Conv2d)
    (wanted,) = interpret(graph, [x], dtype=np.float64)
    np.testing.assert_allclose(lucid.compile(graph, (1, 4, 6, 7))(x), wanted, rtol=2e-6)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_fuzzed(seed):
    """Behind and before other ops, on every target, to the units in the last place declared."""
    tally = Tally()
    case = op_case(seed, "cosh")
    assert any(n.op.name == "cosh" for n in case.graph.nodes)
    assert errors.analyse(case.graph, case.inputs)
    assert check_op(case, tally) is None
    assert tally.refused == 0


def test_it_is_found_in_arithmetic():
    graph = parse_graph("""
        graph g(%x: f32[N,3]) -> f32[N,3] {
          %e = exp(%x) : f32[N,3]
          %n = neg(%x) : f32[N,3]
          %i = exp(%n) : f32[N,3]
          %s = add(%e, %i) : f32[N,3]
          %two = constant() {value=2.0} : f32[]
          %y = div(%s, %two) : f32[N,3]
          return %y
        }
    """)
    assert [n.op.name for n in run_passes(graph).nodes] == ["cosh"]


def test_it_is_drawn_and_listed(capsys):
    assert [b.kind for b in picture(network()).boxes if b.title == "cosh"] == ["elementwise"]
    assert "cosh" in to_svg(network())
    listed = json.loads(CliRunner().invoke(command_line(), ["ops", "--json"]).stdout)
    (row,) = [o for o in listed if o["name"] == "cosh"]
    assert row["kernel"]
    assert row["description"] == "y = (exp(x) + exp(-x)) / 2."


def test_it_is_written_to_onnx_and_read():
    pytest.importorskip("onnx", reason="the package onnx is not installed")
    from lucid.frontend.onnx import import_onnx
    from lucid.onnx.writer import to_onnx

    model = to_onnx(network())
    assert "Cosh" in [n.op_type for n in model.graph.node]
    again = import_onnx(model.SerializeToString())
    assert [n.op.name for n in again.nodes] == ["conv2d", "cosh"]


def test_it_is_read_from_torch(cosh):
    torch = pytest.importorskip("torch", reason="torch is not installed")

    class Net(torch.nn.Module):
        def forward(self, x):
            return torch.cosh(x)

    graph = lucid.compile(Net(), (1, 3, 4, 5)).ir("captured")
    assert "cosh" in str(graph)


def test_an_op_without_arithmetic_is_refused_by_name(cosh, monkeypatch):
    monkeypatch.delitem(vector_math.LOWERINGS, cosh)
    build = Builder()
    build.graph.set_outputs([build.apply(cosh(), build.input(2, 2, 2), origin="layer1.act")])
    options = lucid.CompileOptions(host_ops="refuse")
    with pytest.raises(lucid.errors.UnsupportedError, match=r"cosh in layer1\.act"):
        lucid.compile(build.graph, (1, 2, 2, 2), options=options)

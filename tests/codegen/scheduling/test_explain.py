"""Explanations: what was fused, what was not, which kernel, why, and how its work is cut."""

import json

import pytest

import lucid
from lucid import models
from lucid.codegen.lowering import lower
from lucid.codegen.program.program import Program
from lucid.codegen.scheduling.basis import Basis
from lucid.codegen.scheduling.conv_shape import convolutions
from lucid.codegen.scheduling.explain import choose, explain
from lucid.codegen.scheduling.schedule import Choice, Schedule, schedule
from lucid.codegen.target import Target
from lucid.errors import InputError
from lucid.frontend.trace import trace
from lucid.ir.passes import run_passes
from lucid.ir.text import parse_graph

TARGET = Target.named("x86-64-v4")
TEXT = """graph small(%x: f32[N,64,16,16]) -> f32[N,64,16,16], f32[N,64,8,8] {
  param @w: f32[64,64,3,3]
  param @v: f32[64,64,1,1]
  %c = conv2d(%x, @w) {padding=(1,1,1,1)} : f32[N,64,16,16] at "first"
  %r = relu(%c) : f32[N,64,16,16] at "act"
  %d = conv2d(%r, @v) : f32[N,64,16,16] at "second"
  %e = softmax(%d) {axis=1} : f32[N,64,16,16] at "half"
  %s = add(%d, %e) : f32[N,64,16,16] at "sum"
  %f = conv2d(%r, @w) {stride=(2,2), padding=(1,1,1,1)} : f32[N,64,8,8] at "third"
  return %s, %f
}
"""


def shapes_of(program: Program) -> dict[str, tuple[int, ...]]:
    return {name: view.shape for name, view in program.inputs.items()}


def explanation(text: str, threads: int = 1, precision: str = "fast", **forced: str):
    misses = []
    graph = run_passes(parse_graph(text), misses=misses)
    choices = schedule(graph, TARGET, 1, precision, forced)
    program = lower(graph, choices, TARGET, 1, threads)
    basis = Basis(precision, forced)
    return explain(
        graph, misses, choices, [(program, graph)], (), shapes_of(program), TARGET, threads, basis
    )


def by_origin(found):
    return {n.node.origin: n for n in found.nodes}


def test_what_was_fused_and_what_was_not():
    nodes = by_origin(explanation(TEXT))
    assert nodes["first"].fused == ("relu act",)
    assert nodes["first"].body == ("relu",)
    assert nodes["first"].near_misses == ()
    reasons = {m.value: m.reason for m in nodes["second"].near_misses}
    assert reasons == {"s": "%d is read elsewhere too"}
    assert [m.value for m in nodes["sum"].near_misses] == ["s"]


def test_why_it_is_this_kernel():
    nodes = by_origin(explanation(TEXT))
    first = nodes["first"].choosing
    assert first.choice.kernel == next(iter(first.modelled)) != "direct"
    assert first.reason == "the fastest by the cost model"
    third = nodes["third"].choosing
    assert (third.choice.kernel, third.reason) == ("direct", "no other can")
    assert list(third.cannot) == ["winograd"]
    assert nodes["half"].choosing is None

    strict = by_origin(explanation(TEXT, precision="strict"))["first"].choosing
    assert strict.left_out == ("winograd4x4",)
    assert strict.choice.kernel == "winograd2x2"
    forced = by_origin(explanation(TEXT, first="direct"))["first"].choosing
    assert forced.reason == "forced by the pattern 'first'"


def test_tuned_and_given_schedules():
    graph = run_passes(parse_graph(TEXT))
    node = convolutions(graph)[0]
    model = schedule(graph, TARGET, 1).choices[node.output.name]
    same = choose(node, model, 1, TARGET, Basis(source="tuned"))
    assert "tuning found none that is faster" in same.reason
    other = choose(node, Choice("direct"), 1, TARGET, Basis(source="tuned"))
    assert other.reason.startswith(f"measured faster than the cost model's choice ({model.kernel}")
    assert choose(node, model, 1, TARGET, Basis(source="given")).reason.startswith("the given")


def test_how_the_work_is_cut():
    nodes = by_origin(explanation(TEXT, threads=2))
    (call,) = nodes["second"].calls
    assert call.split == "8 tasks: 8 blocks of 32 rows"
    assert call.tasks == 8
    copy, call = nodes["first"].calls  # the image is copied to channels last for it
    assert copy.origin == ""
    assert "tiles" in call.split
    assert call.work == 2 * 16 * 16 * 64 * 64 * 9


def test_a_pool_in_chunks_of_channels():
    text = """graph pooled(%x: f32[N,512,2,2]) -> f32[N,512,1,1] {
  %p = max_pool2d(%x) {kernel=(2,2), stride=(2,2)} : f32[N,512,1,1] at "pool"
  return %p
}
"""
    assert "chunks" in str(explanation(text, threads=4))


def test_a_network():
    misses = []
    graph = run_passes(trace(models.resnest_14(), (1, 3, 64, 64)), misses=misses)
    choices = schedule(graph, TARGET, 1)
    program = lower(graph, choices, TARGET, 1, 2)
    found = explain(
        graph, misses, choices, [(program, graph)], (), shapes_of(program), TARGET, 2, Basis()
    )
    assert sum(len(n.calls) for n in found.nodes) == len(list(program.calls()))
    assert all(n.calls or n.done_by for n in found.nodes)
    nodes = by_origin(found.about("layer1.0"))
    assert [c.origin for c in nodes["layer1.0.conv2"].calls] == [
        "layer1.0.conv2.fc1",
        "layer1.0.conv2.fc2",
    ]
    concat = next(n for n in found.nodes if n.op.name == "concat")
    assert concat.fused == ()  # it has its reader's lineage
    pool = by_origin(found)["layer2.0.downsample.0"]
    assert "ceil_mode" in pool.near_misses[0].reason
    assert pool.done_by == ("layer2.0.conv3",)
    data = json.loads(json.dumps(found.to_json()))
    assert data["nodes"][0]["kernel"]["modelled"].keys() == {"direct"}
    assert data["nodes"][0]["fused"] == ["batch_norm conv1.1", "relu conv1.2"]


@pytest.fixture(scope="module")
def graph():
    graph = parse_graph(TEXT)
    from lucid.ir.samples import sample_payload

    graph.payload = sample_payload(graph)
    return graph


def test_compiled_models_explain_themselves(graph):
    fast = lucid.compile(graph, threads=1, precision="strict")
    text = fast.explain()
    assert text.startswith("small for 1x64x16x16, ")
    assert "precision strict" in text
    assert "kernel    winograd2x2" in text
    assert "? not fused add %s at sum: %d is read elsewhere too (fuse-epilogue)" in text
    assert str(fast.explanation((2, 64, 16, 16))).startswith("small for 2x64x16x16")

    options = lucid.CompileOptions(kernels={"first": "direct"})
    assert "forced by the pattern" in lucid.compile(graph, options=options).explain()
    options = lucid.CompileOptions(schedule=Schedule(fast.schedule.choices))
    assert "the given schedule says so" in lucid.compile(graph, options=options).explain()


def test_before_the_first_call_it_needs_a_shape():
    with pytest.raises(InputError, match="give a shape"):
        lucid.compile(models.resnest_14()).explain()


FAR = """graph far(%x: f32[N,14,14,96]) -> f32[N,32,14,14] {
  param @w: f32[32,96,3,3]
  %p = permute(%x) {axes=(0,3,1,2)} : f32[N,96,14,14]
  %y = conv2d(%p, @w) {padding=(12,12,12,12), dilation=(12,12)} : f32[N,32,14,14] at "far"
  return %y
}
"""


def test_taps_that_meet_padding():
    """DeepLab's windows: their products with padding are left out, and the map is not copied."""
    far = by_origin(explanation(FAR))["far"]
    assert far.choosing.choice.kernel == "direct"
    assert "with 18% of the products: the others meet padding" in far.choosing.reason
    assert "in_place=True, sparse=True" in " ".join(call.kernel for call in far.calls)

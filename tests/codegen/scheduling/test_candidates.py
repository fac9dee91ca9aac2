"""What a tuner may try, and by what layers are known again."""

from dataclasses import replace

import pytest
from integer_layers import layer_graph

from lucid.codegen.lowering import lower
from lucid.codegen.scheduling.candidates import (
    call_key,
    candidates,
    describe,
    layer_calls,
    signature,
)
from lucid.codegen.scheduling.conv_shape import ConvShape, convolutions
from lucid.codegen.scheduling.cost_model import cycles
from lucid.codegen.scheduling.schedule import (
    Choice,
    Schedule,
    allowed_kernels,
    legal_kernels,
    schedule,
)
from lucid.codegen.target import LEVELS
from lucid.ir import BATCH, ops
from lucid.ir.graph import Graph
from lucid.ir.text import parse_graph
from lucid.ir.types import TensorType

TARGET = LEVELS["x86-64-v3"]


def graph_of(x: str, weight: str, y: str, attributes: str = "", body: str = "relu(%c)") -> Graph:
    return parse_graph(f"""
graph g(%x: f32[{x}]) -> f32[{y}] {{
  param @w: f32[{weight}]
  %c = conv2d(%x, @w) {attributes} : f32[{y}] at "conv"
  %y = {body} : f32[{y}]
  return %y
}}
""")


def product() -> Graph:
    return graph_of("N,256,14,14", "512,256,1,1", "N,512,14,14")


def window(groups: int = 1) -> Graph:
    padding = f"{{padding=(1,1,1,1), groups={groups}}}"
    return graph_of("N,64,28,28", f"128,{64 // groups},3,3", "N,128,28,28", padding)


def shape_of(graph: Graph, batch: int = 1) -> ConvShape:
    return ConvShape.of(convolutions(graph)[0], batch)


def distinct(graph: Graph, kernel: str, threads: int = 2) -> set[str]:
    """The calls that a kernel's candidates come to."""
    (node,) = convolutions(graph)
    shape, name = shape_of(graph), node.output.name
    found = set()
    for choice in candidates(shape, TARGET, [kernel]):
        program = lower(graph, Schedule({name: choice}), TARGET, 1, threads)
        calls = list(program.calls())
        numbers = layer_calls(program, graph, [name])[name]
        found.add("\n".join(call_key(calls[i]) for i in numbers))
    return found


@pytest.mark.parametrize("kernel", ["pointwise", "direct"])
def test_a_product_can_be_cut_in_eight_ways_and_more(kernel: str) -> None:
    assert len(distinct(product(), kernel)) >= 8


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kernel", ["direct", "winograd2x2", "winograd4x4"])
def test_a_window_can_be_cut_in_eight_ways_and_more(kernel: str, groups: int) -> None:
    assert len(distinct(window(groups), kernel)) >= 8


@pytest.mark.parametrize("graph", [product(), window()])
def test_every_legal_kernel_takes_part_and_first_as_the_cost_model_cuts_it(graph: Graph) -> None:
    shape = shape_of(graph)
    kernels = allowed_kernels(shape, "fast")
    every = candidates(shape, TARGET, kernels)
    assert {c.kernel for c in every} == set(kernels)
    assert len(every) == len(set(every))
    assert {c.kernel for c in every[: len(kernels)]} == set(kernels)
    assert next(iter(schedule(graph, TARGET, 1).choices.values())) in every[: len(kernels)]


def test_strict_precision_leaves_the_large_tiles_out() -> None:
    assert allowed_kernels(shape_of(window()), "fast")[-1] == "winograd4x4"
    assert "winograd4x4" not in allowed_kernels(shape_of(window()), "strict")


def test_a_depthwise_layer_has_little_to_choose() -> None:
    graph = graph_of("N,32,14,14", "32,1,3,3", "N,32,14,14", "{padding=(1,1,1,1), groups=32}")
    every = candidates(shape_of(graph), TARGET, ["depthwise", "direct"])
    assert [c.kernel for c in every] == ["depthwise", "direct"]


def test_rows_that_no_thread_should_copy_whole_are_not_split_by_panels() -> None:
    large = graph_of("N,64,224,224", "64,64,3,3", "N,64,224,224", "{padding=(1,1,1,1)}")
    assert not [c for c in candidates(shape_of(large), TARGET, ["direct"]) if c.split == "panels"]


def test_signatures_tell_what_matters() -> None:
    def of(graph: Graph, batch: int = 1) -> str:
        return signature(convolutions(graph)[0], batch)

    assert of(product()) == of(product())
    assert of(product(), 2) != of(product(), 1)
    assert of(window(1)) != of(window(2))
    assert "from input" in of(product())
    assert of(product()) == "conv2d; 1x256x14x14 by 512x256x1x1; from input"
    bytes_in = product()
    bytes_in.inputs[0].type = TensorType("i8", bytes_in.inputs[0].type.shape)
    assert of(bytes_in) == "conv2d; i8 1x256x14x14 by 512x256x1x1; from input"


def test_signatures_of_integers_leave_out_what_stands_for_zero() -> None:
    def of(zero: int) -> str:
        kind, op = TensorType("u8", (BATCH, 8, 5, 5)), ops.IntegerConv2d(zero_point=zero)
        return signature(convolutions(layer_graph(op, kind, (9, 8, 1, 1)))[0], 1)

    assert of(0) == of(128)
    assert "u8 1x8x5x5 by i8 9x8x1x1" in of(0)


def test_pairs_of_integers_are_modelled_faster_than_floats() -> None:
    floats = shape_of(product())
    for kernel in ("pointwise", "direct"):
        pairs = replace(floats, integer=True, itemsize=2)
        assert cycles(pairs, kernel, TARGET) < cycles(floats, kernel, TARGET)
    assert legal_kernels(replace(floats, integer=True)) == ["pointwise", "direct"]


def test_signatures_of_a_real_network_name_loaders_bodies_and_sums() -> None:
    from lucid.model_source import ModelSource
    from lucid.models import create_model

    graph = ModelSource(create_model("resnest_14"), ()).graph(((1, 3, 64, 64),))
    by_origin = {n.origin: signature(n, 1) for n in convolutions(graph)}
    assert "with sums" in by_origin["layer2.0.conv2.conv"]
    assert "relu" in by_origin["layer2.0.conv2.conv"]
    assert "concat" in by_origin["layer2.0.conv3"]
    assert "avg_pool2d" in by_origin["layer2.0.conv3"]
    assert "split_attention" in by_origin["layer2.0.conv3"]


def test_a_layers_calls_are_its_own_and_its_helpers() -> None:
    from lucid.model_source import ModelSource
    from lucid.models import create_model

    graph = ModelSource(create_model("resnest_14"), ()).graph(((1, 3, 64, 64),))
    nodes = {n.origin: n.output.name for n in convolutions(graph)}
    chosen = dict(schedule(graph, TARGET, 1).choices)
    window, reader = nodes["layer2.0.conv2.conv"], nodes["layer2.0.conv3"]
    for kernel, sums in ((Choice("winograd2x2", 16), 0), (Choice("direct"), 1)):
        chosen[window] = kernel
        for split, stages in (("rows", 0), ("panels", 1)):
            chosen[reader] = Choice("pointwise", split=split)
            program = lower(graph, Schedule(chosen), TARGET, 1, 2)
            calls = list(program.calls())
            found = layer_calls(program, graph, chosen.keys())
            assert set(found) == set(chosen)
            families = [calls[i].kernel.family for i in found[window]]
            assert families.count("reduce") == sums
            families = [calls[i].kernel.family for i in found[reader]]
            assert families == ["product"] + ["stage"] * stages
            every = [i for numbers in found.values() for i in numbers]
            assert len(every) == len(set(every))


def test_choices_in_words() -> None:
    assert describe(Choice("winograd4x4", 49)) == "winograd4x4, 49 tiles"
    assert describe(Choice("winograd2x2", 8, chunks=2)) == "winograd2x2, 8 tiles, 2 chunks"
    assert describe(Choice("pointwise", split="rows", rows=96)) == "pointwise, rows by 96"
    assert describe(Choice("direct", split="panels", chunks=1)) == "direct, panels, 1 chunk"

"""Split attention and its parts against the interpreter: radix, cardinality, gates, pools."""

from __future__ import annotations

import pytest
from graph_builder import Builder, attention_block
from harness import check, examples
from hypothesis import given
from hypothesis import strategies as st

from lucid.ir import BATCH, Graph, f32
from lucid.ir.ops import (
    AvgPool2d,
    Fusion,
    Hardsigmoid,
    RadixCombine,
    RadixMean,
    RadixSoftmax,
    Relu,
    Sigmoid,
    SplitAttention,
)


def attentions(graph: Graph) -> list[SplitAttention]:
    return [n.op for n in graph.nodes if isinstance(n.op, SplitAttention)]


@pytest.mark.parametrize("avd", ["", "first", "last"])
@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize(("radix", "cardinality"), [(1, 1), (2, 1), (2, 2), (4, 1), (4, 2)])
def test_blocks(radix: int, cardinality: int, folded: bool, avd: str) -> None:
    if folded and radix != 2:
        pytest.skip("only two splits fold into one sigmoid")
    disable = [] if folded else ["fold-scales"]
    fused = check(attention_block(radix, cardinality, 10, avd), 2, disable=disable)
    (op,) = attentions(fused)
    assert op.folded == folded


@pytest.mark.parametrize("kernel", ["direct", "winograd2x2", "winograd4x4"])
@pytest.mark.parametrize(("batch", "side"), [(1, 16), (3, 5), (3, 16), (2, 30)])
def test_channel_sums(kernel: str, batch: int, side: int) -> None:
    """Sums from Winograd's epilogue, where blocks span images and where images have several, and
    from a reduction."""
    check(attention_block(2, 1, 66, "", side), batch, {"conv2": kernel})


@examples(0.3)
@given(st.data())
def test_generated_blocks(data: st.DataObject) -> None:
    radix, cardinality = (data.draw(st.sampled_from(c)) for c in ((1, 2, 4), (1, 2)))
    inner = data.draw(st.sampled_from([1, 3, 16, 40]))
    avd = data.draw(st.sampled_from(["", "first", "last"]))
    graph = attention_block(radix, cardinality, inner, avd, data.draw(st.integers(3, 14)))
    check(graph, data.draw(st.integers(1, 3)))


@pytest.mark.parametrize("gate", [Sigmoid(), Hardsigmoid()], ids=lambda op: op.name)
@pytest.mark.parametrize("depthwise", [True, False])
def test_squeeze_and_excitation(gate: Sigmoid | Hardsigmoid, depthwise: bool) -> None:
    build = Builder()
    x = build.input(40, 7, 6)
    fields = {"padding": (1,) * 4, "groups": 40 if depthwise else 1}
    y = build.apply(Relu(), build.conv(x, 40, (3, 3), origin="dw", **fields))
    y = build.squeeze_excitation(y, 10, gate)
    build.graph.set_outputs([build.conv(y, 24, bias=True)])
    fused = check(build.graph, 3)
    assert attentions(fused)


def test_the_attention_read_by_several() -> None:
    """What is left to its reader is computed once where several read it."""
    build = Builder()
    x = build.input(12, 6, 6)
    y = build.split_attention(x, 2, 1, hidden=5)
    build.graph.set_outputs([build.conv(y, 10), build.apply(AvgPool2d((2, 2), (2, 2)), y), y])
    check(build.graph, 2)


@examples(0.2)
@given(
    radix=st.sampled_from([1, 2, 4]),
    cardinality=st.sampled_from([1, 2, 3]),
    inner=st.sampled_from([1, 5, 24]),
    batch=st.integers(1, 3),
)
def test_the_parts_alone(radix: int, cardinality: int, inner: int, batch: int) -> None:
    channels = radix * cardinality * inner
    build = Builder()
    x = build.input(channels, 3, 5)
    logits = build.graph.add_input(f32(BATCH, channels, 1, 1))
    gate = build.apply(RadixSoftmax(radix, cardinality), logits)
    combined = build.apply(RadixCombine(radix, False), x, gate)
    build.graph.set_outputs([build.apply(RadixMean(radix), x), gate, combined])
    check(build.graph, batch)


def test_the_folded_combination_alone() -> None:
    build = Builder()
    x = build.input(42, 3, 5)
    gate = build.graph.add_input(f32(BATCH, 21, 1, 1))
    y = build.apply(RadixCombine(2, True), x, gate)
    build.graph.set_outputs([build.conv(y, 7, bias=True, origin="conv3")])
    fused = check(build.graph, 2, {"conv3": "pointwise"})
    assert not any(isinstance(n.op, Fusion) for n in fused.nodes)

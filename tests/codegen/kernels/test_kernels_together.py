"""Whole generated networks, compiled for every target, against the interpreter."""

from __future__ import annotations

import numpy as np
import pytest
from graph_builder import Builder, attention_block
from harness import TARGETS, Run, check, examples
from hypothesis import given
from hypothesis import strategies as st
from strategies import graphs

from lucid.codegen.lowering import lower
from lucid.codegen.program.plan import replaced
from lucid.codegen.scheduling.conv_shape import ConvShape, convolutions
from lucid.codegen.scheduling.kernel_names import KERNELS
from lucid.codegen.scheduling.schedule import exact_kernels, schedule
from lucid.ir import Graph
from lucid.ir.ops import Add, Relu
from lucid.ir.passes import run_passes


@examples(0.4)
@given(graphs(), st.integers(1, 3), st.sampled_from(TARGETS))
def test_generated_networks(graph: Graph, batch: int, target: object) -> None:
    check(graph, batch, limit=5e-6, targets=[target])


@examples(0.2)
@given(graphs(only=["conv", "residual", "split_attention", "avg_pool"]), st.data())
def test_generated_networks_with_forced_kernels(graph: Graph, data: st.DataObject) -> None:
    """Each convolution by a kernel drawn for it."""
    forced = {}
    for node in convolutions(run_passes(graph)):
        legal = exact_kernels(ConvShape.of(node, 1))
        assert set(legal) <= set(KERNELS)
        forced[node.origin] = data.draw(st.sampled_from(legal))
    check(graph, data.draw(st.integers(0, 3)), forced, limit=1e-5, targets=TARGETS[-1:])


def test_batches_are_their_images() -> None:
    """Every image of a batch comes out bitwise as it does alone, whatever runs together."""
    graph = attention_block(2, 2, 40, "last", 13)
    fused = run_passes(graph)
    images = np.random.default_rng(0).standard_normal((5, 12, 13, 12)).astype(np.float32)
    for target in TARGETS:
        for kernel in ("winograd4x4", "winograd2x2", "direct"):
            choices = schedule(fused, target, 1, "fast", {"conv2": kernel})

            def run(batch: np.ndarray, t: object = target, c: object = choices) -> np.ndarray:
                program = lower(fused, c, t, len(batch), threads=2)
                return Run(program, t, threads=2).outputs(graph.payload, [batch])[0]

            whole = run(images)
            for i in range(5):
                np.testing.assert_array_equal(whole[i : i + 1], run(images[i : i + 1]))


@pytest.mark.parametrize("kernel", ["pointwise", "direct", "winograd2x2", "winograd4x4"])
@pytest.mark.parametrize(("size", "channels"), [((1, 1), 7), ((3, 7), 40), ((5, 10), 7)])
def test_results_lie_in_the_place_of_residuals(
    kernel: str, size: tuple[int, int], channels: int
) -> None:
    """Two residuals in a row, with rows and columns that fill no tile, bitwise the same as with all
    buffers apart."""
    b = Builder()
    x = b.apply(Relu(), b.conv(b.input(3, *size), channels, origin="first"))
    for name in ("one", "two"):
        y = b.apply(Relu(), b.conv(x, 5, origin=f"{name}.in"))
        window = {} if kernel == "pointwise" else {"kernel": (3, 3), "padding": (1, 1, 1, 1)}
        x = b.apply(Relu(), b.apply(Add(), b.conv(y, channels, origin=name, **window), x))
    b.graph.set_outputs([b.conv(x, 4, origin="last")])
    forced = dict.fromkeys(("one", "two"), kernel)
    fused = check(b.graph, 2, forced, limit=1e-5)
    for target in TARGETS:
        choices = schedule(fused, target, 2, "strict", forced)
        program = lower(fused, choices, target, 2, threads=2)
        old = replaced(program)
        assert len(old) == 2
        assert all(program.offsets[name] == program.offsets[old[name]] for name in old)

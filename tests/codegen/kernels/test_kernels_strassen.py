"""Strassen's products of linear layers and 1x1 convolutions, against the interpreter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from harness import TARGETS, Run, check, examples
from hypothesis import given
from hypothesis import strategies as st
from strategies import Builder

from lucid.codegen.kernels.strassen import NARROW, factor_vectors
from lucid.codegen.lowering import lower
from lucid.codegen.scheduling.conv_shape import convolutions, matrices
from lucid.codegen.scheduling.schedule import Choice, Schedule, schedule
from lucid.codegen.target import Target
from lucid.errors import UnknownNameError
from lucid.ir import BATCH, Graph, Value, f32
from lucid.ir.ops import Add, Gelu, Mul, Relu
from lucid.ir.passes import run_passes

HOST = TARGETS[-1]
FORCED = {"layer": "strassen"}
WIDTHS = [2, 6, 16, 40, 66, 130]
"""Halves below a vector, of a panel, and one over it."""


def linear(build: Builder, rows: int, inner: int, outer: int, images: Any = BATCH) -> Value:
    x = build.graph.add_input(f32(images, rows, inner))
    return build.linear(x, outer, origin="layer")


@st.composite
def layers(draw: Any) -> Graph:
    """A layer with what may be fused to it: another tensor, a channel, an activation."""
    build = Builder(seed=draw(st.integers(0, 999)))
    inner, outer = (draw(st.sampled_from(WIDTHS)) for _ in range(2))
    if draw(st.booleans()):
        y = linear(build, draw(st.integers(1, 29)), inner, outer)
    else:
        x = build.input(inner, draw(st.integers(1, 6)), draw(st.integers(1, 5)))
        y = build.conv(x, outer, (1, 1), draw(st.booleans()), "layer")
    if draw(st.booleans()):
        y = build.apply(Add(), y, build.graph.add_input(y.type))
    if draw(st.booleans()) and y.type.rank == 3:
        y = build.apply(Mul(), y, build.weight("scale", outer))
    build.graph.set_outputs([build.apply(draw(st.sampled_from([Relu(), Gelu()])), y)])
    return build.graph


@examples(0.3)
@given(st.data())
def test_generated_layers(data: st.DataObject) -> None:
    check(data.draw(layers()), data.draw(st.sampled_from([0, 1, 2, 3])), FORCED)


def test_pairs_in_several_blocks() -> None:
    """A block has 256 pairs at most, of any number of images."""
    build = Builder()
    build.graph.set_outputs([linear(build, 173, 6, 40)])
    program = lower(build.graph, schedule(build.graph, HOST, 6, "fast", FORCED), HOST, 6)
    assert [c.arguments.get("blocks") for c in program.calls()][-1] == 3
    check(build.graph, 6, FORCED, targets=TARGETS[-2:])


def test_panels_are_narrower_where_sums_would_leave_l2() -> None:
    """Their results agree with the interpreter's."""
    build = Builder()
    build.graph.set_outputs([linear(build, 29, 66, 130)])
    wide = Target.named("x86-64-v4")
    assert factor_vectors(33, 65, wide) > factor_vectors(33, 65, small(wide)) == NARROW
    check(build.graph, 2, FORCED, targets=[small(target) for target in TARGETS])


def small(target: Target) -> Target:
    """One whose L2 holds no sums."""
    return replace(target, l2=1 << 10)


def test_an_image_has_the_same_bits_in_any_batch() -> None:
    build = Builder()
    build.graph.set_outputs([linear(build, 5, 16, 40)])
    choices = Schedule({build.graph.outputs[0].name: Choice("strassen")})
    x = np.random.default_rng(0).standard_normal((3, 5, 16), dtype=np.float32)

    def run(images: np.ndarray) -> np.ndarray:
        program = lower(build.graph, choices, HOST, len(images))
        (y,) = Run(program, HOST).outputs(build.graph.payload, [images])
        return y

    np.testing.assert_array_equal(run(x), np.concatenate([run(x[i : i + 1]) for i in range(3)]))


# -- choices --------------------------------------------------------------------------------------

AVX2 = replace(Target.named("x86-64-v3"), l2=1 << 19)


def chosen(rows: int, inner: int, outer: int, precision: str = "fast", images: Any = BATCH) -> str:
    build = Builder()
    build.graph.set_outputs([linear(build, rows, inner, outer, images)])
    choices = schedule(build.graph, AVX2, 1, precision).choices
    return choices[build.graph.outputs[0].name].kernel if choices else "pointwise"


@pytest.mark.parametrize(
    ("rows", "inner", "outer", "kernel"),
    [
        (197, 768, 3072, "strassen"),
        (197, 3072, 768, "strassen"),
        (196, 1024, 256, "pointwise"),
        (50, 384, 384, "pointwise"),
        (49, 3072, 3072, "pointwise"),
        (197, 769, 3072, "pointwise"),
        (197, 768, 3071, "pointwise"),
    ],
)
def test_it_is_chosen_for_large_layers(rows: int, inner: int, outer: int, kernel: str) -> None:
    assert chosen(rows, inner, outer) == kernel
    assert chosen(rows, inner, outer, "strict") == "pointwise"


def test_rows_of_a_batch_are_no_pairs() -> None:
    """Where axis 1 counts what is independent, pairs would mix it."""
    build = Builder()
    x = build.graph.add_input(f32(197, BATCH, 768))
    build.graph.set_outputs([build.linear(x, 3072, origin="layer")])
    assert not matrices(build.graph)
    with pytest.raises(UnknownNameError, match="no convolution lies at 'layer'"):
        schedule(build.graph, AVX2, 1, "fast", FORCED)


@pytest.mark.parametrize(
    ("level", "kernel"), [("x86-64-v3", "strassen"), ("x86-64-v4", "pointwise")]
)
def test_convolutions_are_strassens_where_that_was_measured(level: str, kernel: str) -> None:
    build = Builder()
    x = build.input(1024, 14, 14)
    y = build.conv(build.conv(x, 512), 2048)
    build.graph.set_outputs([y])
    graph = run_passes(build.graph)
    choices = schedule(graph, Target.named(level), 1).choices
    assert {choices[n.output.name].kernel for n in convolutions(graph)} == {kernel}


@pytest.mark.parametrize("kernel", ["direct", "winograd4x4"])
def test_a_schedule_with_another_kernel_is_refused(kernel: str) -> None:
    build = Builder()
    build.graph.set_outputs([linear(build, 5, 16, 40)])
    wrong = Schedule({build.graph.outputs[0].name: Choice(kernel, 4)})
    with pytest.raises(UnknownNameError, match="cannot compute the linear layer"):
        lower(build.graph, wrong, HOST, 1)

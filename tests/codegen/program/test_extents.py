"""What kernels reach by their arguments is what their calls say: every mutilated call is refused.

One call of each family of kernels; each of its arguments in turn is changed, and its views are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pytest
from integer_layers import layer_graph
from strategies import Builder

from lucid.codegen import kernels as families
from lucid.codegen.kernels.reduction import REDUCED
from lucid.codegen.language.kernel import OUTER, KernelSpec
from lucid.codegen.lowering import lower
from lucid.codegen.program.places import Places
from lucid.codegen.program.program import KernelCall, Program, View, WeightRef
from lucid.codegen.program.verify import verify_program
from lucid.codegen.scheduling.schedule import schedule
from lucid.codegen.target import Target
from lucid.errors import VerifyError
from lucid.ir import ops
from lucid.ir.passes import run_passes
from lucid.ir.types import BATCH, TensorType, f32

TARGET = dataclasses.replace(Target.named("x86-64-v3"), l2=1 << 16)
"""Small caches, so that a small map is worth a fused inverted bottleneck."""

Build = Callable[[Builder], None]
BUILDS: dict[str, Build] = {}
"""For each family of kernels, by its name, a graph that needs one; of some another of integers."""


def family_of(name: str) -> str:
    return name.split(" of ")[0]


def needs(*names: str) -> Callable[[Build], Build]:
    def register(build: Build) -> Build:
        BUILDS.update(dict.fromkeys(names, build))
        return build

    return register


def one(op: ops.Op, *shape: int, weights: tuple[tuple[int, ...], ...] = ()) -> Build:
    """A graph of one op of an input (N, *shape) and weights."""

    def build(b: Builder) -> None:
        x = b.graph.add_input(f32(BATCH, *shape))
        given = [b.weight(f"w{i}", *w) for i, w in enumerate(weights)]
        b.graph.set_outputs([b.apply(op, x, *given)])

    return build


BUILDS |= {
    "elementwise": one(ops.Prelu(), 5, 3, 7, weights=((5, 1, 1),)),
    "transpose": one(ops.Relu(), 9, 20, 8),
    "reduce": one(ops.Mean((2, 3), False), 5, 3, 7),
    "arg_max": one(ops.ArgMax(2, False), 5, 9, 7),
    "softmax": one(ops.Softmax(1), 5, 9),
    "row_norm": one(ops.LayerNorm((2,)), 5, 9, weights=((9,), (9,))),
    "neighbour_norm": one(ops.LocalResponseNorm(3, 0.1), 9, 4, 5),
    "weighted": one(ops.Resize((9, 7), "bicubic"), 9, 4, 5),
    "pool_indices": one(ops.MaxPoolIndices((2,) * 3, (2,) * 3, (0,) * 6, (1,) * 3), 9, 5, 4, 7),
    "fold": one(ops.Fold((4, 5), (2, 3)), 12, 9),
    "resize": one(ops.Resize((9, 7), "bilinear"), 9, 4, 5),
    "pad": one(ops.Pad((0, 0, 1, 2), (0, 0, 2, 1)), 9, 4, 5),
    "scan": one(ops.CumSum(2), 5, 9, 7),
}


@needs("transpose")
def _turned(b: Builder) -> None:
    x = b.input(20, 9, 8)
    b.graph.set_outputs([b.conv(x, 20)])


@needs("interleave")
def _interleaved(b: Builder) -> None:
    x = b.graph.add_input(TensorType("u8", (BATCH, 3, 6, 7)))
    b.graph.set_outputs([b.apply(ops.Permute((0, 2, 3, 1)), x)])


@needs("lookup")
def _lookup(b: Builder) -> None:
    x = b.graph.add_input(TensorType("u8", (BATCH, 5, 9)))
    b.graph.set_outputs([b.apply(ops.Lookup(), x, b.weight("table", 256))])


@needs("grid_sample")
def _grid_sample(b: Builder) -> None:
    grid = b.graph.add_input(f32(BATCH, 3, 5, 2))
    b.graph.set_outputs([b.apply(ops.GridSample(), b.input(9, 4, 5), grid)])


@needs("deform_columns")
def _deform_columns(b: Builder) -> None:
    x, offset = b.input(9, 4, 5), b.input(12, 3, 3)
    b.graph.set_outputs([b.apply(ops.DeformColumns((2, 3)), x, offset)])


@needs("roi_align")
def _roi_align(b: Builder) -> None:
    boxes = b.graph.add_input(f32(3, 5))
    b.graph.set_outputs([b.apply(ops.RoiAlign((3, 2), samples=2), b.input(9, 4, 5), boxes)])


@needs("max_unpool")
def _max_unpool(b: Builder) -> None:
    x = b.input(9, 4, 6)
    pools = (ops.MaxPool2d((2, 2), (2, 2)), ops.MaxPoolIndices((2, 2), (2, 2), (0,) * 4, (1, 1)))
    b.graph.set_outputs([b.apply(ops.MaxUnpool2d((4, 6)), *(b.apply(p, x) for p in pools))])


@needs("gather")
def _gather(b: Builder) -> None:
    indices = b.apply(ops.Constant((3, 0, 4, 4, 1), "i64"))
    b.graph.set_outputs([b.apply(ops.Gather(1), b.graph.add_input(f32(BATCH, 6, 8)), indices)])


@needs("top_k")
def _top_k(b: Builder) -> None:
    x = b.graph.add_input(f32(BATCH, 5, 9))
    b.graph.set_outputs(b.graph.append(ops.TopK(2, 4), [x]).outputs)


@needs("take")
def _take(b: Builder) -> None:
    indices = b.graph.add_input(TensorType("i64", (BATCH, 3, 2)))
    x = b.graph.add_input(f32(BATCH, 6, 5, 8))
    b.graph.set_outputs([b.apply(ops.GatherND(1), x, indices)])


@needs("put")
def _put(b: Builder) -> None:
    indices = b.graph.add_input(TensorType("i64", (3, 2)))
    data, updates = (b.graph.add_input(f32(*shape)) for shape in ((6, 5, 8, 9), (3, 8, 9)))
    b.graph.set_outputs([b.apply(ops.ScatterND(), data, indices, updates)])


@needs("suppress", "listed")
def _non_max_suppression(b: Builder) -> None:
    boxes, scores = (b.graph.add_input(f32(2, *shape)) for shape in ((7, 4), (3, 7)))
    op = ops.NonMaxSuppression(5)
    b.graph.set_outputs(b.graph.append(op, [boxes, scores]).outputs)


@needs("moments", "group_normalise")
def _group_norm(b: Builder) -> None:
    y = b.conv(b.input(5, 4, 5), 12)
    weights = [b.weight(name, 12) for name in "wb"]
    b.graph.set_outputs([b.apply(ops.GroupNorm(3), y, *weights)])


@needs("matmul")
def _matmul(b: Builder) -> None:
    x, y = (b.graph.add_input(f32(BATCH, 3, *size)) for size in ((5, 7), (7, 9)))
    b.graph.set_outputs([b.apply(ops.MatMul(), x, y)])


@needs("product")
def _product(b: Builder) -> None:
    b.graph.set_outputs([b.linear(b.graph.add_input(f32(BATCH, 20)), 30)])


@needs("direct")
def _direct(b: Builder) -> None:
    y = b.conv(b.input(8, 6, 7), 8)
    y = b.conv(y, 20, (3, 3), origin="direct", groups=2, padding=(1,) * 4)
    b.graph.set_outputs([y])


@needs("direct of far windows")
def _direct_of_far_windows(b: Builder) -> None:
    y = b.conv(b.input(8, 6, 7), 16)
    fields = {"groups": 2, "padding": (5,) * 4, "dilation": (5, 5)}
    b.graph.set_outputs([b.conv(y, 20, (3, 3), origin="direct", **fields)])


def of_lines(op: ops.Conv1d) -> Build:
    """A convolution of lines in several strips."""

    def build(b: Builder) -> None:
        x, weight = b.graph.add_input(f32(BATCH, 8, 61)), b.weight("w", 20, 8, 3)
        b.graph.set_outputs([b.apply(op, x, weight, origin="direct")])

    return build


BUILDS |= {
    "direct of lines": of_lines(ops.Conv1d(padding=(1, 1))),
    "direct of strips": of_lines(ops.Conv1d((2,), dilation=(2,))),
}


def of_integers(op: ops.IntegerProduct, x: tuple[int, ...], weight: tuple[int, ...]) -> Build:
    """A layer of bytes, with a body that reads another map's."""

    def build(b: Builder) -> None:
        kind = TensorType("u8", (BATCH, *x))
        b.graph = layer_graph(op, kind, weight, "residual")
        b.graph.nodes[-1].origin = "direct" if weight[2:] == (3, 3) else ""

    return build


BUILDS |= {
    "product of integers": of_integers(ops.IntegerLinear(3), (19,), (30, 19)),
    "product of bytes of integers": of_integers(ops.IntegerLinear(), (24,), (30, 24)),
    "direct of integers": of_integers(
        ops.IntegerConv2d((1, 2), (1,) * 4, groups=2, zero_point=3), (10, 6, 7), (20, 5, 3, 3)
    ),
}


@needs("strassen", "strassen_rows")
def _strassen(b: Builder) -> None:
    y = b.conv(b.conv(b.input(8, 5, 3), 8), 40, origin="strassen")
    b.graph.set_outputs([b.apply(ops.Relu(), y)])


@needs("winograd")
def _winograd(b: Builder) -> None:
    y = b.conv(b.conv(b.input(8, 6, 7), 8), 20, (3, 3), origin="winograd", padding=(1,) * 4)
    b.graph.set_outputs([b.apply(ops.Relu(), y)])


def of_brains(kernel: str, taps: int) -> Build:
    """A convolution by a kernel that rounds to bfloat16."""

    def build(b: Builder) -> None:
        x = b.conv(b.input(8, 6, 7), 8)
        b.graph.set_outputs([b.conv(x, 20, (taps, taps), origin=kernel, padding=(taps // 2,) * 4)])

    return build


BUILDS |= {
    "winograd_bf16": of_brains("winograd2x2_bf16", 3),
    "direct of bf16": of_brains("direct_bf16", 3),
}


def of_volumes(name: str, taps: int, groups: int = 1, out: int = 20) -> Build:
    """A convolution of volumes by a kernel of slices, flat or of two rows and columns more."""

    def build(b: Builder) -> None:
        x = b.graph.add_input(f32(BATCH, 8, 4, 6, 7))
        weight = b.weight("w", out, 8 // groups, 2, taps, taps)
        op = ops.Conv3d((1, 1, 1), (1,) + (taps // 2,) * 2 + (0,) + (taps // 2,) * 2, groups=groups)
        b.graph.set_outputs([b.apply(op, x, weight, origin=name)])

    return build


BUILDS |= {
    "direct_slices": of_volumes("direct", 3),
    "winograd_slices": of_volumes("winograd", 3),
    "depthwise_slices": of_volumes("depthwise", 3, groups=8, out=8),
}


@needs("recurrent")
def _recurrent(b: Builder) -> None:
    """A layer in both directions, the sequences of which have lengths of their own."""
    x = b.graph.add_input(f32(BATCH, 4, 5))
    weights = [b.weight(f"w{i}", 2, 28, k) for i, k in enumerate((5, 7))]
    states = [b.graph.add_input(f32(BATCH, 2, 7)) for _ in range(2)]
    ends = b.graph.add_input(TensorType("i64", (BATCH,)))
    operands = [x, *weights, b.weight("b", 2, 56), *states, ends, b.weight("p", 2, 21)]
    b.graph.set_outputs(b.graph.append(ops.Lstm("bidirectional"), operands).outputs)


@needs("depthwise")
def _depthwise(b: Builder) -> None:
    y = b.conv(b.input(8, 6, 7), 8)
    y = b.conv(y, 8, (3, 3), origin="depthwise", groups=8, stride=(2, 2))
    b.graph.set_outputs([y])


def of_integers(name: str, groups: int = 1) -> Build:
    """A convolution of integers, 9 channels wide, by a kernel of its own."""

    def build(b: Builder) -> None:
        x = b.graph.add_input(TensorType("u8", (BATCH, 9, 6, 7)))
        channels = 9 if groups > 1 else 20
        b.payload["w"] = np.ones((channels, 9 // groups, 3, 3), np.int8)
        weight = b.graph.add_source("w", TensorType("i8", b.payload["w"].shape))
        op = ops.IntegerConv2d((1, 1), (1,) * 4, groups=groups, zero_point=3)
        b.graph.set_outputs([b.apply(op, x, weight, origin=name)])

    return build


BUILDS |= {
    "integer_winograd": of_integers("winograd"),
    "integer_depthwise": of_integers("depthwise", 9),
}


@needs("expand_depthwise")
def _inverted(b: Builder) -> None:
    y = b.apply(ops.Relu(), b.conv(b.conv(b.input(16, 40, 40), 16), 64, origin="pointwise"))
    b.graph.set_outputs([b.conv(y, 64, (3, 3), origin="depthwise", groups=64, padding=(1,) * 4)])


@needs("pool")
def _pool(b: Builder) -> None:
    y = b.conv(b.input(5, 6, 7), 12)
    b.graph.set_outputs([b.apply(ops.MaxPool2d((3, 3), (2, 2), (1,) * 4), y)])


@needs("stage")
def _stage(b: Builder) -> None:
    y = b.apply(ops.AvgPool2d((2, 2), (2, 2)), b.conv(b.input(16, 4, 4), 256))
    b.graph.set_outputs([b.conv(y, 256, origin="pointwise")])


@cache
def program(family: str) -> tuple[Program, int, int]:
    """A program with a call of this family, and that call's phase and number in it."""
    build = Builder(name=family)
    BUILDS[family](build)
    forced = {name: name for name in ("direct", "depthwise", "strassen")}
    forced |= {name: name for name in ("direct_bf16", "winograd2x2_bf16")}
    forced["winograd"] = "winograd2x2"
    graph = run_passes(build.graph)
    wanted = {o: k for o, k in forced.items() if any(n.origin == o for n in graph.nodes)}
    choices = schedule(graph, TARGET, 2, "strict", wanted)
    found = lower(graph, choices, TARGET, 2, threads=2)
    for number, phase in enumerate(found.phases):
        for place, call in enumerate(phase):
            if call.kernel.family == family_of(family):
                return found, number, place
    raise AssertionError(f"no call of {family}:\n{found}")


def refused(family: str, change: Callable[[KernelCall], KernelCall]) -> str:
    """What the verifier says of the program with its call changed; nothing where it passes."""
    found, number, place = program(family)
    call = found.phases[number][place]
    found.phases[number][place] = change(call)
    try:
        verify_program(found)
    except VerifyError as problem:
        return str(problem)
    finally:
        found.phases[number][place] = call
    return ""


def with_argument(name: str, value: object) -> Callable[[KernelCall], KernelCall]:
    return lambda call: dataclasses.replace(call, arguments=call.arguments | {name: value})


FREE = {
    *("prefetch", "chain", "block_stride", "chunk_stride"),  # when, not what
    *("window", "before", "top", "left", "zero_point"),
    *("count_n", "count_c", "count_d", "count_h", "count_w"),  # what indices are made of
    *("line_step", "pixel_step", "plane_step", "samples"),  # what is written, and how many samples
    *("step_h", "step_w", "padded_width", "map_numbers", "met", "wide"),
    *("part_lines", "part_step", "zero_point"),
}
"""Arguments that move nothing in an operand, or only what is in scratch."""
WINDOW = ("kernel_", "stride_", "pad_", "dilation_")
"""How those begin that say which part of a map a result is made of."""
CUTS = {"parts", "pieces", "cuts", "chunks", "blocks", "bands", "lines", "strips", "chunk"}
CUTS |= {"panels", "block_images"}
"""Arguments that say how a call is cut into tasks."""


def counts_and_strides(family: str) -> Iterator[str]:
    """The arguments of a family's call that say where numbers lie and how many there are; not the
    strides that nothing is multiplied by, of one number or along which it is contiguous."""
    found, number, place = program(family)
    call = found.phases[number][place]
    single = [i for i in range(OUTER) if alone(call, f"size{i}")]
    idle = {f"{o}_stride{i}" for o in call.arguments for i in single}
    idle |= {f"{o}_row" for o in call.arguments if alone(call, "rows")}
    idle |= {f"x_reduced{i}" for i in range(REDUCED) if alone(call, f"reduced{i}")}
    idle |= {"line"} if alone(call, "height") else set()
    idle |= {"plane"} if getattr(call.kernel, "planes", 1) == 0 else set()
    extras = enumerate(getattr(call.kernel, "extras", ()))
    idle |= {f"extra{i}_row" for i, extra in extras if extra.kind == "channel"}
    for argument in call.kernel.arguments():
        free = argument.name in FREE | idle or argument.name.startswith(WINDOW)
        if argument.kind == "int" and not free and argument.name not in CUTS:
            yield argument.name


def alone(call: KernelCall, count: str) -> bool:
    return call.arguments.get(count) == 1


def every_family() -> set[str]:
    """The families that programs call: tiles are called by kernels, the others by the runtime."""

    def below(cls: type[KernelSpec]) -> Iterator[type[KernelSpec]]:
        for sub in cls.__subclasses__():
            yield sub
            yield from below(sub)

    apart = {"tile", "window_tile", "matrix_tile"}
    apart |= {"driver", "admission", "peak", "filter_transform"}
    own = (c for c in below(KernelSpec) if c.__module__.startswith("lucid."))  # not of other tests
    return {c.family for c in own if c.family} - apart


def test_every_family_is_here() -> None:
    assert families.__name__
    assert set(map(family_of, BUILDS)) == every_family()


@pytest.mark.parametrize("family", sorted(BUILDS))
def test_a_call_as_lowered_passes(family: str) -> None:
    assert refused(family, lambda call: call) == ""


@pytest.mark.parametrize("family", sorted(BUILDS))
def test_other_counts_and_strides_are_refused(family: str) -> None:
    found, number, place = program(family)
    arguments = found.phases[number][place].arguments
    passed = []
    for name in counts_and_strides(family):
        value = arguments[name]
        assert isinstance(value, int)
        passed += [
            f"{name}={other} for {value}"
            for other in (value + 1, value + 64)
            if not refused(family, with_argument(name, other))
        ]
    assert passed == []


@pytest.mark.parametrize("family", sorted(BUILDS))
def test_other_offsets_are_refused(family: str) -> None:
    found, number, place = program(family)
    call = found.phases[number][place]
    views = {n: v for n, v in call.arguments.items() if isinstance(v, View)}
    assert views
    for name, view in views.items():
        for step in (1, -1, 8):
            moved = dataclasses.replace(view, offset=view.offset + step)
            assert refused(family, with_argument(name, moved)), f"{name} moved by {step}"


@pytest.mark.parametrize("family", sorted(BUILDS))
def test_operands_that_are_too_short_are_refused(family: str) -> None:
    """An array, or packed weights, with a number less."""
    found, number, place = program(family)
    call = found.phases[number][place]
    for name, value in call.arguments.items():
        if isinstance(value, WeightRef):
            packed = found.weights[value.name]
            shape = tuple(max(0, d // 2) for d in packed.shape)
            found.weights[value.name] = dataclasses.replace(packed, shape=shape)
            try:
                smaller = found.weights[value.name].elements < packed.elements
                assert not smaller or refused(family, lambda c: c), f"{name} is half as large"
            finally:
                found.weights[value.name] = packed
        if isinstance(value, View) and value.buffer in found.buffers:
            buffer = found.buffers[value.buffer]
            less = dataclasses.replace(buffer, elements=buffer.elements - 1)
            found.buffers[value.buffer] = less
            try:
                assert refused(family, lambda c: c), f"{name} has a number less"
            finally:
                found.buffers[value.buffer] = buffer


@pytest.mark.parametrize("family", sorted(BUILDS))
def test_more_and_fewer_tasks_are_refused(family: str) -> None:
    for change in (lambda t: t + 1, lambda t: 2 * t, lambda t: t - 1):
        text = refused(family, lambda c, f=change: dataclasses.replace(c, tasks=f(c.tasks)))
        assert text


def test_places_have_one_form() -> None:
    dense = Places.of(5, [(24, 1)])
    assert Places.of(5, [(2, 12), (3, 4), (4, 1)]) == dense
    assert Places.of(5, [(4, 1), (9, 0), (1, 77), (6, 4)]) == dense
    assert Places.of(28, [(2, -12), (12, -1)]) == dense
    assert Places.of(5, [(21, 1), (4, 1)]) == dense
    assert Places.of(5, [(3, 8), (8, 1), (7, 2)]).end == 41
    assert Places.of(0, [(3, 8), (0, 1)]) == Places.of(9, [(0, 2)])
    apart = Places.of(0, [(3, 8), (4, 1)])
    assert apart != dense
    assert apart.end == 20
    assert apart.inside(20)
    assert not apart.inside(19)
    assert not Places.of(2, [(4, -1)]).inside(99)


def test_places_that_overlap_without_a_form_are_compared_one_by_one() -> None:
    crossed = Places.of(0, [(3, 2), (3, 3)])
    assert crossed.same(Places.of(0, [(3, 3), (3, 2)]))
    assert not crossed.same(Places.of(0, [(11, 1)]))
    assert not crossed.same(Places.of(0, [(0, 1)]))

"""The candidates of the tuner: for each layer the ways to compute it, and the key they are logged
by.

A layer's signature holds all that its speed depends on besides machine, threads and precision, so
that equal layers, of one model or of several, are measured once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from itertools import zip_longest

from lucid.codegen.kernels.microkernels import panel_vectors, tile_target
from lucid.codegen.language.dtypes import COMPUTED
from lucid.codegen.program.lowered_ops import PartialSums
from lucid.codegen.program.program import KernelCall, Program
from lucid.codegen.scheduling.conv_shape import ConvShape
from lucid.codegen.scheduling.cost_model import cycles, tile_block
from lucid.codegen.scheduling.kernel_names import winograd_m
from lucid.codegen.scheduling.schedule import Choice
from lucid.codegen.target import Target
from lucid.ir.graph import Graph, Node, Parameter, Value
from lucid.ir.ops import (
    AvgPool2d,
    Concat,
    Constant,
    Fusion,
    IntegerConv2d,
    Op,
    RadixCombine,
    Saturate,
    SplitAttention,
)
from lucid.ir.printer import print_op

TILES = (49, 25, 98, 16, 64, 32, 12, 8, 196)
"""Output tiles in a Winograd block, those that are fast most often first."""
CHUNKS = (0, 1, 2, 4, 8, 16)
"""Into how many chunks to split the panels; 0 leaves it to the lowering."""
ROWS = (96, 48, 192, 24, 144, 72, 36, 384, 12)
"""Rows in a block of a product."""
LARGEST_COPY = 32 << 20
"""Bytes of scratch that each thread may need for the rows a loader makes: where panels are split,
these are all rows, which no thread should copy for itself when they are many."""

STAGES = ("stage", "strassen_rows")
"""Kernels that make what another one reads of a layer's input."""

DEFERRED = (AvgPool2d, Concat, SplitAttention, RadixCombine)
"""Ops whose work is left to the layers that read them."""


# -- candidates ---------------------------------------------------------------------------------


def candidates(shape: ConvShape, target: Target, kernels: Collection[str]) -> list[Choice]:
    """Ways to compute a layer by these kernels, each of them first as the cost model would cut it.

    They come in the order in which to try them: the kernels take turns, the fastest by the cost
    model first, and so do the cuts that are good most often. Some may come to the same program.
    """
    fastest_first = sorted(kernels, key=lambda name: cycles(shape, name, target))
    turns = zip_longest(*(cuts(shape, name, target) for name in fastest_first))
    return list(dict.fromkeys(c for turn in turns for c in turn if c is not None))


def cuts(shape: ConvShape, kernel: str, target: Target) -> list[Choice]:
    """A kernel's work cut in every way worth trying, first as the cost model would."""
    plain = Choice(kernel, tile_block(shape, kernel, target))
    if kernel.startswith("winograd"):
        return [plain, *_tile_cuts(shape, kernel, target)]
    if kernel in ("depthwise", "strassen") or (shape.depth == 1 and shape.group_columns == 1):
        return [plain]  # tasks that settle themselves, or a kernel that is far from its element
    return [plain, *_product_cuts(shape, kernel, target)]


def _tile_cuts(shape: ConvShape, kernel: str, target: Target) -> Iterable[Choice]:
    m = winograd_m(kernel)
    tiles = shape.batch * shape.tiles(m)
    own = tile_block(shape, kernel, target)
    blocks = [own, *(t for t in TILES if t < tiles and t != own), tiles]
    for chunks in _chunks(shape, target):
        for block in dict.fromkeys(blocks):
            yield Choice(kernel, block, chunks=chunks)


def _product_cuts(shape: ConvShape, kernel: str, target: Target) -> Iterable[Choice]:
    count = shape.batch * shape.out_height * shape.out_width
    depth = shape.depth * shape.kernel[0] * shape.kernel[1]
    rows = [Choice(kernel, split="rows", rows=r) for r in ROWS if r < count]
    rows = [Choice(kernel, split="rows"), *rows, Choice(kernel, split="rows", rows=count)]
    panels = [Choice(kernel, split="panels", chunks=c) for c in _chunks(shape, target)]
    if shape.itemsize * count * depth > LARGEST_COPY:
        rows.pop()
        panels.clear()
    by_rows = count >= shape.columns
    first, second = (rows, panels) if by_rows else (panels, rows)
    return [c for pair in zip_longest(first, second) for c in pair if c is not None]


def _chunks(shape: ConvShape, target: Target) -> list[int]:
    """Into how many chunks the panels may be split; those of bfloat16 are as wide as of floats."""
    columns, numbers = shape.group_columns, "i16" if shape.integer else COMPUTED
    target = tile_target(columns, target, numbers)
    panels = -(-columns // (panel_vectors(columns, target, numbers) * target.vector))
    return [c for c in CHUNKS if c <= panels]


def describe(choice: Choice) -> str:
    """`winograd4x4, 49 tiles, 2 chunks`, `pointwise, rows by 96`"""
    parts = [choice.kernel]
    if choice.tiles:
        parts.append(f"{choice.tiles} tiles")
    if choice.split != "auto":
        parts.append(choice.split + (f" by {choice.rows}" if choice.rows else ""))
    if choice.chunks:
        parts.append(f"{choice.chunks} chunk{'s' if choice.chunks > 1 else ''}")
    return ", ".join(parts)


# -- signatures ---------------------------------------------------------------------------------


def signature(node: Node, batch: int) -> str:
    """What a convolution's speed depends on: its shape, epilogue, and what feeds and follows it."""
    op = node.op
    anchor = op.anchor if isinstance(op, Fusion) else op
    own = op.anchor_operands(len(node.inputs)) if isinstance(op, Fusion) else len(node.inputs)
    x, weight, *bias = node.inputs[:own]
    parts = [_print(anchor), f"{_sizes(x, batch)} by {_sizes(weight, batch)}"]
    parts += ["bias"] * len(bias)
    if isinstance(op, Fusion):
        parts += [_body(op.body, node.inputs[own:])]
    parts.append(f"from {_feed(x, batch)}")
    users = node.output.users
    if any(isinstance(u.op, SplitAttention) and u.inputs[0] is node.output for u in users):
        parts.append("with sums")
    return "; ".join(parts)


def _print(op: Op) -> str:
    """The op; no speed depends on what stands for 0."""
    return print_op(replace(op, zero_point=0) if isinstance(op, IntegerConv2d | Saturate) else op)


def _body(body: Graph, extras: Sequence[Value]) -> str:
    """`add relu of tensor`"""
    steps = [_print(n.op) for n in body.nodes if not isinstance(n.op, Constant)]
    kinds = ["channel" if isinstance(e, Parameter) else "tensor" for e in extras]
    return " ".join([*steps, *(["of", *kinds] if kinds else [])])


def _feed(value: Value, batch: int) -> str:
    """What the layer's loader has to make its input from."""
    producer = value.producer
    if producer is None:
        return "input"
    if not isinstance(producer.op, DEFERRED):
        return "rows"
    sources = [v for v in producer.inputs if not isinstance(v, Parameter)]
    made_from = ", ".join(f"{_sizes(v, batch)} from {_feed(v, batch)}" for v in sources)
    return f"{print_op(producer.op)} of ({made_from})"


def _sizes(value: Value, batch: int) -> str:
    """`1x64x56x56`; other dtypes than the usual one are told."""
    sizes = "x".join(map(str, value.type.concrete(batch)))
    return sizes if value.type.dtype == COMPUTED else f"{value.type.dtype} {sizes}"


# -- a layer's calls in a program ---------------------------------------------------------------


def layer_calls(program: Program, graph: Graph, names: Collection[str]) -> dict[str, list[int]]:
    """Which calls of a program (by number) are the work of each layer, named by its result.

    The call that writes its result, and those that are there for this kernel's sake only: what
    stages or copies its input, and what sums its result where the kernel itself does not.
    """
    calls = list(program.calls())
    aliases = {f"output{i}": value.name for i, value in enumerate(graph.outputs)}
    found: dict[str, list[int]] = {}
    writers: dict[str, str] = {}
    for number, call in enumerate(calls):
        buffer = call.writes[0].buffer
        name = aliases.get(buffer, buffer).removesuffix(".anchor")
        if call.algorithm and name in names and name not in found and not _helps(call):
            found[name] = [number]
            writers[buffer] = name
    readers = {v.buffer: name for name, (n, *_) in found.items() for v in calls[n].reads}
    for number, call in enumerate(calls):
        if _helps(call):
            served = readers.get(call.writes[0].buffer)
            if call.region.nodes and call.kernel.family not in STAGES:
                served = writers.get(call.reads[0].buffer)
            if served is not None:
                found[served].append(number)
    return found


def _helps(call: KernelCall) -> bool:
    """Whether a call only stages or copies what a layer reads, or adds up what it wrote."""
    sums = all(isinstance(n.op, PartialSums) for n in call.region.nodes)
    return call.kernel.family in STAGES or sums


def call_key(call: KernelCall) -> str:
    """Equal for calls that run the same code on the same tasks."""
    numbers = {n: v for n, v in call.arguments.items() if isinstance(v, int | float)}
    return f"{call.kernel} {call.tasks} {call.scratch} {numbers}"

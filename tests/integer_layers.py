"""Layers that sum up integers, alone and with all that a quantised network has around them, as
graphs with random or extreme numbers; and the check that compiled code gives every bit of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from random import Random

import numpy as np
from harness import TARGETS, Run, set_apart

from lucid.codegen.lowering import lower
from lucid.codegen.scheduling.schedule import schedule
from lucid.codegen.target import Target
from lucid.ir import Graph, TensorType, Value, interpret, ops, verify
from lucid.ir.ops.fusion import Fusion
from lucid.ir.types import DTYPES

BODIES = ("sums", "floats", "bytes", "shifted", "residual")
"""What follows the sums: nothing, floats by channel, a byte, one of another scale and bias, or one
after the addition of another map's bytes."""
EXTREMES = ("random", "largest", "least")


def layer_graph(
    op: ops.IntegerProduct,
    x: TensorType,
    weight: tuple[int, ...],
    body: str = "bytes",
    *,
    weights: str = "i8",
    bias: bool = True,
    result: str = "u8",
    numbers: str = "random",
    seed: int = 0,
) -> Graph:
    """One layer; its weights are random, or all the largest or least ones of their dtype."""
    generator = np.random.default_rng(seed)
    graph = Graph("layer", {})
    given = graph.add_input(x, "x")
    channels = weight[0]
    bound = 128 if weights == "i8" else 255
    drawn = generator.integers(-bound, bound, weight)
    drawn = {"random": drawn, "largest": drawn * 0 + bound - 1, "least": drawn * 0 - bound}[numbers]
    operands: list[Value] = [given, _source(graph, "weight", drawn.astype(DTYPES[weights]))]
    if bias:
        words = generator.integers(-9999, 9999, channels)
        operands.append(_source(graph, "bias", words.astype(np.int32)))
    (kind,) = op.result_types(*(v.type for v in operands))
    if body == "sums":
        graph.set_outputs([graph.append(op, operands).output])
        return graph
    ones = (1,) * (kind.rank - 2) if isinstance(op, ops.IntegerConv2d) else ()
    by_channel = (channels, *ones)
    spread = np.sqrt(np.prod(weight[1:]) * 75**4) / 40
    scale = (generator.uniform(0.5, 1.5, by_channel) / spread).astype(np.float32)
    extras = [_source(graph, "multiplier", scale)]
    inner = Graph("body", {})
    y, multiplier = inner.add_input(kind, "y"), inner.add_input(extras[0].type, "m")
    t = inner.append(ops.Mul(), [inner.append(ops.Cast("f32"), [y]).output, multiplier]).output
    if body in ("shifted", "residual"):
        shifts = generator.normal(0, 9, by_channel).astype(np.float32)
        extras.append(_source(graph, "shift", shifts))
        t = inner.append(ops.Add(), [t, inner.add_input(extras[1].type, "s")]).output
    if body == "residual":
        other = graph.add_input(TensorType("u8", kind.shape), "residual")
        extras.append(other)
        r = inner.append(ops.Cast("f32"), [inner.add_input(other.type, "r")]).output
        r = inner.append(ops.Sub(), [r, _number(inner, 7.0)]).output
        r = inner.append(ops.Mul(), [r, _number(inner, 0.3333)]).output
        t = inner.append(ops.Add(), [t, r]).output
    if body in ("shifted", "residual"):
        t = inner.append(ops.Relu(), [t]).output
    if body != "floats":
        t = inner.append(ops.Saturate(result, 3), [t]).output
    inner.set_outputs([t])
    fused = graph.append(Fusion(op, inner), [*operands, *extras])
    graph.set_outputs([fused.output])
    return graph


def _number(graph: Graph, value: float) -> Value:
    return graph.append(ops.Constant(value), []).output


def _source(graph: Graph, name: str, array: np.ndarray) -> Value:
    kind = next(n for n, d in DTYPES.items() if d == array.dtype)
    graph.payload[name] = array
    return graph.add_source(name, TensorType(kind, array.shape))


def inputs_of(graph: Graph, batch: int, numbers: str, seed: int = 0) -> list[np.ndarray]:
    """Bytes for a graph's inputs: random, or all the largest or least ones."""
    generator = np.random.default_rng(seed)
    arrays = []
    for value in graph.inputs:
        info, shape = np.iinfo(DTYPES[value.type.dtype]), value.type.concrete(batch)
        array = generator.integers(info.min, info.max, shape, DTYPES[value.type.dtype], True)
        if numbers != "random":
            array[...] = info.max if numbers == "largest" else info.min
        arrays.append(array)
    return arrays


def check_exact(
    graph: Graph,
    batch: int,
    numbers: str = "random",
    kernels: Mapping[str, str] | None = None,
    targets: Iterable[Target] = TARGETS,
) -> None:
    """The compiled graph gives every bit of the interpreter's, on every target, by one thread and
    by two."""
    verify(graph)
    inputs = inputs_of(graph, batch, numbers)
    wanted = interpret(graph, inputs)
    for target in targets:
        choices = schedule(graph, target, max(1, batch), "fast", kernels)
        for threads in (1, 2):
            program = lower(graph, choices, target, batch, threads)
            if threads == 1:
                set_apart(program)
            found = Run(program, target, threads, 13 * (threads == 1)).outputs(
                graph.payload, inputs
            )
            for value, exact in zip(found, wanted, strict=True):
                where = f"{target.name}, {threads} threads\n{graph}"
                np.testing.assert_array_equal(value, exact, err_msg=where)
                assert value.dtype == exact.dtype


def dtype_and_zero(random: Random) -> tuple[str, int]:
    """The dtype of an activation, and a zero point of it, extreme ones often."""
    name = random.choice(("u8", "i8"))
    info = np.iinfo(DTYPES[name])
    zeros = [0, int(info.min), int(info.max), 128 if name == "u8" else -1]
    return name, random.choice([*zeros, random.randint(int(info.min), int(info.max))])

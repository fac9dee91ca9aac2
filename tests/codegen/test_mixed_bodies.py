"""Random chains of ops over integers and floats, fused: every pass and kernel keeps every bit."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from harness import TARGETS, Run

from lucid.codegen.lowering import lower
from lucid.codegen.scheduling.schedule import Schedule
from lucid.codegen.target import Target
from lucid.ir import BATCH, Graph, TensorType, Value, interpret, ops, verify
from lucid.ir.ops.constant import Constant
from lucid.ir.passes import run_passes
from lucid.ir.text import parse_graph
from lucid.ir.types import DTYPES, INTEGERS, NUMBERS

SHAPES = [(BATCH, 3, 7), (BATCH, 1, 7), (BATCH, 3, 1), (1, 3, 7)]
EXACT = [ops.Neg(), ops.Abs(), ops.Sign(), ops.Maximum(), ops.Minimum(), ops.Equal(), ops.Less()]
WHOLE = [
    *(ops.Add(), ops.Sub(), ops.Mul(), ops.Div(), ops.FloorDiv(), ops.Mod(), ops.Mod(True)),
    *(ops.BitwiseAnd(), ops.BitwiseXor(), ops.BitwiseNot(), ops.ShiftLeft(), ops.ShiftRight()),
    ops.Pow(),
]


def numbers(random: Random, name: str, shape: tuple[int, ...]) -> np.ndarray:
    generator = np.random.default_rng(random.randrange(1 << 30))
    if name == "f32":
        return generator.integers(-300, 300, shape).astype(np.float32)
    info = np.iinfo(DTYPES[name])
    edges = np.array([0, 1, 2, info.max, info.min, info.max - 1], DTYPES[name])
    drawn = generator.integers(info.min, info.max, shape, DTYPES[name], endpoint=True)
    return np.where(generator.random(shape) < 0.5, generator.choice(edges, shape), drawn)


def constant(random: Random, name: str, graph: Graph) -> Value:
    number = numbers(random, name, ()).item()
    return graph.append(Constant(random.choice([number, 0, 1]), name), []).output


def chain(seed: int) -> tuple[Graph, list[np.ndarray]]:
    random = Random(seed)
    graph = Graph("chain", {})
    dtypes = random.sample(NUMBERS, 2)
    inputs, values = [], []
    for name in dtypes * 2:
        kind = TensorType(name, random.choice(SHAPES))
        values.append(graph.add_input(kind))
        inputs.append(numbers(random, name, kind.concrete(2)))
    for _ in range(random.randrange(3, 12)):
        x = random.choice(values[-4:])
        name = x.type.dtype
        if random.random() < 0.2:
            values.append(graph.append(ops.Cast(random.choice(NUMBERS)), [x]).output)
            continue
        same = [v for v in values if v.type.dtype == name]
        if random.random() < 0.15:
            truths = [v for v in values if v.type.dtype == "f32"] or [
                constant(random, "f32", graph)
            ]
            operands = [random.choice(truths), x, random.choice(same)]
            values.append(graph.append(ops.Where(), operands).output)
            continue
        op = random.choice(EXACT if name == "f32" else EXACT + WHOLE)
        operands = [x]
        if op.arity() == (2, 2):
            other = constant(random, name, graph) if random.random() < 0.3 else random.choice(same)
            operands = random.sample([x, other], 2)
        values.append(graph.append(op, operands).output)
    graph.set_outputs(values[-2:])
    return graph, inputs


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("seed", range(12))
def test_chains_are_exact(seed: int, target: Target) -> None:
    for one in range(5 * seed, 5 * seed + 5):
        graph, inputs = chain(one)
        fused = run_passes(graph.clone()) or graph
        verify(fused)
        program = lower(fused, Schedule({}), target, 2, threads=2)
        found = Run(program, target, threads=2).outputs(fused.payload, inputs)
        for value, exact in zip(found, interpret(graph, inputs), strict=True):
            np.testing.assert_array_equal(value, exact, err_msg=f"seed {one}\n{graph}")


def test_integers_are_fused_like_floats() -> None:
    """Arithmetic, a comparison, a choice and a cast at the end: three kernels, not six."""
    graph = parse_graph("""
        graph g(%x: i64[N,8], %y: i64[N,8]) -> f32[N,8] {
          %one = constant() {value=1, dtype="i64"} : i64[]
          %a = add(%x, %one) : i64[N,8]
          %b = mul(%a, %y) : i64[N,8]
          %c = less(%b, %x) : f32[N,8]
          %n = neg(%b) : i64[N,8]
          %w = where(%c, %n, %b) : i64[N,8]
          %f = cast(%w) : f32[N,8]
          %r = relu(%f) : f32[N,8]
          return %r
        }""")
    nodes = [n for n in run_passes(graph).nodes if not isinstance(n.op, Constant)]
    assert len(nodes) < 6


@pytest.mark.parametrize("name", INTEGERS)
def test_no_float_identity_is_applied_to_integers(name: str) -> None:
    """maximum(x, x - x) is relu(x) of floats alone, and a sum of squares has a kernel for those."""
    graph = parse_graph(f"""
        graph g(%x: {name}[N,8]) -> {name}[N,8], {name}[N] {{
          %z = sub(%x, %x) : {name}[N,8]
          %m = maximum(%x, %z) : {name}[N,8]
          %s = mul(%x, %x) : {name}[N,8]
          %t = sum(%s) {{axes=(1)}} : {name}[N]
          return %m, %t
        }}""")
    found = {type(n.op) for n in run_passes(graph).nodes}
    assert not found & {ops.Relu, ops.SumSquares}

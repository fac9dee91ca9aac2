"""Recurrent layers against the interpreter: cells, directions, sizes, lengths, batches in parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from harness import TARGETS, Run, check, examples
from hypothesis import given
from hypothesis import strategies as st
from strategies import Builder, random_inputs

from lucid.codegen.kernels.recurrent import ROWS
from lucid.codegen.lowering import lower
from lucid.codegen.scheduling.schedule import schedule
from lucid.ir import BATCH, Graph, f32, ops
from lucid.ir.ops import Gru, Lstm, Recurrent, Rnn

LIMIT = 4e-6
CELLS = {
    "rnn": Rnn(),
    "rnn of relu": Rnn(activations=(ops.Relu(),), clip=0.5),
    "gru": Gru(),
    "gru, linear before reset": Gru(linear_before_reset=True),
    "gru, clipped": Gru(clip=0.4, activations=(ops.Hardsigmoid(), ops.Softsign())),
    "lstm": Lstm(),
    "lstm, coupled": Lstm(input_forget=True, clip=0.7),
    "lstm of others": Lstm(activations=(ops.Sigmoid(), ops.Elu(0.5), ops.LeakyRelu(0.1))),
}


def network(
    cell: Recurrent,
    steps: int,
    depth: int,
    size: int,
    lengths: bool = False,
    peephole: bool = False,
) -> Graph:
    """One recurrent layer of a batch (N), all of its results returned."""
    build = Builder()
    directions, columns = cell.directions, cell.gates * size
    x = build.graph.add_input(f32(BATCH, steps, depth), "x")
    states = [build.graph.add_input(f32(BATCH, directions, size)) for _ in range(cell.states)]
    operands = [
        x,
        build.weight("weight", directions, columns, depth),
        build.weight("recurrent", directions, columns, size),
        build.weight("bias", directions, 2 * columns),
        *states,
    ]
    if lengths:
        scores = build.graph.add_input(f32(BATCH, steps + 1), "scores")
        operands.append(build.apply(ops.ArgMax(1, False), scores))
    if peephole:
        operands.append(build.weight("peephole", directions, 3 * size))
    build.graph.set_outputs(build.graph.append(cell, operands, origin="cell").outputs)
    return build.graph


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("lengths", [False, True], ids=["whole", "lengths"])
@pytest.mark.parametrize("name", CELLS)
def test_cells(name: str, lengths: bool, direction: str) -> None:
    cell = replace(CELLS[name], direction=direction)
    check(network(cell, 5, 3, 19, lengths), 3, limit=LIMIT)


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_sequences_without_a_step(name: str) -> None:
    """The last states are the first ones."""
    check(network(replace(CELLS[name], direction="bidirectional"), 0, 3, 5), 2, limit=LIMIT)


@pytest.mark.parametrize("coupled", [False, True])
def test_peepholes(coupled: bool) -> None:
    check(
        network(Lstm("bidirectional", input_forget=coupled), 4, 5, 10, True, True), 2, limit=LIMIT
    )


@examples(0.4)
@given(st.data())
def test_sizes(data: st.DataObject) -> None:
    """States narrower and wider than a panel, long chains, blocks of every height."""
    name = data.draw(st.sampled_from(list(CELLS)))
    size = data.draw(st.sampled_from([1, 3, 8, 16, 31, 64, 65, 130]))
    steps, depth = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 40))
    cell = replace(CELLS[name], direction=data.draw(st.sampled_from(["forward", "bidirectional"])))
    graph = network(cell, steps, depth, size, data.draw(st.booleans()))
    check(graph, data.draw(st.integers(0, 2 * ROWS + 3)), limit=LIMIT)


def test_long_chains() -> None:
    check(network(Lstm(), 2, 4, 300), 2, limit=LIMIT)


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_batches_in_parts(name: str) -> None:
    """The results of a sequence are bitwise those that it has alone."""
    graph, target = network(CELLS[name], 4, 6, 24, lengths=True), TARGETS[-1]
    inputs = random_inputs(graph, 2 * ROWS - 1)
    choices = schedule(graph, target, 1)

    def outputs(first: int, last: int) -> list[np.ndarray]:
        program = lower(graph, choices, target, last - first)
        return Run(program, target).outputs(graph.payload, [a[first:last] for a in inputs])

    whole = outputs(0, 2 * ROWS - 1)
    for first, last in ((0, 1), (1, 3), (3, 6), (6, 11)):
        for part, value in zip(outputs(first, last), whole, strict=True):
            np.testing.assert_array_equal(part, value[first:last])


def test_what_follows_a_layer() -> None:
    """Is a kernel of its own: a result among several is no anchor of a fusion."""
    graph = network(Lstm(), 3, 4, 8)
    graph.set_outputs([graph.append(ops.Relu(), [v]).output for v in graph.outputs])
    check(graph, 2, limit=LIMIT)

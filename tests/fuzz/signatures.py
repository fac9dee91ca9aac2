"""Networks of any signature, and what must hold of them as users call them.

A network is given further inputs and outputs of all kinds, or loses its batch, and at times some of
its ops have no kernel and run on the host.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from graph_builder import sizes

import lucid
from lucid.codegen.lowering.context import LOWERINGS
from lucid.compiler import CompiledModel, CompileOptions
from lucid.errors import HostOpsWarning
from lucid.ir import BATCH, Graph, Op, Value, f32, ops
from lucid.ir.batch import batched, obstacle
from lucid.ir.passes import run_passes
from lucid.ir.samples import sample
from lucid.ir.types import DTYPES, TensorType

from .draw import Draw
from .networks import NetworkCase
from .oracles import Expected, Failure, Tally, attempt, of_network, require, same_bits
from .values import Array, fill

PASSED_ON = [name for name in DTYPES if DTYPES[name].kind in "iub"]
"""Dtypes of inputs that are outputs as they are."""
POSITIVE = (ops.Sqrt, ops.Rsqrt, ops.Add, ops.Mean, ops.Div)
"""Ops around numbers that are to stay above 0, of which a root is taken or that divide."""
MANY = 17
"""A batch that is run in slices, where it may be."""
MOST_MANY = 20_000
"""Numbers in an image of a network that is run with so many."""


def with_signature(case: NetworkCase) -> NetworkCase:
    """The network with further inputs and outputs, and with the batch or without it."""
    draw = Draw(case.seed ^ 0x516)
    graph, inputs = case.graph, list(case.inputs)

    def add(kind: TensorType, name: str) -> Value:
        value = graph.add_input(kind, name)
        inputs.append(_filled(draw, kind, case.batch))
        return value

    maps = [
        v
        for node in graph.nodes
        for v in node.outputs
        if v.type.rank == 4 and v.users and not any(isinstance(u.op, POSITIVE) for u in v.users)
    ]
    for value in draw.some(maps, min(1.0, 1.5 / max(1, len(maps)))):
        _joined(draw, graph, value, add)
    outputs = list(graph.outputs)
    if draw.chance(0.3):
        outputs += draw.some([*graph.inputs, *draw.shuffled(maps)[:2]], 0.5)
    if draw.chance(0.3):
        outputs.append(add(TensorType(draw.pick(PASSED_ON), draw.pick([(), (3,), (0, 2)])), "as"))
    if draw.chance(0.2):
        outputs.append(draw.pick(outputs))
    graph.set_outputs(draw.shuffled(outputs))
    if draw.chance(0.3):
        graph = without_batch(graph, case.batch)
    return replace(case, graph=graph, inputs=inputs)


def _filled(draw: Draw, kind: TensorType, batch: int) -> Array:
    shape = kind.concrete(batch)
    if kind.dtype == "f32":
        return fill(draw, shape)
    return sample(kind.dtype, shape, draw.arrays)


def _joined(
    draw: Draw, graph: Graph, value: Value, add: Callable[[TensorType, str], Value]
) -> None:
    """Let those that read a map read it together with a new input: a map, a table or a scalar."""
    channels, *size = sizes(value)[1:]
    shape = draw.pick(
        [(BATCH, channels, *size), (BATCH, channels, 1, 1), (channels, 1, 1), (1, 1, *size), ()]
    )
    other = add(f32(*shape), draw.pick(["map", "scale", "table"]))
    op = draw.pick([ops.Add(), ops.Sub(), ops.Maximum()])
    position = graph.nodes.index(value.users[0])
    readers = value.users
    node = graph.insert_before(graph.nodes[position], op, [value, other], origin="joined")
    for reader in readers:
        graph.set_inputs(reader, [node.output if v is value else v for v in reader.inputs])


def without_batch(graph: Graph, batch: int) -> Graph:
    """The same graph for one batch, which it does not know as such."""
    fixed = Graph(graph.name, graph.payload)
    mapped: dict[Value, Value] = {}
    for value in graph.inputs:
        shape = value.type.concrete(batch)
        mapped[value] = fixed.add_input(value.type.with_shape(shape), value.name)
    for name, parameter in graph.parameters.items():
        mapped[parameter] = fixed.add_parameter(name, parameter.recipe)
    for node in graph.nodes:
        op: Op = node.op
        if isinstance(op, ops.Reshape | ops.Expand):
            op = type(op)(node.output.type.concrete(batch))
        names = [v.name for v in node.outputs]
        operands = [mapped[v] for v in node.inputs]
        new = fixed.append(op, operands, names=names, origin=node.origin)
        mapped.update(zip(node.outputs, new.outputs, strict=True))
    fixed.set_outputs(mapped[v] for v in graph.outputs)
    return fixed


@contextmanager
def on_host(graph: Graph, draw: Draw) -> Iterator[list[type[Op]]]:
    """Some of the ops of a graph have no kernel meanwhile: mostly none, else about one in four.
    Gives those that have none. (A fusion goes by its anchor.)"""
    lowered = {type(n.op) for n in graph.nodes} & LOWERINGS.keys() - {ops.Fusion}
    classes = sorted(lowered, key=lambda c: c.name)
    chosen = draw.some(classes, 0.25) if draw.chance(0.4) else []
    taken = {cls: LOWERINGS.pop(cls) for cls in chosen}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HostOpsWarning)
            yield chosen
    finally:
        LOWERINGS.update(taken)


def check_signature(case: NetworkCase, tally: Tally | None = None) -> Failure | None:
    """As `lucid.compile` makes it: near the interpreter; bitwise the same for any threads, by
    position and by name, into arrays of the caller's, from a pickle, and where rows are
    independent in parts."""
    tally = tally or Tally()
    draw = Draw(case.seed ^ 0x51C)
    tally.cases += 1

    def check() -> None:
        graph, inputs = case.graph, case.inputs
        with on_host(run_passes(graph), draw) as hosted:
            expected = Expected.of(case)
            model = _compiled(case, case.threads)
            whole = _run(model, inputs)
            expected.require(whole, "compiled", tally)
            require(same_bits(whole, _run(_compiled(case, 1), inputs)), "threads change the result")
            named = dict(zip([v.name for v in graph.inputs], inputs, strict=True))
            require(same_bits(whole, _run(model, [named])), "names change the result")
            outs = [np.ones_like(y) for y in whole]
            model(*inputs, out=outs if len(outs) > 1 else outs[0])
            require(same_bits(whole, outs), "given arrays have another result")
            for result in whole:
                shared = any(np.may_share_memory(result, x) for x in inputs)
                require(not shared, "a result lies in an input's memory")
            again = pickle.loads(pickle.dumps(model)) if draw.chance(0.3) else model
            require(same_bits(whole, _run(again, inputs)), "a copy gives another result")
            if batched(graph.inputs) and obstacle(run_passes(graph)) is None:
                _check_rows(case, model, None if hosted else whole, draw, tally)

    return attempt(check, of_network(case, "signature"))


def _check_rows(
    case: NetworkCase, model: CompiledModel, whole: list[Array] | None, draw: Draw, tally: Tally
) -> None:
    """That rows are what they are by themselves, however many there are: bitwise, where `whole` is
    given, else near. NumPy's products, which the host may run, add up in an order of its own for
    each batch."""
    graph = case.graph
    counts = [1]
    if case.inputs[0].size // case.batch < MOST_MANY and draw.chance(0.3):
        counts.append(MANY)
    for count in counts:
        rows = [i % case.batch for i in range(count)]
        inputs = _taken(graph.inputs, case.inputs, rows)
        parts, where = _run(model, inputs), f"a batch of {count}"
        if whole is None:
            Expected.of(replace(case, inputs=inputs, batch=count)).require(parts, where, tally)
        else:
            wanted = _taken(graph.outputs, whole, rows)
            require(same_bits(wanted, parts), f"{where} gives another result")


def _taken(values: Sequence[Value], arrays: Sequence[Array], rows: list[int]) -> list[Array]:
    pairs = zip(values, arrays, strict=True)
    return [a[rows] if v.type.batch_axes() else a for v, a in pairs]


def _compiled(case: NetworkCase, threads: int) -> CompiledModel:
    options = CompileOptions(disable=case.disable)
    shapes = [x.shape for x in case.inputs]
    return lucid.compile(
        case.graph, shapes, threads=threads, precision=case.precision, options=options
    )


def _run(model: CompiledModel, inputs: Sequence[object]) -> list[Array]:
    result = model(*inputs)
    return list(result) if isinstance(result, tuple) else [result]

"""The memory plan: never two buffers in one place, little more than the lower bound, and threads
find what they write in their own caches."""

from __future__ import annotations

import numpy as np
import pytest
from graph_builder import Builder
from harness import TARGETS
from hypothesis import given
from hypothesis import strategies as st

from lucid import trace
from lucid.codegen.kernels.reduction import Softmax
from lucid.codegen.language.dtypes import DTYPES
from lucid.codegen.lowering import lower
from lucid.codegen.program.plan import (
    ALIGNMENT,
    CACHED,
    ROOM,
    lifetimes,
    lower_bound,
    plan,
    replaced,
)
from lucid.codegen.program.program import Buffer, KernelCall, Program, View
from lucid.codegen.program.verify import verify_program
from lucid.codegen.scheduling.schedule import schedule
from lucid.errors import VerifyError
from lucid.ir import Graph
from lucid.ir.ops import Add
from lucid.ir.passes import run_passes
from lucid.models import create_model


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Buffers of random sizes, each written in one phase and read in a later one."""
    program = Program("random", "any", 1)
    phases = draw(st.integers(2, 8))
    program.phases = [[] for _ in range(phases)]
    for i in range(draw(st.integers(0, 12))):
        size, kind = draw(st.integers(0, 300)), draw(st.sampled_from(list(DTYPES)))
        view = View(f"b{i}", kind, (size,), (1,))
        program.buffers[view.buffer] = Buffer(view.buffer, "arena", size, kind)
        first = draw(st.integers(0, phases - 2))
        last = draw(st.integers(first + 1, phases - 1))
        region = Graph("empty", {})
        program.phases[first].append(KernelCall(Softmax(), 1, {}, (), (view,), region))
        program.phases[last].append(KernelCall(Softmax(), 1, {}, (view,), (), region))
    return program


@given(programs(), st.sampled_from([1, 2]))
def test_buffers_alive_together_are_apart(program: Program, threads: int) -> None:
    plan(program, threads)
    spans = lifetimes(program)
    places = {
        name: range(program.offsets[name], program.offsets[name] + program.buffers[name].bytes)
        for name in spans
    }
    for name, place in places.items():
        assert place.start % ALIGNMENT == 0
        assert place.stop <= program.arena
        for other in places:
            if other != name and spans[other].overlaps(spans[name]) and place:
                assert not set(place) & set(places[other])
    assert program.arena >= lower_bound(program)


def others_share(program: Program, threads: int) -> float:
    """The share of what a run writes that another thread wrote last, where of each buffer threads
    write equal stretches, one after the other."""
    owners, spans = np.full(program.arena // ALIGNMENT, -1), lifetimes(program)
    written = others = 0
    for again in (False, True):
        for name in sorted(spans, key=lambda name: spans[name].first):
            first = program.offsets[name] // ALIGNMENT
            count = -(-program.buffers[name].bytes // ALIGNMENT)
            for thread in range(threads):
                begin, end = (first + count * t // threads for t in (thread, thread + 1))
                if again:
                    written += end - begin
                    others += int((owners[begin:end] != thread).sum())
                owners[begin:end] = thread
    return others / written


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("shape", [(224, 224), (65, 80)])
@pytest.mark.parametrize("name", ["resnest_50", "resnest_14", "resnest_50_4s2x40d", "resnet_50"])
@pytest.mark.parametrize("threads", [1, 2])
def test_models_fit_little_more_than_the_bound_and_threads_keep_their_lines(
    name: str, shape: tuple[int, int], batch: int, threads: int
) -> None:
    """One thread's plan, and what no cache holds, fits the bound."""
    graph = run_passes(trace(create_model(name), (batch, 3, *shape)))
    choices = schedule(graph, TARGETS[-1], batch)
    program = lower(graph, choices, TARGETS[-1], batch, threads)
    bound = lower_bound(program)
    if threads == 1 or bound > CACHED:
        assert program.arena <= 1.02 * bound
    else:
        assert program.arena <= ROOM * bound
        assert others_share(program, threads) < 0.05


def test_nothing_to_plan() -> None:
    program = Program("empty", "any", 1)
    plan(program)
    assert (program.arena, program.offsets, lower_bound(program)) == (0, {}, 0)


@pytest.mark.parametrize("read_again", [False, True])
def test_a_result_takes_the_place_of_a_residual_that_nobody_else_reads(read_again: bool) -> None:
    b = Builder()
    x = b.conv(b.input(3, 5, 5), 8, origin="first")
    y = b.apply(Add(), b.conv(b.conv(x, 4), 8, origin="second"), x)
    z = b.apply(Add(), b.conv(y, 8, origin="third"), x) if read_again else b.conv(y, 9)
    b.graph.set_outputs([b.conv(z, 4)])
    fused = run_passes(b.graph)
    program = lower(fused, schedule(fused, TARGETS[-1], 1), TARGETS[-1], 1, threads=1)
    (name, old), *others = replaced(program).items()
    writers = {v.buffer: call.origin for call in program.calls() for v in call.writes}
    assert not others
    assert (writers[name], writers[old]) == ("third" if read_again else "second", "first")
    assert program.offsets[name] == program.offsets[old]
    program.arena += ALIGNMENT
    program.offsets[name] += ALIGNMENT
    with pytest.raises(VerifyError, match="overlap while both live"):
        verify_program(program)

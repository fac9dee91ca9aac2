"""Programs at the level with AMX, whose instructions the processor or an emulator executes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
from amx_emulator import LEVEL, Tiles, as_a_machine_with_tiles
from graph_builder import attention_block
from harness import Run, awake
from strategies import random_inputs

from lucid.codegen.kernels import driver_tables as driver
from lucid.codegen.kernels.driver import Driver
from lucid.codegen.language.llvm import assembly
from lucid.codegen.lowering import lower
from lucid.codegen.scheduling.schedule import schedule
from lucid.codegen.target import LEVELS, Target
from lucid.ir import Graph
from lucid.ir.passes import run_passes

BELOW = LEVELS["x86-64-v4-bf16"]
PATIENCE = 10.0


@pytest.fixture
def tiles() -> Iterator[Tiles]:
    with as_a_machine_with_tiles() as found:
        yield found
        assert_released(found)


def assert_released(tiles: Tiles) -> None:
    """At some moment no thread has tiles configured. It is read once: a thread woken late may have
    them again afterwards."""
    end = time.monotonic() + PATIENCE
    while configured := tiles.configured:
        assert time.monotonic() < end, f"{configured} threads have tiles"
        time.sleep(0.001)


def outputs(graph: Graph, target: Target, threads: int) -> list[np.ndarray]:
    fused = run_passes(graph)
    choices = schedule(fused, target, 2, "strict")
    program = lower(fused, choices, target, 2, threads=threads)
    return Run(program, target, threads).outputs(graph.payload, random_inputs(graph, 2))


@pytest.mark.parametrize("threads", [1, 2])
def test_float32_is_as_without_tiles(threads: int, tiles: Tiles) -> None:
    graph, before = attention_block(2, 1, 24, "last"), tiles.executed
    found = outputs(graph, LEVEL, threads)
    wanted = outputs(graph, BELOW, threads)
    for value, exact in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(value, exact)
    assert before is None or tiles.executed >= before + 2 * threads, "threads had no tiles"


def test_who_calls_has_no_tiles_afterwards(tiles: Tiles) -> None:
    outputs(attention_block(2, 1, 8, "last"), LEVEL, 1)
    assert tiles.configured == 0


def test_threads_that_sleep_have_no_tiles(tiles: Tiles) -> None:
    """Neither those that wait for a call, nor those that rest where a team has fewer."""
    workers = awake(LEVEL, 3)
    call = np.zeros(driver.CALL_WORDS, np.int64)
    phases = np.zeros(driver.PHASE_WORDS, np.int64)
    call[[driver.CALL_VERSION, driver.CALL_PHASES]] = driver.VERSION, phases.ctypes.data
    for threads in (3, 2, 3, 1, 3):
        assert workers.run(call.ctypes.data, threads) == 0
        assert_released(tiles)


def test_nothing_of_tiles_is_said_to_other_processors() -> None:
    for target in LEVELS.values():
        text = assembly(Driver(), target)
        assert ("tilecfg" in text) == ("tilerelease" in text) == target.tiles

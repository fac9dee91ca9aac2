"""Bound programs: the rows of the tables that native code walks."""

from __future__ import annotations

import lucid
from lucid.codegen.kernels import driver_tables as driver


def test_phases_are_those_of_the_program() -> None:
    """A thread that begins a phase too early reads what is not there yet, mostly unnoticed."""
    fast = lucid.compile(lucid.models.resnest_digits(), (2, 1, 32, 32), threads=1)
    bound = fast._planner.plan(((2, 1, 32, 32),)).whole
    assert bound is not None
    phases = [[c for c in phase if c.tasks] for phase in bound.program.phases]
    tasks = [[c.tasks for c in phase] for phase in phases if phase]
    rows = bound.phases.tolist()
    assert rows.pop() == [0] * driver.PHASE_WORDS
    assert [row[driver.PHASE_TASKS] for row in rows] == [sum(t) for t in tasks]
    steps = bound.steps[:, driver.STEP_TASKS].tolist()
    for (first, count, *_), wanted in zip(rows, tasks, strict=True):
        assert steps[first : first + count] == wanted
    assert bound.starts == [first for first, *_ in rows]
    assert len(rows) > 3

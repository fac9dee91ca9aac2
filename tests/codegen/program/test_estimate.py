"""How many threads phases are worth: data of the Program, by its work alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

import lucid
from lucid import nn
from lucid.codegen.program import estimate
from lucid.codegen.program.estimate import nanoseconds, threads_worth
from lucid.codegen.program.json_form import program_json
from lucid.codegen.program.program import Program


class Gated(nn.Module):
    """A convolution whose channels are weighted by what a small layer makes of their means."""

    def __init__(self) -> None:
        self.conv = nn.Conv2d(3, 32, 3, padding=1)
        self.gate = nn.Conv2d(32, 32, 1)
        self.last = nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, x):
        x = nn.functional.relu(self.conv(x))
        return self.last(x * nn.functional.sigmoid(self.gate(x.mean((2, 3), keepdim=True))))


def program_of(model: nn.Module, shape: tuple[int, ...]) -> Program:
    return lucid.compile(model, shape, threads=2).program()


def worth(program: Program) -> dict[str, int]:
    """By the origin of their first calls."""
    return {p[0].origin: n for p, n in zip(program.phases, program.threads, strict=True) if p}


def test_small_phases_are_worth_one_thread_and_large_ones_more() -> None:
    found = worth(program_of(Gated(), (1, 3, 64, 64)))
    assert found["gate"] == 1
    assert found["conv"] > 1
    assert found["last"] > 2


def test_a_program_that_two_threads_would_hardly_shorten_is_worth_one() -> None:
    assert set(program_of(Gated(), (1, 3, 2, 2)).threads) == {1}
    assert max(program_of(Gated(), (8, 3, 64, 64)).threads) > 1


def test_no_phase_is_worth_more_threads_than_it_has_tasks() -> None:
    program = program_of(Gated(), (1, 3, 64, 64))
    for phase, threads in zip(program.phases, program.threads, strict=True):
        assert 1 <= threads <= max(1, sum(call.tasks for call in phase))
    assert threads_worth(replace(program, phases=[[], *program.phases]))[0] == 1


def test_calls_whose_work_is_not_known_are_worth_all_threads() -> None:
    program = program_of(Gated(), (1, 3, 64, 64))
    call = next(c for c in program.calls() if not c.kernel.streams)
    assert nanoseconds(program, call) < math.inf
    assert nanoseconds(program, replace(call, work=0)) == math.inf


def test_a_kernel_that_takes_long_is_given_out_with_the_small_ones_beside_it() -> None:
    program = program_of(Gated(), (1, 3, 64, 64))
    calls = [c for phase in program.phases for c in phase]
    assert threads_worth(replace(program, phases=[calls]))[0] > 1


def test_wider_vectors_take_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    program = program_of(Gated(), (1, 3, 64, 64))
    call = max(program.calls(), key=lambda c: c.work)
    narrow, wide = (replace(program, target=name) for name in ("x86-64", "x86-64-v4"))
    monkeypatch.setattr(estimate, "BYTES", math.inf)
    assert nanoseconds(narrow, call) == 4 * nanoseconds(wide, call)


def test_texts_json_and_explanations_say_it() -> None:
    fast = lucid.compile(Gated(), (1, 3, 64, 64), threads=2)
    program = fast.program()
    assert f"phase 0 threads={program.threads[0]} {{" in str(program)
    assert program_json(program)["threads"] == program.threads
    calls = [c for node in fast.explanation().nodes for c in node.calls]
    assert all(c.threads == program.threads[c.phase] for c in calls)
    assert "on one thread: " in fast.explain()


def test_loaded_files_say_the_same(tmp_path) -> None:
    fast = lucid.compile(Gated(), (1, 3, 64, 64), threads=2)
    fast.save(tmp_path / "net.lucid")
    assert lucid.load(tmp_path / "net.lucid", 2).program().threads == fast.program().threads

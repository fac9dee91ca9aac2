"""Programs as tables: which words await an address, and how buffers are numbered."""

import numpy as np

import lucid
from lucid import nn
from lucid.codegen.kernels import driver_tables as driver
from lucid.codegen.language.kernel import WORDS
from lucid.codegen.program.program import Code, Program, WeightRef
from lucid.codegen.program.program_tables import Function, ProgramTables
from lucid.codegen.program.tables import tables_of


def program() -> Program:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Softmax(1))
    return lucid.compile(model, (1, 3, 12, 12), threads=1).program()


def arguments(program: Program, tables: ProgramTables) -> list[tuple[int, object]]:
    """The first word of each argument of each step, and its value in the program."""
    calls = [call for call in program.calls() if call.tasks]
    found = []
    for call, step in zip(calls, tables.steps, strict=True):
        at = step.first
        for declared in call.kernel.arguments():
            found.append((at, call.arguments[declared.name]))
            at += WORDS[declared.kind]
    assert at == len(tables.words)
    return found


def test_words_that_await_an_address_are_those_of_codes_and_weights() -> None:
    made = program()
    tables = tables_of(made)
    values = dict(arguments(made, tables))
    codes = {
        at: Function(value.kernel.called(), value.export)
        for at, value in values.items()
        if isinstance(value, Code)
    }
    weights = {at + 1: v.name for at, v in values.items() if isinstance(v, WeightRef)}
    assert codes
    assert tables.codes == codes
    assert weights.items() <= tables.weights.items()
    assert set(tables.weights.values()) == set(made.weights)


def test_a_weight_lies_in_the_last_buffer_by_its_offset() -> None:
    made = program()
    tables = tables_of(made)
    for word in tables.weights:
        assert tables.words[word - 1] == tables.users + 1
        assert tables.words[word] == 0  # no kernel here begins inside a weight


def test_phases_end_with_a_row_of_zeros_and_hold_all_steps() -> None:
    tables = tables_of(program())
    rows, last = tables.phases[:-1], tables.phases[-1]
    assert not last.any()
    assert rows[:, driver.PHASE_STEPS].sum() == len(tables.steps)
    assert rows[:, driver.PHASE_TASKS].sum() == sum(step.tasks for step in tables.steps)


def test_the_same_program_gives_the_same_tables() -> None:
    one, two = tables_of(program()), tables_of(program())
    assert np.array_equal(one.words, two.words)
    assert (one.steps, one.codes, one.weights) == (two.steps, two.codes, two.weights)

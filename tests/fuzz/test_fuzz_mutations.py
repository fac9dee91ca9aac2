"""The fuzzer finds what is wrong: four seeded miscompiles here, all of them in the long run."""

from __future__ import annotations

import pytest

from lucid.runtime.cache import default_folder

from .mutants import MUTANTS
from .mutations import changed_code, judge

INJECTED = [
    "batch norm forgets its mean",
    "a buffer dies when it has been written",
    "a ticket is taken without acquire",
    "the next phase is given out before the count is complete",
]


def test_names_are_unique() -> None:
    assert len({m.name for m in MUTANTS}) == len(MUTANTS) >= 40


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_mutant_still_changes_something(mutant) -> None:
    """Where this fails, a function was rewritten: say in `mutants.py` what to change in it now."""
    changed_code(mutant)


@pytest.mark.parametrize("name", INJECTED)
def test_a_mutant_is_found(name: str) -> None:
    mutant = next(m for m in MUTANTS if m.name == name)
    verdict = judge(mutant, 30, default_folder())
    assert verdict.found, verdict.how

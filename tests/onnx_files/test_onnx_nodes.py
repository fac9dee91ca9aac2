"""A fixed part of onnx's own node tests, one or more of each operator: none is wrong, and none does
worse than it did (`docs/draw_node_tests.py` runs all, and records)."""

from __future__ import annotations

import pytest

pytest.importorskip("onnx", reason="the package onnx is not installed")
pytest.importorskip("ml_dtypes", reason="the package ml_dtypes is not installed")
from node_tests import ORDER, cases, operator_of, recorded, status_of

EACH = 12
"""Of so many tests of an operator one is run."""


def sample():
    """The first test of each operator that is recorded, and every twelfth after it."""
    record, counts = recorded(), {}
    for case in cases():
        operator = operator_of(case)
        counts[operator] = counts.get(operator, -1) + 1
        if counts[operator] % EACH == 0 and case.name in record:
            yield case


@pytest.mark.filterwarnings("ignore")
def test_a_part_of_the_node_tests():
    record, problems = recorded(), []
    for case in sample():
        status, before = status_of(case), record[case.name]
        if status not in ORDER or ORDER.index(status) < ORDER.index(before):
            problems.append(f"{case.name}: {before} before, now {status}")
    assert not problems, "\n".join(problems)

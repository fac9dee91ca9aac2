"""Damaged files and texts give Lucid's own errors."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from .parsers import check_parser, subjects


@settings(max_examples=10 * settings.default.max_examples)
@given(st.integers(0, 2**40))
def test_only_own_errors_come_out(seed: int) -> None:
    failure = check_parser(seed)
    assert failure is None, f"seed {seed}: {failure.detail}"


def test_whole_subjects_are_read() -> None:
    for name, subject in subjects().items():
        if name != "checkpoint":  # which only PyTorch reads, and not this one
            subject.read(subject.data)

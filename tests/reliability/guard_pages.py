"""Runs tests of kernels between unreadable pages, each file in a process of its own.

`python -m tests.reliability.guard_pages [FILE...]` runs all of `tests/codegen` that go through the
harness, both ways: every array ends at such a page, then begins at one. A file that ends by a
signal is reported with the kernel it was in, and the program.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
KERNEL_TESTS = ROOT / "tests" / "codegen"
MODES = ("end", "start")


@dataclass(frozen=True)
class Outcome:
    """How one run of tests ended. `note`: the kernel that ran last, and its program."""

    passed: int
    code: int
    output: str
    note: str

    @property
    def ok(self) -> bool:
        return self.code == 0

    def __str__(self) -> str:
        if self.ok:
            return f"{self.passed} tests passed"
        if self.code < 0:
            return f"{signal.Signals(-self.code).name} in {self.note}"
        return f"failed\n{self.output}"


def run(mode: str, tests: Sequence[str], timeout: float = 600) -> Outcome:
    """Run tests with every array at an unreadable page, at its `end` or its `start`."""
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "note"
        environment = {**os.environ, "LUCID_GUARD_PAGES": mode, "LUCID_GUARD_NOTE": str(note)}
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout
        )
        passed = re.search(r"(\d+) passed", done.stdout)
        count = int(passed[1]) if passed else done.stdout.count(".")
        last = note.read_text() if note.exists() else "no kernel"
        return Outcome(count, done.returncode, done.stdout + done.stderr, last)


def files() -> list[str]:
    """The tests that run kernels through the harness, but for those that stray on purpose."""
    uses = re.compile(r"^from harness import .*\b(check|Run)\b", re.M)
    found = [p for p in sorted(KERNEL_TESTS.rglob("test_*.py")) if uses.search(p.read_text())]
    return [str(p.relative_to(ROOT)) for p in found if p.name != "test_harness.py"]


def main() -> None:
    tests, failed, total, start = sys.argv[1:] or files(), 0, 0, time.monotonic()
    for mode in MODES:
        for test in tests:
            outcome = run(mode, [test])
            failed += not outcome.ok
            total += outcome.passed
            print(f"{mode:5} {test}: {outcome}", flush=True)
    minutes = (time.monotonic() - start) / 60
    print(f"{total} tests passed between unreadable pages in {minutes:.1f} min, {failed} files not")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

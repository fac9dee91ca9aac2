"""`python -m tests.fuzz`: a long run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness import TARGETS

from .campaign import KINDS, run
from .oracles import Failure


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, help="how long (without: until --cases)")
    parser.add_argument("--cases", type=int, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="another seed gives other cases")
    parser.add_argument("--only", choices=list(KINDS), action="append", default=[])
    parser.add_argument("--report", type=Path, default=Path("fuzz-report.json"))
    parser.add_argument("--keep", action="store_true", help="shrink and save what fails")
    parser.add_argument(
        "--guard-pages",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="run this share of the cases between unreadable pages, 0.1 for a tenth",
    )
    parser.add_argument(
        "--level",
        choices=[t.name for t in TARGETS],
        action="append",
        help="of the target, once or more often (without: all that run here)",
    )
    chosen = parser.parse_args()
    if chosen.minutes is None and chosen.cases is None:
        chosen.minutes = 1.0

    if chosen.level:  # every module has the same list
        TARGETS[:] = [t for t in TARGETS if t.name in chosen.level]

    def failed(failure: Failure) -> None:
        print(f"FAILED {failure.kind} {failure.seed}: {failure.detail[:400]}", flush=True)

    report = run(
        chosen.seed,
        chosen.minutes,
        chosen.cases,
        chosen.only,
        failed,
        report_to=chosen.report,
        keep=chosen.keep,
        guarded=chosen.guard_pages,
    )
    print(report)
    print(f"written to {chosen.report}")
    return int(bool(report.failures))


if __name__ == "__main__":
    sys.exit(main())

"""Case after case until the time is up, or until so many have been tried; and the report.

Kinds take turns by what they cost: a network for every ten ops, some of them for what must change
no bit, and parsers now and then. Case `n` of a campaign follows from its seed and `n` alone.
"""

from __future__ import annotations

import gc
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import TARGETS

from lucid.codegen.language.llvm import versions

from . import quantised_cases
from .draw import Draw
from .guarded import GUARDED, Try, between_pages, guard_mode
from .networks import network
from .op_cases import op_case
from .oracles import Failure, Tally, check_metamorphic, check_network, check_op
from .parsers import check_parser
from .shrink import save, shrunk
from .signatures import check_signature, with_signature


def quantised_op(seed: int) -> str:
    """The op of quantised tensors that the case of a seed is of."""
    return str(Draw(seed ^ 0x8B175).pick(quantised_cases.OPS))


KINDS: dict[str, Try] = {
    "ops": lambda seed, tally: check_op(op_case(seed), tally),
    "quantised": lambda seed, tally: check_op(op_case(seed, quantised_op(seed)), tally),
    "networks": lambda seed, tally: check_network(with_signature(network(seed)), tally),
    "metamorphic": lambda seed, tally: check_metamorphic(network(seed, 6, 24), tally),
    "signatures": lambda seed, tally: check_signature(with_signature(network(seed, 6, 24)), tally),
    "parsers": lambda seed, tally: check_parser(seed, tally),
}
TURN = ["ops"] * 5 + ["networks"] + ["ops"] * 5 + ["quantised"] * 3
TURN += ["parsers"] * 2 + ["metamorphic", "signatures"]
"""In this order, over and over."""


@dataclass
class Report:
    """What a campaign did. `tallies`: by kind; `seconds`: of each kind."""

    seed: int
    tallies: dict[str, Tally] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)
    cases: int = 0

    def to_json(self) -> dict[str, Any]:
        kinds = {
            kind: {
                "cases": tally.cases,
                "between unreadable pages": tally.guarded,
                "refused": tally.refused,
                "seconds": round(self.seconds[kind], 1),
                "a second": round(tally.cases / max(1e-9, self.seconds[kind]), 2),
                "nearest to what is allowed": dict(
                    sorted(((n, round(s, 3)) for n, s in tally.shares.items()), key=lambda p: -p[1])
                ),
            }
            for kind, tally in sorted(self.tallies.items())
        }
        return {
            "seed": self.seed,
            "cases": self.cases,
            "minutes": round(sum(self.seconds.values()) / 60, 1),
            "machine": platform.processor() or platform.machine(),
            "targets": [t.name for t in TARGETS],
            "versions": versions(),
            "kinds": kinds,
            "failures": self.failures,
        }

    def __str__(self) -> str:
        rows = []
        for kind, tally in sorted(self.tallies.items()):
            seconds = self.seconds[kind]
            rows.append(
                f"{kind:12} {tally.cases:7} cases, {tally.guarded} between unreadable pages,"
                f" {tally.refused} refused, {seconds:8.1f} s,"
                f" {tally.cases / max(1e-9, seconds):6.2f} a second"
            )
        found = f"{len(self.failures)} failures" if self.failures else "nothing failed"
        return "\n".join([*rows, found])


def run(
    seed: int = 0,
    minutes: float | None = None,
    cases: int | None = None,
    only: Sequence[str] = (),
    failed: Callable[[Failure], None] | None = None,
    stop_at_first: bool = False,
    report_to: Path | None = None,
    keep: bool = False,
    guarded: float = 0.0,
) -> Report:
    """Try cases for so many minutes, or so many of them. `keep`: shrink what fails and save it as
    a regression; `failed` is told of it at once; `report_to` is written every minute. `guarded`:
    which share of what runs in the harness does so between unreadable pages.
    """
    turn = [kind for kind in TURN if not only or kind in only]
    report = Report(seed)
    start = written = time.monotonic()
    number = 0
    while (cases is None or number < cases) and (
        minutes is None or time.monotonic() - start < 60 * minutes
    ):
        kind = turn[number % len(turn)]
        began = time.monotonic()
        tally = report.tallies.setdefault(kind, Tally())
        own, attempt, mode = seed * 1_000_000 + number, KINDS[kind], guard_mode(number, guarded)
        if mode and kind in GUARDED:
            failure = between_pages(mode, kind, own, attempt, tally)
        else:
            failure = attempt(own, tally)
        number += 1
        now = time.monotonic()
        report.seconds[kind] = report.seconds.get(kind, 0.0) + now - began
        report.cases = number
        if failure is not None:
            _note(report, kind, failure, failed, keep)
            if stop_at_first:
                break
        if number % 200 == 0:
            gc.collect()
        if report_to is not None and now - written > 60:
            written = now
            report_to.write_text(json.dumps(report.to_json(), indent=1) + "\n")
    if report_to is not None:
        report_to.write_text(json.dumps(report.to_json(), indent=1) + "\n")
    return report


def _note(
    report: Report,
    kind: str,
    failure: Failure,
    failed: Callable[[Failure], None] | None,
    keep: bool,
) -> None:
    row = {"kind": kind, "seed": failure.seed, "detail": failure.detail[:1000]}
    report.failures.append(row)
    if failed is not None:
        failed(failure)
    if keep and failure.graph is not None:
        small = shrunk(failure)
        path = save(small, f"{failure.kind}-{failure.seed}")
        row["kept"] = path.name
        row["nodes"] = len(small.graph.nodes) if small.graph is not None else 0

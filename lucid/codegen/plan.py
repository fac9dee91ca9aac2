"""The memory plan: offsets for arena buffers by liveness, the largest first.

A buffer lives from the phase that first writes it to the one that last reads it. Greedy by size
(Pisarchyk and Lee, "Efficient memory management for deep neural net inference", 2020, strategy
"offset calculation by size") comes within a few percent of the lower bound on convolutional nets.
"""

from __future__ import annotations

from dataclasses import dataclass

from lucid.codegen.program import Program

ALIGNMENT = 32
"""Floats: buffers start on a pair of cache lines, which the adjacent-line prefetcher fetches."""


@dataclass(frozen=True)
class Lifetime:
    """The phases in which a buffer holds something, both ends included."""

    first: int
    last: int

    def overlaps(self, other: Lifetime) -> bool:
        return self.first <= other.last and other.first <= self.last


def lifetimes(program: Program) -> dict[str, Lifetime]:
    """The lifetime of every arena buffer."""
    spans: dict[str, Lifetime] = {}
    for number, phase in enumerate(program.phases):
        for call in phase:
            for view in (*call.writes, *call.reads):
                buffer = program.buffers.get(view.buffer)
                if buffer is not None and buffer.kind == "arena":
                    known = spans.get(view.buffer, Lifetime(number, number))
                    spans[view.buffer] = Lifetime(known.first, number)
    return spans


def aligned(floats: int) -> int:
    return -(-floats // ALIGNMENT) * ALIGNMENT


def plan(program: Program) -> None:
    """Set `offsets` and `arena` of a program."""
    spans = lifetimes(program)
    placed: list[tuple[int, int, Lifetime]] = []  # offset, end, lifetime; by offset
    order = sorted(spans, key=lambda name: (-program.buffers[name].floats, spans[name].first))
    for name in order:
        size = aligned(program.buffers[name].floats)
        offset = 0
        for start, end, other in placed:
            if other.overlaps(spans[name]):
                if offset + size <= start:
                    break
                offset = max(offset, end)
        program.offsets[name] = offset
        placed.append((offset, offset + size, spans[name]))
        placed.sort(key=lambda p: p[0])
    program.arena = max((end for _, end, _ in placed), default=0)


def lower_bound(program: Program) -> int:
    """Floats no plan can do without: the largest sum of what lives in one phase."""
    spans = lifetimes(program)
    return max(
        (
            sum(
                aligned(program.buffers[n].floats)
                for n, s in spans.items()
                if s.first <= p <= s.last
            )
            for p in range(len(program.phases))
        ),
        default=0,
    )

"""The memory plan: offsets for arena buffers by liveness, the largest first.

A buffer lives from the phase that first writes it to the one that last reads it. Where a result may
lie in the place of an operand, such as a residual that nobody else reads (`replaced`), it does: its
lines are in the cache then. Greedy by size
(Pisarchyk and Lee, "Efficient memory management for deep neural net inference", 2020, strategy
"offset calculation by size") comes near the lower bound, and a few other orders reach it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from lucid.codegen.program.addressable import require_addressable
from lucid.codegen.program.program import Program, View

ALIGNMENT = 128
"""Bytes: buffers start on a pair of cache lines, which the adjacent-line prefetcher fetches."""

ROUNDS = 30
"""Orders that a plan tries: none of the models here needs more than 12 to reach the bound."""


@dataclass(frozen=True)
class Lifetime:
    """The phases in which a buffer holds something, both ends included."""

    first: int
    last: int

    def overlaps(self, other: Lifetime) -> bool:
        return self.first <= other.last and other.first <= self.last


def lifetimes(program: Program) -> dict[str, Lifetime]:
    """The lifetime of every arena buffer. One that is replaced ends before the phase in which its
    reader writes the result in its place."""
    spans, places = _touched(program), program.offsets
    for name, old in replaced(program).items():
        if places.get(name) == places.get(old):
            spans[old] = Lifetime(spans[old].first, spans[old].last - 1)
    return spans


def replaced(program: Program) -> dict[str, str]:
    """Which arena buffers lie in the place of which others, element by element.

    ResNet-50's layers with a residual take 0.6 to 0.9 of the time so, on one thread of a Zen 3:
    otherwise each line of the result is first brought into the cache to be written.
    """
    found: dict[str, str] = {}
    spans = _touched(program)
    for number, phase in enumerate(program.phases):
        operands = [(c, n, v) for c in phase for n, v in c.arguments.items() if isinstance(v, View)]
        touched = Counter(view.buffer for _, _, view in operands)
        for call, name, old in operands:
            if name not in call.kernel.replaceable():
                continue
            y = call.arguments["y"]
            assert isinstance(y, View), call
            if (
                y.buffer != old.buffer
                and y == replace(old, buffer=y.buffer)
                and _fills(program, y)
                and _fills(program, old)
                and touched[y.buffer] == touched[old.buffer] == 1
                and spans[y.buffer].first == number == spans[old.buffer].last
            ):
                found.setdefault(y.buffer, old.buffer)
    return found


def _fills(program: Program, view: View) -> bool:
    """Whether a view holds all of an arena buffer."""
    buffer = program.buffers.get(view.buffer)
    return buffer is not None and (buffer.kind, buffer.elements) == ("arena", prod(view.shape))


def _touched(program: Program) -> dict[str, Lifetime]:
    """The first and the last phase that touches each arena buffer."""
    spans: dict[str, Lifetime] = {}
    for number, phase in enumerate(program.phases):
        for call in phase:
            for view in (*call.writes, *call.reads):
                buffer = program.buffers.get(view.buffer)
                if buffer is not None and buffer.kind == "arena":
                    known = spans.get(view.buffer, Lifetime(number, number))
                    spans[view.buffer] = Lifetime(known.first, number)
    return spans


def aligned(size: int) -> int:
    """Bytes up to where the next buffer may start."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def plan(program: Program) -> None:
    """Set `offsets` and `arena` of a program, in bytes.

    While something lies beyond the lower bound, what lies highest is placed before all else the
    next time: ResNeSt-50 goes from 1.2 times the bound to the bound itself in the second round.
    """
    spans, roots = _joined(lifetimes(program), replaced(program))
    sizes = {name: aligned(program.buffers[name].bytes) for name in spans}
    order = sorted(spans, key=lambda name: (-sizes[name], spans[name].first))
    least = lower_bound(program)
    best: dict[str, int] = {}
    arena: int | None = None
    for _ in range(ROUNDS):
        offsets = place(order, sizes, spans)
        highest = max(order, key=lambda name: offsets[name] + sizes[name], default=None)
        size = offsets[highest] + sizes[highest] if highest is not None else 0
        if arena is None or size < arena:
            best, arena = offsets, size
        if arena <= least or highest is None or highest == order[0]:
            break
        order.remove(highest)
        order.insert(0, highest)
    program.offsets.update(best | {name: best[root] for name, root in roots.items()})
    program.arena = arena or 0
    require_addressable(f"the intermediate results of {program.name}", program.arena)


def _joined(
    spans: dict[str, Lifetime], old: Mapping[str, str]
) -> tuple[dict[str, Lifetime], dict[str, str]]:
    """The lifetimes of places: buffers in each other's place are one, the first of them, which the
    others are listed with."""
    roots: dict[str, str] = {}
    for name in sorted(old, key=lambda name: spans[name].first):
        root = roots[name] = roots.get(old[name], old[name])
        spans[root] = Lifetime(spans[root].first, spans.pop(name).last)
    return spans, roots


def place(
    order: Sequence[str], sizes: Mapping[str, int], spans: Mapping[str, Lifetime]
) -> dict[str, int]:
    """Offsets: each buffer in this order at the lowest place that is free during its life."""
    placed: list[tuple[int, int, Lifetime]] = []  # offset, end, lifetime; by offset
    offsets: dict[str, int] = {}
    for name in order:
        size, offset = sizes[name], 0
        for start, end, other in placed:
            if other.overlaps(spans[name]):
                if offset + size <= start:
                    break
                offset = max(offset, end)
        offsets[name] = offset
        placed.append((offset, offset + size, spans[name]))
        placed.sort(key=lambda p: p[0])
    return offsets


def lower_bound(program: Program) -> int:
    """Bytes no plan can do without: the largest sum of what lives in one phase."""
    spans = lifetimes(program)
    return max(
        (
            sum(
                aligned(program.buffers[n].bytes)
                for n, s in spans.items()
                if s.first <= p <= s.last
            )
            for p in range(len(program.phases))
        ),
        default=0,
    )

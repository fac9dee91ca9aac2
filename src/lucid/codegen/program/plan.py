"""The memory plan: offsets for arena buffers by liveness.

A buffer lives from the phase that first writes it to the one that last reads it. Where a result may
lie in the place of an operand, such as a residual that nobody else reads (`replaced`), it does: its
lines are in the cache then.

**Whose lines they are.** Of most buffers each thread writes one stretch, the first its beginning
and the last its end (`lucid.codegen.kernels.driver`). A line that another thread had in its cache
it has to get from there, which takes several times as long where the two share no cache: 152 ns and
not 25 on two cores of a Zen 4. So buffers that follow each other in one place have their *middle*
there, and large ones share *columns* of the arena, one at a time in each. Of all that is written,
1% then lies in lines that another thread had last, and 26% where each buffer lies as low as it may
(55 networks, two threads). MobileNetV2 takes 4.2 ms on cores that share no cache, and 4.8 before.

Columns come from the strategy "shared objects", lowest places from "offset calculation by size" of
Pisarchyk and Lee, "Efficient memory management for deep neural net inference", 2020. The latter
comes near the lower bound, and a few other orders reach it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from lucid.codegen.program.addressable import require_addressable
from lucid.codegen.program.program import Program, View

ALIGNMENT = 128
"""Bytes: buffers start on a pair of cache lines, which the adjacent-line prefetcher fetches."""

ROUNDS = 30
"""Orders that a plan tries: none of the models here needs more than 12 to reach the bound."""

LARGE = 4
"""Buffers of at least one part in so many of the largest have columns. Plans of 55 networks take
1.08 times the bound in the mean so, and 1% of what is written lies in other threads' lines; with
columns for all buffers 1.16 times, and nothing does."""

ROOM = 1.34
"""Times the bound that columns may take."""

CACHED = 32 << 20
"""Bytes, of the bound, up to which columns are worth memory: the cache that a complex of cores
shares. Of more the lines are in no cache when they are written again."""


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


def plan(program: Program, threads: int = 1) -> None:
    """Set `offsets` and `arena` of a program, in bytes, which so many threads run."""
    spans, roots = _joined(lifetimes(program), replaced(program))
    sizes = {name: aligned(program.buffers[name].bytes) for name in spans}
    least = lower_bound(program)
    offsets = _in_columns(sizes, spans) if threads > 1 and least <= CACHED else {}
    if not offsets or _end(offsets, sizes) > ROOM * least:
        offsets = _compact(sizes, spans, least)
    program.offsets.update(offsets | {name: offsets[root] for name, root in roots.items()})
    program.arena = _end(offsets, sizes)
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


def _in_columns(sizes: Mapping[str, int], spans: Mapping[str, Lifetime]) -> dict[str, int]:
    """Large buffers in columns, which they take in the order of time or of size, whichever takes
    less memory; the others where these leave room."""
    largest = max(sizes.values(), default=0)
    large = sorted((n for n in sizes if sizes[n] * LARGE >= largest), key=lambda n: spans[n].first)
    small = sorted(sizes.keys() - large, key=lambda n: (-sizes[n], spans[n].first))
    orders = large, sorted(large, key=lambda n: -sizes[n])
    found = [_placed(small, sizes, spans, _columns(order, sizes, spans)) for order in orders]
    return min(found, key=lambda offsets: _end(offsets, sizes))


def _columns(
    order: Sequence[str], sizes: Mapping[str, int], spans: Mapping[str, Lifetime]
) -> dict[str, int]:
    """Offsets: each buffer in this order in the middle of a column that is free during its life,
    of the one that it widens least, or of a new one."""
    shared: list[list[str]] = []
    for name in order:
        free = [c for c in shared if not any(spans[o].overlaps(spans[name]) for o in c)]
        widths = [max(sizes[other] for other in column) for column in free]
        costs = [(max(0, sizes[name] - width), width) for width in widths]
        if free:
            free[costs.index(min(costs))].append(name)
        else:
            shared.append([name])
    offsets: dict[str, int] = {}
    start = 0
    for column in shared:
        width = max(sizes[name] for name in column)
        offsets |= {name: _middle(start, width, sizes[name]) for name in column}
        start += width
    return offsets


def _middle(start: int, width: int, size: int) -> int:
    """Where so many bytes lie in the middle of others."""
    return start + (width - size) // 2 // ALIGNMENT * ALIGNMENT


def _compact(sizes: Mapping[str, int], spans: Mapping[str, Lifetime], least: int) -> dict[str, int]:
    """In little more than the bound, `least`. While something lies beyond it, what lies highest is
    placed before all else the next time: for one thread, ResNeSt-50 goes from 1.2 times the bound
    to the bound itself in the second round."""
    order = sorted(sizes, key=lambda name: (-sizes[name], spans[name].first))
    best = offsets = _placed(order, sizes, spans, {})
    for _ in range(ROUNDS - 1):
        if _end(best, sizes) <= least:
            break
        highest = max(order, key=lambda name: offsets[name] + sizes[name])
        if highest == order[0]:
            break
        order.remove(highest)
        order.insert(0, highest)
        offsets = _placed(order, sizes, spans, {})
        best = min(best, offsets, key=lambda found: _end(found, sizes))
    return best


def _placed(
    order: Sequence[str],
    sizes: Mapping[str, int],
    spans: Mapping[str, Lifetime],
    fixed: Mapping[str, int],
) -> dict[str, int]:
    """Offsets, those that are `fixed` among them: each buffer in this order in the middle of an
    earlier one, where that takes no more memory, or else at the lowest place that is free during
    its life."""
    offsets = dict(fixed)
    end = _end(offsets, sizes)
    for name in order:
        size, span = sizes[name], spans[name]
        alive = {other for other in offsets if spans[other].overlaps(span)}
        taken = _joint((offsets[other], offsets[other] + sizes[other]) for other in alive)
        middles = (_middle(offsets[o], sizes[o], size) for o in offsets if o not in alive)
        fitting = (m for m in middles if 0 <= m <= end - size and _is_free(taken, m, m + size))
        offsets[name] = next(fitting, _lowest(taken, size))
        end = max(end, offsets[name] + size)
    return offsets


def _joint(stretches: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """All that lies in any of these, as stretches in order with gaps between."""
    found: list[tuple[int, int]] = []
    for start, stop in sorted(s for s in stretches if s[0] < s[1]):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(stop, found[-1][1])
        else:
            found.append((start, stop))
    return found


def _is_free(taken: Sequence[tuple[int, int]], start: int, stop: int) -> bool:
    """Whether nothing of what is taken, in order, lies there."""
    after = bisect_right(taken, (start, start))
    return (after == 0 or taken[after - 1][1] <= start) and (
        after == len(taken) or stop <= taken[after][0]
    )


def _lowest(taken: Sequence[tuple[int, int]], size: int) -> int:
    """The lowest place for so many bytes beside what is taken, in order."""
    offset = 0
    for start, stop in taken:
        if offset + size <= start:
            break
        offset = stop
    return offset


def _end(offsets: Mapping[str, int], sizes: Mapping[str, int]) -> int:
    return max((offset + sizes[name] for name, offset in offsets.items()), default=0)


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

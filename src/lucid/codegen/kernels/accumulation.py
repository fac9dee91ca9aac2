"""How a tile's products are added up: the loops over k, unrolled, in chains and segments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.values import Int, Pointer, Vector

CHAIN = 256
"""Steps of k that are added up in one chain of multiply-adds. The rounding error of a chain grows
with the root of its length: whole chains of 4608 steps cost ResNeSt-50's logits 1.5e-6, chains of
256, whose sums are added in turn, a third of that; putting a tile by costs 1% of its chain."""
UNROLL = 4
"""Steps of k in the loop body: constant offsets, the loop's own cost spread over 4 x 24 FMAs."""


Step = Callable[[list[Vector], Int, int], list[Vector]]
"""From a tile, a step of k, and how many steps further (a constant, so that addresses need no
instructions), to the tile with that step's products added."""


def steps(
    k: Kernel,
    tile: list[Vector],
    start: Int,
    stop: Int,
    step: Step,
    each_round: Callable[[Int], None],
    unroll: int = UNROLL,
) -> list[Vector]:
    """The tile after steps `start` to `stop`, `unroll` of them in a round."""
    whole = start + (stop - start) // unroll * unroll
    with k.loop(start, whole, unroll, carry=tile) as loop:
        each_round(loop.index)
        tile = loop.carried
        for u in range(unroll):
            tile = step(tile, loop.index, u)
        loop.carry(tile)
    with k.loop(whole, stop, carry=loop.results) as rest:
        rest.carry(step(rest.carried, rest.index, 0))
    return rest.results


def put_by(k: Kernel, tile: list[Vector], sums: Pointer, first: Any) -> list[Vector]:
    """Add the tile to the sums of earlier chains (there are none the `first` time), and begin a new
    chain at zero."""
    align = k.aligned
    for i, value in enumerate(tile):
        place = sums + i * k.vector
        before = k.load(place, align=align)
        k.store(k.pick(first, k.zero(), before) + value, place, align=align)
    return [k.zero() for _ in tile]


def total(k: Kernel, tile: list[Vector], sums: Pointer) -> list[Vector]:
    """The last chain's tile plus the sums of those before it."""
    align = k.aligned
    return [k.load(sums + i * k.vector, align=align) + v for i, v in enumerate(tile)]


def accumulate(
    k: Kernel,
    depth: Int,
    tile: list[Vector],
    sums: Pointer,
    step: Step,
    each_round: Callable[[Int], None] = lambda index: None,
) -> list[Vector]:
    """The tile after all `depth` steps (at least one), added up in chains of CHAIN of them.

    `sums`: room for the tile, where the sums of earlier chains wait. `each_round`: what to do
    before each UNROLL steps.
    """
    with k.loop(0, depth, CHAIN, carry=tile, never_empty=True) as chain:
        stop = (chain.index + CHAIN).minimum(depth)
        tile = steps(k, chain.carried, chain.index, stop, step, each_round)

        def finished() -> list[Vector]:
            return k.merge(depth > CHAIN, lambda: total(k, tile, sums), lambda: tile)

        def going_on() -> list[Vector]:
            return put_by(k, tile, sums, chain.index.equals(0))

        chain.carry(k.merge(stop.equals(depth), finished, going_on))
    return chain.results


def over_segments(
    k: Kernel,
    segments: tuple[Int, Int],
    tile: list[Vector],
    body: Callable[[Int, Int, list[Vector]], list[Vector]],
) -> list[Vector]:
    """The tile after `body(h, w, tile)` for each of a window's segments, line by line."""
    high, wide = segments
    with k.loop(0, high, carry=tile, never_empty=True) as lines:
        with k.loop(0, wide, carry=lines.carried, never_empty=True) as line:
            line.carry(body(lines.index, line.index, line.carried))
        lines.carry(line.results)
    return lines.results


def accumulate_segments(
    k: Kernel,
    segments: tuple[Int, Int],
    depth: Int,
    chain: Int,
    tile: list[Vector],
    sums: Pointer,
    step: Callable[[Int, Int], Step],
    each_round: Callable[[Int], None],
) -> list[Vector]:
    """`accumulate` over a window of `segments` (lines of them, and how many in each) of `depth`
    steps: `step(h, w)` is the step of one of them. `chain` segments are one chain, or each CHAIN
    steps of a longer one."""
    wide, count = segments[1], segments[0] * segments[1]

    def after(before: Int) -> Callable[[Int], None]:
        return lambda index: each_round(before + index)

    def put_by_where(tile: list[Vector], condition: Any, first: Any) -> list[Vector]:
        return k.merge(condition, lambda: put_by(k, tile, sums, first), lambda: tile)

    def segment(h: Int, w: Int, tile: list[Vector]) -> list[Vector]:
        number = h * wide + w
        before = number * depth
        one = step(h, w)
        with k.loop(0, depth, CHAIN, carry=tile, never_empty=True) as part:
            stop = (part.index + CHAIN).minimum(depth)
            ended = stop.equals(depth)
            full = k.either_of(stop < depth, ((number + 1) % chain).equals(0))
            going_on = k.both(full, k.negated(k.both(ended, (number + 1).equals(count))))
            first = k.both(number < chain, part.index.equals(0))
            tile = steps(k, part.carried, part.index, stop, one, after(before))
            part.carry(put_by_where(tile, going_on, first))
        return part.results

    tile = over_segments(k, segments, tile, segment)
    several = k.either_of(depth > CHAIN, count > chain)
    return k.merge(several, lambda: total(k, tile, sums), lambda: tile)


SHORT = 32
"""Steps up to which a segment is unrolled: windows of 3x3x3, 224x224 with stride 2 to 32 channels,
take 0.17 ms so, and 0.22 in loops of nine steps."""


def accumulate_short(
    k: Kernel,
    segments: tuple[Int, Int],
    depth: int,
    tile: list[Vector],
    step: Callable[[Int, Int], Step],
) -> list[Vector]:
    """`accumulate_segments` where all segments, `depth` steps each, are one chain."""

    def segment(h: Int, w: Int, tile: list[Vector]) -> list[Vector]:
        one = step(h, w)
        for number in range(depth):
            tile = one(tile, k.int(0), number)
        return tile

    return over_segments(k, segments, tile, segment)

"""The layered order of one scope: which row each thing stands in, and where in the row.

Slots are numbered: items first, then the ports where values come in, then those where they go out,
then lanes, which lead a value past the rows between its producer and a later reader. Sizes play no
part, so an order is made once for all scopes of the same structure (Sugiyama, Tagawa and Toda,
"Methods for visual understanding of hierarchical system structures", 1981; one lane a value).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

SWEEPS = 6

Wiring = tuple[tuple[int, tuple[int, ...]], ...]
"""For each value: the slot it comes from, and the slots that read it."""


@dataclass(frozen=True)
class Order:
    """`layers`: slots from left to right, row by row. `links`: (wire, upper slot, lower slot)
    between rows that follow each other. Slots from `lanes` on are lanes; before them stand `outs`
    ports where values go out, and before those `ins` where they come in."""

    ins: int
    outs: int
    layers: tuple[tuple[int, ...], ...]
    links: tuple[tuple[int, int, int], ...]
    lanes: int


@lru_cache(maxsize=4096)
def order(items: int, ins: int, outs: int, wires: Wiring) -> Order:
    """The order of a scope. The wires between its items have no cycle."""
    lanes = items + ins + outs
    rank = _ranks(items, ins, outs, wires)
    layers: list[list[int]] = [[] for _ in range(max(rank, default=-1) + 1)]
    for slot, row in enumerate(rank):
        layers[row].append(slot)
    links = _links(rank, layers, wires)
    pairs = [(upper, lower) for _, upper, lower in links]
    return Order(ins, outs, tuple(map(tuple, _untangled(layers, pairs))), tuple(links), lanes)


def _ranks(items: int, ins: int, outs: int, wires: Wiring) -> list[int]:
    """The row of each slot: below all it reads; what reads nothing, just above its first reader."""
    readers: list[list[int]] = [[] for _ in range(items)]
    missing = [0] * items
    base = 1 if ins else 0
    rank = [base] * items + [0] * ins
    for source, targets in wires:
        if source < items:
            for target in targets:
                if target < items:
                    readers[source].append(target)
                    missing[target] += 1
    ready = [i for i in range(items) if not missing[i]]
    fed = {target for source, targets in wires if source >= items for target in targets}
    free = [i for i in ready if i not in fed]
    for item in ready:  # grows as it goes: a topological order
        for reader in readers[item]:
            rank[reader] = max(rank[reader], rank[item] + 1)
            missing[reader] -= 1
            if not missing[reader]:
                ready.append(reader)
    for item in free:
        if readers[item]:
            rank[item] = min(rank[r] for r in readers[item]) - 1
    return rank + [max(rank, default=-1) + 1] * outs


def _links(
    rank: Sequence[int], layers: list[list[int]], wires: Wiring
) -> list[tuple[int, int, int]]:
    """The links of all wires; adds the lanes they need to the layers."""
    links, fresh = [], len(rank)
    for number, (source, targets) in enumerate(wires):
        above = source
        for row in range(rank[source] + 1, max(rank[t] for t in targets) + 1):
            links += [(number, above, t) for t in targets if rank[t] == row]
            if any(rank[t] > row for t in targets):
                layers[row].append(fresh)
                links.append((number, above, fresh))
                above, fresh = fresh, fresh + 1
    return links


def _untangled(layers: list[list[int]], pairs: list[tuple[int, int]]) -> list[list[int]]:
    """The layers, each sorted so that few links cross: barycentres, down and up, the best kept."""
    up: dict[int, list[int]] = {}
    down: dict[int, list[int]] = {}
    for upper, lower in pairs:
        up.setdefault(lower, []).append(upper)
        down.setdefault(upper, []).append(lower)
    best, fewest = layers, _crossings(layers, down)
    current = layers
    for sweep in range(SWEEPS):
        if not fewest:
            break
        near = up if sweep % 2 == 0 else down
        current = [list(layer) for layer in current]
        rows = range(1, len(current)) if near is up else range(len(current) - 2, -1, -1)
        for row in rows:
            other = current[row - 1 if near is up else row + 1]
            place = {slot: i for i, slot in enumerate(other)}
            own = {slot: i for i, slot in enumerate(current[row])}
            current[row].sort(key=lambda s: _mean([place[n] for n in near.get(s, ())], own[s]))
        count = _crossings(current, down)
        if count < fewest:
            best, fewest = current, count
    return best


def _mean(places: list[int], otherwise: float) -> float:
    return sum(places) / len(places) if places else otherwise


def _crossings(layers: list[list[int]], down: dict[int, list[int]]) -> int:
    """How many pairs of links cross."""
    total = 0
    for upper, lower in pairwise(layers):
        place = {slot: i for i, slot in enumerate(lower)}
        seen: list[int] = []
        for slot in upper:
            ends = sorted(place[t] for t in down.get(slot, ()))
            total += sum(1 for end in ends for other in seen if other > end)
            seen += ends
    return total

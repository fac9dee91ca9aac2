"""The memory of a program: the place and lifetime of every buffer in its plan, and what else it
needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lucid.codegen.program.plan import Lifetime, aligned, lifetimes, lower_bound
from lucid.codegen.program.program import Program


@dataclass(frozen=True)
class Place:
    """A buffer of the arena: bytes, where they begin, and the phases `first` to `last` in which it
    holds something. `origin`: the module that writes it first."""

    name: str
    origin: str
    bytes: int
    offset: int
    first: int
    last: int


@dataclass(frozen=True)
class Phase:
    """What runs between two barriers, by module path, and the bytes that are alive meanwhile."""

    origins: tuple[str, ...]
    alive: int


@dataclass(frozen=True)
class MemoryMap:
    """Bytes of a program. `peak`: the arena; `bound`: what no plan can do without; `scratch`: of
    one thread, of which there are `threads`; `users`: the arrays that go in and come out."""

    model: str
    batch: int
    threads: int
    peak: int
    bound: int
    weights: int
    scratch: int
    users: int
    places: tuple[Place, ...]
    phases: tuple[Phase, ...]

    @property
    def total(self) -> int:
        """All that is allocated for one call at a time; the user's arrays are theirs."""
        return self.peak + self.weights + self.threads * self.scratch

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self) | {"total": self.total}


def memory_map(program: Program, threads: int = 1) -> MemoryMap:
    """The memory of a program that a team of `threads` runs."""
    spans = lifetimes(program)
    writers = _writers(program)
    sizes = {name: program.buffers[name].bytes for name in spans}
    places = [
        Place(
            name,
            writers.get(name, ""),
            sizes[name],
            program.offsets[name],
            span.first,
            span.last,
        )
        for name, span in spans.items()
    ]
    users = [b for b in program.buffers.values() if b.kind != "arena"]
    return MemoryMap(
        model=program.name,
        batch=program.batch,
        threads=threads,
        peak=program.arena,
        bound=lower_bound(program),
        weights=sum(p.bytes for p in program.weights.values()),
        scratch=program.scratch,
        users=sum(b.bytes for b in users),
        places=tuple(sorted(places, key=lambda p: (p.first, p.offset))),
        phases=tuple(
            Phase(
                tuple(dict.fromkeys(c.origin for c in calls if c.tasks)),
                _alive(program, spans, number),
            )
            for number, calls in enumerate(program.phases)
        ),
    )


def _writers(program: Program) -> dict[str, str]:
    """The origin of the call that writes each buffer first."""
    found: dict[str, str] = {}
    for call in program.calls():
        for view in call.writes:
            found.setdefault(view.buffer, call.origin)
    return found


def _alive(program: Program, spans: dict[str, Lifetime], phase: int) -> int:
    living = [n for n, s in spans.items() if s.first <= phase <= s.last]
    return sum(aligned(program.buffers[n].bytes) for n in living)


PLACE_COLUMNS = ("buffer", "layer", "KiB", "at KiB", "phases")


def place_rows(memory: MemoryMap) -> list[tuple[str, ...]]:
    """Every buffer, in the order in which they come to life."""
    return [
        (
            p.name,
            p.origin,
            f"{p.bytes / 1024:.1f}",
            f"{p.offset / 1024:.1f}",
            f"{p.first}-{p.last}",
        )
        for p in memory.places
    ]


def summary(memory: MemoryMap) -> str:
    """Totals, a line each."""
    lines: Sequence[tuple[str, int, str]] = (
        ("arena", memory.peak, f"{len(memory.places)} buffers in {len(memory.phases)} phases"),
        ("lower bound", memory.bound, _over(memory)),
        ("weights", memory.weights, "packed, shared by all calls and sizes"),
        ("scratch", memory.threads * memory.scratch, _threads(memory)),
        ("total", memory.total, "for one call at a time"),
        ("input and output", memory.users, "the caller's arrays"),
    )
    head = f"{memory.model}, batch {memory.batch}, {memory.threads} thread(s)"
    return "\n".join([head, *(f"{n:<17}{_mib(b):>12}  {what}" for n, b, what in lines)])


def _threads(memory: MemoryMap) -> str:
    return f"{memory.threads} x {_mib(memory.scratch).strip()}"


def _over(memory: MemoryMap) -> str:
    if not memory.bound:
        return "nothing to plan"
    over = memory.peak / memory.bound - 1
    return f"the plan is {over:.1%} above it" if over else "which the plan reaches"


def _mib(count: int) -> str:
    return f"{count / 2**20:.2f} MiB"

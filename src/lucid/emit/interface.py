"""The C sources of a model: templates, filled with its names, shapes, and levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import gcd
from pathlib import Path
from string import Template

from lucid.codegen.kernels import driver_tables as driver
from lucid.codegen.language.dtypes import dtype
from lucid.codegen.target import Target
from lucid.emit import levels, weights
from lucid.emit.linking import architecture
from lucid.emit.names import comment, identifier, literal
from lucid.ir.graph import Value
from lucid.ir.types import Dim
from lucid.runtime import pace
from lucid.runtime.plans import Plan
from lucid.runtime.signature import Signature
from lucid.runtime.team import CALL_SPINS, GAP, IDLE_SPINS

TEMPLATES = Path(__file__).parent / "templates"
SOURCE = (
    "tables",
    "weights",
    "pace",
    "memory",
    "threads",
    "levels",
    "processors",
    "create",
    "sizes",
    "run",
    "told",
)
"""The parts of the source in C, in order."""
MOST = 1024
"""Threads and calls that a model may be asked for."""
LONGEST = 400
"""Characters of a list in a message."""


@dataclass(frozen=True)
class Level:
    """What was made for one target. `prefix`: of its symbols, `plans`: that of its tables."""

    target: Target
    prefix: str
    plans: str
    driver: Mapping[str, str]


def filled(template: str, values: Mapping[str, object]) -> str:
    """A template with its placeholders replaced."""
    return Template((TEMPLATES / template).read_text()).substitute(values)


def source(values: Mapping[str, object]) -> str:
    """The source in C, of its parts."""
    return "\n".join(filled(f"source/{part}.c", values) for part in SOURCE)


def values_of(
    name: str,
    title: str,
    signature: Signature,
    sizes: Sequence[Sizes],
    made: Sequence[Level],
    identity: str,
    embedded: bool,
) -> dict[str, object]:
    """What the placeholders of all templates stand for. `made`: levels, the best first. `identity`:
    the symbol of what tells the tables from others."""
    graph = sizes[0].plan.graph
    names = [spec.name for side in signature for spec in side]
    families = _families(sizes)
    shapes = "; ".join(dict.fromkeys(map(_told, families)))
    return {
        "name": name,
        "NAME": name.upper(),
        "title": comment(title),
        "signature": comment(str(signature)),
        "inputs": len(graph.inputs),
        "outputs": len(graph.outputs),
        "max_rank": max([1, *(v.type.rank for v in sizes[0].values)]),
        "plans": len(sizes),
        "level_count": len(made),
        "levels": ", ".join(level.target.name for level in made),
        "weights_symbol": f"{name}_weights",
        "architecture": architecture(made[0].target),
        "level_declarations": "\n\n".join(map(_declared, made)),
        "level_rows": "\n".join(map(_level_row, made)),
        "shapes": "\n\n".join(own.arrays(number) for number, own in enumerate(sizes)),
        "size_rows": "\n".join(_size_rows(sizes, families)),
        "family_count": len(families),
        "family_sums": "\n".join(map(_family_sums, range(len(families)), families)),
        "family_rows": "\n".join(map(_family_row, range(len(families)), families)),
        "sizes": literal(shapes if len(shapes) < LONGEST else shapes[:LONGEST] + "..."),
        "tensor_rows": "\n".join(_tensor_rows(sizes[0], names, name.upper())),
        "words": "\n".join(f"    {word} = {number}," for word, number in _words(made[0].target)),
        "magic": literal(weights.MAGIC.decode()),
        "version": weights.VERSION,
        "identity": identity,
        "embedded": int(embedded),
        "weights_null": " (the library has them embedded)" if embedded else "; it may not be null",
        "most": MOST,
    }


# -- levels ---------------------------------------------------------------------------------------


def _declared(level: Level) -> str:
    """The declarations of a level's symbols, and what it needs."""
    run, submit, worker = (level.driver[f"lucid_{part}"] for part in ("run", "submit", "worker"))
    rows = ", ".join(
        f"{{{leaf:#x}, {sub}, {word}, {bit}}}" for leaf, sub, word, bit in _needs(level)
    )
    return (
        f"extern HIDDEN const struct plan {level.plans}[PLANS];\n"
        f"extern HIDDEN int64_t {run}(int64_t *call);\n"
        f"extern HIDDEN int64_t {submit}(int64_t *team, int64_t *call);\n"
        f"extern HIDDEN void {worker}(int64_t *team, int64_t thread);\n"
        f"static const struct feature needs_{identifier(level.target.name)}[] = {{{rows}}};"
    )


def _needs(level: Level) -> list[tuple[int, int, int, int]]:
    return levels.needs(level.target) or [(0, 0, 0, 0)]


def _level_row(level: Level) -> str:
    code = ", ".join(level.driver[f"lucid_{part}"] for part in ("run", "submit", "worker"))
    count = len(levels.needs(level.target))
    return (
        f"    {{{literal(level.target.name)}, {level.plans}, {code},\n"
        f"     needs_{identifier(level.target.name)}, {count}, {levels.state(level.target):#x}}},"
    )


def _words(target: Target) -> list[tuple[str, int]]:
    """The names and places of words in the tables of the driver, and what it is told."""
    names = [
        "CALL_VERSION",
        "CALL_STEPS",
        "CALL_STEP_COUNT",
        "CALL_PHASES",
        "CALL_BUFFERS",
        "CALL_SCRATCH",
        "CALL_SCRATCH_BYTES",
        "CALL_WORDS",
        "TEAM_SERIAL",
        "TEAM_THREADS",
        "TEAM_SYSCALL",
        "TEAM_CALL_SPINS",
        "TEAM_IDLE_SPINS",
        "TEAM_IN_VAIN",
        "TEAM_TICKETS",
        "FUTEX_WAKE_PRIVATE",
    ]
    return [
        *((name, getattr(driver, name)) for name in names),
        ("TICKET_WORDS", driver.LINES),
        ("DRIVER_VERSION", driver.VERSION),
        ("CALL_SPINS", CALL_SPINS),
        ("IDLE_SPINS", IDLE_SPINS),
        ("GAP", round(GAP * 1e9)),
        *pace_words(),
        ("FUTEX", target.system_calls.futex),
    ]


def pace_words() -> list[tuple[str, int]]:
    """The numbers of the pace: times in nanoseconds, and CLEARLY in percent."""
    return [
        *((name, round(getattr(pace, name) * 1e9)) for name in ("SOON", "SHORTEST", "ENOUGH")),
        ("CLEARLY", round(pace.CLEARLY * 100)),
        ("DOUBLINGS", pace.DOUBLINGS),
        ("WELL", pace.WELL),
        ("FIRST", pace.FIRST),
        ("OFTEN", pace.OFTEN),
        ("RARELY", pace.RARELY),
        ("LATELY", pace.LATELY),
    ]


# -- sizes ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """The sizes that a plan is for. `apart`: whether rows of its batch are independent, so that a
    larger one can be put together of such."""

    plan: Plan
    apart: bool

    @property
    def batch(self) -> int:
        """The rows of the plan; of one that serves no batch but its own, a single one."""
        return self.plan.batch if self.apart else 1

    @property
    def values(self) -> list[Value]:
        """Inputs, then outputs."""
        return [*self.plan.graph.inputs, *self.plan.graph.outputs]

    def rows(self, value: Value) -> int:
        """How many rows an input or output has for each of the batch: 0 where it has none, or where
        the plan serves no batch but its own."""
        first = value.type.shape[0] if value.type.rank else 0
        return first.coefficient if isinstance(first, Dim) and self.apart else 0

    def arrays(self, number: int) -> str:
        """C's arrays of the sizes of all axes, and of the rows."""
        sizes = [size for v in self.values for size in v.type.concrete(self.plan.batch)]
        flat = ", ".join(map(str, sizes or [0]))
        rows = ", ".join(str(self.rows(value)) for value in self.values)
        return (
            f"static const int64_t shapes_{number}[] = {{{flat}}};\n"
            f"static const int64_t batches_{number}[] = {{{rows}}};"
        )

    def __str__(self) -> str:
        """The shapes of the inputs, such as `x[Nx3x224x224]`: an N where other batches will do."""
        kinds = [(value.name, value.type) for value in self.plan.graph.inputs]
        shapes = [(n, t.shape if self.apart else t.concrete(self.plan.batch)) for n, t in kinds]
        return ", ".join(f"{name}[{'x'.join(map(str, shape))}]" for name, shape in shapes)


Family = Sequence[Sizes]
"""Those of one graph, whose plans put larger batches together; or of one plan that stands alone."""


def _families(sizes: Sequence[Sizes]) -> list[Family]:
    found: dict[object, list[Sizes]] = {}
    for own in sizes:
        found.setdefault(own.plan.graph if own.apart else own, []).append(own)
    return list(found.values())


def least_sums(batches: Sequence[int]) -> tuple[int, list[int]]:
    """Which numbers are sums of batches: the largest number that divides all of these, and in units
    of it, for each remainder by the smallest batch, the least sum that leaves it. A number is a sum
    if it is no less than that of its remainder."""
    unit = gcd(*batches)
    smallest, *others = sorted({batch // unit for batch in batches})
    found: dict[int, int] = {}
    sums = [0]
    while len(found) < smallest:
        least = heappop(sums)
        if least % smallest not in found:
            found[least % smallest] = least
            for other in others:
                heappush(sums, least + other)
    return unit, [found[remainder] for remainder in range(smallest)]


def _told(family: Family) -> str:
    """What a family takes, for people."""
    batches = sorted({own.batch for own in family})
    made = f" (N made up of {', '.join(map(str, batches))})" if batches[0] > 1 else ""
    return f"{family[0]}{made}"


def _family_sums(number: int, family: Family) -> str:
    _, least = least_sums([own.batch for own in family])
    return f"static const int64_t sums_{number}[] = {{{', '.join(map(str, least))}}};"


def _family_row(number: int, family: Family) -> str:
    unit, least = least_sums([own.batch for own in family])
    return f"    {{{unit}, {len(least)}, sums_{number}}},"


def _size_rows(sizes: Sequence[Sizes], families: Sequence[Family]) -> list[str]:
    """A row for each plan: its sizes, its batch, and which family it is of."""
    numbers = {id(own): number for number, family in enumerate(families) for own in family}
    return [
        f"    {{shapes_{number}, batches_{number}, {own.batch}, {numbers[id(own)]}}},"
        for number, own in enumerate(sizes)
    ]


def _tensor_rows(sizes: Sizes, names: Sequence[str], prefix: str) -> list[str]:
    """A row for each input and output: its name and how it lies in memory."""
    rows, before = [], 0
    for value, name in zip(sizes.values, names, strict=True):
        kind, rank = dtype(value.type.dtype), value.type.rank
        number = f"{prefix}_{kind.numbers.upper()}, {rank}, {kind.bytes}"
        place = f"shapes_0 + {before}, {sizes.rows(value)}"
        rows.append(f"    {{{literal(name)}, {number}, {place}}},")
        before += rank
    return rows

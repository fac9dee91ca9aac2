"""The words of the gate, pools and tickets, which `admission.py` changes and the runtime makes."""

from __future__ import annotations

from lucid.codegen.kernels.driver_tables import SET_WORDS
from lucid.codegen.language.names import KernelName

EXPORTS = ("lucid_admit", "lucid_leave", "lucid_beside")
ADMISSION = KernelName("admission()", EXPORTS)
"""The kernel by name, under which it is found where it is in memory."""

GATE_WORDS = 16
(
    GATE_MUTEX,
    GATE_PROCESSORS,
    GATE_HELD,
    GATE_BESIDE,
    GATE_WAITING,
    GATE_FIRST,
    GATE_LAST,
    GATE_SYSCALL,
    GATE_RUNNING,
    GATE_CROWDED,
) = range(10)
"""`PROCESSORS`: how many there are to hold; `HELD`: so many are; `BESIDE`: calls that wait for
nobody; `WAITING`: tickets in the queue, from `FIRST` to `LAST` (0 where there is none); `RUNNING`:
tickets that were admitted and have not left; `CROWDED`: the last so many that came were, with those
that they met, as many as processors or more."""
CROWD = 8
"""Callers that met others in a row, from which on nobody has a team: two that call again and again
would else take turns on it, each of which costs what threads wait for each other. Requests that
come at random half of the time meet others, and so many in a row do so hardly ever."""

POOL_TEAMS = 64
"""Teams that a pool has room for."""
POOL_COUNT, POOL_MISSED, POOL_FIRST = range(3)
POOL_WORDS = POOL_FIRST + POOL_TEAMS
"""`COUNT`: the free teams of a size, whose numbers are the first of the rest; `MISSED`: not 0 where
there were processors for a team, and no team."""

(
    TICKET_HOLDS,
    TICKET_TEAM,
    TICKET_POOL,
    TICKET_WANTS,
    TICKET_POLICY,
    TICKET_ADMITTED,
    TICKET_NEXT,
    TICKET_THREAD,
    TICKET_DRAWN,
    TICKET_CPU,
) = range(10)
TICKET_AFFINITY, TICKET_PLACE = 16, 16 + SET_WORDS
TICKET_WORDS = TICKET_PLACE + SET_WORDS
"""`HOLDS`: processors held, 0 outside a call, and `IS_BESIDE`; `TEAM`: the number of the team that
it has, or `ALONE`; `WANTS`: processors; `ADMITTED`: 1, or 0 while it is in the queue; `THREAD`: the
system's number of who waits, `AFFINITY` the set of its processors, and `DRAWN` whether who admitted
it has bound it to its own; `CPU`, `PLACE`: of who leaves, the processor that it is on, and a set
for that alone, empty otherwise."""
IS_BESIDE, ALONE = -1, -1

ADAPTIVE, BLOCK, SINGLE_THREAD = range(3)
"""What becomes of a call while others run. `ADAPTIVE`: it runs alone on its thread, or waits where
all processors are held. `BLOCK`: it waits for a team and its processors. `SINGLE_THREAD`: it runs
alone on its thread at once."""

FREE, TAKEN, WAITED_FOR = range(3)
"""What the mutex is."""

"""Seeded faults of the admission of callers, which its own tests look for: nothing that is computed
depends on who runs when."""

from __future__ import annotations

from .mutant import K, Mutant

EMITTER = f"{K}.admission:_AdmissionEmitter"


def _admission(name: str, method: str, old: str, new: str) -> Mutant:
    where = f"{EMITTER}.{method}"
    return Mutant(name, where, old, new, ("admission",), "tests/runtime/test_admission.py")


ADMISSION = [
    _admission(
        "who comes overtakes who waits",
        "admit",
        "k.load_int(waiting).equals(0)",
        "k.load_int(waiting) >= 0",
    ),
    _admission(
        "who comes looks at the gate without its mutex",
        "admit",
        "self._lock(k)",
        "pass",
    ),
    _admission(
        "the queue forgets all but the last",
        "_enqueue",
        "k.load_int(gate.words(GATE_WAITING)).equals(0)",
        "k.load_int(gate.words(GATE_WAITING)) >= 0",
    ),
    _admission(
        "who waits is not counted",
        "_enqueue",
        "self._change(k, gate.words(GATE_WAITING), 1)",
        "pass",
    ),
    _admission(
        "who leaves admits nobody",
        "_admit_others",
        "Int(k.builder, state[0]) > 0",
        "Int(k.builder, state[0]) > (1 << 40)",
    ),
    _admission(
        "who leaves admits one alone",
        "_admit_others",
        "k.select(granted.equals(1), behind, 0)",
        "k.int(0)",
    ),
    _admission(
        "who leaves admits without waking",
        "_admit_others",
        "self._futex(k, admitted, FUTEX_WAKE_PRIVATE, EVERYONE)",
        "pass",
    ),
    _admission(
        "who is admitted holds no processor",
        "_hold",
        "self._change(k, gate.words(GATE_HELD), processors)",
        "pass",
    ),
    _admission(
        "who leaves keeps its processors",
        "leave",
        "self._change(k, gate.words(GATE_HELD), 0 - holds)",
        "pass",
    ),
    _admission(
        "who leaves twice gives back twice",
        "leave",
        "k.store_int(0, ticket.words(TICKET_HOLDS))",
        "pass",
    ),
    _admission(
        "who leaves keeps its team",
        "_give_back",
        "k.store_int(count + 1, pool.words(POOL_COUNT))",
        "pass",
    ),
    _admission(
        "a team is given out twice",
        "grant",
        "k.store_int(count, pool.words(POOL_COUNT))",
        "pass",
    ),
    _admission(
        "a team is given though others wait",
        "grant",
        "free - beside >= wants + waiting",
        "free - beside >= wants",
    ),
    _admission(
        "a team is given beside calls that wait for nobody",
        "grant",
        "free - beside >= wants + waiting",
        "free >= wants + waiting",
    ),
    _admission(
        "a team is given in a crowd",
        "grant",
        "k.load_int(gate.words(GATE_CROWDED)) < CROWD",
        "k.load_int(gate.words(GATE_CROWDED)) >= 0",
    ),
    _admission(
        "more threads than processors wait for ever",
        "grant",
        ".minimum(processors)",
        "",
    ),
    _admission(
        "who waits for nobody stays beside",
        "leave",
        "self._add_beside(k, -1)",
        "pass",
    ),
    _admission(
        "a missing team is told nobody",
        "grant",
        "k.store_int(1, pool.words(POOL_MISSED))",
        "pass",
    ),
    _admission(
        "who was bound to a processor stays so",
        "admit",
        "k.load_int(ticket.words(TICKET_DRAWN)).equals(1)",
        "k.load_int(ticket.words(TICKET_DRAWN)).equals(2)",
    ),
    _admission(
        "who waits is bound to where it may not run",
        "_draw",
        'both_of(k, allowed, bit).compare("!=", 0)',
        'both_of(k, allowed, bit).compare(">=", 0)',
    ),
]

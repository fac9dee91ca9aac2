"""Seeded faults of the driver: of phases, tickets, the count, sleeping and waking.

Those that matter for microseconds only, or on machines with a weaker order of memory than this one,
are looked for by the driver's own tests, which decide where each thread is; the fuzzer finds the
others.
"""

from __future__ import annotations

from .mutant import C, K, Mutant

TESTS = "tests/codegen/kernels/test_kernels_driver.py"
BINDING_TESTS = "tests/runtime/test_binding.py"
EMITTER = f"{K}.driver:_DriverEmitter"


def _driver(name: str, method: str, old: str, new: str, tests: str = TESTS) -> Mutant:
    return Mutant(name, f"{EMITTER}.{method}", old, new, ("driver",), tests)


DRIVER = [
    Mutant(
        "the first barrier is missing",
        f"{C}.program.tables:_phases",
        "rows, first = [], 0",
        "rows, first = [], 0; given[:2] = [(given[0][0] + given[1][0], given[0][1])]",
        tests=BINDING_TESTS,
    ),
    Mutant(
        "no barriers at all",
        f"{C}.program.tables:_phases",
        "rows, first = [], 0",
        "rows, first = [], 0; given = [(sum(phases, []), max(threads))]",
        tests=BINDING_TESTS,
    ),
    _driver(
        "denormals are numbers",
        "_flush_to_zero",
        "ir.Constant(I32, FLUSH_TO_ZERO_X86)",
        "ir.Constant(I32, 0)",
        tests="",
    ),
    _driver(
        "threads share their scratch",
        "_work",
        ".bytes(thread * stride)",
        ".bytes(thread * 0)",
        tests="",
    ),
    _driver(
        "a share's last task is left out, and counted",
        "_portion",
        "begin + first, begin + last, thread)",
        "begin + first, begin + last - k.select(left.equals(1), 1, 0), thread)",
        tests="",
    ),
    _driver(
        "tasks that threads cannot share evenly are left out",
        "_share",
        "k.select(owner < more, each + 1, each)",
        "each",
    ),
    _driver(
        "portions are of equal size, as they are counted",
        "_portion",
        "size - Int(b, b.lshr(size.raw, place.raw))",
        "size * place // count",
    ),
    _driver(
        "the count is subtracted from without acquire",
        "take_part",
        '"acq_rel"',
        '"release"',
    ),
    _driver(
        "the count is subtracted from without release",
        "take_part",
        '"acq_rel"',
        '"acquire"',
    ),
    _driver("a ticket is taken without acquire", "_take", '"acquire"', '"monotonic"'),
    _driver("a ticket is given out without release", "_release", '"release"', '"monotonic"'),
    _driver("loads are not sequentially consistent", "_read", '"seq_cst"', '"acquire"'),
    _driver(
        "a late thread takes a task of a finished phase",
        "_take",
        'left = self._add(k, ticket, -1, "acquire")',
        'left = self._add(k, ticket, -1, "acquire").maximum(1)',
    ),
    _driver(
        "the phase is told before a ticket is taken",
        "_portion",
        "phase = k.load_pointer(team.words(TEAM_PHASE))",
        "phase = k.load_pointer(call.words(CALL_PHASES))",
    ),
    _driver(
        "the next phase is given out before the count is complete",
        "take_part",
        "left.equals(done)",
        "left > 0",
    ),
    _driver(
        "who completes the count does not go on",
        "take_part",
        "left.equals(done)",
        "left < done",
    ),
    _driver(
        "the phase is given out before its count is set",
        "_give_out",
        "k.store_int(tasks, team.words(TEAM_COUNT))",
        "pass",
    ),
    _driver(
        "a phase that is worth two threads is done by one",
        "advance",
        "word(s, PHASE_THREADS).equals(1)",
        "k.both(word(s, PHASE_THREADS) > 0, word(s, PHASE_THREADS) <= 2)",
    ),
    _driver(
        "a lone thread leaves the last task of a step",
        "advance",
        "k.int(0), tasks, thread)",
        "k.int(0), tasks - 1, thread)",
    ),
    _driver(
        "a lone thread does the first step of a phase only",
        "advance",
        "first + word(state, PHASE_STEPS)",
        "first + 1",
    ),
    _driver(
        "a phase takes all threads, whatever it is worth",
        "_give_out",
        "worth = k.load_int(phase.words(PHASE_THREADS))",
        "worth = k.int(99)",
    ),
    _driver(
        "threads that a phase has no share for take part",
        "take_part",
        "k.select(thread < width, width, 0)",
        "width",
    ),
    _driver(
        "shares are those of the team, not of the phase",
        "_portion",
        "team.words(TEAM_WIDTH)",
        "team.words(TEAM_THREADS)",
    ),
    _driver(
        "a team's width is not told",
        "_give_out",
        "self._release(k, team.words(TEAM_WIDTH), width)",
        "pass",
    ),
    _driver(
        "what one thread does alone holds up the caller",
        "submit",
        "(waited - alone) * 2",
        "waited * 2",
    ),
    _driver(
        "nothing holds up a caller",
        "take_part",
        "self._spend(k, team.words(TEAM_WAITED), start)",
        "pass",
    ),
    _driver(
        "the caller does not wait for the end of the call",
        "submit",
        'compare("!=", 0)',
        'compare("!=", self._read(k, current))',
    ),
    _driver(
        "others' leftovers are left to them",
        "take_part",
        "Int(b, s[0]) < turns",
        "Int(b, s[0]) < 1",
    ),
    _driver("waking is forgotten", "_announce", ">= before", "> before + 1"),
    _driver(
        "who goes to sleep does not say so",
        "_wait",
        "self._raise(k, team.words(TEAM_ASLEEP), seen)",
        "pass",
    ),
    _driver(
        "nobody sees that there is something to do",
        "_announce",
        "TEAM_SERIAL), 1)",
        "TEAM_SERIAL), 0)",
    ),
    _driver(
        "a thread waits for another serial than it has when it waits",
        "_wait",
        "spins = k.select(",
        "seen = self._read(k, word); spins = k.select(",
    ),
]

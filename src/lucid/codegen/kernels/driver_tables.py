"""The words of the tables that the driver walks (`driver.py`) and the runtime fills."""

from __future__ import annotations

from lucid.codegen.language.names import KernelName

EXPORTS = ("lucid_run", "lucid_worker", "lucid_submit")
DRIVER = KernelName("driver(profiled=False)", EXPORTS)
PROFILED_DRIVER = KernelName("driver(profiled=True)", EXPORTS)
"""The driver by name, under which it is found where it is in memory."""

# Words of the tables. What several threads write has two cache lines (sixteen words) of its own,
# since some machines have lines of 128 bytes.
LINES = 16
STEP_WORDS = 3
STEP_CODE, STEP_ARGUMENTS, STEP_TASKS = range(STEP_WORDS)
PHASE_WORDS = 4
PHASE_FIRST, PHASE_STEPS, PHASE_TASKS, PHASE_THREADS = range(PHASE_WORDS)
"""A phase's first step, how many steps it has, their tasks, and how many threads it is worth (one,
where it has a single task); a row of zeros ends the table."""
SET_WORDS = 16
"""Of a set of processors, a bit for each: 1024, as many as the C library's sets hold."""
CALL_WORDS = 8
(
    CALL_VERSION,
    CALL_STEPS,
    CALL_STEP_COUNT,
    CALL_PHASES,
    CALL_BUFFERS,
    CALL_SCRATCH,
    CALL_SCRATCH_BYTES,
    CALL_PROFILE,
) = range(CALL_WORDS)
VERSION = 4
PORTIONS = 6
"""Of a thread's share of a step, at most: each half of what is left, the last two alike. Of four
the last is an eighth of a share, however many tasks there are. On a busy processor, where one
thread is slower than the other, ResNeXt-50 waits for the end of phases for 3.1% of its time with
six portions and up to 16 tasks a thread, and for 4.7% with four and eight tasks."""
LONE = 8
"""A caller that has done more than 7 of 8 tasks has done nearly all."""
TEAM_SERIAL, TEAM_PHASE, TEAM_CALL, TEAM_WIDTH, TEAM_ALONE, TEAM_SHARED = range(6)
TEAM_ASLEEP, TEAM_COUNT = LINES, 2 * LINES
TEAM_THREADS, TEAM_SYSCALL, TEAM_CALL_SPINS, TEAM_IDLE_SPINS = range(48, 52)
TEAM_WAITED, TEAM_OWN, TEAM_IN_VAIN, TEAM_PROCESSOR, TEAM_PLACED = range(4 * LINES, 4 * LINES + 5)
TEAM_PLACES = 5 * LINES
TEAM_TICKETS = TEAM_PLACES + SET_WORDS
TEAM_NUMBERS = TEAM_TICKETS + 1
PROFILE_WORDS = 3
PROFILE_START, PROFILE_BUSY, PROFILE_END = range(PROFILE_WORDS)
"""Of a thread's part in a step: the clock when its first portion began, the ticks in all of them,
and the clock when the last ended; zeros where it had none. In each thread's last row, behind those
of the steps, the clock when the caller came and left."""

FUTEX_WAIT_PRIVATE, FUTEX_WAKE_PRIVATE = 128, 129
EVERYONE = 0x7FFFFFFF


def team_words(threads: int) -> int:
    """Words of a team's table."""
    return TEAM_TICKETS + LINES * threads

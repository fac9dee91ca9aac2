"""On which processors threads run, where the system has to be told.

It lets a thread that is woken run on its last processor or on that of who wakes it, whichever it
takes to be idle. On a virtual machine it often takes none to be: a processor without work is given
back to the host, and looks as if the host had taken it. The thread is then put behind who woke it,
for a time slice or two, while the other processor is idle. (Linux 6.18 as a guest of KVM: after a
pause every second burst of calls on two threads was done by one; MobileNetV2 in bfloat16 took 3.8
to 4.1 ms in it, and 2.0 to 2.4 since the threads are told.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lucid.codegen.kernels.driver_tables import (
    LINES,
    SET_WORDS,
    TEAM_NUMBERS,
    TEAM_PLACED,
    TEAM_PLACES,
    TEAM_PROCESSOR,
    TEAM_SYSCALL,
    TEAM_THREADS,
)
from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.values import Int, Pointer

SET_BYTES = 8 * SET_WORDS


@dataclass(frozen=True)
class Processors:
    """What a kernel asks the system about processors, by the C library's function `syscall`.

    A set of processors has a bit for each, in `SET_WORDS` words.
    """

    k: Kernel
    syscall: Pointer

    def thread(self) -> Int:
        """The system's number of this thread."""
        return self._call(self.k.target.system_calls.thread)

    def here(self, word: Pointer) -> Int:
        """The number of the processor that this thread is on, by way of a word below 2^32."""
        self._call(self.k.target.system_calls.processor, word, 0, 0)
        return self.k.load_int(word)

    def allowed(self, places: Pointer) -> Int:
        """Note the set that this thread may run on; less than 1 where that has no room."""
        return self._call(self.k.target.system_calls.get_affinity, 0, SET_BYTES, places)

    def bind(self, thread: int | Int, places: Pointer) -> None:
        """Let a thread, 0 being this one, run on these alone."""
        self._call(self.k.target.system_calls.set_affinity, thread, SET_BYTES, places)

    def _call(self, number: int, *arguments: int | Int | Pointer) -> Int:
        return self.k.system_call(self.syscall, number, *arguments)


def bit_of(k: Kernel, processor: Int) -> tuple[Int, Int]:
    """The word of a set that a processor's bit is in, and that bit."""
    b = k.builder
    return processor // 64, Int(b, b.shl(k.int(1).raw, (processor % 64).raw))


def both_of(k: Kernel, one: Int, other: Int) -> Int:
    """The bits that both words have."""
    return Int(k.builder, k.builder.and_(one.raw, other.raw))


def note_thread(k: Kernel, team: Pointer, thread: Int) -> None:
    """Let the team's callers know that this is its thread of that number."""
    own = _processors(k, team).thread()
    k.store_int(own, _thread(team, thread))
    k.store_int(0, team.words(TEAM_PLACED))


def keep_clear(k: Kernel, team: Pointer) -> None:
    """Have the team's threads wake where their caller, this thread, may run, but not where it does.

    That takes a system call, and one more for each of them when the caller is on another processor
    than the last time. Where the system refuses, they wake where it likes.
    """
    processors = _processors(k, team)
    here = processors.here(team.words(TEAM_PROCESSOR))
    threads = k.load_int(team.words(TEAM_THREADS))
    placed, now = team.words(TEAM_PLACED), threads * (1 << 32) + here
    with k.when(k.both(k.load_int(placed).compare("!=", now), here < 64 * SET_WORDS)):
        k.store_int(now, placed)
        places = team.words(TEAM_PLACES)
        with k.when(processors.allowed(places) > 0), k.when(_others(k, places, here)):
            _bind_workers(k, processors, team, threads)


def _bind_workers(k: Kernel, processors: Processors, team: Pointer, threads: Int) -> None:
    with k.loop(1, threads) as loop:
        worker = k.load_int(_thread(team, loop.index))
        with k.when(worker > 0):  # else it has not begun yet
            processors.bind(worker, team.words(TEAM_PLACES))


def _others(k: Kernel, places: Pointer, here: Int) -> Any:
    """Take a processor from a set; whether others are left."""
    b = k.builder
    word, bit = bit_of(k, here)
    k.store_int(both_of(k, k.load_int(places.words(word)), -1 - bit), places.words(word))

    def more(state: list[Any]) -> list[Any]:
        index, found = (Int(b, s) for s in state)
        return [(index + 1).raw, b.or_(found.raw, k.load_int(places.words(index)).raw)]

    state = [k.int(0).raw, k.int(0).raw]
    _, found = k.repeat(state, lambda s: Int(b, s[0]) < SET_WORDS, more)
    return Int(b, found).compare("!=", 0)


def _processors(k: Kernel, team: Pointer) -> Processors:
    return Processors(k, k.load_pointer(team.words(TEAM_SYSCALL)))


def _thread(team: Pointer, number: Int) -> Pointer:
    return team.words(number * LINES + TEAM_NUMBERS)

"""Who may run now: callers of all models of a process, admitted in the order in which they came.

A caller *holds* as many processors as its call is to keep busy, and there are only so many to hold.
`lucid_admit` gives them, on a team of threads or for its caller's thread alone, or waits;
`lucid_leave` takes them back, and admits those who wait, from the first on, as long as it can.
`lucid_beside` runs a call that waits for nobody, and lets the others know that it is there.

Nothing that is computed depends on it: who is admitted wrongly costs time, no more. It is native
code since Python may raise KeyboardInterrupt between any two lines of its own: a processor that
nobody gives back would be lost for the life of the process.

**Where who was admitted runs.** The system lets a thread that is woken run on its last processor or
on that of who wakes it, both of which are busy just then; on the wrong one every second time. There
it waits for a time slice, and the processor that its waker leaves is idle: with eight callers on
two processors, 5 to 25% of the time. So a thread that is admitted while all processors are held is
bound to its waker's processor, and frees itself when it runs. (Should another thread change its
affinity while it waits, that is undone.)

The gate's words, and the queue of tickets that hangs on it, are changed under its mutex (free,
taken, or taken and waited for, as in Ulrich Drepper's "Futexes Are Tricky"), for a few dozen
instructions. A ticket is its thread's, which lies asleep on it while it is in the queue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.kernels.admission_tables import (
    ADAPTIVE,
    ALONE,
    BLOCK,
    CROWD,
    EXPORTS,
    FREE,
    GATE_BESIDE,
    GATE_CROWDED,
    GATE_FIRST,
    GATE_HELD,
    GATE_LAST,
    GATE_MUTEX,
    GATE_PROCESSORS,
    GATE_RUNNING,
    GATE_SYSCALL,
    GATE_WAITING,
    IS_BESIDE,
    POOL_COUNT,
    POOL_FIRST,
    POOL_MISSED,
    SINGLE_THREAD,
    TAKEN,
    TICKET_ADMITTED,
    TICKET_AFFINITY,
    TICKET_CPU,
    TICKET_DRAWN,
    TICKET_HOLDS,
    TICKET_NEXT,
    TICKET_PLACE,
    TICKET_POLICY,
    TICKET_POOL,
    TICKET_TEAM,
    TICKET_THREAD,
    TICKET_WANTS,
    WAITED_FOR,
)
from lucid.codegen.kernels.driver import TABLE
from lucid.codegen.kernels.driver_tables import (
    EVERYONE,
    FUTEX_WAIT_PRIVATE,
    FUTEX_WAKE_PRIVATE,
    SET_WORDS,
)
from lucid.codegen.kernels.placement import Processors, bit_of, both_of
from lucid.codegen.language.builder import Kernel, Signature
from lucid.codegen.language.kernel import KernelSpec
from lucid.codegen.language.values import I64, VOID, Int, Pointer
from lucid.codegen.target import Target


@dataclass(frozen=True)
class Admission(KernelSpec):
    """`lucid_admit(gate, ticket, pool, wants, policy)`, `lucid_leave(gate, ticket)`,
    `lucid_beside(gate, run, call)`."""

    family: ClassVar[str] = "admission"
    exports: ClassVar[tuple[str, ...]] = EXPORTS

    def emit(self, target: Target) -> ir.Module:
        module = ir.Module("admission")
        module.triple = target.triple
        emitter = _AdmissionEmitter(module, target)
        emitter.grant()
        emitter.admit()
        emitter.leave()
        emitter.beside()
        return module


class _AdmissionEmitter:
    def __init__(self, module: ir.Module, target: Target) -> None:
        self.module = module
        self.target = target
        self.grant_function: Any = None

    def _function(self, name: str, arguments: Signature, result: ir.Type = VOID) -> Kernel:
        return Kernel(self.module, self.target, name, arguments, result)

    # -- the mutex --------------------------------------------------------------------------

    def _syscall(self, k: Kernel) -> Pointer:
        return k.load_pointer(k.args["gate"].words(GATE_SYSCALL))

    def _futex(self, k: Kernel, word: Pointer, action: int, value: int) -> None:
        number = self.target.system_calls.futex
        k.system_call(self._syscall(k), number, word, action, value, 0, 0, 0)

    def _processors(self, k: Kernel) -> Processors:
        return Processors(k, self._syscall(k))

    def _lock(self, k: Kernel) -> None:
        mutex = k.args["gate"].words(GATE_MUTEX)
        with k.when(k.exchange(mutex, TAKEN, "max").compare("!=", FREE)):

            def taken(state: list[Any]) -> Any:
                return k.exchange(mutex, WAITED_FOR).compare("!=", FREE)

            def sleep(state: list[Any]) -> list[Any]:
                self._futex(k, mutex, FUTEX_WAIT_PRIVATE, WAITED_FOR)
                return []

            k.repeat([], taken, sleep)

    def _unlock(self, k: Kernel) -> None:
        mutex = k.args["gate"].words(GATE_MUTEX)
        with k.when(k.exchange(mutex, FREE).equals(WAITED_FOR)):
            self._futex(k, mutex, FUTEX_WAKE_PRIVATE, 1)

    def _change(self, k: Kernel, word: Pointer, by: int | Int) -> None:
        k.store_int(k.load_int(word) + by, word)

    # -- admitting --------------------------------------------------------------------------

    def grant(self) -> None:
        """Whether a ticket is admitted, which it then is; `waiting`: tickets that are behind it.

        A team is for who leaves enough processors for all who wait, one for each, and not while
        there is a crowd: with more callers than processors each runs on one, which is the most work
        done a second.
        """
        arguments = [("gate", TABLE), ("ticket", TABLE), ("waiting", I64)]
        k = self._function("grant", arguments, I64)
        k.function.linkage = "internal"
        self.grant_function = k.function
        b, gate, ticket, waiting = k.builder, *(k.args[name] for name, _ in arguments)
        pool = k.load_pointer(ticket.words(TICKET_POOL))
        policy = k.load_int(ticket.words(TICKET_POLICY))
        processors, held = (k.load_int(gate.words(w)) for w in (GATE_PROCESSORS, GATE_HELD))
        wants = k.load_int(ticket.words(TICKET_WANTS)).minimum(processors)
        free, beside = processors - held, k.load_int(gate.words(GATE_BESIDE))
        blocks = policy.equals(BLOCK)
        room = k.either_of(
            k.both(blocks, free >= wants),
            k.both(
                k.negated(blocks),
                free - beside >= wants + waiting,
                k.load_int(gate.words(GATE_CROWDED)) < CROWD,
            ),
        )
        some = k.load_int(pool.words(POOL_COUNT)) > 0
        with k.when(k.both(room, some)):
            count = k.load_int(pool.words(POOL_COUNT)) - 1
            k.store_int(count, pool.words(POOL_COUNT))
            k.store_int(k.load_int(pool.words(count + POOL_FIRST)), ticket.words(TICKET_TEAM))
            self._hold(k, wants)
        with k.when(room):
            k.store_int(1, pool.words(POOL_MISSED))
        with k.when(k.both(policy.equals(ADAPTIVE), free > 0)):
            k.store_int(ALONE, ticket.words(TICKET_TEAM))
            self._hold(k, k.int(1))
        b.ret(k.int(0).raw)

    def _hold(self, k: Kernel, processors: Int) -> None:
        gate, ticket = k.args["gate"], k.args["ticket"]
        self._change(k, gate.words(GATE_HELD), processors)
        self._change(k, gate.words(GATE_RUNNING), 1)
        k.store_int(processors, ticket.words(TICKET_HOLDS))
        k.builder.ret(k.int(1).raw)

    def _granted(self, k: Kernel, ticket: Pointer, waiting: Int) -> Any:
        arguments = [k.args["gate"].raw, ticket.raw, waiting.raw]
        return Int(k.builder, k.builder.call(self.grant_function, arguments)).equals(1)

    def admit(self) -> None:
        """lucid_admit: hold processors and perhaps a team, which the ticket then says."""
        given = [("pool", TABLE), ("wants", I64), ("policy", I64)]
        k = self._function("lucid_admit", [("gate", TABLE), ("ticket", TABLE), *given])
        b, gate, ticket = k.builder, k.args["gate"], k.args["ticket"]
        k.store_pointer(k.args["pool"], ticket.words(TICKET_POOL))
        k.store_int(k.args["wants"], ticket.words(TICKET_WANTS))
        k.store_int(k.args["policy"], ticket.words(TICKET_POLICY))
        self._lock(k)
        waiting = gate.words(GATE_WAITING)
        self._count_crowd(k)
        with k.when(k.load_int(waiting).equals(0)), k.when(self._granted(k, ticket, k.int(0))):
            self._unlock(k)
            b.ret_void()
        with k.when(k.load_int(ticket.words(TICKET_POLICY)).equals(SINGLE_THREAD)):
            k.store_int(ALONE, ticket.words(TICKET_TEAM))
            k.store_int(IS_BESIDE, ticket.words(TICKET_HOLDS))
            self._add_beside(k, 1)
            self._unlock(k)
            b.ret_void()
        self._enqueue(k, ticket)
        self._note_affinity(k)
        self._unlock(k)
        admitted = ticket.words(TICKET_ADMITTED)

        def in_queue(state: list[Any]) -> Any:
            return Int(b, b.load_atomic(admitted.raw, "acquire", 8, typ=I64)).equals(0)

        def sleep(state: list[Any]) -> list[Any]:
            self._futex(k, admitted, FUTEX_WAIT_PRIVATE, 0)
            return []

        k.repeat([], in_queue, sleep)
        with k.when(k.load_int(ticket.words(TICKET_DRAWN)).equals(1)):
            self._processors(k).bind(0, ticket.words(TICKET_AFFINITY))
        k.finish()

    def _note_affinity(self, k: Kernel) -> None:
        """Who waits, and where it may run."""
        processors, ticket = self._processors(k), k.args["ticket"]
        k.store_int(processors.thread(), ticket.words(TICKET_THREAD))
        k.store_int(0, ticket.words(TICKET_DRAWN))
        processors.allowed(ticket.words(TICKET_AFFINITY))

    def _count_crowd(self, k: Kernel) -> None:
        gate = k.args["gate"]
        words = (GATE_RUNNING, GATE_WAITING, GATE_PROCESSORS, GATE_CROWDED)
        running, waiting, processors, crowded = (k.load_int(gate.words(w)) for w in words)
        meets = running + waiting + 1 >= processors
        k.store_int(k.select(meets, crowded + 1, 0), gate.words(GATE_CROWDED))

    def _enqueue(self, k: Kernel, ticket: Pointer) -> None:
        gate = k.args["gate"]
        k.store_int(0, ticket.words(TICKET_ADMITTED))
        k.store_int(0, ticket.words(TICKET_NEXT))
        last = k.load_pointer(gate.words(GATE_LAST))
        k.either(
            k.load_int(gate.words(GATE_WAITING)).equals(0),
            lambda: k.store_pointer(ticket, gate.words(GATE_FIRST)),
            lambda: k.store_pointer(ticket, last.words(TICKET_NEXT)),
        )
        k.store_pointer(ticket, gate.words(GATE_LAST))
        self._change(k, gate.words(GATE_WAITING), 1)

    # -- leaving ----------------------------------------------------------------------------

    def leave(self) -> None:
        """lucid_leave: give back all that the ticket has, if anything, and admit others. (A new
        team comes into its pool with a ticket that has it.)"""
        k = self._function("lucid_leave", [("gate", TABLE), ("ticket", TABLE)])
        gate, ticket = k.args["gate"], k.args["ticket"]
        self._lock(k)
        holds = k.load_int(ticket.words(TICKET_HOLDS))
        with k.when(holds.equals(IS_BESIDE)):
            self._add_beside(k, -1)
        with k.when(holds > 0):
            self._change(k, gate.words(GATE_HELD), 0 - holds)
            self._change(k, gate.words(GATE_RUNNING), -1)
        k.store_int(0, ticket.words(TICKET_HOLDS))
        self._give_back(k, ticket)
        self._admit_others(k)
        self._unlock(k)
        k.finish()

    def _give_back(self, k: Kernel, ticket: Pointer) -> None:
        """The team, if it has one."""
        team = k.load_int(ticket.words(TICKET_TEAM))
        with k.when(team.compare("!=", ALONE)):
            pool = k.load_pointer(ticket.words(TICKET_POOL))
            count = k.load_int(pool.words(POOL_COUNT))
            k.store_int(team, pool.words(count + POOL_FIRST))
            k.store_int(count + 1, pool.words(POOL_COUNT))
            k.store_int(ALONE, ticket.words(TICKET_TEAM))

    def _admit_others(self, k: Kernel) -> None:
        """Those who wait, from the first on, until one cannot be."""
        gate, waiting = k.args["gate"], k.args["gate"].words(GATE_WAITING)

        def more(state: list[Any]) -> Any:
            return Int(k.builder, state[0]) > 0

        def admit_first(state: list[Any]) -> list[Any]:
            behind = k.load_int(waiting) - 1
            first = k.load_pointer(gate.words(GATE_FIRST))
            arguments = [gate.raw, first.raw, behind.raw]
            granted = Int(k.builder, k.builder.call(self.grant_function, arguments))
            with k.when(granted.equals(1)):
                k.store_int(behind, waiting)
                k.store_pointer(k.load_pointer(first.words(TICKET_NEXT)), gate.words(GATE_FIRST))
                held, processors = (gate.words(w) for w in (GATE_HELD, GATE_PROCESSORS))
                with k.when(k.load_int(held) >= k.load_int(processors)):
                    self._draw(k, first)
                admitted = first.words(TICKET_ADMITTED)
                k.exchange(admitted, 1)
                self._futex(k, admitted, FUTEX_WAKE_PRIVATE, EVERYONE)
            return [k.select(granted.equals(1), behind, 0).raw]

        k.repeat([k.load_int(waiting).raw], more, admit_first)

    def _draw(self, k: Kernel, other: Pointer) -> None:
        """Let the thread of a ticket wake on this thread's processor, if it may run there."""
        processors, own = self._processors(k), k.args["ticket"]
        place, here = own.words(TICKET_PLACE), processors.here(own.words(TICKET_CPU))
        with k.when(here < 64 * SET_WORDS):
            word, bit = bit_of(k, here)
            allowed = k.load_int(other.words(word + TICKET_AFFINITY))
            with k.when(both_of(k, allowed, bit).compare("!=", 0)):
                k.store_int(bit, place.words(word))
                processors.bind(k.load_int(other.words(TICKET_THREAD)), place)
                k.store_int(0, place.words(word))
                k.store_int(1, other.words(TICKET_DRAWN))

    # -- calls that wait for nobody -----------------------------------------------------------

    def _add_beside(self, k: Kernel, calls: int) -> None:
        word = k.args["gate"].words(GATE_BESIDE)
        k.builder.atomic_rmw("add", word.raw, k.int(calls).raw, "monotonic")

    def beside(self) -> None:
        """lucid_beside: run a call table by `run`, which is `lucid_run`; its status."""
        k = self._function("lucid_beside", [("gate", TABLE), ("run", TABLE), ("call", TABLE)], I64)
        self._add_beside(k, 1)
        kind = ir.FunctionType(I64, [k.args["call"].raw.type])
        status = k.call(k.args["run"], kind, [k.args["call"]])
        self._add_beside(k, -1)
        k.finish(status)

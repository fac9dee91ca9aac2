"""The native runtime: `lucid_run`, which walks a Program's table alone, and what a team of threads
does: `lucid_submit`, by which a caller has a call done, and `lucid_worker`, the life of the others.

A *phase* is the steps from one barrier of the Program to the next. Its tasks are given out in
portions: each thread has a share of each step, one stretch of its tasks, cut into portions that
become smaller; it takes those first, then what others have left of theirs. (Neighbouring tasks read
and write neighbouring memory, so that from phase to phase a thread finds most of what it reads in
its own cache: on two threads a depthwise convolution whose input lay in the other's took as long
as on one.) Threads subtract what they have finished from the phase's count, and who brings it to
zero gives out the next phase. So a phase is over when its tasks are done, whoever did them: nobody
waits for a thread that holds no portion, however late it comes or wakes, neither between phases nor
at the end of the call. A phase that is worth a single thread is done by who ended the one before
it, at once, and one that is worth fewer threads than there are is given out in as many shares.

**What threads share** lies in the team's table, which lives as long as they do:
- `TICKETS`, a word for each thread: the portions left of its share of the current phase;
- `COUNT`: the tasks of the phase that nobody has finished and counted yet;
- `CALL`, `PHASE`: what is being done, none between calls, and the row of its current phase;
- `SERIAL`, which grows with whatever there is to see: threads that find nothing to do wait until it
  changes, spinning first, then asleep on it as a futex. `ASLEEP`: the largest serial that a thread
  sleeps on;
- `THREADS`: how many threads are at work, which changes between calls alone. Those of other numbers
  rest, asleep on this word; 0 ends them all. `WIDTH`: how many of them the phase has shares for;
- `NUMBERS`, the system's number of each thread, and the words of `placement.py`, which says where
  they run; nothing else depends on it, and what is read there may be old;
- `WAITED`: what the caller has waited in this call, and `ALONE` what others did meanwhile of phases
  for one thread, by the clock; `OWN`: the tasks that the caller has done, of so many that were
  `SHARED`. Of these comes `IN_VAIN`, which says whether the team was of no use.

**Why no thread takes a task of a finished phase, or reads memory of a finished call.** A portion is
taken by an atomic decrement of a ticket, and only if that was above zero. Which portion it is, is
told by `CALL` and `PHASE`, which are read *after* that; nothing that the thread knew before takes
part. So it does not matter how old its knowledge is: a thread may stop anywhere for as long as the
system likes, and its decrement then either finds nothing or takes a portion of what is current.
1. While somebody holds a portion, the count is above zero: the portion's tasks are in it. So the
   phase is not over, and `CALL`, `PHASE` and all that they point to stay; the caller waits.
2. The count reaches zero when all portions are finished, hence taken: then no ticket is above zero,
   nobody holds anything, and one thread, whose subtraction made it zero, may write. It writes
   `PHASE`, `COUNT` and `WIDTH`, then the tickets, only those of shares that are not empty: a phase
   cannot end before the last of them is written, so that no store falls into a later phase. Thread
   0's share is never empty, and is given out last: from then on the writer reads the team's table
   only. While it does phases alone there are no tickets, and nothing else of the call is anyone's.
3. A decrement of a ticket that was at zero leaves it below, which says the same; it comes before
   the next phase's store in the one order of that word, and is overwritten, or after it, and takes.
4. Between calls all tickets are at or below zero. A thread without a portion touches nothing but
   the team's table: a call's tables, buffers and scratch may go when `lucid_submit` returns.
5. How many tickets a thread looks at, it is told by `WIDTH` before it takes one: a hint. Where that
   is of an earlier phase, it looks at some that are not given out, or leaves out some that are, and
   then comes again, as the serial has grown since it was read; one whose number is beyond it looks
   at none. Which tasks a portion has, is told by the `WIDTH` that is read after it was taken, as is
   `PHASE`. So a thread of a number beyond `THREADS` or `WIDTH` that was on its way may still take a
   portion, rightly: shares are a matter of who is first, not of who may.

**The order of memory** (in C11's terms; x86 has it in every load and store, aarch64 in those that
are marked: `ldar`, `stlr`, `ldadda`, `ldaddal`; not `ldapr`, which may pass an earlier store).
Tickets are stored with release and decremented with acquire; decrements in between continue the
release sequence. So who takes a portion sees all that the writer saw and wrote. The count is
subtracted from with acquire and release, so that the last subtraction sees what all threads wrote
in the phase, and passes it on with the next tickets. `SERIAL` is added to after the tickets are
stored; a thread reads it, then looks at the tickets, and then waits for another serial than that:
what is given out after it looked has one. Who gives a phase out may come to add to it only when
the others are far ahead, in another call even: nothing is told by the serial's value. The caller is
done when it reads that there is no call, which was stored, with release, after the last subtraction
and before the serial was added to.
Who rests has read `THREADS`, and sleeps only as long as the word is the same; who raises it stores
it, then wakes all that sleep on it, and who ends the team does the same with 0.
To sleep, a thread raises `ASLEEP` to the serial it has seen, then compares `SERIAL` with it; to
wake, the writer adds to `SERIAL`, then compares `ASLEEP` with what that was. All four are
sequentially consistent, so that one of the two sees the other's; and the futex compares once more.
`ASLEEP` only grows: who wakes destroys nobody else's, and pays nothing more for a thread that was
woken and does not run yet.

**What a thread has of its own** while it is in this code: denormals are zeros on it, and on targets
with tiles these are configured, but not while it sleeps. Neither is anything that threads share.

Everything the code needs comes through the tables laid out below, so the object has no undefined
symbols.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir
from llvmlite.ir.instructions import StoreAtomicInstr

from lucid.codegen.kernels.driver_tables import (
    CALL_BUFFERS,
    CALL_PHASES,
    CALL_PROFILE,
    CALL_SCRATCH,
    CALL_SCRATCH_BYTES,
    CALL_STEP_COUNT,
    CALL_STEPS,
    CALL_VERSION,
    EVERYONE,
    EXPORTS,
    FUTEX_WAIT_PRIVATE,
    FUTEX_WAKE_PRIVATE,
    LINES,
    LONE,
    PHASE_FIRST,
    PHASE_STEPS,
    PHASE_TASKS,
    PHASE_THREADS,
    PHASE_WORDS,
    PORTIONS,
    PROFILE_BUSY,
    PROFILE_END,
    PROFILE_START,
    PROFILE_WORDS,
    STEP_ARGUMENTS,
    STEP_CODE,
    STEP_TASKS,
    STEP_WORDS,
    TEAM_ALONE,
    TEAM_ASLEEP,
    TEAM_CALL,
    TEAM_CALL_SPINS,
    TEAM_COUNT,
    TEAM_IDLE_SPINS,
    TEAM_IN_VAIN,
    TEAM_OWN,
    TEAM_PHASE,
    TEAM_SERIAL,
    TEAM_SHARED,
    TEAM_SYSCALL,
    TEAM_THREADS,
    TEAM_TICKETS,
    TEAM_WAITED,
    TEAM_WIDTH,
    VERSION,
)
from lucid.codegen.kernels.placement import keep_clear, note_thread
from lucid.codegen.language import tiles
from lucid.codegen.language.builder import Kernel, Signature
from lucid.codegen.language.kernel import KernelSpec
from lucid.codegen.language.values import I1, I32, I64, PTR, VOID, Int, Pointer, PointerTo
from lucid.codegen.target import Target

FLUSH_TO_ZERO_X86 = 0x8040  # MXCSR: denormals are zero, flush to zero
FLUSH_TO_ZERO_ARM = 1 << 24  # FPCR.FZ

KERNEL_TYPE = ir.FunctionType(VOID, [PTR, PTR, I64, I64, PTR])
TABLE = PointerTo(I64)


@dataclass(frozen=True)
class Driver(KernelSpec):
    """`lucid_run(call)`, `lucid_worker(team, thread)`, `lucid_submit(team, call)`.

    `profiled`: each thread notes in the call's profile table when it was at work on a step.
    """

    family: ClassVar[str] = "driver"
    exports: ClassVar[tuple[str, ...]] = EXPORTS
    profiled: bool = False

    def emit(self, target: Target) -> ir.Module:
        module = ir.Module("driver")
        module.triple = target.triple
        emitter = _DriverEmitter(module, target, self.profiled)
        emitter.run()
        emitter.advance()
        emitter.take_part()
        emitter.worker()
        emitter.submit()
        return module


class _DriverEmitter:
    def __init__(self, module: ir.Module, target: Target, profiled: bool) -> None:
        self.module = module
        self.target = target
        self.profiled = profiled
        self.run_function: Any = None
        self.advance_function: Any = None
        self.take_part_function: Any = None

    def _function(
        self, name: str, arguments: Signature, result: ir.Type = VOID, inside: bool = False
    ) -> Kernel:
        k = Kernel(self.module, self.target, name, arguments, result)
        if inside:
            k.function.linkage = "internal"
        return k

    # -- atomics ----------------------------------------------------------------------------

    def _read(self, k: Kernel, address: Pointer) -> Int:
        """An atomic load, sequentially consistent (and so with acquire order)."""
        return Int(k.builder, k.builder.load_atomic(address.raw, "seq_cst", 8, typ=I64))

    def _add(self, k: Kernel, address: Pointer, value: int | Int, order: str = "seq_cst") -> Int:
        """Atomic addition; gives the value before."""
        return Int(k.builder, k.builder.atomic_rmw("add", address.raw, k.int(value).raw, order))

    def _raise(self, k: Kernel, address: Pointer, value: Int) -> None:
        """Let a word be no less than this."""
        k.builder.atomic_rmw("max", address.raw, value.raw, "seq_cst")

    def _release(self, k: Kernel, address: Pointer, value: Int | Pointer) -> None:
        """An atomic store, with release order."""
        b = k.builder  # whose own method for it wants typed pointers (llvmlite 0.50)
        b._insert(StoreAtomicInstr(b.block, value.raw, address.raw, "release", 8))

    # -- waiting ----------------------------------------------------------------------------

    def _pause(self, k: Kernel) -> None:
        if self.target.is_x86:
            k.builder.call(k.intrinsic("llvm.x86.sse2.pause", VOID, []), [])
        else:
            hint = k.intrinsic("llvm.aarch64.hint", VOID, [I32])
            k.builder.call(hint, [ir.Constant(I32, 1)])

    def _futex(
        self, k: Kernel, team: Pointer, action: int, value: Int, place: int = TEAM_SERIAL
    ) -> None:
        """A system call about a word of the team's, by default its serial."""
        syscall, number = k.load_pointer(team.words(TEAM_SYSCALL)), self.target.system_calls.futex
        k.system_call(syscall, number, team.words(place), action, value, 0, 0, 0)

    def _sleep(self, k: Kernel, team: Pointer, value: Int, place: int = TEAM_SERIAL) -> None:
        """Until somebody wakes those that sleep on a word, where that still has this value."""
        if self.target.tiles:
            tiles.release(k)
        self._futex(k, team, FUTEX_WAIT_PRIVATE, value, place)
        if self.target.tiles:
            tiles.configure(k)

    def _announce(self, k: Kernel, team: Pointer) -> None:
        """Let others see that something was given out, or that all is done."""
        before = self._add(k, team.words(TEAM_SERIAL), 1)
        with k.when(self._read(k, team.words(TEAM_ASLEEP)) >= before):
            self._futex(k, team, FUTEX_WAKE_PRIVATE, k.int(EVERYONE))

    def _wait(self, k: Kernel, team: Pointer, seen: Int) -> None:
        """Until the serial is no longer `seen`: spin, then sleep."""
        b, word = k.builder, team.words(TEAM_SERIAL)
        spins = k.select(
            self._read(k, team.words(TEAM_CALL)).equals(0),
            k.load_int(team.words(TEAM_IDLE_SPINS)),
            k.load_int(team.words(TEAM_CALL_SPINS)),
        )

        def spin(state: list[Any]) -> list[Any]:
            self._pause(k)
            return [(Int(b, state[0]) + 1).raw]

        def unchanged(state: list[Any]) -> Any:
            return k.both(Int(b, state[0]) < spins, self._read(k, word).equals(seen))

        def sleep(state: list[Any]) -> list[Any]:
            self._raise(k, team.words(TEAM_ASLEEP), seen)
            with k.when(self._read(k, word).equals(seen)):
                self._sleep(k, team, seen)
            return []

        k.repeat([k.int(0).raw], unchanged, spin)
        k.repeat([], lambda _: self._read(k, word).equals(seen), sleep)

    # -- the state of a thread --------------------------------------------------------------

    def _enter(self, k: Kernel) -> Any:
        """Set this thread up for kernels; gives the state to restore."""
        if self.target.tiles:
            tiles.configure(k)
        return self._flush_to_zero(k)

    def _leave(self, k: Kernel, state: Any) -> None:
        """Leave the thread as it came."""
        if self.target.tiles:
            tiles.release(k)
        self._restore_rounding(k, state)

    def _flush_to_zero(self, k: Kernel) -> Any:
        """Let denormals be zero on this thread; gives the state to restore."""
        if not self.target.is_x86:
            get = k.intrinsic("llvm.aarch64.get.fpcr", I64, [])
            before = k.builder.call(get, [])
            self._set_fpcr(k, k.builder.or_(before, ir.Constant(I64, FLUSH_TO_ZERO_ARM)))
            return before
        saved, changed = k.stack(16, I32), k.stack(16, I32)
        store = k.intrinsic("llvm.x86.sse.stmxcsr", VOID, [PTR])
        k.builder.call(store, [saved.raw])
        state = k.builder.load(saved.raw, typ=I32)
        k.builder.store(k.builder.or_(state, ir.Constant(I32, FLUSH_TO_ZERO_X86)), changed.raw)
        self._load_mxcsr(k, changed)
        return saved

    def _restore_rounding(self, k: Kernel, state: Any) -> None:
        if self.target.is_x86:
            self._load_mxcsr(k, state)
        else:
            self._set_fpcr(k, state)

    def _load_mxcsr(self, k: Kernel, state: Pointer) -> None:
        k.builder.call(k.intrinsic("llvm.x86.sse.ldmxcsr", VOID, [PTR]), [state.raw])

    def _set_fpcr(self, k: Kernel, state: Any) -> None:
        k.builder.call(k.intrinsic("llvm.aarch64.set.fpcr", VOID, [I64]), [state])

    # -- tasks ------------------------------------------------------------------------------

    def _work(
        self, k: Kernel, call: Pointer, number: Int, first: Int, last: Int, thread: Int
    ) -> None:
        """Tasks `first` to `last - 1` of step `number`, done by this thread."""
        step = k.load_pointer(call.words(CALL_STEPS)).words(number * STEP_WORDS)
        code, arguments = (k.load_pointer(step.words(w)) for w in (STEP_CODE, STEP_ARGUMENTS))
        buffers = k.load_pointer(call.words(CALL_BUFFERS))
        stride = k.load_int(call.words(CALL_SCRATCH_BYTES))
        scratch = k.load_pointer(call.words(CALL_SCRATCH)).bytes(thread * stride)
        start = self._clock(k)
        k.call(code, KERNEL_TYPE, [arguments, buffers, first, last, scratch])
        if self.profiled:
            self._note(k, self._row(k, call, thread, number), start, self._clock(k))

    def _clock(self, k: Kernel) -> Int:
        """The clock, where a profile is made."""
        return self._ticks(k) if self.profiled else k.int(0)

    def _ticks(self, k: Kernel) -> Int:
        """The processor's counter of time: some 25 cycles on a Zen 3."""
        clock = k.intrinsic("llvm.readcyclecounter", I64, [])
        return Int(k.builder, k.builder.call(clock, []))

    def _row(self, k: Kernel, call: Pointer, thread: Int, number: Int) -> Pointer:
        """Where the profile has a thread's part in a step."""
        rows = k.load_int(call.words(CALL_STEP_COUNT)) + 1
        at = (thread * rows + number) * PROFILE_WORDS
        return k.load_pointer(call.words(CALL_PROFILE)).words(at)

    def _note(self, k: Kernel, row: Pointer, start: Int, end: Int) -> None:
        busy = row.words(PROFILE_BUSY)
        with k.when(k.load_int(row.words(PROFILE_START)).equals(0)):
            k.store_int(start, row.words(PROFILE_START))
        k.store_int(k.load_int(busy) + (end - start), busy)
        k.store_int(end, row.words(PROFILE_END))

    def _share(
        self, k: Kernel, call: Pointer, number: Int, owner: Int, threads: Int
    ) -> tuple[Int, Int, Int]:
        """A thread's share of a step: its first task, how many, and in how many portions."""
        step = k.load_pointer(call.words(CALL_STEPS)).words(number * STEP_WORDS)
        tasks = k.load_int(step.words(STEP_TASKS))
        each, more = tasks // threads, tasks % threads
        size = k.select(owner < more, each + 1, each)
        zeros = Int(k.builder, k.builder.ctlz(size.raw, ir.Constant(I1, 0)))
        return owner * each + owner.minimum(more), size, (64 - zeros).minimum(PORTIONS)

    def run(self) -> None:
        """lucid_run: the whole call, by this thread alone."""
        k = self._function("lucid_run", [("call", TABLE)], I64)
        self.run_function = k.function
        call = k.args["call"]
        self._check_version(k, call)
        state = self._enter(k)
        self._note_caller(k, call, PROFILE_START)
        steps = k.load_pointer(call.words(CALL_STEPS))
        with k.loop(0, k.load_int(call.words(CALL_STEP_COUNT))) as loop:
            tasks = k.load_int(steps.words(loop.index * STEP_WORDS + STEP_TASKS))
            self._work(k, call, loop.index, k.int(0), tasks, k.int(0))
        self._note_caller(k, call, PROFILE_END)
        self._leave(k, state)
        k.finish(ir.Constant(I64, 0))

    def _check_version(self, k: Kernel, call: Pointer) -> None:
        version = k.load_int(call.words(CALL_VERSION))
        with k.when(version.compare("!=", VERSION)):
            k.builder.ret(ir.Constant(I64, 1))

    def _note_caller(self, k: Kernel, call: Pointer, place: int) -> None:
        if self.profiled:
            row = self._row(k, call, k.int(0), k.load_int(call.words(CALL_STEP_COUNT)))
            k.store_int(self._clock(k), row.words(place))

    # -- phases -----------------------------------------------------------------------------

    def advance(self) -> None:
        """Go on to the phase of this row, and past those that are worth a single thread, which this
        one does; it is the only one that has anything of the call."""
        arguments = [("team", TABLE), ("thread", I64), ("phase", TABLE)]
        k = self._function("advance", arguments, inside=True)
        self.advance_function = k.function
        b, team, thread = k.builder, k.args["team"], k.args["thread"]
        call = k.load_pointer(team.words(TEAM_CALL))

        def word(state: list[Any], place: int) -> Int:
            return k.load_int(Pointer(b, state[0], I64).words(place))

        def alone(state: list[Any]) -> list[Any]:
            start, steps = self._ticks(k), k.load_pointer(call.words(CALL_STEPS))
            first = word(state, PHASE_FIRST)
            with k.loop(first, first + word(state, PHASE_STEPS)) as step:
                tasks = k.load_int(steps.words(step.index * STEP_WORDS + STEP_TASKS))
                self._work(k, call, step.index, k.int(0), tasks, thread)
            with k.when(thread > 0):  # while the caller waits
                self._spend(k, team.words(TEAM_ALONE), start)
            return [Pointer(b, state[0], I64).words(PHASE_WORDS).raw]

        state = k.repeat([k.args["phase"].raw], lambda s: word(s, PHASE_THREADS).equals(1), alone)
        with k.when(word(state, PHASE_TASKS).equals(0)):
            self._release(k, team.words(TEAM_CALL), k.int(0))
            self._announce(k, team)
            b.ret_void()
        self._give_out(k, team, call, Pointer(b, state[0], I64))
        self._announce(k, team)
        k.finish()

    def _spend(self, k: Kernel, word: Pointer, start: Int) -> None:
        """Add the time since `start` to a word that no other thread writes meanwhile."""
        k.store_int(k.load_int(word) + (self._ticks(k) - start), word)

    def _give_out(self, k: Kernel, team: Pointer, call: Pointer, phase: Pointer) -> None:
        """Make this phase the current one."""
        b = k.builder
        k.store_pointer(phase, team.words(TEAM_PHASE))
        tasks, shared = k.load_int(phase.words(PHASE_TASKS)), team.words(TEAM_SHARED)
        k.store_int(tasks, team.words(TEAM_COUNT))
        k.store_int(k.load_int(shared) + tasks, shared)
        worth = k.load_int(phase.words(PHASE_THREADS))
        width = worth.minimum(k.load_int(team.words(TEAM_THREADS)))
        self._release(k, team.words(TEAM_WIDTH), width)
        first = k.load_int(phase.words(PHASE_FIRST))
        end = first + k.load_int(phase.words(PHASE_STEPS))
        with k.loop(0, width) as turn:
            owner = width - 1 - turn.index  # the first one's is never empty

            def more(state: list[Any]) -> list[Any]:
                number, portions = (Int(b, s) for s in state)
                _, _, own = self._share(k, call, number, owner, width)
                return [(number + 1).raw, (portions + own).raw]

            state = [first.raw, k.int(0).raw]
            _, portions = k.repeat(state, lambda s: Int(b, s[0]) < end, more)
            with k.when(Int(b, portions) > 0):  # of an empty share it could come too late
                self._release(k, self._ticket(team, owner), Int(b, portions))

    def _ticket(self, team: Pointer, owner: Int) -> Pointer:
        return team.words(owner * LINES + TEAM_TICKETS)

    def take_part(self) -> None:
        """Do portions of the current phase as long as there are some, its own thread's first; then
        go on to the next phase if this one is done, and else wait until somebody does.

        `seen`: the serial, read before this.
        """
        arguments = [("team", TABLE), ("thread", I64), ("seen", I64)]
        k = self._function("take_part", arguments, inside=True)
        self.take_part_function = k.function
        b, team, thread, seen = k.builder, *(k.args[name] for name, _ in arguments)
        width = self._read(k, team.words(TEAM_WIDTH))

        def look(state: list[Any]) -> list[Any]:
            turn, owner, done = (Int(b, s) for s in state)
            done = self._take(k, team, owner, done)
            following = owner + 1
            return [(turn + 1).raw, k.select(following < width, following, 0).raw, done.raw]

        turns = k.select(thread < width, width, 0)
        state = [k.int(0).raw, thread.raw, k.int(0).raw]
        done = Int(b, k.repeat(state, lambda s: Int(b, s[0]) < turns, look)[2])
        with k.when(done > 0):
            with k.when(thread.equals(0)):
                k.store_int(k.load_int(team.words(TEAM_OWN)) + done, team.words(TEAM_OWN))
            left = self._add(k, team.words(TEAM_COUNT), 0 - done, "acq_rel")
            with k.when(left.equals(done)):
                phase = k.load_pointer(team.words(TEAM_PHASE))
                following = phase.words(PHASE_WORDS)
                b.call(self.advance_function, [team.raw, thread.raw, following.raw])
                b.ret_void()
        start = self._ticks(k)
        self._wait(k, team, seen)
        with k.when(thread.equals(0)):
            self._spend(k, team.words(TEAM_WAITED), start)
        k.finish()

    def _take(self, k: Kernel, team: Pointer, owner: Int, done: Int) -> Int:
        """Work on portions of one thread's share until it is used up; `done` and the tasks that
        these were."""
        b, ticket = k.builder, self._ticket(team, owner)
        look, take, some, none = (b.append_basic_block(n) for n in ("look", "take", "some", "none"))
        before = b.block
        b.branch(look)
        b.position_at_end(look)
        total = b.phi(I64)
        total.add_incoming(done.raw, before)
        b.cbranch(self._read(k, ticket) > 0, take, none)
        b.position_at_end(take)
        left = self._add(k, ticket, -1, "acquire")
        b.cbranch(left > 0, some, none)
        b.position_at_end(some)
        tasks = self._portion(k, team, owner, left)
        total.add_incoming((Int(b, total) + tasks).raw, b.block)
        b.branch(look)
        b.position_at_end(none)
        return Int(b, total)

    def _portion(self, k: Kernel, team: Pointer, owner: Int, left: Int) -> Int:
        """Do a portion of a thread's share; gives its tasks. `left`: how many there were with it,
        so that 1 is the last of the phase's last step."""
        b, thread = k.builder, k.args["thread"]
        call = k.load_pointer(team.words(TEAM_CALL))
        phase = k.load_pointer(team.words(TEAM_PHASE))
        width = k.load_int(team.words(TEAM_WIDTH))
        final = k.load_int(phase.words(PHASE_FIRST)) + k.load_int(phase.words(PHASE_STEPS)) - 1

        def portions(state: list[Any]) -> Int:
            return self._share(k, call, Int(b, state[0]), owner, width)[2]

        def earlier(state: list[Any]) -> list[Any]:
            return [(Int(b, state[0]) - 1).raw, (Int(b, state[1]) - portions(state)).raw]

        state = k.repeat([final.raw, left.raw], lambda s: Int(b, s[1]) > portions(s), earlier)
        number, left = (Int(b, s) for s in state)
        begin, size, count = self._share(k, call, number, owner, width)
        place = count - left
        after = size - Int(b, b.lshr(size.raw, (place + 1).raw))
        first = size - Int(b, b.lshr(size.raw, place.raw))
        last = k.select(left.equals(1), size, after)
        self._work(k, call, number, begin + first, begin + last, thread)
        return last - first

    # -- threads ----------------------------------------------------------------------------

    def worker(self) -> None:
        """lucid_worker: the life of a team's thread, until the team has no threads any more. While
        it has, but none of this number, the thread sleeps."""
        arguments = [("team", TABLE), ("thread", I64)]
        k = self._function("lucid_worker", arguments)
        b, team, thread = k.builder, k.args["team"], k.args["thread"]
        note_thread(k, team, thread)
        state = self._enter(k)
        going, size = team.words(TEAM_SERIAL), team.words(TEAM_THREADS)

        def rest(threads: Int) -> None:
            self._sleep(k, team, threads, TEAM_THREADS)

        def work() -> None:
            seen = self._read(k, going)
            b.call(self.take_part_function, [team.raw, thread.raw, seen.raw])

        def live(state: list[Any]) -> list[Any]:
            threads = Int(b, state[0])
            k.either(thread < threads, work, lambda: rest(threads))
            return [self._read(k, size).raw]

        k.repeat([self._read(k, size).raw], lambda s: Int(b, s[0]) > 0, live)
        self._leave(k, state)
        k.finish()

    def submit(self) -> None:
        """lucid_submit: have a call done by the whole team, this thread being number 0.

        Notes in `IN_VAIN` whether half of the threads would have taken no longer: whether this one
        waited more than half of the time for portions that others held, or did nearly all itself.
        """
        arguments = [("team", TABLE), ("call", TABLE)]
        k = self._function("lucid_submit", arguments, I64)
        b, team, call = k.builder, k.args["team"], k.args["call"]
        threads = k.load_int(team.words(TEAM_THREADS))
        in_vain = team.words(TEAM_IN_VAIN)
        k.store_int(k.int(0), in_vain)
        with k.when(threads <= 1):
            b.ret(b.call(self.run_function, [call.raw]))
        self._check_version(k, call)
        keep_clear(k, team, threads)
        state = self._enter(k)
        start = self._ticks(k)
        self._note_caller(k, call, PROFILE_START)
        noted = [team.words(w) for w in (TEAM_WAITED, TEAM_ALONE, TEAM_OWN, TEAM_SHARED)]
        for word in noted:
            k.store_int(k.int(0), word)
        self._release(k, team.words(TEAM_CALL), call)
        phases = k.load_pointer(call.words(CALL_PHASES))
        b.call(self.advance_function, [team.raw, k.int(0).raw, phases.raw])
        serial, current = team.words(TEAM_SERIAL), team.words(TEAM_CALL)

        def take_part(state: list[Any]) -> list[Any]:
            b.call(self.take_part_function, [team.raw, k.int(0).raw, state[0]])
            return [self._read(k, serial).raw]

        def unfinished(_: list[Any]) -> Any:
            return self._read(k, current).compare("!=", 0)

        k.repeat([self._read(k, serial).raw], unfinished, take_part)
        waited, alone, own, shared = map(k.load_int, noted)
        held_up = (waited - alone) * 2 > self._ticks(k) - start
        by_itself = k.both(own * LONE > shared * (LONE - 1), shared > 0)
        k.store_int(k.select(k.either_of(held_up, by_itself), 1, 0), in_vain)
        self._note_caller(k, call, PROFILE_END)
        self._leave(k, state)
        k.finish(ir.Constant(I64, 0))

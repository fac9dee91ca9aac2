"""The native runtime: `lucid_run`, which walks a Program's table, and the loop of a team's threads.

Every thread of a team runs the same table (SPMD): of each call's tasks it takes its own share, one
stretch of them, then what others have left of theirs, and waits at a barrier where a phase begins.
Neighbouring tasks read and write neighbouring memory, so that from call to call a thread finds most
of what it reads in its own cache: on two threads a depthwise convolution whose input lay in the
other's took as long as on one. Waiting spins for a while and then sleeps on a futex. Everything the
code needs comes through the tables laid out below, so the object has no undefined symbols.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.kernel import KernelSpec
from lucid.codegen.language.values import I32, I64, PTR, VOID, Int, Pointer, PointerTo
from lucid.codegen.target import Target

# Words of the tables. What all threads wait for has two cache lines (sixteen words) of its own,
# since some machines have lines of 128 bytes. The task counters of one thread lie side by side, one
# for each call: one is busy at a time.
STEP_WORDS = 4
STEP_CODE, STEP_ARGUMENTS, STEP_TASKS, STEP_BARRIER = range(STEP_WORDS)
CALL_WORDS = 16
(
    CALL_VERSION,
    CALL_STEPS,
    CALL_STEP_COUNT,
    CALL_BUFFERS,
    CALL_SCRATCH,
    CALL_SCRATCH_BYTES,
    CALL_COUNTERS,
    CALL_BARRIER,
    CALL_PROFILE,
    CALL_SYSCALL,
    CALL_SPINS,
    CALL_COUNTER_WORDS,
) = range(12)
VERSION = 2
PORTIONS = 4
"""Of a thread's share, that are taken one after the other: what may be left to others."""
BARRIER_WORDS = 48
BARRIER_ARRIVED, BARRIER_GENERATION, BARRIER_SLEEPERS = 0, 16, 32
TEAM_WORDS = 64
TEAM_EPOCH, TEAM_SLEEPERS, TEAM_REMAINING, TEAM_WAITERS = 0, 16, 32, 40
TEAM_CALL, TEAM_THREADS, TEAM_STOP, TEAM_SYSCALL, TEAM_SPINS = range(48, 53)

FUTEX_WAIT_PRIVATE, FUTEX_WAKE_PRIVATE = 128, 129
EVERYONE = 0x7FFFFFFF
FLUSH_TO_ZERO_X86 = 0x8040  # MXCSR: denormals are zero, flush to zero
FLUSH_TO_ZERO_ARM = 1 << 24  # FPCR.FZ

KERNEL_TYPE = ir.FunctionType(VOID, [PTR, PTR, I64, I64, PTR])
TABLE = PointerTo(I64)
SYSCALL_TYPE = ir.FunctionType(I64, [I64, PTR, I64, I64, I64, I64, I64])


def counter_words(steps: int) -> int:
    """From one thread's counters to the next one's: two cache lines lie between those in use."""
    return steps + 16


@dataclass(frozen=True)
class Driver(KernelSpec):
    """`lucid_run(call, thread, threads)`, `lucid_worker(team, thread)`, `lucid_submit(team, call)`.

    `profiled`: each thread notes the clock before and after each step and at each barrier, three
    words a step, in the call's profile table.
    """

    family: ClassVar[str] = "driver"
    exports: ClassVar[tuple[str, ...]] = ("lucid_run", "lucid_worker", "lucid_submit")
    profiled: bool = False

    def emit(self, target: Target) -> ir.Module:
        module = ir.Module("driver")
        module.triple = target.triple
        emitter = _DriverEmitter(module, target, self.profiled)
        emitter.run()
        emitter.worker()
        emitter.submit()
        return module


class _DriverEmitter:
    def __init__(self, module: ir.Module, target: Target, profiled: bool) -> None:
        self.module = module
        self.target = target
        self.profiled = profiled
        self.run_function: Any = None

    # -- atomics, waiting -------------------------------------------------------------------

    def _read(self, k: Kernel, address: Pointer) -> Int:
        """An atomic load, with acquire order."""
        return Int(k.builder, k.builder.load_atomic(address.raw, "acquire", 8, typ=I64))

    def _add(self, k: Kernel, address: Pointer, value: int | Int) -> Int:
        """Atomic addition; gives the value before."""
        raw = k.builder.atomic_rmw("add", address.raw, k.int(value).raw, "seq_cst")
        return Int(k.builder, raw)

    def _exchange(self, k: Kernel, address: Pointer, value: int | Int) -> None:
        k.builder.atomic_rmw("xchg", address.raw, k.int(value).raw, "seq_cst")

    def _pause(self, k: Kernel) -> None:
        if self.target.is_x86:
            k.builder.call(k.intrinsic("llvm.x86.sse2.pause", VOID, []), [])
        else:
            hint = k.intrinsic("llvm.aarch64.hint", VOID, [I32])
            k.builder.call(hint, [ir.Constant(I32, 1)])

    def _futex(self, k: Kernel, syscall: Pointer, word: Pointer, action: int, value: Any) -> None:
        zero = k.int(0)
        arguments = [k.int(self.target.futex), word, k.int(action), value, zero, zero, zero]
        k.call(syscall, SYSCALL_TYPE, arguments)

    def _wake(self, k: Kernel, syscall: Pointer, word: Pointer, sleepers: Pointer) -> None:
        with k.when(self._read(k, sleepers) > 0):
            self._futex(k, syscall, word, FUTEX_WAKE_PRIVATE, k.int(EVERYONE))

    def _wait(
        self, k: Kernel, word: Pointer, old: Int, sleepers: Pointer, syscall: Pointer, spins: Int
    ) -> None:
        """Until `word` is no longer `old`: spin, then sleep."""
        b = k.builder
        spin, sleep, done = (b.append_basic_block(n) for n in ("spin", "sleep", "waited"))
        nap, woken = b.append_basic_block("nap"), b.append_basic_block("woken")
        before = b.block
        b.branch(spin)
        b.position_at_end(spin)
        count = b.phi(I64)
        count.add_incoming(ir.Constant(I64, 0), before)
        again = b.append_basic_block("again")
        b.cbranch(self._read(k, word).equals(old), again, done)
        b.position_at_end(again)
        self._pause(k)
        following = Int(k.builder, count) + 1
        count.add_incoming(following.raw, again)
        b.cbranch(following < spins, spin, sleep)
        b.position_at_end(sleep)
        self._add(k, sleepers, 1)
        b.branch(nap)
        b.position_at_end(nap)
        asleep = b.append_basic_block("asleep")
        b.cbranch(self._read(k, word).equals(old), asleep, woken)
        b.position_at_end(asleep)
        self._futex(k, syscall, word, FUTEX_WAIT_PRIVATE, old)
        b.branch(nap)
        b.position_at_end(woken)
        self._add(k, sleepers, -1)
        b.branch(done)
        b.position_at_end(done)

    def _barrier(self, k: Kernel, call: Pointer, threads: Int) -> None:
        """The last thread to arrive opens it for all."""
        barrier = k.load_pointer(call.words(CALL_BARRIER))
        syscall = k.load_pointer(call.words(CALL_SYSCALL))
        word, sleepers = barrier.words(BARRIER_GENERATION), barrier.words(BARRIER_SLEEPERS)
        generation = self._read(k, word)
        arrived = self._add(k, barrier.words(BARRIER_ARRIVED), 1)

        def open_it() -> None:
            self._exchange(k, barrier.words(BARRIER_ARRIVED), 0)
            self._exchange(k, word, generation + 1)
            self._wake(k, syscall, word, sleepers)

        def wait() -> None:
            spins = k.load_int(call.words(CALL_SPINS))
            self._wait(k, word, generation, sleepers, syscall, spins)

        k.either(arrived.equals(threads - 1), open_it, wait)

    # -- rounding mode ----------------------------------------------------------------------

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

    # -- the functions ----------------------------------------------------------------------

    def run(self) -> None:
        """lucid_run: this thread's share of every step."""
        arguments = [("call", TABLE), ("thread", I64), ("threads", I64)]
        k = Kernel(self.module, self.target, "lucid_run", arguments, I64)
        self.run_function = k.function
        call, thread, threads = (k.args[n] for n, _ in arguments)
        version = k.load_int(call.words(CALL_VERSION))
        with k.when(version.compare("!=", VERSION)):
            k.builder.ret(ir.Constant(I64, 1))
        rounding = self._flush_to_zero(k)
        steps = k.load_pointer(call.words(CALL_STEPS))
        count = k.load_int(call.words(CALL_STEP_COUNT))
        stride = k.load_int(call.words(CALL_SCRATCH_BYTES))
        scratch = k.load_pointer(call.words(CALL_SCRATCH)).bytes(thread * stride)
        profile = k.load_pointer(call.words(CALL_PROFILE)) if self.profiled else None
        with k.loop(0, count) as loop:
            step = steps.words(loop.index * STEP_WORDS)
            row = profile and profile.words((thread * count + loop.index) * 3)
            self._stamp(k, row, 0)
            barrier = k.load_int(step.words(STEP_BARRIER))
            with k.when(k.both(barrier > 0, threads > 1)):
                self._barrier(k, call, threads)
            self._stamp(k, row, 1)
            self._step(k, call, step, loop.index, scratch, thread, threads)
            self._stamp(k, row, 2)
        self._restore_rounding(k, rounding)
        k.finish(ir.Constant(I64, 0))

    def _stamp(self, k: Kernel, row: Pointer | None, place: int) -> None:
        if row is not None:
            clock = k.intrinsic("llvm.readcyclecounter", I64, [])
            k.store_int(Int(k.builder, k.builder.call(clock, [])), row.words(place))

    def _step(
        self,
        k: Kernel,
        call: Pointer,
        step: Pointer,
        index: Int,
        scratch: Pointer,
        thread: Int,
        threads: Int,
    ) -> None:
        """Take tasks, a few at a time, until none is left: first the thread's own, then those of
        the thread after it, and so on."""
        tasks = k.load_int(step.words(STEP_TASKS))
        code = k.load_pointer(step.words(STEP_CODE))
        arguments = k.load_pointer(step.words(STEP_ARGUMENTS))
        buffers = k.load_pointer(call.words(CALL_BUFFERS))
        words = k.load_int(call.words(CALL_COUNTER_WORDS))
        counters = k.load_pointer(call.words(CALL_COUNTERS)).words(index)
        with k.loop(0, threads) as turn:
            owner = (thread + turn.index) % threads
            begin, end = tasks * owner // threads, tasks * (owner + 1) // threads
            counter = counters.words(owner * words)
            portion = k.select(threads > 1, (end - begin) // PORTIONS, end - begin).maximum(1)

            def work(first: Int, end: Int = end, portion: Int = portion) -> None:
                last = (first + portion).minimum(end)
                k.call(code, KERNEL_TYPE, [arguments, buffers, first, last, scratch])

            with k.when(begin + self._read(k, counter) < end):
                self._take(k, counter, begin, end, portion, work)

    def _take(
        self,
        k: Kernel,
        counter: Pointer,
        begin: Int,
        end: Int,
        portion: Int,
        work: Callable[[Int], None],
    ) -> None:
        """Work on portions of one share until it is used up."""
        b = k.builder
        take, some, done = (b.append_basic_block(n) for n in ("take", "some", "done"))
        b.branch(take)
        b.position_at_end(take)
        first = begin + self._add(k, counter, portion)
        b.cbranch(first < end, some, done)
        b.position_at_end(some)
        work(first)
        b.branch(take)
        b.position_at_end(done)

    def worker(self) -> None:
        """lucid_worker: the life of a team's thread, from epoch to epoch until told to stop."""
        arguments = [("team", TABLE), ("thread", I64)]
        k = Kernel(self.module, self.target, "lucid_worker", arguments)
        b, team, thread = k.builder, k.args["team"], k.args["thread"]
        syscall = k.load_pointer(team.words(TEAM_SYSCALL))
        start, live, stop = (b.append_basic_block(n) for n in ("start", "live", "stop"))
        before = b.block
        b.branch(start)
        b.position_at_end(start)
        seen = b.phi(I64)
        seen.add_incoming(ir.Constant(I64, 0), before)
        word = team.words(TEAM_EPOCH)
        spins = k.load_int(team.words(TEAM_SPINS))
        self._wait(k, word, Int(k.builder, seen), team.words(TEAM_SLEEPERS), syscall, spins)
        epoch = self._read(k, word)
        b.cbranch(k.load_int(team.words(TEAM_STOP)) > 0, stop, live)
        b.position_at_end(live)
        call = k.load_pointer(team.words(TEAM_CALL))
        threads = k.load_int(team.words(TEAM_THREADS))
        b.call(self.run_function, [call.raw, thread.raw, threads.raw])
        remaining = team.words(TEAM_REMAINING)
        self._add(k, remaining, -1)
        self._wake(k, syscall, remaining, team.words(TEAM_WAITERS))
        seen.add_incoming(epoch.raw, b.block)
        b.branch(start)
        b.position_at_end(stop)
        k.finish()

    def submit(self) -> None:
        """lucid_submit: run a call on the whole team, this thread being number 0."""
        arguments = [("team", TABLE), ("call", TABLE)]
        k = Kernel(self.module, self.target, "lucid_submit", arguments, I64)
        b, team, call = k.builder, k.args["team"], k.args["call"]
        threads = k.load_int(team.words(TEAM_THREADS))
        syscall = k.load_pointer(team.words(TEAM_SYSCALL))
        k.store_pointer(call, team.words(TEAM_CALL))
        remaining = team.words(TEAM_REMAINING)
        self._exchange(k, remaining, threads - 1)
        self._add(k, team.words(TEAM_EPOCH), 1)
        self._wake(k, syscall, team.words(TEAM_EPOCH), team.words(TEAM_SLEEPERS))
        status = b.call(self.run_function, [call.raw, ir.Constant(I64, 0), threads.raw])
        check, wait, done = (b.append_basic_block(n) for n in ("check", "wait", "done"))
        b.branch(check)
        b.position_at_end(check)
        left = self._read(k, remaining)
        b.cbranch(left > 0, wait, done)
        b.position_at_end(wait)
        spins = k.load_int(team.words(TEAM_SPINS))
        self._wait(k, remaining, left, team.words(TEAM_WAITERS), syscall, spins)
        b.branch(check)
        b.position_at_end(done)
        k.finish(status)

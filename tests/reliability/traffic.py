"""Traffic: Python threads call compiled models, through Batchers and asyncio too, while others
compile, swap weights, change policies and fork.

`python -m tests.reliability.traffic [--seconds N] [--threads N]` checks each result bit by bit, and
says what the process holds as it goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

import lucid
from lucid.runtime.admission import POLICIES
from lucid.runtime.processors import default_threads
from tests.reliability.memory import Held, Net

SIDES = (16, 12)
IMAGES = np.random.default_rng(0).standard_normal((20, 3, 16, 16)).astype(np.float32)


@dataclass
class Served:
    """A compiled model, and what it gives for `IMAGES` of each side with each of its two
    checkpoints."""

    model: lucid.CompiledModel
    checkpoints: list[dict[str, np.ndarray]]
    wanted: dict[int, list[np.ndarray]] = field(default_factory=dict)

    @staticmethod
    def of(number: int, threads: int) -> Served:
        net = Net(number)
        first = {name: np.asarray(t) for name, t in net.state_dict().items()}
        second = {name: np.flip(t).copy() for name, t in first.items()}
        served = Served(lucid.compile(net, (1, 3, 16, 16), threads=threads), [second, first])
        for checkpoint in served.checkpoints:
            served.model.load_weights(checkpoint)
            for side in SIDES:
                served.wanted.setdefault(side, []).append(served.model(images(side)))
        return served

    def check(
        self,
        first: int,
        last: int,
        side: int = SIDES[0],
        call: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        """Call it with some of the images: the result is that of one of the checkpoints."""
        result = (call or self.model)(images(side)[first:last])
        rows = [w[first:last] for w in self.wanted[side]]
        assert any(np.array_equal(result, w) for w in rows), "a wrong result"


def images(side: int) -> np.ndarray:
    return np.ascontiguousarray(IMAGES[:, :, :side, :side])


@dataclass
class Traffic:
    """Threads that do their work over and over until time is up. `failures`: what went wrong."""

    seconds: float
    done: Counter[str] = field(default_factory=Counter)
    failures: list[BaseException] = field(default_factory=list)

    def run(self, works: list[tuple[str, Callable[[int], object]]]) -> None:
        end = time.monotonic() + self.seconds

        def working(name: str, work: Callable[[int], object]) -> None:
            count = 0
            try:
                while time.monotonic() < end and not self.failures:
                    work(count)
                    count += 1
            except BaseException as error:
                self.failures.append(error)
            self.done[name] += count

        threads = [threading.Thread(target=working, args=work) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(self.seconds + 120)
            assert not thread.is_alive(), "a thread hangs"


def fork_and_call(served: Served) -> None:
    """A forked child gets the right result, and soon."""
    child = os.fork()
    if child == 0:
        try:
            served.check(0, 5)
            os._exit(0)
        except BaseException:
            os._exit(1)
    for _ in range(6000):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0, "a forked child failed"
            return
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("a forked child hangs")


def move_about(count: int) -> None:
    """Give the process other processors."""
    everywhere = sorted(_PROCESSORS)
    os.sched_setaffinity(0, everywhere if count % 2 else everywhere[:1])
    time.sleep(0.02)


_PROCESSORS = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def traffic(seconds: float, callers: int = 8, forks: bool = True) -> Traffic:
    """Callers on models with 1 thread, 2 and more than there are cores, one of them shared by all;
    meanwhile models are compiled and dropped, weights swapped, children forked, processors
    changed."""
    counts = (1, 2, 3 * default_threads() + 1)
    shared = Served.of(7, 2)
    served = [Served.of(100 + n, threads) for n, threads in enumerate(counts)]
    numbers = itertools.count(1000)
    batcher = lucid.Batcher(shared.model, max_queue=callers)

    def some(caller: int, count: int) -> tuple[int, int, int]:
        first = (count * 7 + caller) % 19
        return first, first + 1 + count % (20 - first), SIDES[count % 3 == 0]

    def call(caller: int, count: int) -> None:
        one = shared if count % 2 else served[caller % len(served)]
        one.check(*some(caller, count))

    def submit(caller: int, count: int) -> None:
        shared.check(*some(caller, count), lambda x: batcher.submit(x).result(60))

    def wait_for(count: int) -> None:
        shared.check(*some(0, count), lambda x: asyncio.run(shared.model.acall(x)))

    def change_policy(count: int) -> None:
        shared.model.queue_policy = list(POLICIES)[count % len(POLICIES)]
        time.sleep(0.01)

    def compile_another(count: int) -> None:
        Served.of(next(numbers) % 4096, 1 + count % 2).check(0, 3)

    def swap(count: int) -> None:
        one = [shared, *served][count % 4]
        one.model.load_weights(one.checkpoints[count // 4 % 2])
        time.sleep(0.005)

    def work(name: str, function: Callable[..., object], *given: object):  # type: ignore[no-untyped-def]
        return name, lambda count: function(*given, count)

    works = [work("calls", call, n) for n in range(callers)]
    works += [work("requests", submit, n) for n in range(callers // 2)]
    works += [work("awaited calls", wait_for), work("changes of policy", change_policy)]
    works += [work("compilations", compile_another), work("swaps of weights", swap)]
    if _PROCESSORS:
        works.append(work("changes of processors", move_about))
    if forks:
        works.append(work("forks", lambda count: fork_and_call(served[count % 3])))
    run = Traffic(seconds)
    try:
        with batcher:
            run.run(works)
        told = batcher.statistics()
        assert told.requests == run.done["requests"] or run.failures, "a request is lost"
    finally:
        if _PROCESSORS:
            os.sched_setaffinity(0, _PROCESSORS)
    return run


def watch(seconds: float) -> None:
    """Say what the process holds, ten times."""
    for number in range(1, 10):
        time.sleep(seconds / 10)
        print(f"after {number * seconds / 10:.0f} s: {Held.now()}", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--threads", type=int, default=8)
    chosen = options.parse_args()
    watching = threading.Thread(target=watch, args=(chosen.seconds,), daemon=True)
    watching.start()
    run = traffic(chosen.seconds, chosen.threads)
    print(f"in the end: {Held.now()}")
    print(", ".join(f"{count} {name}" for name, count in run.done.items()))
    for failure in run.failures:
        print(f"FAILED: {type(failure).__name__}: {failure}")
    sys.exit(1 if run.failures else 0)


if __name__ == "__main__":
    main()

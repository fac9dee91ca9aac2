"""How far two cores are from each other: what a cache line takes from one to the other.

python benchmarks/core_distance.py           # nanoseconds

Cores that share a cache are nearer than those that do not, and a virtual machine's few processors
may be either, now these and then those.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import time

import llvmlite.binding as llvm
import numpy as np

ROUNDS = 1000
SERIES = 20

SOURCE = """
define void @pass(ptr %word, i64 %first, i64 %rounds) {
entry:
  br label %round
round:
  %i = phi i64 [0, %entry], [%next, %mine]
  %twice = shl i64 %i, 1
  %wanted = add i64 %first, %twice
  br label %wait
wait:
  %seen = load atomic i64, ptr %word seq_cst, align 8
  %arrived = icmp eq i64 %seen, %wanted
  br i1 %arrived, label %mine, label %wait
mine:
  %passed = add i64 %wanted, 1
  store atomic i64 %passed, ptr %word seq_cst, align 8
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %rounds
  br i1 %more, label %round, label %done
done:
  ret void
}"""


class Passing:
    """Two threads, each on a processor of its own, that write one word in turns."""

    def __init__(self) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine(opt=2)
        self._jit = llvm.create_mcjit_compiler(llvm.parse_assembly(SOURCE), machine)
        self._jit.finalize_object()
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
        self._pass = kind(self._jit.get_function_address("pass"))
        self._line = np.zeros(64, np.int64)
        self._word = -(-self._line.ctypes.data // 256) * 256

    def nanoseconds(self, processors: tuple[int, int]) -> float:
        """The least of some series: of one way."""
        ctypes.c_int64.from_address(self._word).value = 0
        taken: list[float] = []

        def series(number: int) -> None:
            os.sched_setaffinity(0, {processors[number]})
            for begin in range(0, 2 * ROUNDS * SERIES, 2 * ROUNDS):
                start = time.perf_counter()
                self._pass(self._word, begin + number, ROUNDS)
                taken.append((time.perf_counter() - start) / (2 * ROUNDS))

        threads = [threading.Thread(target=series, args=(number,)) for number in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return 1e9 * min(taken)


@functools.cache
def passing() -> Passing:
    """Compiled once, as it is measured again and again."""
    return Passing()


def measure() -> float:
    """Nanoseconds between the first two processors; NaN where there are not two, or the system
    does not say."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(allowed) < 2:
        return float("nan")
    return passing().nanoseconds((allowed[0], allowed[1]))


if __name__ == "__main__":
    print(round(measure()))

"""The most a processor can do: independent chains of its widest fused multiply-adds.

python benchmarks/fma_peak.py [threads]      # GFLOP/s
"""

import ctypes
import sys
import threading
import time

import llvmlite.binding as llvm
import numpy as np

TRIPS = 1_000_000
UNROLL = 4


class FmaLoop:
    """A compiled loop of nothing but multiply-adds; one `run` is `flops` operations."""

    def __init__(self, threads: int, widest: int = 16) -> None:
        """`widest`: the most floats a vector may hold."""
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        features = llvm.get_host_cpu_features()
        lanes = 16 if features.get("avx512f") else 8 if features.get("avx2") else 4
        lanes = min(lanes, widest)
        chains = 12 if lanes == 8 else 24  # of 16 registers with AVX2, else of 32; two hold x and y
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=features.flatten(), opt=2
        )
        self._jit = llvm.create_mcjit_compiler(llvm.parse_assembly(source(lanes, chains)), machine)
        self._jit.finalize_object()
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
        self._loop = kind(self._jit.get_function_address("peak"))
        self._data = np.zeros((threads, 1024), np.float32)  # a page each: no shared cache line
        self._data[:, :lanes] = 0.5  # q = q * 0.5 + 1 stays finite
        self._data[:, lanes : 2 * lanes] = 1
        self.flops = 2 * lanes * chains * UNROLL * TRIPS * threads

    def run(self) -> np.ndarray:
        """Run the loop on every thread at once; the rows of the result are x, y, last chain."""
        threads = [
            threading.Thread(target=self._loop, args=(row.ctypes.data, TRIPS)) for row in self._data
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self._data


def source(lanes: int, chains: int) -> str:
    """LLVM IR of `peak(data, trips)`; data holds the vectors x, y and room for a third."""
    vector = f"<{lanes} x float>"
    each = range(chains)
    phis = [f"%q{c}.0 = phi {vector} [%x, %entry], [%q{c}.{UNROLL}, %loop]" for c in each]
    steps = [
        f"%q{c}.{u + 1} = call {vector} @llvm.fma.v{lanes}f32"
        f"({vector} %q{c}.{u}, {vector} %x, {vector} %y)"
        for u in range(UNROLL)
        for c in each
    ]
    # Volatile, or all chains but the last would be dead code.
    stores = [f"store volatile {vector} %q{c}.{UNROLL}, ptr %to, align 4" for c in each]
    line = "\n  "
    return f"""
declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})
define void @peak(ptr %data, i64 %trips) {{
entry:
  %x = load {vector}, ptr %data, align 4
  %from = getelementptr float, ptr %data, i64 {lanes}
  %y = load {vector}, ptr %from, align 4
  %to = getelementptr float, ptr %data, i64 {2 * lanes}
  br label %loop
loop:
  {line.join(phis)}
  %i = phi i64 [0, %entry], [%next, %loop]
  {line.join(steps)}
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %trips
  br i1 %more, label %loop, label %done
done:
  {line.join(stores)}
  ret void
}}"""


def measure(threads: int, runs: int = 10) -> float:
    """GFLOP/s of the fastest of `runs` runs."""
    loop = FmaLoop(threads)
    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        loop.run()
        best = min(best, time.perf_counter() - start)
    return loop.flops / best / 1e9


if __name__ == "__main__":
    print(round(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 1), 1))

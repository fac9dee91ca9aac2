"""Models emitted as C beside the same models in Python: bits, time of a call, time of `create`.

    python benchmarks/emitted.py resnest_50 net.onnx --threads 2

Calls of Python and of the shared library take turns in one process, and the least time of each
counts: of one thread that of the processor, else that of the clock.

    CC="python -m ziglang cc -target aarch64-linux-gnu" QEMU_LD_PREFIX=/usr/aarch64-linux-gnu \\
        python benchmarks/emitted.py resnest_50 net.onnx --targets aarch64,aarch64-dotprod

With targets that are for another processor it compares bits alone, under qemu-user: those of the
program that links the static library, of one that links the shared one (which finds its C library
in QEMU_LD_PREFIX), and those of the model as a process of Python binds, loads and calls it. The
last is what the tests of code for aarch64 make: a program of the compiled model's own tables, laid
out and relocated by Lucid's loader.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import lucid
from lucid.cli.subject import load_subject
from lucid.codegen.target import Target
from lucid.runtime.executable import CompiledModel
from lucid.runtime.saving import payload_of, programs_of, schedules_of

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import c_dump
import emulated
from c_library import Library

CALLS = 3
"""In a row, of either."""
PATIENCE = 3600
"""Seconds for a call under qemu."""


def least(calls: dict[str, Callable[[], object]], threads: int, seconds: float) -> dict[str, float]:
    """Milliseconds of each call at its quickest."""
    clock = time.process_time if threads == 1 else time.perf_counter
    best = dict.fromkeys(calls, float("inf"))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, call in calls.items():
            for _ in range(CALLS):
                start = clock()
                call()
                best[name] = min(best[name], 1000 * (clock() - start))
    return best


def called(model: str, threads: int) -> tuple[CompiledModel, list[Any], list[Any]]:
    """A model, arrays for it, and its results."""
    subject = load_subject(model, None)
    compiled = lucid.compile(subject.model, subject.shapes(), threads=threads)
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(s).astype(np.float32) for s in compiled.input_shapes or ()]
    results = compiled(*arrays)
    return compiled, arrays, list(results) if isinstance(results, list | tuple) else [results]


def compare(model: str, threads: int, seconds: float) -> str:
    """A line about one model."""
    compiled, arrays, wanted = called(model, threads)
    with tempfile.TemporaryDirectory() as folder:
        lucid.emit_c(compiled, folder, name="net", shared=True)
        library = Library(Path(folder), "net")
        start = time.perf_counter()
        status, handle = library.create(threads=threads)
        create = 1000 * (time.perf_counter() - start)
        assert status == "OK", status
        outs = [np.empty_like(array) for array in wanted]
        call = library.prepared(handle, arrays, outs)
        assert call() == 0
        same = all(map(np.array_equal, outs, wanted))
        program = c_dump.built(Path(folder), "net", compiled.target)
        found, _ = c_dump.outputs([program, library.weights, threads, 1], arrays, wanted)
        best = least({"Python": lambda: compiled(*arrays), "C": call}, threads, seconds)
        library.destroy(handle)
        megabytes = library.weights.stat().st_size / 1e6
    return (
        f"{model}, {compiled.target.name}: so {told(same)}, "
        f"c {told(all(map(np.array_equal, found, wanted)))}, Python {best['Python']:.3f} ms, "
        f"so {best['C']:.3f} ms ({best['C'] / best['Python']:.3f}), create {create:.0f} ms, "
        f"{megabytes:.1f} MB of weights"
    )


def told(same: bool) -> str:
    return "the same bits" if same else "OTHER BITS"


def compare_emulated(model: str, threads: int, targets: list[Target]) -> list[str]:
    """A line about one model for each target, all of which are in one library."""
    compiled, arrays, here = called(model, threads)
    snapshot, lines = compiled.snapshot(), []
    emulated.compiled = emulated.compiled_for(snapshot)
    ((shapes, plan),) = snapshot.plans.items()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        lucid.emit_c(compiled, folder, name="net", targets=[t.name for t in targets], shared=True)
        dumps = {
            kind: c_dump.built(folder, "net", targets[0], kind == "so") for kind in ("c", "so")
        }
        for target in targets:
            (program,) = programs_of(snapshot, plan, schedules_of(snapshot, target)[shapes], target)
            payload = payload_of(snapshot)
            wanted = emulated.emulate(
                program, payload, arrays, folder, target=target, seconds=PATIENCE
            )
            command = [emulated.EMULATOR, "-cpu", emulated.PROCESSORS[target.name]]
            bits = []
            for kind, dump in dumps.items():
                own = [*command, dump, folder / "net.bin", threads, 1]
                found, level = c_dump.outputs(own, arrays, wanted)
                assert level == target.name
                bits.append(f"{kind} {told(all(map(np.array_equal, found, wanted)))}")
            off = max(
                float(np.abs(a - b).max() / np.abs(b).max())
                for a, b in zip(wanted, here, strict=True)
            )
            from_here = f"{off:.1e} from those of {compiled.target.name}"
            lines.append(f"{model}, {target.name}: {', '.join(bits)}; {from_here}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--targets", type=lambda names: list(map(Target.named, names.split(","))))
    given = parser.parse_args()
    for model in given.models:
        if given.targets:
            print(*compare_emulated(model, given.threads, given.targets), sep="\n", flush=True)
        else:
            print(compare(model, given.threads, given.seconds), flush=True)


if __name__ == "__main__":
    main()

"""Models emitted as C beside the same models in Python: bits, time of a call, time of `create`.

    python benchmarks/emitted.py resnest_50 net.onnx --threads 2

Calls of both take turns in one process, and the least time of each counts: of one thread that of
the processor, else that of the clock.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import lucid
from lucid.cli.subject import load_subject

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from c_library import Library

CALLS = 3
"""In a row, of either."""


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


def compare(model: str, threads: int, seconds: float) -> str:
    """A line about one model."""
    subject = load_subject(model, None)
    compiled = lucid.compile(subject.model, subject.shapes(), threads=threads)
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(s).astype(np.float32) for s in compiled.input_shapes or ()]
    results = compiled(*arrays)
    wanted = list(results) if isinstance(results, list | tuple) else [results]
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
        best = least({"Python": lambda: compiled(*arrays), "C": call}, threads, seconds)
        library.destroy(handle)
        megabytes = library.weights.stat().st_size / 1e6
    return (
        f"{model}: {'the same bits' if same else 'OTHER BITS'}, Python {best['Python']:.3f} ms, "
        f"C {best['C']:.3f} ms ({best['C'] / best['Python']:.3f}), create {create:.0f} ms, "
        f"{megabytes:.1f} MB of weights"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20)
    given = parser.parse_args()
    for model in given.models:
        print(compare(model, given.threads, given.seconds), flush=True)


if __name__ == "__main__":
    main()

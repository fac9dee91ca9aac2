"""A worker's side: one engine, which answers requests as JSON lines over pipes."""

from __future__ import annotations

import ctypes
import importlib.metadata
import itertools
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from engines import Caller, Engine
from job import Job
from reference import error, leaves, outputs

WARM = 2  # untimed runs of each caller before a timed burst


class Host:
    """What a worker can be asked; every public method is one request, its result the reply."""

    def __init__(self, name: str) -> None:
        self._engine = Engine.registry[name]()

    def prepare(self, **job: Any) -> dict[str, Any]:
        """What the engine does once before it is loaded, and the facts about it."""
        return self._engine.prepare(Job(**job))

    def load(self, **job: Any) -> dict[str, Any]:
        """Make the engine ready; the facts that it has about itself."""
        self._job = Job(**job)
        self._images = self._job.images()
        start = time.perf_counter()
        self._engine.load(self._job)
        seconds = time.perf_counter() - start
        self._callers: list[Caller] = [self._engine.run]
        if self._job.callers > 1:
            self._callers = [self._engine.caller() for _ in range(self._job.callers)]
            self._pool = ThreadPoolExecutor(self._job.callers)
        try:
            version = importlib.metadata.version(self._engine.package)
        except importlib.metadata.PackageNotFoundError:
            version = "?"
        return {"load": seconds, "version": version, **self._engine.facts}

    def check(self) -> dict[str, Any]:
        """The largest error of any output, as `reference.error` says."""
        found, expected = leaves(self._engine.run(self._images)), outputs(self._job)
        shapes = [np.shape(x) for x in found], [x.shape for x in expected]
        if shapes[0] != shapes[1]:
            raise ValueError(f"outputs have shapes {shapes[0]}, not {shapes[1]}")
        return {"error": error(found, expected)}

    def warm(self) -> dict[str, Any]:
        """Untimed runs of every caller, which bring caches and threads back."""
        self._run(WARM * len(self._callers))
        return {}

    def burst(self, runs: int) -> dict[str, Any]:
        """`runs` timed runs for each caller: seconds of each, and when all began and ended."""
        began = time.monotonic()
        seconds = self._run(runs * len(self._callers))
        return {"seconds": seconds, "began": began, "ended": time.monotonic()}

    def _run(self, runs: int) -> list[float]:
        """Run the callers at once until so many runs are done; a free one takes the next."""
        tickets = itertools.count()

        def work(call: Caller) -> list[float]:
            seconds = []
            while next(tickets) < runs:
                start = time.perf_counter()
                call(self._images)
                seconds.append(time.perf_counter() - start)
            return seconds

        if len(self._callers) == 1:
            return work(self._callers[0])
        return list(itertools.chain(*self._pool.map(work, self._callers)))

    def calls(self, seconds: float, callers: int) -> dict[str, Any]:
        """Callers at once, each of which calls again as soon as it is answered: seconds of each
        call, and of all of it."""
        start = time.perf_counter()

        def work(call: Caller) -> list[float]:
            taken, now = [], time.perf_counter()
            while now < start + seconds:
                call(self._images)
                before, now = now, time.perf_counter()
                taken.append(now - before)
            return taken

        return self._at_once(work, callers, start)

    def arrivals(self, seconds: float, rate: float, callers: int) -> dict[str, Any]:
        """Requests that come at random, `rate` a second on average, whether others are answered or
        not; `callers` threads take them. Seconds of each, from when it came."""
        gaps = np.random.default_rng(0).exponential(1 / rate, max(1, round(rate * seconds)))
        times, numbers = np.cumsum(gaps).tolist(), itertools.count()
        start = time.perf_counter()

        def work(call: Caller) -> list[float]:
            taken = []
            while (number := next(numbers)) < len(times):
                came = start + times[number]
                time.sleep(max(0.0, came - time.perf_counter()))
                call(self._images)
                taken.append(time.perf_counter() - came)
            return taken

        return self._at_once(work, callers, start)

    def _at_once(
        self, work: Callable[[Caller], list[float]], callers: int, start: float
    ) -> dict[str, Any]:
        made = [self._engine.caller() for _ in range(callers)]
        with ThreadPoolExecutor(callers) as pool:
            taken = list(itertools.chain(*pool.map(work, made)))
        return {"taken": taken, "seconds": time.perf_counter() - start}

    def memory(self) -> dict[str, Any]:
        """Peak resident memory of the whole process in MiB, interpreter and images included."""
        status = Path("/proc/self/status").read_text()
        return {"memory": int(status.split("VmHWM:")[1].split()[0]) / 1024}


def serve(name: str) -> None:
    """A worker's main loop: one JSON line in, one JSON line out, until the pipe closes."""
    # PR_SET_PDEATHSIG: a stopped worker would outlive a parent that was killed.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    wire = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no reply
    host = Host(name)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = getattr(host, request.pop("do"))(**request)
        except Exception as error:
            traceback.print_exc()
            reply = {"failure": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=wire, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])

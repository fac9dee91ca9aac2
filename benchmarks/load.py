"""Latency under load: Lucid and its peers beside busy processes, with a quota, with many callers.

    python benchmarks/load.py --model resnet_18 --threads 2 --json load.json
    python benchmarks/load.py --onnx reader.onnx --only busy callers --seconds 6
    python benchmarks/load.py --soak 30

Each engine is a process of its own, stopped (SIGSTOP) while it is not its turn, as in `peers.py`;
turns go round several times. A busy process is a loop in Python. A quota is set by a control group
before the engine is loaded, or, where none can be made, by stopping the process for a part of each
tenth of a second. Callers are threads of one process, which call one model as loaded for a single
caller. Random arrivals come at shares of the calls a second that the same engine has reached with
eight callers; a request counts from when it came. `--soak` lets everything happen at once
(`tests/reliability/traffic.py`), compares each result bit by bit, and says what memory the process
held at the start and in the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engines import Engine
from job import Job
from peers import cpu_name, jobs, prepare_engine, prepared
from worker import EngineError, Worker

ENGINES = ["lucid", "lucid 1 thread", "onnxruntime", "openvino"]
PARTS = ("busy", "quota", "callers", "arrivals")
PERCENTILES = (50, 90, 99)
ROUNDS = 3
"""Turns that the seconds of a measurement are divided among."""
CAPACITY_CALLERS = 8
ARRIVAL_CALLERS = 32
"""Threads that take random arrivals: enough that hardly any request waits for one."""
PERIOD = 0.1
"""Seconds of a quota's period, the kernel's default."""
GROUPS = Path("/sys/fs/cgroup")


@dataclass
class Measured:
    """Calls of one engine in one setting: seconds of each, and of all of it."""

    part: str
    setting: float
    engine: str
    taken: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, reply: dict[str, Any]) -> None:
        self.taken += reply["taken"]
        self.seconds += reply["seconds"]

    def figures(self) -> dict[str, Any]:
        """Milliseconds at percentiles, and calls a second."""
        found = 1000 * np.percentile(self.taken, [*PERCENTILES, 100])
        names = [*(f"p{p}" for p in PERCENTILES), "max"]
        told = {name: round(float(ms), 3) for name, ms in zip(names, found, strict=True)}
        where = {"part": self.part, "setting": self.setting, "engine": self.engine}
        each = {"calls": len(self.taken), "per_second": round(len(self.taken) / self.seconds, 2)}
        return where | each | told


# ---- what makes it hard --------------------------------------------------------------------------


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """So many other processes that do nothing but compute."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


class Quota:
    """A limit of so many processors for a worker's processes."""

    def __init__(self, worker: Worker, processors: float) -> None:
        self._worker = worker
        self._share = min(1.0, processors / len(os.sched_getaffinity(0)))
        quota, period = round(processors * PERIOD * 1e6), round(PERIOD * 1e6)
        version_1 = {"cpu.cfs_period_us": f"{period}", "cpu.cfs_quota_us": f"{quota}"}
        version_2 = {"cpu.max": f"{quota} {period}"}
        self.group = self._limited(GROUPS, version_2) or self._limited(GROUPS / "cpu", version_1)

    def _limited(self, above: Path, limits: dict[str, str]) -> Path | None:
        """The control group of the worker's processes, whose files are the system's; None where
        there are no such groups."""
        group = above / f"lucid-load-{self._worker.processes[0].pid}"
        try:
            group.mkdir()
            for name, text in limits.items():
                with (group / name).open("r+") as file:  # which is there
                    file.write(text)
            for process in self._worker.processes:
                with (group / "cgroup.procs").open("r+") as file:
                    file.write(str(process.pid))
        except OSError:
            with contextlib.suppress(OSError):
                group.rmdir()
            return None
        return group

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """The worker's turn, a part of which it is stopped for where there is no control group."""
        ended = threading.Event()
        stopping = threading.Thread(target=self._stop_and_go, args=(ended,))
        with self._worker.turn():
            if self.group is None:
                stopping.start()
            try:
                yield
            finally:
                ended.set()
                if self.group is None:
                    stopping.join()

    def _stop_and_go(self, ended: threading.Event) -> None:
        while not ended.wait(PERIOD * self._share):
            self._signal(signal.SIGSTOP)
            time.sleep(PERIOD * (1 - self._share))
            self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for process in self._worker.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)

    def close(self) -> None:
        """Once the worker is closed."""
        if self.group is not None:
            with contextlib.suppress(OSError):
                self.group.rmdir()


# ---- measuring -----------------------------------------------------------------------------------


class Bench:
    """The engines, loaded; `failures` of the others."""

    def __init__(self, job: Job, engines: Sequence[str], seconds: float) -> None:
        self.failures: dict[str, str] = {}
        self.workers: list[Worker] = []
        self._job = job
        self._turn = seconds / ROUNDS
        self._order = random.Random(0)
        for name in engines:
            try:
                prepare_engine(name, job, None)
                self.workers.append(self._loaded(name))
            except EngineError as error:
                self.failures[name] = str(error)

    def _loaded(self, name: str) -> Worker:
        """A worker of this engine, loaded and checked."""
        worker = Worker(name, self._job)
        try:
            with worker.turn():
                worker.load()
                if name != "peak":
                    worker.check()
        except EngineError:
            worker.close()
            raise
        return worker

    def close(self) -> None:
        for worker in self.workers:
            worker.close()

    def _rounds(
        self, part: str, setting: float, ask: Callable[[Worker], dict[str, Any]]
    ) -> list[Measured]:
        found = {worker.name: Measured(part, setting, worker.name) for worker in self.workers}
        for _ in range(ROUNDS):
            for worker in self._order.sample(self.workers, len(self.workers)):
                with worker.turn():
                    worker.ask("warm")
                    found[worker.name].add(ask(worker))
        return list(found.values())

    def calls(self, part: str, setting: float, callers: int) -> list[Measured]:
        """Calls of so many callers."""
        asked = {"seconds": self._turn, "callers": callers}
        return self._rounds(part, setting, lambda worker: worker.ask("calls", **asked)[0])

    def busy(self, counts: Sequence[float]) -> Iterator[Measured]:
        """One caller beside busy processes."""
        for count in counts:
            with busy_processes(int(count)):
                yield from self.calls("busy", count, 1)

    def callers(self, counts: Sequence[float]) -> Iterator[Measured]:
        for count in counts:
            yield from self.calls("callers", count, int(count))

    def arrivals(self, shares: Sequence[float]) -> Iterator[Measured]:
        """Requests that come at random."""
        reached = self.calls("capacity", CAPACITY_CALLERS, CAPACITY_CALLERS)
        yield from reached
        capacity = {m.engine: len(m.taken) / m.seconds for m in reached}

        def ask(worker: Worker) -> dict[str, Any]:
            rate = share * capacity[worker.name]
            given = {"seconds": self._turn, "rate": rate, "callers": ARRIVAL_CALLERS}
            return worker.ask("arrivals", **given)[0]

        for share in shares:
            yield from self._rounds("arrivals", share, ask)

    def quota(self, limits: Sequence[float]) -> Iterator[Measured]:
        """One caller of an engine that was loaded with a quota, one engine after the other."""
        for limit in limits:
            for name in [worker.name for worker in self.workers]:
                worker = Worker(name, self._job)
                quota = Quota(worker, limit)
                measured = Measured("quota", limit, name)
                try:
                    with quota.turn():
                        worker.load()
                        worker.ask("warm")
                        measured.add(worker.ask("calls", seconds=ROUNDS * self._turn, callers=1)[0])
                    yield measured
                except EngineError as error:
                    self.failures[f"{name} with {limit} processors"] = str(error)
                finally:
                    worker.close()
                    quota.close()


def measure(job: Job, chosen: argparse.Namespace) -> dict[str, Any]:
    """All parts that were asked for, as one dictionary that JSON can hold."""
    load = os.getloadavg()[0]
    bench = Bench(job, chosen.engines, chosen.seconds)
    rows = []
    try:
        for part in chosen.only:
            for measured in getattr(bench, part)(getattr(chosen, part)):
                rows.append(measured.figures())
                show(rows[-1])
    finally:
        bench.close()
    machine = {"cpu": cpu_name(), "cores": os.cpu_count(), "load": load}
    model = {"model": job.model, "shape": job.shape, "threads": job.threads}
    return {"job": model, "machine": machine, "rows": rows, "failures": bench.failures}


# ---- the soak ------------------------------------------------------------------------------------


def soak(minutes: float) -> int:
    """Everything at once in another process; its exit status."""
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "tests.reliability.traffic"]
    with busy_processes(1):
        return subprocess.run([*command, "--seconds", str(60 * minutes)], cwd=root).returncode


# ---- command line ------------------------------------------------------------------------------

COLUMNS = ("part", "setting", "engine", "calls", "per_second", "p50", "p90", "p99", "max")
WIDTHS = (9, 8, 15, 7, 11, 9, 9, 9, 9)


def line(cells: Sequence[Any]) -> str:
    return "  ".join(f"{cell!s:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True))


def show(row: dict[str, Any]) -> None:
    """Print one row of the table, as soon as it is known."""
    print(line([row[column] for column in COLUMNS]), flush=True)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    engines = [name for name in Engine.registry if name != "peak"]
    parser.add_argument("--model", default="resnet_18", help="a name that `lucid models` lists")
    parser.add_argument("--onnx", nargs="+", type=Path, help="files of one float32 input instead")
    parser.add_argument("--size", type=int, help="of images; by default the model's own")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engines", nargs="+", default=ENGINES, choices=engines)
    parser.add_argument("--only", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    numbers = {"busy": (0, 1, 2, 4), "quota": (0.5, 1, 1.5), "callers": (1, 2, 8, 64)}
    meanings = {"busy": "processes beside", "quota": "processors", "callers": "threads that call"}
    numbers["arrivals"], meanings["arrivals"] = (0.5, 0.8, 0.95), "shares of the capacity"
    for part, default in numbers.items():
        told = f"{meanings[part]}; by default {' '.join(map(str, default))}"
        parser.add_argument(f"--{part}", nargs="+", type=float, default=default, help=told)
    parser.add_argument("--json", type=Path, help="write a list with a record a network here")
    parser.add_argument("--workdir", type=Path, help="keep weights, models, references, logs here")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="instead: everything at once")
    return parser.parse_args()


def main() -> int:
    """The command line; 1 when an engine that was asked for failed."""
    chosen = options()
    if chosen.soak:
        return soak(chosen.soak)
    settings = {"batch": 1, "callers": 1, "isa": "native", "precision": "fast", "int8": False}
    results = []
    with contextlib.ExitStack() as stack:
        folder = chosen.workdir or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        for job in jobs(argparse.Namespace(**{**vars(chosen), **settings}), folder):
            if code := prepared(job):
                return code
            print(f"{job.model}, {'x'.join(map(str, job.shape))}, {job.threads} threads; ms")
            print(line(COLUMNS))
            results.append(measure(job, chosen))
            for failure in results[-1]["failures"].values():
                print(f"failed: {failure}")
            if chosen.json:
                chosen.json.write_text(json.dumps(results, indent=1) + "\n")
    return 1 if any(result["failures"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())

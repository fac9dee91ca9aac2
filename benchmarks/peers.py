"""Lucid against its peers: the same network, weights and images, the machine to itself in turns.

    python benchmarks/peers.py --model resnest_50 --batch 1 --threads 2 --json result.json

Every engine runs in a worker process of its own, which answers JSON lines over pipes. All workers
but one are stopped (SIGSTOP), so that no idle spinning thread spoils its neighbour's time, and the
turns come in random order. A worker that runs nothing but fused multiply-adds takes turns like the
rest: it says what the machine could do in these very minutes. To add an engine, write one class:
see `OnnxRuntime`. Needs the `bench` extra and Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib.metadata
import json
import math
import os
import platform
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

BASE = "lucid"  # the engine the ratios are taken against
BURST = 5  # timed runs in one turn
WARM = 2  # untimed runs before them
FEWEST = 30  # timed runs below which a minimum means little

# ---- what is run: weights, images, files -------------------------------------------------------


def tensor(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value of one state-dict entry, from its name and shape alone; no branch stays silent."""
    rng = np.random.default_rng([0, zlib.crc32(key.encode())])
    kind = key.rsplit(".", 1)[-1]
    if kind == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if kind == "running_var":
        value = rng.uniform(0.5, 1.5, shape)
    elif len(shape) >= 2:  # convolutions and linear layers: He scaling
        value = rng.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
    elif (
        kind == "weight"
    ):  # batch norms; small where a branch joins the trunk, so that it stays finite
        joins = key.endswith(("bn3.weight", "downsample.2.weight"))
        value = rng.uniform(0.1, 0.3, shape) if joins else rng.uniform(0.5, 1.2, shape)
    else:  # biases and running means
        value = 0.1 * rng.standard_normal(shape)
    return value.astype(np.float32)


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """A whole state dict: {key: array} for {key: shape}."""
    return {key: tensor(key, tuple(shape)) for key, shape in shapes.items()}


@dataclass(frozen=True)
class Job:
    """What every engine is asked to run, and the files it may read."""

    model: str
    batch: int
    threads: int
    size: int
    folder: str

    def images(self) -> np.ndarray:
        """(batch, 3, size, size) float32, the same in every process."""
        shape = (self.batch, 3, self.size, self.size)
        return np.random.default_rng(shape).standard_normal(shape, np.float32)

    @property
    def weights(self) -> Path:
        return Path(self.folder, f"{self.model}.npz")

    @property
    def onnx(self) -> Path:
        return Path(self.folder, f"{self.model}-{self.size}.onnx")

    @property
    def reference(self) -> Path:
        """`logits` (batch, classes) in float64 and `flops` of one run (2 for a multiply-add)."""
        return Path(self.folder, f"{self.model}-{self.size}-batch{self.batch}.npz")


# ---- engines: one class each -------------------------------------------------------------------


class Engine(ABC):
    """A way to run the model. Lives in a worker process; imports what it needs in `load`."""

    registry: ClassVar[dict[str, type[Engine]]] = {}
    package: ClassVar[str]  # the distribution whose version is reported

    def __init_subclass__(cls, *, name: str, package: str) -> None:
        cls.registry[name] = cls
        cls.package = package

    @abstractmethod
    def load(self, job: Job) -> None:
        """Import the engine and make the model ready to run with `job.threads` threads."""

    @abstractmethod
    def run(self, images: np.ndarray) -> np.ndarray:
        """(N, 3, H, W) -> (N, classes)."""


class Lucid(Engine, name="lucid", package="lucid-compiler"):
    def load(self, job: Job) -> None:
        import lucid
        from lucid import models

        model = getattr(models, job.model)()
        with np.load(job.weights) as state:
            model.load_state_dict(dict(state))
        shape = (job.batch, 3, job.size, job.size)
        self.compiled = lucid.compile(model, shape, threads=job.threads)

    def run(self, images: np.ndarray) -> np.ndarray:
        return self.compiled(images)


class OnnxRuntime(Engine, name="onnxruntime", package="onnxruntime"):
    def load(self, job: Job) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = job.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = ort.InferenceSession(
            str(job.onnx), options, providers=["CPUExecutionProvider"]
        )

    def run(self, images: np.ndarray) -> np.ndarray:
        return self.session.run(None, {"images": images})[0]


class Peak(Engine, name="peak", package="llvmlite"):
    """No network: what the FMA units can do, in the same minutes."""

    def load(self, job: Job) -> None:
        from fma_peak import FmaLoop

        self.loop = FmaLoop(job.threads)
        self.flops = self.loop.flops

    def run(self, images: np.ndarray) -> np.ndarray:
        return self.loop.run()


# ---- the worker's side -------------------------------------------------------------------------


class Host:
    """What a worker can be asked; every public method is one request, its result the reply."""

    def __init__(self, name: str) -> None:
        self._engine = Engine.registry[name]()

    def load(self, **job: Any) -> dict[str, Any]:
        """Make the engine ready; `flops` of a run, where the engine knows better than the job."""
        self._job = Job(**job)
        self._images = self._job.images()
        start = time.perf_counter()
        self._engine.load(self._job)
        seconds = time.perf_counter() - start
        try:
            version = importlib.metadata.version(self._engine.package)
        except importlib.metadata.PackageNotFoundError:
            version = "?"
        return {"load": seconds, "version": version, "flops": getattr(self._engine, "flops", 0)}

    def check(self) -> dict[str, Any]:
        """The largest error of the logits, divided by the largest logit of the reference."""
        with np.load(self._job.reference) as data:
            expected = data["logits"]
        found = np.asarray(self._engine.run(self._images), np.float64)
        if found.shape != expected.shape:
            raise ValueError(f"logits have shape {found.shape}, not {expected.shape}")
        return {"error": float(np.abs(found - expected).max() / np.abs(expected).max())}

    def burst(self, runs: int) -> dict[str, Any]:
        """`runs` timed runs, after the untimed ones that bring caches and threads back."""
        seconds = []
        for number in range(WARM + runs):
            start = time.perf_counter()
            self._engine.run(self._images)
            if number >= WARM:
                seconds.append(time.perf_counter() - start)
        return {"seconds": seconds}

    def memory(self) -> dict[str, Any]:
        """Peak resident memory of the whole process in MiB, interpreter and images included."""
        return {"memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


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


# ---- the conductor's side ----------------------------------------------------------------------


class EngineError(Exception):
    """An engine that could not be loaded or run; the message says why, its log says more."""


Facts = dict[str, dict[str, Any]]  # engine -> what is known about it


class Worker:
    """The handle of one worker process; it runs only inside `with worker.turn()`."""

    def __init__(self, name: str, job: Job) -> None:
        self.name = name
        self.log = Path(job.folder, f"{name}.log")
        count = str(job.threads)
        settings = {
            "OMP_NUM_THREADS": count,
            "OPENBLAS_NUM_THREADS": count,
            "LUCID_CACHE_DIR": str(Path(job.folder, "lucid-cache")),
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, __file__, "worker", name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | settings,
            )
        self._stop()

    def _stop(self) -> None:
        """Stop every thread of the process, and wait until they are."""
        self.process.send_signal(signal.SIGSTOP)
        if self.process.returncode is None:
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        self.process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._stop()

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # a dead worker: the missing reply says so
            print(json.dumps({"do": do, **arguments}), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        reply = json.loads(line) if line else {"failure": f"its process died during `{do}`"}
        if "failure" in reply:
            raise EngineError(f"{self.name}: {reply['failure']} (more in {self.log.name})")
        return reply

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def ready(names: list[str], job: Job) -> tuple[list[Worker], Facts, dict[str, str]]:
    """Workers loaded, checked and stopped; the facts about each; the failures of the others."""
    workers: list[Worker] = []
    facts: Facts = {}
    failures = {}
    for name in names:
        worker = Worker(name, job)
        try:
            with worker.turn():
                found = worker.ask("load", **asdict(job))
                if name != "peak":
                    found |= worker.ask("check")
            facts[name] = found
            workers.append(worker)
        except EngineError as error:
            worker.close()
            failures[name] = str(error)
    return workers, facts, failures


def measure(workers: list[Worker], runs: int) -> dict[str, list[float]]:
    """At least `runs` times in seconds for each worker, in bursts, in a new order every round."""
    seconds: dict[str, list[float]] = {worker.name: [] for worker in workers}
    for _ in range(math.ceil(runs / BURST)):
        for worker in random.sample(workers, len(workers)):
            with worker.turn():
                seconds[worker.name] += worker.ask("burst", runs=BURST)["seconds"]
    return seconds


def compare(names: list[str], job: Job, runs: int) -> dict[str, Any]:
    """The whole benchmark as one JSON-able dictionary."""
    load_before = os.getloadavg()[0]
    workers, facts, failures = ready(["peak", *names], job)
    try:
        seconds = measure(workers, runs)
        for worker in workers:
            with worker.turn():
                facts[worker.name] |= worker.ask("memory")
    finally:
        for worker in workers:
            worker.close()
    with np.load(job.reference) as data:
        flops = float(data["flops"])
    machine: dict[str, Any] = {"cpu": cpu_name(), "cores": os.cpu_count(), "load": load_before}
    peak = facts.pop("peak", None)
    if peak is not None:
        machine["peak_gflops"] = peak["flops"] / min(seconds["peak"]) / 1e9
        machine["peak_ms"] = flops / machine["peak_gflops"] / 1e6
    return {
        "job": {key: value for key, value in asdict(job).items() if key != "folder"},
        "runs": math.ceil(runs / BURST) * BURST,
        "machine": machine,
        "gflop": flops / 1e9,
        "engines": summary(facts, seconds),
        "failures": failures,
    }


def summary(facts: Facts, seconds: Mapping[str, list[float]]) -> Facts:
    """Milliseconds of each engine, and how many times those of `BASE` they are, where it ran."""
    engines = {}
    for name, fact in facts.items():
        low, middle, high = 1e3 * np.percentile(seconds[name], [0, 50, 90])
        own = {key: value for key, value in fact.items() if key != "flops"}
        times = [round(1e3 * value, 3) for value in seconds[name]]
        engines[name] = own | {"min": low, "median": middle, "p90": high, "times": times}
    for engine in engines.values() if BASE in engines else ():
        for figure in ("min", "median"):
            engine[f"{figure}_ratio"] = engine[figure] / engines[BASE][figure]
    return engines


def cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


# ---- command line ------------------------------------------------------------------------------


def main() -> int:
    """The command line; 1 when an engine that was asked for failed."""
    if sys.argv[1:2] == ["worker"]:
        serve(sys.argv[2])
        return 0
    if sys.argv[1:2] == ["prepare"]:
        from prepare import prepare

        prepare(Job(**json.loads(sys.argv[2])), weights)
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    engines = [name for name in Engine.registry if name != "peak"]
    parser.add_argument("--model", default="resnest_50", help="a name in lucid.models")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--runs", type=int, default=40, help=f"timed runs each, {FEWEST} or more")
    parser.add_argument("--engines", nargs="+", default=engines, choices=engines)
    parser.add_argument("--json", type=Path, help="write the result, with every time, here")
    parser.add_argument("--workdir", type=Path, help="keep weights, ONNX, references, logs here")
    options = parser.parse_args()
    if options.runs < FEWEST:
        parser.error(f"--runs {options.runs}: a minimum of fewer than {FEWEST} means little")
    with contextlib.ExitStack() as stack:
        folder = options.workdir or stack.enter_context(tempfile.TemporaryDirectory())
        Path(folder).mkdir(parents=True, exist_ok=True)
        folder = str(Path(folder).resolve())
        job = Job(options.model, options.batch, options.threads, options.size, folder)
        if not all(path.exists() for path in (job.weights, job.onnx, job.reference)):
            done = subprocess.run(
                [sys.executable, "-W", "ignore", __file__, "prepare", json.dumps(asdict(job))],
                stdout=subprocess.DEVNULL,
            )
            if done.returncode:  # it has said why
                return done.returncode
        result = compare(options.engines, job, options.runs)
    from report import show

    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if result["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())

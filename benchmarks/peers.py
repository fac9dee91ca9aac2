"""Lucid against its peers: the same network, weights and images, the machine to itself in turns.

    python benchmarks/peers.py --model resnest_50 --batch 1 --threads 2 --json result.json
    python benchmarks/peers.py --threads 2 --onnx detector.onnx reader.onnx
    python benchmarks/peers.py --threads 2 --int8 --model resnet_50

Every engine runs in a worker process of its own. All workers but one are stopped (SIGSTOP), so that
no idle spinning thread spoils its neighbour's time, and the turns come in random order. A worker
that runs nothing but fused multiply-adds takes turns like the rest: it says what the machine could
do in these very minutes. To add an engine, write one class in `engines/`. Needs the `bench` extra
and Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import core_distance
from engines import Engine
from isa import hiding
from job import Job
from report import files_markdown, markdown, show, show_files
from worker import EngineError, Worker

BASE = "lucid"  # the engine the ratios are taken against
BURST = 5  # timed runs of a caller in one turn
FEWEST = 30  # timed runs below which a minimum means little
TOLERANCE = 1e-5  # the error above which an engine does not count, of float32
ROUNDED = ("lucid", "openvino")  # engines that multiply in bfloat16 where a job says so
ROUNDED_TOLERANCE = 1e-1  # theirs
FLOATS = "lucid float32"  # beside int8
ASIDE = ("peak", FLOATS, "lucid 1 thread")  # engines that are not among the peers by default
QUANTISED = [BASE, FLOATS, "onnxruntime", "openvino"]  # what runs int8 files as fast as float32

Facts = dict[str, dict[str, Any]]  # engine -> what is known about it


def ready(
    names: list[str], job: Job, settings: Mapping[str, str] | None = None
) -> tuple[list[Worker], Facts, dict[str, str]]:
    """Workers loaded, checked and stopped; the facts about each; the failures of the others."""
    workers: list[Worker] = []
    facts: Facts = {}
    failures = {}
    for name in names:
        print(f"loading {name} ...", file=sys.stderr)
        Path(job.folder, f"{name}.log").unlink(missing_ok=True)
        worker: Worker | None = None
        try:
            found = prepare_engine(name, job, settings)
            worker = Worker(name, job, settings)
            with worker.turn():
                found |= worker.load()
                if name != "peak":
                    found["error"] = worker.check()
            rounds = job.precision == "bf16" and name in ROUNDED
            limit = ROUNDED_TOLERANCE if rounds else TOLERANCE
            if not job.quantised and not found.get("error", 0) <= limit:  # NaN too
                raise EngineError(f"{name}: error {found['error']:.1e}: it does not count")
            facts[name] = found
            workers.append(worker)
        except EngineError as error:
            if worker is not None:
                worker.close()
            failures[name] = str(error)
    return workers, facts, failures


def prepare_engine(name: str, job: Job, settings: Mapping[str, str] | None) -> dict[str, Any]:
    """Let an engine convert and cache in a process that is gone before it is measured."""
    worker = Worker(name, job, settings)
    try:
        with worker.turn():
            return worker.prepare()
    finally:
        worker.close()


def measure(workers: list[Worker], runs: int) -> tuple[dict[str, list[float]], list[int]]:
    """Seconds of each engine's runs: bursts of a few, in a new random order each round; and what
    lay between two cores before each round, in nanoseconds."""
    seconds: dict[str, list[float]] = {worker.name: [] for worker in workers}
    order, distances = random.Random(0), []
    for _ in range(math.ceil(runs / BURST)):
        distances.append(core_distance.measure())
        for worker in order.sample(workers, len(workers)):
            with worker.turn():
                seconds[worker.name] += worker.burst(BURST)
    return seconds, [round(distance) for distance in distances if not math.isnan(distance)]


def compare(names: list[str], job: Job, runs: int) -> dict[str, Any]:
    """The whole benchmark as one JSON-able dictionary."""
    load_before = os.getloadavg()[0]
    settings = hiding(Path(job.folder)) if job.isa == "avx2" else {}
    workers, facts, failures = ready(["peak", *names], job, settings)
    try:
        seconds, distances = measure(workers, runs)
        for worker in workers:
            with worker.turn():
                facts[worker.name]["memory"] = worker.memory()
    finally:
        for worker in workers:
            worker.close()
    with np.load(job.reference) as data:
        flops = float(data["flops"])
    machine: dict[str, Any] = {"cpu": cpu_name(), "cores": os.cpu_count(), "load": load_before}
    if distances:
        machine["core_ns"] = [min(distances), max(distances)]
    peak = facts.pop("peak", None)
    if peak is not None:
        machine["peak_gflops"] = peak["flops"] / min(seconds["peak"]) / 1e9
        if not math.isnan(flops):
            machine["peak_ms"] = flops / machine["peak_gflops"] / 1e6
    engines = summary(facts, seconds, job)
    return {
        "job": {key: value for key, value in asdict(job).items() if key != "folder"},
        "runs": math.ceil(runs / BURST) * BURST,
        "machine": machine,
        "avx512_hidden": bool(settings),
        "gflop": flops / 1e9,
        "engines": engines,
        "fastest": fastest(engines),
        "failures": failures,
    }


def summary(facts: Facts, seconds: Mapping[str, list[float]], job: Job) -> Facts:
    """Milliseconds of each engine, and how many times those of `BASE` they are, where it ran."""
    engines = {}
    for name, fact in facts.items():
        low, middle, high = 1e3 * np.percentile(seconds[name], [0, 50, 90])
        times = [round(1e3 * value, 3) for value in seconds[name]]
        figures = {"min": low, "median": middle, "p90": high, "images_s": 1e3 * job.batch / low}
        engines[name] = fact | figures | {"times": times}
    for engine in engines.values() if BASE in engines else ():
        for figure in ("min", "median"):
            engine[f"{figure}_ratio"] = engine[figure] / engines[BASE][figure]
    return engines


def fastest(engines: Facts) -> dict[str, Any] | None:
    """The peer with the least minimum, and its time divided by `BASE`'s where that ran."""
    peers = {n: engine["min"] for n, engine in engines.items() if not n.startswith(BASE)}
    if not peers:
        return None
    name = min(peers, key=peers.__getitem__)
    return {"engine": name, "ratio": engines[name].get("min_ratio")}


def cpu_name() -> str:
    """The processor's name, with family and model: a hypervisor may hide the rest."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        facts = {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in lines)}
        if "model name" in facts:
            return f"{facts['model name']} (family {facts['cpu family']}, model {facts['model']})"
    return platform.processor() or platform.machine()


# ---- command line ------------------------------------------------------------------------------


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    engines = [name for name in Engine.registry if name not in ASIDE]
    parser.add_argument("--model", default="resnest_50", help="a name that `lucid models` lists")
    parser.add_argument("--onnx", nargs="+", type=Path, help="files of one float32 input instead")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of each caller")
    parser.add_argument("--callers", type=int, default=1, help="that call at the same time")
    parser.add_argument("--size", type=int, help="of images; by default the model's own")
    parser.add_argument("--isa", default="native", choices=["native", "avx2"])
    parser.add_argument(
        "--precision",
        default="fast",
        choices=["fast", "strict", "bf16"],
        help="Lucid's; bf16: OpenVINO's too",
    )
    parser.add_argument("--runs", type=int, default=40, help=f"timed runs each, {FEWEST} or more")
    parser.add_argument("--engines", nargs="+", default=engines, choices=[*engines, FLOATS])
    parser.add_argument("--int8", action="store_true", help=f"quantised; by default {QUANTISED}")
    parser.add_argument(
        "--json", type=Path, help="write the result, with every time, here (files: a list)"
    )
    parser.add_argument("--markdown", type=Path, help="append the table as Markdown to this file")
    parser.add_argument("--workdir", type=Path, help="keep weights, models, references, logs here")
    chosen = parser.parse_args()
    if chosen.int8 and chosen.engines is engines:
        chosen.engines = QUANTISED
    if chosen.runs < FEWEST:
        parser.error(f"--runs {chosen.runs}: a minimum of fewer than {FEWEST} means little")
    if min(chosen.batch, chosen.threads, chosen.callers) < 1:
        parser.error("--batch, --threads and --callers must be positive")
    return chosen


def jobs(chosen: argparse.Namespace, folder: Path) -> list[Job]:
    """What is to be measured. Raises UnknownNameError for a model that is not registered."""
    common = {"threads": chosen.threads, "callers": chosen.callers, "isa": chosen.isa}
    common |= {"precision": chosen.precision, "folder": str(folder.resolve())}
    common |= {"quantised": chosen.int8}
    if chosen.onnx:
        return [of_file(path, common) for path in chosen.onnx]
    from lucid.models import model_info

    _, channels, size, _ = model_info(chosen.model).input_shape
    size = chosen.size or size
    return [Job(chosen.model, chosen.batch, size=size, channels=channels, **common)]


def of_file(path: Path, common: Mapping[str, Any]) -> Job:
    """The job of an ONNX file, which says what shape its input has. Raises ValueError."""
    import onnx

    (x,) = onnx.load(path, load_external_data=False).graph.input
    lengths = tuple(d.dim_value for d in x.type.tensor_type.shape.dim)
    if not all(lengths):
        raise ValueError(f"{path}: the shape of its input is not known: {lengths}")
    file = str(path.resolve())
    return Job(path.stem, lengths[0], size=0, imported=True, file=file, lengths=lengths, **common)


def prepared(job: Job) -> int:
    """Make what is missing of the job's files in another process; its exit status."""
    needed = [job.reference, job.onnx] if job.file else [job.weights, job.onnx, job.reference]
    if all(path.exists() for path in needed):
        return 0
    command = [sys.executable, __file__, "prepare", json.dumps(asdict(job))]
    return subprocess.run(command).returncode  # it has said why


def main() -> int:
    """The command line; 1 when an engine that was asked for failed."""
    from lucid.errors import UnknownNameError

    chosen = options()
    results = []
    with contextlib.ExitStack() as stack:
        folder = chosen.workdir or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        try:
            todo = jobs(chosen, folder)
        except (UnknownNameError, ValueError) as error:
            print(error, file=sys.stderr)
            return 2
        for job in todo:
            if code := prepared(job):
                return code
            results.append(compare(chosen.engines, job, chosen.runs))
            show(results[-1])
            if chosen.json:
                record = results if chosen.onnx else results[0]
                chosen.json.write_text(json.dumps(record, indent=1) + "\n")
    if chosen.onnx:
        show_files(results)
    if chosen.markdown:
        text = files_markdown(results) if chosen.onnx else markdown(results[0])
        with chosen.markdown.open("a", encoding="utf-8") as file:
            file.write(text)
    return 1 if any(result["failures"] for result in results) else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["prepare"]:
        from prepare import prepare, prepare_file

        wanted = Job(**json.loads(sys.argv[2]))
        (prepare_file if wanted.file else prepare)(wanted)
    else:
        sys.exit(main())

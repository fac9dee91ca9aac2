"""The networks people serve: is Lucid right about them, and how fast is it beside its peers?

    python benchmarks/zoo.py --check --only resnet50 mobilenetv2_100
    python benchmarks/zoo.py --workdir /tmp/zoo --json zoo.json --markdown docs/models.md

Each network of the fixed list in `networks/` is built in PyTorch with generated weights and
exported to ONNX. `--check` compiles it from both and compares every output with PyTorch in float64,
for batches of 1, 3 and 8 with one compiled model. `--time` measures batch 1 as `peers.py` does:
Lucid, ONNX Runtime and OpenVINO from the same ONNX file, in turns. Without either, both are done.
Needs the `zoo` extra, and for times Linux and a quiet machine.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from job import Job
from networks import NETWORKS, Network
from networks.table import (
    SOURCES,
    checked,
    failures,
    figures,
    kind_of,
    markdown,
    ratio,
    replaced,
    worst_error,
)
from peers import FEWEST, compare, cpu_name

ENGINES = ("lucid", "onnxruntime", "openvino")
KEPT = ("version", "min", "median", "p90", "error", "load", "memory", "compile_cold")
KEPT += ("compile_cached",)
"""The figures of an engine that the result keeps."""
FEATURES = ("asimd", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile")
HIDDEN = ("avx512", "amx")
"""How the features begin that `isa.py` hides."""
PACKAGES = ("lucid-compiler", "torch", "torchvision", "timm", "onnx", "onnxruntime", "openvino")
BUSY = 0.5
"""The load of the machine above which times mean little."""
PATIENCE = 3600
"""Seconds after which a process that exports or checks a network is given up."""


def child(do: str, network: Network, job: Job, **more: Any) -> dict[str, Any]:
    """Let a process of its own do it, which may die: its result, or the failure and its stage."""
    words = json.dumps({"do": do, "network": network.name, "job": asdict(job), "more": more})
    log = Path(job.folder, f"{network.name}-{do}{more.get('source', '')}.log")
    environment = os.environ | {"LUCID_CACHE_DIR": str(Path(job.folder, "lucid-cache"))}
    command = [sys.executable, "-W", "ignore", __file__, "child", words]
    with log.open("w") as errors:
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=errors, env=environment, timeout=PATIENCE
            )
        except subprocess.TimeoutExpired:
            return _failed(do, f"gave up after {PATIENCE} s")
    if done.returncode:
        last = log.read_text().strip().splitlines()[-1:] or [""]
        return _failed(do, f"exit status {done.returncode}: {last[0]} (more in {log})")
    return json.loads(done.stdout)


def _failed(stage: str, reason: str) -> dict[str, Any]:
    return {"failure": {"stage": stage, "reason": reason, "where": ""}}


def serve(words: str) -> None:
    """The child's side; prints its result."""
    request = json.loads(words)
    wire = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no result
    network, job = NETWORKS[request["network"]], Job(**request["job"])
    import torch

    torch.set_num_threads(job.threads)
    if request["do"] == "export":
        from networks.files import export as do
    else:
        from networks.check import check as do
    print(json.dumps(do(network, job, **request["more"])), file=wire, flush=True)


def measured(network: Network, job: Job, runs: int) -> dict[str, Any]:
    """Times of the engines at batch 1, and the failures of those that have none."""
    found = compare(list(ENGINES), job, runs)
    engines = {
        name: {key: facts[key] for key in KEPT if key in facts}
        for name, facts in found["engines"].items()
    }
    machine = {key: found["machine"].get(key) for key in ("load", "peak_gflops", "core_ns")}
    machine |= {"date": datetime.date.today().isoformat(), "commit": commit()}
    machine["avx512_hidden"] = found.get("avx512_hidden", False)
    return {"runs": found["runs"], "engines": engines, "failures": found["failures"], **machine}


def run(chosen: argparse.Namespace, result: dict[str, Any], folder: Path) -> None:
    """Fill in `result`, and write it after every network."""
    for network in (NETWORKS[name] for name in chosen.only):
        record = result["networks"].setdefault(network.name, {})
        want_check = chosen.check and not (chosen.skip_measured and checked(record))
        want_time = chosen.time and not (chosen.skip_measured and timed(record))
        if not (want_check or want_time):
            continue
        place = str(folder)
        job = Job(
            network.name, 1, chosen.threads, network.size, place, isa=chosen.isa, imported=True
        )
        about = {"library": network.library, "size": network.size, "family": network.family}
        record.pop("failure", None)
        batches = chosen.batches if want_check else [job.batch]
        facts = child("export", network, job, batches=batches)
        if "failure" in facts:
            record |= about | {"failure": f"export: {facts['failure']['reason']}"}
        else:
            record |= about | facts
            if want_check:
                record["check"] = {
                    source: child("check", network, job, batches=batches, source=source)
                    for source in SOURCES
                }
            if want_time:
                record["time"] = measured(network, job, chosen.runs)
        if not chosen.workdir:  # nobody will look at them again
            for path in folder.glob(f"{network.name}-{network.size}*"):
                path.unlink()
        result["networks"] = {n: result["networks"][n] for n in NETWORKS if n in result["networks"]}
        result["versions"], result["machine"] = versions(), machine_facts(chosen.threads, result)
        if chosen.json:
            chosen.json.write_text(json.dumps(result, indent=1) + "\n")
        print(line(network.name, record), flush=True)


def timed(record: Mapping[str, Any]) -> bool:
    return set(record.get("time", {}).get("engines", {})) == set(ENGINES)


def line(name: str, record: Mapping[str, Any]) -> str:
    """What is said of a network when it is done."""
    errors = [worst_error(record, source) for source in SOURCES]
    shown = ", ".join("-" if e is None else f"{e:.1e}" for e in errors)
    fast = ratio(record)
    times = "" if fast is None else f"  ratio {fast:.2f}"
    return "\n    ".join([f"{name:32} error {shown}{times}", *failures(name, record)])


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def commit() -> str:
    """The commit that is measured; of what is no checkout, nothing."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return ""


def machine_facts(threads: int, result: Mapping[str, Any]) -> dict[str, Any]:
    """The processor as the engines saw it and, of all networks measured, the highest load found
    before."""
    flags: set[str] = set()
    with contextlib.suppress(OSError):
        for text in Path("/proc/cpuinfo").read_text().splitlines():
            if text.startswith(("flags", "Features")):
                flags = set(text.split())
                break
    times = [r["time"] for r in result["networks"].values() if "time" in r]
    hidden = any(time.get("avx512_hidden") for time in times)
    if hidden:
        flags = {flag for flag in flags if not flag.startswith(HIDDEN)}
    return {
        "cpu": cpu_name(),
        "features": [feature for feature in FEATURES if feature in flags],
        "avx512_hidden": hidden,
        "cores": os.cpu_count(),
        "threads": threads,
        "load": max((time["load"] for time in times), default=0.0),
    }


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="compare with PyTorch in float64")
    parser.add_argument("--time", action="store_true", help="measure beside the peers")
    parser.add_argument("--only", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 3, 8], help="to check with")
    parser.add_argument("--skip-measured", action="store_true", help="go on where --json ends")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--isa", default="native", choices=["native", "avx2"])
    parser.add_argument("--runs", type=int, default=40, help=f"timed runs each, {FEWEST} or more")
    parser.add_argument("--workdir", type=Path, help="keep ONNX files, references, logs here")
    parser.add_argument("--json", type=Path, help="read and write the result here")
    parser.add_argument(
        "--markdown",
        type=Path,
        help="write the table between this page's markers; the result is "
        "kept beside the page, in a folder of its name, with those of other kinds of machines",
    )
    chosen = parser.parse_args()
    if not (chosen.check or chosen.time):
        chosen.check = chosen.time = True
    if chosen.runs < FEWEST:
        parser.error(f"--runs {chosen.runs}: a minimum of fewer than {FEWEST} means little")
    return chosen


def draw(page: Path, result: dict[str, Any]) -> None:
    """Keep the result beside the page, and draw those of all kinds of machines into it."""
    folder = page.with_suffix("")
    folder.mkdir(exist_ok=True)
    file = folder / f"{kind_of(result)}.json"
    known = json.loads(file.read_text())["networks"] if file.exists() else {}
    networks = {
        name: known.get(name, {}) | result["networks"].get(name, {})
        for name in NETWORKS
        if name in known or name in result["networks"]
    }
    file.write_text(json.dumps(result | {"networks": networks}, indent=1) + "\n")
    kept = {
        path.stem: json.loads(path.read_text())
        for path in sorted(folder.glob("*.json"), key=lambda path: path.stem)
    }
    text = replaced(page.read_text(encoding="utf-8"), markdown(kept))
    page.write_text(text, encoding="utf-8")


def main() -> int:
    """The command line; 1 when a network fails."""
    chosen = options()
    result: dict[str, Any] = {"networks": {}}
    if chosen.json and chosen.json.exists():
        result = json.loads(chosen.json.read_text())
    if chosen.time and (load := os.getloadavg()[0]) > BUSY:
        print(f"the load is {load:.1f}: these times mean little", file=sys.stderr)
    with contextlib.ExitStack() as stack:
        folder = chosen.workdir or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        run(chosen, result, folder.resolve())
    if chosen.markdown:
        draw(chosen.markdown, result)
    print(json.dumps(figures(result["networks"])))
    return 1 if any(failures(name, r) for name, r in result["networks"].items()) else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        serve(sys.argv[2])
    else:
        sys.exit(main())

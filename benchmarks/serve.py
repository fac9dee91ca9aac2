"""`lucid serve` under load, beside ONNX Runtime behind the same server and protocol.

    python benchmarks/serve.py --seconds 20 --rounds 3
    python benchmarks/serve.py --engines lucid --soak 5

The network is resnet_18, the request one uint8 image of 224 x 224 as binary data, the answer 1000
logits as binary data. A server of each engine runs all the time, and they take turns (`--rounds`).
`capacity`: requests a second of 1 to 64 clients, each of which asks again once it has its answer,
the most of which counts. `at 80%`: random arrivals (Poisson) at four fifths of that engine's
capacity; a latency counts from when the request was to come. `--soak MINUTES`: 64 clients, and a
reload every 10 s. Every answer is compared with that of the model called alone: Lucid's bit by bit,
ONNX Runtime's to 1e-4 of the largest logit. `CPU ms` are the server's for a request: a machine that
others use too changes them less than the time.

ONNX Runtime is served by `Session` below: the application takes any model with its few methods. It
gets one call at a time on all threads, or as many calls as threads on one each (`onnxruntime x1`),
as which is faster depends on the network. `lucid x1` is as many workers as threads, of one each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

SHAPE = (1, 224, 224, 3)
IMAGES = 8
"""Different images, so that an answer that belongs to another request is noticed."""
CLIENTS = (1, 2, 4, 8, 16, 64)
SHARE = 0.8
RELOAD = 10.0
PATIENCE = 300.0
"""Seconds until a server gives a request up: many clients of a slow machine wait for long."""


# -- the engines ----------------------------------------------------------------------------


class Session:
    """ONNX Runtime as a model of the server: `threads` of each call, `calls` at the same time."""

    platform = "onnxruntime"
    images = None

    def __init__(self, path: Path, threads: int, calls: int) -> None:
        import onnxruntime as ort

        from lucid.serve.tensors import Tensor

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        (given,), (made,) = self._session.get_inputs(), self._session.get_outputs()
        self._input = given.name
        self.inputs = [Tensor(given.name, "UINT8", (-1, *SHAPE[1:]))]
        self.outputs = [Tensor(made.name, "FP32", (-1, 1000))]
        self._calls = ThreadPoolExecutor(calls)
        self.run(np.zeros(SHAPE, np.uint8))

    def run(self, image: np.ndarray) -> list[np.ndarray]:
        return self._session.run(None, {self._input: image})

    async def infer(self, inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        return await asyncio.get_running_loop().run_in_executor(self._calls, self.run, inputs[0])

    def batch_sizes(self) -> Mapping[int, int]:
        return {}


def serve_session(path: Path, threads: int, calls: int) -> None:
    """What `lucid serve` does, with another loader."""
    import uvicorn

    from lucid.serve.app import Limits, application
    from lucid.serve.server import Serving, configured, listener
    from lucid.serve.sources import Source

    make = partial(Session, threads=threads, calls=calls)
    limits = Limits(seconds=PATIENCE)
    app = partial(application, [Source("net", {"1": path})], limits, make)
    socket = listener("127.0.0.1", 0)
    print(f"http://127.0.0.1:{socket.getsockname()[1]}", flush=True)
    uvicorn.Server(configured(app, Serving())).run(sockets=[socket])


def make_models(folder: Path, network: str) -> None:
    """`net.lucid` and `net.onnx`, the same graph of uint8 images, with the same weights."""
    import lucid
    from lucid.frontend.images import takes_images
    from lucid.onnx.writer import to_onnx

    model = getattr(lucid.models, network)()
    compiled = lucid.compile(model, SHAPE, input="uint8_nhwc")
    compiled.save(folder / "net.lucid")
    graph = takes_images(lucid.trace(model, (1, SHAPE[3], *SHAPE[1:3])), lucid.vision.IMAGENET)
    (folder / "net.onnx").write_bytes(to_onnx(graph).SerializeToString())


class Server:
    """A server process with one model, `net`."""

    def __init__(self, engine: str, folder: Path, options: argparse.Namespace) -> None:
        self.engine = engine
        threads, calls = options.threads, 1
        if engine.endswith("x1"):
            threads, calls = calls, threads
        if engine.startswith("lucid"):
            command = ["-m", "lucid", "serve", "--port", "0", f"net={folder / 'net.lucid'}"]
            command += ["--threads", str(threads), "--workers", str(calls)]
            command += ["--max-batch", str(options.max_batch), "--timeout", str(PATIENCE)]
        else:
            command = [__file__, "--serve", str(folder / "net.onnx"), str(threads), str(calls)]
        self.process = subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        address = re.search(r"http://\S+?:\d+", self.process.stdout.readline())
        assert address, f"{engine} did not start"
        self.url = address[0]

    def cpu_seconds(self) -> float:
        """What its processes have taken of the processors so far."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it has ended
                fields = stat.read_text().rpartition(") ")[2].split()
                if int(fields[2]) == self.process.pid:  # its group
                    ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(60)


# -- requests -------------------------------------------------------------------------------


@dataclass
class Request:
    """An image as a request, and what is to come back."""

    body: bytes
    header: int
    expected: np.ndarray


def requests_for(engine: str, folder: Path) -> list[Request]:
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, *SHAPE), np.uint8)
    if engine.startswith("lucid"):
        import lucid

        compiled = lucid.load(folder / "net.lucid")
        name, answers = compiled.inputs[0].name, [compiled(image) for image in images]
    else:
        session = Session(folder / "net.onnx", 1, 1)
        name, answers = session.inputs[0].name, [session.run(image)[0] for image in images]
    header = json.dumps(
        {
            "inputs": [
                {
                    "name": name,
                    "datatype": "UINT8",
                    "shape": SHAPE,
                    "parameters": {"binary_data_size": images[0].nbytes},
                }
            ],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    return [
        Request(header + image.tobytes(), len(header), answer)
        for image, answer in zip(images, answers, strict=True)
    ]


@dataclass
class Result:
    """Requests of one measurement: seconds of each, those that were lost, those that were refused
    by the status of the answer, and wrong answers; how long it took, and what the server took of
    the processors."""

    seconds: list[float] = field(default_factory=list)
    lost: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    wrong: int = 0
    elapsed: float = 0.0
    cpu: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.seconds) / self.elapsed

    def percentile(self, share: float) -> float:
        return 1000 * float(np.percentile(self.seconds, share)) if self.seconds else float("nan")


class Load:
    """Requests to one server over kept connections."""

    def __init__(self, http: Any, server: Server, requests: Sequence[Request]) -> None:
        self._http, self.server, self._requests = http, server, requests
        self._turn = 0

    async def one(self, result: Result, began: float) -> None:
        self._turn += 1
        request = self._requests[self._turn % IMAGES]
        headers = {"Inference-Header-Content-Length": str(request.header)}
        url = f"{self.server.url}/v2/models/net/infer"
        try:
            async with self._http.post(url, data=request.body, headers=headers) as reply:
                body = await reply.read()
                if reply.status != 200:
                    print(f"refused: {reply.status}: {body[:200]!r}", file=sys.stderr)
                    result.refused[reply.status] += 1
                    return
                length = int(reply.headers["Inference-Header-Content-Length"])
        except Exception as error:
            print(f"lost: {error!r}", file=sys.stderr)
            result.lost += 1
            return
        result.seconds.append(time.perf_counter() - began)
        found = np.frombuffer(body[length:], np.float32).reshape(request.expected.shape)
        result.wrong += not self._same(found, request.expected)

    def _same(self, found: np.ndarray, expected: np.ndarray) -> bool:
        if self.server.engine.startswith("lucid"):
            return found.tobytes() == expected.tobytes()
        return bool(np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max())

    async def closed(self, clients: int, seconds: float) -> Result:
        """Clients that ask again once they have their answer."""
        result, start = Result(), time.perf_counter()

        async def client() -> None:
            while time.perf_counter() - start < seconds:
                await self.one(result, time.perf_counter())

        await asyncio.gather(*(client() for _ in range(clients)))
        result.elapsed = time.perf_counter() - start
        return result

    async def open(self, rate: float, seconds: float) -> Result:
        """Random arrivals at a rate."""
        result, start, tasks = Result(), time.perf_counter(), []
        arrival, chance = start, random.Random(0)
        while (arrival := arrival + chance.expovariate(rate)) < start + seconds:
            await asyncio.sleep(max(0.0, arrival - time.perf_counter()))
            tasks.append(asyncio.create_task(self.one(result, arrival)))
        await asyncio.gather(*tasks)
        result.elapsed = time.perf_counter() - start
        return result

    async def soak(self, minutes: float) -> Result:
        """64 clients, and a reload every 10 s."""

        async def reload() -> None:
            while True:
                await asyncio.sleep(RELOAD)
                url = f"{self.server.url}/v2/repository/models/net/load"
                async with self._http.post(url) as reply:
                    assert reply.status == 200, await reply.text()

        reloading = asyncio.create_task(reload())
        try:
            return await self.closed(max(CLIENTS), 60 * minutes)
        finally:
            assert not reloading.done(), reloading.exception()
            reloading.cancel()


# -- measuring ------------------------------------------------------------------------------


async def measure(servers: Mapping[str, Server], folder: Path, options: argparse.Namespace) -> Any:
    import aiohttp

    told: dict[str, dict[str, Any]] = {name: {} for name in servers}
    timeout, limit = aiohttp.ClientTimeout(total=PATIENCE + 30), aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=limit) as http:
        loads = {n: Load(http, server, requests_for(n, folder)) for n, server in servers.items()}
        await asyncio.gather(*(_ready(http, server) for server in servers.values()))
        if options.soak:
            for name, load in loads.items():
                told[name]["soak"] = _told(name, "soak", await load.soak(options.soak))
            return told
        best = dict.fromkeys(servers, 0.0)
        for clients in options.clients:
            rows = await _turns(
                loads, options, lambda load, _, n=clients: load.closed(n, options.seconds)
            )
            for name, result in rows.items():
                told[name][f"{clients} clients"] = _told(name, f"{clients} clients", result)
                best[name] = max(best[name], result.rate)
        rows = await _turns(
            loads, options, lambda load, name: load.open(SHARE * best[name], options.seconds)
        )
        for name, result in rows.items():
            told[name]["at 80%"] = _told(name, "at 80%", result)
            told[name]["capacity"] = best[name]
    return told


async def _ready(http: Any, server: Server) -> None:
    while True:
        async with http.get(f"{server.url}/v2/health/ready") as reply:
            if reply.status == 200:
                return


async def _turns(
    loads: Mapping[str, Load],
    options: argparse.Namespace,
    measurement: Callable[[Load, str], Awaitable[Result]],
) -> dict[str, Result]:
    """One measurement of all engines, in turns."""
    results = {name: Result() for name in loads}
    for _ in range(options.rounds):
        for name, load in loads.items():
            before = load.server.cpu_seconds()
            part, whole = await measurement(load, name), results[name]
            whole.cpu += load.server.cpu_seconds() - before
            whole.seconds += part.seconds
            whole.lost += part.lost
            whole.refused += part.refused
            whole.wrong += part.wrong
            whole.elapsed += part.elapsed
    return results


def _told(engine: str, what: str, result: Result) -> dict[str, Any]:
    p50, p99 = result.percentile(50), result.percentile(99)
    print(
        f"{engine:15} {what:11} {result.rate:7.1f} requests/s  p50 {p50:7.1f} ms  p99 {p99:7.1f} "
        f"ms  ({p99 / p50:.1f} x)  {1000 * result.cpu / max(1, len(result.seconds)):.1f} CPU ms "
        f"each; {len(result.seconds)} requests, {result.lost} lost, "
        f"{dict(result.refused)} refused by status, {result.wrong} wrong",
        flush=True,
    )
    row = asdict(result) | {"rate": result.rate, "p50_ms": p50, "p99_ms": p99}
    row["refused"] = dict(result.refused)
    del row["seconds"]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", nargs="+", default=["lucid", "onnxruntime", "onnxruntime x1"])
    parser.add_argument("--network", default="resnet_18", help="one of `lucid models`")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--max-batch", type=int, default=8, help="Lucid's")
    parser.add_argument("--clients", nargs="+", type=int, default=CLIENTS)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--soak", type=float, metavar="MINUTES")
    parser.add_argument("--workdir", type=Path, help="keeps the models")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        path, threads, calls = options.serve
        serve_session(Path(path), int(threads), int(calls))
        return
    with ExitStack() as stack:
        folder = options.workdir or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "net.onnx").exists():
            make_models(folder, options.network)
        servers = {
            name: stack.enter_context(Server(name, folder, options)) for name in options.engines
        }
        told = asyncio.run(measure(servers, folder, options))
    if options.json:
        options.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()

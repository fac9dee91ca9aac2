"""The ASGI application: the protocol's addresses, bodies, limits and errors.

The event loop reads and writes, and waits for models; it computes nothing. A body is read before
its request takes a place in the queue of a model, so a slow client holds none.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import lucid
from lucid.serve.bodies import Bodies
from lucid.serve.errors import RequestError, require
from lucid.serve.fleet import Fleet
from lucid.serve.metrics import Metrics
from lucid.serve.model import run
from lucid.serve.protocol import (
    HEADER,
    LARGEST_JSON,
    Answer,
    header_length,
    read_json,
    read_request,
    write_answer,
)
from lucid.serve.repository import LOOK, Loader, Repository, Served
from lucid.serve.sources import Source

log = logging.getLogger("lucid.serve")

AGAIN = 2.0
"""Seconds after which a worker whose models cannot be loaded tries again."""


@dataclass(frozen=True)
class Limits:
    """`body`: bytes; `bodies`: bytes of all that a worker holds; `queue`: requests for a model that
    wait or run; `seconds`: from a whole body to its answer; `body_seconds`: for a body to arrive.
    `control`: whether requests may load and unload models. `drain`: seconds between being told to
    end and closing, while not `ready`."""

    body: int = 64 << 20
    bodies: int = 1 << 30
    queue: int = 256
    seconds: float = 30.0
    body_seconds: float = 30.0
    control: bool = True
    drain: float = 0.0


def application(
    sources: Sequence[Source], limits: Limits, loader: Loader, fleet: Fleet | None = None
) -> Starlette:
    """The application that serves these models, which `loader` makes of files."""
    fleet = fleet or Fleet([source.name for source in sources])
    service = _Service(sources, limits, loader, fleet)
    one = "/v2/models/{name}"
    version = "/v2/models/{name}/versions/{version}"
    repository = "/v2/repository"
    return Starlette(
        routes=[
            Route("/v2", service.server),
            Route("/v2/", service.server),
            Route("/v2/health/live", service.live),
            Route("/v2/health/ready", service.ready),
            *(Route(at, service.describe) for at in (one, version)),
            *(Route(f"{at}/ready", service.model_ready) for at in (one, version)),
            *(Route(f"{at}/infer", service.infer, methods=["POST"]) for at in (one, version)),
            Route(f"{repository}/index", service.index, methods=["POST"]),
            Route(f"{repository}/models/{{name}}/load", service.load, methods=["POST"]),
            Route(f"{repository}/models/{{name}}/unload", service.unload, methods=["POST"]),
            Route("/metrics", service.measured),
        ],
        middleware=[Middleware(_Parting, service=service)],
        exception_handlers={
            RequestError: _refused,
            HTTPException: _no_such_address,
            ClientDisconnect: _gone,
            Exception: _defect,
        },
        lifespan=service.lifespan,
    )


class _Service:
    """What the addresses do."""

    def __init__(
        self, sources: Sequence[Source], limits: Limits, loader: Loader, fleet: Fleet
    ) -> None:
        self._limits, self._fleet = limits, fleet
        self._bodies = Bodies(limits.body_seconds, max(limits.body, limits.bodies))
        self._metrics = metrics = Metrics()
        self._repository = Repository(sources, fleet, loader, metrics.loaded, metrics.look_at)
        self.ending = False

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._note_the_end()
        await self._start()
        task = asyncio.create_task(self._look())
        try:
            yield
        finally:
            task.cancel()

    async def _start(self) -> None:
        """Load the models. What the first worker cannot load ends the server; while others answer,
        a worker tries until it can, and takes no connections before."""
        while True:
            try:
                return await self._repository.start()
            except Exception as error:
                if not self._fleet.has_started:
                    raise
                log.error("not started yet, but trying: %s: %s", type(error).__name__, error)
            until = time.monotonic() + AGAIN
            while time.monotonic() < until:
                await asyncio.sleep(LOOK)
                if self.ending:
                    return await asyncio.sleep(self._limits.drain)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            try:
                self._metrics.look(self._repository)
                await self._repository.follow()
            except Exception:
                log.exception("a look at the other workers failed")

    def _note_the_end(self) -> None:
        """From SIGTERM on not be ready; the server's own handler takes it after `drain`."""
        if threading.current_thread() is not threading.main_thread():
            return
        closing, loop = signal.getsignal(signal.SIGTERM), asyncio.get_running_loop()
        if not callable(closing):
            return

        def ends(number: int, frame: FrameType | None) -> None:
            self.ending = True
            if self._limits.drain:
                loop.call_soon_threadsafe(
                    loop.call_later, self._limits.drain, closing, number, None
                )
            else:
                closing(number, frame)

        signal.signal(signal.SIGTERM, ends)

    # -- about the server and its models ----------------------------------------------------

    async def server(self, _: Request) -> Response:
        about = {
            "name": "lucid",
            "version": lucid.__version__,
            "extensions": ["binary_tensor_data", "model_repository"],
        }
        return JSONResponse(about)

    async def live(self, _: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, _: Request) -> Response:
        ready = self._repository.is_ready and not self.ending
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def describe(self, request: Request) -> Response:
        served = self._find(request)
        inputs: list[dict[str, Any]] = [_described(tensor) for tensor in served.model.inputs]
        if served.model.images:
            inputs[0]["parameters"] = {"images": "BYTES [-1]: encoded images are taken too"}
        about = {
            "name": served.entry.source.name,
            "versions": sorted(served.entry.models, key=int),
            "platform": served.model.platform,
            "inputs": inputs,
            "outputs": [_described(tensor) for tensor in served.model.outputs],
        }
        return JSONResponse(about)

    async def model_ready(self, request: Request) -> Response:
        ready = True
        try:
            self._find(request)
        except RequestError as error:
            if error.status != 503:
                raise
            ready = False
        about = {"name": request.path_params["name"], "ready": ready}
        return JSONResponse(about, 200 if ready else 503)

    def _find(self, request: Request) -> Served:
        path = request.path_params
        return self._repository.find(path["name"], path.get("version"))

    async def measured(self, _: Request) -> Response:
        self._metrics.look(self._repository)
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    # -- the repository ---------------------------------------------------------------------

    async def index(self, request: Request) -> Response:
        ready = (await self._document(request)).get("ready", False)
        require(isinstance(ready, bool), "`ready` is true or false")
        return JSONResponse(self._repository.index(ready))

    async def load(self, request: Request) -> Response:
        return await self._change(request, self._repository.load)

    async def unload(self, request: Request) -> Response:
        return await self._change(request, self._repository.unload)

    async def _change(self, request: Request, change: Callable[[str], Awaitable[None]]) -> Response:
        name = self._repository.entry(request.path_params["name"]).source.name
        if not self._limits.control:
            raise RequestError(403, "this server was started with --no-control")
        parameters = (await self._document(request)).get("parameters") or {}
        require(
            isinstance(parameters, dict) and set(parameters) <= {"unload_dependents"},
            "a model is loaded from the files that the server was started with: no parameters",
        )
        await change(name)
        return JSONResponse({})

    async def _document(self, request: Request) -> dict[str, Any]:
        most = min(self._limits.body, LARGEST_JSON)
        async with self._bodies.read(request, most, 0) as body:
            return read_json(body)

    # -- inference --------------------------------------------------------------------------

    async def infer(self, request: Request) -> Response:
        name = request.path_params["name"]
        labels, status = (name if name in self._repository.entries else "", ""), 500
        try:
            served = self._find(request)
            labels = (name, served.version)
            response = await self._infer(request, served)
            status = 200
            return response
        except RequestError as error:
            status = error.status
            raise
        except ClientDisconnect:
            status = 499
            raise
        finally:
            self._metrics.requests.labels(*labels, str(status)).inc()

    async def _infer(self, request: Request, served: Served) -> Response:
        encoding = request.headers.get("content-encoding", "identity")
        require(encoding == "identity", "bodies are taken without a Content-Encoding")
        header = header_length(request.headers.get(HEADER))
        async with self._bodies.read(request, self._limits.body, header or 0) as body:
            header_length(request.headers.get(HEADER), len(body))
            began = time.perf_counter()
            with served.entry.slot(self._limits.queue):
                answer = await self._answer(served, body, header)
        seconds = time.perf_counter() - began
        self._metrics.seconds.labels(served.entry.source.name, served.version).observe(seconds)
        if answer.header is None:
            return Response(answer.body, media_type="application/json")
        return Response(
            answer.body, headers={HEADER: str(answer.header)}, media_type="application/octet-stream"
        )

    async def _answer(self, served: Served, body: memoryview, header: int | None) -> Answer:
        model = served.model
        asked = read_request(body, header, model.inputs, model.outputs, model.images is not None)
        try:
            async with asyncio.timeout(min(self._limits.seconds, asked.timeout or float("inf"))):
                results = await run(model, asked.inputs)
        except TimeoutError as error:
            raise RequestError(503, "not answered in time", retry_after=1) from error
        name = served.entry.source.name
        return write_answer(name, served.version, asked, model.outputs, results)


class _Parting:
    """Once the server is told to end, each answer is the last of its connection: the next request
    goes to another server, and none meets a port that closes."""

    def __init__(self, app: ASGIApp, service: _Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def parting(message: Message) -> None:
            if message["type"] == "http.response.start" and self._service.ending:
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, parting)


def _described(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


# -- errors ---------------------------------------------------------------------------------


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    if error.status == 408:
        headers["connection"] = "close"
    return JSONResponse({"error": error.message}, error.status, headers)


async def _no_such_address(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _gone(_: Request, __: Exception) -> Response:
    """Nobody reads it."""
    return Response(status_code=400)


async def _defect(_: Request, __: Exception) -> Response:
    """The log has more of it."""
    return JSONResponse({"error": "the server failed; its log says how"}, 500)

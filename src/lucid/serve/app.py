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

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import lucid
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

ALIGNMENT = 64
"""The first tensor of a body lies at a multiple of so many bytes, so that it need not be copied."""


@dataclass(frozen=True)
class Limits:
    """`body`: bytes; `queue`: requests for a model that wait or run; `seconds`: from a whole body
    to its answer; `body_seconds`: for a body to arrive. `control`: whether requests may load and
    unload models. `drain`: seconds between being told to end and closing, while not `ready`."""

    body: int = 64 << 20
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
        self._limits = limits
        self._metrics = Metrics()
        self._repository = Repository(sources, fleet, loader, self._metrics.loaded)
        self._ending = False

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        await self._repository.start()
        self._note_the_end()
        task = asyncio.create_task(self._look())
        try:
            yield
        finally:
            task.cancel()

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
            self._ending = True
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
        ready = self._repository.is_ready and not self._ending
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
        return read_json(await self._body(request, min(self._limits.body, LARGEST_JSON), 0))

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
        body = await self._body(request, self._limits.body, header or 0)
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

    async def _body(self, request: Request, most: int, header: int) -> memoryview:
        """The whole body, of `most` bytes at most, what follows its header aligned. Raises
        RequestError."""
        told = request.headers.get("content-length", "")
        if told.isdecimal():
            if len(told) > 15 or int(told) > most:
                raise RequestError(413, f"a body has {most} bytes at most, this one {told[:20]}")
            most = int(told)
        room = np.empty(most + ALIGNMENT, np.uint8)
        start = -(room.ctypes.data + header) % ALIGNMENT
        body, size = room.data[start:], 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                async for chunk in request.stream():
                    if size + len(chunk) > most:
                        raise RequestError(413, f"a body has {most} bytes at most")
                    body[size : size + len(chunk)] = chunk
                    size += len(chunk)
        except TimeoutError as error:
            raise RequestError(408, "the body did not arrive in time") from error
        return body[:size]


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

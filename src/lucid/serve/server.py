"""Runs the application on uvicorn: one process, or several that share the listening socket.

uvicorn and Starlette, rather than a server that is no Python: both are small, well kept and
everywhere, the parsers are C (httptools), and a model's call takes longer than they do by far.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from uvicorn.config import STARTUP_FAILURE
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors import Multiprocess

from lucid.artifact.contents import Artifact
from lucid.runtime.processors import default_threads
from lucid.serve.app import Limits, application
from lucid.serve.fleet import Fleet
from lucid.serve.metrics import FOLDER
from lucid.serve.model import Batching, LucidModel
from lucid.serve.sources import Source

STARTING = 60
"""Seconds for which a worker may be deaf before it is replaced: while it imports, on a busy machine
or with large models, it does not listen."""
KEPT = 75
"""Seconds for which an idle connection is kept, longer than clients keep theirs: a request that
meets its end would be lost."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Serving:
    """Where and how to serve. `threads`: of each worker's calls, None for its share of all that
    the process may use. `header_seconds`: for the head of a request to arrive; `grace`: for
    requests to finish at the end. `connections`: of a worker at most."""

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    threads: int | None = None
    max_batch: int = 8
    max_delay_ms: float = 2.0
    header_seconds: float = 10.0
    grace: float = 30.0
    connections: int = 1000
    limits: Limits = field(default_factory=Limits)


def serve(sources: Sequence[Source], serving: Serving, started: Callable[[str, int], None]) -> None:
    """Serve until SIGTERM or SIGINT. `started` is told the address and the threads of a worker once
    clients may connect, which the workers answer when they have loaded their models. Raises
    ModelFileError for files that cannot be read, OSError for an address that is taken, and
    SystemExit(3) where a model cannot be served, which only its worker notices."""
    for source in sources:
        for path in source.versions().values():
            Artifact.open(path)
    threads = serving.threads or max(1, default_threads() // serving.workers)
    fleet = Fleet([source.name for source in sources], serving.workers)
    maker = Maker(tuple(sources), serving, threads, fleet)
    taken = listener(serving.host, serving.port)
    host, port = taken.getsockname()[:2]
    started(f"http://{f'[{host}]' if ':' in host else host}:{port}", threads)
    config = configured(maker, serving)
    for number in (signal.SIGTERM, signal.SIGINT):  # which uvicorn raises anew when it is done
        signal.signal(number, lambda *_: None)
    if serving.workers == 1:
        uvicorn.Server(config).run(sockets=[taken])
        return
    with tempfile.TemporaryDirectory(prefix="lucid-serve-") as folder:
        os.environ.setdefault(FOLDER, folder)
        supervisor = Multiprocess(config, sockets=[taken])
        supervisor.run()
        if any(worker.exitcode == STARTUP_FAILURE for worker in supervisor.processes):
            sys.exit(STARTUP_FAILURE)


@dataclass(frozen=True)
class Maker:
    """Makes the application in each worker; it travels there."""

    sources: tuple[Source, ...]
    serving: Serving
    threads: int
    fleet: Fleet

    def __call__(self) -> Starlette:
        serving = self.serving
        batching = Batching(serving.max_batch, serving.max_delay_ms, self.threads)
        loader = partial(LucidModel, batching=batching, queue=serving.limits.queue)
        return application(self.sources, serving.limits, loader, self.fleet)


def configured(maker: Callable[[], Starlette], serving: Serving) -> uvicorn.Config:
    """uvicorn's settings for the application that `maker` makes."""
    return uvicorn.Config(
        maker,
        factory=True,
        http=cast(
            "Any",
            partial(
                LimitedProtocol, patience=serving.header_seconds, connections=serving.connections
            ),
        ),
        ws="none",
        lifespan="on",
        workers=serving.workers,
        access_log=False,
        log_level="info",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(serving.grace)),
        timeout_keep_alive=KEPT,
        timeout_worker_healthcheck=STARTING,
    )


def listener(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=1024)


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP, for which the head of a request has to arrive within `patience` seconds: of
    the first from the connection on, of others from their first byte on. (uvicorn itself waits for
    ever.) A connection beyond so many `connections` is closed at once. (uvicorn itself would then
    refuse requests of all connections.)"""

    _late: asyncio.TimerHandle | None = None

    def __init__(self, *arguments: Any, patience: float, connections: int, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.patience, self.most = patience, connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.close()
        else:
            self._wait()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        self._arrived()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrived()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._arrived()
        self._late = self.loop.call_later(self.patience, self.transport.close)

    def _arrived(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

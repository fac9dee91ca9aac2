"""Reading the bodies of requests, within limits of time and memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
from starlette.requests import Request

from lucid.serve.errors import RequestError

ALIGNMENT = 64
"""The first tensor of a body lies at a multiple of so many bytes, so that it need not be copied."""


class Bodies:
    """The bodies of a worker: each arrives within `seconds`, and those of requests that are not
    answered yet have `total` bytes at most. Bytes count when they have arrived: who only announces
    a large body takes nothing from others."""

    def __init__(self, seconds: float, total: int) -> None:
        self._seconds, self._total = seconds, total
        self._held = 0

    @asynccontextmanager
    async def read(self, request: Request, most: int, header: int) -> AsyncIterator[memoryview]:
        """The whole body, of `most` bytes at most, what follows its header aligned; held until the
        end of the block. Raises RequestError."""
        size = 0
        told = request.headers.get("content-length", "")
        if told.isdecimal():
            if len(told) > 15 or int(told) > most:
                raise RequestError(413, f"a body has {most} bytes at most, this one {told[:20]}")
            most = int(told)
            self._require_room(most)
        room = np.empty(most + ALIGNMENT, np.uint8)  # memory is taken as it is written
        start = -(room.ctypes.data + header) % ALIGNMENT
        body = room.data[start:]
        try:
            try:
                async with asyncio.timeout(self._seconds):
                    async for chunk in request.stream():
                        if size + len(chunk) > most:
                            raise RequestError(413, f"a body has {most} bytes at most")
                        self._require_room(len(chunk))
                        body[size : size + len(chunk)] = chunk
                        size += len(chunk)
                        self._held += len(chunk)
            except TimeoutError as error:
                raise RequestError(408, "the body did not arrive in time") from error
            yield body[:size]
        finally:
            self._held -= size

    def _require_room(self, size: int) -> None:
        if self._held + size > self._total:
            raise RequestError(
                503, f"the bodies of other requests are {self._held} bytes already", retry_after=1
            )

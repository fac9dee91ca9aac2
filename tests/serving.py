"""The server's application without a socket, and a model that does as it is told."""

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np

from lucid.serve.app import Limits, application
from lucid.serve.sources import Source
from lucid.serve.tensors import Tensor


@dataclass
class Reply:
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        """The message of an error, which is the protocol's."""
        assert set(self.json) == {"error"}
        return self.json["error"]


class Client:
    """Calls the application as a server would."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, method, path, body=b"", headers=None, pause=0.0):
        """`body`: bytes, an object to write as JSON, or a list of chunks with a pause between."""
        if not isinstance(body, bytes | list):
            body = json.dumps(body).encode()
        chunks = body if isinstance(body, list) else [body]
        given = {"content-length": str(sum(map(len, chunks))), **(headers or {})}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "http_version": "1.1",
            "server": ("test", 80),
            "client": ("test", 1),
            "headers": [(k.lower().encode(), str(v).encode("latin-1")) for k, v in given.items()],
        }
        left, sent = list(chunks), []

        async def receive():
            if not left:
                await asyncio.sleep(3600)
            await asyncio.sleep(pause)
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

        async def send(message):
            sent.append(message)

        await self.app(scope, receive, send)
        names = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
        return Reply(sent[0]["status"], names, b"".join(m.get("body", b"") for m in sent[1:]))

    async def infer(self, inputs, path="/v2/models/net", **rest):
        return await self("POST", f"{path}/infer", {"inputs": inputs, **rest})


@asynccontextmanager
async def started(app):
    """A client of an application that has started, and ends with the block."""
    async with app.router.lifespan_context(app):
        yield Client(app)


class Doubler:
    """A model that doubles x: FP32[-1, 2], when it is let."""

    platform = "test"
    inputs = (Tensor("x", "FP32", (-1, 2)),)
    outputs = (Tensor("y", "FP32", (-1, 2)),)
    images = None

    def __init__(self, factor=2.0):
        self.factor = factor
        self.open = asyncio.Event()
        self.open.set()
        self.begun = 0

    async def infer(self, inputs):
        self.begun += 1
        await self.open.wait()
        return [np.float32(self.factor) * inputs[0]]

    def batch_sizes(self):
        return {1: self.begun}


def serving(loader, path="net.lucid", name="net", **limits):
    """The application with one model of this name, which `loader` makes."""
    return application([Source(name, {"1": path})], Limits(**limits), loader)


ROW = [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]
"""What Doubler takes."""

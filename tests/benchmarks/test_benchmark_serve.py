"""The load that `benchmarks/serve.py` makes: what is lost, refused or wrong is counted as that."""

import asyncio
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np

FOLDER = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(FOLDER))

import serve  # noqa: E402 (a script's folder, not a package)


class Http:
    """Answers every request with the same logits, fails each third, and refuses each fourth."""

    def __init__(self, logits):
        self.logits, self.count = logits, 0

    @asynccontextmanager
    async def post(self, url, data, headers):
        self.count += 1
        await asyncio.sleep(0)
        if self.count % 3 == 0:
            raise ConnectionResetError

        async def read():
            return b"{}" + self.logits.tobytes()

        yield SimpleNamespace(
            read=read,
            status=503 if self.count % 4 == 0 else 200,
            headers={"Inference-Header-Content-Length": "2"},
        )


def test_answers_are_counted_and_compared():
    logits = np.arange(4, dtype=np.float32)[None]
    close = logits + np.float32(1e-5)
    for engine, expected, wrong in [
        ("lucid", logits, False),
        ("lucid", close, True),
        ("onnxruntime", close, False),
        ("onnxruntime", logits[:, ::-1], True),
    ]:
        server = SimpleNamespace(engine=engine, url="http://nowhere")
        requests = [serve.Request(b"", 0, expected)] * serve.IMAGES
        for make in (lambda load: load.closed(2, 0.01), lambda load: load.open(2000, 0.01)):
            load = serve.Load(Http(logits), server, requests)
            result = asyncio.run(make(load))
            answered, lost, refused = len(result.seconds), result.lost, result.refused[503]
            asked = answered + lost + refused
            assert answered
            assert abs(lost - asked // 3) <= 1
            assert abs(refused - (asked // 4 - asked // 12)) <= 1
            assert result.wrong == (answered if wrong else 0)
            assert 0 <= result.percentile(50) <= result.percentile(99)

"""The examples for other servers, where those are installed."""

import asyncio
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "serving"
DIGITS = FOLDER.parent / "digits"


def test_mlserver(digits, digits_file, monkeypatch):
    pytest.importorskip("mlserver")
    monkeypatch.syspath_prepend(str(FOLDER))
    from mlserver import ModelSettings
    from mlserver.codecs import NumpyCodec
    from mlserver.errors import InferenceError
    from mlserver.settings import ModelParameters
    from mlserver.types import InferenceRequest
    from mlserver_runtime import LucidRuntime

    x = np.random.default_rng(0).random((2, 1, 32, 32), np.float32)

    async def main():
        parameters = ModelParameters(uri=str(digits_file))
        runtime = LucidRuntime(
            ModelSettings(name="digits", implementation=LucidRuntime, parameters=parameters)
        )
        assert await runtime.load()
        request = InferenceRequest(id="7", inputs=[NumpyCodec.encode_input("x", x)])
        answer = await runtime.predict(request)
        assert (answer.id, answer.outputs[0].name) == ("7", digits.outputs[0].name)
        np.testing.assert_array_equal(NumpyCodec.decode_output(answer.outputs[0]), digits(x))
        wrong = InferenceRequest(inputs=[NumpyCodec.encode_input("x", x[0])])
        with pytest.raises(InferenceError):
            await runtime.predict(wrong)
        assert await runtime.unload()

    asyncio.run(main())


def test_litserve(digits_file, monkeypatch):
    litserve = pytest.importorskip("litserve")
    pytest.importorskip("multipart", reason="python-multipart is not installed")
    from fastapi.testclient import TestClient

    monkeypatch.syspath_prepend(str(FOLDER))
    sys.modules.pop("litserve_app", None)
    from litserve.utils import wrap_litserve_start
    from litserve_app import LucidAPI

    server = litserve.LitServer(
        LucidAPI(str(digits_file), max_batch_size=4, batch_timeout=0.01), accelerator="cpu"
    )
    with wrap_litserve_start(server) as started, TestClient(started.app) as client:
        for digit in (3, 7):
            image = (DIGITS / f"{digit}_0.png").read_bytes()
            reply = client.post("/predict", files={"content": image})
            assert reply.json()["class"] == digit
